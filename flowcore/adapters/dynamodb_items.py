"""How a run lies in the table: keys, the head and one record as items, and the three changes an update makes.

Makes no calls and judges no condition; ``dynamodb`` and ``memory`` do, and both store exactly these items. An attribute
at its default is left out and names are one to three letters, because DynamoDB bills names too: a small record stays
well under one write unit.

One partition per run, ``T#<tenant>#R#<run>``. In it, in sorting order: ``#HEAD``, then for each record
``S#<incarnation>#<scope>#<key>``, so that one query reads the head with the records of the run's own scope.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from flowcore.adapters.dynamodb_attributes import (
    ITEM_LIMIT,
    Attribute,
    Item,
    from_ms,
    instant,
    instant_of,
    int_of,
    item_size,
    number,
    parcel,
    parcel_of,
    payload,
    text,
    to_ms,
    value_of,
)
from flowcore.adapters.dynamodb_values import (
    alternatives_json,
    alternatives_of,
    answer_json,
    answer_of,
    answers_of,
    asked_json,
    asked_of,
    delegations_json,
    delegations_of,
    delta_json,
    delta_of,
    failure_json,
    failure_of,
    given_of,
    instead_of,
    marks_json,
    pair_of,
    part_json,
    part_of,
    terms_json,
    terms_of,
    trace_json,
    trace_of,
)
from flowcore.errors import BlobMissing, InvalidPayload, InvariantError, PayloadTooLarge
from flowcore.keys import ROOT, RunRef, Scope, StepKey, dotted, scope_of
from flowcore.model import (
    Head,
    Json,
    Outcome,
    PublicStatus,
    RunStatus,
    RunSummary,
    StepRecord,
)
from flowcore.parcels import Fetch, Parcel, lazily, nearby, parcels_in

SCHEMA = 1
"""Version of the item form written here, in attribute ``v``. Items of a later one are refused, never guessed at."""
HEAD_KEY = "#HEAD"
SHARDS = 8
"""Partitions each index is spread over: 8,000 changes a second, and a reader asks 8 times."""
SORT_KEY_LIMIT = 1024
"""Bytes of a sort key. Source: Amazon DynamoDB Developer Guide, "Quotas", sort key length."""

_TAG_END = "\n"
"""Stands around each tag; no tag holds a control character."""
_HEAD_ROOM = 1024
"""Bytes of a head kept free for what a claim or a cancel adds, so that a stored head can always be claimed."""


# -- keys and indexes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Index:
    """A secondary index of the table: its two keys, and which other attributes it copies."""

    name: str
    partition: str
    sort: str
    copied: tuple[str, ...] = ()


DUE_INDEX = Index("due-index", "dsh", "due")
"""Finds runs somebody must look at. Sparse: a head without ``due`` is not in it."""
LIST_INDEX = Index("list-index", "lsh", "lsk", ("ps", "wf", "rs", "tg", "sw", "dl", "xp"))
"""Lists a tenant's runs by time of creation: all that a listing shows and filters by is copied, so no head is read.

It copies the public word ``ps`` and not the stored status, because claiming a run that users already see as running
then costs no index write. Since when a run waits (``sw``), its deadline (``dl``) and when it expires (``xp``) change
only in writes that change ``ps`` as well, and tags never: none of them costs an index write of its own.
"""


def partition_of(run: RunRef) -> str:
    """The partition key of everything about ``run``."""
    return f"T#{run.tenant}#R#{run.id}"


def run_of(partition: str) -> RunRef:
    """The run whose partition key this is."""
    _, tenant, _, run_id = partition.split("#")
    return RunRef(tenant, run_id)


def own_scope(head: Head) -> Scope:
    """The scope with which the records of a run begin; a child's lies in a foreach of the run it is a part of."""
    return ROOT if head.part is None else Scope(head.part.key)


def incarnation_prefix(incarnation: int) -> str:
    """How every sort key of one incarnation's records begins."""
    return f"S#{incarnation:04}#"


