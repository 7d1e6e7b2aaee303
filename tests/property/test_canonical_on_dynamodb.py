"""The canonical workflows over boto3 and DynamoDB as moto plays it, with faults at the requests themselves.

Below our adapter: it tries again, knows its own writes by their token, or gives up and says so. Each request of a call
is struck in turn: of a load, every page of every query. Three workflows under ``make check``, all of them under
``make prove``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any, Literal, NamedTuple

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
from tests.property.rows import ROWS, told

FEW = ("wait for an event", "approvals with quorum and timeout", "sleeps")
ON_A_PAGE = 2
"""Items that a query gives at a time."""
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


class Strike(NamedTuple):
    """Where something goes wrong, and what."""

    kind: Literal["write", "read"]
    call: int
    """The number of the worker's write or read, from 1."""
    request: int
    """Which of the requests that this call makes, from 1."""
    fault: ClientFault
    tries: int
    """For how many of the request's tries."""


class RequestTrial(Trial):
    """A trial in which one request of one of the worker's calls to the store goes wrong; the test's own never do."""

    def __init__(self, asked: Asked, schedule: Schedule = ()) -> None:
        """See ``Trial``."""
        self.strike: Strike | None = None
        self.struck = 0
        self.requests: Counter[tuple[str, int]] = Counter()
        """How many requests each call has made: kind and number of the call."""
        self._call = ("", 0)
        self._number = 0
        super().__init__(asked, schedule)

    def _struck(self, call: Call) -> Fault | None:
        fault = super()._struck(call)
        kind, number = ("write", len(self.writes)) if call.verb in WRITES else ("read", len(self.reads))
        self._call, self._number = (kind, number), 0
        return fault

    def script(self, request: Request) -> ClientFault | None:
        """Strike the request that is meant, and its further tries."""
        if self.is_calm or (request.operation in WRITING) is not (self._call[0] == "write"):
            return None
        if request.number != self._number:
            self._number = request.number
            self.requests[self._call] += 1
        strike = self.strike
        if strike is None or (*self._call, self.requests[self._call]) != strike[:3] or self.struck == strike.tries:
            return None
        self.struck += 1
        return strike.fault


class SmallPages:
    """A client whose queries give a few items a page, as they do where these are large: so a load is many requests."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def query(self, **request: Any) -> Any:
        """As boto3's."""
        return self._client.query(**{"Limit": ON_A_PAGE, **request})


@contextmanager
def dynamodb() -> Iterator[Any]:
    """One client for many trials."""
    with locked_moto():
        yield SmallPages(StrictClient(without_wire(dynamo_client(region=REGION))))


def tried(client: Any, name: str, strike: Strike | None = None) -> tuple[Ending, RequestTrial]:
    """One trial of a canonical workflow on an empty table: what became of it, and of its requests."""
    one, made = CANONICAL[name], list[RequestTrial]()

    def script(request: Request) -> ClientFault | None:
        return made[0].script(request) if made else None

    with fresh_table(client) as table:
        store = DynamoStore(FaultyClient(client, script), table, SeededIds(), pause=lambda _: None)
        asked = Asked(one.workflow, one.input, {}, one.answers, WORLD.clear, WORLD.copy, one.outcome, 0, lambda: store)
        trial = RequestTrial(asked)
        trial.strike = strike
        made.append(trial)
        return trial.ending(), trial


def strikes(requests: Mapping[tuple[str, int], int], kinds: Sequence[tuple[ClientFault, int]]) -> Iterator[Strike]:
    """Each of the faults at each request of each call of an undisturbed run: these of writes, and fewer of reads."""
    for (kind, call), count in sorted(requests.items()):
        for number, (fault, tries) in product(range(1, count + 1), kinds if kind == "write" else AT_READS):
            yield Strike("write" if kind == "write" else "read", call, number, fault, tries)


def faults_of(name: str, kinds: Sequence[tuple[ClientFault, int]]) -> int:
    """How many faults of its requests a workflow bears; it must become what it becomes undisturbed under each."""
    wrong, count, began = {}, 0, time.monotonic()
    with dynamodb() as client:
        usual, calm = tried(client, name)
        assert (True, []) == (usual.result is not None, list(usual.broken))
        for strike in strikes(calm.requests, kinds):
            ending, trial = tried(client, name, strike)
            assert trial.struck > 0, strike
            count += 1
            if ending.differences(usual):
                wrong[strike] = ending.differences(usual)
    told("requests", count, len(wrong), time.monotonic() - began)
    assert {} == wrong
    return count


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.parametrize("name", FEW)
def test_a_canonical_workflow_bears_the_five_kinds_at_its_requests(name: str) -> None:
    """At each request of each call of a worker to the store."""
    assert faults_of(name, FIVE_KINDS) > 50


@pytest.mark.slow
def test_the_figures_say_how_many_faults_every_check_tries() -> None:
    """At the requests that the three make undisturbed; some of their calls make several."""
    with dynamodb() as client:
        made = [tried(client, name)[1].requests for name in FEW]
    assert max(max(requests.values()) for requests in made) > 1
    assert ROWS["requests"].check == f"{sum(len(list(strikes(requests, FIVE_KINDS))) for requests in made):,}"


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.parametrize("name", CANONICAL)
def test_a_canonical_workflow_bears_every_fault_of_its_requests(name: str) -> None:
    """Of each kind, over at the second try or lasting until the adapter gives up."""
    assert faults_of(name, EVERY_KIND) > 50
