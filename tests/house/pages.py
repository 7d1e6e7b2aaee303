"""The code blocks of our pages, and how each kind is tried.

What the first line of a block says is what it is held to:

- ``python``: runs. The blocks of one page share their names, in order, like cells of a notebook; functions called
  ``test_...`` are called. What a ``print`` prints stands behind it as a comment, or below it as comment lines.
- ``python examples/x.py``: stands in that file exactly so (which has tests of its own).
- ``console``: each command after ``$ `` exists with these flags; what an example prints is the lines below it.
- ``json``, ``yaml``: parse. ``mermaid``: the drawing of a workflow that the page has defined.
- ``text``: nothing; there may be few of these. Anything else is an error.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
PRINTS = re.compile(r"^\s*print\(")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    info: str
    body: str

    @property
    def language(self) -> str:
        """The first word behind the fence."""
        return self.info.split(" ", 1)[0]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """The pages whose blocks are tried: the front page and everything in docs."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [str(path.relative_to(ROOT)) for path in found]


def our_pages() -> list[str]:
    """Every page of the checkout, also those whose blocks are not tried."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(name for name in listed.stdout.split("\0") if name and (ROOT / name).exists())


def text_of(page: str) -> str:
    """A page as it is written."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, text: str) -> Iterator[Block]:
    """Every fenced block of a page's ``text``, in order."""
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        body = re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
        yield Block(page, line, match["info"].strip(), body)


def promised(code: str) -> list[str]:
    """What a block says that it prints: comments behind a ``print``, or whole lines of comment below it."""
    found: list[str] = []
    lines = iter(code.splitlines())
    line = next(lines, None)
    while line is not None:
        follows = next(lines, None)
        if PRINTS.match(line):
            behind = re.search(r"\)  # (.*)$", line)
            if behind:
                found.append(behind[1])
            while follows is not None and not behind and re.match(r"\s*# ", follows):
                found.append(follows.strip()[2:])
                follows = next(lines, None)
        line = follows
    return found


def commands(body: str) -> list[tuple[str, list[str]]]:
    """The commands of a console block, continued lines joined, each with the lines it prints."""
    found: list[tuple[str, list[str]]] = []
    for line in re.sub(r"\\\n\s*", "", body).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found:
            found[-1][1].append(line)
        else:
            raise AssertionError(f"a console block begins with a command after '$ ', not with {line!r}")
    return found


def without_blocks(text: str) -> str:
    """A page's prose: nothing between fences is a heading or a link."""
    return FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """The anchors that the headings of a page get."""
    found: set[str] = set()
    for title in re.findall(r"^#{1,6} +(.+?)\s*#*$", without_blocks(text), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        again = 0
        while (name := f"{slug}-{again}" if again else slug) in found:
            again += 1
        found.add(name)
    return found


def links(text: str) -> list[str]:
    """The targets of a page's links, without those to other sites."""
    found = re.findall(r"\]\(([^()\s]+)\)", without_blocks(text))
    return [link for link in found if not re.match(r"[a-z]+:", link)]
