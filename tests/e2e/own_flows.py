"""Workflows of somebody who wants to see them soaked, and what he says about them."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from examples import refund
from flowcore import App, StepContext, step, workflow
from flowcore.results import RunResult
from infra.local.soak_plan import Plan


@step
def inspect(number: int, ctx: StepContext[bool, None]) -> int:
    """Two of three people say whether an item is sound."""
    if ctx.resume_data is None:
        ctx.suspend(label=f"item {number}", approvers=["ada", "bob", "cy"], quorum=2)
    return number if ctx.resume_data else -number


@step
def remind(number: int, ctx: StepContext[int, None]) -> int:
    """Nobody has to answer."""
    if ctx.resume_data is None and not ctx.timed_out:
        ctx.suspend(timeout=timedelta(days=1))
    return number


stock = (
    workflow("stock", input=int, output=list[int])
    .then(remind)
    .map(lambda count: list(range(count % 4)), id="numbers")
    .foreach(inspect, id="fan", distributed=True, shard=1)
    .commit()
)
app = App(stock, refund.refunds)


def order(chance: random.Random) -> dict[str, Any]:
    """A refund of an order that nobody else has."""
    return {"order": f"A-{chance.randrange(10**9)}", "cents": 990, "reason": "the kettle leaks"}


def mistakes(workflow: str, result: RunResult[Any]) -> list[str]:
    """The money is back, or nobody wants that; every item is judged, in its place."""
    output: Any = result.output
    if workflow == "refund":
        is_well = output in ("nobody has decided", "refused") or str(output).endswith("cents are back")
    else:
        is_well = result.status == "success" and [*map(abs, output)] == [*range(len(output))]
    return [] if is_well else [f"{result.status} with {output!r}"]


soak = Plan(inputs={"stock": lambda chance: chance.randrange(100), "refund": order}, ends=mistakes)
