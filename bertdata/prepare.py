"""The documents of a shard, made ready for pairs: some dropped, long sentences cut."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bertdata.config import BuildOptions
from bertdata.seeds import hash64
from bertdata.spans import gather_spans, offsets_of
from bertdata.spill import Documents
from bertdata.wordpiece import Vocabulary

__all__ = ["cut_long_sentences", "drop_single_sentences", "find_excluded", "prepare_documents"]

IntArray = npt.NDArray[np.int64]


def prepare_documents(
    documents: Documents, counts: Counter[str], *, options: BuildOptions, vocabulary: Vocabulary
) -> Documents:
    """Returns the documents from which pairs are built, and counts what became of the others.

    Args:
        documents: All documents of the shard, in the order of their keys.
        counts: Gets documents, excluded_documents, duplicates, sentence_cuts, one_sentence_documents and
            documents_kept.
        options: The build's options, for one length.
        vocabulary: The vocabulary of the tokens.
    """
    counts["documents"] = len(documents)
    documents = _drop_excluded(documents, excluded=options.shards.excluded_documents)
    counts["excluded_documents"] = counts["documents"] - len(documents)
    num_documents = len(documents)
    documents = _drop_duplicates(documents, keep=options.shards.keep_duplicates)
    counts["duplicates"] = num_documents - len(documents)
    if options.pairs.next_sentence in ("balanced", "sop"):
        num_sentences = len(documents.token_offsets)
        limit = options.pairs.max_seq_length // 2
        documents = cut_long_sentences(documents, limit=limit, vocabulary=vocabulary)
        counts["sentence_cuts"] = len(documents.token_offsets) - num_sentences
        num_documents = len(documents)
        documents = drop_single_sentences(documents)
        counts["one_sentence_documents"] = num_documents - len(documents)
    counts["documents_kept"] = len(documents)
    return documents


def _is_excluded(documents: Documents, excluded: Sequence[str]) -> npt.NDArray[np.bool_]:
    return np.isin(documents.keys[:, 0], np.array([int(key, 16) for key in excluded], dtype=np.uint64))


def find_excluded(documents: Documents, *, excluded: Sequence[str]) -> list[str]:
    """Returns those of `excluded`, first halves of keys in hexadecimal, of which there is a document; sorted."""
    found = np.unique(documents.keys[_is_excluded(documents, excluded), 0])
    return [f"{key:016x}" for key in found.tolist()]


def _drop_excluded(documents: Documents, *, excluded: Sequence[str]) -> Documents:
    """Leaves out all copies of the documents whose keys begin with one of `excluded`."""
    if not excluded:
        return documents
    return documents.take(np.flatnonzero(~_is_excluded(documents, excluded)))


def _drop_duplicates(documents: Documents, *, keep: bool) -> Documents:
    """Keeps one copy of each document, or gives each further copy a key of its own. Copies lie next to each other."""
    keys = documents.keys
    is_first = np.ones(len(keys), dtype=bool)
    is_first[1:] = (keys[1:] != keys[:-1]).any(axis=1)
    if not keep:
        return documents.take(np.flatnonzero(is_first))
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(keys)), 0))
    copy = np.arange(len(keys)) - first
    derived = np.stack([hash64(keys[:, 0], copy, 0), hash64(keys[:, 1], copy, 1)], axis=1)
    return dataclasses.replace(documents, keys=np.where(is_first[:, None], keys, derived))


def drop_single_sentences(documents: Documents) -> Documents:
    """Returns the documents that have at least two sentences."""
    return documents.take(np.flatnonzero(np.diff(documents.sentence_offsets) >= 2))


def cut_long_sentences(documents: Documents, *, limit: int, vocabulary: Vocabulary) -> Documents:
    """Cuts sentences of more than `limit` tokens, after inner punctuation where there is some, else between words.

    Returns:
        The same documents and tokens, with more sentences.
    """
    offsets = documents.token_offsets
    long = np.flatnonzero(np.diff(offsets) > limit)
    if not len(long):
        return documents
    places, bounds = gather_spans(offsets[long], offsets[long + 1])
    cuts = places[_cuts(documents.tokens[places], bounds, limit=limit, vocabulary=vocabulary)]
    sentence_of_cut = np.searchsorted(offsets, cuts, side="right") - 1
    cuts_before = offsets_of(np.bincount(sentence_of_cut, minlength=len(offsets) - 1))
    return Documents(
        keys=documents.keys,
        sentence_offsets=documents.sentence_offsets + cuts_before[documents.sentence_offsets],
        token_offsets=np.sort(np.concatenate([offsets, cuts])),
        tokens=documents.tokens,
    )


def _cuts(tokens: npt.NDArray[np.integer], bounds: IntArray, *, limit: int, vocabulary: Vocabulary) -> IntArray:
    """Returns where to cut sentences that lie end to end so that no piece has more than `limit` tokens.

    All sentences are cut together, a piece of each at a time: as late as possible after a mark in the last three
    quarters of a piece, else before a word, else anywhere.
    """
    starts_word = vocabulary.starts_word
    words = np.arange(1, len(tokens)) if starts_word is None else 1 + np.flatnonzero(starts_word[tokens[1:]])
    after_marks = words[vocabulary.is_punctuation[tokens[words - 1]]]
    start, stop = bounds[:-1], bounds[1:]
    found = []
    while len(start):
        latest = start + limit
        cut = latest
        for places, earliest in ((words, start + 1), (after_marks, start + max(limit // 4, 1))):
            if len(places):
                place = places[np.searchsorted(places, latest, side="right") - 1]  # the last one where there is none
                cut = np.where((place >= earliest) & (place <= latest), place, cut)
        found.append(cut)
        more = stop - cut > limit
        start, stop = cut[more], stop[more]
    return np.concatenate(found)
