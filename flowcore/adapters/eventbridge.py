"""Events on an EventBridge bus, in the order in which they come, ten at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from flowcore.adapters.aws import AwsError, EventsClient
from flowcore.cloudevents import CloudEvent
from flowcore.codec import dumps
from flowcore.model import Json

_LOGGER = logging.getLogger("flowcore.adapters.eventbridge")
_MOST_ENTRIES = 10
_MOST_BYTES = 250_000
"""Below the 256 KB of one request, with room for the names around each detail.

Source: Amazon EventBridge User Guide, "Quotas", PutEvents.
"""


class EventBridge:
    """``flowcore.publishing.Post`` for events, on one bus."""

    def __init__(self, client: EventsClient, bus: str) -> None:
        """Put them on ``bus``, by name or ARN."""
        self._client = client
        self._bus = bus

    def put(self, things: Sequence[CloudEvent]) -> int:
        """See ``Post.put``. What EventBridge does not take is logged, and counts as not through."""
        through = 0
        for chunk in in_chunks([entry_of(event, self._bus) for event in things]):
            taken = self._put(chunk)
            through += taken
            if taken < len(chunk):
                break
        return through

    def _put(self, entries: Sequence[dict[str, Json]]) -> int:
        try:
            reply = self._client.put_events(Entries=list(entries))
        except AwsError as error:
            _LOGGER.warning("events were not taken", extra={"bus": self._bus, "error": str(error)})
            return 0
        codes = [entry.get("ErrorCode") for entry in reply["Entries"]]
        first = next((number for number, code in enumerate(codes) if code), len(codes))
        if first < len(codes):
            seen = {"bus": self._bus, "error_code": codes[first], "failed": reply.get("FailedEntryCount")}
            _LOGGER.warning("an event was not taken", extra=seen)
        return first


def entry_of(event: CloudEvent, bus: str) -> dict[str, Json]:
    """An event as EventBridge takes it: the whole CloudEvent is the detail, its type what rules match first."""
    return {
        "EventBusName": bus,
        "Source": "flowcore",
        "DetailType": event.type,
        "Time": event.time,
        "Resources": [],
        "Detail": dumps(event.plain()),
    }


def in_chunks(entries: Sequence[dict[str, Json]]) -> Iterator[list[dict[str, Json]]]:
    """As many of them together as one request takes."""
    chunk: list[dict[str, Json]] = []
    size = 0
    for entry in entries:
        weight = len(entry["Detail"].encode())
        if chunk and (len(chunk) == _MOST_ENTRIES or size + weight > _MOST_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(entry)
        size += weight
    if chunk:
        yield chunk
