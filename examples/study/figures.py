"""Figures of a study: losses over the training, every seed a line, and the differences between arms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["FILES", "draw"]

FILES = {
    "masks.png": "MLM loss over the epochs with five mask sets and with one",
    "next_sentences.png": "Held-out MLM loss over the tokens seen, with next sentences and without",
    "differences.png": "Differences of losses between arms, a dot per seed",
}
_COLOURS = {"dynamic": "#0072b2", "static": "#d55e00", "none": "#009e73"}  # told apart by all eyes (Okabe and Ito)
_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "legend.frameon": False,
}
_WINDOW = 5  # rows of the training, which are noisy


def draw(results: dict[str, Any], comparisons: Sequence[Any], *, out: Path) -> None:
    """Writes `FILES` into a folder.

    Args:
        results: From `analyse.collect`.
        comparisons: From `analyse.compare`.
        out: The folder.
    """
    for name, make in zip(FILES, (_masks, _next_sentences, _differences), strict=True):
        with style.context(["default", _STYLE]):
            figure = make(results, comparisons)
            figure.savefig(out / name, dpi=110, metadata={"Software": None})


def _plot(axes: Axes, results: dict[str, Any], arms: Sequence[str], kind: str, *, over: str) -> None:
    """Draws the MLM loss of every run, and the mean over the seeds: kind "train", or a kind of evaluation."""
    plan = results["plan"]
    for arm in arms:
        samples, tokens = plan["sizes"][arm]
        seen = plan["asked"]["scale"]["batch_size"] / samples  # epochs in a step
        unit = seen if over == "epochs" else seen * tokens / 1e6
        lines = list(_losses(results["runs"][arm].values(), kind))
        for steps, losses in lines:
            axes.plot(steps * unit, losses, color=_COLOURS[arm], linewidth=0.7, alpha=0.5)
        steps, mean = lines[0][0], np.mean([losses for _, losses in lines], axis=0)
        mark = None if kind == "train" else "o"
        axes.plot(steps * unit, mean, color=_COLOURS[arm], linewidth=2, marker=mark, markersize=4, label=arm)
    axes.set_xlabel("epochs" if over == "epochs" else "million tokens seen")


def _losses(runs: Any, kind: str) -> Iterator[tuple[Any, Any]]:
    for run in runs:
        if kind != "train":
            rows = run["held_out"]
            yield np.array([row["step"] for row in rows]), np.array([row[kind]["mlm_loss"] for row in rows])
            continue
        steps, losses = (np.array([row[name] for row in run["train"]]) for name in ("step", "mlm_loss"))
        width = min(_WINDOW, len(losses))
        kernel = np.ones(width) / width
        yield np.convolve(steps, kernel, mode="valid"), np.convolve(losses, kernel, mode="valid")


def _masks(results: dict[str, Any], _: Sequence[Any]) -> Figure:
    titles = {
        "train": "training (nats per word)",
        "seen": "same text, pairs and masks never shown",
        "pairs": "held-out documents",
    }
    return _panels(results, titles, arms=("static", "dynamic"), over="epochs")


def _next_sentences(results: dict[str, Any], _: Sequence[Any]) -> Figure:
    titles = {"pairs": "held-out pairs (nats per word)", "singles": "held-out single segments"}
    return _panels(results, titles, arms=("none", "dynamic"), over="tokens")


def _panels(results: dict[str, Any], titles: dict[str, str], *, arms: tuple[str, str], over: str) -> Figure:
    """Returns the curves of two arms, each kind of loss beside the other."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    panels = figure.subplots(1, len(titles), sharey=True)
    for axes, (kind, title) in zip(panels, titles.items(), strict=True):
        _plot(axes, results, arms, kind, over=over)
        axes.set_title(title)
    panels[0].legend()
    return figure


def _differences(_: dict[str, Any], comparisons: Sequence[Any]) -> Figure:
    # Without the training itself, which is so far off that the others would shrink.
    shown = [one for one in comparisons if not one.measure.startswith("training")]
    figure = Figure(figsize=(9, 0.8 + 0.36 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for place, one in enumerate(shown):
        colour = _COLOURS[one.arms[0]]
        axes.plot(one.differences, [place] * len(one.differences), "o", color=colour, alpha=0.5, markersize=5)
        axes.errorbar(one.mean, place, xerr=one.half_width, fmt="|", color=colour, markersize=14, capsize=3)
    axes.axvline(0, color="#555555", linewidth=1)
    axes.set_yticks(range(len(shown)), [f"{one.arms[0]} – {one.arms[1]}: {one.measure}" for one in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel("difference in MLM loss, nats (above 0: the arm named first is worse)")
    return figure
