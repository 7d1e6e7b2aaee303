"""Where everything stands: rectangles and lines of a described workflow, top to bottom.

Workflows are series-parallel trees, so recursion lays them out: a series is a column, arms are columns side by side, a
nested workflow is a frame around a series. Every part is centred on its axis; what stands beside each other cannot
touch, because each part keeps its own width. Coordinates are whole numbers, so that the same input is the same picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from flowcore.authoring.drawing.captions import detail, headline, tooltip
from flowcore.authoring.drawing.fonts import Font, shortened, width
from flowcore.authoring.drawing.standing import Mark, Standing

Point: TypeAlias = tuple[int, int]
Shape: TypeAlias = Literal["start", "end", "step", "map", "sleep", "fork", "chip", "join", "frame"]

HEADLINE, LINE, CHIP, TAG = Font(14, bold=True), Font(12), Font(12), Font(11, bold=True)

STACK = 4
"""How far each of the two cards behind a foreach looks out, upwards and to the right."""
_GAP, _CHIP_GAP, _COLUMN_GAP, _PAD, _BUS = 34, 22, 32, 20, 16
_NARROWEST, _WIDEST = 150, 300
_CLOCK = 18
"""More room, on both sides, on what sleeps: a clock stands in the left one."""
_LOOP_ROOM = 28
"""Beside a loop, on both sides so that the axis stays in the middle; its line runs through the right one."""
_HEAD = 50
"""From the top of a frame to what is in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle with text in it."""

    x: int = 0
    y: int = 0
    w: int
    h: int
    shape: Shape
    lines: tuple[str, ...] = ()
    mark: Mark | None = None
    tip: str = ""
    repeats: Literal["", "loop", "foreach"] = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """A line of horizontal and vertical pieces from border to border; ``is_taken``: the run went along it."""

    points: tuple[Point, ...]
    is_taken: bool = False
    is_pointed: bool = True


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the picture with its own origin; it is entered at the top of its axis and left at the bottom."""

    w: int
    h: int
    boxes: tuple[Box, ...] = ()
    edges: tuple[Edge, ...] = ()
    is_reached: bool = False
    is_over: bool = False
    gap: int = _GAP
    """Between this block and the next."""

    @property
    def axis(self) -> int:
        """The middle; widths are even."""
        return self.w // 2

    def at(self, dx: int, dy: int) -> Block:
        """The same part elsewhere."""
        boxes = tuple(replace(box, x=box.x + dx, y=box.y + dy) for box in self.boxes)
        edges = tuple(replace(e, points=tuple((x + dx, y + dy) for x, y in e.points)) for e in self.edges)
        return replace(self, boxes=boxes, edges=edges)


def laid_out(data: Mapping[str, Any], standing: Standing) -> Block:
    """The whole picture of a described workflow, from start to end."""
    began = not standing.is_empty
    start = replace(_single(Box(w=16, h=16, shape="start", tip="start"), None), is_reached=began, is_over=began)
    inner = [_node(node, standing, standing.mark(node)) for node in data["nodes"]]
    ended = inner[-1].is_over if inner else began
    end = replace(_single(Box(w=20, h=20, shape="end", tip="end"), None), is_reached=ended)
    return _series([start, *inner, end])