def scope_prefix(incarnation: int, scope: Scope) -> str:
    """How every sort key of the records in ``scope`` begins."""
    return f"{incarnation_prefix(incarnation)}{scope}#"


def record_key(incarnation: int, key: StepKey) -> str:
    """The sort key of the record at ``key``.

    Raises:
        PayloadTooLarge: nested so deeply, with ids so long, that DynamoDB would not take the key.
    """
    found = f"{scope_prefix(incarnation, scope_of(key))}{key}"
    if len(found.encode()) > SORT_KEY_LIMIT:
        raise PayloadTooLarge(f"The place {key!r}, written as a sort key,", len(found.encode()), SORT_KEY_LIMIT)
    return found


@lru_cache(maxsize=4096)
def step_key_of(sort_key: str) -> StepKey:
    """The step key in a record's sort key.

    A scope may hold ``#`` itself (``poll#3``), so the right place to cut is the one where the key lies in the scope.
    """
    rest = sort_key.split("#", 2)[2]
    for cut in (match.start() for match in re.finditer("#", rest)):
        key = StepKey(rest[cut + 1 :])
        if _lies_in(key, rest[:cut]):
            return key
    raise InvariantError(f"{sort_key!r} is not the sort key of a record.")


def _lies_in(key: StepKey, scope: str) -> bool:
    try:
        return scope_of(key) == scope
    except ValueError:
        return False


def due_shard(shard: int) -> str:
    """The partition key of one shard of the due index."""
    return f"D#{shard}"


def list_shard(tenant: str, shard: int) -> str:
    """The partition key of one shard of the list index."""
    return f"L#{tenant}#{shard}"


def list_key(created_at_ms: int, run_id: str) -> str:
    """The sort key in the list index: sorts by time of creation, then by id."""
    return f"{created_at_ms:013}#{run_id}"


def _shard_of(partition: str) -> int:
    return zlib.crc32(partition.encode()) % SHARDS


# -- the head ---------------------------------------------------------------------------------------------------------

_FIXED = frozenset({"pk", "sk", "wf", "in", "inh", "ca", "rs", "sb", "tr", "tg", "tm", "lsh", "lsk", "po"})
"""What no update ever writes again: a run keeps its name, input, trace, tags, place in listings and what it is of."""
_REMOVABLE = frozenset(
    {
        *("own", "lx", "inc", "ik", "wake", "due", "dsh", "att", "hop", "res", "err", "blk", "sta", "ctx", "ob"),
        *("tc", "sw", "dl", "xp", "cb"),
    },
)
"""What an update removes when it is at its default, so that nothing of the former head shows through."""


def encode_head(head: Head, token: str) -> Item:
    """The head as an item; ``token`` names the write, so that its writer knows it again.

    Raises:
        InvalidPayload, PayloadTooLarge: see ``payload``; or the whole item is too large.
    """
    near = nearby(head)
    item = {**_head_facts(near), **_head_payloads(near), **_parcels(head, HEAD_PAYLOADS), "lc": text(token)}
    _refuse_oversize(f"Run {head.run.id!r}, with its input, state and result,", item, ITEM_LIMIT - _HEAD_ROOM)
    return item


def _head_facts(head: Head) -> Item:
    pk = partition_of(head.run)
    shard = _shard_of(pk)
    return _present(
        pk=text(pk),
        sk=text(HEAD_KEY),
        v=number(SCHEMA),
        st=text(head.status),
        ps=text(head.public_status),
        ver=number(head.version),
        ep=number(head.epoch),
        own=_text(head.owner),
        lx=_instant(head.lease_until),
        inc=_unless(1, head.incarnation),
        ik=None if head.effects is None else number(head.effects),
        wf=text(head.workflow),
        dv=text(head.definition),
        inh=text(head.input_hash),
        ca=instant(head.created_at),
        ua=instant(head.updated_at),
        wake=_instant(head.wake),
        due=_instant(head.due),
        dsh=text(due_shard(shard)) if head.due is not None else None,
        att=_unless(0, head.attempts),
        hop=_unless(0, head.hops),
        blk=_text(head.blocked),
        rs=_text(head.resource_id),
        sb=_text(head.started_by),
        cb=_text(head.canceled_by),
        tr=_text(head.trace.trace_id),
        tg=_text(_tags_text(head.trace.tags)),
        sw=_instant(head.waiting_since),
        dl=_instant(head.deadline),
        xp=_instant(head.expires_at),
        ob=_text(",".join(head.outbox) or None),
        po=_payload("", part_json(head.part)),
        lsh=text(list_shard(head.run.tenant, shard)) if head.part is None else None,
        lsk=text(list_key(to_ms(head.created_at), head.run.id)) if head.part is None else None,
    )


