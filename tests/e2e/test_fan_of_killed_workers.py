"""A distributed foreach on real worker processes: many are killed, hints come twice, and it joins once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flowcore.app import App
from flowcore.keys import RunRef, Scope, StepKey, item_of
from flowcore.model import Head, Outcome, RunStatus
from flowcore.ops import doctor
from infra.local.knobs import Knobs
from infra.local.soak import entered, served
from infra.local.soak_flows import BOOK, PACE
from infra.local.stack import LocalStack
from tests.e2e import fan_flows
from tests.property.rows import told

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("killed-workers")]

RUN = RunRef("default", "r")
FAN = StepKey("fan")
DOUBLED = 0.10
KILLED = 0.05
QUIET_S = 1.0
"""Nothing has moved for so long: time may pass."""
JUMP = timedelta(minutes=3)
"""Then every lease of a dead worker is over, and the sweeper looks."""
MOST_JUMPS = 15
"""In a row, without anything moving: then what is left is stuck."""
NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass
class Fanned:
    """One run of so many items, and the stack it is on."""

    stack: LocalStack
    book: Path
    count: int
    app: App = field(init=False)
    jumps: int = 0

    def __post_init__(self) -> None:
        self.app = served(self.stack, fan_flows.app)

    @property
    def workers(self) -> Any:
        """Those who drive runs."""
        return self.stack.pools["WorkerFunction"]

    def drive(self) -> None:
        """Start the run; from then on only workers do anything, and time passes whenever they have nothing to do."""
        self.app.workflow("fan").create_run("r").start(self.count, wait=None)
        still = 0
        while still < MOST_JUMPS and not self.head().is_terminal:
            if self._settles():
                self.stack.forward(JUMP)
                self.jumps += 1
                still += 1
            else:
                still = 0

    def after(self) -> None:
        """Whatever hint is still on its way comes, whoever is due is looked at."""
        for _ in range(2):
            self.stack.forward(hours=1)
            while not self._settles():
                pass

    def _settles(self) -> bool:
        """Whether nothing moves for a while; returns as soon as something does."""
        before, end = self._moved(), time.monotonic() + QUIET_S
        while time.monotonic() < end:
            time.sleep(0.1)
            if self._moved() != before or not self.stack.idle:
                return False
        return True

    def _moved(self) -> tuple[int, int]:
        return self.workers.invocations, self.head().version

    def head(self) -> Head:
        """The run's, as it stands."""
        head = self.app.store.peek(RUN)
        assert head is not None
        return head

    def standing(self) -> Any:
        """Everything that is stored, of the run and of all its children."""
        table = self.stack.environment("WorkerFunction")["FLOWCORE_TABLE"]
        pages = self.stack.client("dynamodb").get_paginator("scan").paginate(TableName=table)
        return sorted((item["pk"]["S"], item["sk"]["S"], item) for page in pages for item in page["Items"])

    def wrong(self) -> Iterator[str]:
        """Everything that is not as it has to be."""
        head = self.head()
        if (head.status, head.output) != (RunStatus.SUCCESS, [3 * number for number in range(self.count)]):
            yield f"the run is {head.status}: {head.failure or 'another output'}"
        records = self.app.store.scope(RUN, 1, Scope(FAN))
        outputs = {key: record.output for key, record in records.items() if record.outcome is Outcome.OK}
        if outputs != {item_of(FAN, number): 3 * number for number in range(self.count)}:
            yield f"{len(outputs)} items have an outcome in the run"
        places = entered(self.book).get("r", set())
        if places != {"close", *(f"fan[{number}]" for number in range(self.count))}:
            yield f"{len(places)} effects, each of them counted once"
        if joined := self.count - sum(len(join.done) for join in self.app.store.joins(RUN)):
            yield f"{joined} items are in no join"
        yield from (f"somebody would look at {run.id}" for run in self.app.store.due(NEVER, limit=10))
        yield from (f"{finding.run_id}: {finding.detail}" for finding in doctor(self.app))
        before = self.standing()
        self.after()
        if before != self.standing():
            yield "something has changed after the end"
        for line in self.stack.logs("WorkerFunction"):
            if "InvariantError" in line.text:
                yield line.text


@contextmanager
def fanned(count: int, seed: int, folder: Path) -> Iterator[Fanned]:
    """A stack on which so many items are to be seen to, and 5 of 100 workers are killed meanwhile."""
    environment = {BOOK: str(folder / "book"), PACE: "0.02"}
    parameters = {"AppModule": "tests.e2e.fan_flows:app", "WorkerTimeout": "60", "WorkerBatchSize": "1"}
    knobs = Knobs(doubled=DOUBLED, killed=KILLED, seed=seed)
    with LocalStack(parameters=parameters, environment=environment, knobs=knobs, max_sandboxes=3) as stack:
        yield Fanned(stack, folder / "book", count)


def hold_out(count: int, seed: int, folder: Path) -> Fanned:
    """All items are seen to once, though workers die of it, and hints come twice."""
    began = time.monotonic()
    with fanned(count, seed, folder) as fan:
        fan.drive()
        wrong = list(fan.wrong())
    seconds = time.monotonic() - began
    told("joins-killed", count, len(wrong), seconds, seed=str(seed))
    received, copies = fan.stack.messages
    print(f"{received} messages, {copies} of them sent twice; {fan.workers.invocations} invocations,")
    print(f"{fan.workers.deaths} killed; the clock jumped {fan.jumps} times")
    assert [] == wrong
    assert copies >= DOUBLED * received / 2
    return fan


@pytest.mark.gate
def test_a_fan_joins_once_though_workers_are_killed(tmp_path: Path) -> None:
    """Of 60 items, each with a worker of its own."""
    assert hold_out(60, seed=1, folder=tmp_path).workers.deaths


@pytest.mark.proof
def test_a_thousand_items_join_once_though_workers_are_killed(tmp_path: Path) -> None:
    """Of 1,000 items, each with a worker of its own."""
    fan = hold_out(1_000, seed=2, folder=tmp_path)
    assert fan.workers.deaths >= 40
