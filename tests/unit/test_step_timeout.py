"""How long a try of a step may take: what is committed at the deadline, and what the straggler may still do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from flowcore import App, Backoff, DefinitionError, StepContext, create_step, step, workflow
from flowcore.adapters.memory import MemoryQueue
from flowcore.crew import Crew, EventLoop
from flowcore.errors import StepTimeout
from flowcore.keys import RunRef
from flowcore.testing import LocalApp, VirtualClock

PATIENCE_S = 20.0
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
FIXED = Backoff(initial=timedelta(milliseconds=100), jitter=False)
RUN = RunRef("default", "r-1")


def a_local(build: Callable[[Any], Any], clock: VirtualClock | None = None, **options: Any) -> LocalApp:
    """A LocalApp that serves the workflow ``flow``."""
    return LocalApp(App(build(workflow("flow", **options)).commit()), clock=clock or VirtualClock())


def start(app: LocalApp, value: Any = 1) -> Any:
    """Its run ``r-1``, as it stands after the call."""
    return app.workflow("flow").create_run("r-1").start(value)


@dataclass
class Slow:
    """A step's function that takes ``takes`` of virtual time on its first ``slow`` tries."""

    clock: VirtualClock
    takes: timedelta = 2 * MINUTE
    slow: int = 10**9
    tries: list[int] = field(default_factory=list)
    after: Callable[[StepContext], Any] = lambda _: None
    """What it does once its time is over."""

    def __call__(self, value: Any, ctx: StepContext) -> Any:
        """Give the value back, late or in time."""
        self.tries.append(ctx.attempt)
        if len(self.tries) <= self.slow:
            self.clock.forward(self.takes)
        self.after(ctx)
        return value


def timed(execute: Callable[..., Any], timeout: timedelta = MINUTE, **options: Any) -> Any:
    """A step ``slow`` with a timeout."""
    return create_step(id="slow", execute=execute, timeout=timeout, **options)


# -- the outcome ------------------------------------------------------------------------------------------------------


def test_a_late_try_fails_as_a_step_timeout() -> None:
    """The step, the run and the stored failure say so, with the place and what to do."""
    clock = VirtualClock()
    result = start(a_local(lambda w: w.then(timed(Slow(clock))), clock))
    assert ("failed", "failed") == (result.status, result.steps["slow"].status)
    assert ("StepTimeout", "slow", {"timeout_s": 60.0}) == (
        result.error.type,
        result.error.step,
        result.error.properties,
    )
    assert "Try 1 of 1 of step 'slow' did not end within its timeout of 60 seconds." in result.error.message


@pytest.mark.parametrize(("takes", "status"), [(59, "success"), (60, "failed")])
def test_a_try_is_late_from_its_deadline_on(takes: int, status: str) -> None:
    """What ends exactly then is late, so that two clocks cannot disagree about it."""
    clock = VirtualClock()
    result = start(a_local(lambda w: w.then(timed(Slow(clock, takes=takes * SECOND))), clock))
    assert status == result.status


def test_a_late_try_is_repeated_like_any_failure() -> None:
    """Each try has the whole time for itself."""
    clock = VirtualClock()
    slow = Slow(clock, slow=2)
    app = a_local(lambda w: w.then(timed(slow, retries=2, backoff=FIXED)), clock)
    result = start(app)
    assert ("success", 1, [1, 2, 3], 3) == (result.status, result.output, slow.tries, result.steps["slow"].attempts)


@pytest.mark.parametrize(
    ("options", "tries"),
    [
        ({"no_retry_on": (StepTimeout,)}, [1]),
        ({"no_retry_on": (TimeoutError,)}, [1]),
        ({"retry_on": (ValueError,)}, [1]),
        ({"retry_on": (StepTimeout,)}, [1, 2]),
        ({"retry_on": (TimeoutError,)}, [1, 2]),
    ],
)
def test_a_timeout_is_retried_as_the_filters_say(options: Any, tries: list[int]) -> None:
    """It is an exception like another: by its own class, or as the built-in ``TimeoutError``."""
    clock = VirtualClock()
    slow = Slow(clock)
    start(a_local(lambda w: w.then(timed(slow, retries=1, backoff=FIXED, **options)), clock))
    assert tries == slow.tries


