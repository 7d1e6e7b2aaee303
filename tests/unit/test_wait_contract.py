"""What a step may ask for when it suspends: who answers, how many, whom to tell, and what if nobody does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel, Field

from flowcore import App, StepContext, Wait, step, workflow
from flowcore.adapters.memory import MemoryStore
from flowcore.errors import AlreadyResumed, InvalidPayload, NotAnApprover, OutsideError
from flowcore.keys import RunRef
from flowcore.model import Outcome
from flowcore.testing import LocalApp, VirtualClock
from flowcore.testing.faults import Call, Fault, FaultyStore, WorkerDied, at_call
from flowcore.testing.invariants import WatchedStore

HOUR = timedelta(hours=1)
ASKED: dict[str, Any] = {}
CALLS: list[Any] = []
TOLD: list[Wait[Any]] = []
MOOD: list[str] = []
TOLD_AT: list[Callable[[Wait[Any]], None]] = []


class Ask(BaseModel):
    """What is shown."""

    why: str


class Decision(BaseModel):
    """What is answered."""

    approved: bool


def tell(wait: Wait[Ask]) -> None:
    """Tells somebody, if the weather is good."""
    for look in TOLD_AT:
        look(wait)
    if MOOD and MOOD.pop(0) == "bad":
        raise RuntimeError("the mail server is down")
    TOLD.append(wait)


@step
def approve(value: int, ctx: StepContext[Decision, Ask]) -> str:
    """Suspends as the test says; then tells who said what."""
    CALLS.append(ctx.timed_out)
    if ctx.timed_out:
        return "late"
    if ctx.resume_data is None:
        ctx.suspend(Ask(why=f"{value}"), **ASKED)
    said = [f"{vote.by}:{vote.data.approved}" for vote in ctx.votes]
    return f"{ctx.resume_data.approved} of {said}"


class Ballot(BaseModel):
    """An answer with a field that is written under another name."""

    agreed: bool = Field(alias="isAgreed")


def ballot(answer: Any, veto: str) -> Any:
    """A run that asks two people for answers of a type, one of whom can stop it."""

    @step(id="vote")
    def vote(value: int, ctx: StepContext[answer]) -> str:
        if ctx.resume_data is None:
            ctx.suspend(quorum=2, veto=veto)
        return " ".join(f"{vote.by}:{vote.data}" for vote in ctx.votes)

    flow = workflow("ballot", input=int, output=str).then(vote).commit()
    run = LocalApp(App(flow)).workflow(flow).create_run("r")
    run.start(1)
    return run


FLOW = workflow("w", input=int, output=str).then(approve).commit()
YES, NO = Decision(approved=True), Decision(approved=False)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    for seen in (CALLS, TOLD, MOOD, TOLD_AT):
        seen.clear()
    ASKED.clear()


def local(store: Any = None, like: LocalApp | None = None) -> LocalApp:
    """An App on virtual time."""
    return LocalApp(App(FLOW), store=like.store, clock=like.clock) if like else LocalApp(App(FLOW), store=store)


def asked(app: LocalApp, **options: Any) -> Any:
    """A run that is suspended with these options."""
    ASKED.update(options)
    run = app.workflow(FLOW).create_run("r")
    run.start(1)
    return run


# -- the deadline ------------------------------------------------------------------------------------------------------


def test_on_timeout_left_out_starts_the_step_again() -> None:
    """Which finds ``timed_out``."""
    app = local()
    run = asked(app, timeout=HOUR)
    app.advance(hours=1)
    assert ("late", [False, True]) == (run.result().output, CALLS)


def test_on_timeout_value_is_the_output() -> None:
    """The step is not called again; an answer that comes later is told what has happened."""
    app = local()
    run = asked(app, timeout=HOUR, on_timeout="nobody minded")
    app.advance(hours=1)
    assert ("nobody minded", [False]) == (run.result().output, CALLS)
    with pytest.raises(Exception, match="success"):
        run.resume(YES)


def test_on_timeout_fail_fails_the_step() -> None:
    """With the place."""
    app = local()
    run = asked(app, timeout=HOUR, on_timeout="fail")
    app.advance(hours=1)
    error = run.result().error
    assert ("failed", "SuspendTimeout", "approve") == (run.result().status, error.type, error.step)


def test_answer_in_time_beats_the_deadline() -> None:
    """Whatever was to happen then."""
    app = local()
    run = asked(app, timeout=HOUR, on_timeout="fail")
    assert "True of []" == run.resume(YES).output
    app.advance(hours=2)
    assert "success" == run.result().status


# -- who answers -------------------------------------------------------------------------------------------------------


def test_only_approvers_may_answer() -> None:
    """Nobody else, and nobody without a name; the run is untouched."""
    run = asked(local(), approvers=["ada", "grace"])
    assert (("ada", "grace"), 1) == (run.result().waits[0].approvers, run.result().waits[0].quorum)
    for by in ("eve", None):
        with pytest.raises(NotAnApprover, match="approve"):
            run.resume(YES, by=by)
    assert "suspended" == run.result().status
    assert "True of []" == run.resume(YES, by="grace").output


def test_quorum_waits_for_so_many_people() -> None:
    """The suspension keeps its id and its deadline; each is told that he was counted; the last one's data goes on."""
    app = local()
    run = asked(app, quorum=3, timeout=3 * HOUR, on_timeout="fail")
    before = run.result().waits[0]
    for by in ("ada", "grace"):
        app.advance(hours=1)
        receipt = run.resume(YES, by=by, wait=before.id).receipt
        assert ("counted", by, before.id) == (receipt.verdict, receipt.by, receipt.wait)
    after = run.result().waits[0]
    assert (before.id, before.deadline, before.since) == (after.id, after.deadline, after.since)
    assert ("suspended", ("ada", "grace"), [False]) == (run.result().status, after.answered_by, CALLS)
    last = run.resume(NO, by="alan", wait=before.id)
    assert ("applied", "False of ['ada:True', 'grace:True', 'alan:False']") == (last.receipt.verdict, last.output)


