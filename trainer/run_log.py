"""All that a run reports: sums of its steps become rows, rows go to files, to the terminal, and to who looks after it.

Every process calls the same methods at the same steps, because sums are those of all processes; the first one writes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bertdata.errors import TrainingError
from trainer.attention import needs_padding
from trainer.batch import StepBatches
from trainer.config import TrainOptions
from trainer.data import TrainingData
from trainer.display import Display
from trainer.distributed import World
from trainer.flops import peak_of, training_flops
from trainer.health import Health
from trainer.metrics import SUMS, WORK, MetricsFile, count_work, load_metrics, means
from trainer.reader import BlockReader
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
        echo: Takes the lines of the table of epochs, each when its epoch has ended; None for no table.

    Raises:
        TrainingError: TensorBoard is asked for and not installed.
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
        echo: Callable[[str], None] | None = None,
    ) -> None:
        if options.tensorboard:
            check_tensorboard()  # in every process, so that none is left waiting for one that has ended
        self._options, self._world, self._reader = options, world, reader
        self._num_samples = num_samples
        self._pads_attention, self._peak = _device_facts(options, world.device)
        self._interval_sums = torch.zeros(len(SUMS), dtype=torch.float64, device=world.device)
        self._epoch_sums = torch.zeros_like(self._interval_sums)
        self._interval_work = np.zeros(len(WORK))
        if sums is not None and world.is_main:  # saved sums are those of all processes together
            self._interval_sums += sums["interval_sums"].to(world.device)
            self._epoch_sums += sums["epoch_sums"].to(world.device)
            self._interval_work += sums["interval_work"].numpy()
        self._grad_norm = torch.zeros((), device=world.device)
        self._seconds_waited = 0.0
        self._last_loss: tuple[int, float] | None = None
        self._sinks: list[MetricsFile | TensorBoard] = []
        self._display: Display | None = None
        if world.is_main:
            folder = Path(options.out)
            self._sinks.append(MetricsFile(folder / "metrics.jsonl", last_step=first_step))
            rows = load_metrics(folder / "metrics.jsonl")
            self._health = Health.of(options, data=data)
            self._health.replay(rows)
            if first_step == 0 and options.init is None:
                _log.info("%s", self._health.expectation.describe())
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
        self._interval_sums += sums
        self._epoch_sums += sums
        self._interval_work += count_work(batches.micro_batches, pads_attention=self._pads_attention)
        self._grad_norm = grad_norm
        self._seconds_waited += seconds_waited
        if self._display is not None:
            self._display.advance()
        is_last = step == self._options.max_steps
        if step % self._options.log_every == 0 or is_last:
            self._write_interval(step, learning_rate=learning_rate)
        if self.ends_epoch(step) or is_last:
            done = self._epoch(step)
            row = {"kind": "epoch", "step": step, "epoch": int(done) if self.ends_epoch(step) else done}
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
        sums = {
            "interval_sums": self._world.sum(self._interval_sums).cpu(),
            "epoch_sums": self._world.sum(self._epoch_sums).cpu(),
            "interval_work": self._world.sum(torch.from_numpy(self._interval_work.copy())),
        }
        self._check_finite(sums["interval_sums"], step=step)
        for sink in self._sinks:
            sink.sync()  # first, so that no power loss leaves a checkpoint whose rows are gone
        return sums

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._display is not None:
            self._display.close()
        for sink in self._sinks:
            sink.close()

    def _epoch(self, step: int) -> float:
        return step * self._options.batch_size / self._num_samples

    def _write_interval(self, step: int, *, learning_rate: float) -> None:
        world, options = self._world, self._options
        waits = np.zeros(world.size)
        waits[world.rank] = self._seconds_waited
        on_cpu = torch.from_numpy(np.concatenate([self._interval_work, waits]))
        joined = world.sum(torch.cat([self._interval_sums, on_cpu.to(world.device)])).cpu()  # waits for the device
        interval = self._clock.end_interval(step)
        sums, work = joined[: len(SUMS)], joined[len(SUMS) : len(SUMS) + len(WORK)].tolist()
        self._check_finite(sums, step=step)

        row: dict[str, Any] = {"kind": "train", "step": step, "epoch": self._epoch(step)}
        if options.skip_bad_blocks:
            row |= count_bad(self._reader, world=world)
        row |= means(sums, next_sentence=options.next_sentence)
        row |= {"learning_rate": learning_rate, "grad_norm": float(self._grad_norm)}
        self._last_loss = (step, row["loss"])
        num_tokens, num_predictions = (float(sums[SUMS.index(name)]) for name in ("num_tokens", "num_predictions"))
        squared_lengths, computed_tokens = work
        flops = training_flops(
            options.model, num_tokens=num_tokens, squared_lengths=squared_lengths, num_predictions=num_predictions
        )
        num_samples = interval.num_steps * options.batch_size
        row |= speed_of(
            Work(num_samples, num_tokens, computed_tokens, flops),
            interval,
            seconds_waited=float(joined[len(SUMS) + len(WORK) :].max()),
            num_devices=world.size,
            peak=self._peak,
        )
        row["eta_seconds"] = self._seconds_left(step)
        self._write(row)
        self._interval_sums.zero_()
        self._interval_work[:] = 0
        self._seconds_waited = 0.0

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


def _device_facts(options: TrainOptions, device: torch.device) -> tuple[bool, float | None]:
    """Returns whether attention pads on a device, and its peak in FLOP/s; None where that is not known."""
    head_size = options.model.hidden_size // options.model.num_attention_heads
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    pads = needs_padding(device, dtype=dtype, head_size=head_size)
    if device.type != "cuda":
        return pads, None
    return pads, peak_of(torch.cuda.get_device_name(device), precision=options.precision)
