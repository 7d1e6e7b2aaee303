"""Going on with a failed run: what has failed is done again, what was committed stays."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest
from pydantic import BaseModel

from flowcore import App, StepContext, create_step, step, workflow
from flowcore.adapters.memory import MemoryQueue, MemoryStore
from flowcore.core.evolve import fold
from flowcore.core.redrive import redriven
from flowcore.core.rewind import rewound
from flowcore.errors import (
    ConflictError,
    DefinitionChanged,
    NotFailed,
    NotRecorded,
    RunExists,
    RunFinished,
    RunNotFound,
)
from flowcore.keys import RunRef, StepKey
from flowcore.model import Outcome, RunStatus, Topic
from flowcore.pace import Pace
from flowcore.testing import LocalApp, VirtualClock
from flowcore.testing.faults import Call, FaultyStore
from flowcore.testing.invariants import WatchedStore
from tests.builders import NOW, a_graph, a_record, a_run, a_workflow, an_answer

CALLS: list[Any] = []
BROKEN: set[Any] = set()


@pytest.fixture(autouse=True)
def _nothing_yet() -> None:
    CALLS.clear()
    BROKEN.clear()


def work(value: Any) -> Any:
    """Adds one, unless this value, or everything, is broken."""
    CALLS.append(value)
    if value in BROKEN or "all" in BROKEN:
        raise ValueError(f"{value} is broken")
    return value + 1


@step
def first(value: int, ctx: StepContext) -> int:
    """Works, and remembers."""
    ctx.set_state({"first": value})
    return int(work(value))


@step
def second(value: int) -> int:
    """Works."""
    return int(work(value))


@step
def pay(value: int, ctx: StepContext) -> str:
    """Does something outside, under its idempotency key."""
    work(value)
    return ctx.idempotency_key


@step
def ask(value: int, ctx: StepContext[int]) -> int:
    """Works with what somebody answers."""
    if ctx.resume_data is None:
        ctx.suspend()
    return int(work(value * ctx.resume_data))


def served(*flows: Any, **options: Any) -> LocalApp:
    """A LocalApp that serves these workflows."""
    return LocalApp(App(*flows), **options)


def failed(app: LocalApp, value: Any = 1, *broken: Any) -> Any:
    """A run of the App's first workflow that has failed; nothing is broken any more."""
    BROKEN.update(broken or {value})
    run = app.workflow(next(iter(app.workflows))).create_run("r")
    assert "failed" == run.start(value).status
    BROKEN.clear()
    CALLS.clear()
    return run


TWO = workflow("two", input=int, output=int).then(first).then(second).commit()


def test_redrive_repeats_the_failed_step_alone() -> None:
    """What stands in front of it keeps its output and its state."""
    app = served(TWO)
    failed(app, 1, 2)

    result = app.redrive("r")

    assert ("success", 3, {"first": 1}, [2]) == (result.status, result.output, result.state, CALLS)


def test_redrive_of_what_is_still_broken_fails_again_and_can_be_repeated() -> None:
    """As often as it takes."""
    run = failed(served(TWO), 1, 2)
    BROKEN.add(2)
    assert "failed" == run.redrive().status
    assert "failed" == run.redrive().status
    BROKEN.clear()

    assert (3, [2, 2, 2]) == (run.redrive().output, CALLS)


def test_redrive_gives_all_retries_again() -> None:
    """The first try is tried, and those that follow it."""
    flow = workflow("flow", input=int).then(create_step(id="s", execute=work, retries=2)).commit()
    run = failed(served(flow))
    BROKEN.add(1)

    assert ("failed", [1, 1, 1]) == (run.redrive().status, CALLS)


def test_redrive_calls_a_step_under_the_idempotency_key_it_had() -> None:
    """Its effect may have happened before it failed; time travel repeats it on purpose, and has another key."""
    run = failed(served(workflow("flow", input=int).then(pay).commit()))

    assert "r/pay" == run.redrive().output
    assert "r/pay" != (other := run.time_travel("pay").output)
    BROKEN.add("all")
    run.time_travel("pay")
    BROKEN.clear()
    again = run.redrive().output
    assert again not in ("r/pay", other)
    assert "/pay" in again


def test_redrive_keeps_what_once_stored() -> None:
    """It happened."""
    numbers = count(1)

    @step
    def once(value: int, ctx: StepContext) -> int:
        number: int = ctx.once("number", lambda: next(numbers))
        work(value)
        return number

    run = failed(served(workflow("flow", input=int).then(once).commit()))

    assert (1, 2) == (run.redrive().output, next(numbers))


