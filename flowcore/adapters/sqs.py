"""Hints through SQS: the message's form, sending it, and the queue's other name.

The queue is a standard one: it may deliver twice and in any order, and the engine does not mind.
"""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from flowcore.adapters.aws import AwsError, SqsClient
from flowcore.adapters.dynamodb_attributes import from_ms, to_ms
from flowcore.errors import InvariantError, MalformedRequest, QueueUnavailable
from flowcore.keys import RunRef, is_run_id
from flowcore.ports import Hint

_FORM = 1
_LATEST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, which is the last a ``datetime`` can be."""


def encode_hint(hint: Hint) -> str:
    """The body of the message that carries ``hint``; schedules carry the same."""
    body = {"v": _FORM, "tenant": hint.run.tenant, "run": hint.run.id, "at": to_ms(hint.at)}
    return json.dumps(body, separators=(",", ":"))


def decode_hint(body: str) -> Hint:
    """The hint in a message's body.

    Raises:
        MalformedRequest: this is no hint, or one of a later flowcore.
    """
    try:
        match json.loads(body):
            case {"v": 1, "tenant": str(tenant), "run": str(run), "at": int(at)} if (
                is_run_id(tenant) and is_run_id(run) and not isinstance(at, bool) and 0 <= at <= _LATEST_MS
            ):
                return Hint(run=RunRef(tenant, run), at=from_ms(at))
    except (ValueError, TypeError, RecursionError) as error:
        raise MalformedRequest(f"This message is not a hint: {error}") from error
    raise MalformedRequest(f"This message is not a hint of form {_FORM}: {body[:200]!r}")


def queue_arn(queue_url: str, *, region: str, role_arn: str) -> str:
    """The ARN of the queue at ``queue_url``, in the AWS partition that ``role_arn`` lies in."""
    *_, account, name = urlsplit(queue_url).path.split("/")
    partition = role_arn.split(":")[1]
    return f"arn:{partition}:sqs:{region}:{account}:{name}"


class SqsQueue:
    """``flowcore.ports.Queue`` on one standard queue."""

    max_delay_s = 900
    """Source: Amazon SQS Developer Guide, "Message timers"."""

    def __init__(self, client: SqsClient, queue_url: str) -> None:
        self._client = client
        self._url = queue_url

    def send(self, hint: Hint, *, delay_s: int) -> None:
        """See ``Queue.send``."""
        if not 0 <= delay_s <= self.max_delay_s:
            raise InvariantError(f"A message can wait 0 to {self.max_delay_s} seconds, not {delay_s}.")
        try:
            self._client.send_message(QueueUrl=self._url, MessageBody=encode_hint(hint), DelaySeconds=delay_s)
        except AwsError as error:
            raise QueueUnavailable(f"Queue {self._url!r} took no message: {error}") from error
