"""The processes of a run: one alone, or several that torchrun, Slurm's srun or `bert-train --gpus` started.

Small numbers that steer the run (counts, stop flags) go through CPU tensors, so that no process waits for its GPU.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from bertdata.errors import BertDataError, TrainingError
from trainer.peers import Peers, meet
from trainer.place import Place, find_place
from trainer.signals import StopSignals

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

__all__ = ["World", "start_world"]

_MEETING_SECONDS = 600.0
"""Machines of a cluster do not start at the same moment."""

_COLLECTIVE_TIMEOUT = timedelta(hours=1)
"""Of a process that waits for one that compiles or saves; one that is gone is noticed by `trainer.peers`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """One process among all.

    Attributes:
        rank: Number of this process.
        size: Number of processes.
        device: Where this process computes.
        stop: Whether the run is asked to stop, as far as this process knows.
        store: Where texts are exchanged; None where there is one process.
    """

    rank: int
    size: int
    device: torch.device
    stop: StopSignals = field(default_factory=StopSignals)
    store: Store | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    @property
    def num_idle_gpus(self) -> int:
        """GPUs of this machine that a process alone leaves idle."""
        return torch.cuda.device_count() - 1 if self.size == 1 and self.device.type == "cuda" else 0

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

    def gather(self, text: str) -> list[str]:
        """Returns the texts of all processes, by rank."""
        if self.store is None:
            return [text]
        number = self.store.add(f"gathered/{self.rank}", 1)
        self.store.set(f"gather/{number}/{self.rank}", text)
        keys = [f"gather/{number}/{rank}" for rank in range(self.size)]
        return [value.decode() for value in self.store.multi_get(keys)]

    def barrier(self) -> None:
        """Waits until all processes are here."""
        self.sum_numbers(0)


@contextmanager
def start_world(device: str | None = None) -> Iterator[World]:
    """Joins the processes that were started together, or stands alone; signals ask the run to stop meanwhile.

    Among several processes, an exception ends them all. One of them says what it was, all exit with 1.

    Args:
        device: "cpu" or "cuda"; None for a GPU where there is one.

    Raises:
        TrainingError: The processes cannot meet, or there are fewer GPUs than processes.
    """
    place = find_place(os.environ)
    with ExitStack() as stack:
        if place.size == 1:
            stop = stack.enter_context(StopSignals())
            yield World(rank=0, size=1, device=_own_device(place, device), stop=stop)
            return
        name = f"rank {place.rank} ({platform.node()}, process {os.getpid()})"
        with _interrupts_end():
            store = _join(place)
            names = meet(store, rank=place.rank, size=place.size, name=name, timeout_seconds=_MEETING_SECONDS)
        stop = stack.enter_context(StopSignals())
        store_name = f"{names[0]}, where the processes met," if place.holds_store else f"the launcher, {place.starter},"
        peers = stack.enter_context(
            Peers(
                # A connection of its own: on the other one, the main thread may wait for as long as it likes.
                _join(place, is_first=False),
                rank=place.rank,
                names=names,
                stop=stop,
                store_name=store_name,
                store_rank=0 if place.holds_store else None,
            )
        )
        try:
            store.set_timeout(_COLLECTIVE_TIMEOUT)
            own = _own_device(place, device)
            world = World(rank=place.rank, size=place.size, device=own, stop=stop, store=store)
            _check_devices(world, names)
            backend = "cpu:gloo,cuda:nccl" if own.type == "cuda" else "gloo"
            group = dist.PrefixStore("group", store)  # type: ignore[attr-defined]
            dist.init_process_group(
                backend, store=group, rank=place.rank, world_size=place.size, timeout=_COLLECTIVE_TIMEOUT
            )
            yield world
            world.gather("done")  # who closes its connections early looks like one that is gone
            dist.destroy_process_group()
        except BaseException as error:
            _end_all(error, peers, name=name if place.rank else "")
            raise


def _join(place: Place, *, is_first: bool = True) -> Store:
    """Returns a connection to the store at which the processes meet; the first one of rank 0 makes it.

    Raises:
        TrainingError: The port is taken, or nobody is there.
    """
    makes_store = place.holds_store and place.rank == 0 and is_first
    try:
        store = dist.TCPStore(  # type: ignore[attr-defined]
            place.address,
            place.port,
            is_master=makes_store,
            timeout=timedelta(seconds=_MEETING_SECONDS),
            wait_for_workers=False,
        )
    except dist.DistError as error:
        raise TrainingError(
            f"rank {place.rank} cannot {'open' if makes_store else 'reach'} "
            f"{place.address}:{place.port}, where the processes are to meet ({str(error).splitlines()[0]}); set "
            "MASTER_ADDR to the first machine and MASTER_PORT to a port that is free there"
        ) from error
    joined: Store = dist.PrefixStore(f"bert-train/{place.job}", store)  # type: ignore[attr-defined]
    return joined


@contextmanager
def _interrupts_end() -> Iterator[None]:
    """Lets ^C end the process as long as it waits for others: nothing is to be saved, and the waiting hears nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _own_device(place: Place, kind: str | None) -> torch.device:
    """Returns where this process computes.

    Raises:
        TrainingError: This machine has fewer GPUs than processes.
    """
    if (kind or ("cuda" if torch.cuda.is_available() else "cpu")) == "cpu":
        return torch.device("cpu")
    num_gpus, index = torch.cuda.device_count(), place.local_rank
    if num_gpus == 1 and place.starter == "srun":
        index = 0  # Slurm shows each process its own GPU alone; whether it is its own is seen below
    if index >= num_gpus:
        raise TrainingError(
            f"process {index + 1} of this machine has no GPU, there are {num_gpus}; start as many processes as GPUs "
            "(--gpus all, torchrun --nproc-per-node, srun --ntasks-per-node), or see CUDA_VISIBLE_DEVICES"
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def _check_devices(world: World, names: list[str]) -> None:
    """Compares what all processes compute on.

    Raises:
        TrainingError: Some have GPUs and others none, or two share one.
    """
    device = world.device
    own = (
        str(torch.cuda.get_device_properties(device).uuid)
        if device.type == "cuda"
        else f"the CPU of {names[world.rank]}"
    )
    devices = world.gather(f"{device.type} {own}")
    kinds = {text.split()[0] for text in devices}
    if len(kinds) > 1:
        without = next(name for name, text in zip(names, devices, strict=True) if text.startswith("cpu"))
        raise TrainingError(f"{without} sees no GPU, others do; see the drivers there, and CUDA_VISIBLE_DEVICES")
    for rank, text in enumerate(devices):
        if (first := devices.index(text)) != rank:
            raise TrainingError(
                f"{names[first]} and {names[rank]} have the same GPU; start one process for each GPU, and let each "
                "see all GPUs of its machine, or only its own"
            )


def _end_all(error: BaseException, peers: Peers, *, name: str) -> None:
    """Ends all processes because of an exception in this one; returns in none."""
    # Over gloo a process that is gone shows as a plain RuntimeError.
    is_broken = isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
    if peers.fail(is_broken_connection=is_broken):
        own = f"{name}: " if name else ""
        if isinstance(error, BertDataError):
            sys.stderr.write(f"error: {own}{error}\n")
        else:
            sys.stderr.write(f"{own}failed, and all processes end:\n")
            traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    peers.end()
