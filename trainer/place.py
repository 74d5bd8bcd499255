"""Where a process stands among all of a run: what torchrun, Slurm's srun or `bert-train --gpus` has set."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bertdata.errors import TrainingError

__all__ = ["LAUNCHED", "Place", "find_place", "first_host"]

LAUNCHED = "BERT_TRAIN_LAUNCHED"
"""Variable that `bert-train --gpus` sets for the processes that it starts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One process among those of a run.

    Attributes:
        rank: Its number.
        size: Number of processes.
        local_rank: Its number on its machine.
        address: Host where the processes meet.
        port: Port there.
        starter: What has started it: "bert-train" for a process alone, "--gpus", "torchrun" or "srun".
        holds_store: Whether the first process makes the place to meet; else what has started it does.
        job: What tells the processes of this run, and of this attempt at it, from others that come to the same port.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    address: str = "127.0.0.1"
    port: int = 0
    starter: str = "bert-train"
    holds_store: bool = True
    job: str = ""


def find_place(environment: Mapping[str, str]) -> Place:
    """Returns the place of this process.

    Args:
        environment: The environment's variables.

    Raises:
        TrainingError: A variable is missing, or no number.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return _of_variables(environment)
    # Within a batch script or a shell, outside of srun, the job's variables are set as well; the step's are not.
    if "SLURM_STEP_ID" in environment and _number(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", default=1) > 1:
        return _of_slurm(environment)
    return Place()


def _of_variables(environment: Mapping[str, str]) -> Place:
    size = _number(environment, "WORLD_SIZE")
    if size == 1:
        return Place(local_rank=_number(environment, "LOCAL_RANK", default=0), starter="torchrun")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not environment.get(name):
            raise TrainingError(f"WORLD_SIZE is {size}, and {name} is not set; start the processes with torchrun")
    is_launched, job = LAUNCHED in environment, environment.get("TORCHELASTIC_RUN_ID", "")
    if job:  # torchrun keeps its store over restarts, and with it what earlier attempts have written there
        job = f"{job}.{environment.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    return Place(
        rank=_number(environment, "RANK"),
        size=size,
        local_rank=_number(environment, "LOCAL_RANK", default=0),
        address=environment["MASTER_ADDR"],
        port=_number(environment, "MASTER_PORT"),
        starter="--gpus" if is_launched else "torchrun",
        holds_store=not is_launched and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
        job="" if is_launched else job,
    )


def _of_slurm(environment: Mapping[str, str]) -> Place:
    job, step = _number(environment, "SLURM_JOB_ID"), environment["SLURM_STEP_ID"]
    hosts = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or ""
    address = environment.get("MASTER_ADDR") or first_host(hosts)
    if not address:
        raise TrainingError("Slurm has not said where the processes run; set MASTER_ADDR to the first one's host")
    return Place(
        rank=_number(environment, "SLURM_PROCID"),
        size=_number(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),
        local_rank=_number(environment, "SLURM_LOCALID"),
        address=address,
        # Jobs that share a machine have different numbers. Above are the ports that systems give to clients.
        port=_number(environment, "MASTER_PORT", default=15000 + job % 15000),
        starter="srun",
        job=f"{job}.{step}",
    )


def first_host(hosts: str) -> str:
    """Returns the first host of a list as Slurm writes it.

    >>> first_host("gpu[07-09,12],login1"), first_host("rack2-n[1,3].example.org"), first_host("alone,other")
    ('gpu07', 'rack2-n1.example.org', 'alone')
    """
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", hosts)
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0] if first else "")


def _number(environment: Mapping[str, str], *names: str, default: int | None = None) -> int:
    for name in names:
        if name in environment:
            try:
                return int(environment[name])
            except ValueError:
                raise TrainingError(f"the variable {name} is {environment[name]!r}; it must be a number") from None
    if default is None:
        raise TrainingError(f"the variable {names[0]} is not set; start the processes with torchrun or srun")
    return default
