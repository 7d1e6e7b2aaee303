"""Fold what happened into a snapshot. The only file that makes a new record or a new head.

Knows no clock and no store. A status changes only along a row of the tables in ``model.py``; anything else is an
``InvariantError``, because it would mean that this library contradicts itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeAlias, assert_never

from flowcore.authoring.graph import Hooks
from flowcore.errors import InvariantError
from flowcore.keys import Scope, StepKey, scope_of, scopes_of
from flowcore.model import (
    NO_CHANGE,
    RUN_CHANGES,
    STEP_CHANGES,
    Answer,
    Delta,
    Head,
    Json,
    Outcome,
    RunStatus,
    Snapshot,
    StepFailure,
    StepRecord,
)
from flowcore.pmap import PMap

QUEUED_GRACE = timedelta(seconds=5)
"""How long a hint may be on its way before the sweeper sends another."""
WAKE_GRACE = timedelta(seconds=90)
"""How late a wake may be before the sweeper sends a hint: Scheduler is precise to a minute."""
LEASE_GRACE = timedelta(seconds=30)
"""How long after a lease has run out the sweeper takes its holder for dead."""

REMOVAL_GRACE = timedelta(minutes=15)
"""How long removing an expired run may take before another worker does it: no worker lives longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a step changed in the shared values, as plain JSON; a removed key of the context is in ``removed``."""

    state: Mapping[str, Json] = field(default_factory=dict)
    context: Mapping[str, Json] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()

    def stamped(self, seq: int) -> Delta:
        """The same with the order of the record that carries it."""
        if not (self.state or self.context or self.removed):
            return NO_CHANGE
        kept: dict[str, tuple[int, Json] | tuple[int]] = {name: (seq, value) for name, value in self.context.items()}
        gone: dict[str, tuple[int, Json] | tuple[int]] = dict.fromkeys(self.removed, (seq,))
        return Delta(state={name: (seq, value) for name, value in self.state.items()}, context=kept | gone)


NOTHING = Changes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """A step, map, branch or container has its result; ``bailed``: and ends the workflow around it."""

    key: StepKey
    output: Json
    started_at: datetime
    attempt: int = 1
    bailed: bool = False
    changes: Changes = NOTHING
    closes: Scope | None = None
    """The scope whose changes to the shared values now become visible outside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A step, function or container has failed for good."""

    key: StepKey
    failure: StepFailure
    started_at: datetime
    attempt: int = 1
    closes: Scope | None = None
    """The scope that is never loaded again; what succeeded in it keeps its changes to the shared values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedOnce:
    """A try has failed; there is another one at ``until``."""

    key: StepKey
    failure: StepFailure
    started_at: datetime
    attempt: int
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspended:
    """A step waits for an answer, or an entry for an event, at most until ``until``."""

    key: StepKey
    payload: Json = None
    label: str | None = None
    listens: tuple[str, str] | None = None
    """The name and the key of the event."""
    until: datetime | None
    started_at: datetime
    changes: Changes = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A suspension is settled, by an answer or by its timeout."""

    key: StepKey
    answer: Answer
    changes: Changes = NOTHING
    """What the answer brings along for the request context; the caller's values win."""
    retry_count: int = 0
    """Tries that count as made already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """An entry that waited for an event has got one; its data is the entry's output."""

    key: StepKey
    answer: Answer
    output: Json
    changes: Changes = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class FellAsleep:
    """A sleep ends at ``until``."""

    key: StepKey
    until: datetime
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A container is open. ``value``: a workflow's input, or what a loop's turn ``count`` starts with."""

    key: StepKey
    value: Json
    opens: Scope | None
    count: int | None
    started_at: datetime
    closes: Scope | None = None
    """The scope of the turn before, which is never loaded again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """An entry that was inserted in front of what the run had reached when it took over a new definition."""

    key: StepKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """Another worker was faster; what it committed is what happened."""

    record: StepRecord


Happened: TypeAlias = Succeeded | Failed | FailedOnce | Suspended | Answered | Received | FellAsleep | Opened | Skipped
"""What this worker makes a record of."""
StepEvent: TypeAlias = Happened | Adopted


def fold(head: Head, records: Iterable[StepRecord]) -> Snapshot:
    """The snapshot that a head and loaded records stand for, in whatever order they come."""
    deltas: dict[Scope, Delta] = {}
    kept: dict[StepKey, StepRecord] = {}
    last = 0
    for record in sorted(records, key=lambda record: (record.seq, record.key)):
        kept[record.key] = record
        last = max(last, record.seq)
        if record.delta:
            scope = scope_of(record.key)
            deltas[scope] = deltas.get(scope, NO_CHANGE).merged(record.delta)
    return Snapshot(head=head, records=PMap(kept), deltas=PMap(deltas), last_seq=last)


