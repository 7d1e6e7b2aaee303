"""Random workflows whose every step is a pure function, so that an oracle and a stormy engine can be held together.

A workflow is made from a seed alone, and a seed means the same workflow as long as ``GENERATOR`` is the same. Every
kind of entry is one method of the maker below, listed in ``_SIMPLE`` or ``_NESTED``: a new kind starts there and in the
oracle. What the steps do is in ``habits.py``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from flowcore.authoring.context import FunctionContext, StepContext
from flowcore.authoring.graph import Backoff
from flowcore.authoring.step import Step, create_step
from flowcore.authoring.workflow import Workflow, otherwise, workflow
from flowcore.model import Json
from flowcore.testing.habits import (
    Effects,
    Habits,
    OutOfOrderError,
    Shared,
    behaviour,
    number,
    option_names,
    seen_in,
)
from flowcore.testing.oracle import Reply

GENERATOR = 8
"""Raised whenever the same seed comes to mean another workflow or another storm: kept seeds name theirs."""

_BACKOFFS = (
    Backoff(initial=timedelta(milliseconds=300), jitter=False),
    Backoff(initial=timedelta(seconds=1)),
    Backoff(initial=timedelta(minutes=2), jitter=False),
)
_SIMPLE = ("then", "then", "then", "clone", "map", "map_keys", "sleep", "sleep_until", "event")
_NESTED = ("parallel", "branch", "loop", "foreach", "nested", "nested_twice")

EARLY = "early"
DEEPEST = 3
"""Workflows inside each other."""
CALM = 0.5
"""The share of samples in which nothing fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One random workflow with an input for it, and the answers its suspensions get."""

    seed: int
    workflow: Workflow[Any, Any]
    input: Json
    effects: Effects
    timed: frozenset[str]
    """Steps and events (last ids) whose suspensions time out unanswered; never beside another one."""
    early: frozenset[str]
    """Events that may be sent before anybody waits for them, with the key ``EARLY``."""
    choosing: Mapping[str, int]
    """Steps (last ids) that wait for the first of so many things."""
    lonely: frozenset[str]
    """Steps (last ids) that run while nothing else does: their answers may change what all others read."""
    is_calm: bool
    """Whether nothing in it fails or bails: then the order of answers does not matter."""

    def answer(self, key: str, times: int) -> Reply:
        """The reply to the n-th suspension of the step at ``key``; the same for every item of a foreach."""
        name = name_of(key)
        if name in self.timed:
            return Reply(timed_out=True)
        if name.startswith("e"):
            return Reply(data={"v": number(name, "event")})
        data = {"times": times, "word": number(name, times) % 7}
        chosen, by_event = self._chosen(name, times)
        if by_event:
            return Reply(data=data, chosen=chosen, by_event=True)
        context: dict[str, Json] = {f"r/{key}@{times}": number(name, "context")}
        if name in self.lonely and number(name, times) % 2:
            context["mark"] = f"answered {times}"
        return Reply(data=data, context=context, chosen=chosen)

    def _chosen(self, name: str, times: int) -> tuple[str | None, bool]:
        """What comes first of the things that a step waits for, and whether an event brings it."""
        if name not in self.choosing:
            return None, False
        names = option_names(self.choosing[name])
        return names[number(name, times, "option") % len(names)], number(name, times, "way") % 2 == 0


def sample(seed: int, *, size: int = 8) -> Sample:
    """The random workflow of that seed, of about ``size`` entries."""
    return _Maker(random.Random(seed), size).sample(seed)  # repeatable on purpose


def name_of(key: str) -> str:
    """The last id of a key."""
    return key.rsplit("/", 1)[-1].split("[", 1)[0].split("#", 1)[0]


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where the next entry goes."""

    earlier: list[str]
    """Ids in the same workflow, and dotted ones in nested workflows, whose results may be asked for; grows."""
    mapped: list[str]
    """Those whose result is a dict with a key ``c``; grows."""
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
        self.choosing: dict[str, int] = {}
        self.lonely: set[str] = set()
        self.early: set[str] = set()
        self.insides: dict[str, list[str]] = {}
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
            early=frozenset(self.early),
            choosing=self.choosing,
            lonely=frozenset(self.lonely),
            is_calm=self.is_calm,
        )

    def lucky(self, share: float) -> bool:
        """True in that share of all draws."""
        return self.chance.random() < share

    def unlucky(self, share: float) -> bool:
        """True in that share of all draws, never in a calm sample."""
        return self.lucky(share) and not self.is_calm

    def fresh(self, kind: str) -> str:
        self.made += 1
        return f"{kind}{self.made}"

    def workflow(self, *, depth: int, alone: bool) -> Workflow[Any, Any]:
        retries, backoff = self.chance.choice([0, 1]), self.chance.choice(_BACKOFFS)
        state = Shared if self.lucky(0.3) else None
        builder: Any = workflow(self.fresh("w"), retries=retries, backoff=backoff, state=state)
        spot = _Spot([], [], depth, alone)
        for _ in range(self.chance.randint(1, 4 if depth == 0 else 2)):
            builder = self.entry(builder, spot)
        made: Workflow[Any, Any] = builder.commit()
        self.insides[made.id] = spot.earlier
        return made

    def entry(self, builder: Any, spot: _Spot) -> Any:
        """The builder with one more entry of a random kind."""
        self.left -= 1
        kinds = _SIMPLE if self.left <= 0 or spot.depth >= DEEPEST else _SIMPLE + _NESTED
        return getattr(self, self.chance.choice(kinds))(builder, spot)

    def body(self, spot: _Spot, *, trouble: float = 0.1) -> Step[Any, Any, Any, Any]:
        """What stands in an arm, a loop or a foreach: a step, or a workflow."""
        if self.left > 0 and spot.depth < DEEPEST and self.lucky(0.35):
            return self.workflow(depth=spot.depth + 1, alone=spot.alone)
        return self.step(spot.earlier, alone=spot.alone, trouble=trouble)

    # -- the kinds --------------------------------------------------------------------------------------------------

    def then(self, builder: Any, spot: _Spot) -> Any:
        made = self.step(spot.earlier, alone=spot.alone)
        spot.earlier.append(made.id)
        return builder.then(made)

    def clone(self, builder: Any, spot: _Spot) -> Any:
        """One definition in two places, under an id of its own in the second, or in the entry alone."""
        made, name = self.step(spot.earlier, alone=spot.alone), self.fresh("s")
        self.known_as(made, name)
        spot.earlier.extend([made.id, name])
        if self.lucky(0.5):
            return builder.then(made).then(made.clone(id=name))
        return builder.then(made).then(made, id=name)

    def nested(self, builder: Any, spot: _Spot) -> Any:
        made = self.workflow(depth=spot.depth + 1, alone=spot.alone)
        spot.earlier.extend([made.id, *(f"{made.id}.{inner}" for inner in self.insides[made.id])])
        return builder.then(made)

    def nested_twice(self, builder: Any, spot: _Spot) -> Any:
        """A workflow and its clone, one after the other or side by side."""
        beside, name = self.lucky(0.5), self.fresh("w")
        made = self.workflow(depth=spot.depth + 1, alone=spot.alone and not beside)
        spot.earlier.extend([made.id, name])
        if beside:
            return builder.parallel(made, made.clone(id=name), id=self.fresh("p"))
        return builder.then(made).then(made.clone(id=name))

    def map(self, builder: Any, spot: _Spot) -> Any:
        name, fails = self.fresh("m"), self.unlucky(0.05)

        def mapped(value: Json, ctx: FunctionContext) -> Json:
            if fails and number(name, value) % 2:
                raise OutOfOrderError(name, 0)
            return {"c": number(name, value, ctx.init_data, seen_in(ctx.state, "last"), ctx.iteration)}

        async def on_loop(value: Json, ctx: FunctionContext) -> Json:
            return mapped(value, ctx)

        spot.earlier.append(name)
        spot.mapped.append(name)
        return builder.map(on_loop if self.lucky(0.2) else mapped, id=name)

    def map_keys(self, builder: Any, spot: _Spot) -> Any:
        """One source per key, every kind of source among them."""
        name = self.fresh("m")
        sources: dict[str, Any] = {
            "c": {"value": name},
            "i": {"init_data": ""},
            "f": {"fn": lambda value: number(name, value)},
            "g": {"fn": lambda value, ctx: number(name, value, seen_in(ctx.state, "count"))},
            "o": {"request_context": "other"},
            "l": {"state": "last"},
            "t": {"template": self.template(spot)},
        }
        if spot.mapped:
            sources["p"] = {"step": self.chance.choice(spot.mapped), "path": "c"}
            candidates = self.chance.choices(spot.earlier, k=self.chance.randint(0, 3))
            sources["s"] = {"step": [*candidates, self.chance.choice(spot.mapped)]}
        elif self.unlucky(0.3) and spot.earlier:
            sources["s"] = {"step": [self.chance.choice(spot.earlier)], "path": self.chance.choice(["", "v", "1"])}
        if self.unlucky(0.1):
            sources["m"] = {"request_context": "mark"}
        if spot.alone and self.is_calm:  # what a stopped foreach had begun besides is a matter of timing
            sources["a"] = {"state": "."}
        kept = self.chance.sample(sorted(sources), k=self.chance.randint(1, len(sources)))
        spot.earlier.append(name)
        spot.mapped.append(name)
        return builder.map({key: sources[key] for key in sources if key in {*kept, "c"}}, id=name)

    def template(self, spot: _Spot) -> str:
        parts = ["plain", "${state.last}", "${request_context.other}"]
        parts += [f"${{{name}.c}}" for name in spot.mapped if "." not in name]
        if self.unlucky(0.2):
            parts.append(self.chance.choice(["${input_data}", "${init_data.n}", "${request_context.mark}"]))
        return " and ".join(self.chance.choices(parts, k=3))

    def sleep(self, builder: Any, spot: _Spot) -> Any:  # every kind is asked alike
        name, seconds = self.fresh("z"), self.chance.choice([-1.0, 0.4, 5.0, 600.0, 40_000.0, 2_000_000.0])
        fails = self.unlucky(0.05)

        def pause(value: Json) -> timedelta:
            if fails:
                raise OutOfOrderError(name, 0)
            return timedelta(seconds=seconds + number(name, value) % 3)

        return builder.sleep(pause if self.lucky(0.5) else timedelta(seconds=seconds), id=name)

    def sleep_until(self, builder: Any, spot: _Spot) -> Any:
        name = self.fresh("z")
        instant = datetime(2026, self.chance.choice([1, 1, 2, 6]), self.chance.randint(1, 3), 9, 0, 1, tzinfo=UTC)
        if self.lucky(0.5):
            return builder.sleep_until(instant, id=name)

        async def computed(value: Json, ctx: FunctionContext) -> datetime:
            return instant + timedelta(microseconds=number(name, value, ctx.iteration))

        return builder.sleep_until(computed, id=name)

    def event(self, builder: Any, spot: _Spot) -> Any:
        """One of several that wait for the same event takes it, so only where that makes no difference."""
        if not (spot.alone or self.is_calm):
            return self.then(builder, spot)
        name, is_timed = self.fresh("e"), spot.alone and self.lucky(0.2)
        spot.earlier.append(name)
        if is_timed:
            self.timed.add(name)
            given: list[Any] = [None, {"v": 1}, self.stand_in()]
            instead = self.chance.choice(given if self.is_calm else [*given, "fail"])
            return builder.wait_for_event(name, key=EARLY, timeout=timedelta(days=400), on_timeout=instead, id=name)
        if self.lucky(0.5):
            self.early.add(name)
            return builder.wait_for_event(name, key=EARLY, id=name)
        return builder.wait_for_event(name, key=lambda value: f"k{number(name, value) % 3}", id=name)

    def parallel(self, builder: Any, spot: _Spot) -> Any:
        arms = [self.body(replace(spot, alone=False)) for _ in range(self.chance.randint(2, 3))]
        into = dict[str, Any] if self.lucky(0.2) else None
        made = builder.parallel(*arms, id=self.fresh("p"), into=into)
        spot.earlier.extend([arm.id for arm in arms])
        return made

    def branch(self, builder: Any, spot: _Spot) -> Any:
        name = self.fresh("b")
        arms = [self.body(replace(spot, alone=False)) for _ in range(self.chance.randint(1, 3))]
        pairs: list[Any] = [(self.condition(f"{name}-{arm.id}"), arm) for arm in arms]
        if self.lucky(0.7):
            arms.append(self.body(spot))
            pairs.append((otherwise, arms[-1]))
        spot.earlier.extend([arm.id for arm in arms])
        return builder.branch(*pairs, id=name)

    def condition(self, name: str) -> Callable[..., Any]:
        fails = self.unlucky(0.03)

        def holds(value: Json) -> bool:
            if fails:
                raise OutOfOrderError(name, 0)
            return number(name, value) % 2 == 0

        async def with_context(value: Json, ctx: FunctionContext) -> bool:
            return holds([value, ctx.init_data, seen_in(ctx.state, "last"), ctx.request_context.get("other")])

        return with_context if self.lucky(0.3) else holds

    def loop(self, builder: Any, spot: _Spot) -> Any:
        body, name, turns = self.body(spot), self.fresh("l"), self.chance.randint(1, 4)
        fails = self.unlucky(0.05)

        def over(value: Json, ctx: FunctionContext) -> bool:
            assert ctx.iteration is not None  # a loop's condition is always told its turn
            if fails and ctx.iteration > 1:
                raise OutOfOrderError(name, ctx.iteration)
            return ctx.iteration >= turns or number(name, value, ctx.iteration) % 5 == 0

        async def goes_on(value: Json, ctx: FunctionContext) -> bool:
            return not over(value, ctx)

        spot.earlier.append(name)
        self.known_as(body, name)
        if self.lucky(0.5):
            return builder.dountil(body, over, id=name)
        return builder.dowhile(body, goes_on, id=name)

    def foreach(self, builder: Any, spot: _Spot) -> Any:
        slots, listing, name = self.chance.choice([0, 1, 2, 3]), self.fresh("i"), self.fresh("f")
        count, fails = self.chance.randint(0, 5), self.unlucky(0.05)
        distributed = self.lucky(0.3)
        body = self.body(replace(spot, alone=spot.alone and slots <= 1 and not distributed), trouble=0.4)

        def computed(items: list[Json], ctx: FunctionContext) -> float:
            if fails:
                raise OutOfOrderError(name, len(items))
            return slots + number(name, items, ctx.init_data) / 20_000

        items = builder.map(lambda value: [number(listing, value, index) for index in range(count)], id=listing)
        spot.earlier.extend([listing, name])
        self.known_as(body, name)
        options = {
            "concurrency": slots if self.lucky(0.5) else computed,
            "distributed": distributed,
            "shard": self.chance.choice([None, 1, 2, 3]) if distributed else None,
            "tolerated_failures": self.chance.choice([0, 0, 0, 1, 2, 0.5]),
            "min_successful": self.chance.choice([None, None, None, 1, 0.5]),
        }
        if self.is_calm and count == 0:  # too few items would be a failure
            options["min_successful"] = None
        return items.foreach(body, id=name, **options)

    def known_as(self, body: Step[Any, Any, Any, Any], name: str) -> None:
        """The body of a loop or a foreach, or a clone, is known by another id."""
        for names in (self.timed, self.lonely):
            if body.id in names:
                names.add(name)
        if body.id in self.choosing:
            self.choosing[name] = self.choosing[body.id]

    # -- steps ------------------------------------------------------------------------------------------------------

    def step(self, earlier: list[str], *, alone: bool, trouble: float = 0.1) -> Step[Any, Any, Any, Any]:
        chance, name = self.chance, self.fresh("s")
        suspends = chance.choice([1, 1, 2]) if self.lucky(0.25) else 0
        is_timed = alone and suspends > 0 and self.lucky(0.3)
        stand_in = self.stand_in() if is_timed and self.lucky(0.5) else None
        habits = Habits(
            name=name,
            alone=alone,
            flaky=chance.choice([1, 2]) if self.lucky(0.2) else 0,
            is_broken=self.unlucky(trouble),
            bails=self.unlucky(trouble),
            suspends=suspends,
            is_timed=is_timed,
            options=chance.choice([1, 2, 2, 3]) if suspends and self.lucky(0.4) else 0,
            stand_in=stand_in,
            looks_at=chance.choice(earlier) if earlier and self.lucky(0.5) else None,
            keeps_once=self.lucky(0.3),
            emits=self.lucky(0.1),
            spoils_input=self.lucky(0.3),
        )
        if habits.is_timed:
            self.timed.add(name)
        if habits.options:
            self.choosing[name] = habits.options
        if alone:
            self.lonely.add(name)
        given_up = [OutOfOrderError] if self.unlucky(0.1) else []
        retries = max(habits.flaky, chance.choice([0, 0, 1]))
        stand_ins = [] if stand_in is None else [stand_in]
        return self.with_habits(habits, retries=retries, no_retry_on=given_up, stand_ins=stand_ins)

    def stand_in(self) -> Step[Any, Any, Any, Any]:
        """What runs when nobody has answered in time; nothing else runs then."""
        flaky = self.chance.choice([0, 0, 1])
        habits = Habits(
            name=self.fresh("s"),
            alone=True,
            flaky=flaky,
            is_broken=self.unlucky(0.2),
            bails=self.unlucky(0.1),
            suspends=0,
            is_timed=False,
            looks_at=None,
            keeps_once=self.lucky(0.5),
            emits=self.lucky(0.2),
            spoils_input=self.lucky(0.3),
        )
        return self.with_habits(habits, retries=flaky)

    def with_habits(self, habits: Habits, **options: Any) -> Step[Any, Any, Any, Any]:
        """A step with these habits, as a plain function or as a coroutine."""
        run = behaviour(habits, self.effects)

        def plain(value: Json, ctx: StepContext[Any, Any, Any]) -> Json:
            return run(value, ctx)

        async def on_loop(value: Json, ctx: StepContext[Any, Any, Any]) -> Json:
            return run(value, ctx)

        chosen = on_loop if self.lucky(0.1) else plain
        return create_step(id=habits.name, execute=chosen, input=Any, **options)
