"""What goes wrong around a worker, at will: calls that fail or whose reply is lost, workers that die, unruly hints.

A script decides call by call. It sees each call before it happens and may name a fault, or do something of its own in
between, such as letting another worker drive the same run: what a frozen worker finds when it thaws.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import count
from typing import Any, TypeAlias, TypeVar

from flowcore.errors import BlobsUnavailable, QueueUnavailable, SchedulerUnavailable, StoreUnavailable, Throttled
from flowcore.keys import RunRef, Scope, StepKey
from flowcore.model import (
    EVERY_RUN,
    RUN_CHANGES,
    Head,
    Join,
    Listener,
    Mail,
    Page,
    PublicStatus,
    Receipt,
    RunFilter,
    RunSummary,
    Sent,
    StepRecord,
    Topic,
)
from flowcore.parcels import replace
from flowcore.ports import (
    Batch,
    Blobs,
    Claimed,
    EffectMoved,
    Effects,
    EventTaken,
    HeadMoved,
    Hint,
    NotClaimable,
    Queue,
    RecordMoved,
    Records,
    Scheduler,
    Store,
    Written,
)

T = TypeVar("T")

WRITES = frozenset(
    {
        *("start", "start_with", "claim", "commit", "commit_with", "release", "move", "delete", "resume", "cancel"),
        *("listen", "unlisten", "keep", "note", "open_join", "join", "bring"),
    }
)
"""The store's calls that change something."""


class WorkerDied(BaseException):
    """The worker is gone in the middle of its work. A ``BaseException``: nobody tidies up after a SIGKILL."""


class Fault(StrEnum):
    """What becomes of one call to the store."""

    DIES_BEFORE = "dies-before"
    """The worker dies; the call never happens."""
    DIES_AFTER = "dies-after"
    """The call happens; the worker dies before it can make anything of the reply."""
    FAILS = "fails"
    """The store does not answer; the call never happened."""
    REPLY_LOST = "reply-lost"
    """The store does not answer; the call happened all the same."""
    THROTTLED = "throttled"
    """The store has too much to do and gives up trying; the call never happened."""
    CONFLICT = "conflict"
    """Somebody else writes the same head just before: all that is left of a ``TransactionConflict`` once an adapter has
    tried again. The head stands one version further, otherwise as it was; a write that rests on the version is refused.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call to the store, before it happens."""

    number: int
    """From 1, over all calls of this ``FaultyStore``."""
    verb: str
    run: RunRef | None = None
    record: StepRecord | None = None
    """What a commit or a resume is about to write."""
    batch: Sequence[StepRecord] = ()
    """What a release is about to write beside the head, or what is brought to a life that begins."""


Script: TypeAlias = Callable[[Call], Fault | None]


def at_call(number: int, fault: Fault, *, verbs: frozenset[str] = WRITES) -> Script:
    """A script for one fault: at the call of that number (from 1) among the calls of ``verbs``."""
    seen = count(1)

    def script(call: Call) -> Fault | None:
        return fault if call.verb in verbs and next(seen) == number else None

    return script


def by_chance(
    chance: random.Random,
    rate: float,
    *,
    faults: Sequence[Fault] = tuple(Fault),
    verbs: frozenset[str] = WRITES,
    most: int = 1_000_000,
) -> Script:
    """A script that strikes each call of ``verbs`` with probability ``rate``, at most ``most`` times in all."""
    left = count(most, -1)

    def script(call: Call) -> Fault | None:
        if call.verb not in verbs or chance.random() >= rate or next(left) <= 0:
            return None
        return chance.choice(faults)

    return script


