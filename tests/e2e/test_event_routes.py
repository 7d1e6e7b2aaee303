"""Events over HTTP: they settle waits, are kept for those that come, and their copies are known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flowcore.testing.moto import fresh_table
from tests.e2e.deployment import Answer, Deployment, deployed

ORDER = {"number": "A-17", "article": "kettle"}


@pytest.fixture
def shop(clients: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """The parcel example, deployed in this process."""
    with fresh_table(clients["dynamodb"]) as table:
        yield from deployed("examples.parcel:app", table, clients["sqs"], clients["scheduler"], monkeypatch)


@pytest.fixture
def broker(clients: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """The offer example, deployed in this process."""
    with fresh_table(clients["dynamodb"]) as table:
        yield from deployed("examples.offer:app", table, clients["sqs"], clients["scheduler"], monkeypatch)


def told(shop: Deployment, name: str, key: str, data: Any, id: str | None = None) -> Answer:
    """The API's answer to an event."""
    headers = {} if id is None else {"Idempotency-Key": id}
    return shop.call("POST", "/v1/events", {"name": name, "key": key, "data": data}, headers)


def test_events_carry_a_run_to_its_end(shop: Deployment) -> None:
    """One came before the run was there, one comes while it waits, in process images of their own."""
    early = told(shop, "order.paid", "A-17", {"cents": 990})
    assert (early.status, early.body["verdict"], early.body["run_id"]) == (202, "buffered", None)

    shop.call("POST", "/v1/workflows/order/runs", {"input": ORDER, "run_id": "r-1"})
    shop.settle()
    shop.start_cold()
    first = told(shop, "parcel.delivered", "parcel-A-17", {"signed_by": "ada"}, id="scan-1")
    assert (first.status, first.body["verdict"], first.body["run_id"]) == (202, "applied", "r-1")
    shop.settle()
    second = told(shop, "parcel.delivered", "parcel-A-17", {"signed_by": "ada"}, id="scan-1")
    assert (second.status, second.headers["idempotent-replayed"]) == (200, "true")
    assert second.body == {**first.body, "verdict": "duplicate"}

    run = shop.call("GET", "/v1/runs/r-1").body
    assert (run["status"], run["output"]) == ("success", "parcel-A-17 was taken by ada")


def test_event_starts_the_run_it_is_for(shop: Deployment) -> None:
    """The first one starts it and settles its wait, a copy is known, and the next one finds it waiting."""
    start = {"workflow": "order", "input": ORDER, "resource_id": "shop", "tags": ["web"]}
    body = {"name": "order.paid", "key": "A-17", "data": {"cents": 990}, "start_if_absent": start}
    first = shop.call("POST", "/v1/events", body, {"Idempotency-Key": "pay-1"})
    assert (first.status, first.body["verdict"], first.body["wait"]) == (202, "started", None)
    shop.settle()
    again = shop.call("POST", "/v1/events", body, {"Idempotency-Key": "pay-1"})
    assert (again.status, again.body["verdict"], again.body["run_id"]) == (200, "duplicate", first.body["run_id"])
    run = shop.call("GET", f"/v1/runs/{first.body['run_id']}").body
    assert (run["status"], run["resource_id"], run["tags"]) == ("suspended", "shop", ["web"])
    assert told(shop, "parcel.delivered", "parcel-A-17", {"signed_by": "ada"}).body["verdict"] == "applied"


def test_first_of_several_things_settles_a_run(broker: Deployment) -> None:
    """Each is a wait with a label of its own; who names none is told all, who comes late is told which one came."""
    broker.call("POST", "/v1/workflows/offer/runs", {"input": {"number": "O-1", "cents": 9}, "run_id": "o-1"})
    broker.settle()
    open_ = [wait["label"] for wait in broker.call("GET", "/v1/runs/o-1").body["waits"]]
    assert open_ == ["customer", "paid", "withdraw"]
    choice = broker.call("POST", "/v1/runs/o-1/resume", {"data": {"accepted": True}, "step": "decide"})
    assert (choice.status, choice.body["type"].rsplit("/", 1)[-1]) == (409, "ambiguous-wait")
    assert [wait["id"] for wait in choice.body["waits"]] == [f"decide@0:{name}" for name in open_]
    taken = broker.call("POST", "/v1/runs/o-1/resume", {"data": {"accepted": True}, "label": "customer"})
    assert (taken.status, taken.body["receipt"]["wait"]) == (202, "decide@0:customer")
    late = broker.call("POST", "/v1/runs/o-1/resume", {"data": {"cents": 9}, "label": "paid"})
    assert (late.status, late.body["winner"]["chosen"]) == (409, "customer")
    broker.settle()
    assert broker.call("GET", "/v1/runs/o-1").body["output"] == "customer: yes"


@pytest.mark.parametrize(
    ("body", "id", "status", "type"),
    [
        ({"name": "no name", "key": "A-17"}, None, 400, "malformed-request"),
        ({"name": "order.paid", "key": ""}, None, 400, "malformed-request"),
        ({"name": "order.paid", "key": "A-17"}, "no/id", 400, "malformed-request"),
        ({"name": "order.paid"}, None, 422, "invalid-input"),
        ({"name": "a", "key": "b", "start_if_absent": {"workflow": "?"}}, None, 404, "workflow-not-found"),
        ({"name": "a", "key": "b", "start_if_absent": {"workflow": "order"}}, None, 422, "invalid-input"),
        ({"name": "order.paid", "key": "A-17", "data": {"cents": "?"}}, None, 422, "invalid-input"),
        ({"name": "order.paid", "key": "A-17", "data": {"cents": 2}}, "used", 422, "idempotency-key-reused"),
    ],
)
def test_event_that_is_refused(shop: Deployment, body: Any, id: str | None, status: int, type: str) -> None:
    """With the reason; the run goes on waiting."""
    told(shop, "order.paid", "A-17", {"cents": 1}, id="used") if id == "used" else None
    shop.call("POST", "/v1/workflows/order/runs", {"input": ORDER, "run_id": "r-1"})
    if id != "used":
        shop.settle()
    answer = shop.call("POST", "/v1/events", body, {} if id is None else {"Idempotency-Key": id})
    assert (answer.status, answer.body["type"].rsplit("/", 1)[-1]) == (status, type)
