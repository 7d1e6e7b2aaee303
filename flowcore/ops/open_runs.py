"""The runs that may still change, each read once, with the code at hand as it fits them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from flowcore.app import App
from flowcore.authoring.graph import Graph
from flowcore.core.compat import conflict
from flowcore.core.evolve import fold
from flowcore.core.fan import open_fans
from flowcore.errors import BlobLost
from flowcore.fanout.children import open_children
from flowcore.keys import RunRef, StepKey
from flowcore.model import Page, PublicStatus, RunStatus, Snapshot, StepRecord
from flowcore.renewal import misfits

OPEN: Sequence[PublicStatus] = ("pending", "running", "waiting", "suspended", "paused")
"""Statuses of runs that may still change."""
AT_ONCE = 100
"""Runs that one page of a listing shows."""

Hindrance: TypeAlias = Literal["not-served", "definition-changed", "unreadable"]


@dataclass(frozen=True, slots=True)
class OpenRun:
    """One run as it stands, and its workflow; None where none of that id is served here."""

    graph: Graph | None
    snapshot: Snapshot
    lost: str | None = None
    """Which value of it is lost, if one is; its records are not in the snapshot then."""
    whole: Snapshot | None = None
    """With the records of the children of its distributed foreaches that have not ended; None where it has none."""
    definitions: frozenset[str] = frozenset()
    """Under which definitions those children have moved last."""
    has_blocked_children: bool = False
    """Whether one of them stands still."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One reason why the code at hand cannot go on with one run.

    Example:
        >>> from flowcore.ops import Obstacle
        >>> Obstacle("r-1", "refund", "not-served", "no workflow 'refund' is served here").kind
        'not-served'
    """

    run_id: str
    workflow_id: str
    kind: Hindrance
    """``not-served``: no such workflow. ``definition-changed``: a step is gone or another one. ``unreadable``: a value
    that is stored does not fit its type, and no migration leads to one that does."""
    detail: str
    """What was found, and what to do."""


def open_runs(app: App, workflow: str | None, statuses: Sequence[PublicStatus] = OPEN) -> Iterator[OpenRun]:
    """All of them, read as they are asked for."""
    cursor: str | None = None
    while True:
        page = open_page(app, workflow, statuses, limit=AT_ONCE, cursor=cursor)
        yield from page
        cursor = page.cursor
        if cursor is None:
            return


def open_page(
    app: App, workflow: str | None, statuses: Sequence[PublicStatus], *, limit: int, cursor: str | None
) -> Page[OpenRun]:
    """Those on one page of the listing; what is gone meanwhile is left out."""
    page = app.list_runs(workflow=workflow, status=statuses, limit=limit, cursor=cursor)
    found = (_read(app, summary.run_id) for summary in page)
    return Page([run for run in found if run is not None], page.cursor)


def obstacles(run: OpenRun) -> Iterator[Obstacle]:
    """What keeps the code at hand from going on with a run."""
    graph, head = run.graph, run.snapshot.head
    if head.is_terminal:
        return
    if graph is None:
        told = f"no workflow {head.workflow!r} is served here; deploy it again, or cancel the run"
        yield Obstacle(head.run.id, head.workflow, "not-served", told)
        return
    moved_under = {head.definition, *run.definitions}
    reason = conflict(graph, run.whole or run.snapshot) if moved_under != {graph.fingerprint} else None
    if reason is not None:
        yield Obstacle(head.run.id, head.workflow, "definition-changed", reason)
        return
    for told in _unreadable(graph, run):
        yield Obstacle(head.run.id, head.workflow, "unreadable", told)


def _unreadable(graph: Graph, run: OpenRun) -> Iterator[str]:
    if run.lost is not None:
        yield run.lost
        return
    try:
        yield from (misfit.reason for misfit in misfits(graph, run.whole or run.snapshot))
    except BlobLost as lost:
        yield str(lost)


def _read(app: App, run_id: str) -> OpenRun | None:
    loaded = app.store.load(RunRef(app.tenant, run_id))
    if loaded is None:
        return None
    head, records = loaded
    try:
        snapshot = fold(head, records.values())
    except BlobLost as lost:
        return OpenRun(*app.engine.seen(Snapshot(head=head)), str(lost))
    run = OpenRun(*app.engine.seen(snapshot))
    return run if head.is_terminal or not open_fans(snapshot) else _with_children(app, run, snapshot)


def _with_children(app: App, run: OpenRun, snapshot: Snapshot) -> OpenRun:
    """The same, with what the children of its distributed foreaches have met and stored."""
    found: dict[StepKey, StepRecord] = {}
    definitions, is_blocked = set[str](), False
    for child in open_children(app.engine, snapshot.head):
        loaded = app.store.load(child.run)
        if loaded is not None:
            found |= loaded[1]
            definitions.add(loaded[0].definition)
            is_blocked |= loaded[0].status is RunStatus.BLOCKED
    run = replace(run, definitions=frozenset(definitions), has_blocked_children=is_blocked)
    try:
        whole = fold(snapshot.head, {**found, **snapshot.records}.values())
    except BlobLost as lost:
        return replace(run, lost=str(lost))
    graph, whole = app.engine.seen(whole)
    return replace(run, graph=graph, whole=whole)
