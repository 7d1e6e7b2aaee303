"""The examples in docstrings run, and whatever is public has one."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import flowcore

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = {name: getattr(flowcore, name) for name in flowcore.__all__}
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "flowcore").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_give_what_they_say(module: str) -> None:
    """Each as it stands, in a namespace of its own."""
    failed, tried = doctest.testmod(importlib.import_module(module))
    assert tried > 0
    assert failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_whatever_is_public_has_an_example(name: str) -> None:
    """``help()`` shows how it is used, not only what it is."""
    assert ">>> " in (inspect.getdoc(PUBLIC[name]) or "")
