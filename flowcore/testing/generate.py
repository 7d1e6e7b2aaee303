"""Random workflows whose every step is a pure function, so that an oracle and a stormy engine can be held together.

A workflow is made from a seed alone. What a step does depends on its key, its input, the attempt and the answer it was
given, on nothing else. Where steps run side by side each writes keys of its own into the state; only where the order is
certain do steps share a key.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from flowcore.authoring.context import FunctionContext, StepContext
from flowcore.authoring.graph import Backoff
from flowcore.authoring.step import Step, create_step
from flowcore.authoring.workflow import Workflow, otherwise, workflow
from flowcore.codec import digest
from flowcore.model import Json
from flowcore.testing.oracle import Reply

_BACKOFFS = (
    Backoff(initial=timedelta(milliseconds=300), jitter=False),
    Backoff(initial=timedelta(seconds=1)),
    Backoff(initial=timedelta(minutes=2), jitter=False),
)


DEEPEST = 3
"""Workflows inside each other."""
CALM = 0.5
"""The share of samples in which nothing fails."""


class OutOfOrderError(Exception):
    """What a generated step fails with; carries the attempt, as an author's error would carry a code."""

    def __init__(self, key: str, attempt: int) -> None:
        super().__init__(f"{key} does not work")
        self.attempt = attempt


@dataclass(slots=True)
class Effects:
    """What the steps did to the outside world: calls by idempotency key."""

    calls: Counter[str] = field(default_factory=Counter)
    once: Counter[str] = field(default_factory=Counter)

    def clear(self) -> None:
        """Forget everything, for another run of the same workflow."""
        self.calls.clear()
        self.once.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One random workflow with an input for it, and the answers its suspensions get."""

    seed: int
    workflow: Workflow[Any, Any]
    input: Json
    effects: Effects
    timed: frozenset[str]
    """Steps (last ids) whose suspensions time out unanswered; never beside another one."""
    is_calm: bool
    """Whether nothing in it fails or bails: then the order of answers does not matter."""

    def answer(self, key: str, times: int) -> Reply:
        """The reply to the n-th suspension of the step at ``key``."""
        name = _name_of(key)
        if name in self.timed:
            return Reply(timed_out=True)
        return Reply(data={"times": times, "word": number(key, times) % 7})


def number(*parts: Json) -> int:
    """A number below 10,000 that depends on every part, the same on every machine."""
    return int(digest(list(parts))[:8], 16) % 10_000


def sample(seed: int, *, size: int = 8) -> Sample:
    """The random workflow of that seed, of about ``size`` entries."""
    return _Maker(random.Random(seed), size).sample(seed)  # repeatable on purpose


@dataclass(frozen=True, slots=True, kw_only=True)
class _Habits:
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
    looks_at: str | None
    keeps_once: bool
    spoils_input: bool


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where the next entry goes."""

    earlier: list[str]
    """Ids in the same workflow whose results may be asked for; grows."""
    depth: int
    alone: bool
    """Whether nothing else runs at the same time."""


