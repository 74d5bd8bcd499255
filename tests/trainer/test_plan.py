import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bertdata.errors import TrainingError
from trainer.plan import MAX_LANES, Plan, SampleRefs, num_lanes_of


def pairs_of(refs: SampleRefs) -> list[tuple[int, int]]:
    return list(zip(refs.block.tolist(), refs.sample.tolist(), strict=True))


def all_pairs(block_sizes: list[int]) -> list[tuple[int, int]]:
    return [(block, sample) for block, size in enumerate(block_sizes) for sample in range(size)]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    block_sizes = draw(st.lists(st.integers(1, 30), min_size=1, max_size=12))
    batch_size = draw(st.integers(1, 200).filter(lambda size: num_lanes_of(size) <= sum(block_sizes)))
    return Plan(
        np.array(block_sizes),
        num_mask_sets=draw(st.integers(0, 5)),
        seed=draw(st.integers(0, 2**64 - 1)),
        batch_size=batch_size,
        window_blocks=draw(st.integers(1, 8)),
    )


@given(plan=plans(), epoch=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_plan_shows_each_sample_once_per_epoch(plan: Plan, epoch: int) -> None:
    parts = [
        plan.lane_samples(lane, start=epoch * length, stop=(epoch + 1) * length)
        for lane in range(plan.num_lanes)
        for length in [plan.lane_length(lane)]
    ]
    assert sorted(pairs_of(SampleRefs.concatenate(parts))) == all_pairs(plan.block_sizes.tolist())


@given(plan=plans(), step=st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_plan_batch_is_the_same_for_every_number_of_ranks(plan: Plan, step: int) -> None:
    alone = plan.step_samples(step)
    assert len(alone) == plan.batch_size
    for world_size in (1, 2, 4, 8):
        if plan.num_lanes % world_size:
            continue
        shares = [plan.step_samples(step, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert {len(share) for share in shares} == {plan.batch_size // world_size}
        together = SampleRefs.concatenate(shares)
        assert pairs_of(together) == pairs_of(alone)
        assert together.mask_set.tolist() == alone.mask_set.tolist()


@given(plan=plans())
@settings(max_examples=40, deadline=None)
def test_plan_shows_all_mask_sets_in_as_many_epochs(plan: Plan) -> None:
    seen: dict[tuple[int, int], list[int]] = {}
    for lane in range(plan.num_lanes):
        refs = plan.lane_samples(lane, start=0, stop=max(1, plan.num_mask_sets) * plan.lane_length(lane))
        for pair, mask_set in zip(pairs_of(refs), refs.mask_set.tolist(), strict=True):
            seen.setdefault(pair, []).append(mask_set)
    if plan.num_mask_sets:  # stored sets; a sample may change lanes between epochs, so sets need not be in order
        assert all(sorted(sets) == list(range(plan.num_mask_sets)) for sets in seen.values())
    else:  # drawn by the loader: set number `epoch`
        assert all(sets == [0] for sets in seen.values())


@given(plan=plans(), data=st.data())
@settings(max_examples=40, deadline=None)
def test_plan_random_access_equals_walking(plan: Plan, data: st.DataObject) -> None:
    lane = data.draw(st.integers(0, plan.num_lanes - 1))
    stop = 3 * plan.lane_length(lane)
    walked = pairs_of(plan.lane_samples(lane, start=0, stop=stop))
    for position in data.draw(st.lists(st.integers(0, stop - 1), min_size=1, max_size=5)):
        assert pairs_of(plan.lane_samples(lane, start=position, stop=position + 1)) == [walked[position]]


def test_plan_order_is_fixed() -> None:
    plan = Plan(np.array([4, 4, 4, 4, 2]), num_mask_sets=2, seed=7, batch_size=6, window_blocks=1)
    refs = plan.step_samples(0)
    assert pairs_of(refs) == GOLDEN_PAIRS
    assert refs.mask_set.tolist() == GOLDEN_SETS


GOLDEN_PAIRS = [(2, 1), (2, 3), (3, 0), (1, 3), (0, 1), (0, 3)]
GOLDEN_SETS = [0, 1, 1, 1, 1, 1]


def test_plan_epochs_and_seeds_have_orders_of_their_own() -> None:
    def order(seed: int, epoch: int) -> list[tuple[int, int]]:
        plan = Plan(np.array([50, 50]), num_mask_sets=1, seed=seed, batch_size=1)
        return pairs_of(plan.lane_samples(0, start=100 * epoch, stop=100 * (epoch + 1)))

    orders = [tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len(set(orders)) == len(orders)


def test_plan_batches_mix_the_whole_data_set() -> None:
    plan = Plan(np.full(256, 100), num_mask_sets=1, seed=0, batch_size=256)
    blocks = plan.step_samples(3).block
    assert len(set(blocks.tolist())) > 100


@pytest.mark.parametrize(
    ("batch_size", "num_lanes"), [(1, 1), (6, 6), (64, 64), (96, 48), (100, 50), (67, 1), (256, 64), (1024, 64)]
)
def test_num_lanes_is_the_largest_divisor(batch_size: int, num_lanes: int) -> None:
    assert num_lanes_of(batch_size) == num_lanes <= MAX_LANES


def test_plan_refuses_fewer_samples_than_lanes() -> None:
    with pytest.raises(TrainingError, match=r"63 training samples.*--batch-size of at most 63"):
        Plan(np.array([60, 3]), num_mask_sets=1, seed=0, batch_size=64)


def test_plan_runs_on_one_sample_per_lane() -> None:
    plan = Plan(np.array([60, 4]), num_mask_sets=1, seed=0, batch_size=64)
    assert sorted(pairs_of(plan.step_samples(5))) == all_pairs([60, 4])


def test_plan_refuses_a_number_of_ranks_that_does_not_divide_the_lanes() -> None:
    plan = Plan(np.array([100]), num_mask_sets=1, seed=0, batch_size=64)
    with pytest.raises(TrainingError, match=r"64 lanes, which 3 processes cannot share.*--batch-size 63, or"):
        plan.lanes_of(0, world_size=3)


@given(batch_size=st.integers(1, 300), world_size=st.integers(1, 70), num_samples=st.integers(64, 100))
@example(batch_size=100, world_size=4, num_samples=100)  # 50 lanes, though 100 is a multiple of 4
@example(batch_size=1, world_size=65, num_samples=100)  # more processes than lanes
@settings(max_examples=100, deadline=None)
def test_plan_suggests_the_nearest_batch_size_that_it_accepts(
    batch_size: int, world_size: int, num_samples: int
) -> None:
    def lanes_of(size: int) -> range:
        plan = Plan(np.array([num_samples]), num_mask_sets=1, seed=0, batch_size=size)
        return plan.lanes_of(0, world_size=world_size)

    fitting = [size for size in range(1, 500) if num_lanes_of(size) % world_size == 0]
    if batch_size in fitting:
        assert len(lanes_of(batch_size)) * world_size == num_lanes_of(batch_size)
        return
    with pytest.raises(TrainingError, match="cannot share evenly") as caught:
        lanes_of(batch_size)
    suggested = re.search(r"--batch-size (\d+)", str(caught.value))
    if suggested is None:
        assert "start at most 64" in str(caught.value)
        assert world_size > MAX_LANES
        return
    nearest = min(abs(size - batch_size) for size in fitting)
    assert abs(int(suggested[1]) - batch_size) == nearest
    assert lanes_of(int(suggested[1]))


def test_plan_suggests_no_batch_size_of_more_lanes_than_samples() -> None:
    plan = Plan(np.array([10]), num_mask_sets=1, seed=0, batch_size=67)
    with pytest.raises(TrainingError, match=r"--batch-size 10,"):  # 66 has 66 / 2 = 33 lanes, 68 has 34, 12 has 12
        plan.lanes_of(0, world_size=2)
    with pytest.raises(TrainingError, match="start at most 10$"):
        plan.lanes_of(0, world_size=11)
