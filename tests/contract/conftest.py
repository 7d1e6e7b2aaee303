"""One locked moto for the whole session; clients are made once, tables fresh for each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flowcore.adapters.aws import dynamo_client
from flowcore.testing.moto import REGION, StrictClient, fresh_table, locked_moto
from flowcore.testing.quick_moto import without_wire


@pytest.fixture(scope="session")
def aws() -> Iterator[None]:
    """moto is on, and every DynamoDB request waits for its turn."""
    with locked_moto():
        yield


@pytest.fixture(scope="session")
def client(aws: None) -> Any:
    """A DynamoDB client for all tests."""
    return StrictClient(without_wire(dynamo_client(region=REGION)))


@pytest.fixture
def table(client: Any) -> Iterator[str]:
    """An empty table with both indexes."""
    with fresh_table(client) as name:
        yield name