def test_redrive_keeps_the_answer_of_a_step_that_failed_with_it() -> None:
    """Nobody is asked twice."""
    app = served(workflow("flow", input=int).then(ask).commit())
    run = app.workflow("flow").create_run("r")
    run.start(2)
    BROKEN.add(20)
    assert "failed" == run.resume(10, by="boss", idempotency_key="k").status
    BROKEN.clear()

    assert 21 == run.redrive().output
    assert "duplicate" == (run.resume(10, idempotency_key="k").receipt or pytest.fail("no receipt")).verdict


def test_redrive_keeps_the_input_that_time_travel_gave() -> None:
    """Not the one in front of the step."""
    app = served(TWO)
    run = app.workflow("two").create_run("r")
    run.start(1)
    BROKEN.add(70)
    assert "failed" == run.time_travel("second", input=70).status
    BROKEN.clear()

    assert 71 == run.redrive().output


def test_redrive_asks_anew_where_nobody_answered_in_time() -> None:
    """With a deadline of its own."""

    @step
    def wait(value: int, ctx: StepContext[int]) -> int:
        if ctx.resume_data is None:
            ctx.suspend(timeout=timedelta(hours=1), on_timeout="fail")
        return value + ctx.resume_data

    app = served(workflow("flow", input=int).then(wait).commit())
    run = app.workflow("flow").create_run("r")
    old = run.start(1).waits[0]
    app.advance(hours=2)
    assert "failed" == run.result().status

    new = run.redrive().waits[0]

    assert app.clock.now() + timedelta(hours=1) == new.deadline
    assert old.id != new.id
    assert 3 == run.resume(2, wait=new.id).output


@pytest.mark.parametrize("verb", ["redrive", "time_travel"])
def test_what_nobody_could_answer_in_time_is_asked_with_all_its_time_again(verb: str) -> None:
    """Its deadline passed while the run had ended; one that passed before, or is still to come, stays what it was."""
    hour, graph = timedelta(hours=1), a_graph(lambda w: w.parallel(ask, pay, second, first))
    waits = {"ask": -hour, "pay": -3 * hour, "second": hour}
    records = [a_record(key, Outcome.SUSP, until=NOW + until, at=NOW - 9 * hour) for key, until in waits.items()]
    head = replace(a_run(status=RunStatus.FAILED).head, updated_at=NOW - 2 * hour)
    run = fold(head, [*records, a_record("first", Outcome.ERR)])
    every = redriven(graph, run, NOW)
    if verb != "redrive":
        every = rewound(graph, run, "first", given=None, outputs={}, now=NOW)
    standing = {record.key: (record.at, record.until) for record in every if record.outcome is Outcome.SUSP}

    kept = {record.key: (record.at, record.until) for record in records}
    assert {**kept, StepKey("ask"): (NOW, NOW + 8 * hour)} == standing


def test_deadline_of_a_run_that_has_not_ended_passes_though_it_travels_in_time() -> None:
    """Who was asked could have answered."""
    graph = a_graph(lambda w: w.parallel(ask, first))
    asked = a_record("ask", Outcome.SUSP, until=NOW, at=NOW - timedelta(hours=9))

    (kept,) = rewound(graph, a_run(asked), "first", given=None, outputs={}, now=NOW)
    assert (asked.at, NOW) == (kept.at, kept.until)


def test_redrive_repeats_every_arm_that_failed() -> None:
    """The sibling that succeeded does not run again, the one that waits still does."""
    arms = [second.clone(id=id) for id in "abc"]
    app = served(workflow("flow", input=int).parallel(*arms, ask).commit())
    BROKEN.add(1)
    run = app.workflow("flow").create_run("r")
    assert "failed" == run.start(1).status
    BROKEN.clear()
    CALLS.clear()

    result = run.redrive()

    assert ("suspended", [1, 1, 1]) == (result.status, CALLS)
    assert {"a": 2, "b": 2, "c": 2, "ask": 6} == run.resume(5).output


def test_redrive_repeats_every_item_that_failed() -> None:
    """The other items keep their outputs."""
    app = served(workflow("flow", input=list[int]).foreach(second, concurrency=5).commit())
    run = failed(app, [1, 2, 3, 4], 2, 4)

    assert ([2, 3, 4, 5], [2, 4]) == (run.redrive().output, CALLS)


