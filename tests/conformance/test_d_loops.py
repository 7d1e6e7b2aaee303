"""Group D: loops and foreach. Time is virtual: an item that takes an hour is a nested workflow that sleeps."""

from __future__ import annotations

from datetime import timedelta
from threading import Barrier, Lock
from typing import Any

import pytest

from flowcore import StepContext, Workflow, step, workflow
from tests.conformance.support import PATIENCE_S, Harness, behaviour, meet

Numbers = StepContext[Any, Any, dict[str, Any]]


@step
def increment(number: int) -> int:
    """One more."""
    return number + 1


@step
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


@step
def total(items: list[int]) -> int:
    """The sum."""
    return sum(items)


@behaviour(54, "an until-loop stops when its condition is true")
def test_054_until_loop(harness: Harness) -> None:
    """The body's output goes into the condition."""
    made = workflow("w", input=int, output=int).dountil(increment, lambda n: n >= 10).commit()
    result = harness.serve(made).start(7)
    assert ("success", 10, 3) == (result.status, result.output, result.steps["increment"].iteration)


@behaviour(55, "a while-loop stops when its condition is false")
def test_055_while_loop(harness: Harness) -> None:
    """It goes on as long as the condition is true."""
    made = workflow("w", input=int, output=int).dowhile(increment, lambda n: n < 10).commit()
    result = harness.serve(made).start(7)
    assert ("success", 10, 3) == (result.status, result.output, result.steps["increment"].iteration)


@pytest.mark.parametrize("verb", ["dountil", "dowhile"])
@behaviour(56, "the body runs once even if the condition is met from the beginning")
def test_056_body_runs_at_least_once(harness: Harness, verb: str) -> None:
    """Conditions are asked behind the body."""
    made = getattr(workflow("w", input=int), verb)(increment, lambda _: verb == "dountil").commit()
    assert 8 == harness.serve(made).start(7).output


@behaviour(57, "values accumulate over iterations")
def test_057_values_accumulate(harness: Harness) -> None:
    """Each turn's input is the output of the turn before."""

    @step
    def append(items: list[int]) -> list[int]:
        return [*items, len(items)]

    made = workflow("w", input=list[int]).dountil(append, lambda items: len(items) == 4).commit()
    assert [9, 1, 2, 3] == harness.serve(made).start([9]).output


@behaviour(58, "the iteration counts from 1")
def test_058_iteration_counts_from_one(harness: Harness) -> None:
    """In the body and in the condition."""
    seen: list[Any] = []

    @step
    def body(value: int, ctx: StepContext) -> int:
        seen.append(ctx.iteration)
        return value

    def is_third(_: Any, ctx: Any) -> bool:
        seen.append(ctx.iteration)
        return bool(ctx.iteration == 3)

    harness.serve(workflow("w", input=int).dountil(body, is_third)).start(0)
    assert [1, 1, 2, 2, 3, 3] == seen


@behaviour(59, "the retry count stays 0 over iterations that do not fail")
def test_059_retry_count_stays_zero(harness: Harness) -> None:
    """A turn is not a try."""

    @step(retries=1)
    def body(seen: list[int], ctx: StepContext) -> list[int]:
        return [*seen, ctx.retry_count]

    made = workflow("w", input=list[int]).dountil(body, lambda seen: len(seen) == 3).commit()
    assert [0, 0, 0] == harness.serve(made).start([]).output


@behaviour(60, "each loop counts for itself")
def test_060_loops_count_for_themselves(harness: Harness) -> None:
    """Whether they stand one after the other or run side by side."""
    again = increment.clone(id="again")

    def loop(id: str, turns: int) -> Workflow[Any, Any]:
        def is_last(_: Any, ctx: Any) -> bool:
            return bool(ctx.iteration == turns)

        return workflow(id, input=int).dountil(increment, is_last).dountil(again, is_last).commit()

    made = (
        workflow("w", input=int)
        .dountil(increment, lambda n: n >= 4)
        .dountil(again, lambda _, ctx: ctx.iteration == 2)
        .parallel(loop("two", 2), loop("three", 3))
        .commit()
    )
    result = harness.serve(made).start(0)
    turns = {id: record.iteration for id, record in result.steps.items() if record.iteration and id != "w"}
    expected = {"increment": 4, "again": 2, "two.increment": 2, "two.again": 2}
    assert expected | {"three.increment": 3, "three.again": 3} == turns
    assert {"two": 10, "three": 12} == result.output


