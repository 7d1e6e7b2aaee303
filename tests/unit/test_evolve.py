"""What happened, folded into a snapshot; and the heads that writes leave."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.core import heads
from flowcore.core.evolve import (
    Adopted,
    Answered,
    Changes,
    Failed,
    FailedOnce,
    FellAsleep,
    Opened,
    Skipped,
    StepEvent,
    Succeeded,
    Suspended,
    context_at,
    evolve,
    fold,
    kept,
    state_at,
)
from flowcore.errors import InvariantError
from flowcore.keys import Scope, StepKey
from flowcore.model import RUN_CHANGES, STEP_CHANGES, TERMINAL, Delta, Head, Outcome, RunStatus
from tests.builders import BEFORE, BROKEN, LATER, NOW, a_head, a_record, a_run, an_answer

X = StepKey("x")
NEVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""What some mean by it."""

EVENTS: dict[Outcome, StepEvent] = {
    Outcome.OK: Succeeded(key=X, output=5, started_at=BEFORE),
    Outcome.BAIL: Succeeded(key=X, output=5, started_at=BEFORE, bailed=True),
    Outcome.ERR: Failed(key=X, failure=BROKEN, started_at=BEFORE),
    Outcome.RETRY: FailedOnce(key=X, failure=BROKEN, started_at=BEFORE, attempt=1, until=LATER),
    Outcome.SUSP: Suspended(key=X, payload={"why": 1}, label="l", until=LATER, started_at=BEFORE),
    Outcome.RESU: Answered(key=X, answer=an_answer(True, "x@0")),
    Outcome.SLP: FellAsleep(key=X, until=LATER, started_at=BEFORE),
    Outcome.START: Opened(key=X, value=3, opens=Scope("x"), count=2, started_at=BEFORE),
    Outcome.SKIP: Skipped(key=X),
}


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("prior", [None, *Outcome])
def test_only_the_rows_of_the_table_happen(prior: Outcome | None, outcome: Outcome) -> None:
    """Each cell of ``STEP_CHANGES``: allowed changes are made, every other one is a broken promise."""
    run = a_run() if prior is None else a_run(a_record("x", prior))
    if outcome in STEP_CHANGES[prior]:
        after = evolve(run, EVENTS[outcome], NOW)
        assert outcome is after.records[X].outcome
        assert (0 if prior is None else 1) == after.records[X].gen
    else:
        with pytest.raises(InvariantError, match=f"cannot go from .* to '{outcome.value}'"):
            evolve(run, EVENTS[outcome], NOW)


FIELDS: list[tuple[Outcome, dict[str, Any]]] = [
    (Outcome.OK, {"output": 5, "attempt": 1}),
    (Outcome.BAIL, {"output": 5}),
    (Outcome.ERR, {"failure": BROKEN, "output": None}),
    (Outcome.RETRY, {"failure": BROKEN, "until": LATER}),
    (Outcome.SUSP, {"payload": {"why": 1}, "label": "l", "until": LATER, "answer": None}),
    (Outcome.SLP, {"until": LATER}),
    (Outcome.START, {"output": 3, "opens": "x", "count": 2}),
    (Outcome.SKIP, {"output": None}),
]


@pytest.mark.parametrize(("outcome", "fields"), FIELDS)
def test_a_record_holds_what_its_event_said(outcome: Outcome, fields: dict[str, Any]) -> None:
    """And when, under which claim, after which other records."""
    record = evolve(a_run(a_record("other", seq=7), epoch=3), EVENTS[outcome], NOW).records[X]
    assert fields == {name: getattr(record, name) for name in fields}
    assert (8, 3, NOW) == (record.seq, record.epoch, record.at)
    assert (NOW if outcome is Outcome.SKIP else BEFORE) == record.started_at


def test_a_place_keeps_its_memory() -> None:
    """After an answer the payload, the label and the first start are still known."""
    asked = a_record("x", Outcome.SUSP, payload="why", label="l", started_at=BEFORE)
    answered = evolve(a_run(asked), EVENTS[Outcome.RESU], NOW)
    done = evolve(answered, Succeeded(key=X, output=1, started_at=NOW), NOW).records[X]
    assert ("why", "l", BEFORE, 2) == (done.payload, done.label, done.started_at, done.gen)
    assert done.answer == an_answer(True, "x@0")


