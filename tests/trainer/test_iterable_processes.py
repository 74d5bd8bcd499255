"""The data set in processes of their own: killed at any moment, side by side, and for a long time."""

import hashlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from bertdata.data_set import DataSet
from bertdata.files import write_atomically
from trainer.batch import Batch
from trainer.iterable import PreTrainingData

NUM_STEPS = 40  # four epochs of the data set of 160 samples
FORK = multiprocessing.get_context("fork")


def new_data(folder: Path, **options: Any) -> PreTrainingData:
    return PreTrainingData(folder, **({"batch_size": 16, "seed": 3, "window_blocks": 2} | options))


def digest(batch: Batch) -> str:
    found = hashlib.sha256(str(batch.max_seqlen).encode())
    for tensor in batch[:3] + batch[4:]:
        found.update(tensor.numpy().tobytes())
    return f"{' '.join(map(str, batch.sample_ids.tolist()))} {found.hexdigest()}"


def digests(batches: Iterable[Batch], number: int = NUM_STEPS) -> list[str]:
    return [digest(batch) for batch in islice(batches, number)]


def run_job(folder: Path, out: Path, stop: int, pipe: Connection) -> None:
    """Goes on with a run up to a step: what it saw goes to `log`, where it is to `state`; then waits."""
    data, state = new_data(folder, num_workers=2), out / "state.json"
    if state.exists():
        data.load_state_dict(json.loads(state.read_bytes()))
    step = data.state_dict()["samples_seen"] // 16
    pipe.send(step)
    with (out / "log").open("a") as log:
        for batch in data if step < stop else ():
            log.write(f"{step} {digest(batch)}\n")
            log.flush()
            write_atomically(state, json.dumps(data.state_dict()).encode())
            step += 1
            pipe.send(step)
            if step == stop:
                break
        signal.pause()


def start_job(folder: Path, out: Path, *, stop: int) -> tuple[BaseProcess, Connection]:
    out.mkdir(exist_ok=True)
    reading, writing = FORK.Pipe(duplex=False)
    process = FORK.Process(target=run_job, args=(folder, out, stop, writing), daemon=True)
    process.start()
    writing.close()
    return process, reading


