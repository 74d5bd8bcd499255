"""Running the pipeline in a process of its own, so that it can be watched, interrupted, and never hang.

Beam's local runner prints the chatter of its workers to stderr, leaves them behind when it is killed, and waits for
ever for one that died. Here it runs in a process group of its own, its output goes to `.work/beam.log`, and this
process watches it: when a worker is gone, when Beam fails, or when the user interrupts, the whole group is ended and
the reason is said.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from bertdata.errors import BertDataError
from bertdata.meter import read_running
from bertdata.work import Work

__all__ = ["run_supervised"]

_POLL_SECONDS = 0.25
_GRACE_SECONDS = 5.0  # for Beam to report a dead worker itself, and to end after the last stage
_LOG_LINES = 20


def run_supervised(work: Work, *, runner: str, num_workers: int, flags: Sequence[str]) -> None:
    """Runs the build's pipeline and waits for it.

    Args:
        work: A prepared build.
        runner: Name of the Beam runner.
        num_workers: Worker processes of FnApiRunner.
        flags: The user's own options for Beam.

    Raises:
        BertDataError: What a stage raised, that a worker died, or that Beam failed.
        KeyboardInterrupt: This process was interrupted or asked to end.
    """
    local = work.folder.local
    running = local / "running"
    running.mkdir(parents=True, exist_ok=True)
    for path in running.iterdir():
        path.unlink()
    command = [sys.executable, "-m", "pipelines", str(os.getpid()), work.out, runner, str(num_workers), *flags]
    log = local / "beam.log"
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with log.open("wb") as output:
            is_local = runner == "FnApiRunner"
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output if is_local else None,
                stderr=output if is_local else None,
                start_new_session=True,
                pass_fds=[] if work.lock is None else [work.lock],  # it stays locked until the pipeline is gone
            )
        try:
            _watch(process, work)
        finally:
            _end_group(process)
    finally:
        signal.signal(signal.SIGTERM, previous)
    if process.returncode:
        recorded = work.recorded_error()
        if recorded is not None:
            raise recorded
        raise BertDataError(
            f"{runner} failed (exit status {process.returncode}):\n{_tail(log)}\n"
            "What is done is kept; run the same command again to go on."
        )


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:])


def _watch(process: subprocess.Popen[bytes], work: Work) -> None:
    """Waits for the process; raises when one of its workers is gone."""
    gone_since: float | None = None
    while True:
        try:
            process.wait(timeout=_POLL_SECONDS)
            return
        except subprocess.TimeoutExpired:
            pass
        gone = [path for path in (work.folder.local / "running").iterdir() if not _is_alive(int(path.name))]
        if not gone or work.is_finished():
            gone_since = None
            continue
        gone_since = gone_since or time.monotonic()
        if time.monotonic() - gone_since > _GRACE_SECONDS:
            doing = "; ".join(read_running(path).what or "between two tasks" for path in gone)
            recorded = work.recorded_error()
            raise recorded or BertDataError(
                f"a worker process died (last at: {doing}). It was killed or ran out of memory; with less memory, use "
                "fewer --num-workers. What is done is kept; run the same command again to go on."
            )


def _is_alive(pid: int) -> bool:
    """Returns whether a process runs; one that ended and was not waited for does not."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends the pipeline and all its workers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
