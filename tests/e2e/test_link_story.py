"""The whole story on the local stack: a mail with a link, a page in a browser, a signed webhook, a second click.

Everything is real but AWS and the mail server: template, handlers in processes of their own, HTTP, Chromium.
"""

from __future__ import annotations

import json
import re
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import pytest

from examples.refund import APPROVER
from flowcore.links import Grant, Links
from flowcore.webhooks import sign
from infra.local.demo_app import BANK_KEY, ENVIRONMENT
from infra.local.stack import LocalStack
from tests.e2e.browser import Browser
from tests.e2e.readable import FAULTS

pytestmark = [pytest.mark.xdist_group("local-stack"), pytest.mark.slow, pytest.mark.gate]

T = TypeVar("T")

AT_ONCE = 64
DEADLINE_S = 60.0
FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    """One stack for the file, serving the refunds."""
    with LocalStack(
        parameters={"AppModule": "infra.local.demo_app:app", "Swagger": "true"}, environment=ENVIRONMENT
    ) as running:
        yield running


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """A browser that knows nothing yet."""
    with Browser(tmp_path / "profile") as started:
        yield started


def call(
    stack: LocalStack, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    """One request over a connection of its own."""
    connection = HTTPConnection(urlsplit(stack.url).netloc, timeout=DEADLINE_S)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}
    finally:
        connection.close()


def post(stack: LocalStack, path: str, value: Any) -> tuple[int, Any]:
    """JSON there and back."""
    status, body, _ = call(stack, "POST", path, json.dumps(value).encode(), content_type="application/json")
    return status, json.loads(body)


def shown(stack: LocalStack, run: str) -> Any:
    """A run."""
    return json.loads(call(stack, "GET", f"/v1/runs/{run}")[1])


def until(look: Callable[[], Any]) -> Any:
    """What ``look`` answers once it is something."""
    end = time.monotonic() + DEADLINE_S
    while not (found := look()):
        assert time.monotonic() < end, f"Still {found!r} after {DEADLINE_S} s."
        time.sleep(0.05)
    return found


def asked(stack: LocalStack, run: str, reason: str = "the kettle leaks") -> str:
    """Start a refund, and open its mail: the link in what the worker has printed."""
    before = len(stack.logs("WorkerFunction"))
    status, _ = post(
        stack,
        "/v1/workflows/refund/runs",
        {"run_id": run, "input": {"order": run, "cents": 990, "reason": reason}},
    )
    assert 202 == status

    def mailed() -> str | None:
        lines = [line.text for line in stack.logs("WorkerFunction")[before:]]
        found = [match[0] for line in lines if (match := re.search(r"http://127\.0\.0\.1:\d+/a/[\w.-]+", line))]
        return found[0] if found else None

    return str(until(mailed))


def path_of(link: str) -> str:
    """Its path."""
    return urlsplit(link).path


def test_story_from_the_mail_to_the_bank(stack: LocalStack, browser: Browser, tmp_path: Path) -> None:
    """Nobody but the person with the link decides, in a browser; the bank ends it; who comes later is told."""
    link = asked(stack, "story-1")
    assert link.startswith(stack.url + "/a/")
    assert [200, 200] == [call(stack, method, path_of(link))[0] for method in ("HEAD", "GET")]
    assert "suspended" == shown(stack, "story-1")["status"]

    browser.look(900, 800)
    browser.open(link)
    assert "the kettle leaks" in browser.text
    assert f"You answer as {APPROVER}." in browser.text
    assert is_drawn(browser.shoot(tmp_path / "asked.png"))
    browser.click("input[value=true]")
    browser.type("textarea", "Of course, sorry!")
    browser.send()
    assert "Your answer has been recorded." in browser.text

    told = until(lambda: [wait for wait in shown(stack, "story-1")["waits"] if wait["label"] is None])
    assert {"event": "refund.paid", "key": "story-1"} == told[0]["payload"]
    assert [(APPROVER, "link")] == [(one["by"], one["via"]) for one in receipts(stack, "story-1")]

    body = json.dumps({"order": "story-1", "amount": 990}).encode()
    headers = sign("evt-1", body, stack.clock.now(), [BANK_KEY])
    assert 401 == call(stack, "POST", "/hooks/bank", body + b" ", **headers)[0]
    verdicts = [json.loads(call(stack, "POST", "/hooks/bank", body, **headers)[1])["verdict"] for _ in range(2)]
    assert ["applied", "duplicate"] == verdicts
    until(lambda: shown(stack, "story-1")["status"] == "success")
    assert "990 cents are back" == shown(stack, "story-1")["output"]

    browser.open(link)
    assert "You have answered" in browser.text
    assert APPROVER in browser.text
    assert is_drawn(browser.shoot(tmp_path / "decided.png"))
    assert [] == [url for url in browser.requests if not url.startswith((stack.url, "about:"))]
    assert [] == [said for said in browser.complaints if "409" not in said]


