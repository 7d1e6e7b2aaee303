"""What is too much for the API is refused with a type, before anything is done: sizes, counts, and how fast."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flowcore import App, StepContext, step, workflow
from flowcore.adapters.blobs import FolderBlobs
from flowcore.client import Client
from flowcore.errors import TooManyAnswers
from flowcore.http.access import wait_id_of
from flowcore.http.doors import doors
from flowcore.http.inbox import inbox
from flowcore.http.limits import LONGEST_TARGET, MOST_ANSWER_BYTES, MOST_HEADER_BYTES, MOST_PARAMETERS, Pace
from flowcore.http.routes import routes
from flowcore.links import Links
from flowcore.testing import LocalApp
from flowcore.testing.served import in_process
from tests.unit.web import Web

LINKS = Links("https://api.example.com", {"k": "0" * 32})


@step
def ask(value: Any, ctx: StepContext[Any, None]) -> Any:
    """Asks until it is told to stop."""
    if ctx.resume_data != "stop":
        ctx.suspend(label="ask")
    return value


@step
def same(value: int) -> int:
    """Gives what it is given."""
    return value


ASK = workflow("ask", input=Any, output=Any).then(ask).commit()
EACH = workflow("each", input=list[int], output=list[int]).foreach(same).commit()


@pytest.fixture
def app() -> LocalApp:
    """With a run that waits."""
    app = LocalApp(App(ASK, EACH, links=LINKS))
    app.workflow("ask").create_run("r-1").start("x")
    return app


@pytest.mark.parametrize(
    ("target", "headers", "status", "type"),
    [
        ("/v1/runs?resource_id=" + "x" * (LONGEST_TARGET - 20), {}, 200, None),
        ("/v1/runs?resource_id=" + "x" * (LONGEST_TARGET - 19), {}, 414, "address-too-long"),
        ("/v1/runs/" + "x" * LONGEST_TARGET, {}, 414, "address-too-long"),
        ("/v1/runs", {"x": "x" * (MOST_HEADER_BYTES - 1)}, 200, None),
        ("/v1/runs", {"x": "x" * MOST_HEADER_BYTES}, 431, "headers-too-large"),
        ("/v1/runs?" + "&".join(f"x{n}=1" for n in range(MOST_PARAMETERS)), {}, 200, None),
        ("/v1/runs?" + "&".join(f"x{n}=1" for n in range(MOST_PARAMETERS + 1)), {}, 400, "malformed-request"),
        ("/v1/runs?" + "&".join(["tag=x"] * (MOST_PARAMETERS + 1)), {}, 400, "malformed-request"),
    ],
    ids=["target", "query", "path", "headers", "header", "parameters", "parameter", "repeated"],
)
def test_request_has_bounds(app: LocalApp, target: str, headers: dict[str, str], status: int, type: str | None) -> None:
    """The last that fits, and the first that does not."""
    answer = Web(app, routes).call("GET", target, None, headers)
    assert status == answer.status, answer.text
    assert type is None or type == answer.type


LONG = "x" * 1_001
START = "/v1/workflows/ask/runs"


@pytest.mark.parametrize(
    ("target", "body", "headers", "status"),
    [
        (START, {"input": 1, "run_id": "x" * 129}, {}, 400),
        (START, {"input": 1, "resource_id": LONG}, {}, 400),
        (START, {"input": 1, "tags": [f"x{n}" for n in range(11)]}, {}, 422),
        (START, {"input": 1, "tags": ["x" * 65]}, {}, 422),
        (START, {"input": 1}, {"idempotency-key": LONG}, 400),
        (START, {"input": 1, "tracing": {"tags": ["x"] * 11}}, {}, 422),
        (START, {"input": 1, "request_context": {"x": "y" * 999_990}}, {}, 413),
        ("/v1/workflows/each/runs", {"input": [1] * 100_001}, {}, 400),
        ("/v1/runs/r-1/resume", {"data": 1, "label": LONG}, {}, 400),
        ("/v1/runs/r-1/resume", {"data": 1, "wait": LONG}, {}, 400),
        ("/v1/runs/r-1/resume", {"data": 1, "index": 10**20}, {}, 422),
        ("/v1/runs/r-1/resume", {"data": 1, "retry_count": -1}, {}, 400),
        ("/v1/runs/r-1/resume", {"data": 1}, {"idempotency-key": LONG}, 400),
        ("/v1/runs/r-1/resume", {"data": 1, "keep": 0}, {}, 422),
        ("/v1/runs/r-1/resume", {"data": 1, "keep": 365 * 86_400 + 1}, {}, 422),
        ("/v1/runs/r-1/resume", {"data": 1, "keep": 10**30}, {}, 422),
        ("/v1/runs/r-1/delegate", {"to": LONG}, {}, 400),
        ("/v1/events", {"name": "x" * 129, "key": "k"}, {}, 400),
        ("/v1/events", {"name": "n", "key": "k" * 513}, {}, 400),
        ("/v1/events", {"name": "n", "key": "k"}, {"idempotency-key": "x" * 129}, 400),
    ],
)
def test_name_or_count_has_bounds(
    app: LocalApp, target: str, body: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    """What is longer, or more, is the caller's to mend; the run is as it was."""
    web = Web(app, routes, authorizer={"jwt": {"claims": {"sub": "ada"}}})
    before = app.run("r-1").result().version
    answer = web.post(target, body, headers)
    assert status == answer.status, answer.text
    assert "application/problem+json" == answer.headers["content-type"]
    assert len(json.dumps(answer.body)) < 4_000
    assert before == app.run("r-1").result().version


