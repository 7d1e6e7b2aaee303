"""The doors without a lock at the gateway: whoever holds a signed link may answer one wait, and that is all.

A page shows and asks; only a POST decides. Mail scanners open links, so GET and HEAD change nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.api_gateway import BaseRouter, Router

from flowcore.app import App
from flowcore.console import forms, pages
from flowcore.errors import (
    AlreadyResumed,
    DefinitionChanged,
    FlowcoreError,
    Forbidden,
    InvalidPayload,
    LinkExpired,
    LinkUnknown,
    MalformedRequest,
    NotAnApprover,
    NotSuspended,
    RequestError,
    RunFinished,
    RunNotFound,
    Unauthenticated,
    WaitExpired,
    WorkflowNotFound,
)
from flowcore.http import problems
from flowcore.http.access import name_of
from flowcore.http.bodies import receipt_json
from flowcore.http.raw import raw_body
from flowcore.http.shown import header
from flowcore.inbox import NOT_KNOWN_YET, Asked, asked
from flowcore.keys import RunRef, is_name
from flowcore.links import Grant, Links, born_at
from flowcore.model import Json, Receipt
from flowcore.strict import parsed

_CHANNELS = {
    "link": "over a link like this one",
    "callback": "by another system",
    "event": "by an event",
    "http": "over the API",
    "python": "by a program",
}
_NOT_NOW = "This cannot be answered at the moment. Try again later, or ask whoever has sent you the link."
_FORM = "application/x-www-form-urlencoded"


def doors(app: App, links: Links) -> Router:
    """The routes that signed links open."""
    router = Router()  # type: ignore[no-untyped-call]  # Powertools leaves its constructor untyped
    _pages(router, app, links)
    _callbacks(router, app, links)
    return router


def _pages(router: Router, app: App, links: Links) -> None:
    @router.get("/a/<token>")
    def show(token: str) -> Response[str]:
        try:
            grant = _used(links.read(token, "a", app.clock.now()), router.current_event.raw_event)
        except FlowcoreError as error:
            return _refusal(error)
        try:
            return _asking(_opened(app, grant, by=grant.actor), grant)
        except FlowcoreError as error:
            return _refusal(error, grant.actor)

    @router.head("/a/<token>")
    def probe(token: str) -> Response[str]:
        del token  # it is looked at by nobody who only knocks
        return _page(HTTPStatus.OK, "")

    @router.post("/a/<token>")
    def decide(token: str) -> Response[str]:
        try:
            grant = _used(links.read(token, "a", app.clock.now()), router.current_event.raw_event)
        except FlowcoreError as error:
            return _refusal(error)
        try:
            found = _opened(app, grant)
            posted = _posted(router)
        except FlowcoreError as error:
            return _refusal(error, grant.actor)
        try:
            data = _value(forms.read(forms.fields(found.answer.schema()), posted))
            return _thanks(_answered(app, grant, data, via="link"))
        except (InvalidPayload, MalformedRequest) as error:
            return _asking(found, grant, posted, error)
        except FlowcoreError as error:
            return _refusal(error, grant.actor)


def _callbacks(router: Router, app: App, links: Links) -> None:
    @router.post("/cb/<token>")
    def call_back(token: str) -> Response[str]:
        grant = links.read(token, "cb", app.clock.now())
        data = parsed(raw_body(router))
        _same_run(app, grant)
        try:
            receipt = _answered(app, grant, data, via="callback", key=header(router, "idempotency-key"))
        except (DefinitionChanged, WorkflowNotFound) as error:
            return problems.problem(problems.status_of(type(error)), error.code, _NOT_NOW)
        return Response(
            status_code=HTTPStatus.OK.value,
            content_type="application/json",
            body=json.dumps({"receipt": receipt_json(receipt)}),
            headers={"Cache-Control": "no-store"},
        )


def _used(grant: Grant, event: Mapping[str, Any]) -> Grant:
    """What a link says, in the hands of whoever brings it. Raises: Unauthenticated, Forbidden."""
    if not grant.login:
        return grant
    name = _known(event)
    if name is None:
        raise Unauthenticated("Whoever uses this link has to be logged in. Log in, then open it again.")
    if grant.actor not in (None, name):
        raise Forbidden("This link was sent to somebody else.")
    return replace(grant, actor=name)


def _known(event: Mapping[str, Any]) -> str | None:
    """Who is there, as what stands in front of the door has verified it; an authorizer of one's own says ``sub``."""
    authorizer = (event.get("requestContext") or {}).get("authorizer") or {}
    own = (authorizer.get("lambda") or {}).get("sub")
    return own if isinstance(own, str) and is_name(own) else name_of(event)


def _opened(app: App, grant: Grant, *, by: str | None = NOT_KNOWN_YET) -> Asked:
    """The wait that a link opens, if it is still open, and for ``by``, if that is said. Raises: RequestError."""
    _same_run(app, grant)
    try:
        return asked(app.for_tenant(grant.tenant), grant.run_id, grant.wait, by=by)
    except AlreadyResumed as error:
        raise problems.over(error) from None


def _same_run(app: App, grant: Grant) -> None:
    """Raises: RunNotFound where the link's run is gone, also when another one has its id by now."""
    head = app.engine.peek(RunRef(grant.tenant, grant.run_id))
    if grant.born is not None and grant.born != born_at(head.created_at):
        raise RunNotFound(grant.run_id)


