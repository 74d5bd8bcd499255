"""AdamW, its decay groups, and the learning rate as a pure function of the step."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["learning_rate_at", "make_optimizer"]


def make_optimizer(model: nn.Module, *, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Returns AdamW for all trainable parameters; biases and LayerNorm are not decayed.

    Args:
        model: The model, already on its device.
        learning_rate: Initial rate; `learning_rate_at` gives that of each step.
        weight_decay: Decoupled decay per step, times the learning rate.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    plain = [parameter for name, parameter in trained if name.endswith("bias") or "LayerNorm" in name]
    decayed = [parameter for name, parameter in trained if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    # Betas and eps of the published BERT. Fused: one pass over the parameters, on CPU as well as on CUDA.
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.999), eps=1e-6, fused=True)


def learning_rate_at(step: int, *, peak: float, warmup_steps: int, max_steps: int) -> float:
    """Returns the learning rate of optimizer step number `step` (from 0).

    It grows linearly to `peak` over the warm-up, then falls linearly and would reach 0 one step after the last.

    >>> [learning_rate_at(step, peak=1.0, warmup_steps=2, max_steps=6) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak * max(0.0, (max_steps - step) / max(1, max_steps - warmup_steps))
