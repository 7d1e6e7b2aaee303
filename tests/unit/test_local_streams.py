"""The local stack hands a table's stream to a function as Lambda does: in order, filtered, once more on failure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from infra.local.blueprint import StreamSource
from infra.local.outcomes import Died, Outcome, Returned
from infra.local.streams import StreamReader, as_lambda_shows, wanted

HEADS = {"dynamodb": {"Keys": {"sk": {"S": ["#HEAD"]}}}}
STEPS = {"dynamodb": {"Keys": {"sk": {"S": [{"prefix": "S#"}]}}}}


def record(number: int, sort_key: str = "#HEAD") -> dict[str, Any]:
    """As boto3 gives it."""
    return {
        "eventID": f"e-{number}",
        "eventName": "INSERT",
        "dynamodb": {
            "Keys": {"pk": {"S": "T#default#R#r"}, "sk": {"S": sort_key}},
            "NewImage": {"in": {"B": b"\0packed"}},
            "SequenceNumber": str(number),
            "ApproximateCreationDateTime": datetime(2026, 1, 1, tzinfo=UTC),
        },
    }


class Streams:
    """A stream of one shard."""

    def __init__(self, *records: dict[str, Any]) -> None:
        self.records = list(records)

    def describe_stream(self, **_: Any) -> Any:
        return {"StreamDescription": {"Shards": [{"ShardId": "s"}]}}

    def get_shard_iterator(self, **_: Any) -> Any:
        return {"ShardIterator": "0"}

    def get_records(self, *, ShardIterator: str) -> Any:  # boto3's name
        first = int(ShardIterator)
        return {"Records": self.records[first:], "NextShardIterator": str(len(self.records))}


def test_batch_is_handed_on_again_from_where_it_failed() -> None:
    """And what failed as a whole, as a whole; nothing behind it is handed on before."""
    seen: list[list[str]] = []
    answers: list[Any] = [{"batchItemFailures": [{"itemIdentifier": "2"}]}, None, {"batchItemFailures": []}, {}]

    def invoke(function: str, event: bytes) -> Outcome:
        assert "EventsFunction" == function
        seen.append([one["dynamodb"]["SequenceNumber"] for one in json.loads(event)["Records"]])
        answer = answers.pop(0)
        return Returned(json.dumps(answer).encode()) if answer is not None else Died(exit_code=-9)

    source = StreamSource(function="EventsFunction", stream_arn="arn", batch_size=3, patterns=(HEADS,))
    streams = Streams(*(record(number) for number in range(1, 5)), record(5, "S#0001##x"))
    reader = StreamReader(source, streams, invoke, region="eu")
    turns = [reader.turn() for _ in range(5)]
    assert [["1", "2", "3"], ["2", "3", "4"], ["2", "3", "4"]] == seen
    assert [False, False, True, False, False] == turns


def test_record_is_shown_as_lambda_shows_it() -> None:
    """It can be written as JSON."""
    shown = as_lambda_shows(record(7), "arn", "eu")
    assert shown == json.loads(json.dumps(shown))
    assert ("AHBhY2tlZA==", "7") == (shown["dynamodb"]["NewImage"]["in"]["B"], shown["dynamodb"]["SequenceNumber"])


def test_filter_lets_through_what_fits_one_of_its_patterns() -> None:
    """A value, or how it begins."""
    head, step, note = (as_lambda_shows(record(1, key), "a", "r") for key in ("#HEAD", "S#0001##x", "N#1"))
    assert [True, False, False] == [wanted(one, [HEADS]) for one in (head, step, note)]
    assert [True, True, False] == [wanted(one, [HEADS, STEPS]) for one in (head, step, note)]
    assert wanted(note, [])
