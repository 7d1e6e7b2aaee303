"""A distributed foreach: what comes out, what its items see, and how it ends."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from threading import Event
from typing import Any, Literal

import pytest

from flowcore import App, FunctionContext, Run, RunResult, StepContext, Workflow, step, workflow
from flowcore.adapters.memory import MemoryQueue, MemoryStore
from flowcore.authoring.graph import Backoff
from flowcore.core import heads
from flowcore.core.view import Progress
from flowcore.errors import AlreadyResumed, DefinitionChanged, NotBlocked
from flowcore.fanout.children import PATIENCE, child_id
from flowcore.fanout.whole import MOST_MERGED, waits_in_children
from flowcore.inbox import asked
from flowcore.keys import RunRef, StepKey
from flowcore.model import Outcome, RunStatus, StepRecord
from flowcore.pace import Pace
from flowcore.testing import Fault, FaultyStore, LocalApp, ShiftedClock, VirtualClock, WorkerDied
from flowcore.testing.faults import Call

Where = Literal["here", "queue"]
SEEN: dict[str, list[Any]] = {}


@pytest.fixture(autouse=True)
def forget() -> None:
    """Each test begins with nothing seen."""
    SEEN.clear()


@step
def double(number: int, ctx: StepContext[None, None]) -> int:
    """Remembers under which key it was called."""
    SEEN.setdefault(ctx.idempotency_key, []).append(number)
    return 2 * number


@step
def picky(number: int, ctx: StepContext[None, None]) -> int:
    """Fails for odd numbers."""
    SEEN.setdefault(str(ctx.index), []).append(number)
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


@step
def ask(number: int, ctx: StepContext[int, int]) -> int:
    """Asks about even numbers."""
    if number % 2 == 0 and ctx.resume_data is None:
        ctx.suspend(number, label=f"about-{number}")
    return number + (ctx.resume_data or 0)


def fanned(body: Any = double, **options: Any) -> Workflow[list[int], Any]:
    """A workflow of one distributed foreach."""
    flow = workflow("fanned", input=list[int], output=Any, state=dict[str, Any])
    return flow.foreach(body, id="fan", **{"distributed": True, **options}).commit()


def app_for(flow: Workflow[Any, Any], where: Where = "here", store: MemoryStore | None = None) -> LocalApp:
    """An App in which children are driven here, or by workers off a queue."""
    clock = VirtualClock()
    return LocalApp(App(flow), clock=clock, store=store, queue=MemoryQueue(clock) if where == "queue" else None)


def ran(
    flow: Workflow[Any, Any], input: Any, where: Where = "here", **options: Any
) -> tuple[LocalApp, Run[Any, Any], RunResult[Any]]:
    """The run after everything was done that can be done without time passing."""
    app = app_for(flow, where)
    run = app.workflow(flow).create_run("r")
    run.start(input, **options)
    app.run_until_idle()
    return app, run, run.result()


def items(app: LocalApp) -> list[dict[str, Any]]:
    """Everything that is stored."""
    store: Any = app.store
    while hasattr(store, "inner"):
        store = store.inner
    found: list[dict[str, Any]] = store.items()
    return found


def children(app: LocalApp) -> dict[int, RunStatus]:
    """The children of the only run, by their first item."""
    heads = [app.store.peek(RunRef("default", item["pk"]["S"].rsplit("#", 1)[1])) for item in items(app)]
    return {head.part.first: head.status for head in heads if head is not None and head.part is not None}


# -- what comes out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["here", "queue"])
@pytest.mark.parametrize("concurrency", [None, 1, 3, 1_000])
@pytest.mark.parametrize("shard", [None, 2])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_fan_gives_every_output_in_order(
    where: Where, concurrency: int | None, shard: int | None, count: int
) -> None:
    """However many workers take part, and wherever they are."""
    _, _, result = ran(fanned(concurrency=concurrency, shard=shard), list(range(count)), where)
    assert [2 * number for number in range(count)] == result.output


@pytest.mark.parametrize("where", ["here", "queue"])
def test_a_fan_is_what_a_plain_foreach_is(where: Where) -> None:
    """Steps, keys of effects and the output do not tell which it was."""
    seen = []
    for distributed in (False, True):
        SEEN.clear()
        _, _, result = ran(fanned(distributed=distributed), [1, 2, 3], where)
        seen.append(({id: (s.status, s.input, s.output) for id, s in result.steps.items()}, dict(SEEN)))
    assert seen[0] == seen[1]


def test_a_plain_script_drives_children_itself() -> None:
    """An App without anything needs no queue and no virtual time."""
    flow = fanned()
    assert [2, 4] == App(flow).workflow(flow).create_run().start([1, 2]).output


@pytest.mark.parametrize(("count", "shards"), [(3, 3), (100, 100), (101, 51), (10_000, 200)])
def test_a_fan_has_a_child_for_each_item_up_to_a_hundred(count: int, shards: int) -> None:
    """Of more items each child sees to several, to fifty at most."""
    flow = fanned()
    app = app_for(flow, "queue")
    run = app.workflow(flow).create_run("r")
    run.start([0] * count)
    app.deliver("r")
    assert shards == len(children(app))


@pytest.mark.slow
@pytest.mark.gate
def test_ten_thousand_items_work() -> None:
    """And nobody has to read two hundred children to see how far they are."""
    _, run, result = ran(fanned(), list(range(10_000)), "queue")
    far = run.result(fields=["progress"]).progress
    assert {"fan": Progress(done=10_000, failed=0, waiting=0, total=10_000)} == far
    assert [2 * number for number in range(10_000)] == result.output


def test_progress_alone_reads_no_child() -> None:
    """However many of them wait for an answer: what they have told is counted in the run."""
    _, calls, run = asked_by(12)
    assert (12, 12) == ((far := run.result(fields=["status", "progress"]).progress["fan"]).waiting, far.total)
    assert ["peek", "joins"] == [call.verb for call in calls]
    assert all(call.run == RunRef("default", "r") for call in calls)


def asked_by(count: int, **options: Any) -> tuple[LocalApp, list[Call], Run[Any, Any]]:
    """A run in which so many items ask, each in a child of its own; and the calls of the store from now on."""
    calls: list[Call] = []
    clock = VirtualClock()
    store = FaultyStore(MemoryStore(), calls.append)
    flow = fanned(ask_once, shard=1, **options)
    app = LocalApp(App(flow), clock=clock, store=store, queue=MemoryQueue(clock))
    run = app.workflow(flow).create_run("r")
    run.start(list(range(count)))
    app.run_until_idle()
    calls.clear()
    return app, calls, run


def test_progress_is_that_of_the_turn_that_is_under_way() -> None:
    """Also from the tenth on, which comes before the second in a table of texts."""

    @step
    def ask_in_turn_twelve(number: int, ctx: StepContext) -> int:
        if number == 11 and ctx.resume_data is None:
            ctx.suspend()
        return number + 1

    start: Any = workflow("turn", input=list[int], output=list[int])
    turn: Any = start.foreach(ask_in_turn_twelve, id="fan", distributed=True).commit()
    flow = workflow("turns", input=list[int], output=Any).dountil(turn, lambda numbers: numbers[0] > 12).commit()
    _, _, result = ran(flow, [0, 0])
    assert {"turn.fan": Progress(done=0, failed=0, waiting=2, total=2)} == result.progress


def test_no_more_items_are_open_than_allowed() -> None:
    """A suspended item keeps its slot; when it is done, the next child is begun."""
    flow = fanned(ask, concurrency=2)
    app, run, _ = ran(flow, [0, 2, 4], "queue")
    begun = [sorted(children(app))]
    app.resume("r", 10, index=0)
    app.run_until_idle()
    begun.append(sorted(children(app)))
    app.resume("r", 10)
    app.run_until_idle()
    assert ([[0, 1], [0, 1, 2]], [10, 12, 14]) == (begun, run.result().output)


def test_a_fan_can_stand_inside_another() -> None:
    """Children may have children: their items are named after the run that is nobody's child."""
    inner = workflow("inner", input=list[int], output=list[int]).foreach(double, id="deep", distributed=True).commit()
    outer = workflow("outer", input=list[list[int]], output=list[list[int]])
    flow = outer.foreach(inner, id="fan", distributed=True).commit()
    _, _, result = ran(flow, [[1, 2], [3]], "queue")
    assert ([[2, 4], [6]], {"r/fan[0]/deep[0]", "r/fan[0]/deep[1]", "r/fan[1]/deep[0]"}) == (result.output, set(SEEN))


