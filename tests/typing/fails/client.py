"""What a client's methods do not take."""

from __future__ import annotations

from flowcore.client import AsyncClient, Client


async def token() -> str:
    """Awaited."""
    return "t"


def wrong(client: Client, loop: AsyncClient) -> None:
    """Each line once."""
    client.start()  # error
    client.start("refund", wait=10)  # error
    client.get_run(7)  # error
    client.list_runs(status="done")  # error
    client.resume("r-1", True, step=3)  # error
    print(client.get_run("r-1").receipts)  # error
    print(loop.get_run("r-1").status)  # error
    for _ in loop.list_runs():  # error
        pass
    Client("https://api.example.com", token)  # error
