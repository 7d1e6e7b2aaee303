"""What each arrival at a run does, one test for each kind; and that each has a receipt to be read.

``ARRIVALS`` at the end is the whole list; what is shown elsewhere is named there.
"""

from __future__ import annotations

import ast
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pydantic import BaseModel

from flowcore import App, Option, StepContext, Wait, step, workflow
from flowcore.adapters.memory import MemoryQueue, MemoryStore
from flowcore.arrivals import LONGEST_KEEP, arrive
from flowcore.codec import digest
from flowcore.core.admit import Resume
from flowcore.core.early import MOST_EARLY, MOST_EVER, Early, judged
from flowcore.core.receipts import MOST_KEPT
from flowcore.errors import (
    AlreadyResumed,
    AmbiguousWait,
    EventNotFound,
    FlowcoreError,
    IdempotencyKeyReused,
    InvalidPayload,
    MalformedRequest,
    NotAnApprover,
    NotSuspended,
    OutsideError,
    PayloadTooLarge,
    RequestError,
    RunFinished,
    RunNotFound,
    StoreUnavailable,
    UnknownStep,
    VersionMismatch,
)
from flowcore.keys import RunRef, StepKey
from flowcore.model import Receipt, RunStatus, StepRecord
from flowcore.testing import LocalApp, ShiftedClock, VirtualClock
from flowcore.testing.faults import WRITES, Call, Fault, FaultyStore, WorkerDied, at_call
from flowcore.testing.invariants import WatchedStore
from tests.builders import NOW, a_run

HOUR = timedelta(hours=1)
RUN = RunRef("default", "r")
ASKED: dict[str, Any] = {}
AGAIN: list[dict[str, Any]] = []
TOLD: list[Wait[Any]] = []
BROKEN: set[int] = set()


class Decision(BaseModel):
    """What is answered."""

    approved: bool


YES, NO, BAD = Decision(approved=True), Decision(approved=False), {"approved": "maybe"}


def tell(wait: Wait[Any]) -> None:
    """Remembers whom a mail would have gone to."""
    TOLD.append(wait)


@step
def note(value: int) -> int:
    """Something in front of the question."""
    return value


@step
def approve(value: int, ctx: StepContext[Decision, str]) -> str:
    """Suspends as the test says, and once more for each further time that it says."""
    if ctx.timed_out:
        return "late"
    if ctx.resume_data is None:
        ctx.suspend("?", **ASKED)
    if AGAIN:
        ctx.suspend("??", **AGAIN.pop())
    if value in BROKEN:
        raise ValueError("down")
    return f"{ctx.resume_data.approved}"


FLOW = workflow("w", input=int, output=str).then(note).then(approve).commit()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    for seen in (ASKED, AGAIN, TOLD, BROKEN):
        seen.clear()


def local(flow: Any = FLOW, **options: Any) -> LocalApp:
    """An App on virtual time, over a store that is watched."""
    return LocalApp(App(flow), **{"store": WatchedStore(MemoryStore()), **options})


def asked(app: LocalApp, **options: Any) -> Any:
    """A run that is suspended with these options."""
    ASKED.update(options)
    run = app.workflow(FLOW).create_run("r")
    run.start(1)
    return run


def verdicts(run: Any) -> list[str]:
    """What became of everything that has come, in order."""
    return [receipt.verdict for receipt in run.receipts()]


def refused(kind: type[FlowcoreError], call: Callable[[], Any]) -> Any:
    """The error that a call is told."""
    with pytest.raises(kind) as told:
        call()
    return told.value


# -- one row of the table each ----------------------------------------------------------------------------------------


def test_row_resume_with_valid_data_is_applied() -> None:
    """The receipt says when, by whom, over which channel and for which suspension; it costs no write of its own."""
    calls: list[Call] = []
    app = local(store=FaultyStore(MemoryStore(), calls.append))
    run = asked(app)
    wait = run.result().waits[0].id
    app.advance(hours=1)
    told = run.resume(YES, by="ada", via="mail", idempotency_key="k-1").receipt
    expected = Receipt(
        verdict="applied",
        wait=wait,
        at=app.clock.now(),
        by="ada",
        via="mail",
        step="approve",
        idempotency_key="k-1",
    )
    assert expected == told
    assert [expected] == run.receipts()
    assert "note" not in {call.verb for call in calls}


def test_row_same_idempotency_key_again_is_the_first_receipt() -> None:
    """At any time; each copy is counted, and the wake is sent again where the run has not moved."""
    clock = VirtualClock()
    queue = MemoryQueue(clock)
    app = local(clock=clock, queue=queue)
    run = asked(app)
    app.run_until_idle()
    first = run.resume(YES, by="ada", idempotency_key="k-1").receipt
    hints = len(queue.sent)
    app.clock.forward(minutes=1)
    copy = run.resume(YES, by="ada", idempotency_key="k-1").receipt
    assert ("duplicate", first.wait, first.at, hints + 1) == (copy.verdict, copy.wait, copy.at, len(queue.sent))
    app.run_until_idle()
    run.resume(YES, idempotency_key="k-1")
    run.resume(YES, by="ada", idempotency_key="k-1")
    assert ["applied", "duplicate", "duplicate"] == verdicts(run)
    assert [("ada", 1), ("ada", 2), (None, 1)] == [(receipt.by, receipt.times) for receipt in run.receipts()]


def test_row_another_caller_is_stale_with_the_winner() -> None:
    """Both in what he is told and in what is stored."""
    run = asked(local())
    wait = run.result().waits[0].id
    run.resume(YES, by="ada", wait=wait)
    error = refused(AlreadyResumed, lambda: run.resume(NO, by="bob", wait=wait))
    stale = run.receipts()[-1]
    assert ("stale", wait, "bob", "already-resumed") == (stale.verdict, stale.wait, stale.by, stale.reason)
    assert "ada" == stale.winner["by"] == error.winner["by"]
    assert "True" == run.result().output


def test_row_data_that_does_not_fit_is_rejected_with_its_fields() -> None:
    """The run is untouched and the key is not used up: the corrected answer is applied under it."""
    run = asked(local())
    before = run.result()
    refused(InvalidPayload, lambda: run.resume(BAD, by="ada", idempotency_key="k-1"))
    (rejected,) = run.receipts()
    assert ("rejected", before.waits[0].id, "invalid-input") == (rejected.verdict, rejected.wait, rejected.reason)
    assert ["approved"] == [row["path"] for row in rejected.errors]
    assert "maybe" not in str(rejected)
    assert before == run.result()
    assert "applied" == run.resume(YES, by="ada", idempotency_key="k-1").receipt.verdict
    refused(IdempotencyKeyReused, lambda: run.resume(NO, by="ada", idempotency_key="k-1"))
    assert ["applied", "rejected", "rejected"] == verdicts(run)


def test_row_event_before_its_wait_is_buffered_and_taken() -> None:
    """What became of it can be read under its id, before and afterwards, and so can how long it is kept."""
    app = local()
    app.send_event("approve", "A-17", {"approved": True}, event_id="e-1")
    early = app.event("approve", "A-17", "e-1")
    assert ("buffered", None, app.clock.now()) == (early.verdict, early.wait, early.at)
    app.clock.forward(hours=1)
    run = asked(app, key="A-17")
    (receipt,) = run.receipts()
    late = app.event("approve", "A-17", "e-1")
    assert ("applied", "event", receipt.wait, "r") == (receipt.verdict, receipt.via, late.wait, late.run_id)
    assert (early.at, early.until) == (late.at, late.until)
    app.send_event("approve", "A-17", {"approved": True}, event_id="e-1")
    assert ["applied", "duplicate"] == verdicts(run)
    app.clock.forward(days=8)
    refused(EventNotFound, lambda: app.event("approve", "A-17", "e-1"))