@pytest.mark.parametrize("where", ["here", "queue"])
def test_a_fan_inside_an_item_of_a_plain_foreach_works(where: Where) -> None:
    """The items of the plain one wait for their own children only."""
    inner = workflow("inner", input=list[int], output=list[int]).foreach(double, id="deep", distributed=True).commit()
    outer = workflow("outer", input=list[list[int]], output=list[list[int]])
    flow = outer.foreach(inner, id="plain", concurrency=2).commit()
    _, _, result = ran(flow, [[1], [2, 3], [4]], where)
    assert [[2], [4, 6], [8]] == result.output


# -- what items see -----------------------------------------------------------------------------------------------


@step
def note(number: int, ctx: StepContext[None, None, dict[str, Any]]) -> int:
    """Changes one key that all change, and one of its own; says what it began with."""
    before: int = ctx.state.get("last", -1)
    ctx.set_state({"last": number, f"by-{ctx.index}": number})
    return before


@pytest.mark.parametrize("shard", [None, 2])
def test_items_see_the_state_as_the_fan_began(shard: int | None) -> None:
    """Afterwards it is as if they had run one after the other, whoever was the fastest."""
    _, _, result = ran(fanned(note, shard=shard), [5, 6, 7], state={"last": 1})
    assert ([1, 1, 1], {"last": 7, "by-0": 5, "by-1": 6, "by-2": 7}) == (result.output, result.state)


def test_items_see_the_run_around_them() -> None:
    """Its id, its input, its resource and what steps before have given."""

    @step
    def before(number: int) -> int:
        return number + 1

    @step
    def look(item: int, ctx: StepContext[None, None]) -> list[Any]:
        return [ctx.run_id, ctx.resource_id, ctx.init_data, ctx.get_step_result(before), ctx.index, item]

    flow = (
        workflow("seen", input=int, output=list[list[Any]])
        .then(before)
        .map(lambda n: [n, n], id="twice")
        .foreach(look, id="fan", distributed=True)
        .commit()
    )
    app = app_for(flow)
    result = app.workflow(flow).create_run("r", resource_id="customer-1").start(1)
    assert [["r", "customer-1", 1, 2, index, 2] for index in (0, 1)] == result.output


def test_once_and_retries_work_in_items() -> None:
    """A side effect that was stored is not repeated by the next try."""

    @step(retries=2, backoff=timedelta(minutes=1))
    def flaky(number: int, ctx: StepContext[None, None]) -> int:
        def draw() -> int:
            SEEN.setdefault(f"once {ctx.index}", []).append(number)
            return number

        kept = ctx.once("drawn", draw)
        if ctx.attempt < 3:
            raise ValueError("not yet")
        return int(kept)

    app, run, _ = ran(fanned(flaky), [1, 2], "queue")
    app.advance(minutes=30)
    assert ([1, 2], {"once 0": [1], "once 1": [2]}) == (run.result().output, SEEN)


@pytest.mark.parametrize("where", ["here", "queue"])
def test_items_may_sleep_and_wait_for_events(where: Where) -> None:
    """Their children are woken, not the run."""

    def topic(number: int) -> str:
        return f"n{number}"

    inner = workflow("inner", input=int, output=Any).sleep(timedelta(days=2)).wait_for_event("go", key=topic).commit()
    app, run, _ = ran(fanned(inner), [1, 2], where)
    app.advance(days=2)
    app.send_event("go", "n1", "a")
    app.send_event("go", "n2", "b")
    app.run_until_idle()
    assert ["a", "b"] == run.result().output


def test_a_script_waits_for_sleeping_items() -> None:
    """``wait`` fires the wakes of children, where no worker does."""
    inner = workflow("inner", input=int, output=int).sleep(timedelta(hours=1)).then(double).commit()
    flow = fanned(inner)
    app = LocalApp(App(flow))
    run = app.workflow(flow).create_run("r")
    run.start([1, 2])
    assert [2, 4] == run.wait().output


# -- answers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["here", "queue"])
def test_suspended_items_show_in_the_run(where: Where) -> None:
    """Its status, its waits, its labels and the inbox know them."""
    app, run, result = ran(fanned(ask), [0, 1, 2], where)
    assert (
        "suspended",
        [["fan"]],
        [0, 2],
        [0, 2],
        {"about-0", "about-2"},
        Progress(done=1, failed=0, waiting=2, total=3),
    ) == (
        result.status,
        result.suspended,
        [wait.index for wait in result.waits],
        [wait.index for wait in app.waits()],
        set(result.resume_labels),
        run.result().progress["fan"],
    )


@pytest.mark.parametrize("where", ["here", "queue"])
@pytest.mark.parametrize(
    "address", [{"step": "fan[2]"}, {"step": "fan", "index": 2}, {"label": "about-2"}, {"wait": "fan[2]@0"}]
)
def test_an_answer_reaches_the_item_that_is_meant(where: Where, address: dict[str, Any]) -> None:
    """By whatever it is named; the others stay open."""
    app, run, _ = ran(fanned(ask), [0, 1, 2], where)
    receipt = app.resume("r", 40, **address, idempotency_key="k").receipt
    app.run_until_idle()
    again = app.resume("r", 40, **address, idempotency_key="k").receipt
    result = run.result()
    assert receipt is not None
    assert again is not None
    assert ("applied", "fan[2]@0", "duplicate", [0], 42) == (
        receipt.verdict,
        receipt.wait,
        again.verdict,
        [wait.index for wait in result.waits],
        result.steps["fan[2]"].output,
    )


@pytest.mark.parametrize("where", ["here", "queue"])
def test_an_answer_without_index_goes_to_every_item(where: Where) -> None:
    """As in a plain foreach."""
    app, run, _ = ran(fanned(ask), [0, 1, 2], where)
    app.resume("r", 40)
    app.run_until_idle()
    assert [40, 1, 42] == run.result().output


def test_a_run_whose_item_was_just_answered_is_no_longer_suspended() -> None:
    """Before a worker has come, it shows as moving."""
    app, run, _ = ran(fanned(ask), [0], "queue")
    app.resume("r", 40)
    result = run.result()
    assert ("waiting", []) == (result.status, result.waits)
    with pytest.raises(AlreadyResumed):
        app.resume("r", 41, step="fan")


def test_a_wait_of_an_item_can_time_out() -> None:
    """Nobody else need be looked at for it."""

    @step
    def patient(number: int, ctx: StepContext[int, None]) -> int:
        if ctx.timed_out:
            return -number
        return ctx.suspend(timeout=timedelta(days=1))

    app, run, _ = ran(fanned(patient), [1, 2], "queue")
    app.advance(days=1)
    assert [-1, -2] == run.result().output


# -- how it ends --------------------------------------------------------------------------------------------------


POLICIES: list[tuple[dict[str, Any], list[int], Any]] = [
    ({}, [0, 2], [0, 2]),
    ({}, [0, 1, 2], "1 is odd"),
    ({"tolerated_failures": 1}, [0, 1, 2], [0, None, 2]),
    ({"tolerated_failures": 1}, [0, 1, 3], "1 is odd"),
    ({"tolerated_failures": 0.5}, [0, 1, 3, 4], [0, None, None, 4]),
    ({"min_successful": 1}, [1, 2, 3], [None, 2, None]),
    ({"min_successful": 2}, [1, 2, 3], "1 is odd"),
    ({"min_successful": 0.5}, [1, 2, 3, 4], [None, 2, None, 4]),
    ({"min_successful": 0}, [1, 3], [None, None]),
    ({"min_successful": 1, "tolerated_failures": 1}, [1, 2, 3], "1 is odd"),
    ({"min_successful": 3}, [2, 4], "foreach 'fan' needs 3 items to succeed and has 2"),
    ({"min_successful": 1}, [], "foreach 'fan' needs 1 items to succeed and has 0"),
]


@pytest.mark.parametrize("distributed", [False, True])
@pytest.mark.parametrize(("policy", "items", "expected"), POLICIES)
def test_failures_end_a_foreach_as_it_says(
    policy: dict[str, Any], items: list[int], expected: Any, distributed: bool
) -> None:
    """A plain one and a distributed one alike."""
    _, _, result = ran(fanned(picky, distributed=distributed, **policy), items)
    assert expected == (result.output if result.error is None else result.error.message)


