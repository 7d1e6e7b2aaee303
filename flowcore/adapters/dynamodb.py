"""The store on DynamoDB: which condition guards which write, and what a refused one means.

Every write is conditional, carries a fresh token and asks for the item that stood in its way. **Own-write rule:** if
that item carries our token, an earlier try of this very call had done the write and only its reply was lost; that is
success. What a refusal means to the run is for the engine to say.
"""

from __future__ import annotations

import heapq
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from flowcore.adapters.aws import AwsError, ClientError, DynamoClient, Reply, code_of, is_silence
from flowcore.adapters.dynamodb_attributes import Attribute, Item, instant, instant_of, item_size, number, text
from flowcore.adapters.dynamodb_batch import decode_all, encode_batch
from flowcore.adapters.dynamodb_dry import NotingClient
from flowcore.adapters.dynamodb_effects import refused, typed
from flowcore.adapters.dynamodb_items import (
    DUE_INDEX,
    HEAD_KEY,
    LIST_INDEX,
    SCHEMA,
    SHARDS,
    Change,
    canceling,
    claiming,
    decode_head,
    decode_record,
    due_shard,
    encode_head,
    encode_record,
    gather,
    incarnation_prefix,
    list_shard,
    own_scope,
    partition_of,
    replacement,
    run_of,
    scope_prefix,
)
from flowcore.adapters.dynamodb_joins import (
    JOIN_PREFIX,
    decode_join,
    encode_join,
    growing,
    join_key,
    joins_prefix,
)
from flowcore.adapters.dynamodb_mail import (
    decode_sent,
    encode_listener,
    encode_sent,
    listener_key,
    mail_of,
    taker_key,
    topic_partition,
)
from flowcore.adapters.dynamodb_notes import decode_note, encode_note, notes_prefix
from flowcore.adapters.listing import MOST_LOOKED_AT, Listing, listing, mark
from flowcore.errors import FlowcoreError, InvariantError, StoreUnavailable, Throttled
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
_AS_FOUND = "#lc = :lc"
"""Nobody has written the item since it was read."""
_UNTAKEN = "attribute_not_exists(#tk)"
"""The event has settled no wait yet; or it is not here at all, which is as good."""
_SAME_NOTE = f"{_ABSENT} OR (#h = :h AND #lc <> :lc)"
"""The slot is free, or holds the same receipt, which this very write has not counted yet."""
_SAME_RECORD = "#o = :outcome AND #g = :gen"
"""The record is still the occurrence that the writer decided upon."""
_SAME_VERSION = "#ver = :version"
"""Nobody has changed the head since it was read."""
_STILL_HELD = f"#st = :running AND #ep = :epoch AND {_SAME_VERSION}"
"""The writer's lease was not taken by another, and nobody resumed or canceled meanwhile."""
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

_CROWD_TRIES = 8
"""Tries when others write the same items, or AWS asks for fewer requests; about 3 seconds of pauses at most."""
_SILENCE_TRIES = 2
"""Tries when AWS gives no verdict. botocore has tried three times by then, but not after every kind of lost reply."""
_FIRST_PAUSE_S = 0.025
_LONGEST_PAUSE_S = 0.8
_FILTERED_PAGE = 500
"""Entries read at once in a listing with filters, where most may not match: 10 read units a shard."""

_CROWDED = frozenset(
    {
        "ProvisionedThroughputExceeded",
        "ProvisionedThroughputExceededException",
        "ReplicatedWriteConflictException",
        "RequestLimitExceeded",
        "ThrottlingError",
        "ThrottlingException",
        "TransactionConflict",
        "TransactionConflictException",
        "TransactionInProgressException",
    }
)
_REFUSED = "ConditionalCheckFailed"


@dataclass(frozen=True, slots=True)
class _Done:
    """The write happened; ``item`` as it stands, if the operation tells."""

    item: Item | None


