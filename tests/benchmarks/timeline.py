"""Who was at what when: idle shares and idle tails of a build's workers, and a drawing of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.processes import Span

__all__ = ["SPREAD", "StageTime", "draw", "save_figure", "stage_times"]

SPREAD = ("count_words", "tokenize_portion", "build_shard")  # the stages that all workers share
_LETTERS = {
    "count_words": "w",
    "train_tokenizer": "V",
    "tokenize_portion": "t",
    "plan_shards": "p",
    "build_shard": "s",
    "write_data_sets": "m",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class StageTime:
    """One stage of a build.

    Attributes:
        stage: Its name.
        start: When its first task began, seconds.
        stop: When its last one ended.
        busy: Seconds of work over all workers.
        idle: Share of the workers' time in it in which they had no task.
        tail: Seconds from when the first worker ran out of tasks to the end.
    """

    stage: str
    start: float
    stop: float
    busy: float
    idle: float
    tail: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.stop - self.start


def stage_times(spans: Sequence[Span], *, num_workers: int) -> list[StageTime]:
    """Returns the stages in order. A stage that one worker does alone has no tail: nothing is there to be shared."""
    times = []
    by_stage: dict[str, list[Span]] = {}
    for span in spans:
        by_stage.setdefault(span.stage, []).append(span)
    for stage, own in by_stage.items():
        start, stop = min(span.start for span in own), max(span.stop for span in own)
        busy = sum(span.stop - span.start for span in own)
        last = dict.fromkeys(range(1, num_workers + 1), start)
        for span in own:
            last[span.worker] = max(last[span.worker], span.stop)
        is_spread = stage in SPREAD
        available = (stop - start) * (num_workers if is_spread else 1)
        times.append(
            StageTime(
                stage=stage,
                start=start,
                stop=stop,
                busy=busy,
                idle=1 - busy / available if available else 0.0,
                tail=stop - min(last.values()) if is_spread else 0.0,
            )
        )
    return sorted(times, key=lambda time: time.start)


def draw(spans: Sequence[Span], *, num_workers: int, seconds: float, width: int = 100) -> list[str]:
    """Returns a line per worker: a letter for the stage that it is in, alternately small and large; a dot when idle."""
    lines = []
    for worker in range(1, num_workers + 1):
        line = ["."] * width
        own = sorted((span for span in spans if span.worker == worker), key=lambda span: span.start)
        for number, span in enumerate(own):
            letter = _LETTERS.get(span.stage, "?")
            first = min(int(span.start / seconds * width), width - 1)
            last = max(first + 1, round(span.stop / seconds * width))
            line[first:last] = [letter.upper() if number % 2 else letter] * (min(last, width) - first)
        lines.append(f"worker {worker} |{''.join(line[:width])}|")
    legend = ", ".join(f"{letter} {stage}" for stage, letter in _LETTERS.items())
    return [*lines, f"{'':9} 0{seconds:>{width - 2}.0f} s   ({legend})"]


def save_figure(spans: Sequence[Span], path: Path, *, title: str) -> bool:
    """Draws the same as a figure, a bar per task; returns False where matplotlib is not installed."""
    try:
        import matplotlib as mpl

        mpl.use("agg")
        from matplotlib import pyplot as plt
    except ImportError:
        return False
    stages = list(_LETTERS)
    figure, axes = plt.subplots(figsize=(12, 1.2 + 0.5 * len({span.worker for span in spans})), layout="constrained")
    for stage, own in itertools.groupby(
        sorted(spans, key=lambda span: stages.index(span.stage)), key=lambda s: s.stage
    ):
        bars = list(own)
        axes.barh(
            [f"worker {span.worker}" for span in bars],
            [span.stop - span.start for span in bars],
            left=[span.start for span in bars],
            color=f"C{stages.index(stage)}",
            edgecolor="white",
            label=stage,
        )
    axes.set(xlabel="seconds", title=title)
    axes.invert_yaxis()
    axes.legend(ncols=len(stages), loc="upper center", bbox_to_anchor=(0.5, -0.35), frameon=False)
    figure.savefig(path)
    plt.close(figure)
    return True
