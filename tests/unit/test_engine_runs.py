"""Runs from the outside: start, answer, time out, cancel, redeploy, hints; what is refused leaves the run as it was."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from flowcore import App, Backoff, FlowcoreError, StepContext, Workflow, create_step
from flowcore.adapters.memory import MemoryQueue, MemoryScheduler, MemoryStore
from flowcore.errors import (
    AlreadyResumed,
    AmbiguousWait,
    DefinitionChanged,
    IdempotencyKeyReused,
    IndexOutOfRange,
    InvalidPayload,
    MalformedRequest,
    NotSuspended,
    PayloadTooLarge,
    RunExists,
    RunFinished,
    RunNotFound,
    UnknownLabel,
    UnknownStep,
    WorkflowNotFound,
)
from flowcore.model import RunStatus
from flowcore.pace import Pace
from flowcore.ports import Hint
from tests.builders import NOW, RUN, CountedIds, VirtualClock, a_step, a_workflow, an_app, pass_time

SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
Build = Callable[[Any], Any]


def asks(id: str = "approve", *, times: int = 1, **options: Any) -> Any:
    """A step that suspends and then gives what it was answered; ``times`` suspensions in a row."""
    asked: list[int] = []

    def execute(value: Any, ctx: StepContext[Any, Any]) -> Any:
        if ctx.timed_out:
            return ["timed out", ctx.resume_data]
        if len(asked) < times:
            asked.append(1)
            ctx.suspend({"n": len(asked)}, **options)
        return ctx.resume_data

    return create_step(id=id, execute=execute, resume=Any)


def typed(id: str = "approve", type_: Any = bool) -> Any:
    """A step that wants an answer of a type."""
    return a_step(id, lambda v, ctx: ctx.suspend() if ctx.resume_data is None else ctx.resume_data, resume=type_)


def started(*flows: Workflow[Any, Any], value: Any = 1, **options: Any) -> App:
    """An App whose first workflow was just started as ``r-1``."""
    app = an_app(*flows, **options)
    app.workflow(flows[0].id).create_run("r-1").start(value)
    return app


def version(app: App) -> int:
    """The run's version: it grows with each write of its head."""
    return app.run("r-1").result().version


# -- start ------------------------------------------------------------------------------------------------------------


def test_starting_again_with_the_same_input_gives_the_same_run() -> None:
    """By id; nothing runs twice."""
    calls: list[str] = []
    app = started(a_workflow(lambda w: w.then(noted(calls, "x"))))
    before = version(app)
    again = app.workflow("flow").create_run("r-1").start(1)
    assert (1, "success", ["x"], before) == (again.output, again.status, calls, again.version)


def test_a_key_stands_for_a_run() -> None:
    """The same key is the same run, another key another one; keys of two workflows do not meet."""
    app = an_app(a_workflow(lambda w: w.then(a_step("x"))), a_workflow(lambda w: w.then(a_step("x")), "other"))

    def started_by(key: str, flow: str = "flow") -> str:
        return app.workflow(flow).create_run().start(1, idempotency_key=key).run_id

    assert started_by("k") == started_by("k")
    assert 3 == len({started_by("k"), started_by("l"), started_by("k", "other")})


def test_an_id_that_was_given_is_kept_beside_a_key() -> None:
    """The id says it better."""
    app = an_app(a_workflow(lambda w: w.then(a_step("x"))))
    assert "mine" == app.workflow("flow").create_run("mine").start(1, idempotency_key="k").run_id


def test_another_input_or_workflow_under_an_id_is_refused() -> None:
    """The run that is there stays as it is."""
    app = started(a_workflow(lambda w: w.then(asks())), a_workflow(lambda w: w.then(a_step("x")), "other"))
    before = version(app)
    with pytest.raises(RunExists, match="'r-1' of workflow 'flow'"):
        app.workflow("flow").create_run("r-1").start(2)
    with pytest.raises(RunExists):
        app.workflow("other").create_run("r-1").start(1)
    app.workflow("flow").create_run().start(1, idempotency_key="k")
    with pytest.raises(IdempotencyKeyReused):
        app.workflow("flow").create_run().start(2, idempotency_key="k")
    assert before == version(app)


