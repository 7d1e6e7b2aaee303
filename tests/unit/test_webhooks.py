"""Webhooks: a signed delivery is an event that settles one wait once; what has come stands in a log."""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlencode

import pytest
from pydantic import BaseModel

from flowcore import App, step, workflow
from flowcore.adapters.dynamodb_deliveries import DynamoDeliveries
from flowcore.adapters.memory import MemoryStore
from flowcore.deliveries import Webhook
from flowcore.errors import DeliveryNotFound, MalformedRequest, SettingsError, StoreUnavailable, WebhookNotFound
from flowcore.http.hooks import delivery_log, hooks
from flowcore.testing import FaultyStore, LocalApp
from flowcore.testing.faults import Call, Fault
from flowcore.webhooks import GitHub, Hmac, Slack, StandardWebhooks, sign
from tests.unit.web import Answer, Web

SECRET = "whsec_" + "QUJD" * 8
OTHER = "whsec_" + "REVG" * 8
KEPT: dict[str, Sequence[str]] = {"env:PAYMENTS": [OTHER, SECRET], "env:GITHUB": ["hush"], "env:SLACK": ["hush"]}


class Paid(BaseModel):
    """What the run waits for."""

    cents: int


@step
def book(paid: Paid) -> int:
    """Books it."""
    return paid.cents


ORDER = (
    workflow("order", input=str, output=int)
    .wait_for_event("paid", key=lambda order: order, model=Paid)
    .then(book)
    .commit()
)
PAYMENTS = Webhook(
    name="payments",
    scheme=StandardWebhooks(),
    secret="env:PAYMENTS",
    event="paid",
    key="order.id",
    data="{cents: amount}",
    only="type == 'paid'",
)


class Shop:
    """An App with webhooks, its open door and its log."""

    def __init__(self, *webhooks: Webhook, store: Any = None) -> None:
        app = App(ORDER, webhooks=webhooks or [PAYMENTS])
        self.app = LocalApp(app, store=store)
        self.web = Web(self.app, partial(hooks, secrets=KEPT.__getitem__), delivery_log)
        self.run = self.app.workflow("order").create_run("r-1")

    def send(self, value: Any, id: str = "msg-1", *, secrets: Sequence[str] = (SECRET,)) -> Answer:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.web.call("POST", "/hooks/payments", body, sign(id, body, self.app.clock.now(), secrets))

    def log(self, hook: str = "payments") -> list[str]:
        return [one["verdict"] for one in self.web.get(f"/v1/hooks/{hook}/deliveries").body["items"]]


def paid(cents: Any = 5, order: Any = "A-1", type: str = "paid") -> dict[str, Any]:
    """A delivery of a payment."""
    return {"type": type, "order": {"id": order}, "amount": cents}


def test_delivery_settles_the_wait_it_is_about() -> None:
    """The run goes on with its data, and its receipt says over which channel."""
    shop = Shop()
    shop.run.start("A-1")
    answer = shop.send(paid())
    assert (200, "applied", "r-1") == (answer.status, answer.body["verdict"], answer.body["run_id"])
    assert 5 == shop.run.result().output


def test_delivery_that_comes_again_changes_nothing() -> None:
    """Whether its wait is settled or not; each arrival has a line of its own."""
    shop = Shop()
    assert [202, 202] == [shop.send(paid()).status for _ in range(2)]
    shop.run.start("A-1")
    assert 5 == shop.run.result().output
    assert "duplicate" == shop.send(paid()).body["verdict"]
    assert ["buffered", "buffered", "duplicate"] == sorted(shop.log())


def test_delivery_is_known_again_for_as_long_as_its_signature_is_good() -> None:
    """However short its event is kept."""
    shop = Shop(replace(PAYMENTS, keep=timedelta(minutes=10, seconds=1)))
    body = json.dumps(paid()).encode()
    marks = sign("msg-1", body, shop.app.clock.now() + timedelta(minutes=5), [SECRET])  # by a clock that is fast
    shop.run.start("A-1")
    came = []
    for _ in range(12):
        came.append(shop.web.call("POST", "/hooks/payments", body, marks))
        shop.app.advance(minutes=1)
    assert ["applied", *["duplicate"] * 10, "bad-signature"] == [
        one.type if one.status == 401 else one.body["verdict"] for one in came
    ]


def test_early_delivery_waits_for_its_run() -> None:
    """The sender may be faster than we are."""
    shop = Shop()
    assert (202, "buffered") == ((early := shop.send(paid())).status, early.body["verdict"])
    assert 5 == shop.run.start("A-1").output


