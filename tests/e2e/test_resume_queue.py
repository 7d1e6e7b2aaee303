"""Answers and events as messages, through the real function on moto."""

from __future__ import annotations

import json

from tests.e2e.deployment import Deployment

LARGE = {"employee": "ada", "amount": 60_000, "purpose": "a telescope"}
RESUME = "handlers.resume"


def test_batch_of_messages_fails_in_part(deployment: Deployment) -> None:
    """What was done, or refused with a receipt, is acknowledged; a run that is not there and nonsense come again."""
    deployment.call("POST", "/v1/workflows/expense/runs", {"input": LARGE, "run_id": "r-1"})
    deployment.settle()
    bodies = [
        {"run_id": "r-1", "data": {"approved": "perhaps"}},
        {"run_id": "r-2", "data": {"approved": True}},
        {"specversion": "1.0", "id": "a-1", "source": "/desk", "type": "dev.flowcore.resume", "subject": "r-1"}
        | {"data": {"data": {"approved": True}, "label": None, "by": "grace"}},
        {"event": "x", "key": "k", "data": 1},
        {"hello": "world"},
    ]
    assert ["m-1", "m-4"] == deployment.work(*map(json.dumps, bodies), function=RESUME)
    receipts = deployment.call("GET", "/v1/runs/r-1/receipts").body["items"]
    assert [("rejected", "m-0"), ("applied", "a-1")] == [
        (r["verdict"], r["idempotency_key"].partition("@")[0]) for r in receipts
    ]
    assert ("grace", "sqs") == (receipts[1]["by"], receipts[1]["via"])

    deployment.settle()
    assert "waiting" == deployment.call("GET", "/v1/runs/r-1").body["status"]
    assert [] == deployment.work(json.dumps(bodies[2]), function=RESUME)
    assert "duplicate" == deployment.call("GET", "/v1/runs/r-1/receipts").body["items"][-1]["verdict"]
