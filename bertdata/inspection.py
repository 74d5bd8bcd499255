"""A look at samples: chosen by shard and number, as text for a terminal or as JSON for programs."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertdata.blocks import Sample, iter_samples
from bertdata.config import BuildOptions
from bertdata.data_set import DataSet
from bertdata.errors import ConfigError, ShardError
from bertdata.masking import with_mask_sets
from bertdata.painting import Painter

__all__ = [
    "SampleReader",
    "ShardSample",
    "describe_mask_set",
    "describe_place",
    "describe_sample",
    "iter_shard_samples",
    "sample_to_json",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardSample:
    """A sample, and where it lies.

    Attributes:
        shard: Name of its shard.
        block: Number of its block in the shard.
        sample: Its number in the block.
        sample_of_shard: Its number in the shard.
        content: The sample, with those of its mask sets that were asked for.
        mask_sets: The numbers of these.
        num_stored: Mask sets that the shard stores; where it stores none, they were drawn.
    """

    shard: str
    block: int
    sample: int
    sample_of_shard: int
    content: Sample
    mask_sets: tuple[int, ...]
    num_stored: int


class SampleReader:
    """Reads samples by the row of their block in the index; draws their mask sets where none are stored.

    Args:
        data_set: Where to read.
        mask_set: Number of the one mask set that is wanted; None for all that are stored, or the first one drawn.

    Raises:
        ConfigError: There is no mask set of that number.
    """

    def __init__(self, data_set: DataSet, *, mask_set: int | None = None) -> None:
        self._data_set = data_set
        self._options = BuildOptions.from_json(data_set.manifest.options)
        num_sets = self._options.masks.num_mask_sets
        if mask_set is not None and (mask_set < 0 or 0 < num_sets <= mask_set):
            allowed = f"this data set has the sets 0 to {num_sets - 1}" if num_sets else "it must be at least 0"
            raise ConfigError(f"--mask-set is {mask_set}; {allowed}")
        self._num_stored = num_sets
        self._wanted = tuple(range(max(1, num_sets))) if mask_set is None else (mask_set,)
        shards = data_set.index.shard
        self._first_rows = np.searchsorted(shards, np.arange(len(data_set.manifest.shards)))
        self._block: tuple[int, list[Sample]] | None = None

    def read(self, row: int, sample: int) -> ShardSample:
        """Reads one sample.

        Args:
            row: Row of its block in `DataSet.index`.
            sample: Its number in the block.

        Raises:
            ShardError: The block is damaged.
        """
        index = self._data_set.index
        shard = int(index.shard[row])
        first_row = int(self._first_rows[shard])
        content = self._read(row)[sample]
        if self._num_stored:
            content = dataclasses.replace(content, mask_sets=[content.mask_sets[number] for number in self._wanted])
        return ShardSample(
            shard=self._data_set.manifest.shards[shard].name,
            block=row - first_row,
            sample=sample,
            sample_of_shard=int(index.num_samples[first_row:row].sum()) + sample,
            content=content,
            mask_sets=self._wanted,
            num_stored=self._num_stored,
        )

    def _read(self, row: int) -> list[Sample]:
        """Reads the samples of a block, with mask sets as the trainer's loader has them; the last block is kept."""
        if self._block is None or self._block[0] != row:
            block = self._data_set.read(self._data_set.index, row)
            if not self._num_stored:
                vocabulary = self._data_set.load_vocabulary()
                block = with_mask_sets(block, options=self._options, vocabulary=vocabulary, sets=self._wanted)
            self._block = (row, list(iter_samples(block)))
        return self._block[1]


def _find_shard(data_set: DataSet, *, split: str, shard: str) -> int:
    """Returns the number of a shard in the manifest, given its name, or its number among those of the split."""
    names = [entry.name for entry in data_set.manifest.shards]
    if shard in names:
        return names.index(shard)
    of_split = [number for number, entry in enumerate(data_set.manifest.shards) if entry.split == split]
    if not shard.isdecimal():
        nearest = difflib.get_close_matches(shard, names, n=1, cutoff=0)
        raise ConfigError(f"--shard {shard}: {data_set.folder} has no such shard; did you mean {nearest[0]}?")
    if int(shard) >= len(of_split):
        raise ConfigError(f"--shard is {shard}; the {split} split has the shards 0 to {len(of_split) - 1}")
    return of_split[int(shard)]


