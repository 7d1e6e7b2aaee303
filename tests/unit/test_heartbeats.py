"""Steps that take long say that they are at work: the lease is renewed, a cancel noticed, and how far they are kept."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from flowcore import App, DefinitionError, StepContext, create_step
from flowcore.adapters.memory import MemoryStore
from flowcore.core.decide import MOST_CLAIMS
from flowcore.errors import PayloadTooLarge
from flowcore.keys import RunRef, StepKey, beat_of, is_beat
from flowcore.model import Head, Outcome, RunStatus
from flowcore.pace import Pace
from flowcore.testing import Fault, FaultyStore, LocalApp, VirtualClock, explore
from flowcore.testing.faults import Call
from flowcore.testing.invariants import WatchedStore
from tests.builders import a_step, a_workflow

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
RUN = RunRef("default", "r-1")
Act = Callable[[StepContext[Any, Any]], Any]


class World:
    """A run of one step that does what a test says, on virtual time, and every call to its store."""

    def __init__(self, *steps: Any, build: Callable[[Any], Any] | None = None, **options: Any) -> None:
        self.clock = VirtualClock()
        self.calls: list[Call] = []
        self.fault: Callable[[Call], Fault | None] = lambda call: None
        self.watched = WatchedStore(MemoryStore())
        store: Any = FaultyStore(self.watched, self._called)

        def one_after_another(w: Any) -> Any:
            for each in steps:
                w = w.then(each)
            return w

        flow = a_workflow(build or one_after_another, **options)
        self.app = LocalApp(App(flow), store=store, clock=self.clock, pace=Pace(lease=5 * MINUTE))

    def _called(self, call: Call) -> Fault | None:
        self.calls.append(call)
        return self.fault(call)

    def start(self, value: Any = 1, **options: Any) -> Any:
        """The run, started."""
        return self.app.workflow("flow").create_run("r-1").start(value, **options)

    def result(self) -> Any:
        """The run as it stands."""
        return self.app.run("r-1").result()

    @property
    def head(self) -> Head:
        """The run's head as it stands."""
        head = self.watched.peek(RUN)
        assert head is not None
        return head

    def verbs(self, *wanted: str) -> list[str]:
        """The calls of these verbs."""
        return [call.verb for call in self.calls if call.verb in wanted]


def beating(world: list[World], seen: list[Any], *, times: int, every: timedelta, then: Act | None = None) -> Act:
    """A step's function that beats so many times, and notes what the head is like."""

    def execute(value: Any, ctx: StepContext[Any, Any]) -> Any:
        for number in range(times):
            world[0].clock.forward(every)
            ctx.heartbeat({"done": number})
            head = world[0].head
            seen.append((head.version, head.lease_until))
        return then(ctx) if then else value

    return execute  # type: ignore[return-value]  # as a step's function it takes the value, too


def test_it_renews_the_lease() -> None:
    """A step of an hour outlives a lease of five minutes: nobody takes the run away."""
    world: list[World] = []
    seen: list[Any] = []
    step = a_step("long", beating(world, seen, times=60, every=MINUTE))
    world.append(World(step, a_step("next")))
    assert "success" == world[0].start().status
    assert list(range(2, 62)) == [version for version, _ in seen]
    assert all(later - earlier == MINUTE for (_, earlier), (_, later) in pairwise(seen))
    assert 1 == world[0].head.epoch
    world[0].watched.audit(RUN)


def test_without_it_another_worker_would_come() -> None:
    """The control: the same step, silent."""
    world: list[World] = []

    def silent(value: int) -> int:
        world[0].clock.forward(HOUR)
        world[0].app.look(RUN)
        return value

    calls: list[int] = []

    def first_silent(value: int) -> int:
        calls.append(1)
        return silent(value) if len(calls) == 1 else value

    world.append(World(a_step("long", first_silent)))
    world[0].start()
    assert 2 == len(calls)


