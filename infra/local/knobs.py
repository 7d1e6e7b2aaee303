"""What a person may turn to make the local stack as unreliable as the real one is allowed to be.

Shares are probabilities from 0 to 1, drawn from one seeded source, so that a run of bad luck can be had again.
"""

import random
import threading
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(slots=True, kw_only=True)
class Knobs:
    """Read at each use; may be changed while the stack runs.

    Attributes:
        twice: share of schedules that fire two times.
        never: share of schedules that are lost without firing.
        late: added to each schedule's due time.
        killed: share of worker invocations that draw a SIGKILL onto a worker process, a busy one first.
        killed_after: real time from the start of such an invocation to the signal.
        sweeping: whether functions with a rate are invoked; off, nothing but queue and scheduler wakes a run.
    """

    twice: float = 0.0
    never: float = 0.0
    late: timedelta = timedelta()
    killed: float = 0.0
    killed_after: timedelta = timedelta(milliseconds=50)
    sweeping: bool = True
    seed: int = 0
    _chance: random.Random = field(init=False, repr=False)
    _lock: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    def happens(self, share: float) -> bool:
        """One draw: true in ``share`` of the cases, always at 1, never at 0."""
        with self._lock:
            return self._chance.random() < share
