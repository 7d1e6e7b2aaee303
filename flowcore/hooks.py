"""Calls the hooks of a run: what its author wants done when it begins, suspends or ends. Nested workflows' are not.

The write that makes an outcome puts the hooks it calls for into the head's outbox, and whoever wrote it calls them.
``due`` is the lease on that: a hint that comes earlier finds nothing to do, and the first one after it takes the
outbox over, by a conditional write that one of several racing workers wins. Emptying the outbox is the last write. So
each hook is called once per outcome, and again only where a worker died or lost the store before that write.
"""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from flowcore.authoring.graph import Graph
from flowcore.core import heads, view
from flowcore.core.evolve import fold
from flowcore.core.rename import as_met
from flowcore.errors import BlobLost, ConflictError, OutsideError
from flowcore.fanout.children import cancel_children
from flowcore.keys import RunRef, is_once
from flowcore.model import Head, Json, Snapshot
from flowcore.parcels import replace
from flowcore.ports import Written
from flowcore.results import RunResult, result_of

if TYPE_CHECKING:
    from flowcore.engine import Engine

_LOGGER = logging.getLogger("flowcore.hooks")

_TELLING: ContextVar[tuple[RunRef, int] | None] = ContextVar("flowcore telling", default=None)
"""Of whose end a hook is being told here, and at which version of its head; also where the hook is a coroutine."""

SHORTEST = timedelta(minutes=1)
"""How long a caller of hooks is waited for at least: a process may outlive the deadline of ``start(wait=...)``."""


