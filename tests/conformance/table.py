"""The table of behaviours, made of what the tests declare: ``python -m tests.conformance.table`` writes the page.

Owns which numbers there are and which of them still lack a test. Everything else stands beside the test that proves it.
"""

from __future__ import annotations

import importlib
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

PENDING: Mapping[int, str] = {}
"""Why a behaviour has no test yet. Shrinks to nothing; a number that has a test must not stand here."""

_PROMISE = (
    "What a workflow must do, by number. Made by `make docs` from the tests in `tests/conformance`, each of which",
    "runs on the store in memory and on DynamoDB (played by moto), and there both in one process and with a fresh",
    "process image after every turn.",
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


def page() -> str:
    """The table as Markdown."""
    by_number = {row.number: row for row in rows()}
    differing = sum(row.why is not None for row in by_number.values())
    lines = [
        "# Behaviours",
        "",
        *_PROMISE,
        "",
        f"{len(by_number) - differing} pass, {differing} differ on purpose from Mastra, {len(PENDING)} are pending.",
    ]
    for title, numbers in GROUPS.items():
        lines += ["", f"## {title}", "", "| | behaviour | |", "|--:|---|---|"]
        lines += [_line(number, by_number.get(number)) for number in numbers if number in by_number]
        lines += [f"| {_span(span)} | | pending: {why} |" for why, span in _pending_in(numbers)]
    return "\n".join(lines) + "\n"


def _line(number: int, row: Row | None) -> str:
    if row is None:
        return ""
    return f"| {number} | {row.name} | {'passes' if row.why is None else f'differs on purpose: {row.why}'} |"


def _pending_in(numbers: range) -> Iterator[tuple[str, list[int]]]:
    """The pending numbers of a group, gathered by reason."""
    by_reason: dict[str, list[int]] = {}
    for number in numbers:
        if number in PENDING:
            by_reason.setdefault(PENDING[number], []).append(number)
    yield from by_reason.items()


def _span(numbers: list[int]) -> str:
    """Numbers in short: ``106-121`` or ``3, 5``."""
    first, last = numbers[0], numbers[-1]
    if len(numbers) > 2 and numbers == list(range(first, last + 1)):
        return f"{first}-{last}"
    return ", ".join(map(str, numbers))


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
