"""The inbox: open suspensions of all runs, one of them with the form of its answer, and the answer."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.api_gateway import Router
from aws_lambda_powertools.event_handler.openapi.params import Query

from flowcore.app import App
from flowcore.http.access import wait_id_of, wait_in
from flowcore.http.bodies import AnswerBody, wait_json
from flowcore.http.cursors import cursor as cursor_of
from flowcore.http.cursors import position
from flowcore.http.routes import caller_of, preferred_wait
from flowcore.http.shown import answer, done, header, version_wanted
from flowcore.inbox import asked
from flowcore.model import Json, Wait


def inbox(app: App) -> Router:
    """Every route about waits, serving ``app``."""
    router = Router()  # type: ignore[no-untyped-call]  # Powertools leaves its constructor untyped

    @router.get("/v1/waits")
    def list_waits(
        workflow: str | None = None,
        resource_id: str | None = None,
        tag: Annotated[list[str] | None, Query()] = None,
        label: str | None = None,
        assignee: str | None = None,
        due_before: datetime | None = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 50,
        cursor: str | None = None,
    ) -> Response[str]:
        page = app.waits(
            workflow=workflow,
            resource_id=resource_id,
            tag=tag,
            label=label,
            assignee=assignee,
            due_before=due_before,
            limit=limit,
            cursor=position(router, app, cursor),
        )
        items = [_listed(wait) for wait in page]
        return answer(HTTPStatus.OK, {"items": items, "cursor": cursor_of(router, app, page)})

    @router.get("/v1/waits/<wait_id>")
    def get_wait(wait_id: str) -> Response[str]:
        found = asked(app, *wait_in(wait_id))
        schema = dict(found.answer.schema())
        return answer(HTTPStatus.OK, {**_listed(found.wait), "workflow_id": found.workflow_id, "answer_schema": schema})

    @router.post("/v1/waits/<wait_id>/answer")
    def answer_wait(wait_id: str, body: AnswerBody) -> Response[str]:
        run_id, wait = wait_in(wait_id)
        prefer = preferred_wait(header(router, "prefer"))
        result = app.run(run_id).resume(
            body.data,
            wait=wait,
            idempotency_key=header(router, "idempotency-key"),
            by=caller_of(router.current_event.raw_event),
            via="http",
            version=version_wanted(router),
            drive=prefer,
        )
        return done(app, result, [], waited=prefer is not None)

    return router


def _listed(wait: Wait[Json]) -> dict[str, Json]:
    return {**wait_json(wait), "id": wait_id_of(wait.run_id, wait.id), "wait": wait.id, "run_id": wait.run_id}