def kill(process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("step", range(1, NUM_STEPS + 1))
def test_run_that_is_killed_after_any_step_goes_on_the_same(data_set: DataSet, tmp_path: Path, step: int) -> None:
    process, pipe = start_job(data_set.folder, tmp_path, stop=step)
    while pipe.recv() < step:
        pass
    kill(process)
    walked = digests(new_data(data_set.folder))
    assert (tmp_path / "log").read_text().splitlines() == [f"{row} {text}" for row, text in enumerate(walked[:step])]
    data = new_data(data_set.folder, num_workers=step % 3)
    data.load_state_dict(json.loads((tmp_path / "state.json").read_bytes()))
    assert data.state_dict()["samples_seen"] == 16 * step
    assert digests(data, NUM_STEPS - step) == walked[step:]


def test_run_that_is_killed_again_and_again_shows_what_an_uninterrupted_one_does(
    data_set: DataSet, tmp_path: Path
) -> None:
    chosen, num_kills, reached = random.Random(5), 0, 0
    while reached < NUM_STEPS:
        process, pipe = start_job(data_set.folder, tmp_path, stop=NUM_STEPS)
        for _ in range(chosen.randrange(8)):
            if reached < NUM_STEPS:  # else nothing more is sent
                reached = pipe.recv()
        pipe.poll(chosen.random() / 200)  # at no particular moment of the step
        kill(process)
        num_kills += 1
    assert num_kills > 5
    walked = digests(new_data(data_set.folder))
    seen = [line.split(" ", 1) for line in (tmp_path / "log").read_text().splitlines()]
    assert all(text == walked[int(row)] for row, text in seen)
    # A step is seen twice when the kill came between log and state, and none is left out.
    rows = [int(row) for row, _ in seen]
    assert sorted(set(rows)) == list(range(NUM_STEPS))
    assert len(rows) < NUM_STEPS + num_kills


def run_through_dataloader(folder: Path, out: Path, seed: int, pipe: Connection) -> None:
    data = new_data(folder, seed=seed, num_workers=1)
    batches = iter(DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork"))
    pipe.send(digests(batches, 5))
    pipe.recv()  # until all have begun
    pipe.send(digests(batches, NUM_STEPS - 5))


def test_jobs_side_by_side_do_not_meet(data_set: DataSet, tmp_path: Path) -> None:
    jobs = []
    for seed in (3, 3, 4):
        here, there = FORK.Pipe()
        job = FORK.Process(target=run_through_dataloader, args=(data_set.folder, tmp_path, seed, there))
        job.start()
        jobs.append((seed, job, here))
    found = [here.recv() for _, _, here in jobs]
    for _, _, here in jobs:
        here.send(None)
    found = [first + here.recv() for first, (_, _, here) in zip(found, jobs, strict=True)]
    for _, job, _ in jobs:
        job.join()
        assert job.exitcode == 0
    assert found == [digests(new_data(data_set.folder, seed=seed)) for seed, _, _ in jobs]


SHARED_MEMORY = """
import sys
from itertools import islice
from pathlib import Path
from torch.utils.data import DataLoader
from trainer import PreTrainingData

data = PreTrainingData(sys.argv[1], batch_size=16, num_workers=2)
kept = list(islice(data, 60))
print("/dev/shm" in Path("/proc/self/maps").read_text(), flush=True)
batches = iter(DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context=sys.argv[2], prefetch_factor=4))
kept = list(islice(batches, 60))
print("/dev/shm" in Path("/proc/self/maps").read_text(), flush=True)
print(*[worker.pid for worker in batches._workers], flush=True)
while True:
    next(batches)
"""


def shared_memory() -> set[Path]:
    """Returns what is there of the kinds that Python and torch make."""
    kinds = ("torch_*", "psm_*", "sem.*")
    return {path for kind in kinds for path in Path("/dev/shm").glob(kind)}


def lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_killed_process_leaves_no_shared_memory_and_needs_none_without_a_dataloader(
    data_set: DataSet, method: str
) -> None:
    before = shared_memory()
    command = [sys.executable, "-c", SHARED_MEMORY, str(data_set.folder), method]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        alone, with_workers, pids = (process.stdout.readline().strip() for _ in range(3))
        process.kill()
    assert (alone, with_workers, len(pids.split())) == ("False", "True", 2)
    # Workers find out within seconds that their parent is gone. What others make meanwhile goes away as well.
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (any(map(lives, pids.split())) or shared_memory() - before):
        time.sleep(0.1)
    assert [pid for pid in pids.split() if lives(pid)] == []
    assert shared_memory() - before == set()


MEMORY = """
import sys
from itertools import islice
from pathlib import Path
from trainer import PreTrainingData

data = PreTrainingData(sys.argv[1], batch_size=100, window_blocks=1, num_workers=int(sys.argv[2]), padded=True)
batches = iter(data)
for epoch in range(1, 21):
    for _ in range(data.num_samples // 100):
        next(batches)
    if epoch in (3, 20):
        print(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
"""


@pytest.mark.parametrize("num_workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_memory_is_flat_over_twenty_epochs(new_data_set: Callable[..., DataSet], num_workers: int) -> None:
    data_set = new_data_set(train_blocks=((1000,) * 5,), max_seq_length=128, num_mask_sets=8)
    assert data_set.blocks("train").num_bytes.min() > 300_000
    command = [sys.executable, "-c", MEMORY, str(data_set.folder), str(num_workers)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    after_3, after_20 = map(int, result.stdout.split())
    # What is prepared ahead at the moment may be two chunks of steps more or less, of 5 MB each. The blocks of each epoch
    # would be 35 MB, if they were kept.
    assert after_20 - after_3 < 12e6


HASHES = """
import sys
from itertools import islice
from pathlib import Path
from tests.trainer.test_iterable_processes import digests, new_data

print(hash("batch"), *digests(new_data(Path(sys.argv[1]), num_workers=1), 20), sep="\\n")
"""


@pytest.mark.slow
def test_hash_seed_changes_nothing(data_set: DataSet) -> None:
    hashes, wanted = set(), digests(new_data(data_set.folder), 20)
    for seed in ("0", "1", "4242"):
        command = [sys.executable, "-c", HASHES, str(data_set.folder)]
        result = subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True)
        first, *found = result.stdout.decode().splitlines()
        assert found == wanted
        hashes.add(first)
    assert len(hashes) == 3
