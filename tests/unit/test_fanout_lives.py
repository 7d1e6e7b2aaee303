"""A distributed foreach in a later life of its run: redriven, travelled back, forked. What was done in it is kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, StepContext, Wait, Workflow, step, workflow
from flowcore.adapters.memory import MemoryQueue, MemoryStore
from flowcore.core import heads
from flowcore.core.redrive import redriven
from flowcore.errors import ConflictError, PartOfRun, RequestError, StillRunning
from flowcore.fanout.children import child_id
from flowcore.keys import RunRef, Scope, StepKey
from flowcore.redrive import begin_life
from flowcore.testing import FaultyStore, LocalApp, VirtualClock, WorkerDied
from flowcore.testing.faults import Call

SEEN: list[Any] = []
BROKEN: set[int] = set()


def forget() -> None:
    """Nothing was seen, and item 1 is broken."""
    SEEN.clear()
    BROKEN.clear()
    BROKEN.add(1)


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    forget()


@step
def first(number: int, ctx: StepContext[None, None]) -> int:
    """Never fails."""
    SEEN.append(("first", number, ctx.idempotency_key))
    return number


@step
def shaky(number: int, ctx: StepContext[None, None]) -> int:
    """Fails where it is broken."""
    SEEN.append(("shaky", number, ctx.idempotency_key))
    if number in BROKEN:
        raise ValueError("down")
    return 10 * number


@step
def asking(number: int, ctx: StepContext[int, int]) -> int:
    """Asks, and fails with the answer where it is broken."""
    SEEN.append((number, ctx.resume_data))
    if ctx.resume_data is None:
        ctx.suspend(number)
    if number in BROKEN:
        raise ValueError("down")
    return 10 * number + ctx.resume_data


@step
def storing(number: int, ctx: StepContext[None, None]) -> int:
    """Does something once before it fails."""
    told = ctx.once("told", lambda: len(SEEN))
    SEEN.append(("storing", number, told))
    if number in BROKEN:
        raise ValueError("down")
    return number


@step
def mixed(number: int, ctx: StepContext[int, int]) -> int:
    """The first item asks, others fail where they are broken."""
    if number == 0 and ctx.resume_data is None:
        ctx.suspend(number)
    if number in BROKEN:
        raise ValueError("down")
    return ctx.resume_data or number


@step
def breaking(numbers: list[int]) -> int:
    """Stands beside the foreach, and fails as long as anything does."""
    if BROKEN:
        raise ValueError("down")
    return len(numbers)


@step
def count(numbers: list[int]) -> int:
    """Stands beside the foreach."""
    return len(numbers)


def two() -> Workflow[int, int]:
    """Two steps, of which the second may fail."""
    return workflow("two", input=int, output=int).then(first).then(shaky).commit()


def asks() -> Workflow[int, int]:
    """A step, and then a question."""
    return workflow("asks", input=int, output=int).then(first).then(asking).commit()


def deep(**options: Any) -> Workflow[int, Any]:
    """A foreach of its own in each item."""
    flow = workflow("deep", input=int, output=Any).map(lambda number: [number, number + 1], id="both")
    return flow.foreach(two(), id="inner", concurrency=9, **options).commit()


def app_of(body: Any, *, where: str, distributed: bool = True, **options: Any) -> LocalApp:
    """An App of one workflow, with children driven here or by workers off a queue."""
    flow = workflow("fanned", input=list[int], output=Any)
    options = {"concurrency": 300, "distributed": distributed, **options}
    clock = VirtualClock()
    app = App(flow.foreach(body, id="fan", **options).commit())
    return LocalApp(app, clock=clock, queue=MemoryQueue(clock) if where == "queue" else None)


def begun(app: LocalApp, count: int) -> Any:
    """The run, as far as it comes by itself."""
    run = app.workflow("fanned").create_run("r")
    run.start(list(range(count)))
    app.run_until_idle()
    return run


def again(run: Any, app: LocalApp) -> Any:
    """What becomes of it once what was broken is mended."""
    BROKEN.clear()
    run.redrive()
    app.run_until_idle()
    return run.result()


BODIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "step": lambda _: shaky,
    "nested": lambda _: two(),
    "once": lambda _: storing,
    "deep": lambda options: deep(**options),
}


@pytest.mark.parametrize("where", ["here", "queue"])
@pytest.mark.parametrize("shard", [None, 2, 4])
@pytest.mark.parametrize("body", BODIES)
def test_a_fan_redriven_does_what_a_plain_foreach_does(where: str, shard: int | None, body: str) -> None:
    """What was finished in any item is not done again; the rest is, under the same keys."""
    found = []
    for distributed in (False, True):
        forget()
        inner = {"distributed": True} if distributed else {}
        options = {"shard": shard} if distributed else {}
        app = app_of(BODIES[body](inner), where=where, distributed=distributed, **options)
        run = begun(app, 4)
        assert "failed" == run.result().status
        before = len(SEEN)
        result = again(run, app)
        assert "success" == result.status
        found.append((result.output, sorted(SEEN[:before]), sorted(SEEN[before:])))
    assert found[0] == found[1]


@pytest.mark.parametrize("where", ["here", "queue"])
@pytest.mark.parametrize("shard", [None, 3])
@pytest.mark.parametrize("body", [asking, asks()], ids=["step", "nested"])
def test_nobody_is_asked_again_who_has_answered_in_a_fan(where: str, shard: int | None, body: Any) -> None:
    """The step that has failed with the answer gets it once more; one that still waits goes on waiting."""
    app = app_of(body, where=where, shard=shard)
    run = begun(app, 3)
    for index in (0, 1):
        run.resume(7, index=index)
        app.run_until_idle()
    assert "failed" == run.result().status
    result = again(run, app)
    assert ("suspended", [2]) == (result.status, [wait.index for wait in result.waits])
    run.resume(5, index=2)
    app.run_until_idle()
    assert [7, 17, 25] == run.result().output
    asked = [number for number, answer in (seen for seen in SEEN if len(seen) == 2) if answer is None]
    assert [0, 1, 2] == sorted(asked)


def test_a_fan_of_very_many_children_keeps_what_each_has_done() -> None:
    """Though a run of so many is shown without what is inside them."""
    app = app_of(two(), where="queue", shard=1)
    run = begun(app, 120)
    assert "failed" == run.result().status
    before = [number for name, number, _ in SEEN if name == "first"]
    again(run, app)
    after = [number for name, number, _ in SEEN if name == "first"]
    assert (len(before), 120) == (len(set(before)), len(after))
    assert set(range(120)) == set(after)
    inside = [key for key in app.engine.as_it_stands(RunRef("default", "r")).records if key.startswith("fan[0]/")]
    assert [] == inside  # of items that were done nothing but what they gave is written once more


def test_a_copy_of_an_answer_is_known_for_one_in_the_next_life_of_very_many_children() -> None:
    """By its key alone, though the item is done that has had it, and the others wait for answers of their own."""
    app = app_of(asks(), where="queue", shard=1)
    run = begun(app, 120)
    told = run.resume(7, index=3, idempotency_key="k-1").receipt
    app.run_until_idle()
    run.resume(7, index=1)
    app.run_until_idle()
    assert "failed" == run.result().status
    assert "suspended" == again(run, app).status
    copy = run.resume(7, index=3, idempotency_key="k-1").receipt
    assert ("duplicate", told.at) == (copy.verdict, copy.at)
    assert "duplicate" == run.resume(7, idempotency_key="k-1").receipt.verdict


@pytest.mark.parametrize("distributed", [False, True])
def test_a_failure_that_was_tolerated_is_tried_again_where_the_foreach_is_open(distributed: bool) -> None:
    """From the step that has failed, also in one child of very many."""
    options: dict[str, Any] = {"distributed": True, "shard": 1} if distributed else {}
    body = workflow("mixed-up", input=int, output=int).then(first).then(mixed).commit()
    arm: Any = workflow("beside", input=list[int], output=Any)
    arm = arm.foreach(body, id="fan", concurrency=300, tolerated_failures=1, **options).commit()
    flow: Any = workflow("fanned", input=list[int], output=Any)
    clock = VirtualClock()
    app = LocalApp(App(flow.parallel(arm, breaking, id="arms").commit()), clock=clock, queue=MemoryQueue(clock))
    run = begun(app, 120)
    assert ("failed", "breaking") == (run.result().status, run.result().error.step)
    assert "suspended" == again(run, app).status
    run.resume(5)
    app.run_until_idle()
    assert [5, *range(1, 120)] == run.result().output["beside"]
    assert 120 == len([1 for seen in SEEN if seen[0] == "first"])


@pytest.mark.parametrize("where", ["here", "queue"])
@pytest.mark.parametrize("verb", ["time_travel", "fork"])
def test_an_arm_that_is_a_fan_stays_as_it_is_where_another_begins_anew(where: str, verb: str) -> None:
    """As a plain foreach beside a step does: no item begins anew, and its questions stay open."""
    found = []
    for distributed in (False, True):
        forget()
        options: dict[str, Any] = {"concurrency": 9, "distributed": distributed}
        arm: Any = workflow("beside", input=list[int], output=Any).foreach(asks(), id="fan", **options).commit()
        clock = VirtualClock()
        flow: Any = workflow("fanned", input=list[int], output=Any)
        flow = flow.parallel(arm, count, id="arms").commit()
        app = LocalApp(App(flow), clock=clock, queue=MemoryQueue(clock) if where == "queue" else None)
        run = begun(app, 3)
        assert "suspended" == run.result().status
        BROKEN.clear()
        new = app.run(run.fork("count", run_id="other").run_id) if verb == "fork" else run
        if verb == "time_travel":
            run.time_travel("count")
        app.run_until_idle()
        assert [0, 1, 2] == asking_items(new.result().waits)
        new.resume(1, index=2)
        app.run_until_idle()
        assert [0, 1] == asking_items(new.result().waits)
        found.append(sorted(SEEN, key=str))
    assert found[0] == found[1]


@step
def voting(number: int, ctx: StepContext[bool, int]) -> int:
    """Asks three people, of whom two must agree."""
    if ctx.resume_data is None:
        ctx.suspend(number, approvers=["ada", "bob", "eve"], quorum=2)
    return number


def an_answer(run: Any, kind: str, index: int | None) -> str:
    """What whoever answers is told: the verdict, or how it was refused."""
    try:
        if kind == "delegated":
            return str(run.delegate(by="ada", to="zoe", index=index).receipt.verdict)
        data, who = (5, {}) if kind == "applied" else (True, {"by": "ada"})
        return str(run.resume(data, index=index, **who).receipt.verdict)
    except RequestError as error:
        return error.code


@pytest.mark.parametrize("kind", ["applied", "counted", "delegated"])
@pytest.mark.parametrize("how", [None, {}, {"distributed": True}], ids=["alone", "plain", "distributed"])
def test_time_travel_loses_no_answer_that_comes_before_its_last_look(how: dict[str, Any] | None, kind: str) -> None:
    """Whoever is told that he was heard at any call of it is not asked again, or nothing has travelled."""
    body, index = asking if kind == "applied" else voting, None if how is None else 1
    arm: Any = workflow("beside", input=list[int], output=Any)
    if how is None:
        arm = arm.map(lambda numbers: numbers[-1], id="last").then(body).commit()
    else:
        arm = arm.foreach(body, id="fan", concurrency=9, **how).commit()
    flow: Any = workflow("fanned", input=list[int], output=Any)
    flow = flow.parallel(arm, count, id="arms").commit()
    ends, number = set(), 0
    while True:
        number += 1
        app, told, has_travelled = travelled(flow, number, kind, index)
        if told is None:
            break
        ends.add((told, has_travelled))
        if told != kind:
            continue
        run: Any = app.run("r")
        waits = [wait for wait in run.result().waits if wait.index == index]
        assert kind in {receipt.verdict for receipt in run.receipts()}, f"at call {number}"
        if kind == "applied":
            assert [] == waits, f"asked again, at call {number}"
        elif kind == "delegated":
            assert [{"ada": "zoe"}] == [dict(wait.delegated) for wait in waits], f"at call {number}"
        else:
            voted = run.resume(True, by="bob", index=index)
            assert "applied" == voted.receipt.verdict, f"at call {number}"
    assert {(kind, True), (kind, False)} <= ends


def travelled(flow: Any, number: int, kind: str, index: int | None) -> tuple[LocalApp, str | None, bool]:
    """Time travel beside questions, of which one is answered at the call of that number to the store.

    Afterwards, with what whoever answered was told (None: there were not so many calls), and whether it came about. At
    the write of the head itself, which is after the last look, nobody answers.
    """
    store, clock = MemoryStore(), VirtualClock()
    queue, told = MemoryQueue(clock), []
    other = LocalApp(App(flow), store=store, clock=clock, queue=queue)
    begun(other, 2)
    BROKEN.clear()

    def answers(call: Call) -> None:
        if call.number == number:
            told.append("nobody" if call.verb == "move" else an_answer(other.run("r"), kind, index))

    app = LocalApp(App(flow), store=FaultyStore(store, answers), clock=clock, queue=queue)
    with suppress(ConflictError):
        app.run("r").time_travel("count")
    head = store.peek(RunRef("default", "r"))
    other.run_until_idle()
    return other, told[0] if told else None, head is not None and head.incarnation > 1


@pytest.mark.parametrize("verb", ["time_travel", "fork"])
@pytest.mark.parametrize("distributed", [False, True])
def test_an_answer_that_no_worker_has_taken_up_yet_is_used_in_the_new_life(distributed: bool, verb: str) -> None:
    """As after a redrive: the step is called once more with it, under a new life's rules."""
    arm: Any = workflow("beside", input=list[int], output=Any)
    arm = arm.foreach(asking, id="fan", concurrency=9, distributed=distributed).commit()
    flow: Any = workflow("fanned", input=list[int], output=Any)
    clock = VirtualClock()
    app = LocalApp(App(flow.parallel(arm, count, id="arms").commit()), clock=clock, queue=MemoryQueue(clock))
    run = begun(app, 2)
    BROKEN.clear()
    run.resume(5, index=1)
    new: Any = app.run(run.fork("count", run_id="other").run_id) if verb == "fork" else run
    if verb == "time_travel":
        run.time_travel("count")
    app.run_until_idle()
    assert [0] == asking_items(new.result().waits)
    new.resume(6, index=0)
    app.run_until_idle()
    assert [6, 15] == new.result().output["beside"]


