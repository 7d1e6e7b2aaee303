"""Workflows of many shapes for ``soak.py``, and the book in which their steps enter what they do to the world.

An entry is one line: the idempotency key, then the process. Some steps enter first and work then, others the other way
round, so that a worker may die on either side. The book belongs to another system: it is appended to and never read by
a step, and whoever reads it counts each key once, as a bank does.
"""

from __future__ import annotations

import os
import random
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from flowcore import App, StepContext, step, workflow
from infra.local.soak_plan import Plan

BOOK = "SOAK_BOOK"
PACE = "SOAK_SECONDS"
ANSWER = 7
"""What everybody answers."""
EVENT = "parcel.delivered"


def enter(ctx: StepContext[Any, Any, Any]) -> None:
    """One line in the book; one write, so that lines of several processes do not mix."""
    line = f"{ctx.idempotency_key} {os.getpid()}\n".encode()
    with Path(os.environ[BOOK]).open("ab", buffering=0) as book:
        book.write(line)


def work() -> None:
    """Takes a while: time to be killed in."""
    time.sleep(float(os.environ.get(PACE, "0")))


@step
def pay(value: int, ctx: StepContext) -> int:
    """Does first, and takes its time then."""
    enter(ctx)
    work()
    return value + 1


@step
def ship(value: int, ctx: StepContext) -> int:
    """Takes its time first."""
    work()
    enter(ctx)
    return value + 1


@step(retries=2, backoff=timedelta(minutes=2))
def stumble(value: int, ctx: StepContext) -> int:
    """Fails the first time."""
    enter(ctx)
    work()
    if ctx.attempt == 1:
        raise ConnectionError("on purpose")
    return value + 1


@step
def ask(value: int, ctx: StepContext[int]) -> int:
    """Waits for a number."""
    if ctx.resume_data is None:
        ctx.suspend(label="ask")
    work()
    enter(ctx)
    return value + ctx.resume_data


@step
def hurry(value: int, ctx: StepContext[int]) -> int:
    """Waits for a number that never comes, but not for ever."""
    if not ctx.timed_out:
        ctx.suspend(timeout=timedelta(days=2))
    enter(ctx)
    return value


@step
def total(value: Any) -> int:
    """The sum of what came out side by side."""
    return sum(value.values() if isinstance(value, dict) else value)


NAP = workflow("nap", input=int, output=int).then(pay).sleep(timedelta(hours=5)).then(ship).commit()
FLOWS = [
    workflow("chain", input=int, output=int).then(pay).then(ask).then(stumble).then(ship).commit(),
    workflow("sleepy", input=int, output=int).then(pay).sleep(timedelta(days=3)).then(ship).commit(),
    workflow("wide", input=int, output=int).parallel(pay, ask, NAP).then(total).then(ship).commit(),
    workflow("each", input=int, output=int)
    .map(lambda value: [value] * 5)
    .foreach(ship, concurrency=2)
    .then(total)
    .then(pay)
    .commit(),
    workflow("late", input=int, output=int).then(pay).then(hurry).then(ship).commit(),
    workflow("turns", input=int, output=int).dountil(ask, lambda value: value >= 3 * ANSWER).then(pay).commit(),
    workflow("parcel", input=int, output=int)
    .map(lambda _, ctx: ctx.run_id)
    .wait_for_event(EVENT, key=lambda run_id: run_id, model=int)
    .then(ship)
    .commit(),
]
app = App(*FLOWS)


def tell_early(app: App, run_id: str, chance: random.Random) -> None:
    """Some parcels are there before anybody waits for them."""
    if app.run(run_id).result().workflow_id == "parcel" and chance.random() < 0.3:
        app.send_event(EVENT, run_id, ANSWER, event_id=run_id)


soak = Plan(
    inputs={flow.id: lambda _: 1 for flow in FLOWS},
    answers={"ask": ANSWER, "wait-for-parcel-delivered": ANSWER},
    begun=tell_early,
)
"""How they are soaked: nobody answers where there is a deadline."""
