"""Ended runs expire: they count as gone at once and are removed later; a run that has not ended loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, DefinitionError, StepContext, step, workflow
from flowcore.adapters.memory import MemoryQueue, MemoryStore
from flowcore.authoring.workflow import Workflow
from flowcore.core.heads import removed
from flowcore.errors import RunNotFound, SettingsError
from flowcore.keys import RunRef
from flowcore.testing import LocalApp, VirtualClock
from flowcore.testing.faults import Fault, FaultyStore, WorkerDied, at_call
from flowcore.testing.invariants import WatchedStore

DAY = timedelta(days=1)
KEPT = 30 * DAY
MS = timedelta(milliseconds=1)
TOLD: list[str] = []


@step
def ask(number: int, ctx: StepContext[int]) -> int:
    """Adds what somebody answers."""
    if number < 0:
        raise ValueError(number)
    if ctx.resume_data is None:
        ctx.suspend()
    return number + ctx.resume_data


@step
def double(number: int) -> int:
    """Twice as much."""
    return 2 * number


def a_flow(id: str = "asking", **options: Any) -> Workflow[int, int]:
    """Doubles, then asks."""
    return workflow(id, input=int, output=int, **options).then(double).then(ask).commit()


def an_app(*flows: Workflow[int, int], retention: timedelta | None = KEPT, **ports: Any) -> LocalApp:
    """An App whose every write is watched."""
    store = ports.pop("store", None) or WatchedStore(MemoryStore())
    return LocalApp(App(*(flows or (a_flow(),)), retention=retention), store=store, **ports)


def items(app: LocalApp) -> list[Any]:
    """Everything that is stored."""
    store: Any = app.store
    while not isinstance(store, MemoryStore):
        store = store.inner
    return store.items()


def ended(app: LocalApp, id: str = "r", flow: str = "asking") -> None:
    """A run that has succeeded."""
    app.workflow(flow).create_run(id).start(1)
    app.resume(id, 1)


GONE: dict[str, Callable[[LocalApp], Any]] = {
    "result": lambda app: app.run("r").result(),
    "fields": lambda app: app.run("r").result(fields=["status"]),
    "waits": lambda app: app.run("r").result(fields=["waits"]),
    "wait": lambda app: app.run("r").wait(),
    "events": lambda app: app.run("r").events(),
    "resume": lambda app: app.resume("r", 1),
    "cancel": lambda app: app.cancel("r"),
    "delete": lambda app: app.run("r").delete(),
    "restart": lambda app: app.run("r").restart(),
    "time_travel": lambda app: app.run("r").time_travel("double"),
    "fork": lambda app: app.run("r").fork("double"),
}


@pytest.mark.parametrize("verb", GONE)
def test_an_expired_run_counts_as_gone_before_anybody_removed_it(verb: str) -> None:
    """A millisecond earlier it is there, whatever is asked."""
    app = an_app()
    ended(app)
    app.clock.wait_until(app.clock.now() + KEPT - MS)
    assert "success" == app.run("r").result().status
    app.clock.wait_until(app.clock.now() + MS)
    assert items(app)
    with pytest.raises(RunNotFound):
        GONE[verb](app)
    assert [] == app.list_runs().items
    assert 0 == sum(app.counts().values())


def test_an_expired_run_is_removed_with_all_it_holds() -> None:
    """By the sweeper, within minutes."""
    app = an_app()
    ended(app)
    app.advance(KEPT - MS)
    assert items(app)
    app.advance(minutes=2)
    assert [] == items(app)


def test_an_open_run_is_kept_however_old_it_is() -> None:
    """Retention counts from the end."""
    app = an_app()
    app.workflow("asking").create_run("r").start(1)
    app.advance(10 * KEPT)
    assert 3 == app.resume("r", 1).output
    app.advance(KEPT - MS)
    assert ["success", "success"] == [s.status for s in app.run("r").result().steps.values()]


@pytest.mark.parametrize("hooks", [{}, {"on_finish": lambda result: TOLD.append(result.status)}])
@pytest.mark.parametrize("queue", [True, False])
def test_failed_and_canceled_runs_expire_too(hooks: dict[str, Any], *, queue: bool) -> None:
    """Also when a hook is owed in between: it is told first."""
    TOLD.clear()
    clock = VirtualClock()
    app = an_app(a_flow(**hooks), clock=clock, queue=MemoryQueue(clock) if queue else None)
    app.workflow("asking").create_run("f").start(-1)
    app.workflow("asking").create_run("c").start(1)
    app.run_until_idle()
    app.cancel("c")
    app.run_until_idle()
    assert {"failed", "canceled"} == {run.status for run in app.list_runs()}
    assert sorted(TOLD) == (["canceled", "failed"] if hooks else [])
    app.advance(KEPT + timedelta(minutes=2))
    assert [] == items(app)


def test_without_retention_nothing_expires() -> None:
    """For ever."""
    app = an_app(retention=None)
    ended(app)
    app.advance(1000 * KEPT)
    assert "success" == app.run("r").result().status


def test_a_workflow_says_more_than_the_app() -> None:
    """Shorter or longer."""
    app = an_app(a_flow("short", retention=DAY), a_flow("long", retention=2 * KEPT), a_flow("plain"))
    for id in ("short", "long", "plain"):
        ended(app, id, id)
    app.advance(2 * DAY)
    assert ["plain", "long"] == [run.run_id for run in app.list_runs()]
    app.advance(KEPT)
    assert ["long"] == [run.run_id for run in app.list_runs()]


def test_a_deployment_says_more_than_the_app() -> None:
    """But not more than a workflow."""
    app = App(a_flow(), retention=KEPT)
    assert DAY == app.on(store=MemoryStore(), retention=DAY).engine.retention
    assert KEPT == app.on(store=MemoryStore()).engine.retention


def test_retention_is_no_part_of_the_definition() -> None:
    """Changing it blocks no run."""
    assert a_flow().compiled.fingerprint == a_flow(retention=DAY).compiled.fingerprint


@pytest.mark.parametrize("retention", [timedelta(0), -DAY, timedelta.max])
def test_a_retention_of_no_time_or_without_end_is_refused(retention: timedelta) -> None:
    """Nobody could read what came out, or its end could not be written; what to do is said."""
    with pytest.raises(DefinitionError, match="retention= must be positive, at most a century, or left out"):
        a_flow(retention=retention)
    with pytest.raises(SettingsError, match="not positive, or above a century; leave it out to keep runs for ever"):
        App(a_flow(), retention=retention)


@pytest.mark.parametrize("hooks", [{}, {"on_start": lambda record: None}])
def test_the_id_of_an_expired_run_is_free_at_once(hooks: dict[str, Any]) -> None:
    """The new run finds nothing of the old one, also where the sweeper has not come yet."""
    app = an_app(a_flow(**hooks))
    ended(app)
    app.clock.wait_until(app.clock.now() + KEPT)
    result = app.workflow("asking").create_run("r").start(5)
    assert ("suspended", 5, False) == (result.status, result.input, result.replayed)
    assert 11 == app.resume("r", 1).output


def test_a_fork_may_take_the_id_of_an_expired_run() -> None:
    """As a start may."""
    app = an_app()
    ended(app)
    app.clock.wait_until(app.clock.now() + KEPT)
    app.workflow("asking").create_run("other").start(2)
    assert "suspended" == app.run("other").fork("ask", run_id="r").status


def test_time_travel_brings_an_ended_run_to_life_for_as_long_as_it_takes() -> None:
    """Its old expiry is forgotten; the next end counts."""
    app = an_app()
    ended(app)
    app.advance(KEPT - DAY)
    app.run("r").time_travel("ask")
    app.advance(10 * KEPT)
    assert 4 == app.resume("r", 2).output
    app.advance(KEPT - MS)
    assert "success" == app.run("r").result().status
    app.advance(minutes=2)
    assert [] == items(app)


def test_who_brings_it_to_life_first_keeps_it() -> None:
    """A removal decided upon just before the run was changed does not happen."""
    app = an_app()
    ended(app)
    app.clock.wait_until(app.clock.now() + KEPT)
    seen = app.store.peek(RunRef("default", "r"))
    assert seen is not None
    late = an_app(store=app.store, clock=VirtualClock(app.clock.now() - DAY))
    late.run("r").time_travel("ask")
    app.engine.remove(seen)
    assert "suspended" == app.run("r").result().status


def test_once_its_removal_has_begun_no_clock_brings_it_back() -> None:
    """By the run's own clock it has expired, also for a process whose clock is behind."""
    app = an_app(store=MemoryStore())
    ended(app)
    app.clock.wait_until(app.clock.now() + KEPT)
    half_removed(app)
    late = an_app(store=app.store, clock=VirtualClock(app.clock.now() - DAY))
    with pytest.raises(RunNotFound):
        late.run("r").time_travel("ask")


