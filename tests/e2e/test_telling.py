"""Runs are told of: from the stream of the table over the bus to a rule's target, and as letters to a receiver."""

from __future__ import annotations

import importlib
import json
import logging
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from standardwebhooks import Webhook

from examples.expense import app as expense
from flowcore import App
from flowcore.cloudevents import RUN_KINDS
from flowcore.errors import MalformedRequest
from flowcore.outgoing import Letter, Outgoing, encode_letter
from flowcore.settings import Settings
from flowcore.testing.moto import REGION
from tests.e2e.deployment import Context, Deployment

LARGE = {"employee": "ada", "amount": 60_000, "purpose": "a telescope"}
SECRET = "whsec_" + "QUJD" * 8
TOLD = {
    *("run-started", "run-running", "run-suspended", "run-resumed", "run-waiting"),
    *("step-suspended", "step-resumed"),
}


class Receiver(BaseHTTPRequestHandler):
    """Remembers what came; does not take the first letter."""

    seen: list[tuple[dict[str, str], str]] = []  # noqa: RUF012  # emptied by the fixture

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        self.seen.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(503 if len(self.seen) == 1 else 204)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def told(deployment: Deployment, clients: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A deployment that tells of its runs."""
    Receiver.seen.clear()
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    url = f"http://localhost:{server.server_address[1]}/x"
    app = App(
        *expense.workflows.values(),
        events=[*RUN_KINDS, "step-suspended", "step-resumed"],
        outgoing=[
            Outgoing(name="ledger", url=url, secret="env:LEDGER", events=["run-suspended"], allow_local=True),
        ],
    )
    module: Any = SimpleNamespace(app=app)
    monkeypatch.setitem(sys.modules, "telling_app", module)
    bus, table = boto3.client("events", region_name=REGION), Settings.read().table
    letters = deployment.sqs.create_queue(QueueName="letters")["QueueUrl"]
    heard = deployment.sqs.create_queue(QueueName="heard")["QueueUrl"]
    bus.create_event_bus(Name="runs")
    bus.put_rule(Name="all", EventBusName="runs", EventPattern=json.dumps({"source": ["flowcore"]}))
    arn = deployment.sqs.get_queue_attributes(QueueUrl=heard, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    bus.put_targets(Rule="all", EventBusName="runs", Targets=[{"Id": "q", "Arn": arn}])
    clients["dynamodb"].update_table(
        TableName=table, StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    )
    for name, value in {
        "FLOWCORE_APP": "telling_app:app",
        "FLOWCORE_EVENT_BUS": "runs",
        "FLOWCORE_OUTGOING_QUEUE_URL": letters,
        "LEDGER": SECRET,
    }.items():
        monkeypatch.setenv(name, value)
    deployment.start_cold()
    yield SimpleNamespace(deployment=deployment, letters=letters, heard=heard, table=table)
    server.shutdown()
    server.server_close()
    bus.remove_targets(Rule="all", EventBusName="runs", Ids=["q"])
    bus.delete_rule(Name="all", EventBusName="runs")
    bus.delete_event_bus(Name="runs")
    for url in (letters, heard):
        deployment.sqs.delete_queue(QueueUrl=url)
    for name in ("handlers.events", "handlers.outgoing"):
        sys.modules.pop(name, None)


def changes(table: str) -> list[dict[str, Any]]:
    """What Lambda would read from the stream."""
    endpoint = f"https://streams.dynamodb.{REGION}.amazonaws.com"  # the only one that moto knows
    streams = boto3.client("dynamodbstreams", region_name=REGION, endpoint_url=endpoint)
    [stream] = [one["StreamArn"] for one in streams.list_streams(TableName=table)["Streams"]]
    found: list[dict[str, Any]] = []
    for shard in streams.describe_stream(StreamArn=stream)["StreamDescription"]["Shards"]:
        iterator = streams.get_shard_iterator(
            StreamArn=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator and (page := streams.get_records(ShardIterator=iterator))["Records"]:
            found += page["Records"]
            iterator = page.get("NextShardIterator")
    return found


def test_run_is_told_of_on_the_bus_and_over_https(told: SimpleNamespace) -> None:
    """Each change once and in order, in the stream, on the bus and, signed, at the receiver, who is asked again."""
    deployment = told.deployment
    deployment.call("POST", "/v1/workflows/expense/runs", {"input": LARGE, "run_id": "r-1"})
    deployment.settle()
    deployment.call("POST", "/v1/runs/r-1/resume", {"data": {"approved": True}})
    deployment.settle()
    events: Any = importlib.import_module("handlers.events")
    assert {"batchItemFailures": []} == events.handler({"Records": changes(told.table)}, Context())

    heard = [json.loads(body)["detail"] for body in _taken(deployment.sqs, told.heard)]
    assert {f"dev.flowcore.{kind}" for kind in TOLD} == {event["type"] for event in heard}
    versions = [event["data"]["version"] for event in heard if "version" in event["data"]]
    assert (len(TOLD), sorted(versions)) == (len(heard), versions)
    assert {"r-1"} == {event["subject"] for event in heard}
    assert not any("telescope" in json.dumps(event) for event in heard)

    [letter] = _taken(deployment.sqs, told.letters, keep=True)
    first = deployment.work(letter, function="handlers.outgoing")
    second = deployment.work(letter, function="handlers.outgoing")
    assert (["m-0"], []) == (first, second)
    (early, _), (headers, body) = Receiver.seen
    assert early["webhook-id"] == headers["webhook-id"]
    assert "dev.flowcore.run-suspended" == Webhook(SECRET).verify(body, headers)["type"]


def _taken(sqs: Any, url: str, *, keep: bool = False) -> list[str]:
    found: list[str] = []
    while batch := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        found += [message["Body"] for message in batch]
        for message in batch:
            if not keep:
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return found


def test_letter_waits_as_long_for_a_secret_of_ours_as_for_its_receiver(
    told: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A secret that cannot be read just now does not use up the tries of two days within the hour."""
    monkeypatch.delenv("LEDGER")
    message = encode_letter(Letter(to="ledger", id="evt_1", body="{}"))
    assert ["m-0"] == told.deployment.work(message, function="handlers.outgoing")
    assert '"LettersNotTaken":[1.0]' in capsys.readouterr().out
    assert [] == Receiver.seen


def test_message_that_is_no_letter_is_told_of_in_the_log(
    told: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It comes again until it is set aside, and whoever finds it there wants to know why."""
    monkeypatch.setattr(told.deployment._function("handlers.outgoing").logger._logger, "level", logging.ERROR)
    assert ["m-0"] == told.deployment.work("{}", function="handlers.outgoing")
    [failed] = [line for line in caplog.records if line.message == "letter broke down"]
    assert failed.exc_info is not None
    assert ("m-0", MalformedRequest) == (vars(failed)["message_id"], failed.exc_info[0])
