"""Group H: what an author has done when a run begins, suspends or ends."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flowcore import RunResult, StepContext, step, workflow
from flowcore.errors import RunNotFound
from flowcore.hooks import StartRecord
from flowcore.testing.faults import WorkerDied
from tests.conformance.support import Harness, behaviour, differs

TOLD: list[tuple[str, Any]] = []


@pytest.fixture(autouse=True)
def _nothing_told() -> None:
    TOLD.clear()


def telling(name: str) -> Any:
    """A hook that notes that it was called, and with what."""
    return lambda told: TOLD.append((name, told))


def calls() -> list[tuple[str, str]]:
    """Which hooks were called, and the status each was told."""
    return [(name, getattr(told, "status", "")) for name, told in TOLD]


ENDS: dict[str, Any] = {name: telling(name) for name in ("on_suspend", "on_finish", "on_error")}
ALL: dict[str, Any] = {"on_start": telling("on_start"), **ENDS}


@step
def invert(number: int) -> float:
    """Fails for 0."""
    return 1 / number


@step
def ask(number: int, ctx: StepContext[int, dict[str, int]]) -> int:
    """Adds what somebody answers."""
    if ctx.resume_data is None:
        ctx.suspend({"number": number})
    return number + ctx.resume_data


def asking(**hooks: Any) -> Any:
    """Waits for an answer, then divides by the sum."""
    return workflow("asking", input=int, output=float, **hooks).then(ask).then(invert).commit()


def inverting(**hooks: Any) -> Any:
    """One step."""
    return workflow("inverting", input=int, output=float, **hooks).then(invert).commit()


@behaviour(122, "on_finish is told a success, with its result")
def test_122_finish_of_a_success(harness: Harness) -> None:
    """The run as it stands at its end; also when it was suspended before."""
    harness.serve(asking(on_finish=telling("on_finish"))).start(1)
    result = harness.resume(1)
    assert [("on_finish", "success")] == calls()
    told = TOLD[0][1]
    assert ("success", 0.5, {"ask", "invert"}) == (told.status, told.output, set(told.steps))
    assert result.output == told.output


@behaviour(123, "on_finish is told a failure, with its error")
def test_123_finish_of_a_failure(harness: Harness) -> None:
    """What it is told is what is stored."""
    result = harness.serve(inverting(on_finish=telling("on_finish"))).start(0)
    assert [("on_finish", "failed")] == calls()
    told = TOLD[0][1]
    assert ("ZeroDivisionError", "invert") == (told.error.type, told.error.step)
    assert result.error == told.error


@differs(
    124,
    "on_finish is told a suspension too",
    "a suspension is no end: on_suspend is told it, on_finish only what is final",
)
def test_124_a_suspension_is_no_end(harness: Harness) -> None:
    """Each suspension once, with what waits; then the end, once."""
    made = workflow("w", input=int, **ENDS).then(ask).then(ask, id="again").commit()
    harness.serve(made).start(1)
    assert [("on_suspend", "suspended")] == calls()
    assert [(["ask"], {"number": 1})] == [(wait.path, wait.payload) for wait in TOLD[0][1].waits]
    harness.resume(1)
    assert [("on_suspend", "suspended")] * 2 == calls()
    assert [["again"]] == TOLD[1][1].suspended
    harness.resume(1)
    assert [("on_suspend", "suspended"), ("on_suspend", "suspended"), ("on_finish", "success")] == calls()


@behaviour(125, "on_error is told a failure and nothing else")
def test_125_error_only_on_failure(harness: Harness) -> None:
    """No success, no suspension, no cancel."""
    only: dict[str, Any] = {"on_error": telling("on_error"), "on_finish": lambda _: None}
    harness.serve(inverting(**only), asking(**only))
    assert "success" == harness.start(1).status
    assert "suspended" == harness.start(1, workflow="asking").status
    assert "canceled" == harness.cancel().status
    assert [] == calls()
    harness.start(0)
    assert [("on_error", "failed")] == calls()


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, [("on_error", "failed"), ("on_finish", "failed")]), (1, [("on_finish", "success")])],
    ids=["failed", "success"],
)
@behaviour(126, "a failure is told to both on_error and on_finish")
def test_126_both_hooks(harness: Harness, number: int, expected: list[tuple[str, str]]) -> None:
    """A success to one of them."""
    harness.serve(inverting(**ENDS)).start(number)
    assert expected == calls()


@behaviour(127, "async hooks are awaited")
def test_127_async_hooks(harness: Harness) -> None:
    """Before start() returns; on_start before the first step."""

    async def begins(record: StartRecord) -> None:
        TOLD.append(("begins", record))

    async def ends(result: RunResult[Any]) -> None:
        TOLD.append(("ends", result))

    @step
    def between(number: int) -> int:
        TOLD.append(("step", None))
        return number

    harness.serve(workflow("w", input=int, on_start=begins, on_finish=ends).then(between)).start(1)
    assert [("begins", ""), ("step", ""), ("ends", "success")] == calls()


@differs(
    128,
    "a hook is told run, workflow, resource, state, input, request context, a logger and the engine",
    "it is told the same facts in one value, the RunResult; a logger and the App are what its module can import",
)
def test_128_what_a_hook_is_told(harness: Harness) -> None:
    """Also the one at the start, which is told what the run begins with."""
    given: dict[str, Any] = {"state": {"n": 1}, "request_context": {"locale": "de"}, "resource_id": "ada"}
    harness.serve(inverting(**ALL)).start(2, run_id="r", **given)
    (_, begun), (_, ended) = TOLD
    assert StartRecord(run_id="r", workflow_id="inverting", input=2, **given) == begun
    seen = {"state": ended.state, "request_context": ended.request_context, "resource_id": ended.resource_id}
    assert ("r", "inverting", 2, given) == (ended.run_id, ended.workflow_id, ended.input, seen)


@behaviour(129, "an on_start that raises refuses the start, and the run can be started later")
def test_129_start_refused(harness: Harness) -> None:
    """Nothing is written, no other hook is called."""
    open_for_business: list[bool] = []

    def guard(_: StartRecord) -> None:
        if not open_for_business:
            raise PermissionError("closed")

    harness.serve(inverting(on_start=guard, **ENDS))
    with pytest.raises(PermissionError, match="closed"):
        harness.start(1, run_id="r")
    with pytest.raises(RunNotFound):
        harness.result("r")
    assert [] == calls()
    open_for_business.append(True)
    assert "success" == harness.start(1, run_id="r").status


@behaviour(130, "on_start is not called by a resume, a restart or time travel")
def test_130_only_the_first_start(harness: Harness) -> None:
    """Nor by a start that finds the run begun."""
    harness.serve(asking(on_start=telling("on_start"))).start(1, run_id="r")
    assert harness.start(1, run_id="r").replayed
    harness.resume(1)
    harness.run().restart()
    harness.run().time_travel("invert", input=4)
    harness.advance()
    assert ("success", 0.25) == (harness.result().status, harness.result().output)
    assert [("on_start", "")] == calls()


@pytest.mark.parametrize("dies", [False, True], ids=["redelivered", "worker-dies"])
@behaviour(131, "a hook is called once per outcome, however often a worker is asked to look")
def test_131_once_per_outcome(harness: Harness, monkeypatch: pytest.MonkeyPatch, dies: bool) -> None:
    """Also when the worker dies between the outcome and the call: then another one calls it, once."""
    release = harness.store.release

    def dying(head: Any, **options: Any) -> Any:
        written = release(head, **options)
        if head.is_terminal:
            raise WorkerDied
        return written

    harness.serve(asking(**ENDS)).start(1)
    harness.app.deliver(harness.run_id, twice=True)
    if dies:
        with monkeypatch.context() as patch:
            patch.setattr(harness.store, "release", dying)
            harness.resume(1)
        assert "success" == harness.result().status
        assert [("on_suspend", "suspended")] == calls()
    else:
        harness.resume(1)
    for _ in range(2):
        harness.advance(timedelta(hours=1))
        harness.app.deliver(harness.run_id, twice=True)
    assert [("on_suspend", "suspended"), ("on_finish", "success")] == calls()
