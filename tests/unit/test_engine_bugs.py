"""One test per bug that random runs have found in core and engine, named after what went wrong."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, StepContext, Workflow, step, workflow
from flowcore.adapters.memory import MemoryStore
from flowcore.errors import StoreUnavailable
from flowcore.model import Json
from flowcore.testing import Fault, FaultyStore, LocalApp, VirtualClock
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
        return ctx.request_context["tags"]

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
    (workflow("w").dountil(note, lambda _: 1 / 0).commit(), "failed", {"r/note#1": 1}),  # type: ignore[arg-type]
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


@pytest.mark.parametrize("pause", [timedelta(0), timedelta(hours=1)])
def test_the_result_of_a_finished_childs_step_is_found_after_a_wake(pause: timedelta) -> None:
    """Whether the worker that asks has run the child itself makes no difference."""

    @step
    def look(_: Any, ctx: StepContext) -> Any:
        return ctx.get_step_result("child.note")

    child = workflow("child").then(note).commit()
    app = local(workflow("w").then(child).sleep(pause).then(look).commit())
    run = app.workflow("w").create_run()
    run.start(7)
    app.advance(hours=1)
    assert 7 == run.result().output


def test_what_an_entry_bailed_with_need_not_fit_its_output() -> None:
    """A foreach that an item left with ``bail`` holds no list; whoever asks for its result gets what it holds."""

    @step
    def leave(_: Any, ctx: StepContext) -> int:
        ctx.bail({"enough": True})

    @step
    def look(_: Any, ctx: StepContext) -> Any:
        return [ctx.get_step_result("child.leave"), ctx.get_step_result("other.each")]

    child = workflow("child").then(leave).commit()
    other = workflow("other").map(lambda _: [1, 2]).foreach(leave, id="each").commit()
    made = workflow("w").parallel(child, other).then(look).commit()
    assert [{"enough": True}, {"enough": True}] == local(made).workflow("w").create_run().start(7).output


@pytest.mark.parametrize("leave", ["suspend", "bail"])
def test_a_step_that_catches_what_leaves_it_fails(leave: str) -> None:
    """It would seem to have succeeded, and nobody would ever be asked."""

    @step
    def greedy(_: Any, ctx: StepContext) -> str:
        with suppress(BaseException):
            getattr(ctx, leave)("why")
        return "went on"

    made = workflow("w").then(greedy).commit()
    result = local(made).workflow("w").create_run().start(7)
    assert ("failed", "greedy") == (result.status, result.error and result.error.step)
    assert f"ctx.{leave}()" in str(result.error)


def test_a_branch_has_no_step_result() -> None:
    """Its record holds which arms were chosen, which is not what a step would call a result."""

    @step
    def look(_: Any, ctx: StepContext) -> Any:
        return [ctx.get_step_result("fork"), ctx.get_step_result("note")]

    made = workflow("w").branch((lambda _: True, note), id="fork").then(look).commit()
    assert [None, 7] == local(made).workflow("w").create_run().start(7).output


@step
def ask(_: int, ctx: StepContext[str]) -> str:
    """Waits for a word."""
    if ctx.resume_data is None:
        ctx.suspend()
    return ctx.resume_data


@pytest.mark.parametrize("rival", [0, 1, 2, 3])
def test_an_answer_for_all_items_reaches_all_but_one_taken_meanwhile(rival: int) -> None:
    """Somebody settles one item between two writes of the answer for all; the others get theirs nevertheless."""
    store, clock, writes = MemoryStore(), VirtualClock(), list[Call]()
    made = workflow("w", input=list[int]).foreach(ask, concurrency=4).commit()
    other = local(made, store=store, clock=clock)

    def script(call: Call) -> Fault | None:
        if call.verb == "resume":
            writes.append(call)
            if len(writes) == rival + 1:
                other.resume("r", "rival", index=rival)
        return None

    app = local(made, store=store, clock=clock)
    app.workflow("w").create_run("r").start([1, 2, 3, 4])
    app.engine.store = FaultyStore(store, script)
    app.resume("r", "all")
    app.advance(hours=1)
    expected = ["all"] * 4
    expected[rival] = "rival"
    assert ("success", expected) == (app.run("r").result().status, app.run("r").result().output)


def test_a_thawed_worker_goes_on_with_the_outcome_that_was_stored() -> None:
    """Not with its own: what follows must be computed from what the run remembers."""
    drawn: list[int] = []

    @step
    def draw(_: int) -> int:
        drawn.append(len(drawn) + 1)
        return drawn[-1]

    made = workflow("w", input=int).then(draw).then(note).commit()
    store, clock, calls = MemoryStore(), VirtualClock(), list[Call]()
    other = local(made, store=store, clock=clock)

    def script(call: Call) -> Fault | None:
        if call.verb == "commit" and not calls:
            calls.append(call)
            clock.forward(hours=1)
            other.crash_after("draw")
            other.deliver("r")
        return None

    app = local(made, store=FaultyStore(store, script), clock=clock)
    app.workflow("w").create_run("r").start(0)
    other.advance(hours=1)
    assert [1, 2] == drawn
    assert (2, {"r/note": 2}) == (other.run("r").result().output, other.run("r").result().state)


def test_a_failure_that_is_no_text_does_not_strand_the_run() -> None:
    """Half a surrogate pair in a message or a property cannot be stored; the failure is, without it."""

    class OddError(Exception):
        def __init__(self) -> None:
            super().__init__("odd \ud800")
            self.detail, self.code = "\ud800", 7

    @step
    def odd(_: Any) -> Any:
        raise OddError

    error = local(workflow("w").then(odd).commit()).workflow("w").create_run().start(1).error
    assert error is not None
    assert ("odd ?", {"code": 7}) == (error.message, dict(error.properties))


def test_a_worker_whose_step_has_seen_the_cancel_begins_nothing_more() -> None:
    """The step looked at the flag less than a moment before its outcome was to be committed."""
    reached: list[str] = []

    @step
    def long(_: Any, ctx: StepContext) -> None:
        local(made, store=app.store, clock=app.clock).cancel(ctx.run_id)
        app.clock.forward(seconds=2)
        assert ctx.cancelled.is_set()

    @step
    def later(_: Any) -> None:
        reached.append("later")

    made = workflow("w").then(long).then(later).commit()
    app = local(made)
    assert "canceled" == app.workflow("w").create_run().start(1).status
    assert [] == reached


def test_a_failed_step_is_logged_once_with_its_frames_and_without_its_message(caplog: pytest.LogCaptureFixture) -> None:
    """The stored failure has no stack; nobody could find the line that raised. What the author said is payload."""

    @step(retries=1)
    def failing(_: Any) -> Any:
        raise ValueError("no luck")

    made = workflow("w").then(workflow("child").then(failing).commit()).commit()
    local(made).workflow("w").create_run("r").start(1)
    (line,) = caplog.records
    assert ("step failed with ValueError", "child.failing") == (line.getMessage(), vars(line)["step"])
    assert "in failing" in vars(line)["stack"]
    assert "no luck" not in line.getMessage()


@step
def add_answer(number: int, ctx: StepContext[int]) -> int:
    """Adds what somebody answers."""
    if ctx.resume_data is None:
        ctx.suspend()
    return number + ctx.resume_data


def test_a_copy_of_an_answer_is_known_after_its_scope_has_closed() -> None:
    """The key of an answer to an earlier turn of a loop must not be taken for the answer to the next turn."""
    made = workflow("w", input=int).dountil(add_answer, lambda n: n > 25).commit()
    app = local(made)
    app.workflow("w").create_run("r").start(1)
    app.resume("r", 10, idempotency_key="click")
    copy = app.resume("r", 10, idempotency_key="click")
    assert ("suspended", "duplicate", True) == (copy.status, copy.receipt and copy.receipt.verdict, copy.replayed)
    assert 31 == app.resume("r", 20, idempotency_key="another").output


def test_a_nested_workflow_on_the_way_to_a_suspension_is_a_name_for_it() -> None:
    """Not only the outermost one."""
    inner = workflow("inner", input=int).then(add_answer).commit()
    made = workflow("w", input=int).then(workflow("outer", input=int).then(inner).commit()).commit()
    app = local(made)
    app.workflow("w").create_run("r").start(1)
    assert 11 == app.resume("r", 10, step=inner).output


def test_a_worker_that_thaws_after_its_lease_repeats_no_step() -> None:
    """It was frozen in a commit, another one finished the run, and what follows is not run a second time."""
    ran: list[str] = []

    @step
    def tell(number: int, ctx: StepContext) -> int:
        ran.append(ctx.step_id)
        return number

    def freeze(call: Call) -> None:
        if call.record is not None and call.record.key == "first" and ran == ["first"]:
            app.clock.forward(hours=1)
            app.deliver("r")

    made = workflow("w", input=int).then(tell, id="first").then(tell, id="second").commit()
    app = local(made, store=FaultyStore(MemoryStore(), freeze))
    assert "success" == app.workflow("w").create_run("r").start(1).status
    assert ["first", "first", "second"] == ran


@step
def ask_or_leave(number: int, ctx: StepContext[int]) -> int:
    """Leaves its workflow at 0; otherwise waits for an answer."""
    if number == 0:
        ctx.bail([number])
    if ctx.resume_data is None:
        ctx.suspend()
    return ctx.resume_data


def test_nobody_waits_any_more_where_the_workflow_around_has_ended() -> None:
    """Item 0 was suspended when item 1 left the nested workflow; an answer after that is not for item 0."""
    child = workflow("child", input=list[int]).foreach(ask_or_leave, concurrency=2, id="each").commit()
    made = workflow("w", input=list[int]).then(child).map(sum).then(add_answer).commit()
    app = local(made)
    run = app.workflow("w").create_run("r")

    began = run.start([7, 0])
    assert [["add_answer"]] == [wait.path for wait in began.waits] == [wait.path for wait in run.result().waits]
    assert [["add_answer"]] == began.suspended
    assert ("success", 5) == ((ended := run.resume(5, idempotency_key="click")).status, ended.output)


def test_an_answer_in_a_later_turn_is_not_for_an_abandoned_one() -> None:
    """The same place was left suspended in turn 1; whoever answers with an idempotency key looks at all turns."""

    @step
    def ask_or_leave_first(number: int, ctx: StepContext[int]) -> int:
        if number == 0 and ctx.iteration == 1:
            ctx.bail([7, 8])
        if ctx.resume_data is None:
            ctx.suspend()
        return number + ctx.resume_data

    turn = workflow("turn", input=list[int]).foreach(ask_or_leave_first, concurrency=2, id="each").commit()
    app = local(workflow("w", input=list[int]).dountil(turn, lambda items: items != [7, 8], id="l").commit())
    run = app.workflow("w").create_run("r")

    run.start([1, 0])
    first = run.resume(10, step="l.each[0]", idempotency_key="click")
    assert "l#2/each[0]@0" == (first.receipt and first.receipt.wait)
    assert [17, 18] == run.resume(10).output