class Ruling(BaseModel):
    """What a step gives."""

    approved: bool
    by: str = "nobody"


def test_on_timeout_is_the_output_after_the_last_try() -> None:
    """A plain value, validated against the output type; the next step cannot tell it from another."""
    clock = VirtualClock()
    slow = Slow(clock)
    late = timed(slow, retries=1, backoff=FIXED, output=Ruling, on_timeout={"approved": False})
    result = start(a_local(lambda w: w.then(late), clock, output=Ruling))
    assert ("success", Ruling(approved=False), [1, 2]) == (result.status, result.output, slow.tries)
    assert {"approved": False, "by": "nobody"} == result.steps["slow"].output


def test_on_timeout_may_be_none() -> None:
    """``None`` is a value."""
    clock = VirtualClock()
    result = start(a_local(lambda w: w.then(timed(Slow(clock), on_timeout=None)), clock))
    assert ("success", None) == (result.status, result.output)


def test_a_late_suspension_does_not_count() -> None:
    """Nor does anything else that comes after the deadline."""
    clock = VirtualClock()
    result = start(a_local(lambda w: w.then(timed(Slow(clock, after=lambda ctx: ctx.suspend()))), clock))
    assert ("failed", "StepTimeout", []) == (result.status, result.error.type, result.waits)


def test_a_resumed_try_has_its_whole_time_again() -> None:
    """The time somebody took to answer is not the step's."""
    clock = VirtualClock()

    @step(timeout=MINUTE, retries=1, backoff=FIXED)
    def ask(_: Any, ctx: StepContext[str]) -> str:
        if ctx.resume_data is None:
            ctx.suspend()
        if ctx.attempt == 1:
            clock.forward(hours=1)
        return f"{ctx.resume_data} at try {ctx.attempt}"

    app = a_local(lambda w: w.then(ask), clock)
    start(app)
    clock.forward(days=1)
    assert "yes at try 2" == app.run("r-1").resume("yes").output


# -- the straggler ----------------------------------------------------------------------------------------------------


def stopped(act: Callable[[StepContext], Any]) -> tuple[LocalApp, list[str]]:
    """A run whose only step does ``act`` after its deadline, and what it still reached after that."""
    clock, reached = VirtualClock(), []

    def after(ctx: StepContext) -> None:
        act(ctx)
        reached.append("went on")

    app = a_local(lambda w: w.then(timed(Slow(clock, after=after), on_timeout=0)), clock)
    start(app)
    return app, reached


@pytest.mark.parametrize(
    "act",
    [
        lambda ctx: ctx.once("paid", lambda: "twice"),
        lambda ctx: ctx.emit({"percent": 99}),
        lambda ctx: ctx.set_state({"late": True}),
    ],
    ids=["once", "emit", "set_state"],
)
def test_a_straggler_is_stopped_when_it_wants_to_change_something(act: Callable[[StepContext], Any]) -> None:
    """Nothing of it is stored, and an ``except Exception`` of the step does not keep it alive."""
    app, reached = stopped(act)
    result = app.run("r-1").result()
    assert ("success", 0, [], {}) == (result.status, result.output, reached, result.state)
    loaded = app.store.load(RUN, everything=True)
    assert loaded is not None
    assert ["slow"] == list(loaded[1])


def test_a_side_effect_begun_in_time_is_kept() -> None:
    """It has happened: the next try must not repeat it, however long it took."""
    clock = VirtualClock()
    paid: list[str] = []
    went_on: list[int] = []

    def pay() -> str:
        paid.append("once")
        clock.forward(minutes=2)
        return "receipt"

    @step(timeout=MINUTE, retries=1, backoff=FIXED)
    def charge(_: Any, ctx: StepContext) -> str:
        receipt = ctx.once("pay", pay)
        went_on.append(ctx.attempt)
        return receipt

    result = start(a_local(lambda w: w.then(charge), clock))
    assert ("receipt", ["once"], [2]) == (result.output, paid, went_on)


