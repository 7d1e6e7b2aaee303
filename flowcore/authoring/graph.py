"""The compiled workflow: a frozen tree of nodes. Made by ``compile.py``, walked by ``core/decide.py``.

Every node has an id that is unique in its scope, and the two shapes between which it stands: ``takes`` is what its
functions receive, ``gives`` what the next node finds. Functions and shapes are opaque here; only the runner calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from flowcore.model import Lapse

if TYPE_CHECKING:
    from flowcore.authoring.step import Step
    from flowcore.codec import Shape


Durability: TypeAlias = Literal["step", "boundary"]
"""``step``: each outcome is stored before the next step begins. ``boundary``: all of them when the run stops."""

CENTURY = timedelta(days=36_525)
"""The longest time that can be asked for: nobody waits so long, and what is written down must lie before year 9999."""

MOST_OPEN = 1_000_000
"""Items of one foreach that are open at a time, whatever ``concurrency`` says: more than a stored list can have."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between the tries of a step: exponential with full jitter, never above ``maximum``.

    Example:
        >>> from datetime import timedelta
        >>> Backoff(initial=timedelta(seconds=1), maximum=timedelta(minutes=5)).factor
        2.0
    """

    initial: timedelta = timedelta(milliseconds=200)
    factor: float = 2.0
    maximum: timedelta = timedelta(minutes=15)
    jitter: bool = True

    @staticmethod
    def of(given: Backoff | timedelta) -> Backoff:
        """What an author wrote as ``backoff=``: the pause before the second try, or all of it.

        A first pause longer than the usual maximum is meant, and raises it.
        """
        if isinstance(given, Backoff):
            return given
        return Backoff(initial=given, maximum=max(given, Backoff().maximum))

    @property
    def is_usable(self) -> bool:
        """Whether every pause it can come to is one: no time below 0 or above a century, a factor from 0."""
        times: tuple[Any, ...] = (self.initial, self.maximum)
        factor: Any = self.factor
        are_times = all(isinstance(time, timedelta) and timedelta(0) <= time <= CENTURY for time in times)
        return are_times and isinstance(factor, (int, float)) and 0 <= factor < float("inf")


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and for which exceptions a step is tried again: ``retries`` more times after the first."""

    retries: int = 0
    backoff: Backoff = Backoff()
    on: tuple[type[BaseException], ...] = (Exception,)
    never_on: tuple[type[BaseException], ...] = ()


@dataclass(frozen=True, slots=True)
class Function:
    """A function the author wrote: takes the value, or the value and the context."""

    call: Callable[..., Any]
    takes_context: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the author wants called when a run begins, suspends or ends; ``None``: nothing."""

    on_start: Callable[[Any], Any] | None = None
    on_suspend: Callable[[Any], Any] | None = None
    on_finish: Callable[[Any], Any] | None = None
    on_error: Callable[[Any], Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepNode:
    """One step."""

    id: str
    step: Step[Any, Any, Any, Any]
    retry: Retry
    takes: Shape[Any]
    gives: Shape[Any]
    description: str = ""
    stand_ins: Mapping[str, StepNode] = field(default_factory=dict)
    """By id, what may run in its place when nobody has answered in time; each gives what the step gives."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MapNode:
    """A function from the value to the next value; or one source per key of a dict."""

    id: str
    source: Function | Mapping[str, Source]
    takes: Shape[Any]
    gives: Shape[Any]
    description: str = ""


@dataclass(frozen=True, slots=True)
class Constant:
    """``{"value": x}``: plain JSON."""

    value: Any


@dataclass(frozen=True, slots=True)
class StepPath:
    """``{"step": s, "path": "a.b"}``: from the first of these steps that succeeded."""

    steps: tuple[str, ...]
    path: str


@dataclass(frozen=True, slots=True)
class ScopePath:
    """``{"init_data" | "state" | "request_context": "a.b"}``."""

    scope: str
    path: str


@dataclass(frozen=True, slots=True)
class Template:
    """``{"template": "Order ${init_data.id}"}``: literal parts and places in turn."""

    parts: tuple[str | ScopePath | StepPath, ...]


Source: TypeAlias = Constant | StepPath | ScopePath | Template | Function


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SleepNode:
    """A pause of a length, or until an instant; either fixed or computed once, when it is reached."""

    id: str
    pause: timedelta | datetime | Function
    until: bool
    takes: Shape[Any]
    gives: Shape[Any]
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EventNode:
    """Waits for an event of a name and a key; gives its data. The key is fixed, or computed once, on arrival here."""

    id: str
    event: str
    key: str | Function
    timeout: timedelta | None
    takes: Shape[Any]
    gives: Shape[Any]
    data: Shape[Any]
    """What an event must fit; what the entry gives may be something else as well, where none comes in time."""
    description: str = ""
    lapse: Lapse = field(default_factory=lambda: Lapse(None))
    """What becomes of it when no event comes in time."""
    stand_ins: Mapping[str, StepNode] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ParallelNode:
    """All arms at once with the same value; gives a dict keyed by arm id."""

    id: str
    arms: tuple[Node, ...]
    takes: Shape[Any]
    gives: Shape[Any]
    description: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    """By id of an arm the key of its output, where they differ: the arm was renamed since a run has met it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BranchNode:
    """Every arm whose condition is true, at once; ``otherwise`` when none is. Gives a dict keyed by arm id."""

    id: str
    arms: tuple[tuple[Function, Node], ...]
    otherwise: Node | None
    takes: Shape[Any]
    gives: Shape[Any]
    description: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    """As of ``ParallelNode``."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every arm, ``otherwise`` last."""
        arms = tuple(node for _, node in self.arms)
        return (*arms, self.otherwise) if self.otherwise else arms


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoopNode:
    """The body again and again, its output the next turn's input; at least once."""

    id: str
    body: StepNode | NestedNode
    condition: Function
    until: bool
    """True: stop when the condition is true. False: go on while it is true."""
    takes: Shape[Any]
    gives: Shape[Any]
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ForeachNode:
    """The body once per item of a list; gives the list of outputs in the items' order."""

    id: str
    body: StepNode | NestedNode
    concurrency: int | Function
    tolerated: int | float
    """How many items may fail, each giving None: a count, or a share of the items below 1."""
    min_successful: int | float | None = None
    """How many items must succeed: a count, or a share of the items below 1."""
    distributed: bool = False
    """Whether runs of their own, which other workers drive, see to the items."""
    shard: int | None = None
    """How many items one such run sees to; None: as few as makes sense."""
    takes: Shape[Any]
    gives: Shape[Any]
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NestedNode:
    """A committed workflow as a step of another."""

    id: str
    graph: Graph
    takes: Shape[Any]
    gives: Shape[Any]
    description: str = ""


