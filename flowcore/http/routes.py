"""The routes of the API on a Powertools router: parse, ask the App, render. Decides nothing about runs.

The caller's identity is whatever the gateway verified; nothing in a body or a header is believed about it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any, Literal, cast

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.api_gateway import Router
from aws_lambda_powertools.event_handler.openapi.params import Query

from flowcore.app import App
from flowcore.authoring.workflow import Workflow
from flowcore.http.bodies import (
    DelegateBody,
    EventBody,
    ResumeBody,
    StartBody,
    event_json,
    event_receipt_json,
    fields_json,
    findings_json,
    first_of,
    graph_json,
    page_json,
    part_of,
    receipts_json,
    workflow_json,
)
from flowcore.http.cursors import bound, position
from flowcore.http.shown import answer, done, header, plain_output, shown, version_wanted
from flowcore.http.tags import tag_of
from flowcore.ops.doctor import doctor_page
from flowcore.results import RunResult
from flowcore.run import Run
from flowcore.starting import Start
from flowcore.tracing import Tracing, from_traceparent

LONGEST_WAIT = timedelta(seconds=25)
"""What ``Prefer: wait`` may ask for: the gateway itself gives up after 30 seconds."""

_AFTER = "Events beyond this offset alone. Items of a distributed foreach come in no such order: ask for all of them."
Picture = Literal["json", "mermaid", "svg"]
Status = Literal["pending", "running", "waiting", "suspended", "paused", "success", "failed", "canceled"]


def routes(app: App) -> Router:
    """Every route, serving ``app``."""
    router = Router()  # type: ignore[no-untyped-call]  # Powertools leaves its constructor untyped
    _about_workflows(router, app)
    _about_runs(router, app)
    _changes(router, app)
    return router


def _about_workflows(router: Router, app: App) -> None:
    @router.get("/healthz")
    def healthz() -> Response[str]:
        return answer(HTTPStatus.OK, {"status": "ok"})

    @router.get("/v1/workflows")
    def list_workflows() -> Response[str]:
        items = [workflow_json(app.workflow(id)) for id in sorted(app.workflows)]
        return answer(HTTPStatus.OK, {"items": items, "cursor": None})

    @router.get("/v1/workflows/<workflow>")
    def get_workflow(workflow: str) -> Response[str]:
        return answer(HTTPStatus.OK, workflow_json(app.workflow(workflow)))

    @router.get("/v1/workflows/<workflow>/graph")
    def draw_workflow(workflow: str, format: Picture = "json") -> Response[str]:
        return _drawn(app.workflow(workflow).workflow, format)


def _about_runs(router: Router, app: App) -> None:
    @router.get("/v1/runs")
    def list_runs(
        workflow: str | None = None,
        status: Annotated[list[Status] | None, Query()] = None,
        resource_id: str | None = None,
        tag: Annotated[list[str] | None, Query()] = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 50,
        cursor: str | None = None,
    ) -> Response[str]:
        page = app.list_runs(
            workflow=workflow,
            status=status,
            resource_id=resource_id,
            tag=tag,
            since=since,
            until=until,
            limit=limit,
            cursor=position(router, app, cursor),
        )
        return answer(HTTPStatus.OK, page_json(bound(router, app, page)))

    @router.get("/v1/counts")
    def count_runs(
        workflow: str | None = None,
        resource_id: str | None = None,
        tag: Annotated[list[str] | None, Query()] = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Response[str]:
        found = app.counts(workflow=workflow, resource_id=resource_id, tag=tag, since=since, until=until)
        return answer(HTTPStatus.OK, {"counts": found})

    @router.get("/v1/doctor")
    def find_ailing_runs(
        workflow: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 50, cursor: str | None = None
    ) -> Response[str]:
        page = doctor_page(app, workflow=workflow, limit=limit, cursor=position(router, app, cursor))
        return answer(HTTPStatus.OK, findings_json(bound(router, app, page)))

    @router.get("/v1/runs/<run_id>")
    def get_run(
        run_id: str,
        fields: Annotated[list[str] | None, Query()] = None,
        include_state: bool = False,  # noqa: FBT001, FBT002  # a query parameter
        include_resume_labels: bool = False,  # noqa: FBT001, FBT002  # as above
    ) -> Response[str]:
        if fields is not None:
            names = [name for part in fields for name in part.split(",") if name]
            return _some(app, app.run(run_id), names)
        also = _asked_besides(include_state, include_resume_labels)
        return answer(HTTPStatus.OK, shown(app, app.run(run_id).result(), also))

    @router.get("/v1/runs/<run_id>/graph")
    def draw_run(run_id: str, format: Picture = "json") -> Response[str]:
        result = app.run(run_id).result()
        return _drawn(app.workflow(result.workflow_id).workflow, format, result)

    @router.get("/v1/runs/<run_id>/events")
    def list_events(
        run_id: str,
        after: Annotated[int, Query(ge=0, description=_AFTER)] = 0,
        limit: Annotated[int | None, Query(ge=1)] = None,
    ) -> Response[str]:
        found = first_of(app.run(run_id).events(after), limit)
        return answer(HTTPStatus.OK, {"items": [event_json(event) for event in found]})

    @router.get("/v1/runs/<run_id>/receipts")
    def list_receipts(
        run_id: str, limit: Annotated[int, Query(ge=1, le=100)] = 50, cursor: str | None = None
    ) -> Response[str]:
        page = part_of(app.run(run_id).receipts(), limit, position(router, app, cursor))
        return answer(HTTPStatus.OK, receipts_json(bound(router, app, page)))


def _changes(router: Router, app: App) -> None:
    @router.post("/v1/workflows/<workflow>/runs")
    def start_run(workflow: str, body: StartBody) -> Response[str]:
        wait = preferred_wait(header(router, "prefer"))
        run = app.workflow(workflow).create_run(body.run_id, body.resource_id, tags=body.tags)
        result = run.start(
            body.input,
            state=body.state,
            request_context=body.request_context,
            idempotency_key=header(router, "idempotency-key"),
            by=caller_of(router.current_event.raw_event),
            tracing=_traced(body.tracing, header(router, "traceparent")),
            wait=wait,
        )
        also = _asked_besides(body.include_state, body.include_resume_labels)
        return done(app, result, also, waited=wait is not None, location=f"/v1/runs/{result.run_id}")

    @router.post("/v1/runs/<run_id>/resume")
    def resume_run(run_id: str, body: ResumeBody) -> Response[str]:
        wait = preferred_wait(header(router, "prefer"))
        result = app.run(run_id).resume(
            body.data,
            step=body.step,
            label=body.label,
            wait=body.wait,
            index=body.index,
            request_context=body.request_context,
            retry_count=body.retry_count,
            tracing=_traced(body.tracing, None),
            keep=None if body.keep is None else timedelta(seconds=body.keep),
            idempotency_key=header(router, "idempotency-key"),
            by=caller_of(router.current_event.raw_event),
            via="http",
            version=version_wanted(router),
            drive=wait,
        )
        also = _asked_besides(body.include_state, body.include_resume_labels)
        return done(app, result, also, waited=wait is not None)

    @router.post("/v1/runs/<run_id>/delegate")
    def delegate_vote(run_id: str, body: DelegateBody) -> Response[str]:
        by, run = caller_of(router.current_event.raw_event), app.run(run_id)
        result = run.delegate(
            by=by, to=body.to, step=body.step, label=body.label, wait=body.wait, index=body.index, via="http"
        )
        return answer(HTTPStatus.OK, shown(app, result), {"Idempotent-Replayed": "true"} if result.replayed else {})

    @router.post("/v1/runs/<run_id>/cancel")
    def cancel_run(run_id: str) -> Response[str]:
        by = caller_of(router.current_event.raw_event)
        return answer(HTTPStatus.OK, shown(app, app.run(run_id).cancel(by=by)))

    @router.post("/v1/runs/<run_id>/unblock")
    def unblock_run(run_id: str) -> Response[str]:
        return done(app, app.run(run_id).unblock(), [], waited=False)

    @router.post("/v1/runs/<run_id>/redrive")
    def redrive_run(run_id: str) -> Response[str]:
        return done(app, app.run(run_id).redrive(), [], waited=False)

    @router.post("/v1/events")
    def send_event(body: EventBody) -> Response[str]:
        id, start = header(router, "idempotency-key"), body.start_if_absent
        absent = None if start is None else Start(**dict(start))
        kept = {} if body.keep is None else {"keep": timedelta(seconds=body.keep)}
        receipt = app.send_event(body.name, body.key, body.data, event_id=id, start_if_absent=absent, **kept)
        replayed = receipt.verdict == "duplicate"
        headers = {"Idempotent-Replayed": "true"} if replayed else {}
        status = HTTPStatus.OK if replayed else HTTPStatus.ACCEPTED
        return answer(status, event_receipt_json(receipt), headers)


def preferred_wait(prefer: str | None) -> timedelta | None:
    """How long the caller wants to wait for a result (``Prefer: wait=10``), at most ``LONGEST_WAIT``.

    Source: RFC 7240, section 4.3.
    """
    match = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?", prefer or "")
    return None if match is None else min(timedelta(seconds=int(match.group(1))), LONGEST_WAIT)


def caller_of(event: Mapping[str, Any]) -> str | None:
    """Who calls, as the gateway's authorizer verified it: a JWT's subject or an IAM identity."""
    authorizer = (event.get("requestContext") or {}).get("authorizer") or {}
    subject = ((authorizer.get("jwt") or {}).get("claims") or {}).get("sub")
    identity = (authorizer.get("iam") or {}).get("userArn")
    return subject or identity


def _traced(given: dict[str, Any] | None, traceparent: str | None) -> Tracing | None:
    """What the caller says about tracing: the body, where it names no trace under the header's."""
    header = None if given and "trace_id" in given else from_traceparent(traceparent)
    if given is None and header is None:
        return None
    return cast("Tracing", {**(header or {}), **(given or {})})


