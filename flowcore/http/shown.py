"""Responses that several groups of routes give: a run, JSON, and what a caller has said in headers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.api_gateway import BaseRouter
from pydantic import ValidationError

from flowcore.app import App
from flowcore.errors import VersionMismatch
from flowcore.http.bodies import run_json
from flowcore.http.tags import versions_in
from flowcore.model import Json
from flowcore.results import RunResult

_MOVING = ("pending", "running", "waiting")
"""A run that asks nothing of anybody and has not ended."""


def answer(status: HTTPStatus, body: Json, headers: dict[str, str] | None = None) -> Response[str]:
    """A value as JSON."""
    return Response(
        status_code=status.value,
        content_type="application/json",
        body=json.dumps(body, ensure_ascii=False),
        headers=dict(headers or {}),
    )


def header(router: BaseRouter, name: str) -> str | None:
    """A header of the request that is being answered."""
    value: str | None = router.current_event.headers.get(name)
    return value


def version_wanted(router: BaseRouter) -> int | None:
    """The version that a run must still be at (``If-Match``); None where the caller does not mind.

    Raises: VersionMismatch for a tag that this API gives for no run.
    """
    given = header(router, "if-match")
    if given is None or given.strip() == "*":
        return None
    named = versions_in(given)
    if not named:
        raise VersionMismatch(given[:100], None)
    return max(named)  # versions grow: of several that a caller has seen, the others are over


def done(
    app: App, result: RunResult[Any], also: list[str], *, waited: bool, location: str | None = None
) -> Response[str]:
    """202 for what is under way, 200 for what was waited for and has got somewhere, or had been asked before."""
    headers = {"Location": location} if location else {}
    if result.replayed:
        headers["Idempotent-Replayed"] = "true"
    is_there = waited and result.status not in _MOVING
    status = HTTPStatus.OK if is_there or result.replayed else HTTPStatus.ACCEPTED
    return answer(status, shown(app, result, also), headers)


def shown(app: App, result: RunResult[Any], also: Iterable[str] = ()) -> dict[str, Json]:
    """A run as the API shows it."""
    return run_json(result, plain_output(app, result.workflow_id, result.status, result.output), also=also)


def plain_output(app: App, workflow: str, status: str, output: Any) -> Json:
    """What a run gave, as it is stored."""
    served = app.workflows.get(workflow)
    if status != "success":
        return None
    if served is None:
        return output
    try:
        return served.compiled.gives.encode(output)
    except ValidationError:  # a deploy has changed its type since; the output is plain then
        return output
