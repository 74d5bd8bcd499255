"""Timing: CPU seconds of this process, several runs of several ways in turn, and the time that each stage takes."""

from __future__ import annotations

import contextlib
import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple


def median_seconds(ways: dict[str, Callable[[], Any]], *, num_runs: int) -> dict[str, float]:
    """Runs all ways in turn, `num_runs` times, and returns the median CPU seconds of each.

    In turn, so that a slow minute of the machine is everyone's.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(num_runs):
        for name, run in ways.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(runs) for name, runs in seconds.items()}


class Rate(NamedTuple):
    """What a way gets done in a second: of CPU time of this process over all threads, and of the clock."""

    cpu: float
    clock: float


def median_rates(ways: dict[str, Callable[[], int]], *, num_runs: int) -> dict[str, Rate]:
    """Runs all ways in turn, `num_runs` times, and returns the median of what each got done in a second.

    Args:
        ways: By name, what runs and returns how much it did.
        num_runs: Runs of each.
    """
    rates: dict[str, list[Rate]] = {name: [] for name in ways}
    for _ in range(num_runs):
        for name, run in ways.items():
            cpu, clock = time.process_time(), time.perf_counter()
            done = run()
            rates[name].append(Rate(done / (time.process_time() - cpu), done / (time.perf_counter() - clock)))
    return {name: Rate(*map(statistics.median, zip(*runs, strict=True))) for name, runs in rates.items()}


class StageTimes:
    """CPU seconds by stage, each without the stages called within it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]  # seconds of the stages within, for each stage that is running

    def _timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            self._inner.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                total = time.process_time() - start
                self.seconds[stage] = self.seconds.get(stage, 0.0) + total - self._inner.pop()
                self._inner[-1] += total

        return run

    @contextlib.contextmanager
    def watch(self, stages: Sequence[tuple[str, ModuleType | type, str]]) -> Iterator[None]:
        """Times functions while the context lasts.

        Args:
            stages: Name of the stage, and where a function of it is looked up: the module or class, and its name there.
        """
        with contextlib.ExitStack() as stack:
            for stage, owner, name in stages:
                original = getattr(owner, name)
                stack.callback(setattr, owner, name, original)
                setattr(owner, name, self._timed(stage, original))
            yield
