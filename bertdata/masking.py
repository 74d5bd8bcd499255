"""Masks: which positions of a sample are predicted, and what the model sees there.

Mask set k of a sample is a pure function of the seed, the sample's content and k: it does not change with the block,
the number of sets or the neighbours, and a loader that draws it gets what a build would have stored.

    tokens            [CLS] the cat sat [SEP] on the mat [SEP]     9 tokens x 0.15 = 1.35 -> 1 position
    set 0, position 3 [CLS] the cat [MASK] [SEP] on the mat [SEP]  label: sat
    set 1, position 7 [CLS] the cat sat [SEP] on the tree [SEP]    label: mat

The number of positions is Google's: max(1, round(length x masked_lm_prob)), half to even, at most
`max_predictions_per_seq`. Positions are drawn without replacement among all but the special tokens, by the first
steps of a Fisher-Yates shuffle that all samples and sets of a block take together. Of the positions 80 % show [MASK],
10 % a random token and 10 % the token itself.

With whole-word masking, words are shuffled instead; one that would exceed the number of positions is passed over.

Source: Devlin et al. 2018, and create_pretraining_data.py of google-research/bert.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bertdata.config import BuildOptions
from bertdata.errors import ConfigError
from bertdata.seeds import below, hash64, stage_key, unit
from bertdata.shards import Block, position_dtype
from bertdata.wordpiece import Vocabulary

__all__ = ["draw_masks", "num_predictions"]

IntArray = npt.NDArray[Any]  # int64; numpy's stubs lose it in arithmetic
UInt64Array = npt.NDArray[Any]  # uint64

_SHOW_MASK = 0.8
_SHOW_RANDOM = 0.9
# What a draw at a position is for; shuffling steps come after these.
_SHOWN, _REPLACEMENT, _STEP = 0, 1, 2


def num_predictions(lengths: IntArray, *, masked_lm_prob: float, max_predictions_per_seq: int | None) -> IntArray:
    """Returns how many positions of samples of the given lengths (specials included) are predicted.

    Args:
        lengths: int64 [N].
        masked_lm_prob: Share of positions.
        max_predictions_per_seq: Cap, or None.
    """
    counts: IntArray = np.maximum(np.rint(lengths * masked_lm_prob).astype(np.int64), 1)
    return counts if max_predictions_per_seq is None else np.minimum(counts, max_predictions_per_seq)


def _sample_keys(block: Block, *, key: int) -> UInt64Array:
    """Returns a key per sample, from its tokens, its boundary and its documents: uint64 [N]."""
    starts = block.token_offsets[:-1].astype(np.int64)
    lengths = block.lengths
    positions = np.arange(len(block.tokens)) - np.repeat(starts, lengths)
    hashes = hash64(key, (positions << 32) + block.tokens.astype(np.int64))
    content = np.add.reduceat(hashes, starts)
    return hash64(key, content, block.segment_b, block.document_keys[:, 0], block.document_keys[:, 1])


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
    if not block.num_samples or not sets:
        empty = np.zeros((block.num_samples, len(sets)), dtype=dtype)
        return empty, np.zeros(0, dtype=dtype), np.zeros(0, dtype=block.tokens.dtype)
    lengths = block.lengths
    budget = num_predictions(
        lengths,
        masked_lm_prob=options.masks.masked_lm_prob,
        max_predictions_per_seq=options.masks.max_predictions_per_seq,
    )
    keys = _sample_keys(block, key=stage_key(options.seed, "masks"))
    # One row per sample and set, sets of a sample next to each other.
    sample = np.repeat(np.arange(block.num_samples), len(sets))
    row_keys = hash64(keys[sample], np.tile(np.asarray(sets, dtype=np.int64), block.num_samples))
    if options.masks.whole_word_mask:
        row, position = _draw_words(block, sample, row_keys, budget[sample], vocabulary=vocabulary)
    else:
        row, position = _draw_positions(block, sample, row_keys, budget[sample])
    ascending = np.argsort((row << 32) + position, kind="stable")
    row, position = row[ascending], position[ascending]
    shown = _shown_tokens(block, sample[row], position, row_keys[row], options=options, vocabulary=vocabulary)
    counts = np.bincount(row, minlength=len(sample)).reshape(block.num_samples, len(sets))
    return counts.astype(dtype), position.astype(dtype), shown


def _has_second_segment(block: Block) -> npt.NDArray[np.bool_]:
    return block.segment_b < block.lengths


def _shuffle_step(table: npt.NDArray[Any], step: int, sizes: IntArray, keys: UInt64Array) -> npt.NDArray[Any]:
    """Moves a random one of the entries from `step` on to place `step` in each row of `table`, and returns it."""
    rows = np.arange(len(table))
    other = step + below(hash64(keys, _STEP + step), sizes - step)
    chosen = table[rows, other]
    table[rows, other] = table[:, step]
    table[:, step] = chosen
    return chosen


def _draw_positions(block: Block, sample: IntArray, keys: UInt64Array, budget: IntArray) -> tuple[IntArray, IntArray]:
    """Draws single positions. Returns row and position of each, in any order."""
    lengths = block.lengths[sample]
    has_b = _has_second_segment(block)[sample]
    first_sep = block.segment_b.astype(np.int64)[sample] - 1
    num_candidates = lengths - 2 - has_b
    budget = np.minimum(budget, num_candidates)
    width = int(num_candidates.max())
    table: npt.NDArray[Any] = np.broadcast_to(np.arange(width, dtype=np.uint16), (len(sample), width)).copy()
    rows: IntArray = np.arange(len(sample))
    found_rows, found = [], []
    for step in range(int(budget.max())):
        going = budget > step
        if not going.all():
            rows, table, budget, num_candidates, keys = (
                values[going] for values in (rows, table, budget, num_candidates, keys)
            )
        found.append(_shuffle_step(table, step, num_candidates, keys).astype(np.int64))
        found_rows.append(rows)
    row = np.concatenate(found_rows)
    position = 1 + np.concatenate(found)
    position += has_b[row] & (position >= first_sep[row])
    return row, position


def _draw_words(
    block: Block, sample: IntArray, keys: UInt64Array, budget: IntArray, *, vocabulary: Vocabulary
) -> tuple[IntArray, IntArray]:
    """Draws whole words. Returns row and position of each of their pieces, in any order."""
    if not vocabulary.marks_all_words:
        raise ConfigError(
            "--whole-word-mask needs a tokenizer whose pieces tell where a word begins; this one's do not"
        )
    word_sample, word_start, word_size = _words(block, vocabulary=vocabulary)
    num_words = np.bincount(word_sample, minlength=block.num_samples)
    first_word = np.cumsum(num_words) - num_words
    sizes = num_words[sample]
    width = int(sizes.max())
    table: npt.NDArray[Any] = np.broadcast_to(np.arange(width, dtype=np.uint16), (len(sample), width)).copy()
    rows: IntArray = np.arange(len(sample))
    left = budget.copy()
    found_rows, found_words = [], []
    for step in range(width):
        going = (sizes > step) & (left > 0)
        if not going.all():
            rows, table, left, sizes, keys = (values[going] for values in (rows, table, left, sizes, keys))
        if not len(rows):
            break
        word = first_word[sample[rows]] + _shuffle_step(table, step, sizes, keys)
        fits = word_size[word] <= left
        left = left - np.where(fits, word_size[word], 0)
        found_rows.append(rows[fits])
        found_words.append(word[fits])
    row, word = np.concatenate(found_rows), np.concatenate(found_words)
    size = word_size[word]
    piece = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
    return np.repeat(row, size), np.repeat(word_start[word], size) + piece


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
    block: Block,
    sample: IntArray,
    position: IntArray,
    keys: UInt64Array,
    *,
    options: BuildOptions,
    vocabulary: Vocabulary,
) -> npt.NDArray[Any]:
    """Draws what stands at each masked position: [MASK], a random token, or the token itself."""
    original = block.tokens[block.token_offsets.astype(np.int64)[sample] + position]
    is_google = options.pairs.next_sentence == "google"
    replacements = np.arange(vocabulary.size) if is_google else vocabulary.ordinary
    position_keys = hash64(keys, position)
    kind = unit(hash64(position_keys, _SHOWN))
    random = replacements[below(hash64(position_keys, _REPLACEMENT), len(replacements))]
    shown = np.where(kind < _SHOW_MASK, vocabulary.roles["mask"], np.where(kind < _SHOW_RANDOM, random, original))
    return shown.astype(block.tokens.dtype)
