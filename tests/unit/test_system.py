"""The real clock and real chance are as the ports promise."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

from flowcore.adapters.system import SystemClock, SystemIds


def test_the_clock_shows_whole_milliseconds_in_utc() -> None:
    """And the time of day."""
    now = SystemClock().now()
    assert UTC == now.tzinfo
    assert 0 == now.microsecond % 1000
    assert abs(datetime.now(UTC) - now) < timedelta(seconds=5)


def test_the_clock_can_be_shifted() -> None:
    """To play a machine whose clock is wrong."""
    shifted = SystemClock(timedelta(minutes=10)).now() - SystemClock().now()
    assert abs(shifted - timedelta(minutes=10)) < timedelta(seconds=5)


def test_waiting_ends_when_the_instant_has_come() -> None:
    """Not before, and at once for one in the past."""
    clock = SystemClock()
    instant = clock.now() + timedelta(milliseconds=5)
    clock.wait_until(instant)
    assert clock.now() >= instant
    clock.wait_until(instant - timedelta(days=1))


def test_ids_are_fresh_and_sort_by_time() -> None:
    """26 lower-case letters and digits."""
    ids = SystemIds()
    earlier = {ids.fresh() for _ in range(1000)}
    time.sleep(0.002)
    later = ids.fresh()
    assert 1000 == len(earlier)
    assert all(re.fullmatch(r"[0-9a-z]{26}", each) for each in earlier)
    assert max(earlier) < later


def test_draws_lie_between_0_and_1() -> None:
    """1 excluded."""
    assert all(0 <= SystemIds().draw() < 1 for _ in range(100))
