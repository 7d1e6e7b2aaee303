"""The poller of the local stack, turn by turn, on queues in this process; no function is started."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from infra.local.blueprint import QueueSource
from infra.local.knobs import Knobs
from infra.local.movers import QueuePoller
from infra.local.outcomes import Outcome, Returned

ATTRIBUTES = {"kind": {"DataType": "String", "StringValue": "hint"}}


@pytest.fixture
def queue_url(clients: dict[str, Any]) -> Iterator[str]:
    """Of an empty queue."""
    url = clients["sqs"].create_queue(QueueName="polled")["QueueUrl"]
    yield url
    clients["sqs"].delete_queue(QueueUrl=url)


def test_a_message_that_is_doubled_comes_twice(clients: dict[str, Any], queue_url: str) -> None:
    """A message of its own with the same body and attributes, which is counted; the copy is not doubled any more."""
    seen: list[tuple[str, str]] = []

    def invoke(function: str, event: bytes) -> Outcome:
        records = json.loads(event)["Records"]
        seen.extend((record["body"], record["messageAttributes"]["kind"]["stringValue"]) for record in records)
        return Returned(b"null")

    knobs = Knobs(doubled=1.0)
    source = QueueSource(
        function="F", queue_url=queue_url, queue_arn="arn", batch_size=1, concurrency=1, partial_failures=True
    )
    poller = QueuePoller(source, clients["sqs"], invoke, slots=1, region="us-east-1", knobs=knobs)
    clients["sqs"].send_message(QueueUrl=queue_url, MessageBody="look", MessageAttributes=ATTRIBUTES)
    poller.turn()
    knobs.doubled = 0.0
    poller.turn()
    assert not poller.turn()
    poller.close()
    assert [("look", "hint")] * 2 == seen
    assert (2, 1) == (poller.received, poller.copies)
