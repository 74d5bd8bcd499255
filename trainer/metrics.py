"""What a run reports: sums that become means, and `metrics.jsonl`, one JSON object per line.

{"kind": "train", "step": 10, "epoch": 0.08, "loss": 8.9, "mlm_loss": 8.2, "nsp_loss": 0.7, ...}
{"kind": "eval", "step": 120, "mlm_loss": 6.1, "mlm_accuracy": 0.14, ...}
{"kind": "epoch", "step": 120, "epoch": 1, "loss": 7.4, ...}
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bertdata.files import write_atomically
from trainer.batch import IGNORED, Batch
from trainer.model import Outputs

__all__ = ["SUMS", "MetricsFile", "describe", "load_metrics", "means", "pretraining_sums", "table"]

SUMS = ("mlm_loss", "mlm_correct", "num_predictions", "nsp_loss", "nsp_correct", "num_samples", "num_tokens")
"""Order of the entries of a tensor of sums."""


def pretraining_sums(outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Returns summed losses of a batch and what is reported of it.

    Args:
        outputs: The model's logits.
        batch: The labels.

    Returns:
        MLM loss summed over predictions, NSP loss summed over samples (0 where not predicted), and float64 [7]: `SUMS`.
    """
    labels = batch.mask_labels
    mlm_loss = F.cross_entropy(outputs.mlm_logits.float(), labels, reduction="sum", ignore_index=IGNORED)
    mlm_logits = outputs.mlm_logits.detach()
    # The label scores highest: asking for the maximum alone takes a fifth of the time of argmax on a CPU.
    label_logits = mlm_logits.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    mlm_correct = ((label_logits >= mlm_logits.amax(1)) & (labels != IGNORED)).sum()
    nsp_loss, nsp_correct = mlm_loss.new_zeros(()), mlm_correct.new_zeros(())
    if outputs.nsp_logits is not None:
        nsp_loss = F.cross_entropy(outputs.nsp_logits.float(), batch.next_sentence_labels, reduction="sum")
        nsp_correct = (outputs.nsp_logits.detach().argmax(-1) == batch.next_sentence_labels).sum()
    num_predictions, num_tokens = (labels != IGNORED).sum(), batch.cu_seqlens[batch.num_samples]
    num_samples = num_predictions.new_full((), batch.num_samples)
    values = (mlm_loss.detach(), mlm_correct, num_predictions, nsp_loss.detach(), nsp_correct, num_samples, num_tokens)
    return mlm_loss, nsp_loss, torch.stack([value.double() for value in values])


def means(sums: Tensor, *, next_sentence: bool) -> dict[str, float]:
    """Returns losses per prediction and per sample, and accuracies, from the sums of all processes."""
    value = dict(zip(SUMS, sums.tolist(), strict=True))
    predictions, samples = max(value["num_predictions"], 1.0), max(value["num_samples"], 1.0)
    mlm_loss, nsp_loss = value["mlm_loss"] / predictions, value["nsp_loss"] / samples
    result = {"loss": mlm_loss + nsp_loss, "mlm_loss": mlm_loss, "mlm_accuracy": value["mlm_correct"] / predictions}
    if next_sentence:
        result |= {"nsp_loss": nsp_loss, "nsp_accuracy": value["nsp_correct"] / samples}
    return result


class MetricsFile:
    """Appends rows to `metrics.jsonl`.

    Args:
        path: The file.
        last_step: Rows after this step are cut off: the run continues from there. A torn last line goes too.
    """

    def __init__(self, path: Path, *, last_step: int) -> None:
        self.path = path
        rows = [row for row in load_metrics(path) if row["step"] <= last_step]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
        self._file = path.open("a", encoding="utf-8")

    def append(self, row: dict[str, Any]) -> None:
        """Writes one row."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Returns when all rows are on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Ends writing; all rows are on disk afterwards."""
        self.sync()
        self._file.close()


def load_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a metrics file, up to the first that was not written whole; none where there is no file."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def describe(row: dict[str, Any]) -> str:
    """Returns a row as one line of text, such as `train  step 50  loss 8.912  ...`."""
    values = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()]
    return "  ".join([row["kind"], *values[1:]])


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the epochs of a run as lines of text: training losses beside the last evaluation in each."""
    evaluations = [row for row in rows if row["kind"] == "eval"]
    lines = [f"{'epoch':>6} {'step':>8} {'loss':>8} {'MLM loss':>9} {'NSP loss':>9} {'eval MLM':>9} {'eval NSP':>9}"]
    begin = 0
    for row in rows:
        if row["kind"] != "epoch":
            continue
        within = [one for one in evaluations if begin < one["step"] <= row["step"]]
        evaluated = within[-1] if within else {}
        begin = row["step"]
        lines.append(
            f"{row['epoch']:>6.3g} {row['step']:>8} {row['loss']:>8.4f} {row['mlm_loss']:>9.4f} "
            f"{_cell(row.get('nsp_loss'), '.4f'):>9} {_cell(evaluated.get('mlm_accuracy'), '.1%'):>9} "
            f"{_cell(evaluated.get('nsp_accuracy'), '.1%'):>9}"
        )
    return "\n".join(lines)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