def _head_payloads(head: Head) -> Item:
    of_run = f"of run {head.run.id!r}"
    entered = _payload(f"The input {of_run}", head.input)
    return ({} if entered is None else {"in": entered}) | _present(
        res=_payload(f"The result {of_run}", head.output),
        err=_payload(f"The failure {of_run}", failure_json(head.failure)),
        sta=_payload(f"The state {of_run}", dict(head.state) or None),
        ctx=_payload(f"The request context {of_run}", dict(head.request_context) or None),
        tm=_payload(f"The tracing metadata {of_run}", marks_json(head.trace)),
        tc=_payload(f"The tracing of the last resume {of_run}", trace_json(head.continued)),
    )


def decode_head(item: Mapping[str, Attribute]) -> Head:
    """The head that an item holds.

    Raises:
        InvariantError: a later flowcore wrote it.
    """
    refuse_later(item)
    if far := _far_in(item, HEAD_PAYLOADS):
        near = decode_head({name: value for name, value in item.items() if HEAD_PAYLOADS.get(name) not in far})
        return lazily(near, far, _unbound(near.run, None))
    known = {field: decode(item[name]) for name, (field, decode) in _OPTIONAL_IN_HEAD.items() if name in item}
    marks = value_of(item["tm"]) if "tm" in item else {}
    return Head(
        run=run_of(item["pk"]["S"]),
        workflow=item["wf"]["S"],
        definition=item["dv"]["S"],
        input_hash=item["inh"]["S"],
        status=RunStatus(item["st"]["S"]),
        created_at=instant_of(item["ca"]),
        updated_at=instant_of(item["ua"]),
        version=int_of(item["ver"]),
        epoch=int_of(item["ep"]),
        trace=trace_of({**marks, "t": _read(item, "tr", _str_of, None), "g": _tags_in(item)}),
        **{"input": None, **known},
    )


def decode_summary(entry: Mapping[str, Attribute]) -> RunSummary:
    """One line of a listing, from an entry of the list index or from the whole head."""
    created_ms, run_id = list_position(entry)
    status: PublicStatus = entry["ps"]["S"]
    return RunSummary(
        run_id=run_id,
        workflow_id=entry["wf"]["S"],
        status=status,
        created_at=from_ms(created_ms),
        resource_id=_read(entry, "rs", _str_of, None),
        tags=_tags_in(entry),
        waiting_since=_read(entry, "sw", instant_of, None),
        deadline=_read(entry, "dl", instant_of, None),
    )


def tag_text(tag: str) -> str:
    """What the tags of an entry contain exactly if ``tag`` is one of them: nobody's tag is a part of another's."""
    return f"{_TAG_END}{tag}{_TAG_END}"


def _tags_text(tags: Sequence[str]) -> str | None:
    return f"{_TAG_END}{_TAG_END.join(tags)}{_TAG_END}" if tags else None


def _tags_in(entry: Mapping[str, Attribute]) -> tuple[str, ...]:
    written = _read(entry, "tg", _str_of, "")
    return tuple(written.strip(_TAG_END).split(_TAG_END)) if written else ()


def list_position(entry: Mapping[str, Attribute]) -> tuple[int, str]:
    """Where an entry stands in a listing: time of creation in milliseconds, and the run's id."""
    created, run_id = entry["lsk"]["S"].split("#", 1)
    return int(created), run_id


