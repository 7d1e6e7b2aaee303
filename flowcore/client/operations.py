"""Everything that the API does, each as a function that says what is to be asked. Sends nothing.

Names and arguments are those of ``App`` and ``Run``: who knows these knows the client.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from flowcore.client import answers
from flowcore.client.answers import AskedWait, DeliveryLine, InboxWait, WorkflowInfo
from flowcore.client.call import NOTHING, Call, given, plain
from flowcore.core.events import Event
from flowcore.core.health import Finding
from flowcore.errors import MalformedRequest
from flowcore.fields import RunFields
from flowcore.model import EventReceipt, Json, Page, PublicStatus, Receipt, RunSummary
from flowcore.results import RunResult
from flowcore.starting import Start
from flowcore.tracing import Tracing

Drawing = Literal["mermaid", "svg"]
StepName = str | Sequence[str]
"""A dotted id, or the ids one by one."""


# -- workflows --------------------------------------------------------------------------------------------------------


def workflows() -> Call[list[WorkflowInfo]]:
    """All workflows that are served."""
    return Call(route="GET /v1/workflows", read=answers.workflows)


def workflow(id: str) -> Call[WorkflowInfo]:
    """One workflow. Raises: WorkflowNotFound."""
    return Call(route="GET /v1/workflows/{workflow}", names={"workflow": id}, read=answers.workflow)


def workflow_graph(id: str) -> Call[dict[str, Json]]:
    """A workflow's nodes, with the schemas of what they take and give. Raises: WorkflowNotFound."""
    return Call(route="GET /v1/workflows/{workflow}/graph", names={"workflow": id}, read=answers.document)


def draw_workflow(id: str, format: Drawing = "mermaid") -> Call[str]:
    """A drawing of a workflow. Raises: WorkflowNotFound."""
    names, query = {"workflow": id}, {"format": format}
    return Call(route="GET /v1/workflows/{workflow}/graph", names=names, query=query, read=answers.text)


# -- runs are read ----------------------------------------------------------------------------------------------------


def get_run(run_id: str, *, include_state: bool = False) -> Call[RunResult[Any]]:
    """The run as it stands; sent again only where it has changed since this client last had it. Raises: RunNotFound.

    Args:
        include_state: ``state`` as well, which is empty otherwise; so is ``request_context``, see ``get_fields``.
    """
    query = {"include_state": True if include_state else None}
    return Call(route="GET /v1/runs/{run}", names={"run": run_id}, query=query, read=answers.run)


def get_fields(run_id: str, fields: Iterable[str]) -> Call[RunFields]:
    """Some fields of a run, named as in ``RunResult``; no more of it is read. Raises: RunNotFound, UnknownField."""
    query = {"fields": ",".join([fields] if isinstance(fields, str) else fields)}
    return Call(route="GET /v1/runs/{run}", names={"run": run_id}, query=query, read=answers.some_fields(run_id))


def run_graph(run_id: str) -> Call[dict[str, Json]]:
    """The nodes of a run's workflow with the status of each of its steps. Raises: RunNotFound, WorkflowNotFound."""
    return Call(route="GET /v1/runs/{run}/graph", names={"run": run_id}, read=answers.document)


def draw_run(run_id: str, format: Drawing = "mermaid") -> Call[str]:
    """A drawing of how far a run is. Raises: RunNotFound, WorkflowNotFound."""
    names, query = {"run": run_id}, {"format": format}
    return Call(route="GET /v1/runs/{run}/graph", names=names, query=query, read=answers.text)


def events(run_id: str, after: int = 0) -> Call[list[Event]]:
    """What has happened to a run beyond the offset ``after``, in order. Raises: RunNotFound.

    What items of a distributed foreach have done comes in no order of offsets: ask from 0, or ``follow``.
    """
    return Call(route="GET /v1/runs/{run}/events", names={"run": run_id}, query={"after": after}, read=answers.events)


def receipts(run_id: str, *, limit: int | None = None, cursor: str | None = None) -> Call[Page[Receipt]]:
    """What became of each answer that has come for a run, the newest last. Raises: RunNotFound."""
    query = {"limit": limit, "cursor": cursor}
    return Call(route="GET /v1/runs/{run}/receipts", names={"run": run_id}, query=query, read=answers.receipts)


