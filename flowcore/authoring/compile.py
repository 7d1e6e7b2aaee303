"""Builder entries to a frozen ``Graph``, in pure passes that collect every mistake before any is raised.

Ids of entries without one are made of their neighbours (``sleep-after-pay``), never of positions: a step inserted
elsewhere leaves them alone, and one inserted right there is seen as a changed definition, not mistaken for another.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import is_dataclass, replace
from datetime import datetime, timedelta
from typing import Any, get_origin

from pydantic import ValidationError
from typing_extensions import TypedDict, is_typeddict

from flowcore.authoring.definition import MISSING, Definition, Entry, Options
from flowcore.authoring.fingerprint import fingerprint_of
from flowcore.authoring.graph import (
    MOST_OPEN,
    Body,
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
    Retry,
    ScopePath,
    SleepNode,
    Source,
    StepNode,
    StepPath,
    Template,
    entries,
    fans_out,
    slots_of,
)
from flowcore.authoring.mistakes import mistaken_history, mistakes_of
from flowcore.authoring.step import FAIL, Step, return_type, takes_context
from flowcore.codec import NotJsonError, Shape, Unchecked, field_errors, settled
from flowcore.errors import DefinitionError, Mistake, StepTimeout
from flowcore.keys import event_mistake, is_entry_id, key_mistake
from flowcore.model import Json, Lapse


def compile_workflow(definition: Definition) -> Graph:
    """The frozen tree of ``definition``. Raises: DefinitionError that lists all mistakes."""
    compiler = _Compiler(definition)
    nodes = compiler.nodes()
    by_id = {node.id: node for node in entries(nodes)}
    former = {old: _today(new, dict(definition.renames)) for old, new in definition.renames}
    mistakes = [*compiler.mistakes, *mistakes_of(definition, nodes), *mistaken_history(definition, by_id, former)]
    if mistakes:
        raise DefinitionError(definition.id, mistakes)
    return Graph(
        id=definition.id,
        nodes=nodes,
        takes=definition.options.input,
        gives=definition.options.output,
        state=definition.options.state,
        request_context=definition.options.request_context,
        fingerprint=fingerprint_of(nodes),
        description=definition.description,
        metadata=definition.options.metadata,
        hooks=definition.options.hooks,
        retention=definition.options.retention,
        by_id=by_id,
        former=former,
        gone=frozenset(definition.removals),
        aliases=former,
        durability=definition.options.durability,
        fans_out=any(fans_out(node) for node in entries(nodes)),
    )


def _today(id: str, renames: Mapping[str, str]) -> str:
    """What an entry is called after all its renames."""
    for _ in renames:
        id = renames.get(id, id)
    return id


class _Compiler:
    """One pass over the entries: each becomes a node that takes what the one before gives."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.mistakes: list[Mistake] = []
        self.earlier: dict[str, Node] = {}
        self.unnamed: Counter[str] = Counter()

    def nodes(self) -> tuple[Node, ...]:
        flow = self.definition.options.input
        made: list[Node] = []
        for entry in self.definition.entries:
            id = self._made_up_id(entry, made[-1].id if made else None) if entry.id is None else entry.id
            if not is_entry_id(id):
                self.wrong(str(id), f"{id!r} cannot be an id; use 1-64 ASCII letters, digits, '_' or '-'")
                id = str(id)
            node = self._node(entry, id, flow)
            if node is not None:
                made.append(node)
                self.earlier.update({inner.id: inner for inner in entries((node,))})
                flow = node.gives
        return tuple(made)

    def wrong(self, where: str, what: str) -> None:
        self.mistakes.append(Mistake(where, what))

    def _made_up_id(self, entry: Entry, before: str | None) -> str:
        arms = "-".join(getattr(step, "id", "unknown") for step in entry.steps)
        if entry.kind in ("then", "dowhile", "dountil", "foreach"):
            return arms
        if entry.kind == "wait_for_event":
            return _shortened(f"wait-for-{re.sub(r'[^A-Za-z0-9_-]', '-', str(entry.functions[0])).strip('-')}")
        place = arms or (f"after-{before}" if before else "at-start")
        id = _shortened(f"{entry.kind.replace('_', '-')}-{place}")
        self.unnamed[id] += 1
        return id if self.unnamed[id] == 1 else f"{id}-{self.unnamed[id]}"

    def _node(self, entry: Entry, id: str, flow: Shape[Any]) -> Node | None:
        match entry.kind:
            case "then":
                return self._step(entry.steps[0], id, entry.description)
            case "parallel":
                return self._parallel(entry, id, flow)
            case "branch":
                return self._branch(entry, id, flow)
            case "dowhile" | "dountil":
                return self._loop(entry, id, flow)
            case "foreach":
                return self._foreach(entry, id, flow)
            case "map":
                return self._map(entry, id, flow)
            case "sleep" | "sleep_until":
                return self._sleep(entry, id, flow)
            case "wait_for_event":
                return self._event(entry, id, flow)

    def _step(self, step: Any, id: str, description: str = "") -> Body | None:
        compiled = getattr(step, "compiled", None)
        if isinstance(compiled, Graph):
            return NestedNode(
                id=id, graph=compiled, takes=step.input, gives=step.output, description=description or step.description
            )
        if not isinstance(step, Step):
            self.wrong(id, _no_step(step))
            return None
        step = self._with_our_doors(step)
        self._check_on_timeout(step, id)
        options = self.definition.options
        return StepNode(
            id=id,
            step=step,
            retry=_retry(step, options),
            takes=step.input,
            gives=step.output,
            description=description or step.description,
            stand_ins=self._stand_ins(step.stand_ins, step.output),
        )

    def _stand_ins(self, steps: Iterable[Step[Any, Any, Any, Any]], gives: Shape[Any]) -> dict[str, StepNode]:
        """Steps that may run in the place of another, or of an entry, and give what that gives."""
        nodes = [self._step(replace(step, output=gives), step.id) for step in steps]
        return {node.id: node for node in nodes if isinstance(node, StepNode)}

    def _with_our_doors(self, step: Step[Any, Any, Any, Any]) -> Step[Any, Any, Any, Any]:
        """The step with such checks at its doors as this workflow wants; others may use the same step."""
        options = self.definition.options
        if not options.validate_inputs:
            step = replace(
                step,
                input=Unchecked(step.input.type),
                resume=Unchecked(step.resume.type),
                suspend=Unchecked(step.suspend.type),
                state=Unchecked(step.state.type),
                request_context=Unchecked(step.request_context.type),
            )
        return step if options.validate_outputs else replace(step, output=Unchecked(step.output.type))

    def _made_of(self, type_: Any, *parts: Shape[Any]) -> Shape[Any]:
        """The shape of a value made of others; nothing is certain about it when nobody has checked one of them."""
        is_checked = self.definition.options.validate_outputs and not any(isinstance(p, Unchecked) for p in parts)
        return Shape(type_) if is_checked else Unchecked(type_)

    def _check_on_timeout(self, step: Step[Any, Any, Any, Any], id: str) -> None:
        """A value for the case of a timeout must fit what the step gives."""
        if step.timeout is not None and not step.fails_late:
            self._stored(step.on_timeout, step.output, id)

    def _stored(self, on_timeout: Any, gives: Shape[Any], id: str) -> Json:
        """The value for the case of a timeout as plain JSON."""
        try:
            return gives.encode(on_timeout)
        except TypeError:
            return None  # pydantic can make nothing of the type, which is a mistake of its own
        except ValidationError as error:
            found = "; ".join(": ".join(filter(None, (row["path"], row["message"]))) for row in field_errors(error))
            self.wrong(id, f"on_timeout={on_timeout!r} does not fit its output type: {found}")
        except NotJsonError as error:
            self.wrong(id, f"on_timeout={on_timeout!r} cannot be stored: {error}")
        return None

    def _arms(self, entry: Entry, id: str) -> tuple[Node, ...] | None:
        if not entry.steps:
            self.wrong(id, f"{entry.kind} has no steps; give it at least one")
            return None
        arms = [self._step(step, getattr(step, "id", id)) for step in entry.steps]
        return None if None in arms else tuple(arm for arm in arms if arm is not None)

    def _parallel(self, entry: Entry, id: str, flow: Shape[Any]) -> Node | None:
        arms = self._arms(entry, id)
        if arms is None:
            return None
        return ParallelNode(
            id=id,
            arms=arms,
            takes=flow,
            gives=self._joined(entry.into, id, arms, total=True),
            description=entry.description,
        )

    def _branch(self, entry: Entry, id: str, flow: Shape[Any]) -> Node | None:
        wrong = [self._is_no_arm(f"{id}, arm {number}", *arm) for number, arm in enumerate(_pairs(entry))]
        if any(wrong):
            return None
        arms = self._arms(entry, id)
        if arms is None:
            return None
        conditions = [
            None if c is None else self._function(c, f"{id}, condition {i}") for i, c in enumerate(entry.functions)
        ]
        last = [arm for arm, fn in zip(arms, entry.functions, strict=True) if fn is None]
        if len(last) > 1:
            self.wrong(id, "has more than one otherwise; keep one")
        return BranchNode(
            id=id,
            arms=tuple((fn, arm) for fn, arm in zip(conditions, arms, strict=True) if fn is not None),
            otherwise=last[0] if last else None,
            takes=flow,
            gives=self._joined(entry.into, id, arms, total=False),
            description=entry.description,
        )

    def _is_no_arm(self, where: str, condition: Any, step: Any) -> bool:
        """Whether an arm is no pair of condition and step; condition ``MISSING``: it is no pair at all."""
        if condition is MISSING:
            self.wrong(where, f"is {_shown(step)}; give pairs, each an argument: (condition, step), (otherwise, step)")
        elif isinstance(condition, Step) and not isinstance(step, Step):
            self.wrong(where, f"begins with {_shown(condition)}; the condition comes first: (condition, step)")
        else:
            return False
        return True

    def _joined(self, into: Any, id: str, arms: tuple[Node, ...], *, total: bool) -> Shape[Any]:
        """The shape of a dict keyed by arm: ``into`` once its field names are checked, else made of the arms'."""
        ids = {arm.id for arm in arms}
        if into is None:
            fields = {arm.id: arm.gives.type for arm in arms}
            make: Any = TypedDict  # of fields that are known at run time only
            joined = make(_shortened(id) if is_entry_id(id) else "joined", fields, total=total)
            return self._made_of(joined, *(arm.gives for arm in arms))
        names = _field_names(into)
        if names is not None and names != ids:
            missing, extra = sorted(ids - names), sorted(names - ids)
            self.wrong(
                id, f"into={into.__name__} must have one field per step id: missing {missing}, not a step {extra}"
            )
        return self._made_of(into, *(arm.gives for arm in arms))

    def _loop(self, entry: Entry, id: str, flow: Shape[Any]) -> Node | None:
        body = self._step(entry.steps[0], id)
        condition = self._function(entry.functions[0], f"{id}, condition")
        if body is None or condition is None:
            return None
        return LoopNode(
            id=id,
            body=body,
            condition=condition,
            until=entry.kind == "dountil",
            takes=flow,
            gives=body.gives,
            description=entry.description,
        )

    def _foreach(self, entry: Entry, id: str, flow: Shape[Any]) -> Node | None:
        body = self._step(entry.steps[0], id)
        concurrency, tolerated, least, distributed, shard = entry.functions
        if concurrency is None:
            concurrency = MOST_OPEN if distributed else 1
        if isinstance(concurrency, (int, float)):
            concurrency = slots_of(concurrency)
        else:
            concurrency = self._function(concurrency, f"{id}, concurrency")
        for name, value in (("tolerated_failures", tolerated), ("min_successful", 0 if least is None else least)):
            if not _is_count_or_share(value):
                wanted = "give a whole number from 0, or a share of the items below 1"
                self.wrong(id, f"{name}={value!r} is no count and no share; {wanted}")
        if shard is not None and (type(shard) is not int or shard < 1 or not distributed):
            self.wrong(id, f"shard={shard!r} is no number of items for a worker; give 1 or more, with distributed=True")
        if body is None or concurrency is None:
            return None
        is_another = flow.type is not Any and get_origin(flow.type) not in (list, None)
        if is_another or flow.type in (str, int, float, bool, dict):
            self.wrong(id, f"foreach needs a list; what stands before gives {flow.type}")
        item = body.gives.type if not tolerated and least is None else _or_none(body.gives.type)
        return ForeachNode(
            id=id,
            body=body,
            concurrency=concurrency,
            tolerated=tolerated,
            min_successful=least,
            distributed=bool(distributed),
            shard=shard,
            takes=flow,
            gives=self._made_of(list[item], body.gives),  # type: ignore[valid-type]  # known at run time
            description=entry.description,
        )

    def _map(self, entry: Entry, id: str, flow: Shape[Any]) -> Node | None:
        source = entry.functions[0]
        if isinstance(source, Mapping):
            sources = {str(name): self._source(spec, f"{id}, key {name!r}") for name, spec in source.items()}
            known = {name: spec for name, spec in sources.items() if spec is not None}
            return MapNode(id=id, source=known, takes=flow, gives=Shape(dict[str, Any]), description=entry.description)
        function = self._function(source, id)
        if function is None:
            return None
        return MapNode(
            id=id, source=function, takes=flow, gives=self._made_of(return_type(source)), description=entry.description
        )

    def _source(self, spec: Any, where: str) -> Source | None:
        match spec:
            case {"value": value, **rest} if not rest:
                try:
                    return Constant(settled(value))
                except NotJsonError as error:
                    self.wrong(where, f"{error}; a constant must be plain JSON")
                return Constant(value)
            case {"fn": function, **rest} if not rest:
                return self._function(function, where)
            case {"step": step, **rest} if not rest.keys() - {"path"}:
                return self._step_path(step, str(rest.get("path", "")), where)
            case {"template": str() as text, **rest} if not rest:
                return self._template(text, where)
            case {"init_data": path, **rest} if not rest:
                return ScopePath("init_data", str(path))
            case {"state": path, **rest} if not rest:
                return ScopePath("state", str(path))
            case {"request_context": path, **rest} if not rest:
                return ScopePath("request_context", str(path))
            case _:
                self.wrong(
                    where,
                    f"{spec!r} is no source; use one of value, fn, step (+ path), init_data, state, request_context, "
                    "template",
                )
                return None

    def _step_path(self, step: Any, path: str, where: str) -> StepPath:
        steps = step if isinstance(step, (list, tuple)) else [step]
        ids = tuple(s if isinstance(s, str) else getattr(s, "id", repr(s)) for s in steps)
        for id in ids:
            if id.split(".", 1)[0] not in self.earlier:
                self.wrong(where, f"step {id!r} does not stand before it; earlier ones: {sorted(self.earlier)}")
        return StepPath(ids, path)

    def _template(self, text: str, where: str) -> Template:
        parts: list[str | ScopePath | StepPath] = []
        for index, part in enumerate(re.split(r"\$\{([^}]*)\}", text)):
            if index % 2 == 0:
                parts.append(part)
                continue
            scope, _, path = part.strip().partition(".")
            if scope in ("init_data", "state", "request_context", "input_data"):
                parts.append(ScopePath(scope, path))
            elif scope in self.earlier:
                parts.append(StepPath((scope,), path))
            else:
                self.wrong(
                    where,
                    f"placeholder ${{{part}}} names neither init_data, input_data, state, request_context nor an "
                    "earlier step",
                )
        return Template(tuple(part for part in parts if part != ""))

    def _sleep(self, entry: Entry, id: str, flow: Shape[Any]) -> Node | None:
        until = entry.kind == "sleep_until"
        pause = entry.functions[0]
        if until and isinstance(pause, datetime) and pause.tzinfo is None:
            self.wrong(id, "sleep_until needs an aware datetime; add a timezone, e.g. tzinfo=timezone.utc")
        if not isinstance(pause, datetime if until else timedelta):
            if not callable(pause):
                wanted = "a datetime" if until else "a timedelta"
                other = " (sleep_until takes a datetime)" if isinstance(pause, datetime) else ""
                other = " (sleep takes a timedelta)" if isinstance(pause, timedelta) else other
                self.wrong(
                    id, f"{pause!r} is no pause; give {wanted} or a function of the value that returns one{other}"
                )
                return None
            pause = self._function(pause, id)
            if pause is None:
                return None
        return SleepNode(id=id, pause=pause, until=until, takes=flow, gives=flow, description=entry.description)

    def _event(self, entry: Entry, id: str, flow: Shape[Any]) -> Node | None:
        event, key, timeout, on_timeout = entry.functions
        mistake = event_mistake(event) or (key_mistake(key) if isinstance(key, str) else None)
        if mistake is not None:
            self.wrong(id, mistake)
        if timeout is not None and not (isinstance(timeout, timedelta) and timeout > timedelta(0)):
            self.wrong(id, f"timeout={timeout!r} is no pause; give a timedelta above 0, or leave it out")
        data: Shape[Any] = Shape(Any if entry.into is None else entry.into)
        data = data if self.definition.options.validate_inputs else Unchecked(data.type)
        gives = data if on_timeout is not None else type(data)(_or_none(data.type))
        computed = key if isinstance(key, str) else self._function(key, f"{id}, key")
        if computed is None:
            return None
        return EventNode(
            id=id,
            event=event,
            key=computed,
            timeout=timeout,
            takes=flow,
            gives=gives,
            data=data,
            description=entry.description,
            lapse=self._lapse(on_timeout, timeout, gives, id),
            stand_ins=self._stand_ins([on_timeout] if isinstance(on_timeout, Step) else (), gives),
        )

    def _lapse(self, on_timeout: Any, timeout: timedelta | None, gives: Shape[Any], id: str) -> Lapse:
        """What becomes of a wait for an event at its deadline."""
        if isinstance(on_timeout, str) and on_timeout == FAIL:
            return Lapse(None)
        if timeout is None:
            self.wrong(id, "on_timeout= is of no use without timeout=; say how long to wait for the event")
        if hasattr(on_timeout, "commit") or isinstance(getattr(on_timeout, "compiled", None), Graph):
            self.wrong(id, f"on_timeout={_shown(on_timeout)} is a workflow, which cannot stand in; give a step")
        elif isinstance(on_timeout, Step):
            return Lapse(None, step=on_timeout.id)
        return Lapse((self._stored(on_timeout, gives, id),))

    def _function(self, function: Any, where: str) -> Function | None:
        if not callable(function):
            self.wrong(
                where, f"{function!r} is not callable; give a function of the value, or of the value and the context"
            )
            return None
        try:
            return Function(function, takes_context(function, where))
        except DefinitionError as error:
            self.mistakes.extend(error.mistakes)
            return None


