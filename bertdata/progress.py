"""Progress of a build: a bar on stderr, or plain lines where stderr is no terminal."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import threading
import time
from dataclasses import dataclass
from itertools import chain
from types import TracebackType

from tqdm import tqdm

from bertdata.build_state import BuildState, Snapshot
from bertdata.errors import BertDataError
from bertdata.eta import RemainingTime
from bertdata.meter import peak_memory
from bertdata.work import Work

__all__ = ["Progress", "Took", "describe", "describe_briefly", "format_seconds"]

_LOG = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_LINE_SECONDS = 10.0
_PATIENCE_SECONDS = 2.0
_WIDE = "|{bar:16}| {desc} [{elapsed}]"
_WIDE_CHARS = 30  # but for the words
_NARROW = "|{bar:5}| {desc}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Took:
    """What a run of a build took.

    Attributes:
        seconds: From its start to its end.
        read_bytes: Bytes of input, as stored, in the portions that it tokenized.
        portions: Portions of the input that it tokenized.
        portions_found: Those that an earlier run had tokenized.
        shards: Shards that it built.
        shards_found: Those that an earlier run had built.
        worker_memory: Peak memory of a worker in bytes; 0 where it is not known.
        launcher_memory: Peak memory of this process in bytes.
    """

    seconds: float
    read_bytes: int
    portions: int
    portions_found: int
    shards: int
    shards_found: int
    worker_memory: int
    launcher_memory: int


class Progress:
    """Shows how far a build is while the stages run, in this process or others; used with `with`.

    Args:
        work: The build.
    """

    def __init__(self, work: Work) -> None:
        self._state = BuildState(work)
        self._remaining = RemainingTime(chain.from_iterable(work.portions), options=work.options)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started = time.monotonic()
        self._ended: float | None = None

    def __enter__(self) -> Progress:
        self._found = self._last = self._state.update()
        if self._found.portions or self._found.shards:
            print(f"going on: {_describe_found(self._found)}", file=sys.stderr, flush=True)  # noqa: T201
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        # What ended a build, as a store that does not answer, may keep the thread too; nobody waits for that.
        self._thread.join(timeout=None if kind is None else _PATIENCE_SECONDS)
        self._ended = time.monotonic()

    def took(self) -> Took:
        """Returns what this run took, once it has ended."""
        found, last = self._found, self._last
        found_bytes = found.read_bytes if found.shares["tokenizing"] else 0
        found_portions = found.portions if found.shares["tokenizing"] else 0
        return Took(
            seconds=(self._ended or time.monotonic()) - self._started,
            read_bytes=last.read_bytes - found_bytes,
            portions=last.portions - found_portions,
            portions_found=found_portions,
            shards=last.shards - found.shards,
            shards_found=found.shards,
            worker_memory=self._state.worker_memory,
            launcher_memory=peak_memory(),
        )

    def _update(self) -> Snapshot:
        """Returns how far the build is."""
        now = time.monotonic()
        try:
            snapshot = self._state.update(fresh=self._stop.is_set())
        except (BertDataError, OSError) as error:  # of a store that does not answer; the build itself may go on
            _LOG.info("progress cannot be read at the moment: %s", error)
            snapshot = self._last
        if snapshot.stage == self._last.stage:  # between a task's end and its record, less seems done
            kept = {
                name: max(getattr(snapshot, name), getattr(self._last, name))
                for name in ("read_bytes", "documents", "pairs")
            }
            snapshot = dataclasses.replace(snapshot, **kept)
        self._last = snapshot
        self._remaining.update(snapshot, now=now, num_workers=len(self._state.workers))
        return snapshot

    def _describe(self, snapshot: Snapshot, *, max_chars: int | None = None) -> str:
        rate = self._remaining.share_per_second() * snapshot.input_bytes
        seconds_left = self._remaining.seconds()
        text = describe(snapshot, bytes_per_second=rate, seconds_left=seconds_left)
        if max_chars is None or len(text) <= max_chars:
            return text
        return describe_briefly(snapshot, bytes_per_second=rate, seconds_left=seconds_left)

    def _run(self) -> None:
        if sys.stderr.isatty() and _columns() != 0:  # some pseudo-terminals say that they have none
            self._run_bar()
        else:
            self._run_lines()

    def _run_bar(self) -> None:
        with tqdm(total=1.0, file=sys.stderr, bar_format=_WIDE, dynamic_ncols=True) as bar:
            stopped = False
            while not stopped:
                stopped = self._stop.wait(_POLL_SECONDS)
                snapshot = self._update()
                columns = _columns()
                room = None if columns is None else columns - _WIDE_CHARS
                text = self._describe(snapshot, max_chars=room)
                bar.n = self._remaining.share_done
                bar.bar_format = _WIDE if room is None or len(text) <= room else _NARROW
                bar.set_description_str(text)  # and shows it

    def _run_lines(self) -> None:
        stage, due = "", 0.0
        while not self._stop.wait(_POLL_SECONDS):
            snapshot = self._update()
            now = time.monotonic()
            if snapshot.stage != stage or now >= due:
                stage, due = snapshot.stage, now + _LINE_SECONDS
                text = self._describe(snapshot)
                print(f"[{now - self._started:6.1f} s] {text}", file=sys.stderr, flush=True)  # noqa: T201
        self._update()


def _columns() -> int | None:
    """Returns how wide the terminal of stderr is; None where that is not known."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return None


