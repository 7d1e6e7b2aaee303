"""Where the values of a ``map`` over keys come from: constants, paths into what the run knows, templates.

Pure look-ups. A path that leads nowhere raises, which fails the entry and names the place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never

from flowcore.authoring.graph import Constant, ScopePath, StepPath, Template
from flowcore.codec import Shape
from flowcore.model import Json

Lookup: TypeAlias = Constant | StepPath | ScopePath | Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What paths lead into: named values, and the outputs of earlier steps."""

    scopes: Mapping[str, Json]
    result_of: Callable[[str], tuple[Shape[Any], Json] | None]


def found(source: Lookup, known: Known) -> Json:
    """The value that ``source`` names. Raises: LookupError, TypeError."""
    match source:
        case Constant():
            return source.value
        case ScopePath():
            return _at_path(known.scopes[source.scope], source.path, source.scope)
        case StepPath():
            for id in source.steps:
                if (result := known.result_of(id)) is not None:
                    return _at_path(result[1], source.path, id)
            raise LookupError(f"none of the steps {list(source.steps)} has an output")
        case Template():
            return "".join(part if isinstance(part, str) else _rendered(found(part, known)) for part in source.parts)
        case _:
            assert_never(source)


def _at_path(value: Json, path: str, root: str) -> Json:
    if path in ("", "."):
        return value
    for name in path.split("."):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            raise LookupError(f"invalid path {path!r} in {root!r}: there is no {name!r} in {type(value).__name__}")
    return value


def _rendered(value: Json) -> str:
    if isinstance(value, (dict, list)):
        raise TypeError(f"a template can show text and numbers, not {type(value).__name__}")
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
