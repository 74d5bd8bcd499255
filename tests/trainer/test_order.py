from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.order import MIN_WINDOW_BLOCKS, BlockTable, Order, Window


def new_order(
    sizes: list[int], *, seed: int = 0, num_lanes: int = 4, shards: list[int] | None = None, **options: int | None
) -> Order:
    table = BlockTable(
        sizes=np.array(sizes),
        shards=np.array(shards or [0] * len(sizes)),
        num_mask_sets=options.pop("num_mask_sets", 3) or 0,
    )
    return Order(table, seed=seed, num_lanes=num_lanes, **options)  # type: ignore[arg-type]


def windows_of(order: Order, lane: int, epoch: int) -> list[Window]:
    """Returns the windows of a lane in an epoch, by walking."""
    position, stop = epoch * order.lane_length(lane), (epoch + 1) * order.lane_length(lane)
    windows = []
    while position < stop:
        windows.append(order.window(lane, position))
        position = windows[-1].stop
    assert position == stop
    return windows


def pairs_of(windows: list[Window]) -> list[tuple[int, int]]:
    """Returns block and number in the block of each sample."""
    return [
        (int(window.blocks[part]), sample)
        for window in windows
        for part, sample in zip(window.part.tolist(), window.sample.tolist(), strict=True)
    ]


def all_pairs(sizes: list[int]) -> list[tuple[int, int]]:
    return [(block, sample) for block, size in enumerate(sizes) for sample in range(size)]


@st.composite
def orders(draw: st.DrawFn) -> tuple[Order, list[int], int]:
    sizes = draw(st.lists(st.integers(1, 30), min_size=1, max_size=12))
    num_lanes = draw(st.integers(1, min(64, sum(sizes))))
    shards = sorted(draw(st.lists(st.integers(0, 3), min_size=len(sizes), max_size=len(sizes))))
    order = new_order(
        sizes,
        shards=shards,
        num_lanes=num_lanes,
        seed=draw(st.integers(0, 2**64 - 1)),
        num_mask_sets=draw(st.integers(0, 5)),
        window_blocks=draw(st.none() | st.integers(1, 8)),
        shuffle_shards=draw(st.none() | st.integers(1, 4)),
    )
    return order, sizes, num_lanes


@given(drawn=orders(), epoch=st.integers(0, 3))
@settings(max_examples=80)
def test_order_shows_each_sample_once_per_epoch(drawn: tuple[Order, list[int], int], epoch: int) -> None:
    order, sizes, num_lanes = drawn
    shown = [pairs_of(windows_of(order, lane, epoch)) for lane in range(num_lanes)]
    assert sorted(pair for lane in shown for pair in lane) == all_pairs(sizes)
    lengths = [len(lane) for lane in shown]
    assert max(lengths) - min(lengths) <= 1
    assert lengths == [order.lane_length(lane) for lane in range(num_lanes)]


@given(drawn=orders(), data=st.data())
@settings(max_examples=80)
def test_order_random_access_equals_walking(drawn: tuple[Order, list[int], int], data: st.DataObject) -> None:
    order, _, num_lanes = drawn
    lane = data.draw(st.integers(0, num_lanes - 1))
    walked = {window.start: window for epoch in range(3) for window in windows_of(order, lane, epoch)}
    for position in data.draw(st.lists(st.integers(0, 3 * order.lane_length(lane) - 1), min_size=1, max_size=5)):
        window = order.window(lane, position)
        assert window.start <= position < window.stop
        assert pairs_of([window]) == pairs_of([walked[window.start]])
        assert window.epoch == position // order.lane_length(lane)


@given(drawn=orders())
@settings(max_examples=40)
def test_order_shows_all_mask_sets_in_as_many_epochs(drawn: tuple[Order, list[int], int]) -> None:
    order, sizes, _ = drawn
    for block, size in enumerate(sizes):
        sets = np.array([order.mask_sets(block, epoch=epoch) for epoch in range(6)])  # [epoch, sample]
        assert sets.shape == (6, size)
        num_sets = len(set(sets[:, 0].tolist()))
        if order._num_mask_sets:
            for first in range(6 - num_sets + 1):
                assert all(
                    sorted(column) == list(range(num_sets)) for column in sets[first : first + num_sets].T.tolist()
                )
        else:
            assert sets.tolist() == [[epoch] * size for epoch in range(6)]


