"""Signed links: whoever holds one may answer one wait of one run, and nothing else.

A token names a wait's occurrence, so it is good for one answer: the next suspension of the same step is another wait.
It says nothing of what the wait shows. Nothing is stored: a link is good because we signed it, until its keys are
rotated out. The order of the keys is their age, the newest first: that one signs, every one of them verifies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hmac import compare_digest, new
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias

from flowcore.core.heads import later
from flowcore.errors import LinkExpired, LinkUnknown, SettingsError
from flowcore.model import Wait

Door: TypeAlias = Literal["a", "cb"]
"""What a link opens: ``a``, the page on which a person decides; ``cb``, a URL that a program posts its answer to."""

LONGEST = timedelta(days=365)
"""How long a link is good when its wait has no deadline. One wait lasts longer? Then its links are made with more."""

SHORTEST_SECRET = 32
"""Characters: a key of 16 random bytes in hex. Source: RFC 2104, section 3, a key not shorter than its use is safe."""

_TOLD_AFTERWARDS = timedelta(days=30)
"""Past a wait's deadline its link still says what became of it."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_KID = re.compile(r"[A-Za-z0-9_-]{1,32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a link says: who may answer which wait, until when."""

    tenant: str
    run_id: str
    born: int | None = None
    """Milliseconds since 1970 when the run was started, so that a later run of the same id is not meant."""
    wait: str
    door: Door
    actor: str | None = None
    """Who answers, when this link is used; None: whoever holds it, without a name."""
    until: datetime
    login: bool = False
    """Only for whom somebody in front of the door knows: as ``actor``, if there is one."""


class Links:
    """Makes and reads the links of one deployment.

    Args:
        public_url: where the API answers, as the holders of links reach it.
        secrets: key id to secret, the newest first; or what gives them, which is asked for each link.
    Raises: SettingsError for a secret that is too short, an id that is none, or an address that is none;
        ModuleNotFoundError without the extra ``console``.

    Example:
        >>> from datetime import UTC, datetime
        >>> links = Links("https://api.example.com", {"2026": "0" * 32})
        >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
        >>> grant = Grant(tenant="default", run_id="r-1", wait="approve@0", door="a", until=noon)
        >>> links.read(links.token(grant), "a", noon).wait
        'approve@0'
    """

    def __init__(self, public_url: str, secrets: Mapping[str, str] | Callable[[], Mapping[str, str]]) -> None:
        if find_spec("itsdangerous") is None:  # looked for, not loaded: most workers never make or read a link
            raise ModuleNotFoundError(
                "Links are signed with itsdangerous, which is not installed: pip install 'flowcore[console]'",
                name="itsdangerous",
            )
        if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", public_url):
            raise SettingsError(f"Links cannot be made: {public_url!r} is no http address.")
        self.public_url = public_url.rstrip("/")
        self._known: Mapping[str, str] = {}
        if callable(secrets):
            self._ask = secrets
        else:
            given = dict(secrets)
            self._ask = lambda: given
            self._secrets()

    def _secrets(self) -> Mapping[str, str]:
        """The keys as they are now. Raises: SettingsError, without a secret in its message."""
        found = self._ask()
        if found is self._known:
            return found
        faults = [f"{kid!r} is no key id: 1-32 letters, digits, _ and -" for kid in found if not _KID.fullmatch(kid)]
        faults += [
            f"the secret of key {kid!r} has fewer than {SHORTEST_SECRET} characters"
            for kid, secret in found.items()
            if len(secret) < SHORTEST_SECRET
        ]
        if faults or not found:
            raise SettingsError("Links cannot be signed: " + ("; ".join(faults) or "there is no secret") + ".")
        self._known = found
        return found

    def url(self, grant: Grant) -> str:
        """The address that a mail or a program is given."""
        return f"{self.public_url}/{grant.door}/{self.token(grant)}"

    def token(self, grant: Grant) -> str:
        """``<key id>.<claims>.<signature>``, in characters that a path takes as they are."""
        kid, secret = next(iter(self._secrets().items()))
        until = int(grant.until.timestamp())
        claims = [grant.tenant, grant.run_id, grant.born, grant.wait, grant.door, grant.actor, until]
        if grant.login:
            claims.append(True)  # what others do not have, so that theirs are as they were
        return f"{kid}.{_serializer(kid, secret).dumps(claims)}"

    def mark(self, what: str) -> str:
        """The proof that we have said ``what``, which is no link: ``<key id>.<signature>``, by the newest key."""
        kid, secret = next(iter(self._secrets().items()))
        return f"{kid}.{_signature(kid, secret, what)}"

    def is_marked(self, what: str, mark: str) -> bool:
        """Whether ``mark`` was given for ``what``, with a key that is still good."""
        kid, _, signature = mark.partition(".")
        secret = self._secrets().get(kid)
        return secret is not None and compare_digest(_signature(kid, secret, what).encode(), signature.encode())

    def for_tenant(self, tenant: str) -> TenantLinks:
        """The links to waits of one tenant."""
        return TenantLinks(self, tenant)

    def read(self, token: str, door: Door, now: datetime) -> Grant:
        """What a token says that somebody has brought to this door.

        Raises: LinkUnknown for one that we have not signed, with a key that is still good, for this door; LinkExpired.
        """
        from itsdangerous import BadData  # noqa: PLC0415  # as below

        kid, _, signed = token.partition(".")
        secret = self._secrets().get(kid)
        if secret is None or not signed.isascii():
            raise LinkUnknown
        serializer = _serializer(kid, secret)
        try:
            claims = serializer.loads(signed)
        except (BadData, ValueError):
            raise LinkUnknown from None
        tenant, run_id, born, wait, made_for, actor, until, *more = claims
        # base64 has several ways to write the same signature; only the one that we have written is ours. The claims are
        # not written anew for that: they may be compressed, and not every zlib comes to the same bytes.
        payload, _, signature = signed.rpartition(".")
        ours = serializer.make_signer(serializer.salt).get_signature(payload.encode())
        if made_for != door or not compare_digest(ours, signature.encode()):
            raise LinkUnknown
        grant = Grant(
            tenant=tenant,
            run_id=run_id,
            born=born,
            wait=wait,
            door=door,
            actor=actor,
            until=datetime.fromtimestamp(until, UTC),
            login=bool(more),
        )
        if grant.until < now:
            raise LinkExpired(grant.until)
        return grant


