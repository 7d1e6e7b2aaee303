"""A workflow under every schedule: workers die at each write, replies and hints are lost, runs are taken over.

``explore`` runs a workflow once undisturbed, and then again and again, each time with something else going wrong. What
becomes of the run must be the same, and no rule of the protocol may be broken on the way. When it is not the same, the
schedule is made as small as possible and told in words and as a value that replays it.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Any, NoReturn, TypeAlias

from flowcore.adapters.memory import MemoryQueue, MemoryScheduler, MemoryStore
from flowcore.app import App
from flowcore.authoring.context import StepContext
from flowcore.authoring.graph import EventNode
from flowcore.authoring.workflow import Workflow, WorkflowBuilder
from flowcore.codec import digest
from flowcore.crew import EventLoop
from flowcore.errors import OutsideError, RequestError
from flowcore.keys import RunRef, StepKey, dotted
from flowcore.model import Json, Wait
from flowcore.ports import Hint, Store
from flowcore.run import RunResult
from flowcore.testing.clock import SeededIds, VirtualClock
from flowcore.testing.crew import SteppingCrew
from flowcore.testing.faults import WRITES, Call, Fault, FaultyStore, WorkerDied
from flowcore.testing.invariants import Violation, WatchedStore
from flowcore.testing.local import LocalApp
from flowcore.testing.schedule import AtHint, Course, Schedule, Strike, smallest
from flowcore.testing.spies import spied

Answers: TypeAlias = Mapping[str, Any] | Callable[[Wait[Json]], Any]

_RUN = "explored"
_TURNS = 10_000
"""Looks at one run before it is held to go in circles."""
_LOOP = EventLoop()
"""One for all trials; started when the first coroutine appears."""
_LATE = timedelta(minutes=5)
_FROZEN = timedelta(hours=1)
"""Longer than any lease."""


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
    faults: int = 1,
    most: int | None = None,
    seed: int = 0,
    schedule: Sequence[Strike] | None = None,
    store: Callable[[], Store] = MemoryStore,
) -> Exploration:
    """Run ``workflow`` with ``input`` under many schedules; the outcome must always be that of the undisturbed run.

    Tried is every single fault: at each write the worker dies before it or after it, the store does not answer (and the
    write has happened, or not), or the worker freezes and is taken over; each hint is lost, doubled or late. Whatever
    happens, no rule of the protocol may be broken, and no step may run again once its outcome is committed. Steps may
    run again before that: their effects have to bear it, which ``effects`` finds out.

    Args:
        answers: to the suspensions, and the data of events: by id (dotted, or the last one), or a function of the open
            ``Wait``. What has no answer (no such key, ``KeyError``) has to have a timeout, which then passes.
        state, request_context: as ``run.start`` takes them.
        before: called before each run: set the outside world back to where it was.
        effects: what the steps have done to the outside world; compared like the outcome.
        outcome: what of the result must be the same. Left out: status, output, error, state, request context and, of
            runs that succeed, what each step gave.
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
    asked = _Asked(committed, input, start, answers or {}, before, effects, outcome, seed, store)
    return _Explorer(asked).explore(faults, most, None if schedule is None else tuple(schedule))


@dataclass(frozen=True, slots=True)
class _Asked:
    workflow: Workflow[Any, Any]
    input: Any
    start: Mapping[str, Any]
    answers: Answers
    before: Callable[[], object] | None
    effects: Callable[[], Any] | None
    outcome: Callable[[RunResult[Any]], Any] | None
    seed: int
    store: Callable[[], Store]


@dataclass(frozen=True, slots=True)
class _Ending:
    """What became of one trial."""

    facts: Mapping[str, Any]
    """What must be the same each time, by name."""
    broken: Sequence[str]
    """Rules that were broken on the way."""
    calls: Counter[str]
    """By step, how often it began."""
    course: Course
    result: RunResult[Any] | None

    def differences(self, usual: _Ending) -> list[str]:
        """The rules that were broken, else everything that is not as it is undisturbed."""
        if self.broken:
            return list(self.broken)
        names = sorted(self.facts.keys() | usual.facts.keys())
        pairs = [(name, self.facts.get(name, "nothing"), usual.facts.get(name, "nothing")) for name in names]
        return [f"{name}: {one!r} instead of {other!r}" for name, one, other in pairs if one != other]


