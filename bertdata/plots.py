"""Figures of a report: matplotlib draws each as SVG that stands in a page and takes its colours from the page's theme.

matplotlib knows fixed colours only, so it draws with colours that nothing else has, and each of them is then replaced
by a CSS variable: one picture serves light and dark. Text stays text, in the page's own font. The same numbers give the
same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

__all__ = ["plot_doublings", "plot_labels", "plot_lengths", "plot_places", "plot_ranks"]

Array = npt.NDArray[np.float64] | npt.NDArray[np.int64]

_INK, _MUTED, _GRID, _FIRST, _SECOND = _COLOURS = tuple(f"#fe01{number:02x}" for number in range(5))
_VARIABLES = ("ink", "muted", "grid", "first", "second")
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bertdata",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "axes.labelsize": 10,
    "axes.titlesize": 10,
    "axes.titlecolor": _MUTED,
    "axes.titlelocation": "left",  # what the y axis counts: shorter to read than a label on its side
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "ytick.left": False,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "legend.labelcolor": _INK,
}
_INCHES = (5.0, 2.7)  # of 72 px: as wide as a phone's page, so that text is not made smaller there
_AXES = (0.11, 0.19, 0.84, 0.71)  # left, bottom, width, height; matplotlib's own layout takes most of its time
_MAX_BARS = 32
_MAX_TICKS = 8
_STANDARD_ERRORS = 3


def _short(value: float) -> str:
    """Returns a number for an axis: 1500 is 1.5k."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"


def _draw(draw: Callable[[Axes], None], *, name: str, label: str) -> str:
    """Returns an SVG element.

    Args:
        draw: Draws on the axes.
        name: What ids within the element begin with; another one for each figure of a page.
        label: What a screen reader says.
    """
    with style.context(["default", _STYLE]):
        figure = Figure(figsize=_INCHES)
        axes = figure.add_axes(_AXES)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        draw(axes)
        sink = io.BytesIO()
        figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None})
    return _inline(sink.getvalue(), name=name, label=label)


def _inline(svg: bytes, *, name: str, label: str) -> str:
    """Returns what of an SVG file belongs in a page: no metadata, styles or name spaces, and ids of its own."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key in [key for key in element.attrib if "}" in key]:
            element.set(key.rpartition("}")[2], element.attrib.pop(key))
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in ("metadata", "style")]:
            parent.remove(child)
    text = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', text))
    for element in root.iter():
        identifier = element.attrib.pop("id", None)
        if identifier in used:
            element.set("id", f"{name}-{identifier}")
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    text = ElementTree.tostring(root, encoding="unicode")
    text = re.sub(r'(url\(|href=")#', rf"\g<1>#{name}-", text)
    for colour, variable in zip(_COLOURS, _VARIABLES, strict=True):
        text = text.replace(colour, f"var(--{variable})")
    return text


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
        axes.bar(exponents[:-1] + 0.5, heights, width=0.92, color=_FIRST)
        axes.set_xticks(exponents[:: 1 + len(exponents) // _MAX_TICKS])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda exponent, _: f"{2.0**exponent:,.0f}"))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel(f"{unit} (each bar doubles them)")
        axes.set_title(things)

    return _draw(draw, name=name, label=label)


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
        axes.bar(bins[:-1], heights, width=0.9 * width, align="edge", color=_FIRST)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel(f"{unit} ({width} to a bar)" if width > 1 else unit)
        axes.set_title(things)

    return _draw(draw, name=name, label=label)


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
        for row, colour, dashes, title in zip(counts, (_FIRST, _SECOND), ("-", "--"), names, strict=True):
            shares = np.cumsum(row) / max(row.sum(), 1)
            axes.plot(np.arange(len(row)) * cell, shares, color=colour, linestyle=dashes, linewidth=2, label=title)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(unit)
        axes.set_title("at most so long")
        axes.legend(loc="upper left")

    return _draw(draw, name=name, label=label)


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
        axes.bar(places, ratio, width=0.85 * bounds[1], color=_FIRST)
        for sign in (-1, 1):
            axes.stairs(1 + sign * error, bounds, baseline=None, color=_INK, linewidth=1, linestyle=":")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.xaxis.set_major_formatter(PercentFormatter(100, decimals=0))
        axes.set_ylim(0, max(1.25, 1.1 * float((1 + error).max()), 1.1 * float(ratio.max())))
        axes.set_xlim(0, 100)
        axes.set_xlabel("place in the sample, from its beginning to its end")
        axes.set_title("of what is expected")

    return _draw(draw, name=name, label=label)


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
        axes.plot(ranks, counts, color=_FIRST, linewidth=2)
        axes.axhline(rare, color=_SECOND, linestyle="--", linewidth=1)
        axes.text(1, rare * 1.2, f"{rare} times", color=_SECOND, va="bottom")
        axes.set_xlim(0.8, 2 * float(ranks.max(initial=1)))
        axes.set_ylim(0.6, 2 * float(counts.max(initial=rare)))
        for set_scale in (axes.set_xscale, axes.set_yscale):
            set_scale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
            axis.set_minor_formatter(NullFormatter())
        axes.minorticks_off()
        axes.set_xlabel("rank of the entry")
        axes.set_title("times in samples")

    return _draw(draw, name=name, label=label)