class FaultyStore:
    """Any ``Store``, with faults where ``script`` asks for them."""

    def __init__(self, store: Store, script: Script) -> None:
        self.inner = store
        self.script = script
        self._numbers = count(1)

    def start(self, head: Head) -> Head | None:
        """See ``Store.start``."""
        return self._call("start", lambda: self.inner.start(head), head.run)

    def start_with(self, head: Head, sent: Sent) -> Head | Sent | None:
        """See ``Store.start_with``."""
        return self._call("start_with", lambda: self.inner.start_with(head, sent), head.run)

    def claim(
        self, run: RunRef, *, owner: str, now: datetime, lease_until: datetime, due: datetime
    ) -> Claimed | NotClaimable:
        """See ``Store.claim``."""
        return self._call(
            "claim", lambda: self.inner.claim(run, owner=owner, now=now, lease_until=lease_until, due=due), run
        )

    def load(self, run: RunRef, head: Head | None = None, *, everything: bool = False) -> tuple[Head, Records] | None:
        """See ``Store.load``."""
        return self._call("load", lambda: self.inner.load(run, head, everything=everything), run)

    def peek(self, run: RunRef) -> Head | None:
        """See ``Store.peek``."""
        return self._call("peek", lambda: self.inner.peek(run), run)

    def commit(
        self, run: RunRef, incarnation: int, record: StepRecord, prior: StepRecord | None
    ) -> Written | RecordMoved:
        """See ``Store.commit``."""
        return self._call("commit", lambda: self.inner.commit(run, incarnation, record, prior), run, record)

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
        return self._call(
            "commit_with",
            lambda: self.inner.commit_with(run, incarnation, record, prior, effects, epoch=epoch),
            run,
            record,
        )

    def release(self, head: Head, *, epoch: int, version: int, batch: Batch = ()) -> Written | HeadMoved | RecordMoved:
        """See ``Store.release``."""
        written = {"batch": batch} if batch else {}
        return self._call(
            "release",
            lambda: self.inner.release(head, epoch=epoch, version=version, **written),
            head.run,
            batch=[record for record, _ in batch],
        )

    def bring(
        self,
        incarnation: int,
        records: Sequence[tuple[RunRef, StepRecord]],
        *,
        joins: Sequence[tuple[RunRef, Join]] = (),
        listeners: Sequence[Listener] = (),
    ) -> bool:
        """See ``Store.bring``."""
        return self._call(
            "bring",
            lambda: self.inner.bring(incarnation, records, joins=joins, listeners=listeners),
            next((run for run, _ in (*records, *joins)), None),
            batch=[record for _, record in records],
        )

    def weigh(self, run: RunRef, incarnation: int, record: StepRecord) -> int:
        """See ``Store.weigh``; nothing can go wrong with it."""
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
        return self._call(
            "resume",
            lambda: self.inner.resume(head, record, version=version, prior=prior, taken=taken, silenced=silenced),
            head.run,
            record,
        )

    def open_join(self, run: RunRef, join: Join) -> None:
        """See ``Joins.open_join``."""
        return self._call("open_join", lambda: self.inner.open_join(run, join), run)

    def join(self, run: RunRef, added: Join, *, unparked: Collection[int] = ()) -> Join | None:
        """See ``Joins.join``."""
        return self._call("join", lambda: self.inner.join(run, added, unparked=unparked), run)

    def joins(self, run: RunRef, incarnation: int | None = None, key: StepKey | None = None) -> Sequence[Join]:
        """See ``Joins.joins``."""
        return self._call("joins", lambda: self.inner.joins(run, incarnation, key), run)

    def scope(self, run: RunRef, incarnation: int, scope: Scope) -> Records:
        """See ``Joins.scope``."""
        return self._call("scope", lambda: self.inner.scope(run, incarnation, scope), run)

    def listen(self, listener: Listener) -> None:
        """See ``Mailbox.listen``."""
        return self._call("listen", lambda: self.inner.listen(listener), listener.run)

    def unlisten(self, listener: Listener) -> None:
        """See ``Mailbox.unlisten``."""
        return self._call("unlisten", lambda: self.inner.unlisten(listener), listener.run)

    def keep(self, sent: Sent) -> Sent | None:
        """See ``Mailbox.keep``."""
        return self._call("keep", lambda: self.inner.keep(sent))

    def mail(self, topic: Topic, now: datetime, *, event_id: str | None = None, listeners: bool = True) -> Mail:
        """See ``Mailbox.mail``."""
        return self._call("mail", lambda: self.inner.mail(topic, now, event_id=event_id, listeners=listeners))

    def move(self, head: Head, *, version: int) -> Written | HeadMoved:
        """See ``Store.move``."""
        return self._call("move", lambda: self.inner.move(head, version=version), head.run)

    def delete(self, run: RunRef, *, last: Head | None = None, stays: bool = False) -> bool:
        """See ``Store.delete``."""
        return self._call("delete", lambda: self.inner.delete(run, last=last, stays=stays), run)

    def cancel(self, run: RunRef, *, now: datetime, by: str | None = None) -> Head | None:
        """See ``Store.cancel``."""
        return self._call("cancel", lambda: self.inner.cancel(run, now=now, by=by), run)

    def note(self, run: RunRef, born: datetime, slot: str, id: str, receipt: Receipt) -> bool:
        """See ``Store.note``."""
        return self._call("note", lambda: self.inner.note(run, born, slot, id, receipt), run)

    def notes(self, run: RunRef, born: datetime) -> Sequence[Receipt]:
        """See ``Store.notes``."""
        return self._call("notes", lambda: self.inner.notes(run, born), run)

    def due(self, now: datetime, *, limit: int) -> Sequence[RunRef]:
        """See ``Store.due``."""
        return self._call("due", lambda: self.inner.due(now, limit=limit))

    def list_runs(self, tenant: str, wanted: RunFilter = EVERY_RUN, **paging: Any) -> Page[RunSummary]:
        """See ``Store.list_runs``."""
        return self._call("list_runs", lambda: self.inner.list_runs(tenant, wanted, **paging))

    def count_runs(self, tenant: str, wanted: RunFilter = EVERY_RUN) -> Mapping[PublicStatus, int]:
        """See ``Store.count_runs``."""
        return self._call("count_runs", lambda: self.inner.count_runs(tenant, wanted))

    def _call(
        self,
        verb: str,
        happen: Callable[[], T],
        run: RunRef | None = None,
        record: StepRecord | None = None,
        batch: Sequence[StepRecord] = (),
    ) -> T:
        fault = self.script(Call(number=next(self._numbers), verb=verb, run=run, record=record, batch=batch))
        match fault:
            case None:
                return happen()
            case Fault.DIES_BEFORE:
                raise WorkerDied(f"before {verb} of {run}")
            case Fault.FAILS:
                raise StoreUnavailable(f"no answer to {verb} of {run}")
            case Fault.THROTTLED:
                raise Throttled(f"too busy for {verb} of {run}")
            case Fault.CONFLICT:
                self._overtake(run)
                return happen()
            case Fault.DIES_AFTER:
                happen()
                raise WorkerDied(f"after {verb} of {run}")
            case Fault.REPLY_LOST:
                happen()
                raise StoreUnavailable(f"no answer to {verb} of {run}")

    def _overtake(self, run: RunRef | None) -> None:
        """Another write of the run's head, as an answer to another branch of a run under way is one."""
        head = None if run is None else self.inner.peek(run)
        if head is not None and head.status in RUN_CHANGES[head.status]:
            self.inner.move(replace(head, version=head.version + 1), version=head.version)


