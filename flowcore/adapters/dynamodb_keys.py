"""Where things lie in the table: the keys of a run's items, and the two indexes.

One partition per run, ``T#<tenant>#R#<run>``. In it, in sorting order: ``#HEAD``, then for each record
``S#<incarnation>#<scope>#<key>``, so that one query reads the head with the records of the run's own scope.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import lru_cache

from flowcore.errors import InvariantError, PayloadTooLarge
from flowcore.keys import RunRef, Scope, StepKey, scope_of

HEAD_KEY = "#HEAD"
"""The sort key of the head: it comes before every other."""
SHARDS = 8
"""Partitions each index is spread over: 8,000 changes a second, and a reader asks 8 times."""
SORT_KEY_LIMIT = 1024
"""Bytes of a sort key. Source: Amazon DynamoDB Developer Guide, "Quotas", sort key length."""


@dataclass(frozen=True, slots=True)
class Index:
    """A secondary index of the table: its two keys, and which other attributes it copies."""

    name: str
    partition: str
    sort: str
    copied: tuple[str, ...] = ()


DUE_INDEX = Index("due-index", "dsh", "due")
"""Finds runs somebody must look at. Sparse: a head without ``due`` is not in it."""
LIST_INDEX = Index("list-index", "lsh", "lsk", ("ps", "wf", "rs", "tg", "sw", "dl", "xp"))
"""Lists a tenant's runs by time of creation: all that a listing shows and filters by is copied, so no head is read.

It copies the public word ``ps`` and not the stored status, because claiming a run that users already see as running
then costs no index write. Since when a run waits (``sw``), its deadline (``dl``) and when it expires (``xp``) change
only in writes that change ``ps`` as well, and tags never: none of them costs an index write of its own.
"""


def partition_of(run: RunRef) -> str:
    """The partition key of everything about ``run``."""
    return f"T#{run.tenant}#R#{run.id}"


def run_of(partition: str) -> RunRef:
    """The run whose partition key this is."""
    _, tenant, _, run_id = partition.split("#")
    return RunRef(tenant, run_id)


def incarnation_prefix(incarnation: int) -> str:
    """How every sort key of one incarnation's records begins."""
    return f"S#{incarnation:04}#"


def scope_prefix(incarnation: int, scope: Scope) -> str:
    """How every sort key of the records in ``scope`` begins."""
    return f"{incarnation_prefix(incarnation)}{scope}#"


def record_key(incarnation: int, key: StepKey) -> str:
    """The sort key of the record at ``key``.

    Raises:
        PayloadTooLarge: nested so deeply, with ids so long, that DynamoDB would not take the key.
    """
    found = f"{scope_prefix(incarnation, scope_of(key))}{key}"
    if len(found.encode()) > SORT_KEY_LIMIT:
        raise PayloadTooLarge(f"The place {key!r}, written as a sort key,", len(found.encode()), SORT_KEY_LIMIT)
    return found


@lru_cache(maxsize=4096)
def step_key_of(sort_key: str) -> StepKey:
    """The step key in a record's sort key.

    A scope may hold ``#`` itself (``poll#3``), so the right place to cut is the one where the key lies in the scope.
    """
    rest = sort_key.split("#", 2)[2]
    for cut in (match.start() for match in re.finditer("#", rest)):
        key = StepKey(rest[cut + 1 :])
        if _lies_in(key, rest[:cut]):
            return key
    raise InvariantError(f"{sort_key!r} is not the sort key of a record.")


def _lies_in(key: StepKey, scope: str) -> bool:
    try:
        return scope_of(key) == scope
    except ValueError:
        return False


def due_shard(shard: int) -> str:
    """The partition key of one shard of the due index."""
    return f"D#{shard}"


def list_shard(tenant: str, shard: int) -> str:
    """The partition key of one shard of the list index."""
    return f"L#{tenant}#{shard}"


def list_key(created_at_ms: int, run_id: str) -> str:
    """The sort key in the list index: sorts by time of creation, then by id."""
    return f"{created_at_ms:013}#{run_id}"


def shard_of(partition: str) -> int:
    """The shard that a partition of the table has in both indexes."""
    return zlib.crc32(partition.encode()) % SHARDS
