"""A store with room for values of any size: what is too large for an item lies in the blob store.

Wraps any ``Store``. A field whose JSON is longer than ``INLINE_LIMIT`` is put first and then written as its ``Parcel``,
so no item ever points to what is not there yet. What is read comes with its parcels; a field is fetched when somebody
looks at it, and verified. Whatever is small takes the journey it takes without this wrapper, without a request more.

Blobs of a run lie under one prefix, each under a key of its own: a fresh id and the hash of its content. So a deletion
that was slow can be told from the blobs of a later run of the same id, whose keys it has never seen; and a step that
is run again writes beside what its dead worker has written. What no item points to goes with the run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar

from flowcore.adapters.dynamodb_attributes import json_of
from flowcore.adapters.dynamodb_values import (
    alternatives_json,
    alternatives_of,
    answer_json,
    answer_of,
    answers_of,
    delta_json,
    delta_of,
    given_of,
    terms_json,
    terms_of,
)
from flowcore.errors import BlobAltered, BlobMissing, NeedsDynamoDB, PayloadTooLarge
from flowcore.keys import RunRef, Scope, StepKey, dotted
from flowcore.model import (
    EVERY_RUN,
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
    StepRecord,
    Topic,
)
from flowcore.parcels import Parcel, bound, lazily, parcels_in, replace
from flowcore.ports import (
    Batch,
    Blobs,
    Claimed,
    EffectMoved,
    Effects,
    EventTaken,
    Handing,
    HeadMoved,
    Ids,
    NotClaimable,
    RecordMoved,
    Records,
    Store,
    Written,
)

H = TypeVar("H", bound=Head | None)
R = TypeVar("R", bound=StepRecord | None)
V = TypeVar("V", Head, StepRecord)

INLINE_LIMIT = 64 * 1024
"""Bytes of JSON up to which a value lies in the item. A put into S3 costs about as much as writing 8 KB of an item."""
LARGEST_VALUE = 50 * 1024 * 1024
"""Bytes of JSON of one value, unless the App says otherwise: a worker of 1 GB holds a few of them at once."""


@dataclass(frozen=True, slots=True)
class _Field:
    """A field that may grow large: how a message calls it, and its way to JSON and back."""

    called: str
    write: Callable[[Any], Json]
    read: Callable[[Json], Any]


def _same(value: Json) -> Json:
    return value


_OF_HEAD: Mapping[str, _Field] = {
    "input": _Field("input", _same, _same),
    "output": _Field("result", _same, _same),
    "state": _Field("state", lambda state: dict(state) or None, _same),
    "request_context": _Field("request context", lambda context: dict(context) or None, _same),
}
_BEGUN_WITH: Mapping[str, Json] = {"input": None, "state": {}, "request_context": {}}
"""What an update of a head never writes, and how a head goes without it."""
_OF_RECORD: Mapping[str, _Field] = {
    "output": _Field("output", _same, _same),
    "payload": _Field("suspend payload", _same, _same),
    "delta": _Field("change of state", delta_json, delta_of),
    "terms": _Field("suspension's terms", terms_json, terms_of),
    "votes": _Field("votes", lambda votes: [answer_json(answer) for answer in votes] or None, answers_of),
    "given": _Field("given input", lambda given: list(given) if given else None, given_of),
    "answer": _Field("answer", answer_json, answer_of),
    "alternatives": _Field("alternatives", alternatives_json, alternatives_of),
}


class RoomyStore:
    """``flowcore.ports.Store`` on another one and a blob store."""

    def __init__(
        self, store: Store, blobs: Blobs, ids: Ids, *, largest: int = LARGEST_VALUE, inline: int = INLINE_LIMIT
    ) -> None:
        """Keep runs in ``store``, and in ``blobs`` the values above ``inline`` bytes of JSON, up to ``largest``."""
        self.inner = store
        self.blobs = blobs
        self._ids = ids
        self._largest = largest
        self._inline = inline

    def handing(self) -> tuple[Store, list[dict[str, Any]]]:
        """See ``Handing.handing``; large values are put into the blob store at once."""
        if not isinstance(self.inner, Handing):
            raise NeedsDynamoDB("what is to be written in a transaction of one's own")
        store, items = self.inner.handing()
        return RoomyStore(store, self.blobs, self._ids, largest=self._largest, inline=self._inline), items

    # -- what may grow large --

    def start(self, head: Head) -> Head | None:
        """See ``Store.start``."""
        large = self._large(head, head.run, None, _OF_HEAD)
        if large and (standing := self.peek(head.run)) is not None:
            return standing  # a start that is repeated puts its input once
        return self._head(self.inner.start(self._with(head, head.run, None, _OF_HEAD, large)))

    def start_with(self, head: Head, sent: Sent) -> Head | Sent | None:
        """See ``Store.start_with``."""
        reply = self.inner.start_with(self._packed(head, head.run, None, _OF_HEAD), sent)
        return self._head(reply) if isinstance(reply, Head) else reply

    def claim(
        self, run: RunRef, *, owner: str, now: datetime, lease_until: datetime, due: datetime
    ) -> Claimed | NotClaimable:
        """See ``Store.claim``."""
        claim = self.inner.claim(run, owner=owner, now=now, lease_until=lease_until, due=due)
        if isinstance(claim, Claimed):
            return Claimed(self._head(claim.head))
        return NotClaimable(self._head(claim.head))

    def load(self, run: RunRef, head: Head | None = None, *, everything: bool = False) -> tuple[Head, Records] | None:
        """See ``Store.load``."""
        loaded = self.inner.load(run, head, everything=everything)
        if loaded is None:
            return None
        records = loaded[1]
        far = {key: self._record(run, record) for key, record in records.items() if parcels_in(record)}
        return self._head(loaded[0]), {**records, **far} if far else records

    def scope(self, run: RunRef, incarnation: int, scope: Scope) -> Records:
        """See ``Joins.scope``."""
        return {key: self._record(run, record) for key, record in self.inner.scope(run, incarnation, scope).items()}

    def peek(self, run: RunRef) -> Head | None:
        """See ``Store.peek``."""
        return self._head(self.inner.peek(run))

    def commit(
        self, run: RunRef, incarnation: int, record: StepRecord, prior: StepRecord | None
    ) -> Written | RecordMoved:
        """See ``Store.commit``."""
        packed = self._packed(record, run, record.key, _OF_RECORD)
        reply = self.inner.commit(run, incarnation, packed, prior)
        return reply if isinstance(reply, Written) else RecordMoved(self._record(run, reply.record))

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
        packed = self._packed(record, run, record.key, _OF_RECORD)
        reply = self.inner.commit_with(run, incarnation, packed, prior, effects, epoch=epoch)
        if isinstance(reply, RecordMoved):
            return RecordMoved(self._record(run, reply.record))
        return reply if isinstance(reply, EffectMoved) else self._moved(reply)

    def release(self, head: Head, *, epoch: int, version: int, batch: Batch = ()) -> Written | HeadMoved | RecordMoved:
        """See ``Store.release``."""
        packed = [(self._packed(record, head.run, record.key, _OF_RECORD), prior) for record, prior in batch]
        reply = self.inner.release(self._rewritten(head), epoch=epoch, version=version, batch=packed)
        if isinstance(reply, RecordMoved):
            return RecordMoved(self._record(head.run, reply.record))
        return self._moved(reply)

    def bring(
        self,
        incarnation: int,
        records: Sequence[tuple[RunRef, StepRecord]],
        *,
        joins: Sequence[tuple[RunRef, Join]] = (),
        listeners: Sequence[Listener] = (),
    ) -> bool:
        """See ``Store.bring``. Joins go before any blob as well: by them a child is found whose blobs are to go."""
        large = [self._large(record, run, record.key, _OF_RECORD) for run, record in records]
        if any(large) or any(parcels_in(record) for _, record in records):
            if not self.inner.bring(incarnation, (), joins=joins, listeners=listeners):
                return False
            joins, listeners = (), ()
        packed = [
            (run, self._with(record, run, record.key, _OF_RECORD, written))
            for (run, record), written in zip(records, large, strict=True)
        ]
        return self.inner.bring(incarnation, packed, joins=joins, listeners=listeners)

    def weigh(self, run: RunRef, incarnation: int, record: StepRecord) -> int:
        """See ``Store.weigh``: what the item takes, where what is too large for it is a parcel."""
        large = self._large(record, run, record.key, _OF_RECORD)
        far = {name: Parcel(self.blobs.name, _prefix(run), "", len(written)) for name, written in large.items()}
        unread = partial(self._fetched, run, record.key, _OF_RECORD)
        return self.inner.weigh(run, incarnation, lazily(record, {**parcels_in(record), **far}, unread))

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
        packed, moved = self._packed(record, head.run, record.key, _OF_RECORD), self._rewritten(head)
        reply = self.inner.resume(moved, packed, version=version, prior=prior, taken=taken, silenced=silenced)
        if isinstance(reply, RecordMoved):
            return RecordMoved(self._record(head.run, reply.record))
        return reply if isinstance(reply, EventTaken) else self._moved(reply)

    def move(self, head: Head, *, version: int) -> Written | HeadMoved:
        """See ``Store.move``."""
        return self._moved(self.inner.move(self._rewritten(head), version=version))

    def cancel(self, run: RunRef, *, now: datetime, by: str | None = None) -> Head | None:
        """See ``Store.cancel``."""
        return self._head(self.inner.cancel(run, now=now, by=by))

    def delete(self, run: RunRef, *, last: Head | None = None, stays: bool = False) -> bool:
        """See ``Store.delete``. The blobs go before the items, so that whoever goes on after a crash finds the rest.

        A run that has none costs one listing more than without blobs, one that has some a write and a read more.
        """
        if not self.blobs.keys(_prefix(run)):
            return self.inner.delete(run, last=None if last is None else self._rewritten(last), stays=stays)
        if last is None:
            self._emptied(run, self.inner.peek(run))
            return self.inner.delete(run, stays=stays)
        last = self._rewritten(last)
        if isinstance(self.inner.move(last, version=last.version - 1), HeadMoved):
            return False
        self._emptied(run, last)
        self.inner.delete(run, last=replace(last, version=last.version + 1), stays=stays)
        return True

    # -- what never does --

    def note(self, run: RunRef, born: datetime, slot: str, id: str, receipt: Receipt) -> bool:
        """See ``Store.note``."""
        return self.inner.note(run, born, slot, id, receipt)

    def notes(self, run: RunRef, born: datetime) -> Sequence[Receipt]:
        """See ``Store.notes``."""
        return self.inner.notes(run, born)

    def due(self, now: datetime, *, limit: int) -> Sequence[RunRef]:
        """See ``Store.due``."""
        return self.inner.due(now, limit=limit)

    def list_runs(
        self,
        tenant: str,
        wanted: RunFilter = EVERY_RUN,
        *,
        limit: int = 50,
        cursor: str | None = None,
        oldest_first: bool = False,
    ) -> Page[RunSummary]:
        """See ``Store.list_runs``."""
        return self.inner.list_runs(tenant, wanted, limit=limit, cursor=cursor, oldest_first=oldest_first)

    def count_runs(self, tenant: str, wanted: RunFilter = EVERY_RUN) -> Mapping[PublicStatus, int]:
        """See ``Store.count_runs``."""
        return self.inner.count_runs(tenant, wanted)

    def open_join(self, run: RunRef, join: Join) -> None:
        """See ``Joins.open_join``."""
        self.inner.open_join(run, join)

    def join(self, run: RunRef, added: Join, *, unparked: Collection[int] = ()) -> Join | None:
        """See ``Joins.join``."""
        return self.inner.join(run, added, unparked=unparked)

    def joins(self, run: RunRef, incarnation: int | None = None, key: StepKey | None = None) -> Sequence[Join]:
        """See ``Joins.joins``."""
        return self.inner.joins(run, incarnation, key)

    def listen(self, listener: Listener) -> None:
        """See ``Mailbox.listen``."""
        self.inner.listen(listener)

    def unlisten(self, listener: Listener) -> None:
        """See ``Mailbox.unlisten``."""
        self.inner.unlisten(listener)

    def keep(self, sent: Sent) -> Sent | None:
        """See ``Mailbox.keep``. Events lie in no run, so they stay as small as an item."""
        return self.inner.keep(sent)

    def mail(self, topic: Topic, now: datetime, *, event_id: str | None = None, listeners: bool = True) -> Mail:
        """See ``Mailbox.mail``."""
        return self.inner.mail(topic, now, event_id=event_id, listeners=listeners)

    # -- there --

    def _packed(self, value: V, run: RunRef, key: StepKey | None, fields: Mapping[str, _Field]) -> V:
        """The same with everything large put into the blob store.

        Raises: PayloadTooLarge, InvalidPayload before anything was put.
        """
        return self._with(value, run, key, fields, self._large(value, run, key, fields))

    def _large(
        self, value: Head | StepRecord, run: RunRef, key: StepKey | None, fields: Mapping[str, _Field]
    ) -> Mapping[str, bytes]:
        """The fields that are too large for the item, as JSON. Raises: PayloadTooLarge, InvalidPayload."""
        far, large = parcels_in(value), {}
        for name, field in fields.items():
            plain = None if name in far else field.write(getattr(value, name))
            if plain is None:
                continue
            subject = f"The {field.called} {_place(run, key)}"
            _, written = json_of(subject, plain)
            if len(written) > self._largest:
                raise PayloadTooLarge(subject, len(written), self._largest)
            if len(written) > self._inline:
                large[name] = written
        return large

    def _with(
        self, value: V, run: RunRef, key: StepKey | None, fields: Mapping[str, _Field], large: Mapping[str, bytes]
    ) -> V:
        """The same with ``large`` put, and what lies in another run's place copied into this one's."""
        far = {name: self._own(run, key, fields[name], parcel) for name, parcel in parcels_in(value).items()}
        far |= {name: self._put(run, written) for name, written in large.items()}
        return lazily(value, far, partial(self._fetched, run, key, fields))

    def _rewritten(self, head: Head) -> Head:
        """A head for an update, which never touches what the run began with: so that is not put again.

        What of it is small lies in the item beside all else, and is weighed with that.
        """
        bare = replace(head, **{name: blank for name, blank in _BEGUN_WITH.items() if self._is_far(head, name)})
        output = {"output": _OF_HEAD["output"]}
        return self._with(bare, head.run, None, _OF_HEAD, self._large(bare, head.run, None, output))

    def _is_far(self, head: Head, name: str) -> bool:
        """Whether a field lies in the blob store, or has to, since it is too large for an item."""
        if name in parcels_in(head):
            return True
        plain = _OF_HEAD[name].write(getattr(head, name))
        return plain is not None and len(json_of(name, plain)[1]) > self._inline

    def _own(self, run: RunRef, key: StepKey | None, field: _Field, parcel: Parcel) -> Parcel:
        """A parcel of this very run; what a fork has from the run it began as is copied, as that may be deleted."""
        if parcel.key.startswith(_prefix(run)):
            return parcel
        return self._put(run, self._verified(run, key, field, parcel))

    def _put(self, run: RunRef, written: bytes) -> Parcel:
        digest = sha256(written).hexdigest()
        parcel = Parcel(self.blobs.name, f"{_prefix(run)}{self._ids.fresh()}-{digest}", digest, len(written))
        self.blobs.put(parcel.key, written, sha256=digest)
        return parcel

    # -- and back --

    def _head(self, head: H) -> H:
        if head is None or not parcels_in(head):
            return head
        return bound(head, partial(self._fetched, head.run, None, _OF_HEAD))

    def _record(self, run: RunRef, record: R) -> R:
        if record is None or not parcels_in(record):
            return record
        return bound(record, partial(self._fetched, run, record.key, _OF_RECORD))

    def _moved(self, reply: Written | HeadMoved) -> Written | HeadMoved:
        return reply if isinstance(reply, Written) else HeadMoved(self._head(reply.head))

    def _fetched(
        self, run: RunRef, key: StepKey | None, fields: Mapping[str, _Field], name: str, parcel: Parcel
    ) -> Any:
        field = fields[name]
        return field.read(json.loads(self._verified(run, key, field, parcel)))

    def _verified(self, run: RunRef, key: StepKey | None, field: _Field, parcel: Parcel) -> bytes:
        """The bytes of a parcel. Raises: BlobMissing, BlobAltered, BlobsUnavailable."""
        step = None if key is None else dotted(key)
        content = self.blobs.get(parcel.key)
        if content is None:
            why = f"{self.blobs.name!r} has nothing there"
            why += "." if parcel.store == self.blobs.name else f", and it was put into {parcel.store!r}."
            raise BlobMissing(field.called, run_id=run.id, step=step, key=parcel.key, why=why)
        if len(content) != parcel.size or sha256(content).hexdigest() != parcel.sha256:
            why = f"{len(content)} bytes there in {self.blobs.name!r} are not the {parcel.size} that were put."
            raise BlobAltered(field.called, run_id=run.id, step=step, key=parcel.key, why=why)
        return content

    # -- the end --

    def _emptied(self, run: RunRef, head: Head | None) -> None:
        """Remove the run's blobs, as long as ``head`` stands.

        It is looked at after keys were read: while it stands, no later run of this id has begun, so the keys are none
        of that run's, which it would draw anew.
        """
        while keys := self.blobs.keys(_prefix(run)):
            if _mark(self.inner.peek(run)) != _mark(head):
                return
            self.blobs.delete(keys)


def _mark(head: Head | None) -> tuple[Any, ...]:
    """What tells one write of a head from any other."""
    return () if head is None else (head.version, head.epoch, head.status, head.created_at, head.updated_at)


def _prefix(run: RunRef) -> str:
    return f"t-{run.tenant}/r-{run.id}/"


def _place(run: RunRef, key: StepKey | None) -> str:
    return f"of run {run.id!r}" if key is None else f"of step {key!r} in run {run.id!r}"