REFUSED: dict[str, tuple[Callable[[App], Any], type[FlowcoreError]]] = {
    "an unknown workflow": (lambda app: app.workflow("nothing"), WorkflowNotFound),
    "a bad run id": (lambda app: app.workflow("flow").create_run("a/b"), MalformedRequest),
    "a handle without a workflow": (lambda app: app.run("r-2").start(1), MalformedRequest),
    "an unknown run": (lambda app: app.run("r-2").result(), RunNotFound),
    "a run that cannot be": (lambda app: app.run("a/b").result(), RunNotFound),
    "waiting for an unknown run": (lambda app: app.run("r-2").wait(), RunNotFound),
    "resuming an unknown run": (lambda app: app.resume("r-2"), RunNotFound),
    "canceling an unknown run": (lambda app: app.cancel("r-2"), RunNotFound),
    "an input that is not JSON": (lambda app: app.workflow("flow").create_run().start(object()), InvalidPayload),
    "an input too large": (lambda app: app.workflow("flow").create_run().start("x" * 10**6), PayloadTooLarge),
    "a state that does not fit": (
        lambda app: app.workflow("flow").create_run().start(1, state={"a": {1}.__iter__}),
        InvalidPayload,
    ),
    "a context that is not JSON": (
        lambda app: app.workflow("flow").create_run().start(1, request_context={"a": object()}),
        InvalidPayload,
    ),
    "a tenant that cannot be": (lambda app: app.for_tenant("a/b"), MalformedRequest),
    "no run at all": (lambda app: app.list_runs(limit=0), MalformedRequest),
}


@pytest.mark.parametrize(("call", "error"), REFUSED.values(), ids=REFUSED)
def test_a_bad_request_writes_nothing(call: Callable[[App], Any], error: type[FlowcoreError]) -> None:
    """It is refused with the narrowest error."""
    app = an_app(a_workflow(lambda w: w.then(a_step("x"))))
    with pytest.raises(error) as caught:
        call(app)
    assert error is type(caught.value)
    assert [] == list(app.list_runs())


def test_tenants_do_not_see_each_other() -> None:
    """The tenant is part of every key."""
    app = started(a_workflow(lambda w: w.then(asks())))
    other = app.for_tenant("acme")
    with pytest.raises(RunNotFound):
        other.run("r-1").result()
    other.workflow("flow").create_run("r-1").start(2)
    assert ([1], [2]) == tuple([a.run(r.run_id).result().input for r in a.list_runs()] for a in (app, other))


# -- answers ----------------------------------------------------------------------------------------------------------

BOTH = a_workflow(lambda w: w.parallel(typed("boss"), typed("legal"), a_step("x")))
FAN = a_workflow(lambda w: w.foreach(typed("fan"), concurrency=3), "fan-flow")

BAD_ANSWERS: dict[str, tuple[Callable[[App], Any], type[FlowcoreError]]] = {
    "several waits": (lambda app: app.resume("r-1", True), AmbiguousWait),
    "an unknown step": (lambda app: app.resume("r-1", True, step="nothing"), UnknownStep),
    "an unknown label": (lambda app: app.resume("r-1", True, label="nothing"), UnknownLabel),
    "a step that waits for nobody": (lambda app: app.resume("r-1", True, step="x"), NotSuspended),
    "a wait of before": (lambda app: app.resume("r-1", True, wait="boss@7"), NotSuspended),
    "data of another type": (lambda app: app.resume("r-1", "maybe", step="boss"), InvalidPayload),
    "no data": (lambda app: app.resume("r-1", step="boss"), InvalidPayload),
    "data that is not JSON": (lambda app: app.resume("r-1", object(), step="boss"), InvalidPayload),
    "an index of no item": (lambda app: app.resume("r-1", True, step="boss", index=3), IndexOutOfRange),
}


