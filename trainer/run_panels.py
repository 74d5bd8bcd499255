"""The values that a run's report draws over the steps, and how to read each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["PANELS", "Panel"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """A value that is drawn.

    Attributes:
        section: Where its figure stands: "losses", "accuracies", "steps" or "speed".
        field: Its name in the rows.
        title: Heading of the figure.
        unit: What the values count.
        caption: How to read the figure.
        kinds: Kinds of rows that have it.
        form: How values are written.
        scale: Of the values.
        has_zero: Whether the axis begins at 0.
        is_exact: Whether there is no noise in it.
    """

    section: str
    field: str
    title: str
    unit: str
    caption: str
    kinds: tuple[str, ...] = ("train", "eval")
    form: Literal["number", "percent"] = "number"
    scale: Literal["linear", "log"] = "linear"
    has_zero: bool = False
    is_exact: bool = False


PANELS = (
    Panel(
        section="losses",
        field="loss",
        title="Total loss",
        unit="MLM + NSP, nats",
        caption="What the optimizer lowers. It should fall fast, rest for a while where only the frequencies of words "
        "are known, and fall again. Bad are a rise that stays, and spikes that come more and more often.",
    ),
    Panel(
        section="losses",
        field="mlm_loss",
        title="MLM loss",
        unit="nats per predicted position",
        caption="How surprised the model is by the masked words. Held out should stay close to training; where it "
        "rises while training falls, samples are learned by heart.",
    ),
    Panel(
        section="losses",
        field="nsp_loss",
        title="NSP loss",
        unit="nats per pair",
        caption="It may rest at chance for thousands of steps, while the MLM loss falls already. Bad is a fall to "
        "almost 0 within the first steps: then something gives the labels away.",
    ),
    Panel(
        section="accuracies",
        field="mlm_accuracy",
        title="MLM accuracy",
        unit="of the predicted positions",
        form="percent",
        has_zero=True,
        caption="Words predicted rightly. A model that rests at the share of the most frequent one has learned nothing "
        "of sentences yet.",
    ),
    Panel(
        section="accuracies",
        field="nsp_accuracy",
        title="NSP accuracy",
        unit="of the pairs",
        form="percent",
        caption="Pairs of which the model can tell whether B follows A. Half is chance; beside the evaluation stands "
        "how much the lengths alone give away.",
    ),
    Panel(
        section="steps",
        field="learning_rate",
        title="Learning rate",
        unit="per step",
        kinds=("train",),
        has_zero=True,
        is_exact=True,
        caption="It should rise over the warm-up, then fall to almost 0 at the last step. A run that was continued "
        "with more steps has a leap here.",
    ),
    Panel(
        section="steps",
        field="grad_norm",
        title="Norm of the gradient",
        unit="before clipping, by powers of ten",
        kinds=("train",),
        scale="log",
        caption="It should settle within the first steps. Above the line gradients are clipped. Bad is a rise by "
        "powers of ten, which often comes before the loss rises.",
    ),
    Panel(
        section="speed",
        field="tokens_per_second",
        title="Useful tokens per second",
        unit="of all devices, padding not counted",
        kinds=("train",),
        has_zero=True,
        caption="It should be flat. A first value that is lower has compiling and the first reads in it. Dips are "
        "something else that the machine did.",
    ),
    Panel(
        section="speed",
        field="sequences_per_second",
        title="Samples per second",
        unit="of all devices",
        kinds=("train",),
        has_zero=True,
        caption="The same by samples: it differs from tokens where lengths do.",
    ),
    Panel(
        section="speed",
        field="mfu",
        title="Use of the device (MFU)",
        unit="of the peak",
        kinds=("train",),
        form="percent",
        has_zero=True,
        caption="Products that the model needs, without padding or recomputation, as a share of what the device could "
        "do in that time. 40 to 50 % is good on one GPU.",
    ),
    Panel(
        section="speed",
        field="data_wait",
        title="Waiting for data",
        unit="of the time",
        kinds=("train",),
        form="percent",
        has_zero=True,
        caption="Should be under 1 %. More means that the device is idle while batches are made or fetched.",
    ),
    Panel(
        section="speed",
        field="padding",
        title="Padding",
        unit="of what is computed",
        kinds=("train",),
        form="percent",
        has_zero=True,
        caption="Computed for nothing. Under 5 % is normal, 0 where attention needs no padding.",
    ),
)