# -- changes of a head ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """What one update does to a head: attributes set, counters grown by one, attributes removed."""

    put: Mapping[str, Attribute]
    grow: tuple[str, ...] = ()
    drop: tuple[str, ...] = field(default=())

    def applied_to(self, item: Mapping[str, Attribute]) -> Item:
        """The item after the update; ``item`` stays as it was."""
        grown = {name: number(_read(item, name, int_of, 0) + 1) for name in self.grow}
        kept = {name: value for name, value in item.items() if name not in self.drop}
        return {**kept, **self.put, **grown}


def replacement(head: Head, token: str) -> Change:
    """Everything about a head that may change, made to be as ``head`` says."""
    item = encode_head(head, token)
    put = {name: value for name, value in item.items() if name not in _FIXED}
    return Change(put, drop=tuple(sorted(_REMOVABLE - item.keys())))


def claiming(
    run: RunRef, *, owner: str, lease_until: datetime, due: datetime, clock: datetime | None, token: str
) -> Change:
    """A worker takes the run. ``clock`` is the run's new time, None to leave the one it has."""
    put = _present(
        st=text(RunStatus.RUNNING),
        ps=text("running"),
        own=text(owner),
        lx=instant(lease_until),
        due=instant(due),
        dsh=text(due_shard(_shard_of(partition_of(run)))),
        ua=_instant(clock),
        lc=text(token),
    )
    return Change(put, grow=("ver", "ep", "att"), drop=("wake", "ob", "sw", "dl"))


def canceling(*, by: str | None, clock: datetime | None, token: str) -> Change:
    """Somebody ends the run. ``clock`` is the run's new time, None to leave the one it has."""
    put = _present(st=text(RunStatus.CANCELED), ps=text("canceled"), cb=_text(by), ua=_instant(clock), lc=text(token))
    return Change(put, grow=("ver", "ep"), drop=("due", "dsh", "own", "lx", "wake", "ob", "sw", "dl"))


# -- records ----------------------------------------------------------------------------------------------------------


def encode_record(run: RunRef, incarnation: int, record: StepRecord, token: str) -> Item:
    """One record as an item; ``token`` names the write, so that its writer knows it again.

    Raises:
        InvalidPayload, PayloadTooLarge: see ``payload``; or the whole item or its key is too large.
    """
    place = f"of step {record.key!r} in run {run.id!r}"
    far, record = _parcels(record, RECORD_PAYLOADS), nearby(record)
    item = _present(
        pk=text(partition_of(run)),
        sk=text(record_key(incarnation, record.key)),
        v=number(SCHEMA),
        o=text(record.outcome),
        g=number(record.gen),
        sq=number(record.seq),
        by=number(record.epoch),
        at=instant(record.at),
        sa=instant(record.started_at) if record.started_at != record.at else None,
        out=_payload(f"The output {place}", record.output),
        err=_payload(f"The failure {place}", failure_json(record.failure)),
        d=_payload(f"The change of state {place}", delta_json(record.delta)),
        n=_unless(1, record.attempt),
        u=_instant(record.until),
        sp=_payload(f"The suspend payload {place}", record.payload),
        lb=_text(record.label),
        ev=_payload("", list(record.listens) if record.listens else None),
        tm=_payload(f"What is to happen {place}", terms_json(record.terms)),
        al=_payload(f"What is waited for {place}", alternatives_json(record.alternatives)),
        vo=_payload(f"The votes {place}", [answer_json(answer) for answer in record.votes] or None),
        dg=_payload(f"The delegations {place}", delegations_json(record.delegations)),
        bg=number(record.began) if record.began is not None else None,
        gi=_payload(f"The given input {place}", list(record.given) if record.given else None),
        si=_payload("", list(record.instead) if record.instead else None),
        an=_payload(f"The answer {place}", answer_json(record.answer)),
        aq=_payload("", asked_json(record)),
        pa=_payload(f"The earlier answers {place}", [answer_json(answer) for answer in record.spent] or None),
        op=_text(record.opens),
        c=number(record.count) if record.count is not None else None,
        lc=text(token),
    )
    item |= far
    _refuse_oversize(f"The record {place}", item, ITEM_LIMIT)
    return item


