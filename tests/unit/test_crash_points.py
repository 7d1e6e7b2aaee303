"""Each point at which something can die, and each pair that can race: one test with its name.

``POINTS`` at the end is the whole list; what is shown elsewhere is named there, and the list is held to the tests that
exist.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flowcore import App, Backoff, StepContext, step, workflow
from flowcore.adapters.memory import MemoryQueue, MemoryScheduler, MemoryStore
from flowcore.authoring.workflow import Workflow
from flowcore.errors import AlreadyResumed, DefinitionChanged, InvalidPayload, RunFinished, RunNotFound
from flowcore.keys import RunRef
from flowcore.ports import Hint
from flowcore.testing import FaultyStore, LocalApp, ShiftedClock, Strike, VirtualClock, WorkerDied
from flowcore.testing.faults import WRITES, Call, Fault
from flowcore.testing.invariants import WatchedStore
from flowcore.testing.schedule import Blow
from flowcore.testing.trial import Asked, Trial

ROOT = Path(__file__).resolve().parents[2]
REF = RunRef("default", "r")
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
RAN: Counter[str] = Counter()
"""How often each step began."""


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing has run yet."""
    RAN.clear()


@step
def charge(amount: int) -> int:
    """Before the sleep."""
    RAN["charge"] += 1
    return amount


@step
def ask(amount: int, ctx: StepContext[int]) -> int:
    """Waits for a number."""
    return ctx.suspend() if ctx.resume_data is None else amount


@step(retries=1, backoff=Backoff(initial=DAY, maximum=DAY, jitter=False))
def fails_once(amount: int, ctx: StepContext) -> int:
    """The first try, that is."""
    if ctx.attempt == 1:
        raise ConnectionError
    return amount


@step
def approve(amount: int, ctx: StepContext[int, int]) -> int:
    """Waits for a number, a day at most."""
    RAN["approve"] += 1
    if ctx.timed_out:
        return -1
    if ctx.resume_data is None:
        ctx.suspend(amount, timeout=DAY)
    return ctx.resume_data


@step
def ship(amount: int) -> int:
    """After the answer."""
    RAN["ship"] += 1
    return amount + 1


ORDER = workflow("order", input=int, output=int).then(charge).sleep(40 * DAY).then(approve).then(ship).commit()
ASKING = workflow("order", input=int, output=int).then(approve).then(ship).commit()


def survived(blow: Blow, event: str, *, number: int = 1) -> Counter[str]:
    """How often the steps of ``ORDER`` began, when this strikes the write or hint of that name; the end is the same."""
    asked = Asked(ORDER, 1, {}, {"approve": 5}, None, None, None, 0, MemoryStore)
    usual = Trial(asked, ()).ending()
    events = usual.course.hints if blow.startswith("hint") else usual.course.writes
    at = [place for place, name in enumerate(events, 1) if name.startswith(event)][number - 1]
    ending = Trial(asked, (Strike(blow, at),)).ending()
    assert [] == ending.differences(usual)
    return ending.calls


ONCE = Counter(charge=1, approve=2, ship=1)
"""``approve`` begins, and again with its answer."""

# -- somebody dies -----------------------------------------------------------------------------------------------------


def test_crash_before_a_step() -> None:
    """It has not run, and is run by another worker."""
    assert survived("dies-after", "start") == ONCE


def test_crash_after_a_step_before_its_commit() -> None:
    """It runs again: at least once is what is promised of it."""
    assert survived("dies-before", "commit of 'charge'") == ONCE + Counter(charge=1)


def test_crash_after_the_commit() -> None:
    """It does not run again."""
    assert survived("dies-after", "commit of 'charge'") == ONCE


def test_crash_before_the_release() -> None:
    """The next worker finds nothing to do but to release."""
    assert survived("dies-before", "release") == ONCE


def test_crash_after_the_release_before_the_hint() -> None:
    """The sweeper sends it."""
    assert survived("dies-after", "release") == ONCE


