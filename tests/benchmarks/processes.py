"""A command and all processes that it starts, watched from outside: memory, CPU time, and who is at what when.

The launcher is the command itself, the runner the process that it starts for the pipeline, and a worker every process
that says in `.work/running` what it is at. All is read from /proc every 50 ms: no watched process knows of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["IDLE", "Run", "Span", "descendants", "watch"]

SAMPLE_SECONDS = 0.05
PROCESSES_SECONDS = 0.2
DISK_SECONDS = 0.5
IDLE = "between tasks"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A task of a worker.

    Attributes:
        worker: Number of the worker, from 1 on.
        stage: Name of the stage.
        task: What of it.
        start: Seconds since the command was started.
        stop: The same, of its end.
    """

    worker: int
    stage: str
    task: str
    start: float
    stop: float


@dataclass(kw_only=True)
class Run:
    """What a command took.

    Attributes:
        seconds: Of the clock, from start to end.
        status: Its exit status.
        error: What it wrote to stderr.
        peak: Most resident bytes of one process, by role.
        peak_by_stage: The same by (role, stage of a worker).
        cpu: CPU seconds of all processes by stage of the process that took them.
        spans: All tasks, in the order of their ends.
        num_workers: How many processes had tasks.
        peak_disk: Most bytes that lay in the output folder, the work folder included.
    """

    seconds: float = 0.0
    status: int | None = None
    error: str = ""
    peak: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    peak_by_stage: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    cpu: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    spans: list[Span] = field(default_factory=list)
    num_workers: int = 0
    peak_disk: int = 0


def descendants(pid: int) -> Iterator[int]:
    """Yields a process and all that it started, directly or not."""
    yield pid
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from descendants(int(child))


def _memory(pid: int) -> tuple[int, int]:
    """Returns the resident bytes of a process, and the most that they ever were."""
    now = most = 0
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            now = int(line.split()[1]) * 1024
        elif line.startswith("VmHWM"):
            most = int(line.split()[1]) * 1024
    return now, most


def _disk_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # it may be gone by now
            total += path.lstat().st_size
    return total


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _role(pid: int, *, launcher: int, parent: int) -> str:
    if pid == launcher:
        return "launcher"
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    if b"pipelines" in command and parent == launcher:
        return "runner"
    for name, role in ((b"store_process", "reader of a store"), (b"sdk_worker", "worker, starting")):
        if any(name in word for word in command) and command[0] not in (b"sh", b"/bin/sh"):
            return role
    return "other"


class _Watch:
    """Samples the processes of one command."""

    def __init__(self, launcher: int, *, out: Path) -> None:
        self.run = Run()
        self._launcher = launcher
        self._out = out
        self._running = out / ".work" / "running"
        self._disk_due = self._processes_due = 0.0
        self._pids: list[int] = []
        self._started = time.monotonic()
        self._workers: dict[int, int] = {}
        self._at: dict[int, tuple[str, float]] = {}  # what each worker is at, and since when
        self._cpu: dict[int, float] = {}
        self._roles: dict[int, str] = {}

    def sample(self) -> None:
        now = time.monotonic() - self._started
        self._read_tasks(now)
        if now >= self._processes_due:  # to look through all processes takes longer than to look at ours
            self._processes_due = now + PROCESSES_SECONDS
            self._pids = list(descendants(self._launcher))
        for pid in self._pids:
            with contextlib.suppress(OSError):
                self._read_process(pid)
        if now >= self._disk_due:
            self._disk_due = now + DISK_SECONDS
            self.run.peak_disk = max(self.run.peak_disk, _disk_bytes(self._out))
        self.run.seconds = now

    def close(self) -> Run:
        """Ends all tasks that were still running."""
        for pid in list(self._at):
            self._end_task(pid, self.run.seconds)
        self.run.num_workers = len(self._workers)
        return self.run

    def _read_tasks(self, now: float) -> None:
        with contextlib.suppress(OSError):  # the folder comes and goes
            for path in self._running.iterdir():
                if not path.name.isdigit():
                    continue
                pid = int(path.name)
                self._workers.setdefault(pid, len(self._workers) + 1)
                task = path.read_text().partition("\n")[0]
                if self._at.get(pid, ("", 0.0))[0] != task:
                    self._end_task(pid, now)
                    self._at[pid] = (task, now)

    def _end_task(self, pid: int, now: float) -> None:
        task, since = self._at.pop(pid, ("", now))
        if task:
            stage, _, what = task.partition(" ")
            self.run.spans.append(Span(worker=self._workers[pid], stage=stage, task=what, start=since, stop=now))

    def _read_process(self, pid: int) -> None:
        if pid not in self._roles:
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            self._roles[pid] = _role(pid, launcher=self._launcher, parent=parent)
        role = self._roles[pid]
        if pid in self._workers:
            role = f"worker {self._workers[pid]}"
        stage = (self._at.get(pid, ("", 0.0))[0].partition(" ")[0] or IDLE) if pid in self._workers else role
        rss, peak = _memory(pid)
        self.run.peak[role] = max(self.run.peak[role], peak)
        self.run.peak_by_stage[role, stage] = max(self.run.peak_by_stage[role, stage], rss)
        cpu = _cpu_seconds(pid)
        self.run.cpu[stage] += cpu - self._cpu.get(pid, 0.0)
        self._cpu[pid] = cpu


def watch(command: Sequence[str], *, out: Path, timeout_seconds: float = 7200.0) -> Run:
    """Runs a build and watches it.

    Args:
        command: The whole command line of a build.
        out: The folder that it writes to.
        timeout_seconds: When to give up.

    Returns:
        What it took, whatever its exit status.
    """
    log = out.with_name(f"{out.name}.stderr")
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
        watching = _Watch(process.pid, out=out)
        try:
            while process.poll() is None:
                watching.sample()
                if watching.run.seconds > timeout_seconds:
                    raise TimeoutError(f"{' '.join(command)} takes more than {timeout_seconds:.0f} s")
                time.sleep(SAMPLE_SECONDS)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait()
    run = watching.close()
    run.status, run.error = process.returncode, log.read_text(errors="replace")
    log.unlink()
    return run
