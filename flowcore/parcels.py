"""Values that lie elsewhere: a head or a record with fields that are fetched when somebody first looks at them.

A field too large for an item lies in the blob store; the item holds its ``Parcel``. What is read of such an item is a
head or a record like any other, equal to one that has everything at hand, but a field that nobody looks at is never
fetched. Copy one with ``replace`` of this module: ``dataclasses.replace`` would look at every field.

Knows no blob store: whoever reads gives ``fetch``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parcel:
    """Where a value lies, and how to tell that it is still the same: the bytes of its JSON."""

    store: str
    """Name of the blob store: of an S3 bucket, its name."""
    key: str
    sha256: str
    """Hexadecimal."""
    size: int
    """Bytes."""


Fetch: TypeAlias = Callable[[str, Parcel], Any]
"""Gives the value of the field of that name."""

_NONE: Mapping[str, Parcel] = {}


def lazily(value: T, parcels: Mapping[str, Parcel], fetch: Fetch) -> T:
    """The same dataclass instance with the fields named in ``parcels`` lying elsewhere.

    ``fetch`` is called for each when somebody first looks at it, once, or twice where two threads look at the same
    moment. What was fetched of a parcel of ``value`` already is not fetched again.
    """
    if not parcels:
        return value
    plain, known = _plain(value), parcels_in(value)
    made: T = object.__new__(_lazy(plain))
    for field in fields(plain):
        name = field.name
        if name not in parcels or (known.get(name) == parcels[name] and _is_at_hand(value, name)):
            object.__setattr__(made, name, getattr(value, name))
    object.__setattr__(made, "parcels_elsewhere", dict(parcels))
    object.__setattr__(made, "fetch_elsewhere", fetch)
    return made


def parcels_in(value: object) -> Mapping[str, Parcel]:
    """The fields of ``value`` that lie elsewhere, looked at yet or not; nothing for what has everything at hand."""
    return getattr(value, "parcels_elsewhere", _NONE) if isinstance(value, _Lazy) else _NONE  # empty in a plain copy


def bound(value: T, fetch: Fetch) -> T:
    """The same with another way to fetch."""
    return lazily(value, parcels_in(value), fetch)


def replace(value: T, **changes: Any) -> T:
    """As ``dataclasses.replace``; what lies elsewhere and is not changed is left there, and is not fetched."""
    if not isinstance(value, _Lazy):  # nearly always
        return dataclasses.replace(value, **changes)  # type: ignore[type-var]  # T is a dataclass here
    parcels = {name: parcel for name, parcel in parcels_in(value).items() if name not in changes}
    if not parcels:
        made: T = dataclasses.replace(value, **changes)  # type: ignore[type-var]  # as above
        return made
    copy = lazily(value, parcels, _fetch_of(value))
    for name, changed in changes.items():
        object.__setattr__(copy, name, changed)
    return copy


def inherit(value: T, prior: T, names: Iterable[str]) -> T:
    """``value`` with the fields ``names`` of ``prior``; what lies elsewhere there lies elsewhere here."""
    parcels = {name: parcel for name, parcel in parcels_in(prior).items() if name in names}
    near = {name: getattr(prior, name) for name in names if name not in parcels}
    made = replace(value, **near)
    if not parcels:
        return made
    made = lazily(made, {**parcels_in(made), **parcels}, _fetch_of(prior))
    for name in parcels:
        if _is_at_hand(prior, name):
            object.__setattr__(made, name, getattr(prior, name))
    return made


def nearby(value: T) -> T:
    """Only what is at hand; a field that lies elsewhere is at its default, or None."""
    far = parcels_in(value)
    if not far:
        return value
    blank = {field.name: _default(field) for field in fields(_plain(value)) if field.name in far}
    return replace(value, **blank)


def brought(value: T) -> T:
    """The same, with everything fetched. Raises: whatever fetching raises."""
    for name in parcels_in(value):
        getattr(value, name)
    return value


class _Lazy:
    """A dataclass instance some of whose slots are empty until somebody looks. Never made by a constructor."""

    __slots__ = ()
    parcels_elsewhere: Mapping[str, Parcel]
    fetch_elsewhere: Fetch

    def __getattr__(self, name: str) -> Any:
        """Python asks here for what no slot holds."""
        parcel = None if name == "parcels_elsewhere" else parcels_in(self).get(name)
        if parcel is None:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        found = self.fetch_elsewhere(name, parcel)
        object.__setattr__(self, name, found)
        return found

    def __eq__(self, other: object) -> bool:
        """As of the dataclass; the same parcel on both sides is the same value."""
        plain = _plain(self)
        if not isinstance(other, plain):
            return NotImplemented
        ours, theirs = parcels_in(self), parcels_in(other)
        asked = [field.name for field in fields(plain)]
        return all(
            (name in ours and ours[name] == theirs.get(name)) or getattr(self, name) == getattr(other, name)
            for name in sorted(asked, key=lambda name: name in ours)
        )

    __hash__ = None  # type: ignore[assignment]  # as every dataclass that holds dicts

    def __repr__(self) -> str:
        """What nobody has looked at is shown as its parcel: nothing is fetched for a line of a log."""
        far = {name: parcel for name, parcel in parcels_in(self).items() if not _is_at_hand(self, name)}
        names = [field.name for field in fields(_plain(self))]
        shown = (f"{name}={far[name] if name in far else getattr(self, name)!r}" for name in names)
        return f"{_plain(self).__name__}({', '.join(shown)})"


_LAZY: dict[type[Any], type[Any]] = {}
"""By dataclass, its kind with empty slots."""


def _lazy(plain: type[Any]) -> type[Any]:
    if plain not in _LAZY:
        slots = {"__slots__": ("fetch_elsewhere", "parcels_elsewhere")}
        _LAZY[plain] = type(f"Lazy{plain.__name__}", (_Lazy, plain), slots)
    return _LAZY[plain]


def _plain(value: object) -> type[Any]:
    kind = type(value)
    return kind.__mro__[2] if issubclass(kind, _Lazy) else kind


def _fetch_of(value: object) -> Fetch:
    assert isinstance(value, _Lazy)  # only these have parcels
    return value.fetch_elsewhere


def _is_at_hand(value: object, name: str) -> bool:
    try:
        object.__getattribute__(value, name)
    except AttributeError:
        return False
    return True


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return None if field.default is MISSING else field.default
