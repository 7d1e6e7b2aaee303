"""Routers as one API: what every request passes on its way in, and what becomes of everything that goes wrong.

The same under Lambda and in a process of one's own: both hand in the event of an HTTP API and get its answer.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Protocol

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.api_gateway import Router
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError

from flowcore.errors import FlowcoreError, MalformedRequest, PayloadTooLarge
from flowcore.http import problems
from flowcore.http.strict import parsed

MOST_BYTES = 1_000_000
"""Of one body. Larger values go where they are kept anyway; a run gets a reference."""

_JSON = "application/json"
_RAW = ("/hooks/", "/a/", "/cb/")
"""Where the body is read by the route itself: signatures are over the bytes, and a form is no JSON."""


class Log(Protocol):
    """What is told of a fault that is not the caller's."""

    def error(self, msg: object, /, *, exc_info: Any) -> None:
        """One line, with where it happened."""
        ...


class Api:
    """Some routers as one API. Calling it with an event gives the answer.

    Args:
        log: is told of what is not the caller's doing; the caller learns nothing of it.
    """

    def __init__(self, routers: Iterable[Router], log: Log) -> None:
        self.resolver = APIGatewayHttpResolver(enable_validation=True)
        for router in routers:
            self.resolver.include_router(router)
        self._log = log
        self.resolver.exception_handler(FlowcoreError)(self._refused)
        self.resolver.exception_handler(RequestValidationError)(problems.of_validation)
        self.resolver.exception_handler(Exception)(self._broken)
        self.resolver.not_found(self._nowhere)

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, Any]:
        """Answer one request."""
        try:
            event = {**event, **_admitted(event)}
        except FlowcoreError as error:
            return _plain(problems.of_error(error))
        except _Unsupported as error:
            return _plain(problems.unsupported(str(error), _JSON))
        answer: dict[str, Any] = self.resolver.resolve(event, context)
        return answer

    def _refused(self, error: FlowcoreError) -> Response[str]:
        response = problems.of_error(error)
        if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._log.error("request failed", exc_info=error)
        return response

    def _broken(self, error: Exception) -> Response[str]:
        self._log.error("request broke down", exc_info=error)
        return problems.unexpected()

    def _nowhere(self, _: NotFoundError) -> Response[str]:
        request = self.resolver.current_event
        allowed = self._methods_at(request.path)
        if allowed:
            return problems.wrong_method(request.http_method, request.path, allowed)
        return problems.unknown_route(request.http_method, request.path)

    def _methods_at(self, path: str) -> list[str]:
        routes = [*self.resolver._static_routes, *self.resolver._dynamic_routes]  # noqa: SLF001  # nothing public tells
        return sorted({route.method for route in routes if route.rule.match(path)})


class _Unsupported(Exception):
    """A body of a kind that no route takes. Never leaves this module."""


def _admitted(event: dict[str, Any]) -> dict[str, Any]:
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
    body = json.dumps(parsed(raw), ensure_ascii=False)
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
