"""Runs that wait, as a release leaves them in the table: what a later one must be able to load, end and fork.

``python -m tests.golden.runs 2`` writes ``runs-v2.json`` with every run of this page, once for a release. Runs that
this page gets after that go into a file of their own beside it, ``python -m tests.golden.runs 2b``, which has those
alone that no file of that release has yet. A file that is there is never written again: ``test_golden_files`` sees it.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from flowcore import App, Option, StepContext, Workflow, step, workflow
from flowcore.adapters.aws import dynamo_client
from flowcore.adapters.blobs import MemoryBlobs
from flowcore.adapters.dynamodb import DynamoStore
from flowcore.adapters.memory import MemoryQueue
from flowcore.links import Links
from flowcore.model import PublicStatus
from flowcore.testing import LocalApp, SeededIds, VirtualClock, WorkerDied
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


@step
def long(order: Order) -> str:
    """Makes what is too large for an item."""
    return order.id * 20_000


@step
def ask_about(value: Any, ctx: StepContext[Answer, int]) -> str:
    """Asks about the length of something, and goes on with its beginning."""
    if ctx.resume_data is None:
        ctx.suspend(len(value))
    return str(value)[:3]


TOLD: list[str] = []
"""Who was told something, by the run's id and the occasion."""
DYING = {"teller": False}


def tell(result: Any) -> None:
    """A hook; whoever calls it may die of it."""
    if DYING["teller"]:
        raise WorkerDied("in a hook")
    TOLD.append(f"{result.run_id} {result.status}")


def remind(wait: Any) -> None:
    """Tells whoever must answer."""
    TOLD.append(f"{wait.run_id} asked")


@step
def reminding(order: Order, ctx: StepContext[Answer, None]) -> bool:
    """Asks one, again after some hours, and then another as well."""
    if ctx.resume_data is None:
        hours = [timedelta(hours=4), timedelta(days=1)]
        ctx.suspend(approvers=["ada"], notify=remind, remind=hours, escalate={2: ["boss"]})
    return ctx.resume_data.ok


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
        workflow("plain", input=Order, output=int).then(twice).map(lambda cents: cents + 1, id="plus").commit(),
        workflow("fixed", input=Order, output=Any).sleep(timedelta(days=1), id="nap").then(ask).commit(),
        workflow("mended", input=Order, output=Any).then(fine).then(ask).commit(),
        workflow("large", input=Order, output=str).then(long).then(ask_about).commit(),
        workflow("early", input=Order, output=Any).sleep(timedelta(days=2), id="nap").then(ask).commit(),
        workflow("posted", input=Order, output=Any)
        .sleep(timedelta(days=2), id="nap")
        .wait_for_event("posted", key=lambda order: order.id)
        .commit(),
        workflow("telling", input=Order, output=int, on_finish=tell).then(twice).commit(),
        workflow("reminded", input=Order, output=bool).then(reminding).commit(),
        workflow("shared", input=list, output=list).foreach(approve, distributed=True, shard=2).commit(),
    )
}
MISTAKEN = workflow("fixed", input=Order, output=Any).then(twice).then(ask).commit()
"""A deploy that has lost the sleep."""
LINKS = Links("https://api.example.com/v", {"2026": "0123456789abcdef0123456789abcdef"})
ORDER = {"id": "o-1", "cents": 5}


def _started(app: LocalApp, flow: str, run: str, input: Any) -> None:
    app.workflow(flow).create_run(run).start(input)


@dataclass(frozen=True, kw_only=True)
class Life:
    """How one run got to where it waits, and how it ends from there."""

    input: Any
    flow: str = ""
    """Of which workflow; left out, of that of its name."""
    start: Callable[[LocalApp, str, str, Any], object] = _started
    """With the App, the workflow, the run's id and the input."""
    before: Callable[[LocalApp], object] = lambda _: None
    after: Callable[[LocalApp, str], object]
    output: Any
    fork: str | None = None
    """Where a copy of it begins; it ends the same way, and with the same output."""
    parked: PublicStatus = "suspended"


def _queued(app: LocalApp, flow: str, run: str, input: Any) -> None:
    """Started where workers drive runs, and there is none."""
    _started(LocalApp(app, store=app.store, clock=app.clock, queue=MemoryQueue(app.clock)), flow, run, input)


def _held(app: LocalApp, flow: str, run: str, input: Any) -> None:
    """Its worker dies on the way."""
    app.crash_after("twice")
    _started(app, flow, run, input)


def _blocked(app: LocalApp, flow: str, run: str, input: Any) -> None:
    """Woken by code that has lost the sleep."""
    _started(app, flow, run, input)
    LocalApp(App(MISTAKEN), store=app.store, clock=app.clock, ids=app.ids).advance(days=2)


