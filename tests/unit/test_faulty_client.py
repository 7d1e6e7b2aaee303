"""A client that fails as botocore does, and our adapter above it."""

from __future__ import annotations

from typing import Any

import pytest

from flowcore.adapters.aws import ClientError, code_of, is_silence
from flowcore.testing import WorkerDied
from flowcore.testing.faulty_client import ClientFault, ConnectionLost, FaultyClient, Request, at_request


class Served:
    """A client that serves everything, and remembers it."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def put_item(self, **request: Any) -> dict[str, Any]:
        """As boto3's."""
        self.seen.append(request["Item"])
        return {}

    def transact_write_items(self, **request: Any) -> dict[str, Any]:
        """As boto3's."""
        self.seen.append(request["TransactItems"])
        return {}


@pytest.mark.parametrize(
    ("fault", "raised", "code", "served"),
    [
        (ClientFault.DIES_BEFORE, WorkerDied, "WorkerDied", 0),
        (ClientFault.DIES_AFTER, WorkerDied, "WorkerDied", 1),
        (ClientFault.CLOSED, ConnectionLost, "ConnectionLost", 0),
        (ClientFault.REPLY_LOST, ConnectionLost, "ConnectionLost", 1),
        (ClientFault.THROTTLED, ClientError, "ThrottlingException", 0),
        (ClientFault.CONFLICT, ClientError, "TransactionConflictException", 0),
        (ClientFault.SERVER_ERROR, ClientError, "InternalServerError", 0),
        (ClientFault.LATE_SERVER_ERROR, ClientError, "InternalServerError", 1),
    ],
)
def test_a_fault_strikes_the_request_of_its_number(
    fault: ClientFault, raised: type[BaseException], code: str, served: int
) -> None:
    """Before it is served or after; others are left alone."""
    inner = Served()
    client = FaultyClient(inner, at_request(2, fault))
    client.put_item(Item="a")
    with pytest.raises(raised) as found:
        client.put_item(Item="b")
    client.put_item(Item="c")
    assert ["a", *["b"] * served, "c"] == inner.seen
    assert not isinstance(found.value, Exception) or code == code_of(found.value)


def test_a_fault_may_last_for_some_tries() -> None:
    """A request that is sent again as it was is a try of the same one."""
    seen: list[tuple[int, int]] = []

    def script(request: Request) -> ClientFault | None:
        seen.append((request.number, request.tried))
        return at_request(1, ClientFault.CLOSED, tries=2)(request)

    client = FaultyClient(Served(), script)
    for _ in range(2):
        with pytest.raises(ConnectionLost) as found:
            client.put_item(Item="a")
        assert is_silence(found.value)
    client.put_item(Item="a")
    client.put_item(Item="b")
    assert [(1, 1), (1, 2), (1, 3), (2, 1)] == seen


def test_a_conflict_of_a_transaction_names_an_item() -> None:
    """As the reasons of a canceled one do: the others were well."""
    client = FaultyClient(Served(), at_request(1, ClientFault.CONFLICT))
    with pytest.raises(ClientError) as found:
        client.transact_write_items(TransactItems=[{"Put": {}}, {"Update": {}}])
    reasons = [reason["Code"] for reason in found.value.response["CancellationReasons"]]
    assert ("TransactionCanceledException", ["TransactionConflict", "None"]) == (code_of(found.value), reasons)
