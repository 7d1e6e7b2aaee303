"""A message that has been taken in may be acknowledged: it was done, or refused with a receipt; else it comes again."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from flowcore import App, StepContext, step, workflow
from flowcore.adapters.memory import MemoryStore
from flowcore.buses import Source
from flowcore.deliveries import Webhook
from flowcore.errors import (
    DeliveryNotFound,
    FlowcoreError,
    MalformedRequest,
    RunNotFound,
    SettingsError,
    StoreUnavailable,
    WebhookNotFound,
)
from flowcore.http.hooks import hooks
from flowcore.intake import receive
from flowcore.model import EventReceipt, Receipt
from flowcore.testing import FaultyStore, LocalApp
from flowcore.testing.faults import Call, Fault
from flowcore.webhooks import StandardWebhooks
from tests.unit.web import Web


class Decision(BaseModel):
    """What is answered."""

    approved: bool


class Paid(BaseModel):
    """What an order waits for."""

    cents: int


@step
def approve(value: int, ctx: StepContext[Decision]) -> bool:
    """Asks."""
    if ctx.resume_data is None:
        ctx.suspend()
    return ctx.resume_data.approved


@step
def anything(_: int, ctx: StepContext[Any]) -> Any:
    """Asks for anything."""
    return ctx.suspend() if ctx.resume_data is None else ctx.resume_data


@step
def book(paid: Paid) -> int:
    """Books it."""
    return paid.cents


ASK = workflow("ask", input=int, output=bool).then(approve).commit()
LATER = workflow("later", input=int, output=bool).sleep(timedelta(hours=1)).then(approve).commit()
ORDER = workflow("order", input=str, output=int).wait_for_event("paid", key=lambda o: o, model=Paid).then(book).commit()
ORDERS = Source(
    name="orders",
    event="paid",
    key="detail.order",
    data="{cents: detail.amount}",
    only="source == 'shop.orders' && \"detail-type\" == 'Order Paid'",
)


def local(*sources: Source, store: Any = None) -> LocalApp:
    """An App on virtual time that reads messages."""
    return LocalApp(App(ASK, LATER, ORDER, sources=sources), store=store)


def send(app: App, message: Any, name: str = "m-1") -> Any:
    """What became of one message."""
    return receive(app, json.dumps(message), name)


def bridge(cents: Any = 5, order: Any = "A-1", id: str = "e-1", source: str = "shop.orders") -> dict[str, Any]:
    """An event of EventBridge."""
    detail = {"order": order, "amount": cents}
    return {"version": "0", "id": id, "detail-type": "Order Paid", "source": source, "detail": detail}


def test_answer_settles_its_suspension_and_a_copy_changes_nothing() -> None:
    """The queue may deliver twice: the message's own name is the idempotency key where the sender gave none."""
    app = local()
    run = app.workflow(ASK).create_run("r")
    run.start(1)
    answer = {"run_id": "r", "data": {"approved": True}, "by": "ada"}
    told = [send(app, answer), send(app, answer), send(app, answer, "m-2")]
    assert ["applied", "duplicate", "stale"] == [one.verdict for one in told]
    assert (True, "sqs", "ada", "m-1") == (run.result().output, told[0].via, told[0].by, told[0].idempotency_key)
    assert ["applied", "duplicate", "stale"] == [one.verdict for one in run.receipts()]


def test_answer_that_fits_nothing_is_acknowledged_with_a_receipt() -> None:
    """Nothing is raised, so it does not come again; what was wrong with it can be read beside the run."""
    app = local()
    run = app.workflow(ASK).create_run("r")
    run.start(1)
    told = [
        send(app, {"run_id": "r", "data": {"approved": "maybe"}}, "m-1"),
        send(app, {"run_id": "r", "data": {"approved": True}, "step": "nobody"}, "m-2"),
        send(app, {"run_id": "r", "data": {"approved": True}, "wait": "approve@7"}, "m-3"),
    ]
    assert {"rejected", "stale"} >= {one.verdict for one in told}
    assert 3 == len(run.receipts())
    assert "suspended" == run.result().status


