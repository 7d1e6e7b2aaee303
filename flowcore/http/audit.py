"""One line for whatever somebody has changed, or was not allowed to: who, what, which run, when. Never a payload."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any

from flowcore.http.access import Caller
from flowcore.model import Json

_LINKS = re.compile(r"(?is)^(?!/v1/)(.*?/(?:a|cb))/.*")
"""A token in a path would be good for whoever reads the log, also when the path is otherwise wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """What happened, as far as the edge can tell."""

    action: str
    """Method and path, without what a link's token says."""
    outcome: str
    """``done``, ``denied`` or ``refused``."""
    status: int
    tenant: str
    by: str | None
    run_id: str | None = None
    problem: str | None = None

    def plain(self) -> dict[str, Json]:
        """As JSON."""
        return asdict(self)


def audited(method: str, path: str, caller: Caller, answer: Mapping[str, Any]) -> Audited | None:
    """The line for one request; None for one that has only read and was let in."""
    status = int(answer["statusCode"])
    denied = status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    if method in ("GET", "HEAD") and not denied:
        return None
    said, shown = _said(answer), _LINKS.sub(r"\1/...", path)
    return Audited(
        action=f"{method} {shown}",
        outcome="denied" if denied else "done" if status < HTTPStatus.BAD_REQUEST else "refused",
        status=status,
        tenant=caller.tenant,
        by=caller.name,
        run_id=_run_in(path) or _text(said.get("run_id")),
        problem=None if (kind := _text(said.get("type"))) is None else kind.rsplit("/", 1)[-1],
    )


def _said(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        found = json.loads(answer.get("body") or "null")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _run_in(path: str) -> str | None:
    match = re.match(r"^/v1/runs/([^/]+)", path)
    return None if match is None else match[1]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
