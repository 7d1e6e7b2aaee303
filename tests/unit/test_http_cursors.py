"""A cursor over HTTP goes on with the listing that gave it, and is nothing anywhere else."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from flowcore import App, StepContext, step, workflow
from flowcore.http.access import Policy
from flowcore.http.everything import served
from flowcore.links import Links
from flowcore.testing import LocalApp
from tests.unit.web import Web

OLD, NEW = "0" * 32, "1" * 32
KEYS = {"none": None, "one": {"k1": OLD}}


@step
def ask(value: str, ctx: StepContext[str, None]) -> str:
    """Waits, for an answer that it does not like at first."""
    if ctx.resume_data is None or ctx.resume_data == "no":
        ctx.suspend(label="ask")
    return value


FLOW = workflow("ask", input=str, output=str).then(ask).commit()


def an_app(keys: dict[str, str] | None) -> LocalApp:
    """Three runs that wait, of each of two tenants; the first has been answered three times."""
    links = None if keys is None else Links("https://api.example.com", keys)
    app = LocalApp(App(FLOW, links=links))
    for tenant in ("default", "rival"):
        own = app.for_tenant(tenant)
        for id in ("r-1", "r-2", "r-3"):
            own.workflow("ask").create_run(id, "c-1").start("x")
            app.advance(seconds=1)
        for _ in range(3):
            own.run("r-1").resume("no")
    return app


def a_web(app: Any, tenant: str = "default") -> Web:
    """As a caller of this tenant sees it."""
    names = range(len(served(App())))
    authorizer = {"jwt": {"claims": {"sub": "ada", "tenant": tenant}, "scopes": ["flowcore:admin"]}}
    routers = [lambda one, n=n: served(one)[n] for n in names]
    return Web(app, *routers, policy=Policy(mode="jwt", tenant_claim="tenant"), authorizer=authorizer)


LISTINGS = ("/v1/runs?limit=1", "/v1/waits?limit=1", "/v1/doctor?limit=1", "/v1/runs/r-1/receipts?limit=1")


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("listing", LISTINGS)
def test_cursor_goes_through_the_whole_listing(listing: str, keys: str) -> None:
    """Page by page, each item once; another limit changes nothing."""
    web = a_web(an_app(KEYS[keys]))
    whole = web.get(listing.replace("limit=1", "limit=100")).body["items"]
    found: list[Any] = []
    cursor: Any = ""
    limit = 1
    while cursor is not None:
        page = web.get(f"{listing.replace('limit=1', f'limit={limit}')}{cursor and f'&cursor={cursor}'}").body
        found += page["items"]
        cursor, limit = page["cursor"], limit + 1
    assert sorted(map(str, whole)) == sorted(map(str, found))
    assert "doctor" in listing or len(found) >= 3


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("listing", LISTINGS)
def test_cursor_of_something_else_is_malformed(listing: str, keys: str) -> None:
    """Of another listing, another filter or another tenant, and one that was made or changed by hand."""
    app = an_app(KEYS[keys])
    web, rival = a_web(app), a_web(app, "rival")
    cursor = web.get(listing).body["cursor"]
    shown, mark = cursor.split(".", 1)
    plain = base64.urlsafe_b64decode(shown + "==").decode()
    others = [other for other in LISTINGS if other != listing]
    filtered = listing.replace("r-1", "r-2") if "receipts" in listing else f"{listing}&workflow=ask"
    assert {200} == {web.get(f"{listing}&cursor={cursor}").status}
    asked = {
        "another listing": [web.get(f"{other}&cursor={cursor}") for other in others],
        "another filter": [web.get(f"{filtered}&cursor={cursor}")],
        "another tenant": [rival.get(f"{listing}&cursor={cursor}")],
        "changed": [web.get(f"{listing}&cursor={one}") for one in _changed(shown, mark, plain)],
    }
    for what, answers in asked.items():
        assert {(400, "malformed-request")} == {(one.status, one.type) for one in answers}, what


def _changed(shown: str, mark: str, plain: str) -> list[str]:
    other = base64.urlsafe_b64encode(b"2").decode().rstrip("=")
    kid, signature = mark.split(".")
    made_up = ["", "x", ".", "..", "%00", "%C3%A9", plain, shown, f"{shown}.", f"{shown}.{kid}", f"{other}.{mark}"]
    forged = [f"{shown}.{kid}.{signature[:-1]}", f"{shown}.{kid}.{signature}x", f"{shown}.k9.{signature}"]
    return [*made_up, *forged, f"{shown}=.{mark}", f"{shown}.{kid}.%C3%A9", f"{shown}.{mark},{shown}.{mark}"]


def test_cursor_is_good_as_long_as_its_key() -> None:
    """A new key signs, the old one still verifies; without it the listing begins anew."""
    app = an_app({"k1": OLD})
    keys = {"k1": OLD}
    app.engine.links = Links("https://api.example.com", lambda: keys)
    web = a_web(app)
    cursor = web.get("/v1/runs?limit=1").body["cursor"]
    keys = {"k2": NEW, "k1": OLD}
    assert 200 == web.get(f"/v1/runs?limit=1&cursor={cursor}").status
    assert ".k2." in web.get("/v1/runs?limit=1").body["cursor"]
    keys = {"k2": NEW}
    assert 400 == web.get(f"/v1/runs?limit=1&cursor={cursor}").status


def test_checksum_is_no_signature_where_there_are_keys() -> None:
    """Who computes one himself is refused; so is a link's token."""
    plain, signed = a_web(an_app(None)), a_web(an_app({"k1": OLD}))
    assert 400 == signed.get(f"/v1/runs?limit=1&cursor={plain.get('/v1/runs?limit=1').body['cursor']}").status
    assert 400 == plain.get(f"/v1/runs?limit=1&cursor={signed.get('/v1/runs?limit=1').body['cursor']}").status
