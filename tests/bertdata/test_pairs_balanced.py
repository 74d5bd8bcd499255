"""Balanced pairs: against an oracle, the oracle with each of its steps wrong, and shares by themselves."""

import numpy as np
import pytest
from scipy import stats

from tests.bertdata.balanced_pairs import BalancedPairs
from tests.bertdata.google_pairs import GooglePairs
from tests.bertdata.pair_corpora import documents_of, mixed_documents, pairs_of, prepared, varied_lengths
from tests.bertdata.pair_distributions import Corpus, built_instances, observations, oracle_instances, smallest_p

CORPORA = {
    "varied": Corpus(
        lengths=varied_lengths(300, most_sentences=20, least=2, most_tokens=16, seed=21), max_seq_length=32
    ),
    "long": Corpus(lengths=varied_lengths(300, most_sentences=6, least=2, most_tokens=40, seed=22), max_seq_length=24),
    "short": Corpus(
        lengths=varied_lengths(400, most_sentences=8, least=2, most_tokens=3, seed=23),
        max_seq_length=10,
        short_seq_prob=0.9,
    ),
    "ends": Corpus(lengths=varied_lengths(300, most_sentences=4, least=2, most_tokens=16, seed=26), max_seq_length=64),
    "ties": Corpus(lengths=varied_lengths(300, most_sentences=12, least=2, most_tokens=2, seed=27), max_seq_length=64),
    "few": Corpus(lengths=[[3, 2, 4], [5, 1], [2] * 9], max_seq_length=20, passes=500),
}


@pytest.fixture(scope="module")
def built():
    return {name: observations(corpus, built_instances(corpus, "balanced"), seed=1) for name, corpus in CORPORA.items()}


@pytest.mark.parametrize("name", CORPORA)
def test_build_pairs_balanced_has_the_distribution_of_the_oracle(built, name):
    instances = oracle_instances(CORPORA[name], BalancedPairs, seed=0)
    assert len(instances["unit"]) > 1900
    assert smallest_p(built[name], observations(CORPORA[name], instances, seed=2)) > 0.001


def _with_openings(self, row):
    candidates = [(other, start) for other, document in enumerate(self.documents) for start in range(len(document))]
    return self.rng.choice([candidate for candidate in candidates if candidate[0] != row])


def _document_first(self, row):
    other = self.rng.choice([other for other in range(len(self.documents)) if other != row])
    return other, self.rng.randrange(1, len(self.documents[other]))


def _fair_coin(self, _num_sentences, _at_end):
    return self.rng.random() < 0.5


def _always_pays(self, num_sentences, at_end):
    self.has_reached_end = False
    return BalancedPairs.is_random_next(self, num_sentences, at_end)


def _never_pays_at_the_end(self, num_sentences, at_end):
    self.has_reached_end = self.has_reached_end or at_end
    return BalancedPairs.is_random_next(self, num_sentences, at_end)


def _not_capped(self, sentences, target, a, chunk):
    return GooglePairs.collect_b(self, sentences, target, a, chunk)


def _shorter_on_a_tie(_self, sentences, wanted):
    b = list(sentences[0])
    for sentence in sentences[1:]:
        if len(b) >= wanted or wanted - len(b) <= len(b) + len(sentence) - wanted:
            break
        b.extend(sentence)
    return b


def _capped_upwards(self, sentences, wanted):
    return self.collect(sentences, wanted)


