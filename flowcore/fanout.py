"""The children of a distributed foreach: begun, counted home, canceled and removed together with the run they are of.

A child is a run of its own that sees to some items of another run's foreach. It works on that run's workflow, under the
keys the items have there, and its records lie in its own partition. When an item is done, whoever drives the child
writes the item's record into the run, once; then tells the join, a set, so that telling twice changes nothing; then,
where that may end the foreach, has somebody look at the run. Only then the child is given back. Whoever dies in
between has left the child's head with a ``due``, and the next one does all of it again.

The run itself, whenever it is looked at, names the same children again and begins those that are missing.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import TYPE_CHECKING

from flowcore.authoring.graph import ForeachNode, Graph, NestedNode
from flowcore.codec import digest
from flowcore.core import heads
from flowcore.core.actions import Gather, Place
from flowcore.core.admit import is_abandoned, open_waits
from flowcore.core.evolve import fold
from flowcore.core.fan import (
    chunk_of,
    chunks,
    decider,
    delivered,
    fan_of,
    fans_of,
    first_items,
    is_at_rest,
    is_held,
    is_last_in_front,
    items_from,
    missing,
    open_fans,
    shard_of,
    tolerated,
    unfinished,
)
from flowcore.keys import RunRef, Scope, StepKey, dotted, item_number, item_of, items_around
from flowcore.model import Fan, Head, Join, Outcome, Part, RunStatus, Snapshot, StepFailure, StepRecord
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
MOST_MERGED = 100
"""Children of one foreach that are read to show a whole run; of more, what they have handed in is shown."""
_ITS_RUN = ""
"""Who has canceled a child that its run needs no more; nobody else has an empty name."""
_MOST_TRIES = 20
_IDLE = frozenset({RunStatus.JOINING, RunStatus.WAITING, RunStatus.SUSPENDED})


# -- the run that has children ----------------------------------------------------------------------------------------


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
        before = _begun_up_to(engine, head, key, fan)
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
        _cancel_children(engine, head, key, fan, behind=last, nested=_nests(node))
    if not missing(fan, last):
        snapshot = _with_items(engine, snapshot, key, left)
    elif engine.hints.queue is None:
        children = [_child(head, key, first) for first in unfinished(fan)]
        standing = [store.peek(child) for child in children]
        wakes = [child.wake for child in standing if child is not None and child.wake is not None]
        fan = replace(fan, wake=min(wakes, default=None))
    snapshot = replace(snapshot, fans={**snapshot.fans, key: fan})
    return Gathered(snapshot, tuple(children), is_complete)


def patience(snapshot: Snapshot, now: datetime) -> timedelta:
    """How long a run that waits for its children need not look at them: they tell it when there is something to do."""
    began = max((start.started_at for start in open_fans(snapshot)), default=now)
    return min(max(PATIENCE, now - began), LONGEST_PATIENCE)


def close(engine: Engine, graph: Graph, snapshot: Snapshot, key: StepKey | None) -> None:
    """Cancel the children of every foreach at or inside ``key`` that is about to end; None: of the whole run."""
    for start in open_fans(snapshot):
        part = snapshot.head.part
        if part is not None and not start.key.startswith(f"{part.key}["):
            continue
        if key is None or start.key == key or start.key.startswith((f"{key}/", f"{key}[", f"{key}#")):
            joins = engine.store.joins(snapshot.head.run, snapshot.head.incarnation, start.key)
            if joins:
                fan, nests = fan_of(joins), _nests(graph.find(dotted(start.key)))
                _cancel_children(engine, snapshot.head, start.key, fan, nested=nests)


def waits_in_children(engine: Engine, snapshot: Snapshot, *, is_late: Callable[[], bool]) -> list[StepRecord]:
    """The open suspensions in the children of a run that is about to be parked: listings of waits are told of them.

    Where there is no time to read every child that asks: those in the first ones, in one at least.
    """
    if not any(fan.asking for fan in snapshot.fans.values()):
        return []
    graph = engine.graph(snapshot.head.workflow)
    merged = whole(engine, graph, snapshot, everything=False, is_late=is_late)
    return [record for record in open_waits(merged) if record.key not in snapshot.records]


def cancel_children(engine: Engine, head: Head) -> None:
    """Cancel every child of this life of a run that has ended."""
    graph = engine.graphs.get(head.workflow)
    for key, fan in fans_of(engine.store.joins(head.run, head.incarnation)).items():
        nested = graph is None or _nests(graph.find(dotted(key)))
        _cancel_children(engine, head, key, fan, nested=nested)


def open_children(engine: Engine, head: Head) -> Iterator[Head]:
    """The children of this life of a run that have not ended, and theirs; one read for each that has not delivered."""
    graph = engine.graphs.get(head.workflow)
    for key, fan in fans_of(engine.store.joins(head.run, head.incarnation)).items():
        nested = graph is None or _nests(graph.find(dotted(key)))
        for first in unfinished(fan):
            child = engine.store.peek(_child(head, key, first))
            if child is None or child.is_terminal:
                continue  # it will be begun, or its items given up, when the run is looked at
            yield child
            if nested:
                yield from open_children(engine, child)


def put_off(child: Head, now: datetime) -> Head:
    """A child whose run an operator has stopped looks again after a while, if nobody has it look before."""
    return heads.parked(child, now, RunStatus.WAITING, now + PATIENCE)


def take_up_children(engine: Engine, head: Head, *, here: bool, deadline: datetime | None) -> int:
    """Have the children of a run that stand still, or were put off, go on here or by workers; how many there were."""
    graph, count = engine.graphs.get(head.workflow), 0
    if graph is not None and not graph.fans_out:
        return 0
    for child in open_children(engine, head):
        is_put_off = child.status is RunStatus.WAITING and child.wake == child.updated_at + PATIENCE
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


def delete_children(engine: Engine, head: Head) -> None:
    """Remove every child that any life of a run has had, for good; those of a later run of its id are left alone."""
    for join in engine.store.joins(head.run):
        if join.chunk == 0:
            for first in range(0, join.total, join.shard):
                run = RunRef(head.run.tenant, child_id(head.run.id, join.incarnation, join.key, first))
                child = engine.store.peek(run)
                if child is not None and child.created_at == head.created_at:  # which is that of its run
                    delete_children(engine, child)
                    engine.store.delete(run)


def child_id(run_id: str, incarnation: int, key: StepKey, first: int) -> str:
    """The id of the child that sees to the items from ``first``: whoever begins it again, begins the same one."""
    return f"part-{digest([run_id, incarnation, key, first])}"


def _child(head: Head, key: StepKey, first: int) -> RunRef:
    return RunRef(head.run.tenant, child_id(head.run.id, head.incarnation, key, first))


def _joined(engine: Engine, head: Head, start: StepRecord, total: int) -> Fan:
    """The foreach as its joins tell; those that are missing are put, with what a former life has done."""
    store, shard = engine.store, shard_of(start)
    assert shard is not None  # whoever asks has seen the record of an open distributed foreach
    joins = store.joins(head.run, head.incarnation, start.key)
    wanted = chunks(start.key, head.incarnation, total, shard)
    if len(joins) < len(wanted):
        known = list(_settled(store.scope(head.run, head.incarnation, Scope(start.key)).values()))
        for join in wanted:
            store.open_join(head.run, _told(join, [record for record in known if _is_of(join, record)]))
        joins = store.joins(head.run, head.incarnation, start.key)
    return fan_of(joins)


def _begin_missing(
    engine: Engine, snapshot: Snapshot, start: StepRecord, fan: Fan, begun: int, is_late: Callable[[], bool]
) -> tuple[int, bool]:
    """Begin children in order, as many as may be open; up to which item they are begun, and whether that is all."""
    key, slots = start.key, max(start.count or 1, fan.shard)
    for first in range(begun, fan.total, fan.shard):
        items = items_from(fan, first)
        is_open = first - sum(index < first for index in fan.done)
        if is_open + len(items) > slots:
            return first, True
        if is_late():
            return first, False
        if not fan.done.issuperset(items):
            _begin(engine, snapshot, key, items)
    return fan.total, True


def _begun_up_to(engine: Engine, head: Head, key: StepKey, fan: Fan) -> int:
    """Up to which item there are children: they are begun in order, so a few looks tell.

    Items that are done may never have had one: a former life has seen to them.
    """
    left = list(unfinished(fan))

    def is_missing(number: int) -> bool:
        return engine.store.peek(_child(head, key, left[number])) is None

    if not left or not is_missing(len(left) - 1):
        return fan.total
    return left[bisect_left(range(len(left) - 1), x=True, key=is_missing)]


def _begin(engine: Engine, snapshot: Snapshot, key: StepKey, items: range) -> None:
    head, now = snapshot.head, engine.clock.now()
    top = head.run.id if head.part is None else head.part.top
    child = Head(
        run=_child(head, key, items.start),
        workflow=head.workflow,
        definition=head.definition,
        input=None,
        input_hash="",
        status=RunStatus.QUEUED,
        created_at=head.created_at,  # links to its waits are made for the run, which is told by that
        updated_at=now,
        incarnation=head.incarnation,
        started_by=head.started_by,
        due=now + QUEUE_GRACE,
        part=Part(run=head.run.id, key=key, first=items.start, stop=items.stop, top=top),
    )
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
    deeper = MOST_MERGED // max(1, len(looked_at)) if _nests(place.node) else 0
    for first in looked_at:
        child = store.peek(_child(head, key, first))
        if child is None:
            _begin(engine, snapshot, key, items_from(fan, first))
        elif child.waiting_since is not None and not is_known(first):
            is_told &= not _park(engine, child, fan)
        elif child.status is RunStatus.CANCELED and child.canceled_by == _ITS_RUN:
            return replace(fan, parked=frozenset(range(fan.total)) - fan.done)
        elif child.status is RunStatus.CANCELED:
            known = {**known, **dict(_given_up(engine, snapshot, key, items_from(fan, first), known))}
        elif _is_at_work(engine, child, deeper):
            at_work |= frozenset(items_from(fan, first))
    untold = [record for record in _settled(known.values()) if item_number(record.key) not in fan.done]
    for join in store.joins(head.run, head.incarnation, key) if untold else ():
        _tell(engine, head.run, join, [record for record in untold if _is_of(join, record)])
    if untold or not is_told:
        fan = fan_of(store.joins(head.run, head.incarnation, key))
    return replace(fan, parked=fan.parked - at_work)


def _is_at_work(engine: Engine, child: Head, deeper: int) -> bool:
    """Whether somebody has the child in hand, or is about to; or one of so many of its own."""
    of_its_own = islice(open_children(engine, child), deeper)
    return any(one.status in (RunStatus.QUEUED, RunStatus.RUNNING) for one in chain([child], of_its_own))


def _park(engine: Engine, child: Head, fan: Fan) -> bool:
    """Tell again which items wait for answers: an earlier answer was slower to say that they do not. Whether it was."""
    seen = _seen(engine, engine.graph(child.workflow), child.run)
    if seen is None or child.part is None or seen.head.version != child.version:
        return False
    run, waits = RunRef(child.run.tenant, child.part.run), _waits_of(engine, seen, child.part, child.updated_at)
    if waits.asking <= fan.asking and waits.parked <= fan.parked:
        return False
    for join in engine.store.joins(run, child.incarnation, child.part.key):
        _tell(engine, run, join, [], waits)
    return True


def _given_up(
    engine: Engine, snapshot: Snapshot, key: StepKey, items: range, known: Mapping[StepKey, StepRecord]
) -> Iterator[tuple[StepKey, StepRecord]]:
    head, now = snapshot.head, engine.time_of(snapshot)
    start = snapshot.records[key]
    for index in items:
        item = item_of(key, index)
        if item not in known:
            message = f"the run that saw to {dotted(item)!r} was canceled"
            failure = StepFailure(type="ItemCanceled", message=message, step=dotted(item))
            record = StepRecord(key=item, outcome=Outcome.ERR, seq=1, epoch=0, at=now, started_at=now, failure=failure)
            engine.store.commit(head.run, head.incarnation, delivered(record, start), None)
            yield item, record


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
        child = _seen(engine, graph, _child(head, start.key, first))
        if child is None or child.head.part is None:
            continue
        parked = _waits_of(engine, child, child.head.part, child.head.updated_at).parked
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


def _cancel_children(
    engine: Engine, head: Head, key: StepKey, fan: Fan, *, behind: int = -1, nested: bool = False
) -> None:
    """Cancel the children all of whose items lie behind an item; those never begun are in order behind the others."""
    now = engine.clock.now()
    for first in unfinished(fan):
        if first > behind:
            canceled = engine.store.cancel(_child(head, key, first), now=now, by=_ITS_RUN)
            if canceled is None:
                return
            if nested:
                cancel_children(engine, canceled)


def _nests(node: object) -> bool:
    """Whether an item of the foreach may have children of its own."""
    return isinstance(node, ForeachNode) and isinstance(node.body, NestedNode) and node.body.graph.fans_out


# -- a child ----------------------------------------------------------------------------------------------------------


def within(engine: Engine, snapshot: Snapshot, *, everything: bool = False) -> Snapshot | None:
    """A child's records among those of the run it is a part of; None if that has no use for it any more."""
    part = snapshot.head.part
    if part is None:
        return snapshot
    loaded = engine.store.load(RunRef(snapshot.head.run.tenant, part.run), everything=everything)
    if loaded is None:
        return None
    outer = within(engine, fold(loaded[0], loaded[1].values()), everything=everything)
    if outer is None or outer.head.is_terminal or outer.head.incarnation != snapshot.head.incarnation:
        return None
    start = outer.records.get(part.key)
    if start is None or shard_of(start) is None:
        return None
    # Which of that run's workers wrote what says nothing about how this one fares.
    others = {key: replace(record, epoch=0) for key, record in {**outer.records, **_brought(engine, snapshot)}.items()}
    return replace(fold(snapshot.head, {**others, **snapshot.records}.values()), around=outer.root)


