"""Queues and schedulers keep the promises of the ports; what goes over the wire is as AWS wants it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flowcore.adapters.aws import ClientError, code_of, scheduler_client, sqs_client
from flowcore.adapters.memory import MemoryQueue, MemoryScheduler
from flowcore.adapters.scheduler import SOONEST, EventBridgeScheduler, schedule_name
from flowcore.adapters.sqs import SqsQueue, decode_hint, encode_hint, queue_arn
from flowcore.adapters.system import SystemClock
from flowcore.errors import MalformedRequest, QueueUnavailable, SchedulerUnavailable
from flowcore.keys import RunRef
from flowcore.ports import Hint
from flowcore.testing.contract import NOW, RUN, SECOND, QueueContract, SchedulerContract
from flowcore.testing.moto import REGION

ROLE = "arn:aws:iam::123456789012:role/hints"
QUEUE = "arn:aws:sqs:eu-central-1:123456789012:work"


class StandingClock:
    """A clock that shows the same time for ever."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def wait_until(self, instant: datetime) -> None:
        raise AssertionError("nobody waits here")


class TestMemoryQueue(QueueContract):
    """``MemoryQueue`` is a queue."""

    @pytest.fixture
    def queue(self) -> MemoryQueue:
        return MemoryQueue(StandingClock(NOW))

    def arrived(self, queue: MemoryQueue) -> list[Hint]:
        return queue.pop_due(NOW)

    def test_hints_come_in_the_order_of_their_delays(self, queue: MemoryQueue) -> None:
        """Each once, when its delay has passed, and it is known when the next one comes."""
        hints = [Hint(run=RunRef("acme", f"r-{number}"), at=NOW) for number in range(3)]
        for hint, delay_s in zip(hints, (20, 10, 10), strict=True):
            queue.send(hint, delay_s=delay_s)
        assert list(zip(hints, (20, 10, 10), strict=True)) == queue.sent
        assert NOW + 10 * SECOND == queue.next_at()
        assert hints[1:] == queue.pop_due(NOW + 10 * SECOND)
        assert hints[:1] == queue.pop_due(NOW + 20 * SECOND)
        assert queue.next_at() is None


class TestMemoryScheduler(SchedulerContract):
    """``MemoryScheduler`` is a scheduler."""

    @pytest.fixture
    def scheduler(self) -> MemoryScheduler:
        return MemoryScheduler()

    def standing(self, scheduler: MemoryScheduler) -> list[Hint]:
        return scheduler.pop_due(datetime.max.replace(tzinfo=UTC))

    def test_hints_fire_when_their_instant_comes(self, scheduler: MemoryScheduler) -> None:
        """Each once, the earliest first, and it is known when the next one comes."""
        for minutes in (3, 1, 2):
            scheduler.schedule(Hint(run=RUN, at=NOW + timedelta(minutes=minutes)), version=minutes)
        assert NOW + timedelta(minutes=1) == scheduler.next_at()
        fired = scheduler.pop_due(NOW + timedelta(minutes=2))
        assert [NOW + timedelta(minutes=minutes) for minutes in (1, 2)] == [hint.at for hint in fired]
        assert NOW + timedelta(minutes=3) == scheduler.next_at()


class TestSqsQueue(QueueContract):
    """``SqsQueue`` is a queue."""

    api: Any
    url: str

    @pytest.fixture
    def sqs(self, aws: None) -> Any:
        return sqs_client(region=REGION)

    @pytest.fixture
    def queue(self, sqs: Any) -> Iterator[SqsQueue]:
        self.api, self.url = sqs, sqs.create_queue(QueueName="work")["QueueUrl"]
        yield SqsQueue(sqs, self.url)
        sqs.delete_queue(QueueUrl=self.url)

    def arrived(self, queue: SqsQueue) -> list[Hint]:
        messages = self.api.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get("Messages", [])
        return [decode_hint(message["Body"]) for message in messages]

    def test_a_missing_queue_is_unavailable(self, sqs: Any) -> None:
        """And named."""
        with pytest.raises(QueueUnavailable, match="nowhere"):
            SqsQueue(sqs, "https://sqs.eu-central-1.amazonaws.com/1/nowhere").send(Hint(run=RUN, at=NOW), delay_s=0)

    def test_the_arn_is_derived(self, queue: SqsQueue, sqs: Any) -> None:
        """From the URL, as SQS itself says it."""
        told = sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        assert told == queue_arn(self.url, region=REGION, role_arn=ROLE)


