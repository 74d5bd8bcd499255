"""Folders in S3 and in Google Cloud Storage, by processes of their own; see `bertdata.store_process` for why."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bertdata.errors import DownloadError, OutputError
from bertdata.retries import WrongSizeError
from bertdata.store_client import StoreError, StoreProcess, coalesce, cut, iter_parts
from bertdata.store_pool import StorePool
from bertdata.uris import MAX_FAILURES, path_in
from bertdata.web import NotFoundError

__all__ = ["ObjectFacts", "ObjectFolder"]

PIECE_BYTES = 1 << 22
_MANY_SECONDS = 600.0  # for what is one answer to many requests: a list, or a folder that is emptied
_ADVICE_IF_NOT_WRITTEN = "look whether the address is right, and whether you may write to it with the credentials set"


class ObjectFacts(NamedTuple):
    """An object as it is now.

    Attributes:
        name: Its path from the folder.
        num_bytes: Its size.
        modified_ns: When it was last changed, in nanoseconds; S3 tells whole seconds.
        etag: A tag of its content; empty where the store did not tell: in lists, and in Google's store.
    """

    name: str
    num_bytes: int
    modified_ns: int
    etag: str = ""


class ObjectFolder:
    """A folder in an object store, see `bertdata.remote.RemoteFolder`. Threads may share it.

    Whatever fails is tried again, with growing waits. An object is written by one upload, under its name only when it
    is whole. Names are paths from the folder, with forward slashes.

    Args:
        uri: Its s3:// or gs:// URI.
        timeout: As that of `bertdata.remote.open_remote`, and so are the others.
    """

    def __init__(
        self,
        uri: str,
        *,
        timeout: float = 60.0,
        max_failures: int = MAX_FAILURES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._pool = StorePool(uri, timeout=timeout, max_failures=max_failures, sleep=sleep, piece_bytes=PIECE_BYTES)
        self.location = self._pool.location

    def iter_bytes(self, name: str, *, num_bytes: int | None = None) -> Iterator[tuple[int, bytes]]:
        """See `bertdata.remote.RemoteFolder.iter_bytes`."""
        where, path = self._pool.where(name), path_in(self._pool.folder, name)
        retries = self._pool.retries(where)
        position = 0
        while True:
            try:
                with self._pool.process() as process:
                    for kind, part in process.ask({"do": "stream", "path": path, "position": position}):
                        self._pool.was_answered = True
                        if kind == b"D":
                            yield position, part
                            position += len(part)
                            retries.came_to(position)
                        elif num_bytes is not None and part != num_bytes:
                            raise WrongSizeError(f"{where} has {part:,} bytes, not {num_bytes:,}")
                        else:
                            num_bytes = part
                if position == num_bytes:
                    return
                self._pool.wait(retries, StoreError(f"the connection ended at byte {position:,} of {num_bytes or 0:,}"))
            except StoreError as error:
                self._pool.raise_if_permanent(error, where=where)
                self._pool.wait(retries, error)

    def list_objects(self, name: str = "") -> list[ObjectFacts]:
        """Returns all objects in a folder and below, by name; none where it is not there.

        Raises:
            DownloadError: The server refuses it, or fails for good; as with all methods that read.
        """

        def attempt(process: StoreProcess) -> bytes:
            answer = process.ask({"do": "list", "path": path_in(self._pool.folder, name)}, patience=_MANY_SECONDS)
            return b"".join(part for _, part in answer)

        rows = map(json.loads, self._pool.run(name, attempt).splitlines())
        start = len(self._pool.folder) + 1
        return sorted(ObjectFacts(path[start:], num_bytes, modified) for path, num_bytes, modified in rows)

    def facts(self, name: str) -> ObjectFacts | None:
        """Returns size and version of an object; None where it is not there."""
        request = {"do": "facts", "path": path_in(self._pool.folder, name)}
        try:
            (said,) = self._pool.run(name, lambda process: [said for _, said in process.ask(request)])
        except NotFoundError as error:
            if isinstance(error.__cause__, StoreError) and not error.__cause__.has_bucket:
                raise
            return None
        return ObjectFacts(name, said["size"], said["modified"], said["etag"])

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Returns parts of an object, each from its first byte up to before its second; near ones by one request.

        Raises:
            NotFoundError: It is not there.
            WrongSizeError: It ends before.
        """
        merged = coalesce(ranges)
        parts = [(name, start, stop) for first, last in merged for start, stop in cut(first, last)]
        pieces = iter([data for _, data in self.read_parts(parts)])
        blocks = {first: b"".join(next(pieces) for _ in cut(first, last)) for first, last in merged}
        found = []
        for start, stop in ranges:
            first = max((first for first in blocks if first <= start), default=0)
            found.append(blocks[first][start - first : stop - first] if stop > start else b"")
        return found

    def read_parts(
        self, parts: Sequence[tuple[str, int, int]], *, clip: bool = False, keep: int = 0
    ) -> Iterator[tuple[ObjectFacts, bytes]]:
        """Yields parts of objects, several of which are fetched at once.

        Args:
            parts: (name, first byte, byte after the last) of each; of a few MiB at most.
            clip: An object may end before; then its part is shorter.
            keep: So many objects stay open for the next calls, those that were asked for last, at some 2 KiB each; that
                is a request less for each call and object. The facts are as old as that, the bytes are not.

        Yields:
            Facts about the object, and the bytes, in this order.

        Raises:
            NotFoundError: An object is not there.
            WrongSizeError: One ends before.
        """
        num_done = num_bytes = 0
        retries = self._pool.retries(self.location)
        while num_done < len(parts):
            left = [(path_in(self._pool.folder, name), start, stop) for name, start, stop in parts[num_done:]]
            try:
                with self._pool.process() as process:
                    request = {"do": "parts", "parts": left, "clip": clip, "keep": keep}
                    for said, data in iter_parts(process.ask(request)):
                        self._pool.was_answered = True
                        num_bytes += len(data)
                        retries.came_to(num_bytes)
                        name = parts[num_done][0]
                        num_done += 1
                        yield ObjectFacts(name, said["size"], said["modified"], said["etag"]), data
            except StoreError as error:
                retries.where = self._pool.where(parts[num_done][0])
                self._pool.raise_if_permanent(error, where=retries.where)
                self._pool.wait(retries, error)

    def put(self, name: str, source: bytes | Path) -> None:
        """Writes an object: bytes, or what a local file holds, by one upload; before its end there is nothing of it.

        Raises:
            OutputError: The server refuses it, or fails for good.
        """
        path = path_in(self._pool.folder, name)
        if isinstance(source, bytes):
            request, data = {"do": "put", "path": path, "num_bytes": len(source)}, source
        else:
            request, data = {"do": "put", "path": path, "source": str(source)}, b""

        def attempt(process: StoreProcess) -> None:
            try:
                for _ in process.ask(request, data=data, patience=_MANY_SECONDS):
                    pass
            except StoreError as error:
                error.is_answer = False  # the process ends
                raise

        self._change(name, attempt)

    def delete(self, names: Iterable[str]) -> None:
        """Deletes objects, in this order; what is not there is passed over.

        Raises:
            OutputError: The server refuses it, or fails for good.
        """
        paths = [path_in(self._pool.folder, name) for name in names]

        def attempt(process: StoreProcess) -> None:
            for _ in process.ask({"do": "delete", "paths": paths}):
                del paths[0]

        if paths:
            self._change("", attempt)

    def clear(self, name: str) -> None:
        """Deletes all objects below a folder, a thousand by one request.

        Raises:
            OutputError: The server refuses it, or fails for good.
        """
        path = path_in(self._pool.folder, name)
        self._change(name, lambda process: list(process.ask({"do": "clear", "path": path}, patience=_MANY_SECONDS)))

    def _change(self, name: str, attempt: Callable[[StoreProcess], Any]) -> None:
        try:
            self._pool.run(name, attempt, advice=_ADVICE_IF_NOT_WRITTEN)
        except DownloadError as error:
            raise OutputError(str(error)) from error

    def close(self) -> None:
        """Ends the processes that wait for something to do."""
        self._pool.close()
