"""Shards of a remote data set, in a local folder that several threads and processes share."""

import dataclasses
import errno
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bertdata import shard_cache
from bertdata.cache_folder import CacheFolder, NoPart, PartFile
from bertdata.cache_options import CacheOptions
from bertdata.data_set import open_data_set
from bertdata.errors import ConfigError, DownloadError, OutputError, ShardError
from bertdata.file_locks import LockedFile
from bertdata.index import write_index
from bertdata.manifest import Origin, write_manifest
from bertdata.merging import _block_entries
from bertdata.shards import FIELDS
from tests.bertdata.shard_server import serve_shards
from tests.small_data_set import make_data_set

NUM_SHARDS = 8
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Eight shards of two blocks, and one held out."""
    return make_data_set(tmp_path_factory.mktemp("here"), train_blocks=((20, 10),) * NUM_SHARDS, eval_blocks=((5,),))


@pytest.fixture
def server(here):
    with serve_shards() as running:
        running.files = {f"/x/{path.name}": path.read_bytes() for path in here.folder.iterdir()}
        yield running


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    """Lets no time pass between tries."""
    monkeypatch.setattr("bertdata.remote_data_set.fetch_data_set.__kwdefaults__", {"sleep": no_wait})


def no_wait(seconds):
    pass


@pytest.fixture
def there(server, tmp_path):
    """Opens the data set at the server; by default with a cache that holds all of it."""
    opened = []

    def open_it(*, num_shards=None, **options):
        max_bytes = None if num_shards is None else room_for(num_shards, server)
        cache = CacheOptions(**{"folder": tmp_path / "cache", "max_bytes": max_bytes, "timeout": 5.0} | options)
        opened.append(open_data_set(f"http://{server.address}/x", cache=cache))
        return opened[-1]

    yield open_it
    for data_set in opened:
        data_set.shard_files.close()


def room_for(num_shards, server):
    """Returns the size of a cache for the small files and so many shards, and not one more."""
    sizes = {path: len(data) for path, data in server.files.items()}
    largest = max(size for path, size in sizes.items() if path.endswith(".tar"))
    return sum(size for path, size in sizes.items() if not path.endswith(".tar")) + num_shards * largest


def files_in(folder: Path) -> dict[tuple, int]:
    """Returns the size of each file below a folder by what tells it from any other file."""
    found = {}
    for path in folder.rglob("*"):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file():
            found[path, status.st_ino, status.st_ctime_ns] = status.st_size
    return found


def held_in(folder: Path) -> int:
    """Returns the size of what was all there at one moment, between two looks that see it."""
    before, after = files_in(folder), files_in(folder)
    return sum(size for file, size in after.items() if file in before)


def shards_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*.tar")}


def parts_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob(".*.part")}


def wait_until(condition, *, seconds=20.0):
    """Waits for what other threads or processes do, of which nothing tells here."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.005)


def read_all(data_set, *, order=None):
    blocks = data_set.blocks("train")
    return [data_set.read(blocks, row) for row in (range(len(blocks)) if order is None else order)]