@dataclass(slots=True, kw_only=True)
class Unruly:
    """How hints misbehave, for now: probabilities for each one, and how late a delayed one is at most."""

    chance: random.Random = field(default_factory=lambda: random.Random(0), repr=False)  # repeatable
    dropped: float = 0.0
    doubled: float = 0.0
    delayed: float = 0.0
    latest: timedelta = timedelta(minutes=5)
    failing: float = 0.0
    """How often queue or scheduler does not answer, and has done nothing. Draws no chance where it is 0."""

    def fails(self) -> bool:
        """Whether this call is not answered."""
        return self.failing > 0 and self.chance.random() < self.failing

    def delays(self) -> list[timedelta]:
        """One entry per copy that arrives, each with how much later than asked; random delays reorder hints."""
        if self.chance.random() < self.dropped:
            return []
        copies = 2 if self.chance.random() < self.doubled else 1
        return [self._delay() for _ in range(copies)]

    def _delay(self) -> timedelta:
        late = self.chance.random() < self.delayed
        return timedelta(seconds=round(self.chance.random() * self.latest.total_seconds())) if late else timedelta(0)


class LossyQueue:
    """Any ``Queue`` whose hints are dropped, doubled, delayed and thereby reordered, or that does not answer."""

    def __init__(self, queue: Queue, unruly: Unruly) -> None:
        self.inner = queue
        self.max_delay_s = queue.max_delay_s
        self._unruly = unruly

    def send(self, hint: Hint, *, delay_s: int) -> None:
        """See ``Queue.send``; no promise of it is kept."""
        if self._unruly.fails():
            raise QueueUnavailable("The queue does not answer.")
        for late in self._unruly.delays():
            self.inner.send(hint, delay_s=min(self.max_delay_s, delay_s + int(late.total_seconds())))


