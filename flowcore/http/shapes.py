"""What the API answers, as models: the OpenAPI document is drawn from these, and tests hold every answer to them.

Nothing is built from them at run time; the answers are made in ``bodies``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from flowcore.core.view import StepStatus
from flowcore.delivery_log import Verdict as DeliveryVerdict
from flowcore.model import PublicStatus, Verdict

T = TypeVar("T")


class Shown(BaseModel):
    """Exactly these fields."""

    model_config = ConfigDict(extra="forbid")


class Failure(Shown):
    """What a step, or a run, has failed with."""

    type: str
    message: str
    properties: dict[str, Any]
    cause: Failure | None
    step: str | None


class StepShown(Shown):
    """One step of a run."""

    status: StepStatus
    input: Any
    output: Any
    error: Failure | None
    suspend_payload: Any
    resume_data: Any
    started_at: datetime | None
    ended_at: datetime | None
    attempts: int
    iteration: int | None
    wake_at: datetime | None


class Escalation(Shown):
    """Who else may answer from when on."""

    at: datetime
    approvers: list[str]


class WaitShown(Shown):
    """One open suspension of a run; ``id`` is what ``wait`` of a resume names."""

    id: str
    path: list[str]
    label: str | None
    index: int | None
    payload: Any
    deadline: datetime | None
    since: datetime | None
    approvers: list[str]
    quorum: int
    answered_by: list[str]
    delegated: dict[str, str]
    escalates: list[Escalation]
    allow_self: bool


class InboxWait(WaitShown):
    """One open suspension in the inbox; ``id`` is its name in paths, ``wait`` its id in its run."""

    wait: str
    run_id: str


class AskedWait(InboxWait):
    """One open suspension with what it takes for an answer."""

    workflow_id: str
    answer_schema: dict[str, Any]


class ReceiptShown(Shown):
    """What became of one arrival."""

    verdict: Verdict
    wait: str | None
    step: str | None
    at: datetime
    by: str | None
    via: str
    idempotency_key: str | None
    reason: str | None
    errors: list[dict[str, Any]]
    winner: dict[str, Any] | None
    on_behalf_of: str | None
    to: str | None
    times: int
    last_at: datetime | None


class RunShown(Shown):
    """A run; with ``fields=`` only those that were asked for.

    ``left_out`` names fields that are not as they stand, where all of them would be too large to answer a change with.
    """

    run_id: str = ""
    workflow_id: str = ""
    status: PublicStatus = "pending"
    input: Any = None
    output: Any = None
    error: Failure | None = None
    suspended: list[list[str]] = []
    waits: list[WaitShown] = []
    steps: dict[str, StepShown] = {}
    progress: dict[str, dict[str, int]] = {}
    state: dict[str, Any] = {}
    request_context: dict[str, Any] = {}
    resume_labels: dict[str, list[str]] = {}
    blocked: str | None = None
    resource_id: str | None = None
    started_by: str | None = None
    canceled_by: str | None = None
    trace_id: str | None = None
    tags: list[str] = []
    receipt: ReceiptShown | None = None
    version: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None
    left_out: list[str] = []


class SummaryShown(Shown):
    """One line of a listing of runs."""

    run_id: str
    workflow_id: str
    status: PublicStatus
    resource_id: str | None
    tags: list[str]
    created_at: datetime
    waiting_since: datetime | None
    deadline: datetime | None


class WorkflowShown(Shown):
    """A workflow with the JSON Schemas of its doors."""

    id: str
    description: str
    fingerprint: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    steps: list[str]


class EventShown(Shown):
    """Something that has happened to a run."""

    offset: int
    type: str
    at: datetime
    step: str | None
    data: Any


class EventReceiptShown(Shown):
    """What became of an event."""

    event_id: str
    verdict: Literal["applied", "buffered", "started", "duplicate"]
    run_id: str | None
    wait: str | None


class DeliveryShown(Shown):
    """One line of the log of a webhook."""

    id: str
    delivery_id: str
    at: datetime
    verdict: DeliveryVerdict
    reason: str | None
    event: str | None
    key: str | None
    run_id: str | None
    wait: str | None


class FindingShown(Shown):
    """What is wrong with a run."""

    run_id: str
    workflow_id: str
    ailment: str
    detail: str


class CountsShown(Shown):
    """How many runs there are in each status."""

    counts: dict[PublicStatus, int]


class PageShown(Shown, Generic[T]):
    """A part of a listing; ``cursor`` continues it, null at the end."""

    items: list[T]
    cursor: str | None


class EventsShown(Shown):
    """What has happened to a run, in order."""

    items: list[EventShown]


class Healthy(Shown):
    """That the API answers."""

    status: Literal["ok"]


class ProblemShown(BaseModel):
    """What went wrong (RFC 9457). Some types have more fields, such as ``errors``, ``winner`` or ``waits``."""

    type: str
    title: str
    status: int
    detail: str
