"""One shard of a listing, read with patience: a page looks at so many entries, whether or not they match."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flowcore.adapters.dynamodb_asking import Asking
from flowcore.adapters.dynamodb_attributes import Item
from flowcore.adapters.dynamodb_expressions import ranged
from flowcore.adapters.dynamodb_keys import SHARDS
from flowcore.adapters.listing import Listing, mark

_FILTERED_PAGE = 500
"""Entries read at once in a listing with filters, where most may not match: 10 read units a shard."""


@dataclass(slots=True)
class Patience:
    """How many more entries one page of a listing may look at, over all shards."""

    left: int


def listed(ask: Asking, shard: str, asked: Listing, patience: Patience) -> Iterator[Item]:
    """One shard's entries in the asked range that match, in order; a mark at the end if patience was."""
    values, request = ranged(shard, asked)
    request["ScanIndexForward"] = asked.oldest_first
    # At least two: with one, the shard that the cursor's own run is in would get no further than that.
    share = max(2, patience.left // SHARDS)
    request["Limit"] = min(_FILTERED_PAGE, share) if asked.is_rare else asked.limit + 1
    for reply in ask.replies(values, **request):
        yield from reply["Items"]
        patience.left -= reply["ScannedCount"]
        if "LastEvaluatedKey" in reply and patience.left <= 0:
            yield mark(reply["LastEvaluatedKey"]["lsk"]["S"])
            return
