"""Who may answer a suspension, and for whom: seats.

Pure. Each approver has a seat, and so has everybody whom the ladder of reminders has added by now. Whoever holds a seat
answers for it: its owner, or whom he has handed it to, or whom that one has handed it on to. A person answers once, and
a seat is answered for once. Where nobody is named, everybody has a seat of his own.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from flowcore.errors import AlreadyResumed, CannotDelegate, NotAnApprover, RequestError
from flowcore.keys import dotted
from flowcore.model import Answer, Delegation, Head, StepRecord, Terms, seats_of, wait_id

MOST_DELEGATIONS = 100
"""Times that votes of one suspension can be handed over: each stands in its record."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Whose vote an answer is: ``owner`` is None where everybody has one of his own."""

    owner: str | None


@dataclass(frozen=True, slots=True)
class Given:
    """This person has answered before, with this."""

    vote: Answer


@dataclass(frozen=True, slots=True)
class Turned:
    """This person cannot do that."""

    error: RequestError


def seat_for(head: Head, record: StepRecord, by: str | None, now: datetime) -> Seat | Given | Turned:
    """The seat that ``by`` answers for."""
    terms = record.terms or Terms()
    is_named = bool(terms.approvers) or terms.quorum > 1 or not terms.allow_self
    if is_named and by is None:
        return _turned(head, record, by)
    if (why := _own_run(head, terms, by)) is not None:
        return _turned(head, record, by, why)
    for vote in record.votes:
        if vote.by == by:
            return Given(vote)
    if not terms.approvers:
        return Seat(None)
    held = _held(record, by, now)
    if not held:
        return _turned(head, record, by, _handed_over(record, by))
    return Seat(held[0])


def handing_over(
    head: Head, record: StepRecord, by: str | None, to: str, now: datetime
) -> tuple[str, Delegation | None] | Turned:
    """The seat that ``by`` hands over to ``to``; and the delegation, if it is that already."""
    terms, step, wait = record.terms or Terms(), dotted(record.key), wait_id(record, head.incarnation)
    if terms.approvers and by is None:
        return _turned(head, record, by)
    if terms.approvers and (why := _own_run(head, terms, by)) is not None:
        return _turned(head, record, by, why)
    last = {delegation.seat: delegation for delegation in record.delegations}
    for delegation in last.values():
        if (delegation.by, delegation.to) == (by, to):
            return delegation.seat, delegation
    held = _held(record, by, now)
    if terms.approvers and not held:
        for vote in (vote for vote in record.votes if vote.by == by):
            winner = {"at": vote.at.isoformat(), "by": by, "via": vote.via}
            return Turned(AlreadyResumed(head.run.id, step, winner, wait=wait))
        return _turned(head, record, by, _handed_over(record, by))
    why = _why_not(head, record, held, to, now)
    return (held[0], None) if why is None else Turned(CannotDelegate(head.run.id, step, why, wait=wait))


def _why_not(head: Head, record: StepRecord, held: list[str], to: str, now: datetime) -> str | None:
    """Why ``to`` cannot get the first of the seats that are held."""
    terms = record.terms or Terms()
    if not held:
        return "names nobody: everybody may answer for himself, so there is no vote to hand over"
    had = {delegation.by for delegation in record.delegations if delegation.seat == held[0]}
    if to in {held[0], *had}:
        return f"has had {to!r} hold this vote before; name somebody else, or it goes in a circle"
    if to in seats_of(record, _rung(record, now)).values():
        return f"has a vote for {to!r} already, and nobody counts twice"
    if to in seats_of(record, len(terms.remind)).values():
        return f"will have a vote for {to!r} after a reminder, and nobody counts twice"
    if not terms.allow_self and to == head.started_by:
        return f"does not let {to!r} answer, who started the run"
    if len(record.delegations) >= MOST_DELEGATIONS:
        return f"has seen {MOST_DELEGATIONS} votes handed over, the most there may be"
    return None


def _held(record: StepRecord, by: str | None, now: datetime) -> list[str]:
    """The seats that somebody holds and that nobody has answered for."""
    answered = {vote.on_behalf_of or vote.by for vote in record.votes}
    seats = seats_of(record, _rung(record, now))
    return [owner for owner, holder in seats.items() if holder == by and owner not in answered]


def _rung(record: StepRecord, now: datetime) -> int:
    return (record.terms or Terms()).rungs(record.at, now)[0]


def _own_run(head: Head, terms: Terms, by: str | None) -> str | None:
    """Why nobody, or not this person, may answer where whoever started the run must not."""
    if terms.allow_self:
        return None
    if head.started_by is None:
        return (
            "does not let whoever started the run answer, and who that was is not known. "
            "Start such runs with start(by=...); over HTTP behind an authorizer."
        )
    if by == head.started_by:
        return f"does not let {by!r} answer, who started the run. Let somebody else answer."
    return None


def _handed_over(record: StepRecord, by: str | None) -> str:
    """What somebody is told who has no seat, because he gave it away; empty when he never had one."""
    given = [delegation.to for delegation in record.delegations if delegation.by == by]
    return f"had {by!r} hand over the vote to {given[-1]!r}, who answers now." if given else ""


def _turned(head: Head, record: StepRecord, by: str | None, why: str = "") -> Turned:
    wait = wait_id(record, head.incarnation)
    return Turned(NotAnApprover(head.run.id, dotted(record.key), by, why=why, wait=wait))