def test_answers_to_one_run_come_at_a_pace(app: LocalApp) -> None:
    """As many at once as a minute allows, then as fast as they come back; others do not wait for it."""
    web = Web(app, routes, inbox, lambda one: doors(one, LINKS), pace=Pace(3))
    app.workflow("ask").create_run("r-2").start("x")
    resume = "/v1/runs/{}/resume"
    assert [202, 202, 202, 429, 202] == [
        web.post(resume.format(run), {"data": "go on"}).status for run in ("r-1", "r-1", "r-1", "r-1", "r-2")
    ]
    refused = web.post("/v1/runs/r-1/delegate", {"to": "bob"})
    wait = app.run("r-1").result().waits[0].id
    assert 429 == web.post(f"/v1/waits/{wait_id_of('r-1', wait)}/answer", {"data": 1}).status
    assert ("too-many-answers", "20") == (refused.type, refused.headers["retry-after"])
    assert 200 == web.get("/v1/runs/r-1").status
    app.advance(seconds=20)
    assert [202, 429] == [web.post(resume.format("r-1"), {"data": "go on"}).status for _ in range(2)]
    app.advance(minutes=10)
    assert [202, 202, 202, 429] == [web.post(resume.format("r-1"), {"data": "go on"}).status for _ in range(4)]


def test_answers_over_one_link_come_at_a_pace(app: LocalApp) -> None:
    """Whoever holds it, before anything is read."""
    web = Web(app, lambda one: doors(one, LINKS), pace=Pace(2))
    link = app.run("r-1").result().waits[0].callback_url().removeprefix("https://api.example.com")
    assert [200, 409, 429] == [web.post(link, "go on").status for _ in range(3)]


def test_pace_forgets_who_has_not_been_heard_of() -> None:
    """It remembers so many runs, whoever asks; a forgotten one has its full measure again."""
    pace, now = Pace(1), LocalApp(App()).clock.now()
    pace.take("first", now)
    with pytest.raises(TooManyAnswers):
        pace.take("first", now + timedelta(seconds=59))
    for number in range(10_000):
        pace.take(str(number), now)
    pace.take("first", now)
    assert 10_000 == len(pace._spent)


@step
def grow(size: int, ctx: StepContext[bool, None]) -> str:
    """Gives a text of so many characters, once somebody wants it."""
    if ctx.resume_data is None:
        ctx.suspend()
    return "é" * size


GROW = workflow("grow", input=int, output=str).then(grow).commit()


@pytest.fixture
def growing(tmp_path: Path) -> LocalApp:
    """With runs that will hold twice, in a step and as output, a text of half of what can be handed on."""
    app = LocalApp(App(GROW, blobs=FolderBlobs(tmp_path)))
    for id in ("r-1", "r-2"):
        app.workflow("grow").create_run(id).start(MOST_ANSWER_BYTES // 4)
    return app


def test_answer_that_cannot_be_handed_on_says_how_to_ask_for_less(growing: LocalApp) -> None:
    """And what is smaller is to be had: some fields, a few events."""
    web = Web(growing, routes)
    web.post("/v1/runs/r-1/resume", {"data": True})
    for target in ("/v1/runs/r-1", "/v1/runs/r-1?fields=steps,output", "/v1/runs/r-1/events"):
        answer = web.get(target)
        assert (422, "answer-too-large") == (answer.status, answer.type), target
        assert "fields=" in answer.body["detail"]
        assert "etag" not in answer.headers
    assert "success" == web.get("/v1/runs/r-1?fields=status").body["status"]
    events = web.get("/v1/runs/r-1/events?limit=2").body["items"]
    assert ["run-started", "step-started"] == [event["type"] for event in events]


def test_change_that_has_a_large_answer_is_answered_without_what_is_large(growing: LocalApp) -> None:
    """It is done: its caller learns so, with the receipt, and which fields are not as they stand."""
    answer = Web(growing, routes).post("/v1/runs/r-1/resume", {"data": True})
    assert (202, "success", "applied") == (answer.status, answer.body["status"], answer.body["receipt"]["verdict"])
    assert ["output", "steps"] == answer.body["left_out"]
    assert (None, {}) == (answer.body["output"], answer.body["steps"])
    assert MOST_ANSWER_BYTES // 4 == answer.body["input"]
    with Client("https://x", transport=in_process(growing)) as client:
        result = client.resume("r-2", True)
    assert ("success", None, ["output", "steps"]) == (result.status, result.output, result.left_out)


def test_events_are_not_cut_within_an_offset(app: LocalApp) -> None:
    """Whoever goes on after the last one misses none."""
    web = Web(app, routes)
    app.workflow("each").create_run("r-2").start([1, 2, 3])
    every = web.get("/v1/runs/r-2/events").body["items"]
    seen: list[Any] = []
    while part := web.get(f"/v1/runs/r-2/events?limit=1&after={seen[-1]['offset'] if seen else 0}").body["items"]:
        seen += part
    assert every == seen
