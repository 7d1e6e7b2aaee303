"""The log of deliveries in the table: one partition per webhook, ``T#<tenant>#H#<webhook>``, sorted by time.

Each item carries a ``ttl``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from flowcore.adapters.aws import DynamoClient, Reply
from flowcore.adapters.dynamodb_asking import Asking
from flowcore.adapters.dynamodb_attributes import Attribute, Item, instant, instant_of, number, payload, text, value_of
from flowcore.adapters.listing import lines_before
from flowcore.delivery_log import Delivery
from flowcore.errors import PayloadTooLarge
from flowcore.model import Page
from flowcore.ports import Ids

SCHEMA = 1
_SHOWN = ("pk", "sk", "v", "at", "o")
"""Attributes that a listing reads; the body stays where it is."""


class DynamoDeliveries:
    """``flowcore.delivery_log.DeliveryLog`` on the table of the runs."""

    def __init__(
        self, client: DynamoClient, table: str, ids: Ids, *, pause: Callable[[float], None] = time.sleep
    ) -> None:
        """Use ``table`` through ``client``; ``pause`` waits that many seconds between two tries."""
        self._client = client
        self._table = table
        self._asking = Asking(client, table, ids, pause)

    def log(self, delivery: Delivery, until: datetime) -> None:
        """See ``DeliveryLog.log``."""
        try:
            item = encode_delivery(delivery, until)
        except PayloadTooLarge:
            item = encode_delivery(replace(delivery, body=None), until)
        self._ask(self._client.put_item, Item=item)

    def delivery(self, tenant: str, hook: str, id: str) -> Delivery | None:
        """See ``DeliveryLog.delivery``."""
        key = {"pk": text(_partition(tenant, hook)), "sk": text(f"D#{id}")}
        item = self._ask(self._client.get_item, Key=key, ConsistentRead=True).get("Item")
        return None if item is None else decode_delivery(item)

    def deliveries(self, tenant: str, hook: str, *, limit: int, cursor: str | None = None) -> Page[Delivery]:
        """See ``DeliveryLog.deliveries``."""
        names = {f"#{name}": name for name in _SHOWN}
        request: dict[str, Any] = {
            "KeyConditionExpression": "#pk = :pk AND #sk < :before",
            "ProjectionExpression": ", ".join(names),
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": {":pk": text(_partition(tenant, hook)), ":before": text(lines_before(cursor))},
            "ScanIndexForward": False,
            "Limit": limit,
        }
        reply = self._ask(self._client.query, **request)
        found = [decode_delivery(item) for item in reply["Items"]]
        return Page(found, found[-1].id if found and "LastEvaluatedKey" in reply else None)

    def _ask(self, operation: Any, **request: Any) -> Reply:
        return self._asking(operation, TableName=self._table, **request)


def encode_delivery(delivery: Delivery, until: datetime) -> Item:
    """A delivery as an item. Raises: PayloadTooLarge."""
    told = {
        name: value
        for name in ("delivery_id", "verdict", "reason", "event", "key", "run_id", "wait", "headers")
        if (value := getattr(delivery, name)) is not None
    }
    return {
        "pk": text(_partition(delivery.tenant, delivery.hook)),
        "sk": text(f"D#{delivery.id}"),
        "v": number(SCHEMA),
        "at": instant(delivery.at),
        "o": payload("A delivery", told),
        "in": payload(f"Delivery {delivery.delivery_id!r}", delivery.body),
        "ttl": number(int(until.astimezone(UTC).timestamp()) + 1),
    }


def decode_delivery(item: Mapping[str, Attribute]) -> Delivery:
    """The delivery that an item holds; without its body where that was not read."""
    _, tenant, _, hook = item["pk"]["S"].split("#", 3)
    return Delivery(
        tenant=tenant,
        hook=hook,
        id=item["sk"]["S"].removeprefix("D#"),
        at=instant_of(item["at"]),
        body=value_of(item["in"]) if "in" in item else None,
        **value_of(item["o"]),
    )


def _partition(tenant: str, hook: str) -> str:
    return f"T#{tenant}#H#{hook}"
