"""Indexes that lag behind, as those of DynamoDB may: what is due, and what is listed, is told as it was a while ago.

The items themselves are always read as they are. Only what finds runs is late, and nothing may rest on that alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from threading import RLock
from typing import Any, TypeVar

from flowcore.adapters.memory import MemoryStore
from flowcore.keys import RunRef
from flowcore.model import EVERY_RUN, Head, Page, PublicStatus, RunFilter, RunSummary, StepRecord
from flowcore.ports import Clock, Store
from flowcore.testing.faults import WRITES, FaultyStore

T = TypeVar("T")


class LaggingStore(FaultyStore):
    """Any ``Store`` whose ``due``, ``list_runs`` and ``count_runs`` learn late of what was written through it.

    Args:
        store: the one that is written to; what is written past this wrapper, its indexes never learn of.
        clock: by which ``lag`` is measured.
        lag: how much later the indexes learn of a write. May be changed; what was written before keeps its instant.
        writes: how many writes behind the indexes are at least.

    Example:
        >>> from datetime import timedelta
        >>> from flowcore import App, workflow
        >>> from flowcore.adapters.memory import MemoryStore
        >>> from flowcore.testing import LaggingStore, LocalApp, VirtualClock
        >>> clock = VirtualClock()
        >>> store = LaggingStore(MemoryStore(), clock, lag=timedelta(seconds=2))
        >>> nap = workflow("nap", input=int).sleep(timedelta(days=3)).commit()
        >>> local = LocalApp(App(nap), store=store, clock=clock)
        >>> _ = local.workflow("nap").create_run().start(7)
        >>> len(local.list_runs().items)
        0
        >>> local.advance(seconds=2)
        >>> len(local.list_runs().items)
        1
    """

    def __init__(self, store: Store, clock: Clock, *, lag: timedelta = timedelta(0), writes: int = 0) -> None:
        super().__init__(store, lambda _: None)
        self.lag = lag
        self._clock = clock
        self._writes = writes
        self._lock = RLock()
        self._index = MemoryStore()
        """Heads as the indexes know them."""
        self._underway: deque[tuple[datetime, RunRef, Head | None]] = deque()

    def due(self, now: datetime, *, limit: int) -> Sequence[RunRef]:
        """See ``Store.due``; as of a while ago."""
        return self._as_known().due(now, limit=limit)

    def list_runs(self, tenant: str, wanted: RunFilter = EVERY_RUN, **paging: Any) -> Page[RunSummary]:
        """See ``Store.list_runs``; as of a while ago."""
        return self._as_known().list_runs(tenant, wanted, **paging)

    def count_runs(self, tenant: str, wanted: RunFilter = EVERY_RUN) -> Mapping[PublicStatus, int]:
        """See ``Store.count_runs``; as of a while ago."""
        return self._as_known().count_runs(tenant, wanted)

    def _call(
        self,
        verb: str,
        happen: Callable[[], T],
        run: RunRef | None = None,
        record: StepRecord | None = None,
        batch: Sequence[StepRecord] = (),
    ) -> T:
        if run is None or verb not in WRITES:
            return happen()
        with self._lock:
            try:
                return happen()
            finally:  # a write that raised may have happened
                self._underway.append((self._clock.now() + self.lag, run, self.inner.peek(run)))

    def _as_known(self) -> MemoryStore:
        """The index, caught up with what it may know by now."""
        with self._lock:
            while len(self._underway) > self._writes and self._underway[0][0] <= self._clock.now():
                _, run, head = self._underway.popleft()
                self._index.delete(run)
                if head is not None:
                    self._index.start(head)
            return self._index
