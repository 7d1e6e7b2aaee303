"""Who may: every route against every kind of caller, and what a caller sees of others' runs, which is nothing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from flowcore import App, StepContext, step, workflow
from flowcore.http.access import NEEDED, PUBLIC, Policy, scope_of, wait_id_of
from flowcore.http.everything import served
from flowcore.keys import RunRef
from flowcore.testing import LocalApp
from infra.functions import ROUTES
from tests.unit.web import Answer, Web

POLICY = Policy(
    mode="jwt", tenant_claim="tenant", owner_claim="customer", issuer="https://issuer", audience=("flowcore", "other")
)


@step
def ask(_: str, ctx: StepContext[str, None]) -> str:
    """Waits for a text."""
    if ctx.resume_data is None:
        ctx.suspend()
    return ctx.resume_data


FLOW = workflow("ask", input=str, output=str).then(ask).commit()


def token(*scopes: str, **claims: Any) -> Mapping[str, Any]:
    """What the gateway hands on of a token that it has verified."""
    plain = {"sub": "ada", "tenant": "acme", "customer": "c-1", "iss": "https://issuer", "aud": "[flowcore x]"}
    return {
        "jwt": {
            "claims": {**plain, "exp": "4102444800", **claims},
            "scopes": [f"flowcore:{scope}" for scope in scopes],
        }
    }


def forged(**changes: Any) -> Mapping[str, Any]:
    """An admin's token with some claims changed; None takes one away."""
    jwt = dict(token("admin")["jwt"])
    jwt["claims"] = {name: value for name, value in {**jwt["claims"], **changes}.items() if value is not None}
    return {"jwt": jwt}


