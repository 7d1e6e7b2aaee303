"""Who may answer: not whoever started the run, whoever a vote was handed to, and those whom a reminder adds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, StepContext, Wait, step, workflow
from flowcore.adapters.memory import MemoryStore
from flowcore.core.seats import MOST_DELEGATIONS
from flowcore.errors import (
    AlreadyResumed,
    AmbiguousWait,
    CannotDelegate,
    FlowcoreError,
    IdempotencyKeyReused,
    MalformedRequest,
    NotAnApprover,
    NotSuspended,
    StoreUnavailable,
)
from flowcore.inbox import asked as page
from flowcore.testing import LocalApp
from flowcore.testing.faults import Call, Fault, FaultyStore, WorkerDied, at_call
from flowcore.testing.invariants import WatchedStore

HOUR = timedelta(hours=1)
ASKED: dict[str, Any] = {}
AGAIN: list[dict[str, Any]] = []
TOLD: list[Wait[Any]] = []


def tell(wait: Wait[Any]) -> None:
    """Remembers whom a mail would have gone to."""
    TOLD.append(wait)


@step
def approve(value: int, ctx: StepContext[bool]) -> list[str]:
    """Suspends as the test says, and once more where it says so; then tells who said what in whose place."""
    if ctx.resume_data is None:
        ctx.suspend(**ASKED)
    if AGAIN:
        ctx.suspend(**AGAIN.pop())
    return [f"{vote.by} for {vote.on_behalf_of}: {vote.data}" for vote in ctx.votes]


FLOW = workflow("w", input=int, output=list[str]).then(approve).commit()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    for seen in (ASKED, AGAIN, TOLD):
        seen.clear()


def local(store: Any = None) -> LocalApp:
    """An App on virtual time, over a store that is watched."""
    return LocalApp(App(FLOW), store=store or WatchedStore(MemoryStore()))


def asked(app: LocalApp | None = None, by: str | None = "sam", **options: Any) -> Any:
    """A run that sam has started and that is suspended with these options."""
    ASKED.update(options)
    run = (app or local()).workflow(FLOW).create_run("r")
    run.start(1, by=by)
    return run


def refused(kind: type[FlowcoreError], call: Callable[[], Any], match: str = ".") -> None:
    """The call is told this error, in these words."""
    with pytest.raises(kind, match=match):
        call()


# -- whoever started the run ------------------------------------------------------------------------------------------


def test_who_started_a_run_is_known_for_life() -> None:
    """Whatever happens to it, also in a fork; a second start does not change it."""
    app = local()
    run = asked(app)
    app.workflow(FLOW).create_run("r").start(1, by="eve")
    run.pause()
    run.unpause()
    run.resume(True, by="ada")
    assert "sam" == run.result().started_by == run.time_travel("approve").started_by
    assert "sam" == run.fork("approve").started_by
    assert {"started_by": "sam"} == dict(run.result(fields=["started_by"]))
    assert app.workflow(FLOW).create_run().start(1).started_by is None


def test_who_canceled_a_run_is_shown() -> None:
    """However it is canceled; the first one, as an end is an end; a new life was canceled by nobody."""
    for retention in (None, timedelta(days=1)):
        app = LocalApp(App(FLOW, retention=retention))
        run = asked(app)
        assert run.result().canceled_by is None
        assert "eve" == run.cancel(by="eve").canceled_by == app.cancel("r", by="bob").canceled_by
        assert run.time_travel("approve").canceled_by is None
        assert "x" * 200 == run.cancel(by="x" * 999).canceled_by
        refused(MalformedRequest, lambda run=run: run.cancel(by=""))  # type: ignore[misc]


def test_whoever_started_the_run_may_answer_unless_told_otherwise() -> None:
    """As ever."""
    assert "success" == asked().resume(True, by="sam").status


def test_whoever_started_the_run_may_not_answer_where_that_is_asked_for() -> None:
    """Nor may anybody without a name; the run is untouched, and somebody else may."""
    run = asked(allow_self=False)
    assert run.result().waits[0].allow_self is False
    refused(NotAnApprover, lambda: run.resume(True, by="sam"), "who started the run")
    refused(NotAnApprover, lambda: run.resume(True), "without a name")
    assert "suspended" == run.result().status
    assert "success" == run.resume(True, by="ada").status


def test_nobody_may_answer_where_it_is_not_known_who_started_the_run() -> None:
    """Whoever answers might be that person; the error says how such runs are started."""
    app = local()
    run = asked(app, by=None, allow_self=False)
    refused(NotAnApprover, lambda: run.resume(True, by="ada"), r"start\(by=\.\.\.\)")
    fork = app.run(run.fork("approve").run_id)
    refused(NotAnApprover, lambda: fork.resume(True, by="ada"), "is not known")


def test_an_approver_who_started_the_run_is_left_out() -> None:
    """And the others must do."""
    run = asked(approvers=["sam", "ada", "bob"], quorum=2, allow_self=False)
    refused(NotAnApprover, lambda: run.resume(True, by="sam"))
    run.resume(True, by="ada")
    assert ["ada for None: True", "bob for None: True"] == run.resume(True, by="bob").output


# -- handing a vote over ----------------------------------------------------------------------------------------------


def test_a_delegate_votes_in_the_place_of_the_approver() -> None:
    """The suspension stays the same one; the receipts tell who handed over, and who voted for whom."""
    app = local()
    run = asked(app, approvers=["ada", "bob"], quorum=2, timeout=3 * HOUR)
    before = run.result().waits[0]
    app.advance(hours=1)
    result: Any = app.delegate("r", by="ada", to="dave", wait=before.id)
    assert ("delegated", "ada", "dave") == (result.receipt.verdict, result.receipt.by, result.receipt.to)
    after = result.waits[0]
    assert (before.id, before.since, before.deadline) == (after.id, after.since, after.deadline)
    assert (("dave", "bob"), {"ada": "dave"}) == (after.approvers, after.delegated)
    refused(NotAnApprover, lambda: run.resume(True, by="ada"), "'dave', who answers now")
    app.advance(hours=1)
    assert "ada" == run.resume(True, by="dave", wait=before.id).receipt.on_behalf_of
    assert ["dave for ada: True", "bob for None: False"] == run.resume(False, by="bob").output
    told = [(receipt.verdict, receipt.by, receipt.on_behalf_of, receipt.to) for receipt in run.receipts()]
    assert [
        ("delegated", "ada", None, "dave"),
        ("rejected", "ada", None, None),
        ("counted", "dave", "ada", None),
        ("applied", "bob", None, None),
    ] == told
    assert {before.id} == {receipt.wait for receipt in run.receipts()}


def test_a_vote_can_be_handed_on_and_not_in_a_circle() -> None:
    """Only who holds it now can do so or vote."""
    run = asked(approvers=["ada", "bob"])
    run.delegate(by="ada", to="dave")
    run.delegate(by="dave", to="erin")
    for by, to in [("erin", "ada"), ("erin", "dave"), ("erin", "erin")]:
        refused(CannotDelegate, lambda by=by, to=to: run.delegate(by=by, to=to), "circle|already")  # type: ignore[misc]
    refused(NotAnApprover, lambda: run.delegate(by="dave", to="fay"), "'erin', who answers now")
    refused(NotAnApprover, lambda: run.resume(True, by="dave"))
    assert {"ada": "erin"} == run.result().waits[0].delegated
    receipt = run.resume(True, by="erin").receipt
    assert ("applied", "ada") == (receipt.verdict, receipt.on_behalf_of)
    assert [(None, "dave"), ("ada", "erin")] == [(r.on_behalf_of, r.to) for r in run.receipts() if r.to]


def test_nobody_has_two_votes() -> None:
    """Neither an approver nor who has been handed one, so a quorum can always be reached."""
    run = asked(approvers=["ada", "bob", "ann"], quorum=3)
    run.delegate(by="ada", to="dave")
    for to in ("bob", "dave"):
        refused(CannotDelegate, lambda to=to: run.delegate(by="ann", to=to), "counts twice")  # type: ignore[misc]
    run.resume(True, by="dave")
    refused(CannotDelegate, lambda: run.delegate(by="ann", to="dave"), "counts twice")
    assert "duplicate" == run.resume(True, by="dave").receipt.verdict
    run.resume(True, by="bob")
    assert "applied" == run.resume(True, by="ann").receipt.verdict


def test_who_has_voted_has_no_vote_to_hand_over() -> None:
    """He is told what he voted with."""
    run = asked(approvers=["ada", "bob"], quorum=2)
    run.resume(True, by="ada")
    refused(AlreadyResumed, lambda: run.delegate(by="ada", to="dave"), "'ada'")
    assert "success" == run.resume(True, by="bob").status


def test_handing_over_twice_is_handing_over_once() -> None:
    """The copy is told the first one's receipt."""
    app = local()
    run = asked(app, approvers=["ada"])
    first = run.delegate(by="ada", to="dave")
    app.clock.forward(hours=1)
    again = run.delegate(by="ada", to="dave")
    assert ("duplicate", first.receipt.at, True) == (again.receipt.verdict, again.receipt.at, again.replayed)
    assert 1 == [receipt.verdict for receipt in run.receipts()].count("delegated")


