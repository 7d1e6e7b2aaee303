"""A step that kills its workers, as the kernel does with SIGKILL, is given up; so is a message nobody can use."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, StepContext, step, workflow
from flowcore.adapters.memory import MemoryQueue
from flowcore.core.decide import MOST_CLAIMS
from flowcore.errors import InvariantError, NotFailed
from flowcore.keys import RunRef
from flowcore.testing import LocalApp, VirtualClock
from tests.builders import an_app, pass_time

REF = RunRef("default", "r")
CALLS: list[str] = []


@pytest.fixture(autouse=True)
def _no_calls_yet() -> None:
    CALLS.clear()


@step
def first(value: int) -> int:
    """Adds one."""
    CALLS.append("first")
    return value + 1


@step
def deadly(value: int) -> int:
    """Doubles, if its worker lives."""
    CALLS.append("deadly")
    return value * 2


@step
def ask(value: int, ctx: StepContext[int]) -> int:
    """Waits for a number."""
    if ctx.resume_data is None:
        ctx.suspend()
    return value + ctx.resume_data


FLOW = workflow("flow", input=int, output=int).then(first).then(deadly).commit()


def dying(app: LocalApp, times: int, step: str = "deadly") -> None:
    """Let the next ``times`` workers die in a step."""
    for _ in range(times):
        app.crash_before(step)


def crashed(app: LocalApp) -> Any:
    """A run that was given up."""
    dying(app, MOST_CLAIMS + 1)
    run = app.workflow("flow").create_run("r")
    run.start(1)
    app.advance(days=1)
    return run


def test_step_that_kills_its_workers_is_given_up() -> None:
    """By the worker that comes after the last one allowed to die; the step is not called any more."""
    result = crashed(LocalApp(App(FLOW))).result()

    assert ("failed", "ExecutorCrashed", "deadly") == (result.status, result.error.type, result.error.step)
    assert "6 workers in a row" in result.error.message
    assert ["first", *["deadly"] * (MOST_CLAIMS + 1)] == CALLS


def test_step_that_is_given_up_is_the_one_that_kills_also_where_outcomes_are_kept_back() -> None:
    """What was done before it is stored once a worker has died; it would be the one that is never done otherwise."""
    app = LocalApp(App(workflow("flow", input=int, durability="boundary").then(first).then(deadly).commit()))
    dying(app, MOST_CLAIMS + 2)
    run = app.workflow("flow").create_run("r")
    run.start(1)
    app.advance(days=1)
    result: Any = run.result()
    assert ("failed", "ExecutorCrashed", "deadly") == (result.status, result.error.type, result.error.step)
    assert [*["first", "deadly"] * 2, *["deadly"] * MOST_CLAIMS] == CALLS


def test_last_worker_that_may_die_leaves_a_run_that_still_succeeds() -> None:
    """Five deaths in a row are bad luck."""
    app = LocalApp(App(FLOW))
    dying(app, MOST_CLAIMS)
    run = app.workflow("flow").create_run("r")
    run.start(1)
    app.advance(days=1)

    assert ("success", 4) == (run.result().status, run.result().output)


def test_progress_in_between_is_no_poison() -> None:
    """Only claims without a single record are counted."""
    app = LocalApp(App(FLOW))
    dying(app, MOST_CLAIMS - 1, "first")
    dying(app, MOST_CLAIMS)
    run = app.workflow("flow").create_run("r")
    run.start(1)
    app.advance(days=1)

    assert "success" == run.result().status


def test_clean_release_in_between_is_no_poison() -> None:
    """A worker has come back: whoever dies afterwards is the first again."""
    app = LocalApp(App(workflow("flow", input=int).then(ask).then(deadly).commit()))
    run = app.workflow("flow").create_run("r")
    dying(app, MOST_CLAIMS - 1, "ask")
    run.start(1)
    app.advance(days=1)
    assert "suspended" == run.result().status
    dying(app, MOST_CLAIMS)
    run.resume(1)
    app.advance(days=1)

    assert ("success", 4) == (run.result().status, run.result().output)


def test_a_run_that_contradicts_itself_stands_still_in_the_end() -> None:
    """Workers that find no meaning in a record fail loudly, but not for ever; who looks then finds the reason."""
    before, after = (
        workflow("flow", input=int, output=int).then(ask).commit(),
        workflow("flow", input=int, output=int).dountil(ask, bool).commit(),
    )
    app = an_app(before)
    app.workflow("flow").create_run("r").start(1)
    head = app.store.peek(REF)
    assert head is not None
    lies = replace(head, definition=after.compiled.fingerprint, version=head.version + 1)
    app.store.move(lies, version=head.version)
    deployed = an_app(after, like=app)
    for attempt in range(MOST_CLAIMS):
        with pytest.raises(InvariantError, match="has no meaning where it stands"):
            deployed.look(REF) if attempt else deployed.run("r").resume(1)
        pass_time(deployed, timedelta(hours=1))
    deployed.look(REF)

    result = deployed.run("r").result()
    assert ("paused", "record 'ask' with outcome 'resu' has no meaning where it stands") == (
        result.status,
        result.blocked,
    )


def test_only_the_first_ready_step_is_given_up() -> None:
    """Of those that are ready together; the others are run by the same worker."""
    app = LocalApp(App(workflow("flow", input=int).parallel(deadly, first).commit()))
    dying(app, MOST_CLAIMS + 1)
    run = app.workflow("flow").create_run("r")
    run.start(1)
    app.advance(days=2)

    result = run.result()
    assert ("failed", "deadly") == (result.status, result.error and result.error.step)
    assert {"deadly": "failed", "first": "success"} == {id: step.status for id, step in result.steps.items()}


def test_given_up_step_is_called_again_by_a_redrive() -> None:
    """With a budget of its own; killing its workers again, it is given up again."""
    clock = VirtualClock()
    app = LocalApp(App(FLOW), queue=MemoryQueue(clock), clock=clock)
    run = crashed(app)
    run.redrive()
    dying(app, MOST_CLAIMS + 1)
    app.advance(days=1)
    assert "ExecutorCrashed" == (run.result().error or pytest.fail("no error")).type
    CALLS.clear()
    run.redrive()
    app.run_until_idle()

    assert (4, ["deadly"]) == (run.result().output, CALLS)
    with pytest.raises(NotFailed):
        run.redrive()


def test_restart_between_deaths_gives_workers_a_fresh_budget() -> None:
    """Somebody has looked at it; of a run that was given up a restart changes nothing."""
    app = LocalApp(App(FLOW))
    dying(app, 2 * MOST_CLAIMS - 2)
    run = app.workflow("flow").create_run("r")
    run.start(1)
    app.advance(minutes=60)
    assert "running" == run.result().status
    run.restart()
    app.advance(days=1)
    assert ("success", 4) == (run.result().status, run.result().output)

    assert 4 == run.restart().output


def test_given_up_step_is_begun_anew_by_time_travel() -> None:
    """As any failed step."""
    assert 4 == crashed(LocalApp(App(FLOW))).time_travel("deadly").output


def test_hint_of_another_tenant_moves_nobody() -> None:
    """A run of the same id that is not theirs stays as it is."""
    app = LocalApp(App(workflow("flow", input=int).then(ask).commit()))
    run = app.workflow("flow").create_run("r")
    version = run.start(1).version

    assert app.look(RunRef("acme", "r")) is None
    assert version == run.result().version


def test_hint_at_a_run_that_is_deleted_meanwhile_is_about_nobody() -> None:
    """The worker that held it is told that it is gone, and acknowledges the message."""

    @step
    def vanish(value: int) -> int:
        app.run("r").delete()
        return value

    clock = VirtualClock()
    app = LocalApp(App(workflow("flow", input=int).then(vanish).commit()), queue=MemoryQueue(clock), clock=clock)
    app.workflow("flow").create_run("r").start(1)

    assert app.look(RunRef("default", "r")) is None
    assert 0 == len(list(app.list_runs()))
