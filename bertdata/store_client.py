"""A process that talks to an object store, seen from this one; see `bertdata.store_process` for why there is one."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bertdata import store_process

__all__ = ["StoreError", "StoreProcess", "coalesce", "cut", "iter_parts"]

_START_SECONDS = 60.0  # of a process on a busy machine
_READ_BYTES = 1 << 18
NEAR_BYTES = 1 << 18
_MAX_PART_BYTES = 1 << 23

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


class StoreError(Exception):
    """A request failed.

    Attributes:
        kind: Name of the exception.
        has_bucket: Whether the bucket is there, as far as is known.
        is_answer: Whether it was answered so, and the process can go on.
    """

    def __init__(self, message: str, *, kind: str = "", has_bucket: bool = True, is_answer: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.has_bucket = has_bucket and not re.search(r"Bucket '.*' not found", message)
        self.is_answer = is_answer

    @property
    def is_missing(self) -> bool:
        """Whether there is no such object."""
        return self.kind == "FileNotFoundError" or "Not a regular file" in str(self)

    @property
    def is_refusal(self) -> bool:
        """Whether another try changes nothing; there are only messages to tell it by."""
        status = [int(found) for found in _STATUS.findall(str(self))]
        return (
            self.kind == "PermissionError"
            or any(300 <= code < 500 and code not in _TRANSIENT_STATUS for code in status)
            or not _PERMANENT_AWS_ERRORS.isdisjoint(_AWS_ERROR.findall(str(self)))
        )


_processes: weakref.WeakSet[StoreProcess] = weakref.WeakSet()


def _forget_in_child() -> None:
    """Closes, in a fork, what its parent's processes would not end without while the fork goes on."""
    for process in list(_processes):
        process.close_pipes()


os.register_at_fork(after_in_child=_forget_in_child)


class StoreProcess:
    """A process that answers requests, one after the other.

    Args:
        options: What it is started with, as JSON.
        timeout: Seconds without a word from it after which it is given up.
    """

    def __init__(self, options: str, *, timeout: float) -> None:
        paths = json.dumps([path for path in sys.path if isinstance(path, str)])
        command = [sys.executable, "-c", _START, options, str(Path(store_process.__file__)), paths]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self._timeout = timeout
        self._is_ready = False
        _processes.add(self)

    def ask(self, request: dict[str, Any], *, data: bytes = b"", patience: float = 0.0) -> Iterator[tuple[bytes, Any]]:
        """Yields the answer to a request; it must be taken to its end before the next one.

        Args:
            request: See `bertdata.store_process`.
            data: What follows it.
            patience: Seconds that this answer may keep silent, where these are more than usual.

        Yields:
            (kind of the frame, its bytes as they come, or its values).

        Raises:
            StoreError: The store says no, or nothing for too long.
        """
        self.send(request, data=data)
        return self.answer(patience=patience)

    def send(self, request: dict[str, Any], *, data: bytes = b"") -> None:
        """Sends a request; another one may be sent before its answer is taken."""
        if not self._is_ready:
            b"".join(self._take(store_process.FRAME.size, timeout=_START_SECONDS))
            self._is_ready = True
        assert self._process.stdin is not None
        try:
            for part in (json.dumps(request).encode() + b"\n", data):
                view = memoryview(part)
                while view:
                    view = view[self._process.stdin.write(view) :]
        except OSError as error:
            raise StoreError(f"the process that asks for it is gone ({error})") from error

    def answer(self, *, patience: float = 0.0) -> Iterator[tuple[bytes, Any]]:
        """Yields the answer to the first request that has got none; see `ask`."""
        timeout = max(self._timeout, patience)
        while True:
            kind, length = store_process.FRAME.unpack(b"".join(self._take(store_process.FRAME.size, timeout=timeout)))
            if kind == b"D":
                for part in self._take(length, timeout=timeout):
                    yield kind, part
                continue
            data = b"".join(self._take(length, timeout=timeout))
            if kind == b"E":
                return
            if kind == b"X":
                said = json.loads(data)
                raise StoreError(said["message"], kind=said["error"], has_bucket=said["has_bucket"], is_answer=True)
            yield kind, json.loads(data or b"null")

    def _take(self, num_bytes: int, *, timeout: float) -> Iterator[bytes]:
        """Yields so many bytes of what the process says, as they come."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while num_bytes:
            if not poll.poll(timeout * 1000):
                raise StoreError(f"no byte came in {timeout:g} s")
            data = os.read(descriptor, min(num_bytes, _READ_BYTES))
            if not data:
                raise StoreError(f"the process that asks for it ended with {self._process.wait()}")
            num_bytes -= len(data)
            yield data

    def kill(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        self.close_pipes()

    def close_pipes(self) -> None:
        """Closes what leads to the process, and from it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def coalesce(ranges: Iterable[tuple[int, int]], *, near_bytes: int = NEAR_BYTES) -> list[tuple[int, int]]:
    """Returns ranges, sorted, with those put together that are at most `near_bytes` apart; empty ones are left out."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if stop <= start:
            continue
        if merged and start - merged[-1][1] <= near_bytes:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def cut(start: int, stop: int) -> list[tuple[int, int]]:
    """Returns a range in pieces that are not too large to be held by both processes."""
    return [(first, min(stop, first + _MAX_PART_BYTES)) for first in range(start, stop, _MAX_PART_BYTES)]


def iter_parts(answer: Iterable[tuple[bytes, Any]]) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yields (facts, bytes) of each part in the answer to a request for parts."""
    said: dict[str, Any] = {}
    data: list[bytes] = []
    for kind, value in answer:
        if kind == b"F":
            said, data = value, []
            left = said["num_bytes"]
        else:
            data.append(value)
            left -= len(value)
        if not left:
            yield said, b"".join(data)
