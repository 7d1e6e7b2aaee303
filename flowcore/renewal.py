"""A run as the types of today take it: values that were stored under older ones, migrated as they are read.

Only the values in this process change: nothing that is committed is written again. Also finds what fits no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from flowcore.authoring.graph import (
    EventNode,
    ForeachNode,
    Graph,
    LoopNode,
    MapNode,
    NestedNode,
    Node,
    StepNode,
    entries,
)
from flowcore.codec import Shape
from flowcore.core import view
from flowcore.core.admit import is_abandoned
from flowcore.core.alternatives import answered, each, is_replaced
from flowcore.core.evolve import Failed, state_at
from flowcore.errors import InvalidPayload
from flowcore.failures import Unread, read
from flowcore.keys import StepKey, dotted, is_once, is_pass
from flowcore.migrations import ANYTHING, NoWay, migrations_of, registered, renewed
from flowcore.model import Json, Outcome, Snapshot, StepRecord
from flowcore.options import answer_shape
from flowcore.parcels import replace

_WAITING = (Outcome.SUSP, Outcome.RESU, Outcome.RETRY)
_ADVICE = "declare a migration, or deploy a version that takes it"


class Outdated(Exception):
    """A stored value fits no more, and no migration leads to one that does. Never leaves this library."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """One stored value that the code at hand cannot read."""

    place: str
    """Dotted id of the step; of the workflow for its own input and state."""
    reason: str
    epoch: int
    """Under which lease it was stored."""


def renewed_snapshot(graph: Graph, snapshot: Snapshot) -> Snapshot:
    """The same run with every stored input and output as today's types take it. Raises: Outdated."""
    renewed, reasons = _renewed_snapshot(graph, snapshot)
    if reasons:
        raise reasons[0]
    return renewed


def renewed_where_possible(graph: Graph, snapshot: Snapshot) -> Snapshot:
    """The same, for whoever may leave behind what fits no more: that stays as it is."""
    return _renewed_snapshot(graph, snapshot)[0]


def _renewed_snapshot(graph: Graph, snapshot: Snapshot) -> tuple[Snapshot, list[Outdated]]:
    if not _migrates(graph, registered()):
        return snapshot, []
    head, records, reasons = snapshot.head, snapshot.records, list[Outdated]()
    for record in snapshot.records.values():
        try:
            after = renewed_record(graph, record)
        except Outdated as reason:
            reasons.append(reason)
            continue
        if after is not record:
            records = records.set(record.key, after)
    try:
        head = replace(head, input=_renewed(graph.takes, head.input, f"the input of workflow {graph.id!r}"))
    except Outdated as reason:
        reasons.append(reason)
    return replace(snapshot, head=head, records=records), reasons


def renewed_record(graph: Graph, record: StepRecord) -> StepRecord:
    """The record with its output as today's types take it; the same one if that changes nothing. Raises: Outdated."""
    if is_once(record.key) or not _migrates(graph, registered()):
        return record
    output = _output(graph, record)
    return record if output is record.output else replace(record, output=output)


def accepted_answer(shape: Shape[Any], subject: str, data: Json) -> Json:
    """What a caller sent, in today's form or in an older one: whoever answers may have been asked before a deploy.

    Raises: InvalidPayload, about today's form.
    """
    try:
        return shape.accept(subject, data)
    except InvalidPayload:
        if not migrations_of(shape):
            raise
        with suppress(Exception):  # the author's code on the way as well; told is why today's form does not fit
            return renewed(shape, ANYTHING.accept(subject, data))
        raise


def outdated(graph: Graph, snapshot: Snapshot, event: Failed) -> str | None:
    """Why a deploy, and not the author's mistake, has kept a place from being begun; None when it was not a deploy.

    What was stored fitted its own type when it was stored. If it does no more, and another worker has stored it, the
    type is another one.
    """
    match event.unread:
        case "no":
            return None
        case "surely":
            return f"{event.failure.message}; {_ADVICE}"
        case "perhaps":
            older = (misfit.reason for misfit in misfits(graph, snapshot) if misfit.epoch < snapshot.head.epoch)
            return next(older, None)


def is_step(graph: Graph, key: StepKey) -> bool:
    """Whether a single step stands there, and no container."""
    return isinstance(graph.called_at(dotted(key)) if is_pass(key) else graph.find(dotted(key)), StepNode)


def renewed_state(shape: Shape[Any], state: Json, workflow: str) -> Json:
    """The shared values as a type of today takes them. Raises: Outdated."""
    return _renewed(shape, state, f"the state of workflow {workflow!r}")


def misfits(graph: Graph, snapshot: Snapshot) -> Iterator[Misfit]:
    """What the run has stored and the code at hand cannot read, the oldest first; of what is over, outputs alone.

    Looks at everything a run keeps under a type: its input and state, outputs, and of a step that waits or is to be
    tried again what it was given, has shown and was answered.
    """
    head = snapshot.head
    yield from _misfit(graph.id, graph.takes, head.input, "input", 1)
    yield from _misfit(graph.id, graph.state, dict(state_at(snapshot, StepKey(""))), "state", 1)
    with suppress(Outdated):  # told below, one by one
        snapshot = renewed_snapshot(graph, snapshot)
    given = dict(view.inputs(graph, snapshot))
    for record in sorted(snapshot.records.values(), key=lambda record: record.seq):
        if is_once(record.key):
            continue
        place = dotted(record.key)
        if record.outcome in (Outcome.OK, Outcome.START):
            for shape, value in _stored(graph, record):
                what = "output" if record.outcome is Outcome.OK else "input"
                yield from _misfit(place, shape, value, what, record.epoch)
        node = graph.acting_at(place, None if record.instead is None else record.instead[0])
        if record.outcome in _WAITING and isinstance(node, StepNode) and not is_abandoned(snapshot, record.key):
            yield from _misfits_of_step(place, node, record, given.get(record.key))


def _misfits_of_step(place: str, node: StepNode, record: StepRecord, given: Json) -> Iterator[Misfit]:
    epoch, answer = record.epoch, record.answer
    yield from _misfit(place, node.step.input, record.given[0] if record.given else given, "input", epoch)
    for alone in each(record) if answer is None else [answered(record)]:
        takes = answer_shape(node, alone)
        if alone.payload is not None and not is_replaced(record):
            yield from _misfit(place, node.step.suspend, alone.payload, "suspend payload", epoch)
        for vote in alone.votes:
            yield from _misfit(place, takes, vote.data, "answer", epoch)
        if answer is not None and not answer.timed_out:
            yield from _misfit(place, takes, answer.data, "answer", epoch)


def _misfit(place: str, shape: Shape[Any], value: Json, what: str, epoch: int) -> Iterator[Misfit]:
    try:
        read(shape, value, f"{what} of {place!r}, as it was stored")
    except Unread as unread:
        yield Misfit(place, f"{unread.failure.message}; {_ADVICE}", epoch)


def _output(graph: Graph, record: StepRecord) -> Json:
    """What the record holds, renewed part by part where it holds the outputs of several items."""
    stored = list(_stored(graph, record))
    if not any(migrations_of(shape) for shape, _ in stored):
        return record.output
    what = f"what {dotted(record.key)!r} has stored"
    parts = [_renewed(shape, value, what) for shape, value in stored]
    if all(after is value for after, (_, value) in zip(parts, stored, strict=True)):
        return record.output
    return parts if _is_list_of_items(graph, record) else parts[0]


def _stored(graph: Graph, record: StepRecord) -> Iterator[tuple[Shape[Any], Json]]:
    """The values in a record's output, each with the door it came through; none where no door of the author's is."""
    place = dotted(record.key)
    node = graph.called_at(place) if is_pass(record.key) else graph.find(place)
    if record.outcome is Outcome.START:
        if isinstance(node, NestedNode):
            yield node.takes, record.output
        elif isinstance(node, LoopNode) and (record.count or 1) > 1:
            yield node.body.gives, record.output
    elif record.outcome is Outcome.OK and isinstance(node, (StepNode, NestedNode, EventNode, MapNode, LoopNode)):
        yield (node.body if isinstance(node, LoopNode) else node).gives, record.output
    elif _is_list_of_items(graph, record) and isinstance(node, ForeachNode):
        for item in record.output:
            yield (ANYTHING if item is None and node.tolerated else node.body.gives), item


def _is_list_of_items(graph: Graph, record: StepRecord) -> bool:
    is_foreach = not is_pass(record.key) and isinstance(graph.find(dotted(record.key)), ForeachNode)
    return is_foreach and record.outcome is Outcome.OK and isinstance(record.output, list)


def _renewed(shape: Shape[Any], value: Json, subject: str) -> Json:
    try:
        return renewed(shape, value)
    except NoWay as no_way:
        raise Outdated(f"{subject} does not fit any more, and {no_way}; {_ADVICE}") from no_way


@lru_cache(maxsize=256)
def _migrates(graph: Graph, count: int) -> bool:
    """Whether any value of a run of ``graph`` may have to be migrated; ``count``: of all migrations there are."""
    return count > 0 and _has_any(graph)


def _has_any(graph: Graph) -> bool:
    if any(migrations_of(shape) for shape in (graph.takes, graph.gives, graph.state)):
        return True
    return any(_node_has_any(node) for node in entries(graph.nodes))


def _node_has_any(node: Node) -> bool:
    inner = node.body if isinstance(node, (LoopNode, ForeachNode)) else node
    if isinstance(inner, NestedNode) and _has_any(inner.graph):
        return True
    return any(migrations_of(shape) for shape in (inner.takes, inner.gives))
