"""May this arrival change the run? Finds the suspension that is meant, and judges the answer.

``admit`` gives a verdict and changes nothing. Whether the verdict still holds when it is written is the store's
condition: two answers may both be admitted here, one of them is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias, assert_never

from flowcore.authoring.graph import Graph
from flowcore.core.alternatives import each
from flowcore.core.evolve import answers_of
from flowcore.core.seats import Given, Seat, Turned, seat_for
from flowcore.errors import (
    AlreadyResumed,
    AmbiguousWait,
    IdempotencyKeyReused,
    IndexOutOfRange,
    NotSuspended,
    RequestError,
    RunFinished,
    UnknownLabel,
    UnknownStep,
    VersionMismatch,
)
from flowcore.keys import StepKey, dotted, index_of, parent_of, parents_of, path_of, turn_of_pass
from flowcore.model import (
    Answer,
    Json,
    Outcome,
    Receipt,
    RunStatus,
    Snapshot,
    StepRecord,
    Terms,
    Trace,
    Wait,
    wait_choice,
    wait_id,
    wait_place,
    wait_whole,
)
from flowcore.parcels import replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """An answer on its way in. At most one of ``step`` (dotted path), ``label`` and ``wait`` says which suspension."""

    step: str | None = None
    label: str | None = None
    wait: str | None = None
    listens: tuple[str, str] | None = None
    """With ``wait``: the answer is an event of this name and key, and settles a wait for such a one only."""
    of_several: bool = False
    """With ``wait``: it is one of several that this very answer is for, so what others had of it makes it no copy."""
    among: tuple[str, ...] = ()
    """With ``wait``: the ids of these several, to be kept with the answer; empty where that was done."""
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
    version: int | None = None
    """The run must still be at it; None: whichever it is at."""
    trace: Trace | None = None
    """Under what the run goes on; None: the caller did not say."""


@dataclass(frozen=True, slots=True)
class Meant:
    """These suspensions take the answer; several only for the items of one foreach."""

    records: tuple[StepRecord, ...]
    seats: tuple[str | None, ...] = ()
    """For each the approver whose vote it is, where it is not the one who answers."""


@dataclass(frozen=True, slots=True)
class Repeated:
    """This very answer was taken before; ``receipt`` is what it was told then, with the verdict ``duplicate``."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Refused:
    """The answer cannot be taken; the run stays as it is."""

    error: RequestError


Verdict: TypeAlias = Meant | Repeated | Refused


def admit(graph: Graph, snapshot: Snapshot, resume: Resume, now: datetime) -> Verdict:
    """Which suspension ``resume`` settles, or why none.

    ``now``, which says who may answer by now, is the run's own time.

    The snapshot should hold every record of the run for the refusals to be precise; the records of its open scopes are
    enough to take a good answer.
    """
    if (known := had(snapshot, resume)) is not None:
        return _repeated(graph, snapshot, resume, *known, now)
    if resume.version not in (None, snapshot.head.version):
        return Refused(VersionMismatch(resume.version, snapshot.head.version))
    verdict = _meant(graph, snapshot, resume)
    if isinstance(verdict, Meant):
        return _seated(snapshot, verdict.records, resume, now)
    return verdict


def judged_by_key(
    graph: Graph, first: Receipt, records: Mapping[StepKey, StepRecord], resume: Resume
) -> Repeated | Refused:
    """What an answer is told under whose key another one counted that the run's records know no more.

    Args:
        first: the other one's receipt.
        records: that knew it, as far as they are to be had; where they are not, any data is taken for the same.
    """
    place, _ = wait_place(first.wait)
    known = (answer for key, answer in _under_key(records, resume.idempotency_key) if key == place)
    told = Answer(wait=first.wait, data=None, digest=resume.digest, at=first.at, by=first.by, via=first.via)
    answer = next(known, replace(told, idempotency_key=first.idempotency_key, on_behalf_of=first.on_behalf_of))
    if (how := _is_no_copy(graph, place, answer, resume)) is not None:
        return Refused(IdempotencyKeyReused(resume.idempotency_key or "", how))
    return Repeated(receipt_of(answer, verdict="duplicate"))