def test_row_answer_before_its_step_asks_is_buffered_and_taken() -> None:
    """It is kept as long as its sender says, and the run never stands still; who sends it again is told the same."""
    app = local()
    slow = workflow("slow", input=int, output=str).sleep(HOUR).then(approve).commit()
    app = local(slow)
    run: Any = app.workflow(slow).create_run("r")
    run.start(1)
    refused(NotSuspended, lambda: run.resume(YES, step=approve, by="ada"))
    early: Any = run.resume(YES, step=approve, by="ada", idempotency_key="k-1", keep=2 * HOUR)
    assert ("buffered", "waiting", "approve") == (early.receipt.verdict, early.status, early.receipt.step)
    assert ["rejected", "buffered"] == sorted(verdicts(run), reverse=True)
    again: Any = run.resume(YES, step=approve, by="ada", idempotency_key="k-1", keep=HOUR)
    assert "duplicate" == again.receipt.verdict
    app.advance(hours=1)
    assert ("success", "True") == (run.result().status, run.result().output)
    applied = next(receipt for receipt in run.receipts() if receipt.verdict == "applied")
    assert ("ada", "k-1", "approve@0") == (applied.by, applied.idempotency_key, applied.wait)
    assert "buffered" not in verdicts(run)


def test_row_event_for_a_run_that_is_not_started_is_buffered() -> None:
    """The run that comes takes it, and never stands still."""
    app = local()
    assert "buffered" == app.send_event("approve", "A-17", {"approved": True}).verdict
    assert "success" == asked(app, key="A-17").result().status


def test_row_timer_of_an_old_epoch_is_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """The deadline of a suspension that was answered finds the next one of the same step, and leaves it alone."""
    app = local()
    AGAIN.append({})
    run = asked(app, timeout=HOUR, on_timeout="late")
    run.resume(YES)
    before = run.result()
    app.clock.forward(hours=2)
    with caplog.at_level(logging.INFO, logger="flowcore.engine"):
        app.deliver("r", twice=True)
    assert (["a hint is stale and dropped"] * 2, "suspended") == (caplog.messages, run.result().status)
    assert 2 == app.engine.hints.stale.take()
    assert before.waits == run.result().waits


@pytest.mark.parametrize(
    ("on_timeout", "status"),
    [(None, "success"), ("a value", "success"), ("fail", "failed")],
    ids=["step", "value", "fail"],
)
def test_row_timer_at_the_deadline_settles(on_timeout: Any, status: str) -> None:
    """By whatever was to happen then; the receipt names the clock, and who comes later is told of it."""
    app = local()
    run = asked(app, timeout=HOUR, on_timeout=on_timeout)
    wait = run.result().waits[0].id
    app.advance(hours=1)
    (receipt,) = run.receipts()
    assert ("applied", wait, "timeout", None) == (receipt.verdict, receipt.wait, receipt.via, receipt.by)
    assert status == run.result().status
    assert "timeout" == refused(AlreadyResumed, lambda: run.resume(YES, wait=wait)).winner["via"]
    assert ["applied", "stale"] == verdicts(run)


def test_row_timer_and_answer_race_with_one_winner() -> None:
    """Whoever comes in between whichever two calls of the timer; each of them wins some of the rounds."""
    winners = Counter[str]()
    for number in range(1, 12):
        watched = WatchedStore(MemoryStore())
        run = asked(local(store=watched), timeout=HOUR, on_timeout="late")
        between: list[str] = []

        def script(call: Call, number: int = number, between: list[str] = between, run: Any = run) -> None:
            if call.number == number:
                with suppress(RequestError):
                    between.append(run.resume(YES, by="ada").receipt.verdict)

        clock = VirtualClock()
        clock.forward(hours=1)
        LocalApp(App(FLOW), store=FaultyStore(watched, script), clock=clock).look(RUN)
        settled = [receipt for receipt in run.receipts() if receipt.verdict == "applied"]
        assert 1 == len(settled), f"at call {number}"
        assert run.result().output == ("True" if between else "late"), f"at call {number}"
        assert settled[0].via == ("python" if between else "timeout")
        winners[settled[0].via] += 1
    assert winners["python"] >= 3
    assert winners["timeout"] >= 3


def test_row_reminder_leaves_the_epoch_alone() -> None:
    """The suspension that was told of first is the one that is answered, and nothing is received for a reminder."""
    app = local()
    run = asked(app, notify=tell, remind=[HOUR, 2 * HOUR])
    app.advance(hours=2)
    assert [0, 1, 2] == [wait.reminder for wait in TOLD]
    assert [] == run.receipts()
    assert "applied" == run.resume(YES, wait=TOLD[0].id).receipt.verdict


@pytest.mark.parametrize("fault", [Fault.DIES_BEFORE, Fault.DIES_AFTER, Fault.REPLY_LOST])
def test_row_reminder_is_sent_whatever_dies_and_then_the_next_one(fault: Fault) -> None:
    """It is owed until it was sent, and not forgotten with its worker; the one after it comes at its own time."""
    terms: dict[str, Any] = {"notify": tell, "remind": [HOUR, 3 * HOUR]}
    calls: list[Call] = []
    app = local(store=FaultyStore(MemoryStore(), lambda call: calls.append(call) if call.verb in WRITES else None))
    asked(app, **terms)
    before = len(calls)
    app.advance(hours=1)
    assert len(calls) > before
    for number in range(before + 1, len(calls) + 1):
        TOLD.clear()
        app = local(store=FaultyStore(MemoryStore(), at_call(number, fault)))
        run = asked(app, **terms)
        wait = TOLD[0].id
        for reminder in (1, 2):
            for _ in range(4):
                with suppress(WorkerDied, OutsideError):
                    app.advance(minutes=30)
            assert list(range(reminder + 1)) == sorted({wait.reminder for wait in TOLD}), f"at write {number}"
        assert "applied" == run.resume(YES, wait=wait).receipt.verdict


def test_row_one_approval_of_several_is_counted() -> None:
    """Each of a different person; the last of the quorum, or a veto, is applied."""
    run = asked(local(), quorum=2, veto="approved")
    wait = run.result().waits[0].id
    run.resume(YES, by="ada")
    run.resume(YES, by="ada")
    refused(NotAnApprover, lambda: run.resume(YES))
    run.resume(NO, by="bob")
    assert ["counted", "applied", "duplicate", "rejected"] == verdicts(run)
    assert [("ada", wait), ("bob", wait), ("ada", wait), (None, wait)] == [(r.by, r.wait) for r in run.receipts()]


