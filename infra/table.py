"""Keys, indexes, projections and TTL of the one table, as data.

Owns the shape that template.yaml deploys and that tests create; a house test holds the two together. Knows no client
and makes no call. What the attributes mean is told where items are built; here they only have names and types.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """A key attribute: its name and its DynamoDB type."""

    name: str
    type: Literal["S", "N"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A global secondary index.

    ``projected`` lists the non-key attributes it carries; none means keys only. Both key attributes are absent from
    most items, which keeps the index sparse.
    """

    name: str
    hash: Attribute
    range: Attribute
    projected: tuple[str, ...] = ()


HASH = Attribute(name="pk", type="S")
RANGE = Attribute(name="sk", type="S")

DUE_INDEX = Index(
    name="due-index",
    hash=Attribute(name="dsh", type="S"),
    range=Attribute(name="due", type="N"),
)
"""Runs somebody must act on, by shard and due time; read by the sweeper."""

LIST_INDEX = Index(
    name="list-index",
    hash=Attribute(name="lsh", type="S"),
    range=Attribute(name="lsk", type="S"),
    projected=("st", "wf", "rs", "dl"),
)
"""Runs for lists and the inbox; what it projects is all a list may show without reading the run."""

INDEXES = (DUE_INDEX, LIST_INDEX)
TTL_ATTRIBUTE = "ttl"


def create_table_request(table_name: str) -> dict[str, Any]:
    """Keyword arguments of ``create_table``; TTL needs a second call, see ``ttl_request``."""
    attributes = [HASH, RANGE, *(key for index in INDEXES for key in (index.hash, index.range))]
    return {
        "TableName": table_name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": a.name, "AttributeType": a.type} for a in attributes],
        "KeySchema": _key_schema(HASH, RANGE),
        "GlobalSecondaryIndexes": [_index_request(index) for index in INDEXES],
    }


def ttl_request(table_name: str) -> dict[str, Any]:
    """Keyword arguments of ``update_time_to_live``."""
    return {
        "TableName": table_name,
        "TimeToLiveSpecification": {"AttributeName": TTL_ATTRIBUTE, "Enabled": True},
    }


def _index_request(index: Index) -> Mapping[str, Any]:
    projection: dict[str, Any] = {"ProjectionType": "KEYS_ONLY"}
    if index.projected:
        projection = {"ProjectionType": "INCLUDE", "NonKeyAttributes": list(index.projected)}
    return {"IndexName": index.name, "KeySchema": _key_schema(index.hash, index.range), "Projection": projection}


def _key_schema(hash_key: Attribute, range_key: Attribute) -> list[Mapping[str, str]]:
    return [
        {"AttributeName": hash_key.name, "KeyType": "HASH"},
        {"AttributeName": range_key.name, "KeyType": "RANGE"},
    ]
