"""The local stack tells of runs as the deployed one does: stream, function, bus."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any

import pytest

from infra.local.stack import LocalStack

DEADLINE_S = 60


@pytest.mark.slow
@pytest.mark.gate
def test_local_stack_tells_the_bus_of_a_run() -> None:
    """From an HTTP request to a rule's target, through every part that the template describes."""
    with LocalStack(parameters={"AuthMode": "NONE", "EventBus": "default"}) as stack:
        sqs, events = stack.client("sqs"), stack.client("events")
        heard = sqs.create_queue(QueueName="heard")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=heard, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        events.put_rule(Name="all", EventPattern=json.dumps({"source": ["flowcore"]}))
        events.put_targets(Rule="all", Targets=[{"Id": "q", "Arn": arn}])
        body = {"run_id": "e-1", "input": {"employee": "ada", "amount": 60_000, "purpose": "a telescope"}}
        request = urllib.request.Request(
            f"{stack.url}/v1/workflows/expense/runs",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=30).close()
        told: list[Any] = []
        end = time.monotonic() + DEADLINE_S
        while not told or "run-suspended" not in told[-1]["type"]:
            assert time.monotonic() < end, f"only {told} was told"
            batch = sqs.receive_message(QueueUrl=heard, WaitTimeSeconds=1).get("Messages", [])
            told += [json.loads(message["Body"])["detail"] for message in batch]
        assert "dev.flowcore.run-started" == told[0]["type"]
        assert {"e-1"} == {event["subject"] for event in told}
