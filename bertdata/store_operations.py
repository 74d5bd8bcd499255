"""What the process of `bertdata.store_process` does with `pyarrow`. It imports nothing of this package.

Answers are frames of (kind, bytes or what goes through JSON), see there.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

Frame = tuple[bytes, Any]

_GCS_READ_BYTES = 1 << 20
_PUT_BYTES = 8 << 20
_LISTED_AT_ONCE = 1000
_THREADS = 8  # parts that are read at the same time; as many wait to be sent
_SECOND = 10**9


class Operations:
    """Answers requests.

    Args:
        store: The file system.
        piece_bytes: Bytes of a request for a part of a stream.
    """

    def __init__(self, store: Any, *, piece_bytes: int) -> None:
        self._store = store
        self._piece_bytes = piece_bytes
        self._parts = _Parts(store)

    def iter_answers(self, do: str, **request: Any) -> Iterator[Frame]:
        """Yields the frames that answer a request, but for the last."""
        if do == "stream":
            is_gcs = self._store.type_name == "gcs"
            stream = _stream_gcs if is_gcs else _stream_s3
            for part in stream(self._store, **request, piece_bytes=_GCS_READ_BYTES if is_gcs else self._piece_bytes):
                yield (b"S", str(part).encode()) if isinstance(part, int) else (b"D", part)
        elif do == "parts":
            yield from self._parts.iter_answers(**request)
        elif do == "facts":
            yield b"F", _facts_of(self._store, **request)
        elif do == "list":
            yield from _iter_listed(self._store, **request)
        elif do == "put":
            yield from _put(self._store, **request)
        elif do == "delete":
            yield from _delete(self._store, **request)
        elif do == "clear":
            # An empty object that stands for the folder goes, too; in S3 one for the folder above it comes.
            with contextlib.suppress(FileNotFoundError):
                self._store.delete_dir(request["path"])
        else:
            raise ValueError(f"there is no request {do!r}")


def _stream_s3(store: Any, path: str, position: int, *, piece_bytes: int) -> Iterator[bytes | bytearray | int]:
    """Yields the size of an object, then its bytes from `position` on; each piece is one request."""
    with store.open_input_file(path) as file:
        size = file.size()
        yield size
        while position < size:
            data = _read_whole(file, min(piece_bytes, size - position), position)
            yield data
            position += len(data)


def _stream_gcs(store: Any, path: str, position: int, *, piece_bytes: int) -> Iterator[bytes | bytearray | int]:
    """Yields the same from a stream, which starts with the first byte: files at places ask for all of it each time."""
    size = store.get_file_info(path).size
    if size is None:
        raise FileNotFoundError(f"there is no object {path}")
    yield size
    with store.open_input_stream(path, compression=None) as stream:
        skipped = 0
        while data := stream.read(piece_bytes):
            if len(data) > position - skipped:
                yield data[max(0, position - skipped) :]
            skipped += len(data)


class _Parts:
    """Reads parts of objects, several objects at once."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._opened: dict[str, _Opened] = {}  # those that were asked for last come last
        self._num_left: Counter[str] = Counter()

    def iter_answers(self, parts: list[tuple[str, int, int]], *, clip: bool, keep: int) -> Iterator[Frame]:
        """Yields the answer: facts and bytes of each part, in order."""
        self._num_left = Counter(path for path, _, _ in parts)
        again = {path: self._opened.pop(path) for path in self._num_left if keep and path in self._opened}
        while len(self._opened) + len(self._num_left) > keep and self._opened:
            del self._opened[next(iter(self._opened))]
        self._opened |= again
        with ThreadPoolExecutor(min(_THREADS, len(parts))) as pool:
            waiting: list[Future[list[Frame]]] = []
            try:
                for part in parts:
                    waiting.append(pool.submit(self._read, *part, clip=clip, keep=keep))
                    if len(waiting) > _THREADS:
                        yield from waiting.pop(0).result()
                while waiting:
                    yield from waiting.pop(0).result()
            except Exception:
                self._opened = {}
                raise
            finally:
                for future in waiting:
                    future.cancel()

    def _read(self, path: str, start: int, stop: int, *, clip: bool, keep: int) -> list[Frame]:
        with self._lock:
            opened = self._opened.setdefault(path, _Opened())
        with opened.lock:
            try:
                data = self._read_opened(opened, path, start, stop, clip=clip)
            except (OSError, EOFError):
                if opened.is_new:
                    raise
                opened.file = None  # it may have been written again, which Google's store calls another object
                data = self._read_opened(opened, path, start, stop, clip=clip)
        with self._lock:
            self._num_left[path] -= 1
            if self._num_left[path] == 0 and len(self._opened) > keep:
                self._opened.pop(path, None)
        return [(b"F", opened.facts | {"num_bytes": len(data)}), (b"D", data)]

    def _read_opened(self, opened: _Opened, path: str, start: int, stop: int, *, clip: bool) -> bytes | bytearray:
        opened.is_new = opened.file is None
        if opened.is_new:
            opened.file, opened.facts = _open_object(self._store, path)
        size = opened.facts["size"]
        if stop > size and not clip:
            raise EOFError(f"it has only {size:,} bytes")
        read = _read_whole_gcs if self._store.type_name == "gcs" else _read_whole
        return read(opened.file, max(0, min(stop, size) - start), start)


