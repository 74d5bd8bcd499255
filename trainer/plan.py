"""Which samples make up global batch s: a pure function of (block sizes, mask sets, seed, batch size).

The order has three levels. Every epoch permutes the blocks, and the samples inside each block, by a keyed hash. The
concatenation of all samples in that order is cut into `num_lanes` contiguous parts, at the same places in every epoch,
and lane l is the endless concatenation of its parts. Within a lane's part, samples are shuffled within windows of a few
blocks. Global batch s takes batch_size / num_lanes consecutive samples from every lane.

    5 blocks of 4, 4, 4, 4, 2 samples, batch size 6, here cut into 3 lanes. One epoch:

    permuted blocks     c c c c   a a a a   e e   d d d d   b b b b      (each block permuted within itself)
    position            0 1 2 3   4 5 6 7   8 9  10 . . .  14 . . 17
    lanes               |----- lane 0 -----|------ lane 1 -----|----- lane 2 -----|   cuts at floor(l * 18 / 3)
                        c c c c a a         a a e e d d         d d b b b b
    windows of 4        [c c c c][a a]      [a a e e][d d]      [d d b b][b b]        shuffled inside the brackets

    global batch 0 takes positions 0, 1 of every lane, global batch 1 positions 2, 3, batch 2 positions 4, 5;
    batch 3 begins the next epoch in each lane, with blocks and samples permuted anew.

A rank takes whole lanes, so global batch s is the same set of samples for every number of ranks and of loader workers.
Nothing is dropped at an epoch's end, any position is reached without walking there, and how far a run has come is one
number: the samples seen.

The mask set of a sample is (hash of the sample + epoch) mod K: over K epochs it shows each of its K sets once, and in
every epoch all K sets are in use. Shards that store no mask sets (K = 0) get set number `epoch`, drawn by the loader.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bertdata.errors import TrainingError
from bertdata.seeds import hash64, stage_key

__all__ = ["MAX_LANES", "Plan", "SampleRefs", "Window", "num_lanes_of"]

MAX_LANES = 64
"""Lanes at most. More ranks than this cannot share a run; fewer lanes than ranks leave ranks without data."""

WINDOW_BLOCKS = 8
"""Blocks whose samples are shuffled together in a lane. With 64 lanes, 512 blocks are mixed at any time."""


def num_lanes_of(batch_size: int) -> int:
    """Returns the largest divisor of the global batch size that is at most `MAX_LANES`."""
    return max(divisor for divisor in range(1, MAX_LANES + 1) if batch_size % divisor == 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRefs:
    """Samples of a data set, by number.

    Attributes:
        block: int64 [N], row of the block index.
        sample: int64 [N], number of the sample within its block.
        mask_set: int64 [N], the mask set to show.
    """

    block: NDArray[np.int64]
    sample: NDArray[np.int64]
    mask_set: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.block)

    def take(self, rows: NDArray[np.int64] | slice) -> SampleRefs:
        """Returns the samples at `rows`, in that order."""
        return SampleRefs(block=self.block[rows], sample=self.sample[rows], mask_set=self.mask_set[rows])

    @staticmethod
    def concatenate(parts: list[SampleRefs]) -> SampleRefs:
        """Returns the samples of all parts, one part after another."""
        return SampleRefs(
            block=np.concatenate([part.block for part in parts]),
            sample=np.concatenate([part.sample for part in parts]),
            mask_set=np.concatenate([part.mask_set for part in parts]),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Consecutive samples of a lane that were shuffled together.

    Attributes:
        start: Lane position of its first sample, counted from the beginning of the run.
        stop: Lane position after its last sample.
        refs: The stop - start samples, in the order in which the lane shows them.
    """

    start: int
    stop: int
    refs: SampleRefs