@pytest.mark.parametrize(
    ("by", "kind", "match"),
    [("eve", NotAnApprover, "'eve' is not one"), (None, NotAnApprover, "without a name"), ("", MalformedRequest, "by")],
)
def test_only_who_has_a_vote_can_hand_it_over(by: Any, kind: type[FlowcoreError], match: str) -> None:
    """The run is untouched, and whoever tried is on record."""
    run = asked(approvers=["ada"])
    refused(kind, lambda: run.delegate(by=by, to="dave"), match)
    assert {} == run.result().waits[0].delegated
    assert kind is MalformedRequest or [("rejected", by)] == [(r.verdict, r.by) for r in run.receipts()]


def test_there_is_no_vote_to_hand_over_where_everybody_may_answer() -> None:
    """Also with a quorum; nor once the suspension is over."""
    run = asked(quorum=2)
    refused(CannotDelegate, lambda: run.delegate(by="ada", to="dave"), "everybody may answer")
    run.resume(True, by="ada")
    run.resume(True, by="bob")
    refused(AlreadyResumed, lambda: run.delegate(by="ada", to="dave"))
    refused(NotSuspended, lambda: run.delegate(by="ada", to="dave", wait="other@0"))


def test_a_vote_is_handed_over_in_one_suspension() -> None:
    """Of several it has to be said in which."""
    ASKED["approvers"] = ["ada"]
    each = workflow("each", input=list[int]).foreach(approve, concurrency=2).commit()
    run = LocalApp(App(each)).workflow(each).create_run()
    run.start([1, 2])
    refused(AmbiguousWait, lambda: run.delegate(by="ada", to="dave"))
    waits = run.delegate(by="ada", to="dave", step=approve, index=1).waits
    assert [{}, {"ada": "dave"}] == [wait.delegated for wait in waits]