def _untold(app: LocalApp, flow: str, run: str, input: Any) -> None:
    """Over, and whoever should have told that has died."""
    DYING["teller"] = True
    _started(app, flow, run, input)
    DYING["teller"] = False


def _mended(app: LocalApp, flow: str, run: str, input: Any) -> None:
    """Failed at first; in its second life it asks."""
    _started(app, flow, run, input)
    BROKEN["bank"] = False
    app.redrive(run)


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


def _started_again(app: LocalApp, run: str) -> None:
    """With the same input it is the same run."""
    _started(app, "plain", run, ORDER)
    app.advance(minutes=5)


def _paused(app: LocalApp) -> None:
    app.advance(days=3)
    app.run("paused").pause()


def _unpaused(app: LocalApp, run: str) -> None:
    if app.run(run).result().status == "paused":
        app.run(run).unpause()
    if app.run(run).result().status == "suspended":
        app.resume(run, {"ok": True})


def _answered_before(app: LocalApp, run: str) -> None:
    """Whoever repeats the answer is told the first receipt."""
    if app.run(run).result().status == "paused":
        repeated = app.resume(run, {"ok": True}, by="ada", idempotency_key="k-1").receipt
        assert repeated is not None
        assert repeated.verdict == "duplicate"
    _unpaused(app, run)


def _unblocked(app: LocalApp, run: str) -> None:
    if (blocked := app.run(run).result().blocked) is not None:
        assert "nap" in blocked
        app.run(run).unblock()
    app.advance(days=2)
    app.resume(run, {"ok": True})


def _once_more(app: LocalApp, run: str) -> None:
    """What is canceled stays so, whoever looks; it may begin anew."""
    if app.run(run).result().canceled_by is not None:
        app.deliver(run)
        assert app.run(run).result().status == "canceled"
        app.run(run).time_travel("ask")
    app.resume(run, {"ok": True})


def _early(app: LocalApp, run: str) -> None:
    """The answer is there; a copy has none and is given one."""
    app.advance(days=3)
    if app.run(run).result().status == "suspended":
        assert run == "copy"
        app.resume(run, {"ok": True})


def _post(app: LocalApp) -> str:
    """As a webhook does: with an id by which its copies are known."""
    return app.send_event("posted", "o-1", {"cents": 5}, event_id="bank:1", keep=timedelta(days=30)).verdict


def _posted(app: LocalApp, run: str) -> None:
    """The event is there, and a copy of it is known before and after; where another has taken it, there is one more."""
    assert _post(app) == "buffered"
    app.advance(days=3)
    assert _post(app) == "duplicate"
    if app.run(run).result().status == "suspended":
        assert run == "copy"
        app.send_event("posted", "o-1", {"cents": 5})


def _told(app: LocalApp, run: str) -> None:
    TOLD.clear()
    app.advance(hours=2)
    assert f"{run} success" in TOLD or run == "copy"


def _reminded(app: LocalApp, run: str) -> None:
    """A run that is one reminder ahead of its copy hears the second one, and whom it adds may answer."""
    TOLD.clear()
    app.advance(hours=21)
    assert f"{run} asked" in TOLD
    app.resume(run, {"ok": True}, by="ada" if run == "copy" else "boss")


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
    "queued": Life(
        flow="plain",
        input=ORDER,
        start=_queued,
        after=_started_again,
        output=11,
        fork="twice",
        parked="pending",
    ),
    "held": Life(
        flow="plain",
        input=ORDER,
        start=_held,
        after=lambda app, run: app.advance(hours=1),
        output=11,
        fork="plus",
        parked="running",
    ),
    "paused": Life(
        flow="early",
        input=ORDER,
        before=_paused,
        after=_unpaused,
        output={"asked": ORDER, "ok": True},
        fork="ask",
        parked="paused",
    ),
    "paused-and-answered": Life(
        flow="boundary",
        input=ORDER,
        before=lambda app: (
            app.run("paused-and-answered").pause(),
            app.resume("paused-and-answered", {"ok": True}, by="ada", idempotency_key="k-1"),
        ),
        after=_answered_before,
        output={"asked": 10, "ok": True},
        fork="ask",
        parked="paused",
    ),
    "blocked": Life(
        flow="fixed",
        input=ORDER,
        start=_blocked,
        after=_unblocked,
        output={"asked": ORDER, "ok": True},
        fork="nap",
        parked="paused",
    ),
    "canceled": Life(
        flow="boundary",
        input=ORDER,
        before=lambda app: app.cancel("canceled", by="eve"),
        after=_once_more,
        output={"asked": 10, "ok": True},
        fork="ask",
        parked="canceled",
    ),
    "mended": Life(input=ORDER, start=_mended, after=_yes(), output={"asked": "o-1", "ok": True}, fork="ask"),
    "large": Life(input=ORDER, after=_yes(), output="o-1", fork="ask_about"),
    "early": Life(
        input=ORDER,
        before=lambda app: app.resume("early", {"ok": True}, step="ask", keep=timedelta(days=30), by="ada"),
        after=_early,
        output={"asked": ORDER, "ok": True},
        fork="nap",
        parked="waiting",
    ),
    "posted": Life(
        input=ORDER,
        before=_post,
        after=_posted,
        output={"cents": 5},
        fork="nap",
        parked="waiting",
    ),
    "telling": Life(input=ORDER, start=_untold, after=_told, output=10, fork="twice", parked="success"),
    "reminded": Life(
        input=ORDER,
        before=lambda app: app.advance(hours=5),
        after=_reminded,
        output=True,
    ),
    "shared": Life(
        input=[1, 20, 3, 40, 5],
        before=lambda app: app.resume("shared", {"ok": True}, index=3),
        after=lambda app, run: app.resume(run, {"ok": True}, step="approve"),
        output=[1, 20, 3, 40, 5],
        fork="approve",
    ),
}


