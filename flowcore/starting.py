"""A run that an event starts where there is none yet: what it begins with, and under which id.

Without an id of its own a run is named after the workflow and what the event is about, so that whoever sends first
starts it, and everybody else finds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from flowcore.authoring.workflow import Workflow, WorkflowBuilder
from flowcore.codec import digest
from flowcore.keys import RunRef
from flowcore.model import Head, Topic
from flowcore.run import new_head
from flowcore.tracing import begun

if TYPE_CHECKING:
    from flowcore.app import App

In = TypeVar("In")


@dataclass(frozen=True, slots=True)
class Start(Generic[In]):
    """The run that ``app.send_event(..., start_if_absent=Start(...))`` starts, unless there is one of its id.

    Args:
        workflow: by object, which has the input's type checked, or by id.
        input: must fit the workflow's input type.
        run_id: left out, it is derived from the workflow and the event's name and key: one run for each key.
        by: who starts it, as ``run.start(by=)``.
        resource_id: whom or what the run is about.
        tags: what listings find it by.
        state: the state the run begins with.
        request_context: values every step can read and change.

    Example:
        >>> from flowcore import App, Start, step, workflow
        >>> @step
        ... def total(payment: dict[str, int]) -> int:
        ...     return payment["cents"]
        >>> flow = workflow("order", input=str, output=int).wait_for_event("paid", key=lambda o: o).then(total).commit()
        >>> app = App(flow)
        >>> receipt = app.send_event("paid", "A-17", {"cents": 990}, start_if_absent=Start(flow, "A-17"))
        >>> receipt.verdict, app.run(receipt.run_id).result().output
        ('started', 990)
    """

    workflow: Workflow[In, Any] | WorkflowBuilder[In, Any, Any] | str
    input: In
    _: KW_ONLY
    run_id: str | None = None
    by: str | None = None
    resource_id: str | None = None
    tags: Sequence[str] = ()
    state: Mapping[str, Any] | None = None
    request_context: Mapping[str, Any] | None = None


def first_head(app: App, start: Start[Any], topic: Topic) -> Head:
    """The head of the run that an event at ``topic`` may start.

    Raises: WorkflowNotFound, InvalidPayload, MalformedRequest.
    """
    served = app.workflow(start.workflow)
    made_up = f"e-{digest([topic.tenant, served.id, topic.event, topic.key])}"
    run = served.create_run(made_up if start.run_id is None else start.run_id, start.resource_id, tags=start.tags)
    return new_head(
        RunRef(topic.tenant, run.run_id),
        served.workflow,
        start.input,
        now=app.clock.now(),
        resource_id=start.resource_id,
        started_by=start.by,
        state=start.state,
        request_context=start.request_context,
        trace=begun(None, start.tags),
    )
