"""What can be wrong with a workflow as a whole: its names, its size, its depth, the types at its doors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, get_args

from flowcore.authoring.definition import Definition
from flowcore.authoring.graph import (
    CENTURY,
    BranchNode,
    Durability,
    EventNode,
    ForeachNode,
    LoopNode,
    MapNode,
    NestedNode,
    Node,
    ParallelNode,
    StepNode,
    entries,
)
from flowcore.codec import Shape
from flowcore.errors import Mistake
from flowcore.keys import is_entry_id

MOST_ENTRIES = 5_000
"""Entries of one workflow, nested ones included: a larger graph is data, and belongs into a foreach or a loop."""
LONGEST_SORT_KEY = 1_024
"""Bytes. Source: Amazon DynamoDB Developer Guide, "Quotas", sort key length."""
DEEPEST = 50
"""Nested workflows inside each other: every level is a scope that a wake reads, and a frame of the walk."""


def mistakes_of(definition: Definition, nodes: tuple[Node, ...]) -> Iterator[Mistake]:
    """What is wrong with its id and options, and with its entries taken together."""
    if not is_entry_id(definition.id):
        what = f"{definition.id!r} cannot be a workflow id; use 1-64 ASCII letters, digits, '_' or '-'"
        yield Mistake(str(definition.id), what)
    yield from (Mistake(definition.id, what) for what in definition.options.mistakes)
    if not definition.entries:
        yield Mistake(definition.id, "has no entries; add at least one, for instance .then(step)")
    retention = definition.options.retention
    if retention is not None and not timedelta(0) < retention <= CENTURY:
        what = f"keeps its runs for {retention}; retention= must be positive, at most a century, or left out for ever"
        yield Mistake(definition.id, what)
    if definition.options.durability not in get_args(Durability):
        what = f"durability={definition.options.durability!r} is none of {', '.join(get_args(Durability))}"
        yield Mistake(definition.id, what)
    for id, count in Counter(node.id for node in entries(nodes)).items():
        if count > 1:
            yield Mistake(
                id, f"is used {count} times in this workflow; give the others an id= or use step.clone(id=...)"
            )
    size, depth = _extent(nodes)
    if size > MOST_ENTRIES:
        yield Mistake(definition.id, f"has {size} entries with those nested in it; at most {MOST_ENTRIES} are allowed")
    if depth > DEEPEST:
        yield Mistake(definition.id, f"nests workflows {depth} deep; at most {DEEPEST} are allowed")
    elif (longest := _longest_sort_key(nodes)) > LONGEST_SORT_KEY:
        yield Mistake(
            definition.id,
            f"nests so deep, with ids so long, that the sort key of a step in it has {longest} bytes; at most "
            f"{LONGEST_SORT_KEY} fit: shorten the ids",
        )
    yield from _unadaptable(definition, nodes)


def mistaken_history(definition: Definition, by_id: Mapping[str, Node], former: Mapping[str, str]) -> Iterator[Mistake]:
    """What is wrong with the names that entries had before."""
    known = ", ".join(map(repr, by_id)) or "none"
    for old, new in former.items():
        if new not in by_id:
            yield Mistake(str(old), f"is said to be renamed to {new!r}, which is no entry; entries: {known}")
    for id, count in Counter([old for old, _ in definition.renames] + list(definition.removals)).items():
        if not is_entry_id(id):
            yield Mistake(str(id), f"{id!r} was never an id; use 1-64 ASCII letters, digits, '_' or '-'")
        if id in by_id:
            yield Mistake(id, "is said to be renamed or removed, and is an entry; a run could not tell them apart")
        if count > 1:
            yield Mistake(str(id), f"is said {count} times to be renamed or removed; say it once")


def _unadaptable(definition: Definition, nodes: tuple[Node, ...]) -> Iterator[Mistake]:
    """Types pydantic can make nothing of."""
    options = definition.options
    doors: list[tuple[str, str, Shape[Any]]] = [
        (definition.id, door, shape)
        for door, shape in (
            ("input", options.input),
            ("output", options.output),
            ("state", options.state),
            ("request context", options.request_context),
        )
    ]
    for node in entries(nodes):
        inner = node.body if isinstance(node, (LoopNode, ForeachNode)) else node
        if isinstance(inner, StepNode):
            step = inner.step
            named = {
                "input": step.input,
                "output": step.output,
                "resume": step.resume,
                "suspend": step.suspend,
                "state": step.state,
                "request context": step.request_context,
            }
            doors += [(inner.id, door, shape) for door, shape in named.items()]
        if isinstance(node, (ParallelNode, BranchNode, MapNode, EventNode)):
            doors.append((node.id, "result", node.gives))
    for where, door, shape in doors:
        try:
            _ = shape.adapter
        except TypeError as error:
            yield Mistake(
                where,
                f"its {door} type {shape.type!r} cannot be validated: {error} Use a pydantic model, a dataclass, a "
                "TypedDict or types of plain JSON",
            )


def _extent(nodes: tuple[Node, ...]) -> tuple[int, int]:
    """How many entries there are with all nested ones, and how deep workflows nest."""
    size, depth = 0, 0
    for node in entries(nodes):
        inner = node.body if isinstance(node, (LoopNode, ForeachNode)) else node
        size += 1
        if isinstance(inner, NestedNode):
            inner_size, inner_depth = _extent(inner.graph.nodes)
            size, depth = size + inner_size, max(depth, inner_depth + 1)
    return size, depth


def _longest_sort_key(nodes: tuple[Node, ...], prefix: int = 0) -> int:
    """Bytes of the longest sort key a record can have: life, scope and key; ``prefix`` is the length of the scope."""
    longest = 0
    for node in entries(nodes):
        key = prefix + len(node.id)
        scope = max(prefix - 1, 0)
        inner: Node = node
        if isinstance(node, LoopNode):
            key += len("#1000000")
            inner, scope = node.body, key
        elif isinstance(node, ForeachNode):
            inner, scope = node.body, key
            key += len("[100000]")
        longest = max(longest, len("S#1000000##") + scope + key)
        if isinstance(inner, NestedNode):
            longest = max(longest, _longest_sort_key(inner.graph.nodes, key + 1))
    return longest
