"""A step that runs in the place of one that nobody has answered in time, or of an event that has not come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, cast

import pytest

from flowcore import App, DefinitionError, Option, StepContext, Wait, step, workflow
from flowcore.adapters.memory import MemoryStore
from flowcore.core.decide import decide
from flowcore.core.evolve import fold
from flowcore.errors import AlreadyResumed, InvalidPayload, InvariantError, OutsideError, RequestError
from flowcore.inbox import asked as page
from flowcore.keys import RunRef, StepKey
from flowcore.model import Outcome, Topic
from flowcore.testing import LocalApp, VirtualClock
from flowcore.testing.contract import NOW, a_record, a_running_head, an_answer
from flowcore.testing.faults import Call, Fault, FaultyStore, Script, WorkerDied, at_call
from flowcore.testing.invariants import WatchedStore

HOUR = timedelta(hours=1)
PAID = Topic("default", "paid", "A-17")
CALLS: list[Any] = []
MOODS: list[str] = []
TOLD: list[Wait[Any]] = []
ONCE = {"n": 0}


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    for seen in (CALLS, MOODS, TOLD):
        seen.clear()
    ONCE["n"] = 0


def kept() -> int:
    """Another number each time it is called."""
    ONCE["n"] += 1
    return ONCE["n"]


def tell(wait: Wait[Any]) -> None:
    """Tells the director."""
    TOLD.append(wait)


@step
def give_up(order: str, ctx: StepContext) -> str:
    """The last resort; in a bad mood it fails once."""
    CALLS.append(("give_up", ctx.attempt, ctx.timed_out, ctx.idempotency_key, ctx.step_id))
    if MOODS and MOODS.pop() == "bad":
        raise ConnectionError("try again")
    return f"{order} given up"


@step(stand_ins=[give_up], retries=1)
def director(order: str, ctx: StepContext[bool, str]) -> str:
    """Asked when nobody else has answered."""
    CALLS.append(("director", ctx.attempt, ctx.timed_out, ctx.resume_data, ctx.suspend_data))
    number = ctx.once("number", kept)
    if ctx.resume_data is None:
        ctx.suspend("you?", timeout=HOUR, on_timeout=give_up, label="director", notify=tell)
    return f"{order} by director {number}: {ctx.resume_data}"


@step(stand_ins=[director, give_up.clone(id="give-up-at-once")])
def clerk(order: str, ctx: StepContext[int, dict[str, str]]) -> str:
    """Asked first."""
    CALLS.append(("clerk", ctx.attempt, ctx.timed_out, ctx.resume_data))
    number = ctx.once("number", kept)
    if ctx.resume_data is None:
        ctx.suspend({"who": "clerk"}, timeout=HOUR, on_timeout=director)
    return f"{order} by clerk {number}: {ctx.resume_data}"


FLOW = workflow("w", input=str, output=str).then(clerk).commit()


@step
def remind(order: str) -> int:
    """What it costs to wait."""
    return len(order)


def paid(**options: Any) -> Any:
    """Waits for a payment, an hour."""
    return workflow("p", input=str).wait_for_event("paid", key="A-17", model=int, timeout=HOUR, id="payment", **options)


def local(flow: Any = FLOW, store: Any = None, clock: VirtualClock | None = None) -> LocalApp:
    """An App on virtual time."""
    return LocalApp(App(flow), store=store, clock=clock)


def begun(app: LocalApp) -> Any:
    """A run of the one workflow."""
    run = app.workflow(next(iter(app.workflows))).create_run("r")
    run.start("A-17")
    return run


def test_stand_in_runs_when_nobody_answers() -> None:
    """It begins like any step: with the same input, its own data and effects, and another key."""
    app = local()
    run = begun(app)
    app.advance(hours=1)
    assert "suspended" == run.result().status
    assert ("clerk@2", "director", "you?") == tuple(
        getattr(run.result().waits[0], name) for name in ("id", "label", "payload")
    )
    assert [("clerk", 1, False, None), ("director", 1, False, None, None)] == CALLS
    assert ["clerk@2"] == [wait.id for wait in TOLD]
    result = run.resume(True, by="dora")
    assert ("success", "A-17 by director 2: True") == (result.status, result.output)
    assert ("director", 1, False, True, "you?") == CALLS[-1]
    assert result.output == result.steps["clerk"].output


def test_answer_in_time_keeps_the_step() -> None:
    """The stand-in never runs."""
    app = local()
    run = begun(app)
    assert "A-17 by clerk 1: 5" == run.resume(5).output
    app.advance(hours=5)
    assert {"clerk"} == {call[0] for call in CALLS}


def test_stand_in_may_have_one_itself() -> None:
    """And is retried as it says itself."""
    MOODS.append("bad")
    app = local(workflow("w", input=str, output=str, retries=1).then(clerk))
    run = begun(app)
    app.advance(hours=3)
    assert ("success", "A-17 given up") == (run.result().status, run.result().output)
    key = "r/clerk!director:give_up"
    assert [("give_up", 1, False, key, "give_up"), ("give_up", 2, False, key, "give_up")] == CALLS[2:]


def test_stand_in_that_fails_fails_its_place() -> None:
    """With the id of the place; a redriven run goes on with the stand-in."""
    MOODS.append("bad")
    app = local()
    run = begun(app)
    app.advance(hours=3)
    error = run.result().error
    assert ("failed", "ConnectionError", "clerk") == (run.result().status, error.type, error.step)
    assert "A-17 given up" == run.redrive().output
    assert ["give_up", "give_up"] == [call[0] for call in CALLS[2:]]


@pytest.mark.parametrize("is_asked", [False, True])
def test_stand_in_of_an_event_that_has_failed_is_called_again(is_asked: bool) -> None:
    """In a redriven run, as one of a step is: the event has not come, and what the stand-in was answered was for it."""

    @step
    def beg(order: str, ctx: StepContext[int]) -> int:
        CALLS.append(ctx.resume_data)
        if is_asked and ctx.resume_data is None:
            ctx.suspend()
        if MOODS and MOODS.pop() == "bad":
            raise ConnectionError("try again")
        return ctx.resume_data or 0

    MOODS.append("bad")
    app = local(paid(on_timeout=beg).commit())
    run = begun(app)
    app.advance(hours=2)
    if is_asked:
        run.resume(5, by="ada")
    assert "failed" == run.result().status
    CALLS.clear()

    went = run.redrive()

    given = 5 if is_asked else None
    assert ("success", given or 0, [given]) == (went.status, went.output, CALLS)


def test_answer_to_the_step_that_was_replaced_is_stale() -> None:
    """Nobody answered it in time; the answer must fit whoever runs there now."""
    app = local()
    run = begun(app)
    app.advance(hours=1)
    with pytest.raises(RequestError):
        run.resume(5, wait="clerk@0")
    with pytest.raises(InvalidPayload):
        run.resume({"not": "a bool"})
    app.advance(hours=1)
    with pytest.raises(AlreadyResumed, match="timeout"):
        run.resume(True, wait="clerk@2")


def test_stand_in_has_heartbeat_details_of_its_own() -> None:
    """What the first step told last is not how far the second is; each has its own after a failure."""
    found: list[Any] = []

    @step(retries=1)
    def deputy(order: str, ctx: StepContext) -> str:
        found.append(("deputy", ctx.heartbeat_details))
        if ctx.attempt == 1:
            ctx.heartbeat({"page": 1})
            ctx.heartbeat({"page": 2})
            raise ConnectionError("try again")
        return order

    @step(stand_ins=[deputy], retries=1)
    def first(order: str, ctx: StepContext[int]) -> str:
        found.append(("first", ctx.heartbeat_details))
        ctx.heartbeat(5 if ctx.heartbeat_details is None else 6)
        if ctx.attempt == 1:
            raise ConnectionError("try again")
        ctx.suspend(timeout=HOUR, on_timeout=deputy)

    app = local(workflow("w", input=str, output=str).then(first).commit(), store=WatchedStore(MemoryStore()))
    run = begun(app)
    app.advance(hours=3)
    assert "success" == run.result().status
    assert [("first", None), ("first", 5), ("deputy", None), ("deputy", {"page": 2})] == found


def test_stand_in_follows_one_of_several_options() -> None:
    """The deadline is one for all of them."""

    @step(stand_ins=[give_up])
    def either(order: str, ctx: StepContext[bool]) -> str:
        ctx.suspend_any([Option("a"), Option("b", key="A-17", event="paid")], timeout=HOUR, on_timeout=give_up)

    app = local(workflow("w", input=str).then(either))
    run = begun(app)
    app.advance(hours=1)
    assert "A-17 given up" == run.result().output
    assert () == app.store.mail(PAID, app.clock.now()).listeners


def test_stand_in_works_in_loops_and_items() -> None:
    """Each turn and each item has its own."""
    flow = workflow("w", input=list[str], output=list[str]).foreach(clerk, concurrency=2)
    app = local(flow)
    run = app.workflow("w").create_run("r")
    run.start(["a", "b"])
    app.advance(hours=1)
    run.resume(True, index=1)
    app.advance(hours=1)
    outputs = run.result().output or []
    assert ["a given up", "b by director"] == [output.split(" 4", 1)[0].split(" 3", 1)[0] for output in outputs]


# -- events -----------------------------------------------------------------------------------------------------------


def test_event_that_does_not_come_has_a_step_run() -> None:
    """With the value that stands before the entry; nobody listens any more."""
    app = local(paid(on_timeout=remind))
    run = begun(app)
    app.advance(hours=1)
    assert ("success", 4) == (run.result().status, run.result().output)
    assert () == app.store.mail(PAID, app.clock.now()).listeners
    assert "buffered" == app.send_event("paid", "A-17", 9).verdict


@pytest.mark.parametrize("value", [0, 7, None])
def test_event_that_does_not_come_may_mean_a_value(value: int | None) -> None:
    """None among them; without a step's call."""
    app = local(paid(on_timeout=value))
    run = begun(app)
    with pytest.raises(InvalidPayload):
        app.send_event("paid", "A-17", None)
    app.advance(hours=1)
    assert ("success", value) == (run.result().status, run.result().output)