def _describe_found(found: Snapshot) -> str:
    verb = "have been read for their words" if found.stage == "reading words" else "are done"
    portions = f"{found.portions:,} of {found.num_portions:,} portions"
    shards = f", {found.shards:,} of {found.num_shards:,} shards" if found.num_shards is not None else ""
    return f"{portions}{shards} {verb}"


def _describe_stage(snapshot: Snapshot) -> str:
    if snapshot.stage == "reading words" and not snapshot.read_bytes:
        return "starting workers"
    if snapshot.stage in ("reading words", "tokenizing"):
        return f"{snapshot.stage} {snapshot.portions:,}/{snapshot.num_portions:,}"
    if snapshot.num_shards is not None:
        return f"{snapshot.stage} {snapshot.shards:,}/{snapshot.num_shards:,}"
    return snapshot.stage


def describe(snapshot: Snapshot, *, bytes_per_second: float, seconds_left: float | None) -> str:
    """Returns how far a build is in a line.

    Args:
        snapshot: How far it is.
        bytes_per_second: Of input, in the present stage; 0 where it is not known.
        seconds_left: Remaining seconds; None where they are not known.
    """
    share = snapshot.read_bytes / max(1, snapshot.input_bytes)
    rate = f"{bytes_per_second / 1e6:.1f} MB/s" if bytes_per_second else "-- MB/s"
    return (
        f"{_describe_stage(snapshot)}: "
        f"read {snapshot.read_bytes / 1e6:,.1f} of {snapshot.input_bytes / 1e6:,.1f} MB ({share:.0%}), "
        f"{snapshot.documents:,} documents, {snapshot.pairs:,} pairs, {rate}, ETA {format_seconds(seconds_left)}"
    )


def describe_briefly(snapshot: Snapshot, *, bytes_per_second: float, seconds_left: float | None) -> str:
    """Returns the same in fewer characters, with what may be cut off at the end; see `describe`."""
    rate = f"{bytes_per_second / 1e6:.1f} MB/s" if bytes_per_second else "-- MB/s"
    return (
        f"{_describe_stage(snapshot)}, ETA {format_seconds(seconds_left)}, {rate}, {_short(snapshot.pairs)} pairs, "
        f"{_short(snapshot.documents)} docs, read {snapshot.read_bytes / max(1, snapshot.input_bytes):.0%}"
    )


def _short(number: int) -> str:
    """Returns a number in few characters: 980, 98.8k, 6.9M."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)


def format_seconds(seconds: float | None) -> str:
    """Returns a time as minutes and seconds, or hours too; --:-- for one that is not known."""
    if seconds is None:
        return "--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"
