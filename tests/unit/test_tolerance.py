"""foreach with items that may fail, and what the state reader and the inbox tell."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, DefinitionError, StepContext, step, workflow
from flowcore.core.fan import tolerated as may_fail
from flowcore.errors import MalformedRequest
from flowcore.parcels import replace
from flowcore.testing import LocalApp


@step
def odd_only(number: int) -> int:
    """Fails on even numbers."""
    if number % 2 == 0:
        raise ValueError(f"{number} is even")
    return number


@step
def ask(number: int, ctx: StepContext[int, str]) -> int:
    """Waits for an answer."""
    if ctx.resume_data is None:
        ctx.suspend(f"what about {number}?", label=f"boss-{number}")
    return ctx.resume_data


def fan(tolerated: float, **options: Any) -> Any:
    """The result of a foreach over 1..6 that tolerates so many failures."""
    flow = workflow("fan", input=list[int]).foreach(odd_only, tolerated_failures=tolerated, **options).commit()
    return App(flow).workflow("fan").create_run().start([1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("tolerated", [3, 7, 0.5, 0.99])
@pytest.mark.parametrize("concurrency", [1, 6])
def test_tolerated_failures_give_none_in_their_place(tolerated: float, concurrency: int) -> None:
    """A count, or a share of the items; the failed items are still told as failed."""
    result = fan(tolerated, concurrency=concurrency)

    assert [1, None, 3, None, 5, None] == result.output
    assert "failed" == result.steps["odd_only[1]"].status


def test_what_stands_behind_a_tolerating_foreach_takes_none() -> None:
    """A map over its outputs sees None where an item failed, although the step itself declares a number."""
    flow = workflow("fan", input=list[int], output=int).foreach(odd_only, tolerated_failures=1)
    counted = flow.map(lambda numbers: numbers.count(None)).commit()
    assert App(counted).workflow(counted).create_run().start([1, 2, 3]).output == 1


@pytest.mark.parametrize("tolerated", [0, 2, 0.4])
def test_one_failure_too_many_fails_the_run_with_the_first(tolerated: float) -> None:
    """In the items' order."""
    result = fan(tolerated)

    assert ("failed", "2 is even") == (result.status, result.error.message)


def test_bail_in_an_item_ends_the_run_also_where_failures_are_tolerated() -> None:
    """What is tolerated does not tell how it ends."""

    @step
    def bail_at_three(number: int, ctx: StepContext) -> int:
        if number == 3:
            ctx.bail("enough")
        raise ValueError(number)

    flow = workflow("fan", input=list[int]).foreach(bail_at_three, tolerated_failures=5).commit()
    result = App(flow).workflow("fan").create_run().start([1, 2, 3, 4])

    assert ("success", "enough") == (result.status, result.output)


@pytest.mark.parametrize("concurrency", [1, 2, 3])
@pytest.mark.parametrize(("tolerated", "told"), [(0, ("failed", None)), (1, ("success", "enough"))])
def test_how_a_foreach_ends_is_the_same_at_every_concurrency(
    concurrency: int, tolerated: int, told: tuple[str, Any]
) -> None:
    """A bail behind one failure too many does not save the run, even if both were under way at the same time."""

    @step
    def fail_then_bail(number: int, ctx: StepContext) -> int:
        if number == 2:
            ctx.bail("enough")
        raise ValueError(number)

    flow = workflow("fan", input=list[int]).foreach(
        fail_then_bail, concurrency=concurrency, tolerated_failures=tolerated
    )
    result = App(flow.commit()).workflow("fan").create_run().start([1, 2, 3])

    assert told == (result.status, result.output)


@pytest.mark.parametrize("tolerated", [-1, -0.1, "two", True, 1.0, 2.5])
@pytest.mark.parametrize("name", ["tolerated_failures", "min_successful"])
def test_tolerance_that_is_no_number_is_a_definition_error(tolerated: Any, name: str) -> None:
    """At commit, with what was found; 1.0 may be meant as one item, or as all of them."""
    with pytest.raises(DefinitionError, match=f"{name}={tolerated!r} is no count and no share"):
        workflow("fan", input=list[int]).foreach(odd_only, **{name: tolerated}).commit()


def test_a_share_is_as_many_items_as_people_count() -> None:
    """0.29 of 100 are 29, though a machine makes it a little less."""
    graph = workflow("fan", input=list[int]).foreach(odd_only).commit().compiled
    node: Any = graph.nodes[0]
    shares = [(percent, total) for percent in range(100) for total in range(1, 201)]
    for percent, total in shares:
        most = may_fail(replace(node, tolerated=percent / 100), total)
        least = may_fail(replace(node, min_successful=percent / 100), total)
        assert (percent * total // 100, (100 - percent) * total // 100) == (int(most), int(least)), (percent, total)


def test_state_reader_tells_what_waits_and_what_steps_took_and_gave() -> None:
    """By dotted id, and by label."""
    flow = workflow("w", input=int).then(odd_only).then(workflow("child", input=int).then(ask).commit()).commit()
    run = App(flow).workflow("w").create_run("r")
    run.start(7)

    state = run.state()

    assert ("suspended", {"boss-7": ["child", "ask"]}) == (state.status, state.resume_labels)
    assert [["child", "ask"]] == [wait.path for wait in state.suspended_steps]
    assert (7, 7, 7) == (state.step_output("odd_only"), state.step_payload("odd_only"), state.step_payload("child.ask"))
    assert (None, None) == (state.step_output("nothing"), state.step_payload("nothing"))


def test_inbox_pages_through_every_open_suspension() -> None:
    """Of suspended runs and of those that also sleep, the oldest first."""
    nap = workflow("nap", input=int).sleep(timedelta(days=1)).commit()
    both = workflow("both", input=int).parallel(ask, nap).commit()
    alone = workflow("alone", input=int).then(ask).commit()
    app = LocalApp(App(both, alone))
    for number in range(3):
        app.workflow("alone").create_run(f"a{number}").start(number)
    app.workflow("both").create_run("b").start(9)

    found, cursor = [], None
    while True:
        page = app.waits(limit=2, cursor=cursor)
        found += [(wait.run_id, wait.payload) for wait in page]
        cursor = page.cursor
        if cursor is None:
            break

    assert {("a0", "what about 0?"), ("a1", "what about 1?"), ("a2", "what about 2?"), ("b", "what about 9?")} == {
        *found
    }
    assert ("b", "what about 9?") == found[-1]
    with pytest.raises(MalformedRequest):
        app.waits(cursor="nonsense")


def test_resume_brings_a_request_context_that_wins_and_a_retry_count() -> None:
    """The caller's values are newer than what the run knows."""
    seen: list[Any] = []

    @step(retries=3)
    def look(_: int, ctx: StepContext[int]) -> int:
        if ctx.resume_data is None:
            ctx.request_context["mine"] = "kept"
            ctx.suspend()
        seen.append((dict(ctx.request_context), ctx.retry_count))
        return 1

    flow = workflow("w", input=int).then(look).then(look, id="later").commit()
    run = App(flow).workflow("w").create_run("r")
    run.start(1, request_context={"user": "ada", "locale": "de"})
    run.resume(1, request_context={"user": "bo"}, retry_count=2)
    run.resume(1)

    assert [
        ({"user": "bo", "locale": "de", "mine": "kept"}, 2),
        ({"user": "bo", "locale": "de", "mine": "kept"}, 0),
    ] == seen