def test_message_that_is_too_large_is_acknowledged() -> None:
    """Another delivery would be as large: an answer has its receipt, an event is logged."""
    build = workflow("any", input=int).then(anything).commit()
    app = LocalApp(App(build))
    run = app.workflow(build).create_run("r")
    run.start(1)
    assert "rejected" == send(app, {"run_id": "r", "data": "x" * 500_000}).verdict
    assert ["payload-too-large"] == [receipt.reason for receipt in run.receipts()]
    assert None is send(app, {"event": "paid", "key": "A-1", "data": "x" * 500_000})


def test_answer_before_its_step_asks_is_kept_for_it() -> None:
    """Named by its whole id, it waits for the question."""
    app = local()
    run = app.workflow(LATER).create_run("r")
    run.start(1)
    assert "buffered" == send(app, {"run_id": "r", "step": "approve", "data": {"approved": True}}).verdict
    app.advance(hours=1)
    assert True is run.result().output


def test_answer_for_a_run_that_is_not_there_comes_again() -> None:
    """It may be about to start; the queue brings the message again, and then it is taken."""
    app = local()
    answer = {"run_id": "r", "step": "approve", "data": {"approved": True}}
    with pytest.raises(RunNotFound):
        send(app, answer)
    app.workflow(ASK).create_run("r").start(1)
    assert "applied" == send(app, answer).verdict


def test_answer_reaches_the_tenant_it_names_alone() -> None:
    """Two tenants may have runs of one id."""
    app = local()
    for tenant in ("default", "acme"):
        app.for_tenant(tenant).workflow(ASK).create_run("r").start(1)
    assert "applied" == send(app, {"run_id": "r", "tenant": "acme", "data": {"approved": True}}).verdict
    statuses = [app.for_tenant(tenant).run("r").result().status for tenant in ("default", "acme")]
    assert ["suspended", "success"] == statuses


def test_event_settles_its_wait_or_is_kept_for_it() -> None:
    """Its copies are known by the sender's id, whatever characters that has."""
    app = local()
    event = {"event": "paid", "key": "A-1", "data": {"cents": 5}, "id": "any text #1"}
    assert ["buffered", "buffered"] == [send(app, event, name).verdict for name in ("m-1", "m-2")]
    assert 5 == app.workflow(ORDER).create_run("r").start("A-1").output
    assert "duplicate" == send(app, event, "m-3").verdict


def test_event_that_can_never_be_taken_is_acknowledged(caplog: pytest.LogCaptureFixture) -> None:
    """Of another content under a known id, or for a wait that it does not fit, whose run has the receipt."""
    app = local()
    run = app.workflow(ORDER).create_run("r")
    run.start("A-1")
    assert None is send(app, {"event": "paid", "key": "A-1", "data": {"cents": "much"}})
    assert ["rejected"] == [one.verdict for one in run.receipts()]
    send(app, {"event": "paid", "key": "B", "data": 1, "id": "e"})
    assert None is send(app, {"event": "paid", "key": "B", "data": 2, "id": "e"})
    assert ["invalid-input", "idempotency-key-reused"] == [one.__dict__["code"] for one in caplog.records[-2:]]


@pytest.mark.parametrize("verb", ["load", "resume"])
def test_message_that_meets_a_busy_table_comes_again(verb: str) -> None:
    """What has no verdict is raised, and the next delivery is taken as if nothing had been."""
    down = [True]

    def script(call: Call) -> Fault | None:
        return Fault.FAILS if call.verb == verb and down[0] else None

    store = MemoryStore()
    local(store=store).workflow(ASK).create_run("r").start(1)
    app = local(store=FaultyStore(store, script))
    answer = {"run_id": "r", "data": {"approved": True}}
    with pytest.raises(StoreUnavailable):
        send(app, answer)
    down[0] = False
    assert "applied" == send(app, answer).verdict


def test_event_of_a_bus_is_what_its_source_says_and_stands_in_the_log() -> None:
    """Mapped by expressions, known by its id, logged like a webhook's delivery."""
    app = local(ORDERS)
    app.workflow(ORDER).create_run("r").start("A-1")
    told = [send(app, bridge()), send(app, bridge(), "m-2")]
    assert [["applied"], ["duplicate"]] == [[one.verdict for one in seen] for seen in told]
    assert 5 == app.run("r").result().output
    log = app.list_deliveries("orders")
    assert {("e-1", "applied"), ("e-1", "duplicate")} == {(one.delivery_id, one.verdict) for one in log}


