"""What became of each arrival at a run: told by its records where an answer counted, and made here where none did.

Pure. A receipt that no record tells has to be kept beside the run; ``slots_for`` says where, so that whoever sends
whatever he likes fills a bounded number of places, and whatever comes again is counted and not listed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256

from flowcore.core.admit import Resume, lapse_of, receipt_of
from flowcore.core.alternatives import each
from flowcore.core.early import is_taken, of_snapshot
from flowcore.core.evolve import answers_of
from flowcore.errors import AlreadyResumed, CapacityError, InvalidPayload, NotSuspended, RequestError, RunFinished
from flowcore.keys import dotted
from flowcore.model import (
    Delegation,
    Json,
    Outcome,
    Receipt,
    Snapshot,
    StepRecord,
    Verdict,
    wait_id,
    wait_in_any_life,
    wait_number,
    wait_place,
    wait_whole,
)

_COUNTED = ("applied", "counted", "delegated")
MOST_KEPT = 200
"""Places for arrivals that changed nothing, in one run; what finds no place is counted in one more."""
MOST_LOOKS = 4
"""Places that one arrival may be kept at: others may have taken the first."""
MOST_ERRORS = 10
LONGEST_ERROR = 200
"""Of what did not fit only so many rows, of so many characters each, are kept."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for receipts beside a run, and under which id a receipt is known there."""

    name: str
    id: str


# -- what records tell ------------------------------------------------------------------------------------------------


def of_run(snapshot: Snapshot) -> list[Receipt]:
    """The receipt of every answer that the run's records know, the newest last."""
    records = sorted(snapshot.records.values(), key=lambda record: record.seq)
    told = [receipt for record in records for receipt in of_record(record, snapshot.head.incarnation)]
    kept = [early.receipt for early in of_snapshot(snapshot) if not is_taken(early, snapshot.records.get(early.step))]
    return in_order([*told, *kept])


def of_record(record: StepRecord, incarnation: int) -> Iterator[Receipt]:
    """The receipts of all answers that one record knows: those to its last suspension, and earlier ones with a key."""
    yield from (receipt_of(answer, verdict="counted" if answer.counted else "applied") for answer in record.spent)
    lapsed = lapse_of(record, incarnation)
    for one in each(record):
        standing = one if lapsed is None else replace(one, began=int(wait_number(lapsed.wait)))
        yield from (delegated(standing, incarnation, delegation) for delegation in one.delegations)
    settled = record.outcome is not Outcome.SUSP
    answers = answers_of(record)
    for place, answer in enumerate(answers, start=1):
        yield receipt_of(answer, verdict="applied" if settled and place == len(answers) else "counted")
    if lapsed is not None:
        yield receipt_of(lapsed)


def delegated(
    record: StepRecord, incarnation: int, delegation: Delegation, *, verdict: Verdict = "delegated"
) -> Receipt:
    """The receipt of a vote that was handed over."""
    answers = answers_of(record)
    wait = wait_whole(answers[0].wait if answers else wait_id(record, incarnation))
    return Receipt(
        verdict=verdict,
        wait="".join([wait, *(f":{one.name}" for one in record.alternatives)]),
        at=delegation.at,
        by=delegation.by,
        via=delegation.via,
        step=dotted(record.key),
        to=delegation.to,
        on_behalf_of=None if delegation.seat == delegation.by else delegation.seat,
    )


def in_order(receipts: Iterable[Receipt]) -> list[Receipt]:
    """Each once, the newest last; of what is told twice the first counts: what was written down before a record forgot.

    Of what came at the same instant those that counted are the first. What counted came once, however often it was
    written down: a copy of it is a duplicate.
    """
    found: dict[str, Receipt] = {}
    for receipt in receipts:
        once = replace(receipt, times=1, last_at=None) if receipt.verdict in _COUNTED else receipt
        found.setdefault(_identity(receipt, exact=True), once)
    return sorted(found.values(), key=lambda receipt: (receipt.at, receipt.verdict not in _COUNTED))


# -- what they do not tell --------------------------------------------------------------------------------------------


def refused(resume: Resume, error: RequestError | CapacityError, at: datetime) -> Receipt:
    """The receipt of an answer that was not taken."""
    wait = (error.wait if isinstance(error, RequestError) else "") or resume.wait or ""
    late = isinstance(error, (AlreadyResumed, RunFinished)) or (isinstance(error, NotSuspended) and wait != "")
    return Receipt(
        verdict="stale" if late else "rejected",
        wait=wait,
        at=at,
        by=resume.by,
        via=resume.via,
        step=dotted(wait_place(wait)[0]) if wait else resume.step,
        idempotency_key=resume.idempotency_key,
        reason=error.code,
        errors=tuple(_brief(row) for row in error.errors[:MOST_ERRORS]) if isinstance(error, InvalidPayload) else (),
        winner=error.winner if isinstance(error, AlreadyResumed) else None,
    )


def repeated(first: Receipt, resume: Resume, at: datetime) -> Receipt:
    """The receipt of a copy of an answer that was taken before."""
    return replace(first, at=at, by=resume.by, via=resume.via, idempotency_key=resume.idempotency_key)


def slots_for(receipt: Receipt, digest: str) -> Sequence[Slot]:
    """Where a receipt may be kept, in the order in which to try; the last one takes everything.

    Args:
        digest: of the data, for arrivals that carry no key.
    """
    id = _hashed(_identity(receipt, exact=False), receipt.idempotency_key or digest)
    first = int(id, 16) % MOST_KEPT
    places = ((first + look * look) % MOST_KEPT for look in range(MOST_LOOKS))
    return [*(Slot(f"r{place:03}", id) for place in places), Slot("r~", "many")]


def slot_of(receipt: Receipt) -> Slot:
    """Where the receipt of an answer that counted is kept, before the record that tells it forgets."""
    id = _hashed(_identity(receipt, exact=True), "")
    return Slot(f"a{id}", id)


def _identity(receipt: Receipt, *, exact: bool) -> str:
    """What makes two receipts the same: for whoever counts repeats without the time."""
    verdict = "counted" if receipt.verdict in _COUNTED else receipt.verdict  # a record may not know any more which
    # A record that a later life took over tells of a deadline, or a vote handed over, as if that had been in its own.
    lasts = exact and (receipt.verdict == "delegated" or receipt.via == "timeout")
    wait = wait_in_any_life(receipt.wait) if lasts else receipt.wait
    said = [verdict, wait, receipt.step, receipt.by, receipt.via, receipt.reason, receipt.to]
    return json.dumps([*said, receipt.at.isoformat(), receipt.idempotency_key] if exact else said)


def _hashed(identity: str, more: str) -> str:
    return sha256(f"{identity}\n{more}".encode("utf-8", "replace")).hexdigest()[:24]


def _brief(row: Json) -> dict[str, str]:
    return {name: str(row.get(name, ""))[:LONGEST_ERROR] for name in ("path", "message")}
