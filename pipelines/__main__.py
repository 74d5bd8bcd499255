"""The process in which `bertdata build` runs: python -m pipelines LAUNCHER OUT RUNNER NUM_WORKERS [BEAM OPTION ...]."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

_POLL_SECONDS = 0.2
_LINES = 8


def _end_with(launcher: int) -> None:
    """Ends this process and its workers when the launcher is gone."""
    while os.getppid() == launcher:
        time.sleep(_POLL_SECONDS)
    os.killpg(0, signal.SIGKILL)


def _end_of(error: Exception) -> str:
    """Returns the last lines of an error that a runner gives, indented: its text has the traceback of a worker."""
    lines = str(error).strip().splitlines()[-_LINES:] or [type(error).__name__]
    return "\n".join(f"  {line}" for line in lines)


def main() -> None:
    """Runs the pipeline; a stage's own error is in the work folder already, so it needs no traceback."""
    launcher, out, runner, num_workers, *flags = sys.argv[1:]
    threading.Thread(target=_end_with, args=(int(launcher),), daemon=True).start()

    # Beam takes seconds to import, and the launcher may die meanwhile.
    from bertdata.errors import BertDataError
    from bertdata.work import Work
    from pipelines.build import build_on_beam
    from pipelines.output import report_error
    from pipelines.processes import GO_ON, RUNNER_VARIABLE

    os.environ[RUNNER_VARIABLE] = str(os.getpid())
    if runner != "FnApiRunner":
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job on other machines is cancelled first
    work = Work.load(out)
    try:
        build_on_beam(work, runner=runner, num_workers=int(num_workers), flags=flags)
    except BertDataError as error:
        report_error(work, error)
        sys.exit(1)
    except Exception as error:
        if runner != "FnApiRunner":  # of that one, the launcher shows the end of its log
            report_error(work, BertDataError(f"{runner} failed:\n{_end_of(error)}\n{GO_ON}"))
        raise


if __name__ == "__main__":
    main()
