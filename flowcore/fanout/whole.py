"""A run as it is shown: together with what its children know."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from flowcore.authoring.graph import ForeachNode, Graph, NestedNode
from flowcore.core.admit import is_abandoned, open_waits
from flowcore.core.evolve import answers_of, fold
from flowcore.core.fan import fans_of, first_items, items_from, shard_of
from flowcore.core.heads import Open
from flowcore.fanout.children import child_of, nests, unborn
from flowcore.keys import RunRef, StepKey, dotted, item_of, items_around
from flowcore.model import Fan, Head, Outcome, RunStatus, Snapshot, StepRecord
from flowcore.parcels import replace

if TYPE_CHECKING:
    from flowcore.engine import Engine

MOST_MERGED = 100
"""Children of one foreach that are read to show a whole run; of more, what they have handed in is shown."""
Which: TypeAlias = Literal["shown", "few", "unfinished", "all"]
"""Of more children than that, whose records are wanted all the same: of the first that ask somebody; of all that do; of
those with items left to do or failed as well, and of the others what knows a copy of an answer; of all.

Who judges an answer needs every child that asks. Who only shows the run does not: the others come up as the first
ones are answered, and the joins have counted them all."""


def whole(
    engine: Engine,
    graph: Graph,
    snapshot: Snapshot,
    *,
    everything: bool,
    which: Which = "few",
    at: StepKey | None = None,
    most: int = MOST_MERGED,
) -> Snapshot:
    """A run together with what its children know: which of them wait for answers; and, if asked, all they have done.

    Args:
        at: read only children that see to this place, one in another.
        most: of a foreach, how many children that ask somebody are ``shown``.
    """
    head = snapshot.head
    fans = fans_of(engine.store.joins(head.run, head.incarnation))
    records: dict[StepKey, StepRecord] = {}
    is_cut = False
    for key, fan in fans.items():
        node, start = graph.find(dotted(key)), snapshot.records.get(key)
        is_open = start is not None and shard_of(start) is not None
        is_nested = isinstance(node, ForeachNode) and isinstance(node.body, NestedNode)
        has_failed = start is not None and start.outcome is Outcome.ERR
        few = which == "all" or -(-fan.total // fan.shard) <= MOST_MERGED
        finished_as_well = few and (is_nested or has_failed)  # for what lies inside of their items
        unfinished = few or which == "unfinished"
        settled = fan.done - fan.failed if which == "unfinished" and (is_open or has_failed) else fan.done
        asking = children_that_ask(fan) if is_open else []
        shown = frozenset(asking[:most] if which == "shown" and at is None else asking)
        is_cut |= len(shown) < len(asking)
        deeper = max(1, most // max(1, len(shown)))
        for first in first_items(fan) if at is None else _seeing_to(at, key, fan):
            items = items_from(fan, first)
            waits = first in shown
            is_wanted = finished_as_well or (unfinished and not settled.issuperset(items)) or at is not None
            # What was done after the run was read and before its joins were, only the child tells.
            is_wanted = is_wanted or any(
                index in fan.done and item_of(key, index) not in snapshot.records for index in items
            )
            keys_alone = everything and which == "unfinished" and is_nested and not (waits or is_wanted)
            if waits or keys_alone or (everything and is_wanted):
                read = partial(read_child, engine, graph, everything=everything, which=which, at=at, most=deeper)
                child = read(child_of(head, key, first))
                if child is None and which == "unfinished" and head.incarnation > 1:  # what was brought to it
                    begun = unborn(head, key, items, engine.time_of(snapshot))
                    child = read(begun.run, begun)
                found = {} if child is None else dict(child.records)
                records |= {key: record for key, record in found.items() if not keys_alone or _knows_a_key(record)}
    merged = replace(fold(head, {**records, **snapshot.records}.values()), around=snapshot.around, fans=fans)
    if head.status is RunStatus.SUSPENDED and fans and not is_cut and not open_waits(merged):
        return merged.with_head(replace(head, status=RunStatus.JOINING))  # a child was answered a moment ago
    return merged


def children_that_ask(fan: Fan) -> list[int]:
    """The children, by first item, in which somebody must answer; in order."""
    return sorted({index - index % fan.shard for index in fan.asking})


def _seeing_to(place: StepKey, key: StepKey, fan: Fan) -> list[int]:
    """The child of a foreach that sees to a place, by first item; none if the place is not in it."""
    return [index - index % fan.shard for foreach, index in items_around(place) if foreach == key and index < fan.total]


def _knows_a_key(record: StepRecord) -> bool:
    """Whether a copy of an answer is known by this record."""
    return any(answer.idempotency_key is not None for answer in (*answers_of(record), *record.spent))


def waits_in_children(engine: Engine, snapshot: Snapshot, *, is_late: Callable[[], bool]) -> list[Open]:
    """The open suspensions in the children of a run that is about to be parked: listings of waits are told of them.

    Of each foreach those in the first children that ask; where there is no time for these, in one child at least.
    """
    found: list[Open] = []
    for key, fan in snapshot.fans.items():
        start = snapshot.records.get(key)
        if start is None or shard_of(start) is None or is_abandoned(snapshot, key):
            continue
        for first in children_that_ask(fan)[:MOST_MERGED]:
            if found and is_late():
                return found
            found += _asked_in(engine, snapshot, child_of(snapshot.head, key, first))
    return found


def _asked_in(engine: Engine, snapshot: Snapshot, child: RunRef) -> list[Open]:
    """What a child waits for, as its head tells; until it is given back, only its records do."""
    head = engine.store.peek(child)
    if head is None or head.is_terminal:
        return []
    if head.waiting_since is not None:
        return [Open(head.waiting_since, head.deadline)]
    seen = read_child(engine, engine.graph(snapshot.head.workflow), child, which="shown")
    return [] if seen is None else [Open(record.at, record.until) for record in open_waits(seen)]


def read_child(
    engine: Engine,
    graph: Graph,
    child: RunRef,
    head: Head | None = None,
    *,
    everything: bool = False,
    which: Which = "few",
    at: StepKey | None = None,
    most: int = MOST_MERGED,
) -> Snapshot | None:
    """A child as it stands by itself, or would stand under ``head``, with what its own children know."""
    loaded = engine.store.load(child, head, everything=everything)
    if loaded is None:
        return None
    snapshot = fold(loaded[0], loaded[1].values())
    key = snapshot.head.part.key if snapshot.head.part is not None else StepKey("")
    if nests(graph.find(dotted(key))):
        snapshot = whole(engine, graph, snapshot, everything=everything, which=which, at=at, most=most)
    return snapshot
