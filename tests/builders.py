"""Runs, graphs and Apps for tests: each builder makes a plain one that differs only in what the test says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from flowcore import App, Step, Workflow, create_step, workflow
from flowcore.adapters.memory import MemoryScheduler, MemoryStore
from flowcore.authoring.graph import Graph
from flowcore.core.evolve import fold
from flowcore.keys import RunRef, Scope, StepKey
from flowcore.model import Answer, Head, Json, Outcome, RunStatus, Snapshot, StepFailure, StepRecord
from flowcore.pace import Pace
from flowcore.ports import Queue

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
BEFORE = NOW - timedelta(hours=1)
RUN = RunRef("default", "r-1")
BROKEN = StepFailure(type="ValueError", message="broken")


def a_step(id: str = "charge", execute: Callable[..., Any] = lambda value: value, **options: Any) -> Step[Any, Any]:
    """A step that gives back what it takes, unless told otherwise."""
    return create_step(id=id, execute=execute, **options)


def a_workflow(build: Callable[[Any], Any], id: str = "flow", **options: Any) -> Workflow[Any, Any]:
    """A committed workflow: ``build`` puts the entries onto an empty builder."""
    return cast("Workflow[Any, Any]", build(workflow(id, **options)).commit())


def a_graph(build: Callable[[Any], Any], id: str = "flow", **options: Any) -> Graph:
    """The same, compiled."""
    return a_workflow(build, id, **options).compiled


def a_record(key: str = "charge", outcome: Outcome = Outcome.OK, **changes: Any) -> StepRecord:
    """A first record at ``key``; a failed one has a failure."""
    plain = StepRecord(key=StepKey(key), outcome=outcome, seq=0, epoch=1, at=NOW, started_at=NOW)
    failure = BROKEN if outcome in (Outcome.ERR, Outcome.RETRY) else None
    return replace(plain, **{"failure": failure, **changes})


def a_started(key: str, **changes: Any) -> StepRecord:
    """The record of a container at work, which opens the scope of its own name."""
    return a_record(key, Outcome.START, **{"opens": Scope(key), **changes})


def an_answer(data: Json = None, wait: str = "charge@0", **changes: Any) -> Answer:
    """An answer to a suspension."""
    return replace(Answer(wait=wait, data=data, digest="d-1", at=NOW), **changes)


def a_head(**changes: Any) -> Head:
    """A run that a worker has just claimed for the first time."""
    plain = Head(
        run=RUN,
        workflow="flow",
        definition="d-1",
        input=1,
        input_hash="i-1",
        status=RunStatus.RUNNING,
        created_at=BEFORE,
        updated_at=NOW,
        version=2,
        epoch=1,
        attempts=1,
        owner="w-1",
        lease_until=LATER,
        due=LATER,
    )
    return replace(plain, **changes)


def a_run(*records: StepRecord, **head: Any) -> Snapshot:
    """A run with these records, committed in this order unless a record says its own ``seq``."""
    ordered = [replace(record, seq=record.seq or place) for place, record in enumerate(records, start=1)]
    return fold(a_head(**head), ordered)


class VirtualClock:
    """``flowcore.ports.Clock`` that stands still until somebody moves it; waiting moves it."""

    def __init__(self, at: datetime = NOW) -> None:
        self.at = at

    def now(self) -> datetime:
        """See ``Clock.now``."""
        return self.at

    def wait_until(self, instant: datetime) -> None:
        """See ``Clock.wait_until``."""
        self.at = max(self.at, instant)


class CountedIds:
    """``flowcore.ports.Ids`` that counts; chance is always ``drawn``."""

    def __init__(self, drawn: float = 0.5) -> None:
        self.drawn = drawn
        self.made = 0

    def fresh(self) -> str:
        """See ``Ids.fresh``."""
        self.made += 1
        return f"{self.made:026}"

    def draw(self) -> float:
        """See ``Ids.draw``."""
        return self.drawn


def an_app(
    *workflows: Workflow[Any, Any],
    like: App | None = None,
    queue: Queue | None = None,
    pace: Pace | None = None,
) -> App:
    """An App in memory under a virtual clock; ``like`` another one: on the same store, scheduler and clock."""
    return App(
        *workflows,
        store=like.store if like else MemoryStore(),
        scheduler=like.scheduler if like else MemoryScheduler(),
        clock=like.clock if like else VirtualClock(),
        ids=like.ids if like else CountedIds(),
        queue=queue,
        pace=pace,
    )


def pass_time(app: App, span: timedelta) -> None:
    """Let time pass for an App of ``an_app``; every wake that falls due meanwhile is fired at its instant."""
    clock, scheduler = cast("VirtualClock", app.clock), cast("MemoryScheduler", app.scheduler)
    end = clock.at + span
    while (instant := scheduler.next_at()) is not None and instant <= end:
        clock.wait_until(instant)
        for hint in scheduler.pop_due(clock.at):
            app.look(hint.run)
    clock.wait_until(end)
