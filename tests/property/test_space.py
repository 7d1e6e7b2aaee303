"""Every state that a run can get into with a few processes around it; and what is found when a rule is taken out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest

from flowcore.testing.space import Space
from tests.property.rows import told
from tests.property.scenarios import MUTANTS, SCENARIOS

A_FEW = 400
MOST = 1_000_000
"""More than any scenario has."""


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


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_protocol_is_found_out(name: str) -> None:
    """Each rule is needed: without it there is a way, told step by step, into a state that must not be."""
    found = Space(MUTANTS[name]).search(20_000)
    print(f"\n{name}: {found}")
    assert found.violation is not None
    assert 2 <= len(found.way) <= 30
