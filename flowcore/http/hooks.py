"""Where signed webhooks come in, and the log of what has come.

A delivery that is signed and was understood is answered with 2xx, whatever became of it: its sender could do nothing
about it, and would only send it again. What went wrong stands in the log, from which it can be replayed.
"""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Annotated

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.api_gateway import Router
from aws_lambda_powertools.event_handler.openapi.params import Query

from flowcore.app import App
from flowcore.deliveries import Secrets, challenge, deliver, found, meaning
from flowcore.errors import BadSignature, WebhookNotFound
from flowcore.http.bodies import delivery_json
from flowcore.http.cursors import cursor as cursor_of
from flowcore.http.cursors import position
from flowcore.http.raw import raw_body
from flowcore.model import Json
from flowcore.webhooks import Slack

_LOGGER = logging.getLogger("flowcore.http")


def hooks(app: App, secrets: Secrets) -> Router:
    """The route of all webhooks of ``app``. Open at the gateway: a signature is what lets in."""
    router = Router()  # type: ignore[no-untyped-call]  # Powertools leaves its constructor untyped

    @router.post("/hooks/<name>")
    def receive(name: str) -> Response[str]:
        hook, body = found(app, name), raw_body(router)
        headers = {key.lower(): value for key, value in router.current_event.headers.items()}
        try:
            id = hook.scheme.verify(headers, body, app.clock.now(), secrets(hook.secret))
        except BadSignature as error:
            _LOGGER.warning("a delivery was refused", extra={"hook": name, "reason": error.reason})
            raise
        if (asked := challenge(hook, body)) is not None:
            return _text(asked)
        delivery = deliver(app, hook, id, headers, body)
        if isinstance(hook.scheme, Slack):
            return _text("")  # Slack shows a person whatever else it is answered
        return _json(delivery_json(delivery), HTTPStatus.ACCEPTED if delivery.verdict == "buffered" else HTTPStatus.OK)

    return router


def delivery_log(app: App) -> Router:
    """The routes on which operators read the log, behind the gateway's lock."""
    router = Router()  # type: ignore[no-untyped-call]  # as above

    @router.get("/v1/hooks/<name>/deliveries")
    def list_deliveries(
        name: str, limit: Annotated[int, Query(ge=1, le=100)] = 50, cursor: str | None = None
    ) -> Response[str]:
        _refuse_of_another_tenant(app, name)
        page = app.list_deliveries(name, limit=limit, cursor=position(router, app, cursor))
        return _json({"items": [delivery_json(one) for one in page], "cursor": cursor_of(router, app, page)})

    @router.post("/v1/hooks/<name>/deliveries/<id>/replay")
    def replay_delivery(name: str, id: str) -> Response[str]:
        _refuse_of_another_tenant(app, name)
        return _json(delivery_json(app.replay_delivery(name, id)))

    return router


def _refuse_of_another_tenant(app: App, name: str) -> None:
    """A log tells of runs, and a replay moves them. Raises: WebhookNotFound."""
    if meaning(app, name).tenant != app.tenant:
        raise WebhookNotFound(name)


def _json(body: Json, status: HTTPStatus = HTTPStatus.OK) -> Response[str]:
    text = json.dumps(body, ensure_ascii=False)
    return Response(status_code=status.value, content_type="application/json", body=text)


def _text(body: str) -> Response[str]:
    headers = {"X-Content-Type-Options": "nosniff"}
    return Response(
        status_code=HTTPStatus.OK.value, content_type="text/plain; charset=utf-8", body=body, headers=headers
    )
