"""The stream of a table, fed to a function in order: what could not be handled holds up what came after it.

Knows the one shard that moto gives a stream, and the filters that the template uses: a value, or how it begins.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from infra.local.blueprint import StreamSource
from infra.local.movers import Client, Invoke
from infra.local.outcomes import Outcome, Returned


class StreamReader:
    """Reads on where it has stopped; a batch that failed, or the rest of one, is handed to the function again."""

    def __init__(self, source: StreamSource, streams: Client, invoke: Invoke, *, region: str) -> None:
        self._source = source
        self._streams = streams
        self._invoke = invoke
        self._region = region
        self._iterator: str | None = None
        self._left: list[dict[str, Any]] = []

    def turn(self) -> bool:
        """Hand one batch on; true when there may be more."""
        if not self._left:
            self._left = [record for record in self._read() if wanted(record, self._source.patterns)]
        if not self._left:
            return False
        batch = self._left[: self._source.batch_size]
        outcome = self._invoke(self._source.function, json.dumps({"Records": batch}).encode())
        through = handled(outcome, batch)
        self._left = self._left[through:]
        return through == len(batch)

    def _read(self) -> list[dict[str, Any]]:
        if self._iterator is None:
            self._iterator = self._beginning()
        page = self._streams.get_records(ShardIterator=self._iterator)
        self._iterator = page.get("NextShardIterator") or self._iterator
        return [as_lambda_shows(record, self._source.stream_arn, self._region) for record in page["Records"]]

    def _beginning(self) -> str:
        arn = self._source.stream_arn
        [shard] = self._streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
        found = self._streams.get_shard_iterator(
            StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )
        return str(found["ShardIterator"])


def as_lambda_shows(record: Mapping[str, Any], stream_arn: str, region: str) -> dict[str, Any]:
    """A record of a stream in an event of Lambda: bytes as base64, instants as seconds."""
    return {
        "eventID": record["eventID"],
        "eventName": record["eventName"],
        "eventSource": "aws:dynamodb",
        "awsRegion": region,
        "eventSourceARN": stream_arn,
        "dynamodb": _plain(record["dynamodb"]),
    }


def wanted(record: Mapping[str, Any], patterns: Sequence[Mapping[str, Any]]) -> bool:
    """Whether one of the filters lets a record through; without filters every one is."""
    return not patterns or any(_fits(record, pattern) for pattern in patterns)


def handled(outcome: Outcome, batch: Sequence[Mapping[str, Any]]) -> int:
    """How many records of the batch, from its beginning, the function is done with."""
    if not isinstance(outcome, Returned):
        return 0
    failures = (json.loads(outcome.payload or b"null") or {}).get("batchItemFailures", [])
    places = [record["dynamodb"]["SequenceNumber"] for record in batch]
    return min((places.index(failure["itemIdentifier"]) for failure in failures), default=len(batch))


def _fits(value: Any, pattern: Any) -> bool:
    if isinstance(pattern, Mapping):
        return isinstance(value, Mapping) and all(_fits(value.get(name), inner) for name, inner in pattern.items())
    return any(
        isinstance(value, str) and value.startswith(one["prefix"]) if isinstance(one, Mapping) else value == one
        for one in pattern
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.timestamp() if isinstance(value, datetime) else value
