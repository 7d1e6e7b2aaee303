"""A workflow as an SVG picture: what stands where, what it says, and that nothing hostile gets out of its text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from types import SimpleNamespace
from typing import Any, get_args
from xml.etree import ElementTree as ET

import pytest

from examples.expense import Decision, expense_flow
from flowcore import RunResult, StepContext, create_step, otherwise, workflow
from flowcore.app import App
from flowcore.authoring.drawing.captions import duration
from flowcore.authoring.drawing.colours import COLOURS, DARK, LIGHT
from flowcore.authoring.drawing.fonts import Font, shortened, width
from flowcore.authoring.drawing.layout import Block, Box, laid_out
from flowcore.authoring.drawing.standing import GLYPHS, Mark, standing_of
from flowcore.core.view import StepStatus
from flowcore.testing.generate import sample
from flowcore.testing.local import LocalApp
from tests.unit.drawn import HOSTILE, a_step, hostile, is_small, walk, wide

SVG = "{http://www.w3.org/2000/svg}"
KNOWN = {"svg", "title", "desc", "style", "g", "rect", "circle", "path", "text"}
SEEDS = range(60)


def parsed(picture: str) -> ET.Element:
    """The picture's tree; our own text, so the standard parser may read it."""
    return ET.fromstring(picture)  # noqa: S314  # we wrote it ourselves


def texts(picture: str) -> list[str]:
    """Every line of text in the picture."""
    return [element.text or "" for element in parsed(picture).iter(f"{SVG}text")]


def drawn(seed: int) -> Block:
    """The layout of a random workflow, with a run on it."""
    made = sample(seed, size=14)
    run = LocalApp(App(made.workflow)).workflow(made.workflow.id).create_run("r").start(made.input)
    return laid_out(made.workflow.graph(), standing_of(run if seed % 2 else None))


def apart(one: Box, other: Box) -> bool:
    """Whether two rectangles have no point in common."""
    return one.x + one.w < other.x or other.x + other.w < one.x or one.y + one.h < other.y or other.y + other.h < one.y


def inside(inner: Box, outer: Box) -> bool:
    """Whether a rectangle stands in a frame, borders apart."""
    return (
        outer.x < inner.x
        and outer.y < inner.y
        and inner.x + inner.w < outer.x + outer.w
        and inner.y + inner.h < outer.y + outer.h
    )


def on_border(point: tuple[int, int], box: Box) -> bool:
    """Whether a point lies on a rectangle's border."""
    x, y = point
    across, down = box.x <= x <= box.x + box.w, box.y <= y <= box.y + box.h
    return (across and y in (box.y, box.y + box.h)) or (down and x in (box.x, box.x + box.w))


@pytest.mark.parametrize("seed", SEEDS)
def test_nodes_never_overlap(seed: int) -> None:
    """Any two rectangles are apart, or one is a frame around the other."""
    for one, other in combinations(drawn(seed).boxes, 2):
        framed = (one.shape == "frame" and inside(other, one)) or (other.shape == "frame" and inside(one, other))
        assert framed or apart(one, other), (one, other)


@pytest.mark.parametrize("seed", SEEDS)
def test_lines_run_from_border_to_border_in_right_angles(seed: int) -> None:
    """And never upwards, but for the one that repeats a loop."""
    block = drawn(seed)
    for edge in block.edges:
        for end in (edge.points[0], edge.points[-1]):
            assert any(on_border(end, box) for box in block.boxes), edge
        pairs = list(zip(edge.points, edge.points[1:], strict=False))
        assert all(one[0] == other[0] or one[1] == other[1] for one, other in pairs), edge
        leads_back = (
            edge.points[0][0] == edge.points[-1][0] and len(edge.points) == 4 and edge.points[0][1] > edge.points[-1][1]
        )
        assert leads_back or all(one[1] <= other[1] for one, other in pairs), edge


