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
- balanced: the same with its known faults mended. The target is drawn per chunk; the label that is behind in this
document
  is drawn next; B starts at a sentence drawn uniformly among all that are neither of this document nor the first of
  theirs; a last single sentence joins the chunk before it; sentences over half of `max_seq_length` are cut; documents
  of one sentence are dropped.
- sop: A and B are consecutive, in order (0) or swapped (1).
- none: one segment of consecutive tokens of a document, of which none is lost.

Segments are spans of token positions, so nothing is copied before the block is written. All documents of a shard
advance together, a chunk each per step, so that each draw is one vectorized hash. The bits of every
draw depend on the document's key, the pass, the chunk's number and what is drawn, and on nothing else; which sentence
they choose for a random B depends on the shard's documents, which come in the order of their keys.

Source: Devlin et al. 2018 and create_pretraining_data.py of google-research/bert; Lan et al. 2019 for sop; Liu et al.
2019 (DOC-SENTENCES) for none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bertdata.config import PairOptions
from bertdata.seeds import below, hash64, stage_key, unit
from bertdata.spill import Documents, offsets_of
from bertdata.wordpiece import Vocabulary

__all__ = ["Pairs", "build_pairs", "cut_long_sentences", "drop_single_sentences"]

IntArray = npt.NDArray[np.int64]
UInt64Array = npt.NDArray[np.uint64]

# What a draw is for; the last counter of its hash.
_SHORT, _TARGET, _LABEL, _A_END, _B, _B_SENTENCE, _ORDER, _FRONT_A, _FRONT_B = range(9)
_B_RETRY = 16
_MAX_TRIES = 10


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
        is_forced: bool [N]; the label was not drawn, because the chunk had one sentence.
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


def cut_long_sentences(documents: Documents, *, limit: int, vocabulary: Vocabulary) -> Documents:
    """Cuts sentences of more than `limit` tokens, after inner punctuation where there is some, else between words.

    Returns:
        The same documents and tokens, with more sentences.
    """
    offsets = documents.token_offsets
    long = np.flatnonzero(np.diff(offsets) > limit)
    if not len(long):
        return documents
    cuts: list[int] = []
    sentence_of_cut: list[int] = []
    for sentence in long.tolist():
        start, stop = int(offsets[sentence]), int(offsets[sentence + 1])
        for cut in _cuts(documents.tokens[start:stop], limit=limit, vocabulary=vocabulary):
            cuts.append(start + cut)
            sentence_of_cut.append(sentence)
    new_offsets = np.sort(np.concatenate([offsets, np.array(cuts, dtype=np.int64)]))
    cuts_before = offsets_of(np.bincount(sentence_of_cut, minlength=len(offsets) - 1))
    return Documents(
        keys=documents.keys,
        sentence_offsets=documents.sentence_offsets + cuts_before[documents.sentence_offsets],
        token_offsets=new_offsets,
        tokens=documents.tokens,
    )


