"""Group C: parallel and branch."""

from __future__ import annotations

from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from pydantic import BaseModel

from flowcore import StepContext, Workflow, otherwise, step, workflow
from tests.conformance.support import PATIENCE_S, Harness, behaviour, differs, meet, outputs


class Reading(BaseModel):
    """Something to decide on."""

    level: int
    kind: str = "plain"


@step
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


@step
def increment(number: int) -> int:
    """One more."""
    return number + 1


@step
def low(reading: Reading) -> str:
    """An arm."""
    return f"low {reading.level}"


@step
def medium(reading: Reading) -> str:
    """An arm."""
    return f"medium {reading.level}"


@step
def high(reading: Reading) -> str:
    """An arm."""
    return f"high {reading.level}"


@step
def failing(_: Any) -> Any:
    """An arm that fails."""
    raise ValueError("no luck")


@step
def echo(value: Any) -> Any:
    """What it was given."""
    return value


@behaviour(34, "parallel gives the outputs keyed by step id")
def test_034_parallel_is_keyed_by_id(harness: Harness) -> None:
    """All arms get the same value; the next step gets all outputs."""
    result = harness.serve(workflow("w", input=int).parallel(double, increment).then(echo)).start(5)
    assert {"double": 10, "increment": 6} == result.output == result.steps["echo"].input


@pytest.mark.parametrize("awaited", [False, True])
@behaviour(35, "parallel steps overlap in time")
def test_035_parallel_overlaps(harness: Harness, awaited: bool) -> None:
    """Each of three waits until all three have begun; threads and coroutines alike."""
    import asyncio  # noqa: PLC0415  # of the coroutines alone

    barrier = Barrier(3)

    def meets(_: Any) -> bool:
        return barrier.wait(PATIENCE_S) >= 0

    async def meets_awaiting(_: Any) -> bool:
        return await asyncio.to_thread(barrier.wait, PATIENCE_S) >= 0

    one = step(id="one")(meets_awaiting if awaited else meets)
    made = workflow("w").parallel(one, one.clone(id="two"), one.clone(id="three")).commit()
    assert {"one": True, "two": True, "three": True} == harness.serve(made).start(0).output


@behaviour(36, "a second parallel gets what the first one gave")
def test_036_two_parallels_in_a_row(harness: Harness) -> None:
    """Each arm of the second gets the whole dict of the first."""

    @step
    def total(both: dict[str, int]) -> int:
        return sum(both.values())

    @step
    def names(both: dict[str, int]) -> list[str]:
        return sorted(both)

    made = workflow("w", input=int).parallel(double, increment).parallel(total, names).commit()
    assert {"total": 16, "names": ["double", "increment"]} == harness.serve(made).start(5).output


@behaviour(37, "each parallel branch sees the state as it came in")
def test_037_branches_see_the_incoming_state(harness: Harness) -> None:
    """A sibling's change is not seen, even when the sibling is done before."""

    @step
    def first(_: Any, ctx: StepContext[Any, Any, dict[str, int]]) -> dict[str, int]:
        ctx.set_state({"n": 2})
        return ctx.state

    @step
    def second(_: Any, ctx: StepContext[Any, Any, dict[str, int]]) -> dict[str, int]:
        assert meet(harness.committed("first"))
        return ctx.state

    made = workflow("w", state=dict[str, int]).parallel(first, second).commit()
    result = harness.serve(made).start(0, state={"n": 1})
    assert {"first": {"n": 1}, "second": {"n": 1}} == result.output
    assert {"n": 2} == result.state


@behaviour(38, "the state of parallel branches is merged key by key")
def test_038_state_of_branches_is_merged(harness: Harness) -> None:
    """Keys of both are kept; where both set one, whoever is committed later wins."""

    @step
    def first(_: Any, ctx: StepContext[Any, Any, dict[str, str]]) -> None:
        assert meet(harness.committed("second"))
        ctx.set_state({"a": "first", "both": "first"})

    @step
    def second(_: Any, ctx: StepContext[Any, Any, dict[str, str]]) -> None:
        ctx.set_state({"b": "second", "both": "second"})

    made = workflow("w", state=dict[str, str]).parallel(first, second).commit()
    result = harness.serve(made).start(0, state={"old": "kept"})
    assert {"old": "kept", "a": "first", "b": "second", "both": "first"} == result.state


