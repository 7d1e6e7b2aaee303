"""The store on DynamoDB: which condition guards which write, and what a refused one means.

Every write is conditional, carries a fresh token and asks for the item that stood in its way. **Own-write rule:** if
that item carries our token, an earlier try of this very call had done the write and only its reply was lost; that is
success. What a refusal means to the run is for the engine to say.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from flowcore.adapters.aws import ClientError, DynamoClient, Reply
from flowcore.adapters.dynamodb_asking import Asking
from flowcore.adapters.dynamodb_attributes import Attribute, Item, instant, instant_of, item_size, number, text
from flowcore.adapters.dynamodb_batch import decode_all, encode_batch, encode_life, transactions
from flowcore.adapters.dynamodb_dry import NotingClient
from flowcore.adapters.dynamodb_effects import refused, typed
from flowcore.adapters.dynamodb_expressions import (
    guarded,
    key_of,
    occurrence,
    ranged,
    statuses,
    update_expression,
)
from flowcore.adapters.dynamodb_heads import (
    Change,
    canceling,
    claiming,
    decode_head,
    encode_head,
    own_scope,
    replacement,
)
from flowcore.adapters.dynamodb_items import SCHEMA
from flowcore.adapters.dynamodb_joins import JOIN_PREFIX, decode_join, encode_join, growing, join_key, joins_prefix
from flowcore.adapters.dynamodb_keys import (
    DUE_INDEX,
    HEAD_KEY,
    SHARDS,
    due_shard,
    incarnation_prefix,
    list_shard,
    partition_of,
    run_of,
    scope_prefix,
)
from flowcore.adapters.dynamodb_listing import Patience, listed
from flowcore.adapters.dynamodb_mail import (
    EVENTS,
    LISTENERS,
    decode_sent,
    encode_listener,
    encode_sent,
    event_key,
    listener_key,
    mail_of,
    taker_key,
    topic_partition,
)
from flowcore.adapters.dynamodb_notes import decode_note, encode_note, notes_prefix
from flowcore.adapters.dynamodb_records import encode_record, gather
from flowcore.adapters.dynamodb_removal import Removal
from flowcore.adapters.dynamodb_verdicts import (
    Done,
    Refused,
    batch_refused,
    cancellations,
    effects_refused,
    head_in,
    is_mine,
    record_in,
    resume_refused,
    start_refused,
)
from flowcore.adapters.listing import MOST_LOOKED_AT, listing
from flowcore.errors import InvariantError, StoreUnavailable
from flowcore.keys import ROOT, RunRef, Scope, StepKey
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
    EffectMoved,
    Effects,
    EventTaken,
    HeadMoved,
    Ids,
    NotClaimable,
    RecordMoved,
    Records,
    Store,
    Written,
)

_ABSENT = "attribute_not_exists(#pk)"
"""Nobody has made this item yet."""
_PRESENT = "attribute_exists(#pk)"
"""There is such an item."""
_KEPT_NO_LONGER = "#u <= :at"
"""The event is past its time, and is only here because DynamoDB deletes such items up to days later."""
_NOT_KEPT = f"{_ABSENT} OR {_KEPT_NO_LONGER}"
"""No event of this id is kept any more."""
_UNTAKEN = f"attribute_not_exists(#tk) OR {_KEPT_NO_LONGER}"
"""The event has settled no wait yet; or it is not here at all, which is as good."""
_SAME_NOTE = f"{_ABSENT} OR (#h = :h AND #lc <> :lc)"
"""The slot is free, or holds the same receipt, which this very write has not counted yet."""
_SAME_RECORD = "#o = :outcome AND #g = :gen"
"""The record is still the occurrence that the writer decided upon."""
_SAME_VERSION = "#ver = :version"
"""Nobody has changed the head since it was read."""
_HELD = "#st = :running AND #ep = :epoch"
"""The writer's lease was not taken by another, and nobody canceled meanwhile."""
_STILL_HELD = f"{_HELD} AND {_SAME_VERSION}"
"""The same, and nobody resumed meanwhile."""
_CLAIMABLE = (
    "(#st = :queued OR (#st = :running AND #lx < :now) OR (#st IN (:waiting, :joining, :suspended) AND #wake <= :now))"
)
"""Nobody drives the run, and there is something to drive now."""
_NOT_ENDED = "NOT #st IN (:success, :failed, :canceled)"
"""The run can still change."""
_READABLE = "#v <= :schema"
"""There is such a head, and we understand it: a later flowcore did not write it."""
_CLOCK_BEHIND = "#ua <= :now"
"""The run's own clock would not go backwards by being set to ours."""
_CLOCK_AHEAD = "#ua > :now"
"""The run's own clock is already later than ours, and stays."""


