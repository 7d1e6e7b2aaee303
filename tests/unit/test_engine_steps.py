"""Steps in a run: retries, errors, stored side effects, shared values, bail, several at once, values that misfit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, Field

from flowcore import App, Backoff, RunResult, StepContext, create_step, otherwise, workflow
from flowcore.errors import InvalidPayload
from flowcore.pace import Pace
from flowcore.testing import LocalApp
from tests.builders import NOW, a_step, a_workflow, an_app, pass_time

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
FIXED = Backoff(initial=MINUTE, factor=2, jitter=False)
Build = Callable[[Any], Any]
VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="unset")


class DeclinedError(Exception):
    """An error with properties of its own."""

    def __init__(self, message: str, **properties: Any) -> None:
        super().__init__(message)
        self.__dict__.update(properties)


class Tries:
    """A step's function that fails so many times, and counts."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.failures = failures
        self.error = error or ValueError("not yet")
        self.calls: list[int] = []

    def __call__(self, value: Any, ctx: StepContext[Any]) -> Any:
        """Fail or give back the value."""
        self.calls.append(ctx.attempt)
        if len(self.calls) <= self.failures:
            raise self.error
        return value


def begun(*builds: Build, value: Any = 1, app: App | None = None, **options: Any) -> tuple[App, RunResult[Any]]:
    """An App with the workflow that ``build`` makes, and its run just started."""
    (build,) = builds
    app = app or an_app(a_workflow(build, **options))
    return app, app.workflow("flow").create_run("r-1").start(value)


def result(app: App) -> RunResult[Any]:
    """The run as it stands."""
    return app.run("r-1").result()


# -- retries ----------------------------------------------------------------------------------------------------------


def test_a_failed_try_is_repeated_after_its_pause() -> None:
    """Parked between the tries; each sees its number; the last outcome counts."""
    tries = Tries(2)
    app, first = begun(lambda w: w.then(create_step(id="x", execute=tries, retries=2, backoff=FIXED)))
    assert ("waiting", NOW + MINUTE, "not yet") == (
        first.status,
        first.steps["x"].wake_at,
        first.steps["x"].error and first.steps["x"].error.message,
    )
    pass_time(app, MINUTE)
    assert NOW + 3 * MINUTE == result(app).steps["x"].wake_at
    pass_time(app, 2 * MINUTE)
    assert ("success", 1, [1, 2, 3]) == (result(app).status, result(app).output, tries.calls)
    assert 3 == result(app).steps["x"].attempts


def test_a_short_pause_is_waited_for_in_the_process() -> None:
    """Nothing is parked for a second."""
    tries = Tries(2)
    app, done = begun(lambda w: w.then(create_step(id="x", execute=tries, retries=2, backoff=SECOND / 4)))
    assert ("success", [1, 2, 3]) == (done.status, tries.calls)
    assert app.clock.now() > NOW


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        ({}, 1),
        ({"retries": 1}, 2),
        ({"retries": 3, "retry_on": [OSError]}, 1),
        ({"retries": 3, "no_retry_on": [ValueError]}, 1),
    ],
)
def test_the_last_failure_fails_the_run(options: dict[str, Any], calls: int) -> None:
    """After so many tries, or at once where the filter says so."""
    tries = Tries(9)
    backoff = Backoff(initial=SECOND / 100, jitter=False)
    _, done = begun(lambda w: w.then(create_step(id="x", execute=tries, backoff=backoff, **options)))
    assert ("failed", calls) == (done.status, len(tries.calls))


def test_retries_survive_a_resume() -> None:
    """A resumed step that fails is tried again, with the answer, from try 1 on."""
    seen: list[tuple[int, Any]] = []

    def execute(value: int, ctx: StepContext[int]) -> int:
        if ctx.resume_data is None:
            ctx.suspend()
        seen.append((ctx.attempt, ctx.resume_data))
        if len(seen) < 3:
            raise ValueError("flaky")
        return value + ctx.resume_data

    app, _ = begun(lambda w: w.then(create_step(id="x", execute=execute, retries=2, backoff=FIXED)))
    assert "waiting" == app.resume("r-1", 0).status
    pass_time(app, HOUR)
    assert ("success", 1, [(1, 0), (2, 0), (3, 0)]) == (result(app).status, result(app).output, seen)