def test_a_run_one_of_whose_items_is_driven_cannot_travel() -> None:
    """What that worker does meanwhile would be done again, under another key."""
    told: list[Any] = []

    @step
    def travels(number: int) -> int:
        if not told:
            with pytest.raises(StillRunning) as error:
                app.run("r").time_travel("fan")
            told.append(error.value)
        return number

    app = app_of(travels, where="queue", shard=1)
    run = begun(app, 2)
    assert (1, "success") == (len(told), run.result().status)


def test_a_run_travels_whose_item_a_dead_worker_holds() -> None:
    """Once that worker's lease is over."""
    app = app_of(first, where="queue", shard=1)
    app.crash_before("fan")
    with suppress(WorkerDied):
        begun(app, 2)
    run = app.run("r")
    with pytest.raises(StillRunning):
        run.time_travel("fan")
    app.clock.forward(timedelta(hours=1))
    run.time_travel("fan")
    app.run_until_idle()
    assert [0, 1] == run.result().output


def test_a_new_life_that_came_to_nothing_leaves_nothing_behind() -> None:
    """Whoever redrives a run may die before its head tells of the new life; deleting the run finds what was written."""
    app = app_of(deep(distributed=True), where="queue")
    run = begun(app, 3)
    snapshot = app.engine.read(RunRef("default", "r"), which="unfinished")
    graph, now = app.engine.graph("fanned"), app.engine.time_of(snapshot)
    moved = heads.redriven(snapshot.head, now, 7)
    begin_life(app.engine, snapshot.with_head(moved), redriven(graph, snapshot, now))
    orphan = RunRef("default", child_id("r", 7, StepKey("fan"), 1))
    assert app.engine.store.scope(orphan, 7, Scope("fan"))
    run.delete()
    app.advance(heads.REMOVAL_GRACE * 2)  # until then its head stays
    assert [] == partitions(app)


