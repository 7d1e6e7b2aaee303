"""What a user holds: the App with its workflows, a Run, and the RunResult. Holds no run state of its own.

Two Apps on one store see the same runs. Without a queue an App drives runs in the calling process until they park or
end; with one, ``start`` and ``resume`` commit, ask a worker to look, and return.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, overload

from flowcore.authoring.graph import Graph
from flowcore.authoring.step import Step
from flowcore.authoring.workflow import Workflow, WorkflowBuilder
from flowcore.codec import Shape, digest
from flowcore.core import view
from flowcore.core.admit import Resume
from flowcore.core.evolve import state_at
from flowcore.core.view import StepResult
from flowcore.engine import Engine, Pace
from flowcore.errors import DefinitionError, MalformedRequest, Mistake, RunNotFound, WorkflowNotFound
from flowcore.hints import Hints, sweep
from flowcore.keys import ROOT, RunRef, StepKey, is_run_id
from flowcore.model import Head, Json, Page, PublicStatus, Receipt, RunStatus, RunSummary, Snapshot, StepFailure, Wait
from flowcore.ports import Clock, Ids, Queue, Scheduler, Store

In = TypeVar("In")
Out = TypeVar("Out")
R = TypeVar("R")
T = TypeVar("T")

DEFAULT_TENANT = "default"
_POLL = timedelta(milliseconds=200)
_ANYTHING: Shape[Any] = Shape(Any)
_CONTEXT: Shape[dict[str, Any]] = Shape(dict[str, Any])


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
    """Every step the run has met, by dotted id; a loop's body shows its last turn, foreach items are ``fan[7]``."""
    output: Out | None = None
    """The validated output; None unless ``status`` is ``success``."""
    error: StepFailure | None = None
    suspended: list[list[str]] = field(default_factory=list)
    """Paths of the steps that wait for an answer."""
    waits: list[Wait[Json]] = field(default_factory=list)
    """The open suspensions."""
    state: Mapping[str, Json] = field(default_factory=dict)
    blocked: str | None = None
    """Why the code at hand cannot go on with this run; its status is ``paused`` then."""
    resource_id: str | None = None
    trace_id: str | None = None
    receipt: Receipt | None = None
    """After a resume: what became of the answer."""
    replayed: bool = False
    """After a start or a resume: the same request had been made before, and this one changed nothing."""
    version: int
    created_at: datetime
    updated_at: datetime


