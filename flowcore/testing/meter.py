"""What DynamoDB would bill: a client that counts requests, and works out units from the sizes of the items.

moto reports one unit for everything, so the cost table of the protocol is proven with this. The adapter sees exactly
what it would see without: replies and errors pass through untouched; what the meter needs to know besides, the items
before and after a write and the items behind a filter, it reads on its own, uncounted.

Source: Amazon DynamoDB Developer Guide, "Capacity unit consumption for read/write operations" and "Using Global
Secondary Indexes", write capacity.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

from flowcore.adapters.aws import AwsError, DynamoClient, Reply, code_of
from flowcore.adapters.dynamodb_attributes import Item, item_size
from flowcore.adapters.dynamodb_keys import Index

_WRITE_UNIT = 1024
_READ_UNIT = 4096
_TABLE_KEYS = ("pk", "sk")
_BILLED_REFUSALS = frozenset({"ConditionalCheckFailedException", "TransactionCanceledException"})
"""Errors that cost as much as the write would have; a request that was never understood costs nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What was asked for and what it costs, in on-demand units; without storage."""

    requests: Counter[str] = field(default_factory=Counter)
    """Per operation, as DynamoDB names it: ``PutItem``."""
    write_units: int = 0
    read_units: float = 0
    """In halves: an eventually consistent read costs half a unit."""
    bytes_written: int = 0
    """Sizes of the items as they were left, indexes not counted."""
    items_read: int = 0
    bytes_read: int = 0

    @property
    def calls(self) -> int:
        """Requests of every kind."""
        return self.requests.total()

    def __add__(self, other: Bill) -> Bill:
        return Bill(
            requests=self.requests + other.requests,
            write_units=self.write_units + other.write_units,
            read_units=self.read_units + other.read_units,
            bytes_written=self.bytes_written + other.bytes_written,
            items_read=self.items_read + other.items_read,
            bytes_read=self.bytes_read + other.bytes_read,
        )


class Metered:
    """A DynamoDB client around another one. Writes stand in line, so that each is billed for what it alone did."""

    def __init__(self, client: DynamoClient, indexes: Sequence[Index]) -> None:
        """Bill requests to ``client``; ``indexes`` are those of the table."""
        self._client = client
        self._indexes = {index.name: index for index in indexes}
        self._lock = RLock()
        self._bill = Bill()

    def take_bill(self) -> Bill:
        """What has been asked for since the last bill was taken."""
        with self._lock:
            bill, self._bill = self._bill, Bill()
            return bill

    @property
    def meta(self) -> Any:
        """The client's own."""
        return self._client.meta

    def put_item(self, **request: Any) -> Reply:
        """Billed for the larger of the item put and the one it replaces."""
        return self._write("PutItem", self._client.put_item, request, [request], 1)

    def update_item(self, **request: Any) -> Reply:
        """Billed for the larger of the item before and after."""
        return self._write("UpdateItem", self._client.update_item, request, [request], 1)

    def delete_item(self, **request: Any) -> Reply:
        """Billed for the item removed."""
        return self._write("DeleteItem", self._client.delete_item, request, [request], 1)

    def transact_write_items(self, **request: Any) -> Reply:
        """Each part is billed twice: it is prepared, then committed. Entries of indexes are written once."""
        parts = [part for member in request["TransactItems"] for part in member.values()]
        return self._write("TransactWriteItems", self._client.transact_write_items, request, parts, 2)

    def get_item(self, **request: Any) -> Reply:
        """Billed for the whole item; one that is not there costs as much as a small one."""
        reply = self._client.get_item(**request)
        self._charge_read("GetItem", request, [self._image(request) or {}])
        return reply

    def query(self, **request: Any) -> Reply:
        """Billed for everything looked at, the sizes added up before rounding; a filter saves nothing."""
        reply = self._client.query(**request)
        index = self._indexes.get(request.get("IndexName", ""))
        looked_at = reply["Items"]
        if request.keys() & {"FilterExpression", "ProjectionExpression", "Select"}:
            looked_at = self._client.query(**_unfiltered(request))["Items"]
        self._charge_read("Query", request, [_entry(index, item) or {} if index else item for item in looked_at])
        return reply

    def _write(
        self,
        name: str,
        operation: Callable[..., Reply],
        request: Mapping[str, Any],
        parts: Sequence[Mapping[str, Any]],
        factor: int,
    ) -> Reply:
        with self._lock:
            before = [self._image(part) for part in parts]
            billed = True
            try:
                return operation(**request)
            except AwsError as error:
                billed = code_of(error) in _BILLED_REFUSALS
                raise
            finally:
                after = [self._image(part) for part in parts]
                self._bill += Bill(requests=Counter([name]))
                if billed or before != after:
                    self._bill += self._written(list(zip(parts, before, after, strict=True)), factor)

    def _written(self, parts: Iterable[tuple[Mapping[str, Any], Item | None, Item | None]], factor: int) -> Bill:
        units = size = 0
        for part, before, after in parts:
            units += factor * _write_units(before, after, part.get("Item"))
            units += sum(_entry_units(_entry(index, before), _entry(index, after)) for index in self._indexes.values())
            if after is not None and after != before:
                size += item_size(after)
        return Bill(write_units=units, bytes_written=size)

    def _charge_read(self, name: str, request: Mapping[str, Any], items: Iterable[Item]) -> None:
        sizes = [item_size(item) for item in items if item]
        units = max(1, -(-sum(sizes) // _READ_UNIT))
        with self._lock:
            self._bill += Bill(
                requests=Counter([name]),
                read_units=units if request.get("ConsistentRead") else units / 2,
                items_read=len(sizes),
                bytes_read=sum(sizes),
            )

    def _image(self, part: Mapping[str, Any]) -> Item | None:
        key = part.get("Key") or {name: part["Item"][name] for name in _TABLE_KEYS}
        try:
            item: Item | None = self._client.get_item(TableName=part["TableName"], Key=key, ConsistentRead=True).get(
                "Item"
            )
        except AwsError:
            return None
        return item


def _write_units(*images: Item | None) -> int:
    """One for each kilobyte begun of the largest, and one if there is none at all."""
    return max((1, *(-(-item_size(image) // _WRITE_UNIT) for image in images if image is not None)))


def _entry(index: Index, item: Item | None) -> Item | None:
    """What ``index`` holds of ``item``; None if it is not in there."""
    if item is None or index.partition not in item or index.sort not in item:
        return None
    return {name: item[name] for name in (*_TABLE_KEYS, index.partition, index.sort, *index.copied) if name in item}


def _entry_units(before: Item | None, after: Item | None) -> int:
    """One write to add, remove or change an entry, none if it is as it was, two if it moves to another key."""
    if before == after:
        return 0
    if before is None or after is None or _place(before) == _place(after):
        return _write_units(before, after)
    return _write_units(before) + _write_units(after)


def _place(entry: Item) -> list[Any]:
    """An entry's own keys: the first four attributes, as ``_entry`` puts them."""
    return list(entry.values())[:4]


def _unfiltered(request: Mapping[str, Any]) -> dict[str, Any]:
    """The same query without what hides items, and without the names and values that only that part used."""
    kept = {
        name: value
        for name, value in request.items()
        if name not in {"FilterExpression", "ProjectionExpression", "Select"}
    }
    used = set(re.findall(r"[#:]\w+", kept["KeyConditionExpression"]))
    for placeholders in ("ExpressionAttributeNames", "ExpressionAttributeValues"):
        if placeholders in kept:
            kept[placeholders] = {name: value for name, value in kept[placeholders].items() if name in used}
    return kept
