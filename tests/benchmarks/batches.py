"""The batches that every loader of the benchmark makes, from records that hold a sample with all its mask sets.

N samples with K mask sets, T tokens, M predictions in all sets; a batch has B samples, P predictions of the set shown.
A record is what a careful user would store of a sample, three arrays of uint16: few arrays, because each costs a header
and a call.

    tokens  [T of the sample]
    facts   [3 + K]             its length, where segment B starts, next-sentence label, predictions in each mask set
    masks   [M of the sample, 2]    position and what the model sees there, mask sets in order
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bertdata.data_set import DataSet
from bertdata.shards import Block
from bertdata.spans import offsets_of

__all__ = [
    "BATCH_SIZE",
    "Finished",
    "Record",
    "block_fingerprints",
    "choose_masks",
    "collate",
    "facts_of",
    "fingerprints",
    "finish",
    "join_blocks",
    "records_of",
    "spans",
]

BATCH_SIZE = 256
NUM_FACTS = 3
_NUMBERS = np.arange(1 << 18)

Array = np.ndarray[Any, Any]
Record = tuple[Array, Array, Array]


class Finished(NamedTuple):
    """A batch without padding; fields, dtypes and shapes are those of `trainer.batch.Batch`."""

    token_ids: Tensor
    token_type_ids: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    mask_rows: Tensor
    mask_labels: Tensor
    next_sentence_labels: Tensor


def spans(starts: Array, lengths: Array) -> Array:
    """Returns the indices of several spans, one span after another: int64."""
    ends = np.cumsum(lengths)
    indices = np.repeat(starts - ends + lengths, lengths)
    indices += _NUMBERS[: len(indices)] if len(indices) <= len(_NUMBERS) else np.arange(len(indices))
    return indices


def finish(
    tokens: Array, lengths: Array, segment_b: Array, labels: Array, counts: Array, positions: Array, shown: Array
) -> Finished:
    """Returns the batch of samples that lie end to end, each with one mask set.

    Args:
        tokens: [T], the original tokens.
        lengths: int64 [B].
        segment_b: int64 [B].
        labels: [B], next-sentence labels.
        counts: int64 [B], predictions of each sample.
        positions: [P], positions in their samples.
        shown: [P], what the model sees there.
    """
    cu_seqlens = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=cu_seqlens[1:])
    token_ids = tokens.astype(np.int32)
    rows = np.repeat(cu_seqlens[:-1].astype(np.int64), counts)
    rows += positions
    mask_labels = token_ids[rows].astype(np.int64)
    token_ids[rows] = shown
    halves = np.stack([segment_b, lengths - segment_b], axis=1).ravel()
    types = np.repeat(np.tile(np.array([0, 1], dtype=np.int32), len(lengths)), halves)
    return Finished(
        token_ids=torch.from_numpy(token_ids),
        token_type_ids=torch.from_numpy(types),
        cu_seqlens=torch.from_numpy(cu_seqlens),
        max_seqlen=int(lengths.max()),
        mask_rows=torch.from_numpy(rows),
        mask_labels=torch.from_numpy(mask_labels),
        next_sentence_labels=torch.from_numpy(labels.astype(np.int64)),
    )


def choose_masks(block: Block, rng: np.random.Generator) -> tuple[Array, Array]:
    """Draws one mask set for each sample: counts int64 [N], and where predictions lie in the block's arrays [P]."""
    counts = block.num_predictions.astype(np.int64)
    sets = np.arange(0, counts.size, counts.shape[1]) + rng.integers(counts.shape[1], size=len(counts))
    chosen = counts.ravel()[sets]
    return chosen, spans(offsets_of(counts.ravel())[sets], chosen)


def collate(tokens: Array, facts: Array, masks: Array, *, rng: np.random.Generator | None) -> Finished:
    """Returns the batch of the records whose parts lie end to end, each with one of its mask sets drawn.

    Args:
        tokens: [T].
        facts: [B * (3 + K)] or [B, 3 + K].
        masks: [2 * M] or [M, 2].
        rng: What mask sets are drawn with; None where there is but one.
    """
    masks = masks.reshape(-1, 2)
    facts = facts.reshape(BATCH_SIZE, -1).astype(np.int64)
    counts = facts[:, NUM_FACTS:]
    num_sets = counts.shape[1]
    if rng is not None:
        sets = np.arange(0, counts.size, num_sets) + rng.integers(num_sets, size=len(counts))
        flat = counts.ravel()
        chosen = flat[sets]
        masks = masks[spans((np.cumsum(flat) - flat)[sets], chosen)]
    else:
        chosen = counts[:, 0]
    return finish(tokens, facts[:, 0], facts[:, 1], facts[:, 2], chosen, masks[:, 0], masks[:, 1])


def join_blocks(data_set: DataSet, *, num_samples: int) -> Block:
    """Returns the first blocks of the training split as one, as many as hold `num_samples`."""
    index = data_set.blocks("train")
    num_blocks = int(np.searchsorted(np.cumsum(index.num_samples), num_samples)) + 1
    blocks = [data_set.read(index, row) for row in range(min(num_blocks, len(index)))]

    def joined(field: str) -> Array:
        return np.concatenate([getattr(block, field) for block in blocks])

    offsets = offsets_of(np.concatenate([block.lengths for block in blocks]))
    fields = ("tokens", "segment_b", "next_sentence_label", "document_keys", "num_predictions")
    return Block(
        token_offsets=offsets, **{field: joined(field) for field in (*fields, "mask_positions", "mask_tokens")}
    )


def facts_of(block: Block) -> Array:
    """Returns the facts of each sample: uint16 [N, 3 + K]."""
    facts = [block.lengths, block.segment_b, block.next_sentence_label, *block.num_predictions.T]
    return np.stack(facts, axis=1).astype(np.uint16)


def records_of(block: Block) -> Iterator[Record]:
    """Yields the record of each sample."""
    facts, tokens = facts_of(block), block.tokens.astype(np.uint16)
    masks = np.stack([block.mask_positions, block.mask_tokens], axis=1).astype(np.uint16)
    offsets = block.token_offsets.tolist()
    mask_offsets = offsets_of(block.num_predictions.sum(axis=1, dtype=np.int64)).tolist()
    for number in range(block.num_samples):
        first, last = mask_offsets[number : number + 2]
        yield tokens[offsets[number] : offsets[number + 1]], facts[number], masks[first:last]


def fingerprints(batches: Iterable[Any]) -> Array:
    """Returns a number for each sample of some batches, made of length, segments, label and sum of original tokens."""
    parts = []
    for batch in batches:
        tokens, starts = batch.token_ids.numpy().astype(np.int64), batch.cu_seqlens.numpy()[:-1]
        tokens[batch.mask_rows.numpy()] = batch.mask_labels.numpy()
        parts.append(
            _fingerprint(
                np.add.reduceat(tokens, starts),
                np.diff(batch.cu_seqlens.numpy()).astype(np.int64),
                np.add.reduceat(batch.token_type_ids.numpy().astype(np.int64), starts),
                batch.next_sentence_labels.numpy(),
            )
        )
    return np.concatenate(parts)


def block_fingerprints(block: Block) -> Array:
    """Returns the same number for each sample of a block."""
    sums = np.add.reduceat(block.tokens.astype(np.int64), block.token_offsets[:-1].astype(np.int64))
    return _fingerprint(sums, block.lengths, block.lengths - block.segment_b, block.next_sentence_label)


def _fingerprint(sums: Array, lengths: Array, num_b: Array, labels: Array) -> Array:
    return ((sums * 1024 + lengths) * 1024 + num_b) * 2 + labels
