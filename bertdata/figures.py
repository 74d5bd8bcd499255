"""How figures of a page are drawn: as SVG that stands in the page and takes its colours from the page's theme.

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
from matplotlib.ticker import FuncFormatter

__all__ = ["FIRST", "GOOD", "INK", "MUTED", "SECOND", "THIRD", "Array", "draw_figure", "shorten"]

Array = npt.NDArray[np.float64] | npt.NDArray[np.int64]

INK, MUTED, GRID, FIRST, SECOND, THIRD, GOOD = _COLOURS = tuple(f"#fe01{number:02x}" for number in range(7))
_VARIABLES = ("ink", "muted", "grid", "first", "second", "third", "good")
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bertdata",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10,
    "axes.titlesize": 10,
    "axes.titlecolor": MUTED,
    "axes.titlelocation": "left",  # what the y axis counts: shorter to read than a label on its side
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.left": False,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "legend.labelcolor": INK,
}
_INCHES = (5.0, 2.7)  # of 72 px: as wide as a phone's page, so that text is not made smaller there
_AXES = (0.11, 0.19, 0.84, 0.71)  # left, bottom, width, height; matplotlib's own layout takes most of its time


def shorten(value: float) -> str:
    """Returns a number for an axis: 1500 is 1.5k."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"


def draw_figure(draw: Callable[[Axes], None], *, name: str, label: str) -> str:
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
            axis.set_major_formatter(FuncFormatter(lambda value, _: shorten(value)))
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