def _answered(app: App, grant: Grant, data: Json, *, via: str, key: str | None = None) -> Receipt:
    run = app.for_tenant(grant.tenant).run(grant.run_id)
    try:
        receipt = run.resume(data, wait=grant.wait, by=grant.actor, via=via, idempotency_key=key).receipt
    except AlreadyResumed as error:
        raise problems.over(error) from None
    assert receipt is not None  # every resume has one
    return receipt


# -- what is read and what is shown -----------------------------------------------------------------------------------


def _posted(router: BaseRouter) -> Mapping[str, list[str]]:
    """The fields of a posted form. Raises: MalformedRequest."""
    kind = (router.current_event.headers.get("content-type") or _FORM).partition(";")[0].strip().lower()
    if kind != _FORM:
        raise MalformedRequest(f"This page takes {_FORM}, not {kind[:50]!r}; programs use a callback URL.")
    try:
        return parse_qs(raw_body(router).decode(), keep_blank_values=True, max_num_fields=1_000, errors="strict")
    except ValueError:
        raise MalformedRequest("What was posted is not a form.") from None


def _value(data: Json) -> Json:
    """What a form stands for, held to what is asked of every body. Raises: MalformedRequest."""
    try:
        return parsed(json.dumps(data))
    except RecursionError:
        raise MalformedRequest("The answer is nested too deep.") from None


def _asking(
    found: Asked,
    grant: Grant,
    posted: Mapping[str, list[str]] | None = None,
    error: InvalidPayload | MalformedRequest | None = None,
) -> Response[str]:
    wait, form = found.wait, forms.fields(found.answer.schema())
    wrong = error.errors if isinstance(error, InvalidPayload) else ()
    told = {row["path"]: _for_a_person(row["message"]) for row in wrong}
    rows = {field.name: told.pop(dotted) for field in form if (dotted := ".".join(field.path)) in told}
    general = "; ".join(f"{path}: {message}" if path else message for path, message in told.items())
    if isinstance(error, MalformedRequest):
        general = str(error)
    entered = posted if posted is not None else {field.name: forms.typed(field) for field in form}
    body = pages.page(
        "decide",
        title=(wait.label or wait.path[-1]).replace("_", " ").replace("-", " ").capitalize(),
        run_id=grant.run_id,
        wait=wait,
        actor=grant.actor,
        form=form,
        entered=entered,
        problems=rows,
        general=general,
        refused=error is not None,
    )
    return _page(HTTPStatus.OK if error is None else HTTPStatus.UNPROCESSABLE_ENTITY, body)


def _for_a_person(message: str) -> str:
    """What is wrong, without the name of a type behind it."""
    return re.sub(r" \(found \w+\)$", "", message)


def _thanks(receipt: Receipt) -> Response[str]:
    text = {
        "counted": "Your answer has been counted. It is settled when enough others have answered as well.",
        "duplicate": "Your answer had been counted before. Nothing has changed.",
    }.get(receipt.verdict, "Your answer has been recorded.")
    return _told(HTTPStatus.OK, "Thank you", text, "good")


def _refusal(error: FlowcoreError, by: str | None = None) -> Response[str]:
    """An error of ours as a page for whoever clicked; ``by``: as whom he answers."""
    match error:
        case AlreadyResumed() if by is not None and error.winner.get("by") == by:
            text = "Your answer is known and stays as it is; nothing more is needed of you."
            return _told(HTTPStatus.CONFLICT, "You have answered", text, "", _winner(error.winner))
        case AlreadyResumed():
            facts = _winner(error.winner)
            return _told(HTTPStatus.CONFLICT, "Already decided", "Somebody has answered before.", "", facts)
        case WaitExpired():
            return _told(HTTPStatus.GONE, "Too late", "The time to answer is over; it was decided without.", "bad")
        case LinkExpired():
            return _told(HTTPStatus.GONE, "This link is no longer good", str(error), "bad")
        case Unauthenticated() | Forbidden():
            title = "Not for you" if isinstance(error, Forbidden) else "Log in first"
            return _told(problems.status_of(type(error)), title, str(error), "bad")
        case NotAnApprover():
            return _told(HTTPStatus.FORBIDDEN, "Not for you", "Others were asked to answer this.", "bad")
        case RunFinished() | NotSuspended():
            return _told(HTTPStatus.CONFLICT, "No longer asked", "Nobody waits for this answer any more.", "")
        case MalformedRequest():
            return _told(HTTPStatus.BAD_REQUEST, "Not understood", str(error), "bad")
        case LinkUnknown():
            return _told(HTTPStatus.NOT_FOUND, "No such link", str(error), "bad")
        case RunNotFound():
            return _told(HTTPStatus.NOT_FOUND, "No such link", "What this link was for is gone.", "bad")
        case RequestError():  # it may name workflows, steps and reasons, which are nobody's business here
            return _told(HTTPStatus.CONFLICT, "Not now", _NOT_NOW, "bad")
        case _:
            raise error


def _winner(winner: Mapping[str, Any]) -> list[tuple[str, str]]:
    at, via = datetime.fromisoformat(str(winner["at"])), str(winner.get("via"))
    told = [("When", pages.told(at)), ("By", winner.get("by") or "somebody without a name")]
    return [*told, ("How", _CHANNELS.get(via, via))]


def _told(
    status: HTTPStatus, title: str, text: str, tone: str, facts: list[tuple[str, str]] | None = None
) -> Response[str]:
    return _page(status, pages.page("told", title=title, text=text, tone=tone, facts=facts or []))


def _page(status: HTTPStatus, body: str) -> Response[str]:
    return Response(
        status_code=status.value,
        content_type="text/html; charset=utf-8",
        body=body,
        headers=dict(pages.headers()),
    )
