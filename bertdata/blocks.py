"""Blocks: spans of tokens become samples, [CLS] A [SEP] B [SEP], end to end, with their mask sets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bertdata.config import BuildOptions
from bertdata.masking import with_mask_sets
from bertdata.pairs import Pairs
from bertdata.shards import Block, position_dtype
from bertdata.spans import gather_spans, offsets_of
from bertdata.spill import Documents
from bertdata.wordpiece import Vocabulary

__all__ = ["Sample", "iter_samples", "make_block"]


def make_block(documents: Documents, pairs: Pairs, *, options: BuildOptions, vocabulary: Vocabulary) -> Block:
    """Returns the block of the given pairs.

    Args:
        documents: The documents whose tokens the pairs point to.
        pairs: N samples.
        options: The build's options, for one length.
        vocabulary: The vocabulary of the tokens.
    """
    a_length, b_length = pairs.a_stop - pairs.a_start, pairs.b_stop - pairs.b_start
    has_b = b_length > 0
    offsets = offsets_of(a_length + b_length + 2 + has_b)
    starts, ends = offsets[:-1], offsets[1:]
    segment_b = a_length + 2
    tokens = np.empty(offsets[-1], dtype=vocabulary.dtype)
    tokens[starts] = vocabulary.roles["cls"]
    tokens[starts + segment_b - 1] = vocabulary.roles["sep"]
    tokens[ends - 1] = vocabulary.roles["sep"]
    for source, target, length in (
        (pairs.a_start, starts + 1, a_length),
        (pairs.b_start, starts + segment_b, b_length),
    ):
        tokens[gather_spans(target, target + length)[0]] = documents.tokens[gather_spans(source, source + length)[0]]
    dtype = position_dtype(options.pairs.max_seq_length)
    block = Block(
        tokens=tokens,
        token_offsets=offsets.astype(np.uint32),
        segment_b=segment_b.astype(dtype),
        next_sentence_label=pairs.next_sentence_label,
        document_keys=documents.keys[pairs.documents, 0],
        num_predictions=np.zeros((len(pairs), 0), dtype=dtype),
        mask_positions=np.zeros(0, dtype=dtype),
        mask_tokens=np.zeros(0, dtype=vocabulary.dtype),
        label_forced=pairs.is_forced.astype(np.uint8) if options.pairs.next_sentence == "google" else None,
    )
    sets = range(options.masks.num_mask_sets)
    return with_mask_sets(block, options=options, vocabulary=vocabulary, sets=sets)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One sample, as `bertdata.read_samples` gives it.

    Attributes:
        tokens: Ids of [CLS] A [SEP] B [SEP].
        segment_ids: 0 for [CLS] A [SEP], 1 for B [SEP]; as long as `tokens`.
        next_sentence_label: 0 IsNext, 1 NotNext.
        document_keys: First 64 bits of the keys of A's and B's documents.
        mask_sets: For each set, the positions that are predicted and the ids that the model sees there. The labels are
            the tokens at these positions.
        label_forced: Whether the label was not drawn, see `bertdata.shards.Block`; False where the shard does not say.
    """

    tokens: list[int]
    segment_ids: list[int]
    next_sentence_label: int
    document_keys: tuple[int, int]
    mask_sets: list[tuple[list[int], list[int]]]
    label_forced: bool = False


def iter_samples(block: Block) -> Iterator[Sample]:
    """Yields the samples of a block."""
    offsets = block.token_offsets.tolist()
    mask_offsets = offsets_of(block.num_predictions.ravel()).tolist()
    num_sets = block.num_predictions.shape[1]
    for row in range(block.num_samples):
        tokens = block.tokens[offsets[row] : offsets[row + 1]].tolist()
        segment_b = int(block.segment_b[row])
        bounds = mask_offsets[row * num_sets : (row + 1) * num_sets + 1]
        yield Sample(
            tokens=tokens,
            segment_ids=[0] * segment_b + [1] * (len(tokens) - segment_b),
            next_sentence_label=int(block.next_sentence_label[row]),
            document_keys=(int(block.document_keys[row, 0]), int(block.document_keys[row, 1])),
            mask_sets=[
                (block.mask_positions[start:stop].tolist(), block.mask_tokens[start:stop].tolist())
                for start, stop in itertools.pairwise(bounds)
            ],
            label_forced=block.label_forced is not None and bool(block.label_forced[row]),
        )
