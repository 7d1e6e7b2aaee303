"""Values to JSON and back, through pydantic adapters that are built once per type.

A ``Shape`` is a declared type at a door: of a step's input, a resume, a state. Decoding goes through JSON text, so a
model in strict mode meets what it would meet over HTTP. What cannot be JSON is refused here, with the place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind
from pydantic_core import CoreConfig, SchemaSerializer, from_json

from flowcore.errors import InvalidPayload
from flowcore.model import Json

T = TypeVar("T")


MOST_DEPTH = 200
"""Lists and objects inside each other: what pydantic reads of JSON, and far below what overflows a thread's stack."""
MOST_ROWS = 100
"""Field errors that are told of one value; whoever sends more has something else in mind."""
_WRITABLE = ". Give plain JSON, a pydantic model or a dataclass"
_TOO_DEEP = f"it is nested deeper than {MOST_DEPTH} levels, or in a circle"


class NotJsonError(ValueError):
    """A value cannot be written as JSON; the message names the place and the type found there."""


def dumps(value: Json) -> str:
    """Compact JSON text, numbers exact, keys in their own order.

    Raises: NotJsonError for NaN, infinities, lone surrogates, foreign types, cycles.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise _not_json(value, error, _is_never_json) from None
    return text


def settled(value: Json) -> Json:
    """The value as it will be read back from the store.

    Raises: NotJsonError as ``dumps`` does, and for what is nested deeper than ``MOST_DEPTH``: it could be written, but
    not always be read again, and a run that cannot be read is lost.
    """
    text = dumps(value)
    try:
        return from_json(text)
    except ValueError as error:
        raise _not_json(value, error, _is_never_json) from None


def loads(text: str) -> Json:
    """The value ``dumps`` wrote."""
    return json.loads(text)


def copied(value: Json) -> Json:
    """The same plain JSON as a value of its own, for whoever may change it in place."""
    if isinstance(value, dict):
        return {name: copied(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [copied(inner) for inner in value]
    return value


def digest(value: Json) -> str:
    """A short stable hash of a JSON value; the order of keys does not matter."""
    canonical = json.dumps(value, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


class Shape(Generic[T]):
    """A declared type at a door, with both directions. Two shapes of one type share their adapter."""

    __slots__ = ("__dict__", "type")

    def __init__(self, type_: Any) -> None:
        self.type = type_

    @cached_property
    def adapter(self) -> TypeAdapter[T]:
        """The pydantic adapter.

        Raises: TypeError when pydantic cannot adapt the type.
        """
        try:
            return _adapter(self.type)
        except TypeError as error:
            if "unhashable" not in str(error):
                raise
            return _built(self.type)

    @cached_property
    def writer(self) -> SchemaSerializer:
        """What turns a validated value into plain JSON; the adapter's own would write None for NaN without a word."""
        return SchemaSerializer(self.adapter.core_schema, CoreConfig(ser_json_inf_nan="constants"))

    def decode(self, value: Json) -> T:
        """The typed value of plain JSON, sharing nothing with it. Raises: pydantic.ValidationError."""
        if self.type is Any:
            return copied(value)  # type: ignore[no-any-return]  # Any takes every value as it is
        # by name, too: a field whose alias is for reading only is written under its name
        return self.adapter.validate_json(dumps(value), by_alias=True, by_name=True)

    def encode(self, value: Any) -> Json:
        """Plain JSON of a value that fits the type, after validating it and filling in defaults.

        Raises: pydantic.ValidationError, NotJsonError.
        """
        try:
            valid = self.adapter.validate_python(value)
            plain = self.writer.to_python(
                valid, mode="json", by_alias=True, warnings=False
            )  # as decode will look for it
        except ValidationError:
            raise
        except (ValueError, RecursionError) as error:
            raise _not_json(value, error, _is_unwritable, _WRITABLE) from None
        return settled(plain)

    def accept(self, subject: str, value: Json) -> Json:
        """Plain JSON as a caller sent it, checked and with defaults filled in.

        Raises: InvalidPayload, with one entry per field, about ``subject``.
        """
        try:
            return self.normal(value) if _is_plain(value) else self.encode(value)
        except ValidationError as error:
            raise InvalidPayload(subject, field_errors(error)) from None
        except RecursionError:
            raise InvalidPayload(subject, [{"path": "", "message": _TOO_DEEP, "type": "not-json"}]) from None
        except NotJsonError as error:
            raise InvalidPayload(subject, [{"path": "", "message": str(error), "type": "not-json"}]) from None
        except Exception as error:  # a validator of the author's, which what a stranger sends must not break
            told = f"cannot be read: its type raised {type(error).__name__}"
            raise InvalidPayload(subject, [{"path": "", "message": told, "type": "unreadable"}]) from error

    def normal(self, value: Json) -> Json:
        """Plain JSON as the type would write it, defaults filled in. Raises: pydantic.ValidationError, NotJsonError."""
        return self.encode(self.decode(value))

    def schema(self) -> Mapping[str, Any]:
        """The JSON Schema of what this door accepts."""
        return self.adapter.json_schema()

    def key_of(self, field: str) -> str | None:
        """By which key ``field``, named as in JSON or else as in the type, is found in what ``encode`` gives.

        Of a union any part may have it. None where nothing that fits the type has such a field.
        """
        keys, is_open = self._keys
        return field if field in keys.values() else keys.get(field, field if is_open else None)

    @cached_property
    def _keys(self) -> tuple[Mapping[str, str], bool]:
        """The key of each field by its name, and whether there may be others beside these."""
        try:
            named, written = (
                self.adapter.json_schema(mode="serialization", by_alias=by_alias, schema_generator=_Quiet)
                for by_alias in (False, True)
            )
        except (PydanticInvalidForJsonSchema, PydanticUserError):
            return {}, True  # of a type that cannot be described nothing can be said
        keys: dict[str, str] = {}
        for by_name, by_key in zip(_parts(named, named), _parts(written, written), strict=True):
            keys |= zip(by_name.get("properties", ()), by_key.get("properties", ()), strict=False)
        return keys, any(part.get("additionalProperties") or "type" not in part for part in _parts(written, written))