@pytest.mark.parametrize("by", ["ada", None])
def test_a_copy_of_an_answer_to_several_reaches_those_that_the_first_did_not(by: str | None) -> None:
    """Whoever brought that one died behind the first item, which has asked again since."""

    @step
    def twice(value: int, ctx: StepContext[int]) -> int:
        if ctx.resume_data in (None, 5):
            ctx.suspend()
        return value

    flow = workflow("f", input=list[int], output=list[int]).foreach(twice, concurrency=3).commit()
    store, brought = MemoryStore(), list[Call]()

    def dies(call: Call) -> Fault | None:
        if call.verb == "resume":
            brought.append(call)
        return Fault.DIES_BEFORE if call.verb == "resume" and len(brought) == 2 else None

    app = LocalApp(App(flow), store=FaultyStore(store, dies))
    run = app.workflow("f").create_run("r")
    run.start([1, 2, 3])
    sent: dict[str, Any] = {"step": "twice", "idempotency_key": "k-1", "by": by}
    with pytest.raises(WorkerDied):
        run.resume(5, **sent)
    app.advance(hours=1)
    assert ["twice[1]@0", "twice[2]@0", "twice[0]@2"] == [wait.id for wait in run.result().waits]

    run.resume(5, **sent)
    assert [f"twice[{index}]@2" for index in range(3)] == [wait.id for wait in run.result().waits]


def test_row_quorum_that_is_short_at_the_deadline_starts_the_step_again() -> None:
    """The deadline is no vote: those who have answered stay counted."""
    app = local()
    run = asked(app, quorum=2, timeout=HOUR)
    run.resume(YES, by="ada")
    app.advance(hours=1)
    assert ("success", "late") == (run.result().status, run.result().output)
    assert [("counted", "python"), ("applied", "timeout")] == [(r.verdict, r.via) for r in run.receipts()]


def test_row_cancel_makes_later_answers_stale() -> None:
    """The suspension can be answered no more."""
    run = asked(local())
    wait = run.result().waits[0].id
    run.cancel()
    refused(RunFinished, lambda: run.resume(YES, by="ada", wait=wait))
    refused(RunFinished, lambda: run.resume(YES, by="ada"))
    assert [("stale", "run-finished")] * 2 == [(r.verdict, r.reason) for r in run.receipts()]


def test_row_answer_to_a_paused_run_is_stored_and_applied_at_unpause() -> None:
    """Whoever answers is told so at once; the step starts when the operator lets it."""
    app = local()
    run = asked(app)
    run.pause()
    paused = run.resume(YES, by="ada")
    assert ("applied", "paused", None) == (paused.receipt.verdict, paused.status, paused.output)
    app.advance(days=1)
    assert "paused" == run.result().status
    refused(AlreadyResumed, lambda: run.resume(NO, by="bob"))
    assert ("success", "True") == (run.unpause().status, run.result().output)
    assert ["applied", "stale"] == verdicts(run)


def test_row_time_travel_makes_old_links_stale() -> None:
    """The new life has a suspension and a link of its own; what came in the old one can still be read."""
    app = local()
    run = asked(app)
    old = run.result().waits[0].id
    run.resume(NO, by="ada", wait=old)
    app.clock.forward(hours=1)
    new = run.time_travel("approve").waits[0].id
    assert old != new
    refused(NotSuspended, lambda: run.resume(YES, by="bob", wait=old))
    app.clock.forward(hours=1)
    assert "True" == run.resume(YES, by="bob", wait=new).output
    told = [(receipt.verdict, receipt.wait, receipt.by) for receipt in run.receipts()]
    assert [("applied", old, "ada"), ("stale", old, "bob"), ("applied", new, "bob")] == told


def test_copy_of_an_answer_to_an_earlier_life_is_none_to_the_next_one() -> None:
    """It is told what the first one was, whether the step asks again by then or not; what is no copy is refused."""
    AGAIN[:] = [{"quorum": 2}]
    app = local()
    run = asked(app)
    sent = {"by": "ada", "idempotency_key": "k-1"}
    told = run.resume(YES, **sent).receipt
    assert "counted" == run.resume(YES, by="bob", idempotency_key="k-2").receipt.verdict
    for _ in range(2):
        app.clock.forward(hours=1)
        assert "suspended" == run.time_travel("approve").status
        for named in ({"step": "approve"}, {}):
            copy = run.resume(YES, **named, **sent).receipt
            assert ("duplicate", told.wait, told.at) == (copy.verdict, copy.wait, copy.at)
        assert "duplicate" == run.resume(YES, by="bob", idempotency_key="k-2").receipt.verdict
        for data, by in ((NO, "ada"), (YES, "eve")):
            refused(IdempotencyKeyReused, lambda: run.resume(data, by=by, idempotency_key="k-1"))  # noqa: B023
    assert "True" == run.resume(YES, by="ada", idempotency_key="k-3").output
    assert "duplicate" == run.resume(YES, **sent).receipt.verdict
    assert "duplicate" == run.resume(YES, **sent, keep=HOUR, step="approve").receipt.verdict


def test_key_of_an_earlier_life_is_good_for_no_other_step() -> None:
    """As within one life: told that it was taken, its sender would never send it again."""
    both = workflow("both", input=int).parallel(approve, approve.clone(id="other")).commit()
    run: Any = local(both).workflow(both).create_run("r")
    run.start(1)
    run.resume(YES, step="approve", by="ada", idempotency_key="k-1")
    run.time_travel("approve")
    refused(IdempotencyKeyReused, lambda: run.resume(YES, step="other", by="ada", idempotency_key="k-1"))
    copy: Any = run.resume(YES, step="approve", idempotency_key="k-1").receipt
    assert "duplicate" == copy.verdict


def test_answer_with_a_key_costs_no_look_at_earlier_lives_in_the_first_one() -> None:
    """There are none."""
    calls: list[Call] = []
    run = asked(local(store=FaultyStore(MemoryStore(), calls.append)))
    run.resume(YES, idempotency_key="k-1")
    assert "notes" not in {call.verb for call in calls}


def test_row_fork_has_waits_of_its_own() -> None:
    """An answer to one is none to the other."""
    app = local()
    run = asked(app)
    fork = app.run(run.fork("approve", run_id="f").run_id)
    run.resume(YES, by="ada")
    assert "suspended" == fork.result().status
    assert ("True", []) == (run.result().output, fork.receipts())
    assert "False" == fork.resume(NO, by="bob").output


def test_row_late_copy_of_a_hint_at_an_ended_run_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """And so is one of a run that is gone."""
    app = local()
    run = asked(app)
    run.resume(YES)
    with caplog.at_level(logging.INFO, logger="flowcore.engine"):
        app.deliver("r", twice=True)
        app.look(RunRef("default", "never"))
    assert ["a hint is stale and dropped"] * 3 == caplog.messages
    assert "success" == run.result().status


def test_row_crash_between_answer_and_wake_is_swept() -> None:
    """The answer is stored, so the run goes on; whoever asks again is told that it was applied."""
    clock = VirtualClock()
    app = local(clock=clock, queue=MemoryQueue(clock))
    run = asked(app)
    app.run_until_idle()
    died = LocalApp(App(FLOW), clock=clock, store=FaultyStore(app.store, at_call(1, Fault.DIES_AFTER)))
    died.engine.hints = app.engine.hints
    with suppress(WorkerDied):
        died.run("r").resume(YES, by="ada", idempotency_key="k-1")
    assert RunStatus.RUNNING is app.store.peek(RUN).status  # type: ignore[union-attr]
    answered = clock.now()
    app.advance(hours=1)
    assert "success" == run.result().status
    assert "duplicate" == run.resume(YES, by="ada", idempotency_key="k-1").receipt.verdict
    told = {event.type: event.at for event in run.events()}  # how late it went on can be read
    assert answered == told["step-resumed"]
    assert timedelta(minutes=15) < told["step-finished"] - answered < timedelta(minutes=17)


# -- one answer for several items -------------------------------------------------------------------------------------


MANY = {"plain": {}, "distributed": {"distributed": True}, "two in a child": {"distributed": True, "shard": 2}}


