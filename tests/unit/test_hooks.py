"""Hooks: once per outcome, whoever dies, whoever races, however often a hint is delivered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest

from flowcore import App, RunResult, StepContext, Wait, create_step, step, workflow
from flowcore.adapters.memory import MemoryQueue, MemoryScheduler, MemoryStore
from flowcore.errors import ConflictError, OutsideError
from flowcore.hooks import StartRecord
from flowcore.keys import RunRef
from flowcore.model import RunStatus
from flowcore.testing import LocalApp, VirtualClock
from flowcore.testing.faults import Call, Fault, FaultyStore, WorkerDied, at_call
from flowcore.testing.invariants import WatchedStore

TOLD: list[tuple[str, str]] = []
SEEN: list[Any] = []
REF = RunRef("default", "r")


@pytest.fixture(autouse=True)
def _nothing_told() -> None:
    TOLD.clear()
    SEEN.clear()


def note(name: str) -> Callable[[Any], None]:
    """A hook that remembers under which name it was called, and with what."""

    def hook(told: Any) -> None:
        TOLD.append((name, getattr(told, "status", "")))
        SEEN.append(told)

    return hook


ALL: dict[str, Any] = {name: note(name) for name in ("on_start", "on_suspend", "on_finish", "on_error")}


@step
def work(value: int, ctx: StepContext) -> int:
    """Doubles what is not negative."""
    TOLD.append(("work", ""))
    ctx.set_state({"seen": value})
    if value < 0:
        raise ValueError("negative")
    return value * 2


@step
def ask(value: int, ctx: StepContext[int]) -> int:
    """Adds what somebody answers, within two days."""
    if ctx.resume_data is None and not ctx.timed_out:
        ctx.suspend(timeout=timedelta(days=2))
    return value + (ctx.resume_data or 0)


def plain(**hooks: Any) -> Any:
    """One step."""
    return workflow("plain", input=int, output=int, **hooks).then(work).commit()


def asking(**hooks: Any) -> Any:
    """One question."""
    return workflow("asking", input=int, output=int, **hooks).then(ask).commit()


def served(*flows: Any, **options: Any) -> LocalApp:
    """A LocalApp on a store that watches every write."""
    return LocalApp(App(*flows), store=WatchedStore(MemoryStore()), scheduler=MemoryScheduler(), **options)


def told(name: str) -> list[str]:
    """The statuses with which a hook was called."""
    return [status for told, status in TOLD if told == name]


def test_on_start_comes_before_the_first_step_with_what_the_run_begins_with() -> None:
    """Its record says who, about whom and with what."""
    run = served(plain(**ALL)).workflow("plain").create_run("r", resource_id="ada")
    run.start(3, state={"n": 1}, request_context={"locale": "de"})

    assert ["on_start", "work", "on_finish"] == [name for name, _ in TOLD]
    expected = StartRecord(
        run_id="r",
        workflow_id="plain",
        input=3,
        resource_id="ada",
        state={"n": 1},
        request_context={"locale": "de"},
    )
    assert expected == SEEN[0]


def test_on_start_that_raises_refuses_the_start_and_writes_nothing() -> None:
    """The run is startable as if nothing had been asked."""
    fits = iter([False, True])

    def moody(_: StartRecord) -> None:
        if not next(fits):
            raise PermissionError("not today")

    app = served(plain(on_start=moody))
    run = app.workflow("plain").create_run("r")
    with pytest.raises(PermissionError, match="not today"):
        run.start(3)
    assert app.store.peek(REF) is None
    assert 6 == run.start(3).output


def test_on_start_is_not_called_by_a_repeated_start_a_resume_a_restart_or_time_travel() -> None:
    """Only what begins a run for the first time begins it."""
    run = served(asking(**ALL)).workflow("asking").create_run("r")
    run.start(1)
    assert run.start(1).replayed
    run.resume(2)
    run.restart()
    run.time_travel("ask")
    run.fork("ask", run_id="other")

    assert 1 == len(told("on_start"))


def test_on_finish_is_told_a_success_with_its_result() -> None:
    """The run as it stands at its end: output, state, input, request context."""
    run = served(plain(**ALL)).workflow("plain").create_run("r", resource_id="ada")
    result = run.start(3, request_context={"locale": "de"})

    seen = SEEN[-1]
    assert isinstance(seen, RunResult)
    assert ("success", 6, {"seen": 3}, 3) == (seen.status, seen.output, seen.state, seen.input)
    assert ("r", "plain", "ada", {"locale": "de"}) == (
        *(seen.run_id, seen.workflow_id, seen.resource_id, seen.request_context),
    )
    assert ("success", 6) == (result.status, result.output)


def test_a_failure_is_told_to_both_hooks() -> None:
    """With the error; ``on_error`` comes first."""
    result = served(plain(**ALL)).workflow("plain").create_run("r").start(-1)

    assert [("on_error", "failed"), ("on_finish", "failed")] == TOLD[-2:]
    assert "negative" == SEEN[-1].error.message
    assert "failed" == result.status


def test_on_error_is_not_told_a_success_a_suspension_or_a_cancel() -> None:
    """Only a failure."""
    app = served(plain(**ALL), asking(**ALL))
    app.workflow("plain").create_run("a").start(1)
    run = app.workflow("asking").create_run("b")
    run.start(1)
    run.cancel()

    assert [] == told("on_error")


def test_each_suspension_is_told_and_no_suspension_is_an_end() -> None:
    """One call each time the run becomes suspended; its waits are open then."""
    twice = workflow("twice", input=int, output=int, **ALL).then(ask).then(ask, id="again").commit()
    run = served(twice).workflow("twice").create_run("r")
    run.start(1)
    assert ["suspended"] == told("on_suspend")
    assert [["ask"]] == SEEN[-1].suspended
    run.resume(1)
    assert ["suspended"] * 2 == told("on_suspend")
    assert [["again"]] == SEEN[-1].suspended
    assert [] == told("on_finish")
    run.resume(1)
    assert ["success"] == told("on_finish")


def mail(wait: Wait[Any]) -> None:
    """Tells whoever must answer; not the first time where that shall fail."""
    TOLD.append(("mail", str(wait.reminder)))
    if wait.payload == "unreachable" and len(told("mail")) == 1:
        raise ConnectionError("no mail today")


@step
def remind(payload: str, ctx: StepContext[bool, str]) -> str:
    """Asks, and asks again each day."""
    if ctx.resume_data is None:
        ctx.suspend(payload, notify=mail, remind=[timedelta(days=1), timedelta(days=2)])
    return payload


def reminding(store: Any = None) -> LocalApp:
    """A question with reminders beside another one."""
    inner = workflow("inner", input=str, output=str).then(remind, id="late").then(remind, id="later").commit()
    flow = workflow("reminding", input=str, **ALL).parallel(remind, inner).commit()
    options = {} if store is None else {"store": store}
    return LocalApp(App(flow), **{"store": WatchedStore(MemoryStore()), **options})


@pytest.mark.parametrize("payload", ["reachable", "unreachable"])
def test_a_reminder_of_a_suspension_is_no_other_outcome(payload: str) -> None:
    """Nor is a call of ``notify`` that is repeated because it failed, nor a pause; an answer to one of two is."""
    app = reminding()
    run: Any = app.workflow("reminding").create_run("r")
    run.start(payload)
    app.advance(days=3)
    run.pause()
    run.unpause()
    assert 6 + (payload == "unreachable") == len(told("mail"))
    assert ["suspended"] == told("on_suspend")
    run.resume(True, step="inner.late")
    assert ["suspended"] * 2 == told("on_suspend")
    app.advance(days=3)
    assert ["suspended"] * 2 == told("on_suspend")
    run.resume(True, step="remind")
    assert ["suspended"] * 3 == told("on_suspend")
    assert [["inner", "later"]] == SEEN[-1].suspended
    run.time_travel("inner.late")
    assert ["suspended"] * 4 == told("on_suspend")


@pytest.mark.parametrize("fault", list(Fault))
def test_a_suspension_is_told_though_the_worker_dies_or_a_reminder_comes_first(fault: Fault) -> None:
    """What is not known to have been told is told with the next outcome."""
    struck: list[str] = []

    def strike(call: Call) -> Fault | None:
        is_emptied = call.verb == "move" and not struck
        struck.extend([call.verb] if is_emptied else [])
        return fault if is_emptied else None

    memory = WatchedStore(MemoryStore())
    app = reminding(FaultyStore(memory, strike))
    with suppress(WorkerDied, OutsideError):
        app.workflow("reminding").create_run("r").start("reachable")
    app.advance(days=3)
    is_written = fault in (Fault.DIES_AFTER, Fault.REPLY_LOST, Fault.CONFLICT)
    assert ["suspended"] * (1 if is_written else 2) == told("on_suspend")


def test_a_timeout_finds_its_way_although_a_hook_was_owed() -> None:
    """The deadline of a suspension is still the run's wake."""
    app = served(asking(**ALL))
    run = app.workflow("asking").create_run("r")
    run.start(1)
    app.advance(days=2)

    assert "success" == run.result().status
    assert (["suspended"], ["success"]) == (told("on_suspend"), told("on_finish"))


