"""Overlap: documents that are in several data sets, found by the keys that their samples store.

    wiki      train  1f03... 7a01... c3d2...     eval  e94b...
    books     train  1f03... e94b...             eval  f00d...

Here 1f03... is in both and will be shown more often; e94b... is for training in one and for evaluation in the other,
so an evaluation would be on text that was trained on.

Keys are compared by their first 64 bits. The 8 bytes of each document of each data set are held in memory, and a few
times that while they are compared. The copies that --keep-duplicates keeps have keys of their own, so only the first of
them is found.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertdata.byte_progress import ByteProgress
from bertdata.data_set import DataSet
from bertdata.locating import iter_document_keys

__all__ = ["Overlap", "find_overlap", "overlap_rows"]

Keys = npt.NDArray[np.uint64]
_NUM_SHOWN = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlap:
    """The documents of some data sets, and those that several of them have.

    Attributes:
        names: Name of each data set.
        keys: Of each data set, the keys of the documents of each split: uint64, sorted, each once.
        num_documents: Different documents in all data sets.
        shared: uint64, sorted; documents that are in several data sets.
        leaked: uint64, sorted; documents that are for training in one and for evaluation in another.
    """

    names: Sequence[str]
    keys: Sequence[Mapping[str, Keys]]
    num_documents: int
    shared: Keys
    leaked: Keys

    def describe(self, keys: Keys) -> str:
        """Returns the first few documents of `keys` as text, with where they are."""
        texts = []
        for key in keys[:_NUM_SHOWN]:
            places = [
                f"{split} in {name}"
                for name, splits in zip(self.names, self.keys, strict=True)
                for split, own in splits.items()
                if key in own[np.searchsorted(own, key) :][:1]
            ]
            texts.append(f"{key:016x} ({', '.join(places)})")
        return "; ".join([*texts, "..."] if len(keys) > _NUM_SHOWN else texts)


def find_overlap(data_sets: Sequence[DataSet]) -> Overlap:
    """Reads the document keys of all data sets and compares them.

    Raises:
        ShardError: A shard is missing, truncated, or holds something else.
    """
    total = sum(int(data_set.index.num_bytes.sum()) for data_set in data_sets)
    with ByteProgress("reading document keys of", total=total) as progress:
        keys = [_read_keys(data_set, progress=progress) for data_set in data_sets]
    of_each = [_unique(list(splits.values())) for splits in keys]
    found, times = np.unique(np.concatenate(of_each), return_counts=True)
    train, held_out = (_unique([splits[split] for splits in keys]) for split in ("train", "eval"))
    return Overlap(
        names=[str(data_set.folder) for data_set in data_sets],
        keys=keys,
        num_documents=len(found),
        shared=found[times > 1],
        leaked=np.intersect1d(train, held_out, assume_unique=True),
    )


def _unique(parts: Sequence[npt.NDArray[Any]]) -> Keys:
    return np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *parts]))


def _read_keys(data_set: DataSet, *, progress: ByteProgress) -> dict[str, Keys]:
    """Returns the documents of each split. A shard's are put together first, so few are held more than once."""
    index = data_set.index
    parts: dict[str, list[Keys]] = {"train": [], "eval": []}
    for number, blocks in itertools.groupby(iter_document_keys(data_set), key=lambda block: int(index.shard[block[0]])):
        found = []
        for row, keys in blocks:
            found.append(keys.ravel())
            progress.advance(int(index.num_bytes[row]))
        parts[data_set.manifest.shards[number].split].append(_unique(found))
    return {split: _unique(keys) for split, keys in parts.items()}


def overlap_rows(overlap: Overlap) -> list[tuple[str, str]]:
    """Returns a table of what data sets have in common: what, and how much."""
    rows = [
        (f"documents of {name}", f"{len(splits['train']):,} training / {len(splits['eval']):,} evaluation")
        for name, splits in zip(overlap.names, overlap.keys, strict=True)
    ]
    share = len(overlap.shared) / max(overlap.num_documents, 1)
    rows.append(("in several", f"{len(overlap.shared):,} of {overlap.num_documents:,} ({share:.2%})"))
    rows += [("  for example", overlap.describe(overlap.shared))] * bool(len(overlap.shared))
    rows.append(("for training in one, evaluation in another", f"{len(overlap.leaked):,}"))
    rows += [("  for example", overlap.describe(overlap.leaked))] * bool(len(overlap.leaked))
    return rows
