"""Files that are there whole or not at all: written under a temporary name, synced, renamed. Reading has bounds."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "file_sha256",
    "open_atomically",
    "open_plain_file",
    "read_plain_file",
    "remove_durably",
    "write_atomically",
]


def _sync_folder(folder: Path) -> None:
    """Makes a rename or removal in `folder` last, too, when the power goes."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for writing that appears under its own name only at the end; after an exception nothing is left."""
    # Another name each time: two threads, or machines on one file system, may write the same file at once.
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a small file."""
    with open_atomically(path) as file:
        file.write(data)


def remove_durably(paths: Iterable[Path]) -> None:
    """Removes those of the files that are there, in the given order, so that they stay removed when the power goes."""
    there = [path for path in paths if path.exists()]
    for path in there:
        path.unlink()
    for folder in {path.parent for path in there}:
        _sync_folder(folder)


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a plain file, hexadecimal."""
    digest = hashlib.sha256()
    with open_plain_file(path) as (descriptor, _):
        while data := os.read(descriptor, 1 << 20):
            digest.update(data)
    return digest.hexdigest()


@contextmanager
def open_plain_file(path: Path | str) -> Iterator[tuple[int, int]]:
    """Opens a file for positioned reads; yields its descriptor and its size in bytes.

    Raises:
        OSError: It cannot be opened, or is a folder, a pipe or a device, from which one could read for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # to open a pipe would wait for who writes to it
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is no plain file")
        yield descriptor, status.st_size
    finally:
        os.close(descriptor)


def read_plain_file(path: Path | str, *, max_bytes: int) -> bytes:
    """Returns the content of a file.

    Raises:
        OSError: It cannot be read, is no plain file, or has more than `max_bytes`.
    """
    with open_plain_file(path) as (descriptor, num_bytes):
        if num_bytes > max_bytes:
            raise OSError(f"it has {num_bytes:,} bytes; at most {max_bytes:,} are allowed")
        return os.pread(descriptor, num_bytes, 0)
