"""Figures of a run's report: values over the steps, of one run or of several on top of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from bertdata.figures import FIRST, GOOD, MUTED, SECOND, THIRD, draw_figure, shorten
from trainer.run_history import Series

__all__ = ["COLOURS", "Curve", "Level", "Range", "plot_curves", "smooth", "thin"]

COLOURS = {"first": FIRST, "second": SECOND, "good": GOOD, "third": THIRD}
"""Colours of curves, by the name of their CSS class."""

_MAX_POINTS = 600
_WINDOW = 0.1  # of a step's number, to either side
_PLACE = (0.145, 0.19, 0.83, 0.71)  # of the axes: left, bottom, width, height; numbers such as 0.0015 stand beside them
_SLACK = 0.06  # of the height, above and below


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """What is drawn of a series.

    Attributes:
        series: The values.
        colour: One of `COLOURS`.
        is_dashed: Whether the line is dashed.
        noise: "raw" draws the values lightly, and their smoothed course above them; "smoothed" only the latter; None
            draws the values as they are.
        is_marked: Whether each value gets a dot.
    """

    series: Series
    colour: str = "first"
    is_dashed: bool = False
    noise: Literal["raw", "smoothed"] | None = None
    is_marked: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """A horizontal line to compare with.

    Attributes:
        value: Its height.
        text: What it is, in a word or two.
        side: Where the text stands.
    """

    value: float
    text: str
    side: Literal["left", "right"] = "right"


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Values that are normal between two steps.

    Attributes:
        steps: The first and the last step.
        low: The least value; None for all below `high`.
        high: The greatest value.
    """

    steps: tuple[float, float]
    low: float | None
    high: float


def smooth(series: Series) -> NDArray[np.float64]:
    """Returns means over the rows within a tenth of each step's number, to either side.

    Windows are as wide everywhere by powers of ten: the fall at the beginning keeps its place and its shape, and late
    noise is averaged away.

    Returns:
        float64 [R].
    """
    steps, values = series.steps, series.values
    first = np.searchsorted(steps, steps * (1 - _WINDOW) - 1e-9, side="left")
    last = np.searchsorted(steps, steps * (1 + _WINDOW) + 1e-9, side="right")
    sums = np.concatenate([[0.0], np.cumsum(values)])
    averaged: NDArray[np.float64] = (sums[last] - sums[first]) / (last - first)
    return averaged


