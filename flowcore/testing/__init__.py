"""What an author needs to test workflows: an App on virtual time, faults on demand, the contracts of the ports.

``flowcore.testing.contract`` and ``flowcore.testing.pytest_plugin`` need pytest and are imported by name.
"""

from flowcore.testing.clock import SeededIds, ShiftedClock, VirtualClock
from flowcore.testing.faults import Fault, FaultyStore, LossyQueue, LossyScheduler, Unruly, WorkerDied
from flowcore.testing.local import LocalApp

__all__ = [
    "Fault",
    "FaultyStore",
    "LocalApp",
    "LossyQueue",
    "LossyScheduler",
    "SeededIds",
    "ShiftedClock",
    "Unruly",
    "VirtualClock",
    "WorkerDied",
]