class Plan:
    """The order of a run's samples, with random access to any step.

    Args:
        block_sizes: int [number of blocks], samples in each block of the training split.
        num_mask_sets: Mask sets K stored per sample; 0 where the loader draws them.
        seed: The run's seed.
        batch_size: Samples of a global batch.
        window_blocks: Blocks' worth of samples that are shuffled together in a lane.

    Raises:
        TrainingError: When the data set has fewer samples than the plan has lanes.
    """

    def __init__(
        self,
        block_sizes: NDArray[np.integer],
        *,
        num_mask_sets: int,
        seed: int,
        batch_size: int,
        window_blocks: int = WINDOW_BLOCKS,
    ) -> None:
        self.block_sizes = np.asarray(block_sizes, dtype=np.int64)
        self.num_samples = int(self.block_sizes.sum())
        self.num_mask_sets = num_mask_sets
        self.batch_size = batch_size
        self.num_lanes = num_lanes_of(batch_size)
        if self.num_samples < self.num_lanes:
            raise TrainingError(
                f"the data set has {self.num_samples} training samples, but a global batch of {batch_size} is taken "
                f"from {self.num_lanes} lanes of at least one sample each; give a --batch-size of at most "
                f"{max(self.num_samples, 1)}"
            )
        self.samples_per_lane = batch_size // self.num_lanes  # of one global batch
        self.window_samples = window_blocks * int(self.block_sizes.max())
        self._cuts = [lane * self.num_samples // self.num_lanes for lane in range(self.num_lanes + 1)]
        self._block_key, self._sample_key, self._window_key, self._mask_key = (
            stage_key(seed, stage) for stage in ("plan-blocks", "plan-samples", "plan-windows", "plan-mask-sets")
        )
        # Lanes of unequal length pass an epoch's end at different steps, so neighbouring epochs are in use together.
        self._epoch_blocks = lru_cache(maxsize=4)(self._permute_blocks)

    def lane_length(self, lane: int) -> int:
        """Returns the samples of `lane` in one epoch; lanes differ by at most one."""
        return self._cuts[lane + 1] - self._cuts[lane]

    def lanes_of(self, rank: int, *, world_size: int) -> range:
        """Returns the lanes that a rank reads.

        Raises:
            TrainingError: When the lanes cannot be divided evenly among the ranks.
        """
        if self.num_lanes % world_size:
            remedy = f"start at most {min(MAX_LANES, self.num_samples)}"
            if nearest := self._nearest_batch_size(world_size):
                remedy = f"give --batch-size {nearest}, or start another number of them"
            raise TrainingError(
                f"a global batch of {self.batch_size} has {self.num_lanes} lanes, which {world_size} processes cannot "
                f"share evenly; {remedy}"
            )
        share = self.num_lanes // world_size
        return range(rank * share, (rank + 1) * share)

    def _nearest_batch_size(self, world_size: int) -> int | None:
        """Returns the batch size nearest to the plan's that so many processes can share; None where there is none."""
        # Up to twice the batch size is far enough: `world_size` itself fits whenever anything does.
        multiples = range(world_size, 2 * self.batch_size + world_size, world_size)
        for batch_size in sorted(multiples, key=lambda multiple: abs(multiple - self.batch_size)):
            num_lanes = num_lanes_of(batch_size)
            if num_lanes % world_size == 0 and num_lanes <= self.num_samples:
                return batch_size
        return None

    def window(self, lane: int, position: int) -> Window:
        """Returns the window of `lane` that holds the sample at `position`, counted from the beginning of the run."""
        length = self.lane_length(lane)
        epoch, offset = divmod(position, length)
        # Windows of different lanes end at different steps, so that their blocks are not all read at once.
        phase = lane * self.window_samples // self.num_lanes if length > self.window_samples else 0
        number = (offset + phase) // self.window_samples
        start = max(0, number * self.window_samples - phase)
        stop = min(length, (number + 1) * self.window_samples - phase)
        refs = self._epoch_samples(epoch, self._cuts[lane] + start, self._cuts[lane] + stop)
        return Window(start=epoch * length + start, stop=epoch * length + stop, refs=refs)

    def lane_samples(self, lane: int, *, start: int, stop: int) -> SampleRefs:
        """Returns the samples of `lane` from position `start` to before `stop`."""
        parts = []
        while start < stop:
            window = self.window(lane, start)
            parts.append(window.refs.take(slice(start - window.start, stop - window.start)))
            start = window.stop
        return SampleRefs.concatenate(parts)

    def step_samples(self, step: int, *, rank: int = 0, world_size: int = 1) -> SampleRefs:
        """Returns the share of a rank in global batch number `step` (from 0), lane after lane."""
        start, stop = step * self.samples_per_lane, (step + 1) * self.samples_per_lane
        lanes = self.lanes_of(rank, world_size=world_size)
        return SampleRefs.concatenate([self.lane_samples(lane, start=start, stop=stop) for lane in lanes])

    def _permute_blocks(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the blocks in the order of an epoch [number of blocks], and where each begins in it [same + 1]."""
        bits = hash64(self._block_key, epoch, np.arange(len(self.block_sizes)))
        order = np.argsort(bits, kind="stable")
        return order, np.concatenate([[0], np.cumsum(self.block_sizes[order])])

    def _epoch_samples(self, epoch: int, start: int, stop: int) -> SampleRefs:
        """Returns the samples at positions `start` to before `stop` of an epoch's order, shuffled among themselves."""
        order, begins = self._epoch_blocks(epoch)
        first, last = np.searchsorted(begins, [start, stop - 1], side="right") - 1
        blocks, samples = [], []
        for place in range(first, last + 1):
            block, begin = int(order[place]), int(begins[place])
            size = int(self.block_sizes[block])
            permuted = np.argsort(hash64(self._sample_key, epoch, block, np.arange(size)), kind="stable")
            samples.append(permuted[max(0, start - begin) : stop - begin])
            blocks.append(np.full(len(samples[-1]), block))
        block_of, sample_of = np.concatenate(blocks), np.concatenate(samples)
        mask_set = np.full(stop - start, epoch)
        if self.num_mask_sets:
            first_set = hash64(self._mask_key, block_of, sample_of) % np.uint64(self.num_mask_sets)
            mask_set = (first_set.astype(np.int64) + epoch) % self.num_mask_sets
        shuffled = np.argsort(hash64(self._window_key, epoch, np.arange(start, stop)), kind="stable")
        return SampleRefs(block=block_of, sample=sample_of, mask_set=mask_set).take(shuffled)
