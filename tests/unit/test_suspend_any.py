"""Waiting for the first of several things: each is a wait of its own, one settles it, the others are over with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from flowcore import App, Option, StepContext, Wait, step, workflow
from flowcore.adapters.memory import MemoryStore
from flowcore.errors import (
    AlreadyResumed,
    AmbiguousWait,
    InvalidPayload,
    NotAnApprover,
    NotSuspended,
    OutsideError,
    RequestError,
    RunFinished,
    UnknownLabel,
)
from flowcore.keys import RunRef
from flowcore.model import Mail, Topic
from flowcore.testing import LocalApp, VirtualClock
from flowcore.testing.faults import Call, Fault, FaultyStore, Script, WorkerDied, at_call
from flowcore.testing.invariants import WatchedStore

HOUR = timedelta(hours=1)
PAID = Topic("default", "paid", "A-17")
LOST = Topic("default", "order.lost", "A-17")
ASKED: list[Any] = []
OPTIONS: dict[str, Any] = {}
SEEN: list[Any] = []
TOLD: list[Wait[Any]] = []


class Ask(BaseModel):
    """What is shown."""

    why: str


class Decision(BaseModel):
    """What a person answers."""

    approved: bool


class Paid(BaseModel):
    """What the shop tells."""

    cents: int


def tell(wait: Wait[Ask]) -> None:
    """Tells somebody."""
    TOLD.append(wait)


@step
def settle(order: str, ctx: StepContext[Decision | Paid, Ask]) -> str:
    """Waits for whatever the test says; then tells what came."""
    SEEN.append((ctx.chosen, ctx.timed_out, ctx.suspend_data))
    if ctx.timed_out:
        return "late"
    if ctx.chosen is None:
        ctx.suspend_any(ASKED, **OPTIONS)
    said = [f"{vote.by}" for vote in ctx.votes]
    return f"{ctx.chosen}: {ctx.resume_data}{said or ''}"


@step
def rounds(limit: int, ctx: StepContext[Any]) -> str:
    """Asks again until it has been told so often."""
    told = 0 if ctx.resume_data is None else ctx.resume_data
    if told < limit:
        ctx.suspend_any([Option("a"), Option("b")])
    return f"{ctx.chosen}"


FLOW = workflow("w", input=str, output=str).then(settle).commit()
EACH = workflow("each", input=list[str], output=list[str]).foreach(settle, concurrency=3).commit()
YES, MONEY = {"approved": True}, {"cents": 5}
BOSS = Option("boss", Ask(why="large"), resume=Decision, approvers=["ann", "bob"])
SHOP = Option("paid", resume=Paid, key="A-17")
CARRIER = Option("lost", event="order.lost", key="A-17")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    ASKED.extend([BOSS, SHOP, CARRIER])
    yield
    for seen in (ASKED, SEEN, TOLD):
        seen.clear()
    OPTIONS.clear()


def local(store: Any = None, clock: VirtualClock | None = None) -> LocalApp:
    """An App on virtual time."""
    return LocalApp(App(FLOW, EACH), store=store, clock=clock)


def waiting(app: LocalApp, *options: Option[Any], **rest: Any) -> Any:
    """A run that waits for these."""
    if options:
        ASKED[:] = options
    OPTIONS.update(rest)
    run = app.workflow("w").create_run("r")
    run.start("A-17")
    return run


def listeners(app: LocalApp) -> list[str]:
    """Waits that listen for an event."""
    found = [app.store.mail(topic, app.clock.now()) for topic in (PAID, LOST)]
    return [listener.wait for mail in found for listener in mail.listeners]


def test_each_option_is_a_wait_of_its_own() -> None:
    """With an id, its name for a label, and its own terms; in the result and in the inbox."""
    app = local()
    result = waiting(app, timeout=HOUR).result()
    assert ["settle@0:boss", "settle@0:paid", "settle@0:lost"] == [wait.id for wait in result.waits]
    assert ["boss", "paid", "lost"] == [wait.label for wait in result.waits]
    assert [{"why": "large"}, None, None] == [wait.payload for wait in result.waits]
    assert [["ann", "bob"], [], []] == [list(wait.approvers) for wait in result.waits]
    assert {app.clock.now() + HOUR} == {wait.deadline for wait in result.waits}
    assert sorted(wait.id for wait in result.waits) == [wait.id for wait in app.waits()]
    assert [result.waits[1]] == app.waits(label="paid").items
    assert [["settle"]] == result.suspended
    assert {"boss": ["settle"], "paid": ["settle"], "lost": ["settle"]} == result.resume_labels
    assert {"boss": {"why": "large"}, "paid": None, "lost": None} == result.steps["settle"].suspend_payload


@pytest.mark.parametrize("way", [{"label": "boss"}, {"wait": "settle@0:boss"}, {"step": "settle", "label": "boss"}])
def test_answer_chooses_its_option(way: dict[str, Any]) -> None:
    """The step learns which one, with its data and what it had shown."""
    run = waiting(local())
    result = run.resume(YES, by="ann", **way)
    assert ("success", "boss: approved=True") == (result.status, result.output)
    assert "settle@0:boss" == result.receipt.wait
    assert [(None, False, None), ("boss", False, Ask(why="large"))] == SEEN


@pytest.mark.parametrize("way", [{}, {"step": "settle"}, {"wait": "settle@0"}])
def test_answer_that_names_no_option_is_ambiguous(way: dict[str, Any]) -> None:
    """It is told all that are open, and the run is untouched."""
    run = waiting(local())
    before = run.result()
    with pytest.raises(AmbiguousWait, match=r"'settle \(boss\)', .*Name one with label= or wait=") as caught:
        run.resume(YES, by="ann", **way)
    assert [("settle@0:boss", "boss"), ("settle@0:paid", "paid"), ("settle@0:lost", "lost")] == [
        (wait["id"], wait["label"]) for wait in caught.value.details()["waits"]
    ]
    assert before == run.result()


@pytest.mark.parametrize("way", [{"label": "boss"}, {"wait": "settle@0:boss"}, {"label": "lost"}, {"step": "settle"}])
def test_answer_to_another_option_afterwards_is_stale(way: dict[str, Any]) -> None:
    """It is told which one was chosen, when and by whom."""
    run = waiting(local())
    run.resume(MONEY, label="paid", by="eve")
    with pytest.raises(AlreadyResumed, match="by 'eve' as 'paid'") as caught:
        run.resume(YES, by="ann", **way)
    assert ("paid", "eve", "python") == tuple(caught.value.winner[name] for name in ("chosen", "by", "via"))


def test_answer_may_be_repeated_under_its_key() -> None:
    """A copy is told the same; the same key for another option with other data is refused."""
    run = waiting(local())
    run.resume(MONEY, label="paid", idempotency_key="k")
    assert "duplicate" == run.resume(MONEY, label="paid", idempotency_key="k").receipt.verdict


def test_unknown_option_is_told_the_open_ones() -> None:
    """As labels are."""
    with pytest.raises(UnknownLabel, match="'boss', 'lost', 'paid'"):
        waiting(local()).resume(YES, label="chief")


def test_event_settles_the_option_that_listens_for_it() -> None:
    """The others listen no more, and what comes for them is kept for others."""
    app = local()
    run = waiting(app)
    assert ["settle@0:paid", "settle@0:lost"] == listeners(app)
    assert "settle@0:paid" == app.send_event("paid", "A-17", MONEY).wait
    assert "paid: cents=5" == run.result().output
    assert [] == listeners(app)
    assert "buffered" == app.send_event("order.lost", "A-17", YES).verdict


def test_event_that_came_before_is_taken_at_once() -> None:
    """The run never stands still."""
    app = local()
    app.send_event("order.lost", "A-17", YES)
    assert "lost: approved=True" == waiting(app).result().output
    assert [] == listeners(app)


def test_events_that_came_before_settle_one_option() -> None:
    """That of the first option that has one; the other event is kept."""
    app = local()
    app.send_event("order.lost", "A-17", YES)
    app.send_event("paid", "A-17", MONEY)
    assert "paid: cents=5" == waiting(app).result().output
    assert [None] == [event.taker for event in app.store.mail(LOST, app.clock.now()).events]


def test_answer_has_the_others_listen_no_more_in_the_same_write() -> None:
    """Without a call of its own, which might be the one that never happens."""
    calls: list[str] = []
    app = local(FaultyStore(MemoryStore(), lambda call: calls.append(call.verb)))
    run = waiting(app)
    calls.clear()
    run.resume(YES, label="boss", by="ann")
    assert [] == listeners(app)
    assert "unlisten" not in calls


def test_data_must_fit_the_chosen_option() -> None:
    """What another option would take is no answer to this one; without a type of its own it takes any."""
    app = local()
    run = waiting(app)
    with pytest.raises(InvalidPayload, match="cents"):
        run.resume(YES, label="paid")
    with pytest.raises(InvalidPayload, match="approved"):
        run.resume(MONEY, label="boss", by="ann")
    with pytest.raises(InvalidPayload, match="cents"):
        app.send_event("paid", "A-17", YES)
    assert "lost: cents=5" == run.resume(MONEY, label="lost").output


def test_only_the_approvers_of_an_option_may_answer_it() -> None:
    """Anybody may answer the others."""
    run = waiting(local())
    with pytest.raises(NotAnApprover):
        run.resume(YES, label="boss", by="eve")
    assert "success" == run.resume(MONEY, label="paid", by="eve").status


def test_votes_are_counted_by_option() -> None:
    """A quorum of one does not settle another, whose answers are another's; a vote may be repeated."""
    two: dict[str, Any] = {"quorum": 2, "resume": Decision}
    run = waiting(local(), Option("board", **two), Option("staff", **two), SHOP)
    vote = run.resume(YES, label="board", by="ann", idempotency_key="k")
    assert ("counted", "settle@0:board") == (vote.receipt.verdict, vote.receipt.wait)
    assert "duplicate" == run.resume(YES, label="board", by="ann", idempotency_key="k").receipt.verdict
    assert "counted" == run.resume(YES, label="staff", by="ann").receipt.verdict
    assert [["ann"], ["ann"], []] == [list(wait.answered_by) for wait in run.result().waits]
    assert ["settle@0:board", "settle@0:staff", "settle@0:paid"] == [wait.id for wait in run.result().waits]
    assert "staff: approved=True['ann', 'bob']" == run.resume(YES, label="staff", by="bob").output


