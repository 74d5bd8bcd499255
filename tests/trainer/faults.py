"""Real processes of bert-train that a signal hits at a chosen point. They are forked from one that has imported all."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import pathlib
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

import trainer.checkpoint
import trainer.distributed
import trainer.peers
import trainer.run_folder
import trainer.train
from bertdata.errors import TrainingError
from trainer.cli import main
from trainer.metrics import TIMES, load_metrics
from trainer.signals import StopSignals

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["tests.trainer.faults"])

POINTS = ("step", "evaluate", "write", "rename", "remove", "export")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to a process when it comes to a point for the n-th time: a signal, unless it is something else."""

    point: str
    signal: signal.Signals = signal.SIGTERM
    lock_seconds: float = 0.0
    error: str = ""
    number: int = 1
    rank: int = 0
    repeats: int = 1

    def arm(self) -> None:
        if self.point == "step":
            self._before(trainer.train, "backward")
        elif self.point == "evaluate":
            self._within_evaluation()
        elif self.point == "evaluation":
            self._before(trainer.train, "evaluate")
        elif self.point == "write":
            self._before(trainer.checkpoint._Sink, "write")
        elif self.point == "rename":
            self._before(pathlib.Path, "replace", only=lambda path, *_: ".pt." in path.name)
        elif self.point == "remove":
            self._before(trainer.checkpoint, "remove_durably")
        elif self.point == "export":
            self._before(trainer.train, "export_model")
        else:
            raise ValueError(self.point)

    def _before(self, owner: Any, name: str, *, only: Callable[..., bool] = lambda *_: True) -> None:
        hit, function = self._hitter(), getattr(owner, name)

        def wrapper(*arguments: Any, **options: Any) -> Any:
            if only(*arguments):
                hit()
            return function(*arguments, **options)

        setattr(owner, name, wrapper)

    def _within_evaluation(self) -> None:
        hit, evaluate = self._hitter(), trainer.train.evaluate

        def wrapper(model: Any, *arguments: Any, **options: Any) -> Any:
            hook = model.register_forward_pre_hook(lambda *_: hit())
            try:
                return evaluate(model, *arguments, **options)
            finally:
                hook.remove()

        trainer.train.evaluate = wrapper  # type: ignore[assignment]

    def _hitter(self) -> Callable[[], None]:
        noted, times, ask = threading.Event(), [0], StopSignals.ask

        def note(self: StopSignals, reason: str) -> None:
            ask(self, reason)
            noted.set()

        StopSignals.ask = note  # type: ignore[method-assign]

        def hit() -> None:
            times[0] += 1
            if times[0] == self.number and self.lock_seconds:
                ctypes.PyDLL(None).usleep(int(self.lock_seconds * 1e6))  # with Python's lock held
            elif times[0] == self.number and self.error:
                raise TrainingError(self.error)
            elif times[0] == self.number:
                for _ in range(self.repeats):
                    os.kill(os.getpid(), self.signal)
                noted.wait(timeout=60)

        return hit


def run_here(
    arguments: Sequence[str], environment: dict[str, str], log: str, faults: Sequence[Fault], times: dict[str, float]
) -> None:
    """What a forked process does."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    os.environ.update(environment)
    torch.set_num_threads(1)
    if times:
        trainer.peers.TIMES = trainer.peers.PeerTimes(**times)
        trainer.distributed._MEETING_SECONDS = 60.0  # for one that was killed before it came, which a launcher sees
    for fault in faults:
        if fault.rank == int(environment.get("RANK", "0")):
            fault.arm()
    main(list(arguments), prog_name="bert-train")


class Run:
    """A run of one or more processes, without a launcher."""

    def __init__(
        self,
        arguments: Sequence[object],
        *,
        logs: Path,
        processes: int = 1,
        faults: Sequence[Fault] = (),
        times: dict[str, float] | None = None,
    ) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        self.logs = [logs / f"{rank}.log" for rank in range(processes)]
        self.processes: list[ForkServerProcess] = []
        for rank in range(processes):
            environment = shared | {"RANK": str(rank), "LOCAL_RANK": "0"} if processes > 1 else {}
            process = FORK.Process(
                target=run_here,
                args=([str(one) for one in arguments], environment, str(self.logs[rank]), list(faults), times or {}),
            )
            process.start()
            self.processes.append(process)

    def wait(self, timeout: float = 120) -> list[int | None]:
        """Returns the exit codes; negative ones are signals."""
        for process in self.processes:
            process.join(timeout)
            if process.exitcode is None:
                process.kill()
                raise AssertionError(f"a process has not ended: {self.text()}")
        return [process.exitcode for process in self.processes]

    def text(self, rank: int | None = None) -> str:
        """Returns what the processes have written."""
        logs = self.logs if rank is None else [self.logs[rank]]
        return "\n".join(log.read_text() if log.exists() else "" for log in logs)


def state_of(out: Path) -> tuple[list[dict[str, Any]], bytes]:
    """Returns what a finished run leaves: its rows without times, and the exported weights."""
    rows = load_metrics(out / "metrics.jsonl")
    kept = [{name: value for name, value in row.items() if name not in TIMES} for row in rows]
    return json.loads(json.dumps(kept)), (out / "hf" / "model.safetensors").read_bytes()