def test_quorum_that_is_not_reached_lapses() -> None:
    """At the deadline of the suspension, not later because somebody answered."""
    app = local()
    run = asked(app, quorum=2, timeout=HOUR, on_timeout="nobody minded")
    app.advance(minutes=59)
    run.resume(YES, by="ada")
    app.advance(minutes=1)
    assert "nobody minded" == run.result().output


def test_quorum_counts_people_not_clicks() -> None:
    """A second click is told the same again; another answer of the same person is refused with what he said first."""
    app = local()
    run = asked(app, quorum=2)
    first = run.resume(YES, by="ada").receipt
    app.advance(hours=1)
    again = run.resume(YES, by="ada")
    assert ("duplicate", first.at, "suspended") == (again.receipt.verdict, again.receipt.at, again.status)
    with pytest.raises(AlreadyResumed) as refused:
        run.resume(NO, by="ada")
    assert "ada" == refused.value.winner["by"]
    with pytest.raises(NotAnApprover):
        run.resume(YES)
    assert "success" == run.resume(YES, by="grace").status


def test_repeated_vote_is_known_by_its_key() -> None:
    """Also once the quorum is reached."""
    run = asked(local(), quorum=2)
    run.resume(YES, by="ada", idempotency_key="a-1")
    run.resume(YES, by="grace", idempotency_key="g-1")
    told = [run.resume(YES, by=by, idempotency_key=key).receipt for by, key in (("ada", "a-1"), ("grace", "g-1"))]
    assert ["duplicate"] * 2 == [receipt.verdict for receipt in told]


def test_veto_settles_alone() -> None:
    """An answer whose field is false ends the asking."""
    run = asked(local(), quorum=3, veto="approved")
    assert "counted" == run.resume(YES, by="ada").receipt.verdict
    vetoed = run.resume(NO, by="grace")
    assert ("applied", "False of ['ada:True', 'grace:False']") == (vetoed.receipt.verdict, vetoed.output)


@pytest.mark.parametrize("veto", ["agreed", "isAgreed"])
def test_veto_names_a_field_or_what_it_is_written_as(veto: str) -> None:
    """An answer that agrees is counted, one that does not settles alone."""
    run = ballot(Ballot, veto)
    assert "counted" == run.resume({"isAgreed": True}, by="ada").receipt.verdict
    assert "ada:agreed=True bob:agreed=False" == run.resume({"isAgreed": False}, by="bob").output


