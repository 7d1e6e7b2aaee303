"""``explore`` finds what breaks under faults, makes it as small as it can be, and tells how to see it again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from flowcore import Option, StepContext, step, workflow
from flowcore.adapters.memory import MemoryStore
from flowcore.authoring.workflow import Workflow
from flowcore.keys import RunRef
from flowcore.model import Head, RunStatus, StepRecord
from flowcore.ports import Batch, HeadMoved, RecordMoved, Written
from flowcore.testing import Diverged, Strike, explore
from flowcore.testing.schedule import smallest

charged: list[int] = []
receipts: dict[str, int] = {}


@step
def charge(amount: int) -> int:
    """Takes the money again each time it is tried."""
    charged.append(amount)
    return amount


@step
def charge_once(amount: int, ctx: StepContext) -> int:
    """Hands over its idempotency key."""
    receipts[ctx.idempotency_key] = amount
    return amount


@step
def approve(amount: int, ctx: StepContext[bool, dict[str, int]]) -> int:
    """Waits for an answer, at most a day."""
    if ctx.resume_data is None and not ctx.timed_out:
        ctx.suspend({"amount": amount}, timeout=timedelta(days=1))
    return amount if ctx.resume_data else 0


@step
def count_letters(word: str) -> int:
    """Pure."""
    return len(word)


@step
async def note(amount: int) -> int:
    """Really waits."""
    await asyncio.sleep(0)
    return amount + 1


def pay(first: Any) -> Workflow[int, Any]:
    """A workflow with a sleep, a suspension and two coroutines side by side."""
    builder = workflow("pay", input=int).then(first).sleep(timedelta(hours=2)).then(approve)
    made: Workflow[int, Any] = builder.parallel(note, note.clone(id="again")).commit()
    return made


def test_explore_tries_every_single_fault() -> None:
    """Nine at each write, three at each read, and one more where one can answer; four at each hint; and undisturbed."""
    done = explore(pay(charge_once), 5, answers={"approve": True}, before=receipts.clear, effects=receipts.copy)

    assert {"note": 6, "again": 6} == done.result.output
    assert 1 + 9 * done.writes + 2 + 3 * done.reads + 1 + 4 * done.hints == done.schedules
    assert {"explored/charge_once": 5} == receipts


def test_explore_finds_an_effect_that_does_not_bear_repetition() -> None:
    """The smallest schedule is one strike, told in words and as a value that replays it."""
    asked: dict[str, Any] = {"answers": {"approve": True}, "before": charged.clear, "effects": charged.copy}
    with pytest.raises(Diverged) as found:
        explore(pay(charge), 5, **asked)

    assert (Strike("dies-before", 3),) == found.value.schedule
    assert ["effects: [5, 5] instead of [5]"] == found.value.differences
    assert "the worker dies before write 3 (commit of 'charge')" in str(found.value)
    assert 'schedule=[Strike("dies-before", 3)]' in str(found.value)
    with pytest.raises(Diverged) as again:
        explore(pay(charge), 5, **asked, schedule=found.value.schedule)
    assert str(found.value) == str(again.value)


def test_a_schedule_that_changes_nothing_passes() -> None:
    """The same workflow, the blow elsewhere."""
    done = explore(
        pay(charge),
        5,
        answers={"approve": True},
        before=charged.clear,
        effects=charged.copy,
        schedule=[Strike("dies-after", 3), Strike("hint-lost", 1)],
    )

    assert 2 == done.schedules


def test_a_schedule_shrinks_to_the_strike_that_matters() -> None:
    """Whatever else was in it."""
    with pytest.raises(Diverged) as found:
        explore(
            pay(charge),
            5,
            answers={"approve": True},
            before=charged.clear,
            effects=charged.copy,
            schedule=[Strike("hint-lost", 1), Strike("fails", 3), Strike("hint-doubled", 2), Strike("taken-over", 6)],
        )

    assert (Strike("fails", 3),) == found.value.schedule


def test_smallest_keeps_what_only_fails_together() -> None:
    """Two strikes of three, when neither suffices alone."""
    one, two, three = Strike("fails", 1), Strike("fails", 2), Strike("hint-lost", 1)

    assert (one, three) == smallest((one, two, three), lambda fewer: {one, three} <= {*fewer})
    assert () == smallest((one, two), lambda _: True)


@dataclass
class Broken(MemoryStore):
    """A store with one rule left out."""

    rule: str

    def __post_init__(self) -> None:
        MemoryStore.__init__(self)

    def commit(
        self, run: RunRef, incarnation: int, record: StepRecord, prior: StepRecord | None
    ) -> Written | RecordMoved:
        """Perhaps: whoever writes last is right."""
        if self.rule == "last writer wins":
            written = super().commit(run, incarnation, record, prior)
            if isinstance(written, RecordMoved):
                return super().commit(run, incarnation, record, written.record)
            return written
        return super().commit(run, incarnation, record, prior)

    def release(self, head: Head, *, epoch: int, version: int, batch: Batch = ()) -> Written | HeadMoved | RecordMoved:
        """Perhaps: a sleeping run is not to be looked for; or any holder may give the run back."""
        if self.rule == "no due on a sleep" and head.status is RunStatus.WAITING:
            head = replace(head, due=None)
        standing = self.peek(head.run)
        if self.rule == "no fence" and standing is not None:
            return self.move(
                replace(head, version=standing.version + 1, epoch=standing.epoch), version=standing.version
            )
        return super().release(head, epoch=epoch, version=version, batch=batch)


@pytest.mark.parametrize("rule", ["last writer wins", "no due on a sleep", "no fence"])
def test_explore_finds_a_broken_store(rule: str) -> None:
    """With one strike at most, and names the rule that was broken."""
    with pytest.raises(Diverged) as found:
        explore(pay(charge_once), 5, answers={"approve": True}, store=lambda: Broken(rule))

    print(found.value)
    assert len(found.value.schedule) <= 1
    assert any(difference.startswith("run 'explored'") for difference in found.value.differences)


def test_two_explorations_with_one_seed_are_one() -> None:
    """Pairs are drawn by the seed."""
    tried: list[list[str]] = [[], []]
    for seen in tried:

        @step
        def watch(amount: int, seen: list[str] = seen) -> int:
            seen.append("watch")
            return amount

        explore(workflow("w", input=int).then(watch).then(watch, id="more"), 1, faults=2, most=30, seed=4)

    assert tried[0] == tried[1]
    assert len(tried[0]) > 60


def test_answers_may_be_a_function_and_may_be_missing() -> None:
    """What nobody answers times out, if it can."""
    answered = explore(pay(charge_once), 5, answers=lambda wait: wait.payload["amount"] == 5, schedule=[])
    timed_out = explore(pay(charge_once), 5, schedule=[])

    assert ({"note": 6, "again": 6}, {"note": 1, "again": 1}) == (answered.result.output, timed_out.result.output)


def test_events_are_sent_as_they_are_waited_for() -> None:
    """The answer under the entry's id is the data of the event."""
    flow = workflow("w", input=str).wait_for_event("paid", key=lambda order: order, id="payment").then(count_letters)

    assert 4 == explore(flow, "o-1", answers={"payment": "much"}).result.output


