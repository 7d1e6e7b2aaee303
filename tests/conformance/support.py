"""What a conformance test stands on: a row of the table it proves, and a harness whose mode it need not know.

A test says with ``behaviour(16, "...")`` which behaviour it proves, or with ``differs(48, "...", "why")`` that it shows
what flowcore does instead, on purpose. It runs on every ``Mode``: on each store, and there once in a process that keeps
all it knows in memory and once with a fresh process image after every turn, rebuilt from nothing but the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Event
from typing import Any, TypeVar, cast

import pytest

from flowcore import App, RunResult, Workflow
from flowcore.adapters.memory import MemoryScheduler
from flowcore.authoring.workflow import WorkflowBuilder
from flowcore.keys import RunRef, dotted
from flowcore.model import Head, RunStatus, Sent, StepRecord
from flowcore.pace import Pace
from flowcore.ports import Batch, HeadMoved, RecordMoved, Store, Written
from flowcore.run import Run
from flowcore.testing import LocalApp, SeededIds, VirtualClock
from flowcore.testing.faults import WRITES

PATIENCE_S = 20.0
"""How long a test waits for another thread before it says that nothing overlaps; a passing one never waits so long."""
_ONE_TURN = Pace(most_turns=1)
_MOST_LOOKS = 1000


def behaviour(number: int, name: str) -> pytest.MarkDecorator:
    """This test proves behaviour ``number``."""
    return pytest.mark.behaviour(number, name, None)


def differs(number: int, name: str, why: str) -> pytest.MarkDecorator:
    """This test shows what flowcore does on purpose instead of behaviour ``number``, which is called ``name``."""
    return pytest.mark.behaviour(number, name, why)


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to run everything."""

    store: str
    """``memory`` or ``dynamodb``."""
    stepwise: bool
    """A fresh process image after every turn."""

    def __str__(self) -> str:
        return f"{self.store}-stepwise" if self.stepwise else self.store


MODES = [Mode(store, stepwise) for store in ("memory", "dynamodb") for stepwise in (False, True)]


class ObservedStore:
    """A store that tells whoever waits for it that an outcome of a step has been committed.

    Every write of a test goes through it, so it can spare the store two questions that a test would ask all the time:
    which of a few runs are overdue, and what a head is like that nobody has written since it was last read.
    """

    def __init__(self, store: Store) -> None:
        self.inner = store
        self._seen: dict[str, Event] = {}
        self._runs: list[RunRef] = []
        self._heads: dict[RunRef, Head | None] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in WRITES:
            return found

        def written(*args: Any, **options: Any) -> Any:
            try:
                return found(*args, **options)
            finally:
                self._heads = {}

        return written

    def peek(self, run: RunRef) -> Head | None:
        """See ``Store.peek``."""
        heads = self._heads
        if run not in heads:
            heads[run] = self.inner.peek(run)
        return heads[run]

    def start(self, head: Head) -> Head | None:
        """See ``Store.start``."""
        self._runs.append(head.run)
        self._heads = {}
        return self.inner.start(head)

    def start_with(self, head: Head, sent: Sent) -> Head | Sent | None:
        """See ``Store.start_with``."""
        self._runs.append(head.run)
        self._heads = {}
        return self.inner.start_with(head, sent)

    def due(self, now: datetime, *, limit: int) -> Sequence[RunRef]:
        """See ``Store.due``."""
        heads = [head for run in dict.fromkeys(self._runs) if (head := self.peek(run)) is not None]
        overdue = [(head.due, head.run) for head in heads if head.due is not None and head.due < now]
        return [run for _, run in sorted(overdue, key=lambda pair: (pair[0], pair[1].id, pair[1].tenant))[:limit]]

    def commit(
        self, run: RunRef, incarnation: int, record: StepRecord, prior: StepRecord | None
    ) -> Written | RecordMoved:
        """See ``Store.commit``."""
        written = self.inner.commit(run, incarnation, record, prior)
        self.committed(dotted(record.key)).set()
        return written

    def release(self, head: Head, *, epoch: int, version: int, **written: Batch) -> Written | HeadMoved | RecordMoved:
        """See ``Store.release``."""
        self._heads = {}
        released = self.inner.release(head, epoch=epoch, version=version, **written)
        for record, _ in written.get("batch", ()):
            self.committed(dotted(record.key)).set()
        return released

    def committed(self, step: str) -> Event:
        """Set once something has been committed at ``step`` (dotted id)."""
        return self._seen.setdefault(step, Event())


AnyLocalApp = TypeVar("AnyLocalApp", bound=LocalApp)