def test_event_in_time_is_the_value() -> None:
    """Whatever would have come instead."""
    for on_timeout in (remind, 0, None, "fail"):
        app = local(paid(on_timeout=on_timeout))
        run = begun(app)
        app.send_event("paid", "A-17", 9)
        app.advance(hours=2)
        assert 9 == run.result().output


def test_stand_in_of_an_event_may_ask_somebody() -> None:
    """By the entry's id; an event is too late for that."""
    app = local(
        workflow("p", input=str).wait_for_event("paid", key="A-17", timeout=HOUR, on_timeout=director, id="payment")
    )
    run = begun(app)
    app.advance(hours=1)
    assert "buffered" == app.send_event("paid", "A-17", 9).verdict
    assert "A-17 by director 1: True" == run.resume(True, step="payment").output


def test_stand_in_of_an_event_goes_on_after_a_deploy() -> None:
    """A step more behind it is a definition that fits; so is one that no longer waits so long."""
    waits = workflow("p", input=str).wait_for_event
    base = waits("paid", key="A-17", timeout=HOUR, on_timeout=director, id="payment")
    app = local(base)
    begun(app)
    app.advance(hours=1)
    other = local(base.then(remind), app.store, app.clock)
    assert ("success", len("A-17 by director 1: True")) == (
        other.run("r").resume(True).status,
        other.run("r").result().output,
    )


