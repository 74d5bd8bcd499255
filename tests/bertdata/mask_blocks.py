"""Blocks for the tests of masks, and the mask sets that are drawn for them."""

import itertools

import numpy as np

from bertdata.config import BuildOptions, MaskOptions, PairOptions
from bertdata.masking import draw_masks
from bertdata.shards import Block, position_dtype
from bertdata.spans import offsets_of
from bertdata.wordpiece import Vocabulary

PAD, UNK, CLS, SEP, MASK = range(5)
RESERVED = range(5, 10)
SIZE = 200
CONTINUES = range(100, SIZE)  # pieces that do not begin a word


def vocabulary_of(*, words=True) -> Vocabulary:
    return Vocabulary(
        size=SIZE,
        roles={"pad": PAD, "unk": UNK, "cls": CLS, "sep": SEP, "mask": MASK},
        dtype=np.dtype("<u2"),
        starts_word=~np.isin(np.arange(SIZE), CONTINUES) if words else None,
        marks_all_words=words,
        is_punctuation=np.zeros(SIZE, dtype=bool),
        ordinary=np.arange(RESERVED.stop, SIZE),
    )


VOCABULARY = vocabulary_of()


def options_of(*, mode="balanced", max_seq_length=512, seed=0, **masks) -> BuildOptions:
    return BuildOptions(
        pairs=PairOptions(max_seq_length=max_seq_length, next_sentence=mode), masks=MaskOptions(**masks), seed=seed
    )


def block_of(segments, *, max_seq_length=512) -> Block:
    """A block of samples given as (A, B), with no B where it is empty."""
    rows = [[CLS, *a, SEP, *([*b, SEP] if b else [])] for a, b in segments]
    numbers = np.arange(len(rows), dtype=np.uint64)
    position = position_dtype(max_seq_length)
    return Block(
        tokens=np.array([token for row in rows for token in row], dtype=np.uint16),
        token_offsets=offsets_of(np.array([len(row) for row in rows], dtype=np.int64)).astype(np.uint32),
        segment_b=np.array([len(a) + 2 for a, _ in segments], dtype=position),
        next_sentence_label=np.zeros(len(rows), dtype=np.uint8),
        document_keys=np.stack([numbers, numbers + np.uint64(1 << 63)], axis=1),
        num_predictions=np.zeros((len(rows), 0), dtype=position),
        mask_positions=np.zeros(0, dtype=position),
        mask_tokens=np.zeros(0, dtype=np.uint16),
    )


def random_block(lengths, *, seed=0, low=RESERVED.stop, high=SIZE, max_seq_length=512) -> Block:
    rng = np.random.default_rng(seed)
    return block_of(
        [tuple(rng.integers(low, high, length).tolist() for length in pair) for pair in lengths],
        max_seq_length=max_seq_length,
    )


def sets_of(block, options, *, vocabulary=VOCABULARY, sets=range(3)) -> list[list[tuple[list[int], list[int]]]]:
    """Positions and shown tokens of each set of each sample."""
    counts, positions, shown = draw_masks(block, options=options, vocabulary=vocabulary, sets=sets)
    assert counts.shape == (block.num_samples, len(sets))
    assert counts.sum() == len(positions) == len(shown)
    offsets = offsets_of(counts.ravel())
    flat = [
        (positions[start:stop].tolist(), shown[start:stop].tolist())
        for start, stop in itertools.pairwise(offsets.tolist())
    ]
    return [flat[row * len(sets) : (row + 1) * len(sets)] for row in range(block.num_samples)]


def rows_of(block) -> list[list[int]]:
    return [block.tokens[start:stop].tolist() for start, stop in itertools.pairwise(block.token_offsets.tolist())]
