"""A run as its users see it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flowcore.core import view
from flowcore.core.view import StepResult
from flowcore.model import Outcome, RunStatus, StepRecord
from tests.builders import (
    BEFORE,
    BROKEN,
    LATER,
    NOW,
    a_graph,
    a_record,
    a_run,
    a_started,
    a_step,
    a_workflow,
    an_answer,
)

SUSP, RESU, SLP, RETRY, START = Outcome.SUSP, Outcome.RESU, Outcome.SLP, Outcome.RETRY, Outcome.START

CHILD = a_workflow(lambda w: w.then(a_step("c")).then(a_step("d")), "child")
STEPS = a_graph(lambda w: w.then(a_step("x")).then(a_step("after")))
NESTED = a_graph(lambda w: w.then(CHILD).then(a_step("after")))
SLEEP = a_graph(lambda w: w.sleep(timedelta(hours=1), id="x").then(a_step("after")))
ARMS = a_graph(lambda w: w.parallel(a_step("p"), CHILD, id="both").then(a_step("after")))
BRANCH = a_graph(lambda w: w.branch((bool, a_step("p")), (bool, a_step("q")), id="br").then(a_step("after")))
LOOP = a_graph(lambda w: w.dountil(a_step("x"), bool).then(a_step("after")))
FAN = a_graph(lambda w: w.foreach(a_step("x")).then(a_step("after")))
EACH = a_graph(lambda w: w.foreach(CHILD))


def seen(graph: Any, *records: StepRecord, **head: Any) -> dict[str, StepResult]:
    """What users see of these records."""
    return view.steps(graph, a_run(*records, **{"status": RunStatus.SUSPENDED, **head}))


# the record, the run's status, the step's
STATUSES: list[tuple[StepRecord, RunStatus, str]] = [
    (a_record("x"), RunStatus.RUNNING, "success"),
    (a_record("x"), RunStatus.CANCELED, "success"),
    (a_record("x", Outcome.BAIL), RunStatus.SUCCESS, "bailed"),
    (a_record("x", Outcome.ERR), RunStatus.FAILED, "failed"),
    (a_record("x", Outcome.SKIP), RunStatus.SUSPENDED, "skipped"),
    (a_record("x", SUSP), RunStatus.SUSPENDED, "suspended"),
    (a_record("x", SUSP), RunStatus.FAILED, "suspended"),
    (a_record("x", SUSP), RunStatus.CANCELED, "canceled"),
    (a_record("x", RESU), RunStatus.QUEUED, "running"),
    (a_record("x", RETRY, until=LATER), RunStatus.WAITING, "waiting"),
    (a_record("x", SLP, until=LATER), RunStatus.WAITING, "waiting"),
    (a_record("x", SLP, until=LATER), RunStatus.CANCELED, "canceled"),
    (a_record("x", SLP, until=NOW), RunStatus.SUSPENDED, "success"),
    (a_record("x", SLP, until=NOW), RunStatus.CANCELED, "success"),
    (a_started("x"), RunStatus.WAITING, "running"),
    (a_started("x"), RunStatus.CANCELED, "canceled"),
]


@pytest.mark.parametrize(("record", "status", "expected"), STATUSES)
def test_steps_have_the_status_of_their_record(record: StepRecord, status: RunStatus, expected: str) -> None:
    """What a run's end means for a step depends on how far the step had come."""
    assert expected == seen(None, record, status=status)["x"].status


INSIDE = [
    ([a_record("x/a", SUSP), a_record("x/b", RETRY, until=LATER)], "suspended"),
    ([a_record("x[3]", SUSP)], "suspended"),
    ([a_record("x#2", RETRY, until=LATER)], "waiting"),
    ([a_record("x/a", SLP, until=LATER)], "waiting"),
    ([a_record("x/a", SLP, until=NOW)], "running"),
    ([a_record("x/a"), a_record("xy", SUSP)], "running"),
]


@pytest.mark.parametrize(("records", "expected"), INSIDE)
def test_an_open_container_is_what_its_inside_is(records: list[StepRecord], expected: str) -> None:
    """Suspended, waiting, else running; its neighbours do not matter."""
    assert expected == seen(None, a_started("x"), *records)["x"].status


