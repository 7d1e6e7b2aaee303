"""A workflow as one run has met it: entries that were renamed since are called there what they were called then.

A run keeps its names for life: its records, the ids of its suspensions and its idempotency keys are made of them. So it
is not the run that follows a rename, but the graph that follows the run. What an author has declared to be removed is
not seen any more. Pure, and free for workflows of which nothing was renamed or removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache

from flowcore.authoring.graph import (
    Body,
    BranchNode,
    ForeachNode,
    Graph,
    LoopNode,
    NestedNode,
    Node,
    ParallelNode,
    entries,
)
from flowcore.errors import BlobLost
from flowcore.keys import StepKey, dotted, is_early, is_pass, parent_of, parents_of, scope_of, step_of, turn_of_pass
from flowcore.model import Outcome, Snapshot, StepRecord
from flowcore.pmap import PMap


def as_met(graph: Graph, snapshot: Snapshot) -> tuple[Graph, Snapshot]:
    """The workflow under the names by which the run knows it, and the run without what was declared to be removed."""
    if not _has_history(graph):
        return graph, snapshot
    kept = {key: record for key, record in snapshot.records.items() if not _is_gone(graph, _path_of(key))}
    if len(kept) < len(snapshot.records):
        snapshot = replace(snapshot, records=PMap(kept))
    return _named(graph, frozenset(_met(graph, snapshot)), ""), snapshot


def taken_along(
    snapshot: Snapshot, met: Snapshot, kept: Iterable[StepRecord], step: str | None = None
) -> list[StepRecord]:
    """What of a run was declared to be removed and a new life keeps for the changes of state that were made there.

    Args:
        snapshot: as it stands in the store.
        met: the same as the workflow of today sees it.
        kept: what the new life begins with of that.
        step: where it begins, by dotted id; None where what has failed goes on. What was removed has no place any more,
            but what came behind the step was written after it.
    """
    if len(met.records) == len(snapshot.records):
        return []
    ids = [] if step is None else step.split(".")
    places = [StepKey("/".join(ids[:depth])) for depth in range(1, len(ids) + 1)]
    begun = {scope_of(key): met.records[key] for key in places if key in met.records}
    stays = {record.key for record in kept}

    def lasts(record: StepRecord) -> bool:
        beginning = begun.get(scope_of(record.key))
        is_behind = beginning is not None and beginning.is_settled and beginning.seq < record.seq
        return not is_behind and all(container in stays for container in parents_of(record.key))

    gone = (record for key, record in snapshot.records.items() if key not in met.records)
    return [record for record in gone if record.is_settled and record.delta and lasts(record)]


@lru_cache(maxsize=256)
def _has_history(graph: Graph) -> bool:
    nested = (inner.graph for node in entries(graph.nodes) if isinstance(inner := _inner(node), NestedNode))
    return bool(graph.former or graph.gone) or any(map(_has_history, nested))


def _inner(node: Node) -> Node:
    return node.body if isinstance(node, (LoopNode, ForeachNode)) else node


def _path_of(key: StepKey) -> tuple[str, ...]:
    """The names on the way to a place, without the numbers of items and turns."""
    return tuple(name.split("[", 1)[0] for name in dotted(step_of(key)).split("."))


def _below(graph: Graph, name: str) -> Graph | None:
    """The workflow inside the entry that has this name, or had it."""
    node = graph.by_id.get(graph.former.get(name, name))
    inner = None if node is None else _inner(node)
    return inner.graph if isinstance(inner, NestedNode) else None


def _is_gone(graph: Graph, path: tuple[str, ...]) -> bool:
    inside: Graph | None = graph
    for name in path:
        if inside is None:
            return False
        if name in inside.gone:
            return True
        inside = _below(inside, name)
    return False


def _met(graph: Graph, snapshot: Snapshot) -> Iterator[str]:
    """The places, as dotted ids, whose last name is one that was given up."""
    for record in snapshot.records.values():
        if _is_left_behind(snapshot, record.key):
            continue
        path = _path_of(_meant_by(record))
        inside: Graph | None = graph
        around: Graph = graph
        for depth, name in enumerate(path, start=1):
            if inside is None:
                break
            if name in inside.former:
                yield ".".join(path[:depth])
            around, inside = inside, _below(inside, name)
        # A branch may have chosen an arm that has not left a record yet.
        if record.outcome is Outcome.OK and isinstance(around.find(path[-1]), BranchNode):
            chosen = record.output if isinstance(record.output, list) else []
            yield from (".".join((*path[:-1], arm)) for arm in chosen if arm in around.former)


def _meant_by(record: StepRecord) -> StepKey:
    """The place that a record is about: of an answer that came early its step, unless what was said is lost."""
    if is_early(record.key):
        with suppress(BlobLost):
            return StepKey(record.output["step"])
    return record.key


def _is_left_behind(snapshot: Snapshot, key: StepKey) -> bool:
    """Whether a place is in a turn or an item that is over, of a loop or foreach that goes on.

    Only who reads the whole run meets it. The next turn knows the name of today, and so has everybody to.
    """
    for around in parents_of(key):
        record, holder = snapshot.records.get(around), snapshot.records.get(parent_of(around))
        if not is_pass(around) or holder is None or holder.outcome is not Outcome.START:
            continue
        turn = turn_of_pass(around)
        if turn != holder.count if turn is not None else record is not None and record.is_settled:
            return True
    return False


@lru_cache(maxsize=1024)
def _named(graph: Graph, met: frozenset[str], prefix: str) -> Graph:
    """The same workflow with the names of ``met``, which stands at ``prefix`` in the run."""
    if not met:
        return graph
    old = {new: former for former, new in graph.former.items() if f"{prefix}{former}" in met}
    nodes = tuple(_as_called(node, old, met, prefix) for node in graph.nodes)
    aliases = {former: old.get(new, new) for former, new in graph.former.items()} | old
    by_id = {node.id: node for node in entries(nodes)}
    return replace(graph, nodes=nodes, by_id=by_id, former={}, aliases={a: id for a, id in aliases.items() if a != id})


def _as_called(node: Node, old: dict[str, str], met: frozenset[str], prefix: str) -> Node:
    id = old.get(node.id, node.id)
    match node:
        case ParallelNode():
            arms = tuple(_as_called(arm, old, met, prefix) for arm in node.arms)
            return replace(node, id=id, arms=arms, names=_new_names(old))
        case BranchNode():
            pairs = tuple((condition, _as_called(arm, old, met, prefix)) for condition, arm in node.arms)
            otherwise = node.otherwise and _as_called(node.otherwise, old, met, prefix)
            return replace(node, id=id, arms=pairs, otherwise=otherwise, names=_new_names(old))
        case LoopNode() | ForeachNode():
            return replace(node, id=id, body=_body_called(node.body, id, met, prefix))
        case NestedNode():
            return _body_called(node, id, met, prefix)
        case _:
            return replace(node, id=id)


def _body_called(body: Body, id: str, met: frozenset[str], prefix: str) -> Body:
    if isinstance(body, NestedNode):
        return replace(body, id=id, graph=_named(body.graph, met, f"{prefix}{id}."))
    return replace(body, id=id)


def _new_names(old: dict[str, str]) -> dict[str, str]:
    """What the arms are called today: their outputs go on under these names, which the code at hand expects."""
    return {former: new for new, former in old.items()}
