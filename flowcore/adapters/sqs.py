"""Hints through SQS: the message's form, sending it, and the queue's other name.

The queue is a standard one: it may deliver twice and in any order, and the engine does not mind.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import urlsplit

from flowcore.adapters.aws import AwsError, Reply, SqsClient
from flowcore.adapters.dynamodb_attributes import from_ms, to_ms
from flowcore.errors import InvariantError, MalformedRequest, QueueUnavailable, SettingsError
from flowcore.keys import RunRef, is_run_id
from flowcore.ports import Hint, Letter

_FORM = 1
_HIDDEN_S = 300
"""How long a dead letter that somebody has taken is not seen by others."""
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


class SqsDeadLetters:
    """``flowcore.ports.DeadLetters`` on the dead letter queue of a work queue."""

    def __init__(self, client: SqsClient, queue_url: str, *, look_s: int = 1) -> None:
        """The dead letters at ``queue_url``; ``of`` finds them by the work queue.

        Args:
            look_s: seconds that a look takes which finds nothing. With 0, SQS asks only some of its servers, and may
                say that there is nothing where there is something.
        """
        self._client = client
        self._url = queue_url
        self._look_s = look_s

    @classmethod
    def of(cls, client: SqsClient, work_queue_url: str, *, look_s: int = 1) -> SqsDeadLetters:
        """Those of the queue at ``work_queue_url``, as its redrive policy says.

        Raises: QueueUnavailable; SettingsError when the queue has no dead letter queue.
        """
        try:
            told = client.get_queue_attributes(QueueUrl=work_queue_url, AttributeNames=["RedrivePolicy"])
            policy = json.loads(told.get("Attributes", {}).get("RedrivePolicy", "{}"))
            if "deadLetterTargetArn" not in policy:
                raise SettingsError(f"Queue {work_queue_url!r} has no dead letter queue; give it a RedrivePolicy.")
            *_, account, name = policy["deadLetterTargetArn"].split(":")
            url = client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]
        except AwsError as error:
            raise QueueUnavailable(f"The dead letters of {work_queue_url!r} cannot be found: {error}") from error
        return cls(client, url, look_s=look_s)

    def take(self, limit: int) -> Sequence[Letter]:
        """See ``DeadLetters.take``."""
        try:
            reply = self._client.receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=limit, VisibilityTimeout=_HIDDEN_S, WaitTimeSeconds=self._look_s
            )
        except AwsError as error:
            raise QueueUnavailable(f"Queue {self._url!r} gives no messages: {error}") from error
        return [_letter(message) for message in reply.get("Messages", [])]

    def discard(self, letter: Letter) -> None:
        """See ``DeadLetters.discard``."""
        try:
            self._client.delete_message(QueueUrl=self._url, ReceiptHandle=letter.handle)
        except AwsError as error:
            raise QueueUnavailable(f"Queue {self._url!r} keeps message {letter.id!r}: {error}") from error


def _letter(message: Reply) -> Letter:
    try:
        hint = decode_hint(message["Body"])
    except MalformedRequest:
        hint = None
    return Letter(id=message["MessageId"], handle=message["ReceiptHandle"], hint=hint)
