"""Steps that run at most once: a worker that dies in one fails it, an outcome that is known may be tried again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from threading import Event
from typing import Any

import pytest

from flowcore import App, DefinitionError, StepContext, create_step
from flowcore.adapters.memory import MemoryQueue, MemoryStore
from flowcore.core.compat import conflict
from flowcore.core.evolve import fold
from flowcore.core.view import steps
from flowcore.errors import OutsideError
from flowcore.keys import RunRef
from flowcore.model import Outcome, RunStatus
from flowcore.pace import Pace
from flowcore.ports import RecordMoved
from flowcore.testing import Fault, FaultyStore, LocalApp, VirtualClock, WorkerDied
from flowcore.testing.faults import WRITES, Call, Script, at_call
from flowcore.testing.invariants import WatchedStore
from tests.builders import NOW, a_graph, a_record, a_run, a_started, a_step, a_workflow, an_app, pass_time

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
RUN = RunRef("default", "r-1")
ONCE: dict[str, Any] = {"semantics": "at_most_once"}


class Calls:
    """A step's function that counts; it does what it is told at each call."""

    def __init__(self, *acts: Callable[[StepContext[Any, Any]], Any]) -> None:
        self.acts = acts
        self.attempts: list[int] = []

    def __call__(self, value: Any, ctx: StepContext[Any, Any]) -> Any:
        """Count, and do what is next."""
        self.attempts.append(ctx.attempt)
        return self.acts[len(self.attempts) - 1](ctx) if self.acts else value


def _raises(ctx: StepContext[Any, Any]) -> Any:
    raise ValueError("no")


def _dies(ctx: StepContext[Any, Any]) -> Any:
    raise WorkerDied("in the step")


def _asks(ctx: StepContext[Any, Any]) -> Any:
    ctx.suspend({"sure": True})


def _careful(execute: Any, **options: Any) -> Any:
    return a_workflow(lambda w: w.then(a_step("a")).then(a_step("pay", execute, **ONCE, **options)).then(a_step("b")))


def _writes(script: Script) -> tuple[Calls, LocalApp]:
    calls, store = Calls(), WatchedStore(MemoryStore())
    wild: Any = FaultyStore(store, script)
    app = LocalApp(App(_careful(calls)), store=wild, pace=Pace(lease=MINUTE))
    for _ in range(5):
        try:
            app.workflow("flow").create_run("r-1").start(1)
            break
        except (WorkerDied, OutsideError):
            app.advance(hours=1)
    for _ in range(5):
        try:
            app.advance(hours=1)
        except (WorkerDied, OutsideError):
            continue
    store.audit(RUN)
    return calls, app


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("at", range(1, 8))
def test_it_never_runs_twice(at: int, fault: Fault) -> None:
    """Whatever happens at whichever write: it ran once and all is well, or it may have run and the run says so."""
    calls, app = _writes(at_call(at, fault, verbs=WRITES))
    result = app.run("r-1").result()
    assert calls.attempts in ([], [1])
    if result.status == "success":
        assert [1] == calls.attempts
    else:
        assert ("failed", "MayHaveRun") == (result.status, result.error and result.error.type)
        assert "travel in time" in (result.error.message if result.error else "")


def test_a_crash_in_it_fails_it_and_one_elsewhere_does_not() -> None:
    """Of the seven writes two can leave it in doubt: that it begins, and its outcome."""
    doubtful = []
    for at in range(1, 7):
        for fault in Fault:
            _, app = _writes(at_call(at, fault, verbs=WRITES))
            if app.run("r-1").result().status == "failed":
                doubtful.append((at, fault))
    begun = {(3, Fault.DIES_AFTER), (3, Fault.REPLY_LOST)}
    unheard = {(4, Fault.DIES_BEFORE), (4, Fault.FAILS), (4, Fault.THROTTLED)}
    assert begun | unheard == set(doubtful)


@pytest.mark.parametrize(
    ("options", "workflow_retries", "calls"),
    [({"retries": 2}, 0, [1, 2, 3]), ({}, 2, [1]), ({"retries": 0}, 2, [1])],
    ids=["its own", "of the workflow", "its own none"],
)
def test_an_exception_is_retried_only_as_the_step_itself_says(
    options: dict[str, Any], workflow_retries: int, calls: list[int]
) -> None:
    """A failure is a known outcome; but the workflow's usual number of tries was not meant for such a step."""
    act = Calls(_raises, _raises, _raises)
    step = a_step("pay", act, backoff=HOUR, **ONCE, **options)
    app = an_app(a_workflow(lambda w: w.then(step), retries=workflow_retries))
    app.workflow("flow").create_run("r-1").start(1)
    pass_time(app, 10 * HOUR)
    assert ("failed", calls) == (app.run("r-1").result().status, act.attempts)


