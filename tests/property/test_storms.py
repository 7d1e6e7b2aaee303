"""Random workflows in random storms become what a naive interpreter says they must.

A seed that fails is printed and added to ``seeds.txt``, which is replayed on its own. To look at one seed by hand::

    python -m pytest tests/property -k kept
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.property.storm import verdict

KEPT = Path(__file__).with_name("seeds.txt")
SEEDS = 2_000
CHUNK = 100


def bad_ones(seeds: list[int]) -> dict[int, list[str]]:
    """What went wrong, by seed; seeds that fail are kept for good."""
    bad: dict[int, list[str]] = {}
    for seed in seeds:
        try:
            wrong = verdict(seed)
        except Exception as error:  # noqa: BLE001  # whatever happens is a finding about this seed
            wrong = [f"{type(error).__name__}: {error}"]
        if wrong:
            bad[seed] = wrong
    fresh = sorted(bad.keys() - set(kept_seeds()))
    if fresh:
        with KEPT.open("a", encoding="utf-8") as kept:
            kept.writelines(f"{seed}\n" for seed in fresh)
    return bad


def kept_seeds() -> list[int]:
    """The seeds that have failed at some time."""
    return [int(line) for line in KEPT.read_text("utf-8").splitlines() if line and not line.startswith("#")]


def test_kept_seeds_agree_with_the_oracle() -> None:
    """What has failed once does not fail again."""
    assert {} == bad_ones(kept_seeds())


def test_the_first_seeds_agree_with_the_oracle() -> None:
    """A taste of the storms for the quick loop."""
    assert {} == bad_ones(list(range(CHUNK)))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(CHUNK, SEEDS, CHUNK))
def test_random_runs_agree_with_the_oracle(first: int) -> None:
    """Status, output, failure, outputs of steps, state and effects, whatever happens to workers and hints."""
    assert {} == bad_ones(list(range(first, first + CHUNK)))
