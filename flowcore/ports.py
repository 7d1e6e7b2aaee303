"""What the engine needs from the world, as promises: store, blobs, queue, scheduler, clock, ids.

The engine knows these and never an adapter. Every promise is in a docstring here and is held by the contract suite in
``flowcore.testing.contract``; a new adapter starts by passing that suite. All ports are synchronous and safe to call
from several threads.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from flowcore.keys import RunRef, Scope, StepKey
from flowcore.model import (
    EVERY_RUN,
    Doors,
    Head,
    Join,
    Json,
    Listener,
    Mail,
    Page,
    PublicStatus,
    Receipt,
    RunFilter,
    RunSummary,
    Sent,
    StepFailure,
    StepRecord,
    Topic,
)


@dataclass(frozen=True, slots=True)
class Claimed:
    """The claim was won: ``head`` is the run as this worker now holds it."""

    head: Head


@dataclass(frozen=True, slots=True)
class NotClaimable:
    """Nothing to do for this worker: no such run (``head`` is None), asleep, waiting for an answer, held, ended."""

    head: Head | None


@dataclass(frozen=True, slots=True)
class Written:
    """The conditional write happened, now or by an earlier try of the same call whose reply was lost."""


@dataclass(frozen=True, slots=True)
class HeadMoved:
    """Nothing was written: the head had changed. ``head`` is what stands there now (None: deleted)."""

    head: Head | None


@dataclass(frozen=True, slots=True)
class RecordMoved:
    """Nothing was written: the record had changed. ``record`` is what stands there now (None: gone)."""

    record: StepRecord | None


@dataclass(frozen=True, slots=True)
class EventTaken:
    """Nothing was written: the event has settled another wait. ``sent`` is how it stands."""

    sent: Sent


@dataclass(frozen=True, slots=True)
class EffectMoved:
    """Nothing was written: one of the author's own writes was refused, the one at ``index`` if that is known."""

    index: int | None
    reason: str
    """The word of the database for it: ``ConditionalCheckFailed``."""
    message: str = ""


Effects: TypeAlias = Sequence[Mapping[str, Any]]
"""Writes of an author's own, as ``flowcore.authoring.effects`` describes them."""
Records: TypeAlias = Mapping[StepKey, StepRecord]
Batch: TypeAlias = Sequence[tuple[StepRecord, StepRecord | None]]
"""Records to be written, each with the one that stands at its key; None: nothing does. No key is there twice."""


class Mailbox(Protocol):
    """Where events meet those who wait for them. A listener is a hint; only a run's record says that it waits.

    A waiter listens first and reads the mail afterwards, a sender keeps the event first and reads the mail afterwards:
    so one of the two sees the other, whatever the order. Reads are strongly consistent. Raises: as ``Store``.
    """

    def listen(self, listener: Listener) -> None:
        """Put ``listener``; a second time changes nothing."""
        ...

    def unlisten(self, listener: Listener) -> None:
        """Remove ``listener``, if it is there."""
        ...

    def keep(self, sent: Sent) -> Sent | None:
        """Put an event if none of its id is kept at its topic when it comes; None when put, else the one that is."""
        ...

    def mail(self, topic: Topic, now: datetime, *, event_id: str | None = None, listeners: bool = True) -> Mail:
        """Who listens at ``topic`` and which events are kept there ``now``, taken ones included, the oldest first.

        With ``event_id`` only the event of that id, without ``listeners`` nobody who listens; the rest is not read.

        Listeners are read after the events: whoever had begun to listen when an event that is told was kept is told,
        too, unless he has stopped. So a sender who finds his event kept need not read again.
        """
        ...


class Joins(Protocol):
    """How far the items of distributed foreaches are: sets in the run's own partition, which only ever grow.

    A set and not a counter, because whoever has done an item may tell so any number of times. Raises: as ``Store``.
    """

    def open_join(self, run: RunRef, join: Join) -> None:
        """Put ``join`` if there is none of its incarnation, key and chunk; a second time changes nothing."""
        ...

    def join(self, run: RunRef, added: Join, *, unparked: Collection[int] = ()) -> Join | None:
        """Add the items in the sets of ``added`` to the join of its incarnation, key and chunk.

        ``unparked`` are taken out of the parked and the asking ones, and ``added`` has none of these two then.

        Returns the join as it is after this very call, so one of any number of callers is the first to see it complete.
        None when there is no such join any more; nothing is written then.
        """
        ...

    def joins(self, run: RunRef, incarnation: int | None = None, key: StepKey | None = None) -> Sequence[Join]:
        """The joins of a run, of one incarnation or of all, of one foreach or of all; strongly consistent."""
        ...

    def scope(self, run: RunRef, incarnation: int, scope: Scope) -> Records:
        """The records that lie directly in ``scope``, whether anything opens it or not; strongly consistent."""
        ...


