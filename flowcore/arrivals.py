"""Answers as they arrive: in a message, or before anybody asks, and then kept until the step that is named suspends.

Whoever answers keeps the answer first and touches the head afterwards; a worker, before it parks the run, looks at what
is kept among the records it has loaded. It has loaded them after the touch, or its release is refused and it loads
again: so one of the two sees the other, and a run that nobody answers early costs nothing for it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from flowcore import receipts
from flowcore.answering import fitting, take
from flowcore.authoring.graph import EventNode, ForeachNode, Graph, LoopNode, StepNode
from flowcore.core import heads
from flowcore.core.admit import Resume, is_abandoned, open_waits
from flowcore.core.early import Early, early_of, judged, of_snapshot
from flowcore.core.receipts import refused, repeated
from flowcore.errors import (
    AlreadyResumed,
    CapacityError,
    ConflictError,
    DefinitionChanged,
    NotSuspended,
    RequestError,
    RunFinished,
    RunNotFound,
    WorkflowNotFound,
)
from flowcore.keys import RunRef, StepKey
from flowcore.model import Json, Receipt, RunStatus, Snapshot, wait_id, wait_whole
from flowcore.ports import Written

if TYPE_CHECKING:
    from flowcore.engine import Engine

_LOGGER = logging.getLogger("flowcore.arrivals")

LONGEST_KEEP = timedelta(days=365)
"""How long an answer may be kept for a step that does not ask yet."""

_MOST_TRIES = 20
"""Times the head is touched anew because it moved; each time somebody else made progress."""


def keep(
    engine: Engine,
    run: RunRef,
    data: Json,
    resume: Resume,
    keep_for: timedelta,
    *,
    here: bool,
    deadline: datetime | None = None,
) -> tuple[Snapshot, Receipt]:
    """As ``answering.take``; where the step that is named waits for nobody yet, the answer is kept until it does.

    A copy of one that is kept, or was taken, is told so; one whose time is over is kept anew.

    Raises: as ``answering.take``. NotSuspended also where the answer cannot be kept: no step is named by its whole
        dotted id, it is over, it stands in a loop or a foreach, or very many answers are kept for this run already.
        IdempotencyKeyReused also where an answer with other data, or for another step, is kept under that key.
    """
    verdict: Literal["buffered", "duplicate"] = "duplicate"
    for _ in range(_MOST_TRIES):
        try:
            return take(engine, run, data, resume, here=here, deadline=deadline)
        except (RunFinished, AlreadyResumed):
            raise
        except NotSuspended as error:
            graph, snapshot = engine.loaded(run, everything=True)
            key = _place(graph, snapshot, resume)
            if key is None:
                raise
            open_steps = error.open_steps
        now = engine.time_of(snapshot)
        early = Early(step=key, data=fitting(graph, key, data), resume=resume, at=now, until=now + keep_for)
        match judged(snapshot, early, open_steps):
            case RequestError() as refusal:
                raise refusal
            case Early() as standing:
                early = standing
            case record:
                if not isinstance(engine.store.commit(run, snapshot.head.incarnation, record, None), Written):
                    continue  # a copy, or another answer of that key, was faster
                verdict = "buffered"
        seen = _touched(engine, run, snapshot.head.incarnation, here=here, deadline=deadline)
        if seen is not None:
            return seen, replace(early.receipt, verdict=verdict)
    raise ConflictError(f"Run {run.id!r} moved {_MOST_TRIES} times while an answer was kept for it. Try again.")


def arrive(
    engine: Engine,
    run: RunRef,
    data: Json,
    resume: Resume,
    *,
    keep_for: timedelta = timedelta(days=7),
    here: bool = False,
    deadline: datetime | None = None,
) -> Receipt:
    """Take an answer that came as a message: its receipt is stored when this returns, whatever it says.

    So the message may be acknowledged: another delivery of it would be told the same. One that comes before its step
    asks is kept for so long (``keep_for``) and taken then.

    Raises: RunNotFound, DefinitionChanged and WorkflowNotFound, which a start or a deploy may cure: deliver it again,
        as with every error that is ``retryable``.
    """
    try:
        receipt = keep(engine, run, data, resume, keep_for, here=here, deadline=deadline)[1]
    except (RunNotFound, DefinitionChanged, WorkflowNotFound):
        raise
    except (RequestError, CapacityError) as error:
        head = engine.peek(run)
        receipt = refused(resume, error, receipts.time_of(engine, head))
        receipts.keep(engine, head, receipt, resume.digest)
    else:
        if receipt.verdict == "duplicate":
            head = engine.peek(run)
            copy = repeated(receipt, resume, receipts.time_of(engine, head))
            receipts.keep(engine, head, copy, resume.digest)
    return receipt


def has_come(engine: Engine, snapshot: Snapshot) -> bool:
    """Whether something is kept for an open wait of a run that this worker is about to park."""
    return any(_kept_for_waits(engine, snapshot))


def look_back(engine: Engine, snapshot: Snapshot) -> bool:
    """Take what was kept for the open waits of a run that this worker is about to park; whether anything has moved.

    The waits are stored: it is judged like any answer, by what others see of the run.
    """
    for wait, early in _kept_for_waits(engine, snapshot):
        resume = replace(early.resume, step=None, wait=wait, idempotency_key=early.name)
        try:
            _, told = take(engine, snapshot.head.run, early.data, resume, here=False)
        except (RequestError, CapacityError) as error:
            _LOGGER.warning("an answer that was kept cannot be taken", extra={"wait": wait, "code": error.code})
            receipts.refuse(engine, snapshot.head.run, resume, error)
            continue
        if told.verdict != "duplicate":  # which writes nothing: whoever parks the run would look again for ever
            return True
    return False


def _kept_for_waits(engine: Engine, snapshot: Snapshot) -> Iterator[tuple[str, Early]]:
    """What is kept, with the id of the suspension that it is for.

    Of one that waits for several things that is the id of the whole: an answer kept for its step says for none of them.
    """
    kept = of_snapshot(snapshot)
    if not kept:
        return
    now = engine.time_of(snapshot)
    suspensions = {wait_whole(wait_id(record, snapshot.head.incarnation)): record for record in open_waits(snapshot)}
    for whole, record in suspensions.items():
        is_one_of_several = len(snapshot.records[record.key].alternatives) > 1
        wait = whole if is_one_of_several else wait_id(record, snapshot.head.incarnation)
        yield from ((wait, early) for early in early_of(kept, record, now))


def _place(graph: Graph, snapshot: Snapshot, resume: Resume) -> StepKey | None:
    """Where the step stands that is to wait some day; None where that is not certain."""
    if resume.step is None or resume.label is not None or resume.wait is not None or resume.index is not None:
        return None
    ids = graph.called_here(resume.step).split(".")
    around = [graph.find(".".join(ids[:length])) for length in range(1, len(ids) + 1)]
    if not isinstance(around[-1], (StepNode, EventNode)) or any(isinstance(n, (LoopNode, ForeachNode)) for n in around):
        return None
    key = StepKey("/".join(ids))
    record = snapshot.records.get(key)
    is_over = (record is not None and record.is_settled) or is_abandoned(snapshot, key)
    return None if is_over else key


def _touched(
    engine: Engine, run: RunRef, incarnation: int, *, here: bool, deadline: datetime | None
) -> Snapshot | None:
    """Have whoever drives the run load it again, or a worker look at it, who will; the run as it stands then.

    None where it has begun another life, which may know nothing of what was kept in this one.

    Raises: RunNotFound, RunFinished.
    """
    for _ in range(_MOST_TRIES):
        snapshot = engine.read(run, everything=False)
        head = snapshot.head
        if head.is_terminal:
            raise RunFinished(run.id, head.public_status)
        if head.incarnation != incarnation:
            return None
        moved = heads.queued(head, engine.time_of(snapshot))
        if isinstance(engine.store.move(moved, version=head.version), Written):
            is_idle = moved.status is RunStatus.QUEUED
            return engine.looked_at(moved, here=here, deadline=deadline) if is_idle else engine.read(run)
    raise ConflictError(f"Run {run.id!r} moved {_MOST_TRIES} times while an answer was kept for it. Try again.")
