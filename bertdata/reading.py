"""Reading samples back, one by one: for looking at data and for loops that need no speed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bertdata.blocks import Sample, iter_samples
from bertdata.data_set import open_data_set
from bertdata.errors import ShardError
from bertdata.shard_reading import iter_blocks
from bertdata.uris import is_uri

__all__ = ["read_samples"]


def read_samples(path: Path | str, *, split: str = "train") -> Iterator[Sample]:
    """Yields the samples of a data set or of one shard, in the order in which they lie.

    Args:
        path: Folder of a data set, see `bertdata.open_data_set`; or one local `.tar` file.
        split: "train" or "eval"; of a data set only.

    Raises:
        ShardError: The path is no data set or shard, or a block is damaged.
    """
    path = path if is_uri(path) else Path(path)
    if isinstance(path, Path) and path.suffix == ".tar":
        if not path.is_file():
            raise ShardError(f"{path} does not exist")
        for block in iter_blocks(path):
            yield from iter_samples(block)
        return
    data_set = open_data_set(path)
    blocks = data_set.blocks(split)
    for row in range(len(blocks)):
        yield from iter_samples(data_set.read(blocks, row))
