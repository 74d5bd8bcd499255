"""From the plan to batches: blocks are read and checked, their samples picked, sorted by length and cut.

    plan.window -> BlockReader (one checked read per block) -> Samples of a lane's window -> this step's share
                -> sorted by length -> micro-batches

All order comes from the plan; threads only fetch ahead. B samples, T tokens, P predictions of a micro-batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, lru_cache
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bertdata.config import BuildOptions
from bertdata.data_set import DataSet
from bertdata.masking import with_mask_sets
from bertdata.shards import Block
from bertdata.wordpiece import Vocabulary
from trainer.plan import Plan, SampleRefs, Window
from trainer.samples import Samples

__all__ = ["Batch", "BlockReader", "Loader", "StepBatches", "make_batch"]


class Batch(NamedTuple):
    """A micro-batch without padding: everything the model sees, and the labels.

    Attributes:
        token_ids: int64 [T], the masked input of all samples, end to end.
        position_ids: int64 [T], position of each token in its sample.
        token_type_ids: int64 [T], 0 in segment A, 1 in segment B.
        padded_rows: int64 [T], row of each token when the samples are padded to [B, max_seqlen].
        cu_seqlens: int32 [B + 1], where each sample starts in the token arrays.
        max_seqlen: Tokens of the longest sample.
        mask_rows: int64 [P], index into the token arrays of each position to predict.
        mask_labels: int64 [P], the original token there.
        next_sentence_labels: int64 [B], 0 IsNext, 1 NotNext.
    """

    token_ids: Tensor
    position_ids: Tensor
    token_type_ids: Tensor
    padded_rows: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    mask_rows: Tensor
    mask_labels: Tensor
    next_sentence_labels: Tensor

    @property
    def num_samples(self) -> int:
        """Number of samples B."""
        return len(self.next_sentence_labels)

    def to(self, device: torch.device) -> Batch:
        """Returns the batch on another device; to a GPU the copy runs beside the computation."""
        if device.type == "cpu":
            return self
        moved = [
            value.pin_memory().to(device, non_blocking=True) if isinstance(value, Tensor) else value for value in self
        ]
        return Batch(*moved)  # type: ignore[arg-type]


class StepBatches(NamedTuple):
    """One rank's share of a global batch.

    Attributes:
        micro_batches: Its micro-batches.
        num_samples: Samples in all of them.
        num_tokens: Tokens in all of them.
        num_predictions: Masked positions in all of them.
    """

    micro_batches: list[Batch]
    num_samples: int
    num_tokens: int
    num_predictions: int


def make_batch(samples: Samples) -> Batch:
    """Returns samples as the model's input: mask tokens put in, labels taken out."""
    lengths = samples.lengths
    starts = samples.token_offsets[:-1]
    labels_of = np.diff(samples.mask_offsets)
    max_seqlen = int(lengths.max())
    position_ids = np.arange(len(samples.tokens)) - np.repeat(starts, lengths)
    token_ids = samples.tokens.astype(np.int64)
    mask_rows = np.repeat(starts, labels_of) + samples.mask_positions
    mask_labels = token_ids[mask_rows]
    token_ids[mask_rows] = samples.mask_tokens
    return Batch(
        token_ids=torch.from_numpy(token_ids),
        position_ids=torch.from_numpy(position_ids),
        token_type_ids=torch.from_numpy((position_ids >= np.repeat(samples.segment_b, lengths)).astype(np.int64)),
        padded_rows=torch.from_numpy(np.repeat(np.arange(len(samples)) * max_seqlen, lengths) + position_ids),
        cu_seqlens=torch.from_numpy(samples.token_offsets.astype(np.int32)),
        max_seqlen=max_seqlen,
        mask_rows=torch.from_numpy(mask_rows),
        mask_labels=torch.from_numpy(mask_labels),
        next_sentence_labels=torch.from_numpy(samples.next_sentence_label.astype(np.int64)),
    )


def cut_by_length(samples: Samples, *, micro_batch_size: int) -> StepBatches:
    """Returns the samples as micro-batches of nearly equal lengths, the longest first so that memory peaks at once."""
    order = np.argsort(-samples.lengths, kind="stable")
    samples = samples.take(order)
    cuts = range(0, len(samples), micro_batch_size)
    batches = [make_batch(samples.slice(cut, min(cut + micro_batch_size, len(samples)))) for cut in cuts]
    return StepBatches(batches, len(samples), len(samples.tokens), len(samples.mask_positions))


