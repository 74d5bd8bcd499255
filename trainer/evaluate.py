"""How well a model predicts the held-out samples: mask set 0 of each, the same in every run and epoch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bertdata.errors import TrainingError
from trainer.batch import IGNORED, Cutting, cut_step
from trainer.config import TrainOptions
from trainer.data import TrainingData
from trainer.distributed import World
from trainer.metrics import SUMS, means, pretraining_sums
from trainer.model import build_model
from trainer.reader import BlockReader
from trainer.step import autocast_for, cutting_for

__all__ = ["evaluate", "evaluate_checkpoint", "held_out_share"]

_SAMPLES_AT_ONCE = 4096  # read together, so that sorting by length leaves little padding


def held_out_share(sizes: Sequence[int], *, max_samples: int | None, rank: int, world_size: int) -> NDArray[np.int64]:
    """Returns the numbers of the held-out samples of one process: its part of the first ones of each data set.

    Samples lie in a shard in the order of a keyed hash, so the first ones are a fair choice.

    Args:
        sizes: Held-out samples of each data set.
        max_samples: Samples of all processes together at most, in proportion to the sizes; None for all.
        rank: Number of the process.
        world_size: Number of processes.

    Returns:
        int64 [N], numbers counted through the data sets.
    """
    ends = np.cumsum(sizes)
    wanted = int(ends[-1]) if max_samples is None else min(max_samples, int(ends[-1]))
    cuts = [0, *(wanted * end // max(int(ends[-1]), 1) for end in ends.tolist())]
    starts = ends - sizes
    parts = [start + np.arange(cuts[number + 1] - cuts[number]) for number, start in enumerate(starts.tolist())]
    return np.concatenate(parts)[rank * wanted // world_size : (rank + 1) * wanted // world_size]


@torch.no_grad()
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
) -> dict[str, float]:
    """Returns losses and accuracies on the held-out samples, the same for every number of processes.

    Args:
        model: The model; its training mode is restored afterwards.
        reader: Reads the held-out split.
        world: The processes that share the work.
        cutting: How samples become micro-batches.
        max_samples: Samples to evaluate at most; None for all.
        next_sentence: Whether next sentences are predicted.
        vocab_size: Ids of the vocabulary.
        autocast: Context that sets the precision.

    Returns:
        The means of `trainer.metrics.means`, `num_samples`, `num_predictions`, and `mlm_baseline`: the accuracy of
        always predicting the most frequent label.
    """
    sizes = [table.num_samples for table in reader.tables]
    numbers = held_out_share(sizes, max_samples=max_samples, rank=world.rank, world_size=world.size)
    sums = torch.zeros(len(SUMS), dtype=torch.float64, device=world.device)
    label_counts = torch.zeros(vocab_size, dtype=torch.int64, device=world.device)
    training = model.training
    model.eval()
    for start in range(0, len(numbers), _SAMPLES_AT_ONCE):
        shown, sample_ids = reader.show(numbers[start : start + _SAMPLES_AT_ONCE], mask_set=0)
        for batch in cut_step(shown, sample_ids, 0, len(sample_ids), cutting=cutting).micro_batches:
            batch = batch.to(world.device)
            with autocast:
                outputs = model(batch)
            sums += pretraining_sums(outputs, batch)[2]
            label_counts += torch.bincount(batch.mask_labels[batch.mask_labels != IGNORED], minlength=vocab_size)
    model.train(training)
    sums, label_counts = world.sum(sums), world.sum(label_counts)
    num_predictions = int(label_counts.sum())
    return means(sums, next_sentence=next_sentence) | {
        "mlm_baseline": int(label_counts.max()) / max(num_predictions, 1),
        "num_samples": int(sums[SUMS.index("num_samples")]),
        "num_predictions": num_predictions,
    }


def evaluate_checkpoint(
    data: TrainingData, options: TrainOptions, *, world: World, checkpoint: dict[str, Any] | None
) -> dict[str, float]:
    """Returns losses and accuracies of a checkpoint on the held-out samples.

    Args:
        data: The data sets; they need not be those that the run was trained on.
        options: Options of the run.
        world: The processes.
        checkpoint: From `trainer.checkpoint.load_latest`.

    Raises:
        TrainingError: There is no checkpoint, its vocabulary is another one, or nothing is held out.
    """
    held_out = data.open_split("eval", skip_bad_blocks=options.skip_bad_blocks)
    if checkpoint is None:
        raise TrainingError(f"{options.out} holds no checkpoint to evaluate; train first, without --eval-only")
    if held_out.num_samples == 0:
        raise TrainingError(f"{data} holds no samples for evaluation; build with a larger --eval-fraction")
    model = build_model(options.model, next_sentence=options.next_sentence)
    try:
        model.load_state_dict(checkpoint["model"])
    except RuntimeError as error:
        raise TrainingError(
            f"the checkpoint in {options.out} does not fit the model asked for or the vocabulary of {data} "
            f"({str(error).splitlines()[-1].strip()}); give the data set and the options of that run"
        ) from error
    result = evaluate(
        model.to(world.device),
        held_out,
        world=world,
        cutting=cutting_for(data, options, device=world.device),
        max_samples=options.eval_samples,
        next_sentence=options.next_sentence,
        vocab_size=options.model.vocab_size,
        autocast=autocast_for(options, device=world.device),
    )
    if not result["num_samples"]:
        raise TrainingError(f"all held-out blocks of {data} are damaged; copy or build it again")
    return {"step": checkpoint["step"]} | result
