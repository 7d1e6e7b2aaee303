"""One request to the API as a value, before it is sent and after it was answered. Knows no network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

from flowcore.codec import ANYTHING
from flowcore.model import Json

T = TypeVar("T")

NOTHING: Any = object()
"""Stands for a value that was left out, where None is one."""
_AS_THEY_ARE = ":@"
"""What ids may hold and paths take, besides letters, digits and ``._-``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent."""

    method: str
    target: str
    """Path and query; a whole address where it is ``foreign``."""
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    foreign: bool = False
    """Goes to an address that somebody has given us: who we are is nobody's business there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""

    def json(self) -> Any:
        """Its value. Raises: ValueError."""
        return json.loads(self.text)


@dataclass(frozen=True, slots=True)
class Unreached:
    """Nothing came back."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request, and how its answer is read.

    Args:
        route: as the API names it, ``GET /v1/runs/{run}``.
        names: what stands in the braces, and what else an error may be about.
        query: parameters; what is None is left out, what is a list comes several times.
        headers: what is None is left out.
        body: plain JSON; ``NOTHING``: there is none.
        url: where it goes instead of ``route``: to an address that somebody has given.
    """

    route: str
    read: Callable[[Reply], T]
    names: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: Json = NOTHING
    url: str | None = None

    @property
    def is_repeatable(self) -> bool:
        """Whether to ask twice is to ask once."""
        return self.route.startswith("GET ") or self.headers.get("idempotency-key") is not None

    def request(self) -> Request:
        """What is to be sent."""
        method, _, path = self.route.partition(" ")
        for name, value in self.names.items():
            path = path.replace(f"{{{name}}}", quote(value, safe=_AS_THEY_ARE))
        query = urlencode(_parameters(self.query), quote_via=quote)
        headers = {name: value for name, value in self.headers.items() if value is not None}
        content = None if self.body is NOTHING else json.dumps(self.body, ensure_ascii=False).encode()
        if content is not None:
            headers["content-type"] = "application/json"
        return Request(
            method=method,
            target=self.url or (f"{path}?{query}" if query else path),
            headers={"accept": "application/json", **headers},
            content=content,
            foreign=self.url is not None,
        )


def given(**fields: Any) -> dict[str, Any]:
    """Those that were not left out; None is left out, too."""
    return {name: value for name, value in fields.items() if value is not None and value is not NOTHING}


def plain(subject: str, value: Any) -> Json:
    """A value as plain JSON: models and dataclasses, dates and the like become it. Raises: InvalidPayload."""
    return ANYTHING.accept(subject, value)


def _parameters(query: Mapping[str, Any]) -> list[tuple[str, str]]:
    several = [(name, value if isinstance(value, (list, tuple)) else [value]) for name, value in query.items()]
    return [(name, _written(one)) for name, values in several for one in values if one is not None]


def _written(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case datetime():
            return value.isoformat()
        case _:
            return str(value)
