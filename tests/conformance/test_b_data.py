"""Group B: what steps and functions can read, and how ``map`` makes the next value."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from flowcore import DefinitionError, StepContext, step, workflow
from tests.conformance.support import Harness, behaviour


class Order(BaseModel):
    """The input of a workflow."""

    id: str
    amount: int = 10


class Line(BaseModel):
    """Something a map can make."""

    text: str


@step
def price(order: Order) -> dict[str, Any]:
    """An object in an object."""
    return {"net": order.amount, "tax": {"rate": 0.2, "code": "A"}}


@step
def echo(value: Any) -> Any:
    """What it was given."""
    return value


@step
def init_id(_: Any, ctx: StepContext) -> Any:
    """What the workflow around it began with."""
    return ctx.init_data


@behaviour(16, "the workflow's input is readable anywhere")
def test_016_init_data_is_readable_anywhere(harness: Harness) -> None:
    """By steps late in the chain, conditions, maps and loops; a nested workflow's steps read their own."""
    seen: list[Any] = []

    def note(_: Any, ctx: Any) -> bool:
        seen.append(ctx.init_data.id)
        return True

    @step
    def typed(_: Any, ctx: StepContext) -> str:
        return ctx.get_init_data(Order).id

    def five(value: Any, ctx: Any) -> int:
        note(value, ctx)
        return 5

    child = workflow("child", input=int).then(init_id).commit()
    made = workflow("w", input=Order).map(five).branch((note, child), id="fork").dountil(typed, note).commit()
    result = harness.serve(made).start(Order(id="o-1"))
    assert ("o-1", 5) == (result.output, result.steps["child.init_id"].output)
    assert ["o-1"] * 3 == seen


@pytest.mark.parametrize("by_object", [True, False])
@behaviour(17, "the output of an earlier step is found by object and by id")
def test_017_step_results_by_object_or_id(harness: Harness, by_object: bool) -> None:
    """Both give the same value."""

    @step
    def look(_: Any, ctx: StepContext) -> Any:
        return ctx.get_step_result(price if by_object else "price")

    made = workflow("w", input=Order).then(price).map(lambda _: None).then(look).commit()
    assert {"net": 3, "tax": {"rate": 0.2, "code": "A"}} == harness.serve(made).start({"id": "o", "amount": 3}).output


@behaviour(18, "there is no output of an unknown or unsuccessful step")
def test_018_no_result_of_unknown_or_unsuccessful_steps(harness: Harness) -> None:
    """None, whether the step does not exist, was not chosen, comes later, or waits."""

    @step
    def look(_: Any, ctx: StepContext) -> Any:
        return [ctx.get_step_result(id) for id in ("nobody", "not_chosen", "later", "asking", "look")]

    @step
    def asking(_: Any, ctx: StepContext) -> None:
        ctx.suspend()

    made = (
        workflow("w")
        .branch((lambda _: False, echo.clone(id="not_chosen")))
        .parallel(asking, workflow("second").map(lambda _: None).then(look).commit())
        .then(echo, id="later")
        .commit()
    )
    result = harness.serve(made).start(1)
    assert [None] * 5 == result.steps["second.look"].output


@behaviour(19, "what a map's function gives is the next input")
def test_019_map_makes_the_next_input(harness: Harness) -> None:
    """A function of the value; an async one too."""

    async def wrap(value: int) -> dict[str, int]:
        return {"wrapped": value}

    made = workflow("w", input=int).map(lambda n: n + 1).map(wrap).then(echo).commit()
    assert {"wrapped": 8} == harness.serve(made).start(7).output


@behaviour(20, "map takes a part of a step's output")
def test_020_map_by_step_and_path(harness: Harness) -> None:
    """A dotted path leads into it; the step need not be the last one."""
    made = workflow("w", input=Order).then(price).then(echo).map({"rate": {"step": price, "path": "tax.rate"}}).commit()
    assert {"rate": 0.2} == harness.serve(made).start({"id": "o"}).output


@pytest.mark.parametrize("spec", [{"step": price, "path": "."}, {"step": price, "path": ""}, {"step": "price"}])
@behaviour(21, "map takes a step's whole output")
def test_021_map_by_step_and_root(harness: Harness, spec: dict[str, Any]) -> None:
    """By a dot, an empty path or none."""
    made = workflow("w", input=Order).then(price).map({"all": spec}).commit()
    result = harness.serve(made).start({"id": "o"})
    assert {"all": result.steps["price"].output} == result.output


@behaviour(22, "map takes a part of the workflow's input")
def test_022_map_from_init_data(harness: Harness) -> None:
    """Also after steps that gave something else; defaults are filled in."""
    made = workflow("w", input=Order).then(price).map({"n": {"init_data": "amount"}, "all": {"init_data": ""}}).commit()
    assert {"n": 10, "all": {"id": "o", "amount": 10}} == harness.serve(made).start({"id": "o"}).output


@pytest.mark.parametrize("value", [1, "x", None, False, [1, {"a": None}]])
@behaviour(23, "map sets a constant")
def test_023_map_constant(harness: Harness, value: Any) -> None:
    """Any plain JSON."""
    made = workflow("w").map({"fixed": {"value": value}}).commit()
    assert {"fixed": value} == harness.serve(made).start(0).output


