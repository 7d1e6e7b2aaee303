"""Code behind ``ctx.suspend()`` and ``ctx.bail()`` never runs, and the checkers know it."""

from flowcore import StepContext, step


@step
def suspends(amount: int, ctx: StepContext) -> int:
    """What stands behind is dead, whatever it is."""
    ctx.suspend()
    return "never"  # error: mypy


@step
def chooses(amount: int, ctx: StepContext) -> int:
    """The same."""
    ctx.suspend_any([])
    return "never"  # error: mypy


@step
def bails(amount: int, ctx: StepContext) -> int:
    """The same."""
    ctx.bail(3)
    return "never"  # error: mypy
