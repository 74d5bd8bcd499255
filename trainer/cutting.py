"""Cutting: a rank's share of a global batch becomes micro-batches.

    share, by length            9 9 8 8 | 7 5 4 2       cut into micro-batches of 4
    the same, dealt out         9 8 7 4 | 9 8 5 2       about as many tokens in each

B samples, S tokens of the longest one, T tokens, P predictions of a micro-batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bertdata.errors import TrainingError
from trainer.arena import Shown
from trainer.batch import IGNORED, Batch, StepBatches

__all__ = ["Cutting", "cut_step", "deal"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cutting:
    """How a share becomes micro-batches.

    Attributes:
        micro_batch_size: Samples of a micro-batch at most; None for one micro-batch.
        max_padding: Where the model pads to the longest sample of a micro-batch: tokens of padding per token at most;
            more micro-batches are made where it would be more. None where it does not pad.
        is_dealt: Where the model does not pad: whether the samples of a share are dealt out to its micro-batches in
            turn, the longest first, so that all have about as many tokens, and take as much memory.
        pad_to_multiple: For compiled graphs: T and S are rounded up to multiples of this (S at most to
            `max_seq_length`), and P is as large as it can be for B and T. None for no padding.
        max_seq_length: Tokens of a sample at most.
        max_predictions: Predictions of a sample at most.
        masked_lm_prob: Predictions per token of a sample, but for rounding, at most.
        pad_token_id: What padding is made of.
    """

    micro_batch_size: int | None = None
    max_padding: float | None = None
    is_dealt: bool = False
    pad_to_multiple: int | None = None
    max_seq_length: int
    max_predictions: int
    masked_lm_prob: float = 1.0
    pad_token_id: int

    def __post_init__(self) -> None:
        for name in ("micro_batch_size", "pad_to_multiple"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TrainingError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
        if self.max_padding is not None and not self.max_padding > 0:
            raise TrainingError(f"max_padding is {self.max_padding}; it must be above 0")
        if self.max_padding is not None and self.is_dealt:
            raise TrainingError("samples that are dealt out cannot be cut by their padding; leave one of the two out")


def deal(counts: NDArray[np.int64], *, cutting: Cutting) -> NDArray[np.int64] | None:
    """Returns in which order samples must lie for `cut_step`, when they now lie share by share, the longest first.

    Args:
        counts: int64 [S], samples of each share, N in all.
        cutting: How each share will be cut.

    Returns:
        int64 [N], numbers of samples; None where they may stay as they are.
    """
    if not cutting.is_dealt or cutting.micro_batch_size is None:
        return None
    share = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(share)) - (np.cumsum(counts) - counts)[share]
    micro_batch = number % -(-counts // cutting.micro_batch_size)[share]
    return np.lexsort((number, micro_batch, share))


def cut_step(shown: Shown, sample_ids: NDArray[np.int64], start: int, stop: int, *, cutting: Cutting) -> StepBatches:
    """Returns samples `start` to before `stop` as micro-batches.

    Args:
        shown: Samples of which these lie as `deal` says; without dealing, the longest first.
        sample_ids: int64 [N], see `Batch`.
        start: First sample.
        stop: Sample after the last one.
        cutting: How to cut.
    """
    lengths = np.diff(shown.token_offsets[start : stop + 1])
    cuts = [start + cut for cut in _find_cuts(lengths, cutting=cutting)]
    batches = [_make_batch(shown, sample_ids, *pair) for pair in pairwise(cuts)]
    if not batches:
        batches = [_empty_batch(pad_token_id=cutting.pad_token_id)]
    if cutting.pad_to_multiple is not None:
        batches = [_fix_shapes(batch, cutting=cutting) for batch in batches]
    return StepBatches(
        batches,
        num_samples=stop - start,
        num_tokens=int(shown.token_offsets[stop] - shown.token_offsets[start]),
        num_predictions=int(shown.mask_offsets[stop] - shown.mask_offsets[start]),
    )


def _find_cuts(lengths: NDArray[np.int64], *, cutting: Cutting) -> list[int]:
    """Returns where micro-batches begin in samples of descending lengths, or in dealt ones, and the end."""
    size = cutting.micro_batch_size or max(len(lengths), 1)
    if cutting.is_dealt:  # the first micro-batches get the samples that are left over, one each
        num_cuts = -(-len(lengths) // size)
        each, left_over = divmod(len(lengths), max(num_cuts, 1))
        return [number * each + min(number, left_over) for number in range(num_cuts + 1)]
    cuts = [*range(0, len(lengths), size), len(lengths)]
    if cutting.max_padding is None:
        return cuts
    allowed = cutting.max_padding * int(lengths.sum())
    padding = [_padding(lengths[start:stop]) for start, stop in pairwise(cuts)]
    while sum(padding) > allowed:
        worst = int(np.argmax(padding))
        start, stop = cuts[worst], cuts[worst + 1]
        group = lengths[start:stop]
        # A cut at i pads the samples from i on to the length of sample i and no more.
        cut = int(np.argmax((group[0] - group) * np.arange(len(group), 0, -1)))
        cuts.insert(worst + 1, start + cut)
        padding[worst : worst + 1] = [_padding(group[:cut]), _padding(group[cut:])]
    return cuts


def _padding(lengths: NDArray[np.int64]) -> int:
    return int(lengths[0]) * len(lengths) - int(lengths.sum())


def _make_batch(shown: Shown, sample_ids: NDArray[np.int64], start: int, stop: int) -> Batch:
    first_token, last_token = int(shown.token_offsets[start]), int(shown.token_offsets[stop])
    masks = slice(int(shown.mask_offsets[start]), int(shown.mask_offsets[stop]))
    return Batch(
        token_ids=torch.from_numpy(shown.token_ids[first_token:last_token]),
        token_type_ids=torch.from_numpy(shown.token_type_ids[first_token:last_token]),
        cu_seqlens=torch.from_numpy((shown.token_offsets[start : stop + 1] - first_token).astype(np.int32)),
        max_seqlen=int(shown.token_offsets[start + 1]) - first_token,
        mask_rows=torch.from_numpy(shown.mask_rows[masks] - first_token),
        mask_labels=torch.from_numpy(shown.mask_labels[masks]),
        next_sentence_labels=torch.from_numpy(shown.next_sentence_labels[start:stop]),
        label_forced=torch.from_numpy(shown.label_forced[start:stop]),
        sample_ids=torch.from_numpy(sample_ids[start:stop]),
    )


def _empty_batch(*, pad_token_id: int) -> Batch:
    """Returns a batch of one token of padding: a process without samples must still take part in the step."""
    nothing = torch.zeros(0, dtype=torch.int64)
    return Batch(
        token_ids=torch.full((1,), pad_token_id, dtype=torch.int32),
        token_type_ids=torch.zeros(1, dtype=torch.int32),
        cu_seqlens=torch.tensor([0, 1], dtype=torch.int32),
        max_seqlen=1,
        mask_rows=nothing,
        mask_labels=nothing,
        next_sentence_labels=nothing,
        label_forced=nothing.bool(),
        sample_ids=nothing,
    )


def _fix_shapes(batch: Batch, *, cutting: Cutting) -> Batch:
    """Returns the batch with padding behind it, so that few different shapes remain."""
    multiple = cutting.pad_to_multiple
    assert multiple is not None
    num_tokens = len(batch.token_ids)
    after = -(-num_tokens // multiple) * multiple
    max_seqlen = min(-(-batch.max_seqlen // multiple) * multiple, cutting.max_seq_length)
    # The padding is made up of samples no longer than S, always of the same number, some of them empty.
    num_fillers = -(-multiple // max_seqlen)
    fillers = num_tokens + (after - num_tokens) * torch.arange(1, num_fillers + 1) // num_fillers
    # At most half a prediction of each sample comes from rounding, but for samples of a few tokens, which have one.
    by_share = math.ceil(after * cutting.masked_lm_prob + batch.num_samples / 2)
    # What is predicted in vain must have positions of its own, of which there are no more than tokens.
    num_predictions = min(batch.num_samples * cutting.max_predictions, by_share, after)
    more = max(num_predictions - len(batch.mask_rows), 0)
    is_free = torch.ones(after, dtype=torch.bool)
    is_free[batch.mask_rows] = False

    def pad(values: Tensor, length: int, filling: int) -> Tensor:
        return torch.cat([values, torch.full((length,), filling, dtype=values.dtype)])

    return batch._replace(
        token_ids=pad(batch.token_ids, after - num_tokens, cutting.pad_token_id),
        token_type_ids=pad(batch.token_type_ids, after - num_tokens, 0),
        cu_seqlens=torch.cat([batch.cu_seqlens, fillers.to(torch.int32)]),
        max_seqlen=max_seqlen,
        mask_rows=torch.cat([batch.mask_rows, is_free.nonzero().flatten()[:more]]),
        mask_labels=pad(batch.mask_labels, more, IGNORED),
    )
