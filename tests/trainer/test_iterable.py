import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from bertdata.cache_options import CacheOptions
from bertdata.data_set import DataSet
from bertdata.errors import ShardError, TrainingError
from tests.bertdata.shard_server import serve_shards
from tests.trainer.oracle import Sample, unpack
from tests.trainer.test_loader import damage
from trainer.batch import Batch
from trainer.data import TrainingData
from trainer.iterable import PreTrainingData
from trainer.loader import Loader

NewDataSet = Callable[..., DataSet]
BATCH_SIZE, EPOCH = 16, 10  # of the data set of 160 samples


def new_data(data_set: DataSet, **options: Any) -> PreTrainingData:
    return PreTrainingData(data_set.folder, **({"batch_size": BATCH_SIZE, "seed": 3, "window_blocks": 2} | options))


def values(batch: Batch | dict[str, Any]) -> dict[str, Any]:
    """Returns a batch as something that can be compared."""
    named = batch if isinstance(batch, dict) else batch._asdict()
    return {
        name: (str(value.dtype), value.tolist()) if isinstance(value, torch.Tensor) else value
        for name, value in named.items()
    }


def take(batches: Iterable[Any], number: int = 30) -> list[dict[str, Any]]:
    return [values(batch) for batch in islice(batches, number)]


def iter_steps(data: PreTrainingData) -> Iterator[list[Any]]:
    """Yields the batches of each step."""
    seen, step = data.state_dict()["samples_seen"], []
    for batch in data:
        step.append(batch)
        if data.state_dict()["samples_seen"] > seen:
            seen += BATCH_SIZE
            assert data.state_dict()["samples_seen"] == seen
            yield step
            step = []


def samples_of(step: list[Batch]) -> list[tuple[int, Sample]]:
    found = [sample for batch in step for sample in unpack(batch)]
    return sorted(found, key=lambda pair: (pair[0], pair[1]["positions"]))


@pytest.mark.parametrize(("micro_batch_size", "pad_to_multiple"), [(None, None), (3, None), (5, 16)])
def test_iterable_yields_the_batches_of_the_loader(
    data_set: DataSet, micro_batch_size: int | None, pad_to_multiple: int | None
) -> None:
    data = TrainingData(data_sets=(data_set,))
    loader = Loader(
        data.make_plan(data.initial_state(seed=3, batch_size=BATCH_SIZE, window_blocks=2)),
        data.open_split("train"),
        rank=1,
        world_size=2,
        cutting=data.make_cutting(micro_batch_size=micro_batch_size, pad_to_multiple=pad_to_multiple),
    )
    wanted = [values(batch) for step in loader.steps(0, 25) for batch in step.micro_batches]
    options = {"micro_batch_size": micro_batch_size, "pad_to_multiple": pad_to_multiple, "rank": 1, "world_size": 2}
    assert take(new_data(data_set, **options), len(wanted)) == wanted


@pytest.mark.parametrize(("multiple", "micro_batch_size"), [(None, 5), (7, None), (32, 3)])
def test_iterable_pads(data_set: DataSet, multiple: int | None, micro_batch_size: int | None) -> None:
    options = {"micro_batch_size": micro_batch_size, "num_workers": 1}
    padded = new_data(data_set, padded=True, pad_to_multiple=multiple, **options)
    widths = set()
    for tensors, batch in islice(zip(padded, new_data(data_set, **options), strict=False), 40):
        rows = [sample for _, sample in unpack(batch)]
        width = max(len(row["input"]) for row in rows)
        while width % (multiple or 1) and width < 24:  # the longest sample of the data set
            width += 1
        wanted: dict[str, list[Any]] = {name: [] for name in tensors}
        for row in rows:
            length, labels = len(row["input"]), [-100] * width
            for position, label in zip(row["positions"], row["labels"], strict=True):
                labels[position] = label
            wanted["input_ids"].append(row["input"] + [0] * (width - length))
            wanted["token_type_ids"].append(row["types"] + [0] * (width - length))
            wanted["attention_mask"].append([1] * length + [0] * (width - length))
            wanted["labels"].append(labels)
            wanted["next_sentence_label"] += row["next"]
        assert {name: tensor.tolist() for name, tensor in tensors.items()} == wanted
        assert {tensor.dtype for tensor in tensors.values()} == {torch.int64}
        widths.add(width)
    assert len(widths) > (multiple is None)
    names = ["input_ids", "token_type_ids", "attention_mask", "labels", "next_sentence_label"]
    assert list(tensors) == names


