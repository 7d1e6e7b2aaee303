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
        doubled: share of queue messages of which a copy comes as well.
        killed: share of worker invocations in the middle of which the process gets a SIGKILL.
        killed_within: real time from the start of such an invocation, at an instant of which the signal comes; one that
            has ended by then gets away, and the next takes its place.
        sweeping: whether functions with a rate are invoked; off, nothing but queue and scheduler wakes a run.
    """

    twice: float = 0.0
    never: float = 0.0
    late: timedelta = timedelta()
    doubled: float = 0.0
    killed: float = 0.0
    killed_within: timedelta = timedelta(milliseconds=100)
    sweeping: bool = True
    seed: int = 0
    _chance: random.Random = field(init=False, repr=False)
    _copying: random.Random = field(init=False, repr=False)
    _lock: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)
    _spared: int = field(init=False, repr=False, default=0)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._copying = random.Random(self.seed)

    def happens(self, share: float) -> bool:
        """One draw: true in ``share`` of the cases, always at 1, never at 0."""
        with self._lock:
            return self._chance.random() < share

    def doubles(self) -> bool:
        """Whether the next message is followed by a copy; of so many messages the same, whatever else is drawn."""
        with self._lock:
            return self._copying.random() < self.doubled

    def dooms(self) -> bool:
        """Whether the next invocation is to be killed."""
        with self._lock:
            is_owed = self._spared > 0
            self._spared -= is_owed
            return is_owed or self._chance.random() < self.killed

    def spares(self) -> None:
        """One that was to be killed got away."""
        with self._lock:
            self._spared += 1

    def instant(self, span: timedelta) -> timedelta:
        """One draw: any instant of a span of time, from its beginning."""
        with self._lock:
            return span * self._chance.random()
