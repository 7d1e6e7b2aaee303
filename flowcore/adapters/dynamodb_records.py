"""One record of a run as an item, and how the records that matter are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flowcore.adapters.dynamodb_attributes import (
    ITEM_LIMIT,
    Attribute,
    Item,
    instant,
    instant_of,
    int_of,
    number,
    text,
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
    refuse_later,
    refuse_oversize,
    text_or_none,
    unbound,
)
from flowcore.adapters.dynamodb_keys import partition_of, record_key, run_of, step_key_of
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
    pair_of,
    terms_json,
    terms_of,
)
from flowcore.keys import ROOT, RunRef, Scope, StepKey
from flowcore.model import Outcome, StepRecord
from flowcore.parcels import lazily, nearby

PAYLOADS = frozenset({"out", "err", "d", "sp", "ev", "tm", "al", "vo", "dg", "gi", "si", "an", "aq", "pa"})
"""Attributes of a record that ``payload`` writes."""
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
"""Attributes of a record that may hold a parcel instead, with their fields."""


def encode_record(run: RunRef, incarnation: int, record: StepRecord, token: str) -> Item:
    """One record as an item; ``token`` names the write, so that its writer knows it again.

    Raises:
        InvalidPayload, PayloadTooLarge: see ``payload``; or the whole item or its key is too large.
    """
    place = f"of step {record.key!r} in run {run.id!r}"
    far, record = parcels_of(record, RECORD_PAYLOADS), nearby(record)
    item = present(
        pk=text(partition_of(run)),
        sk=text(record_key(incarnation, record.key)),
        v=number(SCHEMA),
        o=text(record.outcome),
        g=number(record.gen),
        sq=number(record.seq),
        by=number(record.epoch),
        at=instant(record.at),
        sa=instant(record.started_at) if record.started_at != record.at else None,
        out=payload_or_none(f"The output {place}", record.output),
        err=payload_or_none(f"The failure {place}", failure_json(record.failure)),
        d=payload_or_none(f"The change of state {place}", delta_json(record.delta)),
        n=number_unless(1, record.attempt),
        u=instant_or_none(record.until),
        sp=payload_or_none(f"The suspend payload {place}", record.payload),
        lb=text_or_none(record.label),
        ev=payload_or_none("", list(record.listens) if record.listens else None),
        tm=payload_or_none(f"What is to happen {place}", terms_json(record.terms)),
        al=payload_or_none(f"What is waited for {place}", alternatives_json(record.alternatives)),
        vo=payload_or_none(f"The votes {place}", [answer_json(answer) for answer in record.votes] or None),
        dg=payload_or_none(f"The delegations {place}", delegations_json(record.delegations)),
        bg=number(record.began) if record.began is not None else None,
        gi=payload_or_none(f"The given input {place}", list(record.given) if record.given else None),
        si=payload_or_none("", list(record.instead) if record.instead else None),
        an=payload_or_none(f"The answer {place}", answer_json(record.answer)),
        aq=payload_or_none("", asked_json(record)),
        pa=payload_or_none(f"The earlier answers {place}", [answer_json(answer) for answer in record.spent] or None),
        op=text_or_none(record.opens),
        c=number(record.count) if record.count is not None else None,
        lc=text(token),
    )
    item |= far
    refuse_oversize(f"The record {place}", item, ITEM_LIMIT)
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
    if far := far_in(item, RECORD_PAYLOADS):
        near = decode_item({name: value for name, value in item.items() if RECORD_PAYLOADS.get(name) not in far}, key)
        return lazily(near, far, unbound(run_of(item["pk"]["S"]), near.key))
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
