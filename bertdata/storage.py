"""Folders that a build writes to and reads from again: on this machine, or in an object store.

Every file appears whole or not at all, under a name that depends only on what it is; so writing one twice, also at the
same time, does no harm. Names are paths from the folder with forward slashes. Nothing is ever changed in place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from bertdata.files import open_atomically, open_plain_file, remove_durably

__all__ = ["Folder", "LocalFolder"]


class Folder(Protocol):
    """A folder.

    Attributes:
        location: What it is called in messages: its path or URI.
    """

    location: str

    def child(self, name: str) -> Folder:
        """Returns a folder within it."""

    def names(self, folder: str = "") -> list[str]:
        """Returns the names of all files in `folder` and below, from this folder on, sorted; none where it is not."""

    def size(self, name: str) -> int | None:
        """Returns the bytes of a file; None where it is not there."""

    def read(self, name: str) -> bytes:
        """Returns the content of a file.

        Raises:
            FileNotFoundError: It is not there.
            OSError: It cannot be read.
        """

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Returns parts of a file, each from its first byte up to before its second; exactly so many bytes.

        Raises:
            FileNotFoundError: It is not there.
            OSError: It cannot be read, or ends before.
        """

    def write(self, name: str, data: bytes) -> None:
        """Writes a file."""

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Opens a file for writing that appears under its name only at the end; after an exception nothing is left."""

    def remove(self, names: Iterable[str]) -> None:
        """Removes those of the files that are there, in this order, for good."""


class LocalFolder:
    """A folder on this machine, see `Folder`; folders on the way to a file are made when it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.location = str(path)

    def child(self, name: str) -> LocalFolder:
        """See `Folder`."""
        return LocalFolder(self.path / name)

    def names(self, folder: str = "") -> list[str]:
        """See `Folder`; temporary files are not among them."""
        found = (path for path in (self.path / folder).rglob("*") if path.is_file() and path.suffix != ".tmp")
        return sorted(path.relative_to(self.path).as_posix() for path in found)

    def size(self, name: str) -> int | None:
        """See `Folder`."""
        try:
            return (self.path / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, name: str) -> bytes:
        """See `Folder`."""
        return (self.path / name).read_bytes()

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """See `Folder`."""
        with open_plain_file(self.path / name) as (descriptor, num_bytes):
            parts = [os.pread(descriptor, stop - start, start) for start, stop in ranges]
        if any(len(part) != stop - start for part, (start, stop) in zip(parts, ranges, strict=True)):
            raise OSError(f"{self.path / name} has only {num_bytes:,} bytes")
        return parts

    def write(self, name: str, data: bytes) -> None:
        """See `Folder`."""
        with self.create(name) as file:
            file.write(data)

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """See `Folder`."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_atomically(path) as file:
            yield file

    def remove(self, names: Iterable[str]) -> None:
        """See `Folder`."""
        remove_durably(self.path / name for name in names)
