"""The processes of a pipeline: whether they live, why they died, and that none outlives the one that started it."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

__all__ = ["GO_ON", "RUNNER_VARIABLE", "Workers", "describe_exit", "end_group_with", "is_alive"]

RUNNER_VARIABLE = "BERTDATA_RUNNER_PID"
"""Name of the environment variable that tells workers on this machine which process runs the pipeline."""

GO_ON = "What is done is kept; run the same command again to go on."
"""The advice after every death and failure that a second run may mend."""

_POLL_SECONDS = 0.2
_VMSTAT = Path("/proc/vmstat")


def is_alive(pid: int) -> bool:
    """Returns whether a process runs; one that ended and was not waited for does not, one that is stopped does."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except PermissionError:
        return True
    except (ProcessLookupError, FileNotFoundError):
        return False


def _num_out_of_memory_kills() -> int:
    """Returns how many processes the system has ended for want of memory since it started; 0 where it does not tell."""
    try:
        lines = _VMSTAT.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def describe_exit(code: int | None, *, out_of_memory: bool) -> str:
    """Returns how a process ended, in words that follow its name.

    Args:
        code: Its exit status; -9 or 137 where signal 9 ended it, the second where a shell tells; None if not known.
        out_of_memory: The system ended some process for want of memory while it ran.
    """
    if code is None:
        return "died: it was killed, or ran out of memory"
    number = -code if code < 0 else code - 128
    if number <= 0:
        return f"ended with exit status {code}"
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"ended with exit status {code}"
    if number != signal.SIGKILL:
        return f"was killed by signal {number} ({name})"
    reason = "the system ran out of memory" if out_of_memory else "perhaps for want of memory"
    return f"was killed by signal {number} ({name}), {reason}"


class Workers:
    """The worker processes of a pipeline, as far as they have begun a task.

    Args:
        folder: Has a file for each, named by its id, with what it is at in the first line, empty between two tasks.

    Attributes:
        were_killed: A signal has ended one.
    """

    def __init__(self, folder: Path) -> None:
        self.were_killed = False
        self._folder = folder
        self._codes: list[int] = []
        self._deaths: list[str] = []
        self._num_kills = _num_out_of_memory_kills()

    def notice_exit(self, code: int) -> None:
        """Takes notice that one has ended, with this exit status."""
        self.are_gone()  # now, because the others end too as soon as the runner does
        self._codes.append(code)
        self.were_killed = self.were_killed or not 0 <= code <= 128

    def are_gone(self) -> bool:
        """Returns whether any is gone; keeps which were the first."""
        if not self._deaths:
            found = [
                f"{path.name} (at {task or 'nothing, between two tasks'})"
                for path, task in self._tasks()
                if not is_alive(int(path.name))
            ]
            self._deaths = self._deaths or found  # two threads look
        return bool(self._deaths or self._codes)

    def ran_out_of_memory(self) -> bool:
        """Returns whether the system has ended some process for want of memory meanwhile."""
        return _num_out_of_memory_kills() > self._num_kills

    def describe_deaths(self) -> str:
        """Returns which are gone, at what, and why."""
        codes = set(self._codes)
        how = describe_exit(codes.pop() if len(codes) == 1 else None, out_of_memory=self.ran_out_of_memory())
        who = f"worker process {', '.join(self._deaths)}" if self._deaths else "a worker process that had no task yet"
        return f"{who} {how}. With less memory, use fewer --num-workers"

    def tasks(self) -> list[str]:
        """Returns what they are at."""
        return [task for _, task in self._tasks() if task]

    def _tasks(self) -> list[tuple[Path, str]]:
        paths = [path for path in sorted(self._folder.glob("*")) if path.name.isdigit()]
        return [(path, path.read_text(errors="replace").partition("\n")[0]) for path in paths]


def _end_when_gone(pid: int) -> None:
    while is_alive(pid):
        time.sleep(_POLL_SECONDS)
    os.killpg(0, signal.SIGKILL)


def end_group_with(pid: int) -> None:
    """Has this process and its group end when the process `pid`, which leads the group, is gone; does not wait for it.

    Only the leader of a group is watched, so that nothing but the pipeline's own processes can be ended.
    """
    if pid != os.getpid() and pid == os.getpgrp():
        threading.Thread(target=_end_when_gone, args=(pid,), daemon=True).start()
