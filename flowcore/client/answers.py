"""The API's answers as the values that an App gives itself; small ones of our own where an App has none such.

What a newer API tells besides is left out, and words that are new are handed on: only what is missing is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypeVar

from flowcore.client.call import Reply
from flowcore.core.events import Event
from flowcore.core.health import Finding
from flowcore.core.view import Progress, StepResult
from flowcore.delivery_log import Verdict
from flowcore.fields import RunFields
from flowcore.model import EventReceipt, Json, Page, PublicStatus, Receipt, RunSummary, StepFailure, Wait
from flowcore.results import RunResult

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowInfo:
    """A workflow that is served, with the JSON Schemas of what it takes and gives."""

    id: str
    description: str
    fingerprint: str
    input_schema: Mapping[str, Json]
    output_schema: Mapping[str, Json]
    steps: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxWait:
    """An open suspension in the inbox."""

    id: str
    """Its name in the inbox: what ``get_wait`` and ``answer`` take."""
    wait: Wait[Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedWait(InboxWait):
    """An open suspension with what it takes for an answer."""

    workflow_id: str
    answer_schema: Mapping[str, Json]
    """JSON Schema: a form can be drawn from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryLine:
    """One delivery in the log of a webhook."""

    id: str
    """Of this line: what ``replay_delivery`` takes."""
    delivery_id: str
    at: datetime
    verdict: Verdict
    reason: str | None = None
    event: str | None = None
    key: str | None = None
    run_id: str | None = None
    wait: str | None = None


def run(reply: Reply) -> RunResult[Any]:
    """A whole run; its output and its inputs are plain JSON."""
    body = reply.json()
    known = {name: value for name, value in _fields(body, body["run_id"]).items() if name in _OF_A_RUN}
    return RunResult(**known, replayed=reply.headers.get("idempotent-replayed") == "true")


def some_fields(run_id: str) -> Callable[[Reply], RunFields]:
    """What reads some fields of that run."""
    return lambda reply: RunFields(_fields(reply.json(), run_id))


def _fields(body: Mapping[str, Any], run_id: str) -> dict[str, Any]:
    """The fields of a run, each as a ``RunResult`` has it."""
    forms: Mapping[str, Callable[[Any], Any]] = {
        "waits": lambda rows: [_wait(row, run_id) for row in rows],
        "steps": lambda rows: {name: _made(StepResult, row) for name, row in rows.items()},
        "progress": lambda rows: {name: _made(Progress, row) for name, row in rows.items()},
        "receipt": _receipt,
    }
    return {name: forms[name](value) if name in forms else _value(name, value) for name, value in body.items()}


def summaries(reply: Reply) -> Page[RunSummary]:
    """A page of a listing of runs."""
    return _page(reply, lambda row: _made(RunSummary, {**row, "tags": tuple(row["tags"])}))


def findings(reply: Reply) -> Page[Finding]:
    """A page of what is wrong with runs."""
    return _page(reply, lambda row: _made(Finding, row))


def receipts(reply: Reply) -> Page[Receipt]:
    """A page of a run's receipts."""
    return _page(reply, _receipt)


def inbox(reply: Reply) -> Page[InboxWait]:
    """A page of the inbox."""
    return _page(reply, lambda row: InboxWait(id=row["id"], wait=_listed(row)))


def deliveries(reply: Reply) -> Page[DeliveryLine]:
    """A page of the log of a webhook."""
    return _page(reply, lambda row: _made(DeliveryLine, row))


def delivery(reply: Reply) -> DeliveryLine:
    """One line of that log."""
    return _made(DeliveryLine, reply.json())


def workflows(reply: Reply) -> list[WorkflowInfo]:
    """All that are served."""
    return [_made(WorkflowInfo, row) for row in reply.json()["items"]]


def workflow(reply: Reply) -> WorkflowInfo:
    """One of them."""
    return _made(WorkflowInfo, reply.json())


def asked_wait(reply: Reply) -> AskedWait:
    """One wait of the inbox with the form of its answer."""
    row = reply.json()
    return AskedWait(
        id=row["id"], wait=_listed(row), workflow_id=row["workflow_id"], answer_schema=row["answer_schema"]
    )


def events(reply: Reply) -> list[Event]:
    """What has happened to a run."""
    return [_made(Event, row) for row in reply.json()["items"]]


def event_receipt(reply: Reply) -> EventReceipt:
    """What became of an event."""
    return _made(EventReceipt, reply.json())


def called_back(reply: Reply) -> Receipt:
    """What a callback address answers."""
    return _receipt(reply.json()["receipt"])


def counts(reply: Reply) -> dict[PublicStatus, int]:
    """How many runs there are, by status."""
    found: dict[PublicStatus, int] = dict(reply.json()["counts"])
    return found


def document(reply: Reply) -> dict[str, Json]:
    """Any object, as it is."""
    found: dict[str, Json] = dict(reply.json())
    return found


def text(reply: Reply) -> str:
    """A drawing."""
    return reply.text


def health(reply: Reply) -> bool:
    """Whether it says that it is well."""
    return bool(reply.json()["status"] == "ok")


def nothing(_: Reply) -> None:
    """There is nothing to read."""


def _page(reply: Reply, item: Callable[[Any], T]) -> Page[T]:
    body = reply.json()
    return Page([item(row) for row in body["items"]], body["cursor"])


def _made(kind: Callable[..., T], row: Mapping[str, Any]) -> T:
    """A value of a dataclass from a row that has its fields by name, and maybe more."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # the class of a dataclass
    return kind(**{name: _value(name, value) for name, value in row.items() if name in names})


def _value(name: str, value: Any) -> Any:
    if name in ("error", "cause"):
        return None if value is None else _made(StepFailure, value)
    return _instant(value) if name in _INSTANTS and isinstance(value, str) else value


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


_INSTANTS = frozenset(
    {
        *("at", "last_at", "since", "deadline", "wake_at", "waiting_since"),
        *("started_at", "ended_at", "created_at", "updated_at"),
    }
)
"""Fields that are written as text and are points in time."""


_OF_A_RUN = frozenset(field.name for field in fields(RunResult))


def _receipt(row: Any) -> Receipt:
    return _made(Receipt, {**row, "errors": tuple(row["errors"])})


def _listed(row: Mapping[str, Any]) -> Wait[Json]:
    """A wait in the inbox, where ``id`` is another name than in its run."""
    return _wait({**row, "id": row["wait"]}, row["run_id"])


def _wait(row: Mapping[str, Any], run_id: str) -> Wait[Json]:
    more = {
        "run_id": run_id,
        "approvers": tuple(row["approvers"]),
        "answered_by": tuple(row["answered_by"]),
        "escalates": [(_instant(rung["at"]), tuple(rung["approvers"])) for rung in row["escalates"]],
    }
    return _made(Wait, {**row, **more})