def thin(steps: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns at most 600 points of a line, among them the least and the greatest value of every stretch."""
    if len(steps) <= _MAX_POINTS:
        return steps, values
    bounds = np.linspace(0, len(steps), _MAX_POINTS // 2 + 1).astype(int)
    chosen = set()
    for begin, end in pairwise(bounds.tolist()):
        chosen |= {begin + int(values[begin:end].argmin()), begin + int(values[begin:end].argmax())}
    order = np.array(sorted(chosen))
    return steps[order], values[order]


def plot_curves(
    curves: Sequence[Curve],
    *,
    name: str,
    label: str,
    title: str,
    levels: Sequence[Level] = (),
    ranges: Sequence[Range] = (),
    form: Literal["number", "percent"] = "number",
    has_zero: bool = False,
    scale: Literal["linear", "log"] = "linear",
    step_scale: Literal["linear", "log"] = "linear",
    last_step: float | None = None,
) -> str:
    """Draws values over the steps.

    Args:
        curves: What is drawn, the first at the bottom.
        name: What ids within the element begin with.
        label: What a screen reader says.
        title: What is drawn, and its unit.
        levels: Lines to compare with.
        ranges: What is normal, drawn as a ground.
        form: How values are written.
        has_zero: Whether the axis begins at 0.
        scale: Of the values.
        step_scale: Of the steps.
        last_step: Where the axis of the steps ends; None for the last row.
    """
    drawn = [curve for curve in curves if len(curve.series)]
    if scale == "log":
        drawn = [curve for curve in drawn if (curve.series.values > 0).all()]

    def draw(axes: Axes) -> None:
        axes.set_position(_PLACE)
        axes.set_xscale(step_scale)
        axes.set_yscale(scale)
        heights = [height for curve in drawn for height in _draw_curve(axes, curve)]
        heights += [level.value for level in levels]
        low, high = _limits(heights, scale=scale, has_zero=has_zero)
        axes.set_ylim(low, high)
        steps = [step for curve in drawn for step in (curve.series.steps[0], curve.series.steps[-1])] or [1.0]
        first, last = (min(steps) if step_scale == "log" else 0.0), max([*steps, last_step or 0.0])
        axes.set_xlim(first, last * 1.02 if last > first else first + max(first, 1.0))
        for normal in ranges:
            bottom = low if normal.low is None else normal.low
            axes.fill_between(normal.steps, bottom, normal.high, color=GOOD, alpha=0.14, linewidth=0)
        for level in levels:
            _draw_level(axes, level)
        _number_axes(axes, form=form, scale=scale, step_scale=step_scale)
        axes.set_title(title)
        axes.set_xlabel("optimizer steps" + (" (each power of ten as wide)" if step_scale == "log" else ""))

    return draw_figure(draw, name=name, label=label)


def _draw_curve(axes: Axes, curve: Curve) -> list[float]:
    """Draws a curve; returns heights that must be seen."""
    colour, dashes = COLOURS[curve.colour], "--" if curve.is_dashed else "-"
    steps, values = curve.series.steps, curve.series.values
    alone = len(steps) == 1
    line = values if curve.noise is None else smooth(curve.series)
    if curve.noise == "raw" and not alone:
        axes.plot(*thin(steps, values), color=colour, linewidth=0.8, alpha=0.35)
    marker = "o" if alone or (curve.is_marked and len(steps) <= 60) else ""
    axes.plot(*thin(steps, line), color=colour, linestyle=dashes, linewidth=1.8, marker=marker, markersize=4.5)
    # Of noise, a hundredth may stick out: one spike must not press all else into a line.
    shown = np.quantile(values, [0.01, 0.99]) if curve.noise == "raw" else line
    return [float(shown.min()), float(shown.max()), float(line[0]), float(line[-1])]


def _limits(heights: Sequence[float], *, scale: str, has_zero: bool) -> tuple[float, float]:
    low, high = (min(heights), max(heights)) if heights else (0.1, 1.0)
    if scale == "log":
        return 10 ** (np.floor(4 * np.log10(low)) / 4), 10 ** (np.ceil(4 * np.log10(high) + 1e-9) / 4 + 0.02)
    if has_zero:
        low = min(low, 0.0)
    slack = _SLACK * (high - low) or max(abs(high), 1.0) * _SLACK
    return low - (0.0 if has_zero and low == 0 else slack), high + slack


def _draw_level(axes: Axes, level: Level) -> None:
    axes.axhline(level.value, color=MUTED, linestyle=":", linewidth=1.2)
    axes.text(
        0.995 if level.side == "right" else 0.005,
        level.value,
        level.text,
        transform=axes.get_yaxis_transform(),
        color=MUTED,
        fontsize=9,
        ha=level.side,
        va="bottom",
    )


def _number_axes(axes: Axes, *, form: str, scale: str, step_scale: str) -> None:
    short = FuncFormatter(lambda value, _: shorten(value))
    axes.xaxis.set_major_formatter(short)
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{100 * value:.3g}%") if form == "percent" else short
    )
    for axis, kind in ((axes.xaxis, step_scale), (axes.yaxis, scale)):
        if kind == "log":
            axis.set_minor_formatter(NullFormatter())
            axis.set_minor_locator(NullLocator())
            low, high = axis.get_view_interval()
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
    if scale == "linear":
        axes.yaxis.set_major_locator(MaxNLocator(5))
    if step_scale == "linear":
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