def test_a_cancel_is_told_once() -> None:
    """A second cancel finds an ended run."""
    app = served(asking(**ALL))
    run = app.workflow("asking").create_run("r")
    run.start(1)

    assert "canceled" == run.cancel().status
    run.cancel()
    app.advance(days=3)

    assert ["canceled"] == told("on_finish")


def test_a_cancel_is_told_by_a_worker_where_there_are_workers() -> None:
    """Whoever cancels need not wait for a hook."""
    clock = VirtualClock()
    app = served(asking(**ALL), clock=clock, queue=MemoryQueue(clock))
    run = app.workflow("asking").create_run("r")
    run.start(1)
    app.run_until_idle()
    run.cancel()
    assert [] == told("on_finish")
    app.run_until_idle()

    assert ["canceled"] == told("on_finish")


def test_a_cancel_of_a_run_without_hooks_is_a_plain_one_beside_hooked_workflows() -> None:
    """Nothing is owed."""
    app = served(asking(**ALL), workflow("other", input=int, output=int).then(ask).commit())
    run = app.workflow("other").create_run("r")
    run.start(1)

    assert "canceled" == run.cancel().status
    head = app.store.peek(REF)
    assert head is not None
    assert ((), None) == (head.outbox, head.due)


def test_a_run_that_moves_while_it_is_canceled_is_looked_at_again() -> None:
    """The cancel counts in the end, and is told once."""
    memory = MemoryStore()
    app = LocalApp(App(asking(**ALL)), store=memory)
    app.workflow("asking").create_run("r").start(1)

    def answered_before_it(call: Call) -> Fault | None:
        if call.verb == "move" and next(moves) == 0:
            app.run("r").pause()
        return None

    moves = count()
    other = App(asking(**ALL), store=FaultyStore(memory, answered_before_it), clock=app.clock)

    assert "canceled" == other.run("r").cancel().status
    assert ["canceled"] == told("on_finish")