@behaviour(39, "while a parallel runs, the stored status of each branch is right")
def test_039_status_per_branch(harness: Harness) -> None:
    """One is done and stored while the other still runs; later one sleeps and one waits for an answer."""
    seen: dict[str, Any] = {}

    @step
    def fast(_: Any) -> str:
        return "fast"

    @step
    def slow(_: Any, ctx: StepContext) -> None:
        assert meet(harness.committed("fast"))
        steps = harness.another_process().run(ctx.run_id).result().steps
        seen.update({id: (record.status, record.output) for id, record in steps.items()})

    @step
    def asking(_: Any, ctx: StepContext) -> None:
        ctx.suspend()

    nap = workflow("nap").sleep(timedelta(hours=1), id="doze").commit()
    result = harness.serve(workflow("w").parallel(fast, slow).parallel(echo, asking, nap)).start(1)
    assert {"fast": ("success", "fast"), "slow": ("running", None)} == seen
    statuses = {id: result.steps[id].status for id in ("echo", "asking", "nap", "nap.doze")}
    assert {"echo": "success", "asking": "suspended", "nap": "waiting", "nap.doze": "waiting"} == statuses


def if_else() -> Workflow[Any, Any]:
    """Two arms, one of which runs."""
    return workflow("w", input=Reading).branch((lambda r: r.level < 10, low), (otherwise, high)).commit()


@behaviour(40, "the arm whose condition is true runs")
def test_040_if_arm(harness: Harness) -> None:
    """And the other does not."""
    result = harness.serve(if_else()).start({"level": 3})
    assert {"low": "low 3"} == result.output


@behaviour(41, "the other arm runs when it is false")
def test_041_else_arm(harness: Harness) -> None:
    """``otherwise`` stands for an opposite condition."""
    result = harness.serve(if_else()).start({"level": 30})
    assert {"high": "high 30"} == result.output


@pytest.mark.parametrize(("level", "expected"), [(1, "low"), (10, "medium"), (99, "high")])
@behaviour(42, "one of three arms runs")
def test_042_three_arms(harness: Harness, level: int, expected: str) -> None:
    """The one whose condition is true."""
    made = (
        workflow("w", input=Reading)
        .branch(
            (lambda r: r.level < 10, low),
            (lambda r: 10 <= r.level < 50, medium),
            (lambda r: r.level >= 50, high),
        )
        .commit()
    )
    assert {expected: f"{expected} {level}"} == harness.serve(made).start({"level": level}).output


@behaviour(43, "the chosen arm gets the branch's input")
def test_043_arm_gets_the_input(harness: Harness) -> None:
    """The value before the branch, as its type."""

    def as_reading(level: int) -> Reading:
        return Reading(level=level)

    made = workflow("w", input=int).map(as_reading).branch((lambda _: True, low)).commit()
    result = harness.serve(made).start(4)
    assert {"level": 4, "kind": "plain"} == result.steps["low"].input
    assert {"low": "low 4"} == result.output


@pytest.mark.parametrize(
    ("reading", "expected"),
    [({"level": 5, "kind": "hot"}, "high"), ({"level": 50}, "high"), ({"level": 5}, "low")],
)
@behaviour(44, "conditions may be nested and and or")
def test_044_and_or_conditions(harness: Harness, reading: dict[str, Any], expected: str) -> None:
    """They are plain functions."""
    made = (
        workflow("w", input=Reading)
        .branch(
            (lambda r: (r.level > 1 and r.kind == "hot") or (r.level > 10 and r.kind == "plain"), high),
            (lambda r: not (r.kind == "hot" or r.level > 10), low),
        )
        .commit()
    )
    assert {expected: f"{expected} {reading['level']}"} == harness.serve(made).start(reading).output


@pytest.mark.parametrize(("kind", "expected"), [("hot", "high"), ("cold", "low"), ("plain", None)])
@behaviour(45, "conditions may compare text")
def test_045_string_conditions(harness: Harness, kind: str, expected: str | None) -> None:
    """Equality and content."""
    arms = ((lambda r: r.kind == "hot", high), (lambda r: r.kind.startswith("co"), low))
    made = workflow("w", input=Reading).branch(*arms).commit()
    result = harness.serve(made).start({"level": 1, "kind": kind})
    assert ({} if expected is None else {expected: f"{expected} 1"}) == result.output


@behaviour(46, "every arm whose condition is true runs, together")
def test_046_several_arms_run(harness: Harness) -> None:
    """They overlap in time; ``otherwise`` stays out."""
    barrier = Barrier(2)

    @step
    def one(_: Any) -> bool:
        return barrier.wait(PATIENCE_S) >= 0

    arms = ((lambda _: True, one), (lambda _: False, low), (lambda _: True, one.clone(id="two")), (otherwise, high))
    result = harness.serve(workflow("w").branch(*arms)).start({"level": 1})
    assert {"one": True, "two": True} == result.output


