"""What the processes of a run know of each other: who is at work, has failed, is asked to stop, or is gone.

Each process writes a line a second to the store through which the processes have met, and reads the lines of all:

    peer/0   [17, "runs", ""]
    peer/1   [17, "stops", "SIGTERM"]
    peer/2   [16, "failed", ""]

Collectives cannot tell: over NCCL they wait for a process that is gone, over gloo they name a port. The lines are
written by a thread, which needs Python's lock for an instant only, so a process that compiles, evaluates or saves for
minutes still beats. Where a process is gone or has failed, the others end, wherever their main threads are; one of all
says why. Times are counted by rounds of one's own, so that a process that was itself suspended blames no other.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from bertdata.errors import TrainingError
from trainer.signals import StopSignals

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

__all__ = ["PeerTimes", "Peers", "meet"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerTimes:
    """Times of the watch.

    Attributes:
        beat_seconds: From one line to the next.
        silent_seconds: Without a new line, after which a process counts as gone.
        stopping_seconds: The same, where the run is asked to stop, or a connection has broken.
        yield_seconds: That a failed process waits for the first one to fail, too, and to say it.
        farewell_seconds: That the process with the store waits for the others to end.
    """

    beat_seconds: float = 1.0
    silent_seconds: float = 30.0
    stopping_seconds: float = 10.0
    yield_seconds: float = 2.5
    farewell_seconds: float = 10.0


TIMES = PeerTimes()

_READS_PER_BEAT = 100
"""Lines that a process reads in the time of a beat, at most: among more processes it reads more rarely."""


def meet(store: Store, *, rank: int, size: int, name: str, timeout_seconds: float) -> list[str]:
    """Waits until all processes have come to the store.

    Args:
        store: The store of the rendezvous.
        rank: Number of this process.
        size: Number of processes.
        name: What to call this process.
        timeout_seconds: How long to wait.

    Returns:
        The names of all.

    Raises:
        TrainingError: Some have not come; names their ranks.
    """
    store.set(_key(rank), json.dumps([0, "runs", name]))
    until = time.monotonic() + timeout_seconds
    while missing := [number for number in range(size) if not store.check([_key(number)])]:
        if time.monotonic() > until:
            if rank != min(set(range(size)) - set(missing)):
                sys.exit(1)  # another one says it
            raise TrainingError(
                f"of {size} processes, those of rank {', '.join(map(str, missing))} have not come within "
                f"{timeout_seconds:.0f} s; see whether they have started, and with the same MASTER_ADDR and MASTER_PORT"
            )
        _end_with_others(store)
        time.sleep(0.1)
    names = [json.loads(line)[2] for line in store.multi_get([_key(number) for number in range(size)])]
    store.set(f"met/{rank}", "")
    until = time.monotonic() + TIMES.silent_seconds
    while not store.check([f"met/{number}" for number in range(size)]):  # from here on lines are states
        if time.monotonic() > until:
            gone = [name for number, name in enumerate(names) if not store.check([f"met/{number}"])]
            raise TrainingError(f"{', '.join(gone)} came to where the processes meet, and is gone; start them again")
        _end_with_others(store)
        time.sleep(0.01)
    return names


def _end_with_others(store: Store) -> None:
    if store.check(["failed"]):
        sys.exit(1)


def _key(rank: int) -> str:
    return f"peer/{rank}"


class Peers:
    """The watch over the processes of a run, in two threads; used with `with`.

    Args:
        store: A connection to the store of the rendezvous, for this watch alone; all processes have met there.
        rank: Number of this process.
        names: What to call each process in messages, such as "rank 1 (gpu-07, process 4711)".
        stop: Is asked to stop when another process is.
        store_name: What to call the store in messages.
        store_rank: The process that the store goes with; None where it is a launcher's.
    """

    def __init__(
        self,
        store: Store,
        *,
        rank: int,
        names: list[str],
        stop: StopSignals,
        store_name: str,
        store_rank: int | None,
    ) -> None:
        self._store = store
        self._rank = rank
        self._names = names
        self._keys = [_key(number) for number in range(len(names))]
        self._stop = stop
        self._store_name = store_name
        self._store_rank = store_rank
        self._state = ("runs", "")
        self._count = 0
        self._lines: list[list[Any]] = [[0, "runs", ""]] * len(names)
        self._silence = [0.0] * len(names)
        self._round = 0
        self._has_broken = False
        self._ending = threading.Lock()
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._talk, "peers"), (self._watch_store, "peers-store"))
        ]

    def __enter__(self) -> Peers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Says goodbye; who holds the store waits until the others have, too."""
        self._ending.acquire()  # for good: from here on nobody's end is ours
        self._say("bye")
        self._await_ends()
        self._is_over.set()
        for thread in self._threads:
            thread.join(timeout=TIMES.beat_seconds)

    def fail(self, *, is_broken_connection: bool) -> bool:
        """Tells the others that this process has failed, which ends them.

        A connection that breaks is the sign of another process's end: that one is waited for, and named instead.

        Args:
            is_broken_connection: Whether it may be a consequence of another process's end.

        Returns:
            Whether this process shall say what has happened; False where another one says the same, or the cause.
        """
        if is_broken_connection:
            self._has_broken = True
            # A thread ends this process within the time, if there is a cause.
            time.sleep(TIMES.stopping_seconds + 5 * TIMES.beat_seconds)
        self._ending.acquire()
        with contextlib.suppress(RuntimeError):
            self._store.set("failed", "")
        self._say("failed")
        waited_until = time.monotonic() + (TIMES.yield_seconds if self._rank else 0)
        while time.monotonic() < waited_until and not self._has_speaker():
            time.sleep(0.1)
        return self._claim_speech()

    def end(self) -> NoReturn:
        """Ends a process that has failed, when the others have ended.

        Nothing is unwound: groups of processes that are broken can wait for ever when they are closed.
        """
        self._say("ended")
        self._await_ends()
        os._exit(1)

    def _beat(self) -> None:
        self._count += 1
        self._store.set(self._keys[self._rank], json.dumps([self._count, *self._state]))

    def _read(self) -> list[list[Any]]:
        return [json.loads(line) for line in self._store.multi_get(self._keys)]

    def _say(self, state: str) -> None:
        self._state = (state, "")
        with contextlib.suppress(RuntimeError):  # without the store nobody is left who might read it
            self._beat()

    def _has_speaker(self) -> bool:
        try:
            return self._store.check(["speaker"])
        except RuntimeError:
            return False

    def _claim_speech(self) -> bool:
        """Returns whether this process is the one of all that says why the run ends."""
        own = str(self._rank)
        try:
            return bool(self._store.compare_set("speaker", "", own) == own.encode())
        except RuntimeError:  # without the store: the first one that has not gone with it
            return self._rank == (1 if self._store_rank == 0 else 0)

    def _await_ends(self) -> None:
        """Waits until the others have ended, where they would miss the store that goes with this process."""
        if self._store_rank != self._rank:
            return
        now = time.monotonic()
        until, counts, changed = now + TIMES.farewell_seconds, [0] * len(self._names), [now] * len(self._names)
        while now < until:
            is_there = False
            for rank, (count, state, _) in enumerate(self._read()):
                if count != counts[rank]:
                    counts[rank], changed[rank] = count, now
                is_silent = now - changed[rank] > 3 * TIMES.beat_seconds
                is_there |= rank != self._rank and state not in ("ended", "bye") and not is_silent
            if not is_there:
                return
            time.sleep(TIMES.beat_seconds / 10)
            now = time.monotonic()

    def _talk(self) -> None:
        last, every = time.monotonic(), -(-len(self._names) // _READS_PER_BEAT)
        while not self._is_over.wait(TIMES.beat_seconds):
            if self._stop.reason is not None and self._state[0] == "runs":
                self._state = ("stops", self._stop.reason)
            try:
                self._beat()
                self._round += 1
                if self._count % every:
                    continue
                lines = self._read()
            except RuntimeError as error:
                holder = self._lines[self._store_rank or 0]
                if holder[1] not in ("failed", "ended", "bye"):  # else it was to be expected
                    self._end(f"{self._store_name} is gone")
                elif holder[1] != "bye":
                    self._end(None)
                _log.debug("the watch over the processes ends: %s", error)
                return
            now = time.monotonic()
            passed, last = min(now - last, 2 * every * TIMES.beat_seconds), now
            for rank, line in enumerate(lines):
                self._silence[rank] = 0.0 if line[0] != self._lines[rank][0] else self._silence[rank] + passed
            self._lines = lines
            self._judge()

    def _limit(self) -> float:
        return TIMES.stopping_seconds if self._stop.is_asked or self._has_broken else TIMES.silent_seconds

    def _judge(self) -> None:
        limit = self._limit()
        for rank, (_, state, text) in enumerate(self._lines):
            if rank == self._rank or state == "bye":
                continue
            if state == "stops":
                self._stop.ask(f"{text} at {self._names[rank]}")
            elif state == "failed":
                self._end(None)
            elif state == "ended":
                self._end(f"{self._names[rank]} has ended")
            elif self._silence[rank] > limit:
                self._end(f"{self._names[rank]} is gone: nothing was heard of it for {self._silence[rank]:.0f} s")

    def _watch_store(self) -> None:
        """Notices a store that neither answers nor closes its connection, as when its machine has lost power."""
        last, silence, last_round = time.monotonic(), 0.0, 0
        while not self._is_over.wait(TIMES.beat_seconds):
            now = time.monotonic()
            passed, last = min(now - last, 2 * TIMES.beat_seconds), now
            silence = silence + passed if self._round == last_round else 0.0
            last_round = self._round
            if silence > self._limit() and self._threads[0].is_alive():
                self._end(f"{self._store_name} has not answered for {silence:.0f} s")

    def _end(self, message: str | None) -> None:
        """Ends this process, unless it is ending already; None where the one that failed says why."""
        if not self._ending.acquire(blocking=False):
            return
        if message is not None and self._claim_speech():
            # Not through sys.stderr, the lock of which the main thread may hold.
            os.write(2, f"\nerror: {message}. All processes end; the same command continues the run\n".encode())
        self.end()
