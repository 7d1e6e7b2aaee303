"""Finding and reading runs over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.deployment import Answer, Deployment

LARGE = {"employee": "ada", "amount": 60_000, "purpose": "a telescope"}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
RUNS = "/v1/workflows/expense/runs"


def started(deployment: Deployment, **body: Any) -> Answer:
    """A run that waits for its manager."""
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    answer = deployment.call("POST", RUNS, {"input": LARGE, "run_id": "r-1", **body}, headers)
    deployment.settle()
    return answer


def test_a_traced_and_tagged_run_is_found_and_read_by_fields(deployment: Deployment) -> None:
    """Trace from the header, tags from the body; listing, counts and fields know them."""
    answer = started(deployment, tags=["eu"], tracing={"tags": ["gold"]}, include_state=True)
    assert (202, TRACE, ["eu", "gold"], {}) == (
        answer.status,
        answer.body["trace_id"],
        answer.body["tags"],
        answer.body["state"],
    )
    deployment.call("POST", RUNS, {"input": LARGE, "run_id": "r-2", "tracing": {"trace_id": "f" * 32}})

    def listed(query: str) -> list[str]:
        return [run["run_id"] for run in deployment.call("GET", f"/v1/runs?{query}").body["items"]]

    assert ["r-1"] == listed("tag=eu&tag=gold") == listed("status=suspended") == listed("tag=eu,gold")
    assert {"r-1", "r-2"} == set(listed("status=suspended&status=pending"))
    counts = deployment.call("GET", "/v1/counts?workflow=expense").body["counts"]
    assert {"suspended": 1, "pending": 1} == {status: number for status, number in counts.items() if number}

    some = deployment.call("GET", "/v1/runs/r-1?fields=status,trace_id,resume_labels").body
    assert {"status": "suspended", "trace_id": TRACE, "resume_labels": {"manager": ["manager_approval"]}} == some
    assert "f" * 32 == deployment.call("GET", "/v1/runs/r-2?fields=trace_id").body["trace_id"]


def test_state_and_labels_are_shown_when_asked_for(deployment: Deployment) -> None:
    """On reading and on resuming; not otherwise."""
    started(deployment)
    plain = deployment.call("GET", "/v1/runs/r-1").body
    assert not {"state", "resume_labels"} & plain.keys()
    asked = deployment.call("GET", "/v1/runs/r-1?include_state=true&include_resume_labels=true").body
    assert ({}, {"manager": ["manager_approval"]}) == (asked["state"], asked["resume_labels"])
    body = {"data": {"approved": True}, "include_state": True, "include_resume_labels": True}
    resumed = deployment.call("POST", "/v1/runs/r-1/resume", body).body
    assert ({}, {}) == (resumed["state"], resumed["resume_labels"])


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/runs/r-1?fields=status,nonsense", "unknown-field"),
        ("/v1/runs?status=sleeping", "invalid-input"),
    ],
)
def test_what_cannot_be_asked_for_is_a_typed_problem(deployment: Deployment, path: str, code: str) -> None:
    """A 422 that says what is wrong."""
    started(deployment)
    answer = deployment.call("GET", path)
    assert (422, code) == (answer.status, answer.body["type"].rsplit("/", 1)[1])


def test_bad_tracing_is_refused_and_a_bad_header_is_ignored(deployment: Deployment) -> None:
    """The body is the caller's word; a header may come from anybody on the way."""
    bad = deployment.call("POST", RUNS, {"input": LARGE, "tracing": {"trace_id": "abc"}})
    assert (422, "trace_id") == (bad.status, bad.body["errors"][0]["path"])
    answer = deployment.call("POST", RUNS, {"input": LARGE}, {"traceparent": "00-nonsense-01"})
    assert (202, None) == (answer.status, answer.body["trace_id"])
