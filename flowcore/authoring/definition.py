"""A workflow as it was written, before anything of it is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from flowcore.authoring.graph import Backoff, Durability, Hooks
from flowcore.codec import Shape

MISSING = object()
"""Stands for the condition of an arm of ``branch`` that is no pair; the step is then what was given instead."""
Kind: TypeAlias = Literal[
    "then", "parallel", "branch", "dowhile", "dountil", "foreach", "map", "sleep", "sleep_until", "wait_for_event"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What ``workflow(...)`` was told."""

    input: Shape[Any]
    output: Shape[Any]
    state: Shape[Any]
    request_context: Shape[Any]
    retries: int
    backoff: Backoff
    metadata: Mapping[str, Any]
    hooks: Hooks
    retention: timedelta | None = None
    durability: Durability = "step"
    validate_inputs: bool = True
    validate_outputs: bool = True
    mistakes: tuple[str, ...] = ()
    """What is wrong with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One verb of the builder as it was written."""

    kind: Kind
    id: str | None
    description: str
    steps: tuple[Any, ...]
    functions: tuple[Any, ...]
    into: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A workflow as it was written."""

    id: str
    description: str
    options: Options
    entries: tuple[Entry, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    """Former ids with those that came after them, in the order of writing."""
    removals: tuple[str, ...] = ()
