"""What an operator asks of a deployment: looks at its open runs, and sets right what hints alone do not."""

from flowcore.ops.check import CheckReport, UnblockReport, check, unblock
from flowcore.ops.dead_letters import DeadLetterReport, redrive_dead_letters
from flowcore.ops.doctor import doctor, doctor_page
from flowcore.ops.open_runs import Obstacle

__all__ = [
    "CheckReport",
    "DeadLetterReport",
    "Obstacle",
    "UnblockReport",
    "check",
    "doctor",
    "doctor_page",
    "redrive_dead_letters",
    "unblock",
]