class Shop:
    """An API with a run of ada's customer and one of somebody else's, both waiting."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.app = LocalApp(App(FLOW))
        self.routers = [_nth(n) for n in range(4)]
        self.web = Web(self.app, *self.routers, policy=policy)
        acme = self.app.for_tenant("acme")
        for id, owner in (("mine", "c-1"), ("theirs", "c-2")):
            acme.workflow("ask").create_run(id, owner).start("x", by="eve")

    def call(self, key: str, run: str = "mine", *, authorizer: Any, body: str | None = "{}") -> Answer:
        """A request to a route, about ``run``."""
        method, path = key.split(" ")
        waits = self.app.for_tenant("acme").run(run).result().waits if run in ("mine", "theirs") else []
        wait = wait_id_of(run, waits[0].id if waits else "ask@0")
        for name, value in {"run": run, "workflow": "ask", "wait": wait, "name": "h", "id": "1"}.items():
            path = path.replace(f"{{{name}}}", value)
        return self.web.call(method, path, None if method in ("GET", "DELETE") else body, authorizer=authorizer)


def _nth(n: int) -> Any:
    return lambda app: served(app)[n]


LOCKED = [key for key in ROUTES if key not in PUBLIC]
STRANGERS: dict[str, Mapping[str, Any]] = {
    "no token": {},
    "no claims": {"jwt": {}},
    "nobody named": forged(sub=None),
    "a name that is none": forged(sub=""),
    "signed by IAM instead": {"iam": {"userArn": "arn:aws:iam::1:user/eve"}},
    "expired": forged(exp="1000000000"),
    "expired, as a number": forged(exp=1000000000),
    "another issuer": forged(iss="https://evil"),
    "no issuer": forged(iss=None),
    "another audience": forged(aud="[evil flowcore2]"),
    "no audience": forged(aud=None),
}
LIMITED: dict[str, Mapping[str, Any]] = {
    "no scope": token(),
    "scopes of somebody else": {
        "jwt": {**token()["jwt"], "scopes": ["admin", "other:admin", "flowcore:", "flowcore:root"]}
    },
    "no tenant": forged(tenant=None),
    "a tenant that is none": forged(tenant="a#b"),
    "a tenant that is a list": forged(tenant=["acme"]),
}


@pytest.mark.parametrize("caller", STRANGERS)
def test_nobody_unknown_comes_in(caller: str) -> None:
    """Over every locked route: 401, and the same answer whether the run exists or not."""
    shop = Shop()
    for key in LOCKED:
        answers = [shop.call(key, run, authorizer=STRANGERS[caller]) for run in ("mine", "nowhere")]
        assert {(401, "unauthenticated")} == {(answer.status, answer.type) for answer in answers}, key
    assert ["suspended"] * 2 == _statuses(shop)


@pytest.mark.parametrize("caller", LIMITED)
def test_nobody_comes_in_whose_token_does_not_say_enough(caller: str) -> None:
    """Over every locked route: 403."""
    shop = Shop()
    for key in LOCKED:
        answer = shop.call(key, authorizer=LIMITED[caller])
        assert (403, "forbidden") == (answer.status, answer.type), key
    assert ["suspended"] * 2 == _statuses(shop)


@pytest.mark.parametrize("scope", ["read", "start", "resume", "cancel"])
def test_scope_opens_its_routes_and_no_other(scope: str) -> None:
    """Whatever a route answers then, it is not that the caller may not."""
    for key in LOCKED:
        answer = Shop().call(key, authorizer=token(scope))
        if NEEDED.get(key, "admin") == scope:
            assert answer.status not in (401, 403) or key == "POST /v1/events", key
        else:
            assert 403 == answer.status, key


def test_runs_of_another_tenant_do_not_exist() -> None:
    """Not for an admin either: 404 over every route that names a run, as for one that was never started."""
    shop = Shop()
    for key in (key for key in LOCKED if "{run}" in key or "{wait}" in key):
        answers = [
            shop.call(key, run, authorizer=token("admin", tenant="rival"), body=_body(key)) for run in ("mine", "none")
        ]
        assert {(404, "run-not-found")} == {(answer.status, answer.type) for answer in answers}, key
    for listing in ("/v1/runs", "/v1/waits"):
        assert [] == shop.web.call("GET", listing, authorizer=token("admin", tenant="rival")).body["items"]
    assert 0 == sum(
        shop.web.call("GET", "/v1/counts", authorizer=token("read", tenant="rival")).body["counts"].values()
    )
    assert ["suspended"] * 2 == _statuses(shop)


@pytest.mark.parametrize(
    ("policy", "authorizer"),
    [
        (Policy(), {}),
        (Policy(mode="iam"), {"iam": {"userArn": "arn:aws:iam::1:role/x"}}),
        (Policy(mode="jwt"), token("admin")),
    ],
    ids=["none", "iam", "jwt"],
)
def test_app_of_one_tenant_shows_the_runs_of_that_tenant(policy: Policy, authorizer: Mapping[str, Any]) -> None:
    """Where no token is to name another, whoever serves the App of a tenant serves this one, not the nameless one."""
    app = LocalApp(App(FLOW))
    for one, id in ((app, "of-default"), (app.for_tenant("acme"), "of-acme")):
        one.workflow("ask").create_run(id).start("x")
    web = Web(app.for_tenant("acme"), *[_nth(n) for n in range(4)], policy=policy)
    listed = web.call("GET", "/v1/runs", authorizer=authorizer).body["items"]
    assert ["of-acme"] == [run["run_id"] for run in listed]
    answers = [web.call("GET", f"/v1/runs/{id}", authorizer=authorizer) for id in ("of-acme", "of-default")]
    assert [200, 404] == [answer.status for answer in answers]


def test_runs_of_another_owner_do_not_exist_except_for_an_admin() -> None:
    """Neither by name, nor in a listing, whatever the caller asks for."""
    shop = Shop()
    every = token("read", "start", "resume", "cancel")
    for key in (key for key in LOCKED if NEEDED.get(key) and ("{run}" in key or "{wait}" in key)):
        answer = shop.call(key, "theirs", authorizer=every, body=_body(key))
        assert (404, "run-not-found") == (answer.status, answer.type), key
    for query in ("", "?resource_id=c-2", "?resource_id=c-1&resource_id=c-2"):
        listed = shop.web.call("GET", f"/v1/runs{query}", authorizer=every).body["items"]
        assert ["mine"] == [run["run_id"] for run in listed]
        assert ["mine"] == [
            w["run_id"] for w in shop.web.call("GET", f"/v1/waits{query}", authorizer=every).body["items"]
        ]
    assert 1 == shop.web.call("GET", "/v1/counts", authorizer=every).body["counts"]["suspended"]
    assert 200 == shop.call("GET /v1/runs/{run}", "theirs", authorizer=token("admin")).status
    assert 2 == len(shop.web.call("GET", "/v1/runs", authorizer=token("admin")).body["items"])


def test_run_belongs_to_whoever_starts_it() -> None:
    """Without being told, and whatever he says."""
    shop = Shop()
    runs, every = "/v1/workflows/ask/runs", token("start", "read")
    started = shop.web.call("POST", runs, '{"input": "x", "run_id": "new"}', authorizer=every)
    assert (202, "c-1") == (started.status, shop.app.for_tenant("acme").engine.peek(_ref("new")).resource_id)
    other = shop.web.call("POST", runs, '{"input": "x", "resource_id": "c-2"}', authorizer=every)
    assert (403, "forbidden") == (other.status, other.type)
    assert 403 == shop.web.call("POST", "/v1/events", '{"name": "a", "key": "b"}', authorizer=token("resume")).status


def test_tenant_in_a_request_is_not_believed() -> None:
    """Only a verified claim names one."""
    shop = Shop()
    for headers, target in itertools.product(({}, {"x-tenant": "acme", "tenant": "acme"}), ("", "?tenant=acme")):
        answer = shop.web.call(
            "GET", f"/v1/runs/mine{target}", None, headers, authorizer=token("admin", tenant="rival")
        )
        assert 404 == answer.status


def test_changes_and_denials_are_audited_without_a_payload() -> None:
    """Who, what, which run, which outcome; a read is not told, what was sent never is."""
    shop = Shop()
    shop.call("GET /v1/runs/{run}", authorizer=token("read"))
    shop.call("POST /v1/runs/{run}/resume", authorizer=token("read"), body='{"data": "hunter2"}')
    shop.call("POST /v1/runs/{run}/resume", authorizer=token("resume"), body='{"data": "hunter2"}')
    shop.call("POST /v1/runs/{run}/resume", authorizer=token("resume"), body='{"data": "hunter2"}')
    shop.call(
        "POST /v1/workflows/{workflow}/runs", authorizer=token("start"), body='{"input": "hunter2", "run_id": "r"}'
    )
    shop.call("GET /v1/runs", authorizer={})
    shown = ("outcome", "by", "run_id")
    told = [(line["action"].split("/")[-1], *(line[name] for name in shown)) for line in shop.web.log.lines]
    assert [
        ("resume", "denied", "ada", "mine"),
        ("resume", "done", "ada", "mine"),
        ("resume", "refused", "ada", "mine"),
        ("runs", "done", "ada", "r"),
        ("runs", "denied", None, None),
    ] == told
    assert "hunter2" not in str(shop.web.log.lines)


def test_doctor_is_for_the_operator_of_a_tenant() -> None:
    """Of whom he sees all runs that a deploy would stop, and of other tenants none."""
    shop = Shop()
    renamed = LocalApp(App(workflow("ask", input=str, output=str).then(ask, id="other").commit()), store=shop.app.store)
    web = Web(renamed, *shop.routers, policy=POLICY)
    found = web.call("GET", "/v1/doctor", authorizer=token("admin")).body["items"]
    rival = web.call("GET", "/v1/doctor", authorizer=token("admin", tenant="rival")).body["items"]
    assert {("mine", "definition-changed"), ("theirs", "definition-changed")} == {
        (one["run_id"], one["ailment"]) for one in found
    }
    assert ([], 403) == (rival, web.call("GET", "/v1/doctor", authorizer=token("read", "start", "cancel")).status)


def test_mode_without_a_lock_knows_callers_by_what_the_gateway_says() -> None:
    """For tests, and behind a gateway of one's own: everybody may everything."""
    shop = Shop(Policy())
    run = shop.app.workflow("ask").create_run("plain")
    run.start("x")
    assert 202 == shop.web.call("POST", "/v1/runs/plain/resume", '{"data": "y"}', authorizer=token()).status
    assert "ada" == run.receipts()[0].by


