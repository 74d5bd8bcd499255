"""The processes of a run: one alone, or several that torchrun started.

Small numbers that steer the run (counts, stop flags) go through CPU tensors, so that no process waits for its GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["World", "start_world"]


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """One process among all.

    Attributes:
        rank: Number of this process.
        size: Number of processes.
        device: Where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Returns the sum of a tensor over all processes."""
        if self.size > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def sum_numbers(self, *numbers: int) -> list[int]:
        """Returns the sum of each number over all processes."""
        if self.size == 1:
            return list(numbers)
        return [int(number) for number in self.sum(torch.tensor(numbers, dtype=torch.int64)).tolist()]

    def agree_to_stop(self, is_asked: bool) -> bool:
        """Returns whether any process was asked to stop: the same answer in all of them."""
        return self.sum_numbers(int(is_asked)) != [0]

    def barrier(self) -> None:
        """Waits until all processes are here."""
        self.sum_numbers(0)


@contextmanager
def start_world(device: str | None = None) -> Iterator[World]:
    """Joins the processes that torchrun started, or stands alone.

    Args:
        device: "cpu" or "cuda"; None for a GPU where there is one.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cuda":
        torch.cuda.set_device(local_rank)
    own = torch.device(kind, local_rank) if kind == "cuda" else torch.device(kind)
    if size == 1:
        yield World(rank=0, size=1, device=own)
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo")
    try:
        yield World(rank=dist.get_rank(), size=size, device=own)
    finally:
        dist.destroy_process_group()
