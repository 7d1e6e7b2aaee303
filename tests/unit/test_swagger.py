"""The page on which the API can be tried: only where it is wanted, and with no more rights than it needs."""

from __future__ import annotations

import base64
import hashlib
import re

from flowcore import App
from flowcore.http.everything import served_with_docs
from flowcore.http.swagger import swagger
from tests.unit.web import Web


def test_page_may_run_its_own_scripts_and_talk_to_its_own_api() -> None:
    """By their hashes; nothing is loaded from elsewhere, nothing may frame it."""
    answer = Web(App(), swagger).get("/v1/docs")
    policy = answer.headers["content-security-policy"]
    scripts = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    marks = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert (200, "text/html; charset=utf-8", 2) == (answer.status, answer.headers["content-type"], len(scripts))
    assert f"script-src 'sha256-{marks[0]}' 'sha256-{marks[1]}';" in policy
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)", answer.text.split("<style>")[0])


def test_page_is_not_there_unless_it_is_asked_for() -> None:
    """And is no part of the document that it shows."""
    every = [lambda app, n=n: served_with_docs(app)[n] for n in range(len(served_with_docs(App())))]
    without, with_it = Web(App(), *every[:-1]), Web(App(), *every)
    assert (404, 200) == (without.get("/v1/docs").status, with_it.get("/v1/docs").status)
    assert without.get("/v1/openapi.json").text == with_it.get("/v1/openapi.json").text
