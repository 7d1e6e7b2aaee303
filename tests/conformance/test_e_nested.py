"""Group E: nested workflows and clones."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flowcore import StepContext, Workflow, otherwise, step, workflow
from flowcore.testing import LocalApp
from tests.conformance.support import Harness, behaviour, differs, outputs

State = StepContext[Any, Any, dict[str, Any]]


@step
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


@step
def increment(number: int) -> int:
    """One more."""
    return number + 1


@step
def failing(_: Any) -> Any:
    """Fails."""
    raise ValueError("no luck")


def a_child(id: str = "child", **options: Any) -> Workflow[Any, Any]:
    """Doubles, then adds one."""
    return workflow(id, input=int, output=int, **options).then(double).then(increment).commit()


@behaviour(76, "a nested workflow succeeds like a step")
def test_076_nested_success(harness: Harness) -> None:
    """Its output is the next step's input."""
    result = harness.serve(workflow("w", input=int).then(a_child()).then(double)).start(3)
    assert ("success", 14) == (result.status, result.output)
    assert ("success", 3, 7) == (
        result.steps["child"].status,
        result.steps["child"].input,
        result.steps["child"].output,
    )


@behaviour(77, "a nested failure is the failure of the step it stands for, with the same message")
def test_077_nested_failure(harness: Harness) -> None:
    """The error names the step inside; what follows does not run."""
    child = workflow("child").then(failing).then(double).commit()
    result = harness.serve(workflow("w").then(child).then(double)).start(1)
    assert result.error is not None
    assert result.steps["child"].error is not None
    assert ("failed", "no luck", "child.failing") == (result.status, result.error.message, result.error.step)
    assert ("failed", "no luck") == (result.steps["child"].status, result.steps["child"].error.message)
    assert {"child", "child.failing"} == set(result.steps)


@behaviour(78, "data goes into a nested workflow and comes out of it")
def test_078_data_in_and_out(harness: Harness) -> None:
    """Through maps on both sides and inside."""
    child = (
        workflow("child", input=dict[str, int], output=dict[str, int])
        .map({"n": {"init_data": "a"}, "by": {"value": 3}})
        .map(lambda v: {"product": v["n"] * v["by"]})
        .commit()
    )
    made = (
        workflow("w", input=int)
        .map(lambda n: {"a": n})
        .then(child)
        .map({"p": {"step": child, "path": "product"}})
        .commit()
    )
    assert {"p": 12} == harness.serve(made).start(4).output


@pytest.mark.parametrize(("number", "expected"), [(1, {"double": 2}), (50, {"increment": 51})])
@behaviour(79, "conditions work inside a nested workflow")
def test_079_conditions_inside(harness: Harness, number: int, expected: dict[str, int]) -> None:
    """On the nested workflow's own values."""
    child = workflow("child", input=int).branch((lambda n: n < 10, double), (otherwise, increment)).commit()
    assert expected == harness.serve(workflow("w", input=int).then(child)).start(number).output


@behaviour(80, "workflows nest several levels deep")
def test_080_several_levels(harness: Harness) -> None:
    """Each level adds its own step."""
    made = a_child("level1")
    for level in (2, 3, 4):
        made = workflow(f"level{level}", input=int, output=int).then(made).then(increment).commit()
    result = harness.serve(made).start(1)
    assert 6 == result.output
    assert 2 == result.steps["level3.level2.level1.double"].output


@behaviour(81, "a nested workflow reads the state around it")
def test_081_child_reads_parent_state(harness: Harness) -> None:
    """What the caller gave, and what a step before it set."""

    @step
    def prepare(value: int, ctx: State) -> int:
        ctx.set_state({"set": value})
        return value

    @step
    def read(_: Any, ctx: State) -> Any:
        return ctx.state

    child = workflow("child").then(read).commit()
    result = harness.serve(workflow("w", input=int).then(prepare).then(child)).start(5, state={"given": 1})
    assert {"given": 1, "set": 5} == result.output


@behaviour(82, "state set inside a nested workflow reaches the one around it")
def test_082_child_sets_parent_state(harness: Harness) -> None:
    """Key by key: what it did not set is left alone."""

    @step
    def write(value: int, ctx: State) -> int:
        ctx.set_state({"child": value})
        return value

    @step
    def read(_: Any, ctx: State) -> Any:
        return ctx.state

    child = workflow("child", input=int).then(write).commit()
    result = harness.serve(workflow("w", input=int).then(child).then(read)).start(5, state={"given": 1})
    assert {"given": 1, "child": 5} == result.output == result.state


@behaviour(83, "two nested workflows may follow each other")
def test_083_two_nested_in_sequence(harness: Harness) -> None:
    """The second takes what the first gives; steps of one name do not mix."""
    other = workflow("other", input=int, output=int).then(increment).then(double).commit()
    result = harness.serve(workflow("w", input=int).then(a_child()).then(other)).start(1)
    assert 8 == result.output
    assert {"child.double": 2, "child.increment": 3, "child": 3} == {
        id: value for id, value in outputs(result).items() if id.startswith("child")
    }
    assert {"other.increment": 4, "other.double": 8, "other": 8} == {
        id: value for id, value in outputs(result).items() if id.startswith("other")
    }


