"""What an operator, or a debugger, can do to a run: restart, pause, go back, fork, delete, step."""

from __future__ import annotations

import re
import threading
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from flowcore import App, StepContext, create_step, otherwise, step, workflow
from flowcore.adapters.memory import MemoryQueue, MemoryStore
from flowcore.errors import (
    AlreadyResumed,
    InvalidPayload,
    NotActive,
    NotRecorded,
    NotSuspended,
    RunExists,
    RunNotFound,
    StillRunning,
    UnknownStep,
)
from flowcore.model import Outcome
from flowcore.testing import FaultyStore, LocalApp, VirtualClock
from flowcore.testing.faults import Call

CALLS: list[str] = []


@pytest.fixture(autouse=True)
def _no_calls_yet() -> None:
    CALLS.clear()


@step
def first(value: int, ctx: StepContext) -> int:
    """Adds one."""
    CALLS.append("first")
    ctx.set_state({"first": value})
    return value + 1


@step
def ask(value: int, ctx: StepContext[int]) -> int:
    """Adds what somebody answers."""
    CALLS.append("ask")
    if ctx.resume_data is None:
        ctx.suspend(label="boss")
    return value + ctx.resume_data


@step
def last(value: int) -> int:
    """Doubles."""
    CALLS.append("last")
    return value * 2


@step
def stop(value: Any, ctx: StepContext) -> Any:
    """Ends its workflow with what it was given."""
    ctx.bail(value)


@step
def count(values: dict[str, Any]) -> int:
    """How many arms gave something."""
    return len(values)


ASKING = workflow("asking", input=int, output=int).then(first).then(ask).then(last).commit()
CHILD = workflow("child", input=int, output=int).then(first).then(last).commit()
NESTING = workflow("nesting", input=int, output=int).then(last, id="before").then(CHILD).then(last, id="after").commit()
FORKING = (
    workflow("forking", input=int, output=dict[str, int])
    .parallel(first, last)
    .map(lambda both: sum(both.values()), id="sum")
    .branch((lambda total: total > 100, first.clone(id="high")), (otherwise, last.clone(id="low")))
    .commit()
)


def served(*flows: Any) -> LocalApp:
    """A LocalApp that serves these workflows."""
    return LocalApp(App(*flows))


def finished(app: LocalApp) -> Any:
    """A finished run of ``ASKING``: 1 -> 2 -> 12 -> 24."""
    run = app.workflow("asking").create_run("r")
    run.start(1)
    assert 24 == run.resume(10).output
    CALLS.clear()
    return run


def test_time_travel_repeats_the_step_and_what_follows_with_stored_results() -> None:
    """What stands in front is not run again; the new life has its own outcome."""
    run = finished(served(ASKING))

    assert 24 == run.time_travel("last").output
    assert ["last"] == CALLS


def test_time_travel_with_an_input_begins_the_step_with_it() -> None:
    """Whatever came before."""
    run = finished(served(ASKING))

    assert 14 == run.time_travel(last, input=7).output


def test_time_travel_with_an_input_skips_what_was_never_done() -> None:
    """The suspended step in front is over, without an output."""
    run = served(ASKING).workflow("asking").create_run("r")
    run.start(1)

    result = run.time_travel("last", input=7)

    assert (14, "skipped") == (result.output, result.steps["ask"].status)


@pytest.mark.parametrize("kind", ["step", "foreach", "nested"])
@pytest.mark.parametrize("verb", ["time_travel", "fork"])
def test_going_back_behind_what_has_bailed_goes_on_with_the_input_that_is_given(verb: str, kind: str) -> None:
    """What has bailed has ended its workflow, and has no output for the step behind it: it is skipped, or missing."""
    start: Any = workflow("flow", input=int).then(first)
    match kind:
        case "step":
            flow, entry = start.then(stop).then(last), "stop"
        case "foreach":
            flow, entry = start.map(lambda value: [value], id="list").foreach(stop).then(last), "stop"
        case _:
            flow, entry = start.then(workflow("child", input=int).then(stop).then(last).commit()), "child.stop"
    run = served(flow.commit()).workflow("flow").create_run("r")
    assert ("success", 2, ["first"]) == ((result := run.start(1)).status, result.output, CALLS)
    target = entry.replace("stop", "last")

    with pytest.raises(NotRecorded) as refused:
        getattr(run, verb)(target)
    assert [entry] == refused.value.details()["missing"]
    went = getattr(run, verb)(target, input=7)

    assert (14, "skipped", ["first", "last"]) == (went.output, went.steps[entry].status, CALLS)


