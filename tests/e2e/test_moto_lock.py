"""moto behind our lock loses no acknowledged write; without it, races between workers would prove nothing."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from moto import mock_aws

from infra.local.moto_server import MotoServer, install_lock
from infra.table import create_table_request

THREADS = 8
ATTEMPTS = 20
KEY = {"pk": {"S": "counter"}, "sk": {"S": "-"}}


@pytest.fixture(params=["in-process", "server"])
def dynamodb(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a locked moto with an empty table, in both ways moto can run."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "local")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    if request.param == "in-process":
        install_lock()
        with mock_aws():
            yield _with_table(boto3.client("dynamodb", region_name="us-east-1"))
    else:
        server = MotoServer()
        yield _with_table(boto3.client("dynamodb", region_name="us-east-1", endpoint_url=server.url))
        server.close()


def _with_table(client: Any) -> Any:
    client.create_table(**create_table_request("runs"))
    client.put_item(TableName="runs", Item={**KEY, "ver": {"N": "0"}})
    return client


def _counted(dynamodb: Any) -> int:
    found = dynamodb.get_item(TableName="runs", Key=KEY, ConsistentRead=True)["Item"]
    return int(found["ver"]["N"])


def _increments(dynamodb: Any, start: Callable[[], Any]) -> int:
    """Optimistic increments by one thread; how many were acknowledged."""
    start()
    acknowledged = 0
    for _ in range(ATTEMPTS):
        version = _counted(dynamodb)
        try:
            dynamodb.update_item(
                TableName="runs",
                Key=KEY,
                UpdateExpression="SET ver = :next",
                ConditionExpression="ver = :old",
                ExpressionAttributeValues={":old": {"N": str(version)}, ":next": {"N": str(version + 1)}},
            )
        except dynamodb.exceptions.ConditionalCheckFailedException:
            continue
        acknowledged += 1
    return acknowledged


def test_racing_conditional_updates_lose_nothing(dynamodb: Any) -> None:
    """Eight threads increment under a condition: the version is the number of acknowledged writes, exactly."""
    barrier = threading.Barrier(THREADS)
    with ThreadPoolExecutor(THREADS) as threads:
        racers = [threads.submit(_increments, dynamodb, barrier.wait) for _ in range(THREADS)]
    acknowledged = sum(racer.result() for racer in racers)
    assert acknowledged == _counted(dynamodb)
    assert acknowledged >= ATTEMPTS
