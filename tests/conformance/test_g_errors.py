"""Group G: what becomes of errors, and how often a step is tried again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from flowcore import RunResult, StepContext, step, workflow
from flowcore.authoring.graph import Backoff
from flowcore.errors import RunNotFound
from tests.conformance.support import Harness, behaviour, differs

HOURLY = Backoff(initial=timedelta(hours=1), maximum=timedelta(hours=1), factor=1.0, jitter=False)


class HttpError(Exception):
    """An error with properties of its own."""

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.headers = {"retry-after": "7"}
        self.is_retryable = False


def at_rest(harness: Harness) -> RunResult[Any]:
    """The run after its short pauses, for which a process waits itself unless it ends after each turn."""
    harness.advance(minutes=5)
    return harness.result()


@step
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


@step
def calling(_: Any) -> Any:
    """Fails as a client of a service does: the third of three errors."""
    try:
        try:
            raise ConnectionResetError("reset by peer")
        except ConnectionResetError as error:
            raise HttpError("bad gateway", 502) from error
    except HttpError as error:
        raise RuntimeError("no rate") from error


class Flaky:
    """Fails as often as it is told to, and notes when it was tried."""

    def __init__(self, harness: Harness, failures: int, error: type[Exception] = ValueError) -> None:
        self.harness = harness
        self.failures = failures
        self.error = error
        self.tries: list[int] = []
        self.times: list[datetime] = []

    def __call__(self, value: int, ctx: StepContext) -> int:
        """One try."""
        self.tries.append(ctx.retry_count)
        self.times.append(self.harness.clock.now())
        if len(self.tries) <= self.failures:
            raise self.error(f"failure {len(self.tries)}")
        return value + 1


@behaviour(106, "an error in a step fails the step and the run with its message")
def test_106_error_fails_the_run(harness: Harness) -> None:
    """What follows does not run."""

    @step
    def failing(_: Any) -> Any:
        raise ValueError("no luck")

    result = harness.serve(workflow("w", input=int).then(double).then(failing).then(double, id="later")).start(1)
    assert result.error is not None
    assert ("failed", "ValueError", "no luck", "failing") == (
        result.status,
        result.error.type,
        result.error.message,
        result.error.step,
    )
    assert ("failed", result.error) == (result.steps["failing"].status, result.steps["failing"].error)
    assert {"double", "failing"} == set(result.steps)


@behaviour(107, "an error keeps its own properties")
def test_107_own_properties(harness: Harness) -> None:
    """As far as they are JSON."""

    @step
    def failing(_: Any) -> Any:
        error = HttpError("too many", 429)
        error.add_note("not a property of its own")
        error.socket = object()  # type: ignore[attr-defined]
        raise error

    result = harness.serve(workflow("w").then(failing)).start(1)
    assert result.error is not None
    expected = {"status_code": 429, "headers": {"retry-after": "7"}, "is_retryable": False}
    assert expected == {name: value for name, value in result.error.properties.items() if not name.startswith("_")}


@behaviour(108, "a chain of causes is kept")
def test_108_chain_of_causes(harness: Harness) -> None:
    """All three, each with its properties."""
    error = harness.serve(workflow("w").then(calling)).start(1).error
    seen = []
    while error is not None:
        seen.append((error.type, error.message, error.properties.get("status_code")))
        error = error.cause
    assert [
        ("RuntimeError", "no rate", None),
        ("HttpError", "bad gateway", 502),
        ("ConnectionResetError", "reset by peer", None),
    ] == seen


@behaviour(109, "a stored error has no stack and keeps its properties")
def test_109_stored_error(harness: Harness) -> None:
    """As another process reads it."""
    told = harness.serve(workflow("w").then(calling)).start(1)
    stored = harness.another_process().run(harness.run_id).result()
    assert told.error == stored.error == stored.steps["calling"].error
    assert stored.error is not None
    assert stored.error.cause is not None
    assert 502 == stored.error.cause.properties["status_code"]
    assert "Traceback" not in repr(stored)
    assert __file__ not in repr(stored)


@behaviour(110, "errors of the library itself are stored like any other")
def test_110_errors_of_the_library(harness: Harness) -> None:
    """One that a step runs into, and one that the library raises about the step."""

    @step
    def looking(run_id: str) -> Any:
        return harness.another_process().run(run_id).result()

    @step
    def wrong(_: Any) -> int:
        return "text"  # type: ignore[return-value]

    result = harness.serve(workflow("w", input=str).then(looking)).start("nowhere")
    assert result.error is not None
    assert (RunNotFound.__name__, {"run_id": "nowhere"}) == (result.error.type, result.error.properties)
    result = harness.serve(workflow("w").then(wrong)).start(1)
    assert result.error is not None
    assert ("InvalidPayload", "wrong") == (result.error.type, result.error.step)
    assert 1 == len(result.error.properties["errors"])


@behaviour(111, "a failed step is logged once, with its id")
def test_111_failed_step_is_logged(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    """With its run, its try and its stack; the workflows around it do not log it again."""
    flaky = step(id="flaky", retries=1, input=int)(Flaky(harness, failures=9))
    child = workflow("child", input=int).dountil(flaky, lambda _: True).commit()
    made = workflow("w", input=list[int]).foreach(child).commit()
    harness.serve(made).start([1])
    assert "failed" == at_rest(harness).status
    logged = [record for record in caplog.records if record.levelname == "ERROR"]
    assert ["child[0].flaky"] == [getattr(record, "step", None) for record in logged]
    assert (harness.run_id, 2) == (getattr(logged[0], "run_id", None), getattr(logged[0], "attempt", None))
    assert "in __call__" in getattr(logged[0], "stack", "")


@behaviour(112, "without retries a step is tried once")
def test_112_no_retries_by_default(harness: Harness) -> None:
    """It fails at once."""
    flaky = Flaky(harness, failures=1)
    result = harness.serve(workflow("w").then(step(id="flaky")(flaky))).start(1)
    assert ("failed", 1, 1) == (result.status, len(flaky.tries), result.steps["flaky"].attempts)


@pytest.mark.parametrize(("failures", "status"), [(2, "success"), (3, "failed")])
@behaviour(113, "a workflow's retries give each of its steps that many further tries")
def test_113_retries_of_the_workflow(harness: Harness, failures: int, status: str) -> None:
    """Two retries are three tries."""
    flaky = Flaky(harness, failures)
    harness.serve(workflow("w", retries=2).then(step(id="flaky")(flaky))).start(1)
    result = at_rest(harness)
    assert (status, 3, 3) == (result.status, len(flaky.tries), result.steps["flaky"].attempts)


@behaviour(114, "the pause between tries is kept")
def test_114_pause_between_tries(harness: Harness) -> None:
    """A long one is no process's time: the run waits, and says until when."""
    flaky = Flaky(harness, failures=2)
    result = harness.serve(workflow("w", retries=2, backoff=HOURLY).then(step(id="flaky")(flaky))).start(1)
    assert ("waiting", "waiting") == (result.status, result.steps["flaky"].status)
    assert harness.clock.now() + timedelta(hours=1) == result.steps["flaky"].wake_at
    harness.advance(hours=2)
    assert ("success", 2) == (harness.result().status, harness.result().output)
    first = flaky.times[0]
    assert [timedelta(0), timedelta(hours=1), timedelta(hours=2)] == [time - first for time in flaky.times]