def evolve(snapshot: Snapshot, event: StepEvent, at: datetime) -> Snapshot:
    """The snapshot after ``event``, which happened ``at``. Raises: InvariantError for a forbidden change."""
    record = event.record if isinstance(event, Adopted) else _record(snapshot, event, at)
    deltas = snapshot.deltas
    if record.delta:
        scope = scope_of(record.key)
        deltas = deltas.set(scope, deltas.get(scope, NO_CHANGE).merged(record.delta))
    return replace(
        snapshot,
        records=snapshot.records.set(record.key, record),
        deltas=deltas,
        last_seq=max(snapshot.last_seq, record.seq),
    )


def kept(snapshot: Snapshot, key: StepKey, output: Json, at: datetime) -> StepRecord:
    """The record of what ``ctx.once`` or ``ctx.emit`` stored; no part of the position, folded in with the next load."""
    return StepRecord(
        key=key,
        outcome=Outcome.OK,
        seq=snapshot.last_seq + 1,
        epoch=snapshot.head.epoch,
        at=at,
        started_at=at,
        output=output,
    )


def _record(snapshot: Snapshot, event: Happened, at: datetime) -> StepRecord:
    """The record that ``event`` leaves at its key, one generation after what stood there."""
    prior = snapshot.records.get(event.key)
    fresh = StepRecord(
        key=event.key,
        outcome=_outcome(event),
        gen=0 if prior is None else prior.gen + 1,
        seq=snapshot.last_seq + 1,
        epoch=snapshot.head.epoch,
        at=at,
        started_at=prior.started_at if prior else getattr(event, "started_at", at),
    )
    allowed = STEP_CHANGES[prior.outcome if prior else None]
    if fresh.outcome not in allowed:
        was = prior.outcome.value if prior else "nothing"
        raise InvariantError(
            f"run {snapshot.head.run.id!r} at version {snapshot.head.version}: "
            f"{event.key!r} cannot go from {was!r} to {fresh.outcome.value!r}"
        )
    return _filled(snapshot, event, fresh, prior)


def _filled(snapshot: Snapshot, event: Happened, fresh: StepRecord, prior: StepRecord | None) -> StepRecord:
    """``fresh`` with what the event says, and with what the place must not forget."""
    memory = (
        fresh
        if prior is None
        else replace(
            fresh,
            payload=prior.payload,
            answer=prior.answer,
            asked=prior.asked,
            spent=prior.spent,
            label=prior.label,
            delta=prior.delta,
            count=prior.count,
            given=prior.given,
            listens=prior.listens,
        )
    )
    match event:
        case Succeeded():
            delta = memory.delta.merged(event.changes.stamped(fresh.seq)).merged(_changes_in(snapshot, event.closes))
            return replace(memory, output=event.output, attempt=event.attempt, delta=delta)
        case Failed():
            delta = memory.delta.merged(_changes_in(snapshot, event.closes))
            return replace(memory, failure=event.failure, attempt=event.attempt, delta=delta)
        case FailedOnce():
            return replace(memory, failure=event.failure, attempt=event.attempt, until=event.until)
        case Suspended():
            return replace(
                memory,
                payload=event.payload,
                label=event.label,
                listens=event.listens,
                until=event.until,
                answer=None,
                asked=None,
                spent=_spent(memory),
                delta=memory.delta.merged(event.changes.stamped(fresh.seq)),
            )
        case Answered():
            delta = memory.delta.merged(event.changes.stamped(fresh.seq))
            asked = None if prior is None else (prior.seq, prior.at, fresh.seq)
            return replace(memory, answer=event.answer, attempt=event.retry_count, delta=delta, asked=asked)
        case Received():
            delta = memory.delta.merged(event.changes.stamped(fresh.seq))
            asked = None if prior is None else (prior.seq, prior.at, fresh.seq)
            return replace(memory, answer=event.answer, output=event.output, delta=delta, asked=asked)
        case FellAsleep():
            return replace(memory, until=event.until)
        case Opened():
            delta = memory.delta.merged(_changes_in(snapshot, event.closes))
            return replace(memory, output=event.value, opens=event.opens, count=event.count, delta=delta)
        case Skipped():
            return memory
        case _:
            assert_never(event)


def _outcome(event: Happened) -> Outcome:
    match event:
        case Succeeded():
            return Outcome.BAIL if event.bailed else Outcome.OK
        case Received():
            return Outcome.OK
        case Failed():
            return Outcome.ERR
        case FailedOnce():
            return Outcome.RETRY
        case Suspended():
            return Outcome.SUSP
        case Answered():
            return Outcome.RESU
        case FellAsleep():
            return Outcome.SLP
        case Opened():
            return Outcome.START
        case Skipped():
            return Outcome.SKIP
        case _:
            assert_never(event)