def _pairs(entry: Entry) -> Iterator[tuple[Any, Any]]:
    return zip(entry.functions, entry.steps, strict=True)


def _no_step(thing: Any) -> str:
    """What is wrong with something that stands where a step should, and what to write instead."""
    if hasattr(thing, "commit"):
        return f"{_shown(thing)} is not a step (an uncommitted workflow: call .commit())"
    if isinstance(thing, (list, tuple)):
        return f"{_shown(thing)} is not a step; give the steps one by one, each an argument"
    if callable(thing):
        return f"{_shown(thing)} is not a step; decorate the function with @step"
    return f"{_shown(thing)} is not a step; give what @step made, not what calling it gives"


def _shown(thing: Any) -> str:
    """What stands there, in a few words."""
    if hasattr(thing, "commit"):
        return f"workflow {thing.id!r}"
    if isinstance(thing, Step):
        return f"step {thing.id!r}"
    if isinstance(thing, (list, tuple)):
        return f"a {type(thing).__name__} of {len(thing)}"
    return f"{getattr(thing, '__name__', None) or repr(thing)[:80]} ({type(thing).__name__})"


def _retry(step: Step[Any, Any, Any, Any], options: Options) -> Retry:
    """How the step is tried again. At most once: only where its author asks, and never when it may still be at work."""
    is_careful = step.semantics == "at_most_once"
    usual = 0 if is_careful else options.retries
    return Retry(
        retries=usual if step.retries is None else step.retries,
        backoff=step.backoff or options.backoff,
        on=step.retry_on,
        never_on=(*step.no_retry_on, StepTimeout) if is_careful else step.no_retry_on,
    )


def _field_names(into: Any) -> set[str] | None:
    """The field names of a model, dataclass or TypedDict; None when the type has none to compare."""
    if (fields := getattr(into, "model_fields", None)) is not None:
        return {
            field.validation_alias if isinstance(field.validation_alias, str) else name
            for name, field in fields.items()
        }
    if is_dataclass(into):
        return set(into.__dataclass_fields__)
    return set(into.__annotations__) if is_typeddict(into) else None


def _is_count_or_share(value: object) -> bool:
    """Whether so many items, or such a part of them, can be meant; 1.0 might be one of them, or all."""
    return (type(value) is int and value >= 0) or (type(value) is float and 0 <= value < 1)


def _or_none(type_: Any) -> Any:
    """The type of an item that may fail and gives None then; what is no type at all is told of elsewhere."""
    try:
        return type_ | None
    except TypeError:
        return type_


def _shortened(id: str) -> str:
    if len(id) <= 64:
        return id
    return f"{id[:48]}-{hashlib.sha256(id.encode()).hexdigest()[:12]}"