def decode_record(item: Mapping[str, Attribute]) -> StepRecord:
    """The record that an item holds.

    Raises:
        InvariantError: a later flowcore wrote it.
    """
    refuse_later(item)
    return decode_item(item)


def decode_item(item: Mapping[str, Attribute], key: StepKey | None = None) -> StepRecord:
    """The same, of whatever version; ``key`` where the item has no sort key."""
    if far := _far_in(item, RECORD_PAYLOADS):
        near = decode_item({name: value for name, value in item.items() if RECORD_PAYLOADS.get(name) not in far}, key)
        return lazily(near, far, _unbound(run_of(item["pk"]["S"]), near.key))
    at = instant_of(item["at"])
    known = {field: decode(item[name]) for name, (field, decode) in _OPTIONAL.items() if name in item}
    return StepRecord(
        key=step_key_of(item["sk"]["S"]) if key is None else key,
        outcome=Outcome(item["o"]["S"]),
        gen=int_of(item["g"]),
        seq=int_of(item["sq"]),
        epoch=int_of(item["by"]),
        at=at,
        **{"started_at": at, **known},
    )


def gather(root: Iterable[StepRecord], read: Callable[[Scope], Iterable[StepRecord]]) -> dict[StepKey, StepRecord]:
    """The records in ``root`` and in every scope that a record still at work opens, read one scope after another."""
    records: dict[StepKey, StepRecord] = {}
    found: Iterable[StepRecord] = root
    unread: list[Scope] = []
    seen = {ROOT}
    while True:
        for record in found:
            records[record.key] = record
            if record.opens is not None and not record.is_settled and record.opens not in seen:
                seen.add(record.opens)
                unread.append(record.opens)
        if not unread:
            return records
        found = read(unread.pop())


def _read(item: Mapping[str, Attribute], name: str, decode: Callable[[Attribute], Any], default: Any) -> Any:
    attribute = item.get(name)
    return default if attribute is None else decode(attribute)


def _str_of(attribute: Attribute) -> str:
    return str(attribute["S"])


_OPTIONAL_IN_HEAD: Mapping[str, tuple[str, Callable[[Attribute], Any]]] = {
    "in": ("input", value_of),
    "own": ("owner", _str_of),
    "lx": ("lease_until", instant_of),
    "inc": ("incarnation", int_of),
    "ik": ("effects", int_of),
    "wake": ("wake", instant_of),
    "due": ("due", instant_of),
    "att": ("attempts", int_of),
    "hop": ("hops", int_of),
    "res": ("output", value_of),
    "err": ("failure", lambda attribute: failure_of(value_of(attribute))),
    "blk": ("blocked", _str_of),
    "sb": ("started_by", _str_of),
    "cb": ("canceled_by", _str_of),
    "rs": ("resource_id", _str_of),
    "sta": ("state", value_of),
    "ctx": ("request_context", value_of),
    "tc": ("continued", lambda attribute: trace_of(value_of(attribute))),
    "sw": ("waiting_since", instant_of),
    "dl": ("deadline", instant_of),
    "xp": ("expires_at", instant_of),
    "ob": ("outbox", lambda attribute: tuple(name for name in attribute["S"].split(",") if name)),
    "po": ("part", lambda attribute: part_of(value_of(attribute))),
}
"""The field that an attribute holds which a head may leave out; only what is there is looked at."""
_OPTIONAL: Mapping[str, tuple[str, Callable[[Attribute], Any]]] = {
    "sa": ("started_at", instant_of),
    "out": ("output", value_of),
    "err": ("failure", lambda attribute: failure_of(value_of(attribute))),
    "d": ("delta", lambda attribute: delta_of(value_of(attribute))),
    "n": ("attempt", int_of),
    "u": ("until", instant_of),
    "sp": ("payload", value_of),
    "lb": ("label", lambda attribute: str(attribute["S"])),
    "ev": ("listens", lambda attribute: pair_of(value_of(attribute))),
    "tm": ("terms", lambda attribute: terms_of(value_of(attribute))),
    "al": ("alternatives", lambda attribute: alternatives_of(value_of(attribute))),
    "vo": ("votes", lambda attribute: answers_of(value_of(attribute))),
    "dg": ("delegations", lambda attribute: delegations_of(value_of(attribute))),
    "bg": ("began", int_of),
    "gi": ("given", lambda attribute: given_of(value_of(attribute))),
    "si": ("instead", lambda attribute: instead_of(value_of(attribute))),
    "an": ("answer", lambda attribute: answer_of(value_of(attribute))),
    "aq": ("asked", lambda attribute: asked_of(value_of(attribute))),
    "pa": ("spent", lambda attribute: answers_of(value_of(attribute))),
    "op": ("opens", lambda attribute: Scope(attribute["S"])),
    "c": ("count", int_of),
}
"""The field that an attribute holds which a record may leave out. Most records leave out most of them, so only what is
there is looked at: a store reads far more records than it does anything else."""