def _spent(record: StepRecord) -> tuple[Answer, ...]:
    """Earlier answers that carried a key: a late copy of one must not pass for the answer to the next suspension."""
    if record.answer is None or record.answer.idempotency_key is None:
        return record.spent
    return (*record.spent, replace(record.answer, data=None))


def _changes_in(snapshot: Snapshot, scope: Scope | None) -> Delta:
    return NO_CHANGE if scope is None else snapshot.deltas.get(scope, NO_CHANGE)


# -- the shared values ------------------------------------------------------------------------------------------------


def state_at(snapshot: Snapshot, key: StepKey) -> Mapping[str, Json]:
    """The state at ``key``: what the run began with, then per key the latest change in the scopes around it."""
    merged = _seen_from(snapshot, key)
    return {**snapshot.head.state, **{name: stamped[1] for name, stamped in merged.state.items()}}


def context_at(snapshot: Snapshot, key: StepKey) -> Mapping[str, Json]:
    """The request context as the node at ``key`` sees it; a removed key stays removed."""
    merged = _seen_from(snapshot, key).context
    values = {name: value for name, value in snapshot.head.request_context.items() if name not in merged}
    return values | {name: stamped[1] for name, stamped in merged.items() if len(stamped) == 2}


def _seen_from(snapshot: Snapshot, key: StepKey) -> Delta:
    merged = NO_CHANGE
    for scope in scopes_of(key):
        merged = merged.merged(snapshot.deltas.get(scope, NO_CHANGE))
    return merged


# -- the head ---------------------------------------------------------------------------------------------------------


def queued(head: Head, now: datetime) -> Head:
    """The run waits for a worker. One that is being driven stays so: its driver will see the new version."""
    if head.status in (RunStatus.RUNNING, RunStatus.PAUSED):
        return _moved(head, head.status, now, **_told_of_waits(head))
    return _moved(head, RunStatus.QUEUED, now, wake=None, due=now + QUEUED_GRACE)


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
    )


def parked(
    head: Head, now: datetime, status: RunStatus, wake: datetime | None, waits: Sequence[StepRecord] = ()
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
        due=None if wake is None else wake + WAKE_GRACE,
        waiting_since=min(since, default=None),
        deadline=min(deadlines, default=None),
    )


def handed_on(head: Head, now: datetime) -> Head:
    """The worker ran out of time; another one goes on at once."""
    return _moved(
        head,
        RunStatus.QUEUED,
        now,
        owner=None,
        lease_until=None,
        attempts=0,
        hops=head.hops + 1,
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
    """An operator, or a debugger, stops the run; whoever drives it is fenced off."""
    epoch = head.epoch + (head.status is RunStatus.RUNNING)
    return _moved(
        head,
        RunStatus.PAUSED,
        now,
        epoch=epoch,
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
        owner=None,
        lease_until=None,
        attempts=0,
        hops=0,
        wake=None,
        due=now + QUEUED_GRACE,
        output=None,
        failure=None,
        blocked=None,
        waiting_since=None,
        deadline=None,
        expires_at=None,
        outbox=(),
    )


def canceled(head: Head, now: datetime) -> Head:
    """Canceled; whoever drives the run is fenced off by the new epoch."""
    return _moved(
        head, RunStatus.CANCELED, now, epoch=head.epoch + 1, owner=None, lease_until=None, wake=None, due=None
    )


def owing(head: Head, hooks: Hooks, until: datetime) -> Head:
    """The same outcome with the hooks it calls for; whoever writes it calls them, and is given up ``until``."""
    wanted = {
        RunStatus.SUSPENDED: ("on_suspend",),
        RunStatus.FAILED: ("on_error", "on_finish"),
        RunStatus.SUCCESS: ("on_finish",),
        RunStatus.CANCELED: ("on_finish",),
    }
    owed = tuple(name for name in wanted.get(head.status, ()) if getattr(hooks, name) is not None)
    return replace(head, outbox=owed, due=min(until, head.due or until)) if owed else head


def taken_up(head: Head, until: datetime) -> Head:
    """Another worker will call the hooks that are owed, and is given up ``until``."""
    wake = until if head.wake is None else head.wake + WAKE_GRACE
    return replace(head, version=head.version + 1, due=min(until, wake))


def told(head: Head) -> Head:
    """The hooks have been called: nobody need look again, but for a suspension's deadline, or when the run expires."""
    due = head.expires_at if head.wake is None else head.wake + WAKE_GRACE
    return replace(head, version=head.version + 1, outbox=(), due=due)


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
