"""How events and those who wait for them lie in the table: one partition per topic, both kinds beside each other.

Partition key ``T#<tenant>#E#<name>#<key>``. In it ``L#<run>#<wait>`` for each wait that listens, and ``V#<id>`` for
each event that was sent: a sender asks for all of the one kind and one of the other, a waiter the other way round. None
of these items is found by an index; each event, and each listener with a deadline, carries a ``ttl``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from flowcore.adapters.dynamodb_attributes import (
    ITEM_LIMIT,
    Attribute,
    Item,
    instant,
    instant_of,
    item_size,
    number,
    payload,
    text,
    value_of,
)
from flowcore.core.heads import later
from flowcore.errors import PayloadTooLarge
from flowcore.keys import RunRef
from flowcore.model import Listener, Mail, Sent, Topic

_KEPT_AFTER_DEADLINE = timedelta(days=7)
"""A wait may be settled long after its deadline, when no worker came; until then its event must find it."""
LISTENERS, EVENTS = "L#", "V#"
"""How the sort keys of the two kinds begin."""


def topic_partition(topic: Topic) -> str:
    """The partition key of a topic; names hold no ``#``, so the key, which may, begins behind the fourth."""
    return f"T#{topic.tenant}#E#{topic.event}#{topic.key}"


def listener_key(listener: Listener) -> Item:
    """The primary key of a listener."""
    return {"pk": text(topic_partition(listener.topic)), "sk": text(f"{LISTENERS}{listener.run.id}#{listener.wait}")}


def taker_key(taken: Sent) -> Item:
    """The primary key of the listener that an event has settled."""
    assert taken.taker is not None
    run_id, wait = taken.taker
    return {"pk": text(topic_partition(taken.topic)), "sk": text(f"{LISTENERS}{run_id}#{wait}")}


def event_key(topic: Topic, id: str) -> Item:
    """The primary key of an event."""
    return {"pk": text(topic_partition(topic)), "sk": text(f"{EVENTS}{id}")}


def encode_listener(listener: Listener, schema: int) -> Item:
    """A listener as an item."""
    item = {**listener_key(listener), "v": number(schema), "at": instant(listener.at)}
    if listener.until is not None:
        item |= {"u": instant(listener.until), "ttl": _ttl(later(listener.until, _KEPT_AFTER_DEADLINE))}
    return item


def encode_sent(sent: Sent, token: str, schema: int) -> Item:
    """An event as an item; one that was taken lies in the run that took it, and its data is not kept twice.

    Raises:
        InvalidPayload, PayloadTooLarge: see ``payload``.
    """
    subject = f"Event {sent.topic.event!r} of key {sent.topic.key!r}"
    item = {
        **event_key(sent.topic, sent.id),
        "v": number(schema),
        "h": text(sent.digest),
        "at": instant(sent.at),
        "u": instant(sent.until),
        "ttl": _ttl(sent.until),
        "lc": text(token),
    }
    if sent.starts is not None:
        item["sr"] = text(sent.starts)
    if sent.taker is not None:
        return item | {"tk": payload(subject, list(sent.taker))}
    item["in"] = payload(subject, sent.data)
    if (size := item_size(item)) > ITEM_LIMIT:
        raise PayloadTooLarge(subject, size, ITEM_LIMIT)
    return item


def decode_sent(topic: Topic, item: Mapping[str, Attribute]) -> Sent:
    """The event that an item holds."""
    taker = value_of(item["tk"]) if "tk" in item else None
    return Sent(
        topic=topic,
        id=item["sk"]["S"].removeprefix(EVENTS),
        data=value_of(item["in"]) if "in" in item else None,
        digest=item["h"]["S"],
        at=instant_of(item["at"]),
        until=instant_of(item["u"]),
        taker=None if taker is None else (taker[0], taker[1]),
        starts=item["sr"]["S"] if "sr" in item else None,
    )


def mail_of(topic: Topic, items: Iterable[Mapping[str, Attribute]], now: datetime) -> Mail:
    """What a topic's items say, the oldest first; an event that is no longer kept is gone, deleted yet or not."""
    listeners, events = [], []
    for item in items:
        sort_key = item["sk"]["S"]
        if sort_key.startswith(LISTENERS):
            run_id, wait = sort_key.removeprefix(LISTENERS).split("#", 1)
            until = instant_of(item["u"]) if "u" in item else None
            run = RunRef(topic.tenant, run_id)
            listeners.append(Listener(topic=topic, run=run, wait=wait, at=instant_of(item["at"]), until=until))
        elif (sent := decode_sent(topic, item)).until > now:
            events.append(sent)
    return Mail(
        listeners=tuple(sorted(listeners, key=lambda listener: (listener.at, listener.run.id, listener.wait))),
        events=tuple(sorted(events, key=lambda sent: (sent.at, sent.id))),
    )


def _ttl(instant_: datetime) -> Attribute:
    """DynamoDB's TTL counts whole seconds; rounded up, so that nothing goes early."""
    return number(-(-int(instant_.astimezone(UTC).timestamp() * 1000) // 1000))
