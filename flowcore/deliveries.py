"""What a delivery of a webhook means: which event it is, about what; and the log in which each of them can be found.

A delivery that is signed becomes an event (``App.send_event``) whose id is the delivery's: however often it comes, it
settles one wait once, in the transaction that resumes the run. What it became is logged with what it carried, so that
one which was filtered, or which nobody understood, can be given another chance.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qsl

from flowcore.authoring.graph import CENTURY
from flowcore.delivery_log import Delivery
from flowcore.errors import (
    CapacityError,
    DeliveryNotFound,
    FlowcoreError,
    MalformedRequest,
    RequestError,
    SettingsError,
    WebhookNotFound,
)
from flowcore.keys import event_mistake, is_name, is_run_id
from flowcore.model import Json
from flowcore.strict import parsed
from flowcore.webhooks import Headers, Scheme, Slack, window_of

if TYPE_CHECKING:
    from flowcore.app import App
    from flowcore.buses import Source

_LOGGER = logging.getLogger("flowcore.deliveries")

KEPT = timedelta(days=30)
"""How long a delivery can be found in the log, and be given another chance."""

Secrets: TypeAlias = Callable[[str], Sequence[str]]
"""From where secrets are kept, ``env:NAME``, ``ssm:/path`` or ``secretsmanager:id``, to what they are now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A door for the deliveries of one sender: ``POST /hooks/{name}``.

    ``key``, ``data`` and ``only`` are JMESPath expressions over the body; ``header('x-github-event')`` in them gives a
    header, which not every sender signs.

    Args:
        name: the last part of its address.
        scheme: how the sender signs.
        secret: where its secrets are kept: ``env:NAME``, ``ssm:/path`` or ``secretsmanager:id``. While they are being
            changed, both stand there with a comma in between.
        event: name of the event that a delivery is.
        key: what it is about; must be the key that the wait was given.
        data: what the waiting step is given.
        only: of which deliveries; others are logged as ``filtered``.
        keep: how long an event waits for somebody, and a copy of the delivery is known again. A sender that signs no
            time (GitHub, ``Hmac`` without ``time_header``) can be imitated afterwards by whoever has seen a delivery.
        tenant: whose runs it is for.
    Raises: SettingsError for a name, an expression, a place or a time that cannot be meant.

    Example:
        >>> from flowcore.webhooks import Stripe
        >>> Webhook(
        ...     name="stripe",
        ...     scheme=Stripe(),
        ...     secret="secretsmanager:shop/stripe",
        ...     event="payment",
        ...     key="data.object.metadata.order",
        ...     only="type == 'payment_intent.succeeded'",
        ... ).name
        'stripe'
    """

    name: str
    scheme: Scheme
    secret: str
    event: str
    key: str
    data: str = "@"
    only: str | None = None
    keep: timedelta = timedelta(days=7)
    tenant: str = "default"

    def __post_init__(self) -> None:
        is_address = is_run_id(self.name) and ":" not in self.name  # what follows a colon is the sender's delivery
        faults = [] if is_address else [f"{self.name!r} cannot be a part of an address"]
        if self.secret.partition(":")[0] not in ("env", "ssm", "secretsmanager"):
            faults.append("secret= names no place: env:NAME, ssm:/path or secretsmanager:id (never the secret itself)")
        faults += mistakes(self)
        if self.keep <= (window := 2 * window_of(self.scheme)):
            faults.append(f"keep={self.keep} is not above {window}, in which a copy of a delivery can still come")
        elif self.keep > CENTURY:
            faults.append(f"keep={self.keep} is above a century")
        if faults:
            raise SettingsError(f"Webhook {self.name!r}: " + "; ".join(faults))


def deliver(app: App, hook: Webhook, id: str, headers: Headers, body: bytes) -> Delivery:
    """Take one delivery in: what became of it.

    Args:
        id: what ``hook.scheme.verify`` has called it.
    Raises: OutsideError, and then the sender will try again.
    """
    asked = {name: value for name in _headers_in(hook) if (value := headers.get(name)) is not None}
    fresh = replace(begun(app, hook, id), headers=asked or None)
    try:
        value = _opened(hook.scheme, body)
    except MalformedRequest as error:
        return logged(app, replace(fresh, reason=str(error)))
    return logged(app, judged(app, hook, replace(fresh, body=value)))


def replay(app: App, name: str, id: str) -> Delivery:
    """Give a delivery in the log another chance, under what its webhook says today; it gets a line of its own.

    What has settled a wait settles no other, as long as the event is kept: it is a ``duplicate``.

    Raises: WebhookNotFound, DeliveryNotFound.
    """
    told = meaning(app, name)
    kept = app.deliveries.delivery(told.tenant, name, id) if is_run_id(id) else None  # as those that _line makes
    if kept is None:
        raise DeliveryNotFound(name, id)
    now = app.clock.now()
    again = replace(kept, id=_line(app, now), at=now, reason=None, event=None, key=None, run_id=None, wait=None)
    return logged(app, judged(app, told, again))


def found(app: App, name: str) -> Webhook:
    """The webhook of that name. Raises: WebhookNotFound."""
    try:
        return app.webhooks[name]
    except KeyError:
        raise WebhookNotFound(name) from None


def meaning(app: App, name: str) -> Webhook | Source:
    """The webhook or the source of that name, whose deliveries are logged under it. Raises: WebhookNotFound."""
    source = app.sources.get(name)
    return found(app, name) if source is None else source


def begun(app: App, told: Webhook | Source, id: str) -> Delivery:
    """A delivery that has just come, before anybody has judged it."""
    now = app.clock.now()
    return Delivery(tenant=told.tenant, hook=told.name, id=_line(app, now), delivery_id=id, at=now, verdict="rejected")


def challenge(hook: Webhook, body: bytes) -> str | None:
    """What Slack wants to be answered when somebody enters the address of a webhook there; else None."""
    if not isinstance(hook.scheme, Slack):
        return None
    try:
        value = _opened(hook.scheme, body)
    except MalformedRequest:
        return None
    is_asked = isinstance(value, dict) and value.get("type") == "url_verification"
    return str(value.get("challenge", "")) if is_asked else None


def judged(app: App, hook: Webhook | Source, delivery: Delivery) -> Delivery:
    """What becomes of it: an event, if the expressions find in it what they look for. Raises: OutsideError."""
    ask = _Reader(delivery.body, delivery.headers or {})
    if hook.only is not None and not ask(hook.only):
        return replace(delivery, verdict="filtered", reason=f"only={hook.only!r} says no")
    key = ask(hook.key)
    if isinstance(key, int) and not isinstance(key, bool):
        key = str(key)
    if not isinstance(key, str) or not is_name(key):
        return replace(delivery, verdict="unmatched", reason=f"key={hook.key!r} gives {_kind(key)}, not a text")
    told = replace(delivery, event=hook.event, key=key)
    try:
        receipt = app.for_tenant(hook.tenant).send_event(
            hook.event, key, ask(hook.data), event_id=_event_id(hook.name, delivery.delivery_id), keep=hook.keep
        )
    except (RequestError, CapacityError) as error:  # another try would be told the same
        return replace(told, verdict="rejected", reason=error.code)
    return replace(told, verdict=receipt.verdict, run_id=receipt.run_id, wait=receipt.wait)


def _event_id(hook: str, delivery_id: str) -> str:
    """The same for the same delivery, in what an event's id may have of characters and of length."""
    plain = f"{hook}:{delivery_id}"
    return plain if is_run_id(plain) else f"{hook[:64]}:{hashlib.sha256(plain.encode()).hexdigest()[:40]}"


