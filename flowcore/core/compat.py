"""Does the code at hand still fit what a run has done? Judged by ids and kinds, never by positions.

A run keeps the fingerprint of the workflow it last moved under. When today's differs, every committed key must still
name a place of the same kind; then today's definition is adopted, and steps inserted or removed elsewhere concern
nobody: what was inserted in front of the reached position is skipped, what was inserted behind it runs. Otherwise the
run stands still with a reason instead of taking a wrong step.
"""

from __future__ import annotations

from collections.abc import Iterator

from flowcore.authoring.graph import (
    BranchNode,
    EventNode,
    ForeachNode,
    Graph,
    LoopNode,
    NestedNode,
    Node,
    ParallelNode,
    SleepNode,
    StepNode,
    entries,
)
from flowcore.core.fan import shard_of
from flowcore.keys import ROOT, Scope, StepKey, dotted, inside, is_once, is_pass, scope_of, turn_of
from flowcore.model import Outcome, Snapshot, StepRecord
from flowcore.parcels import nearby


def conflict(graph: Graph, snapshot: Snapshot) -> str | None:
    """Why ``graph`` cannot take the run over, naming the first step that does not fit; None when it can."""
    for record in sorted(snapshot.records.values(), key=lambda record: record.seq):
        if is_once(record.key):
            continue
        place = dotted(record.key)
        node = graph.find(graph.place_of(place))
        if node is None:
            return (
                f"step {place!r} has been reached by this run ({record.outcome.value}), but workflow {graph.id!r} "
                "no longer has it; deploy a version that keeps the step, or says what became of it (.renamed or "
                ".removed), or cancel the run"
            )
        if shard_of(record) is not None and not (isinstance(node, ForeachNode) and node.distributed):
            return (
                f"{place!r} is a distributed foreach under way, and other runs see to its items; deploy a version that "
                "keeps distributed=True until it is over, or cancel the run"
            )
        if not _fits(record, node):
            return f"{place!r} was of another kind when this run reached it; give the new entry another id"
        if (branch := _unmet_branch(graph, snapshot, record, node)) is not None:
            return (
                f"{place!r} was no arm of {branch!r} when this run reached it, and that branch might not choose it; "
                "give the arm another id"
            )
        if (missing := _missing(graph, record)) is not None:
            return (
                f"step {missing!r} was to run in the place of {place!r}, which no longer declares it; deploy a version "
                "that has it among the stand_ins=, or cancel the run"
            )
    return None


def _missing(graph: Graph, record: StepRecord) -> str | None:
    """The stand-in that a record still needs and that is gone, by its dotted names; None when there is none."""
    lapse = record.terms.lapse if record.outcome is Outcome.SUSP and record.terms is not None else None
    named = [*([] if record.instead is None else [record.instead[0]]), *([lapse.step] if lapse and lapse.step else [])]
    wanted = ":".join(named)
    if record.is_settled or not wanted or graph.acting_at(graph.place_of(dotted(record.key)), wanted) is not None:
        return None
    return wanted


def _fits(record: StepRecord, node: Node) -> bool:
    """Whether ``node`` can go on from what ``record`` says, or take it as its outcome.

    A loop or foreach shares its id with its body, but not its key: what a body leaves stands at that of a pass.
    """
    if record.instead is not None and isinstance(node, EventNode):
        return True
    inner = node.body if is_pass(record.key) and isinstance(node, (LoopNode, ForeachNode)) else node
    match record.outcome:
        case Outcome.SLP:
            return isinstance(node, SleepNode)
        case Outcome.SUSP if record.listens is not None:
            return isinstance(node, EventNode)
        case Outcome.SUSP | Outcome.RESU | Outcome.RETRY:
            return isinstance(inner, StepNode)
        case Outcome.START if record.count is None and isinstance(inner, NestedNode):
            # In a turn of a loop it opens no scope of its own, as a step does. It makes no tries; a step counts from 0.
            return record.opens is not None or record.attempt > 0
        case Outcome.START if record.count is None and isinstance(inner, StepNode):
            # One that runs at most once. Where it has tries behind it, another record was there before this one.
            return record.opens is None and (record.attempt == 0 or record.gen > 0)
        case Outcome.START if record.count is None:
            return False
        case Outcome.START:
            is_foreach = record.opens is None or record.opens == Scope(record.key)
            return isinstance(node, ForeachNode if is_foreach else LoopNode)
        case Outcome.OK if isinstance(node, BranchNode):
            return isinstance(nearby(record).output, list)  # the arms that were chosen
        case _:
            return not isinstance(node, ParallelNode)


