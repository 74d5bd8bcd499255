import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bertdata
from bertdata.build import build_serially
from bertdata.errors import ShardError
from bertdata.launch import open_build
from bertdata.statistics import STATISTICS, Statistics, bucket_edges, bucket_of
from tests.bertdata.small_builds import build


def test_expected_places_are_those_of_all_candidates():
    empty = Statistics.empty(max_seq_length=64, vocab_size=10)
    predictions = np.zeros(65, dtype=np.int64)
    predictions[[7, 20, 33]] = [14, 5, 66]
    expected = np.zeros(20)
    for num_candidates, count in ((7, 14), (20, 5), (33, 66)):
        for rank in range(num_candidates):
            expected[rank * 20 // num_candidates] += count / num_candidates
    found = dataclasses.replace(empty, predictions_by_candidates=predictions).expected_places
    assert found == pytest.approx(expected)


@given(st.integers(0, 1 << 40))
def test_a_length_lies_in_its_bucket(length):
    edges = bucket_edges()
    bucket = int(bucket_of(np.array([length]))[0])
    assert edges[bucket] <= length < edges[bucket + 1]
    assert edges[bucket + 1] - edges[bucket] <= max(1, length / 16)


def test_statistics_do_not_depend_on_shards(tmp_path, jsonl_file, small_options):
    """What is counted of documents is the same for any cut into shards; `none` has the same samples too."""
    pairs = dataclasses.replace(small_options.pairs, next_sentence="none")
    sums = []
    for num_shards in (1, 5):
        shards = dataclasses.replace(small_options.shards, num_shards=num_shards)
        options = dataclasses.replace(small_options, pairs=pairs, shards=shards)
        sums.append(
            bertdata.open_data_set(build(tmp_path / str(num_shards), jsonl_file, options=options)).load_statistics()
        )
    for field in dataclasses.fields(sums[0]):
        assert np.array_equal(getattr(sums[0], field.name), getattr(sums[1], field.name)), field.name


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("shown"),
        lambda values: values["shown"].update(shape=[4]),
        lambda values: values["shown"].update(places=[5]),
        lambda values: values["shown"].update(counts=[1]),
        lambda values: values["shown"].update(counts=[1, -1, 1]),
        lambda values: values["shown"].update(places=[0, -1, 1]),
        lambda values: values["shown"].update(counts=[1 << 70, 1, 1]),
        lambda values: values.update(shown=[1, 2]),
    ],
)
def test_damaged_statistics_are_an_error(tmp_path, small_data_set, change):
    values = json.loads((small_data_set / STATISTICS).read_bytes())
    data_set = bertdata.open_data_set(small_data_set)
    change(values)
    (tmp_path / STATISTICS).write_text(json.dumps(values))
    with pytest.raises(ShardError, match="cannot be read as statistics"):
        dataclasses.replace(data_set, folder=tmp_path).load_statistics()


def test_continued_build_counts_the_same(tmp_path, jsonl_file, small_options, monkeypatch):
    """Killed after two shards and run again: the statistics are those of an undisturbed build."""
    whole = build(tmp_path / "whole", jsonl_file, options=small_options)
    built = []

    def build_two(work, task, *, real=bertdata.build.build_shard):
        built.append(task.name)
        if len(built) == 3:
            raise KeyboardInterrupt
        return real(work, task)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(bertdata.build, "build_shard", build_two)
        build(tmp_path / "stopped", jsonl_file, options=small_options)
    with open_build([str(jsonl_file)], out=tmp_path / "stopped", options=small_options) as work:
        build_serially(work)
    assert (tmp_path / "stopped" / STATISTICS).read_bytes() == (whole / STATISTICS).read_bytes()
