"""A run as it stood at one version, as its users read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from flowcore.authoring.graph import Graph
from flowcore.core.view import Progress, StepResult
from flowcore.fields import FIELDS, labels, made
from flowcore.model import Doors, Json, PublicStatus, Receipt, Snapshot, StepFailure, Wait

Out = TypeVar("Out")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult(Generic[Out]):
    """A run as it stood at one version.

    Example:
        >>> from flowcore import App, step, workflow
        >>> @step
        ... def double(number: int) -> int:
        ...     return 2 * number
        >>> app = App(workflow("twice", input=int, output=int).then(double).commit())
        >>> result = app.workflow("twice").create_run().start(21)
        >>> result.status, result.output
        ('success', 42)
    """

    run_id: str
    workflow_id: str
    status: PublicStatus
    input: Json
    steps: Mapping[str, StepResult]
    """Every step the run has met, by dotted id; a loop's body shows its last turn, foreach items are ``fan[7]``.

    Inside the items of a distributed foreach of more than a hundred workers, steps of nested workflows are left out.
    """
    progress: Mapping[str, Progress] = field(default_factory=dict)
    """How far each distributed foreach is, by dotted id: to be had alone, and cheaply, with ``fields=["progress"]``."""
    output: Out | None = None
    """The validated output; None unless ``status`` is ``success``."""
    error: StepFailure | None = None
    suspended: list[list[str]] = field(default_factory=list)
    """Paths of the steps that wait for an answer."""
    waits: list[Wait[Json]] = field(default_factory=list)
    """The open suspensions.

    Of a distributed foreach those in the first hundred of its workers' shares that wait for answers; ``progress``
    counts them all, and ``app.waits(label=)`` finds each.
    """
    state: Mapping[str, Json] = field(default_factory=dict)
    request_context: Mapping[str, Json] = field(default_factory=dict)
    """What steps find in it by now."""
    blocked: str | None = None
    """Why the code at hand cannot go on with this run; its status is ``paused`` then."""
    resource_id: str | None = None
    started_by: str | None = None
    """Who started the run, as ``start(by=)`` said; over HTTP whoever the gateway has verified."""
    canceled_by: str | None = None
    trace_id: str | None = None
    """The trace that the run was started in."""
    tags: list[str] = field(default_factory=list)
    """What listings find the run by."""
    receipt: Receipt | None = None
    """After a resume: what became of the answer."""
    replayed: bool = False
    """After a start or a resume: the same request had been made before, and this one changed nothing."""
    left_out: list[str] = field(default_factory=list)
    """After a change over HTTP: fields that are empty here, because the answer would have been too large with them."""
    version: int
    created_at: datetime
    updated_at: datetime

    @property
    def resume_labels(self) -> dict[str, list[str]]:
        """The labels by which the run can be resumed, with the path each leads to."""
        return labels(self.waits)


@dataclass(frozen=True, slots=True)
class RunState:
    """Reads one run as it stood: what waits, under which labels, and what steps took and gave.

    Example:
        >>> from flowcore import App, step, workflow
        >>> @step
        ... def double(number: int) -> int:
        ...     return 2 * number
        >>> run = App(workflow("twice", input=int, output=int).then(double).commit()).workflow("twice").create_run()
        >>> _ = run.start(4)
        >>> run.state().step_payload("double"), run.state().step_output("double")
        (4, 8)
    """

    result: RunResult[Any]

    @property
    def status(self) -> PublicStatus:
        """Where the run stood."""
        return self.result.status

    @property
    def suspended_steps(self) -> list[Wait[Json]]:
        """The open suspensions, oldest first, each with its path, label and payload."""
        return self.result.waits

    @property
    def resume_labels(self) -> dict[str, list[str]]:
        """The labels by which the run can be resumed, with the path each leads to."""
        return self.result.resume_labels

    def step_output(self, id: str) -> Json:
        """What a step gave, by dotted id, as plain JSON; None when it has given nothing."""
        step = self.result.steps.get(id)
        return None if step is None else step.output

    def step_payload(self, id: str) -> Json:
        """What a step was given, by dotted id, as plain JSON; None when it was not reached."""
        step = self.result.steps.get(id)
        return None if step is None else step.input


def result_of(graph: Graph | None, snapshot: Snapshot, doors: Doors | None = None) -> RunResult[Any]:
    """What users see of a snapshot; without a graph the output is plain JSON and inputs are missing."""
    values = made([name for name in FIELDS if name != "resume_labels"], graph, snapshot, doors)
    return RunResult(**values)