def test_worker_is_stopped_in_the_middle_of_a_step() -> None:
    """As Lambda does at its timeout: what the step has begun it begins again, under the same key."""
    tries: list[str] = []

    @step
    def slow(amount: int, ctx: StepContext) -> int:
        tries.append(ctx.idempotency_key)
        if len(tries) == 1:
            raise WorkerDied("out of time")
        return amount

    app = LocalApp(App(workflow("w", input=int, output=int).then(slow).commit()))
    run = app.workflow("w").create_run("r")
    assert "running" == run.start(1).status
    app.advance(minutes=17)
    assert (1, ["r/slow", "r/slow"]) == (run.result().output, tries)


def test_frozen_worker_thaws_after_its_lease() -> None:
    """Another one has gone on; the first writes nothing more, and begins nothing more."""
    assert survived("taken-over", "commit of 'ship'") == ONCE + Counter(ship=1)


# -- the store ---------------------------------------------------------------------------------------------------------


def test_write_committed_and_reply_lost() -> None:
    """The worker gives up; the next one finds what it has written."""
    assert survived("reply-lost", "commit of 'charge'") == ONCE
    assert survived("reply-lost", "resume") == ONCE


def test_store_is_throttled() -> None:
    """For longer than the adapter tries."""
    assert survived("throttled", "commit of 'charge'") == ONCE + Counter(charge=1)


def test_store_fails() -> None:
    """Without a word whether it has happened; here it has not."""
    assert survived("fails", "release", number=2) == ONCE


def test_transaction_meets_a_conflict() -> None:
    """Somebody else was faster with the same head: look again, and go on."""
    assert survived("conflict", "release") == ONCE
    assert survived("conflict", "resume") == ONCE


# -- hints -------------------------------------------------------------------------------------------------------------

SLEEP = "of 40 days"


def test_scheduler_fires_twice() -> None:
    """The second finds the run elsewhere."""
    assert survived("hint-doubled", SLEEP) == ONCE


def test_scheduler_fires_early() -> None:
    """The run sleeps on; another hint is sent."""
    assert survived("hint-early", SLEEP) == ONCE


def test_scheduler_fires_late() -> None:
    """The sweeper is faster."""
    assert survived("hint-late", SLEEP) == ONCE


def test_scheduler_never_fires() -> None:
    """The sweeper finds the run."""
    assert survived("hint-lost", SLEEP) == ONCE


class DeafScheduler(MemoryScheduler):
    """Forgets nothing that it is told to forget."""

    def unschedule(self, run: RunRef, *, version: int) -> None:
        """See ``Scheduler.unschedule``: best effort, and here the best is nothing."""


def test_scheduler_fires_after_the_cancel() -> None:
    """A canceled run stays as it is."""
    app = LocalApp(App(ORDER), scheduler=DeafScheduler())
    run = app.workflow("order").create_run("r")
    run.start(1)
    run.cancel()
    version = app.engine.peek(REF).version
    app.advance(days=41)
    assert ("canceled", version) == (run.result().status, app.engine.peek(REF).version)


def test_scheduler_fires_for_an_older_sleep() -> None:
    """The run is in another sleep by then, and sleeps on."""
    naps = workflow("naps", input=int, output=int).sleep(DAY).then(ship).sleep(DAY, id="again").commit()
    app = LocalApp(App(naps))
    run = app.workflow("naps").create_run("r")
    run.start(1)
    app.advance(days=1)
    before = app.engine.peek(REF)
    app.scheduler.schedule(Hint(run=REF, at=app.clock.now() + MINUTE), version=1)  # type: ignore[union-attr]
    app.advance(minutes=2)
    assert before == app.engine.peek(REF)
    app.advance(days=1)
    assert (2, 1) == (run.result().output, RAN["ship"])


# -- races -------------------------------------------------------------------------------------------------------------


