"""Memory keeps the promises of the ports."""

from __future__ import annotations

import pytest

from flowcore.adapters.memory import MemoryStore
from flowcore.testing.contract import StoreContract


class TestMemoryStore(StoreContract):
    """``MemoryStore`` is a store."""

    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()
