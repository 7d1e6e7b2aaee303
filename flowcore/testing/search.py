"""A workflow in every state that it can get into while a few people and workers meet over it.

``explore`` lets one thing go wrong in one order; ``search`` tries all orders in which workers, answers, cancels, events
and time can meet, step by step, with deaths and with workers that freeze and go on later. How it looks at one state is
told in ``flowcore.testing.space``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import KW_ONLY, dataclass, replace
from datetime import timedelta
from typing import Any, TypeAlias

from flowcore.authoring.workflow import Workflow, WorkflowBuilder
from flowcore.codec import Shape, digest
from flowcore.core.evolve import fold
from flowcore.core.rename import as_met
from flowcore.engine import Engine
from flowcore.errors import RequestError
from flowcore.model import Head, Sent, Topic
from flowcore.ports import Records
from flowcore.results import RunResult, result_of
from flowcore.testing.replay import RUN, Player, answers, cancels, sends
from flowcore.testing.space import BEGIN, TICK, Found, Scenario, Space

_KEPT = timedelta(days=3650)
"""Longer than any search looks ahead."""
_ANYTHING: Shape[Any] = Shape(Any)


@dataclass(frozen=True, slots=True)
class Answer:
    """Somebody answers a suspension, under the name that he has among the players."""

    data: Any = None
    """Must fit the step's resume type."""
    _: KW_ONLY
    step: str | None = None
    """Dotted id of the step that is suspended; left out: the only one that is."""
    drives: bool = False
    """Whether he drives the run on himself, as an App without a queue does; otherwise a worker does."""


@dataclass(frozen=True, slots=True)
class Event:
    """Another system tells what has happened, as ``app.send_event`` does."""

    name: str
    key: str
    data: Any = None
    _: KW_ONLY
    drives: bool = False
    """Whether it drives the run on itself."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Somebody cancels the run."""


Part: TypeAlias = Answer | Event | Cancel


class Trouble(AssertionError):  # it is named in tests as what it is
    """There is a state that must not be; the message tells the shortest way there.

    Attributes:
        found: what the search has come to: ``found.violation`` says what is wrong, ``found.way`` how it came to that.
    """

    def __init__(self, found: Found) -> None:
        super().__init__(str(found))
        self.found = found