@dataclass
class Race:
    """A run of ``ASKING``, and what somebody else does just before a call of the first one to the store."""

    flow: Workflow[Any, Any] = ASKING
    queued: bool = False
    at: str = ""
    """The verb of the call, once set."""
    between: Callable[[], object] = lambda: None
    clock: VirtualClock = field(default_factory=VirtualClock)

    def __post_init__(self) -> None:
        memory = WatchedStore(MemoryStore(), {self.flow.id: self.flow.compiled})
        scheduler = MemoryScheduler()
        queue = MemoryQueue(self.clock) if self.queued else None
        given: dict[str, Any] = {"clock": self.clock, "scheduler": scheduler, "queue": queue}
        self.one = LocalApp(App(self.flow), store=FaultyStore(memory, self._script), **given)
        self.other = LocalApp(App(self.flow), store=memory, **given)
        self.run = self.one.workflow(self.flow.id).create_run("r")
        self.memory = memory

    def _script(self, call: Call) -> Fault | None:
        if call.verb == self.at:
            self.at = ""
            self.between()
        return None

    def at_the(self, verb: str, between: Callable[[], object]) -> None:
        """From now on: at the next such call, this comes first."""
        self.at, self.between = verb, between

    def ended(self) -> tuple[str, Any]:
        """Status and output when all is over; nothing has been written that must not be."""
        self.other.advance(days=90)
        self.memory.audit(REF)
        result = self.other.run("r").result()
        return result.status, result.output


def test_two_resumes() -> None:
    """The second comes in the middle of the first and wins; the first is told by whom it was beaten."""
    race = Race()
    race.run.start(1)
    race.at_the("resume", lambda: race.other.resume("r", 7, by="ada"))
    with pytest.raises(AlreadyResumed, match="ada"):
        race.one.resume("r", 5, by="grace")
    assert ("success", 8) == race.ended()


def test_resume_while_another_branch_runs() -> None:
    """The worker that runs it sees the answer before it lets go."""
    race: Race

    @step
    def answers(amount: int) -> int:
        race.other.resume("r", 7)
        return amount

    later = workflow("later", input=int, output=int).sleep(DAY / 2).then(answers).commit()
    race = Race(workflow("order", input=int).parallel(approve, later).commit())
    race.run.start(1)
    assert ("success", {"approve": 7, "later": 1}) == race.ended()


@pytest.mark.parametrize("first", ["wake", "resume"])
def test_resume_races_the_wake(first: str) -> None:
    """Another branch wakes at that instant: both are done, in whichever order."""
    nap = workflow("nap", input=int, output=int).sleep(DAY / 2).then(ship).commit()
    race = Race(workflow("order", input=int).parallel(approve, nap).commit())
    race.run.start(1)
    race.clock.forward(DAY / 2)
    if first == "wake":
        race.at_the("resume", lambda: race.other.look(REF))
        race.one.resume("r", 7)
    else:
        race.at_the("claim", lambda: race.other.resume("r", 7))
        race.one.look(REF)
    assert ("success", {"approve": 7, "nap": 2}) == race.ended()


@pytest.mark.parametrize("first", ["cancel", "resume"])
def test_resume_races_the_cancel(first: str) -> None:
    """A cancel in the middle of an answer refuses it; an answer in the middle of a cancel is canceled with its run."""
    race = Race(queued=True)
    race.run.start(1)
    race.other.run_until_idle()
    if first == "cancel":
        race.at_the("resume", lambda: race.other.cancel("r"))
        with pytest.raises(RunFinished, match="canceled"):
            race.one.resume("r", 7)
    else:
        race.at_the("cancel", lambda: race.other.resume("r", 7))
        assert "canceled" == race.one.cancel("r").status
    assert ("canceled", None) == race.ended()
    assert 0 == RAN["ship"]


@pytest.mark.parametrize("first", ["timeout", "resume"])
def test_resume_races_the_timeout(first: str) -> None:
    """One of them settles the suspension, and the other learns it."""
    race = Race()
    race.run.start(1)
    race.clock.forward(DAY)
    if first == "timeout":
        race.at_the("resume", lambda: race.other.look(REF))
        with pytest.raises(AlreadyResumed, match="timeout"):
            race.one.resume("r", 7)
        assert ("success", 0) == race.ended()
    else:
        race.at_the("commit", lambda: race.other.resume("r", 7))
        race.one.look(REF)
        assert ("success", 8) == race.ended()


