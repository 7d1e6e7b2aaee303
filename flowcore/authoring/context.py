"""What a step may ask and do while it runs: ``StepContext``, and the two signals by which it leaves early.

A context is made by the runner for one try of one step and is of no use afterwards. It changes nothing by itself: what
a step asks for is collected here and committed with the step's outcome.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, overload

from typing_extensions import TypeVar

from flowcore.authoring.effects import MOST, Effect, checked
from flowcore.authoring.option import Option
from flowcore.codec import Shape
from flowcore.model import Json, Wait

if TYPE_CHECKING:
    from flowcore.authoring.step import Step

Resume = TypeVar("Resume", default=None)
Suspend = TypeVar("Suspend", default=None)
State = TypeVar("State", default=None)
T = TypeVar("T")

_LOGGER = logging.getLogger("flowcore.step")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a step asks for about its suspension, as it was said: checked by the runner."""

    on_timeout: Any = None
    key: str | None = None
    notify: Callable[[Wait[Any]], Any] | None = None
    remind: Sequence[timedelta] = ()
    approvers: Sequence[str] = ()
    quorum: int = 1
    veto: str | None = None
    allow_self: bool = True
    escalate: Mapping[int, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote(Generic[T]):
    """One of the answers that a quorum was made of.

    Example:
        >>> from datetime import UTC, datetime
        >>> from flowcore.authoring.context import Vote
        >>> Vote(by="ada", at=datetime(2026, 3, 1, tzinfo=UTC), data=True).by
        'ada'
    """

    by: str
    at: datetime
    data: T
    on_behalf_of: str | None = None
    """The approver in whose place ``by`` voted."""


class SuspendSignal(BaseException):
    """Leaves a step that waits for an answer. A ``BaseException``, so that ``except Exception`` lets it through."""

    def __init__(
        self,
        payload: Any,
        timeout: timedelta | None,
        label: str | None,
        asked: Asked,
        options: Sequence[Option[Any]] | None = None,
    ) -> None:
        super().__init__("this step suspends; let this signal pass")
        self.options = options
        """Of which one is enough; None: there is no choice."""
        self.payload = payload
        self.timeout = timeout
        self.label = label
        self.asked = asked


class BailSignal(BaseException):
    """Leaves a step and ends its workflow with a result."""

    def __init__(self, output: Any) -> None:
        super().__init__("this step bails out; let this signal pass")
        self.output = output


class LateSignal(BaseException):
    """Stops a try that goes on after its deadline, as soon as it wants something of its context."""

    def __init__(self) -> None:
        super().__init__("this try of the step has timed out; let this signal pass")


class Flag(Protocol):
    """Something a long step can look at, like ``threading.Event``."""

    def is_set(self) -> bool:
        """Whether it has happened."""
        ...


class RequestContext(MutableMapping[str, Any]):
    """The request context as a step sees it; remembers what the step changed."""

    def __init__(self, values: Mapping[str, Json]) -> None:
        self._values = dict(values)
        self.changed: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._values[key] = value
        self.changed.add(key)

    def __delitem__(self, key: str) -> None:
        del self._values[key]
        self.changed.add(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@dataclass(slots=True, kw_only=True)
class Surroundings:
    """What the runner hands to a context: plain JSON values and the ways back to the store."""

    init: Json
    init_shape: Shape[Any]
    state: Mapping[str, Json]
    state_shape: Shape[Any]
    result_of: Callable[[str], tuple[Shape[Any], Json] | None]
    once: Callable[[str, Callable[[], Any]], Any]
    remaining: Callable[[], timedelta]
    emit: Callable[[Any], None]
    heed: Callable[[], None] = lambda: None
    """Stops the caller when its time is over: raises ``LateSignal``."""
    heartbeat: Callable[[Any], bool] = lambda _: True
    heartbeat_details: Json = None


@dataclass(slots=True, kw_only=True, eq=False)
class StepContext(Generic[Resume, Suspend, State]):
    """The run around a step, and what the step can do besides returning.

    Example:
        >>> from flowcore import StepContext, step
        >>> @step
        ... def charge(amount: int, ctx: StepContext) -> str:
        ...     return ctx.once("receipt", lambda: f"paid {amount} under {ctx.idempotency_key}")
    """

    run_id: str
    workflow_id: str
    step_id: str
    resource_id: str | None
    attempt: int
    """Which try this is, from 1; a resume starts again at 1."""
    idempotency_key: str
    """The same on every try of this step in this run, loop turn and foreach item; hand it to payment providers."""
    resume_data: Resume | None = None
    """The answer to this step's suspension; None on the first pass and after a timeout."""
    suspend_data: Suspend | None = None
    """What this step showed when it last suspended."""
    votes: tuple[Vote[Resume], ...] = ()
    """What everybody has answered whom the last suspension's quorum needed, in order."""
    chosen: str | None = None
    """Of ``suspend_any``: the name of the option that was answered; None after a timeout."""
    timed_out: bool = False
    """Whether the last suspension ended by its timeout instead of an answer."""
    iteration: int | None = None
    """The turn of the innermost loop, from 1; None outside loops."""
    index: int | None = None
    """The item of the innermost foreach, from 0; None outside foreach."""
    request_context: RequestContext
    cancelled: Flag
    """Set once the run is canceled or this try has timed out; a long step can look at it and stop."""
    surroundings: Surroundings = field(repr=False)
    set_values: list[Any] = field(default_factory=list, repr=False)
    effects: list[Effect] = field(default_factory=list, repr=False)
    left_by: str | None = field(default=None, repr=False)
    """The call that the step should have left by; one that goes on has caught what is not for it to catch."""

    @property
    def retry_count(self) -> int:
        """``attempt`` counted from 0."""
        return self.attempt - 1

    @property
    def state(self) -> State:
        """The workflow's state when this try began; ``set_state`` does not change it."""
        value: State = self.surroundings.state_shape.decode(self.surroundings.state)
        return value

    def set_state(self, new: State | Mapping[str, Any]) -> None:
        """Change the state for the steps that follow: the given keys, or the fields set on the given model.

        Committed with the step's outcome; dropped when the step fails. Several calls add up.
        """
        self.surroundings.heed()
        self.set_values.append(new)

    @property
    def init_data(self) -> Any:
        """The input of the workflow this step stands in."""
        return self.surroundings.init_shape.decode(self.surroundings.init)

    def get_init_data(self, model: type[T]) -> T:
        """The input of the workflow this step stands in, as ``model``. Raises: pydantic.ValidationError."""
        return Shape[T](model).decode(self.surroundings.init)

    @overload
    def get_step_result(self, step: Step[Any, T, Any, Any]) -> T | None: ...
    @overload
    def get_step_result(self, step: str) -> Any: ...

    def get_step_result(self, step: Any) -> Any:
        """The output of an earlier step of this workflow, by object or (dotted) id; None when it has none."""
        found = self.surroundings.result_of(step if isinstance(step, str) else step.id)
        return None if found is None else found[0].decode(found[1])

    def suspend(
        self,
        payload: Suspend | None = None,
        *,
        timeout: timedelta | None = None,
        on_timeout: Any = None,
        label: str | None = None,
        key: str | None = None,
        notify: Callable[[Wait[Suspend]], Any] | None = None,
        remind: Sequence[timedelta] = (),
        approvers: Sequence[str] = (),
        quorum: int = 1,
        veto: str | None = None,
        allow_self: bool = True,
        escalate: Mapping[int, Sequence[str]] | None = None,
    ) -> NoReturn:
        """Stop here until somebody answers; the step then starts from its top with ``resume_data``.

        Args:
            payload: shown to whoever must answer; must fit the declared suspend type.
            timeout: after this long without an answer ``on_timeout`` happens.
            on_timeout: None: the step starts again with ``timed_out`` true. ``"fail"``: it fails with
                ``SuspendTimeout``. A step that ``@step(stand_ins=[...])`` names: it runs in this one's place, from its
                top and with the same input, and what it gives is this step's output; it may retry, suspend and have
                stand-ins itself. Anything else is the output, without another call.
            label: another name by which to resume.
            key: ``app.send_event(name, key, data)`` answers as well, ``name`` being the label, else the step's id. An
                event that came before this is taken. Not together with ``approvers`` or ``quorum``: an event has no
                name.
            notify: a function of the step's module that gets the ``Wait`` once it is stored, and tells somebody. It
                is called again where it failed or its worker died; not once it has returned.
            remind: how long after the suspension ``notify`` is called once more, with ``wait.reminder`` 1, 2, ...; it
                may write to somebody else then. Of several that are due at once only the last is called.
            escalate: who may answer as well from which reminder on: ``{2: ["boss@example.com"]}``. Together with
                ``approvers``. From its time on, whenever ``notify`` is called for it.
            approvers: who may answer, by the name that ``resume(by=)`` gives; empty: anybody.
            quorum: how many different people must answer; ``votes`` holds what all of them said.
            veto: name of a field of the answer. One in which it is false, empty or missing settles the suspension
                alone, whatever the quorum. The step fails where no answer of the declared type can have that field.
            allow_self: False: whoever started the run (``start(by=)``) may not answer; nobody may where that is not
                known, nor may an answer without a name.
        Raises: TypeError for an argument of the wrong type.
        """
        _refuse_misfit("timeout", timeout, timedelta, "a timedelta, for instance timedelta(days=3)")
        _refuse_misfit("label", label, str, "a string")
        asked = Asked(
            on_timeout=on_timeout,
            key=key,
            notify=notify,
            remind=remind,
            approvers=approvers,
            quorum=quorum,
            veto=veto,
            allow_self=allow_self,
            escalate={} if escalate is None else escalate,
        )
        self.left_by = "ctx.suspend()"
        raise SuspendSignal(payload, timeout, label, asked)

    def suspend_any(
        self,
        options: Sequence[Option[Suspend]],
        *,
        timeout: timedelta | None = None,
        on_timeout: Any = None,
    ) -> NoReturn:
        """Stop here until one of several things has come; the step then starts from its top.

        ``chosen`` is the name of the option that was answered, and ``resume_data``, ``suspend_data`` and ``votes`` are
        about that one. The others are over in the same write: whoever answers one of them afterwards is told which was
        chosen. Each is a wait of its own until then, with an id, and with its name for a label.

        Args:
            options: 1 to 20, each with another name.
            timeout: after this long without an answer to any of them ``on_timeout`` happens.
            on_timeout: as for ``suspend``.
        Raises: TypeError for an argument of the wrong type.
        """
        _refuse_misfit("timeout", timeout, timedelta, "a timedelta, for instance timedelta(days=3)")
        self.left_by = "ctx.suspend_any()"
        raise SuspendSignal(None, timeout, None, Asked(on_timeout=on_timeout), options)

    def bail(self, output: Any = None) -> NoReturn:
        """End the workflow this step stands in, successfully, with ``output``; later steps do not run."""
        self.left_by = "ctx.bail()"
        raise BailSignal(output)

    def once(self, key: str, fn: Callable[[], T]) -> T:
        """Call ``fn`` and store what it gives; later passes of this step get the stored value without a call.

        The value survives suspensions, retries and crashes, and must be JSON. A crash between the call and the write
        repeats the call: give ``idempotency_key`` to the outside system where that matters.
        """
        result: T = self.surroundings.once(key, fn)
        return result

    def commit_with(self, *effects: Mapping[str, Any]) -> None:
        """Have writes of your own happen in the very transaction that stores this step's outcome: both, or neither.

        Each is an entry of DynamoDB's ``TransactWriteItems`` (``Put``, ``Update``, ``Delete``, ``ConditionCheck``), its
        values as boto3's client takes them (``{"S": "a"}``) or as plain Python. They happen exactly once per outcome,
        when the step returns, bails out or suspends; not when it fails. Several calls add up, to at most 50. A
        condition that does not hold, or a write that DynamoDB refuses, fails this try with ``EffectRefused``, which is
        retried like any failure. On DynamoDB alone: elsewhere the step fails with ``NeedsDynamoDB``. The worker's role
        needs permission for those tables.

        Example:
            >>> from flowcore import StepContext, step
            >>> @step
            ... def reserve(item: str, ctx: StepContext) -> str:
            ...     ctx.commit_with(
            ...         {
            ...             "Update": {
            ...                 "TableName": "stock",
            ...                 "Key": {"item": item},
            ...                 "UpdateExpression": "SET #left = #left - :one",
            ...                 "ConditionExpression": "#left >= :one",
            ...                 "ExpressionAttributeNames": {"#left": "left"},
            ...                 "ExpressionAttributeValues": {":one": 1},
            ...             }
            ...         }
            ...     )
            ...     return item

        Raises: TypeError, ValueError for what is no such entry.
        """
        self.surroundings.heed()
        given = [checked(effect) for effect in effects]
        if len(self.effects) + len(given) > MOST:
            raise ValueError(f"commit_with() takes {MOST} writes for one outcome at most")
        self.effects += given

    def emit(self, data: Any) -> None:
        """Tell those who watch the run how far this step is: a ``step-progress`` event, stored at once, data unchanged.

        Costs one write, and is loaded with the run while the scope around the step is open: for progress, not for
        logs. A later pass of this step (after a retry, a crash, an answer) that tells the same data as its first,
        second, ... progress tells nothing new and writes nothing. The data must be JSON.
        """
        self.surroundings.emit(data)

    def heartbeat(self, details: Any = None) -> bool:
        """Say that this step is at work, as often as you like; False once the run is canceled or another worker's.

        Renews the worker's hold on the run, so that a step may take longer than a lease (15 minutes, unless the worker
        has a deadline of its own), and learns what ``cancelled`` tells. At most once in 10 seconds, or in a third of
        the step's ``heartbeat=``, it costs a write or a read; in between it costs nothing. When it gives False, or
        ``cancelled`` is set, tidy up and return: whatever you return is dropped.

        Args:
            details: how far the step is, as small JSON. After a failure or a crash the next try finds the last one that
                was stored (at most 10 seconds old) in ``heartbeat_details``. None leaves it as it was.
        """
        self.surroundings.heed()
        return self.surroundings.heartbeat(details)

    @property
    def heartbeat_details(self) -> Any:
        """What an earlier try of this step last told with ``heartbeat``; None when none has."""
        return self.surroundings.heartbeat_details

    def remaining_time(self) -> timedelta:
        """How long this try may still take: the smaller of the worker's time and the step's ``timeout``."""
        return self.surroundings.remaining()

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose lines carry the run, the step and the attempt."""
        extra = {"run_id": self.run_id, "step": self.step_id, "attempt": self.attempt}
        return logging.LoggerAdapter(_LOGGER, extra)


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionContext:
    """What a condition, map, sleep or concurrency function may look at; it can neither suspend nor set state.

    Example:
        >>> from flowcore import FunctionContext, workflow
        >>> def third_turn(total: int, ctx: FunctionContext) -> bool:
        ...     return ctx.iteration == 3
    """

    run_id: str
    workflow_id: str
    entry_id: str
    iteration: int | None
    request_context: Mapping[str, Any]
    surroundings: Surroundings = field(repr=False)

    @property
    def state(self) -> Any:
        """The workflow's state."""
        return self.surroundings.state_shape.decode(self.surroundings.state)

    @property
    def init_data(self) -> Any:
        """The input of the workflow this entry stands in."""
        return self.surroundings.init_shape.decode(self.surroundings.init)

    def get_step_result(self, step: Any) -> Any:
        """The output of an earlier step of this workflow, by object or (dotted) id; None when it has none."""
        found = self.surroundings.result_of(step if isinstance(step, str) else step.id)
        return None if found is None else found[0].decode(found[1])


def _refuse_misfit(name: str, given: Any, wanted: type[Any], words: str) -> None:
    if given is not None and not isinstance(given, wanted):
        raise TypeError(f"suspend({name}={given!r}) is {type(given).__name__}; give {words}")


def deadline_of(now: datetime, timeout: timedelta | None) -> datetime | None:
    """When a suspension that began at ``now`` times out."""
    return None if timeout is None else now + timeout
