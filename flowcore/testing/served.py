"""An App behind its HTTP API, in this process: what a client is given in place of a network.

Requests go through everything they pass in a deployment behind the gateway: validation, scopes, entity tags, problems.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote

import httpx

from flowcore.app import App
from flowcore.deliveries import Secrets
from flowcore.http.access import Policy
from flowcore.http.api import Api
from flowcore.http.everything import served
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
        event = _event(request)
        if event["rawPath"].startswith(_SIGNED):
            return _response(opened(event, None))
        if tokens is not None:
            claims = tokens.get(request.headers.get("authorization", "").removeprefix("Bearer "))
            if claims is None:
                return httpx.Response(401, json={"message": "Unauthorized"})  # the gateway's own words
            jwt = {"claims": claims, "scopes": claims.get("scopes", [])}
            event["requestContext"]["authorizer"] = {"jwt": jwt}
        return _response(locked(event, None))

    return httpx.MockTransport(answer)


def _open(app: App, links: Links | None, secrets: Secrets | None) -> Sequence[Any]:
    """The routers of what is opened by a signature."""
    from flowcore.http.doors import doors  # noqa: PLC0415  # the pages need an extra
    from flowcore.http.hooks import hooks  # noqa: PLC0415  # beside the other

    return [
        *([doors(app, links)] if links is not None else []),
        *([hooks(app, secrets)] if secrets is not None else []),
    ]


def _event(request: httpx.Request) -> dict[str, Any]:
    """As API Gateway puts it. Source: its developer guide, "Lambda proxy integrations", payload format version 2.0."""
    path, _, query = request.url.raw_path.decode().partition("?")
    http = {"method": request.method, "path": unquote(path), "sourceIp": "127.0.0.1", "protocol": "HTTP/1.1"}
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": unquote(path),
        "rawQueryString": query,
        "queryStringParameters": _joined(query) or None,
        "headers": {name.lower(): value for name, value in request.headers.items()},
        "requestContext": {
            "http": {**http, "userAgent": request.headers.get("user-agent", "")},
            "requestId": "in-process",
            "stage": "$default",
        },
        "body": base64.b64encode(request.content).decode() if request.content else None,
        "isBase64Encoded": bool(request.content),
    }


def _joined(query: str) -> dict[str, str]:
    """Several values of one name come with a comma in between."""
    joined: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _response(answer: Mapping[str, Any]) -> httpx.Response:
    headers = {name: str(value) for name, value in (answer.get("headers") or {}).items()}
    body = answer.get("body") or ""
    content = base64.b64decode(body) if answer.get("isBase64Encoded") else _text(body)
    return httpx.Response(answer["statusCode"], headers=headers, content=content)


def _text(body: Any) -> bytes:
    return (body if isinstance(body, str) else json.dumps(body)).encode()
