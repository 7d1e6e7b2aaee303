"""A compiled workflow as plain JSON: what consoles, exports and the drawings beside it read instead of the nodes.

Every node carries its ``path``, the dotted id under which a run's steps are listed; items of a foreach, which are as
many as a run has, stand there as ``fan[*]``. Kinds are spelled as the builder's verbs. Nothing of a run is in here.
"""

from __future__ import annotations

import ast
import linecache
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from inspect import unwrap
from types import FunctionType
from typing import Any, TypeAlias

from pydantic import PydanticUserError

from flowcore.authoring.graph import (
    BranchNode,
    EventNode,
    ForeachNode,
    Function,
    Graph,
    LoopNode,
    MapNode,
    NestedNode,
    Node,
    ParallelNode,
    SleepNode,
    StepNode,
)
from flowcore.codec import Shape

Drawn: TypeAlias = dict[str, Any]

_LONGEST_WORDING = 200
"""Characters of a condition that are kept; a picture shows fewer, a tooltip all of them."""


def describe(graph: Graph, *, schemas: bool = False) -> Drawn:
    """The workflow as JSON, nested ones inside.

    Args:
        schemas: with the JSON Schema (2020-12) of every door, under ``schemas`` of each node that has some. A workflow,
            nested or not, has ``input, output, state, request_context``; a step, also the body of a loop or a foreach,
            ``input, output, resume, suspend, state, request_context``. A door about whose type the author said nothing
            is ``{}``, which accepts everything (of a workflow's state and request context: any object); one whose type
            JSON Schema cannot say is None.
    """
    described = {
        "kind": "workflow",
        "id": graph.id,
        "path": "",
        "description": printable(graph.description),
        "fingerprint": graph.fingerprint,
        "nodes": [_node(node, node.id, "", schemas=schemas) for node in graph.nodes],
    }
    return described | _doors(_doors_of(graph), schemas=schemas)


def nodes_of(node: Mapping[str, Any]) -> Iterator[Drawn]:
    """What stands directly inside a described node: a workflow's nodes, the arms, the body."""
    yield from node.get("nodes", ())
    yield from (arm["node"] for arm in node.get("arms", ()))
    if "body" in node:
        yield node["body"]


