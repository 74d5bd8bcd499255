"""What a run reports: sums that become means, and `metrics.jsonl`, one JSON object per line.

{"kind": "train", "step": 50, "epoch": 0.08, "loss": 8.9, "mlm_loss": 8.2, "nsp_loss": 0.7, ...}
{"kind": "eval", "step": 120, "epoch": 1.0, "mlm_loss": 6.1, "mlm_accuracy": 0.14, ...}
{"kind": "epoch", "step": 120, "epoch": 1, "loss": 7.4, ...}

| name | of | what |
|---|---|---|
| kind, step, epoch | all | what the row is about; optimizer steps done, and epochs of the data seen by then |
| loss | all | `mlm_loss` plus `nsp_loss` |
| mlm_loss, mlm_accuracy | all | cross-entropy in nats per masked position, and share of them predicted rightly |
| nsp_loss, nsp_accuracy | all | the same per sample; absent where next sentences are not predicted |
| learning_rate | train | of the last step |
| grad_norm | train | global norm of the gradient of the last step, before clipping |
| padding | train | share of padding in what is computed: see `count_work` |
| data_wait | train | share of the time waited for data, by the process that waited most |
| sequences_per_second, tokens_per_second | train | of all processes; padding is not counted |
| tflops_per_device | train | TFLOP/s of the model's own products in a process, see `trainer.flops` |
| mfu | train | the same as a share of the device's peak, the last layer counted whole; absent where that is not known |
| eta_seconds | train | time to the end of the run, with its evaluations and checkpoints |
| bad_blocks, bad_samples | train | left out so far; only with --skip-bad-blocks |

Rows of kind "train" and "epoch" are means over all positions and samples since the row of that kind before; pauses for
evaluations and checkpoints are not in their times. `tflops_per_device` and `mfu` count the last layer as the published
model has it, although its output for tokens that no head looks at is not computed: about 5 % for base. A continued run
writes the rows that an uninterrupted one writes, except `TIMES`; another number of processes gives the same up to
rounding, and other padding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bertdata.files import write_atomically
from trainer.batch import IGNORED, Batch
from trainer.model import Outputs
from trainer.run_folder import writing

__all__ = ["SUMS", "TIMES", "WORK", "MetricsFile", "count_work", "load_metrics", "means", "pretraining_sums"]

SUMS = ("mlm_loss", "mlm_correct", "num_predictions", "nsp_loss", "nsp_correct", "num_samples", "num_tokens")
"""Order of the entries of a tensor of sums."""

WORK = ("squared_lengths", "computed_tokens")
"""Order of the entries of `count_work`."""

TIMES = ("data_wait", "sequences_per_second", "tokens_per_second", "tflops_per_device", "mfu", "eta_seconds")
"""What depends on the clock, and differs from run to run."""


def pretraining_sums(outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Returns summed losses of a batch and what is reported of it.

    Args:
        outputs: The model's logits.
        batch: The labels.

    Returns:
        MLM loss summed over predictions, NSP loss summed over samples (0 where not predicted), and float64 [7]: `SUMS`.
    """
    labels = batch.mask_labels
    mlm_loss = F.cross_entropy(_at_least_float32(outputs.mlm_logits), labels, reduction="sum", ignore_index=IGNORED)
    mlm_logits = outputs.mlm_logits.detach()
    # The label scores highest: asking for the maximum alone takes a fifth of the time of argmax on a CPU.
    label_logits = mlm_logits.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    mlm_correct = ((label_logits >= mlm_logits.amax(1)) & (labels != IGNORED)).sum()
    nsp_loss, nsp_correct = mlm_loss.new_zeros(()), mlm_correct.new_zeros(())
    if outputs.nsp_logits is not None:
        nsp_loss = F.cross_entropy(_at_least_float32(outputs.nsp_logits), batch.next_sentence_labels, reduction="sum")
        nsp_correct = (outputs.nsp_logits.detach().argmax(-1) == batch.next_sentence_labels).sum()
    num_predictions, num_tokens = (labels != IGNORED).sum(), batch.cu_seqlens[batch.num_samples]
    num_samples = num_predictions.new_full((), batch.num_samples)
    values = (mlm_loss.detach(), mlm_correct, num_predictions, nsp_loss.detach(), nsp_correct, num_samples, num_tokens)
    return mlm_loss, nsp_loss, torch.stack([value.double() for value in values])


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def count_work(micro_batches: Sequence[Batch], *, pads_attention: bool) -> NDArray[np.float64]:
    """Returns what is known of the work in batches before they go to the device.

    Args:
        micro_batches: As the loader gives them, on the CPU.
        pads_attention: Whether samples are padded to the longest of a micro-batch for attention (see
            `trainer.attention.needs_padding`). Only that is padded then: all else works on tokens end to end.

    Returns:
        float64 [2], `WORK`: the sum over samples of the square of their tokens; tokens that are computed, padding
        among them: in attention if that pads, else in the fixed shapes of the batches.
    """
    squared_lengths = computed_tokens = 0
    for batch in micro_batches:
        ends = batch.cu_seqlens.numpy().astype(np.int64)
        lengths = np.diff(ends[: batch.num_samples + 1])
        squared_lengths += int(lengths @ lengths)
        computed_tokens += (len(ends) - 1) * batch.max_seqlen if pads_attention else len(batch.token_ids)
    return np.array([squared_lengths, computed_tokens], dtype=np.float64)


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
        is_evaluated: Whether an evaluation of this very step stays; else it is to be done again.

    Raises:
        OutputError: The file cannot be written, here or in any method.
    """

    def __init__(self, path: Path, *, last_step: int, is_evaluated: bool = True) -> None:
        self.path = path
        rows = [row for row in load_metrics(path) if row["step"] <= last_step]
        if not is_evaluated:
            rows = [row for row in rows if (row["kind"], row["step"]) != ("eval", last_step)]
        with writing(path):
            write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
            self._file = path.open("a", encoding="utf-8")

    def append(self, row: dict[str, Any]) -> None:
        """Writes one row."""
        with writing(self.path):
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()

    def sync(self) -> None:
        """Returns when all rows are on disk."""
        with writing(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Ends writing; all rows are on disk afterwards."""
        with writing(self.path), closing(self._file):
            self.sync()


def load_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a metrics file, up to the first that was not written whole; none where there is no file."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
