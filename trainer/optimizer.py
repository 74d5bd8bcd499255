"""AdamW or LAMB for a model: which parameters decay, clipping, and the state that a run takes from another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bertdata.errors import TrainingError
from trainer.lamb import FAR_ON, Lamb

if TYPE_CHECKING:
    from trainer.config import TrainOptions

__all__ = ["clip_by_global_norm", "is_decayed", "load_optimizer_state", "make_optimizer"]


def is_decayed(name: str) -> bool:
    """Returns whether the parameter of this name decays: all do but biases and LayerNorm (Devlin et al. 2018)."""
    return not (name.endswith("bias") or "LayerNorm" in name)


def make_optimizer(model: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """Returns the optimizer for all trainable parameters; biases and LayerNorm are not decayed.

    Its groups name their parameters, so that `load_optimizer_state` finds them in another model.

    Args:
        model: The model, already on its device.
        options: `optimizer`, `learning_rate` (that of each step comes from `trainer.schedule`), `adam_beta1`,
            `adam_beta2`, `adam_epsilon`, `weight_decay` and `bias_correction` are used. The groups know of the last,
            too: `load_optimizer_state` asks them.

    Source:
        Without bias correction, AdamW is AdamWeightDecayOptimizer of google-research/bert, `optimization.py`.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [pair for pair in trained if is_decayed(pair[0])], "weight_decay": options.weight_decay},
        {"params": [pair for pair in trained if not is_decayed(pair[0])], "weight_decay": 0.0},
    ]
    for group in groups:
        group["bias_correction"] = options.bias_correction
    betas = (options.adam_beta1, options.adam_beta2)
    if options.optimizer == "lamb":
        return Lamb(
            groups,
            lr=options.learning_rate,
            betas=betas,
            eps=options.adam_epsilon,
            bias_correction=options.bias_correction,
        )
    # Fused: one pass over the parameters, on a CPU as well as on CUDA.
    adamw = torch.optim.AdamW(groups, lr=options.learning_rate, betas=betas, eps=options.adam_epsilon, fused=True)
    _put_far_on(adamw)
    return adamw


def load_optimizer_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> list[str]:
    """Takes the moments of a saved optimizer; rate, decay, betas and bias correction stay those of this one.

    Args:
        optimizer: From `make_optimizer`.
        saved: `state_dict()` of another one of the same kind.

    Returns:
        Names of parameters that the saved optimizer did not have; they begin without moments.

    Raises:
        TrainingError: A parameter has another shape there.
    """
    found: dict[str, Any] = {}
    for group in saved["param_groups"]:
        names = group.get("param_names")
        if names is None:
            raise TrainingError(
                "the optimizer's state does not name its parameters; begin without it (--no-init-optimizer), or "
                "continue that run with the release that wrote it"
            )
        found |= {name: saved["state"].get(place) for name, place in zip(names, group["params"], strict=True)}

    plain = optimizer.state_dict()
    state, missing = {}, []
    for group, own in zip(optimizer.param_groups, plain["param_groups"], strict=True):
        for name, parameter, place in zip(group["param_names"], group["params"], own["params"], strict=True):
            moments = found.get(name)
            if moments is None:
                missing.append(name)
            elif moments["exp_avg"].shape != parameter.shape:
                raise TrainingError(
                    f"the optimizer's state of {name} has shape {list(moments['exp_avg'].shape)}, the model's is "
                    f"{list(parameter.shape)}; give the model of that run, or --no-init-optimizer"
                )
            else:
                state[place] = moments
    optimizer.load_state_dict({"state": state, "param_groups": plain["param_groups"]})
    _put_far_on(optimizer)
    return missing


def clip_by_global_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scales gradients down to a norm over all of them, and returns the norm before; 0 for measuring it only."""
    parameters = list(parameters)
    if max_norm:
        return nn.utils.clip_grad_norm_(parameters, max_norm)
    return nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])


def _put_far_on(optimizer: torch.optim.Optimizer) -> None:
    """Gives parameters without bias correction a state whose steps are so many that no bias is left to correct.

    The fused kernel knows no other way to leave the correction out. Steps that were counted elsewhere go.
    """
    for group in optimizer.param_groups:
        for parameter in [] if group["bias_correction"] else group["params"]:
            state = optimizer.state[parameter]
            state["step"] = torch.full((), FAR_ON, dtype=torch.float32, device=parameter.device)
            for name in ("exp_avg", "exp_avg_sq"):
                if name not in state:
                    state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