class LossyScheduler:
    """Any ``Scheduler`` whose hints are dropped, doubled and delayed, or that does not answer."""

    def __init__(self, scheduler: Scheduler, unruly: Unruly) -> None:
        self.inner = scheduler
        self._unruly = unruly
        self._copies = count(1_000_000)

    def schedule(self, hint: Hint, *, version: int) -> None:
        """See ``Scheduler.schedule``; no promise of it is kept."""
        self._fail()
        for number, late in enumerate(self._unruly.delays()):
            copy = version if number == 0 else next(self._copies)
            self.inner.schedule(Hint(run=hint.run, at=hint.at + late), version=copy)

    def unschedule(self, run: RunRef, *, version: int) -> None:
        """See ``Scheduler.unschedule``."""
        self._fail()
        self.inner.unschedule(run, version=version)

    def _fail(self) -> None:
        if self._unruly.fails():
            raise SchedulerUnavailable("The scheduler does not answer.")


class BlobFault(StrEnum):
    """What becomes of one call to the blob store."""

    FAILS = "fails"
    """It does not answer; the call never happened."""
    REPLY_LOST = "reply-lost"
    """It does not answer; the call happened all the same."""
    MISSING = "missing"
    """Of a get: nothing is there."""
    ALTERED = "altered"
    """Of a get: what is there has another first byte than what was put."""
    CUT = "cut"
    """Of a get: the last byte is not there."""


BlobScript: TypeAlias = Callable[[str, str], BlobFault | None]


class FaultyBlobs:
    """Any ``Blobs``, with faults where ``script`` asks for them: it sees each call's verb and key, or prefix."""

    def __init__(self, blobs: Blobs, script: BlobScript | None = None) -> None:
        self.inner = blobs
        self.script = script or (lambda *_: None)
        self.calls: list[tuple[str, str]] = []
        """Verb and key, or prefix, or first key, of every call."""

    @property
    def name(self) -> str:
        """See ``Blobs.name``."""
        return self.inner.name

    def put(self, key: str, content: bytes, *, sha256: str) -> None:
        """See ``Blobs.put``."""
        self._call("put", key, lambda: self.inner.put(key, content, sha256=sha256))

    def get(self, key: str) -> bytes | None:
        """See ``Blobs.get``."""
        return self._call("get", key, lambda: self.inner.get(key))

    def keys(self, prefix: str) -> Sequence[str]:
        """See ``Blobs.keys``."""
        return self._call("keys", prefix, lambda: self.inner.keys(prefix))

    def delete(self, keys: Sequence[str]) -> None:
        """See ``Blobs.delete``."""
        self._call("delete", keys[0] if keys else "", lambda: self.inner.delete(keys))

    def _call(self, verb: str, key: str, happen: Callable[[], T]) -> T:
        self.calls.append((verb, key))
        fault = self.script(verb, key)
        if fault is BlobFault.FAILS:
            raise BlobsUnavailable(f"no answer to {verb} of {key}")
        reply = happen()
        if fault is BlobFault.REPLY_LOST:
            raise BlobsUnavailable(f"no answer to {verb} of {key}")
        spoilt: T = _spoilt(reply, fault)
        return spoilt


def _spoilt(reply: Any, fault: BlobFault | None) -> Any:
    if not isinstance(reply, bytes) or fault is None:
        return reply
    match fault:
        case BlobFault.MISSING:
            return None
        case BlobFault.ALTERED:
            return bytes([reply[0] ^ 1]) + reply[1:]
        case _:
            return reply[:-1]