class TestEventBridgeScheduler(SchedulerContract):
    """``EventBridgeScheduler`` is a scheduler."""

    api: Any

    @pytest.fixture
    def client(self, aws: None) -> Any:
        return scheduler_client(region=REGION)

    @pytest.fixture
    def scheduler(self, client: Any) -> Iterator[EventBridgeScheduler]:
        self.api = client
        client.create_schedule_group(Name="hints")
        yield EventBridgeScheduler(client, "hints", ROLE, QUEUE, clock=StandingClock(NOW))
        client.delete_schedule_group(Name="hints")

    def standing(self, scheduler: EventBridgeScheduler) -> list[Hint]:
        names = [each["Name"] for each in self.api.list_schedules(GroupName="hints")["Schedules"]]
        schedules = [self.api.get_schedule(GroupName="hints", Name=name) for name in names]
        return [decode_hint(schedule["Target"]["Input"]) for schedule in schedules]

    @pytest.mark.parametrize(
        ("at", "expression"),
        [
            (datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC), "at(2026-03-04T05:06:07)"),
            (datetime(2026, 3, 4, 5, 6, 7, 1_000, tzinfo=UTC), "at(2026-03-04T05:06:08)"),
            (datetime(2026, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC), "at(2027-01-01T00:00:00)"),
            (datetime(9999, 12, 31, 23, 59, 59, 1_000, tzinfo=UTC), "at(9999-12-31T23:59:59)"),
            (NOW - SECOND, "at(2026-03-01T12:01:01)"),
            (NOW + SOONEST, "at(2026-03-01T12:01:01)"),
        ],
        ids=["whole", "rounded up", "over midnight", "the last there is", "past", "soonest"],
    )
    def test_a_schedule_fires_once_and_not_too_early(
        self, scheduler: EventBridgeScheduler, at: datetime, expression: str
    ) -> None:
        """At a whole second in UTC, not before the hint's instant, never in the past; then it is gone."""
        scheduler.schedule(Hint(run=RUN, at=at), version=3)
        made = self.api.get_schedule(GroupName="hints", Name=schedule_name(RUN, 3))
        assert expression == made["ScheduleExpression"]
        assert ("UTC", "DELETE") == (made["ScheduleExpressionTimezone"], made["ActionAfterCompletion"])
        assert {"Mode": "OFF"} == made["FlexibleTimeWindow"]
        assert (QUEUE, ROLE) == (made["Target"]["Arn"], made["Target"]["RoleArn"])

    def test_a_schedule_that_an_earlier_run_has_left_is_moved(self, scheduler: EventBridgeScheduler) -> None:
        """A wait of it was answered early; the later run of that id has come to the same version, and sleeps longer."""
        for days in (3, 7):
            scheduler.schedule(Hint(run=RUN, at=NOW + timedelta(days=days)), version=3)
        assert [Hint(run=RUN, at=NOW + timedelta(days=7))] == self.standing(scheduler)
        made = self.api.get_schedule(GroupName="hints", Name=schedule_name(RUN, 3))
        assert f"at({NOW + timedelta(days=7, seconds=1):%Y-%m-%dT%H:%M:%S})" == made["ScheduleExpression"]
        assert ("UTC", "DELETE") == (made["ScheduleExpressionTimezone"], made["ActionAfterCompletion"])

    def test_a_missing_group_is_unavailable(self, client: Any) -> None:
        """And named."""

        class NoGroup:
            def create_schedule(self, **request: Any) -> Any:
                raise ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "CreateSchedule")

            def update_schedule(self, **request: Any) -> Any:
                raise ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "UpdateSchedule")

            def delete_schedule(self, **request: Any) -> Any:
                raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "DeleteSchedule")

        scheduler = EventBridgeScheduler(NoGroup(), "nowhere", ROLE, QUEUE, clock=SystemClock())
        with pytest.raises(SchedulerUnavailable, match="nowhere"):
            scheduler.schedule(Hint(run=RUN, at=NOW), version=1)
        with pytest.raises(SchedulerUnavailable, match="nowhere"):
            scheduler.unschedule(RUN, version=1)


def test_schedule_names_are_allowed_and_differ() -> None:
    """Whatever the run is called, and although one tenant's run may look like another's."""
    runs = [RunRef("a", "b"), RunRef("a", "b#1"), RunRef("x" * 128, "y" * 128), RunRef("a:b", "c"), RunRef("a", "b:c")]
    names = {schedule_name(run, version) for run in runs for version in (1, 11, 2**40)}
    assert 3 * len(runs) == len(names)
    assert all(len(name) <= 64 and name.isalnum() for name in names)


def test_a_hint_round_trips() -> None:
    """Run, tenant and instant."""
    hint = Hint(run=RunRef("acme", "r@1:2"), at=NOW)
    assert '{"v":1,"tenant":"acme","run":"r@1:2","at":1772366400123}' == encode_hint(hint)
    assert hint == decode_hint(encode_hint(hint))


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"v":2,"tenant":"a","run":"r","at":1}',
        '{"v":1,"tenant":"a","run":"r"}',
        '{"v":1,"tenant":"a","run":"r","at":"1"}',
        '{"v":1,"tenant":"a","run":"r","at":true}',
        '{"v":1,"tenant":"a","run":"r","at":1.5}',
        '{"v":1,"tenant":"a","run":"r","at":-1}',
        '{"v":1,"tenant":"a","run":"r","at":1e999}',
        '{"v":1,"tenant":"a","run":"r","at":99999999999999999999}',
        '{"v":1,"tenant":"a#R","run":"r","at":1}',
        '{"v":1,"tenant":"a","run":"","at":1}',
        "[" * 100_000,
    ],
    ids=lambda body: body[:40],
)
def test_what_is_no_hint_is_malformed(body: str) -> None:
    """Anything may lie in a queue."""
    with pytest.raises(MalformedRequest, match="not a hint"):
        decode_hint(body)


def test_arns_keep_their_partition() -> None:
    """China and GovCloud have their own."""
    url = "http://127.0.0.1:5000/123456789012/work"
    expected = "arn:aws-cn:sqs:cn-north-1:123456789012:work"
    assert expected == queue_arn(url, region="cn-north-1", role_arn="arn:aws-cn:iam::123456789012:role/x")


def test_errors_without_a_reply_are_called_by_their_name() -> None:
    """There is no code then."""
    assert "ValueError" == code_of(ValueError())