# What is wrong: the corpus that shows it, the oracle's method, and what it does instead.
MUTATIONS = {
    "a target per document": ("short", "target_of_chunk", lambda _self, target: target),
    "short targets from 3": ("short", "draw_short_target", lambda self: self.rng.randint(3, self.max_num_tokens)),
    "two last sentences joined": ("varied", "joins", lambda _self, rest: len(rest) <= 2),
    "labels by a fair coin": ("varied", "is_random_next", _fair_coin),
    "surplus paid back at the end again": ("varied", "is_random_next", _always_pays),
    "surplus not paid back at the end": ("varied", "is_random_next", _never_pays_at_the_end),
    "A never all but the last": ("varied", "draw_a_end", lambda self, n: self.rng.randint(1, max(n - 2, 1))),
    "B filled to the whole target": ("varied", "b_target", lambda _self, target, _a: target),
    "B not as short as the rest": ("ends", "collect_b", _not_capped),
    "B as short as the rest or longer": ("ends", "collect_nearest", _capped_upwards),
    "B shorter on a tie": ("ties", "collect_nearest", _shorter_on_a_tie),
    "B from an opening": ("few", "draw_b", _with_openings),
    "B's document first": ("few", "draw_b", _document_first),
    "nothing put back": ("varied", "num_put_back", lambda _self, _n, _at_end: 0),
    "ties off A": ("long", "comes_off_a", lambda _self, a, b: len(a) >= len(b)),
    "truncation more at the front": ("long", "comes_off_front", lambda self: self.rng.random() < 0.6),
    "truncation to the target": ("short", "truncation_limit", lambda _self, target: target),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_comparison_with_the_oracle_notices_a_wrong_step(built, mutation):
    name, method, wrong = MUTATIONS[mutation]
    oracle = type("WrongPairs", (BalancedPairs,), {method: wrong})
    instances = oracle_instances(CORPORA[name], oracle, seed=0, share=0.5)
    assert smallest_p(built[name], observations(CORPORA[name], instances, seed=2)) < 1e-5


# What is mended shows in labels, at ends and in whether a chunk follows another, and in nothing else.
SAME_AS_GOOGLE = ("sentences_a_of_chunk", "missing_front_a", "missing_back_a", "missing_front_b", "missing_back_b")


def test_build_pairs_balanced_cuts_and_truncates_actual_nexts_as_google_does():
    lengths = varied_lengths(200, most_sentences=30, least=20, most_tokens=16, seed=24)
    corpus = Corpus(lengths=lengths, max_seq_length=48, short_seq_prob=0.0)
    seen = []
    for seed, mode in enumerate(("balanced", "google")):
        # The first chunk of a document, before labels and ends make a difference.
        instances = built_instances(corpus, mode)
        is_first = np.append(True, np.diff(instances["unit"]) != 0) & (instances["label"] == 0)
        first = {name: values[is_first] for name, values in instances.items()}
        seen.append({name: observations(corpus, first, seed=seed)[name] for name in SAME_AS_GOOGLE})
    assert len(seen[0]["missing_front_a"]) > 1500
    assert smallest_p(*seen) > 0.001


# Shares.


@pytest.mark.parametrize("max_seq_length", [128, 512])
@pytest.mark.parametrize("mean_sentences", [3, 12, 40])
def test_build_pairs_balanced_has_as_many_random_as_actual_nexts(mean_sentences, max_seq_length):
    documents = mixed_documents(mean_sentences, num_documents=100_000 // mean_sentences)
    documents = prepared(documents, max_seq_length=max_seq_length)
    pairs = pairs_of(documents, "balanced", max_seq_length=max_seq_length, dupe_factor=4)
    assert len(pairs) > 20_000
    assert pairs.is_forced.mean() < 0.5
    assert abs(pairs.next_sentence_label.mean() - 0.5) < 0.01


@pytest.mark.parametrize("num_sentences", [2, 3, 5, 10])
def test_build_pairs_balanced_is_balanced_at_any_length_of_document(num_sentences):
    # An IsNext pair uses up more of a document than a NotNext pair, which must not make it the rarer one.
    lengths = varied_lengths(6000, most_sentences=num_sentences, least=num_sentences, most_tokens=40, seed=8)
    documents = documents_of(lengths)
    pairs = pairs_of(documents, "balanced", max_seq_length=256, dupe_factor=3)
    assert abs(pairs.next_sentence_label.mean() - 0.5) < 0.01


# Sentences as shares of the limit for one sentence, and sentences of a document: the harder for the balance, the
# fewer chunks of two sentences a document has.
@pytest.mark.parametrize(("max_seq_length", "short_seq_prob"), [(8, 0.1), (64, 1.0)])
@pytest.mark.parametrize(
    ("least", "most", "num_sentences"),
    [(0.05, 1, (2, 2)), (0.05, 1, (3, 3)), (0.7, 1, (2, 29)), (0.05, 2, (2, 12)), (0.05, 0.1, (2, 60))],
)
def test_build_pairs_balanced_is_balanced_for_sentences_of_any_length(
    max_seq_length, short_seq_prob, least, most, num_sentences
):
    rng = np.random.default_rng(25)
    limit = max_seq_length // 2
    bounds = max(round(least * limit), 1), max(round(most * limit), 2) + 1
    counts = rng.integers(num_sentences[0], num_sentences[1] + 1, 60_000 // sum(num_sentences))
    documents = prepared(
        documents_of([rng.integers(*bounds, count).tolist() for count in counts]), max_seq_length=max_seq_length
    )
    pairs = pairs_of(documents, "balanced", max_seq_length=max_seq_length, short_seq_prob=short_seq_prob, dupe_factor=3)
    assert len(pairs) > 5000
    assert pairs.is_forced.mean() < 0.5
    assert abs(pairs.next_sentence_label.mean() - 0.5) < 0.01


def uniformity_of_b(mode: str) -> float:
    """p value of B's start being uniform over all sentences but openings and those of A's document."""
    lengths = varied_lengths(40, most_sentences=30, least=2, most_tokens=6, seed=9)
    documents = documents_of(lengths)
    pairs = pairs_of(documents, mode, max_seq_length=2000, dupe_factor=220)  # nothing is truncated
    is_random = pairs.next_sentence_label == 1
    sentence = np.searchsorted(documents.token_offsets, pairs.b_start[is_random])
    num_sentences = np.diff(documents.sentence_offsets)
    is_candidate = np.ones(num_sentences.sum(), dtype=bool)
    is_candidate[documents.sentence_offsets[:-1]] = False
    found = np.bincount(sentence, minlength=len(is_candidate))[is_candidate]
    draws = np.bincount(pairs.documents[is_random, 0], minlength=len(documents))
    chance = draws / ((num_sentences - 1).sum() - (num_sentences - 1))
    expected = np.repeat(chance.sum() - chance, num_sentences - 1)
    assert expected.min() > 10
    return stats.chi2.sf(((found - expected) ** 2 / expected).sum(), len(found) - 1)


def test_build_pairs_balanced_draws_a_random_next_uniformly_over_sentences():
    assert uniformity_of_b("balanced") > 0.001
    assert uniformity_of_b("google") < 1e-9  # documents first: sentences of short documents are over-drawn
