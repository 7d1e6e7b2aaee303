"""One try of one action in the crew's hands: when it began, when its time is over, and what it may do after that.

A coroutine can be cancelled, a thread cannot: so the clock alone judges. What ends at its deadline or later has timed
out, whoever notices first, and from that instant on the try can change nothing any more.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, TypeAlias, TypeGuard

from flowcore.authoring.context import Flag, LateSignal
from flowcore.authoring.graph import StepNode
from flowcore.core.actions import Action, RunStep
from flowcore.core.evolve import StepEvent
from flowcore.ledger import Halted
from flowcore.model import StepRecord
from flowcore.ports import Clock

CameTo: TypeAlias = StepEvent | Halted | None
"""What a try came to; None when it was stopped for being late, ``Halted`` where it met a pause."""


def time_for(action: Action) -> timedelta | None:
    """How long one try of ``action`` may take; None: as long as it likes."""
    node = action.place.node
    return node.step.timeout if isinstance(action, RunStep) and isinstance(node, StepNode) else None


def promised_by(action: Action) -> timedelta | None:
    """How often the step of ``action`` promises to be heard from; None: it does not."""
    node = action.place.node
    return node.step.heartbeat if isinstance(action, RunStep) and isinstance(node, StepNode) else None


def is_at_most_once(action: Action) -> TypeGuard[RunStep]:
    """Whether ``action`` calls a step that must not be called again when its worker dies in it."""
    node = action.place.node
    return isinstance(action, RunStep) and isinstance(node, StepNode) and node.step.semantics == "at_most_once"


class Try:
    """One try. Its own ``ctx.cancelled``: set when it is late, or when the run was taken from this worker."""

    def __init__(self, action: Action, prior: StepRecord | None, clock: Clock, lost: Flag) -> None:
        self.action = action
        self.prior = prior
        self.timeout = time_for(action)
        self.began_at: datetime | None = None
        self._ended_at: datetime | None = None
        self._clock = clock
        self._lost = lost

    def watched(self, perform: Callable[[], StepEvent]) -> CameTo:
        """What comes of ``perform``."""
        self.began_at = self._clock.now()
        try:
            return perform()
        except LateSignal:
            return None
        except Halted as halted:
            return halted
        finally:
            self._ended_at = self._clock.now()

    async def watched_async(self, performing: Coroutine[Any, Any, StepEvent]) -> CameTo:
        """The same for a coroutine."""
        self.began_at = self._clock.now()
        try:
            return await performing
        except LateSignal:
            return None
        except Halted as halted:
            return halted
        finally:
            self._ended_at = self._clock.now()

    def may_end_late_at(self) -> datetime:
        """The earliest instant at which it can be late. One that waits for a thread has not begun to use its time."""
        assert self.timeout is not None
        return (self.began_at or self._clock.now()) + self.timeout

    def is_late(self) -> bool:
        """Whether it ended after its deadline or is still at work then."""
        if self.timeout is None or self.began_at is None:
            return False
        return (self._ended_at or self._clock.now()) >= self.began_at + self.timeout

    def is_overdue(self) -> bool:
        """Whether it is late and has not come back."""
        return self._ended_at is None and self.is_late()

    def remaining(self, worker: timedelta) -> timedelta:
        """How long it may still take in a worker that has ``worker`` left."""
        if self.timeout is None:
            return worker
        return min(worker, self.may_end_late_at() - self._clock.now())

    def is_set(self) -> bool:
        """See ``Flag.is_set``."""
        return self.is_late() or self._lost.is_set()

    def heed(self) -> None:
        """Let a try that is late do nothing more. Raises: LateSignal."""
        if self.is_late():
            raise LateSignal
