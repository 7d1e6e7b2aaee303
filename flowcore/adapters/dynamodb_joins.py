"""How the joins of distributed foreaches lie in the table: in the run's partition, beside its records.

Sort key ``J#<incarnation>#<key>#<chunk>``. The sets are number sets that hold an item's place in its chunk, so one of
two hundred takes three bytes, and telling of an item costs one write unit however many are there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from flowcore.adapters.dynamodb_attributes import Attribute, Item, int_of, number, text
from flowcore.core.fan import CHUNK
from flowcore.keys import StepKey
from flowcore.model import Join

JOIN_PREFIX = "J#"
SETS = {"dn": "done", "fd": "failed", "bd": "bailed", "pd": "parked", "ak": "asking"}
"""The attribute that holds each set."""


@dataclass(frozen=True, slots=True)
class Growth:
    """What one update does to a join: items added to sets, and items taken out of one."""

    add: Mapping[str, Attribute]
    drop: Mapping[str, Attribute]

    def applied_to(self, item: Item) -> Item:
        """The item after the update; a set that becomes empty is gone, as in DynamoDB."""
        changed = dict(item)
        for name, more in self.add.items():
            changed[name] = _set_of(_members(item.get(name)) | _members(more))
        for name, less in self.drop.items():
            left = _members(changed.get(name)) - _members(less)
            if left:
                changed[name] = _set_of(left)
            else:
                changed.pop(name, None)
        return changed


def joins_prefix(incarnation: int | None, key: StepKey | None) -> str:
    """How the sort keys of these joins begin; those of a key that begins with another's do not differ in it."""
    if incarnation is None:
        return JOIN_PREFIX
    return f"{JOIN_PREFIX}{incarnation:04}#{'' if key is None else f'{key}#'}"


def join_key(join: Join) -> str:
    """The sort key of a join."""
    return f"{joins_prefix(join.incarnation, join.key)}{join.chunk:05}"


def encode_join(partition: str, join: Join, token: str, schema: int) -> Item:
    """A join as an item, with whatever it already has."""
    item = {
        "pk": text(partition),
        "sk": text(join_key(join)),
        "v": number(schema),
        "n": number(join.total),
        "k": number(join.shard),
        "lc": text(token),
    }
    return growing(join, ()).applied_to(item)


def growing(added: Join, unparked: Collection[int]) -> Growth:
    """The change that adds what is in the sets of one join to those of another."""
    base = added.chunk * CHUNK
    sets = {name: _set_of(index - base for index in getattr(added, field)) for name, field in SETS.items()}
    add = {name: items for name, items in sets.items() if items["NS"]}
    gone = _set_of(index - base for index in unparked)
    return Growth(add, {"pd": gone, "ak": gone} if unparked else {})


def decode_join(item: Mapping[str, Attribute]) -> Join:
    """The join that an item holds."""
    _, incarnation, rest = item["sk"]["S"].split("#", 2)
    key, chunk = rest.rsplit("#", 1)
    base = int(chunk) * CHUNK
    sets = {
        field: frozenset(base + int(number) for number in item[name]["NS"]) if name in item else frozenset()
        for name, field in SETS.items()
    }
    return Join(
        key=StepKey(key),
        incarnation=int(incarnation),
        chunk=int(chunk),
        total=int_of(item["n"]),
        shard=int_of(item["k"]),
        **sets,
    )


def _members(attribute: Attribute | None) -> frozenset[int]:
    return frozenset() if attribute is None else frozenset(map(int, attribute["NS"]))


def _set_of(items: Iterable[int]) -> Attribute:
    return {"NS": [str(index) for index in sorted(set(items))]}
