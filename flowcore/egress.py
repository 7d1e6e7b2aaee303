"""Where a request of ours may go: which URLs an author may name, and which addresses one may turn out to be. Pure.

Whoever can choose a URL could have this deployment talk to itself: to its own network, to the loopback, to the metadata
service that hands out credentials. So a URL has to be written in the one plain way, and every address that its name
resolves to has to lie in the public internet. That the address which was judged is the one that is called, the adapter
sees to.

Source: OWASP, "Server-Side Request Forgery Prevention Cheat Sheet"; RFC 6890; IANA special-purpose address registries.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from flowcore.errors import SettingsError

PORTS = frozenset({443, 8443})
"""On which somebody is called outside of a developer's machine."""
LONGEST_URL = 2_000

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")
"""A last label like this makes readers of URLs take the whole name for an address.

Source: WHATWG URL Standard, "ends in a number checker".
"""
_PLAIN = re.compile(r"[!-~]+")
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_SPECIAL = (
    ipaddress.ip_network("192.0.0.0/24"),  # IETF protocol assignments
    ipaddress.ip_network("192.88.99.0/24"),  # 6to4 relays
    ipaddress.ip_network("2001::/23"),  # IETF protocol assignments, Teredo among them
    ipaddress.ip_network("2002::/16"),  # 6to4: an IPv4 address is in it
    ipaddress.ip_network("3fff::/20"),  # documentation
)
"""What Python, depending on its age, takes for public, and nobody serves a webhook from."""


class Uncallable(Exception):
    """There nobody is called. Never leaves this library: what is sent there is set aside with the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL, taken apart."""

    secure: bool
    host: str
    port: int
    path: str
    """With the query."""
    local: bool
    """On this machine, because whoever wrote it has allowed that."""

    @property
    def authority(self) -> str:
        """What the ``Host`` header says."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return shown if self.port == (443 if self.secure else 80) else f"{shown}:{self.port}"


def target_of(url: str, *, allow_local: bool = False) -> Target:
    """The target that a URL names.

    Args:
        allow_local: this very machine may be called, over plain http as well; for development.
    Raises: SettingsError for what is not https, or is written in a way that two readers may read differently.
    """
    fault = _fault_of(url)
    if fault is not None:
        raise SettingsError(f"{url[:200]!r} cannot be called: {fault}.")
    parts = urlsplit(url)
    host, secure = (parts.hostname or "").lower(), parts.scheme == "https"
    local = allow_local and host in _LOCAL
    port = parts.port if parts.port is not None else (443 if secure else 80)
    if not local:
        fault = _forbidden(host, port, secure=secure)
        if fault is not None:
            raise SettingsError(f"{url[:200]!r} cannot be called: {fault}.")
    query = f"?{parts.query}" if parts.query else ""
    return Target(secure=secure, host=host, port=port, path=(parts.path or "/") + query, local=local)


def _fault_of(url: str) -> str | None:
    """What about its writing makes a URL none that is called."""
    if not 0 < len(url) <= LONGEST_URL or not _PLAIN.fullmatch(url) or "\\" in url:
        return f"it is not 1-{LONGEST_URL} printable ASCII characters without blanks and backslashes"
    if not re.match(r"https?://", url):
        return "it does not begin with https://"
    authority = re.split(r"[/?#]", url.split("://", 1)[1], maxsplit=1)[0]
    if "@" in authority:
        return "it has a user in it"
    if "%" in authority:
        return "its host is escaped"
    if "#" in url:
        return "it has a fragment"
    try:
        port = urlsplit(url).port
    except ValueError:
        return "its host or port is none"
    return "its port is none" if port == 0 or authority.endswith(":") else None


def _forbidden(host: str, port: int, *, secure: bool) -> str | None:
    if not secure:
        return "it is not https"
    if port not in PORTS:
        return f"its port is not one of {', '.join(str(port) for port in sorted(PORTS))}"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None if _is_name(host) else "its host is neither a name nor an address in its usual form"
    return None if is_public(address) else "its host is not in the public internet"


def _is_name(host: str) -> bool:
    """Whether a host can only be a name: labels with a dot in between, the last of which nobody takes for a number."""
    labels = host.split(".")
    if len(host) > 253 or len(labels) < 2 or _NUMBER.fullmatch(labels[-1]):  # RFC 1035, section 2.3.4
        return False
    return all(_LABEL.fullmatch(label) for label in labels)


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one of the public internet, and no other address is hidden in it."""
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    if any(address in network for network in _SPECIAL):
        return False
    unusual = (address.is_multicast, address.is_reserved, address.is_unspecified, address.is_loopback)
    return address.is_global and not address.is_link_local and not any(unusual)


def judged(target: Target, found: Iterable[str]) -> list[str]:
    """The addresses of a target that may be called, as they are called.

    Raises: Uncallable, when one of them may not: a name that is half public is no mistake of an honest one.
    """
    addresses = [ipaddress.ip_address(text.split("%", 1)[0]) for text in found]
    if not addresses:
        raise Uncallable(f"{target.host!r} has no address")
    for address in addresses:
        fits = address.is_loopback if target.local else is_public(address)
        if not fits:
            where = "this machine" if target.local else "the public internet"
            raise Uncallable(f"{target.host!r} has the address {address}, which is not in {where}")
    return [str(address) for address in addresses]
