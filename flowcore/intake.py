"""A message of the resume queue, taken in: whoever calls this may acknowledge it when it returns, and never loses it.

What it said has been done, or refused for good with a receipt that can be read. What time may cure is raised, so that
the queue brings it again, a bounded number of times, and then sets it aside.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, TypeAlias, assert_never

from flowcore.arrivals import arrive
from flowcore.buses import take
from flowcore.codec import Shape, digest
from flowcore.core.admit import Resume
from flowcore.delivery_log import Delivery
from flowcore.errors import CapacityError, IdempotencyKeyReused, InvalidPayload
from flowcore.keys import RunRef, is_run_id
from flowcore.messages import BusMessage, EventMessage, ResumeMessage, opened
from flowcore.model import EventReceipt, Json, Receipt

if TYPE_CHECKING:
    from flowcore.app import App

_LOGGER = logging.getLogger("flowcore.intake")
_ANYTHING: Shape[Json] = Shape(object)

Taken: TypeAlias = Receipt | EventReceipt | list[Delivery]
"""What became of a message."""


def receive(app: App, body: str, name: str) -> Taken | None:
    """Take one message in; None for an event that can never be taken, which has been logged.

    Args:
        app: of whichever tenant, where the message names none.
        name: the queue's own name for the message: a second delivery has the same.
    Raises: MalformedRequest for what nobody understands; RunNotFound, DefinitionChanged, WorkflowNotFound and every
        ``retryable`` error: deliver it again.
    """
    message = opened(body, name)
    match message:
        case ResumeMessage():
            return _answered(_of_tenant(app, message.tenant), message)
        case EventMessage():
            return _told(_of_tenant(app, message.tenant), message)
        case BusMessage():
            return take(app, message.id, message.body)
        case _:
            assert_never(message)


def _answered(app: App, message: ResumeMessage) -> Receipt:
    data = _ANYTHING.accept("resume data", message.data)
    resume = Resume(
        step=message.step,
        label=message.label,
        wait=message.wait,
        index=message.index,
        idempotency_key=message.idempotency_key,
        digest=digest(data),
        by=message.by,
        via="sqs",
    )
    return arrive(app.engine, RunRef(app.tenant, message.run_id), data, resume, here=app.queue is None)


def _told(app: App, message: EventMessage) -> EventReceipt | None:
    id = message.id if is_run_id(message.id) else hashlib.sha256(message.id.encode()).hexdigest()[:40]
    try:
        return app.send_event(message.name, message.key, message.data, event_id=id)
    except (IdempotencyKeyReused, InvalidPayload, CapacityError) as error:  # another try would be told the same
        seen = {"event": message.name, "key": message.key, "event_id": id, "code": error.code}
        _LOGGER.warning("an event was refused", extra=seen)
        return None


def _of_tenant(app: App, tenant: str | None) -> App:
    return app if tenant in (None, app.tenant) else app.for_tenant(str(tenant))
