"""Asking DynamoDB, and asking again: what an error of AWS means, and how many tries it is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flowcore.adapters.aws import AwsError, DynamoClient, Reply, code_of, is_silence
from flowcore.adapters.dynamodb_attributes import Attribute, Item, text
from flowcore.adapters.dynamodb_expressions import phrased
from flowcore.adapters.dynamodb_keys import partition_of
from flowcore.adapters.dynamodb_verdicts import CROWDED, is_refusal, reasons_of
from flowcore.errors import FlowcoreError, InvariantError, StoreUnavailable, Throttled
from flowcore.keys import RunRef
from flowcore.ports import Ids

_CROWD_TRIES = 8
"""Tries when others write the same items, or AWS asks for fewer requests; about 3 seconds of pauses at most."""
_SILENCE_TRIES = 4
"""Tries when AWS gives no verdict, each of which may take as long as the client waits for a reply: 3 seconds."""
_FIRST_PAUSE_S = 0.025
_LONGEST_PAUSE_S = 0.8


class Asking:
    """Operations on one table; nothing but a refused condition comes out as an exception of boto3."""

    def __init__(self, client: DynamoClient, table: str, ids: Ids, pause: Callable[[float], None]) -> None:
        """``pause`` waits that many seconds between two tries; ``ids`` draws how long exactly."""
        self._client = client
        self._table = table
        self._ids = ids
        self.pause = pause

    def __call__(self, operation: Callable[..., Reply], **request: Any) -> Reply:
        """One operation, tried again when AWS gave no verdict.

        Raises:
            ClientError: a condition did not hold; nothing else comes out as an exception of boto3.
        """
        tried = 0
        while True:
            try:
                return operation(**request)
            except AwsError as error:
                if is_refusal(error):
                    raise
                tried += 1
                tries, failure = self._diagnosis(error)
                if tried >= tries:
                    raise failure from error
                self.pause(self._ids.draw() * min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**tried))

    def of_run(self, run: RunRef, condition: str, **texts: str) -> Iterator[Item]:
        """The run's items whose sort key meets ``condition``, in order, over as many pages as there are."""
        return self.query(
            {":pk": text(partition_of(run)), **{f":{name}": text(value) for name, value in texts.items()}},
            KeyConditionExpression=f"#pk = :pk AND {condition}",
            ConsistentRead=True,
        )

    def query(self, values: Mapping[str, Attribute], **request: Any) -> Iterator[Item]:
        """The items found, in order, over as many pages as there are."""
        for reply in self.replies(values, **request):
            yield from reply["Items"]

    def replies(self, values: Mapping[str, Attribute], **request: Any) -> Iterator[Reply]:
        """One reply after another, over as many pages as there are."""
        asked = {"TableName": self._table, **phrased(values, **request)}
        while True:
            reply = self(self._client.query, **asked)
            yield reply
            if "LastEvaluatedKey" not in reply:
                return
            asked["ExclusiveStartKey"] = reply["LastEvaluatedKey"]

    def _diagnosis(self, error: Exception) -> tuple[int, FlowcoreError]:
        """How many tries this kind of error is worth, and what to raise after the last."""
        code, endpoint = code_of(error), self._client.meta.endpoint_url
        if {code, *reasons_of(error)} & CROWDED:
            return _CROWD_TRIES, Throttled(f"Table {self._table!r} at {endpoint} is too busy: {error}")
        if is_silence(error):
            return _SILENCE_TRIES, StoreUnavailable(f"No answer from DynamoDB at {endpoint}: {error}")
        if code == "ResourceNotFoundException":
            return 1, StoreUnavailable(f"There is no table {self._table!r}, or not whole, at {endpoint}: {error}")
        if code in {"ValidationException", "TransactionCanceledException"} and "specified index" not in str(error):
            return 1, InvariantError(f"DynamoDB does not understand a request for table {self._table!r}: {error}")
        return 1, StoreUnavailable(f"Table {self._table!r} at {endpoint} refuses: {error}")
