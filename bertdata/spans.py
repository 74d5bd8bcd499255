"""Spans: parts of an array that lie end to end, and parts of it taken out and laid end to end.

things     a a a b c c            lengths 3 1 2       offsets 0 3 4 6
spans      1-3, 4-6               of the array above  indices 1 2 4 5, offsets 0 2 4
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["gather_spans", "offsets_of"]


def gather_spans(
    starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns the indices of N spans end to end, and where each span starts among them.

    Args:
        starts: int64 [N].
        stops: int64 [N].

    Returns:
        indices, int64 [sum of lengths]; offsets, int64 [N + 1].
    """
    lengths = stops - starts
    offsets = offsets_of(lengths)
    indices: npt.NDArray[np.int64] = np.repeat(starts - offsets[:-1], lengths)
    indices += np.arange(len(indices))  # in place: a third of the time goes into making arrays
    return indices, offsets


def offsets_of(lengths: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Returns where each of N things starts, and the end of the last: int64 [N + 1]."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
