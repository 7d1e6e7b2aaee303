"""What moves by itself on AWS: the queue poller, the scheduler and the one-minute rate.

Each kind has a ``turn``, one pass over what there is to do; ``Mover`` is the thread that takes turn after turn. They
know SQS and Scheduler through clients only, and treat them as AWS promises them, not better: a failed batch stays
until its visibility timeout, a schedule fires at least once.
"""

import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from infra.local.blueprint import QueueSource, Rate
from infra.local.clock import StackClock
from infra.local.knobs import Knobs
from infra.local.outcomes import Outcome, Returned
from infra.local.schedules import UnknownExpression, due_at
from infra.local.template import ACCOUNT

_LOG = logging.getLogger("infra.local")
_RECEIVE_MAX = 10
"""SQS gives no more in one call."""
_SLOT_WAIT_S = 0.2
"""Short, because nobody can pause the poller while it waits."""

Invoke = Callable[[str, bytes], Outcome]
"""Takes a function's logical id and an event."""
Client = Any


class Mover:
    """A thread that takes turns: at once while there is more to do, else every ``pause`` seconds.

    A turn that fails is logged and tried again.
    """

    def __init__(self, name: str, turn: Callable[[], bool], *, pause: float) -> None:
        self._turn = turn
        self._pause = pause
        self._closing = threading.Event()
        self._nudged = threading.Event()
        self._may_turn = threading.Event()
        self._may_turn.set()
        self._turning = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def nudge(self) -> None:
        """Take the next turn now."""
        self._nudged.set()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No turn is under way inside the block. The event keeps a busy mover from winning the lock again and again."""
        self._may_turn.clear()
        with self._turning:
            yield
        self._may_turn.set()

    def ask_to_close(self) -> None:
        """Take no further turn."""
        self._closing.set()
        self._nudged.set()

    def close(self) -> None:
        """Take no further turn and wait for the one under way."""
        self.ask_to_close()
        self._thread.join(timeout=10)

    def _work(self) -> None:
        while not self._closing.is_set():
            self._may_turn.wait()
            with self._turning:
                more = self._take_turn()
            if not more:
                self._nudged.wait(self._pause)
                self._nudged.clear()

    def _take_turn(self) -> bool:
        try:
            return self._turn()
        except Exception:  # noqa: BLE001  # a mover outlives whatever one turn runs into
            if not self._closing.is_set():
                _LOG.exception("%s: a turn failed, trying again", self._thread.name)
                self._closing.wait(0.5)
            return False


class QueuePoller:
    """Feeds a queue's messages to a function: deletes what succeeded, leaves the rest to the visibility timeout.

    Receives only when an invocation slot is free, so that no message waits here with its visibility running.
    """

    def __init__(
        self, source: QueueSource, sqs: Client, invoke: Invoke, *, slots: int, region: str, knobs: Knobs
    ) -> None:
        self._source = source
        self._knobs = knobs
        self._sqs = sqs
        self._invoke = invoke
        self._region = region
        self._slots = threading.BoundedSemaphore(slots)
        self._deliveries = ThreadPoolExecutor(max_workers=slots, thread_name_prefix="delivery")
        self._receiving = threading.Lock()
        self._held: set[str] = set()
        self.received = 0
        self.copies = 0
        """Of those received: so many have been sent once more."""

    @contextmanager
    def held(self) -> Iterator[frozenset[str]]:
        """Ids of the messages a worker has now; nothing is received inside the block."""
        with self._receiving:
            yield frozenset(self._held)

    def turn(self) -> bool:
        """Receive one batch, if a slot is free, and hand it on; true when there may be more."""
        if not self._slots.acquire(timeout=_SLOT_WAIT_S):
            return False
        batch: Sequence[Mapping[str, Any]] = ()
        try:
            batch = self._receive()
        finally:
            if not batch:
                self._slots.release()
        if batch:
            self._deliveries.submit(self._deliver, batch)
            self._double(batch)
        return bool(batch)

    def close(self) -> None:
        """Wait for deliveries under way; end their sandboxes first, or this takes as long as they do."""
        self._deliveries.shutdown(wait=True, cancel_futures=True)

    def _receive(self) -> Sequence[Mapping[str, Any]]:
        with self._receiving:
            batch: list[Mapping[str, Any]] = self._sqs.receive_message(
                QueueUrl=self._source.queue_url,
                MaxNumberOfMessages=min(self._source.batch_size, _RECEIVE_MAX),
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            ).get("Messages", [])
            self._held.update(message["MessageId"] for message in batch)
            self.received += len(batch)
            return batch

    def _double(self, batch: Sequence[Mapping[str, Any]]) -> None:
        """SQS may deliver a message more than once: now and then a copy comes, at the same time or later."""
        for message in batch:
            if self._knobs.doubles():
                attributes = message.get("MessageAttributes", {})
                self._sqs.send_message(
                    QueueUrl=self._source.queue_url, MessageBody=message["Body"], MessageAttributes=attributes
                )
                self.copies += 1

    def _deliver(self, batch: Sequence[Mapping[str, Any]]) -> None:
        try:
            records = [sqs_record(message, self._source.queue_arn, self._region) for message in batch]
            outcome = self._invoke(self._source.function, json.dumps({"Records": records}).encode())
            failed = failed_ids(outcome, batch, partial=self._source.partial_failures)
            done = [message for message in batch if message["MessageId"] not in failed]
            if done:
                self._sqs.delete_message_batch(
                    QueueUrl=self._source.queue_url,
                    Entries=[{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(done)],
                )
        except Exception:  # noqa: BLE001  # as above
            _LOG.exception("A delivery failed; its messages come again after the visibility timeout")
        finally:
            with self._receiving:
                self._held.difference_update(message["MessageId"] for message in batch)
            self._slots.release()


def sqs_record(message: Mapping[str, Any], queue_arn: str, region: str) -> dict[str, Any]:
    """A received message as Lambda shows it to a function."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message.get("Attributes", {}),
        "messageAttributes": {
            name: {"dataType": value["DataType"], "stringValue": value.get("StringValue")}
            for name, value in message.get("MessageAttributes", {}).items()
        },
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": region,
    }


