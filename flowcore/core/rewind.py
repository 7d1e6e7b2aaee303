"""Going back in a run: which of its records stand in front of a step where a new life, or a fork, is to begin.

Pure: reads a whole run, gives the records that the new beginning keeps. Keys stay what they are; a record that is kept
keeps its outcome, its changes of state and its order. What is not kept was never so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from flowcore.authoring.graph import (
    BranchNode,
    ForeachNode,
    Graph,
    LoopNode,
    NestedNode,
    Node,
    ParallelNode,
    SleepNode,
    StepNode,
)
from flowcore.core.fan import opening, shard_size
from flowcore.core.redrive import Taking, as_it_is, entered_with, taken_over
from flowcore.core.view import passed_on
from flowcore.errors import InvalidPayload, NotRecorded, UnknownStep
from flowcore.keys import ROOT, Scope, StepKey, dotted, inside, parent_of, scope_of, turn_of
from flowcore.model import Json, Outcome, Snapshot, StepRecord
from flowcore.parcels import replace

_OVER = frozenset({Outcome.OK, Outcome.SKIP, Outcome.SLP})
"""Outcomes that an entry in front of the step may keep; a sleep that still lasts ends now."""
_ARM_OVER = _OVER | {Outcome.BAIL}
"""Those of an arm: what it bailed with is its output. An entry that has bailed has ended its workflow."""


@dataclass(frozen=True, slots=True)
class Given:
    """The value a step is to begin with, instead of what stands before it."""

    value: Json


@dataclass(frozen=True, slots=True)
class _Reached:
    """What stands before an entry."""

    value: Json
    skipped: Sequence[str] = ()
    """Where the entry just in front was skipped, or arms of it: what it lets pass is not what the next one takes."""
    is_told: bool = False
    """Whether its output is one that was given along."""


def rewound(
    graph: Graph,
    snapshot: Snapshot,
    step: str,
    *,
    given: Given | None,
    outputs: Mapping[str, Json],
    now: datetime,
    taking: Taking = as_it_is,
) -> list[StepRecord]:
    """The records a run keeps that begins anew at ``step``.

    A foreach that has failed goes on where it failed: what its finished items gave is kept.

    Args:
        snapshot: with every record of the run.
        step: dotted id; ``child.q`` goes into a nested workflow.
        given: the step's input; entries in front of it that have no record are skipped then.
        outputs: of entries in front of it, by dotted id: instead of, or in place of missing, records.
        taking: what makes an input of the value before a nested workflow around the step.
    Raises: UnknownStep; NotRecorded when entries in front of the step have no output, or the one just before it was
        skipped; InvalidPayload when an input is given to an entry that takes none, or an output that nobody reads.
    """
    rewind = _Rewind(snapshot, given, outputs, now, taking)
    kept = list(rewind.scope(graph, ROOT, step.split("."), snapshot.head.input, step))
    rewind.refuse_unread(graph, step)
    if rewind.missing:
        raise NotRecorded(step, rewind.missing)
    return [taken_over(record, snapshot.head, now) for record in kept]


class _Rewind:
    """One walk to the step; ``missing`` collects what stands before it without an output."""

    def __init__(
        self, snapshot: Snapshot, given: Given | None, outputs: Mapping[str, Json], now: datetime, taking: Taking
    ) -> None:
        self.snapshot = snapshot
        self.given = given
        self.outputs = outputs
        self.now = now
        self.taking = taking
        self.missing: list[str] = []
        self.readable: list[str] = []
        """What an output may be given for: every entry in front that has one, and arms beside the step."""

    def scope(self, graph: Graph, home: Scope, path: list[str], value: Json, whole: str) -> Iterator[StepRecord]:
        """The records kept of one workflow: all in front of the entry that ``path`` begins with."""
        snapshot, reached = self.snapshot, _Reached(value)
        for node in graph.nodes:
            if _holds(node, path[0]):
                yield from self._at(node, home, path, reached, whole)
                return
            kept = {record.key: record for record in self._in_front(node, home)}
            yield from kept.values()
            if isinstance(node, SleepNode):
                continue
            here = [key for id in graph.by_id if (key := inside(home, id)) in kept]
            skipped = [dotted(key) for key in here if kept[key].outcome is Outcome.SKIP]
            told = [key for key in here if dotted(key) in self.outputs]
            for key in here:
                if kept[key].outcome is Outcome.OK:
                    snapshot = replace(snapshot, records=snapshot.records.set(key, kept[key]))
            has_passed, given = passed_on(node, home, reached.value, snapshot)
            # what has no record is skipped, and lets pass what stands before it
            reached = _Reached(given if has_passed else reached.value, skipped, is_told=bool(told))
        raise UnknownStep(whole, [dotted(inside(home, id)) for id in graph.by_id], known=True)

    def refuse_unread(self, graph: Graph, step: str) -> None:
        """After the walk: an output given for anything else would do nothing. Raises: UnknownStep, InvalidPayload."""
        rows = []
        for id in self.outputs:
            if id in self.readable:
                continue
            match graph.find(id):
                case None:
                    raise UnknownStep(id, self.readable, known=True)
                case BranchNode():
                    why = "a branch has no output of its own; give those of its arms"
                case SleepNode():
                    why = "a sleep has no output"
                case _:
                    there = ", ".join(map(repr, self.readable)) or "none"
                    why = f"is not read in front of {step!r}; there are {there}"
            rows.append({"path": id, "message": why, "type": "context"})
        if rows:
            raise InvalidPayload("context", rows)

    def _in_front(self, node: Node, home: Scope, over: frozenset[Outcome] = _OVER) -> Iterator[StepRecord]:
        """An entry that is over: with its output as it was, as it is given, or skipped."""
        if isinstance(node, ParallelNode):
            for arm in node.arms:
                yield from self._in_front(arm, home, _ARM_OVER)
            return
        key = inside(home, node.id)
        record = self.snapshot.records.get(key)
        if isinstance(node, BranchNode) and (record is None or record.outcome not in over):
            # whoever tells what an arm gave says that it was taken
            taken = [arm.id for arm in node.nodes if dotted(inside(home, arm.id)) in self.outputs]
            record = self._made(key, Outcome.OK, output=taken) if taken else record
        if (told := self._told(node, key)) is not None:
            yield told
        elif record is not None and record.outcome in over:
            yield replace(record, until=min(record.until, self.now)) if record.until else record
            yield from self._below(key)
            if isinstance(node, BranchNode):
                for arm in node.nodes:
                    if arm.id in (record.output or ()):
                        yield from self._in_front(arm, home, _ARM_OVER)
        elif self.given is not None or isinstance(node, SleepNode):
            yield self._made(key, Outcome.SKIP)
        else:
            self.missing.append(dotted(key))

    def _at(self, node: Node, home: Scope, path: list[str], reached: _Reached, whole: str) -> Iterator[StepRecord]:
        """The entry itself, or the one around it: an arm's siblings stay as they are, a branch takes this arm.

        One that had chosen it keeps the other arms that it chose; else it takes this one alone.
        """
        if isinstance(node, (ParallelNode, BranchNode)) and node.id != path[0]:
            arms = node.arms if isinstance(node, ParallelNode) else node.nodes
            if isinstance(node, BranchNode):
                key = inside(home, node.id)
                before = self.snapshot.records.get(key)
                if before is None or before.outcome is not Outcome.OK or path[0] not in before.output:
                    before = self._made(key, Outcome.OK, output=[path[0]])
                yield before
                arms = tuple(arm for arm in arms if arm.id in before.output)
            for arm in arms:
                if arm.id != path[0]:
                    yield from self._as_it_is(arm, inside(home, arm.id))
            target = next(arm for arm in arms if arm.id == path[0])
            yield from self._at(target, home, path, reached, whole)
        elif len(path) == 1 and self.given is None and reached.skipped:
            self.missing += reached.skipped
        elif len(path) == 1 and isinstance(node, ForeachNode) and self._is_to_go_on(inside(home, node.id)):
            yield from self._going_on(node, inside(home, node.id), reached.value)
        elif len(path) == 1:
            yield from self._beginning(node, inside(home, node.id), whole)
        elif isinstance(node, NestedNode):
            key = inside(home, node.id)
            before = None if reached.is_told else self.snapshot.records.get(key)
            entered = self.taking(node, reached.value if before is None else entered_with(before, reached.value))
            given = before and before.given
            if self.given is None and not given and (before is None or before.outcome is not Outcome.START):
                self.missing += reached.skipped
            yield self._made(key, Outcome.START, output=entered, opens=Scope(key), given=given)
            yield from self.scope(node.graph, Scope(key), path[1:], entered, whole)
        else:
            raise UnknownStep(whole, [dotted(inside(home, node.id))], known=True)

    def _beginning(self, node: Node, key: StepKey, whole: str) -> Iterator[StepRecord]:
        """Nothing, and the step begins like new; or what makes it begin with the given value."""
        if self.given is None:
            return
        given = self.given.value
        match node:
            case StepNode():
                yield self._made(key, Outcome.RETRY, attempt=0, until=self.now, given=(given,))
            case NestedNode():
                yield self._made(key, Outcome.START, output=given, opens=Scope(key), given=(given,))
            case LoopNode():
                opens = scope_of(turn_of(key, 1))
                yield self._made(key, Outcome.START, output=given, opens=opens, count=1, given=(given,))
            case _:
                row = {"path": whole, "message": "takes no input of its own", "type": "input"}
                raise InvalidPayload("time travel", [row])

    def _is_to_go_on(self, key: StepKey) -> bool:
        """Whether a foreach has failed at some of its items, and the items are the same this time."""
        record = self.snapshot.records.get(key)
        failed = record is not None and record.outcome is Outcome.ERR and record.count is not None
        return failed and self.given is None and not self.outputs

    def _going_on(self, node: ForeachNode, key: StepKey, value: Json) -> Iterator[StepRecord]:
        """A failed foreach as if its failed items had never been begun; the finished ones need not run again."""
        records = self.snapshot.records
        slots = records[key].count or 1
        if node.distributed and value:
            held = opening(shard_size(node.shard, len(value), slots), len(value))
            # Its items, those that are done as well, change the state in their turn behind it: as late as they did.
            yield replace(self._made(key, Outcome.START, output=held, count=slots), seq=records[key].seq)
        else:
            yield self._made(key, Outcome.START, opens=Scope(key), count=slots)
        for item in records.values():
            if item.outcome is Outcome.OK and parent_of(item.key) == key:
                yield item
                yield from self._below(item.key)

    def _as_it_is(self, node: Node, key: StepKey) -> Iterator[StepRecord]:
        record = self.snapshot.records.get(key)
        if (told := self._told(node, key)) is not None:
            yield told
        elif record is not None:
            yield record
            yield from self._below(key)

    def _told(self, node: Node, key: StepKey) -> StepRecord | None:
        """The entry with the output that was given for it; None when none was, or it has none by its kind."""
        if isinstance(node, (BranchNode, SleepNode)):
            return None
        self.readable.append(id := dotted(key))
        return self._made(key, Outcome.OK, output=self.outputs[id]) if id in self.outputs else None

    def _below(self, key: StepKey) -> Iterator[StepRecord]:
        """Everything inside a container, and what its steps stored once."""
        inner = (f"{key}/", f"{key}[", f"{key}#", f"{key}!")
        return (record for record in self.snapshot.records.values() if record.key.startswith(inner))

    def _made(self, key: StepKey, outcome: Outcome, **fields: object) -> StepRecord:
        return StepRecord(
            key=key,
            outcome=outcome,
            seq=1,
            epoch=self.snapshot.head.epoch,
            at=self.now,
            started_at=self.now,
            **fields,  # type: ignore[arg-type]  # checked where it is called
        )


def _holds(node: Node, id: str) -> bool:
    """Whether the entry is the one meant, or has it as an arm."""
    if node.id == id:
        return True
    if isinstance(node, ParallelNode):
        return any(_holds(arm, id) for arm in node.arms)
    return isinstance(node, BranchNode) and any(_holds(arm, id) for arm in node.nodes)
