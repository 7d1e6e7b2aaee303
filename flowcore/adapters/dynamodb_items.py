"""What the head and the records of a run have in common as items of the table.

An attribute at its default is left out and names are one to three letters, because DynamoDB bills names too: a small
record stays well under one write unit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from flowcore.adapters.dynamodb_attributes import (
    Attribute,
    Item,
    instant,
    int_of,
    item_size,
    number,
    parcel,
    parcel_of,
    payload,
    text,
)
from flowcore.adapters.dynamodb_keys import run_of
from flowcore.errors import BlobMissing, InvalidPayload, InvariantError, PayloadTooLarge
from flowcore.keys import RunRef, StepKey, dotted
from flowcore.model import Head, Json, StepRecord
from flowcore.parcels import Fetch, Parcel, parcels_in

SCHEMA = 1
"""Version of the item form written here, in attribute ``v``. Items of a later one are refused, never guessed at."""


# -- attributes that may be absent ------------------------------------------------------------------------------------


def present(**attributes: Attribute | None) -> Item:
    """The attributes that are there."""
    return {name: attribute for name, attribute in attributes.items() if attribute is not None}


def text_or_none(value: str | None) -> Attribute | None:
    """A text; None for an attribute that is left out."""
    return None if value is None else text(value)


def instant_or_none(value: datetime | None) -> Attribute | None:
    """A moment; None for an attribute that is left out."""
    return None if value is None else instant(value)


def number_unless(default: int, value: int) -> Attribute | None:
    """A number; None for one at its default, which is left out."""
    return None if value == default else number(value)


def payload_or_none(subject: str, value: Json) -> Attribute | None:
    """A payload, see ``payload``; None for an attribute that is left out."""
    return None if value is None else payload(subject, value)


def read(item: Mapping[str, Attribute], name: str, decode: Callable[[Attribute], Any], default: Any) -> Any:
    """What an attribute holds; ``default`` where it was left out."""
    attribute = item.get(name)
    return default if attribute is None else decode(attribute)


def str_of(attribute: Attribute) -> str:
    """The text that an attribute holds."""
    return str(attribute["S"])


# -- payloads that lie elsewhere --------------------------------------------------------------------------------------


def parcels_of(value: Head | StepRecord, payloads: Mapping[str, str]) -> Item:
    """The attributes of ``payloads`` whose fields lie elsewhere, as parcels."""
    far = parcels_in(value)
    return {name: parcel(far[field]) for name, field in payloads.items() if field in far} if far else {}


def far_in(item: Mapping[str, Attribute], payloads: Mapping[str, str]) -> dict[str, Parcel]:
    """The parcels in an item, by field."""
    found = {field: parcel_of(item[name]) for name, field in payloads.items() if name in item}
    return {field: there for field, there in found.items() if there is not None}


def unbound(run: RunRef, key: StepKey | None) -> Fetch:
    """What to raise for a payload that lies elsewhere, where nobody knows a blob store."""

    def refuse(field: str, there: Parcel) -> Json:
        step = None if key is None else dotted(key)
        why = f"it lies in the blob store {there.store!r}, and this App was given none: App(blobs=...)."
        raise BlobMissing(field, run_id=run.id, step=step, key=there.key, why=why)

    return refuse


# -- refusals ---------------------------------------------------------------------------------------------------------


def refuse_oversize(subject: str, item: Item, limit: int) -> None:
    """Raises: InvalidPayload, PayloadTooLarge."""
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