def many(app_of: Callable[[Any], LocalApp] = local, **options: Any) -> tuple[LocalApp, Any]:
    """A run that asks for each of three items, and has done so for a while."""
    flow: Any = workflow("many", input=list[int]).foreach(approve, **{"concurrency": 3, **options}).commit()
    app = app_of(flow)
    run = app.workflow(flow).create_run("r")
    run.start([1, 2, 3])
    app.advance(minutes=1)
    return app, run


@pytest.mark.parametrize("options", MANY.values(), ids=MANY)
@pytest.mark.parametrize("fault", [Fault.DIES_BEFORE, Fault.DIES_AFTER])
def test_answer_for_all_items_reaches_those_that_its_sender_died_before(options: Any, fault: Fault) -> None:
    """Sent again under its key, by whatever write it was cut short; each item has it once."""
    for number in range(1, 5):
        watched = WatchedStore(MemoryStore())
        app, run = many(lambda flow, watched=watched: local(flow, store=watched), **options)  # type: ignore[misc]
        script = at_call(number, fault, verbs=frozenset({"resume"}))
        dying = LocalApp(App(*app.workflows.values()), clock=app.clock, store=FaultyStore(watched, script))
        with suppress(WorkerDied):
            dying.run("r").resume(YES, by="ada", idempotency_key="k-1")
        told = run.resume(YES, by="ada", idempotency_key="k-1").receipt.verdict
        assert ("applied" if number + (fault is Fault.DIES_AFTER) <= 3 else "duplicate") == told, f"at call {number}"
        app.advance(hours=1)
        assert ("success", ["True"] * 3) == (run.result().status, run.result().output), f"at call {number}"
        assert 3 == verdicts(run).count("applied")


@pytest.mark.parametrize("options", MANY.values(), ids=MANY)
def test_copy_of_an_answer_is_none_to_the_items_that_ask_later(options: Any) -> None:
    """Though not a moment has passed since: it was for those that were open."""
    app, run = many(**{**options, "concurrency": 1})
    run.resume(YES, by="ada", idempotency_key="k-1")
    asks = [wait.index for wait in run.result().waits]
    for _ in range(2):
        assert "duplicate" == run.resume(YES, by="ada", idempotency_key="k-1").receipt.verdict
        app.advance(minutes=1)
    assert asks == [wait.index for wait in run.result().waits] != []


@pytest.mark.parametrize("options", MANY.values(), ids=MANY)
def test_copy_of_an_answer_is_none_to_an_item_that_asks_later_by_a_clock_that_is_behind(options: Any) -> None:
    """Each child of a run has a clock of its own, so which of two was first no time can tell."""
    store = MemoryStore()
    app, run = many(lambda flow: local(flow, store=store), **{**options, "concurrency": 1})
    clock: Any = ShiftedClock(app.clock, -timedelta(hours=1))
    behind = LocalApp(App(*app.workflows.values()), clock=clock, store=store)
    for _ in range(2):
        behind.run("r").resume(YES, by="ada", idempotency_key="k-1")
    assert ["applied"] == [verdict for verdict in verdicts(run) if verdict == "applied"]


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("options", MANY.values(), ids=MANY)
def test_copy_that_comes_while_the_first_one_is_read_is_given_to_no_other_item(options: Any, concurrency: int) -> None:
    """Between any two reads the first may be taken, its item end, and another ask because of that."""
    for number in range(1, 100):
        store = WatchedStore(MemoryStore())
        app, run = many(lambda flow, store=store: local(flow, store=store), **{**options, "concurrency": concurrency})  # type: ignore[misc]
        asked = {wait.id for wait in run.result().waits}
        reads: list[str] = []

        def script(call: Call, run: Any = run, number: int = number, reads: list[str] = reads) -> None:
            reads.append(call.verb)
            if len(reads) == number:
                run.resume(YES, by="ada", idempotency_key="k-1")

        copy = LocalApp(App(*app.workflows.values()), clock=app.clock, store=FaultyStore(store, script))
        copy.run("r").resume(YES, by="ada", idempotency_key="k-1")
        answered = [receipt.wait for receipt in run.receipts() if receipt.verdict == "applied"]
        assert sorted(asked) == sorted(answered), f"at call {number}"
        if "resume" in reads[: number - 1] or len(reads) < number:  # it has been given, or is known to be a copy
            break
    else:
        raise AssertionError("not every read was tried")


@pytest.mark.parametrize("options", MANY.values(), ids=MANY)
def test_copy_of_an_answer_to_one_item_is_none_to_the_others(options: Any) -> None:
    """Whichever way the item was named."""
    _, run = many(**options)
    for name in ({"index": 1}, {"step": "approve[1]"}, {"wait": "approve[1]@0"}):
        told = run.resume(YES, by="ada", idempotency_key="k-1", **name).receipt
        assert ("approve[1]@0", "duplicate" if "index" not in name else "applied") == (told.wait, told.verdict)
    assert [0, 2] == sorted(wait.index for wait in run.result().waits)


@pytest.mark.parametrize("options", MANY.values(), ids=MANY)
def test_answer_to_an_item_may_say_at_which_version_the_run_is(options: Any) -> None:
    """The run's, which its caller has seen, wherever the item is seen to."""
    _, run = many(**options)
    names: list[dict[str, Any]] = [{"index": 0}, {"step": "approve[1]"}, {"wait": "approve[2]@0"}]
    for number, name in enumerate(names):
        version = run.result().version
        for other in (version - 1, version + 1):
            refused(VersionMismatch, lambda name=name, other=other: run.resume(YES, version=other, **name))  # type: ignore[misc]
        assert "applied" == run.resume(YES, version=version, **name).receipt.verdict
        assert number + 1 == verdicts(run).count("applied")


@pytest.mark.parametrize("options", MANY.values(), ids=MANY)
def test_vote_for_all_items_counts_where_that_person_has_not_voted(options: Any) -> None:
    """Whoever has answered some of them before is no copy of himself at the others."""
    ASKED.update(quorum=2)
    _, run = many(**options)
    run.resume(YES, by="bob", index=0)
    assert "counted" == run.resume(YES, by="bob").receipt.verdict
    assert {0: ["bob"], 1: ["bob"], 2: ["bob"]} == {w.index: list(w.answered_by) for w in run.result().waits}
    assert "duplicate" == run.resume(YES, by="bob").receipt.verdict
    refused(AlreadyResumed, lambda: run.resume(NO, by="bob"))


@pytest.mark.parametrize("quorum", [2, 3])
def test_vote_for_all_items_counts_where_somebody_else_votes_meanwhile(quorum: int) -> None:
    """The suspension is the same; it is over if that was the last vote but this one."""
    ASKED.update(quorum=quorum)
    watched = WatchedStore(MemoryStore())
    app, run = many(lambda flow: local(flow, store=watched))
    writes: list[str] = []

    def script(call: Call) -> None:
        if call.verb == "commit":
            writes.append(call.verb)
            if len(writes) == 2:
                run.resume(YES, by="bob", index=1)

    other = LocalApp(App(*app.workflows.values()), clock=app.clock, store=FaultyStore(watched, script))
    assert "counted" == other.run("r").resume(YES, by="ada").receipt.verdict  # type: ignore[union-attr]
    waits = {wait.index: list(wait.answered_by) for wait in run.result().waits}
    assert {0: ["ada"], 2: ["ada"], **({1: ["bob", "ada"]} if quorum == 3 else {})} == waits
    assert 3 + 1 == len(verdicts(run))