def test_veto_of_an_option_settles_alone() -> None:
    """Whatever its quorum."""
    run = waiting(local(), Option("board", quorum=3, veto="approved"), SHOP)
    assert "board: approved=False['ann']" == run.resume({"approved": False}, label="board", by="ann").output


def test_veto_of_an_option_names_a_field_of_its_own_answers() -> None:
    """One that only the answers to another option have is refused."""
    run = waiting(local(), Option("board", resume=Paid, quorum=3, veto="approved"), SHOP)
    assert "no such field" in run.result().error.message


def test_receipts_tell_every_vote() -> None:
    """Of each option, then what settled one of them."""
    run = waiting(local(), Option("board", quorum=2), Option("staff", quorum=2))
    for label, by in (("board", "ann"), ("staff", "bob"), ("board", "bob")):
        run.resume(YES, label=label, by=by)
    assert [
        ("counted", "settle@0:board", "ann"),
        ("counted", "settle@0:staff", "bob"),
        ("applied", "settle@0:board", "bob"),
    ] == [(receipt.verdict, receipt.wait, receipt.by) for receipt in run.receipts()]


def test_vote_is_handed_over_for_one_option() -> None:
    """It is another one's in the others; the receipt names the option, also once the run has gone on."""
    two: dict[str, Any] = {"approvers": ["ann", "bob"], "quorum": 2}
    run = waiting(local(), Option("board", **two), Option("staff", **two))
    assert "settle@0:board" == run.delegate(by="ann", to="eve", label="board").receipt.wait
    with pytest.raises(NotAnApprover):
        run.resume(YES, label="staff", by="eve")
    run.resume(YES, label="board", by="eve")
    run.resume(YES, label="staff", by="ann")
    assert "staff: approved=True['ann', 'bob']" == run.resume(YES, label="staff", by="bob").output
    told = [(receipt.verdict, receipt.wait, receipt.by) for receipt in run.receipts()]
    assert ("delegated", "settle@0:board", "ann") in told
    with pytest.raises(AmbiguousWait):
        waiting(local(), Option("board", **two), Option("staff", **two)).delegate(by="ann", to="eve")


