"""Memory that stands for AWS: a store, a queue and a scheduler for tests and for one process on a developer's desk.

``MemoryStore`` is a verified fake. It keeps the same items as the table would, made by the same functions, so a value
takes the same journey; it passes the same contract suite; only the conditions are judged here, in Python, under a lock.
A write touches one item and two small views, however many records a run has.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from threading import RLock

from flowcore.adapters.dynamodb_attributes import Item, instant_of, item_size, number, text
from flowcore.adapters.dynamodb_batch import decode_all, encode_batch, encode_life
from flowcore.adapters.dynamodb_heads import (
    Change,
    canceling,
    claiming,
    decode_head,
    decode_summary,
    encode_head,
    own_scope,
    replacement,
)
from flowcore.adapters.dynamodb_items import SCHEMA
from flowcore.adapters.dynamodb_joins import decode_join, encode_join, growing, join_key, joins_prefix
from flowcore.adapters.dynamodb_keys import incarnation_prefix, partition_of, run_of, scope_prefix
from flowcore.adapters.dynamodb_mail import (
    LISTENERS,
    decode_sent,
    encode_listener,
    encode_sent,
    event_key,
    listener_key,
    mail_of,
    taker_key,
)
from flowcore.adapters.dynamodb_notes import counted, decode_note, encode_note, notes_prefix
from flowcore.adapters.dynamodb_records import decode_record, encode_record, gather
from flowcore.adapters.listing import MOST_LOOKED_AT, Listing, lines_before, listing, mark
from flowcore.delivery_log import Delivery
from flowcore.errors import InvariantError, NeedsDynamoDB
from flowcore.keys import RunRef, Scope, StepKey, scope_of
from flowcore.model import (
    EVERY_RUN,
    TERMINAL,
    Head,
    Join,
    Listener,
    Mail,
    Page,
    PublicStatus,
    Receipt,
    RunFilter,
    RunStatus,
    RunSummary,
    Sent,
    StepRecord,
    Topic,
)
from flowcore.ports import (
    Batch,
    Claimed,
    Clock,
    EffectMoved,
    Effects,
    EventTaken,
    HeadMoved,
    Hint,
    NotClaimable,
    RecordMoved,
    Records,
    Written,
)


class MemoryStore:
    """``flowcore.ports.Store`` in memory, with the items of the DynamoDB adapter."""

    def __init__(self, *, most_looked_at: int = MOST_LOOKED_AT) -> None:
        """An empty store; ``most_looked_at``: entries that one page of a listing looks at, then it is given out."""
        self._most_looked_at = most_looked_at
        self._lock = RLock()
        self._tokens = (f"{drawn:026}" for drawn in count(1))
        self._heads: dict[str, Item] = {}
        self._scopes: dict[str, dict[str, dict[str, Item]]] = {}
        """Partition key, then prefix of a scope, then sort key: a scope is read without a look at the others."""
        self._joins: dict[str, dict[str, Item]] = {}
        """Partition key, then sort key."""
        self._notes: dict[str, dict[str, Item]] = {}
        """Partition key, then sort key: the receipts beside each run."""
        self._due: dict[str, datetime] = {}
        self._listed: dict[str, dict[str, str]] = {}
        """Tenant, then list key, then partition key."""
        self._mail: dict[Topic, dict[str, Item]] = {}
        """Topic, then sort key."""

    def start(self, head: Head) -> Head | None:
        """See ``Store.start``."""
        with self._lock:
            item = encode_head(head, next(self._tokens))
            standing = self._heads.get(item["pk"]["S"])
            if standing is not None:
                return decode_head(standing)
            self._keep(item)
            if head.part is None:
                self._listed.setdefault(head.run.tenant, {})[item["lsk"]["S"]] = item["pk"]["S"]
            return None

    def start_with(self, head: Head, sent: Sent) -> Head | Sent | None:
        """See ``Store.start_with``."""
        with self._lock:
            encode_sent(sent, "", SCHEMA)  # refuses what cannot be kept, before anything is
            return self._kept(sent) or self.start(head) or self.keep(sent)

    def claim(
        self, run: RunRef, *, owner: str, now: datetime, lease_until: datetime, due: datetime
    ) -> Claimed | NotClaimable:
        """See ``Store.claim``."""
        with self._lock:
            item = self._heads.get(partition_of(run))
            if item is None:
                return NotClaimable(None)
            head = decode_head(item)
            if not _is_claimable(head, now):
                return NotClaimable(head)
            clock = now if head.updated_at <= now else None
            token = next(self._tokens)
            change = claiming(run, owner=owner, lease_until=lease_until, due=due, clock=clock, token=token)
            return Claimed(self._apply(item, change))

    def load(self, run: RunRef, head: Head | None = None, *, everything: bool = False) -> tuple[Head, Records] | None:
        """See ``Store.load``."""
        with self._lock:
            head = head or self.peek(run)
            if head is None:
                return None
            incarnation, scopes = head.incarnation, self._scopes.get(partition_of(run), {})
            if everything:
                own = incarnation_prefix(incarnation)
                found = [item for prefix, scope in scopes.items() if prefix.startswith(own) for item in _sorted(scope)]
                return head, {record.key: record for record in decode_all(found)}

            def read(scope: Scope) -> Iterator[StepRecord]:
                return decode_all(_sorted(scopes.get(scope_prefix(incarnation, scope), {})))

            return head, gather(read(own_scope(head)), read)

    def peek(self, run: RunRef) -> Head | None:
        """See ``Store.peek``."""
        with self._lock:
            item = self._heads.get(partition_of(run))
            return None if item is None else decode_head(item)

    def commit(
        self, run: RunRef, incarnation: int, record: StepRecord, prior: StepRecord | None
    ) -> Written | RecordMoved:
        """See ``Store.commit``."""
        with self._lock:
            item = encode_record(run, incarnation, record, next(self._tokens))
            scope = self._scope_of(run, incarnation, record)
            standing = scope.get(item["sk"]["S"])
            if not _is_still(standing, prior):
                return RecordMoved(None if standing is None else decode_record(standing))
            scope[item["sk"]["S"]] = item
            return Written()

    def commit_with(
        self,
        run: RunRef,  # noqa: ARG002  # nothing is written, whatever is asked for
        incarnation: int,  # noqa: ARG002
        record: StepRecord,  # noqa: ARG002
        prior: StepRecord | None,  # noqa: ARG002
        effects: Effects,  # noqa: ARG002
        *,
        epoch: int | None = None,  # noqa: ARG002
    ) -> Written | RecordMoved | EffectMoved | HeadMoved:
        """See ``Store.commit_with``; there are no tables of an author's here."""
        raise NeedsDynamoDB("ctx.commit_with()")

    def release(self, head: Head, *, epoch: int, version: int, batch: Batch = ()) -> Written | HeadMoved | RecordMoved:
        """See ``Store.release``."""
        with self._lock:
            token = next(self._tokens)
            change, items = replacement(head, token), encode_batch(head.run, head.incarnation, batch, token)
            item = self._heads.get(partition_of(head.run))
            standing = None if item is None else decode_head(item)
            held = (RunStatus.RUNNING, epoch, version)
            if item is None or standing is None or (standing.status, standing.epoch, standing.version) != held:
                return HeadMoved(standing)
            for record_item, record, prior in items:
                there = self._scope_of(head.run, head.incarnation, record).get(record_item["sk"]["S"])
                if not _is_still(there, prior):
                    return RecordMoved(None if there is None else next(decode_all([there])))
            self._apply(item, change)
            for record_item, record, _ in items:
                self._scope_of(head.run, head.incarnation, record)[record_item["sk"]["S"]] = record_item
            return Written()

    def bring(
        self,
        incarnation: int,
        records: Sequence[tuple[RunRef, StepRecord]],
        *,
        joins: Sequence[tuple[RunRef, Join]] = (),
        listeners: Sequence[Listener] = (),
    ) -> bool:
        """See ``Store.bring``."""
        with self._lock:
            token = next(self._tokens)
            opened = [encode_join(partition_of(run), join, token, SCHEMA) for run, join in joins]
            written = encode_life(incarnation, records, token)
            places = [
                *((self._joins.setdefault(item["pk"]["S"], {}), item) for item in opened),
                *((self._scope_of(run, incarnation, record), item) for run, record, item in written),
            ]
            if any(item["sk"]["S"] in place for place, item in places):
                return False
            for listener in listeners:
                self.listen(listener)
            for place, item in places:
                place[item["sk"]["S"]] = item
            return True

    def weigh(self, run: RunRef, incarnation: int, record: StepRecord) -> int:
        """See ``Store.weigh``."""
        return item_size(encode_record(run, incarnation, record, "0" * 26))

    def move(self, head: Head, *, version: int) -> Written | HeadMoved:
        """See ``Store.move``."""
        with self._lock:
            change = replacement(head, next(self._tokens))
            item = self._heads.get(partition_of(head.run))
            if item is None or item["ver"] != number(version):
                return HeadMoved(None if item is None else decode_head(item))
            self._apply(item, change)
            return Written()

    def delete(self, run: RunRef, *, last: Head | None = None, stays: bool = False) -> bool:
        """See ``Store.delete``."""
        with self._lock:
            partition = partition_of(run)
            if last is not None and isinstance(self.move(last, version=last.version - 1), HeadMoved):
                return False
            self._scopes.pop(partition, None)
            self._joins.pop(partition, None)
            self._notes.pop(partition, None)
            if stays and last is not None:
                self._keep(encode_head(last, next(self._tokens)))
                return True
            self._due.pop(partition, None)
            item = self._heads.pop(partition, None)
            if item is not None and "lsk" in item:
                self._listed[run.tenant].pop(item["lsk"]["S"], None)
            return item is not None

    def resume(
        self,
        head: Head,
        record: StepRecord,
        *,
        version: int,
        prior: StepRecord,
        taken: Sent | None = None,
        silenced: Sequence[Listener] = (),
    ) -> Written | HeadMoved | RecordMoved | EventTaken:
        """See ``Store.resume``."""
        with self._lock:
            token = next(self._tokens)
            change, item = replacement(head, token), encode_record(head.run, head.incarnation, record, token)
            scope = self._scope_of(head.run, head.incarnation, record)
            standing = scope.get(item["sk"]["S"])
            if not _is_still(standing, prior):
                return RecordMoved(None if standing is None else decode_record(standing))
            if taken is not None and (sent := self._kept(taken)) is not None and sent.taker is not None:
                return EventTaken(sent)
            head_item = self._heads.get(partition_of(head.run))
            if head_item is None or head_item["ver"] != number(version):
                return HeadMoved(None if head_item is None else decode_head(head_item))
            if taken is not None:
                self._take(taken, token)
            for listener in silenced:
                self.unlisten(listener)
            self._apply(head_item, change)
            scope[item["sk"]["S"]] = item
            return Written()

    def cancel(self, run: RunRef, *, now: datetime, by: str | None = None) -> Head | None:
        """See ``Store.cancel``."""
        with self._lock:
            item = self._heads.get(partition_of(run))
            if item is None:
                return None
            head = decode_head(item)
            if head.status in TERMINAL:
                return head
            clock = now if head.updated_at <= now else None
            return self._apply(item, canceling(by=by, clock=clock, token=next(self._tokens)))

    def note(self, run: RunRef, born: datetime, slot: str, id: str, receipt: Receipt) -> bool:
        """See ``Store.note``."""
        with self._lock:
            item = {"pk": text(partition_of(run)), **encode_note(born, slot, id, receipt, next(self._tokens), SCHEMA)}
            notes = self._notes.setdefault(item["pk"]["S"], {})
            standing = notes.get(item["sk"]["S"])
            if standing is not None and standing["h"] != item["h"]:
                return False
            notes[item["sk"]["S"]] = item if standing is None else counted(standing, item)
            return True

    def notes(self, run: RunRef, born: datetime) -> Sequence[Receipt]:
        """See ``Store.notes``."""
        with self._lock:
            notes, prefix = self._notes.get(partition_of(run), {}), notes_prefix(born)
            return [decode_note(item) for key, item in notes.items() if key.startswith(prefix)]

    def due(self, now: datetime, *, limit: int) -> Sequence[RunRef]:
        """See ``Store.due``; the longest overdue first."""
        with self._lock:
            overdue = [(due, partition) for partition, due in self._due.items() if due < now]
            return [run_of(partition) for _, partition in heapq.nsmallest(limit, overdue)]

    def list_runs(
        self,
        tenant: str,
        wanted: RunFilter = EVERY_RUN,
        *,
        limit: int = 50,
        cursor: str | None = None,
        oldest_first: bool = False,
    ) -> Page[RunSummary]:
        """See ``Store.list_runs``."""
        asked = listing(wanted, limit=limit, cursor=cursor, oldest_first=oldest_first)
        with self._lock:
            return asked.page_of(self._looked_at(tenant, asked))

    def count_runs(self, tenant: str, wanted: RunFilter = EVERY_RUN) -> Mapping[PublicStatus, int]:
        """See ``Store.count_runs``."""
        asked = listing(wanted)
        with self._lock:
            heads = [self._heads[self._listed[tenant][key]] for key in self._keys(tenant, asked)]
            return Counter(decode_summary(head).status for head in heads if asked.wants(head))

    def _looked_at(self, tenant: str, asked: Listing) -> Iterator[Item]:
        """Entries in order; after ``most_looked_at`` of them patience ends, as it does where looking costs money."""
        keys = self._keys(tenant, asked)
        for key in keys[: self._most_looked_at]:
            yield self._heads[self._listed[tenant][key]]
        if keys[self._most_looked_at :]:
            yield mark(keys[self._most_looked_at - 1])

    def _keys(self, tenant: str, asked: Listing) -> list[str]:
        within = (key for key in self._listed.get(tenant, {}) if asked.lowest <= key <= asked.highest)
        return sorted(within, reverse=not asked.oldest_first)

    def open_join(self, run: RunRef, join: Join) -> None:
        """See ``Joins.open_join``."""
        with self._lock:
            item = encode_join(partition_of(run), join, next(self._tokens), SCHEMA)
            self._joins.setdefault(partition_of(run), {}).setdefault(item["sk"]["S"], item)

    def join(self, run: RunRef, added: Join, *, unparked: Collection[int] = ()) -> Join | None:
        """See ``Joins.join``."""
        with self._lock:
            joins = self._joins.get(partition_of(run), {})
            item = joins.get(join_key(added))
            if item is None:
                return None
            growth = growing(added, unparked)
            joins[join_key(added)] = growth.applied_to({**item, "lc": text(next(self._tokens))})
            return decode_join(joins[join_key(added)])

    def joins(self, run: RunRef, incarnation: int | None = None, key: StepKey | None = None) -> Sequence[Join]:
        """See ``Joins.joins``."""
        prefix = joins_prefix(incarnation, key)
        with self._lock:
            found = self._joins.get(partition_of(run), {})
            return [decode_join(found[name]) for name in sorted(found) if name.startswith(prefix)]

    def scope(self, run: RunRef, incarnation: int, scope: Scope) -> Records:
        """See ``Joins.scope``."""
        with self._lock:
            items = self._scopes.get(partition_of(run), {}).get(scope_prefix(incarnation, scope), {})
            return {record.key: record for record in decode_all(_sorted(items))}

    def listen(self, listener: Listener) -> None:
        """See ``Mailbox.listen``."""
        with self._lock:
            item = encode_listener(listener, SCHEMA)
            self._mail.setdefault(listener.topic, {})[item["sk"]["S"]] = item

    def unlisten(self, listener: Listener) -> None:
        """See ``Mailbox.unlisten``."""
        with self._lock:
            self._mail.get(listener.topic, {}).pop(listener_key(listener)["sk"]["S"], None)

    def keep(self, sent: Sent) -> Sent | None:
        """See ``Mailbox.keep``."""
        with self._lock:
            item = encode_sent(sent, next(self._tokens), SCHEMA)
            standing = self._kept(sent)
            if standing is None:
                self._mail.setdefault(sent.topic, {})[item["sk"]["S"]] = item
            return standing

    def mail(self, topic: Topic, now: datetime, *, event_id: str | None = None, listeners: bool = True) -> Mail:
        """See ``Mailbox.mail``."""
        wanted = None if event_id is None else event_key(topic, event_id)["sk"]["S"]
        with self._lock:
            items = self._mail.get(topic, {}).items()
            found = [
                item
                for key, item in items
                if (listeners if key.startswith(LISTENERS) else wanted is None or key == wanted)
            ]
            return mail_of(topic, found, now)

    def items(self) -> list[Item]:
        """Every item as the table would hold it, in no particular order; for tests that compare stores."""
        with self._lock:
            records = [item for run in self._scopes.values() for scope in run.values() for item in scope.values()]
            mail = [item for topic in self._mail.values() for item in topic.values()]
            joins = [item for run in self._joins.values() for item in run.values()]
            notes = [item for run in self._notes.values() for item in run.values()]
            return [dict(item) for item in (*self._heads.values(), *records, *joins, *mail, *notes)]

    def _kept(self, event: Sent) -> Sent | None:
        """The event of the same id, as long as it is kept."""
        item = self._mail.get(event.topic, {}).get(event_key(event.topic, event.id)["sk"]["S"])
        standing = None if item is None else decode_sent(event.topic, item)
        return None if standing is None or standing.until <= event.at else standing

    def _take(self, event: Sent, token: str) -> None:
        item = encode_sent(event, token, SCHEMA)
        items = self._mail.setdefault(event.topic, {})
        items[item["sk"]["S"]] = item
        items.pop(taker_key(event)["sk"]["S"], None)

    def _apply(self, item: Item, change: Change) -> Head:
        changed = change.applied_to(item)
        self._keep(changed)
        return decode_head(changed)

    def _keep(self, head: Item) -> None:
        partition = head["pk"]["S"]
        self._heads[partition] = head
        if "due" in head:
            self._due[partition] = instant_of(head["due"])
        else:
            self._due.pop(partition, None)

    def _scope_of(self, run: RunRef, incarnation: int, record: StepRecord) -> dict[str, Item]:
        scopes = self._scopes.setdefault(partition_of(run), {})
        return scopes.setdefault(scope_prefix(incarnation, scope_of(record.key)), {})