def failed_ids(outcome: Outcome, batch: Sequence[Mapping[str, Any]], *, partial: bool) -> frozenset[str]:
    """Message ids to leave in the queue.

    All of them when the invocation failed, and also when the answer names an unknown or empty id: Lambda then takes the
    whole batch as failed. Source: Lambda developer guide, "Implementing partial batch responses".
    """
    everything = frozenset(str(message["MessageId"]) for message in batch)
    if not isinstance(outcome, Returned):
        return everything
    if not partial:
        return frozenset()
    try:
        answer = json.loads(outcome.payload or b"null") or {}
        named = frozenset(str(item["itemIdentifier"]) for item in answer.get("batchItemFailures") or ())
    except (ValueError, TypeError, KeyError, AttributeError):
        return everything
    return everything if named - everything else named


class ScheduleFirer:
    """Fires the one-shot schedules of some groups into their target queues, as unreliably as the knobs say."""

    def __init__(self, groups: Sequence[str], scheduler: Client, sqs: Client, clock: StackClock, knobs: Knobs) -> None:
        self._groups = groups
        self._scheduler = scheduler
        self._sqs = sqs
        self._clock = clock
        self._knobs = knobs
        self._known: dict[tuple[str, str, datetime], Mapping[str, Any]] = {}
        self._done: set[tuple[str, str, datetime]] = set()
        self.fired = 0
        self.lost = 0

    def turn(self) -> bool:
        """Fire everything that is due by the stack's clock."""
        present = set()
        for group in self._groups:
            for summary in self._summaries(group):
                key = (group, summary["Name"], summary["LastModificationDate"])
                present.add(key)
                if key not in self._done and summary["State"] == "ENABLED":
                    self._look_at(key)
        self._known = {key: known for key, known in self._known.items() if key in present}
        self._done &= present
        return False

    def _summaries(self, group: str) -> Iterator[Mapping[str, Any]]:
        for page in self._scheduler.get_paginator("list_schedules").paginate(GroupName=group):
            yield from page["Schedules"]

    def _look_at(self, key: tuple[str, str, datetime]) -> None:
        group, name, _ = key
        try:
            if key not in self._known:
                self._known[key] = self._scheduler.get_schedule(GroupName=group, Name=name)
            schedule = self._known[key]
            due = due_at(schedule["ScheduleExpression"], schedule.get("ScheduleExpressionTimezone"))
        except self._scheduler.exceptions.ResourceNotFoundException:
            return  # Deleted between the list and the look.
        except UnknownExpression as error:
            _LOG.warning("Schedule %r never fires here: %s", name, error)
            self._done.add(key)
            return
        if self._clock.now() >= due + self._knobs.late:
            self._fire(schedule)
            self._complete(key, schedule)

    def _fire(self, schedule: Mapping[str, Any]) -> None:
        if self._knobs.happens(self._knobs.never):
            self.lost += 1
            return
        target = schedule["Target"]
        url = self._sqs.get_queue_url(QueueName=target["Arn"].rpartition(":")[2])["QueueUrl"]
        group_id = target.get("SqsParameters", {}).get("MessageGroupId")
        options = {"MessageGroupId": group_id} if group_id else {}
        for _ in range(2 if self._knobs.happens(self._knobs.twice) else 1):
            self._sqs.send_message(QueueUrl=url, MessageBody=target.get("Input", "{}"), **options)
            self.fired += 1

    def _complete(self, key: tuple[str, str, datetime], schedule: Mapping[str, Any]) -> None:
        """As AWS after the last firing: gone if it asked for that, else kept and never fired again."""
        self._done.add(key)
        if schedule.get("ActionAfterCompletion") == "DELETE":
            with suppress(self._scheduler.exceptions.ResourceNotFoundException):
                self._scheduler.delete_schedule(GroupName=key[0], Name=key[1])


class RateTicker:
    """Invokes a function each time its rate has passed on the stack's clock; a jump counts as one time."""

    def __init__(self, rate: Rate, invoke: Invoke, clock: StackClock, knobs: Knobs, *, region: str) -> None:
        self._rate = rate
        self._invoke = invoke
        self._clock = clock
        self._knobs = knobs
        self._region = region
        self._last = clock.now()

    def turn(self) -> bool:
        """Invoke if it is time and the knobs let it."""
        if self._knobs.sweeping and self._clock.now() - self._last >= self._rate.every:
            self.tick()
        return False

    def tick(self) -> Outcome:
        """Invoke now."""
        self._last = now = self._clock.now()
        return self._invoke(self._rate.function, json.dumps(self._event(now)).encode())

    def _event(self, now: datetime) -> dict[str, Any]:
        """EventBridge's scheduled event."""
        return {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": "Scheduled Event",
            "source": "aws.events",
            "account": ACCOUNT,
            "time": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": self._region,
            "resources": [self._rate.rule_arn],
            "detail": {},
        }
