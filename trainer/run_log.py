"""All that a run reports: sums of its steps become rows, rows go to `metrics.jsonl`, the log and the progress bar.

Every process calls the same methods at the same steps, because sums are those of all processes; the first one writes.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bertdata.errors import TrainingError
from trainer.config import TrainOptions
from trainer.distributed import World
from trainer.metrics import SUMS, MetricsFile, describe, means
from trainer.reader import BlockReader

__all__ = ["RunLog", "count_bad"]

_log = logging.getLogger(__name__)


def count_bad(reader: BlockReader, *, world: World) -> dict[str, int]:
    """Returns how many blocks any process has left out, and their samples; a block of two processes counts once."""
    times_met = np.zeros(len(reader.block_sizes), dtype=np.int32)
    times_met[reader.bad_blocks] = 1
    is_bad = world.sum(torch.from_numpy(times_met)).numpy() > 0
    return {"bad_blocks": int(is_bad.sum()), "bad_samples": int(reader.block_sizes[is_bad].sum())}


class RunLog:
    """The log of a run; a context manager, after which all rows are on disk.

    Args:
        options: What the run does.
        world: The processes.
        reader: Reads the training blocks, and knows those that were left out.
        num_samples: Samples of an epoch.
        first_step: Steps done before.
        sums: Of a checkpoint, from `saved_sums`; None for a new run.
    """

    def __init__(
        self,
        options: TrainOptions,
        *,
        world: World,
        reader: BlockReader,
        num_samples: int,
        first_step: int,
        sums: dict[str, Tensor] | None = None,
    ) -> None:
        self._options, self._world, self._reader = options, world, reader
        self._num_samples = num_samples
        self._interval_sums = torch.zeros(len(SUMS), dtype=torch.float64, device=world.device)
        self._epoch_sums = torch.zeros_like(self._interval_sums)
        if sums is not None and world.is_main:  # saved sums are those of all processes together
            self._interval_sums += sums["interval_sums"].to(world.device)
            self._epoch_sums += sums["epoch_sums"].to(world.device)
        self._grad_norm = torch.zeros((), device=world.device)
        path = Path(options.out) / "metrics.jsonl"
        self._metrics = MetricsFile(path, last_step=first_step) if world.is_main else None
        self._progress = tqdm(
            total=options.max_steps, initial=first_step, unit="step", disable=None if world.is_main else True
        )
        self._timed_from, self._timed_step, self._waited = time.perf_counter(), first_step, 0.0

    def add_step(
        self, step: int, sums: Tensor, *, learning_rate: float, grad_norm: Tensor, seconds_waited: float
    ) -> None:
        """Adds a finished step, and writes the rows that are due after it.

        Args:
            step: Steps done, this one among them.
            sums: float64 [7], `trainer.metrics.SUMS` of this process's share.
            learning_rate: The rate of the step.
            grad_norm: Global norm of its gradient, before clipping.
            seconds_waited: Time that this process waited for the step's data.

        Raises:
            TrainingError: A loss or gradient is not finite.
        """
        self._interval_sums += sums
        self._epoch_sums += sums
        self._grad_norm = grad_norm
        self._waited += seconds_waited
        self._progress.update()
        if step % self._options.log_every == 0 or step == self._options.max_steps:
            self._write_interval(step, learning_rate=learning_rate)
        if self.ends_epoch(step) or step == self._options.max_steps:
            samples_seen = step * self._options.batch_size
            done = samples_seen // self._num_samples if self.ends_epoch(step) else samples_seen / self._num_samples
            row = {"kind": "epoch", "step": step, "epoch": done}
            self._write(row | means(self._world.sum(self._epoch_sums), next_sentence=self._options.next_sentence))
            self._epoch_sums.zero_()

    def ends_epoch(self, step: int) -> bool:
        """Returns whether the last sample of an epoch was in the last of so many steps."""
        batch_size = self._options.batch_size
        return step * batch_size // self._num_samples > (step - 1) * batch_size // self._num_samples

    def write_evaluation(self, step: int, result: dict[str, Any]) -> None:
        """Writes the row of an evaluation."""
        self._write({"kind": "eval", "step": step, "epoch": self._epoch(step)} | result)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """While in use with `with`, no time counts: neither as training nor as waiting."""
        paused = time.perf_counter()
        yield
        self._timed_from += time.perf_counter() - paused

    def saved_sums(self, step: int) -> dict[str, Tensor]:
        """Returns what a checkpoint must hold so that a continued run writes the same rows; all rows are on disk then.

        Raises:
            TrainingError: A loss or gradient is not finite.
        """
        self._check_finite(self._interval_sums.sum() + self._grad_norm, step=step)
        if self._metrics is not None:
            self._metrics.sync()  # first, so that no power loss leaves a checkpoint whose rows are gone
        sums = {"interval_sums": self._interval_sums, "epoch_sums": self._epoch_sums}
        return {name: self._world.sum(values).cpu() for name, values in sums.items()}

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.close()
        if self._metrics is not None:
            self._metrics.close()

    def _epoch(self, step: int) -> float:
        return step * self._options.batch_size / self._num_samples

    def _write_interval(self, step: int, *, learning_rate: float) -> None:
        totals = self._world.sum(self._interval_sums)
        self._check_finite(totals.sum() + self._grad_norm, step=step)
        seconds = time.perf_counter() - self._timed_from
        row: dict[str, Any] = {"kind": "train", "step": step, "epoch": self._epoch(step)}
        if self._options.skip_bad_blocks:
            row |= count_bad(self._reader, world=self._world)
        row |= means(totals, next_sentence=self._options.next_sentence)
        row |= {"learning_rate": learning_rate, "grad_norm": float(self._grad_norm)}
        row |= {
            "data_wait": self._waited / seconds,
            "sequences_per_second": (step - self._timed_step) * self._options.batch_size / seconds,
            "tokens_per_second": float(totals[SUMS.index("num_tokens")]) / seconds,
        }
        self._write(row)
        self._interval_sums.zero_()
        self._timed_from, self._timed_step, self._waited = time.perf_counter(), step, 0.0

    def _write(self, row: dict[str, Any]) -> None:
        if self._metrics is not None:
            self._metrics.append(row)
            _log.info("%s", describe(row))

    def _check_finite(self, value: Tensor, *, step: int) -> None:
        if not math.isfinite(float(value)):
            raise TrainingError(
                f"the loss or its gradient is no longer finite at step {step}; start in another --out folder with a "
                f"lower --learning-rate than {self._options.learning_rate:g} or more --warmup-steps than "
                f"{self._options.warmup_steps}"
            )
