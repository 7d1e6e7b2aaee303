"""How receipts lie beside a run in the table: sort key ``V#<created>#<slot>``, behind every record.

What ``load`` reads ends before ``V``, so however many there are, no worker reads them. They lie in the run's partition
and go with it; the time of the run's creation is in the key, so a later run of the same id does not see what somebody
has written too late about this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from flowcore.adapters.dynamodb_attributes import (
    Attribute,
    Item,
    instant,
    instant_of,
    int_of,
    number,
    payload,
    text,
    to_ms,
    value_of,
)
from flowcore.adapters.dynamodb_values import receipt_json, receipt_of
from flowcore.model import Receipt


def notes_prefix(born: datetime) -> str:
    """How the sort keys of all receipts of one run begin."""
    return f"V#{to_ms(born):013}#"


def encode_note(born: datetime, slot: str, id: str, receipt: Receipt, token: str, schema: int) -> Item:
    """A receipt that came for the first time, as an item without its partition key."""
    return {
        "sk": text(f"{notes_prefix(born)}{slot}"),
        "v": number(schema),
        "h": text(id),
        "rc": payload("A receipt", receipt_json(receipt)),
        "n": number(1),
        "ua": instant(receipt.at),
        "lc": text(token),
    }


def counted(standing: Item, again: Item) -> Item:
    """The item after the same came again."""
    return {**standing, **{name: again[name] for name in ("ua", "lc")}, "n": number(int_of(standing["n"]) + 1)}


def decode_note(item: Mapping[str, Attribute]) -> Receipt:
    """The receipt that an item holds."""
    receipt, times = receipt_of(value_of(item["rc"])), int_of(item["n"])
    return replace(receipt, times=times, last_at=instant_of(item["ua"])) if times > 1 else receipt
