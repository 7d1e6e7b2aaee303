"""What the routes take and give: request bodies as models, runs as plain JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from flowcore.app import ServedWorkflow
from flowcore.arrivals import LONGEST_KEEP
from flowcore.authoring.workflow import Workflow
from flowcore.core.events import Event, failure_json
from flowcore.core.health import Finding
from flowcore.core.view import Progress, StepResult
from flowcore.delivery_log import Delivery
from flowcore.errors import MalformedRequest
from flowcore.fields import FIELDS
from flowcore.model import EventReceipt, Json, Page, Receipt, RunSummary, Wait
from flowcore.results import RunResult

_Kept = Annotated[int, Field(ge=1, le=int(LONGEST_KEEP.total_seconds()))]
"""Seconds."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StartBody(_Body):
    """Start a run."""

    input: Any = None
    run_id: str | None = None
    resource_id: str | None = None
    state: dict[str, Any] | None = None
    request_context: dict[str, Any] | None = None
    tags: list[str] = []
    tracing: dict[str, Any] | None = None
    """As ``flowcore.tracing.Tracing``; where it names no trace, a ``traceparent`` header does."""
    include_state: bool = False
    include_resume_labels: bool = False


class ResumeBody(_Body):
    """Answer a suspension; at most one of ``wait``, ``step`` and ``label`` says which."""

    data: Any = None
    wait: str | None = None
    step: str | list[str] | None = None
    label: str | None = None
    index: int | None = None
    request_context: dict[str, Any] | None = None
    retry_count: int | None = None
    tracing: dict[str, Any] | None = None
    keep: _Kept | None = Field(
        default=None, description="Seconds that the answer is kept for where `step` does not ask yet."
    )
    include_state: bool = False
    include_resume_labels: bool = False


class StartIfAbsent(_Body):
    """The run that an event starts; without ``run_id`` one for each name and key."""

    workflow: str
    input: Any = None
    run_id: str | None = None
    resource_id: str | None = None
    tags: list[str] = []
    state: dict[str, Any] | None = None
    request_context: dict[str, Any] | None = None


class DelegateBody(_Body):
    """Hand the caller's vote to somebody else; at most one of ``wait``, ``step`` and ``label`` says in which wait."""

    to: str
    wait: str | None = None
    step: str | list[str] | None = None
    label: str | None = None
    index: int | None = None


class AnswerBody(_Body):
    """Answer one wait."""

    data: Any = None


class TravelBody(_Body):
    """Begin a run anew at a step."""

    step: str | list[str]
    input: Any = None
    context: dict[str, Any] | None = None


class ForkBody(TravelBody):
    """Begin another run at a step, with what this one has done before it."""

    run_id: str | None = None


class EventBody(_Body):
    """Tell whoever waits for it that something has happened."""

    name: str
    key: str
    data: Any = None
    keep: _Kept | None = Field(
        default=None, description="Seconds that the event waits for somebody; 7 days when left out."
    )
    start_if_absent: StartIfAbsent | None = None
    """The run to start when nobody waits and there is none of its id."""


_MOST_DIGITS = 9
"""Of the number of a receipt."""

SHOWN = tuple(name for name in FIELDS if name not in ("state", "request_context", "resume_labels", "blocked"))
"""What the API shows of a run unless told otherwise; ``blocked`` where there is something to tell."""


def run_json(result: RunResult[Any], output: Json, *, also: Iterable[str] = ()) -> dict[str, Json]:
    """A run as the API shows it.

    Args:
        output: the stored, plain form of the result.
        also: fields to show besides ``SHOWN``.
    """
    values = {name: getattr(result, name) for name in (*SHOWN, *also)}
    body = fields_json({**values, "output": output})
    if result.blocked is not None:
        body["blocked"] = result.blocked
    if result.receipt is not None:
        body["receipt"] = receipt_json(result.receipt)
    return body


def fields_json(values: Mapping[str, Any]) -> dict[str, Json]:
    """Some fields of a run as the API shows them; the output is plain already."""
    return {name: _FORMS[name](value) if name in _FORMS else value for name, value in values.items()}


def page_json(page: Page[RunSummary]) -> dict[str, Json]:
    """A listing as the API shows it."""
    items = [
        {
            "run_id": summary.run_id,
            "workflow_id": summary.workflow_id,
            "status": summary.status,
            "resource_id": summary.resource_id,
            "tags": list(summary.tags),
            "created_at": _instant(summary.created_at),
            "waiting_since": _instant(summary.waiting_since),
            "deadline": _instant(summary.deadline),
        }
        for summary in page
    ]
    return {"items": items, "cursor": page.cursor}


def findings_json(page: Page[Finding]) -> dict[str, Json]:
    """What is wrong with the runs that were looked at."""
    items = [
        {
            "run_id": finding.run_id,
            "workflow_id": finding.workflow_id,
            "ailment": finding.ailment,
            "detail": finding.detail,
        }
        for finding in page
    ]
    return {"items": items, "cursor": page.cursor}


def event_json(event: Event) -> dict[str, Json]:
    """One event of a run as the API shows it."""
    return {
        "offset": event.offset,
        "type": event.type,
        "at": _instant(event.at),
        "step": event.step,
        "data": event.data,
    }