@pytest.mark.parametrize("seed", SEEDS)
def test_no_line_runs_through_a_node(seed: int) -> None:
    """A line may run inside the frames it is in, and through no other rectangle."""
    block = drawn(seed)
    solid = [box for box in block.boxes if box.shape != "frame"]
    for edge in block.edges:
        for (x1, y1), (x2, y2) in zip(edge.points, edge.points[1:], strict=False):
            for box in solid:
                crosses = (
                    min(x1, x2) < box.x + box.w
                    and max(x1, x2) > box.x
                    and min(y1, y2) < box.y + box.h
                    and max(y1, y2) > box.y
                )
                assert not crosses, (edge, box)


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_is_on_the_paper(seed: int) -> None:
    """Lines beside loops included."""
    block = drawn(seed)
    assert all(
        0 <= box.x and box.x + box.w <= block.w and 0 <= box.y and box.y + box.h <= block.h for box in block.boxes
    )
    assert all(0 <= x <= block.w and 0 <= y <= block.h for edge in block.edges for x, y in edge.points)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_node_is_drawn_once(seed: int) -> None:
    """A loop's or a foreach's body that is a step is drawn with it, a nested one as the frame of its nodes."""
    made = sample(seed, size=14).workflow
    bodies = [node["body"] for node in walk(made.graph()) if "body" in node]
    nodes = [node for node in walk(made.graph()) if not any(node is body or node == body for body in bodies)]
    boxes = [
        box
        for box in laid_out(made.graph(), standing_of(None)).boxes
        if box.shape not in ("start", "end", "join", "chip")
    ]
    assert len(nodes) == len(boxes)


