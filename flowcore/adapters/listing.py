"""One call of ``list_runs`` in terms of the list index: between which keys to read, what to keep, where to go on.

Both stores read with this, so that they page, filter and refuse alike. A cursor is the position of the last run shown,
or of the last one looked at, not a place in the table: runs that come or go between two pages shift nothing.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from flowcore.adapters.dynamodb_attributes import Attribute, Item, instant, instant_of, text, to_ms
from flowcore.adapters.dynamodb_heads import decode_summary, list_position, tag_text
from flowcore.adapters.dynamodb_keys import list_key
from flowcore.errors import MalformedRequest
from flowcore.keys import is_run_id
from flowcore.model import Page, RunFilter, RunSummary

MOST_LOOKED_AT = 20_000
"""Entries that one page of a listing looks at, about: 3 MB of the index, 400 read units, a second or two.

So a listing of N runs takes at most N / 20,000 pages more than are filled, however few match.
"""
_LOWEST = list_key(0, "")
_HIGHEST = "~"
"""Sorts after every list key: those begin with a digit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One thing that must hold for an entry, said twice: for DynamoDB, and for Python."""

    expression: str
    values: Mapping[str, Attribute] = field(default_factory=dict)
    holds: Callable[[Item], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What to read: entries from ``lowest`` to ``highest``, except ``after``, for which all ``conditions`` hold."""

    lowest: str
    highest: str
    after: str | None
    conditions: Sequence[Condition]
    is_rare: bool
    """Whether most entries may not match."""
    limit: int
    oldest_first: bool

    @property
    def is_empty(self) -> bool:
        """Whether no entry can match; DynamoDB refuses to be asked for such a range."""
        return self.lowest > self.highest

    def wants(self, entry: Item) -> bool:
        """Whether every condition holds for ``entry``."""
        return all(condition.holds(entry) for condition in self.conditions)

    def page_of(self, entries: Iterable[Item]) -> Page[RunSummary]:
        """The first ``limit`` of ``entries`` that match; they come in order.

        The page ends early at an entry that is a ``mark``: behind it nobody has looked.
        """
        shown: list[Item] = []
        for entry in entries:
            if is_mark(entry):
                return self._page(shown, cursor=entry)
            if entry["lsk"]["S"] == self.after or not self.wants(entry):
                continue
            if len(shown) == self.limit:
                return self._page(shown, cursor=shown[-1])
            shown.append(entry)
        return self._page(shown, cursor=None)

    @staticmethod
    def _page(shown: Sequence[Item], *, cursor: Item | None) -> Page[RunSummary]:
        return Page([decode_summary(entry) for entry in shown], None if cursor is None else _cursor(cursor))


def mark(list_key: str) -> Item:
    """Stands in a listing where looking on was given up."""
    return {"lsk": text(list_key)}


def is_mark(entry: Item) -> bool:
    """Whether this is no entry but a ``mark``."""
    return entry.keys() == {"lsk"}


def listing(wanted: RunFilter, *, limit: int = 1, cursor: str | None = None, oldest_first: bool = False) -> Listing:
    """The arguments of ``Store.list_runs`` as a range and conditions.

    Raises:
        MalformedRequest: ``cursor`` is none that a listing gave, or ``limit`` is not positive.
    """
    if limit < 1:
        raise MalformedRequest(f"A listing shows at least 1 run at a time, not {limit}.")
    after = _position(cursor) if cursor is not None else None
    lowest = list_key(to_ms(wanted.since), "") if wanted.since is not None else _LOWEST
    highest = list_key(to_ms(wanted.until), "~") if wanted.until is not None else _HIGHEST
    rare = _conditions(wanted)
    return Listing(
        lowest=max(lowest, after or _LOWEST) if oldest_first else lowest,
        highest=highest if oldest_first else min(highest, after or _HIGHEST),
        after=after,
        conditions=[*rare, _unexpired(wanted.unexpired_at)] if wanted.unexpired_at is not None else rare,
        is_rare=bool(rare),
        limit=limit,
        oldest_first=oldest_first,
    )


# -- conditions -------------------------------------------------------------------------------------------------------


def _conditions(wanted: RunFilter) -> list[Condition]:
    found = [_tagged(number, tag) for number, tag in enumerate(wanted.tags)]
    if wanted.workflow is not None:
        found.append(_one_of("wf", (wanted.workflow,)))
    if wanted.statuses:
        found.append(_one_of("ps", wanted.statuses))
    if wanted.resource_id is not None:
        found.append(_one_of("rs", (wanted.resource_id,)))
    if wanted.waiting:
        found.append(_with_waits())
    if wanted.deadline_before is not None:
        found.append(_due_before(wanted.deadline_before))
    return found


def _one_of(name: str, words: Sequence[str]) -> Condition:
    values = {f":{name}{number}": text(word) for number, word in enumerate(words)}
    allowed = list(values.values())
    return Condition(
        expression=f"#{name} IN ({', '.join(values)})", values=values, holds=lambda entry: entry.get(name) in allowed
    )


def _tagged(number: int, tag: str) -> Condition:
    part = tag_text(tag)
    return Condition(
        expression=f"contains(#tg, :tg{number})",
        values={f":tg{number}": text(part)},
        holds=lambda entry: "tg" in entry and part in entry["tg"]["S"],
    )


def _with_waits() -> Condition:
    """A suspended run has open waits by definition; heads written before there was ``sw`` say no more than that."""
    suspended = text("suspended")
    return Condition(
        expression="(attribute_exists(#sw) OR #ps = :suspended)",
        values={":suspended": suspended},
        holds=lambda entry: "sw" in entry or entry["ps"] == suspended,
    )


def _due_before(moment: datetime) -> Condition:
    return Condition(
        expression="#dl < :dl",
        values={":dl": instant(moment)},
        holds=lambda entry: "dl" in entry and instant_of(entry["dl"]) < moment,
    )


def _unexpired(moment: datetime) -> Condition:
    return Condition(
        expression="(attribute_not_exists(#xp) OR #xp > :xp)",
        values={":xp": instant(moment)},
        holds=lambda entry: "xp" not in entry or instant_of(entry["xp"]) > moment,
    )


# -- cursors ----------------------------------------------------------------------------------------------------------


def _cursor(entry: Item) -> str:
    return base64.urlsafe_b64encode(json.dumps(list_position(entry), separators=(",", ":")).encode()).decode()


def _position(cursor: str) -> str:
    try:
        created_ms, run_id = json.loads(base64.b64decode(cursor.encode(), altchars=b"-_", validate=True))
        if isinstance(created_ms, int) and isinstance(run_id, str):
            return list_key(created_ms, run_id)
    except (ValueError, TypeError, RecursionError):
        pass
    raise MalformedRequest(f"{cursor[:100]!r} is not a cursor of a listing. Leave it out to begin with the newest run.")


def lines_before(cursor: str | None) -> str:
    """The sort key below which the next page of a log of deliveries lies. Raises: MalformedRequest."""
    if cursor is None:
        return "D$"
    if not (cursor[:1].isdigit() and is_run_id(cursor)):  # a key that is too long is no trouble of the store's
        raise MalformedRequest("This cursor was not given here.")
    return f"D#{cursor}"
