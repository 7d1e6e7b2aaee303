"""Asking somebody to look at a run, now or later. A hint carries no truth; a lost one is found by the sweeper.

Hints are made after the write they belong to. One that cannot be sent is logged and counted, and one that cannot be
taken back is logged, never an error: ``due`` on the head is the promise, the hint is only its fast lane.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock

from flowcore.errors import OutsideError
from flowcore.keys import RunRef
from flowcore.ports import Clock, Hint, Queue, Scheduler, Store

_LOGGER = logging.getLogger("flowcore.hints")


class Tally:
    """How often something has happened since somebody asked, in all threads."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._lock, self._count = Lock(), 0

    def add(self) -> None:
        """Once more."""
        with self._lock:
            self._count += 1

    def take(self) -> int:
        """How often; counted from nothing afterwards."""
        with self._lock:
            count, self._count = self._count, 0
            return count


@dataclass(frozen=True, slots=True)
class Hints:
    """The two ways to a worker: a message with a delay for the near future, a schedule for the far one."""

    queue: Queue | None
    scheduler: Scheduler | None
    clock: Clock
    lost: Tally = field(default_factory=Tally, compare=False, repr=False)
    """Hints that neither queue nor scheduler took."""
    stale: Tally = field(default_factory=Tally, compare=False, repr=False)
    """Hints that found nothing to do: copies, and timers of what is settled."""

    def send(self, run: RunRef, *, at: datetime, version: int) -> bool:
        """Have ``run`` looked at ``at``; whether that could be arranged.

        Args:
            version: of the head that asks; repeated hints of one version are one schedule.
        """
        now = self.clock.now()
        delay_s = max(0, math.ceil((at - now) / timedelta(seconds=1)))
        hint = Hint(run=run, at=max(at, now))
        try:
            if self.queue is not None and delay_s <= self.queue.max_delay_s:
                self.queue.send(hint, delay_s=delay_s)
            elif self.scheduler is not None:
                self.scheduler.schedule(hint, version=version)
            else:
                return False
        except OutsideError as error:
            self.lost.add()
            _LOGGER.warning("hint lost, the sweeper will find the run", extra={"run_id": run.id, "error": str(error)})
            return False
        return True

    def forget(self, run: RunRef, *, version: int) -> None:
        """Take back what ``send`` has scheduled for ``version``, if it is still there and the scheduler answers.

        Never an error: a schedule that stays fires at a run that has moved on, which costs one look.
        """
        if self.scheduler is None:
            return
        try:
            self.scheduler.unschedule(run, version=version)
        except OutsideError as error:
            _LOGGER.warning("schedule kept, it will find nothing", extra={"run_id": run.id, "error": str(error)})


def sweep(store: Store, hints: Hints, now: datetime, *, limit: int = 1000) -> int:
    """Send a hint for every run that somebody should have looked at before ``now``; how many were sent.

    Writes nothing, so it may run twice, late, or in several places at once.
    """
    return sum(hints.send(run, at=now, version=0) for run in store.due(now, limit=limit))
