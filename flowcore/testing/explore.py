"""A workflow under every schedule: workers die at each write, replies and hints are lost, runs are taken over.

``explore`` runs a workflow once undisturbed, and then again and again, each time with something else going wrong. What
becomes of the run must be the same, and no rule of the protocol may be broken on the way. When it is not the same, the
schedule is made as small as possible and told in words and as a value that replays it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from flowcore.adapters.memory import MemoryStore
from flowcore.authoring.workflow import Workflow, WorkflowBuilder
from flowcore.ports import Store
from flowcore.results import RunResult
from flowcore.testing.schedule import EVERY_BLOW, Blow, Course, Schedule, Strike, smallest
from flowcore.testing.trial import Answers, Asked, Ending, Trial


class Diverged(AssertionError):  # it is named in tests as what it is
    """Under ``schedule`` the run did not become what it becomes undisturbed; the message tells the story.

    Attributes:
        schedule: the smallest one found that shows it; ``explore(..., schedule=...)`` replays it.
        differences: what was not as it had to be, one sentence each.
    """

    def __init__(self, message: str, schedule: Schedule, differences: Sequence[str]) -> None:
        super().__init__(message)
        self.schedule = schedule
        self.differences = list(differences)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """What was tried, and went well."""

    schedules: int
    """Runs, the undisturbed one among them."""
    writes: int
    """Of the undisturbed run."""
    reads: int
    """Of the undisturbed run."""
    hints: int
    """Of the undisturbed run."""
    result: RunResult[Any] = field(repr=False)
    """What became of every one of them."""


def explore(
    workflow: Workflow[Any, Any] | WorkflowBuilder[Any, Any, Any],
    input: Any = None,
    *,
    answers: Answers | None = None,
    state: Mapping[str, Any] | None = None,
    request_context: Mapping[str, Any] | None = None,
    before: Callable[[], object] | None = None,
    effects: Callable[[], Any] | None = None,
    outcome: Callable[[RunResult[Any]], Any] | None = None,
    blows: Sequence[Blow] = EVERY_BLOW,
    faults: int = 1,
    most: int | None = None,
    seed: int = 0,
    schedule: Sequence[Strike] | None = None,
    store: Callable[[], Store] = MemoryStore,
) -> Exploration:
    """Run ``workflow`` with ``input`` under many schedules; the outcome must always be that of the undisturbed run.

    Tried is every single fault: at each write the worker dies before it or after it, the store does not answer (and the
    write has happened, or not) or is too busy, somebody else writes the head or answers just before, the clock goes
    back, indexes begin to lag, or the worker freezes and is taken over; at each read it dies or gets no answer; each
    hint is lost, doubled, late or early. Whatever happens, no rule of the protocol may be broken, and no step may run
    again once its outcome is committed. Steps may run again before that: their effects have to bear it, which
    ``effects`` finds out.

    Args:
        answers: to the suspensions, and the data of events: by id (dotted, or the last one) or label, or a function of
            the open ``Wait``. What has no answer (no such key, ``KeyError``) has to have a timeout, which then passes.
        state, request_context: as ``run.start`` takes them.
        before: called before each run: set the outside world back to where it was.
        effects: what the steps have done to the outside world; compared like the outcome.
        outcome: what of the result must be the same. Left out: status, output, error, state, request context and, of
            runs that succeed, what each step gave.
        blows: what may go wrong, of all that ``Strike`` names.
        faults: how many things go wrong in one run: 2 tries all pairs as well, and so on.
        most: at most so many schedules with more than one fault, drawn by ``seed``; left out, all of them.
        seed: of the order in which parallel steps run, and of what is drawn. The same seed tries the same.
        schedule: try this one alone: what a failure before has told.
        store: makes the empty store of each run.

    Raises: Diverged, with the smallest schedule that shows the difference. ValueError when the undisturbed run cannot
        be driven to its end: its answer to a suspension is missing.

    Example:
        >>> from flowcore import StepContext, step, workflow
        >>> from flowcore.testing import explore
        >>> charged = {}
        >>> @step
        ... def charge(amount: int, ctx: StepContext) -> int:
        ...     charged[ctx.idempotency_key] = amount
        ...     return amount
        >>> flow = workflow("pay", input=int, output=int).then(charge).commit()
        >>> explore(flow, 5, before=charged.clear, effects=lambda: dict(charged)).result.output
        5
    """
    committed = workflow.commit() if isinstance(workflow, WorkflowBuilder) else workflow
    start = {"state": state, "request_context": request_context}
    asked = Asked(committed, input, start, answers or {}, before, effects, outcome, seed, store)
    return Explorer(asked, blows).explore(faults, most, None if schedule is None else tuple(schedule))


class Explorer:
    """Trial after trial against the undisturbed one."""

    def __init__(self, asked: Asked, blows: Sequence[Blow] = EVERY_BLOW) -> None:
        """Try the undisturbed one."""
        self.asked = asked
        self.blows = blows
        self.tried = 0
        self.usual = self._tried(())

    def explore(self, faults: int, most: int | None, schedule: Schedule | None) -> Exploration:
        """See ``explore``."""
        usual = self.usual
        if usual.broken or usual.result is None:
            raise self._diverged(())
        if schedule is not None:
            self.judge(schedule)
        else:
            courses: Mapping[Schedule, Course] = {(): usual.course}
            for depth in range(faults):
                left = most if depth else None
                courses = {longer: self.judge(longer) for longer in self._longer(courses, left)}
        return Exploration(
            schedules=self.tried,
            writes=len(usual.course.writes),
            reads=len(usual.course.reads),
            hints=len(usual.course.hints),
            result=usual.result,
        )

    def _longer(self, courses: Mapping[Schedule, Course], most: int | None) -> Iterator[Schedule]:
        """Each schedule with one strike more, behind those it has; or ``most`` of them."""
        every = (
            (*known, strike) for known, course in courses.items() for strike in course.strikes(self.blows, beyond=known)
        )
        if most is None:
            return every
        drawn = list(every)
        random.Random(self.asked.seed).shuffle(drawn)
        return islice(drawn, most)

    def judge(self, schedule: Schedule) -> Course:
        """Try one schedule. Raises: Diverged."""
        ending = self._tried(schedule)
        if ending.differences(self.usual):
            raise self._diverged(smallest(schedule, lambda fewer: bool(self._tried(fewer).differences(self.usual))))
        return ending.course

    def _tried(self, schedule: Schedule) -> Ending:
        self.tried += 1
        return Trial(self.asked, schedule).ending()

    def _diverged(self, schedule: Schedule) -> Diverged:
        ending = self._tried(schedule)
        differences = ending.differences(self.usual)
        blows = [ending.course.told(strike) for strike in schedule] or ["nothing at all goes wrong"]
        usual = self.usual.calls
        more = [step for step, count in sorted(ending.calls.items()) if count > usual[step]]
        again = [f"step {step!r} began {ending.calls[step]} times, undisturbed {usual[step]}" for step in more]
        lines = [f"Workflow {self.asked.workflow.id!r} does not become what it becomes undisturbed:"]
        lines += [f"  {difference}" for difference in differences]
        lines += ["when", *(f"  {blow}" for blow in blows)]
        lines += [f"({'; '.join(again)})"] if again else []
        lines += [f"To see it again: explore(..., seed={self.asked.seed}, schedule={list(schedule)!r})"]
        return Diverged("\n".join(lines), schedule, differences)
