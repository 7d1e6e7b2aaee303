"""Ways in which runs of other engines are known to break: what is stored, what is sent, who recovers, who watches."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from flowcore import StepContext, step, workflow
from flowcore.errors import NotSuspended
from flowcore.keys import RunRef, StepKey, dotted
from flowcore.model import Outcome
from flowcore.ports import HeadMoved, Hint, RecordMoved
from flowcore.testing.faults import WorkerDied
from tests.conformance.support import Harness

HOUR = timedelta(hours=1)
CALLS: list[str] = []


@pytest.fixture(autouse=True)
def _no_calls_yet() -> None:
    CALLS.clear()


@step
def large(number: int) -> str:
    """A text that can be recognized."""
    CALLS.append("large")
    return "marker" * 1_000 * number


@step
def last(_: Any) -> int:
    """A small output."""
    CALLS.append("last")
    return 7


@step
def ask(value: Any, ctx: StepContext[int]) -> Any:
    """Hands on what it was given, once somebody has answered."""
    if ctx.resume_data is None:
        ctx.suspend()
    return value


ASKING = workflow("asking", input=int).then(large).then(ask).then(last).commit()
NAPPING = workflow("napping", input=int).then(large).sleep(HOUR).then(last).commit()


def observed(harness: Harness, monkeypatch: pytest.MonkeyPatch, verb: str, seen: list[Any]) -> None:
    """Collect what is written with ``verb``."""
    write = getattr(harness.store, verb)

    def writing(*args: Any, **options: Any) -> Any:
        seen.append(args)
        return write(*args, **options)

    monkeypatch.setattr(harness.store, verb, writing, raising=False)


def dies_at_the_end(harness: Harness, monkeypatch: pytest.MonkeyPatch, step: str, deaths: int) -> None:
    """The worker dies that many times when ``step`` has run and its outcome is about to be stored."""
    commit, left = harness.store.commit, [None] * deaths

    def dying(run: Any, incarnation: Any, record: Any, prior: Any) -> Any:
        if left and dotted(record.key) == step and record.outcome is not Outcome.ERR:
            left.pop()
            raise WorkerDied
        return commit(run, incarnation, record, prior)

    monkeypatch.setattr(harness.store, "commit", dying)


def test_bug_07_the_count_of_deliveries_outlives_processes(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try is another process; the step is given up all the same, and only that run is."""
    dies_at_the_end(harness, monkeypatch, "large", 5)
    harness.serve(NAPPING).start(1)
    for _ in range(5):
        harness.clock.forward(HOUR)
        harness.another_process().deliver(harness.run_id)
    assert ("failed", 5) == (harness.result().status, len(CALLS))
    assert "waiting" == harness.start(1).status


