"""Several records in one item: how outcomes are stored that a run has kept back, or that a new life begins with.

What never changes again is folded, per scope, into one item that sorts in front of the scope's own records::

    S#0001##!7        the outcomes of the run's own scope that were written with the one of order 7
    S#0001##!9.1      what found no room in that

A fold is written in the transaction that writes the head, or before any head tells of its life: so only whoever holds
the run can make one, everybody else knows what is in it, and no condition on a single record is needed. What may still
change (a suspension, a retry, an open container, what a heartbeat told) or is large keeps an item of its own. DynamoDB
bills each kilobyte begun of each item, so ten small outcomes cost as much as one or two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from flowcore.adapters.dynamodb_attributes import Attribute, Item, item_size, number, payload, text, value_of
from flowcore.adapters.dynamodb_items import SCHEMA, refuse_later
from flowcore.adapters.dynamodb_keys import partition_of, scope_prefix
from flowcore.adapters.dynamodb_records import PAYLOADS, decode_item, encode_record
from flowcore.keys import RunRef, Scope, StepKey, is_beat, scope_of
from flowcore.model import Json, Outcome, StepRecord
from flowcore.parcels import parcels_in
from flowcore.ports import Batch

_ALONE_ABOVE = 32 * 1024
"""Bytes from which a record has an item of its own, as one with a value long enough to be compressed: there is nothing
to save, and values are judged by their length before compression."""
_FULL = 128 * 1024
"""Bytes of records that one fold holds at most; written as JSON they are less than twice that, which a payload may."""
_MOST_PUTS = 100
_MOST_BYTES = 3_500_000
"""What goes into one transaction. Source: Amazon DynamoDB Developer Guide, "Quotas": 100 items, 4 MB."""
_IN_THE_KEY = frozenset({"pk", "sk", "v", "lc"})


def encode_batch(
    run: RunRef, incarnation: int, batch: Batch, token: str
) -> Sequence[tuple[Item, StepRecord, StepRecord | None]]:
    """The items to be written; with each the (first) record in it, and what has to stand there: None, nothing."""
    written: list[tuple[Item, StepRecord, StepRecord | None]] = []
    folds: dict[Scope, list[tuple[StepRecord, Item]]] = {}
    for record, prior in batch:
        item = encode_record(run, incarnation, record, token)
        if prior is None and _is_foldable(record, item):
            folds.setdefault(scope_of(record.key), []).append((record, item))
        else:
            written.append((item, record, prior))
    for scope, members in folds.items():
        for nth, part in enumerate(_parts(members)):
            record, item = part[0]
            if len(part) > 1:
                # Of a life that begins several records may have one order, so this alone names no part.
                place = f"!{record.seq}.{nth}" if nth else f"!{record.seq}"
                item = _fold(run, f"{scope_prefix(incarnation, scope)}{place}", part, token)
            written.append((item, record, None))
    return written


def encode_life(
    incarnation: int, records: Iterable[tuple[RunRef, StepRecord]], token: str
) -> Sequence[tuple[RunRef, StepRecord, Item]]:
    """The items of records that lie in several runs, and in which nothing stands yet; with each the first in it."""
    homes: dict[RunRef, list[tuple[StepRecord, None]]] = {}
    for run, record in records:
        homes.setdefault(run, []).append((record, None))
    return [
        (run, record, item)
        for run, batch in homes.items()
        for item, record, _ in encode_batch(run, incarnation, batch, token)
    ]


def transactions(puts: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The same puts, in order, in as few transactions as DynamoDB allows."""
    group: list[dict[str, Any]] = []
    size = 0
    for put in puts:
        more = item_size(put["Item"])
        if group and (len(group) == _MOST_PUTS or size + more > _MOST_BYTES):
            yield group
            group, size = [], 0
        group.append({"Put": put})
        size += more
    if group:
        yield group


def decode_all(items: Iterable[Mapping[str, Attribute]]) -> Iterator[StepRecord]:
    """The records in items that come in order of their sort keys. A record that is folded wins over one that is not.

    There are two only where a worker that was given up has written one by itself under an older definition.
    """
    folded: set[StepKey] = set()
    for item in items:
        for record in _records_in(item):
            if "fo" in item:
                folded.add(record.key)
            elif record.key in folded:
                continue
            yield record


def _records_in(item: Mapping[str, Attribute]) -> Iterator[StepRecord]:
    refuse_later(item)
    if "fo" not in item:
        yield decode_item(item)
        return
    for member in value_of(item["fo"]):
        key = StepKey(member.pop("k"))
        yield decode_item({name: _attribute(name, value) for name, value in member.items()}, key)


def _is_foldable(record: StepRecord, item: Item) -> bool:
    """Whether the record can never change again, is small and all there."""
    is_fixed = (record.is_settled or record.outcome is Outcome.SLP) and not is_beat(record.key)
    return (
        is_fixed
        and not parcels_in(record)
        and item_size(item) <= _ALONE_ABOVE
        and not any("B" in attribute for attribute in item.values())
    )


def _parts(members: Sequence[tuple[StepRecord, Item]]) -> Iterator[list[tuple[StepRecord, Item]]]:
    part: list[tuple[StepRecord, Item]] = []
    size = 0
    for record, item in members:
        if part and size + item_size(item) > _FULL:
            yield part
            part, size = [], 0
        part.append((record, item))
        size += item_size(item)
    yield part


def _fold(run: RunRef, sort_key: str, part: Sequence[tuple[StepRecord, Item]], token: str) -> Item:
    members = [{"k": record.key, **_plain(item)} for record, item in part]
    return {
        "pk": text(partition_of(run)),
        "sk": text(sort_key),
        "v": number(SCHEMA),
        "fo": payload(f"Outcomes of run {run.id!r}", members),
        "lc": text(token),
    }


def _plain(item: Item) -> dict[str, Json]:
    return {name: _value(name, attribute) for name, attribute in item.items() if name not in _IN_THE_KEY}


def _value(name: str, attribute: Attribute) -> Json:
    if name in PAYLOADS:
        return value_of(attribute)
    return int(attribute["N"]) if "N" in attribute else attribute["S"]


def _attribute(name: str, value: Any) -> Attribute:
    if name in PAYLOADS:
        return {"J": value}
    return number(value) if isinstance(value, int) else text(value)