def test_cancelled_is_set_for_a_straggler() -> None:
    """A loop that looks at the flag ends by itself; before the deadline it is not set."""
    clock, seen = VirtualClock(), []

    @step(timeout=MINUTE)
    def works(_: Any, ctx: StepContext) -> None:
        while not ctx.cancelled.is_set():
            seen.append(ctx.remaining_time())
            clock.forward(seconds=40)

    result = start(a_local(lambda w: w.then(works), clock))
    assert ("failed", [60 * SECOND, 20 * SECOND]) == (result.status, seen)


def test_remaining_time_is_the_workers_when_that_is_less() -> None:
    """The smaller of the two."""
    clock, seen = VirtualClock(), []
    app = a_local(lambda w: w.then(timed(lambda _, ctx: seen.append(ctx.remaining_time()))), clock)
    queued = LocalApp(app, clock=clock, queue=MemoryQueue(clock))
    start(queued)
    queued.look(RUN, deadline=clock.now() + 10 * SECOND)  # too little: handed on
    queued.look(RUN, deadline=clock.now() + 20 * SECOND)
    assert [20 * SECOND] == seen


def test_the_run_goes_on_while_a_thread_hangs() -> None:
    """The outcome is committed when the clock reaches the deadline; what the thread gives later is dropped."""
    clock, hung, release = VirtualClock(), threading.Event(), threading.Event()
    ended = threading.Event()

    def hang(_: Any, ctx: StepContext) -> str:
        hung.set()
        assert release.wait(PATIENCE_S)
        ended.set()
        return "too late"

    @step
    def passes_time(value: int) -> int:
        assert hung.wait(PATIENCE_S)
        clock.forward(minutes=1)
        return value

    app = a_local(lambda w: w.parallel(timed(hang, on_timeout="gave up"), passes_time), clock)
    result = start(app)
    assert ("success", {"slow": "gave up", "passes_time": 1}) == (result.status, result.output)
    release.set()
    assert ended.wait(PATIENCE_S)
    assert result.output == app.run("r-1").result().output


def test_a_coroutine_is_cancelled_at_its_deadline() -> None:
    """It learns of it as of any cancellation, and may tidy up."""
    clock, waiting, told = VirtualClock(), threading.Event(), threading.Event()

    async def hang(_: Any) -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.set()
            raise

    @step
    def passes_time(value: int) -> int:
        assert waiting.wait(PATIENCE_S)
        clock.forward(minutes=1)
        return value

    result = start(a_local(lambda w: w.parallel(timed(hang, on_timeout=None), passes_time), clock))
    assert ("success", {"slow": None, "passes_time": 1}) == (result.status, result.output)
    assert told.wait(PATIENCE_S)


def test_a_coroutine_in_time_is_left_alone() -> None:
    """Its output counts."""

    async def quick(value: int) -> int:
        await asyncio.sleep(0)
        return value + 1

    assert 2 == start(a_local(lambda w: w.then(timed(quick)))).output


def test_a_late_item_does_not_take_the_others_time() -> None:
    """Each item of a foreach and each of its tries has its own deadline."""
    clock = VirtualClock()

    def item(value: int) -> int:
        clock.forward(seconds=90 if value == 2 else 1)
        return value

    app = a_local(lambda w: w.foreach(timed(item), tolerated_failures=1), clock, input=list[int])
    assert [1, None, 3] == start(app, [1, 2, 3]).output


def test_a_debugger_steps_over_a_timeout() -> None:
    """``per_step`` commits the timeout as the step's outcome and pauses."""
    clock = VirtualClock()
    app = a_local(lambda w: w.then(timed(Slow(clock), on_timeout=7)).map(lambda n: n + 1), clock)
    result = app.workflow("flow").create_run("r-1").start(1, per_step=True)
    assert ("paused", 7) == (result.status, result.steps["slow"].output)
    assert 8 == app.run("r-1").unpause().output


class Restless(Crew[Any, Any]):
    """A crew whose first look for an outcome ends too early, as one that was woken for nothing."""

    looks = 0

    def next(self, timeout_s: float | None) -> tuple[Any, Any] | None:
        """See ``Crew.next``."""
        self.looks += 1
        return None if self.looks == 1 else super().next(timeout_s)


