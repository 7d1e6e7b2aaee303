"""What a workflow means, in the plainest way: a recursive interpreter whose position is its own call stack.

It shares the graph's nodes with the engine and nothing else: no records, no decisions, no store, no clock. Nothing
crashes here, sleeping takes no time, and whatever runs side by side runs one after the other. A generator stands for
a piece of the workflow: it yields the places that wait for an answer and is sent the one that is answered next.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeAlias

from pydantic import BaseModel

from flowcore.authoring.context import (
    BailSignal,
    FunctionContext,
    RequestContext,
    StepContext,
    Surroundings,
    SuspendSignal,
)
from flowcore.authoring.graph import (
    BranchNode,
    Constant,
    EventNode,
    ForeachNode,
    Function,
    Graph,
    LoopNode,
    MapNode,
    NestedNode,
    Node,
    ParallelNode,
    ScopePath,
    SleepNode,
    Source,
    StepNode,
    StepPath,
    Template,
)
from flowcore.authoring.step import Step
from flowcore.codec import Shape
from flowcore.keys import dotted, index_of, turn_number
from flowcore.model import Json

ANYTHING: Shape[Any] = Shape(Any)


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered to one suspension; ``timed_out``: nobody answers."""

    data: Json = None
    timed_out: bool = False
    context: Mapping[str, Json] = field(default_factory=dict)
    """What the answer brings along for the request context."""
    chosen: str | None = None
    """Of several things that the step waits for: the one that comes."""
    by_event: bool = False
    """It comes as an event."""


Answers: TypeAlias = Callable[[str, int], Reply]
"""The reply to the n-th suspension (from 1) of the step at a key."""
Piece: TypeAlias = Generator[list[str], str, Json]


@dataclass(slots=True, kw_only=True)
class Told:
    """What must become of a run, whatever happens to its workers."""

    status: str = "success"
    output: Json = None
    error: tuple[str, str, str] | None = None
    """Type, message and dotted id of what failed first."""
    steps: dict[str, Json] = field(default_factory=dict)
    """Outputs by step key."""
    failed: set[str] = field(default_factory=set)
    """Keys of steps and functions that failed for good."""
    state: dict[str, Json] = field(default_factory=dict)
    context: dict[str, Json] = field(default_factory=dict)
    maybe: list[str] = field(default_factory=list)
    """Keys of foreach items behind the one that stopped it: whether these ran is a matter of timing."""

    def is_certain(self, key: str) -> bool:
        """Whether it is known what became of the place at ``key``."""
        return not any(key == item or key.startswith(f"{item}/") for item in self.maybe)


class _Broken(Exception):  # a way out, not an error
    """A place failed for good."""

    def __init__(self, key: str, type_: str, message: str) -> None:
        super().__init__(message)
        self.error = (type_, message, dotted(key))  # type: ignore[arg-type]  # a key is a string


class _Bailed(Exception):  # a way out, not an error
    """A step ended the workflow around it."""

    def __init__(self, output: Json) -> None:
        super().__init__()
        self.output = output


@dataclass(slots=True, kw_only=True)
class _Place:
    """Where the interpreter stands: the workflow, its key and its input."""

    graph: Graph
    home: str
    init: Json

    def key(self, id_: str) -> str:
        return f"{self.home}/{id_}" if self.home else id_


def tell(
    graph: Graph,
    given: Json,
    answers: Answers,
    *,
    run_id: str = "r",
    state: Mapping[str, Json] | None = None,
    context: Mapping[str, Json] | None = None,
) -> Told:
    """Interpret a workflow from its input to its end; of several open suspensions the first by key is answered."""
    begun = graph.state.encode(graph.state.decode(dict(state or {})))
    return _Oracle(graph, answers, run_id, Told(state=begun, context=dict(context or {}))).tell(given)


class _Oracle:
    def __init__(self, graph: Graph, answers: Answers, run_id: str, told: Told) -> None:
        self.graph = graph
        self.answers = answers
        self.run_id = run_id
        self.told = told

    def tell(self, given: Json) -> Told:
        told, piece = self.told, self._sequence(_Place(graph=self.graph, home="", init=given))
        try:
            waiting = next(piece)
            while True:
                waiting = piece.send(min(waiting))
        except StopIteration as stop:
            told.output = stop.value
        except _Bailed as bailed:
            told.output = bailed.output
        except _Broken as broken:
            told.status, told.error = "failed", broken.error
        return told

    # -- the node kinds ---------------------------------------------------------------------------------------------

    def _sequence(self, place: _Place) -> Piece:
        value = place.init
        for node in place.graph.nodes:
            value = yield from self._node(node, place.key(node.id), place, value)
        return value

    def _node(self, node: Node, key: str, place: _Place, value: Json) -> Piece:  # one case a kind
        match node:
            case StepNode():
                return (yield from self._step(node, key, place, value))
            case MapNode():
                return self._keep(key, self._mapped(node, key, place, value))
            case SleepNode():
                if isinstance(node.pause, Function):
                    self._ask(node.pause, key, place, value)
                return value
            case EventNode():
                return (yield from self._event(node, key, place, value))
            case ParallelNode():
                return (yield from self._together(node.arms, place, value))
            case BranchNode():
                chosen = [arm.id for function, arm in node.arms if self._ask(function, key, place, value)]
                if not chosen and node.otherwise is not None:
                    chosen = [node.otherwise.id]
                self._keep(key, chosen)
                return (yield from self._together([arm for arm in node.nodes if arm.id in chosen], place, value))
            case NestedNode():
                return (yield from self._nested(node, key, value))
            case LoopNode():
                return (yield from self._loop(node, key, place, value))
            case ForeachNode():
                return (yield from self._foreach(node, key, place, value))

    def _nested(self, node: NestedNode, key: str, value: Json) -> Piece:
        try:
            output = yield from self._sequence(_Place(graph=node.graph, home=key, init=value))
        except _Bailed as bailed:
            output = bailed.output
        except _Broken:
            self.told.failed.add(key)
            raise
        return self._keep(key, output)

    def _event(self, node: EventNode, key: str, place: _Place, value: Json) -> Piece:
        if isinstance(node.key, Function):
            self._ask(node.key, key, place, value)
        yield [key]
        reply = self.answers(key, 1)
        if reply.timed_out and node.lapse.step is not None:
            return (yield from self._step(node.stand_ins[node.lapse.step], key, place, value, stands_in=True))
        if reply.timed_out and node.lapse.output is not None:
            return self._keep(key, node.lapse.output[0])
        if reply.timed_out:
            self.told.failed.add(key)
            raise _Broken(key, "EventTimeout", f"no event {node.event!r} came within {node.timeout}")
        return self._keep(key, _copied(reply.data))

    def _loop(self, node: LoopNode, key: str, place: _Place, value: Json) -> Piece:
        turn = 0
        while True:
            turn += 1
            value = yield from self._within(node.body, f"{key}#{turn}", key, place, value)
            if bool(self._ask(node.condition, key, place, value, turn)) is node.until:
                return self._keep(key, value)

    def _foreach(self, node: ForeachNode, key: str, place: _Place, items: Json) -> Piece:
        wanted = node.concurrency
        slots = max(1, int(self._ask(wanted, key, place, items) if isinstance(wanted, Function) else wanted))
        pieces = [self._node(node.body, f"{key}[{index}]", place, item) for index, item in enumerate(items)]
        if (may_fail := _may_fail(node, len(items))) < 0:
            self.told.failed.add(key)
            message = f"foreach {node.id!r} needs {node.min_successful} items to succeed and has {len(items)}"
            raise _Broken(key, "TooFewItems", message)
        try:
            outputs = yield from self._race(pieces, slots, may_fail, together=_shard(node, len(items), slots))
        except _Stopped as stopped:
            self.told.maybe += [f"{key}[{index}]" for index in range(stopped.index + 1, len(items))]
            if isinstance(stopped.reason, _Broken):
                self.told.failed.add(key)
            else:
                self._keep(key, stopped.reason.output)
            raise stopped.reason from None
        return self._keep(key, outputs)

    def _within(self, body: Node, key: str, container: str, place: _Place, value: Json) -> Piece:
        """The body of a loop; what ends it ends the loop."""
        try:
            return (yield from self._node(body, key, place, value))
        except _Bailed as bailed:
            self._keep(container, bailed.output)
            raise
        except _Broken:
            self.told.failed.add(container)
            raise

    def _together(self, arms: Sequence[Node], place: _Place, value: Json) -> Piece:
        """Every arm to its end, or to where it waits; a bail ends no more than its arm."""
        pieces = [self._arm(arm, place.key(arm.id), place, value) for arm in arms]
        try:
            outputs = yield from self._race(pieces, len(pieces), all_run=True)
        except _Stopped as stopped:
            raise stopped.reason from None
        return {arm.id: output for arm, output in zip(arms, outputs, strict=True)}

    def _arm(self, arm: Node, key: str, place: _Place, value: Json) -> Piece:
        try:
            return (yield from self._node(arm, key, place, value))
        except _Bailed as bailed:
            return bailed.output

    def _race(
        self, pieces: Sequence[Piece], slots: int, tolerated: float = 0, *, all_run: bool = False, together: int = 1
    ) -> Generator[list[str], str, list[Json]]:
        """Pieces in order, at most ``slots`` open; the first that bails or is one failure too many ends them all.

        So many are begun ``together``, which is only when all of them may be open.
        """
        outputs: dict[int, Json] = {}
        waiting: dict[int, list[str]] = {}
        stops: dict[int, _Broken | _Bailed] = {}

        def move(index: int, answered: str | None) -> None:
            waiting.pop(index, None)
            try:
                waiting[index] = next(pieces[index]) if answered is None else pieces[index].send(answered)
            except StopIteration as stop:
                outputs[index] = stop.value
            except (_Broken, _Bailed) as stop:
                stops[index] = stop

        following = 0
        while True:
            while following < len(pieces) and (all_run or not _stopped(stops, tolerated)):
                if following % together == 0 and len(waiting) + min(together, len(pieces) - following) > slots:
                    break
                move(following, None)
                following += 1
            if (stopped := _stopped(stops, tolerated)) is not None:
                raise stopped
            if not waiting:
                return [outputs.get(index) for index in range(len(pieces))]
            answered = yield [key for keys in waiting.values() for key in keys]
            move(next(index for index, keys in waiting.items() if answered in keys), answered)

    # -- what the author wrote --------------------------------------------------------------------------------------

    def _step(self, node: StepNode, key: str, place: _Place, value: Json, *, stands_in: bool = False) -> Piece:
        step, reply, payload, attempt, times = node.step, None, None, 1, 0
        while True:
            context = self._context(node, key, place, attempt, reply, payload)
            if stands_in:
                context.idempotency_key += f"!{node.id}"
            args = [context] if step.takes_context else []
            try:
                output = _called(step.execute, step.input.decode(_copied(value)), *args)
            except SuspendSignal as signal:
                self._apply(context)
                times, attempt = times + 1, 1
                answered = yield [key]
                assert answered == key  # whoever is sent a key has just yielded it
                reply = self.answers(key, times)
                if reply.timed_out and isinstance(instead := signal.asked.on_timeout, Step):
                    return (yield from self._step(node.stand_ins[instead.id], key, place, value, stands_in=True))
                shown = {option.name: option.payload for option in signal.options or ()}
                shown_last = signal.payload if signal.options is None else shown.get(reply.chosen or "")
                payload = None if shown_last is None else step.suspend.encode(shown_last)
                self.told.context.update(_copied(reply.context))
            except BailSignal as signal:
                self._apply(context)
                raise _Bailed(self._keep(key, ANYTHING.encode(signal.output))) from None
            except Exception as error:  # whatever a step raises is a failure of that step
                retry = node.retry
                if attempt > retry.retries or not isinstance(error, retry.on) or isinstance(error, retry.never_on):
                    raise self._broken(key, error) from None
                attempt += 1
            else:
                self._apply(context)
                return self._keep(key, step.output.encode(output))

    def _context(
        self, node: StepNode, key: str, place: _Place, attempt: int, reply: Reply | None, payload: Json
    ) -> StepContext[Any, Any, Any]:
        return StepContext(
            run_id=self.run_id,
            workflow_id=place.graph.id,
            step_id=node.id,
            resource_id=None,
            attempt=attempt,
            idempotency_key=f"{self.run_id}/{key}",
            resume_data=None if reply is None or reply.timed_out else node.step.resume.decode(_copied(reply.data)),
            suspend_data=None if reply is None or payload is None else node.step.suspend.decode(_copied(payload)),
            chosen=None if reply is None else reply.chosen,
            timed_out=reply is not None and reply.timed_out,
            iteration=turn_number(key),  # type: ignore[arg-type]  # a key is a string
            index=index_of(key),  # type: ignore[arg-type]  # a key is a string
            request_context=RequestContext(_copied(self.told.context)),
            cancelled=_Never(),
            surroundings=self._surroundings(place),
        )

    def _surroundings(self, place: _Place) -> Surroundings:
        def result_of(step: str) -> tuple[Shape[Any], Json] | None:
            key = place.key(step.replace(".", "/"))
            return (ANYTHING, _copied(self.told.steps[key])) if key in self.told.steps else None

        return Surroundings(
            init=_copied(place.init),
            init_shape=place.graph.takes,
            state=_copied(self.told.state),
            state_shape=place.graph.state,
            result_of=result_of,
            once=lambda _, function: ANYTHING.encode(function()),
            remaining=lambda: timedelta(minutes=15),
            emit=ANYTHING.encode,
        )

    def _apply(self, context: StepContext[Any, Any, Any]) -> None:
        for new in context.set_values:
            plain = new.model_dump(by_alias=True, include=new.model_fields_set) if isinstance(new, BaseModel) else new
            self.told.state.update(ANYTHING.encode(plain))
        for name in context.request_context.changed:
            if name in context.request_context:
                self.told.context[name] = ANYTHING.encode(context.request_context[name])
            else:
                self.told.context.pop(name, None)

    def _ask(self, function: Function, key: str, place: _Place, value: Json, turn: int | None = None) -> Any:
        context = FunctionContext(
            run_id=self.run_id,
            workflow_id=place.graph.id,
            entry_id=key.rsplit("/", 1)[-1],
            iteration=turn or turn_number(key),  # type: ignore[arg-type]  # a key is a string
            request_context=_copied(self.told.context),
            surroundings=self._surroundings(place),
        )
        try:
            return _called(function.call, _copied(value), *([context] if function.takes_context else []))
        except Exception as error:  # whatever an author's function raises is a failure of the run
            raise self._broken(key, error) from None

    def _mapped(self, node: MapNode, key: str, place: _Place, value: Json) -> Json:
        if isinstance(node.source, Function):
            return ANYTHING.encode(self._ask(node.source, key, place, value))
        output: dict[str, Json] = {}
        for name, source in node.source.items():
            if isinstance(source, Function):
                output[name] = ANYTHING.encode(self._ask(source, key, place, value))
                continue
            try:
                output[name] = self._found(source, place, value)
            except (LookupError, TypeError) as error:
                raise self._broken(key, error) from None
        return _copied(output)

    def _found(self, source: Source, place: _Place, value: Json) -> Json:
        match source:
            case Constant():
                return source.value
            case StepPath(steps, path):
                keys = {id_: place.key(id_.replace(".", "/")) for id_ in steps}
                known = [id_ for id_ in steps if keys[id_] in self.told.steps]
                if not known:
                    raise LookupError(f"none of the steps {list(steps)} has an output")
                return _inside(self.told.steps[keys[known[0]]], path, known[0])
            case ScopePath(scope, path):
                told = self.told
                scopes = {"init_data": place.init, "input_data": value, "state": told.state}
                return _inside({**scopes, "request_context": told.context}[scope], path, scope)
            case Template(parts):
                shown = [part if isinstance(part, str) else _shown(self._found(part, place, value)) for part in parts]
                return "".join(shown)
            case Function():
                raise NotImplementedError("functions are asked")

    def _keep(self, key: str, output: Json) -> Json:
        self.told.steps[key] = _copied(output)
        return output

    def _broken(self, key: str, error: Exception) -> _Broken:
        self.told.failed.add(key)
        return _Broken(key, type(error).__name__, str(error))


