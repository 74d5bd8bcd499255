"""How much of a device's arithmetic a run uses: floating-point operations of the model, and the peak of the device.

Counted are the matrix products that the model needs for the tokens of its samples, forward and backward: no padding,
no recomputation, no optimizer. For H hidden, F feed-forward, V vocabulary size and L layers, training costs

    6 * L * (4 * H**2 + 2 * H * F)   a token in the layers: projections and feed-forward, a product and two backward
    12 * L * H * s                   a token in a sample of s tokens: scores and weighted sums
    6 * (H**2 + V * H)               a prediction in the MLM head

The last layer is counted whole, as in the published model, although its output is computed only for the tokens that the
heads look at: for BERT-base, about 5 % of the count is work that is not done.
The pooler and the NSP head, H**2 + 2 * H a sample, are left out by custom: 0.02 % for BERT-base at 128 tokens.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from trainer.config import ModelOptions, Precision

__all__ = ["Peak", "flops_per_token", "peak_of", "training_flops"]


class Peak(NamedTuple):
    """Dense peaks of a device in TFLOP/s, sums in float32.

    Attributes:
        bf16: Of bfloat16 products; None where the device has no units for them.
        fp32: Of float32 products without TF32.
    """

    bf16: float | None
    fp32: float


_PEAKS: tuple[tuple[str, Peak], ...] = (  # words that must be in the name; the first row that fits counts
    ("GB200", Peak(2500, 80)),
    ("B200", Peak(2250, 75)),
    ("GH200", Peak(989, 67)),
    ("H200 NVL", Peak(835, 60)),
    ("H200", Peak(989, 67)),
    ("H100 NVL", Peak(835, 60)),
    ("H100 PCIe", Peak(756, 51)),
    ("H100", Peak(989, 67)),
    ("A100", Peak(312, 19.5)),
    ("A40", Peak(149.7, 37.4)),
    ("A30", Peak(165, 10.3)),
    ("A10G", Peak(70, 35)),
    ("A10", Peak(125, 31.2)),
    ("L40S", Peak(362, 91.6)),
    ("L40", Peak(181, 90.5)),
    ("L4", Peak(121, 30.3)),
    ("V100 PCIe", Peak(None, 14)),
    ("V100", Peak(None, 15.7)),
    ("T4", Peak(None, 8.1)),
    ("RTX A6000", Peak(154.8, 38.7)),
    ("RTX 5090", Peak(209.5, 104.8)),
    ("RTX 4090 D", Peak(147.1, 73.5)),
    ("RTX 4090", Peak(165.2, 82.6)),
    ("RTX 3090 Ti", Peak(80, 40)),
    ("RTX 3090", Peak(71, 35.6)),
)
"""Source: NVIDIA's data sheets and architecture papers; half of what they give with sparsity."""

_PARTS = {"mig", "laptop", "max"}
"""Words in the names of parts of a device, and of variants for laptops, whose peaks are others."""


def training_flops(model: ModelOptions, *, num_tokens: float, squared_lengths: float, num_predictions: float) -> float:
    """Returns the operations of forward and backward passes of the published model.

    That is the work that trainers are compared by, all of the last layer in it, most of which this one need not do.

    Args:
        model: The model's shape.
        num_tokens: Tokens of the samples, without padding.
        squared_lengths: Sum over the samples of the square of their tokens.
        num_predictions: Masked positions.

    Returns:
        Floating-point operations; a product and a sum are two.

    Source: the count of Narayanan et al. 2021 (Megatron-LM), with samples of different lengths and a head on masked
    positions only, and without recomputation.
    """
    hidden, layers = model.hidden_size, model.num_hidden_layers
    in_layers = 6 * layers * (4 * hidden**2 + 2 * hidden * model.intermediate_size) * num_tokens
    in_attention = 12 * layers * hidden * squared_lengths
    in_head = 6 * (hidden**2 + model.vocab_size * hidden) * num_predictions
    return float(in_layers + in_attention + in_head)


def flops_per_token(model: ModelOptions, *, length: float, predicted: float) -> float:
    """Returns the operations for one token of training.

    Args:
        model: The model's shape.
        length: Tokens of the sample that a token is in, on average over the tokens: sum of squares by sum.
        predicted: Share of the tokens that are predicted.
    """
    return training_flops(model, num_tokens=1, squared_lengths=length, num_predictions=predicted)


def peak_of(device_name: str, *, precision: Precision) -> float | None:
    """Returns the dense peak of a device.

    Args:
        device_name: As `torch.cuda.get_device_name` gives it.
        precision: Of the run.

    Returns:
        FLOP/s; None where it is not known.
    """
    words = set(_words(device_name))
    if words & _PARTS:
        return None
    for name, peak in _PEAKS:
        if words.issuperset(_words(name)):
            value = peak.bf16 if precision == "bf16" else peak.fp32
            return None if value is None else value * 1e12
    return None


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())
