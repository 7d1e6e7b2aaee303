"""Removing a run, item by item, without harm to a new run of the same id."""

from __future__ import annotations

from contextlib import suppress

from flowcore.adapters.aws import ClientError, DynamoClient
from flowcore.adapters.dynamodb_asking import Asking
from flowcore.adapters.dynamodb_attributes import Item, text
from flowcore.adapters.dynamodb_expressions import key_of, phrased
from flowcore.adapters.dynamodb_keys import HEAD_KEY, partition_of
from flowcore.keys import RunRef

_AS_FOUND = "#lc = :lc"
"""Nobody has written the item since it was read."""


class Removal:
    """Removes the records first and the head last, each only as it was found while that very head still stood."""

    def __init__(self, client: DynamoClient, table: str, ask: Asking) -> None:
        """Remove items of ``table``; ``ask`` is how it is asked."""
        self._client = client
        self._table = table
        self._ask = ask

    def token_of(self, run: RunRef) -> str | None:
        """The token of the last write of the run's head; None when there is none."""
        reply = self._ask(self._client.get_item, TableName=self._table, Key=key_of(run), ConsistentRead=True)
        return str(reply["Item"]["lc"]["S"]) if "Item" in reply else None

    def delete(self, run: RunRef, token: str | None) -> bool:
        """Remove a run whose head was written with ``token``; whether it has one."""
        is_ours = self.emptied(run, token)
        if token is not None and is_ours:
            self._removed({**key_of(run), "lc": text(token)})
            self.emptied(run, None)  # what a worker that was given up has written between the two
        return token is not None

    def emptied(self, run: RunRef, token: str | None) -> bool:
        """Remove the run's records, of every incarnation, as long as its head is the one written with ``token``."""
        pages = self._ask.replies(
            {":pk": text(partition_of(run)), ":head": text(HEAD_KEY)},
            KeyConditionExpression="#pk = :pk AND #sk > :head",
            ProjectionExpression="#pk, #sk, #lc",
            ConsistentRead=True,
        )
        for page in pages:
            if not page["Items"]:
                continue
            # Looked at after the records were read: as long as it stands, so read records cannot be a later run's.
            if self.token_of(run) != token:
                return False
            for item in page["Items"]:
                self._removed(item)
        return True

    def _removed(self, item: Item) -> None:
        """Remove an item, unless somebody has written it since."""
        key = {name: item[name] for name in ("pk", "sk")}
        request = {"TableName": self._table, "Key": key, **phrased({":lc": item["lc"]}, ConditionExpression=_AS_FOUND)}
        with suppress(ClientError):
            self._ask(self._client.delete_item, **request)
