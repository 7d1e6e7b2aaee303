"""A run as its users see it, folded from head and records: steps by dotted id, open waits, state. Never stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias, assert_never

from flowcore.authoring.graph import (
    BranchNode,
    ForeachNode,
    Graph,
    LoopNode,
    NestedNode,
    Node,
    ParallelNode,
    SleepNode,
)
from flowcore.core.actions import Run
from flowcore.core.admit import is_abandoned, open_waits
from flowcore.core.compat import conflict
from flowcore.core.decide import decide
from flowcore.core.seats import Seat, seat_for
from flowcore.keys import (
    ROOT,
    Scope,
    StepKey,
    dotted,
    inside,
    is_once,
    is_pass,
    item_of,
    parents_of,
    path_of,
    turn_number,
    turn_of,
    turns_of,
)
from flowcore.model import Json, Outcome, RunStatus, Snapshot, StepFailure, StepRecord, Wait

StepStatus: TypeAlias = Literal["running", "waiting", "suspended", "success", "failed", "canceled", "skipped", "bailed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What became of one step; values are plain JSON, times UTC; ``attempts`` counts tries since the last resume."""

    status: StepStatus
    input: Json = None
    output: Json = None
    error: StepFailure | None = None
    suspend_payload: Json = None
    resume_data: Json = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    attempts: int = 0
    iteration: int | None = None
    wake_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a distributed foreach is, as the workers of its items have told."""

    done: int
    """Items that have ended, whether well or badly."""
    failed: int
    """Those of them that have failed."""
    waiting: int
    """Items with an open suspension."""
    total: int


def progress(snapshot: Snapshot) -> dict[str, Progress]:
    """How far each distributed foreach is, by dotted id, in the last turn of its loops; reads nothing of items."""
    in_turn = sorted(snapshot.fans.items(), key=lambda fan: turns_of(fan[0]))
    return {
        dotted(key): Progress(done=len(fan.done), failed=len(fan.failed), waiting=len(fan.asking), total=fan.total)
        for key, fan in in_turn
    }


def steps(graph: Graph | None, snapshot: Snapshot) -> dict[str, StepResult]:
    """Every step the run has met, by dotted id, in the order of their last change; then those that run right now.

    Without a graph (the workflow is not served here) inputs are missing.
    """
    inside_of = _unrest(snapshot)
    flow = {} if graph is None else dict(inputs(graph, snapshot))
    found: dict[str, StepResult] = {}
    settled_last = sorted(snapshot.records.values(), key=lambda record: (record.seq, record.key))
    for record in settled_last:
        if not is_once(record.key):
            turn = _turn(graph, record)
            found[dotted(record.key)] = _result(record, flow.get(record.key), snapshot, inside_of, turn)
    if graph is not None and snapshot.head.status is RunStatus.RUNNING and _is_understood(graph, snapshot):
        decision = decide(graph, snapshot, snapshot.head.updated_at)
        for action in decision.actions if isinstance(decision, Run) else ():
            found.setdefault(
                dotted(action.place.key), StepResult(status="running", input=flow.get(action.place.key), attempts=1)
            )
    return found


def _is_understood(graph: Graph, snapshot: Snapshot) -> bool:
    """Whether the workflow at hand can say what comes next in a run that may be driven under an earlier one."""
    return snapshot.head.definition == graph.fingerprint or conflict(graph, snapshot) is None


def waits(snapshot: Snapshot) -> list[Wait[Json]]:
    """The open suspensions, oldest first."""
    return [Wait.of(snapshot.head, record) for record in open_waits(snapshot)]


def waits_for(snapshot: Snapshot, by: str, now: datetime) -> list[Wait[Json]]:
    """The open suspensions that ``by`` may answer now, and has not answered yet."""
    head = snapshot.head
    return [
        Wait.of(head, record) for record in open_waits(snapshot) if isinstance(seat_for(head, record, by, now), Seat)
    ]


def suspended(snapshot: Snapshot) -> list[list[str]]:
    """The paths of the open suspensions; the items of one foreach are one path."""
    paths: list[list[str]] = []
    for record in open_waits(snapshot):
        path = [part.split("[", 1)[0] for part in path_of(record.key)]
        if path not in paths:
            paths.append(path)
    return paths


def has_unloaded(snapshot: Snapshot, graph: Graph) -> bool:
    """Whether a finished container's inside is not among the records at hand."""
    known = {container for key in snapshot.records for container in parents_of(key)}
    for record in snapshot.records.values():
        node = None if is_once(record.key) else graph.find(dotted(record.key))
        if isinstance(node, (LoopNode, ForeachNode)) and is_pass(record.key):
            node = node.body
        if node is None or not record.is_settled or record.outcome is Outcome.SKIP:
            continue
        if isinstance(node, (LoopNode, ForeachNode, NestedNode)) and record.key not in known:
            return True
    return False


def _turn(graph: Graph | None, record: StepRecord) -> int | None:
    """The loop turn that a record belongs to, or that the loop itself is at; a foreach counts its slots instead."""
    if record.count is None or (graph is not None and isinstance(graph.find(dotted(record.key)), ForeachNode)):
        return turn_number(record.key)
    return record.count


