"""Work that would run side by side, one piece at a time in an order that a seed decides: races that can be replayed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Coroutine
from typing import Any

from flowcore.crew import Crew, EventLoop
from flowcore.runner import run_plainly


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
