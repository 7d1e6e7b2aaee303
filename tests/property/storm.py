"""One random workflow through one random storm: workers die, replies are lost, hints go astray, clocks disagree."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from typing import Any

from flowcore.adapters.memory import MemoryQueue, MemoryScheduler, MemoryStore
from flowcore.app import App
from flowcore.authoring.graph import Durability
from flowcore.core.admit import open_waits
from flowcore.core.fan import open_fans
from flowcore.errors import (
    ConflictError,
    NotRecorded,
    OutsideError,
    RequestError,
    RunNotFound,
    StillRunning,
    UnknownStep,
)
from flowcore.keys import RunRef, StepKey, dotted, index_of, is_once, items_around
from flowcore.model import Head, Outcome, Receipt, RunStatus, Snapshot, StepRecord, seats_of, wait_id
from flowcore.pace import Pace
from flowcore.ports import Store
from flowcore.results import RunResult
from flowcore.testing import (
    Fault,
    FaultyStore,
    LocalApp,
    LossyQueue,
    LossyScheduler,
    SeededIds,
    ShiftedClock,
    Unruly,
    VirtualClock,
    WorkerDied,
)
from flowcore.testing.crew import SteppingCrew
from flowcore.testing.faults import WRITES, Call
from flowcore.testing.generate import EARLY, Sample, sample
from flowcore.testing.invariants import WatchedStore
from flowcore.testing.oracle import Reply, Told, tell

RUN = RunRef("default", "r")
GIVEN: dict[str, Any] = {"state": {"last": "given"}, "request_context": {"mark": "given", "other": 1}}
"""What every run begins with."""
TURNS = 3_000
"""Far more than any sample needs, though every stale hint takes one: a run that is not over by then is stuck."""
MOST_CLAIMS_IN_A_ROW = 3
"""Without a write in between that tells of progress; more than five are a poisonous step, and rightly given up."""
READS_TO_A_WRITE = 4
STRIKES = (Fault.DIES_BEFORE, Fault.DIES_AFTER, Fault.FAILS, Fault.REPLY_LOST)
"""What may become of one call; that others write in between, the interludes see to."""


@dataclass
class Weather:
    """What one storm may do; drawn from the seed."""

    faults: float
    interludes: float
    unruly: float
    with_queue: bool
    skewed: bool
    short_lived: bool

    @property
    def is_fair(self) -> bool:
        """Whether nothing at all goes wrong: then every step runs exactly as often as it must."""
        return not (self.faults or self.interludes or self.unruly or self.skewed)


def weather(chance: random.Random) -> Weather:
    """One of four seeds is fair."""
    if chance.random() < 0.25:
        return Weather(0, 0, 0, with_queue=chance.random() < 0.5, skewed=False, short_lived=chance.random() < 0.3)
    return Weather(
        faults=chance.choice([0, 0.05, 0.15, 0.3]),
        interludes=chance.choice([0, 0.05, 0.2, 0.4]),
        unruly=chance.choice([0, 0.2, 0.5]),
        with_queue=chance.random() < 0.5,
        skewed=chance.random() < 0.3,
        short_lived=chance.random() < 0.3,
    )


class Storm:
    """One run of one sample, driven to its end."""

    def __init__(self, seed: int, store: Store | None = None, durability: Durability = "step") -> None:
        """The storm of ``seed`` over an empty store; in memory when none is given."""
        self.chance = random.Random(seed * 2 + 1)
        self.sample: Sample = _made_durable(sample(seed), durability)
        self.weather = weather(self.chance)
        self.clock = VirtualClock()
        self.store = store or MemoryStore()
        graph = self.sample.workflow.compiled
        self.watched = WatchedStore(self.store, {graph.id: graph})
        self.run = RUN
        self.runs: set[RunRef] = set()
        """The run and its children, as far as anybody has asked for them."""
        self.depth = 0
        self.calm_down = False
        self.is_undisturbed = False
        self.past: set[tuple[RunRef, int]] = set()
        """Earlier lives of the run, and of its children."""
        self.told: list[Receipt] = []
        """What whoever answered was told: that it was his answer which settled the suspension."""
        self.unruly = Unruly(
            chance=self.chance,
            dropped=self.weather.unruly / 2,
            doubled=self.weather.unruly,
            delayed=self.weather.unruly,
        )
        self.queue = LossyQueue(MemoryQueue(self.clock), self.unruly) if self.weather.with_queue else None
        self.scheduler = LossyScheduler(MemoryScheduler(), self.unruly)
        self.app = self._app(timedelta(0))
        self.others = [self._app(timedelta(minutes=m)) for m in (-10, 10)] if self.weather.skewed else [self.app]

    def _app(self, offset: timedelta) -> LocalApp:
        clock: Any = ShiftedClock(self.clock, offset) if offset else self.clock
        app = LocalApp(
            App(self.sample.workflow),
            store=FaultyStore(self.watched, self._script),
            clock=clock,
            queue=self.queue,
            scheduler=self.scheduler,
            ids=SeededIds(self.chance.randrange(10**6)),
            pace=Pace(lease=timedelta(minutes=2)),
        )
        app.engine.crew = lambda loop: SteppingCrew(loop, self.chance)
        return app

    # -- what goes wrong --------------------------------------------------------------------------------------------

    def _script(self, call: Call) -> Fault | None:
        if self.calm_down:
            return None
        if call.run is not None:
            self.runs.add(call.run)
        if call.verb not in WRITES:
            self._interlude(call, self.weather.interludes / READS_TO_A_WRITE)
            return None
        self._time_passes()
        self._interlude(call, self.weather.interludes)
        if self.chance.random() < self.weather.faults and self._bears_more():
            return self.chance.choice(STRIKES)
        return None

    def _bears_more(self) -> bool:
        """Whether no run would be given up; who dies at a call for one run may have held another."""
        heads = (self.watched.peek(run) for run in self.runs)
        return all(head is None or head.is_terminal or head.attempts < MOST_CLAIMS_IN_A_ROW for head in heads)

    def _time_passes(self) -> None:
        if self.weather.short_lived:
            self.clock.forward(seconds=self.chance.choice([0, 0, 1, 3]))

    def _interlude(self, call: Call, likelihood: float) -> None:
        """This worker freezes; meanwhile its lease may run out, and others look, answer and look again."""
        if self.depth >= 2 or call.verb == "start" or self.is_undisturbed:
            return
        if self.chance.random() >= likelihood or not self._bears_more():
            return
        self.depth += 1
        try:
            if self.chance.random() < 0.5:
                self.clock.forward(minutes=self.chance.choice([0.1, 2.5, 20]))
            if (self.sample.is_calm or call.verb == "resume") and self.chance.random() < 0.7:
                self._answer()
            if self.chance.random() < 0.5:
                self._look()
        finally:
            self.depth -= 1

    # -- what goes right --------------------------------------------------------------------------------------------

    def result(self) -> RunResult[Any]:
        """The run as it stands."""
        result: RunResult[Any] = self._quietly(lambda: self.app.run(self.run.id).result())
        return result

    def whole(self) -> Snapshot:
        """The run with all its records, those in its children included."""
        whole: Snapshot = self._quietly(lambda: self.app.engine.read(self.run))
        return whole

    def _quietly(self, call: Any) -> Any:
        was, self.calm_down = self.calm_down, True
        try:
            return call()
        finally:
            self.calm_down = was

    def drive(self) -> RunResult[Any]:
        """Start the run and see it through."""
        self.start()
        return self.go_on()

    def go_back(self, step: str, *, forks: int = 0) -> RunResult[Any] | None:
        """Begin the run anew at a step, or a fork of it, and see that through; None where it cannot begin there.

        Args:
            forks: which fork of the run this is, from 1; 0 is the run itself.
        """
        new = RunRef(RUN.tenant, f"r-{forks}") if forks else self.run
        before, self.past = self._life(new), {(run, life) for run, life, _ in self.watched.records}
        self.is_undisturbed = True  # what is answered meanwhile may be of either life
        try:
            for attempt in count():
                if before != self._life(new):
                    break
                self.calm_down = attempt > 20  # a run with many receipts writes down so many that one always goes wrong
                run = self.chance.choice(self.others).run(self.run.id)
                try:
                    run.fork(step, run_id=new.id) if forks else run.time_travel(step)
                except StillRunning:
                    self._wait()
                except (WorkerDied, OutsideError, ConflictError):
                    pass
        except (UnknownStep, NotRecorded):
            return None
        finally:
            self.calm_down = self.is_undisturbed = False
        if forks:
            self._quietly(self.app.run(self.run.id).cancel)  # it would go on beside the fork, and is not looked at
            self.run, self.told = new, []
        return self.go_on()

    def _life(self, run: RunRef) -> int:
        head = self.watched.peek(run)
        return 0 if head is None else head.incarnation

    def go_on(self) -> RunResult[Any]:
        """See the run through to its end."""
        for turn in range(TURNS):
            if turn > 200:
                self.calm_down = True
                self.unruly.doubled = 0  # hints that come early are sent again: copies of them might grow for ever
            if self._is_over():
                return self.result()
        raise AssertionError(f"stuck in {self.watched.peek(self.run)}")

    def go_some_way(self, turns: int) -> None:
        """See the run through so many turns, or to its end."""
        any(self._is_over() for _ in range(turns))

    def _is_over(self) -> bool:
        """Whether the run has ended; if not, something is done for it."""
        if self.chance.random() < self.weather.interludes:
            self._look()
        head = self.watched.peek(self.run)
        assert head is not None  # it was started, and nobody deletes it
        if head.is_terminal:
            return True
        whole = self._at_rest(head)
        waiting = [] if whole is None else open_waits(whole)
        if whole is not None:
            self._asks_as_told(whole, waiting)
        if waiting and not all(record.until is not None for record in waiting):
            self._answer(waiting)
        else:
            self._wait()
        return False

    def start(self) -> None:
        """Begin the run; whatever it may be told early is sent before."""
        for name in sorted(self.sample.early):
            if self.chance.random() < 0.3:
                self._send(name, EARLY, self.sample.answer(name, 1).data, "early")
        while self.watched.peek(self.run) is None or self.chance.random() < 0.2:
            with weathered():
                wait = timedelta(seconds=20) if self.weather.short_lived else None
                self.app.workflow(self.sample.workflow).create_run(self.run.id).start(
                    self.sample.input, wait=wait, by="starter", **GIVEN
                )

    def _at_rest(self, head: Head) -> Snapshot | None:
        """The run, if it waits for answers alone: a child of a foreach that was answered may still be queued."""
        if head.status is not RunStatus.SUSPENDED:
            return None
        whole = self.whole()
        is_answered = any(record.outcome is Outcome.RESU for record in whole.records.values())
        return None if is_answered or whole.head.public_status != "suspended" else whole

    def _asks_as_told(self, whole: Snapshot, waiting: list[StepRecord]) -> None:
        """What the joins of a foreach tell of items that wait for answers is so, where no child is to be driven."""
        heads = (self.watched.peek(run) for run in self.runs)
        if any(head is not None and head.status in (RunStatus.QUEUED, RunStatus.RUNNING) for head in heads):
            return
        for start in open_fans(whole):
            asking = {index for record in waiting for key, index in items_around(record.key) if key == start.key}
            told = whole.fans[start.key].asking if start.key in whole.fans else frozenset()
            assert told <= asking, f"{start.key} is told to ask at {sorted(told)}, and asks at {sorted(asking)}"

    def _answer(self, waiting: list[StepRecord] | None = None) -> None:
        """Answer the first open suspension by key, as the oracle does, or any where it does not matter; or twice."""
        try:
            waiting = open_waits(self.whole()) if waiting is None else waiting
        except RunNotFound:
            return
        open_ = sorted((record for record in waiting if record.until is None), key=lambda record: record.key)
        if not open_:
            return
        record = self.chance.choice(open_) if self.sample.is_calm else open_[0]
        reply = self.sample.answer(record.key, self._times(record.key))
        beside = [one for one in open_ if one.key == record.key and one.label != reply.chosen]
        record = next((one for one in open_ if one.key == record.key and one.label == reply.chosen), record)
        self._bring(record, reply, waiting)
        if beside and reply.chosen is not None and self._gen(record.key) != record.gen:
            self._too_late(self.chance.choice(beside))

    def _too_late(self, beside: StepRecord) -> None:
        """Somebody answers what another answer has put an end to; nothing may come of it."""
        with weathered():
            self.chance.choice(self.others).resume(self.run.id, {"too": "late"}, wait=self._id(beside))
            raise AssertionError(f"{self._id(beside)} was answered after another one of its step")

    def _bring(self, record: StepRecord, reply: Reply, waiting: list[StepRecord]) -> None:
        """The answer as it comes: as an event, or by one of the names of what it is for."""
        if record.listens is not None or reply.by_event:
            assert record.topic is not None
            self._send(*record.topic, reply.data, self.chance.choice([None, self._occurrence(record)]))
            return
        exact, by = {"wait": self._id(record)}, self._voter(record)
        address = exact if self.chance.random() < 0.5 else self.chance.choice([exact, *self._names(record, waiting)])
        if self._gen(record.key) != record.gen:  # somebody was faster while the vote was handed over
            address = exact
        once = self._occurrence(record)
        key = once if address is not exact else self.chance.choice([None, once])
        was, self.is_undisturbed = self.is_undisturbed, self.is_undisturbed or address is not exact
        try:
            is_taken = False
            for _ in range(self.chance.choice([1, 1, 2])):
                self.is_undisturbed = was or (address is not exact and not is_taken)
                with weathered():
                    result = self.chance.choice(self.others).resume(
                        self.run.id,
                        reply.data,
                        **address,
                        by=by,
                        request_context=reply.context,
                        idempotency_key=key,
                        drive=timedelta(seconds=20) if self.weather.short_lived else None,
                    )
                    is_applied = result.receipt is not None and result.receipt.verdict == "applied"
                    assert not (is_taken and is_applied), f"a copy of {key!r} was applied"
                    is_taken = True
                    self.told += [result.receipt] if result.receipt is not None and is_applied else []
        finally:
            self.is_undisturbed = was

    def _id(self, record: StepRecord) -> str:
        head = self.watched.peek(self.run)
        assert head is not None  # it asks for something
        return wait_id(record, head.incarnation)

    def _occurrence(self, record: StepRecord) -> str:
        """A name for one suspension that no other one has, in no life of the run."""
        head = self.watched.peek(self.run)
        assert head is not None  # it asks for something
        again = "" if head.incarnation == 1 else f"~{self.run.id}~{head.incarnation}"
        return f"{record.key}@{record.gen}{again}"

    def _gen(self, key: StepKey) -> int:
        """The last generation of a place in this life, in whichever run its record lies."""
        known = self.watched.records.items()
        return max(record.gen for (run, life, at), record in known if at == key and (run, life) not in self.past)

    def _voter(self, record: StepRecord) -> str:
        """One of those who may answer, perhaps for the second time; now and then his vote is handed over first."""
        voters = sorted(seats_of(record, 0).values())
        if not voters:
            return "somebody"
        by = self.chance.choice(voters)
        if self.chance.random() < 0.2:
            to = f"deputy-{len(record.delegations)}"
            with weathered():
                self.chance.choice(self.others).delegate(self.run.id, by=by, to=to, wait=self._id(record))
                return to
        return by

    def _send(self, name: str, key: str, data: Any, event_id: str | None) -> None:
        for _ in range(self.chance.choice([1, 1, 2])):
            with weathered():
                drive = timedelta(seconds=20) if self.weather.short_lived else None
                self.chance.choice(self.others).send_event(name, key, data, event_id=event_id, drive=drive)

    def _names(self, record: StepRecord, waiting: list[StepRecord]) -> Iterator[dict[str, Any]]:
        """Other ways to say which of the open suspensions is meant; a later one of the same step would fit as well."""
        path, index = dotted(record.key), index_of(record.key)
        plain = [without_items(r.key) for r in waiting]
        yield {"step": path}
        yield {"step": path.split(".")}
        if [r.label for r in waiting].count(record.label) == 1:
            yield {"label": record.label}
        if len(waiting) == 1:
            yield {}
        if plain.count(without_items(record.key)) == 1:
            yield {"step": without_items(record.key)}
        elif index is not None and [index_of(r.key) for r in waiting if r.label == record.label].count(index) == 1:
            yield {"label": record.label, "index": index}

    def _times(self, key: str) -> int:
        """Which suspension of this place is open: one more than it has answers."""
        known = self.watched.answers
        answered = {gen for run, life, at, gen in known if at == key and (run, life) not in self.past}
        return len(answered) + 1

    def _wait(self) -> None:
        """Time jumps to what falls due next; a worker comes for each hint."""
        upcoming = self._quietly(self.app.next_at)
        assert upcoming is not None, f"nobody will ever look at {self.watched.peek(self.run)}"
        self.clock.wait_until(upcoming)
        with weathered():
            self.app._fire()
        if self.chance.random() < self.weather.unruly:
            self._look()

    def _look(self) -> None:
        with weathered():
            app = self.chance.choice(self.others)
            deadline = app.clock.now() + timedelta(seconds=15) if self.weather.short_lived else None
            app.look(self.run, deadline=deadline)


@contextmanager
def weathered() -> Iterator[None]:
    """Whoever called is gone, or is told no; the storm goes on."""
    with suppress(WorkerDied, OutsideError, RequestError):
        yield


def without_items(key: StepKey) -> str:
    """The dotted path as an author would write it."""
    return ".".join(part.split("[", 1)[0] for part in dotted(key).split("."))


def differences(storm: Storm, result: RunResult[Any], told: Told) -> Iterator[str]:
    """Everywhere the run did not become what it had to."""
    if (result.status, result.output) != (told.status, told.output):
        yield f"ended {result.status} with {result.output!r}, not {told.status} with {told.output!r}"
    error = result.error and (result.error.type, result.error.message, result.error.step)
    if error != told.error:
        yield f"error {error}, not {told.error}"
    storm.watched.audit(storm.run)
    yield from _unproven(storm)
    yield from _restless(storm)
    whole = storm.whole().records
    records = {key: record for key, record in whole.items() if not is_once(key) and told.is_certain(key)}
    outputs = {str(key): r.output for key, r in records.items() if r.outcome in (Outcome.OK, Outcome.BAIL)}
    yield from _unequal("output", outputs, {k: v for k, v in told.steps.items() if told.is_certain(k)})
    shown = {key: result.steps[dotted(StepKey(key))].output for key in outputs if "#" not in key}
    yield from _unequal("shown output", shown, {key: outputs[key] for key in shown})
    failed = {str(key): True for key, r in records.items() if r.outcome is Outcome.ERR}
    yield from _unequal("failure", failed, {key: True for key in told.failed if told.is_certain(key)})
    left_open = tuple(f"{key}{mark}" for key, r in records.items() if r.outcome is Outcome.START for mark in "/[#")
    state = {name: value for name, value in result.state.items() if _is_certain(told, name, left_open)}
    yield from _unequal("state", state, {n: v for n, v in told.state.items() if _is_certain(told, n, left_open)})
    context = {name: value for name, value in result.request_context.items() if _is_answer(told, name, left_open)}
    yield from _unequal("context", context, {n: v for n, v in told.context.items() if _is_answer(told, n, left_open)})


def _restless(storm: Storm) -> Iterator[str]:
    """What goes on though the run is over."""
    storm.calm_down = True
    before = Counter(storm.sample.effects.calls)
    storm.app.advance(days=2)
    if before != storm.sample.effects.calls:
        yield f"steps ran after the end: {storm.sample.effects.calls - before}"
    for run in sorted(storm.runs, key=lambda run: run.id):
        head = storm.watched.peek(run)
        if head is not None and not head.is_terminal:
            yield f"{run.id} is left {head.status.value}"


def _unproven(storm: Storm) -> Iterator[str]:
    """Suspensions that more than one answer has settled, and answers that are said to have and did not."""
    applied: dict[str, list[str | None]] = {}
    for receipt in storm._quietly(lambda: storm.app.run(storm.run.id).receipts()):
        if receipt.verdict == "applied":
            applied.setdefault(receipt.wait, []).append(receipt.by)
    yield from (f"{wait!r} was settled by {by}" for wait, by in applied.items() if len(by) != 1)
    for receipt in storm.told:
        if applied.get(receipt.wait) != [receipt.by]:
            yield f"{receipt.by!r} was told to have settled {receipt.wait!r}; receipts say {applied.get(receipt.wait)}"


def _is_certain(told: Told, name: str, left_open: tuple[str, ...]) -> bool:
    """A container gives its inside's state away when it ends; one that still waits when its run fails never does."""
    key = name.removeprefix("r/").split("@")[0].split("!")[0]
    return told.is_certain(key) and not key.startswith(left_open)


