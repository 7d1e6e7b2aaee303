"""The values inside an item's payloads as plain JSON, and back: failures, changes, answers, terms, traces.

Keys are one or two letters and what is at its default is left out, because DynamoDB bills every byte. What is read may
have been written by any earlier version: a key that is missing means its default.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from flowcore.adapters.dynamodb_attributes import from_ms, to_ms
from flowcore.keys import StepKey
from flowcore.model import (
    NO_CHANGE,
    Alternative,
    Answer,
    Delegation,
    Delta,
    Json,
    Lapse,
    Part,
    Receipt,
    StepFailure,
    StepRecord,
    Terms,
    Trace,
)

_MILLISECOND = timedelta(milliseconds=1)


def failure_json(failure: StepFailure | None) -> Json:
    """A failure with its causes."""
    if failure is None:
        return None
    return dense(
        t=failure.type,
        m=failure.message,
        p=dict(failure.properties) or None,
        c=failure_json(failure.cause),
        s=failure.step,
    )


def failure_of(value: Json) -> StepFailure | None:
    """The failure that ``failure_json`` wrote."""
    if value is None:
        return None
    return StepFailure(
        type=value["t"],
        message=value["m"],
        properties=value.get("p", {}),
        cause=failure_of(value.get("c")),
        step=value.get("s"),
    )


def marks_json(trace: Trace) -> Json:
    """All of a trace but its id and its tags, which have attributes of their own."""
    return dense(p=trace.parent_span_id, m=dict(trace.metadata) or None, k=list(trace.context_keys) or None)


def trace_json(trace: Trace | None) -> Json:
    """A whole trace."""
    if trace is None:
        return None
    return {**(marks_json(trace) or {}), **(dense(t=trace.trace_id, g=list(trace.tags) or None) or {})}


def trace_of(value: Json) -> Trace:
    """The trace that ``trace_json`` wrote."""
    return Trace(
        trace_id=value.get("t"),
        parent_span_id=value.get("p"),
        tags=tuple(value.get("g", ())),
        metadata=value.get("m", {}),
        context_keys=tuple(value.get("k", ())),
    )


def delta_json(delta: Delta) -> Json:
    """Stamped changes of the shared values; a removed key has its stamp alone."""
    stamped = {name: {key: list(entry) for key, entry in part.items()} for name, part in _parts(delta)}
    return dense(s=stamped["s"] or None, c=stamped["c"] or None)


def _parts(delta: Delta) -> tuple[tuple[str, Mapping[str, tuple[Json, ...]]], ...]:
    return ("s", delta.state), ("c", delta.context)


def delta_of(value: Json) -> Delta:
    """The changes that ``delta_json`` wrote."""
    if value is None:
        return NO_CHANGE
    state, context = ({key: tuple(entry) for key, entry in value.get(name, {}).items()} for name in ("s", "c"))
    return Delta(state=state, context=context)


def answer_json(answer: Answer | None) -> Json:
    """One answer."""
    if answer is None:
        return None
    return dense(
        w=answer.wait,
        d=answer.data,
        h=answer.digest,
        at=to_ms(answer.at),
        by=answer.by,
        via=answer.via,
        k=answer.idempotency_key,
        f=answer.on_behalf_of,
        to=answer.timed_out or None,
        o=_packed(answer.among) if answer.among else None,
        c=answer.counted or None,
    )


def answer_of(value: Json) -> Answer | None:
    """The answer that ``answer_json`` wrote."""
    if value is None:
        return None
    return Answer(
        wait=value["w"],
        data=value.get("d"),
        digest=value["h"],
        at=from_ms(value["at"]),
        by=value.get("by"),
        via=value["via"],
        idempotency_key=value.get("k"),
        on_behalf_of=value.get("f"),
        timed_out=value.get("to", False),
        among=_unpacked(value["o"]) if "o" in value else (),
        counted=value.get("c", False),
    )


def _packed(ids: Iterable[str]) -> str:
    """Many texts that are nearly the same: one answer may be for 10,000 items."""
    return b64encode(zlib.compress(json.dumps(list(ids)).encode())).decode()


def _unpacked(packed: str) -> tuple[str, ...]:
    return tuple(json.loads(zlib.decompress(b64decode(packed))))


def receipt_json(receipt: Receipt) -> Json:
    """One receipt, but for how often it came."""
    return dense(
        v=receipt.verdict,
        w=receipt.wait or None,
        at=to_ms(receipt.at),
        by=receipt.by,
        via=receipt.via,
        s=receipt.step,
        k=receipt.idempotency_key,
        r=receipt.reason,
        f=receipt.on_behalf_of,
        to=receipt.to,
        e=[dict(row) for row in receipt.errors] or None,
        x=None if receipt.winner is None else dict(receipt.winner),
    )


def receipt_of(value: Json) -> Receipt:
    """The receipt that ``receipt_json`` wrote."""
    return Receipt(
        verdict=value["v"],
        wait=value.get("w", ""),
        at=from_ms(value["at"]),
        by=value.get("by"),
        via=value["via"],
        step=value.get("s"),
        idempotency_key=value.get("k"),
        reason=value.get("r"),
        on_behalf_of=value.get("f"),
        to=value.get("to"),
        errors=tuple(value.get("e", ())),
        winner=value.get("x"),
    )


def asked_json(record: StepRecord) -> Json:
    """Order and time of the settled suspension, and the order of its answer."""
    return None if record.asked is None else [record.asked[0], to_ms(record.asked[1]), record.asked[2]]


def asked_of(value: Json) -> tuple[int, datetime, int] | None:
    """What ``asked_json`` wrote."""
    return None if value is None else (value[0], from_ms(value[1]), value[2])


def terms_json(terms: Terms | None) -> Json:
    """What else a suspension was asked for."""
    if terms is None:
        return None
    lapse = None if terms.lapse is None else terms.lapse.step or list(terms.lapse.output or ())
    return {
        name: value
        for name, value in {
            "a": list(terms.approvers) or None,
            "q": None if terms.quorum == 1 else terms.quorum,
            "s": None if terms.allow_self else False,
            "v": terms.veto,
            "l": lapse,
            "e": list(terms.listens) if terms.listens else None,
            "n": terms.notify,
            "r": [pause // _MILLISECOND for pause in terms.remind] or None,
            "x": [[rung, list(names)] for rung, names in terms.escalate] or None,
        }.items()
        if value is not None
    }


def terms_of(value: Json) -> Terms:
    """The terms that ``terms_json`` wrote."""
    lapse = value.get("l")
    return Terms(
        approvers=tuple(value.get("a", ())),
        quorum=value.get("q", 1),
        allow_self=value.get("s", True),
        veto=value.get("v"),
        lapse=None if lapse is None else _lapse_of(lapse),
        listens=pair_of(value.get("e")),
        notify=value.get("n"),
        remind=tuple(pause * _MILLISECOND for pause in value.get("r", ())),
        escalate=tuple((rung, tuple(names)) for rung, names in value.get("x", ())),
    )


def _lapse_of(value: Json) -> Lapse:
    """A name is that of a step; a list holds an output, or nothing."""
    return Lapse(None, step=value) if isinstance(value, str) else Lapse(given_of(value or None))


def alternatives_json(alternatives: Sequence[Alternative]) -> Json:
    """What a suspension waits for, of which one is enough; None when there is no choice."""
    found = [
        dense(
            n=one.name,
            p=one.payload,
            r=one.resume,
            t=terms_json(one.terms) or None,
            v=[answer_json(vote) for vote in one.votes] or None,
            d=delegations_json(one.delegations),
        )
        for one in alternatives
    ]
    return found or None


def alternatives_of(values: Sequence[Json]) -> tuple[Alternative, ...]:
    """The alternatives that ``alternatives_json`` wrote."""
    return tuple(
        Alternative(
            name=value["n"],
            payload=value.get("p"),
            resume=value.get("r"),
            terms=terms_of(value.get("t", {})),
            votes=answers_of(value.get("v", ())),
            delegations=delegations_of(value.get("d", ())),
        )
        for value in values
    )


def delegations_json(delegations: Sequence[Delegation]) -> Json:
    """Votes that were handed over."""
    return [[each.seat, each.by, each.to, to_ms(each.at), each.via] for each in delegations] or None


def delegations_of(values: Sequence[Json]) -> tuple[Delegation, ...]:
    """What ``delegations_json`` wrote."""
    return tuple(Delegation(seat=seat, by=by, to=to, at=from_ms(at), via=via) for seat, by, to, at, via in values)


def pair_of(value: Json) -> tuple[str, str] | None:
    """A name and a key."""
    return None if value is None else (value[0], value[1])


def instead_of(value: Json) -> tuple[str, int]:
    """A stand-in and the generation since which it runs."""
    return value[0], value[1]


def given_of(value: Json) -> tuple[Json] | None:
    """The one value of a list."""
    return None if value is None else (value[0],)


def answers_of(values: Sequence[Json]) -> tuple[Answer, ...]:
    """Several answers."""
    answers = (answer_of(value) for value in values)
    return tuple(answer for answer in answers if answer is not None)


def dense(**values: Json) -> Json:
    """The values that are there; None when none is."""
    return {name: value for name, value in values.items() if value is not None} or None


def part_json(part: Part | None) -> Json:
    """What a run is a part of, as plain JSON."""
    return None if part is None else [part.run, part.key, part.first, part.stop, part.top]


def part_of(value: Json) -> Part:
    """The part that ``part_json`` wrote."""
    run, key, first, stop, top = value
    return Part(run=run, key=StepKey(key), first=first, stop=stop, top=top)
