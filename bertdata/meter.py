"""What a process is at, and how far: counted by the stages, left in a small file, read by the launcher.

    running/4711    tokenize_portion 3
                    {"documents": 120, "memory": 312000512, "read_bytes": 1048576}

The first line is empty between two tasks. A stage calls `count` wherever it has got on; where nobody watches, as in a
serial build, that does nothing. The file is written over in place, at one length and at most every 0.4 s, so that it is
never empty, costs nothing that could be measured, and needs no other file beside it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Meter", "Running", "count", "metering", "peak_memory", "read_running"]

REPORT_SECONDS = 0.4
_FILE_BYTES = 2048
_MAX_WHAT_BYTES = 1024
_ACTIVE = threading.local()  # a process may run several tasks at once, in threads


class Meter:
    """Counts what is done within a task, and leaves word of it.

    Args:
        what: The task.
        path: File to leave word in; None to only count.

    Attributes:
        counts: What was counted, by name.
    """

    def __init__(self, what: str, *, path: Path | None) -> None:
        self.counts: Counter[str] = Counter()
        self._what = what
        self._path = path
        self._due = 0.0

    def add(self, **amounts: int) -> None:
        """Adds to the counts of these names."""
        for name, amount in amounts.items():
            self.counts[name] += amount
        if self._path is not None and time.monotonic() >= self._due:
            self.report()

    def report(self) -> None:
        """Writes the file, if there is one."""
        if self._path is not None:
            self._due = time.monotonic() + REPORT_SECONDS
            _write(self._path, self._what, self.counts)

    def end(self) -> None:
        """Says in the file that the task is done."""
        if self._path is not None:
            _write(self._path, "", Counter())


@contextmanager
def metering(what: str, *, path: Path | None) -> Iterator[Meter]:
    """Has `count` add to a meter in this thread; after an exception its file still says what the task was.

    Args:
        what: The task, in one line.
        path: File to leave word in; None to only count.
    """
    meter = Meter(what, path=path)
    meter.report()
    before: Meter | None = getattr(_ACTIVE, "meter", None)
    _ACTIVE.meter = meter
    try:
        yield meter
    finally:
        _ACTIVE.meter = before
    meter.end() if before is None else before.report()


def count(**amounts: int) -> None:
    """Adds to what the present task of this thread has done, for whoever watches.

    Args:
        amounts: read_bytes (of input, as stored), documents, sentences, tokens, portions, pairs, planned_pairs (of the
            shard at hand), shards, shard_bytes.
    """
    meter: Meter | None = getattr(_ACTIVE, "meter", None)
    if meter is not None:
        meter.add(**amounts)


def _write(path: Path, what: str, counts: Counter[str]) -> None:
    values = json.dumps(dict(counts) | {"memory": peak_memory()}, sort_keys=True)
    first = what.replace("\n", " ").encode()[:_MAX_WHAT_BYTES]
    data = b"%s\n%s" % (first, values.encode())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    except FileNotFoundError:  # the launcher has ended, and took the folder away
        return
    try:
        os.pwrite(descriptor, data.ljust(_FILE_BYTES, b"\n"), 0)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """What a process is at.

    Attributes:
        what: The task; empty between two tasks.
        counts: What has been done of it, by name.
        memory: Peak memory of the process in bytes; 0 where it is not known.
    """

    what: str
    counts: dict[str, int]
    memory: int


def read_running(path: Path) -> Running:
    """Returns what the process is at whose file `path` is; nothing where the file is gone or half written."""
    try:
        first, _, rest = path.read_bytes().partition(b"\n")
        values = json.loads(rest) if rest.strip() else {}
    except (OSError, ValueError):
        return Running(what="", counts={}, memory=0)
    memory = values.pop("memory", 0)
    return Running(what=first.decode(errors="replace"), counts=values, memory=memory)


def peak_memory() -> int:
    """Returns the most memory that this process has had, in bytes.

    Linux keeps it per program (VmHWM); what `getrusage` gives there begins with the memory of the process that started
    this one.
    """
    try:
        with Path("/proc/self/status").open("rb") as file:
            for line in file:
                if line.startswith(b"VmHWM:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
