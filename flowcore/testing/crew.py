"""Crews for virtual time: one whose timeouts the clock fires, and one that replays races.

``SteppingCrew`` does work that would run side by side one piece at a time, in an order that a seed decides.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from flowcore.crew import Crew, EventLoop
from flowcore.runner import run_plainly
from flowcore.testing.clock import VirtualClock


class VirtualCrew(Crew[Any, Any]):
    """A ``Crew`` that waits for outcomes in real time and for instants in virtual time: nobody ever sleeps."""

    def __init__(self, loop: EventLoop, clock: VirtualClock) -> None:
        super().__init__(loop)
        self._clock = clock

    def next(self, timeout_s: float | None) -> tuple[Any, Any] | None:
        """See ``Crew.next``; the timeout has passed when the clock has been moved that far."""
        if timeout_s is None:
            return super().next(None)
        with self._clock.alarm(self._clock.now() + timedelta(seconds=timeout_s), self.wake):
            return super().next(None)


class SteppingCrew(Crew[Any, Any]):
    """A ``Crew`` without threads: whoever asks for the next outcome lets one of the pieces run, picked by chance.

    Coroutines must not really wait. When the session ends, some of what is still open runs to its end unseen, as a
    thread of a fenced-off worker does.
    """

    def __init__(self, loop: EventLoop, chance: random.Random) -> None:
        super().__init__(loop)
        self._chance = chance
        self.open: list[tuple[Any, Callable[[], Any]]] = []

    def start_thread(self, key: Any, work: Callable[[], Any]) -> None:
        """See ``Crew.start_thread``."""
        self.open.append((key, work))

    def start_coroutine(self, key: Any, coroutine: Coroutine[Any, Any, Any]) -> None:
        """See ``Crew.start_coroutine``."""
        self.open.append((key, lambda: run_plainly(coroutine)))

    def next(self, timeout_s: float | None) -> tuple[Any, Any] | None:  # time is virtual here
        """See ``Crew.next``; never waits."""
        if not self.open:
            return None
        key, work = self.open.pop(self._chance.randrange(len(self.open)))
        return key, work()

    def dismiss(self) -> None:
        """See ``Crew.dismiss``."""
        left, self.open = self.open, []
        for _, work in left:
            with contextlib.suppress(BaseException):
                work()
