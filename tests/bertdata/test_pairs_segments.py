"""Sentence order and single segments: against oracles, and shares by themselves."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.bertdata.balanced_pairs import OrderPairs
from tests.bertdata.pair_corpora import documents_of, mixed_documents, pairs_of, varied_lengths
from tests.bertdata.pair_distributions import Corpus, built_instances, observations, oracle_instances, smallest_p

# Sentence order.

CORPORA = {
    "varied": Corpus(
        lengths=varied_lengths(300, most_sentences=20, least=2, most_tokens=16, seed=31), max_seq_length=32
    ),
    "long": Corpus(lengths=varied_lengths(300, most_sentences=6, least=2, most_tokens=40, seed=32), max_seq_length=24),
    "short": Corpus(
        lengths=varied_lengths(400, most_sentences=8, least=2, most_tokens=3, seed=33),
        max_seq_length=10,
        short_seq_prob=0.9,
    ),
}


@pytest.fixture(scope="module")
def built():
    return {name: observations(corpus, built_instances(corpus, "sop"), seed=1) for name, corpus in CORPORA.items()}


@pytest.mark.parametrize("name", CORPORA)
def test_build_pairs_sop_has_the_distribution_of_the_oracle(built, name):
    instances = oracle_instances(CORPORA[name], OrderPairs, seed=0)
    assert len(instances["unit"]) > 2000
    assert smallest_p(built[name], observations(CORPORA[name], instances, seed=2)) > 0.001


# What is wrong: the corpus that shows it, the oracle's method, and what it does instead.
MUTATIONS = {
    "a target per document": ("short", "target_of_chunk", lambda _self, target: target),
    "two last sentences joined": ("varied", "joins", lambda _self, rest: len(rest) <= 2),
    "A never all but the last": ("varied", "draw_a_end", lambda self, n: self.rng.randint(1, max(n - 2, 1))),
    "ties off A": ("long", "comes_off_a", lambda _self, a, b: len(a) >= len(b)),
    "truncation more at the front": ("long", "comes_off_front", lambda self: self.rng.random() < 0.6),
    "never swapped": ("varied", "finish", lambda _self, instance: instance),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_comparison_with_the_oracle_notices_a_wrong_step(built, mutation):
    name, method, wrong = MUTATIONS[mutation]
    oracle = type("WrongPairs", (OrderPairs,), {method: wrong})
    instances = oracle_instances(CORPORA[name], oracle, seed=0, share=0.5)
    assert smallest_p(built[name], observations(CORPORA[name], instances, seed=2)) < 1e-5


def test_build_pairs_sop_swaps_half_of_the_pairs():
    pairs = pairs_of(mixed_documents(12), "sop", max_seq_length=128, dupe_factor=2)
    assert len(pairs) > 10_000
    assert stats.binomtest(int(pairs.next_sentence_label.sum()), len(pairs)).pvalue > 0.001
    assert (pairs.documents[:, 0] == pairs.documents[:, 1]).all()
    assert ((pairs.a_start > pairs.b_start) == (pairs.next_sentence_label == 1)).all()


def test_build_pairs_truncates_hundreds_of_tokens_at_either_end_with_equal_chance():
    documents = documents_of([[300, 500]] * 3000)
    pairs = pairs_of(documents, "sop", max_seq_length=16, short_seq_prob=0.0)
    swapped = pairs.next_sentence_label == 1
    first, second = np.where(swapped, [pairs.b_start, pairs.a_start], [pairs.a_start, pairs.b_start]) % 800
    # 13 tokens are left: 7 of the first sentence, for B loses ties, and 6 of the second.
    assert set(np.where(swapped, pairs.b_stop - pairs.b_start, pairs.a_stop - pairs.a_start).tolist()) == {7}
    for front, num_off in ((first, 293), (second - 300, 494)):
        law = stats.binom(num_off, 0.5)
        edges = law.ppf(np.arange(1, 10) / 10)
        found = np.bincount(np.searchsorted(edges, front), minlength=10)
        assert stats.chisquare(found, np.diff(law.cdf(edges), prepend=0, append=1) * 3000).pvalue > 0.001
    assert stats.pearsonr(first, second).pvalue > 0.001


# Single segments.


def spans_of(pairs) -> list[tuple[int, int]]:
    return list(zip(pairs.a_start.tolist(), pairs.a_stop.tolist(), strict=True))


def cut_by_hand(start: int, stop: int, *, length: int) -> list[tuple[int, int]]:
    return [(place, min(place + length, stop)) for place in range(start, stop, length)]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 90), min_size=1, max_size=12), min_size=1, max_size=8),
    st.integers(8, 40),
    st.sampled_from((0.0, 0.3, 1.0)),
    st.integers(0, 2**64 - 1),
)
def test_build_pairs_none_shows_every_token_once_in_each_pass(lengths, max_seq_length, short_seq_prob, seed):
    documents = documents_of(lengths)
    bounds = documents.token_offsets[documents.sentence_offsets].tolist()
    before: Counter[tuple[int, int]] = Counter()
    for dupe_factor in (1, 2, 3):
        pairs = pairs_of(
            documents,
            "none",
            seed=seed,
            max_seq_length=max_seq_length,
            short_seq_prob=short_seq_prob,
            dupe_factor=dupe_factor,
        )
        assert (pairs.b_start == pairs.b_stop).all()
        assert not pairs.next_sentence_label.any()
        whole = Counter(spans_of(pairs))
        own = sorted((whole - before).elements())  # what the last pass adds
        before = whole
        # End to end, cut where documents end, and no segment longer than a sample takes.
        assert [start for start, _ in own] == [0, *(stop for _, stop in own[:-1])]
        assert own[-1][1] == bounds[-1]
        assert set(bounds[1:]) <= {stop for _, stop in own}
        assert all(0 < stop - start <= max_seq_length - 2 for start, stop in own)
        if short_seq_prob == 0:
            segments = [[span for span in own if low <= span[0] < high] for low, high in itertools.pairwise(bounds)]
            for (low, high), spans in zip(itertools.pairwise(bounds), segments, strict=True):
                first = spans[0][1] if dupe_factor > 1 else low
                head = [(low, first)] if dupe_factor > 1 else []
                assert spans == head + cut_by_hand(first, high, length=max_seq_length - 2)


def test_build_pairs_none_begins_a_further_pass_with_a_segment_of_any_length():
    documents = documents_of([[100]] * 6000)
    pairs = pairs_of(documents, "none", max_seq_length=32, short_seq_prob=0.0, dupe_factor=2)
    starts = pairs.a_start % 100 == 0
    lengths = (pairs.a_stop - pairs.a_start)[starts]
    found = np.bincount(lengths, minlength=31)[2:]
    expected = np.full(29, 6000 / 29)
    expected[-1] += 6000  # the first pass
    assert found.sum() == 12000
    assert stats.chisquare(found, expected).pvalue > 0.001


def test_build_pairs_none_fills_samples_and_continues_a_long_sentence():
    documents = documents_of([[3, 4, 2, 9], [2]])
    pairs = pairs_of(documents, "none", max_seq_length=10, short_seq_prob=0.0)
    assert sorted(zip(pairs.a_start.tolist(), pairs.a_stop.tolist(), strict=True)) == [
        (0, 8),
        (8, 16),
        (16, 18),
        (18, 20),
    ]
