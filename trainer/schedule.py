r"""The learning rate as a pure function of the step: linear warm-up, then decay by a power of what is left.

    rate ^
    peak |     /\                    decay_from "peak", decay_power 1
         |    /   \__
         |   /       \__
         |  /           \__
      0  +-+---+------------+--> step
           0   warmup_steps schedule_steps

A schedule may reach over two runs: the second, phase 2, begins at `schedule_start`, the steps of the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.config import TrainOptions

__all__ = ["learning_rate_at", "rate_at", "schedule_length"]


def schedule_length(options: TrainOptions) -> int:
    """Returns the steps of the whole schedule, those of earlier phases included."""
    return options.schedule_steps or options.schedule_start + options.max_steps


def learning_rate_at(step: int, options: TrainOptions) -> float:
    """Returns the learning rate of a run's optimizer step number `step` (from 0)."""
    return rate_at(
        options.schedule_start + step,
        peak=options.learning_rate,
        warmup_steps=options.warmup_steps,
        num_steps=schedule_length(options),
        decay_power=options.decay_power,
        decay_from=options.decay_from,
        decay_to=options.decay_to,
    )


def rate_at(
    step: int,
    *,
    peak: float,
    warmup_steps: int,
    num_steps: int,
    decay_power: float = 1.0,
    decay_from: str = "peak",
    decay_to: float = 0.0,
) -> float:
    """Returns the learning rate of step number `step` (from 0) of a schedule.

    It grows linearly to `peak` over the warm-up, then decays and would reach its end one step after the last.

    Args:
        step: Number of the step.
        peak: Highest rate, that of the warm-up's last step.
        warmup_steps: Steps of the warm-up.
        num_steps: Steps of the whole schedule, warm-up included.
        decay_power: Power of the share of steps that is left: 1 for a line, 0.5 for NVIDIA's polynomial.
        decay_from: Where the decay is counted from: "peak", the end of the warm-up, so that it begins at the peak; or
            "start", the first step, so that the rate drops where the warm-up ends.
        decay_to: Share of the peak that is left at the end.

    Source:
        "start": `optimization.py` of google-research/bert, `schedulers.py` of NVIDIA's DeepLearningExamples
        (PolyWarmUpScheduler).

    >>> [rate_at(step, peak=1.0, warmup_steps=2, num_steps=6) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    >>> [rate_at(step, peak=1.0, warmup_steps=2, num_steps=4, decay_from="start") for step in range(4)]
    [0.5, 1.0, 0.5, 0.25]
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    begin = warmup_steps if decay_from == "peak" else 0
    left = max(0.0, (num_steps - step) / max(1, num_steps - begin))
    return peak * (decay_to + (1 - decay_to) * float(left**decay_power))