def test_async_hooks_are_awaited() -> None:
    """Before start() returns."""

    async def hook(result: Any) -> None:
        TOLD.append(("async", getattr(result, "status", "")))

    served(plain(on_start=hook, on_finish=hook)).workflow("plain").create_run("r").start(1)

    assert ["", "success"] == told("async")


@pytest.mark.parametrize("error", [RuntimeError("mail is down"), SystemExit(1)])
def test_what_a_hook_raises_is_logged_and_changes_nothing(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Not the result, not the other hook, and nobody tries again."""

    def broken(_: Any) -> None:
        TOLD.append(("broken", ""))
        raise error

    app = served(plain(on_error=broken, on_finish=note("on_finish")))
    with caplog.at_level(logging.ERROR, "flowcore.hooks"):
        result = app.workflow("plain").create_run("r").start(-1)
    app.advance(hours=2)

    assert ("failed", "negative") == (result.status, result.error and result.error.message)
    assert (1, ["failed"]) == (len(told("broken")), told("on_finish"))
    assert ["a hook failed"] == [record.message for record in caplog.records if record.name == "flowcore.hooks"]


def test_hooks_of_nested_workflows_are_not_called() -> None:
    """Only the run's own."""
    child = workflow("child", input=int, output=int, **ALL).then(work).commit()
    outer = workflow("outer", input=int, output=int, on_finish=note("outer")).then(child).commit()
    served(outer).workflow("outer").create_run("r").start(1)

    assert [("work", ""), ("outer", "success")] == TOLD
    assert "child.work" in SEEN[-1].steps


def test_a_paused_run_is_no_outcome() -> None:
    """Whoever pauses it knows."""
    app = served(asking(**ALL))
    run = app.workflow("asking").create_run("r")
    run.start(1)
    TOLD.clear()
    run.pause()

    assert [] == TOLD


def test_redelivered_hints_tell_nothing_again() -> None:
    """Neither after the end nor at a suspension."""
    app = served(plain(**ALL), asking(**ALL))
    app.workflow("plain").create_run("a").start(1)
    app.workflow("asking").create_run("b").start(1)
    for _ in range(3):
        app.deliver("a", twice=True)
        app.deliver("b", twice=True)
        app.advance(minutes=20)

    assert (["success"], ["suspended"]) == (told("on_finish"), told("on_suspend"))


def test_a_hint_that_comes_while_a_hook_runs_finds_nothing_to_do() -> None:
    """Who wrote the outcome holds it."""
    app: LocalApp

    def busy(result: Any) -> None:
        note("on_finish")(result)
        app.deliver("r", twice=True)

    app = served(plain(on_finish=busy))
    app.workflow("plain").create_run("r").start(1)

    assert ["success"] == told("on_finish")


def test_an_answer_that_comes_while_its_suspension_is_told_counts() -> None:
    """A hook may answer at once; emptying the outbox then is nobody's business any more."""
    app: LocalApp

    def eager(_: Any) -> None:
        app.resume("r", 5)

    app = served(asking(on_suspend=eager, on_finish=note("on_finish")))
    app.workflow("asking").create_run("r").start(1)

    assert 6 == app.run("r").result().output
    assert ["success"] == told("on_finish")


def writes_of_an_outcome(value: int) -> Iterator[tuple[int, Fault]]:
    """Every write of a run of ``plain``, with every fault."""
    calls: list[str] = []
    store = FaultyStore(MemoryStore(), lambda call: calls.append(call.verb))
    App(plain(**ALL), store=store, clock=VirtualClock()).workflow("plain").create_run("r").start(value)
    writes = [verb for verb in calls if verb in ("start", "commit", "release", "move")]
    for number in range(2, len(writes) + 1):
        for fault in Fault:
            yield number, fault


@pytest.mark.parametrize(("number", "fault"), list(writes_of_an_outcome(-1)))
def test_an_outcome_is_told_whatever_write_around_it_is_struck(number: int, fault: Fault) -> None:
    """At least once; more than once only when the last write, which empties the outbox, did not happen."""
    memory, clock = WatchedStore(MemoryStore()), VirtualClock()
    doomed = App(plain(**ALL), store=FaultyStore(memory, at_call(number, fault)), clock=clock)
    with suppress(WorkerDied, OutsideError):
        doomed.workflow("plain").create_run("r").start(-1)
    app = LocalApp(App(plain(**ALL)), store=memory, scheduler=MemoryScheduler(), clock=clock)
    app.advance(hours=1)

    cleared = number == 4 and fault in (Fault.DIES_AFTER, Fault.REPLY_LOST, Fault.CONFLICT)
    expected = 2 if number == 4 and not cleared else 1
    assert ["failed"] * expected == told("on_error") == told("on_finish")
    head = memory.peek(REF)
    assert head is not None
    assert (RunStatus.FAILED, (), None) == (head.status, head.outbox, head.due)


def test_a_worker_that_dies_while_a_hook_runs_has_it_called_again_after_its_lease() -> None:
    """Not before: until then it may still be at it."""

    def deadly(_: Any) -> None:
        TOLD.append(("deadly", ""))
        if len(told("deadly")) == 1:
            raise WorkerDied("in the hook")

    app = served(plain(on_finish=deadly))
    app.workflow("plain").create_run("r").start(1)
    app.deliver("r")
    app.advance(minutes=15)
    assert 1 == len(told("deadly"))
    app.advance(minutes=2)
    assert 2 == len(told("deadly"))
    app.advance(hours=2)
    assert 2 == len(told("deadly"))


def test_a_worker_that_dies_before_the_outcome_leaves_it_to_the_next_one() -> None:
    """A step's committed outcome is not yet the run's."""
    app = served(plain(**ALL))
    app.crash_after("work")
    app.workflow("plain").create_run("r").start(1)
    assert [] == told("on_finish")
    app.advance(minutes=16)

    assert ["success"] == told("on_finish")


def owing(app: LocalApp, value: int = 1, *, workflow: str = "plain") -> None:
    """A run that rests, ended or asking, under a worker that died before it told anybody."""

    def dead(call: Call) -> Fault | None:
        return Fault.DIES_AFTER if call.verb == "release" else None

    doomed = App(*app.workflows.values(), store=FaultyStore(app.store, dead), clock=app.clock)
    with pytest.raises(WorkerDied):
        doomed.workflow(workflow).create_run("r").start(value)


def test_of_two_workers_that_race_for_one_outbox_one_tells() -> None:
    """Both saw it overdue; the write that takes it over is won once."""
    app = served(plain(**ALL))
    owing(app)
    app.clock.forward(minutes=16)

    def the_other_was_faster(call: Call) -> Fault | None:
        if call.verb == "move" and next(moves) == 0:
            app.look(REF)
        return None

    moves = count()
    slow = App(plain(**ALL), store=FaultyStore(app.store, the_other_was_faster), clock=app.clock)
    slow.look(REF)

    assert ["success"] == told("on_finish")


def test_a_worker_that_thaws_after_its_lease_tells_nothing() -> None:
    """Somebody else may be at it; the outbox is left to whoever looks next."""
    app = served(plain(**ALL))

    def frozen(call: Call) -> Fault | None:
        if call.verb == "release":
            app.clock.forward(hours=1)
        return None

    asleep = App(plain(**ALL), store=FaultyStore(app.store, frozen), clock=app.clock)
    app.clock.forward(hours=-1)
    result = asleep.workflow("plain").create_run("r").start(1)
    assert ("success", []) == (result.status, told("on_finish"))
    app.advance(minutes=2)

    assert ["success"] == told("on_finish")


def test_a_workflow_that_is_not_served_here_keeps_its_hooks_for_those_who_serve_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A deploy without it loses nothing, and nothing is overdue: whoever looked is waited for as if he called them."""
    app = served(plain(**ALL))
    owing(app)
    app.clock.forward(minutes=16)
    other = App(asking(), store=app.store, clock=app.clock)
    with caplog.at_level(logging.WARNING, "flowcore.hooks"):
        other.look(REF)
        other.look(REF)
    assert ["hooks of a workflow that is not served here"] == [record.message for record in caplog.records]
    assert [0, []] == [other.overdue(), told("on_finish")]
    app.advance(minutes=16)

    assert ["success"] == told("on_finish")


def test_a_hook_that_was_taken_out_of_the_workflow_is_owed_no_more() -> None:
    """There is nothing to call; the sweeper can forget the run."""
    app = served(plain(**ALL))
    owing(app)
    app.clock.forward(minutes=16)
    App(plain(), store=app.store, clock=app.clock).look(REF)

    head = app.store.peek(REF)
    assert head is not None
    assert ((), None, []) == (head.outbox, head.due, told("on_finish"))


def test_a_run_that_is_deleted_before_it_was_told_is_gone() -> None:
    """Nobody stumbles over it."""
    app = served(plain(**ALL))
    owing(app)
    app.clock.forward(minutes=16)

    def gone(call: Call) -> Fault | None:
        if call.verb == "move":
            app.store.delete(REF)
        return None

    head = App(plain(**ALL), store=FaultyStore(app.store, gone), clock=app.clock).look(REF)
    assert head is not None
    assert [] == told("on_finish")


def test_time_travel_begins_a_life_with_an_end_of_its_own() -> None:
    """Told again, because it is another outcome."""
    run = served(plain(**ALL)).workflow("plain").create_run("r")
    run.start(1)
    run.time_travel("work")

    assert ["success"] * 2 == told("on_finish")


@pytest.mark.parametrize("verb", ["redrive", "time_travel"])
def test_an_end_is_told_before_a_new_life_begins(verb: str) -> None:
    """Whoever was to tell it died: by the caller once nobody else may be at it, and until then he is refused."""
    app = served(plain(**ALL))
    owing(app, -1)
    standing = app.engine.read(REF)
    run: Any = app.run("r")
    begins = run.redrive if verb == "redrive" else partial(run.time_travel, "work")
    with pytest.raises(ConflictError, match="on_error, on_finish"):
        begins()
    assert (standing, []) == (app.engine.read(REF), told("on_error"))
    app.clock.forward(minutes=16)

    assert "failed" == begins().status
    assert [["failed"] * 2] * 2 == [told("on_error"), told("on_finish")]


def test_a_new_life_does_not_wait_for_ever_for_hooks_that_kill_their_workers() -> None:
    """With workers of its own the operator's process calls none."""

    def kills(result: RunResult[Any]) -> None:
        ended.append(result.status)
        raise WorkerDied

    ended: list[str] = []
    clock = VirtualClock()
    work = create_step(id="work", execute=lambda value: value)
    flow = workflow("plain", input=int, on_finish=kills).then(work).commit()
    app = served(flow, clock=clock, queue=MemoryQueue(clock))
    run = app.workflow("plain").create_run("r")
    run.start(1)
    for died in (1, 2):
        while len(ended) < died:
            with suppress(WorkerDied):
                app.advance(minutes=1)
        with pytest.raises(ConflictError, match="on_finish"):
            run.time_travel("work")
    while len(ended) < 3:
        with suppress(WorkerDied):
            app.advance(minutes=1)
    assert "running" == run.time_travel("work").status


@pytest.mark.parametrize("is_async", [False, True])
def test_a_hook_may_have_its_own_run_go_on(is_async: bool) -> None:
    """Nobody else has to be told first: it is what is being told."""
    failed: list[str] = []

    def again(result: RunResult[Any]) -> None:
        failed.append(result.status)
        assert "success" == app.run(result.run_id).redrive().status

    async def on_loop(result: RunResult[Any]) -> None:
        again(result)

    def once(value: int) -> int:
        if not failed:
            raise ValueError(value)
        return value

    work = create_step(id="work", execute=once)
    app = served(workflow("plain", input=int, on_error=on_loop if is_async else again).then(work).commit())
    run = app.workflow("plain").create_run("r")
    run.start(1)
    assert (["failed"], "success") == (failed, run.result().status)


def test_an_end_is_told_by_a_worker_where_there_are_workers() -> None:
    """The operator has one look at the run, and comes again."""
    clock = VirtualClock()
    app = served(plain(**ALL), clock=clock, queue=MemoryQueue(clock))
    run = app.workflow("plain").create_run("r")
    run.start(1)
    run.cancel()
    with pytest.raises(ConflictError, match="on_finish"):
        run.time_travel("work", input=2)
    assert [] == told("on_finish")
    app.run_until_idle()
    assert ["canceled"] == told("on_finish")

    assert "running" == run.time_travel("work", input=2).status


def test_a_suspension_that_nobody_was_told_of_keeps_no_new_life_from_beginning() -> None:
    """It is no end, and what is asked anew is told."""
    app = served(asking(**ALL))
    owing(app, workflow="asking")
    app.run("r").time_travel("ask")

    assert ["suspended"] == told("on_suspend")


@pytest.mark.parametrize("hooks", [{}, {"on_suspend": note("on_suspend")}, {"on_error": note("on_error")}])
def test_a_run_writes_nothing_for_hooks_that_are_not_called(hooks: dict[str, Any]) -> None:
    """Start, one step, the end: three writes, and not a read."""
    calls: list[str] = []
    store = FaultyStore(MemoryStore(), lambda call: calls.append(call.verb))
    app = App(plain(**hooks), store=store, scheduler=MemoryScheduler())
    app.workflow("plain").create_run("r").start(1)

    assert ["start", "commit", "release"] == calls


def test_an_outcome_with_a_hook_costs_one_write_more() -> None:
    """The one that empties the outbox."""
    calls: list[str] = []
    store = FaultyStore(MemoryStore(), lambda call: calls.append(call.verb))
    App(plain(on_finish=note("on_finish")), store=store).workflow("plain").create_run("r").start(1)

    assert ["start", "commit", "release", "move"] == calls
