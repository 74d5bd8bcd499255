import dataclasses
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertdata.data_set import DataSet
from bertdata.statistics import Statistics, write_statistics
from trainer.config import ModelOptions, TrainOptions
from trainer.data import TrainingData
from trainer.expectation import Expectation, word_entropy
from trainer.health import Health

RUNS = json.loads((Path(__file__).parent / "measured_runs.json").read_text())
"""What real runs reported, means of 50 steps each: step, rate, MLM loss and accuracy, NSP loss and accuracy, gradient."""

PLATEAU, START = 7.17, math.log(30522)


def expectation(**changes: Any) -> Expectation:
    values: dict[str, Any] = {
        "out": "run",
        "model": ModelOptions.of_size("tiny", vocab_size=changes.pop("vocab_size", 30522)),
        "batch_size": 256,
        "micro_batch_size": 32,
        "max_steps": 10_000,
        "learning_rate": 1e-3,
        "warmup_steps": 100,
    }
    entropy, num_samples = changes.pop("entropy", PLATEAU), changes.pop("num_samples", 1_000_000)
    return Expectation(entropy=entropy, num_samples=num_samples, options=TrainOptions(**(values | changes)))


def train_row(step: int, **changes: Any) -> dict[str, Any]:
    row = {
        "kind": "train",
        "step": step,
        "mlm_loss": 6.0,
        "mlm_accuracy": 0.2,
        "nsp_loss": 0.6,
        "nsp_accuracy": 0.65,
        "learning_rate": 1e-3,
        "grad_norm": 1.5,
        "padding": 0.02,
        "data_wait": 0.001,
    } | changes
    return {"loss": row["mlm_loss"] + row["nsp_loss"]} | row


def said(expected: Expectation, rows: list[dict[str, Any]]) -> list[str]:
    health = Health(expected)
    return [message for row in rows for message in health.check(row)]


def steady(steps: int, *, every: int = 50, **changes: Any) -> list[dict[str, Any]]:
    return [train_row(step, **changes) for step in range(every, steps + 1, every)]


def rows_of(run: dict[str, Any]) -> list[dict[str, Any]]:
    names = ("step", "learning_rate", "mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy", "grad_norm")
    return [train_row(**dict(zip(names, values, strict=True))) for values in run["rows"]]


