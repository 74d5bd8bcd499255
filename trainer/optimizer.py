"""AdamW, its decay groups, and the learning rate as a pure function of the step."""

from __future__ import annotations

import torch
from torch import nn

from trainer.config import TrainOptions

__all__ = ["learning_rate_at", "make_optimizer"]


def make_optimizer(model: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """Returns the optimizer of all trainable parameters; biases and LayerNorm are not decayed.

    Args:
        model: The model, already on its device.
        options: Its kind and values; `learning_rate_at` gives the rate of each step.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    plain = [parameter for name, parameter in trained if name.endswith("bias") or "LayerNorm" in name]
    decayed = [parameter for name, parameter in trained if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    betas = (options.adam_beta1, options.adam_beta2)
    # Fused: one pass over the parameters, on CPU as well as on CUDA.
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=betas, eps=options.adam_epsilon, fused=True)


def learning_rate_at(step: int, options: TrainOptions) -> float:
    """Returns the learning rate of optimizer step number `step` (from 0).

    It grows linearly over the warm-up, then falls linearly and would reach 0 one step after the last.
    """
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / options.warmup_steps
    left = (options.max_steps - step) / max(1, options.max_steps - options.warmup_steps)
    return options.learning_rate * max(0.0, left)
