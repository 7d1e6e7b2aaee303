"""Approval links and callback URLs: a GET shows, a POST decides, one link is good for one answer and no more."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from functools import partial
from html.parser import HTMLParser
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from flowcore import App, StepContext, Wait, step, workflow
from flowcore.http.doors import doors
from flowcore.links import Links
from flowcore.testing import LocalApp
from tests.unit.web import Answer, Web

HOSTILE = "<script>alert(1)</script>\"'`{{7*7}}{% raw %}&lt;</title></textarea>"
told: list[Wait[Any]] = []


class Ask(BaseModel):
    """What is asked."""

    reason: str
    lines: list[str] = []


class Decision(BaseModel):
    """What is answered."""

    approved: bool
    amount: int = Field(default=0, ge=0, description="in cents")
    comment: str = ""


def tell(wait: Wait[Ask]) -> None:
    """Keeps what a mail would be made of."""
    told.append(wait)


@step
def approve(reason: str, ctx: StepContext[Decision, Ask]) -> str:
    """One person decides, within three days."""
    if ctx.timed_out:
        return "nobody"
    if ctx.resume_data is None:
        ctx.suspend(Ask(reason=reason, lines=[reason]), timeout=timedelta(days=3), notify=tell)
    return f"{ctx.resume_data.approved} {ctx.resume_data.amount} {ctx.resume_data.comment}"


@step
def agree(reason: str, ctx: StepContext[Decision, None]) -> int:
    """Two of three decide."""
    if ctx.resume_data is None:
        ctx.suspend(approvers=["ada", "bob", "eve"], quorum=2)
    return len(ctx.votes)


class Shop:
    """An App with links, and its doors."""

    def __init__(self, flow: Any) -> None:
        told.clear()
        self.links = Links("https://shop.example", {"k1": "s" * 32})
        self.app = LocalApp(App(flow, links=self.links))
        self.router = partial(doors, links=self.links)
        self.web = Web(self.app, self.router)
        self.run = self.app.workflow(flow.id).create_run("r-1")
        self.run.start("a large refund")

    @property
    def wait(self) -> Wait[Any]:
        return self.run.result().waits[0]

    def path(self, url: str) -> str:
        return url.removeprefix("https://shop.example")


@pytest.fixture
def shop() -> Shop:
    """A run that one person has to decide."""
    return Shop(workflow("refund", input=str, output=str).then(approve).commit())


@pytest.fixture
def board() -> Shop:
    """A run that two of three people have to decide."""
    return Shop(workflow("board", input=str, output=int).then(agree).commit())


class Seen(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def names(self) -> list[str]:
        controls = [attrs["name"] for tag, attrs in self.tags if tag in ("input", "textarea", "select")]
        return list(dict.fromkeys(str(name) for name in controls))


def test_notified_link_shows_the_question_and_a_form_and_decides_nothing(shop: Shop) -> None:
    """As often as it is opened, by whomever."""
    assert told[0].approval_url(actor="boss") == shop.wait.approval_url(actor="boss")
    path = shop.path(told[0].approval_url(actor="boss"))
    answers = [shop.web.call(method, path) for method in ("GET", "HEAD") * 3]
    assert {200} == {answer.status for answer in answers}
    seen = Seen(answers[-2].text)
    assert "a large refund" in seen.text
    assert "You answer as boss." in seen.text
    assert ["approved", "amount", "comment"] == seen.names()
    assert "suspended" == shop.run.result().status


def test_page_lets_nothing_run_and_tells_nobody_where_it_is(shop: Shop) -> None:
    """Headers, on pages of every kind."""
    for path in (shop.path(shop.wait.approval_url()), "/a/nonsense"):
        headers = shop.web.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert ("no-referrer", "no-store") == (headers["referrer-policy"], headers["cache-control"])
        assert "noindex" in headers["x-robots-tag"]


def test_posted_form_decides_and_is_remembered_with_its_actor(shop: Shop) -> None:
    """Fields are named as the model's; what is left empty takes its default."""
    thanks = shop.web.fill_in(
        shop.path(shop.wait.approval_url(actor="boss")), approved="true", amount="12", comment="fine"
    )
    assert (200, "Your answer has been recorded.") == (thanks.status, _note(thanks))
    result = shop.run.result()
    assert ("success", "True 12 fine") == (result.status, result.output)