class Unchecked(Shape[T]):
    """A door that checks nothing and fills in nothing: plain JSON passes as it is.

    Whoever stands behind it still gets a model, a date, a set where one can be built of the value; where none can, the
    plain value itself.
    """

    __slots__ = ()

    def decode(self, value: Json) -> T:
        """The typed value if there is one, else the value. Never raises."""
        try:
            built = super().decode(value)
        except Exception:  # noqa: BLE001  # validators are the author's; what they refuse is not refused here
            return copied(value)  # type: ignore[no-any-return]  # whatever came
        return copied(value) if _is_plain(built) else built

    def key_of(self, field: str) -> str:
        """The same, or ``field`` itself: what comes may have it, whatever is declared."""
        return super().key_of(field) or field

    def encode(self, value: Any) -> Json:
        """Plain JSON of any value that has some. Raises: NotJsonError."""
        return ANYTHING.encode(value)

    def normal(self, value: Json) -> Json:
        """The value."""
        return copied(value)

    def accept(self, subject: str, value: Json) -> Json:
        """Plain JSON of what a caller sent. Raises: InvalidPayload when it has none."""
        return ANYTHING.accept(subject, value)


ANYTHING: Shape[Any] = Shape(Any)


def field_errors(error: ValidationError) -> Sequence[Mapping[str, Any]]:
    """pydantic's issues as plain rows: dotted ``path``, ``message`` with the type found, ``type``."""
    rows = []
    for issue in error.errors(include_url=False, include_context=False)[:MOST_ROWS]:
        found = "" if issue["type"] == "missing" else f" (found {type(issue['input']).__name__})"
        path = ".".join(str(part) for part in issue["loc"])
        told = _TOO_DEEP if "recursion limit" in issue["msg"] else f"{issue['msg']}{found}"
        rows.append({"path": path, "message": told, "type": issue["type"]})
    if (left := error.error_count() - len(rows)) > 0:
        rows.append({"path": "", "message": f"and {left} more errors", "type": "too-many-errors"})
    return rows


class _Quiet(GenerateJsonSchema):
    """Says nothing of defaults that no schema can tell: nobody has asked for them."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {  # noqa: RUF012  # as pydantic declares it
        "skipped-choice",
        "non-serializable-default",
    }


def _parts(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What a value may be by ``schema``, a part of ``whole``: itself, or each of several."""
    if "$ref" in schema:
        yield from _parts(whole["$defs"][schema["$ref"].removeprefix("#/$defs/")], whole)
    elif several := [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]:
        for one in several:
            yield from _parts(one, whole)
    else:
        yield schema


@lru_cache(maxsize=4096)
def _adapter(type_: Any) -> TypeAdapter[Any]:
    return _built(type_)


def _built(type_: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(type_)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise TypeError(str(error).splitlines()[0]) from None


_PLAIN: Mapping[type, Callable[[Any], bool]] = {
    dict: lambda value: all(type(key) is str for key in value) and all(map(_is_plain, value.values())),
    list: lambda value: all(map(_is_plain, value)),
    **dict.fromkeys((str, int, float, bool, type(None)), lambda _: True),
}


def _is_plain(value: Any) -> bool:
    check = _PLAIN.get(type(value))
    return check is not None and check(value)


def _not_json(value: Any, error: Exception, is_fault: Callable[[Any], bool], advice: str = "") -> NotJsonError:
    """The same error with the place where the fault is, and in words that name it."""
    told = str(error)
    if isinstance(error, RecursionError) or "recursion" in told or "Circular reference" in told:
        return NotJsonError(f"the value cannot be stored as JSON: {_TOO_DEEP}")
    return NotJsonError(f"{_place_of_fault(value, is_fault) or 'the value'} cannot be stored as JSON: {told}{advice}")


def _place_of_fault(value: Any, is_fault: Callable[[Any], bool], place: str = "", depth: int = 0) -> str | None:
    """Where in ``value`` the first thing stands that ``is_fault`` finds."""
    if depth > MOST_DEPTH:
        return None
    match value:
        case dict():
            for key, inner in value.items():
                if is_fault(key):
                    return f"{place or 'the value'} (key {key!r} of type {type(key).__name__})"
                if (found := _place_of_fault(inner, is_fault, f"{place}.{key}".lstrip("."), depth + 1)) is not None:
                    return found
            return None
        case list() | tuple():
            for index, inner in enumerate(value):
                if (found := _place_of_fault(inner, is_fault, f"{place}[{index}]", depth + 1)) is not None:
                    return found
            return None
        case BaseModel():
            return _place_of_fault(value.__dict__, is_fault, place, depth + 1)
        case _:
            return f"{place or 'the value'} ({type(value).__name__})" if is_fault(value) else None


def _is_never_json(leaf: Any) -> bool:
    """Whether plain JSON has no such thing."""
    if isinstance(leaf, float):
        return leaf - leaf != 0
    return not isinstance(leaf, (str, int, type(None))) or _is_unwritable(leaf)


def _is_unwritable(leaf: Any) -> bool:
    """Whether a value of no declared type cannot be turned into JSON text."""
    try:
        json.dumps(ANYTHING.writer.to_python(leaf, mode="json"), ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return True
    return False
