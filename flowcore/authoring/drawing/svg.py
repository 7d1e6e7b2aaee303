"""A described workflow as one SVG document: text as text, no script, nothing loaded from elsewhere.

Colours follow the page's light or dark scheme. A screen reader is told the title and every step with its status; a
pointer finds what had to be shortened in a tooltip. Everything that authors or callers wrote passes ``_safe``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from flowcore.authoring.describe import nodes_of
from flowcore.authoring.drawing.captions import detail
from flowcore.authoring.drawing.colours import COLOURS, DARK, LIGHT, Page
from flowcore.authoring.drawing.fonts import FAMILY, Font, shortened, width
from flowcore.authoring.drawing.layout import CHIP, HEADLINE, LINE, STACK, TAG, Box, Edge, Point, laid_out, tag_width
from flowcore.authoring.drawing.standing import Mark, Run, Standing, standing_of

_MARGIN = 28
_TITLE, _SUBTITLE = Font(17, bold=True), Font(12)
_RADIUS = {"step": 8, "map": 3, "sleep": 26, "fork": 15, "chip": 12, "frame": 12}


def svg(data: Mapping[str, Any], statuses: Run = None) -> str:
    """The picture of a described workflow.

    Args:
        statuses: a run, or a mapping of dotted id to status, that colours it.
    """
    standing = standing_of(statuses)
    title, subtitle = data["id"], shortened(data["description"], _SUBTITLE, 600)
    block = laid_out(data, standing)
    top = _MARGIN + (58 if subtitle else 40)
    w = max(block.w, width(title, _TITLE), width(subtitle, _SUBTITLE)) + 2 * _MARGIN
    h = top + block.h + _MARGIN
    placed = block.at((w - block.w) // 2, top)
    size = f'width="{w}" height="{h}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="fc" role="img" {size} viewBox="0 0 {w} {h}">',
        f"<title>{_safe(f'Workflow {title}')}</title>",
        f"<desc>{_safe(_in_words(data, standing))}</desc>",
        f"<style>{_style()}</style>",
        f'<rect class="fc-paper" {size} rx="12"/>',
        _text(title, _MARGIN, _MARGIN + 16, _TITLE, "fc-title"),
        _text(subtitle, _MARGIN, _MARGIN + 38, _SUBTITLE, "fc-line") if subtitle else "",
        *(_box(box) for box in placed.boxes if box.shape == "frame"),
        # What was taken lies above what was not, where lines share their way.
        *(_edge(edge) for edge in sorted(placed.edges, key=lambda edge: edge.is_taken)),
        *(_box(box) for box in placed.boxes if box.shape != "frame"),
        # Marks of frames last: a line that enters a frame's first node must not cross them.
        *(_tag(box) for box in placed.boxes if box.shape not in ("fork", "chip") and box.mark is not None),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _box(box: Box) -> str:
    body = "".join(_outline(box)) + "".join(_lines(box)) + _sign(box)
    status = f" fc-{box.mark.status}" if box.mark is not None and box.mark.status in COLOURS else ""
    tip = f"<title>{_safe(box.tip)}</title>" if box.tip else ""
    return f'<g class="fc-{box.shape}{status}">{tip}{body}</g>'


def _outline(box: Box) -> Iterator[str]:
    if box.shape in ("start", "end", "join"):
        middle_x, middle_y = box.x + box.w // 2, box.y + box.h // 2
        yield f'<circle class="fc-dot" cx="{middle_x}" cy="{middle_y}" r="{box.w // 2 - (box.shape == "end")}"/>'
        if box.shape == "end":
            yield f'<circle class="fc-core" cx="{middle_x}" cy="{middle_y}" r="5"/>'
        return
    radius = min(_RADIUS[box.shape], box.h // 2)
    room = 2 * STACK if box.repeats == "foreach" else 0
    for out in (room, room // 2) if room else ():
        yield _rect(box.x + room + out, box.y + room - out, box.w - 2 * room, box.h - room, radius)
    yield _rect(box.x + room, box.y + room, box.w - 2 * room, box.h - room, radius)


def _rect(x: int, y: int, w: int, h: int, radius: int) -> str:
    return f'<rect class="fc-shape" x="{x}" y="{y}" width="{w}" height="{h}" rx="{radius}"/>'


def _lines(box: Box) -> Iterator[str]:
    """The headline, and below it the line; a frame's begin at its left, all others stand in the middle."""
    room = 2 * STACK if box.repeats == "foreach" else 0
    is_frame = box.shape == "frame"
    x, anchor = (box.x + room + 16, "start") if is_frame else (box.x + box.w // 2, "middle")
    middle = box.y + room + (26 if is_frame else (box.h - room) // 2)
    y = middle + (5 if len(box.lines) < 2 else -4)
    for number, line in enumerate(box.lines):
        if number:
            yield _text(line, x, y + 18, LINE, "fc-line", anchor)
        elif box.shape == "chip":
            yield _text(line, x, y, CHIP, "fc-when", anchor)
        else:
            yield _text(line, x, y, HEADLINE, "fc-name", anchor)


def _sign(box: Box) -> str:
    """A clock on what sleeps, so that its kind is seen before it is read."""
    if box.shape != "sleep":
        return ""
    x, y = box.x + 20, box.y + box.h // 2
    return f'<path class="fc-sign" d="M{x - 6} {y}a6 6 0 1 0 12 0a6 6 0 1 0 -12 0M{x} {y - 3}v3h3"/>'


def _tag(box: Box) -> str:
    """The status in words on the upper right border, right of where a line from above ends."""
    mark = box.mark
    if mark is None:
        return ""
    room = 2 * STACK if box.repeats == "foreach" else 0
    text, w = shortened(mark.text, TAG, 150), tag_width(mark)
    x, y = box.x + box.w - room - w - 8, box.y + room - 9
    status = f" fc-{mark.status}" if mark.status in COLOURS else ""
    label = _text(text, x + w // 2, y + 13, TAG, "fc-word", "middle")
    return f'<g class="fc-tag{status}"><rect x="{x}" y="{y}" width="{w}" height="18" rx="9"/>{label}</g>'


def _edge(edge: Edge) -> str:
    classes = "fc-edge" + (" fc-taken" if edge.is_taken else "")
    line = f'<path class="fc-way" d="{_way(edge.points)}"/>'
    return f'<g class="{classes}">{line}{_tip(edge) if edge.is_pointed else ""}</g>'


def _tip(edge: Edge) -> str:
    (from_x, from_y), (x, y) = edge.points[-2:]
    dx, dy = _sign_of(x - from_x), _sign_of(y - from_y)
    back_x, back_y = x - 8 * dx, y - 8 * dy
    return (
        f'<path class="fc-tip" d="M{x} {y}L{back_x + 4 * dy} {back_y + 4 * dx}L{back_x - 4 * dy} {back_y - 4 * dx}Z"/>'
    )


def _way(points: tuple[Point, ...]) -> str:
    """A path with rounded corners."""
    (x, y), *rest = points
    parts = [f"M{x} {y}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        radius = min(8, _length(before, corner) // 2, _length(corner, after) // 2)
        (x1, y1), (x2, y2) = _towards(corner, before, radius), _towards(corner, after, radius)
        parts.append(f"L{x1} {y1}Q{corner[0]} {corner[1]} {x2} {y2}")
    x, y = rest[-1]
    return "".join([*parts, f"L{x} {y}"])


def _length(one: Point, other: Point) -> int:
    return abs(one[0] - other[0]) + abs(one[1] - other[1])


def _towards(origin: Point, goal: Point, distance: int) -> Point:
    return (
        origin[0] + distance * _sign_of(goal[0] - origin[0]),
        origin[1] + distance * _sign_of(goal[1] - origin[1]),
    )


def _sign_of(number: int) -> int:
    return (number > 0) - (number < 0)


def _text(text: str, x: int, y: int, font: Font, name: str, anchor: str = "start") -> str:
    where = f'x="{x}" y="{y}" text-anchor="{anchor}"'
    weight = ' font-weight="600"' if font.bold else ""
    return f'<text class="{name}" {where} font-size="{font.size}"{weight}>{_safe(text)}</text>'


def _safe(text: str) -> str:
    """Text for an element's content: escaped, and without the characters that XML has no way to write."""
    return escape(re.sub("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text))


def _in_words(data: Mapping[str, Any], standing: Standing) -> str:
    """The picture for who does not see it: every node in order, with what it does and its status."""
    sentences = [data["description"]] if data["description"] else []
    sentences += [sentence for node in data["nodes"] for sentence in _sentences(node, standing, standing.mark(node))]
    return "; ".join(sentences)


def _sentences(node: Mapping[str, Any], standing: Standing, mark: Mark | None) -> Iterator[str]:
    what = " ".join(part for part in (node["kind"].replace("_", " "), node["path"], detail(node)) if part)
    yield f"{what}: {mark.status} {mark.note}".rstrip() if mark else what
    whens = [f"when {arm['when']}, " if "when" in arm else "" for arm in node.get("arms", ())]
    for index, inner in enumerate(nodes_of(node)):
        if "body" in node and inner["kind"] != "workflow":
            return
        inner_mark = standing.arm(node, inner) if node["kind"] == "branch" else standing.mark(inner)
        first, *rest = _sentences(inner, standing, inner_mark)
        yield f"{whens[index] if whens else ''}{first}"
        yield from rest


# -- style ------------------------------------------------------------------------------------------------------------


def _style() -> str:
    """Written out for both schemes, without variables: what turns SVG into PNG seldom knows those."""
    fixed = (
        f".fc text{{font-family:{FAMILY}}}",
        ".fc-shape,.fc-dot,.fc-way,.fc-sign{stroke-width:1.5}",
        ".fc-way,.fc-sign{fill:none}",
        ".fc-taken .fc-way{stroke-width:2.5}",
        ".fc-skipped .fc-shape,.fc-pending .fc-shape{stroke-dasharray:4 3}",
        ".fc-frame .fc-shape{stroke-dasharray:none}",
    )
    return "".join((*fixed, *_scheme(LIGHT), "@media (prefers-color-scheme:dark){", *_scheme(DARK), "}"))


def _scheme(page: Page) -> Iterator[str]:
    yield f".fc-paper{{fill:{page.paper}}}"
    yield f".fc-title,.fc-name{{fill:{page.text}}}"
    yield f".fc-line,.fc-when{{fill:{page.quiet}}}"
    yield f".fc-shape{{fill:{page.node};stroke:{page.line}}}"
    yield f".fc-chip .fc-shape{{fill:{page.paper}}}"
    yield f".fc-frame .fc-shape{{fill:{page.frame}}}"
    yield f".fc-dot{{fill:{page.line};stroke:{page.line}}}"
    yield f".fc-end .fc-dot{{fill:{page.paper}}}.fc-core{{fill:{page.line}}}"
    yield f".fc-way,.fc-sign{{stroke:{page.line}}}.fc-tip{{fill:{page.line}}}"
    yield f".fc-taken .fc-way{{stroke:{page.text}}}.fc-taken .fc-tip{{fill:{page.text}}}"
    yield f".fc-tag rect{{fill:{page.quiet}}}.fc-word{{fill:{page.on_line}}}"
    for status, pair in COLOURS.items():
        tone = pair.light if page is LIGHT else pair.dark
        yield f".fc-{status} .fc-shape{{fill:{tone.fill};stroke:{tone.line}}}"
        yield f".fc-tag.fc-{status} rect{{fill:{tone.line}}}"
        yield f".fc-frame.fc-{status} .fc-shape{{fill:{page.frame}}}"
        yield f".fc-chip.fc-{status} .fc-when{{fill:{tone.line}}}"
