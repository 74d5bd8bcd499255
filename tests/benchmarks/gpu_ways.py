"""Ways to train on a GPU: ours with its options, and a plain loop over transformers, all on real shards.

A way takes real optimizer steps: loader, forward and backward pass, clipping, optimizer. Counted are useful tokens.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch

from trainer.config import ModelOptions, TrainOptions
from trainer.data import TrainingData

OURS, THEIRS = "ours", "transformers"


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to train.

    Attributes:
        name: What is printed.
        library: `OURS` or `THEIRS`.
        tokens: Tokens of a micro-batch, about; padding counted where it is theirs.
        micro_batches: Of a global batch.
        compile: Mode of torch.compile; None for none.
        backend: Of torch.compile.
        dynamic: Whether one graph is for all shapes.
        with_losses: Whether the losses are compiled, too.
        by_layer: Whether each layer is compiled by itself, which takes a fraction of the time.
        fixed_width: For theirs: whether samples are padded to the longest that there is, not to that of the micro-batch.
        half_residuals: For ours: whether hidden states are kept in bfloat16 between the layers, not in float32.
        half_weights: For ours: whether weights and optimizer are in bfloat16: no way to train, but the limit of what
            fewer casts can give.
        changes: Fields of `TrainOptions` that differ.
    """

    name: str
    library: str = OURS
    tokens: int = 32768
    micro_batches: int = 1
    compile: str | None = "default"
    backend: str = "inductor"
    dynamic: bool = True
    with_losses: bool = True
    by_layer: bool = False
    fixed_width: bool = False
    half_residuals: bool = False
    half_weights: bool = False
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def train_options(way: Way, *, data: TrainingData, model: str, device: torch.device, dropout: float) -> TrainOptions:
    """Returns the options of a run that trains in a way."""
    mean_length = data.num_tokens("train") / data.num_samples("train")
    longest = data.max_seq_length if way.library == THEIRS else mean_length
    size = 1 << max(0, round(math.log2(way.tokens / longest)))  # a power of two, so that lanes divide it
    values: dict[str, Any] = {
        "out": "",
        "model": ModelOptions.of_size(model, vocab_size=data.tokenizer.vocab_size, hidden_dropout_prob=dropout),
        "batch_size": size * way.micro_batches,
        "micro_batch_size": size,
        "max_steps": 1 << 20,
        "learning_rate": 1e-4,
        "warmup_steps": 100,
        "precision": "bf16",
        "next_sentence": data.has_next_sentence,
        "num_loader_workers": 1 if device.type == "cuda" else 0,
    }
    return TrainOptions(**(values | way.changes))


SPEED = {
    OURS: (
        Way(name="ours, 64k tokens", tokens=65536),
        Way(name="ours, 32k tokens", tokens=32768),
    ),
    THEIRS: (
        Way(name="transformers, padded to 512", library=THEIRS, dynamic=False, fixed_width=True),
        Way(name="transformers, padded to longest", library=THEIRS),
        Way(name="transformers, 64k tokens", library=THEIRS, tokens=65536, dynamic=False, fixed_width=True),
    ),
}

WAYS = (
    Way(name="eager", compile=None),
    Way(name="compiled, losses too, any shape"),
    Way(name="compiled without losses", with_losses=False),
    Way(name="64k tokens", tokens=65536),
    Way(name="128k tokens", tokens=131072),
    Way(name="16k tokens", tokens=16384),
    Way(name="fixed shapes", dynamic=False, changes={"pad_to_multiple": 1024}),
    Way(name="CUDA graphs", compile="reduce-overhead", changes={"pad_to_multiple": 1024}),
    Way(name="fixed shapes, CUDA graphs", compile="reduce-overhead", dynamic=False, changes={"pad_to_multiple": 1024}),
    Way(name="hidden states in bf16", half_residuals=True),
    Way(name="all in bf16, the limit", half_residuals=True, half_weights=True),
    Way(name="layer by layer", by_layer=True),
    Way(
        name="fixed shapes, autotuned",
        compile="max-autotune-no-cudagraphs",
        dynamic=False,
        changes={"pad_to_multiple": 1024},
    ),
    Way(name="checkpointing, 128k tokens", tokens=131072, changes={"activation_checkpointing": True}),
)