@pytest.mark.parametrize("name", RUNS)
def test_measured_runs_are_judged_rightly(name: str) -> None:
    run = RUNS[name]
    names = ("entropy", "vocab_size", "batch_size", "num_samples", "learning_rate", "max_steps")
    found = said(expectation(**{one: run[one] for one in names}, warmup_steps=run["max_steps"] // 10), rows_of(run))
    assert len(found) == len(run["warnings"])
    for message, beginning in zip(found, run["warnings"], strict=True):
        assert message.startswith(beginning)


def test_healthy_run_is_left_in_peace() -> None:
    losses = [
        START - (START - PLATEAU) * min(1, step / 300) - 2.0 * max(0, step - 400) / 10_000
        for step in range(50, 10_001, 50)
    ]
    rows = [train_row(50 * (number + 1), mlm_loss=loss) for number, loss in enumerate(losses)]
    assert said(expectation(), rows) == []


@pytest.mark.parametrize("every", [1, 10, 50, 500])
def test_divergence_is_said_once(every: int) -> None:
    rows = steady(2000, every=every)
    rows += [row | {"step": row["step"] + 2000} for row in steady(2000, every=every, mlm_loss=7.4)]
    (message,) = said(expectation(), rows)
    assert message.startswith("the loss diverges: it is 8.00 at step")
    assert "and was 6.60" in message
    assert "lower --learning-rate than 0.001 or more --warmup-steps than 100" in message


def test_spike_that_passes_is_no_divergence() -> None:
    rows = steady(2000)
    rows[20] = train_row(rows[20]["step"], mlm_loss=30.0, grad_norm=500.0)
    assert said(expectation(), rows) == []


def test_loss_that_begins_too_high_diverges() -> None:
    (message,) = said(expectation(), steady(300, mlm_loss=40.0))
    assert "was 11.02 at the start" in message


def test_exploding_gradient_is_said() -> None:
    rows = steady(2000)
    rows += [row | {"step": row["step"] + 2000} for row in steady(300, grad_norm=900.0)]
    (message,) = said(expectation(), rows)
    assert message.startswith("the gradient explodes: its norm is 900 at step 2150, and was 1.5 as a rule")
    assert "It is clipped to 1, and the loss often rises next" in message
    (message,) = said(expectation(max_grad_norm=0.0), rows)
    assert "It is not clipped, and the loss often rises next" in message


def test_plateau_is_said_with_what_is_normal() -> None:
    rows = steady(3000, mlm_loss=PLATEAU - 0.02, mlm_accuracy=0.046, nsp_accuracy=0.5)
    (message,) = said(expectation(), rows)
    assert message.startswith("the MLM loss rests at 7.15, with 4.6% of the words right, after 1,000 steps and 256,000")
    assert "well below 7.17 is normal" in message


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"mlm_loss": PLATEAU - 0.2}, {}),  # below it
        ({"learning_rate": 1e-5}, {}),  # weights have hardly moved
        ({}, {"batch_size": 1}),  # hardly any samples
        ({}, {"entropy": None}),  # nobody knows
        ({"learning_rate": 5e-3}, {"optimizer": "lamb"}),  # whose steps are smaller
    ],
)
def test_plateau_is_not_said_without_reason(changes: dict[str, Any], options: dict[str, Any]) -> None:
    rows = steady(3000, **({"mlm_loss": PLATEAU, "nsp_accuracy": 0.5} | changes))
    assert said(expectation(**options), rows) == []


def test_rate_that_is_too_low_is_said_with_the_steps_it_needs() -> None:
    rows = steady(300, mlm_loss=START - 0.1, learning_rate=1e-6)
    (message,) = said(expectation(learning_rate=1e-6, max_steps=1000), rows)
    assert message.startswith(
        "hardly anything happens: the MLM loss is 10.23 at step 150, and 10.33 is where it starts"
    )
    assert "about 50,000 steps" in message
    assert said(expectation(learning_rate=1e-6, max_steps=100_000), rows) == []


def test_run_that_learns_nothing_is_said() -> None:
    (message,) = said(expectation(), steady(500, mlm_loss=START - 0.2, nsp_accuracy=0.5))
    assert message.startswith("nothing is learned: the MLM loss is 10.13 at step 200, as at the start (10.33)")


def test_next_sentences_that_stay_at_chance_are_said() -> None:
    rows = steady(5000, mlm_loss=4.0, nsp_accuracy=0.505)
    (message,) = said(expectation(), rows)
    assert message.startswith(
        "next sentences are still guessed: 50.5% are right after 3,950 steps and 1,011,200 samples"
    )
    for row in rows:
        del row["nsp_accuracy"], row["nsp_loss"]
    assert said(expectation(next_sentence=False), rows) == []


def test_slow_data_is_said_and_after_a_restart_again() -> None:
    rows = steady(1000, data_wait=0.3)
    health = Health(expectation())
    messages = [message for row in rows for message in health.check(row)]
    assert [message.split(",")[0] for message in messages] == ["30% of the time is spent waiting for data"]
    health = Health(expectation())
    health.replay(rows)
    assert [health.check(train_row(1000 + step, data_wait=0.002)) for step in range(50, 500, 50)] == [[]] * 9
    again = [
        message for step in range(500, 1000, 50) for message in health.check(train_row(1000 + step, data_wait=0.5))
    ]
    assert len(again) == 1
    assert said(expectation(), [train_row(50, data_wait=0.9), *steady(1000)[1:]]) == []  # opening files


