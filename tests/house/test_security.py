"""The page on security says what is so: every requirement has its tests, and nothing stored is ever run."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| (R\d+) \| (.+?) \| (.+) \|$", re.MULTILINE)
ROWS = ROW.findall((ROOT / "docs/security.md").read_text("utf-8"))

DANGEROUS = frozenset({"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml", "subprocess", "ctypes", "code"})
CALLS = frozenset({"eval", "exec", "compile", "__import__"})


def test_requirements_are_numbered_without_a_gap() -> None:
    """So that one can be named, and none is lost."""
    assert [f"R{number}" for number in range(1, len(ROWS) + 1)] == [number for number, _, _ in ROWS]
    assert len(ROWS) >= 40


@pytest.mark.parametrize(("number", "tests"), [(number, tests) for number, _, tests in ROWS])
def test_requirement_has_its_tests(number: str, tests: str) -> None:
    """Each of them exists, under that name."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", tests)
    assert named, f"{number} names no test"
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).exists() or f"def {name}(" not in (ROOT / path).read_text("utf-8")
    ]
    assert [] == missing


def test_what_was_tried_names_tests_that_there_are() -> None:
    """Those of the attacks that held, too."""
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs/security.md").read_text("utf-8")))
    missing = [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text("utf-8")]
    assert [] == sorted(missing)
    tried = set(re.findall(r"^def (test_\w+)", (ROOT / "tests/unit/test_attacks.py").read_text("utf-8"), re.MULTILINE))
    assert tried == {name for path, name in named if path == "tests/unit/test_attacks.py"}


def test_nothing_stored_is_ever_run() -> None:
    """The library and its handlers import nothing that could, and no module by a name that they were told.

    One place imports by name: the composition root, which is told the author's App by the deployer.
    """
    found = []
    for path in sorted([*(ROOT / "flowcore").rglob("*.py"), *(ROOT / "handlers").rglob("*.py")]):
        tree = ast.parse(path.read_text("utf-8"))
        place = str(path.relative_to(ROOT))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found += [f"{place} imports {one.name}" for one in node.names if one.name.split(".")[0] in DANGEROUS]
                if any(one.name == "importlib" for one in node.names) and place != "handlers/bootstrap.py":
                    found.append(f"{place} imports importlib")
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in DANGEROUS:
                found.append(f"{place} imports {node.module}")
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
                found.append(f"{place}:{node.lineno} calls {node.func.id}")
    assert [] == found
