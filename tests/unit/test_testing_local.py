"""``LocalApp``: months in milliseconds, each event at its own instant, and workers that die on demand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flowcore import App, StepContext, step, workflow
from flowcore.adapters.memory import MemoryQueue, MemoryStore
from flowcore.authoring.graph import Backoff
from flowcore.ports import Hint
from flowcore.testing import LocalApp, LossyQueue, Unruly, VirtualClock
from flowcore.testing.pytest_plugin import local_app

__all__ = ["local_app"]

effects: list[str] = []


@pytest.fixture(autouse=True)
def _no_effects() -> None:
    effects.clear()


@step
def approve(amount: int, ctx: StepContext[str]) -> str:
    """Waits two days for a word; goes on without one."""
    effects.append("approve")
    if ctx.timed_out:
        return "nobody answered"
    if ctx.resume_data is None:
        ctx.suspend(timeout=timedelta(days=2))
    return ctx.resume_data


@step
def pay(word: str, ctx: StepContext) -> str:
    """An effect on the outside world."""
    effects.append(ctx.idempotency_key)
    return f"paid: {word}"


REFUND = workflow("refund", input=int, output=str).sleep(timedelta(days=3)).then(approve).then(pay).commit()


@pytest.fixture
def app() -> LocalApp:
    """A LocalApp that serves the refund."""
    return LocalApp(App(REFUND))


def test_time_passes_beside_a_run_that_sleeps_until_the_calendar_ends() -> None:
    """There is no moment after that at which a sweeper would come."""
    flow = workflow("w", input=int).sleep_until(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)).commit()
    app = LocalApp(App(flow))
    run = app.workflow(flow).create_run()
    run.start(1)
    app.advance(days=400)
    assert "waiting" == run.result().status


def test_a_run_sleeps_three_days_and_times_out_two_days_later(app: LocalApp) -> None:
    """Nothing happens early; what is due happens at its own instant, however far time is moved at once."""
    begin, run = app.clock.now(), app.workflow("refund").create_run("r")
    assert "waiting" == run.start(7).status
    app.advance(timedelta(days=3) - timedelta(milliseconds=1))
    assert "waiting" == run.result().status
    app.advance(timedelta(milliseconds=1))
    assert "suspended" == run.result().status
    assert begin + timedelta(days=5) == run.result().waits[0].deadline
    app.advance(days=300)
    assert ("success", "paid: nobody answered") == (run.result().status, run.result().output)
    assert begin + timedelta(days=5) == run.result().updated_at
    assert begin + timedelta(days=303) == app.clock.now()


def test_an_answer_comes_before_the_timeout(app: LocalApp) -> None:
    """The timer that fires later finds nothing to do."""
    run = app.workflow("refund").create_run("r")
    run.start(7)
    app.advance(days=3, hours=1)
    assert "paid: yes" == app.resume("r", "yes", step=approve).output
    app.advance(days=10)
    assert ["approve", "approve", "r/pay"] == effects


def test_a_worker_that_dies_before_the_commit_repeats_the_step(app: LocalApp) -> None:
    """The sweeper sends another one, once the lease is over; the key of the effect is the same."""
    run = app.workflow("refund").create_run("r")
    run.start(7)
    app.advance(days=3)
    app.crash_before("pay")
    assert "running" == app.resume("r", "yes").status
    app.advance(minutes=15)
    assert "running" == run.result().status
    app.advance(minutes=1)
    assert "paid: yes" == run.result().output
    assert ["r/pay", "r/pay"] == effects[2:]


def test_a_worker_that_dies_after_the_commit_repeats_nothing(app: LocalApp) -> None:
    """Only what follows is left for the next worker."""
    run = app.workflow("refund").create_run("r")
    run.start(7)
    app.advance(days=3)
    app.crash_after("pay")
    assert "running" == app.resume("r", "yes").status
    app.advance(minutes=16)
    assert "paid: yes" == run.result().output
    assert ["r/pay"] == effects[2:]


def test_a_hint_delivered_early_or_twice_changes_nothing(app: LocalApp) -> None:
    """Hints carry no truth."""
    run = app.workflow("refund").create_run("r")
    run.start(7)
    app.deliver("r", twice=True)
    app.deliver("nobody", twice=True)
    assert "waiting" == run.result().status
    app.advance(days=3)
    app.deliver("r", twice=True)
    assert ["approve"] == effects


def test_retry_pauses_pass_in_virtual_time(app: LocalApp) -> None:
    """Short ones in the call, long ones parked and fired by ``advance``."""

    @step(
        retries=2, backoff=Backoff(initial=timedelta(seconds=1), factor=3600, jitter=False, maximum=timedelta(days=1))
    )
    def flaky(value: int, ctx: StepContext) -> int:
        if ctx.attempt < 3:
            raise ValueError("not yet")
        return ctx.attempt

    app = LocalApp(App(workflow("w").then(flaky).commit()))
    begin, run = app.clock.now(), app.workflow("w").create_run()
    assert "waiting" == run.start(1).status
    assert begin + timedelta(seconds=1) == app.clock.now()
    app.advance(hours=1)
    assert 3 == run.result().output


def test_with_a_queue_work_waits_for_a_worker() -> None:
    """``start`` and ``resume`` only ask; ``run_until_idle`` is the worker."""
    clock = VirtualClock()
    app = LocalApp(App(REFUND), clock=clock, queue=MemoryQueue(clock))
    begin, run = app.clock.now(), app.workflow("refund").create_run("r")
    assert "pending" == run.start(7).status
    app.run_until_idle()
    assert ("waiting", begin) == (run.result().status, app.clock.now())
    app.advance(days=3)
    assert "running" == run.resume("yes").status
    app.run_until_idle()
    assert "paid: yes" == run.result().output


def test_two_apps_on_one_store_see_and_wake_the_same_runs() -> None:
    """What one has put to sleep, the other wakes at the very instant."""
    store, clock = MemoryStore(), VirtualClock()
    one, other = (LocalApp(App(REFUND), store=store, clock=clock) for _ in range(2))
    one.workflow("refund").create_run("r").start(7)
    other.advance(days=3)
    assert "suspended" == one.run("r").result().status
    assert "paid: yes" == other.resume("r", "yes").output
    assert ["r"] == [run.run_id for run in one.list_runs(status="success")]


def test_wakes_of_several_runs_fire_in_order_of_time() -> None:
    """Whichever run was started first."""
    seen: list[int] = []

    @step
    def note(hours: int) -> int:
        seen.append(hours)
        return hours

    app = LocalApp(App(workflow("w", input=int).sleep(lambda hours: timedelta(hours=hours)).then(note).commit()))
    for hours in (5, 1, 3):
        app.workflow("w").create_run().start(hours)
    app.advance(days=1)
    assert [1, 3, 5] == seen


def test_cancel_stops_a_sleeper(app: LocalApp) -> None:
    """Its wake finds nothing to do."""
    app.workflow("refund").create_run("r").start(7)
    app.cancel("r")
    app.advance(days=30)
    assert ("canceled", []) == (app.run("r").result().status, effects)


def test_a_lost_wake_is_found_by_the_sweeper(app: LocalApp) -> None:
    """A minute and a half after it was due."""
    run = app.workflow("refund").create_run("r")
    run.start(7)
    assert app.scheduler is not None
    app.scheduler.unschedule(app.run("r")._ref, version=run.result().version)
    app.advance(days=3, seconds=90)
    assert "waiting" == run.result().status
    app.advance(seconds=1)
    assert "suspended" == run.result().status


def test_the_fixture_makes_local_apps_of_workflows(local_app: Callable[..., LocalApp]) -> None:
    """Of an App, or of workflows."""
    assert "waiting" == local_app(REFUND).workflow("refund").create_run().start(7).status
    given: Any = App(REFUND)
    assert "waiting" == local_app(given).workflow("refund").create_run().start(7).status


class Elsewhere:
    """A queue whose hints nobody can take from here, as one of SQS is."""

    max_delay_s = 900

    def send(self, hint: Hint, *, delay_s: int) -> None:
        """See ``Queue.send``."""


def test_a_queue_whose_hints_cannot_be_taken_is_refused() -> None:
    """Virtual time could bring none of them; also where it is wrapped."""
    for queue in (Elsewhere(), LossyQueue(Elsewhere(), Unruly())):
        with pytest.raises(TypeError, match=r"Elsewhere.*MemoryQueue"):
            LocalApp(App(REFUND), queue=queue)