@pytest.mark.parametrize("dark", [False, True])
def test_page_is_for_everybody(stack: LocalStack, browser: Browser, *, dark: bool) -> None:
    """On a phone and on a desk, light and dark: it fits, every control has a name, all text can be read."""
    link = asked(stack, f"read-{dark}", reason="a-word-without-an-end-" * 30)
    for width in (320, 1200):
        browser.look(width, 700, dark=dark)
        browser.open(link)
        assert [] == browser.run(FAULTS)
        browser.run("document.querySelector('form').noValidate = true")
        browser.send()
        assert "This answer was not taken." in browser.text
        assert [] == browser.run(FAULTS)
        browser.open(stack.url + "/a/nonsense")
        assert [] == browser.run(FAULTS)


def test_page_of_the_api_shows_every_operation_and_tries_one(
    stack: LocalStack, browser: Browser, tmp_path: Path
) -> None:
    """Within what its policy lets it do: nothing is loaded from elsewhere."""
    document = json.loads(call(stack, "GET", "/v1/openapi.json")[1])
    browser.look(1200, 900)
    browser.open(stack.url + "/v1/docs")
    until(lambda: browser.run("document.querySelector('.opblock') !== null"))
    assert browser.run("document.querySelectorAll('.opblock').length") == sum(map(len, document["paths"].values()))
    assert [tag["name"] for tag in document["tags"]] == browser.run(
        "[...document.querySelectorAll('.opblock-tag')].map(tag => tag.dataset.tag)"
    )
    assert is_drawn(browser.shoot(tmp_path / "swagger.png"))
    for button in (".opblock-summary-control", ".try-out__btn", ".execute"):
        selector = f"[id$=healthz] {button}"
        until(lambda: browser.run(f"document.querySelector({selector!r}) !== null"))  # noqa: B023  # asked at once
        browser.run(f"document.querySelector({selector!r}).click()")
    until(lambda: browser.run("document.querySelector('[id$=healthz] .live-responses-table') !== null"))
    assert '"status": "ok"' in browser.text
    assert [] == [url for url in browser.requests if not url.startswith((stack.url, "about:", "data:"))]
    assert [] == browser.complaints


def test_browser_runs_nothing_that_a_run_shows(stack: LocalStack, browser: Browser) -> None:
    """Markup in a payload is text; a script that got onto the page all the same would not run."""
    hostile = "</dd></dl><img src=x onerror='window.owned=1'><script>window.owned=1</script><style>*{color:red}"
    browser.open(asked(stack, "hostile-1", reason=hostile))
    assert hostile in browser.text
    browser.run(
        "const s = document.createElement('script'); s.textContent = 'window.owned=1'; document.body.append(s);"
        " const i = document.createElement('img'); i.src = 'https://example.com/x.png'; document.body.append(i);"
        " document.body.insertAdjacentHTML('beforeend', '<p style=\"color:red\" onclick=\"1\">x</p>'); 0"
    )
    assert browser.run("window.owned") is None
    until(lambda: sum("Content Security Policy" in said for said in _heard(browser)) >= 3)


def _heard(browser: Browser) -> list[str]:
    browser.run("0")
    return browser.complaints


