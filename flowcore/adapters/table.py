"""The table as a request: what ``create_table`` needs for the keys and indexes that the items use. Makes no call."""

from __future__ import annotations

from typing import Any

from flowcore.adapters.dynamodb_keys import DUE_INDEX, LIST_INDEX, Index

PARTITION_KEY = "pk"
SORT_KEY = "sk"
INDEXES = (DUE_INDEX, LIST_INDEX)
TTL_ATTRIBUTE = "ttl"


def table_request(name: str, indexes: tuple[Index, ...] = INDEXES) -> dict[str, Any]:
    """The arguments of ``create_table`` for a table of runs with these indexes; TTL needs a second call."""
    keys = [PARTITION_KEY, SORT_KEY, *(key for index in indexes for key in (index.partition, index.sort))]
    types = {key: "N" if key == DUE_INDEX.sort else "S" for key in keys}
    return {
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "KeySchema": _key_schema(PARTITION_KEY, SORT_KEY),
        "AttributeDefinitions": [{"AttributeName": key, "AttributeType": kind} for key, kind in types.items()],
        "GlobalSecondaryIndexes": [
            {
                "IndexName": index.name,
                "KeySchema": _key_schema(index.partition, index.sort),
                "Projection": _projection(index),
            }
            for index in indexes
        ],
    }


def _key_schema(partition: str, sort: str) -> list[dict[str, str]]:
    return [{"AttributeName": partition, "KeyType": "HASH"}, {"AttributeName": sort, "KeyType": "RANGE"}]


def _projection(index: Index) -> dict[str, Any]:
    if not index.copied:
        return {"ProjectionType": "KEYS_ONLY"}
    return {"ProjectionType": "INCLUDE", "NonKeyAttributes": list(index.copied)}
