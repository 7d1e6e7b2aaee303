"""Routers as one API: what every request passes on its way in, and what becomes of everything that goes wrong.

The same under Lambda and in a process of one's own: both hand in the event of an HTTP API and get its answer. On the
way in it is asked who calls and whether he may; whose runs he sees is settled here, and no route has to think of it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.api_gateway import Router
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError

from flowcore.app import App
from flowcore.errors import FlowcoreError, Forbidden, MalformedRequest, PayloadTooLarge
from flowcore.http import problems
from flowcore.http.access import (
    Caller,
    Policy,
    Scope,
    also_needed,
    caller_of,
    fits,
    guarded,
    refuse_found,
    run_answered,
    scope_of,
)
from flowcore.http.audit import Audited, audited
from flowcore.http.limits import MOST_BYTES, Pace, bounded, oversized, refuse_many_parameters
from flowcore.http.openapi import document
from flowcore.http.resolver import Resolver
from flowcore.http.shown import answer
from flowcore.http.tags import tagged
from flowcore.model import Json
from flowcore.strict import parsed

_MOST_TENANTS = 50
"""Tenants whose routes are kept ready in one process."""

_JSON = "application/json"
_RAW = ("/hooks/", "/a/", "/cb/")
"""Where the body is read by the route itself: signatures are over the bytes, and a form is no JSON."""


class Log(Protocol):
    """What is told of a fault that is not the caller's, and of what somebody did or may not do."""

    def error(self, msg: object, /, *, exc_info: Any) -> None:
        """One line, with where it happened."""
        ...

    def info(self, msg: object, /, *, extra: Any) -> None:
        """One line of the audit."""
        ...


class Api:
    """Some routers as one API. Calling it with an event gives the answer; several threads may call it at once.

    Args:
        routers: of one tenant's App.
        log: is told of what is not the caller's doing; the caller learns nothing of it.
        policy: what is asked of callers.
        pace: how fast one run may be answered; None: as fast as answers come.
    """

    def __init__(
        self,
        app: App,
        routers: Callable[[App], Iterable[Router]],
        log: Log,
        policy: Policy | None = None,
        *,
        pace: Pace | None = None,
    ) -> None:
        self._app = app
        self._routers = routers
        self._log = log
        self._policy = policy or Policy()
        self._pace = pace
        self._resolver = lru_cache(_MOST_TENANTS)(self._made)

    def methods_at(self, path: str) -> list[str]:
        """The methods that a path takes here, sorted; none where there is no such path."""
        return self._resolver(self._app.tenant).methods_at(path)

    def now(self) -> datetime:
        """The time as the App has it."""
        return self._app.clock.now()

    def refusal(self, error: Exception) -> dict[str, Any]:
        """The answer where an error has come of a request; the log is told of what is not the caller's doing."""
        return _plain(self._refused(error) if isinstance(error, FlowcoreError) else self._broken(error))

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        """Answer one request; HEAD as GET, less the body, where a path says nothing else about it."""
        event = _unstaged(event)
        method, path = _asked(event)
        if method == "HEAD" and "HEAD" not in (known := self.methods_at(path)) and "GET" in known:
            return {**self._one(_as_get(event), context, "GET", path), "body": ""}
        return self._one(event, context, method, path)

    def _one(self, event: dict[str, Any], context: Any, method: str, path: str) -> dict[str, Any]:
        if (refusal := oversized(event)) is not None:
            return _plain(refusal)
        caller = Caller(tenant=self._app.tenant)
        try:
            _refuse_unmeant(event, method, path)
            scope = scope_of(method, path)
            if scope is not None:
                caller = caller_of(self._policy, event, self.now(), tenant=self._app.tenant)
                _allow(caller, scope)
            reply = bounded(method, self._answered(event, context, caller, method, path))
        except FlowcoreError as error:
            reply = self.refusal(error)
        except _Unsupported as error:
            reply = _plain(problems.unsupported(str(error), _JSON))
        except _NoSuchRoute:
            reply = _plain(problems.unknown_route(method, path))
        except Exception as error:  # noqa: BLE001  # the caller gets an answer, the log gets the rest
            reply = self.refusal(error)
        self._told(audited(method, path, caller, reply))
        return tagged(event, reply) if method == "GET" else reply

    def _answered(self, event: dict[str, Any], context: Any, caller: Caller, method: str, path: str) -> dict[str, Any]:
        app = self._app if caller.tenant == self._app.tenant else self._app.for_tenant(caller.tenant)
        refuse_many_parameters(event)
        changed = _admitted(event)
        _allow(caller, also_needed(method, path, changed.get("body")))
        if caller.owner is not None:
            changed |= guarded(app, caller.owner, method, path, {**event, **changed})
        if self._pace is not None and (run := run_answered(method, path)) is not None:
            self._pace.take(f"{caller.tenant}/{run}", self.now())  # now that he may, or he would use up others' pace
        reply: dict[str, Any] = self._resolver(caller.tenant).resolve({**event, **changed}, context)
        if caller.owner is not None:
            refuse_found(caller.owner, method, path, reply)
        return reply

    def _made(self, tenant: str) -> Resolver:
        resolver = Resolver()
        app = self._app if tenant == self._app.tenant else self._app.for_tenant(tenant)
        for router in self._routers(app):
            resolver.include_router(router)
        resolver.exception_handler(FlowcoreError)(self._refused)
        resolver.exception_handler(RequestValidationError)(problems.of_validation)
        resolver.exception_handler(Exception)(self._broken)

        @resolver.get("/v1/openapi.json", include_in_schema=False)
        def describe() -> Response[str]:
            return answer(HTTPStatus.OK, document(resolver))

        @resolver.not_found
        def nowhere(_: NotFoundError) -> Response[str]:
            request = resolver.current_event
            allowed = resolver.methods_at(request.path)
            if allowed:
                return problems.wrong_method(request.http_method, request.path, allowed)
            return problems.unknown_route(request.http_method, request.path)

        resolver.made_ready()
        return resolver

    def _told(self, line: Audited | None) -> None:
        if line is not None:
            self._log.info("audit", extra={"audit": line.plain()})

    def _refused(self, error: FlowcoreError) -> Response[str]:
        response = problems.of_error(error)
        if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._log.error("request failed", exc_info=error)
        return response

    def _broken(self, error: Exception) -> Response[str]:
        self._log.error("request broke down", exc_info=error)
        return problems.unexpected()


