"""The colours of a picture on a light and on a dark page, as data.

Each line colour is legible as text on its fill and carries white (light) or nearly black (dark) text itself: contrast
of at least 4.5, which a test computes. No status is told by its colour alone; see ``standing.GLYPHS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tone:
    """What a node is filled with and drawn in."""

    fill: str
    line: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A tone for each kind of page."""

    light: Tone
    dark: Tone


@dataclass(frozen=True, slots=True)
class Page:
    """What is not a status: paper, text, quiet text, lines and what stands on a line colour."""

    paper: str
    text: str
    quiet: str
    line: str
    node: str
    frame: str
    on_line: str


LIGHT = Page(
    paper="#ffffff",
    text="#1f2328",
    quiet="#59636e",
    line="#818b98",
    node="#f6f8fa",
    frame="#fbfcfd",
    on_line="#ffffff",
)
DARK = Page(
    paper="#0d1117",
    text="#f0f6fc",
    quiet="#9198a1",
    line="#656c76",
    node="#161b22",
    frame="#10151c",
    on_line="#0d1117",
)

_QUIET = Pair(Tone("#f0f2f5", "#59636e"), Tone("#1a2028", "#9198a1"))

COLOURS: Mapping[str, Pair] = {
    "failed": Pair(Tone("#ffebe9", "#cf222e"), Tone("#2f1417", "#ff7b72")),
    "paused": Pair(Tone("#ffeff7", "#bf3989"), Tone("#2d1525", "#f778ba")),
    "suspended": Pair(Tone("#fff1e5", "#bc4c00"), Tone("#2e1c10", "#f0883e")),
    "waiting": Pair(Tone("#fff8c5", "#8a5d00"), Tone("#272113", "#d29922")),
    "running": Pair(Tone("#ddf4ff", "#0969da"), Tone("#0e2439", "#58a6ff")),
    "canceled": _QUIET,
    "bailed": Pair(Tone("#fbefff", "#8250df"), Tone("#251b37", "#bc8cff")),
    "success": Pair(Tone("#dafbe1", "#1a7f37"), Tone("#11271d", "#3fb950")),
    "skipped": _QUIET,
    "pending": _QUIET,
}
