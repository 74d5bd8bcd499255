"""One optimizer step of a way, ours or that of a plain loop over transformers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.benchmarks.gpu_ways import OURS, Way
from trainer.compiling import LossSums, compile_step, hold_gradients, holds_gradients
from trainer.config import TrainOptions
from trainer.data import TrainingData
from trainer.distributed import World
from trainer.export import hf_weights
from trainer.loader import Loader
from trainer.metrics import pretraining_sums
from trainer.model import build_model
from trainer.optimizer import clip_by_global_norm, make_optimizer
from trainer.step import autocast_for, backward, cutting_for

MANY_SHAPES = 64


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
        # Compiled for each shape by itself, there may be more shapes than torch compiles before it gives up.
        torch._dynamo.config.recompile_limit = MANY_SHAPES
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
        model = model.to(world.device, torch.bfloat16 if way.half_weights else None).train()
        for module in model.modules() if way.half_residuals else ():
            if isinstance(module, nn.LayerNorm):
                module.register_forward_hook(lambda _, __, output: output.bfloat16())
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
            clip_by_global_norm(model.parameters(), options.max_grad_norm)
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
