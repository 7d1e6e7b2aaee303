"""A suspension that waits for one of several things, seen as several suspensions, one for each.

It is stored as one record, so whatever settles it settles it whole: that the others are over then is not a second write
but the same one. Whoever lists, answers or tells of suspensions looks at each alternative as if it stood alone.
"""

from __future__ import annotations

from flowcore.model import Alternative, Answer, Delegation, StepRecord, wait_choice, wait_number
from flowcore.parcels import replace


def each(record: StepRecord) -> list[StepRecord]:
    """What a suspension waits for, each as a record of its own; the record itself when that is one thing."""
    if len(record.alternatives) <= 1:
        return [record]
    return [_alone(record, alternative) for alternative in record.alternatives]


def single(record: StepRecord) -> StepRecord:
    """The record as it is stored: one with a single alternative is that one."""
    return _alone(record, record.alternatives[0]) if len(record.alternatives) == 1 else record


def chosen(record: StepRecord) -> str | None:
    """The name of the alternative that was answered; None when none was, or there is no choice."""
    answer = record.answer
    return None if answer is None or answer.timed_out else wait_choice(answer.wait)


def answered(record: StepRecord) -> StepRecord:
    """The record as if there had been nothing but the alternative that was answered; after a timeout, as if nothing."""
    if not record.alternatives:
        return record
    name = chosen(record)
    none = replace(record, payload=None, votes=())
    return next((one for one in each(record) if one.alternatives[0].name == name), none)


def is_replaced(record: StepRecord) -> bool:
    """Whether what stands there is the deadline that a stand-in owes its turn to: it begins like any step."""
    since = None if record.instead is None else record.instead[1]
    return since is not None and record.answer is not None and int(wait_number(record.answer.wait)) < since


def voted(record: StepRecord, answer: Answer) -> StepRecord:
    """The record with one more answer counted, at the alternative that it is for."""
    if len(record.alternatives) <= 1:
        return replace(record, votes=(*record.votes, answer))
    name = wait_choice(answer.wait)
    alternatives = tuple(
        replace(one, votes=(*one.votes, answer)) if one.name == name else one for one in record.alternatives
    )
    return replace(record, alternatives=alternatives)


def handed_over(record: StepRecord, delegation: Delegation, name: str | None) -> StepRecord:
    """The record with a vote handed over, at the alternative of that name."""
    if len(record.alternatives) <= 1:
        return replace(record, delegations=(*record.delegations, delegation))
    alternatives = tuple(
        replace(one, delegations=(*one.delegations, delegation)) if one.name == name else one
        for one in record.alternatives
    )
    return replace(record, alternatives=alternatives)


def with_last_vote(record: StepRecord, answer: Answer) -> StepRecord:
    """The record with the answer that settles it among the votes, if there was a quorum; a timeout is no vote."""
    if answer.timed_out:
        return record
    terms = answered(replace(record, answer=answer)).terms
    return record if terms is None or terms.quorum == 1 else voted(record, answer)


def _alone(record: StepRecord, alternative: Alternative) -> StepRecord:
    lapse = None if record.terms is None else record.terms.lapse
    return replace(
        record,
        alternatives=(alternative,),
        payload=alternative.payload,
        label=alternative.name,
        terms=replace(alternative.terms, lapse=lapse),
        votes=alternative.votes,
        delegations=alternative.delegations,
    )
