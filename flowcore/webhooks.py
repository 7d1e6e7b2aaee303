"""Who really sent this body? Signature schemes of webhooks, on the raw bytes, in constant time, with several keys.

Pure: headers, bytes, secrets and the time come in; the id of the delivery, or a refusal, goes out. What a delivery
means, and for whom, is not decided here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

from flowcore.errors import BadSignature, SettingsError

TOLERANCE = timedelta(minutes=5)
"""How far the time that a sender has signed may be from ours. Source: Standard Webhooks; Stripe and Slack agree."""

Headers = Mapping[str, str]
"""Of one request, their names in lower case."""


class Scheme(Protocol):
    """How one kind of sender signs. ``secrets`` are what it may have been signed with: one that fits is enough."""

    def verify(self, headers: Headers, body: bytes, now: datetime, secrets: Sequence[str]) -> str:
        """The id of a delivery that is what it says; its repetitions have the same. Raises: BadSignature."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardWebhooks:
    """Standard Webhooks 1.0.0, symmetric (``v1``): what OpenAI, Twilio, Svix and others send.

    A secret is base64, with or without its ``whsec_`` in front.
    """

    tolerance: timedelta = TOLERANCE

    def verify(self, headers: Headers, body: bytes, now: datetime, secrets: Sequence[str]) -> str:
        """See ``Scheme.verify``."""
        id, sent = _header(headers, "webhook-id"), _header(headers, "webhook-timestamp")
        _refuse_stale(sent, now, self.tolerance)
        marks = [mark.partition(",") for mark in _header(headers, "webhook-signature").split()]
        given = [mark for version, _, mark in marks if _is_plain(version, "v1")]
        signed = b"%b.%b." % (id.encode(), sent.encode()) + body
        _refuse_unsigned(_standard_keys(secrets), signed, given, encode=_base64)
        return id


@dataclass(frozen=True, slots=True, kw_only=True)
class Stripe:
    """Stripe's ``Stripe-Signature``. The delivery is named by the event's own ``id``: Stripe signs each try anew."""

    tolerance: timedelta = TOLERANCE

    def verify(self, headers: Headers, body: bytes, now: datetime, secrets: Sequence[str]) -> str:
        """See ``Scheme.verify``."""
        parts = [part.strip().partition("=") for part in _header(headers, "stripe-signature").split(",")]
        sent = next((value for name, _, value in parts if _is_plain(name, "t")), "")
        _refuse_stale(sent, now, self.tolerance)
        given = [value for name, _, value in parts if _is_plain(name, "v1")]
        _refuse_unsigned([secret.encode() for secret in secrets], sent.encode() + b"." + body, given)
        return _own_id(body) or _digest(body)