def test_second_click_is_told_who_was_faster(shop: Shop) -> None:
    """By page and by post, and the run is as it was."""
    path = shop.path(shop.wait.approval_url(actor="boss"))
    other = shop.path(shop.wait.approval_url(actor="deputy"))
    shop.web.fill_in(path, approved="true")
    late = [shop.web.fill_in(other, approved="false"), shop.web.get(other), shop.web.fill_in(path, approved="true")]
    assert [409, 409, 409] == [answer.status for answer in late]
    assert all("boss" in answer.text and "link" in answer.text for answer in late)
    assert "True 0 " == shop.run.result().output


def test_answer_that_does_not_fit_comes_back_with_what_was_typed(shop: Shop) -> None:
    """Beside its field, and the run is untouched."""
    path = shop.path(shop.wait.approval_url())
    wrong = shop.web.fill_in(path, amount="-3", comment=HOSTILE)
    assert 422 == wrong.status
    seen = Seen(wrong.text)
    assert "greater than or equal to 0" in seen.text
    assert "found int" not in seen.text
    assert HOSTILE in _typed(wrong, "comment")
    assert "Field required" in seen.text
    assert "suspended" == shop.run.result().status
    assert 200 == shop.web.fill_in(path, approved="false").status


def test_page_shows_hostile_values_as_text() -> None:
    """Whatever the run shows is text and stays text."""
    shop = Shop(workflow("refund", input=str, output=str).then(approve).commit())
    run = shop.app.workflow("refund").create_run("r-2")
    run.start(HOSTILE)
    page = shop.web.get(shop.path(run.result().waits[0].approval_url(actor=HOSTILE))).text
    seen = Seen(page)
    assert "script" not in [tag for tag, _ in seen.tags]
    assert not [name for _, attrs in seen.tags for name in attrs if name.startswith("on")]
    assert HOSTILE in seen.text


def test_link_whose_time_is_over_says_so(shop: Shop) -> None:
    """First that the clock has decided, and long afterwards that the link is no longer good."""
    path = shop.path(shop.wait.approval_url())
    shop.app.advance(days=4)
    assert "nobody" == shop.run.result().output
    late = [shop.web.get(path), shop.web.fill_in(path, approved="true")]
    assert [(410, True), (410, True)] == [(answer.status, "Too late" in answer.text) for answer in late]
    shop.app.advance(days=31)
    assert (410, True) == (shop.web.get(path).status, "no longer good" in shop.web.get(path).text)


def test_link_of_a_wait_that_is_gone_asks_nobody(shop: Shop) -> None:
    """A run that was canceled, and one that was deleted."""
    path = shop.path(shop.wait.approval_url())
    shop.run.cancel()
    assert [409, 409] == [shop.web.get(path).status, shop.web.fill_in(path, approved="true").status]
    shop.run.delete()
    assert [404, 404] == [shop.web.get(path).status, shop.web.fill_in(path, approved="true").status]


def test_link_from_before_time_travel_is_stale(shop: Shop) -> None:
    """The same step asks again, and that is another question."""
    path = shop.path(shop.wait.approval_url())
    shop.web.fill_in(path, approved="true")
    shop.run.time_travel("approve")
    assert 409 == shop.web.fill_in(path, approved="false").status
    assert "suspended" == shop.run.result().status


def test_link_of_a_run_that_is_gone_answers_no_later_run_of_its_id(shop: Shop) -> None:
    """Its first wait has the same id, and is another question."""
    page, url = shop.path(shop.wait.approval_url()), shop.path(shop.wait.callback_url())
    shop.run.delete()
    shop.app.advance(seconds=1)
    shop.run.start("something else")
    late = [shop.web.get(page), shop.web.fill_in(page, approved="true"), shop.web.post(url, {"approved": True})]
    assert [404, 404, 404] == [answer.status for answer in late]
    assert "suspended" == shop.run.result().status


