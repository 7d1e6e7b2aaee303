"""What went wrong as a value: exceptions and misfits become a ``StepFailure`` that can be stored and shown.

An exception is its type's name, its message, what the author hung on it as far as it is JSON, and the chain of its
causes; never a stack, which would tell strangers about our inside and grow with every deploy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import ValidationError

from flowcore.codec import NotJsonError, Shape, dumps, field_errors, settled
from flowcore.migrations import NoWay, migrations_of, renewed
from flowcore.model import Json, StepFailure

T = TypeVar("T")

LONGEST_CAUSE_CHAIN = 10
LONGEST_MESSAGE = 4_000
"""Characters of an exception's message that are kept."""
LARGEST_PROPERTIES = 16_000
"""Characters of JSON up to which an exception's own properties are kept; those that do not fit are left out."""


class Unfit(Exception):
    """A value does not fit its door; carries the failure to store. The runner turns it into an event."""

    def __init__(self, failure: StepFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def decoded(shape: Shape[Any], value: Json, subject: str) -> Any:
    """The typed value of plain JSON. Raises: Unfit, about ``subject``."""
    try:
        return shape.decode(value)
    except ValidationError as error:
        raise Unfit(_misfit(subject, error)) from None


class Unread(Unfit):
    """A stored value does not fit its door any more, and no migration leads to one that does."""

    def __init__(self, failure: StepFailure, *, is_sure: bool) -> None:
        super().__init__(failure)
        self.is_sure = is_sure
        """Whether a deploy has made it so: there is a migration, which was of no use."""


def read(shape: Shape[Any], value: Json, subject: str) -> Any:
    """The typed value of stored JSON, migrated if it does not fit. Raises: Unread, about ``subject``."""
    try:
        return shape.decode(value)
    except ValidationError as error:
        misfit = _misfit(subject, error)
    if not migrations_of(shape):
        raise Unread(misfit, is_sure=False)
    try:
        return shape.decode(renewed(shape, value))
    except NoWay as no_way:
        raise Unread(replace(misfit, message=f"{misfit.message}\n{no_way}"), is_sure=True) from None


def encoded(shape: Shape[Any], value: Any, subject: str) -> Json:
    """Plain JSON of a value that fits. Raises: Unfit, about ``subject``."""
    try:
        return shape.encode(value)
    except ValidationError as error:
        raise Unfit(_misfit(subject, error)) from None
    except NotJsonError as error:
        raise Unfit(StepFailure(type="NotJsonError", message=f"The {subject}: {error}")) from None


def fitted(shape: Shape[Any], value: Json, subject: str) -> Json:
    """Plain JSON as the type at a door would write it. Raises: Unfit, about ``subject``."""
    try:
        return shape.normal(value)
    except ValidationError as error:
        raise Unfit(_misfit(subject, error)) from None
    except NotJsonError as error:
        raise Unfit(StepFailure(type="NotJsonError", message=f"The {subject}: {error}")) from None


def _misfit(subject: str, error: ValidationError) -> StepFailure:
    rows = [dict(row) for row in field_errors(error)]
    lines = "".join(f"\n- {row['path'] or '(whole value)'}: {row['message']}" for row in rows)
    return StepFailure(type="InvalidPayload", message=f"Invalid {subject}:{lines}", properties={"errors": rows})


def failure_of(error: BaseException, step: str | None = None, depth: int = 0) -> StepFailure:
    """An exception as a value: type, message, own JSON properties, the chain of causes; no stack."""
    name = _asked(lambda: _storable(type(error).__name__)[:200], "Exception")
    cause = _asked(lambda: error.__cause__ or (None if error.__suppress_context__ else error.__context__), None)
    return StepFailure(
        type=name,
        message=_asked(lambda: _shortened(_storable(str(error))), "(its message cannot be read)") or name,
        properties=_own_properties(error),
        cause=failure_of(cause, None, depth + 1) if cause is not None and depth < LONGEST_CAUSE_CHAIN else None,
        step=step,
    )


def outlined(failure: StepFailure) -> StepFailure:
    """What can be said where a failure is too large: its type, the beginning of its message, and whose it is."""
    return StepFailure(type=failure.type, message=_shortened(failure.message), step=failure.step)


def _asked(read: Callable[[], T], otherwise: T) -> T:
    """What the author's exception says of itself; saying it is the author's code, too, and may go wrong."""
    try:
        return read()
    except BaseException as error:
        if not is_outcome(error):
            raise
        return otherwise


def is_outcome(error: BaseException) -> bool:
    """Whether ``error`` is what became of the author's code, and no signal that has to pass through it.

    Beside ordinary exceptions these are what ``sys.exit`` raises, and what a coroutine raises when something it waited
    for was cancelled or several things in a group went wrong.
    """
    if isinstance(error, (Exception, SystemExit, BaseExceptionGroup)):
        return True
    return any(
        kind.__name__ == "CancelledError" and kind.__module__ == "asyncio.exceptions"  # not loaded if never needed
        for kind in type(error).__mro__
    )


def _own_properties(error: BaseException) -> dict[str, Json]:
    """What the author hung on the exception, as far as it is JSON."""
    properties: dict[str, Json] = {}
    left = LARGEST_PROPERTIES
    nothing: list[tuple[str, Any]] = []
    for name, value in _asked(lambda: list(vars(error).items()), nothing):
        if name.startswith("_"):
            continue
        try:
            size = len(dumps({name: value}))
            if size <= left:
                properties |= settled({name: value})
                left -= size
        except NotJsonError:
            continue
    return properties


def _shortened(text: str) -> str:
    if len(text) <= LONGEST_MESSAGE:
        return text
    return f"{text[:LONGEST_MESSAGE]}... ({len(text)} characters)"


def _storable(text: str) -> str:
    """The text with a question mark for what no encoding has."""
    return text.encode(errors="replace").decode()
