"""The promises of ``flowcore.ports.Blobs`` as tests; see ``flowcore.testing.contract`` for how to use a contract."""

from __future__ import annotations

from hashlib import sha256

import pytest

from flowcore.errors import BlobsUnavailable
from flowcore.ports import Blobs

HOME = "t-acme/r-order@7/"


def put(blobs: Blobs, key: str, content: bytes = b'"large"') -> None:
    """Keep ``content``, with its own hash."""
    blobs.put(key, content, sha256=sha256(content).hexdigest())


class BlobsContract:
    """What every ``Blobs`` must do. Give a fixture ``blobs`` with an empty one that lists 3 keys at a time."""

    @pytest.mark.parametrize("content", [b"", b"7", bytes(range(256)), b"\xc3\xa9" * 300_000])
    def test_what_was_put_is_got(self, blobs: Blobs, content: bytes) -> None:
        """Byte by byte, whatever the bytes."""
        put(blobs, f"{HOME}a.json", content)
        assert content == blobs.get(f"{HOME}a.json")

    def test_what_was_never_put_is_none(self, blobs: Blobs) -> None:
        """No error: whoever asks decides what it means."""
        put(blobs, f"{HOME}a")
        assert (None, None) == (blobs.get(f"{HOME}b"), blobs.get("t-nobody/r-1/a"))

    def test_putting_the_same_again_changes_nothing(self, blobs: Blobs) -> None:
        """A put whose reply was lost is simply repeated."""
        put(blobs, f"{HOME}a")
        put(blobs, f"{HOME}a")
        assert (b'"large"', [f"{HOME}a"]) == (blobs.get(f"{HOME}a"), list(blobs.keys(HOME)))

    def test_what_is_not_what_it_should_be_is_not_kept(self, blobs: Blobs) -> None:
        """Bytes that changed on the way are refused where they arrive."""
        with pytest.raises(BlobsUnavailable):
            blobs.put(f"{HOME}a", b"largf", sha256=sha256(b"large").hexdigest())
        assert blobs.get(f"{HOME}a") is None

    def test_keys_are_those_below_the_prefix(self, blobs: Blobs) -> None:
        """A run whose id begins with another's is not meant with it."""
        for key in (f"{HOME}a", f"{HOME}b", "t-acme/r-order@71/c", "t-acme/r-order@7.d/e", "t-acm/r-order@7/f"):
            put(blobs, key)
        assert [f"{HOME}a", f"{HOME}b"] == sorted(blobs.keys(HOME))
        assert [] == list(blobs.keys("t-acme/r-order/"))

    def test_what_was_deleted_is_gone_and_the_others_are_not(self, blobs: Blobs) -> None:
        """What is not there is no error, nor is deleting nothing."""
        for name in "abc":
            put(blobs, f"{HOME}{name}")
        blobs.delete([f"{HOME}a", f"{HOME}b", f"{HOME}never"])
        blobs.delete([])
        assert (None, b'"large"', [f"{HOME}c"]) == (
            blobs.get(f"{HOME}a"),
            blobs.get(f"{HOME}c"),
            list(blobs.keys(HOME)),
        )

    def test_deleting_what_is_listed_comes_to_an_end(self, blobs: Blobs) -> None:
        """A listing shows a part at a time and is empty only when there is nothing: so a loop of the two is whole."""
        for number in range(7):
            put(blobs, f"{HOME}{number}", b"1")
        sizes = []
        while keys := blobs.keys(HOME):
            blobs.delete(keys)
            sizes.append(len(keys))
        assert [3, 3, 1] == sizes