def test_link_without_the_right_name_is_refused(board: Shop) -> None:
    """Without a name, and with one that was not asked; already when the page is opened."""
    for url in (board.wait.approval_url(actor="mallory"), board.wait.approval_url()):
        assert 403 == board.web.fill_in(board.path(url), approved="true").status
        assert 403 == board.web.get(board.path(url)).status
    assert [] == list(board.wait.answered_by)


def test_links_count_votes_until_enough_have_answered(board: Shop) -> None:
    """Each person with a link of their own; the same person does not count twice."""
    ada, bob = (board.path(board.wait.approval_url(actor=name)) for name in ("ada", "bob"))
    assert "has been counted" in _note(board.web.fill_in(ada, approved="true"))
    assert "counted before" in _note(board.web.fill_in(ada, approved="true"))
    assert 409 == board.web.fill_in(ada, approved="false").status
    assert "suspended" == board.run.result().status
    assert "recorded" in _note(board.web.fill_in(bob, approved="true"))
    assert 2 == board.run.result().output


KNOWN = ({"jwt": {"claims": {"sub": "ada"}}}, {"lambda": {"sub": "ada"}}, {"iam": {"userArn": "ada"}})


@pytest.mark.parametrize("known", KNOWN)
@pytest.mark.parametrize("actor", ["ada", None])
def test_link_that_requires_login_is_good_for_whom_the_gateway_knows(
    board: Shop, actor: str | None, known: dict[str, Any]
) -> None:
    """As the person it was made for, or, made for nobody, as whoever that is."""
    path = board.path(board.wait.approval_url(actor=actor, require_login=True))
    form = {"content-type": "application/x-www-form-urlencoded"}
    for method in ("GET", "POST"):
        assert 401 == (nobody := board.web.call(method, path, "approved=true", form)).status
        assert "Log in first" in nobody.text
        other = board.web.call(method, path, "approved=true", form, authorizer={"jwt": {"claims": {"sub": "mallory"}}})
        assert 403 == other.status
        assert "text/html; charset=utf-8" == other.headers["content-type"]
    assert [] == list(board.wait.answered_by)
    assert "You answer as" in board.web.call("GET", path, authorizer=known).text
    assert "has been counted" in _note(board.web.call("POST", path, "approved=true", form, authorizer=known))
    assert ["ada"] == list(board.wait.answered_by)


def test_link_without_login_asks_nobody_who_he_is(board: Shop) -> None:
    """The name in the link counts, and not the one of a browser that somebody is logged in with."""
    path = board.path(board.wait.approval_url(actor="ada"))
    form = {"content-type": "application/x-www-form-urlencoded"}
    board.web.call("POST", path, "approved=true", form, authorizer={"jwt": {"claims": {"sub": "mallory"}}})
    assert ["ada"] == list(board.wait.answered_by)


def test_second_click_of_a_voter_says_that_he_has_answered(board: Shop) -> None:
    """Not that it is decided, which it is not; afterwards who was last to decide."""
    ada, bob = (board.path(board.wait.approval_url(actor=name)) for name in ("ada", "bob"))
    board.web.fill_in(ada, approved="true")
    for again in (board.web.get(ada), board.web.fill_in(ada, approved="false")):
        text = Seen(again.text).text
        assert 409 == again.status
        assert "You have answered" in text
        assert "ada" in text
        assert "decided" not in text
    board.web.fill_in(bob, approved="true")
    assert "You have answered" in board.web.get(bob).text
    assert "Already decided" in board.web.get(ada).text


def test_callback_takes_json_and_answers_with_a_receipt(shop: Shop) -> None:
    """A program needs no page; what it does wrong it is told as a problem."""
    path = shop.path(shop.wait.callback_url(actor="erp"))
    wrong = shop.web.post(path, {"approved": "maybe"})
    assert (422, "invalid-input") == (wrong.status, wrong.type)
    assert (400, "malformed-request") == ((bad := shop.web.call("POST", path, b"{")).status, bad.type)
    done = shop.web.post(path, {"approved": True, "amount": 5})
    assert (200, "applied", "erp", "callback") == (
        done.status,
        *(done.body["receipt"][name] for name in ("verdict", "by", "via")),
    )
    again = shop.web.post(path, {"approved": True})
    assert (409, "already-resumed", "erp") == (again.status, again.type, again.body["winner"]["by"])
    assert (404, "link-unknown") == ((gone := shop.web.post(path + "x", {})).status, gone.type)
    assert (405, "GET") == ((read := shop.web.get(path)).status, read.body["detail"].split()[-1].rstrip("."))


