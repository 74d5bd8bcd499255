"""Killing builds: at every change of the file system, at chosen points of real processes, and at random moments.

Python tells its audit hooks of every file that it opens, renames and removes, before it does so. `Fault` names one such
moment and what is to happen then; it acts within this process (`act`), or, passed on by an environment variable, in
every Python process of a real command (`environment`): those import `sitecustomize` of the folder `faults` when they
start. So what is tested is the real program, and what happens does not depend on how fast it runs.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.pipelines.faults.sitecustomize import VARIABLE, Fault

__all__ = [
    "Fault",
    "Killed",
    "build_command",
    "environment",
    "group_of",
    "kill_at_random",
    "processes_of",
    "records_of",
    "start",
    "wait_for",
]

FAULTS = Path(__file__).parent / "faults"


def environment(*faults: Fault, temporary: Path | None = None) -> dict[str, str]:
    """Returns the environment of a command in whose processes the faults happen."""
    values = dict(os.environ)
    paths = [str(Path(__file__).resolve().parents[2]), *filter(None, [values.get("PYTHONPATH")])]
    if faults:
        paths.insert(0, str(FAULTS))
        values[VARIABLE] = Fault.join(faults)
    values["PYTHONPATH"] = os.pathsep.join(paths)
    if temporary is not None:
        values["TMPDIR"] = str(temporary)
    return values


def build_command(inputs: Path, out: Path, *options: str) -> list[str]:
    """Returns the command that builds `inputs` into `out`."""
    return [sys.executable, "-m", "bertdata", "build", "--input", str(inputs), "--out", str(out), *options]


def start(command: Sequence[str], *, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts a command as a shell does in the foreground: SIGINT and SIGTERM act on it."""

    def default_signals() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)

    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=default_signals
    )


def wait_for(condition: Callable[[], object], *, seconds: float = 60.0) -> None:
    """Waits until a condition holds; fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for has not come"
        time.sleep(0.02)


def processes_of(group: int) -> dict[int, str]:
    """Returns the state (R, S, T, ...) of each process in a group by its id, zombies left out; Linux only."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found[int(path.parent.name)] = fields[0]
    return found


def group_of(launcher: int) -> int | None:
    """Returns the process group of the pipeline that a launcher runs; None while there is none."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == launcher and fields[2] == path.parent.name:
            return int(path.parent.name)
    return None


def records_of(out: Path) -> dict[str, tuple[int, int]]:
    """Returns inode and time of what a build has finished: the records, by which it knows, and the shards."""
    work = out / ".work"
    paths = [*work.glob("words/*.json"), *work.glob("tokenizer.json"), *work.glob("splits/*.json")]
    for record in work.glob("shards/*/*.json"):
        shard = record.name.removesuffix(".json")
        paths += [record, *(path for path in (out / shard, out / record.parent.name / shard) if path.exists())]
    return {str(path.relative_to(out)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


class Killed:
    """What `kill_at_random` did.

    Attributes:
        what: launcher, runner, worker or group.
        after: Seconds after the start of the command.
        ended: Seconds after the signal until the launcher and all processes of the pipeline were gone.
        returncode: The launcher's exit status; 0 where it had ended before.
        stderr: What it said.
    """

    def __init__(self, *, what: str, after: float, ended: float, returncode: int, stderr: str) -> None:
        self.what = what
        self.after = after
        self.ended = ended
        self.returncode = returncode
        self.stderr = stderr


def kill_at_random(
    command: Sequence[str], *, seed: int, longest: float, env: dict[str, str] | None = None
) -> Killed | None:
    """Runs a build and kills one of its processes, or all, at a random moment.

    Args:
        command: From `build_command`.
        seed: Decides the moment and what is killed: launcher, runner, a worker, or all of them at once.
        longest: Seconds within which the moment lies.
        env: From `environment`.

    Returns:
        What was done; None where the build had ended before.
    """
    draw = random.Random(seed)
    what, after = draw.choice(["launcher", "runner", "worker", "group"]), draw.uniform(0.0, longest)
    process = start(command, env=env)
    deadline = time.monotonic() + after
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    group = group_of(process.pid)
    members = sorted(processes_of(group)) if group is not None else []
    workers = [pid for pid in members if pid != group]
    victims = {
        "launcher": [process.pid],
        "runner": [group] if group is not None else [process.pid],
        "worker": [draw.choice(workers)] if workers else [process.pid],
        "group": [process.pid, *members],
    }[what]
    if process.poll() is not None:
        process.communicate()
        return None
    for pid in victims:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    killed = time.monotonic()
    _, stderr = process.communicate(timeout=60)
    if group is not None:
        wait_for(lambda: not processes_of(group), seconds=30)
    ended = time.monotonic() - killed
    return Killed(what=what, after=after, ended=ended, returncode=process.returncode, stderr=stderr)
