"""What a message of the resume queue means, row by row; and what is said of one that means nothing."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from flowcore.codec import digest
from flowcore.errors import MalformedRequest
from flowcore.keys import is_name
from flowcore.messages import BusMessage, EventMessage, Message, ResumeMessage, opened

OF_SHOP = f"ce-1@{digest('/shop')[:16]}"
ANSWER = {"run_id": "r-1", "data": {"approved": True}, "step": "approve", "index": 2, "by": "ada"}
EVENT = {"event": "order.paid", "key": "A-1", "data": {"cents": 5}, "tenant": "acme"}
BRIDGE: dict[str, Any] = {
    "version": "0",
    "id": "7bf73129-1428-4cd3-a780-95db273d1602",
    "detail-type": "Order Paid",
    "source": "shop.orders",
    "detail": {"order": "A-1"},
}


def cloud(type: str, data: Any, **more: Any) -> dict[str, Any]:
    """A CloudEvent in structured mode."""
    return {"specversion": "1.0", "id": "ce-1", "source": "/shop", "type": type, "data": data, **more}


def notified(message: str) -> dict[str, Any]:
    """What SNS puts into a queue."""
    return {"Type": "Notification", "MessageId": "sns-1", "TopicArn": "arn:aws:sns:x:1:t", "Message": message}


def answer(**changes: Any) -> ResumeMessage:
    """What ``ANSWER`` means, but for the changes."""
    fields: dict[str, Any] = {**ANSWER, "idempotency_key": "m-1", **changes}
    return ResumeMessage(**fields)


PAID = EventMessage(tenant="acme", name="order.paid", key="A-1", data={"cents": 5}, id="m-1")
UNDERSTOOD: dict[str, tuple[Any, Message]] = {
    "an answer": (ANSWER, answer()),
    "an answer with a key of its own": ({**ANSWER, "idempotency_key": "k"}, answer(idempotency_key="k")),
    "an answer without data": ({"run_id": "r"}, ResumeMessage(run_id="r", idempotency_key="m-1")),
    "an event": (EVENT, PAID),
    "an event with an id": (
        {**EVENT, "id": "e"},
        EventMessage(tenant="acme", name="order.paid", key="A-1", data={"cents": 5}, id="e"),
    ),
    "an answer as a CloudEvent": (cloud("dev.flowcore.resume", ANSWER), answer(idempotency_key=OF_SHOP)),
    "its subject is the run": (
        cloud("dev.flowcore.resume", {"data": 1}, subject="r-9"),
        ResumeMessage(run_id="r-9", data=1, idempotency_key=OF_SHOP),
    ),
    "an event as a CloudEvent": (
        cloud("dev.flowcore.event", {"event": "paid", "data": 1}, subject="A-1"),
        EventMessage(name="paid", key="A-1", data=1, id=OF_SHOP),
    ),
    "its data in base64": (
        {
            **cloud("dev.flowcore.event", None),
            "data_base64": base64.b64encode(json.dumps({"event": "paid", "key": "k"}).encode()).decode(),
        },
        EventMessage(name="paid", key="k", id=OF_SHOP),
    ),
    "an answer that a topic was told": (notified(json.dumps(ANSWER)), answer(idempotency_key="sns-1")),
    "a notification in a notification": (
        notified(json.dumps(notified(json.dumps(ANSWER)))),
        answer(idempotency_key="sns-1"),
    ),
    "an event of EventBridge": (BRIDGE, BusMessage(id=BRIDGE["id"], body=BRIDGE)),
    "the same over a topic": (notified(json.dumps(BRIDGE)), BusMessage(id=BRIDGE["id"], body=BRIDGE)),
    "text that a topic was told": (notified("hello"), BusMessage(id="sns-1", body="hello")),
    "somebody else's CloudEvent": (cloud("shop.paid", 1), BusMessage(id=OF_SHOP, body=cloud("shop.paid", 1))),
    "anything": ({"x": 1}, BusMessage(id="m-1", body={"x": 1})),
    "anything that has an id": ({"id": "order-1"}, BusMessage(id="m-1", body={"id": "order-1"})),
    "a list": ([1], BusMessage(id="m-1", body=[1])),
}


@pytest.mark.parametrize(("value", "meant"), UNDERSTOOD.values(), ids=UNDERSTOOD)
def test_message_means_what_its_form_says(value: Any, meant: Message) -> None:
    """Plain JSON, CloudEvents 1.0, SNS and EventBridge; its name is the sender's, else the queue's."""
    assert meant == opened(json.dumps(value), "m-1")


NONSENSE: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "not JSON"),
    "empty": ("", "not JSON"),
    "deep": ("[" * 100_000, "nested"),
    "two run ids": ('{"run_id": "a", "run_id": "b"}', "run_id"),
    "a number that is none": ('{"run_id": "a", "data": NaN}', "NaN"),
    "a word too many": ({**ANSWER, "stepp": "x"}, "'stepp'"),
    "a run of a number": ({"run_id": 7}, "run_id is a int"),
    "a key instead of a run": ({"run_id": "r#HEAD"}, "the id of a run"),
    "a tenant with separators": ({**ANSWER, "tenant": "a#b"}, "a tenant"),
    "two places": ({**ANSWER, "label": "x"}, "one of step, label and wait"),
    "a negative index": ({**ANSWER, "index": -1}, "whole number"),
    "an index that is none": ({**ANSWER, "index": True}, "whole number"),
    "an empty name": ({**ANSWER, "by": ""}, "by is a str"),
    "an event that cannot be one": ({**EVENT, "event": "#"}, "cannot name an event"),
    "a key that cannot be one": ({**EVENT, "key": ""}, "cannot be the key"),
    "a CloudEvent without an id": ({**cloud("x", 1), "id": None}, "id is missing"),
    "a CloudEvent of a later form": ({**cloud("x", 1), "specversion": "2.0"}, "specversion"),
    "a CloudEvent without a source": ({**cloud("x", 1), "source": 1}, "source is missing"),
    "a CloudEvent with nothing in it": (cloud("dev.flowcore.resume", None), "is an object"),
    "a CloudEvent that names no run": (cloud("dev.flowcore.resume", {}), "run_id is missing"),
    "a CloudEvent about two runs": (cloud("dev.flowcore.resume", ANSWER, subject="r-2"), "subject"),
    "base64 that is none": ({**cloud("dev.flowcore.event", None), "data_base64": "!"}, "base64"),
}


@pytest.mark.parametrize(("value", "complaint"), NONSENSE.values(), ids=NONSENSE)
def test_message_that_means_nothing_is_refused_with_the_reason(value: Any, complaint: str) -> None:
    """Nothing is guessed: it will be set aside, for a person to read."""
    with pytest.raises(MalformedRequest, match=complaint):
        opened(value if isinstance(value, str) else json.dumps(value), "m-1")


def test_cloud_events_of_two_sources_are_two_though_their_ids_are_one() -> None:
    """Each source counts for itself."""
    sent = [cloud("dev.flowcore.event", EVENT, id=id, source=source) for id in ("1", "x" * 1_000) for source in "ab"]
    found = [opened(json.dumps(each), "m-1") for each in sent]
    ids = [message.id for message in found if isinstance(message, EventMessage)]
    assert 4 == len(set(ids))
    assert all(map(is_name, ids))
