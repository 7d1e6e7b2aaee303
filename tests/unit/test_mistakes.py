"""What a newcomer gets wrong is told in words that help: what was asked, what was found, what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from flowcore import App, DefinitionError, StepContext, step, workflow
from flowcore.errors import InvalidPayload, MalformedRequest
from flowcore.testing import LocalApp


class Foreign:
    """A class that cannot be JSON."""


@step
def double(number: int) -> int:
    """The simplest step."""
    return 2 * number


@step
def ask(number: int, ctx: StepContext[bool]) -> int:
    """Waits for yes or no."""
    if ctx.resume_data is None:
        ctx.suspend(label="boss")
    return number


def a_suspended_run() -> tuple[LocalApp, str]:
    """An App with one run that waits, and the run's id."""
    local = LocalApp(App(workflow("w", input=int, output=int).then(ask)))
    return local, local.workflow("w").create_run("r-1").start(7).run_id


def message_of(body: Callable[[int, StepContext[Any]], Any]) -> str:
    """What a run says that fails because of ``body``."""
    result = LocalApp(App(workflow("w").then(step(id="it")(body)))).workflow("w").create_run().start(7)
    assert result.error is not None
    return result.error.message


SHOWN = "the value (Foreign) cannot be stored as JSON"
IN_STEPS: dict[str, tuple[Callable[[int, Any], Any], str]] = {
    "an output that is no JSON": (lambda _, ctx: Foreign(), f"The output of step 'it': {SHOWN}"),
    "a part of it": (lambda _, ctx: {"a": [1, {"b": Foreign()}]}, "a[1].b (Foreign) cannot be stored as JSON"),
    "what may be given instead": (lambda _, ctx: Foreign(), "Give plain JSON, a pydantic model or a dataclass"),
    "a suspend payload": (lambda _, ctx: ctx.suspend(Foreign()), f"The suspend payload of step 'it': {SHOWN}"),
    "what once made": (lambda _, ctx: ctx.once("mail", Foreign), f"In the value of ctx.once('mail'), {SHOWN}"),
    "progress": (lambda _, ctx: ctx.emit(Foreign()), f"In the data of ctx.emit, {SHOWN}"),
    "a value for once": (lambda _, ctx: ctx.once("mail", 7), "got int and needs a function that it can call"),
    "a timeout in seconds": (
        lambda _, ctx: ctx.suspend(timeout=5),
        "suspend(timeout=5) is int; give a timedelta, for instance timedelta(days=3)",
    ),
    "a label that is no text": (lambda _, ctx: ctx.suspend(label=5), "suspend(label=5) is int; give a string"),
}


@pytest.mark.parametrize(("body", "words"), IN_STEPS.values(), ids=IN_STEPS)
def test_a_failed_step_says_what_is_wrong(body: Callable[[int, Any], Any], words: str) -> None:
    """The stored error names the door, the place and the way out."""
    assert words in message_of(body)


def test_once_wants_a_plain_function() -> None:
    """A coroutine function would give something that cannot be stored; it is closed, so nothing warns."""

    async def send() -> str:
        return "sent"

    assert "must be a plain def; it is an async def" in message_of(lambda _, ctx: ctx.once("mail", send))


AT_THE_DOOR: dict[str, tuple[Callable[[LocalApp, str], Any], type[Exception], str]] = {
    "a number for a step": (
        lambda app, run: app.run(run).resume(True, step=5),  # type: ignore[arg-type]  # the mistake
        MalformedRequest,
        "5 names no step; give the step itself, its dotted id, or a list of ids",
    ),
    "a number in a path": (
        lambda app, run: app.run(run).time_travel(["a", 5]),  # type: ignore[list-item]  # the mistake
        MalformedRequest,
        "5 names no step",
    ),
    "a state that has no names": (
        lambda app, _: app.workflow("w").create_run().start(1, state=5),  # type: ignore[arg-type]  # the mistake
        InvalidPayload,
        "Invalid initial state of workflow 'w':\n- (whole value): Input should be a mapping of names to values (found",
    ),
    "a request context that has no names": (
        lambda app, _: app.workflow("w").create_run().start(1, request_context=5),  # type: ignore[arg-type]  # as above
        InvalidPayload,
        "Invalid request context of workflow 'w'",
    ),
    "the same on a resume": (
        lambda app, run: app.run(run).resume(True, request_context="x"),  # type: ignore[arg-type]  # as above
        InvalidPayload,
        "Invalid request context:",
    ),
    "a status that there is not": (
        lambda app, _: app.list_runs(status="done"),  # type: ignore[arg-type]  # the mistake
        MalformedRequest,
        "'done' is no status of a run; use one of pending, running, waiting, suspended",
    ),
}


@pytest.mark.parametrize(("call", "kind", "words"), AT_THE_DOOR.values(), ids=AT_THE_DOOR)
def test_a_wrong_argument_is_refused_by_name(
    call: Callable[[LocalApp, str], Any], kind: type[Exception], words: str
) -> None:
    """With a typed error; the run stays as it was."""
    app, run = a_suspended_run()
    before = app.run(run).result()
    with pytest.raises(kind, match=re.escape(words)):
        call(app, run)
    assert before == app.run(run).result()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (double, "An App serves workflows; step 'double' is none. Put steps into workflow(...).then(step)"),
        ("w", "An App serves workflows; 'w' (str) is none"),
    ],
)
def test_an_app_serves_workflows_only(given: Any, words: str) -> None:
    """A step, or an id, in place of a workflow is told what it is."""
    with pytest.raises(TypeError, match=re.escape(words)):
        App(given)


def test_a_workflow_is_found_by_the_builder_that_made_it() -> None:
    """An App commits what is not committed yet; then the author's name for it has to do."""
    flow = workflow("w", input=int, output=int).then(double)
    assert App(flow).workflow(flow).create_run().start(4).output == 8


def test_a_misspelt_keyword_is_told_with_the_known_ones() -> None:
    """Under the name that the author called, not under one of ours."""
    with pytest.raises(TypeError, match=r"step\(\) has no keyword 'retrys'; it takes .*retries"):
        step(retrys=3)  # type: ignore[call-overload]  # the mistake


def test_a_lambda_needs_a_name() -> None:
    """A function without a name of its own cannot name a step."""
    with pytest.raises(DefinitionError, match=r"Step '<lambda>' cannot be made:\n.*name it with id="):
        step(lambda number: number)
