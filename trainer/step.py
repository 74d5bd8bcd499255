"""One optimizer step's worth of computing: from a rank's share of a global batch to its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bertdata.seeds import hash64_int
from trainer.attention import needs_padding
from trainer.batch import Batch
from trainer.compiling import LossSums
from trainer.config import Precision, TrainOptions
from trainer.cutting import Cutting
from trainer.data import TrainingData
from trainer.distributed import World
from trainer.metrics import SUMS, pretraining_sums

__all__ = ["autocast_for", "backward", "cutting_for", "default_precision", "pads_attention"]

MAX_PADDING = 0.03
"""Padding per token where attention needs it."""


def autocast_for(options: TrainOptions, *, device: torch.device) -> AbstractContextManager[Any]:
    """Returns the context in which the model runs; it can be entered many times."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if options.precision == "bf16" else nullcontext()


def default_precision(device_type: str) -> Precision:
    """Returns what "cpu" or "cuda" computes in where nothing is said: "bf16" or "fp32"."""
    has_bf16 = device_type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "fp32"


def pads_attention(options: TrainOptions, *, device: torch.device) -> bool:
    """Returns whether attention pads the samples of a run to the longest of a micro-batch."""
    head_size = options.model.hidden_size // options.model.num_attention_heads
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    return needs_padding(device, dtype=dtype, head_size=head_size)


def cutting_for(data: TrainingData, options: TrainOptions, *, device: torch.device) -> Cutting:
    """Returns how a process cuts its samples into micro-batches."""
    is_padded = pads_attention(options, device=device)
    # Cuts by padding have as many shapes as there are batches, which compiled graphs do not want.
    return data.make_cutting(
        micro_batch_size=options.micro_batch_size,
        max_padding=MAX_PADDING if is_padded and options.pad_to_multiple is None else None,
        is_dealt=not is_padded,
        pad_to_multiple=options.pad_to_multiple,
    )


def backward(
    model: nn.Module,
    micro_batches: Sequence[Batch],
    *,
    num_predictions: int,
    num_samples: int,
    world: World,
    seed: int,
    autocast: AbstractContextManager[Any],
    loss_sums: LossSums = pretraining_sums,
) -> Tensor:
    """Adds the gradient of one global batch to the parameters.

    The loss is the mean MLM loss over all predictions plus the mean NSP loss over all samples of the global batch. Each
    process adds its own sums, divided by the global counts, times the number of processes because
    DistributedDataParallel averages: any micro-batch size and any number of processes give the same gradient.

    Args:
        model: The model, wrapped in DistributedDataParallel where there are several processes.
        micro_batches: This process's share.
        num_predictions: Masked positions of the global batch.
        num_samples: Samples of the global batch.
        world: The processes.
        seed: Number that this step's dropout comes from.
        autocast: Context that sets the precision.
        loss_sums: The losses, compiled where the model is.

    Returns:
        float64 [7], `trainer.metrics.SUMS` of this process's share.
    """
    sums = torch.zeros(len(SUMS), dtype=torch.float64, device=world.device)
    for number, batch in enumerate(micro_batches):
        batch = batch.to(world.device)
        torch.manual_seed(hash64_int(seed, world.rank, number))
        is_last = number == len(micro_batches) - 1
        # Gradients are exchanged once a step, during the last backward pass.
        waiting = model.no_sync() if isinstance(model, DistributedDataParallel) and not is_last else nullcontext()
        with waiting:
            with autocast:
                outputs = model(batch)
            mlm_loss, nsp_loss, measured = loss_sums(outputs, batch)
            loss = mlm_loss * (world.size / max(num_predictions, 1)) + nsp_loss * (world.size / max(num_samples, 1))
            loss.backward()  # type: ignore[no-untyped-call]
        sums += measured
    return sums
