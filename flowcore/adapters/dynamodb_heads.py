"""The head of a run as an item, and the three changes an update makes to it.

Makes no calls and judges no condition; ``dynamodb`` and ``memory`` do, and both store exactly these items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flowcore.adapters.dynamodb_attributes import (
    ITEM_LIMIT,
    Attribute,
    Item,
    from_ms,
    instant,
    instant_of,
    int_of,
    number,
    text,
    to_ms,
    value_of,
)
from flowcore.adapters.dynamodb_items import (
    SCHEMA,
    far_in,
    instant_or_none,
    number_unless,
    parcels_of,
    payload_or_none,
    present,
    read,
    refuse_later,
    refuse_oversize,
    str_of,
    text_or_none,
    unbound,
)
from flowcore.adapters.dynamodb_keys import HEAD_KEY, due_shard, list_key, list_shard, partition_of, run_of, shard_of
from flowcore.adapters.dynamodb_values import (
    failure_json,
    failure_of,
    marks_json,
    part_json,
    part_of,
    trace_json,
    trace_of,
)
from flowcore.keys import ROOT, RunRef, Scope
from flowcore.model import Head, PublicStatus, RunStatus, RunSummary
from flowcore.parcels import lazily, nearby

HEAD_PAYLOADS: Mapping[str, str] = {"in": "input", "res": "output", "sta": "state", "ctx": "request_context"}
"""Attributes of a head that may hold a parcel instead, with their fields."""
_TAG_END = "\n"
"""Stands around each tag; no tag holds a control character."""
_HEAD_ROOM = 1024
"""Bytes of a head kept free for what a claim or a cancel adds, so that a stored head can always be claimed."""
_FIXED = frozenset(
    {"pk", "sk", "wf", "in", "sta", "ctx", "inh", "ca", "rs", "sb", "tr", "tg", "tm", "lsh", "lsk", "po"}
)
"""What no update ever writes again: a run keeps its name, trace, tags, place in listings, what it is of, and the input,
state and request context that it began with."""
_REMOVABLE = frozenset(
    {
        *("own", "lx", "inc", "ik", "wake", "due", "dsh", "att", "hop", "res", "err", "blk", "ob"),
        *("tc", "sw", "dl", "xp", "cb", "os"),
    },
)
"""What an update removes when it is at its default, so that nothing of the former head shows through."""


def own_scope(head: Head) -> Scope:
    """The scope with which the records of a run begin; a child's lies in a foreach of the run it is a part of."""
    return ROOT if head.part is None else Scope(head.part.key)


def encode_head(head: Head, token: str) -> Item:
    """The head as an item; ``token`` names the write, so that its writer knows it again.

    Raises:
        InvalidPayload, PayloadTooLarge: see ``payload``; or the whole item is too large.
    """
    near = nearby(head)
    item = {**_head_facts(near), **_head_payloads(near), **parcels_of(head, HEAD_PAYLOADS), "lc": text(token)}
    refuse_oversize(f"Run {head.run.id!r}, with its input, state and result,", item, ITEM_LIMIT - _HEAD_ROOM)
    return item


def _head_facts(head: Head) -> Item:
    pk = partition_of(head.run)
    shard = shard_of(pk)
    return present(
        pk=text(pk),
        sk=text(HEAD_KEY),
        v=number(SCHEMA),
        st=text(head.status),
        ps=text(head.public_status),
        ver=number(head.version),
        ep=number(head.epoch),
        own=text_or_none(head.owner),
        lx=instant_or_none(head.lease_until),
        inc=number_unless(1, head.incarnation),
        ik=None if head.effects is None else number(head.effects),
        wf=text(head.workflow),
        dv=text(head.definition),
        inh=text(head.input_hash),
        ca=instant(head.created_at),
        ua=instant(head.updated_at),
        wake=instant_or_none(head.wake),
        due=instant_or_none(head.due),
        dsh=text(due_shard(shard)) if head.due is not None else None,
        att=number_unless(0, head.attempts),
        hop=number_unless(0, head.hops),
        blk=text_or_none(head.blocked),
        rs=text_or_none(head.resource_id),
        sb=text_or_none(head.started_by),
        cb=text_or_none(head.canceled_by),
        tr=text_or_none(head.trace.trace_id),
        tg=text_or_none(_tags_text(head.trace.tags)),
        sw=instant_or_none(head.waiting_since),
        dl=instant_or_none(head.deadline),
        xp=instant_or_none(head.expires_at),
        ob=text_or_none(",".join(head.outbox) or None),
        os=number_unless(0, head.told_of),
        po=payload_or_none("", part_json(head.part)),
        lsh=text(list_shard(head.run.tenant, shard)) if head.part is None else None,
        lsk=text(list_key(to_ms(head.created_at), head.run.id)) if head.part is None else None,
    )


