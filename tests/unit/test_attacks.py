"""What somebody with few rights, or none, has tried at the edge; docs/security.md names the tests that show it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from pydantic import BaseModel, Field

from flowcore import App, StepContext, step, workflow
from flowcore.deliveries import Webhook, deliver
from flowcore.http.access import Policy, wait_id_of
from flowcore.http.hooks import delivery_log
from flowcore.http.limits import Pace
from flowcore.links import Grant
from flowcore.testing import LocalApp
from flowcore.webhooks import StandardWebhooks
from tests.unit.test_doors import Seen, approve
from tests.unit.test_doors import Shop as Doors
from tests.unit.test_http_access import FLOW, POLICY, Shop, ask, token
from tests.unit.web import Answer, Web

STARTS = "/v1/workflows/ask/runs"
ADMIN = token("admin")


def begin(shop: Shop, body: dict[str, Any], key: str | None = None, *, owner: str = "c-2") -> Answer:
    """Start a run as somebody of another customer."""
    headers = {} if key is None else {"Idempotency-Key": key}
    return shop.web.call("POST", STARTS, json.dumps(body), headers, authorizer=token("start", customer=owner))


# -- other people's runs ----------------------------------------------------------------------------------------------


def test_idempotency_key_of_another_owner_starts_a_run_of_ones_own() -> None:
    """The key stands for the run's id, and two customers may well think of the same."""
    shop = Shop()
    first, second, again = (begin(shop, {"input": "x"}, "order-1", owner=who) for who in ("c-1", "c-2", "c-1"))
    assert [202, 202, 200] == [first.status, second.status, again.status]
    assert ("c-1", "c-2") == (first.body["resource_id"], second.body["resource_id"])
    assert first.body["run_id"] == again.body["run_id"] != second.body["run_id"]


@pytest.mark.parametrize("input", ["x", "something else"])
def test_run_id_of_another_owner_is_taken_and_shows_nothing(input: str) -> None:
    """Whether the input is guessed or not, the answer is the same, and says no more than what was asked."""
    answer = begin(Shop(), {"input": input, "run_id": "mine"})
    assert (409, "run-exists", "mine") == (answer.status, answer.type, answer.body["run_id"])
    assert set(answer.body) == {"type", "title", "status", "detail", "run_id"}


def test_run_id_that_is_taken_does_not_say_by_what() -> None:
    """Which workflow somebody else has started is his own business."""
    hidden = workflow("hunter2", input=str, output=str).then(ask).commit()
    app = LocalApp(App(FLOW, hidden))
    app.for_tenant("acme").workflow("hunter2").create_run("mine", "c-1").start("x")
    body = json.dumps({"input": "x", "run_id": "mine"})
    answer = Web(app, *Shop().routers, policy=POLICY).call(
        "POST", STARTS, body, authorizer=token("start", customer="c-2")
    )
    assert (409, "run-exists") == (answer.status, answer.type)
    assert "hunter2" not in answer.text


def test_run_that_another_owner_has_started_at_the_same_moment_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was not there when it was looked for, and is found by the start itself."""
    shop = Shop()
    engine = shop.app.for_tenant("acme").engine
    looked = engine.peek
    seen = iter([True])

    def not_yet(run: Any) -> Any:
        return looked(type(run)(run.tenant, "nobody" if next(seen, False) else run.id))

    monkeypatch.setattr(type(engine), "peek", lambda _, run: not_yet(run))
    answer = begin(shop, {"input": "x", "run_id": "mine"})
    assert (409, "run-exists") == (answer.status, answer.type)
    assert "resource_id" not in answer.body


def test_cursor_of_another_tenant_or_owner_leads_to_nobody_elses_runs() -> None:
    """It is refused, or leads on in one's own."""
    shop = Shop()
    for tenant, owner in (("acme", "c-1"), ("acme", "c-2"), ("rival", "c-1")):
        for number in range(3):
            run = shop.app.for_tenant(tenant).workflow("ask").create_run(f"{tenant}-{owner}-{number}", owner)
            run.start("x")
    for who in (ADMIN, token("admin", tenant="rival")):
        cursor = shop.web.call("GET", "/v1/runs?limit=1", authorizer=who).body["cursor"]
        page = shop.web.call("GET", f"/v1/runs?cursor={cursor}", authorizer=token("read"))
        assert page.status == 400 or {"c-1"} == {run["resource_id"] for run in page.body["items"]}
        assert "rival" not in page.text
        for bent in (f"{cursor}\u00e9", cursor.replace(".", ".\u00e9"), f"{cursor}.", cursor.rpartition(".")[0]):
            assert 400 == shop.web.call("GET", f"/v1/runs?cursor={bent}", authorizer=ADMIN).status


