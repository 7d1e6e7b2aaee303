"""All sandboxes of one function: warm ones are used again, new ones are started up to a limit.

Owns which sandbox takes an event. After ``recycle`` every sandbox of before is replaced: an idle one at once, a busy
one when it is done, so that a change of the environment never cuts an invocation.
"""

import threading
import time
from collections.abc import Callable
from datetime import timedelta

from infra.local.outcomes import Outcome, Raised, Returned, Throttled
from infra.local.runtime_api import Sandbox


class FunctionPool:
    """Runs events of one function, at most ``limit`` at a time."""

    def __init__(self, make_sandbox: Callable[[], Sandbox], *, limit: int) -> None:
        self._make_sandbox = make_sandbox
        self._limit = limit
        self._generation = 0
        self._idle: list[Sandbox] = []
        self._busy: dict[Sandbox, int] = {}
        self._changed = threading.Condition()
        self._closed = False
        self.cold_starts = 0

    @property
    def busy(self) -> int:
        """Invocations under way."""
        with self._changed:
            return len(self._busy)

    def invoke(self, event: bytes, *, patience: timedelta = timedelta(seconds=60)) -> Outcome:
        """Run one event, waiting up to ``patience`` for a sandbox."""
        sandbox = self._take(time.monotonic() + patience.total_seconds())
        if sandbox is None:
            return Throttled()
        usable = False
        try:
            outcome = sandbox.invoke(event)
            usable = isinstance(outcome, Returned | Raised) and sandbox.pid is not None
            return outcome
        finally:
            self._give_back(sandbox, usable=usable)

    def kill(self, signal_number: int) -> int | None:
        """Signal one process, the one longest at work before any idle one; its pid, or None when there is none."""
        with self._changed:
            candidates = [*self._busy, *self._idle]
        for sandbox in candidates:
            pid = sandbox.pid
            if pid is not None and sandbox.kill(signal_number):
                return pid
        return None

    def pids(self) -> list[int]:
        """All processes alive now."""
        with self._changed:
            return [pid for sandbox in (*self._busy, *self._idle) if (pid := sandbox.pid) is not None]

    def pids_at_work(self) -> list[int]:
        """Processes in the middle of an invocation."""
        with self._changed:
            return [pid for sandbox in self._busy if sandbox.is_at_work and (pid := sandbox.pid) is not None]

    def recycle(self) -> None:
        """Replace every sandbox; the next ones are made anew and so see a new environment."""
        with self._changed:
            self._generation += 1
            old, self._idle = self._idle, []
        for sandbox in old:
            sandbox.close()

    def close(self) -> None:
        """End every process, busy ones too."""
        with self._changed:
            self._closed = True
            old = [*self._idle, *self._busy]
            self._idle = []
            self._changed.notify_all()
        for sandbox in old:
            sandbox.close()

    def _take(self, until: float) -> Sandbox | None:
        with self._changed:
            while not self._closed:
                if self._idle:
                    sandbox = self._idle.pop()
                elif len(self._busy) < self._limit:
                    sandbox = self._make_sandbox()
                    self.cold_starts += 1
                elif (left := until - time.monotonic()) > 0:
                    self._changed.wait(left)
                    continue
                else:
                    return None
                self._busy[sandbox] = self._generation
                return sandbox
            return None

    def _give_back(self, sandbox: Sandbox, *, usable: bool) -> None:
        with self._changed:
            generation = self._busy.pop(sandbox)
            keep = usable and generation == self._generation and not self._closed
            if keep:
                self._idle.append(sandbox)
            self._changed.notify()
        if not keep:
            sandbox.close()
