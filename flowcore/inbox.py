"""One open suspension, looked up by whoever wants to answer it: what it shows, and what it takes for an answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flowcore.answering import answerable
from flowcore.authoring.graph import EventNode, Graph
from flowcore.codec import Shape
from flowcore.core.admit import Refused, Resume, admit, open_waits
from flowcore.core.compat import conflict
from flowcore.errors import DefinitionChanged, InvariantError
from flowcore.keys import RunRef
from flowcore.model import Json, Snapshot, StepRecord, Wait, wait_id, wait_place
from flowcore.options import answer_shape

if TYPE_CHECKING:
    from flowcore.app import App


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A suspension that is open, and the type of its answers."""

    wait: Wait[Json]
    workflow_id: str
    answer: Shape[Any]


NOT_KNOWN_YET = ""
"""Nobody is called so."""


def asked(app: App, run_id: str, wait: str, *, by: str | None = NOT_KNOWN_YET) -> Asked:
    """The open suspension of that id. Reads the run, writes nothing.

    Args:
        by: who wants to answer; None: somebody without a name.
    Raises: RunNotFound; what an answer would be refused with: AlreadyResumed, NotSuspended, RunFinished,
        NotAnApprover, DefinitionChanged, WorkflowNotFound.
    """
    engine = app.engine
    graph, snapshot, record = _found(app, run_id, wait, everything=False)
    if record is None:  # it is over
        graph, snapshot, record = _found(app, run_id, wait, everything=True)
    head = snapshot.head
    if record is None or by != NOT_KNOWN_YET:
        look = Resume(wait=wait, by=by or None, digest="", via="look")
        verdict = admit(graph, snapshot, look, engine.time_of(snapshot))
        if isinstance(verdict, Refused):
            raise verdict.error
        if record is None:
            raise InvariantError(f"run {run_id!r} takes an answer to {wait!r}, which is not among its waits: {verdict}")
    node = answerable(graph, record.key, record)
    return Asked(
        wait=replace(Wait.of(head, record), doors=engine.doors(app.tenant)),
        workflow_id=head.workflow,
        answer=node.gives if isinstance(node, EventNode) else answer_shape(node, record),
    )


def _found(app: App, run_id: str, wait: str, *, everything: bool) -> tuple[Graph, Snapshot, StepRecord | None]:
    """The suspension, if it is open, and the run it is in, with those of its children alone that it may be in."""
    read = app.engine.read(RunRef(app.tenant, run_id), everything=everything, at=wait_place(wait)[0])
    graph, snapshot = app.engine.met(read)
    head = snapshot.head
    if not head.is_terminal and (reason := conflict(graph, snapshot)) is not None:
        raise DefinitionChanged(run_id, reason)
    record = next((one for one in open_waits(snapshot) if wait_id(one, head.incarnation) == wait), None)
    return graph, snapshot, record