def asking_items(waits: list[Wait[Any]]) -> list[int]:
    """Which items ask, in order."""
    return sorted(wait.index for wait in waits if wait.index is not None)


def partitions(app: LocalApp) -> list[str]:
    """Of which runs anything is stored."""
    store: Any = app.store
    while hasattr(store, "inner"):
        store = store.inner
    return sorted({item["pk"]["S"] for item in store.items()})


@pytest.mark.parametrize("first", [0, 1], ids=["waits", "failed"])
def test_a_child_begins_no_life_of_its_own(first: int) -> None:
    """Whoever has its id from the doctor is told which run to ask for; and nothing has happened to either."""
    app = app_of(asking, where="queue", tolerated_failures=1)
    run = begun(app, 2)
    run.resume(1, index=1)
    app.run_until_idle()
    child = app.run(child_id("r", 1, StepKey("fan"), first))
    before = run.result()
    for verb in (child.redrive, lambda: child.time_travel("fan"), lambda: child.fork("fan"), child.delete):
        with pytest.raises(PartOfRun, match="run 'r'"):
            verb()
    app.run_until_idle()
    assert before == run.result()


def beside(body: Any, step_beside: Any) -> LocalApp:
    """An App in which a step stands beside a distributed foreach, with workers off a queue."""
    arm: Any = workflow("beside", input=list[int], output=Any)
    arm = arm.foreach(body, id="fan", concurrency=9, distributed=True).commit()
    flow: Any = workflow("fanned", input=list[int], output=Any)
    clock = VirtualClock()
    return LocalApp(App(flow.parallel(arm, step_beside, id="arms").commit()), clock=clock, queue=MemoryQueue(clock))


