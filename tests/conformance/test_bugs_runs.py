"""Ways in which runs of other engines are known to break: sleeps, crashes, answers, deployments, cancels."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flowcore import StepContext, step, workflow
from flowcore.authoring.graph import Backoff
from flowcore.errors import AlreadyResumed
from flowcore.keys import RunRef, dotted
from flowcore.testing.faults import WorkerDied
from tests.conformance.support import Harness

HOUR = timedelta(hours=1)
HOURLY = Backoff(initial=HOUR, maximum=HOUR, factor=1.0, jitter=False)
CALLS: list[str] = []


@pytest.fixture(autouse=True)
def _no_calls_yet() -> None:
    CALLS.clear()


@step
def first(number: int) -> int:
    """One more."""
    CALLS.append("first")
    return number + 1


@step
def ask(number: int, ctx: StepContext[int]) -> int:
    """Adds what somebody answers."""
    CALLS.append("ask")
    if ctx.resume_data is None:
        ctx.suspend(label="boss")
    return number + ctx.resume_data


@step
def last(number: int) -> int:
    """Doubles."""
    CALLS.append("last")
    return 2 * number


ASKING = workflow("w", input=int, output=int).then(first).then(ask).then(last).commit()
NAPPING = workflow("w", input=int, output=int).then(first).sleep(timedelta(days=30), id="nap").then(last).commit()


def dies_after(harness: Harness, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """The worker dies once, right after an outcome of ``step`` (dotted id) is stored."""
    commit = harness.store.commit

    def dying(run: Any, incarnation: Any, record: Any, prior: Any) -> Any:
        written = commit(run, incarnation, record, prior)
        if dotted(record.key) == step:
            monkeypatch.setattr(harness.store, "commit", commit)
            raise WorkerDied
        return written

    monkeypatch.setattr(harness.store, "commit", dying)


def test_bug_01_a_sleep_holds_no_process(harness: Harness) -> None:
    """When to wake is stored, nobody holds the run meanwhile, and a process that knows only the store wakes it."""
    begin = harness.serve(NAPPING).start(1).created_at
    head = harness.store.peek(RunRef("default", harness.run_id))
    assert head is not None
    assert (None, None, begin + timedelta(days=30)) == (head.owner, head.lease_until, head.wake)
    harness.scheduler.pop_due(begin + timedelta(days=99))
    harness.advance(days=31)
    assert ("success", ["first", "last"]) == (harness.result().status, CALLS)


def test_bug_02_a_sleep_may_be_longer_than_a_timer_of_32_bits(harness: Harness) -> None:
    """24.8 days are no limit."""
    harness.serve(NAPPING).start(1)
    harness.advance(days=29)
    assert ("waiting", ["first"]) == (harness.result().status, CALLS)
    harness.advance(days=1)
    assert "success" == harness.result().status


def test_bug_03_a_restart_does_not_sleep_again(harness: Harness) -> None:
    """It sleeps on."""
    harness.serve(NAPPING).start(1)
    harness.advance(days=29)
    harness.run().restart()
    harness.advance(days=1)
    assert ("success", ["first", "last"]) == (harness.result().status, CALLS)


def test_bug_04_progress_after_a_resume_is_stored(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash behind the resumed step loses neither the answer nor what was done with it."""
    harness.serve(ASKING).start(1)
    dies_after(harness, monkeypatch, "ask")
    harness.resume(10)
    assert ("success", 10) == ((seen := harness.result().steps["ask"]).status, seen.resume_data)
    harness.advance(HOUR)
    assert ("success", 24) == ((result := harness.result()).status, result.output)
    assert ["first", "ask", "ask", "last"] == CALLS


def test_bug_05_a_worker_that_lost_its_run_writes_nothing_more(harness: Harness) -> None:
    """A restart while the first worker lives: the second one's outcome counts, what follows runs once."""
    rivals: list[str] = []

    @step
    def slow(number: int, ctx: StepContext) -> int:
        CALLS.append("slow")
        if len(CALLS) == 1:
            elsewhere = harness.another_process()
            rivals.append(elsewhere.run(ctx.run_id).restart().status)
            elsewhere.run_until_idle()
            harness.clock.forward(seconds=2)
            return -1
        return number

    result = harness.serve(workflow("w", input=int).then(slow).then(first)).start(1)
    assert ("success", 2) == (result.status, result.output)
    assert (["slow", "slow", "first"], 1) == (CALLS, len(rivals))


def test_bug_06_two_answers_never_both_count(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even when both were read as good before either was written; not later either."""
    harness.serve(ASKING).start(1)
    write = harness.store.resume

    def slow(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(harness.store, "resume", write)
        harness.another_process().resume(harness.run_id, 10)
        return write(*args, **options)

    monkeypatch.setattr(harness.store, "resume", slow, raising=False)
    for _ in range(2):
        with pytest.raises(AlreadyResumed):
            harness.resume(20)
        harness.advance()
    assert ("success", 24, 1) == (harness.result().status, harness.result().output, CALLS.count("last"))


def test_bug_15_retries_keep_their_pause_and_the_answer(harness: Harness) -> None:
    """After a resume, and in each turn of a loop; waiting for the next try is nobody's compute."""
    seen: list[tuple[Any, ...]] = []

    @step(retries=1, backoff=HOURLY)
    def flaky(number: int, ctx: StepContext[str]) -> int:
        if ctx.resume_data is None:
            ctx.suspend()
        seen.append((ctx.iteration, ctx.retry_count, ctx.resume_data))
        if ctx.retry_count == 0:
            raise ValueError("once more")
        return number + 1

    harness.serve(workflow("w", input=int).dountil(flaky, lambda n: n == 2)).start(0)
    for answer in "ab":
        assert "waiting" == harness.resume(answer).status
        harness.advance(HOUR)
    assert ("success", 2) == (harness.result().status, harness.result().output)
    assert [(1, 0, "a"), (1, 1, "a"), (2, 0, "b"), (2, 1, "b")] == seen


@pytest.mark.parametrize(("answered", "output"), [(True, "yes"), (False, "too late")])
def test_bug_17_a_suspension_may_have_a_deadline(harness: Harness, answered: bool, output: str) -> None:
    """Answered in time or timed out: one of both, and the step knows which."""

    @step
    def approve(_: Any, ctx: StepContext[str]) -> str:
        if ctx.timed_out:
            return "too late"
        if ctx.resume_data is None:
            ctx.suspend(timeout=timedelta(days=3))
        return ctx.resume_data

    result = harness.serve(workflow("w").then(approve)).start(1)
    assert ("suspended", result.created_at + timedelta(days=3)) == (result.status, result.waits[0].deadline)
    harness.advance(days=2)
    if answered:
        harness.resume("yes")
    harness.advance(days=2)
    assert ("success", output) == (harness.result().status, harness.result().output)
    with pytest.raises(AlreadyResumed):
        harness.resume("no")
