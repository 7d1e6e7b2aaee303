"""``durability="boundary"``: outcomes are kept in memory and stored together when the run stops for whatever reason."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, Backoff, DefinitionError, Option, StepContext, Wait, workflow
from flowcore.adapters.memory import MemoryQueue, MemoryStore
from flowcore.keys import RunRef, StepKey
from flowcore.model import Outcome
from flowcore.pace import Pace
from flowcore.ports import RecordMoved
from flowcore.testing import FaultyStore, LocalApp, explore
from flowcore.testing.contract import noise
from flowcore.testing.faults import WRITES, Call
from flowcore.testing.invariants import WatchedStore
from tests.builders import a_record, a_step, a_workflow

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
RUN = RunRef("default", "r-1")
Build = Callable[[Any], Any]


class Ledger:
    """A store that notes each write: its verb and the outcomes it holds."""

    def __init__(self) -> None:
        self.writes: list[tuple[str, list[str]]] = []
        self.inner = WatchedStore(MemoryStore())
        self.store: Any = FaultyStore(self.inner, self._note)

    def _note(self, call: Call) -> None:
        if call.verb in WRITES:
            records = [*([call.record] if call.record else []), *call.batch]
            self.writes.append((call.verb, [f"{record.key}:{record.outcome}" for record in records]))

    @property
    def bare(self) -> list[str]:
        """The same in words."""
        return [" ".join([verb, *what]) for verb, what in self.writes]


def _app(build: Build, ledger: Ledger | None = None, **options: Any) -> tuple[LocalApp, Ledger]:
    ledger = ledger or Ledger()
    flow = a_workflow(build, durability="boundary")
    return LocalApp(App(flow), store=ledger.store, **options), ledger


def _started(build: Build, value: Any = 1, **options: Any) -> tuple[LocalApp, Ledger]:
    app, ledger = _app(build, **options)
    app.workflow("flow").create_run("r-1").start(value)
    return app, ledger


def asks(**options: Any) -> Any:
    """A step that suspends, and gives what it is answered."""
    return a_step("ask", lambda v, ctx: ctx.resume_data or ctx.suspend(**options), resume=Any)


TOLD: list[str] = []


def mail(wait: Wait[Any]) -> None:
    """Tells somebody of a suspension."""
    TOLD.append(wait.id)


def noting(calls: list[str], word: str) -> Callable[[Any], Any]:
    """A function that notes each call and gives what it takes."""

    def noted(value: Any) -> Any:
        calls.append(word)
        return value

    return noted


def three(w: Any) -> Any:
    """Three steps in a row."""
    return w.then(a_step("a")).then(a_step("b")).then(a_step("c"))


def test_a_run_without_a_stop_is_two_writes() -> None:
    """It is begun, and it has ended with all that it did."""
    app, ledger = _started(three)
    assert ["start", "release a:ok b:ok c:ok"] == ledger.bare
    assert ("success", ["a", "b", "c"]) == (app.run("r-1").result().status, list(app.run("r-1").result().steps))


def test_nested_scopes_are_stored_with_their_containers() -> None:
    """A finished container's inside is stored as well, out of the way of whoever loads the run."""
    child = a_workflow(three, "child")
    app, ledger = _started(lambda w: w.foreach(child, concurrency=2).then(asks()), [1, 2])
    assert "suspended" == app.run("r-1").result().status
    loaded = ledger.inner.load(RUN)
    assert loaded is not None
    assert {"child", "ask"} == loaded[1].keys()
    steps = app.run("r-1").result().steps
    assert {"child[0].a", "child[1].c", "child", "ask"} < steps.keys()
    assert 2 == len(ledger.writes)


@pytest.mark.parametrize(
    ("build", "last"),
    [
        (lambda w: three(w).then(asks()), "release a:ok b:ok c:ok ask:susp"),
        (lambda w: three(w).sleep(HOUR), "release a:ok b:ok c:ok sleep-after-c:slp"),
        (
            lambda w: three(w).then(a_step("x", lambda v: 1 / 0, retries=1, backoff=HOUR)),
            "release a:ok b:ok c:ok x:retry",
        ),
        (lambda w: three(w).then(a_step("x", lambda v: 1 / 0)), "release a:ok b:ok c:ok x:err"),
    ],
    ids=["suspend", "sleep", "retry", "failure"],
)
def test_it_is_stored_where_the_run_stops(build: Build, last: str) -> None:
    """One transaction with the head."""
    _, ledger = _started(build)
    assert ["start", last] == ledger.bare