@pytest.mark.parametrize("options", MANY.values(), ids=MANY)
def test_late_answer_to_an_item_is_told_what_became_of_the_run(options: Any) -> None:
    """Of which it is an item, whoever saw to it; a message is acknowledged, and a copy known for one."""
    app, run = many(**options)
    first, last = (wait.id for wait in run.result().waits if wait.index in (0, 2))
    told = run.resume(YES, by="ada", wait=first, idempotency_key="k-1").receipt
    run.cancel()
    refused(RunFinished, lambda: run.resume(YES, by="ada", wait=last))
    resume = Resume(wait=last, digest="d", by="bob", via="sqs", idempotency_key="m-1")
    assert ("stale", last) == ((late := arrive(app.engine, RUN, {"approved": True}, resume)).verdict, late.wait)
    again = run.resume(YES, by="ada", wait=first, idempotency_key="k-1").receipt
    assert ("duplicate", told.at) == (again.verdict, again.at)
    assert ["applied", "stale", "stale", "duplicate"] == verdicts(run)


@pytest.mark.parametrize("options", MANY.values(), ids=MANY)
def test_copy_with_the_id_of_a_former_life_is_told_so(options: Any) -> None:
    """The item was done in that life, and has no child in this one."""
    BROKEN.add(2)
    app, run = many(**options)
    waits = {wait.index: wait.id for wait in run.result().waits}
    told = run.resume(YES, by="ada", wait=waits[0], idempotency_key="k-1").receipt
    run.resume(YES, by="ada", wait=waits[1])
    app.run_until_idle()
    assert "failed" == run.result().status
    BROKEN.clear()
    run.redrive()
    app.run_until_idle()
    again = run.resume(YES, by="ada", wait=waits[0], idempotency_key="k-1").receipt
    assert ("duplicate", told.at) == (again.verdict, again.at)
    refused(NotSuspended, lambda: run.resume(YES, by="ada", wait=waits[2]))


# -- receipts ---------------------------------------------------------------------------------------------------------


def test_answers_that_cannot_be_meant_are_rejected_with_the_reason() -> None:
    """Whichever it is; those that name no suspension that ever was have none."""
    both = workflow("both", input=int).parallel(approve, approve.clone(id="other")).commit()
    run = local(both).workflow(both).create_run("r")
    run.start(1)
    refused(AmbiguousWait, lambda: run.resume(YES, by="ada"))
    refused(UnknownStep, lambda: run.resume(YES, by="ada", step="nope"))
    refused(NotSuspended, lambda: run.resume(YES, by="ada", wait="approve@7"))
    expected = [("rejected", "ambiguous-wait", None), ("rejected", "unknown-step", "nope")]
    assert [*expected, ("stale", "not-suspended", "approve")] == [(r.verdict, r.reason, r.step) for r in run.receipts()]


def test_receipts_of_earlier_suspensions_of_a_step_are_kept() -> None:
    """Though its record knows the last one only: exactly one applied receipt for each suspension, votes beside it."""
    AGAIN[:] = [{}, {"quorum": 2}]
    app = local()
    run = asked(app)
    for by in ("ada", "bob", "ann", "eve"):
        app.clock.forward(minutes=1)
        run.resume(YES, by=by, idempotency_key=None if by == "ada" else f"k-{by}")
    assert "success" == run.result().status
    told = [(receipt.verdict, receipt.by) for receipt in run.receipts()]
    assert [("applied", "ada"), ("counted", "bob"), ("applied", "ann"), ("applied", "eve")] == told
    applied = [receipt.wait for receipt in run.receipts() if receipt.verdict == "applied"]
    assert 3 == len(set(applied))


def test_an_answer_to_an_earlier_suspension_of_a_step_is_stale() -> None:
    """While the next one is open, and afterwards."""
    AGAIN.append({})
    run = asked(local())
    old = run.result().waits[0].id
    run.resume(YES, by="ada")
    refused(NotSuspended, lambda: run.resume(NO, wait=old))
    run.resume(YES, by="bob")
    refused(AlreadyResumed, lambda: run.resume(NO, wait=old))
    assert [("applied", "ada"), ("applied", "bob"), ("stale", None), ("stale", None)] == [
        (receipt.verdict, receipt.by) for receipt in run.receipts()
    ]


def test_late_copy_of_a_vote_is_no_answer_to_the_next_suspension() -> None:
    """It is known by its key, although the step has suspended again since."""
    AGAIN.append({})
    run = asked(local(), quorum=2)
    run.resume(YES, by="ada", idempotency_key="k-ada")
    run.resume(YES, by="bob", idempotency_key="k-bob")
    assert "duplicate" == run.resume(YES, by="ada", idempotency_key="k-ada").receipt.verdict
    assert "suspended" == run.result().status


def test_a_storm_of_answers_fills_a_bounded_number_of_places() -> None:
    """What comes again is counted; what finds no place is counted together, and nothing is lost of the number."""
    app = local()
    run = asked(app)
    run.resume(YES, by="ada")
    for number in range(2 * MOST_KEPT):
        refused(AlreadyResumed, lambda number=number: run.resume(NO, by=f"eve-{number}"))  # type: ignore[misc]
    for _ in range(10):
        refused(AlreadyResumed, lambda: run.resume(NO, by="eve-0"))
    stale = [receipt for receipt in run.receipts() if receipt.verdict == "stale"]
    assert MOST_KEPT / 2 < len(stale) <= MOST_KEPT + 1
    assert 2 * MOST_KEPT + 10 == sum(receipt.times for receipt in stale)
    assert "applied" == run.receipts()[0].verdict