@dataclass(frozen=True, slots=True, kw_only=True)
class GitHub:
    """GitHub's ``X-Hub-Signature-256``.

    GitHub signs neither the time nor its delivery id, so whoever has seen a delivery could send it again under another
    id: it is named by what is signed, its body.
    """

    def verify(self, headers: Headers, body: bytes, now: datetime, secrets: Sequence[str]) -> str:
        """See ``Scheme.verify``."""
        del now  # nothing says when it was signed
        kind, _, mark = _header(headers, "x-hub-signature-256").partition("=")
        given = [mark] if _is_plain(kind, "sha256") else []
        _refuse_unsigned([secret.encode() for secret in secrets], body, given)
        return _digest(body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slack:
    """Slack's signed requests: events, slash commands and interactive buttons."""

    tolerance: timedelta = TOLERANCE

    def verify(self, headers: Headers, body: bytes, now: datetime, secrets: Sequence[str]) -> str:
        """See ``Scheme.verify``."""
        sent = _header(headers, "x-slack-request-timestamp")
        _refuse_stale(sent, now, self.tolerance)
        version, _, mark = _header(headers, "x-slack-signature").partition("=")
        given = [mark] if _is_plain(version, "v0") else []
        _refuse_unsigned([secret.encode() for secret in secrets], b"v0:" + sent.encode() + b":" + body, given)
        return _own_id(body, "event_id") or _digest(body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hmac:
    """A signature of one's own: an HMAC in a header, over the body and, if there are such headers, time and id.

    Signed is ``<id>.<time>.<body>``, without the parts that have no header.

    Args:
        header: where the signature stands, after ``prefix``.
        time_header: where the sender says when, in Unix seconds. Without one, an old delivery cannot be told from a
            new one except by its content.
        id_header: where the sender says which delivery this is. Without one, its body names it.
    """

    header: str
    prefix: str = ""
    encoding: Literal["hex", "base64"] = "hex"
    algorithm: Literal["sha256", "sha512"] = "sha256"
    time_header: str | None = None
    id_header: str | None = None
    tolerance: timedelta = field(default=TOLERANCE)

    def verify(self, headers: Headers, body: bytes, now: datetime, secrets: Sequence[str]) -> str:
        """See ``Scheme.verify``."""
        id = None if self.id_header is None else _header(headers, self.id_header)
        sent = None if self.time_header is None else _header(headers, self.time_header)
        if sent is not None:
            _refuse_stale(sent, now, self.tolerance)
        mark = _header(headers, self.header)
        if not mark.startswith(self.prefix):
            raise BadSignature(f"header {self.header!r} does not begin with {self.prefix!r}")
        encode = _hex if self.encoding == "hex" else _base64
        signed = b"".join(part.encode() + b"." for part in (id, sent) if part is not None) + body
        keys = [secret.encode() for secret in secrets]
        given = [mark.removeprefix(self.prefix)]
        _refuse_unsigned(keys, signed, given, encode=encode, algorithm=self.algorithm)
        return id or _digest(body)


def window_of(scheme: Scheme) -> timedelta:
    """How far a signed time may be from ours; nothing where no time is signed."""
    if isinstance(scheme, Hmac) and scheme.time_header is None:
        return timedelta(0)
    tolerance: timedelta = getattr(scheme, "tolerance", timedelta(0))
    return tolerance


def sign(id: str, body: bytes, at: datetime, secrets: Sequence[str]) -> dict[str, str]:
    """The headers of an outgoing Standard Webhook, signed with every secret, so that receivers can change theirs.

    Source: Standard Webhooks 1.0.0, "Signature scheme".
    """
    sent = str(int(at.timestamp()))
    signed = f"{id}.{sent}.".encode() + body
    marks = [_base64(hmac.digest(key, signed, "sha256")) for key in _standard_keys(secrets)]
    return {
        "webhook-id": id,
        "webhook-timestamp": sent,
        "webhook-signature": " ".join(f"v1,{mark}" for mark in marks),
    }


# -- what they have in common -----------------------------------------------------------------------------------------


def _hex(mark: bytes) -> str:
    return mark.hex()


def _base64(mark: bytes) -> str:
    return base64.b64encode(mark).decode()


def _refuse_unsigned(
    keys: Iterable[bytes],
    signed: bytes,
    given: Sequence[str],
    *,
    encode: Callable[[bytes], str] = _hex,
    algorithm: str = "sha256",
) -> None:
    """Raise BadSignature unless one of the marks was made with one of the keys. Each pair is compared, found or not.

    Compared as text: two texts can decode to the same bytes, and only one of them is the signature.
    """
    made = [encode(hmac.digest(key, signed, algorithm)) for key in keys if key]  # anybody could sign with an empty one
    fits = [hmac.compare_digest(one.encode(), mark.encode()) for one in made for mark in given]
    if not any(fits):
        raise BadSignature("no signature that was made with a known secret")


def _refuse_stale(sent: str, now: datetime, tolerance: timedelta) -> None:
    """Raise BadSignature for a time that is too far from ours: an old delivery may be a stolen one."""
    if not (sent.isascii() and sent.isdigit() and len(sent) <= len("253402300799")):
        raise BadSignature("no time of sending in Unix seconds")
    try:
        at = datetime.fromtimestamp(int(sent), UTC)
    except (ValueError, OverflowError):
        raise BadSignature("no time of sending that a calendar knows") from None
    if abs(now - at) > tolerance:
        raise BadSignature(f"its time is more than {tolerance.total_seconds():g} seconds from ours")


def _header(headers: Headers, name: str) -> str:
    value = headers.get(name.lower())
    if not value:
        raise BadSignature(f"no header {name!r}")
    return value


def _is_plain(found: str, wanted: str) -> bool:
    """Whether two public words are the same; nothing secret is compared here."""
    return found.strip() == wanted


def _standard_keys(secrets: Iterable[str]) -> list[bytes]:
    """The keys that base64 secrets stand for. Raises: SettingsError, without the secret in it."""
    try:
        return [base64.b64decode(secret.removeprefix("whsec_"), validate=True) for secret in secrets]
    except ValueError:
        raise SettingsError("A secret of a Standard Webhook is not base64, with or without whsec_ in front.") from None


def _own_id(body: bytes, name: str = "id") -> str | None:
    """What a JSON object calls itself, if it does."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    id = found.get(name) if isinstance(found, dict) else None
    return id if isinstance(id, str) and id else None


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:40]