def test_a_short_retry_is_no_boundary() -> None:
    """It is waited for in the process."""
    tries: list[int] = []

    def flaky(value: int, ctx: StepContext) -> int:
        tries.append(ctx.attempt)
        return value if ctx.attempt > 1 else 1 // 0

    _, ledger = _started(lambda w: w.then(a_step("x", flaky, retries=1, backoff=Backoff(SECOND / 10, jitter=False))))
    assert (["start", "release x:ok"], [1, 2]) == (ledger.bare, tries)


def test_handing_on_is_a_boundary() -> None:
    """The next worker finds what this one did."""
    app, ledger = _app(three, pace=Pace(most_turns=2))
    app.workflow("flow").create_run("r-1").start(1)
    app.advance(hours=1)
    assert ["start", "release a:ok b:ok", "claim", "release c:ok"] == ledger.bare


def test_a_crash_has_the_steps_since_the_last_boundary_run_again() -> None:
    """And none of those before it."""
    calls: list[str] = []

    def noted(id: str) -> Any:
        return a_step(id, noting(calls, id))

    app, _ = _app(lambda w: w.then(noted("a")).sleep(HOUR).then(noted("b")).then(noted("c")), pace=Pace(lease=MINUTE))
    app.crash_before("c")
    app.workflow("flow").create_run("r-1").start(1)
    app.advance(hours=3)
    assert ("success", ["a", "b", "c", "b", "c"]) == (app.run("r-1").result().status, calls)


def test_outcomes_are_kept_back_again_once_a_run_that_lost_its_worker_was_given_back() -> None:
    """Until then each is stored at once: the next worker may die at the same place."""
    app, ledger = _app(lambda w: three(w).sleep(HOUR).then(a_step("d")).then(a_step("e")), pace=Pace(lease=MINUTE))
    app.crash_before("b")
    app.workflow("flow").create_run("r-1").start(1)
    app.advance(hours=3)
    slept, last = "release sleep-after-c:slp", "release d:ok e:ok"
    told = [write for write in ledger.bare if write.startswith("release")]
    assert ["release a:ok", "release b:ok", "release c:ok", slept, "release", last] == told


def test_an_open_question_is_stored_before_others_go_on() -> None:
    """Somebody can answer while a branch beside it is still at work."""
    seen: list[Any] = []

    def sees(value: int) -> int:
        seen.append(app.run("r-1").result().waits)
        return value

    late = a_step("late", sees)
    slow = a_workflow(lambda w: w.then(a_step("first")).then(late), "slow")
    app, ledger = _app(lambda w: w.parallel(asks(), slow))
    app.workflow("flow").create_run("r-1").start(1)
    assert ["ask"] == [".".join(wait.path) for wait in seen[0]]
    assert any("ask:susp" in write for write in ledger.bare)


def test_whoever_must_answer_is_told_after_the_question_is_stored() -> None:
    """The link in the mail leads somewhere."""
    step = a_step("ask", lambda v, ctx: ctx.resume_data or ctx.suspend(notify=mail), resume=Any)
    app, ledger = _started(lambda w: w.then(a_step("a")).then(step))
    assert ["start", "release a:ok ask:susp", "commit ask!told@0.0:ok", "release"] == ledger.bare
    assert ["ask@0"] == TOLD
    assert "success" == app.resume("r-1", "yes").status


def test_an_event_that_came_before_is_taken() -> None:
    """The question is stored before the mail is looked through."""
    app, _ = _app(lambda w: w.then(a_step("a")).wait_for_event("paid", key="k"))
    app.send_event("paid", "k", 7)
    result = app.workflow("flow").create_run("r-1").start(1)
    app.run_until_idle()
    assert ("success", 7) == (app.run("r-1").result().status, app.run("r-1").result().output)
    assert result.run_id == "r-1"


