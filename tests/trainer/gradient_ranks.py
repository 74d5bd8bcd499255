"""The processes in which `test_gradient_over_ranks` takes steps.

    python -m tests.trainer.gradient_ranks FOLDER

FOLDER holds data sets `shards` and `no-pairs`, and gets a file of each process. For each number of processes a group of
that many is formed anew.
"""

from __future__ import annotations

import multiprocessing
import sys
from contextlib import nullcontext
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bertdata.data_set import open_data_set
from trainer.batch import IGNORED, Batch, StepBatches
from trainer.config import ModelOptions
from trainer.cutting import cut_step
from trainer.data import TrainingData
from trainer.distributed import World
from trainer.loader import Loader
from trainer.model import build_model
from trainer.step import backward

BATCH_SIZE = 16
SIZES = (1, 2, 4)
MODEL = ModelOptions(
    vocab_size=120,
    num_hidden_layers=2,
    hidden_size=16,
    num_attention_heads=2,
    intermediate_size=32,
    hidden_dropout_prob=0.0,
    initializer_range=0.2,
)
SHARES = {1: (16,), 2: (13, 3), 4: (9, 4, 0, 3)}
"""Samples of each process where they are dealt unevenly; one process gets none."""


class Case(NamedTuple):
    """One step.

    Attributes:
        data: Name of the data set.
        dealt: "evenly" as in a run, or "unevenly": by `SHARES`, and the last
            three samples without predictions.
        dtype: Of weights and gradients.
        micro_batch_size: Samples of a micro-batch at most.
        max_padding: Padding per token that cuts micro-batches further; None for no further cuts.
        pad_to_multiple: For fixed shapes.
        activation_checkpointing: Whether layers are computed again in the backward pass.
    """

    data: str
    dealt: str
    dtype: torch.dtype
    micro_batch_size: int
    max_padding: float | None = None
    pad_to_multiple: int | None = None
    activation_checkpointing: bool = False


_EXACT = torch.float64
CASES = [
    Case("shards", dealt, dtype, micro_batch_size)
    for dealt in ("evenly", "unevenly")
    for dtype in (torch.float32, _EXACT)
    for micro_batch_size in (1, 3, BATCH_SIZE)
]
for _dealt in ("evenly", "unevenly"):
    CASES += [
        Case("shards", _dealt, _EXACT, BATCH_SIZE, max_padding=0.03),
        Case("shards", _dealt, _EXACT, BATCH_SIZE, pad_to_multiple=16),
        Case("shards", _dealt, _EXACT, 3, activation_checkpointing=True),
        Case("no-pairs", _dealt, _EXACT, 3),
    ]


def share_of(case: Case, data: TrainingData, *, rank: int, world_size: int) -> StepBatches:
    """Returns what one process gets of the step."""
    cutting = data.make_cutting(
        micro_batch_size=case.micro_batch_size, max_padding=case.max_padding, pad_to_multiple=case.pad_to_multiple
    )
    reader = data.open_split("train")
    if case.dealt == "evenly":
        plan = data.make_plan(data.initial_state(seed=0, batch_size=BATCH_SIZE))
        (step,) = Loader(plan, reader, rank=rank, world_size=world_size, cutting=cutting).steps(0, 1)
        return step
    begin, size = sum(SHARES[world_size][:rank]), SHARES[world_size][rank]
    shown, sample_ids = reader.show(np.arange(begin, begin + max(size, 1)), mask_set=0)
    step = cut_step(shown, sample_ids, 0, size, cutting=cutting)
    batches = [_without_last_predictions(batch) for batch in step.micro_batches]
    num_predictions = sum(int((batch.mask_labels != IGNORED).sum()) for batch in batches)
    return step._replace(micro_batches=batches, num_predictions=num_predictions)


def _without_last_predictions(batch: Batch) -> Batch:
    """Takes the predictions from the last three samples: all that the last of 2 or 4 processes has."""
    if not batch.num_samples:
        return batch
    ends = batch.cu_seqlens[1 : batch.num_samples + 1].long()
    sample = torch.bucketize(batch.mask_rows, ends, right=True).clamp(max=batch.num_samples - 1)
    labels = batch.mask_labels.masked_fill(batch.sample_ids[sample] >= BATCH_SIZE - 3, IGNORED)
    if len(ends) < len(batch.cu_seqlens) - 1:  # of fixed shapes the number of rows stays
        return batch._replace(mask_labels=labels)
    return batch._replace(mask_rows=batch.mask_rows[labels != IGNORED], mask_labels=labels[labels != IGNORED])


def take_step(case: Case, data: TrainingData, *, world: World) -> tuple[dict[str, Tensor], Tensor]:
    """Returns the gradients of the step and the sums over all processes, by the ways of a run."""
    step = share_of(case, data, rank=world.rank, world_size=world.size)
    bare_model = build_model(
        MODEL,
        next_sentence=data.has_next_sentence,
        seed=5,
        activation_checkpointing=case.activation_checkpointing,
    ).to(case.dtype)
    model: nn.Module = bare_model
    if world.size > 1:
        model = DistributedDataParallel(bare_model, gradient_as_bucket_view=True)
    num_predictions, num_samples = world.sum_numbers(step.num_predictions, step.num_samples)
    sums = backward(
        model,
        step.micro_batches,
        num_predictions=num_predictions,
        num_samples=num_samples,
        world=world,
        seed=0,
        autocast=nullcontext(),
    )
    gradients = {name: one.grad.clone() for name, one in bare_model.named_parameters() if one.grad is not None}
    return gradients, world.sum(sums)


def run_rank(folder: Path, rank: int) -> None:
    """Takes the steps of one process, and writes gradients and sums by number of processes and number of the case."""
    torch.set_num_threads(1)
    data = {name: TrainingData(data_sets=(open_data_set(str(folder / name)),)) for name in ("shards", "no-pairs")}
    found = {}
    for size in SIZES:
        if rank >= size:
            continue
        if size > 1:
            meeting = f"file://{folder}/meeting-{size}"
            dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
        world = World(rank=rank, size=size, device=torch.device("cpu"))
        for number, case in enumerate(CASES):
            found[size, number] = take_step(case, data[case.data], world=world)
        if size > 1:
            dist.destroy_process_group()
    torch.save(found, folder / f"rank-{rank}.pt")


def main(folder: Path) -> None:
    """Runs all processes; when one fails, the others do not wait for it."""
    fork = multiprocessing.get_context("fork")  # torch is imported once; no thread has been started yet
    processes = [fork.Process(target=run_rank, args=(folder, rank)) for rank in range(max(SIZES))]
    for process in processes:
        process.start()
    waiting = {process.sentinel: process for process in processes}
    while waiting:
        for sentinel in wait(list(waiting)):
            process = waiting.pop(sentinel)  # type: ignore[call-overload]
            process.join()
            if process.exitcode:
                for other in processes:
                    other.kill()
                sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