def test_pace_of_a_run_is_not_used_up_by_whoever_may_not_answer_it() -> None:
    """Somebody else's tries are no tries."""
    shop = Shop()
    web = Web(shop.app, *shop.routers, policy=POLICY, pace=Pace(2))
    for who in (token("resume", customer="c-2"), token("read"), {}) * 3:
        refused = web.call("POST", "/v1/runs/mine/resume", '{"data": "y"}', authorizer=who)
        assert refused.status in (401, 403, 404)
    assert 202 == web.call("POST", "/v1/runs/mine/resume", '{"data": "y"}', authorizer=token("resume")).status


@pytest.mark.parametrize("owner", ["c-2,x", "x,c-2", "c-2&resource_id=c-2", "c-2%2C", "*", "c-2\n", ""])
def test_name_of_an_owner_cannot_be_bent_into_another(owner: str) -> None:
    """Whatever an issuer lets its users call themselves."""
    shop = Shop()
    for path in ("/v1/runs", "/v1/waits"):
        answer = shop.web.call("GET", path, authorizer=token("read", customer=owner))
        assert answer.status == 403 or [] == answer.body["items"]
    assert shop.web.call("GET", "/v1/runs/theirs", authorizer=token("read", customer=owner)).status in (403, 404)


def test_tag_of_a_run_of_somebody_else_is_not_answered_with_304() -> None:
    """Nor does it open the run to an answer."""
    shop = Shop()
    tag = shop.call("GET /v1/runs/{run}", authorizer=token("read")).headers["etag"]
    for who in ({"customer": "c-2"}, {"tenant": "rival"}):
        seen = shop.web.call("GET", "/v1/runs/mine", None, {"if-none-match": tag}, authorizer=token("read", **who))
        sent = shop.web.call(
            "POST", "/v1/runs/mine/resume", '{"data": "y"}', {"if-match": tag}, authorizer=token("resume", **who)
        )
        assert [404, 404] == [seen.status, sent.status]
    read = shop.call("GET /v1/runs/{run}", authorizer=token("read"))
    assert read.headers["cache-control"].startswith("private")


def test_log_of_a_webhook_is_its_tenants() -> None:
    """Not read, and not replayed, by the admin of another tenant; a webhook of nobody's looks the same."""
    hooks = [
        Webhook(name=name, scheme=StandardWebhooks(), secret="env:X", event="paid", key="k", tenant=tenant)
        for name, tenant in (("ours", "acme"), ("theirs", "rival"))
    ]
    app = LocalApp(App(FLOW, webhooks=hooks))
    lines = [deliver(app, hook, "m-1", {}, b'{"k": "order-1"}') for hook in hooks]
    web = Web(app, delivery_log, policy=POLICY)
    read = {
        name: web.call("GET", f"/v1/hooks/{name}/deliveries", authorizer=ADMIN) for name in ("ours", "theirs", "no")
    }
    assert {"ours": 200, "theirs": 404, "no": 404} == {name: answer.status for name, answer in read.items()}
    assert read["theirs"].text == read["no"].text.replace("'no'", "'theirs'")
    replays = [f"/v1/hooks/{line.hook}/deliveries/{line.id}/replay" for line in lines]
    assert [200, 404] == [web.call("POST", path, authorizer=ADMIN).status for path in replays]


# -- more than one may ------------------------------------------------------------------------------------------------


