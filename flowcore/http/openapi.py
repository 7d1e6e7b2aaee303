"""The OpenAPI document of the API: drawn from its routes, finished with what those cannot say of themselves.

Powertools knows paths, parameters and bodies. What is answered, which problems there are and who may call stands in
tables here and in ``access``; a test asks every route whether it keeps to the document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from flowcore import errors
from flowcore.http import grammar, problems, shapes
from flowcore.http.access import NEEDED, PUBLIC
from flowcore.model import Json

Document = dict[str, Any]

_REF = "#/components/schemas/{model}"
_RUN: Mapping[int, type[BaseModel]] = {200: shapes.RunShown, 202: shapes.RunShown}

ANSWERS: Mapping[str, Mapping[int, type[BaseModel] | None]] = {
    "GET /healthz": {200: shapes.Healthy},
    "GET /v1/workflows": {200: shapes.PageShown[shapes.WorkflowShown]},
    "GET /v1/workflows/{workflow}": {200: shapes.WorkflowShown},
    "GET /v1/workflows/{workflow}/graph": {200: None},
    "POST /v1/workflows/{workflow}/runs": _RUN,
    "GET /v1/runs": {200: shapes.PageShown[shapes.SummaryShown]},
    "GET /v1/counts": {200: shapes.CountsShown},
    "GET /v1/doctor": {200: shapes.PageShown[shapes.FindingShown]},
    "GET /v1/runs/{run_id}": {200: shapes.RunShown},
    "DELETE /v1/runs/{run_id}": {204: None},
    "GET /v1/runs/{run_id}/graph": {200: None},
    "GET /v1/runs/{run_id}/events": {200: shapes.EventsShown},
    "GET /v1/runs/{run_id}/receipts": {200: shapes.PageShown[shapes.ReceiptShown]},
    "POST /v1/runs/{run_id}/resume": _RUN,
    "POST /v1/runs/{run_id}/delegate": {200: shapes.RunShown},
    "POST /v1/runs/{run_id}/cancel": {200: shapes.RunShown},
    "POST /v1/runs/{run_id}/redrive": _RUN,
    "POST /v1/runs/{run_id}/unblock": _RUN,
    "POST /v1/runs/{run_id}/restart": _RUN,
    "POST /v1/runs/{run_id}/pause": {200: shapes.RunShown},
    "POST /v1/runs/{run_id}/unpause": _RUN,
    "POST /v1/runs/{run_id}/time-travel": _RUN,
    "POST /v1/runs/{run_id}/fork": _RUN,
    "GET /v1/waits": {200: shapes.PageShown[shapes.InboxWait]},
    "GET /v1/waits/{wait_id}": {200: shapes.AskedWait},
    "POST /v1/waits/{wait_id}/answer": _RUN,
    "POST /v1/events": {200: shapes.EventReceiptShown, 202: shapes.EventReceiptShown},
    "GET /v1/hooks/{name}/deliveries": {200: shapes.PageShown[shapes.DeliveryShown]},
    "POST /v1/hooks/{name}/deliveries/{id}/replay": {200: shapes.DeliveryShown},
}
"""What each route answers when it has done what was asked; None: no JSON."""

_GROUPS: Mapping[str, str] = {
    "workflows": "What is served: definitions, their schemas and drawings.",
    "runs": "Started, looked at, answered, stopped.",
    "waits": "The inbox: open suspensions of all runs.",
    "events": "What has happened elsewhere, for whoever waits for it.",
    "hooks": "The log of what has come through webhooks.",
    "operations": "For whoever keeps this running.",
}
"""Part of a path to what its operations have in common; the others are about operations."""

_HEADERS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "POST /v1/workflows/{workflow}/runs": (
        ("Idempotency-Key", "The same key is the same run."),
        ("Prefer", "`wait=10`: answer with the result if it comes within so many seconds, 25 at most."),
        ("traceparent", "The trace that the run belongs to (W3C Trace Context)."),
    ),
    "POST /v1/runs/{run_id}/resume": (
        ("Idempotency-Key", "A repeated answer with the same key and data is told the first one's receipt."),
        ("Prefer", "`wait=10`: answer with the result if it comes within so many seconds, 25 at most."),
        ("If-Match", "The ETag of the run that the caller has seen; if it has moved since, nothing happens."),
    ),
    "POST /v1/waits/{wait_id}/answer": (
        ("Idempotency-Key", "A repeated answer with the same key and data is told the first one's receipt."),
        ("Prefer", "`wait=10`: answer with the result if it comes within so many seconds, 25 at most."),
        ("If-Match", "The ETag of the run that the caller has seen; if it has moved since, nothing happens."),
    ),
    "POST /v1/events": (("Idempotency-Key", "A second event of the same key is the same event."),),
}

_OF_ONE_BODY: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "EventBody": {"name": grammar.EVENT},
    **{name: {} for name in ("StartBody", "ResumeBody", "StartIfAbsent", "DelegateBody", "TravelBody", "ForkBody")},
}

_NEXT: Mapping[str, tuple[str, ...]] = {
    "run_id": ("get_run", "resume_run", "cancel_run", "list_events", "list_receipts", "draw_run"),
    "wait_id": ("get_wait", "answer_wait"),
    "workflow": ("get_workflow", "start_run"),
}
"""Variable of a path to what can be asked next of what an answer names."""
_SHOWS: Mapping[str, tuple[str, str]] = {
    "RunShown": ("run_id", "/run_id"),
    "AskedWait": ("wait_id", "/id"),
    "PageShown_InboxWait": ("wait_id", "/items/0/id"),
    "PageShown_SummaryShown": ("run_id", "/items/0/run_id"),
    "PageShown_WorkflowShown": ("workflow", "/items/0/id"),
}
"""Component to the variable that it fills, and from where."""


def document(resolver: APIGatewayHttpResolver, *, title: str = "flowcore") -> Document:
    """The whole document, as plain JSON."""
    drawn: Document = json.loads(
        resolver.get_openapi_json_schema(title=title, version=_version(), openapi_version="3.1.0")
    )
    schemas = drawn.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ResponseValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas.update(_schemas())
    drawn["components"]["securitySchemes"] = {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "A JWT, where the deployment asks for one; its scopes are `flowcore:<scope>`.",
        }
    }
    for path, operations in drawn["paths"].items():
        for method, operation in operations.items():
            _finish(f"{method.upper()} {path}", operation)
    drawn["paths"] = {path: drawn["paths"][path] for path in _in_order(drawn["paths"])}
    drawn["tags"] = [{"name": name, "description": told} for name, told in _GROUPS.items()]
    grammar.tightened(drawn, _OF_ONE_BODY)
    return drawn


def problem_types() -> Mapping[str, int]:
    """Every type of problem that the API tells, with its status."""
    told = {error.code: problems.status_of(error) for error in _errors(errors.FlowcoreError)}
    ours = {code: status.value for code, status in told.items() if status is not HTTPStatus.INTERNAL_SERVER_ERROR}
    return {**ours, **problems.OTHERS}


def _in_order(paths: Mapping[str, Any]) -> list[str]:
    """The paths as ``ANSWERS`` has them; how they were registered tells a reader nothing."""
    order = {path: number for number, path in reversed(list(enumerate(key.split(" ")[1] for key in ANSWERS)))}
    return sorted(paths, key=order.__getitem__)


def _group(key: str) -> str:
    """``POST /v1/workflows/{workflow}/runs`` is about runs, ``GET /v1/runs/{run_id}/events`` as well."""
    if key == "POST /v1/workflows/{workflow}/runs":
        return "runs"
    found = re.match(r"\w+ /v1/(\w+)", key)
    return found[1] if found is not None and found[1] in _GROUPS else "operations"


def _finish(key: str, operation: Document) -> None:
    operation["operationId"] = re.sub(r"_v1_.*|_healthz.*", "", operation["operationId"])
    operation["tags"] = [_group(key)]
    operation["summary"] = operation["operationId"].replace("_", " ")
    operation["parameters"] = [*operation.get("parameters", ()), *_headers(key)]
    operation["responses"] = {
        **{str(status): _success(key, status, model) for status, model in ANSWERS[key].items()},
        "default": {
            "description": "A problem: see its type.",
            "content": {"application/problem+json": {"schema": {"$ref": _REF.format(model="Problem")}}},
        },
    }
    if key.startswith("GET /v1/"):
        operation["responses"]["304"] = {"description": "What the caller has is what there is."}
    if key not in PUBLIC:
        scope = NEEDED.get(re.sub(r"\{(run|wait)_id\}", r"{\1}", key), "admin")
        operation["security"] = [{"token": [f"flowcore:{scope}"]}]


def _headers(key: str) -> Iterator[Document]:
    for name, told in _HEADERS.get(key, ()):
        rules = grammar.RUN_ID if (key, name) == ("POST /v1/events", "Idempotency-Key") else grammar.HEADERS[name]
        schema = {"type": "string", **rules}
        yield {"name": name, "in": "header", "required": False, "schema": schema, "description": told}


def _success(key: str, status: int, model: type[BaseModel] | None) -> Document:
    told: Document = {"description": {202: "Under way.", 204: "Gone."}.get(status, "Done.")}
    if key.endswith("/graph"):
        told["content"] = {
            "application/json": {"schema": {"type": "object"}},
            "text/vnd.mermaid": {"schema": {"type": "string"}},
            "image/svg+xml": {"schema": {"type": "string"}},
        }
    elif model is not None:
        told["content"] = {"application/json": {"schema": {"$ref": _REF.format(model=_name(model))}}}
        if (shows := _SHOWS.get(_name(model))) is not None:
            told["links"] = _links(*shows)
    return told


def _links(variable: str, pointer: str) -> Document:
    """What can be asked next of what an answer shows."""
    filled = {variable: f"$response.body#{pointer}"}
    return {name: {"operationId": name, "parameters": filled} for name in _NEXT[variable]}


def _schemas() -> Mapping[str, Json]:
    models = {model for answers in ANSWERS.values() for model in answers.values() if model is not None}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, drawn = models_json_schema([(model, "serialization") for model in ordered], ref_template=_REF)
    found = {_plain(name): schema for name, schema in drawn["$defs"].items()}
    text = re.sub(r'(#/components/schemas/)([^"]+)', lambda match: match[1] + _plain(match[2]), json.dumps(found))
    schemas: dict[str, Json] = json.loads(text)
    schemas["Problem"] = {
        **shapes.ProblemShown.model_json_schema(),
        "title": "Problem",
        "description": _told_of_problems(),
    }
    schemas["Problem"]["properties"]["type"]["enum"] = [f"{problems.TYPE_PREFIX}{code}" for code in problem_types()]
    return schemas


def _told_of_problems() -> str:
    lines = [f"- `{code}` ({status})" for code, status in sorted(problem_types().items(), key=lambda one: one[::-1])]
    return f"{shapes.ProblemShown.__doc__}\n\nTypes, each behind `{problems.TYPE_PREFIX}`:\n\n" + "\n".join(lines)


def _errors(root: type[errors.FlowcoreError]) -> Iterator[type[errors.FlowcoreError]]:
    for kind in root.__subclasses__():
        if kind.__module__.startswith("flowcore."):
            yield kind
            yield from _errors(kind)


def _name(model: type[BaseModel]) -> str:
    return _plain(model.__name__)


def _plain(name: str) -> str:
    """A component's name, which may hold no brackets: ``PageShown[RunShown]`` is ``PageShown_RunShown``."""
    return re.sub(r"\W+", "_", name).strip("_")


def _version() -> str:
    try:
        return version("flowcore")
    except PackageNotFoundError:  # staged without its metadata
        return "0"
