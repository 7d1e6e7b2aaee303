"""What is wrong with a run as it stands, whoever made it so. Pure: a head, its records and today's code, and the time.

A healthy run either moves by itself, and then ``due`` says until when somebody has to look, or it waits for an answer
that somebody can give, or an operator has stopped it, or it has ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from flowcore.authoring.graph import Graph
from flowcore.core.actions import Park
from flowcore.core.admit import open_waits
from flowcore.core.compat import conflict
from flowcore.core.decide import decide
from flowcore.core.fan import open_fans
from flowcore.keys import dotted
from flowcore.model import SELF_MOVING, Head, RunStatus, Snapshot

OVERDUE = timedelta(minutes=5)
"""How late a run may be before that is worth a word: the sweeper comes once a minute, hints take their time."""
MANY_CLAIMS = 3
"""Workers in a row that have died of a run before that is worth a word; after five its step is given up."""

Ailment: TypeAlias = Literal[
    "not-served", "definition-changed", "unreadable", "blocked", "lost", "mute", "idle", "overdue", "deadly"
]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong with one run.

    Example:
        >>> from flowcore.core.health import Finding
        >>> Finding("r-1", "refund", "overdue", "nobody has come for 20 min").ailment
        'overdue'
    """

    run_id: str
    workflow_id: str
    ailment: Ailment
    """``not-served``, ``definition-changed``, ``unreadable``, ``blocked``: the code at hand does not fit it. ``lost``:
    nobody would ever look at it. ``mute``: it waits for an answer that nobody can give. ``idle``: it waits, but has
    work. ``overdue``: nobody has come when somebody should have. ``deadly``: workers die of it."""
    detail: str
    """What was found, and what to do."""


def findings(graph: Graph | None, snapshot: Snapshot, now: datetime) -> Iterator[Finding]:
    """Everything wrong with a run, as its open scopes show it; nothing for one that has ended well or badly.

    Args:
        graph: today's workflow of that id; None when none is served here.
        snapshot: with ``fans`` as the joins say they are, where a distributed foreach is open.
    """
    head = snapshot.head
    if head.is_terminal and not head.outbox:
        return
    for ailment, detail in (*_of_code(graph, snapshot), *_of_rest(graph, snapshot), *_of_time(head, now)):
        yield Finding(head.run.id, head.workflow, ailment, detail)


def findings_of_child(child: Head, now: datetime) -> Iterator[Finding]:
    """What is wrong with a child of a distributed foreach that has not ended, told of the run that users know.

    A child shows in no listing, and its run waits for it: what holds it up has to be said of the run.
    """
    part = child.part
    if part is None:
        return
    items = f"item {part.first}" if part.stop == part.first + 1 else f"items {part.first} to {part.stop - 1}"
    found = list(_of_time(child, now))
    if child.status is RunStatus.BLOCKED:
        found.append(("blocked", f"{child.blocked}; once that is mended, unblock the run"))
    if child.status in SELF_MOVING and child.due is None:
        found.append(("lost", f"{child.status} without a time to look at it again; restart the run"))
    for ailment, detail in found:
        told = f"{items} of {dotted(part.key)!r}, in child {child.run.id!r}: {detail}"
        yield Finding(part.top, child.workflow, ailment, told)


def _of_code(graph: Graph | None, snapshot: Snapshot) -> Iterator[tuple[Ailment, str]]:
    head = snapshot.head
    if head.is_terminal:
        return
    if graph is None:
        yield "not-served", f"no workflow {head.workflow!r} is served here; deploy it again, or cancel the run"
    elif head.definition != graph.fingerprint and (reason := conflict(graph, snapshot)) is not None:
        yield "definition-changed", reason
    if head.status is RunStatus.BLOCKED:
        yield "blocked", f"{head.blocked}; once that is mended, unblock it"


def _of_rest(graph: Graph | None, snapshot: Snapshot) -> Iterator[tuple[Ailment, str]]:
    head = snapshot.head
    if head.status in SELF_MOVING and head.due is None:
        yield "lost", f"{head.status} without a time to look at it again; restart it"
    if head.status is not RunStatus.SUSPENDED:
        return
    if not open_waits(snapshot) and not any(fan.asking for fan in snapshot.fans.values()):
        yield "mute", "suspended without an open suspension; restart it or travel in time"
    if head.wake is not None and head.due is None:
        yield "lost", f"suspended until {head.wake.isoformat()} without a time to look at it again"
    if graph is None or head.definition != graph.fingerprint or open_fans(snapshot):
        return  # of what there is to do in children, only they know
    if not isinstance(decide(graph, snapshot, head.updated_at), Park):
        yield "idle", "suspended, but there is something to do; restart it"


def _of_time(head: Head, now: datetime) -> Iterator[tuple[Ailment, str]]:
    if head.due is not None and now - head.due > OVERDUE:
        late = timedelta(seconds=round((now - head.due).total_seconds()))
        yield "overdue", f"somebody should have looked {late} ago; see whether sweeper and workers run"
    if head.attempts >= MANY_CLAIMS:
        yield "deadly", f"{head.attempts} workers in a row have taken it up and not come back; see their logs"