def list_runs(
    *,
    workflow: str | None = None,
    status: PublicStatus | Sequence[PublicStatus] | None = None,
    resource_id: str | None = None,
    tag: str | Sequence[str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[Page[RunSummary]]:
    """Runs, the newest first.

    Args:
        status: one of these.
        tag: all of these.
        since, until: created from then, until then.
        limit: of one page; 100 at most.
    """
    query = _found(workflow, resource_id, tag, since, until) | {"status": status, "limit": limit, "cursor": cursor}
    return Call(route="GET /v1/runs", query=query, read=answers.summaries)


def counts(
    *,
    workflow: str | None = None,
    resource_id: str | None = None,
    tag: str | Sequence[str] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Call[dict[PublicStatus, int]]:
    """How many runs there are in each status; arguments as for ``list_runs``."""
    return Call(route="GET /v1/counts", query=_found(workflow, resource_id, tag, since, until), read=answers.counts)


def doctor(*, workflow: str | None = None, limit: int | None = None, cursor: str | None = None) -> Call[Page[Finding]]:
    """What is wrong with the runs that are open."""
    query = {"workflow": workflow, "limit": limit, "cursor": cursor}
    return Call(route="GET /v1/doctor", query=query, read=answers.findings)


# -- runs move --------------------------------------------------------------------------------------------------------


def start(
    workflow: str,
    input: Any = None,
    *,
    run_id: str | None = None,
    resource_id: str | None = None,
    tags: Sequence[str] = (),
    state: Mapping[str, Any] | None = None,
    request_context: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
    tracing: Tracing | None = None,
    wait: timedelta | None = None,
) -> Call[RunResult[Any]]:
    """Start a run.

    Args:
        input: plain JSON, or a model or the like that becomes it.
        idempotency_key: the same key is the same run; with one, a request that got no answer is sent again.
        wait: for the result, 25 seconds at most; left out, the run is handed to a worker and returned as it stands.
    Raises: WorkflowNotFound, InvalidPayload, RunExists, IdempotencyKeyReused, PayloadTooLarge,
        MalformedRequest for a key that no header can hold.
    """
    body = given(run_id=run_id, resource_id=resource_id, state=state, request_context=request_context, tracing=tracing)
    return Call(
        route="POST /v1/workflows/{workflow}/runs",
        names={"workflow": workflow, "run": run_id or ""},
        headers={"idempotency-key": _sendable("idempotency_key", idempotency_key), "prefer": _prefer(wait)},
        body=plain(f"start of {workflow!r}", {"input": input, "tags": list(tags), **body}),
        read=answers.run,
    )


def resume(
    run_id: str,
    data: Any = None,
    *,
    step: StepName | None = None,
    label: str | None = None,
    wait: str | None = None,
    index: int | None = None,
    idempotency_key: str | None = None,
    version: int | None = None,
    request_context: Mapping[str, Any] | None = None,
    retry_count: int | None = None,
    tracing: Tracing | None = None,
    keep: timedelta | None = None,
    drive: timedelta | None = None,
) -> Call[RunResult[Any]]:
    """Answer a suspension; ``receipt`` of the result is the proof.

    Args:
        step, label, wait, index: which one, as for ``Run.resume``; left out: the only one that is open.
        idempotency_key: a repeated answer is told the first one's receipt; with one, a request that got no answer is
            sent again.
        version: ``RunResult.version`` that you have seen; if the run has moved since, nothing happens.
        keep: where ``step`` waits for nobody yet, keep the answer for so long, whole seconds, 365 days at most;
            ``receipt`` says ``buffered`` then.
        drive: wait for what comes of it, 25 seconds at most.
    Raises: RunNotFound, InvalidPayload, AlreadyResumed, NotSuspended, RunFinished, AmbiguousWait, UnknownStep,
        UnknownLabel, IndexOutOfRange, NotAnApprover, WaitExpired, VersionMismatch, IdempotencyKeyReused,
        DefinitionChanged.
    """
    body = given(
        step=step,
        label=label,
        wait=wait,
        index=index,
        request_context=request_context,
        retry_count=retry_count,
        tracing=tracing,
        keep=_seconds(keep),
    )
    return Call(
        route="POST /v1/runs/{run}/resume",
        names={"run": run_id},
        headers=_answering(idempotency_key, version, drive),
        body=plain("resume data", {"data": data, **body}),
        read=answers.run,
    )


def delegate(
    run_id: str,
    to: str,
    *,
    step: StepName | None = None,
    label: str | None = None,
    wait: str | None = None,
    index: int | None = None,
) -> Call[RunResult[Any]]:
    """Hand your vote to somebody else. Raises: as ``resume``, and CannotDelegate."""
    body = given(to=to, step=step, label=label, wait=wait, index=index)
    return _changed("delegate", run_id, plain("delegation", body))


def cancel(run_id: str) -> Call[RunResult[Any]]:
    """Stop a run for good; an ended one keeps its status. Raises: RunNotFound."""
    return _changed("cancel", run_id)


def redrive(run_id: str) -> Call[RunResult[Any]]:
    """Have a failed run go on from what has failed. Raises: RunNotFound, NotFailed, DefinitionChanged."""
    return _changed("redrive", run_id)


def unblock(run_id: str) -> Call[RunResult[Any]]:
    """Have a run judged anew that the code at hand did not fit. Raises: RunNotFound, NotBlocked."""
    return _changed("unblock", run_id)


def restart(run_id: str) -> Call[RunResult[Any]]:
    """Have a run driven anew whose worker is dead. Raises: RunNotFound, NotActive, StillRunning."""
    return _changed("restart", run_id)


def pause(run_id: str) -> Call[RunResult[Any]]:
    """Have a run stand still after what it does just now. Raises: RunNotFound, NotActive."""
    return _changed("pause", run_id)


def unpause(run_id: str) -> Call[RunResult[Any]]:
    """Have a paused run go on. Raises: RunNotFound, NotActive."""
    return _changed("unpause", run_id)


def time_travel(
    run_id: str, step: StepName, *, input: Any = NOTHING, context: Mapping[str, Any] | None = None
) -> Call[RunResult[Any]]:
    """Begin a run anew at ``step``; arguments as for ``Run.time_travel``.

    Raises: RunNotFound, StillRunning, UnknownStep, NotRecorded, InvalidPayload, DefinitionChanged, ConflictError.
    """
    return _changed("time-travel", run_id, plain("input", _beginning(step, input, context=context)))


def fork(
    run_id: str,
    step: StepName,
    *,
    new_id: str | None = None,
    input: Any = NOTHING,
    context: Mapping[str, Any] | None = None,
) -> Call[RunResult[Any]]:
    """Begin another run, ``new_id``, at ``step`` with what this one has done before it.

    Raises: RunNotFound, RunExists, UnknownStep, NotRecorded, InvalidPayload, DefinitionChanged.
    """
    return _changed("fork", run_id, plain("input", _beginning(step, input, context=context, run_id=new_id)))


def delete(run_id: str) -> Call[None]:
    """Remove a run and all it holds; one under way is canceled first. Raises: RunNotFound."""
    return Call(route="DELETE /v1/runs/{run}", names={"run": run_id}, read=answers.nothing)


# -- what waits, and what has happened elsewhere ----------------------------------------------------------------------


def waits(
    *,
    workflow: str | None = None,
    resource_id: str | None = None,
    tag: str | Sequence[str] | None = None,
    label: str | None = None,
    assignee: str | None = None,
    due_before: datetime | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[Page[InboxWait]]:
    """The inbox: open suspensions of all runs.

    Args:
        assignee: those that this person may answer by now, and has not answered yet.
        due_before: those whose deadline is before.
        limit: of one page; 100 at most. A page may show fewer, or none, and not be the last.
    """
    found = _found(workflow, resource_id, tag, None, None)
    query = found | {"label": label, "assignee": assignee, "due_before": due_before, "limit": limit, "cursor": cursor}
    return Call(route="GET /v1/waits", query=query, read=answers.inbox)


def get_wait(id: str) -> Call[AskedWait]:
    """One wait of the inbox, with the JSON Schema of its answer. Raises: RunNotFound, AlreadyResumed, NotSuspended."""
    return Call(route="GET /v1/waits/{wait}", names={"wait": id}, read=answers.asked_wait)


def answer(
    id: str,
    data: Any = None,
    *,
    idempotency_key: str | None = None,
    version: int | None = None,
    drive: timedelta | None = None,
) -> Call[RunResult[Any]]:
    """Answer a wait of the inbox. Arguments and errors as for ``resume``."""
    return Call(
        route="POST /v1/waits/{wait}/answer",
        names={"wait": id},
        headers=_answering(idempotency_key, version, drive),
        body=plain("resume data", {"data": data}),
        read=answers.run,
    )


def callback(url: str, data: Any = None, *, idempotency_key: str | None = None) -> Call[Receipt]:
    """Answer over a callback address (``wait.callback_url()``): it says by itself who may, so no token is sent there.

    Args:
        idempotency_key: as for ``resume``.
    Raises: LinkUnknown, LinkExpired, InvalidPayload, AlreadyResumed, WaitExpired, NotSuspended, RunFinished;
        IdempotencyKeyReused.
    """
    return Call(
        route="POST /cb/{token}",
        url=url,
        headers={"idempotency-key": _sendable("idempotency_key", idempotency_key)},
        body=plain("resume data", data),
        read=answers.called_back,
    )


def send_event(
    name: str,
    key: str,
    data: Any = None,
    *,
    event_id: str | None = None,
    keep: timedelta | None = None,
    start_if_absent: Start[Any] | None = None,
) -> Call[EventReceipt]:
    """Tell whoever waits for it, now or later, that something has happened.

    Args:
        event_id: a second event of the same id is the same event; with one, a request that got no answer is sent again.
        keep: how long the event waits for somebody, whole seconds, 365 days at most; left out: 7 days.
        start_if_absent: the run to start where nobody waits and there is none; its workflow by id.
    Raises: MalformedRequest, InvalidPayload, IdempotencyKeyReused; WorkflowNotFound.
    """
    more = given(keep=_seconds(keep), start_if_absent=_absent(start_if_absent))
    body = {"name": name, "key": key, "data": data, **more}
    return Call(
        route="POST /v1/events",
        names={"workflow": str(more["start_if_absent"]["workflow"])} if "start_if_absent" in more else {},
        headers={"idempotency-key": _sendable("event_id", event_id)},
        body=plain("data of the event", body),
        read=answers.event_receipt,
    )


def list_deliveries(hook: str, *, limit: int | None = None, cursor: str | None = None) -> Call[Page[DeliveryLine]]:
    """The log of a webhook, the newest first. Raises: WebhookNotFound."""
    query = {"limit": limit, "cursor": cursor}
    return Call(route="GET /v1/hooks/{name}/deliveries", names={"name": hook}, query=query, read=answers.deliveries)


def replay_delivery(hook: str, id: str) -> Call[DeliveryLine]:
    """Give a delivery in the log another chance. Raises: WebhookNotFound, DeliveryNotFound."""
    names = {"name": hook, "id": id}
    return Call(route="POST /v1/hooks/{name}/deliveries/{id}/replay", names=names, read=answers.delivery)


# -- the API itself ---------------------------------------------------------------------------------------------------


def openapi() -> Call[dict[str, Json]]:
    """The OpenAPI 3.1 document of the API."""
    return Call(route="GET /v1/openapi.json", read=answers.document)


def health() -> Call[bool]:
    """Whether the API says that it is well."""
    return Call(route="GET /healthz", read=answers.health)


# -- what several have in common --------------------------------------------------------------------------------------


def _beginning(step: StepName, input: Any, **more: Any) -> dict[str, Any]:
    """The step to begin at; an input of None is a value, and not the same as none."""
    return {"step": step, **({} if input is NOTHING else {"input": input}), **given(**more)}


def _changed(verb: str, run_id: str, body: Json = NOTHING) -> Call[RunResult[Any]]:
    return Call(route=f"POST /v1/runs/{{run}}/{verb}", names={"run": run_id}, body=body, read=answers.run)


def _found(workflow: Any, resource_id: Any, tag: Any, since: Any, until: Any) -> dict[str, Any]:
    return {"workflow": workflow, "resource_id": resource_id, "tag": tag, "since": since, "until": until}


def _answering(idempotency_key: str | None, version: int | None, drive: timedelta | None) -> dict[str, str | None]:
    seen = None if version is None else f'"v{version}-0"'
    key = _sendable("idempotency_key", idempotency_key)
    return {"idempotency-key": key, "if-match": seen, "prefer": _prefer(drive)}


def _sendable(argument: str, value: str | None) -> str | None:
    """The value, if a header can hold it as it is. Raises: MalformedRequest.

    Source: RFC 9110, section 5.5: visible ASCII, with spaces inside alone.
    """
    if value is not None and re.fullmatch("[!-~]([ -~]*[!-~])?", value) is None:
        raise MalformedRequest(f"{argument}={value!r} goes into a header, which takes printable ASCII only.")
    return value


def _prefer(wait: timedelta | None) -> str | None:
    """Source: RFC 7240, section 4.3."""
    return None if wait is None else f"wait={max(0, math.ceil(wait.total_seconds()))}"


def _seconds(keep: timedelta | None) -> int | None:
    return None if keep is None else math.ceil(keep.total_seconds())


def _absent(start: Start[Any] | None) -> dict[str, Any] | None:
    if start is None:
        return None
    workflow = start.workflow if isinstance(start.workflow, str) else start.workflow.id
    more = given(
        run_id=start.run_id, resource_id=start.resource_id, state=start.state, request_context=start.request_context
    )
    return {"workflow": workflow, "input": start.input, "tags": list(start.tags), **more}