def test_whoever_started_the_run_gets_no_vote_by_a_detour() -> None:
    """Neither can he be handed one, nor hand over the one he could not give."""
    run = asked(approvers=["ada", "sam"], allow_self=False)
    refused(CannotDelegate, lambda: run.delegate(by="ada", to="sam"), "counts twice|started")
    refused(NotAnApprover, lambda: run.delegate(by="sam", to="dave"), "started the run")
    other = LocalApp(App(FLOW)).workflow(FLOW).create_run("o")
    ASKED["approvers"] = ["ada"]
    other.start(1, by="sam")
    refused(CannotDelegate, lambda: other.delegate(by="ada", to="sam"), "started the run")


def test_votes_are_handed_over_a_bounded_number_of_times() -> None:
    """Each stands in the record."""
    run = asked(approvers=["p-0"])
    for number in range(MOST_DELEGATIONS):
        run.delegate(by=f"p-{number}", to=f"p-{number + 1}")
    last = f"p-{MOST_DELEGATIONS}"
    refused(CannotDelegate, lambda: run.delegate(by=last, to="more"), "the most")
    assert "success" == run.resume(True, by=last).status


def test_a_vote_of_a_paused_run_can_be_handed_over() -> None:
    """It is no answer: nothing moves."""
    run = asked(approvers=["ada"])
    run.pause()
    assert "paused" == run.delegate(by="ada", to="dave").status
    run.resume(True, by="dave")
    assert "success" == run.unpause().status


