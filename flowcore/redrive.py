"""Going on with a failed run: a new life that begins with everything the old one has committed.

The records of the new life are written first, the head last and on condition that nobody wrote it meanwhile. Whoever
dies in between leaves a failed run, and records that nobody will read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from flowcore import receipts
from flowcore.authoring.graph import Graph, NestedNode
from flowcore.core import heads
from flowcore.core.compat import conflict
from flowcore.core.fan import chunks, delivered, shard_of, total_of
from flowcore.core.redrive import redriven
from flowcore.errors import ConflictError, DefinitionChanged, NotFailed
from flowcore.failures import Unfit, fitted
from flowcore.fanout.children import home_of
from flowcore.fanout.joins import knowing, settled_items
from flowcore.hooks import told_first
from flowcore.keys import RunRef, StepKey, item_number, parent_of
from flowcore.mailbox import listeners_of
from flowcore.model import NO_CHANGE, Head, Join, Json, RunStatus, Snapshot, StepRecord
from flowcore.parcels import replace
from flowcore.ports import Written
from flowcore.renewal import Outdated, renewed_snapshot

if TYPE_CHECKING:
    from flowcore.engine import Engine

_MOST_TRIES = 5
"""Times it is begun again because somebody wrote the head of a failed run meanwhile: its hooks have been called."""


def redrive(engine: Engine, run: RunRef, *, here: bool, deadline: datetime | None = None) -> Snapshot:
    """Have a failed run go on.

    Raises: RunNotFound, PartOfRun, WorkflowNotFound, NotFailed, DefinitionChanged; ConflictError when it has moved
        meanwhile, or its end has to be told first.
    """
    for _ in range(_MOST_TRIES):
        snapshot = engine.read(run, which="unfinished")
        head, now = engine.whole_run(snapshot.head), engine.time_of(snapshot)
        if head.status is not RunStatus.FAILED:
            raise NotFailed(run.id, head.public_status)
        graph, snapshot = engine.met(snapshot)
        reason = conflict(graph, snapshot)
        if reason is not None:
            raise DefinitionChanged(run.id, reason)
        snapshot = as_of_today(graph, snapshot)
        head = told_first(engine, head, here=here, deadline=deadline)
        moved = heads.redriven(head, now, engine.next_life(head))
        receipts.remember(engine, head, snapshot.records.values())
        records = redriven(graph, snapshot, now, taken)
        if not begin_life(engine, snapshot.with_head(moved), records):
            continue
        if isinstance(engine.store.move(moved, version=head.version), Written):
            return engine.looked_at(moved, here=here, deadline=deadline)
        unlisten(engine, moved, records)
    raise ConflictError(f"Run {run.id!r} moved {_MOST_TRIES} times while it was being redriven. Try again.")


def as_of_today(graph: Graph, snapshot: Snapshot) -> Snapshot:
    """What a new life begins with, as today's types take it. Raises: DefinitionChanged."""
    try:
        return renewed_snapshot(graph, snapshot)
    except Outdated as outdated:
        raise DefinitionChanged(snapshot.head.run.id, str(outdated)) from None


def begin_life(engine: Engine, snapshot: Snapshot, records: list[StepRecord]) -> bool:
    """Write what a run begins its new life with, under the incarnation of ``snapshot``'s head.

    False where another one has drawn the same number: that life must not begin.

    Suspensions have other ids in it, so who waits for an event listens anew. What was done in an item that is not done
    yet is written where the child will look that sees to the item; and first the joins, by which a child is found when
    the run is deleted, whether it was begun or not.
    """
    head, every = snapshot.head, {record.key: record for record in records}
    items: dict[StepKey, list[StepRecord]] = {}
    joins: list[tuple[RunRef, Join]] = []
    for item in settled_items(records):
        items.setdefault(parent_of(item.key), []).append(item)
    for start in records:
        if (shard := shard_of(start)) is not None and (total := total_of(start)) is not None:
            home, _ = home_of(head, every, start.key)
            opened = knowing(chunks(start.key, head.incarnation, total, shard), items.get(start.key, ()))
            joins += [(home, join) for join in opened]
    brought: list[tuple[RunRef, StepRecord]] = []
    for record in records:
        home, child = home_of(head, every, record.key)
        # Which worker of another life or run wrote what says nothing about how those of this one will fare.
        own = replace(_in_order(record, every), epoch=0)
        brought.append((home, own))
        if child is not None:  # it need not know what the item gave
            brought.append((child, replace(own, output=None, delta=NO_CHANGE)))
    listeners = [listener for record in records for listener in listeners_of(head, record)]
    return engine.store.bring(head.incarnation, brought, joins=joins, listeners=listeners)


def _in_order(record: StepRecord, every: Mapping[StepKey, StepRecord]) -> StepRecord:
    """An item of an open distributed foreach changes the state in its turn, in whichever life it was done."""
    start = every.get(parent_of(record.key))
    is_item = record.is_settled and item_number(record.key) is not None
    return delivered(record, start) if is_item and start is not None and shard_of(start) is not None else record


def listen(engine: Engine, head: Head, records: Iterable[StepRecord]) -> None:
    """Have the waits among ``records`` be told of their events."""
    for record in records:
        for listener in listeners_of(head, record):
            engine.store.listen(listener)


def unlisten(engine: Engine, head: Head, records: Iterable[StepRecord]) -> None:
    """Nobody listens any more for a life that came to nothing; no event could tell it from one that is being begun."""
    standing = engine.store.peek(head.run)
    if standing is not None and standing.incarnation == head.incarnation:
        return  # the head was written after all
    for record in records:
        for listener in listeners_of(head, record):
            engine.store.unlisten(listener)


def taken(node: NestedNode, value: Json) -> Json:
    """The input of a nested workflow that is entered, or open again, as the workflow takes it."""
    try:
        return fitted(node.takes, value, f"input of {node.id!r}")
    except Unfit:  # its steps will tell what does not fit
        return value
