"""What the world is told of steps, where somebody has asked for it: one event for each change that users would see."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flowcore.adapters.dynamodb_batch import encode_batch
from flowcore.adapters.dynamodb_records import RECORD_PAYLOADS, encode_record
from flowcore.adapters.streams import change_of
from flowcore.cloudevents import KINDS, RUN_KINDS, Kind, Telling
from flowcore.model import Alternative, Outcome, StepFailure, StepRecord
from flowcore.parcels import Parcel, lazily
from flowcore.step_events import StepChange
from tests.builders import LATER, NOW, RUN, a_record, an_answer

STEPS = Telling(kinds=frozenset(KINDS))
LOUD = Telling(kinds=frozenset(KINDS), include_payload=True)
ASKED = a_record("approve", Outcome.SUSP, payload="large", label="boss", until=LATER)
ANSWERED = replace(
    ASKED, outcome=Outcome.RESU, gen=1, answer=an_answer({"ok": True}, "approve@0", by="ada", via="http")
)


def change(before: StepRecord | None, after: StepRecord | None, incarnation: int = 1) -> StepChange:
    """One record before and after a write."""
    return StepChange(
        run=RUN,
        incarnation=incarnation,
        before=[] if before is None else [before],
        after=[] if after is None else [after],
    )


ROWS: dict[str, tuple[StepRecord | None, StepRecord | None, list[Kind]]] = {
    "done": (None, a_record(outcome=Outcome.OK), ["step-success"]),
    "bailed": (None, a_record(outcome=Outcome.BAIL), ["step-bailed"]),
    "failed": (None, a_record(outcome=Outcome.ERR), ["step-failed"]),
    "skipped": (None, a_record(outcome=Outcome.SKIP), ["step-skipped"]),
    "asleep": (None, a_record(outcome=Outcome.SLP), ["step-waiting"]),
    "to be tried again": (None, a_record(outcome=Outcome.RETRY), ["step-retrying"]),
    "and again": (a_record(outcome=Outcome.RETRY), a_record(outcome=Outcome.RETRY, gen=1), ["step-retrying"]),
    "begun": (None, a_record(outcome=Outcome.START), []),
    "asks": (None, ASKED, ["step-suspended"]),
    "a vote is counted": (ASKED, replace(ASKED, gen=1, began=0), []),
    "answered": (ASKED, ANSWERED, ["step-resumed"]),
    "asks once more": (ANSWERED, replace(ASKED, gen=2), ["step-suspended"]),
    "written again": (ASKED, ASKED, []),
    "a side effect": (None, a_record("approve!mail"), []),
    "removed": (a_record(), None, []),
}


@pytest.mark.parametrize(("before", "after", "expected"), ROWS.values(), ids=ROWS)
def test_change_of_a_record_tells_what_users_would_see(before: Any, after: Any, expected: list[Kind]) -> None:
    """A write that is no outcome tells nothing."""
    assert expected == [event.kind for event in change(before, after).told(STEPS)]


def test_steps_are_told_of_by_name_only() -> None:
    """Who has not asked for them hears of runs alone; and every kind there is can be heard."""
    assert [] == change(None, a_record()).told(Telling())
    seen = {event.kind for before, after, _ in ROWS.values() for event in change(before, after).told(STEPS)}
    assert set(KINDS) - set(RUN_KINDS) == seen


def test_event_of_a_step_carries_no_values_unless_asked() -> None:
    """Who answered over which channel is no value; what he said is."""
    (quiet,), (loud,) = change(ASKED, ANSWERED).told(STEPS), change(ASKED, ANSWERED).told(LOUD)
    assert {"step": "approve", "by": "ada", "via": "http"}.items() <= quiet.data.items()
    assert not {"resume_data", "output", "payload", "error"} & set(quiet.data)
    assert {"ok": True} == loud.data["resume_data"]
    (asked,) = change(None, ASKED).told(LOUD)
    assert ("approve@0", "boss", "large") == (asked.data["wait"], asked.data["label"], asked.data["payload"])
    (failed,) = change(None, a_record(outcome=Outcome.ERR, failure=StepFailure(type="ValueError", message="no"))).told(
        LOUD
    )
    assert "ValueError" == failed.data["error"]["type"]


def test_copy_in_a_later_life_is_the_same_event() -> None:
    """Time travel takes records along; whoever has heard of them knows them again."""
    first, second = (change(None, a_record(), life).told(STEPS)[0] for life in (1, 2))
    assert first.id == second.id
    assert first.id != change(None, a_record(at=LATER)).told(STEPS)[0].id


def test_records_are_read_from_the_stream_folded_or_not() -> None:
    """Several in one item are told of one by one."""
    alone = encode_record(RUN, 2, ASKED, "t")
    keys = {"pk": alone["pk"], "sk": alone["sk"]}
    assert change(None, ASKED, 2) == change_of({"dynamodb": {"Keys": keys, "NewImage": alone}})
    members = [a_record(f"s{number}", seq=number, at=NOW) for number in range(3)]
    [(item, _, _)] = encode_batch(RUN, 1, [(member, None) for member in members], "t")
    keys = {"pk": item["pk"], "sk": item["sk"]}
    folded = change_of({"dynamodb": {"Keys": keys, "NewImage": item}})
    assert isinstance(folded, StepChange)
    assert ["s0", "s1", "s2"] == [event.data["step"] for event in folded.told(STEPS)]


ONE = (Alternative(name="boss"),)
SEVERAL = (Alternative(name="boss"), Alternative(name="paid"))
ALL = [outcome for outcome in Outcome if outcome is not Outcome.START]


@pytest.mark.parametrize("field", sorted(RECORD_PAYLOADS.values()))
@pytest.mark.parametrize("outcome", ALL)
def test_values_that_lie_in_the_bucket_hold_up_no_event(field: str, outcome: Outcome) -> None:
    """The function that tells reads no bucket; what it would have told of such a value is named instead."""
    record = a_record("approve", outcome, **({"answer": an_answer("yes")} if outcome is Outcome.RESU else {}))
    far = lazily(
        record, {field: Parcel("bucket", "t-default/r-r-1/k", "0" * 64, 70_000)}, lambda *_: pytest.fail("read")
    )
    for telling in (STEPS, LOUD):
        assert change(None, record).told(telling)[0].id == as_streamed(far).told(telling)[0].id


def test_event_of_a_large_answer_says_that_it_does_not_say_whose() -> None:
    """Who answered is stored with what he said; whoever wants to know reads the run."""
    far = lazily(ANSWERED, {"answer": Parcel("bucket", "k", "0" * 64, 70_000)}, lambda *_: pytest.fail("read"))
    (quiet,), (loud,) = as_streamed(far).told(STEPS), as_streamed(far).told(LOUD)
    assert ["by", "via"] == quiet.data["omitted"]
    assert ["by", "via", "resume_data"] == loud.data["omitted"]
    assert not {"by", "via", "resume_data"} & set(loud.data)


@pytest.mark.parametrize(("asked", "wait"), [(SEVERAL, "approve@0"), (ONE, "approve@0:boss")])
def test_suspension_has_its_id_wherever_its_alternatives_lie(asked: tuple[Alternative, ...], wait: str) -> None:
    """A single alternative is part of the id; whether there is but one is told without reading them."""
    record = replace(ASKED, label="boss" if asked == ONE else None, alternatives=asked)
    far = lazily(record, {"alternatives": Parcel("bucket", "k", "0" * 64, 70_000)}, lambda *_: pytest.fail("read"))
    assert [wait, wait] == [as_streamed(one).told(STEPS)[0].data["wait"] for one in (record, far)]


def as_streamed(record: StepRecord) -> StepChange:
    """The first write of a record, as the table's stream tells it."""
    item = encode_record(RUN, 1, record, "t")
    found = change_of({"dynamodb": {"Keys": {name: item[name] for name in ("pk", "sk")}, "NewImage": item}})
    assert isinstance(found, StepChange)
    return found
