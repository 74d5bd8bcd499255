"""Progress of a file that is read or fetched: a bar on stderr, or plain lines where stderr is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

__all__ = ["ByteProgress"]

_LINE_SECONDS = 10.0


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
