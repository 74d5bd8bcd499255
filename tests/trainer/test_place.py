import doctest
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import trainer.place
from bertdata.errors import TrainingError
from tests.trainer.test_train import ENVIRONMENT
from trainer.place import LAUNCHED, Place, find_place, first_host

SLURM = {
    "SLURM_JOB_ID": "40001",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_NTASKS": "16",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
}
TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RUN_ID": "abc",
}
ATTEMPT = """
import os
from bertdata.errors import TrainingError
from trainer.distributed import start_world
with start_world("cpu") as world:
    number = len(world.gather(""))
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and world.rank == 1:
        raise TrainingError("as asked for")
    print("attempt", os.environ["TORCHELASTIC_RESTART_COUNT"], "of", number, "together", flush=True)
"""


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(trainer.place).failed == 0


def test_nothing_set_is_a_process_alone() -> None:
    assert find_place({}) == Place(rank=0, size=1, starter="bert-train")


def test_torchrun_sets_everything() -> None:
    place = find_place(TORCHRUN)
    assert (place.rank, place.size, place.local_rank) == (3, 4, 1)
    assert (place.address, place.port, place.starter, place.holds_store) == ("node1", 29500, "torchrun", False)
    assert find_place(TORCHRUN | {"TORCHELASTIC_USE_AGENT_STORE": "False"}).holds_store
    launched = find_place({LAUNCHED: "1"} | {name: TORCHRUN[name] for name in list(TORCHRUN)[:5]})
    assert (launched.starter, launched.holds_store) == ("--gpus", False)


def test_attempts_of_torchrun_do_not_share_what_is_in_its_store() -> None:
    attempts = [find_place(TORCHRUN | {"TORCHELASTIC_RESTART_COUNT": str(count)}).job for count in range(3)]
    assert attempts == ["abc.0", "abc.1", "abc.2"]
    assert find_place(TORCHRUN).job == "abc.0"
    assert find_place(TORCHRUN | {LAUNCHED: "1"}).job == ""  # which the launcher expects


@pytest.mark.slow
def test_processes_meet_again_when_torchrun_restarts_them(tmp_path: Path) -> None:
    """With the static rendezvous, whose store is the same one for all attempts."""
    (tmp_path / "attempt.py").write_text(ATTEMPT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"--nnodes 1 --node-rank 0 --nproc-per-node 2 --master-addr 127.0.0.1 --master-port {port}".split()
    command = [sys.executable, "-m", "torch.distributed.run", *options, "--max-restarts", "1", tmp_path / "attempt.py"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "as asked for" in done.stderr
    assert done.stdout.count("attempt 1 of 2 together") == 2


def test_slurm_step_is_a_run() -> None:
    place = find_place(SLURM)
    assert (place.rank, place.size, place.local_rank, place.starter) == (9, 16, 1, "srun")
    assert (place.address, place.port, place.job, place.holds_store) == ("gpu07", 25001, "40001.0", True)
    given = find_place(SLURM | {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "12345"})
    assert (given.address, given.port) == ("10.0.0.7", 12345)


def test_ports_of_jobs_are_no_client_ports() -> None:
    ports = [find_place(SLURM | {"SLURM_JOB_ID": str(job)}).port for job in (1, 14_999, 15_000, 123_456_789)]
    assert all(1024 < port < 32768 for port in ports)


@pytest.mark.parametrize(
    "environment",
    [
        {name: value for name, value in SLURM.items() if "STEP" not in name},  # a batch script, outside of srun
        SLURM | {"SLURM_STEP_NUM_TASKS": "1"},  # srun --pty bash within a larger job
    ],
)
def test_slurm_job_that_is_no_step_of_several_tasks_is_a_process_alone(environment: dict[str, str]) -> None:
    assert find_place(environment).size == 1


def test_torchrun_within_slurm_is_torchrun() -> None:
    assert find_place(SLURM | TORCHRUN).starter == "torchrun"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MASTER_ADDR": ""}, "MASTER_ADDR is not set; start the processes with torchrun"),
        ({"RANK": "one"}, "RANK is 'one'; it must be a number"),
    ],
)
def test_variables_that_do_not_fit_are_an_error(changes: dict[str, str], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        find_place(TORCHRUN | changes)


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("node[3]", "node3"),
        ("node[003-010,12],other", "node003"),
        ("rack[1-2]n[5,7]", "rack1n5"),
        ("gpu[2,4]-ib.example.org,x", "gpu2-ib.example.org"),
        ("", ""),
    ],
)
def test_first_host_of_lists_as_slurm_writes_them(hosts: str, first: str) -> None:
    assert first_host(hosts) == first