class _Opened:
    """An object that is open, for one thread at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.file: Any = None
        self.is_new = True  # for the part that is read now
        self.facts: dict[str, Any] = {}


def _open_object(store: Any, path: str) -> tuple[Any, dict[str, Any]]:
    """Opens an object; returns it and facts about it."""
    if store.type_name == "gcs":
        facts = _facts_of(store, path)
        return store.open_input_file(path), facts
    file = store.open_input_file(path)
    said = {name.lower(): value.decode() for name, value in file.metadata().items()}
    modified = datetime.datetime.fromisoformat(said["last-modified"].replace("Z", "+00:00"))
    facts = {"size": file.size(), "modified": int(modified.timestamp()) * _SECOND, "etag": said.get("etag", "")}
    return file, facts


def _facts_of(store: Any, path: str) -> dict[str, Any]:
    """Returns size, time of the last change and tag of an object."""
    if store.type_name != "gcs":
        return _open_object(store, path)[1]
    info = store.get_file_info(path)
    if info.size is None:
        raise FileNotFoundError(f"there is no object {path}")
    return {"size": info.size, "modified": info.mtime_ns, "etag": ""}


def _read_whole(file: Any, num_bytes: int, position: int) -> bytearray:
    """Reads a range of an object.

    `pyarrow` takes an answer that is too short for whole, and gives whatever stood in memory for the rest. So the last
    byte is set before; where it has not changed, the range is read once more with another one.

    Raises:
        OSError: Too few bytes came.
    """
    if not num_bytes:
        return bytearray()
    for mark in (0x5A, 0xA5):
        data = bytearray(num_bytes)
        data[-1] = mark
        file.seek(position)
        if file.readinto(data) == num_bytes and data[-1] != mark:
            return data
    raise OSError(f"fewer than {num_bytes:,} bytes came from byte {position:,} on")


def _read_whole_gcs(file: Any, num_bytes: int, position: int) -> bytes:
    """Reads a range of an object; by another method, since the one for S3 asks for all up to the object's end here.

    Raises:
        OSError: Too few bytes came.
    """
    data: bytes = file.read_at(num_bytes, position) if num_bytes else b""
    if len(data) != num_bytes:
        raise OSError(f"{len(data):,} of {num_bytes:,} bytes came from byte {position:,} on")
    return data


def _iter_listed(store: Any, path: str) -> Iterator[Frame]:
    """Yields the answer: what lies below a folder, or nothing."""
    import pyarrow.fs

    lines = []
    for info in store.get_file_info(pyarrow.fs.FileSelector(path, allow_not_found=True, recursive=True)):
        if info.type == pyarrow.fs.FileType.File:
            # A header tells whole seconds, so a list may not tell more.
            modified = info.mtime_ns if store.type_name == "gcs" else info.mtime_ns // _SECOND * _SECOND
            lines.append(json.dumps([info.path, info.size, modified]).encode() + b"\n")
        if len(lines) == _LISTED_AT_ONCE:
            yield b"D", b"".join(lines)
            lines = []
    yield b"D", b"".join(lines)


def _put(store: Any, path: str, *, source: str | None = None, data: bytes = b"") -> Iterator[Frame]:
    """Uploads a local file, or bytes; the object appears at the end, whole."""
    stream = store.open_output_stream(path, compression=None)  # else by the name
    if source is None:
        stream.write(data)
    else:
        with open(source, "rb") as file:  # noqa: PTH123
            num_left = os.fstat(file.fileno()).st_size
            while num_left:
                part = file.read(min(_PUT_BYTES, num_left))
                if not part:
                    raise OSError(f"{source} became shorter while it was uploaded")
                stream.write(part)
                num_left -= len(part)
                yield b"P", b""
    stream.close()


def _delete(store: Any, paths: list[str]) -> Iterator[Frame]:
    """Deletes objects."""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            store.delete_file(path)
        yield b"P", b""
