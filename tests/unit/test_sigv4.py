"""Requests are signed as IAM computes it: held against a second reading of the specification."""

from __future__ import annotations

import hashlib
import hmac
import re
from urllib.parse import quote

import httpx
import pytest
from boto3.session import Session

from flowcore.adapters.sigv4 import SigV4
from flowcore.client import Client
from flowcore.errors import SettingsError

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def signature(request: httpx.Request) -> str:
    """What IAM expects. Source: IAM user guide, "Create a signed AWS API request"."""
    found = re.search(r"SignedHeaders=([\w;-]+)", request.headers["authorization"])
    assert found is not None
    path, _, query = request.url.raw_path.decode().partition("?")
    lines = [f"{name}:{request.headers[name].strip()}" for name in found[1].split(";")]
    body = hashlib.sha256(request.content).hexdigest()
    asked = "\n".join(
        [request.method, quote(path, safe="/~"), "&".join(sorted(query.split("&"))), *lines, "", found[1], body]
    )
    at = request.headers["x-amz-date"]
    scope = f"{at[:8]}/eu-central-1/execute-api/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", at, scope, hashlib.sha256(asked.encode()).hexdigest()])
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def test_requests_are_signed_whatever_is_asked() -> None:
    """With a query that has to be quoted, with a body, and for an id with a colon; the session token goes along."""
    sent: list[httpx.Request] = []
    session = Session("AKIDEXAMPLE", SECRET, "a session", region_name="eu-central-1")

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={"items": [], "counts": {}, "event_id": "e", "verdict": "buffered"})

    with Client("https://api.example.com/prod", SigV4(session), transport=httpx.MockTransport(answer)) as client:
        client.counts(tag=["a b+c", "ä&d"], resource_id="x/y")
        client.send_event("paid", "A-1", {"ä": 1})
        client.events("r:1@x", after=3)

    for request in sent:
        assert signature(request) == request.headers["authorization"].rpartition("Signature=")[2]
    assert {"a session"} == {request.headers["x-amz-security-token"] for request in sent}


def test_signing_needs_credentials_and_a_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is said before anything is asked."""
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.delenv("AWS_REGION", raising=False)
    with pytest.raises(SettingsError, match="region"):
        SigV4(Session("id", "secret"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(SettingsError, match="credentials"):
        SigV4(region="eu-central-1")
