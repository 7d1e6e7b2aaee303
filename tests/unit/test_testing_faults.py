"""The faults do what they say, and the clock is where a test puts it."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from threading import Thread
from typing import Any

import pytest

from flowcore.adapters.blobs import MemoryBlobs
from flowcore.adapters.memory import MemoryQueue, MemoryScheduler, MemoryStore
from flowcore.errors import BlobsUnavailable, QueueUnavailable, SchedulerUnavailable, StoreUnavailable, Throttled
from flowcore.model import Head, Outcome, RunStatus, StepRecord
from flowcore.ports import HeadMoved, Hint, Written
from flowcore.testing import (
    Fault,
    FaultyStore,
    LaggingStore,
    LossyQueue,
    LossyScheduler,
    SeededIds,
    ShiftedClock,
    Unruly,
    VirtualClock,
    WorkerDied,
)
from flowcore.testing.contract import NOW, RUN, a_head, a_record, a_running_head, a_suspended_head
from flowcore.testing.faults import BlobFault, FaultyBlobs, at_call, by_chance
from flowcore.testing.invariants import Violation, WatchedStore, head_violations, record_violations

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("fault", "raised", "happened"),
    [
        (Fault.DIES_BEFORE, WorkerDied, False),
        (Fault.DIES_AFTER, WorkerDied, True),
        (Fault.FAILS, StoreUnavailable, False),
        (Fault.REPLY_LOST, StoreUnavailable, True),
        (Fault.THROTTLED, Throttled, False),
    ],
)
def test_a_fault_strikes_one_call(fault: Fault, raised: type[BaseException], happened: bool) -> None:
    """The write of that number, before or after it happened; the next one is left alone."""
    store = FaultyStore(MemoryStore(), at_call(2, fault))
    store.start(a_head())
    with pytest.raises(raised):
        store.commit(RUN, 1, a_record(), None)
    loaded = store.load(RUN)
    assert loaded is not None
    assert happened is bool(loaded[1])
    store.cancel(RUN, now=NOW)
    assert "canceled" == store.list_runs(RUN.tenant).items[0].status


@pytest.mark.parametrize(("head", "overtaken"), [(a_running_head(version=3), True), (a_suspended_head(), False)])
def test_a_conflict_is_somebody_elses_write_just_before(head: Head, overtaken: bool) -> None:
    """Of the head alone, where one may leave it as it is; the call itself is judged by what stands there then."""
    store = FaultyStore(MemoryStore(), at_call(1, Fault.CONFLICT, verbs=frozenset({"move"})))
    store.start(head)
    moved = replace(head, version=4)
    assert (HeadMoved(moved) if overtaken else Written()) == store.move(moved, version=3)
    assert moved == store.peek(RUN)


@pytest.mark.parametrize(
    ("fault", "got", "kept"),
    [
        (None, b"large", True),
        (BlobFault.MISSING, None, True),
        (BlobFault.ALTERED, b"marge", True),
        (BlobFault.CUT, b"larg", True),
        (BlobFault.FAILS, BlobsUnavailable, False),
        (BlobFault.REPLY_LOST, BlobsUnavailable, True),
    ],
)
def test_blobs_misbehave_as_told(fault: BlobFault | None, got: Any, kept: bool) -> None:
    """What a reader finds, and whether a put has happened; only what fails for all fails a put."""
    memory = MemoryBlobs()
    blobs = FaultyBlobs(memory, lambda *_: fault)
    put = partial(blobs.put, "a/b", b"large", sha256=sha256(b"large").hexdigest())
    if got is BlobsUnavailable:
        with pytest.raises(BlobsUnavailable):
            put()
        with pytest.raises(BlobsUnavailable):
            blobs.get("a/b")
    else:
        put()
        assert got == blobs.get("a/b")
    assert (kept, [("put", "a/b"), ("get", "a/b")]) == ("a/b" in memory.kept, blobs.calls)


def test_faults_by_chance_are_counted_and_repeatable() -> None:
    """The same seed strikes the same calls, and no more of them than allowed."""

    def struck(most: int) -> list[int]:
        script = by_chance(random.Random(7), 0.5, faults=[Fault.FAILS, Fault.DIES_AFTER], most=most)
        store, found = FaultyStore(MemoryStore(), script), []
        for number in range(50):
            try:
                store.cancel(RUN, now=NOW)
            except (WorkerDied, StoreUnavailable):
                found.append(number)
        return found

    assert struck(1000) == struck(1000)
    assert 15 < len(struck(1000)) < 35
    assert struck(3) == struck(1000)[:3]


def test_a_lossy_queue_drops_doubles_and_delays() -> None:
    """One hint in, none to two out."""
    clock, hint = VirtualClock(NOW), Hint(run=RUN, at=NOW)
    arrived = {}
    for name, unruly in {
        "dropped": Unruly(dropped=1.0),
        "doubled": Unruly(doubled=1.0),
        "delayed": Unruly(delayed=1.0),
    }.items():
        queue = MemoryQueue(clock)
        LossyQueue(queue, unruly).send(hint, delay_s=0)
        arrived[name] = (len(queue.pop_due(NOW)), len(queue.pop_due(NOW + 300 * SECOND)))
    assert {"dropped": (0, 0), "doubled": (2, 0), "delayed": (0, 1)} == arrived


def test_a_lossy_scheduler_drops_and_doubles() -> None:
    """The copy is a schedule of its own; the first one can be forgotten."""
    scheduler = MemoryScheduler()
    lossy = LossyScheduler(scheduler, Unruly(doubled=1.0))
    lossy.schedule(Hint(run=RUN, at=NOW), version=3)
    lossy.unschedule(RUN, version=3)
    assert [Hint(run=RUN, at=NOW)] == scheduler.pop_due(NOW)
    LossyScheduler(scheduler, Unruly(dropped=1.0)).schedule(Hint(run=RUN, at=NOW), version=4)
    assert scheduler.next_at() is None


def test_queue_and_scheduler_may_not_answer() -> None:
    """Then nothing has happened; and where they always answer, no chance is drawn for it."""
    scheduler, queue, unruly = MemoryScheduler(), MemoryQueue(VirtualClock(NOW)), Unruly(failing=1.0)
    with pytest.raises(QueueUnavailable):
        LossyQueue(queue, unruly).send(Hint(run=RUN, at=NOW), delay_s=0)
    with pytest.raises(SchedulerUnavailable):
        LossyScheduler(scheduler, unruly).schedule(Hint(run=RUN, at=NOW), version=3)
    assert (None, None) == (queue.next_at(), scheduler.next_at())
    scheduler.schedule(Hint(run=RUN, at=NOW), version=3)
    with pytest.raises(SchedulerUnavailable):
        LossyScheduler(scheduler, unruly).unschedule(RUN, version=3)
    assert NOW == scheduler.next_at()
    before = (patient := Unruly()).chance.getstate()
    LossyScheduler(scheduler, patient).unschedule(RUN, version=3)
    assert (None, before) == (scheduler.next_at(), patient.chance.getstate())


def test_virtual_time_moves_only_when_told() -> None:
    """In whole milliseconds, forwards, to an instant, and backwards on request."""
    clock = VirtualClock(datetime(2026, 5, 1, tzinfo=UTC))
    begin = clock.now()
    clock.forward(SECOND, minutes=1, days=1)
    assert begin + timedelta(days=1, seconds=61) == clock.now()
    clock.wait_until(begin)
    assert begin + timedelta(days=1, seconds=61) == clock.now()
    clock.forward(days=-2)
    assert begin > clock.now()
    clock.wait_until(begin + timedelta(microseconds=1))
    assert begin + timedelta(milliseconds=1) == clock.now()


def test_virtual_time_loses_no_move_of_many_threads() -> None:
    """Each move counts."""
    clock = VirtualClock(NOW)

    def move() -> None:
        for _ in range(500):
            clock.forward(SECOND)

    threads = [Thread(target=move) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert NOW + 4000 * SECOND == clock.now()


def test_a_shifted_clock_stays_its_distance_away() -> None:
    """And waiting on it moves the clock that it follows."""
    clock = VirtualClock(NOW)
    ahead = ShiftedClock(clock, 600 * SECOND)
    assert NOW + 600 * SECOND == ahead.now()
    ahead.wait_until(NOW + 700 * SECOND)
    assert (NOW + 100 * SECOND, NOW + 700 * SECOND) == (clock.now(), ahead.now())


def test_a_shifted_clock_may_jump() -> None:
    """Back, too; the one it follows goes on as it was."""
    clock = VirtualClock()
    other = ShiftedClock(clock, timedelta(minutes=10))
    other.jump(timedelta(minutes=-25))
    assert timedelta(minutes=-15) == other.now() - clock.now()


def test_an_index_lags_by_time_and_by_writes() -> None:
    """Reads of the item itself are never late."""
    clock = VirtualClock(NOW)
    store = LaggingStore(MemoryStore(), clock, lag=10 * SECOND, writes=1)
    store.start(a_head(due=NOW))
    assert a_head(due=NOW) == store.peek(RUN)
    clock.forward(seconds=10)
    assert [] == store.due(clock.now(), limit=9)
    store.cancel(RUN, now=NOW)
    assert [RUN] == store.due(clock.now(), limit=9)
    assert ["pending"] == [run.status for run in store.list_runs(RUN.tenant)]
    store.delete(RUN)
    clock.forward(seconds=10)
    assert {"canceled": 1} == store.count_runs(RUN.tenant)
    assert [] == store.due(clock.now(), limit=9)


def test_seeded_ids_repeat_and_rise() -> None:
    """The same names for the same seed, in rising order, of the promised form."""
    one, other = SeededIds(4), SeededIds(4)
    names = [one.fresh() for _ in range(100)]
    assert names == [other.fresh() for _ in range(100)] == sorted(set(names))
    assert {26} == {len(name) for name in names}
    assert one.draw() == other.draw()


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        (None, a_head(due=None), "without due"),
        (None, a_head(status=RunStatus.SUCCESS), "with due"),
        (None, a_suspended_head(wake=NOW), "with a deadline and without due"),
        (None, a_running_head(owner=None), "with owner None"),
        (a_head(status=RunStatus.SUCCESS), a_head(version=2), "SUCCESS became QUEUED"),
        (a_head(), a_head(version=3), "version 1 became 3"),
        (a_head(epoch=2), a_head(version=2), "epoch 2 became 0"),
        (a_head(), a_head(version=2, updated_at=NOW - SECOND), "went back"),
    ],
)
def test_a_head_that_must_not_be_is_seen(before: Head | None, after: Head, sentence: str) -> None:
    """Each rule bites."""
    assert any(sentence in found for found in head_violations(before, after))


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        (a_record(), a_record(gen=1, seq=2), "went from ok to ok"),
        (a_record(outcome=Outcome.SUSP), a_record(outcome=Outcome.ERR, gen=2, seq=2), "generation 0 to 2"),
        (a_record(outcome=Outcome.SUSP), a_record(outcome=Outcome.ERR, gen=1), "stamped 1"),
        (a_record(outcome=Outcome.SUSP), a_record(outcome=Outcome.RESU, gen=1, seq=2), "without an answer"),
    ],
)
def test_a_record_that_must_not_be_is_seen(before: StepRecord, after: StepRecord, sentence: str) -> None:
    """Each rule bites."""
    assert any(sentence in found for found in record_violations(before, after))


def test_a_watched_store_sees_what_changed_behind_its_back() -> None:
    """A settled outcome that is another one later is found by the audit."""
    memory = MemoryStore()
    watched = WatchedStore(memory)
    watched.start(a_head())
    watched.commit(RUN, 1, a_record(), None)
    watched.audit(RUN)
    memory._scopes.clear()
    memory.commit(RUN, 1, a_record(output="another"), None)
    with pytest.raises(Violation, match="changed without a write"):
        watched.audit(RUN)


def test_a_watched_store_is_a_store() -> None:
    """A good write passes, a bad one raises."""
    watched = WatchedStore(MemoryStore())
    with pytest.raises(Violation, match="without due"):
        watched.start(a_head(due=None))
