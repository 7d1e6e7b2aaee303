"""A handle on one run: every call that begins with ``run.``.

A handle remembers nothing: every call reads or changes the stored run, so any number of them, in any processes, see
the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from pydantic import BaseModel

from flowcore import operating, receipts
from flowcore.arrivals import LONGEST_KEEP
from flowcore.authoring.graph import Graph
from flowcore.authoring.step import Step
from flowcore.authoring.workflow import Workflow
from flowcore.codec import Shape, digest
from flowcore.core import view
from flowcore.core.admit import Resume
from flowcore.core.events import Event, events
from flowcore.core.rewind import Given
from flowcore.delegation import delegate
from flowcore.errors import IdempotencyKeyReused, InvalidPayload, MalformedRequest, RunExists, RunNotFound
from flowcore.fields import FIELDS, Needs, RunFields, known, made, needs
from flowcore.handing_out import handed_out
from flowcore.keys import LONGEST_NAME, RunRef, is_name, is_run_id
from flowcore.model import Doors, Head, Json, Receipt, RunStatus, Snapshot, Trace
from flowcore.redrive import redrive
from flowcore.results import RunResult, RunState, result_of
from flowcore.tracing import Tracing, accepted, begun

if TYPE_CHECKING:
    from flowcore.app import App

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")

UNSET: Any = object()
"""Stands for an argument that was left out, where None is a value."""
_LONGEST_CANCELER = 200
"""Characters that find room in any head, however full it is."""
_POLL = timedelta(milliseconds=200)
_ANYTHING: Shape[Any] = Shape(Any)
_CONTEXT: Shape[dict[str, Any]] = Shape(dict[str, Any])


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
        tags: Sequence[str] = (),
        id_given: bool = True,
    ) -> None:
        self._app = app
        self._ref = ref
        self._workflow = workflow
        self._resource_id = resource_id
        self._tags = tags
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
        by: str | None = None,
        tracing: Tracing | None = None,
        wait: timedelta | None = None,
        per_step: bool = False,
    ) -> RunResult[Out]:
        """Start the run. Starting it again with the same input returns the run as it stands.

        Args:
            input: must fit the workflow's input type.
            state: the state the run begins with.
            request_context: values every step can read and change.
            idempotency_key: stands for the run id when none was given: the same key is the same run.
            by: who starts it, kept for life: ``ctx.suspend(allow_self=False)`` does not let that person answer.
            tracing: the trace the run belongs to, and its tags; see ``flowcore.tracing.Tracing``.
            wait: with a queue, drive the run here for at most this long instead of leaving it to a worker.
            per_step: run one step, then pause; ``unpause(per_step=True)`` runs the next. A run that has to wait before
                that, for a sleep, an answer or the children of a foreach, goes on by itself afterwards.
        Raises: InvalidPayload, RunExists, IdempotencyKeyReused, PayloadTooLarge.
        """
        workflow = self._workflow
        if workflow is None:
            raise MalformedRequest("This handle knows no workflow; start runs with app.workflow(id).create_run()")
        _check_text(idempotency_key=idempotency_key, by=by)
        named_by_key = idempotency_key if not self._id_given else None
        if named_by_key is not None:
            self._ref = RunRef(self._ref.tenant, f"k-{digest([self._ref.tenant, workflow.id, named_by_key])}")
        head = new_head(
            self._ref,
            workflow,
            input,
            now=self._app.clock.now(),
            resource_id=self._resource_id,
            started_by=by,
            state=state,
            request_context=request_context,
            trace=begun(tracing, self._tags),
        )
        here, deadline = self._pace(wait)
        try:
            snapshot, created = self._app.engine.start(
                head, here=here or per_step, deadline=deadline, per_step=per_step
            )
        except RunExists:
            if named_by_key is None:
                raise
            raise IdempotencyKeyReused(named_by_key) from None  # the caller has never seen that run's id
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
        version: int | None = None,
        request_context: Mapping[str, Any] | None = None,
        retry_count: int | None = None,
        tracing: Tracing | None = None,
        keep: timedelta | None = None,
        drive: timedelta | None = None,
        per_step: bool = False,
    ) -> RunResult[Out]:
        """Answer a suspension; the step then starts from its top with the data.

        Args:
            data: must fit the step's resume type.
            step: the suspended step: object, id, dotted path or list of ids. Left out: the only open suspension.
            label: the suspension's label, instead of ``step``.
            wait: the id of exactly this suspension; a later one of the same step is not meant.
            index: of the foreach item; left out, every suspended item of the foreach gets the data.
            idempotency_key: a repeated call with the same key and data is told the first one's receipt; with other
                data, by somebody else or for another suspension it is refused.
            by: who answers, kept with the answer.
            via: over which channel.
            version: ``RunResult.version`` that the caller has seen; if the run has moved since, nothing happens.
            request_context: values for the steps that follow; they win over those the run knows.
            retry_count: tries of the step that count as made already.
            tracing: the trace under which the run goes on. Without ids it goes on in a trace of its own, which links to
                the run's. Its tags mark spans; listings find a run by those it was started with.
            keep: where ``step``, named by its whole dotted id, waits for nobody yet, keep the answer for so long: its
                next suspension takes it, unless it waits for one of several things. Not in a loop or a foreach.
            drive: with a queue, drive the run here for at most this long instead of leaving it to a worker.
            per_step: run one step, then pause; ``unpause(per_step=True)`` runs the next. A run that has to wait before
                that, for a sleep, an answer or the children of a foreach, goes on by itself afterwards.
        Raises: RunNotFound, InvalidPayload, AlreadyResumed, NotSuspended, AmbiguousWait, UnknownStep, UnknownLabel,
            IndexOutOfRange, IdempotencyKeyReused, DefinitionChanged, MalformedRequest, VersionMismatch. The run is
            untouched then.
        """
        _check_text(label=label, wait=wait, idempotency_key=idempotency_key, by=by, via=via)
        _check_count(index=index, retry_count=retry_count, version=version)
        _check_keep(keep)
        resume = Resume(
            step=_dotted(step),
            label=label,
            wait=wait,
            index=index,
            idempotency_key=idempotency_key,
            digest=digest(_ANYTHING.accept("resume data", data)),
            by=by,
            via=via,
            version=version,
            request_context=_CONTEXT.accept(*_named_values("request context", request_context)),
            retry_count=retry_count or 0,
            trace=accepted(tracing),
        )
        here, deadline = self._pace(drive)
        snapshot, receipt = self._app.engine.resume(
            self._existing(), data, resume, here=here or per_step, deadline=deadline, keep_for=keep, per_step=per_step
        )
        return self._seen(snapshot, receipt, replayed=receipt.verdict == "duplicate")

    def delegate(
        self,
        *,
        by: str | None,
        to: str,
        step: Step[Any, Any, Any, Any] | str | list[str] | None = None,
        label: str | None = None,
        wait: str | None = None,
        index: int | None = None,
        via: str = "python",
    ) -> RunResult[Out]:
        """Hand the vote of an approver to somebody else, who may hand it on; the suspension stays as it is.

        Whoever gets it votes under his own name, in the approver's place: a person counts once, and so does a vote.
        Doing it twice is doing it once. ``receipt`` says ``delegated``, and so does ``receipts()``.

        Args:
            by: whose vote it is now: an approver, or whom one has handed it to.
            to: who is to vote; must not have a vote there already.
            step, label, wait, index: which suspension, as for ``resume``; left out: the only one open.
            via: over which channel.
        Raises: RunNotFound; NotAnApprover when ``by`` has no vote there; AlreadyResumed when he has voted;
            CannotDelegate; NotSuspended, AmbiguousWait, UnknownStep, UnknownLabel, IndexOutOfRange, MalformedRequest.
        """
        _check_text(by=by, to=to, label=label, wait=wait, via=via)
        _check_count(index=index)
        named = Resume(
            step=_dotted(step), label=label, wait=wait, index=index, digest=digest(["delegate", to]), by=by, via=via
        )
        snapshot, receipt = delegate(self._app.engine, self._existing(), named, to)
        return self._seen(snapshot, receipt, replayed=receipt.verdict == "duplicate")

    def start_items(
        self,
        input: In,
        *,
        state: Mapping[str, Any] | None = None,
        request_context: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        by: str | None = None,
        tracing: Tracing | None = None,
    ) -> list[dict[str, Any]]:
        """What starts the run, as entries for a ``TransactWriteItems`` of your own; arguments as for ``start``.

        The input is checked here and nothing is written to the table: the run begins with your transaction, or not at
        all. What is too large for an item is put into the blob store here; should the transaction fail, it lies there
        until a run of this id is deleted. A condition of ours that fails there means that there is such a run already.
        Call ``app.hint(run_id)`` afterwards; otherwise the sweeper finds the run within a minute or so. ``on_start`` is
        called here.

        Raises: InvalidPayload, PayloadTooLarge; NeedsDynamoDB where the store is another one.
        """
        made: list[Run[Any, Any]] = []

        def begin(app: App) -> RunResult[Any]:
            rest: Any = {"tags": self._tags, "id_given": self._id_given}
            run: Run[In, Out] = Run(app, self._ref, self._workflow, self._resource_id, **rest)
            made.append(run)
            return run.start(
                input,
                state=state,
                request_context=request_context,
                idempotency_key=idempotency_key,
                by=by,
                tracing=tracing,
            )

        items = handed_out(self._app, "run.start_items()", begin)
        self._ref = RunRef(self._ref.tenant, made[0].run_id)  # derived from the idempotency key
        return items

    def resume_items(
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
        request_context: Mapping[str, Any] | None = None,
        retry_count: int | None = None,
        tracing: Tracing | None = None,
    ) -> list[dict[str, Any]]:
        """What answers a suspension, as entries for a ``TransactWriteItems`` of your own; arguments as for ``resume``.

        The answer is checked here and nothing is written. They hold for the run as it stands: a condition of ours that
        fails in your transaction means that somebody else has answered or the run has moved; make them anew then. Call
        ``app.hint(run_id)`` afterwards.

        Raises: what ``resume`` raises; MalformedRequest when there is nothing to write because this very answer was
            given before, or several items of a foreach are meant; NeedsDynamoDB where the store is another one.
        """
        return handed_out(
            self._app,
            "run.resume_items()",
            lambda app: Run(app, self._ref, self._workflow, self._resource_id).resume(
                data,
                step=step,
                label=label,
                wait=wait,
                index=index,
                idempotency_key=idempotency_key,
                by=by,
                via=via,
                request_context=request_context,
                retry_count=retry_count,
                tracing=tracing,
            ),
        )

    def restart(self) -> RunResult[Out]:
        """Have a run under way driven anew from where it stands; finished steps are not repeated, sleeps go on.

        For a run whose worker is believed dead: a worker that still lives is fenced off. An ended run is given back as
        it stands. Raises: RunNotFound; NotActive when the run waits for an answer or is paused.
        """
        here, deadline = self._pace(None)
        return self._seen(operating.restart(self._app.engine, self._existing(), here=here, deadline=deadline))

    def pause(self) -> RunResult[Out]:
        """Stop the run until ``unpause``; answers that come meanwhile are kept. Raises: RunNotFound, NotActive.

        A step at work is not interrupted: what it comes to is stored, and nothing more is begun. Unpause after that: a
        worker that takes up the run before does not know that the step is at work. Where outcomes are kept back
        (``durability="boundary"``) only those of steps that run at most once are stored. What the step asks meanwhile
        is among the run's ``waits``, and in the inbox of all runs (``app.waits``) once the run goes on.
        """
        operating.pause(self._app.engine, self._existing())
        return self.result()

    def unpause(self, *, per_step: bool = False) -> RunResult[Out]:
        """Let a paused or blocked run go on; with ``per_step`` one step, and it is paused again, unless it has to wait.

        Raises: RunNotFound, NotActive.
        """
        here, deadline = self._pace(None)
        engine = self._app.engine
        return self._seen(
            operating.unpause(engine, self._existing(), here=here or per_step, deadline=deadline, per_step=per_step)
        )

    def unblock(self) -> RunResult[Out]:
        """Have a run judged anew that stood still because the code did not fit (``blocked`` says why).

        To be called after a deploy that mends it: hints, also late ones, do not take such a run up. It goes on where it
        stood, or stands still again with the reason of today. So do children of a distributed foreach, which stand
        still without their run. ``flowcore.ops.unblock`` does it for all that would go on.

        Raises: RunNotFound; NotBlocked.
        """
        here, deadline = self._pace(None)
        return self._seen(operating.unblock(self._app.engine, self._existing(), here=here, deadline=deadline))

    def time_travel(
        self,
        step: Step[Any, Any, Any, Any] | str | list[str],
        *,
        input: Any = UNSET,
        context: Mapping[str, Any] | None = None,
        per_step: bool = False,
    ) -> RunResult[Out]:
        """Begin the run anew at ``step``, whatever became of it; suspensions of its earlier life answer no more.

        Args:
            step: object, dotted id or list of ids; ``child.q`` goes into a nested workflow. A foreach that has failed
                goes on where it failed: its finished items are not repeated, unless ``context`` is given. Beside an arm
                the others stay as they are; of a branch those that it chose, and none if it had not chosen this one.
            input: of that step; left out, what stands before it. Entries in front without an output are skipped when it
                is given; behind a skipped one it, or its ``context``, has to be given again.
            context: outputs of entries in front of it, and of arms beside it, by dotted id. Of a branch that was never
                met those arms are taken for which there is one. A sleep has none: one that was never met is skipped.
            per_step: run that one step, then pause.
        Raises: RunNotFound, PartOfRun, UnknownStep, NotRecorded, InvalidPayload; StillRunning while a worker has the
            run, or a child of it, in hand; DefinitionChanged when the code at hand does not fit what stands in front of
            the step or beside it; ConflictError when the run has moved, or somebody was heard in it, meanwhile, and
            while ``on_error`` or ``on_finish`` is still to be told of its end. The run is untouched then.
        """
        here, deadline = self._pace(None)
        snapshot = operating.time_travel(
            self._app.engine,
            self._existing(),
            _dotted(step) or "",
            given=_given(input),
            outputs=_CONTEXT.accept(*_named_values("context", context)),
            here=here or per_step,
            deadline=deadline,
            per_step=per_step,
        )
        return self._seen(snapshot)

    def redrive(self) -> RunResult[Out]:
        """Have a failed run go on from what has failed; everything else that was committed is kept.

        Every step that failed is called again, with its retries from the beginning, the idempotency key it had, what
        its ``ctx.once`` stored and the answer it was resumed with: several arms or items of a foreach all of them. The
        run has a new life then: links to suspensions that were open when it failed answer no more, they suspend anew.
        Also a step that runs at most once and failed with ``MayHaveRun`` is called again: see first how far it came.

        A run that failed without a step: whose output did not fit is brought to its end again, with the type at hand;
        one that was handed on too often goes on; one whose failure could not be stored calls that step again.

        Raises: RunNotFound, PartOfRun; NotFailed, also when the same was asked for twice and the other was faster;
            DefinitionChanged when the code at hand does not fit what the run has done; ConflictError while ``on_error``
            or ``on_finish`` is still to be told of its failure. The run is untouched then.
        """
        here, deadline = self._pace(None)
        return self._seen(redrive(self._app.engine, self._existing(), here=here, deadline=deadline))

    def fork(
        self,
        step: Step[Any, Any, Any, Any] | str | list[str],
        *,
        run_id: str | None = None,
        input: Any = UNSET,
        context: Mapping[str, Any] | None = None,
    ) -> RunResult[Out]:
        """Begin another run at ``step`` with what this one has done before it; this one is left alone.

        Args:
            step: as for ``time_travel``, and so are ``input`` and ``context``.
            run_id: of the new run; left out, one that nobody has.
        Raises: RunNotFound, PartOfRun, RunExists, UnknownStep, NotRecorded, InvalidPayload, MalformedRequest;
            DefinitionChanged when the code at hand does not fit what stands in front of the step or beside it.
        """
        if run_id is not None and not is_run_id(run_id):
            raise MalformedRequest(f"{run_id!r} cannot be a run id; use 1-128 letters, digits and ._:@-")
        here, deadline = self._pace(None)
        snapshot = operating.fork(
            self._app.engine,
            self._existing(),
            RunRef(self._ref.tenant, run_id or self._app.ids.fresh()),
            _dotted(step) or "",
            given=_given(input),
            outputs=_CONTEXT.accept(*_named_values("context", context)),
            here=here,
            deadline=deadline,
        )
        return self._seen(snapshot)

    def delete(self) -> None:
        """Remove the run and all it holds; one under way is canceled first. Raises: RunNotFound, PartOfRun."""
        self._app.engine.delete(self._existing())

    def cancel(self, *, by: str | None = None) -> RunResult[Out]:
        """Stop the run for good, from any process. An ended run keeps its status. Raises: RunNotFound.

        Args:
            by: who cancels, shown as ``canceled_by``; the first 200 characters are kept.
        """
        _check_text(by=by)
        self._app.engine.cancel(self._existing(), by=by[:_LONGEST_CANCELER] if by else None)
        return self.result()

    @overload
    def result(self, *, with_nested_workflows: bool = True) -> RunResult[Out]: ...
    @overload
    def result(self, *, with_nested_workflows: bool = True, fields: Iterable[str]) -> RunFields: ...

    def result(
        self, *, with_nested_workflows: bool = True, fields: Iterable[str] | None = None
    ) -> RunResult[Out] | RunFields:
        """The run as it stands now.

        Args:
            with_nested_workflows: False leaves out the steps inside nested workflows.
            fields: only these, named as in ``RunResult``. No more of the run is read than they need: for its status
                or its output one small item, however many steps it has; for ``progress`` one more for each 200 items.
        Raises: RunNotFound, UnknownField.
        """
        names = known(FIELDS if fields is None else fields)
        graph, snapshot = self._read(needs(names))
        found = made(names, graph, snapshot, self._doors())
        if not with_nested_workflows and "steps" in found:
            found["steps"] = {id: step for id, step in found["steps"].items() if "." not in id}
        if fields is not None:
            return RunFields(found)
        del found["resume_labels"]
        return RunResult(**found)

    def state(self) -> RunState:
        """A reader of the run as it stands now. Raises: RunNotFound."""
        return RunState(self.result())

    def wait(self, timeout: timedelta | None = None) -> RunResult[Out]:
        """Block until the run is suspended or has ended, or for ``timeout``; the run as it stands then.

        Where runs are driven in the calling process, wakes that fall due meanwhile are fired from here.
        """
        app, ref = self._app, self._existing()
        until = None if timeout is None else app.clock.now() + timeout
        while True:
            head = app.engine.peek(ref)
            now = app.clock.now()
            moves = head.public_status in ("pending", "running", "waiting")
            if not moves or (until is not None and now >= until):
                return self.result()
            self._let_pass(head, until)

    def events(self, after: int = 0) -> list[Event]:
        """What has happened to the run, in order, beyond the offset ``after``. Raises: RunNotFound.

        Derived from the run as it stands, so nothing is stored for it: a step that was rewritten since is told with
        its newest outcome and, before it, the last question and answer that led there. What items of a distributed
        foreach have done comes in no order of offsets: ask for all of it, or ``watch``. Of more than a hundred of its
        workers' shares that wait for answers, the first hundred are told of, the others as these are answered.
        """
        engine = self._app.engine
        graph, snapshot = engine.seen(engine.read(self._existing()))
        return [event for event in events(graph, snapshot) if event.offset > after]

    def watch(self, after: int = 0, timeout: timedelta | None = None) -> Iterator[Event]:
        """The run's events beyond ``after`` as they happen, until it is suspended, paused or ended, or for ``timeout``.

        Follows the stored run, so it works from any process; each event comes once. Where runs are driven in the
        calling process, wakes that fall due meanwhile are fired from here. Raises: RunNotFound.
        """
        until = None if timeout is None else self._app.clock.now() + timeout
        seen: set[Event] = set()
        while True:
            head = self._app.store.peek(self._existing())
            for event in self.events(after):
                if event not in seen:
                    seen.add(event)
                    yield event
            is_over = until is not None and self._app.clock.now() >= until
            if head is None or is_over or head.public_status not in ("pending", "running", "waiting"):
                return
            self._let_pass(head, until)

    def receipts(self) -> list[Receipt]:
        """What became of each answer that has come for this run, the newest last. Raises: RunNotFound.

        What counted is told by the run's own records. A copy, an answer that came too late or did not fit is kept
        beside them: once, then counted in ``times``; at most 200 of them, what comes beyond that is counted in one
        more. They go with the run.
        """
        return receipts.of(self._app.engine, self._existing())

    def _let_pass(self, head: Head, until: datetime | None) -> None:
        """Wait a little, or here, where nobody else fires it, for the run's wake; at most ``until``."""
        app = self._app
        wake = head.wake if head.wake is not None and app.queue is None else app.clock.now() + _POLL
        app.clock.wait_until(wake if until is None else min(wake, until))
        if app.queue is None:
            app.look(head.run)

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

    def _read(self, needs: Needs) -> tuple[Graph | None, Snapshot]:
        """As much of the run as is needed. Raises: RunNotFound."""
        engine, ref = self._app.engine, self._existing()
        if needs is Needs.HEAD:
            snapshot = Snapshot(head=engine.peek(ref))
        elif needs is Needs.FANS:
            snapshot = engine.counted(ref)
        else:
            snapshot = engine.read(ref, everything=needs is Needs.ALL)
        return engine.seen(snapshot)

    def _pace(self, wait: timedelta | None) -> tuple[bool, datetime | None]:
        """Whether to drive here, and until when."""
        if wait is not None:
            return True, self._app.clock.now() + wait
        return self._app.queue is None, None

    def _seen(self, snapshot: Snapshot, receipt: Receipt | None = None, *, replayed: bool = False) -> RunResult[Any]:
        graph, snapshot = self._app.engine.seen(snapshot)
        if graph is not None and (graph.fans_out or view.has_unloaded(snapshot, graph)):
            graph, snapshot = self._app.engine.seen(self._app.engine.read(snapshot.head.run))
        return replace(result_of(graph, snapshot, self._doors()), receipt=receipt, replayed=replayed)

    def _doors(self) -> Doors | None:
        return self._app.engine.doors(self._ref.tenant)


