"""What both type checkers must accept, and what they must not: ``passes`` and ``fails`` are held against their output.

A line of ``fails`` that must be reported ends with ``# error``, or with ``# error: pyright`` or ``# error: mypy`` where
only that checker can know. Nothing else may be reported anywhere.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SNIPPETS = sorted(path.relative_to(ROOT).as_posix() for path in HERE.glob("*/*.py"))

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("typing")]


def mypy() -> Iterator[tuple[str, int]]:
    """File and line of each error that mypy --strict reports."""
    for line in run("mypy", "--strict", "--output=json", *SNIPPETS).splitlines():
        report = json.loads(line)
        if report["severity"] == "error":
            yield report["file"], report["line"]


def pyright() -> Iterator[tuple[str, int]]:
    """File and line of each error that pyright reports."""
    for report in json.loads(run("pyright", "--outputjson", "--project", str(HERE)))["generalDiagnostics"]:
        if report["severity"] == "error":
            line = report["range"]["start"]["line"] + 1
            yield Path(report["file"]).resolve().relative_to(ROOT).as_posix(), line


def run(tool: str, *arguments: str) -> str:
    """What a tool of this environment prints."""
    command = [sys.executable, "-m", tool, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


def marked(checker: str) -> set[tuple[str, int]]:
    """File and line of each error that ``checker`` must report."""
    return {
        (name, number)
        for name in SNIPPETS
        for number, line in enumerate((ROOT / name).read_text("utf-8").splitlines(), start=1)
        if re.search(rf"# error(: {checker})?$", line)
    }


@pytest.mark.parametrize("checker", [mypy, pyright], ids=lambda checker: checker.__name__)
def test_the_checkers_see_what_does_not_fit_and_nothing_else(checker: Callable[[], Iterator[tuple[str, int]]]) -> None:
    """Every marked line is an error, and no other line is."""
    assert marked(checker.__name__) == set(checker())


def test_each_file_of_fails_has_a_mistake() -> None:
    """The marks are found: a comparison of two empty sets would say nothing."""
    files = {name for checker in ("mypy", "pyright") for name, _ in marked(checker)}
    assert {name for name in SNIPPETS if "/fails/" in name} == files


def test_the_pages_that_newcomers_type_from_are_typed(tmp_path: Path) -> None:
    """The front page and the tutorial, each as one file, have no error under mypy --strict."""
    files = []
    for page in ("README.md", "docs/tutorial.md"):
        code = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)
        files.append(tmp_path / f"{Path(page).stem.lower()}.py")
        files[-1].write_text("\n".join(code), "utf-8")
    assert "" == run("mypy", "--strict", "--output=json", *map(str, files)).strip()
