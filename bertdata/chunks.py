"""Chunks: documents cut into runs of sentences, each divided into what is segment A and the rest, with a label.

What a chunk is, and how the modes differ, `bertdata.pairs` tells. Here is the scan over the documents: where a chunk
ends, where A ends in it, whether its label is IsNext or NotNext, and so where the next chunk begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from bertdata.config import PairOptions
from bertdata.seeds import below, hash64, lower_half, unit
from bertdata.spill import Documents

__all__ = ["Chunks", "Draw", "cut_chunks", "draw_targets"]

IntArray = npt.NDArray[np.int64]
UInt64Array = npt.NDArray[np.uint64]

_DRAWS_AT_ONCE = 4096


class Draw(IntEnum):
    """What a draw for a chunk is for: the last counter of its hash."""

    LENGTH = 0
    CUT = 1
    B = 2
    B_SENTENCE = 3
    ORDER = 4
    FRONT_A = 5
    FRONT_B = 6
    B_RETRY = 16  # and from there on, by the number of the try


def draw_targets(bits: UInt64Array, *, max_num_tokens: int, short_seq_prob: float) -> IntArray:
    """Draws target lengths: uniform on [2, max_num_tokens] with `short_seq_prob`, else max_num_tokens."""
    short = 2 + below(bits, max_num_tokens - 1)
    return np.where(unit(lower_half(bits)) < short_seq_prob, short, max_num_tokens)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunks:
    """C chunks of sentences, before B is chosen; all int64 [C] but for two.

    Attributes:
        rows: Row of the document.
        keys: uint64 [C]; what the draws of the chunk are made of.
        start: First sentence, of A.
        a_end: The sentence after A's last.
        stop: The sentence after the chunk's last.
        target: Tokens that it was to have.
        label: 0 IsNext, 1 NotNext (sop: swapped).
        is_forced: bool [C]; the label was not drawn, because the chunk has one sentence.
    """

    rows: IntArray
    keys: UInt64Array
    start: IntArray
    a_end: IntArray
    stop: IntArray
    target: IntArray
    label: IntArray
    is_forced: npt.NDArray[np.bool_]


def cut_chunks(documents: Documents, keys: UInt64Array, *, options: PairOptions, has_random: bool) -> Chunks:
    """Cuts documents into chunks, each into what is A and the rest, and draws the labels.

    All documents advance together, a chunk each per step. Where few are left, the bits of many steps are drawn at once.

    Args:
        documents: D documents; those with fewer sentences than a chunk must have are left out.
        keys: uint64 [D]; what the draws of this pass are made of.
        options: Mode and length.
        has_random: Whether a random B can be drawn for every document, so that a chunk may be NotNext.
    """
    mode = options.next_sentence
    max_num_tokens = options.max_seq_length - 3
    offsets = documents.token_offsets
    least = 1 if mode == "google" else 2  # sentences in a chunk

    rows = np.flatnonzero(np.diff(documents.sentence_offsets) >= least)
    start, end = documents.sentence_offsets[rows], documents.sentence_offsets[rows + 1]
    surplus = np.zeros(len(rows), dtype=np.int64)  # NotNext less IsNext so far, per document
    is_settled = np.zeros(len(rows), dtype=bool)  # a chunk has reached the document's end
    found: list[tuple[npt.NDArray[Any], ...]] = []
    number = column = 0
    chunk_keys = length_bits = cut_bits = np.zeros((len(rows), 0), dtype=np.uint64)
    while len(rows):
        if column == chunk_keys.shape[1]:
            numbers = number + np.arange(max(1, _DRAWS_AT_ONCE // len(rows)))
            chunk_keys, column = hash64(keys[rows, None], numbers), 0
            # Google draws a document's target once; chunks of the others have their own.
            length_keys = np.broadcast_to(keys[rows, None], chunk_keys.shape) if mode == "google" else chunk_keys
            length_bits, cut_bits = hash64(length_keys, Draw.LENGTH), hash64(chunk_keys, Draw.CUT)
        bits = length_bits[:, column]
        target = draw_targets(bits, max_num_tokens=max_num_tokens, short_seq_prob=options.short_seq_prob)
        stop = np.searchsorted(offsets, offsets[start] + target)
        stop = np.minimum(np.maximum(stop, start + least), end)
        if mode != "google":
            stop = np.where(end - stop == 1, end, stop)
        num_sentences = stop - start
        bits = cut_bits[:, column]
        a_end = start + 1 + below(bits, np.maximum(num_sentences - 1, 1))

        is_forced = num_sentences == 1
        chance = np.full(len(rows), 0.5)
        if mode == "balanced":
            # Half where no label is behind, else 0 or 1. At the document's end NotNext puts sentences back, so that
            # other chunks follow, and IsNext does not: to draw what is behind there would pay back every NotNext and
            # no IsNext. So only the surplus of the chunks before is settled, once.
            chance = (1 - np.where(is_settled, 0, surplus)) / 2
            is_settled = is_settled | (stop == end)
        label = ((unit(lower_half(bits)) < chance) | is_forced).astype(np.int64)
        if mode != "sop" and not has_random:
            label = np.zeros_like(label)
        found.append((rows, chunk_keys[:, column], start, a_end, stop, target, label, is_forced))
        start = np.where((label == 1) & has_random, a_end, stop)
        surplus = surplus + 2 * label - 1
        more = end - start >= least
        if not more.all():
            rows, start, end, surplus, is_settled = rows[more], start[more], end[more], surplus[more], is_settled[more]
            chunk_keys, length_bits, cut_bits = chunk_keys[more], length_bits[more], cut_bits[more]
        number += 1
        column += 1
    names = Chunks.__slots__
    columns = [np.concatenate(parts) for parts in zip(*found, strict=True)] if found else [rows] * len(names)
    return Chunks(**dict(zip(names, columns, strict=True)))
