"""Folders in S3 and in Google Cloud Storage, through `pyarrow.fs`."""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import pyarrow.fs

from bertdata.errors import ConfigError, DownloadError
from bertdata.remote import ADVICE, ADVICE_IF_REFUSED, location_of, options_in, path_in
from bertdata.retries import Retries, WrongSizeError
from bertdata.web import NotFoundError

__all__ = ["ObjectFolder", "open_store"]

Result = TypeVar("Result")

PIECE_BYTES = 1 << 23
_MAX_FAILURES_AT_FIRST = 2  # before the server has answered at all: its name may be wrong
_GCS_RETRY_SECONDS = 2  # within the library, whose waits cannot be cut short; all further tries are ours
_GCS_READ_BYTES = 1 << 20

_STATUS = re.compile(r"HTTP status (?:code: )?(\d{3})")
_TRANSIENT_STATUS = (408, 425, 429)
_AWS_ERROR = re.compile(r"AWS Error ([A-Z_]+)")
_PERMANENT_AWS_ERRORS = frozenset(
    (
        *("ACCESS_DENIED", "NO_SUCH_BUCKET", "NO_SUCH_KEY", "RESOURCE_NOT_FOUND", "INVALID_ACCESS_KEY_ID"),
        *("INVALID_CLIENT_TOKEN_ID", "SIGNATURE_DOES_NOT_MATCH", "INVALID_SIGNATURE", "UNRECOGNIZED_CLIENT"),
        *("MISSING_AUTHENTICATION_TOKEN", "REQUEST_EXPIRED", "OPT_IN_REQUIRED", "INVALID_OBJECT_STATE", "VALIDATION"),
    )
)


def open_store(uri: str, *, timeout: float, max_failures: int, sleep: Callable[[float], None]) -> ObjectFolder:
    """Opens a folder by its s3:// or gs:// URI; see `bertdata.remote.open_remote`."""
    parts = urllib.parse.urlsplit(uri)
    if "@" in parts.netloc or not parts.netloc:
        raise ConfigError(
            f"{location_of(uri)}: it must be {parts.scheme}://bucket/folder; credentials come from the environment"
        )
    kind = _S3Folder if parts.scheme == "s3" else _GcsFolder
    return kind(uri, timeout=timeout, max_failures=max_failures, sleep=sleep)


class ObjectFolder:
    """A folder in an object store, see `bertdata.remote.RemoteFolder`."""

    allowed: tuple[str, ...]

    def __init__(self, uri: str, *, timeout: float, max_failures: int, sleep: Callable[[float], None]) -> None:
        parts = urllib.parse.urlsplit(uri)
        self.location = location_of(uri)
        self._bucket = parts.netloc
        self._folder = f"{parts.netloc}/{urllib.parse.unquote(parts.path).strip('/')}".rstrip("/")
        self._options = options_in(uri, allowed=self.allowed)
        self._timeout = timeout
        self._max_failures = max_failures
        self._sleep = sleep
        self._was_answered = False
        self._opened: Any = None

    def iter_bytes(self, name: str, *, num_bytes: int | None = None) -> Iterator[tuple[int, bytes]]:
        """See `bertdata.remote.RemoteFolder.iter_bytes`."""
        where, path = f"{self.location}/{name}", path_in(self._folder, name)
        retries = Retries(where=where, max_failures=self._max_failures, advice=ADVICE, sleep=self._sleep)
        position = 0
        while True:
            try:
                store = self._opened = self._opened or self._open()
                for data, size in self._read(store, path, position):
                    self._was_answered = True
                    if num_bytes is not None and size is not None and size != num_bytes:
                        raise WrongSizeError(f"{where} has {size:,} bytes, not {num_bytes:,}")
                    num_bytes = size if num_bytes is None else num_bytes
                    if data:
                        yield position, data
                    position += len(data)
                    retries.came_to(position)
                if num_bytes is None or position >= num_bytes:
                    return
                problem = f"the connection ended at byte {position:,} of {num_bytes:,}"
            except OSError as error:
                problem = str(error)[:500]
                if _is_missing(error):
                    raise self._missing(where) from error
                if isinstance(error, PermissionError) or _is_permanent(problem):
                    raise DownloadError(f"{where}: access is refused ({problem}); {ADVICE_IF_REFUSED}") from error
            retries.wait(problem, max_failures=None if self._was_answered else _MAX_FAILURES_AT_FIRST)

    def _open(self) -> Any:
        """Returns the file system."""
        raise NotImplementedError

    def _read(self, store: Any, path: str, position: int) -> Iterator[tuple[bytes, int | None]]:
        """Yields the bytes of an object from `position` on, and its size where it is known; stops where they stop."""
        raise NotImplementedError

    def _missing(self, where: str) -> DownloadError:
        """Returns the error of an object that is not there; a bucket that is not there looks the same at first."""
        not_found, kind = pyarrow.fs.FileType.NotFound, None
        with contextlib.suppress(OSError):  # then it is not known which of both is missing
            # Without a file system, it was the bucket's region that could not be found.
            kind = not_found if self._opened is None else self._opened.get_file_info(self._bucket).type
        if kind == not_found:
            return NotFoundError(f"{where}: there is no bucket {self._bucket}; {ADVICE_IF_REFUSED}")
        return NotFoundError(f"{where}: nothing is there")