def test_a_step_that_exits_can_be_tried_again() -> None:
    """Where the filter names it."""
    exits = iter([SystemExit(1), None])

    def execute(value: int) -> int:
        error = next(exits)
        if error is not None:
            raise error
        return value

    step = create_step(id="x", execute=execute, retries=1, retry_on=[SystemExit], backoff=Backoff(SECOND / 100))
    assert "success" == begun(lambda w: w.then(step))[1].status


def test_retries_of_the_workflow_count_for_its_steps() -> None:
    """Where a step does not say itself."""
    tries = Tries(9)
    begun(lambda w: w.then(create_step(id="x", execute=tries)), retries=2, backoff=Backoff(SECOND / 100, jitter=False))
    assert [1, 2, 3] == tries.calls


def test_a_retry_that_is_near_does_not_wait_for_its_sibling() -> None:
    """The second try begins although another step still runs."""
    tries, retried = Tries(1), threading.Event()

    def flaky(value: int, ctx: StepContext[Any]) -> int:
        tries(value, ctx)
        retried.set()
        return value

    def patient(value: int) -> int:
        assert retried.wait(10)
        return value

    app = App(
        a_workflow(
            lambda w: w.parallel(
                create_step(id="x", execute=flaky, retries=1, backoff=Backoff(SECOND / 50, jitter=False)),
                create_step(id="y", execute=patient),
            )
        )
    )
    assert "success" == app.workflow("flow").create_run().start(1).status


# -- errors -----------------------------------------------------------------------------------------------------------


def test_an_error_is_stored_with_its_properties_and_causes() -> None:
    """Type, message, own JSON properties, the chain; no stack."""

    def execute(value: int) -> int:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise DeclinedError(
                "card declined", code="51", tries=2, _secret=1, handle=object(), bad=float("nan")
            ) from error

    _, done = begun(lambda w: w.then(a_step("x", execute)))
    error = done.error
    assert error is not None
    assert ("DeclinedError", "card declined", "x") == (error.type, error.message, error.step)
    assert {"code": "51", "tries": 2} == error.properties
    assert error.cause is not None
    assert ("KeyError", "'inner'", None) == (error.cause.type, error.cause.message, error.cause.cause)


def test_a_chain_of_causes_has_an_end() -> None:
    """An endless one would not fit into a record; ``from None`` hides what came before."""

    def execute(value: int) -> int:
        error: Exception = ValueError("0")
        for number in range(50):
            error, error.__cause__ = ValueError(str(number)), error
        raise error

    def hidden(value: int) -> int:
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError from None

    failure, depth = begun(lambda w: w.then(a_step("x", execute)))[1].error, 0
    while failure is not None:
        failure, depth = failure.cause, depth + 1
    assert 11 == depth
    _, done = begun(lambda w: w.then(a_step("x", hidden)))
    assert done.error is not None
    assert ("ValueError", None) == (done.error.message, done.error.cause)


def test_the_first_failure_in_order_of_declaration_is_the_runs() -> None:
    """Whichever came first in time; siblings run to their end."""
    gate = threading.Event()

    def slow(value: int) -> int:
        assert gate.wait(10)
        raise ValueError("declared first")

    def fast(value: int) -> int:
        gate.set()
        raise ValueError("came first")

    _, done = begun(lambda w: w.parallel(a_step("x", slow), a_step("y", fast)))
    assert done.error is not None
    assert ("declared first", "x") == (done.error.message, done.error.step)
    assert "failed" == done.steps["y"].status


def test_a_step_that_exits_the_process_is_a_failed_step() -> None:
    """``sys.exit`` in a step must not strand its run."""

    def execute(value: int) -> int:
        raise SystemExit(3)

    _, done = begun(lambda w: w.then(a_step("x", execute)))
    assert ("failed", "SystemExit") == (done.status, done.error and done.error.type)


def test_the_error_of_a_nested_step_names_the_step() -> None:
    """The dotted id of the one that failed first; the container has failed with it."""
    inner = a_workflow(lambda w: w.then(create_step(id="x", execute=Tries(1))), "child")
    _, done = begun(lambda w: w.then(inner))
    assert ("failed", "child.x") == (done.status, done.error and done.error.step)
    assert {"child": "failed", "child.x": "failed"} == {id: step.status for id, step in done.steps.items()}


