"""Reading the blocks of one or several data sets, checked, and leaving out damaged ones where that is asked for."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from bertdata.config import BuildOptions
from bertdata.data_set import DataSet
from bertdata.errors import ShardError
from bertdata.manifest import TokenizerInfo
from bertdata.masking import with_mask_sets
from bertdata.shards import Block, position_dtype
from bertdata.spans import offsets_of
from bertdata.wordpiece import Vocabulary
from trainer.arena import Arena, BlockLimits, Shown
from trainer.order import BlockTable

__all__ = ["BlockReader"]

_log = logging.getLogger(__name__)


class BlockReader:
    """Reads one split of the data sets. Their blocks are numbered one data set after another.

    Args:
        data_sets: One or more, of the same tokenizer.
        split: "train" or "eval".
        skip_bad_blocks: Whether damaged blocks are left out, with a warning for each, and not an error.
    """

    def __init__(self, data_sets: Sequence[DataSet], *, split: str, skip_bad_blocks: bool = False) -> None:
        self._data_sets = tuple(data_sets)
        self._skip_bad_blocks = skip_bad_blocks
        self._indexes = [data_set.blocks(split) for data_set in data_sets]
        self._options = [BuildOptions.from_json(data_set.manifest.options) for data_set in data_sets]
        self._first_blocks = offsets_of(np.array([len(index) for index in self._indexes]))
        self.block_sizes: NDArray[np.int64] = np.concatenate([index.num_samples for index in self._indexes])
        self.first_samples = offsets_of(self.block_sizes)
        self._bad: set[int] = set()
        self._lock = Lock()

    @property
    def num_samples(self) -> int:
        """Samples in the split."""
        return int(self.first_samples[-1])

    @property
    def bad_blocks(self) -> list[int]:
        """Numbers of the damaged blocks that were met and left out."""
        return sorted(self._bad)

    @property
    def tables(self) -> list[BlockTable]:
        """What the order of samples depends on, for each data set."""
        return [
            BlockTable(sizes=index.num_samples, shards=index.shard, num_mask_sets=options.masks.num_mask_sets)
            for index, options in zip(self._indexes, self._options, strict=True)
        ]

    @property
    def is_remote(self) -> bool:
        """Whether shards may have to be fetched, and `prefetch` helps."""
        return any(data_set.shard_files.max_bytes is not None for data_set in self._data_sets)

    @cached_property
    def limits(self) -> BlockLimits:
        """What the largest block needs in an arena."""
        pairs = list(zip(self._indexes, self._options, strict=True))
        # The number of predictions of a sample is rounded, and at least one.
        predictions = [
            math.ceil(float((index.num_tokens * options.masks.masked_lm_prob + index.num_samples).max(initial=0)))
            for index, options in pairs
        ]
        return BlockLimits(
            num_samples=int(self.block_sizes.max(initial=0)),
            num_tokens=max(int(index.num_tokens.max(initial=0)) for index in self._indexes),
            num_predictions=max(predictions),
            token_dtype=np.dtype(self._data_sets[0].manifest.tokenizer.token_dtype),
            position_dtype=position_dtype(self.max_seq_length),
        )

    @property
    def tokenizer(self) -> TokenizerInfo:
        """Tokenizer of the samples."""
        return self._data_sets[0].manifest.tokenizer

    @property
    def max_seq_length(self) -> int:
        """Tokens of a sample at most."""
        return max(options.pairs.max_seq_length for options in self._options)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return self._data_sets[0].load_vocabulary()

    def read(self, number: int, mask_sets: NDArray[np.int64]) -> tuple[Block, NDArray[np.int64]] | None:
        """Reads a block and checks it.

        Args:
            number: Number of the block, of N samples.
            mask_sets: int64 [N], the mask set that each sample is to show. Where the data set stores none, one set is
                drawn for all samples, and these are equal.

        Returns:
            The block, and which of the mask sets that it now holds each sample shows: int64 [N]. None where it is
            damaged and such blocks are left out.

        Raises:
            ShardError: It is damaged.
        """
        source, row = self._locate(number)
        options = self._options[source]
        if number in self._bad:
            return None
        try:
            block = self._data_sets[source].read(self._indexes[source], row)
        except ShardError as error:
            if not self._skip_bad_blocks:
                raise ShardError(f"{error}; --skip-bad-blocks goes on without such blocks") from error
            with self._lock:
                self._bad.add(number)
            _log.warning("leaving out %d samples: %s", self.block_sizes[number], error)
            return None
        if options.masks.num_mask_sets:
            return block, mask_sets
        with self._lock:
            vocabulary = self._vocabulary
        drawn = with_mask_sets(block, options=options, vocabulary=vocabulary, sets=[int(mask_sets[0])])
        return drawn, np.zeros_like(mask_sets)

    def _locate(self, number: int) -> tuple[int, int]:
        """Returns the data set of a block, and its row in the index of that data set's split."""
        source = int(np.searchsorted(self._first_blocks, number, side="right")) - 1
        return source, number - int(self._first_blocks[source])

    def prefetch(self, numbers: Iterable[int]) -> None:
        """Says which blocks will be read soon, in this order, so that remote shards can be fetched meanwhile."""
        wanted: dict[int, dict[int, None]] = {}
        for number in numbers:
            source, row = self._locate(number)
            wanted.setdefault(source, {})[int(self._indexes[source].shard[row])] = None
        for source, shards in wanted.items():
            data_set = self._data_sets[source]
            data_set.shard_files.prefetch([data_set.manifest.shards[shard] for shard in shards])

    def stop_prefetching(self) -> None:
        """Takes back what `prefetch` said."""
        for data_set in self._data_sets:
            data_set.shard_files.prefetch([])

    def show(self, sample_ids: NDArray[np.int64], *, mask_set: int) -> tuple[Shown, NDArray[np.int64]]:
        """Returns chosen samples, the longest first, all with the same mask set.

        Args:
            sample_ids: int64 [N], numbers of samples in the split, counted through blocks, shards and data sets.
            mask_set: Number of the mask set; it is drawn where the data set stores none.

        Returns:
            The samples, and the number of each. Those of damaged blocks are not among them where these are left out.

        Raises:
            ShardError: A block is damaged.
        """
        blocks = np.searchsorted(self.first_samples, sample_ids, side="right") - 1
        numbers, part = np.unique(blocks, return_inverse=True)
        arena = Arena(self.limits)
        arena.reserve(len(numbers))
        slots = []
        for number in numbers.tolist():
            found = self.read(number, np.full(self.block_sizes[number], mask_set))
            slots.append(arena.add(*found) if found else -1)
        slot, sample = np.array(slots, dtype=np.int64)[part], sample_ids - self.first_samples[blocks]
        there = np.flatnonzero(slot >= 0)
        order = there[np.argsort(-arena.lengths(slot[there], sample[there]), kind="stable")]
        return arena.show(slot[order], sample[order]), sample_ids[order]
