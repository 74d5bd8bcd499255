"""What the processes of a pipeline print: kept in a log, and its end in memory too, because a disk may be full.

A stage's error is kept in the work folder, for the launcher to say. Where that cannot be written to, the error goes to
stderr, in a line of its own, which no full disk stops:

    bertdata error: {"kind": "OutputError", "message": "shards: No space left on device ..."}
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from bertdata import errors
from bertdata.errors import BertDataError
from bertdata.work import Work

__all__ = ["PipelineOutput", "report_error"]

_MARK = "bertdata error: "
_WORKER_ENDED = re.compile(r"Worker subprocess exited with return code (-?\d+)")  # as Beam words it
_KEPT_LINES = 20
_MAX_LINE_BYTES = 1 << 16


def report_error(work: Work, error: BertDataError) -> None:
    """Keeps an error for the launcher: in the work folder, or on stderr where that cannot be written to."""
    try:
        work.record_error(error)
    except (OSError, BertDataError):
        line = _MARK + json.dumps({"kind": type(error).__name__, "message": str(error)}) + "\n"
        os.write(2, line.encode())


class PipelineOutput:
    """Reads what a pipeline prints until all its processes have ended; used with `with`.

    Args:
        source: Descriptor of the end of a pipe; it is closed at the end of what comes.
        log: File that gets all of it, as long as it can be written to.
        on_exit: Called at once with the exit status of a worker process that did not end well.

    Attributes:
        error: An error that a stage could not keep in the work folder.
    """

    def __init__(self, source: int, *, log: Path, on_exit: Callable[[int], None]) -> None:
        self.error: BertDataError | None = None
        self._on_exit = on_exit
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._source = source
        self._log = log
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> PipelineOutput:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(timeout=1.0)  # a process of the user's own may have left the group, and hold the pipe

    def tail(self) -> str:
        """Returns the last lines, indented."""
        return "\n".join(f"  {line}" for line in list(self._lines))

    def _read(self) -> None:
        log: BinaryIO | None = None
        with contextlib.suppress(OSError):
            log = self._log.open("wb", buffering=0)
        with open(self._source, "rb") as source:  # noqa: PTH123 - a descriptor
            while data := source.readline(_MAX_LINE_BYTES):
                if log is not None:
                    try:
                        log.write(data)
                    except OSError:  # what is not in the log is still in memory, and the build itself will say why
                        log.close()
                        log = None
                self._notice(data.decode(errors="replace").rstrip("\n"))
        if log is not None:
            log.close()

    def _notice(self, line: str) -> None:
        if line.startswith(_MARK):
            with contextlib.suppress(ValueError, KeyError, AttributeError):  # two lines ran into each other
                values = json.loads(line[len(_MARK) :])
                kind: type[BertDataError] = getattr(errors, values["kind"])
                self.error = self.error or kind(values["message"])
                return
        if (match := _WORKER_ENDED.search(line)) is not None:
            self._on_exit(int(match[1]))
        self._lines.append(line)
