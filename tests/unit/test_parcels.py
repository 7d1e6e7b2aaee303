"""A record some of whose fields lie elsewhere is like any other, and fetches no field that nobody looks at."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from flowcore.model import NO_CHANGE, StepRecord
from flowcore.parcels import Parcel, bound, brought, inherit, lazily, nearby, parcels_in, replace
from flowcore.testing.contract import a_record

THERE = Parcel("values", "t-acme/r-1/a", "5e", 5)
OTHER = Parcel("values", "t-acme/r-1/b", "5e", 5)


class Fetches:
    """Gives the value of each field, and remembers which were asked for."""

    def __init__(self, **values: Any) -> None:
        self.values = values
        self.asked: list[str] = []

    def __call__(self, name: str, parcel: Parcel) -> Any:
        self.asked.append(name)
        return self.values[name]


def far(fetch: Fetches, **changes: Any) -> StepRecord:
    """A record whose output lies elsewhere."""
    return lazily(a_record("charge", **changes), {"output": THERE}, fetch)


def test_field_is_fetched_once_and_only_when_looked_at() -> None:
    """Everything else about the record is at hand."""
    fetch = Fetches(output=7)
    record = far(fetch)
    assert ("charge", True, []) == (record.key, record.is_settled, fetch.asked)
    assert (7, 7, ["output"]) == (record.output, record.output, fetch.asked)


def test_record_equals_the_one_that_has_everything_at_hand() -> None:
    """From both sides, and looks like it once it was looked at."""
    plain, fetch = a_record("charge", output=7), Fetches(output=7)
    record = far(fetch)
    assert "output=Parcel(" in repr(record)
    assert (True, True) == (record == plain, plain == record)
    assert repr(plain) == repr(record)
    stranger: Any = "charge"
    assert record != stranger
    assert (False, False) == (far(Fetches(output=8)) == plain, record == a_record("other", output=7))


def test_same_parcel_is_the_same_value() -> None:
    """So two readings of one record are compared without a fetch."""
    fetch = Fetches()
    assert far(fetch) == far(fetch)
    assert [] == fetch.asked
    assert far(Fetches(output=7)) == lazily(a_record("charge"), {"output": OTHER}, Fetches(output=7))


def test_copy_leaves_elsewhere_what_lies_there() -> None:
    """Unless it is what the copy changes."""
    fetch = Fetches(output=7)
    copy = replace(far(fetch), gen=3)
    assert (3, {"output": THERE}, []) == (copy.gen, parcels_in(copy), fetch.asked)
    changed = replace(copy, output=8)
    assert (3, 8, {}, []) == (changed.gen, changed.output, parcels_in(changed), fetch.asked)
    assert (7, ["output"]) == (copy.output, fetch.asked)


def test_copy_of_what_was_fetched_fetches_nothing() -> None:
    """A value that is in memory stays there, and is known to lie elsewhere."""
    fetch = Fetches(output=7)
    copy = replace(brought(far(fetch)), gen=3)
    assert (7, ["output"], {"output": THERE}) == (copy.output, fetch.asked, parcels_in(copy))


def test_plain_copy_has_everything_at_hand() -> None:
    """``dataclasses.replace`` knows nothing of parcels: it looks at every field."""
    fetch = Fetches(output=7)
    copy = dataclasses.replace(far(fetch), gen=3)
    assert (7, {}, ["output"]) == (copy.output, parcels_in(copy), fetch.asked)
    assert a_record("charge", output=7, gen=3) == copy


def test_nearby_has_defaults_instead() -> None:
    """What is written beside the parcels."""
    record = lazily(a_record("charge"), {"output": THERE, "delta": OTHER}, Fetches())
    near = nearby(record)
    assert (None, NO_CHANGE, {}) == (near.output, near.delta, parcels_in(near))
    plain = a_record("charge", output=7)
    assert nearby(plain) is plain


def test_record_inherits_parcels_of_the_one_before() -> None:
    """What a rewritten record keeps is neither fetched nor put again."""
    fetch = Fetches(payload={"reason": "large"}, output=7)
    prior = lazily(a_record("charge", label="l"), {"payload": THERE, "output": OTHER}, fetch)
    heir = inherit(a_record("charge", gen=1), prior, ("payload", "label"))
    assert ({"payload": THERE}, "l", 1, []) == (parcels_in(heir), heir.label, heir.gen, fetch.asked)
    assert {"reason": "large"} == heir.payload
    again = inherit(a_record("charge", gen=2), heir, ("payload",))
    assert ({"reason": "large"}, ["payload"]) == (again.payload, fetch.asked)


def test_bound_anew_it_is_fetched_in_the_new_way() -> None:
    """A store that knows no blobs leaves that to whoever wraps it."""
    old, new = Fetches(), Fetches(output=7)
    assert (7, []) == (bound(far(old), new).output, old.asked)


def test_what_has_no_parcels_stays_what_it_is() -> None:
    """Nothing is paid for what is small."""
    plain = a_record("charge")
    assert all(same is plain for same in (lazily(plain, {}, Fetches()), bound(plain, Fetches()), brought(plain)))
    assert {} == parcels_in("no record at all")


def test_unknown_attribute_is_unknown() -> None:
    """And names the kind of thing that has it not."""
    name = "colour"
    with pytest.raises(AttributeError, match="colour"):
        getattr(far(Fetches()), name)