@pytest.mark.parametrize("fault", [Fault.FAILS, Fault.REPLY_LOST])
def test_a_receipt_that_cannot_be_kept_changes_no_answer(fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    """The log says that one is lost."""
    store = FaultyStore(MemoryStore(), lambda call: fault if call.verb == "note" else None)
    run = asked(local(store=store))
    refused(InvalidPayload, lambda: run.resume(BAD))
    run.resume(YES, by="ada", idempotency_key="k-1")
    refused(AlreadyResumed, lambda: run.resume(NO))
    assert "duplicate" == run.resume(YES, by="ada", idempotency_key="k-1").receipt.verdict
    assert ["a receipt is lost"] * 3 == caplog.messages
    assert "True" == run.result().output


def test_an_answer_from_a_queue_may_be_acknowledged_once_it_is_taken() -> None:
    """Whatever is said of it: what is returned is stored."""
    run = asked(app := local())

    def came(data: Any, by: str, key: str) -> Receipt:
        resume = Resume(digest=digest(data), by=by, via="sqs", idempotency_key=key)
        return arrive(app.engine, RUN, data, resume)

    yes = {"approved": True}
    told = [came(BAD, "ada", "k-1"), came(yes, "ada", "k-1"), came(yes, "ada", "k-1"), came(yes, "bob", "k-2")]
    assert ["rejected", "applied", "duplicate", "stale"] == [receipt.verdict for receipt in told]
    assert ["applied", "rejected", "duplicate", "stale"] == verdicts(run)
    assert {"sqs"} == {receipt.via for receipt in run.receipts()}


def test_an_answer_from_a_queue_comes_again_where_its_receipt_cannot_be_kept() -> None:
    """Or where a start or a deploy may make it fit."""
    store = FaultyStore(MemoryStore(), lambda call: Fault.FAILS if call.verb == "note" else None)
    asked(app := local(store=store))
    refused(StoreUnavailable, lambda: arrive(app.engine, RUN, BAD, Resume(digest="d")))
    refused(RunNotFound, lambda: arrive(app.engine, RunRef("default", "never"), BAD, Resume(digest="d")))


def test_an_event_that_fits_no_wait_is_received_by_the_run_it_would_have_settled() -> None:
    """With the fields, as any answer."""
    app = local()
    run = asked(app, key="A-17")
    refused(InvalidPayload, lambda: app.send_event("approve", "A-17", BAD, event_id="e-1"))
    (rejected,) = run.receipts()
    assert ("rejected", "event", "approved") == (rejected.verdict, rejected.via, rejected.errors[0]["path"])


# -- answers that come too early --------------------------------------------------------------------------------------


def slowly(*, like: LocalApp | None = None, store: Any = None) -> tuple[LocalApp, Any]:
    """A run that sleeps for an hour before it asks, in a nested workflow beside another question."""
    inner = workflow("inner", input=int, output=str).then(note).then(approve).commit()
    flow = workflow("slow", input=int).sleep(HOUR).parallel(inner, approve.clone(id="other")).commit()
    app = (
        LocalApp(App(flow), store=like.store, clock=like.clock)
        if like
        else local(flow, **{"store": store} if store else {})
    )
    run = app.workflow(flow).create_run("r")
    if like is None:
        run.start(1)
    return app, run


def test_early_answer_is_taken_once_by_its_own_step_wherever_it_stands() -> None:
    """Also inside a nested workflow; the next suspension of that step, and other steps, ask their own."""
    app, run = slowly()
    AGAIN.append({})
    run.resume(YES, step="inner.approve", keep=2 * HOUR)
    app.advance(hours=1)
    assert {"inner.approve@1", "other@0"} <= {wait.id.replace("/", ".") for wait in run.result().waits} | {
        "inner.approve@1"
    }
    assert 2 == len(run.result().waits)
    assert ["applied"] == verdicts(run)


def test_early_answer_is_gone_when_nobody_has_asked_in_time() -> None:
    """As long as its sender said, and no longer."""
    app, run = slowly()
    run.resume(YES, step="other", keep=timedelta(minutes=59))
    app.advance(hours=1)
    assert 2 == len(run.result().waits)


def test_early_answers_are_votes_of_those_who_gave_them() -> None:
    """One who may not answer is refused when it is clear that he may not."""
    app, run = slowly()
    ASKED.update(approvers=["ada", "bob"], quorum=2)
    for by in ("eve", "ada", "bob"):
        run.resume(YES, step="other", by=by, keep=2 * HOUR)
        app.clock.forward(minutes=1)
    app.advance(hours=1)
    assert "success" == run.result().steps["other"].status
    told = {receipt.by: receipt.verdict for receipt in run.receipts() if receipt.wait}
    assert {"eve": "rejected", "ada": "counted", "bob": "applied"} == told


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"step": "approve"}, RequestError),
        ({"step": "inner"}, NotSuspended),
        ({"step": "nowhere"}, UnknownStep),
        ({"label": "boss"}, FlowcoreError),
        ({}, NotSuspended),
    ],
    ids=str,
)
def test_answer_that_cannot_be_kept_is_refused_as_ever(options: dict[str, Any], kind: type[FlowcoreError]) -> None:
    """Where it is not certain which step is meant; data that does not fit is refused at once."""
    _, run = slowly()
    refused(kind, lambda: run.resume(YES, keep=HOUR, **options))
    refused(InvalidPayload, lambda: run.resume(BAD, keep=HOUR, step="other"))
    assert {"rejected"} == set(verdicts(run))


@pytest.mark.parametrize("keep", [timedelta(0), -HOUR, LONGEST_KEEP + HOUR, timedelta.max, 60])
def test_time_that_an_answer_cannot_be_kept_for_is_refused(keep: Any) -> None:
    """Nothing, or longer than anybody means."""
    _, run = slowly()
    refused(MalformedRequest, lambda: run.resume(YES, step="other", keep=keep))


def test_early_answers_are_few() -> None:
    """Whoever loads the run reads them; who comes too late is told so, and a copy of one of them is still a copy."""
    _, run = slowly()
    for number in range(MOST_EARLY):
        run.resume(YES, step="other", by=f"p-{number}", keep=HOUR)
    error = refused(NotSuspended, lambda: run.resume(YES, step="other", by="more", keep=HOUR))
    assert f"{MOST_EARLY} answers are kept" in str(error)
    assert "duplicate" == run.resume(YES, step="other", by="p-0", keep=HOUR).receipt.verdict


def test_early_answers_that_are_over_take_the_place_of_no_other() -> None:
    """But there is an end to them as well."""
    minute, run, resume = timedelta(minutes=1), a_run(), Resume(step="other", digest="d")
    early = Early(step=StepKey("other"), data=1, resume=resume, at=NOW - minute, until=NOW)
    for number in range(MOST_EVER):
        early = replace(early, at=early.until, until=early.until + minute)
        record = judged(run, early)
        assert isinstance(record, StepRecord), number
        run = replace(run, records=run.records.set(record.key, record))
    error = judged(run, replace(early, at=early.until))
    assert f"{MOST_EVER} answers are kept" in str(error)
    copy = judged(run, replace(early, at=early.at + timedelta(seconds=1)))
    assert isinstance(copy, Early)
    assert (early.at, early.until) == (copy.at, copy.until)


def test_early_answers_that_were_taken_take_the_place_of_no_other() -> None:
    """Those of its step that asks have found it."""
    ASKED.update(quorum=MOST_EARLY + 1)
    flow = workflow("two", input=int).sleep(HOUR).then(note).then(approve).map(lambda _: 1).then(approve.clone(id="b"))
    app = local(flow.commit())
    run: Any = app.workflow("two").create_run("r")
    run.start(1)
    for person in range(MOST_EARLY):
        run.resume(YES, step="approve", by=f"p-{person}", keep=2 * HOUR)
    refused(NotSuspended, lambda: run.resume(YES, step="b", by="more", keep=HOUR))
    app.advance(hours=1)
    assert "buffered" == run.resume(YES, step="b", by="more", keep=HOUR).receipt.verdict


@pytest.mark.parametrize("key", [None, "k-1"])
def test_early_answer_that_comes_again_when_its_time_is_over_is_kept_anew(key: str | None) -> None:
    """However often; in its time it is a copy."""
    app, run = slowly()
    minute = timedelta(minutes=1)

    def sent(keep: timedelta) -> str:
        return run.resume(YES, step="other", by="ada", idempotency_key=key, keep=keep).receipt.verdict  # type: ignore[no-any-return]

    for _ in range(3):
        assert ["buffered", "duplicate"] == [sent(minute), sent(minute)]
        app.clock.forward(minute)
    assert "buffered" == sent(HOUR)
    app.advance(hours=1)
    assert "success" == run.result().steps["other"].status


def test_key_of_an_early_answer_is_good_for_no_other() -> None:
    """Neither with other data nor for another step, as long as it is kept, and afterwards where it was taken."""
    app, run = slowly()
    run.resume(YES, step="other", by="ada", idempotency_key="k-1", keep=2 * HOUR)
    refused(IdempotencyKeyReused, lambda: run.resume(NO, step="other", by="ada", idempotency_key="k-1", keep=HOUR))
    error = refused(
        IdempotencyKeyReused,
        lambda: run.resume(YES, step="inner.approve", by="ada", idempotency_key="k-1", keep=HOUR),
    )
    assert "for step 'other'" in str(error)
    app.advance(hours=1)
    assert ["inner.approve"] == [".".join(wait.path) for wait in run.result().waits]


