"""The real clock and real chance. Nothing else in the library reads either."""

from __future__ import annotations

import os
import random
import time
from datetime import UTC, datetime, timedelta

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32, in rising order, so that ids sort as their numbers do."""


class SystemClock:
    """``flowcore.ports.Clock`` on the machine's time, shifted by ``offset``."""

    def __init__(self, offset: timedelta = timedelta(0)) -> None:
        self._offset = offset

    def now(self) -> datetime:
        """See ``Clock.now``."""
        instant = datetime.now(UTC) + self._offset
        return instant.replace(microsecond=instant.microsecond // 1000 * 1000)

    def wait_until(self, instant: datetime) -> None:
        """See ``Clock.wait_until``."""
        while (left := (instant - self.now()).total_seconds()) > 0:
            time.sleep(left)


class SystemIds:
    """``flowcore.ports.Ids`` from the time and the system's randomness: 48 bits of milliseconds, 80 bits of chance.

    Keeps no state between two calls: a process that Lambda restores twice from one snapshot must not go on twice from
    one seed. Two ids of one millisecond therefore sort by chance.
    """

    def __init__(self) -> None:
        self._chance = random.SystemRandom()

    def fresh(self) -> str:
        """See ``Ids.fresh``."""
        rest = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10))
        return "".join(_ALPHABET[rest >> shift & 31] for shift in range(125, -1, -5))

    def draw(self) -> float:
        """See ``Ids.draw``."""
        return self._chance.random()
