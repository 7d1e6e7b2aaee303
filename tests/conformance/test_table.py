"""The table of behaviours is complete, says nothing twice, hides nothing, and is the one that is committed."""

from __future__ import annotations

import inspect
import re
from collections import Counter

import pytest

from flowcore import step, workflow
from tests.conformance import table
from tests.conformance.support import Harness

ALL = set(range(1, 246))


def test_every_behaviour_has_a_test() -> None:
    """Each number exactly once."""
    declared = [row.number for row in table.rows()]
    assert ALL == set(declared)
    assert [] == [number for number, times in Counter(declared).items() if times > 1]
    assert sorted(ALL) == [number for numbers in table.GROUPS.values() for number in numbers]


@pytest.mark.parametrize("row", table.rows(), ids=lambda row: str(row.number))
def test_a_test_is_named_after_its_behaviour(row: table.Row) -> None:
    """By number; names and reasons fit into a table."""
    assert row.test.__name__.startswith(f"test_{row.number:03}_")
    assert row.test.__doc__
    assert "|" not in f"{row.name}{row.why}"


def test_every_conformance_test_declares_its_behaviour() -> None:
    """Nothing in the groups' files goes uncounted."""
    declared = {row.test for row in table.rows()}
    tests = [test for module in table.modules() for name, test in vars(module).items() if name.startswith("test_")]
    assert [] == [test.__name__ for test in tests if test not in declared]


def test_every_known_bug_has_a_test() -> None:
    """And every test of the bugs' files is about one."""
    assert set(table.BUGS) == {number for number, _ in table.bugs()}
    sources = [path.read_text("utf-8") for path in table.HERE.glob("test_bugs*.py")]
    assert sum(source.count("\ndef test_") for source in sources) == len(table.bugs())


def test_no_behaviour_is_skipped() -> None:
    """A behaviour passes, or differs in plain sight."""
    sources = {module.__name__: inspect.getsource(module) for module in table.modules()}
    assert [] == [
        name for name, source in sources.items() if re.search(r"\b(skip|skipif|xfail|importorskip)\b", source)
    ]


def test_the_committed_page_is_up_to_date() -> None:
    """``make docs`` writes it."""
    assert table.page() == table.PAGE.read_text("utf-8")


def test_a_stepwise_mode_gives_each_step_a_process_image_of_its_own(harness: Harness) -> None:
    """Each step is run under a claim of its own, by an App and graphs that are made for it; else one does it all."""

    @step
    def increment(number: int) -> int:
        return number + 1

    made = workflow("w").then(increment).then(increment, id="second").then(increment, id="third").commit()
    assert 3 == harness.serve(made).start(0).output
    head = harness.store.peek(harness.run()._ref)
    assert head is not None
    one, other = harness.app, harness.app
    stepwise = harness.mode.stepwise
    assert head is not None
    assert (3 if stepwise else 1) == head.epoch
    assert stepwise == (one is not other) == (one.engine.graphs["w"] is not other.engine.graphs["w"])
