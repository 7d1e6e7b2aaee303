"""Each place for large values keeps the promises of the port; and what only one behind a network must do."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import EndpointConnectionError

from flowcore import parcels
from flowcore.adapters.aws import ClientError, dynamo_client, s3_client, sqs_client
from flowcore.adapters.blobs import FolderBlobs, MemoryBlobs
from flowcore.adapters.dynamodb import DynamoStore
from flowcore.adapters.dynamodb_heads import HEAD_PAYLOADS
from flowcore.adapters.dynamodb_records import RECORD_PAYLOADS
from flowcore.adapters.memory import MemoryStore
from flowcore.adapters.roomy import RoomyStore
from flowcore.adapters.s3 import S3Blobs
from flowcore.errors import BlobsUnavailable, InvalidPayload, PayloadTooLarge
from flowcore.keys import RunRef, Scope, StepKey
from flowcore.model import Alternative, Delta, Join, Lapse, Terms
from flowcore.parcels import parcels_in
from flowcore.ports import Blobs, Store, Written
from flowcore.testing import SeededIds
from flowcore.testing.contract import RUN, StoreContract, a_head, a_record, a_suspension, an_answer
from flowcore.testing.contract_blobs import BlobsContract, put
from flowcore.testing.faults import BlobFault, FaultyBlobs
from flowcore.testing.moto import REGION


class TestMemoryBlobs(BlobsContract):
    """``MemoryBlobs`` is one."""

    @pytest.fixture
    def blobs(self) -> Blobs:
        return MemoryBlobs(page=3)


class TestFolderBlobs(BlobsContract):
    """``FolderBlobs`` is one."""

    @pytest.fixture
    def blobs(self, tmp_path: Path) -> Blobs:
        return FolderBlobs(tmp_path / "values", page=3)


class TestS3Blobs(BlobsContract):
    """``S3Blobs`` is one."""

    @pytest.fixture
    def blobs(self, aws: None) -> Iterator[Blobs]:
        client: Any = s3_client(region=REGION)
        client.create_bucket(Bucket="values", CreateBucketConfiguration={"LocationConstraint": REGION})
        blobs = S3Blobs("values", region=REGION, page=3)
        yield blobs
        while keys := blobs.keys(""):
            blobs.delete(keys)
        client.delete_bucket(Bucket="values")

    def test_what_is_not_what_it_should_be_is_not_kept(self, blobs: Blobs) -> None:
        """S3 itself compares the hash, which moto does not: so here, that it is told it."""
        told = []

        class Told:
            def put_object(self, **request: Any) -> dict[str, Any]:
                told.append(request["ChecksumSHA256"])
                return {}

            def __getattr__(self, name: str) -> Any:
                raise AssertionError(name)

        put(S3Blobs("values", make=cast("Any", Told)), "a/b", b"large")
        assert [b64encode(sha256(b"large").digest()).decode()] == told


class TestRoomyStore(StoreContract):
    """``RoomyStore`` is a store, whatever it wraps; its race is that of the store in it."""

    race_rounds = 2

    @pytest.fixture
    def store(self) -> Store:
        return RoomyStore(MemoryStore(), MemoryBlobs(), SeededIds())

    def test_too_large_values_are_refused(self, store: Store) -> None:
        """Only above a limit that is set for that; nothing is written then, in either store."""
        small = RoomyStore(MemoryStore(), blobs := MemoryBlobs(), SeededIds(), largest=100_000)
        with pytest.raises(PayloadTooLarge, match="input of run 'r-1'"):
            small.start(replace(a_head(), input="x" * 100_000))
        with pytest.raises(PayloadTooLarge, match="suspend payload of step 'approve'"):
            small.commit(RUN, 1, replace(a_suspension(), output="y" * 90_000, payload="x" * 100_000), None)
        assert (None, {}) == (small.peek(RUN), blobs.kept)

    def test_weigh_refuses_what_cannot_be_written(self, store: Store) -> None:
        """A large value weighs what its parcel does, and nothing is put for that; one above the limit is refused."""
        small = RoomyStore(MemoryStore(), blobs := MemoryBlobs(), SeededIds(), largest=500_000)
        assert 60 < store.weigh(RUN, 1, a_record(output="x" * 400_000)) < 400
        with pytest.raises(PayloadTooLarge):
            small.weigh(RUN, 1, a_record(output="x" * 500_000))
        with pytest.raises(InvalidPayload):
            small.weigh(RUN, 1, a_record(output=float("nan")))
        assert {} == blobs.kept


def test_a_child_can_be_found_before_any_blob_is_brought_to_it() -> None:
    """Whoever deletes the run finds it by the join; and what was too large in its run is in its place."""
    memory, child = MemoryStore(), RunRef(RUN.tenant, "part-1")
    join = Join(key=StepKey("fan"), incarnation=7, chunk=0, total=2, shard=2)
    blobs = FaultyBlobs(MemoryBlobs(), lambda *_: BlobFault.FAILS)
    large = a_record("fan[0]", output="x" * 300_000)
    with pytest.raises(BlobsUnavailable):
        RoomyStore(memory, blobs, SeededIds()).bring(7, [(child, large)], joins=[(RUN, join)])
    assert [join] == list(memory.joins(RUN))
    assert {} == memory.scope(child, 7, Scope("fan"))
    roomy = RoomyStore(memory, MemoryBlobs(), SeededIds())
    assert not roomy.bring(7, [(child, large)], joins=[(RUN, join)])
    assert roomy.bring(8, [(child, large)], joins=[(RUN, replace(join, incarnation=8))])
    [found] = roomy.scope(child, 8, Scope("fan")).values()
    assert ["part-1"] == [parcel.key.split("/r-")[1].split("/")[0] for parcel in parcels_in(found).values()]
    assert roomy.bring(9, [(RUN, found)])
    [copied] = roomy.scope(RUN, 9, Scope("fan")).values()
    assert ["r-1"] == [parcel.key.split("/r-")[1].split("/")[0] for parcel in parcels_in(copied).values()]
    assert large == copied


def test_what_is_large_is_so_in_a_transaction_of_ones_own_as_well() -> None:
    """A store that was given another limit keeps it where it hands out what it would write."""
    client = cast("Any", SimpleNamespace(meta=None))
    inner = DynamoStore(client, "t", SeededIds())
    store, items = RoomyStore(inner, blobs := MemoryBlobs(), SeededIds(), largest=300, inline=100).handing()
    store.commit(RUN, 1, a_record(output="x" * 200), None)
    assert (1, 1) == (len(items), len(blobs.kept))
    with pytest.raises(PayloadTooLarge):
        store.commit(RUN, 1, a_record(output="x" * 300), None)


ANSWER = an_answer("a" * 70_000)
LARGE: dict[str, Any] = {
    "output": "o" * 70_000,
    "payload": {"shown": "p" * 70_000},
    "delta": Delta(state={"k": (3, "s" * 70_000)}, context={"gone": (3,)}),
    "terms": Terms(quorum=2, lapse=Lapse(("l" * 70_000,))),
    "votes": (ANSWER, an_answer("no")),
    "given": ("g" * 70_000,),
    "answer": ANSWER,
    "alternatives": (Alternative(name="one"), Alternative(name="other", payload="p" * 70_000)),
    "input": ["i" * 70_000],
    "state": {"k": "s" * 70_000},
    "request_context": {"k": "c" * 70_000},
}


@pytest.mark.parametrize("field", sorted({*RECORD_PAYLOADS.values()}))
def test_large_field_of_a_record_lies_elsewhere(field: str) -> None:
    """Each that the table names: written as a parcel, read as what it was."""
    store = RoomyStore(MemoryStore(), blobs := MemoryBlobs(), SeededIds())
    record = a_record("charge", **{field: LARGE[field]})
    store.commit(RUN, 1, record, None)
    store.start(a_head())
    [stored] = (store.load(RUN) or pytest.fail("there is a run"))[1].values()
    assert ([field], 1) == (list(parcels_in(stored)), len(blobs.kept))
    assert record == stored


@pytest.mark.parametrize("field", sorted({*HEAD_PAYLOADS.values()}))
def test_large_field_of_a_head_lies_elsewhere(field: str) -> None:
    """And stays there when another write replaces the head."""
    store = RoomyStore(MemoryStore(), blobs := MemoryBlobs(), SeededIds())
    head = a_head(**{field: LARGE[field]})
    store.start(head)
    stored = store.peek(RUN) or pytest.fail("there is a run")
    assert ([field], 1) == (list(parcels_in(stored)), len(blobs.kept))
    assert Written() == store.move(parcels.replace(stored, version=2), version=1)
    moved = store.peek(RUN) or pytest.fail("there is a run")
    assert parcels_in(stored) == parcels_in(moved)
    assert replace(head, version=2) == moved


def test_s3_makes_no_client_before_it_is_needed() -> None:
    """Most workers never see a large value, and S3's client costs a cold start more than all the others together."""

    def make() -> Any:
        raise AssertionError("nobody has asked for anything yet")

    blobs = S3Blobs("values", make=make)
    assert blobs.name == "values"
    blobs.delete([])