def test_it_costs_nothing_in_a_tight_loop() -> None:
    """One write an interval, however often it is called."""

    def eager(value: int, ctx: StepContext) -> int:
        for number in range(10_000):
            if number % 1_000 == 0:
                world.clock.forward(2 * SECOND)
            ctx.heartbeat()
        return value

    world = World(a_step("long", eager))
    world.start()
    assert 1 + 2 == len(world.verbs("release"))
    assert [] == world.verbs("peek")[10:]


def test_a_worker_with_a_deadline_reads_instead_of_writing() -> None:
    """Its lease is as long as its life already."""
    world: list[World] = []
    seen: list[Any] = []
    world.append(World(a_step("long", beating(world, seen, times=6, every=10 * SECOND))))
    world[0].start(wait=5 * MINUTE)
    assert {1} == {version for version, _ in seen}
    assert ["release"] == world[0].verbs("release")


@pytest.mark.parametrize("deadline", [None, 10 * MINUTE])
def test_it_notices_a_cancel(deadline: timedelta | None) -> None:
    """It says so, and the flag is set; what the step returns is dropped."""
    told: list[Any] = []

    def long(value: int, ctx: StepContext) -> int:
        told.append(ctx.heartbeat())
        world.watched.cancel(RUN, now=world.clock.now())
        told.append(ctx.heartbeat())  # within the interval nothing is looked at
        world.clock.forward(10 * SECOND)
        told.append((ctx.heartbeat(), ctx.cancelled.is_set(), ctx.heartbeat({"x": 1})))
        return value

    world = World(a_step("long", long))
    result = world.start(wait=deadline) if deadline else world.start()
    assert ("canceled", [True, True, (False, True, False)]) == (result.status, told)


def test_details_survive_a_failure() -> None:
    """The next try goes on where this one was, also with what was told within the interval."""
    found: list[Any] = []

    def long(value: int, ctx: StepContext) -> int:
        found.append(ctx.heartbeat_details)
        if ctx.attempt == 1:
            ctx.heartbeat({"page": 1})
            ctx.heartbeat({"page": 2})
            ctx.heartbeat()
            raise ValueError("no")
        return value

    world = World(a_step("long", long, retries=1, backoff=HOUR))
    assert "waiting" == world.start().status
    world.app.advance(hours=2)
    assert ("success", [None, {"page": 2}]) == (world.result().status, found)


@pytest.mark.parametrize("durability", ["step", "boundary"])
@pytest.mark.parametrize("nested", [False, True])
def test_details_survive_a_crash(durability: str, nested: bool) -> None:
    """The next worker finds what was stored; not what was told within the interval."""
    found: list[Any] = []

    def long(value: int, ctx: StepContext) -> int:
        found.append(ctx.heartbeat_details)
        for page in range(5):
            ctx.heartbeat(page)
            world.clock.forward(6 * SECOND)
        return value

    step = a_step("long", long)
    child = a_workflow(lambda w: w.then(step), "child")
    world = World(child if nested else step, durability=durability)
    world.app.crash_before("long")
    world.start()
    world.app.advance(hours=1)
    assert ("success", [None, 4]) == (world.result().status, found)
    world.watched.audit(RUN)


