"""Imported by every Python process whose PYTHONPATH begins with this folder: makes faults happen in it.

It imports nothing but the standard library, because it runs before anything else.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
import signal
import sys
from collections.abc import Sequence

VARIABLE = "BERTDATA_TEST_FAULTS"
_SEPARATOR = "\x1f"

_CHANGES = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0, "os.rmdir": 0}  # which argument is the path that changes


class Fault:
    """What is to happen when a file is about to be changed.

    Args:
        action: "kill" (SIGKILL), "stop" (SIGSTOP) or "full" (the disk is full).
        event: "write" (it is opened for writing), "rename" (to that path), "remove", "mkdir" or "rmdir"; * for any.
        path: Pattern of the path.
    """

    def __init__(self, action: str, event: str, path: str) -> None:
        self.action = action
        self.event = event
        self.path = path

    @staticmethod
    def join(faults: Sequence[Fault]) -> str:
        """Returns faults as the value of the environment variable."""
        return "\n".join(_SEPARATOR.join([fault.action, fault.event, fault.path]) for fault in faults)

    def meets(self, event: str, path: str) -> bool:
        """Returns whether this is the moment."""
        return fnmatch.fnmatchcase(event, self.event) and fnmatch.fnmatchcase(path, self.path)

    def act(self, path: str) -> None:
        """Does it."""
        if self.action == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        os.kill(os.getpid(), signal.SIGKILL if self.action == "kill" else signal.SIGSTOP)


def change_of(event: str, arguments: Sequence[object]) -> tuple[str, str] | None:
    """Returns what an audit event says is about to change, as event and path; None where it changes nothing."""
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, (str, bytes)) and isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return "write", os.fsdecode(path)
        return None
    if event in _CHANGES:
        path = arguments[_CHANGES[event]]
        return event.removeprefix("os."), os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
    return None


def install(faults: Sequence[Fault]) -> None:
    """Makes the faults happen in this process."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        change = change_of(event, arguments)
        if change is not None:
            for fault in faults:
                if fault.meets(*change):
                    fault.act(change[1])

    sys.addaudithook(hook)


with contextlib.suppress(KeyError):
    install([Fault(*line.split(_SEPARATOR)) for line in os.environ[VARIABLE].split("\n")])
