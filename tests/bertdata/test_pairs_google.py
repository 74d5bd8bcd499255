"""The pairs of the published BERT: `build_pairs` against an oracle, and the oracle with each of its steps wrong."""

import pytest

from tests.bertdata.google_pairs import GooglePairs
from tests.bertdata.pair_corpora import mixed_documents, pairs_of, varied_lengths
from tests.bertdata.pair_distributions import Corpus, built_instances, observations, oracle_instances, smallest_p

CORPORA = {
    "varied": Corpus(
        lengths=varied_lengths(300, most_sentences=20, most_tokens=12, seed=1, long_share=0.05, long=(30, 60)),
        max_seq_length=32,
    ),
    "short": Corpus(
        lengths=varied_lengths(300, most_sentences=14, most_tokens=4, seed=2), max_seq_length=14, short_seq_prob=0.5
    ),
    "long": Corpus(lengths=varied_lengths(300, most_sentences=6, most_tokens=30, seed=3), max_seq_length=24),
    "shortest": Corpus(
        lengths=varied_lengths(400, most_sentences=8, most_tokens=2, seed=4), max_seq_length=8, short_seq_prob=0.9
    ),
    "few": Corpus(lengths=[[3, 2, 4], [5], [2] * 9], max_seq_length=20, passes=500),
}


@pytest.fixture(scope="module")
def built():
    return {name: observations(corpus, built_instances(corpus, "google"), seed=1) for name, corpus in CORPORA.items()}


@pytest.mark.parametrize("name", CORPORA)
def test_build_pairs_google_has_the_distribution_of_the_oracle(built, name):
    instances = oracle_instances(CORPORA[name], GooglePairs, seed=0)
    assert len(instances["unit"]) > 2000
    assert smallest_p(built[name], observations(CORPORA[name], instances, seed=2)) > 0.001


def _sentence_uniform(self, row):
    rows = [other for other, document in enumerate(self.documents) for _ in document]
    return self.rng.choice([other for other in rows if other != row])


def _inner_start(self, row):
    num_sentences = len(self.documents[row])
    return self.rng.randrange(min(1, num_sentences - 1), num_sentences)


def _other_start(self, row):
    return self.rng.randrange(max(len(self.documents[row]) - 1, 1))


def _one_more_token(self, sentences, target):
    return GooglePairs.collect(self, sentences, target + 1)


def _one_token_less(self, sentences, target):
    return GooglePairs.collect(self, sentences, target - 1)


def _past_the_target(_self, chunk, _rest, target):
    return sum(map(len, chunk)) <= target


def _not_past_the_target(_self, chunk, rest, target):
    return not chunk or sum(map(len, chunk)) + len(rest[0]) <= target


def _more_random(self, num_sentences, _at_end):
    return num_sentences == 1 or self.rng.random() < 0.6


def _one_end_for_all(self, a, b, *, limit):
    heads = self.rng.random() < 0.5
    while len(a) + len(b) > limit:
        (a if len(a) > len(b) else b).pop(0 if heads else -1)


# What is wrong: the corpus that shows it, the oracle's method, and what it does instead.
MUTATIONS = {
    "chunks past the target": ("shortest", "goes_on", _past_the_target),
    "chunks not past the target": ("varied", "goes_on", _not_past_the_target),
    "A never all but the last": ("varied", "draw_a_end", lambda self, n: self.rng.randint(1, max(n - 2, 1))),
    "A never the first alone": (
        "varied",
        "draw_a_end",
        lambda self, n: self.rng.randint(min(2, n - 1) or 1, n - 1 or 1),
    ),
    "A of half the chunk": ("varied", "draw_a_end", lambda _self, n: max(n // 2, 1)),
    "short targets from 3": ("shortest", "draw_short_target", lambda self: self.rng.randint(3, self.max_num_tokens)),
    "short targets one less": (
        "shortest",
        "draw_short_target",
        lambda self: self.rng.randint(2, self.max_num_tokens - 1),
    ),
    "no short targets": ("varied", "draw_target", lambda self: self.max_num_tokens),
    "a target per chunk": ("short", "target_of_chunk", lambda self, _target: self.draw_target()),
    "random nexts more often": ("varied", "is_random_next", _more_random),
    "B filled to the whole target": ("varied", "b_target", lambda _self, target, _a: target),
    "B filled to the longest target": ("short", "b_target", lambda self, _target, a: self.max_num_tokens - len(a)),
    "B filled one token further": ("short", "collect", _one_more_token),
    "B filled one token less far": ("short", "collect", _one_token_less),
    "B of one sentence": ("varied", "collect", lambda _self, sentences, _target: list(sentences[0])),
    "B never a document's opening": ("varied", "draw_start", _inner_start),
    "B never a document's last sentence": ("varied", "draw_start", _other_start),
    "one try for another document": (
        "few",
        "draw_document",
        lambda self, _row: self.rng.randrange(len(self.documents)),
    ),
    "documents drawn by sentences": ("few", "draw_document", _sentence_uniform),
    "nothing put back": ("varied", "num_put_back", lambda _self, _n, _at_end: 0),
    "nothing put back at the end": ("varied", "num_put_back", lambda _self, n, at_end: 0 if at_end else n),
    "one too few put back": ("varied", "num_put_back", lambda _self, n, _at_end: max(n - 1, 0)),
    "one sentence put back": ("varied", "num_put_back", lambda _self, n, _at_end: min(n, 1)),
    "ties off A": ("long", "comes_off_a", lambda _self, a, b: len(a) >= len(b)),
    "truncation off B first": ("long", "comes_off_a", lambda _self, _a, b: len(b) <= 1),
    "truncation at the front": ("long", "comes_off_front", lambda _self: True),
    "truncation more at the front": ("long", "comes_off_front", lambda self: self.rng.random() < 0.6),
    "truncation at one end": ("long", "truncate", _one_end_for_all),
    "truncation to the target": ("short", "truncation_limit", lambda _self, target: target),
    "truncation of one more": ("varied", "truncation_limit", lambda self, _target: self.max_num_tokens - 1),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_comparison_with_the_oracle_notices_a_wrong_step(built, mutation):
    name, method, wrong = MUTATIONS[mutation]
    oracle = type("WrongPairs", (GooglePairs,), {method: wrong})
    instances = oracle_instances(CORPORA[name], oracle, seed=0, share=0.5)
    assert smallest_p(built[name], observations(CORPORA[name], instances, seed=2)) < 1e-5


def test_build_pairs_google_has_a_surplus_of_random_nexts():
    pairs = pairs_of(mixed_documents(12), "google", max_seq_length=128)
    assert pairs.next_sentence_label.mean() > 0.52
    assert abs(pairs.next_sentence_label[~pairs.is_forced].mean() - 0.5) < 0.01
