"""The table of behaviours, made of what the tests declare: ``python -m tests.conformance.table`` writes the page.

Owns which numbers there are. Everything else stands beside the test that proves it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "conformance.md"

GROUPS: Mapping[str, range] = {
    "Basics": range(1, 16),
    "Data access and map": range(16, 34),
    "Parallel and branch": range(34, 54),
    "Loops and foreach": range(54, 76),
    "Nested workflows and clones": range(76, 92),
    "Validation": range(92, 106),
    "Errors and retries": range(106, 122),
    "Callbacks": range(122, 132),
    "State": range(132, 139),
    "Suspend and resume": range(139, 185),
    "Sleep, cancel, restart, time travel": range(185, 221),
    "Storage, listing, streaming, delivery": range(221, 246),
}

BUGS = range(1, 29)

_PROMISE = (
    "What a workflow must do, by number. Made by `make docs` from the tests in `tests/conformance`, each of which",
    "runs on the store in memory and on DynamoDB (played by moto), and there both in one process and with a fresh",
    "process image after every turn.",
)
_BUGS_PROMISE = (
    "Bugs of Mastra's engines as they were in 2026, by number, and what a test named after each shows here, in the",
    "same modes.",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One behaviour as its tests declare it; ``why`` when flowcore differs on purpose."""

    number: int
    name: str
    why: str | None
    test: Callable[..., Any] = field(repr=False)


def modules() -> Iterator[ModuleType]:
    """Every module of conformance tests."""
    for path in sorted(HERE.glob("test_?_*.py")):
        yield importlib.import_module(f"tests.conformance.{path.stem}")


def rows() -> list[Row]:
    """Every declaration, by number."""
    found = [row for module in modules() for test in vars(module).values() for row in _declared(test)]
    return sorted(found, key=lambda row: row.number)


def _declared(test: Any) -> Iterator[Row]:
    for mark in getattr(test, "pytestmark", ()):
        if mark.name == "behaviour":
            number, name, why = mark.args
            yield Row(number, name, why, test=test)


def bugs() -> list[tuple[int, str]]:
    """Every known bug that a test is named after: its number, and what holds here instead."""
    modules_of_bugs = [importlib.import_module(f"tests.conformance.{path.stem}") for path in HERE.glob("test_bugs*.py")]
    names = [name for module in modules_of_bugs for name in vars(module)]
    matches = [match for name in names if (match := re.fullmatch(r"test_bug_(\d\d)_(.+)", name))]
    return sorted((int(match.group(1)), match.group(2).replace("_", " ")) for match in matches)


def page() -> str:
    """The table as Markdown."""
    by_number = {row.number: row for row in rows()}
    differing = sum(row.why is not None for row in by_number.values())
    lines = [
        "# Behaviours",
        "",
        *_PROMISE,
        "",
        f"{len(by_number) - differing} pass, {differing} differ on purpose from Mastra.",
    ]
    for title, numbers in GROUPS.items():
        lines += ["", f"## {title}", "", "| | behaviour | |", "|--:|---|---|"]
        lines += [_line(by_number[number]) for number in numbers]
    lines += ["", "## Where other engines are known to break", "", *_BUGS_PROMISE, "", "| | here | |", "|--:|---|---|"]
    lines += [f"| {number} | {what} | passes |" for number, what in bugs()]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    return f"| {row.number} | {row.name} | {'passes' if row.why is None else f'differs on purpose: {row.why}'} |"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