MOST_TELLERS = 2
"""Workers who have taken over the hooks of an end that others did not come back from: no new life waits for more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRecord:
    """A run that is about to begin, as ``on_start`` sees it.

    Example:
        >>> from flowcore.hooks import StartRecord
        >>> StartRecord(run_id="r-1", workflow_id="refund", input=7).resource_id is None
        True
    """

    run_id: str
    workflow_id: str
    input: Any
    """As the first step gets it: validated and of the declared type."""
    resource_id: str | None = None
    state: Mapping[str, Json] = field(default_factory=dict)
    request_context: Mapping[str, Json] = field(default_factory=dict)


def begin(engine: Engine, graph: Graph, head: Head) -> None:
    """Call ``on_start`` for a run that is not written yet. Raises: whatever it raises."""
    if graph.hooks.on_start is not None:
        record = StartRecord(
            run_id=head.run.id,
            workflow_id=head.workflow,
            input=graph.takes.decode(head.input),
            resource_id=head.resource_id,
            state=head.state,
            request_context=head.request_context,
        )
        _call(engine, graph.hooks.on_start, record)


def lease(engine: Engine, now: datetime, deadline: datetime | None) -> datetime:
    """When whoever calls hooks from ``now`` on is given up."""
    return max(engine.lease_until(now, deadline), now + SHORTEST)


def take_over(engine: Engine, head: Head, deadline: datetime | None) -> Head:
    """Call the hooks that ``head`` owes, if their lease is over and nobody else takes them over at the same time."""
    now, graph = engine.clock.now(), engine.graphs.get(head.workflow)
    if not head.outbox or head.due is None or head.due > now:
        return head
    taken = heads.taken_up(head, lease(engine, now, deadline))
    if not isinstance(engine.store.move(taken, version=head.version), Written):
        return head
    if graph is None:  # looked at again later on, and no sign until then that workers do not come
        _LOGGER.warning("hooks of a workflow that is not served here", extra=_extra(head))
        return taken
    loaded = engine.store.load(taken.run, taken, everything=True)
    return taken if loaded is None else tell(engine, graph, fold(taken, loaded[1].values())).head


def told_first(engine: Engine, head: Head, *, here: bool, deadline: datetime | None) -> Head:
    """The head of a run that a new life takes the place of, once those have been told who are to hear how it ended.

    A suspension is no end: what is asked anew is told anew. Where one worker after the other has failed to tell them
    the new life begins all the same; it may be the cure. So it does where the hook that is being told asks for it.

    Args:
        here: call the hooks in this process, if it is somebody's turn; otherwise a worker is asked to.
    Raises: ConflictError while somebody else may be calling them.
    """
    owed = [name for name in head.outbox if name != heads.CHILDREN]
    if not head.is_terminal or not owed or _TELLING.get() == (head.run, head.version):
        return head
    tried = take_over(engine, head, deadline) if here else head
    if tried is head:
        if head.attempts >= MOST_TELLERS:
            return head
        if head.due is not None and head.due <= engine.clock.now():
            engine.hints.send(head.run, at=engine.clock.now(), version=head.version)
        raise ConflictError(f"Run {head.run.id!r} has ended, and {', '.join(owed)} has to be called first. Try again.")
    return tried


def tell(engine: Engine, graph: Graph, snapshot: Snapshot) -> Snapshot:
    """Call the hooks that a run owes and that this worker has taken; then owe them no more."""
    head = snapshot.head
    if head.due is None or head.due <= engine.clock.now():
        return snapshot  # frozen for so long that somebody else may have taken over
    for name in head.outbox:
        if name == heads.CHILDREN:
            cancel_children(engine, head)
            continue
        hook = getattr(graph.hooks, name)
        try:
            result = None if hook is None else _result(engine, graph, snapshot)
        except (BlobLost, OutsideError) as error:
            _LOGGER.warning("hooks will be called again", extra={**_extra(head), "error": str(error)})
            return snapshot
        try:
            if hook is not None:
                with _telling(head):
                    _call(engine, hook, result)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever it is, the outcome stands
            frames = "".join(traceback.format_tb(error.__traceback__))
            seen = {"hook": name, "error_type": type(error).__name__, "stack": frames}
            _LOGGER.error("a hook failed", extra={**_extra(head), **seen})  # noqa: TRY400  # its message is payload
    told = heads.told(head, last_of(graph, snapshot) if "on_suspend" in head.outbox else None)
    try:
        written = engine.store.move(told, version=head.version)
    except OutsideError as error:
        _LOGGER.warning("hooks will be called again", extra={**_extra(head), "error": str(error)})
        return snapshot
    return snapshot.with_head(told) if isinstance(written, Written) else snapshot


def last_of(graph: Graph, snapshot: Snapshot) -> int | None:
    """The number of the last thing that has happened in a run; None where no suspension is told of, or it has children.

    These do not tell the run of all that happens in them. What was only noted beside the steps does not count: who was
    reminded, how far a step is, what came early.
    """
    if graph.hooks.on_suspend is None or snapshot.fans:
        return None
    return max((record.seq for key, record in snapshot.records.items() if not is_once(key)), default=0)


@contextmanager
def _telling(head: Head) -> Iterator[None]:
    token = _TELLING.set((head.run, head.version))
    try:
        yield
    finally:
        _TELLING.reset(token)


def _result(engine: Engine, graph: Graph, snapshot: Snapshot) -> RunResult[Any]:
    """The run at this very outcome, finished containers included."""
    if graph.fans_out:
        return result_of(graph, replace(engine.read(snapshot.head.run), head=snapshot.head))
    if view.has_unloaded(snapshot, graph):
        whole = engine.store.load(snapshot.head.run, snapshot.head, everything=True)
        snapshot = snapshot if whole is None else fold(snapshot.head, whole[1].values())
    return result_of(*as_met(graph, snapshot), engine.doors(snapshot.head.run.tenant))


def _call(engine: Engine, hook: Callable[[Any], Any], argument: object) -> None:
    came = hook(argument)
    if inspect.isawaitable(came):
        engine.loop.wait_for(came)


def _extra(head: Head) -> dict[str, str]:
    return {"run_id": head.run.id, "workflow_id": head.workflow}
