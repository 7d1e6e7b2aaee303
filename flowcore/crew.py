"""Several actions at once: plain functions in threads, coroutines on one event loop, outcomes in the order they come.

Threads and the loop are made when first needed, so a run that goes one step at a time has neither. asyncio is imported
here alone, and only for coroutines: it costs a cold start.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio

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

    def start(self, coroutine: Coroutine[Any, Any, Any], done: Callable[[Any, BaseException | None], None]) -> None:
        """Run ``coroutine`` on the loop and call ``done`` with its result or its error."""
        import asyncio  # noqa: PLC0415  # a cold start without coroutines does not pay for it

        future = asyncio.run_coroutine_threadsafe(coroutine, self._running())
        future.add_done_callback(lambda f: done(None, f.exception()) if f.exception() else done(f.result(), None))

    def _running(self) -> asyncio.AbstractEventLoop:
        import asyncio  # noqa: PLC0415  # a cold start without coroutines does not pay for it

        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="flowcore-loop", daemon=True).start()
            return self._loop


class Crew(Generic[K, V]):
    """Work under way for one run. Not shared between runs."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._threads: ThreadPoolExecutor | None = None
        self._came: queue.SimpleQueue[Came] = queue.SimpleQueue()

    def start_thread(self, key: K, work: Callable[[], V]) -> None:
        """Do ``work`` in a thread, with this thread's context variables."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="flowcore-step")
        context = contextvars.copy_context()
        self._threads.submit(self._done_by, key, lambda: context.run(work))

    def start_coroutine(self, key: K, coroutine: Coroutine[Any, Any, V]) -> None:
        """Run ``coroutine`` on the event loop."""
        self._loop.start(coroutine, lambda value, error: self._came.put(Came(key, value, error)))

    def next(self, timeout_s: float | None) -> tuple[K, V] | None:
        """The next outcome; None when ``timeout_s`` passes without one. Raises what broke down in the work."""
        try:
            came = self._came.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if came.error is not None:
            raise came.error
        return came.key, came.value

    def dismiss(self) -> None:
        """Let the threads go once they are done; do not wait for them."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _done_by(self, key: K, work: Callable[[], V]) -> None:
        try:
            self._came.put(Came(key, work(), None))
        except BaseException as error:  # noqa: BLE001  # whoever waits for the outcome must learn of it
            self._came.put(Came(key, None, error))
