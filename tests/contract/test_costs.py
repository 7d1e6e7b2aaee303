"""What each transition costs in requests and units, with and without the list index; more is a failed test.

To see the table: ``pytest tests/contract/test_costs.py -k table -s``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from flowcore import App, step, workflow
from flowcore.adapters.dynamodb import DynamoStore
from flowcore.adapters.dynamodb_keys import DUE_INDEX, LIST_INDEX, Index
from flowcore.adapters.memory import MemoryQueue, MemoryStore
from flowcore.adapters.system import SystemIds
from flowcore.model import Head, Outcome, RunStatus
from flowcore.ports import Store, Written
from flowcore.testing import VirtualClock
from flowcore.testing.contract import (
    NOW,
    RUN,
    SECOND,
    a_head,
    a_listener,
    a_receipt,
    a_record,
    a_running_head,
    a_sent,
    a_suspended_head,
    a_suspension,
    claim,
    suspend,
)
from flowcore.testing.meter import Bill, Metered
from flowcore.testing.moto import fresh_table

Act = Callable[[Store], Any]
BOTH = (DUE_INDEX, LIST_INDEX)


def _nothing(store: Store) -> None:
    pass


def _start_inline(store: Store) -> None:
    store.start(a_running_head())


def _release(**changes: Any) -> Act:
    return lambda store: store.release(a_head(**{"version": 2, "epoch": 1, "due": None, **changes}), epoch=1, version=1)


def _resume(head: Head) -> Act:
    answered = a_record("approve", Outcome.RESU, gen=1)
    return lambda store: store.resume(head, answered, version=3, prior=a_suspension())


def _listening(store: Store) -> None:
    suspend(store)
    store.listen(a_listener())


def _silence(store: Store) -> None:
    answered = a_record("approve", Outcome.RESU, gen=1)
    head, silenced = a_head(version=4, epoch=1), [a_listener("approve@0:a"), a_listener("approve@0:b")]
    store.resume(head, answered, version=3, prior=a_suspension(), silenced=silenced)


def _note(store: Store) -> None:
    store.note(RUN, NOW, "r001", "id-1", a_receipt())


def _noted(store: Store) -> None:
    suspend(store)
    _note(store)


def _take(store: Store) -> None:
    received = a_record("approve", Outcome.OK, gen=1)
    taken = a_sent("e-1", taker=("r-1", "approve@0"))
    store.resume(a_head(version=4, epoch=1), received, version=3, prior=a_suspension(), taken=taken)


WAITING: dict[str, Any] = {"status": RunStatus.WAITING, "wake": NOW, "due": NOW + 120 * SECOND}
EXPIRING: dict[str, Any] = {"due": NOW + 3600 * SECOND, "expires_at": NOW + 3600 * SECOND}
ENDED: dict[str, Any] = {"status": RunStatus.SUCCESS, "output": {"ok": True}}


def _batched(count: int, **left: Any) -> Act:
    """A release with so many outcomes of 300 bytes that were kept back."""
    batch = [(a_record(f"s{number}", output="x" * 200, seq=number), None) for number in range(count)]
    head = a_head(**{"version": 2, "epoch": 1, "due": None, **left})
    return lambda store: store.release(head, epoch=1, version=1, batch=batch)


def _commit_beside(store: Store, epoch: int | None = None) -> None:
    assert isinstance(store, DynamoStore)
    own = {"pk": {"S": "T#acme#R#of-my-own"}, "sk": {"S": "order"}, "paid": {"N": "1"}}
    effect = {"Put": {"TableName": store._table, "Item": own}}
    assert Written() == store.commit_with(RUN, 1, a_record(), None, [effect], epoch=epoch)


def _beat(store: Store) -> None:
    later: dict[str, Any] = {"lease_until": NOW + 120 * SECOND, "due": NOW + 150 * SECOND}
    store.release(a_running_head(version=2, **later), epoch=1, version=1)


def _told(store: Store, gen: int) -> None:
    told = [a_record("long!beat@", Outcome.START, output={"page": page}, gen=page) for page in range(gen + 1)]
    store.commit(RUN, 1, told[gen], told[gen - 1] if gen else None)


def _told_once(store: Store) -> None:
    _start_inline(store)
    _told(store, 0)


def _begin_once(store: Store) -> None:
    store.commit(RUN, 1, a_record("pay", Outcome.START, attempt=0), None)


def _begun_once(store: Store) -> None:
    _start_inline(store)
    _begin_once(store)


def _end_once(store: Store) -> None:
    store.commit(RUN, 1, a_record("pay", gen=1, output=1), a_record("pay", Outcome.START, attempt=0))


ROWS: list[tuple[str, Act, Act, int, int, float]] = [
    # what, before it, the transition; write units with the due index alone, with both indexes; read units
    ("start, queued", _nothing, lambda store: store.start(a_head()), 2, 3, 0),
    ("start, runs inline", _nothing, _start_inline, 2, 3, 0),
    ("commit a step", _start_inline, lambda store: store.commit(RUN, 1, a_record(output="x" * 500), None), 1, 1, 0),
    ("claim, pending", lambda store: store.start(a_head()), lambda store: claim(store, NOW), 3, 4, 0),
    ("claim, resumed", lambda store: store.start(a_head(epoch=1)), lambda store: claim(store, NOW), 3, 3, 0),
    ("claim, asleep", lambda store: store.start(a_head(**WAITING)), lambda store: claim(store, NOW), 3, 4, 0),
    ("release, suspended", _start_inline, _release(status=RunStatus.SUSPENDED), 2, 3, 0),
    ("release, asleep", _start_inline, _release(**WAITING), 3, 4, 0),
    ("release, handed on", _start_inline, _release(due=NOW + 5 * SECOND), 3, 3, 0),
    ("release, ended", _start_inline, _release(**ENDED), 2, 3, 0),
    ("release, ended, to expire", _start_inline, _release(**ENDED, **EXPIRING), 3, 4, 0),
    ("heartbeat that renews the lease", _start_inline, _beat, 3, 3, 0),
    ("heartbeat's details", _start_inline, lambda store: _told(store, 0), 1, 1, 0),
    ("heartbeat's next details", _told_once, lambda store: _told(store, 1), 1, 1, 0),
    ("release, ended, with 1 outcome", _start_inline, _batched(1, **ENDED), 5, 6, 0),
    ("release, ended, with 3 outcomes", _start_inline, _batched(3, **ENDED), 5, 6, 0),
    ("release, ended, with 10 outcomes", _start_inline, _batched(10, **ENDED), 9, 10, 0),
    ("release, ended, with 40 outcomes", _start_inline, _batched(40, **ENDED), 5, 6, 0),
    ("commit a step with a write of one's own", _start_inline, _commit_beside, 4, 4, 0),
    ("the same, while the run is held", _start_inline, partial(_commit_beside, epoch=1), 6, 6, 0),
    ("commit that a step begins, once", _start_inline, _begin_once, 1, 1, 0),
    ("commit a step that had begun", _begun_once, _end_once, 1, 1, 0),
    ("resume, queued", suspend, _resume(a_head(version=4, epoch=1)), 5, 6, 0),
    ("resume, inline", suspend, _resume(a_running_head(version=4, epoch=2)), 5, 6, 0),
    ("take an event", _listening, _take, 9, 10, 0),
    ("resume, two listen in vain", _listening, _silence, 9, 10, 0),
    ("keep a receipt", suspend, _note, 1, 1, 0),
    ("count a receipt", _noted, _note, 1, 1, 0),
    ("start with an event", _nothing, lambda store: store.start_with(a_head(), a_sent("e-1")), 5, 6, 0),
    ("cancel, running", _start_inline, lambda store: store.cancel(RUN, now=NOW), 2, 3, 0),
    ("cancel, suspended", suspend, lambda store: store.cancel(RUN, now=NOW), 1, 2, 0),
    ("peek", suspend, lambda store: store.peek(RUN), 0, 0, 1),
    ("load", suspend, lambda store: store.load(RUN), 0, 0, 1),
    ("load after a claim", suspend, lambda store: store.load(RUN, a_head()), 0, 0, 1),
]


@pytest.fixture(params=[(DUE_INDEX,), BOTH], ids=["due index", "both indexes"])
def indexes(request: pytest.FixtureRequest) -> Any:
    """The table's indexes."""
    return request.param


