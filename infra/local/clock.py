"""The stack's clock: real time, possibly faster, plus an offset that only grows.

Owns what "now" means to the movers; handlers see the offset through ``FLOWCORE_CLOCK_OFFSET``. A factor other than 1
makes the movers run ahead of the handlers on purpose: it is a way to provoke early wakes, not a way to skip time. To
skip time use ``forward``, which moves both.
"""

import threading
import time
from datetime import UTC, datetime, timedelta

ENVIRONMENT_NAME = "FLOWCORE_CLOCK_OFFSET"


class StackClock:
    """Aware UTC instants of the stack; safe to share between threads."""

    def __init__(self, *, factor: float = 1.0, offset: timedelta = timedelta()) -> None:
        if factor <= 0:
            raise ValueError(f"A clock needs a positive factor, got {factor!r}.")
        self._factor = factor
        self._offset = offset
        self._started = time.time()
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """The movers' time."""
        with self._lock:
            elapsed = time.time() - self._started
            seconds = self._started + elapsed * self._factor
            return datetime.fromtimestamp(seconds, UTC) + self._offset

    @property
    def offset(self) -> timedelta:
        """What ``forward`` has added up to so far, the starting offset included; the handlers' share of this clock."""
        with self._lock:
            return self._offset

    def forward(self, step: timedelta) -> None:
        """Move everybody's time on by ``step``; a clock never goes back."""
        if step < timedelta():
            raise ValueError(f"Time only moves forward, got {step!r}.")
        with self._lock:
            self._offset += step

    def environment(self) -> dict[str, str]:
        """What a handler process has to be told to agree with this clock: seconds as a decimal number."""
        return {ENVIRONMENT_NAME: f"{self.offset.total_seconds():.6f}"}
