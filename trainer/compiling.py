"""Running a model and its losses through torch.compile.

The losses are a graph of their own behind the model's: so they need no copy of the logits in float32, forward or
backward, which without compilation takes twice the memory of the logits and several passes over it.

With CUDA graphs a step is replayed into the same memory. A gradient that stays there would be overwritten by the next
micro-batch instead of being added to (pytorch issue 169545), so gradients get memory of their own before the first one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainer.batch import Batch
from trainer.config import CompileMode
from trainer.metrics import pretraining_sums
from trainer.model import Outputs

__all__ = ["LossSums", "compile_step", "hold_gradients", "holds_gradients"]

LossSums = Callable[[Outputs, Batch], tuple[Tensor, Tensor, Tensor]]
"""What `trainer.metrics.pretraining_sums` is, compiled or not."""


def compile_step(
    model: nn.Module, *, mode: CompileMode = "default", dynamic: bool = True, backend: str = "inductor"
) -> LossSums:
    """Compiles a model in place, so that the names of its parameters stay.

    Args:
        model: The model.
        mode: Of torch.compile, see `trainer.config.CompileMode`.
        dynamic: Whether there is one graph for all shapes; otherwise one for each, which is for fixed shapes only.
        backend: Of torch.compile.

    Returns:
        The losses, compiled.
    """
    chosen = None if mode == "default" else mode
    model.compile(mode=chosen, dynamic=dynamic, backend=backend)
    compiled: LossSums = torch.compile(pretraining_sums, mode=chosen, dynamic=dynamic, backend=backend)
    return compiled


def holds_gradients(mode: CompileMode | None) -> bool:
    """Returns whether gradients must keep their memory from step to step."""
    return mode == "reduce-overhead"


def hold_gradients(model: nn.Module) -> None:
    """Gives each trained parameter a gradient of zeros."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
