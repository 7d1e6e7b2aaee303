"""Time and chance in a test's own hands: nothing here looks at the machine's clock, and no test ever sleeps."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from threading import Lock

_BEGIN = datetime(2026, 1, 1, 9, 0, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


class VirtualClock:
    """``flowcore.ports.Clock`` that moves only when told to; whoever waits on it moves it.

    Example:
        >>> from datetime import timedelta
        >>> from flowcore.testing import VirtualClock
        >>> clock = VirtualClock()
        >>> before = clock.now()
        >>> clock.forward(days=3)
        >>> clock.now() - before == timedelta(days=3)
        True
    """

    def __init__(self, at: datetime = _BEGIN) -> None:
        self._lock = Lock()
        self._now = _whole_ms(at)
        self._alarms: dict[int, tuple[datetime, Callable[[], None]]] = {}
        self._numbers = count()

    def now(self) -> datetime:
        """See ``Clock.now``."""
        return self._now

    def wait_until(self, instant: datetime) -> None:
        """See ``Clock.wait_until``; time jumps there at once."""
        with self._lock:
            self._now = max(self._now, _whole_ms(instant))
        self._ring()

    def forward(
        self,
        pause: timedelta = timedelta(0),
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
    ) -> None:
        """Move by the sum of what is given; a negative sum sets the clock back, as a bad time server would."""
        whole = pause + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        with self._lock:
            self._now = _whole_ms(self._now + whole)
        self._ring()

    @contextmanager
    def alarm(self, instant: datetime, ring: Callable[[], None]) -> Iterator[None]:
        """Inside, ``ring`` is called once the clock stands at ``instant`` or later, by whoever moves it there."""
        number = next(self._numbers)
        self._alarms[number] = (instant, ring)
        try:
            self._ring()
            yield
        finally:
            self._alarms.pop(number, None)

    def _ring(self) -> None:
        for number, (instant, ring) in list(self._alarms.items()):
            if instant <= self._now and self._alarms.pop(number, None) is not None:
                ring()


class ShiftedClock:
    """Another machine's clock: ``offset`` away from the clock it follows, until it jumps."""

    def __init__(self, clock: VirtualClock, offset: timedelta) -> None:
        self._clock = clock
        self._offset = offset

    def now(self) -> datetime:
        """See ``Clock.now``."""
        return _whole_ms(self._clock.now() + self._offset)

    def wait_until(self, instant: datetime) -> None:
        """See ``Clock.wait_until``."""
        self._clock.wait_until(instant - self._offset)

    def jump(self, by: timedelta) -> None:
        """Set this clock on, or back, as a time server that corrects it would; the one it follows stays."""
        self._offset += by

    def alarm(self, instant: datetime, ring: Callable[[], None]) -> AbstractContextManager[None]:
        """See ``VirtualClock.alarm``."""
        return self._clock.alarm(instant - self._offset, ring)


class SeededIds:
    """``flowcore.ports.Ids`` that gives the same names and draws for the same seed."""

    def __init__(self, seed: int = 0) -> None:
        self._chance = random.Random(seed)  # repeatable on purpose
        self._lock = Lock()
        self._made = 0

    def fresh(self) -> str:
        """See ``Ids.fresh``: ten characters that count, sixteen of chance."""
        with self._lock:
            self._made += 1
            counted = "".join(_ALPHABET[self._made >> shift & 31] for shift in range(45, -1, -5))
            return counted + "".join(self._chance.choices(_ALPHABET, k=16))

    def draw(self) -> float:
        """See ``Ids.draw``."""
        with self._lock:
            return self._chance.random()


def _whole_ms(instant: datetime) -> datetime:
    """The first whole millisecond that is not before ``instant``: a wait must never end early."""
    return instant + (-(instant - _BEGIN) % _MS)