METHODS = [("fork", 1), ("fork", 2), ("fork", 5), ("spawn", 2), pytest.param("spawn", 5, marks=pytest.mark.slow)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 5 worker processes")
@pytest.mark.parametrize(("method", "num_workers"), [(None, 0), *METHODS])
def test_iterable_gives_the_same_batches_through_a_dataloader(
    data_set: DataSet, method: str | None, num_workers: int
) -> None:
    options: list[dict[str, Any]] = [{"micro_batch_size": 3, "padded": True, "num_workers": 2}]
    if method != "spawn":  # whose workers take seconds to start
        options += [{}, {"micro_batch_size": 4, "num_workers": 1}, {"rank": 1, "world_size": 2, "micro_batch_size": 8}]
    for some in options:
        data = new_data(data_set, **some)
        data.load_state_dict(data.state_dict(step=4))
        batches = DataLoader(data, batch_size=None, num_workers=num_workers, multiprocessing_context=method)
        found = take(batches)
        alone = new_data(data_set, **some)
        alone.load_state_dict(alone.state_dict(step=4))
        assert found == take(alone)


def test_iterable_leaves_out_bad_blocks_in_workers_of_a_dataloader_too(new_data_set: NewDataSet) -> None:
    broken = new_data_set(train_blocks=((37, 30, 23), (50, 20)))
    damage(broken)
    options = {"skip_bad_blocks": True, "micro_batch_size": 3}
    num_batches = {len(step) for step in islice(iter_steps(new_data(broken, **options)), 10)}
    assert len(num_batches) > 1
    wanted = take(new_data(broken, **options), 50)
    data = new_data(broken, **options)
    assert take(DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork"), 50) == wanted
    with pytest.raises(ShardError, match="--skip-bad-blocks"):
        take(DataLoader(new_data(broken), batch_size=None, num_workers=2, multiprocessing_context="fork"), 50)


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_iterable_begins_again_at_its_state_in_persistent_workers(data_set: DataSet, method: str) -> None:
    data = new_data(data_set, micro_batch_size=8, num_workers=1)
    wanted = take(new_data(data_set, micro_batch_size=8))
    persistent = DataLoader(
        data,
        batch_size=None,
        num_workers=2,
        multiprocessing_context=method,
        prefetch_factor=4,
        persistent_workers=True,
    )
    assert take(persistent) == wanted
    assert take(persistent) == wanted


def test_iterable_forks_workers_while_its_own_threads_run(data_set: DataSet) -> None:
    data = new_data(data_set, num_workers=3)
    wanted = take(new_data(data_set), 33)
    running = iter(data)
    assert take(running, 3) == wanted[:3]
    assert take(DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork")) == wanted[3:]
    assert take(running, 10) == wanted[3:13]


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_iterable_fetches_shards_in_workers_of_a_dataloader(
    new_data_set: NewDataSet, tmp_path: Path, method: str
) -> None:
    there = new_data_set(train_blocks=((20, 15),) * 8)
    wanted = take(new_data(there), 60)
    largest = max(shard.num_bytes for shard in there.manifest.shards)
    with serve_shards() as server:
        server.files = {f"/data/{path.name}": path.read_bytes() for path in there.folder.iterdir()}
        small_files = sum(len(data) for path, data in server.files.items() if not path.endswith(".tar"))
        cache = CacheOptions(folder=tmp_path, max_bytes=4 * largest + small_files, timeout=2.0)
        data = PreTrainingData(
            f"http://{server.address}/data", batch_size=16, seed=3, window_blocks=2, num_workers=2, cache=cache
        )
        assert take(data, 4) == wanted[:4]
        batches = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context=method)
        assert take(batches, 56) == wanted[4:]


@pytest.mark.parametrize("micro_batch_size", [None, 1, 3, 8])
def test_iterable_shares_steps_among_ranks(data_set: DataSet, micro_batch_size: int | None) -> None:
    def steps(world_size: int) -> list[list[tuple[int, Sample]]]:
        ranks = [
            iter_steps(new_data(data_set, rank=rank, world_size=world_size, micro_batch_size=micro_batch_size))
            for rank in range(world_size)
        ]
        together = islice(zip(*ranks, strict=True), 25)
        return [samples_of([batch for share in shares for batch in share]) for shares in together]

    alone = steps(1)
    assert all(len(step) == BATCH_SIZE for step in alone)
    assert all(steps(world_size) == alone for world_size in (2, 4, 8))


def test_iterable_takes_rank_and_world_size_from_the_environment(
    data_set: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert take(new_data(data_set)) == take(new_data(data_set, rank=1, world_size=4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"micro_batch_size": 0}, "micro_batch_size is 0; it must be at least 1"),
        ({"pad_to_multiple": 0}, "pad_to_multiple is 0; it must be at least 1"),
        ({"num_workers": -1}, "num_workers is -1; it must be at least 0"),
        ({"rank": 2, "world_size": 2}, "rank is 2; of 2 processes it is at most one less"),
        ({"rank": 0, "world_size": 3}, "16 lanes, which 3 processes cannot share evenly"),
    ],
)
def test_iterable_says_what_does_not_fit(data_set: DataSet, options: dict[str, int], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        new_data(data_set, **options)


@pytest.mark.parametrize("num_workers", [0, 3])
def test_state_counts_what_was_yielded(data_set: DataSet, num_workers: int) -> None:
    data = new_data(data_set, micro_batch_size=5, num_workers=num_workers)  # 4 batches a step
    for number, _ in enumerate(islice(data, 50), start=1):
        assert data.state_dict()["samples_seen"] == number // 4 * BATCH_SIZE
        assert data.state_dict() == data.state_dict(step=number // 4)
    other = new_data(data_set, micro_batch_size=5, rank=3, world_size=4)  # 1 batch a step
    list(islice(other, 12))
    assert other.state_dict() == data.state_dict()


def test_state_is_json_of_less_than_a_kilobyte(new_data_set: NewDataSet) -> None:
    folders = [new_data_set(seed=number).folder for number in range(8)]
    places = [f"{folder}:{1 / (number + 3)}" for number, folder in enumerate(folders)]
    data = PreTrainingData(places, batch_size=16, seed=2**64 - 1, window_blocks=10**6, shuffle_shards=10**6)
    state = data.state_dict(step=10**12)
    text = json.dumps(state)
    assert len(text.encode()) < 1000
    assert json.loads(text)["samples_seen"] == 16 * 10**12
    data.load_state_dict(json.loads(text))
    assert data.state_dict() == json.loads(text) | {name: state[name] for name in ("data_sets", "weights")}


@pytest.mark.parametrize("step", [1, 9, 10, 11, 27])
def test_load_state_dict_goes_on_where_the_state_was_saved(data_set: DataSet, step: int, tmp_path: Path) -> None:
    walked = take(new_data(data_set), 60)
    saved = tmp_path / "state.json"
    first = new_data(data_set, num_workers=2)
    take(first, step)
    saved.write_text(json.dumps(first.state_dict()))

    second = new_data(data_set, num_workers=1)
    second.load_state_dict(json.loads(saved.read_text()))
    assert second.state_dict() == first.state_dict()
    assert take(second, 7) == walked[step : step + 7]
    saved.write_text(json.dumps(second.state_dict()))

    third = new_data(data_set)
    third.load_state_dict(json.loads(saved.read_text()))
    assert take(third, 60 - step - 7) == walked[step + 7 :]


def test_load_state_dict_goes_on_with_other_processes_and_micro_batches(data_set: DataSet) -> None:
    walked = [samples_of(step) for step in islice(iter_steps(new_data(data_set)), 40)]
    state, found = new_data(data_set).state_dict(), []
    for world_size, micro_batch_size, num_workers in ((1, 3, 1), (2, None, 0), (8, 1, 2), (4, 2, 0), (1, None, 3)):
        ranks = [
            new_data(
                data_set,
                rank=rank,
                world_size=world_size,
                micro_batch_size=micro_batch_size,
                num_workers=num_workers,
            )
            for rank in range(world_size)
        ]
        for data in ranks:
            data.load_state_dict(state)
        for shares in islice(zip(*map(iter_steps, ranks), strict=True), 8):
            found.append(samples_of([batch for share in shares for batch in share]))
        state = ranks[-1].state_dict()
        assert all(data.state_dict() == state for data in ranks)
    assert found == walked


def test_epoch_after_a_resume_is_whole(data_set: DataSet) -> None:
    data = new_data(data_set, num_workers=1)
    data.load_state_dict(data.state_dict(step=EPOCH - 3))
    ids = [number for batch in islice(data, 3 + 2 * EPOCH) for number in batch.sample_ids.tolist()]
    for start in (3, 3 + EPOCH):
        assert sorted(ids[start * BATCH_SIZE : (start + EPOCH) * BATCH_SIZE]) == list(range(160))


def test_iteration_that_is_left_within_a_step_repeats_it(data_set: DataSet) -> None:
    data = new_data(data_set, micro_batch_size=5)
    walked = take(new_data(data_set, micro_batch_size=5), 20)
    assert take(data, 6) == walked[:6]
    assert take(data, 16) == walked[4:]
    assert data.state_dict()["samples_seen"] == 5 * BATCH_SIZE


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_state_needs_the_step_where_workers_of_a_dataloader_read_ahead(data_set: DataSet, method: str) -> None:
    data = new_data(data_set)
    batches = iter(DataLoader(data, batch_size=None, num_workers=1, multiprocessing_context=method))
    next(batches)
    with pytest.raises(TrainingError, match=r"count the finished steps and call state_dict\(step=...\)"):
        data.state_dict()
    state = data.state_dict(step=1)
    assert state["samples_seen"] == BATCH_SIZE
    data.load_state_dict(state)
    assert data.state_dict() == state


def test_load_state_dict_names_what_is_another_and_what_may_be(data_set: DataSet, new_data_set: NewDataSet) -> None:
    state = new_data(data_set).state_dict(step=5)
    weighted = [f"{data_set.folder}:1", f"{new_data_set(seed=5).folder}:3"]
    for other, message in [
        (new_data(data_set, seed=4), "seed is 4, not 3"),
        (new_data(data_set, batch_size=32), "batch_size is 32, not 16"),
        (new_data(data_set, window_blocks=3), "window_blocks is 3, not 2"),
        (new_data(data_set, shuffle_shards=1), "shuffle_shards is 1, not the default"),
        (new_data(new_data_set(seed=5)), "data_sets is [0-9a-f]{16}, not [0-9a-f]{16}"),
        (PreTrainingData(weighted, batch_size=16, seed=3, window_blocks=2), "data_sets is .*weights is 0.25, 0.75"),
    ]:
        before = other.state_dict()
        with pytest.raises(TrainingError, match=f"{message}.*processes, loader workers, micro-batches, .* may differ"):
            other.load_state_dict(state)
        assert other.state_dict() == before
    for wrong, message in [
        (state | {"format_version": 2}, "format version 2; this release continues version 1"),
        ({"step": 5}, "format version None"),
        ({name: value for name, value in state.items() if name != "seed"}, "the data state has the fields"),
    ]:
        with pytest.raises(TrainingError, match=message):
            new_data(data_set).load_state_dict(wrong)


def test_batches_that_are_kept_stay_what_they_were(data_set: DataSet) -> None:
    kept = list(islice(new_data(data_set, num_workers=2), 60))
    assert [values(batch) for batch in kept] == take(new_data(data_set), 60)
