"""What a run shows while it goes on: lines in the log, a bar where there is a terminal, and the table of epochs.

Lines and bar go to stderr, the table to where the caller wants it: each row when its epoch, and the evaluation at its
end, are done.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence

from tqdm import tqdm

from trainer.tables import (
    Row,
    TrainLines,
    describe_evaluation,
    epoch_header,
    epoch_line,
    format_count,
    format_seconds,
)

__all__ = ["Display", "EpochTable"]

_log = logging.getLogger(__name__)

_LINES_PER_HEADER = 20
_LINE_SECONDS = 10.0  # between lines about an evaluation
_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps, {elapsed}{postfix}"


class EpochTable:
    """Prints a row for each epoch, beside the last evaluation within it.

    Args:
        echo: Takes a line.
    """

    def __init__(self, echo: Callable[[str], None]) -> None:
        self._echo = echo
        self._has_header = False
        self._epoch: Row | None = None
        self._evaluation: Row | None = None

    def add(self, row: Row) -> None:
        """Takes a row of any kind, in the order of the file."""
        if self._epoch is not None and row["step"] > self._epoch["step"]:
            self.flush()
        if row["kind"] == "eval":
            self._evaluation = row
        elif row["kind"] == "epoch":
            self.flush()
            self._epoch = row

    def flush(self) -> None:
        """Prints the row of an epoch whose evaluation, if any, has come."""
        if self._epoch is None:
            return
        if not self._has_header:
            self._echo(epoch_header())
        self._echo(epoch_line(self._epoch, self._evaluation))
        self._has_header, self._epoch, self._evaluation = True, None, None

    def repeat_header(self) -> None:
        """Lets the titles stand above the next row again."""
        self._has_header = False


class Display:
    """Shows a run; used by its first process.

    Args:
        max_steps: Steps of the whole run.
        first_step: Steps done before.
        next_sentence: Whether next sentences are predicted.
        has_mfu: Whether rows of training have an "mfu".
        echo: Takes the lines of the table of epochs; None for no table.
        rows: Of the run so far; their epochs come first in the table.
    """

    def __init__(
        self,
        *,
        max_steps: int,
        first_step: int,
        next_sentence: bool,
        has_mfu: bool,
        echo: Callable[[str], None] | None = None,
        rows: Sequence[Row] = (),
    ) -> None:
        columns = _columns()
        self._is_terminal = columns is not None
        self._lines = TrainLines(next_sentence=next_sentence, has_mfu=has_mfu, max_width=columns)
        self._num_lines = 0
        self._shown, self._ends_at = "", 0.0
        self._line_due = 0.0
        self._table = EpochTable(lambda line: _print_beside_bars(echo, line)) if echo else None
        for row in rows:
            if self._table is not None:
                self._table.add(row)
        self.flush()
        self._bar = tqdm(
            total=max_steps,
            initial=first_step,
            disable=not self._is_terminal,
            ncols=columns,
            nrows=20,  # of terminals that say they have none, tqdm would hide the bar
            bar_format=_BAR,
            file=sys.stderr,
        )

    def advance(self) -> None:
        """Shows that a step is done."""
        self.flush()
        self._update_bar()
        self._bar.update()

    def show(self, row: Row) -> None:
        """Shows a row of any kind."""
        if self._table is not None:
            self._table.add(row)
        if row["kind"] == "train":
            if self._num_lines % _LINES_PER_HEADER == 0:
                self._log_line(self._lines.header)
            self._num_lines += 1
            self._log_line(self._lines.line(row))
            self._shown = f"loss {row['loss']:.3f}, {format_count(row['tokens_per_second'])} tokens/s"
            self._ends_at = time.monotonic() + (row["eta_seconds"] or 0.0)
            self._update_bar()
        elif row["kind"] == "eval":
            self._log_line(describe_evaluation(row))

    def show_evaluation(self, share: float) -> None:
        """Shows how far an evaluation is: at the bar, or where there is none in a line every ten seconds."""
        if share == 0:
            self._line_due = time.monotonic() + _LINE_SECONDS
        if self._is_terminal:
            self._bar.set_postfix_str(f"evaluating, {share:.0%}")
        elif time.monotonic() >= self._line_due:
            self._line_due += _LINE_SECONDS
            self._log_line(f"evaluating, {share:.0%}")

    def flush(self) -> None:
        """Shows what has waited for an evaluation that did not come."""
        if self._table is not None:
            self._table.flush()

    def close(self) -> None:
        """Ends the bar and the table."""
        self._bar.close()
        self.flush()

    def _update_bar(self) -> None:
        if self._shown:
            left = format_seconds(max(0.0, self._ends_at - time.monotonic()))
            self._bar.set_postfix_str(f"ETA {left}, {self._shown}", refresh=False)

    def _log_line(self, text: str) -> None:
        _log.info("%s", text)
        if self._table is not None and self._is_terminal and sys.stdout.isatty():
            self._table.repeat_header()  # it has lines between its rows there, and none in a file


def _print_beside_bars(echo: Callable[[str], None], line: str) -> None:
    with tqdm.external_write_mode(file=sys.stdout):
        echo(line)


def _columns() -> int | None:
    """Returns how wide the terminal of stderr is; None where stderr is none, or does not know its width."""
    if not sys.stderr.isatty():
        return None
    if os.environ.get("COLUMNS", "").isdecimal():
        return int(os.environ["COLUMNS"]) or None
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or None
    except (OSError, ValueError):
        return None
