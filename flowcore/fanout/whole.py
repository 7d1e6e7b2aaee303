"""A run as it is shown: together with what its children know."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

from flowcore.authoring.graph import ForeachNode, Graph, NestedNode
from flowcore.core.admit import open_waits
from flowcore.core.evolve import answers_of, fold
from flowcore.core.fan import fans_of, first_items, items_from, shard_of
from flowcore.fanout.children import child_of, nests, unborn
from flowcore.keys import RunRef, StepKey, dotted, item_of
from flowcore.model import Head, Outcome, RunStatus, Snapshot, StepRecord
from flowcore.parcels import replace

if TYPE_CHECKING:
    from flowcore.engine import Engine

MOST_MERGED = 100
"""Children of one foreach that are read to show a whole run; of more, what they have handed in is shown."""
Which: TypeAlias = Literal["few", "unfinished", "all"]
"""Of more children than that, whose records are wanted all the same: of none; of those with items left to do or failed,
and of the others what knows a copy of an answer; of all."""


def whole(
    engine: Engine,
    graph: Graph,
    snapshot: Snapshot,
    *,
    everything: bool,
    which: Which = "few",
    is_late: Callable[[], bool] = lambda: False,
) -> Snapshot:
    """A run together with what its children know: which of them wait for answers; and, if asked, all they have done.

    From when it ``is_late`` no other child is read, if one was.
    """
    head = snapshot.head
    fans = fans_of(engine.store.joins(head.run, head.incarnation))
    records: dict[StepKey, StepRecord] = {}
    for key, fan in fans.items():
        node, start = graph.find(dotted(key)), snapshot.records.get(key)
        is_open = start is not None and shard_of(start) is not None
        is_nested = isinstance(node, ForeachNode) and isinstance(node.body, NestedNode)
        has_failed = start is not None and start.outcome is Outcome.ERR
        few = which == "all" or -(-fan.total // fan.shard) <= MOST_MERGED
        finished_as_well = few and (is_nested or has_failed)  # for what lies inside of their items
        unfinished = few or which == "unfinished"
        settled = fan.done - fan.failed if which == "unfinished" and (is_open or has_failed) else fan.done
        for first in first_items(fan):
            items = items_from(fan, first)
            waits = is_open and not fan.asking.isdisjoint(items)
            is_wanted = finished_as_well or (unfinished and not settled.issuperset(items))
            # What was done after the run was read and before its joins were, only the child tells.
            is_wanted = is_wanted or any(
                index in fan.done and item_of(key, index) not in snapshot.records for index in items
            )
            keys_alone = everything and which == "unfinished" and is_nested and not (waits or is_wanted)
            if (waits or keys_alone or (everything and is_wanted)) and not (records and is_late()):
                child = read_child(engine, graph, child_of(head, key, first), everything=everything, which=which)
                if child is None and which == "unfinished" and head.incarnation > 1:  # what was brought to it
                    begun = unborn(head, key, items, engine.time_of(snapshot))
                    child = read_child(engine, graph, begun.run, begun, everything=everything, which=which)
                found = {} if child is None else dict(child.records)
                records |= {key: record for key, record in found.items() if not keys_alone or _knows_a_key(record)}
    merged = replace(fold(head, {**records, **snapshot.records}.values()), around=snapshot.around, fans=fans)
    if head.status is RunStatus.SUSPENDED and fans and not open_waits(merged):
        return merged.with_head(replace(head, status=RunStatus.JOINING))  # a child was answered a moment ago
    return merged


def _knows_a_key(record: StepRecord) -> bool:
    """Whether a copy of an answer is known by this record."""
    return any(answer.idempotency_key is not None for answer in (*answers_of(record), *record.spent))


def waits_in_children(engine: Engine, snapshot: Snapshot, *, is_late: Callable[[], bool]) -> list[StepRecord]:
    """The open suspensions in the children of a run that is about to be parked: listings of waits are told of them.

    Where there is no time to read every child that asks: those in the first ones, in one at least.
    """
    if not any(fan.asking for fan in snapshot.fans.values()):
        return []
    graph = engine.graph(snapshot.head.workflow)
    merged = whole(engine, graph, snapshot, everything=False, is_late=is_late)
    return [record for record in open_waits(merged) if record.key not in snapshot.records]


def read_child(
    engine: Engine,
    graph: Graph,
    child: RunRef,
    head: Head | None = None,
    *,
    everything: bool = False,
    which: Which = "few",
) -> Snapshot | None:
    """A child as it stands by itself, or would stand under ``head``, with what its own children know."""
    loaded = engine.store.load(child, head, everything=everything)
    if loaded is None:
        return None
    snapshot = fold(loaded[0], loaded[1].values())
    key = snapshot.head.part.key if snapshot.head.part is not None else StepKey("")
    if nests(graph.find(dotted(key))):
        snapshot = whole(engine, graph, snapshot, everything=everything, which=which)
    return snapshot
