"""What an operator does to a run: restart, pause and unpause it, unblock it, travel in time, fork it.

Each reads the run as it stands, and writes what is wanted on condition that nobody wrote meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from flowcore import receipts
from flowcore.authoring.graph import Graph
from flowcore.core import heads
from flowcore.core.admit import open_waits
from flowcore.core.compat import conflict
from flowcore.core.early import unasked
from flowcore.core.receipts import of_run
from flowcore.core.rewind import Given, rewound
from flowcore.errors import ConflictError, DefinitionChanged, NotActive, NotBlocked, RunExists, StillRunning
from flowcore.fanout.children import cancel_children, open_children, take_up_children
from flowcore.hooks import told_first
from flowcore.keys import RunRef, is_early
from flowcore.model import Head, Json, Outcome, Receipt, RunStatus, Snapshot, StepRecord, wait_id
from flowcore.parcels import replace
from flowcore.pmap import PMap
from flowcore.ports import Written
from flowcore.redrive import as_of_today, begin_life, listen, taken, unlisten
from flowcore.renewal import renewed_where_possible

if TYPE_CHECKING:
    from flowcore.engine import Engine

_MOST_TRIES = 20
"""Times a run is paused anew because its head moved meanwhile; each time somebody else made progress."""


def restart(engine: Engine, run: RunRef, *, here: bool, deadline: datetime | None = None) -> Snapshot:
    """Have a run under way driven anew, from where its records stand; a worker that still lives is fenced off.

    An ended run is given back as it stands. Raises: RunNotFound; NotActive when it waits for an answer.
    """
    snapshot = engine.as_it_stands(run)
    head, now = snapshot.head, engine.time_of(snapshot)
    if head.is_terminal:
        return snapshot
    if head.status in (RunStatus.SUSPENDED, RunStatus.PAUSED):
        raise NotActive(run.id, head.public_status, "restarted")
    moved = heads.taken_away(head, now) if head.status is RunStatus.RUNNING else heads.requeued(head, now)
    _moved_to(engine, moved, version=head.version)
    return engine.looked_at(moved, here=here, deadline=deadline)


def pause(engine: Engine, run: RunRef) -> Head:
    """Stop a run until it is unpaused; answers that come meanwhile are stored. Raises: RunNotFound, NotActive."""
    for _ in range(_MOST_TRIES):
        snapshot = engine.as_it_stands(run, everything=False)
        head = snapshot.head
        if head.is_terminal or head.status in (RunStatus.PAUSED, RunStatus.BLOCKED):
            raise NotActive(run.id, head.public_status, "paused")
        moved = heads.paused(head, engine.time_of(snapshot))
        if isinstance(engine.store.move(moved, version=head.version), Written):
            return moved
    raise ConflictError(f"Run {run.id!r} moved {_MOST_TRIES} times while it was being paused. Try again.")


def unpause(
    engine: Engine, run: RunRef, *, here: bool, deadline: datetime | None = None, per_step: bool = False
) -> Snapshot:
    """Let a paused or blocked run go on. Raises: RunNotFound, NotActive."""
    snapshot = engine.as_it_stands(run, everything=False)
    head = snapshot.head
    if head.status not in (RunStatus.PAUSED, RunStatus.BLOCKED):
        raise NotActive(run.id, head.public_status, "unpaused", wanted="paused")
    moved = heads.requeued(head, engine.time_of(snapshot))
    _moved_to(engine, moved, version=head.version)
    take_up_children(engine, moved, here=here, deadline=deadline)
    return engine.looked_at(moved, here=here, deadline=deadline, per_step=per_step)


def unblock(engine: Engine, run: RunRef, *, here: bool, deadline: datetime | None = None) -> Snapshot:
    """Have a blocked run judged anew, by the code of whoever takes it up, and its children that are blocked.

    Raises: RunNotFound, NotBlocked.
    """
    snapshot = engine.read(run, everything=False)
    head = snapshot.head
    if head.status is RunStatus.BLOCKED:  # first: children of a run that stands still do not go on
        head = heads.requeued(head, engine.time_of(snapshot))
        _moved_to(engine, head, version=snapshot.head.version)
    has_children = take_up_children(engine, head, here=here, deadline=deadline) > 0
    if head is snapshot.head and not has_children:
        raise NotBlocked(run.id, head.public_status)
    return engine.looked_at(head, here=here, deadline=deadline)


def time_travel(
    engine: Engine,
    run: RunRef,
    step: str,
    *,
    given: Given | None,
    outputs: Mapping[str, Json],
    here: bool,
    deadline: datetime | None = None,
    per_step: bool = False,
) -> Snapshot:
    """Begin the run anew at ``step``, in a new incarnation with suspensions of its own.

    Answers that came early and wait for their step go on waiting. Just before the head tells of the new life it is
    looked whether anybody was heard since the run was read: a vote, and an answer to a child, move no head of the run.
    One that is written between this look and the head is lost with the old life.

    Raises: RunNotFound, PartOfRun, StillRunning, UnknownStep, NotRecorded, InvalidPayload, DefinitionChanged;
        ConflictError when the run has moved meanwhile, or its end has to be told first. It is as it was then.
    """
    seen = snapshot = engine.read(run, which="unfinished")
    head, now = engine.whole_run(snapshot.head), engine.time_of(snapshot)
    _refuse_driven(engine, head, now)
    graph, snapshot = engine.met(snapshot)
    step, outputs = _called_here(graph, step, outputs)
    given, snapshot = _accepted(graph, step, given), renewed_where_possible(graph, snapshot)
    records = rewound(graph, snapshot, step, given=given, outputs=outputs, now=now, taking=taken)
    records += [early for early in unasked(snapshot, now) if early.key not in {record.key for record in records}]
    _refuse_unfit(graph, snapshot, records)
    head = told_first(engine, head, here=here, deadline=deadline)
    moved = heads.reborn(head, now, engine.next_life(head))
    receipts.remember(engine, head, snapshot.records.values())
    if not begin_life(engine, snapshot.with_head(moved), records):
        raise _moved_meanwhile(run)
    try:
        _refuse_heard(engine, graph, seen, now)
        _moved_to(engine, moved, version=head.version)
    except (ConflictError, StillRunning):
        unlisten(engine, moved, records)
        raise
    if graph.fans_out or engine.may_have_had_children(head):
        # No other life names them again. Whoever dies here leaves children that nobody listens to.
        cancel_children(engine, head)
    return engine.looked_at(moved, here=here, deadline=deadline, per_step=per_step)


def fork(
    engine: Engine,
    run: RunRef,
    new: RunRef,
    step: str,
    *,
    given: Given | None,
    outputs: Mapping[str, Json],
    here: bool,
    deadline: datetime | None = None,
) -> Snapshot:
    """Begin a new run with the records that stand in front of ``step`` in another; the other is left alone.

    Raises: RunNotFound, PartOfRun, RunExists, UnknownStep, NotRecorded, InvalidPayload, DefinitionChanged.
    """
    snapshot = engine.read(run, which="unfinished")
    engine.whole_run(snapshot.head)
    (graph, snapshot), now = engine.met(snapshot), engine.time_of(snapshot)
    step, outputs = _called_here(graph, step, outputs)
    given, snapshot = _accepted(graph, step, given), renewed_where_possible(graph, snapshot)
    kept = rewound(graph, snapshot, step, given=given, outputs=outputs, now=now, taking=taken)
    records = [record for record in kept if not is_early(record.key)]  # whoever gave those gave them to the other run
    _refuse_unfit(graph, snapshot, records)
    # A life of its own, so that what it brings to children is told from what an earlier run of its id has left.
    born = replace(heads.reborn(snapshot.head, now, engine.next_life(snapshot.head)), effects=1)
    head = replace(born, run=new, created_at=now, version=1, epoch=0)
    standing = engine.store.peek(new)
    if standing is not None:
        if not standing.is_expired(engine.clock.now()):
            raise RunExists(new.id, head.workflow)
        engine.remove(standing)
    if not begin_life(engine, snapshot.with_head(head), records):
        raise _moved_meanwhile(new)
    if engine.store.start(head) is not None:
        unlisten(engine, head, records)
        raise RunExists(new.id, head.workflow)
    listen(engine, head, records)  # again: an event that met them before there was a run took them for left behind
    return engine.looked_at(head, here=here, deadline=deadline)


def _accepted(graph: Graph, step: str, given: Given | None) -> Given | None:
    """The input given to a step, checked against its type."""
    node = graph.find(step)
    if given is None or node is None:
        return given
    return Given(node.takes.accept(f"input of step {step!r}", given.value))


def _refuse_unfit(graph: Graph, snapshot: Snapshot, records: Iterable[StepRecord]) -> None:
    """Raises: DefinitionChanged when the code at hand does not fit what a new life of the run begins with.

    That life goes on as having met no other definition than the one before: steps that were inserted are skipped in it.
    """
    beginning = replace(snapshot, records=PMap({record.key: record for record in records}))
    if (reason := conflict(graph, beginning)) is not None:
        raise DefinitionChanged(snapshot.head.run.id, reason)
    as_of_today(graph, beginning)


def _moved_to(engine: Engine, moved: Head, *, version: int) -> None:
    """Write the head an operator wants, if nobody wrote meanwhile. Raises: ConflictError."""
    if not isinstance(engine.store.move(moved, version=version), Written):
        raise _moved_meanwhile(moved.run)


def _moved_meanwhile(run: RunRef) -> ConflictError:
    return ConflictError(f"Run {run.id!r} moved meanwhile. Look at it again and repeat what you asked for.")


def _refuse_driven(engine: Engine, head: Head, now: datetime) -> None:
    """Raises: StillRunning when a worker holds the run, or a child of it: it would do what a new life does as well."""
    graph = engine.graphs.get(head.workflow)
    for one in (head, *(open_children(engine, head) if graph is not None and graph.fans_out else ())):
        if one.status is RunStatus.RUNNING and one.lease_until is not None and one.lease_until > now:
            raise StillRunning(head.run.id, "travel in time")


def _refuse_heard(engine: Engine, graph: Graph, seen: Snapshot, now: datetime) -> None:
    """Raises: ConflictError when anybody was heard in the run since it was ``seen``; StillRunning as above.

    What moves the head of the run itself is left to the condition of whoever writes that.
    """
    if seen.head.is_terminal or not (graph.fans_out or open_waits(seen)):
        return
    _refuse_driven(engine, seen.head, now)
    if _heard(engine.read(seen.head.run, which="unfinished")) != _heard(seen):
        raise _moved_meanwhile(seen.head.run)


def _heard(snapshot: Snapshot) -> tuple[list[Receipt], list[str]]:
    """Everybody who was heard in a run and its children, and which suspensions go on waiting."""
    records, incarnation = snapshot.records.values(), snapshot.head.incarnation
    waits = [wait_id(record, incarnation) for record in records if record.outcome is Outcome.SUSP]
    return of_run(snapshot), sorted(waits)


def _called_here(graph: Graph, step: str, outputs: Mapping[str, Json]) -> tuple[str, Mapping[str, Json]]:
    """What a caller names by dotted id, under the names by which the run knows it."""
    return graph.called_here(step), {graph.called_here(id): output for id, output in outputs.items()}
