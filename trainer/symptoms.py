"""Signs that something is off in a run, each a pure function of what has been seen, with what to do about it.

A sign must show in three points of at least 50 steps each: a single bad interval is no reason to alarm anybody.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.expectation import (
    NEXT_SENTENCE_SAMPLES,
    NEXT_SENTENCE_TRAVEL,
    PLATEAU_SAMPLES,
    PLATEAU_TRAVEL,
    START_TRAVEL,
    Expectation,
)

__all__ = ["CONSEQUENCES", "OF_THE_MACHINE", "OF_THE_RUN", "Point", "Symptom"]

MAX_DATA_WAIT = 0.1
MAX_PADDING = 0.2
MAX_EPOCHS = 50

_RECENT = 3
_FIRST_POINTS = 10
_RISE = 1.0
_GRADIENT_RISE = 100.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """Means of the rows of some steps.

    Attributes:
        step: The last of the steps.
        travel: Sum of the learning rates up to there, see `trainer.expectation`.
        loss: Total loss.
        mlm_loss: MLM loss.
        mlm_accuracy: MLM accuracy.
        nsp_accuracy: NSP accuracy; None where next sentences are not predicted.
        grad_norm: Norm of the gradient.
        padding: Share of padding.
        data_wait: Share of the time waited for data.
    """

    step: int
    travel: float
    loss: float
    mlm_loss: float
    mlm_accuracy: float
    nsp_accuracy: float | None
    grad_norm: float
    padding: float
    data_wait: float


Symptom = Callable[[Expectation, Sequence[Point], Sequence[dict[str, Any]]], str | None]
"""Takes what is normal, the points so far, and the rows of evaluations so far; returns what to say, or None."""


def _lower_rate(expected: Expectation) -> str:
    options = expected.options
    return (
        f"start in another --out folder with a lower --learning-rate than {options.learning_rate:g} or more "
        f"--warmup-steps than {options.warmup_steps}"
    )


def _diverging(expected: Expectation, points: Sequence[Point], _: Sequence[dict[str, Any]]) -> str | None:
    nsp = math.log(2) if expected.options.next_sentence else 0.0
    best = min(points, key=lambda point: point.loss)
    level = min(best.loss, expected.start + nsp)
    last = points[-1]
    if len(points) < _RECENT or any(point.loss <= level + _RISE for point in points[-_RECENT:]):
        return None
    return (
        f"the loss diverges: it is {last.loss:.2f} at step {last.step}, and was {level:.2f} at "
        f"{f'step {best.step}' if level == best.loss else 'the start'}. It seldom comes back from there. Stop the run, "
        f"and {_lower_rate(expected)}"
    )


def _exploding(expected: Expectation, points: Sequence[Point], _: Sequence[dict[str, Any]]) -> str | None:
    if len(points) < 2 * _RECENT:
        return None
    usual = statistics.median(point.grad_norm for point in points[:-_RECENT])
    if any(point.grad_norm <= max(_GRADIENT_RISE * usual, 10.0) for point in points[-_RECENT:]):
        return None
    max_norm = expected.options.max_grad_norm
    clipped = f"clipped to {max_norm:g}" if max_norm else "not clipped"
    return (
        f"the gradient explodes: its norm is {points[-1].grad_norm:.3g} at step {points[-1].step}, and was {usual:.3g} "
        f"as a rule. It is {clipped}, and the loss often rises next. If it does, {_lower_rate(expected)}"
    )


def _too_slow(expected: Expectation, points: Sequence[Point], _: Sequence[dict[str, Any]]) -> str | None:
    if not _is_at_start(expected, points) or expected.planned_travel >= START_TRAVEL / 4:
        return None
    last, options = points[-1], expected.options
    steps = START_TRAVEL / 2 / expected.step_scale / options.learning_rate
    return (
        f"hardly anything happens: the MLM loss is {last.mlm_loss:.2f} at step {last.step}, and {expected.start:.2f} "
        f"is where it starts. At a learning rate of {options.learning_rate:g} about {steps:,.0f} steps would be needed "
        f"before even the frequencies of words are known; the run has {options.max_steps:,}. Give a higher "
        "--learning-rate, or more steps"
    )


def _not_learning(expected: Expectation, points: Sequence[Point], _: Sequence[dict[str, Any]]) -> str | None:
    if not _is_at_start(expected, points) or points[-_RECENT].travel < START_TRAVEL:
        return None
    last = points[-1]
    return (
        f"nothing is learned: the MLM loss is {last.mlm_loss:.2f} at step {last.step}, as at the start "
        f"({expected.start:.2f}); {expected.describe_at(last.travel)} is normal by now. Look at the samples with "
        f"bertdata inspect; if they are as they should be, {_lower_rate(expected)}"
    )


def _is_at_start(expected: Expectation, points: Sequence[Point]) -> bool:
    fall = 0.5 if expected.entropy is None else 0.25 * (expected.start - expected.entropy)
    return len(points) >= _RECENT and all(point.mlm_loss > expected.start - fall for point in points[-_RECENT:])


def _on_plateau(expected: Expectation, points: Sequence[Point], _: Sequence[dict[str, Any]]) -> str | None:
    last, options = points[-1], expected.options
    samples = last.step * options.batch_size
    if expected.entropy is None or len(points) < _FIRST_POINTS or samples < PLATEAU_SAMPLES:
        return None
    if last.travel < PLATEAU_TRAVEL or any(point.mlm_loss < expected.entropy - 0.1 for point in points):
        return None
    return (
        f"the MLM loss rests at {last.mlm_loss:.2f}, with {last.mlm_accuracy:.1%} of the words right, after "
        f"{last.step:,} steps and {samples:,} samples. That is what a model has that knows how frequent each word is, "
        f"and nothing of the sentence ({expected.entropy:.2f}); by now, {expected.describe_at(last.travel)} is normal. "
        f"Such a run has most often collapsed: {_lower_rate(expected)}. If that changes nothing, look at the samples "
        "with bertdata inspect"
    )


def _next_sentence_stuck(expected: Expectation, points: Sequence[Point], _: Sequence[dict[str, Any]]) -> str | None:
    last = points[-1]
    samples = last.step * expected.options.batch_size
    if last.nsp_accuracy is None or samples < NEXT_SENTENCE_SAMPLES or last.travel < NEXT_SENTENCE_TRAVEL:
        return None
    if len(points) < _FIRST_POINTS or any((point.nsp_accuracy or 0.0) > 0.55 for point in points[-_FIRST_POINTS:]):
        return None
    return (
        f"next sentences are still guessed: {last.nsp_accuracy:.1%} are right after {last.step:,} steps and "
        f"{samples:,} samples; most runs are above 60 % long before. Look at the pairs with bertdata inspect, and at "
        "the shares of the labels with bertdata report: can one tell which B follows its A? If so, a lower "
        "--learning-rate or a larger batch may help"
    )


def _waiting(_: Expectation, points: Sequence[Point], __: Sequence[dict[str, Any]]) -> str | None:
    recent = points[1:][-_RECENT:]  # the first has opening files in it
    if len(recent) < _RECENT or any(point.data_wait < MAX_DATA_WAIT for point in recent):
        return None
    return (
        f"{points[-1].data_wait:.0%} of the time is spent waiting for data, where under 1 % is normal. Give more "
        "--num-loader-workers; if the shards come from another machine, a larger --cache-size or a copy on a local "
        "disk"
    )


def _padded(expected: Expectation, points: Sequence[Point], _: Sequence[dict[str, Any]]) -> str | None:
    recent = points[-_RECENT:]
    if len(recent) < _RECENT or any(point.padding < MAX_PADDING for point in recent):
        return None
    remedy = "Give a larger --micro-batch-size, so that samples of about the same length come together"
    if expected.options.pad_to_multiple is not None:
        remedy = f"Give a smaller --pad-to-multiple than {expected.options.pad_to_multiple}, or a larger micro-batch"
    return f"{points[-1].padding:.0%} of what is computed is padding, where under 5 % is normal. {remedy}"


def _repeated(expected: Expectation, _: Sequence[Point], __: Sequence[dict[str, Any]]) -> str | None:
    options = expected.options
    epochs = options.max_steps * options.batch_size / expected.num_samples
    if epochs <= MAX_EPOCHS:
        return None
    return (
        f"the run shows every sample {epochs:,.0f} times; 40 is what BERT was published with, and what is shown more "
        f"often is learned by heart. Build a larger data set, or give --epochs 40"
    )


def _overfitting(_: Expectation, points: Sequence[Point], evaluations: Sequence[dict[str, Any]]) -> str | None:
    if len(evaluations) < _RECENT + 1:
        return None
    best = min(evaluations, key=lambda row: float(row["mlm_loss"]))
    last = evaluations[-1]
    if any(row["mlm_loss"] < best["mlm_loss"] + 0.1 for row in evaluations[-_RECENT:]):
        return None
    before = [point for point in points if point.step <= best["step"]]
    if not before or points[-1].mlm_loss >= before[-1].mlm_loss:
        return None
    return (
        f"the model learns its samples by heart: since step {best['step']:,} the held-out MLM loss has risen from "
        f"{best['mlm_loss']:.2f} to {last['mlm_loss']:.2f}, while that of training fell to {points[-1].mlm_loss:.2f}. "
        "Build a larger data set, give fewer --epochs, or a smaller --model"
    )


OF_THE_RUN: Mapping[str, Symptom] = {
    "diverging": _diverging,
    "exploding": _exploding,
    "too slow": _too_slow,
    "not learning": _not_learning,
    "plateau": _on_plateau,
    "next sentence": _next_sentence_stuck,
    "repeated": _repeated,
    "overfitting": _overfitting,
}
"""Symptoms of what is learned."""

OF_THE_MACHINE: Mapping[str, Symptom] = {"waiting": _waiting, "padded": _padded}
"""Symptoms of how fast it is, which may differ where a run is continued."""

CONSEQUENCES: Mapping[str, Sequence[str]] = {
    "diverging": ("exploding", "not learning", "plateau"),
    "not learning": ("plateau",),
}
"""Symptoms that follow from another, and are not said after it."""
