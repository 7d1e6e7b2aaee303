"""A distributed foreach in numbers: which child sees to which items, how the joins say it is, and how it will end.

Pure. Children are known by the item they begin with; everything about them can be derived from the foreach's record
and the length of its list, so whoever comes later names the same children.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count

from flowcore.authoring.graph import ForeachNode
from flowcore.keys import StepKey, item_number
from flowcore.model import Delta, Fan, Join, Json, Outcome, Snapshot, StepRecord
from flowcore.parcels import replace

CHUNK = 200
"""Items of one join: with every item in two sets its item stays below a write unit."""
MOST_CHILDREN = 100
"""Children that are wanted, if nobody says otherwise: below, each item has one of its own."""
LARGEST_SHARD = 50
"""Items that one child is given at most, if nobody says otherwise."""


def is_held(fan: Fan, awaited: frozenset[int]) -> bool:
    """Whether nothing but an answer brings the awaited items on; those never begun wait for others to end."""
    return all(index in fan.parked or (fan.begun is not None and index >= fan.begun) for index in awaited)


def shard_size(wanted: int | None, total: int, slots: int) -> int:
    """How many items one child sees to: as asked for, else few enough for many workers and no more than are open."""
    size = min(-(-total // MOST_CHILDREN), LARGEST_SHARD) if wanted is None else wanted
    return max(1, min(size, slots))


def shard_of(record: StepRecord) -> int | None:
    """How many items one child sees to, if the record is that of an open distributed foreach."""
    if record.outcome is not Outcome.START or record.count is None or record.opens is not None:
        return None
    return int(record.output["shard"])


def total_of(start: StepRecord) -> int | None:
    """How many items an open distributed foreach has; None of one that was opened before records told it."""
    total = start.output.get("total")
    return None if total is None else int(total)


def open_fans(snapshot: Snapshot) -> list[StepRecord]:
    """The records of the distributed foreaches that are open."""
    return [record for record in snapshot.records.values() if shard_of(record) is not None]


def opening(shard: int, total: int) -> Json:
    """What the record of a distributed foreach of so many items holds while it is open."""
    return {"shard": shard, "total": total}


def chunks(key: StepKey, incarnation: int, total: int, shard: int) -> list[Join]:
    """The joins that a foreach needs, with nothing done."""
    count = -(-total // CHUNK)
    return [Join(key=key, incarnation=incarnation, chunk=n, total=total, shard=shard) for n in range(count)]


def chunk_of(index: int) -> int:
    """Which join an item belongs to."""
    return index // CHUNK


def is_at_rest(join: Join) -> bool:
    """Whether every item of this join is done, or waits for an answer."""
    return len(join.done | join.parked) >= min(CHUNK, join.total - join.chunk * CHUNK)


def is_last_in_front(join: Join, first: int) -> bool:
    """Whether all in front of an item that may end the foreach is done or parked, and the item ``first`` is of that.

    As far as this join knows. Then nobody else may be left to tell of it: what lies behind such an item is canceled.
    """
    at_rest = join.done | join.parked
    awaited = next(index for index in count(join.chunk * CHUNK) if index not in at_rest)
    return any(first < index < awaited for index in join.failed | join.bailed)


def fan_of(joins: Sequence[Join]) -> Fan:
    """The whole of at least one join."""

    def united(sets: Iterable[frozenset[int]]) -> frozenset[int]:
        return frozenset().union(*sets)

    return Fan(
        total=joins[0].total,
        shard=joins[0].shard,
        done=united(join.done for join in joins),
        failed=united(join.failed for join in joins),
        bailed=united(join.bailed for join in joins),
        parked=united(join.parked - join.done for join in joins),
        asking=united(join.asking - join.done for join in joins),
    )


def fans_of(joins: Iterable[Join]) -> dict[StepKey, Fan]:
    """Joins by the foreach they belong to."""
    found: dict[StepKey, list[Join]] = {}
    for join in joins:
        found.setdefault(join.key, []).append(join)
    return {key: fan_of(parts) for key, parts in found.items()}


def first_items(fan: Fan) -> range:
    """The first item of every child."""
    return range(0, fan.total, fan.shard)


def items_from(fan: Fan, first: int) -> range:
    """The items of the child that begins with ``first``."""
    return range(first, min(first + fan.shard, fan.total))


def unfinished(fan: Fan) -> Iterator[int]:
    """The children, by first item, that have not delivered everything."""
    return (first for first in first_items(fan) if not fan.done.issuperset(items_from(fan, first)))


def tolerated(node: ForeachNode, total: int) -> float:
    """How many of so many items may fail."""
    most = _count(node.tolerated, total)
    if node.min_successful is None:
        return most
    wanted = _count(node.min_successful, total)
    return total - wanted if node.tolerated == 0 else min(most, total - wanted)


def _count(wanted: float, total: int) -> float:
    """A count of items as it is, a share of them as the count that it is: 0.29 of 100 are 29, not a little less."""
    return wanted if wanted >= 1 else round(wanted * total, 9)


def decider(fan: Fan, may_fail: float) -> int | None:
    """The item that ends the foreach early, as far as is known: one that has bailed, or one failure too many.

    Items in front of it may still end it earlier, those behind it change nothing.
    """
    failed = 0
    for index in sorted(fan.failed | fan.bailed):
        failed += index in fan.failed
        if index in fan.bailed or failed > may_fail:
            return index
    return None


def missing(fan: Fan, last: int | None) -> frozenset[int]:
    """The items that have yet to be done before the foreach can end, if ``last`` decides how.

    Once it is decided, nobody need answer any more.
    """
    awaited = frozenset(range(fan.total if last is None else last)) - fan.done
    return awaited if last is None else awaited - fan.parked


def delivered(record: StepRecord, start: StepRecord) -> StepRecord:
    """An item's record as the run gets it: its changes are ordered as if the items had run one after the other."""
    index = item_number(record.key)
    assert index is not None  # what is delivered is an item
    seq = start.seq + 1 + index
    state = {name: (seq, stamped[1]) for name, stamped in record.delta.state.items()}
    context = {name: (seq, *stamped[1:]) for name, stamped in record.delta.context.items()}
    return replace(record, seq=seq, epoch=0, delta=Delta(state=state, context=context))
