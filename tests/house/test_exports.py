"""What is public is promised: it is listed, it is sorted, and it says what it does."""

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path

import flowcore

ROOT = Path(__file__).resolve().parents[2]
PUBLIC: list[str] = list(getattr(flowcore, "__all__", []))

# Each costs a cold start of every function, whether it needs the package or not.
NOT_ON_IMPORT = (
    "asyncio",
    "aws_lambda_powertools",
    "aws_xray_sdk",
    "boto3",
    "botocore",
    "click",
    "httpx",
    "jinja2",
    "opentelemetry",
    "rich",
)


def test_the_public_names_are_sorted_and_unique() -> None:
    """`flowcore.__all__` can be read from top to bottom and merged without thought."""
    assert sorted(set(PUBLIC)) == PUBLIC


def test_every_public_name_has_a_docstring() -> None:
    """`help()` answers for whatever `from flowcore import *` brings; plain values have no place for a docstring."""
    documented = {name: getattr(flowcore, name) for name in PUBLIC}
    assert [] == [name for name, value in documented.items() if callable(value) and not has_own_docstring(value)]


def has_own_docstring(value: object) -> bool:
    """Whether somebody wrote a docstring; a dataclass writes its signature where none is."""
    doc = inspect.cleandoc(getattr(value, "__doc__", None) or "")
    return bool(doc) and not doc.startswith(f"{getattr(value, '__name__', '')}(")


def test_every_module_begins_with_its_promise() -> None:
    """Each module of the checkout, tests included, has a docstring that says what it is for."""
    tops = ("flowcore", "handlers", "infra", "examples", "tests")
    paths = sorted(path for top in tops for path in (ROOT / top).rglob("*.py"))
    silent = [path for path in paths if not ast.get_docstring(ast.parse(path.read_text("utf-8")))]
    assert [] == [str(path.relative_to(ROOT)) for path in silent]


def test_import_flowcore_stays_light() -> None:
    """A fresh interpreter that imports flowcore has loaded neither an AWS client nor an event loop nor an extra."""
    program = "import json, sys, flowcore; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [] == [name for name in NOT_ON_IMPORT if name in json.loads(done.stdout)]