def settles(record: StepRecord, answer: Answer) -> bool:
    """Whether a suspension is over with this answer, or waits for those of others as well."""
    terms = record.terms or Terms()
    is_vetoed = terms.veto is not None and not (isinstance(answer.data, dict) and answer.data.get(terms.veto))
    return is_vetoed or len(record.votes) + 1 >= terms.quorum


def meant(graph: Graph, snapshot: Snapshot, resume: Resume) -> StepRecord | RequestError:
    """The one suspension that ``resume`` names, or why there is none, whoever may answer it."""
    verdict = _meant(graph, snapshot, resume)
    if isinstance(verdict, Refused):
        return verdict.error
    first, *others = verdict.records
    return AmbiguousWait(snapshot.head.run.id, [wait_line(snapshot, r) for r in (first, *others)]) if others else first


def _seated(
    snapshot: Snapshot, records: tuple[StepRecord, ...], resume: Resume, now: datetime
) -> Meant | Repeated | Refused:
    """Which of these suspensions this caller can answer (still), and for whom; one for which he has voted is left out.

    Where that leaves none, the first says why.
    """
    open_: list[tuple[StepRecord, str | None]] = []
    given: list[tuple[StepRecord, Answer]] = []
    for record in records:
        seat = seat_for(snapshot.head, record, resume.by, now)
        match seat:
            case Turned(error):
                return Refused(error)
            case Given(vote):
                given.append((record, vote))
            case Seat(owner):
                open_.append((record, None if owner == resume.by else owner))
            case _:
                assert_never(seat)
    if open_:
        return Meant(tuple(record for record, _ in open_), tuple(seat for _, seat in open_))
    record, vote = given[0]
    if vote.digest == resume.digest:
        return Repeated(receipt_of(vote, verdict="duplicate"))
    return Refused(AlreadyResumed(snapshot.head.run.id, dotted(record.key), _winner(vote), wait=vote.wait))


def _meant(graph: Graph, snapshot: Snapshot, resume: Resume) -> Meant | Refused:
    waiting = open_waits(snapshot)
    if resume.wait is not None:
        chosen = [
            record
            for record in waiting
            if wait_id(record, snapshot.head.incarnation) == resume.wait
            and (resume.listens is None or resume.listens == record.topic)
        ]
        several = [record for record in waiting if _is_one_of(record, resume.wait, snapshot)]
        if several and not chosen:
            return _ambiguous(snapshot, several)
        return Meant((chosen[0],)) if chosen else Refused(_settled_wait(snapshot, resume.wait))
    if resume.label is not None:
        waiting = [record for record in waiting if record.label == resume.label]
        if not waiting:
            return Refused(_no_label(snapshot, resume.label))
    if resume.step is not None:
        waiting = _at(waiting, graph.called_here(resume.step))
        if not waiting:
            return Refused(_no_step(graph, snapshot, graph.called_here(resume.step)))
    if resume.index is not None:
        return _item(snapshot, waiting, resume)
    return _single(snapshot, waiting)


def open_waits(snapshot: Snapshot) -> list[StepRecord]:
    """The suspended records, oldest first; none once the run, or what is around them, has ended.

    A child's are its own, not those of the run it is a part of. One that waits for one of several things is told as one
    for each of them.
    """
    if snapshot.head.is_terminal:
        return []
    part = snapshot.head.part
    own = "" if part is None else f"{part.key}["
    records = snapshot.records.values()
    suspended = [record for record in records if record.outcome is Outcome.SUSP and record.key.startswith(own)]
    waiting = [record for record in suspended if not is_abandoned(snapshot, record.key)]
    return [one for record in sorted(waiting, key=lambda record: (record.seq, record.key)) for one in each(record)]


def is_abandoned(snapshot: Snapshot, key: StepKey) -> bool:
    """Whether a container around the place has ended, by a bail or a failure, while this was left as it was."""
    around = (snapshot.records.get(container) for container in parents_of(key))
    return any(record is not None and record.is_settled for record in around)


