"""The endless order of one data set: a pure function of (blocks, seed, number of lanes).

Every epoch permutes the blocks, and the samples inside each block, by a keyed hash: that is the epoch's sequence. It is
dealt to the lanes in windows of a few blocks' worth of samples, one window to each lane in turn, and a lane is the
endless concatenation of the windows it was dealt. Inside a window the samples of its blocks take turns.

    5 blocks of 4, 4, 4, 4, 2 samples, 3 lanes, windows of 4 samples. One epoch:

    sequence   b b b b e e c c c c d d d d a a a a      each block permuted within itself
    round 0   [b b b b|e e c|c c]                       one window to each of lanes 0, 1, 2: the first ones get shorter,
    round 1                     [c d|d d d|a a a a]     so that not all lanes open blocks at the same step

    lane 0     b b b b | d c                            inside a window the samples of each block are spread evenly,
    lane 1     e e c | d d d                            so that neighbours come from different blocks
    lane 2     c c | a a a a

Lanes have the same length in every epoch (they differ by at most one sample), so any position is found without walking
there. Neighbouring windows of a round share a block where one ends, and are read close to each other.

The mask set of a sample is (hash of the sample + epoch) mod K: over K epochs it shows each of its K sets once, and in
every epoch all K sets are in use. Where no mask sets are stored (K = 0), it is set number `epoch`, drawn by the loader.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bertdata.seeds import hash64, hash64_int, stage_key

__all__ = ["MIN_WINDOW_BLOCKS", "BlockTable", "Order", "Window"]

MIN_WINDOW_BLOCKS = 8
"""Blocks of a window at least. With 64 lanes, 512 blocks are mixed at any time."""

_HALF = np.uint64(32)


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockTable:
    """The blocks of a data set, as far as the order of its samples depends on them.

    Attributes:
        sizes: int [number of blocks], samples in each block; at least one block.
        shards: int [number of blocks], number of the shard that each lies in.
        num_mask_sets: Mask sets K stored per sample; 0 where the loader draws them.
    """

    sizes: NDArray[np.integer]
    shards: NDArray[np.integer]
    num_mask_sets: int

    @property
    def num_samples(self) -> int:
        """Samples in all blocks."""
        return int(self.sizes.sum(dtype=np.int64))


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Consecutive samples of a lane, N of them, from few blocks.

    Attributes:
        start: Lane position of its first sample, counted from the beginning of the run.
        epoch: The epoch that it belongs to.
        blocks: int64 [number of parts], the blocks that it takes samples from.
        part: int64 [N], which of these each sample comes from, in the order in which the lane shows them.
        sample: int64 [N], number of each sample within its block.
    """

    start: int
    epoch: int
    blocks: NDArray[np.int64]
    part: NDArray[np.int64]
    sample: NDArray[np.int64]

    @property
    def stop(self) -> int:
        """Lane position after its last sample."""
        return self.start + len(self.part)


