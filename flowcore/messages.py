"""Messages of the resume queue: what somebody who put one there has meant. Pure; nothing is looked up here.

An answer or an event as plain JSON, either of them as a CloudEvent, or what a bus has sent for itself. A notification
of SNS is opened first, whatever is in it. Nothing is guessed: a word that is not known, or one too many, is refused.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from flowcore.codec import digest
from flowcore.errors import MalformedRequest
from flowcore.keys import LONGEST_NAME, event_mistake, is_name, is_run_id, key_mistake
from flowcore.model import Json
from flowcore.strict import parsed

RESUME_TYPE = "dev.flowcore.resume"
"""The ``type`` of a CloudEvent that is an answer."""
EVENT_TYPE = "dev.flowcore.event"
"""The ``type`` of a CloudEvent that is an event for whoever waits for it."""

_RESUME = frozenset({"run_id", "data", "step", "label", "wait", "index", "idempotency_key", "by", "tenant"})
_EVENT = frozenset({"event", "key", "data", "id", "tenant"})
_MOST_WRAPS = 3
"""Notifications inside each other: a topic that is told by a bus, and one to spare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeMessage:
    """An answer to a suspension. At most one of ``step``, ``label`` and ``wait`` says to which."""

    tenant: str | None = None
    """None: that of whoever takes the message."""
    run_id: str
    data: Json = None
    step: str | None = None
    label: str | None = None
    wait: str | None = None
    index: int | None = None
    idempotency_key: str
    """The sender's own, else the name of the message: a copy of it is the same answer."""
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventMessage:
    """An event for whoever waits for it."""

    tenant: str | None = None
    name: str
    key: str
    data: Json = None
    id: str
    """The sender's own, else the name of the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BusMessage:
    """Something that was not written for us: the sources of the App say what it means."""

    id: str
    body: Json


Message: TypeAlias = ResumeMessage | EventMessage | BusMessage


def opened(body: str, name: str) -> Message:
    """What a message of the queue means.

    Args:
        name: the queue's own for the message; used where its sender has given none that outlives a second sending.
    Raises: MalformedRequest, which says what is wrong with it and quotes none of its data.
    """
    value = parsed(body)
    for _ in range(_MOST_WRAPS):
        if not _is_notification(value):
            break
        name = _text(value, "MessageId", is_name, "a name") or name
        value = _json_or_text(value["Message"])
    if not isinstance(value, dict):
        return BusMessage(id=name, body=value)
    if "specversion" in value:
        return _of_cloud_event(value)
    if "run_id" in value:
        return _resume(value, name)
    if "event" in value and "key" in value:
        return _event(value, name)
    return BusMessage(id=_id_on_the_bus(value) or name, body=value)


def _of_cloud_event(value: dict[str, Any]) -> Message:
    """A CloudEvent 1.0 in structured mode. ``subject`` may say which run, or which key, is meant.

    ``id`` and ``source`` name it together: each source has ids of its own.

    Source: CloudEvents 1.0.2, "Required Attributes"; JSON Event Format 1.0.2, section 3.1, "Handling of data".
    """
    id = _text(value, "id", is_name, f"text of 1 to {LONGEST_NAME} characters")
    faults = [f"{name} is missing" for name in ("id", "source", "type") if not isinstance(value.get(name), str)]
    if value["specversion"] != "1.0":
        faults.append(f"specversion is {value['specversion']!r} and not '1.0'")
    if id is None or faults:
        raise MalformedRequest("This is no CloudEvent: " + "; ".join(faults or ["id is missing"]))
    id = _of_source(id, value["source"])
    if value["type"] not in (RESUME_TYPE, EVENT_TYPE):
        return BusMessage(id=id, body=value)
    data, subject = _data_of(value), value.get("subject")
    if not isinstance(data, dict):
        raise MalformedRequest(f"The data of a {value['type']!r} is an object; this one has {_kind(data)}.")
    if value["type"] == RESUME_TYPE:
        return _resume(_named(data, "run_id", subject), id)
    return _event(_named(data, "key", subject), id)


def _of_source(id: str, source: str) -> str:
    """What only this event of this source is called."""
    name = f"{id}@{digest(source)[:16]}"
    return name if is_name(name) else digest([source, id])


def _data_of(event: Mapping[str, Any]) -> Json:
    encoded = event.get("data_base64")
    if encoded is None:
        return event.get("data")
    try:
        return parsed(base64.b64decode(encoded, validate=True))
    except (TypeError, ValueError):
        raise MalformedRequest("The data_base64 of the CloudEvent is no JSON in base64.") from None


def _named(data: dict[str, Any], name: str, subject: Any) -> dict[str, Any]:
    """The data with what the subject says, where it does not say it itself."""
    if subject is None or data.get(name, subject) == subject:
        return data if subject is None else {**data, name: subject}
    raise MalformedRequest(f"The subject of the CloudEvent is not the {name} in its data; give one of them.")


def _resume(value: dict[str, Any], name: str) -> ResumeMessage:
    _refuse_strangers(value, _RESUME, "An answer")
    run_id = _text(value, "run_id", is_run_id, "the id of a run")
    if run_id is None:
        raise MalformedRequest("An answer says which run it is for: run_id is missing.")
    places = {place: _text(value, place, is_name, "a name") for place in ("step", "label", "wait")}
    if sum(found is not None for found in places.values()) > 1:
        raise MalformedRequest("An answer says with one of step, label and wait which suspension it is for.")
    index = value.get("index")
    if index is not None and (isinstance(index, bool) or not isinstance(index, int) or index < 0):
        raise MalformedRequest("The index of an answer is a whole number from 0.")
    return ResumeMessage(
        tenant=_text(value, "tenant", is_run_id, "a tenant"),
        run_id=run_id,
        data=value.get("data"),
        index=index,
        idempotency_key=_text(value, "idempotency_key", is_name, "a name") or name,
        by=_text(value, "by", is_name, "a name"),
        **places,
    )


def _event(value: dict[str, Any], name: str) -> EventMessage:
    _refuse_strangers(value, _EVENT, "An event")
    event, key = value.get("event"), value.get("key")
    mistake = event_mistake(event) or key_mistake(key)
    if mistake is not None or not isinstance(event, str) or not isinstance(key, str):
        raise MalformedRequest(mistake or "")
    return EventMessage(
        tenant=_text(value, "tenant", is_run_id, "a tenant"),
        name=event,
        key=key,
        data=value.get("data"),
        id=_text(value, "id", is_name, "a name") or name,
    )


def _refuse_strangers(value: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    strangers = sorted(set(value) - set(known))
    if strangers:
        raise MalformedRequest(f"{what} has no {strangers[0]!r}; it may have {', '.join(sorted(known))}.")


def _text(value: Mapping[str, Any], name: str, fits: Callable[[object], bool], what: str) -> str | None:
    found = value.get(name)
    if found is None or (isinstance(found, str) and fits(found)):
        return found
    raise MalformedRequest(f"{name} is {_kind(found)} and not {what}.")


def _id_on_the_bus(value: Mapping[str, Any]) -> str | None:
    """What EventBridge calls its event. In any other object ``id`` may as well name what it is about."""
    id = value.get("id")
    return id if is_name(id) and {"detail-type", "source", "detail"} <= value.keys() else None


def _is_notification(value: Json) -> bool:
    return isinstance(value, dict) and value.get("Type") == "Notification" and isinstance(value.get("Message"), str)


def _json_or_text(text: str) -> Json:
    """What a topic was told: JSON, or a text of any kind, which a source may still make something of."""
    try:
        return parsed(text)
    except MalformedRequest:
        return text


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
