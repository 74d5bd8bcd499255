"""How well a model predicts the held-out samples: mask set 0 of each, the same in every run and epoch."""

from __future__ import annotations

from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import nn

from trainer.distributed import World
from trainer.loader import BlockReader, cut_by_length
from trainer.metrics import SUMS, means, pretraining_sums
from trainer.plan import SampleRefs

__all__ = ["evaluate", "held_out_share"]

_SAMPLES_AT_ONCE = 4096  # read together, so that sorting by length leaves little padding


def held_out_share(block_sizes: np.ndarray, *, max_samples: int | None, rank: int, world_size: int) -> SampleRefs:
    """Returns the held-out samples of one process: its part of the first `max_samples` in the order of the shards.

    Samples lie in a shard in the order of a keyed hash, so the first ones are a fair choice.
    """
    sizes = np.asarray(block_sizes, dtype=np.int64)
    num_samples = int(sizes.sum()) if max_samples is None else min(int(sizes.sum()), max_samples)
    start, stop = rank * num_samples // world_size, (rank + 1) * num_samples // world_size
    numbers = np.arange(start, stop)
    ends = np.cumsum(sizes)
    block = np.searchsorted(ends, numbers, side="right")
    return SampleRefs(block=block, sample=numbers - (ends - sizes)[block], mask_set=np.zeros_like(numbers))


@torch.no_grad()
def evaluate(
    model: nn.Module,
    reader: BlockReader,
    *,
    world: World,
    micro_batch_size: int,
    max_samples: int | None,
    next_sentence: bool,
    vocab_size: int,
    autocast: AbstractContextManager[object],
) -> dict[str, float]:
    """Returns losses and accuracies on the held-out samples, the same for every number of processes.

    Args:
        model: The model; its training mode is restored afterwards.
        reader: Reads the held-out split.
        world: The processes that share the work.
        micro_batch_size: Samples computed at a time.
        max_samples: Samples to evaluate at most; None for all.
        next_sentence: Whether next sentences are predicted.
        vocab_size: Ids of the vocabulary.
        autocast: Context that sets the precision.

    Returns:
        The means of `trainer.metrics.means`, `num_samples`, `num_predictions`, and `mlm_baseline`: the accuracy of
        always predicting the most frequent label.
    """
    refs = held_out_share(reader.block_sizes, max_samples=max_samples, rank=world.rank, world_size=world.size)
    sums = torch.zeros(len(SUMS), dtype=torch.float64, device=world.device)
    label_counts = torch.zeros(vocab_size, dtype=torch.int64, device=world.device)
    training = model.training
    model.eval()
    for start in range(0, len(refs), _SAMPLES_AT_ONCE):
        samples = reader.read(refs.take(slice(start, start + _SAMPLES_AT_ONCE)))
        for batch in cut_by_length(samples, micro_batch_size=micro_batch_size).micro_batches:
            batch = batch.to(world.device)
            with autocast:
                outputs = model(batch)
            sums += pretraining_sums(outputs, batch)[2]
            label_counts += torch.bincount(batch.mask_labels, minlength=vocab_size)
    model.train(training)
    sums, label_counts = world.sum(sums), world.sum(label_counts)
    num_predictions = int(label_counts.sum())
    return means(sums, next_sentence=next_sentence) | {
        "mlm_baseline": int(label_counts.max()) / max(num_predictions, 1),
        "num_samples": int(sums[SUMS.index("num_samples")]),
        "num_predictions": num_predictions,
    }
