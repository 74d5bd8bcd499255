import re
import subprocess
import sys
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bertdata.errors import TrainingError
from tests.trainer.oracle import sample_ids
from trainer.order import BlockTable
from trainer.plan import MAX_LANES, Plan, SampleRefs, num_lanes_of


def table(sizes: list[int], *, num_mask_sets: int = 2) -> BlockTable:
    return BlockTable(sizes=np.array(sizes), shards=np.zeros(len(sizes), dtype=int), num_mask_sets=num_mask_sets)


def pairs_of(refs: SampleRefs) -> list[tuple[int, int]]:
    return list(zip(refs.block.tolist(), refs.sample.tolist(), strict=True))


@st.composite
def plans(draw: st.DrawFn, max_data_sets: int = 3) -> tuple[Plan, list[list[int]]]:
    sizes = draw(st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=8), min_size=1, max_size=max_data_sets))
    smallest = min(map(sum, sizes))
    plan = Plan(
        [table(one) for one in sizes],
        weights=draw(st.none() | st.lists(st.floats(0.1, 3), min_size=len(sizes), max_size=len(sizes))),
        seed=draw(st.integers(0, 2**64 - 1)),
        batch_size=draw(st.integers(1, 200).filter(lambda size: num_lanes_of(size) <= smallest)),
        window_blocks=draw(st.integers(1, 8)),
    )
    return plan, sizes


