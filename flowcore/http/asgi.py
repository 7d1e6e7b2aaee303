"""The API in a process of one's own: an ASGI 3 application, for uvicorn, hypercorn and the like.

A request becomes the same event as at API Gateway and goes the same way from there, so that nothing is answered
differently here. Routes are plain functions that wait for the store; they run in threads, one for each request.
Who calls has to be found out in front of it, or by ``authorize``.

Source: ASGI specification 3.0, "HTTP & WebSocket ASGI Message Format" and "Lifespan Protocol".
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias
from urllib.parse import quote

from aws_lambda_powertools.event_handler.api_gateway import Router

from flowcore.app import App
from flowcore.deliveries import Secrets
from flowcore.http.access import Policy
from flowcore.http.api import Api, announced
from flowcore.http.everything import served, served_with_docs
from flowcore.http.gateway import Front, Request, Response, event_of, response_of
from flowcore.http.hooks import hooks
from flowcore.http.limits import MOST_BYTES, Pace
from flowcore.links import Links

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Authorize: TypeAlias = Callable[[Request], Mapping[str, Any] | None]
"""Finds out who calls, as API Gateway's authorizers put it: ``{"jwt": {"claims": {...}, "scopes": [...]}}``."""

_BODILESS = (204, 304)
_OF_ONE_HOP = frozenset({"connection", "content-length", "transfer-encoding"})
"""Headers that the server sets by itself."""


def asgi(
    app: App,
    *,
    policy: Policy | None = None,
    authorize: Authorize | None = None,
    links: Links | None = None,
    secrets: Secrets | None = None,
    pace: Pace | None = None,
    docs: bool = False,
) -> Asgi:
    """All routes of an App, the open doors included, as one ASGI application.

    Args:
        policy: what is asked of callers; None: where there is ``authorize`` a token with the scopes of each route,
            ``Policy(mode="jwt")``, else nothing, everybody may everything.
        authorize: finds out who calls; None is nobody. It runs in the thread of the request, and is asked of every one,
            also where nobody has to be known. What it raises is the answer: ``Unauthenticated`` 401, ``Forbidden`` 403.
        links: opens ``/a/`` and ``/cb/``; None: these are unknown routes.
        secrets: the secrets of webhooks by their names, opens ``/hooks/``; None: this is an unknown route.
        pace: how fast one run may be answered; None: as fast as answers come.
        docs: whether ``GET /v1/docs`` shows a page on which the API can be tried.

    Example:
        >>> from flowcore import App
        >>> application = asgi(App())  # uvicorn module:application
    """
    log = logging.getLogger("flowcore.http")

    def open_doors(served_app: App) -> Iterable[Router]:
        if secrets is not None:
            yield hooks(served_app, secrets)
        if links is not None:
            from flowcore.http.doors import doors  # noqa: PLC0415  # the pages need more packages

            yield doors(served_app, links)

    if policy is None and authorize is not None:
        policy = Policy(mode="jwt")  # who finds out who calls does not mean to let everybody in
    locked = Api(app, served_with_docs if docs else served, log, policy, pace=pace)
    return Asgi(locked, Api(app, open_doors, log, pace=pace), authorize=authorize)


class Asgi:
    """Some APIs as one ASGI application: the first that knows a path answers it; an unknown one is the first's.

    Args:
        authorize: see ``asgi``.
        threads: requests that are answered at once; further ones wait.
    """

    def __init__(self, *apis: Api, authorize: Authorize | None = None, threads: int = 32) -> None:
        self._apis = apis
        self._authorize = authorize
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="flowcore-http")

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one connection, as an ASGI server asks for it."""
        match scope["type"]:
            case "http":
                await self._serve(scope, receive, send)
            case "lifespan":
                await self._live(receive, send)
            case "websocket":
                await send({"type": "websocket.close", "code": 1000})
            case other:
                raise ValueError(f"No connection of type {other!r} is served here.")

    async def _serve(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        length = next((value for name, value in headers if name.lower() == "content-length"), None)
        body = b"" if announced(length) > MOST_BYTES else await _read(receive)
        if body is None:
            return
        request = Request(
            method=scope["method"],
            target=_target(scope),
            headers=headers,
            body=body,
            source_ip=str((scope.get("client") or ("",))[0]),
        )
        response = await asyncio.get_running_loop().run_in_executor(self._pool, self.answer, request)
        await _write(send, response, is_head=request.method == "HEAD")

    def answer(self, request: Request) -> Response:
        """What the API says to a request. Blocks."""
        try:
            authorizer = None if self._authorize is None else self._authorize(request)
        except Exception as error:  # noqa: BLE001  # the caller gets an answer, the log gets the rest
            return response_of(self._apis[0].refusal(error))
        front = Front(now=self._apis[0].now(), request_id=uuid.uuid4().hex, authorizer=authorizer)
        event = event_of(request, front)
        api = next((api for api in self._apis if api.methods_at(event["rawPath"])), self._apis[0])
        return response_of(api(event, None))

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            if message["type"] == "lifespan.shutdown":
                self._pool.shutdown()
                await send({"type": "lifespan.shutdown.complete"})
                return


async def _read(receive: Receive) -> bytes | None:
    """The body, or as much of it as shows that it is too large; None when the caller has hung up."""
    parts, size, is_more = [], 0, True
    while is_more and size <= MOST_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        parts.append(part)
        size, is_more = size + len(part), message.get("more_body", False)
    return b"".join(parts)[: MOST_BYTES + 1]


async def _write(send: Send, response: Response, *, is_head: bool) -> None:
    headers = [(name.lower(), value) for name, value in response.headers if name.lower() not in _OF_ONE_HOP]
    if not is_head and response.status not in _BODILESS:
        headers.append(("content-length", str(len(response.body))))
    encoded = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers]
    await send({"type": "http.response.start", "status": response.status, "headers": encoded})
    body = b"" if is_head or response.status in _BODILESS else response.body
    await send({"type": "http.response.body", "body": body})


def _target(scope: Mapping[str, Any]) -> str:
    """Path and query as they were sent, less where the application is mounted."""
    raw = scope.get("raw_path")
    path = quote(scope["path"], safe="/") if raw is None else raw.partition(b"?")[0].decode("latin-1")
    path = path.removeprefix(scope.get("root_path") or "")
    query = scope.get("query_string", b"").decode("latin-1")
    return f"{path}?{query}" if query else path
