"""Dropout whose masks come from few random numbers on a CPU, and from torch elsewhere.

torch draws a number for each value in one thread: on a CPU that is a twentieth of a training step and more. Here one
draw of 64 bits decides on four values.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Dropout"]

_STEPS = 1 << 16


class _AddDropped(torch.autograd.Function):
    """`residual + dropout(values)`; the residual may be None."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, residual: Tensor | None, probability: float) -> Tensor:
        num_dropped = min(round(probability * _STEPS), _STEPS - 1)  # of none kept, no mean could stay
        bits = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
        bits = bits.view(torch.int16)[: values.numel()].view(values.shape)
        is_kept = bits >= num_dropped - _STEPS // 2
        ctx.save_for_backward(is_kept)
        ctx.scale = _STEPS / (_STEPS - num_dropped)  # of what is really kept, so that the mean stays exactly
        factors = is_kept.to(values.dtype).mul_(ctx.scale)
        return factors.mul_(values) if residual is None else torch.addcmul(residual, values, factors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (is_kept,), (grad,) = ctx.saved_tensors, grads
        dropped = is_kept.to(grad.dtype).mul_(ctx.scale).mul_(grad)
        return dropped, grad if ctx.needs_input_grad[1] else None, None


class Dropout(nn.Module):
    """Sets values to 0 at random and adds what bypassed the layer.

    All draws come from torch's generator of the device.

    Args:
        probability: Share of the values that become 0; below 1. On a CPU it is rounded to a multiple of 2**-16 below 1.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, values: Tensor, residual: Tensor | None = None) -> Tensor:
        """Returns the values that are left, scaled so that their mean stays, plus the residual if there is one."""
        if self.training and self.probability and values.device.type == "cpu" and not torch.compiler.is_compiling():
            added: Tensor = _AddDropped.apply(values, residual, self.probability)  # type: ignore[no-untyped-call]
            return added
        dropped = F.dropout(values, self.probability, self.training)
        return dropped if residual is None else dropped + residual