def test_the_next_suspension_asks_the_approvers_themselves() -> None:
    """What was handed over before is known from the receipts alone."""
    app = local()
    AGAIN.append({"approvers": ["ada"]})
    run = asked(app, approvers=["ada"])
    run.delegate(by="ada", to="dave")
    app.clock.forward(hours=1)
    run.resume(True, by="dave")
    refused(NotAnApprover, lambda: run.resume(True, by="dave"))
    app.clock.forward(hours=1)
    run.resume(True, by="ada")
    told = [(receipt.verdict, receipt.by, receipt.on_behalf_of) for receipt in run.receipts()]
    assert [("delegated", "ada", None), ("applied", "dave", "ada"), ("applied", "ada", None)] == [
        line for line in told if line[0] != "rejected"
    ]


def test_reminders_and_the_deadline_go_on_after_a_vote_was_handed_over() -> None:
    """They count from the beginning; the next reminder goes to whom it was handed to."""
    app = local()
    run = asked(app, approvers=["ada"], notify=tell, remind=[2 * HOUR], timeout=3 * HOUR, on_timeout=["nobody"])
    app.advance(hours=1)
    run.delegate(by="ada", to="dave")
    app.advance(hours=1)
    assert [("ada",), ("dave",)] == [wait.approvers for wait in TOLD]
    app.advance(hours=1)
    assert ["nobody"] == run.result().output
    assert "timeout" == run.receipts()[-1].via
    assert [TOLD[0].id] * 2 == [receipt.wait for receipt in run.receipts()]


def test_handing_over_and_voting_race_with_one_winner() -> None:
    """Whichever comes in between the other's read and write: the vote is given once, by whoever was faster."""
    for number in range(1, 8):
        watched = WatchedStore(MemoryStore())
        run = asked(local(watched), approvers=["ada", "bob"], quorum=2)
        between: list[str] = []

        def script(call: Call, number: int = number, between: list[str] = between, run: Any = run) -> None:
            if call.number == number:
                between.append(run.resume(True, by="ada").receipt.verdict)

        hands_over = LocalApp(App(FLOW), store=FaultyStore(watched, script)).run("r")
        if number > 2:
            hands_over.delegate(by="ada", to="dave")
            break
        refused(AlreadyResumed, lambda: hands_over.delegate(by="ada", to="dave"))  # noqa: B023
        assert ["counted"] == between
        assert {} == run.result().waits[0].delegated


@pytest.mark.parametrize("fault", list(Fault))
def test_a_vote_is_handed_over_once_whatever_dies(fault: Fault) -> None:
    """Whoever asks again is told that it is done."""
    for number in (1, 2):
        watched = WatchedStore(MemoryStore())
        run = asked(local(watched), approvers=["ada"])
        every = frozenset({"load", "peek", "commit", "note"})
        faulty = LocalApp(App(FLOW), store=FaultyStore(watched, at_call(number, fault, verbs=every))).run("r")
        with suppress(WorkerDied, StoreUnavailable, FlowcoreError):
            faulty.delegate(by="ada", to="dave")
        run.delegate(by="ada", to="dave")
        assert {"ada": "dave"} == run.result().waits[0].delegated
        assert "ada" == run.resume(True, by="dave").receipt.on_behalf_of
        assert 1 == [receipt.verdict for receipt in run.receipts()].count("delegated")


# -- whom a reminder adds ---------------------------------------------------------------------------------------------


def test_a_reminder_adds_who_may_answer() -> None:
    """From its time on, whether or not somebody could be told; the suspension is the same one."""
    app = local()
    run = asked(app, approvers=["ada"], notify=tell, remind=[HOUR, 2 * HOUR], escalate={2: ["boss"]}, timeout=9 * HOUR)
    wait = run.result().waits[0]
    assert [(wait.since + 2 * HOUR, ("boss",))] == list(wait.escalates)
    app.advance(hours=1)
    refused(NotAnApprover, lambda: run.resume(True, by="boss", wait=wait.id))
    app.advance(hours=1)
    assert [("ada",), ("ada",), ("ada", "boss")] == [told.approvers for told in TOLD]
    assert {wait.id} == {told.id for told in TOLD}
    assert "applied" == run.resume(True, by="boss", wait=wait.id).receipt.verdict


