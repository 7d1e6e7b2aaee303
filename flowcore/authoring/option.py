"""One of the things that a step waits for at the same time: who may answer it, with what, or which event does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Any, Generic

from typing_extensions import TypeVar

from flowcore.model import Wait

Suspend = TypeVar("Suspend", default=Any)


@dataclass(frozen=True, slots=True)
class Option(Generic[Suspend]):
    """One of the things that ``ctx.suspend_any`` waits for.

    Args:
        name: what ``ctx.chosen`` is when this one comes, and the label by which it is answered: 1-64 letters, digits,
            ``_`` or ``-``.
        payload: shown to whoever must answer; must fit the declared suspend type.
        resume: the type that an answer to this one must fit, where the step's resume type is a union of several: one of
            them. Left out, any of them.
        key: ``app.send_event(event, key, data)`` answers as well. Not together with ``approvers`` or ``quorum``.
        event: the name of that event; left out, the option's.
        notify, remind, approvers, quorum, veto, allow_self, escalate: as for ``ctx.suspend``, of this option alone.

    Example:
        >>> from flowcore import Option, StepContext, step
        >>> @step
        ... def release(order: str, ctx: StepContext[bool, str]) -> str:
        ...     if ctx.chosen is None:
        ...         ctx.suspend_any([Option("manager", "release?"), Option("paid", key=order)])
        ...     return f"{order}: {ctx.chosen}"
    """

    name: str
    payload: Suspend | None = None
    _: KW_ONLY
    resume: Any = None
    key: str | None = None
    event: str | None = None
    notify: Callable[[Wait[Suspend]], Any] | None = None
    remind: Sequence[timedelta] = ()
    approvers: Sequence[str] = ()
    quorum: int = 1
    veto: str | None = None
    allow_self: bool = True
    escalate: Mapping[int, Sequence[str]] | None = None