# -- what cannot be ---------------------------------------------------------------------------------------------------


def test_stand_in_that_is_not_declared_fails_the_step() -> None:
    """Another process could not find it again; the error says what to write."""

    @step
    def asks(order: str, ctx: StepContext[bool]) -> str:
        ctx.suspend(timeout=HOUR, on_timeout=give_up)

    error = begun(local(workflow("w", input=str).then(asks))).result().error
    assert r"@step(stand_ins=[give_up])" in error.message


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: step(stand_ins=cast("Any", give_up))(str), "no list of steps"),
        (lambda: step(stand_ins=[FLOW])(str), "no list of steps"),
        (lambda: step(stand_ins=[give_up, give_up])(str), "two steps of the same id"),
        (lambda: paid(on_timeout="text").commit(), "does not fit its output type"),
        (lambda: paid(on_timeout=FLOW).commit(), "which cannot stand in"),
        (lambda: workflow("p").wait_for_event("paid", key="k", on_timeout=1).commit(), "of no use without timeout="),
    ],
)
def test_stand_in_that_cannot_be_is_told_in_time(build: Callable[[], Any], words: str) -> None:
    """When the step or the workflow is made."""
    with pytest.raises(DefinitionError, match=words):
        build()


@pytest.mark.parametrize("hours", [0, 1])
def test_run_whose_stand_in_a_deploy_has_removed_is_blocked(hours: int) -> None:
    """Before the deadline and after it; deployed again, it goes on."""
    app = local()
    run = begun(app)
    app.advance(hours=hours)

    @step(id="clerk")
    def without(order: str, ctx: StepContext[int]) -> str:
        return order

    other = local(workflow("w", input=str, output=str).then(without), app.store, app.clock)
    other.run("r").pause()
    result = other.run("r").unpause()
    assert ("paused", True) == (result.status, "director" in str(result.blocked))
    app.run("r").unpause()
    app.advance(hours=4)
    assert "A-17 given up" == run.result().output


