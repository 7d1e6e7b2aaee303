"""The API in a process of one's own answers as it does under Lambda, and keeps requests at once apart."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.api_gateway import Router
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcore import App, StepContext, step, workflow
from flowcore.errors import Forbidden, Unauthenticated
from flowcore.http.access import Policy
from flowcore.http.api import Api
from flowcore.http.asgi import Asgi, asgi
from flowcore.http.doors import doors
from flowcore.http.everything import served
from flowcore.http.gateway import Request
from flowcore.http.hooks import hooks
from flowcore.http.limits import MOST_BYTES
from flowcore.links import Links
from flowcore.testing import LocalApp
from infra.functions import DOORS, ROUTES
from infra.local import http_events as gateway
from infra.local.blueprint import Route
from tests.unit.web import Quiet

LINKS = Links("https://api.example.com", {"k": "0" * 32})


@step
def ask(value: Any, ctx: StepContext[Any, None]) -> Any:
    """Waits for anything."""
    if ctx.resume_data is None:
        ctx.suspend(label="ask")
    return value


def an_app() -> LocalApp:
    """With a run of a known name that waits."""
    app = LocalApp(App(workflow("ask", input=Any, output=Any).then(ask).commit(), links=LINKS))
    app.workflow("ask").create_run("r-1", tags=["a", "b"]).start({"order": 1})
    return app


def over_asgi(application: Any, request: Request) -> httpx.Response:
    """The answer of an ASGI application."""

    async def ask_it() -> httpx.Response:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(
                request.method, request.target, headers=list(request.headers), content=request.body or None
            )

    return asyncio.run(ask_it())


class Twin:
    """The same App behind the gateway of the local stack and behind an ASGI server."""

    def __init__(self) -> None:
        app = an_app()

        def open_doors(one: App) -> list[Router]:
            return [hooks(one, lambda _: []), doors(one, LINKS)]

        self.deployed = ((ROUTES, Api(app, served, Quiet())), (DOORS, Api(app, open_doors, Quiet())))
        self.router = gateway.Router(
            Route(key=key, function=str(number)) for number, (keys, _) in enumerate(self.deployed) for key in keys
        )
        self.own = asgi(an_app(), links=LINKS, secrets=lambda _: [])

    def over_gateway(self, request: Request) -> Any:
        """Through API Gateway as the local stack plays it; what it has no route for goes to the API."""
        found = self.router.match(request.method, request.target.partition("?")[0])
        is_door = request.target.startswith(("/a/", "/cb/", "/hooks/"))
        match = found or gateway.Match(route=Route(key="$default", function=str(int(is_door))), path_parameters={})
        event = json.loads(json.dumps(gateway.to_event(request, match, now=datetime.now(UTC))))
        answer = self.deployed[int(match.route.function)][1](event, None)
        return gateway.from_result(json.dumps(answer).encode())

    def held_together(self, request: Request) -> int:
        """Both are asked the same, and have to say the same."""
        one, other = self.over_gateway(request), over_asgi(self.own, request)
        has_body = request.method != "HEAD" and other.status_code not in (204, 304)
        told = {name.lower(): value for name, value in one.headers}
        assert one.status == other.status_code
        assert (one.body if has_body else b"") == other.content
        assert told == {name: value for name, value in other.headers.items() if name != "content-length"}
        if has_body:
            assert str(len(one.body)) == other.headers["content-length"]
        status: int = one.status
        return status


def a_request(
    method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | Sequence[tuple[str, str]] = ()
) -> Request:
    """With headers in a form that is easy to write."""
    pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
    return Request(method=method, target=target, headers=pairs, body=body)


JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
RUNS = "/v1/workflows/ask/runs"


@pytest.fixture(scope="module")
def twin() -> Twin:
    """Its runs stand still: every row leaves them, or changes both alike."""
    return Twin()


def _name(value: object) -> str | None:
    return f"{value.method} {value.target[:40]}" if isinstance(value, Request) else None


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (a_request("GET", "/healthz"), 200),
        (a_request("HEAD", "/healthz"), 200),
        (a_request("GET", "/v1/openapi.json"), 200),
        (a_request("GET", "/v1/runs?limit=0"), 422),
        (a_request("GET", "/v1/runs?resource_id=%C3%A9%2B+x&cursor=%00"), 400),
        (a_request("GET", "/v1/runs/r%2D1?fields=status"), 200),
        (a_request("HEAD", "/v1/runs/r-1?fields=status"), 200),
        (a_request("GET", "/v1/runs/r%2F1"), 404),
        (a_request("GET", "/v1/runs/%F0%9F%98%80"), 404),
        (a_request("GET", "/v1/runs/%ff"), 404),
        (a_request("GET", "/v1/runs/r-1/graph?format=svg"), 200),
        (a_request("GET", "/v1/nowhere"), 404),
        (a_request("GET", "/"), 404),
        (a_request("PUT", "/v1/runs"), 405),
        (a_request("HEAD", RUNS), 405),
        (a_request("OPTIONS", "/v1/runs"), 405),
        (a_request("POST", RUNS, b'{"input": "\xff"}', JSON), 400),
        (a_request("POST", RUNS, b"a=1", FORM), 415),
        (a_request("POST", RUNS, b'"' + b"x" * MOST_BYTES + b'"', JSON), 413),
        (a_request("POST", "/v1/events", b'{"name": "a", "key": "b"}', {**JSON, "Idempotency-Key": "e"}), 202),
        (a_request("GET", "/a/none"), 404),
        (a_request("HEAD", "/a/none"), 200),
        (a_request("POST", "/a/none", b"a=b", FORM), 404),
        (a_request("POST", "/cb/none", b"{}", JSON), 404),
        (a_request("POST", "/hooks/none", b"\x00\xff", {"Content-Type": "application/octet-stream"}), 404),
        (a_request("GET", "/hooks/none"), 405),
        (a_request("GET", "/healthz", b"", [("Cookie", "a=1"), ("X", "1"), ("x", "2")]), 200),
        (a_request("GET", "/healthz?" + "a" * 9_000), 414),
        (a_request("GET", "/v1/runs?" + "a&" * 101), 400),
    ],
    ids=_name,
)
def test_same_request_has_the_same_answer_under_both(twin: Twin, request_: Request, status: int) -> None:
    """Status, headers and body."""
    assert status == twin.held_together(request_)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (a_request("GET", "/v1/runs?status=suspended&status=success&limit=5"), 200),
        (a_request("GET", "/v1/runs?tag=a&tag=b"), 200),
        (a_request("POST", RUNS, b'{"input": "\xc3\xa9", "run_id": "r-2"}', JSON), 202),
        (a_request("GET", "/v1/runs/r-1", b"", [("If-None-Match", '"a"'), ("If-None-Match", '"b"')]), 200),
        (a_request("GET", "/healthz", b"", [("X", "1" * 11_000)]), 431),
    ],
    ids=_name,
)
def test_what_tells_a_time_or_a_size_has_the_same_status(twin: Twin, request_: Request, status: int) -> None:
    """The bodies differ: each App has its own clock, and a client adds headers of its own."""
    assert status == over_asgi(twin.own, request_).status_code == twin.over_gateway(request_).status


_ANY = st.text(st.characters(codec="utf-8"), max_size=8)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    method=st.sampled_from(["GET", "POST", "HEAD", "DELETE", "PATCH"]),
    path=st.sampled_from(["/healthz", "/v1/workflows/x", RUNS, "/v1/runs/none", "/hooks/x", "/cb/x", "/a/x", "/x"]),
    query=st.lists(st.tuples(st.sampled_from(["limit", "fields", "x"]), _ANY), max_size=3),
    body=st.binary(max_size=30),
    kind=st.sampled_from(["application/json", "text/plain", "text/x", "image/png", ""]),
)
def test_any_request_has_the_same_answer_under_both(
    method: str, path: str, query: list[tuple[str, str]], body: bytes, kind: str
) -> None:
    """Whatever it says; nothing of it starts a run, which would have another name in each."""
    target = f"{path}?{urlencode(query)}" if query else path
    TWIN.held_together(a_request(method, target, b"!" + body, {"Content-Type": kind}))


TWIN = Twin()


def test_requests_at_once_do_not_see_each_other() -> None:
    """Each route reads the headers and the variables of its own request, however they overlap."""
    both_are_in = threading.Barrier(8, timeout=20)

    def routers(_: App) -> list[Router]:
        router = Router()  # type: ignore[no-untyped-call]  # Powertools leaves its constructor untyped

        @router.get("/who/<name>")
        def who(name: str) -> Response[str]:
            both_are_in.wait()
            seen = [name, str(router.current_event.headers["x-name"]), str(router.current_event.path)]
            return Response(200, "text/plain", " ".join(seen))

        return [router]

    application = Asgi(Api(App(), routers, Quiet()), threads=8)

    def call(name: str) -> str:
        return application.answer(a_request("GET", f"/who/{name}", headers={"X-Name": name})).body.decode()

    names = [f"n{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert [f"{name} {name} /who/{name}" for name in names] == list(pool.map(call, names))


def test_body_is_read_no_further_than_it_may_be_long() -> None:
    """Of one that was announced nothing is read, of another as much as shows that it is too large."""
    application, parts = asgi(App(workflow("ask", input=Any, output=Any).then(ask).commit())), []

    async def endless() -> AsyncIterator[bytes]:
        for number in range(1_000):
            parts.append(number)
            yield b"x" * 100_000

    async def post(headers: Mapping[str, str]) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://x") as client:
            return await client.post(RUNS, content=endless(), headers={**JSON, **headers})

    told = asyncio.run(post({"Content-Length": "100000000"}))
    assert (413, 100_000_000, 0) == (told.status_code, told.json()["size"], len(parts))
    untold = asyncio.run(post({}))
    assert 413 == untold.status_code
    assert len(parts) == 11  # ten parts are as much as it may be, the next shows that it is more


@pytest.mark.parametrize(("docs", "status"), [(True, 200), (False, 404)])
def test_page_of_the_api_is_shown_where_it_is_asked_for(docs: bool, status: int) -> None:
    """And nowhere else."""
    assert status == over_asgi(asgi(App(), docs=docs), a_request("GET", "/v1/docs")).status_code


def test_caller_is_who_authorize_says() -> None:
    """As a gateway's authorizer would; without one everybody is a stranger to a policy."""
    app = an_app()
    claims = {"jwt": {"claims": {"sub": "ada"}, "scopes": ["flowcore:read"]}}
    seen = []

    def authorize(request: Request) -> Mapping[str, Any] | None:
        seen.append(dict(request.headers).get("authorization"))
        return claims

    known, unknown = [asgi(app, policy=Policy(mode="jwt"), authorize=how) for how in (authorize, None)]
    asked = a_request("GET", "/v1/runs", headers={"authorization": "Bearer x"})
    assert (200, 401) == (over_asgi(known, asked).status_code, over_asgi(unknown, asked).status_code)
    assert ["Bearer x"] == seen


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (None, 401),
        ({"jwt": {"claims": {"sub": "ada"}, "scopes": []}}, 403),
        ({"jwt": {"claims": {"sub": "ada"}, "scopes": ["flowcore:read"]}}, 200),
    ],
)
def test_whoever_finds_out_who_calls_lets_nobody_else_in(found: Any, status: int) -> None:
    """Without a word about a policy: who is not known, or may not, is refused. Some routes need nobody."""
    application = asgi(an_app(), authorize=lambda _: found)
    assert status == over_asgi(application, a_request("GET", "/v1/runs")).status_code
    assert 200 == over_asgi(application, a_request("GET", "/healthz")).status_code


