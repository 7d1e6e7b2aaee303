"""Where Mastra's workflows are known to break, and flowcore must not: one test per bug, named after it."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flowcore import App, Run, RunResult, Step, StepContext, Workflow, step, workflow
from flowcore.errors import FlowcoreError, InvalidPayload, RunExists
from tests.conformance.support import Harness


@step
def echo(value: Any) -> Any:
    """What it was given."""
    return value


@step
def ask(value: int, ctx: StepContext[int]) -> int:
    """Waits for a number."""
    if ctx.resume_data is None:
        ctx.suspend(label="number")
    return value + ctx.resume_data


def burst(_: Any) -> Any:
    """What careless authors write."""
    raise ValueError("burst")


def test_bug_12_a_start_of_an_existing_run_runs_nothing_again(harness: Harness) -> None:
    """The same input finds the run as it stands, suspended or finished; another input is refused."""
    harness.serve(workflow("w", input=int).then(echo).then(ask))
    assert "suspended" == harness.start(1, run_id="r").status
    again = harness.start(1, run_id="r")
    assert (True, "suspended", 1) == (again.replayed, again.status, len(again.waits))
    assert 3 == harness.resume(2).output
    assert ("success", 3) == ((found := harness.start(1, run_id="r")).status, found.output)
    with pytest.raises(RunExists):
        harness.start(2, run_id="r")


OUTSIDE_STEPS = {
    "condition": lambda w: w.branch((burst, echo), id="place"),
    "loop condition": lambda w: w.dountil(echo, burst, id="place"),
    "sleep": lambda w: w.sleep(burst, id="place"),
    "sleep until": lambda w: w.sleep_until(burst, id="place"),
    "map": lambda w: w.map(burst, id="place"),
    "key of a map": lambda w: w.map({"key": {"fn": burst}}, id="place"),
    "concurrency": lambda w: w.foreach(echo, concurrency=burst, id="place"),
    "no list": lambda w: w.map(lambda _: {"a": 1}, id="before").foreach(echo, id="place"),
    "no pause": lambda w: w.sleep(lambda _: 5, id="place"),
}


@pytest.mark.parametrize("place", OUTSIDE_STEPS)
def test_bug_14_an_error_outside_steps_strands_no_run(harness: Harness, place: str) -> None:
    """The run fails with the error, which names the entry; it neither stays running nor breaks the caller."""
    made = OUTSIDE_STEPS[place](workflow("w", input=list[int])).then(echo, id="after").commit()
    result = harness.serve(made).start([1])
    assert result.error is not None
    assert ("failed", "place") == (result.status, result.error.step)
    assert "burst" in result.error.message or place in ("no list", "no pause")
    assert "after" not in result.steps
    harness.advance(days=1)
    assert "failed" == harness.result().status


def test_bug_15_turns_of_a_loop_are_no_retries(harness: Harness) -> None:
    """Each turn has all of its tries."""

    @step(retries=1)
    def flaky(turns: list[int], ctx: StepContext) -> list[int]:
        if ctx.retry_count == 0:
            raise ValueError("first try")
        return [*turns, ctx.retry_count]

    made = workflow("w", input=list[int]).dountil(flaky, lambda turns: len(turns) == 3).commit()
    harness.serve(made).start([])
    harness.advance(minutes=5)
    assert ("success", [1, 1, 1]) == (harness.result().status, harness.result().output)


def test_bug_16_invalid_data_for_a_nested_resume_harms_nobody(harness: Harness) -> None:
    """It is refused at the door: parent and child stay suspended, and good data succeeds afterwards."""
    child = workflow("child", input=int).then(ask).commit()
    before = harness.serve(workflow("w", input=int).then(child).then(echo)).start(1)
    for target in ({}, {"step": child}, {"step": "child.ask"}, {"step": ask}, {"label": "number"}):
        with pytest.raises(InvalidPayload):
            harness.resume("no number", **target)
    assert before == harness.result()
    assert 8 == harness.resume(7, step="child.ask").output


def test_bug_18_a_late_copy_of_an_answer_is_not_taken_for_the_next_one(harness: Harness) -> None:
    """An answer names the wait it is for, or carries a key: its copy answers nothing else."""
    harness.serve(workflow("w", input=int).dountil(ask, lambda n: n > 100))
    first = harness.start(1).waits[0].id
    second = harness.resume(10, wait=first, idempotency_key="k-1")
    assert first != second.waits[0].id
    with pytest.raises(FlowcoreError):
        harness.resume(10, wait=first)
    copy = harness.resume(10, idempotency_key="k-1")
    assert copy.receipt is not None
    assert ("duplicate", second.waits) == (copy.receipt.verdict, copy.waits)


def counted(calls: list[str]) -> Any:
    """A step that notes that it ran."""

    @step
    def once(value: int) -> int:
        calls.append("once")
        return value

    return once


def test_bug_22_an_inserted_step_moves_nobody(harness: Harness) -> None:
    """Positions are ids: after a deployment in between, the suspended step goes on, and nothing is repeated."""
    calls: list[str] = []
    once = counted(calls)

    @step
    def inserted(value: int) -> int:
        calls.append("inserted")
        return value

    harness.serve(workflow("w", input=int).then(once).then(ask)).start(1)
    harness.serve(workflow("w", input=int).then(inserted).then(once).then(ask).then(inserted, id="behind"))
    result = harness.resume(2)
    assert ("success", 3, ["once", "inserted"]) == (result.status, result.output, calls)
    assert ("skipped", "success") == (result.steps["inserted"].status, result.steps["behind"].status)


def test_bug_22_a_removed_step_is_never_mistaken_for_another(harness: Harness) -> None:
    """A conflict is a named error that leaves the run alone; the step's return makes it go on."""
    old = workflow("w", input=int).then(echo).then(ask).commit()
    harness.serve(old).start(1)
    harness.serve(workflow("w", input=int).then(echo))
    with pytest.raises(FlowcoreError, match="'ask'") as caught:
        harness.resume(2)
    assert "definition-changed" == caught.value.code
    assert 3 == harness.serve(old).resume(2).output


