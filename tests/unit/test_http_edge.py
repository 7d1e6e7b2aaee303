"""The edge of the API: what every request passes, and that everything that goes wrong is a problem with a type."""

from __future__ import annotations

import json
import random
import sys
import time
from typing import Any

import pytest
from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.api_gateway import Router

from flowcore import App, step, strict, workflow
from flowcore.errors import MalformedRequest
from flowcore.http.limits import MOST_BYTES
from flowcore.http.routes import routes
from flowcore.strict import parsed
from flowcore.testing import LocalApp
from tests.unit.web import Web

RUNS = "/v1/workflows/echo/runs"
JSON, FORM = {"content-type": "application/json"}, {"content-type": "application/x-www-form-urlencoded"}


@step
def echo(value: Any) -> Any:
    """Gives what it is given."""
    return value


@pytest.fixture
def web() -> Web:
    """An API over one workflow that takes anything."""
    return Web(LocalApp(App(workflow("echo", input=Any, output=Any).then(echo).commit())), routes)


DEEP = "[" * 60_000
BOMBS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", ""),
    "not JSON": (b"{", "not JSON"),
    "two values": (b"1 2", "not JSON"),
    "not UTF-8": (b'{"input": "\xff"}', "not UTF-8"),
    "NaN": (b'{"input": NaN}', "NaN"),
    "infinity": (b'{"input": -Infinity}', "Infinity"),
    "too large for a double": (b'{"input": 1e400}', "too large"),
    "too many digits": (b'{"input": ' + b"9" * 5000 + b"}", "digits"),
    "a key twice": (b'{"input": 1, "input": 2}', "twice"),
    "a key twice, deep": (b'{"input": [{"a": 1, "a": 1}]}', "twice"),
    "many keys twice": (b'{"input": {' + b",".join(b'"k%d":1' % (i % 9000) for i in range(18_000)) + b"}}", "twice"),
    "NUL": (b'{"input": "\\u0000"}', "NUL"),
    "NUL in a key": (b'{"input": {"\\u0000": 1}}', "NUL"),
    "half a surrogate pair": (b'{"input": "\\ud800"}', "surrogate"),
    "deep": (DEEP.encode(), "nested"),
    "deep and closed": (b'{"input": ' + b"[" * 60_000 + b"]" * 60_000 + b"}", "nested"),
    "deeper than is read": (b'{"input": ' + b"[" * 150 + b"]" * 150 + b"}", "nested"),
    "deep objects": (b'{"input": ' + b'{"a":' * 30_000 + b"1" + b"}" * 30_000 + b"}", "nested"),
    "many values": (b'{"input": [' + b"1," * 120_000 + b"1]}", "values"),
    "many deep values": (b'{"input": [' + b",".join([b"[" * 98 + b"]" * 98] * 1_280) + b"]}", "values"),
    "256 KB deep": (b'{"input": ' + b"[" * 128_000 + b"]" * 128_000 + b"}", "values"),
    "256 KB of pairs, the last one twice": (
        b'{"input": {' + b",".join(b'"k%d":1' % number for number in range(23_000)) + b',"k0":1}}',
        "twice",
    ),
    "256 KB of numbers, the last one too large": (b'{"input": [' + b"1e9," * 62_000 + b"1e400]}", "too large"),
    "256 KB of pairs of surrogates, the last one a half": (
        b'{"input": "' + b"\\ud83d\\ude00" * 21_000 + b'\\ud800"}',
        "surrogate",
    ),
    "256 KB of commas and quotes in a string that never ends": (
        b'{"input": "' + b"," * 101_000 + b'\\"' * 76_000,
        "not JSON",
    ),
    "256 KB with a NUL at its end": (b'{"input": "' + b"x" * 250_000 + b'\\u0000"}', "NUL"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_hostile_body_is_refused_with_a_type(web: Web, name: str) -> None:
    """400 or 422, with what is wrong and nothing of what stood there."""
    body, complaint = BOMBS[name]
    answer = web.call("POST", RUNS, body, JSON)
    assert answer.status in (400, 422), answer.text
    assert answer.type in ("malformed-request", "invalid-input")
    assert complaint in answer.body["detail"]
    assert len(answer.text) < 1_000
    assert [] == web.log.faults


def test_text_may_have_more_commas_and_brackets_than_a_body_may_have_values(web: Web) -> None:
    """What stands in a string is no value."""
    for mark in (",", "[", '"{'):
        answer = web.call("POST", "/v1/nowhere", json.dumps({"input": mark * 110_000}).encode(), JSON)
        assert (answer.status, answer.type) == (404, "route-not-found"), mark


def slow_bombs(web: Web) -> set[str]:
    """Bodies of 256 KB that cost far more than an honest one of that size.

    CPU time of this thread, the best of some tries, against a bound that no busy machine reaches: what looks at each
    value once stays below twice the honest cost, what looks at each pair of values needs a hundred times as much.
    """
    honest = json.dumps({"input": ["x" * 50] * 4_500}).encode()

    def once(body: bytes) -> float:
        began = time.thread_time()
        web.call("POST", "/v1/nowhere", body, JSON)
        return time.thread_time() - began

    bound = 15 * min(once(honest) for _ in range(5)) + 0.05
    return {name for name, (body, _) in BOMBS.items() if all(once(body[:256_000]) > bound for _ in range(2))}


def test_hostile_body_is_answered_as_fast_as_an_honest_one_of_its_size(web: Web) -> None:
    """Nothing in it is looked at twice."""
    assert set() == slow_bombs(web)


MOST_MS = 50


def dear_bombs(web: Web, tries: int = 20) -> set[str]:
    """Bodies of at most 256 KB that take more than ``MOST_MS`` of this thread's CPU time at each of some tries.

    A busy machine only ever adds to it, so that one try below is proof enough.
    """

    def once(body: bytes) -> float:
        began = time.thread_time()
        web.call("POST", RUNS, body, JSON)
        return 1_000 * (time.thread_time() - began)

    return {name for name, (body, _) in BOMBS.items() if all(once(body[:256_000]) > MOST_MS for _ in range(tries))}


@pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer makes Python several times slower")
def test_hostile_body_is_answered_in_50_ms(web: Web) -> None:
    """Of CPU, whatever it is that is wrong with it."""
    assert set() == dear_bombs(web)


def test_reader_that_compares_each_with_each_would_be_found_out(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the test above is one."""

    def compared(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if any(names.count(name) > 1 for name in reversed(names)):
            raise MalformedRequest("twice")
        return dict(pairs)

    monkeypatch.setattr(strict, "_object", compared)
    many = b'{"input": {' + b",".join(b'"k%d":1' % number for number in range(4_000)) + b"}}"
    monkeypatch.setattr(f"{__name__}.BOMBS", {"many keys": (many, "")})
    assert {"many keys"} == slow_bombs(web)
    assert {"many keys"} == dear_bombs(web, tries=1)


@pytest.mark.parametrize(
    ("method", "target", "body", "headers", "status", "type"),
    [
        ("GET", "/v1/nowhere", None, {}, 404, "route-not-found"),
        ("GET", "/", None, {}, 404, "route-not-found"),
        ("PUT", RUNS, b"{}", {}, 405, "method-not-allowed"),
        ("DELETE", "/v1/workflows", None, {}, 405, "method-not-allowed"),
        (
            "POST",
            RUNS,
            b"input=1",
            {"content-type": "application/x-www-form-urlencoded"},
            415,
            "unsupported-media-type",
        ),
        ("POST", RUNS, b"{}", {"content-type": "text/plain"}, 415, "unsupported-media-type"),
        ("POST", RUNS, b'"' + b"x" * MOST_BYTES + b'"', JSON, 413, "payload-too-large"),
        ("POST", RUNS, b'{"nonsense": 1}', JSON, 422, "invalid-input"),
        ("POST", RUNS, b'{"input": 1}', {"content-type": "application/cloudevents+json"}, 202, None),
        ("POST", RUNS, b'{"input": 1}', {"content-type": "Application/JSON; charset=utf-8"}, 202, None),
        ("POST", RUNS, b'{"input": 1}', {}, 202, None),
    ],
)
def test_every_refusal_is_a_problem(
    web: Web, method: str, target: str, body: bytes | None, headers: dict[str, str], status: int, type: str | None
) -> None:
    """With the status as its own, and with what is allowed where that is the question."""
    answer = web.call(method, target, body, headers)
    assert status == answer.status, answer.text
    if type is not None:
        assert ("application/problem+json", type, status) == (
            answer.headers["content-type"],
            answer.type,
            answer.body["status"],
        )
    if status == 405:
        assert answer.headers["allow"] == ", ".join(answer.body["allowed"])


def test_fault_of_ours_tells_nothing() -> None:
    """The caller gets a bare 500; the log gets the exception."""
    router = Router()  # type: ignore[no-untyped-call]  # Powertools leaves its constructor untyped

    @router.get("/broken")
    def broken() -> Response[str]:
        raise ZeroDivisionError("the password is hunter2")

    web = Web(App(), lambda _: router)
    answer = web.get("/broken")
    assert (500, "internal-error") == (answer.status, answer.type)
    assert "hunter2" not in answer.text
    assert [ZeroDivisionError] == [type(fault) for fault in web.log.faults]


def test_body_that_is_not_what_its_encoding_says_is_malformed(web: Web) -> None:
    """A gateway never sends such a thing; somebody who calls the function may."""
    event = {
        "rawPath": RUNS,
        "body": "%%%",
        "isBase64Encoded": True,
        "headers": {},
        "requestContext": {"http": {"method": "POST"}},
    }
    assert 400 == web.api(event, None)["statusCode"]


@pytest.mark.parametrize("seed", range(200))
def test_honest_value_is_read_as_it_was_sent(seed: int) -> None:
    """Whatever JSON can say, within the bounds."""
    chance = random.Random(seed)

    def value(depth: int) -> Any:
        leaves = [
            None,
            True,
            chance.random(),
            chance.randrange(-(10**30), 10**30),
            'é\u2028\U0001f600\\"'[: chance.randrange(6)],
        ]
        if depth == 0 or chance.random() < 0.3:
            return chance.choice(leaves)
        if chance.random() < 0.5:
            return [value(depth - 1) for _ in range(chance.randrange(4))]
        return {f"k{n}": value(depth - 1) for n in range(chance.randrange(4))}

    sent = value(6)
    assert sent == parsed(json.dumps(sent)) == parsed(json.dumps(sent, ensure_ascii=False).encode())


def test_bounds_are_where_they_are_said_to_be() -> None:
    """The last one that fits, and the first one that does not."""
    deepest = "[" * strict.MOST_DEPTH + "]" * strict.MOST_DEPTH
    assert parsed(deepest)
    for text in (f"[{deepest}]", f'{{"a": {deepest}}}'):
        with pytest.raises(MalformedRequest, match="nested deeper than 100"):
            parsed(text)
    most = json.dumps([0] * (strict.MOST_NODES - 1))
    assert strict.MOST_NODES - 1 == len(parsed(most))
    with pytest.raises(MalformedRequest, match="more than 100000 values"):
        parsed(json.dumps([0] * strict.MOST_NODES))
