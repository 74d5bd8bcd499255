import os
from pathlib import Path

import pytest
import torch

from trainer.metrics import MetricsFile, load_metrics, means, table


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [{"kind": "train", "step": step, "loss": 0.1 * step} for step in (2, 4, 6)]
    metrics = MetricsFile(path, last_step=0)
    for row in rows:
        metrics.append(row)
    metrics.close()
    assert load_metrics(path) == rows
    MetricsFile(path, last_step=4).close()
    assert load_metrics(path) == rows[:2]


def test_metrics_are_on_disk_after_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path, last_step=0)
    metrics.append({"kind": "train", "step": 1})
    synced: list[tuple[int, int]] = []
    monkeypatch.setattr("os.fsync", lambda file: synced.append((os.fstat(file).st_ino, os.fstat(file).st_size)))
    metrics.sync()
    assert synced == [(path.stat().st_ino, path.stat().st_size)]
    metrics.append({"kind": "train", "step": 2})
    metrics.close()
    assert [row["step"] for row in load_metrics(path)] == [1, 2]


def test_metrics_survive_a_torn_last_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train", "step": 1}\n{"kind": "tra')
    assert load_metrics(path) == [{"kind": "train", "step": 1}]
    metrics = MetricsFile(path, last_step=9)
    metrics.append({"kind": "train", "step": 2})
    metrics.close()
    assert [row["step"] for row in load_metrics(path)] == [1, 2]


def test_means_divide_sums_by_their_counts() -> None:
    sums = torch.tensor([30.0, 4.0, 10.0, 3.0, 3.0, 5.0, 99.0], dtype=torch.float64)
    assert means(sums, next_sentence=True) == {
        "loss": 3.6,
        "mlm_loss": 3.0,
        "mlm_accuracy": 0.4,
        "nsp_loss": 0.6,
        "nsp_accuracy": 0.6,
    }
    assert set(means(sums, next_sentence=False)) == {"loss", "mlm_loss", "mlm_accuracy"}


def test_table_has_a_line_per_epoch_with_the_latest_evaluation() -> None:
    rows = [
        {"kind": "train", "step": 5, "loss": 9.0},
        {"kind": "epoch", "step": 10, "epoch": 1, "loss": 8.5, "mlm_loss": 7.8, "nsp_loss": 0.7},
        {"kind": "eval", "step": 10, "mlm_accuracy": 0.123, "nsp_accuracy": 0.5},
        {"kind": "epoch", "step": 15, "epoch": 1.5, "loss": 8.0, "mlm_loss": 8.0},
    ]
    lines = [line.split() for line in table(rows).splitlines()]
    assert lines[1] == ["1", "10", "8.5000", "7.8000", "0.7000", "12.3%", "50.0%"]
    assert lines[2] == ["1.5", "15", "8.0000", "8.0000", "-", "-", "-"]
