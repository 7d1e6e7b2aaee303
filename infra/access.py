"""Who may do what: the IAM verbs of each role, as data.

Owns the list a reviewer reads. template.yaml grants exactly this, held together by a house test; a verb is added here
and there in one change, with a reason. No role has ``*`` as its resource.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Grant:
    """Some verbs on one resource; ``on`` names it as README.md does."""

    on: str
    verbs: frozenset[str]


def _grant(on: str, *verbs: str) -> Grant:
    return Grant(on, frozenset(verbs))


_ITEMS = _grant(
    "table",
    "dynamodb:ConditionCheckItem",
    "dynamodb:DeleteItem",
    "dynamodb:GetItem",
    "dynamodb:PutItem",
    "dynamodb:Query",
    "dynamodb:UpdateItem",
)
_VALUES = (
    _grant("values", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"),
    _grant("bucket", "s3:ListBucket"),
)
_SEND = _grant("queue", "sqs:SendMessage")
_TAKE_ANSWERS = _grant("resume queue", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage")
_SCHEDULES = _grant("schedules", "scheduler:CreateSchedule", "scheduler:DeleteSchedule", "scheduler:UpdateSchedule")
_LINKS = _grant("link secret", "secretsmanager:GetSecretValue")
_PASS = _grant("schedule role", "iam:PassRole")


def _logs(of: str) -> Grant:
    return _grant(of, "logs:CreateLogStream", "logs:PutLogEvents")


GRANTS: Mapping[str, tuple[Grant, ...]] = MappingProxyType(
    {
        "ApiRole": (
            _ITEMS,
            _grant("list-index", "dynamodb:Query"),
            *_VALUES,
            _SEND,
            _SCHEDULES,
            _PASS,
            _LINKS,
            _logs("api logs"),
        ),
        "WebhookRole": (
            _ITEMS,
            *_VALUES,
            _SEND,
            _SCHEDULES,
            _PASS,
            _LINKS,
            _grant("webhook secrets", "secretsmanager:GetSecretValue"),
            _grant("webhook parameters", "ssm:GetParameter"),
            _logs("webhook logs"),
        ),
        "WorkerRole": (
            _ITEMS,
            *_VALUES,
            _grant("queue", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:SendMessage"),
            _SCHEDULES,
            _PASS,
            _LINKS,
            _logs("worker logs"),
        ),
        "ResumeRole": (
            _ITEMS,
            *_VALUES,
            _SEND,
            _TAKE_ANSWERS,
            _SCHEDULES,
            _PASS,
            _logs("resume logs"),
        ),
        "EventsRole": (
            _grant(
                "stream",
                "dynamodb:DescribeStream",
                "dynamodb:GetRecords",
                "dynamodb:GetShardIterator",
                "dynamodb:ListStreams",
            ),
            _grant("event bus", "events:PutEvents"),
            _grant("outgoing queue", "sqs:SendMessage"),
            _grant("events dead letters", "sqs:SendMessage"),
            _logs("events logs"),
        ),
        "OutgoingRole": (
            _grant(
                "outgoing queue",
                "sqs:ChangeMessageVisibility",
                "sqs:DeleteMessage",
                "sqs:GetQueueAttributes",
                "sqs:ReceiveMessage",
            ),
            _grant("webhook secrets", "secretsmanager:GetSecretValue"),
            _grant("webhook parameters", "ssm:GetParameter"),
            _logs("outgoing logs"),
        ),
        "SweepRole": (_grant("due-index", "dynamodb:Query"), _SEND, _logs("sweep logs")),
        "ScheduleRole": (_SEND,),
    }
)
"""Logical id of the role -> its grants."""