def test_a_debugger_does_not_begin_a_step_twice() -> None:
    """However often it looks before the outcome has come."""
    tries: list[int] = []
    app = a_local(lambda w: w.then(timed(lambda _, ctx: tries.append(ctx.attempt))).map(lambda _: 1))
    app.engine.crew = Restless
    result = app.workflow("flow").create_run("r-1").start(1, per_step=True)
    assert ("paused", "success", [1]) == (result.status, result.steps["slow"].status, tries)


# -- the worker's time ------------------------------------------------------------------------------------------------


def test_a_step_that_does_not_fit_is_handed_on() -> None:
    """A worker with too little time left gives the run back before the step begins; the next one runs it."""
    clock = VirtualClock()
    slow = Slow(clock, takes=SECOND)
    app = LocalApp(a_local(lambda w: w.then(timed(slow)), clock), clock=clock, queue=MemoryQueue(clock))
    start(app)
    app.look(RUN, deadline=clock.now() + 62 * SECOND)
    assert ("running", []) == (app.run("r-1").result().status, slow.tries)
    app.look(RUN, deadline=clock.now() + 63 * SECOND)
    assert ("success", [1]) == (app.run("r-1").result().status, slow.tries)


def test_a_step_that_fits_no_worker_is_not_handed_on_for_ever() -> None:
    """Whom the run was handed on to, and who has done nothing else yet, runs it."""
    clock = VirtualClock()
    slow = Slow(clock, takes=SECOND)
    app = LocalApp(a_local(lambda w: w.then(timed(slow)), clock), clock=clock, queue=MemoryQueue(clock))
    start(app)
    for _ in range(2):
        app.look(RUN, deadline=clock.now() + 10 * SECOND)
    assert ("success", [1]) == (app.run("r-1").result().status, slow.tries)


def test_a_worker_that_did_other_things_first_hands_a_step_on_however_often() -> None:
    """What it has left says nothing of others: only one whose whole life was at hand knows that none has more."""
    clock = VirtualClock()
    slow = Slow(clock, takes=SECOND)
    app = LocalApp(a_local(lambda w: w.then(timed(slow)), clock), clock=clock, queue=MemoryQueue(clock))
    start(app)
    for _ in range(5):
        app.look(RUN, deadline=clock.now() + 10 * SECOND, is_fresh=False)
    assert ("running", []) == (app.run("r-1").result().status, slow.tries)
    app.look(RUN, deadline=clock.now() + 10 * SECOND)
    assert ("success", [1]) == (app.run("r-1").result().status, slow.tries)


def test_a_caller_who_drives_for_a_while_does_not_begin_what_takes_longer() -> None:
    """A worker has more time, also for a run that was handed on before."""
    clock = VirtualClock()
    slow = Slow(clock, takes=SECOND)
    asks = create_step(id="asks", execute=lambda _, ctx: ctx.resume_data or ctx.suspend())
    app = LocalApp(a_local(lambda w: w.parallel(timed(slow), asks), clock), clock=clock, queue=MemoryQueue(clock))
    start(app)
    app.look(RUN, deadline=clock.now() + 10 * SECOND)
    app.run("r-1").resume("yes", drive=10 * SECOND)
    assert ("running", []) == (app.run("r-1").result().status, slow.tries)


def test_what_fits_is_done_before_the_run_is_handed_on() -> None:
    """Of two branches, the one without a timeout is run at once."""
    clock = VirtualClock()
    ran: list[int] = []
    slow = Slow(clock, takes=SECOND)
    quick = create_step(id="quick", execute=ran.append)
    app = LocalApp(a_local(lambda w: w.parallel(timed(slow), quick), clock), clock=clock, queue=MemoryQueue(clock))
    start(app)
    app.look(RUN, deadline=clock.now() + 10 * SECOND)
    assert ([1], [], "running") == (ran, slow.tries, app.run("r-1").result().status)
    app.look(RUN, deadline=clock.now() + 10 * SECOND)
    assert ([1], [1], "success") == (ran, slow.tries, app.run("r-1").result().status)