class _Unsupported(Exception):
    """A body of a kind that no route takes. Never leaves this module."""


class _NoSuchRoute(Exception):
    """A path that is none of ours before anybody has looked for its route. Never leaves this module."""


def _allow(caller: Caller, scope: Scope | None) -> None:
    """Raises: Forbidden."""
    if scope is not None and not caller.may(scope):
        raise Forbidden(f"The token does not allow flowcore:{scope}.")


def _unstaged(event: dict[str, Any]) -> dict[str, Any]:
    """The event with a path that does not begin with its stage: one path for whoever looks at it."""
    asked, path = event.get("requestContext") or {}, str(event.get("rawPath", ""))
    stage = asked.get("stage", "$default")
    if stage == "$default":
        return event
    return {
        **event,
        "rawPath": path.removeprefix(f"/{stage}") if path.startswith(f"/{stage}/") else path,
        "requestContext": {**asked, "stage": "$default"},
    }


def _refuse_unmeant(event: Mapping[str, Any], method: str, path: str) -> None:
    """Raise _NoSuchRoute for a path that the gateway has let in as another one, of which decoding has made this.

    The gateway looks for its route before it decodes a path, we do afterwards: ``/v1/runs/x%2Fgraph`` is two routes.
    """
    key = str(event.get("routeKey", "$default"))
    pattern = key.partition(" ")[2]
    as_let_in = key == "$default" or "+}" in pattern or fits(f"{method} {pattern}", method, path)
    if not (as_let_in and path.isprintable()):
        raise _NoSuchRoute


def _asked(event: Mapping[str, Any]) -> tuple[str, str]:
    http = (event.get("requestContext") or {}).get("http") or {}
    return str(http.get("method", "")), str(event.get("rawPath", ""))


def _as_get(event: Mapping[str, Any]) -> dict[str, Any]:
    context = event["requestContext"]
    return {**event, "requestContext": {**context, "http": {**context["http"], "method": "GET"}}}


def _admitted(event: Mapping[str, Any]) -> dict[str, Any]:
    """What of an event is to be replaced: a JSON body in the one way to write it. Raises: MalformedRequest and others.

    Read strictly here, so that every route is handed the same value that a strict reader in front of us has seen.
    """
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    body = event.get("body")
    raw = _bytes(body or "", is_base64=bool(event.get("isBase64Encoded")))
    size = max(len(raw), announced(headers.get("content-length")))
    if size > MOST_BYTES:
        raise PayloadTooLarge("The body", size, MOST_BYTES)
    if str(event.get("rawPath", "")).startswith(_RAW):
        return {}
    if not raw:
        return {"body": "", "isBase64Encoded": False} if body else {}
    kind = headers.get("content-type", _JSON).partition(";")[0].strip().lower()
    if kind != _JSON and not (kind.startswith("application/") and kind.endswith("+json")):
        raise _Unsupported(kind[:100])
    return _as_body(parsed(raw), headers)


def announced(length: str | None) -> int:
    """Bytes of a body by its ``Content-Length``; 0 where that says nothing."""
    return int(length) if length is not None and re.fullmatch(r"[0-9]{1,18}", length) else 0


def _as_body(value: Json, headers: Mapping[str, str]) -> dict[str, Any]:
    body = json.dumps(value, ensure_ascii=False)
    return {"body": body, "isBase64Encoded": False, "headers": {**headers, "content-type": _JSON}}


def _bytes(body: str, *, is_base64: bool) -> bytes:
    if not is_base64:
        return body.encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedRequest("The body is not what its encoding says.") from None


def _plain(response: Response[str]) -> dict[str, Any]:
    """A response that no route has made, as the gateway takes it."""
    return {
        "statusCode": response.status_code,
        "headers": {"Content-Type": response.content_type, **response.headers},
        "body": response.body,
        "isBase64Encoded": False,
    }
