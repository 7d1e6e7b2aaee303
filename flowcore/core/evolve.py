"""Fold what happened into a snapshot. The only file that makes a new record; heads are made in ``heads.py``.

Knows no clock and no store. An outcome changes only along a row of ``STEP_CHANGES``; anything else is an
``InvariantError``, because it would mean that this library contradicts itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias, assert_never

from flowcore.core.alternatives import each, handed_over, single, voted, with_last_vote
from flowcore.errors import InvariantError
from flowcore.keys import Scope, StepKey, scope_of, scopes_of
from flowcore.model import (
    NO_CHANGE,
    STEP_CHANGES,
    Alternative,
    Answer,
    Delegation,
    Delta,
    Head,
    Json,
    Outcome,
    Snapshot,
    StepFailure,
    StepRecord,
    Terms,
)
from flowcore.parcels import inherit, replace
from flowcore.pmap import PMap


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
    effects: Sequence[Mapping[str, Json]] = ()
    """What the author wants written together with the outcome; see ``flowcore.authoring.effects``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A step, function or container has failed for good."""

    key: StepKey
    failure: StepFailure
    started_at: datetime
    attempt: int = 1
    closes: Scope | None = None
    """The scope that is never loaded again; what succeeded in it keeps its changes to the shared values."""
    unread: Literal["no", "perhaps", "surely"] = "no"
    """Whether nothing was called, because a deploy has changed the type of what was stored for it."""


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
    terms: Terms | None = None
    alternatives: tuple[Alternative, ...] = ()
    """What it waits for, if that is one of several things; payload, label and terms are theirs then."""
    until: datetime | None
    started_at: datetime
    changes: Changes = NOTHING
    effects: Sequence[Mapping[str, Json]] = ()
    """What the author wants written together with the question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A suspension is settled, by an answer or by its timeout."""

    key: StepKey
    answer: Answer
    changes: Changes = NOTHING
    """What the answer brings along for the request context; the caller's values win."""
    retry_count: int = 0
    """Tries that count as made already."""
    instead: str | None = None
    """The stand-in that runs here from now on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One of several answers that a suspension needs; it stays open for the others."""

    key: StepKey
    answer: Answer
    changes: Changes = NOTHING
    """What the answer brings along for the request context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegated:
    """Somebody else votes in the place of an approver; the suspension stays open."""

    key: StepKey
    delegation: Delegation
    choice: str | None = None
    """The alternative it is about."""


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
class Begun:
    """A step that runs at most once is about to be called; ``attempt`` tries of this pass are over."""

    key: StepKey
    attempt: int
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """An entry that was inserted in front of what the run had reached when it took over a new definition."""

    key: StepKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """Another worker was faster; what it committed is what happened."""

    record: StepRecord


Happened: TypeAlias = (
    Succeeded
    | Failed
    | FailedOnce
    | Suspended
    | Answered
    | Counted
    | Delegated
    | Received
    | FellAsleep
    | Begun
    | Opened
    | Skipped
)
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


def beaten(snapshot: Snapshot, key: StepKey, details: Json, prior: StepRecord | None, at: datetime) -> StepRecord:
    """The record of what a heartbeat told, over the one before; no part of the position either."""
    last = max(snapshot.last_seq, -1 if prior is None else prior.seq)
    fresh = kept(replace(snapshot, last_seq=last), key, details, at)
    return replace(fresh, outcome=Outcome.START, gen=0 if prior is None else prior.gen + 1)


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


_REMEMBERED = (
    *("payload", "answer", "asked", "spent", "label", "delta", "count", "given", "listens", "terms", "votes"),
    *("delegations", "alternatives", "instead"),
)
"""What a record hands down to the one that takes its place."""


def _filled(snapshot: Snapshot, event: Happened, fresh: StepRecord, prior: StepRecord | None) -> StepRecord:
    """``fresh`` with what the event says, and with what the place must not forget."""
    memory = fresh if prior is None else inherit(fresh, prior, _REMEMBERED)
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
            fresh = replace(
                memory,
                payload=event.payload,
                label=event.label,
                listens=event.listens,
                terms=event.terms,
                alternatives=event.alternatives,
                votes=(),
                delegations=(),
                until=event.until,
                answer=None,
                asked=None,
                spent=_spent(memory),
                delta=memory.delta.merged(event.changes.stamped(fresh.seq)),
            )
            return single(fresh)
        case Counted() | Delegated():
            return _still(memory, prior, event)
        case Answered():
            memory = with_last_vote(memory, event.answer)
            instead = memory.instead if event.instead is None else (event.instead, fresh.gen)
            delta = memory.delta.merged(event.changes.stamped(fresh.seq))
            asked = None if prior is None else (prior.seq, prior.at, fresh.seq)
            memory = replace(memory, answer=event.answer, attempt=event.retry_count, instead=instead)
            return replace(memory, delta=delta, asked=asked)
        case Received():
            delta = memory.delta.merged(event.changes.stamped(fresh.seq))
            asked = None if prior is None else (prior.seq, prior.at, fresh.seq)
            return replace(memory, answer=event.answer, output=event.output, delta=delta, asked=asked)
        case FellAsleep():
            return replace(memory, until=event.until)
        case Opened():
            delta = memory.delta.merged(_changes_in(snapshot, event.closes))
            return replace(memory, output=event.value, opens=event.opens, count=event.count, delta=delta)
        case Begun():
            return replace(memory, attempt=event.attempt)
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
        case Suspended() | Counted() | Delegated():
            return Outcome.SUSP
        case Answered():
            return Outcome.RESU
        case FellAsleep():
            return Outcome.SLP
        case Opened() | Begun():
            return Outcome.START
        case Skipped():
            return Outcome.SKIP
        case _:
            assert_never(event)


def _still(memory: StepRecord, prior: StepRecord | None, event: Counted | Delegated) -> StepRecord:
    """A suspension that is rewritten is the same one: it keeps its id, its beginning and its deadline."""
    assert prior is not None  # the table of changes has seen to it
    began = prior.gen if prior.began is None else prior.began
    same = replace(memory, at=prior.at, until=prior.until, began=began)
    if isinstance(event, Counted):
        return voted(replace(same, delta=same.delta.merged(event.changes.stamped(same.seq))), event.answer)
    return handed_over(same, event.delegation, event.choice)


def _spent(record: StepRecord) -> tuple[Answer, ...]:
    """Earlier answers that carried a key: a late copy of one must not pass for the answer to the next suspension."""
    given = [replace(answer, data=None, counted=answer != record.answer) for answer in answers_of(record)]
    return (*record.spent, *(answer for answer in given if answer.idempotency_key is not None))


def answers_of(record: StepRecord) -> tuple[Answer, ...]:
    """Every answer to the last suspension at a place, the one that settled it last."""
    answer, votes = record.answer, tuple(vote for one in each(record) for vote in one.votes)
    return votes if answer is None else (*(vote for vote in votes if vote != answer), answer)


def _changes_in(snapshot: Snapshot, scope: Scope | None) -> Delta:
    return NO_CHANGE if scope is None else snapshot.deltas.get(scope, NO_CHANGE)


# -- the shared values ------------------------------------------------------------------------------------------------


def state_at(snapshot: Snapshot, key: StepKey) -> Mapping[str, Json]:
    """The state at ``key``: what the run began with, then per key the latest change in the scopes around it."""
    merged = _seen_from(snapshot, key)
    return {**snapshot.root.state, **{name: stamped[1] for name, stamped in merged.state.items()}}


def context_at(snapshot: Snapshot, key: StepKey) -> Mapping[str, Json]:
    """The request context as the node at ``key`` sees it; a removed key stays removed."""
    merged = _seen_from(snapshot, key).context
    values = {name: value for name, value in snapshot.root.request_context.items() if name not in merged}
    return values | {name: stamped[1] for name, stamped in merged.items() if len(stamped) == 2}


def _seen_from(snapshot: Snapshot, key: StepKey) -> Delta:
    merged = NO_CHANGE
    for scope in scopes_of(key):
        merged = merged.merged(snapshot.deltas.get(scope, NO_CHANGE))
    return merged
