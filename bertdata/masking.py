"""Masks: which positions of a sample are predicted, and what the model sees there.

Mask set k of a sample is a pure function of the seed, the sample's content and k: it does not change with the block,
the number of sets or the neighbours, and a loader that draws it gets what a build would have stored.

    tokens            [CLS] the cat sat [SEP] on the mat [SEP]     9 tokens x 0.15 = 1.35 -> 1 position
    set 0, position 3 [CLS] the cat [MASK] [SEP] on the mat [SEP]  label: sat
    set 1, position 7 [CLS] the cat sat [SEP] on the tree [SEP]    label: mat

The number of positions is Google's: max(1, round(length x masked_lm_prob)), half to even, at most
`max_predictions_per_seq`. Positions are drawn without replacement among all but the special tokens, by Floyd's
algorithm: one draw per position, and no table to shuffle. Of the positions 80 % show [MASK], 10 % a random token and
10 % the token itself, by other bits of the same draw. The sets of many samples take each step together.

With whole-word masking, words are shuffled (Fisher-Yates) and taken in that order; one that would exceed the number of
positions is passed over.

Source: Devlin et al. 2018, and create_pretraining_data.py of google-research/bert; Bentley and Floyd 1987.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bertdata.config import BuildOptions
from bertdata.errors import ConfigError
from bertdata.seeds import below, hash64, lower_half, stage_key
from bertdata.shards import Block, position_dtype
from bertdata.spans import gather_spans, offsets_of
from bertdata.wordpiece import Vocabulary

__all__ = ["draw_masks", "num_predictions", "sample_keys", "with_mask_sets"]

IntArray = npt.NDArray[Any]  # int64; numpy's stubs lose it in arithmetic
UInt64Array = npt.NDArray[Any]  # uint64

_SHOW_MASK = np.uint64(round(0.8 * 2**64))
_SHOW_RANDOM = np.uint64(round(0.9 * 2**64))
# As many at once as was fastest: fewer cost calls of numpy, more do not fit the processor's caches.
_DRAWS_AT_ONCE = 1 << 19
_BITS_AT_ONCE = 1 << 15
# A draw is a position and bits that say what is shown there, in one number that sorts by position.
_POSITION_SHIFT = np.uint64(48)
_REST = np.uint64((1 << 48) - 1)
_NO_DRAW = np.uint64((1 << 64) - 1)
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
    dtype = position_dtype(options.pairs.max_seq_length)
    budget = num_predictions(
        block.lengths,
        masked_lm_prob=options.masks.masked_lm_prob,
        max_predictions_per_seq=options.masks.max_predictions_per_seq,
    )
    numbers = np.asarray(sets, dtype=np.int64)
    keys = hash64(sample_keys(block, key=stage_key(options.seed, "masks"))[:, None], numbers)  # [N, K]
    if options.masks.whole_word_mask:
        counts, draws = _draw_words(block, keys, budget, vocabulary=vocabulary)
    else:
        counts, draws = _draw_positions(block, keys, budget)
    shown = _shown_tokens(block, counts, draws, options=options, vocabulary=vocabulary)
    return counts.astype(dtype), _positions(draws).astype(dtype), shown


def with_mask_sets(block: Block, *, options: BuildOptions, vocabulary: Vocabulary, sets: Sequence[int]) -> Block:
    """Returns the block with the mask sets that `draw_masks` draws, instead of those that it holds."""
    counts, positions, shown = draw_masks(block, options=options, vocabulary=vocabulary, sets=sets)
    return dataclasses.replace(block, num_predictions=counts, mask_positions=positions, mask_tokens=shown)


def _pack(positions: npt.NDArray[Any], bits: UInt64Array) -> UInt64Array:
    return (positions.astype(np.uint64) << _POSITION_SHIFT) | (bits & _REST)


def _positions(draws: UInt64Array) -> npt.NDArray[Any]:
    return draws >> _POSITION_SHIFT


def sample_keys(block: Block, *, key: int) -> UInt64Array:
    """Returns a hash of each sample, of its tokens, its boundary and its documents: uint64 [N].

    The tokens enter by a sum with one random weight per position (multilinear hashing).

    Args:
        block: N samples.
        key: With another key the hashes are others.
    """
    if not block.num_samples:
        return np.zeros(0, dtype=np.uint64)
    starts = block.token_offsets[:-1].astype(np.int64)
    positions = np.arange(len(block.tokens)) - np.repeat(starts, block.lengths)
    weights = hash64(key, np.arange(int(block.lengths.max())))
    content = np.add.reduceat(block.tokens * weights[positions], starts)
    return hash64(key, content, block.segment_b, block.document_keys[:, 0], block.document_keys[:, 1])


def _draw_positions(block: Block, keys: UInt64Array, budget: IntArray) -> tuple[IntArray, UInt64Array]:
    """Draws single positions.

    Floyd's algorithm for m of n candidates: step i draws one of the first n - m + i + 1, and takes the last of these
    where the drawn one has been taken before.

    Args:
        block: N samples.
        keys: uint64 [N, K].
        budget: int64 [N]; how many positions to draw, fewer where there are not so many.

    Returns:
        Number of positions of each set, int64 [N, K]; the draws of all sets, packed, in order.
    """
    num_sets = keys.shape[1]
    has_b = block.segment_b < block.lengths
    num_candidates = block.lengths - 2 - has_b
    budget = np.minimum(budget, num_candidates)
    samples_at_once = max(1, _DRAWS_AT_ONCE // max(1, num_sets * int(budget.max(initial=1))))
    # Samples of like budget together, and those with the largest first: the rows of a step are then the first ones.
    order = np.argsort(-budget, kind="stable")
    first_sep = np.where(has_b, block.segment_b.astype(np.int64) - 1, block.lengths)
    parts = [
        _draw_rows(
            keys[samples].ravel(),
            *(np.repeat(values[samples], num_sets) for values in (num_candidates, budget, first_sep)),
        )
        for samples in (order[start : start + samples_at_once] for start in range(0, len(order), samples_at_once))
    ]
    counts = np.repeat(budget[:, None], num_sets, axis=1)
    draws = np.concatenate([np.zeros(0, dtype=np.uint64), *parts])
    # Back in the order of the samples: each has a run of num_sets * budget draws.
    run_starts = np.empty(len(order), dtype=np.int64)
    run_starts[order] = offsets_of(budget[order] * num_sets)[:-1]
    return counts, draws[gather_spans(run_starts, run_starts + budget * num_sets)[0]]


def _draw_rows(keys: UInt64Array, num_candidates: IntArray, budget: IntArray, first_sep: IntArray) -> UInt64Array:
    """Draws the positions of R rows, sets of samples by falling budget; returns the draws, packed, row by row."""
    num_steps = int(budget.max(initial=0))
    num_rows = len(budget) - np.searchsorted(budget[::-1], np.arange(num_steps), side="right")  # that take each step
    last = num_candidates - budget
    drawn = np.empty((num_steps, len(keys)), dtype=np.uint16)  # candidates: positions without special tokens
    draws = np.empty((num_steps, len(keys)), dtype=np.uint64)
    steps_at_once = max(1, _BITS_AT_ONCE // max(1, len(keys)))
    for start in range(0, num_steps, steps_at_once):
        steps = np.arange(start, min(start + steps_at_once, num_steps))
        rows = slice(num_rows[start])
        bits = hash64(keys[rows], steps[:, None])
        latest = last[rows] + steps[:, None]
        candidates = below(bits, latest + 1).astype(np.uint16)
        for step, candidate, limit in zip(steps.tolist(), candidates, latest, strict=True):
            before = drawn[:step, rows]
            is_taken = (before == candidate).any(axis=0)
            np.copyto(candidate, limit, where=is_taken, casting="unsafe")
            drawn[step, rows] = candidate
        positions = candidates + np.uint16(1)
        positions += positions >= first_sep[rows]
        draws[start : start + len(steps), rows] = _pack(positions, bits)
    is_drawn = np.arange(num_steps) < budget[:, None]
    by_row = draws.T.copy()
    by_row[~is_drawn] = _NO_DRAW
    by_row.sort(axis=1)
    return by_row[is_drawn]


def _draw_words(
    block: Block, keys: UInt64Array, budget: IntArray, *, vocabulary: Vocabulary
) -> tuple[IntArray, UInt64Array]:
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
    draws = _pack(position, hash64(row_keys[row], _PIECE, position))
    return np.bincount(row, minlength=keys.size).reshape(keys.shape), draws[np.lexsort((draws, row))]


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


def _shown_tokens(
    block: Block, counts: IntArray, draws: UInt64Array, *, options: BuildOptions, vocabulary: Vocabulary
) -> npt.NDArray[Any]:
    """Returns what stands at each drawn position: [MASK], a random token, or the token itself."""
    shown = np.full(len(draws), vocabulary.roles["mask"], dtype=block.tokens.dtype)
    kind = lower_half(draws)
    others = np.flatnonzero(kind >= _SHOW_MASK)
    sample = np.repeat(np.arange(block.num_samples), counts.sum(axis=1))[others]
    shown[others] = block.tokens[block.token_offsets[sample] + _positions(draws[others])]
    random = others[kind[others] < _SHOW_RANDOM]
    is_google = options.pairs.next_sentence == "google"
    replacements = np.arange(vocabulary.size) if is_google else vocabulary.ordinary
    shown[random] = replacements[below(hash64(draws[random], 0), len(replacements))]
    return shown