class Store(Mailbox, Joins, Protocol):
    """Where runs live. Every write is conditional; a condition is judged on the base item, never on an index.

    Raises (all methods): ``StoreUnavailable`` or ``Throttled`` when the table gives no answer after the adapter's own
    tries; the write may or may not have happened then. Before any write: ``PayloadTooLarge``, and ``InvalidPayload``
    for a value that is not JSON (NaN, a lone surrogate). ``InvariantError`` for what a later flowcore stored.

    A field of a head or a record that lies elsewhere (``flowcore.parcels``) is stored as its parcel, whatever else it
    may have at hand, and read as that parcel again; looking at it raises ``BlobMissing`` until it is bound to blobs.
    """

    def start(self, head: Head) -> Head | None:
        """Put ``head`` if the run does not exist; return None when put, else the head that stands there.

        A head with a ``part`` appears in no listing.
        """
        ...

    def start_with(self, head: Head, sent: Sent) -> Head | Sent | None:
        """In one transaction: put ``head`` if the run does not exist, ``sent`` as ``Mailbox.keep`` would.

        None when both are put. Else neither is, and what stands there is returned: the event, if one does.
        """
        ...

    def claim(
        self, run: RunRef, *, owner: str, now: datetime, lease_until: datetime, due: datetime
    ) -> Claimed | NotClaimable:
        """Take the right to drive the run if it is QUEUED, or RUNNING with an expired lease, or its wake is due.

        WAITING, JOINING and SUSPENDED are claimable when ``wake <= now`` (a suspension's wake is its deadline). Sets
        RUNNING, version + 1, epoch + 1, attempts + 1, owner, lease, due; ``updated_at`` becomes the larger of itself
        and ``now``; removes ``wake``, ``waiting_since`` and ``deadline``.
        """
        ...

    def load(self, run: RunRef, head: Head | None = None, *, everything: bool = False) -> tuple[Head, Records] | None:
        """The head and the records of the run's own scope and, through their ``opens``, of every open scope.

        A child's own scope is the foreach whose items it sees to.

        With ``head`` (from a claim just won) the head is not read again; records are read after it, strongly
        consistent. ``everything`` reads finished scopes too. None when there is no such run.
        """
        ...

    def peek(self, run: RunRef) -> Head | None:
        """The head alone, strongly consistent."""
        ...

    def commit(
        self, run: RunRef, incarnation: int, record: StepRecord, prior: StepRecord | None
    ) -> Written | RecordMoved:
        """Write one record: if absent when ``prior`` is None, else if outcome and gen still are ``prior``'s."""
        ...

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
        """As ``commit``, and the author's own writes in the same transaction: all or nothing.

        With ``epoch`` only while the run is RUNNING under it: where a successor's outcome may stand in a batch, which
        the condition on the record alone does not see. ``HeadMoved`` comes with an epoch alone.

        Of several conditions that fail the head's is told, else the record's. Raises: NeedsDynamoDB where there are no
        such tables.
        """
        ...

    def release(self, head: Head, *, epoch: int, version: int, batch: Batch = ()) -> Written | HeadMoved | RecordMoved:
        """Replace the head if it is RUNNING under ``epoch`` at ``version``; ``head.version`` is ``version + 1``.

        What a run keeps for life stays as it was started: workflow, input and its hash, time of creation, who started
        it, resource, trace and tags, and what it is a part of.

        With ``batch`` its records are written in the same transaction, each under the condition of ``commit``: all or
        nothing. Up to 64 of them, that ``weigh`` up to 1 MB together; ``load`` gives them like any others, however they
        are kept. Of several conditions that fail the head's is told. ``RecordMoved`` comes with a batch alone.
        """
        ...

    def bring(
        self,
        incarnation: int,
        records: Sequence[tuple[RunRef, StepRecord]],
        *,
        joins: Sequence[tuple[RunRef, Join]] = (),
        listeners: Sequence[Listener] = (),
    ) -> bool:
        """Write what a life begins with that no head tells of yet: ``joins``, then ``listeners``, then ``records``.

        Joins and records only where nothing of that life stands; no place is there twice. Not all or nothing: where it
        raises, or is False because something stood there, that life must not begin, and no other of its number.
        Records may share an item, as with ``release``; a join is there before anything it tells of is.
        """
        ...

    def weigh(self, run: RunRef, incarnation: int, record: StepRecord) -> int:
        """Bytes that ``record`` would take, judged without a request. Raises what writing it would raise."""
        ...

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
        """In one transaction: the head if it is at ``version``, the record if it is still ``prior``. Both or neither.

        With ``taken``, an event and its taker: the event as well, if nobody has taken it or that one is kept no longer
        (as in ``Mailbox.keep``), and its taker no longer listens; nor do those that are ``silenced``, up to 50 others.
        Of several conditions that fail the record's is told, which carries the winner, else the event's.
        """
        ...

    def move(self, head: Head, *, version: int) -> Written | HeadMoved:
        """Replace the head if it stands at ``version``, whatever its status: for operators and for time travel.

        What a run keeps for life stays, as with ``release``.
        """
        ...

    def delete(self, run: RunRef, *, last: Head | None = None, stays: bool = False) -> bool:
        """Remove everything about a run, its head last; whether there was one. May be called again after a crash.

        With ``last`` the head is replaced by that first, if it stands one version before it; if not, nothing happens,
        and False is returned. However slow one of several callers is: a new run of that id loses nothing to it. With
        ``stays`` that head is left, and nothing with it of what the former one held.

        The caller has seen to it that nobody drives the run.
        """
        ...

    def cancel(self, run: RunRef, *, now: datetime, by: str | None = None) -> Head | None:
        """Set CANCELED, version + 1, epoch + 1; remove due, lease, wake and what tells of waits; unless it has ended.

        ``by`` becomes ``canceled_by``.

        Returns the head after the call, canceled or ended otherwise; None when there is no such run.
        """
        ...

    def note(self, run: RunRef, born: datetime, slot: str, id: str, receipt: Receipt) -> bool:
        """Keep ``receipt`` beside the run that was created when ``born``, where ``load`` does not read it.

        A slot holds one receipt. What comes there again under the same ``id`` is counted: ``times`` grows by one and
        ``last_at`` is the new one's ``at``; the rest stays. False, and nothing is written, where another id stands.
        Goes with ``delete``; a later run of the same id never sees it.
        """
        ...

    def notes(self, run: RunRef, born: datetime) -> Sequence[Receipt]:
        """Every receipt kept by ``note``, strongly consistent, in no particular order."""
        ...

    def due(self, now: datetime, *, limit: int) -> Sequence[RunRef]:
        """Up to ``limit`` runs whose ``due`` is before ``now``, the longest overdue first.

        Read from an index: may lag, may repeat.
        """
        ...

    def list_runs(
        self,
        tenant: str,
        wanted: RunFilter = EVERY_RUN,
        *,
        limit: int = 50,
        cursor: str | None = None,
        oldest_first: bool = False,
    ) -> Page[RunSummary]:
        """Runs by time of creation, newest first unless asked otherwise. Reads an index: it may lag a second behind.

        A page holds up to ``limit`` runs, in this order, and its cursor goes on behind the last one. Where so few
        match that the store would have to look at too many others, it gives up for this page: the page is short or
        even empty then, and its cursor goes on where it gave up. Only a page without a cursor is the last one.

        Raises ``MalformedRequest`` for a cursor this store did not give, or a ``limit`` below 1.
        """
        ...

    def count_runs(self, tenant: str, wanted: RunFilter = EVERY_RUN) -> Mapping[PublicStatus, int]:
        """How many runs match, by status; a status without runs may be missing. From the index, as ``list_runs``.

        Looks at every entry of the tenant that was created between ``since`` and ``until``, whatever else is asked.
        """
        ...


