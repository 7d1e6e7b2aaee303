"""Memory keeps the promises of the ports."""

from __future__ import annotations

import pytest

from flowcore.adapters.memory import MemoryStore
from flowcore.testing.contract import StoreContract, patient_pages


class TestMemoryStore(StoreContract):
    """``MemoryStore`` is a store."""

    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


def test_a_listing_gives_up_for_a_page_not_for_good() -> None:
    """Where few match, a page ends early; all that match are found by its cursor, in order, each once."""
    pages = patient_pages(MemoryStore(most_looked_at=8))
    assert ["r-41", "r-27", "r-04"] == [run.run_id for page in pages for run in page]
    assert 50 // 8 + 1 == len(pages)