def test_a_fork_that_is_deleted_before_its_children_are_begun_leaves_nothing() -> None:
    """Neither behind, nor for another run of its id to take for its own."""
    app = beside(asks(), count)
    run = begun(app, 3)
    before = partitions(app)
    app.run(run.fork("count", run_id="other").run_id).delete()
    app.advance(heads.REMOVAL_GRACE * 2)
    assert before == partitions(app)
    new = app.workflow("fanned").create_run("other")
    new.start([70, 80, 90])
    app.run_until_idle()
    assert [70, 80, 90] == sorted(wait.payload for wait in new.result().waits)


def test_what_was_brought_to_a_child_that_is_not_begun_goes_on_to_the_next_life() -> None:
    """No worker has come for it yet."""
    app = beside(asks(), breaking)
    run = begun(app, 3)
    BROKEN.clear()
    run.redrive()
    forked = run.fork("breaking", run_id="other")
    app.run_until_idle()
    assert [0, 1, 2] == asking_items(app.run(forked.run_id).result().waits)
    assert 3 == len([seen for seen in SEEN if seen[0] == "first"])


@pytest.mark.parametrize("distributed", [True, False])
def test_what_a_deploy_has_inserted_in_front_is_skipped_in_items_of_the_next_life(distributed: bool) -> None:
    """An item that had come further never meets it."""
    app = app_of(two(), where="here", distributed=distributed)
    begun(app, 2)
    BROKEN.clear()
    body = workflow("two", input=int, output=int).then(first).then(storing).then(shaky).commit()
    flow = workflow("fanned", input=list[int], output=Any)
    options: dict[str, Any] = {"concurrency": 300, "distributed": distributed}
    deployed = LocalApp(App(flow.foreach(body, id="fan", **options).commit()), store=app.store, clock=app.clock)
    assert "success" == deployed.redrive("r").status
    assert [] == [seen for seen in SEEN if seen[0] == "storing"]