@given(drawn=plans(), step=st.integers(0, 50))
@settings(max_examples=60)
def test_plan_batch_is_the_same_for_every_number_of_ranks(drawn: tuple[Plan, list[list[int]]], step: int) -> None:
    plan, _ = drawn
    alone = plan.step_samples(step)
    assert len(alone) == plan.batch_size
    for world_size in (1, 2, 4, 8):
        if plan.num_lanes % world_size:
            continue
        shares = [plan.step_samples(step, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert {len(share) for share in shares} == {plan.batch_size // world_size}
        assert [pair for share in shares for pair in pairs_of(share)] == pairs_of(alone)
        assert np.concatenate([share.mask_set for share in shares]).tolist() == alone.mask_set.tolist()


@given(drawn=plans(max_data_sets=1))
@settings(max_examples=40)
def test_plan_runs_over_the_seam_of_epochs_and_drops_nothing(drawn: tuple[Plan, list[list[int]]]) -> None:
    plan, _ = drawn
    # As many steps as make whole epochs of every lane, whatever their lengths: each sample comes as often as any other,
    # but for lanes that are a sample longer than others.
    shown: Counter[tuple[int, int]] = Counter()
    num_steps = 4 * -(-plan.num_samples // plan.batch_size)
    for step in range(num_steps):
        shown.update(pairs_of(plan.step_samples(step)))
    assert sum(shown.values()) == num_steps * plan.batch_size
    epochs = num_steps * plan.batch_size / plan.num_samples
    longest, shortest = -(-plan.num_samples // plan.num_lanes), plan.num_samples // plan.num_lanes
    assert len(shown) == plan.num_samples
    assert min(shown.values()) >= num_steps * plan.samples_per_lane // longest >= int(epochs * shortest / longest) - 1
    assert max(shown.values()) <= -(-num_steps * plan.samples_per_lane // shortest)


@pytest.mark.parametrize(
    ("weights", "shares"), [((0.7, 0.3), (0.7, 0.3)), ((1, 1, 4), (1 / 6, 1 / 6, 4 / 6)), (None, None)]
)
@pytest.mark.parametrize("batch_size", [1, 6, 64, 192])
def test_plan_shares_are_exact_over_any_1000_batches(
    weights: tuple[float, ...] | None, shares: tuple[float, ...] | None, batch_size: int
) -> None:
    sizes = [500, 900] if weights is None else [500, 100, 70][: len(weights)]
    plan = Plan([table([size]) for size in sizes], weights=weights, seed=1, batch_size=batch_size)
    shares = shares or tuple(size / sum(sizes) for size in sizes)
    samples = 1000 * plan.samples_per_lane
    for start in (0, 1, 357, 1999, 123_456_789):
        for source, share in enumerate(shares):
            for lane in range(plan.num_lanes):
                first, last, steps = plan.span(source, lane, start=start, stop=start + 1000)
                assert last - first == len(steps)
                assert abs(len(steps) - share * samples) < 1
                assert steps.min() >= 0
                assert steps.max() < 1000
                assert (np.diff(steps) >= 0).all()


def test_plan_mixes_evenly_and_lanes_differ() -> None:
    plan = Plan([table([500]), table([500])], weights=(0.75, 0.25), seed=0, batch_size=64)
    counts = [sum(block == 1 for block, _ in pairs_of(plan.step_samples(step))) for step in range(40)]
    assert min(counts) >= 12
    assert max(counts) <= 20
    for source, share in ((0, 0.75), (1, 0.25)):  # also within a lane
        _, _, steps = plan.span(source, 3, start=0, stop=100)
        assert abs(len(steps) - 100 * share) <= 1


def test_plan_numbers_spans_without_gaps() -> None:
    plan = Plan([table([50]), table([70]), table([90])], seed=0, batch_size=12)
    for lane in range(12):
        for source in range(3):
            position = plan.span(source, lane, start=0, stop=1)[0]
            assert position == 0
            for step in range(0, 3000, 7):
                first, position_after, _ = plan.span(source, lane, start=step, stop=step + 7)
                assert first == position
                position = position_after


def test_plan_of_several_data_sets_shows_each_sample_once_per_epoch_of_its_own() -> None:
    sizes = [[20, 10], [45], [5, 5, 5]]
    plan = Plan([table(one) for one in sizes], weights=(2, 3, 1), seed=5, batch_size=5)
    shown: Counter[tuple[int, int]] = Counter()
    for step in range(18):  # 90 samples: one epoch of each
        shown.update(pairs_of(plan.step_samples(step)))
    assert sorted(sample_ids([20, 10, 45, 5, 5, 5], list(shown))) == list(range(90))
    assert max(shown.values()) == 1


def test_plan_refuses_a_share_that_never_comes() -> None:
    with pytest.raises(TrainingError, match=r"data set 2 has a share of 1e-05 of the samples, less than one in 1000"):
        Plan([table([10]), table([10])], weights=(1, 1e-5), seed=0, batch_size=1)


def test_plan_order_is_fixed() -> None:
    plan = Plan([table([4, 4, 4, 4, 2]), table([3, 6])], weights=(2, 1), seed=7, batch_size=6, window_blocks=1)
    refs = plan.step_samples(0)
    assert pairs_of(refs) == GOLDEN_PAIRS
    assert refs.mask_set.tolist() == GOLDEN_SETS


GOLDEN_PAIRS = [(1, 3), (5, 2), (2, 1), (6, 2), (3, 1), (6, 0)]
GOLDEN_SETS = [1, 0, 1, 1, 0, 0]


def test_plan_order_does_not_depend_on_the_hash_seed() -> None:
    code = (
        "import numpy as np; from trainer.order import BlockTable; from trainer.plan import Plan\n"
        "tables = [BlockTable(sizes=np.array([40, 30]), shards=np.array([0, 1]), num_mask_sets=3)] * 2\n"
        "plan = Plan(tables, seed=3, batch_size=16)\n"
        "print([vars_of.tolist() for step in (0, 1, 99) for refs in [plan.step_samples(step)]"
        " for vars_of in (refs.block, refs.sample, refs.mask_set)])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("0", "1", "12345")
    }  # fmt: skip
    assert len(found) == 1


def test_plan_batches_mix_the_whole_data_set() -> None:
    plan = Plan([table([100] * 256)], seed=0, batch_size=256)
    assert len(set(plan.step_samples(3).block.tolist())) > 150


@pytest.mark.parametrize(
    ("batch_size", "num_lanes"), [(1, 1), (6, 6), (64, 64), (96, 48), (100, 50), (67, 1), (256, 64), (1024, 64)]
)
def test_num_lanes_is_the_largest_divisor(batch_size: int, num_lanes: int) -> None:
    assert num_lanes_of(batch_size) == num_lanes <= MAX_LANES


def test_plan_refuses_fewer_samples_than_lanes() -> None:
    with pytest.raises(TrainingError, match=r"the data set has 63 training samples.*--batch-size of at most 63"):
        Plan([table([60, 3])], seed=0, batch_size=64)
    with pytest.raises(TrainingError, match="data set 2 has 63 training samples"):
        Plan([table([100]), table([60, 3])], seed=0, batch_size=64)
    with pytest.raises(TrainingError, match="data set 2 has no training samples; leave it out"):
        Plan([table([100]), table([])], seed=0, batch_size=1)


THOUSAND_MILLION = """
import resource
import numpy as np
from trainer.order import BlockTable
from trainer.plan import Plan

num_blocks = -(-10**9 // 1024)
table = BlockTable(sizes=np.full(num_blocks, 1024), shards=np.arange(num_blocks) // 130, num_mask_sets=5)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert len(Plan([table], seed=0, batch_size=256).step_samples(123_456)) == 256
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_plan_of_a_thousand_million_samples_takes_little_memory() -> None:  # its time: `tests.benchmarks.loader`
    command = [sys.executable, "-c", THOUSAND_MILLION]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert int(result.stdout) < 200e6


def test_plan_of_one_data_set_needs_no_memory_for_a_mixture() -> None:
    tracemalloc.start()
    Plan([table([100])], seed=0, batch_size=10_007)  # which has one lane: 1,000 batches are 10 million samples
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e6


def test_plan_runs_on_one_sample_per_lane() -> None:
    plan = Plan([table([60, 4])], seed=0, batch_size=64)
    for step in (0, 5):
        assert sorted(sample_ids([60, 4], pairs_of(plan.step_samples(step)))) == list(range(64))


def test_plan_refuses_a_number_of_ranks_that_does_not_divide_the_lanes() -> None:
    plan = Plan([table([100])], seed=0, batch_size=64)
    with pytest.raises(TrainingError, match=r"64 lanes, which 3 processes cannot share.*--batch-size 63, or"):
        plan.lanes_of(0, world_size=3)


@given(batch_size=st.integers(1, 300), world_size=st.integers(1, 70), num_samples=st.integers(64, 100))
@example(batch_size=100, world_size=4, num_samples=100)  # 50 lanes, though 100 is a multiple of 4
@example(batch_size=1, world_size=65, num_samples=100)  # more processes than lanes
@settings(max_examples=100)
def test_plan_suggests_the_nearest_batch_size_that_it_accepts(
    batch_size: int, world_size: int, num_samples: int
) -> None:
    def lanes_of(size: int) -> range:
        return Plan([table([num_samples])], seed=0, batch_size=size).lanes_of(0, world_size=world_size)

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
    plan = Plan([table([10])], seed=0, batch_size=67)
    with pytest.raises(TrainingError, match=r"--batch-size 10,"):  # 66 has 66 / 2 = 33 lanes, 68 has 34, 12 has 12
        plan.lanes_of(0, world_size=2)
    with pytest.raises(TrainingError, match="start at most 10$"):
        plan.lanes_of(0, world_size=11)