class _Maker:
    def __init__(self, chance: random.Random, size: int) -> None:
        self.chance = chance
        self.left = size
        self.made = 0
        self.effects = Effects()
        self.timed: set[str] = set()
        self.is_calm = chance.random() < CALM

    def sample(self, seed: int) -> Sample:
        made = self.workflow(depth=0, alone=True)
        given = self.chance.choice([seed, {"n": seed}, [1, 2, 3], None, "text"])
        return Sample(
            seed=seed,
            workflow=made,
            input=given,
            effects=self.effects,
            timed=frozenset(self.timed),
            is_calm=self.is_calm,
        )

    def lucky(self, share: float) -> bool:
        """True in that share of all draws."""
        return self.chance.random() < share

    def fresh(self, kind: str) -> str:
        self.made += 1
        return f"{kind}{self.made}"

    def workflow(self, *, depth: int, alone: bool) -> Workflow[Any, Any]:
        builder: Any = workflow(
            self.fresh("w"), retries=self.chance.choice([0, 1]), backoff=self.chance.choice(_BACKOFFS)
        )
        earlier: list[str] = []
        for _ in range(self.chance.randint(1, 4 if depth == 0 else 2)):
            builder = self.entry(builder, _Spot(earlier, depth, alone))
        return builder.commit()  # type: ignore[no-any-return]  # the builder is untyped here

    def entry(self, builder: Any, spot: _Spot) -> Any:
        """The builder with one more entry of a random kind."""
        self.left -= 1
        simple: list[Callable[[Any, _Spot], Any]] = [self.then, self.then, self.map, self.sleep]
        nested: list[Callable[[Any, _Spot], Any]] = [self.parallel, self.branch, self.loop, self.foreach, self.nested]
        kinds = simple if self.left <= 0 or spot.depth >= DEEPEST else simple + nested
        return self.chance.choice(kinds)(builder, spot)

    def body(self, spot: _Spot) -> Step[Any, Any, Any, Any]:
        """What stands in an arm, a loop or a foreach: a step, or a workflow."""
        if self.left > 0 and spot.depth < DEEPEST and self.lucky(0.35):
            return self.workflow(depth=spot.depth + 1, alone=spot.alone)
        return self.step(spot.earlier, alone=spot.alone)

    # -- the kinds --------------------------------------------------------------------------------------------------

    def then(self, builder: Any, spot: _Spot) -> Any:
        made = self.step(spot.earlier, alone=spot.alone)
        spot.earlier.append(made.id)
        return builder.then(made)

    def nested(self, builder: Any, spot: _Spot) -> Any:
        made = self.workflow(depth=spot.depth + 1, alone=spot.alone)
        spot.earlier.append(made.id)
        return builder.then(made)

    def map(self, builder: Any, spot: _Spot) -> Any:
        name = self.fresh("m")
        fails = not self.is_calm and self.lucky(0.05)
        sources: dict[str, Any] = {"c": {"value": name}, "i": {"init_data": ""}, "s": {"state": ""}}
        sources["f"] = {"fn": lambda value: number(name, value)}
        if spot.alone and not fails and self.lucky(0.4):
            spot.earlier.append(name)
            return builder.map(sources, id=name)

        def mapped(value: Json, ctx: FunctionContext) -> Json:
            if fails and number(name, value) % 2:
                raise OutOfOrderError(name, 0)
            return {"map": number(name, value, ctx.init_data, ctx.state.get("last"))}

        spot.earlier.append(name)
        return builder.map(mapped, id=name)

    def sleep(self, builder: Any, spot: _Spot) -> Any:  # every kind is asked alike
        name, seconds = self.fresh("z"), self.chance.choice([-1.0, 0.4, 5.0, 600.0, 40_000.0, 2_000_000.0])
        if self.lucky(0.5):
            return builder.sleep(timedelta(seconds=seconds), id=name)
        return builder.sleep(lambda value: timedelta(seconds=seconds + number(name, value) % 3), id=name)

    def parallel(self, builder: Any, spot: _Spot) -> Any:
        arms = [self.body(replace(spot, alone=False)) for _ in range(self.chance.randint(2, 3))]
        made = builder.parallel(*arms, id=self.fresh("p"))
        spot.earlier.extend([arm.id for arm in arms])
        return made

    def branch(self, builder: Any, spot: _Spot) -> Any:
        name = self.fresh("b")
        arms = [self.body(replace(spot, alone=False)) for _ in range(self.chance.randint(1, 3))]
        pairs: list[Any] = [(self.condition(f"{name}-{arm.id}"), arm) for arm in arms]
        if self.lucky(0.7):
            pairs.append((otherwise, self.body(spot)))
        return builder.branch(*pairs, id=name)

    def condition(self, name: str) -> Callable[[Json], bool]:
        fails = not self.is_calm and self.lucky(0.03)

        def holds(value: Json) -> bool:
            if fails:
                raise OutOfOrderError(name, 0)
            return number(name, value) % 2 == 0

        return holds

    def loop(self, builder: Any, spot: _Spot) -> Any:
        body, name, turns = self.body(spot), self.fresh("l"), self.chance.randint(1, 4)

        def over(value: Json, ctx: FunctionContext) -> bool:
            assert ctx.iteration is not None  # a loop's condition is always told its turn
            return ctx.iteration >= turns or number(name, value, ctx.iteration) % 5 == 0

        async def goes_on(value: Json, ctx: FunctionContext) -> bool:
            return not over(value, ctx)

        spot.earlier.append(name)
        self.rename(body, name)
        if self.lucky(0.5):
            return builder.dountil(body, over, id=name)
        return builder.dowhile(body, goes_on, id=name)

    def foreach(self, builder: Any, spot: _Spot) -> Any:
        slots, listing, name = self.chance.choice([0, 1, 2, 3]), self.fresh("i"), self.fresh("f")
        count = self.chance.randint(0, 4)
        body = self.body(replace(spot, alone=spot.alone and slots <= 1))
        concurrency: Any = slots if self.lucky(0.5) else (lambda _: slots)
        items = builder.map(lambda value: [number(listing, value, index) for index in range(count)], id=listing)
        spot.earlier.extend([listing, name])
        self.rename(body, name)
        return items.foreach(body, concurrency=concurrency, id=name)

    def rename(self, body: Step[Any, Any, Any, Any], name: str) -> None:
        """The body of a loop or a foreach is known by the entry's id."""
        if body.id in self.timed:
            self.timed.add(name)

    # -- steps ------------------------------------------------------------------------------------------------------

    def step(self, earlier: list[str], *, alone: bool) -> Step[Any, Any, Any, Any]:
        chance, name, stormy = self.chance, self.fresh("s"), not self.is_calm
        suspends = chance.choice([1, 1, 2]) if self.lucky(0.25) else 0
        habits = _Habits(
            name=name,
            alone=alone,
            flaky=chance.choice([1, 2]) if self.lucky(0.2) else 0,
            is_broken=stormy and self.lucky(0.1),
            bails=stormy and self.lucky(0.1),
            suspends=suspends,
            is_timed=alone and suspends > 0 and self.lucky(0.3),
            looks_at=chance.choice(earlier) if earlier and self.lucky(0.5) else None,
            keeps_once=self.lucky(0.3),
            spoils_input=self.lucky(0.3),
        )
        if habits.is_timed:
            self.timed.add(name)
        run = _behaviour(habits, self.effects)

        def plain(value: Json, ctx: StepContext[Any, Any, Any]) -> Json:
            return run(value, ctx)

        async def on_loop(value: Json, ctx: StepContext[Any, Any, Any]) -> Json:
            return run(value, ctx)

        chosen = on_loop if self.lucky(0.1) else plain
        return create_step(id=name, execute=chosen, retries=max(habits.flaky, chance.choice([0, 0, 1])), input=Any)


