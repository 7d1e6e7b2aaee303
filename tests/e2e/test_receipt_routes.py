"""Who answers over HTTP, and for whom, and the receipts of all that came; a caller is whoever the gateway verified."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flowcore.testing.moto import fresh_table
from tests.e2e.deployment import Answer, Deployment, deployed

RUN = "/v1/runs/r-1"


@pytest.fixture
def reviews(clients: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """The review example, deployed in this process; carl has started a run."""
    with fresh_table(clients["dynamodb"]) as table:
        for deployment in deployed("examples.review:app", table, clients["sqs"], clients["scheduler"], monkeypatch):
            told(deployment, "carl", "/v1/workflows/review/runs", {"input": {"title": "sums"}, "run_id": "r-1"})
            deployment.settle()
            yield deployment


def told(deployment: Deployment, caller: str | None, path: str, body: Any = None) -> Answer:
    """What the API says to somebody."""
    deployment.caller = caller
    return deployment.call("POST", path, body)


def test_votes_are_given_and_handed_over_by_verified_callers(reviews: Deployment) -> None:
    """Nobody can say in a body who he is; each arrival has a receipt, a page at a time."""
    yes = {"data": {"agreed": True}}
    assert 403 == told(reviews, None, f"{RUN}/resume", yes).status == told(reviews, "eve", f"{RUN}/resume", yes).status
    assert 403 == told(reviews, None, f"{RUN}/delegate", {"to": "eve"}).status
    handed = told(reviews, "ada", f"{RUN}/delegate", {"to": "dave", "step": "review"})
    assert (200, "delegated", "dave") == (
        handed.status,
        handed.body["receipt"]["verdict"],
        handed.body["receipt"]["to"],
    )
    assert {"ada": "dave"} == handed.body["waits"][0]["delegated"]
    again = told(reviews, "ada", f"{RUN}/delegate", {"to": "dave"})
    assert (200, "true") == (again.status, again.headers["idempotent-replayed"])
    refused = told(reviews, "grace", f"{RUN}/delegate", {"to": "alan"})
    assert (409, "cannot-delegate") == (refused.status, refused.body["type"].rsplit("/", 1)[1])
    reviews.start_cold()
    assert "ada" == told(reviews, "dave", f"{RUN}/resume", yes).body["receipt"]["on_behalf_of"]
    assert "applied" == told(reviews, "grace", f"{RUN}/resume", yes).body["receipt"]["verdict"]
    assert 409 == told(reviews, "alan", f"{RUN}/resume", yes).status

    page = reviews.call("GET", f"{RUN}/receipts?limit=6").body
    rest = reviews.call("GET", f"{RUN}/receipts?limit=6&cursor={page['cursor']}").body
    assert (6, None) == (len(page["items"]), rest["cursor"])
    receipts = [(receipt["verdict"], receipt["by"]) for receipt in (*page["items"], *rest["items"])]
    assert {
        ("rejected", None),
        ("rejected", "eve"),
        ("delegated", "ada"),
        ("rejected", "grace"),
        ("counted", "dave"),
        ("applied", "grace"),
        ("stale", "alan"),
    } == set(receipts)
    assert {"http"} == {receipt["via"] for receipt in page["items"]}
    for query, status in [("cursor=foreign", 400), ("limit=0", 422)]:
        assert status == reviews.call("GET", f"{RUN}/receipts?{query}").status
    assert 404 == reviews.call("GET", "/v1/runs/never/receipts").status


def test_who_started_and_who_canceled_is_shown(reviews: Deployment) -> None:
    """As the gateway has verified them."""
    assert "carl" == reviews.call("GET", RUN).body["started_by"]
    assert "dora" == told(reviews, "dora", f"{RUN}/cancel").body["canceled_by"]
    assert {"canceled_by": "dora"} == reviews.call("GET", f"{RUN}?fields=canceled_by").body