@behaviour(61, "a nested workflow may be the body of a loop")
def test_061_loop_over_a_nested_workflow(harness: Harness) -> None:
    """All of it runs in each turn."""
    child = workflow("child", input=int, output=int).then(double).then(increment).commit()
    made = workflow("w", input=int, output=int).dountil(child, lambda n: n > 20).commit()
    result = harness.serve(made).start(1)
    assert (31, 4) == (result.output, result.steps["child"].iteration)


def hours(harness: Harness, ended: list[tuple[int, float]] | None = None) -> Workflow[Any, Any]:
    """An item that takes as many hours as it says, and then notes itself and the hours since now."""
    begin = harness.clock.now()

    @step
    def note(item: int) -> int:
        if ended is not None:
            ended.append((item, (harness.clock.now() - begin) / timedelta(hours=1)))
        return item

    return workflow("item", input=int, output=int).sleep(lambda item: timedelta(hours=item)).then(note).commit()


def hours_taken(harness: Harness, concurrency: Any, items: list[int]) -> list[tuple[int, float]]:
    """Which item ended when, in hours, when a foreach works on ``items``."""
    ended: list[tuple[int, float]] = []
    made = workflow("w", input=list[int]).foreach(hours(harness, ended), concurrency=concurrency).commit()
    assert ("waiting", None) == ((result := harness.serve(made).start(items)).status, result.output)
    harness.advance(days=2)
    assert items == harness.result().output
    return ended


@behaviour(62, "foreach works on one item at a time unless told otherwise")
def test_062_foreach_is_sequential(harness: Harness) -> None:
    """Three items take the sum of their times; no item begins before the one before it has ended."""
    open_items: list[int] = []

    @step
    def alone(item: int) -> int:
        open_items.append(item)
        assert [item] == open_items
        open_items.remove(item)
        return item

    assert [1, 2, 3] == harness.serve(workflow("w", input=list[int]).foreach(alone)).start([1, 2, 3]).output
    ended: list[tuple[int, float]] = []
    harness.serve(workflow("w", input=list[int]).foreach(hours(harness, ended))).start([3, 1, 2])
    harness.advance(days=1)
    assert [(3, 3), (1, 4), (2, 6)] == ended


@behaviour(63, "with full concurrency foreach works on all items at once")
def test_063_foreach_full_concurrency(harness: Harness) -> None:
    """All take the time of the longest; plain functions really overlap."""
    assert [(1, 1), (2, 2), (3, 3)] == hours_taken(harness, 3, [3, 1, 2])
    barrier = Barrier(4)

    @step
    def meets(_: int) -> bool:
        return barrier.wait(PATIENCE_S) >= 0

    made = workflow("w", input=list[int]).foreach(meets, concurrency=10).commit()
    assert [True] * 4 == harness.serve(made).start([0, 1, 2, 3]).output


@behaviour(64, "with partial concurrency a slot is refilled as soon as it is free")
def test_064_foreach_refills_slots(harness: Harness) -> None:
    """The first item occupies one of two slots; the others go through the other one, in no batches."""
    assert [(1, 1), (2, 3), (1, 4), (5, 5), (1, 5)] == hours_taken(harness, 2, [5, 1, 2, 1, 1])
    lock, running, most = Lock(), [0], [0]
    barrier = Barrier(2)

    @step
    def counted(item: int) -> int:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        barrier.wait(PATIENCE_S)
        with lock:
            running[0] -= 1
        return item

    made = workflow("w", input=list[int]).foreach(counted, concurrency=2).commit()
    assert list(range(6)) == harness.serve(made).start(list(range(6))).output
    assert 2 == most[0]


