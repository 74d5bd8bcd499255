"""Pairs: documents become samples of two segments with an IsNext/NotNext label (or of one segment).

A chunk is a run of consecutive sentences of one document with about `target` tokens. A is its beginning; B is the
rest of it (IsNext, 0), or a run of sentences from elsewhere (NotNext, 1), and then the rest is put back and the scan
goes on there:

    document    s0 s1 s2 s3 s4 s5 s6 s7          target = 12 tokens, 3 tokens a sentence
    chunk 0    [s0 s1|s2 s3]                     a_end = 2, IsNext    A = s0 s1, B = s2 s3          goes on at s4
    chunk 1                [s4|s5 s6 s7]         a_end = 1, NotNext   A = s4,    B = t3 t4 t5       goes on at s5
    chunk 2                   [s5 s6|s7]         a_end = 2, IsNext    A = s5 s6, B = s7

Modes (`--next-sentence`):
- google: the distribution of the published BERT's script. The target is `max_seq_length - 3`, or with `short_seq_prob`
  shorter for the whole document; B's document is drawn uniformly, then a sentence in it.
- balanced: the same with its known faults mended, so that neither label nor lengths give the other away. The target is
  drawn per chunk; a chunk has at least two sentences, and a last single sentence joins the chunk before it; the label
  that is behind in this document is drawn next. B starts at a sentence drawn uniformly among all that are neither of
  this document nor the first of theirs; where the document ended before the chunk's target, B ends with the sentence
  that brings the sample nearest to the chunk's own length. A sentence that a random B leaves alone at the document's
  end is left out of this pass. Sentences over half of `max_seq_length` are cut and documents of one sentence dropped
  before (`bertdata.prepare`).
- sop: A and B are consecutive, in order (0) or swapped (1).
- none: one segment of consecutive tokens of a document, of which none is lost.

`bertdata.chunks` cuts documents into chunks and draws the labels; `bertdata.random_sentences` draws where a random B
starts. Segments are spans of token positions, so nothing is copied before the block is written. All documents of a
shard advance together, a chunk each per step, and what a chunk does not need of the one before it is done for all
chunks at once. The bits of every draw depend on the document's key, the pass, the chunk's number and what is drawn, and
on nothing else; which sentence they choose for a random B depends on the shard's documents, which come in the order of
their keys.

Source: Devlin et al. 2018 and create_pretraining_data.py of google-research/bert; Lan et al. 2019 for sop; Liu et al.
2019 (DOC-SENTENCES) for none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertdata.chunks import Draw, cut_chunks, draw_targets
from bertdata.config import PairOptions
from bertdata.random_sentences import RandomSentences
from bertdata.seeds import hash64, stage_key
from bertdata.spill import Documents

__all__ = ["Pairs", "build_pairs"]

IntArray = npt.NDArray[np.int64]
UInt64Array = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """N samples as spans of `Documents.tokens`.

    Attributes:
        a_start: int64 [N]; A is tokens[a_start:a_stop].
        a_stop: int64 [N].
        b_start: int64 [N]; B is tokens[b_start:b_stop], empty where there is no B.
        b_stop: int64 [N].
        next_sentence_label: uint8 [N]; 0 IsNext, 1 NotNext (sop: swapped).
        documents: int64 [N, 2]; rows of A's and B's documents.
        is_forced: bool [N]; google only: the label was not drawn, because the chunk had one sentence.
        order: uint64 [N]; samples lie in a shard in this order.
    """

    a_start: IntArray
    a_stop: IntArray
    b_start: IntArray
    b_stop: IntArray
    next_sentence_label: npt.NDArray[np.uint8]
    documents: IntArray
    is_forced: npt.NDArray[np.bool_]
    order: UInt64Array

    def __len__(self) -> int:
        return len(self.a_start)

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> Pairs:
        """Returns the samples in the given rows, in that order."""
        return Pairs(**{name: getattr(self, name)[rows] for name in self.__slots__})

    @classmethod
    def concatenate(cls, parts: list[Pairs]) -> Pairs:
        """Returns the samples of all parts, one part after the other."""
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__})


def build_pairs(documents: Documents, *, options: PairOptions, seed: int) -> Pairs:
    """Builds all samples of a shard, in the order in which they lie in it.

    Args:
        documents: The shard's documents; every sentence has at least one token. "balanced" and "sop" take nothing
            from documents of one sentence (`bertdata.prepare` drops them).
        options: Mode, length and passes.
        seed: The build's seed.

    Returns:
        `options.dupe_factor` passes over all documents.
    """
    parts: list[Pairs] = []
    key = stage_key(seed, "pairs")
    for number in range(options.dupe_factor):
        document_keys = hash64(key, documents.keys[:, 0], documents.keys[:, 1], number)
        if options.next_sentence == "none":
            parts += _single_segments(documents, document_keys, options=options, is_first_pass=number == 0)
        else:
            parts += _segment_pairs(documents, document_keys, options=options)
    if not parts:
        parts = [_no_pairs()]
    pairs = Pairs.concatenate(parts)
    return pairs.take(np.argsort(pairs.order, kind="stable"))


def _no_pairs() -> Pairs:
    empty = np.zeros(0, dtype=np.int64)
    return Pairs(
        a_start=empty,
        a_stop=empty,
        b_start=empty,
        b_stop=empty,
        next_sentence_label=empty.astype(np.uint8),
        documents=np.zeros((0, 2), dtype=np.int64),
        is_forced=empty.astype(bool),
        order=empty.astype(np.uint64),
    )


def _single_segments(
    documents: Documents, keys: UInt64Array, *, options: PairOptions, is_first_pass: bool
) -> list[Pairs]:
    """Cuts documents into segments; passes after the first begin with one of random length, to cut elsewhere."""
    max_num_tokens = options.max_seq_length - 2
    bounds = documents.token_offsets[documents.sentence_offsets]
    rows = np.arange(len(documents))
    start, end = bounds[:-1].copy(), bounds[1:]
    parts = []
    number = 0
    while len(rows):
        chunk_keys = hash64(keys[rows], number)
        short_seq_prob = options.short_seq_prob if is_first_pass or number else 1.0
        bits = hash64(chunk_keys, Draw.LENGTH)
        target = draw_targets(bits, max_num_tokens=max_num_tokens, short_seq_prob=short_seq_prob)
        stop = np.minimum(start + target, end)
        parts.append(
            Pairs(
                a_start=start,
                a_stop=stop,
                b_start=stop,
                b_stop=stop,
                next_sentence_label=np.zeros(len(rows), dtype=np.uint8),
                documents=np.stack([rows, rows], axis=1),
                is_forced=np.zeros(len(rows), dtype=bool),
                order=hash64(chunk_keys, Draw.ORDER),
            )
        )
        more = stop < end
        rows, start, end = rows[more], stop[more], end[more]
        number += 1
    return parts


def _segment_pairs(documents: Documents, keys: UInt64Array, *, options: PairOptions) -> list[Pairs]:
    """Cuts documents into chunks and makes each a pair of segments."""
    mode = options.next_sentence
    offsets = documents.token_offsets
    random_sentences = RandomSentences(documents, mode=mode)
    has_random = mode != "sop" and random_sentences.is_possible
    chunks = cut_chunks(documents, keys, options=options, has_random=has_random)
    if not len(chunks.rows):
        return []

    a_start, a_stop = offsets[chunks.start], offsets[chunks.a_end]
    b_first, b_last, b_document = chunks.a_end.copy(), chunks.stop.copy(), chunks.rows.copy()
    if has_random:
        drawn = np.flatnonzero(chunks.label)
        first, document = random_sentences.draw(chunks.rows[drawn], chunks.keys[drawn])
        num_tokens = chunks.target[drawn]
        is_capped = np.zeros(len(drawn), dtype=bool)
        if mode == "balanced":
            own = (offsets[chunks.stop] - a_start)[drawn]
            is_capped = own < num_tokens
            num_tokens = np.minimum(num_tokens, own)
        end = documents.sentence_offsets[document + 1]
        b_first[drawn], b_document[drawn] = first, document
        b_last[drawn] = _last_sentences(
            offsets, first, end, num_tokens - (a_stop - a_start)[drawn], to_nearest=is_capped
        )
    spans = _truncate(
        a_start,
        a_stop,
        offsets[b_first],
        offsets[b_last],
        chunks.keys,
        max_num_tokens=options.max_seq_length - 3,
    )
    if mode == "sop":
        spans = tuple(np.where(chunks.label == 1, spans[other], spans[own]) for own, other in enumerate((2, 3, 0, 1)))
    return [
        Pairs(
            a_start=spans[0],
            a_stop=spans[1],
            b_start=spans[2],
            b_stop=spans[3],
            next_sentence_label=chunks.label.astype(np.uint8),
            documents=np.stack([chunks.rows, b_document], axis=1),
            is_forced=chunks.is_forced,
            order=hash64(chunks.keys, Draw.ORDER),
        )
    ]


def _last_sentences(
    offsets: IntArray, first: IntArray, end: IntArray, num_tokens: IntArray, *, to_nearest: npt.NDArray[np.bool_]
) -> IntArray:
    """Returns where segments end that begin with sentences `first`: at least one sentence, none from `end` on.

    A segment goes on until it has `num_tokens`; with `to_nearest`, it does without the last sentence where that brings
    it nearer to that number.
    """
    wanted = offsets[first] + np.maximum(num_tokens, 1)
    last = np.searchsorted(offsets, wanted)
    is_nearer = (last - 1 > first) & (wanted - offsets[last - 1] < offsets[np.minimum(last, len(offsets) - 1)] - wanted)
    return np.minimum(np.where(to_nearest & is_nearer, last - 1, last), end)


def _truncate(
    a_start: IntArray,
    a_stop: IntArray,
    b_start: IntArray,
    b_stop: IntArray,
    keys: UInt64Array,
    *,
    max_num_tokens: int,
) -> tuple[IntArray, ...]:
    """Takes tokens off until A and B have `max_num_tokens` together, as if one by one.

    Each token comes off the longer segment, off B on a tie, from its front or its back with equal chance. How many come
    off each segment is not random; how many of those from the front is binomial, drawn as the sum of that many bits.
    """
    a_length, b_length = a_stop - a_start, b_stop - b_start
    excess = np.maximum(a_length + b_length - max_num_tokens, 0)
    a_first = np.minimum(excess, np.maximum(a_length - b_length, 0))
    b_first = np.minimum(excess, np.maximum(b_length - a_length, 0))
    rest = excess - a_first - b_first
    a_off, b_off = a_first + rest // 2, b_first + (rest + 1) // 2
    a_front = _num_heads(keys, a_off, purpose=Draw.FRONT_A)
    b_front = _num_heads(keys, b_off, purpose=Draw.FRONT_B)
    return a_start + a_front, a_stop - (a_off - a_front), b_start + b_front, b_stop - (b_off - b_front)


def _num_heads(keys: UInt64Array, num_tosses: IntArray, *, purpose: int) -> IntArray:
    """Returns how many of `num_tosses` fair coins show heads, for each key."""
    heads = np.zeros(len(keys), dtype=np.int64)
    rows = np.flatnonzero(num_tosses)
    word = 0
    while len(rows):
        left = np.minimum(num_tosses[rows] - 64 * word, 64).astype(np.uint64)
        bits = hash64(keys[rows], purpose, word) >> (np.uint64(64) - left)
        heads[rows] += np.bitwise_count(bits)
        word += 1
        rows = rows[num_tosses[rows] > 64 * word]
    return heads
