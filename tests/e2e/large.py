"""A workflow whose values are all large, for the tests of a deployment."""

from __future__ import annotations

from datetime import timedelta

from flowcore import App, StepContext, step, workflow


@step
def grow(text: str) -> str:
    """Two megabytes, whatever came."""
    return (text * (2_000_000 // len(text) + 1))[:2_000_000]


@step
def ask(text: str, ctx: StepContext[str, str]) -> str:
    """Shows all of it, and goes on with the answer and what it has shown."""
    if ctx.resume_data is None:
        ctx.suspend(text)
    assert ctx.suspend_data == text
    return f"{ctx.resume_data}{text}"


large = workflow("large", input=str, output=str).then(grow).then(ask).commit()
sleepy = workflow("sleepy", input=str, output=int).sleep(timedelta(days=1)).map(len).commit()
app = App(large, sleepy)