def test_what_lies_behind_the_deciding_failure_is_canceled() -> None:
    """Children that wait are, too, and those that were never begun never begin."""

    @step
    def trouble(number: int, ctx: StepContext[int, None]) -> int:
        SEEN.setdefault("ran", []).append(number)
        if number == 1:
            raise ValueError("no")
        ctx.suspend()

    app, _, result = ran(fanned(trouble, concurrency=3), [1, 2, 3, 4, 5], "queue")
    assert ("failed", {0: "SUCCESS", 1: "CANCELED", 2: "CANCELED"}, {1, 2, 3}) == (
        result.status,
        children(app),
        set(SEEN["ran"]),
    )


def test_a_bail_in_an_item_ends_the_run() -> None:
    """With what it gave; the rest is canceled."""

    @step
    def out(number: int, ctx: StepContext[int, None]) -> int:
        if number == 2:
            ctx.bail("enough")
        ctx.suspend()

    app, _, result = ran(fanned(out), [1, 2, 3], "queue")
    assert ("success", "enough", ["CANCELED", "CANCELED"]) == (
        result.status,
        result.output,
        [children(app)[0], children(app)[2]],
    )


# -- operators ----------------------------------------------------------------------------------------------------


def test_cancel_reaches_every_child() -> None:
    """Those that wait and those in the queue; nothing runs afterwards."""
    flow = fanned(ask)
    app, run, _ = ran(flow, [0, 2], "queue")
    run.cancel()
    app.run_until_idle()
    assert ("canceled", {0: "CANCELED", 1: "CANCELED"}) == (run.result().status, children(app))


def test_children_of_a_canceled_run_never_begin() -> None:
    """Also when nobody has come to cancel them yet."""
    flow = fanned()
    app = app_for(flow, "queue")
    app.workflow(flow).create_run("r").start([1, 2])
    app.deliver("r")
    app.store.cancel(RunRef("default", "r"), now=app.clock.now())  # by a process that knows nothing of children
    app.run_until_idle()
    assert ({}, {0: "CANCELED", 1: "CANCELED"}) == (SEEN, children(app))


def test_children_show_in_no_listing_and_go_with_their_run() -> None:
    """Nothing at all is left, once nobody can be at work any more."""
    app, run, _ = ran(fanned(ask), [0, 1], "queue")
    listed = [summary.run_id for summary in app.list_runs()]
    counted = sum(app.counts().values())
    run.delete()
    app.advance(heads.REMOVAL_GRACE * 2)
    assert (["r"], 1, []) == (listed, counted, items(app))


def test_children_expire_with_their_run() -> None:
    """Whoever removes the run removes them first."""
    flow = fanned()
    app = LocalApp(App(flow, retention=timedelta(days=1)))
    app.workflow(flow).create_run("r").start([1, 2])
    app.advance(days=2)
    assert [] == items(app)


def test_a_slow_removal_takes_no_children_of_a_new_run() -> None:
    """Another worker has removed the old one meanwhile, and the id was free: its children have the same names."""
    flow, slow = fanned(ask), [True]

    def freezes(call: Call) -> None:
        if call.verb == "joins" and slow:
            slow.clear()
            app.workflow(flow).create_run("r").start([0, 2])
            app.run_until_idle()

    app = LocalApp(App(flow, retention=timedelta(days=1)))
    app.workflow(flow).create_run("r").start([0, 2])
    app.cancel("r")
    app.clock.forward(days=2)
    frozen = LocalApp(App(flow, retention=timedelta(days=1)), store=FaultyStore(app.store, freezes), clock=app.clock)
    frozen.look(RunRef("default", "r"))
    assert {0: "SUSPENDED", 1: "SUSPENDED"} == children(app)


def test_a_paused_run_begins_no_items() -> None:
    """Children that are looked at meanwhile look again later; unpaused, all is done."""
    flow = fanned()
    app = app_for(flow, "queue")
    run = app.workflow(flow).create_run("r")
    run.start([1, 2])
    app.deliver("r")
    run.pause()
    app.advance(minutes=1)
    seen = dict(SEEN)
    run.unpause()
    app.advance(PATIENCE)
    assert ({}, [2, 4]) == (seen, run.result().output)


def paused_early(script: Any) -> tuple[LocalApp, Run[Any, Any]]:
    """A run that was paused before its children were taken up."""
    flow, clock = fanned(), VirtualClock()
    app = LocalApp(App(flow), clock=clock, store=FaultyStore(MemoryStore(), script), queue=MemoryQueue(clock))
    run = app.workflow(flow).create_run("r")
    run.start([1, 2])
    app.deliver("r")
    run.pause()
    return app, run


def test_children_of_a_run_that_stays_paused_look_ever_more_rarely() -> None:
    """As long again as it has been paused already, six hours at most; unpaused, they go on at once."""
    claims: list[str] = []
    app, run = paused_early(lambda call: claims.append(call.verb) if call.verb == "claim" else None)
    app.advance(hours=6)
    assert 20 > len(claims)
    run.unpause()
    app.run_until_idle()
    assert [2, 4] == run.result().output


def test_a_child_that_is_put_off_as_its_run_goes_on_goes_on_too() -> None:
    """Whoever let the run go on has not met it among those that were put off."""
    held: list[bool] = []

    def unpauses(call: Call) -> None:
        if held and call.verb == "release" and call.run is not None and call.run.id.startswith("part-"):
            held.clear()
            run.unpause()

    app, run = paused_early(unpauses)
    app.clock.forward(hours=5)
    held.append(True)
    app.run_until_idle()
    assert [2, 4] == run.result().output


def test_a_child_that_sleeps_as_long_as_one_is_put_off_is_not_taken_up() -> None:
    """It has nothing to do, so nothing of the run is blocked."""
    nap = workflow("nap", input=int, output=int).sleep(PATIENCE, id="nap").then(double).commit()
    _, run, _ = ran(fanned(nap), [1, 2], "queue")
    with pytest.raises(NotBlocked):
        run.unblock()


@pytest.mark.parametrize("where", ["here", "queue"])
def test_an_answer_to_an_item_of_a_paused_run_is_applied_when_it_is_unpaused(where: Where) -> None:
    """At once: its child was put off, and does not sleep on."""
    app, run, _ = ran(fanned(ask), [0, 1], where)
    run.pause()
    receipt = app.resume("r", 40, step="fan", index=0).receipt
    app.run_until_idle()
    paused = run.result()
    assert ("applied", "paused", 1) == (receipt and receipt.verdict, paused.status, paused.progress["fan"].done)
    run.unpause()
    app.run_until_idle()
    assert [40, 1] == run.result().output


def test_a_new_life_has_children_of_its_own() -> None:
    """Time travel to the fan begins all items anew; those of the former life deliver nothing."""
    app, run, _ = ran(fanned(ask), [0, 2], "queue")
    run.time_travel("fan")
    app.run_until_idle()
    app.resume("r", 1)
    app.run_until_idle()
    assert ([1, 3], 2) == (run.result().output, len(children(app)))


@pytest.mark.parametrize("verb", ["time_travel", "redrive"])
def test_a_failed_fan_goes_on_where_it_failed(verb: str) -> None:
    """What has succeeded is kept, and only the rest runs again."""
    failing = {3}

    @step
    def shaky(number: int) -> int:
        SEEN.setdefault("ran", []).append(number)
        if number in failing:
            raise ValueError("down")
        return number

    app, run, _ = ran(fanned(shaky), [1, 2, 3], "queue")
    failing.clear()
    run.time_travel("fan") if verb == "time_travel" else run.redrive()
    app.run_until_idle()
    assert ([1, 2, 3], [1, 2, 3, 3]) == (run.result().output, SEEN["ran"])


def test_a_fork_behind_a_fan_keeps_what_it_gave() -> None:
    """The items need not run again."""
    flow = (
        workflow("forked", input=list[int], output=int)
        .foreach(double, id="fan", distributed=True)
        .map(sum, id="sum")
        .commit()
    )
    app, run, _ = ran(flow, [1, 2], "queue")
    forked = run.fork("sum", run_id="other")
    app.run_until_idle()
    assert (6, 2) == (app.run(forked.run_id).result().output, len(SEEN))


