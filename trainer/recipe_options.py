"""The options of `bert-train` that make a recipe: where it begins, the optimizer, and the learning rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from trainer.presets import PRESETS

__all__ = ["recipe_options"]

_Command = TypeVar("_Command", bound=Callable[..., Any])

_AT_LEAST_ONE = click.IntRange(min=1)
_AT_LEAST_ZERO = click.IntRange(min=0)
_ABOVE_ZERO = click.FloatRange(min=0, min_open=True)
_BELOW_ONE = click.FloatRange(0, 1, max_open=True)
_SHARE = click.FloatRange(0, 1)


def recipe_options(command: _Command) -> _Command:
    """Adds the options to a command, in the order in which `--help` shows them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS = (
    click.option(
        "--preset",
        type=click.Choice(list(PRESETS)),
        help="A published recipe; what is given beside it comes before it. What it sets is printed. [default: none]",
    ),
    click.option("--phase", type=_AT_LEAST_ONE, help="Phase of the preset, such as 2 at 512 tokens. [default: 1]"),
    click.option(
        "--init",
        metavar="RUN|HF_DIR",
        help="Run, or exported folder, that the weights come from. Where that run's --schedule-steps reach further "
        "than it went, this one goes on in its schedule. With --eval-only, what is evaluated. [default: new weights]",
    ),
    click.option(
        "--init-optimizer/--no-init-optimizer",
        default=None,
        help="Take the state of the optimizer from the run of --init, too. [default: as the preset says, else where "
        "this run goes on in that one's schedule]",
    ),
    click.option("--learning-rate", type=_ABOVE_ZERO, help="Highest learning rate. [default: by model and batch size]"),
    click.option(
        "--warmup-steps",
        type=_AT_LEAST_ZERO,
        help="Steps of linear warm-up. [default: a tenth of the steps, at most 10,000]",
    ),
    click.option(
        "--schedule-steps",
        type=_AT_LEAST_ONE,
        help="Steps, those of earlier phases included, after which the decay of the learning rate ends; more than "
        "--max-steps where a later phase is to go on. [default: the end of the run]",
    ),
    click.option(
        "--schedule-start",
        type=_AT_LEAST_ZERO,
        help="Steps of earlier phases, which the schedule covers, too. [default: those of --init where this run goes "
        "on in that one's schedule, else 0]",
    ),
    click.option(
        "--decay-power",
        type=_ABOVE_ZERO,
        help="Power of the decay: 1 for a line, 0.5 for one that falls late. [default: 1]",
    ),
    click.option(
        "--decay-from",
        type=click.Choice(["peak", "start"]),
        help="Count the decay from the end of the warm-up, or from the first step as Google's and NVIDIA's code do: "
        "the rate then drops where the warm-up ends. [default: peak]",
    ),
    click.option("--decay-to", type=_SHARE, help="Share of the highest rate that the decay ends at. [default: 0]"),
    click.option(
        "--optimizer", type=click.Choice(["adamw", "lamb"]), help="LAMB is for batches of thousands. [default: adamw]"
    ),
    click.option("--adam-beta1", type=_BELOW_ONE, help="Decay of the mean of gradients, per step. [default: 0.9]"),
    click.option("--adam-beta2", type=_BELOW_ONE, help="Decay of the mean of their squares. [default: 0.999]"),
    click.option("--adam-epsilon", type=_ABOVE_ZERO, help="Added to the root of the latter. [default: 1e-6]"),
    click.option(
        "--bias-correction/--no-bias-correction",
        default=None,
        help="Correct these means for having begun at 0; the published BERT's are not. [default: bias-correction]",
    ),
    click.option(
        "--weight-decay",
        type=click.FloatRange(min=0),
        help="Decay of weights but not of biases and LayerNorm, times the rate per step. [default: 0.01]",
    ),
    click.option(
        "--max-grad-norm",
        type=click.FloatRange(min=0),
        help="Global norm that gradients are clipped to; 0 for no clipping. [default: 1]",
    ),
)
