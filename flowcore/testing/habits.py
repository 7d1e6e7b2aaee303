"""What the steps of random workflows do: pure functions of their key, their input, the attempt and the answer.

Where steps run side by side each writes keys of its own into the state; only where the order is certain do steps share
a key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict

from flowcore.authoring.context import StepContext
from flowcore.authoring.option import Option
from flowcore.authoring.step import Step
from flowcore.codec import digest
from flowcore.model import Json


class OutOfOrderError(Exception):
    """What a generated step fails with; carries the attempt, as an author's error would carry a code."""

    def __init__(self, key: str, attempt: int) -> None:
        super().__init__(f"{key} does not work")
        self.attempt = attempt


class Shared(BaseModel):
    """The state of those workflows that declare one; other keys may stand beside."""

    model_config = ConfigDict(extra="allow")

    last: str | None = None
    count: int = 0


@dataclass(slots=True)
class Effects:
    """What the steps did to the outside world: calls by idempotency key."""

    calls: Counter[str] = field(default_factory=Counter)
    once: Counter[str] = field(default_factory=Counter)
    are_mended: bool = False
    """No step fails any more."""

    def clear(self) -> None:
        """Forget everything, for another run of the same workflow."""
        self.calls.clear()
        self.once.clear()


APPROVERS = ("ada", "bob", "eve")
"""Of whom two must answer where a step asks for several; none of them starts the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """What one step definition does, drawn once."""

    name: str
    alone: bool
    """Nothing else runs at the same time: it may use keys that others use."""
    flaky: int
    """Attempts that fail before one succeeds."""
    is_broken: bool
    bails: bool
    suspends: int
    is_timed: bool
    options: int = 0
    """How many things it waits for at a time, each an answer or an event; 0: it suspends plainly."""
    stand_in: Step[Any, Any, Any, Any] | None = None
    """Runs in its place when nobody answers in time."""
    looks_at: str | None
    keeps_once: bool
    emits: bool
    spoils_input: bool


def number(*parts: Json) -> int:
    """A number below 10,000 that depends on every part, the same on every machine."""
    return int(digest(list(parts))[:8], 16) % 10_000


def seen_in(state: Any, name: str) -> Json:
    """A shared value, whether the state is a model or a dict; one that nobody has set is 0."""
    found = getattr(state, name, None) if isinstance(state, BaseModel) else state.get(name)
    return found or 0


def place(idempotency_key: str) -> str:
    """The key as the first life of run ``r`` has it: a step does the same in later lives, and in a fork."""
    return f"r/{idempotency_key.split('/', 1)[1]}"


def behaviour(habits: Habits, effects: Effects) -> Callable[[Json, StepContext[Any, Any, Any]], Json]:
    """The function of a generated step."""

    def run(value: Json, ctx: StepContext[Any, Any, Any]) -> Json:
        key = place(ctx.idempotency_key)
        effects.calls[key] += 1
        answered = ctx.resume_data["times"] if ctx.resume_data else 0
        seen = _seen(habits, ctx, value, f"{key}@{answered}")
        _spoil(habits, value)
        mood = number(key, seen)
        _note(habits, ctx, key, answered, mood)
        if not effects.are_mended and (ctx.attempt <= habits.flaky or (habits.is_broken and mood % 2)):
            raise OutOfOrderError(habits.name, ctx.attempt)
        if habits.keeps_once:
            seen = [seen, ctx.once("kept", lambda: _kept(effects, key))]
        if answered < habits.suspends and not ctx.timed_out:
            _suspend(habits, ctx, {"asks": mood}, f"{key}@{answered}")
        _mark(habits, ctx, key, mood)
        if habits.bails and mood % 3 == 0:
            ctx.bail({"bailed": mood})
        return _shaped(mood, [seen, ctx.attempt, ctx.resume_data, ctx.suspend_data, ctx.timed_out, ctx.chosen])

    return run


def option_names(count: int) -> list[str]:
    """What the things are called that a step waits for at a time."""
    return ["a", "b", "c"][:count]


def _suspend(habits: Habits, ctx: StepContext[Any, Any, Any], payload: Json, occurrence: str) -> NoReturn:
    timeout = timedelta(days=400) if habits.is_timed else None
    stand_in = habits.stand_in if habits.is_timed else None
    if not habits.options:
        several = number(habits.name, "quorum") % 3 == 0 and not habits.is_timed
        ctx.suspend(
            payload,
            timeout=timeout,
            on_timeout=stand_in,
            label=f"label-{habits.name}",
            approvers=APPROVERS if several else (),
            quorum=2 if several else 1,
            allow_self=not several,
        )
    options = [Option(name, {**payload, "of": name}, key=occurrence) for name in option_names(habits.options)]
    ctx.suspend_any(options, timeout=timeout, on_timeout=stand_in)


def _seen(habits: Habits, ctx: StepContext[Any, Any, Any], value: Json, answer: str) -> Json:
    """Everything around the step, as one JSON value."""
    found = ctx.get_step_result(habits.looks_at) if habits.looks_at else None
    shared = [seen_in(ctx.state, "last"), seen_in(ctx.state, "count")]
    shared += [ctx.request_context.get("mark"), ctx.request_context.get(answer)]
    return [number(value, found), number(ctx.init_data, *shared), ctx.iteration, ctx.index]


def _spoil(habits: Habits, value: Json) -> None:
    """Change the input in place, as careless authors do; nobody else may notice."""
    if habits.spoils_input and isinstance(value, list):
        value.append("spoiled")
    elif habits.spoils_input and isinstance(value, dict):
        value["spoiled"] = True


def _note(habits: Habits, ctx: StepContext[Any, Any, Any], key: str, answered: int, mood: int) -> None:
    """Write into the state, and tell progress."""
    if habits.alone:
        following: Json = {"last": key, "count": seen_in(ctx.state, "count") + 1}
        ctx.set_state(Shared(**following) if isinstance(ctx.state, BaseModel) else following)
    ctx.set_state({f"{key}@{answered}": mood})
    if habits.emits:
        ctx.emit({"answered": answered, "mood": mood})


def _mark(habits: Habits, ctx: StepContext[Any, Any, Any], key: str, mood: int) -> None:
    """Change or remove the shared mark in the request context."""
    if not habits.alone:
        return
    if mood % 4 == 0:
        ctx.request_context.pop("mark", None)
    else:
        ctx.request_context["mark"] = key


def _kept(effects: Effects, key: str) -> int:
    effects.once[key] += 1
    return number(key, "kept")


def _shaped(mood: int, rest: Json) -> Json:
    """A value of some type, ``None`` and falsy ones among them."""
    result = number(mood, rest)
    values: list[Json] = [result, {"v": result}, [result, mood], str(result), None, 0, False, ""]
    return values[mood % len(values)]