def test_a_restarted_run_finds_its_children() -> None:
    """None is begun twice, and nothing is lost."""
    flow = fanned(concurrency=1)
    app = app_for(flow, "queue")
    run = app.workflow(flow).create_run("r")
    run.start([1, 2])
    app.deliver("r")
    run.restart()
    app.run_until_idle()
    assert ([2, 4], [[1], [2]]) == (run.result().output, list(SEEN.values()))


def test_an_item_whose_child_was_canceled_by_hand_has_failed() -> None:
    """The run does not wait for it for ever."""
    flow = fanned(tolerated_failures=1)
    app = app_for(flow, "queue")
    run = app.workflow(flow).create_run("r")
    run.start([1, 2])
    app.deliver("r")
    app.store.cancel(RunRef("default", child_id("r", 1, StepKey("fan"), 0)), now=app.clock.now())
    app.advance(PATIENCE * 2)
    result = run.result()
    error = result.steps["fan[0]"].error
    assert ([None, 4], "ItemCanceled") == (result.output, error and error.type)


def test_an_item_whose_child_was_canceled_by_hand_has_failed_in_front_of_one_that_decides() -> None:
    """An item behind it has failed already, and how the foreach ends hangs on what stands in front of that."""
    app = app_for(fanned(picky), "queue")
    run = app.workflow("fanned").create_run("r")
    run.start([0, 1])
    app.deliver("r")
    app.store.cancel(RunRef("default", child_id("r", 1, StepKey("fan"), 0)), now=app.clock.now())
    app.run_until_idle()
    app.advance(PATIENCE * 2)
    error = run.result().error
    assert ("failed", "fan[0]") == (run.result().status, error and error.step)


def test_a_child_that_waits_and_is_canceled_by_hand_tells_its_run() -> None:
    """Which waits for answers only, and would never look by itself."""
    app, run, result = ran(fanned(ask, tolerated_failures=1), [0, 2], "queue")
    app.cancel(child_id("r", 1, StepKey("fan"), 0))
    app.run_until_idle()
    error = run.result().steps["fan[0]"].error
    assert ("suspended", "ItemCanceled", [1]) == (
        result.status,
        error and error.type,
        [wait.index for wait in run.result().waits],
    )


@step
def ask_again(number: int, ctx: StepContext[int, int]) -> int:
    """Asks, and item 0 once more; 2 fails once it was answered."""
    if ctx.resume_data is None or (number, ctx.resume_data) == (0, 1):
        ctx.suspend(number)
    if number == 2:
        raise ValueError("two fails")
    return number


def test_a_worker_that_thaws_does_not_hide_that_an_item_waits() -> None:
    """It took an answer, froze, and now says late that the item waits no more; which has asked again meanwhile."""

    def freezes(call: Call) -> None:
        if call.verb == "join" and not thawed:
            thawed.append(call.number)
            app.clock.forward(minutes=30)
            app.look(RunRef("default", child_id("r", 1, StepKey("fan"), 0)))

    thawed: list[int] = []
    app, run, _ = ran(fanned(ask_again, shard=2), [0, 1, 2, 3], "queue")
    given: dict[str, Any] = {"clock": app.clock, "queue": app.queue}
    frozen = LocalApp(App(*app.workflows.values()), store=FaultyStore(app.store, freezes), **given)
    app.resume("r", 1, step="fan", index=0)
    frozen.look(RunRef("default", child_id("r", 1, StepKey("fan"), 0)))
    assert thawed
    app.run_until_idle()
    asked = run.result()
    app.resume("r", 1, step="fan", index=2)
    app.run_until_idle()
    told = [wait.index for wait in asked.waits]
    assert ("suspended", [0, 1, 2, 3], "failed") == (asked.status, sorted(told), run.result().status)  # type: ignore[type-var]


def test_a_worker_that_has_lost_a_child_looks_at_its_head_alone() -> None:
    """Others have gone on in its place; the records around the child are those of all items, and of no use to it."""
    calls: list[str] = []
    child = RunRef("default", child_id("r", 1, StepKey("fan"), 0))

    @step
    def slow(number: int) -> int:
        SEEN.setdefault("began", []).append(number)
        if len(SEEN["began"]) == 1:
            app.clock.forward(hours=1)
            app.look(child)
            calls.append("thaws")
        return number

    flow = fanned(slow)
    clock = VirtualClock()
    store: Any = FaultyStore(MemoryStore(), lambda call: calls.append(call.verb) if calls else None)
    app = LocalApp(App(flow), clock=clock, store=store, queue=MemoryQueue(clock))
    app.workflow(flow).create_run("r").start([1])
    app.deliver("r")
    app.look(child)
    assert ["thaws", "peek", "peek"] == calls


@pytest.mark.parametrize("count", [20, 40])
def test_a_script_drives_only_children_that_were_begun(count: int) -> None:
    """One item at a time: those behind it have no child yet, and nobody asks for them."""
    claims: list[str] = []
    store = FaultyStore(MemoryStore(), lambda call: claims.append(call.verb) if call.verb == "claim" else None)
    flow = fanned(concurrency=1)
    app = LocalApp(App(flow), store=store)
    assert "success" == app.workflow(flow).create_run("r").start(list(range(count))).status
    assert 3 * count >= len(claims)


def test_concurrency_may_be_computed() -> None:
    """And is resolved once."""

    def slots(items: list[int], ctx: FunctionContext) -> float:
        SEEN.setdefault("asked", []).append(len(items))
        return 2

    _, _, result = ran(fanned(concurrency=slots), [1, 2, 3], "queue")
    assert ([2, 4, 6], [3]) == (result.output, SEEN["asked"])


def test_child_that_needs_more_time_than_is_left_is_looked_at_once() -> None:
    """Not again and again until it counts as going in circles; later there is more time, and it ends."""

    @step(timeout=timedelta(seconds=30))
    def long(number: int) -> int:
        return number

    flow = fanned(long)
    app = app_for(flow)
    ref = RunRef(app.tenant, "r")
    run = app.workflow(flow).create_run("r")
    run.start([1, 2], wait=timedelta(seconds=20))
    for _ in range(3):
        app.look(ref, deadline=app.clock.now() + timedelta(seconds=20))
    child = app.store.peek(RunRef(app.tenant, child_id("r", 1, StepKey("fan"), 0)))
    assert child is None or child.hops < 10
    app.advance(minutes=5)
    assert ("success", [1, 2]) == (run.result().status, run.result().output)


def test_children_that_there_was_no_time_to_begin_are_begun_by_another_worker() -> None:
    """Also when a step beside the foreach was still at work then, whose end leaves nothing else to do."""
    is_gathering = Event()

    @step
    def slow(numbers: list[int]) -> int:
        is_gathering.wait(timeout=10)
        return len(numbers)

    def passing(call: Call) -> None:
        if call.verb == "open_join":
            app.clock.forward(seconds=19)
            is_gathering.set()

    inner = workflow("inner", input=list[int], output=list[int]).foreach(double, id="fan", distributed=True).commit()
    flow = workflow("outer", input=list[int], output=dict[str, Any]).parallel(inner, slow).commit()
    clock = VirtualClock()
    app = LocalApp(App(flow), clock=clock, store=FaultyStore(MemoryStore(), passing), queue=MemoryQueue(clock))
    run = app.workflow(flow).create_run("r")
    run.start([1, 2], wait=timedelta(seconds=20))
    app.run_until_idle()
    assert {"inner": [2, 4], "slow": 2} == run.result().output


def test_an_item_that_a_dead_worker_has_not_counted_home_lets_others_begin() -> None:
    """Its record is there; who finds it has to tell the join, and then begin what may now be begun."""
    deaths = [Fault.DIES_BEFORE]

    def dying(call: Call) -> Fault | None:
        return deaths.pop() if call.verb == "join" and deaths else None

    flow, clock = fanned(concurrency=1), VirtualClock()
    app = LocalApp(App(flow), clock=clock, store=FaultyStore(MemoryStore(), dying), queue=MemoryQueue(clock))
    run = app.workflow(flow).create_run("r")
    run.start([1, 2, 3])
    app.run_until_idle()
    assert ([], "waiting") == (deaths, run.result().status)
    app.advance(minutes=7)  # the run sees for itself; the lease of the dead worker lasts longer
    assert [2, 4, 6] == run.result().output