def test_a_vote_is_not_handed_to_whom_a_reminder_will_add() -> None:
    """He would hold two of the votes and could give but one: nobody else could ever fill the quorum."""
    app = local()
    run = asked(app, approvers=["ada"], quorum=2, remind=[HOUR], escalate={1: ["boss"]}, notify=tell)
    refused(CannotDelegate, lambda: run.delegate(by="ada", to="boss"), "after a reminder")
    run.delegate(by="ada", to="bob")
    app.advance(hours=1)
    assert ["counted", "applied"] == [run.resume(True, by=who).receipt.verdict for who in ("bob", "boss")]


def test_an_answer_under_a_key_that_somebody_else_has_used_is_no_copy() -> None:
    """Nor one for another suspension: told that it was taken, its sender would never send it again."""
    flow = workflow("two", input=int).parallel(approve, approve.clone(id="again")).commit()
    app = LocalApp(App(flow))
    ASKED.update(quorum=2)
    run: Any = app.workflow(flow).create_run("r")
    run.start(1)
    run.resume(True, step="approve", by="ada", idempotency_key="k")
    [wait] = [wait.id for wait in run.result().waits if wait.id.startswith("again@")]
    other = {"wait": wait, "by": "ada"}, {"step": "again", "by": "ada"}
    for named, how in (({"step": "approve", "by": "bob"}, "somebody else"), *((one, "'approve@0'") for one in other)):
        with pytest.raises(IdempotencyKeyReused, match=how):
            run.resume(True, idempotency_key="k", **named)
    copy = run.resume(True, step="approve", by="ada", idempotency_key="k")
    assert ("duplicate", "applied") == (
        copy.receipt.verdict,
        run.resume(True, step="approve", by="bob", idempotency_key="bob's").receipt.verdict,
    )


def test_a_copy_of_a_second_vote_is_none_for_what_the_step_asks_next() -> None:
    """It was told that its sender has voted; that no record knows its key does not make it an answer."""
    AGAIN.append({"quorum": 2})
    run = asked(quorum=2)
    second = {"step": "approve", "by": "ada", "idempotency_key": "second"}
    told = [run.resume(True, step="approve", by="ada", idempotency_key="first"), run.resume(True, **second)]
    told += [run.resume(True, step="approve", by="bob", idempotency_key="bob's"), run.resume(True, **second)]
    assert ["counted", "duplicate", "applied", "duplicate"] == [result.receipt.verdict for result in told]
    assert "suspended" == run.result().status
    assert "counted" == run.resume(True, step="approve", by="ada", idempotency_key="third").receipt.verdict


def test_each_vote_brings_its_values_along() -> None:
    """Not the last one's alone."""

    @step
    def values(value: int, ctx: StepContext[bool]) -> dict[str, Any]:
        if ctx.resume_data is None:
            ctx.suspend(quorum=2)
        return dict(ctx.request_context)

    flow = workflow("votes", input=int).then(values).commit()
    run = LocalApp(App(flow)).workflow(flow).create_run("r")
    run.start(1, request_context={"given": 0, "a": 0})
    run.resume(True, by="ada", request_context={"a": 1, "both": 1})
    assert {"given": 0, "a": 1, "b": 2, "both": 2} == run.resume(
        True, by="bob", request_context={"b": 2, "both": 2}
    ).output


def test_an_answer_is_written_down_once_however_often_its_step_suspends_again() -> None:
    """And told as often as it came."""
    noted: list[str] = []
    app = local(FaultyStore(MemoryStore(), lambda call: noted.append(call.verb) if call.verb == "note" else None))
    AGAIN.extend({} for _ in range(9))
    run = asked(app)
    for number in range(9):
        run.resume(True, by="ada", idempotency_key=f"k-{number}")
    assert [("applied", f"k-{number}", 1) for number in range(9)] == [
        (receipt.verdict, receipt.idempotency_key, receipt.times) for receipt in run.receipts()
    ]
    assert 9 == len(noted)


def inbox(app: LocalApp) -> list[str]:
    """Whose inbox shows the run."""
    return [who for who in ("ada", "bob", "eve", "mia", "sam") if list(app.waits(assignee=who))]