def test_a_crash_in_a_retry_is_in_doubt_as_well() -> None:
    """Each try is written down before it begins."""
    act = Calls(_raises, lambda ctx: 1, lambda ctx: 1)
    step = a_step("pay", act, backoff=HOUR, retries=5, **ONCE)
    app = LocalApp(App(a_workflow(lambda w: w.then(step))))
    app.workflow("flow").create_run("r-1").start(1)
    app.crash_after("pay")  # the next thing that is written about it: that its second try begins
    app.advance(hours=5)
    result = app.run("r-1").result()
    assert ([1], "MayHaveRun") == (act.attempts, result.error and result.error.type)


def test_an_answer_begins_it_again_with_what_it_needs() -> None:
    """The question was a known outcome; the second pass is written down like the first and sees the answer."""
    act = Calls(_asks, lambda ctx: [ctx.resume_data, ctx.suspend_data, ctx.attempt])
    app = an_app(a_workflow(lambda w: w.then(a_step("pay", act, **ONCE))))
    assert "suspended" == app.workflow("flow").create_run("r-1").start(1).status
    assert ["yes", {"sure": True}, 1] == app.resume("r-1", "yes").output


def test_a_late_try_is_not_retried() -> None:
    """Its thread may still be at work; a value for that case is still used."""
    clock = VirtualClock()

    def slow(ctx: StepContext[Any, Any]) -> Any:
        clock.wait_until(clock.now() + HOUR)

    act = Calls(slow, slow, slow)
    step = a_step("pay", act, timeout=MINUTE, retries=2, backoff=MINUTE, on_timeout="late", **ONCE)
    app = LocalApp(App(a_workflow(lambda w: w.then(step))), clock=clock)
    result = app.workflow("flow").create_run("r-1").start(1)
    assert ("success", "late", [1]) == (result.status, result.output, act.attempts)


@pytest.mark.parametrize("parallel", [False, True])
def test_it_costs_one_write_more(parallel: bool) -> None:
    """The record that it begins, in front of its outcome; also in threads."""
    seen: list[tuple[str, Outcome]] = []

    class Noting(MemoryStore):
        def commit(self, run: Any, incarnation: int, record: Any, prior: Any) -> Any:
            seen.append((record.key, record.outcome))
            return super().commit(run, incarnation, record, prior)

    step = a_step("pay", **ONCE)
    flow = a_workflow(lambda w: w.parallel(step, a_step("b")) if parallel else w.then(step))
    LocalApp(App(flow), store=Noting()).workflow("flow").create_run("r-1").start(1)
    assert [("pay", Outcome.START), ("pay", Outcome.OK)] == [row for row in seen if row[0] == "pay"]


def _outrun(epoch: int) -> tuple[Calls, LocalApp]:
    """Another worker of that epoch has begun the step just before this one, of epoch 1, writes that it begins."""

    class Outrun(MemoryStore):
        def commit(self, run: Any, incarnation: int, record: Any, prior: Any) -> Any:
            if record.outcome is Outcome.START:
                other = a_record("pay", Outcome.START, seq=record.seq, epoch=epoch, attempt=0)
                super().commit(run, incarnation, other, prior)
                return RecordMoved(other)
            return super().commit(run, incarnation, record, prior)

    calls = Calls()
    app = LocalApp(App(_careful(calls)), store=Outrun(), pace=Pace(lease=MINUTE))
    app.workflow("flow").create_run("r-1").start(1)
    return calls, app


def test_whoever_finds_it_begun_by_a_later_worker_leaves_it_alone() -> None:
    """It is under way there; this worker is the one that is given up."""
    calls, app = _outrun(epoch=7)
    assert ([], "running") == (calls.attempts, app.run("r-1").result().status)


def test_whoever_finds_it_begun_by_a_straggler_does_not_begin_it() -> None:
    """The straggler may be at work on it."""
    calls, app = _outrun(epoch=0)
    result = app.run("r-1").result()
    assert ([], "MayHaveRun") == (calls.attempts, result.error and result.error.type)