def test_child_that_failed_as_a_whole_fails_its_items() -> None:
    """A run that waited for them would wait for ever."""
    flow = fanned(double)
    app = app_for(flow, "queue")
    run = app.workflow(flow).create_run("r")
    run.start([1, 2])
    app.look(RunRef(app.tenant, "r"))
    for number in (0, 1):
        ref = RunRef(app.tenant, child_id("r", 1, StepKey("fan"), number))
        head = app.store.peek(ref)
        assert head is not None
        app.store.move(replace(head, version=head.version + 1, hops=app.engine.pace.most_hops), version=head.version)
        app.look(ref, deadline=app.clock.now() + timedelta(seconds=1))
    app.run_until_idle()
    result = run.result()
    assert "failed" == result.status
    assert result.error is not None
    assert ("TooManyHops", "fan") == (result.error.type, result.error.step)


@step(state=dict[str, Any])
def ask_or_fail(number: int, ctx: StepContext[int, int, dict[str, Any]]) -> int:
    """Asks twice, having told so; 1 fails once it was answered."""
    ctx.set_state({f"asked-{number}": True})
    if ctx.resume_data is None:
        ctx.suspend(number)
    if number == 1:
        raise ValueError("one fails")
    return number + ctx.resume_data


def test_an_answered_item_is_not_left_behind_by_one_that_fails_after_it() -> None:
    """Its child may not have been driven since: the hint was lost. The foreach waits for what it comes to."""
    flow = fanned(ask_or_fail, tolerated_failures=0)
    app, run, _ = ran(flow, [0, 1], "queue")
    app.resume("r", 5, step="fan", index=0)
    assert isinstance(app.queue, MemoryQueue)
    assert len(app.queue.pop_due(app.clock.now())) == 1  # lost
    app.resume("r", 5, step="fan", index=1)
    app.run_until_idle()
    assert (run.result().status, run.result().steps["fan[1]"].status) == ("waiting", "failed")
    app.advance(minutes=5)
    assert (run.result().status, run.result().steps["fan[0]"].output) == ("failed", 5)


def test_changes_of_an_item_that_still_waits_are_kept_when_the_foreach_fails() -> None:
    """What it has changed is stored; a nested workflow around the foreach hands it on as it would that of any other."""
    inner = workflow("inner", input=list[int], output=list[int], state=dict[str, Any])
    around = inner.foreach(ask_or_fail, id="fan", distributed=True).commit()
    flow = workflow("outer", input=list[int], output=list[int], state=dict[str, Any]).then(around).commit()
    app, run, _ = ran(flow, [0, 1])
    app.resume("r", 5, step="inner.fan", index=1)
    app.run_until_idle()
    assert run.result().status == "failed"
    assert run.result().state == {"asked-0": True, "asked-1": True}


def test_a_worker_whose_clock_is_behind_does_the_work_of_a_child() -> None:
    """By its clock the sleep in front of the foreach is not over; whoever began the child knows better."""
    flow = workflow("rested", input=list[int], output=list[int]).sleep(timedelta(minutes=5))
    rested = flow.foreach(double, id="fan", distributed=True).commit()
    app, run, _ = ran(rested, [1, 2], "queue")
    clock: Any = ShiftedClock(app.clock, timedelta(minutes=5))
    queue: Any = app.queue
    ahead = LocalApp(App(rested), store=app.store, queue=queue, clock=clock)
    ahead.look(RunRef("default", "r"), deadline=ahead.clock.now() + timedelta(seconds=1))
    assert run.result().updated_at == ahead.clock.now()  # which wakes the run, and has no time for more
    app.run_until_idle()
    assert (run.result().status, run.result().output) == ("success", [2, 4])


def test_an_item_whose_retry_is_due_does_not_rest_beside_its_question() -> None:
    """Its child was not driven since, for the hint is late; what looks at it meanwhile must not take it for parked."""

    @step(retries=1, backoff=Backoff(initial=timedelta(minutes=2), jitter=False))
    def flaky(number: int, ctx: StepContext[None, None]) -> int:
        if ctx.attempt == 1:
            raise ValueError("not yet")
        return number

    inner = workflow("inner", input=int, output=dict[str, int]).parallel(ask, flaky).commit()
    flow = fanned(inner)
    app, run, result = ran(flow, [0], "queue")
    assert result.status == "waiting"
    app.clock.forward(minutes=6)
    app.look(RunRef("default", "r"))
    assert run.result().status == "waiting"
    app.run_until_idle()
    assert run.result().status == "suspended"


@step
def fails(items: list[int]) -> int:
    """Never anything else."""
    raise ValueError(f"{len(items)} are too many")


def test_a_worker_that_dies_while_it_ends_a_run_does_not_change_how_it_ends() -> None:
    """The children of the run are canceled by then; their items have not failed for it."""
    inner = workflow("inner", input=list[int], output=list[int]).foreach(ask, id="fan", distributed=True).commit()
    flow = workflow("torn", input=list[int], output=dict[str, Any]).parallel(inner, fails).commit()
    strikes: list[Fault] = []
    clock = VirtualClock()
    store: Any = FaultyStore(MemoryStore(), lambda call: strikes.pop() if strikes and call.verb == "cancel" else None)
    app = LocalApp(App(flow), clock=clock, store=store, queue=MemoryQueue(clock))
    run = app.workflow(flow).create_run("r")
    strikes.append(Fault.DIES_AFTER)
    with suppress(WorkerDied):
        run.start([2, 4])
        app.run_until_idle()
    assert not strikes
    assert {0: RunStatus.CANCELED, 1: RunStatus.SUSPENDED} == children(app)
    app.advance(hours=1)
    result = run.result()
    assert ("failed", "2 are too many") == (result.status, result.error.message if result.error else None)
    assert ["fails"] == [name for name, one in result.steps.items() if one.status == "failed"]


@step
def five_fails(number: int) -> int:
    """Fails for five."""
    if number == 5:
        raise ValueError("five")
    return number


def five_first(number: int) -> timedelta:
    """How long items sleep: five the shortest."""
    return timedelta(seconds=10_000 if number == 5 else 10_300)


def test_the_last_item_in_front_of_one_that_decides_ends_the_foreach() -> None:
    """At once: those behind are canceled and tell nothing any more, and nobody else would wake the run."""
    inner = workflow("inner", input=int, output=int).sleep(five_first, id="nap").then(five_fails).commit()
    app, run, _ = ran(fanned(inner), list(range(10)), "queue")
    app.advance(seconds=10_001)
    decided = run.result().status
    app.advance(seconds=310)
    assert ("waiting", "failed") == (decided, run.result().status)


@step
def ask_once(number: int, ctx: StepContext[int, int]) -> int:
    """Asks, and remembers what it was told."""
    if ctx.resume_data is None:
        ctx.suspend(number, label=f"about-{ctx.index}")
    SEEN.setdefault("told", []).append(ctx.resume_data)
    return number


@step
def fails_anyway(value: Any) -> int:
    """Whatever it is given."""
    raise ValueError(f"{value} is no good")


def beside_a_failure(fan: Workflow[Any, Any], failing: Any = fails_anyway) -> Workflow[Any, Any]:
    """A foreach, and beside it something that fails after a minute."""
    later = workflow("later", input=Any, output=int).sleep(timedelta(minutes=1), id="nap").then(failing).commit()
    return workflow("beside", input=Any, output=dict[str, Any]).parallel(fan, later).commit()


@pytest.mark.parametrize("distributed", [False, True])
def test_an_answer_that_was_applied_is_used_though_the_run_fails_beside_it(distributed: bool) -> None:
    """Its child may not have been driven since: the run waits for it, as it would for an item of its own."""
    flow = beside_a_failure(fanned(ask_once, distributed=distributed, concurrency=2))
    app, run, _ = ran(flow, [1, 2], "queue")
    app.clock.forward(minutes=2)
    app.resume("r", 5, label="about-0")
    app.deliver("r")
    app.run_until_idle()
    assert ("failed", [5]) == (run.result().status, SEEN["told"])


