"""An AWS inside this process, made safe for races, and the table flowcore needs in it.

moto answers several threads at once without any lock: two racing conditional writes may both win, and a transaction
that fails may undo a write that was acknowledged. A test of a race is worth nothing on it until its requests stand in
line, which is what ``locked_moto`` sees to, and it lets wrong expressions pass that AWS refuses, which is what
``StrictClient`` sees to. Still not to be believed: idempotency tokens, throttling, conflicts of transactions, lag of
indexes, TTL and consumed capacity, none of which moto has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from threading import RLock
from typing import Any
from unittest import mock

from moto import mock_aws
from moto.dynamodb.responses import DynamoHandler

from flowcore.adapters.dynamodb_keys import Index
from flowcore.adapters.table import INDEXES, table_request
from flowcore.testing.quick_moto import quickened

REGION = "eu-central-1"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": REGION,
}
_names = count(1)


@contextmanager
def locked_moto() -> Iterator[None]:
    """moto for every client made inside, one DynamoDB request at a time."""
    lock = RLock()
    answer = DynamoHandler.call_action

    def answer_alone(handler: DynamoHandler) -> Any:
        with lock:
            return answer(handler)

    with (
        mock.patch.dict("os.environ", CREDENTIALS),
        mock.patch.object(DynamoHandler, "call_action", answer_alone),
        quickened(),
        mock_aws(),
    ):
        yield


class StrictClient:
    """A DynamoDB client that refuses what AWS would refuse and moto lets pass: placeholders missing or never used."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name not in {"put_item", "update_item", "query", "transact_write_items"}:
            return found

        def checked(**request: Any) -> Any:
            for part in [part for member in request.get("TransactItems", ()) for part in member.values()] or [request]:
                check_placeholders(part)
            return found(**request)

        return checked


def check_placeholders(request: dict[str, Any]) -> None:
    """Raise ``ValueError`` unless the request's expressions use exactly the names and values that come with it."""
    expressions = " ".join(value for name, value in request.items() if name.endswith("Expression"))
    used = set(re.findall(r"[#:]\w+", expressions))
    given = {*request.get("ExpressionAttributeNames", ()), *request.get("ExpressionAttributeValues", ())}
    if used != given:
        raise ValueError(f"Placeholders used but not given, or given but not used: {sorted(used ^ given)}")


@contextmanager
def fresh_table(client: Any, *, indexes: tuple[Index, ...] = INDEXES) -> Iterator[str]:
    """The name of a new, empty table, deleted afterwards; small tables keep moto's transactions fast."""
    name = f"runs-{next(_names)}"
    client.create_table(**table_request(name, indexes))
    try:
        yield name
    finally:
        client.delete_table(TableName=name)