def app_on(client: Any, table: str, clock: VirtualClock, ids: SeededIds, blobs: MemoryBlobs) -> LocalApp:
    """The workflows of this page on a table."""
    store: Any = DynamoStore(client, table, ids, pause=lambda _: None)
    return LocalApp(App(*ORDERS.values(), links=LINKS), store=store, clock=clock, ids=ids, blobs=blobs)


def releases() -> list[Path]:
    """The files, in the order in which they were written: 2 and 2b before 10."""
    return sorted(HERE.glob("runs-v*.json"), key=lambda path: release_of(path.stem))


def release_of(stem: str) -> tuple[int, str]:
    """Number and letter of ``runs-v10b``; a release's first file has no letter."""
    number, letter = re.fullmatch(r"runs-v(\d+)([a-z]?)", stem).groups()  # type: ignore[union-attr]  # or fails here
    return int(number), letter


def record(names: Collection[str]) -> dict[str, Any]:
    """Runs driven to where they wait; their items as they lie in the table, their blobs, and the time of day."""
    written: dict[str, Any] = {}
    with locked_moto():
        client: Any = dynamo_client(region=REGION)
        for name in names:
            life = LIVES[name]
            BROKEN["bank"] = True
            with fresh_table(client) as table:
                clock, blobs = VirtualClock(), MemoryBlobs()
                app = app_on(client, table, clock, SeededIds(1), blobs)
                life.start(app, life.flow or name, name, life.input)
                life.before(app)
                found = app.run(name).result().status
                assert life.parked == found, f"{name} is {found}"
                items = client.scan(TableName=table)["Items"]
                written[name] = {"at": clock.now().isoformat(), "items": [_plain(item) for item in items]}
                if blobs.kept:
                    written[name]["blobs"] = {key: _packed(content) for key, content in sorted(blobs.kept.items())}
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


def _packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content)).decode()


def items_of(written: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The items again, as DynamoDB takes them."""
    return [
        {
            name: {kind: base64.b64decode(value) if kind == "B" else value for kind, value in attribute.items()}
            for name, attribute in item.items()
        }
        for item in written["items"]
    ]


def blobs_of(written: Mapping[str, Any]) -> MemoryBlobs:
    """The blobs again."""
    blobs = MemoryBlobs()
    packed = written.get("blobs", {})
    blobs.kept.update({key: zlib.decompress(base64.b64decode(content)) for key, content in packed.items()})
    return blobs


def main(release: str) -> None:
    """Write the file of a release, with the runs that no file of that release has yet."""
    target = HERE / f"runs-v{release}.json"
    number, _ = release_of(target.stem)
    if target.exists():
        sys.exit(f"{target} is there, and what a release has left does not change: take the next letter.")
    there = [path for path in releases() if release_of(path.stem)[0] == number]
    known = {name for path in there for name in json.loads(path.read_text("utf-8"))}
    text = "{\n" + ",\n".join(
        f'"{name}": {{"at": "{run["at"]}", '
        + (f'"blobs": {json.dumps(run["blobs"])}, ' if "blobs" in run else "")
        + '"items": [\n'
        + ",\n".join(json.dumps(item, ensure_ascii=False, sort_keys=True) for item in run["items"])
        + "\n]}"
        for name, run in record([name for name in LIVES if name not in known]).items()
    )
    target.write_text(text + "\n}\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