def _behaviour(habits: _Habits, effects: Effects) -> Callable[[Json, StepContext[Any, Any, Any]], Json]:
    """The function of a generated step."""

    def run(value: Json, ctx: StepContext[Any, Any, Any]) -> Json:
        key = ctx.idempotency_key
        effects.calls[key] += 1
        seen = _seen(habits, ctx, value)
        _spoil(habits, value)
        mood = number(key, seen)
        answered = ctx.resume_data["times"] if ctx.resume_data else 0
        if habits.alone:
            ctx.set_state({"last": key, "count": ctx.state.get("count", 0) + 1})
        ctx.set_state({f"{key}@{answered}": mood})
        if ctx.attempt <= habits.flaky or (habits.is_broken and mood % 2):
            raise OutOfOrderError(habits.name, ctx.attempt)
        if habits.keeps_once:
            seen = [seen, ctx.once("kept", lambda: _kept(effects, key))]
        if answered < habits.suspends and not ctx.timed_out:
            timeout = timedelta(days=400) if habits.is_timed else None
            ctx.suspend({"asks": mood}, timeout=timeout, label=f"label-{habits.name}")
        _mark(habits, ctx, key, mood)
        if habits.bails and mood % 3 == 0:
            ctx.bail({"bailed": mood})
        return _shaped(mood, [seen, ctx.attempt, ctx.resume_data, ctx.suspend_data, ctx.timed_out])

    return run


def _seen(habits: _Habits, ctx: StepContext[Any, Any, Any], value: Json) -> Json:
    """Everything around the step, as one JSON value."""
    found = ctx.get_step_result(habits.looks_at) if habits.looks_at else None
    shared = [ctx.state.get("last"), ctx.state.get("count"), ctx.request_context.get("mark")]
    return [number(value, found), number(ctx.init_data, *shared), ctx.iteration, ctx.index]


def _spoil(habits: _Habits, value: Json) -> None:
    """Change the input in place, as careless authors do; nobody else may notice."""
    if habits.spoils_input and isinstance(value, list):
        value.append("spoiled")
    elif habits.spoils_input and isinstance(value, dict):
        value["spoiled"] = True


def _mark(habits: _Habits, ctx: StepContext[Any, Any, Any], key: str, mood: int) -> None:
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


def _name_of(key: str) -> str:
    """The last id of a key."""
    return key.rsplit("/", 1)[-1].split("[", 1)[0].split("#", 1)[0]