def test_event_that_may_start_a_run_takes_the_right_to_start_one() -> None:
    """Who may only answer does not start runs by the way."""
    shop = Shop(Policy(mode="jwt", tenant_claim="tenant"))
    event = {"name": "a", "key": "b", "start_if_absent": {"workflow": "ask", "input": "x", "run_id": "new"}}
    plain = json.dumps({**event, "start_if_absent": None})
    tried = [
        shop.web.call("POST", "/v1/events", body, authorizer=token(*scopes))
        for body, scopes in (
            (json.dumps(event), ["resume"]),
            (json.dumps(event), ["start"]),
            (plain, ["resume"]),
            (json.dumps(event), ["resume", "start"]),
        )
    ]
    assert [403, 403, 202, 202] == [answer.status for answer in tried]


def test_nobody_answers_in_another_name() -> None:
    """Who somebody is comes from his token: not from a body, nor from a header."""
    shop = Shop()
    for path in ("/v1/runs/mine/resume", "/v1/runs/mine/delegate"):
        body = json.dumps({"by": "boss", "to": "eve"})
        assert 422 == shop.web.call("POST", path, body, authorizer=token("resume")).status
    for path, more in ((STARTS, {"by": "boss"}), ("/v1/events", {"name": "a", "key": "b", "by": "boss"})):
        assert 422 == shop.web.call("POST", path, json.dumps(more), authorizer=ADMIN).status
    headers = {"X-User": "boss", "From": "boss", "Authorization": "Bearer boss", "X-Amzn-Oidc-Identity": "boss"}
    done = shop.web.call("POST", "/v1/runs/mine/cancel", "{}", headers, authorizer=token("cancel"))
    assert (200, "ada") == (done.status, done.body["canceled_by"])


@step
def sign_off(_: str, ctx: StepContext[bool, None]) -> bool:
    """Ada or bob, but not whoever has asked for it."""
    if ctx.resume_data is None:
        ctx.suspend(approvers=["ada", "bob"], allow_self=False)
    return ctx.resume_data


def test_whoever_starts_a_run_neither_answers_nor_has_it_answered_by_delegation() -> None:
    """Over HTTP, where the names come from the token."""
    app = LocalApp(App(workflow("sign", input=str, output=bool).then(sign_off).commit()))
    web = Web(app, *Shop().routers, policy=Policy(mode="jwt"))
    ada, bob = (token("start", "resume", "read", sub=name) for name in ("ada", "bob"))
    assert 202 == web.call("POST", "/v1/workflows/sign/runs", '{"input": "x", "run_id": "r"}', authorizer=ada).status
    answer = '{"data": true}'
    assert 403 == web.call("POST", "/v1/runs/r/resume", answer, authorizer=ada).status
    assert web.call("POST", "/v1/runs/r/delegate", '{"to": "ada"}', authorizer=bob).status in (403, 409, 422)
    assert 403 == web.call("POST", "/v1/runs/r/resume", answer, authorizer=ada).status
    assert 202 == web.call("POST", "/v1/runs/r/resume", answer, authorizer=bob).status


TRICKS = "//v1/runs /v1/runs/ /V1/runs /v1/./runs /v1//runs /v1/runs/mine/ /v1/runs/mine//graph /v1/runs/.. /v1/runs;x"
FURTHER = ["/healthz/../v1/runs", "/v1/openapi.json/../runs", "/v1/runs/mine;x", "/v1/runs/%2e%2e", "/v1/runs\n"]


@pytest.mark.parametrize("path", [*TRICKS.split(), *FURTHER, "/v1/runs/mine\r", "/v1/runs/mine\0"])
def test_tricks_with_a_path_open_nothing(path: str) -> None:
    """To nobody unknown, and to nobody who is known more than before."""
    shop = Shop()
    assert shop.web.call("GET", path, authorizer={}).status in (401, 404)
    assert shop.web.call("GET", path, authorizer=token("read")).status in (403, 404)
    assert 404 == shop.web.call("GET", path, authorizer=ADMIN).status


