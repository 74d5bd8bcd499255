import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bertdata.errors import ConfigError
from bertdata.masking import draw_masks, num_predictions
from tests.bertdata.mask_blocks import (
    CLS,
    CONTINUES,
    MASK,
    PAD,
    RESERVED,
    SEP,
    SIZE,
    UNK,
    VOCABULARY,
    block_of,
    options_of,
    random_block,
    rows_of,
    sets_of,
    vocabulary_of,
)

segments = st.lists(st.integers(RESERVED.stop, SIZE - 1), min_size=1, max_size=40)
samples = st.lists(st.tuples(segments, st.one_of(st.just([]), segments)), max_size=8)
mask_options = st.builds(
    options_of,
    mode=st.sampled_from(("balanced", "google")),
    seed=st.integers(0, 2**64 - 1),
    masked_lm_prob=st.sampled_from((0.01, 0.15, 0.4, 1.0)),
    max_predictions_per_seq=st.one_of(st.none(), st.integers(1, 20)),
    whole_word_mask=st.booleans(),
)

# How many.


def counts_by_hand(lengths, *, masked_lm_prob, cap):
    return [min(cap or 10**9, max(1, round(length * masked_lm_prob))) for length in lengths]


@pytest.mark.parametrize("masked_lm_prob", [0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("cap", [None, 1, 20, 76])
def test_num_predictions_rounds_as_python_does_at_every_length(masked_lm_prob, cap):
    found = num_predictions(np.arange(1, 513), masked_lm_prob=masked_lm_prob, max_predictions_per_seq=cap)
    assert found.tolist() == counts_by_hand(range(1, 513), masked_lm_prob=masked_lm_prob, cap=cap)


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 1, exclude_min=True), st.one_of(st.none(), st.integers(1, 80)))
def test_num_predictions_rounds_as_python_does_for_every_share(masked_lm_prob, cap):
    found = num_predictions(np.arange(1, 513), masked_lm_prob=masked_lm_prob, max_predictions_per_seq=cap)
    assert found.tolist() == counts_by_hand(range(1, 513), masked_lm_prob=masked_lm_prob, cap=cap)


def test_num_predictions_of_published_lengths():
    found = num_predictions(np.array([3, 30, 50, 128, 512]), masked_lm_prob=0.15, max_predictions_per_seq=None)
    assert found.tolist() == [1, 4, 8, 19, 77]