@pytest.mark.parametrize(("call", "error"), BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_a_bad_answer_leaves_the_run_as_it_was(call: Callable[[App], Any], error: type[FlowcoreError]) -> None:
    """Refused before anything is written: the same version, the same waits; a good answer still works."""
    app = started(BOTH)
    before = app.run("r-1").result()
    with pytest.raises(error) as caught:
        call(app)
    assert error is type(caught.value)
    assert before == app.run("r-1").result()
    app.resume("r-1", True, step="boss")
    assert {"boss": True, "legal": False, "x": 1} == app.resume("r-1", False, step="legal").output


def test_a_step_is_named_in_many_ways() -> None:
    """Object, id, dotted path, list; the label; the wait."""
    inner = a_workflow(lambda w: w.then(typed()), "child")
    ways: list[dict[str, Any]] = [
        {"step": typed()},
        {"step": "approve"},
        {"step": "child.approve"},
        {"step": ["child", "approve"]},
        {"step": [inner, typed()]},
        {"step": inner},
        {"wait": "child/approve@0"},
        {},
    ]
    for way in ways:
        app = started(a_workflow(lambda w: w.then(inner)))
        assert "success" == app.resume("r-1", True, **way).status, way


def test_items_are_answered_together_or_one_by_one() -> None:
    """Without an index every suspended item gets the data."""
    app = started(FAN, value=[1, 2, 3])
    first = app.resume("r-1", False, step="fan", index=1)
    assert (["fan[0]", "fan[2]"], [["fan"]]) == ([wait.path[-1] for wait in first.waits], first.suspended)
    assert [True, False, True] == app.resume("r-1", True, step="fan").output


def test_a_second_answer_learns_of_the_winner() -> None:
    """When, who and over which channel; also after the end."""
    app = started(a_workflow(lambda w: w.then(typed()).then(typed("again"))))
    app.resume("r-1", True, by="ann", via="http")
    for _ in range(2):
        before = version(app)
        with pytest.raises(AlreadyResumed) as caught:
            app.resume("r-1", False, step="approve")
        assert {"at": NOW.isoformat(), "by": "ann", "via": "http"} == caught.value.winner
        assert before == version(app)
        if app.run("r-1").result().status == "suspended":
            app.resume("r-1", True)


def test_a_run_that_ended_without_a_question_takes_no_answer() -> None:
    """There is no winner to tell of."""
    app = started(a_workflow(lambda w: w.then(a_step("x"))))
    with pytest.raises(RunFinished, match="'success'"):
        app.resume("r-1", 1)


def test_a_repeated_key_is_told_the_first_receipt() -> None:
    """Also when the same step waits again: a late copy must not settle its next suspension."""
    app = started(a_workflow(lambda w: w.then(asks(times=2))))
    first = app.resume("r-1", 1, idempotency_key="k", by="ann")
    assert ("suspended", "applied") == (first.status, first.receipt and first.receipt.verdict)
    copy = app.resume("r-1", 1, idempotency_key="k")
    assert copy.receipt is not None
    assert ("suspended", "duplicate", "approve@0", "ann") == (
        copy.status,
        copy.receipt.verdict,
        copy.receipt.wait,
        copy.receipt.by,
    )
    assert first.version == copy.version
    with pytest.raises(IdempotencyKeyReused):
        app.resume("r-1", 2, idempotency_key="k")
    assert first.version == version(app)
    assert 3 == app.resume("r-1", 3, idempotency_key="l").output
    late = app.resume("r-1", 1, idempotency_key="k")
    assert (3, copy.receipt) == (late.output, late.receipt)


def test_the_order_of_keys_does_not_make_another_answer() -> None:
    """A client may write its JSON as it likes."""
    app = started(a_workflow(lambda w: w.then(asks())))
    app.resume("r-1", {"a": 1, "b": 2}, idempotency_key="k")
    receipt = app.resume("r-1", {"b": 2, "a": 1}, idempotency_key="k").receipt
    assert receipt is not None
    assert "duplicate" == receipt.verdict


def test_defaults_of_an_answer_are_filled_in() -> None:
    """The step gets what its type makes of the data."""
    app = started(a_workflow(lambda w: w.then(typed(type_=dict[str, float]))))
    assert {"a": 1.0} == app.resume("r-1", {"a": 1}).steps["approve"].resume_data


# -- time -------------------------------------------------------------------------------------------------------------


def test_a_suspension_times_out_at_its_deadline() -> None:
    """The step learns that it was nobody; whoever comes later learns it, too."""
    app = started(a_workflow(lambda w: w.then(asks(timeout=DAY))))
    (wait,) = app.run("r-1").result().waits
    assert NOW + DAY == wait.deadline
    pass_time(app, DAY - SECOND)
    assert "suspended" == app.run("r-1").result().status
    pass_time(app, SECOND)
    done = app.run("r-1").result()
    assert ("success", ["timed out", None]) == (done.status, done.output)
    with pytest.raises(AlreadyResumed, match="via 'timeout'"):
        app.resume("r-1", True, step="approve")


def test_an_answer_in_time_beats_the_deadline() -> None:
    """The schedule that still fires does no harm."""
    app = started(a_workflow(lambda w: w.then(asks(timeout=DAY))))
    assert 5 == app.resume("r-1", 5).output
    before = version(app)
    pass_time(app, 2 * DAY)
    assert before == version(app)


def test_a_sleep_of_any_length_is_slept_once() -> None:
    """Parked unbilled; looking early changes nothing."""
    app = started(a_workflow(lambda w: w.sleep(400 * DAY, id="s").then(a_step("x"))))
    before = app.run("r-1").result()
    assert ("waiting", NOW + 400 * DAY) == (before.status, before.steps["s"].wake_at)
    app.look(RUN)
    pass_time(app, 399 * DAY)
    assert before.version == version(app)
    pass_time(app, DAY)
    assert ("success", 1) == ((done := app.run("r-1").result()).status, done.output)


def test_a_sleep_and_a_deadline_may_last_until_the_calendar_ends() -> None:
    """Some say "never" that way."""
    never = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    app = started(
        a_workflow(lambda w: w.parallel(asks(timeout=never - NOW), a_workflow(lambda w: w.sleep_until(never))))
    )
    pass_time(app, 400 * DAY)
    result = app.run("r-1").result()
    assert ("waiting", [never]) == (result.status, [wait.deadline for wait in result.waits])
    assert "waiting" == app.run("r-1").resume(1, step="approve").status


@pytest.mark.parametrize("pause", [timedelta(0), -DAY])
def test_a_sleep_of_nothing_does_not_wait(pause: timedelta) -> None:
    """Zero, negative, past."""
    app = started(a_workflow(lambda w: w.sleep(pause).sleep_until(NOW - DAY).sleep(lambda _: pause)))
    done = app.run("r-1").result()
    assert ("success", {NOW}) == (done.status, {step.ended_at for step in done.steps.values()})


def test_one_arm_waits_while_another_sleeps() -> None:
    """The run is waiting, and lists the wait; once only the wait is left, it is suspended."""
    sleeper = a_workflow(lambda w: w.sleep(HOUR), "sleeper")
    app = started(a_workflow(lambda w: w.parallel(asks(), sleeper)))
    seen = app.run("r-1").result()
    assert ("waiting", [["approve"]]) == (seen.status, seen.suspended)
    pass_time(app, HOUR)
    assert "suspended" == app.run("r-1").result().status
    assert {"approve": True, "sleeper": 1} == app.resume("r-1", True).output


def test_wait_fires_wakes_itself() -> None:
    """A script with a sleep just works; a timeout ends the waiting."""
    app = started(a_workflow(lambda w: w.sleep(HOUR).then(asks())))
    assert "waiting" == app.run("r-1").wait(SECOND).status
    assert NOW + SECOND == app.clock.now()
    assert "suspended" == app.run("r-1").wait().status
    assert NOW + HOUR == app.clock.now()


# -- cancel -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [lambda w: w.then(asks()), lambda w: w.sleep(DAY)], ids=["suspended", "asleep"])
def test_cancel_stops_a_waiting_run_from_anywhere(build: Build) -> None:
    """By another App on the same store; no answer and no wake brings it back."""
    flow = a_workflow(build)
    app = started(flow)
    canceled = an_app(flow, like=app).cancel("r-1")
    assert ("canceled", []) == (canceled.status, canceled.waits)
    assert cast("MemoryScheduler", app.scheduler).next_at() is None
    with pytest.raises(RunFinished):
        app.resume("r-1", True)
    pass_time(app, 2 * DAY)
    assert canceled.version == version(app)


def test_cancel_before_the_first_step() -> None:
    """A queued run never begins."""
    flow = a_workflow(lambda w: w.then(a_step("x")))
    app = an_app(flow)
    queued = an_app(flow, like=app, queue=MemoryQueue(app.clock))
    assert "pending" == queued.workflow("flow").create_run("r-1").start(1).status
    queued.cancel("r-1")
    app.look(RUN)
    assert ("canceled", {}) == ((done := app.run("r-1").result()).status, done.steps)


@pytest.mark.parametrize("build", [lambda w: w.then(a_step("x")), lambda w: w.then(a_step("x", input=str))])
def test_cancel_of_an_ended_run_changes_nothing(build: Build) -> None:
    """A terminal status absorbs."""
    app = started(a_workflow(build))
    before = app.run("r-1").result()
    assert before == app.cancel("r-1")


# -- redeploy ---------------------------------------------------------------------------------------------------------


def redeployed(app: App, build: Build) -> App:
    """The same runs under another definition of the workflow."""
    return an_app(a_workflow(build), like=app)


def noted(calls: list[str], id: str) -> Any:
    """A step that is seen to run."""

    def execute(value: Any) -> Any:
        calls.append(id)
        return value

    return a_step(id, execute)


def test_a_step_inserted_in_front_is_not_run_and_one_behind_is() -> None:
    """Positions are ids; what was skipped says so."""
    calls: list[str] = []
    app = started(a_workflow(lambda w: w.then(noted(calls, "a")).then(typed()).then(noted(calls, "z"))))
    new = redeployed(
        app,
        lambda w: (
            w.then(noted(calls, "front"))
            .then(noted(calls, "a"))
            .then(noted(calls, "between"))
            .then(typed())
            .then(noted(calls, "behind"))
            .then(noted(calls, "z"))
        ),
    )
    done = new.resume("r-1", True)
    assert ("success", ["a", "behind", "z"]) == (done.status, calls)
    assert ["skipped", "skipped"] == [done.steps[id].status for id in ("front", "between")]


def test_a_step_inserted_in_front_of_a_sleep_is_not_run() -> None:
    """The wake goes on behind it."""
    app = started(a_workflow(lambda w: w.sleep(DAY, id="s").then(a_step("z"))))
    calls: list[str] = []
    new = redeployed(app, lambda w: w.then(noted(calls, "front")).sleep(DAY, id="s").then(noted(calls, "z")))
    pass_time(new, DAY)
    assert ("success", ["z"]) == (new.run("r-1").result().status, calls)


def test_a_definition_that_lost_the_step_is_refused_and_can_be_brought_back() -> None:
    """The answer is not used up by it."""
    app = started(a_workflow(lambda w: w.then(a_step("a")).then(typed())))
    before = version(app)
    new = redeployed(app, lambda w: w.then(a_step("a")).then(a_step("other")))
    with pytest.raises(DefinitionChanged, match="step 'approve' has been reached by this run"):
        new.resume("r-1", True)
    assert before == version(app)
    assert "success" == app.resume("r-1", True).status


def test_a_sleeping_run_that_lost_its_step_is_blocked_until_it_is_back() -> None:
    """It shows as paused with the reason, and takes no wrong step; a later look of a good version goes on."""
    flow = a_workflow(lambda w: w.parallel(typed(), a_workflow(lambda v: v.sleep(DAY, id="s"), "child")))
    app = started(flow)
    new = redeployed(app, lambda w: w.parallel(typed(), a_step("child")))
    pass_time(new, DAY)
    blocked = new.run("r-1").result()
    assert "paused" == blocked.status
    assert "no longer has it" in (blocked.blocked or "") or "another kind" in (blocked.blocked or "")
    with pytest.raises(DefinitionChanged):
        new.resume("r-1", True)
    assert blocked.version == version(new)
    assert "success" == app.resume("r-1", True).status


def test_a_workflow_that_is_not_served_blocks_its_runs(caplog: pytest.LogCaptureFixture) -> None:
    """Deployed again, the run goes on where it was."""
    flow = a_workflow(lambda w: w.parallel(typed(), a_workflow(lambda v: v.sleep(DAY), "child")))
    app = started(flow)
    other = an_app(a_workflow(lambda w: w.then(a_step("x")), "other"), like=app)
    with caplog.at_level(logging.ERROR):
        pass_time(other, DAY)
    seen = other.run("r-1").result()
    assert ("paused", True) == (seen.status, "no workflow 'flow' is served here" in (seen.blocked or ""))
    assert ["run is blocked"] == [record.message for record in caplog.records]
    with pytest.raises(WorkflowNotFound):
        other.resume("r-1", True)
    assert {"approve": True, "child": 1} == app.resume("r-1", True).output


def test_an_app_goes_on_on_the_same_ports() -> None:
    """``App.on`` puts the same workflows onto another store."""
    flow = a_workflow(lambda w: w.then(typed()))
    app = started(flow)
    again = App(flow).on(store=app.store, scheduler=app.scheduler, clock=app.clock, ids=app.ids)
    assert "success" == again.resume("r-1", True).status


# -- hints, hand-overs ------------------------------------------------------------------------------------------------


def queued_app(build: Build, **pace: Any) -> tuple[App, MemoryQueue]:
    """An App that leaves its runs to workers, with its queue."""
    base = an_app()
    queue = MemoryQueue(base.clock)
    return an_app(a_workflow(build), like=base, queue=queue, pace=Pace(**pace)), queue


def test_with_a_queue_start_and_resume_only_ask() -> None:
    """A worker does the rest; ``wait`` and ``drive`` do it here."""
    app, queue = queued_app(lambda w: w.then(typed()))
    assert "pending" == app.workflow("flow").create_run("r-1").start(1).status
    for hint in queue.pop_due(app.clock.now()):
        app.look(hint.run)
    assert "running" == app.resume("r-1", True).status
    for hint in queue.pop_due(app.clock.now()):
        app.look(hint.run)
    assert "success" == app.run("r-1").result().status
    here = app.workflow("flow").create_run("r-2").start(1, wait=HOUR)
    assert ("suspended", "success") == (here.status, app.resume("r-2", True, drive=HOUR).status)


def test_a_repeated_request_sends_the_hint_again() -> None:
    """The first one may have died before it could."""
    app, queue = queued_app(lambda w: w.then(typed()))
    for _ in range(2):
        app.workflow("flow").create_run("r-1").start(1)
    assert 2 == len(queue.pop_due(app.clock.now()))
    app.look(RUN)
    for _ in range(2):
        app.resume("r-1", True, idempotency_key="k")
    assert 2 == len(queue.pop_due(app.clock.now()))


def test_an_early_hint_is_sent_again() -> None:
    """A message can be delayed for 15 minutes only; the schedule behind it is kept, too."""
    app, queue = queued_app(lambda w: w.sleep(timedelta(minutes=10)))
    app.workflow("flow").create_run("r-1").start(1, wait=HOUR)
    (first,) = queue.sent
    assert (Hint(run=RUN, at=NOW + timedelta(minutes=10)), 600) == first
    cast("VirtualClock", app.clock).wait_until(NOW + timedelta(minutes=4))
    before = version(app)
    app.look(RUN)
    assert (first[0], 360) == queue.sent[-1]
    assert before == version(app)


def test_looking_at_no_run_is_harmless() -> None:
    """A hint may outlive its run."""
    app = an_app(a_workflow(lambda w: w.then(a_step("x"))))
    assert app.look(RUN) is None


def test_a_worker_out_of_time_hands_the_run_on() -> None:
    """No step is begun that could not be finished; the next worker begins it."""
    calls: list[str] = []

    def slow(value: int) -> int:
        calls.append("a")
        cast("VirtualClock", app.clock).wait_until(app.clock.now() + 8 * SECOND)
        return value

    app, queue = queued_app(lambda w: w.then(a_step("a", slow)).then(noted(calls, "b")))
    app.workflow("flow").create_run("r-1").start(1)
    queue.pop_due(app.clock.now())
    head = app.look(RUN, deadline=app.clock.now() + 10 * SECOND)
    assert head is not None
    assert (RunStatus.QUEUED, 1, ["a"]) == (head.status, head.hops, calls)
    for hint in queue.pop_due(app.clock.now()):
        app.look(hint.run, deadline=app.clock.now() + 10 * SECOND)
    assert ("success", ["a", "b"]) == (app.run("r-1").result().status, calls)


def test_a_run_that_is_only_handed_on_is_ended() -> None:
    """Nothing is done in between: it seems to go in circles, and would cost money for ever."""
    app, queue = queued_app(lambda w: w.then(a_step("x")), most_hops=3)
    app.workflow("flow").create_run("r-1").start(1)
    for _ in range(4):
        assert queue.pop_due(app.clock.now())
        app.look(RUN, deadline=app.clock.now() + SECOND)
    done = app.run("r-1").result()
    assert ("failed", "TooManyHops") == (done.status, done.error and done.error.type)


def test_a_run_that_outlives_a_hundred_workers_goes_on() -> None:
    """Far more than the 16 hops after which Lambda, unless told otherwise, takes a chain of messages for a loop."""
    steps = [a_step(f"s{number}", lambda value: value + 1) for number in range(101)]

    def chained(builder: Any) -> Any:
        for one in steps:
            builder = builder.then(one)
        return builder

    app, queue = queued_app(chained, most_turns=1)
    app.workflow("flow").create_run("r-1").start(0)
    hops = []
    while hints := queue.pop_due(app.clock.now()):
        hops += [head.hops for hint in hints if (head := app.look(hint.run)) is not None]
    assert ("success", 101) == (app.run("r-1").result().status, app.run("r-1").result().output)
    assert {1} == set(hops)


def test_a_run_that_does_something_each_time_is_handed_on_as_often_as_it_takes() -> None:
    """It goes in no circle, however few turns one worker makes."""
    app, queue = queued_app(
        lambda w: w.dountil(a_step("x", lambda value: value + 1), lambda value: value >= 60), most_turns=1, most_hops=50
    )
    app.workflow("flow").create_run("r-1").start(0)
    while hints := queue.pop_due(app.clock.now()):
        for hint in hints:
            app.look(hint.run)
    assert ("success", 60) == (app.run("r-1").result().status, app.run("r-1").result().output)


def test_ten_thousand_hops_are_the_usual_bound() -> None:
    """A run of days in workers of minutes stays far below."""
    assert 10_000 == Pace().most_hops


def test_a_retry_hours_away_is_parked() -> None:
    """No worker waits for it: the run is given back, and a schedule brings the next one."""
    waited: list[datetime] = []

    class Impatient(VirtualClock):
        def wait_until(self, instant: datetime) -> None:
            waited.append(instant)
            super().wait_until(instant)

    def fails_once(value: int, ctx: StepContext[Any]) -> int:
        if ctx.attempt == 1:
            raise ValueError("not yet")
        return value

    pause = Backoff(initial=6 * HOUR, jitter=False, maximum=DAY)
    flow = a_workflow(lambda w: w.then(a_step("x", fails_once, retries=1, backoff=pause)))
    scheduler = MemoryScheduler()
    app = App(flow, store=MemoryStore(), scheduler=scheduler, clock=Impatient(), ids=CountedIds())
    parked = app.workflow("flow").create_run("r-1").start(1)
    head = app.store.peek(RUN)
    assert ("waiting", []) == (parked.status, waited)
    assert head is not None
    assert (NOW + 6 * HOUR, None, NOW + 6 * HOUR) == (head.wake, head.owner, scheduler.next_at())
    pass_time(app, 6 * HOUR)
    assert ("success", 2) == (app.run("r-1").result().status, app.run("r-1").result().steps["x"].attempts)


def test_steps_know_how_long_they_may_take() -> None:
    """The lease where there is no deadline."""
    seen: list[timedelta] = []
    app, _ = queued_app(lambda w: w.then(a_step("x", lambda v, ctx: seen.append(ctx.remaining_time()))))
    app.workflow("flow").create_run("r-1").start(1)
    app.look(RUN, deadline=app.clock.now() + 10 * SECOND)
    started(a_workflow(lambda w: w.then(a_step("x", lambda v, ctx: seen.append(ctx.remaining_time())))))
    assert [10 * SECOND, Pace().lease] == seen


def test_an_output_too_large_for_the_run_fails_it() -> None:
    """Each step's output fits, all of them together do not."""
    large = a_step("x", lambda _: "".join(map(str, range(60_000))))
    app = started(a_workflow(lambda w: w.then(large).map(lambda v: [v + "a", v])))
    done = app.run("r-1").result()
    assert ("failed", "PayloadTooLarge") == (done.status, done.error and done.error.type)


def test_the_sweeper_finds_what_nobody_looked_at() -> None:
    """A run whose hint was lost goes on."""
    app, queue = queued_app(lambda w: w.then(a_step("x")))
    app.workflow("flow").create_run("r-1").start(1)
    queue.pop_due(app.clock.now())
    assert 0 == app.sweep()
    cast("VirtualClock", app.clock).wait_until(NOW + HOUR)
    assert 1 == app.sweep()
    for hint in queue.pop_due(app.clock.now()):
        app.look(hint.run)
    assert ("success", 0) == (app.run("r-1").result().status, app.sweep())


async def start_resume_and_wait(app: App) -> tuple[str, str, Any]:
    """The verbs as a caller on an event loop uses them."""
    run = app.workflow("flow").create_run("r-1")
    first = await run.start_async(1)
    seen = await run.wait_async(SECOND)
    done = await run.resume_async(data=True)
    return first.status, seen.status, done.output


def test_the_verbs_have_twins_for_callers_on_an_event_loop() -> None:
    """One engine serves both."""
    import asyncio  # noqa: PLC0415  # as such a caller would

    app = an_app(a_workflow(lambda w: w.then(typed())))
    assert ("suspended", "suspended", True) == asyncio.run(start_resume_and_wait(app))