@pytest.mark.parametrize("answer", [Any, dict, dict[str, bool], Ballot | dict[str, bool]])
def test_veto_may_name_anything_where_an_answer_may_hold_anything(answer: Any) -> None:
    """One that has no such field settles alone: nobody has agreed in it."""
    run = ballot(answer, "fine")
    assert "counted" == run.resume({"fine": True}, by="ada").receipt.verdict
    assert "ada:{'fine': True} bob:{'else': True}" == run.resume({"else": True}, by="bob").output


@pytest.mark.parametrize("answer", [bool, str, list[str], Ballot, Ballot | None])
def test_veto_that_names_no_field_of_an_answer_fails_the_step(answer: Any) -> None:
    """Each answer would settle alone, whatever it says."""
    error = ballot(answer, "aggreed").result().error
    assert "veto='aggreed'" in error.message
    assert "no such field" in error.message


def test_vote_that_does_not_fit_is_not_counted() -> None:
    """It is refused with the fields."""
    run = asked(local(), quorum=2)
    with pytest.raises(InvalidPayload):
        run.resume({"approved": "maybe"}, by="ada")
    assert () == run.result().waits[0].answered_by


def test_votes_of_a_paused_run_are_counted() -> None:
    """Like any answer; it goes on when the operator says so."""
    run = asked(local(), quorum=2)
    run.pause()
    run.resume(YES, by="ada")
    run.resume(YES, by="grace")
    assert "paused" == run.result().status
    assert "success" == run.unpause().status


def test_racing_votes_are_each_counted_once() -> None:
    """One comes in between the other's read and write: both count, and the quorum is reached exactly once."""
    for number in range(1, 8):
        watched = WatchedStore(MemoryStore())
        run = asked(local(watched), quorum=2)
        between: list[Any] = []

        def script(call: Call, number: int = number, between: list[Any] = between) -> None:
            if call.number == number:
                between.append(LocalApp(App(FLOW), store=watched).run("r").resume(YES, by="grace").receipt)  # noqa: B023

        told = LocalApp(App(FLOW), store=FaultyStore(watched, script)).run("r").resume(YES, by="ada").receipt
        if not between:
            run.resume(YES, by="grace")
            break
        assert told is not None
        assert {"counted", "applied"} == {told.verdict, between[0].verdict}, f"at call {number}"
        assert "success" == run.result().status
        CALLS.clear()


# -- who is told -------------------------------------------------------------------------------------------------------


def test_notify_is_called_once_with_the_stored_wait() -> None:
    """With the payload as the step's type; later wakes of the run do not call it again."""
    app = local()
    run = asked(app, notify=tell, timeout=HOUR)
    assert run.result().waits[0].id == TOLD[0].id
    assert Ask(why="1") == TOLD[0].payload
    app.deliver("r", twice=True)
    app.advance(hours=1)
    assert 1 == len(TOLD)


def test_notify_that_fails_is_called_again(caplog: pytest.LogCaptureFixture) -> None:
    """A minute later, and so on; the run can be answered meanwhile. The log has the place, not the message."""
    MOOD[:] = ["bad", "bad", "bad"]
    app = local()
    with caplog.at_level(logging.ERROR):
        run = asked(app, notify=tell)
    assert ("suspended", 0) == (run.result().status, len(TOLD))
    assert "mail server" not in caplog.text.replace("raise RuntimeError", "")
    app.advance(minutes=5)
    assert ("suspended", 1) == (run.result().status, len(TOLD))
    app.advance(days=1)
    assert 1 == len(TOLD)
    assert "success" == run.resume(YES).status


def test_notify_that_never_works_is_called_ever_more_rarely() -> None:
    """After an hour once an hour: an outage of days costs little."""
    MOOD[:] = ["bad"] * 1_000
    app = local()
    run = asked(app, notify=tell)
    app.advance(hours=1)
    tries = 1_000 - len(MOOD)
    assert 5 < tries < 12
    app.advance(days=2)
    assert 45 < 1_000 - len(MOOD) - tries < 50
    assert "success" == run.resume(YES).status


def test_reminders_come_at_their_time_and_say_which_they_are() -> None:
    """The suspension keeps its id; none comes after the answer."""
    app = local()
    run = asked(app, notify=tell, remind=[HOUR, 4 * HOUR, 24 * HOUR])
    began = app.clock.now()
    app.advance(hours=5)
    assert [0, 1, 2] == [wait.reminder for wait in TOLD]
    assert 1 == len({wait.id for wait in TOLD})
    assert began == run.result().waits[0].since
    app.deliver("r", twice=True)
    run.resume(YES)
    app.advance(days=2)
    assert 3 == len(TOLD)


