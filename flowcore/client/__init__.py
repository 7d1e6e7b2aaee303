"""The HTTP API from a program: ``Client`` and ``AsyncClient``, with the values and the errors that an App has itself.

Needs no code of the workflows, and httpx: ``pip install 'flowcore[client]'``. What is asked and what is answered is
said once, as values that know no network (``operations``, ``talk``); both clients do no more than carry that out.
"""

from __future__ import annotations

try:
    import httpx as _httpx
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "flowcore.client speaks HTTP with httpx, which is not installed: pip install 'flowcore[client]'", name="httpx"
    ) from None

from flowcore.client.answers import AskedWait, DeliveryLine, InboxWait, WorkflowInfo
from flowcore.client.clients import AsyncClient, Client

del _httpx

__all__ = ["AskedWait", "AsyncClient", "Client", "DeliveryLine", "InboxWait", "WorkflowInfo"]
