"""How long things may take: leases, margins, the pauses between two looks. Durations alone; knows no clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long things may take. The defaults suit a Lambda worker."""

    lease: timedelta = timedelta(minutes=15)
    """How long a run is held when the worker has no deadline of its own."""
    lease_slack: timedelta = timedelta(seconds=10)
    """How much longer than the worker's own life its lease lasts."""
    margin: timedelta = timedelta(seconds=3)
    """No step is begun with less than this left: enough to commit, release and hint."""
    short_retry: timedelta = timedelta(seconds=1)
    """A retry this near is waited for in the process: dearer compute, but cheaper than parking and waking."""
    peek: timedelta = timedelta(seconds=1)
    """How often at most the head is read while steps run, to notice a cancel."""
    beat: timedelta = timedelta(seconds=10)
    """How often at most a heartbeat writes or reads anything."""
    notify_again: timedelta = timedelta(minutes=1)
    """The shortest pause before ``notify`` of a suspension is called again, when it failed; it doubles."""
    notify_rarely: timedelta = timedelta(hours=1)
    """The longest."""
    most_turns: int | None = None
    """Hand the run on after this many turns of decide and perform; 1 gives each step a process image of its own."""
    most_hops: int = 10_000
    """Times in a row a run may be handed on, with nothing done in between, before it is held to go in circles; then it
    fails with ``TooManyHops``."""
