"""What a step takes from its function: id, description, doors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from flowcore import Backoff, DefinitionError, Step, StepContext, create_step, step
from flowcore.errors import InvalidPayload
from tests.unit import elsewhere


class Order(BaseModel):
    """A model of this module."""

    amount: int


class Ask(BaseModel):
    """Something shown."""

    reason: str


class Tally(BaseModel):
    """A state."""

    count: int = 0


def doors(made: Step[Any, Any, Any, Any]) -> tuple[Any, ...]:
    """The types at a step's doors: input, output, resume, suspend, state."""
    return tuple(shape.type for shape in (made.input, made.output, made.resume, made.suspend, made.state))


@step
def plain(order: Order) -> int:
    """Takes an order.

    And says more about it.
    """
    return order.amount


@step
def contextual(order: Order, ctx: StepContext[bool, Ask, Tally]) -> list[Order]:
    """Declares every door."""
    return [order]


@step
async def awaited(order: Order, ctx: StepContext[bool]) -> str:
    """Declares its answer."""
    return str(order)


@step
def declared_as_none(order: Order, ctx: StepContext[bool, None, None]) -> str:
    """What ``StepContext[bool]`` means from Python 3.13 on, when the defaults become visible."""
    return str(order)


@step
def undeclared(order, ctx):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201  # an author may leave types out
    """Says nothing about its doors."""
    return order


@step
def optional(order: Order, factor: int = 2) -> int:
    """Its second argument is its own business."""
    return order.amount * factor


@step
def optional_ctx(order: Order, ctx: StepContext[bool] | None = None) -> int:
    """An argument of that name is the context."""
    return order.amount


@step
def annotated(amount: Annotated[int, Field(gt=0)]) -> None:
    """An annotation keeps what pydantic needs to know."""


class Callable_:  # noqa: N801  # named after what it is
    """An object that can be called."""

    def __call__(self, order: Order, ctx: StepContext[bool]) -> str:
        """See the class."""
        return str(order)


class Service:
    """A class whose method is a step."""

    def work(self, order: Order) -> str:
        """Done by a service."""
        return str(order)


FUNCTIONS: dict[str, tuple[Step[Any, Any, Any, Any], tuple[Any, ...], bool]] = {
    "one argument": (plain, (Order, int, Any, Any, Any), False),
    "a context": (contextual, (Order, list[Order], bool, Ask, Tally), True),
    "a coroutine": (awaited, (Order, str, bool, Any, Any), True),
    "only the first door declared": (declared_as_none, (Order, str, bool, Any, Any), True),
    "nothing declared": (undeclared, (Any, Any, Any, Any, Any), True),
    "another argument with a default": (optional, (Order, int, Any, Any, Any), False),
    "a context with a default": (optional_ctx, (Order, int, bool, Any, Any), True),
    "a lambda": (create_step(id="x", execute=lambda value: value), (Any, Any, Any, Any, Any), False),
    "a lambda with a context": (create_step(id="x", execute=lambda v, ctx: (v, ctx)), (Any,) * 5, True),
    "a lambda with any arguments": (create_step(id="x", execute=lambda *values: values), (Any,) * 5, False),
    "a callable object": (create_step(id="x", execute=Callable_()), (Order, str, bool, Any, Any), True),
    "a bound method": (step(Service().work), (Order, str, Any, Any, Any), False),
    "a partial": (create_step(id="x", execute=functools.partial(max, 3)), (Any,) * 5, False),
    "a builtin": (create_step(id="x", execute=int), (Any, Any, Any, Any, Any), False),
    "a builtin function": (step(len), (Any, Any, Any, Any, Any), False),
}


