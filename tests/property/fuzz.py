"""Random requests to every route, drawn from the OpenAPI document, and what every answer to them has to be.

The requests go through the same event as those of the gateway, in this process. Half of them fit the document, half do
not; where a path names a run, a wait or a workflow, every other one names one that there is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.transport import Response
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from flowcore import App, StepContext, step, workflow
from flowcore.deliveries import Webhook
from flowcore.http.access import wait_id_of
from flowcore.http.api import Api
from flowcore.http.everything import served
from flowcore.http.gateway import Front, Request, event_of, response_of
from flowcore.testing import LocalApp
from flowcore.webhooks import StandardWebhooks
from tests.unit.web import Quiet

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
WALKED = [
    *("start_run", "get_run", "resume_run", "cancel_run", "list_events", "list_receipts", "draw_run"),
    *("list_waits", "get_wait", "answer_wait", "list_workflows", "list_runs"),
]
"""Routes that the document's links join."""
CALM = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large, HealthCheck.large_base_example]
"""A busy machine is no reason to stop."""
RENEWED_AFTER = 8
"""Requests that may change something, until all runs are as they were: else most would meet what is gone or over."""
CHOICES = (*range(30), *[None] * 30)
"""Half of the requests, or more, name what there is; drawn evenly, as ``none() | integers()`` is not."""
PLACES = {"step", "label", "wait", "index"}
CALLER = {"jwt": {"claims": {"sub": "ada"}, "scopes": ["flowcore:admin"]}}


@step
def ask(value: dict[str, Any], ctx: StepContext[Any, Any]) -> Any:
    """Waits for anything, with a deadline and people who may answer."""
    if ctx.resume_data is None and not ctx.timed_out:
        ctx.suspend({"of": value}, label="ask", timeout=timedelta(days=1), approvers=["ada", "bob"])
    return ctx.resume_data


@step
def fail(value: Any) -> Any:
    """Never works."""
    raise ValueError("no")


ASK = workflow("ask", input=dict[str, Any], output=Any).then(ask).commit()
FAIL = workflow("fail", input=Any, output=Any).then(fail).commit()
PAID = workflow("paid", input=Any, output=Any).wait_for_event("paid", key="k").commit()


class Served:
    """An API with a run in each state that a caller can bring about."""

    def __init__(self) -> None:
        self.log = Quiet()
        self.statuses: Counter[int] = Counter()
        """Of all answers."""
        self.renew()
        self.document = self.ask(Request(method="GET", target="/v1/openapi.json", headers=(), body=b"")).json()
        self.schema = schemathesis.openapi.from_dict(self.document)

    def renew(self) -> None:
        """Begin with the same runs again."""
        hook = Webhook(name="shop", scheme=StandardWebhooks(), secret="env:SHOP", event="paid", key="k")
        self.app = LocalApp(App(ASK, FAIL, PAID, webhooks=[hook]))
        self.api = Api(self.app, served, self.log)
        self.ids = ("waits", "again", "failed", "ended", "listens")
        for id, flow in (("waits", "ask"), ("again", "ask"), ("failed", "fail"), ("ended", "ask"), ("listens", "paid")):
            self.app.workflow(flow).create_run(id, tags=["t"]).start({})
        self.app.run("ended").resume("yes", by="ada")

    def ask(self, request: Request) -> Any:
        """The answer, as a client has it."""
        front = Front(now=self.app.clock.now(), request_id="r", authorizer=CALLER)
        answer = response_of(self.api(event_of(request, front), None))
        self.statuses[answer.status] += 1
        found = requests.Response()
        found.status_code = answer.status
        found._content = answer.body
        found.headers.update(answer.headers)
        return found

    def call(self, case: Any) -> Response:
        """The answer to a case that was drawn."""
        prepared = requests.Request(**_plain(case.as_transport_kwargs(base_url="http://localhost"))).prepare()
        body: Any = prepared.body or b""
        raw = body.encode() if isinstance(body, str) else body
        headers = [(_text(name), _text(value)) for name, value in prepared.headers.items()]
        answer = self.ask(Request(method=str(prepared.method), target=prepared.path_url, headers=headers, body=raw))
        return Response(
            status_code=answer.status_code,
            headers={name.lower(): [value] for name, value in answer.headers.items()},
            content=answer.content,
            request=prepared,
            elapsed=0.0,
            verify=False,
            encoding="utf-8",
        )

    def operations(self) -> Iterator[str]:
        """``GET /v1/runs`` and so on, in the order of the document."""
        for path, methods in self.document["paths"].items():
            yield from (f"{method.upper()} {path}" for method in methods)

    def known(self, case: Any, choice: int) -> None:
        """Let its path name what there is, and, of three times once, its body the step that waits there."""
        run = self.ids[choice % len(self.ids)]
        names = {"run_id": run, "workflow": ("ask", "fail", "paid")[choice % 3], "name": "shop"}
        names["wait_id"] = wait_id_of(run, ("ask@0", "ask@1")[choice % 2])
        case.path_parameters = {name: names.get(name, value) for name, value in (case.path_parameters or {}).items()}
        if choice % 3 == 0 and isinstance(case.body, dict) and case.body.keys() & {"step", "data"}:
            place = {} if "data" in case.body else {"step": "ask"}
            case.body = {name: value for name, value in case.body.items() if name not in PLACES} | place