def _brought(engine: Engine, snapshot: Snapshot) -> dict[StepKey, StepRecord]:
    """What a former life of the run has done in a child's items, if this is not the first one."""
    head, part = snapshot.head, snapshot.head.part
    found: dict[StepKey, StepRecord] = {}
    if part is not None and head.incarnation > 1:
        run, items = RunRef(head.run.tenant, part.run), [item_of(part.key, n) for n in range(part.first, part.stop)]
        for scope in (part.key, *items):
            found |= engine.store.scope(run, head.incarnation, Scope(scope))
        own = tuple(f"{item}{mark}" for item in items for mark in "/!")
        found = {key: record for key, record in found.items() if record.is_settled and key.startswith(own)}
    return found


def deliver(engine: Engine, graph: Graph, snapshot: Snapshot, given_back: Head) -> None:
    """Hand in what a child has done so far, and have the run looked at where that may change something for it.

    Called before the child is given back: as long as this has not happened, its head has a ``due``.
    """
    head = snapshot.head
    part = head.part
    if part is None:
        return
    run, start = RunRef(head.run.tenant, part.run), snapshot.records[part.key]
    done = [record for record in _settled(snapshot.records.values()) if _is_in(part, record)]
    done += _never_done(part, done, snapshot, given_back)
    now = max(given_back.updated_at, head.updated_at)
    told = _told_before(engine, graph, snapshot, part, done)
    for record in done:
        if not any(item_number(record.key) in join.done for join in told):
            engine.store.commit(run, head.incarnation, delivered(record, start), None)
    waits = _NO_WAITS if given_back.waiting_since is None else _waits_of(engine, snapshot, part, now)
    gone = _no_longer(part, done, told, waits) if given_back.status in _IDLE else ()  # only then it tells of all waits
    no_longer = [engine.store.join(run, join, unparked=items) for join, items in gone]
    grown = [
        joined
        for join in _joins_of(part, head.incarnation, start)
        if (joined := _tell(engine, run, join, [r for r in done if _is_of(join, r)], waits)) is not None
    ]
    wakes = given_back.wake is not None
    if (
        waits.asking
        or no_longer
        or (wakes and engine.hints.queue is None)
        or _calls_for_a_look(engine, graph, snapshot, part, grown)
    ):
        touch(engine, run)


