"""Locked files: a lock goes with its process, and does not go on in those that the process forks.

A fork shares open files with their locks, so a child would keep what its parent gives back, or loses by being killed.
All locked files are known here; a child closes them as soon as it is there, which those of its parent do not notice.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path
from types import TracebackType

__all__ = ["LockedFile", "remove_if_unlocked"]

_opening = threading.Lock()  # held while files are opened and closed, and over a fork
_descriptors: set[int] = set()


def _close_in_child() -> None:
    global _opening
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()
    _opening = threading.Lock()


os.register_at_fork(
    before=lambda: _opening.acquire(), after_in_parent=lambda: _opening.release(), after_in_child=_close_in_child
)


class LockedFile:
    """An open file that can be locked; used with `with`, or closed by hand.

    Args:
        path: The file.
        flags: As those of `os.open`.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path | str, flags: int = os.O_RDWR | os.O_CREAT) -> None:
        with _opening:
            self.descriptor = os.open(path, flags, 0o644)
            _descriptors.add(self.descriptor)
        self._pid = os.getpid()

    def lock(self, *, exclusive: bool) -> None:
        """Waits for the lock; where it is held already, for the other kind."""
        fcntl.flock(self.descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)

    def try_lock(self, *, exclusive: bool) -> bool:
        """Takes the lock if it is free, and returns whether it was."""
        try:
            fcntl.flock(self.descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Gives the lock back; a second time does nothing."""
        with _opening:
            if self._pid == os.getpid() and self.descriptor in _descriptors:
                _descriptors.discard(self.descriptor)
                os.close(self.descriptor)
            self._pid = 0

    def __enter__(self) -> LockedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def remove_if_unlocked(path: Path) -> bool:
    """Removes a file that nobody uses, and returns whether it is gone."""
    try:
        with LockedFile(path, os.O_RDWR) as file:
            if file.try_lock(exclusive=True):
                path.unlink(missing_ok=True)
                return True
    except FileNotFoundError:
        return True
    return False
