"""Diagnostics of a data set: what gives away more than it should."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bertdata.statistics import Statistics

__all__ = ["MIN_SAMPLES", "describe_label_guess", "guess_labels_by_length"]

_SAMPLES_PER_CELL = 100
MIN_SAMPLES = 10 * _SAMPLES_PER_CELL
"""Of fewer samples, how well lengths tell the label is not told: chance alone would make it look like something."""
MAX_BINS = 48


def guess_labels_by_length(segment_lengths: npt.NDArray[np.integer]) -> float:
    """Returns how well the label can be guessed from the lengths of A and B alone: 0.5 is not at all.

    A model that can tell NotNext from lengths need not read. The guess is the more frequent label among samples with
    about the same length of A and of both together; it is learned on one half of the samples and tried on the other,
    and the other way round.

    Args:
        segment_lengths: int [2, 2, G, G]; samples by half, label, length of A, and length of A and B together (see
            `bertdata.statistics.Statistics`).

    Returns:
        Share of right guesses, both labels weighing the same; 0.5 where one label is missing in a half.
    """
    totals = segment_lengths.sum(axis=(2, 3))  # by half and label
    if not totals.all():
        return 0.5
    right = []
    for learned, tried in (segment_lengths, segment_lengths[::-1]):
        bins = int(np.clip(np.sqrt(learned.sum() / _SAMPLES_PER_CELL), 1, MAX_BINS))
        rows, columns = (_quantiles(learned.sum(axis=(0, axis)), bins=bins) for axis in (2, 1))
        cells = (rows[:, None] * (bins + 1) + columns).ravel()
        by_cell = np.array([np.bincount(cells, weights=part.ravel()) for part in learned])  # [label, cell]
        guesses = (by_cell[1] / learned[1].sum() > by_cell[0] / learned[0].sum())[cells]
        right += [part.ravel()[guesses == label].sum() / part.sum() for label, part in enumerate(tried)]
    return float(np.mean(right))


def _quantiles(counts: npt.NDArray[np.integer], *, bins: int) -> npt.NDArray[np.int64]:
    """Returns the number of the quantile of each length; a length that is frequent has one of its own."""
    wanted = np.linspace(0, 1, bins + 1)[1:-1] * counts.sum()
    edges = np.unique(np.searchsorted(np.cumsum(counts), wanted))
    return np.searchsorted(edges, np.arange(len(counts)))


def describe_label_guess(statistics: Statistics) -> str | None:
    """Returns a line on how well lengths tell the label of all samples.

    None for samples of one segment, and where there are too few samples to tell.
    """
    num_samples = int(statistics.segment_lengths.sum())
    if num_samples < MIN_SAMPLES:
        return None
    guess = guess_labels_by_length(statistics.segment_lengths)
    return (
        f"label guessed from the lengths of A and B alone: {guess:.1%} of all {num_samples:,} samples "
        "(50 % is no information)"
    )