def _told_before(engine: Engine, graph: Graph, snapshot: Snapshot, part: Part, done: list[StepRecord]) -> list[Join]:
    """What the run may have been told of a child's items when the child was given back before; often nothing.

    An item whose record stands in the run is not written there again: a large value would be stored anew each time. An
    item that waited for an answer may have been brought on by a deadline, or by a child of its own that was answered.
    """
    count = part.stop - part.first
    if snapshot.head.epoch == 1 or (count == 1 and done):  # nothing was told before, or nothing that counts
        return []
    own = (record for record in snapshot.records.values() if record.key.startswith(f"{part.key}["))
    has_gone_on = len(done) < count and (_nests(graph.find(dotted(part.key))) or any(record.gen for record in own))
    if not done and not has_gone_on:
        return []
    return list(engine.store.joins(RunRef(snapshot.head.run.tenant, part.run), snapshot.head.incarnation, part.key))


def _no_longer(
    part: Part, done: list[StepRecord], told: list[Join], waits: _Waits
) -> Iterator[tuple[Join, frozenset[int]]]:
    """The items of a child that its run takes to wait for an answer, or for nothing but that, and that do not."""
    under_way = frozenset(range(part.first, part.stop)).difference(item_number(record.key) for record in done)
    for join in told:
        if gone := ((join.asking - waits.asking) | (join.parked - waits.parked)) & under_way:
            yield _told(join, []), gone


