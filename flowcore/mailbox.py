"""Events on their way to the waits that they settle: one event settles one wait, or is kept for one that comes later.

Who waits listens first and commits that it waits; before its run is parked, it looks what has come. Who sends keeps the
event first and then looks again who listens. So whatever the order, and whoever dies in between, one of the two sees
the other. What settles a wait is the same transaction as any answer, with the event in it: it is taken once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from flowcore.core.admit import Resume, open_waits
from flowcore.core.evolve import fold
from flowcore.errors import (
    ConflictError,
    DefinitionChanged,
    IdempotencyKeyReused,
    InvalidPayload,
    RequestError,
    WorkflowNotFound,
)
from flowcore.keys import RunRef
from flowcore.model import EventReceipt, Listener, Outcome, Sent, Snapshot, StepRecord, Topic, wait_id, wait_place

if TYPE_CHECKING:
    from flowcore.engine import Engine

_LOGGER = logging.getLogger("flowcore.mailbox")

_MOST_TRIES = 20
"""Times the mail of a topic is read anew because it moved; each time another wait or event had been faster."""


class EventGone(Exception):
    """The event has settled another wait meanwhile. Never leaves this library."""


def send(engine: Engine, sent: Sent, *, here: bool, deadline: datetime | None = None) -> EventReceipt:
    """Settle the oldest wait that listens, or keep the event for one that comes.

    Args:
        here: drive the run that was settled in this process; otherwise a worker is asked to.
    Raises: IdempotencyKeyReused; InvalidPayload when the data fits none of the waits that are open.
    """
    tried: set[str] = set()
    for _ in range(_MOST_TRIES):
        mail = engine.store.mail(sent.topic, engine.clock.now())
        standing = next((event for event in mail.events if event.id == sent.id), None)
        if standing is not None:
            if standing.digest != sent.digest:
                raise IdempotencyKeyReused(sent.id)
            if standing.taker is not None:
                return _sent_before(engine, standing)
            sent = standing
        misfit: InvalidPayload | None = None
        try:
            for listener in mail.listeners:
                place = f"{listener.run.id}#{listener.wait}"
                if place in tried:
                    continue
                try:
                    if _settles(engine, listener, sent, here=here, deadline=deadline):
                        return EventReceipt(
                            event_id=sent.id, verdict="applied", run_id=listener.run.id, wait=listener.wait
                        )
                except InvalidPayload as error:
                    misfit = misfit or error
                tried.add(place)
        except EventGone:
            continue
        if standing is not None:
            return EventReceipt(event_id=sent.id, verdict="buffered")
        if misfit is not None:
            raise misfit
        engine.store.keep(sent)
    raise ConflictError(f"Event {sent.id!r} met others {_MOST_TRIES} times while it was being sent. Send it again.")


def look_back(engine: Engine, snapshot: Snapshot) -> bool:
    """Take what has come for the open waits of a run that this worker is about to park; whether anything has moved."""
    return any(_taken_for(engine, snapshot, listener) for listener in _listening(snapshot))


def listener_of(snapshot: Snapshot, record: StepRecord) -> Listener | None:
    """Who listens when ``record`` stands in the run; None when it waits for no event."""
    if record.outcome is not Outcome.SUSP or record.topic is None:
        return None
    head = snapshot.head
    topic = Topic(head.run.tenant, *record.topic)
    wait = wait_id(record, head.incarnation)
    run = head.run if head.part is None else RunRef(head.run.tenant, head.part.top)
    return Listener(topic=topic, run=run, wait=wait, at=record.at, until=record.until)


def _listening(snapshot: Snapshot) -> Iterator[Listener]:
    for record in open_waits(snapshot):
        listener = listener_of(snapshot, record)
        if listener is not None:
            yield listener


def _taken_for(engine: Engine, snapshot: Snapshot, listener: Listener) -> bool:
    """Whether the wait has moved: by the oldest event that fits, or by somebody else meanwhile."""
    for sent in engine.store.mail(listener.topic, engine.time_of(snapshot)).events:
        if sent.taker is not None:
            continue
        try:
            _settle(engine, listener, sent, run=snapshot.head.run, here=False)
        except EventGone:
            continue
        except InvalidPayload as error:
            seen = {"run_id": listener.run.id, "wait": listener.wait, "event_id": sent.id, "rows": len(error.errors)}
            _LOGGER.warning("an event that does not fit its wait is passed over", extra=seen)
            continue
        except RequestError:
            head = engine.store.peek(snapshot.head.run)
            if head is not None and head.version == snapshot.head.version:
                continue  # it may never answer this wait; whoever parks the run must not look again for ever
        return True
    return False


def _settles(engine: Engine, listener: Listener, sent: Sent, *, here: bool, deadline: datetime | None) -> bool:
    """Whether the wait took the event; a listener whose wait is over is removed.

    Raises: InvalidPayload, EventGone.
    """
    try:
        _settle(engine, listener, sent, here=here, deadline=deadline)
    except InvalidPayload:
        raise
    except (DefinitionChanged, WorkflowNotFound):
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
    topic = listener.topic
    resume = Resume(wait=listener.wait, listens=(topic.event, topic.key), digest=sent.digest, via="event")
    taken = replace(sent, taker=(listener.run.id, listener.wait))
    engine.resume(run or listener.run, sent.data, resume, here=here, deadline=deadline, taken=taken)


def _is_over(engine: Engine, listener: Listener) -> bool:
    """Whether the wait will never be open (again): only then may nobody listen for it any more.

    A wait that has no record yet may be about to get one: its worker listens before it commits.
    """
    loaded = engine.store.load(listener.run)
    if loaded is None:
        return True
    snapshot = fold(loaded[0], loaded[1].values())
    key, incarnation = wait_place(listener.wait)
    if snapshot.head.is_terminal or incarnation != snapshot.head.incarnation:
        return True
    record = snapshot.records.get(key)
    return record is not None and listener_of(snapshot, record) != listener


def _sent_before(engine: Engine, standing: Sent) -> EventReceipt:
    """The first sender may have died before its hint."""
    assert standing.taker is not None
    run_id, wait = standing.taker
    head = engine.store.peek(RunRef(standing.topic.tenant, run_id))
    if head is not None:
        engine.hint_again(head)
    return EventReceipt(event_id=standing.id, verdict="duplicate", run_id=run_id, wait=wait)
