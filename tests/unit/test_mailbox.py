"""Events and the waits that they settle: whoever comes first, whoever dies, one event settles one wait."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from random import Random
from typing import Any

import pytest
from pydantic import BaseModel, model_validator

from flowcore import App, DefinitionError, RunResult, Start, StepContext, create_step, step, workflow
from flowcore.adapters.memory import MemoryQueue, MemoryScheduler, MemoryStore
from flowcore.errors import (
    EventNotFound,
    IdempotencyKeyReused,
    InvalidPayload,
    MalformedRequest,
    OutsideError,
    PayloadTooLarge,
)
from flowcore.keys import RunRef
from flowcore.model import EventReceipt, Listener, Mail, Topic
from flowcore.testing import LocalApp, LossyScheduler, Unruly, VirtualClock
from flowcore.testing.faults import Call, Fault, FaultyStore, Script, WorkerDied, at_call
from flowcore.testing.invariants import WatchedStore

PAID = Topic("default", "order.paid", "A-17")
HOUR = timedelta(hours=1)


class Paid(BaseModel):
    """What the shop tells about a payment."""

    cents: int


@step
def book(paid: Paid) -> int:
    """The amount in cents."""
    return paid.cents


@step
def note(value: Any) -> Any:
    """What it is given."""
    return value


def order(**options: Any) -> Any:
    """Waits for the payment of the order it is given."""
    waiting = workflow("order", input=str, output=int).wait_for_event(
        "order.paid", key=lambda o: o, model=Paid, **options
    )
    return waiting.then(book)


def local(*workflows: Any, like: LocalApp | None = None, **options: Any) -> LocalApp:
    """An App on virtual time; ``like`` another: on its store and clock."""
    shared = {} if like is None else {"store": like.store, "clock": like.clock}
    return LocalApp(App(*workflows), **{**shared, **options})


def waiting(app: LocalApp, run_id: str = "r", given: Any = "A-17") -> Any:
    """A run of the first workflow, started; it waits."""
    run = app.workflow(next(iter(app.workflows))).create_run(run_id)
    run.start(given)
    return run


def listeners(app: LocalApp, topic: Topic = PAID) -> list[str]:
    """Runs that are known to wait for the payment."""
    return [listener.run.id for listener in app.store.mail(topic, app.clock.now()).listeners]


def test_event_settles_the_wait() -> None:
    """Its data, as the model, is the next value; the receipt names the run and the wait."""
    app = local(order())
    run = waiting(app)
    asked = run.result()
    assert ("suspended", [["wait-for-order-paid"]]) == (asked.status, asked.suspended)
    assert {"event": "order.paid", "key": "A-17"} == asked.waits[0].payload

    receipt = app.send_event("order.paid", "A-17", {"cents": 990})

    assert ("applied", "r", asked.waits[0].id) == (receipt.verdict, receipt.run_id, receipt.wait)
    result = run.result()
    assert ("success", 990) == (result.status, result.output)
    assert ("success", {"cents": 990}) == (
        result.steps["wait-for-order-paid"].status,
        result.steps["wait-for-order-paid"].output,
    )
    assert [] == listeners(app)


def test_event_that_came_too_early_is_taken() -> None:
    """The oldest first, each once; the run never stands still."""
    app = local(order())
    for cents in (1, 2):
        assert "buffered" == app.send_event("order.paid", "A-17", {"cents": cents}).verdict
        app.clock.forward(seconds=1)
    assert [1, 2] == [waiting(app, run_id).result().output for run_id in ("r-1", "r-2")]
    assert "suspended" == waiting(app, "r-3").result().status


class Counting(MemoryStore):
    """Counts the events that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    def mail(self, *topic: Any, **wanted: Any) -> Mail:
        """See ``Mailbox.mail``."""
        mail = super().mail(*topic, **wanted)
        self.read += len(mail.events)
        return mail


def test_who_sends_an_event_or_asks_for_one_reads_no_other() -> None:
    """However many are kept for the same name and key."""
    store = Counting()
    app = local(order(), store=store)
    for number in range(300):
        assert "buffered" == app.send_event("order.paid", "A-17", {"cents": 1}, event_id=f"e-{number}").verdict
    assert 300 == store.read  # each once, by whoever had just kept it
    assert "buffered" == app.event("order.paid", "A-17", "e-7").verdict
    assert "buffered" == app.send_event("order.paid", "A-17", {"cents": 1}, event_id="e-7").verdict
    assert 302 == store.read