def test_a_step_result_holds_what_its_record_does() -> None:
    """Values are plain JSON; a settled step has an end."""
    record = a_record(
        "x", output=5, started_at=BEFORE, attempt=3, payload="why", answer=an_answer({"ok": 1}), failure=None
    )
    expected = StepResult(
        status="success",
        input=1,
        output=5,
        suspend_payload="why",
        resume_data={"ok": 1},
        started_at=BEFORE,
        ended_at=NOW,
        attempts=3,
    )
    assert expected == seen(STEPS, record)["x"]


def test_an_open_step_has_no_end_and_no_output() -> None:
    """Its failure, if it is to be tried again, is there."""
    found = seen(STEPS, a_record("x", RETRY, until=LATER, output=3))["x"]
    assert (None, None, BROKEN, LATER) == (found.ended_at, found.output, found.error, found.wake_at)


def test_a_sleep_ends_when_it_was_to_end() -> None:
    """Its output is what went in; while it lasts, there is none."""
    over = seen(SLEEP, a_record("x", SLP, until=NOW, at=BEFORE))["x"]
    assert ("success", 1, 1, NOW, None) == (over.status, over.input, over.output, over.ended_at, over.wake_at)
    still = seen(SLEEP, a_record("x", SLP, until=LATER))["x"]
    assert ("waiting", None, None, LATER) == (still.status, still.output, still.ended_at, still.wake_at)


def test_a_loop_shows_its_turn() -> None:
    """The slot has the turn's number; the body's last turn is under the same id."""
    found = seen(LOOP, a_started("x", count=3, output=7), a_record("x#3", SUSP, seq=9))
    assert ["x"] == list(found)
    assert ("suspended", 7, 3) == (found["x"].status, found["x"].input, found["x"].iteration)


def test_a_foreach_has_no_turn() -> None:
    """What its slot counts is how many items may be open, and no iteration."""
    assert seen(FAN, a_started("x", count=10))["x"].iteration is None


def inputs(graph: Any, *records: StepRecord, **head: Any) -> dict[str, Any]:
    """The input of each step, as far as it is known."""
    return {id: found.input for id, found in seen(graph, *records, **head).items()}


INPUTS: list[tuple[Any, list[StepRecord], dict[str, Any]]] = [
    (STEPS, [a_record("x", output=5), a_record("after", SUSP)], {"x": 1, "after": 5}),
    (STEPS, [a_record("x", Outcome.SKIP), a_record("after", SUSP)], {"x": 1, "after": 1}),
    (STEPS, [a_record("x", SUSP)], {"x": 1}),
    (SLEEP, [a_record("x", SLP, until=NOW), a_record("after", SUSP)], {"x": 1, "after": 1}),
    (NESTED, [a_started("child", output=9), a_record("child/c", SUSP)], {"child": 1, "child.c": 9}),
    (NESTED, [a_record("child", output=5), a_record("after", SUSP)], {"child": 1, "after": 5}),
    (
        ARMS,
        [a_record("p", output=2), a_record("child", output=3), a_record("after", SUSP)],
        {"p": 1, "child": 1, "after": {"p": 2, "child": 3}},
    ),
    (
        ARMS,
        [a_record("p", output=2), a_started("child", output=1), a_record("child/c", SUSP)],
        {"p": 1, "child": 1, "child.c": 1},
    ),
    (
        BRANCH,
        [a_record("br", output=["q"]), a_record("q", output=2), a_record("after", SUSP)],
        {"br": 1, "q": 1, "after": {"q": 2}},
    ),
    (BRANCH, [a_record("br", output=["p", "q"]), a_record("q", SUSP)], {"br": 1, "q": 1}),
    (BRANCH, [a_record("br", Outcome.ERR)], {"br": 1}),
    (LOOP, [a_record("x", output=7, count=2), a_record("after", SUSP)], {"x": 1, "after": 7}),
    (FAN, [a_record("x[0]", output=3), a_started("x")], {"x[0]": 7, "x": [7, 8]}),
    (
        EACH,
        [a_started("child"), a_started("child[1]", output=8), a_record("child[1]/c", SUSP)],
        {"child": [7, 8], "child[1]": 8, "child[1].c": 8},
    ),
]


