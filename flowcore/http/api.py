"""Routers as one API: what every request passes on its way in, and what becomes of everything that goes wrong.

The same under Lambda and in a process of one's own: both hand in the event of an HTTP API and get its answer. On the
way in it is asked who calls and whether he may; whose runs he sees is settled here, and no route has to think of it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
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
    scope_of,
)
from flowcore.http.audit import Audited, audited
from flowcore.http.openapi import document
from flowcore.http.shown import answer
from flowcore.http.strict import parsed
from flowcore.http.tags import tagged
from flowcore.model import Json

MOST_BYTES = 1_000_000
"""Of one body. Larger values go where they are kept anyway; a run gets a reference."""
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
    """Some routers as one API. Calling it with an event gives the answer.

    Args:
        routers: of one tenant's App.
        log: is told of what is not the caller's doing; the caller learns nothing of it.
        policy: what is asked of callers.
    """

    def __init__(
        self, app: App, routers: Callable[[App], Iterable[Router]], log: Log, policy: Policy | None = None
    ) -> None:
        self._app = app
        self._routers = routers
        self._log = log
        self._policy = policy or Policy()
        self._resolver = lru_cache(_MOST_TENANTS)(self._made)

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        """Answer one request."""
        event = _unstaged(event)
        method, path = _asked(event)
        caller = Caller()
        try:
            _refuse_unmeant(event, method, path)
            scope = scope_of(method, path)
            if scope is not None:
                caller = caller_of(self._policy, event, self._app.clock.now())
                _allow(caller, scope)
            reply = self._answered(event, context, caller, method, path)
        except FlowcoreError as error:
            reply = _plain(self._refused(error))
        except _Unsupported as error:
            reply = _plain(problems.unsupported(str(error), _JSON))
        except _NoSuchRoute:
            reply = _plain(problems.unknown_route(method, path))
        except Exception as error:  # noqa: BLE001  # the caller gets an answer, the log gets the rest
            reply = _plain(self._broken(error))
        self._told(audited(method, path, caller, reply))
        return tagged(event, reply) if method == "GET" else reply

    def _answered(self, event: dict[str, Any], context: Any, caller: Caller, method: str, path: str) -> dict[str, Any]:
        app = self._app if caller.tenant == self._app.tenant else self._app.for_tenant(caller.tenant)
        changed = _admitted(event)
        _allow(caller, also_needed(method, path, changed.get("body")))
        if caller.owner is not None:
            changed |= guarded(app, caller.owner, method, path, {**event, **changed})
        reply: dict[str, Any] = self._resolver(caller.tenant).resolve({**event, **changed}, context)
        if caller.owner is not None:
            refuse_found(caller.owner, method, path, reply)
        return reply

    def _made(self, tenant: str) -> APIGatewayHttpResolver:
        resolver = APIGatewayHttpResolver(enable_validation=True)
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
            allowed = _methods_at(resolver, request.path)
            if allowed:
                return problems.wrong_method(request.http_method, request.path, allowed)
            return problems.unknown_route(request.http_method, request.path)

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
    as_let_in = key == "$default" or key.startswith("ANY ") or "+}" in key or fits(key, method, path)
    if not (as_let_in and path.isprintable()):
        raise _NoSuchRoute


def _asked(event: Mapping[str, Any]) -> tuple[str, str]:
    http = (event.get("requestContext") or {}).get("http") or {}
    return str(http.get("method", "")), str(event.get("rawPath", ""))


def _methods_at(resolver: APIGatewayHttpResolver, path: str) -> list[str]:
    routes = [*resolver._static_routes, *resolver._dynamic_routes]  # noqa: SLF001  # nothing public tells
    return sorted({route.method for route in routes if route.rule.match(path)})


def _admitted(event: Mapping[str, Any]) -> dict[str, Any]:
    """What of an event is to be replaced: a JSON body in the one way to write it. Raises: MalformedRequest and others.

    Read strictly here, so that every route is handed the same value that a strict reader in front of us has seen.
    """
    body = event.get("body")
    raw = _bytes(body or "", is_base64=bool(event.get("isBase64Encoded")))
    if len(raw) > MOST_BYTES:
        raise PayloadTooLarge("The body", len(raw), MOST_BYTES)
    if str(event.get("rawPath", "")).startswith(_RAW):
        return {}
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    if not raw:
        return {"body": "", "isBase64Encoded": False} if body else {}
    kind = headers.get("content-type", _JSON).partition(";")[0].strip().lower()
    if kind != _JSON and not (kind.startswith("application/") and kind.endswith("+json")):
        raise _Unsupported(kind[:100])
    return _as_body(parsed(raw), headers)


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
