"""Runs that wait, as this release leaves them in the table: what a later one must be able to load, end and fork.

``python -m tests.golden.runs 1`` writes ``runs-v1.json`` anew; that is done once for a release and never again.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from flowcore import App, Option, StepContext, Workflow, step, workflow
from flowcore.adapters.aws import dynamo_client
from flowcore.adapters.dynamodb import DynamoStore
from flowcore.testing import LocalApp, SeededIds, VirtualClock
from flowcore.testing.moto import REGION, fresh_table, locked_moto

HERE = Path(__file__).parent


class Order(BaseModel):
    """What every run is about."""

    id: str
    cents: int


class Answer(BaseModel):
    """What every question takes."""

    ok: bool
    note: str = ""


@step
def twice(order: Order) -> int:
    """Doubles it."""
    return order.cents * 2


@step
def named(order: Order, ctx: StepContext[None, None, dict[str, Any]]) -> str:
    """Leaves a mark in the state."""
    ctx.set_state({"seen": order.id})
    return order.id


@step
def ask(value: Any, ctx: StepContext[Answer, dict[str, Any]]) -> Any:
    """Asks, with a label and a deadline."""
    if ctx.timed_out:
        return "nobody"
    if ctx.resume_data is None:
        ctx.suspend({"about": value}, label="clerk", timeout=timedelta(days=30))
    return {"asked": value, "ok": ctx.resume_data.ok}


@step
def agree(order: Order, ctx: StepContext[Answer, None]) -> list[str]:
    """Asks two of three."""
    if ctx.resume_data is None:
        ctx.suspend(approvers=["ada", "bob", "eve"], quorum=2)
    return sorted(vote.by for vote in ctx.votes)


@step
def more(value: int, ctx: StepContext[Answer, int]) -> int:
    """Asks in each turn."""
    if ctx.resume_data is None:
        ctx.suspend(value)
    return value + 1


@step
def approve(cents: int, ctx: StepContext[Answer, int]) -> int:
    """Asks for each item that is large."""
    if cents > 10 and ctx.resume_data is None:
        ctx.suspend(cents)
    return cents


@step
def first_of(order: Order, ctx: StepContext[Answer, str]) -> str:
    """Asks two, and takes the one that is faster."""
    if ctx.resume_data is None:
        ctx.suspend_any([Option("manager", payload=order.id), Option("bank", key=order.id, event="paid")])
    return ctx.chosen or ""


BROKEN = {"bank": True}


@step(retries=1, backoff=timedelta(hours=2))
def pay(order: Order) -> str:
    """Fails as long as the bank is broken."""
    if BROKEN["bank"]:
        raise RuntimeError("no bank today")
    return f"paid {order.id}"


@step
def fine(order: Order) -> str:
    """Fails as long as the bank is broken, once."""
    if BROKEN["bank"]:
        raise RuntimeError("no bank today")
    return order.id


NESTED = workflow("inner", input=int, output=Any).sleep(timedelta(days=2)).then(ask).commit()
ORDERS: dict[str, Workflow[Any, Any]] = {
    flow.id: flow
    for flow in (
        workflow("asked", input=Order, output=Any, state=dict).parallel(twice, named).then(ask).commit(),
        workflow("counted", input=Order, output=list).then(agree).commit(),
        workflow("looped", input=int, output=int).dountil(more, lambda value: value >= 3).commit(),
        workflow("items", input=list, output=list).foreach(approve, concurrency=3).commit(),
        workflow("nested", input=Order, output=Any).then(twice).then(NESTED).commit(),
        workflow("listening", input=Order, output=Any).wait_for_event("paid", key=lambda order: order.id).commit(),
        workflow("choosing", input=Order, output=str).then(first_of).commit(),
        workflow("boundary", input=Order, output=Any, durability="boundary").then(twice).then(ask).commit(),
        workflow("retrying", input=Order, output=str).then(pay).commit(),
        workflow("failed", input=Order, output=str).then(fine).commit(),
        workflow("fanned", input=list, output=list).foreach(approve, distributed=True).commit(),
    )
}
ORDER = {"id": "o-1", "cents": 5}


@dataclass(frozen=True, kw_only=True)
class Life:
    """How one run got to where it waits, and how it ends from there."""

    input: Any
    before: Callable[[LocalApp], object] = lambda _: None
    after: Callable[[LocalApp, str], object]
    output: Any
    fork: str | None = None
    """Where a copy of it begins; it ends the same way, and with the same output."""
    parked: Literal["suspended", "waiting", "failed"] = "suspended"


def _yes(**where: Any) -> Callable[[LocalApp, str], object]:
    return lambda app, run: app.resume(run, {"ok": True}, **where)


def _two_days_later(app: LocalApp, run: str) -> None:
    app.advance(days=3)
    app.resume(run, {"ok": True})


def _turns(app: LocalApp, run: str) -> None:
    while app.run(run).result().status == "suspended":
        app.resume(run, {"ok": True})


def _redriven(app: LocalApp, run: str) -> None:
    BROKEN["bank"] = False
    if app.run(run).result().status == "failed":
        app.redrive(run)
    app.advance(hours=3)


LIVES: Mapping[str, Life] = {
    "asked": Life(
        input=ORDER,
        after=_yes(label="clerk"),
        output={"asked": {"twice": 10, "named": "o-1"}, "ok": True},
        fork="ask",
    ),
    "counted": Life(
        input=ORDER,
        before=lambda app: app.resume("counted", {"ok": True}, by="ada"),
        after=_yes(by="bob"),
        output=["ada", "bob"],
    ),
    "looped": Life(input=0, before=lambda app: app.resume("looped", {"ok": True}), after=_turns, output=3, fork="more"),
    "items": Life(input=[1, 20, 3, 40], after=_yes(step="approve"), output=[1, 20, 3, 40], fork="approve"),
    "nested": Life(
        input=ORDER,
        after=_two_days_later,
        output={"asked": 10, "ok": True},
        fork="inner",
        parked="waiting",
    ),
    "listening": Life(
        input=ORDER, after=lambda app, run: app.send_event("paid", "o-1", {"cents": 5}), output={"cents": 5}
    ),
    "choosing": Life(input=ORDER, after=_yes(label="manager"), output="manager", fork="first_of"),
    "boundary": Life(input=ORDER, after=_yes(), output={"asked": 10, "ok": True}, fork="ask"),
    "retrying": Life(input=ORDER, after=_redriven, output="paid o-1", parked="waiting", fork="pay"),
    "failed": Life(input=ORDER, after=_redriven, output="o-1", parked="failed", fork="fine"),
    "fanned": Life(
        input=[1, 20, 3],
        after=lambda app, run: app.resume(run, {"ok": True}, index=1),
        output=[1, 20, 3],
        fork="approve",
    ),
}


def app_on(client: Any, table: str, clock: VirtualClock, ids: SeededIds) -> LocalApp:
    """The workflows of this page on a table."""
    store: Any = DynamoStore(client, table, ids, pause=lambda _: None)
    return LocalApp(App(*ORDERS.values()), store=store, clock=clock, ids=ids)


def record() -> dict[str, Any]:
    """Every run driven to where it waits; its items as they lie in the table, and the time of day."""
    written: dict[str, Any] = {}
    with locked_moto():
        client: Any = dynamo_client(region=REGION)
        for name, life in LIVES.items():
            BROKEN["bank"] = True
            with fresh_table(client) as table:
                clock = VirtualClock()
                app = app_on(client, table, clock, SeededIds(1))
                app.workflow(name).create_run(name).start(life.input)
                life.before(app)
                found = app.run(name).result().status
                assert life.parked == found, f"{name} is {found}"
                items = client.scan(TableName=table)["Items"]
                written[name] = {"at": clock.now().isoformat(), "items": [_plain(item) for item in items]}
    return written


def _plain(item: Mapping[str, Any]) -> Any:
    """An item as JSON, its bytes as base64, its sets as lists."""
    return {
        name: {
            kind: base64.b64encode(value).decode() if kind == "B" else sorted(value) if kind in ("NS", "SS") else value
            for kind, value in attribute.items()
        }
        for name, attribute in sorted(item.items())
    }


def items_of(written: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The items again, as DynamoDB takes them."""
    return [
        {
            name: {kind: base64.b64decode(value) if kind == "B" else value for kind, value in attribute.items()}
            for name, attribute in item.items()
        }
        for item in written["items"]
    ]


if __name__ == "__main__":
    target = HERE / f"runs-v{int(sys.argv[1])}.json"
    text = "{\n" + ",\n".join(
        f'"{name}": {{"at": "{run["at"]}", "items": [\n'
        + ",\n".join(json.dumps(item, ensure_ascii=False, sort_keys=True) for item in run["items"])
        + "\n]}"
        for name, run in record().items()
    )
    target.write_text(text + "\n}\n", "utf-8")
