"""What operators ask of a run: to be driven anew, to go back, to be copied, to stand still, to be gone."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.api_gateway import Router

from flowcore.app import App
from flowcore.http.bodies import ForkBody, TravelBody
from flowcore.http.shown import answer, done, shown
from flowcore.run import UNSET


def operators(app: App) -> Router:
    """Every route for operators, serving ``app``."""
    router = Router()  # type: ignore[no-untyped-call]  # Powertools leaves its constructor untyped

    @router.post("/v1/runs/<run_id>/restart")
    def restart_run(run_id: str) -> Response[str]:
        return done(app, app.run(run_id).restart(), [], waited=False)

    @router.post("/v1/runs/<run_id>/pause")
    def pause_run(run_id: str) -> Response[str]:
        return answer(HTTPStatus.OK, shown(app, app.run(run_id).pause()))

    @router.post("/v1/runs/<run_id>/unpause")
    def unpause_run(run_id: str) -> Response[str]:
        return done(app, app.run(run_id).unpause(), [], waited=False)

    @router.post("/v1/runs/<run_id>/time-travel")
    def time_travel(run_id: str, body: TravelBody) -> Response[str]:
        result = app.run(run_id).time_travel(body.step, input=_input(body), context=body.context)
        return done(app, result, [], waited=False)

    @router.post("/v1/runs/<run_id>/fork")
    def fork_run(run_id: str, body: ForkBody) -> Response[str]:
        result = app.run(run_id).fork(body.step, run_id=body.run_id, input=_input(body), context=body.context)
        return done(app, result, [], waited=False, location=f"/v1/runs/{result.run_id}")

    @router.delete("/v1/runs/<run_id>")
    def delete_run(run_id: str) -> Response[str]:
        app.run(run_id).delete()
        return Response(status_code=HTTPStatus.NO_CONTENT.value, content_type="application/json", body="")

    return router


def _input(body: TravelBody | ForkBody) -> Any:
    """What was given as the step's input; null is a value, and not the same as nothing."""
    return body.input if "input" in body.model_fields_set else UNSET
