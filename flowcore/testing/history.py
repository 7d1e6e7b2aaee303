"""Could it have been one after the other? Records what concurrent callers asked and were told, and finds an order.

A store, or any other object that several threads share, is linearizable when each call seems to happen at one instant
between its beginning and its end. ``Recorder`` writes down calls as they happen; ``ordered`` finds an order in which
an object without any concurrency would have given the same answers, or shows that there is none.

Source: Jeannette M. Wing and Chun Gong, "Testing and verifying concurrent objects", 1993; the memory of states that
have been seen is Gavin Lowe's, "Testing for linearizability", 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
State = TypeVar("State", bound=Hashable)

Step: TypeAlias = Callable[[State, Any], Iterable[tuple[State, Any]]]
"""What an object in this state may do when it is asked that, alone: each state after it, with what it then tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One call: who asked what, when, and what was told. Without ``ended`` no answer came: it may have happened."""

    who: str
    what: Any
    told: Any = None
    began: int
    ended: int | None

    def __str__(self) -> str:
        until, told = ("?", "no answer") if self.ended is None else (self.ended, self.told)
        return f"[{self.began:>4} to {until:>4}] {self.who} asks {self.what!r}: {told!r}"


class NoOrder(AssertionError):  # it is named in tests as what it is
    """No order of the calls explains what was told; the message shows them, and how far the best order came."""


class Recorder:
    """Writes down calls from any number of threads.

    Example:
        >>> from flowcore.testing.history import Recorder, ordered
        >>> shelf = []
        >>> def put_and_count(state, what):
        ...     yield (*state, what), len(state) + 1
        >>> recorder = Recorder()
        >>> def put(what):
        ...     shelf.append(what)
        ...     return len(shelf)
        >>> recorder.call("ada", "pen", lambda: put("pen"))
        1
        >>> [call.what for call in ordered(recorder.calls, (), put_and_count)]
        ['pen']
    """

    def __init__(self) -> None:
        self.calls: list[Asked] = []
        self._instants = count()

    def call(
        self, who: str, what: Any, do: Callable[[], T], *, tell: Callable[[T], Any] = lambda told: told
    ) -> T | None:
        """What ``do`` gives, written down as what ``who`` was told when asking ``what``.

        Args:
            tell: the part of the answer that an order has to explain.
        Raises: what ``do`` raises; the call is then written down as one without an answer.
        """
        began, ended, told = next(self._instants), None, None
        try:
            came = do()
            ended, told = next(self._instants), tell(came)
        finally:
            self.calls.append(Asked(who=who, what=what, told=told, began=began, ended=ended))
        return came


def ordered(calls: Sequence[Asked], initial: State, step: Step[State]) -> list[Asked]:
    """An order of ``calls`` in which an object that begins as ``initial`` tells the same, without some unanswered ones.

    Args:
        step: what the object may do, told as a function that changes nothing.
    Raises: NoOrder.
    """
    seen: set[tuple[int, State]] = set()
    answered = sum(1 << place for place, call in enumerate(calls) if call.ended is not None)
    todo: list[tuple[int, State, tuple[int, ...]]] = [(0, initial, ())]
    furthest: tuple[int, ...] = ()
    while todo:
        done, state, order = todo.pop()
        furthest = max(furthest, order, key=len)
        if done & answered == answered:
            return [calls[place] for place in order]
        for place, after in _steps(calls, done, state, step):
            reached = (done | 1 << place, after)
            if reached not in seen:
                seen.add(reached)
                todo.append((*reached, (*order, place)))
    raise NoOrder(_story(calls, furthest))


def _steps(calls: Sequence[Asked], done: int, state: State, step: Step[State]) -> list[tuple[int, State]]:
    """The calls that may come next, with what the object is afterwards.

    One that can only leave it as it is comes at once, and alone: it changes nothing for the others, no order is lost,
    and they are not tried with and without it.
    """
    found: list[tuple[int, State]] = []
    for place in _next(calls, done):
        call = calls[place]
        afters = [after for after, told in step(state, call.what) if call.ended is None or told == call.told]
        if afters and all(after == state for after in afters):
            return [(place, state)]
        found += [(place, after) for after in afters]
    return found


def _next(calls: Sequence[Asked], done: int) -> Iterator[int]:
    """The calls that may come next: begun before any other one that is left has ended."""
    left = [place for place in range(len(calls)) if not done >> place & 1]
    first_end = min((end for place in left if (end := calls[place].ended) is not None), default=None)
    return (place for place in left if first_end is None or calls[place].began < first_end)


def _story(calls: Sequence[Asked], furthest: tuple[int, ...]) -> str:
    left = sorted((call for place, call in enumerate(calls) if place not in furthest), key=lambda call: call.began)
    lines = [f"No order of these {len(calls)} calls explains what was told. The best one begins with"]
    lines += [f"  {calls[place]}" for place in furthest]
    return "\n".join([*lines, "and none of these can come next:", *(f"  {call}" for call in left)])