@pytest.mark.parametrize("distributed", [True, False])
def test_what_has_failed_under_a_new_name_is_tried_again(distributed: bool) -> None:
    """Where an item before it was done under the old one."""
    options: dict[str, Any] = {"concurrency": 1, "distributed": distributed}
    nap = workflow("two", input=int, output=int).sleep(timedelta(hours=1), id="nap")
    old = app_of(nap.then(shaky).commit(), where="here", **options)
    begun(old, 2)
    old.advance(hours=1)
    body = nap.then(shaky, id="pay").renamed("shaky", to="pay").commit()
    flow = workflow("fanned", input=list[int], output=Any)
    new = LocalApp(App(flow.foreach(body, id="fan", **options).commit()), store=old.store, clock=old.clock)
    new.advance(hours=1)
    assert "failed" == new.run("r").result().status
    BROKEN.clear()
    assert ("success", [0, 10]) == ((result := new.redrive("r")).status, result.output)


def test_no_partition_is_looked_for_of_children_that_never_had_anything() -> None:
    """When a run is deleted that was redriven: their items were done in its first life."""
    app = app_of(two(), where="queue", shard=1)
    run = begun(app, 50)
    again(run, app)
    deleted: list[str] = []
    counting = FaultyStore(app.store, lambda call: deleted.append(call.verb) if call.verb == "delete" else None)
    LocalApp(App(*app.workflows.values()), clock=app.clock, store=counting).run("r").delete()
    assert 50 + 1 + 1 == len(deleted)
    app.advance(heads.REMOVAL_GRACE * 2)
    assert [] == partitions(app)


