"""One run of a workflow under one schedule: driven to its end by a caller who gives no rest, and watched on the way.

What goes wrong is a schedule's; what has to hold all the same is the protocol's. ``explore`` makes many of these.
"""

from __future__ import annotations

import copy
import random
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NoReturn, TypeAlias

from flowcore.adapters.memory import MemoryQueue, MemoryScheduler
from flowcore.app import App
from flowcore.authoring.context import StepContext
from flowcore.authoring.graph import EventNode, StepNode
from flowcore.authoring.workflow import Workflow
from flowcore.codec import digest
from flowcore.core.actions import Run, RunStep
from flowcore.core.decide import decide
from flowcore.crew import EventLoop
from flowcore.errors import OutsideError, RequestError
from flowcore.fanout.children import child_at
from flowcore.keys import RunRef, StepKey, dotted, step_of
from flowcore.model import Head, Json, Outcome, Receipt, Snapshot, Wait
from flowcore.ports import Hint, Store
from flowcore.results import RunResult
from flowcore.testing.clock import SeededIds, VirtualClock
from flowcore.testing.crew import SteppingCrew
from flowcore.testing.faults import WRITES, Call, Fault, FaultyStore, WorkerDied
from flowcore.testing.invariants import Violation, WatchedStore
from flowcore.testing.lag import LaggingStore
from flowcore.testing.local import LocalApp
from flowcore.testing.schedule import Course, Schedule, Strike
from flowcore.testing.spies import spied

Answers: TypeAlias = Mapping[str, Any] | Callable[[Wait[Json]], Any]

_RUN = "explored"
_STARTER = "explore"
"""Whoever starts the run; some steps do not let him answer, and want to know who he was."""
_TURNS = 10_000
"""Looks at one run before it is held to go in circles."""


class _LoopOfThread(EventLoop):
    """A loop for each thread that waits: who takes over in the middle of a coroutine must not wait for its own loop."""

    def __init__(self) -> None:
        super().__init__()
        self._own = threading.local()

    def wait_for(self, awaitable: Any) -> Any:
        """See ``EventLoop.wait_for``."""
        if not hasattr(self._own, "loop"):
            self._own.loop = EventLoop()
        return self._own.loop.wait_for(awaitable)


_LOOP = _LoopOfThread()
"""One for all trials; started when the first coroutine appears."""
_LATE = timedelta(minutes=5)
_EARLY = -timedelta(days=10_000)
"""Earlier than now, whatever a hint is for."""
_BACK = timedelta(minutes=-10)
_FROZEN = timedelta(hours=1)
"""Longer than any lease."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What whoever explores has asked for."""

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
class Ending:
    """What became of one trial."""

    facts: Mapping[str, Any]
    """What must be the same each time, by name."""
    broken: Sequence[str]
    """Rules that were broken on the way."""
    calls: Counter[str]
    """By step, how often it began."""
    course: Course
    result: RunResult[Any] | None

    def differences(self, usual: Ending) -> list[str]:
        """The rules that were broken, else everything that is not as it is undisturbed."""
        if self.broken:
            return list(self.broken)
        names = sorted(self.facts.keys() | usual.facts.keys())
        pairs = [(name, self.facts.get(name, "nothing"), usual.facts.get(name, "nothing")) for name in names]
        return [f"{name}: {one!r} instead of {other!r}" for name, one, other in pairs if one != other]


