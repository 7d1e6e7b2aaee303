"""Calls what the author wrote, and turns whatever happens into an event. Nobody else calls user code.

A result, an exception, a suspension, a wrong type: all come back as values. Knows no store; commits nothing. Plain
functions run where they are called; coroutines run on one event loop that is started when the first one appears.
"""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, assert_never

from flowcore.authoring.context import (
    BailSignal,
    StepContext,
    SuspendSignal,
)
from flowcore.authoring.graph import (
    BranchNode,
    EventNode,
    ForeachNode,
    Function,
    Graph,
    LoopNode,
    MapNode,
    NestedNode,
    SleepNode,
    StepNode,
    slots_of,
)
from flowcore.codec import Shape, digest
from flowcore.contexts import View, changes_of, function_context, step_context
from flowcore.core.actions import (
    Action,
    Advance,
    Broken,
    Done,
    Doubt,
    Ended,
    Enter,
    Evaluate,
    Gather,
    GiveUp,
    Leave,
    Place,
    RunStep,
    TimeOut,
)
from flowcore.core.evolve import (
    Answered,
    Failed,
    FailedOnce,
    FellAsleep,
    Opened,
    StepEvent,
    Succeeded,
    Suspended,
)
from flowcore.core.fan import opening, shard_size, tolerated
from flowcore.core.retry import is_retried, pause
from flowcore.errors import EffectRefused, InvariantError, StepTimeout
from flowcore.failures import Unfit, Unread, decoded, encoded, failure_of, fitted, is_outcome, read
from flowcore.keys import Scope, StepKey, dotted, is_name, key_mistake, scope_of, turn_of
from flowcore.model import Answer, Json, StepFailure, Wait
from flowcore.options import alternatives_of
from flowcore.ports import Clock, Ids
from flowcore.sources import Known, found
from flowcore.terms import agreed, notifier

T = TypeVar("T")

MOST_TURNS = 1_000_000
"""Turns of one loop; a condition that never changes its mind must end some day."""

_ANYTHING: Shape[Any] = Shape(Any)
_LOGGER = logging.getLogger("flowcore.runner")


