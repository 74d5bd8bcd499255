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

Segments are spans of token positions, so nothing is copied before the block is written. All documents of a shard
advance together, a chunk each per step, and what a chunk does not need of the one before it is done for all chunks at
once. The bits of every draw depend on the document's key, the pass, the chunk's number and what is drawn, and on
nothing else; which sentence they choose for a random B depends on the shard's documents, which come in the order of
their keys.

Source: Devlin et al. 2018 and create_pretraining_data.py of google-research/bert; Lan et al. 2019 for sop; Liu et al.
2019 (DOC-SENTENCES) for none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertdata.config import PairOptions
from bertdata.seeds import below, hash64, lower_half, stage_key, unit
from bertdata.spill import Documents, offsets_of

__all__ = ["Pairs", "build_pairs"]

IntArray = npt.NDArray[np.int64]
UInt64Array = npt.NDArray[np.uint64]

# What a draw is for; the last counter of its hash.
_LENGTH, _CUT, _B, _B_SENTENCE, _ORDER, _FRONT_A, _FRONT_B = range(7)
_B_RETRY = 16
_MAX_TRIES = 10
_DRAWS_AT_ONCE = 4096


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
    parts = []
    key = stage_key(seed, "pairs")
    for number in range(options.dupe_factor):
        document_keys = hash64(key, documents.keys[:, 0], documents.keys[:, 1], number)
        builder = _single_segments if options.next_sentence == "none" else _segment_pairs
        parts.extend(builder(documents, document_keys, options, number))
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


def _targets(bits: UInt64Array, *, max_num_tokens: int, short_seq_prob: float) -> IntArray:
    """Draws target lengths: uniform on [2, max_num_tokens] with `short_seq_prob`, else max_num_tokens."""
    short = 2 + below(bits, max_num_tokens - 1)
    return np.where(unit(lower_half(bits)) < short_seq_prob, short, max_num_tokens)


def _single_segments(documents: Documents, keys: UInt64Array, options: PairOptions, pass_number: int) -> list[Pairs]:
    """Cuts documents into segments; passes after the first begin with one of random length, to cut elsewhere."""
    max_num_tokens = options.max_seq_length - 2
    bounds = documents.token_offsets[documents.sentence_offsets]
    rows = np.arange(len(documents))
    start, end = bounds[:-1].copy(), bounds[1:]
    parts = []
    number = 0
    while len(rows):
        chunk_keys = hash64(keys[rows], number)
        short_seq_prob = 1.0 if pass_number and not number else options.short_seq_prob
        target = _targets(hash64(chunk_keys, _LENGTH), max_num_tokens=max_num_tokens, short_seq_prob=short_seq_prob)
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
                order=hash64(chunk_keys, _ORDER),
            )
        )
        more = stop < end
        rows, start, end = rows[more], stop[more], end[more]
        number += 1
    return parts


class _RandomSentences:
    """Draws where a random B starts."""

    def __init__(self, documents: Documents, *, mode: str) -> None:
        self._starts = documents.sentence_offsets[:-1]
        self._num_sentences = np.diff(documents.sentence_offsets)
        self._is_google = mode == "google"
        # Balanced: candidate c of a document is its sentence 1 + c, so its candidates are all but the opening.
        self._candidate_offsets = offsets_of(self._num_sentences - 1)

    @property
    def is_possible(self) -> bool:
        """Whether there is a sentence to draw for every document."""
        others = self._candidate_offsets[-1] - np.diff(self._candidate_offsets)
        return self._is_google or bool(len(others) and others.min() > 0)

    def draw(self, rows: IntArray, keys: UInt64Array) -> tuple[IntArray, IntArray]:
        """Returns the start sentence and the document of a random B for A in each of `rows`."""
        return self._draw_document_first(rows, keys) if self._is_google else self._draw_sentence(rows, keys)

    def _draw_document_first(self, rows: IntArray, keys: UInt64Array) -> tuple[IntArray, IntArray]:
        document = below(hash64(keys, _B_RETRY), len(self._starts))
        for attempt in range(1, _MAX_TRIES):
            again = np.flatnonzero(document == rows)
            document[again] = below(hash64(keys[again], _B_RETRY + attempt), len(self._starts))
        sentence = below(hash64(keys, _B_SENTENCE), self._num_sentences[document])
        return self._starts[document] + sentence, document

    def _draw_sentence(self, rows: IntArray, keys: UInt64Array) -> tuple[IntArray, IntArray]:
        offsets = self._candidate_offsets
        own_start, own_stop = offsets[rows], offsets[rows + 1]
        number = below(hash64(keys, _B), offsets[-1] - (own_stop - own_start))
        number += np.where(number >= own_start, own_stop - own_start, 0)
        document = np.searchsorted(offsets, number, side="right") - 1
        return self._starts[document] + 1 + number - offsets[document], document


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chunks:
    """C chunks of sentences, before B is chosen. All int64 [C] but keys and is_forced; sentences, but for target."""

    rows: IntArray
    keys: UInt64Array
    start: IntArray
    a_end: IntArray
    stop: IntArray
    target: IntArray
    label: IntArray
    is_forced: npt.NDArray[np.bool_]


def _cut_chunks(documents: Documents, keys: UInt64Array, options: PairOptions, *, has_random: bool) -> _Chunks:
    """Cuts documents into chunks, each into what is A and the rest, and draws the labels.

    All documents advance together, a chunk each per step. Where few are left, the bits of many steps are drawn at once.
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
            length_bits, cut_bits = hash64(length_keys, _LENGTH), hash64(chunk_keys, _CUT)
        target = _targets(length_bits[:, column], max_num_tokens=max_num_tokens, short_seq_prob=options.short_seq_prob)
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
    names = _Chunks.__slots__
    columns = [np.concatenate(parts) for parts in zip(*found, strict=True)] if found else [rows] * len(names)
    return _Chunks(**dict(zip(names, columns, strict=True)))


def _segment_pairs(documents: Documents, keys: UInt64Array, options: PairOptions, _: int) -> list[Pairs]:
    """Cuts documents into chunks and makes each a pair of segments."""
    mode = options.next_sentence
    offsets = documents.token_offsets
    random_sentences = _RandomSentences(documents, mode=mode)
    has_random = mode != "sop" and random_sentences.is_possible
    chunks = _cut_chunks(documents, keys, options, has_random=has_random)
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
            order=hash64(chunks.keys, _ORDER),
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
    a_front = _num_heads(keys, a_off, purpose=_FRONT_A)
    b_front = _num_heads(keys, b_off, purpose=_FRONT_B)
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
