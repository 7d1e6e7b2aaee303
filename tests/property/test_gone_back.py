"""Random workflows that go back to a step, themselves or in a fork, and have to come to the same end once more.

Every step is a pure function of what stands before it. So whoever goes back to any step of a run, without giving it
another input, must find what the interpreter says of the whole workflow: outputs, state and request context.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from flowcore.ports import Store
from flowcore.testing.search import quiet
from tests.property.rows import told
from tests.property.storm import Storm, differences, told_of

SEEDS = 40
GATE = 640
CHUNK = 200
LONG = 5_600
PIECE = 700
PLACES = 3
"""Where each run goes back to, one after the other."""


def gone_back(seed: int, store: Store | None = None) -> Iterator[str]:
    """What did not come out the same, by the place; ``again`` for each place from which it did."""
    storm, chance = Storm(seed, store), random.Random(seed)
    must = told_of(storm.sample)
    if must.status != "success":  # a branch that has failed stays as it is beside the one that is done again
        return
    storm.sample.effects.clear()
    storm.start()
    if chance.random() < 0.5:
        storm.go_some_way(chance.randrange(12))
    else:
        storm.go_on()
    known = sorted(storm.result().steps)
    for forks, step in enumerate(chance.sample(known, k=min(PLACES, len(known))), start=1):
        result = storm.go_back(step, forks=forks if chance.random() < 0.4 else 0)
        if result is not None:
            wrong = list(differences(storm, result, must))
            yield from (f"{step!r}: {each}" for each in wrong)
            yield "again"


def wrong(seeds: range) -> list[str]:
    """What did not come out the same, with its seed."""
    began, lives, bad = time.monotonic(), 0, list[str]()
    with quiet():
        for seed in seeds:
            each = list(gone_back(seed))
            lives += each.count("again")
            bad += [f"{seed}: {told}" for told in each if told != "again"]
    assert lives > len(seeds)
    told("gone-back", lives, len(bad), time.monotonic() - began, seed=f"{seeds[0]}-{seeds[-1]}")
    return bad


def test_whoever_goes_back_comes_to_the_same_end() -> None:
    """From a run under way and from one that is over, whatever the weather is."""
    assert [] == wrong(range(SEEDS))


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.parametrize("first", range(SEEDS, GATE, CHUNK))
def test_more_who_go_back_come_to_the_same_end(first: int) -> None:
    """The same, for as many as a change has to pass."""
    assert [] == wrong(range(first, first + CHUNK))


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.parametrize("first", range(0, LONG, PIECE))
def test_thousands_who_go_back_come_to_the_same_end(first: int) -> None:
    """The same, for the long run."""
    assert [] == wrong(range(first, first + PIECE))
