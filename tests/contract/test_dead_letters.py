"""Hints that were set aside, on SQS: those whose runs need somebody are sent again, the others are dropped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, StepContext, step, workflow
from flowcore.adapters.aws import sqs_client
from flowcore.adapters.memory import MemoryStore
from flowcore.adapters.sqs import SqsDeadLetters, SqsQueue, decode_hint, encode_hint
from flowcore.errors import QueueUnavailable, SettingsError
from flowcore.keys import RunRef
from flowcore.ops import DeadLetterReport, redrive_dead_letters
from flowcore.ports import Hint
from flowcore.testing.contract import NOW
from flowcore.testing.moto import REGION


@step
def ask(value: int, ctx: StepContext[int]) -> int:
    """Waits for a number."""
    if ctx.resume_data is None:
        ctx.suspend()
    return value + ctx.resume_data


ASKING = workflow("asking", input=int).then(ask).commit()
NAPPING = workflow("napping", input=int).sleep(timedelta(hours=1)).commit()


class Queues:
    """A work queue and its dead letters."""

    def __init__(self, api: Any) -> None:
        self.api = api
        self.dead: str = api.create_queue(QueueName="dead")["QueueUrl"]
        arn = api.get_queue_attributes(QueueUrl=self.dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 10})
        self.work: str = api.create_queue(QueueName="work-1", Attributes={"RedrivePolicy": policy})["QueueUrl"]

    def bury(self, *bodies: str) -> None:
        """Set these messages aside."""
        for body in bodies:
            self.api.send_message(QueueUrl=self.dead, MessageBody=body)

    def letters(self) -> SqsDeadLetters:
        """What an operator reads."""
        return SqsDeadLetters.of(self.api, self.work, look_s=0)

    def count(self, url: str) -> int:
        """Messages in a queue, hidden ones included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.api.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(number) for number in found.values())

    def delivered(self) -> list[str]:
        """Whom the hints in the work queue are about."""
        messages = self.api.receive_message(QueueUrl=self.work, MaxNumberOfMessages=10).get("Messages", [])
        return [str(decode_hint(message["Body"]).run) for message in messages]


@pytest.fixture
def queues(aws: None) -> Iterator[Queues]:
    """Fresh ones."""
    api = sqs_client(region=REGION)
    found: Any = Queues(api)
    yield found
    for url in (found.work, found.dead):
        found.api.delete_queue(QueueUrl=url)


@pytest.fixture
def app(queues: Queues) -> App:
    """An App whose hints go to the work queue."""
    return App(ASKING, NAPPING, store=MemoryStore(), queue=SqsQueue(queues.api, queues.work))


def hint(run: str, tenant: str = "default") -> str:
    """The message of a hint."""
    return encode_hint(Hint(run=RunRef(tenant, run), at=NOW))


def test_only_hints_whose_runs_need_somebody_are_sent_again(app: App, queues: Queues) -> None:
    """Each once, of whatever tenant; nothing is left behind."""
    app.workflow("asking").create_run("queued").start(1)
    app.for_tenant("acme").workflow("asking").create_run("theirs").start(1)
    app.workflow("asking").create_run("asked").start(1, wait=timedelta(minutes=1))
    app.workflow("asking").create_run("over").start(1)
    app.run("over").cancel()
    queues.delivered()
    queues.bury(hint("queued"), hint("queued"), hint("theirs", "acme"), hint("asked"), hint("over"), hint("gone"))
    queues.bury(hint("theirs", "other"))

    report = redrive_dead_letters(app, queues.letters())

    assert DeadLetterReport(resent=2, dropped=5) == report
    assert ["queued", "theirs"] == sorted(queues.delivered())
    assert 0 == queues.count(queues.dead)
    assert DeadLetterReport() == redrive_dead_letters(app, queues.letters())


def test_what_is_no_hint_is_left_where_it_is(app: App, queues: Queues) -> None:
    """It may be somebody's answer, in the dead letters of another queue."""
    queues.bury("not JSON", '{"v":9}')

    report = redrive_dead_letters(app, queues.letters())

    assert (DeadLetterReport(foreign=2), False, 2) == (report, report.is_clean, queues.count(queues.dead))


def test_what_is_no_hint_is_dropped_on_demand(app: App, queues: Queues) -> None:
    """Once somebody has seen what it is."""
    queues.bury("not JSON", '{"v":9}')

    report = redrive_dead_letters(app, queues.letters(), drop_foreign=True)

    assert (DeadLetterReport(dropped=2), True, 0) == (report, report.is_clean, queues.count(queues.dead))


def test_a_run_that_is_kept_for_a_while_needs_nobody(queues: Queues) -> None:
    """That it has ended, and is to be removed in a month, is no reason to ask a worker."""
    flow = workflow("asking", input=int, retention=timedelta(days=30)).then(ask).commit()
    app = App(flow, store=MemoryStore(), queue=SqsQueue(queues.api, queues.work))
    app.workflow("asking").create_run("over").start(1)
    app.run("over").cancel()
    queues.bury(hint("over"))

    assert DeadLetterReport(dropped=1) == redrive_dead_letters(app, queues.letters())


def test_a_sleeping_run_is_hinted_at_when_it_wakes(app: App, queues: Queues) -> None:
    """An hour is too far for the queue, and there is no scheduler: the letter is kept."""
    app.workflow("napping").create_run("r").start(1, wait=timedelta(minutes=1))
    queues.bury(hint("r"))

    report = redrive_dead_letters(app, queues.letters())

    assert (DeadLetterReport(kept=1), False, 1) == (report, report.is_clean, queues.count(queues.dead))


def test_no_more_letters_are_looked_at_than_asked_for(app: App, queues: Queues) -> None:
    """The others stay where they are."""
    queues.bury(*[hint(f"gone-{number}") for number in range(12)])

    assert DeadLetterReport(dropped=11) == redrive_dead_letters(app, SqsDeadLetters(queues.api, queues.dead), limit=11)
    assert 1 == queues.count(queues.dead)


def test_a_queue_without_dead_letters_is_told(queues: Queues) -> None:
    """So is one that is not there."""
    with pytest.raises(SettingsError, match="no dead letter queue"):
        SqsDeadLetters.of(queues.api, queues.dead)
    nowhere = "https://sqs.eu-central-1.amazonaws.com/123456789012/nowhere"
    with pytest.raises(QueueUnavailable, match="nowhere"):
        SqsDeadLetters.of(queues.api, nowhere)
    with pytest.raises(QueueUnavailable, match="nowhere"):
        SqsDeadLetters(queues.api, nowhere).take(1)
