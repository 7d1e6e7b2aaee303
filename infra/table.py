"""The one table as data: its keys, its indexes with what they copy, and the attribute that lets items expire.

The library owns the names, because it writes them; here they meet the template, which a house test holds to them.
"""

from typing import Any

from flowcore.adapters.table import INDEXES, PARTITION_KEY, SORT_KEY, TTL_ATTRIBUTE, table_request

__all__ = ["INDEXES", "PARTITION_KEY", "SORT_KEY", "TTL_ATTRIBUTE", "create_table_request"]


def create_table_request(table_name: str) -> dict[str, Any]:
    """Keyword arguments of ``create_table``; TTL needs a second call, see ``ttl_request``."""
    return table_request(table_name)