def test_a_step_that_has_begun_fits_a_step() -> None:
    """A deploy between the crash and the next worker changes nothing; a container of that id would."""
    begun = a_run(a_record("pay", Outcome.START, attempt=0))
    assert conflict(a_graph(lambda w: w.then(a_step("pay"))), begun) is None
    nested = a_workflow(lambda w: w.then(a_step("x")), "pay")
    assert "another kind" in str(conflict(a_graph(lambda w: w.then(nested)), begun))
    assert "another kind" in str(conflict(a_graph(lambda w: w.then(a_step("pay"))), a_run(a_started("pay"))))


def test_a_begun_step_shows_as_running() -> None:
    """Whoever looks meanwhile sees it at work."""
    graph = a_graph(lambda w: w.then(a_step("pay", **ONCE)))
    shown = steps(graph, fold(a_run(status=RunStatus.RUNNING).head, [a_record("pay", Outcome.START)]))
    assert ("running", NOW) == (shown["pay"].status, shown["pay"].started_at)


def test_other_semantics_are_refused() -> None:
    """The author learns which there are."""
    with pytest.raises(DefinitionError, match=r"exactly_once.* is none of at_least_once, at_most_once"):
        create_step(id="pay", execute=lambda value: value, semantics="exactly_once")


def test_a_worker_that_froze_before_it_read_does_not_begin_what_its_successor_has_begun() -> None:
    """Its lease ran out between its claim and its reading, which shows what whoever holds the run now has begun."""
    calls, store, clock = Calls(_dies, _dies), WatchedStore(MemoryStore()), VirtualClock()
    flow, overtaken = _careful(calls), list[bool]()
    sound = LocalApp(App(flow), store=store, clock=clock, pace=Pace(lease=MINUTE))

    def script(call: Call) -> None:
        if call.verb == "load" and not overtaken:
            overtaken.append(True)
            clock.forward(hours=1)
            with suppress(WorkerDied):
                sound.look(RUN)

    wild: Any = FaultyStore(store, script)
    frozen = LocalApp(App(flow), store=wild, clock=clock, pace=Pace(lease=MINUTE), queue=MemoryQueue(clock))
    frozen.workflow("flow").create_run("r-1").start(1)
    frozen.look(RUN)
    assert ([True], [1]) == (overtaken, calls.attempts)
    sound.advance(hours=1)
    error = sound.run("r-1").result().error
    assert ("MayHaveRun", [1]) == (error and error.type, calls.attempts)


@pytest.mark.parametrize("fails_first", [False, True], ids=["its first try", "its second try"])
@pytest.mark.parametrize("semantics", ["at_least_once", "at_most_once"])
def test_a_step_under_way_is_not_called_again_where_the_run_is_loaded_meanwhile(
    semantics: str, *, fails_first: bool
) -> None:
    """Somebody answers while what the question lies in fails; what the other step then comes to is its outcome."""
    asked, loaded, tries = Event(), Event(), list[int]()

    def ask(value: Any, ctx: StepContext[Any, Any]) -> Any:
        return ctx.resume_data or ctx.suspend()

    def boom(value: Any) -> Any:
        assert asked.wait(30)
        raise ValueError("no")

    def charge(value: Any, ctx: StepContext[Any, Any]) -> Any:
        tries.append(ctx.attempt)
        if fails_first and ctx.attempt == 1:
            raise ValueError("not yet")
        assert loaded.wait(30)
        return value

    def script(call: Call) -> None:
        if call.verb == "commit" and call.record is not None and call.record.outcome is Outcome.SUSP:
            asked.set()
        if call.verb == "commit" and call.record is not None and call.record.key == "inner/boom":
            other.run("r-1").resume("yes")
        if call.verb == "load" and asked.is_set():
            loaded.set()

    inner = a_workflow(lambda w: w.parallel(a_step("ask", ask, resume=Any), a_step("boom", boom)), "inner")
    step: Any = a_step("charge", charge, semantics=semantics, retries=1, backoff=timedelta(0))
    flow, store, clock = a_workflow(lambda w: w.parallel(inner, step)), WatchedStore(MemoryStore()), VirtualClock()
    other = LocalApp(App(flow), store=store, clock=clock, queue=MemoryQueue(clock))
    wild: Any = FaultyStore(store, script)
    result = LocalApp(App(flow), store=wild, clock=clock).workflow("flow").create_run("r-1").start(1)
    assert ([1, 2] if fails_first else [1]) == tries
    assert ("failed", "success") == (result.status, result.steps["charge"].status)
    store.audit(RUN)