@dataclass(frozen=True, slots=True)
class _Refused:
    """Nothing was written; ``item`` stood in the way, None when there is none."""

    item: Item | None


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
        self._pause = pause
        self._most_looked_at = most_looked_at

    def start(self, head: Head) -> Head | None:
        """See ``Store.start``."""
        token = self._ids.fresh()
        verdict = self._put(encode_head(head, token), token, _ABSENT, {})
        return _head_in(verdict) if isinstance(verdict, _Refused) else None

    def start_with(self, head: Head, sent: Sent) -> Head | Sent | None:
        """See ``Store.start_with``."""
        token = self._ids.fresh()
        run = self._putting(encode_head(head, token), _ABSENT, {})
        event = self._putting(encode_sent(sent, token, SCHEMA), _ABSENT, {})
        try:
            self._transact(token, [{"Put": run}, {"Put": event}])
        except ClientError as error:
            return _start_refused(error, token, sent)
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
            _statuses(RunStatus.QUEUED, RunStatus.RUNNING, *idle),
            now,
        )
        head = _head_in(verdict)
        return Claimed(head) if isinstance(verdict, _Done) and head is not None else NotClaimable(head)

    def load(self, run: RunRef, head: Head | None = None, *, everything: bool = False) -> tuple[Head, Records] | None:
        """See ``Store.load``. One query when nothing is nested, and one more for each scope found open."""
        root: list[Item] | None = None
        if head is None:
            last = f"{incarnation_prefix(1)}~" if everything else f"{scope_prefix(1, ROOT)}~"
            found = list(self._partition(run, "#sk BETWEEN :first AND :last", first=HEAD_KEY, last=last))
            if not found or found[0]["sk"] != text(HEAD_KEY):
                return None
            head = decode_head(found[0])
            records = [item for item in found[1:] if not item["sk"]["S"].startswith(JOIN_PREFIX)]
            root = records if head.incarnation == 1 and (everything or head.part is None) else None
        incarnation = head.incarnation
        if root is None:
            prefix = incarnation_prefix(incarnation) if everything else scope_prefix(incarnation, own_scope(head))
            root = list(self._partition(run, "begins_with(#sk, :prefix)", prefix=prefix))
        if everything:
            return head, {record.key: record for record in decode_all(root)}

        def read(scope: Scope) -> Iterator[StepRecord]:
            prefix = scope_prefix(incarnation, scope)
            return decode_all(self._partition(run, "begins_with(#sk, :prefix)", prefix=prefix))

        return head, gather(decode_all(root), read)

    def peek(self, run: RunRef) -> Head | None:
        """See ``Store.peek``."""
        item = self._head_of(run)
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
            verdict = self._put(item, token, _SAME_RECORD, _occurrence(prior))
        return Written() if isinstance(verdict, _Done) else RecordMoved(_record_in(verdict.item))

    def commit_with(
        self, run: RunRef, incarnation: int, record: StepRecord, prior: StepRecord | None, effects: Effects
    ) -> Written | RecordMoved | EffectMoved:
        """See ``Store.commit_with``. One transaction, in which each item costs double."""
        token = self._ids.fresh()
        item = encode_record(run, incarnation, record, token)
        put = self._putting(item, *((_ABSENT, {}) if prior is None else (_SAME_RECORD, _occurrence(prior))))
        try:
            changes = [{"Put": put}, *map(typed, effects)]
        except (TypeError, ValueError) as error:
            return EffectMoved(None, type(error).__name__, str(error))
        try:
            self._ask(self._client.transact_write_items, TransactItems=changes, ClientRequestToken=token)
        except ClientError as error:
            return _effects_refused(error, token)
        except (StoreUnavailable, InvariantError) as failure:
            moved = refused(failure.__cause__, _cancellations(failure.__cause__)[1:])
            if moved is None:
                raise
            return moved
        return Written()

    def release(self, head: Head, *, epoch: int, version: int, batch: Batch = ()) -> Written | HeadMoved | RecordMoved:
        """See ``Store.release``. One request; a batch makes it a transaction, in which each item costs double."""
        token = self._ids.fresh()
        held = {":epoch": number(epoch), ":version": number(version), **_statuses(RunStatus.RUNNING)}
        update = self._updating(head.run, replacement(head, token), _STILL_HELD, held)
        if not batch:
            verdict = self._write(self._client.update_item, token, **update)
            return Written() if isinstance(verdict, _Done) else HeadMoved(_head_in(verdict))
        puts = [
            {"Put": self._putting(item, *((_ABSENT, {}) if prior is None else (_SAME_RECORD, _occurrence(prior))))}
            for item, _, prior in encode_batch(head.run, head.incarnation, batch, token)
        ]
        try:
            self._ask(
                self._client.transact_write_items, TransactItems=[{"Update": update}, *puts], ClientRequestToken=token
            )
        except ClientError as error:
            return _batch_refused(error, token)
        return Written()

    def weigh(self, run: RunRef, incarnation: int, record: StepRecord) -> int:
        """See ``Store.weigh``."""
        return item_size(encode_record(run, incarnation, record, "0" * 26))

    def move(self, head: Head, *, version: int) -> Written | HeadMoved:
        """See ``Store.move``."""
        verdict = self._moved(head, version, self._ids.fresh())
        return Written() if isinstance(verdict, _Done) else HeadMoved(_head_in(verdict))

    def delete(self, run: RunRef, *, last: Head | None = None) -> bool:
        """See ``Store.delete``.

        The head goes last: a new run of this id must not find records of the old one. Each item is removed only as it
        was found while that very head still stood there, so a slow caller does no harm to a new run.
        """
        if last is None:
            return self._deleted(run, self._token_of(run))
        token = self._ids.fresh()
        verdict = self._moved(last, last.version - 1, token)
        return isinstance(verdict, _Done) and self._deleted(run, token)

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
        put = self._putting(item, _SAME_RECORD, _occurrence(prior))
        changes = [{"Update": update}, {"Put": put}]
        if taken is not None:
            event = self._putting(encode_sent(taken, token, SCHEMA), _UNTAKEN, {})
            changes += [{"Put": event}, self._deleting(taker_key(taken))]
        changes += [self._deleting(listener_key(listener)) for listener in silenced]
        try:
            self._transact(token, changes)
        except ClientError as error:
            return _resume_refused(error, token, taken)
        return Written()

    def cancel(self, run: RunRef, *, now: datetime, by: str | None = None) -> Head | None:
        """See ``Store.cancel``."""
        token = self._ids.fresh()
        verdict = self._advance(
            run, lambda clock: canceling(by=by, clock=clock, token=token), token, _NOT_ENDED, _statuses(*TERMINAL), now
        )
        return _head_in(verdict)

    def note(self, run: RunRef, born: datetime, slot: str, id: str, receipt: Receipt) -> bool:
        """See ``Store.note``. One update, whether it comes for the first time or again."""
        token = self._ids.fresh()
        item = encode_note(born, slot, id, receipt, token, SCHEMA)
        key = {"pk": text(partition_of(run)), "sk": item["sk"]}
        first = [f"#{name} = if_not_exists(#{name}, :{name})" for name in ("v", "h", "rc")]
        expression = f"SET {', '.join(first)}, #ua = :ua, #lc = :lc, #n = if_not_exists(#n, :zero) + :n"
        values = {":zero": number(0), **{f":{name}": value for name, value in item.items() if name != "sk"}}
        guarded = _guarded(values, UpdateExpression=expression, ConditionExpression=_SAME_NOTE)
        verdict = self._write(self._client.update_item, token, TableName=self._table, Key=key, **guarded)
        return isinstance(verdict, _Done)

    def notes(self, run: RunRef, born: datetime) -> Sequence[Receipt]:
        """See ``Store.notes``."""
        return [
            decode_note(item) for item in self._partition(run, "begins_with(#sk, :prefix)", prefix=notes_prefix(born))
        ]

    def due(self, now: datetime, *, limit: int) -> Sequence[RunRef]:
        """See ``Store.due``; the longest overdue first."""
        found: list[tuple[datetime, str]] = []
        for shard in range(SHARDS):
            entries = self._query(
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
        patience = _Patience(self._most_looked_at)
        shards = [self._listed(list_shard(tenant, shard), asked, patience) for shard in range(SHARDS)]
        return asked.page_of(heapq.merge(*shards, key=lambda entry: entry["lsk"]["S"], reverse=not oldest_first))

    def count_runs(self, tenant: str, wanted: RunFilter = EVERY_RUN) -> Mapping[PublicStatus, int]:
        """See ``Store.count_runs``. Half a read unit for each 4 KB of entries: about 30 runs."""
        asked = listing(wanted)
        if asked.is_empty:
            return {}
        counts: Counter[PublicStatus] = Counter()
        for shard in range(SHARDS):
            values, request = _ranged(list_shard(tenant, shard), asked)
            counts.update(e["ps"]["S"] for e in self._query(values, **request, ProjectionExpression="#ps"))
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
        guarded = _guarded(values, UpdateExpression=expression, ConditionExpression=_PRESENT)
        key = {"pk": text(partition_of(run)), "sk": text(join_key(added))}
        verdict = self._write(
            self._client.update_item, token, TableName=self._table, Key=key, ReturnValues="ALL_NEW", **guarded
        )
        return decode_join(verdict.item) if isinstance(verdict, _Done) and verdict.item is not None else None

    def joins(self, run: RunRef, incarnation: int | None = None, key: StepKey | None = None) -> Sequence[Join]:
        """See ``Joins.joins``."""
        found = self._partition(run, "begins_with(#sk, :prefix)", prefix=joins_prefix(incarnation, key))
        return [decode_join(item) for item in found]

    def scope(self, run: RunRef, incarnation: int, scope: Scope) -> Records:
        """See ``Joins.scope``."""
        found = self._partition(run, "begins_with(#sk, :prefix)", prefix=scope_prefix(incarnation, scope))
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
        verdict = self._put(encode_sent(sent, token, SCHEMA), token, _ABSENT, {})
        if isinstance(verdict, _Refused) and verdict.item is not None:
            return decode_sent(sent.topic, verdict.item)
        return None

    def mail(self, topic: Topic, now: datetime) -> Mail:
        """See ``Mailbox.mail``."""
        values = {":pk": text(topic_partition(topic))}
        found = self._query(values, KeyConditionExpression="#pk = :pk", ConsistentRead=True)
        return mail_of(topic, found, now)

    def handing(self) -> tuple[Store, list[dict[str, Any]]]:
        """See ``Handing.handing``."""
        client = NotingClient(self._client)
        return DynamoStore(client, self._table, self._ids, pause=self._pause), client.noted

    # -- reading --

    def _partition(self, run: RunRef, condition: str, **texts: str) -> Iterator[Item]:
        """The run's items whose sort key meets ``condition``, in order, over as many pages as there are."""
        return self._query(
            {":pk": text(partition_of(run)), **{f":{name}": text(value) for name, value in texts.items()}},
            KeyConditionExpression=f"#pk = :pk AND {condition}",
            ConsistentRead=True,
        )

    def _listed(self, shard: str, asked: Listing, patience: _Patience) -> Iterator[Item]:
        """One shard's entries in the asked range that match, in order; a mark at the end if patience was."""
        values, request = _ranged(shard, asked)
        request["ScanIndexForward"] = asked.oldest_first
        # At least two: with one, the shard that the cursor's own run is in would get no further than that.
        share = max(2, patience.left // SHARDS)
        request["Limit"] = min(_FILTERED_PAGE, share) if asked.is_rare else asked.limit + 1
        for reply in self._replies(values, **request):
            yield from reply["Items"]
            patience.left -= reply["ScannedCount"]
            if "LastEvaluatedKey" in reply and patience.left <= 0:
                yield mark(reply["LastEvaluatedKey"]["lsk"]["S"])
                return

    def _query(self, values: Mapping[str, Attribute], **request: Any) -> Iterator[Item]:
        for reply in self._replies(values, **request):
            yield from reply["Items"]

    def _replies(self, values: Mapping[str, Attribute], **request: Any) -> Iterator[Reply]:
        """One reply after another, over as many pages as there are."""
        asked = {"TableName": self._table, **_phrased(values, **request)}
        while True:
            reply = self._ask(self._client.query, **asked)
            yield reply
            if "LastEvaluatedKey" not in reply:
                return
            asked["ExclusiveStartKey"] = reply["LastEvaluatedKey"]

    # -- writing --

    def _head_of(self, run: RunRef) -> Item | None:
        reply = self._ask(self._client.get_item, TableName=self._table, Key=_key_of(run), ConsistentRead=True)
        item: Item | None = reply.get("Item")
        return item

    def _token_of(self, run: RunRef) -> str | None:
        """The token of the last write of the run's head; None when there is none."""
        head = self._head_of(run)
        return None if head is None else str(head["lc"]["S"])

    def _moved(self, head: Head, version: int, token: str) -> _Done | _Refused:
        """Replace a head that stands at ``version``."""
        update = self._updating(head.run, replacement(head, token), _SAME_VERSION, {":version": number(version)})
        return self._write(self._client.update_item, token, **update)

    def _deleted(self, run: RunRef, token: str | None) -> bool:
        """Remove a run whose head was written with ``token``; whether it has one."""
        is_ours = self._emptied(run, token)
        if token is not None and is_ours:
            self._removed({**_key_of(run), "lc": text(token)})
            self._emptied(run, None)  # what a worker that was given up has written between the two
        return token is not None

    def _emptied(self, run: RunRef, token: str | None) -> bool:
        """Remove the run's records, of every incarnation, as long as its head is the one written with ``token``."""
        pages = self._replies(
            {":pk": text(partition_of(run)), ":head": text(HEAD_KEY)},
            KeyConditionExpression="#pk = :pk AND #sk > :head",
            ProjectionExpression="#pk, #sk, #lc",
            ConsistentRead=True,
        )
        for page in pages:
            if not page["Items"]:
                continue
            # Looked at after the records were read: as long as it stands, so read records cannot be a later run's.
            if self._token_of(run) != token:
                return False
            for item in page["Items"]:
                self._removed(item)
        return True

    def _removed(self, item: Item) -> None:
        """Remove an item, unless somebody has written it since."""
        key = {name: item[name] for name in ("pk", "sk")}
        request = {"TableName": self._table, "Key": key, **_phrased({":lc": item["lc"]}, ConditionExpression=_AS_FOUND)}
        with suppress(ClientError):
            self._ask(self._client.delete_item, **request)

    def _advance(
        self,
        run: RunRef,
        change: Callable[[datetime | None], Change],
        token: str,
        condition: str,
        values: Mapping[str, Attribute],
        now: datetime,
    ) -> _Done | _Refused:
        """Update a head that was not read before, setting its clock to ``now`` unless it is ahead of that.

        DynamoDB has no ``max``, so a head whose clock is ahead refuses the first try and takes the second.
        """
        known = {**values, ":now": instant(now), ":schema": number(SCHEMA)}

        def attempt(clock: datetime | None, clocks: str) -> _Done | _Refused:
            update = self._updating(run, change(clock), f"{condition} AND {_READABLE} AND {clocks}", known)
            return self._write(self._client.update_item, token, ReturnValues="ALL_NEW", **update)

        verdict = attempt(now, _CLOCK_BEHIND)
        if isinstance(verdict, _Refused) and verdict.item is not None and instant_of(verdict.item["ua"]) > now:
            return attempt(None, _CLOCK_AHEAD)
        return verdict

    def _put(self, item: Item, token: str, condition: str, values: Mapping[str, Attribute]) -> _Done | _Refused:
        return self._write(self._client.put_item, token, **self._putting(item, condition, values))

    def _write(self, operation: Callable[..., Reply], token: str, **request: Any) -> _Done | _Refused:
        try:
            reply = self._ask(operation, **request)
        except ClientError as error:
            item = error.response.get("Item")
            return _Done(item) if _is_mine(item, token) else _Refused(item)
        return _Done(reply.get("Attributes"))

    def _deleting(self, key: Item) -> dict[str, Any]:
        return {"Delete": {"TableName": self._table, "Key": key}}

    def _transact(self, token: str, changes: list[dict[str, Any]]) -> None:
        """All of these, or none. Raises: ClientError when a condition does not hold."""
        self._ask(self._client.transact_write_items, TransactItems=changes, ClientRequestToken=token)

    def _putting(self, item: Item, condition: str, values: Mapping[str, Attribute]) -> dict[str, Any]:
        return {"TableName": self._table, "Item": item, **_guarded(values, ConditionExpression=condition)}

    def _updating(self, run: RunRef, change: Change, condition: str, values: Mapping[str, Attribute]) -> dict[str, Any]:
        expression, changed = _update_expression(change)
        guarded = _guarded({**values, **changed}, UpdateExpression=expression, ConditionExpression=condition)
        return {"TableName": self._table, "Key": _key_of(run), **guarded}

    # -- asking --

    def _ask(self, operation: Callable[..., Reply], **request: Any) -> Reply:
        """One operation, tried again when AWS gave no verdict.

        Raises:
            ClientError: a condition did not hold; nothing else comes out as an exception of boto3.
        """
        tried = 0
        while True:
            try:
                return operation(**request)
            except AwsError as error:
                if _is_refusal(error):
                    raise
                tried += 1
                tries, failure = self._diagnosis(error)
                if tried >= tries:
                    raise failure from error
                self._pause(self._ids.draw() * min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**tried))

    def _diagnosis(self, error: Exception) -> tuple[int, FlowcoreError]:
        """How many tries this kind of error is worth, and what to raise after the last."""
        code, endpoint = code_of(error), self._client.meta.endpoint_url
        if {code, *_reasons(error)} & _CROWDED:
            return _CROWD_TRIES, Throttled(f"Table {self._table!r} at {endpoint} is too busy: {error}")
        if is_silence(error):
            return _SILENCE_TRIES, StoreUnavailable(f"No answer from DynamoDB at {endpoint}: {error}")
        if code == "ResourceNotFoundException":
            return 1, StoreUnavailable(f"There is no table {self._table!r}, or not whole, at {endpoint}: {error}")
        if code in {"ValidationException", "TransactionCanceledException"} and "specified index" not in str(error):
            return 1, InvariantError(f"DynamoDB does not understand a request for table {self._table!r}: {error}")
        return 1, StoreUnavailable(f"Table {self._table!r} at {endpoint} refuses: {error}")


@dataclass(slots=True)
class _Patience:
    """How many more entries one page of a listing may look at, over all shards."""

    left: int


# -- expressions ------------------------------------------------------------------------------------------------------


def _phrased(values: Mapping[str, Attribute], **request: Any) -> dict[str, Any]:
    """A request with the names and values its expressions use; each ``#name`` stands for the attribute ``name``."""
    expressions = " ".join(part for name, part in request.items() if name.endswith("Expression"))
    request["ExpressionAttributeNames"] = {f"#{name}": name for name in re.findall(r"#(\w+)", expressions)}
    if values:
        request["ExpressionAttributeValues"] = dict(values)
    return request


def _ranged(shard: str, asked: Listing) -> tuple[dict[str, Attribute], dict[str, Any]]:
    """A query of one shard of the list index for what is asked: its values and the rest."""
    values = {":shard": text(shard), ":lowest": text(asked.lowest), ":highest": text(asked.highest)}
    request = {
        "IndexName": LIST_INDEX.name,
        "KeyConditionExpression": "#lsh = :shard AND #lsk BETWEEN :lowest AND :highest",
    }
    if asked.conditions:
        request["FilterExpression"] = " AND ".join(condition.expression for condition in asked.conditions)
        values |= {name: value for condition in asked.conditions for name, value in condition.values.items()}
    return values, request


def _guarded(values: Mapping[str, Attribute], **expressions: str) -> dict[str, Any]:
    return _phrased(values, ReturnValuesOnConditionCheckFailure="ALL_OLD", **expressions)


def _update_expression(change: Change) -> tuple[str, dict[str, Attribute]]:
    settings = [f"#{name} = :{name}" for name in change.put]
    settings += [f"#{name} = if_not_exists(#{name}, :zero) + :one" for name in change.grow]
    values = {f":{name}": value for name, value in change.put.items()}
    if change.grow:
        values |= {":zero": number(0), ":one": number(1)}
    removals = f" REMOVE {', '.join(f'#{name}' for name in change.drop)}" if change.drop else ""
    return f"SET {', '.join(settings)}{removals}", values


def _statuses(*statuses: RunStatus) -> dict[str, Attribute]:
    return {f":{status.lower()}": text(status) for status in statuses}


def _occurrence(prior: StepRecord) -> dict[str, Attribute]:
    return {":outcome": text(prior.outcome), ":gen": number(prior.gen)}


def _key_of(run: RunRef) -> Item:
    return {"pk": text(partition_of(run)), "sk": text(HEAD_KEY)}


# -- verdicts ---------------------------------------------------------------------------------------------------------


def _is_mine(item: Item | None, token: str) -> bool:
    return item is not None and item["lc"] == text(token)


def _is_refusal(error: Exception) -> bool:
    """Whether a condition was judged and did not hold; not so when the judging itself met a conflict."""
    reasons = _reasons(error)
    return code_of(error) == f"{_REFUSED}Exception" or (_REFUSED in reasons and not _CROWDED & set(reasons))


def _reasons(error: Exception) -> list[str]:
    return [reason.get("Code", "None") for reason in _cancellations(error)]


def _cancellations(error: BaseException | None) -> list[dict[str, Any]]:
    return list(error.response.get("CancellationReasons", ())) if isinstance(error, ClientError) else []


def _resume_refused(error: Exception, token: str, taken: Sent | None) -> Written | HeadMoved | RecordMoved | EventTaken:
    """What a canceled transaction means. The record is looked at first: if it moved, it carries the winner."""
    head, record, *others = _cancellations(error)
    if _is_mine(head.get("Item"), token) or _is_mine(record.get("Item"), token):
        return Written()
    if record["Code"] == _REFUSED:
        return RecordMoved(_record_in(record.get("Item")))
    if taken is not None and others[0]["Code"] == _REFUSED:
        return EventTaken(decode_sent(taken.topic, others[0]["Item"]))
    return HeadMoved(decode_head(head["Item"]) if "Item" in head else None)


def _effects_refused(error: Exception, token: str) -> Written | RecordMoved | EffectMoved:
    """What a canceled commit means. The record is looked at first: it is there if an earlier try was ours."""
    record, *others = _cancellations(error)
    if _is_mine(record.get("Item"), token):
        return Written()
    moved = refused(error, others)
    if record["Code"] == _REFUSED or moved is None:
        return RecordMoved(_record_in(record.get("Item")))
    return moved


def _batch_refused(error: Exception, token: str) -> Written | HeadMoved | RecordMoved:
    """What a canceled release means. The head is looked at first: whoever has lost it has nothing to write."""
    reasons = _cancellations(error)
    if any(_is_mine(reason.get("Item"), token) for reason in reasons):
        return Written()
    head, *records = reasons
    if head["Code"] == _REFUSED:
        return HeadMoved(decode_head(head["Item"]) if "Item" in head else None)
    item = next(reason.get("Item") for reason in records if reason["Code"] == _REFUSED)
    return RecordMoved(None if item is None else next(decode_all([item])))


def _start_refused(error: Exception, token: str, sent: Sent) -> Head | Sent | None:
    """What a canceled transaction means: the event stands there, or the run does, or it was us."""
    run, event = (reason.get("Item") for reason in _cancellations(error))
    if _is_mine(run, token) or _is_mine(event, token):
        return None
    if event is not None:
        return decode_sent(sent.topic, event)
    return None if run is None else decode_head(run)


def _head_in(verdict: _Done | _Refused) -> Head | None:
    return None if verdict.item is None else decode_head(verdict.item)


def _record_in(item: Item | None) -> StepRecord | None:
    return None if item is None else decode_record(item)
