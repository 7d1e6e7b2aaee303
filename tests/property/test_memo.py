"""What a session remembers between two turns is a memo of what is stored, never a truth of its own."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from flowcore.authoring.graph import Graph
from flowcore.core.actions import Decision, Run
from flowcore.core.decide import Passed, decide
from flowcore.core.evolve import context_at, fold, state_at
from flowcore.model import Snapshot
from tests.property.storm import RUN, Storm

QUICK, SEEDS = 60, 400


class Watcher:
    """Stands in for ``decide`` in the engine, and compares at every turn."""

    def __init__(self, storm: Storm) -> None:
        self.storm = storm
        self.turns = 0
        self.found: list[str] = []

    def __call__(self, graph: Graph, snapshot: Snapshot, now: datetime, passed: Passed) -> Decision:
        """See ``decide``."""
        session: Any = sys._getframe(1).f_locals["self"]
        warm = decide(graph, snapshot, now, passed)
        if not session.underway:
            self.turns += 1
            self._compare("an empty memo", warm, decide(graph, snapshot, now))
            self._reload(graph, snapshot, now, warm)
        return warm

    def _reload(self, graph: Graph, snapshot: Snapshot, now: datetime, warm: Decision) -> None:
        """Nobody else has written: what was evolved step by step is what the records fold to."""
        if snapshot.head.run != RUN:
            return  # a child of a foreach; what it is told of the run around it lies there
        # The items of a distributed foreach are loaded when all of them are done, by whoever leaves it.
        loaded = self.storm.store.load(RUN, everything=bool(snapshot.fans))
        assert loaded is not None
        head, records = loaded
        if head.epoch != snapshot.head.epoch or head.version != snapshot.head.version:
            return
        if any(record.epoch != head.epoch and snapshot.records.get(key) != record for key, record in records.items()):
            return
        # How far the children of a foreach are is asked anew by whoever takes the run up, and is in no record.
        fresh = replace(fold(snapshot.head, records.values()), fans=snapshot.fans)
        self._compare("reloaded records", warm, decide(graph, fresh, now))
        for action in warm.actions if isinstance(warm, Run) else ():
            key = action.place.key
            if (state_at(fresh, key), context_at(fresh, key)) != (state_at(snapshot, key), context_at(snapshot, key)):
                self.found.append(f"state at {key!r}: {state_at(snapshot, key)} evolved, {state_at(fresh, key)} folded")

    def _compare(self, what: str, one: Decision, other: Decision) -> None:
        if one != other:
            self.found.append(f"{what}: {one} became {other}")


def memo_findings(seed: int, monkeypatch: pytest.MonkeyPatch) -> Watcher:
    """Drive the storm of ``seed`` with a comparison at each turn."""
    storm = Storm(seed)
    watcher = Watcher(storm)
    with monkeypatch.context() as patch:
        patch.setattr("flowcore.session.decide", watcher)
        storm.drive()
    return watcher


@pytest.mark.parametrize(
    ("first", "last"),
    [(0, QUICK), pytest.param(QUICK, SEEDS, marks=(pytest.mark.slow, pytest.mark.gate))],
    ids=["quick", "long"],
)
def test_a_warm_walk_decides_as_a_cold_one_and_as_a_reloaded_one(
    monkeypatch: pytest.MonkeyPatch, first: int, last: int
) -> None:
    """At every turn of random runs: same actions, same pauses, same end, same state and request context."""
    watchers = {seed: memo_findings(seed, monkeypatch) for seed in range(first, last)}
    assert {} == {seed: watcher.found for seed, watcher in watchers.items() if watcher.found}
    assert sum(watcher.turns for watcher in watchers.values()) > 5 * len(watchers)