def assert_equal_blocks(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert all(np.array_equal(getattr(one, field), getattr(other, field)) for field in FIELDS)


def test_remote_data_set_equals_local_one(here, there, server):
    data_set = there()
    assert data_set.location == f"http://{server.address}/x"
    assert data_set.manifest == here.manifest
    assert_equal_blocks(read_all(data_set), read_all(here))
    cache = data_set.shard_files
    assert (cache.num_fetched, cache.num_fetched_ahead, cache.num_evicted) == (NUM_SHARDS, 0, 0)
    assert cache.bytes_fetched == sum(shard.num_bytes for shard in here.manifest.shards[:NUM_SHARDS])
    assert len(server.paths()) == NUM_SHARDS  # the second block of each shard is there already


def test_small_files_are_those_of_the_folder(here, there):
    data_set = there()
    assert {path.name for path in data_set.folder.iterdir()} == {
        path.name for path in here.folder.iterdir() if path.suffix != ".tar"
    }
    for path in data_set.folder.iterdir():
        assert path.read_bytes() == (here.folder / path.name).read_bytes()


def test_second_start_fetches_small_files_only(there, server):
    read_all(there())
    server.requests.clear()
    read_all(there())
    assert server.paths() == []
    assert len(server.paths("manifest.json")) == 1


def test_part_of_a_remote_data_set_is_read_in_another_process(here, there):
    part = there().only(3)
    with SPAWN.Pool(1) as pool:
        (block, other) = pool.apply(read_all, (part,))
    assert_equal_blocks([block, other], read_all(here)[6:8])


def test_cache_that_was_used_can_be_pickled_and_forked(here, there, server):
    data_set = there()
    data_set.shard_files.prefetch(here.manifest.shards[:2])
    wait_until(lambda: data_set.shard_files.num_fetched == 2)
    copy = pickle.loads(pickle.dumps(data_set))
    assert copy.shard_files.num_fetched == 0
    child = os.fork()
    if child == 0:
        try:
            assert_equal_blocks(read_all(data_set), read_all(here))
            data_set.shard_files.prefetch(here.manifest.shards)
            os._exit(0 if data_set.shard_files.num_fetched == NUM_SHARDS - 2 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert_equal_blocks(read_all(copy), read_all(here))
    assert len(server.paths()) == NUM_SHARDS + (1 if "eval-00000-of-00001.tar" in " ".join(server.paths()) else 0)


@pytest.mark.parametrize(
    ("name", "data", "error", "message"),
    [
        ("manifest.json", None, ShardError, "/x has no manifest.json, so it is not a finished data set"),
        ("manifest.json", b"{}", ShardError, "/x/manifest.json has format version None"),
        ("manifest.json", b"{", ShardError, "/x/manifest.json is no manifest of a data set"),
        ("tokenizer.json", None, ShardError, "/x/tokenizer.json: nothing is there .* but a data set has it"),
        ("tokenizer.json", b"other", ShardError, "/x/tokenizer.json is not the one that the manifest names"),
        ("index.arrow", b"other", ShardError, "index.arrow cannot be read as a block index"),
    ],
)
def test_open_says_what_of_a_remote_data_set_is_wrong(there, server, name, data, error, message):
    server.files[f"/x/{name}"] = data
    if data is None:
        del server.files[f"/x/{name}"]
    with pytest.raises(error, match=message):
        there()


def write_merged(folder, parts):
    """Writes a data set whose shards lie in other folders beside it."""
    folder.mkdir()
    shards = [
        (part, number, dataclasses.replace(shard, name=f"../{part.folder.name}/{shard.name}"))
        for split in ("train", "eval")
        for part in parts
        for number, shard in enumerate(part.manifest.shards)
        if shard.split == split
    ]
    origins = [
        Origin(
            path=f"../{part.folder.name}",
            build="test",
            fingerprint=part.manifest.fingerprint,
            options=part.manifest.options,
            versions={},
            inputs=[],
        )
        for part in parts
    ]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((parts[0].folder / name).read_bytes())
    write_index(folder, [_block_entries(part, number) for part, number, _ in shards])
    entries = tuple(shard for _, _, shard in shards)
    write_manifest(folder, dataclasses.replace(parts[0].manifest, shards=entries, merged_from=tuple(origins)))


def test_merged_data_set_is_read_from_a_server(tmp_path, there, server):
    parts = [
        make_data_set(tmp_path / name, train_blocks=((20,), (20,)), eval_blocks=((5,),), seed=seed)
        for name, seed in (("a", 1), ("b", 1000))
    ]
    write_merged(tmp_path / "x", parts)
    server.files = {
        f"/{path.relative_to(tmp_path)}": path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    }
    data_set = there()
    assert_equal_blocks(read_all(data_set), read_all(open_data_set(tmp_path / "x")))
    assert len(shards_in(data_set.folder)) == 4  # though names are equal
    assert {path.parent for path in (tmp_path / "cache").rglob("*.tar")} == {data_set.folder}


@pytest.mark.parametrize("num_shards", [1, 2, 3])
def test_cap_is_never_exceeded(there, tmp_path, server, num_shards):
    cap = room_for(num_shards, server)
    most = []
    server.on_request = lambda _method, _path: most.append(held_in(tmp_path / "cache"))
    with sampling(tmp_path / "cache", most):
        data_set = there(num_shards=num_shards)
        data_set.shard_files.prefetch(data_set.manifest.shards[:NUM_SHARDS])
        read_all(data_set, order=random.Random(1).choices(range(2 * NUM_SHARDS), k=100))
    assert 0 < max(most) <= cap
    assert data_set.shard_files.num_evicted > 10


@contextmanager
def sampling(folder, most):
    """Appends what a folder holds, time and again while the context lasts."""
    is_done = threading.Event()

    def run():
        while not is_done.is_set():
            most.append(held_in(folder))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_done.set()
        thread.join()


def read_at_random(data_set, seed):
    """Reads blocks in some order with prefetches; what a process of a node does."""
    generator = random.Random(seed)
    blocks = data_set.blocks("train")
    sums = {}
    for _ in range(60):
        if generator.random() < 0.3:
            data_set.shard_files.prefetch(generator.sample(data_set.manifest.shards[:NUM_SHARDS], 3))
        row = generator.randrange(len(blocks))
        sums[row] = int(data_set.read(blocks, row).tokens.sum(dtype=np.int64))
    return sums, data_set.shard_files.num_fetched


def test_cap_holds_for_several_processes(here, there, tmp_path, server):
    cap, most = room_for(2, server), []
    with SPAWN.Pool(3) as pool, sampling(tmp_path / "cache", most):
        data_set = there(num_shards=2)
        results = pool.starmap(read_at_random, [(data_set, seed) for seed in range(3)])
    assert max(most) <= cap
    wanted = [int(block.tokens.sum(dtype=np.int64)) for block in read_all(here)]
    assert all(found == wanted[row] for sums, _ in results for row, found in sums.items())
    assert sum(number for _, number in results) > NUM_SHARDS


def test_processes_fetch_each_shard_once_where_all_fit(there, server):
    data_set = there()
    with SPAWN.Pool(3) as pool:
        pool.starmap(read_at_random, [(data_set, seed) for seed in range(3)])
    assert len(server.paths()) == len(set(server.paths()))


def read_and_say(data_set, started):
    started.set()
    read_all(data_set)


@pytest.mark.parametrize("fault", ["stall:0", "stall:700", "stall", "stall:5000"])
def test_killed_process_leaves_nothing(here, there, tmp_path, server, fault):
    data_set = there(num_shards=2)
    stalled = threading.Event()
    server.on_request = lambda _method, path: stalled.set() if path.endswith("3-of-00008.tar") else None
    server.faults = ["", "", "", fault]
    process = SPAWN.Process(target=read_all, args=(data_set,))
    process.start()
    assert stalled.wait(20)
    wait_until(lambda: parts_in(tmp_path))
    others = [threading.Thread(target=read_all, args=(data_set,)) for _ in range(2)]
    for other in others:
        other.start()  # they come to wait for the one that is killed
    process.kill()
    process.join()
    for other in others:
        other.join()
    assert_equal_blocks(read_all(data_set), read_all(here))
    assert parts_in(tmp_path) == set()


def test_left_over_part_of_another_shard_is_removed(there, tmp_path):
    data_set = there()
    left = data_set.folder / ".train-00005-of-00008.tar.part"
    left.write_bytes(b"x" * 100)
    data_set.read(data_set.blocks("train"), 0)
    assert not left.exists()


@pytest.mark.parametrize("num_bytes", [0, 1000, 10**6])
def test_file_of_another_size_goes_at_the_start_and_while_in_use(here, there, server, num_bytes):
    data_set = there()
    path = data_set.folder / "train-00002-of-00008.tar"
    for reopen in (True, False):
        read_all(data_set)
        os.truncate(path, num_bytes)
        server.requests.clear()
        if reopen:
            data_set = there()
            assert not path.exists()
        assert_equal_blocks(read_all(data_set), read_all(here))
        assert server.paths() == ["/x/train-00002-of-00008.tar"]


def test_flipped_bit_in_the_cache_makes_the_shard_come_again(here, there, server, caplog):
    data_set = there()
    read_all(data_set)
    path = data_set.folder / "train-00002-of-00008.tar"
    data = bytearray(path.read_bytes())
    data[8000] ^= 16
    path.write_bytes(data)
    server.requests.clear()
    assert_equal_blocks(read_all(data_set), read_all(here))
    assert server.paths() == ["/x/train-00002-of-00008.tar"]
    assert "/x/train-00002-of-00008.tar, block 4 of its split: CRC-32 is" in caplog.text


def test_byte_that_was_wrong_on_the_way_is_fetched_again(here, there, server):
    data_set = there()
    server.faults = ["flip:8000", "flip:9000"]
    assert_equal_blocks(read_all(data_set), read_all(here))
    assert len(server.paths()) == NUM_SHARDS + 2


def test_shard_that_is_damaged_at_its_source_names_itself_and_its_block(there, server):
    data = bytearray(server.files["/x/train-00002-of-00008.tar"])
    data[8000] ^= 1
    server.files["/x/train-00002-of-00008.tar"] = bytes(data)
    data_set = there()
    blocks = data_set.blocks("train")
    for _ in range(4):
        with pytest.raises(ShardError, match=r"http://.*/x/train-00002-of-00008.tar, block 4 of its split: CRC-32 is"):
            data_set.read(blocks, 4)
    assert len(server.paths()) == 5  # three for the first, two for the second, and no more
    data_set.read(blocks, 5)


def test_object_that_is_too_large_never_takes_more_than_its_room(there, server, monkeypatch):
    ends = []
    write = PartFile.write
    monkeypatch.setattr(
        PartFile, "write", lambda part, data, start: ends.append(start + len(data)) or write(part, data, start)
    )
    data_set = there()
    server.files["/x/train-00002-of-00008.tar"] *= 20
    with pytest.raises(ShardError, match="copy the data set there again"):
        data_set.read(data_set.blocks("train"), 4)
    assert max(ends, default=0) <= data_set.manifest.shards[2].num_bytes


@pytest.mark.parametrize("change", [-512, 512])
def test_shard_of_another_size_at_its_source_is_an_error(there, server, change):
    name = "/x/train-00002-of-00008.tar"
    server.files[name] = server.files[name][:change] if change < 0 else server.files[name] + b"x" * change
    data_set = there()
    with pytest.raises(ShardError, match=r"train-00002-of-00008.tar.*; copy the data set there again"):
        data_set.read(data_set.blocks("train"), 4)
    assert parts_in(data_set.folder) == set()


def test_missing_shard_is_an_error_at_once(there, server):
    del server.files["/x/train-00002-of-00008.tar"]
    data_set = there()
    with pytest.raises(
        ShardError, match=r"/x/train-00002-of-00008.tar: nothing is there .*copy the data set there again"
    ):
        data_set.read(data_set.blocks("train"), 4)
    assert len(server.paths()) == 1


def test_server_that_fails_for_good_is_no_damage(there, server):
    data_set = there()
    server.faults = ["503"] * 100
    with pytest.raises(DownloadError, match="7 tries in a row failed"):
        data_set.read(data_set.blocks("train"), 0)
    assert parts_in(data_set.folder) == set()


def test_prefetch_gets_ahead(there, server):
    data_set = there()
    shards = data_set.manifest.shards[:NUM_SHARDS]
    data_set.shard_files.prefetch(shards)
    wait_until(lambda: data_set.shard_files.num_fetched_ahead == NUM_SHARDS)
    server.files = {}
    read_all(data_set)
    assert data_set.shard_files.num_fetched == NUM_SHARDS


def test_prefetch_comes_in_order_and_keeps_what_was_not_used_yet(there, server, monkeypatch):
    monkeypatch.setattr(shard_cache, "_NUM_THREADS", 1)
    data_set = there(num_shards=3)
    cache, shards = data_set.shard_files, data_set.manifest.shards
    order = [shards[number] for number in (5, 0, 7, 1, 2, 6)]
    cache.prefetch(order)
    for used in range(4):
        wait_until(lambda number=3 + used: cache.num_fetched == number)
        time.sleep(0.15)  # longer than between two looks for room: what is not done now is not done
        assert server.paths() == [f"/x/{shard.name}" for shard in order[: 3 + used]]
        assert shards_in(data_set.folder) == {shard.name for shard in order[used : 3 + used]}
        with cache.open(order[used]):
            pass


def test_prefetch_keeps_what_lay_there_and_is_wished_for(there, server):
    data_set = there(num_shards=2)
    cache, (a, b, c, *_) = data_set.shard_files, data_set.manifest.shards
    with cache.open(a):
        pass
    with cache.open(b):
        pass
    cache.prefetch([a, c])  # a was used longer ago than b
    wait_until(lambda: cache.num_fetched == 3)
    assert shards_in(data_set.folder) == {a.name, c.name}


def test_newer_wishes_replace_older_ones(there, server):
    data_set = there(num_shards=2)
    cache, shards = data_set.shard_files, data_set.manifest.shards
    cache.prefetch(shards[:5])
    wait_until(lambda: cache.num_fetched == 2)
    cache.prefetch(shards[6:8])
    wait_until(lambda: cache.num_fetched == 4)
    assert shards_in(data_set.folder) == {shard.name for shard in shards[6:8]}


@pytest.mark.parametrize("num_shards", [1, 2])
def test_demand_does_not_wait_for_room_behind_prefetches(there, server, num_shards):
    data_set = there(num_shards=num_shards, timeout=60.0)
    cache, shards = data_set.shard_files, data_set.manifest.shards
    server.faults = ["stall:3000"] * num_shards
    cache.prefetch(shards[:num_shards])
    wait_until(lambda: len(server.paths()) == num_shards)
    data_set.read(data_set.blocks("train"), 10)
    assert shards[5].name in shards_in(data_set.folder)
    server.released.set()
    wait_until(lambda: cache.num_fetched_ahead == num_shards)  # once what is read is no longer in use


def test_demand_evicts_the_prefetched_shard_that_is_needed_last(there):
    data_set = there(num_shards=2)
    cache, shards = data_set.shard_files, data_set.manifest.shards
    cache.prefetch(shards[:1])
    wait_until(lambda: cache.num_fetched == 1)
    cache.prefetch(shards[:2])
    wait_until(lambda: cache.num_fetched == 2)
    cache._process.prefetcher.close()
    with cache.open(shards[4]):
        assert shards_in(data_set.folder) == {shards[0].name, shards[4].name}


def test_prefetch_that_fails_is_left_to_who_needs_the_shard(there, server, caplog):
    caplog.set_level("DEBUG")
    data_set = there()
    del server.files["/x/train-00002-of-00008.tar"]
    data_set.shard_files.prefetch(data_set.manifest.shards[2:4])
    wait_until(lambda: data_set.shard_files.num_fetched == 1)
    wait_until(lambda: "train-00002-of-00008.tar was not fetched ahead: " in caplog.text)
    with pytest.raises(ShardError, match="nothing is there"):
        data_set.read(data_set.blocks("train"), 4)


def test_process_ends_though_it_fetches_ahead(server, tmp_path):
    server.faults = ["stall:3000"] * 8
    code = f"""
import bertdata, pathlib
from bertdata.cache_options import CacheOptions
options = CacheOptions(folder=pathlib.Path({str(tmp_path)!r}))
data_set = bertdata.open_data_set("http://{server.address}/x", cache=options)
data_set.shard_files.prefetch(data_set.manifest.shards)
while not list(data_set.folder.glob(".*.part")):
    pass
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 0


def test_shard_in_use_is_not_evicted_and_who_needs_room_waits(there):
    data_set = there(num_shards=1)
    cache, (first, second, *_) = data_set.shard_files, data_set.manifest.shards
    opened = []

    def read_second():
        with cache.open(second) as path:
            opened.append(path.name)

    with cache.open(first) as path:
        thread = threading.Thread(target=read_second)
        thread.start()
        wait_until(lambda: CacheFolder(data_set.folder.parent, max_bytes=1).is_room_wanted())
        assert path.exists()
        assert opened == []
    thread.join()
    assert opened == [second.name]


def test_who_needs_room_does_not_wait_for_ever(there, monkeypatch):
    monkeypatch.setattr(shard_cache, "_MAX_WAIT_SECONDS", 0.1)
    data_set = there(num_shards=1)
    cache, (first, second, *_) = data_set.shard_files, data_set.manifest.shards
    with cache.open(first), pytest.raises(OutputError, match="may hold were all in use for 0 s; give a larger --cache"):  # noqa: SIM117
        with cache.open(second):
            pass


def test_least_recently_used_shard_is_evicted(there):
    data_set = there(num_shards=3)
    cache, shards = data_set.shard_files, data_set.manifest.shards
    for number in (0, 1, 2, 0, 3, 0, 4):
        with cache.open(shards[number]):
            pass
        time.sleep(0.01)  # clocks of files are coarse
    assert shards_in(data_set.folder) == {shards[number].name for number in (0, 3, 4)}


def test_cache_that_is_too_small_names_both_numbers(there, server, tmp_path):
    largest = max(len(data) for path, data in server.files.items() if path.endswith(".tar"))
    with pytest.raises(OutputError) as caught:
        there(max_bytes=room_for(1, server) - 1)
    assert f" has {largest:,} bytes beside " in str(caught.value)
    assert f"may hold {room_for(1, server) - 1:,}; give a larger --cache-size" in str(caught.value)


def test_full_disk_says_what_is_needed(there, monkeypatch):
    data_set = there()

    def no_room(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    with pytest.raises(OutputError, match=r"train-00000-of-00008.tar needs [\d,]+ bytes, .* give another --cache"):
        data_set.read(data_set.blocks("train"), 0)
    assert parts_in(data_set.folder) == set()


def test_file_system_that_cannot_allocate_does_without(here, there, monkeypatch):
    def cannot(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", cannot)
    assert_equal_blocks(read_all(there()), read_all(here))


def test_folder_that_cannot_be_written_to_is_named(there, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file cannot be used: .* give another --cache"):
        there(folder=tmp_path / "file")


def test_nothing_of_others_is_counted_or_removed(there, tmp_path):
    other = tmp_path / "cache" / "mine"
    other.mkdir(parents=True)
    (other / "train-00000-of-00001.tar").write_bytes(b"x" * 10**6)
    read_all(there(num_shards=2))
    assert (other / "train-00000-of-00001.tar").stat().st_size == 10**6


def test_two_data_sets_share_one_cap(there, server, tmp_path):
    second = make_data_set(tmp_path / "second", train_blocks=((20, 10),) * 3, seed=77)
    server.files |= {f"/y/{path.name}": path.read_bytes() for path in second.folder.iterdir()}
    most, cap = [], room_for(2, server)
    with sampling(tmp_path / "cache", most):
        first = there(max_bytes=cap)
        other = open_data_set(
            f"http://{server.address}/y", cache=CacheOptions(folder=tmp_path / "cache", max_bytes=cap, timeout=5)
        )
        for row in range(6):
            first.read(first.blocks("train"), row)
            other.read(other.blocks("train"), row)
    assert max(most) <= cap
    assert first.folder != other.folder


def test_default_cap_is_nine_tenths_of_what_can_be_had(tmp_path, monkeypatch):
    folder = tmp_path / "0123456789abcdef"
    folder.mkdir()
    (folder / "train-00000-of-00001.tar").write_bytes(b"x" * 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 9000}))
    assert CacheFolder(tmp_path, max_bytes=None).max_bytes == 9000


def test_default_folder_is_that_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("BERTDATA_CACHE", str(tmp_path / "mine"))
    assert CacheOptions().path == tmp_path / "mine"
    monkeypatch.delenv("BERTDATA_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert CacheOptions().path == tmp_path / ".cache" / "bertdata"
    assert CacheOptions(folder=Path("x")).path == Path.cwd() / "x"


@pytest.mark.parametrize("options", [{"max_bytes": 0}, {"timeout": 0}])
def test_cache_options_refuse_what_makes_no_sense(options):
    with pytest.raises(ConfigError, match="it must be"):
        CacheOptions(**options)


def test_child_does_not_hold_the_locks_of_its_parent(tmp_path):
    file = LockedFile(tmp_path / "file")
    file.lock(exclusive=True)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)  # until the parent closes its end
        os._exit(0)
    os.close(reader)
    os.close(file.descriptor)  # as by a process that is killed: without giving the lock back
    with LockedFile(tmp_path / "file") as other:
        wait_until(lambda: other.try_lock(exclusive=True), seconds=5)
    os.close(writer)
    os.waitpid(child, 0)


def test_reserve_tells_why_there_is_no_part(tmp_path):
    folder = CacheFolder(tmp_path, max_bytes=100)
    a, b = (tmp_path / "0123456789abcdef" / f"train-0000{number}-of-00002.tar" for number in range(2))
    part = folder.reserve(a, 100)
    assert folder.reserve(a, 100) is NoPart.IS_FETCHED
    assert folder.reserve(b, 100) is NoPart.NO_ROOM
    part.write(b"x" * 100, 0)
    held = folder.commit(part)
    assert folder.reserve(a, 100) is NoPart.IS_THERE
    assert folder.reserve(b, 100) is NoPart.NO_ROOM
    held.close()
    folder.drop(folder.reserve(b, 100))
    assert list(a.parent.iterdir()) == []
    assert folder.num_evicted == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_at_any_moment_leaves_nothing(here, there, tmp_path, server, seed):
    data_set, generator = there(num_shards=3), random.Random(seed)
    for _ in range(6):
        processes = [SPAWN.Process(target=read_at_random, args=(data_set, generator.random())) for _ in range(2)]
        for process in processes:
            process.start()
        time.sleep(generator.uniform(0.5, 1.2))
        processes[0].kill()
        for process in processes:
            process.join()
        assert processes[1].exitcode == 0
    read_all(data_set)
    assert parts_in(tmp_path) == set()
    assert held_in(tmp_path / "cache") <= room_for(3, server)