@pytest.mark.parametrize("verb", ["time_travel", "fork"])
def test_going_back_behind_an_arm_that_has_bailed_keeps_what_it_gave(verb: str) -> None:
    """Of an arm that is its output like any other."""
    flow: Any = workflow("flow", input=int).parallel(first, stop).branch((lambda both: True, stop.clone(id="taken")))
    run = served(flow.then(count).commit()).workflow("flow").create_run("r")
    assert 1 == run.start(1).output

    assert 1 == getattr(run, verb)("count").output
    assert ["first"] == CALLS


def test_time_travel_before_a_suspension_suspends_anew_and_old_waits_answer_no_more() -> None:
    """A link of the earlier life opens nothing in the new one."""
    app = served(ASKING)
    run = app.workflow("asking").create_run("r")
    old = run.start(1).waits[0].id
    travelled = run.time_travel("first")

    assert "suspended" == travelled.status
    assert old != travelled.waits[0].id
    with pytest.raises(NotSuspended):
        run.resume(10, wait=old)
    assert 24 == run.resume(10, wait=travelled.waits[0].id).output


def test_time_travel_keeps_the_state_of_what_stands_in_front() -> None:
    """State is part of the records that are kept."""
    run = finished(served(ASKING))

    assert {"first": 1} == run.time_travel("ask").state


def test_time_travel_goes_into_a_nested_workflow() -> None:
    """Steps of the child in front of the target are not repeated."""
    run = served(NESTING).workflow("nesting").create_run("r")
    assert 28 == run.start(3).output
    CALLS.clear()

    assert 28 == run.time_travel("child.last").output
    assert ["last", "last"] == CALLS
    assert 40 == run.time_travel(["child", "last"], input=10).output


def test_time_travel_with_outputs_needs_no_earlier_call() -> None:
    """Outputs of the entries in front may be given."""
    run = served(ASKING).workflow("asking").create_run("r")
    run.start(1)
    CALLS.clear()

    assert 100 == run.time_travel("last", context={"ask": 50}).output
    assert ["last"] == CALLS


def test_time_travel_to_an_arm_keeps_its_siblings() -> None:
    """Only the arm runs again."""
    run = served(FORKING).workflow("forking").create_run("r")
    assert {"low": 20} == run.start(3).output
    CALLS.clear()

    assert {"low": 20} == run.time_travel("first").output
    assert ["first", "last"] == CALLS


def test_time_travel_to_an_untaken_arm_takes_it() -> None:
    """The branch is as if it had chosen that arm."""
    run = served(FORKING).workflow("forking").create_run("r")
    run.start(3)

    result = run.time_travel("high", input=1)

    assert {"high": 2} == result.output
    assert "low" not in result.steps


@pytest.mark.parametrize("verb", ["time_travel", "fork"])
def test_going_back_to_a_chosen_arm_keeps_the_others_that_were_chosen(verb: str) -> None:
    """As a parallel keeps its arms: with output and state, or with the question that is open in them."""
    choosing: Any = workflow("choosing", input=int).branch(
        (lambda _: True, last),
        (lambda _: True, first),
        (lambda _: True, ask),
        (lambda _: False, first.clone(id="never")),
    )
    app = served(choosing.commit())
    run = app.workflow("choosing").create_run("r")
    assert "suspended" == run.start(1).status
    CALLS.clear()

    went = app.run(getattr(run, verb)("last").run_id)

    assert (["last"], {"first": 1}) == (CALLS, went.result().state)
    assert {"last": 2, "first": 2, "ask": 4} == went.resume(3).output
    assert {"last": 2, "first": 9, "ask": 4} == went.time_travel("last", context={"first": 9}).output
    assert {"never": 8} == went.time_travel("never", input=7).output


