import os
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F

from bertdata.data_set import DataSet
from bertdata.errors import OutputError
from tests.trainer.oracle import unpack_step
from trainer.attention import _attend_padded, layout_of
from trainer.data import TrainingData
from trainer.loader import Loader
from trainer.metrics import MetricsFile, count_work, load_metrics, means


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


def test_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl", last_step=0)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, metrics._file.fileno())
    os.close(full)
    wanted = r"metrics.jsonl cannot be written \(.*No space left.*make room and run the same command again"
    for action in (lambda: metrics.append({"step": 1}), metrics.sync, metrics.close):
        with pytest.raises(OutputError, match=wanted):
            action()
    assert metrics._file.closed
    with pytest.raises(OutputError, match=r"metrics.jsonl cannot be written"):
        MetricsFile(tmp_path / "absent" / "metrics.jsonl", last_step=0)


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


@pytest.mark.parametrize("pads_attention", [False, True])
@pytest.mark.parametrize("pad_to_multiple", [None, 16])
def test_work_is_counted_before_the_device(
    data_set: DataSet, pads_attention: bool, pad_to_multiple: int | None
) -> None:
    data = TrainingData(data_sets=(data_set,))
    plan, reader = data.make_plan(data.initial_state(seed=0, batch_size=32)), data.open_split("train")
    cutting = data.make_cutting(micro_batch_size=7, pad_to_multiple=pad_to_multiple)
    (step,) = Loader(plan, reader, rank=0, world_size=1, cutting=cutting).steps(3, 4)
    lengths = [len(sample["input"]) for _, sample in unpack_step(step)]
    rows = 0
    for batch in step.micro_batches:
        query = torch.zeros(len(batch.token_ids), 3, 1, 8)
        with patch.object(F, "scaled_dot_product_attention", wraps=F.scaled_dot_product_attention) as attention:
            _attend_padded(query, layout_of(batch))
        padded = attention.call_args.args[0]  # [B, 1, S, 8]
        rows += padded.shape[0] * padded.shape[2] if pads_attention else len(batch.token_ids)
    assert count_work(step.micro_batches, pads_attention=pads_attention).tolist() == [
        sum(length**2 for length in lengths),
        rows,
    ]
    if not pads_attention and pad_to_multiple is None:
        assert rows == step.num_tokens
