"""Group F: what is checked at each door, and what becomes of what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from flowcore import StepContext, create_step, step, workflow
from flowcore.errors import InvalidPayload, RunNotFound
from tests.conformance.support import Harness, behaviour


class Order(BaseModel):
    """What comes in."""

    id: str
    amount: int = Field(default=10, gt=0)


class Strict(BaseModel):
    """Refuses what it does not know."""

    model_config = ConfigDict(extra="forbid")
    id: str


class OnlyId(BaseModel):
    """Less than comes in."""

    id: str


class Decision(BaseModel):
    """An answer."""

    approved: bool = True
    comment: str = "none"


class Asked(BaseModel):
    """What is shown to whoever must answer."""

    reason: str


class Totals(BaseModel):
    """A state."""

    count: int = 0


reached: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_reached() -> None:
    reached.clear()


@step
def note(value: Any) -> Any:
    """Tells the test that it ran."""
    reached.append(value)
    return value


@step
def take(order: Order) -> dict[str, Any]:
    """Needs an order."""
    reached.append(order)
    return order.model_dump()


@behaviour(92, "invalid workflow input is refused with path and message; nothing runs")
def test_092_invalid_input_is_refused(harness: Harness) -> None:
    """There is no run afterwards, so its id can be used with good input."""
    harness.serve(workflow("w", input=Order).then(note))
    with pytest.raises(InvalidPayload, match=r"amount: .*greater than 0") as caught:
        harness.start({"id": "o", "amount": -1}, run_id="r")
    assert ["amount"] == [row["path"] for row in caught.value.errors]
    assert [] == reached
    with pytest.raises(RunNotFound):
        harness.result("r")
    assert "success" == harness.start({"id": "o"}, run_id="r").status


@behaviour(93, "defaults of the input type are filled in")
def test_093_input_defaults(harness: Harness) -> None:
    """In the stored input, in what the first step gets, and in what comes out of it."""
    result = harness.serve(workflow("w", input=Order, output=Order).then(note)).start({"id": "o"})
    assert {"id": "o", "amount": 10} == result.input == result.steps["note"].input
    assert [{"id": "o", "amount": 10}] == reached
    assert Order(id="o", amount=10) == result.output


@behaviour(94, "invalid step input fails the step and the run; the error keeps the issues")
def test_094_invalid_step_input(harness: Harness) -> None:
    """The step's function is not called."""
    result = harness.serve(workflow("w").then(take)).start({"amount": "many"})
    assert ("failed", "failed", []) == (result.status, result.steps["take"].status, reached)
    assert result.error is not None
    assert "take" == result.error.step
    assert {"id", "amount"} == {row["path"] for row in result.error.properties["errors"]}


@behaviour(95, "defaults of a step's input type are filled in")
def test_095_step_defaults(harness: Harness) -> None:
    """Whatever stands before the step."""
    assert {"id": "o", "amount": 10} == harness.serve(workflow("w").then(take)).start({"id": "o"}).output


@behaviour(96, "a step may take less than comes in")
def test_096_extra_keys(harness: Harness) -> None:
    """Keys its type does not name are left out, unless the type forbids them."""

    @step
    def less(value: OnlyId) -> dict[str, Any]:
        return value.model_dump()

    @step
    def strict(value: Strict) -> str:
        return value.id

    made = workflow("w", input=Order).parallel(less, workflow("s").then(strict).commit()).commit()
    result = harness.serve(made).start({"id": "o"})
    assert {"id": "o"} == result.steps["less"].output
    assert "failed" == result.steps["s.strict"].status


@behaviour(97, "invalid input behind a map fails the step behind it")
def test_097_invalid_after_map(harness: Harness) -> None:
    """The map succeeded."""
    result = harness.serve(workflow("w").map({"amount": {"value": 0}}, id="m").then(take)).start(1)
    assert ("failed", "success", "failed") == (result.status, result.steps["m"].status, result.steps["take"].status)
    assert result.error is not None
    assert {"id", "amount"} == {row["path"] for row in result.error.properties["errors"]}


@behaviour(98, "invalid input inside a nested workflow fails it and the run")
def test_098_invalid_inside_nested(harness: Harness) -> None:
    """Of the nested workflow itself, and of a step in it."""
    child = workflow("child", input=dict[str, Any]).then(take).commit()
    harness.serve(workflow("w").then(child).then(note))
    at_the_door, inside = harness.start("no object"), harness.start({"id": 7})
    assert ("failed", "failed", "child") == (
        at_the_door.status,
        at_the_door.steps["child"].status,
        at_the_door.error and at_the_door.error.step,
    )
    assert ("failed", "failed", "child.take") == (
        inside.status,
        inside.steps["child"].status,
        inside.error and inside.error.step,
    )
    assert [] == reached


@step
def ask(order: Order, ctx: StepContext[Decision, Asked]) -> str:
    """Waits for a decision."""
    if ctx.resume_data is None:
        ctx.suspend(Asked(reason="large"))
    return f"{order.id}: {ctx.resume_data.approved} {ctx.resume_data.comment}"


