"""What holds for pairs of any mode: properties, what they depend on, and corner cases."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bertdata.pairs import Pairs
from bertdata.spans import gather_spans, offsets_of
from bertdata.spill import Documents
from tests.bertdata.pair_corpora import (
    MODES,
    PAIR_MODES,
    documents_of,
    pairs_of,
    prepared,
    token_tuples,
    varied_lengths,
)


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
    assert (count <= 1).all()
    # A last sentence that a balanced random next puts back alone has nothing to be paired with.
    last = documents.sentence_offsets[1:] - 1
    is_last = np.zeros(len(count), dtype=bool)
    is_last[gather_spans(documents.token_offsets[last], documents.token_offsets[last + 1])[0]] = mode == "balanced"
    assert (count[~is_last] == 1).all()


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


def sorted_by_key(parts):
    whole = Documents(
        keys=np.concatenate([part.keys for part in parts]),
        sentence_offsets=offsets_of(np.concatenate([np.diff(part.sentence_offsets) for part in parts])),
        token_offsets=offsets_of(np.concatenate([np.diff(part.token_offsets) for part in parts])),
        tokens=np.concatenate([part.tokens for part in parts]),
    )
    return whole.take(np.lexsort((whole.keys[:, 1], whole.keys[:, 0])))


@pytest.mark.parametrize("mode", MODES)
def test_build_pairs_gives_the_same_samples_once_documents_are_sorted_by_key(mode):
    lengths = varied_lengths(50, most_sentences=12, least=2, most_tokens=20, seed=10)
    documents = documents_of(lengths)
    shuffled = documents.take(np.random.default_rng(0).permutation(len(documents)))
    halves = [shuffled.take(np.arange(20)), shuffled.take(np.arange(20, 50))]
    first, second = sorted_by_key([documents]), sorted_by_key(halves)
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
    "balanced": [(0, 21, 22, 22, 24), (1, 16, 21, 5, 9), (0, 0, 5, 5, 9), (1, 9, 11, 20, 24)],
    "google": [
        (1, 11, 16, 1, 5),
        (0, 21, 22, 22, 24),
        (1, 16, 21, 5, 9),
        (1, 0, 3, 21, 22),
        (1, 3, 5, 21, 22),
        (1, 5, 9, 9, 11),
        (1, 9, 11, 16, 23),
    ],
    "sop": [(1, 21, 24, 16, 21), (0, 0, 5, 5, 9), (1, 11, 16, 9, 11)],
    "none": [(0, 16, 24, 24, 24), (0, 0, 9, 9, 9), (0, 9, 16, 16, 16)],
}


@pytest.mark.parametrize("mode", MODES)
def test_build_pairs_keeps_its_draws(mode):
    # Another value here means other shards at the same seed.
    documents = documents_of([[3, 2, 4], [2, 5], [4, 1, 1, 2]])
    pairs = pairs_of(documents, mode, max_seq_length=12)
    columns = (pairs.next_sentence_label, pairs.a_start, pairs.a_stop, pairs.b_start, pairs.b_stop)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == GOLDEN[mode]


def test_pairs_take_and_concatenate_are_inverse():
    pairs = pairs_of(documents_of([[3, 4, 5, 6], [2, 2, 2]]), "balanced", dupe_factor=4)
    split = [pairs.take(np.arange(3)), pairs.take(np.arange(3, len(pairs)))]
    whole = Pairs.concatenate(split)
    for name in Pairs.__slots__:
        assert (getattr(whole, name) == getattr(pairs, name)).all()
