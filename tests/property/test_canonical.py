"""One workflow of each shape under every fault at every operation of the store: it becomes what it always becomes.

``make check`` tries every single fault, ``make prove`` every pair of the five kinds that a store can come to.
"""

from __future__ import annotations

import pytest

from flowcore.testing import Strike
from flowcore.testing.schedule import EVERY_BLOW, Blow
from tests.canonical import CANONICAL
from tests.property.rows import ROWS, trying

FIVE_KINDS: tuple[Blow, ...] = ("dies-before", "dies-after", "reply-lost", "throttled", "conflict")


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.proof
@pytest.mark.parametrize("name", CANONICAL)
def test_a_canonical_workflow_bears_every_single_fault(name: str) -> None:
    """At each write, read and hint; the marks that its steps leave outside are the same."""
    with trying("shapes") as row:
        done = CANONICAL[name].explored()
        row.count = done.schedules
    print(f"{name}: {done.writes} writes, {done.reads} reads, {done.hints} hints")
    assert "success" == done.result.status


@pytest.mark.slow
@pytest.mark.proof
@pytest.mark.parametrize("name", CANONICAL)
def test_a_canonical_workflow_bears_every_pair_of_faults(name: str) -> None:
    """Of the five kinds, at each two writes."""
    with trying("pairs") as row:
        done = CANONICAL[name].explored(blows=FIVE_KINDS, faults=2)
        row.count = done.schedules
    assert done.schedules > 5 * done.writes


@pytest.mark.parametrize("name", CANONICAL)
def test_a_canonical_workflow_bears_dying_in_the_middle(name: str) -> None:
    """A taste for the quick loop."""
    assert 2 == CANONICAL[name].explored(schedule=[Strike("dies-after", 4), Strike("reply-lost", 5)]).schedules


def test_the_figures_say_how_many_schedules_every_check_tries() -> None:
    """Every single fault of all of them, and each of them undisturbed."""
    tried = sum(1 + len(list(one.undisturbed().strikes(EVERY_BLOW))) for one in CANONICAL.values())
    assert ROWS["shapes"].check == f"{tried:,}"


def test_every_shape_has_a_canonical_workflow() -> None:
    """Whoever adds one says so here, and in what the figures claim."""
    assert 14 == len(CANONICAL)
