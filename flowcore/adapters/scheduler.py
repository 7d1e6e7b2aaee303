"""Hints later than a queue can carry them: EventBridge Scheduler fires each once into the work queue and forgets it.

A schedule's name follows from the run and its version, so making it twice makes it once. A wait that was answered early
leaves its schedule behind; a later run of the same id, which comes to the same version, moves that to its own instant.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from flowcore.adapters.aws import AwsError, SchedulerClient, code_of
from flowcore.adapters.dynamodb_keys import partition_of
from flowcore.adapters.sqs import encode_hint
from flowcore.core.heads import later
from flowcore.errors import SchedulerUnavailable
from flowcore.keys import RunRef
from flowcore.ports import Clock, Hint

SOONEST = timedelta(seconds=60)
"""How far ahead a schedule lies at least.

A schedule in the past is an error or never fires, and our clock may be behind AWS's. Sixty seconds is also how exact
the service is, so nothing is lost: what must be sooner goes through the queue.
"""


def schedule_name(run: RunRef, version: int) -> str:
    """The name of the schedule for ``run`` at ``version``: 40 of the 64 characters allowed, all of ``[0-9a-f]``."""
    return hashlib.blake2b(f"{partition_of(run)}#{version}".encode(), digest_size=20).hexdigest()


class EventBridgeScheduler:
    """``flowcore.ports.Scheduler`` on one schedule group."""

    def __init__(self, client: SchedulerClient, group: str, role_arn: str, queue_arn: str, *, clock: Clock) -> None:
        """Make schedules in ``group`` that send to ``queue_arn`` with the rights of ``role_arn``."""
        self._client = client
        self._group = group
        self._role_arn = role_arn
        self._queue_arn = queue_arn
        self._clock = clock

    def schedule(self, hint: Hint, *, version: int) -> None:
        """See ``Scheduler.schedule``."""
        wanted = {
            "Name": schedule_name(hint.run, version),
            "GroupName": self._group,
            "ScheduleExpression": f"at({_whole_second(max(hint.at, self._clock.now() + SOONEST)):%Y-%m-%dT%H:%M:%S})",
            "ScheduleExpressionTimezone": "UTC",
            "FlexibleTimeWindow": {"Mode": "OFF"},
            "ActionAfterCompletion": "DELETE",
            "Target": {"Arn": self._queue_arn, "RoleArn": self._role_arn, "Input": encode_hint(hint)},
        }
        try:
            try:
                self._client.create_schedule(**wanted)
            except AwsError as error:
                if code_of(error) != "ConflictException":
                    raise
                self._client.update_schedule(**wanted)
        except AwsError as error:
            raise SchedulerUnavailable(f"Schedule group {self._group!r} took no schedule: {error}") from error

    def unschedule(self, run: RunRef, *, version: int) -> None:
        """See ``Scheduler.unschedule``."""
        try:
            self._client.delete_schedule(Name=schedule_name(run, version), GroupName=self._group)
        except AwsError as error:
            if code_of(error) != "ResourceNotFoundException":
                raise SchedulerUnavailable(f"Schedule group {self._group!r} kept a schedule: {error}") from error


def _whole_second(instant: datetime) -> datetime:
    """``instant``, or the next whole second: a schedule has no fraction, and one cut off would fire too early."""
    cut = instant.replace(microsecond=0)
    return cut if cut == instant else later(cut, timedelta(seconds=1))
