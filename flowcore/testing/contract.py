"""The promises of ``flowcore.ports`` as tests: a new adapter starts by passing these.

Subclass a contract in a test module and give it the fixture it asks for::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self) -> Store:
            return MyStore()

Each test gets a fresh, empty adapter. ``a_head`` and ``a_record`` make values that differ from a plain one only in what
a test says.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Barrier
from typing import Any

import pytest

from flowcore.errors import (
    InvalidPayload,
    InvariantError,
    MalformedRequest,
    PayloadTooLarge,
)
from flowcore.keys import ROOT, RunRef, Scope, StepKey
from flowcore.model import (
    TERMINAL,
    Answer,
    Delta,
    Head,
    Join,
    Json,
    Listener,
    Mail,
    Outcome,
    Page,
    PublicStatus,
    Receipt,
    RunFilter,
    RunStatus,
    RunSummary,
    Sent,
    StepFailure,
    StepRecord,
    Topic,
    Trace,
)
from flowcore.ports import (
    Claimed,
    EventTaken,
    HeadMoved,
    Hint,
    NotClaimable,
    Queue,
    RecordMoved,
    Records,
    Scheduler,
    Store,
    Written,
)
from flowcore.testing.contract_joins import JoinContract

NOW = datetime(2026, 3, 1, 12, 0, 0, 123_000, tzinfo=UTC)
SECOND = timedelta(seconds=1)
RUN = RunRef("acme", "r-1")
TOPIC = Topic("acme", "paid", "order#7")


def a_head(run: RunRef = RUN, **changes: Any) -> Head:
    """A run just started, unless ``changes`` say otherwise."""
    plain = Head(
        run=run,
        workflow="refund",
        definition="d-1",
        input={"amount": 120},
        input_hash="i-1",
        status=RunStatus.QUEUED,
        created_at=NOW,
        updated_at=NOW,
        due=NOW + 5 * SECOND,
    )
    return replace(plain, **changes)


def a_running_head(run: RunRef = RUN, **changes: Any) -> Head:
    """A run that a worker drives."""
    held = {"status": RunStatus.RUNNING, "epoch": 1, "attempts": 1, "owner": "w-1", "lease_until": NOW + 60 * SECOND}
    return a_head(run, **{**held, "due": NOW + 90 * SECOND, **changes})


def a_suspended_head(run: RunRef = RUN, **changes: Any) -> Head:
    """A run that waits for a person."""
    return a_head(run, **{"status": RunStatus.SUSPENDED, "epoch": 1, "version": 3, "due": None, **changes})


def a_record(key: str = "charge", outcome: Outcome = Outcome.OK, **changes: Any) -> StepRecord:
    """The first record at ``key``."""
    plain = StepRecord(key=StepKey(key), outcome=outcome, seq=1, epoch=1, at=NOW, started_at=NOW)
    return replace(plain, **changes)


def a_listener(wait: str = "approve@0", **changes: Any) -> Listener:
    """The run of ``a_head`` waits for a payment."""
    return replace(Listener(topic=TOPIC, run=RUN, wait=wait, at=NOW), **changes)


def a_sent(id: str, **changes: Any) -> Sent:
    """A payment, kept for a minute."""
    return replace(Sent(topic=TOPIC, id=id, data=7, digest="d-1", at=NOW, until=NOW + 60 * SECOND), **changes)


def an_answer(data: Json, **changes: Any) -> Answer:
    """An answer to the suspension at ``approve``."""
    return replace(Answer(wait="approve@0", data=data, digest="d-1", at=NOW), **changes)


def a_receipt(**changes: Any) -> Receipt:
    """Of an answer that came too late."""
    plain = Receipt(verdict="stale", wait="approve@0", at=NOW, by="ann", via="http", reason="already-resumed")
    return replace(plain, **changes)


def a_started(key: str, opens: str, **changes: Any) -> StepRecord:
    """The record of a container still at work, with the scope that it opens."""
    return a_record(key, Outcome.START, opens=Scope(opens), **changes)


def noise(size: int) -> str:
    """A text of ``size`` bytes that hardly compresses; the same with each call."""
    return random.Random(size).randbytes(size // 2).hex()


def dense(size: int) -> str:
    """The same of all characters that JSON writes as they are: compressed it is five sixths as long."""
    return "".join(random.Random(size).choices([chr(code) for code in range(35, 127) if code != ord("\\")], k=size))


@contextmanager
def racing(contenders: int) -> Iterator[Callable[[Sequence[Callable[[], Any]]], list[Any]]]:
    """A function that makes that many calls at once, each on a thread of its own, and gives their answers in order."""
    barrier = Barrier(contenders)

    def contend(contender: Callable[[], Any]) -> Any:
        barrier.wait()
        return contender()

    with ThreadPoolExecutor(contenders) as pool:
        yield lambda calls: list(pool.map(contend, calls))


class StoreContract(JoinContract):
    """What every ``Store`` must do. Give a fixture ``store`` with an empty one."""

    race_rounds = 200
    """How often 32 threads race for one suspension."""

    # -- start and peek --

    def test_start_puts_a_run_that_does_not_exist(self, store: Store) -> None:
        """A started run stands as it was given."""
        head = a_head(
            resource_id="order-7",
            state={"a": 1},
            request_context={"locale": "de"},
            trace=Trace(trace_id="t-1", tags=("a", "b")),
        )
        assert store.start(head) is None
        assert store.peek(RUN) == head

    def test_start_returns_the_head_that_stands_there(self, store: Store) -> None:
        """A second start changes nothing and is told what the first made."""
        store.start(a_head())
        assert store.start(a_head(input="other", input_hash="i-2")) == a_head()
        assert store.peek(RUN) == a_head()

    def test_runs_of_two_tenants_are_strangers(self, store: Store) -> None:
        """The same run id in another tenant is another run."""
        store.start(a_head())
        store.commit(RUN, 1, a_record(), None)
        stranger = RunRef("other", RUN.id)
        assert store.peek(stranger) is None
        assert store.load(stranger) is None
        assert store.start(a_head(stranger)) is None

    def test_peek_and_load_of_no_run_are_none(self, store: Store) -> None:
        """A run that was never started is not there."""
        assert store.peek(RUN) is None
        assert store.load(RUN) is None
        assert store.load(RUN, everything=True) is None

    # -- claim --

    def test_claim_hands_over_the_run(self, store: Store) -> None:
        """A claim sets lease and due, counts version, epoch and attempts, and leaves the rest."""
        head = a_head(state={"a": 1}, hops=2)
        store.start(head)
        later = NOW + SECOND
        claimed = claim(store, later)
        expected = replace(
            head,
            status=RunStatus.RUNNING,
            version=2,
            epoch=1,
            attempts=1,
            owner="w-9",
            lease_until=later + 60 * SECOND,
            due=later + 90 * SECOND,
            updated_at=later,
        )
        assert claimed == Claimed(expected)
        assert store.peek(RUN) == expected

    def test_claim_of_no_run_finds_nobody(self, store: Store) -> None:
        """A hint for a run that is gone is harmless, and a claim never makes a head."""
        assert claim(store, NOW) == NotClaimable(None)
        assert store.peek(RUN) is None

    @pytest.mark.parametrize(
        ("status", "lease", "wake", "claimable"),
        [
            (RunStatus.QUEUED, None, None, True),
            (RunStatus.RUNNING, -1, None, True),
            (RunStatus.RUNNING, 0, None, False),
            (RunStatus.RUNNING, 1, None, False),
            (RunStatus.RUNNING, None, None, False),
            *[(status, None, -1, True) for status in (RunStatus.WAITING, RunStatus.SUSPENDED, RunStatus.JOINING)],
            *[(status, None, 0, True) for status in (RunStatus.WAITING, RunStatus.SUSPENDED, RunStatus.JOINING)],
            *[(status, None, 1, False) for status in (RunStatus.WAITING, RunStatus.SUSPENDED, RunStatus.JOINING)],
            *[(status, None, None, False) for status in (RunStatus.WAITING, RunStatus.SUSPENDED, RunStatus.JOINING)],
            *[(status, -1, -1, False) for status in (RunStatus.PAUSED, RunStatus.BLOCKED, *sorted(TERMINAL))],
        ],
    )
    def test_claim_table(
        self, store: Store, status: RunStatus, lease: int | None, wake: int | None, claimable: bool
    ) -> None:
        """Who may be claimed when: lease and wake are milliseconds from now, None for none."""
        head = a_head(status=status, lease_until=_near(lease), wake=_near(wake), epoch=4, version=7)
        store.start(head)
        verdict = claim(store, NOW)
        if claimable:
            assert isinstance(verdict, Claimed)
            assert (RunStatus.RUNNING, 5, 8) == (verdict.head.status, verdict.head.epoch, verdict.head.version)
            assert verdict.head.wake is None
        else:
            assert verdict == NotClaimable(head)
            assert store.peek(RUN) == head

    def test_claim_never_turns_the_runs_clock_back(self, store: Store) -> None:
        """A worker whose clock is behind claims the run, and the run's own time stays."""
        ahead = NOW + 600 * SECOND
        store.start(a_head(updated_at=ahead))
        verdict = claim(store, NOW)
        assert isinstance(verdict, Claimed)
        assert ahead == verdict.head.updated_at
        assert store.peek(RUN) == verdict.head

    def test_claim_by_a_slow_clock_is_still_refused(self, store: Store) -> None:
        """A run that may not be claimed is not, whichever way the clocks differ."""
        head = a_running_head(updated_at=NOW + 600 * SECOND)
        store.start(head)
        assert claim(store, NOW) == NotClaimable(head)

    def test_one_of_many_claims_wins(self, store: Store) -> None:
        """Of racing workers, one gets the run and the others see its head."""
        store.start(a_head())
        with racing(8) as race:
            answers = race([lambda: claim(store, NOW)] * 8)
        assert [Claimed] == [type(answer) for answer in answers if isinstance(answer, Claimed)]
        assert {1} == {answer.head.epoch for answer in answers if answer.head is not None}

    # -- load --

    def test_load_gives_head_and_records(self, store: Store) -> None:
        """A run without nesting loads whole."""
        store.start(a_head())
        records = keyed(a_record("a"), a_record("b", Outcome.SUSP), a_record("a!receipt"))
        commit_all(store, records)
        assert store.load(RUN) == (a_head(), records)

    def test_load_with_a_head_takes_that_one(self, store: Store) -> None:
        """After a claim the head is known; the records come with it."""
        store.start(a_head())
        commit_all(store, keyed(a_record("a")))
        claimed = claim(store, NOW)
        assert claimed.head is not None
        assert store.load(RUN, claimed.head) == (claimed.head, keyed(a_record("a")))

    def test_load_follows_open_scopes_only(self, store: Store) -> None:
        """Records inside containers at work are loaded, however deep; those inside finished ones are not."""
        store.start(a_head())
        opened = keyed(
            a_started("child", "child"),
            a_started("child/fan", "child/fan"),
            a_started("child/fan[0]", "child/fan[0]"),
            a_record("child/fan[0]/pay", Outcome.SUSP),
            a_record("child/fan[1]", Outcome.OK, output=2),
            a_started("poll", "poll#3", count=3),
            a_record("poll#3", Outcome.RETRY),
            a_record("poll#3/ask", Outcome.SLP),
            a_record("done", Outcome.OK, opens=Scope("done")),
        )
        closed = keyed(
            a_record("poll#2/ask"), a_record("poll#31/ask"), a_record("done/x"), a_record("child/fan[1]/pay")
        )
        commit_all(store, {**opened, **closed})
        assert store.load(RUN) == (a_head(), opened)
        assert store.load(RUN, a_head()) == (a_head(), opened)

    @pytest.mark.parametrize("with_head", [False, True])
    def test_load_of_everything_reads_finished_scopes_too(self, store: Store, with_head: bool) -> None:
        """The whole history of the incarnation is there for somebody who asks."""
        store.start(a_head())
        records = keyed(a_record("child", output=1), a_record("child/a"), a_record("poll#1/ask"), a_record("fan[0]"))
        commit_all(store, records)
        assert store.load(RUN, a_head() if with_head else None, everything=True) == (a_head(), records)

    @pytest.mark.parametrize("with_head", [False, True])
    @pytest.mark.parametrize("everything", [False, True])
    def test_load_reads_only_its_incarnation(self, store: Store, with_head: bool, everything: bool) -> None:
        """Records of a former incarnation are left alone."""
        head = a_head(incarnation=2)
        store.start(head)
        store.commit(RUN, 1, a_record("a", output="old"), None)
        store.commit(RUN, 2, a_record("a", output="new"), None)
        store.commit(RUN, 12, a_record("b", output="later"), None)
        loaded = store.load(RUN, head if with_head else None, everything=everything)
        assert loaded == (head, keyed(a_record("a", output="new")))

    @pytest.mark.parametrize("everything", [False, True])
    def test_load_reads_more_than_one_page(self, store: Store, everything: bool) -> None:
        """Records of more than a megabyte are all there."""
        store.start(a_head())
        records = keyed(*[a_record(f"s{number}", output=noise(150_000 + number)) for number in range(12)])
        commit_all(store, records)
        assert store.load(RUN, everything=everything) == (a_head(), records)

    # -- commit --

    def test_commit_of_a_first_record_happens_once(self, store: Store) -> None:
        """The loser of a race for a place is told what stands there."""
        first, second = a_record(output="first"), a_record(output="second")
        assert store.commit(RUN, 1, first, None) == Written()
        assert store.commit(RUN, 1, second, None) == RecordMoved(first)

    @pytest.mark.parametrize(
        ("standing", "written"),
        [
            (None, False),
            (a_record(outcome=Outcome.SUSP, gen=2), True),
            (a_record(outcome=Outcome.SUSP, gen=1), False),
            (a_record(outcome=Outcome.SUSP, gen=3), False),
            (a_record(outcome=Outcome.RESU, gen=2), False),
        ],
    )
    def test_commit_over_a_record_needs_that_record(
        self, store: Store, standing: StepRecord | None, written: bool
    ) -> None:
        """A rewrite happens if outcome and gen still are what its writer saw."""
        if standing is not None:
            store.commit(RUN, 1, standing, None)
        prior, settled = a_record(outcome=Outcome.SUSP, gen=2), a_record(gen=3, output=1)
        assert store.commit(RUN, 1, settled, prior) == (Written() if written else RecordMoved(standing))
        store.start(a_head())
        expected = settled if written else standing
        assert store.load(RUN) == (a_head(), keyed(expected) if expected else {})

    def test_commit_leaves_the_head_alone(self, store: Store) -> None:
        """A step's outcome is no reason to rewrite the head."""
        store.start(a_head())
        store.commit(RUN, 1, a_record(), None)
        assert store.peek(RUN) == a_head()

    # -- release --

    def test_release_replaces_the_head(self, store: Store) -> None:
        """What a worker leaves is what stands there; nothing of the former head shows through."""
        running = a_running_head(wake=NOW, attempts=3, hops=1, blocked="x", failure=StepFailure(type="E", message="m"))
        store.start(running)
        left = a_head(
            status=RunStatus.SUCCESS, version=2, epoch=1, due=None, output={"ok": True}, updated_at=NOW + SECOND
        )
        assert store.release(left, epoch=1, version=1) == Written()
        assert store.peek(RUN) == left

    def test_release_can_write_every_field_that_changes(self, store: Store) -> None:
        """Wake, due, counters, definition, incarnation and failure can all be left behind."""
        store.start(a_running_head())
        left = a_head(
            status=RunStatus.BLOCKED,
            version=2,
            epoch=1,
            definition="d-2",
            incarnation=2,
            wake=NOW + SECOND,
            due=NOW + 2 * SECOND,
            attempts=2,
            hops=3,
            failure=StepFailure(type="E", message="m", properties={"a": 1}, cause=StepFailure(type="F", message="n")),
            blocked="why",
        )
        assert store.release(left, epoch=1, version=1) == Written()
        assert store.peek(RUN) == left

    def test_updates_leave_what_a_run_began_with(self, store: Store) -> None:
        """Input, state and request context are written once; whoever writes the head need not have them at hand."""
        begun = a_running_head(input={"n": 1}, state={"a": [1]}, request_context={"b": 2})
        store.start(begun)
        without = replace(begun, input=None, state={}, request_context={})
        assert store.move(replace(without, version=2), version=1) == Written()
        assert store.peek(RUN) == replace(begun, version=2)
        left = replace(without, status=RunStatus.BLOCKED, version=3, owner=None, lease_until=None, due=None)
        assert store.release(left, epoch=1, version=2) == Written()
        assert store.peek(RUN) == replace(left, input={"n": 1}, state={"a": [1]}, request_context={"b": 2})

    @pytest.mark.parametrize(
        "standing",
        [
            a_running_head(epoch=2),
            a_running_head(version=2),
            a_running_head(status=RunStatus.CANCELED),
            a_running_head(status=RunStatus.QUEUED),
        ],
        ids=["other epoch", "other version", "canceled", "queued"],
    )
    def test_release_of_a_head_that_moved_is_refused(self, store: Store, standing: Head) -> None:
        """A worker that lost its lease, or missed a resume, writes nothing and sees why."""
        store.start(standing)
        assert store.release(a_head(version=2, epoch=1), epoch=1, version=1) == HeadMoved(standing)
        assert store.peek(RUN) == standing

    def test_release_writes_a_batch_with_the_head(self, store: Store) -> None:
        """Records of several scopes, some of them over others, are loaded like any that were written alone."""
        store.start(a_running_head())
        asked = a_record("ask", Outcome.RESU, gen=1)
        commit_all(store, keyed(asked))
        written = keyed(
            a_record("a", output={"deep": [1, 1.5, "ü", None, True]}, delta=Delta(state={"n": (1, 2)}), seq=2),
            a_record("b", Outcome.ERR, failure=StepFailure(type="E", message="m"), attempt=3, seq=3),
            a_record("c", Outcome.SLP, until=NOW + SECOND, seq=4),
            a_record("d", Outcome.SKIP, seq=5),
            a_record("ask", gen=4, output="yes", answer=an_answer("yes"), asked=(1, NOW, 2), seq=6),
            a_started("poll", "poll#3", count=3, seq=7),
            a_record("poll#3/x", output="x", started_at=NOW - SECOND, seq=8),
            a_record("poll#3/y", Outcome.BAIL, output="y", seq=9),
            a_record("large", output=noise(200_000), seq=10),
            a_record("approve", Outcome.SUSP, payload={"why": 1}, label="boss", seq=11),
        )
        closed = keyed(a_record("done/x", output=1, seq=12), a_record("done/y", output=2, seq=13))
        left = a_suspended_head(version=2)
        priors = {StepKey("ask"): asked}
        batch = [(record, priors.get(key)) for key, record in {**written, **closed}.items()]
        assert store.release(left, epoch=1, version=1, batch=batch) == Written()
        assert store.load(RUN) == (left, written)
        assert store.load(RUN, left) == (left, written)
        assert store.load(RUN, everything=True) == (left, {**written, **closed})

    def test_a_batch_goes_with_its_head_or_not_at_all(self, store: Store) -> None:
        """Whoever has lost the run writes nothing; and nothing is written where a record has moved."""
        store.start(a_running_head(epoch=2))
        standing = a_record("approve", Outcome.SUSP, gen=3)
        store.commit(RUN, 1, standing, None)
        batch = [(a_record("a"), None), (a_record("b"), None)]
        left = a_head(version=2, epoch=1)
        assert store.release(left, epoch=1, version=1, batch=batch) == HeadMoved(a_running_head(epoch=2))
        moved = [*batch, (a_record("approve", gen=3), a_record("approve", Outcome.SUSP, gen=2))]
        assert store.release(a_head(version=2, epoch=2), epoch=2, version=1, batch=moved) == RecordMoved(standing)
        both = store.release(a_head(version=2, epoch=1), epoch=1, version=1, batch=moved)
        assert both == HeadMoved(a_running_head(epoch=2))
        assert store.load(RUN) == (a_running_head(epoch=2), keyed(standing))

    def test_a_batch_may_be_as_large_as_it_is_promised(self, store: Store) -> None:
        """64 records that weigh a megabyte together."""
        store.start(a_running_head())
        records = keyed(*[a_record(f"s{number}", output=noise(24_000 + number), seq=number) for number in range(64)])
        assert 800_000 < sum(store.weigh(RUN, 1, record) for record in records.values()) < 2**20
        batch = [(record, None) for record in records.values()]
        left = a_head(version=2, epoch=1)
        assert store.release(left, epoch=1, version=1, batch=batch) == Written()
        assert store.load(RUN) == (left, records)

    def test_batch_after_batch_adds_up(self, store: Store) -> None:
        """What a later one holds stands beside what an earlier one held, and a single record beside both."""
        store.start(a_running_head())
        for version in (1, 2, 3):
            batch = [(a_record(f"{part}{version}", seq=2 * version + (part == "b")), None) for part in "ab"]
            head = a_running_head(version=version + 1)
            assert store.release(head, epoch=1, version=version, batch=batch) == Written()
        store.commit(RUN, 1, a_record("c"), None)
        loaded = store.load(RUN)
        assert loaded is not None
        assert {"a1", "b1", "a2", "b2", "a3", "b3", "c"} == loaded[1].keys()

    def test_bring_writes_what_a_life_begins_with(self, store: Store) -> None:
        """Of several runs, under a number of its own: what is settled, and what may still change, also over it."""
        store.start(a_head())
        other, join = RunRef(RUN.tenant, "part-1"), Join(key=StepKey("fan"), incarnation=7, chunk=0, total=2, shard=1)
        mine = keyed(
            a_record("a", output={"deep": [1, None]}, delta=Delta(state={"n": (1, 2)})),
            a_record("b", Outcome.ERR, failure=StepFailure(type="E", message="m")),
            a_record("c", Outcome.SLP, until=NOW + SECOND),
            a_record("a!beat@", output=5, gen=3),
            a_record("ask", Outcome.SUSP, payload={"why": 1}, label="boss"),
            a_record("retry", Outcome.RETRY, attempt=2, until=NOW),
            a_started("poll", "poll#3", count=3),
            a_record("poll#3/x", output="x"),
            a_record("poll#3/y", output=noise(200_000)),
        )
        closed, theirs = keyed(a_record("done/x"), a_record("done/y")), keyed(a_record("fan[0]"), a_record("fan[1]"))
        brought = [(RUN, record) for record in {**mine, **closed}.values()]
        brought += [(other, record) for record in theirs.values()]
        assert store.bring(7, brought, joins=[(RUN, join)], listeners=[a_listener()])
        life = a_head(incarnation=7)
        assert store.load(RUN, life) == (life, mine)
        assert store.load(RUN, life, everything=True) == (life, {**mine, **closed})
        assert store.load(RUN) == (a_head(), {})
        assert store.scope(other, 7, Scope("fan")) == theirs
        assert [join] == list(store.joins(RUN))
        assert (a_listener(),) == store.mail(a_listener().topic, NOW).listeners
        beat, asked = mine[StepKey("a!beat@")], mine[StepKey("ask")]
        for prior, record in (beat, replace(beat, gen=4)), (asked, replace(asked, outcome=Outcome.RESU)):
            assert store.commit(RUN, 7, record, prior) == Written()

    def test_bring_writes_nothing_over_what_stands_there(self, store: Store) -> None:
        """Somebody else has drawn the same number: neither a join nor a record of his is lost."""
        join = Join(key=StepKey("fan"), incarnation=7, chunk=0, total=2, shard=1)
        first = a_record("ask", Outcome.SUSP, label="first")
        assert store.bring(7, [(RUN, first)], joins=[(RUN, replace(join, done=frozenset({1})))])
        assert not store.bring(7, [(RUN, replace(first, label="second"))])
        assert not store.bring(7, [(RUN, a_record("b"))], joins=[(RUN, join)])
        assert {first.key: first} == store.scope(RUN, 7, ROOT)
        assert [replace(join, done=frozenset({1}))] == list(store.joins(RUN))
        assert store.bring(8, [(RUN, first)], joins=[(RUN, replace(join, incarnation=8))])
        assert store.bring(9, [])

    def test_bring_writes_very_many_records_of_one_order(self, store: Store) -> None:
        """More than one item holds, of one scope and of one time, and more than one transaction does."""
        records = keyed(*[a_record(f"s{number}", output=noise(1_000)) for number in range(400)])
        children = [RunRef(RUN.tenant, f"part-{number}") for number in range(120)]
        assert store.bring(
            7, [*((RUN, record) for record in records.values()), *((run, a_record()) for run in children)]
        )
        assert store.scope(RUN, 7, ROOT) == records
        assert all(store.scope(run, 7, ROOT) == keyed(a_record()) for run in children)
        assert not store.bring(7, [(RUN, record) for record in records.values()])

    def test_bring_of_what_cannot_be_written_writes_nothing(self, store: Store) -> None:
        """It is seen before the first write."""
        with pytest.raises(InvalidPayload):
            store.bring(7, [(RUN, a_record("a")), (RUN, a_record("b", output=float("nan")))])
        assert store.scope(RUN, 7, ROOT) == {}

    def test_a_run_is_deleted_with_its_batches(self, store: Store) -> None:
        """A new run of that id finds nothing of them."""
        store.start(a_running_head())
        store.release(
            a_head(version=2, epoch=1), epoch=1, version=1, batch=[(a_record("a"), None), (a_record("b"), None)]
        )
        assert store.delete(RUN)
        store.start(a_head())
        assert store.load(RUN, everything=True) == (a_head(), {})

    def test_weigh_refuses_what_cannot_be_written(self, store: Store) -> None:
        """Before anybody keeps it for later."""
        assert 60 < store.weigh(RUN, 1, a_record()) < 300
        with pytest.raises(InvalidPayload):
            store.weigh(RUN, 1, a_record(output=float("nan")))

    def test_release_of_no_run_is_refused(self, store: Store) -> None:
        """A deleted run does not come back."""
        assert store.release(a_head(), epoch=1, version=1) == HeadMoved(None)
        assert store.peek(RUN) is None

    # -- resume --

    def test_resume_writes_head_and_record(self, store: Store) -> None:
        """An answer moves the run and settles the suspension at once."""
        head, record = suspend(store)
        assert store.resume(head, record, version=3, prior=a_suspension()) == Written()
        assert store.load(RUN) == (head, keyed(record))

    def test_resume_of_a_moved_head_writes_neither(self, store: Store) -> None:
        """Another change of the run first: the caller sees the head, and the suspension is still open."""
        head, record = suspend(store)
        assert store.resume(head, record, version=2, prior=a_suspension()) == HeadMoved(a_suspended_head())
        assert store.load(RUN) == (a_suspended_head(), keyed(a_suspension()))

    def test_resume_of_a_moved_record_writes_neither(self, store: Store) -> None:
        """Another answer first: the caller sees it, and the head is untouched."""
        head, record = suspend(store)
        winner = replace(record, answer=an_answer("no", by="eve"))
        store.commit(RUN, 1, winner, a_suspension())
        assert store.resume(head, record, version=3, prior=a_suspension()) == RecordMoved(winner)
        assert store.load(RUN) == (a_suspended_head(), keyed(winner))

    def test_resume_when_both_moved_tells_the_record(self, store: Store) -> None:
        """The second of two answers learns who won, not merely that the run moved."""
        head, record = suspend(store)
        assert store.resume(head, record, version=3, prior=a_suspension()) == Written()
        late = replace(record, answer=an_answer("no"))
        assert store.resume(head, late, version=3, prior=a_suspension()) == RecordMoved(record)
        assert store.load(RUN) == (head, keyed(record))

    def test_resume_of_what_is_gone(self, store: Store) -> None:
        """Neither head nor record comes into being by an answer."""
        head, record = a_head(version=4), a_record("approve", Outcome.RESU, gen=1)
        assert store.resume(head, record, version=3, prior=a_suspension()) == RecordMoved(None)
        store.commit(RUN, 1, a_suspension(), None)
        assert store.resume(head, record, version=3, prior=a_suspension()) == HeadMoved(None)
        assert store.peek(RUN) is None

    # -- events and those who wait for them --

    def test_mail_tells_who_listens_and_what_was_sent(self, store: Store) -> None:
        """A topic nobody knows is empty; what was put there is told with the oldest first, each thing once."""
        assert store.mail(TOPIC, NOW) == Mail()
        late, early = a_listener("approve@1", at=NOW + SECOND), a_listener("approve@0", until=NOW + SECOND)
        second, first = a_sent("e-1", at=NOW + SECOND, data=[1, None]), a_sent("e-2", data="ü🧾")
        for _ in range(2):
            store.listen(late)
            store.listen(early)
        assert store.keep(second) is None
        assert store.keep(first) is None
        assert store.mail(TOPIC, NOW) == Mail(listeners=(early, late), events=(first, second))

    def test_mail_tells_no_more_than_is_asked_for(self, store: Store) -> None:
        """One event by its id, if it is still kept; or the events, without those who listen."""
        listening, first, second = a_listener(), a_sent("e-1"), a_sent("e-10", at=NOW + SECOND)
        store.listen(listening)
        for sent in (first, second):
            store.keep(sent)
        everything = Mail(listeners=(listening,), events=(first, second))
        assert store.mail(TOPIC, NOW, event_id="e-1") == replace(everything, events=(first,))
        assert store.mail(TOPIC, NOW, event_id="e-0") == replace(everything, events=())
        assert store.mail(TOPIC, first.until, event_id="e-1") == replace(everything, events=())
        assert store.mail(TOPIC, NOW, listeners=False) == replace(everything, listeners=())
        assert store.mail(TOPIC, NOW, event_id="e-10", listeners=False) == Mail(events=(second,))

    def test_a_listener_may_wait_until_the_calendar_ends(self, store: Store) -> None:
        """Though it is kept for a while behind its deadline."""
        listener = a_listener("approve@0", until=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
        store.listen(listener)
        assert store.mail(TOPIC, NOW) == Mail(listeners=(listener,))

    def test_unlisten_removes_one_listener(self, store: Store) -> None:
        """Whether it is there or not."""
        store.listen(a_listener("approve@0"))
        store.listen(a_listener("approve@1"))
        for _ in range(2):
            store.unlisten(a_listener("approve@0"))
        assert store.mail(TOPIC, NOW) == Mail(listeners=(a_listener("approve@1"),))

    def test_keep_keeps_the_first_event_of_an_id(self, store: Store) -> None:
        """Another one of the same id is told which one stands there."""
        first = a_sent("e-1", data=1)
        assert store.keep(first) is None
        assert store.keep(a_sent("e-1", data=2, digest="d-2")) == first
        assert store.mail(TOPIC, NOW).events == (first,)

    def test_mail_leaves_out_what_is_kept_no_longer(self, store: Store) -> None:
        """An event is gone when its time is over, whenever the table gets round to deleting it."""
        sent = a_sent("e-1")
        store.keep(sent)
        assert store.mail(TOPIC, sent.until - timedelta(milliseconds=1)).events == (sent,)
        assert store.mail(TOPIC, sent.until).events == ()

    @pytest.mark.parametrize("is_over", [True, False], ids=["at its end", "a moment before"])
    @pytest.mark.parametrize("taker", [None, ("r-0", "approve@0")], ids=["buffered", "taken"])
    @pytest.mark.parametrize("verb", ["keep", "start_with", "resume"])
    def test_event_id_is_free_when_its_event_is_kept_no_longer(
        self, store: Store, verb: str, taker: tuple[str, str] | None, is_over: bool
    ) -> None:
        """However long the table takes to delete it; until then there is one event of that id."""
        first = a_sent("e-1", taker=taker, data=None if taker else 1)
        store.keep(first)
        at = first.until - timedelta(milliseconds=0 if is_over else 1)
        again = a_sent("e-1", data=2, at=at, until=at + SECOND)
        if verb == "keep":
            assert store.keep(again) == (None if is_over else first)
        elif verb == "start_with":
            assert store.start_with(a_head(), again) == (None if is_over else first)
        else:
            head, record = suspend(store)
            again = replace(again, taker=("r-1", "approve@0"), data=None)
            verdict = store.resume(head, record, version=3, prior=a_suspension(), taken=again)
            is_over = is_over or taker is None
            assert verdict == (Written() if is_over else EventTaken(first))
        assert store.mail(TOPIC, at - SECOND).events == ((again,) if is_over else (first,))

    @pytest.mark.parametrize(
        "other",
        [Topic("other", "paid", "order#7"), Topic("acme", "paid.late", "order#7"), Topic("acme", "paid", "7")],
        ids=["tenant", "name", "key"],
    )
    def test_topics_are_strangers(self, store: Store, other: Topic) -> None:
        """Tenant, name and key all have to agree."""
        store.keep(a_sent("e-1"))
        store.listen(a_listener())
        assert store.mail(other, NOW) == Mail()

    def test_start_with_puts_the_run_and_the_event(self, store: Store) -> None:
        """Both are there afterwards, and the run is listed like any other."""
        head, sent = a_head(), a_sent("e-1", starts="r-1")
        assert store.start_with(head, sent) is None
        assert store.load(RUN) == (head, {})
        assert store.mail(TOPIC, NOW) == Mail(events=(sent,))
        assert [RUN.id] == [summary.run_id for summary in store.list_runs("acme")]

    def test_start_with_puts_neither_where_the_run_stands(self, store: Store) -> None:
        """The head in its way is told."""
        store.start(a_suspended_head())
        assert store.start_with(a_head(), a_sent("e-1")) == a_suspended_head()
        assert store.mail(TOPIC, NOW) == Mail()

    @pytest.mark.parametrize("is_started", [False, True], ids=["no run", "and the run"])
    def test_start_with_puts_neither_where_the_event_stands(self, store: Store, is_started: bool) -> None:
        """The event in its way is told, also where the run is there as well."""
        first = a_sent("e-1", data=1, starts="r-0")
        store.keep(first)
        if is_started:
            store.start(a_suspended_head())
        assert store.start_with(a_head(), a_sent("e-1", data=2, digest="d-2")) == first
        assert (store.peek(RUN) is not None) is is_started
        assert store.mail(TOPIC, NOW).events == (first,)

    def test_start_with_an_event_too_large_puts_neither(self, store: Store) -> None:
        """It is refused before anything is written."""
        with pytest.raises(PayloadTooLarge):
            store.start_with(a_head(), a_sent("e-1", data=noise(500_000)))
        assert (store.peek(RUN), store.mail(TOPIC, NOW)) == (None, Mail())

    def test_one_of_8_events_starts_the_run(self, store: Store) -> None:
        """The others learn what stands there, and have kept nothing."""
        with racing(8) as race:
            calls = [partial(store.start_with, a_head(input=n), a_sent(f"e-{n}")) for n in range(8)]
            verdicts = race(calls)
        standing = store.peek(RUN)
        assert standing is not None
        assert [None] == [verdict for verdict in verdicts if verdict != standing]
        assert [f"e-{standing.input}"] == [event.id for event in store.mail(TOPIC, NOW).events]

    @pytest.mark.parametrize("is_kept", [True, False], ids=["kept before", "straight from its sender"])
    def test_resume_takes_the_event_that_settles_it(self, store: Store, is_kept: bool) -> None:
        """Head, record, event and listener change together."""
        head, record = suspend(store)
        store.listen(a_listener())
        if is_kept:
            store.keep(a_sent("e-1"))
        taken = a_sent("e-1", taker=("r-1", "approve@0"))
        assert store.resume(head, record, version=3, prior=a_suspension(), taken=taken) == Written()
        assert store.load(RUN) == (head, keyed(record))
        assert store.mail(TOPIC, NOW) == Mail(events=(replace(taken, data=None),))

    def test_resume_with_an_event_that_was_taken_writes_nothing(self, store: Store) -> None:
        """One event settles one wait; the other one stays open, and goes on listening."""
        head, record = suspend(store)
        store.listen(a_listener())
        taken = a_sent("e-1", taker=("r-0", "approve@0"))
        store.keep(taken)
        verdict = store.resume(
            head, record, version=3, prior=a_suspension(), taken=replace(taken, taker=("r-1", "approve@0"))
        )
        assert verdict == EventTaken(replace(taken, data=None))
        assert store.load(RUN) == (a_suspended_head(), keyed(a_suspension()))
        assert store.mail(TOPIC, NOW) == Mail(listeners=(a_listener(),), events=(replace(taken, data=None),))

    @pytest.mark.parametrize("version", [3, 9], ids=["written", "refused"])
    @pytest.mark.parametrize("is_event", [True, False], ids=["by an event", "by a person"])
    def test_resume_silences_those_who_listen_in_vain(self, store: Store, version: int, is_event: bool) -> None:
        """In the same write, whatever their topic; others, and all of them where nothing is written, listen on."""
        head, record = suspend(store)
        elsewhere = replace(TOPIC, key="order#8")
        mine, other = a_listener("approve@0:a"), a_listener("approve@0:b", topic=elsewhere)
        stranger = a_listener("approve@0:b", run=RunRef("acme", "r-2"), topic=elsewhere)
        for listener in (mine, other, stranger):
            store.listen(listener)
        taken = a_sent("e-1", taker=("r-1", "approve@0:a")) if is_event else None
        silenced = [other] if is_event else [mine, other]
        options: dict[str, Any] = {"prior": a_suspension(), "taken": taken, "silenced": silenced}
        is_written = store.resume(head, record, version=version, **options) == Written()
        assert is_written is (version == 3)
        assert store.mail(TOPIC, NOW).listeners == (() if is_written else (mine,))
        assert store.mail(elsewhere, NOW).listeners == ((stranger,) if is_written else (other, stranger))

    @pytest.mark.parametrize("version", [2, 3], ids=["the head moved", "the record moved"])
    def test_resume_that_is_refused_leaves_the_event_alone(self, store: Store, version: int) -> None:
        """It may settle another wait."""
        head, record = suspend(store)
        store.keep(a_sent("e-1"))
        prior = a_suspension() if version == 2 else a_suspension(gen=5)
        taken = a_sent("e-1", taker=("r-1", "approve@0"))
        verdict = store.resume(head, record, version=version, prior=prior, taken=taken)
        assert verdict in (HeadMoved(a_suspended_head()), RecordMoved(a_suspension()))
        assert store.mail(TOPIC, NOW).events == (a_sent("e-1"),)

    def test_an_event_too_large_is_refused(self, store: Store) -> None:
        """Before anything is written."""
        with pytest.raises(PayloadTooLarge):
            store.keep(a_sent("e-1", data=noise(500_000)))
        assert store.mail(TOPIC, NOW) == Mail()

    def test_one_of_8_waits_gets_the_event(self, store: Store) -> None:
        """Each round, of 8 runs that race for one event exactly one takes it, and the event says which."""
        runs = [RunRef("acme", f"r-{number}") for number in range(8)]
        for run in runs:
            store.start(a_suspended_head(run))
            store.commit(run, 1, a_suspension(), None)
        with racing(8) as race:
            for turn in range(self.race_rounds // 10):
                calls = []
                for run in runs:
                    standing = store.load(run)
                    assert standing is not None
                    before, prior = standing[0], standing[1][StepKey("approve")]
                    after = replace(before, version=before.version + 1)
                    record = replace(prior, gen=prior.gen + 1, seq=prior.seq + 1)
                    taken = a_sent(f"e-{turn}", taker=(run.id, "approve@0"))
                    calls.append(partial(store.resume, after, record, version=before.version, prior=prior, taken=taken))
                verdicts = race(calls)
                (winner,) = [run for run, verdict in zip(runs, verdicts, strict=True) if verdict == Written()]
                (event,) = [event for event in store.mail(TOPIC, NOW).events if event.id == f"e-{turn}"]
                assert (winner.id, "approve@0") == event.taker
                assert 7 == verdicts.count(EventTaken(event))

    def test_one_of_32_racing_answers_wins(self, store: Store) -> None:
        """Each round, of 32 answers to one suspension exactly one is written, and it is the one that is stored."""
        head, record = suspend(store)
        with racing(32) as race:
            for turn in range(0, 2 * self.race_rounds, 2):
                prior = a_suspension(gen=turn)
                answers = [replace(record, gen=turn + 1, answer=an_answer(n)) for n in range(32)]
                resumed = replace(head, version=4 + turn)
                resume = partial(store.resume, resumed, version=3 + turn, prior=prior)
                verdicts = race([partial(resume, answer) for answer in answers])
                winners = [answer for answer, verdict in zip(answers, verdicts, strict=True) if verdict == Written()]
                assert 1 == len(winners)
                assert 31 == verdicts.count(RecordMoved(winners[0]))
                assert (resumed, keyed(winners[0])) == store.load(RUN)
                again = a_suspended_head(version=5 + turn)
                store.resume(again, a_suspension(gen=turn + 2), version=4 + turn, prior=winners[0])

    # -- cancel --

    @pytest.mark.parametrize("status", sorted(set(RunStatus) - TERMINAL))
    def test_cancel_ends_a_run_that_can_change(self, store: Store, status: RunStatus) -> None:
        """Nothing calls for anybody any more, and no holder of the old epoch can release."""
        store.start(a_running_head(status=status, wake=NOW, epoch=3, version=5))
        later = NOW + SECOND
        expected = a_head(status=RunStatus.CANCELED, epoch=4, version=6, due=None, attempts=1, updated_at=later)
        assert store.cancel(RUN, now=later) == expected
        assert store.peek(RUN) == expected
        assert store.due(later + 3600 * SECOND, limit=10) == []

    @pytest.mark.parametrize("status", sorted(TERMINAL))
    def test_cancel_of_an_ended_run_changes_nothing(self, store: Store, status: RunStatus) -> None:
        """An end is an end; canceling twice is canceling once."""
        head = a_head(status=status, due=None)
        store.start(head)
        assert store.cancel(RUN, now=NOW + SECOND) == head
        assert store.peek(RUN) == head

    def test_cancel_never_turns_the_runs_clock_back(self, store: Store) -> None:
        """A canceler whose clock is behind cancels, and the run's own time stays."""
        ahead = NOW + 600 * SECOND
        store.start(a_head(updated_at=ahead))
        canceled = store.cancel(RUN, now=NOW)
        assert canceled is not None
        assert (RunStatus.CANCELED, ahead) == (canceled.status, canceled.updated_at)

    def test_cancel_keeps_who_did_it(self, store: Store) -> None:
        """And who started the run; whoever comes second changes nothing."""
        store.start(a_head(started_by="ann"))
        for by in ("bob", "eve"):
            store.cancel(RUN, now=NOW, by=by)
            head = store.peek(RUN)
            assert head is not None
            assert ("ann", "bob") == (head.started_by, head.canceled_by)

    def test_cancel_of_no_run_is_none(self, store: Store) -> None:
        """And makes none."""
        assert store.cancel(RUN, now=NOW) is None
        assert store.peek(RUN) is None

    # -- due --

    def test_move_replaces_a_head_of_any_status_at_its_version(self, store: Store) -> None:
        """For operators: nothing but the version is asked."""
        store.start(a_head())
        ended = replace(a_head(), version=2, status=RunStatus.SUCCESS, due=None)
        again = replace(ended, version=3, status=RunStatus.QUEUED, incarnation=7, due=NOW)
        assert Written() == store.move(ended, version=1)
        assert Written() == store.move(again, version=2)
        assert again == store.peek(RUN)
        assert HeadMoved(again) == store.move(ended, version=1)

    def test_move_of_no_run_writes_nothing(self, store: Store) -> None:
        """A deleted run stays deleted."""
        assert HeadMoved(None) == store.move(a_head(), version=1)
        assert store.peek(RUN) is None

    def test_delete_removes_head_records_and_listing(self, store: Store) -> None:
        """Of every incarnation; a new run of that id begins with nothing."""
        store.start(a_head())
        store.commit(RUN, 1, a_record("a"), None)
        store.commit(RUN, 5, a_record("b"), None)
        assert store.delete(RUN)
        assert not store.delete(RUN)
        assert store.load(RUN, everything=True) is None
        assert [] == store.list_runs(RUN.tenant).items
        assert [] == list(store.due(NOW + timedelta(days=1), limit=9))
        store.start(a_head())
        loaded = store.load(RUN, everything=True)
        assert loaded is not None
        assert {} == loaded[1]

    def test_delete_leaves_other_runs_alone(self, store: Store) -> None:
        """Also those whose id begins like it."""
        other = replace(a_head(), run=RunRef(RUN.tenant, f"{RUN.id}1"))
        store.start(a_head())
        store.start(other)
        store.delete(RUN)
        assert other == store.peek(other.run)

    def test_delete_removes_only_the_head_that_is_meant(self, store: Store) -> None:
        """At any other version everything stays."""
        suspend(store)
        before = store.load(RUN, everything=True)
        for version in (3, 5):
            assert not store.delete(RUN, last=a_suspended_head(version=version))
        assert before == store.load(RUN, everything=True)
        assert store.delete(RUN, last=a_suspended_head(version=4))
        assert store.load(RUN, everything=True) is None
        assert not store.delete(RUN, last=a_suspended_head(version=4))

    def test_head_that_stays_holds_nothing_of_what_was_deleted(self, store: Store) -> None:
        """And is found by the sweeper, and removed like any other."""
        suspend(store)
        store.note(RUN, NOW, "r001", "id-1", a_receipt())
        bare = a_head(status=RunStatus.CANCELED, input=None, version=4, updated_at=NOW, due=NOW)
        assert not store.delete(RUN, last=replace(bare, version=5), stays=True)
        assert store.delete(RUN, last=bare, stays=True)
        assert ((bare, {}), []) == (store.load(RUN, everything=True), list(store.notes(RUN, NOW)))
        assert [RUN] == list(store.due(NOW + SECOND, limit=9))
        assert store.delete(RUN, last=replace(bare, version=5))
        assert (None, []) == (store.peek(RUN), list(store.due(NOW + SECOND, limit=9)))

    def test_note_keeps_a_receipt_and_counts_the_same_again(self, store: Store) -> None:
        """Another one is refused where one stands; the first one's words stay."""
        store.start(a_head())
        first, later = a_receipt(), a_receipt(at=NOW + SECOND, by="eve")
        assert store.note(RUN, NOW, "r001", "id-1", first)
        assert [first] == list(store.notes(RUN, NOW))
        assert not store.note(RUN, NOW, "r001", "id-2", later)
        assert [first] == list(store.notes(RUN, NOW))
        for _ in range(2):
            assert store.note(RUN, NOW, "r001", "id-1", later)
        assert store.note(RUN, NOW, "r~", "id-2", later)
        again = replace(first, times=3, last_at=later.at)
        assert [again, later] == sorted(store.notes(RUN, NOW), key=lambda receipt: receipt.at)

    def test_notes_are_no_part_of_what_is_loaded(self, store: Store) -> None:
        """Neither of the run, nor of a later run of its id, nor of another one; and they go with it."""
        store.start(a_head())
        store.note(RUN, NOW, "r001", "id-1", a_receipt())
        for everything in (False, True):
            assert (a_head(), {}) == store.load(RUN, everything=everything)
        assert [] == list(store.notes(RUN, NOW + SECOND))
        assert [] == list(store.notes(replace(RUN, id="r-12"), NOW))
        store.delete(RUN)
        assert [] == list(store.notes(RUN, NOW))

    def test_due_finds_what_is_overdue(self, store: Store) -> None:
        """Strictly before now, the longest overdue first, no more than asked for."""
        for minute in (3, 1, 4, 2, 5):
            store.start(a_head(RunRef("acme", f"r-{minute}"), due=NOW + timedelta(minutes=minute)))
        store.start(a_suspended_head(RunRef("acme", "r-0")))
        now = NOW + timedelta(minutes=4)
        assert list(store.due(now, limit=10)) == [RunRef("acme", f"r-{minute}") for minute in (1, 2, 3)]
        assert list(store.due(now, limit=2)) == [RunRef("acme", f"r-{minute}") for minute in (1, 2)]
        assert list(store.due(NOW, limit=2)) == []

    def test_due_follows_each_write(self, store: Store) -> None:
        """Claim moves it, release removes it."""
        store.start(a_head())
        assert list(store.due(NOW + 6 * SECOND, limit=10)) == [RUN]
        claimed = claim(store, NOW)
        assert list(store.due(NOW + 6 * SECOND, limit=10)) == []
        assert list(store.due(NOW + 91 * SECOND, limit=10)) == [RUN]
        assert claimed.head is not None
        store.release(a_suspended_head(version=3, epoch=1), epoch=1, version=2)
        assert list(store.due(NOW + 3600 * SECOND, limit=10)) == []

    def test_due_finds_runs_of_all_tenants(self, store: Store) -> None:
        """One sweep serves everybody."""
        runs = {RunRef(f"t{number % 3}", f"r-{number}") for number in range(40)}
        for run in runs:
            store.start(a_head(run))
        assert set(store.due(NOW + 6 * SECOND, limit=100)) == runs
        assert 7 == len(store.due(NOW + 6 * SECOND, limit=7))

    # -- list_runs --

    def test_list_runs_newest_first(self, store: Store) -> None:
        """By time of creation, then by id; only the tenant's own."""
        for number in (2, 0, 3, 1):
            store.start(a_head(RunRef("acme", f"r-{number}"), created_at=NOW + number // 2 * SECOND))
        store.start(a_head(RunRef("other", "r-9")))
        page = store.list_runs("acme")
        assert [run.run_id for run in page] == ["r-3", "r-2", "r-1", "r-0"]
        assert page.cursor is None

    def test_list_runs_shows_a_summary(self, store: Store) -> None:
        """Ids, the public word, the time of creation, the resource, the tags and what tells of open waits."""
        waits: dict[str, Any] = {"waiting_since": NOW + SECOND, "deadline": NOW + 2 * SECOND}
        store.start(a_suspended_head(resource_id="order-7", trace=Trace(tags=("b", "a")), **waits))
        assert [
            RunSummary(
                run_id="r-1",
                workflow_id="refund",
                status="suspended",
                created_at=NOW,
                resource_id="order-7",
                tags=("b", "a"),
                waiting_since=NOW + SECOND,
                deadline=NOW + 2 * SECOND,
            )
        ] == store.list_runs("acme").items

    def test_what_tells_of_waits_goes_with_a_claim_and_a_cancel(self, store: Store) -> None:
        """A run that is driven or over is in nobody's inbox."""
        waits: dict[str, Any] = {"waiting_since": NOW, "deadline": NOW, "wake": NOW}
        other = RunRef("acme", "r-2")
        for run in (RUN, other):
            store.start(a_suspended_head(run, **waits))
        assert 2 == len(store.list_runs("acme", RunFilter(waiting=True)).items)
        claimed, canceled = claim(store, NOW).head, store.cancel(other, now=NOW)
        assert [] == store.list_runs("acme", RunFilter(waiting=True)).items
        for head in (claimed, canceled):
            assert head is not None
            assert (None, None) == (head.waiting_since, head.deadline)

    def test_what_was_told_of_stays_until_the_run_is_written_without_it(self, store: Store) -> None:
        """A claim and a cancel know nothing of it."""
        other = RunRef("acme", "r-2")
        for run in (RUN, other):
            store.start(a_suspended_head(run, wake=NOW, told_of=7))
        claimed, canceled = claim(store, NOW).head, store.cancel(other, now=NOW)
        assert claimed is not None
        assert canceled is not None
        assert (7, 7) == (claimed.told_of, canceled.told_of)
        untold = replace(claimed, version=claimed.version + 1, told_of=0)
        assert Written() == store.move(untold, version=claimed.version)
        again = store.peek(RUN)
        assert again is not None
        assert 0 == again.told_of

    def test_a_run_keeps_its_trace_for_life(self, store: Store) -> None:
        """Whatever a later head says; what it goes on under may change."""
        first = Trace(trace_id="t-1", parent_span_id="p-1", tags=("a",), metadata={"m": 1}, context_keys=("k",))
        store.start(a_running_head(trace=first))
        later = a_suspended_head(version=2, trace=Trace(), continued=Trace(trace_id="t-2", tags=("b",)))
        assert Written() == store.release(later, epoch=1, version=1)
        head = store.peek(RUN)
        assert head is not None
        assert (first, Trace(trace_id="t-2", tags=("b",))) == (head.trace, head.continued)

    def test_list_runs_pages_through_everything_once(self, store: Store) -> None:
        """A cursor goes on where the page ended, whatever came in front meanwhile; the last page has none."""
        for number in range(25):
            store.start(a_head(RunRef("acme", f"r-{number:02}"), created_at=NOW + number % 5 * SECOND))
        expected = [run.run_id for run in store.list_runs("acme")]
        shown: list[str] = []
        cursor = None
        for size in (10, 10, 5):
            page = store.list_runs("acme", limit=size, cursor=cursor)
            shown += [run.run_id for run in page]
            cursor = page.cursor
            store.start(a_head(RunRef("acme", f"new-{size}-{len(shown)}"), created_at=NOW + 60 * SECOND))
        assert shown == expected
        assert cursor is None

    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            ({"workflow": "refund"}, ["r-3", "r-0"]),
            ({"statuses": ("suspended",)}, ["r-2"]),
            ({"statuses": ("pending",)}, ["r-0"]),
            ({"statuses": ("running",)}, ["r-3", "r-1"]),
            ({"statuses": ("failed",)}, []),
            ({"resource_id": "x"}, ["r-2", "r-1"]),
            ({"resource_id": "x", "statuses": ("running",)}, ["r-1"]),
            ({"statuses": ("failed", "pending", "suspended")}, ["r-2", "r-0"]),
            ({"tags": ("eu",)}, ["r-3", "r-1"]),
            ({"tags": ("e",)}, []),
            ({"tags": ("eu", "grüße, a=b")}, ["r-3"]),
            ({"tags": ("eu",), "resource_id": "x"}, ["r-1"]),
            ({"waiting": True}, ["r-2"]),
            ({"deadline_before": NOW + 3 * SECOND}, ["r-2"]),
            ({"deadline_before": NOW + 2 * SECOND}, []),
            ({"unexpired_at": NOW + 3 * SECOND}, ["r-3", "r-2", "r-1"]),
            ({"unexpired_at": NOW + 2 * SECOND}, ["r-3", "r-2", "r-1", "r-0"]),
            ({"since": NOW + SECOND}, ["r-3", "r-2", "r-1"]),
            ({"until": NOW + SECOND}, ["r-1", "r-0"]),
            ({"since": NOW + SECOND, "until": NOW + 2 * SECOND}, ["r-2", "r-1"]),
            ({"since": NOW + 2 * SECOND, "until": NOW + SECOND}, []),
        ],
    )
    def test_list_runs_keeps_what_matches(self, store: Store, filters: dict[str, Any], expected: list[str]) -> None:
        """All filters hold; a queued run is pending before its first claim and running after; bounds are inclusive."""
        other = {"workflow": "other", "resource_id": "x"}
        eu, both = Trace(tags=("eu",)), Trace(tags=("grüße, a=b", "eu"))
        waits = {"waiting_since": NOW, "deadline": NOW + 2 * SECOND}
        store.start(a_head(RunRef("acme", "r-0"), expires_at=NOW + 3 * SECOND))
        store.start(a_running_head(RunRef("acme", "r-1"), created_at=NOW + SECOND, trace=eu, **other))
        store.start(a_suspended_head(RunRef("acme", "r-2"), created_at=NOW + 2 * SECOND, **waits, **other))
        store.start(a_head(RunRef("acme", "r-3"), created_at=NOW + 3 * SECOND, epoch=1, trace=both))
        wanted = RunFilter(**filters)
        assert [run.run_id for run in store.list_runs("acme", wanted)] == expected
        assert [run.run_id for run in store.list_runs("acme", wanted, oldest_first=True)] == expected[::-1]
        assert sum(store.count_runs("acme", wanted).values()) == len(expected)

    def test_count_runs_counts_by_status(self, store: Store) -> None:
        """Only the tenant's own; what counts as gone is left out when asked for."""
        for number in range(3):
            store.start(a_head(RunRef("acme", f"p-{number}")))
        store.start(a_suspended_head(RunRef("acme", "s"), workflow="other"))
        store.start(a_head(RunRef("acme", "e"), status=RunStatus.FAILED, due=None, expires_at=NOW))
        store.start(a_head(RunRef("other", "o")))
        assert {"pending": 3, "suspended": 1, "failed": 1} == dict(store.count_runs("acme"))
        assert {"pending": 3, "suspended": 1} == dict(store.count_runs("acme", RunFilter(unexpired_at=NOW)))
        assert {"suspended": 1} == dict(store.count_runs("acme", RunFilter(workflow="other")))
        assert {} == dict(store.count_runs("acme", RunFilter(since=NOW + SECOND, until=NOW)))

    def test_list_runs_pages_oldest_first(self, store: Store) -> None:
        """The same runs the other way round, each once."""
        for number in range(7):
            store.start(a_head(RunRef("acme", f"r-{number}"), created_at=NOW + number * SECOND))
        shown: list[str] = []
        cursor: str | None = None
        for _ in range(4):
            page = store.list_runs("acme", limit=2, cursor=cursor, oldest_first=True)
            shown += [run.run_id for run in page]
            cursor = page.cursor
        assert [f"r-{number}" for number in range(7)] == shown
        assert cursor is None

    def test_list_runs_reads_on_until_enough_match(self, store: Store) -> None:
        """A rare match is found behind many others, and the page after it goes on behind it."""
        for number in range(40):
            rare = "rare" if number in (3, 5) else "common"
            store.start(a_head(RunRef("acme", f"r-{number:02}"), created_at=NOW + number * SECOND, workflow=rare))
        first = store.list_runs("acme", RunFilter(workflow="rare"), limit=1)
        second = store.list_runs("acme", RunFilter(workflow="rare"), limit=1, cursor=first.cursor)
        assert ["r-05", "r-03"] == [run.run_id for page in (first, second) for run in page]
        assert second.cursor is None

    def test_list_runs_follows_the_status(self, store: Store) -> None:
        """Each write of the head shows in the list."""
        words: list[PublicStatus] = []
        head, record = suspend(store)

        def note() -> None:
            words.extend(run.status for run in store.list_runs("acme"))

        note()
        store.resume(head, record, version=3, prior=a_suspension())
        note()
        claim(store, NOW)
        note()
        store.release(a_head(status=RunStatus.WAITING, version=6, epoch=2, wake=NOW), epoch=2, version=5)
        note()
        store.cancel(RUN, now=NOW)
        note()
        assert words == ["suspended", "running", "running", "waiting", "canceled"]

    @pytest.mark.parametrize("cursor", ["", "x", "e30=", "WzEsMl0=", "bnVsbA==", "ü"])
    def test_list_runs_refuses_a_foreign_cursor(self, store: Store, cursor: str) -> None:
        """A cursor that no listing gave is the caller's mistake."""
        with pytest.raises(MalformedRequest):
            store.list_runs("acme", cursor=cursor)

    # -- values --

    @pytest.mark.parametrize(
        "value",
        [
            None,
            "",
            {},
            [],
            0,
            False,
            "Grüße, 世界 🧾 \u0000 \u2028",
            {"": {"a.b": 1, "$ref": "#"}},
            10**400,
            -(2**63) - 1,
            1e308,
            5e-324,
            0.1,
            [1, 1.0, True, None],
            "x" * 300_000,
            noise(300_000),
        ],
        ids=lambda value: repr(value)[:20],
    )
    def test_values_come_back_as_they_went(self, store: Store, value: Json) -> None:
        """Exact numbers, any Unicode text, hundreds of kilobytes: in input, output, payload and answer."""
        head = a_head(input=value)
        store.start(head)
        records = keyed(
            a_record("ok", output=value),
            a_record("susp", Outcome.SUSP, payload=value, label="🧾"),
            a_record("resu", Outcome.RESU, answer=an_answer(value, by="ann", timed_out=True)),
            a_record("state", delta=Delta(state={"k": (1, value)})),
        )
        commit_all(store, records)
        loaded = store.load(RUN)
        assert loaded is not None
        assert loaded == (head, records)
        assert repr(head) == repr(loaded[0])
        assert [repr(record) for record in records.values()] == [repr(loaded[1][key]) for key in records]

    @pytest.mark.parametrize(
        "value", [float("nan"), float("inf"), "\ud800", "long " * 1_000 + "\ud800", {"\udfff": 1}, {1, 2}, b"x"]
    )
    def test_what_is_not_json_is_refused(self, store: Store, value: Json) -> None:
        """And nothing is written."""
        with pytest.raises(InvalidPayload):
            store.start(a_head(input={"deep": [value]}))
        with pytest.raises(InvalidPayload):
            store.commit(RUN, 1, a_record(output=[value]), None)
        assert store.peek(RUN) is None

    def test_too_large_values_are_refused(self, store: Store) -> None:
        """One value above the limit, or several that do not fit together: nothing is written, nothing is cut."""
        huge, large = "x" * 400_000, noise(350_000)
        with pytest.raises(PayloadTooLarge, match="'r-1'"):
            store.start(a_head(input=huge))
        with pytest.raises(PayloadTooLarge, match="'charge'"):
            store.weigh(RUN, 1, a_record(output="x" * 400_000))
        with pytest.raises(PayloadTooLarge, match="'charge'"):
            store.commit(RUN, 1, a_record(output=huge), None)
        with pytest.raises(PayloadTooLarge, match="record of step 'charge'"):
            store.commit(RUN, 1, a_record(output=large, payload=large, delta=Delta(state={"a": (1, large)})), None)
        assert store.peek(RUN) is None
        head, record = suspend(store)
        with pytest.raises(PayloadTooLarge):
            store.resume(head, replace(record, payload=huge), version=3, prior=a_suspension())
        assert store.load(RUN) == (a_suspended_head(), keyed(a_suspension()))

    def test_an_end_too_large_beside_what_the_run_began_with_is_refused(self, store: Store) -> None:
        """An update writes none of that, but it stays in the item, which has to hold both."""
        begun = a_running_head(input=dense(60_000), state={"a": dense(60_001)}, request_context={"a": dense(60_002)})
        store.start(begun)
        failure = StepFailure(type="E", message=dense(340_000))
        ended = replace(begun, status=RunStatus.FAILED, version=2, owner=None, lease_until=None, due=None)
        with pytest.raises(PayloadTooLarge, match="'r-1'"):
            store.release(replace(ended, failure=failure), epoch=1, version=1)
        assert store.peek(RUN) == begun
        assert store.release(replace(ended, failure=replace(failure, message="m")), epoch=1, version=1) == Written()

    def test_nobody_shares_a_value_with_the_store(self, store: Store) -> None:
        """What a caller does to its value afterwards, or to one it was given, changes nothing stored."""
        given: dict[str, Any] = {"a": []}
        store.start(a_head(input=given))
        given["a"].append(1)
        first = store.peek(RUN)
        assert first is not None
        first.input["a"].append(2)
        assert store.peek(RUN) == a_head(input={"a": []})


class QueueContract:
    """What every ``Queue`` must do. Give a fixture ``queue``, and ``arrived``: takes all that has arrived in it."""

    def arrived(self, queue: Any) -> list[Hint]:
        """Every hint that has arrived; overridden by each adapter's tests."""
        raise NotImplementedError

    def test_a_hint_arrives(self, queue: Queue) -> None:
        """As it was sent."""
        hint = Hint(run=RUN, at=NOW)
        queue.send(hint, delay_s=0)
        assert self.arrived(queue) == [hint]

    def test_a_delayed_hint_does_not_arrive_yet(self, queue: Queue) -> None:
        """Its delay comes first."""
        queue.send(Hint(run=RUN, at=NOW), delay_s=queue.max_delay_s)
        assert self.arrived(queue) == []

    def test_a_delay_too_long_is_our_mistake(self, queue: Queue) -> None:
        """A longer one is the scheduler's."""
        for delay_s in (-1, queue.max_delay_s + 1):
            with pytest.raises(InvariantError):
                queue.send(Hint(run=RUN, at=NOW), delay_s=delay_s)


class SchedulerContract:
    """What every ``Scheduler`` must do. Give a fixture ``scheduler``, and ``standing``: the hints it still keeps."""

    later = NOW + timedelta(days=30)

    def standing(self, scheduler: Any) -> list[Hint]:
        """Every hint still to be fired, in any order; overridden by each adapter's tests."""
        raise NotImplementedError

    def test_a_schedule_stands_once(self, scheduler: Scheduler) -> None:
        """The second call for one run, version and instant changes nothing."""
        first = Hint(run=RUN, at=self.later)
        for _ in range(2):
            scheduler.schedule(first, version=3)
        assert self.standing(scheduler) == [first]

    def test_each_run_and_version_has_its_own(self, scheduler: Scheduler) -> None:
        """Another version, run or tenant is another schedule."""
        runs = [(RUN, 1), (RUN, 2), (RunRef("acme", "r-2"), 1), (RunRef("other", "r-1"), 1)]
        for run, version in runs:
            scheduler.schedule(Hint(run=run, at=self.later), version=version)
        assert len(runs) == len(self.standing(scheduler))

    def test_unschedule_forgets_one(self, scheduler: Scheduler) -> None:
        """That one, and forgetting what is not there is no error."""
        scheduler.schedule(Hint(run=RUN, at=self.later), version=1)
        scheduler.schedule(Hint(run=RUN, at=self.later + SECOND), version=2)
        for _ in range(2):
            scheduler.unschedule(RUN, version=1)
        assert self.standing(scheduler) == [Hint(run=RUN, at=self.later + SECOND)]


# -- small words for the tests above ----------------------------------------------------------------------------------


def claim(store: Store, now: datetime) -> Claimed | NotClaimable:
    """A claim of the plain run, with a lease of a minute."""
    return store.claim(RUN, owner="w-9", now=now, lease_until=now + 60 * SECOND, due=now + 90 * SECOND)


def keyed(*records: StepRecord) -> dict[StepKey, StepRecord]:
    """Records as a load gives them."""
    return {record.key: record for record in records}


def commit_all(store: Store, records: Records) -> None:
    """Write first records of the plain run."""
    for record in records.values():
        assert store.commit(RUN, 1, record, None) == Written()


def a_suspension(**changes: Any) -> StepRecord:
    """The open suspension that ``suspend`` makes."""
    return a_record("approve", Outcome.SUSP, payload={"why": "large"}, **changes)


def suspend(store: Store) -> tuple[Head, StepRecord]:
    """Start the plain run in a suspension; returns head and record as an answer would leave them."""
    store.start(a_suspended_head())
    store.commit(RUN, 1, a_suspension(), None)
    resumed = replace(a_suspended_head(), status=RunStatus.QUEUED, version=4, due=NOW + 5 * SECOND)
    answer = an_answer({"ok": True}, by="ann", idempotency_key="k-1")
    return resumed, a_record("approve", Outcome.RESU, gen=1, seq=2, answer=answer)


def patient_pages(store: Store) -> list[Page[RunSummary]]:
    """Every page of a listing of three rare runs among fifty."""
    for number in range(50):
        tags = ("rare",) if number in (4, 27, 41) else ("common",)
        run = RunRef("acme", f"r-{number:02}")
        store.start(a_head(run, created_at=NOW + number * SECOND, trace=Trace(tags=tags)))
    pages = [store.list_runs("acme", RunFilter(tags=("rare",)), limit=2)]
    while pages[-1].cursor is not None:
        pages.append(store.list_runs("acme", RunFilter(tags=("rare",)), limit=2, cursor=pages[-1].cursor))
    return pages


def _near(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else NOW + timedelta(milliseconds=milliseconds)
