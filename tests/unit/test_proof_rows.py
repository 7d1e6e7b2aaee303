"""What the long proof has found adds up, and stands on the page row by row."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.property.rows import BEGIN, END, PAGE, ROWS, Found, main, read, table, told


def a_piece(**given: object) -> Found:
    """Part of a row."""
    plain = {
        "row": "storms",
        "count": 10,
        "bad": 0,
        "seconds": 1.5,
        "seed": "0-9",
        "date": "2026-01-02",
        "machine": "m",
    }
    return Found(**{**plain, **given})  # type: ignore[arg-type]


def a_file(path: Path, lines: list[str]) -> Path:
    """A file of rows."""
    path.write_text("\n".join(lines), "utf-8")
    return path


def test_pieces_of_a_row_add_up() -> None:
    """Half a million storms may take several days."""
    pieces = [a_piece(), a_piece(seed="20-29", count=20, bad=1, date="2026-01-03")]
    found = read([json.dumps(asdict(piece)) for piece in pieces])
    assert {"storms": a_piece(seed="0-9, 20-29", count=30, bad=1, seconds=3.0, date="2026-01-03")} == found
    assert "| 30 of 500,000 storms | 1 | 3 | 0-9, 20-29 | 2026-01-03, m |" in table(found)


def test_a_row_that_was_tried_often_enough_says_how_often() -> None:
    """And no longer how often it has to be."""
    found = read([json.dumps(asdict(a_piece(count=500_000)))])
    assert "| 500,000 storms | 0 |" in table(found)


def test_a_piece_that_was_tried_again_counts_once() -> None:
    """With what was found the last time; a piece without a name is a piece of its own."""
    pieces = [
        a_piece(piece="a", bad=1, commit="c1"),
        a_piece(piece="b", seed="10-19", commit="c2"),
        a_piece(piece="a", commit="c2"),
        *[a_piece(row="lives")] * 2,
    ]
    found = read([json.dumps(asdict(piece)) for piece in pieces])
    assert (20, 0, "0-19") == (found["storms"].count, found["storms"].bad, found["storms"].seed)
    assert 20 == found["lives"].count
    assert "c2" == found["storms"].commit


def test_what_was_bad_stays_bad_until_the_source_is_another_one() -> None:
    """Whoever tries it again until it goes well has shown nothing."""
    tries = [a_piece(piece="a", bad=bad, commit=commit) for bad, commit in ((1, "c1"), (0, "c1"))]
    assert 1 == read([json.dumps(asdict(piece)) for piece in tries])["storms"].bad


def test_a_proof_with_too_few_or_something_bad_fails(tmp_path: Path) -> None:
    """It is no proof otherwise."""
    enough = {name: a_piece(row=name, count=row.long) for name, row in ROWS.items()}
    few = {**enough, "lives": replace(enough["lives"], count=4_999)}
    none = {name: one for name, one in enough.items() if name != "lives"}
    codes = {}
    for name, found in {"enough": enough, "few": few, "none": none}.items():
        lines = [json.dumps(asdict(one)) for one in found.values()]
        codes[name] = main([str(a_file(tmp_path / name, lines))])
    bad = [replace(one, bad=int(row == "lives")) for row, one in enough.items()]
    codes["bad"] = main([str(a_file(tmp_path / "bad", [json.dumps(asdict(one)) for one in bad]))])
    assert {"enough": 0, "few": 1, "none": 1, "bad": 1} == codes


def test_a_piece_is_named_after_its_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs it again has run the same."""
    monkeypatch.setenv("FLOWCORE_PROOF", str(tmp_path / "rows"))
    for _ in range(2):
        told("lives", 7, 0, 1.0)
    assert 7 == read((tmp_path / "rows").read_text("utf-8").splitlines())["lives"].count


def test_ranges_of_seeds_that_follow_each_other_are_one() -> None:
    """Fifty pieces would fill the page; a gap, or a seed that is no range, stands for itself."""
    seeds = ["5-9", "10-14", "15-20", "30-39", "40-49", "7", "7"]
    found = read([json.dumps(asdict(a_piece(seed=seed))) for seed in seeds])
    assert "5-20, 30-49, 7" == found["storms"].seed


def test_the_page_has_every_row() -> None:
    """In order, with what every check tries, and what the long run has tried or has to."""
    shown = PAGE.read_text("utf-8").split(BEGIN)[1].split(END)[0].splitlines()[2:]
    assert [f"| {row.what} | {row.check} |" for row in ROWS.values()] == [
        "|".join(line.split("|")[:3]) + "|" for line in shown
    ]