def test_an_event_for_one_of_several_things_is_taken() -> None:
    """Each of the things that a step waits for counts."""

    def either(value: Any, ctx: StepContext[Any, Any]) -> Any:
        if ctx.resume_data is None:
            ctx.suspend_any([Option("human"), Option("paid", key="k")])
        return ctx.resume_data

    app, _ = _app(lambda w: w.then(a_step("a")).then(a_step("either", either, resume=Any)))
    app.send_event("paid", "k", 7)
    app.workflow("flow").create_run("r-1").start(1)
    app.run_until_idle()
    assert ("success", 7) == (app.run("r-1").result().status, app.run("r-1").result().output)


def test_an_answer_that_came_before_is_taken() -> None:
    """The question is stored before what was kept for it is looked through."""
    app, ledger = _app(lambda w: w.sleep(HOUR).then(a_step("a")).then(asks()))
    run = app.workflow("flow").create_run("r-1")
    run.start(1)
    run.resume("yes", step="ask", keep=2 * HOUR)
    app.advance(hours=1)
    assert ("success", "yes") == (run.result().status, run.result().output)
    assert ["applied"] == [receipt.verdict for receipt in run.receipts()]
    told = [write for write in ledger.bare if "ask:" in write]
    assert ["release a:ok ask:susp", "resume ask:resu", "release ask:ok"] == told


def test_what_must_not_be_repeated_is_stored_at_once() -> None:
    """A step that runs at most once, before and after it; and what ``ctx.once`` has done."""
    careful = a_step("pay", semantics="at_most_once")
    once = a_step("mail", lambda v, ctx: ctx.once("sent", lambda: v))
    _, ledger = _started(lambda w: w.then(a_step("a")).then(careful).then(once))
    assert [
        "start",
        "release a:ok pay:start",
        "release pay:ok",
        "commit mail!sent:ok",
        "release mail:ok",
    ] == ledger.bare


def test_what_once_did_inside_a_container_is_found_after_a_crash() -> None:
    """The container is stored first: nobody loads the inside of one that nobody knows to be open."""
    calls: list[str] = []
    inner = a_workflow(
        lambda w: w.then(a_step("x", lambda v, ctx: ctx.once("k", lambda: noting(calls, "paid")("r")))), "inner"
    )
    app, _ = _app(lambda w: w.then(inner).then(a_step("y")), pace=Pace(lease=MINUTE))
    app.crash_before("y")
    app.workflow("flow").create_run("r-1").start(1)
    app.advance(hours=1)
    assert ("success", ["paid"]) == (app.run("r-1").result().status, calls)


def test_no_more_is_kept_back_than_fits_into_one_write() -> None:
    """48 outcomes, or a quarter of a megabyte."""
    _, ledger = _started(lambda w: w.foreach(a_step("x"), concurrency=1), list(range(60)))
    assert [48, 14] == [len(what) for verb, what in ledger.writes if verb == "release"]
    _, ledger = _started(three, noise(200_000))
    assert ["start", "release a:ok b:ok c:ok", "release"] == ledger.bare


def test_a_value_that_is_too_large_fails_its_own_step() -> None:
    """When it comes out, not when it is stored."""
    app, _ = _started(lambda w: w.then(a_step("a")).then(a_step("big", lambda v: "x" * 400_000)).then(a_step("c")))
    result = app.run("r-1").result()
    assert ("failed", "PayloadTooLarge", "big") == (
        result.status,
        result.error and result.error.type,
        result.error and result.error.step,
    )


def test_an_answer_that_comes_meanwhile_loses_nothing() -> None:
    """The head moves while outcomes are kept back: they are stored under the new one, and the answer is heeded."""
    calls: list[str] = []

    def answers(value: int) -> int:
        calls.append("work")
        if len(calls) == 1:
            app.resume("r-1", "yes")
        return value

    later = a_workflow(lambda w: w.sleep(HOUR).then(a_step("work", answers)), "later")
    app, ledger = _app(lambda w: w.parallel(asks(), later), queue=None)
    app.workflow("flow").create_run("r-1").start(1)
    app.advance(hours=2)
    result = app.run("r-1").result()
    assert ("success", {"ask": "yes", "later": 1}, ["work"]) == (result.status, result.output, calls)
    ledger.inner.audit(RUN)


