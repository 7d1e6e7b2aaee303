"""Whatever storm a run goes through, each change of its status that users could see is told, once and under one id."""

from __future__ import annotations

import pytest

from tests.property.storm import Storm
from tests.unit.test_cloudevents import missed, told_store

SEEDS = 10
GATE = 300


def gaps(seeds: range) -> dict[int, list[str]]:
    """What was not told of the runs of these seeds."""
    found: dict[int, list[str]] = {}
    for seed in seeds:
        store, log = told_store()
        Storm(seed, store).drive()
        faults = list(missed(log.changes))
        if faults or not log.changes:
            found[seed] = faults
    return found


def test_storm_is_told() -> None:
    """The first seeds."""
    assert {} == gaps(range(SEEDS))


@pytest.mark.slow
@pytest.mark.gate
def test_more_storms_are_told() -> None:
    """As many as a change has to pass."""
    assert {} == gaps(range(SEEDS, GATE))
