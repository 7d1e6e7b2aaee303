"""What an operator asks over HTTP: to redrive a failed run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flowcore.testing.moto import fresh_table
from tests.e2e.deployment import Deployment, deployed


@pytest.fixture
def office(clients: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """The redo example, whose runs fail, deployed in this process."""
    with fresh_table(clients["dynamodb"]) as table:
        yield from deployed("examples.redo:app", table, clients["sqs"], clients["scheduler"], monkeypatch)


def test_redrive_hands_a_failed_run_to_a_worker(office: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for twice it is refused the second time; the worker goes on where the run failed."""
    office.call("POST", "/v1/workflows/invoicing/runs", {"input": "2026-7", "run_id": "r-1"})
    office.settle()
    assert "failed" == office.call("GET", "/v1/runs/r-1").body["status"]
    monkeypatch.setattr("examples.redo.VAT", {"Austria": 20})

    first = office.call("POST", "/v1/runs/r-1/redrive")
    second = office.call("POST", "/v1/runs/r-1/redrive")
    assert (first.status, first.body["status"]) == (202, "running")
    assert (second.status, second.body["type"].rsplit("/", 1)[1]) == (409, "not-failed")
    assert "running" == second.body["run_status"]
    office.settle()

    run = office.call("GET", "/v1/runs/r-1").body
    assert (run["status"], run["output"]) == ("success", "2026-7: 1200")


def test_redrive_of_no_run_is_404(office: Deployment) -> None:
    """As for every verb."""
    assert 404 == office.call("POST", "/v1/runs/nope/redrive").status


def test_doctor_over_http_is_paged(office: Deployment) -> None:
    """Each page looks at so many runs; an empty page may have a cursor."""
    for number in range(3):
        office.call("POST", "/v1/workflows/invoicing/runs", {"input": "x", "run_id": f"r-{number}"})
    office.forward(hours=1)

    first = office.call("GET", "/v1/doctor?workflow=invoicing&limit=2")
    second = office.call("GET", f"/v1/doctor?workflow=invoicing&limit=2&cursor={first.body['cursor']}")

    assert (200, ["r-2", "r-1"]) == (first.status, [item["run_id"] for item in first.body["items"]])
    assert {"overdue"} == {item["ailment"] for item in first.body["items"]}
    assert ([("r-0", "invoicing")], None) == (
        [(item["run_id"], item["workflow_id"]) for item in second.body["items"]],
        second.body["cursor"],
    )
    assert 422 == office.call("GET", "/v1/doctor?limit=1000").status
    assert 400 == office.call("GET", "/v1/doctor?cursor=zzz").status


def test_unblock_over_http_is_refused_unless_the_run_is_blocked(office: Deployment) -> None:
    """With a type of its own."""
    office.call("POST", "/v1/workflows/invoicing/runs", {"input": "x", "run_id": "r-1"})
    refused = office.call("POST", "/v1/runs/r-1/unblock")
    assert (409, "not-blocked") == (refused.status, refused.body["type"].rsplit("/", 1)[1])
    assert 404 == office.call("POST", "/v1/runs/nope/unblock").status
