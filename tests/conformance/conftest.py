"""Every conformance test runs in each mode; one moto and one client serve the whole session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from flowcore.adapters.aws import dynamo_client
from flowcore.adapters.dynamodb import DynamoStore
from flowcore.adapters.memory import MemoryStore
from flowcore.adapters.system import SystemIds
from flowcore.testing.moto import REGION, StrictClient, fresh_table, locked_moto
from tests.conformance.support import MODES, Harness, Mode


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker of ``behaviour`` and ``differs`` known."""
    config.addinivalue_line("markers", "behaviour(number, name, why): the row of the conformance table a test proves")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without ``FLOWCORE_EVERY_MODE``, leave out what moto makes slow and another mode shows as well.

    That is DynamoDB in one long process (a fresh process per turn is the harder case, and stays), and all rows but the
    first of a test with several. ``make check`` runs everything.
    """
    if os.environ.get("FLOWCORE_EVERY_MODE"):
        return
    further = [item for item in items if isinstance(item, pytest.Function) and _is_shown_elsewhere(item)]
    config.hook.pytest_deselected(items=further)
    left_out = {id(item) for item in further}
    items[:] = [item for item in items if id(item) not in left_out]


def _is_shown_elsewhere(item: pytest.Function) -> bool:
    rows = getattr(item, "callspec", None)
    mode = None if rows is None else rows.params.get("harness")
    if rows is None or not isinstance(mode, Mode) or mode.store != "dynamodb":
        return False
    return not mode.stepwise or any(index > 0 for name, index in rows.indices.items() if name != "harness")


@pytest.fixture(scope="session")
def client() -> Iterator[Any]:
    """A DynamoDB client for all tests."""
    with locked_moto():
        yield StrictClient(dynamo_client(region=REGION))


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
