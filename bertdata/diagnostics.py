"""Diagnostics of a data set: what gives away more than it should."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bertdata.manifest import DataSet

__all__ = ["describe_label_guess", "guess_labels_by_length"]

MAX_SAMPLES = 100_000
SAMPLES_PER_CELL = 100
MAX_BINS = 48


def guess_labels_by_length(
    a_lengths: npt.NDArray[np.integer], b_lengths: npt.NDArray[np.integer], labels: npt.NDArray[np.integer]
) -> float:
    """Returns how well the label can be guessed from the lengths of A and B alone: 0.5 is not at all.

    A model that can tell NotNext from lengths need not read. The guess is the more frequent label among samples with
    about the same length of A and of both together; it is learned on one half of the samples, every second one, and
    tried on the other, and the other way round.

    Args:
        a_lengths: int [N]; tokens of A.
        b_lengths: int [N]; tokens of B.
        labels: int [N]; 0 or 1.

    Returns:
        Share of right guesses, both labels weighing the same; 0.5 where one label is missing.
    """
    both = a_lengths.astype(np.int64) + b_lengths
    fold = np.arange(len(labels)) % 2
    right = np.zeros((2, 2))  # by fold and label
    for number in range(2):
        learned, tried = fold != number, fold == number
        counts = np.bincount(labels[learned], minlength=2)
        if not counts.all() or not np.bincount(labels[tried], minlength=2).all():
            return 0.5
        bins = int(np.clip(np.sqrt(learned.sum() / SAMPLES_PER_CELL), 1, MAX_BINS))
        cells = _quantile(a_lengths, learned, bins=bins) * (bins + 1) + _quantile(both, learned, bins=bins)
        weights = np.where(labels == 1, 1 / counts[1], -1 / counts[0])
        score = np.bincount(cells[learned], weights=weights[learned], minlength=(bins + 1) ** 2)
        guesses = (score > 0)[cells]
        for label in range(2):
            right[number, label] = (guesses == label)[tried & (labels == label)].mean()
    return float(right.mean())


def _quantile(values: npt.NDArray[np.integer], learned: npt.NDArray[np.bool_], *, bins: int) -> npt.NDArray[np.int64]:
    """Returns the number of the quantile of each value; a value that is frequent has one of its own."""
    edges = np.unique(np.quantile(values[learned], np.linspace(0, 1, bins + 1)[1:-1], method="inverted_cdf"))
    return np.searchsorted(edges, values)


def describe_label_guess(data_set: DataSet, *, split: str) -> str | None:
    """Returns a line on how well lengths tell the label in the first samples of a split, which are a uniform sample.

    None for samples of one segment, and where there are too few samples to tell.
    """
    if data_set.manifest.options["pairs"]["next_sentence"] == "none":
        return None
    blocks = data_set.blocks(split)
    a_lengths, b_lengths, labels = [], [], []
    num_samples = 0
    for row in range(len(blocks)):
        block = data_set.read(blocks, row)
        a_lengths.append(block.segment_b.astype(np.int64) - 2)  # without [CLS] and [SEP]
        b_lengths.append(block.lengths - block.segment_b - 1)
        labels.append(block.next_sentence_label)
        num_samples += block.num_samples
        if num_samples >= MAX_SAMPLES:
            break
    if num_samples < 10 * SAMPLES_PER_CELL:
        return None
    guess = guess_labels_by_length(np.concatenate(a_lengths), np.concatenate(b_lengths), np.concatenate(labels))
    return (
        f"label guessed from the lengths of A and B alone: {guess:.1%} of {num_samples:,} samples "
        "(50 % is no information)"
    )
