"""The builder: ``workflow(...).then(...).parallel(...).commit()``. Collects entries; ``compile.py`` judges them.

Every verb returns a new builder and leaves the old one as it was, so a common beginning may be shared. The builder's
third type parameter is the type of the value at this point: a chain that does not fit is an error in the type checker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, overload

from typing_extensions import TypeVar

from flowcore.authoring.compile import compile_workflow
from flowcore.authoring.context import FunctionContext
from flowcore.authoring.definition import MISSING, Definition, Entry, Kind, Options
from flowcore.authoring.graph import Backoff, Durability, Graph, Hooks
from flowcore.authoring.step import FAIL, Step, misused_retries
from flowcore.codec import Shape, Unchecked

if TYPE_CHECKING:
    from flowcore.authoring.drawing.standing import Run as DrawnRun

I = TypeVar("I", default=Any)  # noqa: E741  # input of the workflow
O = TypeVar("O", default=Any)  # noqa: E741  # output of the workflow
Now = TypeVar("Now", covariant=True, default=Any)
WIn = TypeVar("WIn", contravariant=True, default=Any)
WOut = TypeVar("WOut", covariant=True, default=Any)
T = TypeVar("T")
M = TypeVar("M")
_I = TypeVar("_I")
_O = TypeVar("_O")


class Otherwise:
    """The type of ``otherwise``: the arm of a branch that runs when no other does.

    Example:
        >>> from flowcore import App, otherwise, step, workflow
        >>> @step
        ... def small(number: int) -> str:
        ...     return "small"
        >>> @step
        ... def large(number: int) -> str:
        ...     return "large"
        >>> sizes = workflow("sizes", input=int).branch((lambda number: number > 9, large), (otherwise, small)).commit()
        >>> App(sizes).workflow(sizes).create_run().start(7).output
        {'small': 'small'}
    """

    def __repr__(self) -> str:
        return "otherwise"


otherwise = Otherwise()
"""Stands in place of a condition in ``branch``: this arm runs when no other did."""

_C = TypeVar("_C")
Maybe: TypeAlias = T | Awaitable[T]
Condition: TypeAlias = Callable[[_C], Maybe[bool]] | Callable[[_C, FunctionContext], Maybe[bool]]
Hook: TypeAlias = Callable[[Any], Any]
"""A hook, ``def`` or ``async def``: ``on_start`` takes the run's ``StartRecord``, the others its ``RunResult``."""
Computed: TypeAlias = Callable[[_C], Maybe[T]] | Callable[[_C, FunctionContext], Maybe[T]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Workflow(Step[WIn, WOut, Any, Any], Generic[WIn, WOut]):
    """A committed workflow; also a step of other workflows. Serve it with an ``App``.

    Example:
        >>> from flowcore import step, workflow
        >>> @step
        ... def double(number: int) -> int:
        ...     return 2 * number
        >>> workflow("twice", input=int, output=int).then(double).commit().id
        'twice'
    """

    definition: Definition = field(repr=False)
    compiled: Graph = field(repr=False)

    def clone(self, *, id: str) -> Workflow[WIn, WOut]:
        """The same workflow under another id."""
        return _workflow_of(replace(self.definition, id=id))

    def graph(self, *, schemas: bool = False) -> dict[str, Any]:
        """The workflow as plain JSON, nested ones inside; ``schemas``: with the JSON Schema of every door."""
        from flowcore.authoring.describe import describe  # noqa: PLC0415  # a worker that draws nothing loads nothing

        return describe(self.compiled, schemas=schemas)

    def to_mermaid(self, run: DrawnRun = None) -> str:
        """The workflow as a Mermaid flowchart; coloured by ``run``, a RunResult or a mapping of dotted id to status."""
        from flowcore.authoring.drawing.mermaid import mermaid  # noqa: PLC0415  # as above

        return mermaid(self.graph(), run)

    def to_svg(self, run: DrawnRun = None) -> str:
        """The workflow as an SVG picture; coloured by ``run``, a RunResult or a mapping of dotted id to status."""
        from flowcore.authoring.drawing.svg import svg  # noqa: PLC0415  # as above

        return svg(self.graph(), run)


class Commit:
    """Freeze the workflow. Raises: DefinitionError with every mistake found.

    A descriptor and no method, because mypy holds the argument of ``__get__``, but not a declared ``self``, against the
    type parameters: that the last value fits the workflow's output is an error in both type checkers only like this.
    """

    @overload
    def __get__(self, builder: None, owner: type[Any]) -> Commit: ...
    @overload
    def __get__(
        self, builder: WorkflowBuilder[_I, _O, _O], owner: type[Any] | None = None
    ) -> Callable[[], Workflow[_I, _O]]: ...

    def __get__(self, builder: Any, owner: type[Any] | None = None) -> Any:
        """The call that freezes what ``builder`` has collected."""
        return self if builder is None else lambda: _workflow_of(builder.definition)


@dataclass(frozen=True, slots=True)
class WorkflowBuilder(Generic[I, O, Now]):
    """A workflow in the making: its options and the entries so far."""

    definition: Definition

    @property
    def id(self) -> str:
        """The workflow's id."""
        return self.definition.id

    def then(
        self, step: Step[Now, T, Any, Any], *, id: str | None = None, description: str = ""
    ) -> WorkflowBuilder[I, O, T]:
        """Run ``step`` with the value; its output is the next value."""
        return self._with("then", id, description, steps=(step,))

    @overload
    def parallel(
        self, *steps: Step[Now, Any, Any, Any], into: type[M], id: str | None = None, description: str = ""
    ) -> WorkflowBuilder[I, O, M]: ...
    @overload
    def parallel(
        self, *steps: Step[Now, Any, Any, Any], into: None = None, id: str | None = None, description: str = ""
    ) -> WorkflowBuilder[I, O, dict[str, Any]]: ...

    def parallel(
        self, *steps: Any, into: Any = None, id: str | None = None, description: str = ""
    ) -> WorkflowBuilder[I, O, Any]:
        """Run all ``steps`` at once with the value. The next value is a dict keyed by step id, or ``into`` made of it.

        A failed step fails the workflow once its siblings are done, failed or suspended.
        """
        return self._with("parallel", id, description, steps=steps, into=into)

    @overload
    def branch(
        self,
        *arms: tuple[Condition[Now] | Otherwise, Step[Now, Any, Any, Any]],
        into: type[M],
        id: str | None = None,
        description: str = "",
    ) -> WorkflowBuilder[I, O, M]: ...
    @overload
    def branch(
        self,
        *arms: tuple[Condition[Now] | Otherwise, Step[Now, Any, Any, Any]],
        into: None = None,
        id: str | None = None,
        description: str = "",
    ) -> WorkflowBuilder[I, O, dict[str, Any]]: ...

    def branch(
        self, *arms: Any, into: Any = None, id: str | None = None, description: str = ""
    ) -> WorkflowBuilder[I, O, Any]:
        """Run every arm whose condition is true, together; ``(otherwise, step)`` runs when none is.

        Conditions are evaluated once and the choice is stored. The next value is a dict keyed by the ids that ran.
        """
        pairs = [arm if isinstance(arm, tuple) and len(arm) == 2 else (MISSING, arm) for arm in arms]
        conditions = tuple(None if isinstance(c, Otherwise) else MISSING if c is None else c for c, _ in pairs)
        steps = tuple(step for _, step in pairs)
        return self._with("branch", id, description, steps=steps, functions=conditions, into=into)

    def dowhile(
        self, step: Step[Now, T, Any, Any], condition: Condition[T], *, id: str | None = None, description: str = ""
    ) -> WorkflowBuilder[I, O, T]:
        """Run ``step`` at least once, and again on its own output while ``condition`` holds."""
        return self._with("dowhile", id, description, steps=(step,), functions=(condition,))

    def dountil(
        self, step: Step[Now, T, Any, Any], condition: Condition[T], *, id: str | None = None, description: str = ""
    ) -> WorkflowBuilder[I, O, T]:
        """Run ``step`` at least once, and again on its own output until ``condition`` holds."""
        return self._with("dountil", id, description, steps=(step,), functions=(condition,))

    @overload
    def foreach(
        self: WorkflowBuilder[I, O, list[M]],
        step: Step[M, T, Any, Any],
        *,
        concurrency: float | Computed[list[M], float] | None = None,
        distributed: bool = False,
        shard: int | None = None,
        id: str | None = None,
        description: str = "",
    ) -> WorkflowBuilder[I, O, list[T]]: ...
    @overload
    def foreach(
        self: WorkflowBuilder[I, O, list[M]],
        step: Step[M, T, Any, Any],
        *,
        concurrency: float | Computed[list[M], float] | None = None,
        distributed: bool = False,
        shard: int | None = None,
        tolerated_failures: float,
        min_successful: float | None = None,
        id: str | None = None,
        description: str = "",
    ) -> WorkflowBuilder[I, O, list[T | None]]: ...
    @overload
    def foreach(
        self: WorkflowBuilder[I, O, list[M]],
        step: Step[M, T, Any, Any],
        *,
        concurrency: float | Computed[list[M], float] | None = None,
        distributed: bool = False,
        shard: int | None = None,
        min_successful: float,
        id: str | None = None,
        description: str = "",
    ) -> WorkflowBuilder[I, O, list[T | None]]: ...

    def foreach(
        self: WorkflowBuilder[I, O, list[M]],
        step: Step[M, Any, Any, Any],
        *,
        concurrency: float | Computed[list[M], float] | None = None,
        distributed: bool = False,
        shard: int | None = None,
        tolerated_failures: float = 0,
        min_successful: float | None = None,
        id: str | None = None,
        description: str = "",
    ) -> WorkflowBuilder[I, O, Any]:
        """Run ``step`` once per item, at most ``concurrency`` items open at a time; outputs in item order.

        A ``concurrency`` below 1 means 1, and a fraction is cut. Left out it is 1, or all items when ``distributed``.
        However large, at most 1,000 items run at the same time in one worker; those that sleep or wait for an answer
        do not count.

        ``tolerated_failures`` items may fail, each giving None: a count, or a share of the items below 1. Or say how
        many must succeed, ``min_successful``, in the same way; of both the stricter one counts. With more items than
        that the foreach goes through all of them; with fewer it fails before it begins.

        ``distributed=True`` spreads the items over as many workers as there are: each worker takes ``shard`` of them,
        drives them all at once, and hands in what came out. Left out, every item has a worker of its own up to a
        hundred; of more, a hundred workers take a share each, of at most fifty. What comes out is the same; but an
        item sees the shared state as it was when the foreach began, not what other items have changed, and once a
        failure or a bail has decided how the foreach ends, the items behind it are canceled.

        Whoever wakes the run reads a record for each item done so far. Where thousands of items suspend or sleep, give
        the foreach lists of a hundred, and a nested workflow with a foreach of its own as the step: of a list that is
        done only one record is read.
        """
        functions = (concurrency, tolerated_failures, min_successful, distributed, shard)
        return self._with("foreach", id, description, steps=(step,), functions=functions)

    @overload
    def map(
        self, source: Mapping[str, Any], *, id: str | None = None, description: str = ""
    ) -> WorkflowBuilder[I, O, Any]: ...
    @overload
    def map(
        self, source: Callable[[Now], T], *, id: str | None = None, description: str = ""
    ) -> WorkflowBuilder[I, O, T]: ...
    @overload
    def map(
        self, source: Callable[[Now, FunctionContext], T], *, id: str | None = None, description: str = ""
    ) -> WorkflowBuilder[I, O, T]: ...

    def map(self, source: Any, *, id: str | None = None, description: str = "") -> WorkflowBuilder[I, O, Any]:
        """Make the next value of this one: by a function, or by a dict with one source per key.

        Sources: ``{"value": x}``, ``{"fn": f}``, ``{"step": s, "path": "a.b"}``, ``{"init_data": "a.b"}``,
        ``{"state": "a.b"}``, ``{"request_context": "a.b"}``, ``{"template": "Order ${init_data.id}"}``.
        """
        return self._with("map", id, description, functions=(source,))

    def sleep(
        self, pause: timedelta | Computed[Now, timedelta], *, id: str | None = None, description: str = ""
    ) -> WorkflowBuilder[I, O, Now]:
        """Wait for ``pause``, of any length, at no cost; the value passes through. Zero or less does not wait."""
        return self._with("sleep", id, description, functions=(pause,))

    def sleep_until(
        self, instant: datetime | Computed[Now, datetime], *, id: str | None = None, description: str = ""
    ) -> WorkflowBuilder[I, O, Now]:
        """Wait until ``instant`` (aware), however far; the value passes through. The past does not wait."""
        return self._with("sleep_until", id, description, functions=(instant,))

    @overload
    def wait_for_event(
        self,
        name: str,
        *,
        key: str | Computed[Now, str],
        model: type[M],
        timeout: timedelta,
        on_timeout: None,
        id: str | None = None,
        description: str = "",
    ) -> WorkflowBuilder[I, O, M | None]: ...
    @overload
    def wait_for_event(
        self,
        name: str,
        *,
        key: str | Computed[Now, str],
        model: type[M],
        timeout: timedelta | None = None,
        on_timeout: M | Step[Now, M, Any, Any] | Literal["fail"] = "fail",
        id: str | None = None,
        description: str = "",
    ) -> WorkflowBuilder[I, O, M]: ...
    @overload
    def wait_for_event(
        self,
        name: str,
        *,
        key: str | Computed[Now, str],
        model: None = None,
        timeout: timedelta | None = None,
        on_timeout: Any = FAIL,
        id: str | None = None,
        description: str = "",
    ) -> WorkflowBuilder[I, O, Any]: ...

    def wait_for_event(
        self,
        name: str,
        *,
        key: Any,
        model: Any = None,
        timeout: timedelta | None = None,
        on_timeout: Any = FAIL,
        id: str | None = None,
        description: str = "",
    ) -> WorkflowBuilder[I, O, Any]:
        """Wait for ``app.send_event(name, key, data)``; the data is the next value. One event settles one wait.

        An event that was sent before this entry is reached, and that nobody took, is taken here, the oldest first.

        Args:
            key: what the event is about (an order, a user), or a function of the value that says so.
            model: type that the data must fit; events that do not are refused or passed over.
            timeout: after this long without an event ``on_timeout`` happens.
            on_timeout: ``"fail"``, the default: the workflow fails with ``EventTimeout``. A step: it runs in the place
                of this entry, with the value that stands before it. Anything else is the next value, None included.
        """
        functions = (name, key, timeout, on_timeout)
        return self._with("wait_for_event", id, description, functions=functions, into=model)

    def renamed(self, former: str, *, to: str) -> WorkflowBuilder[I, O, Now]:
        """Say that the entry ``to`` was called ``former`` before: runs that have met it under that name go on.

        Such a run keeps the old name, in its results, its wait links and its idempotency keys; answers that name the
        step may use either. Leave it in for as long as such runs are under way. Entries without an ``id=`` of their own
        are named after their neighbours, so a rename may change their ids, too.
        """
        return WorkflowBuilder(replace(self.definition, renames=(*self.definition.renames, (former, to))))

    def removed(self, *ids: str) -> WorkflowBuilder[I, O, Now]:
        """Say that entries of these ids are gone on purpose: runs that have met one go on without.

        What it gave is not passed on, a suspension of it is over without an answer; what it set in the state stays.
        """
        return WorkflowBuilder(replace(self.definition, removals=(*self.definition.removals, *ids)))

    commit = Commit()

    def _with(
        self,
        kind: Kind,
        id: str | None,
        description: str,
        *,
        steps: tuple[Any, ...] = (),
        functions: tuple[Any, ...] = (),
        into: Any = None,
    ) -> WorkflowBuilder[I, O, Any]:
        entry = Entry(kind=kind, id=id, description=description, steps=steps, functions=functions, into=into)
        return WorkflowBuilder(replace(self.definition, entries=(*self.definition.entries, entry)))


@overload
def workflow(
    id: str,
    *,
    input: type[I],
    output: type[O],
    state: Any = None,
    request_context: Any = None,
    description: str = "",
    retries: int = 0,
    backoff: Backoff | timedelta | None = None,
    validate_inputs: bool = True,
    validate_outputs: bool = True,
    metadata: Mapping[str, Any] | None = None,
    on_start: Hook | None = None,
    on_suspend: Hook | None = None,
    on_finish: Hook | None = None,
    on_error: Hook | None = None,
    retention: timedelta | None = None,
    durability: Durability = "step",
) -> WorkflowBuilder[I, O, I]: ...
@overload
def workflow(
    id: str,
    *,
    input: Any = Any,
    output: Any = Any,
    state: Any = None,
    request_context: Any = None,
    description: str = "",
    retries: int = 0,
    backoff: Backoff | timedelta | None = None,
    validate_inputs: bool = True,
    validate_outputs: bool = True,
    metadata: Mapping[str, Any] | None = None,
    on_start: Hook | None = None,
    on_suspend: Hook | None = None,
    on_finish: Hook | None = None,
    on_error: Hook | None = None,
    retention: timedelta | None = None,
    durability: Durability = "step",
) -> WorkflowBuilder[Any, Any, Any]: ...


def workflow(
    id: str,
    *,
    input: Any = Any,
    output: Any = Any,
    state: Any = None,
    request_context: Any = None,
    description: str = "",
    retries: int = 0,
    backoff: Backoff | timedelta | None = None,
    validate_inputs: bool = True,
    validate_outputs: bool = True,
    metadata: Mapping[str, Any] | None = None,
    on_start: Hook | None = None,
    on_suspend: Hook | None = None,
    on_finish: Hook | None = None,
    on_error: Hook | None = None,
    retention: timedelta | None = None,
    durability: Durability = "step",
) -> WorkflowBuilder[Any, Any, Any]:
    """Begin a workflow.

    Args:
        input: type of what a run is started with.
        output: type of what a run ends with; the last value must fit it.
        state: type of the state its steps share; without it, a dict with any keys.
        request_context: type that the request context must fit at the start; it may hold other keys as well.
        retries: further tries for steps that do not say themselves.
        backoff: the pause before the second try, or a whole ``Backoff``.
        validate_inputs: False: what goes into the run and its steps is neither checked nor completed with defaults:
            inputs, resume data, suspend payloads, state, request context. A step still gets the declared model where
            one can be built of what has come, and the plain value where none can.
        validate_outputs: False: the same for what comes out, of steps, of functions of ``map`` and of the run. A nested
            workflow keeps its own two settings.
        on_start: called with a ``StartRecord`` before a run is written for the first time; what it raises refuses the
            start, and the run stays startable. Of two starts that race for one run id both may call it.
        on_suspend: called with the ``RunResult`` each time a run becomes suspended after something has happened in it;
            that somebody was reminded, or the run paused meanwhile, is nothing.
        on_finish: called with the ``RunResult`` when a run has succeeded, failed or been canceled.
        on_error: called with the ``RunResult`` when a run has failed; ``on_finish`` is called as well, after it.
        retention: how long a run is kept after it has ended; then it counts as gone and is removed. Left out: as the
            App or the deployment says, for ever unless told otherwise. A run that has not ended is never removed. At
            most a century.
        durability: ``"step"``: each outcome is stored before the next step begins. ``"boundary"``: outcomes are kept in
            memory and stored together when the run suspends, sleeps, waits for a retry, is handed on or ends, in one
            request. A worker that dies loses those since then, and their steps run again; all else is the same. A step
            with ``semantics="at_most_once"``, ``ctx.once`` and ``ctx.emit`` are stored at once all the same. What a
            workflow says that is a step of another does not count.

    What ``on_suspend``, ``on_finish`` and ``on_error`` raise is logged and changes nothing. Each is called once per
    outcome, however often hints are delivered and however many workers look; only a worker (or a store) that dies
    between the call and the write after it has the call repeated, by whoever looks once its lease is over. A suspension
    that is over by then is not told any more. Only the run's own hooks are called, not those of nested workflows.

    Example:
        >>> from flowcore import step, workflow
        >>> @step
        ... def double(number: int) -> int:
        ...     return 2 * number
        >>> flow = workflow("four-times", input=int, output=int).then(double).then(double, id="again").commit()
    """
    mistakes = tuple(misused_retries(retries, backoff))
    inward, outward = (Shape if checks else Unchecked for checks in (validate_inputs, validate_outputs))
    options = Options(
        input=inward(input),
        output=outward(output),
        state=inward(dict[str, Any] if state is None else state),
        request_context=inward(dict[str, Any] if request_context is None else request_context),
        validate_inputs=validate_inputs,
        validate_outputs=validate_outputs,
        retries=retries,
        backoff=Backoff() if backoff is None or mistakes else Backoff.of(backoff),
        mistakes=mistakes,
        metadata=dict(metadata or {}),
        hooks=Hooks(on_start=on_start, on_suspend=on_suspend, on_finish=on_finish, on_error=on_error),
        retention=retention,
        durability=durability,
    )
    return WorkflowBuilder(Definition(id=id, description=description, options=options))


def _workflow_of(definition: Definition) -> Workflow[Any, Any]:
    graph = compile_workflow(definition)
    return Workflow(
        id=definition.id,
        execute=_not_callable,
        input=graph.takes,
        output=graph.gives,
        resume=Shape(Any),
        suspend=Shape(Any),
        state=graph.state,
        request_context=graph.request_context,
        description=definition.description,
        metadata=definition.options.metadata,
        definition=definition,
        compiled=graph,
    )


def _not_callable(*_: Any) -> Any:
    raise TypeError("a workflow is not called; run it with App(workflow).workflow(id).create_run().start(input)")
