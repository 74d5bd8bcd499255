"""The lock on an output folder in an object store: a lease, which its owner renews as long as it runs.

    .work/lock      {"owner": "4c1f...", "count": 17, "host": "worker-3", "pid": 4711, "since": "2026-11-21 17:04:05"}

An object store has no locks, and a write replaces what was there. So the owner counts up every ten seconds. Another
launcher that finds a lease watches it: where the count moves, a build is at work and the launcher is refused; where it
stands still for a minute, its owner is gone, and the launcher takes the folder over. Who takes a free folder writes,
waits, and reads what is there: of two at once, the last one to write has it.

Clocks of machines are never compared. An owner that was held up for so long that others may have taken over ends with
an error; should both have worked for a moment, they have written the same bytes, or one of them had --overwrite.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

from bertdata.errors import BertDataError, OutputError
from bertdata.storage import Folder, child_place
from bertdata.store_folder import StoreFolder
from bertdata.uris import location_of
from bertdata.work import WORK

__all__ = ["Lease", "LeaseTimes", "hold_lease"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseTimes:
    """Times of a lease.

    Attributes:
        renew_seconds: From one renewal to the next.
        expire_seconds: Without a renewal, after which others take over.
        settle_seconds: From writing a lease to reading it again.
    """

    renew_seconds: float = 10.0
    expire_seconds: float = 60.0
    settle_seconds: float = 2.0


TIMES = LeaseTimes()

_TIMEOUT_SECONDS = 10.0
_MAX_FAILURES = 2  # a lease is renewed again soon anyway


@dataclass(frozen=True, kw_only=True, slots=True)
class _Record:
    """What the lease says: who holds it, and how often it was renewed."""

    owner: str
    count: int
    host: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


def _end_this_process() -> None:
    """Interrupts the main thread as Ctrl-C does, or where that is ignored as `kill` does."""
    is_heard = signal.getsignal(signal.SIGINT) == signal.default_int_handler
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT if is_heard else signal.SIGTERM)


class Lease:
    """Keeps a second launcher out of an output folder; used with `with`.

    Args:
        folder: The folder that the lease lies in.
        where: What the output folder is called in messages.
        times: How long everything takes.
        on_loss: Called, in another thread, when the lease is lost.

    Raises:
        OutputError: Another launcher holds it; at the end, that it was lost.
    """

    def __init__(
        self,
        folder: Folder,
        *,
        where: str,
        times: LeaseTimes | None = None,
        on_loss: Callable[[], None] = _end_this_process,
    ) -> None:
        self._folder = folder
        self._where = where
        self._times = times or TIMES
        self._on_loss = on_loss
        now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        owner = secrets.token_hex(16)
        self._own = _Record(owner=owner, count=0, host=socket.gethostname(), pid=os.getpid(), since=now)
        self._problem: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> None:
        """Takes the lease, which may last a minute where it was left behind."""
        if (found := self._read()) is not None:
            self._wait_for_its_end(found)
        while True:
            started = time.monotonic()
            self._write()
            # Who was slow may have written over a lease that another launcher had read again already. At its next
            # renewal that one sees it, and ends.
            is_slow = time.monotonic() - started > self._times.settle_seconds / 2
            time.sleep(self._times.settle_seconds + (2 * self._times.renew_seconds if is_slow else 0))
            found = self._read()
            if found is not None:
                break
        if found.owner != self._own.owner:
            raise self._refusal(found)
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Gives the lease back."""
        self._stop.set()
        self._thread.join()
        if self._problem is not None:
            raise OutputError(f"{self._problem}. What is done is kept; look which build is to go on.") from error
        try:
            found = self._read()
            if found is not None and found.owner == self._own.owner:
                self._folder.remove(["lock"])
                self._folder.remove_if_empty()
        except (BertDataError, OSError) as problem:
            _LOG.info("the lock on %s could not be given back, so the next build will wait: %s", self._where, problem)

    def _read(self) -> _Record | None:
        try:
            return _Record(**json.loads(self._folder.read("lock")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise OutputError(
                f"{self._folder.location}/lock is no lock of a build ({error}); remove it if no build is at work there"
            ) from error

    def _write(self) -> None:
        self._folder.write("lock", json.dumps(dataclasses.asdict(self._own)).encode())

    def _refusal(self, found: _Record) -> OutputError:
        return OutputError(f"another build is writing to {self._where}: {found}; wait for it, or give another --out")

    def _wait_for_its_end(self, found: _Record) -> None:
        """Watches another one's lease until it is given back or no longer renewed.

        Raises:
            OutputError: It is renewed.
        """
        _LOG.info(
            "%s is held by another build: %s; waiting up to %.0f s to see whether it is still at work",
            *(self._where, found, self._times.expire_seconds),
        )
        end = time.monotonic() + self._times.expire_seconds
        while time.monotonic() < end:
            time.sleep(min(1.0, self._times.renew_seconds / 4))
            seen = self._read()
            if seen is None:
                return
            if seen != found:
                raise self._refusal(seen)
        _LOG.info("%s: the other build is not at work any more; going on", self._where)

    def _keep(self) -> None:
        """Renews the lease until it is given back, or lost."""
        renewed = time.monotonic()
        while self._problem is None and not self._stop.wait(self._times.renew_seconds):
            try:
                found = self._read()
                if found is None:
                    self._problem = f"the lock on {self._where} was removed by another build"
                elif found.owner != self._own.owner:
                    self._problem = f"another build has taken over {self._where}: {found}"
                else:
                    self._own = dataclasses.replace(self._own, count=self._own.count + 1)
                    self._write()
                    renewed = time.monotonic()
                    continue
            except (BertDataError, OSError) as error:
                _LOG.info("the lock on %s cannot be renewed: %s", self._where, error)
                if time.monotonic() - renewed < 0.75 * self._times.expire_seconds:
                    continue
                self._problem = f"the lock on {self._where} could not be renewed in time ({error})"
            _LOG.error("%s", self._problem)
            self._on_loss()


@contextmanager
def hold_lease(out: str) -> Iterator[None]:
    """Holds the lease on an output folder in an object store while the context lasts.

    Raises:
        OutputError: Another launcher holds it, or the folder cannot be written to; at the end, that it was lost.
    """
    # With a process of its own, so that nothing else is waited for.
    folder = StoreFolder(child_place(out, WORK), timeout=_TIMEOUT_SECONDS, max_failures=_MAX_FAILURES)
    try:
        with Lease(folder, where=location_of(out)):
            yield
    finally:
        folder.close()
