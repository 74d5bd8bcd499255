"""What a run does where nothing was said: chosen by the data set's size and the device, or as in its checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bertdata.errors import TrainingError
from trainer.config import ModelOptions, Precision, TrainOptions, load_model_options
from trainer.data import TrainingData
from trainer.plan import num_lanes_of

__all__ = ["Request", "choose_options"]

_LEARNING_RATES = {"tiny": 3e-3, "mini": 1e-3, "small": 5e-4, "base": 1e-4, "large": 1e-4}  # for a batch of 256


_KEPT = (
    "learning_rate",
    "warmup_steps",
    "optimizer",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "bias_correction",
    "schedule_steps",
    "schedule_start",
    "decay_power",
    "max_grad_norm",
    "preset",
    "phase",
    "init",
    "init_optimizer",
    "tensorboard",
    "eval_every",
    "eval_samples",
    "save_every",
    "keep",
    "log_every",
    "window_blocks",
    "shuffle_shards",
    "seed",
)
"""Settings that a continued run takes from its checkpoint; the others belong to the machine."""

_GPU_TOKENS = 32768
"""Tokens of a micro-batch of the base model that a GPU with 16 GB holds; other models by layers times width."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What was asked for on the command line; None is "choose for me".

    Attributes:
        out: Folder of the run.
        size: Name of a published model size.
        config: A config.json to take the model's shape from.
        hidden_dropout: Dropout of embeddings and layer outputs.
        epochs: Times that every sample is shown, may be a fraction.
        settings: Values for fields of `TrainOptions`, by name; None for those not given.
    """

    out: str
    size: str | None = None
    config: Path | None = None
    hidden_dropout: float | None = None
    epochs: float | None = None
    settings: dict[str, Any]


def choose_options(
    request: Request, *, data: TrainingData, device_type: str, world_size: int, before: dict[str, Any] | None
) -> TrainOptions:
    """Returns complete options for a run.

    Args:
        request: What was asked for.
        data: The data to train on.
        device_type: "cpu" or "cuda".
        world_size: Number of processes.
        before: `TrainOptions.to_json()` in the run's checkpoint; None for a new run. What is not asked for is then as
            it was, except what belongs to the machine.

    Raises:
        TrainingError: When an option is not allowed, or the data set has no training samples or too long ones.
    """
    num_samples, num_tokens = data.num_samples("train"), data.num_tokens("train")
    if num_samples == 0:
        raise TrainingError(f"{data} has no training samples; build it from more text")
    old = before or {}
    given = {name: value for name, value in request.settings.items() if value is not None}
    on_gpu = device_type == "cuda"

    model = _choose_model(request, data=data, num_tokens=num_tokens, on_gpu=on_gpu, before=old.get("model"))
    longest = data.max_seq_length
    if longest > model.max_position_embeddings:
        raise TrainingError(
            f"the samples have up to {longest} tokens, the model {model.max_position_embeddings} positions; give a "
            "--config with a larger max_position_embeddings, or build with a smaller --max-seq-length"
        )
    batch_size = given.get("batch_size") or old.get("batch_size")
    batch_size = batch_size or _choose_batch_size(num_samples, on_gpu=on_gpu, world_size=world_size)
    max_steps = given.get("max_steps") or (None if request.epochs else old.get("max_steps"))
    if max_steps is None:
        epochs = request.epochs or _choose_epochs(num_samples, batch_size=batch_size, on_gpu=on_gpu)
        steps = epochs * num_samples / batch_size
        if not math.isfinite(steps):
            raise TrainingError(f"--epochs is {epochs:g}; give a finite number of them, or --max-steps")
        max_steps = max(1, math.ceil(steps))
    share = max(1, batch_size // world_size)
    precision: Precision = "bf16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    chosen: dict[str, Any] = {
        "batch_size": batch_size,
        "micro_batch_size": min(share, _gpu_micro_batch_size(model, longest=longest) if on_gpu else 128),
        "max_steps": max_steps,
        "learning_rate": _learning_rate(model, batch_size=batch_size),
        "warmup_steps": min(10_000, max_steps // 10),
        "precision": precision,
        "compile": False,
        "num_loader_workers": 1 if on_gpu else 0,
        "next_sentence": data.has_next_sentence,
        "save_every": min(1000, max(1, max_steps // 20)),
        "log_every": 50,
    }
    kept = {name: old[name] for name in _KEPT if name in old}
    if max_steps != old.get("max_steps"):
        kept.pop("warmup_steps", None)
    return TrainOptions(out=request.out, model=model, **(chosen | kept | given | {"max_steps": max_steps}))


def _choose_model(
    request: Request, *, data: TrainingData, num_tokens: int, on_gpu: bool, before: dict[str, Any] | None
) -> ModelOptions:
    vocab_size = data.tokenizer.vocab_size
    dropout = request.hidden_dropout
    if dropout is None:
        dropout = before["hidden_dropout_prob"] if before else 0.1
    if request.config is not None:
        return load_model_options(request.config, vocab_size=vocab_size, hidden_dropout_prob=dropout)
    if request.size is None and before is not None:
        return ModelOptions(**(before | {"hidden_dropout_prob": dropout}))
    size = request.size
    if size is None:  # about 20 tokens per parameter of a GPU's model; a CPU trains nothing larger than tiny in minutes
        size = "tiny" if not on_gpu or num_tokens < 20e6 else "small" if num_tokens < 500e6 else "base"
    return ModelOptions.of_size(size, vocab_size=vocab_size, hidden_dropout_prob=dropout)


def _choose_batch_size(num_samples: int, *, on_gpu: bool, world_size: int) -> int:
    """Returns a power of two times the processes: at least 50 steps per epoch, 64 samples on a CPU, 256 on GPUs.

    It is one whose lanes the processes can share, if there is any.
    """
    largest = 256 if on_gpu else 64
    chosen = batch_size = world_size
    while batch_size * 2 <= largest and batch_size * 100 <= num_samples:
        batch_size *= 2
        if num_lanes_of(batch_size) % world_size == 0:
            chosen = batch_size
    return chosen


def _gpu_micro_batch_size(model: ModelOptions, *, longest: int) -> int:
    tokens = _GPU_TOKENS * (12 * 768) // (model.num_hidden_layers * model.hidden_size)
    return max(1, min(tokens, 4 * _GPU_TOKENS) // longest)


def _choose_epochs(num_samples: int, *, batch_size: int, on_gpu: bool) -> int:
    """Returns the epochs that make about 600 steps on a CPU, 100,000 on GPUs; at most 40, as published."""
    steps = 100_000 if on_gpu else 600
    return min(40, max(1, round(steps * batch_size / num_samples)))


def _learning_rate(model: ModelOptions, *, batch_size: int) -> float:
    """Returns a rate by the model's width, for a batch of 256; it grows with the square root of the batch."""
    sizes = {128: "tiny", 256: "mini", 512: "small", 768: "base"}
    width = min((width for width in sizes if width >= model.hidden_size), default=None)
    return float(f"{_LEARNING_RATES[sizes[width] if width else 'large'] * math.sqrt(batch_size / 256):.2g}")