def test_redrive_leaves_tolerated_items_alone() -> None:
    """That foreach has succeeded; the step behind it has not."""
    flow = workflow("flow", input=list[int]).foreach(second, tolerated_failures=1).then(step(id="sum")(sum_))
    run = failed(served(flow.commit()), [1, 2, 3], 2, "sum")

    assert (6, []) == (run.redrive().output, CALLS)


def sum_(values: list[Any]) -> int:
    """Adds what is there."""
    if "sum" in BROKEN:
        raise ValueError("sum")
    return sum(value or 0 for value in values)


CHILD = workflow("child", input=int, output=int).then(first).then(second).commit()


def test_redrive_goes_into_nested_workflows() -> None:
    """The child goes on where it failed."""
    run = failed(served(workflow("flow", input=int).then(second, id="before").then(CHILD).commit()), 1, 3)

    assert (4, [3], {"first": 2}) == (run.redrive().output, CALLS, run.result().state)


def test_redrive_goes_into_the_items_of_a_foreach_of_workflows() -> None:
    """Each at its own place."""
    run = failed(served(workflow("flow", input=list[int]).foreach(CHILD, concurrency=3).commit()), [1, 10, 20], 2, 20)

    assert [3, 12, 22] == run.redrive().output
    assert [2, 20, 21] == sorted(CALLS)


@pytest.mark.parametrize("body", [second, CHILD], ids=["step", "workflow"])
def test_redrive_goes_on_with_the_turn_of_a_loop_that_failed(body: Any) -> None:
    """The turns before it are over; also when it fails there again."""
    run = failed(served(workflow("flow", input=int).dountil(body, lambda value: value >= 7).commit()), 1, 5)
    BROKEN.add(5)
    assert "failed" == run.redrive().status
    BROKEN.clear()
    CALLS.clear()

    assert (7, [5, 6]) == (run.redrive().output, CALLS)


def test_redrive_of_a_failed_condition_does_not_repeat_the_turn() -> None:
    """Only the question is asked again."""

    def is_enough(value: int) -> bool:
        if "condition" in BROKEN:
            raise ValueError("condition")
        return value > 2

    run = failed(served(workflow("flow", input=int).dountil(second, is_enough).commit()), 1, "condition")

    assert (3, [2]) == (run.redrive().output, CALLS)


def test_redrive_evaluates_a_failed_branch_again() -> None:
    """No arm had been chosen."""

    def is_small(value: int) -> bool:
        if "condition" in BROKEN:
            raise ValueError("condition")
        return value < 5

    run = failed(served(workflow("flow", input=int).branch((is_small, second), id="br").commit()), 1, "condition")

    assert {"second": 2} == run.redrive().output


def test_redrive_goes_into_the_arm_that_was_chosen() -> None:
    """The choice stands."""
    run = failed(served(workflow("flow", input=int).branch((lambda _: True, CHILD)).commit()), 1, 2)

    assert ({"child": 3}, [2]) == (run.redrive().output, CALLS)


def test_redrive_of_a_workflow_that_was_never_entered_enters_it() -> None:
    """Its input did not fit; what gave it is another one now."""
    app = served(workflow("flow", input=str).then(CHILD).commit())
    run = app.workflow("flow").create_run("r")
    assert "failed" == run.start("x").status

    assert "failed" == run.redrive().status


def test_redrive_of_an_output_that_did_not_fit_ends_the_run_with_the_type_at_hand() -> None:
    """No step has failed, none runs again."""
    app = served(a_workflow(lambda w: w.then(second), input=int, output=str))
    run = failed(app, 1, "nothing")
    assert "failed" == run.redrive().status
    mended = LocalApp(App(workflow("flow", input=int, output=int).then(second).commit()), store=app.store)

    assert (2, []) == (mended.redrive("r").output, CALLS)


def test_redrive_of_a_run_that_was_handed_on_too_often_goes_on() -> None:
    """The count begins anew."""
    clock = VirtualClock()
    app = served(TWO, pace=Pace(most_hops=0), queue=MemoryQueue(clock), clock=clock)
    run = app.workflow("two").create_run("r")
    run.start(1)
    app.look(RunRef("default", "r"), deadline=clock.now() + timedelta(seconds=1))
    assert "TooManyHops" == (run.result().error or pytest.fail("no error")).type
    patient = LocalApp(App(TWO), store=app.store, clock=app.clock)

    assert (3, [1, 2]) == (patient.redrive("r").output, CALLS)


