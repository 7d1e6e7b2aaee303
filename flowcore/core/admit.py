"""May this arrival change the run? Finds the suspension that is meant, and judges the answer.

``admit`` gives a verdict and changes nothing. Whether the verdict still holds when it is written is the store's
condition: two answers may both be admitted here, one of them is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from flowcore.authoring.graph import Graph
from flowcore.errors import (
    AlreadyResumed,
    AmbiguousWait,
    IdempotencyKeyReused,
    IndexOutOfRange,
    NotAnApprover,
    NotSuspended,
    RequestError,
    RunFinished,
    UnknownLabel,
    UnknownStep,
)
from flowcore.keys import StepKey, dotted, index_of, parents_of, path_of
from flowcore.model import Answer, Json, Outcome, Receipt, RunStatus, Snapshot, StepRecord, Terms, Trace, Wait, wait_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """An answer on its way in. At most one of ``step`` (dotted path), ``label`` and ``wait`` says which suspension."""

    step: str | None = None
    label: str | None = None
    wait: str | None = None
    listens: tuple[str, str] | None = None
    """With ``wait``: the answer is an event of this name and key, and settles a wait for such a one only."""
    index: int | None = None
    idempotency_key: str | None = None
    digest: str
    """Of the data as the caller sent it."""
    by: str | None = None
    via: str = "python"
    request_context: Mapping[str, Json] = field(default_factory=dict)
    """Wins over what the run knows, per key."""
    retry_count: int = 0
    """Tries of the step that count as made already."""
    trace: Trace | None = None
    """Under what the run goes on; None: the caller did not say."""


@dataclass(frozen=True, slots=True)
class Meant:
    """These suspensions take the answer; several only for the items of one foreach."""

    records: tuple[StepRecord, ...]


@dataclass(frozen=True, slots=True)
class Repeated:
    """This very answer was taken before; ``receipt`` is what it was told then, with the verdict ``duplicate``."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Refused:
    """The answer cannot be taken; the run stays as it is."""

    error: RequestError


Verdict: TypeAlias = Meant | Repeated | Refused


def admit(graph: Graph, snapshot: Snapshot, resume: Resume) -> Verdict:
    """Which suspension ``resume`` settles, or why none.

    The snapshot should hold every record of the run for the refusals to be precise; the records of its open scopes are
    enough to take a good answer.
    """
    if (repeated := _repeated(snapshot, resume)) is not None:
        return repeated
    verdict = _meant(graph, snapshot, resume)
    if isinstance(verdict, Meant):
        for record in verdict.records:
            if (not_theirs := _voted(snapshot, record, resume)) is not None:
                return not_theirs
    return verdict


def settles(record: StepRecord, answer: Answer) -> bool:
    """Whether a suspension is over with this answer, or waits for those of others as well."""
    terms = record.terms or Terms()
    is_vetoed = terms.veto is not None and not (isinstance(answer.data, dict) and answer.data.get(terms.veto))
    return is_vetoed or len(record.votes) + 1 >= terms.quorum


def _voted(snapshot: Snapshot, record: StepRecord, resume: Resume) -> Repeated | Refused | None:
    """Why this caller cannot answer this suspension (again); None when he can."""
    terms, run_id, step = record.terms or Terms(), snapshot.head.run.id, dotted(record.key)
    if (terms.approvers and resume.by not in terms.approvers) or (terms.quorum > 1 and resume.by is None):
        return Refused(NotAnApprover(run_id, step, resume.by))
    for vote in record.votes:
        if vote.by == resume.by:
            is_same = vote.digest == resume.digest
            told = receipt_of(vote, verdict="duplicate")
            return Repeated(told) if is_same else Refused(AlreadyResumed(run_id, step, _winner(vote)))
    return None


def _meant(graph: Graph, snapshot: Snapshot, resume: Resume) -> Verdict:
    waiting = open_waits(snapshot)
    if resume.wait is not None:
        chosen = [
            record
            for record in waiting
            if wait_id(record, snapshot.head.incarnation) == resume.wait
            and (resume.listens is None or resume.listens == record.topic)
        ]
        return Meant((chosen[0],)) if chosen else Refused(_settled_wait(snapshot, resume.wait))
    if resume.label is not None:
        waiting = [record for record in waiting if record.label == resume.label]
        if not waiting:
            return Refused(_no_label(snapshot, resume.label))
    if resume.step is not None:
        waiting = _at(waiting, resume.step)
        if not waiting:
            return Refused(_no_step(graph, snapshot, resume.step))
    if resume.index is not None:
        return _item(waiting, resume)
    return _single(snapshot, waiting)


def open_waits(snapshot: Snapshot) -> list[StepRecord]:
    """The suspended records, oldest first; none once the run, or what is around them, has ended.

    A child's are its own, not those of the run it is a part of.
    """
    if snapshot.head.is_terminal:
        return []
    part = snapshot.head.part
    own = "" if part is None else f"{part.key}["
    records = snapshot.records.values()
    suspended = [record for record in records if record.outcome is Outcome.SUSP and record.key.startswith(own)]
    waiting = [record for record in suspended if not is_abandoned(snapshot, record.key)]
    return sorted(waiting, key=lambda record: (record.seq, record.key))


def is_abandoned(snapshot: Snapshot, key: StepKey) -> bool:
    """Whether a container around the place has ended, by a bail or a failure, while this was left as it was."""
    around = (snapshot.records.get(container) for container in parents_of(key))
    return any(record is not None and record.is_settled for record in around)


def receipt_of(answer: Answer, *, verdict: Literal["applied", "counted", "duplicate"] = "applied") -> Receipt:
    """The proof of what ``answer`` settled, when, and by whom."""
    return Receipt(verdict=verdict, wait=answer.wait, at=answer.at, by=answer.by, via=answer.via)


