"""Runs of thousands of items and turns: they end, the next one costs what the first did, and a wake reads no more.

The figures at full size: ``make prove``.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, StepContext, step, workflow
from flowcore.adapters.aws import dynamo_client
from flowcore.adapters.dynamodb import DynamoStore
from flowcore.adapters.dynamodb_attributes import item_size
from flowcore.adapters.memory import MemoryStore
from flowcore.adapters.table import INDEXES
from flowcore.authoring.workflow import Workflow
from flowcore.keys import RunRef
from flowcore.ports import Store
from flowcore.testing import LocalApp, SeededIds, VirtualClock
from flowcore.testing.meter import Bill, Metered
from flowcore.testing.moto import REGION, StrictClient, fresh_table, locked_moto

RUN = RunRef("default", "r")
ITEMS, TURNS = 10_000, 5_000
full_size = (pytest.mark.slow, pytest.mark.proof)


@step
def add(number: int) -> int:
    """Costs nothing itself."""
    return number + 1


@step
def ask(number: int, ctx: StepContext[int, dict[str, int]]) -> int:
    """Waits for an answer, and adds it."""
    if ctx.resume_data is None:
        ctx.suspend({"number": number})
    return number + ctx.resume_data


def fan(concurrency: int = 1, body: Any = add) -> Workflow[Any, Any]:
    """One step for each item of a list."""
    return workflow("fan", input=list).foreach(body, concurrency=concurrency, id="f").commit()


def loop(turns: int, body: Any = add) -> Workflow[Any, Any]:
    """One step again and again, until its number has come that far."""
    return workflow("loop", input=int).dountil(body, lambda number: number >= turns, id="l").commit()


def ended(flow: Workflow[Any, Any], given: Any, store: Store | None = None) -> Any:
    """What a run that is driven in one go ends with."""
    return App(flow, store=store).workflow(flow).create_run("r").start(given)


# -- they end ---------------------------------------------------------------------------------------------------------


def cpu(flow: Workflow[Any, Any], given: Any, size: int) -> float:
    """Seconds of CPU for each of the ``size`` items or turns of a run."""
    gc.collect()
    began = time.process_time()
    result = ended(flow, given)
    assert result.status in ("success", "suspended")
    assert result.output in (None, size, list(range(1, size + 1)))
    return (time.process_time() - began) / size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "small", "large"),
    [
        ("foreach", 100, ITEMS // 4),
        pytest.param("foreach", 100, ITEMS, marks=(pytest.mark.slow, pytest.mark.gate)),
        pytest.param("foreach of 10 at a time", 100, ITEMS // 4, marks=full_size),
        pytest.param("loop", 100, TURNS, marks=full_size),
        pytest.param("open items", 100, 1_000, marks=full_size),
    ],
)
def test_bookkeeping_per_item_does_not_grow(name: str, small: int, large: int) -> None:
    """At most twice that of a hundred; of the small size the best of several rounds."""
    made: dict[str, Callable[[int], tuple[Workflow[Any, Any], Any, int]]] = {
        "foreach": lambda size: (fan(), list(range(size)), size),
        "foreach of 10 at a time": lambda size: (fan(10), list(range(size)), size),
        "loop": lambda size: (loop(size), 0, size),
        "open items": lambda size: (fan(size, ask), list(range(size)), size),
    }
    cpu(*made[name](small))
    few, many = min(cpu(*made[name](small)) for _ in range(3)), cpu(*made[name](large))
    print(f"\n{name}: {few * 1e6:.0f} us each at {small}, {many * 1e6:.0f} us at {large}, ratio {many / few:.2f}")
    assert many <= 2 * few


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A client of moto, which is slow with large tables: transactions copy them, queries look at every item."""
    with locked_moto():
        yield StrictClient(dynamo_client(region=REGION))


@pytest.mark.xdist_group("scale-on-moto")
@pytest.mark.parametrize(
    ("flow", "given", "output"),
    [
        pytest.param(fan(), list(range(50)), list(range(1, 51)), id="50 items", marks=pytest.mark.slow),
        pytest.param(fan(), list(range(ITEMS)), list(range(1, ITEMS + 1)), id="10,000 items", marks=full_size),
        pytest.param(loop(TURNS), 0, TURNS, id="5,000 turns", marks=full_size),
    ],
)
def test_large_runs_end_on_dynamodb(client: Any, flow: Workflow[Any, Any], given: Any, output: Any) -> None:
    """Driven in one go, each step committed on its own."""
    with fresh_table(client) as table:
        began = time.process_time()
        result = ended(flow, given, DynamoStore(client, table, SeededIds()))
    print(f"\n{flow.id}: {time.process_time() - began:.0f} s of CPU, moto included")
    assert ("success", output) == (result.status, result.output)


# -- a wake reads no more ---------------------------------------------------------------------------------------------


NAP = workflow("turn", input=int, output=int).then(add).sleep(timedelta(hours=1)).commit()


