"""An answer that came before its question, as a record: which step it is for, until when, and whether it was taken.

Pure. It lies beside the records of the run's own scope, wherever the step stands, so that it is loaded with every one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from flowcore.core.admit import Resume
from flowcore.core.evolve import answers_of, kept
from flowcore.errors import IdempotencyKeyReused, NotSuspended, RequestError
from flowcore.keys import StepKey, dotted, early_key, is_early
from flowcore.model import Json, Receipt, Snapshot, StepRecord
from flowcore.parcels import replace

MOST_EARLY = 20
"""Answers that wait for their step, in one run."""
MOST_EVER = 200
"""Those that were taken, or that nobody has asked for in time, as well: every load reads them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Early:
    """One answer that is kept."""

    step: StepKey
    data: Json
    resume: Resume
    at: datetime
    until: datetime

    @property
    def name(self) -> str:
        """Under which a copy is known: the caller's key, or one made of what was said, by whom, to which step."""
        resume = self.resume
        said = f"{self.step}\n{resume.digest}\n{resume.by}\n{resume.via}"
        return resume.idempotency_key or f"early-{sha256(said.encode()).hexdigest()[:24]}"

    @property
    def receipt(self) -> Receipt:
        """What whoever sent it is told."""
        return Receipt(
            verdict="buffered",
            wait="",
            at=self.at,
            by=self.resume.by,
            via=self.resume.via,
            step=dotted(self.step),
            idempotency_key=self.resume.idempotency_key,
        )


def early_record(snapshot: Snapshot, early: Early) -> StepRecord:
    """The record that keeps it; the same for every copy, until its time is over and it is kept anew."""
    resume = early.resume
    said = {
        "step": early.step,
        "data": early.data,
        "digest": resume.digest,
        "by": resume.by,
        "via": resume.via,
        "key": resume.idempotency_key,
        "context": dict(resume.request_context),
        "tries": resume.retry_count,
    }
    before = sum(one.name == early.name for one in of_snapshot(snapshot))
    name = sha256("\n".join([early.step, early.name, *([str(before)] if before else [])]).encode()).hexdigest()[:24]
    return replace(kept(snapshot, early_key(early.step, name), said, early.at), until=early.until)


def judged(snapshot: Snapshot, early: Early, open_steps: Sequence[str] = ()) -> StepRecord | Early | RequestError:
    """The record by which an answer is kept; or what is kept already that it is a copy of; or why it is not kept.

    Args:
        snapshot: with every record of the run.
        open_steps: to be told with the refusal.
    """
    every = of_snapshot(snapshot)
    waiting = [one for one in every if one.until > early.at and not _was_taken(one, snapshot)]
    for one in every:
        if one.name != early.name or not (one in waiting or _was_taken(one, snapshot)):
            continue
        if one.resume.digest != early.resume.digest:
            return IdempotencyKeyReused(early.name)
        if one.step != early.step:
            return IdempotencyKeyReused(early.name, f"of an answer for step {dotted(one.step)!r}")
        return one
    full = len(waiting) if len(waiting) >= MOST_EARLY else len(every) if len(every) >= MOST_EVER else 0
    if full:
        run, status = snapshot.head.run.id, snapshot.head.public_status
        return NotSuspended(run, status, step=dotted(early.step), open_steps=open_steps, kept=full)
    return early_record(snapshot, early)


def unasked(snapshot: Snapshot, now: datetime) -> list[StepRecord]:
    """The records of the answers that still wait for their step."""
    found = [record for record in snapshot.records.values() if is_early(record.key)]
    return [one for one in found if (early := _read(one)).until > now and not _was_taken(early, snapshot)]


def _was_taken(early: Early, snapshot: Snapshot) -> bool:
    return is_taken(early, snapshot.records.get(early.step))


def of_snapshot(snapshot: Snapshot) -> list[Early]:
    """All that is kept, the oldest first."""
    found = [record for record in snapshot.records.values() if is_early(record.key)]
    return [_read(record) for record in sorted(found, key=lambda record: (record.at, record.key))]


def early_of(kept: Sequence[Early], record: StepRecord, now: datetime) -> list[Early]:
    """What is kept for the suspension that ``record`` is, and was not taken before."""
    return [early for early in kept if early.step == record.key and early.until > now and not is_taken(early, record)]


def is_taken(early: Early, record: StepRecord | None) -> bool:
    """Whether it has answered a suspension of its step."""
    answers = () if record is None else (*answers_of(record), *record.spent)
    return any(answer.idempotency_key == early.name for answer in answers)


def _read(record: StepRecord) -> Early:
    said = record.output
    resume = Resume(
        digest=said["digest"],
        by=said["by"],
        via=said["via"],
        idempotency_key=said["key"],
        request_context=said["context"],
        retry_count=said["tries"],
    )
    assert record.until is not None  # it is kept until then
    return Early(step=StepKey(said["step"]), data=said["data"], resume=resume, at=record.at, until=record.until)