def test_an_answer_deep_inside_is_used_though_the_run_fails_beside_it() -> None:
    """Also one to the child of a child, of which the run itself hears nothing."""
    inner = workflow("inner", input=list[int], output=list[int]).foreach(ask_once, id="deep", distributed=True).commit()
    outer = (
        workflow("outer", input=list[list[int]], output=list[list[int]])
        .foreach(inner, id="fan", distributed=True)
        .commit()
    )
    app, run, _ = ran(beside_a_failure(outer), [[1, 2]], "queue")
    app.clock.forward(minutes=2)
    app.resume("r", 5, label="about-0")
    app.deliver("r")
    app.run_until_idle()
    assert ("failed", [5]) == (run.result().status, SEEN["told"])


def answering_meanwhile(is_driven: bool) -> tuple[Any, list[LocalApp]]:
    """A step that fails after it has taken long enough for somebody to answer; and where that one finds the App."""
    apps: list[LocalApp] = []

    @step
    def takes_long(value: Any) -> int:
        [app] = apps
        queue: Any = app.queue
        other = LocalApp(app, store=app.store, clock=app.clock, queue=queue)
        other.resume("r", 5, label="about-0")
        if is_driven:
            other.look(RunRef("default", child_of_item(other, 0)))
        raise ValueError("all for nothing")

    return takes_long, apps


def child_of_item(app: LocalApp, first: int) -> str:
    """The only child that begins with that item."""
    [child] = {
        head.run.id
        for item in items(app)
        if (head := app.store.peek(RunRef("default", item["pk"]["S"].rsplit("#", 1)[1]))) is not None
        and head.part is not None
        and head.part.first == first
    }
    return child


def asks_and_naps() -> Workflow[Any, Any]:
    """An item with something left to do after its answer and a pause."""
    asks = workflow("asks", input=int, output=int).then(ask_once).sleep(timedelta(minutes=1), id="pause")
    return asks.then(double).commit()


@pytest.mark.parametrize("is_driven", [False, True])
@pytest.mark.parametrize("distributed", [False, True])
def test_an_item_that_is_answered_while_a_step_beside_it_fails_comes_to_its_end(
    distributed: bool, is_driven: bool
) -> None:
    """The worker that ends the run has looked at the item before it was answered."""
    takes_long, apps = answering_meanwhile(is_driven and distributed)
    flow = beside_a_failure(fanned(asks_and_naps(), distributed=distributed, concurrency=2), takes_long)
    app, run, _ = ran(flow, [1, 2], "queue")
    apps.append(app)
    app.advance(minutes=10)
    result = run.result()
    assert ("failed", "all for nothing") == (result.status, result.error and result.error.message)
    assert ([5], "success") == (SEEN["told"], result.steps["fanned.fan[0].double"].status)


@pytest.mark.parametrize("is_driven", [False, True])
@pytest.mark.parametrize("distributed", [False, True])
def test_an_item_that_is_answered_while_what_it_lies_in_fails_comes_to_its_end(
    distributed: bool, is_driven: bool
) -> None:
    """Also where the run goes on without what has failed."""
    takes_long, apps = answering_meanwhile(is_driven and distributed)
    around = beside_a_failure(fanned(asks_and_naps(), distributed=distributed, concurrency=2), takes_long)
    outer = workflow("outer", input=list[list[int]], output=list[Any])
    flow = outer.foreach(around, id="plain", tolerated_failures=1).commit()
    app, run, _ = ran(flow, [[1, 2]], "queue")
    apps.append(app)
    app.advance(minutes=10)
    result = run.result()
    assert ("success", [None]) == (result.status, result.output)
    assert ([5], "success") == (SEEN["told"], result.steps["plain[0].fanned.fan[0].double"].status)


def naps(number: int) -> timedelta:
    """How long the items of a nested foreach sleep."""
    return timedelta(seconds={1: 60, 9: 5}.get(number, 0))


@step
def ask_or_break(number: int, ctx: StepContext[int, int]) -> int:
    """Zero asks, all others fail."""
    SEEN.setdefault("ran", []).append(number)
    if number:
        raise ValueError(f"{number} fails")
    ctx.suspend(number)


@pytest.mark.parametrize("distributed", [False, True])
def test_an_item_with_a_foreach_in_which_something_moves_is_waited_for(distributed: bool) -> None:
    """Another item of it asks; but the one that sleeps will fail, in front of the item that has."""
    slow = workflow("slow", input=int, output=int).sleep(naps, id="nap").then(ask_or_break).commit()
    deep = workflow("inner", input=list[int], output=list[int])
    inner = deep.foreach(slow, id="deep", concurrency=2, distributed=distributed).commit()
    outer = workflow("outer", input=list[list[int]], output=list[list[int]])
    flow = outer.foreach(inner, id="fan", distributed=True).commit()
    app, run, _ = ran(flow, [[0, 1], [9]], "queue")
    app.advance(seconds=6)
    before = run.result().status
    app.advance(seconds=61)
    error = run.result().error
    assert ("waiting", "1 fails", [0, 9, 1]) == (before, error and error.message, SEEN["ran"])


def test_a_foreach_in_an_item_of_which_nothing_moves_is_not_waited_for() -> None:
    """Items that nobody has begun, because others keep their slots, do not move."""
    deep = workflow("inner", input=list[int], output=list[int])
    inner = deep.foreach(ask, id="deep", concurrency=1, distributed=True).commit()
    outer = workflow("outer", input=list[list[int]], output=list[list[int]])
    flow = outer.foreach(inner, id="fan", distributed=True).commit()
    app, run, result = ran(flow, [[0, 2, 4]], "queue")
    status = app.store.peek(RunRef("default", "r"))
    assert ("suspended", RunStatus.SUSPENDED) == (result.status, status and status.status)
    app.resume("r", 1)
    app.run_until_idle()
    assert "suspended" == run.result().status


@pytest.mark.parametrize("verb", ["time_travel", "redrive"])
def test_a_child_of_a_new_life_that_was_canceled_by_hand_tells_its_run(verb: str) -> None:
    """Though items behind its own were done in the former life, and never had a child in this one."""
    failing = {0}

    @step
    def shaky(number: int, ctx: StepContext[int, int]) -> int:
        if number in failing:
            raise ValueError("down")
        if number == 0 and ctx.resume_data is None:
            ctx.suspend(number)
        return number

    app, run, _ = ran(fanned(shaky), [0, 1, 2], "queue")
    failing.clear()
    run.time_travel("fan") if verb == "time_travel" else run.redrive()
    app.run_until_idle()
    head = app.store.peek(RunRef("default", "r"))
    assert head is not None
    app.cancel(child_id("r", head.incarnation, StepKey("fan"), 0))
    app.run_until_idle()
    result = run.result()
    assert ("failed", "ItemCanceled") == (result.status, result.error and result.error.type)


def test_items_of_a_new_life_have_their_run_looked_at_only_for_something() -> None:
    """Where the last item was done before, it never has a child; all are begun when the last that was left has one."""
    failing, calls = set(range(9)), list[Call]()

    @step
    def shaky(number: int, ctx: StepContext[int, int]) -> int:
        if number == 8 and ctx.resume_data is None:
            ctx.suspend(number)  # the others are decided, and the last begun, before it fails
        if number in failing:
            raise ValueError("down")
        return number

    clock, flow = VirtualClock(), fanned(shaky, concurrency=9, tolerated_failures=8, shard=1)
    app = LocalApp(App(flow), clock=clock, store=FaultyStore(MemoryStore(), calls.append), queue=MemoryQueue(clock))
    run = app.workflow(flow).create_run("r")
    run.start(list(range(10)))
    app.run_until_idle()
    run.resume(1)
    app.run_until_idle()
    failing.clear()
    assert "failed" == run.result().status
    life = app.store.peek(RunRef("default", run.redrive().run_id))
    assert life is not None
    app.deliver("r")
    calls.clear()
    app.deliver(child_id("r", life.incarnation, StepKey("fan"), 0))
    assert "join" in [call.verb for call in calls]
    assert ("peek", RunRef("default", "r")) not in [(call.verb, call.run) for call in calls]
    app.run_until_idle()
    assert list(range(10)) == run.result().output


def test_no_more_items_of_a_new_life_are_open_than_allowed() -> None:
    """Also where the last item was done in the former one."""
    failing = {0, 1, 2}

    @step
    def shaky(number: int, ctx: StepContext[int, int]) -> int:
        if number in failing:
            raise ValueError("down")
        if number < 3 and ctx.resume_data is None:
            ctx.suspend(number)
        return number

    app, run, _ = ran(fanned(shaky, concurrency=2, tolerated_failures=2), [0, 1, 2, 3], "queue")
    failing.clear()
    run.redrive()
    app.run_until_idle()
    assert [0, 1] == [wait.index for wait in run.result().waits]
    app.resume("r", 1)
    app.run_until_idle()
    app.resume("r", 1)
    app.run_until_idle()
    assert [0, 1, 2, 3] == run.result().output


