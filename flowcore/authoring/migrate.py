"""``@migrate``: what becomes of stored values whose type a deploy has changed."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, get_args, overload

from flowcore.authoring.step import Step, annotations_of
from flowcore.authoring.workflow import Workflow
from flowcore.codec import Shape, Unchecked
from flowcore.errors import DefinitionError, Mistake
from flowcore.migrations import Migration, register

Door: TypeAlias = Literal["input", "output", "resume", "suspend", "state"]
"""Where a value is stored: what a step or a workflow takes, gives, is answered, shows, or shares."""

_O = TypeVar("_O")
_R = TypeVar("_R")
_S = TypeVar("_S")
_New = TypeVar("_New", contravariant=True)
_Old = TypeVar("_Old")


class _Registering(Protocol[_New]):
    """Keeps the type of the function it decorates; what that returns is the new value, or a mapping of its fields."""

    def __call__(self, fn: Callable[[_Old], _New | Mapping[str, Any]], /) -> Callable[[_Old], Any]: ...


@overload
def migrate(target: Step[Any, _O, Any, Any], door: Literal["output"]) -> _Registering[_O]: ...
@overload
def migrate(target: Step[Any, Any, _R, Any], door: Literal["resume"]) -> _Registering[_R]: ...
@overload
def migrate(target: Step[Any, Any, Any, _S], door: Literal["suspend"]) -> _Registering[_S]: ...
@overload
def migrate(target: Step[Any, Any, Any, Any], door: Literal["input", "state"]) -> _Registering[Any]: ...


def migrate(target: Step[Any, Any, Any, Any], door: Door) -> Any:
    """Say how a value that was stored under an older type becomes one of today's.

    The decorated function is called when a stored value does not fit the type at that door any more, each time it is
    read; what it returns has to fit. What is stored stays as it was committed. It should only look at its argument.

    Several migrations of one door form a chain in the order in which they are declared, the oldest first: the shortest
    way from the end that leads to a fitting value is taken. The type of the argument says which age a function is for:
    a value that does not fit it is left to an older one. ``dict`` takes every object.

    Where no way leads to a value that fits, the run stands still (``paused``, with the reason in ``blocked``) until a
    version that knows one is deployed and it is unblocked.

    Args:
        target: a step, or a committed workflow. All that share it (clones, other workflows) share the migration.
        door: ``input``, ``output``, ``resume`` (answers; also one that arrives in the old form), ``suspend`` (what the
            step showed) or ``state``, which is kept by key: a function may see old and new keys side by side. Of a
            workflow ``input``, ``output`` and ``state``.
    Raises: DefinitionError for a door without a type, or a function that takes anything but one argument.

    Example:
        >>> from pydantic import BaseModel
        >>> from flowcore import migrate, step
        >>> class Receipt(BaseModel):
        ...     number: str
        ...     cents: int
        >>> @step
        ... def charge(cents: int) -> Receipt:
        ...     return Receipt(number="r-1", cents=cents)
        >>> @migrate(charge, "output")
        ... def from_v1(old: dict) -> dict:
        ...     return {"number": old["number"], "cents": round(old["euros"] * 100)}
    """
    where = getattr(target, "id", None) or repr(target)
    caller = sys._getframe(1)  # noqa: SLF001  # names local to the caller may stand in annotations

    def registered(function: Callable[..., Any]) -> Callable[..., Any]:
        mistake = _mistake_in(function)
        if mistake is not None:
            raise DefinitionError(where, [Mistake(f"{where}, {door}", mistake)], is_step=True)
        register(shape, Migration(function, _takes(function, caller, where)))
        return function

    shape = _shape_at(target, door, where)
    return registered


def _shape_at(target: Any, door: Any, where: str) -> Shape[Any]:
    if not isinstance(target, Step):
        hint = "; commit the workflow first" if hasattr(target, "commit") else ""
        raise _refused(where, f"only values of a step or a workflow can be migrated{hint}")
    doors = ("input", "output", "state") if isinstance(target, Workflow) else get_args(Door)
    if door not in doors:
        raise _refused(where, f"{door!r} is no door of it; use one of {', '.join(doors)}")
    shape: Shape[Any] = getattr(target, door)
    if shape.type is Any or isinstance(shape, Unchecked):
        advice = "; migrate the workflow's" if door == "state" else ""
        raise _refused(where, f"its {door} takes everything, so there is nothing to migrate{advice}")
    return shape


def _refused(where: str, what: str) -> DefinitionError:
    return DefinitionError(where, [Mistake(where, what)], is_step=True)


def _mistake_in(function: Any) -> str | None:
    if not callable(function):
        return f"{function!r} is no function"
    if inspect.iscoroutinefunction(function):
        return "a migration is a plain def; it only looks at its argument"
    required = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    if len(required) != 1 or required[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        return "a migration takes one argument, the old value"
    return None


def _takes(function: Callable[..., Any], caller: FrameType, where: str) -> Shape[Any]:
    """The type of the argument, as far as it is declared."""
    (name, *_) = inspect.signature(function).parameters
    return Shape(annotations_of(function, caller, where).get(name, Any))