@pytest.mark.parametrize("retries", [0, 3])
@behaviour(115, "a step's own retries override the workflow's")
def test_115_retries_of_the_step(harness: Harness, retries: int) -> None:
    """Also by none."""
    flaky = Flaky(harness, failures=9)
    harness.serve(workflow("w", retries=1).then(step(id="flaky", retries=retries)(flaky))).start(1)
    assert ("failed", retries + 1) == (at_rest(harness).status, len(flaky.tries))


@behaviour(116, "a step sees how often it was retried, from 0")
def test_116_retry_count(harness: Harness) -> None:
    """And its attempt, from 1."""
    flaky = Flaky(harness, failures=2)
    harness.serve(workflow("w").then(step(id="flaky", retries=2)(flaky))).start(1)
    result = at_rest(harness)
    assert ([0, 1, 2], 3) == (flaky.tries, result.steps["flaky"].attempts)


@behaviour(117, "an error that shall not be retried is not")
def test_117_not_retried(harness: Harness) -> None:
    """By the class of the error."""
    flaky = Flaky(harness, failures=9, error=PermissionError)
    made = step(id="flaky", retries=5, no_retry_on=[PermissionError])(flaky)
    result = harness.serve(workflow("w").then(made)).start(1)
    assert ("failed", 1) == (result.status, len(flaky.tries))


