"""How places are named, and taken apart again."""

from __future__ import annotations

import re

import pytest

from flowcore.keys import (
    ROOT,
    Scope,
    StepKey,
    beat_of,
    dotted,
    emit_of,
    index_of,
    inside,
    is_beat,
    is_entry_id,
    is_once,
    is_pass,
    is_run_id,
    item_of,
    once_of,
    parent_of,
    path_of,
    scope_of,
    scopes_of,
    step_of,
    turn_number,
    turn_of,
)

# key, scope, scopes from the outside in, parent, foreach index, loop turn, dotted
PLACES = [
    ("charge", "", [""], "charge", None, None, "charge"),
    ("child/approve", "child", ["", "child"], "child", None, None, "child.approve"),
    ("a/b/c", "a/b", ["", "a", "a/b"], "a/b", None, None, "a.b.c"),
    ("fan[7]", "fan", ["", "fan"], "fan", 7, None, "fan[7]"),
    ("fan[7]/pay", "fan[7]", ["", "fan", "fan[7]"], "fan[7]", 7, None, "fan[7].pay"),
    ("poll#3", "poll#3", ["", "poll#3"], "poll", None, 3, "poll"),
    ("poll#3/ask", "poll#3", ["", "poll#3"], "poll#3", None, 3, "poll.ask"),
    (
        "a/fan[1]/poll#2",
        "a/fan[1]/poll#2",
        ["", "a", "a/fan", "a/fan[1]", "a/fan[1]/poll#2"],
        "a/fan[1]/poll",
        1,
        2,
        "a.fan[1].poll",
    ),
    ("fan[1]/fan[2]", "fan[1]/fan", ["", "fan", "fan[1]", "fan[1]/fan"], "fan[1]/fan", 2, None, "fan[1].fan[2]"),
    ("charge!receipt", "", [""], "charge", None, None, "charge!receipt"),
    ("a/charge!x%2Fy", "a", ["", "a"], "a/charge", None, None, "a.charge!x%2Fy"),
    ("fan[3]!r", "fan", ["", "fan"], "fan[3]", 3, None, "fan[3]!r"),
    ("poll#3!r", "poll#3", ["", "poll#3"], "poll#3", None, 3, "poll!r"),
    ("with blank/and-dash_", "with blank", ["", "with blank"], "with blank", None, None, "with blank.and-dash_"),
]


@pytest.mark.parametrize(("key", "scope", "scopes", "parent", "index", "turn", "text"), PLACES)
def test_a_key_tells_its_place(
    key: str, scope: str, scopes: list[str], parent: str, index: int | None, turn: int | None, text: str
) -> None:
    """Scope, scopes around it, container, numbers and the name that people use."""
    place = StepKey(key)
    assert (scope, tuple(scopes), parent) == (scope_of(place), scopes_of(place), parent_of(place))
    assert (index, turn, text) == (index_of(place), turn_number(place), dotted(place))
    assert ("!" in key) is is_once(place)
    assert bool(re.search(r"[\]\d](!r)?$", key)) is is_pass(place)
    assert text.split(".") == path_of(place)


def test_keys_are_built_from_their_places() -> None:
    """An entry in a scope, an item, a turn, a stored side effect."""
    assert ("pay", "child/pay") == (inside(ROOT, "pay"), inside(Scope("child"), "pay"))
    key = StepKey("pay")
    assert ("pay[0]", "pay#1", "pay!mail") == (item_of(key, 0), turn_of(key, 1), once_of(key, "mail"))


@pytest.mark.parametrize("key", ["", "a//", "[1]", "a/"])
def test_what_is_no_key_is_refused(key: str) -> None:
    """Such a name was made by nobody here."""
    with pytest.raises(ValueError, match="is not a step key"):
        scope_of(StepKey(key))


def test_heartbeats_of_a_stand_in_lie_beside_those_of_its_step() -> None:
    """Known as such, and as no name that a step may give to ``once``."""
    key = StepKey("child/approve")
    assert ("child/approve!beat@", "child/approve!director:beat@") == (beat_of(key), beat_of(key, "director:"))
    assert {key} == {step_of(beat_of(key)), step_of(beat_of(key, "director:"))}
    assert is_beat(beat_of(key))
    assert is_beat(beat_of(key, "director:"))
    assert not any(is_beat(other) for other in (key, once_of(key, "director:beat"), emit_of(key, 1, "3f9c")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *[(good, True) for good in ("a", "A1", "_x", "a-b", "a b", "a" * 64, "0")],
        *[(bad, False) for bad in ("", " a", "a ", "-a", "a" * 65, "a/b", "a.b", "a#b", "a[0]", "a!b", "ä", "a\n")],
    ],
)
def test_is_entry_id(text: str, expected: bool) -> None:
    """Letters, digits, ``_``, ``-`` and inner blanks, so that no separator of a key can stand in one."""
    assert expected is is_entry_id(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *[(good, True) for good in ("r-1", "a.b_c:d@e-f", "a" * 128, "7")],
        *[(bad, False) for bad in ("", "-a", "a" * 129, "a/b", "a b", "a#b", "é", "a\n")],
    ],
)
def test_is_run_id(text: str, expected: bool) -> None:
    """Letters, digits and ``._:@-``, so that a run id can stand in a URL and in a partition key."""
    assert expected is is_run_id(text)
