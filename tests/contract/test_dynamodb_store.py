"""DynamoDB, played by moto, keeps the promises of the ports."""

from __future__ import annotations

from typing import Any

import pytest

from flowcore.adapters.dynamodb import DynamoStore
from flowcore.adapters.system import SystemIds
from flowcore.testing.contract import StoreContract


class TestDynamoStore(StoreContract):
    """``DynamoStore`` is a store."""

    race_rounds = 5

    @pytest.fixture
    def store(self, client: Any, table: str) -> DynamoStore:
        return DynamoStore(client, table, SystemIds(), pause=lambda _: None)
