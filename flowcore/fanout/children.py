"""The children of a run: how they are named and found, and what befalls all of them together with their run."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from flowcore.authoring.graph import ForeachNode, Graph, NestedNode
from flowcore.codec import digest
from flowcore.core import heads
from flowcore.core.fan import fan_of, fans_of, first_items, items_from, open_fans, shard_of, total_of, unfinished
from flowcore.keys import RunRef, StepKey, dotted, item_of, items_around
from flowcore.model import Fan, Head, Join, Part, RunStatus, Snapshot, StepRecord
from flowcore.parcels import replace
from flowcore.ports import Written

if TYPE_CHECKING:
    from flowcore.engine import Engine

PATIENCE = timedelta(minutes=5)
"""How long a run waits for its children at first before it sees for itself how they are; then as long as before."""
LONGEST_PATIENCE = timedelta(hours=6)
QUEUE_GRACE = timedelta(seconds=90)
"""How long a child may stand in the queue before the sweeper sends another hint: many are sent at once. With a sweep a
minute a lost hint costs 150 seconds at most."""
_PUT_OFF = "its run stands still"
"""Why a child waits that is put off; one that sleeps has no such reason."""
ITS_RUN = ""
"""Who has canceled a child that its run needs no more; nobody else has an empty name."""


def child_id(run_id: str, incarnation: int, key: StepKey, first: int) -> str:
    """The id of the child that sees to the items from ``first``: whoever begins it again, begins the same one."""
    return f"part-{digest([run_id, incarnation, key, first])}"


def child_of(head: Head, key: StepKey, first: int) -> RunRef:
    """The child of this life of a run that sees to the items from ``first``."""
    return RunRef(head.run.tenant, child_id(head.run.id, head.incarnation, key, first))


def child_at(snapshot: Snapshot, key: StepKey) -> RunRef | None:
    """The child that sees to the place ``key``; None when the run itself does."""
    head = snapshot.head
    for foreach, index in items_around(key):
        start = snapshot.records.get(foreach)
        if head.part is not None and not foreach.startswith(f"{head.part.key}["):
            continue  # whose child this is
        if start is not None and (shard := shard_of(start)) is not None:
            return child_of(head, foreach, index - index % shard)
    return None


def unborn(head: Head, key: StepKey, items: range, now: datetime) -> Head:
    """The child of this life of a run that sees to ``items``, as it is begun."""
    return Head(
        run=child_of(head, key, items.start),
        workflow=head.workflow,
        # What a later life brings to its children was done under some definition before: it is to be judged.
        definition=head.definition if head.incarnation == 1 else "",
        input=None,
        input_hash="",
        status=RunStatus.QUEUED,
        created_at=head.created_at,  # links to its waits are made for the run, which is told by that
        updated_at=now,
        incarnation=head.incarnation,
        started_by=head.started_by,
        due=now + QUEUE_GRACE,
        part=Part(
            run=head.run.id,
            key=key,
            first=items.start,
            stop=items.stop,
            top=head.run.id if head.part is None else head.part.top,
        ),
    )


def home_of(head: Head, records: Mapping[StepKey, StepRecord], key: StepKey) -> tuple[RunRef, RunRef | None]:
    """In whose partition the record at ``key`` belongs, among ``records`` of a run, of its children, and theirs.

    An item that is done lies with all that is in it in the run whose item it is. Then the child that sees to it has to
    know of that as well, if it has other items left to do.
    """
    home = head.run
    for foreach, index in items_around(key):
        start = records.get(foreach)
        shard = None if start is None else shard_of(start)
        if start is None or shard is None:
            continue
        item, first = item_of(foreach, index), index - index % shard
        child = RunRef(home.tenant, child_id(home.id, head.incarnation, foreach, first))
        if not _is_done(records, item):
            home = child
            continue
        share = range(first, min(first + shard, total_of(start) or first + shard))
        has_more = not all(_is_done(records, item_of(foreach, other)) for other in share)
        return home, child if key == item and has_more else None
    return home, None


def _is_done(records: Mapping[StepKey, StepRecord], item: StepKey) -> bool:
    return item in records and records[item].is_settled


def nests(node: object) -> bool:
    """Whether an item of the foreach may have children of its own."""
    return isinstance(node, ForeachNode) and isinstance(node.body, NestedNode) and node.body.graph.fans_out


def begun_up_to(engine: Engine, head: Head, key: StepKey, fan: Fan) -> int:
    """Up to which item there are children: they are begun in order, so a few looks tell.

    Items that are done may never have had one: a former life has seen to them.
    """
    left = list(unfinished(fan))

    def is_missing(number: int) -> bool:
        return engine.store.peek(child_of(head, key, left[number])) is None

    if not left or not is_missing(len(left) - 1):
        return fan.total
    return left[bisect_left(range(len(left) - 1), x=True, key=is_missing)]


def open_children(engine: Engine, head: Head) -> Iterator[Head]:
    """The children of this life of a run that have not ended, and theirs; one read for each that has not delivered."""
    graph = engine.graphs.get(head.workflow)
    for key, fan in fans_of(engine.store.joins(head.run, head.incarnation)).items():
        nested = graph is None or nests(graph.find(dotted(key)))
        for first in unfinished(fan):
            child = engine.store.peek(child_of(head, key, first))
            if child is None or child.is_terminal:
                continue  # it will be begun, or its items given up, when the run is looked at
            yield child
            if nested:
                yield from open_children(engine, child)


def queued_children(engine: Engine, run: RunRef) -> list[RunRef]:
    """The children of a run that wait for a worker: an answer in a transaction of its giver's own moves only these."""
    graphs = engine.graphs
    head = engine.store.peek(run) if any(graph.fans_out for graph in graphs.values()) else None
    if head is None or head.is_terminal or (head.workflow in graphs and not graphs[head.workflow].fans_out):
        return []
    return [child.run for child in open_children(engine, head) if child.status is RunStatus.QUEUED]