BRANCHING = (
    workflow("branching", input=int, output=int)
    .parallel(first, last)
    .map(lambda both: sum(both.values()), id="sum")
    .branch((lambda _: True, first.clone(id="high")), (otherwise, last.clone(id="low")))
    .map(lambda arms: sum(arms.values()), id="total")
    .dountil(first.clone(id="grow"), lambda value: value > 50)
    .then(CHILD)
    .commit()
)
TRAVELS: list[tuple[str, dict[str, Any], int, list[str]]] = [
    ("sum", {}, 104, ["first"] + ["first"] * 40 + ["first", "last"]),
    ("total", {}, 104, ["first"] * 40 + ["first", "last"]),
    ("last", {"context": {"first": 100}}, 218, ["last", "first", "first", "first", "last"]),
    ("grow", {"input": 49}, 104, ["first", "first", "first", "last"]),
    ("child", {"input": 9}, 20, ["first", "last"]),
    ("child", {}, 104, ["first", "last"]),
]


BROKEN: list[int] = []


@step
def fragile(item: int, ctx: StepContext) -> int:
    """Ten times the item, unless it is broken; the second half is stored once."""
    CALLS.append(f"fragile {item}")
    if item in BROKEN:
        raise ValueError("broken")
    return ctx.once("ten", lambda: 10) * item


FRAGILE = workflow("fragile-items", input=list[int], output=list[int]).foreach(fragile, id="items").commit()


def failed_at_the_second_item(app: LocalApp) -> Any:
    """A failed run of ``FRAGILE`` whose first item is done; the second would succeed by now."""
    BROKEN[:] = [2]
    run = app.workflow("fragile-items").create_run("r")
    assert "failed" == run.start([1, 2, 3]).status
    BROKEN.clear()
    CALLS.clear()
    return run


def test_time_travel_to_a_failed_foreach_repeated_its_finished_items() -> None:
    """It goes on at those that are not done."""
    run = failed_at_the_second_item(served(FRAGILE))

    assert [10, 20, 30] == run.time_travel("items").output
    assert ["fragile 2", "fragile 3"] == CALLS


def test_time_travel_to_a_foreach_that_succeeded_repeats_all_of_it() -> None:
    """There is nothing to go on with."""
    run = failed_at_the_second_item(served(FRAGILE))
    run.time_travel("items")
    CALLS.clear()

    assert [10, 20, 30] == run.time_travel("items").output
    assert ["fragile 1", "fragile 2", "fragile 3"] == CALLS


def test_time_travel_to_a_failed_foreach_with_outputs_in_front_of_it_repeats_all_of_it() -> None:
    """Its items may be others."""
    made = workflow("w", input=list[int], output=list[int]).map(lambda items: items, id="before").foreach(fragile)
    BROKEN[:] = [2]
    run = served(made.commit()).workflow("w").create_run("r")
    assert "failed" == run.start([1, 2]).status
    CALLS.clear()

    assert [30, 40] == run.time_travel("fragile", context={"before": [3, 4]}).output
    assert ["fragile 3", "fragile 4"] == CALLS


def test_time_travel_to_a_foreach_that_never_had_items_begins_it() -> None:
    """It failed before its first item."""
    made = workflow("w").foreach(fragile).commit()
    run = served(made).workflow("w").create_run("r")
    before = run.start("no list")

    assert ("failed", before.error) == ((after := run.time_travel("fragile")).status, after.error)
    assert [] == CALLS


@pytest.mark.parametrize(("target", "options", "output", "calls"), TRAVELS)
def test_time_travel_lands_at_any_kind_of_entry(
    target: str, options: dict[str, Any], output: int, calls: list[str]
) -> None:
    """Branches taken before stay taken, loops begin at their first turn, a given input is a nested workflow's own."""
    run = served(BRANCHING).workflow("branching").create_run("r")
    assert 104 == run.start(3).output
    CALLS.clear()

    assert output == run.time_travel(target, **options).output
    assert sorted(calls) == sorted(CALLS)