def _never_done(part: Part, done: list[StepRecord], snapshot: Snapshot, given_back: Head) -> list[StepRecord]:
    """What becomes of the items that a child which has failed as a whole leaves behind: they have failed with it."""
    if given_back.status is not RunStatus.FAILED:
        return []
    known, now = {record.key for record in done}, given_back.updated_at
    left = [item for index in range(part.first, part.stop) if (item := item_of(part.key, index)) not in known]
    failure = given_back.failure
    if failure is not None and failure.step is None:
        failure = dataclasses.replace(failure, step=dotted(part.key))
    return [
        StepRecord(
            key=item,
            outcome=Outcome.ERR,
            seq=snapshot.last_seq + 1,
            epoch=snapshot.head.epoch,
            at=now,
            started_at=now,
            failure=failure,
        )
        for item in left
    ]


def touch(engine: Engine, run: RunRef) -> None:
    """Have a run looked at whose children have brought something about; whoever drives it now will see it, too."""
    for _ in range(_MOST_TRIES):
        head = engine.store.peek(run)
        if head is None or head.status not in (*_IDLE, RunStatus.RUNNING):
            return
        moved = heads.queued(head, max(engine.clock.now(), head.updated_at))
        if isinstance(engine.store.move(moved, version=head.version), Written):
            if moved.status is RunStatus.QUEUED:
                engine.hints.send(run, at=engine.clock.now(), version=moved.version)
            return


