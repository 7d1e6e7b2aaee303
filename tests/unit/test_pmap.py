"""A map that is a value: every version stays what it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.pmap import PMap

Changes = st.lists(st.tuples(st.integers(0, 5), st.integers()), max_size=30)


@given(Changes)
def test_every_version_equals_its_dict(changes: list[tuple[int, int]]) -> None:
    """Old versions stay readable, whatever was set since."""
    versions: list[tuple[PMap[int, int], dict[int, int]]] = [(PMap(), {})]
    for key, value in changes:
        newest, model = versions[-1]
        versions.append((newest.set(key, value), {**model, key: value}))
    for version, model in versions:
        assert model == dict(version)
        assert (len(model), set(model)) == (len(version), set(version))
        assert [model.get(key) for key in range(6)] == [version.get(key) for key in range(6)]


@given(Changes, st.integers(0, 29), Changes)
def test_an_old_version_may_be_continued(ours: list[tuple[int, int]], at: int, theirs: list[tuple[int, int]]) -> None:
    """A second history that begins at an old version does not disturb the first."""
    first, models, versions = PMap[int, int](), [dict[int, int]()], [PMap[int, int]()]
    for key, value in ours:
        first = first.set(key, value)
        versions.append(first)
        models.append({**models[-1], key: value})
    other, model = versions[at % len(versions)], models[at % len(versions)]
    for key, value in theirs:
        other, model = other.set(key, value), {**model, key: value}
    assert model == dict(other)
    assert models == [dict(version) for version in versions]


def test_a_missing_key_is_missing_in_every_version() -> None:
    """Also in one that is older than the key."""
    old = PMap({"a": 1})
    new = old.set("b", 2)
    with pytest.raises(KeyError):
        _ = new["c"]
    with pytest.raises(KeyError):
        _ = old["b"]
    assert "b" not in old


def test_none_is_a_value() -> None:
    """A key that was set to None is there."""
    old = PMap[str, int | None]({"a": None})
    new = old.set("a", 1)
    assert ([None], [1]) == (list(old.values()), list(new.values()))
    assert "PMap({'a': None})" == repr(old)


def test_a_map_does_not_share_the_dict_it_was_made_of() -> None:
    """Whoever made it may change the dict afterwards."""
    given_dict = {"a": 1}
    made = PMap(given_dict)
    given_dict["a"] = 2
    assert {"a": 1} == made


@given(Changes, st.integers(0, 29), st.integers(0, 29))
def test_a_version_tells_what_was_set_since_an_older_one(changes: list[tuple[int, int]], one: int, two: int) -> None:
    """In order; of versions it did not come from it knows nothing."""
    versions = [PMap[int, int]()]
    for key, value in changes:
        versions.append(versions[-1].set(key, value))
    first, last = sorted((one % len(versions), two % len(versions)))
    assert [key for key, _ in changes[first:last]] == versions[last].changed_since(versions[first])
    assert versions[last].changed_since(PMap()) is None
    if first != last:
        assert versions[first].changed_since(versions[last]) is None