class Order:
    """The order of one data set in lanes, with random access to any position.

    Args:
        table: Its blocks. There must be at least `num_lanes` samples.
        seed: The run's seed.
        source: Number of the data set among those of the run, which have draws of their own.
        num_lanes: Lanes.
        window_blocks: Blocks' worth of samples in a window. None for enough that the windows of all lanes together hold
            as many blocks as shards are shuffled together, and at least `MIN_WINDOW_BLOCKS`: since all samples of a
            document lie in one shard, this keeps them apart about as well as a shuffle of all samples would.
        shuffle_shards: Shards whose blocks are permuted together; None for all. With fewer, an epoch goes through the
            shards by groups, which are drawn anew in each epoch: a cache needs to hold few groups at a time.
    """

    def __init__(
        self,
        table: BlockTable,
        *,
        seed: int,
        source: int = 0,
        num_lanes: int,
        window_blocks: int | None = None,
        shuffle_shards: int | None = None,
    ) -> None:
        self._sizes = np.asarray(table.sizes, dtype=np.int64)
        self._shards = np.asarray(table.shards)
        self._num_mask_sets = table.num_mask_sets
        self.num_samples = table.num_samples
        num_shards = int(self._shards.max()) + 1
        self._shuffle_shards = min(shuffle_shards or num_shards, num_shards)
        self.window_blocks = window_blocks or max(MIN_WINDOW_BLOCKS, -(-self._shuffle_shards // num_lanes))
        # By the mean, so that a data set of few large blocks and many small ones has no windows of thousands of blocks.
        self.window_samples = self.window_blocks * math.ceil(self.num_samples / len(self._sizes))
        self._num_shards = num_shards
        lanes = np.arange(num_lanes + 1)
        self._lengths = np.diff(lanes * self.num_samples // num_lanes)  # of each lane in an epoch
        # Where lanes are longer than a window, the first window of lane l is shorter by this much.
        staggered = self.window_samples * lanes[:-1] // num_lanes
        self._phases = np.where(self._lengths > self.window_samples, staggered, 0)
        stages = ("order-shards", "order-blocks", "order-samples", "order-windows", "order-mask-sets")
        self._shard_key, self._block_key, self._sample_key, self._window_key, self._mask_key = (
            hash64_int(stage_key(seed, stage), source) for stage in stages
        )
        # Lanes of unequal length pass an epoch's end at different steps, so neighbouring epochs are in use together.
        self._epoch_blocks = lru_cache(maxsize=2)(self._permute_blocks)

    def lane_length(self, lane: int) -> int:
        """Returns the samples of `lane` in one epoch; lanes differ by at most one."""
        return int(self._lengths[lane])

    def window(self, lane: int, position: int) -> Window:
        """Returns the window of `lane` that holds the sample at `position`, counted from the beginning of the run."""
        epoch, offset = divmod(position, self.lane_length(lane))
        round_number = (offset + int(self._phases[lane])) // self.window_samples
        starts, stops = self._dealt(round_number), self._dealt(round_number + 1)  # of all lanes
        first = int(starts.sum() + (stops - starts)[:lane].sum())
        return self._cut_window(
            epoch,
            first,
            first + int(stops[lane] - starts[lane]),
            start=epoch * self.lane_length(lane) + int(starts[lane]),
        )

    def mask_sets(self, block: int, *, epoch: int) -> NDArray[np.int64]:
        """Returns the mask set that each sample of a block shows in an epoch: int64 [samples of the block]."""
        size = int(self._sizes[block])
        if not self._num_mask_sets:
            return np.full(size, epoch)
        first_set = hash64(self._mask_key, block, np.arange(size)) % np.uint64(self._num_mask_sets)
        sets: NDArray[np.int64] = (first_set.astype(np.int64) + epoch) % self._num_mask_sets
        return sets

    def _dealt(self, num_rounds: int) -> NDArray[np.int64]:
        """Returns how many samples of an epoch each lane has got after some rounds of windows."""
        dealt: NDArray[np.int64] = np.clip(num_rounds * self.window_samples - self._phases, 0, self._lengths)
        return dealt

    def _permute_blocks(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the blocks in the order of an epoch [number of blocks], and where each begins in it [same + 1]."""
        bits = hash64(self._block_key, epoch, np.arange(len(self._sizes)))
        if self._shuffle_shards < self._num_shards:
            shards = np.argsort(hash64(self._shard_key, epoch, np.arange(self._num_shards)), kind="stable")
            group = np.empty(self._num_shards, dtype=np.int64)
            group[shards] = np.arange(self._num_shards) // self._shuffle_shards
            order = np.lexsort((bits, group[self._shards]))
        else:
            order = np.argsort(bits, kind="stable")
        return order, np.concatenate([[0], np.cumsum(self._sizes[order])])

    def _cut_window(self, epoch: int, first: int, last: int, *, start: int) -> Window:
        """Returns the samples from position `first` to before `last` of an epoch's sequence, taking turns by block."""
        order, begins = self._epoch_blocks(epoch)
        places = range(*(np.searchsorted(begins, [first, last - 1], side="right") - [1, 0]).tolist())
        samples, turns = [], []
        for place in places:
            block, begin = int(order[place]), int(begins[place])
            bits = hash64(self._sample_key, epoch, block, np.arange(self._sizes[block]))
            samples.append(np.argsort(bits, kind="stable")[max(0, first - begin) : last - begin])
            size = len(samples[-1])
            # Sample i of a part comes at (i + u) / size of the window, u the part's own. In whole numbers, so that no
            # machine's rounding can change the order.
            shift = hash64(self._window_key, epoch, first, place) >> _HALF
            turns.append(((np.arange(size, dtype=np.uint64) << _HALF) + shift) // np.uint64(size))
        shown = np.argsort(np.concatenate(turns), kind="stable")
        parts = np.repeat(np.arange(len(samples)), [len(part) for part in samples])
        return Window(
            start=start,
            epoch=epoch,
            blocks=order[places.start : places.stop],
            part=parts[shown],
            sample=np.concatenate(samples)[shown],
        )