FUNCTIONS: dict[str, tuple[Build, str, str]] = {
    "a condition": (lambda w: w.branch((lambda value: value.nothing, a_step("a")), id="x"), "AttributeError", "x"),
    "a loop's condition": (lambda w: w.dountil(a_step("x"), lambda value: value.nothing), "AttributeError", "x"),
    "a map": (lambda w: w.map(lambda value: value.nothing, id="x"), "AttributeError", "x"),
    "a map's path": (lambda w: w.map({"k": {"init_data": "a.b"}}, id="x"), "LookupError", "there is no 'a' in int"),
    "a map's step": (
        lambda w: w.branch((lambda _: False, a_step("a"))).map({"k": {"step": "a"}}, id="x"),
        "LookupError",
        "none of the steps ['a'] has an output",
    ),
    "a map's template": (lambda w: w.map({"k": {"template": "${state}"}}, id="x"), "TypeError", "text and numbers"),
    "a map that is not JSON": (lambda w: w.map(lambda _: object(), id="x"), "NotJsonError", "output of 'x'"),
    "a sleep": (
        lambda w: w.sleep(lambda value: value, id="x"),
        "TypeError",
        "needs a timedelta, its function gave int",
    ),
    "a sleep that raises": (lambda w: w.sleep(lambda value: value / 0, id="x"), "ZeroDivisionError", "division"),
    "a sleep until": (lambda w: w.sleep_until(lambda _: SECOND, id="x"), "TypeError", "needs a datetime"),
    "an instant without a zone": (
        lambda w: w.sleep_until(lambda _: datetime(2030, 1, 1), id="x"),  # noqa: DTZ001  # the mistake
        "ValueError",
        "needs an aware datetime",
    ),
    "a foreach over a number": (lambda w: w.foreach(a_step("x")), "TypeError", "needs a list, its input is int"),
    "a concurrency": (
        lambda w: w.map(lambda _: [1]).foreach(a_step("x"), concurrency=lambda _: "many"),
        "TypeError",
        "must be a number, not str",
    ),
}


@pytest.mark.parametrize(("build", "type_", "words"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_mistake_outside_steps_fails_the_run(build: Build, type_: str, words: str) -> None:
    """With a stored error that names the entry; it is never stranded, and no path is chosen silently."""
    _, done = begun(build)
    assert done.error is not None
    assert ("failed", type_, "x") == (done.status, done.error.type, done.error.step)
    assert words in f"{done.error.message} x"


# -- values that do not fit -------------------------------------------------------------------------------------------

UNFIT: dict[str, tuple[Build, str, str]] = {
    "an input": (lambda w: w.then(a_step("x", input=str)), "InvalidPayload", "Invalid input of step 'x':"),
    "an output": (lambda w: w.then(a_step("x", output=str)), "InvalidPayload", "Invalid output of step 'x':"),
    "an output that is not JSON": (
        lambda w: w.then(a_step("x", lambda _: object())),
        "NotJsonError",
        "output of step 'x'",
    ),
    "NaN": (lambda w: w.then(a_step("x", lambda _: {"a": [float("nan")]})), "NotJsonError", "a[0] (float)"),
    "a surrogate": (lambda w: w.then(a_step("x", lambda _: "\ud800")), "NotJsonError", "JSON"),
    "a bail that is not JSON": (
        lambda w: w.then(a_step("x", lambda _, ctx: ctx.bail(object()))),
        "NotJsonError",
        "bail output",
    ),
    "a payload": (
        lambda w: w.then(a_step("x", lambda _, ctx: ctx.suspend("why"), suspend=int)),
        "InvalidPayload",
        "Invalid suspend payload of step 'x'",
    ),
    "a state": (
        lambda w: w.then(a_step("x", lambda _, ctx: ctx.set_state(3))),
        "TypeError",
        "set_state takes a dict or a model, not int",
    ),
    "an output too large": (
        lambda w: w.then(a_step("x", lambda _: "x" * 10**6)),
        "PayloadTooLarge",
        "is 1000002 bytes",
    ),
}


@pytest.mark.parametrize(("build", "type_", "words"), UNFIT.values(), ids=UNFIT)
def test_a_value_that_does_not_fit_fails_its_step(build: Build, type_: str, words: str) -> None:
    """The step has failed and so has the run; nothing is stored that could not be read."""
    _, done = begun(build)
    assert done.error is not None
    assert ("failed", "failed", type_) == (done.status, done.steps["x"].status, done.error.type)
    assert words in done.error.message
    assert "x" == done.error.step


def test_an_output_that_does_not_fit_the_workflow_fails_the_run() -> None:
    """The steps have succeeded."""
    _, done = begun(lambda w: w.then(a_step("x")), output=str)
    assert ("failed", "success") == (done.status, done.steps["x"].status)
    assert done.error is not None
    assert "InvalidPayload" == done.error.type


class Padded(BaseModel):
    """A large default."""

    pad: str = "x" * 10**6


def test_an_output_too_large_for_the_head_fails_the_run() -> None:
    """What the output type adds counts as well."""
    _, done = begun(lambda w: w.then(a_step("x", lambda _: {})), output=Padded)
    assert ("failed", "PayloadTooLarge") == (done.status, done.error and done.error.type)


def test_a_wrong_input_starts_nothing() -> None:
    """The run does not exist afterwards."""
    app = an_app(a_workflow(lambda w: w.then(a_step("x")), input=int))
    with pytest.raises(InvalidPayload, match="input of workflow 'flow'"):
        app.workflow("flow").create_run("r-1").start("x")
    assert [] == list(app.list_runs())


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}], ids=repr)
def test_falsy_values_are_values(value: Any) -> None:
    """As input, as output, as an item, as an answer."""
    waiting = a_step("y", lambda v, ctx: ctx.suspend("why") if ctx.suspend_data is None else [v, ctx.resume_data])
    app, _ = begun(lambda w: w.then(a_step("x")).map(lambda v: [v]).foreach(a_step("z")).then(waiting), value=value)
    done = app.resume("r-1", value)
    assert ("success", [[value], value]) == (done.status, done.output)


