"""Training on shards that a server on loopback has."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from bertdata.cache_options import CacheOptions
from bertdata.data_set import DataSet, open_data_set
from bertdata.errors import ShardError
from tests.bertdata.shard_server import ShardServer, serve_shards
from tests.trainer.oracle import unpack_step
from trainer.data import TrainingData, open_training_data
from trainer.loader import Loader

NUM_SHARDS = 12
FAULTS = ("503", "", "cut:900", "", "short:100", "", "flip:1500", "")


@pytest.fixture(scope="module")
def server() -> Iterator[ShardServer]:
    with serve_shards() as running:
        yield running


@pytest.fixture
def there(new_data_set: Callable[..., DataSet], server: ShardServer) -> DataSet:
    """A data set of which the server has a copy at /data."""
    found = new_data_set(train_blocks=((20, 15),) * NUM_SHARDS)
    server.files = {f"/data/{path.name}": path.read_bytes() for path in found.folder.iterdir()}
    server.faults, server.requests = [], []
    return found


def open_there(server: ShardServer, cache: Path, *, max_bytes: int | None = None, folder: str = "data") -> TrainingData:
    options = CacheOptions(folder=cache, max_bytes=max_bytes, timeout=2.0)
    return open_training_data([f"http://{server.address}/{folder}"], cache=options)


def loader_of(
    data: TrainingData, *, rank: int = 0, world_size: int = 1, num_workers: int = 0, **options: int
) -> Loader:
    plan = data.make_plan(data.initial_state(seed=5, batch_size=8, **options))
    reader = data.open_split("train")
    return Loader(plan, reader, rank=rank, world_size=world_size, cutting=data.make_cutting(), num_workers=num_workers)


@pytest.mark.parametrize("num_workers", [0, 3])
@pytest.mark.parametrize("max_shards", [None, 2])
def test_remote_batches_equal_local_ones_whatever_goes_wrong(
    there: DataSet, server: ShardServer, tmp_path: Path, num_workers: int, max_shards: int | None
) -> None:
    largest = max(shard.num_bytes for shard in there.manifest.shards)
    small_files = sum(len(data) for path, data in server.files.items() if not path.endswith(".tar"))
    data = open_there(server, tmp_path, max_bytes=max_shards and max_shards * largest + small_files)
    server.faults = list(FAULTS)
    remote = loader_of(data, num_workers=num_workers).steps(0, 60)
    local = loader_of(TrainingData(data_sets=(there,))).steps(0, 60)
    for one, other in zip(remote, local, strict=True):
        assert unpack_step(one) == unpack_step(other)
    assert not server.faults


def test_rank_fetches_only_shards_that_hold_blocks_of_its_lanes(
    there: DataSet, server: ShardServer, tmp_path: Path
) -> None:
    shards = there.blocks("train").shard
    for rank in range(4):
        server.files |= {f"/{rank}/{path.name}": path.read_bytes() for path in there.folder.iterdir()}
        data = open_there(server, tmp_path / str(rank), folder=str(rank))
        loader = loader_of(data, rank=rank, world_size=4, window_blocks=1, shuffle_shards=1)
        plan = data.make_plan(data.initial_state(seed=5, batch_size=8, window_blocks=1, shuffle_shards=1))
        num_steps = 6
        list(loader.steps(0, num_steps))
        asked = {path.rpartition("/")[2] for path in server.paths(".tar") if path.startswith(f"/{rank}/")}
        read = [plan.step_samples(step, rank=rank, world_size=4).block for step in range(num_steps)]
        needed = {there.manifest.shards[shard].name for shard in shards[np.concatenate(read)].tolist()}
        # Beside what its steps need, the windows after them are fetched ahead.
        windows = [
            plan.orders[0].window(lane, position)
            for lane in plan.lanes_of(rank, world_size=4)
            for position in range(num_steps + 1)
        ]
        windows += [
            plan.orders[0].window(lane, plan.orders[0].window(lane, num_steps).stop)
            for lane in plan.lanes_of(rank, world_size=4)
        ]
        of_lanes = {there.manifest.shards[shards[block]].name for window in windows for block in window.blocks.tolist()}
        assert needed <= asked
        assert asked <= of_lanes
        assert len(of_lanes) < NUM_SHARDS


def test_ranks_of_a_node_share_the_cache(there: DataSet, server: ShardServer, tmp_path: Path) -> None:
    found: dict[int, list[list[int]]] = {}

    def run(rank: int) -> None:
        steps = loader_of(open_there(server, tmp_path), rank=rank, world_size=4).steps(0, 100)
        found[rank] = [[number for number, _ in unpack_step(batches)] for batches in steps]

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(server.paths(".tar")) == sorted({path for path in server.files if "train" in path and ".tar" in path})
    local = loader_of(TrainingData(data_sets=(there,))).steps(0, 100)
    for step, batches in enumerate(local):
        together = sorted(number for rank in range(4) for number in found[rank][step])
        assert together == [number for number, _ in unpack_step(batches)]


def test_next_windows_are_fetched_before_they_are_needed(there: DataSet, server: ShardServer, tmp_path: Path) -> None:
    data = open_there(server, tmp_path)
    options = {"window_blocks": 1, "shuffle_shards": 1}
    order = data.make_plan(data.initial_state(seed=5, batch_size=8, **options)).orders[0]
    steps = loader_of(data, **options).steps(0)
    next(steps)
    windows = [order.window(lane, 0) for lane in range(8)]
    windows += [order.window(lane, window.stop) for lane, window in enumerate(windows)]
    shards = there.blocks("train").shard
    ahead = {there.manifest.shards[shards[block]].name for window in windows for block in window.blocks.tolist()}
    assert len(ahead) < NUM_SHARDS
    deadline = time.monotonic() + 10
    while {path.name for path in tmp_path.glob("*/train-*.tar")} != ahead:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    server.faults = ["404"] * 1000  # from now on, nothing that is needed may have to be fetched
    first_end = min(window.stop for window in windows[8:])
    num_steps = max(number for number in (1, 3, 7, 15, 31) if number <= first_end)  # steps are prepared so many at once
    for _ in range(num_steps - 1):
        next(steps)
    assert num_steps > min(window.stop for window in windows[:8])
    data.data_sets[0].shard_files.close()


def test_resuming_fetches_only_what_the_next_windows_need(there: DataSet, server: ShardServer, tmp_path: Path) -> None:
    counts = []
    for step in (0, 13, 400):
        server.files |= {f"/{step}/{path.name}": path.read_bytes() for path in there.folder.iterdir()}
        data = open_there(server, tmp_path / str(step), folder=str(step))
        next(loader_of(data, rank=0, world_size=4, window_blocks=1, shuffle_shards=1).steps(step))
        counts.append(len([path for path in server.paths(".tar") if path.startswith(f"/{step}/")]))
    assert max(counts) < NUM_SHARDS


def test_damage_at_the_source_is_an_error_or_left_out(there: DataSet, server: ShardServer, tmp_path: Path) -> None:
    name = there.manifest.shards[3].name
    content = bytearray(server.files[f"/data/{name}"])
    content[700] ^= 1
    server.files[f"/data/{name}"] = bytes(content)
    with pytest.raises(ShardError, match=rf"http://{server.address}/data/{name}, block .*--skip-bad-blocks"):
        list(loader_of(open_there(server, tmp_path)).steps(0, 60))
    data = open_there(server, tmp_path)
    plan = data.make_plan(data.initial_state(seed=5, batch_size=8))
    reader = data.open_split("train", skip_bad_blocks=True)
    loader = Loader(plan, reader, rank=0, world_size=1, cutting=data.make_cutting())
    assert sum(batches.num_samples for batches in loader.steps(0, 420 // 8)) >= 420 // 8 * 8 - 20
    assert reader.block_sizes[reader.bad_blocks].tolist() == [20]


def test_state_does_not_depend_on_where_the_shards_lie(there: DataSet, server: ShardServer, tmp_path: Path) -> None:
    remote, local = open_there(server, tmp_path), TrainingData(data_sets=(there,))
    assert remote.initial_state(seed=0, batch_size=8) == local.initial_state(seed=0, batch_size=8)


def test_small_cache_is_warned_of(
    there: DataSet, server: ShardServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small_files = sum(len(data) for path, data in server.files.items() if not path.endswith(".tar"))
    data = open_there(server, tmp_path, max_bytes=small_files + 4 * max(s.num_bytes for s in there.manifest.shards))
    data.make_plan(data.initial_state(seed=0, batch_size=8))
    assert "fetched again and again. Give --cache-size" in caplog.text
    caplog.clear()
    data.make_plan(data.initial_state(seed=0, batch_size=8, shuffle_shards=2))
    assert not caplog.records
    open_data_set(there.folder)
    TrainingData(data_sets=(there,)).make_plan(data.initial_state(seed=0, batch_size=8))
    assert not caplog.records
