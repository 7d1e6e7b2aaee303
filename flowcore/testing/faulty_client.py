"""What goes wrong between us and DynamoDB, one request at a time: below our own adapter, whose answers are shown by it.

``FaultyClient`` wraps a boto3 client and fails as botocore fails, once its own tries are over. It knows which requests
are tries of the same one, so a fault may be over at the second try, or last until the adapter gives up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NoReturn, TypeAlias

from flowcore.adapters.aws import BotoCoreError, ClientError, Reply
from flowcore.testing.faults import WorkerDied

WRITING = frozenset({"put_item", "update_item", "delete_item", "transact_write_items"})
"""Operations that change something."""
OPERATIONS = WRITING | {"get_item", "query"}


class ConnectionLost(BotoCoreError):  # type: ignore[misc]  # botocore has no types
    """No usable reply came."""

    fmt = "Connection was closed before we received a valid response from endpoint URL: {endpoint_url}."


class ClientFault(StrEnum):
    """What becomes of one request."""

    DIES_BEFORE = "dies-before"
    """The worker dies; the request is never sent."""
    DIES_AFTER = "dies-after"
    """The request is served; the worker dies before it has the reply."""
    CLOSED = "closed"
    """The connection breaks before the request arrives."""
    REPLY_LOST = "reply-lost"
    """The connection breaks once the request has been served."""
    THROTTLED = "throttled"
    """``ThrottlingException``."""
    CONFLICT = "conflict"
    """Another transaction has an item: ``TransactionCanceledException``, or ``TransactionConflictException``."""
    SERVER_ERROR = "server-error"
    """``InternalServerError``; nothing happened."""
    LATE_SERVER_ERROR = "late-server-error"
    """``InternalServerError``; it happened all the same."""


_SERVED = (ClientFault.DIES_AFTER, ClientFault.REPLY_LOST, ClientFault.LATE_SERVER_ERROR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, before it is sent."""

    number: int
    """From 1; the tries of one request have one number."""
    tried: int
    """From 1."""
    operation: str
    """As the client's method is called: ``put_item``."""
    parameters: dict[str, Any]


ClientScript: TypeAlias = Callable[[Request], ClientFault | None]


def at_request(number: int, fault: ClientFault, *, tries: int = 1) -> ClientScript:
    """A script for one fault: at the first ``tries`` tries of the request of that number, from 1."""
    return lambda request: fault if request.number == number and request.tried <= tries else None


class FaultyClient:
    """A DynamoDB client, with faults where ``script`` asks for them.

    Example:
        >>> from flowcore.testing.faulty_client import ClientFault, FaultyClient, at_request
        >>> class Client:
        ...     def put_item(self, **request): return {}
        >>> client = FaultyClient(Client(), at_request(1, ClientFault.THROTTLED))
        >>> try:
        ...     client.put_item(TableName="runs")
        ... except Exception as error:
        ...     print(error)
        An error occurred (ThrottlingException) when calling the put_item operation: Rate exceeded
    """

    def __init__(self, client: Any, script: ClientScript) -> None:
        self._client = client
        self._script = script
        self._last: tuple[str, dict[str, Any]] | None = None
        self._number = 0
        self._tried = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name not in OPERATIONS:
            return found
        return lambda **parameters: self._sent(name, parameters, lambda: found(**parameters))

    def _sent(self, operation: str, parameters: dict[str, Any], happen: Callable[[], Reply]) -> Reply:
        asked = (operation, parameters)
        is_again = asked == self._last
        self._last = asked
        self._number += not is_again
        self._tried = self._tried + 1 if is_again else 1
        request = Request(number=self._number, tried=self._tried, operation=operation, parameters=parameters)
        fault = self._script(request)
        if fault in _SERVED:
            _served(happen)
        if fault is not None:
            _failed(request, fault)
        return happen()


def _failed(request: Request, fault: ClientFault) -> NoReturn:
    match fault:
        case ClientFault.DIES_BEFORE | ClientFault.DIES_AFTER:
            raise WorkerDied(f"at {request.operation}")
        case ClientFault.CLOSED | ClientFault.REPLY_LOST:
            raise ConnectionLost(endpoint_url="")
        case ClientFault.THROTTLED:
            refuse(request.operation, "ThrottlingException", "Rate exceeded")
        case ClientFault.CONFLICT:
            _conflict(request)
        case ClientFault.SERVER_ERROR | ClientFault.LATE_SERVER_ERROR:
            refuse(request.operation, "InternalServerError", "Internal server error", status=500)


def refuse(operation: str, code: str, message: str, *, status: int = 400, reasons: Sequence[str] = ()) -> NoReturn:
    """Raise what botocore makes of such a reply.

    Args:
        reasons: of a canceled transaction, one per item; ``None`` for those that were well.
    """
    reply: Reply = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    if reasons:
        reply["CancellationReasons"] = [{"Code": reason} for reason in reasons]
    raise ClientError(reply, operation)


def _conflict(request: Request) -> NoReturn:
    if request.operation != "transact_write_items":
        refuse(request.operation, "TransactionConflictException", "Transaction is ongoing for the item")
    others = len(request.parameters["TransactItems"]) - 1
    told = "Transaction cancelled, please refer cancellation reasons for specific reasons"
    refuse(request.operation, "TransactionCanceledException", told, reasons=["TransactionConflict", *["None"] * others])


def _served(happen: Callable[[], Reply]) -> None:
    """The request is served; what the reply says, nobody will know."""
    try:
        happen()
    except ClientError:
        return
