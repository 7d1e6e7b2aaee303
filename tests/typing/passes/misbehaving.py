"""A ``LocalApp`` takes whatever wraps a store, a queue or a scheduler in order to misbehave."""

from __future__ import annotations

from datetime import timedelta

from flowcore import App
from flowcore.adapters.memory import MemoryQueue, MemoryScheduler, MemoryStore
from flowcore.testing import (
    Fault,
    FaultyStore,
    LaggingStore,
    LocalApp,
    LossyQueue,
    LossyScheduler,
    Unruly,
    VirtualClock,
)
from flowcore.testing.faults import at_call
from flowcore.testing.invariants import WatchedStore


def unruly(app: App) -> LocalApp:
    """Everything at once."""
    clock = VirtualClock()
    hints = Unruly(dropped=0.1, doubled=0.1, delayed=0.1)
    lagging = LaggingStore(WatchedStore(MemoryStore()), clock, lag=timedelta(seconds=2))
    return LocalApp(
        app,
        store=FaultyStore(lagging, at_call(3, Fault.DIES_AFTER)),
        clock=clock,
        queue=LossyQueue(MemoryQueue(clock), hints),
        scheduler=LossyScheduler(MemoryScheduler(), hints),
    )


def plain(app: App) -> LocalApp:
    """And what they wrap."""
    clock = VirtualClock()
    return LocalApp(app, store=MemoryStore(), clock=clock, queue=MemoryQueue(clock), scheduler=MemoryScheduler())