@pytest.mark.parametrize(
    ("error", "status", "type"),
    [
        (Unauthenticated("The token is of yesterday."), 401, "unauthenticated"),
        (Forbidden("Not from here."), 403, "forbidden"),
        (ValueError("a secret"), 500, "internal-error"),
    ],
    ids=["unknown", "not allowed", "broken"],
)
def test_what_is_raised_while_finding_out_who_calls_is_an_answer(error: Exception, status: int, type: str) -> None:
    """And a fault says nothing of itself to the caller, but to the log."""
    log = Quiet()

    def authorize(_: Request) -> Mapping[str, Any]:
        raise error

    answer = Asgi(Api(an_app(), served, log), authorize=authorize).answer(a_request("GET", "/v1/runs"))
    told = json.loads(answer.body)
    assert (status, type) == (answer.status, told["type"].rsplit("/", 1)[1])
    assert "secret" not in answer.body.decode()
    assert ([error] if status == 500 else []) == log.faults


def test_application_lives_as_long_as_its_server() -> None:
    """It answers the server's questions, takes no websockets, and knows what it does not know."""
    application = asgi(App())

    async def tell(kind: str, *messages: str) -> list[str]:
        asked, said = iter(messages), []

        async def receive() -> dict[str, Any]:
            return {"type": next(asked)}

        async def send(message: Any) -> None:
            said.append(message["type"])

        await application({"type": kind, "headers": [], "method": "POST", "path": "/x"}, receive, send)
        return said

    assert ["websocket.close"] == asyncio.run(tell("websocket"))
    assert [] == asyncio.run(tell("http", "http.disconnect"))
    with pytest.raises(ValueError, match="mail"):
        asyncio.run(tell("mail"))
    lifespan = asyncio.run(tell("lifespan", "lifespan.startup", "lifespan.shutdown"))
    assert ["lifespan.startup.complete", "lifespan.shutdown.complete"] == lifespan


@pytest.mark.parametrize(
    "scope",
    [
        {"path": "/v1/runs/é x", "raw_path": b"/v1/runs/%C3%A9%20x"},
        {"path": "/v1/runs/é x"},
        {"path": "/flows/v1/runs/é x", "raw_path": b"/flows/v1/runs/%C3%A9%20x", "root_path": "/flows"},
    ],
    ids=["as sent", "decoded", "mounted"],
)
def test_path_is_read_however_the_server_gives_it(scope: dict[str, Any]) -> None:
    """Decoded once, and without where the application is mounted."""
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        said.append(message)

    whole = {"type": "http", "method": "GET", "headers": [], "query_string": b"", **scope}
    asyncio.run(asgi(App())(whole, receive, send))
    assert 404 == said[0]["status"]
    assert "'é x'" in json.loads(said[1]["body"])["detail"]
