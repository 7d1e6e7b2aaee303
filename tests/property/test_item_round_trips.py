"""Any head and any record survive the journey into an item and back."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from flowcore.adapters.dynamodb_batch import decode_all, encode_batch
from flowcore.adapters.dynamodb_heads import decode_head, encode_head, replacement
from flowcore.adapters.dynamodb_joins import decode_join, encode_join
from flowcore.adapters.dynamodb_keys import record_key, step_key_of
from flowcore.adapters.dynamodb_notes import counted, decode_note, encode_note
from flowcore.adapters.dynamodb_records import decode_record, encode_record
from flowcore.core.fan import CHUNK
from flowcore.keys import RunRef, Scope, StepKey
from flowcore.model import (
    Alternative,
    Answer,
    Delegation,
    Delta,
    Head,
    Join,
    Lapse,
    Outcome,
    Part,
    Receipt,
    RunStatus,
    StepFailure,
    StepRecord,
    Terms,
    Trace,
    Verdict,
)

LARGE = 25
"""Examples of what takes long to draw: several things of which each has its own test."""

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
instants = st.integers(0, 4_102_444_800_000).map(
    lambda ms: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
)
maybe_instants = st.none() | instants
counts = st.integers(0, 10**6)
changes = st.dictionaries(texts, values, max_size=3)
names = st.from_regex(r"[A-Za-z0-9_](?:[A-Za-z0-9_ -]{0,6}[A-Za-z0-9_-])?", fullmatch=True)
places = st.tuples(names, st.sampled_from(["", "[0]", "[12]", "#1", "#34"])).map("".join)
keys = st.builds(
    lambda outer, last, once: StepKey("/".join([*outer, last]) + once),
    st.lists(places, max_size=3),
    places,
    st.sampled_from(["", "!receipt", "!a/b#1", "!#"]),
)
run_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,20}", fullmatch=True)
runs = st.builds(RunRef, run_ids, run_ids)

failures: st.SearchStrategy[StepFailure] = st.deferred(lambda: st.builds(StepFailure, **FAILURE))
FAILURE: dict[str, Any] = {
    "type": texts,
    "message": texts,
    "properties": changes,
    "cause": st.none() | failures,
    "step": st.none() | texts,
}
ANSWER: dict[str, Any] = {
    "wait": texts,
    "data": values,
    "digest": texts,
    "at": instants,
    "by": st.none() | texts,
    "via": texts,
    "idempotency_key": st.none() | texts,
    "on_behalf_of": st.none() | texts,
    "timed_out": st.booleans(),
    "among": st.lists(texts, max_size=3).map(tuple),
    "counted": st.booleans(),
}
answers = st.builds(Answer, **ANSWER)
DELTA: dict[str, Any] = {
    "state": st.dictionaries(texts, st.tuples(counts, values), max_size=3),
    "context": st.dictionaries(texts, st.tuples(counts, values) | st.tuples(counts), max_size=3),
}
deltas = st.builds(Delta, **DELTA)
DELEGATION: dict[str, Any] = {"seat": texts, "by": texts, "to": texts, "at": instants, "via": texts}
TERMS: dict[str, Any] = {
    "approvers": st.lists(texts, max_size=2).map(tuple),
    "quorum": counts,
    "veto": st.none() | texts,
    "allow_self": st.booleans(),
    "escalate": st.lists(st.tuples(counts, st.lists(texts, max_size=2).map(tuple)), max_size=2).map(tuple),
    "lapse": st.none()
    | st.builds(Lapse, st.none() | st.tuples(values))
    | names.map(lambda name: Lapse(None, step=name)),
    "listens": st.none() | st.tuples(texts, texts),
    "notify": st.none() | texts,
    "remind": st.lists(st.integers(0, 10**12).map(lambda ms: timedelta(milliseconds=ms)), max_size=2).map(tuple),
}
ALTERNATIVE: dict[str, Any] = {
    "name": texts,
    "payload": values,
    "resume": st.none() | texts,
    "terms": st.builds(Terms, **TERMS),
    "votes": st.lists(answers, max_size=2).map(tuple),
    "delegations": st.lists(st.builds(Delegation, **DELEGATION), max_size=2).map(tuple),
}
RECEIPT: dict[str, Any] = {
    "verdict": st.sampled_from(get_args(Verdict)),
    "wait": texts,
    "at": instants,
    "by": st.none() | texts,
    "via": texts,
    "step": st.none() | texts,
    "idempotency_key": st.none() | texts,
    "reason": st.none() | texts,
    "on_behalf_of": st.none() | texts,
    "to": st.none() | texts,
    "errors": st.lists(st.fixed_dictionaries({"path": texts, "message": texts}), max_size=2).map(tuple),
    "winner": st.none() | changes,
}
receipts = st.builds(Receipt, **RECEIPT)
RECORD: dict[str, Any] = {
    "key": keys,
    "outcome": st.sampled_from(Outcome),
    "gen": counts,
    "seq": counts,
    "epoch": counts,
    "at": instants,
    "started_at": instants,
    "output": values,
    "failure": st.none() | failures,
    "delta": deltas,
    "attempt": counts,
    "until": maybe_instants,
    "payload": values,
    "label": st.none() | texts,
    "listens": st.none() | st.tuples(texts, texts),
    "terms": st.none() | st.builds(Terms, **TERMS),
    "alternatives": st.lists(st.builds(Alternative, **ALTERNATIVE), max_size=2).map(tuple),
    "votes": st.lists(answers, max_size=2).map(tuple),
    "delegations": st.lists(st.builds(Delegation, **DELEGATION), max_size=2).map(tuple),
    "began": st.none() | counts,
    "given": st.none() | st.tuples(values),
    "instead": st.none() | st.tuples(names, counts),
    "answer": st.none() | answers,
    "asked": st.none() | st.tuples(counts, instants, counts),
    "spent": st.lists(answers, max_size=2).map(tuple),
    "opens": st.none() | keys.map(Scope),
    "count": st.none() | counts,
}
records = st.builds(StepRecord, **RECORD)
tags = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
TRACE: dict[str, Any] = {
    "trace_id": st.none() | texts,
    "parent_span_id": st.none() | texts,
    "tags": st.lists(tags, max_size=3).map(tuple),
    "metadata": changes,
    "context_keys": st.lists(texts, max_size=2).map(tuple),
}
PART: dict[str, Any] = {"run": names, "key": keys, "first": counts, "stop": counts, "top": names}
HEAD: dict[str, Any] = {
    "run": runs,
    "workflow": names,
    "definition": texts,
    "input": values,
    "input_hash": texts,
    "status": st.sampled_from(RunStatus),
    "created_at": instants,
    "updated_at": instants,
    "version": counts,
    "epoch": counts,
    "owner": st.none() | texts,
    "lease_until": maybe_instants,
    "incarnation": counts,
    "effects": st.none() | counts,
    "wake": maybe_instants,
    "due": maybe_instants,
    "attempts": counts,
    "hops": counts,
    "output": values,
    "failure": st.none() | failures,
    "blocked": st.none() | texts,
    "resource_id": st.none() | texts,
    "started_by": st.none() | texts,
    "canceled_by": st.none() | texts,
    "state": changes,
    "request_context": changes,
    "trace": st.builds(Trace, **TRACE),
    "continued": st.none() | st.builds(Trace, **TRACE),
    "waiting_since": maybe_instants,
    "deadline": maybe_instants,
    "expires_at": maybe_instants,
    "outbox": st.lists(st.sampled_from(("on_suspend", "on_error", "on_finish")), unique=True).map(tuple),
    "told_of": counts,
    "part": st.none() | st.builds(Part, **PART),
}
heads = st.builds(Head, **HEAD)


@given(heads)
def test_a_head_round_trips(head: Head) -> None:
    """Every field, exactly: equal, and written the same."""
    found = decode_head(encode_head(head, "t"))
    assert head == found
    assert _exact(head) == _exact(found)


some_items = st.frozensets(st.integers(0, CHUNK - 1))
JOIN: dict[str, Any] = {
    "key": keys,
    "incarnation": st.integers(1, 12_000),
    "chunk": st.integers(0, 5_000),
    "total": counts,
    "shard": counts,
    **dict.fromkeys(("done", "failed", "bailed", "parked", "asking"), some_items),
}


@given(st.builds(Join, **JOIN))
def test_a_join_round_trips(join: Join) -> None:
    """Whatever signs its key holds, and whichever sets are empty."""
    sets = ("done", "failed", "bailed", "parked", "asking")
    far: dict[str, Any] = {
        name: frozenset(join.chunk * CHUNK + place for place in getattr(join, name)) for name in sets
    }
    moved = replace(join, **far)
    assert moved == decode_join(encode_join("T#t#R#r", moved, "token", 1))


@given(runs, st.integers(1, 12_000), records)
def test_a_record_round_trips(run: RunRef, incarnation: int, record: StepRecord) -> None:
    """Every field, exactly: equal, and written the same."""
    found = decode_record(encode_record(run, incarnation, record, "t"))
    assert record == found
    assert _exact(record) == _exact(found)


@given(instants, names, receipts, receipts)
def test_a_receipt_round_trips(born: datetime, slot: str, receipt: Receipt, again: Receipt) -> None:
    """Every field; of the same that came again the time alone is kept."""
    first = encode_note(born, slot, "id", receipt, "t", 1)
    assert receipt == decode_note(first)
    assert _exact(receipt) == _exact(decode_note(first))
    expected = replace(receipt, times=2, last_at=again.at)
    assert expected == decode_note(counted(first, encode_note(born, slot, "id", again, "u", 1)))


@settings(max_examples=LARGE)
@given(runs, st.integers(1, 12_000), st.lists(records, min_size=2, max_size=3, unique_by=lambda record: record.key))
def test_folded_records_round_trip(run: RunRef, incarnation: int, drawn: list[StepRecord]) -> None:
    """Every field, exactly, of several in one item; whichever scopes they lie in."""
    settled = {record.key: replace(record, outcome=Outcome.OK, seq=number) for number, record in enumerate(drawn)}
    written = encode_batch(run, incarnation, [(record, None) for record in settled.values()], "t")
    found = {record.key: record for record in decode_all(item for item, _, _ in written)}
    assert settled == found
    assert {key: _exact(record) for key, record in settled.items()} == {key: _exact(r) for key, r in found.items()}


@settings(max_examples=LARGE)
@given(heads, heads)
def test_a_replaced_head_is_the_new_one(before: Head, after: Head) -> None:
    """Only what a run keeps for life is left of the old one, and no attribute is left over."""
    changed = replacement(after, "t").applied_to(encode_head(before, "s"))
    fixed = {name: getattr(before, name) for name in FIXED}
    expected = Head(**{**{each.name: getattr(after, each.name) for each in fields(Head)}, **fixed})
    found = decode_head(changed)
    assert expected == found
    assert encode_head(expected, "t").keys() == changed.keys()


KEPT_FOR_LIFE = ("workflow", "input", "input_hash", "created_at", "resource_id", "started_by", "trace", "part")
FIXED = ("run", *KEPT_FOR_LIFE, "state", "request_context")


@given(st.integers(1, 12_000), keys)
def test_a_sort_key_gives_the_step_key_back(incarnation: int, key: StepKey) -> None:
    """Whatever signs the scope, the key and the name of a side effect hold."""
    assert key == step_key_of(record_key(incarnation, key))


def test_every_field_is_drawn() -> None:
    """A field that no draw sets would not be noticed when it is not stored."""
    for model, drawn in (
        (Head, HEAD),
        (Trace, TRACE),
        (StepRecord, RECORD),
        (StepFailure, FAILURE),
        (Answer, ANSWER),
        (Terms, TERMS),
        (Alternative, ALTERNATIVE),
        (Delta, DELTA),
        (Delegation, DELEGATION),
        (Part, PART),
        (Join, JOIN),
        (Terms, TERMS),
        (Receipt, {**RECEIPT, "times": 2, "last_at": instants}),
    ):
        assert {each.name for each in fields(model)} == drawn.keys()


def _exact(value: Head | StepRecord | Receipt) -> str:
    """Tells 1 from 1.0 and from True."""
    return repr([getattr(value, each.name) for each in fields(value)])