@pytest.mark.parametrize(
    "id", ["e-2", "", "e/1", "e" * 2_000, "\ud800"], ids=["unknown", "empty", "slash", "long", "half"]
)
def test_event_that_was_never_sent_is_not_found(id: str) -> None:
    """Nor is one that cannot have been sent."""
    app = local(order())
    app.send_event("order.paid", "A-17", {"cents": 1}, event_id="e-1")
    with pytest.raises(EventNotFound):
        app.event("order.paid", "A-17", id)


def test_event_is_for_its_key_and_name() -> None:
    """Others are kept for others."""
    app = local(order())
    run = waiting(app)
    assert "buffered" == app.send_event("order.paid", "A-18", {"cents": 1}).verdict
    assert "buffered" == app.send_event("order.lost", "A-17", {"cents": 1}).verdict
    assert "suspended" == run.result().status


def test_event_that_nobody_takes_in_time_is_gone() -> None:
    """It is kept for as long as its sender said."""
    app = local(order())
    app.send_event("order.paid", "A-17", {"cents": 1}, keep=HOUR)
    app.advance(hours=1)
    assert "suspended" == waiting(app).result().status


def test_one_event_settles_the_oldest_wait() -> None:
    """The other run waits on."""
    app = local(order())
    first, second = waiting(app, "r-1"), None
    app.clock.forward(seconds=1)
    second = waiting(app, "r-0")
    app.send_event("order.paid", "A-17", {"cents": 1})
    assert ("success", "suspended") == (first.result().status, second.result().status)
    app.send_event("order.paid", "A-17", {"cents": 2})
    assert 2 == second.result().output


def test_each_turn_of_a_loop_takes_an_event() -> None:
    """Those that came early first, then those that come."""
    turn = workflow("turn", input=Any).wait_for_event("said", key="chat", id="hear").commit()
    app = local(workflow("chat", input=str).dountil(turn, lambda said: said == "bye"))
    for said in ("one", "two"):
        app.send_event("said", "chat", said)
        app.clock.forward(seconds=1)
    run = waiting(app)
    assert (3, "suspended") == (run.result().steps["turn"].iteration, run.result().status)
    app.send_event("said", "chat", "three")
    app.send_event("said", "chat", "bye")
    assert ("success", "bye") == (run.result().status, run.result().output)


def test_copies_of_an_event_are_one_event() -> None:
    """A copy is told what became of the first one; other data under the same id is refused."""
    app = local(order())
    send = app.send_event
    assert "buffered" == send("order.paid", "A-17", {"cents": 1}, event_id="e-1").verdict
    assert "buffered" == send("order.paid", "A-17", {"cents": 1}, event_id="e-1").verdict
    run = waiting(app)
    duplicate = send("order.paid", "A-17", {"cents": 1}, event_id="e-1")
    assert EventReceipt(event_id="e-1", verdict="duplicate", run_id="r", wait=duplicate.wait) == duplicate
    assert 1 == run.result().output
    with pytest.raises(IdempotencyKeyReused):
        send("order.paid", "A-17", {"cents": 2}, event_id="e-1")
    assert "suspended" == waiting(app, "r-2").result().status


def test_event_that_fits_no_open_wait_is_refused() -> None:
    """The run is untouched, and nothing is kept."""
    app = local(order())
    run = waiting(app)
    with pytest.raises(InvalidPayload, match="cents"):
        app.send_event("order.paid", "A-17", {"cents": "many"})
    assert () == app.store.mail(PAID, app.clock.now()).events
    app.send_event("order.paid", "A-17", {"cents": 3})
    assert 3 == run.result().output


def test_early_event_that_does_not_fit_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    """The next one that fits is taken; the log says so without the data."""
    app = local(order())
    app.send_event("order.paid", "A-17", {"cents": "secret"})
    app.clock.forward(seconds=1)
    app.send_event("order.paid", "A-17", {"cents": 4})
    with caplog.at_level(logging.WARNING):
        assert 4 == waiting(app).result().output
    assert ["an event that does not fit its wait is passed over"] == [record.message for record in caplog.records]
    assert "secret" not in str(vars(caplog.records[0]))


def test_wait_without_an_event_times_out() -> None:
    """The run fails with the event's name; what comes afterwards is kept for others."""
    app = local(order(timeout=3 * HOUR))
    run = waiting(app)
    assert run.result().waits[0].deadline == app.clock.now() + 3 * HOUR
    app.advance(hours=4)
    error = run.result().error
    assert ("EventTimeout", "wait-for-order-paid") == (error.type, error.step)
    assert "order.paid" in error.message
    assert "buffered" == app.send_event("order.paid", "A-17", {"cents": 1}).verdict
    assert [] == listeners(app)