PAYLOADS = frozenset({"out", "err", "d", "sp", "ev", "tm", "al", "vo", "dg", "gi", "si", "an", "aq", "pa"})
"""Attributes of a record that ``payload`` writes."""


# -- payloads that lie elsewhere --------------------------------------------------------------------------------------

HEAD_PAYLOADS: Mapping[str, str] = {"in": "input", "res": "output", "sta": "state", "ctx": "request_context"}
"""Attributes of a head that may hold a parcel instead, with their fields."""
RECORD_PAYLOADS: Mapping[str, str] = {
    "out": "output",
    "sp": "payload",
    "d": "delta",
    "tm": "terms",
    "al": "alternatives",
    "vo": "votes",
    "gi": "given",
    "an": "answer",
}
"""The same of a record."""


def _parcels(value: Head | StepRecord, payloads: Mapping[str, str]) -> Item:
    far = parcels_in(value)
    return {name: parcel(far[field]) for name, field in payloads.items() if field in far} if far else {}


def _far_in(item: Mapping[str, Attribute], payloads: Mapping[str, str]) -> dict[str, Parcel]:
    found = {field: parcel_of(item[name]) for name, field in payloads.items() if name in item}
    return {field: there for field, there in found.items() if there is not None}


def _unbound(run: RunRef, key: StepKey | None) -> Fetch:
    """What to raise for a payload that lies elsewhere, where nobody knows a blob store."""

    def refuse(field: str, there: Parcel) -> Json:
        step = None if key is None else dotted(key)
        why = f"it lies in the blob store {there.store!r}, and this App was given none: App(blobs=...)."
        raise BlobMissing(field, run_id=run.id, step=step, key=there.key, why=why)

    return refuse


# -- attributes that may be absent ------------------------------------------------------------------------------------


def _present(**attributes: Attribute | None) -> Item:
    return {name: attribute for name, attribute in attributes.items() if attribute is not None}


def _text(value: str | None) -> Attribute | None:
    return None if value is None else text(value)


def _instant(value: datetime | None) -> Attribute | None:
    return None if value is None else instant(value)


def _unless(default: int, value: int) -> Attribute | None:
    return None if value == default else number(value)


def _payload(subject: str, value: Json) -> Attribute | None:
    return None if value is None else payload(subject, value)


# -- refusals ---------------------------------------------------------------------------------------------------------


def _refuse_oversize(subject: str, item: Item, limit: int) -> None:
    try:
        size = item_size(item)
    except UnicodeEncodeError as error:
        raise InvalidPayload(subject, [{"path": "", "message": f"holds text that is not Unicode: {error}"}]) from error
    if size > limit:
        raise PayloadTooLarge(subject, size, limit)


def refuse_later(item: Mapping[str, Attribute]) -> None:
    """Raises: InvariantError for an item that a later flowcore wrote."""
    found = int_of(item["v"])
    if found > SCHEMA:
        raise InvariantError(
            f"Item {item['sk']['S']!r} of run {run_of(item['pk']['S']).id!r} has schema version {found}; this flowcore "
            f"knows versions up to {SCHEMA}. A later flowcore wrote it: deploy that one here too."
        )