@pytest.fixture
def metered(client: Any, indexes: tuple[Index, ...]) -> Iterator[tuple[Store, Metered]]:
    """An empty store and the meter on its client."""
    with fresh_table(client, indexes=indexes) as table:
        meter = Metered(client, indexes)
        yield DynamoStore(meter, table, SystemIds(), pause=lambda _: None), meter


def _billed(store: Store, meter: Metered, prepare: Act, act: Act) -> Bill:
    prepare(store)
    meter.take_bill()
    act(store)
    return meter.take_bill()


@pytest.mark.parametrize(
    ("prepare", "act", "lean", "full", "read"), [row[1:] for row in ROWS], ids=[r[0] for r in ROWS]
)
def test_cost_table(
    metered: tuple[Store, Metered],
    indexes: tuple[Index, ...],
    prepare: Act,
    act: Act,
    lean: int,
    full: int,
    read: float,
    request: pytest.FixtureRequest,
) -> None:
    """Each transition is one request, and costs what the table says."""
    bill = _billed(*metered, prepare, act)
    print(
        f"\n{request.node.callspec.id:36}{bill.write_units:3} write {bill.read_units:4} read {bill.bytes_written:5} B"
    )
    assert (1, full if indexes == BOTH else lean, read) == (bill.calls, bill.write_units, bill.read_units)


