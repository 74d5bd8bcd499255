"""Files that are there whole or not at all: written under a temporary name, synced, renamed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["file_sha256", "open_atomically", "remove_durably", "write_atomically"]


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
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
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
    """Returns the SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()