@pytest.mark.parametrize(
    ("answer", "spent"),
    [
        (an_answer(True), ()),
        (an_answer(True, idempotency_key="k-1"), (an_answer(None, idempotency_key="k-1"),)),
    ],
    ids=["without a key", "with a key"],
)
def test_a_second_suspension_remembers_spent_keys(answer: Any, spent: Any) -> None:
    """Without their data; an answer without a key cannot be repeated."""
    run = a_run(a_record("x", Outcome.RESU, answer=answer, spent=(an_answer(None, idempotency_key="k-0"),)))
    record = evolve(run, EVENTS[Outcome.SUSP], NOW).records[X]
    assert (an_answer(None, idempotency_key="k-0"), *spent) == record.spent
    assert record.answer is None


def test_a_retry_after_an_answer_keeps_the_answer() -> None:
    """The next try is resumed as well."""
    run = a_run(a_record("x", Outcome.RESU, answer=an_answer(True)))
    assert an_answer(True) == evolve(run, EVENTS[Outcome.RETRY], NOW).records[X].answer


def test_evolve_leaves_the_old_snapshot_alone() -> None:
    """A snapshot is a value."""
    before = a_run()
    evolve(before, EVENTS[Outcome.OK], NOW)
    assert ({}, 0) == (dict(before.records), before.last_seq)


def test_an_adopted_record_is_taken_as_it_is() -> None:
    """Another worker's record says what happened."""
    other = a_record("x", seq=9, epoch=7, delta=Delta(state={"k": (9, 1)}))
    after = evolve(a_run(), Adopted(record=other), NOW)
    assert (other, 9, {"k": 1}) == (after.records[X], after.last_seq, state_at(after, X))


def test_an_adopted_old_record_does_not_turn_back_time() -> None:
    """What comes next is after everything that is known."""
    assert 9 == evolve(a_run(a_record("y", seq=9)), Adopted(record=a_record("x", seq=2)), NOW).last_seq


def test_kept_makes_a_record_of_a_side_effect() -> None:
    """What ``once`` stored has an output and no start of its own."""
    record = kept(a_run(a_record("y", seq=4), epoch=3), StepKey("x!mail"), "sent", NOW)
    assert (Outcome.OK, "sent", 5, 3, NOW) == (record.outcome, record.output, record.seq, record.epoch, record.at)


# -- the shared values ------------------------------------------------------------------------------------------------


def test_the_later_change_of_a_key_wins() -> None:
    """Whatever order records are read in."""
    one, two = (a_record(key, seq=seq, delta=Delta(state={"k": (seq, key)})) for seq, key in ((3, "x"), (5, "y")))
    for records in ([one, two], [two, one]):
        assert {"k": "y"} == state_at(fold(a_head(), records), X)


def test_the_state_begins_with_that_of_the_start() -> None:
    """Keys that nobody changed stay."""
    run = a_run(a_record("x", delta=Delta(state={"a": (1, 2)})), state={"a": 1, "b": 1})
    assert {"a": 2, "b": 1} == state_at(run, X)


def test_a_removed_key_of_the_context_stays_removed() -> None:
    """Until somebody sets it again."""
    records = [
        a_record("x", seq=1, delta=Delta(context={"a": (1,), "b": (1, 2)})),
        a_record("y", seq=2, delta=Delta(context={"b": (2,), "c": (2, None)})),
    ]
    assert {"c": None, "d": 0} == context_at(a_run(*records, request_context={"a": 1, "d": 0}), X)
    again = a_record("z", seq=3, delta=Delta(context={"a": (3, 9)}))
    assert 9 == context_at(a_run(*records, again), X)["a"]


def test_changes_inside_a_container_are_seen_inside_only() -> None:
    """Until it closes, when they become visible behind it, with their own order."""
    inner = a_record("child/c", seq=2, delta=Delta(state={"k": (2, "inner")}))
    run = a_run(a_record("child", Outcome.START, seq=1), inner, state={"k": "first"})
    assert "first" == state_at(run, X)["k"]
    assert "inner" == state_at(run, StepKey("child/d"))["k"]
    closing = Succeeded(key=StepKey("child"), output=1, started_at=NOW, closes=Scope("child"))
    assert "inner" == state_at(evolve(run, closing, NOW), X)["k"]


