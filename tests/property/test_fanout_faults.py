"""A distributed foreach under every single fault: each item counts once, whatever dies, is lost or comes twice."""

from __future__ import annotations

from typing import Any

import pytest

from flowcore import StepContext, step, workflow
from flowcore.testing import explore

PAID: dict[str, int] = {}


@step
def pay(amount: int, ctx: StepContext[None, None]) -> int:
    """An effect that bears being repeated under its key."""
    PAID[ctx.idempotency_key] = amount
    return 2 * amount


@step
def ask(amount: int, ctx: StepContext[int, int]) -> int:
    """Asks about even amounts."""
    if amount % 2 == 0 and ctx.resume_data is None:
        ctx.suspend(amount)
    return amount + (ctx.resume_data or 0)


@step
def total(amounts: list[int]) -> int:
    """All of them."""
    return sum(amounts)


def tried(body: Any, **options: Any) -> tuple[Any, int]:
    """What becomes of five items, and how many schedules were tried for it."""
    flow = workflow("fanned", input=list[int], output=int)
    fanned = flow.foreach(body, id="fan", distributed=True, **options).then(total).commit()
    found = explore(fanned, [1, 2, 3, 4, 5], answers={"fan": 100}, before=PAID.clear, effects=lambda: dict(PAID))
    return found.result.output, found.schedules


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.parametrize("options", [{}, {"concurrency": 2}, {"shard": 2}])
def test_a_fan_bears_every_single_fault(options: dict[str, Any]) -> None:
    """Workers die around each write, replies are lost, workers are taken over, hints are lost or doubled."""
    output, schedules = tried(pay, **options)
    assert output == 30
    assert schedules > 150


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.parametrize("options", [{}, {"shard": 2}])
def test_a_fan_that_asks_bears_every_single_fault(options: dict[str, Any]) -> None:
    """The same while items wait for answers."""
    output, schedules = tried(ask, **options)
    assert output == 215
    assert schedules > 200
