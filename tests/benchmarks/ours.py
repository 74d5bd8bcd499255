"""Our loader: how the benchmark calls it, its memory, where its time goes, and how much of a training step it takes."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import click
import numpy as np
import torch

import bertdata.data_set
import trainer.assembler
import trainer.train
from bertdata.data_set import DataSet, open_data_set
from tests.benchmarks.batches import BATCH_SIZE
from tests.benchmarks.timing import StageTimes
from trainer.arena import Arena
from trainer.assembler import Assembler
from trainer.config import ModelOptions, TrainOptions
from trainer.data import TrainingData
from trainer.distributed import World
from trainer.loader import Loader
from trainer.order import BlockTable, Order
from trainer.plan import Plan

__all__ = [
    "batches_per_epoch",
    "measure_memory",
    "measure_plan",
    "measure_spread",
    "measure_stages",
    "measure_training",
    "ours",
]

STAGES = (
    ("all else", Assembler, "prepare"),
    ("order", Order, "window"),
    ("read", os, "pread"),
    ("CRC-32", zlib, "crc32"),
    ("decode and checks", bertdata.data_set, "read_block"),
    ("decode and checks", DataSet, "read"),
    ("blocks to the arena", Arena, "add"),
    ("gather and mask", Arena, "show"),
    ("batches", trainer.assembler, "cut_step"),
)


def loader_of(data_set: DataSet, *, batch_size: int = BATCH_SIZE, rank: int = 0, world_size: int = 1) -> Loader:
    """Returns a loader as a run makes it."""
    data = TrainingData(data_sets=(data_set,))
    plan = data.make_plan(data.initial_state(seed=0, batch_size=batch_size))
    return Loader(plan, data.open_split("train"), rank=rank, world_size=world_size, cutting=data.make_cutting())


def ours(data_set: DataSet) -> Iterator[Any]:
    """Yields the batches of our loader, without end."""
    for batches in loader_of(data_set).steps(0):
        yield from batches.micro_batches


def batches_per_epoch(data_set: DataSet) -> int:
    """Returns how many batches are full in an epoch."""
    return int(data_set.blocks("train").num_samples.sum()) // BATCH_SIZE


def measure_memory(data_set: DataSet) -> None:
    """Prints what the loader needs before its first batch and in an epoch, from a process that does nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        click.echo(pool.apply(_memory, (data_set.folder,)))


def _memory(folder: Path) -> str:
    torch.set_num_threads(1)
    data_set = open_data_set(folder)
    index, num_batches = data_set.blocks("train"), batches_per_epoch(data_set)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, start = _status("VmRSS"), time.perf_counter()
    batches = ours(data_set)
    next(batches)
    first, held = time.perf_counter() - start, _status("VmRSS")
    with mock.patch.object(DataSet, "read", autospec=True, side_effect=DataSet.read) as read:
        for _ in itertools.islice(batches, num_batches):
            pass
    reads = read.call_count / len(index) * float(index.num_samples.sum()) / (num_batches * BATCH_SIZE)
    return (
        f"ours: the first batch comes after {first:.2f} s, and memory has grown by {(held - before) / 2**20:,.0f} MiB, "
        f"in the epoch after it by {(_status('VmHWM') - before) / 2**20:,.0f} MiB at most; for each block's worth of "
        f"samples {reads:.2f} blocks are read"
    )


def measure_plan(*, num_samples: int = 1_000_000_000) -> None:
    """Prints what the order of very many samples costs before its first batch, from a process that does nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        click.echo(pool.apply(_plan, (num_samples,)))


def _plan(num_samples: int) -> str:
    num_blocks = -(-num_samples // 1024)
    table = BlockTable(sizes=np.full(num_blocks, 1024), shards=np.arange(num_blocks) // 130, num_mask_sets=5)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, start = _status("VmRSS"), time.perf_counter()
    Plan([table], seed=0, batch_size=BATCH_SIZE).step_samples(123_456)
    return (
        f"\nA plan of {num_samples:,} samples in {num_blocks:,} blocks knows its batch 123,456 after "
        f"{time.perf_counter() - start:.2f} s and {(_status('VmHWM') - before) / 2**20:,.0f} MiB (to reach: 2 s, 200 MB)"
    )


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024


def measure_stages(data_set: DataSet) -> None:
    """Prints where the time of an epoch goes, after one that is not counted."""
    times, num_batches = StageTimes(), batches_per_epoch(data_set)
    # Functions that are looked up once are found replaced by what is made within.
    with times.watch(STAGES):
        batches = ours(data_set)
        for _ in itertools.islice(batches, num_batches):
            pass
        times.seconds.clear()
        start = time.process_time()
        for _ in itertools.islice(batches, num_batches):
            pass
        total = time.process_time() - start
    times.seconds["all else"] = total - sum(taken for stage, taken in times.seconds.items() if stage != "all else")
    click.echo(f"\nAn epoch, {num_batches * BATCH_SIZE / total:,.0f} samples/s while each stage is timed")
    for stage, seconds in times.seconds.items():
        each = seconds / num_batches
        click.echo(f"{stage:<34} {seconds:>9.2f} s {seconds / total:>7.1%} {each * 1e6:>9.0f} us per batch")


def measure_spread(data_set: DataSet, *, num_ranks: int = 8, num_steps: int = 50) -> None:
    """Prints how much more tokens the rank with the most has in a step than ranks have on average."""
    for batch_size in (256, 4096):
        if batch_size > int(data_set.blocks("train").num_samples.sum()):
            continue
        loaders = [
            loader_of(data_set, batch_size=batch_size, rank=rank, world_size=num_ranks) for rank in range(num_ranks)
        ]
        tokens = np.array([[batches.num_tokens for batches in loader.steps(0, num_steps)] for loader in loaders])
        most = tokens.max(axis=0) / tokens.mean(axis=0) - 1
        click.echo(
            f"batches of {batch_size} on {num_ranks} ranks: the rank with the most tokens has {most.mean():.1%} more than "
            f"the average, {most.max():.1%} in the worst of {num_steps} steps"
        )


def measure_training(data_set: DataSet, folder: Path, *, model: str, num_steps: int) -> None:
    """Prints the share of a training step that is spent waiting for its batch, on the CPU.

    Args:
        data_set: What is trained on.
        folder: Where the run may leave its files.
        model: Size of the model.
        num_steps: Steps of the run; the first one, which waits for the first blocks, is told apart.
    """
    max_seq_length = data_set.manifest.options["pairs"]["max_seq_length"]
    options = TrainOptions(
        out=str(folder / f"run-{max_seq_length}"),
        model=ModelOptions.of_size(model, vocab_size=data_set.manifest.tokenizer.vocab_size),
        batch_size=BATCH_SIZE,
        micro_batch_size=32,
        max_steps=num_steps,
        learning_rate=1e-4,
        warmup_steps=1,
        eval_samples=1,
        log_every=1,
    )
    world = World(rank=0, size=1, device=torch.device("cpu"))
    rows = [
        row
        for row in trainer.train.train(TrainingData(data_sets=(data_set,)), options, world=world)
        if row["kind"] == "train"
    ]
    seconds = np.array([BATCH_SIZE / row["sequences_per_second"] for row in rows])
    waits = seconds * [row["data_wait"] for row in rows]
    click.echo(
        f"\nL = {max_seq_length}, {model}, batches of {BATCH_SIZE}: the first batch comes after {waits[0]:.2f} s, "
        f"a step takes {seconds[1:].mean():.3f} s, and {waits[1:].sum() / seconds[1:].sum():.2%} of the time is spent "
        "waiting for data (to reach: under 1%)"
    )
