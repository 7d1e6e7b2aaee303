"""Every state that a run can get into with a few processes around it; and what is found when a rule is taken out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping

import pytest

from flowcore.testing.space import Space
from tests.property.rows import ROWS, told
from tests.property.scenarios import MUTANTS, SCENARIOS

A_FEW = 400
MOST = 1_000_000
"""More than any scenario has."""
LEAST: Mapping[str, int] = {
    "an answer": 35_000,
    "an answer and a cancel": 100_000,
    "two answers at once": 70_000,
    "an answer, where the clocks of workers are ahead": 30_000,
    "an answer beside a sleep": 10_000,
    "an answer, where outcomes are kept back until a boundary": 20_000,
    "a step that runs at most once, and a cancel": 15_000,
    "an answer and a cancel, with hooks": 18_000,
    "an answer to a wait that somebody is told of": 13_000,
    "an answer and its deadline": 15_000,
    "a branch that cannot decide, and a step that fails": 100_000,
    "a branch that cannot decide, and a cancel": 12_000,
    "an event that comes when it likes": 200_000,
    "an event, and a step that has left a record before it waits": 3_000,
    "two events for one wait": 5_000,
}
"""States of each scenario, about half of them: a search that has come to see fewer takes for one what is not the same,
or no longer lets happen what can."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Steps that fail on purpose fill no log."""
    logger = logging.getLogger("flowcore")
    was = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(was)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_nearest_states_keep_every_rule(name: str) -> None:
    """A taste for the quick loop: what can happen in the first few steps."""
    found = Space(SCENARIOS[name]).search(A_FEW)
    assert found.violation is None, str(found)
    assert found.states == A_FEW


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_state_keeps_every_rule(name: str) -> None:
    """All of them: none breaks a rule, and out of each the run comes to its right end."""
    began = time.monotonic()
    found = Space(SCENARIOS[name]).search(MOST)
    told("states", found.states, int(found.violation is not None), time.monotonic() - began)
    print(found)
    assert found.violation is None
    assert not found.is_cut
    assert found.states >= LEAST[name]


def test_the_scenarios_have_as_many_states_as_the_long_run_has_to_try() -> None:
    """In sum; each has to have its part of them."""
    assert SCENARIOS.keys() == LEAST.keys()
    assert f"{len(SCENARIOS) * A_FEW:,}" == ROWS["states"].check
    assert sum(LEAST.values()) >= ROWS["states"].long


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_protocol_is_found_out(name: str) -> None:
    """Each rule is needed: without it there is a way, told step by step, into a state that must not be."""
    found = Space(MUTANTS[name]).search(20_000)
    print(f"\n{name}: {found}")
    assert found.violation is not None
    assert 2 <= len(found.way) <= 30
