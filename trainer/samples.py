"""Samples as flat arrays: picked out of blocks, joined and reordered without a loop over samples.

N samples, T tokens, P predictions. A `Samples` holds one mask set per sample; ragged parts lie end to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bertdata.shards import Block
from bertdata.spill import offsets_of

__all__ = ["Samples", "span_indices"]


def span_indices(starts: NDArray[np.integer], lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """Returns the indices of several spans, one span after another.

    >>> span_indices(np.array([10, 3]), np.array([3, 2])).tolist()
    [10, 11, 12, 3, 4]
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts.astype(np.int64) - (ends - lengths), lengths) + np.arange(total)


def _join_offsets(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return offsets_of(np.concatenate([np.diff(part) for part in parts]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Some samples, each with the one mask set that it shows.

    Attributes:
        tokens: uint16 or uint32 [T], the original tokens of all samples, end to end.
        token_offsets: int64 [N + 1], where each sample starts in `tokens`.
        segment_b: [N], position in the sample at which segment B starts.
        next_sentence_label: uint8 [N], 0 IsNext, 1 NotNext.
        mask_offsets: int64 [N + 1], where each sample's predictions start in the next two.
        mask_positions: [P], positions in the sample.
        mask_tokens: as tokens [P], what stands there in the model's input.
    """

    tokens: NDArray[np.unsignedinteger]
    token_offsets: NDArray[np.int64]
    segment_b: NDArray[np.unsignedinteger]
    next_sentence_label: NDArray[np.uint8]
    mask_offsets: NDArray[np.int64]
    mask_positions: NDArray[np.unsignedinteger]
    mask_tokens: NDArray[np.unsignedinteger]

    def __len__(self) -> int:
        return len(self.segment_b)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sample, [N]."""
        return np.diff(self.token_offsets)

    @classmethod
    def from_block(
        cls, block: Block, *, sample: NDArray[np.int64], mask_set: NDArray[np.int64], num_mask_sets: int
    ) -> Samples:
        """Returns chosen samples of a block.

        Args:
            block: The block; its mask arrays hold `num_mask_sets` sets per sample.
            sample: [N], numbers of the samples within the block, in any order.
            mask_set: [N], the mask set of each.
            num_mask_sets: Mask sets per sample in the block's arrays.
        """
        token_offsets = block.token_offsets.astype(np.int64)
        num_predictions = block.num_predictions.astype(np.int64).ravel()  # [all samples of the block * K]
        mask_starts = offsets_of(num_predictions)
        lengths = np.diff(token_offsets)[sample]
        sets = sample * num_mask_sets + mask_set
        tokens = span_indices(token_offsets[sample], lengths)
        masks = span_indices(mask_starts[sets], num_predictions[sets])
        return cls(
            tokens=block.tokens[tokens],
            token_offsets=offsets_of(lengths),
            segment_b=block.segment_b[sample],
            next_sentence_label=block.next_sentence_label[sample],
            mask_offsets=offsets_of(num_predictions[sets]),
            mask_positions=block.mask_positions[masks],
            mask_tokens=block.mask_tokens[masks],
        )

    @staticmethod
    def concatenate(parts: Sequence[Samples]) -> Samples:
        """Returns the samples of all parts, one part after another."""
        if len(parts) == 1:
            return parts[0]
        return Samples(
            tokens=np.concatenate([part.tokens for part in parts]),
            token_offsets=_join_offsets([part.token_offsets for part in parts]),
            segment_b=np.concatenate([part.segment_b for part in parts]),
            next_sentence_label=np.concatenate([part.next_sentence_label for part in parts]),
            mask_offsets=_join_offsets([part.mask_offsets for part in parts]),
            mask_positions=np.concatenate([part.mask_positions for part in parts]),
            mask_tokens=np.concatenate([part.mask_tokens for part in parts]),
        )

    def take(self, rows: NDArray[np.integer]) -> Samples:
        """Returns the samples at `rows`, in that order."""
        lengths = self.lengths[rows]
        num_predictions = np.diff(self.mask_offsets)[rows]
        tokens = span_indices(self.token_offsets[rows], lengths)
        masks = span_indices(self.mask_offsets[rows], num_predictions)
        return Samples(
            tokens=self.tokens[tokens],
            token_offsets=offsets_of(lengths),
            segment_b=self.segment_b[rows],
            next_sentence_label=self.next_sentence_label[rows],
            mask_offsets=offsets_of(num_predictions),
            mask_positions=self.mask_positions[masks],
            mask_tokens=self.mask_tokens[masks],
        )

    def slice(self, start: int, stop: int) -> Samples:
        """Returns the samples from `start` to before `stop`, as views where that is possible."""
        first_token, last_token = self.token_offsets[start], self.token_offsets[stop]
        first_mask, last_mask = self.mask_offsets[start], self.mask_offsets[stop]
        return Samples(
            tokens=self.tokens[first_token:last_token],
            token_offsets=self.token_offsets[start : stop + 1] - first_token,
            segment_b=self.segment_b[start:stop],
            next_sentence_label=self.next_sentence_label[start:stop],
            mask_offsets=self.mask_offsets[start : stop + 1] - first_mask,
            mask_positions=self.mask_positions[first_mask:last_mask],
            mask_tokens=self.mask_tokens[first_mask:last_mask],
        )