def test_padding_is_said_with_its_remedy() -> None:
    (message,) = said(expectation(pad_to_multiple=4096), steady(500, padding=0.4))
    assert message.startswith("40% of what is computed is padding")
    assert "smaller --pad-to-multiple than 4096" in message
    (message,) = said(expectation(), steady(500, padding=0.4))
    assert "larger --micro-batch-size" in message


def test_many_epochs_are_said() -> None:
    (message,) = said(expectation(num_samples=20_000), steady(100))
    assert message.startswith("the run shows every sample 128 times")


def test_learning_by_heart_is_said() -> None:
    rows: list[dict[str, Any]] = []
    for number, held_out in enumerate([5.0, 4.6, 4.5, 4.58, 4.7, 4.8, 4.9]):
        begin = 500 * number
        rows += [row | {"step": begin + row["step"]} for row in steady(500, mlm_loss=5.0 - 0.4 * number)]
        rows.append({"kind": "eval", "step": begin + 500, "mlm_loss": held_out})
    (message,) = said(expectation(), rows)
    assert "since step 1,500 the held-out MLM loss has risen from 4.50 to 4.90" in message
    healthy = [row | {"mlm_loss": 5 - row["step"] / 4000} if row["kind"] == "eval" else row for row in rows]
    assert said(expectation(), healthy) == []


def test_continued_run_does_not_say_it_again() -> None:
    rows = steady(3000, mlm_loss=PLATEAU, nsp_accuracy=0.5)
    health = Health(expectation())
    health.replay(rows)
    assert [health.check(train_row(3000 + step, mlm_loss=PLATEAU)) for step in (50, 100)] == [[], []]
    # What was seen before counts: so it is said as early as in a run that was not interrupted.
    health = Health(expectation())
    health.replay(rows[:19])
    assert len(health.check(rows[19])) == 1


def test_expected_loss_of_a_new_run() -> None:
    assert expectation().describe() == (
        "the loss should begin near 11.02, rest near 7.86 while only the frequencies of words are known, and then fall "
        "(MLM 10.33 and 7.17, NSP 0.69)"
    )
    assert expectation(next_sentence=False, entropy=None).describe() == (
        "the loss should begin near 10.33, and then fall (MLM 10.33)"
    )


def test_word_entropy_is_that_of_the_labels(
    new_data_set: Callable[..., DataSet], caplog: pytest.LogCaptureFixture
) -> None:
    """A data set's tokens without specials, mixed by weight, against the labels of its mask sets."""
    data_sets = [new_data_set(seed=seed) for seed in (0, 50)]
    labels = np.zeros(120)
    caplog.set_level(logging.INFO)
    for data_set, weight in zip(data_sets, (3.0, 1.0), strict=True):
        reader = TrainingData(data_sets=(data_set,)).open_split("train")
        shown, _ = reader.show(np.arange(reader.num_samples), mask_set=0)
        original = shown.token_ids.copy()
        original[shown.mask_rows] = shown.mask_labels
        empty = Statistics.empty(max_seq_length=24, vocab_size=120)
        counts = np.bincount(original, minlength=120)
        assert word_entropy(TrainingData(data_sets=(data_set,))) is None
        write_statistics(data_set.folder, [dataclasses.replace(empty, token_counts=counts)], empty=empty)
        all_labels = np.concatenate(
            [reader.show(np.arange(reader.num_samples), mask_set=one)[0].mask_labels for one in range(3)]
        )
        labels += weight * np.bincount(all_labels, minlength=120) / len(all_labels)
    assert "how low the loss should be is not known" in caplog.text
    shares = labels[labels > 0] / labels.sum()
    found = word_entropy(TrainingData(data_sets=tuple(data_sets), weights=(3.0, 1.0)))
    assert found == pytest.approx(float(-(shares * np.log(shares)).sum()), rel=0.03)