class Trial:
    """One run of the workflow under one schedule."""

    def __init__(self, asked: Asked, schedule: Schedule) -> None:
        """Prepare it; ``ending`` runs it."""
        self.asked = asked
        self.schedule = schedule
        self.run = RunRef("default", _RUN)
        self.writes: list[str] = []
        self.reads: list[str] = []
        self.hints: list[str] = []
        self.open: set[int] = set()
        self.open_reads: set[int] = set()
        self.broken: list[str] = []
        self.calls: Counter[str] = Counter()
        self.places: dict[str, tuple[Any, ...]] = {}
        """By idempotency key: the place that was given it."""
        self.is_calm = False
        self.clock = VirtualClock()
        workflow = spied(asked.workflow, self._begins)
        self.graph = workflow.compiled
        self.watched = WatchedStore(asked.store(), {workflow.id: workflow.compiled})
        self.lagging = LaggingStore(self.watched, self.clock)
        is_lagging = any(strike.blow == "index-late" for strike in schedule)
        chance = random.Random(asked.seed)
        self.app = _Walk(
            App(workflow),
            store=FaultyStore(self.lagging if is_lagging else self.watched, self._struck),
            clock=self.clock,
            queue=_StruckQueue(MemoryQueue(self.clock), self._copies),
            scheduler=_StruckScheduler(MemoryScheduler(), self._copies),
            ids=SeededIds(asked.seed),
        )
        self.app.unseen = self._calm
        self.app.engine.loop = _LOOP
        self.app.engine.crew = lambda loop: _PatientCrew(loop, chance)

    def ending(self) -> Ending:
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
        course = Course(
            tuple(self.writes), tuple(self.reads), tuple(self.hints), frozenset(self.open), frozenset(self.open_reads)
        )
        return Ending(facts, tuple(self.broken), self.calls, course, result)

    def _facts(self, result: RunResult[Any]) -> dict[str, Any]:
        if self.asked.outcome is not None:
            return {"outcome": copy.deepcopy(self.asked.outcome(result))}
        facts: dict[str, Any] = {"status": result.status, "output": result.output, "state": result.state}
        facts["request context"] = result.request_context
        if result.error is not None:
            facts["error"] = (result.error.type, result.error.message, result.error.step)
        if result.status == "success":  # what else had begun when a run failed is a matter of timing
            facts |= {f"output of step {id!r}": step.output for id, step in result.steps.items()}
            facts["idempotency keys"] = sorted(self.places)
        return facts

    # -- what goes right --------------------------------------------------------------------------------------------

    def _driven(self) -> RunResult[Any]:
        self._start()
        for _ in range(_TURNS):
            result = self._read()
            if result.status in ("success", "failed", "canceled") and not self._owes_hooks():
                return result
            if result.status != "suspended" or not self._answer(result.waits):
                self._let_pass(result)
        raise Violation(f"the run is not over after {_TURNS} turns")

    def _start(self) -> None:
        """A caller who gets no answer asks again, with the same id."""
        while self._head() is None:
            with _lost():
                run = self.app.workflow(self.asked.workflow.id).create_run(_RUN)
                run.start(self.asked.input, by=_STARTER, **self.asked.start)

    def _read(self) -> RunResult[Any]:
        with self._calm():
            result: RunResult[Any] = self.app.run(_RUN).result()
            return result

    def _owes_hooks(self) -> bool:
        head = self._head()
        return head is not None and bool(head.outbox)

    def _head(self) -> Head | None:
        with self._calm():
            return self.watched.peek(self.run)

    def _answer(self, waits: list[Wait[Json]]) -> bool:
        """Answer the first suspension for which there is an answer; whether there was one."""
        for wait in sorted(waits, key=lambda wait: wait.path):
            with suppress(KeyError):
                data = answer_to(wait, self.asked.answers)
                with _lost(), suppress(RequestError):
                    self._bring(wait, data)
                return True
        if all(wait.deadline is None for wait in waits):
            asked = ", ".join(repr(".".join(wait.path)) for wait in waits)
            raise ValueError(f"Nobody answers {asked}. Give explore an answer: answers={{{asked}: ...}}.")
        return False

    def _bring(self, wait: Wait[Json], data: Any) -> None:
        """Send the event, or answer as whoever may."""
        if isinstance(self.graph.find(".".join(wait.path)), EventNode):
            event, key = wait.payload["event"], wait.payload["key"]
            self.app.send_event(event, key, data, event_id=digest(wait.id))
            return
        by = next_approver(wait)
        result = self.app.resume(_RUN, data, wait=wait.id, by=by, idempotency_key=f"{wait.id} {by}")
        if result.receipt is not None and result.receipt.verdict == "applied":
            self._is_kept(result.receipt, wait, by)

    def _is_kept(self, receipt: Receipt, wait: Wait[Json], by: str) -> None:
        """Whoever was told that the answer is applied must be the one whose answer is stored, be it in a child."""
        stored = next((answer for (_, id), answer in self.watched.settled.items() if id == wait.id), None)
        if stored is None or (stored.by, stored.at) != (by, receipt.at):
            self.broken.append(f"I12 {by!r} was told to have answered {wait.id!r}, but stored is {stored}")

    def _let_pass(self, result: RunResult[Any]) -> None:
        """Time jumps to what falls due next; a worker comes for each hint, and the sweeper for what is lost."""
        upcoming = self.app.next_at()
        if upcoming is None and self.lagging.lag:
            self.clock.forward(self.lagging.lag)
            upcoming = self.app.next_at()
        if upcoming is None:
            raise Violation(f"I4 the run is {result.status}, and nobody will ever look at it again")
        with _lost():
            self.app.advance(upcoming - self.clock.now())

    def _late_hints(self) -> None:
        """Copies of hints that come when all is over change nothing."""
        with self._calm():
            self.app.deliver(_RUN, twice=True)

    @contextmanager
    def _calm(self) -> Iterator[None]:
        """What happens inside is the test's own doing: it is not counted, and nothing goes wrong."""
        was, self.is_calm = self.is_calm, True
        try:
            yield
        finally:
            self.is_calm = was

    # -- what goes wrong --------------------------------------------------------------------------------------------

    def _begins(self, value: Any, ctx: StepContext[Any, Any, Any]) -> None:
        """A step is about to run: it must have no outcome yet, and its input and key must be those of its place."""
        key = step_of(StepKey(ctx.idempotency_key.removeprefix(f"{_RUN}/")))
        self.calls[dotted(key)] += 1
        record = self.watched.records.get((self.run, 1, key))
        if record is not None and record.is_settled:
            self.broken.append(f"I1 step {dotted(key)!r} ran again after its outcome was committed")
        place = (ctx.workflow_id, ctx.step_id, ctx.iteration, ctx.index)
        if self.places.setdefault(ctx.idempotency_key, place) != place:
            self.broken.append(f"I11 {place} and {self.places[ctx.idempotency_key]} have one key")
        self._is_due_to(key, value)

    def _is_due_to(self, key: StepKey, value: Any) -> None:
        """The input must be what the committed outputs fold to, whatever this worker believes."""
        with self._calm():
            snapshot = self._holder_of(key)
        decision = decide(self.graph, snapshot, max(self.clock.now(), snapshot.head.updated_at))
        asked = [action for action in decision.actions if action.place.key == key] if isinstance(decision, Run) else []
        if not asked and self.graph.durability == "step":  # else the outcomes that ask for it may be kept back yet
            self.broken.append(f"I7 step {dotted(key)!r} began, which nothing that is committed asks for")
        for action in asked:
            node = action.place.node
            if isinstance(action, RunStep) and isinstance(node, StepNode):
                shape = node.step.input
                given, folded = shape.encode(value), shape.normal(action.value)
                if given != folded:
                    self.broken.append(f"I7 step {dotted(key)!r} got {given!r}, yet {folded!r} is committed")

    def _holder_of(self, key: StepKey) -> Snapshot:
        """The run, or the child of it, that a step belongs to, as it stands."""
        snapshot = self.app.engine.as_it_stands(self.run)
        while (child := child_at(snapshot, key)) is not None:
            snapshot = self.app.engine.as_it_stands(child)
        return snapshot

    def _struck(self, call: Call) -> Fault | None:
        if self.is_calm:
            return None
        what = "" if call.record is None else f" of {dotted(call.record.key)!r}"
        is_open = any(record.outcome is Outcome.SUSP for record in self.watched.records.values())
        if call.verb not in WRITES:
            self.reads.append(call.verb)
            if is_open:
                self.open_reads.add(len(self.reads))
            return self._struck_read(len(self.reads))
        self.writes.append(call.verb + what)
        at = len(self.writes)
        if is_open:
            self.open.add(at)
        for strike in self.schedule:
            if strike.at == at and strike.counts == "write":
                return self._blow(strike)
        return None

    def _struck_read(self, at: int) -> Fault | None:
        for strike in self.schedule:
            if strike.at == at and strike.counts == "read":
                return self._blow(strike)
        return None

    def _blow(self, strike: Strike) -> Fault | None:
        match strike.blow:
            case "taken-over" | "read-taken-over":
                self.clock.forward(_FROZEN)
                with _lost():
                    self.app.look(self.run)
                    self.app.run_until_idle()  # and its children are taken over as well
            case "answered" | "read-answered":
                with suppress(ValueError):  # nobody answers that one
                    self._answer(self._read().waits)
            case "clock-back":
                self.clock.forward(_BACK)
            case "index-late":
                self.lagging.lag = _LATE
            case "read-dies":
                return Fault.DIES_BEFORE
            case "read-fails":
                return Fault.FAILS
            case blow:
                return Fault(blow)
        return None

    def _copies(self, hint: Hint) -> list[timedelta]:
        """How late each copy of a hint comes."""
        self.hints.append(f"of {hint.at - self.clock.now()} from then")
        now = timedelta(0)
        copies = {"hint-lost": [], "hint-doubled": [now, now], "hint-late": [_LATE], "hint-early": [_EARLY]}
        struck = [strike.blow for strike in self.schedule if strike.counts == "hint" and strike.at == len(self.hints)]
        return next((copies[blow] for blow in struck), [now])