def _approval(store: Store) -> None:
    """3 steps, suspend, resume, 2 steps, finish; everything inline."""
    head = a_running_head()
    store.start(head)
    for key in ("a", "b", "c"):
        assert Written() == store.commit(RUN, 1, a_record(key, output="x" * 300), None)
    store.commit(RUN, 1, a_suspension(), None)
    suspended = a_suspended_head(version=2)
    assert Written() == store.release(suspended, epoch=1, version=1)
    assert store.load(RUN) is not None
    resumed = a_running_head(version=3, epoch=2)
    answered = a_record("approve", Outcome.RESU, gen=1)
    assert Written() == store.resume(resumed, answered, version=2, prior=a_suspension())
    assert Written() == store.commit(RUN, 1, a_record("approve", gen=2), answered)
    assert Written() == store.commit(RUN, 1, a_record("d"), None)
    ended = replace(resumed, status=RunStatus.SUCCESS, version=4, due=None, owner=None, lease_until=None)
    assert Written() == store.release(ended, epoch=2, version=3)


def test_an_approval_run_stays_in_its_budget(metered: tuple[Store, Metered], indexes: tuple[Index, ...]) -> None:
    """18 write units and 12 requests, or 22 units with the list index."""
    store, meter = metered
    _approval(store)
    bill = meter.take_bill()
    print(f"\n{bill}")
    assert (17, 21)[indexes == BOTH] == bill.write_units
    assert 11 == bill.calls
    assert 1 == bill.read_units


def _approval_at_boundaries(store: Store) -> None:
    """The same, stored where the run stops."""
    head = a_running_head()
    store.start(head)
    batch = [(a_record(key, output="x" * 300), None) for key in ("a", "b", "c")]
    suspended = a_suspended_head(version=2)
    assert Written() == store.release(suspended, epoch=1, version=1, batch=[*batch, (a_suspension(), None)])
    assert store.load(RUN) is not None
    resumed = a_running_head(version=3, epoch=2)
    answered = a_record("approve", Outcome.RESU, gen=1)
    assert Written() == store.resume(resumed, answered, version=2, prior=a_suspension())
    ended = replace(resumed, status=RunStatus.SUCCESS, version=4, due=None, owner=None, lease_until=None)
    last = [(a_record("approve", gen=2), answered), (a_record("d"), None)]
    assert Written() == store.release(ended, epoch=2, version=3, batch=last)


def test_an_approval_run_at_boundaries_takes_five_requests(
    metered: tuple[Store, Metered], indexes: tuple[Index, ...]
) -> None:
    """Instead of eleven, for six units more: what a transaction writes is billed twice, and few steps gain little."""
    store, meter = metered
    _approval_at_boundaries(store)
    bill = meter.take_bill()
    print(f"\n{bill}")
    assert (5, (23, 27)[indexes == BOTH]) == (bill.calls, bill.write_units)


@pytest.mark.parametrize(("steps", "one_by_one", "together"), [(1, 5, 7), (4, 8, 7), (10, 14, 9), (30, 34, 13)])
def test_many_steps_cost_less_together_than_one_by_one(client: Any, steps: int, one_by_one: int, together: int) -> None:
    """A run of steps of 200 bytes each, inline, with the due index alone: write units in both ways."""
    records = [a_record(f"s{number:02}", output="x" * 60, seq=number) for number in range(steps)]
    ended = a_head(version=2, epoch=1, due=None, **ENDED)
    found = []
    for at_boundaries in (False, True):
        with fresh_table(client, indexes=(DUE_INDEX,)) as table:
            meter = Metered(client, (DUE_INDEX,))
            store = DynamoStore(meter, table, SystemIds(), pause=lambda _: None)
            store.start(a_running_head())
            for record in () if at_boundaries else records:
                store.commit(RUN, 1, record, None)
            batch = [(record, None) for record in records] if at_boundaries else []
            store.release(ended, epoch=1, version=1, batch=batch)
            found.append(meter.take_bill().write_units)
    assert [one_by_one, together] == found


