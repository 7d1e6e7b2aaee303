"""A map that is a value, and costs a constant for the newest version however large it is.

Baker's trick: the newest version owns a plain dict; an older version is the difference to the next one. Old versions
stay readable (slower the older they are), so a ``Snapshot`` may be kept and compared, and a run of 10,000 steps still
pays for one entry per step. One thread may add while others look keys up; iterating is for the adding thread alone.

Source: Henry G. Baker, "Shallow binding makes functional arrays fast", 1991.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class _Absent:
    __slots__ = ()


_ABSENT = _Absent()


class PMap(Mapping[K, V], Generic[K, V]):
    """An immutable mapping with ``set``: returns a new map, leaves this one as it was."""

    __slots__ = ("_dict", "_key", "_newer", "_old")

    def __init__(self, entries: Mapping[K, V] | None = None) -> None:
        self._dict: dict[K, V] | None = dict(entries or {})
        self._newer: PMap[K, V] | None = None
        self._key: K | None = None
        self._old: V | _Absent = _ABSENT

    def set(self, key: K, value: V) -> PMap[K, V]:
        """This map with one entry added or replaced; constant time on the newest version."""
        newer: PMap[K, V] = PMap.__new__(PMap)
        newer._newer, newer._key, newer._old = None, None, _ABSENT
        base = self._dict
        if base is None:
            newer._dict = {**self, key: value}
            return newer
        newer._dict = base
        self._newer, self._key, self._old = newer, key, base.get(key, _ABSENT)
        self._dict = None
        base[key] = value
        return newer

    def changed_since(self, older: PMap[K, V]) -> list[K] | None:
        """The keys set on the way from an older version to this one; None if this one did not come from it."""
        keys: list[K] = []
        version = older
        while version is not self:
            if version._newer is None:
                return None
            keys.append(version._key)  # type: ignore[arg-type]  # an old version always has its key
            version = version._newer
        return keys

    def __getitem__(self, key: K) -> V:
        version = self
        while (entries := version._dict) is None:
            if version._key == key:
                if isinstance(version._old, _Absent):
                    raise KeyError(key)
                return version._old
            assert version._newer is not None
            version = version._newer
        return entries[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries())

    def __len__(self) -> int:
        return len(self._entries())

    def __repr__(self) -> str:
        return f"PMap({self._entries()!r})"

    def _entries(self) -> dict[K, V]:
        if self._dict is not None:
            return self._dict
        changes: list[PMap[K, V]] = []
        version = self
        while version._dict is None:
            changes.append(version)
            assert version._newer is not None
            version = version._newer
        entries = dict(version._dict)
        for change in reversed(changes):
            key: K = change._key  # type: ignore[assignment]  # an old version always has its key
            if isinstance(change._old, _Absent):
                entries.pop(key, None)
            else:
                entries[key] = change._old
        return entries