def _result(
    record: StepRecord,
    flow: Json,
    snapshot: Snapshot,
    inside_of: Mapping[StepKey, set[Outcome]],
    turn: int | None,
) -> StepResult:
    status = _status(record, snapshot, inside_of)
    ended = record.is_settled or status == "success"
    return StepResult(
        status=status,
        input=flow,
        output=record.output
        if record.outcome in (Outcome.OK, Outcome.BAIL)
        else (flow if status == "success" else None),
        error=record.failure,
        suspend_payload=record.shown,
        resume_data=record.answer.data if record.answer else None,
        started_at=record.started_at,
        ended_at=(record.until if record.outcome is Outcome.SLP else record.at) if ended else None,
        attempts=record.attempt,
        iteration=turn,
        wake_at=record.until if status == "waiting" else None,
    )


def _status(record: StepRecord, snapshot: Snapshot, inside_of: Mapping[StepKey, set[Outcome]]) -> StepStatus:
    canceled = snapshot.head.status is RunStatus.CANCELED
    match record.outcome:
        case Outcome.OK:
            return "success"
        case Outcome.BAIL:
            return "bailed"
        case Outcome.ERR:
            return "failed"
        case Outcome.SKIP:
            return "skipped"
        case Outcome.SLP if record.until is not None and record.until <= snapshot.head.updated_at:
            return "success"
        case _ if canceled:
            return "canceled"
        case Outcome.SUSP:
            return "suspended"
        case Outcome.SLP | Outcome.RETRY:
            return "waiting"
        case Outcome.RESU:
            return "running"
        case Outcome.START:
            return _inside_status(inside_of.get(record.key, set()))
        case _:
            assert_never(record.outcome)


def _inside_status(outcomes: set[Outcome]) -> StepStatus:
    """An open container is what its inside is: suspended, waiting, else running."""
    if Outcome.SUSP in outcomes:
        return "suspended"
    return "waiting" if outcomes & {Outcome.SLP, Outcome.RETRY} else "running"


def _unrest(snapshot: Snapshot) -> Mapping[StepKey, set[Outcome]]:
    """By container, what holds up the records inside it; what is over or was left behind holds up nothing."""
    found: dict[StepKey, set[Outcome]] = {}
    for record in snapshot.records.values():
        over = record.outcome is Outcome.SLP and record.until and record.until <= snapshot.head.updated_at
        if record.outcome not in (Outcome.SUSP, Outcome.SLP, Outcome.RETRY) or over:
            continue
        if not is_abandoned(snapshot, record.key):
            for container in parents_of(record.key):
                found.setdefault(container, set()).add(record.outcome)
    return found


# -- what went into each node -----------------------------------------------------------------------------------------


def inputs(graph: Graph, snapshot: Snapshot) -> Iterator[tuple[StepKey, Json]]:
    """The value that reached each node of the run, as far as records tell."""
    return _inputs(graph, ROOT, snapshot.head.input, snapshot)


def _inputs(graph: Graph, home: Scope, value: Json, snapshot: Snapshot) -> Iterator[tuple[StepKey, Json]]:
    """The value that reached each node of a scope, as far as records tell."""
    for node in graph.nodes:
        yield from _input_of(node, inside(home, node.id), home, value, snapshot)
        passed, value = passed_on(node, home, value, snapshot)
        if not passed:
            return


def _input_of(node: Node, key: StepKey, home: Scope, value: Json, snapshot: Snapshot) -> Iterator[tuple[StepKey, Json]]:
    record = snapshot.records.get(key)
    if not isinstance(node, ParallelNode):
        yield key, value
    match node:
        case ParallelNode() | BranchNode():
            arms = node.arms if isinstance(node, ParallelNode) else _chosen(node, record)
            for arm in arms:
                yield from _input_of(arm, inside(home, arm.id), home, value, snapshot)
        case NestedNode():
            given = record.output if record is not None and record.outcome is Outcome.START else value
            yield from _inputs(node.graph, Scope(key), given, snapshot)
        case LoopNode() if record is not None:
            turn = turn_of(key, record.count or 1)
            if record.outcome is Outcome.START:
                yield from _input_of(node.body, turn, home, record.output, snapshot)
        case ForeachNode() if isinstance(value, list):
            for index, item in enumerate(value):
                yield from _input_of(node.body, item_of(key, index), home, item, snapshot)
        case _:
            pass


def passed_on(node: Node, home: Scope, value: Json, snapshot: Snapshot) -> tuple[bool, Json]:
    """Whether the next node was reached, and with which value."""
    if isinstance(node, ParallelNode):
        records = {arm.id: snapshot.records.get(inside(home, arm.id)) for arm in node.arms}
        if any(record is None or not record.is_settled for record in records.values()):
            return False, None
        return True, _by_name(node, records, value)
    record = snapshot.records.get(inside(home, node.id))
    if record is None:
        return False, None
    if isinstance(node, SleepNode) or record.outcome is Outcome.SKIP:
        return True, value
    if isinstance(node, BranchNode):
        arms = {arm.id: snapshot.records.get(inside(home, arm.id)) for arm in _chosen(node, record)}
        if any(arm is None or not arm.is_settled for arm in arms.values()):
            return False, None
        return True, _by_name(node, arms, value)
    return record.outcome is Outcome.OK, record.output


def _by_name(node: ParallelNode | BranchNode, arms: Mapping[str, StepRecord | None], value: Json) -> Json:
    """What the arms gave, by name; one that was skipped lets pass what stands in front."""
    return {
        node.names.get(id, id): value if arm.outcome is Outcome.SKIP else arm.output
        for id, arm in arms.items()
        if arm is not None
    }


def _chosen(node: BranchNode, record: StepRecord | None) -> list[Node]:
    if record is None or not isinstance(record.output, list):
        return []
    return [arm for arm in node.nodes if arm.id in record.output]