def test_bug_08_a_message_carries_no_results(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but whose turn it is and when, however large the outputs are."""
    sent: list[Hint] = []
    schedule = harness.scheduler.schedule

    def scheduling(hint: Hint, *, version: int) -> None:
        sent.append(hint)
        schedule(hint, version=version)

    monkeypatch.setattr(harness.scheduler, "schedule", scheduling)
    harness.serve(NAPPING).start(9)
    harness.advance(HOUR)
    assert "success" == harness.result().status
    run = RunRef("default", harness.run_id)
    assert sent
    assert [Hint(run=run, at=hint.at) for hint in sent] == sent


def test_bug_09_an_output_is_written_once(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """No later write repeats it: not that of a step, of an answer, of a claim or of the end."""
    seen: list[Any] = []
    for verb in ("start", "claim", "commit", "release", "resume", "move"):
        observed(harness, monkeypatch, verb, seen)
    harness.serve(workflow("w", input=int).then(large).map(lambda _: 1).then(ask).then(last)).start(1)
    assert "success" == harness.resume(1).status
    assert 1 == sum("marker" in repr(args) for args in seen)
    assert 6 <= len(seen)


def test_bug_10_a_write_that_rests_on_an_outdated_view_is_refused(harness: Harness) -> None:
    """Every kind of write is conditional, also when nothing else but the version has changed."""
    harness.serve(ASKING).start(1)
    run = RunRef("default", harness.run_id)
    old = harness.store.load(run, everything=True)
    assert old is not None
    harness.run().pause()
    harness.run().unpause()
    harness.advance()
    before = harness.store.load(run, everything=True)
    head, waiting = old[0], old[1][StepKey("ask")]
    moved = replace(head, version=head.version + 1)
    assert isinstance(harness.store.move(moved, version=head.version), HeadMoved)
    assert isinstance(harness.store.release(moved, epoch=head.epoch, version=head.version), HeadMoved)
    answered = replace(waiting, outcome=Outcome.RESU, gen=waiting.gen + 1)
    assert isinstance(harness.store.resume(moved, answered, version=head.version, prior=waiting), HeadMoved)
    assert isinstance(harness.store.commit(run, 1, old[1][StepKey("large")], None), RecordMoved)
    assert before == harness.store.load(run, everything=True)


def test_bug_11_a_listing_keeps_the_order_and_the_time_of_creation(harness: Harness) -> None:
    """However often a run is written afterwards; a status is looked up, not searched for."""
    harness.serve(ASKING)
    times = []
    for run_id in "abc":
        times.append(harness.start(1, run_id=run_id).created_at)
        harness.advance(HOUR)
    harness.resume(1, run_id="a")
    assert [("c", times[2]), ("b", times[1]), ("a", times[0])] == [
        (run.run_id, run.created_at) for run in harness.app.list_runs()
    ]
    assert (["a"], ["c", "b"]) == (
        [run.run_id for run in harness.app.list_runs(status="success")],
        [run.run_id for run in harness.app.list_runs(status="suspended")],
    )


def test_bug_13_two_that_recover_a_run_do_it_once(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server has to boot for it, and of two workers that are sent at the same time one finds nothing to do."""

    @step
    def slow(number: int, ctx: StepContext) -> int:
        CALLS.append("slow")
        if len(CALLS) == 2:
            harness.another_process().deliver(ctx.run_id, twice=True)
        return number

    dies_at_the_end(harness, monkeypatch, "slow", 1)
    assert "running" == harness.serve(workflow("w", input=int).then(slow).then(last)).start(1).status
    harness.clock.forward(HOUR)
    assert (1, 1) == (harness.another_process().sweep(), harness.another_process().sweep())
    harness.advance(HOUR)
    assert ("success", ["slow", "slow", "last"]) == (harness.result().status, CALLS)


def test_bug_19_an_answer_to_a_running_run_is_refused_at_once(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at, not waited for: no time passes, and few reads are made."""
    reads: list[Any] = []
    taken: list[Any] = []

    @step
    def slow(number: int, ctx: StepContext) -> int:
        begin = harness.clock.now()
        elsewhere = harness.another_process()
        reads.clear()
        with pytest.raises(NotSuspended):
            elsewhere.resume(ctx.run_id, 1)
        taken.append((harness.clock.now() - begin, len(reads)))
        return number

    for verb in ("load", "peek"):
        observed(harness, monkeypatch, verb, reads)
    harness.serve(workflow("w", input=int).then(slow)).start(1)
    assert [timedelta(0)] == [time for time, _ in taken]
    assert taken[0][1] <= 3  # the run as it may be open, whole, and its head for the receipt


def test_bug_21_a_run_is_watched_from_any_process(harness: Harness) -> None:
    """Also from one that did not exist when it happened, from the first event on."""
    harness.serve(ASKING).start(1)
    watched = list(harness.another_process().run(harness.run_id).watch())
    assert ["run-started", "step-started", "step-finished", "step-started", "step-suspended", "run-suspended"] == [
        event.type for event in watched
    ]
    assert 6_000 == len(watched[2].data["output"])


def test_bug_28_a_crash_between_outcome_and_callback_loses_no_callback(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker calls it; a suspension is not called an end meanwhile."""
    told: list[str] = []
    release = harness.store.release

    def dying(head: Any, **options: Any) -> Any:
        written = release(head, **options)
        if head.outbox:
            raise WorkerDied
        return written

    made = workflow("w", input=int, on_finish=lambda result: told.append(result.status)).then(ask).commit()
    harness.serve(made).start(1)
    monkeypatch.setattr(harness.store, "release", dying)
    harness.resume(1)
    assert ("success", []) == (harness.result().status, told)
    harness.advance(HOUR)
    assert ["success"] == told