def test_duplicate_queue_delivery() -> None:
    """The copy comes while the first is being worked on, and is dropped."""
    race = Race(ORDER, queued=True)
    race.run.start(1)
    race.at_the("commit", lambda: race.other.look(REF))
    race.one.look(REF)
    race.other.deliver("r", twice=True)
    assert 1 == RAN["charge"]


def test_concurrent_invocations_of_one_run() -> None:
    """Whenever another one looks, the run is held: every step runs as often as it must."""
    calls: list[str] = []

    def look(call: Call) -> Fault | None:
        calls.append(call.verb)
        if call.verb in WRITES:
            other.look(REF)
        return None

    memory, clock = MemoryStore(), VirtualClock()
    app = LocalApp(App(ORDER), store=FaultyStore(memory, look), clock=clock, scheduler=MemoryScheduler())
    other = LocalApp(App(ORDER), store=memory, clock=clock, scheduler=MemoryScheduler())
    run = app.workflow("order").create_run("r")
    run.start(1)
    app.advance(days=40)
    app.resume("r", 5)
    assert (6, ONCE) == (run.result().output, RAN)
    assert len(calls) > 8


def test_one_branch_is_suspended_and_others_are_done_or_asleep() -> None:
    """The run waits for the sleep and shows the suspension; afterwards only the suspension is left."""
    nap = workflow("nap", input=int, output=int).sleep(DAY / 2).commit()
    app = LocalApp(App(workflow("order", input=int).parallel(approve, ship, nap).commit()))
    run = app.workflow("order").create_run("r")
    first = run.start(1)
    app.advance(DAY / 2)
    after = run.result()
    assert (("waiting", ["approve"]), ("suspended", ["approve"])) == (
        (first.status, [wait.path[-1] for wait in first.waits]),
        (after.status, [wait.path[-1] for wait in after.waits]),
    )
    assert {"approve": 7, "ship": 2, "nap": 1} == app.resume("r", 7).output


# -- deploys -----------------------------------------------------------------------------------------------------------


def deployed(flow: Workflow[Any, Any]) -> LocalApp:
    """``ASKING`` has suspended; then this is served in its place, under the same id."""
    clock, store = VirtualClock(), MemoryStore()
    LocalApp(App(ASKING), store=store, clock=clock).workflow("order").create_run("r").start(1)
    return LocalApp(App(flow), store=store, clock=clock)


def test_resume_schema_is_changed_by_a_deploy() -> None:
    """The answer must fit what is deployed today; one that does not leaves the run as it was."""

    @step(id="approve")
    def asks_for_words(amount: int, ctx: StepContext[list[str], int]) -> int:
        return len(ctx.resume_data or [])

    app = deployed(workflow("order", input=int, output=int).then(asks_for_words).then(ship).commit())
    with pytest.raises(InvalidPayload):
        app.resume("r", 7)
    assert 3 == app.resume("r", ["a", "b"]).output


def test_step_schema_is_changed_by_a_deploy() -> None:
    """What was stored does not fit today's step: the run fails there, and says so."""

    @step(id="ship")
    def ships_words(words: str) -> int:
        return len(words)

    flow: Any = workflow("order", input=int).then(approve)
    result = deployed(flow.map(lambda n: n, id="as_it_was").then(ships_words).commit()).resume("r", 7)
    assert ("failed", "ship") == (result.status, result.error.step if result.error else None)


@pytest.mark.parametrize(
    "flow",
    [
        workflow("order", input=int, output=int).then(ship).commit(),
        workflow("order", input=int, output=int).then(approve.clone(id="agree")).then(ship).commit(),
    ],
    ids=["removed", "renamed"],
)
def test_step_is_removed_or_renamed_while_suspended(flow: Workflow[Any, Any]) -> None:
    """The answer is refused, and not used up: with the step back the run takes it."""
    app = deployed(flow)
    with pytest.raises(DefinitionChanged, match="approve"):
        app.resume("r", 7)
    assert 8 == LocalApp(App(ASKING), store=app.store, clock=app.clock).resume("r", 7).output