def test_order_uses_all_mask_sets_in_every_epoch() -> None:
    order = new_order([1000], num_mask_sets=4)
    for epoch in (0, 1, 5):
        counts = Counter(order.mask_sets(0, epoch=epoch).tolist())
        assert all(200 < counts[mask_set] < 300 for mask_set in range(4))


def test_order_is_fixed() -> None:
    order = new_order([4, 4, 4, 4, 2], seed=7, num_lanes=3, window_blocks=1)
    lanes = [[("abcde"[block], sample) for block, sample in pairs_of(windows_of(order, lane, 0))] for lane in range(3)]
    assert ["".join(block for block, _ in lane) for lane in lanes] == ["bbbbdc", "eecddd", "ccaaaa"]
    assert [[sample for _, sample in lane] for lane in lanes] == [
        [3, 2, 1, 0, 0, 0],
        [1, 0, 1, 3, 1, 2],
        [3, 2, 1, 2, 0, 3],
    ]


def test_order_differs_by_seed_epoch_and_source() -> None:
    def shown(seed: int, epoch: int, source: int) -> tuple[tuple[int, int], ...]:
        return tuple(pairs_of(windows_of(new_order([50, 50], seed=seed, source=source, num_lanes=1), 0, epoch)))

    found = [shown(seed, epoch, source) for seed in (0, 1) for epoch in (0, 1, 2) for source in (0, 1)]
    assert len(set(found)) == len(found)


def test_order_deals_blocks_to_other_lanes_in_another_epoch() -> None:
    order = new_order([10] * 64, num_lanes=4, window_blocks=4)
    blocks = [{block for block, _ in pairs_of(windows_of(order, 0, epoch))} for epoch in range(5)]
    for one, other in pairwise(blocks):
        assert 0 < len(one & other) < len(one)


def test_order_spreads_the_samples_of_a_block_over_its_window() -> None:
    order = new_order([16] * 64, num_lanes=4, window_blocks=8)
    for window in windows_of(order, 1, 0)[1:-1]:
        whole = [part for part in range(len(window.blocks)) if (window.part == part).sum() == 16]
        assert len(whole) >= 7
        for part in whole:
            gaps = np.diff(np.flatnonzero(window.part == part))
            assert gaps.min() >= 6
            assert gaps.max() <= 10


def test_order_lanes_do_not_open_windows_at_the_same_step() -> None:
    order = new_order([64] * 256, num_lanes=16, window_blocks=4)
    first_ends = [order.window(lane, 0).stop for lane in range(16)]
    assert len(set(first_ends)) == 16
    assert max(first_ends) == order.window_samples


@pytest.mark.parametrize(
    ("num_shards", "num_lanes", "window_blocks"), [(1, 64, 8), (512, 64, 8), (513, 64, 9), (7000, 64, 110), (40, 1, 40)]
)
def test_order_lanes_together_hold_as_many_blocks_as_there_are_shards(
    num_shards: int, num_lanes: int, window_blocks: int
) -> None:
    order = new_order([10] * num_shards, shards=list(range(num_shards)), num_lanes=num_lanes)
    assert order.window_blocks == window_blocks >= MIN_WINDOW_BLOCKS


def test_order_of_unequal_blocks_has_windows_of_few() -> None:
    order = new_order([1024] + [1] * 8000, num_lanes=8)
    windows = [window for lane in range(8) for window in windows_of(order, lane, 0)]
    assert max(len(window.blocks) for window in windows) <= 2 * order.window_blocks


def test_order_goes_through_groups_of_shards() -> None:
    sizes, shards = [8] * 240, [number // 20 for number in range(240)]  # 12 shards of 20 blocks
    order = new_order(sizes, shards=shards, num_lanes=4, window_blocks=2, shuffle_shards=3)
    first_groups = set()
    for epoch in (0, 1, 2):
        lanes = [pairs_of(windows_of(order, lane, epoch)) for lane in range(4)]
        assert sorted(pair for lane in lanes for pair in lane) == all_pairs(sizes)
        # All lanes are in the same group, but for some windows at its ends.
        middles = [slice(start + 32, start + 88) for start in range(0, 480, 120)]
        groups = [frozenset(shards[block] for lane in lanes for block, _ in lane[middle]) for middle in middles]
        assert sorted(shard for group in groups for shard in group) == list(range(12))
        assert {len(group) for group in groups} == {3}
        first_groups.add(groups[0])
    assert len(first_groups) == 3
