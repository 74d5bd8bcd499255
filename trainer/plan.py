"""Which samples make up global batch s: a pure function of (data sets, weights, seed, batch size).

A fixed number of lanes run through each data set (see `trainer.order`). Global batch s takes batch_size / num_lanes
consecutive samples from every lane, and a rank takes whole lanes: so global batch s is the same set of samples for
every number of ranks and of loader workers, nothing is dropped at an epoch's end, any step is reached without walking
there, and how far a run has come is one number, the samples seen.

Several data sets are mixed by weight inside each lane. A table of the samples that a lane gives to 1,000 global batches
says which data set each of them comes from; it repeats for ever, so any 1,000 batches hold the same shares, and within
the table the samples of each data set are spread evenly. Lanes begin at different places of the table.

    weights 0.7 and 0.3, a table of 10      a a b a a a b a b a | a a b a ...
    lane 1 of 2 begins in its middle        a b a b a a a b a a | a b a b ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bertdata.errors import TrainingError
from bertdata.spans import offsets_of
from trainer.order import BlockTable, Order

__all__ = ["MAX_LANES", "Plan", "SampleRefs", "num_lanes_of"]

MAX_LANES = 64
"""Lanes at most. More ranks than this cannot share a run; fewer lanes than ranks leave ranks without data."""

TABLE_STEPS = 1000
"""Global batches after which the mixture of data sets repeats."""


def num_lanes_of(batch_size: int) -> int:
    """Returns the largest divisor of the global batch size that is at most `MAX_LANES`."""
    return max(divisor for divisor in range(1, MAX_LANES + 1) if batch_size % divisor == 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleRefs:
    """N samples, by number.

    Attributes:
        block: int64 [N], number of the block among those of all data sets, one data set after another.
        sample: int64 [N], number of the sample within its block.
        mask_set: int64 [N], the mask set to show.
    """

    block: NDArray[np.int64]
    sample: NDArray[np.int64]
    mask_set: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.block)


class Plan:
    """The order of a run's samples, with random access to any step.

    Args:
        tables: The training blocks of each data set.
        weights: Share of each data set in the samples, positive, of any sum; None for as many as each has.
        seed: The run's seed.
        batch_size: Samples of a global batch.
        window_blocks: See `trainer.order.Order`.
        shuffle_shards: See `trainer.order.Order`.

    Raises:
        TrainingError: A data set has fewer samples than the plan has lanes, or a weight is too small.
    """

    def __init__(
        self,
        tables: Sequence[BlockTable],
        *,
        weights: Sequence[float] | None = None,
        seed: int,
        batch_size: int,
        window_blocks: int | None = None,
        shuffle_shards: int | None = None,
    ) -> None:
        self.batch_size = batch_size
        self.num_lanes = num_lanes_of(batch_size)
        self.samples_per_lane = batch_size // self.num_lanes  # of one global batch
        self.num_samples = sum(table.num_samples for table in tables)
        for number, table in enumerate(tables):
            if table.num_samples < self.num_lanes:
                which = f"data set {number + 1}" if len(tables) > 1 else "the data set"
                if table.num_samples == 0:
                    raise TrainingError(f"{which} has no training samples; leave it out, or build it from more text")
                raise TrainingError(
                    f"{which} has {table.num_samples} training samples, but a global batch of {batch_size} is taken "
                    f"from {self.num_lanes} lanes of at least one sample each; give a --batch-size of at most "
                    f"{table.num_samples}"
                )
        self.first_blocks = offsets_of(np.array([len(table.sizes) for table in tables]))[:-1].tolist()
        self._min_samples = min(table.num_samples for table in tables)
        # Each data set has draws of its own, or equal ones would show the same order side by side.
        self.orders = [
            Order(
                table,
                seed=seed,
                source=number,
                num_lanes=self.num_lanes,
                window_blocks=window_blocks,
                shuffle_shards=shuffle_shards,
            )
            for number, table in enumerate(tables)
        ]
        self._mixture = None
        if len(tables) > 1:
            shares = np.array(weights or [table.num_samples for table in tables], dtype=np.float64)
            self._mixture = _Mixture(
                shares / shares.sum(), length=TABLE_STEPS * self.samples_per_lane, num_lanes=self.num_lanes
            )

    def lanes_of(self, rank: int, *, world_size: int) -> range:
        """Returns the lanes that a rank reads.

        Raises:
            TrainingError: When the lanes cannot be divided evenly among the ranks.
        """
        if self.num_lanes % world_size:
            remedy = f"start at most {min(MAX_LANES, self._min_samples)}"
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
            if num_lanes % world_size == 0 and num_lanes <= self._min_samples:
                return batch_size
        return None

    def span(self, source: int, lane: int, *, start: int, stop: int) -> tuple[int, int, NDArray[np.int64]]:
        """Returns what a lane takes from one data set in global batches `start` to before `stop`.

        Returns:
            Position in the lane of that data set of the first sample, position after the last one, and for each of
            these samples the number of its global batch, counted from `start`.
        """
        first, last = start * self.samples_per_lane, stop * self.samples_per_lane
        if self._mixture is None:
            return first, last, np.arange(last - first) // self.samples_per_lane
        begin = self._mixture.count(source, lane, first)
        places = self._mixture.places(source, lane, first, last)
        return begin, begin + len(places), places // self.samples_per_lane

    def step_samples(self, step: int, *, rank: int = 0, world_size: int = 1) -> SampleRefs:
        """Returns the share of a rank in global batch number `step` (from 0), lane after lane."""
        columns: list[tuple[NDArray[np.int64], ...]] = []
        for lane in self.lanes_of(rank, world_size=world_size):
            for source, order in enumerate(self.orders):
                position, stop, _ = self.span(source, lane, start=step, stop=step + 1)
                while position < stop:
                    window = order.window(lane, position)
                    rows = slice(position - window.start, min(stop, window.stop) - window.start)
                    block, sample = window.blocks[window.part[rows]], window.sample[rows]
                    pairs = zip(block.tolist(), sample.tolist(), strict=True)
                    mask_set = np.array([order.mask_sets(one, epoch=window.epoch)[row] for one, row in pairs])
                    columns.append((self.first_blocks[source] + block, sample, mask_set))
                    position = window.stop
        block, sample, mask_set = (np.concatenate(column) for column in zip(*columns, strict=True))
        return SampleRefs(block=block, sample=sample, mask_set=mask_set)


class _Mixture:
    """Which data set each sample of a lane comes from.

    Args:
        shares: float64 [number of data sets], of sum 1.
        length: Samples after which the table repeats.
        num_lanes: Lanes.

    Raises:
        TrainingError: A share is too small for a single sample in the table.
    """

    def __init__(self, shares: NDArray[np.float64], *, length: int, num_lanes: int) -> None:
        self._length = length
        self._counts = np.floor(shares * length).astype(np.int64)
        # What is left over goes to the largest remainders: no data set is a sample or more away from its share.
        left_over = np.argsort(self._counts - shares * length, kind="stable")[: length - int(self._counts.sum())]
        self._counts[left_over] += 1
        if not self._counts.all():
            number = int(np.argmin(self._counts))
            raise TrainingError(
                f"data set {number + 1} has a share of {shares[number]:.2g} of the samples, less than one in {length}; "
                "give it a larger weight, or leave it out"
            )
        turns = np.concatenate([(np.arange(count) + 0.5) / count for count in self._counts])
        sources = np.repeat(np.arange(len(shares)), self._counts)
        self._table = sources[np.argsort(turns, kind="stable")]
        self._before = [np.concatenate([[0], np.cumsum(self._table == source)]) for source in range(len(shares))]
        self._begins = [lane * length // num_lanes for lane in range(num_lanes)]

    def count(self, source: int, lane: int, position: int) -> int:
        """Returns how many of the samples of a lane before `position` come from a data set."""
        begin, before = self._begins[lane], self._before[source]
        repeats, place = divmod(begin + position, self._length)
        return repeats * int(self._counts[source]) + int(before[place] - before[begin])

    def places(self, source: int, lane: int, start: int, stop: int) -> NDArray[np.int64]:
        """Returns which samples of a lane, counted from `start`, come from a data set: int64, before `stop`."""
        places = (np.arange(start, stop) + self._begins[lane]) % self._length
        return np.flatnonzero(self._table[places] == source)
