"""What the README shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_first_example_prints_what_its_comments_say() -> None:
    """Run as it stands, in a fresh interpreter."""
    (code, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    promised = re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )

    assert len(promised) == 2
    assert promised == done.stdout.splitlines()
