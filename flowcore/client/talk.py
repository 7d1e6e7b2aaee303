"""How a client talks to the API: tokens, entity tags, second tries, pages, following a run. Knows no network, no clock.

A talk is a generator. It yields what it needs, an answer, a pause, the time, and is sent it; in the end it returns, or
raises, what became of it. Whoever drives it, on a thread or on an event loop, decides nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar

from flowcore.authoring.graph import Backoff
from flowcore.client.call import Call, Reply, Request, Unreached
from flowcore.client.operations import events, get_fields, get_run, health
from flowcore.client.problems import error_of, is_died
from flowcore.core.events import Event
from flowcore.core.retry import pause
from flowcore.errors import ApiError, FlowcoreError, Problem, Unreachable
from flowcore.model import Page
from flowcore.results import RunResult

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_MOVING = ("pending", "running", "waiting")
_ENDED = ("success", "failed", "canceled")
_PASSING = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS.value,
        HTTPStatus.BAD_GATEWAY.value,
        HTTPStatus.SERVICE_UNAVAILABLE.value,
        HTTPStatus.GATEWAY_TIMEOUT.value,
    }
)
"""Answers that may be another one in a moment."""
_BACKOFF = Backoff(initial=timedelta(milliseconds=500), factor=2, maximum=timedelta(seconds=8))
_LONGEST_PAUSE = 30.0
"""Seconds. Whoever is told to come back later than that had better be told what is the matter."""
_MOST_REPLIES = 64
"""Answers that are kept for the case that they are still good."""
EVERY = timedelta(seconds=1)
"""How often a run is looked at that is followed."""


@dataclass(frozen=True, slots=True)
class Send:
    """Is sent a ``Reply``, or ``Unreached``."""

    request: Request


@dataclass(frozen=True, slots=True)
class Pause:
    """Is sent None after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Now:
    """Is sent the time in seconds; only differences mean something."""


@dataclass(frozen=True, slots=True)
class AskToken:
    """Is sent a fresh token."""


@dataclass(frozen=True, slots=True)
class Give:
    """One item of what whoever asked iterates over. Is sent None."""

    item: Any


Need: TypeAlias = Send | Pause | Now | AskToken | Give
Talk: TypeAlias = Generator[Need, Any, T]


@dataclass(slots=True)
class Memory:
    """What a client remembers from one talk to the next."""

    retries: int
    chance: Callable[[], float]
    bearer: Literal["none", "fixed", "asked"] = "none"
    """Whether there is a token, and whether there can be another one."""
    token: str | None = field(default=None, repr=False)
    replies: OrderedDict[str, Reply] = field(default_factory=OrderedDict, repr=False)

    def keep(self, target: str, reply: Reply) -> None:
        """Remember an answer that has a tag, and forget the one that was needed least lately."""
        if "etag" in reply.headers:
            self.replies.pop(target, None)
            self.replies[target] = reply
        while len(self.replies) > _MOST_REPLIES:
            self.replies.popitem(last=False)


class Plan(Protocol[T_co]):
    """Something to be done that is a value."""

    def talk(self, memory: Memory) -> Talk[T_co]:
        """How it is done."""
        ...


# -- one request ------------------------------------------------------------------------------------------------------


def exchange(call: Call[T], memory: Memory) -> Talk[T]:
    """Ask, and ask again where that does no harm; what the API has answered, or the error that it has told.

    Raises: Unreachable, ApiError, and whatever the operation says.
    """
    request = call.request()
    kept = memory.replies.get(request.target) if request.method == "GET" else None
    if kept is not None:
        request = replace(request, headers={**request.headers, "if-none-match": kept.headers["etag"]})
    reply = yield from _patient(call, request, memory)
    if isinstance(reply, Unreached):
        raise Unreachable(f"{request.method} {request.target.partition('?')[0]} got no answer: {reply.why}")
    if reply.status == HTTPStatus.NOT_MODIFIED and kept is not None:
        reply = kept
    if not HTTPStatus.OK <= reply.status < HTTPStatus.MULTIPLE_CHOICES:
        raise error_of(call, reply)
    found = _read(call, reply)
    if request.method == "GET":
        memory.keep(request.target, reply)
    return found


def _patient(call: Call[Any], request: Request, memory: Memory) -> Talk[Reply | Unreached]:
    attempt = 0
    while True:
        attempt += 1
        reply = yield from _signed(request, memory)
        wait = _pause_after(reply, attempt, memory)
        if wait is None or attempt > memory.retries or not call.is_repeatable:
            return reply
        yield Pause(wait)


def _signed(request: Request, memory: Memory) -> Talk[Reply | Unreached]:
    """Send with the token that there is; with a fresh one, once, where it is good no more."""
    if memory.bearer == "none" or request.foreign:
        answer: Reply | Unreached = yield Send(request)
        return answer
    if memory.token is None:
        memory.token = yield AskToken()
    used = memory.token
    reply: Reply | Unreached = yield Send(_with(request, used))
    if memory.bearer == "fixed" or isinstance(reply, Unreached) or reply.status != HTTPStatus.UNAUTHORIZED:
        return reply
    if memory.token == used:  # else another talk has asked for one meanwhile
        memory.token = yield AskToken()
    again: Reply | Unreached = yield Send(_with(request, memory.token))
    return again


