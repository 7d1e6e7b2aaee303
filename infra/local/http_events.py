"""HTTP requests and responses as API Gateway's payload format 2.0 shows them. Pure.

Source: API Gateway developer guide, "Create AWS Lambda proxy integrations for HTTP APIs".
"""

import base64
import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

from infra.local.blueprint import Route
from infra.local.template import ACCOUNT

_TEXT = re.compile(r"text/|application/(json|javascript|xml)\b")
_VARIABLE = re.compile(r"\{([^}+]+)(\+?)\}")


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
class Match:
    """The route of a request and the variables of its path, percent-decoded."""

    route: Route
    path_parameters: Mapping[str, str]


class Router:
    """Finds the route of a request: a plain segment beats a variable, that beats ``{rest+}``, that beats $default."""

    def __init__(self, routes: Iterable[Route]) -> None:
        ranked = sorted(routes, key=_rank)
        self._routes = [(route, *_pattern(route.key)) for route in ranked]

    def match(self, method: str, path: str) -> Match | None:
        """The most specific route, or None for API Gateway's 404."""
        for route, wanted_method, pattern in self._routes:
            found = pattern.fullmatch(path)
            if found and wanted_method in (method, "ANY"):
                return Match(route=route, path_parameters={k: unquote(v) for k, v in found.groupdict().items()})
        return None


def _pattern(key: str) -> tuple[str, re.Pattern[str]]:
    if key == "$default":
        return "ANY", re.compile(".*")
    method, _, path = key.partition(" ")
    parts, last = [], 0
    for found in _VARIABLE.finditer(path):
        parts += [re.escape(path[last : found.start()]), f"(?P<{found[1]}>{'.+' if found[2] else '[^/]+'})"]
        last = found.end()
    return method, re.compile("".join([*parts, re.escape(path[last:])]))


def _rank(route: Route) -> tuple[Any, ...]:
    method, _, path = route.key.partition(" ")
    kinds = tuple(2 if "+}" in part else 1 if "{" in part else 0 for part in path.split("/"))
    return route.key == "$default", 2 in kinds, kinds, method == "ANY"


def to_event(request: Request, match: Match, *, now: datetime) -> dict[str, Any]:
    """The event a function gets for this request."""
    raw_path, _, raw_query = request.target.partition("?")
    headers, cookies = _headers(request.headers)
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": match.route.key,
        "rawPath": unquote(raw_path),
        "rawQueryString": raw_query,
        "headers": headers,
        "requestContext": _request_context(request, match, headers, now),
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies
    if query := _joined(parse_qsl(raw_query, keep_blank_values=True)):
        event["queryStringParameters"] = query
    if match.path_parameters:
        event["pathParameters"] = dict(match.path_parameters)
    if request.body:
        event["body"], event["isBase64Encoded"] = _body(request.body, headers.get("content-type", ""))
    return event


def _request_context(request: Request, match: Match, headers: Mapping[str, str], now: datetime) -> dict[str, Any]:
    return {
        "accountId": ACCOUNT,
        "apiId": "local",
        "domainName": headers.get("host", "localhost"),
        "domainPrefix": "local",
        "http": {
            "method": request.method,
            "path": unquote(request.target.partition("?")[0]),
            "protocol": "HTTP/1.1",
            "sourceIp": request.source_ip,
            "userAgent": headers.get("user-agent", ""),
        },
        "requestId": uuid.uuid4().hex,
        "routeKey": match.route.key,
        "stage": "$default",
        "time": now.strftime("%d/%b/%Y:%H:%M:%S +0000"),
        "timeEpoch": int(now.timestamp() * 1000),
    }


def _headers(sent: Sequence[tuple[str, str]]) -> tuple[dict[str, str], list[str]]:
    """Lower-cased headers, repeated ones joined by commas, and the cookies, which 2.0 keeps apart."""
    lowered = [(name.lower(), value) for name, value in sent]
    cookies = [c.strip() for name, value in lowered if name == "cookie" for c in value.split(";")]
    return _joined((name, value) for name, value in lowered if name != "cookie"), cookies


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in pairs:
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _body(body: bytes, content_type: str) -> tuple[str, bool]:
    """Text types go through as text; everything else, forms included, as base64."""
    if _TEXT.match(content_type.strip().lower()):
        try:
            return body.decode("utf-8"), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(body).decode("ascii"), True


def message(status: int, text: str) -> Response:
    """API Gateway's own answers: ``{"message":"Not Found"}``."""
    body = json.dumps({"message": text}, separators=(",", ":")).encode()
    return Response(status=status, headers=(("Content-Type", "application/json"),), body=body)


def from_result(payload: bytes) -> Response:
    """What the client gets for a handler's return value; a 500 when it is not one that API Gateway understands."""
    try:
        result = json.loads(payload or b"null")
        if isinstance(result, dict) and "statusCode" in result:
            return _shaped(result)
    except (ValueError, TypeError, KeyError):
        return message(500, "Internal Server Error")
    body = result if isinstance(result, str) else json.dumps(result)
    return Response(status=200, headers=(("Content-Type", "application/json"),), body=body.encode())


def _shaped(result: Mapping[str, Any]) -> Response:
    status = int(result["statusCode"])
    headers = [(str(name), _header_text(value)) for name, value in (result.get("headers") or {}).items()]
    headers += [("Set-Cookie", str(cookie)) for cookie in result.get("cookies") or ()]
    text = result.get("body") or ""
    body = text if isinstance(text, str) else json.dumps(text)
    raw = base64.b64decode(body) if result.get("isBase64Encoded") else body.encode()
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", "text/plain;charset=UTF-8"))
    return Response(status=status, headers=tuple(headers), body=raw)


def _header_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
