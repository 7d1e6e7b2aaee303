"""Requests to an API in this process, as the gateway would hand them in, and its answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

from aws_lambda_powertools.event_handler.api_gateway import Router

from flowcore.app import App
from flowcore.http.access import Policy
from flowcore.http.api import Api
from flowcore.http.limits import Pace


@dataclass
class Answer:
    """What came back."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def body(self) -> Any:
        """The JSON of it."""
        return json.loads(self.text)

    @property
    def type(self) -> str:
        """The last part of a problem's type."""
        return str(self.body["type"]).rsplit("/", 1)[1]


@dataclass
class Quiet:
    """Keeps what the API tells its log."""

    faults: list[BaseException] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    """Of the audit."""

    def error(self, msg: object, /, *, exc_info: Any) -> None:
        self.faults.append(exc_info)

    def info(self, msg: object, /, *, extra: Any) -> None:
        self.lines.append(extra["audit"])


class Web:
    """An API with these routers."""

    def __init__(
        self,
        app: App,
        *make: Callable[[App], Router],
        policy: Policy | None = None,
        authorizer: Any = None,
        pace: Pace | None = None,
    ) -> None:
        self.log = Quiet()
        self.api = Api(app, lambda served: [one(served) for one in make], self.log, policy, pace=pace)
        self.authorizer = authorizer

    def call(
        self,
        method: str,
        target: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        *,
        authorizer: Mapping[str, Any] | None = None,
        route: str = "$default",
        stage: str = "$default",
    ) -> Answer:
        """One request, its body as bytes or text, as a gateway lets it in at one of its routes."""
        path, _, query = target.partition("?")
        raw = body.encode() if isinstance(body, str) else body
        event = {
            "version": "2.0",
            "routeKey": route,
            "rawPath": path,
            "rawQueryString": query,
            "headers": {name.lower(): value for name, value in dict(headers).items()},
            "queryStringParameters": _joined(query) if query else None,
            "requestContext": {
                "authorizer": self.authorizer if authorizer is None else authorizer,
                "http": {
                    "method": method,
                    "path": path,
                    "sourceIp": "127.0.0.1",
                    "userAgent": "",
                    "protocol": "HTTP/1.1",
                },
                "requestId": "request-1",
                "stage": stage,
            },
            "body": None if raw is None else base64.b64encode(raw).decode(),
            "isBase64Encoded": raw is not None,
        }
        answer = self.api(event, None)
        shown = {name.lower(): str(value) for name, value in (answer.get("headers") or {}).items()}
        return Answer(answer["statusCode"], answer.get("body") or "", shown)

    def get(self, target: str, **headers: str) -> Answer:
        """Read."""
        return self.call("GET", target, None, headers)

    def post(self, target: str, value: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Send JSON."""
        return self.call("POST", target, json.dumps(value), {"content-type": "application/json", **(headers or {})})

    def fill_in(self, target: str, **fields: str | list[str]) -> Answer:
        """Send a form."""
        kind = {"content-type": "application/x-www-form-urlencoded"}
        return self.call("POST", target, urlencode(fields, doseq=True), kind)


def _joined(query: str) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined
