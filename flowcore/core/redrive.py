"""Going on with a run that has failed: which of its records the new life begins with.

Pure: reads a whole run, gives every record that it has, with what has failed made ready to be tried again. Whatever was
committed before stays: outputs, answers, stored side effects, changes of state. A run whose steps have all succeeded,
and which failed for another reason, keeps everything and comes to its end once more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeAlias

from flowcore.authoring.graph import BranchNode, ForeachNode, Graph, LoopNode, NestedNode, Node, ParallelNode, StepNode
from flowcore.core.fan import opening, shard_size
from flowcore.core.view import passed_on
from flowcore.keys import ROOT, Scope, StepKey, inside, is_early, item_of, parents_of, scope_of, turn_of
from flowcore.model import Head, Json, Outcome, Snapshot, StepRecord
from flowcore.parcels import replace

Taking: TypeAlias = Callable[[NestedNode, Json], Json]
"""A value as a nested workflow takes it for its input, with defaults filled in; as it is where it does not fit."""


def as_it_is(_: NestedNode, value: Json) -> Json:
    """The value, of which no type is asked anything."""
    return value


def redriven(graph: Graph, snapshot: Snapshot, now: datetime, taking: Taking = as_it_is) -> list[StepRecord]:
    """The records with which a failed run goes on, in the order in which they were written.

    A step that has failed is to be tried, with all its tries before it; it keeps the answer to its last suspension and
    an input that time travel gave it. A container that has failed is open again, and in it what has failed.

    Args:
        snapshot: with every record of the run.
        taking: what makes an input of the value before a nested workflow that is open again.
    """
    walk = _Walk(snapshot, now, taking)
    walk.scope(graph, ROOT, snapshot.head.input)
    return sorted(walk.kept.values(), key=lambda record: (record.seq, record.key))


class _Walk:
    """One walk over the tree, down into every container that is open or has failed."""

    def __init__(self, snapshot: Snapshot, now: datetime, taking: Taking) -> None:
        self.snapshot = snapshot
        self.now = now
        self.taking = taking
        self.kept: dict[StepKey, StepRecord] = {
            key: taken_over(record, snapshot.head, now) for key, record in snapshot.records.items()
        }
        self.entered = {container for key in snapshot.records if not is_early(key) for container in parents_of(key)}
        """Where something was done inside: an item given up with its child has a record that does not tell."""

    def scope(self, graph: Graph, home: Scope, value: Json) -> None:
        """The nodes of one workflow, as far as the run has come."""
        for entry in graph.nodes:
            node = self._as_known(graph, entry, home)
            self._node(graph, node, inside(home, node.id), home, value)
            has_passed, given = passed_on(node, home, value, self.snapshot)
            if has_passed:  # what a deploy has inserted since has no record, and will be skipped
                value = given

    def _as_known(self, graph: Graph, node: Node, home: Scope) -> Node:
        """An entry under the name it has in this scope: passes of a loop or foreach may know other ones."""
        names = (node.id, *(alias for alias, id in graph.aliases.items() if id == node.id))
        known = next((name for name in names if inside(home, name) in self.snapshot.records), node.id)
        return node if known == node.id else replace(node, id=known)

    def _node(self, graph: Graph, node: Node, key: StepKey, home: Scope, value: Json) -> None:
        if isinstance(node, (ParallelNode, BranchNode)):
            for each in node.arms if isinstance(node, ParallelNode) else node.nodes:
                arm = self._as_known(graph, each, home)
                self._node(graph, arm, inside(home, arm.id), home, value)
        record = self.snapshot.records.get(key)
        if record is None or record.outcome not in (Outcome.ERR, Outcome.START):
            return
        # A container that was never open has failed as it was entered; there is nothing in it to go on with. A step
        # that has begun, may begin once only and has not failed stays in doubt.
        was_open = record.outcome is Outcome.START or record.gen > 0 or key in self.entered
        if not isinstance(node, (NestedNode, LoopNode, ForeachNode)) or not was_open:
            if record.outcome is Outcome.ERR:
                self._begin_anew(node, record)
        elif isinstance(node, NestedNode):
            self._nested(node, record, value)
        elif isinstance(node, LoopNode):
            self._loop(graph, node, record, home, value)
        else:
            self._items(graph, node, record, home, value if isinstance(value, list) else ())

    def _begin_anew(self, node: Node, record: StepRecord) -> None:
        del self.kept[record.key]
        if isinstance(node, StepNode) or record.instead is not None:  # of an event: a step that runs in its place
            self.kept[record.key] = due_again(replace(record, attempt=0), self.now)

    def _nested(self, node: NestedNode, record: StepRecord, value: Json) -> None:
        entered = self.taking(node, entered_with(record, value))
        inner = Scope(record.key)
        self._open(record, entered, None if inner == scope_of(record.key) else inner)
        self.scope(node.graph, inner, entered)

    def _loop(self, graph: Graph, node: LoopNode, record: StepRecord, home: Scope, value: Json) -> None:
        """The turn that has failed begins with what the one before it gave."""
        turn = record.count or 1
        before = self.snapshot.records.get(turn_of(record.key, turn - 1))
        is_open = record.outcome is Outcome.START
        carried = entered_with(record, value) if is_open or before is None else before.output
        key = turn_of(record.key, turn)
        self._open(record, carried, scope_of(key))
        self._node(graph, node.body, key, home, carried)

    def _items(self, graph: Graph, node: ForeachNode, record: StepRecord, home: Scope, items: Sequence[Json]) -> None:
        if node.distributed and items:
            self._open(record, opening(shard_size(node.shard, len(items), record.count or 1), len(items)), None)
        else:
            self._open(record, None, Scope(record.key))
        for index, item in enumerate(items):
            self._node(graph, node.body, item_of(record.key, index), home, item)

    def _open(self, record: StepRecord, value: Json, opens: Scope | None) -> None:
        if record.outcome is Outcome.ERR:
            again = replace(record, outcome=Outcome.START, failure=None, output=value, opens=opens, at=self.now)
            self.kept[record.key] = again


def entered_with(record: StepRecord, value: Json) -> Json:
    """What a nested workflow, or a loop, began with: ``value`` before it, unless time travel gave another."""
    if record.outcome is Outcome.START:
        return record.output
    return record.given[0] if record.given else value


def taken_over(record: StepRecord, head: Head, now: datetime) -> StepRecord:
    """A record that stays, as the life that follows ``head``'s has it.

    A deadline that passed while the run had ended is counted anew: nobody could answer, and who is asked now has not
    been asked for this suspension before.
    """
    if record.outcome is Outcome.RESU:
        return due_again(record, now)
    if record.outcome is not Outcome.SUSP or record.until is None or not head.is_terminal:
        return record
    has_passed = head.updated_at < record.until <= now
    return replace(record, at=now, until=now + (record.until - record.at)) if has_passed else record


def due_again(record: StepRecord, now: datetime) -> StepRecord:
    """The step is called once more with what it was given; nothing in a new life begins as resumed, hence a retry."""
    return replace(record, outcome=Outcome.RETRY, failure=None, at=now, until=now)