def _line(app: App, now: datetime) -> str:
    """The name of a new line: as digits sort, so does time."""
    return f"{int(now.timestamp() * 1000):015d}-{app.ids.fresh()[-8:]}"


def logged(app: App, delivery: Delivery) -> Delivery:
    """The event is what counts; a log that cannot be written costs the log."""
    try:
        app.deliveries.log(delivery, delivery.at + KEPT)
    except FlowcoreError as error:
        seen = {"hook": delivery.hook, "delivery_id": delivery.delivery_id, "error_type": type(error).__name__}
        _LOGGER.warning("a delivery could not be logged", extra=seen)
    return delivery


def _opened(scheme: Scheme, body: bytes) -> Json:
    """The value that a body is: JSON, or what Slack packs into a form. Raises: MalformedRequest."""
    if not isinstance(scheme, Slack) or body[:1] in (b"{", b"["):
        return parsed(body)
    try:
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True, errors="strict"))
    except ValueError:
        raise MalformedRequest("The body is not a form in UTF-8.") from None
    return parsed(fields["payload"]) if "payload" in fields else parsed(json.dumps(fields))


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


# -- expressions ------------------------------------------------------------------------------------------------------


class _Reader:
    """Expressions over one delivery. One that cannot be evaluated on it gives nothing, as one that finds nothing."""

    def __init__(self, body: Json, headers: Headers) -> None:
        self._body = body
        self._headers = headers

    def __call__(self, expression: str) -> Json:
        from jmespath import Options, exceptions, functions  # noqa: PLC0415  # only where a delivery comes in

        headers = self._headers

        class Functions(functions.Functions):
            @functions.signature({"types": ["string"]})
            def _func_header(self, name: str) -> str | None:
                return headers.get(name.lower())

        try:
            return _compiled(expression).search(self._body, Options(custom_functions=Functions()))
        except exceptions.JMESPathError:
            return None


@cache
def _compiled(expression: str) -> Any:
    from jmespath import compile as compiled  # noqa: PLC0415  # as above

    return compiled(expression)


def mistakes(told: Webhook | Source) -> list[str]:
    """What cannot be meant: an event that is none, an expression that is none."""
    event = event_mistake(told.event)
    faults = [fault for text in (told.key, told.data, told.only) if (fault := _mistake(text)) is not None]
    return faults if event is None else [event, *faults]


def _mistake(expression: str | None) -> str | None:
    from jmespath import exceptions  # noqa: PLC0415  # as above

    if expression is None:
        return None
    try:
        _compiled(expression)
    except exceptions.JMESPathError as error:
        return f"{expression!r} is no JMESPath: {str(error).splitlines()[0]}"
    return None


def _headers_in(hook: Webhook) -> set[str]:
    """The headers that its expressions ask for by name; no other is kept."""
    import re  # noqa: PLC0415  # as above

    texts = [text for text in (hook.key, hook.data, hook.only) if text is not None]
    return {name.lower() for text in texts for name in re.findall(r"header\(\s*['`\"]([\w-]+)['`\"]\s*\)", text)}