def test_a_fork_tells_votes_from_the_answers_that_settled_what_was_asked_before() -> None:
    """It knows of them what the step's record knows, and nothing is written down beside it."""
    ASKED.update(approvers=("ada", "bob"), quorum=2)
    AGAIN.append({})
    app = LocalApp(App(workflow("w", input=int).then(approve).map(len, id="votes").commit()))
    run: Any = app.workflow("w").create_run("r")
    run.start(1)
    run.resume(True, by="bob", idempotency_key="k-1")
    run.resume(True, by="ada", idempotency_key="k-2")
    run.resume(True, by="eve", idempotency_key="k-3")

    told = [(receipt.verdict, receipt.by) for receipt in app.run(run.fork("votes").run_id).receipts()]
    assert [("counted", "bob"), ("applied", "ada"), ("applied", "eve")] == told


def test_inbox_of_a_person_is_what_he_may_answer_now() -> None:
    """Not before a reminder has added him, not when he has answered, nor when he has handed his vote over."""
    app = local()
    run = asked(
        app, approvers=["ada", "bob"], quorum=3, remind=[HOUR, 2 * HOUR], escalate={1: ["eve"]}, notify=tell, label="x"
    )
    assert ["ada", "bob"] == inbox(app)
    app.advance(hours=1)
    assert ["ada", "bob", "eve"] == inbox(app)
    run.resume(True, by="ada")
    run.delegate(by="eve", to="mia")
    assert ["bob", "mia"] == inbox(app)
    assert [] == list(app.waits(assignee="bob", label="y"))


def test_inbox_of_whoever_started_a_run_leaves_out_what_others_must_answer() -> None:
    """Everybody else may where nobody is named."""
    app = local()
    asked(app, allow_self=False)
    assert ["ada", "bob", "eve", "mia"] == inbox(app)


def test_page_is_shown_to_whom_a_reminder_has_added_though_nobody_has_sent_it_yet() -> None:
    """By the run's own time, as when he answers."""
    app = local()
    asked(app, approvers=["ada"], notify=tell, remind=[HOUR], escalate={1: ["boss"]})
    [wait] = app.waits()
    refused(NotAnApprover, lambda: page(app, "r", wait.id, by="boss"))
    app.clock.forward(hours=1)
    assert wait.id == page(app, "r", wait.id, by="boss").wait.id


def test_those_named_first_may_still_answer_and_a_quorum_may_need_both() -> None:
    """Who is added has a vote like any other, and may hand it over."""
    app = local()
    run = asked(app, approvers=["ada"], quorum=2, notify=tell, remind=[HOUR], escalate={1: ["boss"]})
    refused(NotAnApprover, lambda: run.delegate(by="boss", to="deputy"))
    app.advance(hours=1)
    run.delegate(by="boss", to="deputy")
    run.resume(True, by="deputy")
    assert ["deputy for boss: True", "ada for None: True"] == run.resume(True, by="ada").output


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"escalate": {1: ["boss"]}}, "everybody may answer"),
        ({"escalate": {1: ["boss"]}, "approvers": ["ada"]}, "remind= has 0"),
        ({"escalate": {2: ["boss"]}, "approvers": ["ada"], "remind": [HOUR], "notify": tell}, "remind= has 1"),
        ({"escalate": {True: ["boss"]}, "approvers": ["ada"], "remind": [HOUR], "notify": tell}, "reminder True"),
        ({"escalate": {1: "boss"}, "approvers": ["ada"], "remind": [HOUR], "notify": tell}, "list of names"),
        ({"escalate": ["boss"], "approvers": ["ada"]}, "give a dict"),
        ({"quorum": 3, "escalate": {1: ["b"]}, "approvers": ["a"], "remind": [HOUR], "notify": tell}, "only 2"),
        ({"allow_self": "no"}, "True or False"),
        ({"allow_self": False, "key": "A-17"}, "has no name"),
        ({"allow_self": False, "approvers": ["sam"]}, "'sam' started the run"),
        ({"allow_self": False, "approvers": ["sam", "ada"], "quorum": 2}, "names only 2 approvers"),
        ({"remind": [timedelta(days=5_000_000)], "notify": tell}, "none above 36,500 days"),
    ],
    ids=lambda value: value if isinstance(value, str) else "terms",
)
def test_terms_that_cannot_be_meant_fail_the_step(options: dict[str, Any], match: str) -> None:
    """With what to write instead."""
    error = asked(**options).result().error
    assert error is not None
    assert match in error.message
