"""The fields of a run, one by one: what each is made of and how much of the run it needs, so that no more is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, TypeAlias

from flowcore.authoring.graph import Graph
from flowcore.core import view
from flowcore.core.evolve import context_at, state_at
from flowcore.errors import UnknownField
from flowcore.failures import Unread, read
from flowcore.keys import ROOT, StepKey
from flowcore.model import Doors, Json, RunStatus, Snapshot, Wait

Make: TypeAlias = Callable[[Graph | None, Snapshot], Any]


class Needs(IntEnum):
    """How much of a run must be read."""

    HEAD = 0
    """The head alone: one small read."""
    FANS = 1
    """Also what its distributed foreaches count, but no record and no item."""
    OPEN = 2
    """Also the records of the scopes that are still at work."""
    ALL = 3
    """Every record."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a run."""

    needs: Needs
    make: Make


def _output(graph: Graph | None, snapshot: Snapshot) -> Any:
    """The validated output; plain JSON without a graph, or where a deploy has changed its type since."""
    if snapshot.head.status is RunStatus.SUCCESS and graph is not None:
        try:
            return read(graph.gives, snapshot.head.output, "output")
        except Unread:
            return snapshot.head.output
    return snapshot.head.output


def _of_head(name: str) -> Field:
    return Field(Needs.HEAD, lambda _, snapshot: getattr(snapshot.head, name))


FIELDS: Mapping[str, Field] = {
    "run_id": Field(Needs.HEAD, lambda _, snapshot: snapshot.head.run.id),
    "workflow_id": _of_head("workflow"),
    "status": _of_head("public_status"),
    "input": _of_head("input"),
    "output": Field(Needs.HEAD, _output),
    "error": _of_head("failure"),
    "suspended": Field(Needs.OPEN, lambda _, snapshot: view.suspended(snapshot)),
    "waits": Field(Needs.OPEN, lambda _, snapshot: view.waits(snapshot)),
    "resume_labels": Field(Needs.OPEN, lambda _, snapshot: labels(view.waits(snapshot))),
    "steps": Field(Needs.ALL, view.steps),
    "progress": Field(Needs.FANS, lambda _, snapshot: view.progress(snapshot)),
    "state": Field(Needs.OPEN, lambda _, snapshot: state_at(snapshot, StepKey(ROOT))),
    "request_context": Field(Needs.OPEN, lambda _, snapshot: context_at(snapshot, StepKey(ROOT))),
    "blocked": Field(
        Needs.HEAD, lambda _, snapshot: snapshot.head.blocked if snapshot.head.status is RunStatus.BLOCKED else None
    ),
    "resource_id": _of_head("resource_id"),
    "started_by": _of_head("started_by"),
    "canceled_by": _of_head("canceled_by"),
    "trace_id": Field(Needs.HEAD, lambda _, snapshot: snapshot.head.trace.trace_id),
    "tags": Field(Needs.HEAD, lambda _, snapshot: list(snapshot.head.trace.tags)),
    "version": _of_head("version"),
    "created_at": _of_head("created_at"),
    "updated_at": _of_head("updated_at"),
}
"""Every field of a run that can be asked for, by the name it has in a ``RunResult`` and over HTTP."""


def known(fields: Iterable[str]) -> tuple[str, ...]:
    """The names asked for, each once. Raises: UnknownField."""
    names = tuple(dict.fromkeys([fields] if isinstance(fields, str) else fields))
    for name in names:
        if name not in FIELDS:
            raise UnknownField(name, FIELDS)
    return names


def needs(names: Iterable[str]) -> Needs:
    """How much must be read for all of ``names``."""
    return max((FIELDS[name].needs for name in names), default=Needs.HEAD)


def made(names: Iterable[str], graph: Graph | None, snapshot: Snapshot, doors: Doors | None = None) -> dict[str, Any]:
    """The values of the fields ``names``; waits that can be answered from outside know where."""
    values = {name: FIELDS[name].make(graph, snapshot) for name in names}
    if doors is not None and "waits" in values:
        values["waits"] = [replace(wait, doors=doors) for wait in values["waits"]]
    return values


def labels(waits: Iterable[Wait[Json]]) -> dict[str, list[str]]:
    """The labels by which a run can be resumed, with the path each leads to."""
    return {wait.label: wait.path for wait in waits if wait.label is not None}


class RunFields(Mapping[str, Any]):
    """Some fields of a run, as asked for: a mapping of exactly those, which can be read as attributes as well.

    Example:
        >>> from flowcore import App, step, workflow
        >>> @step
        ... def double(number: int) -> int:
        ...     return 2 * number
        >>> run = App(workflow("twice", input=int, output=int).then(double).commit()).workflow("twice").create_run()
        >>> _ = run.start(21)
        >>> some = run.result(fields=["status", "output"])
        >>> some.output, dict(some)
        (42, {'status': 'success', 'output': 42})
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._values:
            raise AttributeError(f"{name!r} was not asked for; fields= named {', '.join(self._values) or 'nothing'}")
        return self._values[name]

    def __repr__(self) -> str:
        return f"RunFields({self._values!r})"
