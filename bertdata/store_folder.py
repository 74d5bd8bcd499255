"""A folder that a build writes to in an object store, see `bertdata.storage.Folder`.

A file is written here first, and then uploaded whole by the process that `bertdata.object_stores` starts. An upload
that ends early leaves nothing: the store makes an object of it only when it is told that all of it came, and that
process is killed rather than let close what it has begun.
"""

from __future__ import annotations

import errno
import itertools
import shutil
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bertdata.errors import ConfigError, OutputError
from bertdata.object_stores import ObjectFolder
from bertdata.retries import WrongSizeError
from bertdata.storage import child_place
from bertdata.store_client import cut
from bertdata.uploads import local_folder_of, open_upload, sweep_uploads
from bertdata.uris import MAX_FAILURES, location_of
from bertdata.web import NotFoundError

__all__ = ["StoreFolder"]

_PARTS_AT_ONCE = 512
_MAX_UPLOADS = 3
_KEPT_OPEN = 1 << 14  # runs: each shard reads all of them

_clients: dict[tuple[str, float, int], ObjectFolder] = {}


class StoreFolder:
    """A folder in an object store. Those of a process that lie in one bucket share what reads and writes there.

    Args:
        uri: Its s3:// or gs:// URI, see `bertdata.remote`.
        timeout: As that of `bertdata.remote.open_remote`, and so are the others.

    Raises:
        ConfigError: It is no such URI.
    """

    def __init__(self, uri: str, *, timeout: float = 60.0, max_failures: int = MAX_FAILURES) -> None:
        self.place = uri
        self.location = location_of(uri)
        parts = urllib.parse.urlsplit(uri)
        if parts.scheme not in ("s3", "gs"):
            raise ConfigError(f"{self.location}: a build writes to local folders, s3:// and gs://")
        self._prefix = urllib.parse.unquote(parts.path).strip("/")
        bucket = urllib.parse.urlunsplit((parts.scheme, parts.netloc, "", parts.query, ""))
        self._timeout, self._max_failures = timeout, max_failures
        self._client = _clients.setdefault(
            (bucket, timeout, max_failures), ObjectFolder(bucket, timeout=timeout, max_failures=max_failures)
        )

    @property
    def local(self) -> Path:
        """See `Folder`."""
        return local_folder_of(self.location)

    def child(self, name: str) -> StoreFolder:
        """See `Folder`."""
        place = child_place(self.place, name)
        return StoreFolder(place, timeout=self._timeout, max_failures=self._max_failures)

    def _path(self, name: str) -> str:
        """Returns the path from the bucket."""
        return f"{self._prefix}/{name}".strip("/")

    def _below(self, folder: str = "") -> list[str]:
        """Returns the names, from this folder on, of all files in `folder` and below."""
        start = len(self._prefix) + 1 if self._prefix else 0
        return [found.name[start:] for found in self._client.list_objects(self._path(folder))]

    def names(self, folder: str = "") -> list[str]:
        """See `Folder`."""
        depth = folder.count("/") + 1 if folder else 0
        return sorted(name for name in self._below(folder) if name.count("/") == depth)

    def size(self, name: str) -> int | None:
        """See `Folder`."""
        facts = self._client.facts(self._path(name))
        return None if facts is None else facts.num_bytes

    def has(self, name: str) -> bool:
        """See `Folder`."""
        return self.size(name) is not None

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Raises what is raised for files on this machine."""
        try:
            yield
        except NotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, f"nothing is there ({error})", what) from error
        except WrongSizeError as error:
            raise OSError(errno.EIO, str(error), what) from error

    def read(self, name: str) -> bytes:
        """See `Folder`."""
        data = bytearray()
        with self._reading(f"{self.location}/{name}"):
            for start, part in self._client.iter_bytes(self._path(name)):
                del data[start:]
                data += part
        return bytes(data)

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """See `Folder`."""
        with self._reading(f"{self.location}/{name}"):
            return self._client.read_ranges(self._path(name), ranges)

    def read_many(self, parts: Iterable[tuple[str, int, int]]) -> Iterator[bytes]:
        """See `Folder`."""
        waiting = iter(parts)
        while batch := list(itertools.islice(waiting, _PARTS_AT_ONCE)):
            cuts = [cut(start, stop) for _, start, stop in batch]
            pieces = [
                (self._path(name), *piece) for (name, _, _), own in zip(batch, cuts, strict=True) for piece in own
            ]
            with self._reading(self.location):
                found = self._client.read_parts(pieces, keep=_KEPT_OPEN)
                for number, own in enumerate(cuts, start=1):
                    data = b"".join(next(found)[1] for _ in own)
                    if number == len(batch):
                        for _ in found:  # nobody may ask for more, and what is not taken to its end is broken off
                            raise AssertionError("no part is left")
                    yield data

    def write(self, name: str, data: bytes) -> None:
        """See `Folder`."""
        self._client.put(self._path(name), data)

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """See `Folder`."""
        with open_upload() as (file, path):
            yield file
            file.flush()
            self._upload(path, name)

    def _upload(self, path: Path, name: str) -> None:
        """Uploads a file, and looks whether all of it is there.

        Raises:
            OutputError: It is not, though the store said so.
        """
        num_bytes = path.stat().st_size
        for _ in range(_MAX_UPLOADS):
            self._client.put(self._path(name), path)
            if (found := self.size(name)) == num_bytes:
                return
        raise OutputError(
            f"{self.location}/{name} has {found or 0:,} bytes after an upload of {num_bytes:,}; look whether something "
            "else writes there, and run the same command again"
        )

    def remove(self, names: Iterable[str]) -> None:
        """See `Folder`."""
        self._client.delete([self._path(name) for name in names])

    def clear(self, *, keep: Sequence[str] = ()) -> None:
        """See `Folder`."""
        names = self._below() if keep else []
        for folder in sorted({name.partition("/")[0] for name in names if "/" in name}):
            self._client.clear(self._path(folder))
        self.remove(name for name in names if "/" not in name and name not in keep)
        if not keep:
            self._client.clear(self._path(""))

    def remove_if_empty(self) -> None:
        """See `Folder`; a store may have something that stands for a folder."""
        if not self._below():
            self._client.clear(self._path(""))

    def sweep(self, *, recursive: bool = False) -> None:  # noqa: ARG002 - nothing is left below or above
        """See `Folder`; files on the way to any folder are swept, and what is kept here of this one."""
        sweep_uploads()
        shutil.rmtree(self.local, ignore_errors=True)

    def close(self) -> None:
        """Ends the processes that wait for something to do, also for other folders of the bucket."""
        self._client.close()
