"""What a run carries, and what opens doors, stands in no log: whatever happens to it, at whatever level."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel

from flowcore import App, StepContext, step, workflow
from flowcore.adapters.memory import MemoryStore
from flowcore.buses import Source
from flowcore.deliveries import Webhook
from flowcore.errors import FlowcoreError
from flowcore.http.doors import doors
from flowcore.http.everything import served
from flowcore.http.hooks import hooks
from flowcore.intake import receive
from flowcore.links import Links
from flowcore.testing import FaultyStore, LocalApp
from flowcore.testing.faults import Fault
from flowcore.webhooks import StandardWebhooks, sign
from tests.unit.web import Web

HIDDEN = "hunter2"
KEY = "whsec_" + "QUJD" * 8


class Ask(BaseModel):
    """What is asked, and answered."""

    word: str
    count: int = 0


@step
def ask(value: Ask, ctx: StepContext[Ask, Ask]) -> Ask:
    """Waits for a word, and tells somebody, who breaks."""
    ctx.logger.info("asking")
    ctx.emit({"word": value.word})
    if ctx.resume_data is None:
        ctx.suspend(value, label="ask", notify=tell)
    return ctx.resume_data


def tell(wait: Any) -> None:
    """Breaks with what it was told."""
    raise ValueError(f"no mail for {wait.payload}")


@step(retries=1)
def fail(value: Ask) -> Ask:
    """Breaks with what it was given."""
    raise ValueError(f"no {value.word}", value)


@step
def misfit(value: Ask) -> int:
    """Gives what it may not."""
    return value.word  # type: ignore[return-value]  # that is the fact


def angry(result: Any) -> None:
    """A hook that breaks with what it was given."""
    raise ValueError(result.input)


HOOK = Webhook(name="shop", scheme=StandardWebhooks(), secret="env:SHOP", event="paid", key="key", data="data")
SOURCE = Source(name="orders", event="paid", key="detail.key", data="detail.data")
FLOWS = (
    workflow("ask", input=Ask, output=Ask, on_finish=angry).then(ask).commit(),
    workflow("fail", input=Ask, output=Ask, on_error=angry).then(fail).commit(),
    workflow("misfit", input=Ask, output=int).then(misfit).commit(),
    workflow("paid", input=Ask, output=Ask).wait_for_event("paid", key="k", model=Ask).commit(),
)
GOOD: dict[str, Any] = {"word": HIDDEN}
BAD: dict[str, Any] = {"word": HIDDEN, "count": HIDDEN}


class World:
    """An App with every door."""

    def __init__(self, store: Any = None) -> None:
        self.links = Links("https://shop.example", {"k1": "s" * 32})
        self.app = LocalApp(App(*FLOWS, links=self.links, webhooks=[HOOK], sources=[SOURCE]), store=store)
        self.web = Web(
            self.app,
            lambda app: doors(app, self.links),
            partial(hooks, secrets=lambda _: [KEY]),
            *[lambda app, n=n: served(app)[n] for n in range(4)],
            authorizer={"jwt": {"claims": {"sub": "ada"}}},
        )

    def path(self, door: str) -> str:
        """The path of a link to the first run that asks."""
        self.app.workflow("ask").create_run("r-1").start(GOOD)
        wait = self.app.run("r-1").result().waits[0]
        url = wait.approval_url() if door == "a" else wait.callback_url()
        return url.removeprefix("https://shop.example")

    def send(self, value: Any) -> None:
        """A signed delivery."""
        body = json.dumps(value).encode()
        self.web.call("POST", "/hooks/shop", body, sign("m-1", body, self.app.clock.now(), [KEY]))


def answered(world: World) -> None:
    """Well and badly, over every door, twice; a step that gives what it may not; a broken hook and a broken mail."""
    for flow in ("fail", "misfit"):
        world.web.post(f"/v1/workflows/{flow}/runs", {"input": GOOD, "run_id": flow, "state": {"word": HIDDEN}})
        world.web.post(f"/v1/workflows/{flow}/runs", {"input": BAD})
        world.app.advance(hours=1)
    path = world.path("cb")
    for _ in range(2):
        world.web.post("/v1/runs/r-1/resume", {"data": BAD, "request_context": GOOD})
        world.web.post(path, BAD)
        world.web.post(path, GOOD)
        world.web.post(path + "x", GOOD)
    world.app.advance(hours=1)


def clicked(world: World) -> None:
    """A form that does not fit, one that does, and one too many."""
    path = world.path("a")
    for form in (BAD, GOOD, GOOD):
        world.web.get(path)
        world.web.fill_in(path, **form)
    world.web.fill_in(f"{path}x/..", **GOOD)


def delivered(world: World) -> None:
    """Webhooks that are not signed, not understood, do not fit, fit, and come again."""
    world.app.workflow("paid").create_run("r-1").start(GOOD)
    world.web.call("POST", "/hooks/shop", json.dumps({"key": "k", "data": GOOD}).encode(), {"webhook-id": HIDDEN})
    for value in ({"key": [HIDDEN]}, {"key": "k", "data": BAD}, {"key": "k", "data": GOOD}, {"key": "k", "data": GOOD}):
        world.send(value)


def queued(world: World) -> None:
    """Messages of every kind, right and wrong."""
    world.path("a")
    world.app.workflow("paid").create_run("r-2").start(GOOD)
    for number, value in enumerate(
        [
            {"run_id": "r-1", "data": BAD},
            {"run_id": "r-1", "data": GOOD, HIDDEN: 1},
            {"run_id": "r-1", "data": GOOD},
            {"event": "paid", "key": "k", "data": BAD},
            {"detail": {"key": "k", "data": BAD}},
            {"detail": {"key": "k", "data": GOOD}},
            HIDDEN,
        ]
    ):
        with suppress(FlowcoreError):  # the queue brings it again
            receive(world.app, json.dumps(value), f"m-{number}")


@pytest.mark.parametrize("story", [answered, clicked, delivered, queued])
@pytest.mark.parametrize("fault", [None, Fault.REPLY_LOST])
def test_nothing_that_a_run_carries_is_logged(
    story: Callable[[World], None], fault: Fault | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor in the audit, nor a token of a link; also where the store is in the way."""
    caplog.set_level(logging.DEBUG)
    world = World(FaultyStore(MemoryStore(), lambda call: fault if call.number % 7 == 6 else None) if fault else None)
    try:
        story(world)
    except FlowcoreError:
        assert fault is not None
    told = [f"{record.__dict__} {record.exc_text}" for record in caplog.records if record.name.startswith("flowcore")]
    told += [str(line) for line in world.web.log.lines]
    assert told
    assert [] == [line for line in told if HIDDEN in line]
    assert [] == [line for line in told if "/a/k1." in line or "/cb/k1." in line or "s" * 32 in line]
    assert fault is not None or [] == world.web.log.faults