def test_a_closing_container_undoes_nobody() -> None:
    """A sibling's later change of the same key stands, although the container closes after it."""
    inner = a_record("child/c", seq=2, delta=Delta(state={"k": (2, "inner")}))
    sibling = a_record("q", seq=3, delta=Delta(state={"k": (3, "sibling")}))
    run = a_run(a_record("child", Outcome.START, seq=1), inner, sibling)
    closing = Succeeded(key=StepKey("child"), output=1, started_at=NOW, closes=Scope("child"))
    assert "sibling" == state_at(evolve(run, closing, NOW), X)["k"]


def test_a_turn_hands_its_changes_to_the_next() -> None:
    """The next turn sees them, although the records of the turn before are not loaded again."""
    inner = a_record("x#1", seq=2, delta=Delta(state={"k": (2, 1)}))
    run = a_run(a_record("x", Outcome.START, seq=1, count=1), inner)
    event = Opened(key=X, value=1, opens=Scope("x#2"), count=2, started_at=NOW, closes=Scope("x#1"))
    after = evolve(run, event, NOW)
    reloaded = fold(after.head, [after.records[X]])
    assert {"k": 1} == state_at(reloaded, StepKey("x#2"))


def test_closing_an_untouched_scope_changes_nothing() -> None:
    """No delta is written where there was no change."""
    run = a_run(a_record("child", Outcome.START))
    closing = Succeeded(key=StepKey("child"), output=1, started_at=NOW, closes=Scope("child"))
    assert not evolve(run, closing, NOW).records[StepKey("child")].delta


def test_changes_are_stamped_with_their_record() -> None:
    """State, context and removed keys alike; no change is no delta."""
    changes = Changes(state={"s": 1}, context={"c": 2}, removed=frozenset({"r"}))
    assert Delta(state={"s": (4, 1)}, context={"c": (4, 2), "r": (4,)}) == changes.stamped(4)
    assert not Changes().stamped(4)


def test_a_suspension_keeps_its_changes() -> None:
    """What a step set before it suspended is there when it goes on, and both passes add up."""
    first = Suspended(
        key=X, payload=None, label=None, until=None, started_at=NOW, changes=Changes(state={"a": 1, "b": 1})
    )
    run = evolve(a_run(), first, NOW)
    assert {"a": 1, "b": 1} == state_at(run, X)
    done = Succeeded(key=X, output=1, started_at=NOW, changes=Changes(state={"b": 2}))
    after = evolve(evolve(run, EVENTS[Outcome.RESU], NOW), done, NOW)
    assert {"a": 1, "b": 2} == state_at(after, StepKey("y"))


Stamps = st.dictionaries(st.sampled_from("abc"), st.tuples(st.integers(1, 9), st.integers(1, 9)))


@given(Stamps, Stamps, Stamps)
def test_merging_does_not_depend_on_the_grouping(one: Any, two: Any, three: Any) -> None:
    """Any two deltas may be merged first."""
    a, b, c = Delta(state=one), Delta(state=two), Delta(state=three)
    assert a.merged(b).merged(c) == a.merged(b.merged(c))


# -- the head ---------------------------------------------------------------------------------------------------------