def test_stand_ins_are_part_of_the_definition_only_where_there_are_some() -> None:
    """A workflow without is what it was before there were any; one with shows them."""

    def made(**options: Any) -> Any:
        return workflow("w", input=str).then(step(id="s", **options)(len)).commit()

    assert made().compiled.fingerprint == made(stand_ins=[]).compiled.fingerprint
    assert made().compiled.fingerprint != made(stand_ins=[remind]).compiled.fingerprint
    assert ["remind"] == made(stand_ins=[remind]).graph()["nodes"][0]["stand_ins"]
    assert "stand_ins" not in made().graph()["nodes"][0]
    assert ["remind"] == paid(on_timeout=remind).commit().graph()["nodes"][0]["stand_ins"]


def test_stand_in_that_is_gone_is_never_passed_over() -> None:
    """A run that got past the check of its definition all the same stops with an error of ours."""
    taken_over = a_record("clerk", Outcome.RESU, gen=1, instead=("nobody", 1), answer=an_answer(None, timed_out=True))
    with pytest.raises(InvariantError, match="'nobody' can stand in"):
        decide(FLOW.compiled, fold(a_running_head(), [taken_over]), NOW)


# -- whoever races, whoever dies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("outer", ["answer", "deadline"])
def test_deadline_and_answer_have_one_winner(outer: str) -> None:
    """The other one comes at any call to the store: the clerk's answer counts, or the director is asked, never both."""
    number, met, ends = 0, True, set()
    while met:
        number += 1
        end, met = meet(outer, number)
        ends.add(end)
        CALLS.clear()
    assert number > 2
    assert {"clerk", "director"} == ends


def meet(outer: str, number: int) -> tuple[str, bool]:
    """Who has the last word, and whether the two met at the call of that number."""
    clock, watched, done = VirtualClock(), WatchedStore(MemoryStore(), {"w": FLOW.compiled}), list[int]()
    app = local(FLOW, watched, clock)
    run = begun(app)
    clock.forward(hours=1)

    def arrive(what: str, app: LocalApp) -> None:
        with suppress(RequestError):
            app.resume("r", 5, wait="clerk@0") if what == "answer" else app.look(RunRef("default", "r"))

    def script(call: Call) -> None:
        if call.number == number:
            done.append(number)
            arrive("deadline" if outer == "answer" else "answer", app)

    arrive(outer, local(FLOW, FaultyStore(watched, script), clock))
    record = watched.records[RunRef("default", "r"), 1, StepKey("clerk")]
    if record.instead is None:
        app.advance(minutes=30)
        assert run.result().output.startswith("A-17 by clerk"), f"at call {number}"
        assert 2 == len(CALLS), f"at call {number}"
        return "clerk", bool(done)
    run.resume(True)
    assert run.result().output.startswith("A-17 by director"), f"at call {number}"
    return "director", bool(done)


def play(script: Script) -> LocalApp:
    """A run that is answered by nobody, whatever happens."""
    watched = WatchedStore(MemoryStore(), {"w": FLOW.compiled})
    app = local(FLOW, FaultyStore(watched, script))
    for _ in range(8):
        with suppress(WorkerDied, OutsideError):
            begun(app)
            break
    for _ in range(8):
        with suppress(WorkerDied, OutsideError):
            app.advance(hours=1)
    calm = local(FLOW, watched, app.clock)
    calm.advance(hours=2)
    return calm


@pytest.mark.parametrize("fault", list(Fault))
def test_stand_ins_run_whatever_dies(fault: Fault) -> None:
    """One fault at any call to the store: the last stand-in's word counts, and each keeps its own effect."""
    calls: list[Call] = []
    play(calls.append)
    verbs = frozenset(call.verb for call in calls) - {"due"}
    for number in range(1, len([call for call in calls if call.verb in verbs]) + 1):
        app = play(at_call(number, fault, verbs=verbs))
        assert "A-17 given up" == app.run("r").result().output, f"{fault} at call {number}"
        loaded = app.store.load(RunRef("default", "r"))
        assert loaded is not None
        assert ["clerk!director:number", "clerk!number"] == sorted(key for key in loaded[1] if key.endswith("number"))


def test_page_asks_for_what_the_stand_in_takes() -> None:
    """And not for what the step would have taken that nobody has answered."""

    @step
    def boss(value: int, ctx: StepContext[int]) -> int:
        return ctx.suspend() if ctx.resume_data is None else value + ctx.resume_data

    @step(stand_ins=[boss])
    def ask(value: int, ctx: StepContext[bool]) -> int:
        return ctx.suspend(timeout=HOUR, on_timeout=boss) if ctx.resume_data is None else value

    app = LocalApp(App(workflow("w", input=int, output=int).then(ask).commit()))
    run = app.workflow("w").create_run("r")
    types = [page(app, "r", run.start(1).waits[0].id).answer.type]
    app.advance(hours=1)
    types.append(page(app, "r", run.result().waits[0].id).answer.type)
    assert [bool, int] == types