def _is_answer(told: Told, name: str, left_open: tuple[str, ...]) -> bool:
    return "@" in name and _is_certain(told, name, left_open)


def _unequal(what: str, found: dict[str, Any], expected: dict[str, Any]) -> Iterator[str]:
    for name in sorted(found.keys() | expected.keys()):
        one, other = found.get(name, "nothing"), expected.get(name, "nothing")
        if one != other:
            yield f"{what} {name!r} is {one!r}, not {other!r}"


def _made_durable(drawn: Sample, durability: Durability) -> Sample:
    workflow = drawn.workflow
    return replace(drawn, workflow=replace(workflow, compiled=replace(workflow.compiled, durability=durability)))


def told_of(drawn: Sample) -> Told:
    """What the interpreter says of it."""
    state, context = GIVEN["state"], GIVEN["request_context"]
    return tell(drawn.workflow.compiled, drawn.input, drawn.answer, state=state, context=context)


def verdict(seed: int, store: Store | None = None, durability: Durability = "step") -> list[str]:
    """What went wrong with the workflow of that seed in the storm of that seed; empty when all is well."""
    storm = Storm(seed, store, durability)
    effects, told = storm.sample.effects, told_of(storm.sample)
    expected, once = dict(effects.calls), dict(effects.once)
    effects.clear()
    result = storm.drive()
    wrong = list(differences(storm, result, told))
    called = {key.removeprefix("r/"): count for key, count in effects.calls.items()}
    must = {key.removeprefix("r/"): count for key, count in expected.items()}
    certain = {key for key in called.keys() | must.keys() if told.is_certain(key)}
    for key in sorted(certain):
        found, least = called.get(key, 0), must.get(key, 0)
        if (least == 0) != (found == 0) or found < least or (storm.weather.is_fair and found != least):
            wrong.append(f"step {key!r} ran {found} times, not {least}")
    if storm.weather.is_fair:
        twice = [key for key in once if told.is_certain(key.removeprefix("r/")) and effects.once[key] != 1]
        wrong += [f"once of {key!r} was called {effects.once[key]} times" for key in twice]
    return wrong
