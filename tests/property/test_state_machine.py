"""One run, and everything that anybody may do to it, in any order: the rules hold after each, and the run gets over.

A state machine draws what happens; what fails is made small and told as the calls that lead to it. ``make check`` tries
300 lives of up to 50 events, ``make prove`` 5,000 of up to 100.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from flowcore import App, StepContext, step, workflow
from flowcore.adapters.memory import MemoryQueue, MemoryScheduler, MemoryStore
from flowcore.authoring.graph import Backoff
from flowcore.authoring.workflow import Workflow
from flowcore.errors import ConflictError, OutsideError, RequestError
from flowcore.keys import RunRef
from flowcore.model import TERMINAL, Head, RunStatus
from flowcore.parcels import replace
from flowcore.testing import Fault, FaultyStore, LocalApp, SeededIds, VirtualClock, WorkerDied
from flowcore.testing.faults import WRITES, Call
from flowcore.testing.invariants import WatchedStore
from tests.property.rows import trying

REF = RunRef("default", "r")
FORK = RunRef("default", "f")
HOUR = timedelta(hours=1)
KINDS = (Fault.DIES_BEFORE, Fault.DIES_AFTER, Fault.REPLY_LOST, Fault.THROTTLED, Fault.CONFLICT)


@step(retries=1, backoff=Backoff(initial=timedelta(minutes=5), jitter=False))
def prepare(number: int, ctx: StepContext) -> int:
    """Fails at first."""
    if ctx.attempt == 1:
        raise RuntimeError("not yet")
    return number


@step
def approve(number: int, ctx: StepContext[int]) -> int:
    """Waits for a number, two days at most."""
    if ctx.timed_out:
        return -1
    if ctx.resume_data is None:
        ctx.suspend(timeout=48 * HOUR, label="boss")
    return ctx.resume_data


@step
def ask(number: int, ctx: StepContext[int]) -> int:
    """Waits for a number, for ever."""
    if ctx.resume_data is None:
        ctx.suspend()
    return ctx.resume_data


@step
def add(number: int) -> int:
    """Something to do; fails as often as it has to."""
    if TO_FAIL:
        raise RuntimeError(TO_FAIL.pop())
    return number + 1


TO_FAIL: list[str] = []
"""An entry for each time that ``add`` has to fail."""


NAP = workflow("nap", input=int, output=int).sleep(HOUR).then(add).commit()
HEARD = workflow("heard", input=int).wait_for_event("paid", key="k", model=int, timeout=72 * HOUR).commit()
FLOW = (
    workflow("w", input=int)
    .then(prepare)
    .parallel(approve, NAP)
    .map(lambda out: [out["approve"], out["nap"]])
    .foreach(ask, concurrency=2, id="each")
    .map(sum)
    .branch((lambda n: n % 2 == 0, add.clone(id="even")), (lambda n: n % 3 == 0, HEARD))
    .map(len)
    .dowhile(add.clone(id="count"), lambda n: n < 3)
    .commit()
)


class Life(RuleBasedStateMachine):
    """What may happen to a run."""

    flow: ClassVar[Workflow[Any, Any]] = FLOW
    table: ClassVar[type[MemoryStore]] = MemoryStore
    steps: ClassVar[Sequence[str]] = ("prepare", "approve", "nap.add", "each", "count")
    """Where another life of it, or a fork, may begin."""
    begun: ClassVar[int] = 0
    """How many of them there have been."""

    def __init__(self) -> None:
        super().__init__()
        type(self).begun += 1
        TO_FAIL.clear()
        self.clock = VirtualClock()
        self.memory = WatchedStore(self.table(), {self.flow.id: self.flow.compiled})
        self.fault: tuple[int, Fault] | None = None
        """In how many writes what goes wrong."""
        self.ended: Head | None = None
        self.may_live_again = False

    @initialize(with_queue=st.booleans(), seed=st.integers(0, 99), number=st.integers(0, 2))
    def begin(self, with_queue: bool, seed: int, number: int) -> None:
        """A deployment, and a run of it."""
        queue = MemoryQueue(self.clock) if with_queue else None
        store = FaultyStore(self.memory, self._script)
        given: dict[str, Any] = {"clock": self.clock, "scheduler": MemoryScheduler(), "queue": queue}
        self.app = LocalApp(App(self.flow), store=store, ids=SeededIds(seed), **given)
        self.calm = LocalApp(App(self.flow), store=self.memory, ids=SeededIds(seed + 100), **given)
        self.start(number)

    def _script(self, call: Call) -> Fault | None:
        if self.fault is None or call.verb not in WRITES:
            return None
        left, kind = self.fault
        self.fault = (left - 1, kind) if left > 1 else None
        return kind if left == 1 else None

    @property
    def head(self) -> Head | None:
        """As it stands."""
        return self.memory.peek(REF)

    # -- what happens ------------------------------------------------------------------------------------------------

    @rule(number=st.integers(0, 2))
    def start(self, number: int) -> None:
        """Again and again: by one id there is one run."""
        self._does(lambda: self.app.workflow("w").create_run("r").start(number))

    @rule(data=st.integers(0, 3), key=st.sampled_from([None, "k-1", "k-2"]), which=st.integers(0, 3))
    def answer(self, data: int, key: str | None, which: int) -> None:
        """One of the open suspensions, perhaps with a key that was used before."""
        waits = sorted(wait.id for wait in self.calm.run("r").result().waits) if self.head else []
        if waits:
            wait = waits[which % len(waits)]
            self._does(lambda: self.app.resume("r", data, wait=wait, idempotency_key=key))

    @rule(data=st.sampled_from(["seven", None, [], {"n": 1}]), step=st.sampled_from(["approve", "each", "nobody"]))
    def answer_badly(self, data: Any, step: str) -> None:
        """Data that fits nothing, or a step that is not there."""
        before = self.head
        self._does(lambda: self.calm.resume("r", data, step=step))
        assert before == self.head

    @rule(data=st.integers(0, 3), event_id=st.sampled_from([None, "e-1"]))
    def send(self, data: int, event_id: str | None) -> None:
        """The event that one branch waits for, perhaps a copy, perhaps too early."""
        self._does(lambda: self.app.send_event("paid", "k", data, event_id=event_id))

    @rule(pause=st.sampled_from([1, 6, 61, 91, 20 * 60, 61 * 60, 49 * 60 * 60]))
    def time_passes(self, pause: int) -> None:
        """What falls due is done."""
        self._does(lambda: self.app.advance(seconds=pause))

    @rule(minutes=st.sampled_from([-10, -1, 10]))
    def clock_jumps(self, minutes: int) -> None:
        """Without anything being done."""
        self.clock.forward(minutes=minutes)

    @rule()
    def look(self) -> None:
        """A hint too many."""
        self._does(lambda: self.app.look(REF))

    @rule()
    def sweep(self) -> None:
        """Too early, or just in time."""
        self._does(self.app.sweep)

    @rule(left=st.integers(1, 6), kind=st.sampled_from(KINDS))
    def something_will_go_wrong(self, left: int, kind: Fault) -> None:
        """At one of the next writes."""
        self.fault = (left, kind)

    @rule()
    def pause(self) -> None:
        """By an operator."""
        self._does(lambda: self.app.run("r").pause())

    @rule()
    def unpause(self) -> None:
        """By an operator."""
        self._does(lambda: self.app.run("r").unpause())

    @rule()
    def restart(self) -> None:
        """By an operator who believes the worker dead."""
        self._does(lambda: self.app.run("r").restart())

    @rule()
    def cancel(self) -> None:
        """Not too soon, or nothing else would ever be seen."""
        if self._has_come_to(21):
            self._does(lambda: self.app.cancel("r"))

    def _has_come_to(self, version: int) -> bool:
        """Asked in a rule, not before one: threads that race for a write must not change what is drawn next."""
        return self.head is not None and self.head.version >= version

    @rule()
    def step_will_fail(self) -> None:
        """And be redriven, perhaps."""
        TO_FAIL[:] = ["for once"]

    @rule()
    def redrive(self) -> None:
        """By an operator; only what has failed goes on."""
        self._lives_again(lambda: self.app.run("r").redrive())

    @rule(which=st.integers(0, 9), with_input=st.booleans())
    def travel(self, which: int, with_input: bool) -> None:
        """By an operator; to a place where it was, or not."""
        if not self._has_come_to(9):
            return
        given: dict[str, Any] = {"input": 2} if with_input else {}
        step = self.steps[which % len(self.steps)]
        self._lives_again(lambda: self.app.run("r").time_travel(step, **given))

    @rule(which=st.integers(0, 9))
    def fork(self, which: int) -> None:
        """By an operator; the run itself is none the wiser."""
        self._does(lambda: self.app.run("r").fork(self.steps[which % len(self.steps)], run_id=FORK.id))

    def _lives_again(self, what: Any) -> None:
        self.may_live_again = True
        self._does(what)

    def _does(self, what: Any) -> None:
        """Whoever asks may die, get no answer, or be told no."""
        with suppress(WorkerDied, OutsideError, RequestError, ConflictError):
            what()

    # -- what holds --------------------------------------------------------------------------------------------------

    @invariant()
    def an_ended_run_stays_as_it_is(self) -> None:
        """Until an operator has it begin anew; that its children are told, and who tried to, may be written down."""
        head, may_live_again = self.head, self.may_live_again
        self.may_live_again = False
        plain = None if head is None else replace(head, version=0, outbox=(), due=None, attempts=0)
        if may_live_again and plain is not None and self.ended is not None:
            self.ended = None if plain.incarnation != self.ended.incarnation else self.ended
        if self.ended is not None:
            assert self.ended == plain
        elif plain is not None and plain.status in TERMINAL:
            self.ended = plain

    @invariant()
    def records_are_what_was_written(self) -> None:
        """The other rules are held by the store that watches, at each write."""
        for run in (REF, FORK):
            if self.memory.peek(run) is not None:
                self.memory.audit(run)

    def teardown(self) -> None:
        """With nothing going wrong any more and everything answered, the run gets over, and so does its fork."""
        self.fault = None
        TO_FAIL.clear()
        for run in (REF, FORK):
            for _ in range(60):
                head = self.memory.peek(run)
                if head is None or head.status in TERMINAL:
                    break
                self._settle(run)
            else:
                raise AssertionError(f"stuck in {self.memory.peek(run)}")

    def _settle(self, run: RunRef) -> None:
        result = self.calm.run(run.id).result()
        if result.status == "paused":
            result = self.calm.run(run.id).unpause()
        for wait in result.waits:
            with suppress(RequestError):
                self.calm.resume(run.id, 1, wait=wait.id)
        self.calm.advance(hours=1)


@step
def count(number: int, ctx: StepContext[int]) -> int:
    """Waits for a number, one of the items two days at most, and fails at three."""
    ITEMS_RAN.append(ctx.run_id)
    if ctx.timed_out:
        return -1
    if ctx.resume_data is None:
        ctx.suspend(timeout=48 * HOUR if number == 1 else None)
    if ctx.resume_data == 3:
        raise ValueError("three")
    return ctx.resume_data


ITEMS_RAN: list[str] = []
ITEM = (
    workflow("item", input=int, output=int)
    .then(count)
    .parallel(NAP, approve)
    .map(lambda out: sum(out.values()), id="both")
    .commit()
)
FANNED = (
    workflow("w", input=int)
    .map(lambda n: [n, 1, 2, 5], id="list")
    .foreach(ITEM, id="each", distributed=True, concurrency=3, shard=2, tolerated_failures=1)
    .map(len, id="len")
    .commit()
)


class LifeOfMany(Life):
    """The same of a run whose items are seen to by children."""

    flow = FANNED
    steps = ("list", "each", "len")
    paused: tuple[int, int] | None = None

    @invariant()
    def no_item_begins_while_the_run_is_paused(self) -> None:
        """Whoever answers it."""
        head = self.head
        if head is None or head.status is not RunStatus.PAUSED:
            self.paused = None
        elif self.paused is None or self.paused[0] != head.version:
            self.paused = head.version, ITEMS_RAN.count(REF.id)
        else:
            assert self.paused[1] == ITEMS_RAN.count(REF.id)


def lives(examples: int, steps: int, kind: type[Life] = Life, *, is_made_small: bool = True) -> None:
    """So many lives of so many events; the same each time. What fails is made small, which takes its time."""
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    found = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        database=None,
        phases=list(Phase) if is_made_small else [Phase.generate],
        suppress_health_check=checks,
    )
    logging.disable(logging.CRITICAL)
    try:
        with trying("lives" if kind is Life else "lives-fanned") as row:
            before = kind.begun
            run_state_machine_as_test(kind, settings=found)
            row.count = kind.begun - before
    finally:
        logging.disable(logging.NOTSET)


def test_a_run_bears_whatever_happens_to_it() -> None:
    """A taste for the quick loop."""
    lives(10, 20)


@pytest.mark.slow
@pytest.mark.gate
def test_three_hundred_runs_bear_whatever_happens_to_them() -> None:
    """Up to fifty events each."""
    lives(300, 50)


@pytest.mark.slow
@pytest.mark.gate
def test_runs_with_children_bear_whatever_happens_to_them() -> None:
    """Up to forty events each."""
    lives(60, 40, LifeOfMany)


@pytest.mark.slow
@pytest.mark.proof
def test_five_thousand_runs_bear_whatever_happens_to_them() -> None:
    """Up to a hundred events each."""
    lives(5_000, 100)


@pytest.mark.slow
@pytest.mark.proof
def test_a_thousand_runs_with_children_bear_whatever_happens_to_them() -> None:
    """Up to eighty events each."""
    lives(1_000, 80, LifeOfMany)
