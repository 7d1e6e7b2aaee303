"""Workflows that check nothing at their doors: what is stored, and what steps and functions get."""

from __future__ import annotations

from datetime import date
from typing import Any, TypedDict

import pytest
from pydantic import BaseModel, field_validator

from flowcore import RunResult, StepContext, create_step, step, workflow
from flowcore.authoring.workflow import WorkflowBuilder
from flowcore.codec import NotJsonError, Shape, Unchecked
from flowcore.errors import InvalidPayload
from tests.builders import an_app


class Order(BaseModel):
    """What comes in."""

    id: str
    amount: int = 10


class Line(TypedDict):
    """Plain, but for its keys."""

    id: str


class Explosive(BaseModel):
    """A model whose validator has a bug."""

    id: str

    @field_validator("id")
    @classmethod
    def _explode(cls, _: str) -> str:
        raise KeyError("a bug")


def started(build: WorkflowBuilder[Any, Any, Any], value: Any) -> RunResult[Any]:
    """The only run of an App that serves ``build``."""
    made = build.commit()
    return an_app(made).workflow(made.id).create_run("r-1").start(value)


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (Order, {"id": "o"}, Order(id="o")),
        (Order, {"id": 1}, {"id": 1}),
        (Order, None, None),
        (list[Order], [{"id": "o"}], [Order(id="o")]),
        (list[Order], [{"id": "o"}, {}], [{"id": "o"}, {}]),
        (date, "2026-01-01", date(2026, 1, 1)),
        (date, "soon", "soon"),
        (int, "5", "5"),
        (Line, {"id": "l", "more": 1}, {"id": "l", "more": 1}),
        (Explosive, {"id": "o"}, {"id": "o"}),
        (Any, {"a": [1]}, {"a": [1]}),
    ],
)
def test_what_can_be_built_is_built(type_: Any, value: Any, expected: Any) -> None:
    """All of it or nothing; plain types are left as they came, neither converted nor cut."""
    assert expected == Unchecked(type_).decode(value)


def test_what_is_handed_on_is_a_copy() -> None:
    """Whoever changes it in place changes nothing that is stored."""
    value: dict[str, Any] = {"id": [1]}
    Unchecked[Any](Order).decode(value)["id"].append(2)
    Unchecked[Any](Order).normal(value)["id"].append(2)
    assert {"id": [1]} == value


def test_an_unchecked_door_still_takes_json_alone() -> None:
    """What cannot be stored is refused, everything else is not."""
    door = Unchecked[Any](int)
    assert {"id": "o", "amount": 10} == door.encode(Order(id="o")) == door.accept("input", Order(id="o"))
    with pytest.raises(NotJsonError):
        door.encode(object())
    with pytest.raises(InvalidPayload, match="Invalid input"):
        door.accept("input", float("nan"))
    assert Shape(int).schema() == door.schema()


def test_a_step_elsewhere_keeps_its_checks() -> None:
    """The setting is the workflow's, not the step's: both may use one step."""

    @step
    def take(order: Order) -> Any:
        return order

    assert {"id": 1} == started(workflow("w", validate_inputs=False).then(take), {"id": 1}).output
    assert "failed" == started(workflow("w").then(take), {"id": 1}).status


@pytest.mark.parametrize(
    ("outer", "inner", "statuses"),
    [
        (True, False, ("success", "failed")),
        (False, True, ("failed", "success")),
    ],
)
def test_a_nested_workflow_keeps_its_own_setting(outer: bool, inner: bool, statuses: tuple[str, str]) -> None:
    """Neither the one around it nor the one inside it has a say."""
    take = create_step(id="take", execute=lambda order: order, input=Order)
    nested = workflow("inner", input=Order, validate_inputs=inner).then(take).commit()
    around = workflow("w", validate_inputs=outer)
    found = started(around.then(nested), {"id": 1}), started(around.then(take), {"id": 1})
    assert statuses == tuple(result.status for result in found)


def test_a_clone_keeps_the_setting() -> None:
    """Everything but the id."""
    made = workflow("w", input=Order, validate_inputs=False).map(lambda value: value).commit().clone(id="x")
    assert {"id": 1} == an_app(made).workflow("x").create_run().start({"id": 1}).output


def test_outputs_are_not_checked_on_demand() -> None:
    """Of steps, maps, parallels, items and the run; whoever reads them gets a model where there is one."""
    seen: list[Any] = []

    def wrong(_: Any) -> Any:
        return {"id": 1}

    def look(value: Any, ctx: Any) -> Any:
        seen.extend([value, ctx.get_step_result("a")])
        return value

    a, b = (create_step(id=id, execute=wrong, output=Order) for id in "ab")
    flow = workflow("w", output=Order, validate_outputs=False)
    result = started(flow.parallel(a, b).map(look).map(lambda both: [both["a"]]).foreach(b.clone(id="c")), 1)
    assert ("success", [{"id": 1}]) == (result.status, result.output)
    assert [{"a": {"id": 1}, "b": {"id": 1}}, {"id": 1}] == seen
    assert {"id": 1} == result.steps["a"].output


def test_what_an_unchecked_child_gives_is_not_trusted_by_its_parent() -> None:
    """A function behind it gets the plain value instead of failing on it; a checked step behind it fails."""

    def tell(value: Any) -> str:
        return f"o{value['id']}"

    odd: Any = workflow("odd", output=Order, validate_outputs=False).map(lambda _: {"id": 1}).commit()
    take = create_step(id="take", execute=lambda order: order, input=Order)
    assert "o1" == started(workflow("w").then(odd).map(tell), 1).output
    assert ["o"] == started(workflow("w").parallel(odd).map(lambda v: list(v["odd"])).map(lambda _: ["o"]), 1).output
    assert "failed" == started(workflow("w").then(odd).then(take), 1).status


def test_state_is_a_dict_even_unchecked() -> None:
    """What is no dict and no model has no keys to merge."""

    @step
    def count(_: Any, ctx: StepContext[Any, Any, Any]) -> None:
        ctx.set_state(3)

    result = started(workflow("w", validate_inputs=False).then(count), 1)
    assert result.error is not None
    assert ("failed", "set_state takes a dict or a model, not int") == (result.status, result.error.message)


def test_tolerated_failures_fit_what_reads_the_list() -> None:
    """A failed item gives None, which the declared type of the items does not know."""

    def even(number: int) -> int:
        if number % 2:
            raise ValueError(number)
        return number

    made = workflow("w", input=list[int]).foreach(create_step(id="even", execute=even), tolerated_failures=2)
    assert [None, 2, None] == started(made.map(lambda items: items), [1, 2, 3]).output
