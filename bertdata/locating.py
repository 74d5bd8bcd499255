"""Where documents lie: which samples are made of a document, found by the keys that blocks store.

No index of keys is kept; one member of each block is read, a few per cent of a shard's bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bertdata.errors import ShardError
from bertdata.manifest import DataSet
from bertdata.shards import read_field

__all__ = ["Place", "find_document", "iter_document_keys"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A sample that has text of a document.

    Attributes:
        row: Row of the sample's block in `DataSet.index`.
        shard: Name of its shard.
        block: Number of its block in the shard.
        sample: Its number in the block.
        role: "A" where segment A is of the document (B may be too), "B" where only segment B is.
    """

    row: int
    shard: str
    block: int
    sample: int
    role: str


def iter_document_keys(data_set: DataSet) -> Iterator[tuple[int, npt.NDArray[np.uint64]]]:
    """Yields the documents of the samples of each block.

    Only these keys are read, so the blocks are not checked by their CRC-32.

    Yields:
        Row of the block in `data_set.index`; first 64 bits of the keys of A's and B's documents, uint64 [N, 2].

    Raises:
        ShardError: A shard is missing, truncated, or holds something else.
    """
    index = data_set.index
    for row in range(len(index)):
        path = data_set.folder / data_set.manifest.shards[int(index.shard[row])].name
        offset = int(index.offset[row])
        keys = read_field(path, offset=offset, num_bytes=int(index.num_bytes[row]), field="document_keys")
        if keys.shape != (index.num_samples[row], 2) or keys.dtype != np.uint64:
            raise ShardError(
                f"{path}, block at byte {offset}: document_keys has dtype {keys.dtype} and shape {keys.shape}, not "
                f"uint64 and {(int(index.num_samples[row]), 2)}; the shard is damaged, copy it again"
            )
        yield row, keys


def find_document(data_set: DataSet, key64: int) -> list[Place]:
    """Finds the samples that have text of a document.

    Args:
        data_set: Where to look.
        key64: First 64 bits of the document's key (see `bertdata.spill.document_key`).

    Returns:
        One place for each such sample, in the order in which they lie.

    Raises:
        ShardError: A shard is missing, truncated, or holds something else.
    """
    first_rows = np.searchsorted(data_set.index.shard, np.arange(len(data_set.manifest.shards)))
    places = []
    for row, keys in iter_document_keys(data_set):
        is_own = keys == np.uint64(key64)
        number = int(data_set.index.shard[row])
        places += [
            Place(
                row=row,
                shard=data_set.manifest.shards[number].name,
                block=row - int(first_rows[number]),
                sample=sample,
                role="A" if is_own[sample, 0] else "B",
            )
            for sample in np.flatnonzero(is_own.any(axis=1)).tolist()
        ]
    return places
