"""Starts one process for each GPU of this machine, as `bert-train --gpus all` asks, and stays until all have ended.

The processes meet at a store that lives here. So no port has to be agreed on, the end of any one of them leaves the
others their store, and the end of this one ends them.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bertdata.errors import TrainingError
from trainer.place import LAUNCHED

__all__ = ["choose_number", "start_processes"]

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_END_SECONDS = 10.0
"""After which those that have not noticed that another one failed are killed."""


def choose_number(gpus: str, *, available: int) -> int:
    """Returns how many processes `--gpus` asks for.

    Args:
        gpus: "all", or a number.
        available: GPUs that this machine shows.

    Raises:
        TrainingError: It is neither, or there are not so many GPUs.
    """
    if gpus != "all" and not (gpus.isdecimal() and int(gpus)):
        raise TrainingError(f"--gpus is {gpus!r}; it must be a number from 1 on, or all")
    if available == 0:
        raise TrainingError(f"--gpus is {gpus}, and this machine shows no GPU; leave it out to train on the CPU")
    number = available if gpus == "all" else int(gpus)
    if number > available:
        raise TrainingError(f"--gpus is {number}, and this machine shows {available}; give no more than that, or all")
    return number


def start_processes(command: Sequence[str], *, number: int) -> int:
    """Runs a command in several processes, the ranks of a run, and returns when all have ended.

    Signals that ask to stop are passed on, once each. When one process fails, all end.

    Args:
        command: What each process runs; it finds its place in the environment.
        number: How many.

    Returns:
        The exit code: 0, or that of the first process that failed, 1 where a signal ended it.
    """
    import torch.distributed as dist

    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    shared = {
        "WORLD_SIZE": str(number),
        "LOCAL_WORLD_SIZE": str(number),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        LAUNCHED: "1",
    }
    # Else each process would take all cores for itself.
    shared["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // number))
    shared_store = dist.PrefixStore("bert-train/", store)  # type: ignore[attr-defined]
    events: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
    processes: list[subprocess.Popen[bytes]] = []
    with _passing(events.put):
        try:
            for rank in range(number):
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                # In a session of its own, so that a ^C at the terminal reaches it once, from here.
                processes.append(
                    subprocess.Popen(
                        command, env={**os.environ, **shared, **own}, stdin=subprocess.DEVNULL, start_new_session=True
                    )
                )
                threading.Thread(target=_report_end, args=(processes[rank], rank, events.put), daemon=True).start()
            return _follow(processes, events, shared_store)
        finally:
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _passing(put: Callable[[tuple[str, int]], None]) -> Iterator[None]:
    """Puts the signals that come into a queue."""
    before = {number: signal.signal(number, lambda received, _: put(("signal", received))) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report_end(process: subprocess.Popen[bytes], rank: int, put: Callable[[tuple[str, int]], None]) -> None:
    process.wait()
    put(("end", rank))


def _follow(
    processes: Sequence[subprocess.Popen[bytes]], events: queue.SimpleQueue[tuple[str, int]], store: Any
) -> int:
    running, code, deadline = set(range(len(processes))), 0, float("inf")
    while running:
        try:
            kind, number = events.get(timeout=_seconds_to(deadline))
        except queue.Empty:
            for rank in running:
                os.killpg(processes[rank].pid, signal.SIGKILL)
            deadline = float("inf")
            continue
        if kind == "signal":
            for rank in running:
                processes[rank].send_signal(number)
            continue
        running.discard(number)
        if processes[number].returncode and not code:
            code, deadline = _tell_failure(processes[number], rank=number, store=store), time.monotonic() + _END_SECONDS
    return code


def _seconds_to(deadline: float) -> float | None:
    return None if deadline == float("inf") else max(0.0, deadline - time.monotonic())


def _tell_failure(process: subprocess.Popen[bytes], *, rank: int, store: Any) -> int:
    """Ends the other processes, says why where the one that failed could not, and returns the exit code."""
    if process.returncode < 0 and store.compare_set("speaker", "", "launcher") == b"launcher":
        name = signal.Signals(-process.returncode).name
        sys.stderr.write(
            f"error: rank {rank} (process {process.pid}) was ended by {name}. All processes end; the same command "
            "continues the run\n"
        )
    store.set("failed", "")
    store.set(f"peer/{rank}", json.dumps([-1, "failed", ""]))
    return process.returncode if process.returncode > 0 else 1
