"""What has happened to a run, in order: derived from head and records, never stored.

An offset is Lamport order times ``_ROOM``, plus the event's place among those of one record; a later life of the run
(time travel) lies wholly beyond an earlier one. A fact keeps its offset as long as it is known, and a record's newest
outcome has one beyond all it was decided upon, so whoever asks for what lies beyond the last offset seen misses no
outcome. Of what it was before, a record still knows the last question and answer. Only what two workers write side by
side may be stamped alike, or late by one that was given up. Children number their records apart from one another, so
outcomes of a distributed foreach come in no such order. ``Run.watch`` compares events, so it misses nothing of that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

from flowcore.authoring.graph import Graph
from flowcore.core import view
from flowcore.keys import StepKey, dotted, index_of, is_emit, is_once, parent_of, step_of, turn_number
from flowcore.model import Head, Json, Outcome, RunStatus, Snapshot, StepFailure, StepRecord, wait_id, wait_number

EventType: TypeAlias = Literal[
    "run-started",
    "step-started",
    "step-progress",
    "step-suspended",
    "step-resumed",
    "step-waiting",
    "step-retrying",
    "step-finished",
    "step-failed",
    "step-skipped",
    "run-waiting",
    "run-suspended",
    "run-paused",
    "run-canceled",
    "run-finished",
]

_ROOM = 16
_LIFE = 1 << 30
"""Offsets of one life: 67 million records; 2 ** 53, where JavaScript ends, is far."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a run. Two are the same event when all but the data is the same.

    Example:
        >>> from flowcore import App, step, workflow
        >>> @step
        ... def double(number: int) -> int:
        ...     return 2 * number
        >>> run = App(workflow("twice", input=int, output=int).then(double).commit()).workflow("twice").create_run()
        >>> _ = run.start(4)
        >>> [event.type for event in run.events()]
        ['run-started', 'step-started', 'step-finished', 'run-finished']
    """

    offset: int
    """Grows; ask for what lies beyond the last one seen, but of a run with a distributed foreach for all, from 0.

    Items of such a foreach count apart from one another: what one has done later may lie before what another did.
    """
    type: EventType
    at: datetime
    step: str | None = None
    """Dotted id: ``child.approve``, ``fan[7].pay``; None for the run itself."""
    data: Json = field(default=None, compare=False)
    """``step-progress``: what the step gave, unchanged, or a foreach's ``done``, ``total`` and ``index``."""


def events(graph: Graph | None, snapshot: Snapshot) -> list[Event]:
    """Everything that ``snapshot``, with all its records, still knows. Without a graph a foreach's total is unknown."""
    head = snapshot.head
    base = (head.incarnation - 1) * _LIFE
    found = [Event(base + 1, "run-started", head.created_at, data={"input": head.input})]
    heralds: dict[StepKey, StepRecord] = {}
    for record in sorted(snapshot.records.values(), key=lambda record: record.seq):
        if is_emit(record.key) and record.attempt == 1:
            heralds.setdefault(step_of(record.key), record)
    for record in snapshot.records.values():
        found += _of_step(record, heralds.get(step_of(record.key)), head, base)
    found += _of_items(graph, snapshot, base)
    found += _of_run(head, base + _ROOM * max((r.seq for r in snapshot.records.values()), default=0))
    return sorted(found, key=lambda event: (event.offset, event.step or ""))


