"""``search`` looks at every state of a user's workflow, and tells the shortest way into one that must not be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from pydantic import BaseModel

from flowcore import StepContext, step, workflow
from flowcore.adapters.memory import MemoryStore
from flowcore.authoring.workflow import Workflow
from flowcore.errors import InvalidPayload
from flowcore.model import Head, Sent, StepRecord, Topic
from flowcore.ports import Written
from flowcore.testing import Answer, Cancel, Event, Trouble, search
from flowcore.testing.replay import RUN, Player, Unsteady, answers, sends
from flowcore.testing.space import BEGIN, Scenario, Space

A_DAY = timedelta(days=1)
drawn: Iterator[int] = count()


class Order(BaseModel):
    """What is asked for, and how much of it."""

    item: str
    amount: int = 1


@step
def approve(order: Order, ctx: StepContext[bool]) -> Order:
    """Waits for a no, at most a day."""
    if ctx.resume_data is None and not ctx.timed_out:
        ctx.suspend(timeout=A_DAY)
    return order if ctx.timed_out or ctx.resume_data else Order(item=order.item, amount=0)


@step
async def ship(order: Order, ctx: StepContext) -> int:
    """Really waits, and stores on the way what was sent."""
    await asyncio.sleep(0)
    return ctx.once("sent", lambda: order.amount)


@step
def weigh(order: Order) -> int:
    """A second thing to do at the same time."""
    return order.amount


@step
def both(votes: int, ctx: StepContext[int]) -> int:
    """Two people have to answer."""
    if ctx.resume_data is None:
        ctx.suspend(approvers=["ada", "bob"], quorum=2)
    return votes + ctx.resume_data


@step
def twice(value: int, ctx: StepContext[int, str]) -> int:
    """Asks, and asks again."""
    if ctx.resume_data is None:
        ctx.suspend("first")
    if ctx.suspend_data == "first":
        ctx.suspend("second")
    return value + ctx.resume_data


@step
def fails(value: int) -> int:
    """Always."""
    raise ValueError("out of paper")


@step
def draws(_: int) -> int:
    """Another number each time."""
    return next(drawn)


ORDERS = workflow("orders", input=Order, output=int).then(approve).then(weigh).commit()
PAID = workflow("paid", input=str, output=int).wait_for_event("paid", key=lambda order: order, model=int).commit()


def test_a_healthy_workflow_is_searched_through() -> None:
    """Whoever answers, cancels or dies, and also when the deadline passes meanwhile: the order is shipped or not."""
    found = search(
        ORDERS,
        Order(item="tea", amount=3),
        players={"ada": Answer(data=False), "boss": Cancel()},
        right=lambda result: result.output in (3, 0),
        is_parked=True,
        workers=1,
        tick=A_DAY,
    )

    assert (None, False) == (found.violation, found.is_cut)
    assert found.states > 1_000


def test_an_end_that_is_not_right_is_found_with_the_shortest_way_there() -> None:
    """Two people may answer, and one says no: step by step until that is stored; the sweeper sees to the rest."""
    players = {"ada": Answer(data=True), "bob": Answer(data=False, step="approve", drives=True)}
    with pytest.raises(Trouble) as caught:
        search(ORDERS, Order(item="tea"), players=players, right=lambda result: result.output == 1, is_parked=True)

    found = caught.value.found
    assert "the run has ended SUCCESS with 0" == found.violation
    assert ["bob begins", "bob peek: SUSPENDED", "bob load: dict", "bob resume: Written"] == [
        line.split("  ")[0].split(" v")[0] for line in found.way[:4]
    ]
    assert "everybody else is dead from here on" == found.way[4]
    assert str(caught.value).startswith(f"orders: {found.states:,} states, ")
    assert str(caught.value).endswith(found.way[-1])


def test_a_run_that_nobody_answers_is_in_trouble() -> None:
    """In the very first state: it would stand there for ever."""
    flow = workflow("w", input=int).then(both)
    with pytest.raises(Trouble, match="nobody answers 'both'"):
        search(flow, 1, players={"boss": Cancel(), "bank": Event("paid", "A-17", 1)})


def test_a_run_has_to_succeed_where_nothing_else_is_right() -> None:
    """What it failed with is told; whoever finds that right says so."""
    flow = workflow("w", input=int).then(fails).commit()
    with pytest.raises(Trouble, match="the run has ended FAILED with ValueError: out of paper"):
        search(flow, 1)
    assert search(flow, 1, right=lambda result: result.error is not None, looks=1).violation is None


def test_an_event_settles_the_wait_of_its_topic() -> None:
    """Of two events one is taken, and one is left; an answer is no event."""
    players = {"bank": Event("paid", "A-17", 5), "shop": Event("paid", "A-17", 6, drives=True)}
    found = search(
        PAID, "A-17", players=players, right=lambda result: result.output in (5, 6), is_parked=True, workers=1
    )

    assert not found.is_cut
    with pytest.raises(Trouble, match="nobody answers 'wait-for-paid'"):
        search(PAID, "A-17", players={"bank": Event("paid", "A-18", 5)})


@pytest.mark.parametrize(
    ("flow", "input", "players", "output"),
    [
        (workflow("quorum", input=int).then(both), 1, {"ada": Answer(2), "bob": Answer(2)}, 3),
        (workflow("again", input=int).then(twice), 1, {"ada": Answer(2), "bob": Answer(2)}, 3),
        (workflow("side", input=Order).parallel(ship, weigh), Order(item="tea"), {}, {"ship": 1, "weigh": 1}),
    ],
    ids=["votes", "a step that asks twice", "coroutines, models and what is stored once"],
)
def test_what_a_workflow_may_do_is_no_trouble(flow: Any, input: Any, players: dict[str, Any], output: Any) -> None:
    """No state is held to be wrong that is right."""
    found = search(flow, input, players=players, right=lambda r: r.output == output, is_parked=True, most=1_000)

    assert found.violation is None


PAYMENT = Sent(topic=Topic("default", "paid", "A-17"), id="e-1", data=5, digest="5", at=BEGIN, until=BEGIN + A_DAY)


class Forgetful(MemoryStore):
    """Says that an answer is written, and does not write it."""

    def resume(self, head: Head, record: StepRecord, **more: Any) -> Any:
        """See ``Store.resume``."""
        return Written()


@pytest.mark.parametrize(
    ("flow", "input", "player", "violation"),
    [
        (
            ORDERS,
            Order(item="tea"),
            Player("ada", answers(False, "ada", step=None, here=False), ORDERS),  # the data
            "I12 ada was told 'applied approve@0 ada', but stored is nobody's",
        ),
        (
            PAID,
            "A-17",
            Player("bank", sends(PAYMENT, here=False), PAID, sends=(PAYMENT.topic, PAYMENT.id)),
            "event 'e-1' was taken in, and its wait never gets it",
        ),
    ],
    ids=["an answer", "an event"],
)
def test_what_was_told_to_be_applied_and_is_not_stored_is_found(
    flow: Workflow[Any, Any], input: Any, player: Player, violation: str
) -> None:
    """As soon as somebody was told so, although the run could come to a right end without."""
    forgets = Scenario(
        name="forgets",
        workflow=flow,
        input=input,
        others=[player],
        right=lambda *_: True,
        answer=lambda engine: engine.cancel(RUN),
        is_parked=True,
        table=Forgetful,
    )

    assert violation == Space(forgets).search(1_000).violation


def test_no_more_states_are_looked_at_than_were_asked_for() -> None:
    """And it is told that there are more."""
    found = search(ORDERS, Order(item="tea"), players={"ada": Answer(data=True)}, right=lambda _: True, most=100)

    assert (100, True) == (found.states, found.is_cut)


def test_a_step_that_does_something_else_each_time_is_refused() -> None:
    """What it would do next cannot be known."""
    with pytest.raises(Unsteady, match="Workflow 'w' does not do the same each time: once it asked for"):
        search(workflow("w", input=int).then(draws), 1)


def test_a_distributed_foreach_is_refused() -> None:
    """Its items are runs of their own, which nobody looks at here."""
    flow = workflow("w", input=list[Order]).foreach(weigh, distributed=True)
    with pytest.raises(ValueError, match="distributed foreach"):
        search(flow, [])


def test_an_input_that_does_not_fit_is_refused() -> None:
    """As by ``run.start``."""
    with pytest.raises(InvalidPayload):
        search(ORDERS, 5)
