"""A workflow whose steps tell somebody before they run, and are otherwise what they were."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from flowcore.authoring.context import StepContext
from flowcore.authoring.graph import (
    BranchNode,
    EventNode,
    ForeachNode,
    Graph,
    LoopNode,
    NestedNode,
    Node,
    ParallelNode,
    StepNode,
    entries,
)
from flowcore.authoring.step import Step
from flowcore.authoring.workflow import Workflow

N = TypeVar("N", bound=Node)
Spy = Callable[[Any, StepContext[Any, Any, Any]], None]


def spied(workflow: Workflow[Any, Any], spy: Spy) -> Workflow[Any, Any]:
    """The same workflow, under the same fingerprint; ``spy`` gets input and context of each step that begins."""
    return replace(workflow, compiled=_graph(workflow.compiled, spy))


def _graph(graph: Graph, spy: Spy) -> Graph:
    nodes = tuple(_node(node, spy) for node in graph.nodes)
    return replace(graph, nodes=nodes, by_id={node.id: node for node in entries(nodes)})


def _node(node: N, spy: Spy) -> N:
    match node:
        case StepNode():
            return replace(node, step=_step(node.step, spy), stand_ins=_each(node.stand_ins, spy))
        case EventNode():
            return replace(node, stand_ins=_each(node.stand_ins, spy))
        case ParallelNode():
            return replace(node, arms=tuple(_node(arm, spy) for arm in node.arms))
        case BranchNode():
            arms = tuple((condition, _node(arm, spy)) for condition, arm in node.arms)
            return replace(node, arms=arms, otherwise=node.otherwise and _node(node.otherwise, spy))
        case LoopNode() | ForeachNode():
            return replace(node, body=_node(node.body, spy))
        case NestedNode():
            return replace(node, graph=_graph(node.graph, spy))
        case _:
            return node


def _each(nodes: Mapping[str, StepNode], spy: Spy) -> Mapping[str, StepNode]:
    return {id: _node(node, spy) for id, node in nodes.items()}


def _step(step: Step[Any, Any, Any, Any], spy: Spy) -> Step[Any, Any, Any, Any]:
    def called(value: Any, ctx: StepContext[Any, Any, Any]) -> Any:
        spy(value, ctx)
        return step.execute(value, ctx) if step.takes_context else step.execute(value)

    async def awaited(value: Any, ctx: StepContext[Any, Any, Any]) -> Any:
        return await called(value, ctx)

    execute = awaited if inspect.iscoroutinefunction(step.execute) else called
    return replace(step, execute=execute, takes_context=True)