def asleep_in(turns: int) -> tuple[MemoryStore, VirtualClock]:
    """A run that sleeps in each turn, asleep in that turn."""
    store, clock = MemoryStore(), VirtualClock()
    app = LocalApp(App(loop(10**9, NAP)), store=store, clock=clock)
    app.workflow("loop").create_run("r").start(0)
    app.advance(hours=turns - 1)
    return store, clock


def bill_of_a_wake(client: Any, turn: int) -> Bill:
    """What it costs on DynamoDB to wake a run in that turn, and to bring it to sleep in the next one.

    The turns before were done in memory, which keeps the very items that the table would.
    """
    store, clock = asleep_in(turn)
    metered = Metered(client, INDEXES)
    with fresh_table(client) as table:
        items = store.items()
        for begin in range(0, len(items), 25):
            puts = [{"PutRequest": {"Item": item}} for item in items[begin : begin + 25]]
            client.batch_write_item(RequestItems={table: puts})
        app = LocalApp(App(loop(10**9, NAP)), store=DynamoStore(metered, table, SeededIds()), clock=clock)
        clock.forward(hours=1)
        app.look(RUN)
        bill = metered.take_bill()
        head, records = app.store.load(RUN) or (None, {})
    assert head is not None
    assert f"l#{turn + 1}/add" in records
    return bill


@pytest.mark.slow
@pytest.mark.xdist_group("scale-on-moto")
@pytest.mark.parametrize(("turn", "as_long"), [(305, 205), pytest.param(TURNS, 3_000, marks=pytest.mark.proof)])
def test_a_wake_costs_the_same_in_every_turn(client: Any, turn: int, as_long: int) -> None:
    """Requests, units and items as in turn 5; to the byte what a turn reads whose numbers take as many digits."""
    fifth, long, late = (bill_of_a_wake(client, number) for number in (5, as_long, turn))
    print(f"\nturn 5: {fifth}\nturn {turn}: {late}")
    assert (long.items_read, long.bytes_read) == (late.items_read, late.bytes_read)
    assert abs(long.bytes_written - late.bytes_written) < 10  # DynamoDB stores no zeros at the end of a number
    assert (fifth.requests, fifth.write_units, fifth.read_units) == (late.requests, late.write_units, late.read_units)
    assert fifth.items_read == late.items_read
    assert late.bytes_read - fifth.bytes_read < 50
    assert late.bytes_written - fifth.bytes_written < 150


class Scales(MemoryStore):
    """A store that notes what each load of the open scopes reads; what a person asks to see reads everything."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[int] = []

    def load(self, run: RunRef, head: Any = None, *, everything: bool = False) -> Any:
        """See ``Store.load``."""
        loaded = super().load(run, head, everything=everything)
        if loaded is not None and not everything:
            self.loads.append(len(loaded[1]))
        return loaded


@pytest.mark.slow
@pytest.mark.parametrize("turns", [300, pytest.param(TURNS, marks=pytest.mark.proof)])
def test_a_loop_that_waits_in_every_turn_ends_and_loads_no_more(turns: int) -> None:
    """It is answered in each turn, and reads in the last what it read in the second."""
    store = Scales()
    run = LocalApp(App(loop(turns, ask)), store=store).workflow("loop").create_run("r")
    result = run.start(0)
    while result.status == "suspended":
        result = run.resume(1, wait=result.waits[0].id)
    assert ("success", turns) == (result.status, result.output)
    assert {2} == set(store.loads)
    sizes = [item_size(item) for item in store.items() if item["sk"]["S"].startswith("S#0001#l#")]
    assert len(sizes) == turns
    assert max(sizes) - min(sizes) < 40  # the digits of the turn, wherever it is named


@pytest.mark.slow
@pytest.mark.parametrize("turns", [100, pytest.param(TURNS, marks=pytest.mark.proof)])
def test_a_loop_that_sleeps_in_every_turn_ends_and_loads_no_more(turns: int) -> None:
    """The sweeper, the hints and the wakes of months; each wake reads the same."""
    store = Scales()
    app = LocalApp(App(loop(turns, NAP)), store=store)
    run = app.workflow("loop").create_run("r")
    run.start(0)
    store.loads.clear()
    app.advance(hours=turns)
    assert {4} == set(store.loads)
    assert ("success", turns) == ((result := run.result()).status, result.output)


def answered(flow: Workflow[Any, Any], given: Any) -> Scales:
    """The store of a run whose suspensions were all answered, one after the other."""
    store = Scales()
    run = LocalApp(App(flow), store=store).workflow(flow).create_run("r")
    result = run.start(given)
    while result.status == "suspended":
        result = run.resume(1, wait=result.waits[0].id)
    assert "success" == result.status
    return store


@pytest.mark.slow
def test_a_foreach_of_lists_keeps_wakes_small() -> None:
    """One record for each item done so far; for each list done so far, where items come in lists."""
    inner = workflow("list", input=list[int]).foreach(ask, id="item").commit()
    flat = answered(fan(body=ask), list(range(100)))
    listed = answered(fan(body=inner), [list(range(10))] * 10)
    print(f"\nat most {max(flat.loads)} records a wake, in lists of ten {max(listed.loads)}")
    assert 100 <= max(flat.loads)
    assert max(listed.loads) <= 10 + 10 + 3
