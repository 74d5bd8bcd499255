"""Folders in S3 and in Google Cloud Storage, read by processes of their own; see `bertdata.store_reader` for why."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

from bertdata import store_reader
from bertdata.errors import ConfigError, DownloadError
from bertdata.remote import ADVICE, ADVICE_IF_REFUSED, location_of, options_in, path_in
from bertdata.retries import Retries, WrongSizeError
from bertdata.web import NotFoundError

__all__ = ["ObjectFolder"]

PIECE_BYTES = 1 << 22
_MAX_FAILURES_AT_FIRST = 2  # before the server has answered at all: its name may be wrong
_START_SECONDS = 60.0  # of a process on a busy machine
_READ_BYTES = 1 << 18
_ALLOWED = {
    "s3": ("endpoint_override", "scheme", "region", "anonymous"),
    "gs": ("endpoint_override", "scheme", "anonymous"),
}

# It must find the same libraries, and none of the modules beside it, whose names are those of others.
_START = """
import json, runpy, sys
sys.path[:] = json.loads(sys.argv.pop())
runpy.run_path(sys.argv.pop(), run_name="__main__")
"""

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


class ObjectFolder:
    """A folder in an object store, see `bertdata.remote.RemoteFolder`. Threads may share it; processes may not.

    Args:
        uri: Its s3:// or gs:// URI.
        timeout: As that of `bertdata.remote.open_remote`, and so are the others.
    """

    def __init__(self, uri: str, *, timeout: float, max_failures: int, sleep: Callable[[float], None]) -> None:
        parts = urllib.parse.urlsplit(uri)
        if "@" in parts.netloc or not parts.netloc:
            raise ConfigError(
                f"{location_of(uri)}: it must be {parts.scheme}://bucket/folder; credentials come from the environment"
            )
        self.location = location_of(uri)
        self._scheme, self._bucket = parts.scheme, parts.netloc
        self._folder = f"{parts.netloc}/{urllib.parse.unquote(parts.path).strip('/')}".rstrip("/")
        self._options = options_in(uri, allowed=_ALLOWED[parts.scheme])
        self._timeout = timeout
        self._max_failures = max_failures
        self._sleep = sleep
        self._was_answered = False
        self._idle: list[_Reader] = []
        self._lock = threading.Lock()

    def iter_bytes(self, name: str, *, num_bytes: int | None = None) -> Iterator[tuple[int, bytes]]:
        """See `bertdata.remote.RemoteFolder.iter_bytes`."""
        where, path = f"{self.location}/{name}", path_in(self._folder, name)
        retries = Retries(where=where, max_failures=self._max_failures, advice=ADVICE, sleep=self._sleep)
        position = 0
        while True:
            try:
                for part in self._read(path, position):
                    self._was_answered = True
                    if isinstance(part, bytes):
                        yield position, part
                        position += len(part)
                        retries.came_to(position)
                    elif num_bytes is not None and part != num_bytes:
                        raise WrongSizeError(f"{where} has {part:,} bytes, not {num_bytes:,}")
                    else:
                        num_bytes = part
                if position == num_bytes:
                    return
                problem = f"the connection ended at byte {position:,} of {num_bytes or 0:,}"
            except _StoreError as error:
                problem = str(error)
                self._raise_if_permanent(error, where=where)
            retries.wait(problem, max_failures=None if self._was_answered else _MAX_FAILURES_AT_FIRST)

    def _raise_if_permanent(self, error: _StoreError, *, where: str) -> None:
        """Raises DownloadError for what another try does not change; there are only messages to tell it by."""
        message = str(error)
        if not error.has_bucket or re.search(r"Bucket '.*' not found", message):
            raise NotFoundError(f"{where}: there is no bucket {self._bucket}; {ADVICE_IF_REFUSED}") from error
        if error.kind == "FileNotFoundError" or "Not a regular file" in message:
            raise NotFoundError(f"{where}: nothing is there") from error
        status = [int(found) for found in _STATUS.findall(message)]
        if (
            error.kind == "PermissionError"
            or any(300 <= code < 500 and code not in _TRANSIENT_STATUS for code in status)
            or not _PERMANENT_AWS_ERRORS.isdisjoint(_AWS_ERROR.findall(message))
        ):
            raise DownloadError(f"{where}: access is refused ({message}); {ADVICE_IF_REFUSED}") from error

    def _read(self, path: str, position: int) -> Iterator[bytes | int]:
        """Yields the size of an object, then its bytes from `position` on."""
        with self._lock:
            reader = self._idle.pop() if self._idle else None
        reader = reader or self._start()
        is_whole = False
        try:
            yield from reader.read(path, position)
            is_whole = True
        except _StoreError as error:
            is_whole = error.is_answer
            raise
        finally:
            if is_whole:
                with self._lock:
                    self._idle.append(reader)
            else:
                reader.kill()

    def _start(self) -> _Reader:
        options = self._options | {
            "scheme_of_store": self._scheme,
            "bucket": self._bucket,
            "timeout": self._timeout,
            "piece_bytes": PIECE_BYTES,
        }
        # S3's client has a time-out of its own, for bytes that come; here whole pieces are waited for.
        return _Reader(json.dumps(options), timeout=self._timeout * 2 + 10 if self._scheme == "s3" else self._timeout)

    def close(self) -> None:
        """Ends the processes that wait for something to read."""
        with self._lock:
            idle, self._idle = self._idle, []
        for reader in idle:
            reader.kill()


class _StoreError(Exception):
    """A request failed.

    Attributes:
        kind: Name of the exception.
        has_bucket: Whether the bucket is there, as far as is known.
        is_answer: Whether it was answered so, and the process can go on.
    """

    def __init__(self, message: str, *, kind: str = "", has_bucket: bool = True, is_answer: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.has_bucket = has_bucket
        self.is_answer = is_answer


class _Reader:
    """A process that reads objects, one at a time."""

    def __init__(self, options: str, *, timeout: float) -> None:
        paths = json.dumps([path for path in sys.path if isinstance(path, str)])
        command = [sys.executable, "-c", _START, options, str(Path(store_reader.__file__)), paths]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self._timeout = timeout
        self._is_ready = False

    def read(self, path: str, position: int) -> Iterator[bytes | int]:
        """Yields the size of an object, then its bytes from `position` on.

        Raises:
            _StoreError: The store says no, or nothing for too long.
        """
        assert self._process.stdin is not None
        if not self._is_ready:
            b"".join(self._take(store_reader.FRAME.size, timeout=_START_SECONDS))
            self._is_ready = True
        try:
            self._process.stdin.write(json.dumps({"path": path, "position": position}).encode() + b"\n")
        except OSError as error:
            raise _StoreError(f"the process that reads it is gone ({error})") from error
        while True:
            kind, length = store_reader.FRAME.unpack(b"".join(self._take(store_reader.FRAME.size)))
            if kind == b"D":
                yield from self._take(length)
                continue
            data = b"".join(self._take(length))
            if kind == b"S":
                yield int(data)
            elif kind == b"E":
                return
            else:
                said = json.loads(data)
                raise _StoreError(said["message"], kind=said["error"], has_bucket=said["has_bucket"], is_answer=True)

    def _take(self, num_bytes: int, *, timeout: float | None = None) -> Iterator[bytes]:
        """Yields so many bytes of what the process says, as they come."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        timeout = self._timeout if timeout is None else timeout
        while num_bytes:
            if not poll.poll(timeout * 1000):
                raise _StoreError(f"no byte came in {timeout:g} s")
            data = os.read(descriptor, min(num_bytes, _READ_BYTES))
            if not data:
                raise _StoreError(f"the process that reads it ended with {self._process.wait()}")
            num_bytes -= len(data)
            yield data

    def kill(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
