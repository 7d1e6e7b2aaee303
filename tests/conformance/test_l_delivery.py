"""Group L, second half: hints that come twice, starts that race, writes that fail, workers that keep dying."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flowcore import StepContext, step, workflow
from flowcore.errors import RunExists, StoreUnavailable
from flowcore.keys import RunRef, dotted
from flowcore.model import Outcome
from flowcore.testing.faults import WorkerDied
from tests.conformance.support import Harness, behaviour, differs

HOUR = timedelta(hours=1)
CALLS: list[str] = []


@pytest.fixture(autouse=True)
def _no_calls_yet() -> None:
    CALLS.clear()


def noting(id: str) -> Any:
    """A step that adds one and notes that it was called."""

    def execute(number: int) -> int:
        CALLS.append(id)
        return number + 1

    return step(id=id)(execute)


@step
def ask(number: int, ctx: StepContext[int, str]) -> int:
    """Adds what somebody answers."""
    CALLS.append("ask")
    if ctx.resume_data is None:
        ctx.suspend("how many?")
    return number + ctx.resume_data


A, B = noting("a"), noting("b")
LINE = workflow("line", input=int, output=int).then(A).then(B).commit()
ASKING = workflow("asking", input=int, output=int).then(A).then(ask).then(B).commit()


def dies_at(harness: Harness, monkeypatch: pytest.MonkeyPatch, deaths: dict[str, int]) -> None:
    """The worker dies that many times when a step (dotted id) has run and its outcome is about to be stored."""
    commit, left = harness.store.commit, dict(deaths)

    def dying(run: Any, incarnation: Any, record: Any, prior: Any) -> Any:
        id = dotted(record.key)
        if record.outcome is not Outcome.ERR and left.get(id, 0) > 0:
            left[id] -= 1
            raise WorkerDied
        return commit(run, incarnation, record, prior)

    monkeypatch.setattr(harness.store, "commit", dying)


def head_of(harness: Harness) -> Any:
    """The head of the run, as stored."""
    return harness.store.peek(RunRef("default", harness.run_id))


# -- copies -----------------------------------------------------------------------------------------------------------


@behaviour(236, "a further copy of a hint leaves a suspended run alone")
def test_236_copy_at_a_suspension(harness: Harness) -> None:
    """Its step does not run, the payload stays, an answer counts."""
    before = harness.serve(ASKING).start(1)
    harness.app.deliver(harness.run_id, twice=True)
    harness.advance(HOUR)
    assert (before, ["a", "ask"]) == (harness.result(), CALLS)
    assert "how many?" == harness.result().waits[0].payload
    assert 13 == harness.resume(10).output


@behaviour(237, "a further copy of a hint repeats no finished step")
def test_237_copy_after_the_end(harness: Harness) -> None:
    """It finds an ended run, and writes nothing."""
    harness.serve(LINE).start(1)
    before = head_of(harness)
    harness.app.deliver(harness.run_id, twice=True)
    assert (before, ["a", "b"]) == (head_of(harness), CALLS)


@behaviour(238, "a further copy of a hint does not start the next step twice")
def test_238_copy_between_steps(harness: Harness) -> None:
    """Not while that step runs, nor behind it."""

    @step
    def second(number: int, ctx: StepContext) -> int:
        CALLS.append("second")
        harness.another_process().deliver(ctx.run_id, twice=True)
        return number

    harness.serve(workflow("w", input=int).then(A).then(second).then(B))
    assert ("success", 3) == ((result := harness.start(1)).status, result.output)
    harness.app.deliver(harness.run_id, twice=True)
    assert ["a", "second", "b"] == CALLS


# -- starts -----------------------------------------------------------------------------------------------------------


def overtaken(harness: Harness, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Just before the next start is written, another process starts the same run with ``number``, to its end."""
    start = harness.store.start

    def late(head: Any) -> Any:
        monkeypatch.setattr(harness.store, "start", start)
        harness.another_process().workflow(harness.workflows[0].id).create_run(head.run.id).start(number)
        return start(head)

    monkeypatch.setattr(harness.store, "start", late)