def test_votes_do_not_keep_an_event_from_winning() -> None:
    """The quorum is short: whatever comes first settles it."""
    app = local()
    run = waiting(app, Option("board", quorum=2), SHOP)
    run.resume(YES, label="board", by="ann")
    app.send_event("paid", "A-17", MONEY)
    assert "paid: cents=5" == run.result().output
    assert [] == listeners(app)


@pytest.mark.parametrize(
    ("rest", "status", "output"),
    [
        ({}, "success", "late"),
        ({"on_timeout": "too late"}, "success", "too late"),
        ({"on_timeout": "fail"}, "failed", None),
    ],
)
def test_nothing_that_comes_in_time_lapses(rest: dict[str, Any], status: str, output: str | None) -> None:
    """One deadline for all of them; nobody listens afterwards."""
    app = local()
    run = waiting(app, timeout=HOUR, **rest)
    app.advance(hours=2)
    assert (status, output) == (run.result().status, run.result().output)
    assert [] == listeners(app)
    with pytest.raises(AlreadyResumed, match="via 'timeout'"):
        run.resume(YES, wait="settle@0:boss", by="ann")


@pytest.mark.parametrize("options", [[BOSS], [BOSS, SHOP]], ids=["one option", "two options"])
def test_nothing_is_chosen_by_a_deadline(options: list[Option[Any]]) -> None:
    """The step sees that time is up, and neither a name nor what it had shown."""
    app = local()
    run = waiting(app, *options, timeout=HOUR)
    app.advance(hours=1)
    assert [(None, False, None), (None, True, None)] == SEEN
    with pytest.raises(AlreadyResumed) as caught:
        run.resume(YES, wait="settle@0:boss", by="ann")
    assert "chosen" not in caught.value.winner


