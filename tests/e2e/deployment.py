"""A deployment in this process: the real handlers on moto, started cold at any instant.

Time moves by starting the functions anew with a clock that is ahead, which is what happens to a real run that waits for
days: another process image, at another time. What would take real time (a message's delay, a schedule) is handed to
the worker by the test, as the event that AWS would send.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import pytest

HANDLERS = ("handlers.bootstrap", "handlers.api", "handlers.worker", "handlers.sweep", "handlers.resume")


@dataclass
class Context:
    """The Lambda context, as far as the handlers read it."""

    function_name: str = "flowcore"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = "arn:aws:lambda:eu-central-1:123456789012:function:flowcore"
    aws_request_id: str = "00000000-0000-0000-0000-000000000000"
    remaining_ms: int = 60_000

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining_ms


@dataclass
class Answer:
    """What the API said."""

    status: int
    body: Any
    headers: Mapping[str, str]


@dataclass
class Deployment:
    """The functions of one deployment on the AWS of this process."""

    sqs: Any
    scheduler: Any
    queue_url: str
    group: str
    patch: pytest.MonkeyPatch
    offset: timedelta = timedelta(0)
    caller: str | None = None
    """Whom the gateway has verified, as the subject of a token."""
    functions: dict[str, ModuleType] = field(default_factory=dict)

    def start_cold(self) -> None:
        """Throw the functions' process image away; the next call imports them anew, at the current offset."""
        self.patch.setenv("FLOWCORE_CLOCK_OFFSET", str(self.offset.total_seconds()))
        for name in HANDLERS:
            sys.modules.pop(name, None)
        self.functions.clear()

    def forward(self, **amount: float) -> None:
        """Let time pass; every function starts cold afterwards."""
        self.offset += timedelta(**amount)
        self.start_cold()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def call(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """One HTTP request through the API function; ``body`` may be raw text."""
        raw = body if isinstance(body, str) or body is None else json.dumps(body)
        path, _, query = path.partition("?")
        event = {
            "version": "2.0",
            "routeKey": "$default",
            "rawPath": path,
            "rawQueryString": query,
            "headers": {"content-type": "application/json", **{k.lower(): v for k, v in (headers or {}).items()}},
            "queryStringParameters": _joined(query) if query else None,
            "requestContext": {
                "http": {
                    "method": method,
                    "path": path,
                    "sourceIp": "127.0.0.1",
                    "userAgent": "test",
                    "protocol": "HTTP/1.1",
                },
                **({"authorizer": {"jwt": {"claims": {"sub": self.caller}}}} if self.caller else {}),
                "requestId": "request-1",
                "stage": "$default",
            },
            "body": raw,
            "isBase64Encoded": False,
        }
        reply = self._function("handlers.api").handler(event, Context())
        headers_ = {name.lower(): value for name, value in reply.get("headers", {}).items()}
        is_json = headers_.get("content-type", "").endswith("json")
        body = reply.get("body") or None
        return Answer(reply["statusCode"], json.loads(body) if body and is_json else body, headers_)

    def work(self, *bodies: str, remaining_ms: int = 60_000, function: str = "handlers.worker") -> list[str]:
        """Hand messages to the worker, or another function, in one batch; the ids of those that failed."""
        records = [
            {
                "messageId": f"m-{number}",
                "receiptHandle": "r",
                "body": body,
                "attributes": {"ApproximateReceiveCount": "1"},
                "messageAttributes": {},
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:work",
                "awsRegion": "eu-central-1",
            }
            for number, body in enumerate(bodies)
        ]
        reply = self._function(function).handler({"Records": records}, Context(remaining_ms=remaining_ms))
        return [failure["itemIdentifier"] for failure in reply["batchItemFailures"]]

    def sweep(self) -> int:
        """Let the sweeper run once; how many hints it sent."""
        return int(self._function("handlers.sweep").handler({}, Context())["sent"])

    def messages(self) -> list[str]:
        """Take every visible message off the queue."""
        taken: list[str] = []
        while batch := self.sqs.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=10).get("Messages"):
            for message in batch:
                taken.append(message["Body"])
                self.sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])
        return taken

    def fire_schedules(self) -> int:
        """Do what EventBridge Scheduler does: send each due one-shot's input to its target, then forget it."""
        fired = 0
        for line in self.scheduler.list_schedules(GroupName=self.group)["Schedules"]:
            schedule = self.scheduler.get_schedule(GroupName=self.group, Name=line["Name"])
            match = re.fullmatch(r"at\((.+)\)", schedule["ScheduleExpression"])
            assert match is not None
            if datetime.fromisoformat(match.group(1)).replace(tzinfo=UTC) <= self.now():
                assert schedule["Target"]["Arn"].endswith(":work")
                self.sqs.send_message(QueueUrl=self.queue_url, MessageBody=schedule["Target"]["Input"])
                self.scheduler.delete_schedule(GroupName=self.group, Name=line["Name"])
                fired += 1
        return fired

    def settle(self) -> None:
        """Let queue, schedules and sweeper do all they can at this instant."""
        for _ in range(50):
            self.fire_schedules()
            bodies = self.messages()
            if not bodies and self.sweep() == 0:
                return
            for body in bodies:
                assert self.work(body) == []
        raise AssertionError("the deployment does not come to rest")

    def _function(self, name: str) -> ModuleType:
        if name not in self.functions:
            self.functions[name] = importlib.import_module(name)
        return self.functions[name]


def deployed(app: str, table: str, sqs: Any, scheduler: Any, patch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """A deployment that serves ``app`` (``module:attribute``) from ``table``."""
    queue_url = sqs.create_queue(QueueName="work")["QueueUrl"]
    scheduler.create_schedule_group(Name="flowcore")
    for name, value in {
        "FLOWCORE_APP": app,
        "FLOWCORE_TABLE": table,
        "FLOWCORE_QUEUE_URL": queue_url,
        "FLOWCORE_SCHEDULE_GROUP": "flowcore",
        "FLOWCORE_SCHEDULE_ROLE_ARN": "arn:aws:iam::123456789012:role/schedules",
        "AWS_REGION": "eu-central-1",
        "POWERTOOLS_METRICS_NAMESPACE": "a-stack",
        "POWERTOOLS_LOG_LEVEL": "CRITICAL",
    }.items():
        patch.setenv(name, value)
    deployment = Deployment(sqs=sqs, scheduler=scheduler, queue_url=queue_url, group="flowcore", patch=patch)
    deployment.start_cold()
    try:
        yield deployment
    finally:
        for name in HANDLERS:
            sys.modules.pop(name, None)
        for line in scheduler.list_schedules(GroupName="flowcore")["Schedules"]:
            scheduler.delete_schedule(GroupName="flowcore", Name=line["Name"])
        scheduler.delete_schedule_group(Name="flowcore")
        sqs.delete_queue(QueueUrl=queue_url)


def _joined(query: str) -> dict[str, str]:
    """Query parameters as API Gateway hands them on: what is given several times, joined by commas."""
    found: dict[str, list[str]] = {}
    for name, value in (pair.split("=", 1) for pair in query.split("&")):
        found.setdefault(name, []).append(value)
    return {name: ",".join(values) for name, values in found.items()}