def test_reminders_that_are_overdue_come_as_one() -> None:
    """Nobody wants four mails after an outage."""
    MOOD[:] = ["bad"] * 2
    app = local()
    asked(app, notify=tell, remind=[HOUR, 2 * HOUR], timeout=9 * HOUR)
    app.clock.forward(hours=3)
    app.advance(hours=1)
    assert [2] == [wait.reminder for wait in TOLD]


def test_reminders_leave_the_deadline_alone() -> None:
    """And a quorum's votes leave the reminders alone."""
    app = local()
    run = asked(app, notify=tell, remind=[2 * HOUR], timeout=3 * HOUR, on_timeout="nobody minded", quorum=2)
    app.advance(hours=1)
    run.resume(YES, by="ada")
    app.advance(hours=1)
    assert ([0, 1], ("ada",)) == ([wait.reminder for wait in TOLD], TOLD[-1].answered_by)
    app.advance(hours=1)
    assert "nobody minded" == run.result().output


def beside(clock: VirtualClock, hours: int = 4, **options: Any) -> tuple[LocalApp, Any]:
    """A run that suspends with these options beside work that takes so long, ten minutes at a time."""

    @step(id="work")
    def work(done: int) -> int:
        clock.forward(minutes=10)
        return done + 1

    ASKED.update(options)
    busy = workflow("busy", input=int).dountil(work, lambda done: done > 6 * hours).commit()
    app = LocalApp(App(workflow("w", input=int).parallel(approve, busy).commit()), clock=clock)
    return app, app.workflow("w").create_run("r")


