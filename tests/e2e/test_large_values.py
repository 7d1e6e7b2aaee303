"""Values of two megabytes on DynamoDB and S3: through an App, through the deployed handlers, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import boto3
import pytest

from flowcore import App
from flowcore.adapters.dynamodb import DynamoStore
from flowcore.adapters.dynamodb_keys import DUE_INDEX, LIST_INDEX
from flowcore.adapters.s3 import S3Blobs
from flowcore.adapters.system import SystemIds
from flowcore.testing import VirtualClock
from flowcore.testing.contract import noise
from flowcore.testing.meter import Metered
from flowcore.testing.moto import REGION, fresh_table
from tests.e2e.deployment import Deployment, deployed
from tests.e2e.large import large, sleepy

TWO_MB = 2_000_000


@pytest.fixture
def bucket(clients: dict[str, Any]) -> Iterator[str]:
    """An empty bucket."""
    s3: Any = boto3.client("s3", region_name=REGION)
    s3.create_bucket(Bucket="values", CreateBucketConfiguration={"LocationConstraint": REGION})
    yield "values"
    blobs = S3Blobs("values", region=REGION)
    while keys := blobs.keys(""):
        blobs.delete(keys)
    s3.delete_bucket(Bucket="values")


@pytest.fixture
def metered(clients: dict[str, Any]) -> Iterator[tuple[DynamoStore, Metered]]:
    """An empty store and the meter on its client."""
    with fresh_table(clients["dynamodb"]) as table:
        meter = Metered(clients["dynamodb"], (DUE_INDEX, LIST_INDEX))
        yield DynamoStore(meter, table, SystemIds(), pause=lambda _: None), meter


def test_two_megabytes_go_all_the_way(metered: tuple[DynamoStore, Metered], bucket: str) -> None:
    """Start, step, suspend, resume, finish, read from a process that has seen none of it, delete."""
    store, meter = metered
    clock, blobs = VirtualClock(), S3Blobs(bucket, region=REGION)
    given, answer = noise(TWO_MB), noise(TWO_MB)

    def process() -> App:
        return App(large, store=store, clock=clock, blobs=S3Blobs(bucket, region=REGION))

    asked = process().workflow("large").create_run("r-1").start(given)
    assert ("suspended", given) == (asked.status, asked.waits[0].payload)
    done = process().resume("r-1", answer)
    assert ("success", answer + given) == (done.status, done.output)
    seen = process().run("r-1").result()
    assert (given, given, answer) == (seen.input, seen.steps["grow"].output, seen.steps["ask"].resume_data)
    bill = meter.take_bill()
    print(f"\n{bill.write_units} write units, {bill.read_units} read, {bill.calls} requests")
    assert bill.write_units <= 20
    process().run("r-1").delete()
    assert [] == list(blobs.keys(""))


def test_large_input_costs_no_more_than_a_small_one(metered: tuple[DynamoStore, Metered], bucket: str) -> None:
    """Each claim and each release rewrites the head: 300 KB in it would be some 150 units every time."""
    store, meter = metered
    bills = {}
    for name, blobs in (("in the item", None), ("elsewhere", S3Blobs(bucket, region=REGION))):
        app = App(sleepy, store=store, clock=(clock := VirtualClock()), blobs=blobs)
        app.workflow("sleepy").create_run(name.replace(" ", "-")).start(noise(300_000))
        meter.take_bill()
        clock.wait_until(clock.now() + timedelta(days=1, minutes=5))
        app.run(name.replace(" ", "-")).wait()
        bills[name] = meter.take_bill().write_units
    print(f"\nwrite units of a wake, a step and the end: {bills}")
    assert bills["elsewhere"] <= 10
    assert bills["in the item"] > 20 * bills["elsewhere"]


@pytest.fixture
def deployment(clients: dict[str, Any], bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """The large workflow, deployed in this process with its bucket."""
    monkeypatch.setenv("FLOWCORE_BUCKET", bucket)
    with fresh_table(clients["dynamodb"]) as table:
        yield from deployed("tests.e2e.large:app", table, clients["sqs"], clients["scheduler"], monkeypatch)


def test_large_values_go_through_the_handlers(deployment: Deployment) -> None:
    """What fits into a request grows in the worker; each function starts cold in between."""
    given = "i" * 900_000
    started = deployment.call("POST", "/v1/workflows/large/runs", {"input": given, "run_id": "r-1"})
    assert started.status == 202
    deployment.settle()
    deployment.start_cold()
    shown = deployment.call("GET", "/v1/runs/r-1?fields=status,waits")
    assert ("suspended", TWO_MB) == (shown.body["status"], len(shown.body["waits"][0]["payload"]))
    assert 202 == deployment.call("POST", "/v1/runs/r-1/resume", {"data": "a" * 500_000}).status
    deployment.settle()
    ended = deployment.call("GET", "/v1/runs/r-1?fields=status,output,input")
    assert ("success", 2_500_000, given) == (ended.body["status"], len(ended.body["output"]), ended.body["input"])


def test_lost_value_is_told_over_http(deployment: Deployment, bucket: str) -> None:
    """As a conflict with the run, the step and the key; what needs no value is still answered."""
    deployment.call("POST", "/v1/workflows/large/runs", {"input": "i", "run_id": "r-1"})
    deployment.settle()
    blobs = S3Blobs(bucket, region=REGION)
    blobs.delete(blobs.keys(""))
    told = deployment.call("GET", "/v1/runs/r-1")
    assert (409, "r-1") == (told.status, told.body["run_id"])
    assert told.body["type"].endswith("/blob-missing")
    assert told.body["key"].startswith("t-default/r-r-1/")
    assert "suspended" == deployment.call("GET", "/v1/runs/r-1?fields=status").body["status"]
