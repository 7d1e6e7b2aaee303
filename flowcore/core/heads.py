"""The head of a run after each thing that can happen to it. The only file that makes a new head.

Knows no clock and no store. A status changes only along a row of ``RUN_CHANGES``; anything else is an
``InvariantError``, because it would mean that this library contradicts itself. ``due`` is part of each change: a run
that somebody must act upon is never without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from flowcore.authoring.graph import Hooks
from flowcore.errors import InvariantError
from flowcore.model import NO_TRACE, RUN_CHANGES, Head, Json, RunStatus, StepFailure, StepRecord
from flowcore.parcels import replace

QUEUED_GRACE = timedelta(seconds=5)
"""How long a hint may be on its way before the sweeper sends another."""
WAKE_GRACE = timedelta(seconds=90)
"""How late a wake may be before the sweeper sends a hint: Scheduler is precise to a minute."""
LEASE_GRACE = timedelta(seconds=30)
"""How long after a lease has run out the sweeper takes its holder for dead."""

LATEST = datetime.max.replace(microsecond=999_000, tzinfo=UTC)
"""Where the calendar ends, in whole milliseconds."""

CHILDREN = "children"
"""Stands in the outbox for the children that have to be canceled."""
REMOVAL_GRACE = timedelta(minutes=15)
"""How long removing an expired run may take before another worker does it: no worker lives longer."""


def later(instant: datetime, by: timedelta) -> datetime:
    """``instant`` and so much more, but no later than the calendar: who sleeps until its end means for ever."""
    return instant + min(by, LATEST - instant)


def queued(head: Head, now: datetime) -> Head:
    """The run waits for a worker. One that is being driven stays so: its driver will see the new version."""
    if head.status in (RunStatus.RUNNING, RunStatus.PAUSED):
        return _moved(head, head.status, now, **_told_of_waits(head))
    return _moved(head, RunStatus.QUEUED, now, wake=None, due=now + QUEUED_GRACE, blocked=None)


def requeued(head: Head, now: datetime) -> Head:
    """Whatever held the run up is over: a worker shall take it."""
    return _moved(head, RunStatus.QUEUED, now, wake=None, due=now + QUEUED_GRACE, blocked=None)


def held(head: Head, now: datetime, *, owner: str, lease_until: datetime) -> Head:
    """The run is driven by ``owner`` until ``lease_until``, under a new epoch."""
    return _moved(
        head,
        RunStatus.RUNNING,
        now,
        epoch=head.epoch + 1,
        attempts=head.attempts + 1,
        owner=owner,
        lease_until=lease_until,
        wake=None,
        due=lease_until + LEASE_GRACE,
        blocked=None,
    )


def renewed(head: Head, now: datetime, lease_until: datetime | None = None) -> Head:
    """Whoever drives the run goes on driving it; with ``lease_until`` so long, which may be shorter than before."""
    lease = {} if lease_until is None else {"lease_until": lease_until, "due": lease_until + LEASE_GRACE}
    return _moved(head, RunStatus.RUNNING, now, **lease)


@dataclass(frozen=True, slots=True)
class Open:
    """Since when and until when somebody is asked, all that a head tells of it."""

    at: datetime
    until: datetime | None


def parked(
    head: Head, now: datetime, status: RunStatus, wake: datetime | None, waits: Sequence[StepRecord | Open] = ()
) -> Head:
    """Nothing to do until ``wake`` or an answer to one of ``waits``, the open suspensions."""
    since = [record.at for record in waits]
    deadlines = [record.until for record in waits if record.until is not None]
    return _moved(
        head,
        status,
        now,
        owner=None,
        lease_until=None,
        attempts=0,
        hops=0,
        wake=wake,
        due=None if wake is None else later(wake, WAKE_GRACE),
        waiting_since=min(since, default=None),
        deadline=min(deadlines, default=None),
        blocked=None,
    )


def handed_on(head: Head, now: datetime, *, has_moved: bool = False) -> Head:
    """The worker ran out of time; another one goes on at once. ``has_moved``: something was done by this one."""
    return _moved(
        head,
        RunStatus.QUEUED,
        now,
        owner=None,
        lease_until=None,
        attempts=0,
        hops=1 if has_moved else head.hops + 1,
        wake=None,
        due=now + QUEUED_GRACE,
    )


def taken_away(head: Head, now: datetime) -> Head:
    """Somebody believes the worker dead: another one shall go on, and the first is fenced off if it lives."""
    return replace(handed_on(head, now), epoch=head.epoch + 1, hops=head.hops)


def finished(head: Head, now: datetime, *, output: Json = None, failure: StepFailure | None = None) -> Head:
    """The end: SUCCESS with an output, or FAILED with a failure."""
    status = RunStatus.SUCCESS if failure is None else RunStatus.FAILED
    return _moved(
        head,
        status,
        now,
        owner=None,
        lease_until=None,
        attempts=0,
        wake=None,
        due=None,
        output=output,
        failure=failure,
    )


def blocked(head: Head, now: datetime, reason: str) -> Head:
    """The code at hand does not fit what the run has done: it stands still until somebody acts."""
    return _moved(
        head, RunStatus.BLOCKED, now, owner=None, lease_until=None, attempts=0, wake=None, due=None, blocked=reason
    )


def paused(head: Head, now: datetime) -> Head:
    """An operator, or a debugger, stops the run; whoever drives it stores what he has in hand, and begins nothing more.

    Hence no new epoch: nobody else has the run, and what lives would be taken for dead. Whoever takes it up brings one.
    """
    return _moved(
        head,
        RunStatus.PAUSED,
        now,
        owner=None,
        lease_until=None,
        attempts=0,
        wake=None,
        due=None,
        **_told_of_waits(head),
    )


def reborn(head: Head, now: datetime, incarnation: int) -> Head:
    """The run begins a new life, QUEUED, whatever became of the one before; its worker, if any, is fenced off."""
    return replace(
        head,
        status=RunStatus.QUEUED,
        version=head.version + 1,
        epoch=head.epoch + 1,
        updated_at=max(head.updated_at, now),
        incarnation=incarnation,
        effects=None,
        owner=None,
        lease_until=None,
        attempts=0,
        hops=0,
        wake=None,
        due=now + QUEUED_GRACE,
        output=None,
        failure=None,
        blocked=None,
        canceled_by=None,
        waiting_since=None,
        deadline=None,
        expires_at=None,
        outbox=(),
        told_of=0,
    )


def redriven(head: Head, now: datetime, incarnation: int) -> Head:
    """A failed run goes on in a new life; what its steps did outside is known there under the keys of the old one."""
    return replace(reborn(head, now, incarnation), effects=head.effects or head.incarnation)


def canceled(head: Head, now: datetime, by: str | None = None) -> Head:
    """Canceled; whoever drives the run is fenced off by the new epoch."""
    return _moved(
        head,
        RunStatus.CANCELED,
        now,
        epoch=head.epoch + 1,
        owner=None,
        lease_until=None,
        wake=None,
        due=None,
        canceled_by=by,
    )


def owing(head: Head, hooks: Hooks, until: datetime, last: int | None = None) -> Head:
    """The same outcome with the hooks it calls for; whoever writes it calls them, and is given up ``until``.

    ``last`` is the number of the last thing that has happened, None where that is not known: a run that is parked again
    and to which nothing has happened since it was told of, because only a reminder was due, has no other outcome.
    """
    wanted = {
        RunStatus.SUSPENDED: ("on_suspend",),
        RunStatus.FAILED: ("on_error", "on_finish"),
        RunStatus.SUCCESS: ("on_finish",),
        RunStatus.CANCELED: ("on_finish",),
    }
    is_told = head.status is RunStatus.SUSPENDED and last is not None and last <= head.told_of
    names = () if is_told else wanted.get(head.status, ())
    owed = tuple(name for name in names if getattr(hooks, name) is not None)
    return replace(head, outbox=owed, due=min(until, head.due or until)) if owed else head


def owing_children(head: Head, until: datetime) -> Head:
    """The same end with children that have to be told of it; whoever writes it does so, and is given up ``until``."""
    return replace(head, outbox=(CHILDREN, *head.outbox), due=min(until, head.due or until))


def taken_up(head: Head, until: datetime) -> Head:
    """Another worker will call the hooks that are owed, and is given up ``until``; of an end it is counted how many."""
    wake = until if head.wake is None else later(head.wake, WAKE_GRACE)
    attempts = head.attempts + head.is_terminal
    return replace(head, version=head.version + 1, attempts=attempts, due=min(until, wake))


def told(head: Head, last: int | None = None) -> Head:
    """The hooks have been called: nobody need look again, but for a suspension's deadline, or when the run expires.

    ``last``: of a suspension, the number of the last thing that had happened; see ``owing``.
    """
    due = head.expires_at if head.wake is None else later(head.wake, WAKE_GRACE)
    told_of = head.told_of if last is None else max(head.told_of, last)
    return replace(head, version=head.version + 1, outbox=(), due=due, told_of=told_of)


def kept_for(head: Head, retention: timedelta | None) -> Head:
    """The same, expiring ``retention`` after its end, if it has ended; ``due`` then has somebody remove it."""
    if retention is None or not head.is_terminal:
        return head
    expires_at = head.updated_at + retention
    return replace(head, expires_at=expires_at, due=expires_at)


def removed(head: Head, now: datetime) -> Head:
    """An ended run is being removed by whoever wrote this, who is given up after a while.

    By the run's own clock it has expired from now on, so nobody whose clock is behind brings it back to life.
    """
    at = max(head.updated_at, now)
    expires_at = at if head.expires_at is None else min(at, head.expires_at)
    due = now + REMOVAL_GRACE
    return replace(head, version=head.version + 1, updated_at=at, outbox=(), expires_at=expires_at, due=due)


def buried(head: Head, now: datetime) -> Head:
    """What stays for a while of an ended run that is removed: that it was there, and nothing of what it held."""
    return replace(
        removed(head, now),
        input=None,
        input_hash="",
        output=None,
        failure=None,
        blocked=None,
        resource_id=None,
        started_by=None,
        canceled_by=None,
        state={},
        request_context={},
        trace=NO_TRACE,
        continued=None,
        waiting_since=None,
        deadline=None,
    )


def _told_of_waits(head: Head) -> dict[str, Any]:
    """What a listing of waits was told of a parked run; a pause changes nothing about it."""
    return {"waiting_since": head.waiting_since, "deadline": head.deadline}


def _moved(head: Head, status: RunStatus, now: datetime, **changes: Any) -> Head:
    if head.is_terminal:
        raise InvariantError(f"run {head.run.id!r} at version {head.version} has ended; nothing may change it")
    if status not in RUN_CHANGES[head.status]:
        raise InvariantError(
            f"run {head.run.id!r} at version {head.version} cannot go from {head.status.value} to {status.value}"
        )
    return replace(
        head,
        status=status,
        version=head.version + 1,
        updated_at=max(head.updated_at, now),
        **{"outbox": (), "waiting_since": None, "deadline": None, **changes},
    )
