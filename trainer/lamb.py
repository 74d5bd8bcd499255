"""LAMB: Adam whose step is scaled, parameter tensor by parameter tensor, to the size of the weights; for large batches.

Source: You et al. 2020 (arXiv 1904.00962), algorithm 2, with the identity for the paper's phi. As in NVIDIA's
DeepLearningExamples, whose recipe `lamb-large` is, groups without weight decay (biases and LayerNorm) have no trust
ratio either; gradients are clipped by their global norm before, outside of the optimizer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["FAR_ON", "Lamb"]

FAR_ON = 1e30
"""A step so far on that Adam's bias correction divides by 1 exactly; a float32 that stays the same when 1 is added."""


class Lamb(torch.optim.Optimizer):
    """LAMB over lists of tensors, without waiting for the device.

    With gradient g, weights w, rate lr and decay d, of each tensor in step t:

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        u = m / (1 - beta1**t) / (sqrt(v / (1 - beta2**t)) + eps) + d * w
        w = w - lr * |w| / |u| * u       where |w| or |u| is 0, or the group is not decayed: w - lr * u

    The state of a parameter is `step`, `exp_avg` (m) and `exp_avg_sq` (v), as in `torch.optim.AdamW`.

    Args:
        params: Parameters, named parameters or groups of them, as `torch.optim.Optimizer` takes them.
        lr: Learning rate.
        betas: Decay of the moving averages of gradients and of their squares, per step.
        eps: Added to the square root of v; above 0.
        weight_decay: Decay per step, times the rate and the trust ratio; 0 for none, and no trust ratio.
        bias_correction: Whether m and v are divided by what they lack in the first steps. If not, the steps are
            counted from `FAR_ON`.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        bias_correction: bool = True,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "bias_correction": bias_correction,
            "fused": True,  # on loading a state, `Optimizer` then puts the steps where `_fused_adamw_` wants them
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Moves all parameters that have a gradient; returns what `closure` returns, if one is given."""
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        for group in self.param_groups:
            first_step = 0.0 if group["bias_correction"] else FAR_ON
            params = [param for param in group["params"] if param.grad is not None]
            states = [self._state_of(param, first_step=first_step) for param in params]
            # A CPU gains nothing from lists; one by one, the updates stay in its caches.
            at_once = 1 if params and params[0].device.type == "cpu" else max(1, len(params))
            for first in range(0, len(params), at_once):
                _move(params[first : first + at_once], states[first : first + at_once], group=group)
        return result

    def _state_of(self, param: Tensor, *, first_step: float) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[param]
        if not state:
            state["step"] = torch.full((), first_step, dtype=torch.float32, device=param.device)
            state["exp_avg"] = torch.zeros_like(param, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(param, memory_format=torch.preserve_format)
        return state


def _move(params: list[Tensor], states: list[dict[str, Tensor]], *, group: dict[str, Any]) -> None:
    """Makes one step with the parameters of a group."""
    decay, (beta1, beta2) = group["weight_decay"], group["betas"]
    steps = [state["step"] for state in states]
    torch._foreach_add_(steps, 1)
    # AdamW's kernel moves `updates`, d * w, by -lr * (its step); with a rate of -1 they become u, in one pass.
    updates = list(torch._foreach_mul(params, decay))
    torch._fused_adamw_(
        updates,
        [param.grad for param in params if param.grad is not None],
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        steps,
        lr=-1.0,
        beta1=beta1,
        beta2=beta2,
        weight_decay=0.0,
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
    )
    if not decay:
        torch._foreach_add_(params, updates, alpha=-group["lr"])
        return
    weight_norms, update_norms = (torch.stack(torch._foreach_norm(tensors)) for tensors in (params, updates))
    ratios = weight_norms / update_norms
    ratios.masked_fill_((weight_norms == 0) | (update_norms == 0), 1.0)
    torch._foreach_addcmul_(params, updates, ratios.unbind(), value=-group["lr"])