# -- stored side effects ----------------------------------------------------------------------------------------------


def test_once_survives_a_retry_and_a_suspension() -> None:
    """The function is called a single time; each name has its own value, also an empty one."""
    calls: list[str] = []

    def called(name: str, value: Any) -> Any:
        calls.append(name)
        return value

    def execute(value: int, ctx: StepContext[int]) -> list[Any]:
        first = ctx.once("mail/ä!", lambda: called("mail", None))
        if len(calls) == 1:
            calls.append("failed")
            raise ValueError("after the side effect")
        if ctx.resume_data is None:
            ctx.suspend()
        return [first, ctx.once("other", lambda: called("other", 7)), ctx.once("other", lambda: called("twice", 8))]

    app, _ = begun(lambda w: w.then(create_step(id="x", execute=execute, retries=1, backoff=FIXED)))
    pass_time(app, HOUR)
    done = app.resume("r-1", 1)
    assert ("success", [None, 7, 7], ["mail", "failed", "other"]) == (done.status, done.output, calls)
    assert ["x"] == list(done.steps)


def test_once_survives_a_crash_and_a_run_that_is_handed_on() -> None:
    """The worker dies behind the effect, and each of the following ones does a single turn: nobody repeats it."""
    calls: list[str] = []

    def pay() -> str:
        calls.append("paid")
        return "paid"

    def execute(value: int, ctx: StepContext[Any, Any]) -> Any:
        stored = ctx.once("pay", pay)
        return ctx.resume_data or ctx.suspend(stored)

    flow = a_workflow(lambda w: w.then(a_step("a")).then(create_step(id="x", execute=execute, resume=Any)))
    local = LocalApp(App(flow), pace=Pace(most_turns=1, lease=MINUTE), queue=None)
    local.crash_before("x")
    local.workflow("flow").create_run("r-1").start(1)
    local.advance(hours=1)
    waiting = local.run("r-1").result()
    assert ("suspended", "paid") == (waiting.status, waiting.waits[0].payload)
    local.resume("r-1", "thanks")
    local.advance(hours=1)
    assert ("success", ["paid"]) == (local.run("r-1").result().status, calls)