def test_a_run_goes_on_waiting_while_an_answered_item_deep_inside_moves() -> None:
    """It was told that the item waits; since an answer to the child of a child it does no more."""

    @step
    def ask_and_nap(number: int, ctx: StepContext[int, int]) -> int:
        return ctx.suspend(number) if ctx.resume_data is None else number

    slow = workflow("slow", input=int, output=int).then(ask_and_nap).sleep(timedelta(minutes=9), id="nap").commit()
    inner = workflow("inner", input=list[int], output=list[int]).foreach(slow, id="deep", distributed=True).commit()
    outer = (
        workflow("outer", input=list[list[int]], output=list[list[int]])
        .foreach(inner, id="fan", distributed=True)
        .commit()
    )
    app, run, _ = ran(beside_a_failure(outer), [[3]], "queue")
    app.resume("r", 5, index=0)
    app.run_until_idle()
    app.advance(minutes=2)
    before = run.result().status
    app.advance(minutes=30)
    result = run.result()
    assert ("waiting", "failed", "success") == (before, result.status, result.steps["outer.fan"].status)


def test_an_item_whose_wait_has_timed_out_is_waited_for() -> None:
    """Its run was told that it waits for an answer; by now it sleeps."""

    @step
    def patient(number: int, ctx: StepContext[int, None]) -> int:
        return number if ctx.timed_out else ctx.suspend(timeout=timedelta(seconds=30))

    slow = workflow("slow", input=int, output=int).then(patient).sleep(timedelta(minutes=9), id="nap").commit()
    app, run, _ = ran(beside_a_failure(fanned(slow)), [3], "queue")
    app.advance(minutes=2)
    before = run.result().status
    app.advance(minutes=30)
    result = run.result()
    assert ("waiting", "failed", "success") == (before, result.status, result.steps["fanned.fan"].status)


def test_a_run_is_not_looked_at_when_a_child_falls_asleep() -> None:
    """Nothing is done by that, and nobody asks."""
    inner = workflow("inner", input=int, output=int).sleep(timedelta(minutes=1), id="one").then(double)
    slow = inner.sleep(timedelta(minutes=1), id="two").then(double, id="again").commit()
    app, run, _ = ran(fanned(slow), [1, 2, 3], "queue")
    before = app.store.peek(RunRef("default", "r"))
    app.advance(seconds=70)
    after = app.store.peek(RunRef("default", "r"))
    app.advance(seconds=70)
    assert (before, [4, 8, 12]) == (after, run.result().output)


def test_a_child_hands_in_each_item_once() -> None:
    """However often it is given back meanwhile; large values would be stored each time."""
    committed: list[str] = []

    def watched(call: Call) -> None:
        if call.verb == "commit" and call.run == RunRef("default", "r"):
            committed.append(call.verb)

    flow, clock = fanned(ask_once, shard=5), VirtualClock()
    app = LocalApp(App(flow), clock=clock, store=FaultyStore(MemoryStore(), watched), queue=MemoryQueue(clock))
    run = app.workflow(flow).create_run("r")
    run.start([0, 1, 2, 3, 4])
    app.run_until_idle()
    committed.clear()
    for index in range(5):
        app.resume("r", 1, index=index)
        app.run_until_idle()
    assert ("success", 5 + 1) == (run.result().status, len(committed))


def test_a_deploy_that_distributes_no_more_is_told_and_the_children_are_kept() -> None:
    """Their waits could not be answered by it; cancel reaches them all the same."""
    app, _, _ = ran(fanned(ask_once), [1, 2], "queue")
    today = fanned(ask_once, distributed=False)
    queue: Any = app.queue
    after = LocalApp(App(today), clock=app.clock, store=app.store, queue=queue)
    with pytest.raises(DefinitionChanged, match="distributed foreach under way"):
        after.resume("r", 1, label="about-0")
    app.resume("r", 1, label="about-0")
    app.run_until_idle()
    after.cancel("r")
    after.run_until_idle()
    assert ({0: "SUCCESS", 1: "CANCELED"}, [1]) == (children(app), SEEN["told"])


def test_cancel_reaches_children_of_a_workflow_that_is_not_served() -> None:
    """Where the process that cancels knows others alone."""
    app, _, _ = ran(fanned(ask), [0, 2], "queue")
    queue: Any = app.queue
    plain = workflow("plain", input=int, output=int).then(double).commit()
    LocalApp(App(plain), clock=app.clock, store=app.store, queue=queue).cancel("r")
    assert {0: "CANCELED", 1: "CANCELED"} == children(app)


def test_a_child_that_is_canceled_by_hand_is_no_run() -> None:
    """No hook hears of it, and it does not expire by itself; children of its own are canceled."""
    heard: list[str] = []

    def hear(result: RunResult[Any]) -> None:
        heard.append(result.run_id)

    inner = workflow("inner", input=list[int], output=list[int]).foreach(ask, id="deep", distributed=True).commit()
    outer = workflow(
        "outer", input=list[list[int]], output=list[list[int] | None], on_finish=hear, retention=timedelta(days=1)
    )
    flow = outer.foreach(inner, id="fan", distributed=True, tolerated_failures=1).commit()
    app, run, _ = ran(flow, [[0, 2]], "queue")
    middle = child_id("r", 1, StepKey("fan"), 0)
    app.cancel(middle)
    app.run_until_idle()
    ids = [middle, child_id(middle, 1, StepKey("fan[0]/deep"), 0)]
    heads = [head for id in ids if (head := app.store.peek(RunRef("default", id))) is not None]
    assert (["r"], "success") == (heard, run.result().status)
    assert [(RunStatus.CANCELED, None)] * 2 == [(head.status, head.expires_at) for head in heads]


def test_children_of_a_run_that_goes_in_circles_end_with_it() -> None:
    """Like those of one that ends by itself."""

    @step
    def tick(number: int) -> int:
        return number + 1

    inner = workflow("inner", input=int, output=list[int]).map(lambda _: [0, 2], id="both")
    asking = inner.foreach(ask, id="fan", distributed=True).commit()
    later = workflow("later", input=int, output=int).sleep(timedelta(hours=1)).then(tick).commit()
    flow = workflow("outer", input=int, output=dict[str, Any]).parallel(asking, later).commit()
    clock = VirtualClock()
    app = LocalApp(App(flow, pace=Pace(most_hops=0)), clock=clock, queue=MemoryQueue(clock))
    run = app.workflow(flow).create_run("r")
    run.start(0)
    app.run_until_idle()
    clock.forward(hours=1)
    app.look(RunRef("default", "r"), deadline=clock.now() + timedelta(seconds=1))
    app.run_until_idle()
    error = run.result().error
    assert ("TooManyHops", {0: "CANCELED", 1: "CANCELED"}) == (error and error.type, children(app))


def test_time_travel_cancels_the_children_of_the_life_before() -> None:
    """Nobody wants their work any more, and no other life will name them again."""

    @step
    def first(numbers: list[int]) -> list[int]:
        return numbers

    flow = (
        workflow("travels", input=list[int], output=list[int])
        .then(first)
        .foreach(ask, id="fan", distributed=True)
        .commit()
    )
    app, run, _ = ran(flow, [0, 2], "queue")
    run.time_travel("first")
    app.run_until_idle()
    before = [app.store.peek(RunRef("default", child_id("r", 1, StepKey("fan"), first))) for first in (0, 1)]
    assert ["CANCELED", "CANCELED"] == [head and head.status for head in before]
    assert [0, 1] == [wait.index for wait in run.result().waits]


def test_a_worker_that_has_no_time_to_look_at_every_child_that_asks_stops_looking() -> None:
    """The listing of waits is told of those that were looked at, of one at least."""
    app, calls, _ = asked_by(20)
    snapshot = app.engine.read(RunRef("default", "r"), everything=False)
    calls.clear()
    assert 4 == len(waits_in_children(app.engine, snapshot, is_late=lambda: len(calls) > 3))
    assert 1 == len(waits_in_children(app.engine, snapshot, is_late=lambda: True))
    assert {"peek"} == {call.verb for call in calls}