Node: TypeAlias = (
    StepNode | MapNode | SleepNode | EventNode | ParallelNode | BranchNode | LoopNode | ForeachNode | NestedNode
)
Body: TypeAlias = StepNode | NestedNode


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Graph:
    """A compiled workflow; never changes. ``by_id`` finds each entry of this scope, arms included."""

    id: str
    nodes: tuple[Node, ...]
    takes: Shape[Any]
    gives: Shape[Any]
    state: Shape[Any]
    request_context: Shape[Any]
    fingerprint: str
    description: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    by_id: Mapping[str, Node] = field(default_factory=dict)
    hooks: Hooks = Hooks()
    """Of runs of this workflow; no part of the fingerprint, and not called where it is a step of another."""
    retention: timedelta | None = None
    """How long its ended runs are kept; no part of the fingerprint. None: as the App says."""
    fans_out: bool = False
    """Whether it, or a workflow inside it, has a distributed foreach."""
    former: Mapping[str, str] = field(default_factory=dict)
    """Ids that entries had before, with those they have now."""
    gone: frozenset[str] = frozenset()
    """Ids of entries that were removed on purpose: a run that has met one goes on without."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Other names of entries, with their ids here."""
    durability: Durability = "step"
    """When outcomes of its runs become durable; no part of the fingerprint, and nothing to whom it is a step of."""

    def called_at(self, path: str) -> Node | None:
        """The node at a dotted path; of a loop or foreach, which share it with their body, the body."""
        node = self.find(path)
        return node.body if isinstance(node, (LoopNode, ForeachNode)) else node

    def acting_at(self, path: str, instead: str | None) -> Node | None:
        """The node that is called at a dotted path; ``instead``: the stand-in that has taken its place."""
        node = self.called_at(path)
        return node if instead is None or not isinstance(node, (StepNode, EventNode)) else stand_in(node, instead)

    def find(self, path: str) -> Node | None:
        """The node at a dotted path (``child.approve``); item numbers (``fan[7]``) are ignored."""
        graph, node = self, None
        for name in path.split("."):
            if node is not None:
                inner = node.body if isinstance(node, (LoopNode, ForeachNode)) else node
                if not isinstance(inner, NestedNode):
                    return None
                graph = inner.graph
            node = graph.by_id.get(name.split("[", 1)[0])
            if node is None:
                return None
        return node

    def place_of(self, path: str) -> str:
        """The dotted path of a record, as it is here: one pass of a loop or foreach may know an old name, one a new."""
        return path if self.find(path) is not None else self.called_here(path)

    def called_here(self, path: str) -> str:
        """The dotted path with every name that an entry had before, or has got since, as its id is here."""
        graph: Graph | None = self
        names = []
        for part in path.split("."):
            name, bracket, item = part.partition("[")
            if graph is not None and name not in graph.by_id:
                name = graph.aliases.get(name, name)
            node = None if graph is None else graph.by_id.get(name)
            inner = node.body if isinstance(node, (LoopNode, ForeachNode)) else node
            graph = inner.graph if isinstance(inner, NestedNode) else None
            names.append(f"{name}{bracket}{item}")
        return ".".join(names)


def stand_in(node: StepNode | EventNode, instead: str) -> StepNode | None:
    """The stand-in of that name, or of a stand-in behind it; None where the code at hand no longer has it."""
    found: StepNode | EventNode | None = node
    for name in instead.split(":"):
        found = None if found is None else found.stand_ins.get(name)
    return found if isinstance(found, StepNode) else None


def slots_of(wanted: float) -> int:
    """How many items of a foreach may be open at a time: a whole number from 1, whatever number was asked for."""
    return int(min(max(wanted, 1), MOST_OPEN)) if wanted == wanted else 1  # noqa: PLR0124  # NaN alone differs


def entries(nodes: tuple[Node, ...]) -> Iterator[Node]:
    """Every node that has a key in the scope of ``nodes``: themselves and, of parallel and branch, the arms."""
    for node in nodes:
        yield node
        match node:
            case ParallelNode():
                yield from entries(node.arms)
            case BranchNode():
                yield from entries(node.nodes)
            case _:
                pass


def fans_out(node: Node) -> bool:
    """Whether the node is, or has inside, a distributed foreach."""
    match node:
        case ForeachNode():
            return node.distributed or fans_out(node.body)
        case LoopNode():
            return fans_out(node.body)
        case NestedNode():
            return node.graph.fans_out
        case _:
            return False
