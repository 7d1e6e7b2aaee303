"""boto3 at one place: how a client is made, which parts of one we use, and what its exceptions mean.

boto3 has no types, so the clients are described here as Protocols; a test double needs no more than these.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError as BotoCoreError  # noqa: PLC0414  # the other adapters have it from here
from botocore.exceptions import ClientError as ClientError  # noqa: PLC0414  # the same

Reply: TypeAlias = dict[str, Any]

AwsError = (BotoCoreError, ClientError)
"""Everything a client raises: no usable reply, or a reply that says no."""

CONNECT_TIMEOUT_S = 2
READ_TIMEOUT_S = 3
"""botocore would wait 60 seconds for a reply, longer than a worker's lease lives."""
S3_READ_TIMEOUT_S = 10
"""Storing 50 MB or deleting a thousand objects takes S3 longer than anything else takes that is asked of AWS; a caller
over HTTP has 29 seconds in all, into which two tries fit."""


class DynamoClient(Protocol):
    """The low-level DynamoDB operations that flowcore uses."""

    @property
    def meta(self) -> Any: ...
    def put_item(self, **request: Any) -> Reply: ...
    def update_item(self, **request: Any) -> Reply: ...
    def get_item(self, **request: Any) -> Reply: ...
    def delete_item(self, **request: Any) -> Reply: ...
    def query(self, **request: Any) -> Reply: ...
    def transact_write_items(self, **request: Any) -> Reply: ...


class SqsClient(Protocol):
    """The SQS operations that flowcore uses; all but the first for dead letters only."""

    def send_message(self, **request: Any) -> Reply: ...
    def receive_message(self, **request: Any) -> Reply: ...
    def delete_message(self, **request: Any) -> Reply: ...
    def get_queue_attributes(self, **request: Any) -> Reply: ...
    def get_queue_url(self, **request: Any) -> Reply: ...


class EventsClient(Protocol):
    """The EventBridge operation that flowcore uses."""

    def put_events(self, **request: Any) -> Reply: ...


class OutgoingClient(Protocol):
    """The SQS operations with which letters are kept."""

    def send_message(self, **request: Any) -> Reply: ...
    def change_message_visibility(self, **request: Any) -> Reply: ...


class S3Client(Protocol):
    """The S3 operations that flowcore uses."""

    def put_object(self, **request: Any) -> Reply: ...
    def get_object(self, **request: Any) -> Reply: ...
    def list_objects_v2(self, **request: Any) -> Reply: ...
    def delete_objects(self, **request: Any) -> Reply: ...


class SchedulerClient(Protocol):
    """The EventBridge Scheduler operations that flowcore uses."""

    def create_schedule(self, **request: Any) -> Reply: ...
    def update_schedule(self, **request: Any) -> Reply: ...
    def delete_schedule(self, **request: Any) -> Reply: ...


def dynamo_client(*, region: str | None = None, endpoint: str | None = None) -> DynamoClient:
    """A client for ``DynamoStore``; without arguments, what the Lambda environment says.

    It tries once: whoever asks tries again, for as long as a caller has time. Tries of both would be multiplied.
    """
    return cast("DynamoClient", _client("dynamodb", region, endpoint, tries=1))


def sqs_client(*, region: str | None = None, endpoint: str | None = None) -> SqsClient:
    """A client for ``SqsQueue``."""
    return cast("SqsClient", _client("sqs", region, endpoint))


def events_client(*, region: str | None = None, endpoint: str | None = None) -> EventsClient:
    """A client for ``EventBridge``."""
    return cast("EventsClient", _client("events", region, endpoint))


def mail_client(*, region: str | None = None, endpoint: str | None = None) -> OutgoingClient:
    """A client for ``SqsMail``."""
    return cast("OutgoingClient", _client("sqs", region, endpoint))


def s3_client(*, region: str | None = None, endpoint: str | None = None) -> S3Client:
    """A client for ``S3Blobs``."""
    return cast("S3Client", _client("s3", region, endpoint, read_timeout_s=S3_READ_TIMEOUT_S))


def scheduler_client(*, region: str | None = None, endpoint: str | None = None) -> SchedulerClient:
    """A client for ``EventBridgeScheduler``."""
    return cast("SchedulerClient", _client("scheduler", region, endpoint))


def code_of(error: Exception) -> str:
    """AWS's word for what was wrong, or the exception's name when no reply came."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "Unknown"))
    return type(error).__name__


def is_silence(error: Exception) -> bool:
    """Whether AWS gave no verdict: no connection, no reply in time, or a fault of its own."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return bool(status >= 500) or code_of(error) in {"InternalServerError", "ServiceUnavailable"}
    return isinstance(error, BotoCoreError)


def _client(
    service: str, region: str | None, endpoint: str | None, *, tries: int = 3, read_timeout_s: int = READ_TIMEOUT_S
) -> Any:
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": tries},
        user_agent_extra="flowcore",
    )
    return boto3.client(service, region_name=region, endpoint_url=endpoint, config=config)