def test_redrive_of_a_failure_that_could_not_be_stored_calls_the_step_again() -> None:
    """Its record stands as the answer has left it: nothing in a new life begins as resumed, so it is a retry."""
    graph = a_graph(lambda w: w.then(ask))
    resumed = a_record("ask", Outcome.RESU, answer=an_answer(5), gen=1, attempt=0)
    (kept,) = redriven(graph, a_run(resumed, status=RunStatus.FAILED), NOW)

    assert (Outcome.RETRY, resumed.answer, NOW) == (kept.outcome, kept.answer, kept.until)


@pytest.mark.parametrize("status", ["suspended", "success", "canceled", "paused"])
def test_redrive_of_a_run_that_has_not_failed_is_refused(status: str) -> None:
    """And tells what it is."""
    app = served(workflow("flow", input=int).then(ask).commit())
    run = app.workflow("flow").create_run("r")
    run.start(1)
    _ = {"success": lambda: run.resume(1), "canceled": run.cancel, "paused": run.pause}.get(status, run.result)()

    with pytest.raises(NotFailed, match=status) as refused:
        run.redrive()
    assert {"run_status": status} == refused.value.details()


def test_redrive_asked_for_twice_happens_once() -> None:
    """The second one is told that there is nothing to redrive any more."""
    clock = VirtualClock()
    app = served(TWO, queue=MemoryQueue(clock), clock=clock)
    run = app.workflow("two").create_run("r")
    BROKEN.add(2)
    run.start(1)
    app.run_until_idle()
    BROKEN.clear()
    CALLS.clear()

    assert "running" == run.redrive().status
    with pytest.raises(NotFailed, match="running"):
        run.redrive()
    app.run_until_idle()
    assert (3, [2]) == (run.result().output, CALLS)


def test_two_redrives_at_the_same_time_are_one() -> None:
    """The slower one loses on the head; what it has written in its own life is never read."""
    app = served(TWO)
    run = failed(app, 1, 2)
    move, races = app.engine.store.move, [True]

    def raced(head: Any, *, version: int) -> Any:
        if races and races.pop():
            assert 3 == run.redrive().output
        return move(head, version=version)

    app.engine.store.move = raced  # type: ignore[method-assign]  # the other one, exactly in between

    with pytest.raises(NotFailed, match="success"):
        run.redrive()
    assert [2] == CALLS


def test_redrive_under_code_that_does_not_fit_is_refused() -> None:
    """The run stays failed, and can be redriven by code that does."""
    app = served(TWO)
    failed(app, 1, 2)
    other = LocalApp(App(workflow("two", input=int).then(first, id="renamed").then(second).commit()), store=app.store)

    with pytest.raises(DefinitionChanged, match="'first'"):
        other.redrive("r")
    assert 3 == app.redrive("r").output


def test_redrive_takes_over_steps_that_a_deploy_has_inserted() -> None:
    """In front of what was reached: skipped. Behind it: run."""
    app = served(TWO)
    failed(app, 1, 2)
    flow = a_workflow(lambda w: w.then(pay).then(first).then(second).then(second, id="third"), "two")

    result = LocalApp(App(flow), store=app.store).redrive("r")

    assert (4, "skipped", [2, 3]) == (result.output, result.steps["pay"].status, CALLS)


def behind_another(*steps: Any) -> Any:
    """A workflow of these steps next to another one, all of it in ``flow``."""
    return a_workflow(lambda w: w.parallel(first, a_workflow(lambda inner: _then(inner, *steps), "inner")), "flow")


def _then(flow: Any, *steps: Any) -> Any:
    for each in steps:
        flow = flow.then(each)
    return flow


@pytest.mark.parametrize("verb", ["time_travel", "fork"])
def test_going_back_takes_over_steps_that_a_deploy_has_inserted(verb: str) -> None:
    """In front of what a sibling has reached they are skipped, as in every run that goes on."""
    app = served(behind_another(second, ask))
    run = app.workflow("flow").create_run("r")
    run.start(1)
    CALLS.clear()
    later = LocalApp(App(behind_another(second, pay, ask)), store=app.store, clock=app.clock)

    went = getattr(later.run("r"), verb)("first")
    result = later.run(went.run_id).resume(7)

    assert ("success", {"first": 2, "inner": 15}, [1, 14]) == (result.status, result.output, CALLS)
    assert "skipped" == result.steps["inner.pay"].status


