"""What a step sees of its context, and what the checkers know about it."""

from datetime import timedelta
from typing import Any, assert_type

from pydantic import BaseModel

from flowcore import App, Option, Step, StepContext, step, workflow


class Ask(BaseModel):
    """A question."""

    reason: str


class Tally(BaseModel):
    """A state."""

    count: int = 0


@step
def plain(number: int, ctx: StepContext) -> int:
    """Nothing declared: nothing to resume with, nothing shown, no state."""
    assert_type(ctx, StepContext[None, None, None])
    assert_type(ctx.resume_data, None)
    assert_type(ctx.suspend_data, None)
    return number


@step
def decided(number: int, ctx: StepContext[bool]) -> str:
    """Only the answer is declared."""
    assert_type(ctx, StepContext[bool, None, None])
    if ctx.resume_data is None:
        ctx.suspend(label="boss", approvers=["ada"], allow_self=False, escalate={1: ("boss",)})
    assert_type(ctx.resume_data, bool)
    return str(number)


@step
def asked(number: int, ctx: StepContext[bool, Ask, Tally]) -> str:
    """Everything is declared."""
    if ctx.resume_data is None:
        ctx.set_state(Tally(count=ctx.state.count + 1))
        ctx.set_state({"count": 3})
        return ctx.suspend(Ask(reason="why"))
    assert_type(ctx.suspend_data, Ask | None)
    assert_type(ctx.get_step_result(plain), int | None)
    assert_type(ctx.get_step_result("plain"), Any)
    assert_type(ctx.get_init_data(Ask), Ask)
    assert_type(ctx.once("key", lambda: 7), int)
    assert_type(ctx.heartbeat({"page": 1}), bool)
    assert_type(ctx.heartbeat_details, Any)
    ctx.commit_with({"Delete": {"TableName": "carts", "Key": {"id": "c-1"}}})
    return str(number)


@step
def chosen(number: int, ctx: StepContext[bool | int, Ask]) -> str:
    """The answer to one of several options is one of several types."""
    if ctx.resume_data is None:
        ctx.suspend_any([Option("boss", Ask(reason="why"), resume=bool), Option("paid", key="k", resume=int)])
    assert_type(ctx.chosen, str | None)
    assert_type(ctx.resume_data, bool | int)
    return f"{ctx.chosen}"


@step
def ended(number: int, ctx: StepContext) -> int:
    """Bailing out reads well with and without return."""
    if number > 1:
        return ctx.bail({"early": True})
    ctx.bail()


assert_type(plain, Step[int, int, None, None])
assert_type(decided, Step[int, str, bool, None])
assert_type(asked, Step[int, str, bool, Ask])

flow = workflow("flow", input=int, output=str).then(plain).then(ended).then(asked).commit()
app = App(flow)
app.resume("r-1", True, step=asked)
app.resume("r-1", False, step=decided, index=3, idempotency_key="k-1", by="ann")
app.resume("r-1", {"any": "thing"}, step="flow.asked")
app.resume("r-1", {"any": "thing"}, label="boss")
app.resume("r-1")


@step(semantics="at_most_once", heartbeat=timedelta(seconds=30))
def careful(number: int, ctx: StepContext) -> int:
    """What is said about how it runs changes nothing about its types."""
    return number


assert_type(careful, Step[int, int, None, None])
hasty = workflow("hasty", input=int, output=int, durability="boundary").then(careful).commit()
items = App(hasty).workflow(hasty).create_run().start_items(3)
assert_type(items, list[dict[str, Any]])
