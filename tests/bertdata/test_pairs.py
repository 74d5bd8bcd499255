import itertools
import time
from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bertdata.config import PairOptions
from bertdata.pairs import Pairs, _RandomSentences, build_pairs, cut_long_sentences, drop_single_sentences
from bertdata.seeds import hash64, unit
from bertdata.spill import Documents, concatenate_documents, gather_spans, offsets_of
from bertdata.wordpiece import Vocabulary
from tests.bertdata.google_pairs import GooglePairs

MODES = ("balanced", "google", "sop", "none")
PAIR_MODES = MODES[:3]


def documents_of(lengths, *, tokens=None) -> Documents:
    """Documents with sentences of the given lengths. By default each token is its own place in the corpus."""
    flat = np.array([length for document in lengths for length in document], dtype=np.int64)
    rows = np.arange(len(lengths))
    return Documents(
        keys=np.stack([hash64(1, rows), hash64(2, rows)], axis=1),
        sentence_offsets=offsets_of(np.array([len(document) for document in lengths], dtype=np.int64)),
        token_offsets=offsets_of(flat),
        tokens=np.arange(flat.sum(), dtype=np.uint32) if tokens is None else np.array(tokens, dtype=np.uint32),
    )


def vocabulary_of(size, *, punctuation=(), starts_word=None) -> Vocabulary:
    return Vocabulary(
        size=size,
        roles={"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4},
        dtype=np.dtype("<u4"),
        starts_word=None if starts_word is None else np.array(starts_word),
        marks_all_words=starts_word is not None,
        is_punctuation=np.isin(np.arange(size), list(punctuation)),
        ordinary=np.arange(5, size),
    )


def prepared(documents: Documents, *, max_seq_length: int) -> Documents:
    """What a build makes of documents before "balanced" and "sop"."""
    vocabulary = vocabulary_of(len(documents.tokens) + 5)
    cut = cut_long_sentences(documents, limit=max_seq_length // 2, vocabulary=vocabulary)
    return drop_single_sentences(cut)


def pairs_of(documents, mode, *, seed=0, max_seq_length=32, short_seq_prob=0.1, dupe_factor=1) -> Pairs:
    options = PairOptions(
        next_sentence=mode, max_seq_length=max_seq_length, short_seq_prob=short_seq_prob, dupe_factor=dupe_factor
    )
    return build_pairs(documents, options=options, seed=seed)


def token_tuples(documents: Documents, pairs: Pairs) -> list[tuple]:
    tokens = documents.tokens.tolist()
    spans = np.stack([pairs.a_start, pairs.a_stop, pairs.b_start, pairs.b_stop], axis=1).tolist()
    labels = pairs.next_sentence_label.tolist()
    return [(label, *tokens[a:b], None, *tokens[c:d]) for label, (a, b, c, d) in zip(labels, spans, strict=True)]


def varied_lengths(num_documents, *, most_sentences, most_tokens, seed, long_share=0.0, long=(0, 0), least=1):
    rng = Random(seed)

    def length():
        return rng.randint(*long) if rng.random() < long_share else rng.randint(1, most_tokens)

    return [[length() for _ in range(rng.randint(least, most_sentences))] for _ in range(num_documents)]


# Google's distribution: what can be seen of the instances is compared with the oracle's, statistic by statistic.
# A unit is a document in one pass. One instance of each unit is looked at, so that the observations are independent.

CORPORA = {
    "varied": {
        "lengths": varied_lengths(300, most_sentences=20, most_tokens=12, seed=1, long_share=0.05, long=(30, 60)),
        "max_seq_length": 32,
        "short_seq_prob": 0.1,
        "passes": 20,
    },
    "short": {
        "lengths": varied_lengths(300, most_sentences=14, most_tokens=4, seed=2),
        "max_seq_length": 14,
        "short_seq_prob": 0.5,
        "passes": 20,
    },
    "long": {
        "lengths": varied_lengths(300, most_sentences=6, most_tokens=30, seed=3),
        "max_seq_length": 24,
        "short_seq_prob": 0.1,
        "passes": 20,
    },
    "shortest": {
        "lengths": varied_lengths(400, most_sentences=8, most_tokens=2, seed=4),
        "max_seq_length": 8,
        "short_seq_prob": 0.9,
        "passes": 20,
    },
    "few": {"lengths": [[3, 2, 4], [5], [2] * 9], "max_seq_length": 20, "short_seq_prob": 0.1, "passes": 500},
}
COLUMNS = ("unit", "document", "b_document", "label", "a_start", "a_stop", "b_start", "b_stop")


def built_instances(corpus) -> dict[str, np.ndarray]:
    documents = documents_of(corpus["lengths"])
    parts = []
    for number in range(corpus["passes"]):
        pairs = pairs_of(
            documents,
            "google",
            seed=number,
            max_seq_length=corpus["max_seq_length"],
            short_seq_prob=corpus["short_seq_prob"],
        )
        row, b_row = pairs.documents.T
        spans = (pairs.a_start, pairs.a_stop, pairs.b_start, pairs.b_stop)
        parts.append((number * len(documents) + row, row, b_row, pairs.next_sentence_label.astype(np.int64), *spans))
    columns = dict(zip(COLUMNS, map(np.concatenate, zip(*parts, strict=True)), strict=True))
    order = np.lexsort((columns["a_start"], columns["unit"]))
    return {name: column[order] for name, column in columns.items()}


def oracle_instances(corpus, *, seed, oracle=GooglePairs, share=1.0) -> dict[str, np.ndarray]:
    tokens = iter(range(10**9))
    documents = [[[next(tokens) for _ in range(length)] for length in document] for document in corpus["lengths"]]
    google = oracle(
        documents,
        max_seq_length=corpus["max_seq_length"],
        short_seq_prob=corpus["short_seq_prob"],
        rng=Random(seed),
    )
    rows = []
    for number in range(round(corpus["passes"] * share)):
        for row in range(len(documents)):
            for it in google.instances(row):
                spans = (it.a[0], it.a[-1] + 1, it.b[0], it.b[-1] + 1)
                rows.append((number * len(documents) + row, row, it.b_document, it.label, *spans))
    return dict(zip(COLUMNS, np.array(rows).T, strict=True))


def observations(corpus, instances, *, seed) -> dict[str, np.ndarray]:
    """Integers that can be seen of one instance of each unit, and of each unit."""
    documents = documents_of(corpus["lengths"])
    offsets = documents.token_offsets
    sentence_of = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    seen = instances
    first_a, last_a = sentence_of[seen["a_start"]], sentence_of[seen["a_stop"] - 1]
    first_b, last_b = sentence_of[seen["b_start"]], sentence_of[seen["b_stop"] - 1]
    is_last = np.append(seen["unit"][1:] != seen["unit"][:-1], True)
    gap = np.where(is_last, -1, np.append(first_a[1:], 0) - last_a)
    length_a, length_b = seen["a_stop"] - seen["a_start"], seen["b_stop"] - seen["b_start"]
    each = {
        "label": seen["label"],
        "length_a": length_a,
        "length_b": length_b,
        "length_by_label": 1000 * seen["label"] + length_a + length_b,
        "difference_by_label": 1000 * seen["label"] + length_a - length_b,
        "sentences_a": last_a - first_a,
        "sentences_b": last_b - first_b,
        "missing_front_a": seen["a_start"] - offsets[first_a],
        "missing_back_a": offsets[last_a + 1] - seen["a_stop"],
        "missing_front_b": seen["b_start"] - offsets[first_b],
        "missing_back_b": offsets[last_b + 1] - seen["b_stop"],
        "missing_fronts": 100 * (seen["a_start"] - offsets[first_a]) + seen["b_start"] - offsets[first_b],
        "gap_by_label": 1000 * seen["label"] + gap,
        "is_same_document": 2 * seen["label"] + (seen["document"] == seen["b_document"]),
        "start_b": np.where(seen["label"] == 1, first_b - documents.sentence_offsets[seen["b_document"]], -1),
    }
    if len(documents) < 10:
        each["documents"] = seen["document"] * 10 + seen["b_document"] + 100 * seen["label"]
    starts = np.flatnonzero(np.append(True, ~is_last[:-1] ^ True))
    counts = np.diff(np.append(starts, len(is_last)))
    picked = starts + (unit(hash64(seed, np.arange(len(starts)))) * counts).astype(np.int64)
    values = {name: value[picked] for name, value in each.items()}
    values["first_sentences_a"] = each["sentences_a"][starts]
    values["first_length"] = (length_a + length_b)[starts]
    values["num_instances"] = counts
    values["num_random_by_num"] = 100 * counts + np.add.reduceat(seen["label"], starts)
    return values


def smallest_p(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """Smallest p value of a chi-square test over all statistics, times their number."""
    values = []
    for name in ours:
        both = np.concatenate([ours[name], theirs[name]])
        _, index = np.unique(both, return_inverse=True)
        table = np.stack([np.bincount(part, minlength=index.max() + 1) for part in np.split(index, [len(ours[name])])])
        rare = table.sum(axis=0) < 20
        table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
        table = table[:, table.sum(axis=0) > 0]
        if table.shape[1] > 1:
            values.append(stats.chi2_contingency(table).pvalue)
    return min(values) * len(values)


@pytest.fixture(scope="module")
def built():
    return {name: observations(corpus, built_instances(corpus), seed=1) for name, corpus in CORPORA.items()}


@pytest.mark.parametrize("name", CORPORA)
def test_build_pairs_google_has_the_distribution_of_the_oracle(built, name):
    instances = oracle_instances(CORPORA[name], seed=0)
    assert len(instances["unit"]) > 2000
    assert smallest_p(built[name], observations(CORPORA[name], instances, seed=2)) > 0.01


def _sentence_uniform(self, row):
    rows = [other for other, document in enumerate(self.documents) for _ in document]
    return self.rng.choice([other for other in rows if other != row])


def _inner_start(self, row):
    num_sentences = len(self.documents[row])
    return self.rng.randrange(min(1, num_sentences - 1), num_sentences)


def _one_more_token(self, sentences, *, target):
    return GooglePairs.collect(self, sentences, target=target + 1)


# What is wrong: the corpus that shows it, the oracle's method, and what it does instead.
MUTATIONS = {
    "A never all but the last": ("varied", "draw_a_end", lambda self, n: self.rng.randint(1, max(n - 2, 1))),
    "A of half the chunk": ("varied", "draw_a_end", lambda _self, n: max(n // 2, 1)),
    "short targets from 3": ("shortest", "draw_short_target", lambda self: self.rng.randint(3, self.max_num_tokens)),
    "short targets one less": (
        "shortest",
        "draw_short_target",
        lambda self: self.rng.randint(2, self.max_num_tokens - 1),
    ),
    "no short targets": ("varied", "draw_target", lambda self: self.max_num_tokens),
    "a target per chunk": ("short", "target_of_chunk", lambda self, _target: self.draw_target()),
    "ties off A": ("long", "comes_off_a", lambda _self, a, b: len(a) >= len(b)),
    "truncation at the front": ("long", "comes_off_front", lambda _self: True),
    "truncation more at the front": ("long", "comes_off_front", lambda self: self.rng.random() < 0.6),
    "truncation to the target": ("short", "truncation_limit", lambda _self, target: target),
    "truncation of one more": ("varied", "truncation_limit", lambda self, _target: self.max_num_tokens - 1),
    "nothing put back": ("varied", "num_put_back", lambda _self, _n, _at_end: 0),
    "nothing put back at the end": ("varied", "num_put_back", lambda _self, n, at_end: 0 if at_end else n),
    "one too few put back": ("varied", "num_put_back", lambda _self, n, _at_end: max(n - 1, 0)),
    "one try for another document": (
        "few",
        "draw_document",
        lambda self, _row: self.rng.randrange(len(self.documents)),
    ),
    "documents drawn by sentences": ("few", "draw_document", _sentence_uniform),
    "B never a document's opening": ("varied", "draw_start", _inner_start),
    "B filled one token further": ("short", "collect", _one_more_token),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_comparison_with_the_oracle_notices_a_wrong_step(built, mutation):
    name, method, wrong = MUTATIONS[mutation]
    oracle = type("WrongPairs", (GooglePairs,), {method: wrong})
    instances = oracle_instances(CORPORA[name], seed=0, oracle=oracle, share=0.5)
    assert smallest_p(built[name], observations(CORPORA[name], instances, seed=2)) < 1e-5


def test_random_sentences_google_keeps_its_own_document_after_ten_tries():
    # Two documents: ten tries all give the own one in 2 ** -10 of the cases.
    sentences = _RandomSentences(documents_of([[2] * 5, [3] * 4]), mode="google")
    rows = np.arange(1_000_000) % 2
    first, document = sentences.draw(rows, hash64(0, np.arange(len(rows))))
    assert stats.binomtest(int((document == rows).sum()), len(rows), 2.0**-10).pvalue > 0.01
    expected = np.repeat([len(rows) / 2 / 5, len(rows) / 2 / 4], [5, 4])
    assert stats.chisquare(np.bincount(first), expected).pvalue > 0.01


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


# Properties of all modes.


@st.composite
def corpora(draw):
    mode = draw(st.sampled_from(MODES))
    max_seq_length = draw(st.integers(8, 40))
    least = 1 if mode in ("google", "none") else 2
    length = st.integers(1, draw(st.sampled_from((2, 12, 90))))
    lengths = draw(st.lists(st.lists(length, min_size=least, max_size=12), max_size=8))
    documents = documents_of(lengths)
    if mode in ("balanced", "sop") and draw(st.booleans()):
        documents = prepared(documents, max_seq_length=max_seq_length)
    short_seq_prob = draw(st.sampled_from((0.0, 0.1, 1.0)))
    pairs = pairs_of(
        documents,
        mode,
        seed=draw(st.integers(0, 2**64 - 1)),
        max_seq_length=max_seq_length,
        short_seq_prob=short_seq_prob,
        dupe_factor=draw(st.integers(1, 3)),
    )
    return mode, max_seq_length, documents, pairs


@settings(max_examples=150, deadline=None)
@given(corpora())
def test_build_pairs_gives_samples_that_fit_and_lie_in_their_documents(corpus):
    mode, max_seq_length, documents, pairs = corpus
    length_a, length_b = pairs.a_stop - pairs.a_start, pairs.b_stop - pairs.b_start
    num_special = 2 if mode == "none" else 3
    assert (length_a + length_b <= max_seq_length - num_special).all()
    assert (length_a > 0).all()
    assert (length_b == 0).all() if mode == "none" else (length_b > 0).all()
    bounds = documents.token_offsets[documents.sentence_offsets]
    for column, (start, stop) in enumerate(((pairs.a_start, pairs.a_stop), (pairs.b_start, pairs.b_stop))):
        rows = pairs.documents[:, column]
        assert (bounds[rows] <= start).all()
        assert (stop <= bounds[rows + 1]).all()
    assert (pairs.order[1:] >= pairs.order[:-1]).all()
    assert set(pairs.documents[:, 0].tolist()) == set(range(len(documents)))


@settings(max_examples=150, deadline=None)
@given(corpora())
def test_build_pairs_lets_an_actual_next_follow_at_a_sentence(corpus):
    mode, max_seq_length, documents, pairs = corpus
    if mode == "none":
        assert not pairs.next_sentence_label.any()
        return
    spans = [pairs.a_start, pairs.a_stop, pairs.b_start, pairs.b_stop]
    follows = pairs.next_sentence_label == 0
    if mode == "sop":
        swapped = pairs.next_sentence_label == 1
        spans = [np.where(swapped, spans[other], spans[own]) for own, other in enumerate((2, 3, 0, 1))]
        follows[:] = True
    a_start, a_stop, b_start, b_stop = (span[follows] for span in spans)
    assert (pairs.documents[follows, 0] == pairs.documents[follows, 1]).all()
    assert (a_stop <= b_start).all()
    offsets = documents.token_offsets
    boundary = offsets[np.minimum(np.searchsorted(offsets, a_stop), len(offsets) - 1)]
    assert (boundary <= b_start).all()
    # Shorter than the limit: nothing was truncated, so A and B touch, and begin and end at sentences.
    is_whole = (a_stop - a_start) + (b_stop - b_start) < max_seq_length - 3
    assert (a_stop == b_start)[is_whole].all()
    assert np.isin(a_start[is_whole], offsets).all()
    assert np.isin(b_stop[is_whole], offsets).all()


@settings(max_examples=120, deadline=None)
@given(corpora())
def test_build_pairs_balanced_takes_a_random_next_from_the_inside_of_another_document(corpus):
    mode, _, documents, pairs = corpus
    if mode != "balanced":
        return
    is_random = pairs.next_sentence_label == 1
    assert (is_random == (pairs.documents[:, 0] != pairs.documents[:, 1])).all()
    opening_stops = documents.token_offsets[documents.sentence_offsets[:-1] + 1]
    assert (pairs.b_start >= opening_stops[pairs.documents[:, 1]])[is_random].all()
    assert (is_random | ~pairs.is_forced).all()


@pytest.mark.parametrize("mode", PAIR_MODES)
@pytest.mark.parametrize("short_seq_prob", [0.0, 0.9])
def test_build_pairs_shows_each_token_once_per_pass_where_nothing_is_truncated(mode, short_seq_prob):
    documents = documents_of(varied_lengths(60, most_sentences=30, most_tokens=12, seed=5, least=2))
    pairs = pairs_of(documents, mode, max_seq_length=4000, short_seq_prob=short_seq_prob)
    count = np.zeros(len(documents.tokens), dtype=int)
    follows = (pairs.next_sentence_label == 0) | (mode == "sop")
    np.add.at(count, gather_spans(pairs.a_start, pairs.a_stop)[0], 1)
    np.add.at(count, gather_spans(pairs.b_start[follows], pairs.b_stop[follows])[0], 1)
    assert (count == 1).all()


@pytest.mark.parametrize("max_seq_length", [8, 32, 128])
def test_build_pairs_none_loses_no_token_and_keeps_their_order(max_seq_length):
    documents = documents_of(varied_lengths(40, most_sentences=20, most_tokens=50, seed=6))
    pairs = pairs_of(documents, "none", max_seq_length=max_seq_length, short_seq_prob=0.3)
    order = np.argsort(pairs.a_start)
    assert pairs.a_start[order][0] == 0
    assert (pairs.a_start[order][1:] == pairs.a_stop[order][:-1]).all()
    assert pairs.a_stop[order][-1] == len(documents.tokens)
    assert (pairs.documents[:, 0] == pairs.documents[:, 1]).all()
    assert (pairs.b_start == pairs.b_stop).all()


def test_build_pairs_none_fills_samples_and_continues_a_long_sentence():
    documents = documents_of([[3, 4, 2, 9], [2]])
    pairs = pairs_of(documents, "none", max_seq_length=10, short_seq_prob=0.0)
    assert sorted(zip(pairs.a_start.tolist(), pairs.a_stop.tolist(), strict=True)) == [
        (0, 8),
        (8, 16),
        (16, 18),
        (18, 20),
    ]


@pytest.mark.parametrize("mode", ["balanced", "sop"])
def test_build_pairs_lets_a_last_single_sentence_join_the_chunk_before(mode):
    # A chunk of 13 tokens would end after four sentences and leave the fifth alone.
    documents = documents_of([[3, 3, 4, 3, 2]] * 200)
    pairs = pairs_of(documents, mode, max_seq_length=16, short_seq_prob=0.0)
    follows = (pairs.next_sentence_label == 0) | (mode == "sop")
    stops = np.maximum(pairs.a_stop, pairs.b_stop)[follows] % 15
    assert set(stops.tolist()) <= {0, 14, 13}  # up to two tokens too many come off an end
    if mode == "sop":
        assert len(pairs) == 200
    unjoined = pairs_of(documents, "google", max_seq_length=16, short_seq_prob=0.0)
    assert (unjoined.b_stop[unjoined.next_sentence_label == 0] % 15 == 13).mean() > 0.3


# Shares.


def mixed_documents(mean_sentences, *, num_documents=4000, seed=7) -> Documents:
    rng = np.random.default_rng(seed)
    counts = 1 + rng.geometric(1 / (mean_sentences - 1), num_documents)
    return documents_of([rng.integers(5, 45, count).tolist() for count in counts])


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


def test_build_pairs_google_has_a_surplus_of_random_nexts():
    pairs = pairs_of(mixed_documents(12), "google", max_seq_length=128)
    assert pairs.next_sentence_label.mean() > 0.52
    assert abs(pairs.next_sentence_label[~pairs.is_forced].mean() - 0.5) < 0.01


def test_build_pairs_sop_swaps_half_of_the_pairs():
    pairs = pairs_of(mixed_documents(12), "sop", max_seq_length=128, dupe_factor=2)
    assert len(pairs) > 10_000
    assert stats.binomtest(int(pairs.next_sentence_label.sum()), len(pairs)).pvalue > 0.01
    assert (pairs.documents[:, 0] == pairs.documents[:, 1]).all()
    assert ((pairs.a_start > pairs.b_start) == (pairs.next_sentence_label == 1)).all()


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
    assert uniformity_of_b("balanced") > 0.01
    assert uniformity_of_b("google") < 1e-9  # documents first: sentences of short documents are over-drawn


@pytest.mark.parametrize(("mode", "max_num_tokens"), [("balanced", 29), ("sop", 29), ("none", 30)])
def test_build_pairs_draws_short_targets_per_chunk(mode, max_num_tokens):
    # Sentences of one token: a chunk has exactly its target, but for the last of a document.
    documents = documents_of([[1] * 2000] * 50)
    pairs = pairs_of(documents, mode, max_seq_length=32, seed=1, short_seq_prob=0.2, dupe_factor=4)
    start = np.minimum(pairs.a_start, pairs.b_start)
    is_seen = start % 2000 < 2000 - 2 * max_num_tokens
    if mode == "balanced":
        is_seen &= pairs.next_sentence_label == 0
    length = (pairs.a_stop - pairs.a_start + pairs.b_stop - pairs.b_start)[is_seen]
    assert len(length) > 3000
    expected = np.full(max_num_tokens - 1, 0.2 / (max_num_tokens - 1))
    expected[-1] += 0.8
    found = np.bincount(length - 2, minlength=max_num_tokens - 1)
    assert stats.chisquare(found, expected * len(length)).pvalue > 0.01


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("short_seq_prob", "is_short"), [(0.0, False), (1.0, True)])
def test_build_pairs_takes_short_seq_prob_as_given(mode, short_seq_prob, is_short):
    documents = documents_of([[1] * 600] * 20)
    pairs = pairs_of(documents, mode, max_seq_length=32, short_seq_prob=short_seq_prob)
    length = pairs.a_stop - pairs.a_start + pairs.b_stop - pairs.b_start
    assert ((length < 29).mean() > 0.5) == is_short


# What samples depend on.


@pytest.mark.parametrize("mode", ["sop", "none"])
def test_build_pairs_gives_the_same_samples_for_any_order_of_documents(mode):
    documents = documents_of(varied_lengths(50, most_sentences=12, least=2, most_tokens=20, seed=10))
    shuffled = documents.take(np.random.default_rng(0).permutation(len(documents)))
    ours, theirs = (token_tuples(part, pairs_of(part, mode, dupe_factor=2)) for part in (documents, shuffled))
    assert ours == theirs


@pytest.mark.parametrize("mode", MODES)
def test_build_pairs_gives_the_same_samples_once_documents_are_sorted_by_key(mode):
    lengths = varied_lengths(50, most_sentences=12, least=2, most_tokens=20, seed=10)
    documents = documents_of(lengths)
    shuffled = documents.take(np.random.default_rng(0).permutation(len(documents)))
    halves = [shuffled.take(np.arange(20)), shuffled.take(np.arange(20, 50))]
    first, second = concatenate_documents([documents]), concatenate_documents(halves)
    assert token_tuples(first, pairs_of(first, mode)) == token_tuples(second, pairs_of(second, mode))


@pytest.mark.parametrize("mode", ["balanced", "google"])
def test_build_pairs_draws_labels_from_the_document_alone(mode):
    documents = documents_of(varied_lengths(50, most_sentences=12, least=2, most_tokens=20, seed=11))
    whole = pairs_of(documents, mode, dupe_factor=2)
    half = documents.take(np.arange(49, 24, -1))
    part = pairs_of(half, mode, dupe_factor=2)
    is_ours = whole.documents[:, 0] >= 25
    assert (whole.order[is_ours] == part.order).all()
    assert (whole.next_sentence_label[is_ours] == part.next_sentence_label).all()
    assert (whole.documents[is_ours, 0] == 49 - part.documents[:, 0]).all()


@pytest.mark.parametrize("mode", MODES)
def test_build_pairs_adds_passes_that_differ_from_the_first(mode):
    documents = documents_of(varied_lengths(50, most_sentences=20, least=2, most_tokens=12, seed=12))
    one, three = (pairs_of(documents, mode, short_seq_prob=0.3, dupe_factor=number) for number in (1, 3))
    first, all_passes = Counter(token_tuples(documents, one)), Counter(token_tuples(documents, three))
    assert first <= all_passes
    # A single segment always starts at a document's first token, so that documents without a short chunk repeat.
    num_new = len(set(all_passes) - set(first))
    assert num_new > (0.3 if mode == "none" else 0.8) * len(first)
    assert 2.5 * len(one) < len(three) < 3.5 * len(one)


@pytest.mark.parametrize("mode", MODES)
def test_build_pairs_depends_on_the_seed(mode):
    documents = documents_of(varied_lengths(50, most_sentences=20, least=2, most_tokens=12, seed=12))
    ours, again, other = (
        token_tuples(documents, pairs_of(documents, mode, seed=seed, short_seq_prob=0.3)) for seed in (3, 3, 4)
    )
    assert ours == again
    assert len(set(ours) & set(other)) < (0.8 if mode == "none" else 0.5) * len(ours)


@pytest.mark.parametrize("mode", MODES)
def test_build_pairs_mixes_the_samples_of_documents_and_passes(mode):
    documents = documents_of(varied_lengths(200, most_sentences=20, least=2, most_tokens=12, seed=13))
    pairs = pairs_of(documents, mode, dupe_factor=2)
    rows = pairs.documents[:, 0]
    assert abs(stats.spearmanr(rows, np.arange(len(rows))).statistic) < 0.1
    assert (rows[1:] == rows[:-1]).mean() < 0.05


GOLDEN = {
    "balanced": [(1, 0, 5, 21, 24), (0, 9, 11, 11, 16), (0, 21, 22, 22, 24), (1, 5, 9, 21, 24), (1, 16, 21, 5, 9)],
    "google": [
        (1, 0, 5, 21, 22),
        (1, 11, 16, 3, 7),
        (1, 9, 11, 22, 24),
        (0, 21, 22, 22, 24),
        (1, 5, 9, 22, 24),
        (1, 16, 21, 5, 9),
    ],
    "sop": [(1, 5, 9, 0, 5), (1, 11, 16, 9, 11), (1, 21, 24, 16, 21)],
    "none": [(0, 0, 9, 9, 9), (0, 9, 16, 16, 16), (0, 16, 24, 24, 24)],
}


@pytest.mark.parametrize("mode", MODES)
def test_build_pairs_keeps_its_draws(mode):
    # Another value here means other shards at the same seed.
    documents = documents_of([[3, 2, 4], [2, 5], [4, 1, 1, 2]])
    pairs = pairs_of(documents, mode, max_seq_length=12)
    columns = (pairs.next_sentence_label, pairs.a_start, pairs.a_stop, pairs.b_start, pairs.b_stop)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == GOLDEN[mode]


# Corner cases.


@pytest.mark.parametrize("mode", MODES)
def test_build_pairs_of_no_documents_gives_no_samples(mode):
    pairs = pairs_of(documents_of([]), mode)
    assert len(pairs) == 0
    assert pairs.documents.shape == (0, 2)
    wanted = pairs_of(documents_of([[1, 2], [2, 1]]), mode)
    for name in Pairs.__slots__:
        assert getattr(pairs, name).dtype == getattr(wanted, name).dtype, name


@pytest.mark.parametrize("mode", ["balanced", "sop"])
def test_build_pairs_of_one_document_pairs_it_with_itself(mode):
    documents = documents_of([varied_lengths(1, most_sentences=40, least=40, most_tokens=12, seed=14)[0]])
    pairs = pairs_of(documents, mode, dupe_factor=5)
    assert len(pairs) > 20
    assert not pairs.is_forced.any()
    assert (pairs.documents == 0).all()
    if mode == "balanced":
        assert not pairs.next_sentence_label.any()


def test_build_pairs_google_of_one_document_draws_from_itself():
    pairs = pairs_of(documents_of([[5] * 40]), "google", dupe_factor=10)
    assert 0.4 < pairs.next_sentence_label.mean() < 0.8
    assert (pairs.documents == 0).all()


def test_build_pairs_google_of_one_sentence_documents_forces_a_random_next():
    pairs = pairs_of(documents_of([[5], [1], [90]]), "google", dupe_factor=4)
    assert len(pairs) == 12
    assert pairs.next_sentence_label.all()
    assert pairs.is_forced.all()


@pytest.mark.parametrize("mode", PAIR_MODES)
def test_build_pairs_of_sentences_longer_than_a_sample(mode):
    documents = documents_of([[400, 300], [1, 700], [900, 1]])
    pairs = pairs_of(documents, mode, max_seq_length=16, short_seq_prob=0.0, dupe_factor=50)
    length_a, length_b = pairs.a_stop - pairs.a_start, pairs.b_stop - pairs.b_start
    assert (length_a + length_b <= 13).all()
    assert set(length_a.tolist()) <= {1, 6, 7, 12}
    assert {1, 6} <= set(length_a.tolist()) | set(length_b.tolist())


@pytest.mark.parametrize("mode", MODES)
def test_build_pairs_at_the_shortest_length(mode):
    documents = documents_of(varied_lengths(300, most_sentences=6, least=2, most_tokens=5, seed=15))
    pairs = pairs_of(documents, mode, max_seq_length=8, short_seq_prob=1.0)
    length = pairs.a_stop - pairs.a_start + pairs.b_stop - pairs.b_start
    assert set(length.tolist()) == ({1, 2, 3, 4, 5, 6} if mode == "none" else {2, 3, 4, 5})


@pytest.mark.parametrize("mode", MODES)
def test_build_pairs_of_a_huge_document_is_fast(mode):
    documents = documents_of([[20] * 5000, [20] * 20])
    start = time.process_time()
    pairs = pairs_of(documents, mode, max_seq_length=128)
    assert time.process_time() - start < 20
    assert len(pairs) >= 5000 * 20 // 140


def test_pairs_take_and_concatenate_are_inverse():
    pairs = pairs_of(documents_of([[3, 4, 5, 6], [2, 2, 2]]), "balanced", dupe_factor=4)
    split = [pairs.take(np.arange(3)), pairs.take(np.arange(3, len(pairs)))]
    whole = Pairs.concatenate(split)
    for name in Pairs.__slots__:
        assert (getattr(whole, name) == getattr(pairs, name)).all()


# Sentences that are too long, documents that are too short.


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
