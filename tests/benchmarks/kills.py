"""Builds killed at random moments and run again: what was lost, what was said, and whether the result is the same."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.processes import descendants

__all__ = ["TARGETS", "Kill", "digests", "kill_and_go_on"]

TARGETS = ("worker", "launcher", "all")
_LONGEST_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    """One build that was killed and run again.

    Attributes:
        target: A worker, the launcher, or all processes at once.
        moment: Seconds after the start.
        stages: What the killed workers were at.
        end_seconds: Until no process of the build was left.
        said: What the launcher said last, if it lived.
        was_named: Whether it named the process or task that died; None where the launcher was killed too, or where the
            death came too late to matter.
        num_done: Splits and shards that were done by then, words of splits included.
        num_redone: How many of them were done again.
        is_same: Whether the result is that of an undisturbed build, byte for byte.
        left_over: Temporary files that outlived the second run.
    """

    target: str
    moment: float
    stages: tuple[str, ...]
    end_seconds: float
    said: str
    was_named: bool | None
    num_done: int
    num_redone: int
    is_same: bool
    left_over: tuple[str, ...]


def digests(out: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file of a build but those in its work folder."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".work" not in path.relative_to(out).parts
    }


def _records(out: Path) -> dict[str, tuple[int, int]]:
    """Returns the records of what is done, each with what would change if it were written again."""
    found = {}
    for pattern in ("words/*.json", "splits/*.json", "shards/*/*.json"):
        for path in (out / ".work").glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                found[str(path.relative_to(out))] = (status.st_ino, status.st_mtime_ns)
    return found


def _tasks(out: Path) -> dict[int, str]:
    """Returns what each worker is at, by its process id."""
    tasks = {}
    with contextlib.suppress(FileNotFoundError):
        for path in sorted((out / ".work" / "running").iterdir()):
            if path.name.isdigit():
                tasks[int(path.name)] = path.read_text().partition("\n")[0]
    return tasks


def _pick_victims(draw: random.Random, *, target: str, launcher: int, tasks: dict[int, str]) -> list[int]:
    below = [pid for pid in descendants(launcher) if pid != launcher]
    if target == "launcher":
        return [launcher]
    if target == "all":
        return [launcher, *below]
    candidates = sorted(tasks) or sorted(below)  # before there are workers: whatever was started
    return [draw.choice(candidates)] if candidates else [launcher]


def _wait_until_gone(pids: Sequence[int]) -> None:
    deadline = time.monotonic() + _LONGEST_SECONDS
    while any(_is_running(pid) for pid in pids):
        if time.monotonic() > deadline:
            raise TimeoutError(f"of the processes {pids} some are left after {_LONGEST_SECONDS:.0f} s")
        time.sleep(0.02)


def _is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def kill_and_go_on(
    command: Sequence[str], *, out: Path, target: str, seed: int, seconds: float, expected: dict[str, str]
) -> Kill:
    """Starts a build, kills some of it, and runs it again to the end.

    Args:
        command: The whole command line; it keeps the work folder.
        out: The folder that it writes to, which is removed first.
        target: One of `TARGETS`.
        seed: Decides the moment, and the victim among several.
        seconds: How long an undisturbed build takes.
        expected: `digests` of an undisturbed build.
    """
    draw = random.Random(seed)
    moment = draw.uniform(0.02, 0.95) * seconds
    while True:
        shutil.rmtree(out, ignore_errors=True)
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            break
        moment *= 0.8  # it was faster than usual
        process.communicate()
    tasks = _tasks(out)
    everyone = list(descendants(process.pid))
    victims = _pick_victims(draw, target=target, launcher=process.pid, tasks=tasks)
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    _, said = process.communicate(timeout=_LONGEST_SECONDS)
    _wait_until_gone(everyone)
    end_seconds = time.monotonic() - killed
    done = _records(out)
    subprocess.run(command, check=True, capture_output=True, timeout=_LONGEST_SECONDS)
    after = _records(out)
    names = [str(pid) for pid in victims] + [task for pid in victims if (task := tasks.get(pid))]
    return Kill(
        target=target,
        moment=moment,
        stages=tuple(sorted({task.partition(" ")[0] for pid in victims if (task := tasks.get(pid))})),
        end_seconds=end_seconds,
        said=said.strip().splitlines()[-1] if said.strip() else "",
        was_named=any(name in said for name in names) if process.returncode == 1 else None,
        num_done=len(done),
        num_redone=sum(after.get(name) != facts for name, facts in done.items()),
        is_same=digests(out) == expected,
        left_over=tuple(str(path.relative_to(out)) for path in out.rglob("*.tmp")),
    )
