"""Ways to train on a GPU: ours with its options, and a plain loop over transformers, all on real shards.

A way takes real optimizer steps: loader, forward and backward pass, clipping, optimizer. Counted are useful tokens.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tests.benchmarks.gpu_measuring import Row, clock, peak_memory
from trainer.compiling import LossSums, compile_step, hold_gradients, holds_gradients
from trainer.config import ModelOptions, TrainOptions
from trainer.data import TrainingData, open_training_data
from trainer.distributed import World
from trainer.export import hf_weights
from trainer.flops import training_flops
from trainer.loader import Loader
from trainer.metrics import pretraining_sums
from trainer.model import build_model
from trainer.optimizer import make_optimizer
from trainer.step import autocast_for, backward, cutting_for

OURS, THEIRS = "ours", "transformers"
WARM_UP = 4  # steps


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


def compile_model(model: nn.Module, way: Way, *, layers: nn.ModuleList) -> None:
    """Compiles a model in place, or its layers, as torch does by itself."""
    if way.compile is None:
        return
    mode = way.compile if way.backend == "inductor" and way.compile != "default" else None
    for module in layers if way.by_layer else [model]:
        module.compile(mode=mode, backend=way.backend, dynamic=way.dynamic)


class Step:
    """Takes optimizer steps in one way; each call takes one and returns its tokens.

    Args:
        way: The way.
        options: Of the run.
        data: The data sets.
        device: Where it computes.
    """

    def __init__(self, way: Way, options: TrainOptions, *, data: TrainingData, device: torch.device) -> None:
        self.waited = 0.0
        self.num_padded = 0
        self.losses = torch.zeros((), dtype=torch.float64, device=device)
        world = World(rank=0, size=1, device=device)
        is_ours = way.library == OURS
        cutting = cutting_for(data, options, device=device) if is_ours else data.make_cutting()
        plan = data.make_plan(data.initial_state(seed=options.seed, batch_size=options.batch_size))
        loader = Loader(
            plan,
            data.open_split("train"),
            rank=0,
            world_size=1,
            cutting=cutting,
            num_workers=options.num_loader_workers,
        )
        self._batches = loader.steps(0)
        model = build_model(
            options.model,
            next_sentence=options.next_sentence,
            activation_checkpointing=is_ours and options.activation_checkpointing,
        )
        self._take = (
            self._ours(way, options, world, model) if is_ours else self._theirs(way, options, data, world, model)
        )

    def __call__(self) -> int:
        start = time.perf_counter()
        batches = next(self._batches)
        self.waited += time.perf_counter() - start
        self._take(batches)
        return int(batches.num_tokens)

    def _ours(self, way: Way, options: TrainOptions, world: World, model: Any) -> Callable[[Any], None]:
        model = model.to(world.device).train()
        self.model = model
        loss_sums: LossSums = pretraining_sums
        if way.compile is not None and way.with_losses and not way.by_layer:
            mode: Any = way.compile if way.backend == "inductor" else "default"
            loss_sums = compile_step(model, mode=mode, dynamic=way.dynamic, backend=way.backend)
        else:
            compile_model(model, way, layers=model.bert.encoder.layer)
        self.optimizer = optimizer = make_optimizer(model, options)
        autocast = autocast_for(options, device=world.device)
        holds = way.compile is not None and holds_gradients(way.compile)  # type: ignore[arg-type]
        if holds:
            hold_gradients(model)
        numbers = itertools.count()

        def take(batches: Any) -> None:
            self.num_padded += sum(len(batch.token_ids) for batch in batches.micro_batches)
            sums = backward(
                model,
                batches.micro_batches,
                num_predictions=batches.num_predictions,
                num_samples=batches.num_samples,
                world=world,
                seed=next(numbers),
                autocast=autocast,
                loss_sums=loss_sums,
            )
            nn.utils.clip_grad_norm_(model.parameters(), options.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=not holds)
            self.losses = sums[0] / batches.num_predictions + sums[3] / batches.num_samples

        return take

    def _theirs(
        self, way: Way, options: TrainOptions, data: TrainingData, world: World, model: Any
    ) -> Callable[[Any], None]:
        from tests.benchmarks.train_peers import TransformersWay, hf_model, padded_batches

        other = hf_model(options.model, weights=hf_weights(model)).to(world.device)
        self.model = other
        trained = TransformersWay(other, bf16=options.precision == "bf16")
        self.optimizer = trained.optimizer = make_optimizer(other, options)
        compile_model(other, way, layers=other.bert.encoder.layer)
        pad_token_id = data.tokenizer.roles["pad"]
        numbers = itertools.count()

        def take(batches: Any) -> None:
            (whole,) = batches.micro_batches
            if way.fixed_width:
                whole = whole._replace(max_seqlen=data.max_seq_length)
            size = options.micro_batch_size
            made = list(padded_batches(whole, micro_batch_size=size, pad_token_id=pad_token_id, seed=next(numbers)))
            if way.fixed_width:
                made = [_widened(batch, data.max_seq_length, pad_token_id=pad_token_id) for batch in made]
            self.num_padded += sum(batch["input_ids"].numel() for batch in made)
            self.losses = trained.step(made)

        return take


def _widened(batch: dict[str, torch.Tensor], width: int, *, pad_token_id: int) -> dict[str, torch.Tensor]:
    """Returns a micro-batch for transformers padded to a width."""
    fillings = {"input_ids": pad_token_id, "labels": -100}

    def pad(name: str, values: torch.Tensor) -> torch.Tensor:
        more = width - values.shape[-1]
        return nn.functional.pad(values, (0, more), value=fillings.get(name, 0)) if values.dim() == 2 else values

    return {name: pad(name, values) for name, values in batch.items()}


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