def test_once_is_per_item() -> None:
    """Two items do not share an effect, nor an idempotency key."""
    _, done = begun(
        lambda w: w.foreach(a_step("x", lambda v, ctx: ctx.once("k", lambda: [v, ctx.idempotency_key]))), value=[1, 2]
    )
    assert [[1, "r-1/x[0]"], [2, "r-1/x[1]"]] == done.output


def test_once_that_fails_stores_nothing() -> None:
    """The next try calls it again."""
    calls = iter([ValueError("down"), None])

    def effect() -> str:
        error = next(calls)
        if error:
            raise error
        return "sent"

    step = create_step(
        id="x", execute=lambda _, ctx: ctx.once("k", effect), retries=1, backoff=Backoff(SECOND / 100, jitter=False)
    )
    assert "sent" == begun(lambda w: w.then(step))[1].output


# -- shared values ----------------------------------------------------------------------------------------------------


class Tally(BaseModel):
    """A state."""

    count: int = 0
    note: str = "-"


def test_every_set_state_of_a_step_counts() -> None:
    """Merged per key, committed with the outcome; the step itself sees the old one."""
    seen: list[Any] = []

    def execute(value: int, ctx: StepContext[None, None, dict[str, Any]]) -> int:
        ctx.set_state({"a": 1, "b": {"deep": 1}})
        ctx.set_state({"b": {"other": 2}})
        seen.append(ctx.state)
        return value

    app = an_app(a_workflow(lambda w: w.then(a_step("x", execute)).then(a_step("y", lambda _, ctx: ctx.state))))
    done = app.workflow("flow").create_run("r-1").start(1, state={"a": 0, "c": 3})
    expected = {"a": 1, "b": {"other": 2}, "c": 3}
    assert ([{"a": 0, "c": 3}], expected, expected) == (seen, done.output, done.state)


def test_the_set_fields_of_a_model_are_the_change() -> None:
    """Fields that were not set keep what others have given them."""
    _, done = begun(
        lambda w: w.then(a_step("x", lambda v, ctx: ctx.set_state(Tally(count=3)) or v)).then(
            a_step("y", lambda v, ctx: ctx.set_state(Tally(note="n")) or [ctx.state.count, ctx.state.note])
        ),
        state=Tally,
    )
    assert ([3, "-"], {"count": 3, "note": "n"}) == (done.output, done.state)


class Written(BaseModel):
    """A part of a state."""

    line_count: int = Field(default=0, alias="lineCount")


class Progress(BaseModel):
    """A state with a field that is written under another name, which is a model itself."""

    so_far: Written = Field(alias="soFar")
    id: str = Field(default="-", alias="key")
    key: str = Field(default="-", alias="name")


class Part(BaseModel):
    """Some of it, by another author."""

    so_far: Written


@pytest.mark.parametrize(
    "new",
    [
        Progress(soFar=Written(lineCount=7)),
        Part(so_far=Written(lineCount=7)),
        {"so_far": {"line_count": 7}},
        {"so_far": Written(lineCount=7)},
        {"soFar": {"lineCount": 7}},
    ],
)
def test_a_field_of_the_state_that_has_an_alias_is_changed_under_it(new: Any) -> None:
    """However it is set: that is how it is written where the run begins with it, and read."""
    app = an_app(
        a_workflow(
            lambda w: w.then(a_step("x", lambda v, ctx: ctx.set_state(new) or v)).then(
                a_step("y", lambda _, ctx: ctx.state.so_far.line_count)
            ),
            state=Progress,
        )
    )
    done = app.workflow("flow").create_run().start(1, state={"soFar": {"lineCount": 3}})
    assert (7, {"soFar", "key", "name"}) == (done.output, {*done.state})


def test_a_name_that_is_also_the_alias_of_another_field_is_taken_for_the_alias() -> None:
    """As pydantic reads it."""
    app = an_app(
        a_workflow(
            lambda w: w.then(
                a_step("x", lambda v, ctx: ctx.set_state(Progress(soFar=Written(), key="of id")) or v)
            ).then(a_step("y", lambda _, ctx: [ctx.state.id, ctx.state.key])),
            state=Progress,
        )
    )
    assert ["of id", "-"] == app.workflow("flow").create_run().start(1, state={"soFar": {}}).output


