import io
import logging
import os
import pty
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tqdm.contrib.logging import logging_redirect_tqdm

from tests.trainer.test_tables import ROW
from trainer.display import Display, EpochTable


def epoch_row(step: int) -> dict[str, Any]:
    return {"kind": "epoch", "step": step, "epoch": step // 10, "loss": 8.5, "mlm_loss": 7.8, "nsp_loss": 0.7}


def eval_row(step: int, accuracy: float = 0.2) -> dict[str, Any]:
    return {"kind": "eval", "step": step, "mlm_loss": 5.0, "mlm_accuracy": accuracy, "num_samples": 9}


def train_row(step: int) -> dict[str, Any]:
    return ROW | {"step": step}


def shown(rows: list[dict[str, Any]]) -> list[list[str]]:
    lines: list[str] = []
    table = EpochTable(lines.append)
    for row in rows:
        table.add(row)
    table.flush()
    return [line.split() for line in lines]


def test_epochs_come_with_their_last_evaluation() -> None:
    rows = [eval_row(5, 0.1), epoch_row(10), eval_row(10, 0.2), train_row(15), eval_row(15, 0.3), epoch_row(20)]
    header, first, second = shown(rows)
    assert header[:2] == ["epoch", "step"]
    assert (first[1], first[-2]) == ("10", "20.0%")
    assert (second[1], second[-2]) == ("20", "30.0%")
    assert shown([epoch_row(10)])[1][-2:] == ["-", "-"]


def test_row_waits_for_the_evaluation_at_its_end_and_no_longer() -> None:
    lines: list[str] = []
    display = Display(max_steps=30, first_step=0, next_sentence=True, has_mfu=True, echo=lines.append)
    display.show(epoch_row(10))
    assert lines == []
    display.show(eval_row(10))
    display.advance()
    assert len(lines) == 2
    display.show(epoch_row(20))
    display.close()  # as in a run that is stopped
    assert len(lines) == 3


def test_continued_run_prints_the_whole_table() -> None:
    lines: list[str] = []
    rows = [epoch_row(10), eval_row(10), epoch_row(20)]
    display = Display(max_steps=30, first_step=25, next_sentence=True, has_mfu=True, echo=lines.append, rows=rows)
    assert [line.split()[1] for line in lines] == ["step", "10", "20"]
    display.show(epoch_row(30))
    display.close()
    assert [line.split()[1] for line in lines] == ["step", "10", "20", "30"]


def run(display: Display) -> None:
    for step in range(1, 31):
        display.advance()
        if step % 10 == 0:
            display.show(train_row(step))
            display.show(epoch_row(step))
            display.show(eval_row(step))
    display.close()


def evaluate(display: Display, monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation of 25 seconds."""
    for second in range(26):
        monkeypatch.setattr("time.monotonic", lambda now=1000.0 + second: now)
        display.show_evaluation(second / 26)


@contextmanager
def log_lines() -> Iterator[None]:
    """Logs to stderr as the command does."""
    handler = logging.StreamHandler(sys.stderr)
    root = logging.getLogger()
    level, handlers = root.level, root.handlers
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    try:
        with logging_redirect_tqdm():
            yield
    finally:
        root.handlers = handlers
        root.setLevel(level)


def test_files_get_lines_and_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    with log_lines():
        run(Display(max_steps=30, first_step=0, next_sentence=True, has_mfu=True, echo=print))
    assert "\r" not in out.getvalue() + err.getvalue()
    assert [line.split()[1] for line in out.getvalue().splitlines()] == ["step", "10", "20", "30"]
    lines = err.getvalue().splitlines()
    assert lines[0].split()[:3] == ["step", "epoch", "loss"]
    assert [line.split()[0] for line in lines[1:]] == ["10", "held", "20", "held", "30", "held"]


def test_long_evaluation_gets_lines_where_there_is_no_bar(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    display = Display(max_steps=30, first_step=0, next_sentence=True, has_mfu=True)
    with caplog.at_level(logging.INFO):
        evaluate(display, monkeypatch)
    assert [record.message for record in caplog.records] == ["evaluating, 38%", "evaluating, 77%"]


@pytest.mark.parametrize("columns", ["100", "60"])
def test_terminals_get_a_bar_as_wide_as_they_are(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    reading, writing = pty.openpty()
    monkeypatch.setenv("COLUMNS", columns)
    terminal = os.fdopen(writing, "w")
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("sys.stdout", terminal)
    with log_lines():
        display = Display(max_steps=30, first_step=0, next_sentence=True, has_mfu=True, echo=print)
        with monkeypatch.context() as patch:
            evaluate(display, patch)
        run(display)
    terminal.flush()
    os.set_blocking(reading, False)
    text = ""
    while True:
        try:
            text += os.read(reading, 1 << 16).decode()
        except BlockingIOError:
            break
    terminal.close()
    os.close(reading)
    bars = [part for line in text.split("\n") for part in line.split("\r") if "steps" in part]
    assert "30/30 steps" in bars[-1]
    assert any("evaluating, 38%" in bar for bar in bars)
    assert any("ETA 13h" in bar and "loss 9.764" in bar for bar in bars)
    assert max(len(bar) for bar in bars) <= int(columns)
    # Rows of the table stand between other lines here, so each has its titles.
    assert text.count("eval MLM") == 3
