"""Values that are drawn from a type fit it, for the types that people declare."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import AfterValidator, BaseModel, Field

from flowcore.codec import Shape
from flowcore.errors import InvalidPayload
from infra.local.drawn import drawn


class Colour(StrEnum):
    """Two."""

    RED = "red"
    BLUE = "blue"


class Tree(BaseModel):
    """Contains itself."""

    name: str = Field(min_length=2, max_length=4)
    left: Tree | None = None
    children: list[Tree] = []
    by_name: dict[str, Tree] = {}


class Cat(BaseModel):
    """One of two."""

    kind: Literal["cat"]
    lives: int = Field(gt=6, lt=10)


class Dog(BaseModel):
    """The other one."""

    kind: Literal["dog"]
    born: date | None
    at: datetime
    after: timedelta
    id: UUID


def _even(number: int) -> int:
    if number % 2:
        raise ValueError("odd")
    return number


TYPES: dict[str, Any] = {
    "anything": Any,
    "nothing": None,
    "a truth": bool,
    "a number": int,
    "below": Annotated[int, Field(lt=-7)],
    "in between": Annotated[int, Field(gt=1, lt=3)],
    "by threes": Annotated[int, Field(ge=4, le=8, multiple_of=3)],
    "a fraction": Annotated[float, Field(ge=0, le=1)],
    "money": Decimal,
    "a few": Annotated[list[int], Field(min_length=2, max_length=5)],
    "a pair": tuple[int, Colour],
    "a mapping": dict[str, list[bool]],
    "a tree": Tree,
    "one of two": Annotated[Cat | Dog, Field(discriminator="kind")],
    "a rule that no schema tells": Annotated[int, AfterValidator(_even)],
}


@pytest.mark.parametrize("type_", TYPES.values(), ids=TYPES)
def test_what_is_drawn_fits_its_type(type_: Any) -> None:
    """A hundred times each."""
    shape: Shape[Any] = Shape(type_)
    for seed in range(100):
        shape.decode(drawn(shape, random.Random(seed)))


def test_the_same_seed_draws_the_same() -> None:
    """And another one another value."""
    first, again, other = (drawn(Shape(Tree), random.Random(seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_a_type_for_which_nothing_can_be_drawn_is_refused() -> None:
    """With what the type says of the last try, once many were of no use."""
    with pytest.raises(InvalidPayload, match="pattern"):
        drawn(Shape(Annotated[str, Field(pattern="^A-[0-9]{9}$")]), random.Random(1))
