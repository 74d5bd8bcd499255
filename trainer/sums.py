"""Sums over the steps of a run since the last row of each kind, in every process, and together when a row is due."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.batch import StepBatches
from trainer.config import ModelOptions
from trainer.distributed import World
from trainer.flops import training_flops
from trainer.metrics import SUMS, WORK, count_work

__all__ = ["Interval", "RunSums"]


class Interval(NamedTuple):
    """What all processes did since the last row of training.

    Attributes:
        sums: float64 [7], `trainer.metrics.SUMS`, on the CPU.
        squared_lengths: See `trainer.metrics.WORK`.
        computed_tokens: See there.
        seconds_waited: Waited for data by the process that waited most; the others wait for that one.
        before: What of it was done before the run was continued, without the wait; None where that is nothing.
    """

    sums: Tensor
    squared_lengths: float
    computed_tokens: float
    seconds_waited: float = 0.0
    before: Interval | None = None

    @property
    def num_tokens(self) -> float:
        """Tokens, without padding."""
        return float(self.sums[SUMS.index("num_tokens")])

    @property
    def timed_tokens(self) -> float:
        """The tokens of which this run, as it goes on, knows how long they took."""
        return self.num_tokens - (self.before.num_tokens if self.before else 0.0)

    @property
    def padding(self) -> float:
        """Share of the computed tokens that is padding."""
        return 1 - self.num_tokens / max(self.computed_tokens, 1.0)

    def timed_flops(self, model: ModelOptions) -> float:
        """Returns the operations that `timed_tokens` took."""
        return self.flops(model) - (self.before.flops(model) if self.before else 0.0)

    def flops(self, model: ModelOptions) -> float:
        """Returns the floating-point operations of the model, see `trainer.flops`."""
        return training_flops(
            model,
            num_tokens=self.num_tokens,
            squared_lengths=self.squared_lengths,
            num_predictions=float(self.sums[SUMS.index("num_predictions")]),
        )


class RunSums:
    """Sums of this process; what is read or saved is that of all.

    Args:
        world: The processes.
        pads_attention: See `trainer.metrics.count_work`.
        saved: From `saved` of a run that is continued; None for a new one.
    """

    def __init__(self, world: World, *, pads_attention: bool, saved: dict[str, Tensor] | None = None) -> None:
        self._world, self._pads_attention = world, pads_attention
        self._interval = torch.zeros(len(SUMS), dtype=torch.float64, device=world.device)
        self._epoch = torch.zeros_like(self._interval)
        self._work = np.zeros(len(WORK))
        self._seconds_waited = 0.0
        self._before: Interval | None = None
        if saved is not None:
            self._before = Interval(saved["interval_sums"].cpu().clone(), *saved["interval_work"].tolist())
        if saved is not None and world.is_main:  # saved sums are those of all processes together
            self._interval += saved["interval_sums"].to(world.device)
            self._epoch += saved["epoch_sums"].to(world.device)
            self._work += saved["interval_work"].numpy()

    def add(self, sums: Tensor, batches: StepBatches, *, seconds_waited: float) -> None:
        """Adds a step.

        Args:
            sums: float64 [7], `trainer.metrics.SUMS` of this process's share; nothing waits for the device here.
            batches: The share, on the CPU.
            seconds_waited: Time that this process waited for it.
        """
        self._interval += sums
        self._epoch += sums
        self._work += count_work(batches.micro_batches, pads_attention=self._pads_attention)
        self._seconds_waited += seconds_waited

    def read_interval(self) -> Interval:
        """Returns the sums since the last row of training, once all work of the device is done; they begin anew."""
        waits = np.zeros(self._world.size)
        waits[self._world.rank] = self._seconds_waited
        on_cpu = torch.from_numpy(np.concatenate([self._work, waits]))
        joined = self._world.sum(torch.cat([self._interval, on_cpu.to(self._world.device)])).cpu()
        sums, work, waits_of_all = np.split(joined.numpy(), np.cumsum([len(SUMS), len(WORK)]))
        self._interval.zero_()
        self._work[:] = 0
        self._seconds_waited = 0.0
        before, self._before = self._before, None
        squared_lengths, computed_tokens = work.tolist()
        return Interval(
            torch.from_numpy(sums), squared_lengths, computed_tokens, float(waits_of_all.max()), before=before
        )

    def read_epoch(self) -> Tensor:
        """Returns float64 [7], the sums since the last row of an epoch; they begin anew."""
        sums = self._world.sum(self._epoch).cpu().clone()
        self._epoch.zero_()
        return sums

    def saved(self) -> dict[str, Tensor]:
        """Returns what a checkpoint must hold so that a continued run writes the same rows."""
        return {
            "interval_sums": self._world.sum(self._interval).cpu().clone(),
            "epoch_sums": self._world.sum(self._epoch).cpu().clone(),
            "interval_work": self._world.sum(torch.from_numpy(self._work.copy())),
        }