def _is_missing(error: OSError) -> bool:
    message = str(error)
    is_folder, is_no_bucket = "Not a regular file" in message, re.search(r"Bucket '.*' not found", message)
    return isinstance(error, FileNotFoundError) or is_folder or is_no_bucket is not None


def _is_permanent(message: str) -> bool:
    """Returns whether an error of a store stays, by what its message says; there is nothing else to go by."""
    status = [int(found) for found in _STATUS.findall(message)]
    if any(300 <= code < 500 and code not in _TRANSIENT_STATUS for code in status):
        return True
    return not _PERMANENT_AWS_ERRORS.isdisjoint(_AWS_ERROR.findall(message))


class _S3Folder(ObjectFolder):
    """Reads ranges: each is one request, and fails after `timeout` seconds without a byte."""

    allowed = ("endpoint_override", "scheme", "region", "anonymous")

    def _open(self) -> Any:
        endpoint = self._options.get("endpoint_override") or os.environ.get(
            "AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL", "")
        )
        scheme, _, host = endpoint.rpartition("://")
        region = self._options.get("region")
        if region is None:
            # Stores of others mostly do not look at it; Amazon's has to be asked where the bucket is.
            region = "us-east-1" if host else pyarrow.fs.resolve_s3_region(self._bucket)
        return pyarrow.fs.S3FileSystem(
            anonymous=self._options.get("anonymous") == "true",
            region=region,
            scheme=self._options.get("scheme") or scheme or "https",
            endpoint_override=host.rstrip("/") or None,
            request_timeout=self._timeout,
            connect_timeout=min(self._timeout, 10.0),
            retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=1),  # all further tries are ours
        )

    def _read(self, store: Any, path: str, position: int) -> Iterator[tuple[bytes, int | None]]:
        with store.open_input_file(path) as file:
            size = file.size()
            yield b"", size
            while position < size:
                data = _read_whole(file, min(PIECE_BYTES, size - position), position)
                yield data, size
                position += len(data)


def _read_whole(file: Any, num_bytes: int, position: int) -> bytes:
    """Reads a range of an object.

    `pyarrow` takes an answer that is too short for whole, and gives whatever stood in memory for the rest. So the last
    byte is set before; where it has not changed, the range is read once more with another one.

    Raises:
        OSError: Too few bytes came.
    """
    for mark in (0x5A, 0xA5):
        data = bytearray(num_bytes)
        data[-1] = mark
        file.seek(position)
        if file.readinto(data) == num_bytes and data[-1] != mark:
            return bytes(data)
    raise OSError(f"fewer than {num_bytes:,} bytes came from byte {position:,} on")


class _GcsFolder(ObjectFolder):
    """Reads a stream: `pyarrow`'s files at places hold Python's lock while they wait for the server.

    A stream that broke off begins anew, and what came already is skipped; the library itself continues those that break
    off within seconds.
    """

    allowed = ("endpoint_override", "scheme", "anonymous")

    def _open(self) -> Any:
        endpoint = self._options.get("endpoint_override")
        return pyarrow.fs.GcsFileSystem(
            anonymous=self._options.get("anonymous") == "true",
            scheme=self._options.get("scheme"),
            endpoint_override=endpoint,
            retry_time_limit=datetime.timedelta(seconds=_GCS_RETRY_SECONDS),
        )

    def _read(self, store: Any, path: str, position: int) -> Iterator[tuple[bytes, int | None]]:
        size = self._within_time(lambda: store.get_file_info(path).size)
        if size is None:
            raise FileNotFoundError(errno.ENOENT, "no such object", path)
        yield b"", size
        stream = self._within_time(lambda: store.open_input_stream(path))
        skipped = 0
        while data := self._within_time(lambda: stream.read(_GCS_READ_BYTES)):
            new = data[max(0, position - skipped) :]
            skipped += len(data)
            if new:
                yield new, size
                position += len(new)

    def _within_time(self, call: Callable[[], Result]) -> Result:
        """Returns what a call returns; it knows no time-out, so after that time it is left to itself."""
        results: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

        def run() -> None:
            try:
                results.put((call(), None))
            except BaseException as error:  # raised again below
                results.put((None, error))

        threading.Thread(target=run, daemon=True, name="gcs").start()
        try:
            result, error = results.get(timeout=self._timeout)
        except Empty:
            self._opened = None
            raise TimeoutError(f"no byte came in {self._timeout:g} s") from None
        if error is not None:
            raise error
        value: Result = result
        return value