def answer_to(wait: Wait[Json], answers: Answers) -> Any:
    """What somebody has said this suspension is answered with. Raises: KeyError when nobody has."""
    if not isinstance(answers, Mapping):
        return answers(wait)
    path = ".".join(part.split("[", 1)[0] for part in wait.path)
    for name in (path, path.rsplit(".", 1)[-1], wait.label):
        if name is not None and name in answers:
            return answers[name]
    raise KeyError(path)


def next_approver(wait: Wait[Json]) -> str:
    """Whoever has not answered yet, of those who may."""
    others = (name for name in wait.approvers if name not in wait.answered_by)
    return next(others, f"somebody-{len(wait.answered_by) + 1}")


@contextmanager
def _lost() -> Iterator[None]:
    """Whoever called is gone, or has no answer; others will see to it."""
    with suppress(WorkerDied, OutsideError):
        yield


class _Walk(LocalApp):
    """A ``LocalApp`` whose looks at what falls due next are nobody's reads, and whose workers ask nothing first."""

    unseen: Callable[[], Any]

    def next_at(self) -> datetime | None:
        """See ``LocalApp.next_at``."""
        with self.unseen():
            return super().next_at()

    def _next_sweep(self) -> datetime | None:
        with self.unseen():
            return super()._next_sweep()

    def _work(self, run: RunRef) -> None:
        self.look(run)


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
            self.inner.send(hint, delay_s=min(self.max_delay_s, max(0, delay_s + int(late.total_seconds()))))


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