@pytest.mark.parametrize("where", ["here", "queue"])
def test_items_have_changed_the_state_one_after_the_other_in_the_next_life_as_well(where: str) -> None:
    """The first item, which was done last, does not win."""

    @step
    def marking(number: int, ctx: StepContext[Any, Any, Any]) -> int:
        if number in BROKEN:
            raise ValueError("down")
        ctx.set_state({"last": number})
        return number

    BROKEN.add(0)
    flow: Any = workflow("fanned", input=list[int], output=Any, state=dict[str, Any])
    clock = VirtualClock()
    flow = flow.foreach(marking, id="fan", distributed=True, shard=1, concurrency=3, tolerated_failures=1).commit()
    app = LocalApp(App(flow), clock=clock, queue=MemoryQueue(clock) if where == "queue" else None)
    run = begun(app, 3)
    result = again(run, app)
    assert ("success", 2) == (result.status, result.state["last"])


@pytest.mark.parametrize("verb", ["redrive", "time_travel", "fork"])
@pytest.mark.parametrize("distributed", [True, False])
def test_what_finished_items_changed_in_the_state_is_newer_than_what_stands_in_front(
    distributed: bool, verb: str
) -> None:
    """However many entries do, and in whichever life the items were done."""

    @step
    def marking(value: Any, ctx: StepContext[Any, Any, Any]) -> Any:
        if value == 1 and BROKEN:
            raise ValueError("down")
        if value != 1:
            ctx.set_state({"last": value})
        return value

    flow: Any = workflow("fanned", input=list[int], state=dict[str, Any])
    for number in range(5):
        flow = flow.then(marking, id=f"front_{number}")
    flow = flow.foreach(marking, id="fan", concurrency=3, distributed=distributed).commit()
    app = LocalApp(App(flow))
    run = begun(app, 2)
    assert "failed" == run.result().status
    BROKEN.clear()
    result = getattr(run, verb)(*(() if verb == "redrive" else ("fan",)))
    assert ("success", 0) == (result.status, result.state["last"])


def test_a_life_under_code_that_has_removed_a_fan_leaves_no_child_of_it_waiting() -> None:
    """No later life would name it again."""
    start: Any = workflow("fanned", input=list[int], output=Any).then(count)
    old = start.map(lambda number: list(range(number)), id="all").foreach(asking, id="fan", distributed=True).commit()
    new = start.removed("all").removed("fan").commit()
    app = LocalApp(App(old))
    begun(app, 1)
    child = RunRef("default", child_id("r", 1, StepKey("fan"), 0))
    assert "SUSPENDED" == app.store.peek(child).status  # type: ignore[union-attr]  # it is there

    assert 1 == LocalApp(App(new), store=app.store, clock=app.clock).run("r").time_travel("count").output
    assert "CANCELED" == app.store.peek(child).status  # type: ignore[union-attr]