def _unmet_branch(graph: Graph, snapshot: Snapshot, record: StepRecord, node: Node) -> str | None:
    """The branch that has this place as an arm, if the run has never come to it; None when all is well.

    Which arms it chooses is not known, so what was done in one might be passed over, or the outcome be another one.
    """
    if is_pass(record.key):
        return None
    around = graph.called_at(graph.place_of(dotted(record.key)).rpartition(".")[0])
    inner = around.graph if isinstance(around, NestedNode) else graph
    for branch in entries(inner.nodes):
        if isinstance(branch, BranchNode) and node in branch.nodes:
            return None if inside(scope_of(record.key), branch.id) in snapshot.records else branch.id
    return None


def overtaken(graph: Graph, snapshot: Snapshot) -> Iterator[StepKey]:
    """Entries of ``graph`` that the run has never met, in front of one it has reached: to be skipped."""
    yield from _overtaken_in(graph, ROOT, snapshot)


def _overtaken_in(graph: Graph, home: Scope, snapshot: Snapshot) -> Iterator[StepKey]:
    reached = [position for position, node in enumerate(graph.nodes) if _is_reached(node, home, snapshot)]
    for node in graph.nodes[: max(reached, default=0)]:
        yield from _unmet(node, home, snapshot)
    for position in reached:
        yield from _overtaken_inside(graph.nodes[position], home, snapshot)


def _is_reached(node: Node, home: Scope, snapshot: Snapshot) -> bool:
    if isinstance(node, ParallelNode):
        return any(_is_reached(arm, home, snapshot) for arm in node.arms)
    return inside(home, node.id) in snapshot.records


def _unmet(node: Node, home: Scope, snapshot: Snapshot) -> Iterator[StepKey]:
    if isinstance(node, ParallelNode):
        for arm in node.arms:
            yield from _unmet(arm, home, snapshot)
    elif inside(home, node.id) not in snapshot.records:
        yield inside(home, node.id)


def _overtaken_inside(node: Node, home: Scope, snapshot: Snapshot) -> Iterator[StepKey]:
    """The same in the open scopes below ``node``."""
    if isinstance(node, (ParallelNode, BranchNode)):
        for arm in node.arms if isinstance(node, ParallelNode) else node.nodes:
            yield from _overtaken_inside(arm, home, snapshot)
        return
    key = inside(home, node.id)
    record = snapshot.records.get(key)
    if record is None or record.outcome is not Outcome.START:
        return
    if isinstance(node, NestedNode):
        yield from _overtaken_in(node.graph, Scope(key), snapshot)
    elif isinstance(node, LoopNode) and isinstance(node.body, NestedNode):
        yield from _overtaken_in(node.body.graph, Scope(turn_of(key, record.count or 1)), snapshot)
    elif isinstance(node, ForeachNode) and isinstance(node.body, NestedNode):
        for item in _open_items(key, snapshot):
            yield from _overtaken_in(node.body.graph, Scope(item), snapshot)


def _open_items(key: StepKey, snapshot: Snapshot) -> list[StepKey]:
    """Items at work; there may be gaps between them, where a sibling's worker died before its first record."""
    records = snapshot.records.values()
    return [record.key for record in records if record.outcome is Outcome.START and scope_of(record.key) == Scope(key)]
