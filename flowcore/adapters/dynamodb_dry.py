"""A DynamoDB client that writes nothing: it notes what would be written, for a transaction of somebody else's."""

from __future__ import annotations

from typing import Any

from flowcore.adapters.aws import DynamoClient, Reply


class NotingClient:
    """Reads through another client; each write becomes an entry of ``TransactItems`` in ``noted``, and succeeds."""

    def __init__(self, client: DynamoClient) -> None:
        self.noted: list[dict[str, Any]] = []
        self._client = client

    @property
    def meta(self) -> Any:
        """The client's own."""
        return self._client.meta

    def get_item(self, **request: Any) -> Reply:
        """As it stands."""
        return self._client.get_item(**request)

    def query(self, **request: Any) -> Reply:
        """As it stands."""
        return self._client.query(**request)

    def put_item(self, **request: Any) -> Reply:
        """Noted."""
        return self._note("Put", request)

    def update_item(self, **request: Any) -> Reply:
        """Noted."""
        return self._note("Update", request)

    def delete_item(self, **request: Any) -> Reply:
        """Noted."""
        return self._note("Delete", request)

    def transact_write_items(self, **request: Any) -> Reply:
        """Each of its parts is noted."""
        self.noted += request["TransactItems"]
        return {}

    def _note(self, verb: str, request: dict[str, Any]) -> Reply:
        self.noted.append({verb: {name: value for name, value in request.items() if name != "ReturnValues"}})
        return {}
