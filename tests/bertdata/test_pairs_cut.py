import itertools
import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bertdata.prepare import cut_long_sentences, drop_single_sentences
from bertdata.spill import Documents
from tests.bertdata.pair_corpora import documents_of, vocabulary_of


def cut_lengths(documents: Documents) -> list[list[int]]:
    lengths = np.diff(documents.token_offsets).tolist()
    offsets = documents.sentence_offsets.tolist()
    return [lengths[start:stop] for start, stop in itertools.pairwise(offsets)]


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=5), min_size=1, max_size=4),
    st.integers(4, 20),
    st.sampled_from((None, 0.1, 0.6, 1.0)),
    st.sampled_from((0.0, 0.1, 0.5)),
    st.integers(0, 1000),
)
def test_cut_long_sentences_cuts_as_little_and_as_well_as_it_can(lengths, limit, word_share, mark_share, seed):
    rng = np.random.default_rng(seed)
    ids = np.arange(40)
    starts_word = None if word_share is None else ids < 40 * word_share
    punctuation = ids[rng.random(40) < mark_share].tolist()
    documents = documents_of(lengths, tokens=rng.integers(0, 40, sum(map(sum, lengths))))
    cut = cut_long_sentences(
        documents, limit=limit, vocabulary=vocabulary_of(40, punctuation=punctuation, starts_word=starts_word)
    )
    pieces = np.diff(cut.token_offsets)
    assert (pieces > 0).all()
    assert (pieces <= limit).all()
    assert (cut.tokens == documents.tokens).all()
    assert (cut.keys == documents.keys).all()
    assert [sum(sentences) for sentences in cut_lengths(cut)] == [sum(sentences) for sentences in lengths]
    assert np.isin(documents.token_offsets, cut.token_offsets).all()
    for position in np.setdiff1d(cut.token_offsets, documents.token_offsets).tolist():
        sentence = np.searchsorted(documents.token_offsets, position) - 1
        assert np.diff(documents.token_offsets)[sentence] > limit
        piece_start = int(cut.token_offsets[np.searchsorted(cut.token_offsets, position) - 1])
        reach = range(piece_start + 1, piece_start + limit + 1)
        words = [place for place in reach if starts_word is None or starts_word[documents.tokens[place]]]
        marks = [place for place in words if documents.tokens[place - 1] in punctuation]
        far_marks = [place for place in marks if place >= piece_start + limit // 4]
        assert position == (far_marks or words or reach)[-1]


def test_cut_long_sentences_prefers_the_last_mark_then_the_last_word():
    # 1 is a comma, 2 begins a word, 3 continues one.
    vocabulary = vocabulary_of(8, punctuation=[1], starts_word=[True, True, True, False, True, True, True, True])
    cases = {
        (2, 2, 1, 2, 2, 1, 2, 2, 2, 2): [6, 4],
        (2, 2, 2, 2, 2, 2, 3, 3, 3, 3): [5, 5],
        (2, 3, 3, 3, 3, 3, 3, 3, 3, 3): [8, 2],
        (2, 1, 2, 2, 2, 2, 2, 2, 2, 2): [2, 8],
        (1, 2, 2, 2, 2, 2, 2, 2, 2, 2): [8, 2],  # a mark in the first quarter does not count
        (2, 2, 2, 2, 2, 2, 2, 2): [8],
    }
    for tokens, expected in cases.items():
        documents = documents_of([[len(tokens)]], tokens=tokens)
        assert cut_lengths(cut_long_sentences(documents, limit=8, vocabulary=vocabulary)) == [expected], tokens


def test_cut_long_sentences_returns_short_ones_as_they_are():
    documents = documents_of([[8, 3], [1]])
    assert cut_long_sentences(documents, limit=8, vocabulary=vocabulary_of(20)) is documents


def test_cut_long_sentences_takes_time_in_proportion_to_the_tokens():
    documents = documents_of([[300_000]], tokens=np.full(300_000, 7))
    start = time.process_time()
    cut = cut_long_sentences(documents, limit=64, vocabulary=vocabulary_of(8, starts_word=[True] * 8))
    assert time.process_time() - start < 1
    assert cut_lengths(cut) == [[64] * 4687 + [32]]


def test_drop_single_sentences_keeps_documents_of_two():
    documents = documents_of([[3], [2, 4], [5], [1, 1, 1], [6]])
    kept = drop_single_sentences(documents)
    assert cut_lengths(kept) == [[2, 4], [1, 1, 1]]
    assert (kept.keys == documents.keys[[1, 3]]).all()
    assert kept.tokens.tolist() == [*range(3, 9), *range(14, 17)]
    assert len(drop_single_sentences(documents_of([[3], [2]]))) == 0
