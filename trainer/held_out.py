"""Which held-out samples are evaluated, what is counted of them, and what that makes of the model's sums."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from bertdata.diagnostics import MIN_SAMPLES, guess_labels_by_length
from bertdata.statistics import add_segment_lengths, empty_segment_lengths
from trainer.arena import Shown
from trainer.distributed import World
from trainer.reader import BlockReader

__all__ = ["SUMS", "HeldOutCounts", "evaluation_chunks"]

_CHUNKS = 16
"""Chunks at least, so that each of many processes gets about as much to do."""

_CHUNK_SAMPLES = 1024
"""Samples of a chunk at most: read together and sorted by length, which leaves little padding."""

SUMS = ("mlm_loss", "right_mask", "right_random", "right_kept", "nsp_loss", "nsp_right", "nsp_right_forced")
"""What only the model can tell, in the order of a tensor of sums."""


def evaluation_chunks(
    sizes: Sequence[int], *, max_samples: int | None, micro_batch_size: int
) -> list[NDArray[np.int64]]:
    """Returns which held-out samples are evaluated, in chunks of a few micro-batches.

    Samples lie in a shard in the order of a keyed hash, so the first ones are a fair choice.

    Args:
        sizes: Held-out samples of each data set.
        max_samples: Samples at most, the first ones of each data set in proportion to the sizes; None for all.
        micro_batch_size: Samples that the model sees at once.

    Returns:
        int64 arrays of numbers, counted through the data sets.
    """
    ends = np.cumsum(sizes)
    wanted = int(ends[-1]) if max_samples is None else min(max_samples, int(ends[-1]))
    cuts = [0, *(wanted * end // max(int(ends[-1]), 1) for end in ends.tolist())]
    starts = ends - sizes
    parts = [start + np.arange(cuts[number + 1] - cuts[number]) for number, start in enumerate(starts.tolist())]
    numbers = np.concatenate(parts)
    step = min(max(wanted // (_CHUNKS * micro_batch_size), 1) * micro_batch_size, _CHUNK_SAMPLES)
    return [numbers[start : start + step] for start in range(0, wanted, step)]


class HeldOutCounts:
    """Counts of the samples that were evaluated, which need no model.

    Args:
        reader: Reads them.
        vocab_size: Ids of the vocabulary.
    """

    def __init__(self, reader: BlockReader, *, vocab_size: int) -> None:
        self._reader = reader
        self._samples = np.zeros(2, dtype=np.int64)  # free and forced
        self._shown = np.zeros(3, dtype=np.int64)  # [MASK], another token, the label itself
        self._labels = np.zeros(vocab_size, dtype=np.int64)
        self._lengths = empty_segment_lengths(reader.max_seq_length)

    def add(self, shown: Shown, sample_ids: NDArray[np.int64]) -> None:
        """Counts samples."""
        self._samples += np.bincount(shown.label_forced, minlength=2)
        tokens = shown.token_ids[shown.mask_rows]
        num_mask = np.count_nonzero(tokens == self._reader.tokenizer.roles["mask"])
        num_kept = np.count_nonzero(tokens == shown.mask_labels)
        self._shown += (num_mask, len(tokens) - num_mask - num_kept, num_kept)
        self._labels += np.bincount(shown.mask_labels, minlength=len(self._labels))
        lengths = np.diff(shown.token_offsets)
        b_lengths = np.add.reduceat(shown.token_type_ids, shown.token_offsets[:-1])  # with [SEP]
        blocks = np.searchsorted(self._reader.first_samples, sample_ids, side="right") - 1
        add_segment_lengths(
            self._lengths,
            places=sample_ids - self._reader.first_samples[blocks],
            labels=shown.next_sentence_labels,
            a_lengths=lengths - b_lengths - 2,
            both_lengths=lengths - 2 - (b_lengths > 0),
            max_seq_length=self._reader.max_seq_length,
        )

    def summed(self, world: World) -> HeldOutCounts:
        """Returns the counts of all processes."""
        parts = [self._samples, self._shown, self._labels, self._lengths]
        flat = world.sum(torch.from_numpy(np.concatenate([part.ravel() for part in parts]))).numpy()
        total = HeldOutCounts(self._reader, vocab_size=len(self._labels))
        cuts = np.cumsum([part.size for part in parts])[:-1]
        total._samples, total._shown, total._labels, lengths = np.split(flat, cuts)
        total._lengths = lengths.reshape(self._lengths.shape)
        return total

    def results(self, sums: dict[str, float], *, next_sentence: bool) -> dict[str, float]:
        """Returns all that an evaluation tells, from what the model gave."""
        num_samples, num_predictions = int(self._samples.sum()), int(self._shown.sum())
        right = sums["right_mask"] + sums["right_random"] + sums["right_kept"]
        found: dict[str, float | None] = {
            "mlm_loss": _mean(sums["mlm_loss"], num_predictions),
            "mlm_accuracy": _mean(right, num_predictions),
            **{
                f"mlm_accuracy_{kind}": _mean(sums[f"right_{kind}"], number)
                for kind, number in zip(("mask", "random", "kept"), self._shown.tolist(), strict=True)
            },
            "mlm_baseline": _mean(int(self._labels.max()), num_predictions),
        }
        if next_sentence:
            found |= self._next_sentence_results(sums)
        told = {name: value for name, value in found.items() if value is not None}
        if "mlm_loss" in told:
            told["mlm_perplexity"] = math.exp(min(told["mlm_loss"], 700.0))  # beyond, there are no such numbers
        loss = sum(told.get(name, 0.0) for name in ("mlm_loss", "nsp_loss"))
        return {"loss": loss} | told | {"num_samples": num_samples, "num_predictions": num_predictions}

    def _next_sentence_results(self, sums: dict[str, float]) -> dict[str, float | None]:
        num_free, num_forced = self._samples.tolist()
        found: dict[str, float | None] = {
            "nsp_loss": _mean(sums["nsp_loss"], num_free + num_forced),
            "nsp_accuracy": _mean(sums["nsp_right"], num_free + num_forced),
        }
        if num_forced:
            found["nsp_accuracy_forced"] = _mean(sums["nsp_right_forced"], num_forced)
            found["nsp_accuracy_free"] = _mean(sums["nsp_right"] - sums["nsp_right_forced"], num_free)
        if num_free + num_forced >= MIN_SAMPLES:
            found["nsp_accuracy_by_lengths"] = guess_labels_by_length(self._lengths)
        return found


def _mean(total: float, number: int) -> float | None:
    return total / number if number else None
