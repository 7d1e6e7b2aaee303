"""Large values in an S3 bucket, one object each.

The client is made when the first value is put or asked for: loading what S3 needs takes longer than a whole small run.
Encryption, public access and how long aborted uploads stay are the bucket's own settings.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TypeVar

from flowcore.adapters.aws import AwsError, S3Client, code_of, s3_client
from flowcore.errors import BlobsUnavailable

T = TypeVar("T")

_NOTHING = frozenset({"NoSuchKey", "404"})


class S3Blobs:
    """``flowcore.ports.Blobs`` in one bucket.

    Needs ``s3:GetObject``, ``s3:PutObject`` and ``s3:DeleteObject`` on its objects and ``s3:ListBucket`` on itself;
    without the last, S3 says "forbidden" where it should say that there is no such object.
    """

    def __init__(
        self, bucket: str, *, region: str | None = None, make: Callable[[], S3Client] | None = None, page: int = 1000
    ) -> None:
        """Use ``bucket``; ``make`` gives the client, once, when it is first needed; ``page``: keys of one listing."""
        self._bucket = bucket
        self._page = page
        self._make = make or (lambda: s3_client(region=region))
        self._made: S3Client | None = None
        self._lock = Lock()

    @property
    def name(self) -> str:
        """The bucket's."""
        return self._bucket

    def put(self, key: str, content: bytes, *, sha256: str) -> None:
        """See ``Blobs.put``. S3 compares the hash itself."""
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        self._ask(
            lambda client: client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=content,
                ContentType="application/json",
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=checksum,
            )
        )

    def get(self, key: str) -> bytes | None:
        """See ``Blobs.get``."""

        def read(client: S3Client) -> bytes | None:
            try:
                found: bytes = client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            except AwsError as error:
                if code_of(error) in _NOTHING:
                    return None
                raise
            return found

        return self._ask(read)

    def keys(self, prefix: str) -> Sequence[str]:
        """See ``Blobs.keys``."""
        reply = self._ask(lambda client: client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, MaxKeys=self._page))
        return [entry["Key"] for entry in reply.get("Contents", ())]

    def delete(self, keys: Sequence[str]) -> None:
        """See ``Blobs.delete``."""
        if not keys:
            return
        objects = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        reply = self._ask(lambda client: client.delete_objects(Bucket=self._bucket, Delete=objects))
        if reply.get("Errors"):
            raise BlobsUnavailable(f"Bucket {self._bucket!r} kept some of {len(keys)} objects: {reply['Errors'][0]}")

    def _ask(self, operation: Callable[[S3Client], T]) -> T:
        try:
            return operation(self._client())
        except AwsError as error:
            raise BlobsUnavailable(f"Bucket {self._bucket!r} does not answer as it should: {error}") from error

    def _client(self) -> S3Client:
        with self._lock:  # boto3's session is not safe for threads that make clients
            if self._made is None:
                self._made = self._make()
            return self._made
