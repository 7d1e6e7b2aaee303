"""A run that was deleted or has expired: whoever still comes for it, late and by whatever way, is answered cleanly."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, StepContext, create_step, workflow
from flowcore.adapters.memory import MemoryQueue
from flowcore.errors import RunNotFound
from flowcore.keys import RunRef
from flowcore.model import Topic
from flowcore.ops import check, doctor
from flowcore.testing import LocalApp, VirtualClock

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
