"""Hands a vote to somebody else: the suspension is rewritten as by a vote, keeps its id, and nobody is woken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowcore import receipts
from flowcore.core.admit import Resume, meant
from flowcore.core.evolve import Delegated, evolve
from flowcore.core.receipts import delegated
from flowcore.core.seats import Turned, handing_over
from flowcore.errors import ConflictError, RequestError
from flowcore.fanout.children import child_at
from flowcore.keys import RunRef
from flowcore.model import Delegation, Receipt, Snapshot, StepRecord, wait_id
from flowcore.parcels import replace
from flowcore.ports import Written

if TYPE_CHECKING:
    from flowcore.engine import Engine

_MOST_TRIES = 20
"""Times it is decided anew because others have answered or handed over meanwhile."""


def delegate(engine: Engine, run: RunRef, resume: Resume, to: str) -> tuple[Snapshot, Receipt]:
    """Let ``to`` vote in the place of ``resume.by``, in the one suspension that ``resume`` names.

    Raises: RunNotFound, NotAnApprover, CannotDelegate, AlreadyResumed, and what a resume is refused with.
    """
    try:
        return _delegated(engine, run, resume, to)
    except RequestError as error:
        receipts.refuse(engine, run, resume, error)
        raise


def _delegated(engine: Engine, run: RunRef, resume: Resume, to: str) -> tuple[Snapshot, Receipt]:
    for _ in range(_MOST_TRIES):
        graph, snapshot = engine.loaded(run)
        record = meant(graph, snapshot, resume)
        if isinstance(record, RequestError):
            graph, snapshot = engine.loaded(run, everything=True)
            record = meant(graph, snapshot, resume)
        if isinstance(record, RequestError):
            raise record
        child = child_at(snapshot, record.key)
        if child is not None:
            there = replace(resume, step=None, label=None, index=None, wait=wait_id(record, snapshot.head.incarnation))
            return snapshot, _delegated(engine, child, there, to)[1]
        head, now = snapshot.head, engine.time_of(snapshot)
        found = handing_over(head, record, resume.by, to, now)
        if isinstance(found, Turned):
            raise found.error
        seat, before = found
        if before is not None:
            return snapshot, delegated(record, head.incarnation, before, verdict="duplicate")
        assert resume.by is not None  # whoever has no name holds no seat
        delegation = Delegation(seat=seat, by=resume.by, to=to, at=now, via=resume.via)
        after = evolve(snapshot, Delegated(key=record.key, delegation=delegation, choice=_choice(record)), now)
        prior = snapshot.records[record.key]
        written = engine.store.commit(run, head.incarnation, after.records[record.key], prior)
        if isinstance(written, Written):
            return after, delegated(record, head.incarnation, delegation)
    raise ConflictError(f"Run {run.id!r} moved {_MOST_TRIES} times while a vote was handed over. Try again.")


def _choice(record: StepRecord) -> str | None:
    """The alternative that a suspension is, if it is one of several."""
    return record.alternatives[0].name if record.alternatives else None