def test_draw_masks_predicts_as_many_positions_at_every_length():
    block = random_block([(length // 2, length - length // 2) for length in range(2, 510)])
    counts, _, _ = draw_masks(block, options=options_of(), vocabulary=VOCABULARY, sets=range(2))
    expected = [[max(1, round(0.15 * length))] * 2 for length in range(5, 513)]
    assert counts.tolist() == expected


def test_draw_masks_takes_max_predictions_per_seq_as_a_cap():
    block = random_block([(40, 20), (5, 5)])
    for cap, expected in ((3, [3, 2]), (8, [8, 2]), (None, [9, 2])):
        counts, _, _ = draw_masks(
            block, options=options_of(max_predictions_per_seq=cap), vocabulary=VOCABULARY, sets=[0]
        )
        assert counts[:, 0].tolist() == expected


@pytest.mark.parametrize("whole_word_mask", [False, True])
def test_draw_masks_with_a_share_of_one_takes_all_but_the_specials(whole_word_mask):
    block = random_block([(7, 4), (1, 1), (12, 0), (1, 0)])
    options = options_of(masked_lm_prob=1.0, whole_word_mask=whole_word_mask)
    for row, sets in zip(rows_of(block), sets_of(block, options), strict=True):
        wanted = [place for place, token in enumerate(row) if token not in (CLS, SEP)]
        assert [positions for positions, _ in sets] == [wanted] * 3


# Where.


@settings(max_examples=150, deadline=None)
@given(samples, mask_options, st.lists(st.integers(0, 255), max_size=4, unique=True))
def test_draw_masks_gives_ascending_positions_that_hold_no_special(sample_segments, options, sets):
    block = block_of(sample_segments)
    masks = options.masks
    for row, drawn in zip(rows_of(block), sets_of(block, options, sets=sets), strict=True):
        budget = max(1, round(len(row) * masks.masked_lm_prob))
        budget = min(budget, masks.max_predictions_per_seq or budget)
        for positions, shown in drawn:
            assert positions == sorted(set(positions))
            assert all(0 < position < len(row) and row[position] not in (CLS, SEP) for position in positions)
            num_candidates = sum(token not in (CLS, SEP) for token in row)
            if masks.whole_word_mask:
                assert len(positions) <= budget
            else:
                assert len(positions) == min(budget, num_candidates)
            for position, token in zip(positions, shown, strict=True):
                is_ordinary = RESERVED.stop <= token < SIZE
                is_allowed = is_ordinary or options.pairs.next_sentence == "google"
                assert token in (MASK, row[position]) or is_allowed


def test_draw_masks_may_predict_an_unknown_token():
    block = block_of([([UNK] * 6, [UNK] * 3)])
    assert sorted(
        {place for positions, _ in sets_of(block, options_of(), sets=range(40))[0] for place in positions}
    ) == [
        *range(1, 7),
        *range(8, 11),
    ]


@pytest.mark.parametrize("lengths", [(20, 10), (1, 29), (29, 1), (30, 0)])
@pytest.mark.parametrize("whole_word_mask", [False, True])
def test_draw_masks_draws_positions_uniformly(lengths, whole_word_mask):
    block = random_block([lengths] * 4000, high=CONTINUES.start)  # all words are of one piece
    _, positions, _ = draw_masks(
        block, options=options_of(whole_word_mask=whole_word_mask), vocabulary=VOCABULARY, sets=range(2)
    )
    candidates = [place for place, token in enumerate(rows_of(block)[0]) if token not in (CLS, SEP)]
    found = np.bincount(positions, minlength=34)
    assert found.sum() == found[candidates].sum()
    assert stats.chisquare(found[candidates]).pvalue > 0.001


def test_draw_masks_draws_pairs_of_positions_uniformly():
    block = random_block([(6, 5)] * 8000)
    drawn = sets_of(block, options_of(masked_lm_prob=0.15), sets=[0])  # 14 tokens: 2 positions of 11
    found = Counter(tuple(positions) for ((positions, _),) in drawn)
    assert len(found) == 55
    assert stats.chisquare(list(found.values())).pvalue > 0.001


def test_draw_masks_draws_sets_of_a_sample_independently():
    block = random_block([(70, 55)] * 2000)
    drawn = sets_of(block, options_of(), sets=range(3))
    overlap_law = stats.hypergeom(125, 19, 19)
    for one, other in itertools.combinations(range(3), 2):
        overlaps = [len({*sets[one][0]} & {*sets[other][0]}) for sets in drawn]
        found = np.bincount(np.clip(overlaps, 0, 7), minlength=8)
        expected = np.append(overlap_law.pmf(np.arange(7)), overlap_law.sf(6)) * len(drawn)
        assert stats.chisquare(found, expected).pvalue > 0.001
        assert all(sets[one] != sets[other] for sets in drawn)


def test_draw_masks_draws_samples_that_differ_in_one_thing_independently():
    a, b = list(range(10, 60)), list(range(60, 99))
    swapped_b = [b[1], b[0], *b[2:]]
    block = block_of([(a, b), (a, swapped_b), (a + b[:1], b[1:]), (a, b), ([*a, SEP, *b], [])])
    keys = block.document_keys.copy()
    keys[:, 0], keys[:, 1] = 5, [6, 6, 6, 7, 6]
    drawn = sets_of(dataclasses.replace(block, document_keys=keys), options_of(), sets=[0])
    assert len({tuple(positions) for ((positions, _),) in drawn}) == 5


# What is shown.


def shown_counts(mode: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Original and shown token of every prediction in a large block."""
    block = random_block([(60, 65)] * 3000, seed=1)
    counts, positions, shown = draw_masks(block, options=options_of(mode=mode), vocabulary=VOCABULARY, sets=range(5))
    sample = np.repeat(np.arange(block.num_samples), counts.sum(axis=1, dtype=np.int64))
    return block.tokens[block.token_offsets.astype(np.int64)[sample] + positions], shown, positions


@pytest.mark.parametrize(("mode", "replacements"), [("balanced", range(10, SIZE)), ("google", range(SIZE))])
def test_draw_masks_shows_mask_random_and_original_tokens_in_their_shares(mode, replacements):
    original, shown, positions = shown_counts(mode)
    total = len(original)
    assert total == 3000 * 5 * 19
    # A random token is the original one, and in google mode the mask, in one of len(replacements) cases.
    once = 0.1 / len(replacements)
    share_mask = 0.8 + (once if MASK in replacements else 0)
    is_mask, is_kept = shown == MASK, shown == original
    assert stats.binomtest(int(is_mask.sum()), total, share_mask).pvalue > 0.001
    assert stats.binomtest(int(is_kept.sum()), total, 0.1 + once).pvalue > 0.001
    random = shown[~is_mask & ~is_kept]
    assert set(random.tolist()) == set(replacements) - {MASK}
    # Uniform over all but the mask, of which there are others. An original token is not seen as a random one.
    ids = np.bincount(random, minlength=SIZE)[replacements]
    expected = np.array([np.mean(original != token) for token in replacements])
    ids, expected = (np.delete(values, MASK) if MASK in replacements else values for values in (ids, expected))
    assert stats.chisquare(ids, expected / expected.sum() * ids.sum()).pvalue > 0.001
    # The kind of what is shown does not depend on the position.
    table = np.stack([np.bincount(positions[is_mask], minlength=128), np.bincount(positions[~is_mask], minlength=128)])
    assert stats.chi2_contingency(table[:, table.sum(axis=0) > 0]).pvalue > 0.001


def test_draw_masks_replaces_with_reserved_and_special_ids_in_google_mode_only():
    for mode, is_there in (("balanced", False), ("google", True)):
        _, shown, _ = shown_counts(mode)
        for token in (PAD, UNK, CLS, SEP, *RESERVED):
            assert (token in shown) == is_there, (mode, token)


# What masks depend on.


@settings(max_examples=100, deadline=None)
@given(samples, mask_options, st.integers(0, 2**32 - 1))
def test_draw_masks_does_not_depend_on_neighbours_or_on_the_number_of_sets(sample_segments, options, seed):
    block = block_of(sample_segments)
    whole = sets_of(block, options, sets=range(5))
    assert sets_of(block, options, sets=range(2)) == [sets[:2] for sets in whole]
    assert sets_of(block, options, sets=[3]) == [sets[3:4] for sets in whole]
    assert sets_of(block, options, sets=[4, 1]) == [[sets[4], sets[1]] for sets in whole]
    order = np.random.default_rng(seed).permutation(block.num_samples)
    for rows in (order, order[: len(order) // 2], order[len(order) // 2 :]):
        part = block_of([sample_segments[row] for row in rows])
        part = dataclasses.replace(part, document_keys=block.document_keys[rows])
        assert sets_of(part, options, sets=range(5)) == [whole[row] for row in rows]


def test_draw_masks_does_not_look_at_stored_masks_or_labels():
    block = random_block([(9, 12), (20, 30)])
    counts, positions, shown = draw_masks(block, options=options_of(), vocabulary=VOCABULARY, sets=range(2))
    stored = dataclasses.replace(block, num_predictions=counts, mask_positions=positions, mask_tokens=shown)
    assert sets_of(stored, options_of()) == sets_of(block, options_of())


def test_draw_masks_depends_on_the_seed():
    block = random_block([(30, 30)] * 50)
    ours, again, other = (sets_of(block, options_of(seed=seed)) for seed in (1, 1, 2))
    assert ours == again
    assert all(one != two for one, two in zip(ours, other, strict=True))


def test_draw_masks_keeps_its_draws():
    # Another value here means other shards at the same seed.
    block = block_of([(list(range(10, 30)), list(range(30, 45)))])
    assert sets_of(block, options_of(), sets=range(2)) == [
        [([7, 8, 20, 33, 35, 36], [79, 190, 4, 4, 4, 4]), ([13, 24, 26, 31, 33, 34], [4, 4, 4, 4, 4, 4])]
    ]


# Whole words.


def words_of(row: list[int]) -> list[list[int]]:
    """Positions of each word: a piece that continues joins the word before it, unless a special is between."""
    words: list[list[int]] = []
    for place, token in enumerate(row):
        if token in (CLS, SEP):
            continue
        if token in CONTINUES and row[place - 1] not in (CLS, SEP):
            words[-1].append(place)
        else:
            words.append([place])
    return words


@settings(max_examples=150, deadline=None)
@given(
    samples,
    st.sampled_from((0.05, 0.15, 0.4, 1.0)),
    st.one_of(st.none(), st.integers(1, 20)),
    st.integers(0, 2**64 - 1),
)
def test_draw_masks_of_whole_words_takes_words_until_none_fits(sample_segments, masked_lm_prob, cap, seed):
    block = block_of(sample_segments)
    options = options_of(masked_lm_prob=masked_lm_prob, max_predictions_per_seq=cap, whole_word_mask=True, seed=seed)
    for row, drawn in zip(rows_of(block), sets_of(block, options), strict=True):
        budget = max(1, round(len(row) * masked_lm_prob))
        budget = min(budget, cap or budget)
        for positions, _ in drawn:
            taken = set(positions)
            left = budget - len(taken)
            assert left >= 0
            for word in words_of(row):
                assert taken.isdisjoint(word) or taken.issuperset(word)
                assert taken.issuperset(word) or len(word) > left


def test_draw_masks_of_whole_words_leaves_a_continuing_start_of_b_to_b():
    # A ends within a word and B starts within one: they are two words, on either side of [SEP].
    block = block_of([([10, 101], [102, 11])] * 200)
    options = options_of(masked_lm_prob=0.3, whole_word_mask=True)  # 7 tokens: 2 positions
    found = {tuple(positions) for sets in sets_of(block, options) for positions, _ in sets}
    assert found == {(1, 2), (4, 5)}
    block = block_of([([10, 11], [102, 11])] * 200)
    found = {tuple(positions) for sets in sets_of(block, options) for positions, _ in sets}
    assert found == set(itertools.combinations((1, 2, 4, 5), 2))


def test_draw_masks_of_whole_words_may_take_none_where_all_are_too_long():
    block = block_of([([10, 101, 102, 103], [11, 104, 105])])
    assert sets_of(block, options_of(whole_word_mask=True)) == [[([], [])] * 3]


def test_draw_masks_of_whole_words_shuffles_words_uniformly():
    block = block_of([([10, 101, 11, 12, 102, 13], [14, 15, 103, 16])] * 4000)  # 13 tokens: 2 positions, 7 words
    drawn = sets_of(block, options_of(whole_word_mask=True), sets=[0])
    first = Counter(tuple(positions) for ((positions, _),) in drawn)
    words = words_of(rows_of(block)[0])
    expected = {}
    # By hand: the first of a shuffle of the words is taken, then the next that fits.
    for one, two in itertools.permutations(range(len(words)), 2):
        chance = 1 / 7
        if len(words[one]) == 2:
            expected[tuple(words[one])] = chance
        elif len(words[two]) == 1:
            num_short = sum(len(word) == 1 for word in words) - 1
            pair = tuple(sorted(words[one] + words[two]))
            expected[pair] = expected.get(pair, 0) + chance / num_short
    assert abs(sum(expected.values()) - 1) < 1e-9
    assert first.keys() == expected.keys()
    found = [first[positions] for positions in expected]
    assert stats.chisquare(found, np.array(list(expected.values())) * 4000).pvalue > 0.001


def test_draw_masks_of_whole_words_draws_what_is_shown_per_piece():
    block = block_of([([10, 101, 102, 103, 104, 105], [11])] * 1000)
    options = options_of(masked_lm_prob=0.6, whole_word_mask=True)
    shown = [tokens for sets in sets_of(block, options) for _, tokens in sets if len(tokens) == 6]
    assert len(shown) > 300
    num_masks = [tokens.count(MASK) for tokens in shown]
    found = np.bincount(np.maximum(num_masks, 2), minlength=7)[2:]
    law = stats.binom(6, 0.8)
    expected = np.append(law.cdf(2), law.pmf(np.arange(3, 7))) * len(shown)
    assert stats.chisquare(found, expected).pvalue > 0.001


def test_draw_masks_refuses_whole_words_that_the_tokenizer_does_not_tell():
    block = random_block([(5, 5)])
    with pytest.raises(ConfigError, match="--whole-word-mask needs a tokenizer"):
        draw_masks(block, options=options_of(whole_word_mask=True), vocabulary=vocabulary_of(words=False), sets=[0])
    counts, _, _ = draw_masks(block, options=options_of(), vocabulary=vocabulary_of(words=False), sets=[0])
    assert counts.tolist() == [[2]]


# Corner cases.


def test_draw_masks_of_one_token_segments():
    block = block_of([([10], []), ([11], [12])])
    drawn = sets_of(block, options_of(), sets=range(50))
    assert all(positions == [1] for positions, _ in drawn[0])
    assert {tuple(positions) for positions, _ in drawn[1]} == {(1,), (3,)}


@pytest.mark.parametrize("whole_word_mask", [False, True])
@pytest.mark.parametrize(("num_samples", "num_sets"), [(0, 3), (0, 0), (2, 0)])
def test_draw_masks_of_nothing_is_empty(num_samples, num_sets, whole_word_mask):
    block = random_block([(5, 5)] * num_samples, max_seq_length=128)
    options = options_of(max_seq_length=128, whole_word_mask=whole_word_mask)
    counts, positions, shown = draw_masks(block, options=options, vocabulary=VOCABULARY, sets=range(num_sets))
    assert counts.shape == (num_samples, num_sets)
    assert len(positions) == len(shown) == 0
    assert (counts.dtype, positions.dtype, shown.dtype) == (np.uint8, np.uint8, np.uint16)


@pytest.mark.parametrize(
    ("max_seq_length", "dtype"), [(128, np.uint8), (255, np.uint8), (256, np.uint16), (512, np.uint16)]
)
@pytest.mark.parametrize("masked_lm_prob", [0.15, 1.0])
@pytest.mark.parametrize("has_b", [False, True])
@pytest.mark.parametrize("whole_word_mask", [False, True])
def test_draw_masks_of_full_samples_fits_the_dtype(max_seq_length, dtype, masked_lm_prob, has_b, whole_word_mask):
    lengths = (max_seq_length - 13, 10) if has_b else (max_seq_length - 2, 0)
    block = random_block([lengths] * 3, max_seq_length=max_seq_length, high=CONTINUES.start)
    options = options_of(max_seq_length=max_seq_length, masked_lm_prob=masked_lm_prob, whole_word_mask=whole_word_mask)
    counts, positions, _ = draw_masks(block, options=options, vocabulary=VOCABULARY, sets=range(2))
    assert counts.dtype == positions.dtype == dtype
    wanted = min(round(max_seq_length * masked_lm_prob), sum(lengths))
    assert counts.tolist() == [[wanted, wanted]] * 3
    if masked_lm_prob == 1:
        assert positions.max() == max_seq_length - 2
