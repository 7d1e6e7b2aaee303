"""The hash by which a run knows whether a workflow has changed since it began."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from flowcore.authoring.graph import (
    BranchNode,
    EventNode,
    ForeachNode,
    LoopNode,
    MapNode,
    NestedNode,
    Node,
    ParallelNode,
    SleepNode,
    StepNode,
)


def fingerprint_of(nodes: tuple[Node, ...]) -> str:
    """A hash of the structure: kinds and ids, in order; not of code and not of types."""

    def drawn(node: Node) -> Any:
        match node:
            case ParallelNode():
                return ["parallel", node.id, [drawn(arm) for arm in node.arms]]
            case BranchNode():
                return ["branch", node.id, [drawn(arm) for arm in node.nodes], node.otherwise is not None]
            case LoopNode():
                return ["loop", node.id, drawn(node.body), node.until]
            case ForeachNode():
                spread = ["distributed"] if node.distributed else []  # who has such a one open cannot do with another
                return ["foreach", node.id, drawn(node.body), *spread]
            case NestedNode():
                return ["nested", node.id, node.graph.fingerprint]
            case StepNode() | EventNode() if node.stand_ins:
                return [type(node).__name__, node.id, [drawn(node.stand_ins[id]) for id in sorted(node.stand_ins)]]
            case StepNode() | MapNode() | SleepNode() | EventNode():
                return [type(node).__name__, node.id]

    text = json.dumps([drawn(node) for node in nodes], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
