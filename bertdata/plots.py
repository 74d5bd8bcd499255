"""Figures of a data set's report: lengths, labels, places of predictions and ranks of the vocabulary."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from bertdata.figures import FIRST, INK, SECOND, Array, draw_figure, shorten

__all__ = ["plot_doublings", "plot_labels", "plot_lengths", "plot_places", "plot_ranks"]

_MAX_BARS = 32
_MAX_TICKS = 8
_STANDARD_ERRORS = 3


def plot_doublings(counts: Array, edges: Array, *, name: str, label: str, unit: str, things: str) -> str:
    """Draws lengths that differ a lot: a bar for each doubling of the length.

    Args:
        counts: [B]; things by bucket.
        edges: [B + 1]; where buckets begin and end; doublings are among them.
        name: What ids within the element begin with.
        label: What a screen reader says.
        unit: What lengths are counted in.
        things: What is counted.
    """
    found = np.flatnonzero(counts)
    first, last = (int(edges[found[place]]) if len(found) else 1 for place in (0, -1))
    exponents = np.arange(max(first, 1).bit_length() - 1, max(last, 1).bit_length() + 1)
    heights = np.histogram(edges[:-1], bins=2.0**exponents, weights=counts)[0]

    def draw(axes: Axes) -> None:
        axes.bar(exponents[:-1] + 0.5, heights, width=0.92, color=FIRST)
        axes.set_xticks(exponents[:: 1 + len(exponents) // _MAX_TICKS])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda exponent, _: f"{2.0**exponent:,.0f}"))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel(f"{unit} (each bar doubles them)")
        axes.set_title(things)

    return draw_figure(draw, name=name, label=label)


def plot_lengths(counts: Array, edges: Array, *, name: str, label: str, unit: str, things: str) -> str:
    """Draws lengths that are alike: bars of the same width.

    Args:
        counts: [B]; things by bucket.
        edges: [B + 1]; where buckets begin and end.
        name: What ids within the element begin with.
        label: What a screen reader says.
        unit: What lengths are counted in.
        things: What is counted.
    """
    longest = int(edges[np.flatnonzero(counts)[-1]]) if counts.any() else 1
    width = 1 << max(0, int(longest // _MAX_BARS).bit_length())
    bins = np.arange(longest + 1, -width, -width)[::-1]  # the last bar ends with the greatest length
    heights = np.histogram(edges[:-1], bins=bins, weights=counts)[0]

    def draw(axes: Axes) -> None:
        axes.bar(bins[:-1], heights, width=0.9 * width, align="edge", color=FIRST)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel(f"{unit} ({width} to a bar)" if width > 1 else unit)
        axes.set_title(things)

    return draw_figure(draw, name=name, label=label)


def plot_labels(counts: Array, *, cell: int, names: tuple[str, str], name: str, label: str, unit: str) -> str:
    """Draws how long samples of each label are, one line for each, as shares of the samples of that label.

    Args:
        counts: [2, G]; samples by label and cell.
        cell: Lengths in a cell.
        names: What the labels are called.
        name: What ids within the element begin with.
        label: What a screen reader says.
        unit: What lengths are counted in.
    """

    def draw(axes: Axes) -> None:
        for row, colour, dashes, title in zip(counts, (FIRST, SECOND), ("-", "--"), names, strict=True):
            shares = np.cumsum(row) / max(row.sum(), 1)
            axes.plot(np.arange(len(row)) * cell, shares, color=colour, linestyle=dashes, linewidth=2, label=title)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(unit)
        axes.set_title("at most so long")
        axes.legend(loc="upper left")

    return draw_figure(draw, name=name, label=label)


def plot_places(found: Array, expected: Array, *, name: str, label: str) -> str:
    """Draws where in their samples predicted positions lie, as a share of what is expected.

    Args:
        found: [P]; predictions by place.
        expected: [P]; what uniform positions give on average.
        name: What ids within the element begin with.
        label: What a screen reader says.
    """
    possible = np.maximum(expected, 1)
    ratio, error = found / possible, _STANDARD_ERRORS / np.sqrt(possible)
    bounds = np.linspace(0, 100, len(found) + 1)
    places = (bounds[:-1] + bounds[1:]) / 2

    def draw(axes: Axes) -> None:
        axes.bar(places, ratio, width=0.85 * bounds[1], color=FIRST)
        for sign in (-1, 1):
            axes.stairs(1 + sign * error, bounds, baseline=None, color=INK, linewidth=1, linestyle=":")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.xaxis.set_major_formatter(PercentFormatter(100, decimals=0))
        axes.set_ylim(0, max(1.25, 1.1 * float((1 + error).max()), 1.1 * float(ratio.max())))
        axes.set_xlim(0, 100)
        axes.set_xlabel("place in the sample, from its beginning to its end")
        axes.set_title("of what is expected")

    return draw_figure(draw, name=name, label=label)


def plot_ranks(ranks: Array, counts: Array, *, rare: int, name: str, label: str) -> str:
    """Draws how often entries of the vocabulary occur, by their rank, both axes by powers of ten.

    Args:
        ranks: [R]; 1 for the most frequent entry.
        counts: [R]; how often the entry of each rank occurs.
        rare: Below this an entry is rare.
        name: What ids within the element begin with.
        label: What a screen reader says.
    """

    def draw(axes: Axes) -> None:
        axes.plot(ranks, counts, color=FIRST, linewidth=2)
        axes.axhline(rare, color=SECOND, linestyle="--", linewidth=1)
        axes.text(1, rare * 1.2, f"{rare} times", color=SECOND, va="bottom")
        axes.set_xlim(0.8, 2 * float(ranks.max(initial=1)))
        axes.set_ylim(0.6, 2 * float(counts.max(initial=rare)))
        for set_scale in (axes.set_xscale, axes.set_yscale):
            set_scale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: shorten(value)))
            axis.set_minor_formatter(NullFormatter())
        axes.minorticks_off()
        axes.set_xlabel("rank of the entry")
        axes.set_title("times in samples")

    return draw_figure(draw, name=name, label=label)