def test_time_travel_runs_a_sibling_arm_that_never_ran() -> None:
    """An arm without an outcome is not in front of the other."""
    run = served(BRANCHING).workflow("branching").create_run("r")
    run.start(3, per_step=True)
    CALLS.clear()

    assert 104 == run.time_travel("first").output
    assert "last" in CALLS


def test_time_travel_gives_no_input_to_an_entry_that_takes_none() -> None:
    """A map has no input of its own."""
    run = served(BRANCHING).workflow("branching").create_run("r")
    run.start(3)

    with pytest.raises(InvalidPayload, match="takes no input of its own"):
        run.time_travel("sum", input={"first": 1, "last": 2})


@pytest.mark.parametrize(
    ("target", "options", "error"),
    [
        ("nowhere", {}, UnknownStep),
        ("ask.inner", {}, UnknownStep),
        ("last", {}, NotRecorded),
        ("last", {"input": "seven"}, InvalidPayload),
    ],
)
def test_time_travel_that_cannot_be_leaves_the_run_alone(target: str, options: Any, error: type[Exception]) -> None:
    """Unknown or never reached steps, and inputs that do not fit, are told at the door."""
    run = served(ASKING).workflow("asking").create_run("r")
    before = run.start(1)

    with pytest.raises(error):
        run.time_travel(target, **options)

    assert before == run.result()


CONTEXTS: list[tuple[str, str, type[Exception], str]] = [
    ("frist", "child", UnknownStep, "No step 'frist' in this workflow. Known here: 'ask', 'high', 'sum'"),
    ("child", "child", InvalidPayload, "- child: is not read in front of 'child'; there are 'ask', 'high', 'sum'"),
    ("after", "child", InvalidPayload, "- after: is not read in front of 'child'"),
    ("child.first", "after", InvalidPayload, "- child.first: is not read in front of 'after'"),
    ("child", "child.last", InvalidPayload, "- child: is not read in front of 'child.last'"),
    ("low", "child", InvalidPayload, "- low: is not read in front of 'child'"),
    ("branch", "child", InvalidPayload, "- branch: a branch has no output of its own; give those of its arms"),
    ("nap", "child", InvalidPayload, "- nap: a sleep has no output"),
]
TAKING = (
    workflow("taking", input=int)
    .then(ask)
    .branch((lambda value: value > 0, last.clone(id="high")), (otherwise, last.clone(id="low")), id="branch")
    .map(lambda arms: sum(arms.values()), id="sum")
    .sleep(timedelta(0), id="nap")
    .then(CHILD)
    .then(last, id="after")
    .commit()
)


@pytest.mark.parametrize("verb", ["time_travel", "fork"])
@pytest.mark.parametrize(("named", "target", "error", "message"), CONTEXTS)
def test_going_back_with_an_output_that_nobody_reads_is_refused(
    verb: str, named: str, target: str, error: type[Exception], message: str
) -> None:
    """A name that is wrong, or of what does not stand in front, would leave the run with what it had."""
    run = served(TAKING).workflow("taking").create_run("r")
    run.start(1)
    run.resume(2)
    before = run.result()

    with pytest.raises(error, match=re.escape(message)):
        getattr(run, verb)(target, context={named: 5})

    assert ("success", before) == (before.status, run.result())


@pytest.mark.parametrize("verb", ["time_travel", "fork"])
def test_outputs_given_for_all_in_front_need_none_of_a_branch_or_a_sleep(verb: str) -> None:
    """A branch that was never met takes the arms of which there is one."""
    run = served(TAKING).workflow("taking").create_run("r")
    run.start(1)

    with pytest.raises(NotRecorded, match="'branch', 'sum' in front of it have no output"):
        getattr(run, verb)("child", context={"ask": 1})
    went = getattr(run, verb)("child", context={"ask": 1, "high": 4, "sum": 5})

    assert ("success", 24, {"high": 4}) == (went.status, went.output, {"high": went.steps["sum"].input["high"]})