def _of_step(record: StepRecord, herald: StepRecord | None, head: Head, base: int) -> Iterator[Event]:
    """What one record tells, oldest first; the places within its order never change their meaning.

    Args:
        herald: the first progress of the step's first pass: it tells that the step has started, and nothing else does.
    """
    step, at = dotted(record.key), base + _ROOM * record.seq
    if is_emit(record.key):
        if record is herald:
            yield Event(at + 1, "step-started", record.at, step.split("!", 1)[0], {})
        yield Event(at + 2, "step-progress", record.at, step.split("!", 1)[0], record.output)
    if is_once(record.key) or (record.given is not None and record.attempt == 0):
        return
    turn = turn_number(record.key)
    begun = {} if turn is None else {"iteration": turn}
    answer = record.answer
    if record.asked is not None and answer is not None:
        asked, asked_at, answered = record.asked
        asked, answered = base + _ROOM * asked, base + _ROOM * answered
        if wait_number(answer.wait) == "0" and herald is None:
            yield Event(asked + 1, "step-started", record.started_at, step, begun)
        yield Event(asked + 3, "step-suspended", asked_at, step, _question(record, answer.wait))
        came = {"wait": answer.wait, "data": answer.data, "by": answer.by, "via": answer.via}
        yield Event(answered + 4, "step-resumed", answer.at, step, {**came, "timed_out": answer.timed_out})
    elif record.gen == 0 and herald is None:
        yield Event(at + 1, "step-started", record.started_at, step, begun)
    if record.outcome is Outcome.SUSP:
        question = _question(record, wait_id(record, head.incarnation))
        yield Event(at + 3, "step-suspended", record.at, step, question)
    elif record.outcome not in (Outcome.START, Outcome.RESU):
        type, data = _outcome(record)
        yield Event(at + 5, type, record.at, step, data)


def _question(record: StepRecord, wait: str) -> dict[str, Json]:
    return {"wait": wait, "label": record.label, "payload": record.shown}


def _outcome(record: StepRecord) -> tuple[EventType, Json]:
    """What a record that is neither open nor suspended says about its step."""
    match record.outcome:
        case Outcome.ERR:
            return "step-failed", {"error": failure_json(record.failure), "attempt": record.attempt}
        case Outcome.RETRY:
            tried = {"error": failure_json(record.failure), "attempt": record.attempt}
            return "step-retrying", {**tried, "wake_at": _instant(record.until)}
        case Outcome.SLP:
            return "step-waiting", {"wake_at": _instant(record.until)}
        case Outcome.SKIP:
            return "step-skipped", None
        case _:
            return "step-finished", {"output": record.output, "bailed": record.outcome is Outcome.BAIL}


def _of_items(graph: Graph | None, snapshot: Snapshot, base: int) -> Iterator[Event]:
    """How far each foreach is: one event per settled item, in the order in which they settled."""
    items = [r for r in snapshot.records.values() if r.is_settled and r.key.endswith("]") and not is_once(r.key)]
    if not items:
        return
    inputs = view.steps(graph, snapshot)
    done: Counter[StepKey] = Counter()
    for item in sorted(items, key=lambda record: record.seq):
        around = parent_of(item.key)
        done[around] += 1
        container = inputs.get(dotted(around))
        total = len(container.input) if container is not None and isinstance(container.input, list) else None
        data = {"done": done[around], "total": total, "index": index_of(item.key)}
        yield Event(base + _ROOM * item.seq + 6, "step-progress", item.at, dotted(around), data)


def _of_run(head: Head, at: int) -> Iterator[Event]:
    """Where the run stands now, after all that its records tell."""
    match head.status:
        case RunStatus.WAITING | RunStatus.JOINING:
            yield Event(at + 9, "run-waiting", head.updated_at, data={"wake_at": _instant(head.wake)})
        case RunStatus.SUSPENDED:
            yield Event(at + 10, "run-suspended", head.updated_at)
        case RunStatus.PAUSED | RunStatus.BLOCKED:
            yield Event(at + 11, "run-paused", head.updated_at, data={"blocked": head.blocked})
        case RunStatus.CANCELED:
            yield Event(at + 15, "run-canceled", head.updated_at)
        case RunStatus.SUCCESS | RunStatus.FAILED:
            ended = {"status": head.public_status, "output": head.output, "error": failure_json(head.failure)}
            yield Event(at + 15, "run-finished", head.updated_at, data=ended)
        case _:
            pass


def failure_json(failure: StepFailure | None) -> Json:
    """A failure with its causes, as plain JSON."""
    if failure is None:
        return None
    return {
        "type": failure.type,
        "message": failure.message,
        "properties": dict(failure.properties),
        "cause": failure_json(failure.cause),
        "step": failure.step,
    }


def _instant(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
