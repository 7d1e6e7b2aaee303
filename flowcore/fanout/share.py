"""A child's own side: it works among the records of the run it is a part of, and hands in what it has done."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flowcore.authoring.graph import ForeachNode, Graph
from flowcore.core import heads
from flowcore.core.evolve import fold
from flowcore.core.fan import (
    chunk_of,
    decider,
    fan_of,
    first_items,
    is_at_rest,
    is_held,
    is_last_in_front,
    missing,
    shard_of,
    tolerated,
    unfinished,
)
from flowcore.fanout.children import child_id, nests
from flowcore.fanout.joins import NO_WAITS, Waits, hand_in, holding, is_of, items_of, settled_items, tell, waits_of
from flowcore.keys import RunRef, dotted, item_number, item_of
from flowcore.model import Head, Join, Outcome, Part, RunStatus, Snapshot, StepRecord
from flowcore.parcels import replace
from flowcore.ports import Written

if TYPE_CHECKING:
    from flowcore.engine import Engine

_MOST_TRIES = 20
_FIRST_HELD = 2
"""The version at which its first worker holds a child."""
_IDLE = frozenset({RunStatus.JOINING, RunStatus.WAITING, RunStatus.SUSPENDED})


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
    others = {key: replace(record, epoch=0) for key, record in outer.records.items()}
    return replace(fold(snapshot.head, {**others, **snapshot.records}.values()), around=outer.root)


def deliver(engine: Engine, graph: Graph, snapshot: Snapshot, given_back: Head) -> None:
    """Hand in what a child has done so far, and have the run looked at where that may change something for it.

    Called before the child is given back: as long as this has not happened, its head has a ``due``.
    """
    head = snapshot.head
    part = head.part
    if part is None:
        return
    run, start = RunRef(head.run.tenant, part.run), snapshot.records[part.key]
    done = [record for record in settled_items(snapshot.records.values()) if _is_in(part, record)]
    left = _never_done(part, done, snapshot, given_back)
    now = max(given_back.updated_at, head.updated_at)
    told = _told_before(engine, graph, snapshot, part, [*done, *left])
    done = [
        record
        if any(item_number(record.key) in join.done for join in told)
        else hand_in(engine, run, head.incarnation, record, start)
        for record in done
    ]
    # That the run knows an item is done does not say that it has failed: another worker may have brought it to its end.
    done += [hand_in(engine, run, head.incarnation, record, start) for record in left]
    waits = NO_WAITS if given_back.waiting_since is None else waits_of(engine, snapshot, part, now)
    gone = _no_longer(part, done, told, waits) if given_back.status in _IDLE else ()  # only then it tells of all waits
    no_longer = [engine.store.join(run, join, unparked=items) for join, items in gone]
    grown = [
        joined
        for join in _joins_of(part, head.incarnation, start)
        if (joined := tell(engine, run, join, [r for r in done if is_of(join, r)], waits)) is not None
    ]
    wakes = given_back.wake is not None
    if (
        waits.asking
        or no_longer
        or (wakes and engine.hints.queue is None)
        or _calls_for_a_look(engine, graph, snapshot, part, grown)
    ):
        touch(engine, run)


def unpark(engine: Engine, snapshot: Snapshot) -> None:
    """Before a child goes on with answers: its items wait no more, and its run shall show it."""
    part = snapshot.head.part
    if part is None:
        return
    run, records = RunRef(snapshot.head.run.tenant, part.run), snapshot.records.values()
    items = items_of(part, (record.key for record in records if record.outcome is Outcome.RESU))
    for join in _joins_of(part, snapshot.head.incarnation, snapshot.records[part.key]):
        if going_on := {index for index in items if chunk_of(index) == join.chunk}:
            engine.store.join(run, join, unparked=going_on)
    if items:
        touch(engine, run)


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


def _told_before(engine: Engine, graph: Graph, snapshot: Snapshot, part: Part, done: list[StepRecord]) -> list[Join]:
    """What the run may have been told of a child's items when the child was given back before; often nothing.

    An item whose record stands in the run is not written there again: a large value would be stored anew each time. An
    item that waited for an answer may have been brought on by a deadline, or by a child of its own that was answered.
    """
    count = part.stop - part.first
    if _is_untold(snapshot.head) or (count == 1 and done):  # nothing was told before, or nothing that counts
        return []
    own = (record for record in snapshot.records.values() if record.key.startswith(f"{part.key}["))
    has_gone_on = len(done) < count and (nests(graph.find(dotted(part.key))) or any(record.gen for record in own))
    if not done and not has_gone_on:
        return []
    return list(engine.store.joins(RunRef(snapshot.head.run.tenant, part.run), snapshot.head.incarnation, part.key))


def _is_untold(head: Head) -> bool:
    """Whether nobody can have told anything of this child: begun and taken up, nothing else has been written."""
    return head.incarnation == 1 and head.version <= _FIRST_HELD


def _no_longer(
    part: Part, done: list[StepRecord], told: list[Join], waits: Waits
) -> Iterator[tuple[Join, frozenset[int]]]:
    """The items of a child that its run takes to wait for an answer, or for nothing but that, and that do not."""
    under_way = frozenset(range(part.first, part.stop)).difference(item_number(record.key) for record in done)
    for join in told:
        if gone := ((join.asking - waits.asking) | (join.parked - waits.parked)) & under_way:
            yield holding(join, []), gone


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


def _calls_for_a_look(engine: Engine, graph: Graph, snapshot: Snapshot, part: Part, grown: list[Join]) -> bool:
    """Whether the run can go on, must end, or may begin other children, with what was just handed in."""
    start, node = snapshot.records[part.key], graph.find(dotted(part.key))
    if not isinstance(node, ForeachNode):
        return True
    if not grown:  # nothing is done, and nobody is asked; but no worker comes for a child where there is no queue
        return engine.hints.queue is None
    join, head = grown[0], snapshot.head
    run = RunRef(head.run.tenant, part.run)
    stopped = any(not (joined.failed | joined.bailed).isdisjoint(range(part.first, part.stop)) for joined in grown)
    if stopped or any(is_at_rest(joined) or is_last_in_front(joined, part.first) for joined in grown):
        fan = fan_of(engine.store.joins(run, head.incarnation, part.key))
        last = decider(fan, tolerated(node, fan.total))
        if (last is not None and (stopped or not missing(fan, last))) or is_held(fan, missing(fan, None)):
            return True
    if (start.count or 1) >= join.total:
        return False
    lasts = [*first_items(fan_of([join]))[-1:]]
    if head.incarnation > 1:  # items that were done in a former life have no child
        lasts = list(unfinished(fan_of(engine.store.joins(run, head.incarnation, part.key))))[-1:]
    last_children = (child_id(run.id, head.incarnation, part.key, first) for first in lasts)
    return any(engine.store.peek(RunRef(run.tenant, child)) is None for child in last_children)


def _joins_of(part: Part, incarnation: int, start: StepRecord) -> list[Join]:
    """The joins, as names, that a child's items belong to."""
    shard = shard_of(start) or 1
    numbers = range(chunk_of(part.first), chunk_of(part.stop - 1) + 1)
    return [Join(key=part.key, incarnation=incarnation, chunk=n, total=0, shard=shard) for n in numbers]


def _is_in(part: Part, record: StepRecord) -> bool:
    number = item_number(record.key)
    return number is not None and record.key == item_of(part.key, number) and part.first <= number < part.stop