def is_past(snapshot: Snapshot, key: StepKey) -> bool:
    """Whether nothing more can happen at the place: a container around it has ended, or its loop is at a later turn."""
    if is_abandoned(snapshot, key):
        return True
    loops = ((snapshot.records.get(parent_of(around)), turn_of_pass(around)) for around in (key, *parents_of(key)))
    return any(loop is not None and turn is not None and turn < (loop.count or 1) for loop, turn in loops)


def receipt_of(answer: Answer, *, verdict: Literal["applied", "counted", "duplicate"] = "applied") -> Receipt:
    """The proof of what ``answer`` settled, when, and by whom."""
    return Receipt(
        verdict=verdict,
        wait=answer.wait,
        at=answer.at,
        by=answer.by,
        via=answer.via,
        step=dotted(wait_place(answer.wait)[0]),
        idempotency_key=answer.idempotency_key,
        on_behalf_of=answer.on_behalf_of,
    )


def had(snapshot: Snapshot, resume: Resume) -> tuple[StepKey, Answer] | None:
    """The answer that came under this key before, and where; None where no record knows of one."""
    under_key = _under_key(snapshot.records, resume.idempotency_key)
    return next((known for known in under_key if not resume.of_several or known[1].wait == resume.wait), None)


def _under_key(records: Mapping[StepKey, StepRecord], key: str | None) -> Iterator[tuple[StepKey, Answer]]:
    if key is None:
        return
    for record in records.values():
        votes = (vote for one in each(record) for vote in one.votes)
        for answer in (record.answer, *votes, *record.spent):
            if answer is not None and answer.idempotency_key == key:
                yield record.key, answer


def _repeated(
    graph: Graph, snapshot: Snapshot, resume: Resume, place: StepKey, first: Answer, now: datetime
) -> Verdict:
    """A copy is told what the first one was; one for several items is for those as well that the first never reached.

    Whoever brought that one may have died behind the first item.
    """
    if (how := _is_no_copy(graph, place, first, resume)) is not None:
        return Refused(IdempotencyKeyReused(first.idempotency_key or "", how))
    if left := _left(snapshot, resume):
        verdict = _seated(snapshot, left, resume, now)
        if isinstance(verdict, Meant):
            return verdict
    return Repeated(receipt_of(first, verdict="duplicate"))


def _is_no_copy(graph: Graph, place: StepKey, first: Answer, resume: Resume) -> str | None:
    """How an answer differs from the one that came under its key; None when it may be the same once more."""
    if first.digest != resume.digest:
        return "with other data"
    if None not in (first.by, resume.by) and first.by != resume.by:
        return "by somebody else"
    wait = wait_whole(first.wait)
    names = () if resume.step is None else (resume.step, graph.called_here(resume.step))
    is_there = not names or any(fits(place, name) for fits in _FITS for name in names)
    return None if is_there and (resume.wait is None or wait_whole(resume.wait) == wait) else f"to answer {wait!r}"


def _left(snapshot: Snapshot, resume: Resume) -> tuple[StepRecord, ...]:
    """The other suspensions that the first answer was for, as far as they are open still.

    Told by their ids and not by when they began: each child of a run has a clock of its own.
    """
    if resume.wait is not None:
        return ()
    meant = {wait for _, had in _under_key(snapshot.records, resume.idempotency_key) for wait in had.among}
    if not meant:
        return ()
    return tuple(one for one in open_waits(snapshot) if wait_id(one, snapshot.head.incarnation) in meant)


def _at(waiting: Sequence[StepRecord], step: str) -> list[StepRecord]:
    """The suspensions at ``step``: exactly there, else inside it, else where it is the last id, or one on the way."""
    for fits in _FITS:
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


_FITS = (_is_exactly, _is_item_of, _is_inside, _is_last_of, _is_beneath)
"""How a step may be named, the narrowest way first."""