def test_a_failed_step_changes_nothing() -> None:
    """Neither state nor context, whichever try it was."""

    def execute(value: int, ctx: StepContext[Any]) -> int:
        ctx.set_state({"a": ctx.attempt})
        ctx.request_context["b"] = ctx.attempt
        raise ValueError("no")

    _, done = begun(lambda w: w.then(a_step("x", execute)))
    assert {} == done.state


def test_a_state_that_stops_fitting_fails_the_step() -> None:
    """The declared type holds after every step."""
    _, done = begun(lambda w: w.then(a_step("x", lambda v, ctx: ctx.set_state({"count": "x"}))), state=Tally)
    assert ("failed", {"count": 0, "note": "-"}) == (done.status, done.state)


def test_a_nested_workflow_writes_back_what_it_set() -> None:
    """Inside, the outer state is seen; outside, the changes are seen once it has ended."""
    inner = a_workflow(
        lambda w: w.then(a_step("c", lambda v, ctx: ctx.set_state({"b": ctx.state["a"] + 1}) or v)), "child"
    )
    app = an_app(a_workflow(lambda w: w.then(inner).then(a_step("y", lambda _, ctx: ctx.state))))
    assert {"a": 1, "b": 2} == app.workflow("flow").create_run().start(1, state={"a": 1}).output


def test_the_request_context_is_shared_and_kept() -> None:
    """Over a suspension; a removed key stays removed; conditions see it."""

    def first(value: int, ctx: StepContext[Any]) -> int:
        ctx.request_context["added"] = value
        del ctx.request_context["gone"]
        return value

    def second(value: int, ctx: StepContext[int]) -> Any:
        if ctx.resume_data is None:
            ctx.suspend()
        return dict(ctx.request_context)

    build = (
        workflow("flow")
        .then(a_step("x", first))
        .branch((lambda _, ctx: ctx.request_context["user"] == "ann", a_step("y", second)))
    )
    app = an_app(build.commit())
    app.workflow("flow").create_run("r-1").start(7, request_context={"user": "ann", "gone": 1})
    assert {"y": {"user": "ann", "added": 7}} == app.resume("r-1", 1).output


def test_earlier_results_can_be_asked_for() -> None:
    """By object or id, typed; None where there is none; the input of the workflow, too."""
    first = create_step(id="x", execute=lambda _: {"count": 2}, output=Tally)

    def execute(value: Any, ctx: StepContext[Any]) -> list[Any]:
        tally = ctx.get_step_result(first)
        return [
            tally and tally.count,
            ctx.get_step_result("x").note,
            ctx.get_step_result("z"),
            ctx.init_data,
            ctx.get_init_data(str),
        ]

    _, done = begun(lambda w: w.then(first).then(a_step("y", execute)).then(a_step("z")), value="given")
    assert [2, "-", None, "given", "given"] == done.output


# -- bail -------------------------------------------------------------------------------------------------------------


def bails(id: str = "x") -> Any:
    """A step that bails out."""
    return a_step(id, lambda _, ctx: ctx.bail("early"))


BAILS: dict[str, tuple[Build, Any, Any]] = {
    "in sequence": (lambda w: w.then(bails()).then(a_step("never")), 1, "early"),
    "in parallel": (lambda w: w.parallel(bails(), a_step("y")), 1, {"x": "early", "y": 1}),
    "in a branch": (lambda w: w.branch((otherwise, bails())).then(a_step("after")), 1, {"x": "early"}),
    "in a loop": (lambda w: w.dountil(bails(), lambda _: False).then(a_step("never")), 1, "early"),
    "in a foreach": (lambda w: w.foreach(bails()).then(a_step("never")), [1, 2], "early"),
    "in a nested workflow": (
        lambda w: w.then(a_workflow(lambda v: v.then(bails()).then(a_step("never")), "c")).then(
            a_step("after", lambda v: [v])
        ),
        1,
        ["early"],
    ),
}


@pytest.mark.parametrize(("build", "value", "expected"), BAILS.values(), ids=BAILS)
def test_bail_ends_the_workflow_around_it(build: Build, value: Any, expected: Any) -> None:
    """Successfully, with what it was given; in an arm it is only that arm's result."""
    _, done = begun(build, value=value)
    assert ("success", expected) == (done.status, done.output)
    assert not any("never" in id for id in done.steps)


