"""The pure rules of the local stack: routes, payloads, schedule times, batch answers, intrinsics and the clock."""

import json
import threading
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from typing import Any

import pytest

from flowcore.http.gateway import Request, Response
from infra.local.blueprint import Route
from infra.local.clock import StackClock
from infra.local.http_events import Router, from_result
from infra.local.http_front import MAX_BODY, HttpFront
from infra.local.knobs import Knobs
from infra.local.movers import failed_ids
from infra.local.outcomes import Died, Outcome, Raised, Returned, Throttled, TimedOut
from infra.local.schedules import UnknownExpression, due_at
from infra.local.template import Intrinsics, TemplateError, parameters


def _answer(value: Any) -> Returned:
    return Returned(json.dumps(value).encode())


ROUTES = [Route(key=key, function="F") for key in ("GET /runs/{run}", "GET /runs/open", "ANY /ui/{rest+}", "$default")]


@pytest.mark.parametrize(
    ("method", "path", "key", "variables"),
    [
        ("GET", "/runs/open", "GET /runs/open", {}),
        ("GET", "/runs/a%2Fb", "GET /runs/{run}", {"run": "a/b"}),
        ("PUT", "/ui/x/y.css", "ANY /ui/{rest+}", {"rest": "x/y.css"}),
        ("POST", "/runs/r", "$default", {}),
    ],
)
def test_router_takes_the_most_specific(method: str, path: str, key: str, variables: Mapping[str, str]) -> None:
    """Plain before variable before greedy before $default, whatever the order of the template."""
    found = Router(ROUTES).match(method, path)
    assert found is not None
    assert (key, variables) == (found.route.key, found.path_parameters)


def test_router_without_default_knows_no_other_path() -> None:
    """API Gateway then answers by itself."""
    assert Router(ROUTES[:3]).match("GET", "/") is None


@pytest.mark.parametrize(
    ("payload", "status", "body"),
    [
        (b'{"statusCode": 204}', 204, b""),
        (b'{"statusCode": "200", "body": "aGk=", "isBase64Encoded": true}', 200, b"hi"),
        (b'{"any": 1}', 200, b'{"any": 1}'),
        (b'"text"', 200, b"text"),
        (b'{"statusCode": "soon"}', 500, b'{"message":"Internal Server Error"}'),
        (b"nonsense", 500, b'{"message":"Internal Server Error"}'),
    ],
)
def test_handler_value_becomes_a_response(payload: bytes, status: int, body: bytes) -> None:
    """Shaped values are followed, others are the body, and a malformed one is the function's fault."""
    answer: Response = from_result(payload)
    assert (status, body) == (answer.status, answer.body)


def _ask(outcome: Outcome, *, method: str = "GET", body: Iterable[bytes] | None = None, length: str = "") -> int:
    """Status of a request to a front door whose function ends in ``outcome``."""
    front = HttpFront(ROUTES, lambda function, event: outcome, now=lambda: datetime.now(UTC))
    host = front.url.removeprefix("http://")
    with closing(front), closing(HTTPConnection(host, timeout=10)) as connection:
        headers = {"Content-Length": length} if length else {}
        connection.request(method, "/runs/r", body=body, headers=headers)
        return connection.getresponse().status


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (_answer({"statusCode": 299}), 299),
        (Raised(b"{}", "ValueError"), 500),
        (Died(-9), 500),
        (TimedOut(timedelta(seconds=1)), 500),
        (Throttled(), 503),
    ],
)
def test_front_door_speaks_for_a_function_that_failed(outcome: Outcome, status: int) -> None:
    """As API Gateway does: 500 for a failure, 503 for no capacity."""
    assert status == _ask(outcome)


def test_front_door_refuses_more_than_ten_megabytes() -> None:
    """By the announced length, without reading it."""
    assert 413 == _ask(_answer({}), method="POST", length=str(MAX_BODY + 1))


def test_front_door_reads_chunked_bodies() -> None:
    """A client that streams does not announce a length."""
    assert 200 == _ask(_answer({"statusCode": 200}), method="POST", body=iter([b"a", b"b"]))


def test_front_door_gives_up_at_its_limit() -> None:
    """Thirty seconds on AWS, less here; the function is not stopped by it."""
    release = threading.Event()

    def slow(function: str, event: bytes) -> Outcome:
        release.wait(10)
        return _answer({})

    front = HttpFront(ROUTES, slow, now=lambda: datetime.now(UTC), limit=timedelta(milliseconds=20))
    with closing(front):
        answer = front.answer(Request(method="GET", target="/runs/r", headers=(), body=b""))
    release.set()
    assert 503 == answer.status


@pytest.mark.parametrize(
    ("expression", "zone", "due"),
    [
        ("at(2026-11-24T09:00:00)", None, "2026-11-24T09:00:00+00:00"),
        ("at(2026-07-01T09:00:00)", "Europe/Berlin", "2026-07-01T07:00:00+00:00"),
        ("at(2026-12-01T09:00:00)", "Europe/Berlin", "2026-12-01T08:00:00+00:00"),
        ("at(2026-10-25T02:30:00)", "Europe/Berlin", "2026-10-25T00:30:00+00:00"),
    ],
)
def test_one_shot_is_due_at_its_wall_time(expression: str, zone: str | None, due: str) -> None:
    """In its own zone, summer time included; a repeated hour is taken the first time."""
    assert datetime.fromisoformat(due) == due_at(expression, zone)


