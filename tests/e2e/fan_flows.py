"""A distributed foreach as a deployment serves it; what its steps do outside stands in the book of the soak."""

from __future__ import annotations

from flowcore import App, StepContext, step, workflow
from infra.local.soak_flows import enter, work


@step
def ship(number: int, ctx: StepContext[None, None]) -> int:
    """Does first, and takes its time then: who is killed here has done it all the same."""
    enter(ctx)
    work()
    return 3 * number


@step
def close(numbers: list[int], ctx: StepContext[None, None]) -> list[int]:
    """What comes once, after all of them."""
    enter(ctx)
    return numbers


flow = (
    workflow("fan", input=int, output=list[int])
    .map(lambda count: list(range(count)), id="numbers")
    .foreach(ship, id="fan", distributed=True, shard=1)
    .then(close)
    .commit()
)
app = App(flow)
