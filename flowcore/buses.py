"""Buses and topics as sources of events: what somebody else has told everybody, read as something a run waits for.

Nobody there knows of flowcore, so the App says what their messages mean, with the same expressions, the same ids and
the same log as a webhook. Who may send is settled by the policy of the queue, not here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from flowcore.authoring.graph import CENTURY
from flowcore.deliveries import begun, judged, logged, mistakes
from flowcore.delivery_log import Delivery
from flowcore.errors import MalformedRequest, SettingsError
from flowcore.keys import is_run_id
from flowcore.model import Json

if TYPE_CHECKING:
    from flowcore.app import App


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Messages of one kind that come through the resume queue from EventBridge, SNS or anybody else.

    ``key``, ``data`` and ``only`` are JMESPath expressions over the message: over the whole event of EventBridge, and
    over what the topic was told in a notification of SNS.

    Args:
        name: under which its deliveries are logged; no webhook may have it.
        event: name of the event that a message is.
        key: what it is about; must be the key that the wait was given.
        data: what the waiting step is given.
        only: of which messages; a message that no source takes is logged as ``filtered``.
        keep: how long an event waits for somebody.
        tenant: whose runs it is for.
    Raises: SettingsError for a name or an expression that cannot be meant.

    Example:
        >>> Source(
        ...     name="orders",
        ...     event="paid",
        ...     key="detail.order.id",
        ...     data="{cents: detail.amount}",
        ...     only="source == 'shop.orders'",
        ... ).event
        'paid'
    """

    name: str
    event: str
    key: str
    data: str = "@"
    only: str | None = None
    keep: timedelta = timedelta(days=7)
    tenant: str = "default"

    def __post_init__(self) -> None:
        # With ':' two pairs of a name and a message's id would make the same id of an event.
        is_name = is_run_id(self.name) and ":" not in self.name
        faults = [] if is_name else [f"{self.name!r} cannot name it: 1-128 letters, digits and ._@-"]
        faults += mistakes(self)
        if not timedelta(0) < self.keep <= CENTURY:
            faults.append(f"keep={self.keep} cannot be; give a timedelta above 0, at most a century")
        if faults:
            raise SettingsError(f"Source {self.name!r}: " + "; ".join(faults))


def take(app: App, id: str, body: Json) -> list[Delivery]:
    """What every source that wants a message has made of it; where none does, that they have filtered it.

    Args:
        id: what the message is called, however often it comes.
    Raises: MalformedRequest where there is no source at all; OutsideError, and then the message must come again.
    """
    if not app.sources:
        raise MalformedRequest("This is no answer and no event, and the App has no sources= that could read it.")
    seen = [judged(app, source, replace(begun(app, source, id), body=body)) for source in app.sources.values()]
    taken = [delivery for delivery in seen if delivery.verdict != "filtered"]
    return [logged(app, delivery) for delivery in taken or seen]