class DynamoStore:
    """``flowcore.ports.Store`` on one DynamoDB table."""

    def __init__(
        self,
        client: DynamoClient,
        table: str,
        ids: Ids,
        *,
        pause: Callable[[float], None] = time.sleep,
        most_looked_at: int = MOST_LOOKED_AT,
    ) -> None:
        """Use ``table`` through ``client``.

        Args:
            pause: waits that many seconds between two tries.
            most_looked_at: entries that one page of a listing looks at, about; then it is given out as it is.
        """
        self._client = client
        self._table = table
        self._ids = ids
        self._ask = Asking(client, table, ids, pause)
        self._removal = Removal(client, table, self._ask)
        self._most_looked_at = most_looked_at

    def start(self, head: Head) -> Head | None:
        """See ``Store.start``."""
        token = self._ids.fresh()
        verdict = self._put(encode_head(head, token), token, _ABSENT, {})
        return head_in(verdict) if isinstance(verdict, Refused) else None

    def start_with(self, head: Head, sent: Sent) -> Head | Sent | None:
        """See ``Store.start_with``."""
        token = self._ids.fresh()
        run = self._putting(encode_head(head, token), _ABSENT, {})
        event = self._putting(encode_sent(sent, token, SCHEMA), _NOT_KEPT, {":at": instant(sent.at)})
        try:
            self._transact(token, [{"Put": run}, {"Put": event}])
        except ClientError as error:
            return start_refused(error, token, sent)
        return None

    def claim(
        self, run: RunRef, *, owner: str, now: datetime, lease_until: datetime, due: datetime
    ) -> Claimed | NotClaimable:
        """See ``Store.claim``."""
        token = self._ids.fresh()
        idle = (RunStatus.WAITING, RunStatus.JOINING, RunStatus.SUSPENDED)
        verdict = self._advance(
            run,
            lambda clock: claiming(run, owner=owner, lease_until=lease_until, due=due, clock=clock, token=token),
            token,
            _CLAIMABLE,
            statuses(RunStatus.QUEUED, RunStatus.RUNNING, *idle),
            now,
        )
        head = head_in(verdict)
        return Claimed(head) if isinstance(verdict, Done) and head is not None else NotClaimable(head)

    def load(self, run: RunRef, head: Head | None = None, *, everything: bool = False) -> tuple[Head, Records] | None:
        """See ``Store.load``. One query when nothing is nested, and one more for each scope found open."""
        root: list[Item] | None = None
        if head is None:
            last = f"{incarnation_prefix(1)}~" if everything else f"{scope_prefix(1, ROOT)}~"
            found = list(self._ask.of_run(run, "#sk BETWEEN :first AND :last", first=HEAD_KEY, last=last))
            if not found or found[0]["sk"] != text(HEAD_KEY):
                return None
            head = decode_head(found[0])
            records = [item for item in found[1:] if not item["sk"]["S"].startswith(JOIN_PREFIX)]
            root = records if head.incarnation == 1 and (everything or head.part is None) else None
        incarnation = head.incarnation
        if root is None:
            prefix = incarnation_prefix(incarnation) if everything else scope_prefix(incarnation, own_scope(head))
            root = list(self._ask.of_run(run, "begins_with(#sk, :prefix)", prefix=prefix))
        if everything:
            return head, {record.key: record for record in decode_all(root)}

        def read(scope: Scope) -> Iterator[StepRecord]:
            prefix = scope_prefix(incarnation, scope)
            return decode_all(self._ask.of_run(run, "begins_with(#sk, :prefix)", prefix=prefix))

        return head, gather(decode_all(root), read)

    def peek(self, run: RunRef) -> Head | None:
        """See ``Store.peek``."""
        item = self._ask(self._client.get_item, TableName=self._table, Key=key_of(run), ConsistentRead=True).get("Item")
        return None if item is None else decode_head(item)

    def commit(
        self, run: RunRef, incarnation: int, record: StepRecord, prior: StepRecord | None
    ) -> Written | RecordMoved:
        """See ``Store.commit``."""
        token = self._ids.fresh()
        item = encode_record(run, incarnation, record, token)
        if prior is None:
            verdict = self._put(item, token, _ABSENT, {})
        else:
            verdict = self._put(item, token, _SAME_RECORD, occurrence(prior))
        return Written() if isinstance(verdict, Done) else RecordMoved(record_in(verdict.item))

    def commit_with(
        self,
        run: RunRef,
        incarnation: int,
        record: StepRecord,
        prior: StepRecord | None,
        effects: Effects,
        *,
        epoch: int | None = None,
    ) -> Written | RecordMoved | EffectMoved | HeadMoved:
        """See ``Store.commit_with``. One transaction, in which each item costs double, also one that is looked at."""
        token = self._ids.fresh()
        item = encode_record(run, incarnation, record, token)
        put = self._putting(item, *((_ABSENT, {}) if prior is None else (_SAME_RECORD, occurrence(prior))))
        try:
            changes = [{"Put": put}, *map(typed, effects)]
        except (TypeError, ValueError, RecursionError) as error:
            return EffectMoved(None, type(error).__name__, str(error))
        if epoch is not None:
            held = {":epoch": number(epoch), **statuses(RunStatus.RUNNING)}
            check = {"TableName": self._table, "Key": key_of(run), **guarded(held, ConditionExpression=_HELD)}
            changes.append({"ConditionCheck": check})
        try:
            self._transact(token, changes)
        except ClientError as error:
            return effects_refused(error, token, len(effects))
        except (StoreUnavailable, InvariantError) as failure:
            moved = refused(failure.__cause__, cancellations(failure.__cause__)[1 : 1 + len(effects)])
            if moved is None:
                raise
            return moved
        return Written()

    def release(self, head: Head, *, epoch: int, version: int, batch: Batch = ()) -> Written | HeadMoved | RecordMoved:
        """See ``Store.release``. One request; a batch makes it a transaction, in which each item costs double."""
        token = self._ids.fresh()
        held = {":epoch": number(epoch), ":version": number(version), **statuses(RunStatus.RUNNING)}
        update = self._updating(head.run, replacement(head, token), _STILL_HELD, held)
        if not batch:
            verdict = self._write(self._client.update_item, token, **update)
            return Written() if isinstance(verdict, Done) else HeadMoved(head_in(verdict))
        puts = [
            {"Put": self._putting(item, *((_ABSENT, {}) if prior is None else (_SAME_RECORD, occurrence(prior))))}
            for item, _, prior in encode_batch(head.run, head.incarnation, batch, token)
        ]
        try:
            self._transact(token, [{"Update": update}, *puts])
        except ClientError as error:
            return batch_refused(error, token)
        return Written()

    def bring(
        self,
        incarnation: int,
        records: Sequence[tuple[RunRef, StepRecord]],
        *,
        joins: Sequence[tuple[RunRef, Join]] = (),
        listeners: Sequence[Listener] = (),
    ) -> bool:
        """See ``Store.bring``. Transactions of up to 100 items, each of which holds many small records."""
        token = self._ids.fresh()
        puts = [self._putting(encode_join(partition_of(run), join, token, SCHEMA), _ABSENT, {}) for run, join in joins]
        puts += [{"TableName": self._table, "Item": encode_listener(listener, SCHEMA)} for listener in listeners]
        puts += [self._putting(item, _ABSENT, {}) for _, _, item in encode_life(incarnation, records, token)]
        for changes in transactions(puts):
            try:
                self._transact(self._ids.fresh(), changes)
            except ClientError as error:
                if not any(is_mine(reason.get("Item"), token) for reason in cancellations(error)):
                    return False
        return True

    def weigh(self, run: RunRef, incarnation: int, record: StepRecord) -> int:
        """See ``Store.weigh``."""
        return item_size(encode_record(run, incarnation, record, "0" * 26))

    def move(self, head: Head, *, version: int) -> Written | HeadMoved:
        """See ``Store.move``."""
        verdict = self._moved(head, version, self._ids.fresh())
        return Written() if isinstance(verdict, Done) else HeadMoved(head_in(verdict))

    def delete(self, run: RunRef, *, last: Head | None = None, stays: bool = False) -> bool:
        """See ``Store.delete``.

        The head goes last: a new run of this id must not find records of the old one. Each item is removed only as it
        was found while that very head still stood there, so a slow caller does no harm to a new run.
        """
        if last is None:
            return self._removal.delete(run, self._removal.token_of(run))
        token = self._ids.fresh()
        if not isinstance(self._moved(last, last.version - 1, token), Done):
            return False
        if not stays:
            return self._removal.delete(run, token)
        if self._removal.emptied(run, token):
            rest = self._ids.fresh()
            self._put(encode_head(last, rest), rest, "#lc = :lc", {":lc": text(token)})
        return True

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
        token = self._ids.fresh()
        item = encode_record(head.run, head.incarnation, record, token)
        update = self._updating(head.run, replacement(head, token), _SAME_VERSION, {":version": number(version)})
        put = self._putting(item, _SAME_RECORD, occurrence(prior))
        changes = [{"Update": update}, {"Put": put}]
        if taken is not None:
            event = self._putting(encode_sent(taken, token, SCHEMA), _UNTAKEN, {":at": instant(taken.at)})
            changes += [{"Put": event}, self._deleting(taker_key(taken))]
        changes += [self._deleting(listener_key(listener)) for listener in silenced]
        try:
            self._transact(token, changes)
        except ClientError as error:
            return resume_refused(error, token, taken)
        return Written()

    def cancel(self, run: RunRef, *, now: datetime, by: str | None = None) -> Head | None:
        """See ``Store.cancel``."""
        token = self._ids.fresh()
        verdict = self._advance(
            run, lambda clock: canceling(by=by, clock=clock, token=token), token, _NOT_ENDED, statuses(*TERMINAL), now
        )
        return head_in(verdict)

    def note(self, run: RunRef, born: datetime, slot: str, id: str, receipt: Receipt) -> bool:
        """See ``Store.note``. One update, whether it comes for the first time or again."""
        token = self._ids.fresh()
        item = encode_note(born, slot, id, receipt, token, SCHEMA)
        key = {"pk": text(partition_of(run)), "sk": item["sk"]}
        first = [f"#{name} = if_not_exists(#{name}, :{name})" for name in ("v", "h", "rc")]
        expression = f"SET {', '.join(first)}, #ua = :ua, #lc = :lc, #n = if_not_exists(#n, :zero) + :n"
        values = {":zero": number(0), **{f":{name}": value for name, value in item.items() if name != "sk"}}
        request = guarded(values, UpdateExpression=expression, ConditionExpression=_SAME_NOTE)
        verdict = self._write(self._client.update_item, token, TableName=self._table, Key=key, **request)
        return isinstance(verdict, Done)

    def notes(self, run: RunRef, born: datetime) -> Sequence[Receipt]:
        """See ``Store.notes``."""
        return [
            decode_note(item) for item in self._ask.of_run(run, "begins_with(#sk, :prefix)", prefix=notes_prefix(born))
        ]

    def due(self, now: datetime, *, limit: int) -> Sequence[RunRef]:
        """See ``Store.due``; the longest overdue first."""
        found: list[tuple[datetime, str]] = []
        for shard in range(SHARDS):
            entries = self._ask.query(
                {":shard": text(due_shard(shard)), ":now": instant(now)},
                IndexName=DUE_INDEX.name,
                KeyConditionExpression="#dsh = :shard AND #due < :now",
                Limit=limit,
            )
            found += [(instant_of(entry["due"]), entry["pk"]["S"]) for entry in islice(entries, limit)]
        return [run_of(partition) for _, partition in sorted(found)[:limit]]

    def list_runs(
        self,
        tenant: str,
        wanted: RunFilter = EVERY_RUN,
        *,
        limit: int = 50,
        cursor: str | None = None,
        oldest_first: bool = False,
    ) -> Page[RunSummary]:
        """See ``Store.list_runs``. Queries of the list index alone; looks at ``most_looked_at`` entries a page."""
        asked = listing(wanted, limit=limit, cursor=cursor, oldest_first=oldest_first)
        if asked.is_empty:
            return Page([])
        patience = Patience(self._most_looked_at)
        shards = [listed(self._ask, list_shard(tenant, shard), asked, patience) for shard in range(SHARDS)]
        return asked.page_of(heapq.merge(*shards, key=lambda entry: entry["lsk"]["S"], reverse=not oldest_first))

    def count_runs(self, tenant: str, wanted: RunFilter = EVERY_RUN) -> Mapping[PublicStatus, int]:
        """See ``Store.count_runs``. Half a read unit for each 4 KB of entries: about 30 runs."""
        asked = listing(wanted)
        if asked.is_empty:
            return {}
        counts: Counter[PublicStatus] = Counter()
        for shard in range(SHARDS):
            values, request = ranged(list_shard(tenant, shard), asked)
            counts.update(e["ps"]["S"] for e in self._ask.query(values, **request, ProjectionExpression="#ps"))
        return counts

    def open_join(self, run: RunRef, join: Join) -> None:
        """See ``Joins.open_join``."""
        token = self._ids.fresh()
        self._put(encode_join(partition_of(run), join, token, SCHEMA), token, _ABSENT, {})

    def join(self, run: RunRef, added: Join, *, unparked: Collection[int] = ()) -> Join | None:
        """See ``Joins.join``. A second try after a lost reply adds the same again, which changes nothing."""
        token = self._ids.fresh()
        growth = growing(added, unparked)
        changes = [("ADD", name, value) for name, value in growth.add.items()]
        changes += [("DELETE", name, value) for name, value in growth.drop.items()]
        values = {":lc": text(token), **{f":{name}": value for _, name, value in changes}}
        words = {verb: ", ".join(f"#{name} :{name}" for v, name, _ in changes if v == verb) for verb, _, _ in changes}
        expression = " ".join(["SET #lc = :lc", *(f"{verb} {what}" for verb, what in words.items())])
        request = guarded(values, UpdateExpression=expression, ConditionExpression=_PRESENT)
        key = {"pk": text(partition_of(run)), "sk": text(join_key(added))}
        verdict = self._write(
            self._client.update_item, token, TableName=self._table, Key=key, ReturnValues="ALL_NEW", **request
        )
        return decode_join(verdict.item) if isinstance(verdict, Done) and verdict.item is not None else None

    def joins(self, run: RunRef, incarnation: int | None = None, key: StepKey | None = None) -> Sequence[Join]:
        """See ``Joins.joins``."""
        found = self._ask.of_run(run, "begins_with(#sk, :prefix)", prefix=joins_prefix(incarnation, key))
        return [decode_join(item) for item in found]

    def scope(self, run: RunRef, incarnation: int, scope: Scope) -> Records:
        """See ``Joins.scope``."""
        found = self._ask.of_run(run, "begins_with(#sk, :prefix)", prefix=scope_prefix(incarnation, scope))
        return {record.key: record for record in decode_all(found)}

    def listen(self, listener: Listener) -> None:
        """See ``Mailbox.listen``."""
        item = encode_listener(listener, SCHEMA)
        self._ask(self._client.put_item, TableName=self._table, Item=item)

    def unlisten(self, listener: Listener) -> None:
        """See ``Mailbox.unlisten``."""
        self._ask(self._client.delete_item, TableName=self._table, Key=listener_key(listener))

    def keep(self, sent: Sent) -> Sent | None:
        """See ``Mailbox.keep``."""
        token = self._ids.fresh()
        verdict = self._put(encode_sent(sent, token, SCHEMA), token, _NOT_KEPT, {":at": instant(sent.at)})
        if isinstance(verdict, Refused) and verdict.item is not None:
            return decode_sent(sent.topic, verdict.item)
        return None

    def mail(self, topic: Topic, now: datetime, *, event_id: str | None = None, listeners: bool = True) -> Mail:
        """See ``Mailbox.mail``. One event costs what it weighs, however many there are beside it."""
        found = self._mailed(topic, EVENTS) if event_id is None else self._event(topic, event_id)
        if listeners:
            found += self._mailed(topic, LISTENERS)
        return mail_of(topic, found, now)

    def _mailed(self, topic: Topic, prefix: str) -> list[Item]:
        values = {":pk": text(topic_partition(topic)), ":prefix": text(prefix)}
        condition = "#pk = :pk AND begins_with(#sk, :prefix)"
        return list(self._ask.query(values, KeyConditionExpression=condition, ConsistentRead=True))

    def _event(self, topic: Topic, id: str) -> list[Item]:
        key = event_key(topic, id)
        item = self._ask(self._client.get_item, TableName=self._table, Key=key, ConsistentRead=True).get("Item")
        return [] if item is None else [item]

    def handing(self) -> tuple[Store, list[dict[str, Any]]]:
        """See ``Handing.handing``."""
        client = NotingClient(self._client)
        return DynamoStore(client, self._table, self._ids, pause=self._ask.pause), client.noted

    # -- writing --

    def _moved(self, head: Head, version: int, token: str) -> Done | Refused:
        """Replace a head that stands at ``version``."""
        update = self._updating(head.run, replacement(head, token), _SAME_VERSION, {":version": number(version)})
        return self._write(self._client.update_item, token, **update)

    def _advance(
        self,
        run: RunRef,
        change: Callable[[datetime | None], Change],
        token: str,
        condition: str,
        values: Mapping[str, Attribute],
        now: datetime,
    ) -> Done | Refused:
        """Update a head that was not read before, setting its clock to ``now`` unless it is ahead of that.

        DynamoDB has no ``max``, so a head whose clock is ahead refuses the first try and takes the second.
        """
        known = {**values, ":now": instant(now), ":schema": number(SCHEMA)}

        def attempt(clock: datetime | None, clocks: str) -> Done | Refused:
            update = self._updating(run, change(clock), f"{condition} AND {_READABLE} AND {clocks}", known)
            return self._write(self._client.update_item, token, ReturnValues="ALL_NEW", **update)

        verdict = attempt(now, _CLOCK_BEHIND)
        if isinstance(verdict, Refused) and verdict.item is not None and instant_of(verdict.item["ua"]) > now:
            return attempt(None, _CLOCK_AHEAD)
        return verdict

    def _put(self, item: Item, token: str, condition: str, values: Mapping[str, Attribute]) -> Done | Refused:
        return self._write(self._client.put_item, token, **self._putting(item, condition, values))

    def _write(self, operation: Callable[..., Reply], token: str, **request: Any) -> Done | Refused:
        try:
            reply = self._ask(operation, **request)
        except ClientError as error:
            item = error.response.get("Item")
            return Done(item) if is_mine(item, token) else Refused(item)
        return Done(reply.get("Attributes"))

    def _deleting(self, key: Item) -> dict[str, Any]:
        return {"Delete": {"TableName": self._table, "Key": key}}

    def _transact(self, token: str, changes: list[dict[str, Any]]) -> None:
        """All of these, or none. Raises: ClientError when a condition does not hold."""
        self._ask(self._client.transact_write_items, TransactItems=changes, ClientRequestToken=token)

    def _putting(self, item: Item, condition: str, values: Mapping[str, Attribute]) -> dict[str, Any]:
        return {"TableName": self._table, "Item": item, **guarded(values, ConditionExpression=condition)}

    def _updating(self, run: RunRef, change: Change, condition: str, values: Mapping[str, Attribute]) -> dict[str, Any]:
        expression, changed = update_expression(change)
        request = guarded({**values, **changed}, UpdateExpression=expression, ConditionExpression=condition)
        return {"TableName": self._table, "Key": key_of(run), **request}