def test_run_that_is_driven_cannot_travel() -> None:
    """Two lives at once would both be right."""
    app = served(ASKING)
    app.crash_after("first")
    run = app.workflow("asking").create_run("r")
    assert "running" == run.start(1).status

    with pytest.raises(StillRunning):
        run.time_travel("first")


def test_fork_begins_another_run_and_leaves_the_first_alone() -> None:
    """Its suspensions are its own."""
    app = served(ASKING)
    run = app.workflow("asking").create_run("r")
    before = run.start(1)
    CALLS.clear()
    forked = run.fork("ask", run_id="f")

    assert ("suspended", ["ask"]) == (forked.status, CALLS)
    assert 44 == app.resume("f", 20).output
    assert before == run.result()
    assert 24 == run.resume(10).output
    with pytest.raises(RunExists):
        run.fork("ask", run_id="f")


def test_fork_takes_no_answer_that_came_early_to_the_other_run() -> None:
    """Whoever gave it, gave it there; the run itself has it in a later life as well."""
    child = workflow("child", input=int).sleep(timedelta(hours=1), id="nap").then(ask).commit()
    app = served(workflow("beside", input=int).parallel(first, child).commit())
    run = app.workflow("beside").create_run("r")
    run.start(1)
    early = run.resume(42, step="child.ask", by="ada", keep=timedelta(hours=2))
    assert early.receipt is not None
    assert "buffered" == early.receipt.verdict

    forked = app.run(run.fork("first", run_id="other").run_id)
    run.time_travel("first")
    app.advance(hours=1)

    assert ("suspended", []) == (forked.result().status, forked.receipts())
    assert {"first": 2, "child": 43} == run.result().output


def test_restart_fences_a_worker_off_and_goes_on_from_the_records() -> None:
    """Finished steps are not repeated, and nobody waits for the lease."""
    app = served(ASKING)
    app.crash_after("first")
    run = app.workflow("asking").create_run("r")
    run.start(1)

    assert "suspended" == run.restart().status
    assert ["first", "ask"] == CALLS


def test_restart_does_not_sleep_again() -> None:
    """The wake is stored."""
    app = served(workflow("nap", input=int).sleep(timedelta(days=2)).commit())
    run = app.workflow("nap").create_run("r")
    wake = run.start(1).steps["sleep-at-start"].wake_at
    app.advance(days=1)

    assert wake == run.restart().steps["sleep-at-start"].wake_at
    app.advance(days=1)
    assert "success" == run.result().status


def test_restart_gives_an_ended_run_back_and_refuses_a_suspended_one() -> None:
    """Nothing to restart."""
    app = served(ASKING)
    run = app.workflow("asking").create_run("s")
    run.start(1)
    with pytest.raises(NotActive):
        run.restart()
    run = finished(app)

    assert ("success", []) == (run.restart().status, CALLS)


def test_paused_run_keeps_an_answer_and_uses_it_once_unpaused() -> None:
    """An operator's pause loses nobody's click."""
    run = served(ASKING).workflow("asking").create_run("r")
    run.start(1)
    assert "paused" == run.pause().status

    assert "paused" == run.resume(10).status
    with pytest.raises(AlreadyResumed):
        run.resume(11)
    with pytest.raises(NotActive):
        run.pause()
    assert 24 == run.unpause().output


def test_unpause_of_a_run_that_goes_on_says_what_can_be_unpaused() -> None:
    """A paused one, and not one that is under way."""
    run = served(ASKING).workflow("asking").create_run("r")
    run.start(1)
    with pytest.raises(NotActive, match="'suspended'; only a run that is paused can be unpaused"):
        run.unpause()


def test_pause_of_a_sleeper_lasts_and_unpause_lets_it_sleep_on() -> None:
    """Time passes meanwhile."""
    app = served(workflow("nap", input=int).sleep(timedelta(days=2)).commit())
    run = app.workflow("nap").create_run("r")
    run.start(1)
    run.pause()
    app.advance(days=1)
    assert "waiting" == run.unpause().status
    run.pause()
    app.advance(days=5)

    assert "paused" == run.result().status
    assert "success" == run.unpause().status