def _series(blocks: Sequence[Block]) -> Block:
    """One below the other, on one axis."""
    if not blocks:
        return Block(0, 0)
    w = max(block.w for block in blocks)
    boxes: list[Box] = []
    edges: list[Edge] = []
    y = 0
    before: Block | None = None
    for block in blocks:
        if before is not None:
            edges.append(Edge(((w // 2, y), (w // 2, y + before.gap)), before.is_over and block.is_reached))
            y += before.gap
        placed = block.at(w // 2 - block.axis, y)
        boxes += placed.boxes
        edges += placed.edges
        y += block.h
        before = block
    return Block(w, y, tuple(boxes), tuple(edges), blocks[0].is_reached, blocks[-1].is_over)


def _node(node: Mapping[str, Any], standing: Standing, mark: Mark | None) -> Block:
    match node["kind"]:
        case "parallel" | "branch":
            return _fork(node, standing, mark)
        case "workflow":
            return _framed(node, node["nodes"], standing, mark)
        case "dountil" | "dowhile":
            again = standing.turns.get(node["path"], 1) > 1
            return _looped(_repeated(node, standing, mark, "loop"), is_taken=again)
        case "foreach":
            return _repeated(node, standing, mark, "foreach")
        case "map":
            return _single(_labelled(node, mark, "map"), mark)
        case "sleep" | "sleep_until" | "wait_for_event":
            return _single(_labelled(node, mark, "sleep"), mark)
        case _:
            return _single(_labelled(node, mark, "step"), mark)


def _single(box: Box, mark: Mark | None) -> Block:
    return Block(
        box.w, box.h, (box,), is_reached=mark is not None and mark.is_reached, is_over=mark is not None and mark.is_over
    )


def _labelled(node: Mapping[str, Any], mark: Mark | None, shape: Shape) -> Box:
    room = _WIDEST - 2 * _PAD
    name, below = shortened(headline(node), HEADLINE, room), shortened(detail(node), LINE, room)
    w = max(width(name, HEADLINE), width(below, LINE)) + 2 * (_PAD + (_CLOCK if shape == "sleep" else 0))
    lines = (name, below) if below else (name,)
    return Box(
        w=_wide_enough(w, mark),
        h=52 if below else 40,
        shape=shape,
        lines=lines,
        mark=mark,
        tip=tooltip(node, mark),
    )


def _repeated(
    node: Mapping[str, Any], standing: Standing, mark: Mark | None, repeats: Literal["loop", "foreach"]
) -> Block:
    """A loop or a foreach: a box when its body is a step, else a frame around the body's nodes."""
    body = node["body"]
    if body["kind"] == "workflow":
        block = _framed(node, body["nodes"], standing, mark)
    else:
        block = _single(_labelled(node, mark, "step"), mark)
    outer, *inner = block.boxes
    if repeats == "loop":
        return replace(block, boxes=(replace(outer, repeats=repeats), *inner))
    # The cards behind are part of the rectangle; what is inside moves down with the front one.
    room = 2 * STACK
    lowered = block.at(room, room)
    front = replace(outer, w=outer.w + 2 * room, h=outer.h + room, repeats=repeats)
    return replace(lowered, w=block.w + 2 * room, h=block.h + room, boxes=(front, *lowered.boxes[1:]))


def _looped(block: Block, *, is_taken: bool) -> Block:
    """The block with the line that leads back to its own side."""
    placed = block.at(_LOOP_ROOM, 0)
    right, bend = _LOOP_ROOM + block.w, _LOOP_ROOM + block.w + 18
    low, high = block.h - min(block.h // 4, 24), min(block.h // 3, 30)
    back = Edge(((right, low), (bend, low), (bend, high), (right, high)), is_taken)
    return replace(placed, w=block.w + 2 * _LOOP_ROOM, edges=(*placed.edges, back))


def _framed(node: Mapping[str, Any], nodes: Sequence[Any], standing: Standing, mark: Mark | None) -> Block:
    """A frame with a heading around a series."""
    inner = _series([_node(child, standing, standing.mark(child)) for child in nodes])
    head = _labelled(node, mark, "frame")
    w = max(head.w, inner.w + 2 * _PAD)
    placed = inner.at(w // 2 - inner.axis, _HEAD + 8)
    frame = replace(head, w=w, h=_HEAD + 8 + inner.h + _PAD)
    block = _single(frame, mark)
    return replace(block, boxes=(frame, *placed.boxes), edges=placed.edges)


def _fork(node: Mapping[str, Any], standing: Standing, mark: Mark | None) -> Block:
    """Arms side by side between a pill and a dot; what leads to a branch's arm passes its condition."""
    is_branch = node["kind"] == "branch"
    columns = []
    for arm in node["arms"]:
        arm_mark = standing.arm(node, arm["node"]) if is_branch else standing.mark(arm["node"])
        column = _node(arm["node"], standing, arm_mark)
        columns.append(_series([_chip(arm["when"], arm_mark), column]) if is_branch else column)
    if is_branch and not node["arms"][-1]["otherwise"]:
        none_chosen = mark is not None and mark.is_over and not any(column.is_reached for column in columns)
        columns.append(_chip("none is true", Mark("success") if none_chosen else None, is_way_round=True))

    text = shortened(headline(node), HEADLINE, _WIDEST - 2 * _PAD)
    pill = Box(
        w=_even(width(text, HEADLINE) + 32), h=30, shape="fork", lines=(text,), mark=mark, tip=tooltip(node, mark)
    )
    spread = sum(column.w for column in columns) + _COLUMN_GAP * (len(columns) - 1)
    w = max(pill.w, _even(spread))
    axis, row = w // 2, pill.h + 2 * _BUS
    low = row + max(column.h for column in columns) + _BUS
    join = low + _BUS
    boxes: list[Box] = [replace(pill, x=axis - pill.w // 2)]
    edges: list[Edge] = []
    x = axis - _even(spread) // 2
    for column in columns:
        placed, middle = column.at(x, row), x + column.axis
        boxes += placed.boxes
        edges += placed.edges
        into = _bent((axis, pill.h), pill.h + _BUS, (middle, row))
        out = _bent((middle, row + column.h), low, (axis, join))
        edges.append(Edge(into, column.is_reached))
        edges.append(Edge(out, column.is_over and column.is_reached, is_pointed=False))
        x += column.w + _COLUMN_GAP
    boxes.append(Box(x=axis - 5, y=join, w=10, h=10, shape="join"))
    is_reached = mark is not None and mark.is_reached
    is_over = is_reached and all(column.is_over for column in columns if column.is_reached)
    return Block(w, join + 10, tuple(boxes), tuple(edges), is_reached, is_over)


def _chip(text: str, mark: Mark | None, *, is_way_round: bool = False) -> Block:
    """A condition on the way to its arm, or on the way past all of them."""
    short = shortened(text, CHIP, 200)
    is_open = mark is not None and mark.is_reached
    shown = Mark("success") if is_open else mark and Mark("skipped")
    tip = "taken when no condition is true" if is_way_round else f"when {text}"
    box = Box(w=_even(width(short, CHIP) + 24), h=24, shape="chip", lines=(short,), mark=shown, tip=tip)
    return replace(_single(box, shown), gap=_CHIP_GAP)


def _bent(start: Point, level: int, end: Point) -> tuple[Point, ...]:
    """Down, across at ``level``, down."""
    if start[0] == end[0]:
        return (start, end)
    return (start, (start[0], level), (end[0], level), end)


def _wide_enough(w: int, mark: Mark | None) -> int:
    """Even, and with room for the mark to the right of the axis, where the line from above ends."""
    return _even(max(w, _NARROWEST, 2 * (tag_width(mark) + 16) if mark else 0))


def tag_width(mark: Mark) -> int:
    """How wide a mark is drawn."""
    return width(shortened(mark.text, TAG, 150), TAG) + 14


def _even(number: int) -> int:
    return number + number % 2