def elements(picture: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Every element with its attributes."""
    for element in parsed(picture).iter():
        yield element.tag.removeprefix(SVG), dict(element.attrib)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    """The picture has our elements only, no handler, no address, and no text outside of where text belongs."""
    plain = [tag for tag, _ in elements(hostile("harmless").to_svg())]
    picture = hostile(text).to_svg({"first": text, text: "success", "poll": "waiting"})
    names = {name for _, attributes in elements(picture) for name in attributes}
    assert KNOWN >= {tag for tag, _ in elements(picture)}
    assert [] == [name for name in names if name.startswith("on") or "href" in name or name == "style"]
    assert plain.count("style") == 1 == [tag for tag, _ in elements(picture)].count("style")
    assert "<script" not in picture
    assert "<img" not in picture
    picture.encode()


def test_classes_come_from_our_own_tables() -> None:
    """A status that nobody knows is shown as text and coloured as none."""
    picture = expense_flow.to_svg({"pay": 'x" onload="alert(1)', "book": "unheard-of"})
    assert "* unheard-of" in texts(picture)
    known = {"", *(f"fc-{status}" for status in COLOURS)}
    classes = {word for _, attributes in elements(picture) for word in attributes.get("class", "").split()}
    assert not {word for word in classes if "unheard" in word or "onload" in word}
    assert known & classes == set()


def test_picture_loads_nothing() -> None:
    """No script, no address but the namespace, no import in the style."""
    picture = wide().to_svg()
    assert ["http://www.w3.org/2000/svg"] == re.findall(r"https?:[^\"]*", picture)
    assert not re.search(r"url\(|@import|<script|<image|<use|<foreignObject", picture)


def test_every_kind_says_what_it_is() -> None:
    """The words of each node stand in the picture as text."""
    found = set(texts(wide().to_svg()))
    assert {
        "wide", "Every kind of node", "first", "2 retries · The first of all", "runs first", "both · all at once",
        "ways · whichever is true", "is_small", "otherwise", "none is true", "value > 2", "makes a, b", "makes [value]",
        "each item, one at a time", "each item, 3 at a time", "each item, len(values) + 1 at a time", "sleeps 3 days",
        "sleeps for timedelta(seconds=value)", "sleeps until 2031-05-01 12:00 UTC", "sleeps until is_small",
        "repeats until is_small", "repeats while is_small", "workflow",
        "waits for order.paid of A-17, 2 h at most", "waits for order.sent of order['id']",
    } <= found  # fmt: skip


def test_same_input_is_the_same_picture() -> None:
    """Byte by byte, so that a poll can be answered with 304 and a picture can be committed."""
    assert wide().to_svg({"first": "success"}) == wide().to_svg({"first": "success"})


@pytest.mark.parametrize("status", GLYPHS)
def test_a_status_has_a_colour_a_sign_and_a_word(status: str) -> None:
    """Nobody has to tell green from red."""
    picture = expense_flow.to_svg({"pay": status})
    assert f"{GLYPHS[status]} {status}" in texts(picture)
    assert f'class="fc-step fc-{status}"' in picture
    assert f"step pay 2 retries: {status}" in (parsed(picture).findtext(f"{SVG}desc") or "")


def test_signs_and_colours_cover_every_status_of_a_step() -> None:
    """Each has its own sign; a run's own two, paused and pending, are known as well."""
    assert {*get_args(StepStatus), "paused", "pending"} == set(GLYPHS) == set(COLOURS)
    assert len(set(GLYPHS.values())) == len(GLYPHS)


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, WCAG 2.2."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("status", COLOURS)
@pytest.mark.parametrize("page", [LIGHT, DARK], ids=["light", "dark"])
def test_text_can_be_read_on_every_colour(status: str, page: Any) -> None:
    """WCAG AA: 4.5 for text, 3 for the lines of a shape."""
    tone = COLOURS[status].light if page is LIGHT else COLOURS[status].dark
    assert contrast(page.text, tone.fill) >= 4.5
    assert contrast(page.quiet, tone.fill) >= 4.5
    assert contrast(tone.line, tone.fill) >= 4.5
    assert contrast(page.on_line, tone.line) >= 4.5
    assert contrast(page.line, page.paper) >= 3


def test_picture_speaks_to_a_screen_reader() -> None:
    """An image with a title, and a description with every step."""
    root = parsed(expense_flow.to_svg({"within_policy": "success", "budget_left": "running"}))
    assert ("img", f"{SVG}title", f"{SVG}desc") == (root.get("role"), root[0].tag, root[1].tag)
    assert "Workflow expense" == root[0].text
    assert (root[1].text or "").startswith(
        "parallel parallel-within_policy-budget_left: running; step within_policy: success"
    )
    assert "when not checks.within_policy, step manager_approval" in (root[1].text or "")


def a_finished_expense() -> tuple[RunResult[Any], RunResult[Any]]:
    """The expense example, waiting for its manager and at its end."""
    local = LocalApp(App(expense_flow))
    waiting = local.workflow("expense").create_run("r").start({"employee": "ada", "amount": 60_000, "purpose": "x"})
    local.resume("r", Decision(approved=True))
    local.advance(days=4)
    return waiting, local.run("r").result()


def test_a_run_colours_its_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """The arm that was not chosen is marked skipped; what was not reached has no mark."""
    monkeypatch.setenv("EXPENSE_BANK_FILE", str(tmp_path / "bank.sqlite"))
    waiting, ended = a_finished_expense()
    signs = [text for text in texts(expense_flow.to_svg(waiting)) if text[0] in GLYPHS.values()]
    assert ["✓ success", "✓ success", "? suspended", "» skipped"] == signs
    signs = [text for text in texts(expense_flow.to_svg(ended)) if text[0] in GLYPHS.values()]
    assert ["✓ success"] * 3 + ["» skipped"] + ["✓ success"] * 4 == signs


def test_a_foreach_counts_its_items_and_a_loop_its_turns() -> None:
    """Seven of ten, and the third turn."""

    def wait_at(value: int, ctx: StepContext[Any, Any, Any]) -> int:
        if value in (2, 5, 6) or ctx.iteration == 3:
            ctx.suspend("?")
        return value

    waits = create_step(id="waits", execute=wait_at, input=int, output=int)
    each = workflow("each", input=int, output=int).then(waits).commit()
    fan = workflow("f", input=list[int]).foreach(each, concurrency=10, id="fan").commit()
    poll = workflow("p", input=int).dountil(waits, lambda _: False, id="poll").commit()
    found = texts(fan.to_svg(App(fan).workflow(fan).create_run().start(list(range(10)))))
    assert found.count("? suspended 7/10") == 2
    assert "? suspended turn 3" in texts(poll.to_svg(App(poll).workflow(poll).create_run().start(1)))


def test_items_fold_into_the_most_pressing_status() -> None:
    """One failed item among many is seen at once; a step inside says how many items are past it."""
    fan = workflow("f").foreach(workflow("each").then(a_step("a")).commit(), id="fan").commit()
    statuses = {
        "fan": "running",
        "fan[0]": "success",
        "fan[0].a": "success",
        "fan[1].a": "failed",
        "fan[2].a": "waiting",
    }
    marks = standing_of(statuses)
    step = fan.graph()["nodes"][0]["body"]["nodes"][0]
    assert Mark("failed", "2/3") == marks.mark(step)


def test_an_empty_foreach_and_an_unloaded_one_have_counts_that_hold() -> None:
    """Nothing of nothing is not counted; what is over is all of it, even when its items are not at hand."""
    node = workflow("f").foreach(a_step("a"), id="fan").commit().graph()["nodes"][0]
    assert Mark("success") == standing_of({"fan": "success"}).mark(node)

    over = SimpleNamespace(status="success", input=[1, 2, 3], iteration=None)
    run = SimpleNamespace(steps={"fan": over})
    assert Mark("success", "3/3") == standing_of(run).mark(node)


def test_taken_lines_lead_to_where_the_run_is() -> None:
    """From the start to the step that waits, and along the chosen arm only."""
    made = workflow("w").branch((is_small, a_step("a")), (otherwise, a_step("b")), id="ways").then(a_step("c")).commit()
    block = laid_out(made.graph(), standing_of({"ways": "success", "a": "suspended"}))
    boxes = {box.lines[0]: box for box in block.boxes if box.lines}
    reached = {
        name
        for name, box in boxes.items()
        for edge in block.edges
        if edge.is_taken and edge.points[-1] == (box.x + box.w // 2, box.y)
    }
    assert {"ways · whichever is true", "is_small", "a"} == reached


def test_the_way_round_a_branch_is_taken_when_nothing_was_true() -> None:
    """Without otherwise the run goes on past all arms."""
    made = workflow("w").branch((is_small, a_step("a")), id="ways").then(a_step("c")).commit()
    block = laid_out(made.graph(), standing_of({"ways": "success", "c": "success"}))
    chips = {box.lines[0]: box.mark for box in block.boxes if box.shape == "chip"}
    assert {"is_small": Mark("skipped"), "none is true": Mark("success")} == chips


def test_a_workflow_nested_fifty_deep_is_drawn() -> None:
    """As deep as a workflow may be."""
    made = workflow("w0").then(a_step("a")).commit()
    for depth in range(1, 50):
        made = workflow(f"w{depth}").then(made).commit()
    assert len(texts(made.to_svg())) > 50
    assert "n49" in made.to_mermaid()


LENGTHS = [(0, "no time"), (-3, "no time"), (0.4, "0.4 s"), (1, "1 s"), (90, "1 min 30 s"), (3_600, "1 h"),
           (86_400, "1 day"), (93_600, "1 day 2 h"), (86_460, "1 day"), (259_200, "3 days")]  # fmt: skip


@pytest.mark.parametrize(("seconds", "expected"), LENGTHS)
def test_a_length_of_time_in_words(seconds: float, expected: str) -> None:
    """Two units at most, neighbours."""
    assert expected == duration(seconds)


@pytest.mark.parametrize("text", HOSTILE)
def test_shortened_text_fits_its_room(text: str) -> None:
    """On one line, whatever it holds."""
    short = shortened(text, Font(12), 100)
    assert width(short, Font(12)) <= 100
    assert "\n" not in short