def test_path_is_served_as_the_gateway_has_let_it_in() -> None:
    """An encoded slash makes another route of a path, after the gateway has judged it."""
    shop = Shop()
    for key, path, status in (
        ("GET /v1/runs/{run}", "/v1/runs/mine", 200),
        ("GET /v1/runs/{run}", "/v1/runs/mine/graph", 404),
        ("POST /v1/runs/{run}/resume", "/v1/runs/mine/cancel", 404),
        ("GET /healthz", "/v1/runs", 404),
    ):
        answer = shop.web.call(key.split(" ")[0], path, None, route=key, authorizer=ADMIN)
        assert status == answer.status, path


def test_stage_in_a_path_hides_no_route() -> None:
    """What the path is without its stage counts: for the scope, the route and the log."""
    shop = Shop()
    for stage, path, who, status in (
        ("prod", "/prod/v1/runs/mine", token("read"), 200),
        ("prod", "/prod/v1/runs/mine/cancel", token("read"), 403),
        ("healthz", "/healthz/v1/runs", {}, 401),
        ("v1", "/v1/v1/runs/mine", token("read"), 200),
    ):
        method = "POST" if path.endswith("cancel") else "GET"
        assert status == shop.web.call(method, path, None, stage=stage, authorizer=who).status, path


def test_method_cannot_be_overridden() -> None:
    """By no header that some servers heed, and by no parameter."""
    shop = Shop()
    headers = dict.fromkeys(["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "_method"], "DELETE")
    assert 200 == shop.web.call("GET", "/v1/runs/mine", None, headers, authorizer=ADMIN).status
    assert 422 == shop.web.call("GET", "/v1/runs/mine?_method=DELETE", None, headers, authorizer=ADMIN).status
    assert 200 == shop.call("GET /v1/runs/{run}", authorizer=ADMIN).status


# -- what breaks a reader ---------------------------------------------------------------------------------------------

DEEP = base64.urlsafe_b64encode(b"[" * 5_900).decode()


ADDRESSES = {
    "a wait, too deep": f"/v1/waits/{DEEP}",
    "a wait that is no text": "/v1/waits/%FF",
    "a wait with a long name": f"/v1/waits/{wait_id_of('mine', 'x' * 900)}",
    "a cursor, too deep": f"/v1/runs?cursor={DEEP}",
    "a cursor of waits, too deep": f"/v1/waits?cursor={DEEP}",
    "a cursor with many digits": "/v1/runs/mine/receipts?cursor=" + "9" * 5_000,
    "a limit with many digits": "/v1/runs?limit=" + "9" * 5_000,
    "many tags": f"/v1/runs?{'&'.join(f'tag=t{number}' for number in range(400))}",
    "a time beyond the calendar": "/v1/runs?since=9999-12-31T23:59:59-14:00",
    "a field that is an attribute": "/v1/runs/mine?fields=__class__",
}


@pytest.mark.parametrize("target", ADDRESSES.values(), ids=ADDRESSES)
def test_no_address_breaks_the_api(target: str) -> None:
    """A 4xx or an empty page, and nothing in the log of faults."""
    for policy in (POLICY, Policy(mode="jwt", tenant_claim="tenant")):
        shop = Shop(policy)
        assert shop.web.call("GET", target, authorizer=token("read")).status in (200, 400, 404, 409, 422)
        assert [] == shop.web.log.faults


def test_listing_by_more_tags_than_a_run_can_have_is_refused() -> None:
    """Each would be one more condition that the table has to try."""
    tags = "&".join(f"tag=t{number}" for number in range(11))
    for path in ("runs", "waits", "counts"):
        assert 422 == Shop().web.call("GET", f"/v1/{path}?{tags}", authorizer=token("read")).status


def test_fault_before_any_route_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller gets a bare 500, the log the rest."""
    shop = Shop()

    def broken(*_: object) -> None:
        raise LookupError("hunter2")

    monkeypatch.setattr("flowcore.http.api.guarded", broken)
    answer = shop.call("GET /v1/runs/{run}", authorizer=token("read"))
    assert (500, "internal-error") == (answer.status, answer.type)
    assert "hunter2" not in answer.text
    assert [LookupError] == [type(fault) for fault in shop.web.log.faults]


@pytest.mark.parametrize(
    "path", ["/A/{token}", "//a/{token}", "/prod/a/{token}", "/cb/{token}/x", "/a/{token}\nx", "/CB/{token}"]
)
def test_token_is_not_logged_however_the_path_is_wrong(path: str) -> None:
    """Somebody's slip of the finger would leave a good link to whoever reads the log."""
    shop = Shop()
    shop.web.call("POST", path.replace("{token}", "k1.hunter2.sig"), "{}", authorizer=ADMIN)
    assert 1 == len(shop.web.log.lines)
    assert "hunter2" not in str(shop.web.log.lines)
    shop.web.call("POST", "/v1/workflows/a/runs", "{}", authorizer=ADMIN)
    assert "POST /v1/workflows/a/runs" == shop.web.log.lines[-1]["action"]


# -- links and their forms --------------------------------------------------------------------------------------------


@pytest.fixture
def doors() -> Doors:
    """A run that one person has to decide."""
    return Doors(workflow("refund", input=str, output=str).then(approve).commit())


@pytest.mark.parametrize(
    "tail", ["\u00e9", "\u00df" * 5, "\n", " ", "%", "=", "==", "~", ".", "\u200b", "A", "." * 5_000]
)
def test_link_with_something_added_is_unknown(doors: Doors, tail: str) -> None:
    """Also with what a lenient reader of base64 would leave out."""
    path = doors.path(doors.wait.approval_url())
    assert 404 == doors.web.get(path + tail).status
    assert 404 == doors.web.fill_in(path + tail, approved="true").status
    assert ([], "suspended") == (doors.web.log.faults, doors.run.result().status)


def test_link_signed_for_something_else_or_under_another_name_of_its_key_is_unknown(doors: Doors) -> None:
    """The key's id is part of what is signed, and so is what for."""
    from itsdangerous import URLSafeSerializer, URLSafeTimedSerializer  # noqa: PLC0415  # the attacker's own tools

    kid, _, signed = doors.path(doors.wait.approval_url()).removeprefix("/a/").partition(".")
    claims = ["default", "r-1", None, doors.wait.id, "a", "boss", 4_000_000_000]
    forged = [f"k2.{signed}", f".{signed}", f"{kid}..{signed}", f"K1.{signed}", f" {kid}.{signed}"]
    salts = ("flowcore.link.k1", "flowcore.link.k2", "flowcore.link", "itsdangerous", "cookie-session")
    forged += [f"{kid}.{URLSafeSerializer('s' * 32, salt=salt).dumps(claims)}" for salt in salts]
    forged += [f"{kid}.{URLSafeTimedSerializer('s' * 32, salt=salts[0]).dumps(claims)}"]
    forged += [f"{kid}.{URLSafeSerializer(key, salt=salts[0]).dumps(claims)}" for key in ("", "k1", "secret")]
    assert {404} == {doors.web.get(f"/a/{token}").status for token in forged}
    grant = Grant(
        tenant="rival", run_id="r-1", wait=doors.wait.id, door="a", until=doors.app.clock.now().replace(year=2030)
    )
    assert 404 == doors.web.get(doors.path(doors.links.url(grant))).status


class Odd(BaseModel):
    """Names that get in each other's way, and a field for anything."""

    a: str = ""
    a_b: str = Field(default="", alias="a.b")
    inner: dict[str, int] = {}
    proto: str = Field(default="", alias="__proto__")
    items: str = ""
    anything: Any = None


class Only(BaseModel):
    """One field that is called as the field of a plain value is."""

    value: bool


def asking(model: type[BaseModel]) -> Doors:
    """A run that asks for this."""

    @step(resume=model)
    def ask(_: str, ctx: StepContext[Any, None]) -> dict[str, Any]:
        if ctx.resume_data is None:
            ctx.suspend()
        return dict(ctx.resume_data.model_dump(by_alias=True))

    return Doors(workflow("odd", input=str, output=dict[str, Any]).then(ask).commit())


def test_names_of_fields_do_not_get_in_each_others_way() -> None:
    """Dots in them, names of methods, and the name of the only field there is."""
    odd = asking(Odd)
    path = odd.path(odd.wait.approval_url())
    assert ["a", "a%2Eb", "inner", "__proto__", "items", "anything"] == Seen(odd.web.get(path).text).names()
    sent = {"a": "1", "a%2Eb": "2", "__proto__": "3", "items": "4", "a.b": "5", "nobody": "6"}
    assert 200 == odd.web.fill_in(path, **sent).status
    given = odd.run.result().output or {}
    assert ("1", "2", "3", "4") == tuple(given[name] for name in ("a", "a.b", "__proto__", "items"))
    only = asking(Only)
    assert 200 == only.web.fill_in(only.path(only.wait.approval_url()), value="true").status
    assert {"value": True} == only.run.result().output


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        ("1e400", "Infinity"),
        ("[" * 300 + "]" * 300, "deeper"),
        ("[" * 900 + "]" * 900, "deeper"),
        ("a\0b", "NUL"),
        ('"\\ud800"', "surrogate"),
        ("[" + "0," * 100_001 + "0]", "values"),
    ],
)
def test_form_is_held_to_what_is_asked_of_every_body(typed: str, complaint: str) -> None:
    """A page takes nothing that the API would refuse; what was typed is not lost."""
    odd = asking(Odd)
    answer = odd.web.fill_in(odd.path(odd.wait.approval_url()), anything=typed, a="kept")
    assert 422 == answer.status
    assert complaint in answer.text
    assert 'value="kept"' in answer.text
    assert ("suspended", []) == (odd.run.result().status, odd.web.log.faults)


