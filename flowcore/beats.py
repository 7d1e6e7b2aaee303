"""Signs of life of the steps at work: they renew the lease, and tell whether the run is still this worker's.

A worker without a deadline of its own (a script, a container) holds a run for a while and has to say that it lives.
One with a deadline (a Lambda) holds it until then; where every step at work has promised with ``heartbeat=`` to be
heard from, only that long, so that its death is noticed sooner. No promise is a condition of any write: whoever is
late is taken for dead, and is fenced off by the epoch like any other.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from threading import Lock
from typing import TYPE_CHECKING

from flowcore.errors import OutsideError
from flowcore.hold import Hold
from flowcore.ports import HeadMoved

if TYPE_CHECKING:
    from datetime import datetime

    from flowcore.engine import Engine
    from flowcore.model import Head

_LOGGER = logging.getLogger("flowcore.session")


class Beats:
    """The signs of life of one worker that drives one run. Used from any of its threads."""

    def __init__(self, engine: Engine, hold: Hold, deadline: datetime | None) -> None:
        self.is_lost = False
        """Whether the run has turned out to be another's, or canceled."""
        self._engine = engine
        self._hold = hold
        self._deadline = deadline
        self._promised: timedelta | None = None
        self._beat_at = engine.clock.now()
        self._lock = Lock()

    def fit(self, promises: Sequence[timedelta | None]) -> None:
        """Hold the run as long as the steps that are at work from now on have promised; ``None``: one has not.

        One write where that changes, none otherwise. Raises: OutsideError.
        """
        promised = None if None in promises else max((each for each in promises if each is not None), default=None)
        if promised == self._promised:
            return
        self._promised = promised
        self._renew()

    def beat(self, promised: timedelta | None) -> bool:
        """Say that the worker lives, at most once an interval; whether the run is still its own, as far as it knows."""
        now = self._engine.clock.now()
        with self._lock:
            is_due = now - self._beat_at >= self.interval(promised)
            if is_due:
                self._beat_at = now
        if is_due:
            try:
                self._say_alive(now)
            except OutsideError as error:
                seen = {"run_id": self._hold.standing.run.id, "error": str(error)}
                _LOGGER.warning("nobody has heard this heartbeat", extra=seen)
        return not self.is_lost

    def interval(self, promised: timedelta | None) -> timedelta:
        """How often at most something is written for a step that has promised to be heard from so often."""
        usual = self._engine.pace.beat
        return usual if promised is None else min(usual, promised / 3)

    def _say_alive(self, now: datetime) -> None:
        standing = self._hold.standing
        if standing.lease_until is None or self._until(now) > standing.lease_until:
            self._renew()
            return
        head = self._engine.store.peek(standing.run)  # the lease is as long as it can be: look whether it is ours
        self.is_lost = self.is_lost or not self._is_left_alone(head)

    def _renew(self) -> None:
        now = self._engine.clock.now()
        written = self._hold.renew(max(now, self._hold.standing.updated_at), lease_until=self._until(now))
        if isinstance(written, HeadMoved):
            self.is_lost = self.is_lost or not self._is_left_alone(written.head)

    def _is_left_alone(self, head: Head | None) -> bool:
        """Whether a step at work may go on: what it comes to is stored also where the run was paused meanwhile."""
        return self._hold.is_ours(head) or self._hold.halts(head)

    def _until(self, now: datetime) -> datetime:
        longest = self._engine.lease_until(now, self._deadline)
        return longest if self._promised is None else min(longest, now + self._promised + self._engine.pace.lease_slack)