@pytest.mark.parametrize(
    ("value", "verdict", "reason"),
    [
        (paid(type="refunded"), "filtered", "only="),
        ({"type": "paid"}, "unmatched", "gives nothing"),
        (paid(order={"x": 1}), "unmatched", "gives a dict"),
        (paid(order=""), "unmatched", "gives a str"),
        (paid("much"), "rejected", "invalid-input"),
        (b"\xff{", "rejected", "not UTF-8"),
        (b"{", "rejected", "not JSON"),
        (b"[" * 100_000, "rejected", "nested deeper"),
        (b'{"type": "paid", "order": {"id": "A-1"}, "amount": 5, "amount": 6}', "rejected", "twice"),
        (b'{"type": "paid", "order": {"id": "A-1"}, "amount": 1e400}', "rejected", "double"),
        (paid(order="A-1\0"), "rejected", "NUL"),
        ({**paid(), "amount": "x" * 400_000}, "rejected", "invalid-input"),
    ],
)
def test_delivery_that_fits_nothing_is_logged_with_the_reason(value: Any, verdict: str, reason: str) -> None:
    """And answered with 200: its sender can do nothing about it."""
    shop = Shop()
    shop.run.start("A-1")
    answer = shop.send(value)
    assert (200, verdict) == (answer.status, answer.body["verdict"])
    assert reason in answer.body["reason"]
    assert [verdict] == shop.log()
    assert "suspended" == shop.run.result().status


def test_delivery_that_is_too_large_for_an_event_is_not_sent_for_ever() -> None:
    """It would be as large the next time; whoever waits for it may want less of it."""
    shop = Shop()
    answer = shop.send({**paid(), "amount": "x" * 400_000})
    assert (200, "rejected", "payload-too-large") == (answer.status, answer.body["verdict"], answer.body["reason"])
    assert ["rejected"] == shop.log()


def test_key_may_be_a_number() -> None:
    """Many senders number their things."""
    shop = Shop()
    shop.run.start("17")
    assert "applied" == shop.send(paid(order=17)).body["verdict"]


def test_unsigned_delivery_leaves_nothing() -> None:
    """No event, no line in the log, and one answer for every reason."""
    shop = Shop()
    shop.run.start("A-1")
    body = json.dumps(paid()).encode()
    signed = sign("msg-1", body, shop.app.clock.now(), [SECRET])
    stale = sign("msg-1", body, shop.app.clock.now() - timedelta(minutes=6), [SECRET])
    refused = [
        shop.web.call("POST", "/hooks/payments", body, {}),
        shop.web.call("POST", "/hooks/payments", body + b" ", signed),
        shop.web.call("POST", "/hooks/payments", body, stale),
        shop.send(paid(), secrets=["whsec_" + "AAAA" * 8]),
    ]
    assert {(401, "bad-signature")} == {(answer.status, answer.type) for answer in refused}
    assert 1 == len({answer.text for answer in refused})
    assert [] == shop.log()
    assert 404 == shop.web.call("POST", "/hooks/nobody", body, signed).status


def test_delivery_is_replayed_under_what_its_webhook_says_today() -> None:
    """One that was filtered gets another chance; one that has settled its wait does not settle another."""
    shop = Shop()
    shop.run.start("A-1")
    shop.send(paid(type="settled"))
    (line,) = shop.web.get("/v1/hooks/payments/deliveries").body["items"]
    assert "filtered" == line["verdict"]
    wider = App(ORDER, webhooks=[Webhook(**{**_options(PAYMENTS), "only": None})])
    later = LocalApp(wider, store=shop.app.store, clock=shop.app.clock)
    later.deliveries = shop.app.deliveries
    web = Web(later, delivery_log)
    replay = f"/v1/hooks/payments/deliveries/{line['id']}/replay"
    assert ["applied", "duplicate"] == [web.post(replay).body["verdict"] for _ in range(2)]
    assert 5 == shop.run.result().output
    assert (404, "delivery-not-found") == ((gone := web.post(replay.replace(line["id"], "0-x"))).status, gone.type)


def test_log_is_read_in_pages_the_newest_first() -> None:
    """Without a gap and without a double; a cursor that was not given is refused."""
    shop = Shop()
    for number in range(5):
        shop.app.advance(seconds=1)
        shop.send(paid(), f"msg-{number}")
    seen: list[str] = []
    cursor = ""
    while True:
        page = shop.web.get(f"/v1/hooks/payments/deliveries?limit=2{cursor}").body
        seen += [line["delivery_id"] for line in page["items"]]
        if page["cursor"] is None:
            break
        cursor = f"&cursor={page['cursor']}"
    assert [f"msg-{number}" for number in (4, 3, 2, 1, 0)] == seen
    with pytest.raises(WebhookNotFound):
        shop.app.list_deliveries("nobody")


class Unasked:
    """A client of DynamoDB that is to be left alone."""

    meta = None

    def _asked(self, **request: Any) -> Any:
        raise AssertionError(f"asked for {request}")

    put_item = update_item = get_item = delete_item = query = transact_write_items = _asked


@pytest.mark.parametrize("store", ["memory", "DynamoDB"])
def test_lines_that_nobody_can_have_written_are_not_looked_for(store: str) -> None:
    """A key of DynamoDB has 1,024 bytes; what does not fit into one is refused, and is no trouble of the table's."""
    app = Shop().app
    if store == "DynamoDB":
        app.deliveries = DynamoDeliveries(Unasked(), "t", app.ids)
    for cursor in ("nonsense", "1" * 2_000, "1\ud800"):
        with pytest.raises(MalformedRequest):
            app.list_deliveries("payments", cursor=cursor)
    for id in ("", "1" * 2_000, "1\ud800"):
        with pytest.raises(DeliveryNotFound):
            app.replay_delivery("payments", id)