@pytest.mark.parametrize("verb", ["time_travel", "fork"])
@pytest.mark.parametrize("ended", [False, True])
def test_going_back_under_code_that_does_not_fit_is_refused(verb: str, ended: bool) -> None:
    """Nobody asks a sibling's question any more, or what stands in front is of another kind: the run is untouched."""
    before = a_workflow(lambda w: w.sleep(timedelta(0), id="pause").then(first), "flow")
    after = a_workflow(lambda w: w.then(second, id="pause").then(first), "flow")
    changed = (before, after) if ended else (behind_another(second, ask), behind_another(second, pay))
    app = served(changed[0])
    app.workflow("flow").create_run("r").start(1)
    standing = app.engine.read(RunRef("default", "r"))
    CALLS.clear()
    other = LocalApp(App(changed[1]), store=app.store, clock=app.clock)

    with pytest.raises(DefinitionChanged, match="'pause' was of another kind" if ended else "'inner.ask'"):
        getattr(other.run("r"), verb)("first")
    assert ([], standing) == (CALLS, app.engine.read(RunRef("default", "r")))
    assert ["r"] == [each.run_id for each in app.list_runs()]


def test_redrive_of_no_run_says_so() -> None:
    """As every verb does."""
    with pytest.raises(RunNotFound):
        served(TWO).redrive("nobody")


def test_links_of_the_failed_life_answer_no_more() -> None:
    """The suspension is another one now, and its link another link."""
    app = served(workflow("flow", input=int).parallel(second, ask).commit())
    run = app.workflow("flow").create_run("r")
    BROKEN.add(1)
    run.start(1)
    old = next(record for record in app.engine.read(run._existing()).records if record == "ask")
    with pytest.raises(RunFinished):
        run.resume(5, wait=f"{old}@0")
    BROKEN.clear()

    wait = run.redrive().waits[0].id
    with pytest.raises(Exception, match="not suspended"):
        run.resume(5, wait=f"{old}@0")
    assert "success" == run.resume(5, wait=wait).status


@pytest.mark.parametrize("verb", ["redrive", "time_travel", "fork"])
def test_a_wait_for_an_event_is_told_of_it_in_the_new_life(verb: str) -> None:
    """It stands beside the step that begins again, and listens under its new id."""
    flow = workflow("flow", input=int).then(child := waiting()).commit()
    app = served(workflow("flow", input=int).parallel(second, child).commit(), flow.clone(id="other"))
    run = app.workflow("flow").create_run("r")
    BROKEN.add(1)
    assert "failed" == run.start(1).status
    BROKEN.clear()
    again = run.redrive() if verb == "redrive" else getattr(run, verb)("second")
    assert "suspended" == again.status

    assert "applied" == app.send_event("paid", "1", 5).verdict
    assert {"second": 2, "waiting": 5} == app.run(again.run_id).result().output


class Piecemeal(FaultyStore):
    """Brings joins, listeners and records one after the other, as a store does that has to bring very many."""

    def bring(self, incarnation: int, records: Any, *, joins: Any = (), listeners: Any = ()) -> bool:
        """See ``Store.bring``."""
        is_new = super().bring(incarnation, (), joins=joins) and super().bring(incarnation, (), listeners=listeners)
        return is_new and super().bring(incarnation, records)


@pytest.mark.parametrize("instant", ["listeners", "records", "head", "worker"])
@pytest.mark.parametrize("how", [None, {}, {"distributed": True}], ids=["arms", "items", "distributed"])
@pytest.mark.parametrize("verb", ["redrive", "time_travel", "fork"])
def test_an_event_that_comes_while_a_life_begins_leaves_the_other_waits_listening(
    verb: str, how: dict[str, Any] | None, instant: str
) -> None:
    """Two wait for the same: one takes what came before there was anybody to take it, the other one the next."""
    store, clock = WatchedStore(MemoryStore()), VirtualClock()
    queue, told = MemoryQueue(clock), list[str]()
    waits: Any = workflow("waits", input=int)
    if how is None:
        waits = waits.parallel(waiting(), waiting().clone(id="as-well"), id="both")
    else:
        waits = waits.map(lambda number: [number, number], id="both").foreach(waiting(), concurrency=2, **how)
    flow = workflow("flow", input=int).parallel(second, waits.commit()).commit()
    other = served(flow, store=store, clock=clock, queue=queue)
    run = other.workflow("flow").create_run("r")
    BROKEN.add(1)
    run.start(1)
    other.run_until_idle()
    assert "failed" == run.result().status
    BROKEN.clear()
    parts = iter(["joins", "listeners", "records"])

    def comes(call: Call) -> None:
        part = next(parts) if call.verb == "bring" else {"move": "head", "start": "head"}.get(call.verb, call.verb)
        if part == instant and not told:
            told.append(other.send_event("paid", "1", 5).verdict)

    app = served(flow, store=Piecemeal(store, comes), clock=clock, queue=queue)
    old = app.run("r")
    again = old.redrive() if verb == "redrive" else getattr(old, verb)("second")
    if not told:
        comes(Call(number=0, verb=instant))  # before any worker has seen the new life
    is_there = instant == "worker" and how != {"distributed": True}
    assert ["applied" if is_there else "buffered"] == told
    other.run_until_idle()
    assert "suspended" == other.run(again.run_id).result().status
    assert "applied" == other.send_event("paid", "1", 6).verdict
    other.run_until_idle()
    assert "success" == other.run(again.run_id).result().status


