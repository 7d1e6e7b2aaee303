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
from flowcore.model import EVERY_RUN, Head, Page, PublicStatus, RunFilter, RunSummary, Sent, StepRecord
from flowcore.ports import Claimed, Clock, EventTaken, HeadMoved, NotClaimable, RecordMoved, Store, Written

T = TypeVar("T")


class LaggingStore:
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
        self.inner = store
        self.lag = lag
        self._clock = clock
        self._writes = writes
        self._lock = RLock()
        self._index = MemoryStore()
        """Heads as the indexes know them."""
        self._underway: deque[tuple[datetime, RunRef, Head | None]] = deque()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def start(self, head: Head) -> Head | None:
        """See ``Store.start``."""
        return self._written(head.run, lambda: self.inner.start(head))

    def claim(
        self, run: RunRef, *, owner: str, now: datetime, lease_until: datetime, due: datetime
    ) -> Claimed | NotClaimable:
        """See ``Store.claim``."""
        return self._written(run, lambda: self.inner.claim(run, owner=owner, now=now, lease_until=lease_until, due=due))

    def release(self, head: Head, *, epoch: int, version: int) -> Written | HeadMoved:
        """See ``Store.release``."""
        return self._written(head.run, lambda: self.inner.release(head, epoch=epoch, version=version))

    def resume(
        self, head: Head, record: StepRecord, *, version: int, prior: StepRecord, taken: Sent | None = None
    ) -> Written | HeadMoved | RecordMoved | EventTaken:
        """See ``Store.resume``."""
        return self._written(
            head.run, lambda: self.inner.resume(head, record, version=version, prior=prior, taken=taken)
        )

    def move(self, head: Head, *, version: int) -> Written | HeadMoved:
        """See ``Store.move``."""
        return self._written(head.run, lambda: self.inner.move(head, version=version))

    def delete(self, run: RunRef, *, last: Head | None = None) -> bool:
        """See ``Store.delete``."""
        return self._written(run, lambda: self.inner.delete(run, last=last))

    def cancel(self, run: RunRef, *, now: datetime) -> Head | None:
        """See ``Store.cancel``."""
        return self._written(run, lambda: self.inner.cancel(run, now=now))

    def due(self, now: datetime, *, limit: int) -> Sequence[RunRef]:
        """See ``Store.due``; as of a while ago."""
        return self._as_known().due(now, limit=limit)

    def list_runs(self, tenant: str, wanted: RunFilter = EVERY_RUN, **paging: Any) -> Page[RunSummary]:
        """See ``Store.list_runs``; as of a while ago."""
        return self._as_known().list_runs(tenant, wanted, **paging)

    def count_runs(self, tenant: str, wanted: RunFilter = EVERY_RUN) -> Mapping[PublicStatus, int]:
        """See ``Store.count_runs``; as of a while ago."""
        return self._as_known().count_runs(tenant, wanted)

    def _written(self, run: RunRef, write: Callable[[], T]) -> T:
        with self._lock:
            try:
                return write()
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