def _without_items(key: StepKey) -> str:
    return ".".join(part.split("[", 1)[0] for part in path_of(key))


def _item(snapshot: Snapshot, waiting: Sequence[StepRecord], resume: Resume) -> Meant | Refused:
    chosen = [record for record in waiting if index_of(record.key) == resume.index]
    if len(chosen) == 1:
        return Meant((chosen[0],))
    if len({record.key for record in chosen}) == 1:
        return _ambiguous(snapshot, chosen)
    indexes = [index for record in waiting if (index := index_of(record.key)) is not None]
    return Refused(IndexOutOfRange(resume.step or resume.label or "the open foreach", resume.index or 0, indexes))


def _single(snapshot: Snapshot, waiting: Sequence[StepRecord]) -> Meant | Refused:
    if not waiting:
        return Refused(_nothing_open(snapshot))
    if len(waiting) == 1:
        return Meant((waiting[0],))
    is_one_step = len({_without_items(record.key) for record in waiting}) == 1
    if is_one_step and len({record.key for record in waiting}) == len(waiting):
        return Meant(tuple(waiting))
    return _ambiguous(snapshot, waiting)


def _ambiguous(snapshot: Snapshot, waiting: Sequence[StepRecord]) -> Refused:
    return Refused(AmbiguousWait(snapshot.head.run.id, [wait_line(snapshot, record) for record in waiting]))


def _is_one_of(record: StepRecord, wait: str, snapshot: Snapshot) -> bool:
    """Whether ``wait`` names the whole suspension that this is an alternative of."""
    return bool(record.alternatives) and wait_id(record, snapshot.head.incarnation).rpartition(":")[0] == wait


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
    return AlreadyResumed(head.run.id, dotted(record.key), _winner(answer), wait=answer.wait)


def _winner(answer: Answer) -> dict[str, Any]:
    chosen = None if answer.timed_out else wait_choice(answer.wait)
    which = {} if chosen is None else {"chosen": chosen}
    via = "timeout" if answer.timed_out else answer.via
    return {"at": answer.at.isoformat(), "by": answer.by, "via": via, **which}


def _settled_wait(snapshot: Snapshot, wait: str) -> RequestError:
    """Why this very suspension is not open: what has settled it is told, if the run still knows."""
    head, (key, life) = snapshot.head, wait_place(wait)
    record = snapshot.records.get(key)
    if record is not None and head.status is not RunStatus.CANCELED:
        lapsed = lapse_of(record, head.incarnation)
        latest = () if record.outcome is Outcome.SUSP else answers_of(record)
        known = (*record.spent, *latest, *([] if lapsed is None else [lapsed]))
        settled_it = [answer for answer in known if wait_whole(answer.wait) == wait_whole(wait)]
        if settled_it:
            return AlreadyResumed(head.run.id, dotted(key), _winner(settled_it[-1]), wait=wait)
        if record.answer is not None and life == head.incarnation:
            return _already(snapshot, record)
    if head.is_terminal:
        return RunFinished(head.run.id, head.public_status)
    return NotSuspended(head.run.id, head.public_status, step=wait, open_steps=_open(snapshot))


def lapse_of(record: StepRecord, incarnation: int) -> Answer | None:
    """The deadline as the answer that it was, where it has settled a suspension without a call of its step."""
    had_one = record.listens is not None or (record.terms is not None and record.terms.lapse is not None)
    gave_up = record.failure is not None and record.failure.type == "ExecutorCrashed"
    if record.answer is not None or not record.is_settled or not had_one or gave_up:
        return None
    rewrites = sum(len(one.votes) + len(one.delegations) for one in each(record))
    began = replace(record, gen=record.gen - rewrites - 1)
    wait = wait_id(began, incarnation)
    return Answer(wait=wait, data=None, digest="", at=record.at, via="timeout", timed_out=True)


def _no_label(snapshot: Snapshot, label: str) -> RequestError:
    over = (record for record in snapshot.records.values() if record.answer is not None)
    settled = [record for record in over if label in [one.label for one in each(record)]]
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