def test_neither_bail_nor_suspend_is_an_exception() -> None:
    """A step's own ``except Exception`` lets them through."""

    def execute(value: int, ctx: StepContext[Any]) -> Any:
        try:
            ctx.bail("early")
        except Exception:  # noqa: BLE001  # what an author may write
            return "swallowed"

    assert "early" == begun(lambda w: w.then(a_step("x", execute)))[1].output


# -- several at once --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        lambda meet: lambda w: w.map(lambda _: 1).parallel(a_step("x", meet), a_step("y", meet), a_step("z", meet)),
        lambda meet: (
            lambda w: w.branch((bool, a_step("x", meet)), (bool, a_step("y", meet)), (bool, a_step("z", meet)))
        ),
        lambda meet: lambda w: w.foreach(a_step("x", meet), concurrency=3),
    ],
    ids=["parallel", "branch", "foreach"],
)
def test_several_plain_steps_really_overlap(build: Callable[[Any], Build]) -> None:
    """Each waits until all three are there."""
    barrier = threading.Barrier(3)
    _, done = begun(build(lambda _: barrier.wait(10) >= 0), value=[1, 2, 3])
    assert "success" == done.status


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda add: lambda w: w.dowhile(add, lambda v: v < 3), 3),
        (lambda add: lambda w: w.dountil(add, lambda v: v >= 3), 3),
        (lambda add: lambda w: w.dowhile(add, lambda _: False), 2),
        (lambda add: lambda w: w.dountil(add, lambda _, ctx: ctx.iteration == 4), 5),
    ],
)
def test_a_loop_runs_at_least_once_and_then_as_long_as_it_should(build: Callable[[Any], Build], expected: int) -> None:
    """The output of a turn is the input of the next; the condition counts turns from 1."""
    _, done = begun(build(a_step("add", lambda value: value + 1)))
    assert ("success", expected) == (done.status, done.output)


@pytest.mark.parametrize("concurrency", [0, -3, 0.5, 2.9, lambda items: len(items) - 9])
def test_a_concurrency_below_one_means_one(concurrency: Any) -> None:
    """Fractions are cut off."""
    items = [1, 2, 3]
    wanted = concurrency if callable(concurrency) else lambda _: concurrency
    _, done = begun(lambda w: w.foreach(a_step("x"), concurrency=wanted), value=items)
    assert items == done.output


def test_steps_in_threads_see_the_callers_context_variables() -> None:
    """Tracing and logging hang on them."""
    token = VARIABLE.set("set")
    try:
        _, done = begun(
            lambda w: w.parallel(a_step("x", lambda _: VARIABLE.get()), a_step("y", lambda _: VARIABLE.get()))
        )
    finally:
        VARIABLE.reset(token)
    assert {"x": "set", "y": "set"} == done.output


SOURCES: dict[str, tuple[Any, Any]] = {
    "a value": ({"value": [1]}, [1]),
    "a function": ({"fn": lambda value: value["a"]}, {"b": [5, 6]}),
    "a function with a context": (
        {"fn": lambda _, ctx: [ctx.get_step_result("x")["a"]["b"], ctx.init_data["a"], ctx.state]},
        [[5, 6], {"b": [5, 6]}, {"s": {"t": 1}}],
    ),
    "a step": ({"step": "x", "path": "a.b.1"}, 6),
    "a step by object": ({"step": a_step("x")}, {"a": {"b": [5, 6]}}),
    "the first step that has an output": ({"step": ["skipped", "x"], "path": "."}, {"a": {"b": [5, 6]}}),
    "the input": ({"init_data": "a.b"}, [5, 6]),
    "the state": ({"state": "s.t"}, 1),
    "the context": ({"request_context": "user"}, "ann"),
    "a template": (
        {
            "template": "${init_data.a.b.0}-${state.s.t}, ${request_context.user} "
            "${x.a.b.1}${request_context.none}${ request_context.yes }"
        },
        "5-1, ann 6true",
    ),
}