def put_off(child: Head, now: datetime, *, since: datetime) -> Head:
    """A child whose run stands still ``since`` then looks again after as long a while, if nobody has it look before."""
    wake = now + min(max(PATIENCE, now - since), LONGEST_PATIENCE)
    return replace(heads.parked(child, now, RunStatus.WAITING, wake), blocked=_PUT_OFF)


def take_up_children(engine: Engine, head: Head, *, here: bool, deadline: datetime | None) -> int:
    """Have the children of a run that stand still, or were put off, go on here or by workers; how many there were."""
    graph, count = engine.graphs.get(head.workflow), 0
    if graph is not None and not graph.fans_out:
        return 0
    for child in open_children(engine, head):
        is_put_off = child.status is RunStatus.WAITING and child.blocked == _PUT_OFF
        if child.status is not RunStatus.BLOCKED and not is_put_off:
            continue
        moved = heads.requeued(child, max(engine.clock.now(), child.updated_at))
        if not isinstance(engine.store.move(moved, version=child.version), Written):
            continue
        count += 1
        if here:
            engine.look(child.run, deadline=deadline)
        else:
            engine.hints.send(child.run, at=moved.updated_at, version=moved.version)
    return count


def closing_fans(snapshot: Snapshot, key: StepKey | None) -> Iterator[StepRecord]:
    """The records of the open distributed foreaches at or inside ``key``; None: of the whole run."""
    part = snapshot.head.part
    for start in open_fans(snapshot):
        if part is not None and not start.key.startswith(f"{part.key}["):
            continue
        if key is None or start.key == key or start.key.startswith((f"{key}/", f"{key}[", f"{key}#")):
            yield start


def close(engine: Engine, graph: Graph, snapshot: Snapshot, key: StepKey | None) -> None:
    """Cancel the children of every foreach at or inside ``key`` that is about to end; None: of the whole run."""
    for start in closing_fans(snapshot, key):
        joins = engine.store.joins(snapshot.head.run, snapshot.head.incarnation, start.key)
        if joins:
            nested = nests(graph.find(dotted(start.key)))
            cancel_fan(engine, snapshot.head, start.key, fan_of(joins), nested=nested)


def cancel_children(engine: Engine, head: Head) -> None:
    """Cancel every child of this life of a run that has ended."""
    graph = engine.graphs.get(head.workflow)
    for key, fan in fans_of(engine.store.joins(head.run, head.incarnation)).items():
        nested = graph is None or nests(graph.find(dotted(key)))
        cancel_fan(engine, head, key, fan, nested=nested)


def cancel_fan(engine: Engine, head: Head, key: StepKey, fan: Fan, *, behind: int = -1, nested: bool = False) -> None:
    """Cancel the children all of whose items lie behind an item; those never begun are in order behind the others."""
    now = engine.clock.now()
    for first in unfinished(fan):
        if first > behind:
            canceled = engine.store.cancel(child_of(head, key, first), now=now, by=ITS_RUN)
            if canceled is None:
                return
            if nested:
                cancel_children(engine, canceled)


def delete_children(engine: Engine, head: Head) -> None:
    """Remove every child that any life of a run has had, for good; those of a later run of its id are left alone.

    A later life writes down what its children begin with before they are begun; not every one comes so far.
    """
    _delete_children(engine, head.run, head.created_at)


def _delete_children(engine: Engine, run: RunRef, created_at: datetime) -> None:
    lives: dict[int, list[Join]] = {}
    for join in engine.store.joins(run):
        lives.setdefault(join.incarnation, []).append(join)
    for incarnation, joins in lives.items():
        for key, fan in fans_of(joins).items():
            for first in first_items(fan):
                child = RunRef(run.tenant, child_id(run.id, incarnation, key, first))
                standing = engine.store.peek(child)
                if standing is None:
                    # A first life brings nothing, and nothing is brought to a child all of whose items are done.
                    is_ours = incarnation > 1 and not fan.done.issuperset(items_from(fan, first))
                else:
                    is_ours = standing.created_at == created_at
                if is_ours:
                    _delete_children(engine, child, created_at)
                    engine.store.delete(child)
