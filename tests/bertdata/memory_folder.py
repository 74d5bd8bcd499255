"""A folder in memory, for tests that write many files: nothing waits for a disk."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO


class MemoryFolder:
    """What of `bertdata.storage.Folder` runs and words need; keeps what was asked for.

    Attributes:
        files: Content by name.
        asked: (name, first byte, byte after the last) of every part that was read.
    """

    location = "memory"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, int, int]] = []

    def names(self, folder: str = "") -> list[str]:
        return sorted(name for name in self.files if name.startswith(f"{folder}/"))

    def read(self, name: str) -> bytes:
        return self.files[name]

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.asked += [(name, *part) for part in ranges]
        if name not in self.files:
            raise FileNotFoundError(2, "No such file", name)
        if any(stop > len(self.files[name]) for _, stop in ranges):
            raise OSError(f"{name} ends before")
        return [self.files[name][start:stop] for start, stop in ranges]

    def read_many(self, parts: Iterable[tuple[str, int, int]]) -> Iterator[bytes]:
        for name, start, stop in parts:
            yield self.read_ranges(name, [(start, stop)])[0]

    def write(self, name: str, data: bytes) -> None:
        self.files[name] = data

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        sink = io.BytesIO()
        yield sink
        self.files[name] = sink.getvalue()