@behaviour(118, "retries are honoured after a resume")
def test_118_retries_after_a_resume(harness: Harness) -> None:
    """Each try has the answer; the step behind it has its tries too."""
    seen: list[Any] = []
    flaky = Flaky(harness, failures=2)

    @step
    def ask(_: int, ctx: StepContext[int]) -> int:
        if ctx.resume_data is None:
            ctx.suspend()
        seen.append((ctx.resume_data, ctx.retry_count))
        if ctx.retry_count < 2:
            raise ValueError("once more")
        return ctx.resume_data

    made = workflow("w", input=int, retries=2, backoff=HOURLY).then(ask).then(step(id="flaky")(flaky))
    harness.serve(made).start(1)
    assert "waiting" == harness.resume(5).status
    harness.advance(hours=4)
    assert ("success", 6) == (harness.result().status, harness.result().output)
    assert ([(5, 0), (5, 1), (5, 2)], [0, 1, 2]) == (seen, flaky.tries)


@pytest.mark.parametrize(("number", "status"), [(1, "success"), (0, "failed")])
@behaviour(119, "an error in a callback does not change the result")
def test_119_error_in_a_callback(harness: Harness, caplog: pytest.LogCaptureFixture, number: int, status: str) -> None:
    """It is logged, once; the callback behind it is called all the same."""

    def broken(_: RunResult[Any]) -> None:
        raise RuntimeError("mail is down")

    hooks: dict[str, Any] = {"on_error": broken, "on_finish": broken}
    made = workflow("w", input=int, **hooks).map(lambda n: 1 / n, id="invert")
    result = harness.serve(made).start(number)
    harness.advance(hours=1)
    assert (status, result) == (result.status, harness.result())
    assert (None if number else "ZeroDivisionError") == (result.error and result.error.type)
    logged = [getattr(record, "hook", None) for record in caplog.records if record.name == "flowcore.hooks"]
    assert (["on_finish"] if number else ["on_error", "on_finish"]) == logged


class Tripwire(Exception):
    """An author's own way to say that a run was stopped on purpose."""

    def __init__(self, reason: str, **details: Any) -> None:
        super().__init__(reason)
        self.reason = reason
        self.details = details


@differs(
    120,
    "a tripwire gives the run a status, a reason, retry, metadata and a processor id",
    "there is no such status: raise an error class of your own; its type and properties are stored with the run",
)
def test_120_an_error_of_ones_own(harness: Harness) -> None:
    """Out of a nested workflow too."""

    @step
    def guard(_: Any) -> Any:
        raise Tripwire("blocked", retry=False, metadata={"score": 0.9}, processor_id="moderation")

    child = workflow("child").then(guard).commit()
    result = harness.serve(workflow("w").then(child)).start("text")
    assert result.error is not None
    assert ("failed", "Tripwire", "blocked") == (result.status, result.error.type, result.error.message)
    details = {"retry": False, "metadata": {"score": 0.9}, "processor_id": "moderation"}
    assert {"reason": "blocked", "details": details} == result.error.properties


@behaviour(121, "each turn of a loop has its own retries")
def test_121_retries_of_each_turn(harness: Harness) -> None:
    """The count starts at 0 again."""
    seen: list[tuple[int | None, int]] = []

    @step(retries=2)
    def body(value: int, ctx: StepContext) -> int:
        seen.append((ctx.iteration, ctx.retry_count))
        if ctx.retry_count < 2:
            raise ValueError("once more")
        return value + 1

    harness.serve(workflow("w", input=int).dountil(body, lambda n: n == 3)).start(0)
    result = at_rest(harness)
    assert ("success", 3) == (result.status, result.output)
    assert [(turn, count) for turn in (1, 2, 3) for count in (0, 1, 2)] == seen
