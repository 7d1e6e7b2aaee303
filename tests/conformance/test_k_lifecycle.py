"""Group K: sleep, cancel, restart and time travel."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Event
from typing import Any

import pytest

from flowcore import RunResult, StepContext, otherwise, step, workflow
from flowcore.errors import (
    InvalidPayload,
    NotRecorded,
    NotSuspended,
    RunNotFound,
    StillRunning,
    StoreUnavailable,
    UnknownStep,
)
from flowcore.keys import dotted
from flowcore.testing.faults import WorkerDied
from tests.conformance.support import Harness, behaviour, differs, meet, outputs

HOUR = timedelta(hours=1)
CALLS: list[str] = []


@pytest.fixture(autouse=True)
def _no_calls_yet() -> None:
    CALLS.clear()


def noting(id: str) -> Any:
    """A step that adds one and notes that it was called."""

    def execute(number: int) -> int:
        CALLS.append(id)
        return number + 1

    return step(id=id)(execute)


@step
def ask(number: int, ctx: StepContext[int]) -> int:
    """Adds what somebody answers."""
    CALLS.append("ask")
    if ctx.resume_data is None:
        ctx.suspend()
    return number + ctx.resume_data


A, B, C = (noting(id) for id in "abc")
CHILD = workflow("child", input=int, output=int).then(A).then(B).commit()
LINE = workflow("line", input=int, output=int).then(A).then(B).then(C).commit()
ASKING = workflow("asking", input=int, output=int).then(A).then(ask).then(C).commit()


def dies_at(harness: Harness, monkeypatch: pytest.MonkeyPatch, step: str, *, meanwhile: Event | None = None) -> None:
    """The worker dies once, when ``step`` (dotted id) has run and its outcome is about to be stored."""
    commit = harness.store.commit

    def dying(run: Any, incarnation: Any, record: Any, prior: Any) -> Any:
        if dotted(record.key) != step:
            return commit(run, incarnation, record, prior)
        monkeypatch.setattr(harness.store, "commit", commit)
        if meanwhile is not None:
            meanwhile.set()
        raise WorkerDied

    monkeypatch.setattr(harness.store, "commit", dying)


def restarted(harness: Harness) -> RunResult[Any]:
    """The run after ``restart``, once it rests."""
    harness.run().restart()
    harness.advance()
    return harness.result()


def travelled(harness: Harness, target: Any, **options: Any) -> RunResult[Any]:
    """The run after ``time_travel``, once it rests."""
    harness.run().time_travel(target, **options)
    harness.advance()
    return harness.result()


# -- sleep ------------------------------------------------------------------------------------------------------------


@behaviour(185, "a sleep takes its time; the value passes through")
def test_185_sleep(harness: Harness) -> None:
    """Not a moment less, and no more than it takes to notice."""
    made = workflow("w", input=int).then(A).sleep(HOUR, id="nap").then(B)
    begin = harness.serve(made).start(1).created_at
    harness.advance(HOUR - timedelta(milliseconds=1))
    assert ("waiting", ["a"]) == (harness.result().status, CALLS)
    harness.advance(timedelta(milliseconds=1))
    result = harness.result()
    assert ("success", 3) == (result.status, result.output)
    nap = result.steps["nap"]
    assert (2, 2, begin + HOUR) == (nap.input, nap.output, nap.ended_at)


@behaviour(186, "the length of a sleep may be computed from its input")
def test_186_sleep_by_function(harness: Harness) -> None:
    """Once; the value passes through."""
    harness.serve(workflow("w", input=int).sleep(lambda hours: hours * HOUR).then(A)).start(3)
    harness.advance(2.9 * HOUR)
    assert "waiting" == harness.result().status
    harness.advance(0.1 * HOUR)
    assert 4 == harness.result().output


@pytest.mark.parametrize("computed", [False, True])
@behaviour(187, "a sleep may last until an instant, given or computed")
def test_187_sleep_until(harness: Harness, computed: bool) -> None:
    """However far it is: longer than timers of 32 bits reach."""
    instant = harness.clock.now() + timedelta(days=400)
    until: datetime | Callable[[Any], datetime] = (lambda _: instant) if computed else instant
    result = harness.serve(workflow("w", input=int).sleep_until(until, id="nap").then(A)).start(1)
    assert ("waiting", instant) == (result.status, result.steps["nap"].wake_at)
    harness.advance(days=399)
    assert "waiting" == harness.result().status
    harness.advance(days=1)
    assert 2 == harness.result().output


@behaviour(188, "a sleep of no length, or until the past, does not wait")
def test_188_no_sleep(harness: Harness) -> None:
    """Fixed or computed."""
    past = harness.clock.now() - HOUR
    made = workflow("w", input=int).sleep(-HOUR).sleep(lambda _: timedelta(0)).sleep_until(past)
    result = harness.serve(made.sleep_until(lambda _: past).then(A)).start(1)
    assert ("success", 2) == (result.status, result.output)


@behaviour(189, "a sleep in an arm of a branch, or between steps, keeps earlier results")
def test_189_sleep_keeps_results(harness: Harness) -> None:
    """Nothing in front of it runs again."""
    napping = workflow("napping", input=int, output=int).then(A).sleep(HOUR).then(B).commit()
    made = workflow("w", input=int).then(C).branch((lambda n: n > 0, napping)).map({"n": {"step": "c"}})
    assert {"c": 2, "napping.a": 3} == {
        id: value for id, value in outputs(harness.serve(made).start(1)).items() if id in ("c", "napping.a")
    }
    harness.advance(HOUR)
    assert ("success", {"n": 2}) == (harness.result().status, harness.result().output)
    assert ["c", "a", "b"] == CALLS


@behaviour(190, "a sleeping run is waiting, and tells until when")
def test_190_waiting(harness: Harness) -> None:
    """In the listing too; a run is waiting while one of its branches sleeps and another is suspended."""
    nap = workflow("nap", input=int).sleep(HOUR, id="z").commit()
    result = harness.serve(workflow("w", input=int).parallel(nap, ask)).start(1)
    assert ("waiting", "waiting", "suspended") == (
        result.status,
        result.steps["nap.z"].status,
        result.steps["ask"].status,
    )
    assert harness.clock.now() + HOUR == result.steps["nap.z"].wake_at
    assert [harness.run_id] == [run.run_id for run in harness.app.list_runs(status="waiting")]


@differs(191, "waiting for an event is refused", "it works: an event settles one wait, or is kept for one that comes")
def test_191_wait_for_event(harness: Harness) -> None:
    """Sent before or after the run waits for it, from another process; and not again."""
    flow = workflow("w", input=int).then(A).wait_for_event("paid", key=lambda n: f"order-{n}", model=int).then(B)
    harness.serve(flow).start(1)
    assert "suspended" == harness.result().status
    assert "applied" == harness.another_process().send_event("paid", "order-2", 7).verdict
    harness.advance()
    assert ("success", 8, ["a", "b"]) == (harness.result().status, harness.result().output, CALLS)
    assert "buffered" == harness.another_process().send_event("paid", "order-3", 8).verdict
    assert ("success", 9) == (harness.start(2).status, harness.result().output)
    assert "suspended" == harness.start(2).status


# -- cancel -----------------------------------------------------------------------------------------------------------


@behaviour(192, "a cancel while the run sleeps is for good")
def test_192_cancel_a_sleeper(harness: Harness) -> None:
    """At once, also when the wake comes; later steps do not run."""
    harness.serve(workflow("w", input=int).then(A).sleep(HOUR, id="nap").then(B)).start(1)
    result = harness.cancel()
    assert ("canceled", "canceled") == (result.status, result.steps["nap"].status)
    harness.advance(days=1)
    harness.app.deliver(harness.run_id, twice=True)
    assert ("canceled", ["a"]) == (harness.result().status, CALLS)


@behaviour(193, "a suspended run can be canceled")
def test_193_cancel_a_suspended_run(harness: Harness) -> None:
    """It takes no answer afterwards."""
    harness.serve(ASKING).start(1)
    result = harness.cancel()
    assert ("canceled", [], "canceled") == (result.status, result.waits, result.steps["ask"].status)
    with pytest.raises(NotSuspended, match="canceled"):
        harness.resume(10)
    assert "canceled" == harness.result().status


@behaviour(194, "a cancel between two steps keeps the second from running")
def test_194_cancel_between_steps(harness: Harness) -> None:
    """Even when the first does not listen."""

    @step
    def deaf(number: int, ctx: StepContext) -> int:
        harness.another_process().cancel(ctx.run_id)
        harness.clock.forward(seconds=2)
        return number

    result = harness.serve(workflow("w", input=int).then(A).then(deaf).then(B)).start(1)
    assert ("canceled", ["a"]) == (result.status, CALLS)
    harness.advance(days=1)
    assert ("canceled", ["a"]) == (harness.result().status, CALLS)


@behaviour(195, "a step that listens notices the cancel")
def test_195_cancel_a_listening_step(harness: Harness) -> None:
    """From another process, within a second."""
    seen: list[bool] = []

    @step
    def listening(number: int, ctx: StepContext) -> int:
        seen.append(ctx.cancelled.is_set())
        harness.another_process().cancel(ctx.run_id)
        for _ in range(10):
            harness.clock.forward(seconds=1)
            seen.append(ctx.cancelled.is_set())
            if seen[-1]:
                break
        return number

    result = harness.serve(workflow("w", input=int).then(listening).then(A)).start(1)
    assert ("canceled", [False, True], []) == (result.status, seen, CALLS)


@behaviour(196, "a run is canceled in storage when cancel() returns")
def test_196_cancel_is_stored(harness: Harness) -> None:
    """While the step it is canceled in still runs."""
    stored: list[str] = []

    @step
    def running(number: int, ctx: StepContext) -> int:
        harness.another_process().cancel(ctx.run_id)
        stored.append(harness.another_process().run(ctx.run_id).result().status)
        stored.extend(run.status for run in harness.another_process().list_runs())
        return number

    harness.serve(workflow("w", input=int).then(running).then(A)).start(1)
    assert ["canceled", "canceled"] == stored
    assert "canceled" == harness.result().status


@pytest.mark.parametrize(("number", "status"), [(1, "success"), (0, "failed")])
@behaviour(197, "a cancel after the end changes nothing")
def test_197_cancel_after_the_end(harness: Harness, number: int, status: str) -> None:
    """The run keeps its status."""
    before = harness.serve(workflow("w", input=int).map(lambda n: 1 / n)).start(number)
    assert status == before.status
    assert before == harness.another_process().cancel(harness.run_id)


@behaviour(198, "a cancel from a fresh process reaches suspended nested workflows, and nothing else")
def test_198_cancel_from_a_fresh_process(harness: Harness) -> None:
    """On every level; finished ones and other runs stay as they are."""
    inner = workflow("inner", input=int, output=int).then(ask).commit()
    outer = workflow("outer", input=int, output=int).then(inner).commit()
    harness.serve(workflow("w", input=int).parallel(outer, CHILD))
    unrelated = harness.start(1).run_id
    harness.start(1)
    result = harness.another_process().cancel(harness.run_id)
    expected = {"outer": "canceled", "outer.inner": "canceled", "outer.inner.ask": "canceled", "child": "success"}
    assert "canceled" == result.status
    assert expected == {id: result.steps[id].status for id in expected}
    assert "suspended" == harness.result(unrelated).status


@differs(
    199,
    "cancel works though the store fails",
    "a cancel that is not stored would be none: the caller is told, the run is untouched, and the call can be repeated",
)
def test_199_cancel_that_is_not_stored(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call gets through."""

    def unavailable(*_: Any, **_options: Any) -> Any:
        raise StoreUnavailable("not now")

    before = harness.serve(ASKING).start(1)
    with monkeypatch.context() as patch:
        patch.setattr(harness.store, "cancel", unavailable, raising=False)
        with pytest.raises(StoreUnavailable):
            harness.cancel()
    assert before == harness.result()
    assert "canceled" == harness.cancel().status


