"""Every conformance test runs in each mode; one moto and one client serve the whole session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flowcore.adapters.aws import dynamo_client
from flowcore.adapters.dynamodb import DynamoStore
from flowcore.adapters.memory import MemoryStore
from flowcore.adapters.system import SystemIds
from flowcore.testing.moto import REGION, StrictClient, fresh_table, locked_moto
from flowcore.testing.quick_moto import without_wire
from tests.conformance.support import MODES, Harness


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker of ``behaviour`` and ``differs`` known."""
    config.addinivalue_line("markers", "behaviour(number, name, why): the row of the conformance table a test proves")


@pytest.fixture(scope="session")
def client() -> Iterator[Any]:
    """A DynamoDB client for all tests."""
    with locked_moto():
        yield StrictClient(without_wire(dynamo_client(region=REGION)))


def _no_pause(_seconds: float) -> None:
    """Between two tries of a request nobody waits here: moto is never busy."""


@pytest.fixture(params=MODES, ids=str)
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """Serves workflows in one mode, on a store of its own."""
    mode = request.param
    if mode.store == "memory":
        yield Harness(mode, MemoryStore)
        return
    client = request.getfixturevalue("client")
    with fresh_table(client) as table:
        yield Harness(mode, lambda: DynamoStore(client, table, SystemIds(), pause=_no_pause))