def test_s3_has_more_time_for_a_reply_than_others(aws: None) -> None:
    """Storing 50 MB or deleting a thousand objects is more work than a message; a try given up is begun anew."""
    made: list[Any] = [s3_client(region=REGION), sqs_client(region=REGION), dynamo_client(region=REGION)]
    assert [10, 3, 3] == [client.meta.config.read_timeout for client in made]


@pytest.mark.parametrize("verb", ["put", "get", "keys", "delete"])
@pytest.mark.parametrize(
    "trouble",
    [
        EndpointConnectionError(endpoint_url="https://s3"),
        ClientError({"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "PutObject"),
        ClientError({"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "GetObject"),
        ClientError({"Error": {"Code": "NoSuchBucket"}, "ResponseMetadata": {"HTTPStatusCode": 404}}, "GetObject"),
    ],
    ids=lambda error: getattr(error, "response", {}).get("Error", {}).get("Code", "silence"),
)
def test_s3_that_does_not_answer_is_unavailable(verb: str, trouble: Exception) -> None:
    """Nothing of boto3 comes out, and no trouble is taken for a value that is missing."""

    class Silent:
        def __getattr__(self, name: str) -> Any:
            def fail(**request: Any) -> Any:
                raise trouble

            return fail

    blobs = S3Blobs("values", make=cast("Any", Silent))
    calls: dict[str, Callable[[], Any]] = {
        "put": lambda: put(blobs, "a/b"),
        "get": lambda: blobs.get("a/b"),
        "keys": lambda: blobs.keys("a/"),
        "delete": lambda: blobs.delete(["a/b"]),
    }
    with pytest.raises(BlobsUnavailable, match="'values'"):
        calls[verb]()


def test_s3_that_keeps_an_object_is_unavailable() -> None:
    """S3 answers a deletion with 200 and a list of what it did not delete."""

    class Keeping:
        def delete_objects(self, **request: Any) -> dict[str, Any]:
            return {"Errors": [{"Key": "a/b", "Code": "InternalError"}]}

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

    with pytest.raises(BlobsUnavailable, match="InternalError"):
        S3Blobs("values", make=cast("Any", Keeping)).delete(["a/b"])


def test_folder_is_read_by_another_process(tmp_path: Path) -> None:
    """It knows nothing that is not in the folder."""
    put(FolderBlobs(tmp_path), "a/b")
    assert b'"large"' == FolderBlobs(tmp_path).get("a/b")


def test_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    """A full or read-only disk is trouble of the kind that passes."""
    (tmp_path / "file").write_text("in the way")
    blobs = FolderBlobs(tmp_path / "file")
    with pytest.raises(BlobsUnavailable):
        put(blobs, "a/b")
    with pytest.raises(BlobsUnavailable):
        blobs.get("a/b")


def test_folder_shows_no_half_written_file(tmp_path: Path) -> None:
    """What a dead writer has left is no key, and no reader finds it."""
    blobs = FolderBlobs(tmp_path)
    put(blobs, "a/b")
    (tmp_path / ".half").write_bytes(b'"la')
    assert ["a/b"] == list(blobs.keys("a/"))
    assert {".half", "a"} == {path.name for path in tmp_path.iterdir()}


def test_folder_leaves_nothing_beside_a_file_it_could_not_place(tmp_path: Path) -> None:
    """Otherwise a disk that is nearly full would fill up with tries."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(BlobsUnavailable):
        FolderBlobs(tmp_path).put("a/b", b"1", sha256=sha256(b"1").hexdigest())
    assert ["a"] == [path.name for path in tmp_path.iterdir()]
