"""What an operator asks of a deployment: looks at its open runs, and sets right what hints alone do not."""

from flowcore.ops.dead_letters import DeadLetterReport, redrive_dead_letters
from flowcore.ops.doctor import doctor

__all__ = ["DeadLetterReport", "doctor", "redrive_dead_letters"]
