"""What went wrong as a value: exceptions and misfits become a ``StepFailure`` that can be stored and shown.

An exception is its type's name, its message, what the author hung on it as far as it is JSON, and the chain of its
causes; never a stack, which would tell strangers about our inside and grow with every deploy.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from flowcore.codec import NotJsonError, Shape, dumps, field_errors, loads
from flowcore.model import Json, StepFailure

LONGEST_CAUSE_CHAIN = 10


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
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return StepFailure(
        type=type(error).__name__,
        message=_storable(str(error)) or type(error).__name__,
        properties=_own_properties(error),
        cause=failure_of(cause, None, depth + 1) if cause is not None and depth < LONGEST_CAUSE_CHAIN else None,
        step=step,
    )


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
    properties = {}
    for name, value in getattr(error, "__dict__", {}).items():
        if name.startswith("_"):
            continue
        try:
            properties[name] = loads(dumps(value))
        except NotJsonError:
            continue
    return properties


def _storable(text: str) -> str:
    """The text with a question mark for what no encoding has."""
    return text.encode(errors="replace").decode()
