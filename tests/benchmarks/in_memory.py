"""The limit of every loader: samples that lie in memory, each already with one mask set, put together by whole arrays.

Nothing is read, checked or decoded here, and the order is one random permutation; only the batches are made. The ragged
form makes the batches that the loader makes. The padded form does less: inputs were masked and widened beforehand, so
that a batch is rows of arrays and never has to be put together from samples; it holds about four times the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bertdata.shards import Block
from bertdata.spans import offsets_of
from tests.benchmarks.batches import BATCH_SIZE, Array, Finished, choose_masks, finish, spans

__all__ = ["PaddedBatch", "padded", "ragged"]


class PaddedBatch(NamedTuple):
    """A batch of B samples padded to L, with at most P predictions each; padding of predictions has the label -100."""

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    mask_positions: Tensor
    mask_labels: Tensor
    next_sentence_labels: Tensor

    def finished(self) -> Finished:
        """Returns the batch in the other form, to be compared."""
        lengths = self.attention_mask.sum(dim=1)
        is_token, is_label = self.attention_mask.bool(), self.mask_labels >= 0
        cu_seqlens = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        rows = (cu_seqlens[:-1, None] + self.mask_positions)[is_label]
        return Finished(
            token_ids=self.input_ids[is_token],
            token_type_ids=self.token_type_ids[is_token],
            cu_seqlens=cu_seqlens.int(),
            max_seqlen=int(lengths.max()),
            mask_rows=rows,
            mask_labels=self.mask_labels[is_label].long(),
            next_sentence_labels=self.next_sentence_labels,
        )


def _permuted(num_samples: int, rng: np.random.Generator) -> Iterator[Array]:
    order = rng.permutation(num_samples)
    for start in range(0, num_samples - BATCH_SIZE + 1, BATCH_SIZE):
        yield order[start : start + BATCH_SIZE]


def ragged(block: Block, *, seed: int) -> Callable[[], Iterator[Finished]]:
    """Returns what iterates over the batches of an epoch of samples that lie end to end in memory."""
    rng = np.random.default_rng(seed)
    counts, masks = choose_masks(block, rng)
    positions, shown = block.mask_positions[masks], block.mask_tokens[masks]
    mask_offsets, token_offsets, lengths = offsets_of(counts), block.token_offsets, block.lengths
    tokens, segment_b, labels = block.tokens, block.segment_b.astype(np.int64), block.next_sentence_label

    def epoch() -> Iterator[Finished]:
        for rows in _permuted(block.num_samples, rng):
            length, count = lengths.take(rows), counts.take(rows)
            # The indices are right: "clip" only spares numpy a copy of them that it would check first.
            masks = spans(mask_offsets.take(rows), count)
            yield finish(
                tokens.take(spans(token_offsets.take(rows), length), mode="clip"),
                length,
                segment_b.take(rows),
                labels.take(rows),
                count,
                positions.take(masks, mode="clip"),
                shown.take(masks, mode="clip"),
            )

    return epoch


def padded(block: Block, *, max_seq_length: int, seed: int) -> Callable[[], Iterator[PaddedBatch]]:
    """Returns what iterates over the batches of an epoch of samples that were masked and padded beforehand."""
    rng = np.random.default_rng(seed)
    counts, masks = choose_masks(block, rng)
    positions, shown = block.mask_positions[masks], block.mask_tokens[masks]
    lengths, (num_samples, most) = block.lengths, (block.num_samples, int(counts.max()))
    places = np.arange(max_seq_length)
    is_token = places < lengths[:, None]
    is_prediction = np.arange(most) < counts[:, None]
    ids = np.zeros((num_samples, max_seq_length), dtype=np.int32)
    ids[is_token] = block.tokens
    types = (is_token & (places >= block.segment_b[:, None])).astype(np.int32)
    position_of, label_of = np.zeros((num_samples, most), dtype=np.int64), np.full((num_samples, most), -100)
    position_of[is_prediction] = positions
    owner = np.repeat(np.arange(num_samples), counts)
    label_of[is_prediction] = ids[owner, positions]
    ids[owner, positions] = shown
    parts = (ids, is_token, types, position_of, label_of, block.next_sentence_label.astype(np.int64))

    def epoch() -> Iterator[PaddedBatch]:
        for rows in _permuted(num_samples, rng):
            yield PaddedBatch(*(torch.from_numpy(part.take(rows, axis=0)) for part in parts))

    return epoch