def test_notify_is_called_for_each_option() -> None:
    """Once, with its own wait; an option that listens does not keep the others from being told."""
    waiting(local(), Option("boss", Ask(why="b"), notify=tell), Option("staff", Ask(why="s"), notify=tell), SHOP)
    assert [("settle@0:boss", Ask(why="b")), ("settle@0:staff", Ask(why="s"))] == [(w.id, w.payload) for w in TOLD]


def test_single_option_needs_no_name_to_be_answered() -> None:
    """It is a suspension like any other, but for its id."""
    run = waiting(local(), Option("boss", Ask(why="alone"), quorum=2, resume=Decision))
    (wait,) = run.result().waits
    assert ("settle@0:boss", "boss", {"why": "alone"}) == (wait.id, wait.label, wait.payload)
    run.resume(YES, by="ann")
    assert "boss: approved=True['ann', 'bob']" == run.resume(YES, step="settle", by="bob").output


def test_canceled_run_waits_for_none_of_them() -> None:
    """Whoever answers learns that the run is over."""
    app = local()
    run = waiting(app)
    run.cancel()
    assert [] == listeners(app)
    for label in ("boss", "paid"):
        with pytest.raises(RunFinished):
            run.resume(YES, label=label, by="ann")


def test_each_life_has_waits_of_its_own() -> None:
    """After time travel the ids of before answer no more."""
    app = local()
    run = waiting(app)
    run.time_travel("settle")
    ids = [wait.id for wait in run.result().waits]
    assert [":boss", ":paid", ":lost"] == [id[-5:] for id in ids]
    assert all(id.startswith("settle@0~") for id in ids)
    with pytest.raises(NotSuspended):
        run.resume(YES, wait="settle@0:boss", by="ann")
    assert ids[1] == app.send_event("paid", "A-17", MONEY).wait
    assert "buffered" == app.send_event("order.lost", "A-17", YES).verdict
    assert [] == listeners(app)