def test_of_many_clicks_at_once_one_decides(stack: LocalStack) -> None:
    """64 posts at the same moment to a page: one is thanked, 63 are told who was faster, and it is always the same."""
    link = path_of(asked(stack, "clicks-1"))
    texts: list[bytes] = []

    def click(number: int) -> int:
        form = urlencode({"approved": "true", "comment": f"click {number}"}).encode()
        status, body, _ = call(stack, "POST", link, form, content_type=FORM)
        if status == 409:
            texts.append(body)
        return status

    assert Counter({200: 1, 409: AT_ONCE - 1}) == Counter(at_once(click))
    assert 1 == len(set(texts))
    assert APPROVER.encode() in texts[0]
    assert 1 == len([one for one in receipts(stack, "clicks-1") if one["verdict"] == "applied"])


def test_of_many_callbacks_at_once_one_counts(stack: LocalStack) -> None:
    """The same for programs, with a link made of the stack's own secret; the receipt is the first one's."""
    asked(stack, "callbacks-1")
    wait = shown(stack, "callbacks-1")["waits"][0]
    path = path_of(links(stack).url(grant("callbacks-1", wait["id"], datetime.fromisoformat(wait["deadline"]))))
    answers = at_once(lambda _: post(stack, path, {"approved": True}))
    assert_one_has_won(answers, 200)
    assert {APPROVER} == {body["winner"]["by"] for status, body in answers if status == 409}


def test_of_many_answers_at_once_one_counts(stack: LocalStack) -> None:
    """The same over the API."""
    expense = {"employee": "ada", "amount": 60_000, "purpose": "a telescope"}
    assert 202 == post(stack, "/v1/workflows/expense/runs", {"run_id": "answers-1", "input": expense})[0]
    until(lambda: shown(stack, "answers-1")["status"] == "suspended")
    answers = at_once(lambda _: post(stack, "/v1/runs/answers-1/resume", {"data": {"approved": True}}))
    assert_one_has_won(answers, 202)


def assert_one_has_won(answers: Sequence[tuple[int, Any]], won: int) -> None:
    """One has, and every other answer names that one."""
    assert Counter({won: 1, 409: AT_ONCE - 1}) == Counter(status for status, _ in answers)
    (receipt,) = [body["receipt"] for status, body in answers if status == won]
    winners = [body["winner"] for status, body in answers if status == 409]
    assert {json.dumps(winners[0], sort_keys=True)} == {json.dumps(one, sort_keys=True) for one in winners}
    assert receipt["at"][:23] == winners[0]["at"][:23]


def at_once(ask: Callable[[int], T]) -> list[T]:
    """What everybody is answered who asks at the same moment."""
    gate = threading.Barrier(AT_ONCE)

    def one(number: int) -> T:
        gate.wait()
        return ask(number)

    with ThreadPoolExecutor(AT_ONCE) as crowd:
        return list(crowd.map(one, range(AT_ONCE)))


def receipts(stack: LocalStack, run: str) -> list[dict[str, Any]]:
    """What became of every answer to a run."""
    return list(json.loads(call(stack, "GET", f"/v1/runs/{run}/receipts?limit=100")[1])["items"])


def links(stack: LocalStack) -> Links:
    """Signed as the stack signs."""
    place = stack.environment()["FLOWCORE_LINK_SECRETS"].removeprefix("secretsmanager:")
    secrets = stack.client("secretsmanager").get_secret_value(SecretId=place)["SecretString"]
    return Links(stack.environment()["FLOWCORE_PUBLIC_URL"], json.loads(secrets))


def grant(run: str, wait: str, until: datetime) -> Grant:
    """To call back."""
    return Grant(tenant="default", run_id=run, wait=wait, door="cb", actor=APPROVER, until=until)


def is_drawn(png: bytes) -> bool:
    """Whether there is something on a picture, and not one colour in all of it."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, rows = 8, b""
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            rows += png[at + 8 : at + 8 + length]
        at += length + 12
    (width,) = struct.unpack(">I", png[16:20])
    drawn = zlib.decompress(rows)
    line = len(drawn) // struct.unpack(">I", png[20:24])[0]
    return width > 0 and len({drawn[start : start + line] for start in range(0, len(drawn), line)}) > 50