def test_details_are_written_only_when_they_change() -> None:
    """And once an interval."""

    def long(value: int, ctx: StepContext) -> int:
        for number in range(60):
            ctx.heartbeat({"step": number // 30})
            world.clock.forward(SECOND)
        return value

    world = World(a_step("long", long))
    world.start()
    written = [call for call in world.calls if call.verb == "commit" and call.record and is_beat(call.record.key)]
    assert [0, 1] == [call.record.output["step"] for call in written if call.record]
    assert [0, 1] == [call.record.gen for call in written if call.record]


def test_details_that_are_no_json_fail_the_step() -> None:
    """At the call."""
    result = World(a_step("long", lambda v, ctx: ctx.heartbeat(object()))).start()
    assert "NotJsonError" == result.error.type
    assert "the details of ctx.heartbeat" in result.error.message


@pytest.mark.parametrize("timeout", [None, HOUR])
def test_details_that_are_too_large_are_no_end_of_the_worker(
    timeout: timedelta | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Told within the interval and stored only when the try fails, they are left out; it counts."""
    found: list[Any] = []

    def long(value: int, ctx: StepContext) -> int:
        found.append((ctx.attempt, ctx.heartbeat_details))
        ctx.heartbeat("small")
        ctx.heartbeat("x" * 500_000)
        raise ValueError("no")

    world = World(a_step("long", long, retries=2, timeout=timeout))
    with caplog.at_level(logging.WARNING, "flowcore.session"):
        world.start()
        world.app.advance(hours=1)
    assert ("failed", "ValueError") == (world.result().status, world.result().error.type)
    assert [(1, None), (2, "small"), (3, "small")] == found
    assert ["the details of a heartbeat are not stored"] * 2 == caplog.messages[:2]
    world.watched.audit(RUN)


def test_details_that_are_too_large_fail_the_step_that_has_them_stored() -> None:
    """At the call, in the step's own words; one that catches it may fail of something else."""
    told: list[str] = []

    def long(value: int, ctx: StepContext) -> int:
        try:
            ctx.heartbeat("x" * 500_000)
        except PayloadTooLarge as error:
            told.append(str(error))
        raise ValueError("no")

    world = World(a_step("long", long, retries=1, backoff=HOUR))
    world.start()
    world.app.advance(hours=2)
    assert ("failed", "ValueError") == (world.result().status, world.result().error.type)
    assert 2 == len(told)
    assert told[0].startswith("What step 'long' told with its heartbeat is 500002 bytes")


def test_an_answer_that_comes_between_two_beats_is_heeded() -> None:
    """The head has moved: the beat is repeated upon it, and the answer is not lost."""

    def long(value: int, ctx: StepContext) -> int:
        for number in range(4):
            world.clock.forward(MINUTE)
            if number == 1:
                world.app.resume("r-1", "yes")
            assert ctx.heartbeat()
        return value

    ask = a_step("ask", lambda v, ctx: ctx.resume_data or ctx.suspend(), resume=Any)
    inner = a_workflow(lambda w: w.sleep(SECOND).then(a_step("long", long)), "inner")
    world = World(build=lambda w: w.parallel(ask, inner))
    world.start()
    world.app.advance(hours=1)
    assert ("success", {"ask": "yes", "inner": 1}) == (world.result().status, world.result().output)
    world.watched.audit(RUN)


def test_a_store_that_does_not_answer_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """The next beat tries again."""
    told: list[bool] = []

    def long(value: int, ctx: StepContext) -> int:
        world.fault = lambda call: Fault.FAILS if call.verb in ("release", "commit") else None
        world.clock.forward(MINUTE)
        told.append(ctx.heartbeat("far"))
        world.fault = lambda call: None
        world.clock.forward(MINUTE)
        told.append(ctx.heartbeat("farther"))
        return value

    world = World(a_step("long", long))
    with caplog.at_level(logging.WARNING, "flowcore.session"):
        assert "success" == world.start().status
    assert [True, True] == told
    assert ["nobody has heard this heartbeat", "the details of a heartbeat are not stored"] == caplog.messages


# -- heartbeat= -------------------------------------------------------------------------------------------------------


def test_a_promise_shortens_the_lease_while_the_step_is_at_work() -> None:
    """And no longer: the next step has the whole lease again."""
    leases: dict[str, timedelta | None] = {}

    def noted(id: str, **options: Any) -> Any:
        def execute(value: int) -> int:
            lease = world.head.lease_until
            leases[id] = None if lease is None else lease - world.clock.now()
            return value

        return a_step(id, execute, **options)

    world = World(noted("a"), noted("b", heartbeat=20 * SECOND), noted("c", heartbeat=20 * SECOND), noted("d"))
    assert "success" == world.start().status
    full, short = 5 * MINUTE + 10 * SECOND, 30 * SECOND
    assert {"a": full, "b": short, "c": short, "d": full} == leases
    assert 3 == len(world.verbs("release"))


def test_a_silent_worker_is_given_up_sooner() -> None:
    """Two minutes after it died, and not when its lease would have been over."""
    seen: list[Any] = []

    def long(value: int, ctx: StepContext) -> int:
        seen.append(world.clock.now())
        ctx.heartbeat()
        return value

    world = World(a_step("long", long, heartbeat=20 * SECOND))
    world.app.crash_before("long")
    world.start()
    world.app.advance(minutes=2)
    assert "success" == world.result().status
    assert 2 * MINUTE > seen[1] - seen[0]


def test_beats_keep_a_promise() -> None:
    """A third of it is the interval; each moves the short lease on."""
    world: list[World] = []
    seen: list[Any] = []
    step = a_step("long", beating(world, seen, times=12, every=5 * SECOND), heartbeat=15 * SECOND)
    world.append(World(step))
    assert "success" == world[0].start().status
    assert 60 * SECOND - 5 * SECOND == seen[-1][1] - seen[0][1]
    assert 1 == world[0].head.epoch


def test_a_promise_counts_for_nothing_beside_a_step_without() -> None:
    """Whoever is taken for dead would take the other with it."""
    leases: list[Any] = []
    one = a_step("one", lambda v: leases.append(world.head.lease_until), heartbeat=20 * SECOND)
    world = World(build=lambda w: w.parallel(one, a_step("other")))
    began = world.clock.now()
    world.start()
    assert [began + 5 * MINUTE + 10 * SECOND] == leases


def test_details_are_no_progress_that_saves_a_step_that_kills() -> None:
    """It is given up after as many workers as any other."""
    calls: list[Any] = []

    def deadly(value: int, ctx: StepContext) -> int:
        calls.append(ctx.heartbeat_details)
        ctx.heartbeat(len(calls))
        return value

    world = World(a_step("deadly", deadly))
    world.fault = lambda call: Fault.DIES_BEFORE if _is_end_of(call, "deadly") else None
    world.start()
    world.app.advance(hours=10)
    assert ("failed", "ExecutorCrashed") == (world.result().status, world.result().error.type)
    assert [None, 1, 2, 3, 4] == calls
    assert MOST_CLAIMS == len(calls)


def _is_end_of(call: Call, step: str) -> bool:
    return call.record is not None and (call.record.key, call.record.outcome) == (step, Outcome.OK)


@pytest.mark.parametrize("heartbeat", [timedelta(0), 30, timedelta(milliseconds=5), timedelta.max])
def test_a_promise_must_be_a_pause(heartbeat: Any) -> None:
    """The author learns what to give."""
    with pytest.raises(DefinitionError, match="is no pause; give a timedelta from 1 second to a century"):
        create_step(id="x", execute=lambda v: v, heartbeat=heartbeat)


def test_async_steps_beat_as_well() -> None:
    """The same call."""

    async def long(value: int, ctx: StepContext) -> Any:
        world.clock.forward(MINUTE)
        return [ctx.heartbeat("half"), ctx.heartbeat_details]

    world = World(a_step("long", long))
    assert [True, None] == world.start().output
    loaded = world.watched.load(RUN)
    assert loaded is not None
    assert "half" == loaded[1][beat_of(StepKey("long"))].output
    assert RunStatus.SUCCESS is world.head.status


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.parametrize("durability", ["step", "boundary"])
def test_whatever_happens_to_a_beating_run_it_becomes_the_same(durability: str) -> None:
    """Every fault at every write, those of the leases and of the details among them."""

    def long(value: int, ctx: StepContext) -> int:
        ctx.heartbeat({"value": value})
        return value + 1

    careful = a_step("careful", long, heartbeat=20 * SECOND)
    ask = a_step("ask", lambda v, ctx: ctx.resume_data or ctx.suspend(), resume=Any, heartbeat=20 * SECOND)
    flow = a_workflow(
        lambda w: w.then(careful).parallel(ask, a_step("b", long, heartbeat=30 * SECOND)).then(a_step("c")),
        durability=durability,
    )
    assert {"ask": 7, "b": 3} == explore(flow, 1, answers={"ask": 7}).result.output
