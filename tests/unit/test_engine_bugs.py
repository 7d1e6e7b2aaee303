"""One test per bug that random runs have found in core and engine, named after what went wrong."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, StepContext, Workflow, step, workflow
from flowcore.model import Json
from flowcore.testing import Fault, FaultyStore, LocalApp
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
        return ctx.request_context["tags"]  # type: ignore[no-any-return]  # the context is untyped

    made = workflow("w").then(flaky).commit()
    assert [2] == local(made).workflow("w").create_run().start(1, request_context={"tags": []}).output
