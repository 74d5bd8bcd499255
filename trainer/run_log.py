"""All that a run reports: sums of its steps become rows, rows go to files, to the terminal, and to who looks after it.

Every process calls the same methods at the same steps, because sums are those of all processes; the first one writes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bertdata.errors import OutputError, TrainingError
from trainer.batch import StepBatches
from trainer.config import TrainOptions
from trainer.data import TrainingData
from trainer.display import Display
from trainer.distributed import World
from trainer.flops import peak_of
from trainer.health import Health
from trainer.metrics import MetricsFile, load_metrics, means
from trainer.reader import BlockReader
from trainer.run_facts import write_end, write_start
from trainer.step import pads_attention
from trainer.sums import RunSums
from trainer.tensorboard import TensorBoard, check_tensorboard
from trainer.timing import Clock, Work, remaining_pauses, speed_of

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
        data: What it is trained on.
        reader: Reads the training blocks, and knows those that were left out.
        num_samples: Samples of an epoch.
        first_step: Steps done before.
        sums: Of a checkpoint, from `saved_sums`; None for a new run.
        is_evaluated: Whether the evaluation of the first step, if there is one, was done before.
        echo: Takes the lines of the table of epochs, each when its epoch has ended; None for no table.
        origins: Where options come from, by name, for `run.json`.

    Raises:
        TrainingError: TensorBoard is asked for and not installed.
        OutputError: A file of the run cannot be written.
    """

    def __init__(
        self,
        options: TrainOptions,
        *,
        world: World,
        data: TrainingData,
        reader: BlockReader,
        num_samples: int,
        first_step: int,
        sums: dict[str, Tensor] | None = None,
        is_evaluated: bool = True,
        echo: Callable[[str], None] | None = None,
        origins: Mapping[str, str] | None = None,
    ) -> None:
        if options.tensorboard:
            check_tensorboard()  # in every process, so that none is left waiting for one that has ended
        self._options, self._world, self._reader = options, world, reader
        self._num_samples = num_samples
        self._first_step = self._step = first_step
        self._peak = _peak(options, world.device)
        self._sums = RunSums(world, pads_attention=pads_attention(options, device=world.device), saved=sums)
        self._grad_norm = torch.zeros((), device=world.device)
        self._last_loss: tuple[int, float] | None = None
        self._sinks: list[MetricsFile | TensorBoard] = []
        self._display: Display | None = None
        if world.is_main:
            folder = Path(options.out)
            metrics = MetricsFile(folder / "metrics.jsonl", last_step=first_step, is_evaluated=is_evaluated)
            self._sinks.append(metrics)
            rows = load_metrics(folder / "metrics.jsonl")
            losses = [(row["step"], row["loss"]) for row in rows if row["kind"] == "train"]
            self._last_loss = losses[-1] if losses else None
            self._health = Health.of(options, data=data)
            self._health.replay(rows)
            if first_step == 0 and options.init is None:
                _log.info("%s", self._health.expectation.describe())
            if first_step < options.max_steps:
                write_start(
                    options,
                    data=data,
                    device=world.device,
                    num_processes=world.size,
                    first_step=first_step,
                    origins=origins or {},
                    word_entropy=self._health.expectation.entropy,
                )
            if options.tensorboard:
                self._sinks.append(TensorBoard(folder / "tensorboard", last_step=first_step, rows=rows))
            self._display = Display(
                max_steps=options.max_steps,
                first_step=first_step,
                next_sentence=options.next_sentence,
                has_mfu=self._peak is not None,
                echo=echo,
                rows=rows,
            )
        self._clock = Clock(first_step=first_step)

    def add_step(
        self,
        step: int,
        batches: StepBatches,
        *,
        sums: Tensor,
        learning_rate: float,
        grad_norm: Tensor,
        seconds_waited: float,
    ) -> None:
        """Adds a finished step, and writes the rows that are due after it.

        Args:
            step: Steps done, this one among them.
            batches: This process's share of the global batch.
            sums: float64 [7], `trainer.metrics.SUMS` of this share.
            learning_rate: The rate of the step.
            grad_norm: Global norm of its gradient, before clipping.
            seconds_waited: Time that this process waited for the step's data.

        Raises:
            TrainingError: A loss or gradient is not finite.
        """
        self._step = step
        self._sums.add(sums, batches, seconds_waited=seconds_waited)
        self._grad_norm = grad_norm
        if self._display is not None:
            self._display.advance()
        is_last = step == self._options.max_steps
        if step % self._options.log_every == 0 or is_last:
            self._write_interval(step, learning_rate=learning_rate)
        if self.ends_epoch(step) or is_last:
            done = self._epoch(step)
            row = {"kind": "epoch", "step": step, "epoch": int(done) if self.ends_epoch(step) else done}
            self._write(row | means(self._sums.read_epoch(), next_sentence=self._options.next_sentence))

    def ends_epoch(self, step: int) -> bool:
        """Returns whether the last sample of an epoch was in the last of so many steps."""
        batch_size = self._options.batch_size
        return step * batch_size // self._num_samples > (step - 1) * batch_size // self._num_samples

    def write_evaluation(self, step: int, result: dict[str, Any]) -> None:
        """Writes the row of an evaluation."""
        self._write({"kind": "eval", "step": step, "epoch": self._epoch(step)} | result)

    def show_evaluation(self, share: float) -> None:
        """Shows how far an evaluation is: from 0, where it begins, to 1."""
        if self._display is not None:
            self._display.show_evaluation(share)

    @contextmanager
    def pause(self, kind: str) -> Iterator[None]:
        """While in use with `with`, no time counts as training.

        Args:
            kind: "evaluation" or "checkpoint"; what remains of each kind is in the remaining time.
        """
        if self._world.device.type == "cuda":
            torch.cuda.synchronize(self._world.device)  # what is still computed belongs to the steps before
        with self._clock.pause(kind):
            yield

    def saved_sums(self, step: int) -> dict[str, Tensor]:
        """Returns what a checkpoint must hold so that a continued run writes the same rows; all rows are on disk then.

        Raises:
            TrainingError: A loss or gradient is not finite.
        """
        sums = self._sums.saved()
        self._check_finite(sums["interval_sums"], step=step)
        for sink in self._sinks:
            sink.sync()  # first, so that no power loss leaves a checkpoint whose rows are gone
        return sums

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, *__: object) -> None:
        if self._display is not None:
            self._display.close()
        for sink in self._sinks:
            try:
                sink.close()
            except OutputError as failure:
                if error is None:
                    raise
                if str(failure) != str(error):  # what has ended the run comes first
                    _log.warning("warning: %s", failure)
        if self._world.is_main and error is None and self._step > self._first_step:
            is_finished = self._step == self._options.max_steps
            write_end(Path(self._options.out), step=self._step, is_finished=is_finished)

    def _epoch(self, step: int) -> float:
        return step * self._options.batch_size / self._num_samples

    def _write_interval(self, step: int, *, learning_rate: float) -> None:
        options = self._options
        interval = self._sums.read_interval()  # waits for the device, so that the lap ends with its work
        lap = self._clock.end_interval(step)
        self._check_finite(interval.sums, step=step)
        row: dict[str, Any] = {"kind": "train", "step": step, "epoch": self._epoch(step)}
        if options.skip_bad_blocks:
            row |= count_bad(self._reader, world=self._world)
        row |= means(interval.sums, next_sentence=options.next_sentence)
        row |= {"learning_rate": learning_rate, "grad_norm": float(self._grad_norm)}
        self._last_loss = (step, row["loss"])
        work = Work(
            num_samples=lap.num_steps * options.batch_size,
            num_tokens=interval.timed_tokens,
            padding=interval.padding,
            flops=interval.timed_flops(options.model),
        )
        row |= speed_of(
            work, lap, seconds_waited=interval.seconds_waited, num_devices=self._world.size, peak=self._peak
        )
        row["eta_seconds"] = self._seconds_left(step)
        self._write(row)

    def _seconds_left(self, step: int) -> float | None:
        options = self._options
        every = {
            "evaluation": options.eval_every or self._num_samples / options.batch_size,
            "checkpoint": options.save_every,
        }
        pauses = {
            kind: remaining_pauses(step, max_steps=options.max_steps, every=steps) for kind, steps in every.items()
        }
        return self._clock.seconds_left(num_steps=options.max_steps - step, pauses=pauses)

    def _write(self, row: dict[str, Any]) -> None:
        for sink in self._sinks:
            sink.append(row)
        if self._display is not None:
            self._display.show(row)
            for message in self._health.check(row):
                _log.warning("warning: %s", message)

    def _check_finite(self, sums: Tensor, *, step: int) -> None:
        if math.isfinite(float(sums.sum())) and math.isfinite(float(self._grad_norm)):
            return
        what = "gradient" if math.isfinite(float(sums.sum())) else "loss"
        before = "" if self._last_loss is None else f" (at step {self._last_loss[0]} it was {self._last_loss[1]:.4g})"
        raise TrainingError(
            f"the {what} is no longer finite at step {step}; the loss should never be above "
            f"{math.log(self._options.model.vocab_size) + 1:.3g} for long{before}. The checkpoints before it are good. "
            f"Start in another --out folder with a lower --learning-rate than {self._options.learning_rate:g} or more "
            f"--warmup-steps than {self._options.warmup_steps}"
        )


def _peak(options: TrainOptions, device: torch.device) -> float | None:
    """Returns the peak of a device in FLOP/s; None where that is not known."""
    if device.type != "cuda":
        return None
    return peak_of(torch.cuda.get_device_name(device), precision=options.precision)
