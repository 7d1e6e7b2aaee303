"""The promises of ``flowcore.ports.Joins``, and what a store does with a child: a part of the store contract."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from flowcore.core.fan import CHUNK
from flowcore.keys import RunRef, Scope, StepKey
from flowcore.model import Head, Join, Outcome, Part, RunStatus, StepRecord
from flowcore.ports import Claimed, Store

_NOW = datetime(2026, 3, 1, 12, 0, 0, 123_000, tzinfo=UTC)
_RUN = RunRef("acme", "r-1")
_FAN = StepKey("child/fan")


def a_join(**changes: Any) -> Join:
    """The second chunk of a foreach of three hundred items, nothing of it done, unless ``changes`` say otherwise."""
    return replace(Join(key=_FAN, incarnation=1, chunk=1, total=300, shard=5), **changes)


def a_child(**changes: Any) -> Head:
    """A run that sees to two items of another run's foreach."""
    plain = Head(
        run=RunRef("acme", "part-1"),
        workflow="refund",
        definition="d-1",
        input=None,
        input_hash="",
        status=RunStatus.QUEUED,
        created_at=_NOW,
        updated_at=_NOW,
        due=_NOW + timedelta(minutes=2),
        part=Part(run=_RUN.id, key=_FAN, first=4, stop=6, top=_RUN.id),
    )
    return replace(plain, **changes)


def _items(*places: int) -> frozenset[int]:
    """Items of the second chunk, by their place in it."""
    return frozenset(CHUNK + place for place in places)


class JoinContract:
    """What every ``Store`` must do for distributed foreaches."""

    def test_a_join_is_put_once(self, store: Store) -> None:
        """A second put changes nothing of what the first has become."""
        first = a_join(done=_items(1), failed=_items(1), bailed=_items(2), parked=_items(3), asking=_items(3, 4))
        store.open_join(_RUN, first)
        store.open_join(_RUN, a_join())
        assert [first] == list(store.joins(_RUN))

    def test_a_join_adds_items_and_tells_what_stands_there(self, store: Store) -> None:
        """Whoever tells of an item a second time changes nothing: it is a set."""
        store.open_join(_RUN, a_join())
        assert a_join(done=_items(0, 7)) == store.join(_RUN, a_join(done=_items(0, 7)))
        again = store.join(_RUN, a_join(done=_items(7), failed=_items(7), bailed=_items(8)))
        assert a_join(done=_items(0, 7), failed=_items(7), bailed=_items(8)) == again

    def test_a_join_takes_items_out_that_wait_no_more(self, store: Store) -> None:
        """Out of the parked and the asking ones; the last one leaves nothing behind."""
        store.open_join(_RUN, a_join())
        store.join(_RUN, a_join(parked=_items(1, 2), asking=_items(1, 2, 3)))
        assert a_join(parked=_items(2), asking=_items(2, 3)) == store.join(_RUN, a_join(), unparked=_items(1))
        assert a_join() == store.join(_RUN, a_join(), unparked=_items(1, 2, 3))

    def test_a_join_that_is_not_there_stays_away(self, store: Store) -> None:
        """Of a run that was deleted meanwhile nothing is written."""
        assert store.join(_RUN, a_join(done=_items(1))) is None
        assert [] == list(store.joins(_RUN))

    def test_joins_are_found_by_life_and_foreach(self, store: Store) -> None:
        """A foreach whose key begins like another's is another."""
        own = [a_join(chunk=0), a_join()]
        others = [a_join(key=StepKey("child/fans"), chunk=0), a_join(incarnation=12_000)]
        for join in (*own, *others):
            store.open_join(_RUN, join)
        store.open_join(RunRef("acme", "r-12"), a_join())
        assert own == list(store.joins(_RUN, 1, _FAN))
        assert [*own, others[0]] == list(store.joins(_RUN, 1))
        assert 4 == len(store.joins(_RUN))

    def test_one_of_many_workers_is_the_first_to_see_a_join_complete(self, store: Store) -> None:
        """However they race; each is told what stands there after its own item."""
        store.open_join(_RUN, a_join())
        with ThreadPoolExecutor(8) as pool:
            calls = [partial(store.join, _RUN, a_join(done=_items(place))) for place in range(16)]
            sizes = [len(joined.done) for joined in pool.map(lambda call: call(), calls) if joined is not None]
        assert list(range(1, 17)) == sorted(sizes)

    def test_joins_are_no_records(self, store: Store) -> None:
        """A run is loaded without them, and deleted with them."""
        store.start(a_child(run=_RUN, part=None))
        store.open_join(_RUN, a_join())
        loaded = [store.load(_RUN), store.load(_RUN, everything=True)]
        assert [{}, {}] == [None if one is None else one[1] for one in loaded]
        store.delete(_RUN)
        assert [] == list(store.joins(_RUN))

    def test_a_scope_is_read_alone(self, store: Store) -> None:
        """Whether or not anything opens it: neither what is around it, nor what is inside its items."""
        records = [
            StepRecord(key=StepKey(key), outcome=Outcome.OK, seq=1, epoch=1, at=_NOW, started_at=_NOW, output=key)
            for key in ("fan", "fan[0]", "fan[1]", "fan[1]/pay", "fans[1]", "fan[1]!kept")
        ]
        for record in records:
            store.commit(_RUN, 1, record, None)
        store.commit(_RUN, 2, records[1], None)
        found = store.scope(_RUN, 1, Scope("fan"))
        assert {record.key: record for record in records if record.key in ("fan[0]", "fan[1]", "fan[1]!kept")} == found

    def test_a_child_is_a_run_that_no_listing_shows(self, store: Store) -> None:
        """It is claimed, found when it is due, and deleted like any other."""
        assert store.start(a_child()) is None
        assert a_child() == store.peek(a_child().run)
        assert ([], {}) == (store.list_runs("acme").items, dict(store.count_runs("acme")))
        later = _NOW + timedelta(minutes=3)
        assert [a_child().run] == list(store.due(later, limit=9))
        claim = store.claim(a_child().run, owner="w", now=later, lease_until=later, due=later)
        assert isinstance(claim, Claimed)
        assert a_child().part == claim.head.part
        assert store.delete(a_child().run)
        assert store.peek(a_child().run) is None

    def test_a_child_is_loaded_with_the_scope_of_its_items(self, store: Store) -> None:
        """And with what is open in them, whether the head is at hand or not."""
        child = a_child()
        store.start(child)
        opened = StepRecord(
            key=StepKey("child/fan[4]"),
            outcome=Outcome.START,
            seq=1,
            epoch=1,
            at=_NOW,
            started_at=_NOW,
            opens=Scope("child/fan[4]"),
        )
        inner = replace(opened, key=StepKey("child/fan[4]/pay"), outcome=Outcome.OK, opens=None)
        for record in (opened, inner):
            store.commit(child.run, 1, record, None)
        expected = {record.key: record for record in (opened, inner)}
        assert (child, expected) == store.load(child.run)
        assert (child, expected) == store.load(child.run, child)

    def test_a_child_keeps_what_it_is_a_part_of(self, store: Store) -> None:
        """For life."""
        store.start(a_child())
        store.move(a_child(part=None, version=2), version=1)
        head = store.peek(a_child().run)
        assert head is not None
        assert a_child().part == head.part
