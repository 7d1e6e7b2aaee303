"""A run that was deleted or has expired: whoever still comes for it, late and by whatever way, is answered cleanly."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, StepContext, create_step, workflow
from flowcore.adapters.memory import MemoryQueue, MemoryStore
from flowcore.errors import RunNotFound
from flowcore.keys import RunRef
from flowcore.model import RunStatus, Topic
from flowcore.ops import check, doctor
from flowcore.testing import FaultyStore, LocalApp, VirtualClock
from flowcore.testing.faults import Call

DAY = timedelta(days=1)
REF = RunRef("default", "r")
Ways = pytest.mark.parametrize("way", ["deleted", "expired"])


def ask(value: Any, ctx: StepContext[Any, Any]) -> Any:
    """Waits for a person, or for an event."""
    if ctx.resume_data is None:
        ctx.suspend(label="boss", key="order", timeout=timedelta(hours=1))
    return ctx.resume_data


FLOW = workflow("flow", input=Any).then(create_step(id="ask", execute=ask)).commit()
LISTENING = workflow("listening", input=Any).wait_for_event("paid", key="order").commit()


def gone(way: str, id: str = "flow") -> tuple[LocalApp, str]:
    """An App in which a run has waited and is gone, and the id of its wait."""
    app = LocalApp(App(FLOW, LISTENING, retention=DAY))
    wait = app.workflow(id).create_run("r").start(1).waits[0].id
    if way == "deleted":
        app.run("r").delete()
    else:
        app.run("r").cancel()
        app.clock.forward(days=2)
    return app, wait


VERBS: dict[str, Callable[[Any, str], Any]] = {
    "resume": lambda run, _: run.resume(1),
    "resume by step": lambda run, _: run.resume(1, step="ask"),
    "resume by label": lambda run, _: run.resume(1, label="boss"),
    "resume by a link": lambda run, wait: run.resume(1, wait=wait),
    "resume again": lambda run, _: run.resume(1, idempotency_key="k"),
    "cancel": lambda run, _: run.cancel(),
    "restart": lambda run, _: run.restart(),
    "redrive": lambda run, _: run.redrive(),
    "unblock": lambda run, _: run.unblock(),
    "pause": lambda run, _: run.pause(),
    "unpause": lambda run, _: run.unpause(),
    "time travel": lambda run, _: run.time_travel("ask"),
    "fork": lambda run, _: run.fork("ask"),
    "delete": lambda run, _: run.delete(),
    "result": lambda run, _: run.result(),
    "events": lambda run, _: run.events(),
}


@Ways
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_says_that_it_is_gone(verb: str, way: str) -> None:
    """And nothing is written."""
    app, wait = gone(way)
    before = app.store.load(REF)
    with pytest.raises(RunNotFound, match="never started, was deleted, or has expired"):
        VERBS[verb](app.run("r"), wait)
    assert before == app.store.load(REF)


@Ways
def test_hint_at_it_finds_nobody(way: str) -> None:
    """Early, late, doubled, from the queue or from a schedule that was made while it waited."""
    app, _ = gone(way)
    assert app.look(REF) is None
    app.deliver("r", twice=True)
    app.advance(days=3)
    assert app.look(REF) is None
    assert app.store.load(REF) is None


@Ways
def test_event_for_it_is_kept_for_the_next_one(way: str) -> None:
    """Nobody listens in its name any more, once somebody has looked."""
    app, _ = gone(way, "listening")
    assert "buffered" == app.send_event("paid", "order", 5).verdict
    assert () == app.store.mail(Topic("default", "paid", "order"), app.clock.now()).listeners

    assert 5 == app.workflow("listening").create_run("r-2").start(1).output


@Ways
def test_listings_pass_over_it(way: str) -> None:
    """Runs, the inbox, counts and what an operator asks."""
    app, _ = gone(way)
    assert ([], [], 0) == (list(app.list_runs()), list(app.waits()), sum(app.counts().values()))
    assert ([], 0) == (list(doctor(app)), check(app).looked_at)


@Ways
def test_its_id_is_free_for_another_run(way: str) -> None:
    """Which starts from the beginning, whatever the other one had met."""
    app, _ = gone(way)
    assert "suspended" == app.workflow("flow").create_run("r").start(2).status
    assert 7 == app.run("r").resume(7).output


def test_run_deleted_under_a_worker_is_not_written_again() -> None:
    """The worker notices when it commits, and the message is acknowledged."""

    def vanish(_: Any) -> int:
        app.run("r").delete()
        return 1

    clock = VirtualClock()
    flow = workflow("flow", input=Any).then(create_step(id="vanish", execute=vanish)).then(FLOW).commit()
    app = LocalApp(App(flow), queue=MemoryQueue(clock), clock=clock)
    app.workflow("flow").create_run("r").start(1)
    app.run_until_idle()

    assert app.look(REF) is None
    with pytest.raises(RunNotFound):
        app.run("r").result()


# -- and whoever still works at it ------------------------------------------------------------------------------------


def deleted_at_work(*, distributed: bool) -> tuple[LocalApp, Any]:
    """An App in which a run over three items was deleted while its worker was about to store what the second gave."""
    flow = workflow("fan", input=list[int]).foreach(
        create_step(id="double", execute=lambda number: 2 * number), id="each", distributed=distributed
    )
    store, clock = MemoryStore(), VirtualClock()
    app = LocalApp(App(flow.commit()), store=store, clock=clock)

    def deletes(call: Call) -> None:
        second = call.verb == "commit" and call.record is not None and call.record.key == "each[1]"
        if second and call.run == REF and store.peek(REF).status is not RunStatus.CANCELED:  # type: ignore[union-attr]
            app.run("r").delete()

    slow: Any = LocalApp(App(flow.commit()), store=FaultyStore(store, deletes), clock=clock)
    with suppress(RunNotFound):
        slow.workflow("fan").create_run("r").start([1, 2, 3])
    return app, store


@pytest.mark.parametrize("distributed", [False, True])
def test_what_a_worker_writes_after_its_run_was_deleted_is_met_by_no_other(distributed: bool) -> None:
    """The next run of that id does its own work; and in the end nothing is left of the one that was deleted."""
    app, store = deleted_at_work(distributed=distributed)
    assert app.list_runs().items == []
    assert [10, 12, 14] == app.workflow("fan").create_run("r").start([5, 6, 7]).output
    app.run("r").delete()
    app.advance(hours=1)
    assert [] == items_in(store)


def test_what_stays_of_a_deleted_run_tells_nothing_and_goes_in_a_quarter_of_an_hour() -> None:
    """It keeps what a worker still writes from the next run of its id."""
    app = LocalApp(App(FLOW))
    app.workflow("flow").create_run("r").start({"name": "Ada"}, state={"secret": 1}, by="ada")
    app.run("r").delete()
    assert "Ada" not in str(items_in(app.store))
    assert "secret" not in str(items_in(app.store))
    app.advance(minutes=17)
    assert [] == items_in(app.store)


def test_children_that_are_begun_for_a_run_that_was_deleted_meanwhile_go_as_well() -> None:
    """And the next run of its id has its own."""
    step = create_step(id="double", execute=lambda number: 2 * number)
    flow = workflow("fan", input=list[int]).foreach(step, id="each", distributed=True).commit()
    store, clock = MemoryStore(), VirtualClock()
    queue = MemoryQueue(clock)
    app = LocalApp(App(flow), store=store, clock=clock, queue=queue)
    app.workflow("fan").create_run("r").start(list(range(20)))
    begun: list[RunRef] = []

    def deletes(call: Call) -> None:
        if call.verb == "start" and call.run is not None:
            begun.append(call.run)
            if len(begun) == 3:
                app.run("r").delete()

    LocalApp(App(flow), store=FaultyStore(store, deletes), clock=clock, queue=queue).deliver("r")
    clock.forward(seconds=1)
    again = app.workflow("fan").create_run("r")
    again.start([5, 6, 7])
    app.run_until_idle()
    assert [10, 12, 14] == again.result().output
    app.run("r").delete()
    app.advance(hours=1)
    assert ([], True) == (items_in(store), len(begun) >= 3)


def items_in(store: Any) -> list[Any]:
    """Everything that is stored."""
    while hasattr(store, "inner"):
        store = store.inner
    return list(store.items())
