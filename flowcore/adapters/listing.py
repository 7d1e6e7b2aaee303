"""One call of ``list_runs``, in terms of the list index: between which keys to read, what to keep, where to go on.

Both stores read with this, so that they page, filter and refuse alike. A cursor is the position of the last run shown,
not a place in the table: runs that come or go between two pages shift nothing.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from flowcore.adapters.dynamodb_attributes import Item, to_ms
from flowcore.adapters.dynamodb_items import decode_summary, list_key, list_position
from flowcore.errors import MalformedRequest
from flowcore.model import Page, PublicStatus, RunSummary

_LOWEST = list_key(0, "")
_HIGHEST = "~"
"""Sorts after every list key: those begin with a digit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What to read: entries from ``lowest`` to ``highest``, except ``after``, whose ``wanted`` attributes all match."""

    lowest: str
    highest: str
    after: str | None
    wanted: Mapping[str, str]
    limit: int

    @property
    def is_empty(self) -> bool:
        """Whether no entry can match; DynamoDB refuses to be asked for such a range."""
        return self.lowest > self.highest

    def wants(self, entry: Item) -> bool:
        """Whether every filter holds for ``entry``."""
        return all(entry.get(name) == {"S": value} for name, value in self.wanted.items())

    def page_of(self, entries: Iterable[Item]) -> Page[RunSummary]:
        """The first ``limit`` matching entries, of all of them newest first; reads one more to know if that is all."""
        matching = (entry for entry in entries if entry["lsk"]["S"] != self.after and self.wants(entry))
        found = list(islice(matching, self.limit + 1))
        shown = found[: self.limit]
        return Page([decode_summary(entry) for entry in shown], _cursor(shown[-1]) if found[self.limit :] else None)


def listing(
    *,
    workflow: str | None,
    status: PublicStatus | None,
    resource_id: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    cursor: str | None,
) -> Listing:
    """The arguments of ``Store.list_runs`` as a range and filters.

    Raises:
        MalformedRequest: ``cursor`` is none that a listing gave, or ``limit`` is not positive.
    """
    if limit < 1:
        raise MalformedRequest(f"A listing shows at least 1 run at a time, not {limit}.")
    after = _position(cursor) if cursor is not None else None
    until_key = list_key(to_ms(until), "~") if until is not None else _HIGHEST
    filters = {"wf": workflow, "ps": status, "rs": resource_id}
    return Listing(
        lowest=list_key(to_ms(since), "") if since is not None else _LOWEST,
        highest=min(until_key, after or _HIGHEST),
        after=after,
        wanted={name: value for name, value in filters.items() if value is not None},
        limit=limit,
    )


def _cursor(entry: Item) -> str:
    return base64.urlsafe_b64encode(json.dumps(list_position(entry), separators=(",", ":")).encode()).decode()


def _position(cursor: str) -> str:
    try:
        created_ms, run_id = json.loads(base64.b64decode(cursor.encode(), altchars=b"-_", validate=True))
        if isinstance(created_ms, int) and isinstance(run_id, str):
            return list_key(created_ms, run_id)
    except (ValueError, TypeError):
        pass
    raise MalformedRequest(f"{cursor!r} is not a cursor of a listing. Leave it out to begin with the newest run.")