def test_steps_are_reordered_while_suspended() -> None:
    """The suspended one is where it is, by its id; what stands in front of it now counts as passed."""
    result = deployed(workflow("order", input=int, output=int).then(ship).then(approve).commit()).resume("r", 7)
    assert ("success", 7, 0) == (result.status, result.output, RAN["ship"])


# -- the world ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", ["deleted", "never there"])
def test_hint_for_a_run_that_is_gone(gone: str) -> None:
    """There is nothing to do, and nobody fails for it."""
    app = LocalApp(App(ORDER), scheduler=DeafScheduler())
    if gone == "deleted":
        run = app.workflow("order").create_run("r")
        run.start(1)
        run.delete()
    assert app.look(REF) is None
    app.advance(days=41)
    with pytest.raises(RunNotFound):
        app.run("r").result()


@pytest.mark.parametrize("minutes", [-10, 10])
def test_clock_is_off_by_ten_minutes(minutes: int) -> None:
    """On one of two machines: each step runs as often as it must, and the run's own time never goes back."""
    clock = VirtualClock()
    store = MemoryStore()
    wrong: Any = ShiftedClock(clock, timedelta(minutes=minutes))
    apps = [LocalApp(App(ORDER), store=store, clock=each) for each in (clock, wrong)]
    run = apps[1].workflow("order").create_run("r")
    run.start(1)
    for turn in range(4):
        apps[turn % 2].look(REF)
    clock.forward(40 * DAY + timedelta(minutes=11))
    for turn in range(4):
        apps[turn % 2].look(REF)
    apps[0].resume("r", 5)
    assert (6, ONCE) == (run.result().output, RAN)


WAITS: dict[str, Callable[[Any], Any]] = {
    "a deadline": lambda flow: flow.then(approve),
    "a sleep": lambda flow: flow.sleep(DAY),
    "an event": lambda flow: flow.wait_for_event("paid", key="k", timeout=DAY, on_timeout=-1, model=int),
    "a retry": lambda flow: flow.then(fails_once),
}


@pytest.mark.parametrize("kind", WAITS)
def test_pause_is_not_too_short_where_another_clock_is_ahead(kind: str) -> None:
    """By whose time the run goes on: a pause that begins after that is as long as it says, or longer, never over."""
    clock, store = VirtualClock(), MemoryStore()
    flow = WAITS[kind](workflow("order", input=int, output=int).then(ask)).commit()
    fast: Any = ShiftedClock(clock, 2 * DAY)
    LocalApp(App(flow), store=store, clock=fast).workflow("order").create_run("r").start(1)
    app = LocalApp(App(flow), store=store, clock=clock)
    app.resume("r", 1)
    began = clock.now()
    app.advance(hours=23)
    assert app.run("r").result().status in ("suspended", "waiting")
    app.advance(days=4)
    assert "success" == app.run("r").result().status
    assert app.run("r").result().updated_at - began >= DAY


def test_clock_goes_back_under_a_worker() -> None:
    """By ten minutes, in the middle of its work."""
    assert survived("clock-back", "commit of 'charge'") == ONCE
    assert survived("clock-back", "claim") == ONCE


def test_index_lags_behind() -> None:
    """What the sweeper is told of is five minutes old."""
    assert survived("index-late", "start") == ONCE


# -- the list ----------------------------------------------------------------------------------------------------------

