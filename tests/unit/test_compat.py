"""Does today's definition fit what a run has done, and what of it has been overtaken?"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from flowcore import otherwise
from flowcore.core.compat import conflict, overtaken
from flowcore.core.fan import opening
from flowcore.keys import Scope
from flowcore.model import Outcome, StepRecord
from tests.builders import LATER, a_graph, a_record, a_run, a_started, a_step, a_workflow

SUSP, RESU, SLP, SKIP = Outcome.SUSP, Outcome.RESU, Outcome.SLP, Outcome.SKIP
START, RETRY = Outcome.START, Outcome.RETRY
Build = Callable[[Any], Any]
A, B, C, D = (a_step(id) for id in "abcd")
HOUR = timedelta(hours=1)


def child(*steps: Any) -> Any:
    """A nested workflow of these steps."""

    def build(builder: Any) -> Any:
        for step in steps:
            builder = builder.then(step)
        return builder

    return a_workflow(build, "child")


def truth(value: Any) -> bool:
    """A condition."""
    return bool(value)


def a_turn(loop: str, turn: int) -> StepRecord:
    """The record of a loop at this turn."""
    return a_started(loop, opens=Scope(f"{loop}#{turn}"), count=turn)


REACHED = [a_record("a"), a_record("b", SUSP)]

LISTENING = a_record("w", SUSP, listens=("paid", "k"))

# what the run has done, today's definition, and what is skipped when it is adopted
FITS: dict[str, tuple[list[StepRecord], Build, list[str]]] = {
    "unchanged": (REACHED, lambda w: w.then(A).then(B), []),
    "inserted behind": (REACHED, lambda w: w.then(A).then(B).then(C), []),
    "inserted in front": (REACHED, lambda w: w.then(C).then(A).then(B), ["c"]),
    "inserted between": (REACHED, lambda w: w.then(A).then(C).then(D).then(B), ["c", "d"]),
    "inserted before a step that was not reached": ([a_record("a")], lambda w: w.then(A).then(C).then(B), []),
    "removed behind": ([a_record("a")], lambda w: w.then(A).then(C), []),
    "nothing done yet": ([], lambda w: w.then(C), []),
    "swapped": (REACHED, lambda w: w.then(B).then(A), []),
    "a parallel in front": (REACHED, lambda w: w.parallel(C, D, id="p").then(A).then(B), ["c", "d"]),
    "a branch in front": (REACHED, lambda w: w.branch((truth, C), id="br").then(A).then(B), ["br"]),
    "a sleep in front": (REACHED, lambda w: w.sleep(HOUR, id="s").then(A).then(B), ["s"]),
    "a nested workflow in front": (REACHED, lambda w: w.then(child(C)).then(A).then(B), ["child"]),
    "an arm added to a reached parallel": (REACHED, lambda w: w.parallel(A, B, C), []),
    "in front of a parallel": (REACHED, lambda w: w.then(C).parallel(A, B), ["c"]),
    "a parallel half in front": ([a_record("a"), a_record("d")], lambda w: w.parallel(A, C).then(D), ["c"]),
    "stored side effects": ([a_record("a", SUSP), a_record("a!gone")], lambda w: w.then(C).then(A), ["c"]),
    "skipped once": ([a_record("c", SKIP), a_record("b", SUSP)], lambda w: w.then(C).then(B), []),
    "waiting for an event": ([LISTENING], lambda w: w.then(C).wait_for_event("other", key="k", id="w"), ["c"]),
    "slept": ([a_record("s", SLP, until=LATER)], lambda w: w.then(C).sleep(HOUR, id="s"), ["c"]),
    "in a nested workflow": (
        [a_started("child"), a_record("child/b", SUSP)],
        lambda w: w.then(C).then(child(A, B, D)),
        ["c", "child/a"],
    ),
    "in a nested arm": (
        [a_started("child"), a_record("child/b", SUSP)],
        lambda w: w.parallel(C, child(A, B)),
        ["child/a"],
    ),
    "in a nested branch arm": (
        [a_record("br", output=["child"]), a_started("child"), a_record("child/b", SUSP)],
        lambda w: w.branch((truth, child(A, B)), (otherwise, C), id="br"),
        ["child/a"],
    ),
    "in a finished nested workflow": ([a_record("child"), REACHED[1]], lambda w: w.then(child(A)).then(B), []),
    "in a nested workflow just opened": ([a_started("child")], lambda w: w.then(child(A, B)), []),
    "in a loop's body": (
        [a_turn("child", 2), a_record("child#2", START), a_record("child#2/b", SUSP)],
        lambda w: w.dountil(child(A, B), truth),
        ["child#2/a"],
    ),
    "in a loop of a step": ([a_turn("a", 1), a_record("a#1", SUSP)], lambda w: w.dowhile(A, truth), []),
    "in a loop of a step that may have begun": (
        [a_turn("a", 1), a_record("a#1", START, attempt=0)],
        lambda w: w.dowhile(A, truth),
        [],
    ),
    "in a later try of it": (
        [a_turn("a", 1), a_record("a#1", START, gen=1)],
        lambda w: w.dowhile(A, truth),
        [],
    ),
    "in a turn of a redriven loop": (
        [a_turn("child", 1), a_record("child#1", START, gen=1), a_record("child#1/b", SUSP)],
        lambda w: w.dountil(child(B), truth),
        [],
    ),
    "in an arm of a parallel in a nested workflow": (
        [a_started("child"), a_record("child/a", SUSP)],
        lambda w: w.then(a_workflow(lambda v: v.parallel(A, B), "child")),
        [],
    ),
    "in an arm of a branch in a nested workflow": (
        [a_started("child"), a_record("child/br", output=["a"]), a_record("child/a", SUSP)],
        lambda w: w.then(a_workflow(lambda v: v.branch((truth, A), id="br"), "child")),
        [],
    ),
    "in the items of a foreach": (
        [
            a_started("child", count=1),
            a_record("child[0]"),
            a_started("child[1]"),
            a_record("child[1]/b", SUSP),
            a_started("child[2]"),
        ],
        lambda w: w.foreach(child(A, B)),
        ["child[1]/a"],
    ),
    "in a late item of a foreach": (
        [a_started("child", count=9), a_record("child[0]"), a_started("child[7]"), a_record("child[7]/b", SUSP)],
        lambda w: w.foreach(child(A, B), concurrency=9),
        ["child[7]/a"],
    ),
    "in a distributed foreach": (
        [a_record("a", START, count=2, output=opening(1, 2)), a_record("a[0]")],
        lambda w: w.then(C).foreach(A, distributed=True),
        ["c"],
    ),
    "in a foreach that is to be distributed": (
        [a_started("a", count=2), a_record("a[0]", SUSP)],
        lambda w: w.foreach(A, distributed=True),
        [],
    ),
    "in a foreach of a step": ([a_started("a", count=1), a_record("a[0]", SUSP)], lambda w: w.foreach(A), []),
}


@pytest.mark.parametrize(("records", "build", "skipped"), FITS.values(), ids=FITS)
def test_a_definition_that_fits_is_adopted(records: list[StepRecord], build: Build, skipped: list[str]) -> None:
    """What was inserted in front of the reached position is overtaken, what was inserted behind it is not."""
    graph, run = a_graph(build), a_run(*records)
    assert conflict(graph, run) is None
    assert skipped == list(overtaken(graph, run))


GONE, CHANGED = "no longer has it", "was of another kind"
CONFLICTS: dict[str, tuple[list[StepRecord], Build, str]] = {
    "removed": (REACHED, lambda w: w.then(A), "step 'b' has been reached by this run (susp), but workflow 'flow' "),
    "renamed": (REACHED, lambda w: w.then(A).then(B, id="renamed"), GONE),
    "the first misfit is named": (REACHED, lambda w: w.then(C), "step 'a'"),
    "removed from a nested workflow": ([a_started("child"), a_record("child/b")], lambda w: w.then(child(A)), GONE),
    "moved into a nested workflow": (REACHED, lambda w: w.then(A).then(child(B)), "step 'b'"),
    "a step inside what is a step now": ([a_record("a/b")], lambda w: w.then(A), GONE),
    "an item inside what is a step now": ([a_record("a[0]/b")], lambda w: w.then(A), GONE),
    "a suspended step became a sleep": ([a_record("a", SUSP)], lambda w: w.sleep(HOUR, id="a"), CHANGED),
    "a suspended step became an event's": (
        [a_record("w", SUSP)],
        lambda w: w.wait_for_event("e", key="k", id="w"),
        CHANGED,
    ),
    "an event became a step": ([LISTENING], lambda w: w.then(A, id="w"), CHANGED),
    "a retried step became a map": ([a_record("a", RETRY)], lambda w: w.map(truth, id="a"), CHANGED),
    "a resumed step became nested": ([a_record("child", Outcome.RESU)], lambda w: w.then(child(A)), CHANGED),
    "a sleep became a step": ([a_record("a", SLP, until=LATER)], lambda w: w.then(A), CHANGED),
    "an open workflow became a step": ([a_started("a")], lambda w: w.then(A), CHANGED),
    "an open foreach was distributed": (
        [a_record("a", START, count=2, output=opening(1, 2))],
        lambda w: w.foreach(A),
        "'a' is a distributed foreach under way",
    ),
    "an open distributed foreach became a step": (
        [a_record("a", START, count=2, output=opening(1, 2))],
        lambda w: w.then(A),
        "'a' is a distributed foreach under way",
    ),
    "a step became a parallel": ([a_record("p")], lambda w: w.parallel(A, B, id="p"), CHANGED),
    "a finished step became a branch": ([a_record("br", output=7)], lambda w: w.branch((truth, A), id="br"), CHANGED),
    "a suspended step became the body of a loop": ([a_record("a", SUSP)], lambda w: w.dountil(A, truth), CHANGED),
    "a resumed step became the body of a foreach": ([a_record("a", RESU)], lambda w: w.foreach(A), CHANGED),
    "a step that may have begun became the body of a loop": (
        [a_record("a", START, attempt=0)],
        lambda w: w.dountil(A, truth),
        CHANGED,
    ),
    "an open workflow became the body of a loop": (
        [a_started("child")],
        lambda w: w.dountil(child(A), truth),
        CHANGED,
    ),
    "an open workflow became the body of a foreach": ([a_started("child")], lambda w: w.foreach(child(A)), CHANGED),
    "an open loop became a foreach": ([a_turn("a", 1)], lambda w: w.foreach(A), CHANGED),
    "an open loop became a step": ([a_turn("a", 1)], lambda w: w.then(A), CHANGED),
    "an open foreach became a loop": ([a_started("a", count=1)], lambda w: w.dountil(A, truth), CHANGED),
    "an open foreach became a workflow": ([a_started("child", count=1)], lambda w: w.then(child(A)), CHANGED),
    "the workflow in a turn became a step": (
        [a_turn("child", 1), a_record("child#1", START)],
        lambda w: w.dountil(A, truth, id="child"),
        CHANGED,
    ),
    "the step in a turn became a workflow": (
        [a_turn("child", 1), a_record("child#1", START, attempt=0)],
        lambda w: w.dountil(child(A), truth),
        CHANGED,
    ),
    "the step of an item became a workflow": (
        [a_started("child", count=1), a_record("child[0]", SUSP)],
        lambda w: w.foreach(child(A)),
        CHANGED,
    ),
    "a step became an arm of a branch": (
        [a_record("a", SUSP)],
        lambda w: w.branch((truth, A), id="br"),
        "no arm of 'br'",
    ),
    "an arm of a parallel became one of a branch": (
        [a_started("child"), a_record("child/a"), a_record("child/b", SUSP)],
        lambda w: w.then(a_workflow(lambda v: v.branch((truth, A), (otherwise, B), id="br"), "child")),
        "'child.a' was no arm of 'br' when this run reached it",
    ),
}


@pytest.mark.parametrize(("records", "build", "words"), CONFLICTS.values(), ids=CONFLICTS)
def test_a_definition_that_does_not_fit_is_named(records: list[StepRecord], build: Build, words: str) -> None:
    """A real conflict is a reason to stand still, not a wrong step."""
    assert words in (conflict(a_graph(build), a_run(*records)) or "")


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda w: w.then(A), "a"),
        (lambda w: w.map(truth, id="a"), "a"),
        (lambda w: w.sleep(HOUR, id="a"), "a"),
        (lambda w: w.then(child(B)), "child"),
        (lambda w: w.dountil(A, truth), "a"),
        (lambda w: w.foreach(A), "a"),
        (lambda w: w.foreach(A), "a[3]"),
        (lambda w: w.dountil(A, truth), "a#3"),
    ],
)
def test_a_finished_entry_may_be_of_any_kind_that_finishes(build: Build, key: str) -> None:
    """Its output is there, whatever made it."""
    assert conflict(a_graph(build), a_run(a_record(key))) is None