@pytest.mark.parametrize("concurrency", [1, 5])
@behaviour(65, "an empty list gives an empty list")
def test_065_foreach_over_nothing(harness: Harness, concurrency: int) -> None:
    """Successfully, without running the body."""
    made = workflow("w", input=list[int]).foreach(increment, concurrency=concurrency).commit()
    result = harness.serve(made).start([])
    assert ("success", []) == (result.status, result.output)


@behaviour(66, "outputs keep the items' order although items finish out of order")
def test_066_foreach_keeps_the_order(harness: Harness) -> None:
    """The first item is done only after the last one has been."""

    @step
    def reversed_(item: int, ctx: StepContext) -> int:
        assert ctx.index == item
        assert item == 2 or meet(harness.committed(f"reversed_[{item + 1}]"))
        return 10 * item

    made = workflow("w", input=list[int]).foreach(reversed_, concurrency=3).commit()
    result = harness.serve(made).start([0, 1, 2])
    assert [0, 10, 20] == result.output
    assert [f"reversed_[{index}]" for index in (2, 1, 0)] == [id for id in result.steps if "[" in id]


@behaviour(67, "one step makes the list, one step takes the list of outputs")
def test_067_build_and_aggregate(harness: Harness) -> None:
    """The foreach stands between a list and a list."""

    @step
    def upto(n: int) -> list[int]:
        return list(range(n))

    made = workflow("w", input=int, output=int).then(upto).foreach(double, concurrency=2).then(total).commit()
    assert 12 == harness.serve(made).start(4).output


@behaviour(68, "a nested workflow may be the body of a foreach; each item is a workflow of its own")
def test_068_foreach_over_a_nested_workflow(harness: Harness) -> None:
    """With its own input, its own step results, and its own end by bail."""

    @step
    def unless_two(item: int, ctx: StepContext) -> int:
        if item == 2:
            ctx.bail(-1)
        return item

    @step
    def combine(_: int, ctx: StepContext) -> list[Any]:
        return [ctx.init_data, ctx.get_step_result(double)]

    child = workflow("child", input=int).then(unless_two).then(double).then(combine).commit()
    made = workflow("w", input=list[int]).foreach(child, concurrency=2).commit()
    result = harness.serve(made).start([1, 2, 3])
    assert [[1, 2], -1, [3, 6]] == result.output
    assert {"child[0].double": 2, "child[2].double": 6} == {
        id: record.output for id, record in result.steps.items() if id.endswith(".double")
    }


@behaviour(69, "the concurrency may be a function of the input")
def test_069_concurrency_from_the_input(harness: Harness) -> None:
    """Of the list, and of the context."""
    ended = hours_taken(harness, lambda items, ctx: len(items) + len(ctx.init_data) - 4, [2, 2, 1])
    assert [(2, 2), (2, 2), (1, 3)] == sorted(ended, key=lambda at: (at[1], -at[0]))


@pytest.mark.parametrize("concurrency", [0, -3, lambda _: 0, lambda _: 1.9])
@behaviour(70, "a concurrency below 1 is 1; fractions are cut off")
def test_070_invalid_concurrency_is_one(harness: Harness, concurrency: Any) -> None:
    """Fixed or computed."""
    assert [(1, 1), (1, 2)] == hours_taken(harness, concurrency, [1, 1])


@behaviour(71, "state set in an item is seen by later items and by the next step")
def test_071_state_of_items(harness: Harness) -> None:
    """Each item counts on."""

    @step
    def count(_: int, ctx: Numbers) -> int:
        ctx.set_state({"n": ctx.state["n"] + 1})
        return int(ctx.state["n"])

    @step
    def after(_: Any, ctx: Numbers) -> Any:
        return ctx.state["n"]

    made = workflow("w", input=list[int]).foreach(count).then(after).commit()
    result = harness.serve(made).start([7, 7, 7], state={"n": 0})
    assert ([0, 1, 2], 3) == (result.steps["count"].output, result.output)


