"""What a step must not do with its context: each marked line is an error in both checkers."""

from pydantic import BaseModel

from flowcore import App, Option, StepContext, step, workflow


class Ask(BaseModel):
    """A question."""

    reason: str


class Decision(BaseModel):
    """An answer."""

    approved: bool


@step
def approve(amount: int, ctx: StepContext[Decision, Ask]) -> bool:
    """The data may not be there: it must be looked at before it is used."""
    return ctx.resume_data.approved  # error


@step
def ask(amount: int, ctx: StepContext[Decision, Ask]) -> bool:
    """What is shown has a type."""
    if ctx.resume_data is None:
        ctx.suspend(Decision(approved=True))  # error
    return ctx.resume_data.approved


@step
def choose(amount: int, ctx: StepContext[Decision, Ask]) -> bool:
    """What an option shows has the same type, and a name is text."""
    if ctx.resume_data is None:
        ctx.suspend_any([Option("boss", Ask(reason="why")), Option("staff", Decision(approved=True))])  # error
    if not ctx.chosen:
        ctx.suspend_any([Option(3)])  # error
    return ctx.resume_data.approved


@step
def show(amount: int, ctx: StepContext[Decision]) -> bool:
    """Nothing was said to be shown."""
    if ctx.resume_data is None:
        ctx.suspend(Ask(reason="why"))  # error
    return ctx.resume_data.approved


@step
def plain(amount: int, ctx: StepContext) -> bool:
    """Nothing was said to be answered, and there is no state."""
    if ctx.state.count:  # error
        return True
    return bool(ctx.get_step_result(approve).real)  # error


@step
def named(amount: int, ctx: StepContext) -> str:
    """The result of a step has that step's type."""
    result: str | None = ctx.get_step_result(approve)  # error
    return result or ""


@step  # error
def three(amount: int, ctx: StepContext, more: int) -> int:
    """A step takes the value, or the value and the context."""
    return amount + more


app = App(workflow("flow", input=int, output=bool).then(approve).commit())
app.resume("r-1", {"approved": True}, step=approve)  # error
app.resume("r-1", "yes", step=approve)  # error
app.resume("r-1", step=approve)  # error


@step(semantics="exactly_once")  # error
def pay(amount: int) -> int:
    """Nobody can promise that."""
    return amount


workflow("w", input=int, output=int, durability="never")  # error