def _repeated(snapshot: Snapshot, resume: Resume) -> Repeated | Refused | None:
    if resume.idempotency_key is None:
        return None
    for record in snapshot.records.values():
        for answer in (record.answer, *record.votes, *record.spent):
            if answer is not None and answer.idempotency_key == resume.idempotency_key:
                if answer.digest != resume.digest:
                    return Refused(IdempotencyKeyReused(resume.idempotency_key))
                return Repeated(receipt_of(answer, verdict="duplicate"))
    return None


def _at(waiting: Sequence[StepRecord], step: str) -> list[StepRecord]:
    """The suspensions at ``step``: exactly there, else inside it, else where it is the last id, or one on the way."""
    for fits in (_is_exactly, _is_item_of, _is_inside, _is_last_of, _is_beneath):
        if found := [record for record in waiting if fits(record.key, step)]:
            return found
    return []


def _is_exactly(key: StepKey, step: str) -> bool:
    return dotted(key) == step


def _is_item_of(key: StepKey, step: str) -> bool:
    return _without_items(key) == step


def _is_inside(key: StepKey, step: str) -> bool:
    return dotted(key).startswith(f"{step}.") or _without_items(key).startswith(f"{step}.")


def _is_last_of(key: StepKey, step: str) -> bool:
    return _without_items(key).rsplit(".", 1)[-1] == step


def _is_beneath(key: StepKey, step: str) -> bool:
    return f".{step}." in f".{_without_items(key)}."


def _without_items(key: StepKey) -> str:
    return ".".join(part.split("[", 1)[0] for part in path_of(key))


def _item(waiting: Sequence[StepRecord], resume: Resume) -> Verdict:
    chosen = [record for record in waiting if index_of(record.key) == resume.index]
    if len(chosen) == 1:
        return Meant((chosen[0],))
    indexes = [index for record in waiting if (index := index_of(record.key)) is not None]
    return Refused(IndexOutOfRange(resume.step or resume.label or "the open foreach", resume.index or 0, indexes))


def _single(snapshot: Snapshot, waiting: Sequence[StepRecord]) -> Verdict:
    if not waiting:
        return Refused(_nothing_open(snapshot))
    if len(waiting) == 1:
        return Meant((waiting[0],))
    if len({_without_items(record.key) for record in waiting}) == 1:
        return Meant(tuple(waiting))
    return Refused(AmbiguousWait(snapshot.head.run.id, [wait_line(snapshot, record) for record in waiting]))


def wait_line(snapshot: Snapshot, record: StepRecord) -> dict[str, Any]:
    """One open suspension as plain JSON, for an error or a listing."""
    wait = Wait.of(snapshot.head, record)
    return {"id": wait.id, "path": wait.path, "label": wait.label, "index": wait.index}


def _nothing_open(snapshot: Snapshot) -> RequestError:
    """Nobody waits. If somebody answered before, that answer is what the caller wants to know of."""
    settled = [record for record in snapshot.records.values() if record.answer is not None]
    if settled:
        return _already(snapshot, max(settled, key=lambda record: record.seq))
    head = snapshot.head
    return (
        RunFinished(head.run.id, head.public_status)
        if head.is_terminal
        else NotSuspended(head.run.id, head.public_status)
    )


def _already(snapshot: Snapshot, record: StepRecord) -> RequestError:
    head, answer = snapshot.head, record.answer
    if answer is None or head.status is RunStatus.CANCELED:
        return (
            RunFinished(head.run.id, head.public_status)
            if head.is_terminal
            else NotSuspended(head.run.id, head.public_status)
        )
    return AlreadyResumed(head.run.id, dotted(record.key), _winner(answer))


def _winner(answer: Answer) -> dict[str, Any]:
    return {"at": answer.at.isoformat(), "by": answer.by, "via": "timeout" if answer.timed_out else answer.via}


def _settled_wait(snapshot: Snapshot, wait: str) -> RequestError:
    record = snapshot.records.get(StepKey(wait.rsplit("@", 1)[0]))
    if snapshot.head.is_terminal and (record is None or record.answer is None):
        return RunFinished(snapshot.head.run.id, snapshot.head.public_status)
    if record is None or record.answer is None:
        return NotSuspended(snapshot.head.run.id, snapshot.head.public_status, step=wait, open_steps=_open(snapshot))
    return _already(snapshot, record)


def _no_label(snapshot: Snapshot, label: str) -> RequestError:
    settled = [r for r in snapshot.records.values() if r.label == label and r.answer is not None]
    if settled:
        return _already(snapshot, max(settled, key=lambda record: record.seq))
    if snapshot.head.is_terminal:
        return RunFinished(snapshot.head.run.id, snapshot.head.public_status)
    return UnknownLabel(label, [record.label for record in open_waits(snapshot) if record.label])


def _no_step(graph: Graph, snapshot: Snapshot, step: str) -> RequestError:
    settled = _at([record for record in snapshot.records.values() if record.answer is not None], step)
    if settled:
        return _already(snapshot, max(settled, key=lambda record: record.seq))
    known = graph.find(step) is not None or any(_at([record], step) for record in snapshot.records.values())
    if not known:
        return UnknownStep(step, _open(snapshot))
    if snapshot.head.is_terminal:
        return RunFinished(snapshot.head.run.id, snapshot.head.public_status)
    return NotSuspended(snapshot.head.run.id, snapshot.head.public_status, step=step, open_steps=_open(snapshot))


def _open(snapshot: Snapshot) -> list[str]:
    return [dotted(record.key) for record in open_waits(snapshot)]
