"""HTTP requests and responses as API Gateway's payload format 2.0 shows them. Pure: knows no clock and no socket.

Whatever stands in front of the API makes its events here, so that it answers the same under each of them.

Source: API Gateway developer guide, "Create AWS Lambda proxy integrations for HTTP APIs".
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

_TEXT = re.compile(r"text/|application/(json|javascript|xml)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request; ``target`` is the path with its query string, header names are as sent."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    source_ip: str = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One HTTP response."""

    status: int
    headers: Sequence[tuple[str, str]] = field(default_factory=tuple)
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """What an event says of whoever made it of a request.

    Args:
        now: when the request came.
        request_id: of this one request.
        route: the key of the route that was found for it.
        variables: of that route's path, percent-decoded.
        authorizer: what is known of the caller, as the gateway's authorizers put it: ``{"jwt": {"claims": ...}}``.
    """

    now: datetime
    request_id: str
    api_id: str = "local"
    account: str = ""
    route: str = "$default"
    variables: Mapping[str, str] = field(default_factory=dict)
    authorizer: Mapping[str, Any] | None = None


def event_of(request: Request, front: Front) -> dict[str, Any]:
    """The event that a function gets for this request."""
    raw_path, _, raw_query = request.target.partition("?")
    headers, cookies = _headers(request.headers)
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": front.route,
        "rawPath": unquote(raw_path),
        "rawQueryString": raw_query,
        "headers": headers,
        "requestContext": _context(request, front, headers),
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies
    if query := _joined(parse_qsl(raw_query, keep_blank_values=True)):
        event["queryStringParameters"] = query
    if front.variables:
        event["pathParameters"] = dict(front.variables)
    if request.body:
        event["body"], event["isBase64Encoded"] = _body(request.body, headers.get("content-type", ""))
    return event


def response_of(result: Mapping[str, Any]) -> Response:
    """What the client gets for the answer of a function that has given a ``statusCode``. Raises: ValueError."""
    status = int(result["statusCode"])
    headers = [(str(name), _header_text(value)) for name, value in (result.get("headers") or {}).items()]
    headers += [("Set-Cookie", str(cookie)) for cookie in result.get("cookies") or ()]
    text = result.get("body") or ""
    body = text if isinstance(text, str) else json.dumps(text)
    raw = base64.b64decode(body) if result.get("isBase64Encoded") else body.encode()
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", "text/plain;charset=UTF-8"))
    return Response(status=status, headers=tuple(headers), body=raw)


def _context(request: Request, front: Front, headers: Mapping[str, str]) -> dict[str, Any]:
    context: dict[str, Any] = {
        "accountId": front.account,
        "apiId": front.api_id,
        "domainName": headers.get("host", "localhost"),
        "domainPrefix": front.api_id,
        "http": {
            "method": request.method,
            "path": unquote(request.target.partition("?")[0]),
            "protocol": "HTTP/1.1",
            "sourceIp": request.source_ip,
            "userAgent": headers.get("user-agent", ""),
        },
        "requestId": front.request_id,
        "routeKey": front.route,
        "stage": "$default",
        "time": front.now.strftime("%d/%b/%Y:%H:%M:%S +0000"),
        "timeEpoch": int(front.now.timestamp() * 1000),
    }
    return context if front.authorizer is None else {**context, "authorizer": dict(front.authorizer)}


def _headers(sent: Sequence[tuple[str, str]]) -> tuple[dict[str, str], list[str]]:
    """Lower-cased headers, repeated ones joined by commas, and the cookies, which 2.0 keeps apart."""
    lowered = [(name.lower(), value) for name, value in sent]
    cookies = [c.strip() for name, value in lowered if name == "cookie" for c in value.split(";")]
    return _joined((name, value) for name, value in lowered if name != "cookie"), cookies


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    gathered: dict[str, list[str]] = {}
    for name, value in pairs:
        gathered.setdefault(name, []).append(value)
    return {name: ",".join(values) for name, values in gathered.items()}


def _body(body: bytes, content_type: str) -> tuple[str, bool]:
    """Text types go through as text; everything else, forms included, as base64."""
    if _TEXT.match(content_type.strip().lower()):
        try:
            return body.decode("utf-8"), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(body).decode("ascii"), True


def _header_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