def test_early_answer_waits_on_when_the_run_travels_in_time() -> None:
    """And can be read meanwhile; one that was taken belongs to the old life, and one whose time is over to none."""
    app, run = slowly()
    run.resume(YES, step="inner.approve", by="eve", keep=timedelta(minutes=1))
    app.clock.forward(minutes=1)
    for name in ("other", "inner.approve"):
        run.resume(YES, step=name, by="ada", keep=9 * HOUR)
    run.time_travel("sleep-at-start")
    assert ["inner.approve", "other"] == sorted(r.step for r in run.receipts() if r.verdict == "buffered")
    app.advance(hours=1)
    assert "success" == run.result().status
    again = run.time_travel("other")
    assert ["other"] == [".".join(wait.path) for wait in again.waits]


@pytest.mark.parametrize("verb", ["commit", "load", "move"])
def test_early_answer_is_kept_in_the_life_that_the_run_begins_meanwhile(verb: str) -> None:
    """The operator comes in front of its record, or of the touch that makes it known."""
    watched = WatchedStore(MemoryStore())
    app, run = slowly(store=watched)
    seen: list[str] = []

    def script(call: Call) -> None:
        if call.verb == verb and "travel" not in seen and ("commit" in seen or verb == "commit"):
            seen.append("travel")
            run.time_travel("sleep-at-start")
        seen.append(call.verb)

    other = LocalApp(App(*app.workflows.values()), store=FaultyStore(watched, script), clock=app.clock)
    told: Any = other.run("r").resume(YES, step="other", by="ada", keep=2 * HOUR).receipt
    assert "buffered" == told.verdict
    assert "travel" in seen
    assert ["buffered"] == verdicts(run)
    app.advance(hours=1)
    assert "success" == run.result().steps["other"].status


@pytest.mark.parametrize("fault", list(Fault))
def test_early_answer_is_kept_whatever_dies(fault: Fault) -> None:
    """Whoever sends it again is told that it is kept, and it is taken."""
    for number in (1, 2):
        watched = WatchedStore(MemoryStore())
        app, run = slowly(store=watched)
        writes = frozenset({"commit", "move"})
        dying = LocalApp(
            App(*app.workflows.values()),
            clock=app.clock,
            store=FaultyStore(watched, at_call(number, fault, verbs=writes)),
        )
        with suppress(WorkerDied, FlowcoreError):
            dying.run("r").resume(YES, step="other", keep=2 * HOUR)
        again = run.resume(YES, step="other", keep=2 * HOUR).receipt
        assert again.verdict in ("buffered", "duplicate")
        app.advance(hours=1)
        assert "success" == run.result().steps["other"].status


@pytest.mark.parametrize("keys", [(None, None), ("k-1", "k-2")], ids=["no key", "keys"])
def test_early_answers_of_one_person_to_two_steps_are_two_answers(keys: tuple[str | None, str | None]) -> None:
    """Though both say the same: each step has its own."""
    app, run = slowly()
    for name, key in zip(("other", "inner.approve"), keys, strict=True):
        run.resume(YES, step=name, by="ada", idempotency_key=key, keep=2 * HOUR)
    app.advance(hours=1)
    assert "success" == run.result().status
    assert ["applied", "applied"] == verdicts(run)


def test_early_vote_that_came_twice_counts_once() -> None:
    """Two messages of one person have two keys; the run is parked all the same, until somebody else votes."""
    app, run = slowly()
    ASKED.update(quorum=2)
    for key in ("m-1", "m-2"):
        run.resume(YES, step="other", by="ada", idempotency_key=key, keep=2 * HOUR)
    app.advance(hours=1)
    assert {"other": ["ada"]} == {w.path[0]: list(w.answered_by) for w in run.result().waits if w.path == ["other"]}
    assert "applied" == run.resume(YES, step="other", by="bob").receipt.verdict


def test_early_answer_from_a_queue_is_kept_without_being_asked_to() -> None:
    """So the message may be acknowledged, and a copy of it, too."""
    app, run = slowly()
    resume = Resume(step="other", digest=digest({"approved": True}), by="ada", via="sqs")
    told = [arrive(app.engine, RUN, {"approved": True}, resume, here=True).verdict for _ in range(2)]
    assert ["buffered", "duplicate"] == told
    app.advance(hours=1)
    assert {"sqs": "applied"} == {r.via: r.verdict for r in run.receipts() if r.verdict == "applied"}


def test_early_answer_to_a_paused_run_waits_for_the_operator() -> None:
    """And one to a run that has ended is stale."""
    app, run = slowly()
    run.pause()
    assert "paused" == run.resume(YES, step="other", keep=2 * HOUR).status
    app.clock.forward(hours=1)
    run.unpause()
    assert "success" == run.result().steps["other"].status
    run.cancel()
    refused(RunFinished, lambda: run.resume(YES, step="inner.approve", keep=HOUR))


def test_early_answer_and_its_question_find_each_other_whoever_comes_in_between() -> None:
    """The answer comes at any call of the worker that asks: it is taken, or whoever sent it was told no."""
    for number in range(1, 300):
        watched = WatchedStore(MemoryStore())
        app, run = slowly(store=watched)
        between: list[str] = []

        def script(call: Call, number: int = number, between: list[str] = between, run: Any = run) -> None:
            if call.number == number and not between:
                between.append(run.resume(YES, step="other", by="ada", keep=2 * HOUR).receipt.verdict)

        app.clock.forward(hours=1)
        other = LocalApp(App(*app.workflows.values()), store=FaultyStore(watched, script), clock=app.clock)
        other.look(RUN)
        if not between:
            assert number > 7
            break
        app.advance(minutes=1)
        assert {"success"} == {run.result().steps["other"].status}, f"at call {number}"
        assert 1 == verdicts(run).count("applied")


@pytest.mark.parametrize("when", ["before the run goes on", "while it is at work"])
def test_early_answer_is_taken_though_other_work_goes_on_past_the_deadline(when: str) -> None:
    """The worker looks once more before the question lapses, also at what was kept after it has read the run."""
    clock = VirtualClock()

    @step(id="ask")
    def ask(_: int, ctx: StepContext[Decision]) -> Any:
        if ctx.resume_data is None and not ctx.timed_out:
            ctx.suspend(timeout=HOUR)
        return ctx.resume_data and ctx.resume_data.approved

    @step(id="work")
    def work(value: int) -> int:
        if when == "while it is at work" and value == 1:
            send()
        clock.forward(hours=1)
        return value + 1

    def send() -> None:
        data = {"approved": True}
        resume = Resume(step="inner.ask", digest=digest(data))
        verdict = app.engine.resume(RUN, data, resume, here=False, keep_for=9 * HOUR)[1].verdict
        assert verdict in ("buffered", "applied")  # as the other thread was slower, or faster, to ask

    inner = workflow("inner", input=int).then(note).then(note.clone(id="again")).then(ask).commit()
    busy = workflow("busy", input=int).dountil(work, lambda value: value > 5).commit()
    flow = workflow("w", input=int).sleep(HOUR).parallel(inner, busy).commit()
    app = LocalApp(App(flow), clock=clock)
    run = app.workflow(flow).create_run("r")
    run.start(1)
    if when == "before the run goes on":
        send()
    app.advance(hours=1)
    assert ("success", {"inner": True, "busy": 6}) == (run.result().status, run.result().output)


