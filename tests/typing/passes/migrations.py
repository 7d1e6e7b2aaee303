"""Migrations: what they return is the new value, or a mapping of its fields; the function keeps its argument's type."""

from collections.abc import Callable
from typing import Any, assert_type

from pydantic import BaseModel

from flowcore import StepContext, migrate, step, workflow


class Old(BaseModel):
    """Before the deploy."""

    euros: float


class New(BaseModel):
    """After it."""

    cents: int


@step
def ask(price: New, ctx: StepContext[New]) -> New:
    """Takes, gives and is answered the new form."""
    return ctx.resume_data or price


@migrate(ask, "output")
def from_model(old: Old) -> New:
    """A model to a model."""
    return New(cents=round(old.euros * 100))


@migrate(ask, "resume")
def from_dict(old: dict[str, float]) -> dict[str, Any]:
    """Fields to fields."""
    return {"cents": old["euros"] * 100}


@migrate(workflow("w", input=New).then(ask).commit(), "input")
def from_anything(old: Any) -> Any:
    """Whatever."""
    return old


assert_type(from_model, Callable[[Old], Any])