def test_a_parked_run_is_told_of_a_child_that_asks_and_is_not_given_back_yet() -> None:
    """Its head does not say so before; the run would be missing in the inbox otherwise."""
    app, _, _ = asked_by(1)
    child = RunRef("default", child_id("r", 1, StepKey("fan"), 0))
    snapshot = app.engine.read(RunRef("default", "r"), everything=False)
    told = waits_in_children(app.engine, snapshot, is_late=lambda: False)
    head = app.store.peek(child)
    assert head is not None
    app.store.move(heads.requeued(head, app.clock.now()), version=head.version)
    assert told == waits_in_children(app.engine, snapshot, is_late=lambda: False)


def loads(calls: list[Call]) -> int:
    """How many children were read."""
    return sum(call.verb == "load" and call.run is not None and call.run.id.startswith("part-") for call in calls)


MANY = MOST_MERGED + 20


def test_an_answer_by_its_wait_reads_as_many_children_however_many_ask() -> None:
    """Its own, and once the first hundred that ask, to show the run; the worker afterwards looks at heads alone."""
    app, calls, run = asked_by(MANY)
    wait = run.result().waits[3].id
    calls.clear()
    result = run.resume(1, wait=wait)
    assert MOST_MERGED + 2 >= loads(calls)
    assert (MANY, MOST_MERGED - 1) == (result.progress["fan"].waiting, len(result.waits))
    calls.clear()
    app.run_until_idle()
    assert 2 >= loads(calls)
    assert 2 * MOST_MERGED + 20 >= sum(call.verb == "peek" for call in calls)


def test_a_wait_of_any_item_is_found_at_one_read() -> None:
    """By whoever opens the page for it, though a result does not show it yet; also when it was answered."""
    app, calls, run = asked_by(MANY)
    wait = next(iter(app.waits(label=f"about-{MANY - 1}"))).id
    calls.clear()
    assert wait == asked(app, "r", wait).wait.id
    assert 1 == loads(calls)
    assert wait not in [one.id for one in run.result().waits]
    run.resume(1, wait=wait)
    with pytest.raises(AlreadyResumed):
        asked(app, "r", wait)


def test_receipts_are_of_every_child_that_asks() -> None:
    """Also of a vote in one of which a result shows nothing yet."""

    @step
    def board(number: int, ctx: StepContext[int, int]) -> int:
        if ctx.resume_data is None:
            ctx.suspend(number, label=f"about-{number}", approvers=["ada", "bob"], quorum=2)
        return number

    flow, clock = fanned(board, shard=1), VirtualClock()
    app = LocalApp(App(flow), clock=clock, queue=MemoryQueue(clock))
    run = app.workflow(flow).create_run("r")
    run.start(list(range(MANY)))
    app.run_until_idle()
    run.resume(1, label=f"about-{MANY - 1}", by="ada")
    assert ["counted"] == [receipt.verdict for receipt in run.receipts()]


def test_an_inbox_that_is_searched_knows_every_item() -> None:
    """One that is not, shows the first hundred of a foreach; the others come up as these are answered."""
    app, _, run = asked_by(MANY)
    assert set(range(MOST_MERGED)) == {wait.index for wait in app.waits()}
    assert [MANY - 1] == [wait.index for wait in app.waits(label=f"about-{MANY - 1}")]
    run.resume(1, index=MANY - 1, step="fan")
    run.resume(1, index=0, step="fan")
    app.run_until_idle()
    assert set(range(1, MOST_MERGED + 1)) == {wait.index for wait in app.waits()}


def test_a_child_that_is_handed_on_does_not_hide_that_others_of_its_items_wait() -> None:
    """It is in a queue again, and says nothing of whom it asks; but they can still be answered."""

    @step(timeout=timedelta(seconds=30))
    def long(number: int) -> int:
        return number

    inner = workflow("inner", input=int, output=int).then(ask_once).then(long).commit()
    app, run, _ = ran(fanned(inner, shard=2), [0, 1], "queue")
    app.resume("r", 5, label="about-0")
    child = RunRef("default", child_id("r", 1, StepKey("fan"), 0))
    head = app.look(child, deadline=app.clock.now() + timedelta(seconds=20))
    [join] = app.store.joins(RunRef("default", "r"))
    assert (RunStatus.QUEUED, frozenset({1})) == (head and head.status, join.asking)
    app.run_until_idle()
    app.resume("r", 5, label="about-1")
    app.run_until_idle()
    assert [0, 1] == run.result().output


def outrun(flow: Workflow[Any, Any]) -> tuple[LocalApp, StepRecord]:
    """An App in which somebody hands in the first item as done, just before it is given up; and the record of that."""
    run, clock, key = RunRef("default", "r"), VirtualClock(), StepKey("fan[0]")
    at = clock.now()
    done = StepRecord(key=key, outcome=Outcome.OK, seq=9, epoch=0, at=at, started_at=at, output=4711)

    def script(call: Call) -> None:
        if call.run == run and call.record and (call.record.key, call.record.outcome) == (key, Outcome.ERR):
            store.inner.commit(run, 1, done, None)

    store: Any = FaultyStore(MemoryStore(), script)
    return LocalApp(App(flow), clock=clock, store=store, queue=MemoryQueue(clock)), done


@pytest.mark.parametrize("shard", [1, 2])
def test_an_item_that_was_done_before_it_was_given_up_has_not_failed(shard: int) -> None:
    """Its child was canceled by hand; what the run is told of the item is what stands there."""
    flow = fanned(ask, shard=shard)
    app, _ = outrun(flow)
    run = app.workflow(flow).create_run("r")
    run.start([0, 1])
    app.run_until_idle()
    app.cancel(child_id("r", 1, StepKey("fan"), 0))
    app.run_until_idle()
    assert ("success", [4711, 1]) == (run.result().status, run.result().output)


@pytest.mark.parametrize("is_told", [False, True])
@pytest.mark.parametrize("shard", [1, 2])
def test_an_item_that_was_done_before_its_child_failed_as_a_whole_has_not_failed(shard: int, is_told: bool) -> None:
    """Also where the join knows already that it is done."""
    flow = fanned(shard=shard, tolerated_failures=shard - 1)
    app, done = outrun(flow)
    top, child = RunRef("default", "r"), RunRef("default", child_id("r", 1, StepKey("fan"), 0))
    run = app.workflow(flow).create_run("r")
    run.start([1, 2])
    app.look(top)
    head = app.store.peek(child)
    assert head is not None
    had_before = replace(head, version=head.version + 1, epoch=head.epoch + 1, hops=app.engine.pace.most_hops)
    app.store.move(had_before, version=head.version)
    if is_told:
        app.store.commit(top, 1, done, None)
        app.store.join(top, replace(app.store.joins(top, 1)[0], done=frozenset({0})))
    app.look(child, deadline=app.clock.now() + timedelta(seconds=1))
    app.run_until_idle()
    result = run.result()
    assert ("success", [4711, 4 if shard == 1 else None]) == (result.status, result.output)
    assert ["fan[1]"] * (shard - 1) == [id for id, one in result.steps.items() if one.status == "failed"]
    [join] = app.store.joins(top, 1)
    assert frozenset(range(1, shard)) == join.failed


def test_an_item_that_is_answered_while_its_child_is_given_back_waits_no_more() -> None:
    """It was told that it does, by the same worker a moment before."""
    asks = workflow("asks", input=int, output=int).then(ask_once).sleep(timedelta(days=1), id="pause").commit()
    flow = fanned(asks)
    clock, store, answered = VirtualClock(), MemoryStore(), list[bool]()
    other = LocalApp(App(flow), clock=clock, store=store, queue=MemoryQueue(clock))

    def script(call: Call) -> None:
        if call.verb == "release" and call.run and call.run.id.startswith("part-") and not answered:
            answered.append(True)
            other.resume("r", 5)

    wild: Any = FaultyStore(store, script)
    app = LocalApp(App(flow), clock=clock, store=wild, queue=MemoryQueue(clock))
    run = app.workflow(flow).create_run("r")
    run.start([1])
    app.run_until_idle()
    result = run.result()
    assert ([True], "waiting", 0) == (answered, result.status, result.progress["fan"].waiting)
