import importlib.util
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bertdata.errors import TrainingError
from trainer.tensorboard import TensorBoard


def row(step: int, *, kind: str = "train", loss: float = 0.5) -> dict[str, Any]:
    return {"kind": kind, "step": step, "epoch": step / 8, "loss": loss * step, "eta_seconds": None}


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(str(folder))
    found.Reload()
    return {name: [(event.step, event.value) for event in found.Scalars(name)] for name in found.Tags()["scalars"]}


def test_curves_are_named_and_grouped(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path / "tensorboard", last_step=0)
    for number in (1, 2):
        board.append(row(number))
    board.append(row(2, kind="eval", loss=2.0))
    board.close()
    assert curves(tmp_path / "tensorboard") == {
        "train/loss": [(1, 0.5), (2, 1.0)],
        "train/epoch": [(1, 0.125), (2, 0.25)],
        "eval/loss": [(2, 4.0)],
        "eval/epoch": [(2, 0.25)],
    }


def test_curves_of_a_continued_run_are_not_doubled(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, last_step=0)
    for number in (2, 4, 6):
        board.append(row(number))
    board.close()
    board = TensorBoard(tmp_path, last_step=4, rows=[row(2), row(4)])
    for number in (6, 8):
        board.append(row(number, loss=3.0))
    board.close()
    assert curves(tmp_path)["train/loss"] == [(2, 1.0), (4, 2.0), (6, 18.0), (8, 24.0)]


def test_curves_that_begin_late_have_what_was_before(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, last_step=4, rows=[row(2), row(4)])
    board.append(row(6))
    board.close()
    assert curves(tmp_path)["train/loss"] == [(2, 1.0), (4, 2.0), (6, 3.0)]


def test_missing_package_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else found(name))
    with pytest.raises(TrainingError, match=r"not installed; run pip install 'bertdata\[tensorboard\]'"):
        TensorBoard(tmp_path / "tensorboard", last_step=0)
    assert not (tmp_path / "tensorboard").exists()
