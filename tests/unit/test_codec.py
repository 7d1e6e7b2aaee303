"""Values to JSON and back, and what is refused on the way, with its place."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_serializer

from flowcore.codec import NotJsonError, Shape, Unchecked, digest, dumps, loads
from flowcore.errors import InvalidPayload
from flowcore.model import Json


class Foreign:
    """A class pydantic knows nothing of."""


class Colour(StrEnum):
    """An enumeration."""

    RED = "red"


class Strict(BaseModel):
    """A model that converts nothing."""

    model_config = ConfigDict(strict=True, extra="forbid")
    when: datetime
    number: int
    colour: Colour = Colour.RED


class Order(BaseModel):
    """A model with a default and with an alias."""

    amount: int = 1
    note: str | None = Field(default=None, alias="remark")


class Loose(BaseModel):
    """A model that holds anything."""

    thing: Any


NAN = float("nan")
CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (float("nan"), "the value (float)"),
        ({"a": [1, float("inf")]}, "a[1] (float)"),
        ({"a": {"b": {1, 2}}}, "a.b (set)"),
        ([b"x"], "[0] (bytes)"),
        ({"a": {(1, 2): "x"}}, "a (key (1, 2) of type tuple)"),
        ({b"x": 1}, "the value (key b'x' of type bytes)"),
        (CYCLE, "nested deeper than 200 levels, or in a circle"),
        ({"a": "\ud800"}, "cannot be stored as JSON"),
        (object(), "the value (object)"),
        ((1, {"deep": Decimal(1)}), "[1].deep (Decimal)"),
    ],
)
def test_dumps_names_what_is_not_json(value: Any, place: str) -> None:
    """The message says where the value stands and what it is."""
    with pytest.raises(NotJsonError) as caught:
        dumps(value)
    assert place in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [None, False, 0, "", [], {}, 0.1, 5e-324, 10**400, "ü🧾\u2028\u0000", {"": {"a.b": [1, 1.0, True, None]}}],
    ids=lambda value: repr(value)[:20],
)
def test_dumps_and_loads_are_inverse(value: Json) -> None:
    """Falsy values, exact numbers, any text."""
    assert repr(value) == repr(loads(dumps(value)))


def test_dumps_is_compact() -> None:
    """What is stored is paid for by the byte."""
    assert '{"a":[1,"ü"]}' == dumps({"a": [1, "ü"]})


def test_digest_does_not_depend_on_the_order_of_keys() -> None:
    """The same answer typed differently is the same answer; 1 and 1.0 and True are not the same."""
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert 4 == len({digest(value) for value in (1, 1.0, True, "1")})
    assert 32 == len(digest(None))


DOORS: list[tuple[Any, Any, Any]] = [
    (int, 3, 3),
    (int, 0, 0),
    (bool, False, False),
    (str, "", ""),
    (type(None), None, None),
    (int | None, None, None),
    (datetime, datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00Z"),
    (date, "2026-01-01", "2026-01-01"),
    (UUID, UUID(int=0), "00000000-0000-0000-0000-000000000000"),
    (Decimal, Decimal("0.10"), "0.10"),
    (Colour, Colour.RED, "red"),
    (Order, {}, {"amount": 1, "remark": None}),
    (list[Order], [{"amount": 2, "remark": "x"}], [{"amount": 2, "remark": "x"}]),
    (Literal["a", "b"], "b", "b"),
    (tuple[int, str], (1, "x"), [1, "x"]),
    (dict[str, int], {"a": 1}, {"a": 1}),
    (Any, {"a": [1, None]}, {"a": [1, None]}),
    (Any, Order(amount=3), {"amount": 3, "remark": None}),
    (set[int], {1}, [1]),
]


@pytest.mark.parametrize(("type_", "value", "expected"), DOORS, ids=repr)
def test_accept_gives_plain_json_with_defaults(type_: Any, value: Any, expected: Json) -> None:
    """Whatever pydantic adapts can stand at a door, as JSON or as an object."""
    assert repr(expected) == repr(Shape(type_).accept("input", value))


def test_a_strict_model_meets_what_it_would_meet_over_http() -> None:
    """In JSON an instant is text, and that is not a conversion."""
    plain = {"when": "2026-01-01T00:00:00Z", "number": 1, "colour": "red"}
    assert plain == Shape(Strict).accept("input", plain)
    assert datetime(2026, 1, 1, tzinfo=UTC) == Shape[Strict](Strict).decode(plain).when
    assert plain == Shape(Strict).encode(Strict(when=datetime(2026, 1, 1, tzinfo=UTC), number=1))


@pytest.mark.parametrize(
    ("type_", "value", "path", "found"),
    [
        (int, "x", "", "(found str)"),
        (Strict, {"when": "2026-01-01T00:00:00Z", "number": "1"}, "number", "(found str)"),
        (Strict, {"number": 1}, "when", "Field required"),
        (Strict, {"when": "2026-01-01T00:00:00Z", "number": 1, "more": 1}, "more", "(found int)"),
        (list[Order], [{"amount": 1}, {"amount": None}], "1.amount", "(found NoneType)"),
        (int, None, "", "(found NoneType)"),
        (Any, object(), "", "object"),
        (float, float("inf"), "", "the value (float)"),
        (dict[str, Any], {"deep": ["\ud800"]}, "", "cannot be stored as JSON"),
    ],
)
def test_accept_refuses_with_the_place(type_: Any, value: Any, path: str, found: str) -> None:
    """One row per field: where, what, and what was found there."""
    with pytest.raises(InvalidPayload) as caught:
        Shape(type_).accept("input of 'x'", value)
    (row,) = caught.value.errors
    assert path == row["path"]
    assert found in row["message"]
    assert str(caught.value).startswith("Invalid input of 'x':")


@pytest.mark.parametrize("type_", [Any, list[Any], list], ids=repr)
def test_accept_refuses_a_cycle(type_: Any) -> None:
    """An endless value is refused like any other that is not JSON, and does not break the stack."""
    with pytest.raises(InvalidPayload):
        Shape(type_).accept("input", CYCLE)
    with pytest.raises((NotJsonError, ValidationError)):
        Shape(type_).encode(CYCLE)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Any, NAN),
        (Any, {"a": [NAN]}),
        (Loose, Loose(thing=NAN)),
        (list[Loose], [Loose(thing=[NAN])]),
        (dict[str, Any], {"a": NAN}),
    ],
    ids=repr,
)
def test_a_number_that_json_lacks_is_not_stored_as_null(type_: Any, value: Any) -> None:
    """Where anything is accepted, too: what cannot be kept is refused and not changed."""
    with pytest.raises(NotJsonError, match=r"\(float\) cannot be stored as JSON"):
        Shape(type_).encode(value)


class Renamed(BaseModel):
    """Fields that are called differently outside."""

    model_config = ConfigDict(extra="forbid")
    camel_case: int = Field(alias="camelCase")
    read_only: int = Field(validation_alias="readOnly")
    either: int = Field(validation_alias=AliasChoices("a", "b"))
    first: str = Field(alias="second")
    second: str = Field(alias="first")


class Nested(BaseModel):
    """Such a model inside another."""

    inner: list[Renamed]


def test_value_of_a_field_with_an_alias_is_not_lost() -> None:
    """It is written as the schema calls it, and read again, wherever the model stands."""
    given = {"camelCase": 1, "readOnly": 2, "b": 3, "first": "1", "second": "2"}
    shapes: list[tuple[Shape[Any], Any]] = [(Shape(Renamed), given), (Shape(Nested), {"inner": [given]})]
    for shape, value in shapes:
        typed: BaseModel = shape.decode(value)
        plain = shape.encode(typed)
        assert typed == shape.decode(plain)
        assert plain == shape.normal(plain)
    assert given["camelCase"] == Shape(Renamed).accept("x", given)["camelCase"]
    assert {"camelCase", "first", "second"} <= set(Shape(Renamed).schema()["properties"])


def test_what_pydantic_cannot_adapt_is_a_type_error() -> None:
    """The author learns of it at commit()."""
    with pytest.raises(TypeError, match="Unable to generate pydantic-core schema"):
        _ = Shape(Foreign).adapter


def test_an_unhashable_type_has_an_adapter() -> None:
    """Such a type cannot be remembered, but it can be used."""
    from typing import Annotated  # noqa: PLC0415

    shape = Shape[int](Annotated[int, Field(json_schema_extra={"a": [1]}), {"un": "hashable"}])
    assert 3 == shape.decode(3)


def test_two_shapes_of_one_type_share_their_adapter() -> None:
    """An adapter costs milliseconds to build."""
    assert Shape(Order).adapter is Shape(Order).adapter


def test_schema_is_that_of_the_type() -> None:
    """Forms and documentation are made of it."""
    assert "integer" == Shape(int).schema()["type"]


class Chain(BaseModel):
    """A model that may hold its like."""

    link: int = Field(alias="theLink")
    rest: Chain | None = None


class Written(BaseModel):
    """A model that is written as something else."""

    number: int

    @model_serializer
    def _as_it_likes(self) -> dict[str, Any]:
        return {"n": self.number}


class Odd(BaseModel):
    """A model with a default that no schema can tell."""

    thing: Any = Field(default=Foreign(), alias="theThing")


class Callback(BaseModel):
    """A model that has no schema."""

    call: Callable[[], int]


@pytest.mark.parametrize(
    ("shape", "field", "key"),
    [
        (Shape(Order), "amount", "amount"),
        (Shape(Order), "note", "remark"),
        (Shape(Order), "remark", "remark"),
        (Shape(Order), "notes", None),
        (Shape(Order | Strict | None), "note", "remark"),
        (Shape(Order | Strict | None), "colour", "colour"),
        (Shape(Order | Strict | None), "color", None),
        (Shape(Order | dict[str, int]), "color", "color"),
        (Shape(Chain), "link", "theLink"),
        (Shape(list[Order]), "amount", None),
        (Shape(bool), "amount", None),
        (Shape(Any), "amount", "amount"),
        (Shape(Written), "n", "n"),
        (Shape(Odd), "thing", "theThing"),
        (Shape(Callback), "anything", "anything"),
        (Unchecked(Order), "note", "remark"),
        (Unchecked(bool), "amount", "amount"),
    ],
)
def test_key_of_a_field_is_the_one_that_it_is_written_under(shape: Shape[Any], field: str, key: str | None) -> None:
    """Where the type does not say what there may be, any; None where there can be no such field."""
    assert key == shape.key_of(field)
