"""The canonical workflows over boto3 and DynamoDB as moto plays it, with faults at the requests themselves.

Below our adapter: it tries again, knows its own writes by their token, or gives up and says so. Three workflows under
``make check``, all of them under ``make prove``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import pytest

from flowcore.adapters.aws import dynamo_client
from flowcore.adapters.dynamodb import DynamoStore
from flowcore.testing import SeededIds
from flowcore.testing.faults import WRITES, Call, Fault
from flowcore.testing.faulty_client import WRITING, ClientFault, FaultyClient, Request
from flowcore.testing.moto import REGION, StrictClient, fresh_table, locked_moto
from flowcore.testing.quick_moto import without_wire
from flowcore.testing.schedule import Schedule
from flowcore.testing.trial import Asked, Ending, Trial
from tests.canonical import CANONICAL, WORLD
from tests.property.rows import told

FEW = ("wait for an event", "approvals with quorum and timeout", "sleeps")
LASTING = 99
"""More tries than the adapter makes."""
FIVE_KINDS: list[tuple[ClientFault, int]] = [
    (ClientFault.DIES_BEFORE, 1),
    (ClientFault.DIES_AFTER, 1),
    (ClientFault.REPLY_LOST, 1),
    (ClientFault.THROTTLED, LASTING),
    (ClientFault.CONFLICT, 1),
]
"""Each with the number of tries that it strikes."""
EVERY_KIND = [
    *FIVE_KINDS,
    (ClientFault.REPLY_LOST, LASTING),
    (ClientFault.CLOSED, LASTING),
    (ClientFault.THROTTLED, 1),
    (ClientFault.CONFLICT, LASTING),
    (ClientFault.LATE_SERVER_ERROR, 1),
    (ClientFault.SERVER_ERROR, LASTING),
]
AT_READS = [(ClientFault.CLOSED, LASTING), (ClientFault.THROTTLED, 1), (ClientFault.SERVER_ERROR, 1)]


class RequestTrial(Trial):
    """A trial in which one request of one of the worker's calls to the store goes wrong; the test's own never do."""

    def __init__(self, asked: Asked, schedule: Schedule = ()) -> None:
        """See ``Trial``."""
        self.strike: tuple[str, int, ClientFault, int] = ("none", 0, ClientFault.CLOSED, 0)
        """Whether a write or a read, its number from 1, what goes wrong there, and for how many tries."""
        self.struck = 0
        self.armed = ""
        super().__init__(asked, schedule)

    def _struck(self, call: Call) -> Fault | None:
        fault = super()._struck(call)
        if self.is_calm:
            self.armed = ""
            return fault
        kind, number = ("write", len(self.writes)) if call.verb in WRITES else ("read", len(self.reads))
        self.armed = kind if (kind, number) == self.strike[:2] else ""
        return fault

    def script(self, request: Request) -> ClientFault | None:
        """Strike the first request of the call that is meant, and its further tries."""
        kind, _, fault, tries = self.strike
        if self.is_calm or self.armed != kind or (request.operation in WRITING) is not (kind == "write"):
            return None
        self.struck += 1
        if request.tried >= tries:
            self.armed = ""
        return fault


@contextmanager
def dynamodb() -> Iterator[Any]:
    """One client for many trials."""
    with locked_moto():
        yield StrictClient(without_wire(dynamo_client(region=REGION)))


def tried(client: Any, name: str, strike: tuple[str, int, ClientFault, int] | None = None) -> tuple[Ending, int]:
    """One trial of a canonical workflow on an empty table, and how many requests were struck."""
    one, made = CANONICAL[name], list[RequestTrial]()

    def script(request: Request) -> ClientFault | None:
        return made[0].script(request) if made else None

    with fresh_table(client) as table:
        store = DynamoStore(FaultyClient(client, script), table, SeededIds(), pause=lambda _: None)
        asked = Asked(one.workflow, one.input, {}, one.answers, WORLD.clear, WORLD.copy, one.outcome, 0, lambda: store)
        trial = RequestTrial(asked)
        trial.strike = strike or trial.strike
        made.append(trial)
        return trial.ending(), trial.struck


def faults_of(name: str, kinds: list[tuple[ClientFault, int]]) -> int:
    """How many faults of its requests a workflow bears; it must become what it becomes undisturbed under each."""
    wrong, count, began = {}, 0, time.monotonic()
    with dynamodb() as client:
        usual, _ = tried(client, name)
        assert (True, []) == (usual.result is not None, list(usual.broken))
        calls = [("write", kinds, usual.course.writes), ("read", AT_READS, usual.course.reads)]
        for what, faults, events in calls:
            for number, (fault, tries) in product(range(1, len(events) + 1), faults):
                ending, struck = tried(client, name, (what, number, fault, tries))
                count += struck > 0
                if ending.differences(usual):
                    wrong[what, number, fault, tries] = ending.differences(usual)
    told("requests", count, len(wrong), time.monotonic() - began)
    assert {} == wrong
    return count


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.parametrize("name", FEW)
def test_a_canonical_workflow_bears_the_five_kinds_at_its_requests(name: str) -> None:
    """At each call of a worker to the store."""
    assert faults_of(name, FIVE_KINDS) > 50


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.parametrize("name", CANONICAL)
def test_a_canonical_workflow_bears_every_fault_of_its_requests(name: str) -> None:
    """Of each kind, over at the second try or lasting until the adapter gives up."""
    assert faults_of(name, EVERY_KIND) > 50
