"""What a decision is made of: the actions that are asked for, and what a node, or a whole run, has come to.

Values alone; ``decide.py`` makes them, the runner performs them, the session acts on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from flowcore.authoring.graph import Graph, Node
from flowcore.keys import Scope, StepKey
from flowcore.model import Json, Lapse, RunStatus, StepFailure, StepRecord

# -- what is asked for ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an action stands: its key and node, and the workflow around it with that workflow's key and input."""

    key: StepKey
    node: Node
    graph: Graph
    home: Scope
    init: Json


@dataclass(frozen=True, slots=True)
class RunStep:
    """Call a step with ``value``; ``prior`` is what it left behind when it suspended or failed before."""

    place: Place
    value: Json
    prior: StepRecord | None


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Call what a map, a branch's conditions, a sleep's length or an event's key are made of; commit what comes out."""

    place: Place
    value: Json


@dataclass(frozen=True, slots=True)
class Enter:
    """Open a container: check what goes in, find out its concurrency."""

    place: Place
    value: Json


@dataclass(frozen=True, slots=True)
class Advance:
    """A loop's turn is done with ``value``: evaluate the condition, go on or leave."""

    place: Place
    value: Json
    turn: int


@dataclass(frozen=True, slots=True)
class Leave:
    """Close a container with what its nodes came to; ``scope`` is the one that is never loaded again."""

    place: Place
    result: Done | Ended | Broken
    scope: Scope


@dataclass(frozen=True, slots=True)
class Gather:
    """Look after the children of a distributed foreach: start those that should be open, see what they have done."""

    place: Place
    value: Json


@dataclass(frozen=True, slots=True)
class TimeOut:
    """The deadline of the suspension ``wait`` has passed: settle it, unless an answer is faster."""

    place: Place
    wait: str
    lapse: Lapse | None = None
    instead: str | None = None
    """The stand-in that is to run here from now on."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Workers die of this place again and again: fail it."""

    place: Place
    deaths: int


@dataclass(frozen=True, slots=True)
class Doubt:
    """A worker that is gone has begun this step, which runs at most once: fail it, for nobody knows how far it came."""

    place: Place


Action: TypeAlias = RunStep | Evaluate | Enter | Advance | Leave | Gather | TimeOut | GiveUp | Doubt


@dataclass(frozen=True, slots=True)
class Run:
    """Do these now; those already under way are among them."""

    actions: tuple[Action, ...]
    retry: datetime | None
    """When a failed step's next try begins; other pauses are long enough to park for."""


@dataclass(frozen=True, slots=True)
class Park:
    """Nothing to do now. WAITING until ``wake``, JOINING, or SUSPENDED, perhaps with a deadline at ``wake``."""

    status: RunStatus
    wake: datetime | None
    retry: datetime | None
    """When the next retry begins: waiting a moment for it may be cheaper than parking."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The run has come to its end with this; ``Ended``: it is a child whose work nobody wants any more."""

    result: Done | Broken | Ended


Decision: TypeAlias = Run | Park | Finish

# -- what a node has come to ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Done:
    """Finished; the value goes on to the next node."""

    value: Json


@dataclass(frozen=True, slots=True)
class Ended:
    """A step bailed out: the workflow around it ends here, successfully."""

    value: Json


@dataclass(frozen=True, slots=True)
class Broken:
    """Failed for good."""

    failure: StepFailure


@dataclass(frozen=True, slots=True)
class Live:
    """Something is ready, under way or asleep: it will move without being asked."""


@dataclass(frozen=True, slots=True)
class Held:
    """Only open suspensions are left: somebody must answer."""


Result: TypeAlias = Done | Ended | Broken | Live | Held
LIVE = Live()
HELD = Held()
