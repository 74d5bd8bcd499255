"""Decoded blocks side by side in a few large arrays, so that samples of many blocks are gathered by one indexing.

Every block has a slot, a row in each array that is as wide as the largest block needs:

    slot            0                        1                        2
    tokens          c c c c c c c c . . .    a a a a a a a a a a a    free
    token offsets   0 3 8                    0 4 7 11                      where its samples begin in the row

Of the K mask sets of a sample only the one that it shows is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bertdata.errors import ShardError
from bertdata.shards import Block
from bertdata.spans import gather_spans, offsets_of

__all__ = ["Arena", "BlockLimits", "Shown"]

_GROWTH = 1.2


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockLimits:
    """What the largest blocks of a data set need.

    Attributes:
        num_samples: Samples of a block at most.
        num_tokens: Tokens of a block at most.
        num_predictions: Predictions that one mask set of a block has at most.
        token_dtype: Of tokens.
        position_dtype: Of positions in a sample.
    """

    num_samples: int
    num_tokens: int
    num_predictions: int
    token_dtype: np.dtype[Any]
    position_dtype: np.dtype[Any]


class Shown(NamedTuple):
    """N samples as the model is shown them, each with one mask set, end to end: T tokens, P predictions.

    Attributes:
        token_ids: int32 [T], with the mask set put in.
        token_type_ids: int32 [T], 0 in segment A, 1 in segment B.
        token_offsets: int64 [N + 1], where each sample starts in the two.
        mask_rows: int64 [P], index into the token arrays of each position to predict.
        mask_labels: int64 [P], the original token there.
        mask_offsets: int64 [N + 1], where each sample's predictions start in the two.
        next_sentence_labels: int64 [N], 0 IsNext, 1 NotNext.
        label_forced: bool [N], where this label was not drawn; see `bertdata.shards.Block`.
    """

    token_ids: NDArray[np.int32]
    token_type_ids: NDArray[np.int32]
    token_offsets: NDArray[np.int64]
    mask_rows: NDArray[np.int64]
    mask_labels: NDArray[np.int64]
    mask_offsets: NDArray[np.int64]
    next_sentence_labels: NDArray[np.int64]
    label_forced: NDArray[np.bool_]


class Arena:
    """Holds blocks until they are released.

    Args:
        limits: What the largest block needs.
    """

    def __init__(self, limits: BlockLimits) -> None:
        def rows(width: int, dtype: Any, *more: int) -> NDArray[Any]:
            return np.empty((0, width, *more), dtype=dtype)

        self._num_offsets = limits.num_samples + 1
        self._tokens = rows(limits.num_tokens, limits.token_dtype)
        self._token_bytes = rows(self._num_offsets, np.int64)  # where samples begin in all of `_tokens`
        self._masks = rows(limits.num_predictions, limits.token_dtype, 2)  # position, and what is shown there
        self._mask_bytes = rows(self._num_offsets, np.int64)
        self._segment_b = rows(self._num_offsets, limits.position_dtype)
        self._labels = rows(self._num_offsets, np.uint8)  # plus 2 where forced: both are gathered at once
        self._free: list[int] = []
        self._filled: dict[int, tuple[int, int, int]] = {}  # samples, tokens and masks of each slot

    def reserve(self, num_blocks: int) -> None:
        """Makes room for so many more blocks. What is not filled takes hardly any memory: it is not touched."""
        missing = num_blocks - len(self._free)
        if missing <= 0:
            return
        before = len(self._tokens)
        after = math.ceil((before + missing) * _GROWTH)
        for name, rows in vars(self).items():
            if isinstance(rows, np.ndarray):
                grown = np.empty((after, *rows.shape[1:]), dtype=rows.dtype)
                which = {"_tokens": 1, "_masks": 2}.get(name, 0)
                for slot, filled in self._filled.items():
                    length = filled[which] + (which == 0)  # there is an offset more than samples
                    grown[slot, :length] = rows[slot, :length]
                setattr(self, name, grown)
        for begins in (self._token_bytes, self._mask_bytes):
            begins[0, 0] = begins[-1, -1] = 0  # Arrow looks at the first and the last, whether or not they are filled
        self._free.extend(reversed(range(before, after)))  # the lowest is taken first

    def add(self, block: Block, mask_sets: NDArray[np.int64]) -> int:
        """Copies a block.

        Args:
            block: A checked block of N samples.
            mask_sets: int64 [N], the mask set that each sample shows, among those that the block holds.

        Returns:
            Its slot.

        Raises:
            ShardError: The block is larger than the limits.
        """
        num_samples, num_sets = block.num_predictions.shape
        chosen = np.arange(num_samples) * num_sets + mask_sets
        starts = offsets_of(block.num_predictions.ravel())
        masks, mask_offsets = gather_spans(starts[chosen], starts[chosen + 1])
        if len(masks) > self._masks.shape[1]:
            raise ShardError(
                f"a mask set of the block predicts {len(masks)} positions, more than the options of its data set "
                "allow; build the data set again"
            )
        self.reserve(1)
        slot = self._free.pop()
        self._tokens[slot, : len(block.tokens)] = block.tokens
        self._masks[slot, : len(masks), 0] = block.mask_positions[masks]
        self._masks[slot, : len(masks), 1] = block.mask_tokens[masks]
        for rows, begins, offsets in (
            (self._tokens, self._token_bytes, block.token_offsets),
            (self._masks, self._mask_bytes, mask_offsets),
        ):
            begins[slot, : num_samples + 1] = slot * rows[0].nbytes + offsets * np.int64(rows[0, 0].nbytes)
        self._segment_b[slot, :num_samples] = block.segment_b
        self._labels[slot, :num_samples] = block.next_sentence_label
        if block.label_forced is not None:
            self._labels[slot, :num_samples] += 2 * block.label_forced
        self._filled[slot] = (num_samples, len(block.tokens), len(masks))
        return slot

    def release(self, slot: int) -> None:
        """Gives the room of a block to others."""
        self._free.append(slot)
        del self._filled[slot]

    def lengths(self, slots: NDArray[np.int64], samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the tokens of samples [N], given by slot [N] and number within the block [N]."""
        begins, cells = self._token_bytes.reshape(-1), slots * self._num_offsets + samples
        lengths: NDArray[np.int64] = (begins[cells + 1] - begins[cells]) // self._tokens.itemsize
        return lengths

    def show(self, slots: NDArray[np.int64], samples: NDArray[np.int64]) -> Shown:
        """Returns samples in the given order, masked.

        Args:
            slots: int64 [N], slot of each sample's block.
            samples: int64 [N], number of each sample within its block.
        """
        cells = slots * self._num_offsets + samples
        tokens, token_offsets = _take_spans(self._tokens, self._token_bytes, cells)
        masks, mask_offsets = _take_spans(self._masks, self._mask_bytes, cells)
        token_ids = tokens.astype(np.int32)
        mask_rows = np.repeat(token_offsets[:-1], np.diff(mask_offsets))
        mask_rows += masks[:, 0]
        mask_labels = token_ids.take(mask_rows).astype(np.int64)  # take() is half as fast again as brackets
        token_ids[mask_rows] = masks[:, 1]

        labels = self._labels.reshape(-1)[cells]
        runs = np.empty((len(cells), 2), dtype=np.int64)  # tokens of segment A, and of segment B
        runs[:, 0] = self._segment_b.reshape(-1)[cells]
        runs[:, 1] = np.diff(token_offsets) - runs[:, 0]
        return Shown(
            token_ids=token_ids,
            token_type_ids=np.repeat(np.tile(np.array([0, 1], dtype=np.int32), len(cells)), runs.reshape(-1)),
            token_offsets=token_offsets,
            mask_rows=mask_rows,
            mask_labels=mask_labels,
            mask_offsets=mask_offsets,
            next_sentence_labels=(labels & 1).astype(np.int64),
            label_forced=labels > 1,
        )


def _take_spans(
    rows: NDArray[Any], begins: NDArray[np.int64], cells: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Returns N spans of `rows` end to end, and where each starts among them: int64 [N + 1].

    Args:
        rows: Elements, of which the first two dimensions count as one.
        begins: Byte at which each span begins; it ends where the next one begins.
        cells: int64 [N], numbers of spans in the flat `begins`.
    """
    # Arrow copies whole spans. An index of every element, which numpy needs, takes twice the time.
    buffers = [None, pa.py_buffer(begins), pa.py_buffer(rows)]
    spans = pa.LargeBinaryArray.from_buffers(pa.large_binary(), begins.size - 1, buffers)
    taken = pc.take(spans, pa.array(cells), boundscheck=False)
    _, offsets, data = taken.buffers()
    element_bytes = rows[0, 0].nbytes
    found = np.frombuffer(offsets, dtype=np.int64, count=len(cells) + 1) // element_bytes
    elements = np.frombuffer(data, dtype=rows.dtype, count=int(found[-1]) * (element_bytes // rows.itemsize))
    return elements.reshape(-1, *rows.shape[2:]), found
