"""Where a random B starts: how often which document, and which sentence in it."""

import numpy as np
from scipy import stats

from bertdata.random_sentences import RandomSentences
from bertdata.seeds import hash64
from tests.bertdata.pair_corpora import documents_of


def test_random_sentences_google_keeps_its_own_document_after_ten_tries():
    # Two documents: ten tries all give the own one in 2 ** -10 of the cases.
    sentences = RandomSentences(documents_of([[2] * 5, [3] * 4]), mode="google")
    rows = np.arange(1_000_000) % 2
    first, document = sentences.draw(rows, hash64(0, np.arange(len(rows))))
    assert stats.binomtest(int((document == rows).sum()), len(rows), 2.0**-10).pvalue > 0.001
    expected = np.repeat([len(rows) / 2 / 5, len(rows) / 2 / 4], [5, 4])
    assert stats.chisquare(np.bincount(first), expected).pvalue > 0.001


def test_random_sentences_balanced_are_uniform_among_those_that_open_no_document():
    sentences = RandomSentences(documents_of([[2] * 3, [3] * 2, [1] * 4]), mode="balanced")
    rows = np.full(200_000, 1)
    first, document = sentences.draw(rows, hash64(0, np.arange(len(rows))))
    assert set(document.tolist()) == {0, 2}
    found, counts = np.unique(first, return_counts=True)
    assert found.tolist() == [1, 2, 6, 7, 8]
    assert stats.chisquare(counts).pvalue > 0.001


def test_random_sentences_balanced_are_impossible_where_one_document_has_all():
    assert not RandomSentences(documents_of([[2] * 3, [3]]), mode="balanced").is_possible
    assert RandomSentences(documents_of([[2] * 3, [3] * 2]), mode="balanced").is_possible