def paused_at_work(app: LocalApp) -> None:
    """An operator pauses run "r" while its step works on for some seconds."""
    app.clock.forward(seconds=5)
    app.run("r").pause()
    app.clock.forward(seconds=5)


@pytest.mark.parametrize(
    ("semantics", "durability", "calls"),
    [
        ("at_least_once", "step", ["work", "last"]),
        ("at_most_once", "step", ["work", "last"]),
        ("at_most_once", "boundary", ["work", "last"]),
        ("at_least_once", "boundary", ["work", "work", "last"]),  # not stored yet, as if its worker had died
    ],
)
def test_pause_keeps_what_the_step_at_work_comes_to(semantics: Any, durability: Any, calls: list[str]) -> None:
    """It is stored, and nothing more is begun until the run is unpaused."""

    def work(value: int) -> int:
        CALLS.append("work")
        if len(CALLS) == 1:
            paused_at_work(app)
        return value + 1

    working = create_step(id="work", execute=work, semantics=semantics)
    flow = workflow("working", input=int, output=int, durability=durability).then(working).then(last).commit()
    app = served(flow)
    run = app.workflow("working").create_run("r")

    assert ("paused", ["work"]) == (run.start(1).status, CALLS)
    assert 4 == run.unpause().output
    assert calls == CALLS


@pytest.mark.parametrize("how", ["once", "emit", "heartbeat"])
@pytest.mark.parametrize("is_async", [True, False])
def test_pause_is_met_by_a_step_that_wants_to_keep_something(how: str, is_async: bool) -> None:
    """Where what stands around it is not stored yet, it cannot be kept; the step is done again, and nobody hangs."""

    def keep(value: int, ctx: StepContext[Any]) -> int:
        CALLS.append("keep")
        if CALLS.count("keep") == 1:
            paused_at_work(app)
        wants: Any = partial(ctx.once, "x", list) if how == "once" else partial(getattr(ctx, how), 1)
        wants()
        return value + 1

    async def on_loop(value: int, ctx: StepContext[Any]) -> int:
        return keep(value, ctx)

    keeping = create_step(id="keep", execute=on_loop if is_async else keep, timeout=timedelta(hours=1))
    inner = workflow("inner", input=int, output=int).then(last).then(keeping).commit()
    app = served(workflow("outer", input=int, output=int, durability="boundary").then(inner).commit())
    run = app.workflow("outer").create_run("r")
    assert "paused" == run.start(1).status
    result = run.unpause()
    assert ("success", ["keep", "keep"]) == (result.status, [call for call in CALLS if call == "keep"])


def test_pause_writes_down_no_beginning_of_a_step_that_is_not_called() -> None:
    """It would not be called any more."""

    @step(semantics="at_most_once")
    def pay(value: int, ctx: StepContext[int]) -> int:
        CALLS.append("asks" if ctx.resume_data is None else "pays")
        if ctx.resume_data is None:
            ctx.suspend()
        return value + ctx.resume_data

    def pausing(call: Call) -> None:
        begins = any(record.key == "pay" and record.answer is not None for record in call.batch)
        if call.verb == "release" and begins and not paused:
            paused.append(run.pause().status)

    paused: list[str] = []
    flow = workflow("paying", input=int, output=int, durability="boundary").then(pay).commit()
    app = LocalApp(App(flow), store=FaultyStore(MemoryStore(), pausing))
    run = app.workflow("paying").create_run("r")
    run.start(1)
    assert ("paused", ["asks"], ["paused"]) == (run.resume(5).status, CALLS, paused)
    assert (6, ["asks", "pays"]) == (run.unpause().output, CALLS)


