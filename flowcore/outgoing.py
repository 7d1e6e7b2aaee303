"""Webhooks of our own: who is told of which events, and how such a letter is written and signed. Pure.

A letter is a CloudEvent in structured mode, signed as Standard Webhooks says. Its ``webhook-id`` is derived from the
event's, so a receiver knows a copy again, however often and by whomever it is sent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from flowcore.cloudevents import CloudEvent, Telling, refuse_strangers, wanted_of
from flowcore.codec import dumps
from flowcore.egress import Target, target_of
from flowcore.errors import MalformedRequest, SettingsError
from flowcore.keys import is_run_id
from flowcore.model import Json
from flowcore.webhooks import sign

MOST_OF_A_LETTER = 1_048_576
"""Bytes of the message that carries one. Escaped as it is twice, it is at most about twice ``cloudevents.MOST_BYTES``.

Source: Amazon SQS Developer Guide, "Message quotas".
"""
_FORM = 1
_FIRST_PAUSE = timedelta(seconds=15)
_LONGEST_PAUSE = timedelta(hours=6)
"""SQS hides a message for 12 hours at most. Source: Amazon SQS Developer Guide, "Visibility timeout"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """Somebody who is told of runs over HTTPS.

    Args:
        name: under which its letters are sent; it may get another url later on.
        url: where they are posted. https, in the public internet, port 443 or 8443; redirects are not followed.
        secret: where the secrets are kept that sign them: ``env:NAME``, ``ssm:/path`` or ``secretsmanager:id``. With
            several, a comma in between, each signs: so a receiver can change his.
        events: which kinds; all of ``flowcore.cloudevents.KINDS`` when left out.
        include_payload: with input, output and error of the run.
        tenant: whose runs.
        allow_local: ``url`` may be this machine, over http as well; for development.
    Raises: SettingsError for what cannot be meant, or may not be called.

    Example:
        >>> Outgoing(
        ...     name="ledger",
        ...     url="https://ledger.example.com/hooks/flowcore",
        ...     secret="secretsmanager:shop/ledger",
        ...     events=["run-success", "run-failed"],
        ... ).target.host
        'ledger.example.com'
    """

    name: str
    url: str
    secret: str
    events: Collection[str] | None = None
    include_payload: bool = False
    tenant: str = "default"
    allow_local: bool = False

    def __post_init__(self) -> None:
        faults = [] if is_run_id(self.name) else [f"{self.name!r} cannot name it: 1-128 letters, digits and ._:@-"]
        if self.secret.partition(":")[0] not in ("env", "ssm", "secretsmanager"):
            faults.append("secret= names no place: env:NAME, ssm:/path or secretsmanager:id (never the secret itself)")
        for check in (lambda: target_of(self.url, allow_local=self.allow_local), self._kinds):
            try:
                check()
            except SettingsError as error:
                faults.append(str(error))
        if faults:
            raise SettingsError(f"Outgoing {self.name!r}: " + "; ".join(faults))

    def _kinds(self) -> None:
        refuse_strangers("events=", self.events or ())

    @property
    def target(self) -> Target:
        """Where its letters go."""
        return target_of(self.url, allow_local=self.allow_local)

    @property
    def telling(self) -> Telling:
        """What it is told."""
        return Telling(kinds=wanted_of(self.events), include_payload=self.include_payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One event on its way to one receiver."""

    to: str
    id: str
    """Of the delivery: ``webhook-id``."""
    body: str

    def headers(self, at: datetime, secrets: Sequence[str]) -> Mapping[str, str]:
        """What is sent with it, signed anew for each try."""
        return {
            "content-type": "application/cloudevents+json; charset=utf-8",
            "user-agent": "flowcore",
            **sign(self.id, self.body.encode(), at, secrets),
        }


def letter(to: Outgoing, event: CloudEvent) -> Letter:
    """The letter that tells somebody of an event."""
    known_as = hashlib.sha256(f"{event.source} {event.id}".encode()).hexdigest()[:32]
    return Letter(to=to.name, id=f"evt_{known_as}", body=dumps(event.plain()))


def encode_letter(letter: Letter) -> str:
    """The message that carries a letter, in characters that SQS takes.

    Source: Amazon SQS API Reference, "SendMessage": those of XML, which has no U+FFFE and U+FFFF; JSON escapes the rest.
    """
    written = dumps({"v": _FORM, "to": letter.to, "id": letter.id, "body": letter.body})
    return written.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def decode_letter(message: str) -> Letter:
    """The letter in a message. Raises: MalformedRequest."""
    try:
        found: Json = json.loads(message)
    except (ValueError, RecursionError):
        found = None
    match found:
        case {"v": 1, "to": str(to), "id": str(id), "body": str(body)}:
            return Letter(to=to, id=id, body=body)
        case _:
            raise MalformedRequest(f"This message is no letter of form {_FORM}.")


def pause_after(tries: int, draw: float) -> timedelta:
    """How long after so many tries, at least one, the next is made: 15 seconds, doubled each time, up to six hours.

    Args:
        draw: from [0, 1); shortens the pause by up to a fifth, so that what failed together does not come together.
    """
    full: timedelta = min(_FIRST_PAUSE * (1 << min(tries - 1, 20)), _LONGEST_PAUSE)
    return full * (1 - draw / 5)
