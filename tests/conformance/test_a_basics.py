"""Group A: what a workflow of plain steps does."""

from __future__ import annotations

from typing import Any

import pytest

from flowcore import DefinitionError, StepContext, step, workflow
from tests.conformance.support import Harness, behaviour, differs, outputs


@step
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


@step
def increment(number: int) -> int:
    """One more."""
    return number + 1


@step
def echo(value: Any) -> Any:
    """What it was given."""
    return value


@behaviour(1, "one step succeeds; its output stands in steps and is the result")
def test_001_one_step_succeeds(harness: Harness) -> None:
    """The run ends with the step's output, which its record holds too."""
    result = harness.serve(workflow("w", input=int, output=int).then(double)).start(21)
    assert ("success", 42) == (result.status, result.output)
    assert ("success", 42) == (result.steps["double"].status, result.steps["double"].output)


@behaviour(2, "steps run in order, each on the output of the one before")
def test_002_steps_run_in_order(harness: Harness) -> None:
    """Doubling before adding gives another number than adding before doubling."""
    made = workflow("w", input=int, output=int).then(double).then(increment).then(double, id="again").commit()
    result = harness.serve(made).start(5)
    assert {"double": 10, "increment": 11, "again": 22} == outputs(result)
    assert 22 == result.output


@behaviour(3, "runs of one workflow know nothing of each other")
def test_003_runs_are_independent(harness: Harness) -> None:
    """Each of several runs has its own id, input and output."""
    harness.serve(workflow("w", input=int, output=int).then(double))
    results = [harness.start(number) for number in range(4)]
    assert [0, 2, 4, 6] == [result.output for result in results]
    assert 4 == len({result.run_id for result in results})
    assert [0, 2, 4, 6] == [harness.result(result.run_id).output for result in results]


@differs(
    4,
    "the input is readable in the result and among the steps",
    "it stands in result.input; steps holds steps only, so a step may be called 'input'",
)
def test_004_input_is_in_the_result(harness: Harness) -> None:
    """A step called input is an ordinary step, and finds the run's input as its own."""
    result = harness.serve(workflow("w", input=int, output=int).then(double, id="input")).start(4)
    assert 4 == result.input
    assert (4, 8) == (result.steps["input"].input, result.steps["input"].output)


@behaviour(5, "a step is told the id of its run")
def test_005_a_step_knows_its_run(harness: Harness) -> None:
    """It equals the id of the run's handle and result."""

    @step
    def who(_: Any, ctx: StepContext) -> str:
        return ctx.run_id

    result = harness.serve(workflow("w").then(who)).start(None)
    assert result.run_id == result.output == harness.run().run_id


@behaviour(6, "a given run id is used")
def test_006_a_given_run_id_is_used(harness: Harness) -> None:
    """The run can be found under it."""
    result = harness.serve(workflow("w", input=int).then(double)).start(1, run_id="order-7")
    assert "order-7" == result.run_id
    assert 2 == harness.result("order-7").output


@differs(7, "a workflow without steps cannot be run", "commit() refuses it already, before there is anything to run")
def test_007_an_empty_workflow_is_refused() -> None:
    """The error says what is missing."""
    with pytest.raises(DefinitionError, match="has no entries"):
        workflow("w").commit()


@differs(
    8,
    "an uncommitted workflow cannot be run",
    "a builder has no verb that runs it; as a step of another workflow it is refused with a hint to commit it",
)
def test_008_an_uncommitted_workflow_is_no_step() -> None:
    """What is not frozen cannot stand in something that is."""
    unfinished: Any = workflow("child", input=int).then(double)
    assert not hasattr(unfinished, "create_run")
    with pytest.raises(DefinitionError, match="commit"):
        workflow("w", input=int).then(unfinished).commit()


@behaviour(9, "serving a workflow commits it")
def test_009_an_app_commits_what_it_serves(harness: Harness) -> None:
    """A builder may be given to an App as it is."""
    harness.serve(workflow("w", input=int, output=int).then(double))
    assert 6 == harness.start(3).output


@behaviour(10, "bail ends the run successfully; later steps do not run")
def test_010_bail_ends_the_run(harness: Harness) -> None:
    """The payload is the result; code after bail and steps after the step are never reached."""
    reached: list[str] = []

    @step
    def bailing(_: int, ctx: StepContext) -> str:
        ctx.bail("enough")

    @step
    def later(_: Any) -> str:
        reached.append("later")
        return "later"

    result = harness.serve(workflow("w", input=int).then(bailing).then(later)).start(1)
    assert ("success", "enough") == (result.status, result.output)
    assert ("bailed", False) == (result.steps["bailing"].status, "later" in result.steps)
    assert [] == reached


@behaviour(11, "there is no suspend data on a first run, and that is no error")
def test_011_suspend_data_is_none_at_first(harness: Harness) -> None:
    """Nor is there an answer, nor a timeout."""

    @step
    def look(_: Any, ctx: StepContext[str, str]) -> list[Any]:
        return [ctx.suspend_data, ctx.resume_data, ctx.timed_out]

    assert [None, None, False] == harness.serve(workflow("w").then(look)).start(1).output


@behaviour(12, "a step's record holds input, output, status, beginning and end")
def test_012_records_tell_what_happened(harness: Harness) -> None:
    """Times are those of the clock at the step's beginning and end."""
    begin = harness.clock.now()

    @step
    def slow(number: int) -> int:
        harness.clock.forward(seconds=3)
        return number + 1

    record = harness.serve(workflow("w", input=int).then(slow)).start(1).steps["slow"]
    assert ("success", 1, 2, 1) == (record.status, record.input, record.output, record.attempts)
    assert record.started_at is not None
    assert record.ended_at is not None
    assert (0, 3) == ((record.started_at - begin).seconds, (record.ended_at - begin).seconds)


@pytest.mark.parametrize("value", [[1, [2]], [], "text", 7, 1.5, False, 0, "", {}])
@behaviour(13, "lists, scalars and falsy values flow through like objects")
def test_013_any_json_flows_through(harness: Harness, value: Any) -> None:
    """From the input through two steps to the output, type and all."""
    result = harness.serve(workflow("w").then(echo).then(echo, id="again")).start(value)
    assert value == result.output
    assert type(value) is type(result.output)


@behaviour(14, "a step that gives nothing does not break the chain")
def test_014_none_is_an_ordinary_output(harness: Harness) -> None:
    """The next step gets None, and runs."""

    @step
    def silent(_: int) -> None:
        """Gives nothing."""

    @step
    def after(value: None) -> str:
        return f"got {value}"

    result = harness.serve(workflow("w", input=int, output=str).then(silent).then(after)).start(1)
    assert "got None" == result.output
    assert ("success", None) == (result.steps["silent"].status, result.steps["silent"].output)


@behaviour(15, "the result lists the executed steps in the order they ran")
def test_015_steps_are_listed_in_order(harness: Harness) -> None:
    """Whatever their names; what did not run is not listed."""

    @step
    def stop(_: int, ctx: StepContext) -> int:
        ctx.bail(0)

    made = workflow("w", input=int).then(double, id="z").then(double, id="m").then(stop, id="a").then(double).commit()
    assert ["z", "m", "a"] == list(harness.serve(made).start(1).steps)
