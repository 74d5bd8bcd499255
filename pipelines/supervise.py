"""Running the pipeline in a process of its own, so that it can be watched, interrupted, and never hang.

Beam's local runner prints the chatter of its workers to stderr, leaves them behind when it is killed, and waits for
ever for one that died. Here it runs in a process group of its own, its output goes to `.work/beam.log`, and this
process watches it: when a worker is gone, when Beam fails, or when the user interrupts, the whole group is ended and
the reason is said.

    launcher ── runner ┬─ sh ── worker      one group, which the launcher ends; the runner ends it when the launcher is
                       └─ sh ── worker      gone, each worker when the runner is gone

All of them hold the lock on the output folder, as their stdin: the one descriptor that Beam passes on to its workers.
So the folder is free again only when the last process that writes to it has ended. A process that is stopped, or
hangs, is not dead: progress stands still, and nothing ends it but the user.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from bertdata.errors import BertDataError
from bertdata.uploads import LAUNCHER_VARIABLE
from bertdata.work import Work
from pipelines.output import PipelineOutput
from pipelines.processes import GO_ON, Workers, describe_exit

__all__ = ["run_supervised"]

_COMMAND = (sys.executable, "-m", "pipelines")
_POLL_SECONDS = 0.25
_CANCEL_SECONDS = 30.0
_STDERR = 2  # results alone go to stdout
_GRACE_SECONDS = 3.0  # for the runner to fail itself, with its reason, when a worker has ended


def run_supervised(
    work: Work, *, runner: str, num_workers: int, flags: Sequence[str], are_workers_here: bool = True
) -> None:
    """Runs the build's pipeline and waits for it.

    Args:
        work: A prepared build.
        runner: Name of the Beam runner.
        num_workers: Worker processes of FnApiRunner.
        flags: The user's own options for Beam.
        are_workers_here: Whether workers are processes of this machine, whose ids mean something here; what those of
            others print is the runner's to show.

    Raises:
        BertDataError: What a stage raised, that a process died, or that Beam failed.
        KeyboardInterrupt: This process was interrupted, or asked to end, which its argument SIGTERM says.
    """
    local = work.folder.local
    running = local / "running"
    shutil.rmtree(running, ignore_errors=True)
    if are_workers_here:  # else nobody is to leave word there, on a file system that all share
        running.mkdir(parents=True)
    # Beam removes its temporary folders only at a good end; here they go with the group, or with the next build.
    temporary = local / "tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    command = [*_COMMAND, str(os.getpid()), work.out, runner, str(num_workers), *flags]
    workers = Workers(running)
    with _terminable():
        source, sink = os.pipe()
        with open(sink, "wb", buffering=0) as end:  # noqa: PTH123 - a descriptor
            output = PipelineOutput(source, log=local / "beam.log", on_exit=workers.notice_exit)
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL if work.lock is None else work.lock,
                stdout=end if are_workers_here else _STDERR,
                stderr=end if are_workers_here else None,
                start_new_session=True,
                env={**os.environ, "TMPDIR": str(temporary.absolute()), LAUNCHER_VARIABLE: tempfile.gettempdir()},
            )
        with output:
            try:
                _watch(process, work=work, output=output, workers=workers)
            finally:
                _end_group(process, patience=0 if are_workers_here else _CANCEL_SECONDS)
                shutil.rmtree(temporary, ignore_errors=True)
    if process.returncode:
        _raise_failure(process, work=work, output=output, workers=workers, name=runner)


@contextmanager
def _terminable() -> Iterator[None]:
    """Has SIGTERM end what runs within like an interrupt, so that nothing is left behind."""
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(number)


def _watch(process: subprocess.Popen[bytes], *, work: Work, output: PipelineOutput, workers: Workers) -> None:
    """Waits for the process; raises when a worker is gone, or has failed, and Beam does not notice."""
    failing_since: float | None = None
    while True:
        try:
            process.wait(timeout=_POLL_SECONDS)
            return
        except subprocess.TimeoutExpired:
            pass
        if not (workers.are_gone() or output.error) or work.is_finished():
            failing_since = None
            continue
        failing_since = failing_since or time.monotonic()
        if time.monotonic() - failing_since > _GRACE_SECONDS:
            raise work.recorded_error() or output.error or BertDataError(f"{workers.describe_deaths()}. {GO_ON}")


def _raise_failure(
    process: subprocess.Popen[bytes], *, work: Work, output: PipelineOutput, workers: Workers, name: str
) -> None:
    """Raises why the pipeline's process, which has ended, did so."""
    if (recorded := work.recorded_error() or output.error) is not None:
        raise recorded
    if workers.were_killed:
        raise BertDataError(f"{workers.describe_deaths()}. {GO_ON}")
    if process.returncode < 0:
        how = describe_exit(process.returncode, out_of_memory=workers.ran_out_of_memory())
        doing = "; ".join(workers.tasks()) or "nothing yet"
        raise BertDataError(f"process {process.pid}, which runs {name}, {how}. Its workers were at: {doing}. {GO_ON}")
    raise BertDataError(f"{name} failed (exit status {process.returncode}):\n{output.tail()}\n{GO_ON}")


def _end_group(process: subprocess.Popen[bytes], *, patience: float) -> None:
    """Ends the pipeline and all its workers; a job on other machines has some seconds to be cancelled."""
    try:
        if patience and process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=patience)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
