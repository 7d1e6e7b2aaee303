"""Keeps the receipts that no record tells, and reads all of a run's: what came, when, from whom, what became of it.

An answer that counted is told by the run's own records, so the ordinary path writes nothing more. What changed nothing
(a copy, an answer too late or not fit) is written beside the run: once, then counted, in a bounded number of places.
What a record is about to forget is written down first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from flowcore.core.admit import Resume
from flowcore.core.receipts import in_order, of_record, of_run, refused, repeated, slot_of, slots_for
from flowcore.errors import CapacityError, FlowcoreError, RequestError, RunNotFound
from flowcore.keys import RunRef
from flowcore.model import Head, Receipt, StepRecord
from flowcore.parcels import replace

if TYPE_CHECKING:
    from flowcore.engine import Engine

_LOGGER = logging.getLogger("flowcore.receipts")


def of(engine: Engine, run: RunRef) -> list[Receipt]:
    """Every receipt of a run, the newest last. Raises: RunNotFound."""
    snapshot = engine.read(run, which="few")  # also votes in children of which a result shows nothing yet
    return in_order([*engine.store.notes(run, snapshot.head.created_at), *of_run(snapshot)])


def refuse(engine: Engine, run: RunRef, resume: Resume, error: RequestError | CapacityError) -> None:
    """Keep the receipt of an answer that was not taken, if that can be done; its sender is told the error anyway."""
    if isinstance(error, RunNotFound):
        return
    try:
        head = engine.peek(run)
        keep(engine, head, refused(resume, error, time_of(engine, head)), resume.digest)
    except FlowcoreError as lost:
        _lost(run, error.code, lost)


def repeat(engine: Engine, head: Head, resume: Resume, first: Receipt) -> None:
    """Keep the receipt of a copy of an answer, if that can be done."""
    try:
        keep(engine, head, repeated(first, resume, time_of(engine, head)), resume.digest)
    except FlowcoreError as lost:
        _lost(head.run, first.verdict, lost)


def remember(engine: Engine, head: Head, records: Iterable[StepRecord]) -> None:
    """Write down what records tell of answers that counted, before they forget it. Raises: OutsideError.

    Answers to earlier suspensions of a place were written down when it suspended again.
    """
    for record in records:
        for receipt in of_record(replace(record, spent=()), head.incarnation):
            slot = slot_of(receipt)
            engine.store.note(head.run, head.created_at, slot.name, slot.id, receipt)


def keep(engine: Engine, head: Head, receipt: Receipt, digest: str) -> None:
    """Keep a receipt that no record tells. Raises: OutsideError."""
    slots = slots_for(receipt, digest)
    any(engine.store.note(head.run, head.created_at, slot.name, slot.id, receipt) for slot in slots)


def time_of(engine: Engine, head: Head) -> datetime:
    """The run's own time."""
    return max(engine.clock.now(), head.updated_at)


def _lost(run: RunRef, what: str, error: FlowcoreError) -> None:
    _LOGGER.warning("a receipt is lost", extra={"run_id": run.id, "receipt": what, "error_type": type(error).__name__})