def iter_shard_samples(
    data_set: DataSet,
    *,
    split: str = "train",
    shard: str | None = None,
    sample: int | None = None,
    num_samples: int = 3,
    mask_set: int | None = None,
) -> Iterator[ShardSample]:
    """Yields samples in the order in which they lie, and reads no block but theirs.

    Args:
        data_set: Where to read.
        split: "train" or "eval".
        shard: Name of a shard, or its number in the split; None for the split from its beginning.
        sample: Number of the only sample that is wanted, in the shard or, without one, in the split.
        num_samples: How many are wanted at most where `sample` is None.
        mask_set: Number of the one mask set that is wanted; None for all that are stored, or the first one drawn.

    Raises:
        ConfigError: There is no such shard, sample or mask set.
        ShardError: The split has no samples, or a block is damaged.
    """
    reader = SampleReader(data_set, mask_set=mask_set)
    rows = _rows_of(data_set, split=split)
    where = f"the {split} split"
    if not len(rows):
        raise ShardError(f"{data_set.folder} has no {split} samples")
    if shard is not None:
        number = _find_shard(data_set, split=split, shard=shard)
        rows = np.flatnonzero(data_set.index.shard == number)
        where = data_set.manifest.shards[number].name
    ends = np.cumsum(data_set.index.num_samples[rows])
    total = int(ends[-1]) if len(ends) else 0
    if sample is not None and not 0 <= sample < total:
        raise ConfigError(f"--sample is {sample:,}; {where} has {total:,} samples, counted from 0")
    start = sample or 0
    for place in range(start, min(start + (num_samples if sample is None else 1), total)):
        position = int(np.searchsorted(ends, place, side="right"))
        row = int(rows[position])
        yield reader.read(row, place - int(ends[position]) + int(data_set.index.num_samples[row]))


def _rows_of(data_set: DataSet, *, split: str) -> npt.NDArray[np.int64]:
    """Returns the rows of the index that are of a split."""
    is_wanted = np.array([entry.split == split for entry in data_set.manifest.shards], dtype=bool)
    return np.flatnonzero(is_wanted[data_set.index.shard])


def describe_sample(found: ShardSample, *, painter: Painter) -> str:
    """Returns a sample as text, with the first of its mask sets marked; see `bertdata.painting`."""
    lines = [
        describe_place(found),
        *painter.describe(found.content),
        f"  mask set   {describe_mask_set(found, painter=painter, number=0)}",
    ]
    return "\n".join(lines)


def describe_place(found: ShardSample) -> str:
    """Returns where a sample lies, and how long it is."""
    content = found.content
    size_a, size_b = content.segment_ids.count(0) - 2, content.segment_ids.count(1) - 1
    sizes = f"{size_a} of A, {size_b} of B" if size_b > 0 else f"{size_a} of text"
    return (
        f"{found.shard}, block {found.block}, sample {found.sample} (sample {found.sample_of_shard} of the shard): "
        f"{len(content.tokens)} tokens, {sizes}"
    )


def describe_mask_set(found: ShardSample, *, painter: Painter, number: int) -> str:
    """Returns which mask set the one in place `number` of a sample is, and how much of it shows what."""
    stored = f"of {found.num_stored}" if found.num_stored else "drawn now, as the trainer does; the shard stores none"
    return f"{found.mask_sets[number]} {stored}; {painter.count_shown(found.content, mask_set=number)}"


def sample_to_json(found: ShardSample, *, painter: Painter) -> dict[str, Any]:
    """Returns a sample as values of JSON."""
    content = found.content
    return {
        "shard": found.shard,
        "block": found.block,
        "sample": found.sample,
        "sample_of_shard": found.sample_of_shard,
        "tokens": content.tokens,
        "pieces": [painter.piece(token) for token in content.tokens],
        "segment_ids": content.segment_ids,
        "next_sentence_label": content.next_sentence_label,
        "label_name": painter.label_name(content),
        "label_forced": content.label_forced,
        "document_keys": [f"{key:016x}" for key in content.document_keys],
        "mask_sets_stored": found.num_stored > 0,
        "mask_sets": [
            {
                "mask_set": number,
                "positions": positions,
                "shown": shown,
                "labels": [content.tokens[position] for position in positions],
            }
            for number, (positions, shown) in zip(found.mask_sets, content.mask_sets, strict=True)
        ],
    }
