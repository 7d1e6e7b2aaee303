"""What each transition costs a run, counted on the whole path from the App to DynamoDB's requests, hints included.

``test_costs`` holds each call to the store to its price; this holds the engine to the number of calls. The workflows
here read the meter in small steps of their own: a bill is what lies between two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, Run, StepContext, step, workflow
from flowcore.adapters.dynamodb import DynamoStore
from flowcore.adapters.dynamodb_keys import DUE_INDEX
from flowcore.adapters.memory import MemoryScheduler
from flowcore.adapters.system import SystemIds
from flowcore.keys import RunRef
from flowcore.model import Sent, Topic
from flowcore.testing import VirtualClock
from flowcore.testing.meter import Metered
from flowcore.testing.moto import fresh_table

Cost = tuple[int, int, float, int]
"""Calls to the table, write units, read units, hints."""
RECORD: Cost = (1, 1, 0, 0)
HOUR = timedelta(hours=1)


class World:
    """A table with the due index alone, and an App on it in which no time passes by itself."""

    def __init__(self, meter: Metered, table: str) -> None:
        self.clock = VirtualClock()
        self.meter = meter
        self.hints = MemoryScheduler()
        self.store = DynamoStore(meter, table, SystemIds(), pause=lambda _: None)
        self.bills: list[Cost] = []

    def cut(self) -> Cost:
        """End a bill, and begin the next."""
        bill, hints = self.meter.take_bill(), self.hints.pop_due(self.clock.now() + 100 * HOUR)
        self.bills.append((bill.calls, bill.write_units, bill.read_units, len(hints)))
        return self.bills[-1]

    def started(self, build: Callable[[Any], Any]) -> Run[Any, Any]:
        """A run of such a workflow in its first worker, which has begun with a cut and may end with one."""

        @step
        def begin(value: int) -> int:
            self.cut()
            return value

        @step
        def end(value: Any) -> int:
            self.cut()
            return 1

        flow = build(workflow("w", input=int).then(begin)).then(end).commit()
        self.app = App(flow, store=self.store, clock=self.clock, scheduler=self.hints)
        run = self.app.workflow("w").create_run("r")
        run.start(1)
        return run

    def between(self, build: Callable[[Any], Any]) -> Cost:
        """What lies between two steps, without the first of them."""
        self.started(build)
        return minus(self.bills[1], RECORD)


def minus(bill: Cost, part: Cost) -> Cost:
    """The rest of a bill."""
    calls, writes, reads, hints = (whole - some for whole, some in zip(bill, part, strict=True))
    return int(calls), int(writes), reads, int(hints)


@pytest.fixture
def world(client: Any) -> Iterator[World]:
    """Empty, and everything paid."""
    with fresh_table(client, indexes=(DUE_INDEX,)) as table:
        yield World(Metered(client, (DUE_INDEX,)), table)


@step
def same(value: int) -> int:
    """Nothing to see."""
    return value


@step
def wide(value: int) -> str:
    """Somewhat less than three kilobytes."""
    return "x" * 2_800


@step
def ask(value: int, ctx: StepContext[int]) -> int:
    """Waits for a number."""
    if ctx.resume_data is None:
        ctx.suspend()
    return value


def yes(_: Any) -> bool:
    """A condition."""
    return True


GOES_ON: dict[str, tuple[Callable[[Any], Any], Cost]] = {
    "nothing": (lambda w: w, (0, 0, 0, 0)),
    "step": (lambda w: w.then(same), RECORD),
    "step of three kilobytes": (lambda w: w.then(wide), (1, 3, 0, 0)),
    "map": (lambda w: w.map(lambda value: value, id="map"), RECORD),
    "decision, and its arm": (lambda w: w.branch((yes, same)), (2, 2, 0, 0)),
    "arms in parallel": (lambda w: w.parallel(same, same.clone(id="other")), (2, 2, 0, 0)),
}


@pytest.mark.parametrize(("build", "cost"), GOES_ON.values(), ids=GOES_ON)
def test_what_goes_on_costs_a_unit_a_kilobyte(world: World, build: Callable[[Any], Any], cost: Cost) -> None:
    """One request for each outcome and each decision; nothing is read, and nobody is told."""
    assert cost == world.between(build)


def test_a_step_that_takes_a_while_costs_a_look_at_the_head(world: World) -> None:
    """Whether the run was canceled meanwhile: one read of what it is about to commit upon."""

    @step
    def slow(value: int) -> int:
        world.clock.forward(seconds=2)
        return value

    assert (2, 1, 1, 0) == world.between(lambda w: w.then(slow))


def test_start_and_finish_cost_one_request_each(world: World) -> None:
    """Of two units."""
    world.started(lambda w: w)
    assert ((1, 2, 0, 0), (1, 2, 0, 0)) == (world.bills[0], minus(world.cut(), RECORD))


def test_sleep_and_wake_cost_two_requests_each(world: World) -> None:
    """One hint, and what is loaded is below four kilobytes."""
    world.started(lambda w: w.sleep(HOUR, id="nap"))
    assert (2, 4, 0, 1) == minus(world.cut(), RECORD)
    world.clock.forward(HOUR)
    world.app.look(RunRef("default", "r"))
    assert (2, 3, 1, 0) == world.bills[2]


def test_suspend_and_resume_cost_what_they_say(world: World) -> None:
    """Nobody need be told; the answer is a read and a transaction in the process that goes on with it."""
    run = world.started(lambda w: w.then(ask))
    assert (2, 3, 0, 0) == minus(world.cut(), RECORD)
    run.resume(1)
    assert (2, 5, 1, 0) == minus(world.bills[2], RECORD)


def test_waking_reads_a_unit_for_four_kilobytes_of_the_run(world: World) -> None:
    """Some nine of them here; it is one request all the same."""
    parts = [wide.clone(id=f"wide-{number}") for number in range(3)]
    small = same.clone(id="small")
    world.started(lambda w: w.parallel(*parts, small).map(lambda _: 1, id="one").sleep(HOUR, id="nap"))
    world.cut()
    world.clock.forward(HOUR)
    world.app.look(RunRef("default", "r"))
    assert (2, 3, 3, 0) == world.bills[2]


EUR = Topic("default", "rate", "EUR")
SENT: dict[str, tuple[int, list[Cost]]] = {
    # runs that wait; what it costs to send an event, to send it again, to ask what became of it
    "awaited": (2, [(5, 11, 3, 0), (4, 1, 3, 0), (1, 0, 1, 0)]),
    "kept": (0, [(5, 1, 4, 0), (2, 0, 2, 0), (1, 0, 1, 0)]),
}


@pytest.mark.parametrize(("waits", "costs"), SENT.values(), ids=SENT)
def test_an_event_costs_the_same_however_many_are_kept(world: World, waits: int, costs: list[Cost]) -> None:
    """For the same name and key, of three kilobytes each."""
    flow = workflow("w", input=str).wait_for_event("rate", key=lambda name: name, model=int).commit()
    app = App(flow, store=world.store, clock=world.clock, scheduler=world.hints)
    for number in range(waits):
        app.workflow("w").create_run(f"r-{number}").start("EUR")
    for kept in (0, 300):
        now = world.clock.now()
        for number in range(kept):
            sent = Sent(topic=EUR, id=f"k-{number}", data="x" * 3_000, digest="d", at=now, until=now + HOUR)
            world.store.keep(sent)
        world.cut()
        bills = []
        for _ in range(2):
            app.send_event("rate", "EUR", 1, event_id=f"e-{kept}")
            bills.append(world.cut())
        app.event("rate", "EUR", f"e-{kept}")
        assert costs == [*bills, world.cut()], f"{kept} are kept"