def _head_payloads(head: Head) -> Item:
    of_run = f"of run {head.run.id!r}"
    entered = payload_or_none(f"The input {of_run}", head.input)
    return ({} if entered is None else {"in": entered}) | present(
        res=payload_or_none(f"The result {of_run}", head.output),
        err=payload_or_none(f"The failure {of_run}", failure_json(head.failure)),
        sta=payload_or_none(f"The state {of_run}", dict(head.state) or None),
        ctx=payload_or_none(f"The request context {of_run}", dict(head.request_context) or None),
        tm=payload_or_none(f"The tracing metadata {of_run}", marks_json(head.trace)),
        tc=payload_or_none(f"The tracing of the last resume {of_run}", trace_json(head.continued)),
    )


def decode_head(item: Mapping[str, Attribute]) -> Head:
    """The head that an item holds.

    Raises:
        InvariantError: a later flowcore wrote it.
    """
    refuse_later(item)
    if far := far_in(item, HEAD_PAYLOADS):
        near = decode_head({name: value for name, value in item.items() if HEAD_PAYLOADS.get(name) not in far})
        return lazily(near, far, unbound(near.run, None))
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
        trace=trace_of({**marks, "t": read(item, "tr", str_of, None), "g": _tags_in(item)}),
        **{"input": None, **known},
    )


_OPTIONAL_IN_HEAD: Mapping[str, tuple[str, Callable[[Attribute], Any]]] = {
    "in": ("input", value_of),
    "own": ("owner", str_of),
    "lx": ("lease_until", instant_of),
    "inc": ("incarnation", int_of),
    "ik": ("effects", int_of),
    "wake": ("wake", instant_of),
    "due": ("due", instant_of),
    "att": ("attempts", int_of),
    "hop": ("hops", int_of),
    "res": ("output", value_of),
    "err": ("failure", lambda attribute: failure_of(value_of(attribute))),
    "blk": ("blocked", str_of),
    "sb": ("started_by", str_of),
    "cb": ("canceled_by", str_of),
    "rs": ("resource_id", str_of),
    "sta": ("state", value_of),
    "ctx": ("request_context", value_of),
    "tc": ("continued", lambda attribute: trace_of(value_of(attribute))),
    "sw": ("waiting_since", instant_of),
    "dl": ("deadline", instant_of),
    "xp": ("expires_at", instant_of),
    "ob": ("outbox", lambda attribute: tuple(name for name in attribute["S"].split(",") if name)),
    "os": ("told_of", int_of),
    "po": ("part", lambda attribute: part_of(value_of(attribute))),
}
"""The field that an attribute holds which a head may leave out; only what is there is looked at."""


def decode_summary(entry: Mapping[str, Attribute]) -> RunSummary:
    """One line of a listing, from an entry of the list index or from the whole head."""
    created_ms, run_id = list_position(entry)
    status: PublicStatus = entry["ps"]["S"]
    return RunSummary(
        run_id=run_id,
        workflow_id=entry["wf"]["S"],
        status=status,
        created_at=from_ms(created_ms),
        resource_id=read(entry, "rs", str_of, None),
        tags=_tags_in(entry),
        waiting_since=read(entry, "sw", instant_of, None),
        deadline=read(entry, "dl", instant_of, None),
    )


def tag_text(tag: str) -> str:
    """What the tags of an entry contain exactly if ``tag`` is one of them: nobody's tag is a part of another's."""
    return f"{_TAG_END}{tag}{_TAG_END}"


def _tags_text(tags: Sequence[str]) -> str | None:
    return f"{_TAG_END}{_TAG_END.join(tags)}{_TAG_END}" if tags else None


def _tags_in(entry: Mapping[str, Attribute]) -> tuple[str, ...]:
    written = read(entry, "tg", str_of, "")
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
        grown = {name: number(read(item, name, int_of, 0) + 1) for name in self.grow}
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
    put = present(
        st=text(RunStatus.RUNNING),
        ps=text("running"),
        own=text(owner),
        lx=instant(lease_until),
        due=instant(due),
        dsh=text(due_shard(shard_of(partition_of(run)))),
        ua=instant_or_none(clock),
        lc=text(token),
    )
    return Change(put, grow=("ver", "ep", "att"), drop=("wake", "ob", "sw", "dl"))


def canceling(*, by: str | None, clock: datetime | None, token: str) -> Change:
    """Somebody ends the run. ``clock`` is the run's new time, None to leave the one it has."""
    put = present(
        st=text(RunStatus.CANCELED), ps=text("canceled"), cb=text_or_none(by), ua=instant_or_none(clock), lc=text(token)
    )
    return Change(put, grow=("ver", "ep"), drop=("due", "dsh", "own", "lx", "wake", "ob", "sw", "dl"))