def search(
    workflow: Workflow[Any, Any] | WorkflowBuilder[Any, Any, Any],
    input: Any = None,
    *,
    players: Mapping[str, Part] | None = None,
    right: Callable[[RunResult[Any]], bool] | None = None,
    state: Mapping[str, Any] | None = None,
    request_context: Mapping[str, Any] | None = None,
    is_parked: bool = False,
    workers: int = 2,
    looks: int = 2,
    deaths: int = 1,
    ticks: int = 1,
    tick: timedelta = TICK,
    most: int = 100_000,
) -> Found:
    """Look at every state that a run of ``workflow`` with ``input`` can get into, the nearest first.

    Whoever takes part does one thing at a time: one call to the store. Between two of them anybody else may do any
    number, or he is never heard of again. In every state the rules in ``flowcore.testing.invariants.INVARIANTS`` hold,
    whoever was told that his answer is applied finds it stored, every end is a ``right`` one, and if everybody dropped
    dead, the sweeper and others who answer as the players do would bring the run to a right end.

    Steps, conditions and hooks are called very often, and must do the same each time: what they do outside is to be
    played by something that depends on their input alone. Their log is silent meanwhile. Whether effects bear being
    repeated is for ``explore`` to find out.

    Args:
        players: who takes part besides workers, by name; each begins once, at any time. A run that waits for an answer
            that none of them gives is stuck.
        right: whether a run may have ended like this; asked of those that succeed or fail, not of those that are
            canceled. Left out, a run has to succeed.
        state, request_context: as ``run.start`` takes them.
        is_parked: begin where a worker has already brought the run to where it first waits, which saves many states.
        workers: how many workers there may be at once.
        looks: how often a worker comes without being asked to. Those that are asked to may be among them or never come.
        deaths: how many of all of them may die.
        ticks: how often ``tick`` passes.
        tick: a pause longer than any lease. As long as a deadline or a sleep, it lets answers meet what comes then.
        most: how many states are looked at. ``found.is_cut`` says that there are more.

    Raises: Trouble, with the shortest way into it. ``flowcore.testing.replay.Unsteady``, a ValueError, when a step did
        not do the same again. ValueError for a workflow with a distributed foreach, whose items are runs of their own.
        InvalidPayload when ``input`` or ``state`` does not fit.

    Example:
        >>> from flowcore import StepContext, step, workflow
        >>> from flowcore.testing import Answer, Cancel, search
        >>> @step
        ... def approve(amount: int, ctx: StepContext[bool]) -> int:
        ...     if ctx.resume_data is None:
        ...         ctx.suspend()
        ...     return amount if ctx.resume_data else 0
        >>> flow = workflow("pay", input=int, output=int).then(approve).commit()
        >>> players = {"ada": Answer(True), "boss": Cancel()}
        >>> found = search(flow, 5, players=players, right=lambda result: result.output == 5, is_parked=True, looks=1)
        >>> found.states > 1000, found.is_cut
        (True, False)
    """
    committed = workflow.commit() if isinstance(workflow, WorkflowBuilder) else workflow
    graph = committed.compiled
    if graph.fans_out:
        raise ValueError(
            f"Workflow {graph.id!r} has a distributed foreach, whose items are runs of their own; search looks at one "
            "run. Leave out distributed=True for the search, or use explore."
        )

    def is_right(head: Head, records: Records) -> bool:
        result = result_of(*as_met(graph, fold(head, records.values())))
        return result.status == "success" if right is None else right(result)

    parts = players or {}
    others = [_player(name, part, committed) for name, part in parts.items()]
    scenario = Scenario(
        name=graph.id,
        workflow=committed,
        input=input,
        state=state,
        request_context=request_context,
        others=others,
        right=is_right,
        answer=lambda engine: _has_moved(engine, parts, others),
        is_parked=is_parked,
        workers=workers,
        looks=looks,
        deaths=deaths,
        ticks=ticks,
        tick=tick,
    )
    with quiet():
        found = Space(scenario).search(most)
    if found.violation is not None:
        raise Trouble(found)
    return found


def _player(name: str, part: Part, workflow: Workflow[Any, Any]) -> Player:
    match part:
        case Answer(data, step=step, drives=drives):
            plain = _ANYTHING.accept(f"resume data of {name!r}", data)
            return Player(name, answers(plain, name, step=step, here=drives), workflow)
        case Event(drives=drives):
            sent = _sent(name, part)
            return Player(name, sends(sent, here=drives), workflow, sends=(sent.topic, sent.id))
        case Cancel():
            return Player(name, cancels, workflow)


def _sent(id: str, event: Event) -> Sent:
    plain = _ANYTHING.accept(f"data of event {event.name!r}", event.data)
    topic = Topic(RUN.tenant, event.name, event.key)
    return Sent(topic=topic, id=id, data=plain, digest=digest(plain), at=BEGIN, until=BEGIN + _KEPT)


def _has_moved(engine: Engine, parts: Mapping[str, Part], players: Sequence[Player]) -> bool:
    """Whether somebody could move the run by doing what one of the players would have done, and has done so."""
    for player in players:
        before = engine.peek(RUN).version
        with suppress(RequestError):
            _done_again(engine, parts[player.name], player)
        if engine.peek(RUN).version != before:
            return True
    return False


def _done_again(engine: Engine, part: Part, player: Player) -> None:
    """What the player would have done, by somebody else. Raises: RequestError."""
    match part:
        case Answer():
            player.deed(engine)
        case Event():
            sent = _sent(player.name, part)
            count = len(engine.store.mail(sent.topic, BEGIN).events)
            fresh = replace(sent, id=f"{player.name} {count}")  # an id that none of them has
            sends(fresh, here=False)(engine)
        case Cancel():
            pass  # nobody has to


@contextmanager
def quiet() -> Iterator[None]:
    """No log of steps that fail: they do so some thousand times, and nobody reads it."""
    logger = logging.getLogger("flowcore")
    was = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(was)
