"""Counting: what a shard adds to the statistics of a data set, block by block, and of its documents."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from bertdata.pairs import Pairs
from bertdata.shards import Block
from bertdata.spill import Documents
from bertdata.statistics import NUM_BUCKETS, NUM_PLACES, Statistics, add_segment_lengths, bucket_of

__all__ = ["count_block", "count_documents", "count_shown_tokens"]

IntArray = npt.NDArray[np.int64]


def count_block(block: Block, *, empty: Statistics, mask_token: int, has_labels: bool) -> Statistics:
    """Counts the samples of one block.

    Args:
        block: The samples, with what mask sets they have.
        empty: Statistics of nothing, in the shapes of the data set.
        mask_token: Id of [MASK].
        has_labels: Whether the label says something of the segments (not in mode "none").
    """
    offsets = block.token_offsets.astype(np.int64)
    lengths = block.lengths
    has_b = block.segment_b < lengths
    candidates = lengths - 2 - has_b
    segment_lengths = np.zeros_like(empty.segment_lengths)
    if has_labels:
        add_segment_lengths(
            segment_lengths,
            places=np.arange(block.num_samples),
            labels=block.next_sentence_label,
            a_lengths=block.segment_b.astype(np.int64) - 2,
            both_lengths=candidates,
            max_seq_length=len(empty.sample_lengths) - 1,
        )

    per_sample = block.num_predictions.sum(axis=1, dtype=np.int64)
    positions = block.mask_positions.astype(np.int32)
    originals = block.tokens[np.repeat(offsets[:-1], per_sample) + positions]
    is_mask = block.mask_tokens == mask_token
    num_masks, num_known = np.count_nonzero(is_mask), np.count_nonzero(is_mask | (block.mask_tokens == originals))
    rank = positions - 1 - (positions >= np.repeat(block.segment_b, per_sample))
    # Division of floats is many times as fast as that of integers, and as exact for numbers as small as these.
    places = rank * np.float64(NUM_PLACES) / np.repeat(candidates, per_sample)
    return dataclasses.replace(
        empty,
        sample_lengths=np.bincount(lengths, minlength=len(empty.sample_lengths)),
        segment_lengths=segment_lengths,
        token_counts=np.bincount(block.tokens, minlength=len(empty.token_counts)),
        shown=np.array([num_masks, len(positions) - num_known, num_known - num_masks]),
        predictions_by_candidates=_sums(per_sample, by=candidates, like=empty.predictions_by_candidates),
        prediction_places=np.bincount(places.astype(np.int64), minlength=NUM_PLACES),
    )


def _sums(values: IntArray, *, by: IntArray, like: IntArray) -> IntArray:
    return np.bincount(by, weights=values, minlength=len(like)).astype(np.int64)


def count_documents(documents: Documents, *, empty: Statistics) -> Statistics:
    """Counts the documents that samples are made of."""
    tokens_before = documents.token_offsets[documents.sentence_offsets]
    lengths = (np.diff(tokens_before), np.diff(documents.sentence_offsets), np.diff(documents.token_offsets))
    tokens, sentences, by_sentence = (np.bincount(bucket_of(values), minlength=NUM_BUCKETS) for values in lengths)
    return dataclasses.replace(empty, document_tokens=tokens, document_sentences=sentences, sentence_tokens=by_sentence)


def count_shown_tokens(pairs: Pairs) -> int:
    """Returns how many tokens of the documents stand in at least one segment."""
    starts = np.concatenate([pairs.a_start, pairs.b_start])
    stops = np.concatenate([pairs.a_stop, pairs.b_stop])
    order = np.argsort(starts)
    starts, stops = starts[order], stops[order]
    reached = np.maximum.accumulate(np.concatenate([[0], stops[:-1]])) if len(stops) else stops
    return int(np.maximum(stops - np.maximum(starts, reached), 0).sum())
