"""Folders of runs as `bert-train` leaves them, made up: rows whose numbers are known, and facts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bertdata.data_set import DataSet
from trainer.config import ModelOptions, TrainOptions
from trainer.data import TrainingData
from trainer.run_facts import write_end, write_start

LOG_EVERY = 10
MODEL = ModelOptions(vocab_size=120, num_hidden_layers=2, hidden_size=16, num_attention_heads=2, intermediate_size=32)


def make_rows(
    *, steps: int, max_steps: int | None = None, next_sentence: bool = True, seed: int = 0
) -> list[dict[str, Any]]:
    """Returns the rows of a healthy run: MLM loss from ln 120 past 4.0 to about 2.5, evaluation at every fifth row."""
    noise = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for step in range(LOG_EVERY, steps + 1, LOG_EVERY):
        mlm_loss = 2.5 + (math.log(120) - 2.5) * math.exp(-step / 150) + 0.05 * noise.normal()
        values: dict[str, Any] = {"mlm_loss": mlm_loss, "mlm_accuracy": 0.45 - 0.4 * math.exp(-step / 150)}
        if next_sentence:
            values |= {"nsp_loss": 0.693 * math.exp(-step / 1000), "nsp_accuracy": 1 - 0.5 * math.exp(-step / 1000)}
        head = {"step": step, "epoch": step / 100}
        values = {"loss": mlm_loss + values.get("nsp_loss", 0.0)} | values
        rates = {"learning_rate": 1e-2 * (1 - step / (2 * (max_steps or steps))), "grad_norm": 1.5 + noise.random()}
        speed = {"padding": 0.021, "data_wait": 0.0004, "sequences_per_second": 64.0, "tokens_per_second": 6400.0}
        speed |= {"tflops_per_device": 50.0, "mfu": 0.456, "eta_seconds": 65.0}
        rows.append({"kind": "train"} | head | values | rates | speed)
        if step % (5 * LOG_EVERY) == 0:
            if step % 100 == 0:
                rows.append({"kind": "epoch"} | head | values)
            parts = {"mlm_perplexity": math.exp(mlm_loss), "mlm_baseline": 0.1234, "num_samples": 41}
            parts |= {"mlm_accuracy_mask": 0.31, "mlm_accuracy_random": 0.27, "mlm_accuracy_kept": 0.83}
            if next_sentence:
                parts |= {"nsp_accuracy_free": 0.61, "nsp_accuracy_forced": 0.97, "nsp_accuracy_by_lengths": 0.566}
            rows.append({"kind": "eval"} | head | values | parts | {"num_predictions": 107})
    return rows


def make_run(
    folder: Path,
    *,
    data_set: DataSet,
    steps: int = 600,
    max_steps: int | None = None,
    next_sentence: bool = True,
    seed: int = 0,
    entropy: float | None = 4.0,
    origins: dict[str, str] | None = None,
    is_ended: bool = True,
    **changes: Any,
) -> Path:
    """Writes the folder of a run; `changes` are those of its options."""
    folder.mkdir(parents=True)
    values: dict[str, Any] = {"batch_size": 8, "micro_batch_size": 8, "learning_rate": 1e-2, "warmup_steps": 10}
    values |= {"out": str(folder), "model": MODEL, "max_steps": max_steps or steps, "next_sentence": next_sentence}
    write_start(
        TrainOptions(**(values | {"seed": seed} | changes)),
        data=TrainingData(data_sets=(data_set,)),
        device=torch.device("cpu"),
        num_processes=1,
        first_step=0,
        origins=origins or {"batch_size": "given", "learning_rate": "default"},
        word_entropy=entropy,
    )
    if is_ended:
        write_end(folder, step=steps, is_finished=max_steps is None)
    write_rows(folder, make_rows(steps=steps, max_steps=max_steps, next_sentence=next_sentence, seed=seed))
    return folder


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Writes `metrics.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
