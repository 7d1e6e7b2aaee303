"""What a client's methods take and give: the same operations, waited for by a thread or awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, assert_type

from flowcore.client import AskedWait, AsyncClient, Client, InboxWait
from flowcore.client.clients import AsyncListed, Listed
from flowcore.core.events import Event
from flowcore.fields import RunFields
from flowcore.model import Page, PublicStatus, Receipt, RunSummary
from flowcore.results import RunResult


def on_a_thread(client: Client) -> None:
    """Values."""
    assert_type(client.start("refund", {"order": "1"}, idempotency_key="k"), RunResult[Any])
    assert_type(client.resume("r-1", True, step=["child", "ask"], version=3).receipt, Receipt | None)
    assert_type(client.get_fields("r-1", ["status"]), RunFields)
    assert_type(client.counts(), dict[PublicStatus, int])
    assert_type(client.list_runs(status=["failed", "canceled"]), Listed[RunSummary])
    assert_type(client.list_runs().page(), Page[RunSummary])
    for one in client.waits(assignee="ada"):
        assert_type(one, InboxWait)
        assert_type(client.get_wait(one.id), AskedWait)
    assert_type(client.follow("r-1", through_waits=False), Iterator[Event])
    assert_type(client.healthy(), bool)


async def on_a_loop(client: AsyncClient) -> None:
    """The same, awaited."""
    canceling: Coroutine[Any, Any, RunResult[Any]] = client.cancel("r-1")
    assert_type(await canceling, RunResult[Any])
    assert_type(await client.start("refund", {"order": "1"}), RunResult[Any])
    assert_type(client.list_runs(), AsyncListed[RunSummary])
    assert_type(await client.list_runs(limit=5).page(), Page[RunSummary])
    async for one in client.waits():
        assert_type(one, InboxWait)
    assert_type(client.follow("r-1"), AsyncIterator[Event])


def with_tokens(token: Callable[[], str]) -> tuple[Client, AsyncClient]:
    """A function that gives tokens does for both; one that is awaited does for a loop alone."""

    async def awaited() -> str:
        return token()

    return Client("https://api.example.com", token), AsyncClient("https://api.example.com", awaited)
