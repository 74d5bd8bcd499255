"""Progress of a build, and of a file: a bar on stderr, or plain lines where stderr is no terminal."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType

from tqdm import tqdm

from bertdata.work import Work

__all__ = ["ByteProgress", "Progress"]

_POLL_SECONDS = 0.5
_LINE_SECONDS = 10.0


class Progress:
    """Shows how far a build is while the stages run, in this process or others; used with `with`.

    Args:
        work: The build.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started = time.monotonic()

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _state(self) -> tuple[str, int, int | None]:
        """Returns the stage, how many of its records are done, and how many there are (None: not known yet)."""
        folder, num_splits = self._work.folder, len(self._work.portions)

        def done(inner: str) -> int:
            return sum(name.endswith(".json") for name in folder.names(inner))

        if not folder.has("tokenizer.json"):
            if self._work.options.tokenizer.path is not None:
                return "starting", 0, None
            num_words = done("words")
            return ("reading words", num_words, num_splits) if num_words < num_splits else ("vocabulary", 0, None)
        num_tokenized = done("splits")
        if num_tokenized < num_splits:
            return "tokenizing splits", num_tokenized, num_splits
        total = len(self._work.read("plan.json")["tasks"]) if self._work.has("plan.json") else None
        return "building shards", sum(done(f"shards/{length}") for length in self._work.options.max_seq_lengths), total

    def _run(self) -> None:
        if sys.stderr.isatty():
            self._run_bar()
        else:
            self._run_lines()

    def _run_bar(self) -> None:
        bar = tqdm(total=0, file=sys.stderr, unit="", bar_format="{desc:<18}|{bar:30}| {n_fmt}/{total_fmt} [{elapsed}]")
        stage = ""
        while True:
            name, num_done, total = self._state()
            if name != stage:
                stage = name
                bar.reset(total=total or 0)
                bar.set_description_str(name)
            bar.total = total or 0
            bar.n = num_done
            bar.refresh()
            if self._stop.wait(_POLL_SECONDS):
                break
        bar.close()

    def _run_lines(self) -> None:
        shown: tuple[str, int, int | None] | None = None
        due = 0.0
        while not self._stop.wait(_POLL_SECONDS):
            state = self._state()
            now = time.monotonic()
            if shown is None or state[0] != shown[0] or now >= due:
                shown, due = state, now + _LINE_SECONDS
                name, num_done, total = state
                count = f" {num_done}/{total}" if total else ""
                print(f"[{now - self._started:6.1f} s] {name}{count}", file=sys.stderr, flush=True)  # noqa: T201


class ByteProgress:
    """Shows how far a file has been read or fetched; used with `with`.

    Args:
        name: What is shown.
        total: Bytes in all, if known.
        initial: Bytes that are done already.
    """

    def __init__(self, name: str, *, total: int | None, initial: int = 0) -> None:
        self._name = name
        self._total = total
        self._done = initial
        self._started = self._shown = time.monotonic()
        self._bar = tqdm(
            total=total,
            initial=initial,
            desc=name,
            file=sys.stderr,
            unit="B",
            unit_scale=True,
            disable=not sys.stderr.isatty(),
        )

    def __enter__(self) -> ByteProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._bar.disable:
            self._print_line()

    def advance(self, num_bytes: int) -> None:
        """Adds to what is done; a negative number takes back what turned out void."""
        self._done += num_bytes
        self._bar.update(num_bytes)
        if self._bar.disable and time.monotonic() >= self._shown + _LINE_SECONDS:
            self._shown = time.monotonic()
            self._print_line()

    def _print_line(self) -> None:
        total = f" / {self._total / 1e6:,.1f}" if self._total is not None else ""
        seconds = time.monotonic() - self._started
        print(f"[{seconds:6.1f} s] {self._name} {self._done / 1e6:,.1f}{total} MB", file=sys.stderr, flush=True)  # noqa: T201