def test_items_of_a_foreach_are_answered_by_option() -> None:
    """By label all items at once, with an index one of them; an item alone does not say which option."""
    run = local().workflow("each").create_run("r")
    run.start(["a", "b", "c"])
    with pytest.raises(AmbiguousWait):
        run.resume(MONEY, step="settle", index=1)
    with pytest.raises(AmbiguousWait):
        run.resume(MONEY, step="settle")
    run.resume(MONEY, label="paid", index=1)
    assert "success" == run.resume(YES, label="boss", by="ann").status
    assert ["boss: approved=True", "paid: cents=5", "boss: approved=True"] == run.result().output


def test_what_happened_tells_the_choice() -> None:
    """The question with each option's payload, then the answer with the wait it settled."""
    run = waiting(local())
    run.resume(YES, label="boss", by="ann")
    told = {event.type: event.data for event in run.events()}
    assert {"boss": {"why": "large"}, "paid": None, "lost": None} == told["step-suspended"]["payload"]
    assert "settle@0:boss" == told["step-resumed"]["wait"]
    assert ["run-started", "step-started", "step-suspended", "step-resumed", "step-finished", "run-finished"] == [
        event.type for event in run.events()
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "0 options; give 1 to 20"),
        ([Option(f"o{n}") for n in range(21)], "21 options"),
        (["boss"], "no list of Option"),
        ("boss", "no list of Option"),
        (BOSS, "no list of Option"),
        ([Option("a"), Option("a")], "two options of the same name 'a'"),
        ([Option("a", event="e", key="k"), Option("e", key="k")], "two options of the same event"),
        ([Option("a:b")], "can be no name"),
        ([Option("")], "can be no name"),
        ([Option("a", event="e")], "event= without key="),
        ([Option("a", event="e e", key="k")], "cannot name an event"),
        ([Option("a", key="")], "cannot be the key"),
        ([Option("a", key="k", quorum=2)], "key= together with approvers="),
        ([Option("a", approvers=["x"], quorum=2)], "names only 1 approvers"),
        ([Option("a", resume=Ask)], "Declare StepContext"),
        ([Option("a", notify=lambda wait: None)], "could not find again"),
        ([Option("a", remind=[HOUR])], "without notify="),
        ([Option("a", Decision(approved=True))], "suspend payload of option 'a'"),
    ],
)
def test_options_that_cannot_be_meant_fail_the_step(options: Any, words: str) -> None:
    """With what was found and what to write instead."""
    ASKED[:] = []
    run = local().workflow("w").create_run("r")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "ASKED", options)
        error = run.start("A-17").error
    assert error is not None
    assert words in error.message


def test_options_with_a_timeout_that_is_none_are_refused() -> None:
    """As for a plain suspension."""
    error = waiting(local(), timeout=5).result().error
    assert "TypeError" == error.type
    error = LocalApp(App(FLOW)).workflow("w")
    OPTIONS.clear()
    OPTIONS["on_timeout"] = "x"
    found = error.create_run("s").start("A-17").error
    assert found is not None
    assert "without timeout=" in found.message


def test_each_round_has_waits_of_its_own() -> None:
    """An answer to an earlier one changes nothing, whether it is known what settled that or not."""
    run = LocalApp(App(workflow("w", input=int).then(rounds).commit())).workflow("w").create_run("r")
    run.start(2)
    assert ["rounds@2:a", "rounds@2:b"] == [w.id for w in run.resume(1, label="a", idempotency_key="k").waits]
    with pytest.raises(AlreadyResumed, match="as 'a'"):
        run.resume(9, wait="rounds@0:b")
    with pytest.raises(NotSuspended, match="not suspended"):
        run.resume(9, wait="rounds@2:c")
    assert ["rounds@4:a", "rounds@4:b"] == [w.id for w in run.resume(1, label="b").waits]
    with pytest.raises(NotSuspended):
        run.resume(9, wait="rounds@2:a")
    assert "b" == run.resume(2, label="b").output
    with pytest.raises(AlreadyResumed, match="as 'b'"):
        run.resume(9, wait="rounds@2:a")


