"""Where a run stands, as a picture needs it: one mark per node, folded from statuses by dotted id.

Knows runs by their shape only: anything with ``steps`` does, or a bare mapping of dotted id to status.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from flowcore.authoring.describe import printable

GLYPHS: Mapping[str, str] = {
    "failed": "✗",
    "paused": "‖",
    "suspended": "?",
    "waiting": "…",
    "running": "▸",
    "canceled": "■",
    "bailed": "↵",
    "success": "✓",
    "skipped": "»",
    "pending": "·",
}
"""What stands for each status beside its colour; the most pressing first, which is how many items become one mark."""

_OVER = ("success", "skipped", "bailed", "failed", "canceled")


class HasStatus(Protocol):
    """A step of a run, as far as a picture looks at it."""

    @property
    def status(self) -> str:
        """One of the step statuses."""
        ...

    @property
    def input(self) -> Any:
        """What went into it; of a foreach the list of items."""
        ...

    @property
    def iteration(self) -> int | None:
        """The turn of a loop."""
        ...


@runtime_checkable
class HasSteps(Protocol):
    """A run as it stood: a ``RunResult``."""

    @property
    def steps(self) -> Mapping[str, HasStatus]:
        """Every step met, by dotted id."""
        ...


Run: TypeAlias = "HasSteps | Mapping[str, str] | None"


@dataclass(frozen=True, slots=True)
class Mark:
    """What a picture says about one node: a status, and how far it is (``7/10``, ``turn 3``)."""

    status: str
    note: str = ""

    @property
    def glyph(self) -> str:
        """The sign of the status; of one that nobody knows a blot."""
        return GLYPHS.get(self.status, "*")

    @property
    def text(self) -> str:
        """Sign, word and note."""
        return f"{self.glyph} {self.status} {self.note}".rstrip()

    @property
    def is_reached(self) -> bool:
        """Whether the run came here."""
        return self.status not in ("pending", "skipped")

    @property
    def is_over(self) -> bool:
        """Whether the run went on from here."""
        return self.status in ("success", "bailed")


@dataclass(frozen=True, slots=True)
class Standing:
    """Statuses, numbers of items and loop turns by path, all items of a foreach under one (``fan[*].pay``)."""

    statuses: Mapping[str, list[str]] = field(default_factory=dict)
    items: Mapping[str, int] = field(default_factory=dict)
    turns: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether there is no run, or it has not begun."""
        return not self.statuses

    def mark(self, node: Mapping[str, Any]) -> Mark | None:
        """The mark of a described node; None where the run has not been."""
        path, kind = node["path"], node["kind"]
        met = self.statuses.get(path, [])
        if not met:
            arms = [mark for arm in node.get("arms", ()) if (mark := self.mark(arm["node"])) is not None]
            return Mark(_most_pressing([mark.status for mark in arms])) if arms else None
        status = _most_pressing(met)
        if kind == "foreach":
            return Mark(status, self._share(f"{path}[*]", self.items.get(path)))
        if kind in ("dountil", "dowhile") and path in self.turns:
            return Mark(status, f"turn {self.turns[path]}")
        return Mark(status, self._share(path, None) if len(met) > 1 else "")

    def arm(self, branch: Mapping[str, Any], arm: Mapping[str, Any]) -> Mark | None:
        """The mark of an arm; one that a decided branch did not choose is skipped."""
        mark = self.mark(arm)
        decided = any(status == "success" for status in self.statuses.get(branch["path"], ()))
        return Mark("skipped") if mark is None and decided else mark

    def _share(self, path: str, total: int | None) -> str:
        met = self.statuses.get(path, [])
        total = max(total or 0, len(met))
        over = sum(status in _OVER for status in met) if met else total
        return f"{over}/{total}" if total else ""


def standing_of(run: Run) -> Standing:
    """What a run, or a mapping of dotted id to status, says about the nodes."""
    if run is None:
        return Standing()
    if not isinstance(run, HasSteps):
        return Standing(_grouped(run))
    items: dict[str, int] = {}
    turns: dict[str, int] = {}
    for id, step in run.steps.items():
        path = _path(id)
        if isinstance(step.input, list):
            items[path] = items.get(path, 0) + len(step.input)
        if step.iteration is not None:
            turns[path] = max(turns.get(path, 0), step.iteration)
    return Standing(_grouped({id: step.status for id, step in run.steps.items()}), items, turns)


def _grouped(statuses: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for id, status in statuses.items():
        found.setdefault(_path(id), []).append(printable(status))
    return found


def _path(id: str) -> str:
    return re.sub(r"\[\d+\]", "[*]", id)


def _most_pressing(statuses: list[str]) -> str:
    order = list(GLYPHS)
    return min(statuses, key=lambda status: (order.index(status) if status in GLYPHS else len(order), status))