@pytest.mark.parametrize("mood", [[], ["bad"]])
@pytest.mark.parametrize("key", [None, "A-17"])
def test_whoever_must_answer_is_told_and_reminded_while_other_work_goes_on(key: str | None, mood: list[str]) -> None:
    """In time, though the run is given back hours later; also where an event may answer, and where it failed once."""
    clock, began, told = VirtualClock(), VirtualClock().now(), list[tuple[int, int]]()
    MOOD[:] = mood
    _, run = beside(clock, notify=tell, remind=[HOUR, 2 * HOUR], key=key)
    TOLD_AT.append(lambda wait: told.append((wait.reminder, (clock.now() - began) // timedelta(minutes=10))))
    assert "suspended" == run.start(1).status
    assert [(0, 0)] * len(mood) + [(0, len(mood)), (1, 6), (2, 12)] == told


def test_nobody_is_told_of_a_wait_that_an_event_has_answered_already() -> None:
    """It came before, and is taken though other work goes on."""
    app, run = beside(VirtualClock(), notify=tell, key="A-17")
    app.send_event("approve", "A-17", YES)
    assert ("success", []) == (run.start(1).status, TOLD)


def test_reminder_comes_in_time_though_nobody_could_be_told_before() -> None:
    """A call that failed does not put it off; and is not repeated at once when the run is given back."""
    clock, called = VirtualClock(), list[int]()
    MOOD[:] = ["bad"] * 99
    app, began = LocalApp(App(FLOW), clock=clock), clock.now()
    TOLD_AT.append(lambda _: called.append((clock.now() - began) // timedelta(minutes=1)))
    asked(app, notify=tell, remind=[timedelta(minutes=5), timedelta(minutes=6)])
    app.advance(minutes=7)
    assert [0, 1, 2, 4, 5, 6] == called


@pytest.mark.parametrize("fault", list(Fault))
def test_notify_happens_whatever_dies(fault: Fault) -> None:
    """At least once, never before the suspension is stored, and never again once that has been written down."""
    calls: list[Call] = []
    asked(local(FaultyStore(WatchedStore(MemoryStore()), calls.append)), notify=tell)
    every = frozenset(call.verb for call in calls)
    for number in range(1, len(calls) + 1):
        TOLD.clear()
        watched = WatchedStore(MemoryStore())
        app = local(FaultyStore(watched, at_call(number, fault, verbs=every)))
        for _ in range(3):
            with suppress(WorkerDied, OutsideError):
                app.workflow(FLOW).create_run("r").start(1)
                break
        for _ in range(5):
            with suppress(WorkerDied, OutsideError):
                app.advance(hours=1)
        assert "suspended" == LocalApp(App(FLOW), store=watched, clock=app.clock).run("r").result().status
        assert len(TOLD) in (1, 2), f"{fault} at call {number}"
        told = len(TOLD)
        app.deliver("r", twice=True)
        assert told == len(TOLD)


# -- an event instead of a person --------------------------------------------------------------------------------------


def test_key_lets_an_event_answer() -> None:
    """Under the label, else the step's id; it has to fit like any answer."""
    app = local()
    run = asked(app, key="order-7", label="payment")
    with pytest.raises(InvalidPayload):
        app.send_event("payment", "order-7", {"approved": "?"})
    assert "applied" == app.send_event("payment", "order-7", {"approved": True}).verdict
    assert "True of []" == run.result().output


def test_key_takes_an_event_that_came_before() -> None:
    """And nobody is told of a suspension that is over already."""
    app = local()
    app.send_event("approve", "order-7", {"approved": True})
    run = asked(app, key="order-7", notify=tell)
    assert ("True of []", []) == (run.result().output, TOLD)


def test_event_that_may_not_answer_is_passed_over() -> None:
    """A worker that parks the run looks at it, leaves it where it is, and parks the run."""
    app = local()
    run = asked(app, key="order-7", notify=tell, remind=[HOUR])
    head, records = app.store.load(RunRef("default", "r")) or pytest.fail("there is such a run")
    prior = next(record for record in records.values() if record.outcome is Outcome.SUSP)
    assert prior.terms is not None
    named = replace(prior.terms, approvers=("ada",))  # as an earlier version may have stored it
    changed = replace(prior, gen=prior.gen + 1, began=prior.gen, seq=prior.seq + 9, terms=named)
    app.store.commit(head.run, 1, changed, prior)
    assert "buffered" == app.send_event("approve", "order-7", {"approved": True}).verdict
    app.advance(hours=2)
    assert ("suspended", [0, 1]) == (run.result().status, [wait.reminder for wait in TOLD])
    assert "success" == run.resume(YES, by="ada").status


# -- what cannot be meant ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"quorum": 0}, "quorum=0"),
        ({"quorum": True}, "quorum=True"),
        ({"quorum": 101}, "quorum=101"),
        ({"quorum": 3, "approvers": ["ada", "ada", "grace"]}, "names only 2"),
        ({"approvers": "ada"}, "list of names"),
        ({"approvers": [""]}, "names"),
        ({"approvers": [7]}, "names"),
        ({"on_timeout": "fail"}, "without timeout="),
        ({"on_timeout": object(), "timeout": HOUR}, "on_timeout of step 'approve'"),
        ({"on_timeout": 7, "timeout": HOUR}, "on_timeout of step 'approve'"),
        ({"veto": 7}, "name of a field"),
        ({"key": ""}, "cannot be the key"),
        ({"key": "k", "approvers": ["ada"]}, "an event has no name"),
        ({"key": "k", "quorum": 2}, "an event has no name"),
        ({"key": "k", "label": "no event"}, "cannot name an event"),
        ({"notify": lambda wait: None}, "another process could not find again"),
        ({"notify": "tell"}, "another process could not find again"),
        ({"remind": [HOUR]}, "without notify="),
        ({"remind": HOUR, "notify": tell}, "list of timedeltas"),
        ({"remind": [3], "notify": tell}, "list of timedeltas"),
        ({"remind": [HOUR, HOUR], "notify": tell}, "each longer than before"),
        ({"remind": [timedelta(0)], "notify": tell}, "above 0"),
    ],
)
def test_suspend_with_what_cannot_be_meant_fails_the_step(options: dict[str, Any], words: str) -> None:
    """With the argument and what to do; the run is not left hanging."""
    error = asked(local(), **options).result().error
    assert "approve" == error.step
    assert words in error.message


def test_notify_that_a_deploy_has_removed_is_tried_until_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suspension stands; whoever knows of it can answer."""
    MOOD[:] = ["bad"]
    app = local()
    run = asked(app, notify=tell)
    with monkeypatch.context() as patch:
        patch.delitem(globals(), "tell")
        app.advance(minutes=5)
        assert [] == TOLD
    app.advance(minutes=5)
    assert (1, "suspended") == (len(TOLD), run.result().status)
