"""The lock on an output folder: one build at a time writes to it. In an object store it is a `bertdata.lease.Lease`."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from bertdata.errors import OutputError
from bertdata.lease import hold_lease
from bertdata.uris import is_uri
from bertdata.work import WORK

__all__ = ["Lock", "hold_lock"]

_WAIT_SECONDS = 1.0  # the workers of a launcher that was killed hold the lock until they have noticed
_POLL_SECONDS = 0.1


@contextmanager
def hold_lock(out: str) -> Iterator[int | None]:
    """Keeps a second launcher out of an output folder while the context lasts.

    Yields:
        The descriptor of the lock, which processes that inherit it hold too; None in an object store.

    Raises:
        OutputError: Another process holds it, or the folder cannot be written to.
    """
    if is_uri(out):
        with hold_lease(out):
            yield None
    else:
        with Lock(out) as descriptor:
            yield descriptor


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
        deadline = time.monotonic() + _WAIT_SECONDS
        while not self._try():
            if time.monotonic() > deadline:
                self._file.close()
                raise OutputError(
                    f"another build is writing to {self._folder.parent}; wait for it, or give another --out"
                )
            time.sleep(_POLL_SECONDS)
        return self._file.fileno()

    def _try(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