def test_callback_that_is_sent_again_with_its_key_is_told_its_own_receipt(shop: Shop) -> None:
    """Whoever got no reply cannot know that it was heard."""
    path = shop.path(shop.wait.callback_url(actor="erp"))
    body, sent = json.dumps({"approved": True, "amount": 5}), {"idempotency-key": "k-1"}
    told = [shop.web.call("POST", path, body, sent).body["receipt"]["verdict"] for _ in range(2)]
    assert ["applied", "duplicate"] == told
    other = shop.web.call("POST", path, json.dumps({"approved": False, "amount": 5}), sent)
    assert (422, "idempotency-key-reused") == (other.status, other.type)


def test_wait_without_links_says_what_is_missing() -> None:
    """In words that name the setting."""
    app = LocalApp(App(workflow("refund", input=str, output=str).then(approve).commit()))
    run = app.workflow("refund").create_run("r-1")
    run.start("x")
    with pytest.raises(Exception, match="FLOWCORE_PUBLIC_URL"):
        run.result().waits[0].approval_url()


class Size(StrEnum):
    """A choice."""

    S = "small"
    L = "large"


class Address(BaseModel):
    """An object inside another."""

    street: str
    zip: int


class Everything(BaseModel):
    """One field of each kind."""

    size: Size
    tags: list[Size] = []
    address: Address
    when: str | None = None
    notes: str = Field(default="", max_length=1000)
    extra: dict[str, int] = {}
    ratio: float = 0.5


def test_every_kind_of_field_can_be_filled_in() -> None:
    """Choices, several of them, objects inside objects, long texts, and JSON for what a browser has no control for."""

    @step
    def ask(_: str, ctx: StepContext[Everything, None]) -> Everything:
        if ctx.resume_data is None:
            ctx.suspend()
        return ctx.resume_data

    shop = Shop(workflow("all", input=str, output=Everything).then(ask).commit())
    path = shop.path(shop.wait.approval_url())
    names = Seen(shop.web.get(path).text).names()
    assert ["size", "tags", "address.street", "address.zip", "when", "notes", "extra", "ratio"] == names
    answer = shop.web.fill_in(
        path,
        size='"large"',
        tags=['"small"', '"large"'],
        **{"address.street": "Low Road", "address.zip": "12345"},
        notes="a\r\nb",
        extra='{"a": 1}',
    )
    assert 200 == answer.status, answer.text
    output = shop.run.result().output
    assert (
        Everything(
            size=Size.L,
            tags=[Size.S, Size.L],
            address=Address(street="Low Road", zip=12345),
            notes="a\nb",
            extra={"a": 1},
        )
        == output
    )


class Draft(BaseModel):
    """Everything is filled in already."""

    note: str = "looks fine"
    limit: int | None = 500
    until: datetime | None = datetime(2026, 1, 1, 10, tzinfo=timezone(timedelta(hours=2)))
    who: list[Literal["ada", "bob"]] = ["ada"]
    size: Size | None = Size.S
    extra: dict[str, int] | None = {"a": 1}
    empty: dict[str, int] = {}


class Sheet:
    """The page on which a value of ``kind`` is asked for."""

    def __init__(self, kind: Any) -> None:
        @step
        def ask(_: str, ctx: StepContext[kind, None]) -> Any:
            if ctx.resume_data is None:
                ctx.suspend()
            return ctx.resume_data

        self.shop = Shop(workflow("sheet", input=str, output=Any).then(ask).commit())
        self.path = self.shop.path(self.shop.wait.approval_url())

    def shown(self) -> dict[str, list[str]]:
        """What a browser posts when nobody has touched anything."""
        return Filled(self.shop.web.get(self.path).text).fields

    def sent(self, fields: Mapping[str, list[str]]) -> Any:
        """The answer that is recorded; the page that comes back where there is none."""
        answer = self.shop.web.fill_in(self.path, **fields)
        return self.shop.run.result().output if answer.status == 200 else answer


