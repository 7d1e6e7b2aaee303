"""The rows of the proof: what each says, how much of it every check and the long run try, and what they have found.

Whatever proves a row tells it with ``told``: one line on the screen, and one in the file that ``FLOWCORE_PROOF`` names.
``make prove`` begins that file anew, and ``python -m tests.property.rows FILE`` ends it: the whole table, and exit code
1 if anything was bad, or was tried less often than the long run has to. With ``--page`` the table goes into
``docs/reliability.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

HOME = Path(__file__).parents[2]
PAGE = HOME / "docs" / "reliability.md"
BEGIN, END = "<!-- figures -->\n", "<!-- end of figures -->\n"


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that is proven by trying it many times."""

    what: str
    unit: str
    check: str
    """How much of it every change has to pass, with ``make check``."""
    long: int
    """How many the long run has to try."""


ROWS: Mapping[str, Row] = {
    "storms": Row("random workflows through random storms, in memory", "storms", "10,000", 500_000),
    "storms-moto": Row("the same on DynamoDB as moto plays it", "storms", "12", 500),
    "faults": Row("every single fault in generated workflows", "schedules", "1 workflow", 1_500),
    "states": Row(
        "states of a run with workers, zombies, crashes, racing answers, deadlines and events around it",
        "states",
        "6,000",
        300_000,
    ),
    "shapes": Row(
        "every single fault, of 18 kinds, at each write, read and hint of fourteen workflows",
        "schedules",
        "2,646",
        2_646,
    ),
    "pairs": Row(
        "every pair of five kinds of faults, at each two writes of fourteen workflows", "schedules", "-", 40_000
    ),
    "requests": Row(
        "every fault of a request below the adapter, on DynamoDB as moto plays it: three of them, then all fourteen",
        "faults",
        "247",
        2_000,
    ),
    "lives": Row(
        "one run, its later lives and its fork, and whatever anybody may do to them in any order", "lives", "300", 5_000
    ),
    "lives-fanned": Row("the same of a run whose items are seen to by children", "lives", "60", 1_000),
    "gone-back": Row(
        "random workflows that go back to a step in a storm, themselves or in a fork: the same comes of it once more",
        "later lives",
        "640 workflows",
        10_000,
    ),
    "mutants": Row("the protocol with one rule broken: found out", "mutants", "9", 9),
    "killed": Row(
        "real worker processes killed, or frozen until others have gone on; runs lost, stuck or wrong",
        "workers",
        "20",
        500,
    ),
    "joins": Row(
        "a distributed foreach whose workers die around writes, freeze, and hear hints twice or never: it joins once",
        "shards",
        "100",
        1_000,
    ),
    "joins-killed": Row(
        "the same on real worker processes, of which 5 in 100 are killed; hints come twice, 10 in 100",
        "items",
        "60",
        1_000,
    ),
    "resumes": Row("32 people answer at once: one wins, the others learn who", "rounds", "200", 5_000),
    "resumes-moto": Row("the same on DynamoDB as moto plays it", "rounds", "5", 100),
    "histories": Row("what six at once are told by a store could have been told one by one", "histories", "50", 10_000),
    "histories-moto": Row("the same on DynamoDB as moto plays it", "histories", "4", 300),
    "histories-app": Row("the same of an App, with 8 to 32 answers and a cancel", "histories", "20", 2_000),
    "api": Row("random requests to each route of the HTTP API, half of them wrong", "requests", "5,600", 50_000),
}
"""In the order of the page; a proof that is not here cannot be told."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one proof has found: how many were tried, how many were bad, and how it can be had again."""

    row: str
    count: int
    bad: int
    seconds: float
    seed: str
    date: str
    machine: str
    piece: str = ""
    """What of the row was tried; tried again, it counts once. Empty: whatever it was, it was not tried before."""
    commit: str = ""
    """Of the source that was tried, with ``-dirty`` if that was changed; empty when nobody knows."""

    def __str__(self) -> str:
        row = ROWS[self.row]
        return f"PROOF {self.row}: {row.what}: {self.count:,} {row.unit}, {self.bad} bad, {self.seconds:.0f} s"


def told(row: str, count: int, bad: int, seconds: float, *, seed: str = "") -> None:
    """Tell what was found, on the screen and to the file that gathers the rows.

    Args:
        row: a key of ``ROWS``.
        seed: what was drawn at random, so that the same can be tried again.
    """
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores"
    test, _, _phase = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    found = Found(row, count, bad, round(seconds, 1), seed, day, machine, test or seed, _commit())
    print(f"\n{found}", flush=True)
    if (file := os.environ.get("FLOWCORE_PROOF")) and count:
        with Path(file).open("a", encoding="utf-8") as rows:
            rows.write(json.dumps(asdict(found)) + "\n")


