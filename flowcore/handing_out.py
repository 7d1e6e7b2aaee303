"""Starting and answering runs in a transaction of the caller's own: the items are handed out instead of written.

The call goes its usual way, checks included, over a store that only notes what it would write. Nothing has happened to
the run until the caller's transaction is through; nobody is told of it either, which is what ``App.hint`` is for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flowcore.errors import MalformedRequest, NeedsDynamoDB
from flowcore.hints import Hints
from flowcore.ports import Handing, Hint

if TYPE_CHECKING:
    from flowcore.app import App
    from flowcore.results import RunResult

Items = list[dict[str, Any]]
"""Entries of ``TransactItems``."""


class _Nobody:
    """A queue that drops what it is given: there is nothing to look at yet."""

    max_delay_s = 0

    def send(self, hint: Hint, *, delay_s: int) -> None:
        """See ``Queue.send``."""


def handed_out(app: App, what: str, call: Callable[[App], RunResult[Any]]) -> Items:
    """What ``call`` would write to the store of the App it is given.

    Raises: NeedsDynamoDB; MalformedRequest when it is more than one write of one run can be; what ``call`` raises.
    """
    if not isinstance(app.store, Handing):
        raise NeedsDynamoDB(what)
    store, items = app.store.handing()
    other = type(app).__new__(type(app))
    other.__dict__.update(app.__dict__)
    other.store, other.queue = store, _Nobody()
    other.engine = replace(app.engine, store=store, hints=Hints(None, None, app.clock))
    result = call(other)
    if result.replayed:
        raise MalformedRequest(f"{what} has nothing to write: run {result.run_id!r} has had this very request before")
    if sum("Update" in item for item in items) > 1:
        raise MalformedRequest(f"{what} would answer several items of a foreach; say with index= which one is meant")
    return items