@differs(
    239,
    "of two starts of one run one is refused",
    "the same input is the same request: it is given the run as it stands; only another input is refused",
)
def test_239_two_starts(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a race, and after the end; nothing runs twice."""
    harness.serve(LINE)
    overtaken(harness, monkeypatch, 1)
    assert ("success", True) == ((result := harness.start(1, run_id="r")).status, result.replayed)
    assert (3, True) == ((result := harness.start(1, run_id="r")).output, result.replayed)
    with pytest.raises(RunExists):
        harness.start(2, run_id="r")
    overtaken(harness, monkeypatch, 1)
    with pytest.raises(RunExists):
        harness.start(2, run_id="other")
    harness.advance()
    assert (3, ["a", "a", "b", "b"]) == (harness.result("other").output, sorted(CALLS))


@behaviour(240, "the write of a start that comes late changes no run that is under way")
def test_240_late_write_of_a_start(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while it runs, waits, or has ended."""
    first: list[Any] = []
    start = harness.store.start

    def noted(head: Any) -> Any:
        first.append(head)
        return start(head)

    @step
    def running(number: int) -> int:
        before = head_of(harness)
        assert before == harness.store.start(first[0])
        assert ("RUNNING", before) == (before.status, head_of(harness))
        return number

    monkeypatch.setattr(harness.store, "start", noted)
    harness.serve(workflow("w", input=int).then(running).then(ask)).start(1)
    for status in ("suspended", "success"):
        before = head_of(harness)
        assert before == harness.store.start(first[0])
        assert (status, before) == (harness.result().status, head_of(harness))
        if status == "suspended":
            harness.resume(1)


# -- writes -----------------------------------------------------------------------------------------------------------


@behaviour(241, "no step begins when the result of the one in front could not be stored")
def test_241_result_not_stored(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins once that is done, by whoever takes the run up."""

    def unavailable(*_: Any) -> Any:
        raise StoreUnavailable("not now")

    harness.serve(LINE)
    with monkeypatch.context() as patch:
        patch.setattr(harness.store, "commit", unavailable)
        with pytest.raises(StoreUnavailable):
            harness.start(1)
    assert ["a"] == CALLS
    harness.advance(HOUR)
    assert ("success", 3, ["a", "a", "b"]) == (harness.result().status, harness.result().output, CALLS)


@behaviour(242, "the bytes written grow with the number of steps, not with its square")
def test_242_bytes_written(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many steps, each with a large output, are twice as many bytes."""
    sizes: list[int] = []
    commit, release = harness.store.commit, harness.store.release

    def committing(run: Any, incarnation: Any, record: Any, prior: Any) -> Any:
        sizes.append(len(repr(record)))
        return commit(run, incarnation, record, prior)

    def releasing(head: Any, **options: Any) -> Any:
        sizes.append(len(repr(head)))
        return release(head, **options)

    @step
    def large(number: int) -> str:
        return str(number) * 5_000

    def written(steps: int) -> int:
        made = workflow("w", input=int)
        for index in range(steps):
            made = made.then(large, id=f"large-{index}").map(lambda _: 1, id=f"one-{index}")
        sizes.clear()
        assert "success" == harness.serve(made).start(1).status
        return sum(sizes)

    monkeypatch.setattr(harness.store, "commit", committing)
    monkeypatch.setattr(harness.store, "release", releasing)
    few, many = written(3), written(6)
    assert 15_000 < few < many < 2.1 * few


# -- workers that keep dying ------------------------------------------------------------------------------------------


@differs(
    243,
    "an event that keeps failing is tried 3 times, then the run fails, once; later copies do nothing",
    "a run is tried by five workers that die one after the other, then the step they died in fails: ExecutorCrashed",
)
def test_243_workers_keep_dying(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is told once."""
    told: list[str] = []
    made = workflow("w", input=int, on_finish=lambda result: told.append(result.status)).then(A).then(B).commit()
    harness.serve(made)
    dies_at(harness, monkeypatch, {"a": 99})
    assert "running" == harness.start(1).status
    harness.advance(3 * HOUR)
    result = harness.result()
    assert result.error is not None
    assert ("failed", "ExecutorCrashed", "a") == (result.status, result.error.type, result.error.step)
    harness.app.deliver(harness.run_id, twice=True)
    harness.advance(3 * HOUR)
    assert (result, ["failed"], 5 * ["a"]) == (harness.result(), told, CALLS)


@behaviour(244, "progress in between gives workers a fresh budget of tries")
def test_244_fresh_budget(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four deaths at one step and four at the next are not eight in a row."""
    harness.serve(LINE)
    dies_at(harness, monkeypatch, {"a": 4, "b": 4})
    harness.start(1)
    harness.advance(6 * HOUR)
    assert ("success", 3) == (harness.result().status, harness.result().output)
    assert (5, 5) == (CALLS.count("a"), CALLS.count("b"))


@differs(
    245,
    "an event without an id has a stable key for its budget of tries",
    "no message is counted, so none needs a key: the claims of a run are, and they stand in the run itself",
)
def test_245_the_budget_stands_in_the_run(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes it up next, by whatever way it was asked to, in whatever process."""
    harness.serve(LINE)
    dies_at(harness, monkeypatch, {"a": 3})
    harness.start(1)
    seen = [head_of(harness).attempts]
    for _ in range(2):
        harness.clock.forward(HOUR)
        harness.another_process().deliver(harness.run_id)
        seen.append(head_of(harness).attempts)
    assert [1, 2, 3] == seen
    harness.advance(HOUR)
    assert ("success", 0) == (harness.result().status, head_of(harness).attempts)