@pytest.mark.parametrize("verb", ["mail", "keep"])
def test_delivery_whose_event_cannot_be_stored_is_sent_again(verb: str) -> None:
    """A 503 is the one answer that makes a sender try again; then it is taken as if nothing had been."""
    store, down = MemoryStore(), [True]

    def script(call: Call) -> Fault | None:
        return Fault.FAILS if call.verb == verb and down[0] else None

    shop = Shop(store=FaultyStore(store, script))
    assert 503 == shop.send(paid()).status
    down[0] = False
    assert 202 == shop.send(paid()).status


def test_delivery_counts_though_its_log_cannot_be_written(caplog: pytest.LogCaptureFixture) -> None:
    """The event is what counts."""

    class Broken:
        def log(self, *_: Any) -> None:
            raise StoreUnavailable("no log today")

    shop = Shop()
    shop.app.deliveries = Broken()  # type: ignore[assignment]  # as much of a log as is asked for
    shop.run.start("A-1")
    assert "applied" == shop.send(paid()).body["verdict"]
    assert "could not be logged" in caplog.text


def test_github_event_is_told_by_its_header() -> None:
    """Headers that an expression names can be asked for; a delivery is known by its body, which is what is signed."""
    hook = Webhook(
        name="github",
        scheme=GitHub(),
        secret="env:GITHUB",
        event="paid",
        key="pull_request.number",
        data="{cents: pull_request.number}",
        only="header('x-github-event') == 'pull_request' && action == 'closed'",
    )
    shop = Shop(hook)
    shop.run.start("7")
    body = json.dumps({"action": "closed", "pull_request": {"number": 7}}).encode()
    mark = {"X-Hub-Signature-256": "sha256=" + hmac.digest(b"hush", body, "sha256").hex()}
    verdicts = [
        shop.web.call("POST", "/hooks/github", body, {**mark, "X-GitHub-Event": kind, "X-GitHub-Delivery": kind}).body[
            "verdict"
        ]
        for kind in ("issues", "pull_request", "pull_request")
    ]
    assert ["filtered", "applied", "duplicate"] == verdicts


def test_slack_button_and_address_check_are_answered_as_slack_wants() -> None:
    """The payload of a form; an empty answer, which Slack shows nobody; and the challenge."""
    hook = Webhook(
        name="slack",
        scheme=Slack(),
        secret="env:SLACK",
        event="paid",
        key="actions[0].block_id",
        data="{cents: actions[0].value}",
    )
    shop = Shop(hook)
    shop.run.start("A-1")

    def send(body: bytes) -> Answer:
        at = str(int(shop.app.clock.now().timestamp()))
        mark = "v0=" + hmac.digest(b"hush", f"v0:{at}:".encode() + body, "sha256").hex()
        return shop.web.call("POST", "/hooks/slack", body, {"X-Slack-Request-Timestamp": at, "X-Slack-Signature": mark})

    checked = send(json.dumps({"type": "url_verification", "challenge": "c-1"}).encode())
    assert (200, "c-1") == (checked.status, checked.text)
    payload = json.dumps({"type": "block_actions", "actions": [{"block_id": "A-1", "value": "12"}]})
    clicked = send(urlencode({"payload": payload}).encode())
    assert (200, "") == (clicked.status, clicked.text)
    assert 12 == shop.run.result().output


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"keep": timedelta(minutes=10)}, "above 0:10:00, in which a copy"),
        ({"keep": timedelta(0), "scheme": GitHub()}, "above 0:00:00"),
        ({"keep": timedelta(0), "scheme": Hmac(header="x-mark")}, "above 0:00:00"),
        ({"keep": timedelta(minutes=1), "scheme": Hmac(header="x-mark", time_header="x-time")}, "above 0:10:00"),
        ({"keep": timedelta.max}, "above a century"),
        ({"name": "a/b"}, "address"),
        ({"name": "a:b"}, "address"),
        ({"secret": SECRET}, "names no place"),
        ({"event": "#"}, "event"),
        ({"key": "order."}, "no JMESPath"),
        ({"only": "type =="}, "no JMESPath"),
    ],
)
def test_webhook_that_cannot_be_meant_is_refused(wrong: dict[str, Any], complaint: str) -> None:
    """Where it is written, and without a secret in the message."""
    with pytest.raises(SettingsError, match=complaint) as refused:
        Webhook(**{**_options(PAYMENTS), **wrong})
    assert SECRET not in str(refused.value)


def test_two_webhooks_of_one_name_are_refused() -> None:
    """One address, one sender."""
    with pytest.raises(SettingsError, match="Two webhooks"):
        App(ORDER, webhooks=[PAYMENTS, Webhook(**_options(PAYMENTS))])


def _options(hook: Webhook) -> dict[str, Any]:
    return {name: getattr(hook, name) for name in ("name", "scheme", "secret", "event", "key", "data", "only")}
