"""Group I: the state that the steps of a run share."""

from __future__ import annotations

from typing import Any

import pytest

from flowcore import StepContext, step, workflow
from tests.conformance.support import Harness, behaviour, differs

Numbers = StepContext[Any, Any, dict[str, Any]]


@step
def read(_: Any, ctx: Numbers) -> Any:
    """The state as it is seen here."""
    return ctx.state


@step
def count(value: Any, ctx: Numbers) -> Any:
    """Counts on."""
    ctx.set_state({"count": ctx.state.get("count", 0) + 1})
    return value


@behaviour(132, "the first step sees the state the run began with")
def test_132_initial_state(harness: Harness) -> None:
    """Without one it is empty."""
    harness.serve(workflow("w").then(read))
    assert {"given": [1]} == harness.start(1, state={"given": [1]}).output
    assert {} == harness.start(1).output


@behaviour(133, "state is seen by the next step, not in the step that set it")
def test_133_state_is_seen_later(harness: Harness) -> None:
    """Key by key; every call counts."""

    @step
    def write(_: Any, ctx: Numbers) -> Any:
        ctx.set_state({"a": 1, "b": 1})
        ctx.set_state({"b": 2})
        return ctx.state

    result = harness.serve(workflow("w").then(write).then(read)).start(1, state={"given": 0})
    assert {"given": 0} == result.steps["write"].output
    assert {"given": 0, "a": 1, "b": 2} == result.output


@differs(134, "the result holds the state when asked for it", "RunResult.state is always there")
def test_134_state_of_the_result(harness: Harness) -> None:
    """While the run is suspended, and at its end; for whoever reads it."""

    @step
    def ask(value: Any, ctx: StepContext[bool]) -> Any:
        if ctx.resume_data is None:
            ctx.suspend()
        return value

    made = workflow("w").then(count).then(ask).then(count, id="again")
    assert {"count": 1} == harness.serve(made).start(1).state
    assert {"count": 2} == harness.resume(True).state
    assert {"count": 2} == harness.another_process().run(harness.run_id).result().state


@behaviour(135, "state is kept over suspensions and resumes")
def test_135_state_over_resumes(harness: Harness) -> None:
    """Three of them, in a loop."""

    @step
    def ask(_: Any, ctx: StepContext[int, Any, dict[str, Any]]) -> int:
        if ctx.resume_data is None:
            ctx.suspend()
        ctx.set_state({"answers": [*ctx.state["answers"], ctx.resume_data]})
        return ctx.resume_data

    made = workflow("w").then(count).dountil(ask, lambda n: n == 3).then(read)
    harness.serve(made).start(1, state={"answers": []})
    assert ["suspended", "suspended"] == [harness.resume(answer).status for answer in (1, 2)]
    result = harness.resume(3)
    assert ("success", {"count": 1, "answers": [1, 2, 3]}) == (result.status, result.output)


@behaviour(136, "state set in front of a suspension in the same step is kept")
def test_136_state_before_a_suspension(harness: Harness) -> None:
    """The step itself sees it when it is resumed."""

    @step
    def ask(_: Any, ctx: StepContext[bool, Any, dict[str, Any]]) -> Any:
        if ctx.resume_data is None:
            ctx.set_state({"asked": True})
            ctx.suspend()
        ctx.set_state({"answered": True})
        return ctx.state

    harness.serve(workflow("w").then(ask).then(read))
    assert {"asked": True} == harness.start(1).state
    result = harness.resume(True)
    assert {"asked": True} == result.steps["ask"].output
    assert {"asked": True, "answered": True} == result.output


@behaviour(137, "what a failing step has set is dropped")
def test_137_state_of_a_failing_step(harness: Harness) -> None:
    """Of each failed try; what earlier steps have set stays."""

    @step(retries=1)
    def failing(_: Any, ctx: Numbers) -> Any:
        assert {"count": 1} == ctx.state
        ctx.set_state({"count": 99, "tried": ctx.attempt})
        raise ValueError("no luck")

    harness.serve(workflow("w").then(count).then(failing)).start(1)
    harness.advance(minutes=5)
    result = harness.result()
    assert ("failed", {"count": 1}) == (result.status, result.state)
    assert result.error is not None
    assert ("ValueError", 2) == (result.error.type, result.steps["failing"].attempts)


@pytest.mark.parametrize(("number", "hooks"), [(1, ["on_finish"]), (0, ["on_error", "on_finish"])])
@behaviour(138, "on_finish and on_error are told the state")
def test_138_state_in_hooks(harness: Harness, number: int, hooks: list[str]) -> None:
    """As the run ends with it."""
    told: list[tuple[str, Any]] = []
    made = workflow(
        "w",
        input=int,
        on_error=lambda result: told.append(("on_error", result.state)),
        on_finish=lambda result: told.append(("on_finish", result.state)),
    )
    harness.serve(made.then(count).then(count, id="again").map(lambda n: 1 / n)).start(number, state={"given": 1})
    assert [(hook, {"given": 1, "count": 2}) for hook in hooks] == told
