"""Folders that a build writes to and reads from again: on this machine, or in an object store.

Every file appears whole or not at all, under a name that depends only on what it is; so writing one twice, also at the
same time, does no harm. Names are paths from the folder with forward slashes. Nothing is ever changed in place.

A folder is named by its *place*, a path or the URI of `bertdata.remote`. What is passed between processes is the place;
each process opens the folder anew. Reading costs a request per range in an object store, so what is needed of many
files is asked for at once: `read_many` has many requests under way, and gives the parts in the order asked for.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from bertdata.files import open_atomically, open_plain_file, remove_durably
from bertdata.uris import is_uri

__all__ = ["Folder", "LocalFolder", "child_place", "open_folder"]


class Folder(Protocol):
    """A folder."""

    @property
    def place(self) -> str:
        """What `open_folder` opens it by."""

    @property
    def location(self) -> str:
        """What it is called in messages: its path, or its URI without what may be a secret."""

    @property
    def local(self) -> Path:
        """A folder on this machine for what is not to be kept: logs, what processes are at.

        It is the folder itself where that is on this machine, and need not be there yet where it is not.
        """

    def child(self, name: str) -> Folder:
        """Returns a folder within it."""

    def names(self, folder: str = "") -> list[str]:
        """Returns the names of the files in `folder`, not of those below, from this folder on, sorted."""

    def size(self, name: str) -> int | None:
        """Returns the bytes of a file; None where it is not there."""

    def has(self, name: str) -> bool:
        """Returns whether a file is there."""

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

    def read_many(self, parts: Iterable[tuple[str, int, int]]) -> Iterator[bytes]:
        """Yields parts of many files, each by its name, first byte and the byte after the last, in the order given.

        Raises:
            FileNotFoundError: One is not there.
            OSError: One cannot be read, or ends before.
        """

    def write(self, name: str, data: bytes) -> None:
        """Writes a file."""

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """Opens a file for writing that appears under its name only at the end; after an exception nothing is left."""

    def remove(self, names: Iterable[str]) -> None:
        """Removes those of the files that are there, in this order, for good."""

    def clear(self, *, keep: Sequence[str] = ()) -> None:
        """Removes what is in it and below, but the files `keep`; all of it, where there are none."""

    def remove_if_empty(self) -> None:
        """Removes the folder itself where nothing is in it."""

    def sweep(self, *, recursive: bool = False) -> None:
        """Removes the temporary files that killed processes left in it, and below."""


class LocalFolder:
    """A folder on this machine, see `Folder`; folders on the way to a file are made when it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def place(self) -> str:
        """See `Folder`."""
        return str(self.path)

    location = place

    @property
    def local(self) -> Path:
        """See `Folder`."""
        return self.path

    def child(self, name: str) -> LocalFolder:
        """See `Folder`."""
        return LocalFolder(self.path / name)

    def names(self, folder: str = "") -> list[str]:
        """See `Folder`; temporary files are not among them."""
        start = f"{folder}/" if folder else ""
        try:
            with os.scandir(self.path / folder) as entries:
                found = [entry.name for entry in entries if not entry.name.endswith(".tmp") and entry.is_file()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(start + name for name in found)

    def size(self, name: str) -> int | None:
        """See `Folder`."""
        try:
            return (self.path / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def has(self, name: str) -> bool:
        """See `Folder`."""
        return (self.path / name).exists()

    def read(self, name: str) -> bytes:
        """See `Folder`."""
        return (self.path / name).read_bytes()

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """See `Folder`."""
        with open_plain_file(self.path / name) as (descriptor, num_bytes):
            parts = [os.pread(descriptor, stop - start, start) for start, stop in ranges]
        # A range of no bytes past the end is one too many, too, as it is in an object store.
        if any(
            stop > num_bytes or len(part) != stop - start for part, (start, stop) in zip(parts, ranges, strict=True)
        ):
            raise OSError(f"{self.path / name} has only {num_bytes:,} bytes")
        return parts

    def read_many(self, parts: Iterable[tuple[str, int, int]]) -> Iterator[bytes]:
        """See `Folder`."""
        for name, start, stop in parts:
            yield from self.read_ranges(name, [(start, stop)])

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

    def clear(self, *, keep: Sequence[str] = ()) -> None:
        """See `Folder`."""
        for path in self.path.glob("*"):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in keep:
                path.unlink()
        if not keep and self.path.exists():
            self.path.rmdir()

    def remove_if_empty(self) -> None:
        """See `Folder`."""
        if self.path.exists() and not any(self.path.iterdir()):
            self.path.rmdir()

    def sweep(self, *, recursive: bool = False) -> None:
        """See `Folder`."""
        for path in self.path.rglob("*.tmp") if recursive else self.path.glob("*.tmp"):
            path.unlink()


def open_folder(place: str | Path) -> Folder:
    """Returns the folder at a path or URI; nothing is made or fetched yet.

    Raises:
        ConfigError: It is a URI of a kind that is not written to, or has a wrong option.
    """
    if not is_uri(place):
        return LocalFolder(Path(place))
    # Only what lies elsewhere needs all that reaches it.
    from bertdata.store_folder import StoreFolder

    return StoreFolder(str(place))


def child_place(place: str, name: str) -> str:
    """Returns the place of a folder within another one."""
    if not is_uri(place):
        return str(Path(place) / name)
    path, question, query = place.partition("?")
    return f"{path.rstrip('/')}/{name}{question}{query}"
