"""Links as version 1 signed them: they lie in mails, good for a year and longer, and have to open the door they opened.

``links-v1.json`` is never changed. A change that makes this fail needs a form of its own, told from this one, beside
which this one is still read.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from flowcore.links import Grant
from tests.golden.runs import HERE, LINKS

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
UNTIL = datetime(2027, 3, 1, 12, tzinfo=UTC)
GOLDEN = json.loads((HERE / "links-v1.json").read_text("utf-8"))
GRANTS = {
    "for one": Grant(
        tenant="acme",
        run_id="order-7",
        born=1772366400123,
        wait="fan[3]/approve@2",
        door="a",
        actor="ann@example.com",
        until=UNTIL,
    ),
    "for a program": Grant(tenant="default", run_id="r:1", wait="ask@0:größe", door="cb", until=UNTIL),
    "for whoever has logged in": Grant(
        tenant="acme", run_id="order-7", born=1772366400123, wait="approve@0", door="a", until=UNTIL, login=True
    ),
}


@pytest.mark.parametrize("name", GRANTS)
def test_link_is_read_as_it_was_meant(name: str) -> None:
    """Every field, with the secret of then."""
    grant = GRANTS[name]
    assert grant == LINKS.read(GOLDEN[name], grant.door, NOON)


def test_link_that_another_zlib_has_compressed_is_read() -> None:
    """Compressors differ, and another release may run on another Python: the signature says that it is ours."""
    assert GRANTS["for one"] == LINKS.read(GOLDEN["for one, as another zlib compresses it"], "a", NOON)


@pytest.mark.parametrize("name", GRANTS)
def test_the_same_link_is_still_made(name: str) -> None:
    """So that a wait has one link, however often a release asks for it."""
    grant = GRANTS[name]
    assert f"https://api.example.com/v/{grant.door}/{GOLDEN[name]}" == LINKS.url(grant)