# -- restart ----------------------------------------------------------------------------------------------------------


@behaviour(200, "a run that was never started cannot be restarted")
def test_200_restart_of_nothing(harness: Harness) -> None:
    """There is no such run."""
    run = harness.serve(LINE).app.workflow("line").create_run("r")
    with pytest.raises(RunNotFound):
        run.restart()


@behaviour(201, "a restart runs the step again that was under way, and goes on")
def test_201_restart(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished steps are not repeated."""
    harness.serve(LINE)
    dies_at(harness, monkeypatch, "b")
    assert "running" == harness.start(1).status
    assert ["a", "b"] == CALLS
    assert ("success", 4) == ((result := restarted(harness)).status, result.output)
    assert ["a", "b", "b", "c"] == CALLS


@behaviour(202, "a restart inside a nested workflow runs only the step that was under way there")
def test_202_restart_inside_nested(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the nested workflow from its beginning nor what stands in front of it."""
    harness.serve(workflow("w", input=int).then(C).then(CHILD))
    dies_at(harness, monkeypatch, "child.b")
    assert "running" == harness.start(1).status
    assert ("success", 4) == ((result := restarted(harness)).status, result.output)
    assert ["c", "a", "b", "b"] == CALLS


@behaviour(203, "a restart inside a parallel runs the branches again that were under way, not the finished ones")
def test_203_restart_inside_parallel(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of three."""
    begun, died = Event(), Event()

    @step
    def dying(number: int) -> int:
        assert meet(harness.committed("a"), begun)
        CALLS.append("dying")
        return number

    @step
    def lasting(number: int) -> int:
        CALLS.append("lasting")
        begun.set()
        assert meet(died)
        return number

    harness.serve(workflow("w", input=int).parallel(A, dying, lasting))
    dies_at(harness, monkeypatch, "dying", meanwhile=died)
    assert "running" == harness.start(1).status
    result = restarted(harness)
    assert ("success", {"a": 2, "dying": 1, "lasting": 1}) == (result.status, result.output)
    assert ["a", "dying", "dying", "lasting", "lasting"] == sorted(CALLS)


@behaviour(204, "a restarted run can suspend and be resumed")
def test_204_restart_then_suspend(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any other."""
    harness.serve(ASKING)
    dies_at(harness, monkeypatch, "ask")
    assert "running" == harness.start(1).status
    assert "suspended" == restarted(harness).status
    assert 13 == harness.resume(10).output
    assert ["a", "ask", "ask", "ask", "c"] == CALLS


@behaviour(205, "a restart inside a loop goes on with the turn that was under way")
def test_205_restart_inside_loop(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """With that turn's input and count."""
    seen: list[tuple[int, int | None]] = []

    @step
    def body(number: int, ctx: StepContext) -> int:
        seen.append((number, ctx.iteration))
        if len(seen) == 2:
            dies_at(harness, monkeypatch, "body")
        return number + 1

    harness.serve(workflow("w", input=int).dowhile(body, lambda n: n < 4))
    assert "running" == harness.start(1).status
    assert ("success", 4) == ((result := restarted(harness)).status, result.output)
    assert [(1, 1), (2, 2), (2, 2), (3, 3)] == seen


@pytest.mark.parametrize(("number", "status"), [(1, "success"), (0, "failed")])
@behaviour(206, "a restart of an ended run gives its stored result")
def test_206_restart_after_the_end(harness: Harness, number: int, status: str) -> None:
    """Nothing is called."""
    before = harness.serve(workflow("w", input=int).then(A).map(lambda n: 1 / (n - 1))).start(number)
    assert (status, before, ["a"]) == (before.status, restarted(harness), CALLS)


@behaviour(207, "a sleep survives the end of its process")
def test_207_sleep_survives(harness: Harness) -> None:
    """It is not begun anew, neither by another process nor by a restart; work around it is done once."""
    nap = harness.serve(workflow("w", input=int).then(A).sleep(HOUR, id="nap").then(B)).start(1).steps["nap"]
    harness.advance(HOUR / 2)
    harness.serve(*harness.workflows)
    assert nap.wake_at == restarted(harness).steps["nap"].wake_at
    harness.advance(HOUR / 2)
    assert ("success", ["a", "b"]) == (harness.result().status, CALLS)


@differs(
    208,
    "the automatic restart can be switched off",
    "that the run of a dead worker goes on is the promise, and the sweeper keeps it: without one nothing restarts by "
    "itself, and pause() keeps a single run from it",
)
def test_208_no_restart(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither time nor a new process nor another run restarts it; the sweeper would, but not once it is paused."""
    harness.serve(LINE)
    dies_at(harness, monkeypatch, "b")
    assert "running" == harness.start(1, run_id="r").status
    harness.scheduler.pop_due(harness.clock.now())
    harness.clock.forward(days=1)
    harness.serve(*harness.workflows).start(1)
    assert ("running", ["a", "b", "a", "b", "c"]) == (harness.result("r").status, CALLS)
    assert 1 == harness.app.sweep()
    harness.run("r").pause()
    harness.advance(days=1)
    assert ("paused", 5) == (harness.result("r").status, len(CALLS))
    harness.run("r").unpause()
    harness.advance()
    assert ("success", ["b", "c"]) == (harness.result("r").status, CALLS[5:])


@behaviour(209, "a crash right after the start loses neither input nor state nor request context")
def test_209_crash_after_the_start(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker finds the run by itself."""

    @step
    def seen(value: Any, ctx: StepContext[Any, Any, dict[str, Any]]) -> Any:
        return [value, ctx.state, dict(ctx.request_context), ctx.resource_id]

    start = harness.store.start

    def dying(head: Any) -> Any:
        start(head)
        raise WorkerDied

    monkeypatch.setattr(harness.store, "start", dying)
    with pytest.raises(WorkerDied):
        harness.serve(workflow("w").then(seen)).start(
            {"n": 1}, state={"s": 2}, request_context={"c": 3}, resource_id="x"
        )
    assert "running" == harness.result().status
    harness.advance(HOUR)
    assert ("success", [{"n": 1}, {"s": 2}, {"c": 3}, "x"]) == (harness.result().status, harness.result().output)


# -- time travel ------------------------------------------------------------------------------------------------------


@behaviour(210, "time travel goes to a step with given outputs of the steps in front")
def test_210_travel_with_context(harness: Harness) -> None:
    """They are not called."""
    harness.serve(ASKING).start(1)
    CALLS.clear()
    result = travelled(harness, "c", context={"a": 7, "ask": 40})
    assert ("success", 41, ["c"]) == (result.status, result.output, CALLS)
    assert 7 == result.steps["a"].output


@behaviour(211, "time travel goes to a step with nothing but its input")
def test_211_travel_with_input(harness: Harness) -> None:
    """Whatever was never done in front of it is skipped."""
    harness.serve(ASKING).start(1)
    result = travelled(harness, C, input=40)
    assert ("success", 41, "skipped") == (result.status, result.output, result.steps["ask"].status)


@behaviour(212, "time travel in an ended run uses its stored results")
def test_212_travel_after_the_end(harness: Harness) -> None:
    """The step and what follows run again; a failed run gets a second chance."""
    broken: list[int] = [1]

    @step
    def fragile(number: int) -> int:
        CALLS.append("fragile")
        if broken:
            raise ValueError("no luck")
        return number + 1

    assert "failed" == harness.serve(workflow("w", input=int).then(A).then(fragile).then(C)).start(1).status
    broken.clear()
    assert ("success", 4) == ((result := travelled(harness, "fragile")).status, result.output)
    assert ["a", "fragile", "fragile", "c"] == CALLS
    assert (4, "c") == (travelled(harness, "c").output, CALLS[-1])


@pytest.mark.parametrize("path", ["outer.child.b", ["outer", "child", "b"]], ids=["dotted", "list"])
@behaviour(213, "time travel goes into nested workflows by path")
def test_213_travel_into_nested(harness: Harness, path: Any) -> None:
    """Steps in front of the target are not repeated, on no level."""
    outer = workflow("outer", input=int, output=int).then(CHILD).commit()
    harness.serve(workflow("w", input=int).then(C).then(outer).then(A, id="after")).start(1)
    CALLS.clear()
    result = travelled(harness, path)
    assert ("success", 5, ["b", "a"]) == (result.status, result.output, CALLS)
    assert 42 == travelled(harness, path, input=40).output


@behaviour(214, "time travel goes to a branch of a parallel")
def test_214_travel_to_parallel_branch(harness: Harness) -> None:
    """The other branches keep their results."""
    harness.serve(workflow("w", input=int).parallel(A, B)).start(1)
    CALLS.clear()
    result = travelled(harness, "b", input=40)
    assert ({"a": 2, "b": 41}, ["b"]) == (result.output, CALLS)


@behaviour(215, "time travel goes to an arm of a branch; the other arms are not taken")
def test_215_travel_to_an_arm(harness: Harness) -> None:
    """Whatever the conditions have said before."""
    harness.serve(workflow("w", input=int).branch((lambda n: n > 100, A), (otherwise, B))).start(1)
    assert ["b"] == CALLS
    result = travelled(harness, "a")
    assert ({"a": 2}, ["b", "a"]) == (result.output, CALLS)
    assert "b" not in result.steps


@behaviour(216, "time travel goes to a loop, and behind one")
def test_216_travel_around_a_loop(harness: Harness) -> None:
    """Into it at the first turn; behind it without any."""
    harness.serve(workflow("w", input=int).then(A).dountil(B, lambda n: n >= 5).then(C)).start(1)
    CALLS.clear()
    result = travelled(harness, "b", input=3)
    assert (6, ["b", "b", "c"], 2) == (result.output, CALLS, result.steps["b"].iteration)
    CALLS.clear()
    assert (6, ["c"]) == (travelled(harness, "c").output, CALLS)
    assert (6, ["c", "b", "b", "b", "c"]) == (travelled(harness, "b").output, CALLS)


@differs(
    217,
    "time travel in a suspended run may bring the answer along",
    "the new life has a suspension of its own, and resume() answers it: there is one way for an answer to come",
)
def test_217_travel_in_a_suspended_run(harness: Harness) -> None:
    """The wait of the earlier life takes no answer any more."""
    old = harness.serve(ASKING).start(1).waits[0].id
    result = travelled(harness, "ask", input=40)
    assert "suspended" == result.status
    assert old != result.waits[0].id
    with pytest.raises(NotSuspended):
        harness.resume(10, wait=old)
    assert 51 == harness.resume(10, wait=result.waits[0].id).output


@behaviour(218, "a run can suspend and be resumed after time travel")
def test_218_travel_then_suspend(harness: Harness) -> None:
    """As often as it likes."""
    harness.serve(ASKING).start(1)
    assert 13 == harness.resume(10).output
    for answer in (20, 30):
        assert "suspended" == travelled(harness, "a").status
        assert answer + 3 == harness.resume(answer).output


@behaviour(219, "step by step a run is paused after each one")
def test_219_per_step(harness: Harness) -> None:
    """From its start, and after time travel."""
    assert ("paused", ["a"]) == (harness.serve(LINE).start(1, per_step=True).status, CALLS)
    harness.run().unpause(per_step=True)
    assert ("paused", ["a", "b"]) == (harness.result().status, CALLS)
    harness.run().time_travel("b", per_step=True)
    assert ("paused", ["a", "b", "b"]) == (harness.result().status, CALLS)
    harness.run().unpause()
    harness.advance()
    assert ("success", 4, ["a", "b", "b", "c"]) == (harness.result().status, harness.result().output, CALLS)


@pytest.mark.parametrize(
    ("target", "options", "error"),
    [
        ("nowhere", {}, UnknownStep),
        ("ask.inner", {}, UnknownStep),
        ("c", {}, NotRecorded),
        ("c", {"input": "seven"}, InvalidPayload),
    ],
    ids=["unknown", "no-container", "not-recorded", "bad-input"],
)
@behaviour(220, "time travel that cannot be is refused; the run is untouched")
def test_220_no_travel(harness: Harness, target: str, options: dict[str, Any], error: type[Exception]) -> None:
    """To no step, past steps without an output, with an input that does not fit, or while a worker drives the run."""
    before = harness.serve(ASKING).start(1)
    with pytest.raises(error):
        harness.run().time_travel(target, **options)
    assert before == harness.result()
    assert 13 == harness.resume(10).output

    @step
    def running(number: int, ctx: StepContext) -> int:
        with pytest.raises(StillRunning):
            harness.another_process().run(ctx.run_id).time_travel("a")
        return number

    assert 2 == harness.serve(workflow("w", input=int).then(A).then(running)).start(1).output