HERE = "tests/unit/test_crash_points.py"
POINTS = {
    "crash before a step": "test_crash_before_a_step",
    "crash after a step, before its commit": "test_crash_after_a_step_before_its_commit",
    "crash after the commit": "test_crash_after_the_commit",
    "crash before the release": "test_crash_before_the_release",
    "crash after the release, before the hint": "test_crash_after_the_release_before_the_hint",
    "scheduler fires twice": "test_scheduler_fires_twice",
    "scheduler fires early": "test_scheduler_fires_early",
    "scheduler fires late": "test_scheduler_fires_late",
    "scheduler never fires": "test_scheduler_never_fires",
    "scheduler fires after a cancel": "test_scheduler_fires_after_the_cancel",
    "scheduler fires for an older sleep": "test_scheduler_fires_for_an_older_sleep",
    "two resumes": "test_two_resumes",
    "resume while another branch runs": "test_resume_while_another_branch_runs",
    "resume and wake": "test_resume_races_the_wake",
    "resume and cancel": "test_resume_races_the_cancel",
    "resume and timeout": "test_resume_races_the_timeout",
    "duplicate delivery": "test_duplicate_queue_delivery",
    "concurrent invocations": "test_concurrent_invocations_of_one_run",
    "stopped in the middle of a step": "test_worker_is_stopped_in_the_middle_of_a_step",
    "frozen worker thaws": "test_frozen_worker_thaws_after_its_lease",
    "one branch suspended, others done or asleep": "test_one_branch_is_suspended_and_others_are_done_or_asleep",
    "reply lost": "test_write_committed_and_reply_lost",
    "throttling": "test_store_is_throttled",
    "server error": "test_store_fails",
    "transaction conflict": "test_transaction_meets_a_conflict",
    "output over 64 KB": "tests/unit/test_large_values.py::test_output_lies_in_the_blob_store_and_goes_on",
    "output over 400 KB": "tests/unit/test_large_values.py::test_without_blobs_the_limit_is_that_of_an_item",
    "output over the limit": (
        "tests/unit/test_large_values.py::test_output_over_the_limit_fails_its_step_before_anything_is_written"
    ),
    "blob missing or altered": ("tests/unit/test_large_values.py::test_lost_blob_blocks_the_run_until_it_is_restored"),
    "output that is not JSON": "tests/unit/test_bad_input.py::test_what_is_not_json_fails_the_step_that_gave_it",
    "step schema changed": "test_step_schema_is_changed_by_a_deploy",
    "resume schema changed": "test_resume_schema_is_changed_by_a_deploy",
    "step removed": "test_step_is_removed_or_renamed_while_suspended",
    "step renamed": "test_step_is_removed_or_renamed_while_suspended",
    "step reordered": "test_steps_are_reordered_while_suspended",
    "unknown workflow": "tests/unit/test_engine_runs.py::test_a_workflow_that_is_not_served_blocks_its_runs",
    "deleted run": "test_hint_for_a_run_that_is_gone",
    "expired run": "tests/unit/test_retention.py::test_an_expired_run_counts_as_gone_before_anybody_removed_it",
    "clock off by ten minutes": "test_clock_is_off_by_ten_minutes",
    "clock goes back": "test_clock_goes_back_under_a_worker",
    "index lags": "test_index_lags_behind",
    "part of a batch fails": "tests/e2e/test_local_stack.py::test_partial_failure_redelivers_only_the_failed",
    "sweeper down for an hour": (
        "tests/property/test_recovery.py::test_nothing_is_lost_with_the_sweeper_down_for_an_hour"
    ),
    "a run moves again soon": (
        "tests/property/test_recovery.py::test_ninety_seconds_after_any_crash_the_run_moves_again"
    ),
    "a lost hint": "tests/property/test_recovery.py::test_a_lost_hint_costs_at_most_150_seconds",
    "same id twice": "tests/unit/test_bad_input.py::test_an_id_used_twice_is_refused",
}


@pytest.mark.parametrize("point", POINTS)
def test_each_crash_point_has_a_test(point: str) -> None:
    """Of that name, in that file."""
    path, _, name = POINTS[point].rpartition("::")
    source = ast.parse((ROOT / (path or HERE)).read_text("utf-8"))
    assert name in [node.name for node in ast.walk(source) if isinstance(node, ast.FunctionDef)]