@pytest.mark.parametrize("verb", ["redrive", "time_travel"])
def test_nobody_listens_for_a_life_that_came_to_nothing(verb: str) -> None:
    """Another one was faster: whoever lost takes away who listened for the waits of his own."""
    store, clock, begun = WatchedStore(MemoryStore()), VirtualClock(), list[str]()
    flow = workflow("flow", input=int).parallel(second, waiting()).commit()
    other = served(flow, store=store, clock=clock)
    run = failed(other)

    def overtakes(call: Call) -> None:
        if call.verb == "move" and not begun:
            begun.append(run.redrive().status)

    slow: Any = served(flow, store=FaultyStore(store, overtakes), clock=clock).run("r")
    with pytest.raises(NotFailed if verb == "redrive" else ConflictError):
        slow.redrive() if verb == "redrive" else slow.time_travel("second")
    now = clock.now()
    [wait] = run.result().waits
    listening = {listener.wait for listener in store.mail(Topic("default", "paid", "1"), now).listeners}
    assert {wait.id} == listening


class Met(FaultyStore):
    """The first life that is brought has the number of another one, which has just been written."""

    is_met = False

    def bring(self, incarnation: int, records: Any, **others: Any) -> bool:
        """See ``Store.bring``."""
        if not self.is_met:
            self.is_met = True
            run, theirs = records[0]
            assert self.inner.bring(incarnation, [(run, replace(theirs, output="theirs"))])
        return super().bring(incarnation, records, **others)


@pytest.mark.parametrize("verb", ["redrive", "time_travel", "fork"])
def test_a_life_never_begins_with_what_another_of_its_number_has_written(verb: str) -> None:
    """It is begun once more under another number, or refused; and can be asked for again."""
    store = WatchedStore(MemoryStore())
    failed(served(TWO, store=store), 1, 2)
    app = served(TWO, store=Met(store, lambda _: None))
    run: Any = app.run("r")
    ask = run.redrive if verb == "redrive" else partial(getattr(run, verb), "second")
    if verb != "redrive":
        with pytest.raises(ConflictError, match="moved meanwhile"):
            ask()
    assert 3 == app.run(ask().run_id).result().output


def test_nobody_listens_for_a_fork_whose_id_another_run_has_taken_meanwhile() -> None:
    """It was never begun."""
    store, clock = WatchedStore(MemoryStore()), VirtualClock()
    flow = workflow("flow", input=int).parallel(second, waiting()).commit()
    other = served(flow, store=store, clock=clock)
    failed(other)

    def overtakes(call: Call) -> None:
        if call.verb == "start":
            other.workflow(flow).create_run("f").start(7)

    slow: Any = served(flow, store=FaultyStore(store, overtakes), clock=clock).run("r")
    with pytest.raises(RunExists):
        slow.fork("second", run_id="f")
    assert not store.mail(Topic("default", "paid", "1"), clock.now()).listeners


def waiting() -> Any:
    """A nested workflow that waits for an event."""
    return workflow("waiting", input=int).wait_for_event("paid", key=str).commit()