def napping(calls: list[str]) -> Workflow[Any, Any]:
    """Sleeps between two steps, under no id; built anew by every process."""
    once = counted(calls)
    hour = timedelta(hours=1)
    return workflow("w", input=int).then(once).sleep(hour).map(lambda n: n + 1).sleep(hour).then(echo).commit()


def test_bug_23_unnamed_entries_have_the_same_ids_everywhere(harness: Harness) -> None:
    """A run that falls asleep in one process is known in the next one, which sleeps on and repeats nothing."""
    calls: list[str] = []
    harness.serve(napping(calls)).start(1)
    ids = list(harness.result().steps)
    harness.serve(napping(calls))
    harness.advance(minutes=90)
    assert ("waiting", ids) == (harness.result().status, list(harness.result().steps)[: len(ids)])
    harness.serve(napping(calls))
    harness.advance(minutes=30)
    assert ("success", 2, ["once"]) == (harness.result().status, harness.result().output, calls)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_bug_25_a_foreach_item_may_be_null(harness: Harness, concurrency: int) -> None:
    """None is an ordinary item and an ordinary output, also as an answer's effect."""

    @step
    def nothing(_: Any, ctx: StepContext[bool]) -> None:
        if ctx.index == 1 and ctx.resume_data is None:
            ctx.suspend()

    harness.serve(workflow("w", input=list[Any]).foreach(nothing, concurrency=concurrency)).start([None, None, None])
    result = harness.resume(False)
    assert ("success", [None] * 3) == (result.status, result.output)


def test_bug_26_a_cancel_from_another_process_counts(harness: Harness) -> None:
    """The process that drives the run begins nothing more, and does not overwrite the status."""
    reached: list[str] = []

    @step
    def long(value: int, ctx: StepContext) -> int:
        assert "canceled" == harness.another_process().cancel(ctx.run_id).status
        harness.clock.forward(minutes=1)
        return value

    @step
    def later(_: int) -> None:
        reached.append("later")

    harness.serve(workflow("w", input=int).then(long).then(later))
    assert "canceled" == harness.start(1).status
    harness.advance(days=1)
    assert ("canceled", []) == (harness.result().status, reached)


def test_bug_24_a_failure_can_lead_to_what_undoes_it(harness: Harness) -> None:
    """A failure that is tolerated is a value: a branch takes it to a step that makes good what was done."""
    undone: list[Any] = []

    @step
    def reserve(order: int) -> int:
        return order

    @step
    def charge(order: int) -> int:
        return int(burst(order)) if order < 0 else order

    @step
    def release(_: Any, ctx: StepContext) -> str:
        undone.append(ctx.get_step_result(reserve))
        return "released"

    charged = workflow("charged").map(lambda order: [order]).foreach(charge, id="each", tolerated_failures=1)
    flow = (
        workflow("w", input=int)
        .then(reserve)
        .then(charged.commit())
        .branch((lambda outcome: outcome == [None], release), id="routed")
        .commit()
    )
    failed = harness.serve(flow).start(-1)
    assert ("success", {"release": "released"}, [-1]) == (failed.status, failed.output, undone)
    assert "ValueError" == failed.steps["charged.each[0]"].error.type  # type: ignore[union-attr]  # it has failed
    assert {} == harness.start(7).output
    assert [-1] == undone


def test_bug_20_what_is_due_is_done_once_however_many_instances_look(harness: Harness) -> None:
    """No instance is the one that keeps the time: none need live while time passes, and all may look at once."""
    noted: list[int] = []

    @step
    def note(value: int) -> int:
        noted.append(value)
        return value

    harness.serve(workflow("w", input=int).sleep(timedelta(days=3)).then(note)).start(7)
    harness.clock.forward(days=3)
    for instance in [harness.another_process() for _ in range(3)]:
        instance.sweep()
        instance.deliver(harness.run_id, twice=True)
    harness.advance(minutes=5)
    assert ("success", [7]) == (harness.result().status, noted)


PAGES = Path(__file__).parents[2] / "docs"
WORDS: dict[str, tuple[Any, ...]] = {
    "ctx": (StepContext,),
    "run": (Run, RunResult),
    "app": (App,),
    "workflow": (Workflow,),
    "step": (Step,),
}
MASTRAS = {"run.stream"}
"""What a page says another engine has."""


@pytest.mark.parametrize("page", sorted(page.name for page in PAGES.glob("*.md")))
def test_bug_27_what_the_pages_name_is_there(page: str) -> None:
    """Every verb that a page says a context, a run, an App, a workflow or a step has; the blocks of code are run."""
    named = set(re.findall(r"(?<![\w./-])(ctx|run|app|workflow|step)\.([a-z_]+)\b", (PAGES / page).read_text("utf-8")))
    missing = {f"{owner}.{verb}" for owner, verb in named if not any(hasattr(one, verb) for one in WORDS[owner])}
    assert set() == missing - MASTRAS
