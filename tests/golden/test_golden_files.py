"""The files of this folder are what releases have left in tables out there; nothing that is done here changes that.

To add one, write a file of a new name beside the others (``runs.py`` and ``test_golden_items.py`` say how) and add its
sum, as ``sha256sum`` tells it, to ``SUMS``. A sum that stands there is never changed: when its file no longer fits the
code, it is the code that has to be mended.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).parent
SUMS = {
    "items-v1.json": "61e18b10ccc2871e772bb9e07f10b549f907fe16db0e0e188144984c3d1996fb",
    "items-v1b.json": "825d7aa3e507c5b2598bae24c02d6682f7534425dfd90931dae6a27c9303e805",
    "items-v1c.json": "759a32ea503b601a059e8795f0c331aec5b0cb8670faf8427b59bab784101097",
    "links-v1.json": "b190529bc54d6effc35df76779933217309e0ed77f88e423d9129d716632971d",
    "runs-v1.json": "78c23fe6fd4952e3a2c7d596801bb188e1c5f310c649aa8745ba8fb361019cfa",
    "runs-v1b.json": "8060eebaf7e9783671dc2c8af31322578a5f6779da39b4f32247df5f6f1f7b21",
}


def test_no_file_was_changed_and_each_is_known() -> None:
    """By the sum of what is in it."""
    assert SUMS == {path.name: sha256(path.read_bytes()).hexdigest() for path in HERE.glob("*.json")}
