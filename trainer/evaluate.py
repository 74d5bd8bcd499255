"""How well a model predicts the held-out samples: mask set 0 of each, the same in every run and epoch.

The samples are cut into chunks that depend on their number and the model alone, and the chunks are dealt out:

    chunk              0   1   2   3   4   5   6
    of three ranks     0   1   2   0   1   2   0       what each sums up goes into a row of its own
    of one             0   0   0   0   0   0   0

So the model sees the same micro-batches for any number of processes, and sums are added in the order of the chunks: on
one kind of device no digit of the result depends on how many processes share the work. Another size of micro-batches
changes it by what rounding in the model's precision does.

An evaluation tells, each name absent where there is nothing that it could be the mean of:

    mlm_loss, mlm_accuracy          mean over all predicted positions of the samples
    mlm_perplexity                  exp(mlm_loss)
    mlm_accuracy_mask               where the model sees [MASK],
    mlm_accuracy_random             another token than the one that it is asked for,
    mlm_accuracy_kept               and this very token; a random one that happens to be it, 1 in V, counts here
    mlm_baseline                    accuracy of always predicting the most frequent label
    nsp_loss, nsp_accuracy          mean over the samples, where next sentences are predicted
    nsp_accuracy_forced, ..._free   of labels that were not drawn (`bertdata.shards`), and of the others; only where
                                    some are known to be forced
    nsp_accuracy_by_lengths         what the lengths of A and B alone would give, both labels weighing the same; see
                                    `bertdata.diagnostics.guess_labels_by_length`. Only of 1,000 samples or more
    loss                            mlm_loss + nsp_loss
    num_samples, num_predictions    what all this is the mean of
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bertdata.diagnostics import MIN_SAMPLES, guess_labels_by_length
from bertdata.statistics import add_segment_lengths, empty_segment_lengths
from trainer.arena import Shown
from trainer.batch import IGNORED, Batch, Cutting, cut_step
from trainer.distributed import World
from trainer.model import Outputs
from trainer.reader import BlockReader

__all__ = ["evaluate", "evaluation_chunks"]

_TOKENS_AT_ONCE = {"cuda": 16384}
"""Tokens of a micro-batch: no gradients are kept, so that this fits wherever training does. 4096 on other devices."""

_CHUNKS = 64
"""Chunks at least, so that each of many processes gets about as much to do."""

_CHUNK_SAMPLES = 1024
"""Samples of a chunk at most: read together and sorted by length, which leaves little padding."""

_SUMS = ("mlm_loss", "right_mask", "right_random", "right_kept", "nsp_loss", "nsp_right", "nsp_right_forced")
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


@torch.no_grad()  # and not inference_mode: what the model may keep for later calls must also do for training
def evaluate(
    model: nn.Module,
    reader: BlockReader,
    *,
    world: World,
    cutting: Cutting,
    max_samples: int | None,
    next_sentence: bool,
    vocab_size: int,
    autocast: AbstractContextManager[object],
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, float] | None:
    """Returns losses and accuracies on the held-out samples, the same for every number of processes.

    Args:
        model: The model; its training mode is restored afterwards.
        reader: Reads the held-out split.
        world: The processes that share the work.
        cutting: How samples become micro-batches; they may be smaller.
        max_samples: Samples to evaluate at most; None for all.
        next_sentence: Whether next sentences are predicted.
        vocab_size: Ids of the vocabulary.
        autocast: Context that sets the precision.
        should_stop: Whether this process is to give up, asked before each micro-batch; the processes need not answer
            alike. All give up where one does.

    Returns:
        See the module; all are finite but for the losses of a model that is not. None where it was given up.

    Raises:
        ShardError: A block is damaged, and such blocks are not left out.
    """
    cutting = _smaller(cutting, device_type=world.device.type)
    assert cutting.micro_batch_size is not None
    sizes = [table.num_samples for table in reader.tables]
    chunks = evaluation_chunks(sizes, max_samples=max_samples, micro_batch_size=cutting.micro_batch_size)
    seen = _Seen(reader, vocab_size=vocab_size)
    sums = torch.zeros(len(chunks), len(_SUMS), dtype=torch.float64, device=world.device)
    is_stopped = False
    training = model.training
    model.eval()
    try:
        for number in range(world.rank, len(chunks), world.size):
            shown, sample_ids = reader.show(chunks[number], mask_set=0)
            if len(sample_ids) == 0:  # all of them damaged
                continue
            seen.add(shown, sample_ids)
            for batch in cut_step(shown, sample_ids, 0, len(sample_ids), cutting=cutting).micro_batches:
                is_stopped = should_stop is not None and should_stop()
                if is_stopped:
                    break
                batch = batch.to(world.device)
                # Not compiled for one sample: that would take a graph of its own.
                forward = model if batch.num_samples > 1 else model.forward
                with autocast:
                    outputs = forward(batch)
                sums[number] += _sums_of(outputs, batch, mask_token=reader.tokenizer.roles["mask"])
            if is_stopped:
                break
    finally:
        model.train(training)
    if should_stop is not None and world.agree_to_stop(is_stopped):
        return None
    # A row is that of one process, and zeros in the others: their sum rounds nothing. Counts are integers.
    totals = world.sum(sums.cpu()).sum(0).tolist()
    return seen.summed(world).results(dict(zip(_SUMS, totals, strict=True)), next_sentence=next_sentence)


def _smaller(cutting: Cutting, *, device_type: str) -> Cutting:
    """Returns a cutting whose micro-batches are no larger than it takes to keep the device busy.

    A run's own grow and shrink with the number of its processes.
    """
    size = max(1, _TOKENS_AT_ONCE.get(device_type, 4096) // cutting.max_seq_length)
    return dataclasses.replace(cutting, micro_batch_size=min(size, cutting.micro_batch_size or size))


def _sums_of(outputs: Outputs, batch: Batch, *, mask_token: int) -> Tensor:
    """Returns `_SUMS` of a batch: float64 [7]. Nothing here waits for the device."""
    labels, shown = batch.mask_labels, batch.token_ids[batch.mask_rows]
    logits = outputs.mlm_logits.to(torch.promote_types(outputs.mlm_logits.dtype, torch.float32))
    losses = F.cross_entropy(logits, labels, reduction="none", ignore_index=IGNORED)
    # Of several ids with the highest score, half precision has them often, the lowest counts and no other.
    is_right = logits.argmax(-1) == labels
    is_mask, is_label = shown == mask_token, shown == labels
    sums = [losses.double().sum(), (is_right & is_mask).sum()]
    sums += [(is_right & ~is_mask & ~is_label).sum(), (is_right & is_label).sum()]
    if outputs.nsp_logits is None:
        sums += [losses.new_zeros(())] * 3
    else:
        nsp_logits = outputs.nsp_logits.to(logits.dtype)
        is_right = nsp_logits.argmax(-1) == batch.next_sentence_labels
        losses = F.cross_entropy(nsp_logits, batch.next_sentence_labels, reduction="none")
        sums += [losses.double().sum(), is_right.sum(), (is_right & batch.label_forced).sum()]
    return torch.stack([value.double() for value in sums])


class _Seen:
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

    def summed(self, world: World) -> _Seen:
        """Returns the counts of all processes."""
        parts = [self._samples, self._shown, self._labels, self._lengths]
        flat = world.sum(torch.from_numpy(np.concatenate([part.ravel() for part in parts]))).numpy()
        total = _Seen(self._reader, vocab_size=len(self._labels))
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