class _Driver(LocalApp):
    """Lets time pass; who does the work that falls due is another matter."""

    worker: Callable[[], LocalApp]

    def _work(self, run: RunRef) -> None:
        self.worker().look(run)


@dataclass(eq=False)
class Harness:
    """Serves workflows in one mode, on virtual time. ``serve`` first; the verbs are those of one run after another."""

    mode: Mode
    make_store: Callable[[], Store]
    clock: VirtualClock = field(default_factory=VirtualClock)
    scheduler: MemoryScheduler = field(default_factory=MemoryScheduler)
    ids: SeededIds = field(default_factory=SeededIds)
    workflows: tuple[Workflow[Any, Any], ...] = ()
    run_id: str = ""
    """Of the run started last: the one that verbs without a ``run_id`` mean."""

    def __post_init__(self) -> None:
        self.store = ObservedStore(self.make_store())
        self._image: LocalApp | None = None

    def serve(self, *workflows: Workflow[Any, Any] | WorkflowBuilder[Any, Any, Any]) -> Harness:
        """Serve these instead of what was served before, as a deployment does."""
        self.workflows = tuple(App(*workflows).workflows.values())
        self._image = None
        return self

    # -- verbs ------------------------------------------------------------------------------------------------------

    def start(
        self,
        input: Any,
        *,
        workflow: str | None = None,
        run_id: str | None = None,
        resource_id: str | None = None,
        **options: Any,
    ) -> RunResult[Any]:
        """Start a run of the first workflow served, or of ``workflow``; as it stands when it rests."""
        served = self.app.workflow(workflow or self.workflows[0].id)
        run = served.create_run(run_id, resource_id)
        self.run_id = run.run_id
        return self._rested(run.start(input, **options))

    def resume(self, data: Any = None, *, run_id: str | None = None, **options: Any) -> RunResult[Any]:
        """Answer a suspension; the run as it stands when it rests again."""
        return self._rested(self.run(run_id).resume(data, **options))

    def cancel(self, run_id: str | None = None) -> RunResult[Any]:
        """Cancel a run."""
        return self.run(run_id).cancel()

    def result(self, run_id: str | None = None) -> RunResult[Any]:
        """A run as it stands."""
        return self.run(run_id).result()

    def advance(self, pause: timedelta = timedelta(0), **units: float) -> None:
        """Let time pass; whatever falls due is done at its own instant."""
        driver = self._make(_Driver)
        driver.worker = lambda: self.app
        driver.advance(pause, **units)

    def run(self, run_id: str | None = None) -> Run[Any, Any]:
        """A handle, from a process that need not be the one that started the run."""
        return self.app.run(run_id or self.run_id)

    # -- processes --------------------------------------------------------------------------------------------------

    @property
    def app(self) -> LocalApp:
        """A process image: the one there is, or in a stepwise mode a fresh one each time."""
        if self._image is None or self.mode.stepwise:
            self._image = self._make(LocalApp)
        return self._image

    def another_process(self) -> LocalApp:
        """An image that shares nothing with the others but the store and the clock."""
        return self._make(LocalApp)

    def committed(self, step: str) -> Event:
        """Set once an outcome of ``step`` (dotted id) is stored."""
        return self.store.committed(step)

    def _make(self, kind: type[AnyLocalApp]) -> AnyLocalApp:
        rebuilt = [workflow.clone(id=workflow.id) for workflow in self.workflows]
        return kind(
            App(*rebuilt, store=cast("Store", self.store)),
            store=cast("Store", self.store),
            clock=self.clock,
            scheduler=self.scheduler,
            ids=self.ids,
            pace=_ONE_TURN if self.mode.stepwise else None,
        )

    def _rested(self, result: RunResult[Any]) -> RunResult[Any]:
        """The same run once nobody has anything to do in it; drives it there, one image per turn."""
        run = RunRef("default", result.run_id)
        head = self.store.peek(run)
        for _ in range(_MOST_LOOKS):
            if head is None or head.status is not RunStatus.QUEUED:
                return replace(self.result(result.run_id), receipt=result.receipt, replayed=result.replayed)
            head = self.app.look(run)
        raise AssertionError(f"run {run.id!r} does not come to rest")


def meet(*events: Event) -> bool:
    """Whether all ``events`` happen while the caller waits."""
    return all(event.wait(PATIENCE_S) for event in events)


def outputs(result: RunResult[Any]) -> Mapping[str, Any]:
    """What each step that succeeded gave, by dotted id."""
    return {id: step.output for id, step in result.steps.items() if step.status == "success"}
