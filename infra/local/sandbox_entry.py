"""The first lines of a sandbox process: tie it to its parent, then hand over to the Lambda runtime client.

Run by path, as ``python -P sandbox_entry.py PARENT HANDLER``, so that nothing of ``infra`` is importable by accident
in the handler's process.
"""

import importlib.util
import runpy
import sys
from pathlib import Path


def _die_with(parent: int) -> None:
    spec = importlib.util.spec_from_file_location("_processes", Path(__file__).with_name("processes.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.die_with_parent(parent)


if __name__ == "__main__":
    _die_with(int(sys.argv[1]))
    sys.argv = ["awslambdaric", sys.argv[2]]
    runpy.run_module("awslambdaric", run_name="__main__")
