"""Taking an answer: which suspension is meant, whether the answer fits it, and one write that settles it.

An answer and the head are written together, or not at all; of several that race exactly one is applied. One that is
meant for items whose children wait is given to these. Judges by core/admit.py; whoever holds the run afterwards drives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, assert_never

from flowcore.authoring.graph import EventNode, Graph, StepNode
from flowcore.core import heads
from flowcore.core.admit import (
    Meant,
    Refused,
    Repeated,
    Resume,
    Verdict,
    admit,
    had,
    judged_by_key,
    receipt_of,
    settles,
)
from flowcore.core.evolve import Answered, Changes, Counted, Received, evolve
from flowcore.errors import (
    CapacityError,
    ConflictError,
    InvalidPayload,
    RequestError,
    RunNotFound,
    VersionMismatch,
)
from flowcore.fanout.children import child_at
from flowcore.fanout.whole import Which
from flowcore.keys import RunRef, StepKey, dotted, scope_of
from flowcore.mailbox import EventGone, listeners_of
from flowcore.model import (
    Answer,
    Json,
    Receipt,
    RunStatus,
    Sent,
    Snapshot,
    StepRecord,
    Trace,
    wait_id,
    wait_place,
)
from flowcore.options import answer_shape
from flowcore.parcels import replace
from flowcore.ports import EventTaken, Written
from flowcore.renewal import accepted_answer
from flowcore.spans import with_id

if TYPE_CHECKING:
    from flowcore.engine import Engine

Pair: TypeAlias = tuple[StepRecord, Answered | Counted | Received]
"""A suspension, and what it gets."""

_MOST_TRIES = 20
"""Times an answer is judged anew because the head moved under it; each time somebody else made progress."""


TAKEABLE = frozenset({RunStatus.WAITING, RunStatus.SUSPENDED, RunStatus.JOINING, RunStatus.BLOCKED})
"""Statuses from which whoever brings an answer may drive on at once."""


class _JudgeAgain(Exception):  # it is no error
    """The first of several suspensions had a copy of this answer, or the child it was to be in is no longer wanted.

    So which suspensions it is for, if any, is to be found out anew.
    """


def take(
    engine: Engine,
    run: RunRef,
    data: Json,
    resume: Resume,
    *,
    here: bool,
    deadline: datetime | None = None,
    taken: Sent | None = None,
    per_step: bool = False,
) -> tuple[Snapshot, Receipt]:
    """As ``Engine.resume``, but of an answer that changes nothing no receipt is kept: its caller does that."""
    owner = engine.ids.fresh()
    if there := _named_in_child(engine, run, resume):
        around, children = there
        with suppress(_JudgeAgain):
            return _taken_in(engine, around, children, data, here=here, deadline=deadline, taken=taken)
    for _ in range(_MOST_TRIES):
        graph, snapshot, verdict = _judged(engine, run, resume)
        match verdict:
            case Refused(error):
                raise error
            case Repeated(first):
                engine.hint_again(snapshot.head)
                return snapshot, first
            case Meant(()):
                continue
            case Meant(records) if children := _in_children(snapshot, records, resume):
                try:
                    return _taken_in(engine, snapshot, children, data, here=here, deadline=deadline, taken=taken)
                except _JudgeAgain:
                    continue
            case Meant(records, seats):
                one = replace(resume, among=_among(snapshot, records, resume))
                meant = zip(records, seats, strict=True)
                answers = [_answer(engine, graph, snapshot, record, data, one, seat) for record, seat in meant]
            case _:
                assert_never(verdict)
        lease_until = engine.lease_until(engine.clock.now(), deadline) if here else None
        answered, pairs = answers[0], list(zip(records, answers, strict=True))
        again = partial(_judged_again, engine, graph, data=data, resume=one)
        written = _settle(engine, snapshot, pairs, again, owner, lease_until, resume.trace, taken)
        if written is not None:
            seen = _resumed(engine, graph, written, owner, here=here, deadline=deadline, per_step=per_step)
            return seen, receipt_of(answered.answer, verdict="counted" if isinstance(answered, Counted) else "applied")
    raise ConflictError(f"Run {run.id!r} moved {_MOST_TRIES} times while it was being resumed. Try again.")


def _named_in_child(engine: Engine, run: RunRef, resume: Resume) -> tuple[Snapshot, list[tuple[RunRef, Resume]]] | None:
    """The run, and which child of it the suspension that is named by its id is in, if it is in one."""
    if resume.wait is None or "[" not in resume.wait:
        return None
    around = engine.as_it_stands(run, everything=False)
    child = child_at(around, wait_place(resume.wait)[0])
    if child is None:
        return None
    if resume.version not in (None, around.head.version):
        raise VersionMismatch(resume.version, around.head.version)
    return around, [(child, replace(resume, version=None))]  # children have versions of their own


def _judged(engine: Engine, run: RunRef, resume: Resume) -> tuple[Graph, Snapshot, Verdict]:
    """What is to become of an answer, with what that was judged by.

    Children are read one after the other: the answer may be a copy of what one had just after it was read, and another
    have asked since. Where a second reading shows no copy, what the first has shown to be open is older than any.
    """
    graph, snapshot, verdict = _judged_once(engine, run, resume)
    if not _needs_all(resume) or not isinstance(verdict, Meant) or not _in_children(snapshot, verdict.records, resume):
        return graph, snapshot, verdict
    seen = {wait_id(record, snapshot.head.incarnation) for record in verdict.records}
    graph, snapshot, again = _judged_once(engine, run, resume)
    if isinstance(again, Meant):
        meant = zip(again.records, again.seats, strict=True)
        both = [(one, seat) for one, seat in meant if wait_id(one, snapshot.head.incarnation) in seen]
        again = Meant(tuple(one for one, _ in both), tuple(seat for _, seat in both))
    return graph, snapshot, again


def _judged_once(engine: Engine, run: RunRef, resume: Resume) -> tuple[Graph, Snapshot, Verdict]:
    graph, snapshot = engine.loaded(run, everything=_needs_all(resume), which="all")
    verdict = admit(graph, snapshot, resume, engine.time_of(snapshot))
    if isinstance(verdict, Refused):
        which: Which = "few" if resume.idempotency_key is None else "all"
        graph, snapshot = engine.loaded(run, everything=True, which=which)
        verdict = admit(graph, snapshot, resume, engine.time_of(snapshot))
    return graph, snapshot, _told_before(engine, graph, snapshot, resume, verdict) or verdict


def _told_before(engine: Engine, graph: Graph, snapshot: Snapshot, resume: Resume, verdict: Verdict) -> Verdict | None:
    """What a copy is told of an answer that no record knows: a second vote, or one in an earlier life of the run.

    The step may have asked again since, or not have come to it. In a first life only what would be taken is looked for,
    and only of those who can have had a second vote.
    """
    head, is_taken = snapshot.head, isinstance(verdict, Meant)
    is_first_vote = head.incarnation == 1 and (resume.by is None or not is_taken)
    if not _needs_all(resume) or is_first_vote or had(snapshot, resume) is not None:
        return None
    key = resume.idempotency_key
    notes = [one for one in engine.store.notes(head.run, head.created_at) if one.idempotency_key == key]
    counted = [one for one in notes if one.verdict in ("applied", "counted")]
    if counted:
        first = min(counted, key=lambda one: (one.at, one.wait))
        place, life = wait_place(first.wait)
        return judged_by_key(graph, first, engine.store.scope(head.run, life, scope_of(place)), resume)
    return next((Repeated(one) for one in notes if one.verdict == "duplicate" and resume.by is not None), None)


def _needs_all(resume: Resume) -> bool:
    """Whether a copy of the answer, which a finished turn or child may have had, is known by its key alone.

    A wait's id needs no such care: it is open or it is not.
    """
    return resume.idempotency_key is not None and resume.wait is None


def _answer(
    engine: Engine, graph: Graph, snapshot: Snapshot, record: StepRecord, data: Json, resume: Resume, seat: str | None
) -> Answered | Counted | Received:
    """The data, checked against what the place takes before anything is written."""
    node, wait = answerable(graph, record.key, record), wait_id(record, snapshot.head.incarnation)
    accepted = fitting(graph, record.key, data, record, wait)
    answer = Answer(
        wait=wait,
        data=accepted,
        digest=resume.digest,
        at=engine.time_of(snapshot),
        by=resume.by,
        via=resume.via,
        idempotency_key=resume.idempotency_key,
        on_behalf_of=seat,
        among=resume.among,
    )
    changes = Changes(context=resume.request_context)
    if not settles(record, answer):
        return Counted(key=record.key, answer=answer, changes=changes)
    if isinstance(node, EventNode):
        received = replace(answer, data=None)  # it is the output
        return Received(key=record.key, answer=received, output=accepted, changes=changes)
    return Answered(key=record.key, answer=answer, changes=changes, retry_count=resume.retry_count)


def fitting(graph: Graph, key: StepKey, data: Json, record: StepRecord | None = None, wait: str = "") -> Json:
    """An answer as its place takes it. Raises: InvalidPayload, which knows the suspension that is meant."""
    node, place = answerable(graph, key, record), dotted(key)
    try:
        if isinstance(node, EventNode):
            return node.data.accept(f"data of event {node.event!r} for {place!r}", data)
        return accepted_answer(answer_shape(node, record), f"resume data of step {place!r}", data)
    except InvalidPayload as error:
        error.wait = wait
        raise


def _judged_again(
    engine: Engine, graph: Graph, snapshot: Snapshot, record: StepRecord, *, data: Json, resume: Resume
) -> Pair | None:
    """A suspension as it stands by now, with the same answer; None where that is over, or cannot have it any more."""
    wait = wait_id(record, snapshot.head.incarnation)
    verdict = admit(graph, snapshot, _for_one(resume, wait), engine.time_of(snapshot))
    if not isinstance(verdict, Meant):
        return None
    [standing], [seat] = verdict.records, verdict.seats
    return standing, _answer(engine, graph, snapshot, standing, data, resume, seat)


def _settle(
    engine: Engine,
    snapshot: Snapshot,
    pairs: list[Pair],
    again: Callable[[Snapshot, StepRecord], Pair | None],
    owner: str,
    lease_until: datetime | None,
    trace: Trace | None,
    taken: Sent | None,
) -> Snapshot | None:
    """Write each answer together with the head; None when somebody else was faster before the first was written.

    With ``lease_until``, ``owner`` holds the run afterwards, unless somebody drives it already.

    Several pairs are the items of one foreach, which all get the same data; whoever settles one of them meanwhile
    keeps it. One that has only had a vote of somebody else meanwhile is judged ``again``.
    """
    is_settled = False
    for pair in pairs:
        record, answer = pair
        for _ in range(_MOST_TRIES):
            standing = snapshot.records.get(record.key)
            if snapshot.head.is_terminal or standing is None:
                break
            if standing.gen != record.gen:
                judged = again(snapshot, record)
                if judged is None:
                    break
                record, answer = judged
            if is_settled and answer.answer.among:  # which the first keeps
                answer = replace(answer, answer=replace(answer.answer, among=()))
            written = _answered(engine, snapshot, record, answer, owner, lease_until, trace, taken)
            if written is not None:
                snapshot, is_settled = written, True
                break
            if not is_settled:
                return None
            snapshot = engine.read(snapshot.head.run, everything=False)
    return snapshot if is_settled else None


def _answered(
    engine: Engine,
    snapshot: Snapshot,
    record: StepRecord,
    answer: Answered | Counted | Received,
    owner: str,
    lease_until: datetime | None,
    trace: Trace | None,
    taken: Sent | None,
) -> Snapshot | None:
    """One answer together with the head; None when something has moved. One that is only counted moves no run."""
    now, prior = engine.time_of(snapshot), snapshot.records[record.key]
    if isinstance(answer, Counted):
        after = evolve(snapshot, answer, now)
        head = snapshot.head
        counted = engine.store.commit(head.run, head.incarnation, after.records[record.key], prior)
        return after if isinstance(counted, Written) else None
    if lease_until is not None and snapshot.head.status in TAKEABLE:
        head = heads.held(snapshot.head, now, owner=owner, lease_until=lease_until)
    else:
        head = heads.queued(snapshot.head, now)
    if engine.tracer is not None:
        trace = with_id(trace, head.run, answer.answer.wait)
    head = replace(head, continued=trace)
    after = evolve(snapshot, answer, now)
    written = engine.store.resume(
        head,
        after.records[record.key],
        version=snapshot.head.version,
        prior=prior,
        taken=taken,
        silenced=[
            listener
            for listener in listeners_of(snapshot.head, prior)
            if taken is None or (listener.run.id, listener.wait) != taken.taker
        ],
    )
    if isinstance(written, EventTaken):
        raise EventGone
    return after.with_head(head) if isinstance(written, Written) else None


def _resumed(
    engine: Engine,
    graph: Graph,
    snapshot: Snapshot,
    owner: str,
    *,
    here: bool,
    deadline: datetime | None,
    per_step: bool,
) -> Snapshot:
    """After the answer is stored: drive on if this process holds the run now, else see that somebody does."""
    head = snapshot.head
    if head.status is RunStatus.RUNNING and head.owner == owner:
        return engine.drive(graph, snapshot, deadline, per_step=per_step)
    if head.status is RunStatus.QUEUED:
        engine.hints.send(head.run, at=head.updated_at, version=head.version)
        if here:
            engine.look(head.run, deadline=deadline, per_step=per_step)
            return engine.read(head.run)
    return snapshot


def _in_children(snapshot: Snapshot, records: Sequence[StepRecord], resume: Resume) -> list[tuple[RunRef, Resume]]:
    """For suspensions that children of this run are in: whom to tell, and which suspension is meant there."""
    incarnation, among = snapshot.head.incarnation, _among(snapshot, records, resume)
    return [
        (child, replace(_for_one(resume, wait_id(record, incarnation)), among=among))
        for record in records
        if (child := child_at(snapshot, record.key)) is not None
    ]


def _for_one(resume: Resume, wait: str) -> Resume:
    """The same answer to one of the suspensions that it is for."""
    return replace(resume, step=None, label=None, index=None, wait=wait, version=None, of_several=True)


def _among(snapshot: Snapshot, records: Sequence[StepRecord], resume: Resume) -> tuple[str, ...]:
    """What an answer keeps of several suspensions that it is for, so that a copy of it knows them."""
    if resume.of_several:
        return resume.among
    if resume.idempotency_key is None or len(records) == 1:
        return ()
    return tuple(wait_id(record, snapshot.head.incarnation) for record in records)


def _taken_in(
    engine: Engine,
    around: Snapshot,
    children: Sequence[tuple[RunRef, Resume]],
    data: Json,
    *,
    here: bool,
    deadline: datetime | None,
    taken: Sent | None,
) -> tuple[Snapshot, Receipt]:
    """Answer suspensions in children; of several, those that others answer meanwhile keep what they got.

    Children of a run that stands still do not go on before it does. Of the run no child is read: whoever shows it does
    that, once. Raises: _JudgeAgain.
    """
    run, receipt = around.head.run, None
    refused: RequestError | CapacityError | None = None
    here = here and around.root.status not in (RunStatus.PAUSED, RunStatus.BLOCKED)
    for child, one in children:
        resume = one if receipt is None else replace(one, among=())  # which the first keeps
        try:
            _, told = take(engine, child, data, resume, here=here, deadline=deadline, taken=taken)
        except RunNotFound as error:
            if receipt is None:
                raise _JudgeAgain from error
        except (RequestError, CapacityError) as error:
            refused = refused or error
        else:
            if (
                receipt is None
                and told.verdict == "duplicate"
                and len(children) > 1
                and one.idempotency_key is not None
            ):
                raise _JudgeAgain
            receipt = told if receipt is None or receipt.verdict == "duplicate" else receipt
    if receipt is None:
        assert refused is not None  # somebody was asked
        raise refused
    if here:
        engine.look(run, deadline=deadline)
    return engine.as_it_stands(run, everything=False), receipt


def answerable(graph: Graph, key: StepKey, record: StepRecord | None = None) -> StepNode | EventNode:
    """What takes an answer at a key, loop and foreach bodies included, or at ``record`` by now.

    Raises: InvalidPayload.
    """
    instead = None if record is None or record.instead is None else record.instead[0]
    node = graph.acting_at(graph.place_of(dotted(key)), instead)
    if not isinstance(node, (StepNode, EventNode)):
        raise InvalidPayload(
            "step", [{"path": dotted(key), "message": "is no step that takes an answer", "type": "step"}]
        )
    return node
