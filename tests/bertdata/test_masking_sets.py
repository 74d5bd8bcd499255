"""Mask sets as random draws: independent of one another, of neighbours, and uniform in blocks of mixed lengths."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bertdata.masking import draw_masks
from tests.bertdata.mask_blocks import (
    CONTINUES,
    MASK,
    RESERVED,
    SIZE,
    VOCABULARY,
    block_of,
    options_of,
    random_block,
    sets_of,
)


@pytest.mark.parametrize("whole_word_mask", [False, True])
@pytest.mark.parametrize(("lengths", "num_positions"), [((70, 55), 19), ((12, 15), 4), ((60, 0), 9)])
def test_draw_masks_draws_all_sets_of_a_sample_independently(lengths, num_positions, whole_word_mask):
    # Words of one piece: then words and positions are the same, and an overlap of two sets is hypergeometric.
    num_sets, num_samples = 10, 400
    block = random_block([lengths] * num_samples, high=CONTINUES.start)
    drawn = sets_of(block, options_of(whole_word_mask=whole_word_mask), sets=range(num_sets))
    law = stats.hypergeom(sum(lengths), num_positions, num_positions)
    most = int(law.ppf(0.995))
    expected = np.append(law.pmf(np.arange(most)), law.sf(most - 1))
    found = np.zeros(most + 1)
    distances = np.zeros((num_sets, most + 1))
    for sets in drawn:
        places = [set(positions) for positions, _ in sets]
        assert {len(place) for place in places} == {num_positions}
        for one, other in itertools.combinations(range(num_sets), 2):
            overlap = min(len(places[one] & places[other]), most)
            found[overlap] += 1
            distances[other - one, overlap] += 1
    assert stats.chisquare(found, expected * found.sum()).pvalue > 0.001
    # Neighbouring sets are as independent as far ones.
    assert stats.chisquare(distances[1], expected * distances[1].sum()).pvalue > 0.001


def test_draw_masks_draws_the_same_position_of_other_samples_and_sets_independently():
    # 14 tokens: 2 positions of 11. Neither the next sample nor the next set is masked in the same place more often.
    block = random_block([(6, 5)] * 4000)
    drawn = sets_of(block, options_of(), sets=range(2))
    law = stats.hypergeom(11, 2, 2)
    pairs = {
        "samples": zip((sets[0] for sets in drawn[::2]), (sets[0] for sets in drawn[1::2]), strict=True),
        "a sample's set and the next one's other": zip(
            (sets[0] for sets in drawn[::2]), (sets[1] for sets in drawn[1::2]), strict=True
        ),
        "sets": ((one, other) for one, other in drawn),
    }
    for name, both in pairs.items():
        found = np.bincount([len({*one[0]} & {*other[0]}) for one, other in both], minlength=3)
        assert stats.chisquare(found, law.pmf(np.arange(3)) * found.sum()).pvalue > 0.001, name


def kind_of(shown: int, original: int) -> int:
    return 0 if shown == MASK else 1 if shown == original else 2


@pytest.mark.parametrize("mode", ["balanced", "google"])
def test_draw_masks_shows_tokens_independently_in_each_set(mode):
    # One candidate only, so that every set predicts it: what is shown there is drawn anew.
    block = block_of([([10], [])] * 20_000)
    drawn = sets_of(block, options_of(mode=mode), sets=range(2))
    first, second = np.array([[shown[0] for _, shown in sets] for sets in drawn]).T
    kinds = [[kind_of(token, 10) for token in column.tolist()] for column in (first, second)]
    table = np.histogram2d(*kinds, bins=3)[0]
    assert stats.chi2_contingency(table).pvalue > 0.001
    shares = np.array([0.8, 0.1, 0.1])
    assert stats.chisquare(table.ravel(), np.outer(shares, shares).ravel() * table.sum()).pvalue > 1e-6
    both_random = np.equal(kinds[0], 2) & np.equal(kinds[1], 2)
    assert both_random.sum() > 100
    assert (first[both_random] == second[both_random]).mean() < 0.05


def test_draw_masks_shows_tokens_independently_at_each_position():
    block = random_block([(70, 55)] * 1500)
    drawn = sets_of(block, options_of(), sets=[0])
    num_masks = [shown.count(MASK) for ((_, shown),) in drawn]
    law = stats.binom(19, 0.8)
    found = np.bincount(np.clip(num_masks, 11, 18) - 11, minlength=8)
    expected = np.concatenate([[law.cdf(11)], law.pmf(np.arange(12, 18)), [law.sf(17)]])
    assert stats.chisquare(found, expected * len(drawn)).pvalue > 0.001


@pytest.mark.parametrize("whole_word_mask", [False, True])
def test_draw_masks_draws_positions_uniformly_in_a_block_of_mixed_lengths(whole_word_mask):
    shapes = [(3, 2), (40, 0), (1, 20), (120, 5), (11, 12), (200, 300)]
    block = random_block([shapes[row % len(shapes)] for row in range(1200)], high=CONTINUES.start)
    drawn = sets_of(block, options_of(whole_word_mask=whole_word_mask), sets=range(4))
    for number, (a, b) in enumerate(shapes):
        found = np.bincount(
            [place for sets in drawn[number :: len(shapes)] for positions, _ in sets for place in positions],
            minlength=a + b + 3,
        )
        candidates = [*range(1, a + 1), *range(a + 2, a + 2 + b)]
        assert found.sum() == found[candidates].sum()
        # Without replacement the counts vary less than multinomial ones, by the share that is not drawn.
        num_drawn = found.sum() / (200 * 4)
        expected = found.sum() / len(candidates)
        statistic = ((found[candidates] - expected) ** 2).sum() / expected
        statistic *= (len(candidates) - 1) / (len(candidates) - num_drawn)
        assert 0.001 < stats.chi2.sf(statistic, len(candidates) - 1) < 0.999, (a, b)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 254), st.integers(0, 254)), min_size=2, max_size=24),
    st.sampled_from((1, 2, 7, 16)),
    st.booleans(),
    st.sampled_from((0.05, 0.15, 0.6)),
)
def test_draw_masks_of_any_lengths_does_not_depend_on_the_block(lengths, block_size, whole_word_mask, masked_lm_prob):
    # Budgets from 1 to 300 side by side, and every sample in a block of another size and width.
    rng = np.random.default_rng(len(lengths))
    samples = [tuple(rng.integers(RESERVED.stop, SIZE, length).tolist() for length in pair) for pair in lengths]
    options = options_of(whole_word_mask=whole_word_mask, masked_lm_prob=masked_lm_prob)
    block = block_of(samples)
    whole = sets_of(block, options, sets=range(3))
    parts = []
    for start in range(0, len(samples), block_size):
        rows = slice(start, start + block_size)
        part = dataclasses.replace(block_of(samples[rows]), document_keys=block.document_keys[rows])
        parts += sets_of(part, options, sets=range(3))
    assert parts == whole


def test_draw_masks_draws_sets_with_far_numbers():
    block = random_block([(20, 20)] * 50)
    counts, _, _ = draw_masks(block, options=options_of(), vocabulary=VOCABULARY, sets=[0, 255, 256, 10**6])
    assert (counts == 6).all()
    drawn = sets_of(block, options_of(), sets=[0, 255, 256, 10**6])
    assert all(len({tuple(positions) for positions, _ in sets}) == 4 for sets in drawn)