@behaviour(99, "invalid resume data is refused; valid data succeeds afterwards")
def test_099_invalid_resume_data(harness: Harness) -> None:
    """The run stays suspended, untouched."""
    before = harness.serve(workflow("w", input=Order).then(ask)).start({"id": "o"})
    with pytest.raises(InvalidPayload, match="approved"):
        harness.resume({"approved": "perhaps"})
    assert before == harness.result()
    assert "o: False none" == harness.resume({"approved": False}).output


@behaviour(100, "defaults of the resume type are filled in")
def test_100_resume_defaults(harness: Harness) -> None:
    """An empty object is an answer."""
    harness.serve(workflow("w", input=Order).then(ask)).start({"id": "o"})
    result = harness.resume({})
    assert ("success", "o: True none") == (result.status, result.output)
    assert {"approved": True, "comment": "none"} == result.steps["ask"].resume_data


@behaviour(101, "an invalid suspend payload fails the step")
def test_101_invalid_suspend_payload(harness: Harness) -> None:
    """And the run, which is not suspended then."""

    @step
    def asks_wrongly(_: Any, ctx: StepContext[Decision, Asked]) -> None:
        wrong: Any = {"why": 1}
        ctx.suspend(wrong)

    result = harness.serve(workflow("w").then(asks_wrongly)).start(1)
    assert ("failed", "failed", []) == (result.status, result.steps["asks_wrongly"].status, result.waits)
    assert result.error is not None
    assert "reason" in result.error.message


@behaviour(102, "an invalid state fails the step that sets it")
def test_102_invalid_set_state(harness: Harness) -> None:
    """The state stays as it was."""

    @step
    def counts(_: Any, ctx: StepContext[Any, Any, Totals]) -> None:
        ctx.set_state({"count": "many"})

    result = harness.serve(workflow("w", state=Totals).then(counts)).start(1, state={"count": 3})
    assert ("failed", "failed") == (result.status, result.steps["counts"].status)
    assert result.error is not None
    assert "count" in result.error.message
    assert {"count": 3} == result.state


class Caller(BaseModel):
    """Who asks."""

    user: str
    tier: str = "silver"


needs_caller = create_step(id="needs_caller", execute=reached.append, request_context=Caller)


@behaviour(103, "a request context that does not fit is refused at the start; at a step it fails the step")
def test_103_invalid_request_context(harness: Harness) -> None:
    """Defaults are filled in and other keys kept; a step may ask for more than the workflow."""

    @step
    def forget(_: Any, ctx: StepContext) -> dict[str, Any]:
        seen = dict(ctx.request_context)
        del ctx.request_context["user"]
        return seen

    harness.serve(workflow("w", request_context=Caller).then(forget).then(needs_caller))
    with pytest.raises(InvalidPayload, match="user"):
        harness.start(1, run_id="r", request_context={"tier": "gold"})
    with pytest.raises(RunNotFound):
        harness.result("r")
    result = harness.start(1, run_id="r", request_context={"user": "Ada", "other": 1})
    assert {"user": "Ada", "tier": "silver", "other": 1} == result.steps["forget"].output
    assert ("failed", "failed", []) == (result.status, result.steps["needs_caller"].status, reached)
    assert result.error is not None
    assert ["user"] == [row["path"] for row in result.error.properties["errors"]]


@behaviour(104, "validate_inputs=False checks nothing and fills nothing in on the way into a run and its steps")
def test_104_unchecked_inputs(harness: Harness) -> None:
    """Input, step input, suspend payload, resume data, state and request context are handed on as plain JSON."""

    @step(request_context=Caller)
    def ask_anyone(value: Order, ctx: StepContext[Decision, Asked, Totals]) -> Any:
        if ctx.resume_data is None:
            ctx.set_state({"count": "several"})  # type: ignore[typeddict-item, unused-ignore]  # no Totals, on purpose
            wrong: Any = {"why": 1}
            ctx.suspend(wrong)
        return [value, ctx.resume_data, ctx.suspend_data, ctx.state]

    made = workflow("w", input=Order, state=Totals, request_context=Caller, validate_inputs=False).then(ask_anyone)
    harness.serve(made.map(lambda value: value))
    asked = harness.start({"amount": -1}, state={"count": "many"}, request_context={"tier": 3})
    assert ("suspended", {"amount": -1}, {"tier": 3}) == (asked.status, asked.input, asked.request_context)
    assert [{"why": 1}] == [wait.payload for wait in asked.waits]
    result = harness.resume({"approved": "perhaps"})
    assert [{"amount": -1}, {"approved": "perhaps"}, {"why": 1}, {"count": "several"}] == result.output


@behaviour(105, "an invalid initial state is refused")
def test_105_invalid_initial_state(harness: Harness) -> None:
    """Nothing runs, and there is no run."""
    harness.serve(workflow("w", state=Totals).then(note))
    with pytest.raises(InvalidPayload, match="initial state"):
        harness.start(1, run_id="r", state={"count": "many"})
    assert [] == reached
    with pytest.raises(RunNotFound):
        harness.result("r")