def _serializer(kid: str, secret: str) -> Any:
    """Made where it is needed: most workers never make or read a link."""
    from itsdangerous import URLSafeSerializer  # noqa: PLC0415  # only where links are made or read

    return URLSafeSerializer(
        secret,
        salt=f"flowcore.link.{kid}",
        serializer=_Compact,
        signer_kwargs={"key_derivation": "hmac", "digest_method": _sha256},
    )


def _signature(kid: str, secret: str, what: str) -> str:
    key = new(secret.encode(), f"flowcore.mark.{kid}".encode(), _sha256).digest()
    return new(key, what.encode(), _sha256).hexdigest()


def pairs_of(secrets: str) -> dict[str, str]:
    """``kid:secret,kid:secret`` as keys by their id. Raises: SettingsError, without a secret in its message."""
    pairs = [part.strip().partition(":") for part in secrets.split(",") if part.strip()]
    if any(not mark for _, mark, _ in pairs):
        raise SettingsError("FLOWCORE_LINK_SECRETS is not kid:secret, or several of them with commas in between.")
    if len({kid for kid, _, _ in pairs}) < len(pairs):
        raise SettingsError("FLOWCORE_LINK_SECRETS has two keys of the same id; give the new one an id of its own.")
    return {kid: secret for kid, _, secret in pairs}


@dataclass(frozen=True, slots=True)
class TenantLinks:
    """The links to waits of one tenant: ``Wait.approval_url`` and ``Wait.callback_url`` ask here."""

    links: Links
    tenant: str

    def url(
        self,
        wait: Wait[Any],
        door: Door,
        *,
        actor: str | None,
        valid_for: timedelta | None,
        require_login: bool = False,
    ) -> str:
        """See ``Doors.url``. The same wait gives the same link, whenever it is asked for."""
        since = wait.since or _EPOCH
        if valid_for is not None:
            until = since + valid_for
        else:
            until = since + LONGEST if wait.deadline is None else later(wait.deadline, _TOLD_AFTERWARDS)
        return self.links.url(
            Grant(
                tenant=self.tenant,
                run_id=wait.run_id,
                born=None if wait.born is None else born_at(wait.born),
                wait=wait.id,
                door=door,
                actor=actor,
                until=until,
                login=require_login,
            )
        )


def born_at(started: datetime) -> int:
    """What a link says of when its run was started."""
    return (started - _EPOCH) // timedelta(milliseconds=1)


class _Compact:
    """JSON without a space in it."""

    @staticmethod
    def dumps(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)

    loads = staticmethod(json.loads)


def _sha256(data: bytes = b"") -> Any:
    import hashlib  # noqa: PLC0415  # only where links are made or read

    return hashlib.sha256(data)