def printable(text: object) -> str:
    """Text that every encoding takes: half of a surrogate pair becomes U+FFFD."""
    return str(text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def wording(function: Callable[..., Any]) -> str:
    """A function in words: its name; of a lambda its body as it was written, when the source is at hand."""
    call = unwrap(function.func if isinstance(function, partial) else function)
    name = getattr(call, "__name__", type(call).__name__)
    text = _body_of(call) if name == "<lambda>" else name
    return printable(text)[:_LONGEST_WORDING]


def _node(node: Node, path: str, scope: str, *, schemas: bool) -> Drawn:
    """``scope``: what stands before the ids of this node's siblings, ``child.`` or nothing."""
    common = {"kind": "", "id": node.id, "path": path, "description": printable(node.description)}
    match node:
        case StepNode():
            step = node.step
            own = {"kind": "step", "step": step.id, "retries": node.retry.retries}
            if step.timeout is not None:
                own["timeout_s"] = step.timeout.total_seconds()
            own |= _stand_ins(node)
            doors = {
                "input": step.input,
                "output": step.output,
                "resume": step.resume,
                "suspend": step.suspend,
                "state": step.state,
                "request_context": step.request_context,
            }
            return common | own | _doors(doors, schemas=schemas)
        case NestedNode():
            inner = [_node(child, f"{path}.{child.id}", f"{path}.", schemas=schemas) for child in node.graph.nodes]
            own = {"kind": "workflow", "workflow": node.graph.id, "nodes": inner}
            return common | own | _doors(_doors_of(node.graph), schemas=schemas)
        case MapNode(source=source):
            if isinstance(source, Function):
                return common | {"kind": "map", "computed": wording(source.call)}
            return common | {"kind": "map", "fields": [printable(key) for key in source]}
        case SleepNode():
            return common | _pause(node)
        case EventNode(event=event, key=key):
            about = {"key": printable(key)} if isinstance(key, str) else {"computed": wording(key.call)}
            limit: Drawn = {} if node.timeout is None else {"seconds": node.timeout.total_seconds()}
            waited = {"kind": "wait_for_event", "event": event} | _stand_ins(node)
            return common | waited | about | limit | _doors({"output": node.gives}, schemas=schemas)
        case ParallelNode():
            arms = [{"node": _node(arm, f"{scope}{arm.id}", scope, schemas=schemas)} for arm in node.arms]
            return common | {"kind": "parallel", "arms": arms}
        case BranchNode():
            return common | {"kind": "branch", "arms": _choices(node, scope, schemas=schemas)}
        case LoopNode():
            body = _node(node.body, path, scope, schemas=schemas)
            kind = "dountil" if node.until else "dowhile"
            return common | {"kind": kind, "condition": wording(node.condition.call), "body": body}
        case ForeachNode(concurrency=slots):
            body = _node(node.body, f"{path}[*]", scope, schemas=schemas)
            own = {"concurrency": slots} if isinstance(slots, int) else {"computed": wording(slots.call)}
            return common | {"kind": "foreach"} | own | {"body": body}


def _stand_ins(node: StepNode | EventNode) -> Drawn:
    return {"stand_ins": list(node.stand_ins)} if node.stand_ins else {}


def _choices(node: BranchNode, scope: str, *, schemas: bool) -> list[Drawn]:
    conditions = [(wording(condition.call), arm) for condition, arm in node.arms]
    last = [("otherwise", node.otherwise)] if node.otherwise else []
    return [
        {
            "when": when,
            "otherwise": arm is node.otherwise,
            "node": _node(arm, f"{scope}{arm.id}", scope, schemas=schemas),
        }
        for when, arm in (*conditions, *last)
    ]


def _pause(node: SleepNode) -> Drawn:
    kind = {"kind": "sleep_until" if node.until else "sleep"}
    match node.pause:
        case timedelta() as length:
            return kind | {"seconds": length.total_seconds()}
        case datetime() as instant:
            return kind | {"at": instant.astimezone(UTC).isoformat().replace("+00:00", "Z")}
        case Function(call=call):
            return kind | {"computed": wording(call)}


def _doors_of(graph: Graph) -> Mapping[str, Shape[Any]]:
    return {
        "input": graph.takes,
        "output": graph.gives,
        "state": graph.state,
        "request_context": graph.request_context,
    }


def _doors(doors: Mapping[str, Shape[Any]], *, schemas: bool) -> Drawn:
    return {"schemas": {door: _schema(shape) for door, shape in doors.items()}} if schemas else {}


def _schema(shape: Shape[Any]) -> Any:
    """None for a type that values can be validated by but that JSON Schema cannot say."""
    try:
        return shape.schema()
    except PydanticUserError:
        return None


# -- what a lambda says -----------------------------------------------------------------------------------------------


def _body_of(function: Callable[..., Any]) -> str:
    """The source of a lambda's body; ``lambda`` when there is no source, or it is not certain which one it is."""
    if not isinstance(function, FunctionType):
        return "lambda"
    code = function.__code__
    where = [
        (line, column, end_line, end_column)
        for line, end_line, column, end_column in code.co_positions()
        if line
        and end_line
        and column is not None
        and end_column is not None
        and (end_line, end_column) > (line, column)
    ]
    lines = linecache.getlines(code.co_filename, function.__globals__)
    if not where or not lines:
        return "lambda"
    first, last = min(place[:2] for place in where), max(place[2:] for place in where)
    fitting = [
        body
        for body in _lambdas("".join(lines)).get(code.co_firstlineno, ())
        if (body.lineno, body.col_offset) <= first and last <= (body.end_lineno or 0, body.end_col_offset or 0)
    ]
    if not fitting:
        return "lambda"
    innermost = max(fitting, key=lambda body: (body.lineno, body.col_offset))
    return " ".join(ast.unparse(innermost).split())


@lru_cache(maxsize=32)
def _lambdas(source: str) -> Mapping[int, tuple[ast.expr, ...]]:
    """The bodies of all lambdas of a module by the line they begin in."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return {}
    found: dict[int, tuple[ast.expr, ...]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda):
            found[node.lineno] = (*found.get(node.lineno, ()), node.body)
    return found