@pytest.mark.parametrize(("made", "expected", "takes_context"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_step_reads_its_function(
    made: Step[Any, Any, Any, Any], expected: tuple[Any, ...], takes_context: bool
) -> None:
    """Types from annotations, undeclared doors accept everything; the context by the number of arguments."""
    assert (expected, takes_context) == (doors(made), made.takes_context)


def test_a_step_keeps_what_pydantic_needs_to_know() -> None:
    """``Annotated`` is not stripped."""
    with pytest.raises(InvalidPayload):
        annotated.input.accept("input", 0)


def test_a_step_is_named_and_described_by_its_function() -> None:
    """The first line of the docstring is the description."""
    assert ("plain", "Takes an order.") == (plain.id, plain.description)
    assert ("work", "Done by a service.") == ((made := step(Service().work)).id, made.description)
    assert "awaited" == awaited.id


def test_a_step_can_be_called() -> None:
    """In a unit test of the author."""
    assert 3 == plain(Order(amount=3))


def test_types_local_to_a_function_are_found() -> None:
    """Although annotations are text here."""

    class Local(BaseModel):
        """Nobody outside can see it."""

    @step
    def local(value: Local) -> Local:
        return value

    @step(retries=1)
    def local_with_options(value: Local) -> Local:
        return value

    assert [(Local, Local)] * 2 == [doors(made)[:2] for made in (local, local_with_options)]


def test_types_of_another_module_are_its_own() -> None:
    """A function keeps the names of where it was written, also where another type bears the same name."""
    made = create_step(id="x", execute=elsewhere.takes_its_own_order)
    assert elsewhere.Order is made.input.type


def test_keywords_override_annotations() -> None:
    """Each door by itself."""
    made = create_step(
        id="x",
        execute=lambda value: value,
        description="said",
        input=int,
        output=str,
        resume=bool,
        suspend=Ask,
        state=Tally,
        retries=3,
        backoff=timedelta(seconds=2),
        retry_on=[OSError],
        no_retry_on=[TimeoutError],
        metadata={"team": "pay"},
    )
    assert (int, str, bool, Ask, Tally) == doors(made)
    assert ("said", 3, Backoff(initial=timedelta(seconds=2))) == (made.description, made.retries, made.backoff)
    assert ((OSError,), (TimeoutError,), {"team": "pay"}) == (made.retry_on, made.no_retry_on, made.metadata)


def test_a_clone_keeps_everything_but_the_id() -> None:
    """The original is left alone."""
    made = create_step(id="x", execute=lambda v: v, input=int, retries=2, metadata={"a": 1}, description="said")
    clone = made.clone(id="y")
    assert ("x", "y") == (made.id, clone.id)
    names = ("execute", "input", "output", "resume", "suspend", "state", "retries", "metadata", "description")
    assert [getattr(made, name) for name in names] == [getattr(clone, name) for name in names]


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no argument": (lambda: create_step(id="x", execute=lambda: 1), "must take (value) or (value, ctx)"),
    "three arguments": (lambda: create_step(id="x", execute=lambda a, b, c: (a, b, c)), "must take (value)"),
    "a required keyword": (lambda: create_step(id="x", execute=lambda a, *, b: (a, b)), "bind the rest beforehand"),
    "retries below zero": (lambda: create_step(id="x", execute=int, retries=-1), "retries=-1 is below 0"),
    "an id with a dot": (lambda: create_step(id="a.b", execute=int), "'a.b' cannot be an id"),
    "an empty id": (lambda: create_step(id=" ", execute=int), "cannot be an id"),
    "a lambda without an id": (lambda: step(lambda value: value), "'<lambda>' cannot be an id"),
    "a clone with a slash": (lambda: plain.clone(id="a/b"), "'a/b' cannot be an id"),
    "an annotation of nothing": (lambda: step(elsewhere.takes_nothing_known), "'Nowhere' is not defined"),
}


@pytest.mark.parametrize(("make", "words"), BAD.values(), ids=BAD)
def test_a_function_that_cannot_be_a_step_is_refused(make: Callable[[], Any], words: str) -> None:
    """Where it is written, with what to do."""
    with pytest.raises(DefinitionError) as caught:
        make()
    assert words in str(caught.value)