def test_a_small_record_is_well_under_a_kilobyte(metered: tuple[Store, Metered]) -> None:
    """What the library adds to a value is little."""
    store, meter = metered
    store.commit(RUN, 1, a_record(), None)
    assert meter.take_bill().bytes_written < 150
    store.start(a_head())
    assert meter.take_bill().bytes_written < 350


def test_one_more_step_costs_the_same_however_many_there_are(metered: tuple[Store, Metered]) -> None:
    """Nothing but the head is ever rewritten."""
    store, meter = metered
    bills = []
    for number in range(40):
        store.commit(RUN, 1, a_record(f"s{number:02}"), None)
        bills.append(meter.take_bill())
    assert [bills[0]] * 40 == bills


@pytest.mark.parametrize(("shard", "most"), [(1, 224), (4, 104), (10, 80)])
def test_a_distributed_foreach_costs_what_it_says(metered: tuple[Store, Metered], shard: int, most: int) -> None:
    """Twenty items and the run around them: ten units an item where each has a child, two where many share one."""
    bill = _fanned(*metered, count=20, shard=shard)
    assert bill.write_units <= most


@pytest.mark.slow
@pytest.mark.gate
def test_a_thousand_items_cost_three_units_each(client: Any) -> None:
    """With a hundred children, as they are made when nobody says otherwise, and with both indexes."""
    with fresh_table(client, indexes=BOTH) as table:
        meter = Metered(client, BOTH)
        store = DynamoStore(meter, table, SystemIds(), pause=lambda _: None)
        bill = _fanned(store, meter, count=1_000, shard=None)
    print(f"\n{bill}")
    assert 2_700 <= bill.write_units <= 3_000


def test_a_run_with_500_finished_items_is_redriven_in_a_few_requests(client: Any) -> None:
    """What they gave is brought to the new life in one transaction: a call over HTTP has 29 seconds for everything."""
    is_broken = True

    @step
    def shaky(number: int) -> int:
        if is_broken and number == 250:
            raise ValueError("down")
        return number

    flow = workflow("fanned", input=list[int], output=list[int])
    fanned = flow.foreach(shaky, id="fan", distributed=True, shard=50, concurrency=500).commit()
    clock, memory = VirtualClock(), MemoryStore()
    queue = MemoryQueue(clock)
    _driven(App(fanned, store=memory, queue=queue, clock=clock), queue, clock, list(range(500)))
    is_broken = False
    with fresh_table(client, indexes=BOTH) as table:
        for item in memory.items():
            client.put_item(TableName=table, Item=item)
        meter = Metered(client, BOTH)
        app = App(fanned, store=DynamoStore(meter, table, SystemIds(), pause=lambda _: None), queue=queue, clock=clock)
        app.redrive("r")
        bill = meter.take_bill()
        _looked_at(app, queue, clock)
        assert list(range(500)) == app.run("r").result().output
    assert {"Query": 20, "TransactWriteItems": 1, "UpdateItem": 1} == bill.requests
    assert bill.write_units <= 40


def _fanned(store: Store, meter: Metered, *, count: int, shard: int | None) -> Bill:
    """A distributed foreach of so many small items, from its start to its end."""

    @step
    def same(number: int) -> int:
        return number

    flow = workflow("fanned", input=list[int], output=list[int])
    fanned = flow.foreach(same, id="fan", distributed=True, shard=shard).commit()
    clock = VirtualClock()
    queue = MemoryQueue(clock)
    app = App(fanned, store=store, queue=queue, clock=clock)
    _driven(app, queue, clock, list(range(count)))
    bill = meter.take_bill()
    assert list(range(count)) == app.run("r").result().output
    return bill


def _driven(app: App, queue: MemoryQueue, clock: VirtualClock, items: list[int]) -> None:
    app.workflow("fanned").create_run("r").start(items)
    _looked_at(app, queue, clock)


def _looked_at(app: App, queue: MemoryQueue, clock: VirtualClock) -> None:
    while hints := queue.pop_due(clock.now()):
        for hint in hints:
            app.look(hint.run)