class BlockReader:
    """Reads samples of one split of a data set; keeps the last few blocks, because neighbouring windows share them.

    Args:
        data_set: The data set.
        split: "train" or "eval".
        num_cached_blocks: Decoded blocks kept in memory.
    """

    def __init__(self, data_set: DataSet, *, split: str, num_cached_blocks: int = 64) -> None:
        self._data_set = data_set
        self._blocks = data_set.blocks(split)
        self.block_sizes = self._blocks.num_samples
        self._build_options = BuildOptions.from_json(data_set.manifest.options)
        self.num_mask_sets = self._build_options.masks.num_mask_sets
        self._lock = Lock()
        self._read = lru_cache(maxsize=num_cached_blocks)(self._read_block)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return self._data_set.load_vocabulary()

    @property
    def num_samples(self) -> int:
        """Samples in the split."""
        return int(self.block_sizes.sum())

    @property
    def num_tokens(self) -> int:
        """Tokens in the split, specials included."""
        return int(self._blocks.num_tokens.sum())

    def read(self, refs: SampleRefs) -> Samples:
        """Returns the samples that `refs` names, in its order; each block is read once, however its samples lie."""
        drawn_set = np.zeros_like(refs.mask_set) if self.num_mask_sets else refs.mask_set
        order = np.lexsort((drawn_set, refs.block))
        block, drawn_set = refs.block[order], drawn_set[order]
        changes = np.flatnonzero((np.diff(block) != 0) | (np.diff(drawn_set) != 0)) + 1
        parts = []
        for rows in np.split(order, changes):
            number = int(refs.block[rows[0]])
            if self.num_mask_sets:
                stored, sets = self._read(number, None), refs.mask_set[rows]
            else:
                stored, sets = self._read(number, int(refs.mask_set[rows[0]])), np.zeros_like(rows)
            parts.append(
                Samples.from_block(
                    stored, sample=refs.sample[rows], mask_set=sets, num_mask_sets=max(1, self.num_mask_sets)
                )
            )
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return Samples.concatenate(parts).take(back)

    def _read_block(self, number: int, drawn_set: int | None) -> Block:
        block = self._data_set.read(self._blocks, number)
        if drawn_set is None:
            return block
        return with_mask_sets(block, options=self._build_options, vocabulary=self._vocabulary, sets=[drawn_set])


class Loader:
    """Iterates over one rank's share of the global batches.

    Args:
        plan: The order of the samples.
        reader: Where they are read from.
        rank: Number of this process.
        world_size: Number of processes.
        micro_batch_size: Samples of a micro-batch at most.
        num_workers: Threads that prepare steps ahead; 0 prepares each step when it is asked for.

    Raises:
        TrainingError: When the plan's lanes cannot be divided among the ranks.
    """

    def __init__(
        self,
        plan: Plan,
        reader: BlockReader,
        *,
        rank: int,
        world_size: int,
        micro_batch_size: int,
        num_workers: int = 0,
    ) -> None:
        self._plan = plan
        self._reader = reader
        self._micro_batch_size = micro_batch_size
        self._num_workers = num_workers
        self._windows = {lane: _LaneWindow() for lane in plan.lanes_of(rank, world_size=world_size)}

    def load(self, step: int) -> StepBatches:
        """Returns this rank's share of global batch number `step` (from 0)."""
        start, stop = step * self._plan.samples_per_lane, (step + 1) * self._plan.samples_per_lane
        parts = [part for lane in self._windows for part in self._lane_samples(lane, start=start, stop=stop)]
        return cut_by_length(Samples.concatenate(parts), micro_batch_size=self._micro_batch_size)

    def steps(self, start: int, stop: int) -> Iterator[StepBatches]:
        """Yields this rank's shares of global batches `start` to before `stop`, in order."""
        if self._num_workers == 0:
            yield from map(self.load, range(start, stop))
            return
        # Each thread works on a step of its own; a lane's window is loaded once, by whoever gets there first.
        pool = ThreadPoolExecutor(self._num_workers, thread_name_prefix="loader")
        ahead: deque[Future[StepBatches]] = deque()
        try:
            for step in range(start, stop):
                while len(ahead) <= 2 * self._num_workers and step + len(ahead) < stop:
                    ahead.append(pool.submit(self.load, step + len(ahead)))
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _lane_samples(self, lane: int, *, start: int, stop: int) -> list[Samples]:
        parts = []
        held = self._windows[lane]
        with held.lock:
            while start < stop:
                # A step that was started earlier may need the window before the one just loaded: both are kept.
                window, samples = held.find(start) or held.load(self._plan.window(lane, start), self._reader)
                end = min(stop, window.stop)
                parts.append(samples.slice(start - window.start, end - window.start))
                start = end
        return parts


class _LaneWindow:
    """The samples of the two windows of a lane that were read last."""

    def __init__(self) -> None:
        self.lock = Lock()
        self._held: deque[tuple[Window, Samples]] = deque(maxlen=2)

    def find(self, position: int) -> tuple[Window, Samples] | None:
        return next((held for held in self._held if held[0].start <= position < held[0].stop), None)

    def load(self, window: Window, reader: BlockReader) -> tuple[Window, Samples]:
        self._held.append((window, reader.read(window.refs)))
        return self._held[-1]
