"""Runs that are started and answered in a transaction of the caller's own: with the rest of it, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from flowcore import App, StepContext, step
from flowcore.adapters.aws import ClientError
from flowcore.adapters.blobs import MemoryBlobs
from flowcore.adapters.dynamodb import DynamoStore
from flowcore.adapters.memory import MemoryQueue
from flowcore.adapters.system import SystemIds
from flowcore.errors import AlreadyResumed, InvalidPayload, MalformedRequest, NeedsDynamoDB
from flowcore.ports import Store
from flowcore.testing import LocalApp, VirtualClock
from tests.builders import a_step, a_workflow


@step
def approve(amount: int, ctx: StepContext[bool]) -> str:
    """Asks, and gives what it was answered."""
    if ctx.resume_data is None:
        ctx.suspend()
    return f"{amount}: {ctx.resume_data}"


@pytest.fixture
def store(client: Any, table: str) -> Store:
    """An empty store."""
    return DynamoStore(client, table, SystemIds(), pause=lambda _: None)


@pytest.fixture
def app(store: Store) -> LocalApp:
    """An approval on it, driven where it is looked at."""
    return LocalApp(App(a_workflow(lambda w: w.then(approve), input=int, output=str)), store=store)


def order(table: str, id: str) -> dict[str, Any]:
    """The caller's own write: an order that must not be there yet."""
    item = {"pk": {"S": f"ORDER#{id}"}, "sk": {"S": "order"}}
    return {"Put": {"TableName": table, "Item": item, "ConditionExpression": "attribute_not_exists(pk)"}}


def is_there(client: Any, table: str, id: str) -> bool:
    """Whether the order was written."""
    return "Item" in client.get_item(TableName=table, Key={"pk": {"S": f"ORDER#{id}"}, "sk": {"S": "order"}})


def test_an_order_and_its_run_begin_together(client: Any, table: str, app: LocalApp) -> None:
    """Nothing is written before; afterwards the run is looked at, or found by the sweeper."""
    run = app.workflow("flow").create_run("r-1")
    items = run.start_items(5, by="ada")
    assert app.store.peek(run._ref) is None
    client.transact_write_items(TransactItems=[order(table, "o-1"), *items])
    assert ("pending", True) == (run.result().status, is_there(client, table, "o-1"))
    app.hint("r-1")
    assert "suspended" == run.result().status
    second = app.workflow("flow").create_run("r-2")
    client.transact_write_items(TransactItems=second.start_items(6))
    app.advance(minutes=2)
    assert "suspended" == second.result().status


def test_neither_begins_where_one_cannot(client: Any, table: str, app: LocalApp) -> None:
    """The order is there already, or the run is."""
    run = app.workflow("flow").create_run("r-1")
    client.transact_write_items(TransactItems=[order(table, "o-1"), *run.start_items(5)])
    other = app.workflow("flow").create_run("r-2")
    with pytest.raises(ClientError, match="ConditionalCheckFailed, None"):
        client.transact_write_items(TransactItems=[order(table, "o-1"), *other.start_items(5)])
    assert app.store.peek(other._ref) is None
    with pytest.raises(ClientError, match="None, ConditionalCheckFailed"):
        client.transact_write_items(TransactItems=[order(table, "o-2"), *run.start_items(5)])
    assert not is_there(client, table, "o-2")


def test_an_answer_goes_with_the_rest_or_not_at_all(client: Any, table: str, app: LocalApp) -> None:
    """The same answer twice is refused the second time, by the run's own condition."""
    run = app.workflow("flow").create_run("r-1")
    run.start(5)
    items, late = run.resume_items(True, step=approve, by="ada"), run.resume_items(False, step="approve")
    assert "suspended" == run.result().status
    client.transact_write_items(TransactItems=[order(table, "o-1"), *items])
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        client.transact_write_items(TransactItems=[order(table, "o-2"), *late])
    app.hint("r-1")
    assert ("success", "5: True") == (run.result().status, run.result().output)
    assert (True, False) == (is_there(client, table, "o-1"), is_there(client, table, "o-2"))
    with pytest.raises(AlreadyResumed):
        run.resume_items(True, wait="approve@0")


def test_what_does_not_fit_is_refused_when_the_items_are_made(app: LocalApp) -> None:
    """As by ``start`` and ``resume``."""
    run = app.workflow("flow").create_run("r-1")
    with pytest.raises(InvalidPayload):
        run.start_items("five")
    run.start(5)
    with pytest.raises(InvalidPayload):
        run.resume_items("perhaps")


