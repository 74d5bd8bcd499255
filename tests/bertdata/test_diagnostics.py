import numpy as np
import pytest

import bertdata
from bertdata.diagnostics import describe_label_guess, guess_labels_by_length

N = 20_000


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_lengths_that_tell_nothing_guess_half(rng):
    a, b = rng.integers(1, 60, N), rng.integers(1, 60, N)
    assert guess_labels_by_length(a, b, rng.integers(0, 2, N)) == pytest.approx(0.5, abs=0.015)
    rare = (rng.random(N) < 0.1).astype(int)
    assert guess_labels_by_length(a, b, rare) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("told", [0.0, 0.2, 0.6, 1.0])
def test_the_guess_finds_the_share_that_lengths_tell(rng, told):
    """Where the sum tells the label of some samples, those are guessed and half of the others."""
    labels = rng.integers(0, 2, N)
    is_told = rng.random(N) < told
    a = rng.integers(1, 60, N)
    both = np.where(is_told, np.where(labels == 1, 125, 90), rng.choice([125, 90], N))
    assert guess_labels_by_length(a, both - a, labels) == pytest.approx(0.5 + told / 2, abs=0.02)


def test_the_guess_sees_lengths_together(rng):
    a, both = rng.integers(1, 60, N), rng.integers(60, 126, N)
    labels = ((a < 30) ^ (both < 93)).astype(int)
    assert guess_labels_by_length(a, both - a, labels) > 0.95


def test_one_label_alone_is_no_guess(rng):
    a = rng.integers(1, 60, 100)
    assert guess_labels_by_length(a, a, np.zeros(100, dtype=int)) == 0.5
    assert guess_labels_by_length(a[:0], a[:0], np.zeros(0, dtype=int)) == 0.5


def test_description_reads_the_lengths_of_a_data_set(small_data_set):
    data_set = bertdata.open_data_set(small_data_set)
    samples = list(bertdata.read_samples(small_data_set))
    b_lengths = np.array([sum(sample.segment_ids) - 1 for sample in samples])
    a_lengths = np.array([len(sample.tokens) for sample in samples]) - b_lengths - 3
    guess = guess_labels_by_length(a_lengths, b_lengths, np.array([sample.next_sentence_label for sample in samples]))
    assert 0.45 < guess <= 0.58
    assert describe_label_guess(data_set, split="train") == (
        f"label guessed from the lengths of A and B alone: {guess:.1%} of {len(samples):,} samples "
        "(50 % is no information)"
    )
    assert describe_label_guess(data_set, split="eval") is None
