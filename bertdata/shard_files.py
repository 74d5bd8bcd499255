"""Where the shards of a data set are read from: its folder, or a cache of those that lie elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bertdata.manifest import ShardEntry

__all__ = ["LocalShards", "ShardFiles"]


class ShardFiles(Protocol):
    """Gives the file of a shard. Threads may share it, and it can be pickled."""

    @property
    def max_bytes(self) -> int | None:
        """Bytes of shards that are kept at most; None where all are there."""

    def open(self, shard: ShardEntry) -> AbstractContextManager[Path]:
        """Returns a context that gives a whole local file, which cannot go away while the context lasts.

        Raises:
            BertDataError: It cannot be had.
        """

    def discard(self, shard: ShardEntry) -> bool:
        """Throws the local copy of a shard away, since what was read of it is damaged.

        Returns:
            Whether it will be fetched again; False where there is nowhere to fetch it from.
        """

    def prefetch(self, shards: Sequence[ShardEntry]) -> None:
        """Says which shards are needed soon, in that order, instead of what was said before; returns at once."""

    def close(self) -> None:
        """Ends what goes on in the background."""


@dataclass(frozen=True, slots=True)
class LocalShards:
    """The shards in a folder.

    Attributes:
        folder: Folder of the data set.
    """

    folder: Path

    @property
    def max_bytes(self) -> None:
        """None: all are there."""

    @contextmanager
    def open(self, shard: ShardEntry) -> Iterator[Path]:
        """Gives the file in the folder; whether it is whole, who reads it finds out."""
        yield self.folder / shard.name

    def discard(self, shard: ShardEntry) -> bool:  # noqa: ARG002
        """Returns False: the file in the folder is all there is."""
        return False

    def prefetch(self, shards: Sequence[ShardEntry]) -> None:
        """Does nothing: all are there."""

    def close(self) -> None:
        """Does nothing."""
