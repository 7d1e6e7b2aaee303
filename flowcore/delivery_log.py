"""The log of deliveries, in which each one that came to a webhook or from a bus can be found for a while."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

from flowcore.model import Json, Page

Verdict: TypeAlias = Literal["applied", "buffered", "started", "duplicate", "filtered", "unmatched", "rejected"]
"""The first four: as of the event. ``filtered``: ``only`` says no. ``unmatched``: no key in it.
``rejected``: its data fits no open wait, or not what an event may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One delivery as the log knows it."""

    tenant: str
    hook: str
    id: str
    """Of this line of the log; sorts by time."""
    delivery_id: str
    """As the sender calls it: a repeated delivery has the same, and a line of its own."""
    at: datetime
    verdict: Verdict
    reason: str | None = None
    """Of ``filtered``, ``unmatched`` and ``rejected``."""
    event: str | None = None
    key: str | None = None
    run_id: str | None = None
    wait: str | None = None
    body: Json = None
    """What it carried; left out of listings."""
    headers: Mapping[str, str] | None = None
    """Those that an expression has asked for."""


class DeliveryLog(Protocol):
    """Where deliveries are kept for a while. Raises, all methods: StoreUnavailable, Throttled."""

    def log(self, delivery: Delivery, until: datetime) -> None:
        """Keep it until then."""
        ...

    def delivery(self, tenant: str, hook: str, id: str) -> Delivery | None:
        """The one of that id, with its body."""
        ...

    def deliveries(self, tenant: str, hook: str, *, limit: int, cursor: str | None = None) -> Page[Delivery]:
        """The newest first, without their bodies. Raises: MalformedRequest for a cursor that was not given here."""
        ...