# -- the definition ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"timeout": timedelta(0)}, "timeout=datetime.timedelta(0) is no time to work in"),
        ({"timeout": -MINUTE}, "is no time to work in; give a timedelta above 0"),
        ({"timeout": 30}, "timeout=30 is no time to work in"),
        ({"timeout": timedelta.max}, "is no time to work in; give a timedelta above 0, at most a century, or leave"),
        ({"on_timeout": 0}, "on_timeout= is of no use without timeout="),
        ({"retries": 1.5}, "retries=1.5 is no number of tries"),
        ({"retries": True}, "retries=True is no number of tries"),
        ({"retries": -1}, "retries=-1 is below 0"),
        ({"retry_on": ValueError}, "retry_on=<class 'ValueError'> is no sequence of exception classes"),
        ({"no_retry_on": ["ValueError"]}, "no_retry_on=['ValueError'] is no sequence of exception classes"),
        ({"backoff": 5}, "backoff=5 is no pause"),
        ({"backoff": -SECOND}, "cannot be waited for"),
        ({"backoff": Backoff(factor=float("nan"))}, "cannot be waited for"),
        ({"backoff": Backoff(factor=-2)}, "cannot be waited for"),
    ],
)
def test_an_option_that_cannot_be_is_a_mistake(options: Any, what: str) -> None:
    """Found where the step is written, with its id."""
    with pytest.raises(DefinitionError) as refused:
        create_step(id="slow", execute=lambda value: value, **options)
    assert "slow: " in str(refused.value)
    assert what in str(refused.value)


def test_a_workflows_retries_are_checked_as_well() -> None:
    """Together with everything else that is wrong with it."""
    wrong: Any = "3"
    with pytest.raises(DefinitionError) as refused:
        workflow("flow", retries=wrong, backoff=-SECOND).commit()
    assert ["retries='3' is no number", "backoff=datetime.timedel", "has no entries; add at l"] == [
        mistake.what[:24] for mistake in refused.value.mistakes
    ]


def test_on_timeout_must_fit_the_output_type() -> None:
    """A mistake of the definition, with the path."""
    bad = timed(lambda _: None, output=Ruling, on_timeout={"approved": "perhaps"})
    with pytest.raises(DefinitionError, match=r"slow: on_timeout=.* does not fit its output type: approved: .*bool"):
        workflow("flow").then(bad).commit()
    odd = timed(lambda _: None, on_timeout=object())
    with pytest.raises(DefinitionError, match=r"slow: on_timeout=.* cannot be stored"):
        workflow("flow").then(odd).commit()


def test_a_clone_keeps_its_timeout() -> None:
    """Everything but the id."""
    slow = timed(lambda _: None, on_timeout=3).clone(id="other")
    assert ("other", MINUTE, 3) == (slow.id, slow.timeout, slow.on_timeout)


# -- the crew ---------------------------------------------------------------------------------------------------------


def test_a_hanging_thread_does_not_keep_others_from_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """The place of what was given up is free for the next, and what it brings never comes."""
    monkeypatch.setattr("flowcore.crew.MOST_THREADS", 1)
    crew: Crew[str, int] = Crew(EventLoop())
    release, begun = threading.Event(), threading.Event()

    def hang() -> int:
        begun.set()
        release.wait(PATIENCE_S)
        return 1

    crew.start_thread("hangs", hang)
    assert begun.wait(PATIENCE_S)
    crew.start_thread("next", lambda: 2)
    crew.give_up("hangs")
    assert ("next", 2) == crew.next(PATIENCE_S)
    release.set()
    assert crew.next(0.05) is None


def test_a_crew_does_more_than_it_has_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a thread gets one in its turn."""
    monkeypatch.setattr("flowcore.crew.MOST_THREADS", 2)
    crew: Crew[int, int] = Crew(EventLoop())
    for number in range(20):
        crew.start_thread(number, lambda number=number: number)  # type: ignore[misc]  # bound now
    assert {(number, number) for number in range(20)} == {crew.next(PATIENCE_S) for _ in range(20)}