def test_form_with_too_many_fields_and_a_post_of_another_kind_are_refused(doors: Doors) -> None:
    """Before anything is made of them."""
    path = doors.path(doors.wait.approval_url())
    form = {"content-type": "application/x-www-form-urlencoded"}
    many = "&".join(f"f{number}=" for number in range(2_000))
    assert 400 == doors.web.call("POST", path, many, form).status
    assert 400 == doors.web.call("POST", path, b"approved=%ff", form).status
    assert 413 == doors.web.call("POST", path, b"a=" + b"x" * 1_000_000, form).status
    for kind in ("application/json", "text/plain", "multipart/form-data; boundary=x", "x" * 5_000):
        assert 400 == doors.web.call("POST", path, '{"approved": true}', {"content-type": kind}).status
    assert "suspended" == doors.run.result().status


class Drawn(BaseModel):
    """What a page draws of a model's own words."""

    pick: str = Field(title="<b>t</b>", description="<i>d</i>", json_schema_extra={"enum": ["<u>e</u>", "ok"]})
    text: str = Field(default='"><script>1</script>', pattern="(a+)+$", max_length=50)


def test_words_of_a_schema_are_text_and_hold_no_browser_up() -> None:
    """Titles, descriptions, choices, defaults; a pattern is for the model to try, which takes no time over it."""
    odd = asking(Drawn)
    page = odd.web.get(odd.path(odd.wait.approval_url())).text
    seen = Seen(page)
    assert not {"b", "i", "u", "script"} & {tag for tag, _ in seen.tags}
    assert not [attrs for _, attrs in seen.tags if "pattern" in attrs]


def test_page_says_nothing_of_a_deploy_to_whoever_holds_a_link() -> None:
    """Neither which workflows there are, nor why a run stands still."""
    asked = Doors(workflow("refund", input=str, output=str).then(approve).commit())
    page, url = asked.path(asked.wait.approval_url()), asked.path(asked.wait.callback_url())
    other = workflow("hunter2", input=str, output=str).then(approve).commit()
    later = LocalApp(App(other, links=asked.links), store=asked.app.store, clock=asked.app.clock)
    web = Web(later, asked.router)  # the same doors after a deploy
    shown = [web.get(page), web.fill_in(page, approved="true"), web.post(url, {"approved": True})]
    assert [409, 409, 404] == [answer.status for answer in shown]
    assert not [answer for answer in shown if "hunter2" in answer.text or "refund" in answer.text]