def unpark(engine: Engine, snapshot: Snapshot) -> None:
    """Before a child goes on with answers: its items wait no more, and its run shall show it."""
    part = snapshot.head.part
    if part is None:
        return
    run, records = RunRef(snapshot.head.run.tenant, part.run), snapshot.records.values()
    items = _items_of(part, (record.key for record in records if record.outcome is Outcome.RESU))
    for join in _joins_of(part, snapshot.head.incarnation, snapshot.records[part.key]):
        if going_on := {index for index in items if chunk_of(index) == join.chunk}:
            engine.store.join(run, join, unparked=going_on)
    if items:
        touch(engine, run)


def _calls_for_a_look(engine: Engine, graph: Graph, snapshot: Snapshot, part: Part, grown: list[Join]) -> bool:
    """Whether the run can go on, must end, or may begin other children, with what was just handed in."""
    start, node = snapshot.records[part.key], graph.find(dotted(part.key))
    if not isinstance(node, ForeachNode):
        return True
    if not grown:  # nothing is done, and nobody is asked; but no worker comes for a child where there is no queue
        return engine.hints.queue is None
    join, head = grown[0], snapshot.head
    stopped = any(not (joined.failed | joined.bailed).isdisjoint(range(part.first, part.stop)) for joined in grown)
    if stopped or any(is_at_rest(joined) or is_last_in_front(joined, part.first) for joined in grown):
        run = RunRef(head.run.tenant, part.run)
        fan = fan_of(engine.store.joins(run, head.incarnation, part.key))
        last = decider(fan, tolerated(node, fan.total))
        if (last is not None and (stopped or not missing(fan, last))) or is_held(fan, missing(fan, None)):
            return True
    if (start.count or 1) >= join.total:
        return False
    last_child = child_id(part.run, head.incarnation, part.key, first_items(fan_of([join]))[-1])
    return engine.store.peek(RunRef(head.run.tenant, last_child)) is None


@dataclass(frozen=True, slots=True)
class _Waits:
    """Items in which somebody must answer; and those of them in which nothing moves by itself."""

    asking: frozenset[int]
    parked: frozenset[int]


_NO_WAITS = _Waits(frozenset(), frozenset())


def _waits_of(engine: Engine, snapshot: Snapshot, part: Part, now: datetime) -> _Waits:
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
    asking = _items_of(part, [*(record.key for record in open_waits(snapshot)), *deeper])
    return _Waits(asking, asking - _items_of(part, moving))


def _is_moving(engine: Engine, snapshot: Snapshot, key: StepKey) -> bool:
    """Whether an open foreach of a child's own goes on by itself: not all of its children wait for answers."""
    fan = snapshot.fans.get(key)
    if fan is None or is_abandoned(snapshot, key):
        return False
    awaited = missing(fan, None)
    if fan.begun is None and not is_held(fan, awaited):
        fan = replace(fan, begun=_begun_up_to(engine, snapshot.head, key, fan))
    return not awaited or not is_held(fan, awaited)


