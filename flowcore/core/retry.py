"""Whether and when a failed step is tried again. Pure: chance comes in as an argument."""

from __future__ import annotations

from datetime import timedelta

from flowcore.authoring.graph import Backoff, Retry


def is_retried(retry: Retry, attempt: int, exception: BaseException) -> bool:
    """Whether there is a try after the failed try ``attempt`` (from 1)."""
    return attempt <= retry.retries and isinstance(exception, retry.on) and not isinstance(exception, retry.never_on)


def pause(backoff: Backoff, attempt: int, jitter: float) -> timedelta:
    """Pause between try ``attempt`` and the next; between 0 and ``backoff.maximum``.

    Args:
        attempt: the try that just failed, from 1.
        jitter: a draw from [0, 1), passed in so that the same call gives the same pause.
    Source: full jitter, AWS Architecture Blog, "Exponential Backoff and Jitter".
    """
    try:
        ceiling = min(backoff.initial * backoff.factor ** (attempt - 1), backoff.maximum)
    except OverflowError:
        ceiling = backoff.maximum
    return ceiling * jitter if backoff.jitter else ceiling