MOVES: dict[str, tuple[Head, dict[str, Any]]] = {
    "held": (
        heads.held(a_head(status=RunStatus.QUEUED, epoch=4, wake=NOW), NOW, owner="w", lease_until=LATER),
        {
            "status": RunStatus.RUNNING,
            "epoch": 5,
            "attempts": 2,
            "owner": "w",
            "wake": None,
            "due": LATER + heads.LEASE_GRACE,
        },
    ),
    "queued": (
        heads.queued(a_head(status=RunStatus.SUSPENDED, wake=LATER), NOW),
        {"status": RunStatus.QUEUED, "wake": None, "due": NOW + heads.QUEUED_GRACE, "epoch": 1},
    ),
    "queued while driven": (
        heads.queued(a_head(), NOW),
        {"status": RunStatus.RUNNING, "due": LATER, "owner": "w-1", "lease_until": LATER},
    ),
    "queued after a block": (
        heads.queued(a_head(status=RunStatus.BLOCKED, blocked="why"), NOW),
        {"status": RunStatus.QUEUED, "blocked": None},
    ),
    "held after a block": (
        heads.held(a_head(status=RunStatus.BLOCKED, blocked="why"), NOW, owner="w", lease_until=LATER),
        {"status": RunStatus.RUNNING, "blocked": None},
    ),
    "handed on after something was done": (
        heads.handed_on(a_head(hops=3), NOW, has_moved=True),
        {"status": RunStatus.QUEUED, "hops": 1},
    ),
    "queued while paused": (heads.queued(a_head(status=RunStatus.PAUSED), NOW), {"status": RunStatus.PAUSED}),
    "parked asleep": (
        heads.parked(a_head(hops=3), NOW, RunStatus.WAITING, LATER),
        {
            "status": RunStatus.WAITING,
            "wake": LATER,
            "due": LATER + heads.WAKE_GRACE,
            "owner": None,
            "attempts": 0,
            "hops": 0,
        },
    ),
    "parked suspended": (
        heads.parked(a_head(), NOW, RunStatus.SUSPENDED, None),
        {"status": RunStatus.SUSPENDED, "wake": None, "due": None, "lease_until": None},
    ),
    "handed on": (
        heads.handed_on(a_head(hops=3), NOW),
        {"status": RunStatus.QUEUED, "hops": 4, "attempts": 0, "owner": None, "due": NOW + heads.QUEUED_GRACE},
    ),
    "succeeded": (
        heads.finished(a_head(), NOW, output=5),
        {"status": RunStatus.SUCCESS, "output": 5, "failure": None, "due": None, "wake": None, "owner": None},
    ),
    "failed": (
        heads.finished(a_head(), NOW, failure=BROKEN),
        {"status": RunStatus.FAILED, "failure": BROKEN, "due": None},
    ),
    "blocked": (
        heads.blocked(a_head(), NOW, "because"),
        {"status": RunStatus.BLOCKED, "blocked": "because", "due": None, "owner": None},
    ),
    "canceled": (
        heads.canceled(a_head(status=RunStatus.WAITING, wake=LATER), NOW),
        {"status": RunStatus.CANCELED, "epoch": 2, "due": None, "wake": None, "owner": None},
    ),
}


@pytest.mark.parametrize(("head", "fields"), MOVES.values(), ids=MOVES)
def test_a_head_moves(head: Head, fields: dict[str, Any]) -> None:
    """Each write counts the version up; whoever must act is called for by ``due``, nobody else is."""
    assert fields == {name: getattr(head, name) for name in fields}
    assert (3, NOW) == (head.version, head.updated_at)


def test_the_clock_of_a_run_never_goes_back() -> None:
    """A machine whose clock is late does not turn back the run's time."""
    assert LATER == heads.queued(a_head(updated_at=LATER), NOW).updated_at


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_an_ended_run_does_not_move(status: RunStatus) -> None:
    """Not even to the same status again."""
    with pytest.raises(InvariantError):
        heads.canceled(a_head(status=status), NOW)


@pytest.mark.parametrize("target", RunStatus)
@pytest.mark.parametrize("status", RunStatus)
def test_only_the_rows_of_the_table_of_runs_happen(status: RunStatus, target: RunStatus) -> None:
    """Each cell of ``RUN_CHANGES``; staying is a change like any other."""
    head = a_head(status=status)
    if target in RUN_CHANGES[status]:
        assert target is heads._moved(head, target, NOW).status
    else:
        with pytest.raises(InvariantError, match="'r-1' at version 2"):
            heads._moved(head, target, NOW)


@pytest.mark.parametrize(
    ("move", "due"),
    [
        (lambda: heads.parked(a_head(), NOW, RunStatus.WAITING, NEVER), heads.LATEST),
        (lambda: heads.told(a_head(status=RunStatus.SUSPENDED, wake=NEVER)), heads.LATEST),
        (lambda: heads.taken_up(a_head(status=RunStatus.SUSPENDED, wake=NEVER), LATER), LATER),
    ],
)
def test_due_is_no_later_than_the_calendar(move: Callable[[], Head], due: datetime) -> None:
    """A run may sleep until its end, and there is no grace behind that."""
    assert (NEVER, due) == (move().wake, move().due)
