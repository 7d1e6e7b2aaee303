"""Single attributes in DynamoDB's own form: scalars, JSON payloads, and what they weigh.

A payload is one JSON string, never a native map: numbers stay exact, nothing is limited to 32 levels or 38 digits, and
no serializer walks the value twice. Knows no run and no table; ``dynamodb_items`` builds items from these.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from flowcore.errors import InvalidPayload, PayloadTooLarge
from flowcore.model import Json
from flowcore.parcels import Parcel

Attribute: TypeAlias = Mapping[str, Any]
"""``{"S": str}``, ``{"N": digits}``, ``{"B": bytes}`` or, in joins, ``{"NS": [digits, ...]}``."""
Item: TypeAlias = dict[str, Attribute]

ITEM_LIMIT = 409_600
"""Bytes DynamoDB keeps in one item, attribute names included.

Source: Amazon DynamoDB Developer Guide, "Quotas", item size.
"""
PAYLOAD_LIMIT = 350 * 1024
"""Bytes of JSON that one value may have inline.

Judged before compression, so that what fits today does not depend on how well tomorrow's value happens to compress; and
low enough for one such value to fit into an item beside everything else, however badly it compresses.
"""
COMPRESS_ABOVE = 4 * 1024
"""Bytes of JSON from which compressing pays: below, an item is rarely more than a few write units anyway."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def to_ms(instant: datetime) -> int:
    """Milliseconds since 1970; what is finer is cut off."""
    return (instant - _EPOCH) // _MILLISECOND


def from_ms(milliseconds: int) -> datetime:
    """The aware UTC instant, without the rounding of ``datetime.fromtimestamp``."""
    return _EPOCH + milliseconds * _MILLISECOND


def text(value: str) -> Attribute:
    """A string attribute; of a member of an enum, the plain string."""
    return {"S": str(value)}


def number(value: int) -> Attribute:
    """A number attribute; DynamoDB's JSON carries it as digits."""
    return {"N": str(value)}


def instant(value: datetime) -> Attribute:
    """An instant, as a number of milliseconds."""
    return number(to_ms(value))


_PARCEL = "@"
"""How the text of a parcel begins; no JSON text does."""


def json_of(subject: str, value: Json) -> tuple[str, bytes]:
    """``value`` as compact JSON, and the same as bytes.

    Raises:
        InvalidPayload: the value is not JSON: NaN, a lone surrogate, a type JSON does not have, endless nesting.
    """
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return written, written.encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidPayload(subject, [{"path": "", "message": f"is not JSON: {error}"}]) from error


def payload(subject: str, value: Json) -> Attribute:
    """``value`` as one JSON string, compressed when it is long and that makes it shorter.

    Args:
        subject: what the value is, for the message of an error: ``"The input of run 'r-1'"``.

    Raises:
        InvalidPayload: the value is not JSON, see ``json_of``.
        PayloadTooLarge: the JSON is longer than ``PAYLOAD_LIMIT``.
    """
    written, raw = json_of(subject, value)
    if len(raw) > PAYLOAD_LIMIT:
        raise PayloadTooLarge(subject, len(raw), PAYLOAD_LIMIT)
    if len(raw) > COMPRESS_ABOVE:
        packed = zlib.compress(raw)
        if len(packed) < len(raw):
            return {"B": packed}
    return {"S": written}


def value_of(attribute: Attribute) -> Json:
    """The value that ``payload`` wrote; a new one with each call, so nobody shares it. ``J``: one that is read."""
    if "J" in attribute:
        return attribute["J"]
    if "B" in attribute:
        return json.loads(zlib.decompress(attribute["B"]))
    return json.loads(attribute["S"])


def parcel(value: Parcel) -> Attribute:
    """Instead of a payload: where it lies."""
    listed = [value.store, value.key, value.sha256, value.size]
    return {"S": _PARCEL + json.dumps(listed, ensure_ascii=False, separators=(",", ":"))}


def parcel_of(attribute: Attribute) -> Parcel | None:
    """What ``parcel`` wrote; None when the payload itself is here."""
    written = attribute.get("S")
    return Parcel(*json.loads(written[1:])) if written is not None and written[0] == _PARCEL else None


def int_of(attribute: Attribute) -> int:
    """The value that ``number`` wrote."""
    return int(attribute["N"])


def instant_of(attribute: Attribute) -> datetime:
    """The value that ``instant`` wrote."""
    return from_ms(int(attribute["N"]))


def item_size(item: Mapping[str, Attribute]) -> int:
    """Bytes of an item as DynamoDB counts them: every attribute's name and value.

    Source: Amazon DynamoDB Developer Guide, "Item sizes and formats".
    """
    return sum(len(name.encode()) + _attribute_size(attribute) for name, attribute in item.items())


def _attribute_size(attribute: Attribute) -> int:
    ((kind, value),) = attribute.items()
    match kind:
        case "S":
            return len(value.encode())
        case "B":
            return len(value)
        case "N":
            return _number_size(value)
        case "NS":
            return 3 + sum(map(_number_size, value))
        case _:
            raise ValueError(f"attributes of type {kind!r} are not stored by flowcore")


def _number_size(value: str) -> int:
    digits = value.lstrip("-0").replace(".", "").rstrip("0")
    return int((len(digits) + 1) // 2 + 1 + value.startswith("-"))