@behaviour(84, "one workflow may be used twice, as a clone under another id")
def test_084_clones(harness: Harness) -> None:
    """A clone keeps everything but its id: retries, types and state too."""
    tries: list[str] = []

    @step
    def flaky(value: int, ctx: State) -> int:
        tries.append(ctx.workflow_id)
        if ctx.attempt == 1:
            raise ValueError("once")
        return value + 1

    child = workflow("child", input=int, output=int, retries=1, state=dict[str, int]).then(flaky).commit()
    clone = child.clone(id="again")
    result = harness.serve(workflow("w", input=int).then(child).then(clone)).start(1)
    harness.advance(minutes=1)
    result = harness.result()
    assert ("success", 3) == (result.status, result.output)
    assert ["child", "child", "again", "again"] == tries
    assert (int, dict[str, int]) == (clone.input.type, clone.state.type)


@behaviour(85, "a stored run lists the steps of nested workflows as child.step")
def test_085_nested_steps_are_listed(harness: Harness) -> None:
    """Items of a foreach as child[1].step."""
    made = workflow("w", input=int).then(a_child()).map(lambda n: [n, n]).foreach(a_child("fan")).commit()
    harness.serve(made).start(1)
    steps = harness.another_process().run(harness.run_id).result().steps
    assert {"child.double", "child.increment", "fan[0].double", "fan[1].increment"} <= set(steps)


@behaviour(86, "a stored run can be read without the steps of nested workflows")
def test_086_nested_steps_can_be_left_out(harness: Harness) -> None:
    """The workflow's own entries stay."""
    made = workflow("w", input=int).then(a_child()).map(lambda n: [n], id="m").foreach(a_child("fan")).commit()
    harness.serve(made).start(1)
    result = harness.run().result(with_nested_workflows=False)
    assert {"child", "m", "fan", "fan[0]"} == set(result.steps)


@differs(
    87,
    "rows of nested runs carry the resource id",
    "a nested workflow is part of its run and has no row of its own; its steps read the run's resource id",
)
def test_087_resource_id_in_nested_workflows(harness: Harness) -> None:
    """One run is listed, under its resource id."""

    @step
    def read(_: Any, ctx: StepContext) -> str | None:
        return ctx.resource_id

    child = workflow("child").then(read).commit()
    result = harness.serve(workflow("w").then(child)).start(1, resource_id="customer-7")
    assert ("customer-7", "customer-7") == (result.output, result.resource_id)
    assert [result.run_id] == [run.run_id for run in harness.app.list_runs(resource_id="customer-7")]


@behaviour(88, "changes of the request context inside a nested workflow are seen later")
def test_088_request_context_from_inside(harness: Harness) -> None:
    """Set, changed and removed keys."""

    @step
    def change(value: Any, ctx: StepContext) -> Any:
        ctx.request_context["new"] = 1
        ctx.request_context["changed"] = 2
        del ctx.request_context["removed"]
        return value

    @step
    def read(_: Any, ctx: StepContext) -> Any:
        return dict(ctx.request_context)

    child = workflow("child").then(change).commit()
    made = workflow("w").then(child).sleep(timedelta(hours=1)).then(read).commit()
    harness.serve(made).start(0, request_context={"changed": 0, "removed": 0, "kept": 0})
    harness.advance(hours=1)
    assert {"new": 1, "changed": 2, "kept": 0} == harness.result().output


def canceling(harness: Harness, reached: list[str]) -> Workflow[Any, Any]:
    """A workflow that is canceled from another process while a step in a nested workflow runs, which looks."""

    @step
    def long(_: Any, ctx: StepContext) -> str:
        reached.append(f"canceled at first: {ctx.cancelled.is_set()}")
        elsewhere: LocalApp = harness.another_process()
        elsewhere.cancel(ctx.run_id)
        harness.clock.forward(seconds=2)
        reached.append(f"canceled then: {ctx.cancelled.is_set()}")
        return "done"

    @step
    def later(_: Any) -> None:
        reached.append("later")

    inner = workflow("inner").then(long).then(later).commit()
    child = workflow("child").then(inner).then(later).commit()
    return workflow("w").then(child).then(later).commit()


@behaviour(89, "canceling a run reaches the steps of its nested workflows")
def test_089_cancel_reaches_children(harness: Harness) -> None:
    """A step that looks sees it; nothing begins afterwards, on any level."""
    reached: list[str] = []
    result = harness.serve(canceling(harness, reached)).start(0)
    assert ["canceled at first: False", "canceled then: True"] == reached
    assert "canceled" == result.status
    harness.advance(days=1)
    assert ("canceled", 2) == (harness.result().status, len(reached))


@differs(
    90,
    "aborting the run's own abort controller reaches nested workflows too",
    "there is no object in memory to abort: cancel() is the one way, from any process, and the store carries it",
)
def test_090_any_process_can_cancel_by_id(harness: Harness) -> None:
    """A suspension inside a nested workflow is canceled by a process that knows only the run's id."""

    @step
    def ask(_: Any, ctx: StepContext) -> None:
        ctx.suspend()

    child = workflow("child").then(ask).commit()
    harness.serve(workflow("w").then(child)).start(0)
    assert "canceled" == harness.another_process().cancel(harness.run_id).status
    assert "canceled" == harness.result().steps["child.ask"].status
    assert [] == harness.result().waits


@behaviour(91, "bail inside a nested workflow ends only that one")
def test_091_child_bail(harness: Harness) -> None:
    """Its payload is the child's output, and the workflow around it goes on."""

    @step
    def bailing(_: int, ctx: StepContext) -> int:
        ctx.bail(40)

    child = workflow("child", input=int, output=int).then(bailing).then(double).commit()
    result = harness.serve(workflow("w", input=int).then(child).then(increment)).start(1)
    assert ("success", 41) == (result.status, result.output)
    assert "child.double" not in result.steps