def _items_of(part: Part, keys: Iterable[StepKey]) -> frozenset[int]:
    return frozenset(index for place in keys for key, index in items_around(place) if key == part.key)


def _joins_of(part: Part, incarnation: int, start: StepRecord) -> list[Join]:
    """The joins, as names, that a child's items belong to."""
    shard = shard_of(start) or 1
    numbers = range(chunk_of(part.first), chunk_of(part.stop - 1) + 1)
    return [Join(key=part.key, incarnation=incarnation, chunk=n, total=0, shard=shard) for n in numbers]


# -- the joins --------------------------------------------------------------------------------------------------------


def _tell(engine: Engine, run: RunRef, join: Join, done: list[StepRecord], waits: _Waits = _NO_WAITS) -> Join | None:
    """Add to a join what is durable. A set: told twice, or by two workers, it is the same."""
    asking, parked = (
        frozenset(index for index in items if chunk_of(index) == join.chunk) for items in (waits.asking, waits.parked)
    )
    if not done and not asking:
        return None
    return engine.store.join(run, replace(_told(join, done), asking=asking, parked=parked))


def _told(join: Join, records: list[StepRecord]) -> Join:
    """A join with just these items in its sets."""

    def items(*outcomes: Outcome) -> frozenset[int]:
        numbers = (item_number(record.key) for record in records if record.outcome in outcomes)
        return frozenset(number for number in numbers if number is not None)

    every = items(Outcome.OK, Outcome.SKIP, Outcome.ERR, Outcome.BAIL)
    return replace(
        join, done=every, failed=items(Outcome.ERR), bailed=items(Outcome.BAIL), asking=frozenset(), parked=frozenset()
    )


def _settled(records: Iterable[StepRecord]) -> Iterator[StepRecord]:
    """The records of items that are done."""
    return (record for record in records if record.is_settled and item_number(record.key) is not None)


def _is_of(join: Join, record: StepRecord) -> bool:
    return chunk_of(item_number(record.key) or 0) == join.chunk


def _is_in(part: Part, record: StepRecord) -> bool:
    number = item_number(record.key)
    return number is not None and record.key == item_of(part.key, number) and part.first <= number < part.stop


# -- the whole --------------------------------------------------------------------------------------------------------


def whole(
    engine: Engine,
    graph: Graph,
    snapshot: Snapshot,
    *,
    everything: bool,
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
        nests = isinstance(node, ForeachNode) and isinstance(node.body, NestedNode)
        has_failed = start is not None and start.outcome is Outcome.ERR
        few = everything and -(-fan.total // fan.shard) <= MOST_MERGED
        for first in first_items(fan):
            items = items_from(fan, first)
            waits = is_open and not fan.asking.isdisjoint(items)
            works = few and (nests or has_failed or not fan.done.issuperset(items))
            if (waits or works) and not (records and is_late()):
                records |= _of_child(engine, graph, _child(head, key, first), everything=everything)
    merged = replace(fold(head, {**records, **snapshot.records}.values()), around=snapshot.around, fans=fans)
    if head.status is RunStatus.SUSPENDED and fans and not open_waits(merged):
        return merged.with_head(replace(head, status=RunStatus.JOINING))  # a child was answered a moment ago
    return merged


def child_at(snapshot: Snapshot, key: StepKey) -> RunRef | None:
    """The child that sees to the place ``key``; None when the run itself does."""
    head = snapshot.head
    for foreach, index in items_around(key):
        start = snapshot.records.get(foreach)
        if head.part is not None and not foreach.startswith(f"{head.part.key}["):
            continue  # whose child this is
        if start is not None and (shard := shard_of(start)) is not None:
            return _child(head, foreach, index - index % shard)
    return None


def _of_child(engine: Engine, graph: Graph, child: RunRef, *, everything: bool) -> dict[StepKey, StepRecord]:
    snapshot = _seen(engine, graph, child, everything=everything)
    return {} if snapshot is None else dict(snapshot.records)


def _seen(engine: Engine, graph: Graph, child: RunRef, *, everything: bool = False) -> Snapshot | None:
    """A child as it stands by itself, with what its own children know."""
    loaded = engine.store.load(child, everything=everything)
    if loaded is None:
        return None
    snapshot = fold(loaded[0], loaded[1].values())
    key = snapshot.head.part.key if snapshot.head.part is not None else StepKey("")
    if _nests(graph.find(dotted(key))):
        snapshot = whole(engine, graph, snapshot, everything=everything)
    return snapshot
