"""Hints that nobody of ours has sent: whoever can put messages into the work queue can change nothing with them.

A hint carries no truth. It names a run and an instant; what is done is decided by the run alone.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from flowcore import App, StepContext, step, workflow
from flowcore.adapters.memory import MemoryQueue, MemoryScheduler, MemoryStore
from flowcore.adapters.sqs import decode_hint
from flowcore.errors import MalformedRequest
from flowcore.keys import RunRef
from flowcore.testing import LocalApp, VirtualClock
from flowcore.testing.faults import WRITES, Call, FaultyStore

CALLS: Counter[str] = Counter()


@step
def first(value: int) -> int:
    """Counts."""
    CALLS["first"] += 1
    return value


@step
def last(value: int) -> int:
    """Counts, too."""
    CALLS["last"] += 1
    return value


@step
def ask(value: int, ctx: StepContext[int]) -> int:
    """Suspends."""
    CALLS["ask"] += 1
    if ctx.timed_out:
        return 0
    if ctx.resume_data is None:
        ctx.suspend(timeout=timedelta(days=1))
    return ctx.resume_data or -1


ASLEEP = workflow("asleep", input=int, output=int).then(first).sleep(timedelta(days=3)).then(last).commit()
ASKED = workflow("asked", input=int, output=int).then(first).then(ask).commit()
DONE = workflow("done", input=int, output=int).then(first).commit()
RUNS = {"asleep": ASLEEP, "asked": ASKED, "done": DONE}


class Besieged:
    """Runs in every state that has nothing to do just now, and a store that knows who has written."""

    def __init__(self) -> None:
        self.writes: list[str] = []
        self.store = MemoryStore()
        self.clock = VirtualClock()
        self.queue, self.scheduler = MemoryQueue(self.clock), MemoryScheduler()
        watched: Any = FaultyStore(self.store, self._seen)
        self.app = LocalApp(
            App(*RUNS.values()), store=watched, clock=self.clock, queue=self.queue, scheduler=self.scheduler
        )
        for name, flow in RUNS.items():
            self.app.workflow(flow).create_run(name).start(1, wait=timedelta(minutes=1))
        self.app.run_until_idle()
        self.app.workflow(DONE).create_run("gone").start(1, wait=timedelta(minutes=1))
        self.app.run("gone").delete()
        self.before = self._state()
        self.writes.clear()
        CALLS.clear()

    def _seen(self, call: Call) -> None:
        if call.verb in WRITES and call.verb != "claim":
            self.writes.append(call.verb)

    def forge(self, **changes: Any) -> None:
        """What the worker does with a message like this."""
        body = json.dumps({"v": 1, "tenant": "default", "run": "asleep", "at": 0, **changes})
        try:
            hint = decode_hint(body)
        except MalformedRequest:
            return
        self.app.look(hint.run)

    def _state(self) -> dict[str, Any]:
        refs = [RunRef(tenant, name) for tenant in ("default", "acme") for name in (*RUNS, "gone")]
        return {f"{ref.tenant}/{ref.id}": self.store.load(ref, everything=True) for ref in refs}

    @property
    def is_untouched(self) -> bool:
        """Whether no run has moved, nothing was written and no step has run."""
        return self.before == self._state() and not self.writes and not CALLS


@pytest.mark.parametrize("run", [*RUNS, "gone", "never"])
def test_forged_hint_at_a_run_with_nothing_to_do_changes_nothing(run: str) -> None:
    """Asleep, suspended, ended, deleted, or never there."""
    besieged = Besieged()
    besieged.forge(run=run)
    assert besieged.is_untouched


@pytest.mark.parametrize("run", RUNS)
def test_forged_hint_for_another_tenant_changes_nothing(run: str) -> None:
    """A run of that id is not another tenant's."""
    besieged = Besieged()
    besieged.forge(run=run, tenant="acme")
    assert besieged.is_untouched


@pytest.mark.parametrize("at", [0, 1, 253_402_300_799_999])
def test_forged_hint_of_any_instant_wakes_nobody_early(at: int) -> None:
    """Long past or in the year 9999: when a run wakes stands in the run."""
    besieged = Besieged()
    besieged.forge(at=at)
    assert besieged.is_untouched
    besieged.app.advance(days=3)
    assert "success" == besieged.app.run("asleep").result().status


@pytest.mark.parametrize(
    "changes",
    [
        {"run": "asleep#HEAD"},
        {"run": "../asleep"},
        {"run": ""},
        {"run": None},
        {"tenant": "default#R#asleep"},
        {"tenant": "*"},
        {"at": 10**30},
        {"at": -1},
        {"at": True},
        {"at": "now"},
        {"v": 2},
        {"v": None},
        {"status": "CANCELED", "output": 7, "ver": 99},
    ],
)
def test_forged_nonsense_changes_nothing(changes: dict[str, Any]) -> None:
    """It is no hint, or one whose other words nobody reads."""
    besieged = Besieged()
    besieged.forge(**changes)
    assert besieged.is_untouched


def test_thousands_of_forged_hints_change_nothing_and_grow_nothing() -> None:
    """Each costs a look. One at a sleeping run makes again the one schedule that is there."""
    besieged = Besieged()
    for number in range(3_000):
        besieged.forge(run=[*RUNS, "gone", "never"][number % 5], tenant=("default", "acme")[number % 2])
    assert besieged.is_untouched
    assert 2 == len(besieged.scheduler.pop_due(besieged.clock.now() + timedelta(days=4)))
    besieged.app.advance(days=4)
    assert ("success", {"last": 1, "ask": 1}) == (besieged.app.run("asleep").result().status, dict(CALLS))


def test_forged_hint_at_a_run_that_waits_for_a_worker_does_what_was_to_be_done() -> None:
    """It is looked at a little earlier, once, as by its own hint."""
    besieged = Besieged()
    besieged.app.workflow(DONE).create_run("new").start(1)
    for _ in range(3):
        besieged.forge(run="new")
    besieged.app.run_until_idle()
    assert ("success", 1) == (besieged.app.run("new").result().status, CALLS["first"])