class _Explorer:
    """Trial after trial against the undisturbed one."""

    def __init__(self, asked: _Asked) -> None:
        self.asked = asked
        self.tried = 0
        self.usual = self._tried(())

    def explore(self, faults: int, most: int | None, schedule: Schedule | None) -> Exploration:
        usual = self.usual
        if usual.broken or usual.result is None:
            raise self._diverged(())
        if schedule is not None:
            self._judge(schedule)
        else:
            courses: Mapping[Schedule, Course] = {(): usual.course}
            for depth in range(faults):
                left = most if depth else None
                courses = {longer: self._judge(longer) for longer in self._longer(courses, left)}
        return Exploration(
            schedules=self.tried, writes=len(usual.course.writes), hints=len(usual.course.hints), result=usual.result
        )

    def _longer(self, courses: Mapping[Schedule, Course], most: int | None) -> Iterator[Schedule]:
        """Each schedule with one strike more, behind those it has; or ``most`` of them."""
        every = ((*known, strike) for known, course in courses.items() for strike in course.strikes(beyond=known))
        if most is None:
            return every
        drawn = list(every)
        random.Random(self.asked.seed).shuffle(drawn)
        return islice(drawn, most)

    def _judge(self, schedule: Schedule) -> Course:
        ending = self._tried(schedule)
        if ending.differences(self.usual):
            raise self._diverged(smallest(schedule, lambda fewer: bool(self._tried(fewer).differences(self.usual))))
        return ending.course

    def _tried(self, schedule: Schedule) -> _Ending:
        self.tried += 1
        return _Trial(self.asked, schedule).ending()

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


class _Trial:
    """One run of the workflow under one schedule."""

    def __init__(self, asked: _Asked, schedule: Schedule) -> None:
        self.asked = asked
        self.schedule = schedule
        self.run = RunRef("default", _RUN)
        self.writes: list[str] = []
        self.hints: list[str] = []
        self.broken: list[str] = []
        self.calls: Counter[str] = Counter()
        self.is_calm = False
        self.clock = VirtualClock()
        workflow = spied(asked.workflow, self._begins)
        self.watched = WatchedStore(asked.store(), {workflow.id: workflow.compiled})
        chance = random.Random(asked.seed)
        queue: Any = _StruckQueue(MemoryQueue(self.clock), self._copies)
        scheduler: Any = _StruckScheduler(MemoryScheduler(), self._copies)
        self.app = LocalApp(
            App(workflow),
            store=FaultyStore(self.watched, self._struck),
            clock=self.clock,
            queue=queue,
            scheduler=scheduler,
            ids=SeededIds(asked.seed),
        )
        self.app.engine.loop = _LOOP
        self.app.engine.crew = lambda loop: _PatientCrew(loop, chance)

    def ending(self) -> _Ending:
        """Drive the run to its end, and say what became of it."""
        if self.asked.before is not None:
            self.asked.before()
        facts, result = dict[str, Any](), None
        try:
            result = self._driven()
            self._late_hints()
            self.watched.audit(self.run)
            facts = self._facts(self._read())
        except Violation as violation:
            self.broken.append(str(violation))
        if self.asked.effects is not None:
            facts["effects"] = copy.deepcopy(self.asked.effects())
        course = Course(tuple(self.writes), tuple(self.hints))
        return _Ending(facts, tuple(self.broken), self.calls, course, result)

    def _facts(self, result: RunResult[Any]) -> dict[str, Any]:
        if self.asked.outcome is not None:
            return {"outcome": copy.deepcopy(self.asked.outcome(result))}
        facts: dict[str, Any] = {"status": result.status, "output": result.output, "state": result.state}
        facts["request context"] = result.request_context
        if result.error is not None:
            facts["error"] = (result.error.type, result.error.message, result.error.step)
        if result.status == "success":  # what else had begun when a run failed is a matter of timing
            facts |= {f"output of step {id!r}": step.output for id, step in result.steps.items()}
        return facts

    # -- what goes right --------------------------------------------------------------------------------------------

    def _driven(self) -> RunResult[Any]:
        self._start()
        for _ in range(_TURNS):
            result = self._read()
            if result.status in ("success", "failed", "canceled"):
                return result
            if result.status != "suspended" or not self._answer(result.waits):
                self._let_pass(result)
        raise Violation(f"the run is not over after {_TURNS} turns")

    def _start(self) -> None:
        """A caller who gets no answer asks again, with the same id."""
        while self.watched.peek(self.run) is None:
            with _lost():
                run = self.app.workflow(self.asked.workflow.id).create_run(_RUN)
                run.start(self.asked.input, **self.asked.start)

    def _read(self) -> RunResult[Any]:
        result: RunResult[Any] = self.app.run(_RUN).result()
        return result

    def _answer(self, waits: list[Wait[Json]]) -> bool:
        """Answer the first suspension for which there is an answer; whether there was one."""
        for wait in sorted(waits, key=lambda wait: wait.path):
            with suppress(KeyError):
                data = self._answer_to(wait)
                with _lost(), suppress(RequestError):
                    if isinstance(self.asked.workflow.compiled.find(".".join(wait.path)), EventNode):
                        event, key = wait.payload["event"], wait.payload["key"]
                        self.app.send_event(event, key, data, event_id=digest(wait.id))
                    else:
                        by = _next_approver(wait)
                        self.app.resume(_RUN, data, wait=wait.id, by=by, idempotency_key=f"{wait.id} {by}")
                return True
        if all(wait.deadline is None for wait in waits):
            asked = ", ".join(repr(".".join(wait.path)) for wait in waits)
            raise ValueError(f"Nobody answers {asked}. Give explore an answer: answers={{{asked}: ...}}.")
        return False

    def _answer_to(self, wait: Wait[Json]) -> Any:
        """Raises: KeyError when there is none."""
        answers = self.asked.answers
        if not isinstance(answers, Mapping):
            return answers(wait)
        path = ".".join(part.split("[", 1)[0] for part in wait.path)
        return answers[path] if path in answers else answers[path.rsplit(".", 1)[-1]]

    def _let_pass(self, result: RunResult[Any]) -> None:
        """Time jumps to what falls due next; a worker comes for each hint, and the sweeper for what is lost."""
        upcoming = self.app.next_at()
        if upcoming is None:
            raise Violation(f"the run is {result.status}, and nobody will ever look at it again")
        with _lost():
            self.app.advance(upcoming - self.clock.now())

    def _late_hints(self) -> None:
        """Copies of hints that come when all is over change nothing."""
        self.is_calm = True
        self.app.deliver(_RUN, twice=True)

    # -- what goes wrong --------------------------------------------------------------------------------------------

    def _begins(self, ctx: StepContext[Any, Any, Any]) -> None:
        """A step is about to run: it must have no outcome yet."""
        key = StepKey(ctx.idempotency_key.removeprefix(f"{_RUN}/"))
        self.calls[dotted(key)] += 1
        record = self.watched.records.get((self.run, 1, key))
        if record is not None and record.is_settled:
            self.broken.append(f"step {dotted(key)!r} ran again after its outcome was committed")

    def _struck(self, call: Call) -> Fault | None:
        if call.verb not in WRITES or self.is_calm:
            return None
        what = "" if call.record is None else f" of {dotted(call.record.key)!r}"
        self.writes.append(call.verb + what)
        at = len(self.writes)
        for strike in self.schedule:
            if strike.at == at and not strike.is_at_hint:
                if strike.blow != "taken-over":
                    return Fault(strike.blow)
                self.clock.forward(_FROZEN)
                with _lost():
                    self.app.look(self.run)
        return None

    def _copies(self, hint: Hint) -> list[timedelta]:
        """How late each copy of a hint comes."""
        self.hints.append(f"of {hint.at - self.clock.now()} from then")
        copies: dict[AtHint, list[timedelta]] = {
            "hint-lost": [],
            "hint-doubled": [timedelta(0), timedelta(0)],
            "hint-late": [_LATE],
        }
        struck = [strike.blow for strike in self.schedule if strike.is_at_hint and strike.at == len(self.hints)]
        return next((copies[blow] for blow in struck if blow in copies), [timedelta(0)])