def test_a_record_that_somebody_else_has_written_is_believed() -> None:
    """A worker that was given up, of a deployment that stored each outcome, was faster: what it stored stands."""

    class Outrun(MemoryStore):
        def release(self, head: Any, *, epoch: int, version: int, batch: Any = ()) -> Any:
            if batch and (RUN, "b") not in seen:
                seen.append((RUN, "b"))
                other = a_record("b", Outcome.OK, output="other", seq=9)
                self.commit(head.run, 1, other, None)
                return RecordMoved(other)
            return super().release(head, epoch=epoch, version=version, batch=batch)

    seen: list[Any] = []
    flow = a_workflow(three, durability="boundary")
    result = LocalApp(App(flow), store=Outrun()).workflow("flow").create_run("r-1").start(1)
    assert ("success", "other") == (result.status, result.output)


def test_what_may_run_once_is_not_called_again_where_what_it_came_to_could_not_be_stored() -> None:
    """A worker that was given up has stored what is kept back beside it: all of that is lost, and it is in doubt."""

    class Outrun(MemoryStore):
        def release(self, head: Any, *, epoch: int, version: int, batch: Any = ()) -> Any:
            if not seen and any((record.key, record.outcome) == ("pay", Outcome.OK) for record, _ in batch):
                seen.append("pay")
                other = a_record("b", Outcome.OK, output="other", seq=9, epoch=0)
                self.commit(head.run, 1, other, None)
                return RecordMoved(other)
            return super().release(head, epoch=epoch, version=version, batch=batch)

    seen, calls = list[str](), list[str]()
    pay = a_step("pay", noting(calls, "pay"), semantics="at_most_once")
    flow = a_workflow(lambda w: w.parallel(a_step("b"), pay), durability="boundary")
    result = LocalApp(App(flow), store=Outrun()).workflow("flow").create_run("r-1").start(1)
    assert (["pay"], "MayHaveRun") == (calls, result.error and result.error.type)


def test_nested_workflows_follow_the_run() -> None:
    """What a workflow says counts for its own runs."""
    hasty = a_workflow(three, "hasty", durability="boundary")
    ledger = Ledger()
    LocalApp(App(a_workflow(lambda w: w.then(hasty))), store=ledger.store).workflow("flow").create_run("r-1").start(1)
    assert ["start", *["commit"] * 5, "release"] == [verb for verb, _ in ledger.writes]


def test_one_step_at_a_time_is_stored_at_each_pause() -> None:
    """``per_step`` pauses, which is a boundary."""
    app, ledger = _app(three)
    app.workflow("flow").create_run("r-1").start(1, per_step=True)
    app.run("r-1").unpause(per_step=True)
    assert ["start", "release a:ok", "move", "claim", "release b:ok"] == ledger.bare


@pytest.mark.slow
@pytest.mark.gate
def test_it_becomes_the_same_under_every_fault() -> None:
    """Steps may run more often; what becomes of the run is what becomes of it step by step."""
    child = a_workflow(three, "child")

    def build(w: Any) -> Any:
        return w.then(a_step("a")).parallel(asks(), child).sleep(HOUR).then(a_step("z"))

    told = [
        explore(a_workflow(build, durability=durability), 1, answers={"ask": "yes"}).result
        for durability in ("step", "boundary")
    ]
    assert told[0].output == told[1].output
    assert {id: step.output for id, step in told[0].steps.items()} == {
        id: step.output for id, step in told[1].steps.items()
    }


def test_a_queue_changes_nothing() -> None:
    """Workers that only look find the same."""
    clockless = Ledger()
    app, _ = _app(three, clockless)
    queued = LocalApp(app, store=clockless.store, clock=app.clock, queue=MemoryQueue(app.clock))
    queued.workflow("flow").create_run("r-1").start(1)
    queued.run_until_idle()
    assert ["start", "claim", "release a:ok b:ok c:ok"] == clockless.bare
    assert StepKey("a") in (clockless.inner.load(RUN) or ((), {}))[1]


def test_another_word_for_it_is_refused() -> None:
    """The author learns which there are."""
    with pytest.raises(DefinitionError, match=r"durability='never' is none of step, boundary"):
        workflow("w", durability="never").then(a_step("a")).commit()  # type: ignore[call-overload]