def _is_claimable(head: Head, now: datetime) -> bool:
    match head.status:
        case RunStatus.QUEUED:
            return True
        case RunStatus.RUNNING:
            return head.lease_until is not None and head.lease_until < now
        case RunStatus.WAITING | RunStatus.JOINING | RunStatus.SUSPENDED:
            return head.wake is not None and head.wake <= now
        case _:
            return False


def _is_still(standing: Item | None, prior: StepRecord | None) -> bool:
    if standing is None or prior is None:
        return standing is None and prior is None
    return standing["o"] == text(prior.outcome) and standing["g"] == number(prior.gen)


def _sorted(scope: dict[str, Item]) -> Iterator[Item]:
    return (scope[key] for key in sorted(scope))


class MemoryQueue:
    """``flowcore.ports.Queue`` in memory: hands out each hint once, when its delay has passed and somebody asks."""

    max_delay_s = 900

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = RLock()
        self._waiting: list[tuple[datetime, int, Hint]] = []
        self._numbers = count()
        self.sent: list[tuple[Hint, int]] = []
        """Every hint ever sent, with its delay in seconds, in order."""

    def send(self, hint: Hint, *, delay_s: int) -> None:
        """See ``Queue.send``."""
        if not 0 <= delay_s <= self.max_delay_s:
            raise InvariantError(f"A message can wait 0 to {self.max_delay_s} seconds, not {delay_s}.")
        with self._lock:
            self.sent.append((hint, delay_s))
            ripe = self._clock.now() + timedelta(seconds=delay_s)
            heapq.heappush(self._waiting, (ripe, next(self._numbers), hint))

    def pop_due(self, now: datetime) -> list[Hint]:
        """Take the hints whose delay has passed, the first due first."""
        with self._lock:
            found = []
            while self._waiting and self._waiting[0][0] <= now:
                found.append(heapq.heappop(self._waiting)[2])
            return found

    def next_at(self) -> datetime | None:
        """When the next hint can be taken; None when there is none."""
        with self._lock:
            return self._waiting[0][0] if self._waiting else None