def test_a_step_that_runs_at_most_once_is_called_again_only_if_it_has_failed() -> None:
    """Whoever redrives it has found out how far it came; of one that was never told to have failed nobody has."""
    graph = a_graph(lambda w: w.parallel(ask, second))
    begun, failed_ = a_record("ask", Outcome.START), a_record("second", Outcome.ERR, gen=1)

    kept = redriven(graph, a_run(begun, failed_, status=RunStatus.FAILED), NOW)
    assert [(begun.key, Outcome.START), (failed_.key, Outcome.RETRY)] == [(each.key, each.outcome) for each in kept]


def test_what_time_travel_gave_a_loop_or_a_nested_workflow_is_there_when_it_is_redriven() -> None:
    """What stands before it was skipped, or is another value."""
    inner = workflow("inner", input=int, output=int).then(first).then(second).commit()
    start: Any = workflow("flow", input=int).then(pay)
    flow = start.then(inner).dowhile(pay.clone(id="count"), lambda _: False).commit()
    for place, deeper in (("inner", "inner.second"), ("count", None)):
        app, value = served(flow), 70
        run = app.workflow("flow").create_run()
        BROKEN.update({"all"})
        assert "failed" == run.start(1).status == run.time_travel(place, input=value).status
        BROKEN.clear()
        CALLS.clear()
        if deeper is not None:
            BROKEN.add(value + 1)
            assert "failed" == run.redrive().status
            assert "failed" == run.time_travel(deeper).status
            BROKEN.clear()
        run.redrive()
        assert CALLS[0] == value, place
        assert value + 1 in CALLS if deeper else [value] == CALLS


def test_an_answer_is_told_once_however_often_its_run_is_redriven() -> None:
    """Each life writes down what the one before it knew."""
    app = served(workflow("flow", input=int).then(ask).then(second).commit())
    run = app.workflow("flow").create_run("r")
    run.start(1)
    BROKEN.add("all")
    run.resume(7, by="ada")
    for _ in range(3):
        assert "failed" == run.redrive().status
    assert [("applied", "ada", 1)] == [(one.verdict, one.by, one.times) for one in run.receipts()]


def test_a_deadline_and_a_vote_handed_over_are_told_once_however_many_lives_a_run_has() -> None:
    """Under the id of the suspension that they befell, while it waits and afterwards."""

    @step
    def vote(value: int, ctx: StepContext[int]) -> int:
        if ctx.resume_data is None:
            ctx.suspend(timeout=timedelta(hours=1), on_timeout=7, approvers=["ada", "bob"], quorum=2)
        return value

    start: Any = workflow("flow", input=int)
    waiting_ = start.wait_for_event("paid", key=str, timeout=timedelta(hours=1), on_timeout=0)
    flow = waiting_.parallel(vote, ask.clone(id="beside")).map(lambda found: found["beside"], id="one").then(pay)
    app = served(flow.commit())
    run = app.workflow("flow").create_run("r")
    run.start(1)
    app.advance(hours=1)
    run.delegate(by="bob", to="carl", step="vote")
    told = [("wait-for-paid@0", "timeout", None), ("vote@0", "python", "carl")]
    for _ in range(2):
        run.time_travel("beside")
        assert told == [(one.wait, one.via, one.to) for one in run.receipts()]
    life = run.result().waits[0].id.partition("~")[2]
    app.advance(hours=1)
    BROKEN.add("all")
    run.time_travel("pay", context={"beside": 1, "one": 1})
    for _ in range(2):
        assert "failed" == run.redrive().status
        assert [*told, (f"vote@0~{life}", "timeout", None)] == [(one.wait, one.via, one.to) for one in run.receipts()]


def test_a_nested_workflow_that_time_travel_enters_has_what_it_lets_pass_for_its_input() -> None:
    """What stands in front of it has no output, and is skipped: it lets pass what stands before that."""
    inner = workflow("inner", input=int, output=int).then(first.clone(id="inside")).then(ask).commit()
    app = served(workflow("flow", input=int).then(first).then(inner).commit())
    run = failed(app)
    for given in ({"input": 5}, {"context": {"inner.inside": 5}}):
        went = run.time_travel("inner.ask", **given)
        assert ("suspended", 1) == (went.status, went.steps["inner.inside"].input)
    assert 36 == run.resume(7).output