@behaviour(24, "map computes single keys")
def test_024_map_function_per_key(harness: Harness) -> None:
    """Each function takes the value, or the value and the context."""
    made = (
        workflow("w", input=int)
        .map({"next": {"fn": lambda n: n + 1}, "run": {"fn": lambda _, ctx: ctx.run_id}, "same": {"init_data": "."}})
        .commit()
    )
    assert {"next": 3, "run": "r-1", "same": 2} == harness.serve(made).start(2, run_id="r-1").output


@behaviour(25, "map takes a part of the request context")
def test_025_map_from_request_context(harness: Harness) -> None:
    """Of what the caller gave, and of what a step set."""

    @step
    def sign(value: Any, ctx: StepContext) -> Any:
        ctx.request_context["signed"] = {"by": "sign"}
        return value

    paths = {"who": {"request_context": "user.name"}, "by": {"request_context": "signed.by"}}
    made = workflow("w").then(sign).map(paths).commit()
    result = harness.serve(made).start(1, request_context={"user": {"name": "Ada"}})
    assert {"who": "Ada", "by": "sign"} == result.output


@behaviour(26, "a map with an id appears under it")
def test_026_map_with_an_id(harness: Harness) -> None:
    """Its output is a step result like any other."""

    @step
    def look(_: Any, ctx: StepContext) -> Any:
        return ctx.get_step_result("plus-one")

    made = workflow("w", input=int).map(lambda n: n + 1, id="plus-one").then(look).commit()
    result = harness.serve(made).start(1)
    assert (2, 2) == (result.steps["plus-one"].output, result.output)


@behaviour(27, "maps without an id keep theirs in every process")
def test_027_unnamed_map_ids_are_stable(harness: Harness) -> None:
    """They are made of what stands before: building the workflow again, with something put in front, changes none."""

    @step
    def ask(value: int, ctx: StepContext[int]) -> int:
        if ctx.resume_data is None:
            ctx.suspend()
        return value + ctx.resume_data

    def build(*, longer: bool) -> Any:
        begin = workflow("w", input=int)
        begin = begin.map(lambda n: n, id="in-front") if longer else begin
        return begin.then(ask).map(lambda n: n + 1).map(lambda n: n * 2).commit()

    first, second, longer = (build(longer=longer).compiled.nodes for longer in (False, False, True))
    assert [node.id for node in first] == [node.id for node in second] == [node.id for node in longer[1:]]
    harness.serve(build(longer=False)).start(1)
    result = harness.serve(build(longer=True)).resume(3)
    assert 10 == result.output
    assert {node.id for node in first} <= set(result.steps)


@pytest.mark.parametrize("falsy", [0, False, "", None, []])
@behaviour(28, "of several candidate steps map takes the one that ran, falsy output or not")
def test_028_map_takes_the_arm_that_ran(harness: Harness, falsy: Any) -> None:
    """A step that ran and gave nothing is not the same as one that did not run."""

    @step
    def empty(_: Any) -> Any:
        return falsy

    made = (
        workflow("w")
        .branch((lambda _: False, echo), (lambda _: True, empty))
        .map({"got": {"step": [echo, empty], "path": "."}})
        .commit()
    )
    assert {"got": falsy} == harness.serve(made).start("unused").output


@behaviour(29, "a path that leads nowhere fails the run")
def test_029_a_bad_path_fails_the_run(harness: Harness) -> None:
    """The error names the path and the step, and stands at the map."""
    made = workflow("w", input=Order).then(price).map({"x": {"step": price, "path": "net.gross"}}, id="pick").commit()
    result = harness.serve(made).start({"id": "o"})
    assert ("failed", "failed") == (result.status, result.steps["pick"].status)
    assert result.error is not None
    assert "net.gross" in result.error.message
    assert "price" in result.error.message
    assert "pick" == result.error.step


@behaviour(30, "a map that raises fails the run")
def test_030_a_raising_map_fails_the_run(harness: Harness) -> None:
    """With the error it raised; what follows does not run."""

    def burst(_: Any) -> Any:
        raise ValueError("burst")

    result = harness.serve(workflow("w").map(burst, id="m").then(echo)).start(1)
    assert result.error is not None
    assert ("failed", "burst", "m") == (result.status, result.error.message, result.error.step)
    assert "echo" not in result.steps


@behaviour(31, "a map behind a foreach hands its own output to the next step")
def test_031_map_after_foreach(harness: Harness) -> None:
    """The next step's input is checked against what the map gave, not against the list before it."""

    @step
    def text(line: Line) -> str:
        return line.text

    def joined(items: list[int]) -> Line:
        return Line(text="-".join(map(str, items)))

    made = workflow("w", input=list[int], output=str).foreach(echo).map(joined).then(text).commit()
    assert "1-2-3" == harness.serve(made).start([1, 2, 3]).output


@pytest.mark.parametrize("template", ["Order ${nowhere.id}", "${}", "${order}"])
@behaviour(32, "a template with an unknown placeholder is refused at definition")
def test_032_bad_placeholders_are_refused(template: str) -> None:
    """The mistake quotes the placeholder."""
    with pytest.raises(DefinitionError, match="placeholder"):
        workflow("w").map({"text": {"template": template}}).commit()


@behaviour(33, "a template shows null as nothing")
def test_033_template_of_null(harness: Harness) -> None:
    """Numbers and text are shown as they are; an object fails the run."""
    made = workflow("w").map({"t": {"template": "Order ${init_data.id}${init_data.note}: ${init_data.n}"}}).commit()
    harness.serve(made)
    assert {"t": "Order o-1: 3"} == harness.start({"id": "o-1", "note": None, "n": 3}).output
    assert "failed" == harness.start({"id": "o-1", "note": {}, "n": 3}).status