def first_of(events: Sequence[Event], limit: int | None) -> Sequence[Event]:
    """The first ``limit`` events, and those of the last one's offset: ``after`` goes on beyond an offset as a whole."""
    if limit is None or limit >= len(events):
        return events
    last = events[limit - 1].offset
    return [event for event in events if event.offset <= last]


def workflow_json(served: ServedWorkflow[Any, Any]) -> dict[str, Json]:
    """A workflow with the JSON Schemas of its doors."""
    graph = served.workflow.compiled
    return {
        "id": graph.id,
        "description": graph.description,
        "fingerprint": graph.fingerprint,
        "input_schema": graph.takes.schema(),
        "output_schema": graph.gives.schema(),
        "steps": list(graph.by_id),
    }


def graph_json(workflow: Workflow[Any, Any], run: RunResult[Any] | None) -> dict[str, Json]:
    """A workflow's nodes with the schemas of their doors; of a run also the status of each step by dotted id."""
    graph = workflow.graph(schemas=True)
    if run is None:
        return graph
    statuses = {id: step.status for id, step in run.steps.items()}
    return {
        "run_id": run.run_id,
        "workflow_id": run.workflow_id,
        "status": run.status,
        "steps": statuses,
        "graph": graph,
    }


def wait_json(wait: Wait[Json]) -> dict[str, Json]:
    """An open suspension as the API shows it."""
    return {
        "id": wait.id,
        "path": wait.path,
        "label": wait.label,
        "index": wait.index,
        "payload": wait.payload,
        "deadline": _instant(wait.deadline),
        "since": _instant(wait.since),
        "approvers": list(wait.approvers),
        "quorum": wait.quorum,
        "answered_by": list(wait.answered_by),
        "delegated": dict(wait.delegated),
        "escalates": [{"at": _instant(at), "approvers": list(names)} for at, names in wait.escalates],
        "allow_self": wait.allow_self,
    }


def event_receipt_json(receipt: EventReceipt) -> dict[str, Json]:
    """What became of an event."""
    return {
        "event_id": receipt.event_id,
        "verdict": receipt.verdict,
        "run_id": receipt.run_id,
        "wait": receipt.wait,
    }


def delivery_json(delivery: Delivery) -> dict[str, Json]:
    """One line of the log of a webhook."""
    return {
        "id": delivery.id,
        "delivery_id": delivery.delivery_id,
        "at": _instant(delivery.at),
        "verdict": delivery.verdict,
        "reason": delivery.reason,
        "event": delivery.event,
        "key": delivery.key,
        "run_id": delivery.run_id,
        "wait": delivery.wait,
    }


def receipt_json(receipt: Receipt) -> dict[str, Json]:
    """The proof of what became of an answer."""
    return {
        "verdict": receipt.verdict,
        "wait": receipt.wait,
        "step": receipt.step,
        "at": _instant(receipt.at),
        "by": receipt.by,
        "via": receipt.via,
        "idempotency_key": receipt.idempotency_key,
        "reason": receipt.reason,
        "errors": [dict(row) for row in receipt.errors],
        "winner": receipt.winner,
        "on_behalf_of": receipt.on_behalf_of,
        "to": receipt.to,
        "times": receipt.times,
        "last_at": _instant(receipt.last_at),
    }


def receipts_json(receipts: Page[Receipt]) -> dict[str, Json]:
    """A part of a run's receipts."""
    return {"items": [receipt_json(receipt) for receipt in receipts], "cursor": receipts.cursor}


def part_of(receipts: Sequence[Receipt], limit: int, cursor: str | None) -> Page[Receipt]:
    """The receipts behind a position; they grow only at their end. Raises: MalformedRequest for no position."""
    if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) <= _MOST_DIGITS):
        raise MalformedRequest("This cursor was not given by this listing; leave it out to begin anew.")
    first = int(cursor or 0)
    return Page(list(receipts[first : first + limit]), str(first + limit) if first + limit < len(receipts) else None)


def _step(step: StepResult) -> dict[str, Json]:
    return {
        "status": step.status,
        "input": step.input,
        "output": step.output,
        "error": failure_json(step.error),
        "suspend_payload": step.suspend_payload,
        "resume_data": step.resume_data,
        "started_at": _instant(step.started_at),
        "ended_at": _instant(step.ended_at),
        "attempts": step.attempts,
        "iteration": step.iteration,
        "wake_at": _instant(step.wake_at),
    }


def _progress(progress: Mapping[str, Progress]) -> dict[str, Json]:
    return {id: asdict(far) for id, far in progress.items()}


def _instant(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_FORMS: Mapping[str, Callable[[Any], Json]] = {
    "error": failure_json,
    "waits": lambda waits: [wait_json(wait) for wait in waits],
    "steps": lambda steps: {id: _step(step) for id, step in steps.items()},
    "progress": _progress,
    "state": dict,
    "request_context": dict,
    "created_at": _instant,
    "updated_at": _instant,
}
"""How a field that is not plain JSON already is written."""
