"""What must hold of a run after every write, whoever wrote it: checked while it happens, by a store that watches.

The checks are plain functions of what stood there before and after, so any store can be held to them. Each sentence
begins with the name of the rule in ``INVARIANTS`` that is broken. What a store cannot see (which input a step got, what
a caller was told, what an undisturbed run becomes) is checked by ``explore``, under the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from threading import RLock
from typing import Any, TypeVar

from flowcore.adapters.dynamodb_items import unbound
from flowcore.authoring.graph import BranchNode, Graph, NestedNode
from flowcore.core.actions import Broken, Decision, Done, Finish, Park, Run
from flowcore.core.decide import decide
from flowcore.core.evolve import fold
from flowcore.core.fan import shard_of
from flowcore.core.rename import as_met
from flowcore.errors import BlobMissing
from flowcore.keys import RunRef, Scope, StepKey, dotted, inside, item_of, scope_of
from flowcore.model import (
    EVERY_RUN,
    RUN_CHANGES,
    SELF_MOVING,
    STEP_CHANGES,
    TERMINAL,
    Answer,
    Head,
    Join,
    Json,
    Listener,
    Mail,
    Outcome,
    Page,
    PublicStatus,
    Receipt,
    RunFilter,
    RunStatus,
    RunSummary,
    Sent,
    StepFailure,
    StepRecord,
    Topic,
)
from flowcore.parcels import bound
from flowcore.ports import (
    Batch,
    Claimed,
    EffectMoved,
    Effects,
    EventTaken,
    HeadMoved,
    NotClaimable,
    RecordMoved,
    Records,
    Store,
    Written,
)

T = TypeVar("T")


INVARIANTS: Mapping[str, str] = {
    "I1": "what is settled never changes, and a place changes only along its table",
    "I2": "a branch is decided once, and only what it chose has run",
    "I3": "a suspension, and an event, is settled once",
    "I4": "whoever has to move by itself has an instant at which the sweeper looks, and nobody else has",
    "I5": "who is suspended has somebody to ask and nothing to do",
    "I6": "who has ended has an outcome for all that was reached",
    "I7": "what a place is given is what was committed before it",
    "I8": "who has ended stays so, and a run changes only along its table",
    "I9": "version, epoch and the run's own clock only grow, and only who holds a lease runs",
    "I10": "whatever goes wrong, the run becomes what it becomes undisturbed",
    "I11": "each place has one idempotency key, and each key one place",
    "I12": "whose answer is told to be applied is whose answer is stored",
}
"""The rules by name."""


_WITHOUT_RECORD = frozenset({"PayloadTooLarge", "InvalidPayload", "TooManyHops"})
"""Failures of whole runs: what failed could not be stored at its place, or has none."""

_BEGINS = (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.PAUSED)
"""What a run is that is sent back, or begins anew."""


class Violation(AssertionError):  # it is named in tests as what it is
    """A run is in a state that must not exist; the message lists every broken rule."""


def head_violations(before: Head | None, after: Head) -> Iterator[str]:
    """What a head must never do, given the one it replaced (None: the run is new)."""
    if after.status in SELF_MOVING and after.due is None:
        yield f"I4 {after.status} without due: nobody would look again"
    yield from _due_violations(after)
    if (after.status is RunStatus.RUNNING) is not (after.owner is not None and after.lease_until is not None):
        yield f"I9 {after.status} with owner {after.owner!r} and lease {after.lease_until}"
    if before is None:
        return
    if after.version != before.version + 1:
        yield f"I9 version {before.version} became {after.version}"
    if after.epoch < before.epoch:
        yield f"I9 epoch {before.epoch} became {after.epoch}"
    if after.status is RunStatus.RUNNING and after.owner != before.owner and after.epoch <= before.epoch:
        yield f"I9 {after.owner!r} holds epoch {after.epoch}, which does not fence off who held the run before"
    if after.updated_at < before.updated_at:
        yield f"I9 the run's clock went back from {before.updated_at} to {after.updated_at}"
    yield from _change_violations(before, after)


def _change_violations(before: Head, after: Head) -> Iterator[str]:
    """Only another incarnation begins what has ended once more; a run ends the same when hooks it owes are told of it.

    So it does when it is about to be removed, and then it may be emptied as well.
    """
    if after.incarnation != before.incarnation:
        if after.status not in _BEGINS:
            yield f"I8 incarnation {after.incarnation} begins {after.status}"
        return
    is_given_up = before.is_terminal and _is_given_up(after)
    stays_so = after.status is before.status and (bool(before.outbox) or is_given_up)
    if after.status not in RUN_CHANGES[before.status] and not stays_so:
        yield f"I8 {before.status} became {after.status}"
    elif is_given_up and (after.output, after.failure) == (None, None):
        return
    elif before.is_terminal and (after.output, after.failure) != (before.output, before.failure):
        yield f"I8 {before.status} stayed so, yet with another outcome"


def _is_given_up(head: Head) -> bool:
    """Whether the run is gone for every reader: it is being removed, and has expired by its own clock."""
    return head.is_expired(head.updated_at)


def _due_violations(head: Head) -> Iterator[str]:
    """A run that nobody has to look at must not be found by the sweeper; one that owes hooks must."""
    if head.outbox:
        if head.status not in (*TERMINAL, RunStatus.SUSPENDED) or head.due is None:
            yield f"I4 {head.status} with due {head.due} owes {head.outbox}: nobody would call them"
    elif head.status is RunStatus.SUSPENDED:
        if (head.due is None) is not (head.wake is None):
            yield "I4 SUSPENDED with a deadline and without due, or the other way round"
    elif head.is_terminal and head.expires_at is not None:
        if head.due is None or head.due < head.expires_at:
            yield f"I4 {head.status} with due {head.due}, and it expires at {head.expires_at}"
    elif head.status not in SELF_MOVING and head.due is not None:
        yield f"I4 {head.status} with due: the sweeper would never stop"


def record_violations(before: StepRecord | None, after: StepRecord, *, skips: bool = False) -> Iterator[str]:
    """What a record must never do, given the one it replaced (None: the first one at its key).

    Args:
        skips: those in between may never have been written.
    """
    was = None if before is None else before.outcome
    if after.outcome not in STEP_CHANGES[was]:
        yield f"I1 {after.key!r} went from {was} to {after.outcome}"
    if before is not None and not (after.gen == before.gen + 1 or (skips and after.gen > before.gen)):
        yield f"I3 {after.key!r} went from generation {before.gen} to {after.gen}"
    if before is not None and after.seq <= before.seq:
        yield f"I7 {after.key!r} was decided upon after {before.seq}, yet stamped {after.seq}"
    if (after.outcome is Outcome.RESU) and after.answer is None:
        yield f"I12 {after.key!r} is resumed without an answer"


def branch_violations(graph: Graph, records: Records) -> Iterator[str]:
    """Arms that have run although no decision chose them."""
    for key in records:
        above, _, name = dotted(key).rpartition(".")
        container = graph.called_at(above) if above else None
        nodes = container.graph.nodes if isinstance(container, NestedNode) else () if above else graph.nodes
        for node in nodes:
            if isinstance(node, BranchNode) and name in [arm.id for arm in node.nodes]:
                decision = records.get(inside(scope_of(key), node.id))
                if decision is None or (isinstance(decision.output, list) and name not in decision.output):
                    yield f"I2 {key!r} has run, which branch {node.id!r} did not choose"


def run_violations(graph: Graph, head: Head, records: Records) -> Iterator[str]:
    """What a run at rest must be: parked and ended heads say exactly what their records say.

    A child says nothing by itself, and of a run that waits for its children only they know.
    """
    if head.part is not None:
        return
    graph, snapshot = as_met(graph, fold(head, records.values()))
    yield from branch_violations(graph, snapshot.records)
    if any(shard_of(record) is not None for record in records.values()):
        return
    if head.status is RunStatus.SUSPENDED:
        if not any(record.outcome is Outcome.SUSP for record in snapshot.records.values()):
            yield "I5 SUSPENDED, but nobody can answer"
        decision = decide(graph, snapshot, head.updated_at)
        if not isinstance(decision, Park):
            yield f"I5 SUSPENDED, but there is something to do: {_told(decision)}"
    if head.status in (RunStatus.SUCCESS, RunStatus.FAILED):
        is_unstorable = head.failure is not None and head.failure.type in _WITHOUT_RECORD
        decision = decide(graph, snapshot, head.updated_at)
        if not is_unstorable and _end_of(decision) != (head.status, head.output, head.failure):
            yield f"I6 {head.status}, but its records say otherwise: {_told(decision)}"


def _end_of(decision: Decision) -> tuple[RunStatus, Json, StepFailure | None] | None:
    """Status, output and failure of a run that ends so; None: it goes on."""
    match decision:
        case Finish(Done(value)):
            return RunStatus.SUCCESS, value, None
        case Finish(Broken(failure)):
            return RunStatus.FAILED, None, failure
        case _:
            return None


def _told(decision: Decision) -> str:
    """A decision in few words: the graph in it would fill pages."""
    match decision:
        case Run(actions, _):
            return ", ".join(f"{type(action).__name__} {action.place.key!r}" for action in actions[:5])
        case Park(status, wake, _):
            return f"{status} until {wake}"
        case Finish(result):
            return f"it is over, {result}"[:300]


@dataclass(slots=True, eq=False, weakref_slot=True)
class WatchedStore:
    """Any ``Store``, with every write checked while nobody else can write.

    Of a value that lies in a blob store ``inner`` does not know, it knows only where: no blob store is ever asked, and
    a rule that would have to look at such a value is not judged.

    Raises: Violation, from the call that broke a rule.
    """

    inner: Store
    graphs: dict[str, Graph] = field(default_factory=dict)
    """With a run's workflow here, what it looks like at rest is checked as well."""
    answers: dict[tuple[RunRef, int, StepKey, int], str] = field(default_factory=dict)
    """By run, incarnation, key and generation: the digest of the one answer."""
    settled: dict[tuple[RunRef, str], Answer] = field(default_factory=dict)
    """By run and wait: the answer that settled it."""
    records: dict[tuple[RunRef, int, StepKey], StepRecord] = field(default_factory=dict)
    """By run, incarnation and key: what was last written there."""
    done: dict[tuple[RunRef, int, StepKey, int], frozenset[int]] = field(default_factory=dict)
    """By run, incarnation, foreach and chunk: the items that are done."""
    takers: dict[tuple[Topic, str], Sent] = field(default_factory=dict)
    """By topic and event: how it was taken by the one wait it settled."""
    is_sure: bool = True
    """Whether every write so far has had an answer."""
    _lock: Any = field(default_factory=RLock, repr=False)

    def start(self, head: Head) -> Head | None:
        """See ``Store.start``."""
        return self._watched(head.run, lambda: self.inner.start(head))

    def start_with(self, head: Head, sent: Sent) -> Head | Sent | None:
        """See ``Store.start_with``."""
        return self._watched(head.run, lambda: self.inner.start_with(head, sent))

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
            reply = self._surely(lambda: self.inner.commit(run, incarnation, record, prior))
            if isinstance(reply, Written):
                self._judge(run, self._noted(run, incarnation, record, prior))
                self._judge(run, self._moved_at_rest(run, incarnation, record))
            return reply

    def commit_with(
        self,
        run: RunRef,
        incarnation: int,
        record: StepRecord,
        prior: StepRecord | None,
        effects: Effects,
        *,
        epoch: int | None = None,
    ) -> Written | RecordMoved | EffectMoved | HeadMoved:
        """See ``Store.commit_with``."""
        with self._lock:
            reply = self._surely(lambda: self.inner.commit_with(run, incarnation, record, prior, effects, epoch=epoch))
            if isinstance(reply, Written):
                self._judge(run, self._noted(run, incarnation, record, prior))
                self._judge(run, self._moved_at_rest(run, incarnation, record))
            return reply

    def release(self, head: Head, *, epoch: int, version: int, batch: Batch = ()) -> Written | HeadMoved | RecordMoved:
        """See ``Store.release``."""
        written = {"batch": batch} if batch else {}
        with self._lock:
            reply = self._watched(head.run, lambda: self.inner.release(head, epoch=epoch, version=version, **written))
            for record, prior in batch if isinstance(reply, Written) else ():
                self._judge(head.run, self._noted(head.run, head.incarnation, record, prior, skips=True))
            return reply

    def bring(
        self,
        incarnation: int,
        records: Sequence[tuple[RunRef, StepRecord]],
        *,
        joins: Sequence[tuple[RunRef, Join]] = (),
        listeners: Sequence[Listener] = (),
    ) -> bool:
        """See ``Store.bring``."""
        with self._lock:
            is_there = self._surely(lambda: self.inner.bring(incarnation, records, joins=joins, listeners=listeners))
            self.is_sure = self.is_sure and is_there
            for run, record in records if is_there else ():
                self._judge(run, self._noted(run, incarnation, record, None))
            return is_there

    def weigh(self, run: RunRef, incarnation: int, record: StepRecord) -> int:
        """See ``Store.weigh``."""
        return self.inner.weigh(run, incarnation, record)

    def resume(
        self,
        head: Head,
        record: StepRecord,
        *,
        version: int,
        prior: StepRecord,
        taken: Sent | None = None,
        silenced: Sequence[Listener] = (),
    ) -> Written | HeadMoved | RecordMoved | EventTaken:
        """See ``Store.resume``."""
        with self._lock:
            options: dict[str, Any] = {"prior": prior, "taken": taken, "silenced": silenced}
            write = partial(self.inner.resume, head, record, version=version, **options)
            reply = self._watched(head.run, write)
            if isinstance(reply, Written):
                self._judge(head.run, self._noted(head.run, head.incarnation, record, prior))
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

    def mail(self, topic: Topic, now: datetime, *, event_id: str | None = None, listeners: bool = True) -> Mail:
        """See ``Mailbox.mail``."""
        return self.inner.mail(topic, now, event_id=event_id, listeners=listeners)

    def move(self, head: Head, *, version: int) -> Written | HeadMoved:
        """See ``Store.move``."""
        return self._watched(head.run, lambda: self.inner.move(head, version=version))

    def delete(self, run: RunRef, *, last: Head | None = None, stays: bool = False) -> bool:
        """See ``Store.delete``."""
        with self._lock:
            is_gone = self.inner.delete(run, last=last, stays=stays)
            if is_gone:
                self.records = {place: record for place, record in self.records.items() if place[0] != run}
                self.answers = {place: answer for place, answer in self.answers.items() if place[0] != run}
                self.settled = {place: answer for place, answer in self.settled.items() if place[0] != run}
            return is_gone

    def cancel(self, run: RunRef, *, now: datetime, by: str | None = None) -> Head | None:
        """See ``Store.cancel``."""
        return self._watched(run, lambda: self.inner.cancel(run, now=now, by=by))

    def note(self, run: RunRef, born: datetime, slot: str, id: str, receipt: Receipt) -> bool:
        """See ``Store.note``."""
        return self.inner.note(run, born, slot, id, receipt)

    def notes(self, run: RunRef, born: datetime) -> Sequence[Receipt]:
        """See ``Store.notes``."""
        return self.inner.notes(run, born)

    def due(self, now: datetime, *, limit: int) -> Sequence[RunRef]:
        """See ``Store.due``."""
        return self.inner.due(now, limit=limit)

    def list_runs(self, tenant: str, wanted: RunFilter = EVERY_RUN, **paging: Any) -> Page[RunSummary]:
        """See ``Store.list_runs``."""
        return self.inner.list_runs(tenant, wanted, **paging)

    def count_runs(self, tenant: str, wanted: RunFilter = EVERY_RUN) -> Mapping[PublicStatus, int]:
        """See ``Store.count_runs``."""
        return self.inner.count_runs(tenant, wanted)

    def audit(self, run: RunRef, *, alone: bool = True) -> None:
        """Whether the run's records, all of them, are what was written and what was decided. Raises: Violation.

        Args:
            alone: nobody has written past this watcher; otherwise others may have, but not over what was settled.
        """
        self._audit(run, {place: r for place, r in self.records.items() if place[0] == run}, alone=alone)

    def audit_all(self) -> None:
        """``audit`` of every run that was written through this watcher, or past it. Raises: Violation."""
        written: dict[RunRef, dict[tuple[RunRef, int, StepKey], StepRecord]] = {}
        for place, record in self.records.items():
            written.setdefault(place[0], {})[place] = record
        for run, records in written.items():
            self._audit(run, records, alone=False)

    def _audit(self, run: RunRef, written: Mapping[tuple[RunRef, int, StepKey], StepRecord], *, alone: bool) -> None:
        loaded = self.inner.load(run, everything=True)
        if loaded is None:
            return
        standing = {(run, loaded[0].incarnation, key): record for key, record in loaded[1].items()}
        ours = {place: record for place, record in written.items() if place[1] == loaded[0].incarnation}
        asked = (
            standing.keys() | ours.keys()
            if alone and self.is_sure
            else {place for place, record in ours.items() if record.is_settled}
        )
        changed = (key for key in asked if standing.get(key) != ours.get(key))
        self._judge(run, (f"I1 {key!r} changed without a write" for _, _, key in changed))
        self._judge(run, self._found_at_rest(loaded[0]))
        self._judge(run, self._found_anywhere(*loaded))

    def _surely(self, write: Callable[[], T]) -> T:
        """A write; one that raises may have happened, and then this watcher no longer knows all that was written."""
        try:
            return write()
        except BaseException:
            self.is_sure = False
            raise

    def _watched(self, run: RunRef, write: Callable[[], T]) -> T:
        with self._lock:
            before = self.inner.peek(run)
            reply = self._surely(write)
            after = self.inner.peek(run)
            if after is not None:
                self._judge(run, self._head_found(before, after))
            return reply

    def _head_found(self, before: Head | None, after: Head) -> Iterator[str]:
        if before is not None and before.version == after.version and before == after:
            return
        yield from head_violations(before, after)
        yield from self._found_at_rest(after)

    def _moved_at_rest(self, run: RunRef, incarnation: int, record: StepRecord) -> Iterator[str]:
        """A record by itself must not give a suspended run something to do: nobody would look."""
        if record.outcome is not Outcome.RESU and not record.is_settled:
            return
        head = self.inner.peek(run)
        if head is not None and head.incarnation == incarnation and head.status is RunStatus.SUSPENDED:
            yield from self._found_at_rest(head)

    def _found_at_rest(self, head: Head) -> Iterator[str]:
        graph = self.graphs.get(head.workflow)
        if graph is None or graph.fingerprint != head.definition:
            return  # judged by other code, its records may well say something else
        if head.status in (RunStatus.SUSPENDED, *TERMINAL) and not _is_given_up(head):
            loaded = self.inner.load(head.run, head)
            yield from run_violations(graph, head, loaded[1] if loaded else {})

    def _found_anywhere(self, head: Head, records: Records) -> Iterator[str]:
        """What lies in containers that have ended is not loaded any more, and no less true."""
        graph = self.graphs.get(head.workflow)
        if graph is not None and graph.fingerprint == head.definition:
            graph, snapshot = as_met(graph, fold(head, records.values()))
            yield from branch_violations(graph, snapshot.records)

    def _noted(
        self, run: RunRef, incarnation: int, record: StepRecord, prior: StepRecord | None, *, skips: bool = False
    ) -> Iterator[str]:
        before = self.records.get((run, incarnation, record.key), prior)
        if before is not None and prior is not None and before.gen < prior.gen:
            before = prior  # somebody has written past this watcher
        record = bound(record, unbound(run, record.key))  # whoever writes it could fetch
        self.records[run, incarnation, record.key] = record
        yield from record_violations(before, record, skips=skips)
        if record.outcome is Outcome.RESU and record.answer is not None:
            occurrence = (run, incarnation, record.key, record.gen)
            if self.answers.setdefault(occurrence, record.answer.digest) != record.answer.digest:
                yield f"I3 {record.key!r} was answered twice in generation {record.gen}"
        if record.answer is not None:
            first = self.settled.setdefault((run, record.answer.wait), record.answer)
            if replace(first, data=None) != replace(record.answer, data=None):
                yield f"I12 {record.answer.wait!r} was settled by {first} and by {record.answer}"

    def _untrue(self, run: RunRef, join: Join) -> Iterator[str]:
        """An item counts as done only when its record stands in the run, and a join never forgets one."""
        place = (run, join.incarnation, join.key, join.chunk)
        before = self.done.get(place, frozenset())
        if forgotten := before - join.done:
            yield f"I1 items {sorted(forgotten)} of {join.key!r} are done no more"
        self.done[place] = join.done
        for key in (item_of(join.key, index) for index in sorted(join.done - before)):
            record = self.records.get((run, join.incarnation, key))
            if record is None:  # written past this watcher
                record = self.inner.scope(run, join.incarnation, Scope(join.key)).get(key)
            if record is None or not record.is_settled:
                yield f"I6 {key!r} counts as done and has no outcome"

    def _taken(self, taken: Sent | None) -> Iterator[str]:
        if taken is not None and taken.taker is not None:
            first = self.takers.get((taken.topic, taken.id))
            if first is None or first.until <= taken.at:  # its id is free again
                self.takers[taken.topic, taken.id] = taken
            elif first.taker != taken.taker:
                yield f"I3 event {taken.id!r} settled {first.taker} and {taken.taker}"

    def _judge(self, run: RunRef, found: Iterator[str]) -> None:
        broken = []
        with suppress(BlobMissing):
            for sentence in found:
                broken.append(sentence)  # noqa: PERF402  # what was found before a value was missing counts
        if broken:
            raise Violation(f"run {run.id!r}: " + "; ".join(broken))