class Filled(HTMLParser):
    """What a browser would post of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: dict[str, list[str]] = {}
        self._within = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name = given.get("name") or self._within
        match tag:
            case "input" if given.get("type") not in ("checkbox", "radio") or "checked" in given:
                self.fields.setdefault(name, []).append(given.get("value") or "")
            case "textarea" | "select":
                self.fields[name], self._within = [""], name
            case "option" if "selected" in given:
                self.fields[name] = [given.get("value") or ""]

    def handle_endtag(self, tag: str) -> None:
        if tag in ("textarea", "select"):
            self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within and data.strip():
            self.fields[self._within] = [data] if self.fields[self._within] == [""] else self.fields[self._within]


def test_default_that_a_person_has_removed_is_not_recorded() -> None:
    """What is recorded is what the page has shown: an emptied text, no number, no choice, no box ticked."""
    sheet = Sheet(Draft)
    emptied = {name: [""] for name in sheet.shown()}
    answered: dict[str, Any] = {
        "note": "",
        "limit": None,
        "until": None,
        "who": [],
        "size": None,
        "extra": None,
        "empty": {},
    }
    assert answered == sheet.sent(emptied)


def test_default_that_nobody_has_touched_is_recorded() -> None:
    """The page shows each default in a form that a browser takes, and gives it back as it is."""
    sheet = Sheet(Draft)
    shown = sheet.shown()
    assert (["2026-01-01T08:00:00"], ["", '"ada"']) == (shown["until"], shown["who"])
    assert Draft().model_dump(mode="json") | {"until": "2026-01-01T10:00:00+02:00"} == sheet.sent(shown)


def test_field_that_is_not_posted_keeps_its_default() -> None:
    """A program that fills in the page names what it means."""
    assert "looks fine" == Sheet(Draft).sent({"limit": ["7"]})["note"]


def test_value_that_has_to_be_there_is_missed_when_its_default_is_removed() -> None:
    """The model says what it wants, and the page comes back as it was left."""

    class Strict(BaseModel):
        limit: int = 500

    answer = Sheet(Strict).sent({"limit": [""]})
    assert 422 == answer.status
    assert "valid integer" in Seen(answer.text).text
    assert "" == _typed(answer, "limit")


@pytest.mark.parametrize(
    ("kind", "typed", "taken"),
    [
        (Decimal, "12345678901234567.89", "12345678901234567.89"),
        (Decimal, "12.50", "12.50"),
        (str | int, "007", "007"),
        (str | int, "true", "true"),
        (str | int | None, "7", "7"),
        (list[str] | str, '["a"]', ["a"]),
    ],
    ids=str,
)
def test_text_that_may_be_a_number_is_taken_as_it_was_typed(kind: Any, typed: str, taken: Any) -> None:
    """No digit is lost on the way through a float."""
    assert taken == Sheet(kind).sent({"value": [typed]})


def test_answer_that_is_no_object_has_one_field() -> None:
    """A plain yes or no, too."""

    @step
    def ask(_: str, ctx: StepContext[bool, str]) -> str:
        if ctx.resume_data is None:
            ctx.suspend("Ship it?")
        return "shipped" if ctx.resume_data else "kept"

    shop = Shop(workflow("yes", input=str, output=str).then(ask).commit())
    path = shop.path(shop.wait.approval_url())
    assert ["value"] == Seen(shop.web.get(path).text).names()
    assert "Ship it?" in shop.web.get(path).text
    assert 200 == shop.web.fill_in(path, value="false").status
    assert "kept" == shop.run.result().output


def _note(answer: Answer) -> str:
    return Seen(answer.text).text.split("Thank you")[-1].strip()


def _typed(answer: Answer, name: str) -> str:
    seen = Seen(answer.text)
    return next(str(attrs.get("value")) for tag, attrs in seen.tags if tag == "input" and attrs.get("name") == name)
