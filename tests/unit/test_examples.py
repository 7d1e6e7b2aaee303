"""Each example does what its first line says: walked through on virtual time, in memory."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from examples import (
    approval,
    bank,
    expense,
    export,
    leave,
    offer,
    onboarding,
    parcel,
    payouts,
    redo,
    refund,
    review,
    thumbnails,
    trial,
)
from flowcore import App
from flowcore.client import Client
from flowcore.links import Links
from flowcore.testing import LocalApp
from flowcore.testing.served import in_process

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "examples").glob("*.py") if path.stem not in ("__init__", "bank"))


@pytest.fixture(autouse=True)
def outside_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The systems that examples play begin empty and are left empty."""
    monkeypatch.setenv("EXPENSE_BANK_FILE", str(tmp_path / "bank.sqlite"))
    for played in (export.warehouse.begun, onboarding.outbox, trial.outbox, redo.fetched, review.outbox):
        played.clear()
    yield
    export.warehouse.slowness = 3


@pytest.mark.parametrize("name", NAMES)
def test_each_is_walked_through_and_shown(name: str) -> None:
    """By a test below that is named after it, and in the list of the documentation."""
    assert [test for test in globals() if test.startswith(f"test_{name}_")]
    assert f"(../examples/{name}.py)" in (ROOT / "docs" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_each_can_be_deployed(name: str) -> None:
    """It has an ``app``, one idea in few lines, and needs the testing kit only where it tells its story."""
    source = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    assert isinstance(importlib.import_module(f"examples.{name}").app, App)
    assert 30 <= len(source.splitlines()) <= (120 if name == "expense" else 80)
    on_import = [node for node in ast.parse(source).body if isinstance(node, ast.ImportFrom)]
    assert [] == [node.module for node in on_import if (node.module or "").startswith("flowcore.testing")]


def test_approval_asks_the_next_one_after_two_days() -> None:
    """And the answer of one who was too late is refused."""
    local = LocalApp(approval.app)
    run = local.workflow(approval.approval).create_run()
    run.start(approval.Request(what="a telescope", ladder=["ada", "grace", "alan"]))
    local.advance(days=2)
    assert ["grace"] == list(run.state().resume_labels)
    run.resume(approval.Decision(approved=False), label="grace")
    assert approval.Standing(asked=2, approved=False, by="grace") == run.result().output


def test_leave_is_asked_for_once_and_granted_over_http() -> None:
    """By a program that has the API alone; a leave that nobody decides on is granted after five days."""
    local = LocalApp(leave.app)
    client = Client("https://api.example.com", transport=in_process(local))
    ada, again, bob = (
        leave.ask(client, who, "2026-07-01", days) for who, days in (("ada", 2), ("ada", 2), ("bob", 30))
    )
    assert ada == again
    leave.answer_all(client, most_days=3)
    assert leave.Decision(granted=True, why="short") == local.run(ada).result().output
    local.advance(days=5)
    assert {"granted": True, "why": "nobody objected"} == client.get_run(bob).output


def test_approval_ends_when_nobody_answers() -> None:
    """At the top of the ladder nobody is left to ask."""
    local = LocalApp(approval.app)
    run = local.workflow(approval.approval).create_run()
    run.start(approval.Request(what="a telescope", ladder=["ada", "grace"]))
    local.advance(days=4)
    assert approval.Standing(asked=2) == run.result().output


def test_offer_ends_with_the_first_thing_that_comes() -> None:
    """An answer, a payment, a colleague, or nothing within a month."""
    local = LocalApp(offer.app)
    runs = [local.workflow(offer.offers).create_run(id) for id in ("answered", "paid", "withdrawn", "forgotten")]
    for run in runs:
        run.start(offer.Offer(number=run.run_id, cents=5))
    runs[0].resume({"accepted": False}, label="customer")
    local.send_event("offer.paid", "paid", {"cents": 5})
    runs[2].resume({"accepted": True}, label="withdraw", by="ada")
    local.advance(days=30)
    assert ["customer: no", "paid 5", "withdraw: yes", "expired"] == [run.result().output for run in runs]


def test_parcel_waits_for_what_others_tell() -> None:
    """In whatever order they tell it; a payment that never comes ends the order."""
    local = LocalApp(parcel.app)
    paid, unpaid = (local.workflow(parcel.orders).create_run(id) for id in ("paid", "unpaid"))
    local.send_event("order.paid", "A-17", {"cents": 990})
    paid.start(parcel.Order(number="A-17", article="kettle"))
    unpaid.start(parcel.Order(number="A-18", article="kettle"))
    local.send_event("parcel.delivered", "parcel-A-17", {"signed_by": "ada"})
    assert "parcel-A-17 was taken by ada" == paid.result().output
    local.advance(days=14)
    assert "EventTimeout" == unpaid.result().error.type  # type: ignore[union-attr]  # it has failed


def test_review_needs_two_of_three() -> None:
    """Each is written to once; one who says no ends it; nobody is an answer after a week."""
    local = LocalApp(review.app)
    agreed, refused, forgotten = (local.workflow(review.reviews).create_run(id) for id in ("a", "r", "f"))
    for run in (agreed, refused, forgotten):
        run.start(review.Change(title="faster sums"))
    assert 9 == len(review.outbox)
    for name in ("ada", "ada", "grace"):
        agreed.resume(review.Verdict(agreed=True), by=name)
    assert review.Ruling(title="faster sums", merged=True, by=["ada", "grace"]) == agreed.result().output
    refused.resume(review.Verdict(agreed=False), by="alan")
    assert review.Ruling(title="faster sums", merged=False, by=["alan"]) == refused.result().output
    local.advance(days=7)
    assert review.Ruling(title="faster sums", merged=False) == forgotten.result().output


def test_refund_is_decided_by_one_person_and_told_by_the_bank(capsys: pytest.CaptureFixture[str]) -> None:
    """The mail has a link that says who answers; without an answer, or with a no, nothing is paid back."""
    links = Links("https://shop.example", {"1": "0" * 32})
    local = LocalApp(App(refund.refunds, links=links))
    paid, refused, forgotten = (local.workflow(refund.refunds).create_run(id) for id in ("p", "r", "f"))
    for run in (paid, refused, forgotten):
        run.start(refund.Refund(order=run.run_id, cents=990, reason="it leaks"))
    token = capsys.readouterr().out.split("/a/")[1].split()[0]
    assert refund.APPROVER == links.read(token, "a", local.clock.now()).actor
    paid.resume(refund.Decision(approved=True), by=refund.APPROVER)
    local.send_event("refund.paid", "p", 990)
    assert "990 cents are back" == paid.result().output
    assert "refused" == refused.resume(refund.Decision(approved=False), by=refund.APPROVER).output
    local.advance(days=3)
    assert "nobody has decided" == forgotten.result().output


def test_export_looks_until_the_job_is_done() -> None:
    """Every five minutes, and begun once although the worker died right after beginning."""
    local = LocalApp(export.app)
    local.crash_before("begin")
    run = local.workflow(export.export).create_run("sales")
    run.start("select 1")
    local.advance(hours=1)
    assert "https://warehouse.example/sales/begin.csv" == run.result().output
    assert {"sales/begin": 3} == export.warehouse.begun


def test_export_gives_up() -> None:
    """After 24 looks, two hours."""
    export.warehouse.slowness = 1_000
    local = LocalApp(export.app)
    run = local.workflow(export.export).create_run("sales")
    began = run.start("select 1").created_at
    local.advance(hours=3)
    result = run.result()
    assert result.error is not None
    assert ("link", "ExportTooSlowError") == (result.error.step, result.error.type)
    assert began + timedelta(hours=2) == result.updated_at


def test_payouts_go_on_while_one_waits() -> None:
    """The others are paid, one is refused by the bank, and a no counts as a failure that is tolerated."""
    run = LocalApp(payouts.app).workflow(payouts.payouts).create_run("june")
    items = [payouts.Payout(to=to, amount=n) for to, n in (("ada", 9), ("grace", 20_000), ("nobody", 5), ("alan", 7))]
    asked = run.start(items)
    assert ["success", "suspended", "failed", "success"] == [asked.steps[f"pay[{i}]"].status for i in range(4)]
    done = run.resume(False, label="grace gets 20000").output
    assert payouts.Report(paid=["9 to ada, key june/pay[0]", "7 to alan, key june/pay[3]"], failed=2) == done


def test_thumbnails_are_made_by_many_and_a_tenth_may_be_lost() -> None:
    """Each photo is counted once; with more of them broken the run fails."""
    good = [thumbnails.Photo(name=f"{number}.jpg", bytes=100) for number in range(18)]
    bad = thumbnails.Photo(name="broken.jpg", bytes=0)
    local = LocalApp(thumbnails.app)
    album = local.workflow(thumbnails.thumbnails).create_run()
    album.start(thumbnails.Album(photos=[*good, bad, bad]))
    other = local.workflow(thumbnails.thumbnails).create_run()
    other.start(thumbnails.Album(photos=[*good, bad, bad, bad]))
    local.advance(minutes=5)
    assert thumbnails.Made(bytes=180, lost=2) == album.result().output
    assert "failed" == other.result().status


def test_onboarding_sends_one_mail_and_shares_its_state() -> None:
    """The step ran twice, the mail went out once; what the inner workflow has set is seen outside."""
    run = LocalApp(onboarding.app).workflow(onboarding.onboarding).create_run()
    run.start(onboarding.Person(name="ada"))
    done = run.resume(onboarding.Choice(laptop="a large one"))
    assert "ada@example.com, badge 4711, a large one" == done.output
    assert ["to ada@example.com: which laptop?"] == onboarding.outbox
    assert {"mailbox": "ada@example.com", "badge": 4711} == done.state


@pytest.mark.parametrize(("buys", "becomes"), [(True, "customer"), (False, "gone")])
def test_trial_sends_its_mails_on_their_days(*, buys: bool, becomes: str) -> None:
    """At the start, after a week, after four; two days later it is over."""
    local = LocalApp(trial.app)
    run = local.workflow(trial.trial).create_run()
    run.start(trial.Trial(email="ada", begins=local.clock.now()))
    counts = [len(trial.outbox)]
    for days in (6, 1, 20, 1):
        local.advance(days=days)
        counts.append(len(trial.outbox))
    assert [1, 1, 2, 2, 3] == counts
    if buys:
        run.resume(90, label="buy")
    local.advance(days=2)
    assert becomes == run.result().output


def test_redo_leaves_the_failed_run_or_goes_on_in_it() -> None:
    """A fork is another run; time travel is another life of the same one. Neither fetches again."""
    local = LocalApp(redo.app)
    run = local.workflow(redo.invoicing).create_run("i-7")
    assert "tax" == getattr(run.start("2026-7").error, "step", None)
    corrected = {**run.state().step_payload("tax"), "country": "DE"}
    assert "2026-7: 1190" == run.fork(redo.tax, input=corrected).output
    assert "failed" == run.result().status
    assert "2026-7: 1190" == run.time_travel(redo.tax, input=corrected).output
    assert ["2026-7"] == redo.fetched


def test_expense_pays_what_the_manager_lets_through() -> None:
    """Two checks, a decision, a payment, and three days until it is booked."""
    local = LocalApp(expense.app)
    run = local.workflow(expense.expense_flow).create_run("e-1")
    run.start(expense.Expense(employee="ada", amount=60_000, purpose="a telescope"))
    run.resume(expense.Decision(approved=True), label="manager")
    local.advance(days=3, seconds=3)
    assert expense.Booked(status="booked", payment="payment-1") == run.result().output
    assert 1 == bank.payments("e-1/pay")