def test_early_answer_that_is_too_large_beside_its_question_is_refused() -> None:
    """It fitted alone; its run waits for another, and no worker stumbles over it."""
    large = "".join(map(chr, Random(1).choices(range(0x800, 0xD7FF), k=118_000)))  # cannot be packed

    @step(id="ask")
    def ask(_: int, ctx: StepContext[Any, Any]) -> int:
        return ctx.suspend(large) if ctx.resume_data is None else 1

    flow = workflow("w", input=int).sleep(HOUR).then(ask).commit()
    app = LocalApp(App(flow))
    run: Any = app.workflow(flow).create_run("r")
    run.start(1)
    run.resume(large, step="ask", keep=2 * HOUR)
    assert ["buffered"] == verdicts(run)
    app.advance(hours=1)
    assert "suspended" == run.result().status
    assert "payload-too-large" in [receipt.reason for receipt in run.receipts()]
    with pytest.raises(PayloadTooLarge):
        run.resume(large, idempotency_key="k")
    assert ("k", "rejected") in [(receipt.idempotency_key, receipt.verdict) for receipt in run.receipts()]
    assert "success" == run.resume(1).status


@pytest.mark.parametrize("durability", ["step", "boundary"])
@pytest.mark.parametrize(
    ("options", "output", "told"),
    [
        (1, "o0: True", [("applied", None)]),
        (2, "o1: False", [("rejected", "ambiguous-wait"), ("applied", None)]),
    ],
)
def test_early_answer_to_options_is_taken_where_there_is_one(
    durability: Any, options: int, output: str, told: list[tuple[str, str | None]]
) -> None:
    """It cannot say which of several it is for: that has a receipt, once, and whoever answers then says it."""

    @step
    def offer(_: int, ctx: StepContext[Decision]) -> str:
        if ctx.resume_data is None:
            ctx.suspend_any([Option(f"o{number}") for number in range(options)])
        assert ctx.resume_data is not None
        return f"{ctx.chosen}: {ctx.resume_data.approved}"

    flow = workflow("w", input=int, durability=durability).sleep(HOUR).then(offer).commit()
    app = local(flow)
    run: Any = app.workflow(flow).create_run("r")
    run.start(1)
    assert "buffered" == run.resume(YES, step="offer", by="ada", keep=2 * HOUR).receipt.verdict
    app.advance(minutes=90)
    if options > 1:
        assert ["offer@0:o0", "offer@0:o1"] == [wait.id for wait in run.result().waits]
        run.resume(NO, label="o1", by="ada")
    assert ("success", output) == (run.result().status, run.result().output)
    receipts = [receipt for receipt in run.receipts() if receipt.verdict != "buffered"]
    assert told == [(receipt.verdict, receipt.reason) for receipt in receipts]
    assert ["ada"] * len(told) == [receipt.by for receipt in receipts]


def test_receipts_go_with_their_run() -> None:
    """A later run of the same id has none of them; of a run that never was there are none to ask for."""
    app = local()
    run = asked(app)
    refused(InvalidPayload, lambda: run.resume(BAD))
    born = app.engine.peek(RUN).created_at
    run.delete()
    refused(RunNotFound, run.receipts)
    assert [] == list(app.store.notes(RUN, born))
    app.clock.forward(hours=1)
    asked(app)
    app.store.note(RUN, born, "r001", "late", Receipt(verdict="stale", wait="", at=born))
    assert [] == run.receipts()


# -- the table ---------------------------------------------------------------------------------------------------------

HERE = "tests/unit/test_arrivals.py"
ARRIVALS = {
    "an answer that fits, to an open suspension": "test_row_resume_with_valid_data_is_applied",
    "the same idempotency key again": "test_row_same_idempotency_key_again_is_the_first_receipt",
    "an answer to what somebody else has answered": "test_row_another_caller_is_stale_with_the_winner",
    "data that does not fit": "test_row_data_that_does_not_fit_is_rejected_with_its_fields",
    "data that does not fit, from a queue": (
        "tests/unit/test_intake.py::test_answer_that_fits_nothing_is_acknowledged_with_a_receipt"
    ),
    "an event before anybody waits": "test_row_event_before_its_wait_is_buffered_and_taken",
    "an answer before its step asks": "test_row_answer_before_its_step_asks_is_buffered_and_taken",
    "several events before anybody waits: the oldest is taken": (
        "tests/unit/test_mailbox.py::test_event_that_came_too_early_is_taken"
    ),
    "an event that meets its wait half way": (
        "tests/unit/test_mailbox.py::test_event_and_wait_that_meet_half_way_find_each_other"
    ),
    "an event for a run that is not started": "test_row_event_for_a_run_that_is_not_started_is_buffered",
    "an event that starts its run": "tests/unit/test_start_if_absent.py::test_event_starts_the_run_that_is_absent",
    "an event that starts its run, in one transaction": (
        "tests/unit/test_start_if_absent.py::test_event_and_its_run_are_written_together_or_not_at_all"
    ),
    "a timer of what is settled": "test_row_timer_of_an_old_epoch_is_dropped_and_counted",
    "a timer of what is settled, counted": (
        "tests/e2e/test_handlers.py::test_worker_tells_how_late_hints_come_and_which_are_stale"
    ),
    "a timer at the deadline": "test_row_timer_at_the_deadline_settles",
    "a timer and an answer at once": "test_row_timer_and_answer_race_with_one_winner",
    "a reminder": "test_row_reminder_leaves_the_epoch_alone",
    "a reminder whose worker dies, and the next one": "test_row_reminder_is_sent_whatever_dies_and_then_the_next_one",
    "one approval of several": "test_row_one_approval_of_several_is_counted",
    "a deadline before the quorum": "test_row_quorum_that_is_short_at_the_deadline_starts_the_step_again",
    "a cancel, and an answer after it": "test_row_cancel_makes_later_answers_stale",
    "an answer to a paused run": "test_row_answer_to_a_paused_run_is_stored_and_applied_at_unpause",
    "an old link after time travel": "test_row_time_travel_makes_old_links_stale",
    "an answer to the run that was forked": "test_row_fork_has_waits_of_its_own",
    "a hint at a run that has ended": "test_row_late_copy_of_a_hint_at_an_ended_run_is_dropped",
    "a death between an answer and its wake": "test_row_crash_between_answer_and_wake_is_swept",
    "a hint that is late, with how late": (
        "tests/e2e/test_handlers.py::test_worker_tells_how_late_hints_come_and_which_are_stale"
    ),
    "a run that nobody has come for": (
        "tests/e2e/test_handlers.py::test_sweeper_tells_how_many_runs_nobody_has_come_for"
    ),
}
"""What may come, and the test that shows what it does."""


@pytest.mark.parametrize("arrival", ARRIVALS)
def test_each_arrival_has_a_test(arrival: str) -> None:
    """Of that name, in that file."""
    path, _, name = ARRIVALS[arrival].rpartition("::")
    assert name in _tests_of(path or HERE)


def test_each_row_is_an_arrival() -> None:
    """No test of a row is left out of the table."""
    assert {name for name in _tests_of(HERE) if name.startswith("test_row_")} <= set(ARRIVALS.values())


def _tests_of(path: str) -> set[str]:
    source = ast.parse((Path(__file__).resolve().parents[2] / path).read_text("utf-8"))
    return {node.name for node in ast.walk(source) if isinstance(node, ast.FunctionDef)}