# -- whoever races, whoever dies --------------------------------------------------------------------------------------

ARRIVALS: dict[str, Callable[[LocalApp], Any]] = {
    "answer": lambda app: app.resume("r", YES, label="boss", by="ann", idempotency_key="k"),
    "event": lambda app: app.send_event("paid", "A-17", MONEY, event_id="e-1"),
    "other event": lambda app: app.send_event("order.lost", "A-17", YES, event_id="e-2"),
    "deadline": lambda app: app.look(RunRef("default", "r")),
}
OUTPUTS = {"boss: approved=True", "paid: cents=5", "lost: approved=True", "late"}


@pytest.mark.parametrize("inner", ARRIVALS)
@pytest.mark.parametrize("outer", ARRIVALS)
def test_one_of_two_arrivals_wins_wherever_they_meet(outer: str, inner: str) -> None:
    """The second one comes at any call to the store of the first: one settles the run, and nobody listens any more."""
    number, met = 0, True
    while met:
        number += 1
        met = meet(outer, inner, number)
        SEEN.clear()
    assert number > 2


def meet(outer: str, inner: str, number: int) -> bool:
    """``inner`` at the call of that number of ``outer``, at the deadline; whether there were so many."""
    clock, watched, done = VirtualClock(), WatchedStore(MemoryStore(), {"w": FLOW.compiled}), list[str]()
    app = local(watched, clock)
    waiting(app, timeout=HOUR)
    clock.forward(hours=1)

    def script(call: Call) -> None:
        if call.number == number:
            done.append(inner)
            arrive(app, inner)

    arrive(local(FaultyStore(watched, script), clock), outer)
    app.advance(hours=1)
    result = app.run("r").result()
    assert result.output in OUTPUTS, f"at call {number}"
    assert 2 == len(SEEN), f"the step began {SEEN} at call {number}"
    assert [] == listeners(app), f"at call {number}"
    taken = [event for topic in (PAID, LOST) for event in watched.mail(topic, clock.now()).events if event.taker]
    assert len(taken) == (str(result.output).split(":")[0] in ("paid", "lost")), f"at call {number}"
    return bool(done)


def arrive(app: LocalApp, what: str) -> None:
    """One arrival, which may be too late."""
    with suppress(RequestError):
        ARRIVALS[what](app)


def play(script: Script, what: str) -> tuple[Any, list[str], Mail]:
    """A run that waits and what settles it, whatever happens; everybody tries until he is told."""
    watched = WatchedStore(MemoryStore(), {"w": FLOW.compiled})
    app = local(FaultyStore(watched, script))
    OPTIONS["timeout"] = 72 * HOUR
    acts = (lambda: app.workflow("w").create_run("r").start("A-17"), lambda: ARRIVALS[what](app))
    for act in acts:
        for _ in range(5):
            with suppress(WorkerDied, OutsideError):
                act()
                break
        for _ in range(3):
            with suppress(WorkerDied, OutsideError):
                app.advance(hours=1)
    calm = local(watched, app.clock)
    calm.advance(hours=1)
    return calm.run("r").result(), listeners(calm), watched.mail(PAID, app.clock.now())


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize(("what", "output"), [("answer", "boss: approved=True"), ("event", "paid: cents=5")])
def test_first_thing_settles_the_run_whatever_dies(what: str, output: str, fault: Fault) -> None:
    """One fault at any call to the store: the run ends with what came, and nobody listens any more."""
    calls: list[Call] = []
    play(calls.append, what)
    verbs = frozenset(call.verb for call in calls) - {"due"}
    assert {"listen", "commit", "resume", "release"} <= verbs
    for number in range(1, len([call for call in calls if call.verb in verbs]) + 1):
        result, left, mail = play(at_call(number, fault, verbs=verbs), what)
        assert ("success", output) == (result.status, result.output), f"{fault} at call {number}"
        assert ([], (what == "event") * 1) == (left, len(mail.events)), f"{fault} at call {number}"