def new_head(
    ref: RunRef,
    workflow: Workflow[Any, Any],
    input: Any,
    *,
    now: datetime,
    resource_id: str | None,
    started_by: str | None = None,
    state: Mapping[str, Any] | None,
    request_context: Mapping[str, Any] | None,
    trace: Trace,
) -> Head:
    """The head that a run begins with, not yet stored. Raises: InvalidPayload."""
    graph = workflow.compiled
    accepted = graph.takes.accept(f"input of workflow {workflow.id!r}", input)
    return Head(
        run=ref,
        workflow=workflow.id,
        definition=graph.fingerprint,
        input=accepted,
        input_hash=digest(accepted),
        status=RunStatus.QUEUED,
        created_at=now,
        updated_at=now,
        resource_id=resource_id,
        started_by=started_by,
        state=graph.state.accept(*_named_values(f"initial state of workflow {workflow.id!r}", state)),
        request_context=_accepted_context(graph, request_context),
        trace=trace,
    )


def _named_values(subject: str, given: Any) -> tuple[str, dict[str, Any]]:
    """What a caller gave as a mapping (nothing, a dict, a model), as a dict. Raises: InvalidPayload."""
    if given is None:
        return subject, {}
    if not isinstance(given, (Mapping, BaseModel)):
        message = f"Input should be a mapping of names to values (found {type(given).__name__})"
        raise InvalidPayload(subject, [{"path": "", "message": message, "type": "mapping"}])
    return subject, dict(given)


