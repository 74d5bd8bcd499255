"""Times of a run: between two rows without pauses, what was done in them, and what remains.

A GPU works behind the program that commands it. So no time is taken per step: an interval ends when its sums are read,
which waits for all its work, and begins where the one before ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

__all__ = ["Clock", "Lap", "Work", "remaining_pauses", "speed_of"]

_KEPT = 0.7
"""Weight that an interval loses with each one after it."""


class Lap(NamedTuple):
    """The time between two rows, pauses left out.

    Attributes:
        num_steps: Steps in it.
        seconds: How long they took.
    """

    num_steps: int
    seconds: float


class Work(NamedTuple):
    """What all processes did in an interval.

    Attributes:
        num_samples: Samples, those of damaged blocks among them.
        num_tokens: Tokens, without padding.
        padding: Share of the tokens that were computed for nothing.
        flops: Floating-point operations of the model, see `trainer.flops.training_flops`.
    """

    num_samples: int
    num_tokens: float
    padding: float
    flops: float


def speed_of(work: Work, lap: Lap, *, seconds_waited: float, num_devices: int, peak: float | None) -> dict[str, float]:
    """Returns the speeds of an interval, under their names in `metrics.jsonl`.

    Args:
        work: What was done.
        lap: How long it took.
        seconds_waited: Waited for data in it, by the process that waited most; the others wait for that one.
        num_devices: Processes, of a device each.
        peak: FLOP/s of a device; None where it is not known.
    """
    seconds = lap.seconds
    flops_per_second = work.flops / seconds / num_devices
    speed = {
        "padding": work.padding,
        "data_wait": seconds_waited / seconds,
        "sequences_per_second": work.num_samples / seconds,
        "tokens_per_second": work.num_tokens / seconds,
        "tflops_per_device": flops_per_second / 1e12,
    }
    return speed if peak is None else speed | {"mfu": flops_per_second / peak}


class Clock:
    """Measures intervals and pauses, and estimates the remaining time.

    Args:
        first_step: Steps done before.
        now: Gives the time in seconds.
    """

    def __init__(self, *, first_step: int, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._begun, self._step = now(), first_step
        self._num_intervals = 0
        self._recent_seconds, self._recent_steps = 0.0, 0.0
        self._pauses: dict[str, tuple[int, float]] = {}  # how many of a kind, and their seconds

    @contextmanager
    def pause(self, kind: str) -> Iterator[None]:
        """While in use with `with`, no time counts as training."""
        begun = self._now()
        try:
            yield
        finally:
            seconds = self._now() - begun
            self._begun += seconds
            number, total = self._pauses.get(kind, (0, 0.0))
            self._pauses[kind] = (number + 1, total + seconds)

    def end_interval(self, step: int) -> Lap:
        """Returns the time since the last interval ended; the next one begins."""
        now = self._now()
        lap = Lap(step - self._step, max(now - self._begun, 1e-9))
        self._begun, self._step = now, step
        # The first one has what happens once: compiling, first reads, memory. It counts while there is no other.
        kept = 0.0 if self._num_intervals == 1 else _KEPT
        self._recent_seconds = kept * self._recent_seconds + lap.seconds
        self._recent_steps = kept * self._recent_steps + lap.num_steps
        self._num_intervals += 1
        return lap

    def seconds_left(self, *, num_steps: int, pauses: Mapping[str, int]) -> float | None:
        """Returns the remaining seconds; None before the first interval has ended.

        Args:
            num_steps: Steps that remain.
            pauses: Pauses of each kind that remain; one takes as long as those of its kind so far, on average.
        """
        if self._recent_steps <= 0:
            return None
        seconds = num_steps * self._recent_seconds / self._recent_steps
        for kind, remaining in pauses.items():
            number, total = self._pauses.get(kind, (0, 0.0))
            seconds += remaining * total / max(number, 1)
        return seconds


def remaining_pauses(step: int, *, max_steps: int, every: float) -> int:
    """Returns how many pauses come after a step: one every so many steps, and one after the last step.

    Args:
        step: Steps done, with the pause after them.
        max_steps: Steps of the whole run.
        every: Steps between pauses; may be a fraction.
    """
    if step >= max_steps:
        return 0
    regular = int(max_steps // every) - int(step // every)
    return regular + (max_steps % every != 0)