def _asked_besides(include_state: bool, include_resume_labels: bool) -> list[str]:  # noqa: FBT001  # two switches of a request
    """Fields that are shown only when asked for."""
    asked = {"state": include_state, "resume_labels": include_resume_labels}
    return [name for name, wanted in asked.items() if wanted]


def _some(app: App, run: Run[Any, Any], names: list[str]) -> Response[str]:
    """Only these fields of a run, and no more read than they need; its version is in the tag, asked for or not."""
    extra = ["status", "workflow_id"] if "output" in names else []
    found = dict(run.result(fields=[*names, *extra, "version"]))
    if "output" in names:
        found["output"] = plain_output(app, found["workflow_id"], found["status"], found["output"])
    response = answer(HTTPStatus.OK, fields_json({name: found[name] for name in names}))
    response.headers["ETag"] = tag_of(str(response.body), found["version"])
    return response


def _drawn(workflow: Workflow[Any, Any], format: Picture, run: RunResult[Any] | None = None) -> Response[str]:
    """A picture, which a browser may be pointed at: it gets no right to run or to load anything."""
    match format:
        case "json":
            return answer(HTTPStatus.OK, graph_json(workflow, run))
        case "mermaid":
            return _text("text/vnd.mermaid; charset=utf-8", workflow.to_mermaid(run))
        case "svg":
            return _text("image/svg+xml; charset=utf-8", workflow.to_svg(run))


def _text(content_type: str, body: str) -> Response[str]:
    headers = {
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(status_code=HTTPStatus.OK.value, content_type=content_type, body=body, headers=headers)