def test_events_and_quorums_inside_other_workflows_are_answered() -> None:
    """By as many different people as are needed, each of whom may."""

    @step
    def agree(order: str, ctx: StepContext[bool]) -> list[str]:
        if ctx.resume_data is None:
            ctx.suspend(approvers=["ada", "grace", "alan"], quorum=2)
        return [vote.by for vote in ctx.votes]

    child = (
        workflow("child", input=str).wait_for_event("paid", key=lambda order: order, id="payment").then(agree).commit()
    )
    flow = workflow("w", input=str).then(child)

    asked: dict[str, Any] = {"answers": {"payment": "much", "agree": True}, "blows": ["reply-lost", "answered"]}
    assert ["ada", "grace"] == explore(flow, "o-1", **asked).result.output


@pytest.mark.slow
def test_options_are_answered_by_name_and_deadlines_pass() -> None:
    """One of several things comes, then nothing does: a stand-in takes over, whatever goes wrong."""

    @step
    def give_up(value: str, ctx: StepContext) -> str:
        return f"{value} given up {ctx.once('n', lambda: 1)}"

    @step(stand_ins=[give_up])
    def choose(value: str, ctx: StepContext[int]) -> str:
        if ctx.chosen is None:
            options = [Option("boss"), Option("paid", key=value)]
            ctx.suspend_any(options, timeout=timedelta(days=1), on_timeout=give_up)
        return f"{value} {ctx.chosen} {ctx.resume_data}"

    flow = workflow("w", input=str, output=str).then(choose)
    assert "x paid 5" == explore(flow, "x", answers={"paid": 5}).result.output
    assert "x given up 1" == explore(flow, "x").result.output


def test_a_suspension_that_nobody_answers_is_an_error() -> None:
    """It says what to give."""

    @step
    def wait(_: int, ctx: StepContext[int]) -> int:
        ctx.suspend()

    with pytest.raises(ValueError, match=r"answers=\{'wait'"):
        explore(workflow("w", input=int).then(wait), 1)


def test_outcome_says_what_must_be_the_same() -> None:
    """Here something that cannot be."""
    with pytest.raises(Diverged, match="outcome"):
        explore(pay(charge_once), 5, answers={"approve": True}, outcome=lambda result: result.updated_at)


@step
def four_eyes(amount: int, ctx: StepContext[bool]) -> int:
    """Waits for somebody who has not started the run."""
    if ctx.resume_data is None:
        ctx.suspend(allow_self=False)
    return amount


def test_a_run_that_whoever_started_it_may_not_answer_is_explored() -> None:
    """Somebody starts it who has a name, and somebody else answers."""
    flow = workflow("checked", input=int, output=int).then(four_eyes).commit()
    assert 5 == explore(flow, 5, answers={"four_eyes": True}).result.output


@step
async def booked(amount: int, ctx: StepContext) -> int:
    """Stores something in the middle of a coroutine."""
    return ctx.once("number", lambda: amount)


def test_a_worker_is_taken_over_in_the_middle_of_a_coroutine() -> None:
    """The other one has a loop of its own to wait for."""
    flow = workflow("booking", input=int, output=int).then(booked).commit()
    assert 5 == explore(flow, 5, schedule=[Strike("taken-over", 3)]).result.output
    assert 5 == explore(flow, 5).result.output


def test_answers_to_items_that_others_see_to_are_stored_where_those_are() -> None:
    """In the children of a distributed foreach, and not in the run that was asked."""
    flow = workflow("pay", input=list[int], output=list[int]).foreach(approve, id="all", distributed=True).commit()
    done = explore(flow, [5, 6], answers={"all": True}, schedule=[])
    assert [5, 6] == done.result.output


def test_the_worker_of_an_item_is_taken_over() -> None:
    """Somebody else does the item while he is frozen, not only what the run itself has to do."""
    flow = workflow("fanned", input=list[int]).foreach(charge, distributed=True).commit()
    with pytest.raises(Diverged, match=r"effects: \[5, 5\] instead of \[5\]"):
        explore(flow, [5], before=charged.clear, effects=charged.copy, blows=["taken-over"])
