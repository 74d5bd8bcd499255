import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertdata.config import BuildOptions, ShardOptions
from bertdata.errors import ConfigError
from bertdata.planning import plan_tasks
from bertdata.spill import BIN_BITS

NUM_BINS = 1 << BIN_BITS


def histogram_of(num_documents, *, tokens_per_document=500, seed=0):
    bins = np.random.default_rng(seed).integers(0, NUM_BINS, num_documents)
    documents = np.bincount(bins, minlength=NUM_BINS)
    return np.stack([documents, documents * tokens_per_document], axis=1)


def plan(histogram, **shards):
    options = dataclasses.replace(BuildOptions(), shards=ShardOptions(**shards))
    return plan_tasks(histogram, options=options, token_bytes=2)


def documents_of(task, histogram):
    return int(histogram[task.first_bin : task.last_bin, 0].sum())


@given(
    num_documents=st.integers(1, 3000),
    shard_size=st.sampled_from([1 << 10, 1 << 18, 64 << 20]),
    eval_fraction=st.sampled_from([0, 0.01, 0.3]),
)
def test_every_document_goes_to_one_shard(num_documents, shard_size, eval_fraction):
    histogram = histogram_of(num_documents)
    tasks = plan(histogram, shard_size=shard_size, eval_fraction=eval_fraction)
    ranges = sorted((task.first_bin, task.last_bin) for task in tasks)
    by_place = sorted(tasks, key=lambda task: task.place)
    assert [task.place for task in by_place] == list(range(len(tasks)))
    assert [(task.first_bin, task.last_bin) for task in by_place] == ranges
    assert ranges[0][0] == 0
    assert ranges[-1][1] == NUM_BINS
    assert all(before[1] == after[0] for before, after in zip(ranges[:-1], ranges[1:], strict=True))
    assert len({task.name for task in tasks}) == len(tasks)
    held_out = sum(documents_of(task, histogram) for task in tasks if task.split == "eval")
    assert held_out <= num_documents * 0.11 + 1


def test_shards_have_at_least_64_documents_and_equal_shares():
    histogram = histogram_of(20_000)
    tasks = [task for task in plan(histogram, shard_size=1) if task.split == "train"]
    sizes = [documents_of(task, histogram) for task in tasks]
    assert len(tasks) == (20_000 - 200) // 64
    assert min(sizes) >= 60
    assert max(sizes) <= 70


@pytest.mark.parametrize(("num_documents", "wanted"), [(9, 0), (500, 50), (5_000, 100), (50_000, 500)])
def test_eval_documents(num_documents, wanted):
    histogram = histogram_of(num_documents)
    held_out = sum(documents_of(task, histogram) for task in plan(histogram) if task.split == "eval")
    assert wanted <= held_out <= wanted + 5


def test_number_of_shards_follows_the_size():
    histogram = histogram_of(100_000)
    few = [task for task in plan(histogram, shard_size=256 << 20) if task.split == "train"]
    many = [task for task in plan(histogram, shard_size=64 << 20) if task.split == "train"]
    assert abs(len(many) - 4 * len(few)) <= 3


def test_num_shards_is_taken_as_given():
    histogram = histogram_of(50)
    assert sum(task.split == "train" for task in plan(histogram, num_shards=7)) == 7
    with pytest.raises(ConfigError, match="--num-shards is 60, but there are only 45 documents"):
        plan(histogram, num_shards=60)


@given(copies=st.lists(st.tuples(st.integers(0, NUM_BINS - 1), st.integers(1, 2000)), min_size=1, max_size=40))
def test_copies_leave_no_shard_without_documents(copies):
    histogram = np.zeros((NUM_BINS, 2), dtype=np.int64)
    for bin_, count in copies:
        histogram[bin_] += [count, 60 * count]
    total = int(histogram[:, 0].sum())
    tasks = plan(histogram, shard_size=1 << 12)
    assert all(documents_of(task, histogram) for task in tasks)
    assert [task.number for task in tasks if task.split == "train"] == list(
        range(sum(t.split == "train" for t in tasks))
    )
    assert sum(documents_of(task, histogram) for task in tasks) == total
    assert sum(documents_of(task, histogram) for task in tasks if task.split == "eval") <= max(100, total / 10) + 1


def test_eval_documents_are_the_same_for_every_length():
    histogram = histogram_of(3000)
    ends = {
        max(
            task.last_bin
            for task in plan_tasks(histogram, options=BuildOptions().for_length(length), token_bytes=2)
            if task.split == "eval"
        )
        for length in (64, 128, 512)
    }
    assert len(ends) == 1