def test_event_at_the_deadline_is_too_late_or_in_time() -> None:
    """Never both: the run that failed did not take it."""
    app = local(order(timeout=HOUR))
    run = waiting(app)
    app.clock.forward(hours=2)
    app.send_event("order.paid", "A-17", {"cents": 1})
    app.advance(hours=2)
    assert ("success", 1) == (run.result().status, run.result().output)


@pytest.mark.parametrize("end", ["cancel", "delete"])
def test_runs_that_are_over_take_no_event(end: str) -> None:
    """It goes to the next one, and nobody listens for them any more."""
    app = local(order())
    first = waiting(app, "r-1")
    app.clock.forward(seconds=1)
    second = waiting(app, "r-2")
    getattr(first, end)()
    assert "r-2" == app.send_event("order.paid", "A-17", {"cents": 1}).run_id
    assert 1 == second.result().output
    assert [] == listeners(app)


def test_canceled_run_listens_no_more() -> None:
    """At once, without an event; also where the wait stands in a nested workflow."""
    inner = workflow("inner", input=str).wait_for_event("order.paid", key="A-17").commit()
    app = local(workflow("w", input=str).then(inner))
    run = waiting(app)
    assert ["r"] == listeners(app)
    run.cancel()
    assert [] == listeners(app)


@pytest.mark.parametrize("end", ["cancel", "delete"])
def test_end_of_a_run_does_not_depend_on_its_schedule(end: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where the scheduler keeps it, all else is done: nobody listens, and a deleted run is gone. The log says so."""
    unruly = Unruly()
    app = local(order(timeout=timedelta(days=3)), scheduler=LossyScheduler(MemoryScheduler(), unruly))
    run = waiting(app)
    unruly.failing = 1.0
    with caplog.at_level(logging.WARNING, "flowcore.hints"):
        getattr(run, end)()
    assert {"schedule kept, it will find nothing"} == {line.message for line in caplog.records}
    assert [] == listeners(app)
    unruly.failing = 0.0
    app.advance(days=4)
    assert ["canceled"][: end == "cancel"] == [one.status for one in app.list_runs()]


def fail(value: Any) -> Any:
    """Fails."""
    raise ValueError(value)


@pytest.mark.parametrize("around", ["run", "nested", "item"])
def test_run_listens_no_more_for_what_it_leaves_waiting(around: str) -> None:
    """Beside a step that fails: of an order that is past no event would ever come to drop the listener."""
    inner = workflow("inner", input=str).wait_for_event("order.paid", key="A-17").commit()
    both = workflow("both", input=Any).parallel(inner, create_step(id="fail", execute=fail)).commit()
    flow: Any = workflow("w", input=Any)
    if around == "item":
        flow = flow.map(lambda value: [value]).foreach(both, tolerated_failures=1).sleep(HOUR)
    else:
        flow = flow.then(both) if around == "nested" else both
    app = local(flow)
    waiting(app)
    assert [] == listeners(app)


@pytest.mark.parametrize("verb", ["load", "unlisten"])
def test_cancel_does_not_depend_on_who_listens(verb: str) -> None:
    """Where the store does not answer afterwards, the run is canceled all the same; the next event drops the rest."""
    store = MemoryStore()
    app = local(order(), store=store)
    waiting(app)
    deaf = local(order(), store=FaultyStore(store, lambda call: Fault.FAILS if call.verb == verb else None))
    assert "canceled" == deaf.engine.cancel(RunRef("default", "r")).public_status
    assert ["r"] == listeners(app)
    assert "buffered" == app.send_event("order.paid", "A-17", {"cents": 1}).verdict
    assert [] == listeners(app)


def test_time_travel_waits_anew() -> None:
    """The new life has a wait of its own; the old one's listener is dropped."""
    app = local(workflow("w", input=str).then(note).wait_for_event("order.paid", key="A-17", id="payment").then(book))
    run = waiting(app)
    old = run.result().waits[0].id
    run.time_travel("note")
    receipt = app.send_event("order.paid", "A-17", {"cents": 1})
    assert old != receipt.wait
    assert 1 == run.result().output
    assert [] == listeners(app)


def test_person_may_answer_in_place_of_the_event() -> None:
    """By the entry's id; the answer has to fit the same model, and the event that comes later is kept."""
    app = local(order(id="payment"))
    run = waiting(app)
    with pytest.raises(InvalidPayload):
        run.resume("?", step="payment")
    assert 5 == run.resume({"cents": 5}, step="payment", by="ada").output
    assert "buffered" == app.send_event("order.paid", "A-17", {"cents": 1}).verdict
    assert [] == listeners(app)


def test_event_for_a_paused_run_is_taken_and_waits_for_the_operator() -> None:
    """Like any answer."""
    app = local(order())
    run = waiting(app)
    run.pause()
    assert "applied" == app.send_event("order.paid", "A-17", {"cents": 6}).verdict
    assert "paused" == run.result().status
    assert 6 == run.unpause().output


def test_event_for_a_run_that_does_not_fit_the_code_is_kept_for_it() -> None:
    """Deployed again, it takes it."""
    app = local(order(id="payment"))
    waiting(app)
    other = local(order(id="renamed"), like=app)
    assert "buffered" == other.send_event("order.paid", "A-17", {"cents": 7}).verdict
    assert "running" == app.run("r").result().status
    app.advance(hours=1)
    assert 7 == app.run("r").result().output


def test_event_before_a_step_that_failed_to_be_reached_stays() -> None:
    """A key that is no text fails the run, with the place; so does one that its function cannot tell."""
    keys: list[tuple[Any, str]] = [
        (lambda _: 17, "TypeError"),
        (lambda _: 1 / 0, "ZeroDivisionError"),
        (lambda _: "", "TypeError"),
    ]
    for key, name in keys:
        app = local(workflow("w", input=str).wait_for_event("order.paid", key=key, id="payment"))
        error = waiting(app).result().error
        assert (name, "payment") == (error.type, error.step)


def test_event_with_a_queue_is_left_to_a_worker() -> None:
    """Unless its sender drives the run."""
    clock = VirtualClock()
    app = local(order(), clock=clock, queue=MemoryQueue(clock))
    run = waiting(app)
    app.run_until_idle()
    app.send_event("order.paid", "A-17", {"cents": 8})
    assert "running" == run.result().status
    app.run_until_idle()
    assert 8 == run.result().output
    other = waiting(app, "r-2")
    app.run_until_idle()
    app.send_event("order.paid", "A-17", {"cents": 9}, drive=timedelta(seconds=20))
    assert 9 == other.result().output


def test_listener_without_a_wait_is_left_alone() -> None:
    """Its worker may be about to commit the wait; the event is kept meanwhile."""
    app = local(order())
    waiting(app)
    ahead = Listener(topic=PAID, run=RunRef("default", "r"), wait="later@0", at=app.clock.now() - HOUR)
    app.store.listen(ahead)
    assert "r" == app.send_event("order.paid", "A-17", {"cents": 1}).run_id
    other = waiting(app, "r-2")
    app.store.listen(replace(ahead, run=RunRef("default", "r-2")))
    app.send_event("order.paid", "A-17", {"cents": 1})
    assert "success" == other.result().status
    open_ = waiting(app, "r-3")
    app.store.listen(replace(ahead, run=RunRef("default", "r-3")))
    with pytest.raises(InvalidPayload):
        app.send_event("order.paid", "A-17", "?")
    assert ["r-3", "r-3"] == listeners(app)
    assert "suspended" == open_.result().status


@pytest.mark.parametrize(
    ("name", "key", "options", "message"),
    [
        ("", "k", {}, "cannot name an event"),
        ("a#b", "k", {}, "cannot name an event"),
        ("paid", "", {}, "cannot be the key"),
        ("paid", "x" * 513, {}, "a text of 513 bytes cannot be the key"),
        ("paid", "\ud800", {}, "cannot be the key"),
        ("paid", "k", {"event_id": "a/b"}, "cannot be the id"),
        ("paid", "k", {"keep": timedelta(0)}, "keeps nothing"),
        ("paid", "k", {"keep": timedelta.max}, "above 0, at most a century"),
    ],
)
def test_event_that_cannot_be_sent(name: str, key: str, options: dict[str, Any], message: str) -> None:
    """What is wrong with it is said, and nothing is kept."""
    with pytest.raises(MalformedRequest, match=message):
        local(order()).send_event(name, key, 1, **options)


@pytest.mark.parametrize("data", [float("nan"), object(), "\ud800"])
def test_event_whose_data_is_no_json(data: Any) -> None:
    """It is refused at the door."""
    with pytest.raises(InvalidPayload):
        local(order()).send_event("order.paid", "A-17", data)


def test_definition_names_every_mistake() -> None:
    """A name, a key, a timeout and a model that cannot be."""
    build: Any = workflow("w").wait_for_event("a b", key="k").wait_for_event("b", key="")
    build = build.wait_for_event("c", key=3).wait_for_event("d", key="k", timeout=timedelta(0))
    with pytest.raises(DefinitionError) as found:
        build.wait_for_event("e", key="k", model=object()).commit()
    assert 5 == len(found.value.mistakes)


# -- whoever dies ------------------------------------------------------------------------------------------------------

ORDERS = ("start send", "send start")


@dataclass
class Played:
    """What became of a run and its event, and every call to the store on the way."""

    result: RunResult[Any]
    mail: Mail
    calls: list[Call]


def play(order_: str, script: Script = lambda _: None) -> Played:
    """A run and its event, in this order, whatever happens; whoever starts or sends tries until he is told."""
    calls: list[Call] = []

    def told(call: Call) -> Fault | None:
        calls.append(call)
        return script(call)

    watched = WatchedStore(MemoryStore())
    app = local(order(timeout=48 * HOUR), store=FaultyStore(watched, told))
    acts: dict[str, Callable[[], Any]] = {
        "start": lambda: app.workflow("order").create_run("r").start("A-17"),
        "send": lambda: app.send_event("order.paid", "A-17", {"cents": 1}, event_id="e-1"),
    }
    for act in order_.split():
        for _ in range(5):
            with suppress(WorkerDied, OutsideError):
                acts[act]()
                break
    made = len(calls)
    for _ in range(20):
        with suppress(WorkerDied, OutsideError):
            app.advance(hours=1)
    calm = LocalApp(app, store=watched, clock=app.clock)
    return Played(calm.run("r").result(), watched.mail(PAID, app.clock.now()), calls[:made])


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("order_", ["start send", "send start"])
def test_event_and_wait_find_each_other_whatever_dies(order_: str, fault: Fault) -> None:
    """One fault at any call to the store: the run gets its event, once, and nobody listens any more."""
    every = frozenset(call.verb for call in play(order_).calls)
    assert {"start", "listen", "commit", "mail", "keep" if order_ == "send start" else "release"} <= every
    for number in range(1, len(play(order_).calls) + 1):
        played = play(order_, at_call(number, fault, verbs=every))
        assert ("success", 1) == (played.result.status, played.result.output), f"{fault} at call {number}"
        assert ((), 1) == (played.mail.listeners, len(played.mail.events)), f"{fault} at call {number}"


def late(told: str, **options: Any) -> Any:
    """Waits for the payment with a step that has left a record before: a question, a failure, or that it has begun."""

    @step(id="late", **options)
    def late(order: str, ctx: StepContext[Any]) -> int:
        if told == "failed" and ctx.attempt == 1 and ctx.resume_data is None:
            raise ConnectionError
        if told == "asked" and ctx.resume_data is None:
            ctx.suspend(label="first")
        if ctx.resume_data in (None, "go on"):
            ctx.suspend(key=order, label="order.paid")
        return Paid.model_validate(ctx.resume_data).cents

    return workflow("order", input=str, output=int).then(late)


WAITS: dict[str, Callable[[], Any]] = {
    "its first record": order,
    "after a question": lambda: late("asked"),
    "after a failure": lambda: late("failed", retries=1, backoff=timedelta(milliseconds=100)),
    "once it has begun": lambda: late("begun", semantics="at_most_once"),
}


def prepared(app: LocalApp, flow: str) -> None:
    """The run that is to wait for its payment, as far as it comes before."""
    if flow == "after a question":
        app.workflow("order").create_run("r").start("A-17")


def begin(app: LocalApp, flow: str) -> None:
    """Have the run wait for its payment."""
    if flow == "after a question":
        app.run("r").resume("go on", label="first")
    else:
        app.workflow("order").create_run("r").start("A-17")


@pytest.mark.parametrize("flow", WAITS)
@pytest.mark.parametrize("inner", ["start", "send"])
def test_event_and_wait_that_meet_half_way_find_each_other(inner: str, flow: str) -> None:
    """One of them happens in the middle of the other, at any of its calls to the store."""
    outer = "send" if inner == "start" else "start"
    number, is_met = 0, True
    while is_met:
        number += 1
        result, is_met = meet(outer, inner, number, flow)
        assert 1 == result.output, f"at call {number}"
    assert number >= 4


def meet(outer: str, inner: str, number: int, flow: str) -> tuple[RunResult[Any], bool]:
    """``inner`` at the call of that number of ``outer``; after it, if there are not so many, and that is told."""
    watched, clock, done = WatchedStore(MemoryStore()), VirtualClock(), list[Any]()
    calls = count(1)

    def script(_: Call) -> None:
        if next(calls) == number and not done:
            done.append(acts(other)[inner]())

    def acts(app: LocalApp) -> dict[str, Callable[[], Any]]:
        return {
            "start": lambda: begin(app, flow),
            "send": lambda: app.send_event("order.paid", "A-17", {"cents": 1}),
        }

    other = local(WAITS[flow](), store=watched, clock=clock)
    prepared(other, flow)
    app = local(WAITS[flow](), store=FaultyStore(watched, script), clock=clock)
    acts(app)[outer]()
    is_met = bool(done)
    if not is_met:
        done.append(acts(other)[inner]())
    app.advance(hours=1)
    return other.run("r").result(), is_met


@pytest.mark.parametrize("flow", WAITS)
def test_event_that_comes_while_its_wait_is_written_leaves_the_listener(flow: str) -> None:
    """Its worker has listened and not committed: whoever keeps the event must find it, and it the event."""
    watched, clock, heard = WatchedStore(MemoryStore()), VirtualClock(), list[list[str]]()

    def script(call: Call) -> None:
        if call.verb == "commit" and listeners(other) and not heard:
            assert "buffered" == other.send_event("order.paid", "A-17", {"cents": 1}).verdict
            heard.append(listeners(other))

    other = local(WAITS[flow](), store=watched, clock=clock)
    app = local(WAITS[flow](), store=FaultyStore(watched, script), clock=clock)
    prepared(other, flow)
    begin(app, flow)
    assert [["r"]] == heard
    assert ("success", 1) == (other.run("r").result().status, other.run("r").result().output)
    assert [] == listeners(other)


@pytest.mark.parametrize("lacks", ["the step", "the workflow"])
@pytest.mark.parametrize("worker", ["good", "bad"])
def test_event_during_a_bad_deploy_is_taken_once_the_code_is_mended(worker: str, lacks: str) -> None:
    """A worker looks at the run: one that fits takes the event, another one says by what the run is blocked."""
    clock = VirtualClock()
    queue = MemoryQueue(clock)
    first = workflow("order", input=str).then(note)
    good = local(first.wait_for_event("order.paid", key=lambda o: o, model=Paid).then(book), clock=clock, queue=queue)
    run = waiting(good)
    good.run_until_idle()
    other = order() if lacks == "the step" else workflow("other", input=str).then(note)
    bad = local(other, like=good, queue=queue)
    assert "buffered" == bad.send_event("order.paid", "A-17", {"cents": 1}).verdict
    if worker == "bad":
        bad.run_until_idle()
        assert f"{'step' if lacks == 'the step' else 'workflow'} " in (run.result().blocked or "")
        run.unblock()
    good.run_until_idle()
    assert ("success", 1) == (run.result().status, run.result().output)


def test_event_during_a_bad_deploy_has_the_item_looked_at_that_waits() -> None:
    """The child that sees to it, and not the run around it, which waits for its children."""
    clock = VirtualClock()
    queue = MemoryQueue(clock)
    item = workflow("item", input=str, output=int).wait_for_event("order.paid", key=lambda o: o, model=Paid).then(book)
    good = local(workflow("order", input=list[str]).foreach(item.commit(), distributed=True), clock=clock, queue=queue)
    run: Any = good.workflow("order").create_run("r")
    run.start(["A-17"])
    good.run_until_idle()
    bad = local(workflow("other", input=str).then(note), like=good, queue=queue)
    bad.send_event("order.paid", "A-17", {"cents": 1})
    good.run_until_idle()
    assert ("success", [1]) == (run.result().status, run.result().output)


def busy(clock: VirtualClock, hours: int) -> Any:
    """An arm that is at work for so long, an hour at a time."""

    @step(id="work")
    def work(done: Any) -> int:
        clock.forward(hours=1)
        return done + 1 if isinstance(done, int) else 1

    return workflow("busy", input=Any).dountil(work, lambda done: done >= hours).commit()


@pytest.mark.parametrize("durability", ["step", "boundary"])
def test_event_that_came_before_its_wait_is_taken_though_other_work_goes_on_past_the_deadline(durability: Any) -> None:
    """The worker looks once more before the wait lapses."""
    clock = VirtualClock()
    wait = workflow("wait", input=str).wait_for_event("order.paid", key=lambda o: o, timeout=HOUR, on_timeout=None)
    flow = workflow("order", input=str, durability=durability).parallel(wait.commit(), busy(clock, 5))
    app = local(flow, clock=clock)
    assert "buffered" == app.send_event("order.paid", "A-17", {"cents": 1}).verdict
    assert {"wait": {"cents": 1}, "busy": 5} == waiting(app).result().output
    assert [] == listeners(app)


def test_event_during_a_bad_deploy_is_taken_though_its_deadline_has_passed_meanwhile() -> None:
    """Whoever unblocks the run looks what has come."""
    first = workflow("order", input=str).then(note)
    app = local(first.wait_for_event("order.paid", key=lambda o: o, timeout=HOUR))
    run = waiting(app)
    bad = local(workflow("order", input=str).then(note.clone(id="other")), like=app)
    assert "buffered" == bad.send_event("order.paid", "A-17", {"cents": 1}).verdict
    bad.advance(hours=2)
    assert run.result().blocked
    assert ("success", {"cents": 1}) == (run.unblock().status, run.result().output)


def test_event_whose_sender_died_before_the_second_look_is_taken_at_the_deadline() -> None:
    """It was kept in time; nobody else would look for it."""
    clock, watched = VirtualClock(), WatchedStore(MemoryStore())
    app = local(order(timeout=HOUR), store=watched, clock=clock)

    def script(call: Call) -> Fault | None:
        if call.verb == "keep":
            waiting(app)
            return Fault.DIES_AFTER
        return None

    with pytest.raises(WorkerDied):
        local(order(), store=FaultyStore(watched, script), clock=clock).send_event("order.paid", "A-17", {"cents": 1})
    assert "suspended" == app.run("r").result().status
    app.advance(hours=2)
    assert ("success", 1) == (app.run("r").result().status, app.run("r").result().output)


@step
def hear(value: str, ctx: StepContext[Any]) -> str:
    """Waits for an event about what it is given; about nothing it ends the list, or fails."""
    if value in ("bail", "fail"):
        return ctx.bail(value) if value == "bail" else str(1 / 0)
    return ctx.suspend(key=value) if ctx.resume_data is None else value


HEARD = Topic("default", "hear", "A-17")
OVER: dict[str, Any] = {
    "item failed": (
        lambda **how: workflow("inner", input=list[str]).foreach(
            workflow("item", input=str)
            .parallel(hear, workflow("arm", input=str).map(lambda _: "fail").then(hear.clone(id="b")).commit())
            .commit(),
            tolerated_failures=2,
            **how,
        ),
        ["A-17"],
    ),
    "list ended": (
        lambda **how: workflow("inner", input=list[str]).foreach(hear, concurrency=2, **how),
        ["A-17", "bail"],
    ),
}


@pytest.mark.parametrize("how", [{}, {"distributed": True}], ids=["plain", "distributed"])
@pytest.mark.parametrize("kind", ["item failed", "list ended"])
def test_nobody_listens_for_a_wait_in_what_is_over(kind: str, how: Any) -> None:
    """Though its run goes on and its own record was never settled; the next event drops a listener that stays."""
    build, given = OVER[kind]
    order = workflow("order", input=list[str]).then(build(**how).commit())
    flow = order.wait_for_event("last", key=lambda _: "x", id="last").commit()
    app = local(flow)
    assert [["last"]] == waiting(app, given=given).result().suspended
    assert [] == listeners(app, HEARD)

    faults: list[Fault | None] = [Fault.FAILS]
    store = FaultyStore(MemoryStore(), lambda call: faults[0] if call.verb == "unlisten" else None)
    app = local(flow, store=store)
    run = waiting(app, given=given)
    faults[0] = None
    assert [["last"]] == run.result().suspended
    assert ["r"] == listeners(app, HEARD)
    assert "buffered" == app.send_event("hear", "A-17", 1).verdict
    assert [] == listeners(app, HEARD)
    assert [["last"]] == run.result().suspended


def test_nobody_listens_for_a_wait_of_a_turn_that_is_over() -> None:
    """Its worker died in front of it, and the loop has gone on since."""
    turn = workflow("turn", input=str).then(hear).commit()
    app = local(workflow("order", input=str).dountil(turn, lambda _: False))
    run = waiting(app)
    stale = app.store.mail(HEARD, app.clock.now()).listeners[0]
    assert "applied" == app.send_event("hear", "A-17", 1).verdict
    app.store.listen(stale)
    assert ["r", "r"] == listeners(app, HEARD)
    assert "applied" == app.send_event("hear", "A-17", 2).verdict
    assert ["r"] == listeners(app, HEARD)
    assert "suspended" == run.result().status


LARGE = "".join(map(chr, Random(1).choices(range(0x800, 0xD7FF), k=118_000)))
"""Fits into a record alone, and not beside another such value; cannot be packed."""


@step(id="ask")
def asks(large: bool, ctx: StepContext[Any, Any]) -> int:
    """Waits for an event, and may ask for it with a large value."""
    return ctx.suspend(LARGE if large else None, key="A-17", label="order.paid") if ctx.resume_data is None else 1


ASKS = workflow("order", input=bool, output=int).then(asks).commit()


def test_event_that_is_too_large_beside_its_question_goes_to_another_wait() -> None:
    """Or is refused, where there is none, and the run has the receipt."""
    app = local(ASKS)
    first: Any = waiting(app, "r-1", given=True)
    with pytest.raises(PayloadTooLarge):
        app.send_event("order.paid", "A-17", LARGE)
    assert [("rejected", "payload-too-large")] == [(one.verdict, one.reason) for one in first.receipts()]
    assert () == app.store.mail(PAID, app.clock.now()).events
    app.clock.forward(hours=1)
    second = waiting(app, "r-2", given=False)
    assert "r-2" == app.send_event("order.paid", "A-17", LARGE).run_id
    assert ("suspended", "success") == (first.result().status, second.result().status)


def test_early_event_that_is_too_large_beside_its_question_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    """The run waits for the next one, and no worker stumbles over it."""
    app = local(ASKS)
    app.send_event("order.paid", "A-17", LARGE)
    app.clock.forward(seconds=1)
    run = waiting(app, given=True)
    assert "suspended" == run.result().status
    assert "passed over" in caplog.text
    assert "applied" == app.send_event("order.paid", "A-17", 1).verdict


def test_early_event_that_breaks_the_type_of_its_wait_is_passed_over() -> None:
    """A validator may raise anything at what a stranger sends: it does not fit, like other data that does not."""

    class Order(BaseModel):
        cents: int

        @model_validator(mode="before")
        @classmethod
        def of_pounds(cls, data: Any) -> Any:
            return {"cents": 100 * data["pounds"]}

    build = workflow("order", input=str).wait_for_event("order.paid", key=lambda o: o, model=Order)
    app = local(build)
    app.send_event("order.paid", "A-17", {})
    run = waiting(app)
    with pytest.raises(InvalidPayload, match="KeyError"):
        app.send_event("order.paid", "A-17", {})
    app.send_event("order.paid", "A-17", {"pounds": 2})
    assert ("success", {"cents": 200}) == (run.result().status, run.result().output)


def test_event_id_may_come_again_when_its_event_is_kept_no_longer() -> None:
    """A new event: kept, starting a run, or settling a wait, though the table has not deleted the old one yet."""
    app = local(order())

    def sent(**options: Any) -> str:
        told = app.send_event("order.paid", "A-17", {"cents": 1}, event_id="e-1", keep=HOUR, **options)
        app.clock.forward(HOUR)
        return told.verdict

    assert ["buffered", "buffered"] == [sent(), sent()]
    assert "started" == sent(start_if_absent=Start("order", "A-17", run_id="s"))
    assert ("success", 1) == (app.run("s").result().status, app.run("s").result().output)
    for run_id in ("r-1", "r-2"):
        run = waiting(app, run_id)
        assert "applied" == sent()
        assert ("success", 1) == (run.result().status, run.result().output)


def test_wait_that_opens_while_its_event_is_being_kept_gets_it() -> None:
    """Its worker listened before the sender looked, and looked for mail itself just before the event was kept."""
    watched, clock = WatchedStore(MemoryStore()), VirtualClock()
    dies = at_call(1, Fault.DIES_AFTER, verbs=frozenset({"listen"}))
    waiting(local(order(), store=FaultyStore(watched, dies), clock=clock))
    other = local(order(), store=watched, clock=clock)

    def parks(call: Call) -> None:
        if call.verb == "keep":
            clock.forward(HOUR)
            other.look(RunRef("default", "r"))
            assert "suspended" == other.run("r").result().status

    sender = local(order(), store=FaultyStore(watched, parks), clock=clock)
    assert "applied" == sender.send_event("order.paid", "A-17", {"cents": 1}).verdict
    assert ("success", 1) == (other.run("r").result().status, other.run("r").result().output)


def test_wait_that_another_worker_opens_later_still_listens() -> None:
    """The sender met the listener of a worker that died; the one that opened the wait listens under the same id."""
    watched, clock, loads = WatchedStore(MemoryStore()), VirtualClock(), count(1)
    dies = at_call(1, Fault.DIES_AFTER, verbs=frozenset({"listen"}))
    waiting(local(order(), store=FaultyStore(watched, dies), clock=clock))
    other = local(order(), store=watched, clock=clock)

    def parks(call: Call) -> None:
        if call.verb == "load" and next(loads) == 3:  # the answer was refused, and the sender sees whether it is over
            clock.forward(HOUR)
            other.look(RunRef("default", "r"))

    sender = local(order(), store=FaultyStore(watched, parks), clock=clock)
    sender.send_event("order.paid", "A-17", {"cents": 1})
    assert 3 < next(loads)
    assert ("success", 1) == (other.run("r").result().status, other.run("r").result().output)
