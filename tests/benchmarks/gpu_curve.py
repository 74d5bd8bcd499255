"""The loss of a real run, ours and that of a plain loop over transformers: the same batches, weights and learning rates.

Both add up the mean loss of all masked positions and the mean loss of all samples of a batch. Without dropout only
rounding differs, so the curves must lie on each other until small differences have grown, which smoothing shows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.benchmarks.gpu_measuring import Row, clock
from tests.benchmarks.gpu_steps import Step
from tests.benchmarks.gpu_ways import Way, train_options
from trainer.data import open_training_data
from trainer.schedule import learning_rate_at

WARM_UP = 100  # steps until the highest learning rate
LEARNING_RATE = 1e-4
CALIBRATION = 20  # steps after which the length of the run is set
REPORT_EVERY = 5.0  # seconds


def rows(settings: dict[str, Any]) -> Iterator[Row]:
    """Yields the losses of a run as they come: `steps` that it is to have, and `losses` since the last row.

    Args:
        settings: `way`, `shards`, `device`, `model`, `dropout`, `batch_size`; `steps`, or None for as many as fit into
            `seconds`.
    """
    way = Way(**settings["way"])
    device = torch.device(settings["device"])
    data = open_training_data([settings["shards"]])
    changes = {
        "batch_size": settings["batch_size"],
        "micro_batch_size": settings["batch_size"],
        "learning_rate": LEARNING_RATE,
        "warmup_steps": min(WARM_UP, settings["steps"] or WARM_UP),
        "max_steps": settings["steps"] or 1 << 20,
    }
    way = Way(**(way.to_json() | {"changes": way.changes | changes}))
    options = train_options(way, data=data, model=settings["model"], device=device, dropout=settings["dropout"])
    step = Step(way, options, data=data, device=device)
    start = reported = clock(device)
    waiting: list[torch.Tensor] = []
    number = 0
    while number < options.max_steps:
        for group in step.optimizer.param_groups:
            group["lr"] = learning_rate_at(number, options)
        step()
        waiting.append(step.losses)
        number += 1
        if number == 1:  # what is compiled in the first one is not of the run
            start = clock(device)
        if number == CALIBRATION and settings["steps"] is None:
            each = (clock(device) - start) / (CALIBRATION - 1)
            most = max(CALIBRATION, WARM_UP, round(settings["seconds"] / each))
            options = train_options(
                Way(**(way.to_json() | {"changes": way.changes | changes | {"max_steps": most}})),
                data=data,
                model=settings["model"],
                device=device,
                dropout=settings["dropout"],
            )
        if time.perf_counter() - reported > REPORT_EVERY or number == options.max_steps:
            yield {
                "steps": options.max_steps,
                "losses": torch.stack(waiting).tolist(),
                "seconds": clock(device) - start,
            }
            waiting, reported = [], time.perf_counter()


def smoothed(losses: Sequence[float], window: int) -> Any:
    """Returns moving means: float64 [N - window + 1]."""
    sums = np.cumsum(np.concatenate([[0.0], np.asarray(losses, dtype=np.float64)]))
    return (sums[window:] - sums[:-window]) / window


def distance(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Returns how far two curves lie apart over the steps that both have.

    Returns:
        `steps` compared, `window` of the moving means, `mean` and `most` of their absolute difference, in nats, the
        step `at` which it is largest, and `noise`: how far a loss lies from the moving mean, by its standard deviation.
    """
    steps = min(len(ours), len(theirs))
    window = max(1, steps // 50)
    one, other = smoothed(ours[:steps], window), smoothed(theirs[:steps], window)
    apart = np.abs(one - other)
    middle = np.asarray(ours[:steps])[window // 2 :][: len(one)] - one
    return {
        "steps": steps,
        "window": window,
        "mean": float(apart.mean()),
        "most": float(apart.max()),
        "at": int(apart.argmax()) + window,
        "noise": float(middle.std()),
    }


def plot(curves: dict[str, Sequence[float]], path: Path) -> bool:
    """Draws curves, each as its steps and its moving mean; returns False where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5))
    window = max(1, min(map(len, curves.values())) // 50)
    for (name, losses), color in zip(curves.items(), ("tab:blue", "tab:orange"), strict=False):
        axes.plot(range(1, len(losses) + 1), losses, color=color, alpha=0.2, linewidth=0.6)
        means = smoothed(losses, window)
        axes.plot(range(window, window + len(means)), means, color=color, label=name, linewidth=1.2)
    axes.set(xlabel="optimizer step", ylabel="MLM + NSP loss", ylim=(0, math.ceil(max(map(max, curves.values())))))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)
    return True