@dataclass(frozen=True, slots=True)
class Runner:
    """Performs actions, one call each."""

    clock: Clock
    ids: Ids
    await_: Callable[[Any], Any] = field(repr=False)
    """Waits for an awaitable that a plain function returned."""
    run_time: Callable[[], datetime] = field(repr=False)
    """The run's own time, by which it is judged whether a pause is over: what begins now ends no earlier than it says,
    though this machine's clock be behind that of another which has driven the run before."""

    def perform(self, action: Action, view: View) -> StepEvent:
        """Do ``action`` in this thread and say what happened."""
        return run_plainly(self.perform_async(action, view, on_loop=False))

    async def perform_async(self, action: Action, view: View, *, on_loop: bool = True) -> StepEvent:
        """Do ``action``; coroutines are awaited when ``on_loop``, else handed to the event loop's own thread."""
        started = self.clock.now()
        call = _Caller(self.await_, on_loop)
        place = action.place
        try:
            match action:
                case RunStep():
                    return await self._step(action, view, call, started)
                case Evaluate():
                    return await self._evaluate(action, view, call, started)
                case Enter():
                    return await self._enter(action, view, call, started)
                case Advance():
                    return await self._advance(action, view, call, started)
                case Leave() | Gather():
                    return _left(action, started)
                case TimeOut():
                    return _lapsed(action, view, started)
                case GiveUp():
                    return _failed(action, _logged(_crashed(action), view, place.key), started)
                case Doubt():
                    return _failed(action, _logged(_in_doubt(action), view, place.key), started)
                case _:
                    assert_never(action)
        except Unfit as unfit:
            return _unfit(action, unfit, view, started)
        except BaseException as error:
            if not is_outcome(error):
                raise
            failure = _logged(failure_of(error, dotted(place.key)), view, place.key, error=error)
            return _failed(action, failure, started)

    def timed_out(self, action: Action, view: View, began_at: datetime) -> StepEvent:
        """What becomes of a step whose try has taken too long: another try, the value for that case, or its failure."""
        assert isinstance(action, RunStep)
        place, node = action.place, action.place.node
        assert isinstance(node, StepNode)
        step = node.step
        assert step.timeout is not None
        attempt = _attempt(action)
        error = StepTimeout(dotted(place.key), step.timeout.total_seconds(), attempt, node.retry.retries + 1)
        event = self._raised(place, node, error, attempt, began_at, view)
        if not isinstance(event, Failed) or step.fails_late:
            return event
        try:
            output = encoded(step.output, step.on_timeout, f"on_timeout of step {node.id!r}")
        except Unfit as unfit:  # it did fit at commit; somebody has changed it since
            return _failed(action, unfit.failure, began_at)
        return Succeeded(key=place.key, output=output, started_at=began_at, attempt=attempt)

    def refused(self, action: Action, view: View, error: EffectRefused, began_at: datetime) -> StepEvent:
        """What becomes of a step whose own writes were refused: another try, or its failure."""
        place, node = action.place, action.place.node
        assert isinstance(action, RunStep)
        assert isinstance(node, StepNode)
        return self._raised(place, node, error, _attempt(action), began_at, view)

    # -- steps ------------------------------------------------------------------------------------------------------

    async def _step(self, action: RunStep, view: View, call: _Caller, started: datetime) -> StepEvent:
        place, prior = action.place, action.prior
        node = place.node
        assert isinstance(node, StepNode)
        step = node.step
        attempt = _attempt(action)
        value = _read_input(step.input, action, f"input of step {node.id!r}")
        decoded(step.request_context, view.request_context, f"request context of step {node.id!r}")
        context = step_context(place, prior, attempt, view)
        try:
            output = await call(step.execute, value, *([context] if step.takes_context else []))
        except SuspendSignal as signal:
            return self._suspended(place, node, signal, context, started, view.started_by)
        except BailSignal as signal:
            bailed = encoded(_ANYTHING, signal.output, f"bail output of step {node.id!r}")
            return self._succeeded(place, bailed, context, started, attempt, bailed=True)
        except BaseException as error:
            if not is_outcome(error):
                raise
            view.heed()  # a late try has failed for being late, and says so once
            return self._raised(place, node, error, attempt, started, view)
        if context.left_by is not None:
            raise RuntimeError(
                f"step {node.id!r} has called {context.left_by} and gone on: it has caught the signal that leaves it; "
                "catch Exception there, not BaseException"
            )
        return self._succeeded(
            place, encoded(step.output, output, f"output of step {node.id!r}"), context, started, attempt
        )

    def _succeeded(
        self,
        place: Place,
        output: Json,
        context: StepContext[Any, Any, Any],
        started: datetime,
        attempt: int,
        *,
        bailed: bool = False,
    ) -> StepEvent:
        return Succeeded(
            key=place.key,
            output=output,
            started_at=started,
            attempt=attempt,
            bailed=bailed,
            changes=changes_of(context),
            effects=context.effects,
        )

    def _suspended(
        self,
        place: Place,
        node: StepNode,
        signal: SuspendSignal,
        context: StepContext[Any, Any, Any],
        started: datetime,
        started_by: str | None,
    ) -> StepEvent:
        payload = signal.payload
        if payload is not None:
            payload = encoded(node.step.suspend, payload, f"suspend payload of step {node.id!r}")
        return Suspended(
            key=place.key,
            payload=payload,
            label=_label(node, signal.label),
            terms=agreed(node, signal, started_by),
            alternatives=alternatives_of(node, signal, started_by),
            until=None if signal.timeout is None else _deadline(node, signal.timeout, self.run_time()),
            started_at=started,
            changes=changes_of(context),
            effects=context.effects,
        )

    def tell(self, node: StepNode, name: str, wait: Wait[Json]) -> None:
        """Call what a step wants called once its suspension is stored. Raises: whatever it raises."""
        payload = wait.payload
        shown = None if payload is None else read(node.step.suspend, payload, f"suspend payload of {node.id!r}")
        came = notifier(node, name)(replace(wait, payload=shown))
        if inspect.isawaitable(came):
            self.await_(came)

    def _raised(
        self, place: Place, node: StepNode, error: BaseException, attempt: int, started: datetime, view: View
    ) -> StepEvent:
        failure = failure_of(error, dotted(place.key))
        if not is_retried(node.retry, attempt, error):
            _logged(failure, view, place.key, attempt=attempt, error=error)
            return Failed(key=place.key, failure=failure, started_at=started, attempt=attempt)
        until = _later(self.run_time(), pause(node.retry.backoff, attempt, self.ids.draw()))
        return FailedOnce(key=place.key, failure=failure, started_at=started, attempt=attempt, until=until)

    # -- everything else --------------------------------------------------------------------------------------------

    async def _evaluate(self, action: Evaluate, view: View, call: _Caller, started: datetime) -> StepEvent:
        place = action.place
        match place.node:
            case MapNode() as node:
                output = await self._mapped(node, action, view, call)
                return Succeeded(key=place.key, output=output, started_at=started)
            case BranchNode() as node:
                chosen = [arm.id for condition, arm in node.arms if await self._holds(condition, action, view, call)]
                if not chosen and node.otherwise is not None:
                    chosen = [node.otherwise.id]
                return Succeeded(key=place.key, output=chosen, started_at=started)
            case SleepNode() as node:
                pause_ = node.pause
                if isinstance(pause_, Function):
                    pause_ = await self._ask(pause_, node.takes, action, view, call)
                return FellAsleep(key=place.key, until=_wake(node, pause_, self.run_time()), started_at=started)
            case EventNode() as node:
                key = node.key
                if isinstance(key, Function):
                    key = await self._ask(key, node.takes, action, view, call)
                return _listening(place, node, key, started, self.run_time())
            case _:
                raise InvariantError(f"{place.key!r} is nothing to evaluate")

    async def _enter(self, action: Enter, view: View, call: _Caller, started: datetime) -> StepEvent:
        place, value = action.place, action.value
        match place.node:
            case NestedNode() as node:
                checked = fitted(node.takes, value, f"input of {node.id!r}")
                inner = Scope(place.key)
                opens = None if inner == scope_of(place.key) else inner
                return Opened(key=place.key, value=checked, opens=opens, count=None, started_at=started)
            case LoopNode():
                opens = scope_of(turn_of(place.key, 1))
                return Opened(key=place.key, value=value, opens=opens, count=1, started_at=started)
            case ForeachNode() as node:
                if not isinstance(value, list):
                    raise TypeError(f"foreach {node.id!r} needs a list, its input is {type(value).__name__}")
                wanted = node.concurrency
                if isinstance(wanted, Function):
                    wanted = await self._ask(wanted, node.takes, action, view, call)
                slots = _slots(node, wanted)
                if tolerated(node, len(value)) < 0:
                    raise Unfit(_too_few(node, len(value)))
                if node.distributed and value:
                    held = opening(shard_size(node.shard, len(value), slots), len(value))
                    return Opened(key=place.key, value=held, opens=None, count=slots, started_at=started)
                return Opened(key=place.key, value=None, opens=Scope(place.key), count=slots, started_at=started)
            case _:
                raise InvariantError(f"{place.key!r} is no container")

    async def _advance(self, action: Advance, view: View, call: _Caller, started: datetime) -> StepEvent:
        place, node = action.place, action.place.node
        assert isinstance(node, LoopNode)
        turn = scope_of(turn_of(place.key, action.turn))
        holds = await self._holds(node.condition, action, view, call)
        if holds is node.until:
            return Succeeded(key=place.key, output=action.value, started_at=started, closes=turn)
        if action.turn >= MOST_TURNS:
            message = f"loop {node.id!r} has made {action.turn} turns, the most there may be, and would go on"
            raise Unfit(StepFailure(type="TooManyTurns", message=message))
        following = turn_of(place.key, action.turn + 1)
        return Opened(
            key=place.key,
            value=action.value,
            opens=scope_of(following),
            count=action.turn + 1,
            started_at=started,
            closes=turn,
        )

    async def _holds(self, condition: Function, action: Evaluate | Advance, view: View, call: _Caller) -> bool:
        """Whether a condition is true. What is true by mere existence is refused: it would choose a path silently."""
        node = action.place.node
        if isinstance(action, Advance):
            answer = await self._ask(condition, node.gives, action, view, call, iteration=action.turn)
        else:
            answer = await self._ask(condition, node.takes, action, view, call)
        if isinstance(answer, (str, bytes, type)) or callable(answer):
            named = getattr(condition.call, "__name__", type(condition.call).__name__)
            raise TypeError(
                f"condition {named!r} of {node.id!r} gave {type(answer).__name__}, which says neither yes nor no; "
                "let it return a bool"
            )
        return bool(answer)

    async def _ask(
        self,
        function: Function,
        takes: Shape[Any],
        action: Evaluate | Enter | Advance,
        view: View,
        call: _Caller,
        *,
        iteration: int | None = None,
    ) -> Any:
        place = action.place
        value = read(takes, action.value, f"input of {place.node.id!r}")
        if not function.takes_context:
            return await call(function.call, value)
        return await call(function.call, value, function_context(place, view, iteration))

    async def _mapped(self, node: MapNode, action: Evaluate, view: View, call: _Caller) -> Json:
        if isinstance(node.source, Function):
            result = await self._ask(node.source, node.takes, action, view, call)
            return encoded(node.gives, result, f"output of {node.id!r}")
        known = _known(action, view)
        output = {}
        for name, source in node.source.items():
            if isinstance(source, Function):
                result = await self._ask(source, node.takes, action, view, call)
                output[name] = encoded(_ANYTHING, result, f"key {name!r} of {node.id!r}")
            else:
                output[name] = found(source, known)
        return encoded(_ANYTHING, output, f"output of {node.id!r}")


