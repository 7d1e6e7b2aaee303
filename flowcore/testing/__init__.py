"""What an author needs to test workflows: an App on virtual time, faults on demand, the contracts of the ports.

``flowcore.testing.contract`` and ``flowcore.testing.pytest_plugin`` need pytest and are imported by name.
"""

from flowcore.testing.clock import SeededIds, ShiftedClock, VirtualClock
from flowcore.testing.explore import Diverged, Exploration, explore
from flowcore.testing.faults import Fault, FaultyStore, LossyQueue, LossyScheduler, Unruly, WorkerDied
from flowcore.testing.local import LocalApp
from flowcore.testing.schedule import Strike

__all__ = [
    "Diverged",
    "Exploration",
    "Fault",
    "FaultyStore",
    "LocalApp",
    "LossyQueue",
    "LossyScheduler",
    "SeededIds",
    "ShiftedClock",
    "Strike",
    "Unruly",
    "VirtualClock",
    "WorkerDied",
    "explore",
]