@pytest.mark.parametrize(
    ("event", "verdict"),
    [
        (bridge(source="shop.stock"), "filtered"),
        (bridge(order=None), "unmatched"),
        (bridge("much"), "rejected"),
        ("hello", "filtered"),
    ],
)
def test_event_of_a_bus_that_means_nothing_is_logged_with_the_reason(event: Any, verdict: str) -> None:
    """And acknowledged: it can be replayed from the log."""
    app = local(ORDERS)
    app.workflow(ORDER).create_run("r").start("A-1")
    (told,) = send(app, event)
    assert (verdict, verdict) == (told.verdict, app.list_deliveries("orders").items[0].verdict)
    assert told.reason is not None


def test_event_is_told_to_every_source_that_wants_it() -> None:
    """One that has filtered it says so only where no other has taken it."""
    audit = Source(name="audit", event="seen", key="id")
    app = local(ORDERS, audit)
    told = send(app, bridge(source="shop.stock"))
    assert [("audit", "buffered")] == [(one.hook, one.verdict) for one in told]
    assert 2 == len(send(app, bridge(id="e-2")))
    with pytest.raises(DeliveryNotFound):
        app.replay_delivery("orders", "0")


def test_delivery_of_a_source_is_replayed_under_what_it_says_today() -> None:
    """Mended expressions give what was filtered another chance."""
    app = local(ORDERS)
    app.workflow(ORDER).create_run("r").start("A-1")
    send(app, bridge(source="shop.other"))
    (line,) = app.list_deliveries("orders")
    app.sources = {"orders": Source(name="orders", event="paid", key="detail.order", data="{cents: detail.amount}")}
    assert "applied" == app.replay_delivery("orders", line.id).verdict


def test_source_is_no_door() -> None:
    """It has no secret, so nobody can post to it."""
    web = Web(local(ORDERS), lambda app: hooks(app, lambda _: ["x"]))
    assert 404 == web.call("POST", "/hooks/orders", b"{}", {}).status


def test_message_without_a_source_to_read_it_comes_again() -> None:
    """Until it is set aside: nobody has said what it means, and nothing is thrown away."""
    with pytest.raises(MalformedRequest, match="sources="):
        send(local(), bridge())


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Source(name="a b", event="paid", key="k"), "cannot name"),
        (lambda: Source(name="a:b", event="paid", key="k"), "cannot name"),
        (lambda: Source(name="a", event="#", key="k"), "event"),
        (lambda: Source(name="a", event="paid", key="k."), "no JMESPath"),
        (lambda: Source(name="a", event="paid", key="k", keep=timedelta(0)), "above 0"),
        (lambda: Source(name="a", event="paid", key="k", keep=timedelta.max), "a century"),
        (lambda: App(ASK, sources=[ORDERS, ORDERS]), "named 'orders'"),
        (
            lambda: App(
                ASK,
                sources=[ORDERS],
                webhooks=[
                    Webhook(name="orders", scheme=StandardWebhooks(), secret="env:X", event="paid", key="k"),
                ],
            ),
            "named 'orders'",
        ),
    ],
)
def test_source_that_cannot_be_meant_is_refused(make: Callable[[], Any], complaint: str) -> None:
    """Where it is written."""
    with pytest.raises(SettingsError, match=complaint):
        make()


def test_unknown_source_has_no_log() -> None:
    """Neither a webhook nor a source."""
    with pytest.raises(WebhookNotFound):
        local(ORDERS).list_deliveries("nobody")


def test_taken_is_one_of_three_things() -> None:
    """What a handler counts."""
    app = local(ORDERS)
    app.workflow(ASK).create_run("r").start(1)
    assert isinstance(send(app, {"run_id": "r", "data": {"approved": True}}), Receipt)
    assert isinstance(send(app, {"event": "x", "key": "k"}), EventReceipt)
    with pytest.raises(FlowcoreError):
        send(app, {"run_id": "r", "dta": 1})