def _with(request: Request, token: str | None) -> Request:
    return replace(request, headers={**request.headers, "authorization": f"Bearer {token}"})


def _pause_after(reply: Reply | Unreached, attempt: int, memory: Memory) -> float | None:
    """How long to wait before asking again; None where that would be no use."""
    if not isinstance(reply, Unreached) and reply.status not in _PASSING and not is_died(reply):
        return None
    wanted = "" if isinstance(reply, Unreached) else reply.headers.get("retry-after", "")
    least = float(wanted) if wanted.isascii() and wanted.isdigit() else 0.0
    if least > _LONGEST_PAUSE:
        return None
    return least + pause(_BACKOFF, attempt, memory.chance()).total_seconds()


def _read(call: Call[T], reply: Reply) -> T:
    try:
        return call.read(reply)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        wrong = ApiError(
            f"{call.route} was answered with {reply.status}, but not as this API answers: {reply.text[:100]!r}. "
            "Does the address lead to an API of flowcore, of a version that this client knows?"
        )
        wrong.problem = Problem(status=reply.status, code="", detail=str(wrong))
        raise wrong from error


# -- several ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class One(Generic[T]):
    """A single request."""

    call: Call[T]

    def talk(self, memory: Memory) -> Talk[T]:
        """Ask it."""
        return exchange(self.call, memory)


@dataclass(frozen=True, slots=True)
class Pages(Generic[T]):
    """Every item of a listing, page by page, as they are asked for."""

    first: Call[Page[T]]

    def talk(self, memory: Memory) -> Talk[None]:
        """Give the items."""
        call = self.first
        while True:
            page = yield from exchange(call, memory)
            for item in page:
                yield Give(item)
            if page.cursor is None:
                return
            call = replace(call, query={**call.query, "cursor": page.cursor})


@dataclass(frozen=True, slots=True)
class Healthy:
    """Whether the API answers, and is well. Asked once."""

    def talk(self, memory: Memory) -> Talk[bool]:
        """Ask; an error is a no."""
        try:
            return (yield from exchange(health(), replace(memory, retries=0)))
        except FlowcoreError:
            return False


@dataclass(frozen=True, slots=True)
class Waiting:
    """Until a run is suspended, paused or has ended."""

    run_id: str
    timeout: timedelta | None
    every: timedelta

    def talk(self, memory: Memory) -> Talk[RunResult[Any]]:
        """Look at its status alone, then at the run."""
        until = yield from _until(self.timeout)
        while True:
            seen = yield from exchange(get_fields(self.run_id, ["status"]), memory)
            if seen.status not in _MOVING or not (yield from _rested(self.every, until)):
                return (yield from exchange(get_run(self.run_id), memory))


@dataclass(frozen=True, slots=True)
class Following(Generic[T_co]):
    """The events of a run as they happen."""

    run_id: str
    after: int
    through_waits: bool
    timeout: timedelta | None
    every: timedelta

    def talk(self, memory: Memory) -> Talk[None]:
        """Give each event once. The status is read first, so that nothing which happens meanwhile is missed."""
        until = yield from _until(self.timeout)
        told: set[Event] = set()
        before = None
        while True:
            now = yield from exchange(get_fields(self.run_id, ["status", "version"]), memory)
            if now != before or now.status in _MOVING:  # one that stands still has nothing new to tell
                for event in (yield from exchange(events(self.run_id, self.after), memory)):
                    if event not in told:
                        told.add(event)
                        yield Give(event)
            before = now
            is_over = now.status in _ENDED or (now.status not in _MOVING and not self.through_waits)
            if is_over or not (yield from _rested(self.every, until)):
                return


def _until(timeout: timedelta | None) -> Talk[float | None]:
    if timeout is None:
        return None
    now: float = yield Now()
    return now + timeout.total_seconds()


def _rested(every: timedelta, until: float | None) -> Talk[bool]:
    """Pause; False where the time is over."""
    wait = every.total_seconds()
    if until is not None:
        left = until - (yield Now())
        if left <= 0:
            return False
        wait = min(wait, left)
    yield Pause(wait)
    return True


def waiting(run_id: str, timeout: timedelta | None = None, *, every: timedelta = EVERY) -> Waiting:
    """Wait until a run is suspended, paused or has ended, or for ``timeout``: the run as it stands then.

    Raises: RunNotFound.
    """
    return Waiting(run_id, timeout, every)


def following(
    run_id: str,
    after: int = 0,
    *,
    through_waits: bool = True,
    timeout: timedelta | None = None,
    every: timedelta = EVERY,
) -> Following[Event]:
    """The events of a run beyond ``after`` as they happen, each once, until it has ended, or for ``timeout``.

    Args:
        through_waits: False: until it is suspended or paused, too, as ``Run.watch``.
        every: how often the run is looked at. While nothing happens, that costs a request without a body or two.
    Raises: RunNotFound.
    """
    return Following(run_id, after, through_waits, timeout, every)


def healthy() -> Healthy:
    """Whether the API answers and is well; it is no error when not."""
    return Healthy()