def _next_approver(wait: Wait[Json]) -> str:
    """Whoever has not answered yet, of those who may."""
    others = (name for name in wait.approvers if name not in wait.answered_by)
    return next(others, f"somebody-{len(wait.answered_by) + 1}")


@contextmanager
def _lost() -> Iterator[None]:
    """Whoever called is gone, or has no answer; others will see to it."""
    with suppress(WorkerDied, OutsideError):
        yield


class _PatientCrew(SteppingCrew):
    """Work begins when it is handed over, as in a thread of its own; the seed decides in which order outcomes come."""

    def start_thread(self, key: Any, work: Callable[[], Any]) -> None:
        """See ``Crew.start_thread``."""
        try:
            outcome = work()
        except BaseException as error:  # whoever waits for the outcome must learn of it
            self.open.append((key, partial(_raised, error)))
        else:
            self.open.append((key, lambda: outcome))

    def start_coroutine(self, key: Any, coroutine: Coroutine[Any, Any, Any]) -> None:
        """See ``Crew.start_coroutine``; coroutines may really wait."""
        self.start_thread(key, lambda: self._loop.wait_for(coroutine))


def _raised(error: BaseException) -> NoReturn:
    raise error


class _StruckQueue:
    """A queue that delivers as many copies of each hint as it is told."""

    def __init__(self, queue: MemoryQueue, copies: Callable[[Hint], list[timedelta]]) -> None:
        self.inner = queue
        self.max_delay_s = queue.max_delay_s
        self._copies = copies

    def send(self, hint: Hint, *, delay_s: int) -> None:
        """See ``Queue.send``."""
        for late in self._copies(hint):
            self.inner.send(hint, delay_s=min(self.max_delay_s, delay_s + int(late.total_seconds())))


class _StruckScheduler:
    """A scheduler that fires as many copies of each hint as it is told."""

    def __init__(self, scheduler: MemoryScheduler, copies: Callable[[Hint], list[timedelta]]) -> None:
        self.inner = scheduler
        self._copies = copies

    def schedule(self, hint: Hint, *, version: int) -> None:
        """See ``Scheduler.schedule``."""
        for number, late in enumerate(self._copies(hint)):
            self.inner.schedule(Hint(run=hint.run, at=hint.at + late), version=version + number * 1_000_000)

    def unschedule(self, run: RunRef, *, version: int) -> None:
        """See ``Scheduler.unschedule``."""
        self.inner.unschedule(run, version=version)
