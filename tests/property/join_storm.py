"""One distributed foreach through one storm: its workers die around writes, freeze, and hear hints twice or never.

Every worker that comes may die at each of its writes, those of the run's partition included. What must come of it does
not depend on the storm: each item's outcome once, the output in order, the run ended once, and nobody left to look at.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from flowcore import App, StepContext, Workflow, step, workflow
from flowcore.adapters.memory import MemoryQueue, MemoryStore
from flowcore.errors import OutsideError
from flowcore.keys import RunRef, Scope, StepKey, item_number
from flowcore.model import Outcome
from flowcore.ops import doctor
from flowcore.ports import Store
from flowcore.testing import Fault, FaultyStore, LocalApp, LossyQueue, Unruly, VirtualClock, WorkerDied
from flowcore.testing.faults import WRITES, Call
from flowcore.testing.invariants import WatchedStore

RUN = RunRef("default", "r")
FAN = StepKey("fan")
MOST_DEATHS_IN_A_ROW = 3
"""Of one run's workers, before one of them gives it back; more than five are a poisonous step, and rightly given up."""
TURNS = 2_000
"""Far more than any storm needs: a run that is not over by then is stuck."""
NEVER = datetime.max.replace(tzinfo=UTC)
BLOWS = (Fault.DIES_BEFORE, Fault.DIES_AFTER, Fault.REPLY_LOST)
SPENT: dict[str, int] = {}
"""What was paid outside, by idempotency key."""
PAID: Counter[str] = Counter()
"""How often it was asked for."""


@step
def pay(amount: int, ctx: StepContext[None, None]) -> int:
    """An effect that bears being asked for twice under its key."""
    PAID[ctx.idempotency_key] += 1
    assert SPENT.setdefault(ctx.idempotency_key, amount) == amount
    return 3 * amount


def fan_of(shard: int) -> Workflow[int, list[int]]:
    """Pays as many amounts, each of its own, and gives what came out."""
    flow = workflow("fan", input=int, output=list[int]).map(lambda count: list(range(count)), id="amounts")
    return flow.foreach(pay, id="fan", distributed=True, shard=shard).commit()


class JoinStorm:
    """A run of so many shards, driven to its end by workers that are none too healthy."""

    def __init__(
        self, seed: int, *, shards: int, size: int, blows: float, frozen: float, table: Store | None = None
    ) -> None:
        """Shares: of writes around which a worker dies or learns nothing, and of those before which he freezes.

        ``table``: an empty store; in memory when none is given.
        """
        self.chance = random.Random(seed)
        self.items, self.shards, self.size, self.blows, self.frozen = shards * size, shards, size, blows, frozen
        self.clock = VirtualClock()
        self.deaths: Counter[RunRef] = Counter()
        self.struck = 0
        self.driven: list[RunRef] = []
        flow = fan_of(size)
        self.watched = WatchedStore(table or MemoryStore(), {"fan": flow.compiled})
        unruly = Unruly(chance=self.chance, dropped=0.05, doubled=0.1, delayed=0.05)
        self.queue = MemoryQueue(self.clock)
        store, queue = FaultyStore(self.watched, self._script), LossyQueue(self.queue, unruly)
        self.app = LocalApp(App(flow), store=store, clock=self.clock, queue=queue)
        SPENT.clear()
        PAID.clear()

    def _script(self, call: Call) -> Fault | None:
        if call.verb not in WRITES or not self.driven:
            return None
        driven = self.driven[-1]
        if call.verb == "release" and call.run == driven:
            self.deaths[driven] = 0
        self._freeze()
        if self.chance.random() >= self.blows or self.deaths[driven] >= MOST_DEATHS_IN_A_ROW:
            return None
        self.deaths[driven] += 1
        self.struck += 1
        return self.chance.choice(BLOWS)

    def _freeze(self) -> None:
        """This worker stands still, perhaps for so long that others go on in its place."""
        if len(self.driven) > 1 or self.chance.random() >= self.frozen:
            return
        self.clock.forward(minutes=self.chance.choice([0.1, 20]))
        self._work()

    def drive(self) -> None:
        """Start the run, and let workers come until it has ended and nothing is left to be looked at."""
        self.app.workflow("fan").create_run("r").start(self.items)
        for _ in range(TURNS):
            instant = self.app.next_at()
            if instant is None:
                return
            self.clock.wait_until(instant)
            self._work()
        raise AssertionError(f"after {TURNS} turns it stands at {self.watched.peek(RUN)}")

    def _work(self) -> None:
        """The sweeper, if somebody is overdue; and a worker for each hint that is there."""
        now = self.clock.now()
        with weathered():
            self.app.sweep()
        for hint in self.queue.pop_due(now):
            if hint.run not in self.driven:
                self._look(hint.run)

    def _look(self, run: RunRef) -> None:
        self.driven.append(run)
        try:
            with weathered():
                self.app.look(run)
        finally:
            self.driven.pop()

    @property
    def called(self) -> int:
        """How often a step was called; what it did counts once per key."""
        return PAID.total()

    def wrong(self) -> Iterator[str]:
        """Everything that is not as it has to be."""
        result = self.app.run("r").result()
        if (result.status, result.output) != ("success", [3 * amount for amount in range(self.items)]):
            yield f"ended {result.status} with {result.error or 'another output'}"
        records = self.watched.scope(RUN, 1, Scope(FAN))
        items = sorted(item_number(key) or 0 for key, r in records.items() if r.outcome is Outcome.OK)
        if items != list(range(self.items)):
            yield f"{len(items)} items have an outcome, not {self.items}"
        if SPENT != {f"r/fan[{amount}]": amount for amount in range(self.items)}:
            yield f"{len(SPENT)} effects, not {self.items}"
        if done := self.items - sum(len(join.done) for join in self.watched.joins(RUN, 1, FAN)):
            yield f"{done} items are not in a join"
        for run in self.watched.due(NEVER, limit=10):
            yield f"somebody would still look at {run.id}"
        yield from (f"{finding.run_id}: {finding.ailment}" for finding in doctor(self.app))
        self.watched.audit(RUN)


@contextmanager
def weathered() -> Iterator[None]:
    """The worker is gone, or the store has not answered it; the storm goes on."""
    with suppress(WorkerDied, OutsideError):
        yield
