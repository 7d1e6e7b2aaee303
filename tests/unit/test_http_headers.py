"""What callers say in headers, over every route that takes it, and what is said back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, StepContext, Workflow, step, workflow
from flowcore.errors import ConflictError, OutsideError, StoreUnavailable, Throttled
from flowcore.http.access import wait_id_of
from flowcore.http.everything import served
from flowcore.http.openapi import ANSWERS
from flowcore.testing import LocalApp
from tests.unit.web import Answer, Web


@step
def ask(value: str, ctx: StepContext[str, None]) -> str:
    """Waits for a text."""
    if ctx.resume_data is None:
        ctx.suspend(label="ask")
    return ctx.resume_data


FLOW = workflow("ask", input=str, output=str).then(ask).commit()


class Desk:
    """An API with a run that waits."""

    def __init__(self, flow: Workflow[str, str] = FLOW) -> None:
        self.app = LocalApp(App(flow))
        self.app.workflow("ask").create_run("r-1").start("x")
        self.wait = wait_id_of("r-1", self.app.run("r-1").result().waits[0].id)
        self.web = a_web(self.app)

    def path(self, key: str) -> tuple[str, str]:
        """Method and path of a route, about what there is."""
        method, path = key.split(" ")
        for name, value in {"run_id": "r-1", "workflow": "ask", "wait_id": self.wait, "name": "h", "id": "1"}.items():
            path = path.replace(f"{{{name}}}", value)
        return method, path

    def answer(self, key: str, data: str, **headers: str) -> Answer:
        """Answer the wait over one of the two routes that do."""
        return self.web.post(self.path(key)[1], {"data": data}, {k.replace("_", "-"): v for k, v in headers.items()})


def a_web(app: App) -> Web:
    """Every route."""
    return Web(app, *[_nth(n) for n in range(len(served(App())))], authorizer={"jwt": {"claims": {"sub": "ada"}}})


def _nth(n: int) -> Callable[[App], Any]:
    return lambda app: served(app)[n]


READS = [key for key in ANSWERS if key.startswith("GET ") and "hooks" not in key]
DRAWINGS = [f"{key}?format={kind}" for key in READS if key.endswith("/graph") for kind in ("svg", "mermaid")]
RESUMES = ("POST /v1/runs/{run_id}/resume", "POST /v1/waits/{wait_id}/answer")


@pytest.mark.parametrize("key", [*READS, *DRAWINGS])
def test_what_a_caller_has_already_is_not_sent_again(key: str) -> None:
    """Every route that reads gives a strong tag, and answers 304 without a body to whoever names it."""
    desk = Desk()
    target = desk.path(key)[1]
    first = desk.web.get(target)
    tag = first.headers["etag"]
    assert (200, '"') == (first.status, tag[0])
    for named in (tag, f"W/{tag}", f'"other", {tag}'):
        again = desk.web.get(target, **{"If-None-Match": named})
        assert (304, "", tag) == (again.status, again.text, again.headers["etag"])
    assert 200 == desk.web.get(target, **{"If-None-Match": '"other"'}).status


def test_tag_of_a_run_moves_with_it() -> None:
    """And names its version."""
    desk = Desk()
    tag = desk.web.get("/v1/runs/r-1").headers["etag"]
    assert tag.startswith(f'"v{desk.app.run("r-1").result().version}-')
    desk.answer(RESUMES[0], "y")
    assert 200 == desk.web.get("/v1/runs/r-1", **{"If-None-Match": tag}).status


@pytest.mark.parametrize("key", RESUMES)
def test_answer_is_refused_if_the_run_has_moved(key: str) -> None:
    """``If-Match`` with its tag, or with anything that is no tag of a run; nothing happens then."""
    desk = Desk()
    tag = desk.web.get("/v1/runs/r-1").headers["etag"]
    for stale in ('"v1-0123"', '"none"', "v1", tag.replace("v", "w")):
        refused = desk.answer(key, "y", If_Match=stale)
        assert (412, "version-mismatch") == (refused.status, refused.type), stale
    assert "suspended" == desk.app.run("r-1").result().status
    assert 202 == desk.answer(key, "y", If_Match=tag).status
    assert "success" == desk.app.run("r-1").result().status


@pytest.mark.parametrize("key", RESUMES)
@pytest.mark.parametrize("target", ["/v1/runs/r-1", "/v1/runs/r-1?fields=status", "/v1/runs/r-1?fields=version,output"])
def test_tag_of_a_run_is_good_for_an_answer_however_much_was_asked_for(key: str, target: str) -> None:
    """Alone, or among others that the caller has; a weak one is not."""
    for named, status in (("{}", 202), ('"other", {}', 202), ('"v1-0", {}', 202), ("W/{}", 412), ("{}0", 412)):
        desk = Desk()
        tag = desk.web.get(target).headers["etag"]
        assert status == desk.answer(key, "y", If_Match=named.format(tag)).status, named


def test_tag_of_some_fields_moves_with_the_run() -> None:
    """Whoever looks at the status alone learns as well that the run is another one by now."""
    desk = Desk()
    first = desk.web.get("/v1/runs/r-1?fields=resource_id")
    desk.answer(RESUMES[0], "y")
    again = desk.web.get("/v1/runs/r-1?fields=resource_id", **{"If-None-Match": first.headers["etag"]})
    assert (200, first.text) == (again.status, again.text)
    assert {"resource_id"} == set(again.body)


@pytest.mark.parametrize("key", RESUMES)
def test_answer_to_any_version_is_taken(key: str) -> None:
    """``If-Match: *``."""
    assert 202 == Desk().answer(key, "y", If_Match="*").status


@pytest.mark.parametrize("key", RESUMES)
def test_repeated_answer_is_told_the_first_ones_receipt(key: str) -> None:
    """By its ``Idempotency-Key``, however often; other data under the same key is refused, and another key loses."""
    desk = Desk()
    first = desk.answer(key, "y", Idempotency_Key="k-1")
    again = [desk.answer(key, "y", Idempotency_Key="k-1") for _ in range(2)]
    assert (202, "applied") == (first.status, first.body["receipt"]["verdict"])
    assert [(200, "true", "duplicate")] * 2 == [
        (one.status, one.headers["idempotent-replayed"], one.body["receipt"]["verdict"]) for one in again
    ]
    assert "idempotent-replayed" not in first.headers
    other = desk.answer(key, "z", Idempotency_Key="k-1")
    assert (422, "idempotency-key-reused") == (other.status, other.type)
    late = desk.answer(key, "y", Idempotency_Key="k-2")
    assert (409, "already-resumed", "ada") == (late.status, late.type, late.body["winner"]["by"])


@pytest.mark.parametrize("key", RESUMES)
def test_caller_may_wait_for_what_comes_of_it(key: str) -> None:
    """``Prefer: wait=``: 200 instead of 202, with what came of it."""
    waited, told = Desk().answer(key, "y", Prefer="wait=5"), Desk().answer(key, "y")
    assert (200, "success", "y") == (waited.status, waited.body["status"], waited.body["output"])
    assert 202 == told.status


@pytest.mark.parametrize("key", RESUMES)
def test_run_that_is_still_under_way_after_the_wait_is_202(key: str) -> None:
    """It did not get that far; one that asks again did."""
    nap = workflow("ask", input=str, output=str).then(ask).sleep(timedelta(hours=1)).commit()
    desk = Desk(nap)
    answer = desk.answer(key, "y", Prefer="wait=20")
    assert (202, "waiting") == (answer.status, answer.body["status"])
    again = desk.web.post("/v1/workflows/ask/runs", {"input": "x"}, {"Prefer": "wait=20"})
    assert (200, "suspended") == (again.status, again.body["status"])


def test_start_may_be_waited_for_and_repeated() -> None:
    """The same headers as for an answer, and where the run is."""
    web, runs = Desk().web, "/v1/workflows/ask/runs"
    first = web.post(runs, {"input": "x"}, {"Idempotency-Key": "k", "Prefer": "respond-async, wait=3"})
    again = web.post(runs, {"input": "x"}, {"Idempotency-Key": "k"})
    other = web.post(runs, {"input": "z"}, {"Idempotency-Key": "k"})
    assert (200, f"/v1/runs/{first.body['run_id']}") == (first.status, first.headers["location"])
    assert (200, "true", first.headers["location"]) == (
        again.status,
        again.headers["idempotent-replayed"],
        again.headers["location"],
    )
    assert (422, "idempotency-key-reused") == (other.status, other.type)
    assert 202 == web.post(runs, {"input": "x"}, {"Prefer": "return=minimal"}).status


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Throttled("no"), 429),
        (StoreUnavailable("no"), 503),
        (OutsideError("no"), 503),
        (ConflictError("no"), 503),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_whoever_should_try_again_is_told_when(fault: Exception, status: int) -> None:
    """``Retry-After`` on every 429 and 503, and nothing of what is wrong behind the API."""
    desk = Desk()

    def broken(_: str) -> Any:
        raise fault

    desk.app.run = broken  # type: ignore[method-assign,assignment]  # a store that is down, for all that is asked here
    answer = desk.web.get("/v1/runs/r-1")
    assert (status, "1") == (answer.status, answer.headers["retry-after"])


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_other_origins_are_told_nothing(method: str) -> None:
    """No route has a word of CORS: a browser lets no other site read an answer. A gateway may say otherwise."""
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = Desk().web.call(method, "/v1/runs", None, asked)
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert {"GET": 200, "POST": 405, "OPTIONS": 405}[method] == answer.status
