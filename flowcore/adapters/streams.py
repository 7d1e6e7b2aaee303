"""Records of the table's stream: which head has changed, from what into what. No calls.

A stream tells every write, in order for each run, at least once. What is no head of a run tells nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from flowcore.adapters.dynamodb_attributes import Attribute
from flowcore.adapters.dynamodb_items import HEAD_KEY, decode_head
from flowcore.model import Head


def change_of(record: Mapping[str, Any]) -> tuple[Head | None, Head | None] | None:
    """The head before and after one record, as Lambda shows it; None where it is about something else.

    Needs both images (``StreamViewType: NEW_AND_OLD_IMAGES``). Raises: InvariantError for what a later flowcore wrote.
    """
    written = record["dynamodb"]
    if written["Keys"]["sk"]["S"] != HEAD_KEY:
        return None
    return _head(written.get("OldImage")), _head(written.get("NewImage"))


def _head(image: Mapping[str, Attribute] | None) -> Head | None:
    return decode_head({name: _attribute(value) for name, value in image.items()}) if image else None


def _attribute(value: Attribute) -> Attribute:
    """Bytes come as base64 in an event of Lambda."""
    packed = value.get("B")
    return {"B": base64.b64decode(packed)} if isinstance(packed, str) else value


def place_of(record: Mapping[str, Any]) -> str:
    """By what Lambda is told how far a batch has got."""
    return str(record["dynamodb"]["SequenceNumber"])