@pytest.mark.parametrize(("graph", "records", "expected"), INPUTS)
def test_steps_know_their_input(graph: Any, records: list[StepRecord], expected: dict[str, Any]) -> None:
    """The value that reached each node, through every kind of node before it."""
    given = [7, 8] if graph in (FAN, EACH) else 1
    assert expected == inputs(graph, *records, input=given)


def test_without_a_graph_inputs_are_missing() -> None:
    """A workflow that is not served here can still be looked at."""
    assert {"x": None} == inputs(None, a_record("x"))


def test_a_foreach_over_something_else_has_no_items() -> None:
    """It has failed, and says so itself."""
    assert {"x": 1} == inputs(FAN, a_record("x", Outcome.ERR))


def test_what_runs_right_now_is_shown() -> None:
    """Steps that a worker is about to run, or is running, have no record yet."""
    found = seen(STEPS, a_record("x", output=5), status=RunStatus.RUNNING)
    assert StepResult(status="running", input=5, attempts=1) == found["after"]
    assert ["x", "after"] == list(found)
    assert ["x"] == list(seen(STEPS, a_record("x", output=5), status=RunStatus.QUEUED))


def test_a_run_about_to_end_has_nothing_running() -> None:
    """There is nothing left to ask for."""
    done = [a_record("x"), a_record("after")]
    assert {"x": "success", "after": "success"} == {
        id: found.status for id, found in seen(STEPS, *done, status=RunStatus.RUNNING).items()
    }


def test_a_resumed_step_is_running_with_its_data() -> None:
    """Its record says more than that it runs."""
    found = seen(STEPS, a_record("x", RESU, answer=an_answer(True)), status=RunStatus.RUNNING)["x"]
    assert ("running", True) == (found.status, found.resume_data)


def test_stored_side_effects_are_no_steps() -> None:
    """Nor do they run again."""
    assert ["x"] == list(seen(STEPS, a_record("x"), a_record("x!mail")))


def test_steps_are_in_the_order_of_their_last_change() -> None:
    """A reader sees what happened last at the end."""
    assert ["b", "c", "a"] == list(seen(None, a_record("a", seq=5), a_record("c", seq=3), a_record("b", seq=3)))


def test_waits_are_the_open_suspensions() -> None:
    """As the person who must answer sees them."""
    run = a_run(a_record("x[3]", SUSP, payload="why", label="l", until=LATER, gen=4))
    (wait,) = view.waits(run)
    assert ("x[3]@4", ["x[3]"], "l", 3, "why", LATER, NOW) == (
        wait.id,
        wait.path,
        wait.label,
        wait.index,
        wait.payload,
        wait.deadline,
        wait.since,
    )


def test_the_items_of_a_foreach_are_one_suspended_path() -> None:
    """A path can be given back as ``step``."""
    run = a_run(*(a_record(key, SUSP) for key in ("child/c", "x[0]", "x[3]", "each[1]/c", "each[2]/c")))
    assert [["child", "c"], ["x"], ["each", "c"]] == view.suspended(run)


UNLOADED = [
    (NESTED, [a_record("child")], True),
    (NESTED, [a_record("child"), a_record("child/c")], False),
    (NESTED, [a_started("child")], False),
    (NESTED, [a_record("child", Outcome.SKIP)], False),
    (LOOP, [a_record("x")], True),
    (LOOP, [a_record("x"), a_record("x#1")], False),
    (FAN, [a_record("x")], True),
    (FAN, [a_record("x"), a_record("x[0]")], False),
    (STEPS, [a_record("x"), a_record("x!mail"), a_record("gone")], False),
    (STEPS, [], False),
]


@pytest.mark.parametrize(("graph", "records", "expected"), UNLOADED)
def test_has_unloaded_finds_finished_containers(graph: Any, records: list[StepRecord], expected: bool) -> None:
    """Their inside is read only for those who look at the run."""
    assert expected is view.has_unloaded(a_run(*records), graph)