class MemoryScheduler:
    """``flowcore.ports.Scheduler`` in memory: keeps hints until somebody asks for those whose instant has come."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._standing: dict[tuple[RunRef, int], Hint] = {}

    def schedule(self, hint: Hint, *, version: int) -> None:
        """See ``Scheduler.schedule``."""
        with self._lock:
            self._standing.setdefault((hint.run, version), hint)

    def unschedule(self, run: RunRef, *, version: int) -> None:
        """See ``Scheduler.unschedule``."""
        with self._lock:
            self._standing.pop((run, version), None)

    def pop_due(self, now: datetime) -> list[Hint]:
        """Take the hints whose instant has come, the earliest first."""
        with self._lock:
            ripe = [key for key, hint in self._standing.items() if hint.at <= now]
            return sorted((self._standing.pop(key) for key in ripe), key=lambda hint: hint.at)

    def next_at(self) -> datetime | None:
        """When the next hint fires; None when there is none."""
        with self._lock:
            return min((hint.at for hint in self._standing.values()), default=None)


class MemoryDeliveries:
    """``flowcore.delivery_log.DeliveryLog`` in memory."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._lines: dict[tuple[str, str], dict[str, Delivery]] = {}

    def log(self, delivery: Delivery, until: datetime) -> None:
        """See ``DeliveryLog.log``; kept as long as this process."""
        del until
        with self._lock:
            self._lines.setdefault((delivery.tenant, delivery.hook), {})[delivery.id] = delivery

    def delivery(self, tenant: str, hook: str, id: str) -> Delivery | None:
        """See ``DeliveryLog.delivery``."""
        with self._lock:
            return self._lines.get((tenant, hook), {}).get(id)

    def deliveries(self, tenant: str, hook: str, *, limit: int, cursor: str | None = None) -> Page[Delivery]:
        """See ``DeliveryLog.deliveries``."""
        with self._lock:
            lines = self._lines.get((tenant, hook), {})
            below = lines_before(cursor)
            named = sorted((id for id in lines if f"D#{id}" < below), reverse=True)
            shown = [replace(lines[id], body=None) for id in named[:limit]]
        return Page(shown, shown[-1].id if len(named) > limit else None)
