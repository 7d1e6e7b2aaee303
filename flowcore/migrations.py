"""Values that were stored under an older type, as the type of today takes them.

A type at a door (``Shape``) may have migrations, oldest first: functions from an older form to a newer one. They are
asked only about a value that does not fit, each time it is read; what is stored stays as it was committed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from flowcore.codec import NotJsonError, Shape, field_errors
from flowcore.model import Json

ANYTHING: Shape[Any] = Shape(Any)
_NAME = "migrations"


class NoWay(Exception):
    """No migration leads from a value to its type; the message says what each came to. Never leaves this library."""


@dataclass(frozen=True, slots=True, eq=False)
class Migration:
    """One function from an older form of a value to a newer one."""

    call: Callable[[Any], Any]
    takes: Shape[Any] = field(repr=False)
    """The older form, as far as the function says: what does not fit it is of another age."""

    def __str__(self) -> str:
        return getattr(self.call, "__name__", repr(self.call))


class _Count:
    """How many migrations there are in this process: whoever has looked for them need not look again until it grows."""

    registered = 0


def register(shape: Shape[Any], migration: Migration) -> None:
    """Let values at this door be migrated; whoever shares the shape shares its migrations."""
    shape.__dict__.setdefault(_NAME, []).append(migration)
    _Count.registered += 1


def registered() -> int:
    """How many migrations there are in this process."""
    return _Count.registered


def migrations_of(shape: Shape[Any]) -> tuple[Migration, ...]:
    """The migrations of a door, oldest first."""
    return tuple(shape.__dict__.get(_NAME, ()))


def narrowed(shape: Shape[Any], to: Shape[Any]) -> Shape[Any]:
    """``to``, a part of what ``shape`` takes, with its migrations."""
    if not migrations_of(shape):
        return to
    part: Shape[Any] = type(to)(to.type)
    part.__dict__[_NAME] = shape.__dict__[_NAME]
    return part


def fits(shape: Shape[Any], value: Json) -> bool:
    """Whether the type takes the value as it is."""
    try:
        shape.decode(value)
    except ValidationError:
        return False
    return True


def renewed(shape: Shape[Any], value: Json) -> Json:
    """The value as the type of today takes it: itself if it fits or nothing is declared for it, else migrated.

    The shortest way from the end of the list that leads to a value that fits is taken. Raises: NoWay.
    """
    ways = migrations_of(shape)
    if not ways or fits(shape, value):
        return value
    told = ""
    for first in reversed(range(len(ways))):
        try:
            return _led(shape, value, ways[first:])
        except NoWay as no_way:
            told = str(no_way)
    raise NoWay(told)


def _led(shape: Shape[Any], value: Json, ways: tuple[Migration, ...]) -> Json:
    for way in ways:
        try:
            value = ANYTHING.encode(way.call(way.takes.decode(value)))
        except ValidationError as error:
            raise NoWay(f"migration {str(way)!r} does not take it: {_told(error)}") from None
        except NotJsonError as error:
            raise NoWay(f"migration {str(way)!r} gave what is no JSON: {error}") from None
        except Exception as error:  # the author's function; whatever it is, there is no way
            raise NoWay(f"migration {str(way)!r} failed with {type(error).__name__}: {error}") from error
    try:
        return shape.encode(shape.decode(value))
    except ValidationError as error:
        raise NoWay(f"what migration {str(ways[-1])!r} gave does not fit either: {_told(error)}") from None


def _told(error: ValidationError) -> str:
    return "; ".join(f"{row['path'] or '(whole value)'}: {row['message']}" for row in field_errors(error)[:3])
