"""Events on their way to the waits that they settle: one event settles one wait, or is kept for one that comes later.

Who waits listens first and commits that it waits; before its run is parked, it looks what has come. Who sends keeps the
event first and then looks again who listens. So whatever the order, and whoever dies in between, one of the two sees
the other. What settles a wait is the same transaction as any answer, with the event in it: it is taken once.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from flowcore import receipts
from flowcore.core.admit import Resume, is_past, open_waits
from flowcore.core.alternatives import each
from flowcore.core.evolve import fold
from flowcore.errors import (
    BlobLost,
    CapacityError,
    ConflictError,
    DefinitionChanged,
    EventNotFound,
    IdempotencyKeyReused,
    InvalidPayload,
    RequestError,
    RunExists,
    RunNotFound,
    WorkflowNotFound,
)
from flowcore.fanout.children import child_at
from flowcore.fanout.share import touch
from flowcore.keys import RunRef, StepKey, dotted, is_run_id
from flowcore.model import (
    EventReceipt,
    Head,
    Listener,
    Outcome,
    Receipt,
    Sent,
    Snapshot,
    StepRecord,
    Topic,
    wait_id,
    wait_number,
    wait_place,
)

if TYPE_CHECKING:
    from flowcore.engine import Engine
    from flowcore.ports import Store

_LOGGER = logging.getLogger("flowcore.mailbox")

_MOST_TRIES = 20
"""Times the mail of a topic is read anew because it moved; each time another wait or event had been faster."""


class EventGone(Exception):
    """The event has settled another wait meanwhile. Never leaves this library."""


def send(
    engine: Engine, sent: Sent, first: Head | None = None, *, here: bool, deadline: datetime | None = None
) -> EventReceipt:
    """Settle the oldest wait that listens, or keep the event for one that comes.

    Args:
        first: of a run to be started together with the event, if nobody listens and there is none of its id.
        here: drive the run that was settled or started in this process; otherwise a worker is asked to.
    Raises: IdempotencyKeyReused; InvalidPayload or CapacityError when the data fits none of the waits that are open.
    """
    tried: set[str] = set()
    began: str | None = None
    came = sent.at  # by which the store judges, too, whether an event of this id is still kept
    for _ in range(_MOST_TRIES):
        # Who listens is read after the event: where it is kept already, whoever has looked for it in vain is found.
        mail = engine.store.mail(sent.topic, came, event_id=sent.id)
        standing = next(iter(mail.events), None)
        if standing is not None:
            if standing.digest != sent.digest:
                raise IdempotencyKeyReused(sent.id)
            if standing.taker is not None:
                return _told(engine, standing, began)
            sent = standing
        try:
            is_kept = standing is not None
            settled, misfit = _offered(
                engine, mail.listeners, sent, tried, is_kept=is_kept, here=here, deadline=deadline
            )
            if settled is not None:
                return settled if began is None else _of_started(sent.id, began, (settled.run_id, settled.wait))
            if standing is None and misfit is not None:
                raise misfit
            if first is not None and began is None and sent.starts is None:
                together = None if standing is not None else replace(sent, starts=first.run.id)
                if _starts(engine, first, together, here=here, deadline=deadline):
                    began = first.run.id
                    continue  # somebody may have begun to listen since the mail was read
        except EventGone:
            continue
        if standing is not None:
            return _told(engine, standing, began)
        engine.store.keep(sent)
        tried.clear()  # a wait may have opened since, whose worker looked for mail just before this was kept
    raise ConflictError(f"Event {sent.id!r} met others {_MOST_TRIES} times while it was being sent. Send it again.")


def look_back(engine: Engine, snapshot: Snapshot, at: Container[StepKey] | None = None) -> bool:
    """Take what has come for the open waits of a run that this worker is about to park; whether anything has moved.

    Args:
        at: only for waits there.
    """
    return any(_taken_for(engine, snapshot, listener) for listener in _listening(snapshot, at))


def stop_listening(store: Store, canceled: Head) -> None:
    """Nobody listens any more for a run that was canceled. Costs a read of the run, and a write for each listener."""
    loaded = store.load(canceled.run, canceled)
    if loaded is None:
        return
    snapshot = fold(loaded[0], loaded[1].values())
    for record in snapshot.records.values():
        for listener in listeners_of(snapshot.head, record):
            store.unlisten(listener)


def listeners_of(head: Head, record: StepRecord) -> list[Listener]:
    """Who listens while ``record`` stands in the run: nobody where it waits for no event."""
    if record.outcome is not Outcome.SUSP:
        return []
    run = head.run if head.part is None else RunRef(head.run.tenant, head.part.top)
    return [
        Listener(
            topic=Topic(head.run.tenant, *one.topic),
            run=run,
            wait=wait_id(one, head.incarnation),
            at=record.at,
            until=record.until,
        )
        for one in each(record)
        if one.topic is not None
    ]


def _listening(snapshot: Snapshot, at: Container[StepKey] | None) -> Iterator[Listener]:
    for record in open_waits(snapshot):
        if at is None or record.key in at:
            yield from listeners_of(snapshot.head, record)


def _taken_for(engine: Engine, snapshot: Snapshot, listener: Listener) -> bool:
    """Whether the wait has moved: by the oldest event that fits, or by somebody else meanwhile."""
    for sent in engine.store.mail(listener.topic, engine.time_of(snapshot), listeners=False).events:
        if sent.taker is not None:
            continue
        try:
            _settle(engine, listener, sent, run=snapshot.head.run, here=False)
        except EventGone:
            continue
        except (InvalidPayload, CapacityError) as error:
            seen = {"run_id": listener.run.id, "wait": listener.wait, "event_id": sent.id, "code": error.code}
            _LOGGER.warning("an event that does not fit its wait is passed over", extra=seen)
            continue
        except RequestError:
            head = engine.store.peek(snapshot.head.run)
            if head is not None and head.version == snapshot.head.version:
                continue  # it may never answer this wait; whoever parks the run must not look again for ever
        return True
    return False


def _offered(
    engine: Engine,
    listeners: tuple[Listener, ...],
    sent: Sent,
    tried: set[str],
    *,
    is_kept: bool,
    here: bool,
    deadline: datetime | None,
) -> tuple[EventReceipt | None, InvalidPayload | CapacityError | None]:
    """The receipt of the oldest wait that took the event; else why the oldest one that is open did not.

    Raises: EventGone.
    """
    misfit: tuple[Listener, InvalidPayload | CapacityError] | None = None
    for listener in listeners:
        place = f"{listener.run.id}#{listener.wait}"
        if place in tried:
            continue
        try:
            if _settles(engine, listener, sent, is_kept=is_kept, here=here, deadline=deadline):
                run_id, wait = listener.run.id, listener.wait
                return EventReceipt(event_id=sent.id, verdict="applied", run_id=run_id, wait=wait), None
        except (InvalidPayload, CapacityError) as error:
            misfit = misfit or (listener, error)
        tried.add(place)
    if misfit is None:
        return None, None
    receipts.refuse(engine, misfit[0].run, _answer(misfit[0], sent), misfit[1])
    return None, misfit[1]


def _starts(engine: Engine, first: Head, sent: Sent | None, *, here: bool, deadline: datetime | None) -> bool:
    """Whether the run was started, together with ``sent`` unless that is kept already. Raises: EventGone."""
    standing = engine.store.peek(first.run)
    if standing is not None and not standing.is_expired(engine.clock.now()):
        return False
    try:
        return engine.start(first, here=here, deadline=deadline, sent=sent)[1]
    except RunExists:
        return False  # another event was faster


def _settles(
    engine: Engine, listener: Listener, sent: Sent, *, is_kept: bool, here: bool, deadline: datetime | None
) -> bool:
    """Whether the wait took the event; a listener whose wait is over is removed.

    Where the code at hand does not fit the run, and the event is kept, a worker looks at the run: it takes the event,
    or says by what the run is blocked. Otherwise nobody would look again once the code is mended.

    Raises: InvalidPayload, CapacityError where it is too large beside what stands there, EventGone.
    """
    try:
        _settle(engine, listener, sent, here=here, deadline=deadline)
    except InvalidPayload:
        raise
    except (DefinitionChanged, WorkflowNotFound, BlobLost):
        if is_kept:
            _have_looked_at(engine, listener)
        return False
    except RequestError:
        if _is_over(engine, listener):
            engine.store.unlisten(listener)
        return False
    return True


def _settle(
    engine: Engine,
    listener: Listener,
    sent: Sent,
    *,
    run: RunRef | None = None,
    here: bool,
    deadline: datetime | None = None,
) -> None:
    taken = replace(sent, taker=(listener.run.id, listener.wait))
    resume = _answer(listener, sent)
    engine.resume(run or listener.run, sent.data, resume, here=here, deadline=deadline, taken=taken)


def _answer(listener: Listener, sent: Sent) -> Resume:
    topic = listener.topic
    return Resume(wait=listener.wait, listens=(topic.event, topic.key), digest=sent.digest, via="event")


def _have_looked_at(engine: Engine, listener: Listener) -> None:
    """By a worker, never here, where the code is known not to fit. Where there is no queue the sweeper finds one."""
    try:
        run = _holder(engine, listener).head.run
    except RunNotFound:
        return
    except BlobLost:
        run = listener.run
    touch(engine, run)


def _holder(engine: Engine, listener: Listener) -> Snapshot:
    """The run that the wait is in: the one that listens, or a child of it. Raises: RunNotFound."""
    key, _ = wait_place(listener.wait)
    snapshot = engine.as_it_stands(listener.run, everything=False)
    while (child := child_at(snapshot, key)) is not None:
        snapshot = engine.as_it_stands(child, everything=False)
    return snapshot


def _is_over(engine: Engine, listener: Listener) -> bool:
    """Whether the wait will never be open (again): only then may nobody listen for it any more.

    A wait that has no record yet may be about to get one: its worker listens before it commits. Until then there may
    stand at its place what was before it: an earlier suspension and its answer, a try that failed, or that the step has
    begun. So does who begins a new life of the run listen before its head tells of that, and in it before there are
    children. What is around the wait must go on, though: the records inside what is over are not read, and a child
    whose run needs it no more has ended or will. Another worker may have listened for the same wait at another instant:
    it is the same listener.
    """
    key, incarnation = wait_place(listener.wait)
    try:
        snapshot = engine.as_it_stands(listener.run, everything=False)
        if incarnation > snapshot.head.incarnation:
            return False
        while not _is_closed(snapshot, key, incarnation) and (child := child_at(snapshot, key)) is not None:
            if engine.store.peek(child) is None:
                return False
            snapshot = engine.as_it_stands(child, everything=False)
    except RunNotFound:
        return True
    if _is_closed(snapshot, key, incarnation):
        return True
    record = snapshot.records.get(key)
    if record is None or (not record.is_settled and record.gen < int(wait_number(listener.wait))):
        return False
    return not any((o.topic, o.wait) == (listener.topic, listener.wait) for o in listeners_of(snapshot.head, record))


def _is_closed(snapshot: Snapshot, key: StepKey, incarnation: int) -> bool:
    """Whether nothing at the place, in that life, can happen any more in a run or child."""
    head = snapshot.head
    return head.is_terminal or incarnation != head.incarnation or is_past(snapshot, key)


def _told(engine: Engine, standing: Sent, began: str | None) -> EventReceipt:
    """What became of an event that stands there; ``began``: of the run that this very call has started."""
    if began is not None:
        return _of_started(standing.id, began, standing.taker)
    taker = standing.taker or (None if standing.starts is None else (standing.starts, None))
    if taker is None:
        return EventReceipt(event_id=standing.id, verdict="buffered")
    run_id, wait = taker
    head = engine.store.peek(RunRef(standing.topic.tenant, run_id))
    if head is not None:
        engine.hint_again(head)  # the first sender may have died before its hint
        if wait is not None:
            _repeat(engine, head, standing, wait)
    return EventReceipt(event_id=standing.id, verdict="duplicate", run_id=run_id, wait=wait)


def _repeat(engine: Engine, head: Head, standing: Sent, wait: str) -> None:
    """A copy of an event is a copy of the answer that it was."""
    first = Receipt(verdict="duplicate", wait=wait, at=standing.at, step=dotted(wait_place(wait)[0]))
    copy = Resume(wait=wait, idempotency_key=standing.id, digest=standing.digest, via="event")
    receipts.repeat(engine, head, copy, first)


def receipt_of(engine: Engine, topic: Topic, event_id: str) -> EventReceipt:
    """What has become of an event. Raises: EventNotFound."""
    if not is_run_id(event_id):  # nor can it be asked for: an id may be too long for a key of the table
        raise EventNotFound(topic.event, topic.key, event_id)
    mail = engine.store.mail(topic, engine.clock.now(), event_id=event_id, listeners=False)
    if not mail.events:
        raise EventNotFound(topic.event, topic.key, event_id)
    (sent,) = mail.events
    run_id, wait = sent.taker or (sent.starts, None)
    verdict: Literal["applied", "started", "buffered"] = "buffered"
    if run_id is not None:
        verdict = "started" if wait is None else "applied"
    return EventReceipt(event_id=event_id, verdict=verdict, run_id=run_id, wait=wait, at=sent.at, until=sent.until)


def _of_started(id: str, began: str, taker: tuple[str | None, str | None] | None) -> EventReceipt:
    run_id, wait = taker or (None, None)
    return EventReceipt(event_id=id, verdict="started", run_id=began, wait=wait if run_id == began else None)