@pytest.mark.parametrize("fault", [Fault.DIES_BEFORE, Fault.DIES_AFTER])
def test_a_removal_that_was_cut_off_is_taken_up_again(fault: Fault) -> None:
    """By the sweeper; meanwhile the run counts as gone."""
    app = an_app(store=FaultyStore(MemoryStore(), at_call(1, fault, verbs=frozenset({"delete"}))))
    ended(app)
    app.clock.wait_until(app.clock.now() + KEPT)
    with pytest.raises(WorkerDied):
        app.look(RunRef("default", "r"))
    with pytest.raises(RunNotFound):
        app.run("r").result()
    app.advance(minutes=2)
    assert [] == items(app)


@pytest.mark.parametrize("retention", [KEPT, None])
def test_a_run_half_removed_by_hand_is_gone_and_removed_by_the_sweeper(retention: timedelta | None) -> None:
    """Also where nothing expires."""
    app = an_app(retention=retention, store=MemoryStore())
    ended(app)
    half_removed(app)
    with pytest.raises(RunNotFound):
        app.run("r").result()
    app.advance(minutes=20)
    assert [] == items(app)


def half_removed(app: LocalApp) -> None:
    """Somebody begins to remove the run and dies after the first write."""
    head = app.store.peek(RunRef("default", "r"))
    assert head is not None
    app.store.move(removed(head, app.clock.now()), version=head.version)


def test_two_workers_may_remove_it_at_the_same_time() -> None:
    """And a third may have started it anew."""
    app = an_app()
    ended(app)
    app.clock.wait_until(app.clock.now() + KEPT)
    for _ in range(2):
        assert app.look(RunRef("default", "r")) is None
    app.workflow("asking").create_run("r").start(3)
    assert app.look(RunRef("default", "r")) is not None
    assert "suspended" == app.run("r").result().status


def test_a_repeated_start_of_an_ended_run_still_finds_it() -> None:
    """Until it expires."""
    app = an_app()
    ended(app)
    app.advance(KEPT - MS)
    assert app.workflow("asking").create_run("r").start(1).replayed
