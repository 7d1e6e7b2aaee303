"""Pictures over HTTP: of a workflow, and of a run as it stands."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.e2e.deployment import Answer, Deployment

LARGE = {"employee": "ada", "amount": 60_000, "purpose": "<script>alert(1)</script>"}
WORKFLOW, RUN = "/v1/workflows/expense/graph", "/v1/runs/r-1/graph"


def drawn(deployment: Deployment, path: str) -> Answer:
    """The picture at ``path``, with a run that waits for its manager."""
    deployment.call("POST", "/v1/workflows/expense/runs", {"input": LARGE, "run_id": "r-1"})
    deployment.settle()
    return deployment.call("GET", path)


@pytest.mark.parametrize("path", [WORKFLOW, RUN])
def test_svg_is_a_picture_that_may_do_nothing(deployment: Deployment, path: str) -> None:
    """A browser that is pointed at it shows it, and neither runs nor loads anything."""
    answer = drawn(deployment, f"{path}?format=svg")

    assert (answer.status, answer.headers["content-type"]) == (200, "image/svg+xml; charset=utf-8")
    assert answer.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert ET.fromstring(answer.body).tag.endswith("svg")  # noqa: S314  # we wrote it ourselves
    assert ("? suspended" in answer.body) == (path == RUN)


@pytest.mark.parametrize("path", [WORKFLOW, RUN])
def test_mermaid_is_text(deployment: Deployment, path: str) -> None:
    """Ready to be pasted into a page."""
    answer = drawn(deployment, f"{path}?format=mermaid")

    assert (answer.status, answer.headers["content-type"]) == (200, "text/vnd.mermaid; charset=utf-8")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.body.startswith("flowchart TB\n")
    assert ("? suspended" in answer.body) == (path == RUN)


def nodes(body: Any) -> list[tuple[str, str]]:
    """Kind and id of the outermost nodes."""
    return [(node["kind"], node["id"]) for node in body["nodes"]]


def test_json_is_what_is_given_unless_asked_otherwise(deployment: Deployment) -> None:
    """The nodes with the schemas of their doors; of a run also the status of each step."""
    workflow = drawn(deployment, WORKFLOW).body
    run = deployment.call("GET", f"{RUN}?format=json").body

    assert ("sleep", "settlement") in nodes(workflow)
    assert workflow["schemas"]["input"]["required"] == ["employee", "amount", "purpose"]
    assert run["graph"] == workflow
    assert (run["run_id"], run["workflow_id"], run["status"]) == ("r-1", "expense", "suspended")
    assert run["steps"]["manager_approval"] == "suspended"


def test_drawing_changes_nothing(deployment: Deployment) -> None:
    """A picture is a read."""
    before = drawn(deployment, "/v1/runs/r-1").body
    for format_ in ("json", "mermaid", "svg"):
        deployment.call("GET", f"{RUN}?format={format_}")
    assert deployment.call("GET", "/v1/runs/r-1").body == before


BAD_REQUESTS = [
    ("/v1/workflows/nope/graph", 404, "workflow-not-found"),
    ("/v1/runs/nope/graph", 404, "run-not-found"),
    (f"{WORKFLOW}?format=png", 422, "invalid-input"),
    (f"{RUN}?format=png", 422, "invalid-input"),
]


@pytest.mark.parametrize(("path", "status", "code"), BAD_REQUESTS)
def test_what_cannot_be_drawn_is_a_typed_problem(deployment: Deployment, path: str, status: int, code: str) -> None:
    """As everywhere."""
    answer = drawn(deployment, path)
    assert (answer.status, answer.body["type"].rsplit("/", 1)[1]) == (status, code)
