"""What an author needs to test workflows: an App on virtual time, faults on demand, the contracts of the ports.

``flowcore.testing.contract`` and ``flowcore.testing.pytest_plugin`` need pytest and are imported by name.
"""

from flowcore.testing.clock import SeededIds, ShiftedClock, VirtualClock
from flowcore.testing.explore import Diverged, Exploration, explore
from flowcore.testing.faults import Fault, FaultyStore, LossyQueue, LossyScheduler, Unruly, WorkerDied
from flowcore.testing.generate import Sample, sample
from flowcore.testing.lag import LaggingStore
from flowcore.testing.local import LocalApp
from flowcore.testing.oracle import Told, tell
from flowcore.testing.schedule import Strike
from flowcore.testing.search import Answer, Cancel, Event, Trouble, search
from flowcore.testing.space import Found

__all__ = [
    "Answer",
    "Cancel",
    "Diverged",
    "Event",
    "Exploration",
    "Fault",
    "FaultyStore",
    "Found",
    "LaggingStore",
    "LocalApp",
    "LossyQueue",
    "LossyScheduler",
    "Sample",
    "SeededIds",
    "ShiftedClock",
    "Strike",
    "Told",
    "Trouble",
    "Unruly",
    "VirtualClock",
    "WorkerDied",
    "explore",
    "sample",
    "search",
    "tell",
]
