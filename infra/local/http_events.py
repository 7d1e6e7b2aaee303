"""Which route an HTTP request takes, and API Gateway's own words around the event and the answer. Pure.

The event and the answer themselves are made in ``flowcore.http.gateway``, as for every other front of the API.
"""

import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from flowcore.http.gateway import Front, Request, Response, event_of, response_of
from infra.local.blueprint import Route
from infra.local.template import ACCOUNT

_VARIABLE = re.compile(r"\{([^}+]+)(\+?)\}")


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
    front = Front(
        now=now,
        request_id=uuid.uuid4().hex,
        account=ACCOUNT,
        route=match.route.key,
        variables=match.path_parameters,
    )
    return event_of(request, front)


def message(status: int, text: str) -> Response:
    """API Gateway's own answers: ``{"message":"Not Found"}``."""
    body = json.dumps({"message": text}, separators=(",", ":")).encode()
    return Response(status=status, headers=(("Content-Type", "application/json"),), body=body)


def from_result(payload: bytes) -> Response:
    """What the client gets for a handler's return value; a 500 when it is not one that API Gateway understands."""
    try:
        result = json.loads(payload or b"null")
        if isinstance(result, dict) and "statusCode" in result:
            return response_of(result)
    except (ValueError, TypeError, KeyError):
        return message(500, "Internal Server Error")
    body = result if isinstance(result, str) else json.dumps(result)
    return Response(status=200, headers=(("Content-Type", "application/json"),), body=body.encode())