def fuzz(key: str, examples: int, mode: GenerationMode, *, number: int, kind: type[Served] = Served) -> Counter[int]:
    """Ask one route so often; how often which status came. Raises: what the first wrong answer fails with."""
    server = kind()
    method, path = key.split(" ")
    operation = server.schema[path][method]
    drawn = operation.as_strategy(generation_mode=mode)

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=CALM,
    )
    @given(case=drawn, choice=st.sampled_from(CHOICES))
    def tried(case: Any, choice: int | None) -> None:
        if method != "get" and server.statuses.total() % RENEWED_AFTER == 0:
            server.renew()
        if choice is not None:
            server.known(case, choice)
        right(server, case, server.call(case))

    server.statuses.clear()  # of what was asked before: the document
    tried()
    return server.statuses


def walk(walks: int, *, number: int) -> Counter[str]:
    """Follow the document's links: start, get, resume, cancel. How often which route was asked, with which status.

    Raises: what the first wrong answer fails with.
    """
    asked: Counter[str] = Counter()
    server = Served()

    linked = server.schema.include(operation_id=WALKED)

    class Walk(linked.as_state_machine()):  # type: ignore[misc]  # made by schemathesis, of no static type
        def setup(self) -> None:
            server.renew()
            self.answers = 0  # of this walk alone: the same beginning has to go on in the same way

        def before_call(self, case: Any) -> None:
            if case.operation.path.endswith("/runs"):  # a walk begins with a run that waits
                case.path_parameters = {"workflow": "ask"}
                case.body = {**(case.body if isinstance(case.body, dict) else {}), "input": {}}
            if case.operation.path.endswith("/resume"):  # every other answer asks for nothing odd
                self.answers += 1
                if self.answers % 2:
                    case.headers, case.body = {}, {"data": "yes"}

        def call(self, case: Any, **_: Any) -> Response:
            answer = server.call(case)
            asked[f"{case.method} {case.operation.path} {answer.status_code}"] += 1
            return answer

        def validate_response(self, response: Response, case: Any, *_: Any, **__: Any) -> None:
            right(server, case, response)

    seed(number)(Walk).run(
        settings=settings(
            max_examples=walks,
            stateful_step_count=12,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=CALM,
        )
    )
    return asked


def right(server: Served, case: Any, answer: Response) -> None:
    """What every answer has to be: of the document's form, no fault of ours, and a problem where it is none."""
    assert server.log.faults == [], server.log.faults
    case.validate_response(answer, checks=CHECKS)
    kind = (answer.headers.get("content-type") or [""])[0]
    if answer.status_code >= 400:
        assert kind == "application/problem+json", kind
        assert answer.json()["status"] == answer.status_code
    if answer.status_code in (429, 503):
        assert "retry-after" in answer.headers


def _plain(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name not in ("timeout", "allow_redirects")}


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