def _may_fail(node: ForeachNode, count: int) -> float:
    """How many of so many items may fail, if some may and some must not."""
    most = node.tolerated * (1 if node.tolerated >= 1 else count)
    least = node.min_successful
    if least is None:
        return most
    spare = count - least * (1 if least >= 1 else count)
    return min(most, spare) if node.tolerated else spare


def _shard(node: ForeachNode, count: int, slots: int) -> int:
    """How many of so many items one child sees to; without children each item stands for itself."""
    usual = min(-(-count // 100), 50)
    return max(1, min(node.shard or usual, slots)) if node.distributed else 1


class _Stopped(Exception):  # a way out, not an error
    """A piece failed or bailed, and with it what it is a piece of."""

    def __init__(self, index: int, reason: _Broken | _Bailed) -> None:
        super().__init__()
        self.index = index
        self.reason = reason


def _stopped(stops: Mapping[int, _Broken | _Bailed], tolerated: float) -> _Stopped | None:
    """What whoever went through the pieces one by one would have stopped at; a failure is told as the first one."""
    failed: list[_Broken] = []
    for index in sorted(stops):
        stop = stops[index]
        if isinstance(stop, _Bailed):
            return _Stopped(index, stop)
        failed.append(stop)
        if len(failed) > tolerated:
            return _Stopped(index, failed[0])
    return None


class _Never:
    def is_set(self) -> bool:
        return False


def _called(function: Callable[..., Any], *args: Any) -> Any:
    """The result of a function or of a coroutine function that never really waits."""
    result = function(*args)
    return _stepped(result) if hasattr(result, "send") else result


def _inside(value: Json, path: str, root: str) -> Json:
    for name in path.split(".") if path not in ("", ".") else ():
        try:
            value = value[int(name)] if isinstance(value, list) else value[name]
        except (LookupError, TypeError, ValueError):
            what = f"there is no {name!r} in {type(value).__name__}"
            raise LookupError(f"invalid path {path!r} in {root!r}: {what}") from None
    return value


def _shown(value: Json) -> str:
    if isinstance(value, (dict, list)):
        raise TypeError(f"a template can show text and numbers, not {type(value).__name__}")
    return {None: "", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)


def _copied(value: Json) -> Json:
    return ANYTHING.encode(value)


def _stepped(coroutine: Any) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise NotImplementedError("the oracle has no event loop")