class Blobs(Protocol):
    """Where values lie that are too large for the store. A key is written once and holds what was written, or nothing.

    Keys are made of ``[A-Za-z0-9._:@/-]``, no part between two slashes begins with a dot, at most 400 characters.
    Raises (all methods): ``BlobsUnavailable`` when there is no answer after the adapter's own tries; the write may or
    may not have happened then.
    """

    @property
    def name(self) -> str:
        """What parcels call it: of an S3 bucket its name."""
        ...

    def put(self, key: str, content: bytes, *, sha256: str) -> None:
        """Keep ``content`` whole under ``key``, or not at all: nobody ever reads a part of it.

        ``sha256`` is its hash in hexadecimal; what differs from it on arrival is not kept. Putting the same again
        changes nothing. Once it has returned, every reader finds it.
        """
        ...

    def get(self, key: str) -> bytes | None:
        """What is kept under ``key``; None when there is nothing. Not verified: whoever asks knows the hash."""
        ...

    def keys(self, prefix: str) -> Sequence[str]:
        """Up to 1,000 of the keys that begin with ``prefix``, which ends in a slash; empty only when there are none."""
        ...

    def delete(self, keys: Sequence[str]) -> None:
        """Remove these, at most 1,000; what is not there is no error."""
        ...


@runtime_checkable
class Handing(Protocol):
    """A store whose writes can be made by somebody else, in a transaction of his own."""

    def handing(self) -> tuple[Store, list[dict[str, Any]]]:
        """A store that reads as this one does and writes nothing; the list grows by what it would have written.

        Each entry is one of DynamoDB's ``TransactItems``, with its condition.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """A message that asks somebody to look at a run. It carries no truth: late, early and double ones do no harm."""

    run: RunRef
    at: datetime
    """When looking makes sense; a worker that gets it earlier sends it again."""


class Queue(Protocol):
    """Hands hints to workers: at least once, in any order."""

    max_delay_s: int
    """The longest delay one message can carry, in seconds (SQS: 900)."""

    def send(self, hint: Hint, *, delay_s: int) -> None:
        """Deliver ``hint`` to some worker after ``delay_s`` whole seconds, at least once.

        Raises: QueueUnavailable.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A message that was set aside because no worker got through with it."""

    id: str
    """The message's own."""
    handle: str
    """By which whoever has taken it can remove it."""
    hint: Hint | None
    """None: it is no hint."""