def test_a_key_names_the_run(client: Any, app: LocalApp) -> None:
    """The handle knows the derived id afterwards; a repeated request meets it."""
    one, other = (app.workflow("flow").create_run() for _ in range(2))
    client.transact_write_items(TransactItems=one.start_items(5, idempotency_key="k"))
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        client.transact_write_items(TransactItems=other.start_items(5, idempotency_key="k"))
    assert one.run_id == other.run_id
    assert "pending" == one.result().status


def test_an_answer_that_was_given_has_no_items(app: LocalApp) -> None:
    """Whoever repeats it must not write his own part a second time."""
    run = app.workflow("flow").create_run("r-1")
    run.start(5)
    run.resume(True, idempotency_key="k")
    with pytest.raises(MalformedRequest, match="nothing to write: run 'r-1' has had this very request"):
        run.resume_items(True, idempotency_key="k")


def test_items_of_a_foreach_are_answered_one_by_one(client: Any, store: Store) -> None:
    """One transaction writes the head once."""
    app = LocalApp(App(a_workflow(lambda w: w.foreach(approve, concurrency=2))), store=store)
    run = app.workflow("flow").create_run("r-1")
    run.start([1, 2])
    with pytest.raises(MalformedRequest, match="say with index= which one is meant"):
        run.resume_items(True)
    client.transact_write_items(TransactItems=run.resume_items(True, index=1))
    app.hint("r-1")
    assert ["approve[0]"] == [".".join(wait.path) for wait in run.result().waits]


@pytest.mark.parametrize("where", ["here", "queue"])
def test_an_item_that_a_child_sees_to_is_driven_after_a_hint(client: Any, store: Store, where: str) -> None:
    """The caller's transaction moves the child alone, and names the run alone in its hint."""
    clock = VirtualClock()
    flow = a_workflow(lambda w: w.foreach(approve, concurrency=9, distributed=True, shard=1))
    queue = MemoryQueue(clock) if where == "queue" else None
    app = LocalApp(App(flow), store=store, clock=clock, queue=queue)
    run = app.workflow("flow").create_run("r-1")
    run.start([1, 2])
    app.run_until_idle()
    for index, left in ((1, ["approve[0]"]), (0, [])):
        client.transact_write_items(TransactItems=run.resume_items(True, index=index))
        app.hint("r-1")
        app.run_until_idle()
        assert left == [".".join(wait.path) for wait in run.result().waits]
    assert ["1: True", "2: True"] == run.result().output


def test_with_a_queue_a_hint_is_a_message(client: Any, store: Store) -> None:
    """And the items alone are none."""
    clock = VirtualClock()
    queue = MemoryQueue(clock)
    app = LocalApp(App(a_workflow(lambda w: w.then(a_step("a")))), store=store, clock=clock, queue=queue)
    run = app.workflow("flow").create_run("r-1")
    client.transact_write_items(TransactItems=run.start_items(1))
    assert [] == queue.sent
    app.hint("r-1")
    app.run_until_idle()
    assert (1, "success") == (len(queue.sent), run.result().status)


def test_large_values_are_handed_out_as_parcels(client: Any, store: Store) -> None:
    """The value lies in the blob store by then, the item says where."""
    flow = a_workflow(lambda w: w.then(a_step("a", len)))
    app = App(flow, store=store, blobs=MemoryBlobs())
    run = app.workflow("flow").create_run("r-1")
    client.transact_write_items(TransactItems=run.start_items("x" * 500_000))
    app.hint("r-1")
    assert 500_000 == run.result().output
    with pytest.raises(NeedsDynamoDB):
        App(flow, blobs=MemoryBlobs()).workflow("flow").create_run("r-1").start_items("x")


def test_it_needs_dynamodb() -> None:
    """There is nothing to hand out elsewhere."""
    run = LocalApp(App(a_workflow(lambda w: w.then(approve)))).workflow("flow").create_run("r-1")
    with pytest.raises(NeedsDynamoDB, match=r"run.start_items\(\) needs a store in DynamoDB"):
        run.start_items(5)
    run.start(5)
    with pytest.raises(NeedsDynamoDB, match=r"run.resume_items\(\) needs"):
        run.resume_items(True)
