"""Which suspension an answer means, and why none."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from flowcore.core.admit import Meant, Refused, Repeated, Resume, admit, open_waits, receipt_of
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
from flowcore.model import Outcome, Receipt, RunStatus, Snapshot, StepRecord, Terms
from tests.builders import NOW, a_graph, a_record, a_run, a_started, a_step, a_workflow, an_answer

SUSP, RESU, START = Outcome.SUSP, Outcome.RESU, Outcome.START

INNER = a_workflow(lambda w: w.then(a_step("approve")).then(a_step("sign")), "child")
GRAPH = a_graph(
    lambda w: (
        w.parallel(a_step("boss"), a_step("legal"), INNER)
        .foreach(a_step("fan"))
        .foreach(INNER, id="each")
        .dountil(a_step("poll"), lambda value: value)
    )
)
BOSS, LEGAL = a_record("boss", SUSP, label="b"), a_record("legal", SUSP, label="l", gen=2)
CHILD = [a_started("child"), a_record("child/approve", SUSP)]
FAN = [a_started("fan", count=9), *(a_record(f"fan[{i}]", SUSP, label="f") for i in (0, 2, 11)), a_record("fan[1]")]
EACH = [a_started("each"), *(a_record(f"each[{i}]/approve", SUSP) for i in (0, 3))]
POLL = [a_started("poll", count=3), a_record("poll#3", SUSP)]

GOOD: list[tuple[list[StepRecord], dict[str, Any], list[str]]] = [
    ([BOSS], {}, ["boss"]),
    ([BOSS], {"step": "boss"}, ["boss"]),
    ([BOSS], {"label": "b"}, ["boss"]),
    ([BOSS], {"wait": "boss@0"}, ["boss"]),
    ([BOSS, LEGAL], {"step": "legal"}, ["legal"]),
    ([BOSS, LEGAL], {"label": "l"}, ["legal"]),
    ([BOSS, LEGAL], {"wait": "legal@2"}, ["legal"]),
    ([BOSS, LEGAL], {"label": "l", "step": "legal"}, ["legal"]),
    (CHILD, {}, ["child/approve"]),
    (CHILD, {"step": "child.approve"}, ["child/approve"]),
    (CHILD, {"step": "child"}, ["child/approve"]),
    (CHILD, {"step": "approve"}, ["child/approve"]),
    ([*CHILD, BOSS], {"step": "approve"}, ["child/approve"]),
    ([a_record("outer/child/approve", SUSP), BOSS], {"step": "child"}, ["outer/child/approve"]),
    (FAN, {}, ["fan[0]", "fan[2]", "fan[11]"]),
    (FAN, {"step": "fan"}, ["fan[0]", "fan[2]", "fan[11]"]),
    (FAN, {"label": "f"}, ["fan[0]", "fan[2]", "fan[11]"]),
    (FAN, {"step": "fan[2]"}, ["fan[2]"]),
    (FAN, {"step": "fan", "index": 11}, ["fan[11]"]),
    (FAN, {"index": 0}, ["fan[0]"]),
    (FAN, {"label": "f", "index": 2}, ["fan[2]"]),
    ([*FAN, BOSS], {"index": 2}, ["fan[2]"]),
    (EACH, {"step": "each.approve"}, ["each[0]/approve", "each[3]/approve"]),
    (EACH, {"step": "each[3].approve"}, ["each[3]/approve"]),
    (EACH, {"step": "each", "index": 3}, ["each[3]/approve"]),
    (EACH, {"step": "approve"}, ["each[0]/approve", "each[3]/approve"]),
    (POLL, {"step": "poll"}, ["poll#3"]),
]


@pytest.mark.parametrize(("records", "asked", "expected"), GOOD)
def test_admit_finds_the_suspension_that_is_meant(
    records: list[StepRecord], asked: dict[str, Any], expected: list[str]
) -> None:
    """By id, dotted path, label, wait id and index; left out, the only one; without an index, the whole foreach."""
    verdict = admit(GRAPH, a_run(*records, status=RunStatus.SUSPENDED), Resume(digest="d-1", **asked), NOW)
    assert isinstance(verdict, Meant)
    assert expected == [record.key for record in verdict.records]


ANSWERED = a_record("boss", Outcome.OK, label="b", answer=an_answer(True, "boss@0", by="ann", via="http"))
TIMED_OUT = a_record("boss", Outcome.OK, answer=an_answer(None, "boss@0", timed_out=True))
RUNNING: dict[str, Any] = {"status": RunStatus.RUNNING}
ENDED: dict[str, Any] = {"status": RunStatus.SUCCESS}
CANCELED: dict[str, Any] = {"status": RunStatus.CANCELED}

BAD: list[tuple[list[StepRecord], dict[str, Any], dict[str, Any], type[RequestError], str]] = [
    ([], {}, RUNNING, NotSuspended, "Run 'r-1' is not suspended (status 'running')"),
    ([], {}, ENDED, RunFinished, "has ended with status 'success'"),
    ([a_record("boss")], {"step": "boss"}, RUNNING, NotSuspended, "Step 'boss' of run 'r-1' is not suspended"),
    ([a_record("boss")], {"step": "boss"}, ENDED, RunFinished, "'success'"),
    ([BOSS], {"step": "legal"}, RUNNING, NotSuspended, "Resume one of: 'boss'"),
    ([BOSS], {"step": "nothing"}, RUNNING, UnknownStep, "No step 'nothing' in this workflow. Suspended now: 'boss'"),
    ([BOSS], {"step": "boss.nothing"}, RUNNING, UnknownStep, "'boss.nothing'"),
    ([], {"step": "child.approve"}, RUNNING, NotSuspended, "Step 'child.approve'"),
    ([a_record("gone", Outcome.OK)], {"step": "gone"}, RUNNING, NotSuspended, "Step 'gone'"),
    ([BOSS, LEGAL], {"label": "x"}, RUNNING, UnknownLabel, "labelled 'x'. Open labels: 'b', 'l'"),
    ([BOSS, LEGAL], {"label": "b", "step": "legal"}, RUNNING, NotSuspended, "Step 'legal'"),
    ([], {"label": "x"}, ENDED, RunFinished, "'success'"),
    ([BOSS], {"wait": "boss@1"}, RUNNING, NotSuspended, "'boss@1' of run 'r-1' is not suspended"),
    ([BOSS], {"wait": "nothing@0"}, RUNNING, NotSuspended, "Step 'nothing@0' of run 'r-1' is not suspended"),
    ([a_record("boss")], {"wait": "boss@0"}, ENDED, RunFinished, "'success'"),
    ([BOSS, LEGAL], {}, RUNNING, AmbiguousWait, "2 open suspensions: 'boss', 'legal'"),
    ([*CHILD, BOSS], {}, RUNNING, AmbiguousWait, "'child.approve', 'boss'"),
    (FAN, {"index": 1}, RUNNING, IndexOutOfRange, "Item 1 of 'the open foreach' is not suspended"),
    (FAN, {"step": "fan", "index": 7}, RUNNING, IndexOutOfRange, "Suspended items: 0, 2, 11."),
    (FAN, {"label": "f", "index": 7}, RUNNING, IndexOutOfRange, "Item 7 of 'f'"),
    ([BOSS], {"index": 0}, RUNNING, IndexOutOfRange, "Suspended items: none"),
    ([*FAN, *EACH], {"index": 0}, RUNNING, IndexOutOfRange, "Item 0"),
    ([ANSWERED], {}, RUNNING, AlreadyResumed, "Step 'boss' of run 'r-1' was already resumed at"),
    ([ANSWERED], {}, ENDED, AlreadyResumed, "by 'ann' via 'http'"),
    ([ANSWERED], {"step": "boss"}, RUNNING, AlreadyResumed, "'ann'"),
    ([ANSWERED], {"label": "b"}, RUNNING, AlreadyResumed, "'ann'"),
    ([ANSWERED], {"wait": "boss@0"}, RUNNING, AlreadyResumed, "'ann'"),
    ([ANSWERED, LEGAL], {"step": "boss"}, RUNNING, AlreadyResumed, "'ann'"),
    ([TIMED_OUT], {"step": "boss"}, RUNNING, AlreadyResumed, "via 'timeout'"),
    ([ANSWERED], {"step": "boss"}, CANCELED, RunFinished, "'canceled'"),
    ([BOSS], {}, CANCELED, RunFinished, "'canceled'"),
    ([BOSS], {"step": "boss"}, CANCELED, RunFinished, "'canceled'"),
]


@pytest.mark.parametrize(("records", "asked", "head", "error", "words"), BAD)
def test_admit_says_why_not(
    records: list[StepRecord], asked: dict[str, Any], head: dict[str, Any], error: type[RequestError], words: str
) -> None:
    """The narrowest error, with what to do instead."""
    verdict = admit(GRAPH, a_run(*records, **head), Resume(digest="d-1", **asked), NOW)
    assert isinstance(verdict, Refused)
    assert error is type(verdict.error)
    assert words in str(verdict.error)


def test_the_winner_is_the_latest_answer() -> None:
    """When nobody is named, the last answer is what the caller wants to know of."""
    first = a_record("legal", RESU, answer=an_answer(1, "legal@0", by="eve"), seq=9)
    for records in ([first, ANSWERED], [ANSWERED, first]):
        verdict = admit(GRAPH, a_run(*records), Resume(digest="d"), NOW)
        assert isinstance(verdict, Refused)
        assert {"winner": {"at": NOW.isoformat(), "by": "eve", "via": "python"}} == verdict.error.details()


def test_an_ambiguous_answer_lists_the_choices() -> None:
    """A program can pick one by its id."""
    verdict = admit(GRAPH, a_run(BOSS, FAN[1]), Resume(digest="d"), NOW)
    assert isinstance(verdict, Refused)
    choices = [
        {"id": "boss@0", "path": ["boss"], "label": "b", "index": None},
        {"id": "fan[0]@0", "path": ["fan[0]"], "label": "f", "index": 0},
    ]
    assert {"waits": choices} == verdict.error.details()


KEYED = an_answer(True, "boss@0", idempotency_key="k-1", by="ann", via="http")
PLACES: dict[str, Snapshot] = {
    "resumed": a_run(a_record("boss", RESU, gen=1, answer=KEYED)),
    "done": a_run(a_record("boss", answer=KEYED)),
    "done and ended": a_run(a_record("boss", answer=KEYED), status=RunStatus.SUCCESS),
    "suspended again": a_run(a_record("boss", SUSP, gen=2, spent=(an_answer(0, idempotency_key="k-0"), KEYED))),
    "another step waits": a_run(a_record("boss", answer=KEYED), LEGAL),
}


@pytest.mark.parametrize("run", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("asked", [{}, {"step": "boss"}, {"label": "x"}, {"wait": "boss@0"}], ids=str)
def test_a_repeated_answer_is_told_the_first_receipt(run: Snapshot, asked: dict[str, Any]) -> None:
    """Wherever the run stands now; a late copy never settles a later suspension of the same step."""
    verdict = admit(GRAPH, run, Resume(digest="d-1", idempotency_key="k-1", **asked), NOW)
    told = Receipt(verdict="duplicate", wait="boss@0", at=NOW, by="ann", via="http", step="boss", idempotency_key="k-1")
    assert Repeated(told) == verdict


@pytest.mark.parametrize("run", PLACES.values(), ids=PLACES)
def test_a_key_used_with_other_data_is_refused(run: Snapshot) -> None:
    """The caller has made a mistake, and should learn of it."""
    verdict = admit(GRAPH, run, Resume(digest="d-2", idempotency_key="k-1"), NOW)
    assert isinstance(verdict, Refused)
    assert IdempotencyKeyReused is type(verdict.error)


def items(*answered: int, among: tuple[int, ...] = (0, 1, 2), gen: int = 0, **asked: Any) -> Snapshot:
    """Three items of a foreach; those that were ``answered`` have had an answer for some, the others ask."""
    open_ = [a_record(f"fan[{i}]", SUSP, label="f", gen=gen, **asked) for i in range(3) if i not in answered]
    meant = tuple(f"fan[{i}]@0" for i in among)
    had = [
        a_record(f"fan[{i}]", answer=an_answer(True, f"fan[{i}]@0", idempotency_key="k-1", among=meant))
        for i in answered
    ]
    return a_run(a_started("fan", count=3), *had, *open_)


@pytest.mark.parametrize("asked", [{}, {"step": "fan"}, {"label": "f"}], ids=str)
def test_a_copy_of_an_answer_to_all_items_is_for_those_that_the_first_never_reached(asked: dict[str, Any]) -> None:
    """Whoever brought the first one may have died behind any of them."""
    copy = Resume(digest="d-1", idempotency_key="k-1", by="ada", **asked)
    for answered, left in (((1,), ["fan[0]", "fan[2]"]), ((0, 1), ["fan[2]"])):
        verdict = admit(GRAPH, items(*answered), copy, NOW)
        assert isinstance(verdict, Meant)
        assert left == [record.key for record in verdict.records]
    assert isinstance(admit(GRAPH, items(0, 1, 2), copy, NOW), Repeated)


@pytest.mark.parametrize(
    ("run", "asked"),
    [
        (items(1, among=()), {}),
        (items(1, among=(1,)), {"label": "f"}),
        (items(1, gen=2), {}),
        (items(1, gen=2), {"step": "fan"}),
        (items(1), {"wait": "fan[1]@0"}),
        (items(1, terms=Terms(approvers=("bob",))), {}),
        (items(1, terms=Terms(quorum=2), votes=(an_answer(wait="fan[0]@0", by="ada"),)), {}),
    ],
    ids=["was for one", "asked later", "asks again", "asks again by step", "one wait", "may not answer", "has voted"],
)
def test_a_copy_of_an_answer_is_none_to_the_other_items(run: Snapshot, asked: dict[str, Any]) -> None:
    """Which ask since later, were never meant, or cannot have it."""
    verdict = admit(GRAPH, run, Resume(digest="d-1", idempotency_key="k-1", by="ada", **asked), NOW)
    assert isinstance(verdict, Repeated)
    assert "fan[1]@0" == verdict.receipt.wait


def test_an_answer_to_one_of_several_is_no_copy_of_what_the_others_had() -> None:
    """It has been told apart before, and goes to each under the same key."""
    one = Resume(digest="d-1", idempotency_key="k-1", wait="fan[2]@0", of_several=True)
    verdict = admit(GRAPH, items(1), one, NOW)
    assert isinstance(verdict, Meant)
    assert isinstance(admit(GRAPH, items(1), replace(one, wait="fan[1]@0"), NOW), Repeated)


def test_a_fresh_key_is_an_ordinary_answer() -> None:
    """Only a key that was seen makes a difference."""
    verdict = admit(GRAPH, PLACES["suspended again"], Resume(digest="d-2", idempotency_key="k-9"), NOW)
    assert isinstance(verdict, Meant)


def test_open_waits_are_the_oldest_first() -> None:
    """None once the run has ended: what nobody answered then, nobody can."""
    records = [a_record("legal", SUSP, seq=2), a_record("boss", SUSP, seq=1), a_record("x", seq=3)]
    assert ["boss", "legal"] == [record.key for record in open_waits(a_run(*records))]
    assert [] == open_waits(a_run(*records, status=RunStatus.FAILED))


def test_answer_to_a_run_at_another_version_is_refused() -> None:
    """Where its sender has said which version he has seen."""
    run = a_run(BOSS, status=RunStatus.SUSPENDED)
    told = [admit(GRAPH, run, Resume(digest="d", version=run.head.version + more), NOW) for more in (0, 1)]
    assert isinstance(told[0], Meant)
    assert isinstance(told[1], Refused)
    assert isinstance(told[1].error, VersionMismatch)


def test_receipt_of_an_applied_answer() -> None:
    """Stored proof: which suspension, when, who, over which channel."""
    later = an_answer(1, at=NOW + timedelta(seconds=1))
    assert Receipt(verdict="applied", wait="charge@0", at=later.at, step="charge") == receipt_of(later)


def test_an_event_settles_a_wait_for_that_event_only() -> None:
    """A worker that died may have listened for what the entry does not wait for now."""
    run = a_run(a_record("w", SUSP, listens=("paid", "k")))
    graph = a_graph(lambda w: w.wait_for_event("paid", key="k", id="w"))
    told = [admit(graph, run, Resume(wait="w@0", listens=("paid", key), digest="d"), NOW) for key in ("k", "other")]
    assert [Meant, Refused] == [type(verdict) for verdict in told]
