"""Runs that an event starts: one run, every event kept, whoever races and whoever dies."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from flowcore import App, Start, step, workflow
from flowcore.adapters.memory import MemoryQueue, MemoryStore
from flowcore.errors import InvalidPayload, MalformedRequest, OutsideError, StoreUnavailable, WorkflowNotFound
from flowcore.keys import RunRef
from flowcore.model import EventReceipt, Mail, Topic
from flowcore.testing import LocalApp, VirtualClock
from flowcore.testing.faults import Call, Fault, FaultyStore, Script, WorkerDied, at_call
from flowcore.testing.invariants import WatchedStore

PAID = Topic("default", "order.paid", "A-17")
HOUR = timedelta(hours=1)
CALLS: list[str] = []


class Paid(BaseModel):
    """What the shop tells about a payment."""

    cents: int


@step
def book(paid: Paid) -> int:
    """The amount in cents."""
    return paid.cents


ORDER = workflow("order", input=str, output=int).wait_for_event("order.paid", key=lambda o: o, model=Paid).then(book)
TWICE = (
    workflow("twice", input=str, output=int)
    .wait_for_event("order.paid", key="A-17", id="first")
    .wait_for_event("order.paid", key="A-17", id="second", model=Paid)
    .then(book)
)
ABSENT = Start(ORDER.commit(), "A-17", run_id="r")


def local(store: Any = None, **options: Any) -> LocalApp:
    """An App on virtual time."""
    return LocalApp(App(ORDER, TWICE), store=store, **options)


def send(app: LocalApp, id: str = "e-1", *, cents: Any = 1, start: Start[Any] | None = ABSENT) -> EventReceipt:
    """A payment, which starts the run if there is none."""
    return app.send_event("order.paid", "A-17", {"cents": cents}, event_id=id, start_if_absent=start)


def test_event_starts_the_run_that_is_absent() -> None:
    """And settles the wait that the run comes to; the receipt names both."""
    app = local()
    receipt = send(app)
    assert EventReceipt(event_id="e-1", verdict="started", run_id="r", wait="wait-for-order-paid@0") == receipt
    assert ("success", 1) == (app.run("r").result().status, app.run("r").result().output)


def test_event_goes_to_the_wait_that_is_open() -> None:
    """Nothing is started then, whosever wait it is."""
    app = local()
    app.workflow("order").create_run("other").start("A-17")
    assert ("applied", "other") == (send(app).verdict, app.run("other").result().run_id)
    assert app.store.peek(RunRef("default", "r")) is None


@pytest.mark.parametrize("end", [False, True], ids=["waits for something else", "has ended"])
def test_event_leaves_the_run_that_exists_alone(end: bool) -> None:
    """It is kept, as it would be without; also for a run that was started with another input."""
    app = local()
    app.workflow("order").create_run("r").start("A-18")
    if end:
        app.cancel("r")
    before = app.run("r").result()
    assert "buffered" == send(app).verdict
    assert before == app.run("r").result()


def test_copies_of_an_event_start_one_run() -> None:
    """A copy is told so, also when the run is long gone."""
    app = local()
    start = Start("twice", "A-17", run_id="r")
    assert "started" == send(app, start=start).verdict
    assert ("duplicate", "r", "first@0") == astuple(send(app, start=start))
    app.run("r").delete()
    app.advance(minutes=17)
    assert ("duplicate", "r", "first@0") == astuple(send(app, start=start))
    assert app.store.peek(RunRef("default", "r")) is None


def astuple(receipt: EventReceipt) -> tuple[str, str | None, str | None]:
    """What a receipt says, without the event."""
    return receipt.verdict, receipt.run_id, receipt.wait


def test_copy_of_an_event_that_nobody_took_starts_no_second_run() -> None:
    """A run that never waits has been started by it all the same."""
    app = LocalApp(App(workflow("note").then(book.clone(id="b")).commit()))
    start = Start("note", {"cents": 5}, run_id="n")
    assert ("started", "n", None) == astuple(send(app, start=start))
    app.run("n").delete()
    app.advance(minutes=17)
    assert ("duplicate", "n", None) == astuple(send(app, start=start))
    assert app.store.peek(RunRef("default", "n")) is None


def test_event_that_was_kept_before_starts_the_run_when_asked() -> None:
    """The same event, sent again with a run to start; the run takes it."""
    app = local()
    assert "buffered" == send(app, start=None).verdict
    assert ("started", "r", "wait-for-order-paid@0") == astuple(send(app))
    assert 1 == app.run("r").result().output


def test_run_is_named_after_what_the_event_is_about() -> None:
    """Without an id of its own: each workflow, name, key and tenant has its run."""
    app = local()
    start = Start("twice", "A-17")
    first = send(app, start=start)
    assert ("applied", first.run_id) == (send(app, "e-2", cents=7, start=start).verdict, first.run_id)
    assert 7 == app.run(str(first.run_id)).result().output
    assert "buffered" == send(app, "e-3", start=start).verdict
    assert first.run_id != send(app, "e-4", start=Start("order", "A-18")).run_id
    assert first.run_id != app.for_tenant("t").send_event("order.paid", "A-17", start_if_absent=start).run_id


def test_run_begins_with_what_it_was_given() -> None:
    """Resource, tags, state and request context."""
    app = local()
    given = {"tags": ["eu"], "state": {"n": 1}, "request_context": {"locale": "de"}}
    send(app, start=Start("order", "A-18", run_id="r", resource_id="shop", **given))  # type: ignore[arg-type]
    result = app.run("r").result()
    assert ("shop", ["eu"], {"n": 1}) == (result.resource_id, result.tags, result.state)
    assert {"locale": "de"} == result.request_context


@pytest.mark.parametrize(
    ("start", "error"),
    [
        (Start("order", 3), InvalidPayload),
        (Start("unknown", "A-17"), WorkflowNotFound),
        (Start("order", "A-17", run_id="no/id"), MalformedRequest),
        (Start("order", "A-17", resource_id=""), MalformedRequest),
    ],
)
def test_start_that_cannot_be_refuses_the_event(start: Start[Any], error: type[Exception]) -> None:
    """Nothing is kept."""
    app = local()
    with pytest.raises(error):
        send(app, start=start)
    assert Mail() == app.store.mail(PAID, app.clock.now())


def test_on_start_that_refuses_refuses_the_event() -> None:
    """Neither the run nor the event is there then, and the next one may start it."""
    moods = [True]

    def refuse(_: object) -> None:
        if moods.pop():
            raise ValueError("not today")

    flow = workflow("order", input=str, output=int, on_start=refuse)
    app = LocalApp(App(flow.wait_for_event("order.paid", key=lambda o: o, model=Paid).then(book).commit()))
    with pytest.raises(ValueError, match="today"):
        send(app)
    assert Mail() == app.store.mail(PAID, app.clock.now())
    moods.append(False)
    assert "started" == send(app).verdict


def test_event_with_a_queue_leaves_the_run_to_a_worker() -> None:
    """The call commits, hints and returns; a worker has the run take its event."""
    clock = VirtualClock()
    app = local(clock=clock, queue=MemoryQueue(clock))
    assert ("started", "r", None) == astuple(send(app))
    assert "pending" == app.run("r").result().status
    app.run_until_idle()
    assert 1 == app.run("r").result().output


def test_event_starts_a_run_in_the_place_of_an_expired_one() -> None:
    """What counts as gone is gone."""
    flow = workflow("order", input=str, output=int, retention=HOUR)
    app = LocalApp(App(flow.wait_for_event("order.paid", key=lambda o: o, model=Paid).then(book).commit()))
    send(app)
    app.clock.forward(hours=2)
    assert ("started", 2) == (send(app, "e-2", cents=2).verdict, app.run("r").result().output)


def test_event_that_does_not_fit_the_run_it_started_waits_beside_it() -> None:
    """The run waits on for one that fits."""
    app = local()
    assert ("started", "r", None) == astuple(send(app, cents="many"))
    assert "suspended" == app.run("r").result().status
    assert "applied" == send(app, "e-2", cents=3).verdict
    assert 3 == app.run("r").result().output


# -- whoever races, whoever dies --------------------------------------------------------------------------------------


def twice() -> Start[Any]:
    """A run that needs two events."""
    return Start("twice", "A-17", run_id="r")


def test_racing_events_start_one_run_and_are_both_kept() -> None:
    """The second one happens in the middle of the first, at any of its calls to the store."""
    calls: list[Call] = []
    send(local(FaultyStore(MemoryStore(), calls.append)), start=twice())
    assert "start_with" in {call.verb for call in calls}
    for at in range(1, len(calls) + 1):
        clock, watched = VirtualClock(), WatchedStore(MemoryStore())
        other, done = local(watched, clock=clock), list[str]()

        def script(call: Call, at: int = at, other: LocalApp = other, done: list[str] = done) -> None:
            if call.number == at:
                done.append(send(other, "e-2", cents=2, start=twice()).verdict)

        done.append(send(local(FaultyStore(watched, script), clock=clock), start=twice()).verdict)
        other.advance(hours=1)
        assert 1 == done.count("started"), f"at call {at}: {done}"
        assert "success" == other.run("r").result().status, f"at call {at}"
        mail = watched.mail(PAID, clock.now())
        assert ((), ["r", "r"]) == (mail.listeners, [event.taker and event.taker[0] for event in mail.events])


def test_wait_that_opens_while_a_run_is_started_gets_the_event() -> None:
    """The run that was started never waits; another one begins to, at any call to the store on the way."""
    flow = workflow("aside").map(lambda _: 1).commit()
    aside = Start(flow, None, run_id="r")
    number, met = 0, True
    while met:
        number += 1
        clock, watched, done = VirtualClock(), WatchedStore(MemoryStore()), list[int]()
        apps = [LocalApp(App(ORDER, flow), store=watched, clock=clock)]

        def script(call: Call, at: int = number, apps: list[LocalApp] = apps, done: list[int] = done) -> None:
            if call.number == at:
                done.append(at)
                apps[0].workflow("order").create_run("other").start("A-17")

        sender = LocalApp(App(ORDER, flow), store=FaultyStore(watched, script), clock=clock)
        receipt = send(sender, start=aside)
        if met := bool(done):
            apps[0].advance(hours=1)
            assert "success" == apps[0].run("other").result().status, f"at call {number}: {receipt}"
    assert number > 5


def play(script: Script, start: Callable[[], Start[Any]]) -> tuple[LocalApp, Mail, list[EventReceipt]]:
    """Two events that need one run, whatever happens; the sender tries until he is told."""
    watched = WatchedStore(MemoryStore())
    app = local(FaultyStore(watched, script))
    receipts = []
    for number in (1, 2):
        for _ in range(5):
            with suppress(WorkerDied, OutsideError):
                receipts.append(send(app, f"e-{number}", cents=number, start=start()))
                break
    for _ in range(20):
        with suppress(WorkerDied, OutsideError):
            app.advance(hours=1)
    calm = LocalApp(app, store=watched, clock=app.clock)
    return calm, watched.mail(PAID, app.clock.now()), receipts


@pytest.mark.parametrize("fault", list(Fault))
def test_event_and_the_run_it_starts_find_each_other_whatever_dies(fault: Fault) -> None:
    """One fault at any call to the store: one run, which takes each event once."""
    calls: list[Call] = []
    play(calls.append, twice)
    every = frozenset(call.verb for call in calls)
    assert {"mail", "peek", "start_with", "listen", "commit", "resume", "release"} <= every
    for number in range(1, len(calls) + 1):
        app, mail, receipts = play(at_call(number, fault, verbs=every), twice)
        assert ("success", 2) == (app.run("r").result().status, app.run("r").result().output), f"at call {number}"
        assert 2 == len(receipts), f"at call {number}"
        assert ((), 2) == (mail.listeners, len([e for e in mail.events if e.taker])), f"{fault} at call {number}"


@pytest.mark.parametrize("fault", [Fault.FAILS, Fault.DIES_BEFORE])
def test_event_and_its_run_are_written_together_or_not_at_all(fault: Fault) -> None:
    """Where the one write did not happen, there is neither."""

    def script(call: Call) -> Fault | None:
        return fault if call.verb == "start_with" else None

    store = MemoryStore()
    app = local(FaultyStore(store, script))
    with pytest.raises((WorkerDied, StoreUnavailable)):
        send(app)
    assert (None, Mail()) == (store.peek(RunRef("default", "r")), store.mail(PAID, app.clock.now()))
