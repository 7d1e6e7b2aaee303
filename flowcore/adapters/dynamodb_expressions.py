"""Requests in DynamoDB's words: expressions with the names and values they use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flowcore.adapters.dynamodb_attributes import Attribute, Item, number, text
from flowcore.adapters.dynamodb_heads import Change
from flowcore.adapters.dynamodb_keys import HEAD_KEY, LIST_INDEX, partition_of
from flowcore.adapters.listing import Listing
from flowcore.keys import RunRef
from flowcore.model import RunStatus, StepRecord


def phrased(values: Mapping[str, Attribute], **request: Any) -> dict[str, Any]:
    """A request with the names and values its expressions use; each ``#name`` stands for the attribute ``name``."""
    expressions = " ".join(part for name, part in request.items() if name.endswith("Expression"))
    request["ExpressionAttributeNames"] = {f"#{name}": name for name in re.findall(r"#(\w+)", expressions)}
    if values:
        request["ExpressionAttributeValues"] = dict(values)
    return request


def guarded(values: Mapping[str, Attribute], **expressions: str) -> dict[str, Any]:
    """A write under a condition, which tells what stood in its way."""
    return phrased(values, ReturnValuesOnConditionCheckFailure="ALL_OLD", **expressions)


def ranged(shard: str, asked: Listing) -> tuple[dict[str, Attribute], dict[str, Any]]:
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


def update_expression(change: Change) -> tuple[str, dict[str, Attribute]]:
    """What an update says for a change of a head, and the values it uses."""
    settings = [f"#{name} = :{name}" for name in change.put]
    settings += [f"#{name} = if_not_exists(#{name}, :zero) + :one" for name in change.grow]
    values = {f":{name}": value for name, value in change.put.items()}
    if change.grow:
        values |= {":zero": number(0), ":one": number(1)}
    removals = f" REMOVE {', '.join(f'#{name}' for name in change.drop)}" if change.drop else ""
    return f"SET {', '.join(settings)}{removals}", values


def statuses(*wanted: RunStatus) -> dict[str, Attribute]:
    """The values of these statuses, each under its own name."""
    return {f":{status.lower()}": text(status) for status in wanted}


def occurrence(prior: StepRecord) -> dict[str, Attribute]:
    """The values of a condition that the record is still this one."""
    return {":outcome": text(prior.outcome), ":gen": number(prior.gen)}


def key_of(run: RunRef) -> Item:
    """The key of the run's head."""
    return {"pk": text(partition_of(run)), "sk": text(HEAD_KEY)}