def conclude(graph: Graph, result: Done) -> tuple[Json, StepFailure | None]:
    """The run's output as the workflow declares it, or why what came out does not fit."""
    try:
        return fitted(graph.gives, result.value, f"output of workflow {graph.id!r}"), None
    except Unfit as unfit:
        return None, unfit.failure


def is_async(action: Action) -> bool:
    """Whether ``action`` calls a coroutine function and belongs onto the event loop."""
    functions: list[Callable[..., Any]] = []
    match action.place.node:
        case StepNode() as node if isinstance(action, RunStep):
            functions = [node.step.execute]
        case BranchNode() as node:
            functions = [condition.call for condition, _ in node.arms]
        case LoopNode() as node if isinstance(action, Advance):
            functions = [node.condition.call]
        case MapNode() as node if isinstance(node.source, Function):
            functions = [node.source.call]
        case _:
            return False
    return any(inspect.iscoroutinefunction(function) for function in functions)


def run_plainly(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never really waits, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise InvariantError("an action that runs in a thread must not wait on an event loop")


@dataclass(frozen=True, slots=True)
class _Caller:
    """Calls a function of the author and waits for what it returns, if that can be awaited."""

    await_: Callable[[Any], Any]
    on_loop: bool

    async def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        result = function(*args)
        if inspect.isawaitable(result):
            return await result if self.on_loop else self.await_(result)
        return result


def _too_few(node: ForeachNode, total: int) -> StepFailure:
    message = f"foreach {node.id!r} needs {node.min_successful} items to succeed and has {total}"
    return StepFailure(type="TooFewItems", message=message)


def _slots(node: ForeachNode, wanted: Any) -> int:
    if not isinstance(wanted, (int, float)):
        raise TypeError(f"concurrency of foreach {node.id!r} must be a number, not {type(wanted).__name__}")
    return slots_of(wanted)


def _read_input(shape: Shape[Any], action: RunStep, subject: str) -> Any:
    """What the step begins with. One that has begun before was given it then, so a deploy has changed the type."""
    try:
        return read(shape, action.value, subject)
    except Unread as unread:
        prior = action.prior
        has_begun = prior is not None and (prior.attempt > 0 or prior.answer is not None or prior.given is not None)
        is_sure = unread.is_sure or has_begun
        raise Unread(unread.failure, is_sure=is_sure) from None


def _attempt(action: RunStep) -> int:
    return 1 if action.prior is None else action.prior.attempt + 1


def _logged(
    failure: StepFailure, view: View, key: StepKey, *, attempt: int = 1, error: BaseException | None = None
) -> StepFailure:
    """``failure``, once it is in the log with the frames it came through, which are never stored.

    The message stays out: it is the author's, and may hold what the log must not see.
    """
    frames = [] if error is None else traceback.format_tb(error.__traceback__)
    where = {"run_id": view.run_id, "step": dotted(key), "attempt": attempt}
    _LOGGER.error("step failed with %s", failure.type, extra={**where, "stack": "".join(frames)})
    return failure


def _failed(action: Action, failure: StepFailure, started: datetime) -> Failed:
    key = action.place.key
    if failure.step is None:
        failure = replace(failure, step=dotted(key))
    return Failed(key=key, failure=failure, started_at=started, closes=_closed_by(action))


def _unfit(action: Action, unfit: Unfit, view: View, started: datetime) -> Failed:
    if isinstance(unfit, Unread) and unfit.is_sure:
        return replace(_failed(action, unfit.failure, started), unread="surely")
    failed = _failed(action, _logged(unfit.failure, view, action.place.key), started)
    return replace(failed, unread="perhaps") if isinstance(unfit, Unread) else failed


def _closed_by(action: Action) -> Scope | None:
    """The scope that is never loaded again once ``action`` is done or has failed."""
    match action:
        case Leave():
            return action.scope
        case Advance():
            return scope_of(turn_of(action.place.key, action.turn))
        case _:
            return None


def _crashed(action: GiveUp) -> StepFailure:
    where = dotted(action.place.key)
    return StepFailure(
        type="ExecutorCrashed",
        message=f"{action.deaths} workers in a row took up {where!r} and none of them came back; it is given up.",
    )


def _in_doubt(action: Doubt) -> StepFailure:
    where = dotted(action.place.key)
    return StepFailure(
        type="MayHaveRun",
        message=f"a worker began {where!r} and did not come back; the step runs at most once, so it is not run again. "
        "Find out how far it came, then travel in time to it or behind it.",
    )


def _listening(place: Place, node: EventNode, key: object, started: datetime, now: datetime) -> Suspended:
    """The entry waits for its event from now on."""
    mistake = key_mistake(key)
    if mistake is not None or not isinstance(key, str):
        raise TypeError(f"wait_for_event {node.id!r}: {mistake}")
    until = None if node.timeout is None else _later(now, node.timeout)
    return Suspended(key=place.key, listens=(node.event, key), until=until, started_at=started)


def _lapsed(action: TimeOut, view: View, started: datetime) -> StepEvent:
    """What becomes of a suspension that nobody has settled by its deadline."""
    place = action.place
    if action.lapse is None or action.instead is not None:
        return Answered(key=place.key, answer=_timed_out(action.wait, started), instead=action.instead)
    if action.lapse.output is None:
        failure = _no_event(place.node) if isinstance(place.node, EventNode) else _nobody(place)
        return _failed(action, _logged(failure, view, place.key), started)
    return Succeeded(key=place.key, output=action.lapse.output[0], started_at=started)


def _nobody(place: Place) -> StepFailure:
    return StepFailure(type="SuspendTimeout", message=f"nobody answered {dotted(place.key)!r} in time")


def _no_event(node: EventNode) -> StepFailure:
    return StepFailure(type="EventTimeout", message=f"no event {node.event!r} came within {node.timeout}")


def _timed_out(wait: str, now: datetime) -> Answer:
    return Answer(wait=wait, data=None, digest=digest(None), at=now, via="timeout", timed_out=True)


def _left(action: Leave | Gather, started: datetime) -> StepEvent:
    if isinstance(action, Gather):
        raise InvariantError(f"looking after the children of {action.place.key!r} calls nothing that an author wrote")
    place, result = action.place, action.result
    match result:
        case Done() | Ended():
            output = result.value
            bailed = isinstance(result, Ended)
            if isinstance(place.node, NestedNode):
                output = fitted(place.node.gives, output, f"output of workflow {place.node.id!r}")
                bailed = False
            return Succeeded(key=place.key, output=output, started_at=started, bailed=bailed, closes=action.scope)
        case Broken():
            return _failed(action, result.failure, started)
        case _:
            assert_never(result)


def _wake(node: SleepNode, pause_: Any, now: datetime) -> datetime:
    """When the sleep ends, in whole milliseconds, never early; ``now`` when there is nothing to wait for."""
    if pause_ is None:
        return now
    if node.until:
        if not isinstance(pause_, datetime):
            raise TypeError(f"sleep_until {node.id!r} needs a datetime, its function gave {type(pause_).__name__}")
        if pause_.tzinfo is None:
            raise ValueError(f"sleep_until {node.id!r} needs an aware datetime; add a timezone")
        try:
            return max(now, _whole_ms(pause_.astimezone(UTC)))
        except OverflowError:
            raise ValueError(f"sleep_until {node.id!r} until {pause_} ends after the year 9999") from None
    if not isinstance(pause_, timedelta):
        raise TypeError(f"sleep {node.id!r} needs a timedelta, its function gave {type(pause_).__name__}")
    return max(now, _later(now, pause_))


def _label(node: StepNode, label: Any) -> str | None:
    if label is not None and not is_name(label):
        raise ValueError(f"step {node.id!r} suspends with label={str(label)[:50]!r}, which can be no label")
    return label  # type: ignore[no-any-return]  # it is text, or there is none


def _deadline(node: StepNode, timeout: Any, now: datetime) -> datetime:
    """When a suspension that begins now is over. One that is over at once would have its step suspend for ever."""
    if not isinstance(timeout, timedelta) or timeout <= timedelta(0):
        raise ValueError(f"step {node.id!r} suspends with timeout={timeout!r}; give a timedelta above 0")
    return _later(now, timeout)


def _later(now: datetime, pause_: timedelta) -> datetime:
    try:
        return _whole_ms(now + pause_)
    except OverflowError:
        raise ValueError(f"a pause of {pause_} ends after the year 9999") from None


def _whole_ms(instant: datetime) -> datetime:
    surplus = instant.microsecond % 1000
    return instant + timedelta(microseconds=1000 - surplus) if surplus else instant


def _known(action: Evaluate, view: View) -> Known:
    scopes = {
        "init_data": action.place.init,
        "input_data": action.value,
        "state": dict(view.state),
        "request_context": dict(view.request_context),
    }
    return Known(scopes=scopes, result_of=view.result_of)