@pytest.mark.parametrize(("source", "expected"), SOURCES.values(), ids=SOURCES)
def test_a_map_takes_values_from_many_places(source: Any, expected: Any) -> None:
    """One source per key."""
    app = an_app(
        a_workflow(
            lambda w: (
                w.branch((lambda _: False, a_step("skipped")))
                .map({"init": {"init_data": ""}})
                .map(lambda v: v["init"])
                .then(a_step("x"))
                .map({"k": source})
            )
        )
    )
    context = {"user": "ann", "none": None, "yes": True}
    done = (
        app.workflow("flow")
        .create_run("r-1")
        .start({"a": {"b": [5, 6]}}, state={"s": {"t": 1}}, request_context=context)
    )
    assert {"k": expected} == done.output, done.error


def test_several_coroutines_really_overlap() -> None:
    """On one event loop, with a plain step beside them."""
    import asyncio  # noqa: PLC0415  # as an author would

    arrived: list[str] = []
    barrier = threading.Barrier(2)

    def made(name: str) -> Any:
        async def execute(value: int, ctx: StepContext[Any]) -> str:
            arrived.append(name)
            while len(arrived) < 2:  # noqa: ASYNC110  # the other coroutine is what is waited for
                await asyncio.sleep(0)
            if name == "a":
                await asyncio.to_thread(barrier.wait, 10)
            return name

        return create_step(id=name, execute=execute)

    _, done = begun(lambda w: w.parallel(made("a"), made("b"), a_step("c", lambda _: barrier.wait(10) >= 0)))
    assert ("success", {"a": "a", "b": "b", "c": True}) == (done.status, done.output)


async def is_large(value: int) -> bool:
    """A condition that is a coroutine."""
    return value > 3


async def doubled(value: int) -> int:
    """A function that is a coroutine."""
    return 2 * value


async def no_pause(_: Any) -> timedelta:
    """A pause that is a coroutine."""
    return timedelta(0)


async def failing(_: Any) -> int:
    """A coroutine that fails."""
    raise ValueError("no")


ASYNC: dict[str, tuple[Build, Any, Any]] = {
    "a step": (lambda w: w.then(a_step("x", doubled)), 2, 4),
    "a condition": (lambda w: w.branch((is_large, a_step("x")), (otherwise, a_step("y"))), 2, {"y": 2}),
    "a loop": (lambda w: w.dountil(a_step("x", doubled), is_large), 1, 4),
    "a map": (lambda w: w.map(doubled), 2, 4),
    "a source": (lambda w: w.map({"k": {"fn": doubled}}), 2, {"k": 4}),
    "a pause": (lambda w: w.sleep(no_pause).then(a_step("x")), 2, 2),
    "a concurrency": (
        lambda w: w.map(lambda v: [v]).foreach(a_step("x"), concurrency=lambda v: doubled(len(v))),
        2,
        [2],
    ),
    "what a plain step returns": (lambda w: w.then(a_step("x", lambda v: doubled(v))), 2, 4),  # noqa: PLW0108
}


class AsyncCall:
    """An object whose call is a coroutine."""

    async def __call__(self, value: int) -> int:
        """Twice the value."""
        return 2 * value


ASYNC["a callable object"] = (lambda w: w.then(a_step("x", AsyncCall())), 2, 4)


@pytest.mark.parametrize(("build", "value", "expected"), ASYNC.values(), ids=ASYNC)
def test_functions_may_be_coroutines(build: Build, value: Any, expected: Any) -> None:
    """Wherever an author gives one."""
    _, done = begun(build, value=value)
    assert ("success", expected) == (done.status, done.output)


def test_a_coroutine_that_fails_is_a_failed_step() -> None:
    """Like any other."""
    _, done = begun(lambda w: w.then(a_step("x", failing)))
    assert ("failed", "ValueError") == (done.status, done.error and done.error.type)


def test_a_long_step_learns_that_it_was_canceled() -> None:
    """It looks at a flag; its outcome is dropped."""
    seen: list[bool] = []

    def execute(value: int, ctx: StepContext[Any]) -> int:
        seen.append(ctx.cancelled.is_set())
        an_app(flow, like=app).cancel("r-1")
        seen.append(ctx.cancelled.is_set())
        return value

    flow = a_workflow(lambda w: w.then(a_step("x", execute)).then(a_step("never")))
    app = an_app(flow, pace=Pace(peek=timedelta(0)))
    done = app.workflow("flow").create_run("r-1").start(1)
    assert ("canceled", [False, True], False) == (done.status, seen, "never" in done.steps)
