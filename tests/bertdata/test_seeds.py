import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bertdata.seeds import below, below_int, hash64, hash64_int, lower_half, stage_key, unit

WORDS = st.integers(0, 2**64 - 1)


@given(WORDS, st.lists(WORDS, max_size=4))
def test_hash64_equals_hash64_int(key, counters):
    bits = hash64(key, *counters)
    assert bits.dtype == np.uint64
    assert int(bits) == hash64_int(key, *counters)


@given(st.lists(WORDS, min_size=1, max_size=5), st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5), WORDS)
def test_hash64_equals_hash64_int_for_arrays_of_keys_and_counters(keys, counters, last):
    bits = hash64(np.array(keys, dtype=np.uint64)[:, None], np.array(counters), last)
    assert bits.tolist() == [[hash64_int(key, counter, last) for counter in counters] for key in keys]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, np.uint64])
def test_hash64_does_not_depend_on_the_dtype_of_counters(dtype):
    counters = np.arange(200)
    assert (hash64(7, counters.astype(dtype)) == hash64(7, counters)).all()


def test_hash64_gives_the_published_stream_of_splitmix64():
    # Counters are positions in the stream of splitmix64 seeded with the key.
    assert hash64(1234567, np.arange(5)).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert hash64_int(0, 0) == 0xE220A8397B1DCDAF


def test_stage_key_and_hash64_keep_their_values():
    # Another value here means other shards at the same seed.
    assert stage_key(0, "pairs") == 14216706697821500319
    assert stage_key(0, "masks") == 8179510865409467584
    assert stage_key(2**64 - 1, "masks") == 13602547297340410880
    assert hash64_int(stage_key(0, "pairs"), 0) == 945638629257604534
    assert hash64_int(stage_key(42, "masks"), 1, 2, 3) == 16718628639127628313
    assert hash64_int(2**64 - 1, 2**64 - 1, 0) == 11923130667873509210
    assert below_int(hash64_int(stage_key(42, "masks"), 1, 2, 3), 1000) == 906


def test_hash64_of_no_counters_is_the_key():
    assert int(hash64(12)) == 12
    assert hash64_int(12) == 12


def test_hash64_depends_on_the_order_and_number_of_counters():
    assert len({hash64_int(5, *counters) for counters in itertools.permutations((0, 1, 2))}) == 6
    assert len({hash64_int(5, *[0] * number) for number in range(10)}) == 10


def test_hash64_of_grids_of_counters_is_uniform_in_every_byte():
    bits = hash64(stage_key(0, "pairs"), np.arange(400)[:, None], np.arange(400))
    assert len(np.unique(bits)) == bits.size
    for byte in bits.ravel().view(np.uint8).reshape(-1, 8).T:
        assert stats.chisquare(np.bincount(byte, minlength=256)).pvalue > 0.001


def test_hash64_changes_half_of_the_bits_with_any_bit_of_a_counter():
    counters = np.arange(2000, dtype=np.uint64)
    for bit in range(0, 64, 7):
        flipped = hash64(3, counters) ^ hash64(3, counters ^ np.uint64(1 << bit))
        assert abs(np.bitwise_count(flipped).mean() - 32) < 0.5


def test_below_covers_the_bounds():
    edges = np.array([0, 2**32 - 1, 2**32, 2**63, 2**64 - 1], dtype=np.uint64)
    assert below(edges, 1).tolist() == [0, 0, 0, 0, 0]
    assert below(edges, 2).tolist() == [0, 0, 0, 1, 1]
    assert below(edges, 2**32).tolist() == [0, 0, 1, 2**31, 2**32 - 1]
    assert below(edges, np.array([1, 3, 2**32, 10, 2**32 - 1])).tolist() == [0, 0, 1, 5, 2**32 - 2]


@given(WORDS, st.integers(1, 2**32))
def test_below_equals_below_int_and_stays_in_range(bits, bound):
    number = below(np.array([bits], dtype=np.uint64), bound)
    assert number.dtype == np.int64
    assert number.tolist() == [below_int(bits, bound)]
    assert 0 <= number[0] < bound


@pytest.mark.parametrize("bound", [2, 3, 7, 10, 125, 1000])
def test_below_is_uniform(bound):
    numbers = below(hash64(stage_key(1, "masks"), np.arange(200_000)), bound)
    assert stats.chisquare(np.bincount(numbers, minlength=bound)).pvalue > 0.001


def test_below_is_uniform_for_a_bound_per_draw():
    bounds = 1 + np.arange(300_000) % 30
    numbers = below(hash64(9, np.arange(len(bounds))), bounds)
    for bound in range(2, 31):
        assert stats.chisquare(np.bincount(numbers[bounds == bound], minlength=bound)).pvalue > 0.0005


def test_lower_half_is_a_second_draw_from_the_same_bits():
    bits = hash64(7, np.arange(100_000))
    lower = lower_half(bits)
    assert (lower >> np.uint64(32) == bits & np.uint64(0xFFFFFFFF)).all()
    table = np.zeros((8, 8))
    np.add.at(table, (below(bits, 8), below(lower, 8)), 1)
    assert stats.chisquare(table.ravel()).pvalue > 0.001


def test_unit_lies_in_the_half_open_interval_and_is_uniform():
    edges = unit(np.array([0, 2**64 - 1], dtype=np.uint64))
    assert edges[0] == 0
    assert 1 - 2**-52 < edges[1] < 1
    assert stats.kstest(unit(hash64(4, np.arange(100_000))), "uniform").pvalue > 0.001


def test_stage_key_differs_by_stage_and_seed():
    stages = ("pairs", "masks", "eval", "plan", "")
    keys = {stage_key(seed, stage) for seed in [*range(100), 2**64 - 1] for stage in stages}
    assert len(keys) == 101 * len(stages)
    assert all(0 <= key < 2**64 for key in keys)
    assert stage_key(1, "1") != stage_key(11, "")


def correlation(ours, theirs) -> float:
    return stats.pearsonr(unit(ours), unit(theirs)).pvalue


def test_hash64_of_the_next_seed_is_unrelated_to_the_next_epoch():
    # seed + epoch would make (42, 1) and (43, 0) the same.
    numbers = np.arange(50_000)
    ours = hash64(stage_key(42, "plan"), 1, numbers)
    theirs = hash64(stage_key(43, "plan"), 0, numbers)
    assert not np.isin(ours, theirs).any()
    assert correlation(ours, theirs) > 0.001
    assert correlation(hash64(stage_key(42, "plan"), 0, numbers), ours) > 0.001


def test_hash64_streams_of_neighbouring_counters_are_independent():
    key, numbers = stage_key(0, "masks"), np.arange(50_000)
    streams = [hash64(key, numbers, 0), hash64(key, numbers, 1), hash64(key, 0, numbers), hash64(key, 1, numbers)]
    for ours, theirs in itertools.combinations(streams, 2):
        assert len(np.intersect1d(ours, theirs)) <= 1  # such as (0, 1), which is in two streams
        assert correlation(ours, theirs) > 0.001
        table = np.histogram2d(unit(ours), unit(theirs), bins=8)[0]
        assert stats.chisquare(table.ravel()).pvalue > 0.001
