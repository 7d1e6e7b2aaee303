"""Writes of an author's own in the transaction of a step's outcome: both happen, exactly once, or neither does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from flowcore import App, Backoff, StepContext, step
from flowcore.adapters.dynamodb import DynamoStore
from flowcore.adapters.dynamodb_effects import typed
from flowcore.adapters.system import SystemIds
from flowcore.errors import OutsideError, StoreUnavailable
from flowcore.keys import RunRef
from flowcore.pace import Pace
from flowcore.ports import EffectMoved, HeadMoved, RecordMoved, Store, Written
from flowcore.testing import Fault, FaultyStore, LocalApp, WorkerDied
from flowcore.testing.contract import NOW, RUN, a_record, a_running_head
from flowcore.testing.faults import WRITES, Call, at_call
from flowcore.testing.invariants import WatchedStore
from tests.builders import a_step, a_workflow

MINUTE = timedelta(minutes=1)


@pytest.fixture
def shop(client: Any) -> Iterator[str]:
    """A table of the author's own, with five of a thing in stock."""
    client.create_table(
        TableName="shop",
        KeySchema=[{"AttributeName": "item", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "item", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    client.put_item(TableName="shop", Item={"item": {"S": "lamp"}, "left": {"N": "5"}})
    yield "shop"
    client.delete_table(TableName="shop")


@pytest.fixture
def store(client: Any, table: str) -> Store:
    """An empty store."""
    return DynamoStore(client, table, SystemIds(), pause=lambda _: None)


def taken(count: int, *, plain: bool = False) -> dict[str, Any]:
    """Takes so many lamps out of the shop, if there are as many."""
    key: Any = {"item": "lamp"} if plain else {"item": {"S": "lamp"}}
    values: Any = {":n": count} if plain else {":n": {"N": str(count)}}
    return {
        "Update": {
            "TableName": "shop",
            "Key": key,
            "UpdateExpression": "SET #left = #left - :n",
            "ConditionExpression": "#left >= :n",
            "ExpressionAttributeNames": {"#left": "left"},
            "ExpressionAttributeValues": values,
        }
    }


def left(client: Any) -> int:
    """Lamps in the shop."""
    item = client.get_item(TableName="shop", Key={"item": {"S": "lamp"}})["Item"]
    return int(item["left"]["N"])


def _app(store: Store, reserve: Any, **options: Any) -> LocalApp:
    flow = a_workflow(lambda w: w.then(a_step("a")).then(reserve).then(a_step("b")), **options)
    return LocalApp(App(flow), store=store, pace=Pace(lease=MINUTE))


def _takes(count: int, *, plain: bool = False, **options: Any) -> Any:
    def reserve(value: int, ctx: StepContext) -> int:
        ctx.commit_with(taken(count, plain=plain))
        return value

    return a_step("reserve", reserve, **options)


@pytest.mark.parametrize("plain", [False, True])
def test_it_happens_with_the_outcome(client: Any, shop: str, store: Store, plain: bool) -> None:
    """Values as the low-level client takes them, or plain Python."""
    result = _app(store, _takes(2, plain=plain)).workflow("flow").create_run("r-1").start(1)
    assert ("success", 3) == (result.status, left(client))


GATE = [pytest.mark.slow, pytest.mark.gate]


@pytest.mark.parametrize(
    ("durability", "at"),
    [("step", 3), *(pytest.param(way, at, marks=GATE) for way in ("step", "boundary") for at in (2, 3, 4))],
)
def test_it_happens_exactly_once_whatever_happens(
    client: Any, shop: str, store: Store, durability: Any, at: int
) -> None:
    """At that write the worker dies, or hears nothing: the stock shrinks once, and the run succeeds."""
    for fault in (Fault.DIES_BEFORE, Fault.DIES_AFTER, Fault.FAILS, Fault.REPLY_LOST):
        before, name = left(client), f"r-{fault.value}"
        client.put_item(TableName="shop", Item={"item": {"S": "lamp"}, "left": {"N": str(before + 1)}})
        wild: Any = FaultyStore(WatchedStore(store), at_call(at, fault, verbs=WRITES))
        app = _app(wild, _takes(1), durability=durability)
        with suppress(WorkerDied, OutsideError):
            app.workflow("flow").create_run(name).start(1)
        with suppress(WorkerDied, OutsideError):
            app.advance(minutes=5)
        assert ("success", before) == (app.run(name).result().status, left(client)), name


def test_what_it_rests_on_is_stored_before(client: Any, shop: str, store: Store) -> None:
    """Where outcomes are kept back: an effect must not stand on an output that is lost and may be another next time."""
    calls: list[str] = []

    def noted(value: int) -> int:
        calls.append("a")
        return value

    flow = a_workflow(lambda w: w.then(a_step("a", noted)).then(_takes(1)).then(a_step("b")), durability="boundary")
    app = LocalApp(App(flow), store=store, pace=Pace(lease=MINUTE))
    app.crash_after("reserve")
    app.workflow("flow").create_run("r-1").start(1)
    app.advance(minutes=5)
    assert ("success", ["a"], 4) == (app.run("r-1").result().status, calls, left(client))


@pytest.mark.parametrize("durability", ["step", "boundary"])
def test_it_does_not_happen_beside_another_outcome(client: Any, shop: str, store: Store, durability: Any) -> None:
    """Its worker froze as it wrote; the next one was refused, failed the run, and has stored that in a fold."""
    client.put_item(TableName="shop", Item={"item": {"S": "lamp"}, "left": {"N": "0"}})
    frozen = list[Call]()

    def script(call: Call) -> None:
        if call.verb == "commit_with" and not frozen:
            frozen.append(call)
            other.advance(minutes=5)
            client.put_item(TableName="shop", Item={"item": {"S": "lamp"}, "left": {"N": "5"}})

    flow = a_workflow(lambda w: w.parallel(_takes(1), a_step("b")), durability=durability)
    wild: Any = FaultyStore(store, script)
    app = LocalApp(App(flow), store=wild, pace=Pace(lease=MINUTE))
    other = LocalApp(App(flow), store=store, clock=app.clock, pace=Pace(lease=MINUTE))
    app.workflow("flow").create_run("r-1").start(1)
    result = app.run("r-1").result()
    assert ("failed", "EffectRefused") == (result.status, result.error and result.error.type)
    assert ("failed", 5) == (result.steps["reserve"].status, left(client))


@pytest.mark.parametrize("canceled", [False, True])
def test_it_does_not_happen_once_the_run_is_given_up(client: Any, shop: str, store: Store, *, canceled: bool) -> None:
    """Where that is asked for, whatever else stands against it; the head says why."""
    store.start(a_running_head())
    if canceled:
        store.cancel(RUN, now=NOW)
    epoch, effects = 1 if canceled else 2, [taken(9)]
    refused = store.commit_with(RUN, 1, a_record(), None, effects, epoch=epoch)
    assert HeadMoved(store.peek(RUN)) == refused
    gone = RunRef("acme", "gone")
    assert HeadMoved(None) == store.commit_with(gone, 1, a_record(), None, [taken(1)], epoch=1)
    assert (5, {}) == (left(client), (store.load(RUN) or ((), None))[1])


def test_of_what_stands_against_it_the_head_is_told_and_then_the_record(client: Any, shop: str, store: Store) -> None:
    """An effect that is refused is a failure of the step, where there is one; not where it was done already."""
    store.start(a_running_head())
    store.commit(RUN, 1, a_record(output="other"), None)
    moved, refused = (store.commit_with(RUN, 1, a_record(key), None, [taken(9)], epoch=1) for key in ("charge", "pay"))
    assert RecordMoved(a_record(output="other")) == moved
    assert isinstance(refused, EffectMoved)
    assert (0, "ConditionalCheckFailed") == (refused.index, refused.reason)
    assert Written() == store.commit_with(RUN, 1, a_record("pay"), None, [taken(1)], epoch=1)
    assert 4 == left(client)


def test_a_reply_that_was_lost_inside_the_store_is_no_second_write(client: Any, shop: str, table: str) -> None:
    """The adapter asks again with the same token; the record tells it that it has been there."""

    class Deaf:
        def __init__(self) -> None:
            self.heard = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        def transact_write_items(self, **request: Any) -> Any:
            reply = client.transact_write_items(**request)
            self.heard += 1
            if self.heard == 1:
                from botocore.exceptions import ReadTimeoutError  # noqa: PLC0415

                raise ReadTimeoutError(endpoint_url="https://dynamodb.example")
            return reply

    deaf: Any = Deaf()
    store = DynamoStore(deaf, table, SystemIds(), pause=lambda _: None)
    assert Written() == store.commit_with(RUN, 1, a_record(), None, [taken(1)])
    assert (4, 1) == (left(client), deaf.heard)


def test_a_condition_that_does_not_hold_fails_the_step(client: Any, shop: str, store: Store) -> None:
    """With an error that tells which write; nothing at all is stored of that try."""
    note = {"Put": {"TableName": "shop", "Item": {"item": "note", "price": 1.5}}}

    @step
    def reserve(value: int, ctx: StepContext) -> int:
        ctx.commit_with(note)
        ctx.commit_with(taken(9))
        return value

    result = _app(store, reserve).workflow("flow").create_run("r-1").start(1)
    assert result.error is not None
    expected = {"index": 1, "table": "shop", "reason": "ConditionalCheckFailed"}
    assert ("failed", "EffectRefused", "reserve", expected) == (
        result.status,
        result.error.type,
        result.error.step,
        result.error.properties,
    )
    assert "Update 1 of step 'reserve', on table 'shop', was refused" in result.error.message
    assert "Item" not in client.get_item(TableName="shop", Key={"item": {"S": "note"}})
    assert 5 == left(client)


def test_it_is_retried_like_any_failure(client: Any, shop: str, store: Store) -> None:
    """Somebody fills the stock up meanwhile."""
    app = _app(store, _takes(7, retries=1, backoff=Backoff(initial=MINUTE, jitter=False)))
    assert "waiting" == app.workflow("flow").create_run("r-1").start(1).status
    client.put_item(TableName="shop", Item={"item": {"S": "lamp"}, "left": {"N": "8"}})
    app.advance(minutes=5)
    result = app.run("r-1").result()
    assert ("success", 1, 2) == (result.status, left(client), result.steps["reserve"].attempts)


def test_a_question_and_a_bail_carry_it_too(client: Any, shop: str, store: Store) -> None:
    """Both are outcomes."""

    @step
    def ask(value: int, ctx: StepContext[bool]) -> int:
        ctx.commit_with(taken(1))
        if ctx.resume_data is None:
            ctx.suspend()
        ctx.bail(value)

    app = _app(store, ask)
    assert "suspended" == app.workflow("flow").create_run("r-1").start(1).status
    assert 4 == left(client)
    assert "success" == app.resume("r-1", True).status
    assert 3 == left(client)


def _nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("effect", "reason"),
    [
        ({"Put": {"TableName": "nowhere", "Item": {"item": "x"}}}, "ResourceNotFoundException"),
        ({"Put": {"TableName": "shop", "Item": {"wrong": "x"}}}, ("ValidationException", "KeyError")),
        ({"Put": {"TableName": "shop", "Item": {"item": object()}}}, "TypeError"),
        ({"Put": {"TableName": "shop", "Item": {"item": {"S": 7}}}}, "ParamValidationError"),
        ({"Put": {"TableName": "shop", "Item": {"item": "x", "count": 10**40 + 1}}}, "ValueError"),
        ({"Put": {"TableName": "shop", "Item": {"item": "x", "count": 1e200}}}, "ValueError"),
        ({"Put": {"TableName": "shop", "Item": {"item": "x", "deep": _nested(10_000)}}}, "RecursionError"),
    ],
    ids=["no such table", "no key", "no type for it", "a wrong type", "too many digits", "too large", "too deep"],
)
def test_what_cannot_be_written_fails_the_step(shop: str, store: Store, effect: Any, reason: Any) -> None:
    """It is the author's mistake, so the run must not hang on it."""
    reserve = a_step("reserve", lambda v, ctx: ctx.commit_with(effect))
    result = _app(store, reserve).workflow("flow").create_run("r-1").start(1)
    assert result.error is not None
    assert ("failed", "EffectRefused") == (result.status, result.error.type)
    assert result.error.properties["reason"] in (reason if isinstance(reason, tuple) else (reason,))


def test_trouble_with_the_store_is_no_refusal(client: Any, shop: str) -> None:
    """A table of ours that is not there is not the author's mistake, as far as anybody can tell it apart."""
    silent = DynamoStore(client, "gone", SystemIds(), pause=lambda _: None)
    with pytest.raises(StoreUnavailable):
        silent.commit(RUN, 1, a_record(), None)


def test_plain_values_are_exact() -> None:
    """A float is written as Python prints it; typed values pass as they are."""
    (body,) = typed({"Put": {"TableName": "t", "Item": {"a": 0.1, "b": [1.5, {"c": None}], "d": Decimal(2)}}}).values()
    assert {"N": "0.1"} == body["Item"]["a"]
    assert {"L": [{"N": "1.5"}, {"M": {"c": {"NULL": True}}}]} == body["Item"]["b"]
    key = {"item": {"S": "x"}}
    assert key is typed({"Delete": {"TableName": "t", "Key": key}})["Delete"]["Key"]
