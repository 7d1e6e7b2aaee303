"""An App in one process on virtual time: a test walks through months of a workflow in milliseconds.

``LocalApp`` is an ``App`` with all its verbs. Time stands still until the test moves it; then everything that falls due
is fired in order, each at its own instant: sleeps, timeouts, retries, and the sweeper that finds what others lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from inspect import getattr_static
from typing import Any
from weakref import WeakKeyDictionary, ref

from flowcore.adapters.memory import MemoryQueue, MemoryScheduler, MemoryStore
from flowcore.app import App
from flowcore.authoring.graph import Graph
from flowcore.core.heads import later
from flowcore.engine import Engine
from flowcore.keys import RunRef, StepKey, dotted, is_once
from flowcore.model import Snapshot
from flowcore.pace import Pace
from flowcore.ports import Blobs, Ids, Queue, Scheduler, Store
from flowcore.testing.clock import VirtualClock
from flowcore.testing.crew import VirtualCrew
from flowcore.testing.faults import Call, Fault, FaultyStore, WorkerDied
from flowcore.testing.invariants import WatchedStore

SWEEP_EVERY = timedelta(minutes=1)
_NEVER = datetime.max.replace(tzinfo=UTC)
_MS = timedelta(milliseconds=1)

_schedulers: WeakKeyDictionary[Store, MemoryScheduler] = WeakKeyDictionary()
"""One per store: what one LocalApp has scheduled, every other one on that store fires at the right instant."""
_watchers: WeakKeyDictionary[Store, ref[WatchedStore]] = WeakKeyDictionary()
"""One per store, as long as a LocalApp on it lives, or whatever wraps it there."""
_called: ContextVar[list[WatchedStore] | None] = ContextVar("_called", default=None)
"""Every watcher, while somebody wants to audit them all."""


class LocalApp(App):
    """An App's workflows on memory and virtual time.

    On a ``MemoryStore`` every write is held to the rules of ``flowcore.testing.invariants``: a broken one raises
    ``Violation`` where it is broken. A ``FaultyStore``, or whatever else keeps what it wraps in ``inner``, has a
    watched one there from then on; with ``blobs`` what lies in these is not looked at. Other stores are not watched,
    nor is a subclass of ``MemoryStore``: give one of those as
    ``WatchedStore(store, {flow.id: flow.compiled})``.

    Args:
        app: whose workflows to serve; it is not changed.
        store: shared with another LocalApp, or wrapped to misbehave; a fresh ``MemoryStore`` when left out.
        clock: shared with another LocalApp; a fresh ``VirtualClock`` when left out.
        queue: a ``MemoryQueue``, or what wraps one to misbehave. With one, ``start`` and ``resume`` only commit and
            hint, and ``run_until_idle`` or ``advance`` is that worker; without, runs are driven in the call.
        scheduler: a ``MemoryScheduler``, or what wraps one; shared by all LocalApps on one store when left out.
        ids: fresh names and chance.
        pace: leases, margins and other durations.

    Raises: TypeError for a queue or scheduler whose hints cannot be taken from it, as those of AWS.

    Example:
        >>> from datetime import timedelta
        >>> from flowcore import App, workflow
        >>> from flowcore.testing import LocalApp
        >>> app = App(workflow("nap", input=int, output=int).sleep(timedelta(days=3)).commit())
        >>> local = LocalApp(app)
        >>> run = local.workflow("nap").create_run()
        >>> run.start(7).status
        'waiting'
        >>> local.advance(days=3)
        >>> run.result().output
        7
    """

    def __init__(
        self,
        app: App,
        *,
        store: Store | None = None,
        clock: VirtualClock | None = None,
        queue: Queue | None = None,
        scheduler: Scheduler | None = None,
        blobs: Blobs | None = None,
        ids: Ids | None = None,
        pace: Pace | None = None,
    ) -> None:
        store = store or MemoryStore()
        self._virtual = clock or VirtualClock()
        super().__init__(
            *app.workflows.values(),
            store=store,
            scheduler=scheduler or _schedulers.setdefault(store, MemoryScheduler()),
            queue=queue,
            blobs=blobs or app.blobs,
            clock=self._virtual,
            ids=ids or app.ids,
            pace=pace or app.engine.pace,
            retention=app.engine.retention,
            tracer=app.engine.tracer,
            links=app.engine.links,
            webhooks=app.webhooks.values(),
            sources=app.sources.values(),
            events=app.telling.kinds,
            include_payload=app.telling.include_payload,
            outgoing=app.outgoing.values(),
            deliveries=app.deliveries,
            largest_value=app.largest_value,
        )
        _refuse_untakeable(self._helpers())
        self._crashes: list[tuple[str, Fault]] = []
        self._swept_at: datetime | None = None
        given = {field.name: getattr(self.engine, field.name) for field in fields(self.engine)}
        watched = _watched(self.store, self.engine.graphs)
        ours = {"store": FaultyStore(watched, self._crash), "crew": lambda loop: VirtualCrew(loop, self._virtual)}
        self.engine = _MortalEngine(**{**given, **ours})

    # -- time -------------------------------------------------------------------------------------------------------

    @property
    def clock(self) -> VirtualClock:
        """The time of day, which only moves when it is told to."""
        return self._virtual

    def advance(
        self,
        pause: timedelta = timedelta(0),
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
    ) -> None:
        """Let time pass, and fire whatever falls due meanwhile, in order, each at its own instant.

        The runs that wake are driven here, in the calling thread.
        """
        end = self.clock.now() + pause + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        while (instant := self.next_at()) is not None and instant <= end:
            self.clock.wait_until(instant)
            self._fire()
        self.clock.wait_until(end)

    def run_until_idle(self) -> None:
        """Do everything that can be done without time passing."""
        self.advance()

    def next_at(self) -> datetime | None:
        """When something falls due next, at the earliest now; None when nothing ever will."""
        instants = [helper.next_at() for helper in self._helpers()]
        known = [instant for instant in (*instants, self._next_sweep()) if instant is not None]
        return max(min(known), self.clock.now()) if known else None

    # -- faults -----------------------------------------------------------------------------------------------------

    def deliver(self, run_id: str, *, twice: bool = False) -> None:
        """Hand a worker a hint to look at a run, as a queue does that delivers early, late, or twice."""
        for _ in range(2 if twice else 1):
            self._work(RunRef(self.tenant, run_id))

    def crash_before(self, step: str) -> None:
        """Let the worker die the next time ``step`` (dotted id) has run, before its outcome is committed.

        The step will run again. The caller sees a run that stays ``running``; once its lease is over (``advance``), the
        sweeper has another worker go on.
        """
        self._crashes.append((step, Fault.DIES_BEFORE))

    def crash_after(self, step: str) -> None:
        """Let the worker die right after the next outcome of ``step`` (dotted id) is committed.

        The step will not run again; what follows it is done by another worker once the lease is over (``advance``).
        """
        self._crashes.append((step, Fault.DIES_AFTER))

    # -- inside -----------------------------------------------------------------------------------------------------

    def _fire(self) -> None:
        now = self.clock.now()
        sweep_at = self._next_sweep()
        if sweep_at is not None and sweep_at <= now:
            self._swept_at = now
            self.sweep()
        for hint in [hint for helper in self._helpers() for hint in helper.pop_due(now)]:
            self._work(hint.run)

    def _work(self, run: RunRef) -> None:
        head = self.store.peek(run)
        if head is not None:
            self.look(run)

    def _helpers(self) -> Iterable[MemoryScheduler | MemoryQueue]:
        """The queue and the scheduler, also when they are wrapped to misbehave."""
        for helper in (self.queue, self.scheduler):
            inner: Any = helper
            while hasattr(inner, "inner"):
                inner = inner.inner
            if inner is not None:
                yield inner

    def _next_sweep(self) -> datetime | None:
        """When the sweeper next finds something. It comes once a minute, so what it cannot cure does not hold us up."""
        heads = [self.store.peek(run) for run in self.store.due(_NEVER, limit=10_000)]
        dues = [head.due for head in heads if head is not None and head.due is not None]
        if not dues:
            return None
        earliest = later(min(dues), _MS)
        return earliest if self._swept_at is None else max(earliest, self._swept_at + SWEEP_EVERY)

    def _crash(self, call: Call) -> Fault | None:
        written = [
            *call.batch,
            *([call.record] if call.verb in ("commit", "commit_with") and call.record is not None else []),
        ]
        for crash in self._crashes:
            if any(_is_meant(record.key, crash[0]) for record in written if not is_once(record.key)):
                self._crashes.remove(crash)
                return crash[1]
        return None


@contextmanager
def audited() -> Iterator[None]:
    """At the end, every run that a ``LocalApp`` made inside has written is audited. Raises: Violation."""
    watchers: list[WatchedStore] = []
    token = _called.set(watchers)
    try:
        yield
        for watched in watchers:
            watched.audit_all()
    finally:
        _called.reset(token)


def _watched(store: Store, graphs: Mapping[str, Graph]) -> Store:
    """The store, with the plain one in it watched; as it is where there is none, or a watcher of somebody's own.

    The watcher makes calls of its own, so it stands right before the plain store: what wraps that counts none of them.
    """
    outer: Any = None
    plain: Any = store
    while _wraps(plain) and not isinstance(plain, WatchedStore):
        outer, plain = plain, plain.inner
    if isinstance(plain, WatchedStore):
        if plain is _watcher_of(plain.inner):
            plain.graphs.update(graphs)
        return store
    if type(plain) is not MemoryStore:
        return store
    watched = _watcher_of(plain) or _new_watcher_of(plain)
    watched.graphs.update(graphs)
    if outer is None:
        return watched
    outer.inner = watched
    return store


def _wraps(store: Any) -> bool:
    """Whether it has an ``inner`` of its own, rather than passing on that of what it wraps under another name."""
    return getattr_static(store, "inner", None) is not None


def _watcher_of(store: Store) -> WatchedStore | None:
    known = _watchers.get(store) if type(store) is MemoryStore else None
    return None if known is None else known()


def _new_watcher_of(store: Store) -> WatchedStore:
    watched = WatchedStore(store)
    _watchers[store] = ref(watched)
    if (watchers := _called.get()) is not None:
        watchers.append(watched)
    return watched


def _refuse_untakeable(helpers: Iterable[Any]) -> None:
    for helper in helpers:
        if not hasattr(helper, "pop_due"):
            raise TypeError(
                f"Nobody can take hints from {type(helper).__name__} here. Give a MemoryQueue and a MemoryScheduler, "
                "or wrap these: in LossyQueue, LossyScheduler, or what has them as its inner."
            )


class _MortalEngine(Engine):
    """An engine whose workers may die: the caller is another process, and sees the run as the dead one left it."""

    def drive(
        self,
        graph: Graph,
        snapshot: Snapshot,
        deadline: datetime | None,
        *,
        per_step: bool = False,
        is_fresh: bool = False,
    ) -> Snapshot:
        try:
            return super().drive(graph, snapshot, deadline, per_step=per_step, is_fresh=is_fresh)
        except WorkerDied:
            return self.read_again(snapshot)


def _is_meant(key: StepKey, step: str) -> bool:
    """Whether ``step`` names ``key``: exactly, as every item of a foreach, or by its last id alone."""
    path = dotted(key)
    plain = ".".join(part.split("[", 1)[0] for part in path.split("."))
    return step in (path, plain, plain.rsplit(".", 1)[-1])