def test_pause_keeps_what_several_steps_at_work_come_to() -> None:
    """Also of one that works on when the first has come back."""
    has_come_back = threading.Event()

    @step(semantics="at_most_once")
    def quick(value: int) -> int:
        CALLS.append("quick")
        paused_at_work(app)
        return value

    @step(semantics="at_most_once")
    def slow(value: int) -> int:
        CALLS.append("slow")
        assert has_come_back.wait(10)
        return value

    def script(call: Call) -> None:
        if call.record is not None and call.record.key == "line/quick" and call.record.outcome is Outcome.OK:
            has_come_back.set()

    line = workflow("line", input=int, output=int).then(quick).then(last).commit()
    flow = workflow("sides", input=int).parallel(line, slow).commit()
    app = LocalApp(App(flow), store=FaultyStore(MemoryStore(), script))
    run = app.workflow("sides").create_run("r")

    assert ("paused", {"quick", "slow"}) == (run.start(1).status, set(CALLS))
    assert {"line": 2, "slow": 1} == run.unpause().output
    assert 3 == len(CALLS)


def test_pause_does_not_tell_a_step_at_work_to_stop() -> None:
    """Neither its heartbeats nor ``cancelled``; a try that fails counts, and what it has told is there for the next."""
    seen: list[Any] = []

    @step(retries=1, backoff=timedelta(hours=1), heartbeat=timedelta(seconds=30))
    def count(value: int, ctx: StepContext) -> int:
        seen.append((ctx.attempt, ctx.heartbeat_details))
        if ctx.attempt == 1:
            paused_at_work(app)
            app.clock.forward(seconds=20)
            seen.append((ctx.heartbeat("half"), ctx.cancelled.is_set()))
            raise ConnectionError
        return value

    app = served(workflow("counting", input=int, output=int).then(count).commit())
    run = app.workflow("counting").create_run("r")

    assert "paused" == run.start(1).status
    run.unpause()
    app.advance(hours=1)
    assert [(1, None), (True, False), (2, "half")] == seen
    assert 1 == run.result().output


def test_worker_of_a_paused_run_that_another_has_taken_over_writes_nothing() -> None:
    """The run was unpaused while its step was still at work: the one that took it up has told how it ended."""

    @step(semantics="at_most_once")
    def work(value: int) -> int:
        CALLS.append("work")
        paused_at_work(app)
        app.run("r").unpause()
        return value

    app = served(workflow("working", input=int, output=int).then(work).commit())
    run = app.workflow("working").create_run("r")

    assert ("failed", ["work"]) == (run.start(1).status, CALLS)
    error: Any = run.result().error
    assert "MayHaveRun" == error.type


def test_per_step_runs_one_step_and_pauses() -> None:
    """A debugger's way through a workflow."""
    run = served(NESTING).workflow("nesting").create_run("r")
    seen = [run.start(3, per_step=True).status]
    while seen[-1] == "paused":
        seen.append(run.unpause(per_step=True).status)

    assert ["paused", "paused", "paused", "success"] == seen
    assert ["last", "first", "last", "last"] == CALLS


@pytest.mark.parametrize("with_workers", [False, True])
def test_resume_per_step_runs_one_step_and_pauses(with_workers: bool) -> None:
    """Here, also where workers would do it."""
    clock = VirtualClock()
    app = LocalApp(App(ASKING), clock=clock, queue=MemoryQueue(clock) if with_workers else None)
    run = app.workflow("asking").create_run("r")
    run.start(1)
    app.run_until_idle()
    CALLS.clear()

    assert ("paused", ["ask"]) == (run.resume(10, per_step=True).status, CALLS)
    app.run_until_idle()
    assert ["ask"] == CALLS
    assert ("success", 24) == ((result := run.unpause(per_step=True)).status, result.output)


def test_deleted_run_is_gone_and_its_id_free() -> None:
    """Records included: a new run of the same id begins from nothing."""
    app = served(ASKING)
    run = app.workflow("asking").create_run("r")
    run.start(1)
    run.delete()

    with pytest.raises(RunNotFound):
        run.result()
    assert [] == app.list_runs().items
    CALLS.clear()
    assert "suspended" == app.workflow("asking").create_run("r").start(2).status
    assert ["first", "ask"] == CALLS
