"""The run that has children: whenever it is looked at, it begins those that are missing, and mends what was lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import TYPE_CHECKING

from flowcore.authoring.graph import ForeachNode
from flowcore.core.actions import Gather, Place
from flowcore.core.evolve import fold
from flowcore.core.fan import (
    chunks,
    decider,
    delivered,
    fan_of,
    items_from,
    missing,
    open_fans,
    shard_of,
    tolerated,
    unfinished,
)
from flowcore.fanout.children import (
    ITS_RUN,
    LONGEST_PATIENCE,
    PATIENCE,
    begun_up_to,
    cancel_fan,
    child_of,
    nests,
    open_children,
    unborn,
)
from flowcore.fanout.joins import hand_in, is_of, open_joins, settled_items, tell, waits_of
from flowcore.fanout.whole import MOST_MERGED, read_child
from flowcore.keys import RunRef, Scope, StepKey, dotted, item_number, item_of
from flowcore.model import Fan, Head, Outcome, RunStatus, Snapshot, StepFailure, StepRecord
from flowcore.parcels import replace

if TYPE_CHECKING:
    from flowcore.engine import Engine


@dataclass(frozen=True, slots=True)
class Gathered:
    """How the children of a foreach were found, and what this worker has done about it."""

    snapshot: Snapshot
    children: tuple[RunRef, ...]
    """Those that have yet to deliver, where no queue brings them to workers."""
    is_complete: bool
    """Whether every child that should be at work was begun; there was no time for the rest otherwise."""


def gather(engine: Engine, snapshot: Snapshot, action: Gather, *, is_late: Callable[[], bool]) -> Gathered:
    """Look after the children of one foreach; afterwards ``snapshot.fans`` knows how far it is."""
    place, head, store = action.place, snapshot.head, engine.store
    node, key, start = place.node, place.key, snapshot.records[place.key]
    assert isinstance(node, ForeachNode)  # nothing else has children
    fan = _joined(engine, head, start, len(action.value))
    last = decider(fan, tolerated(node, fan.total))
    is_complete, children = True, []
    left: list[StepRecord] = []
    if last is not None and missing(fan, last):
        fan = _mended(engine, snapshot, place, fan, last)
    elif last is None and missing(fan, None):
        before = begun_up_to(engine, head, key, fan)
        begun, is_complete = _begin_missing(engine, snapshot, start, fan, before, is_late)
        if begun <= before:  # else somebody will look again before long
            known, fan = fan, _mended(engine, snapshot, place, fan, begun)
            if fan.done != known.done and decider(fan, tolerated(node, fan.total)) is None:  # which lets others begin
                begun, is_complete = _begin_missing(engine, snapshot, start, fan, begun, is_late)
        fan = replace(fan, begun=begun)
    last = decider(fan, tolerated(node, fan.total))  # what was mended may have decided it
    if last is not None:
        if not missing(fan, last):
            fan, left = _left_waiting(engine, snapshot, start, fan, last)
        cancel_fan(engine, head, key, fan, behind=last, nested=nests(node))
    if not missing(fan, last):
        snapshot = _with_items(engine, snapshot, key, left)
    elif engine.hints.queue is None:
        end = fan.total if fan.begun is None else fan.begun
        end = end if last is None else last
        children = [child_of(head, key, first) for first in unfinished(fan) if first < end]
        standing = [store.peek(child) for child in children]
        wakes = [child.wake for child in standing if child is not None and child.wake is not None]
        fan = replace(fan, wake=min(wakes, default=None))
    snapshot = replace(snapshot, fans={**snapshot.fans, key: fan})
    return Gathered(snapshot, tuple(children), is_complete)


def patience(snapshot: Snapshot, now: datetime) -> timedelta:
    """How long a run that waits for its children need not look at them: they tell it when there is something to do."""
    began = max((start.started_at for start in open_fans(snapshot)), default=now)
    return min(max(PATIENCE, now - began), LONGEST_PATIENCE)


def _joined(engine: Engine, head: Head, start: StepRecord, total: int) -> Fan:
    """The foreach as its joins tell; those that are missing are put, with what a former life has done."""
    store, shard = engine.store, shard_of(start)
    assert shard is not None  # whoever asks has seen the record of an open distributed foreach
    joins = store.joins(head.run, head.incarnation, start.key)
    wanted = chunks(start.key, head.incarnation, total, shard)
    if len(joins) < len(wanted):
        open_joins(engine, head.run, wanted, store.scope(head.run, head.incarnation, Scope(start.key)).values())
        joins = store.joins(head.run, head.incarnation, start.key)
    return fan_of(joins)


def _begin_missing(
    engine: Engine, snapshot: Snapshot, start: StepRecord, fan: Fan, begun: int, is_late: Callable[[], bool]
) -> tuple[int, bool]:
    """Begin children in order, as many as may be open; up to which item they are begun, and whether that is all."""
    key, slots = start.key, max(start.count or 1, fan.shard)
    is_open = begun - sum(index < begun for index in fan.done)
    for first in range(begun, fan.total, fan.shard):
        items = items_from(fan, first)
        if is_open + len(items) > slots:
            return first, True
        if is_late():
            return first, False
        left = len(items) - len(fan.done.intersection(items))
        if left:
            _begin(engine, snapshot, key, items)
        is_open += left
    return fan.total, True


def _begin(engine: Engine, snapshot: Snapshot, key: StepKey, items: range) -> None:
    now = engine.clock.now()
    child = unborn(snapshot.head, key, items, now)
    engine.store.start(child)
    if engine.hints.queue is not None:
        engine.hints.send(child.run, at=now, version=child.version)


def _mended(engine: Engine, snapshot: Snapshot, place: Place, fan: Fan, begun: int) -> Fan:
    """Tell the joins what nobody has told, and begin again the children that are lost, up to the item ``begun``.

    That is: which items are done, and which wait for an answer. Those of a child that was answered do not, though it
    may not have been driven since to say so: a run that fails beside it must not end before the answer is used.

    A child that somebody has canceled or deleted by hand delivers nothing any more: its items have failed. One that
    the run itself has canceled tells that a worker died while it ended the run, or what the foreach lies in: no item
    went on by itself then, and so it ends once more.
    """
    head, store, key = snapshot.head, engine.store, place.key
    known = store.scope(head.run, head.incarnation, Scope(key))
    is_told, at_work = True, frozenset[int]()

    def is_known(first: int) -> bool:
        return (fan.done | fan.parked).issuperset(items_from(fan, first))

    looked_at = sorted((first for first in unfinished(fan) if first < begun), key=is_known)[:MOST_MERGED]
    deeper = MOST_MERGED // max(1, len(looked_at)) if nests(place.node) else 0
    for first in looked_at:
        child = store.peek(child_of(head, key, first))
        if child is None:
            _begin(engine, snapshot, key, items_from(fan, first))
        elif child.waiting_since is not None and not is_known(first):
            is_told &= not _park(engine, child, fan)
        elif child.status is RunStatus.CANCELED and child.canceled_by == ITS_RUN:
            return replace(fan, parked=frozenset(range(fan.total)) - fan.done)
        elif child.status is RunStatus.CANCELED:
            known = {**known, **dict(_given_up(engine, snapshot, key, items_from(fan, first), known))}
        elif _is_at_work(engine, child, deeper):
            at_work |= frozenset(items_from(fan, first))
    untold = [record for record in settled_items(known.values()) if item_number(record.key) not in fan.done]
    for join in store.joins(head.run, head.incarnation, key) if untold else ():
        tell(engine, head.run, join, [record for record in untold if is_of(join, record)])
    if untold or not is_told:
        fan = fan_of(store.joins(head.run, head.incarnation, key))
    return replace(fan, parked=fan.parked - at_work)


def _is_at_work(engine: Engine, child: Head, deeper: int) -> bool:
    """Whether somebody has the child in hand, or is about to; or one of so many of its own."""
    of_its_own = islice(open_children(engine, child), deeper)
    return any(one.status in (RunStatus.QUEUED, RunStatus.RUNNING) for one in chain([child], of_its_own))


def _park(engine: Engine, child: Head, fan: Fan) -> bool:
    """Tell again which items wait for answers: an earlier answer was slower to say that they do not. Whether it was."""
    seen = read_child(engine, engine.graph(child.workflow), child.run)
    if seen is None or child.part is None or seen.head.version != child.version:
        return False
    run, waits = RunRef(child.run.tenant, child.part.run), waits_of(engine, seen, child.part, child.updated_at)
    if waits.asking <= fan.asking and waits.parked <= fan.parked:
        return False
    for join in engine.store.joins(run, child.incarnation, child.part.key):
        tell(engine, run, join, [], waits)
    return True


def _given_up(
    engine: Engine, snapshot: Snapshot, key: StepKey, items: range, known: Mapping[StepKey, StepRecord]
) -> Iterator[tuple[StepKey, StepRecord]]:
    """What becomes of the items of a canceled child: they have failed, unless they were handed in as done before."""
    head, now = snapshot.head, engine.time_of(snapshot)
    start = snapshot.records[key]
    for index in items:
        item = item_of(key, index)
        if item not in known:
            message = f"the run that saw to {dotted(item)!r} was canceled"
            failure = StepFailure(type="ItemCanceled", message=message, step=dotted(item))
            record = StepRecord(key=item, outcome=Outcome.ERR, seq=1, epoch=0, at=now, started_at=now, failure=failure)
            yield item, hand_in(engine, head.run, head.incarnation, record, start)


def _left_waiting(
    engine: Engine, snapshot: Snapshot, start: StepRecord, fan: Fan, last: int
) -> tuple[Fan, list[StepRecord]]:
    """The foreach as it is before it ends early, and the records of the items that it leaves with open suspensions.

    An item that was answered waits no more, though its child may not have been driven since to say so: what is in
    front of the item that decides is looked at once more.
    """
    head, graph = snapshot.head, engine.graph(snapshot.head.workflow)
    waiting = {index for index in fan.parked if index < last}
    left: list[StepRecord] = []
    for first in sorted({index - index % fan.shard for index in waiting}):
        child = read_child(engine, graph, child_of(head, start.key, first))
        if child is None or child.head.part is None:
            continue
        parked = waits_of(engine, child, child.head.part, child.head.updated_at).parked
        items = waiting.intersection(items_from(fan, first))
        if not child.head.is_terminal:
            fan = replace(fan, parked=fan.parked - (items - parked))
        known = (child.records.get(item_of(start.key, index)) for index in sorted(items))
        left += [delivered(record, start) for record in known if record is not None]
    return fan, left


def _with_items(engine: Engine, snapshot: Snapshot, key: StepKey, left: list[StepRecord]) -> Snapshot:
    """The same with the records of all items of a foreach, which can now be left; also of those that will never end."""
    head = snapshot.head
    items = engine.store.scope(head.run, head.incarnation, Scope(key))
    waiting = {record.key: record for record in left}
    folded = fold(head, {**waiting, **snapshot.records, **items}.values())
    return replace(folded, around=snapshot.around, fans=snapshot.fans)