@pytest.mark.parametrize(
    ("expression", "zone"),
    [
        ("rate(1 minute)", None),
        ("at(2026-11-24T09:00:00Z)", None),
        ("at(2026-11-24T09:00:00.5)", None),
        ("at(2026-13-24T09:00:00)", None),
        ("at(2026-11-24T09:00:00)", "Mars/Base"),
    ],
)
def test_other_expressions_are_refused(expression: str, zone: str | None) -> None:
    """Also those that AWS refuses and moto stores."""
    with pytest.raises(UnknownExpression):
        due_at(expression, zone)


BATCH = [{"MessageId": "a"}, {"MessageId": "b"}]


@pytest.mark.parametrize(
    ("outcome", "failed"),
    [
        (_answer(None), ""),
        (_answer({"batchItemFailures": []}), ""),
        (_answer({"batchItemFailures": [{"itemIdentifier": "b"}]}), "b"),
        (_answer({"batchItemFailures": [{"itemIdentifier": "unknown"}]}), "ab"),
        (_answer({"batchItemFailures": [{"itemIdentifier": None}]}), "ab"),
        (_answer({"batchItemFailures": [{}]}), "ab"),
        (_answer(["odd"]), "ab"),
        (Returned(b"not json"), "ab"),
        (Raised(b"{}", "ValueError"), "ab"),
        (TimedOut(timedelta(seconds=1)), "ab"),
        (Died(-9), "ab"),
        (Throttled(), "ab"),
    ],
)
def test_batch_answer_leaves_the_failed(outcome: Outcome, failed: str) -> None:
    """Only a well-formed answer about known messages lets any of them go."""
    assert frozenset(failed) == failed_ids(outcome, BATCH, partial=True)


TEMPLATE: Mapping[str, Any] = {
    "Parameters": {"Size": {"Type": "Number", "Default": 3}, "Tags": {"Type": "CommaDelimitedList", "Default": "a,b"}},
    "Conditions": {"Big": {"Fn::Not": [{"Fn::Equals": [{"Ref": "Size"}, "3"]}]}},
    "Mappings": {"M": {"k": {"x": "found"}}},
}


class _Lookup:
    def ref(self, name: str) -> Any:
        return parameters(TEMPLATE, {}).get(name, f"<{name}>")

    def attribute(self, name: str, attribute: str) -> str:
        return f"<{name}.{attribute}>"


@pytest.mark.parametrize(
    ("written", "resolved"),
    [
        ({"Ref": "Tags"}, ["a", "b"]),
        ({"Fn::Sub": "x-${Size}-${A.Arn}-${!kept}"}, "x-3-<A.Arn>-${kept}"),
        ({"Fn::Sub": ["${v}", {"v": {"Fn::Join": ["+", ["a", {"Ref": "B"}]]}}]}, "a+<B>"),
        ({"Fn::If": ["Big", 1, 2]}, 2),
        ({"k": {"Fn::If": ["Big", 1, {"Ref": "AWS::NoValue"}]}, "l": 1}, {"l": 1}),
        ([1, {"Ref": "AWS::NoValue"}], [1]),
        ({"Fn::FindInMap": ["M", "k", "x"]}, "found"),
        ({"Condition": {"StringEquals": {"a": {"Ref": "B"}}}}, {"Condition": {"StringEquals": {"a": "<B>"}}}),
    ],
)
def test_intrinsic_resolves_as_in_cloudformation(written: Any, resolved: Any) -> None:
    """The functions the template uses, nested and with nothing in their place."""
    assert resolved == Intrinsics(TEMPLATE, _Lookup()).resolve(written)


def test_unknown_intrinsic_is_an_error() -> None:
    """A template read half would be worse than one not read."""
    with pytest.raises(TemplateError, match="Fn::Cidr"):
        Intrinsics(TEMPLATE, _Lookup()).resolve({"Fn::Cidr": []})


def test_unknown_parameter_is_an_error() -> None:
    """A misspelt parameter would silently leave its default."""
    with pytest.raises(TemplateError, match="Sizee"):
        parameters(TEMPLATE, {"Sizee": "4"})


def test_clock_forward_moves_time_and_what_functions_are_told() -> None:
    """Both by the same step."""
    clock = StackClock()
    before = datetime.now(UTC)
    clock.forward(timedelta(days=3))
    assert timedelta(days=3) <= clock.now() - before < timedelta(days=3, minutes=1)
    assert {"FLOWCORE_CLOCK_OFFSET": "259200.000000"} == clock.environment()


def test_clock_never_goes_back() -> None:
    """Neither by a negative step nor by a factor that stops it."""
    with pytest.raises(ValueError, match="forward"):
        StackClock().forward(timedelta(seconds=-1))
    with pytest.raises(ValueError, match="positive"):
        StackClock(factor=0)


def test_who_gets_away_is_made_up_for_by_the_next() -> None:
    """So that the share of killed invocations is what the knob says, however short they are."""
    knobs = Knobs(killed=0.1, seed=1)
    drawn = [knobs.dooms() for _ in range(1_000)]
    assert 60 < sum(drawn) < 140
    knobs.killed = 0.0
    knobs.spares()
    assert [True, False] == [knobs.dooms(), knobs.dooms()]


def test_so_many_messages_are_doubled_as_the_knob_says() -> None:
    """All of them at 1, none at 0; and as many of the same number, whatever else is drawn in between."""
    knobs, other = Knobs(doubled=0.1, seed=1), Knobs(doubled=0.1, killed=0.5, seed=1)
    drawn = [knobs.doubles() for _ in range(1_000)]
    assert 60 < sum(drawn) < 140
    assert drawn == [other.doubles() for _ in range(1_000) if other.dooms() is not None]
    assert [True, False] == [Knobs(doubled=share).doubles() for share in (1.0, 0.0)]
