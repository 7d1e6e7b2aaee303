"""Items as version 1 wrote them: today's code reads them as they were meant, and still writes exactly these.

``items-v1.json`` and what was added to it, in ``items-v1b.json`` and so on, stand for every table out there. A change
that makes this fail needs a new schema version with a file of its own beside these, or a good reason why old items and
old code do not mind. An item of another kind gets into a file of its own, with the next letter: what is
there stays as it is.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from flowcore.adapters.dynamodb_attributes import Attribute, Item, text, value_of
from flowcore.adapters.dynamodb_batch import decode_all, encode_batch
from flowcore.adapters.dynamodb_deliveries import decode_delivery, encode_delivery
from flowcore.adapters.dynamodb_heads import decode_head, decode_summary, encode_head
from flowcore.adapters.dynamodb_joins import decode_join, encode_join
from flowcore.adapters.dynamodb_keys import LIST_INDEX
from flowcore.adapters.dynamodb_mail import decode_sent, encode_listener, encode_sent, mail_of, topic_partition
from flowcore.adapters.dynamodb_notes import decode_note, encode_note
from flowcore.adapters.dynamodb_records import decode_record, encode_record
from flowcore.delivery_log import Delivery
from flowcore.keys import RunRef, Scope, StepKey
from flowcore.model import (
    Alternative,
    Answer,
    Delegation,
    Delta,
    Head,
    Join,
    Lapse,
    Listener,
    Outcome,
    Part,
    Receipt,
    RunStatus,
    RunSummary,
    Sent,
    StepFailure,
    StepRecord,
    Terms,
    Topic,
    Trace,
)
from flowcore.parcels import Parcel, lazily

JOINS = {
    "join fresh": Join(key=StepKey("fan"), incarnation=1, chunk=0, total=3, shard=1),
    "join at work": Join(
        key=StepKey("poll#3/fan"),
        incarnation=2,
        chunk=1,
        total=310,
        shard=4,
        done=frozenset({200, 201, 309}),
        failed=frozenset({201}),
        bailed=frozenset({309}),
        parked=frozenset({204}),
        asking=frozenset({204, 205}),
    ),
}
FILES = sorted(Path(__file__).parent.glob("items-v1*.json"))
GOLDEN = {name: item for path in FILES for name, item in json.loads(path.read_text("utf-8")).items()}
RUN = RunRef("acme", "order-7")
NOW = datetime(2026, 3, 1, 12, 0, 0, 123_000, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
FAILURE = StepFailure(
    type="PaymentRefused",
    message="karte abgelehnt: Grüße",
    properties={"code": 51},
    cause=StepFailure(type="HTTPError", message="402"),
    step="child.pay",
)


def _head(status: RunStatus, **changes: Any) -> Head:
    plain: dict[str, Any] = {"workflow": "refund", "definition": "d-1", "input": {"amount": 120}, "input_hash": "i-1"}
    return Head(**{"run": RUN, "status": status, "created_at": NOW, "updated_at": NOW, **plain, **changes})


def _record(outcome: Outcome, key: str = "pay", **changes: Any) -> StepRecord:
    plain: dict[str, Any] = {"seq": 3, "epoch": 1, "at": LATER, "started_at": NOW}
    return StepRecord(**{"key": StepKey(key), "outcome": outcome, **plain, **changes})


def _parcel(name: str) -> Parcel:
    """Where a large value lies; two of one name are the same value."""
    return Parcel("acme-values", f"t-acme/r-order-7/01jnz6q0000000000000000000-{name * 64}", name * 64, 70_001)


def _nobody(name: str, parcel: Parcel) -> Any:
    raise AssertionError(f"nobody asked for {name}")


HEADS = {
    "head queued": _head(RunStatus.QUEUED, due=LATER),
    "head running": _head(
        RunStatus.RUNNING, version=2, epoch=1, attempts=1, owner="w-1", lease_until=LATER, due=LATER, updated_at=LATER
    ),
    "head waiting": _head(RunStatus.WAITING, version=3, epoch=1, wake=LATER, due=LATER, hops=2, incarnation=2),
    "head suspended": _head(RunStatus.SUSPENDED, version=3, epoch=1),
    "head joining": _head(RunStatus.JOINING, version=3, epoch=1, due=LATER),
    "head paused": _head(RunStatus.PAUSED, version=4, epoch=1, definition="d-2"),
    "head blocked": _head(RunStatus.BLOCKED, version=4, epoch=1, blocked="step 'pay' is gone"),
    "head success": _head(
        RunStatus.SUCCESS,
        version=5,
        epoch=2,
        output=[1, 1.0, 1e308, 10**40, None, True, "🧾"],
        resource_id="customer-1",
        state={"n": 1},
        request_context={"locale": "de"},
        trace=Trace(trace_id="1-5759e988-bd862e3fe1be46a994272793"),
    ),
    "head of a child": _head(
        RunStatus.QUEUED,
        input=None,
        input_hash="",
        due=LATER,
        part=Part(run="order-7", key=StepKey("child/fan"), first=4, stop=6, top="order-7"),
    ),
    "head failed": _head(RunStatus.FAILED, version=5, epoch=2, failure=FAILURE),
    "head canceled": _head(RunStatus.CANCELED, version=5, epoch=2, input=None),
    "head traced and tagged": _head(
        RunStatus.SUSPENDED,
        version=3,
        epoch=1,
        trace=Trace(
            trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
            parent_span_id="00f067aa0ba902b7",
            tags=("eu", "größe=L, rot"),
            metadata={"team": "core"},
            context_keys=("user",),
        ),
        continued=Trace(trace_id="0af7651916cd43dd8448eb211c80319c", tags=("again",)),
        waiting_since=NOW,
        deadline=LATER,
    ),
    "head that expires": _head(RunStatus.SUCCESS, version=5, epoch=2, due=LATER, expires_at=LATER),
    "head redriven": _head(RunStatus.QUEUED, version=7, epoch=3, incarnation=815, effects=1, due=LATER),
    "head that owes hooks": _head(
        RunStatus.FAILED, version=5, epoch=2, failure=FAILURE, due=LATER, outbox=("on_error", "on_finish")
    ),
    "head suspended, that was told of": _head(RunStatus.SUSPENDED, version=4, epoch=2, told_of=7),
    "head canceled, by whom": _head(RunStatus.CANCELED, version=4, epoch=2, started_by="ann", canceled_by="bob"),
    "head with a long input": _head(RunStatus.QUEUED, input="long " * 2_000),
    "head whose values lie elsewhere": lazily(
        _head(RunStatus.SUCCESS, version=5, epoch=2),
        {"input": _parcel("a"), "output": _parcel("b"), "state": _parcel("c"), "request_context": _parcel("d")},
        _nobody,
    ),
}
RECORDS = {
    "record ok": _record(Outcome.OK, output={"id": "ch_1"}, started_at=LATER),
    "record ok, state changed": _record(
        Outcome.OK,
        "fan[7]/pay",
        delta=Delta(state={"n": (7, 2)}, context={"a": (7, None), "b": (7,), "c": (5,)}),
    ),
    "record ok, long": _record(Outcome.OK, "poll#3/pay", output=["long"] * 2_000),
    "record of a side effect": _record(Outcome.OK, "child/pay!receipt#1", output=""),
    "record bail": _record(Outcome.BAIL, output="enough"),
    "record err": _record(Outcome.ERR, failure=FAILURE, attempt=3),
    "record skip": _record(Outcome.SKIP),
    "record susp": _record(Outcome.SUSP, gen=2, payload={"why": "large"}, label="boss", until=LATER),
    "record susp, with terms": _record(
        Outcome.SUSP,
        gen=3,
        began=2,
        until=LATER,
        terms=Terms(
            approvers=("ann", "bob"),
            quorum=2,
            veto="approved",
            lapse=Lapse(({"ok": False},)),
            listens=("approve", "A-17"),
            notify="ask_manager",
            remind=(timedelta(hours=4), timedelta(days=1)),
        ),
        votes=(Answer(wait="pay@2", data={"approved": True}, digest="d-1", at=NOW, by="ann"),),
    ),
    "record susp, for one of two": _record(
        Outcome.SUSP,
        gen=3,
        began=2,
        until=LATER,
        terms=Terms(lapse=Lapse(None)),
        alternatives=(
            Alternative(
                name="board",
                payload={"why": "large"},
                resume="Decision",
                terms=Terms(approvers=("ann", "bob"), quorum=2),
                votes=(Answer(wait="pay@2:board", data={"approved": True}, digest="d-1", at=NOW, by="ann"),),
                delegations=(Delegation(seat="bob", by="bob", to="eve", at=NOW),),
            ),
            Alternative(name="paid", terms=Terms(listens=("order.paid", "A-17"))),
        ),
    ),
    "record susp, delegated": _record(
        Outcome.SUSP,
        gen=4,
        began=2,
        terms=Terms(
            approvers=("ann", "bob"),
            quorum=2,
            allow_self=False,
            notify="ask",
            remind=(timedelta(hours=4),),
            escalate=((1, ("boss",)),),
        ),
        votes=(Answer(wait="pay@2", data=True, digest="d-1", at=NOW, by="eve", on_behalf_of="ann"),),
        delegations=(Delegation(seat="ann", by="ann", to="eve", at=NOW, via="http"),),
    ),
    "record susp, that fails": _record(Outcome.SUSP, until=LATER, terms=Terms(lapse=Lapse(None))),
    "record susp, for an event": _record(Outcome.SUSP, "child/payment", listens=("order.paid", "A#17"), until=LATER),
    "record resu": _record(
        Outcome.RESU,
        gen=3,
        payload={"why": "large"},
        answer=Answer(
            wait="pay@2", data={"ok": True}, digest="d-2", at=LATER, by="ann", via="link", idempotency_key="k-1"
        ),
        spent=(Answer(wait="pay@0", data=None, digest="d-1", at=NOW, idempotency_key="k-0"),),
    ),
    "record resu, timed out": _record(
        Outcome.RESU,
        gen=3,
        answer=Answer(wait="pay@2", data=None, digest="d-0", at=LATER, via="timeout", timed_out=True),
    ),
    "record susp, that another step takes over": _record(
        Outcome.SUSP, until=LATER, terms=Terms(lapse=Lapse(None, step="refuse"))
    ),
    "record resu, taken over": _record(
        Outcome.RESU,
        gen=3,
        instead=("escalate:refuse", 3),
        answer=Answer(wait="pay@2", data=None, digest="d-0", at=LATER, via="timeout", timed_out=True),
    ),
    "record slp": _record(Outcome.SLP, until=LATER),
    "record retry": _record(Outcome.RETRY, gen=1, attempt=2, until=LATER, failure=FAILURE),
    "record start, nested": _record(Outcome.START, "child", opens=Scope("child"), output={"a": 1}),
    "record start, loop": _record(Outcome.START, "poll", gen=2, opens=Scope("poll#3"), count=3, output=0),
    "record start, of a step": _record(Outcome.START, attempt=0),
    "record ok, that lies elsewhere": lazily(
        _record(Outcome.OK), {"output": _parcel("a"), "delta": _parcel("b"), "given": _parcel("c")}, _nobody
    ),
    "record resu, that lies elsewhere": lazily(
        _record(Outcome.RESU, gen=3),
        {"payload": _parcel("a"), "answer": _parcel("b"), "terms": _parcel("c"), "votes": _parcel("d")},
        _nobody,
    ),
    "record start, items": _record(Outcome.START, "child/fan", opens=Scope("child/fan"), count=0, output=[1, 2]),
}

FOLD = (
    _record(Outcome.OK, "a", output={"id": 1.5}, seq=7, started_at=LATER, delta=Delta(state={"n": (7, 2)})),
    _record(Outcome.ERR, "b", failure=FAILURE, attempt=3, seq=8),
    _record(Outcome.SLP, "nap", until=LATER, seq=9),
    _record(Outcome.SKIP, "c", seq=10),
    _record(Outcome.BAIL, "d", gen=2, output=None, label="boss", opens=Scope("d"), count=3, seq=11),
)


RECEIPTS = {
    "receipt delegated": Receipt(
        verdict="delegated", wait="pay@2", at=LATER, by="eve", step="pay", on_behalf_of="ann", to="dan"
    ),
    "receipt stale": Receipt(
        verdict="stale",
        wait="pay@2",
        at=LATER,
        by="ann",
        via="http",
        step="pay",
        idempotency_key="k-1",
        reason="already-resumed",
        winner={"at": "2026-03-01T12:00:00.123+00:00", "by": "bob", "via": "link"},
    ),
    "receipt rejected": Receipt(
        verdict="rejected",
        wait="",
        at=LATER,
        reason="invalid-input",
        errors=({"path": "amount", "message": "Field required"},),
    ),
}

TOPIC = Topic("acme", "order.paid", "A#17")
EVENTS = {
    "event kept": Sent(topic=TOPIC, id="e-1", data={"cents": 5}, digest="d-1", at=NOW, until=LATER),
    "event of a webhook, taken": Sent(
        topic=TOPIC,
        id="stripe:evt_1",
        data=None,
        digest="d-1",
        at=NOW,
        until=LATER,
        taker=("order-7", "child/payment@2"),
    ),
    "event that started a run": Sent(topic=TOPIC, id="e-2", data=None, digest="d-2", at=NOW, until=LATER, starts="o-7"),
}
"""The second is how a copy of a webhook's delivery is known: nobody settles another wait with it."""
LISTENERS = {
    "listener": Listener(topic=TOPIC, run=RUN, wait="child/payment@2", at=NOW),
    "listener with a deadline": Listener(topic=TOPIC, run=RUN, wait="fan[3]/pay@0", at=NOW, until=LATER),
}
DELIVERIES = {
    "delivery": Delivery(
        tenant="acme",
        hook="stripe",
        id="0001",
        delivery_id="evt_1",
        verdict="applied",
        at=NOW,
        event="order.paid",
        key="A#17",
        run_id="order-7",
        wait="child/payment@2",
        body={"amount": 1.0},
        headers={"x-github-event": "push"},
    ),
    "delivery that nobody understood": Delivery(
        tenant="acme", hook="stripe", id="0002", delivery_id="evt_2", verdict="rejected", at=NOW, reason="no JSON"
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_are_read_as_they_were_meant(name: str) -> None:
    """Every field."""
    assert HEADS[name] == decode_head(_item(name))


@pytest.mark.parametrize("name", RECORDS)
def test_records_are_read_as_they_were_meant(name: str) -> None:
    """Every field."""
    assert RECORDS[name] == decode_record(_item(name))


def test_a_fold_is_read_as_it_was_meant() -> None:
    """Several outcomes in one item, every field of each."""
    assert list(FOLD) == list(decode_all([_item("fold")]))


def test_the_same_fold_is_still_written() -> None:
    """Attribute by attribute."""
    ((item, first, prior),) = encode_batch(RUN, 2, [(record, None) for record in FOLD], "token")
    assert (_item("fold"), FOLD[0], None) == (item, first, prior)


@pytest.mark.parametrize("name", RECEIPTS)
def test_receipts_are_read_as_they_were_meant(name: str) -> None:
    """Every field."""
    assert RECEIPTS[name] == decode_note(_item(name))


@pytest.mark.parametrize("name", EVENTS)
def test_events_are_read_as_they_were_meant(name: str) -> None:
    """Every field, and where they lie."""
    assert EVENTS[name] == decode_sent(TOPIC, _item(name))
    assert text(topic_partition(TOPIC)) == _item(name)["pk"]


@pytest.mark.parametrize("name", LISTENERS)
def test_listeners_are_read_as_they_were_meant(name: str) -> None:
    """Every field, and where they lie."""
    assert (LISTENERS[name],) == mail_of(TOPIC, [_item(name)], NOW).listeners
    assert text(topic_partition(TOPIC)) == _item(name)["pk"]


@pytest.mark.parametrize("name", DELIVERIES)
def test_deliveries_are_read_as_they_were_meant(name: str) -> None:
    """Every field."""
    assert DELIVERIES[name] == decode_delivery(_item(name))


@pytest.mark.parametrize("name", [*HEADS, *RECORDS, *RECEIPTS, *JOINS, *EVENTS, *LISTENERS, *DELIVERIES])
def test_the_same_items_are_still_written(name: str) -> None:
    """Attribute by attribute; a compressed payload by what is in it, as compressors may differ."""
    assert {key: _opened(value) for key, value in _item(name).items()} == {
        key: _opened(value) for key, value in _written(name).items()
    }


@pytest.mark.parametrize("name", JOINS)
def test_joins_are_read_as_they_were_meant(name: str) -> None:
    """Every field."""
    assert JOINS[name] == decode_join(_item(name))


def test_a_summary_is_read_from_what_the_list_index_copies() -> None:
    """Keys and what the index copies are enough."""
    copied = {LIST_INDEX.partition, LIST_INDEX.sort, *LIST_INDEX.copied}
    entry = {name: value for name, value in _item("head success").items() if name in copied}
    expected = RunSummary(
        run_id="order-7", workflow_id="refund", status="success", created_at=NOW, resource_id="customer-1"
    )
    assert expected == decode_summary(entry)
    waits = decode_summary({name: value for name, value in _item("head traced and tagged").items() if name in copied})
    assert (("eu", "größe=L, rot"), NOW, LATER) == (waits.tags, waits.waiting_since, waits.deadline)


def test_every_status_and_outcome_is_there() -> None:
    """And nothing in the file is left unread."""
    assert set(RunStatus) == {head.status for head in HEADS.values()}
    assert set(Outcome) == {record.outcome for record in RECORDS.values()}
    there = (HEADS, RECORDS, RECEIPTS, JOINS, EVENTS, LISTENERS, DELIVERIES, ["fold"])
    assert sorted(name for path in FILES for name in json.loads(path.read_text("utf-8"))) == sorted(chain(*there))


def _item(name: str) -> Item:
    return {key: {"B": base64.b64decode(value["B"])} if "B" in value else value for key, value in GOLDEN[name].items()}


def _written(name: str) -> Item:
    if name in HEADS:
        return encode_head(HEADS[name], "token")
    if name in JOINS:
        return encode_join("T#acme#R#order-7", JOINS[name], "token", 1)
    if name in EVENTS:
        return encode_sent(EVENTS[name], "token", 1)
    if name in LISTENERS:
        return encode_listener(LISTENERS[name], 1)
    if name in DELIVERIES:
        return encode_delivery(DELIVERIES[name], LATER)
    if name in RECEIPTS:
        return encode_note(NOW, "r017", "0f3a", RECEIPTS[name], "token", 1)
    return encode_record(RUN, 2, RECORDS[name], "token")


def _opened(attribute: Attribute) -> Any:
    return ("compressed", value_of(attribute)) if "B" in attribute else attribute