@behaviour(72, "bail in an item ends the run with its payload")
def test_072_bail_in_an_item(harness: Harness) -> None:
    """Later items are not begun, later steps do not run."""

    @step
    def until_two(item: int, ctx: StepContext) -> int:
        if item == 2:
            ctx.bail("two is enough")
        return item

    made = workflow("w", input=list[int]).foreach(until_two).then(total).commit()
    result = harness.serve(made).start([1, 2, 3])
    assert ("success", "two is enough") == (result.status, result.output)
    assert not {"until_two[2]", "total"} & set(result.steps)


@behaviour(73, "a failing item fails the run; items not begun yet are not begun")
def test_073_failing_item(harness: Harness) -> None:
    """Those under way come to their end."""

    @step
    def fragile(item: int) -> int:
        if item == 1:
            raise ValueError("item one")
        assert meet(harness.committed("fragile[1]"))
        return item

    made = workflow("w", input=list[int]).foreach(fragile, concurrency=2).then(total).commit()
    result = harness.serve(made).start([0, 1, 2, 3])
    assert result.error is not None
    assert ("failed", "item one", "fragile[1]") == (result.status, result.error.message, result.error.step)
    assert {"fragile": "failed", "fragile[0]": "success", "fragile[1]": "failed"} == {
        id: record.status for id, record in result.steps.items()
    }


@pytest.mark.parametrize("concurrency", [1, 3])
@behaviour(74, "finished items are not repeated when a failed foreach is run again")
def test_074_replay_of_a_failed_foreach(harness: Harness, concurrency: int) -> None:
    """By time travel to it, and in a run forked from it; what the items have set in the state stays set."""
    seen: list[int] = []
    broken = {2}

    @step
    def fragile(item: int, ctx: Numbers) -> int:
        if item != 1:
            assert meet(harness.committed("child[0]"))
        seen.append(item)
        if item in broken:
            raise ValueError("item two")
        ctx.set_state({f"item {item}": "done"})
        return 10 * item

    child = workflow("child", input=int, output=int).then(fragile).commit()
    harness.serve(workflow("w", input=list[int]).foreach(child, concurrency=concurrency).then(total))
    assert "failed" == harness.start([1, 2, 3]).status
    assert ([1, 2] if concurrency == 1 else [1, 2, 3]) == sorted(seen)
    done = {1} if concurrency == 1 else {1, 3}
    broken.clear()
    seen.clear()
    forked = harness.run().fork("child").run_id
    harness.run().time_travel("child")
    harness.advance()
    for result in (harness.result(), harness.result(forked)):
        assert ("success", 60, 10) == (result.status, result.output, result.steps["child[0].fragile"].output)
        assert {f"item {item}": "done" for item in (1, 2, 3)} == result.state
    assert sorted(2 * list({1, 2, 3} - done)) == sorted(seen)


@behaviour(75, "the progress of a foreach counts up")
def test_075_progress_counts_up(harness: Harness) -> None:
    """Item by item, in the order in which they finish; for whoever looks, also in between."""
    looked: list[list[int]] = []

    @step
    def unhurried(item: int, ctx: StepContext) -> int:
        events = harness.another_process().run(ctx.run_id).events()
        looked.append([event.data["done"] for event in events if event.type == "step-progress"])
        return item

    harness.serve(workflow("w", input=list[int]).foreach(unhurried)).start([7, 8, 9])
    progress = [event for event in harness.run().events() if event.type == "step-progress"]
    expected = [{"done": index + 1, "total": 3, "index": index} for index in range(3)]
    assert expected == [event.data for event in progress]
    assert {"unhurried"} == {event.step for event in progress}
    assert [[], [1], [1, 2]] == looked