@behaviour(47, "no true condition: success with nothing")
def test_047_no_arm(harness: Harness) -> None:
    """The next step gets an empty object."""
    result = harness.serve(workflow("w").branch((lambda _: False, low)).then(echo)).start(1)
    assert ("success", {}) == (result.status, result.output)


@differs(
    48,
    "a condition that raises counts as false",
    "the run fails with the error and names the branch: a bug must not choose a path silently",
)
def test_048_a_raising_condition_fails_the_run(harness: Harness) -> None:
    """No arm runs, not even those whose conditions are true."""

    def burst(_: Any) -> bool:
        raise ValueError("burst")

    made = workflow("w").branch((lambda _: True, echo), (burst, low), (otherwise, high), id="fork").commit()
    result = harness.serve(made).start(1)
    assert result.error is not None
    assert ("failed", "burst", "fork") == (result.status, result.error.message, result.error.step)
    assert ["fork"] == list(result.steps)


@behaviour(49, "an arm that was not taken has no entry among the steps")
def test_049_untaken_arm_has_no_entry(harness: Harness) -> None:
    """Nor is its key in the next value."""
    result = harness.serve(if_else()).start({"level": 3})
    assert "high" not in result.steps
    assert {"low": "low 3"} == result.output


@behaviour(50, "one failed branch fails the run; its sibling comes to its end and is kept")
def test_050_sibling_of_a_failed_branch_is_kept(harness: Harness) -> None:
    """Although it was still running when the other failed."""

    @step
    def patient(_: Any) -> str:
        assert meet(harness.committed("failing"))
        return "kept"

    result = harness.serve(workflow("w").parallel(failing, patient).then(echo)).start(1)
    assert result.error is not None
    assert ("failed", "no luck", "failing") == (result.status, result.error.message, result.error.step)
    assert {"patient": "kept"} == outputs(result)
    assert "echo" not in result.steps


@behaviour(51, "conditions see state and request context")
def test_051_conditions_see_state_and_context(harness: Harness) -> None:
    """As the step before left them."""

    @step
    def prepare(value: int, ctx: StepContext[Any, Any, dict[str, Any]]) -> int:
        ctx.set_state({"n": value})
        ctx.request_context["tier"] = "gold"
        return value

    made = (
        workflow("w", input=int)
        .then(prepare)
        .branch(
            (lambda _, ctx: ctx.state["n"] == 3, double),
            (lambda _, ctx: ctx.request_context["tier"] == "gold" and ctx.request_context["user"] == "Ada", increment),
            (lambda _, ctx: ctx.state["n"] > 3, echo),
        )
        .commit()
    )
    assert {"double": 6, "increment": 4} == harness.serve(made).start(3, request_context={"user": "Ada"}).output


@behaviour(52, "an arm's failure is reported on that arm")
def test_052_arm_failure_is_on_the_arm(harness: Harness) -> None:
    """Its record holds the error; the arm beside it succeeded."""
    result = harness.serve(workflow("w", input=int).branch((lambda _: True, failing), (lambda _: True, double))).start(
        2
    )
    assert result.steps["failing"].error is not None
    assert ("failed", "no luck") == (result.steps["failing"].status, result.steps["failing"].error.message)
    assert ("failed", "success", 4) == (result.status, result.steps["double"].status, result.steps["double"].output)


@pytest.mark.parametrize(("level", "expected"), [(1, "low"), (20, "medium"), (90, "high")])
@behaviour(53, "a branch inside a nested workflow inside a branch: if, else, else-if")
def test_053_nested_branch(harness: Harness, level: int, expected: str) -> None:
    """The inner choice is made inside the chosen outer arm."""
    inner = (
        workflow("inner", input=Reading)
        .branch((lambda r: r.level < 50, medium), (otherwise, high))
        .map(lambda chosen: next(iter(chosen.values())))
        .commit()
    )
    made = (
        workflow("w", input=Reading)
        .branch((lambda r: r.level < 10, low), (otherwise, inner))
        .map(lambda chosen: next(iter(chosen.values())))
        .commit()
    )
    result = harness.serve(made).start({"level": level})
    assert ("success", f"{expected} {level}") == (result.status, result.output)
    ran = {id.rsplit(".", 1)[-1] for id in result.steps} & {"low", "medium", "high"}
    assert {expected} == ran
