"""The lock on an output folder: one build at a time writes to it."""

from __future__ import annotations

import fcntl
from pathlib import Path
from types import TracebackType

from bertdata.errors import OutputError
from bertdata.work import WORK

__all__ = ["Lock"]


class Lock:
    """Keeps a second launcher out of an output folder; used with `with`. It goes when its process does.

    Raises:
        OutputError: Another process holds it.
    """

    def __init__(self, out: str | Path) -> None:
        self._folder = Path(out) / WORK

    def __enter__(self) -> int:
        """Returns the descriptor of the lock; a process that inherits it holds the lock too."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = (self._folder / "lock").open("a")
        except OSError as error:
            raise OutputError(f"--out {self._folder.parent} cannot be written to: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise OutputError(
                f"another build is writing to {self._folder.parent}; wait for it, or give another --out"
            ) from error
        return self._file.fileno()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
