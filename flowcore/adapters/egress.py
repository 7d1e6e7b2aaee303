"""Posts a letter to a stranger: the address that was judged is the one that is called, and his word is not followed.

A name is resolved once, every address it has is judged (``flowcore.egress``), and the connection is made to one of
these addresses, under the name's certificate. So a name that resolves to something else a moment later gains nothing.
Of the answer the status counts; no redirect is followed and no more than a kilobyte of it is read.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from flowcore.egress import Target, Uncallable, judged

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 10.0
_MOST_READ = 1_024
_MOST_ADDRESSES = 3
"""Of one name that are tried in turn, where the one before cannot be reached."""
_OK = range(200, 300)

Resolve: TypeAlias = Callable[[str, int], Sequence[str]]
"""From a name and a port to the addresses that it has now."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a letter was not taken."""

    reason: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """It was taken, with this status."""

    status: int


def resolved(host: str, port: int) -> list[str]:
    """The addresses of a name, as this machine finds them. Raises: OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Sender:
    """Posts to whoever may be called.

    Args:
        resolve: how names become addresses.
        trust: whose certificates are believed; the system's own when left out.
    """

    def __init__(self, resolve: Resolve = resolved, trust: ssl.SSLContext | None = None) -> None:
        self._resolve = resolve
        self._trust = trust

    def post(self, target: Target, headers: Mapping[str, str], body: bytes) -> Delivered | Refused:
        """Post ``body`` once; what came of it. Never raises for what is the receiver's doing."""
        try:
            addresses = judged(target, self._resolve(target.host, target.port))[:_MOST_ADDRESSES]
        except Uncallable as error:
            return Refused(str(error))
        except OSError as error:
            return Refused(f"{target.host!r} cannot be resolved: {error}")
        came: Delivered | Refused = Refused("nobody was called")
        for address in addresses:
            with self._pool(target, address) as pool:
                try:
                    return _answered(pool, target, headers, body)
                except (NewConnectionError, ConnectTimeoutError) as error:  # nothing was sent: another may be there
                    came = Refused(f"{type(error).__name__}: {str(error)[:200]}")
                except (HTTPError, OSError, ValueError) as error:
                    return Refused(f"{type(error).__name__}: {str(error)[:200]}")
        return came

    def _pool(self, target: Target, address: str) -> urllib3.HTTPConnectionPool:
        timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S)
        if not target.secure:
            return urllib3.HTTPConnectionPool(address, target.port, timeout=timeout, maxsize=1)
        return urllib3.HTTPSConnectionPool(
            address,
            target.port,
            timeout=timeout,
            maxsize=1,
            ssl_context=self._trust or ssl.create_default_context(),
            server_hostname=target.host,
            assert_hostname=target.host,
        )


def _answered(
    pool: urllib3.HTTPConnectionPool, target: Target, headers: Mapping[str, str], body: bytes
) -> Delivered | Refused:
    answer = pool.urlopen(
        "POST",
        target.path,
        body=body,
        headers={**headers, "host": target.authority},
        redirect=False,
        retries=False,
        preload_content=False,
        decode_content=False,
        assert_same_host=False,
    )
    try:
        if answer.status in _OK:
            return Delivered(answer.status)
        said = answer.read(_MOST_READ, decode_content=False)[:_MOST_READ].decode("utf-8", "replace")
        moved = " (a redirect, which is not followed)" if 300 <= answer.status < 400 else ""
        return Refused(f"answered {answer.status}{moved}: {said[:200]}")
    finally:
        answer.close()
