"""Pictures of vectors: a row of coloured cells for each, as SVG that takes its colours from the page's theme."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

__all__ = ["NUM_CELLS", "draw_vectors", "scale_of"]

NUM_CELLS = 32
"""Numbers of a vector that are shown at most."""

_WIDTH, _NAMES, _ROW = 360.0, 88.0, 16.0  # as wide as a phone's page, so that text is not made smaller there
_LEVELS = 8
_MAX_COLUMNS = 11  # of a name


def scale_of(*vectors: npt.NDArray[np.float32]) -> float:
    """Returns the number that is shown in full colour, for pictures that are to be compared: few numbers are beyond."""
    return max(1e-6, max(float(np.quantile(np.abs(one), 0.98)) for one in vectors))


def draw_vectors(vectors: npt.NDArray[np.float32], names: Sequence[str], *, scale: float, label: str) -> str:
    """Returns an SVG element: blue cells are above 0, orange ones below, the stronger the further.

    Args:
        vectors: Float [R, C]; the first `NUM_CELLS` columns are shown.
        names: What stands before each row.
        scale: The number that is shown in full colour.
        label: What a screen reader says.
    """
    cells = vectors[:, :NUM_CELLS]
    num_rows, num_columns = cells.shape
    width = round((_WIDTH - _NAMES) / num_columns, 2)
    levels = np.rint(np.clip(cells / scale, -1, 1) * _LEVELS).astype(int)
    # One path for each colour: a rectangle for each cell would make the page ten times as large.
    paths = []
    for level in [*range(-_LEVELS, 0), *range(1, _LEVELS + 1)]:
        steps = [
            f"M{round(_NAMES + column * width, 2):g} {row * _ROW + 1:g}h{width:g}v{_ROW - 2:g}h-{width:g}z"
            for row, column in np.argwhere(levels == level).tolist()
        ]
        if steps:
            colour = "first" if level > 0 else "second"
            opacity = abs(level) / _LEVELS
            paths.append(f'<path d="{"".join(steps)}" style="fill:var(--{colour});fill-opacity:{opacity:g}"/>')
    texts = [
        f'<text x="{_NAMES - 6:g}" y="{row * _ROW + 12:g}" text-anchor="end" style="font-size:12px;fill:var(--ink)">'
        f"{escape(_shorten(name))}</text>"
        for row, name in enumerate(names)
    ]
    height = num_rows * _ROW
    body = "".join([*paths, *texts])
    return f'<svg viewBox="0 0 {_WIDTH:g} {height:g}" role="img" aria-label="{escape(label)}">{body}</svg>'


def _shorten(name: str) -> str:
    """Returns a name that fits before a row; letters of East Asian scripts are twice as wide."""
    used = 0
    for place, character in enumerate(name):
        used += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used > _MAX_COLUMNS:
            return name[: max(1, place - 1)] + "…"
    return name