def _cuts(tokens: npt.NDArray[Any], *, limit: int, vocabulary: Vocabulary) -> list[int]:
    """Returns where to cut one sentence so that no piece has more than `limit` tokens."""
    starts_word = vocabulary.starts_word
    words = np.arange(len(tokens)) if starts_word is None else np.flatnonzero(starts_word[tokens])
    words = words[words > 0]
    after_mark = words[vocabulary.is_punctuation[tokens[words - 1]]]
    cuts: list[int] = []
    start = 0
    while len(tokens) - start > limit:
        for places, first in ((after_mark, max(start + limit // 4, start + 1)), (words, start + 1)):
            last = int(np.searchsorted(places, start + limit, side="right")) - 1
            if last >= 0 and places[last] >= first:
                start = int(places[last])
                break
        else:
            start += limit
        cuts.append(start)
    return cuts


def drop_single_sentences(documents: Documents) -> Documents:
    """Returns the documents that have at least two sentences."""
    return documents.take(np.flatnonzero(np.diff(documents.sentence_offsets) >= 2))


def build_pairs(documents: Documents, *, options: PairOptions, seed: int) -> Pairs:
    """Builds all samples of a shard, in the order in which they lie in it.

    Args:
        documents: The shard's documents; every sentence has at least one token. For "balanced" and "sop", every
        document
            has at least two sentences (`cut_long_sentences` and `drop_single_sentences` see to that).
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


def _targets(keys: UInt64Array, *, max_num_tokens: int, short_seq_prob: float) -> IntArray:
    """Draws target lengths: uniform on [2, max_num_tokens] with `short_seq_prob`, else max_num_tokens."""
    short = 2 + below(hash64(keys, _TARGET), max_num_tokens - 1)
    return np.where(unit(hash64(keys, _SHORT)) < short_seq_prob, short, max_num_tokens)


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
        target = _targets(chunk_keys, max_num_tokens=max_num_tokens, short_seq_prob=short_seq_prob)
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


def _segment_pairs(documents: Documents, keys: UInt64Array, options: PairOptions, _: int) -> list[Pairs]:
    """Cuts documents into chunks and pairs of segments, a chunk of each document at a time."""
    mode = options.next_sentence
    max_num_tokens = options.max_seq_length - 3
    offsets = documents.token_offsets
    random_sentences = _RandomSentences(documents, mode=mode)
    has_random = mode != "sop" and random_sentences.is_possible

    rows = np.arange(len(documents))
    start, end = documents.sentence_offsets[:-1].copy(), documents.sentence_offsets[1:]  # sentences
    surplus = np.zeros(len(rows), dtype=np.int64)  # NotNext less IsNext so far, per document
    is_settled = np.zeros(len(rows), dtype=bool)  # a chunk has reached the document's end
    parts = []
    number = 0
    while len(rows):
        chunk_keys = hash64(keys[rows], number)
        target_keys = keys[rows] if mode == "google" else chunk_keys
        target = _targets(target_keys, max_num_tokens=max_num_tokens, short_seq_prob=options.short_seq_prob)
        stop = np.minimum(np.searchsorted(offsets, offsets[start] + target), end)
        if not has_random:
            stop = np.minimum(np.maximum(stop, start + 2), end)
        if mode != "google":
            stop = np.where(end - stop == 1, end, stop)
        num_sentences = stop - start
        a_end = start + 1 + below(hash64(chunk_keys, _A_END), np.maximum(num_sentences - 1, 1))

        is_forced = num_sentences == 1
        chance = np.full(len(rows), 0.5)
        if mode == "balanced":
            chance = _not_next_chance(surplus, is_settled, puts_back_one=(stop == end) & (end - a_end == 1))
            is_settled = is_settled | (stop == end)
        label = (unit(hash64(chunk_keys, _LABEL)) < chance).astype(np.int64)
        label = np.where(is_forced, 1, label) if has_random or mode == "sop" else np.zeros_like(label)
        is_random = (label == 1) & has_random

        a_start, a_stop = offsets[start], offsets[a_end]
        b_first, b_last, b_document = a_end.copy(), stop.copy(), rows.copy()
        drawn_rows = np.flatnonzero(is_random)
        if len(drawn_rows):
            first, document = random_sentences.draw(rows[drawn_rows], chunk_keys[drawn_rows])
            b_target = np.maximum(target - (a_stop - a_start), 1)[drawn_rows]
            last = np.searchsorted(offsets, offsets[first] + b_target)
            b_first[drawn_rows], b_document[drawn_rows] = first, document
            b_last[drawn_rows] = np.minimum(last, documents.sentence_offsets[document + 1])
        spans = _truncate(a_start, a_stop, offsets[b_first], offsets[b_last], chunk_keys, max_num_tokens=max_num_tokens)
        if mode == "sop":
            spans = tuple(np.where(label == 1, spans[other], spans[own]) for own, other in enumerate((2, 3, 0, 1)))
        parts.append(
            Pairs(
                a_start=spans[0],
                a_stop=spans[1],
                b_start=spans[2],
                b_stop=spans[3],
                next_sentence_label=label.astype(np.uint8),
                documents=np.stack([rows, b_document], axis=1),
                is_forced=is_forced,
                order=hash64(chunk_keys, _ORDER),
            )
        )
        start = np.where(is_random, a_end, stop)
        surplus = surplus + 2 * label - 1
        more = start < end
        rows, start, end, surplus, is_settled = rows[more], start[more], end[more], surplus[more], is_settled[more]
        number += 1
    return parts


def _not_next_chance(
    surplus: IntArray, is_settled: npt.NDArray[np.bool_], *, puts_back_one: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Returns the chance of NotNext with which each document is expected to end without surplus.

    In the midst of a document that is 0 or 1 where a label is behind and 1/2 otherwise. At its end two things would
    tip the balance. NotNext puts sentences back, so that another sample follows, and IsNext does not: to draw what is
    behind there would pay back every NotNext and no IsNext, so only the surplus of the chunks before is settled,
    once. And a single sentence put back makes a forced NotNext, so that one counts twice.
    """
    gain = np.where(puts_back_one, 2, 1)
    chance: npt.NDArray[np.float64] = (1 - np.where(is_settled, 0, surplus)) / (1 + gain)
    return chance


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
