"""The figures we promise, counted on the whole path from the App to DynamoDB's requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flowcore import App, StepContext, step, workflow
from flowcore.adapters.dynamodb import DynamoStore
from flowcore.adapters.dynamodb_keys import DUE_INDEX, LIST_INDEX, Index
from flowcore.adapters.system import SystemIds
from flowcore.authoring.workflow import Workflow
from flowcore.testing import VirtualClock
from flowcore.testing.meter import Metered
from flowcore.testing.moto import fresh_table

LEAN = (DUE_INDEX,)
FULL = (DUE_INDEX, LIST_INDEX)


@step
def add(total: int) -> int:
    """One small step."""
    return total + 1


@step
def approve(total: int, ctx: StepContext[bool]) -> int:
    """Waits for a person."""
    if ctx.resume_data is None:
        ctx.suspend()
    return total


APPROVAL = (
    workflow("approval", input=int, output=int)
    .then(add, id="one")
    .then(add, id="two")
    .then(add, id="three")
    .then(approve)
    .then(add, id="four")
    .commit()
)


def chain(length: int) -> Workflow[int, int]:
    """A flat workflow of ``length`` steps."""
    builder: Any = workflow(f"chain-{length}", input=int, output=int)
    for number in range(length):
        builder = builder.then(add, id=f"s{number:04}")
    made: Workflow[int, int] = builder.commit()
    return made


@pytest.fixture(params=[LEAN, FULL], ids=["due index", "both indexes"])
def indexes(request: pytest.FixtureRequest) -> tuple[Index, ...]:
    """The table's indexes."""
    found: tuple[Index, ...] = request.param
    return found


@pytest.fixture
def metered(clients: dict[str, Any], indexes: tuple[Index, ...]) -> Iterator[tuple[DynamoStore, Metered]]:
    """An empty store and the meter on its client."""
    with fresh_table(clients["dynamodb"], indexes=indexes) as table:
        meter = Metered(clients["dynamodb"], indexes)
        yield DynamoStore(meter, table, SystemIds(), pause=lambda _: None), meter


def test_approval_run_costs_what_we_say(metered: tuple[DynamoStore, Metered], indexes: tuple[Index, ...]) -> None:
    """Three steps, suspend, resume, two steps: 11 requests; 17 write units, and 21 with the list index, as deployed."""
    store, meter = metered
    run = App(APPROVAL, store=store).workflow("approval").create_run("r-1")

    assert run.start(1).status == "suspended"
    assert run.resume(data=True).output == 5

    bill = meter.take_bill()
    print(f"\n{len(indexes)} index(es): {bill.write_units} write units, {bill.read_units} read, {bill.calls} requests")
    assert (11, 21 if indexes == FULL else 17, 1) == (bill.calls, bill.write_units, bill.read_units)


@pytest.mark.parametrize("indexes", [LEAN], ids=["due index"], indirect=True)
@pytest.mark.slow
def test_bytes_written_grow_linearly_from_10_to_1000_steps(metered: tuple[DynamoStore, Metered]) -> None:
    """Nothing but the head is ever rewritten: a step costs the same bytes and requests, however many there are."""
    store, meter = metered
    short, long = chain(10), chain(1000)
    app = App(short, long, store=store, clock=VirtualClock())  # in no time, so nobody looks for a cancel
    bills = {}
    for flow, length in ((short, 10), (long, 1000)):
        assert app.workflow(flow).create_run(f"r-{length:04}").start(0).output == length
        bills[length] = meter.take_bill()
        print(
            f"\n{length:5} steps: {bills[length].bytes_written} B, {bills[length].write_units} units,",
            f"{bills[length].calls} requests",
        )

    assert bills[1000].calls - bills[10].calls == 990
    per_step = (bills[1000].bytes_written - bills[10].bytes_written) / 990
    assert bills[1000].bytes_written <= 1.05 * 1000 * (bills[10].bytes_written / 10)
    assert per_step < 200