@pytest.mark.parametrize("verb", ["time_travel", "fork"])
def test_what_was_skipped_gives_the_step_behind_it_no_input(verb: str) -> None:
    """Whoever went there before gave one; the steps in front have no output still, and what they let pass is not it."""
    start: Any = workflow("flow", input=int).then(first).parallel(second.clone(id="arm"), second.clone(id="beside"))
    flow = start.map(lambda found: found["arm"], id="sum").sleep(timedelta(hours=1)).then(second).commit()
    app = served(flow)
    run = failed(app)
    BROKEN.add(70)
    assert "failed" == run.time_travel("second", input=70).status
    BROKEN.clear()
    before = app.engine.read(run._existing())

    for place, missing in (("second", ["sum"]), ("sum", ["arm", "beside"]), ("arm", ["first"])):
        with pytest.raises(NotRecorded) as refused:
            getattr(run, verb)(place)
        assert missing == refused.value.details()["missing"]
    assert before == app.engine.read(run._existing())
    if verb == "time_travel":
        assert 71 == run.redrive().output
    assert 6 == getattr(run, verb)("second", context={"sum": 5}).output
    assert 2 == getattr(run, verb)("first").steps["first"].output


def test_a_step_behind_a_skipped_nested_workflow_is_given_no_input_by_it() -> None:
    """Nor is one inside a nested workflow that was never entered, unless it is told what stands in front of that."""
    inner = workflow("inner", input=int, output=int).then(first.clone(id="inside")).then(second).commit()
    app = served(workflow("flow", input=int).then(first).then(inner).then(pay).commit())
    run = failed(app)
    BROKEN.add("all")
    assert "failed" == run.time_travel("pay", input=70).status
    BROKEN.clear()

    for place, missing in (
        ("pay", ["inner"]),
        ("inner.inside", ["first"]),
        ("inner.second", ["first", "inner.inside"]),
    ):
        with pytest.raises(NotRecorded) as refused:
            run.time_travel(place)
        assert missing == refused.value.details()["missing"]
    for before in (5, 6):
        went = run.time_travel("inner.second", context={"first": before, "inner.inside": 3})
        assert ("success", before, 4) == (went.status, went.steps["inner.inside"].input, went.steps["inner"].output)
    assert 8 == run.time_travel("inner.inside").steps["inner"].output
    assert "success" == run.time_travel("inner.second", input=3).status


class Inner(BaseModel):
    """What a nested workflow takes."""

    value: int
    more: int = 5


class Outer(BaseModel):
    """What the one around it takes: all of it, once defaults are filled in."""

    value: int
    more: int = 7


@step
def telling(given: dict[str, Any]) -> int:
    """Works with what its workflow was given."""
    CALLS.append(given)
    if BROKEN:
        raise ValueError("broken")
    return int(given["more"])


@pytest.mark.parametrize("verb", ["time_travel", "fork", "redrive"])
@pytest.mark.parametrize("is_deep", [False, True])
def test_a_nested_workflow_of_a_new_life_has_its_input_with_defaults(is_deep: bool, verb: str) -> None:
    """However deep it lies, and whoever brings the run into the middle of it."""
    inner = workflow("inner", input=Inner).then(telling).commit()
    flow: Any = workflow("flow", input=int).map(lambda value: {"value": value}, id="plain")
    flow = flow.then(workflow("outer", input=Outer).then(inner).commit()) if is_deep else flow.then(inner)
    run = failed(served(flow.commit()), 1, "all")

    place, more = ("outer.inner.telling", 7) if is_deep else ("inner.telling", 5)
    went = getattr(run, verb)(*(() if verb == "redrive" else (place,)))

    assert (more, {"value": 1, "more": more}) == (went.output, CALLS[-1])


def test_an_arm_that_was_skipped_gives_a_redriven_run_what_it_lets_pass() -> None:
    """As it gave the run itself: an arm that a deploy has inserted, once the run was past it."""

    @step
    def keeping(given: dict[str, int]) -> dict[str, int]:
        if BROKEN:
            raise ValueError("broken")
        return given

    child = workflow("child", input=dict[str, int], output=dict[str, int]).then(keeping).commit()

    def flow(*arms: Any) -> Any:
        return workflow("flow", input=int).parallel(*arms).sleep(timedelta(hours=1), id="nap").then(child).commit()

    before = served(flow(first, second))
    before.workflow("flow").create_run("r").start(1)
    app = served(flow(first, second, second.clone(id="new")), store=before.store, clock=before.clock)
    BROKEN.add("all")
    app.advance(timedelta(hours=1))
    run = app.run("r")
    assert ("failed", "skipped") == ((result := run.result()).status, result.steps["new"].status)
    BROKEN.clear()

    went = run.redrive()

    assert {"first": 2, "second": 2, "new": 1} == went.output == result.steps["child"].input
