import dataclasses

import numpy as np
import pytest

import bertdata
from bertdata.diagnostics import describe_label_guess, guess_labels_by_length

N = 20_000


def guess(a, both, labels):
    """The guess for samples whose lengths are below 128."""
    segment_lengths = np.zeros((2, 2, 128, 128), dtype=np.int64)
    np.add.at(segment_lengths, (np.arange(len(a)) % 2, labels, a, both), 1)
    return guess_labels_by_length(segment_lengths)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_lengths_that_tell_nothing_guess_half(rng):
    a, b = rng.integers(1, 60, N), rng.integers(1, 60, N)
    assert guess(a, a + b, rng.integers(0, 2, N)) == pytest.approx(0.5, abs=0.015)
    rare = (rng.random(N) < 0.1).astype(int)
    assert guess(a, a + b, rare) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("told", [0.0, 0.2, 0.6, 1.0])
def test_the_guess_finds_the_share_that_lengths_tell(rng, told):
    """Where the sum tells the label of some samples, those are guessed and half of the others."""
    labels = rng.integers(0, 2, N)
    is_told = rng.random(N) < told
    a = rng.integers(1, 60, N)
    both = np.where(is_told, np.where(labels == 1, 125, 90), rng.choice([125, 90], N))
    assert guess(a, both, labels) == pytest.approx(0.5 + told / 2, abs=0.02)


def test_the_guess_sees_lengths_together(rng):
    a, both = rng.integers(1, 60, N), rng.integers(60, 126, N)
    labels = ((a < 30) ^ (both < 93)).astype(int)
    assert guess(a, both, labels) > 0.95


def test_one_label_alone_is_no_guess(rng):
    a = rng.integers(1, 60, 100)
    assert guess(a, 2 * a, np.zeros(100, dtype=int)) == 0.5
    assert guess(a[:0], a[:0], np.zeros(0, dtype=int)) == 0.5


def test_lengths_tell_little_in_a_build(small_data_set):
    data_set = bertdata.open_data_set(small_data_set)
    statistics = data_set.load_statistics()
    share = guess_labels_by_length(statistics.segment_lengths)
    assert 0.45 < share <= 0.58
    num_samples = sum(shard.num_samples for shard in data_set.manifest.shards)
    assert describe_label_guess(statistics) == (
        f"label guessed from the lengths of A and B alone: {share:.1%} of all {num_samples:,} samples "
        "(50 % is no information)"
    )


def test_few_samples_tell_nothing(small_data_set):
    statistics = bertdata.open_data_set(small_data_set).load_statistics()
    few = dataclasses.replace(statistics, segment_lengths=statistics.segment_lengths // 10)
    assert describe_label_guess(few) is None
