"""The events of a run: derived from what is stored, told once and in order, watched from anywhere."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, StepContext, otherwise, step, workflow
from flowcore.adapters.memory import MemoryQueue
from flowcore.authoring.graph import Backoff
from flowcore.core.events import Event, events
from flowcore.errors import NotActive, RunNotFound
from flowcore.keys import RunRef
from flowcore.model import Outcome, RunStatus
from flowcore.testing import LocalApp, VirtualClock
from tests.builders import BROKEN, LATER, a_record, a_run, a_started, an_answer

TRIES: list[int] = []


@pytest.fixture(autouse=True)
def _no_tries() -> None:
    TRIES.clear()


@step
def work(value: int) -> int:
    """Doubles what is not negative."""
    if value < 0:
        raise ValueError("negative")
    return value * 2


@step
def ask(value: int, ctx: StepContext[int]) -> int:
    """Adds what somebody answers; tells how it goes."""
    if ctx.resume_data is None:
        ctx.emit({"asking": value})
        ctx.suspend(label="boss")
    ctx.emit("thanks")
    return value + ctx.resume_data


@step(retries=1, backoff=Backoff(initial=timedelta(minutes=5), jitter=False))
def flaky(value: int, ctx: StepContext) -> int:
    """Tells two things each time; fails between them the first time."""
    TRIES.append(value)
    ctx.emit("half")
    if len(TRIES) == 1:
        raise ValueError("once")
    ctx.emit("half")
    return value


ASKING = workflow("asking", input=int, output=int).then(work).then(ask).commit()
PLAIN = workflow("plain", input=int, output=int).then(work).commit()


def told(found: list[Event]) -> list[tuple[str, str | None]]:
    """Types and steps."""
    return [(event.type, event.step) for event in found]


def served(*flows: Any, **options: Any) -> LocalApp:
    """A LocalApp that serves these workflows."""
    return LocalApp(App(*flows), **options)


def test_a_run_tells_start_step_result_and_finish_in_order() -> None:
    """With input, output and status."""
    run = served(PLAIN).workflow("plain").create_run("r")
    run.start(4)
    found = run.events()

    assert [
        ("run-started", None),
        ("step-started", "work"),
        ("step-finished", "work"),
        ("run-finished", None),
    ] == told(found)
    assert [{"input": 4}, {}, {"output": 8, "bailed": False}] == [event.data for event in found[:3]]
    assert {"status": "success", "output": 8, "error": None} == found[-1].data
    assert sorted({event.offset for event in found}) == [event.offset for event in found]


def test_the_details_of_an_error_are_told() -> None:
    """By the step and by the run."""
    run = served(PLAIN).workflow("plain").create_run("r")
    run.start(-1)
    failed, finished = run.events()[-2:]

    assert ("step-failed", "run-finished") == (failed.type, finished.type)
    for event in (failed, finished):
        error = event.data["error"]
        assert ("ValueError", "negative", "work") == (error["type"], error["message"], error["step"])


def test_a_suspension_is_told_as_it_was_before_and_after_its_answer() -> None:
    """Same offsets, same data: who polls beyond the last offset meets each fact once."""
    app = served(ASKING)
    run = app.workflow("asking").create_run("r")
    run.start(1)
    before = run.events()
    app.advance(hours=1)
    run.resume(5, by="ann")
    after = run.events()

    assert [("step-suspended", "ask"), ("run-suspended", None)] == told(before)[-2:]
    assert [event for event in before if event.type != "run-suspended"] == after[: len(before) - 1]
    assert before[-2].data == after[len(before) - 2].data == {"wait": "ask@0", "label": "boss", "payload": None}
    assert [
        ("step-resumed", "ask"),
        ("step-progress", "ask"),
        ("step-finished", "ask"),
        ("run-finished", None),
    ] == told(run.events(before[-1].offset))
    resumed = run.events(before[-1].offset)[0].data
    assert (5, "ann", "python", False) == tuple(resumed[key] for key in ("data", "by", "via", "timed_out"))


def test_emitted_data_arrives_unchanged_also_from_nested_steps_and_after_a_resume() -> None:
    """In the order in which it was told, before what became of the step."""
    outer = workflow("outer", input=int, output=int).then(ASKING).commit()
    run = served(outer).workflow("outer").create_run("r")
    run.start(1)
    run.resume(5)

    assert [("asking.ask", {"asking": 2}), ("asking.ask", "thanks")] == [
        (event.step, event.data) for event in run.events() if event.type == "step-progress"
    ]


def test_a_retry_that_tells_the_same_again_tells_nothing_new() -> None:
    """By its number in the pass and by its data; the same data as another number is another thing."""
    flow = workflow("flow", input=int, output=int).then(flaky).commit()
    app = served(flow)
    run = app.workflow("flow").create_run("r")
    run.start(1)
    assert [("step-progress", "flaky"), ("step-retrying", "flaky"), ("run-waiting", None)] == told(run.events())[-3:]
    app.advance(minutes=6)

    assert ["half", "half"] == [event.data for event in run.events() if event.type == "step-progress"]
    assert ("success", 2) == (run.result().status, len(TRIES))


def test_progress_survives_a_crash_of_the_worker_without_doubling() -> None:
    """The step runs again and tells the same."""
    app = served(ASKING)
    app.crash_before("ask")
    run = app.workflow("asking").create_run("r")
    run.start(1)
    assert "asking" in next(event for event in run.events() if event.type == "step-progress").data
    app.advance(minutes=16)

    assert "suspended" == run.result().status
    assert 1 == len([event for event in run.events() if event.type == "step-progress"])


def test_progress_is_no_step() -> None:
    """It is not among the results."""
    run = served(ASKING).workflow("asking").create_run("r")
    assert {"work", "ask"} == run.start(1).steps.keys()


def test_a_foreach_tells_how_far_it_is() -> None:
    """Beside what its items tell."""
    flow = workflow("flow", input=list[int], output=list[int]).foreach(work, id="fan", concurrency=2).commit()
    run = served(flow).workflow("flow").create_run("r")
    run.start([1, 2, 3])
    progress = [event.data for event in run.events() if event.type == "step-progress"]

    assert [(1, 3), (2, 3), (3, 3)] == [(data["done"], data["total"]) for data in progress]
    assert {0, 1, 2} == {data["index"] for data in progress}
    assert ("step-finished", "fan[2]") in told(run.events())


def test_a_loop_tells_its_turns() -> None:
    """Each with its number."""
    flow = workflow("flow", input=int, output=int).dountil(work, lambda value: value > 5, id="loop").commit()
    run = served(flow).workflow("flow").create_run("r")
    run.start(1)

    turns = [event.data for event in run.events() if event.type == "step-started"]
    assert [{"iteration": 1}, {"iteration": 2}, {"iteration": 3}] == turns


def test_a_sleep_a_pause_and_a_cancel_are_told() -> None:
    """What the run does now is its last event."""
    flow = workflow("flow", input=int, output=int).sleep(timedelta(hours=1), id="nap").then(work).commit()
    app = served(flow)
    run = app.workflow("flow").create_run("r")
    run.start(1)
    begin = app.clock.now()
    assert [("step-waiting", "nap"), ("run-waiting", None)] == told(run.events())[-2:]
    wake = (begin + timedelta(hours=1)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert {"wake_at": wake} == run.events()[-1].data
    run.pause()
    assert ("run-paused", None) == told(run.events())[-1]
    run.cancel()
    assert ("run-canceled", None) == told(run.events())[-1]
    with pytest.raises(NotActive):
        run.pause()


def test_a_later_life_lies_beyond_an_earlier_one() -> None:
    """Who polls across time travel misses nothing of the new life."""
    run = served(ASKING).workflow("asking").create_run("r")
    run.start(1)
    run.resume(1)
    last = run.events()[-1].offset
    run.time_travel("ask", input=7)

    assert ("step-suspended", "ask") in told(run.events(last))
    assert ("step-retrying", "ask") not in told(run.events(last))


def test_events_of_no_run_are_an_error() -> None:
    """As the run itself."""
    with pytest.raises(RunNotFound):
        served(PLAIN).run("nobody").events()


def test_watch_follows_a_run_to_its_end_through_its_sleeps() -> None:
    """Virtual time is moved by who watches; nobody else is there."""
    flow = workflow("flow", input=int, output=int).then(work).sleep(timedelta(days=3)).then(work, id="two").commit()
    app = served(flow)
    run = app.workflow("flow").create_run("r")
    run.start(1)
    found = list(run.watch())

    assert ("run-waiting", None) in told(found)
    assert ("run-finished", None) == told(found)[-1]
    assert len(set(found)) == len(found)


def test_watch_closes_at_a_suspension_and_goes_on_beyond_it() -> None:
    """With the last offset, as another stream."""
    run = served(ASKING).workflow("asking").create_run("r")
    run.start(1)
    first = list(run.watch())
    assert "run-suspended" == first[-1].type
    run.resume(5)
    assert ["step-resumed", "step-progress", "step-finished", "run-finished"] == [
        event.type for event in run.watch(first[-1].offset)
    ]


def test_watch_sees_what_a_worker_in_another_process_does() -> None:
    """It reads the store; the worker drives."""
    clock = VirtualClock()
    app = served(PLAIN, clock=clock, queue=MemoryQueue(clock))
    run = app.workflow("plain").create_run("r")
    run.start(4)
    watching = run.watch()
    assert "run-started" == next(watching).type
    app.run_until_idle()

    assert ["step-started", "step-finished", "run-finished"] == [event.type for event in watching]


def test_watch_gives_up_after_its_timeout() -> None:
    """Also when nothing happens at all."""
    clock = VirtualClock()
    app = served(PLAIN, clock=clock, queue=MemoryQueue(clock))
    run = app.workflow("plain").create_run("r")
    run.start(4)
    begin = clock.now()

    assert ["run-started"] == [event.type for event in run.watch(timeout=timedelta(seconds=2))]
    assert timedelta(seconds=2) == clock.now() - begin


def test_the_last_watched_result_is_that_of_start() -> None:
    """No second truth."""
    run = served(PLAIN).workflow("plain").create_run("r")
    result = run.start(4)
    assert (result.status, result.output) == tuple(list(run.watch())[-1].data[key] for key in ("status", "output"))


def test_arms_that_were_not_taken_tell_nothing() -> None:
    """A branch tells its choice and what it chose."""
    flow = (
        workflow("flow", input=int)
        .branch((lambda value: value > 3, work.clone(id="high")), (otherwise, work.clone(id="low")), id="which")
        .commit()
    )
    run = served(flow).workflow("flow").create_run("r")
    run.start(1)

    assert {"which", "low"} == {event.step for event in run.events() if event.step}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (a_record(outcome=Outcome.OK), ["step-started", "step-finished"]),
        (a_record(outcome=Outcome.BAIL), ["step-started", "step-finished"]),
        (a_record(outcome=Outcome.ERR, gen=2), ["step-failed"]),
        (a_record(outcome=Outcome.SKIP, gen=1), ["step-skipped"]),
        (a_record(outcome=Outcome.SLP, until=LATER), ["step-started", "step-waiting"]),
        (a_record(outcome=Outcome.RETRY, until=LATER), ["step-started", "step-retrying"]),
        (a_record(outcome=Outcome.RETRY, attempt=0, given=(7,), until=LATER), []),
        (a_record(outcome=Outcome.SUSP, gen=2), ["step-suspended"]),
        (a_record("charge!receipt"), []),
        (a_record("charge!@1.d", output=7), ["step-started", "step-progress"]),
        (a_record("charge!@1.d", output=7, attempt=2), ["step-progress"]),
        (a_started("child"), ["step-started"]),
        (
            a_record(outcome=Outcome.RESU, gen=1, seq=9, answer=an_answer(1), asked=(8, LATER, 9)),
            ["step-started", "step-suspended", "step-resumed"],
        ),
        (
            a_record(outcome=Outcome.OK, gen=4, seq=9, answer=an_answer(1, "charge@2"), asked=(7, LATER, 8)),
            ["step-suspended", "step-resumed", "step-finished"],
        ),
        (a_record(outcome=Outcome.RESU, gen=1, answer=an_answer(1)), []),
        (a_record("fan[0]", gen=1), ["step-finished", "step-progress"]),
    ],
)
def test_each_record_tells_what_it_knows(record: Any, expected: list[str]) -> None:
    """Nothing more: what was forgotten by a rewrite (or stored before it was kept) is not made up."""
    assert ["run-started", *expected] == [event.type for event in events(None, a_run(record))]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (RunStatus.QUEUED, None),
        (RunStatus.RUNNING, None),
        (RunStatus.WAITING, "run-waiting"),
        (RunStatus.JOINING, "run-waiting"),
        (RunStatus.SUSPENDED, "run-suspended"),
        (RunStatus.PAUSED, "run-paused"),
        (RunStatus.BLOCKED, "run-paused"),
        (RunStatus.SUCCESS, "run-finished"),
        (RunStatus.FAILED, "run-finished"),
        (RunStatus.CANCELED, "run-canceled"),
    ],
)
def test_each_head_tells_where_the_run_stands(status: RunStatus, expected: str | None) -> None:
    """After all that its records tell."""
    failure = BROKEN if status is RunStatus.FAILED else None
    found = events(None, a_run(a_record(), status=status, failure=failure))
    assert ([expected] if expected else []) == [event.type for event in found[3:]]


def test_progress_is_ordered_between_what_was_before_it_and_its_steps_outcome() -> None:
    """The stamps are one sequence, so that no offset is used twice."""
    app = served(ASKING)
    app.workflow("asking").create_run("r").start(1)
    app.run("r").resume(1)
    loaded = app.store.load(RunRef("default", "r"), everything=True)
    assert loaded is not None
    stamps = sorted(record.seq for record in loaded[1].values())
    assert sorted(set(stamps)) == stamps