def test_iam_mode_wants_a_signed_request() -> None:
    """Which verbs a role may use is IAM's own to say, route by route."""
    shop = Shop(Policy(mode="iam"))
    assert 401 == shop.web.call("GET", "/v1/runs", authorizer=token("admin")).status
    assert 200 == shop.web.call("GET", "/v1/runs", authorizer={"iam": {"userArn": "arn:aws:iam::1:role/x"}}).status


def test_route_that_nobody_has_thought_of_needs_an_admin() -> None:
    """A new route is locked until somebody says otherwise; those that need nobody are two."""
    assert "admin" == scope_of("POST", "/v1/runs/r-1/new-thing")
    assert "admin" == scope_of("DELETE", "/v1/runs/r-1")
    assert {None} == {scope_of(*key.split(" ")) for key in PUBLIC}
    assert set(NEEDED) <= set(ROUTES)


def _body(key: str) -> str:
    needed = {"delegate": '{"to": "bob"}', "time-travel": '{"step": "ask"}', "fork": '{"step": "ask"}'}
    return needed.get(key.rsplit("/", 1)[-1], "{}")


def _ref(id: str) -> Any:

    return RunRef("acme", id)


def _statuses(shop: Shop) -> list[str]:
    return [shop.app.for_tenant("acme").run(id).result().status for id in ("mine", "theirs")]
