"""What the joins of a foreach are told of a child's items: which are done, and which wait for an answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from flowcore.core.admit import is_abandoned, open_waits
from flowcore.core.fan import chunk_of, delivered, is_held, missing, open_fans
from flowcore.fanout.children import begun_up_to
from flowcore.keys import RunRef, StepKey, item_number, items_around
from flowcore.model import Join, Outcome, Part, Snapshot, StepRecord
from flowcore.parcels import replace
from flowcore.ports import RecordMoved

if TYPE_CHECKING:
    from flowcore.engine import Engine


@dataclass(frozen=True, slots=True)
class Waits:
    """Items in which somebody must answer; and those of them in which nothing moves by itself."""

    asking: frozenset[int]
    parked: frozenset[int]


NO_WAITS = Waits(frozenset(), frozenset())


def hand_in(engine: Engine, run: RunRef, incarnation: int, record: StepRecord, start: StepRecord) -> StepRecord:
    """Write an item's record into its run, once. What stands there afterwards is given back: joins are told of that.

    Somebody else may have been faster, and what came of the item then is not what was to be written.
    """
    record = delivered(record, start)
    written = engine.store.commit(run, incarnation, record, None)
    return written.record if isinstance(written, RecordMoved) and written.record is not None else record


def tell(engine: Engine, run: RunRef, join: Join, done: list[StepRecord], waits: Waits = NO_WAITS) -> Join | None:
    """Add to a join what is durable. A set: told twice, or by two workers, it is the same."""
    asking, parked = (
        frozenset(index for index in items if chunk_of(index) == join.chunk) for items in (waits.asking, waits.parked)
    )
    if not done and not asking:
        return None
    return engine.store.join(run, replace(holding(join, done), asking=asking, parked=parked))


def open_joins(engine: Engine, run: RunRef, joins: Iterable[Join], known: Iterable[StepRecord]) -> None:
    """Put the joins of a foreach that are missing, with what ``known`` records of a former life tell of its items."""
    for join in knowing(joins, known):
        engine.store.open_join(run, join)


def knowing(joins: Iterable[Join], known: Iterable[StepRecord]) -> list[Join]:
    """The same joins, with what ``known`` records tell of the items of their foreach."""
    done: dict[int, list[StepRecord]] = {}
    for record in settled_items(known):
        done.setdefault(chunk_of(item_number(record.key) or 0), []).append(record)
    return [holding(join, done.get(join.chunk, [])) for join in joins]


def holding(join: Join, records: list[StepRecord]) -> Join:
    """A join with just these items in its sets."""

    def items(*outcomes: Outcome) -> frozenset[int]:
        numbers = (item_number(record.key) for record in records if record.outcome in outcomes)
        return frozenset(number for number in numbers if number is not None)

    every = items(Outcome.OK, Outcome.SKIP, Outcome.ERR, Outcome.BAIL)
    return replace(
        join, done=every, failed=items(Outcome.ERR), bailed=items(Outcome.BAIL), asking=frozenset(), parked=frozenset()
    )


def settled_items(records: Iterable[StepRecord]) -> Iterator[StepRecord]:
    """The records of items that are done."""
    return (record for record in records if record.is_settled and item_number(record.key) is not None)


def is_of(join: Join, record: StepRecord) -> bool:
    """Whether an item's record is one for this join."""
    return chunk_of(item_number(record.key) or 0) == join.chunk


def waits_of(engine: Engine, snapshot: Snapshot, part: Part, now: datetime) -> Waits:
    """Where somebody must answer, of a child that was given back ``now``: what has fallen due since moves as well."""
    moving = {start.key for start in open_fans(snapshot) if _is_moving(engine, snapshot, start.key)}
    moving |= {
        record.key
        for record in snapshot.records.values()
        if record.outcome in (Outcome.SLP, Outcome.RETRY, Outcome.RESU)
        and (record.until is None or record.until > now)
        and not is_abandoned(snapshot, record.key)
    }
    deeper = [key for key, fan in snapshot.fans.items() if fan.asking]
    asking = items_of(part, [*(record.key for record in open_waits(snapshot)), *deeper])
    return Waits(asking, asking - items_of(part, moving))


def _is_moving(engine: Engine, snapshot: Snapshot, key: StepKey) -> bool:
    """Whether an open foreach of a child's own goes on by itself: not all of its children wait for answers."""
    fan = snapshot.fans.get(key)
    if fan is None or is_abandoned(snapshot, key):
        return False
    awaited = missing(fan, None)
    if fan.begun is None and not is_held(fan, awaited):
        fan = replace(fan, begun=begun_up_to(engine, snapshot.head, key, fan))
    return not awaited or not is_held(fan, awaited)


def items_of(part: Part, keys: Iterable[StepKey]) -> frozenset[int]:
    """The items of a child that the places ``keys`` are, or lie in."""
    return frozenset(index for place in keys for key, index in items_around(place) if key == part.key)