def _accepted_context(graph: Graph, given: Any) -> dict[str, Json]:
    """The request context with the defaults of its declared type; keys that the type does not name are kept."""
    subject, values = _named_values(f"request context of workflow {graph.id!r}", given)
    plain = _CONTEXT.accept(subject, values)
    return {**plain, **graph.request_context.accept(subject, plain)}


def _given(input: Any) -> Given | None:
    return None if input is UNSET else Given(input)


def _check_text(**given: Any) -> None:
    """Raises: MalformedRequest for what is no text that can be stored, or more than anybody would write."""
    for name, text in given.items():
        if text is not None and not is_name(text):
            told = f"{text[:50]!r}..." if isinstance(text, str) and len(text) > 50 else repr(text)
            raise MalformedRequest(f"{name}={told} must be text of 1 to {LONGEST_NAME} characters")


def _check_count(**given: Any) -> None:
    """Raises: MalformedRequest for what is no whole number; a bool is none."""
    for name, number in given.items():
        if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
            raise MalformedRequest(f"{name}={number!r} must be a whole number, not {type(number).__name__}")
    if (given.get("retry_count") or 0) < 0:
        raise MalformedRequest(f"retry_count={given['retry_count']} is below 0")


def _check_keep(keep: Any) -> None:
    """Raises: MalformedRequest for what is no time that an answer could be kept."""
    if keep is not None and not (isinstance(keep, timedelta) and timedelta(0) < keep <= LONGEST_KEEP):
        raise MalformedRequest(f"keep={keep} keeps nothing; give a timedelta above 0, at most {LONGEST_KEEP.days} days")


def _dotted(step: Any) -> str | None:
    """The dotted id of what a caller named. Raises: MalformedRequest."""
    if step is None or isinstance(step, str):
        return step
    if isinstance(step, (list, tuple)):
        return ".".join(_dotted(part) or "" for part in step)
    if not isinstance(step, Step):
        raise MalformedRequest(f"{step!r} names no step; give the step itself, its dotted id, or a list of ids")
    return step.id


async def _in_thread(call: Callable[[], T]) -> T:
    import asyncio  # noqa: PLC0415  # whoever awaits has it already

    return await asyncio.to_thread(call)
