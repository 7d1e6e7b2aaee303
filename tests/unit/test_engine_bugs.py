"""One test per bug that random runs have found in core and engine, named after what went wrong."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, StepContext, Workflow, step, workflow
from flowcore.adapters.memory import MemoryStore
from flowcore.errors import StoreUnavailable
from flowcore.model import Json
from flowcore.testing import Fault, FaultyStore, LocalApp
from flowcore.testing.faults import Call


def local(made: Workflow[Any, Any], **options: Any) -> LocalApp:
    """A LocalApp that serves one workflow."""
    return LocalApp(App(made), **options)


@step
def spoil(value: Any) -> Any:
    """Changes what it was given, as careless authors do."""
    value["list"].append("spoiled")
    return len(value["list"])


def test_a_step_cannot_change_the_value_of_its_siblings() -> None:
    """What a step does to its input in place is seen by nobody: neither its siblings, nor the stored input."""
    made = workflow("w").parallel(spoil, spoil.clone(id="again")).commit()
    result = local(made).workflow("w").create_run().start({"list": [1]})
    assert {"spoil": 2, "again": 2} == result.output
    assert {"list": [1]} == result.input


def test_a_try_cannot_change_the_input_of_the_next_try() -> None:
    """A retry in the same process starts from the same input as one in another process."""

    @step(retries=2)
    def flaky(value: Any, ctx: StepContext) -> Json:
        value.append("spoiled")
        if ctx.attempt < 3:
            raise ValueError
        return value

    made = workflow("w").then(flaky).commit()
    assert [1, "spoiled"] == local(made).workflow("w").create_run().start([1]).output


def test_a_step_cannot_change_the_request_context_in_place() -> None:
    """Only what is assigned is kept; a failed try leaves nothing behind."""

    @step(retries=1)
    def flaky(value: Any, ctx: StepContext) -> Json:
        ctx.request_context["tags"].append(ctx.attempt)
        if ctx.attempt < 2:
            raise ValueError
        return ctx.request_context["tags"]  # type: ignore[no-any-return]  # the context is untyped

    made = workflow("w").then(flaky).commit()
    assert [2] == local(made).workflow("w").create_run().start(1, request_context={"tags": []}).output


@step
def note(value: Any, ctx: StepContext[Any, Any, Any]) -> Any:
    """Leaves its key in the state."""
    ctx.set_state({ctx.idempotency_key: value})
    return value


@step
def bail_at_two(value: int, ctx: StepContext[Any, Any, Any]) -> int:
    """Leaves its key in the state, and ends the workflow at 2."""
    ctx.set_state({ctx.idempotency_key: value})
    if value == 2:
        ctx.bail("bailed")
    return value + 1


@step
def fail_at_two(value: int, ctx: StepContext[Any, Any, Any]) -> int:
    """Leaves its key in the state; fails at 2."""
    ctx.set_state({ctx.idempotency_key: value})
    if value == 2:
        raise ValueError("two")
    return value + 1


LISTED = workflow("w").map(lambda _: [1, 2, 3], id="list")
ROWS = [
    (LISTED.foreach(bail_at_two).commit(), "success", {"r/bail_at_two[0]": 1, "r/bail_at_two[1]": 2}),
    (
        workflow("w").dountil(bail_at_two, lambda _: False).commit(),
        "success",
        {f"r/bail_at_two#{n}": n for n in (1, 2)},
    ),
    (LISTED.foreach(fail_at_two).commit(), "failed", {"r/fail_at_two[0]": 1}),
    (workflow("w").dountil(fail_at_two, lambda _: False).commit(), "failed", {"r/fail_at_two#1": 1}),
    (workflow("w").dountil(note, lambda _: 1 / 0).commit(), "failed", {"r/note#1": 1}),  # type: ignore[arg-type,return-value]
    (
        workflow("w").then(workflow("c").then(note).then(fail_at_two).then(fail_at_two, id="x").commit()).commit(),
        "failed",
        {"r/c/note": 1, "r/c/fail_at_two": 1},
    ),
]


@pytest.mark.parametrize(("made", "status", "state"), ROWS, ids=range(len(ROWS)))
def test_state_survives_a_container_that_is_left_early(
    made: Workflow[Any, Any], status: str, state: dict[str, int]
) -> None:
    """A bail or a failure inside a loop, a foreach or a nested workflow drops nothing that succeeded steps have set."""
    result = local(made).workflow("w").create_run("r").start(1)
    assert (status, state) == (result.status, result.state)


def test_the_first_failed_item_tells_the_failure_and_begun_ones_end() -> None:
    """Not the fastest one; and another worker comes to the same end as the one that began the items."""
    slow = workflow("slow").sleep(lambda n: timedelta(hours=n)).then(fail_at_two).commit()
    made = workflow("w").map(lambda _: [2, 1, 2], id="list").foreach(slow, concurrency=3).commit()
    app = local(made)
    run = app.workflow("w").create_run("r")
    run.start(None)
    app.advance(hours=1)
    assert "waiting" == run.result().status
    app.advance(hours=1)
    result = run.result()
    assert ("failed", "slow[0].fail_at_two") == (result.status, result.error and result.error.step)
    assert "success" == result.steps["slow[1]"].status
    assert "failed" == result.steps["slow[2]"].status


def test_a_failed_item_does_not_cut_off_one_that_sleeps() -> None:
    """The item behind it was begun; it wakes, ends, and only then does the foreach fail."""
    nap = workflow("nap").branch((lambda n: n == 2, fail_at_two), (lambda n: n != 2, sleepy())).commit()
    made = workflow("w").map(lambda _: [2, 1], id="list").foreach(nap, concurrency=2).commit()
    app = local(made)
    run = app.workflow("w").create_run("r")
    assert "waiting" == run.start(None).status
    app.deliver("r", twice=True)
    assert "waiting" == run.result().status
    app.advance(hours=1)
    assert ("failed", "success") == (run.result().status, run.result().steps["nap[1]"].status)


def sleepy() -> Workflow[Any, Any]:
    """A workflow that sleeps for an hour."""
    return workflow("sleepy").sleep(timedelta(hours=1)).commit()


def test_a_store_that_does_not_answer_once_is_no_failure_of_the_step() -> None:
    """The worker gives up, as it does when a commit gets no answer; the step itself did nothing wrong."""
    calls: list[str] = []

    @step
    def careful(value: int, ctx: StepContext) -> int:
        try:
            return ctx.once("receipt", lambda: value)
        except Exception:  # noqa: BLE001  # what authors do
            calls.append("swallowed")
            return -1

    left = [Fault.FAILS]

    def script(call: Call) -> Fault | None:
        return left.pop() if call.record is not None and "!" in call.record.key and left else None

    made = workflow("w").then(careful).commit()
    app = local(made, store=FaultyStore(MemoryStore(), script))
    run = app.workflow("w").create_run("r")
    with pytest.raises(StoreUnavailable):
        run.start(7)
    app.advance(minutes=20)
    assert (7, []) == (run.result().output, calls)
