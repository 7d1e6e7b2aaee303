"""What must hold of a run after every write, whoever wrote it: checked while it happens, by a store that watches.

The checks are plain functions of what stood there before and after, so any store can be held to them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from threading import RLock
from typing import Any, TypeVar

from flowcore.authoring.graph import Graph
from flowcore.core.actions import Finish, Park
from flowcore.core.decide import decide
from flowcore.core.evolve import fold
from flowcore.core.fan import fans_of
from flowcore.keys import RunRef, Scope, StepKey, item_of
from flowcore.model import (
    EVERY_RUN,
    RUN_CHANGES,
    SELF_MOVING,
    STEP_CHANGES,
    TERMINAL,
    Head,
    Join,
    Listener,
    Mail,
    Outcome,
    Page,
    PublicStatus,
    RunFilter,
    RunStatus,
    RunSummary,
    Sent,
    StepRecord,
    Topic,
)
from flowcore.ports import Claimed, EventTaken, HeadMoved, NotClaimable, RecordMoved, Records, Store, Written

T = TypeVar("T")


class Violation(AssertionError):  # it is named in tests as what it is
    """A run is in a state that must not exist; the message lists every broken rule."""


def head_violations(before: Head | None, after: Head) -> Iterator[str]:
    """What a head must never do, given the one it replaced (None: the run is new)."""
    if after.status in SELF_MOVING and after.due is None:
        yield f"{after.status} without due: nobody would look again"
    yield from _due_violations(after)
    if (after.status is RunStatus.RUNNING) is not (after.owner is not None and after.lease_until is not None):
        yield f"{after.status} with owner {after.owner!r} and lease {after.lease_until}"
    if before is None:
        return
    is_told = bool(before.outbox) and after.status is before.status
    if after.status not in RUN_CHANGES[before.status] and after.incarnation == before.incarnation and not is_told:
        yield f"{before.status} became {after.status}"
    if after.version != before.version + 1:
        yield f"version {before.version} became {after.version}"
    if after.epoch < before.epoch:
        yield f"epoch {before.epoch} became {after.epoch}"
    if after.updated_at < before.updated_at:
        yield f"the run's clock went back from {before.updated_at} to {after.updated_at}"


def _due_violations(head: Head) -> Iterator[str]:
    """A run that nobody has to look at must not be found by the sweeper; one that owes hooks must."""
    if head.outbox:
        if head.status not in (*TERMINAL, RunStatus.SUSPENDED) or head.due is None:
            yield f"{head.status} with due {head.due} owes {head.outbox}: nobody would call them"
    elif head.status is RunStatus.SUSPENDED:
        if (head.due is None) is not (head.wake is None):
            yield "SUSPENDED with a deadline and without due, or the other way round"
    elif head.is_terminal and head.expires_at is not None:
        if head.due is None or head.due < head.expires_at:
            yield f"{head.status} with due {head.due}, and it expires at {head.expires_at}"
    elif head.status not in SELF_MOVING and head.due is not None:
        yield f"{head.status} with due: the sweeper would never stop"


def record_violations(before: StepRecord | None, after: StepRecord) -> Iterator[str]:
    """What a record must never do, given the one it replaced (None: the first one at its key)."""
    was = None if before is None else before.outcome
    if after.outcome not in STEP_CHANGES[was]:
        yield f"{after.key!r} went from {was} to {after.outcome}"
    if before is not None and after.gen != before.gen + 1:
        yield f"{after.key!r} went from generation {before.gen} to {after.gen}"
    if before is not None and after.seq <= before.seq:
        yield f"{after.key!r} was decided upon after {before.seq}, yet stamped {after.seq}"
    if (after.outcome is Outcome.RESU) and after.answer is None:
        yield f"{after.key!r} is resumed without an answer"


def run_violations(graph: Graph, head: Head, records: Records, joins: Sequence[Join] = ()) -> Iterator[str]:
    """What a run at rest must be: parked and ended heads say exactly what their records say.

    A child says nothing by itself; of a run with children, the joins say what they wait for.
    """
    if head.part is not None:
        return
    snapshot = replace(fold(head, records.values()), fans=fans_of(joins))
    if head.status is RunStatus.SUSPENDED:
        waits = any(record.outcome is Outcome.SUSP for record in records.values())
        if not waits and not any(fan.asking for fan in snapshot.fans.values()):
            yield "SUSPENDED, but nobody can answer"
        decision = decide(graph, snapshot, head.updated_at)
        if not isinstance(decision, Park):
            yield f"SUSPENDED, but there is something to do: {decision}"
    if head.status in (RunStatus.SUCCESS, RunStatus.FAILED):
        decision = decide(graph, snapshot, datetime.max.replace(tzinfo=head.updated_at.tzinfo))
        if not isinstance(decision, Finish):
            yield f"{head.status}, but its records say otherwise: {decision}"


@dataclass(slots=True, eq=False, weakref_slot=True)
class WatchedStore:
    """Any ``Store``, with every write checked while nobody else can write.

    Raises: Violation, from the call that broke a rule.
    """

    inner: Store
    graphs: dict[str, Graph] = field(default_factory=dict)
    """With a run's workflow here, what it looks like at rest is checked as well."""
    answers: dict[tuple[RunRef, int, StepKey, int], str] = field(default_factory=dict)
    """By run, incarnation, key and generation: the digest of the one answer."""
    records: dict[tuple[RunRef, int, StepKey], StepRecord] = field(default_factory=dict)
    """By run, incarnation and key: what was last written there."""
    done: dict[tuple[RunRef, int, StepKey, int], frozenset[int]] = field(default_factory=dict)
    """By run, incarnation, foreach and chunk: the items that are done."""
    takers: dict[tuple[Topic, str], tuple[str, str]] = field(default_factory=dict)
    """By topic and event: the one wait it settled."""
    _lock: Any = field(default_factory=RLock, repr=False)

    def start(self, head: Head) -> Head | None:
        """See ``Store.start``."""
        return self._watched(head.run, lambda: self.inner.start(head))

    def claim(
        self, run: RunRef, *, owner: str, now: datetime, lease_until: datetime, due: datetime
    ) -> Claimed | NotClaimable:
        """See ``Store.claim``."""
        return self._watched(run, lambda: self.inner.claim(run, owner=owner, now=now, lease_until=lease_until, due=due))

    def load(self, run: RunRef, head: Head | None = None, *, everything: bool = False) -> tuple[Head, Records] | None:
        """See ``Store.load``."""
        return self.inner.load(run, head, everything=everything)

    def peek(self, run: RunRef) -> Head | None:
        """See ``Store.peek``."""
        return self.inner.peek(run)

    def commit(
        self, run: RunRef, incarnation: int, record: StepRecord, prior: StepRecord | None
    ) -> Written | RecordMoved:
        """See ``Store.commit``."""
        with self._lock:
            reply = self.inner.commit(run, incarnation, record, prior)
            if isinstance(reply, Written):
                self._judge(run, self._noted(run, incarnation, record))
            return reply

    def release(self, head: Head, *, epoch: int, version: int) -> Written | HeadMoved:
        """See ``Store.release``."""
        return self._watched(head.run, lambda: self.inner.release(head, epoch=epoch, version=version))

    def resume(
        self, head: Head, record: StepRecord, *, version: int, prior: StepRecord, taken: Sent | None = None
    ) -> Written | HeadMoved | RecordMoved | EventTaken:
        """See ``Store.resume``."""
        with self._lock:
            write = partial(self.inner.resume, head, record, version=version, prior=prior, taken=taken)
            reply = self._watched(head.run, write)
            if isinstance(reply, Written):
                self._judge(head.run, self._noted(head.run, head.incarnation, record))
                self._judge(head.run, self._taken(taken))
            return reply

    def open_join(self, run: RunRef, join: Join) -> None:
        """See ``Joins.open_join``."""
        self.inner.open_join(run, join)

    def join(self, run: RunRef, added: Join, *, unparked: Collection[int] = ()) -> Join | None:
        """See ``Joins.join``."""
        with self._lock:
            joined = self.inner.join(run, added, unparked=unparked)
            if joined is not None:
                self._judge(run, self._untrue(run, joined))
            return joined

    def joins(self, run: RunRef, incarnation: int | None = None, key: StepKey | None = None) -> Sequence[Join]:
        """See ``Joins.joins``."""
        return self.inner.joins(run, incarnation, key)

    def scope(self, run: RunRef, incarnation: int, scope: Scope) -> Records:
        """See ``Joins.scope``."""
        return self.inner.scope(run, incarnation, scope)

    def listen(self, listener: Listener) -> None:
        """See ``Mailbox.listen``."""
        self.inner.listen(listener)

    def unlisten(self, listener: Listener) -> None:
        """See ``Mailbox.unlisten``."""
        self.inner.unlisten(listener)

    def keep(self, sent: Sent) -> Sent | None:
        """See ``Mailbox.keep``."""
        return self.inner.keep(sent)

    def mail(self, topic: Topic, now: datetime) -> Mail:
        """See ``Mailbox.mail``."""
        return self.inner.mail(topic, now)

    def move(self, head: Head, *, version: int) -> Written | HeadMoved:
        """See ``Store.move``."""
        return self._watched(head.run, lambda: self.inner.move(head, version=version))

    def delete(self, run: RunRef, *, last: Head | None = None) -> bool:
        """See ``Store.delete``."""
        with self._lock:
            is_gone = self.inner.delete(run, last=last)
            if is_gone:
                self.records = {place: record for place, record in self.records.items() if place[0] != run}
                self.answers = {place: answer for place, answer in self.answers.items() if place[0] != run}
            return is_gone

    def cancel(self, run: RunRef, *, now: datetime) -> Head | None:
        """See ``Store.cancel``."""
        return self._watched(run, lambda: self.inner.cancel(run, now=now))

    def due(self, now: datetime, *, limit: int) -> Sequence[RunRef]:
        """See ``Store.due``."""
        return self.inner.due(now, limit=limit)

    def list_runs(self, tenant: str, wanted: RunFilter = EVERY_RUN, **paging: Any) -> Page[RunSummary]:
        """See ``Store.list_runs``."""
        return self.inner.list_runs(tenant, wanted, **paging)

    def count_runs(self, tenant: str, wanted: RunFilter = EVERY_RUN) -> Mapping[PublicStatus, int]:
        """See ``Store.count_runs``."""
        return self.inner.count_runs(tenant, wanted)

    def audit(self, run: RunRef) -> None:
        """Whether the run's records are exactly what was written. Raises: Violation."""
        loaded = self.inner.load(run, everything=True)
        if loaded is None:
            return
        standing = {(run, loaded[0].incarnation, key): record for key, record in loaded[1].items()}
        ours = {place: r for place, r in self.records.items() if place[:2] == (run, loaded[0].incarnation)}
        changed = [key for key in standing.keys() | ours.keys() if standing.get(key) != ours.get(key)]
        self._judge(run, (f"{key!r} changed without a write" for _, _, key in changed))

    def _watched(self, run: RunRef, write: Callable[[], T]) -> T:
        with self._lock:
            before = self.inner.peek(run)
            reply = write()
            after = self.inner.peek(run)
            if after is not None and after != before:
                self._judge(run, self._head_found(before, after))
            return reply

    def _head_found(self, before: Head | None, after: Head) -> Iterator[str]:
        yield from head_violations(before, after)
        graph = self.graphs.get(after.workflow)
        if graph is not None and after.status in (RunStatus.SUSPENDED, *TERMINAL):
            loaded = self.inner.load(after.run, after)
            joins = self.inner.joins(after.run, after.incarnation) if graph.fans_out else ()
            yield from run_violations(graph, after, loaded[1] if loaded else {}, joins)

    def _noted(self, run: RunRef, incarnation: int, record: StepRecord) -> Iterator[str]:
        before = self.records.get((run, incarnation, record.key))
        self.records[run, incarnation, record.key] = record
        yield from record_violations(before, record)
        if record.outcome is Outcome.RESU and record.answer is not None:
            occurrence = (run, incarnation, record.key, record.gen)
            if self.answers.setdefault(occurrence, record.answer.digest) != record.answer.digest:
                yield f"{record.key!r} was answered twice in generation {record.gen}"

    def _untrue(self, run: RunRef, join: Join) -> Iterator[str]:
        """An item counts as done only when its record stands in the run, and a join never forgets one."""
        standing = self.inner.scope(run, join.incarnation, Scope(join.key))
        for index in sorted(join.done):
            record = standing.get(item_of(join.key, index))
            if record is None or not record.is_settled:
                yield f"item {index} of {join.key!r} counts as done and has no outcome"
        place = (run, join.incarnation, join.key, join.chunk)
        if forgotten := self.done.get(place, frozenset()) - join.done:
            yield f"items {sorted(forgotten)} of {join.key!r} are done no more"
        self.done[place] = join.done

    def _taken(self, taken: Sent | None) -> Iterator[str]:
        if taken is not None and taken.taker is not None:
            first = self.takers.setdefault((taken.topic, taken.id), taken.taker)
            if first != taken.taker:
                yield f"event {taken.id!r} settled {first} and {taken.taker}"

    def _judge(self, run: RunRef, found: Iterator[str]) -> None:
        broken = list(found)
        if broken:
            raise Violation(f"run {run.id!r}: " + "; ".join(broken))
