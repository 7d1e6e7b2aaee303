"""Records of the table's stream: what of a run has changed, from what into what. No calls.

A stream tells every write, in order for each item, at least once. What is neither a head nor a record of a step tells
nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from flowcore.adapters.dynamodb_attributes import Attribute, Item
from flowcore.adapters.dynamodb_batch import decode_all
from flowcore.adapters.dynamodb_heads import decode_head
from flowcore.adapters.dynamodb_keys import HEAD_KEY, run_of
from flowcore.cloudevents import HeadChange
from flowcore.step_events import StepChange


def change_of(record: Mapping[str, Any]) -> HeadChange | StepChange | None:
    """What one record of the stream, as Lambda shows it, has changed; None where it is about something else.

    Needs both images (``StreamViewType: NEW_AND_OLD_IMAGES``). Raises: InvariantError for what a later flowcore wrote.
    """
    written = record["dynamodb"]
    partition, place = (written["Keys"][name]["S"] for name in ("pk", "sk"))
    images = [_image(written.get(name)) for name in ("OldImage", "NewImage")]
    if place == HEAD_KEY:
        return HeadChange(*(decode_head(image) if image else None for image in images))
    if not place.startswith("S#"):
        return None
    before, after = (list(decode_all([image] if image else [])) for image in images)
    return StepChange(run=run_of(partition), incarnation=int(place.split("#", 2)[1]), before=before, after=after)


def _image(image: Mapping[str, Attribute] | None) -> Item:
    """Bytes come as base64 in an event of Lambda."""
    return {name: _attribute(value) for name, value in (image or {}).items()}


def _attribute(value: Attribute) -> Attribute:
    packed = value.get("B")
    return {"B": base64.b64decode(packed)} if isinstance(packed, str) else value


def place_of(record: Mapping[str, Any]) -> str:
    """By what Lambda is told how far a batch has got."""
    return str(record["dynamodb"]["SequenceNumber"])