class DeadLetters(Protocol):
    """Messages that were delivered so often in vain that they were set aside. Raises: QueueUnavailable."""

    def take(self, limit: int) -> Sequence[Letter]:
        """Up to ``limit`` of them, from 1 to 10; others do not see them for a while. Empty: none is left to be seen."""
        ...

    def discard(self, letter: Letter) -> None:
        """Remove one that was taken."""
        ...


class Scheduler(Protocol):
    """Fires a hint into the work queue at an instant, at least once, perhaps late."""

    def schedule(self, hint: Hint, *, version: int) -> None:
        """Fire once at ``hint.at``; a second call for the same run, version and instant changes nothing.

        Raises: SchedulerUnavailable.
        """
        ...

    def unschedule(self, run: RunRef, *, version: int) -> None:
        """Forget a schedule made by ``schedule``, if it is still there; one that stays does no harm.

        Raises: SchedulerUnavailable.
        """
        ...


class LinkMaker(Protocol):
    """Signs the addresses at which waits are answered from outside."""

    def for_tenant(self, tenant: str) -> Doors:
        """The addresses of one tenant's waits."""
        ...


class Clock(Protocol):
    """The only source of the time of day, and the only place where a process may wait."""

    def now(self) -> datetime:
        """Aware UTC, whole milliseconds."""
        ...

    def wait_until(self, instant: datetime) -> None:
        """Return when ``now() >= instant``. Used for pauses of a second or so that are cheaper than a hand-over."""
        ...


class Ids(Protocol):
    """The only source of fresh names and of chance."""

    def fresh(self) -> str:
        """A name nobody else will make: 26 characters of ``[0-9a-z]``, sorting by time of making."""
        ...

    def draw(self) -> float:
        """A number from [0, 1), for jitter."""
        ...


@dataclass(frozen=True, slots=True)
class SpanLink:
    """Another span that one has to do with, in whichever trace."""

    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something that took a while and is over, as tracing shows it.

    ``run`` is a stretch of a run: from where one worker took it to where it parked, ended or was handed on. ``step`` is
    one try of a step in it. Ids are derived from the run and the place, so a span told twice is the same one twice.
    """

    kind: Literal["run", "step"]
    name: str
    """The workflow's id, or the step's dotted id."""
    trace_id: str
    """32 hex digits."""
    span_id: str
    """16 hex digits."""
    parent_span_id: str | None
    links: tuple[SpanLink, ...] = ()
    started_at: datetime
    ended_at: datetime
    status: str
    """Of a run the word users see, ``lost`` where another worker took it; of a step ``success``, ``bailed``,
    ``suspended``, ``retrying`` (this try failed) or ``failed``."""
    error: StepFailure | None = None
    run_id: str
    workflow_id: str
    step: str | None = None
    attempt: int | None = None
    """Of a step, from 1."""
    attributes: Mapping[str, Json] = field(default_factory=dict)
    """``flowcore.tags``, ``flowcore.metadata.*`` and ``flowcore.context.*``: what the caller wanted shown."""


class Tracer(Protocol):
    """Is told of spans that are over, and hands them to some tracing system."""

    def record(self, span: Span) -> None:
        """Take one span. Called in the worker's thread between two writes, so it should only queue it.

        What it raises is logged and changes nothing.
        """
        ...
