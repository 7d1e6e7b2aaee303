"""Large values without AWS: in a folder, for a local stack or for whoever wants to see them, and in memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from hashlib import sha256 as hashed
from pathlib import Path
from threading import Lock

from flowcore.errors import BlobsUnavailable

_PAGE = 1000


class FolderBlobs:
    """``flowcore.ports.Blobs`` as files: a key is a path below ``folder``, which is made when it is needed.

    Several processes may share the folder. A file is written beside its place, synced, and renamed into it: whoever
    finds it finds all of it, whatever becomes of the writer.
    """

    def __init__(self, folder: Path | str, *, page: int = _PAGE) -> None:
        """Keep values below ``folder``; ``page``: keys that one listing gives."""
        self._folder = Path(folder)
        self._page = page

    @property
    def name(self) -> str:
        """The folder's path."""
        return str(self._folder)

    def put(self, key: str, content: bytes, *, sha256: str) -> None:
        """See ``Blobs.put``."""
        _verify(key, content, sha256)
        place = self._folder / key
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            # In the folder itself, under a name that begins with a dot: no listing takes a half written file for a key.
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".", delete=False) as file:
                try:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                    Path(file.name).replace(place)
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise
        except OSError as error:
            raise BlobsUnavailable(f"Folder {self.name!r} takes nothing: {error}") from error

    def get(self, key: str) -> bytes | None:
        """See ``Blobs.get``."""
        try:
            return (self._folder / key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BlobsUnavailable(f"Folder {self.name!r} cannot be read: {error}") from error

    def keys(self, prefix: str) -> Sequence[str]:
        """See ``Blobs.keys``."""
        try:
            files = [path for path in (self._folder / prefix).rglob("*") if path.is_file()]
        except OSError as error:
            raise BlobsUnavailable(f"Folder {self.name!r} cannot be listed: {error}") from error
        return sorted(path.relative_to(self._folder).as_posix() for path in files)[: self._page]

    def delete(self, keys: Sequence[str]) -> None:
        """See ``Blobs.delete``."""
        try:
            for key in keys:
                (self._folder / key).unlink(missing_ok=True)
        except OSError as error:
            raise BlobsUnavailable(f"Folder {self.name!r} keeps what should go: {error}") from error


class MemoryBlobs:
    """``flowcore.ports.Blobs`` in memory."""

    name = "memory"

    def __init__(self, *, page: int = _PAGE) -> None:
        """An empty one; ``page``: keys that one listing gives."""
        self._page = page
        self._lock = Lock()
        self.kept: dict[str, bytes] = {}
        """Everything, by key."""

    def put(self, key: str, content: bytes, *, sha256: str) -> None:
        """See ``Blobs.put``."""
        _verify(key, content, sha256)
        with self._lock:
            self.kept[key] = content

    def get(self, key: str) -> bytes | None:
        """See ``Blobs.get``."""
        with self._lock:
            return self.kept.get(key)

    def keys(self, prefix: str) -> Sequence[str]:
        """See ``Blobs.keys``."""
        with self._lock:
            return sorted(key for key in self.kept if key.startswith(prefix))[: self._page]

    def delete(self, keys: Sequence[str]) -> None:
        """See ``Blobs.delete``."""
        with self._lock:
            for key in keys:
                self.kept.pop(key, None)


def _verify(key: str, content: bytes, sha256: str) -> None:
    if hashed(content).hexdigest() != sha256:
        raise BlobsUnavailable(f"What was to be kept under {key!r} has another hash than was said; nothing was kept.")
