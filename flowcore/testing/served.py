"""An App behind its HTTP API, in this process: what a client is given in place of a network.

Requests go through everything they pass in a deployment behind the gateway: validation, scopes, entity tags, problems.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx

from flowcore.app import App
from flowcore.deliveries import Secrets
from flowcore.http.access import Policy
from flowcore.http.api import Api
from flowcore.http.everything import served
from flowcore.http.gateway import Front, Request, event_of, response_of
from flowcore.links import Links

_SIGNED = ("/a/", "/cb/", "/hooks/")
"""Paths whose requests say by themselves who may: there is no lock in front."""


def in_process(
    app: App,
    *,
    links: Links | None = None,
    secrets: Secrets | None = None,
    policy: Policy | None = None,
    tokens: Mapping[str, Mapping[str, Any]] | None = None,
) -> httpx.MockTransport:
    """A transport, for ``Client`` and ``AsyncClient``, that hands requests to ``app``.

    Args:
        links: those of the App; opens its approval pages and callback addresses.
        secrets: of webhooks, by where they are kept; opens these.
        policy: what is asked of callers; left out, nothing.
        tokens: the claims of each bearer token that is good, as a gateway would have read them; ``scopes`` among them
            is a list. Left out, tokens are not looked at.

    Example:
        >>> from flowcore import App
        >>> from flowcore.client import Client
        >>> Client("https://api.example.com", transport=in_process(App())).healthy()
        True
    """
    log = logging.getLogger("flowcore.http")
    locked = Api(app, served, log, policy)
    opened = Api(app, lambda one: _open(one, links, secrets), log)

    def answer(request: httpx.Request) -> httpx.Response:
        front = Front(now=app.clock.now(), request_id="in-process")
        if request.url.path.startswith(_SIGNED):
            return _answered(opened(event_of(_asked(request), front), None))
        if tokens is not None:
            claims = tokens.get(request.headers.get("authorization", "").removeprefix("Bearer "))
            if claims is None:
                return httpx.Response(401, json={"message": "Unauthorized"})  # the gateway's own words
            front = replace(front, authorizer={"jwt": {"claims": claims, "scopes": claims.get("scopes", [])}})
        return _answered(locked(event_of(_asked(request), front), None))

    return httpx.MockTransport(answer)


def _open(app: App, links: Links | None, secrets: Secrets | None) -> Sequence[Any]:
    """The routers of what is opened by a signature."""
    from flowcore.http.doors import doors  # noqa: PLC0415  # the pages need an extra
    from flowcore.http.hooks import hooks  # noqa: PLC0415  # beside the other

    return [
        *([doors(app, links)] if links is not None else []),
        *([hooks(app, secrets)] if secrets is not None else []),
    ]


def _asked(request: httpx.Request) -> Request:
    headers = [(name, value) for name, value in request.headers.multi_items()]
    return Request(method=request.method, target=request.url.raw_path.decode(), headers=headers, body=request.content)


def _answered(answer: Mapping[str, Any]) -> httpx.Response:
    made = response_of(answer)
    return httpx.Response(made.status, headers=[*made.headers], content=made.body)
