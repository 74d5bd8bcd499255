"""Masks: which positions of a sample are predicted, and what the model sees there.

Mask set k of a sample is a pure function of the seed, the sample's content and k: it does not change with the block,
the number of sets or the neighbours, and a loader that draws it gets what a build would have stored.

    tokens            [CLS] the cat sat [SEP] on the mat [SEP]     9 tokens x 0.15 = 1.35 -> 1 position
    set 0, position 3 [CLS] the cat [MASK] [SEP] on the mat [SEP]  label: sat
    set 1, position 7 [CLS] the cat sat [SEP] on the tree [SEP]    label: mat

The number of positions is Google's: max(1, round(length x masked_lm_prob)), half to even, at most
`max_predictions_per_seq`. Positions are drawn without replacement among all but the special tokens, by Floyd's
algorithm: one draw per position, and no table to shuffle. All samples and sets of a part of the block take each step
together. Of the positions 80 % show [MASK], 10 % a random token and 10 % the token itself, by the other half of the
bits of the same draw. A matrix with a column per position then puts them in order without sorting.

With whole-word masking, words are shuffled (Fisher-Yates) and taken in that order; one that would exceed the number of
positions is passed over.

Source: Devlin et al. 2018, and create_pretraining_data.py of google-research/bert; Bentley and Floyd 1987.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bertdata.config import BuildOptions
from bertdata.errors import ConfigError
from bertdata.seeds import below, hash64, lower_half, stage_key
from bertdata.shards import Block, position_dtype
from bertdata.spill import gather_spans
from bertdata.wordpiece import Vocabulary

__all__ = ["draw_masks", "num_predictions"]

IntArray = npt.NDArray[Any]  # int64; numpy's stubs lose it in arithmetic
UInt64Array = npt.NDArray[Any]  # uint64

_SHOW_MASK = np.uint64(round(0.8 * 2**64))
_SHOW_RANDOM = np.uint64(round(0.9 * 2**64))
_CELLS_AT_ONCE = 1 << 19  # of the matrix of rows and positions, so that it stays in the processor's cache
# What a draw of whole-word masking is for.
_WORD, _PIECE = range(2)


def num_predictions(lengths: IntArray, *, masked_lm_prob: float, max_predictions_per_seq: int | None) -> IntArray:
    """Returns how many positions of samples of the given lengths (specials included) are predicted.

    Args:
        lengths: int64 [N].
        masked_lm_prob: Share of positions.
        max_predictions_per_seq: Cap, or None.
    """
    counts: IntArray = np.maximum(np.rint(lengths * masked_lm_prob).astype(np.int64), 1)
    return counts if max_predictions_per_seq is None else np.minimum(counts, max_predictions_per_seq)


def draw_masks(
    block: Block, *, options: BuildOptions, vocabulary: Vocabulary, sets: Sequence[int]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Draws mask sets for the samples of a block.

    Args:
        block: N samples; what it holds of mask sets is not looked at.
        options: The build's options, for one length.
        vocabulary: The vocabulary of the tokens.
        sets: Numbers of the K sets to draw.

    Returns:
        `num_predictions` P [N, K], `mask_positions` P [M] and `mask_tokens` (as tokens) [M], as in a `Block`.

    Raises:
        ConfigError: Whole words are asked for, and the tokenizer does not tell where words begin.
    """
    step = max(1, (_CELLS_AT_ONCE >> _shift(block)) // max(1, len(sets)))
    numbers = np.asarray(sets, dtype=np.int64)
    # An empty block or no sets at all is a part of its own, which gives the empty arrays.
    parts = [
        _draw_part(_take_samples(block, start, start + step), numbers, options=options, vocabulary=vocabulary)
        for start in range(0, max(1, block.num_samples), step)
    ]
    counts, positions, tokens = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return counts, positions, tokens


def _take_samples(block: Block, start: int, stop: int) -> Block:
    """Returns samples of a block, without mask sets."""
    offsets = block.token_offsets[start : stop + 1]
    return replace(
        block,
        tokens=block.tokens[offsets[0] : offsets[-1]],
        token_offsets=offsets - offsets[0],
        segment_b=block.segment_b[start:stop],
        next_sentence_label=block.next_sentence_label[start:stop],
        document_keys=block.document_keys[start:stop],
        num_predictions=block.num_predictions[:0],
        mask_positions=block.mask_positions[:0],
        mask_tokens=block.mask_tokens[:0],
    )


def _draw_part(
    block: Block, sets: IntArray, *, options: BuildOptions, vocabulary: Vocabulary
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Draws the mask sets of a part of a block.

    Sets of samples are rows of a matrix with a column per position, and 2**shift columns in all. Masked cells and what
    they show are written there in the order of the draws and read off in order of their positions.
    """
    dtype = position_dtype(options.pairs.max_seq_length)
    shift = _shift(block)
    budget = num_predictions(
        block.lengths,
        masked_lm_prob=options.masks.masked_lm_prob,
        max_predictions_per_seq=options.masks.max_predictions_per_seq,
    )
    keys = hash64(_sample_keys(block, key=stage_key(options.seed, "masks"))[:, None], sets)  # [N, K]
    if options.masks.whole_word_mask:
        counts, cells, bits = _draw_words(block, keys, budget, shift=shift, vocabulary=vocabulary)
    else:
        counts, cells, bits = _draw_positions(block, keys, budget, shift=shift)
    is_masked = np.zeros(keys.size << shift, dtype=bool)
    is_masked[cells] = True
    shown = np.full(len(is_masked), vocabulary.roles["mask"], dtype=block.tokens.dtype)
    kind = lower_half(bits)
    others = np.flatnonzero(kind >= _SHOW_MASK)
    cells = cells[others]
    original = block.tokens[block.token_offsets[(cells >> shift) // len(sets)] + (cells & ((1 << shift) - 1))]
    is_google = options.pairs.next_sentence == "google"
    replacements = np.arange(vocabulary.size) if is_google else vocabulary.ordinary
    random = replacements[below(hash64(bits[others], 0), len(replacements))]
    shown[cells] = np.where(kind[others] < _SHOW_RANDOM, random, original)
    masked = np.flatnonzero(is_masked)
    return counts.astype(dtype), (masked & ((1 << shift) - 1)).astype(dtype), shown[masked]


def _shift(block: Block) -> int:
    """Returns s so that the longest sample has at most 2**s tokens."""
    return max(1, int(block.lengths.max(initial=1)) - 1).bit_length()


def _sample_keys(block: Block, *, key: int) -> UInt64Array:
    """Returns a key per sample, from its tokens, its boundary and its documents: uint64 [N].

    The tokens enter by a sum with one random weight per position (multilinear hashing).
    """
    if not block.num_samples:
        return np.zeros(0, dtype=np.uint64)
    starts = block.token_offsets[:-1].astype(np.int64)
    positions = np.arange(len(block.tokens)) - np.repeat(starts, block.lengths)
    weights = hash64(key, np.arange(int(block.lengths.max())))
    content = np.add.reduceat(block.tokens * weights[positions], starts)
    return hash64(key, content, block.segment_b, block.document_keys[:, 0], block.document_keys[:, 1])


def _has_second_segment(block: Block) -> npt.NDArray[np.bool_]:
    return block.segment_b < block.lengths


def _draw_positions(
    block: Block, keys: UInt64Array, budget: IntArray, *, shift: int
) -> tuple[IntArray, IntArray, UInt64Array]:
    """Draws single positions.

    Floyd's algorithm for m of n candidates: step i draws one of the first n - m + i + 1, and takes the last of these
    where the drawn one has been taken before. What does not depend on the step before is done for all steps at once.

    Returns:
        Number of positions of each row [N, K]; cells of the positions, in any order; their bits, of which the upper
        half is used.
    """
    num_sets = keys.shape[1]
    has_b = _has_second_segment(block)
    num_candidates = block.lengths - 2 - has_b
    budget = np.minimum(budget, num_candidates)
    # Rows with many positions first, so that the rows of a step are the first ones.
    order = np.argsort(-budget, kind="stable")
    row_of_cell = (order[:, None] * num_sets + np.arange(num_sets)).ravel()
    first_cell = row_of_cell << shift
    last = np.repeat((num_candidates - budget)[order], num_sets)
    first_sep = np.where(has_b, block.segment_b.astype(np.int64) - 1, 1 << shift)
    num_steps = int(budget.max(initial=0))
    num_rows = num_sets * (len(budget) - np.searchsorted(np.sort(budget), np.arange(1, num_steps + 1)))

    steps = np.arange(num_steps)[:, None]
    bits = hash64(keys[order].ravel(), steps)  # [steps, rows]
    # Candidates are numbered without special tokens.
    cells = first_cell + below(bits, last + 1 + steps)
    is_taken = np.zeros(keys.size << shift, dtype=bool)
    last_cell = first_cell + last
    for drawn, going in zip(cells, num_rows.tolist(), strict=True):
        drawn = drawn[:going]
        np.copyto(drawn, last_cell[:going], where=is_taken[drawn])
        is_taken[drawn] = True
        last_cell += 1
    cells += 1
    cells += cells >= first_cell + np.repeat(first_sep[order], num_sets)
    is_drawn = np.arange(keys.size) < num_rows[:, None]
    return np.repeat(budget[:, None], num_sets, axis=1), cells[is_drawn], bits[is_drawn]


def _draw_words(
    block: Block, keys: UInt64Array, budget: IntArray, *, shift: int, vocabulary: Vocabulary
) -> tuple[IntArray, IntArray, UInt64Array]:
    """Draws whole words. Returns what `_draw_positions` does, for their pieces."""
    if not vocabulary.marks_all_words:
        raise ConfigError(
            "--whole-word-mask needs a tokenizer whose pieces tell where a word begins; this one's do not"
        )
    num_sets = keys.shape[1]
    word_sample, word_start, word_size = _words(block, vocabulary=vocabulary)
    num_words = np.bincount(word_sample, minlength=block.num_samples)
    first_word = np.cumsum(num_words) - num_words
    rows, row_keys = np.arange(keys.size), keys.ravel()
    sizes, left = np.repeat(num_words, num_sets), np.repeat(budget, num_sets)
    table_width = int(sizes.max(initial=0))
    table: npt.NDArray[Any] = np.broadcast_to(np.arange(table_width, dtype=np.uint16), (len(rows), table_width)).copy()
    found_rows, found_words = [rows[:0]], [rows[:0]]
    for step in range(table_width):
        going = (sizes > step) & (left > 0)
        if not going.all():
            rows, table, left, sizes = rows[going], table[going], left[going], sizes[going]
        if not len(rows):
            break
        # A step of the shuffle: one of the words from `step` on goes to place `step`.
        other = step + below(hash64(row_keys[rows], _WORD, step), sizes - step)
        every = np.arange(len(rows))
        chosen = table[every, other]
        table[every, other] = table[:, step]
        word = first_word[rows // num_sets] + chosen
        fits = word_size[word] <= left
        left = left - np.where(fits, word_size[word], 0)
        found_rows.append(rows[fits])
        found_words.append(word[fits])
    row, word = np.concatenate(found_rows), np.concatenate(found_words)
    size = word_size[word]
    position = gather_spans(word_start[word], word_start[word] + size)[0]
    row = np.repeat(row, size)
    counts = np.bincount(row, minlength=keys.size).reshape(keys.shape)
    return counts, (row << shift) + position, hash64(row_keys[row], _PIECE, position)


def _words(block: Block, *, vocabulary: Vocabulary) -> tuple[IntArray, IntArray, IntArray]:
    """Returns sample, first position and number of pieces of each word; no word crosses a special token."""
    assert vocabulary.starts_word is not None
    offsets = block.token_offsets.astype(np.int64)
    is_special = np.zeros(len(block.tokens), dtype=bool)
    is_special[offsets[:-1]] = True
    is_special[offsets[:-1] + block.segment_b - 1] = True
    is_special[offsets[1:] - 1] = True
    begins = vocabulary.starts_word[block.tokens] | is_special
    begins[1:] |= is_special[:-1]
    starts = np.flatnonzero(begins)
    sizes = np.diff(np.append(starts, len(block.tokens)))
    is_word = ~is_special[starts]
    starts, sizes = starts[is_word], sizes[is_word]
    word_sample = np.repeat(np.arange(block.num_samples), block.lengths)[starts]
    return word_sample, starts - offsets[word_sample], sizes