@cache
def _commit() -> str:
    """Which source this is; empty where it is no checkout, or there is no git."""
    asked = ["git", "describe", "--always", "--dirty", "--match", "none"]
    try:
        return subprocess.run(asked, cwd=HOME, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


@dataclass(slots=True)
class Tally:
    """How many have been tried so far."""

    count: int = 0


@contextmanager
def trying(row: str, *, seed: str = "") -> Iterator[Tally]:
    """Tells a row when the block is left; an error that leaves it is a bad one."""
    began, tally, bad = time.monotonic(), Tally(), 1
    try:
        yield tally
        bad = 0
    finally:
        told(row, tally.count + bad, bad, time.monotonic() - began, seed=seed)


def read(lines: Iterable[str]) -> dict[str, Found]:
    """What a file of rows says, by row; pieces of one row are added up.

    Of a piece that was tried again the last counts; but what was bad stays so until the source is another one.
    """
    pieces: dict[tuple[str, str | int], Found] = {}
    for number, piece in enumerate(Found(**json.loads(line)) for line in lines if line.strip()):
        name = piece.row, piece.piece or number
        before = pieces.get(name)
        if before is None or not before.bad or before.commit != piece.commit:
            pieces[name] = piece
    found: dict[str, Found] = {}
    for piece in pieces.values():
        before = found.get(piece.row)
        found[piece.row] = replace(piece, piece="") if before is None else _added(before, piece)
    return found


def _added(one: Found, other: Found) -> Found:
    seed = _seeds(one.seed, other.seed)
    sums = one.count + other.count, one.bad + other.bad, one.seconds + other.seconds
    commit = ", ".join(dict.fromkeys(filter(None, [*one.commit.split(", "), other.commit])))
    return Found(one.row, *sums, seed, max(one.date, other.date), other.machine, commit=commit)


def _seeds(one: str, other: str) -> str:
    """Both, once; a range and the one behind it are one range."""
    first, _, last = one.rpartition("-")
    following, _, end = other.partition("-")
    if last.isdigit() and following == str(int(last) + 1) and end.isdigit():
        return f"{first}-{end}"
    return ", ".join(dict.fromkeys(filter(None, [*one.split(", "), other])))


def table(found: Mapping[str, Found]) -> str:
    """The rows as a table of the page, with what was found of each."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Mapping[str, Found]) -> Iterator[str]:
    yield "| what is tried | every check | long run | bad | seconds | seed | when, on what | commit |"
    yield "| --- | ---: | ---: | ---: | ---: | --- | --- | --- |"
    for name, row in ROWS.items():
        if (one := found.get(name)) is None:
            yield f"| {row.what} | {row.check} | {row.long:,} {row.unit} to be tried | | | | | |"
        else:
            tried = f"{one.count:,}" if one.count >= row.long else f"{one.count:,} of {row.long:,}"
            figures = f"{tried} {row.unit} | {one.bad} | {one.seconds:,.0f} | {one.seed}"
            yield f"| {row.what} | {row.check} | {figures} | {one.date}, {one.machine} | {one.commit} |"


def main(given: Sequence[str] | None = None) -> int:
    """Print the table of a file; 1 if something was bad, or was tried less often than the long run has to."""
    parser = argparse.ArgumentParser(prog="python -m tests.property.rows", description=main.__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--page", action="store_true", help="write the table into docs/reliability.md")
    asked = parser.parse_args(given)
    found = read(asked.file.read_text("utf-8").splitlines() if asked.file.exists() else ())
    print(*found.values(), sep="\n")
    few = [f"{name}: {one.count:,}" for name, row in ROWS.items() if (one := found.get(name)) and one.count < row.long]
    missing = [name for name in ROWS if name not in found]
    if few or missing:
        print("tried less often than the long run has to:", *few, *(f"{name}: 0" for name in missing), sep="\n  ")
    if asked.page:
        page = PAGE.read_text("utf-8")
        before, rest = page.split(BEGIN)
        PAGE.write_text(before + BEGIN + table(found) + END + rest.split(END)[1], "utf-8")
    return int(bool(few or missing or any(one.bad for one in found.values())))


if __name__ == "__main__":
    sys.exit(main())
