"""A described workflow as a Mermaid flowchart. Names of nodes are made up here; what authors wrote stands in labels.

Labels are quoted, and every character that means something to Mermaid, Markdown or HTML is an entity code in them.
Source: mermaid.js.org/syntax/flowchart.html, "Entity codes to escape characters".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flowcore.authoring.drawing.captions import detail, headline
from flowcore.authoring.drawing.colours import COLOURS
from flowcore.authoring.drawing.standing import Mark, Run, Standing, standing_of

_PLAIN = frozenset(" ,·…✓✗▸■↵»‖?")
_LONGEST_LABEL = 120


def mermaid(data: Mapping[str, Any], statuses: Run = None) -> str:
    """The flowchart of a described workflow.

    Args:
        statuses: a run, or a mapping of dotted id to status, that colours it.
    """
    chart = _Chart(standing_of(statuses))
    first = chart.add('(("start"))')
    last = chart.series(data["nodes"], first)
    chart.link(last, chart.add('((("end")))'))
    used = sorted(set(chart.classes.values()))
    styles = [f"classDef {name} {_style(name)}" for name in used]
    classes = [f"class {','.join(n for n, c in chart.classes.items() if c == name)} {name}" for name in used]
    return "\n".join(["flowchart TB", *(f"  {line}" for line in (*chart.lines, *styles, *classes))]) + "\n"


def escaped(text: str) -> str:
    """Text for a quoted label: letters and digits of any script as they are, all else as entity codes."""
    short = text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "…"
    return "".join(c if c.isalnum() or c in _PLAIN else f"#{ord(c)};" for c in short if c >= " ")


@dataclass
class _Chart:
    """Lines in the making."""

    standing: Standing
    lines: list[str] = field(default_factory=list)
    classes: dict[str, str] = field(default_factory=dict)
    made: int = 0

    def add(self, shape: str, mark: Mark | None = None) -> str:
        name = self.named(mark)
        self.lines.append(f"{name}{shape}")
        return name

    def named(self, mark: Mark | None) -> str:
        name = f"n{self.made}"
        self.made += 1
        if mark is not None and mark.status in COLOURS:
            self.classes[name] = mark.status
        return name

    def link(self, origin: str, target: str, label: str = "") -> None:
        self.lines.append(f'{origin} -->|"{escaped(label)}"| {target}' if label else f"{origin} --> {target}")

    def series(self, nodes: list[Any], before: str | None) -> str:
        """The nodes one after the other; the name of the last."""
        for node in nodes:
            before = self.node(node, before, "", self.standing.mark(node))
        return before or ""

    def node(self, node: Mapping[str, Any], before: str | None, label: str, mark: Mark | None) -> str:
        """One node, linked to the one before; the name of what the next is linked to."""
        match node["kind"]:
            case "parallel" | "branch":
                return self.fork(node, before, label, mark)
            case "workflow":
                name = self.framed(node, node["nodes"], mark)
            case "dountil" | "dowhile" | "foreach":
                body = node["body"]
                inner = body["nodes"] if body["kind"] == "workflow" else None
                shape = f'[["{_label(node, mark)}"]]'
                name = self.add(shape, mark) if inner is None else self.framed(node, inner, mark)
            case "map":
                name = self.add(f'[/"{_label(node, mark)}"/]', mark)
            case "sleep" | "sleep_until" | "wait_for_event":
                name = self.add(f'(["{_label(node, mark)}"])', mark)
            case _:
                name = self.add(f'["{_label(node, mark)}"]', mark)
        if before is not None:
            self.link(before, name, label)
        if node["kind"] in ("dountil", "dowhile") and node["body"]["kind"] == "step":
            self.link(name, name, "again")  # a subgraph cannot be linked to itself
        return name

    def framed(self, node: Mapping[str, Any], inner: list[Any], mark: Mark | None) -> str:
        name = self.named(mark)
        self.lines += [f'subgraph {name}["{_label(node, mark, between=" · ")}"]', "direction TB"]
        self.series(inner, None)
        self.lines.append("end")
        return name

    def fork(self, node: Mapping[str, Any], before: str | None, label: str, mark: Mark | None) -> str:
        shape = f'{{{{"{_label(node, mark)}"}}}}' if node["kind"] == "parallel" else f'{{"{_label(node, mark)}"}}'
        opening = self.add(shape, mark)
        if before is not None:
            self.link(before, opening, label)
        ends = [
            self.node(arm["node"], opening, arm.get("when", ""), self.standing.arm(node, arm["node"]))
            for arm in node["arms"]
        ]
        closing = self.add('((" "))')
        for end in ends:
            self.link(end, closing)
        if node["kind"] == "branch" and not node["arms"][-1]["otherwise"]:
            self.link(opening, closing, "none is true")
        return closing


def _label(node: Mapping[str, Any], mark: Mark | None, between: str = "<br/>") -> str:
    """``between``: a subgraph's heading has room for one line only."""
    lines = [headline(node), detail(node), mark.text if mark else ""]
    return between.join(escaped(line) for line in lines if line)


def _style(status: str) -> str:
    """Light and dark pages show a Mermaid chart alike, so the text's colour is set with the fill's."""
    light = COLOURS[status].light
    return f"fill:{light.fill},stroke:{light.line},color:#1f2328"
