"""A distributed foreach of many shards joins exactly once, whatever becomes of those who see to them.

A storm that fails is had again by its seed: ``JoinStorm(seed, ...).drive()``.
"""

from __future__ import annotations

import pytest

from tests.property.join_storm import JoinStorm
from tests.property.rows import trying


def join(seed: int, *, shards: int, size: int, blows: float, frozen: float) -> None:
    """Nothing is wrong after one storm."""
    with trying("joins", seed=str(seed)) as row:
        storm = JoinStorm(seed, shards=shards, size=size, blows=blows, frozen=frozen)
        storm.drive()
        print(f"{storm.struck} blows; a step was called {storm.called} times for {storm.items} items")
        assert [] == list(storm.wrong())
        assert storm.struck
        row.count = shards


def test_a_few_shards_join_once() -> None:
    """A taste for the quick loop: shards of three, and workers that die at one write of ten."""
    join(3, shards=10, size=3, blows=0.1, frozen=0.1)


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.parametrize(("seed", "shards", "size"), [(1, 100, 1), (2, 100, 5)])
def test_a_hundred_shards_join_once(seed: int, shards: int, size: int) -> None:
    """Each has a worker of its own at first, and others when that one is gone."""
    join(seed, shards=shards, size=size, blows=0.1, frozen=0.02)


@pytest.mark.slow
@pytest.mark.proof
def test_a_thousand_shards_of_fifty_join_once() -> None:
    """50,000 items."""
    join(1, shards=1_000, size=50, blows=0.005, frozen=0.001)
