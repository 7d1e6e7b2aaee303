"""Whether a failed step is tried again, and after which pause."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore import Backoff
from flowcore.authoring.graph import Retry
from flowcore.core.retry import is_retried, pause

SECOND = timedelta(seconds=1)
PLAIN = Backoff(initial=SECOND, factor=2, maximum=timedelta(seconds=10), jitter=False)


@pytest.mark.parametrize(
    ("retry", "attempt", "error", "expected"),
    [
        (Retry(), 1, ValueError(), False),
        (Retry(1), 1, ValueError(), True),
        (Retry(1), 2, ValueError(), False),
        (Retry(3), 3, ValueError(), True),
        (Retry(1, on=(OSError,)), 1, ValueError(), False),
        (Retry(1, on=(OSError,)), 1, TimeoutError(), True),
        (Retry(1, never_on=(ValueError,)), 1, UnicodeDecodeError("utf-8", b"", 0, 1, ""), False),
        (Retry(1, never_on=(ValueError,)), 1, KeyError(), True),
        (Retry(1, on=(OSError,), never_on=(TimeoutError,)), 1, TimeoutError(), False),
        (Retry(1), 1, SystemExit(), False),
        (Retry(1, on=(SystemExit,)), 1, SystemExit(), True),
    ],
)
def test_is_retried_counts_and_filters(retry: Retry, attempt: int, error: BaseException, expected: bool) -> None:
    """``retries`` further tries, for the exceptions that are listed and not excluded."""
    assert expected is is_retried(retry, attempt, error)


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (6, 10), (5_000, 10)])
def test_pause_grows_up_to_its_maximum(attempt: int, seconds: int) -> None:
    """Doubling, capped; a try so late that the power overflows is capped as well."""
    assert timedelta(seconds=seconds) == pause(PLAIN, attempt, 0.3)


def test_pause_of_a_factor_of_one_is_fixed() -> None:
    """A fixed delay is a backoff that does not grow."""
    assert [SECOND] * 3 == [pause(Backoff(SECOND, 1.0, jitter=False), attempt, 0.9) for attempt in (1, 2, 50)]


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_pause_with_jitter_stays_in_bounds(attempt: int, jitter: float) -> None:
    """Full jitter: anywhere between nothing and the pause without it."""
    full = Backoff(initial=SECOND, maximum=timedelta(seconds=10))
    assert timedelta(0) <= pause(full, attempt, jitter) <= pause(PLAIN, attempt, jitter)


def test_pause_is_the_draw_of_the_full_pause() -> None:
    """The same draw gives the same pause."""
    assert [timedelta(0), timedelta(seconds=2)] == [pause(Backoff(SECOND), 3, jitter) for jitter in (0.0, 0.5)]


@pytest.mark.parametrize("first", [timedelta(seconds=1), timedelta(hours=6)])
def test_first_pause_that_an_author_gives_is_never_cut_short(first: timedelta) -> None:
    """Longer than the usual maximum, it is the maximum."""
    backoff = replace(Backoff.of(first), jitter=False)

    assert first == pause(backoff, 1, 0.0)
    assert max(first, Backoff().maximum) == pause(backoff, 99, 0.0)
