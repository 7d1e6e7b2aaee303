"""The two clients. Each drives talks, one on a thread, one on an event loop, and that is all in which they differ.

What there is to be done stands in one table, ``_Operations``; each entry is a descriptor that gives a client its method
with the operation's own arguments and result.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from datetime import timedelta
from functools import update_wrapper
from typing import Any, Generic, ParamSpec, Self, TypeAlias, TypeVar, assert_never, overload

import httpx

from flowcore.client import operations, talk
from flowcore.client.call import Call, Reply, Request, Unreached
from flowcore.client.talk import AskToken, Following, Give, Memory, Need, Now, One, Pages, Pause, Plan, Send
from flowcore.errors import SettingsError
from flowcore.model import Page

P = ParamSpec("P")
T = TypeVar("T")

Auth: TypeAlias = str | Callable[[], str] | httpx.Auth | None
"""A bearer token, what gives one (it is asked again when one is good no more), or what signs requests."""
AsyncAuth: TypeAlias = str | Callable[[], str | Awaitable[str]] | httpx.Auth | None

_TIMEOUT = timedelta(seconds=30)
"""Of one request: the gateway itself gives up a little earlier."""
_RETRIES = 3


class Listed(Generic[T]):
    """The items of a listing. Iterating asks for one page after the other; ``page()`` for the first alone."""

    def __init__(self, client: Client, call: Call[Page[T]]) -> None:
        self._client = client
        self._call = call

    def __iter__(self) -> Iterator[T]:
        return self._client._items(Pages(self._call))  # noqa: SLF001  # the other half of it

    def page(self) -> Page[T]:
        """One page. Its ``cursor`` continues the listing: give it as ``cursor=``."""
        return self._client._done(One(self._call))  # noqa: SLF001  # as above


class AsyncListed(Generic[T]):
    """As ``Listed``, with ``async for`` and ``await``."""

    def __init__(self, client: AsyncClient, call: Call[Page[T]]) -> None:
        self._client = client
        self._call = call

    def __aiter__(self) -> AsyncIterator[T]:
        return self._client._items(Pages(self._call))  # noqa: SLF001  # as above

    async def page(self) -> Page[T]:
        """One page. Its ``cursor`` continues the listing: give it as ``cursor=``."""
        return await self._client._done(One(self._call))  # noqa: SLF001  # as above


# -- operations as methods --------------------------------------------------------------------------------------------


class Operation(Generic[P, T]):
    """A method that asks once and gives the answer."""

    def __init__(self, make: Callable[P, Call[T] | Plan[T]]) -> None:
        self.make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...

    def __get__(self, client: Client | AsyncClient | None, owner: type) -> Any:
        if client is None:
            return self

        def asked(*args: P.args, **kwargs: P.kwargs) -> Any:
            made = self.make(*args, **kwargs)
            return client._done(One(made) if isinstance(made, Call) else made)  # noqa: SLF001  # a method of it

        return update_wrapper(asked, self.make)


class Listing(Generic[P, T]):
    """A method that gives the items of a listing, however many pages they are."""

    def __init__(self, make: Callable[P, Call[Page[T]]]) -> None:
        self.make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, Listed[T]]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, AsyncListed[T]]: ...

    def __get__(self, client: Client | AsyncClient | None, owner: type) -> Any:
        if client is None:
            return self

        def listed(*args: P.args, **kwargs: P.kwargs) -> Any:
            call = self.make(*args, **kwargs)
            return Listed(client, call) if isinstance(client, Client) else AsyncListed(client, call)

        return update_wrapper(listed, self.make)


class Stream(Generic[P, T]):
    """A method that gives what happens, as it happens."""

    def __init__(self, make: Callable[P, Following[T]]) -> None:
        self.make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: Client, owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: type) -> Callable[P, AsyncIterator[T]]: ...

    def __get__(self, client: Client | AsyncClient | None, owner: type) -> Any:
        if client is None:
            return self

        def followed(*args: P.args, **kwargs: P.kwargs) -> Any:
            return client._items(self.make(*args, **kwargs))  # noqa: SLF001  # a method of it

        return update_wrapper(followed, self.make)


class _Operations:
    """Everything that both clients do."""

    workflows = Operation(operations.workflows)
    workflow = Operation(operations.workflow)
    workflow_graph = Operation(operations.workflow_graph)
    draw_workflow = Operation(operations.draw_workflow)

    start = Operation(operations.start)
    get_run = Operation(operations.get_run)
    get_fields = Operation(operations.get_fields)
    wait = Operation(talk.waiting)
    run_graph = Operation(operations.run_graph)
    draw_run = Operation(operations.draw_run)
    events = Operation(operations.events)
    follow = Stream(talk.following)
    receipts = Listing(operations.receipts)
    list_runs = Listing(operations.list_runs)
    counts = Operation(operations.counts)
    doctor = Listing(operations.doctor)

    resume = Operation(operations.resume)
    delegate = Operation(operations.delegate)
    cancel = Operation(operations.cancel)
    redrive = Operation(operations.redrive)
    unblock = Operation(operations.unblock)
    restart = Operation(operations.restart)
    pause = Operation(operations.pause)
    unpause = Operation(operations.unpause)
    time_travel = Operation(operations.time_travel)
    fork = Operation(operations.fork)
    delete = Operation(operations.delete)

    waits = Listing(operations.waits)
    get_wait = Operation(operations.get_wait)
    answer = Operation(operations.answer)
    callback = Operation(operations.callback)
    send_event = Operation(operations.send_event)
    list_deliveries = Listing(operations.list_deliveries)
    replay_delivery = Operation(operations.replay_delivery)

    openapi = Operation(operations.openapi)
    healthy = Operation(talk.healthy)


# -- the clients ------------------------------------------------------------------------------------------------------


class Client(_Operations):
    """The HTTP API of a deployment. Its methods are named after those of ``App`` and ``Run`` and give the same values.

    Errors are those of ``flowcore.errors``, with ``error.problem`` as the API has told it; ``Unreachable`` where there
    is no answer. What can be asked twice without harm, a GET or what has an idempotency key, is asked again where the
    API is busy or away. Can be shared by threads.

    Args:
        url: where the API is, with the stage if there is one.
        auth: a bearer token; a function that gives one, which is asked again when the API takes the last one no more;
            or an ``httpx.Auth``, such as ``flowcore.adapters.sigv4.SigV4`` for a deployment with ``AuthMode`` ``IAM``.
        timeout: of one request.
        transport: instead of the network.
        retries: how often to ask again at most.
        sleep, now, chance: what seconds are waited with, measured with, and drawn with.
    Raises: SettingsError for what is no address.

    Example:
        >>> from flowcore.client import Client
        >>> answered = httpx.MockTransport(lambda request: httpx.Response(200, json={"status": "ok"}))
        >>> with Client("https://api.example.com", "token", transport=answered) as client:
        ...     client.healthy()
        True
    """

    def __init__(
        self,
        url: str,
        auth: Auth = None,
        *,
        timeout: timedelta = _TIMEOUT,
        transport: httpx.BaseTransport | None = None,
        retries: int = _RETRIES,
        sleep: Callable[[float], object] = time.sleep,
        now: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._url = _address(url)
        self._token = auth if callable(auth) else None
        self._memory = _memory(auth, retries, chance)
        self._sleep, self._now = sleep, now
        self._signer = auth if isinstance(auth, httpx.Auth) else None
        self._http = httpx.Client(transport=transport, timeout=timeout.total_seconds())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def _done(self, plan: Plan[T]) -> T:
        doing = plan.talk(self._memory)
        given = None
        while True:
            try:
                need = doing.send(given)
            except StopIteration as end:
                done: T = end.value
                return done
            given = self._met(need)

    def _items(self, plan: Plan[None]) -> Iterator[Any]:
        doing = plan.talk(self._memory)
        given = None
        while True:
            try:
                need = doing.send(given)
            except StopIteration:
                return
            given = self._met(need)
            if isinstance(need, Give):
                yield need.item

    def _met(self, need: Need) -> Any:
        match need:
            case Send(request):
                return self._sent(request)
            case Pause(seconds):
                return self._sleep(seconds)
            case Now():
                return self._now()
            case AskToken():
                assert self._token is not None  # only then it is asked for
                return self._token()
            case Give():
                return None
            case _:
                assert_never(need)

    def _sent(self, request: Request) -> Reply | Unreached:
        try:
            return _reply(self._http.send(_built(self._http, self._url, request), auth=_signs(self._signer, request)))
        except httpx.RequestError as error:
            return _unreached(error)


class AsyncClient(_Operations):
    """As ``Client``, for an event loop: what gives a value there is awaited here, what is iterated over is ``async``.

    Args:
        auth: the function that gives a token may be ``async``.
        sleep: is awaited.

    Example:
        >>> import asyncio
        >>> from flowcore.client import AsyncClient
        >>> answered = httpx.MockTransport(lambda request: httpx.Response(200, json={"status": "ok"}))
        >>> async def ask() -> bool:
        ...     async with AsyncClient("https://api.example.com", transport=answered) as client:
        ...         return await client.healthy()
        >>> asyncio.run(ask())
        True
    """

    def __init__(
        self,
        url: str,
        auth: AsyncAuth = None,
        *,
        timeout: timedelta = _TIMEOUT,
        transport: httpx.AsyncBaseTransport | None = None,
        retries: int = _RETRIES,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._url = _address(url)
        self._token = auth if callable(auth) else None
        self._memory = _memory(auth, retries, chance)
        self._sleep, self._now = sleep, now
        self._signer = auth if isinstance(auth, httpx.Auth) else None
        self._http = httpx.AsyncClient(transport=transport, timeout=timeout.total_seconds())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def _done(self, plan: Plan[T]) -> T:
        doing = plan.talk(self._memory)
        given = None
        while True:
            try:
                need = doing.send(given)
            except StopIteration as end:
                done: T = end.value
                return done
            given = await self._met(need)

    async def _items(self, plan: Plan[None]) -> AsyncIterator[Any]:
        doing = plan.talk(self._memory)
        given = None
        while True:
            try:
                need = doing.send(given)
            except StopIteration:
                return
            given = await self._met(need)
            if isinstance(need, Give):
                yield need.item

    async def _met(self, need: Need) -> Any:
        match need:
            case Send(request):
                return await self._sent(request)
            case Pause(seconds):
                return await self._sleep(seconds)
            case Now():
                return self._now()
            case AskToken():
                assert self._token is not None  # only then it is asked for
                token = self._token()
                return await token if inspect.isawaitable(token) else token
            case Give():
                return None
            case _:
                assert_never(need)

    async def _sent(self, request: Request) -> Reply | Unreached:
        built = _built(self._http, self._url, request)
        try:
            return _reply(await self._http.send(built, auth=_signs(self._signer, request)))
        except httpx.RequestError as error:
            return _unreached(error)


# -- httpx ------------------------------------------------------------------------------------------------------------


def _built(http: httpx.Client | httpx.AsyncClient, url: str, request: Request) -> httpx.Request:
    target = request.target if request.foreign else url + request.target
    return http.build_request(request.method, target, headers=dict(request.headers), content=request.content)


def _signs(signer: httpx.Auth | None, request: Request) -> httpx.Auth | None:
    return None if request.foreign else signer


def _reply(response: httpx.Response) -> Reply:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(status=response.status_code, headers=headers, text=response.text)


def _unreached(error: httpx.RequestError) -> Unreached:
    return Unreached(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def _address(url: str) -> str:
    if not url.startswith(("https://", "http://")):
        raise SettingsError(f"{url!r} is no address of an API; it begins with https:// (or http:// on this machine)")
    return url.rstrip("/")


def _memory(auth: object, retries: int, chance: Callable[[], float]) -> Memory:
    if isinstance(auth, str):
        return Memory(retries, chance, "fixed", auth)
    return Memory(retries, chance, "asked" if callable(auth) else "none")
