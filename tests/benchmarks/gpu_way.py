"""Measuring one way to train: what it does in a second of real optimizer steps, and what it takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from tests.benchmarks.gpu_measuring import Row, clock, peak_memory
from tests.benchmarks.gpu_steps import Step
from tests.benchmarks.gpu_ways import Way, train_options
from trainer.data import TrainingData, open_training_data
from trainer.flops import training_flops
from trainer.loader import Loader

WARM_UP = 4  # steps


def mean_counts(data: TrainingData, *, batch_size: int, num_batches: int = 8) -> tuple[float, float, float]:
    """Returns tokens, squared lengths and predictions per sample, from the first global batches."""
    plan = data.make_plan(data.initial_state(seed=0, batch_size=batch_size))
    loader = Loader(plan, data.open_split("train"), rank=0, world_size=1, cutting=data.make_cutting())
    tokens = squares = predictions = 0
    for batches in loader.steps(0, num_batches):
        (whole,) = batches.micro_batches
        tokens += batches.num_tokens
        squares += int(whole.cu_seqlens.diff().long().square().sum())
        predictions += batches.num_predictions
    return tuple(value / (num_batches * batch_size) for value in (tokens, squares, predictions))  # type: ignore[return-value]


def rows(settings: dict[str, Any]) -> Iterator[Row]:
    """Yields one row: what a way does in a second, and what it takes.

    Args:
        settings: `way` as `Way.to_json` gives it, `shards`, `device`, `model`, `dropout`, `peak`, `seconds` to measure.
    """
    way = Way(**settings["way"])
    device = torch.device(settings["device"])
    data = open_training_data([settings["shards"]])
    options = train_options(way, data=data, model=settings["model"], device=device, dropout=settings["dropout"])
    tokens, squares, predictions = mean_counts(data, batch_size=options.batch_size)
    opened = clock(device)
    step = Step(way, options, data=data, device=device)
    step()
    first_seconds = clock(device) - opened
    for _ in range(WARM_UP - 1):
        step()
    begin = clock(device)
    step()
    once = clock(device) - begin
    num_steps = max(3, round(settings["seconds"] / once))
    step.waited, step.num_padded, num_tokens = 0.0, 0, 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    begin = clock(device)
    for _ in range(num_steps):
        num_tokens += step()
    seconds = clock(device) - begin
    num_samples = num_steps * options.batch_size
    flops = training_flops(
        options.model,
        num_tokens=num_tokens,
        squared_lengths=squares / tokens * num_tokens,
        num_predictions=predictions / tokens * num_tokens,
    )
    yield {
        "sequences_per_second": num_samples / seconds,
        "tokens_per_second": num_tokens / seconds,
        "mfu": flops / seconds / settings["peak"],
        "data_wait": step.waited / seconds,
        "padding": step.num_padded / num_tokens - 1,
        "memory_gb": peak_memory(device),
        "first_seconds": first_seconds,
        "num_steps": num_steps,
        "micro_batch_size": options.micro_batch_size,
        "batch_size": options.batch_size,
        "loss": float(step.losses),
    }
