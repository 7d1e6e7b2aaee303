"""Writes of the author's own that are committed together with a step's outcome: what may be handed to DynamoDB."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Effect: TypeAlias = Mapping[str, Any]
"""One entry of ``TransactItems``: ``{"Put": {"TableName": ..., "Item": ...}}``; values typed or plain Python."""

VERBS: Mapping[str, str] = {"Put": "Item", "Update": "Key", "Delete": "Key", "ConditionCheck": "Key"}
"""What a transaction can do, and where each says which item is meant."""
MOST = 50
"""Effects of one step: a transaction takes 100 items."""


def checked(entry: Any) -> Effect:
    """``entry``, if it can be one of a transaction. Raises: TypeError, ValueError."""
    if not isinstance(entry, Mapping) or len(entry) != 1 or next(iter(entry)) not in VERBS:
        found = f"{sorted(map(str, entry))}" if isinstance(entry, Mapping) else type(entry).__name__
        raise TypeError(
            f"commit_with() takes entries of a DynamoDB transaction, such as {{'Put': {{'TableName': 'orders', 'Item': "
            f"...}}}}, one of {', '.join(VERBS)} each; it got {found}"
        )
    ((verb, body),) = entry.items()
    missing = [name for name in ("TableName", VERBS[verb]) if not (isinstance(body, Mapping) and body.get(name))]
    if missing:
        raise ValueError(f"commit_with() got a {verb} without {' and '.join(missing)}")
    return entry