class App:
    """The registry of workflows that a deployment serves, on a store and its helpers.

    Without arguments besides workflows everything lives in memory, so a script or a notebook works at once.

    Args:
        store: where runs live.
        scheduler: fires wakes that are further away than a queue message can be delayed.
        queue: hands runs to workers; without one, runs are driven in the calling process.
        clock: the time of day.
        ids: fresh names and chance.
        pace: leases, margins and other durations.

    Example:
        >>> from flowcore import App, step, workflow
        >>> @step
        ... def greet(name: str) -> str:
        ...     return f"Hello, {name}"
        >>> app = App(workflow("greeting", input=str, output=str).then(greet).commit())
        >>> app.workflow("greeting").create_run().start("Ada").output
        'Hello, Ada'
    """

    def __init__(
        self,
        *workflows: Workflow[Any, Any] | WorkflowBuilder[Any, Any, Any],
        store: Store | None = None,
        scheduler: Scheduler | None = None,
        queue: Queue | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
        pace: Pace | None = None,
    ) -> None:
        from flowcore.adapters.memory import MemoryScheduler, MemoryStore  # noqa: PLC0415  # only without a store
        from flowcore.adapters.system import SystemClock, SystemIds  # noqa: PLC0415  # only without others

        committed = [w.commit() if isinstance(w, WorkflowBuilder) else w for w in workflows]
        _refuse_duplicates(committed)
        self.workflows: Mapping[str, Workflow[Any, Any]] = {w.id: w for w in committed}
        self.tenant = DEFAULT_TENANT
        clock = clock or SystemClock()
        self.ids: Ids = ids or SystemIds()
        self.store: Store = store or MemoryStore()
        self.queue = queue
        self.scheduler: Scheduler | None = scheduler or (None if store else MemoryScheduler())
        self.engine = Engine(
            graphs={w.id: w.compiled for w in committed},
            store=self.store,
            hints=Hints(self.queue, self.scheduler, clock),
            clock=clock,
            ids=self.ids,
            pace=pace or Pace(),
        )

    @property
    def clock(self) -> Clock:
        """The time of day, as this App sees it."""
        return self.engine.clock

    def on(
        self,
        *,
        store: Store,
        scheduler: Scheduler | None = None,
        queue: Queue | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
        pace: Pace | None = None,
    ) -> App:
        """The same workflows on other ports: how a deployment puts the author's App onto AWS."""
        return App(
            *self.workflows.values(),
            store=store,
            scheduler=scheduler,
            queue=queue,
            clock=clock or self.clock,
            ids=ids or self.ids,
            pace=pace or self.engine.pace,
        )

    def for_tenant(self, tenant: str) -> App:
        """The same App for the runs of another tenant; the tenant is part of every key."""
        if not is_run_id(tenant):
            raise MalformedRequest(f"{tenant!r} cannot name a tenant; use 1-128 letters, digits and ._:@-")
        other = App.__new__(App)
        other.__dict__.update(self.__dict__)
        other.tenant = tenant
        return other

    @overload
    def workflow(self, workflow: str) -> ServedWorkflow[Any, Any]: ...
    @overload
    def workflow(self, workflow: Workflow[In, Out]) -> ServedWorkflow[In, Out]: ...

    def workflow(self, workflow: Any) -> ServedWorkflow[Any, Any]:
        """A workflow of this App, by id or by object (which keeps its types). Raises: WorkflowNotFound."""
        id = workflow if isinstance(workflow, str) else workflow.id
        if id not in self.workflows:
            raise WorkflowNotFound(id, self.workflows)
        return ServedWorkflow(self, self.workflows[id])

    def run(self, run_id: str) -> Run[Any, Any]:
        """A handle on a run; loads nothing by itself."""
        return Run(self, RunRef(self.tenant, run_id), None, None)

    @overload
    def resume(
        self,
        run_id: str,
        data: R,
        *,
        step: Step[Any, Any, R, Any],
        index: int | None = None,
        idempotency_key: str | None = None,
        by: str | None = None,
        via: str = "python",
        wait: str | None = None,
        drive: timedelta | None = None,
    ) -> RunResult[Any]: ...
    @overload
    def resume(
        self,
        run_id: str,
        data: Any = None,
        *,
        step: str | list[str] | None = None,
        label: str | None = None,
        wait: str | None = None,
        index: int | None = None,
        idempotency_key: str | None = None,
        by: str | None = None,
        via: str = "python",
        drive: timedelta | None = None,
    ) -> RunResult[Any]: ...

    def resume(self, run_id: str, data: Any = None, **options: Any) -> RunResult[Any]:
        """Answer a suspension of a run; see ``Run.resume``."""
        return self.run(run_id).resume(data, **options)

    def cancel(self, run_id: str) -> RunResult[Any]:
        """Stop a run for good; see ``Run.cancel``."""
        return self.run(run_id).cancel()

    def list_runs(
        self,
        *,
        workflow: str | None = None,
        status: PublicStatus | None = None,
        resource_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[RunSummary]:
        """Runs of this tenant, newest first; all given filters must hold. Raises: MalformedRequest."""
        if limit < 1:
            raise MalformedRequest(f"limit={limit} is below 1; ask for at least one run")
        return self.store.list_runs(
            self.tenant,
            workflow=workflow,
            status=status,
            resource_id=resource_id,
            since=since,
            until=until,
            limit=limit,
            cursor=cursor,
        )

    def look(self, run: RunRef, *, deadline: datetime | None = None) -> Head | None:
        """Drive a run if there is anything to do in it: what a worker does with a hint. None: no such run."""
        return self.engine.look(run, deadline=deadline)

    def sweep(self, *, limit: int = 1000) -> int:
        """Ask a worker to look at every run that is overdue; how many there were."""
        return sweep(self.store, self.engine.hints, self.clock.now(), limit=limit)


@dataclass(frozen=True, slots=True)
class ServedWorkflow(Generic[In, Out]):
    """A workflow of an App."""

    app: App
    workflow: Workflow[In, Out]

    @property
    def id(self) -> str:
        """The workflow's id."""
        return self.workflow.id

    def create_run(self, run_id: str | None = None, resource_id: str | None = None) -> Run[In, Out]:
        """A handle on a run that is not started yet; nothing is written.

        Args:
            run_id: 1-128 letters, digits and ``._:@-``; made up when left out.
            resource_id: whom or what the run is about; runs can be listed by it.
        Raises: MalformedRequest.
        """
        if run_id is not None and not is_run_id(run_id):
            raise MalformedRequest(f"{run_id!r} cannot be a run id; use 1-128 letters, digits and ._:@-")
        ref = RunRef(self.app.tenant, run_id or self.app.ids.fresh())
        return Run(self.app, ref, self.workflow, resource_id, id_given=run_id is not None)


class Run(Generic[In, Out]):
    """A handle on one run; every call reads or changes the stored run, the handle remembers nothing.

    Example:
        >>> from flowcore import App, step, workflow
        >>> @step
        ... def double(number: int) -> int:
        ...     return 2 * number
        >>> app = App(workflow("twice", input=int, output=int).then(double).commit())
        >>> run = app.workflow("twice").create_run("r-1")
        >>> run.start(4).output, run.result().status
        (8, 'success')
    """

    def __init__(
        self,
        app: App,
        ref: RunRef,
        workflow: Workflow[Any, Any] | None,
        resource_id: str | None,
        *,
        id_given: bool = True,
    ) -> None:
        self._app = app
        self._ref = ref
        self._workflow = workflow
        self._resource_id = resource_id
        self._id_given = id_given

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._ref.id

    def start(
        self,
        input: In,
        *,
        state: Mapping[str, Any] | None = None,
        request_context: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        wait: timedelta | None = None,
    ) -> RunResult[Out]:
        """Start the run. Starting it again with the same input returns the run as it stands.

        Args:
            input: must fit the workflow's input type.
            state: the state the run begins with.
            request_context: values every step can read and change.
            idempotency_key: stands for the run id when none was given: the same key is the same run.
            wait: with a queue, drive the run here for at most this long instead of leaving it to a worker.
        Raises: InvalidPayload, RunExists, PayloadTooLarge.
        """
        workflow = self._workflow
        if workflow is None:
            raise MalformedRequest("This handle knows no workflow; start runs with app.workflow(id).create_run()")
        if idempotency_key is not None and not self._id_given:
            self._ref = RunRef(self._ref.tenant, f"k-{digest([self._ref.tenant, workflow.id, idempotency_key])}")
        graph, now = workflow.compiled, self._app.clock.now()
        accepted = graph.takes.accept(f"input of workflow {workflow.id!r}", input)
        head = Head(
            run=self._ref,
            workflow=workflow.id,
            definition=graph.fingerprint,
            input=accepted,
            input_hash=digest(accepted),
            status=RunStatus.QUEUED,
            created_at=now,
            updated_at=now,
            resource_id=self._resource_id,
            state=graph.state.accept(f"initial state of workflow {workflow.id!r}", dict(state or {})),
            request_context=_accepted_context(graph, request_context or {}),
        )
        here, deadline = self._pace(wait)
        snapshot, created = self._app.engine.start(head, here=here, deadline=deadline)
        return self._seen(snapshot, replayed=not created)

    def resume(
        self,
        data: Any = None,
        *,
        step: Step[Any, Any, Any, Any] | str | list[str] | None = None,
        label: str | None = None,
        wait: str | None = None,
        index: int | None = None,
        idempotency_key: str | None = None,
        by: str | None = None,
        via: str = "python",
        drive: timedelta | None = None,
    ) -> RunResult[Out]:
        """Answer a suspension; the step then starts from its top with the data.

        Args:
            data: must fit the step's resume type.
            step: the suspended step: object, id, dotted path or list of ids. Left out: the only open suspension.
            label: the suspension's label, instead of ``step``.
            wait: the id of exactly this suspension; a later one of the same step is not meant.
            index: of the foreach item; left out, every suspended item of the foreach gets the data.
            idempotency_key: a repeated call with the same key and data is told the first one's receipt.
            by: who answers, kept with the answer.
            via: over which channel.
            drive: with a queue, drive the run here for at most this long instead of leaving it to a worker.
        Raises: RunNotFound, InvalidPayload, AlreadyResumed, NotSuspended, AmbiguousWait, UnknownStep, UnknownLabel,
            IndexOutOfRange, IdempotencyKeyReused, DefinitionChanged. The run is untouched then.
        """
        resume = Resume(
            step=_dotted(step),
            label=label,
            wait=wait,
            index=index,
            idempotency_key=idempotency_key,
            digest=digest(_ANYTHING.accept("resume data", data)),
        )
        here, deadline = self._pace(drive)
        snapshot, receipt = self._app.engine.resume(
            self._existing(), data, resume, by=by, via=via, here=here, deadline=deadline
        )
        return self._seen(snapshot, receipt, replayed=receipt.verdict == "duplicate")

    def cancel(self) -> RunResult[Out]:
        """Stop the run for good, from any process. An ended run keeps its status. Raises: RunNotFound."""
        self._app.engine.cancel(self._existing())
        return self.result()

    def result(self, *, with_nested_workflows: bool = True) -> RunResult[Out]:
        """The run as it stands now; on demand without the steps inside nested workflows. Raises: RunNotFound."""
        found = self._seen(self._app.engine.read(self._existing()))
        if with_nested_workflows:
            return found
        return replace(found, steps={id: step for id, step in found.steps.items() if "." not in id})

    def wait(self, timeout: timedelta | None = None) -> RunResult[Out]:
        """Block until the run is suspended or has ended, or for ``timeout``; the run as it stands then.

        Where runs are driven in the calling process, wakes that fall due meanwhile are fired from here.
        """
        app, ref = self._app, self._existing()
        until = None if timeout is None else app.clock.now() + timeout
        while True:
            head = app.store.peek(ref)
            if head is None:
                raise RunNotFound(ref.id)
            now = app.clock.now()
            moves = head.public_status in ("pending", "running", "waiting")
            if not moves or (until is not None and now >= until):
                return self.result()
            wake = head.wake if head.wake is not None and app.queue is None else now + _POLL
            app.clock.wait_until(wake if until is None else min(wake, until))
            if app.queue is None:
                app.look(ref)

    async def start_async(self, input: In, **options: Any) -> RunResult[Out]:
        """``start`` for callers on an event loop; the run is driven in a thread."""
        return await _in_thread(lambda: self.start(input, **options))

    async def resume_async(self, data: Any = None, **options: Any) -> RunResult[Out]:
        """``resume`` for callers on an event loop; the run is driven in a thread."""
        return await _in_thread(lambda: self.resume(data, **options))

    async def wait_async(self, timeout: timedelta | None = None) -> RunResult[Out]:  # noqa: ASYNC109  # as in wait
        """``wait`` for callers on an event loop."""
        return await _in_thread(lambda: self.wait(timeout))

    def _existing(self) -> RunRef:
        if not is_run_id(self._ref.id):
            raise RunNotFound(self._ref.id)
        return self._ref

    def _pace(self, wait: timedelta | None) -> tuple[bool, datetime | None]:
        """Whether to drive here, and until when."""
        if wait is not None:
            return True, self._app.clock.now() + wait
        return self._app.queue is None, None

    def _seen(self, snapshot: Snapshot, receipt: Receipt | None = None, *, replayed: bool = False) -> RunResult[Any]:
        graph = self._app.engine.graphs.get(snapshot.head.workflow)
        if graph is not None and view.has_unloaded(snapshot, graph):
            snapshot = self._app.engine.read(snapshot.head.run)
        return replace(result_of(graph, snapshot), receipt=receipt, replayed=replayed)


def result_of(graph: Graph | None, snapshot: Snapshot) -> RunResult[Any]:
    """What users see of a snapshot; without a graph the output is plain JSON and inputs are missing."""
    head = snapshot.head
    output = head.output
    if head.status is RunStatus.SUCCESS and graph is not None:
        output = graph.gives.decode(head.output)
    return RunResult(
        run_id=head.run.id,
        workflow_id=head.workflow,
        status=head.public_status,
        input=head.input,
        steps=view.steps(graph, snapshot),
        output=output,
        error=head.failure,
        suspended=view.suspended(snapshot),
        waits=view.waits(snapshot),
        state=state_at(snapshot, StepKey(ROOT)),
        blocked=head.blocked if head.status is RunStatus.BLOCKED else None,
        resource_id=head.resource_id,
        trace_id=head.trace_id,
        version=head.version,
        created_at=head.created_at,
        updated_at=head.updated_at,
    )


def _accepted_context(graph: Graph, given: Mapping[str, Any]) -> dict[str, Json]:
    """The request context with the defaults of its declared type; keys that the type does not name are kept."""
    subject = f"request context of workflow {graph.id!r}"
    plain = _CONTEXT.accept(subject, dict(given))
    return {**plain, **graph.request_context.accept(subject, plain)}


def _refuse_duplicates(workflows: list[Workflow[Any, Any]]) -> None:
    seen: set[str] = set()
    for workflow in workflows:
        if workflow.id in seen:
            raise DefinitionError(workflow.id, [Mistake(workflow.id, "is served twice; give one of them another id")])
        seen.add(workflow.id)


def _dotted(step: Any) -> str | None:
    if step is None or isinstance(step, str):
        return step
    if isinstance(step, (list, tuple)):
        return ".".join(part if isinstance(part, str) else part.id for part in step)
    id: str = step.id
    return id


async def _in_thread(call: Callable[[], T]) -> T:
    import asyncio  # noqa: PLC0415  # whoever awaits has it already

    return await asyncio.to_thread(call)
