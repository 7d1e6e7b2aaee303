"""Several actions at once: plain functions in threads, coroutines on one event loop, outcomes in the order they come.

Threads and the loop are made when first needed, so a run that goes one step at a time has neither. asyncio is imported
here alone, and only for coroutines: it costs a cold start.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

K = TypeVar("K")
V = TypeVar("V")

MOST_THREADS = 64
"""Plain functions that run at the same time; a Lambda allows 1,024 threads for everything."""


@dataclass(frozen=True, slots=True)
class Came:
    """One outcome: ``error`` when the work itself broke down instead of giving an event."""

    key: Any
    value: Any
    error: BaseException | None


class EventLoop:
    """One asyncio loop in a thread of its own, started when first asked to wait for something."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def wait_for(self, awaitable: Any) -> Any:
        """The result of ``awaitable``, from any other thread."""
        import asyncio  # noqa: PLC0415  # a cold start without coroutines does not pay for it

        async def waiting() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(waiting(), self._running()).result()

    def start(
        self, coroutine: Coroutine[Any, Any, Any], done: Callable[[Any, BaseException | None], None]
    ) -> Future[Any]:
        """Run ``coroutine`` on the loop and call ``done`` with its result or its error; its future, to cancel it by."""
        import asyncio  # noqa: PLC0415  # a cold start without coroutines does not pay for it

        def finished(future: Future[Any]) -> None:
            error = asyncio.CancelledError() if future.cancelled() else future.exception()
            done(None if error else future.result(), error)

        future = asyncio.run_coroutine_threadsafe(coroutine, self._running())
        future.add_done_callback(finished)
        return future

    def _running(self) -> asyncio.AbstractEventLoop:
        import asyncio  # noqa: PLC0415  # a cold start without coroutines does not pay for it

        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="flowcore-loop", daemon=True).start()
            return self._loop


class Crew(Generic[K, V]):
    """Work under way for one run. Not shared between runs. Each piece has a key of its own, never used again.

    Threads are daemons: one that hangs for ever must not keep a finished script alive.
    """

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._came: queue.SimpleQueue[Came | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pending: deque[tuple[K, Callable[[], V]]] = deque()
        self._threads = 0
        self._at_work: set[K] = set()
        self._futures: dict[K, Future[Any]] = {}
        self._given_up: set[K] = set()

    def start_thread(self, key: K, work: Callable[[], V]) -> None:
        """Do ``work`` in a thread, with this thread's context variables; later, when ``MOST_THREADS`` are at work."""
        context = contextvars.copy_context()
        with self._lock:
            self._pending.append((key, lambda: context.run(work)))
        self._add_thread()

    def start_coroutine(self, key: K, coroutine: Coroutine[Any, Any, V]) -> None:
        """Run ``coroutine`` on the event loop."""
        came = self._came
        future = self._loop.start(coroutine, lambda value, error: came.put(Came(key, value, error)))
        self._futures[key] = future

    def next(self, timeout_s: float | None) -> tuple[K, V] | None:
        """The next outcome; None when ``timeout_s`` passes without one, or earlier. Raises what broke down in the work.

        What has been given up never comes.
        """
        try:
            came = self._came.get(timeout=None if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX))
        except queue.Empty:
            return None
        if came is None or came.key in self._given_up:
            return None
        self._futures.pop(came.key, None)
        if came.error is not None:
            raise came.error
        return came.key, came.value

    def wake(self) -> None:
        """Let ``next`` return at once, from whatever thread."""
        self._came.put(None)

    def give_up(self, key: K) -> None:
        """Wait no longer for this piece: a coroutine is cancelled; a thread lives on unheeded, its place is free."""
        self._given_up.add(key)
        future = self._futures.pop(key, None)
        if future is not None:
            future.cancel()
            return
        with self._lock:
            if key not in self._at_work:
                return
            self._at_work.remove(key)
            self._threads -= 1
        self._add_thread()

    def dismiss(self) -> None:
        """Let the threads go once they are done; do not wait for them, and begin nothing more."""
        with self._lock:
            self._pending.clear()

    def _add_thread(self) -> None:
        with self._lock:
            if not self._pending or self._threads >= MOST_THREADS:
                return
            self._threads += 1
        threading.Thread(target=self._work_off, name="flowcore-step", daemon=True).start()

    def _work_off(self) -> None:
        """Piece after piece, until there is none left or somebody else has taken this thread's place."""
        while True:
            with self._lock:
                if not self._pending:
                    self._threads -= 1
                    return
                key, work = self._pending.popleft()
                self._at_work.add(key)
            self._done_by(key, work)
            with self._lock:
                if key not in self._at_work:
                    return
                self._at_work.remove(key)

    def _done_by(self, key: K, work: Callable[[], V]) -> None:
        try:
            self._came.put(Came(key, work(), None))
        except BaseException as error:  # noqa: BLE001  # whoever waits for the outcome must learn of it
            self._came.put(Came(key, None, error))
