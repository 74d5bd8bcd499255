"""What was normal in a run, and what its health says of it: worked out again from its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bertdata.errors import TrainingError
from trainer.config import TrainOptions
from trainer.expectation import START_TRAVEL, Expectation
from trainer.health import Health
from trainer.run_history import RunHistory

__all__ = ["Outlook", "outlook_of"]

_NEEDED = ("loss", "mlm_loss", "mlm_accuracy", "learning_rate")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What is to be said of a run.

    Attributes:
        start: MLM loss of a model that knows nothing.
        entropy: MLM loss of a model that knows the frequencies of words alone; None where it is not known.
        left_start_at: Step by which the loss should have left its start; None where that is still to come.
        now: Which MLM loss is normal at the last step.
        warnings: Step and text of each warning, in their order.
    """

    start: float
    entropy: float | None
    left_start_at: float | None
    now: str
    warnings: tuple[tuple[int, str], ...]


def outlook_of(run: RunHistory) -> Outlook | None:
    """Returns what is to be said of a run; None where its options are not known, or are of another release."""
    try:
        options = TrainOptions.from_json(run.options)
    except (KeyError, TypeError, TrainingError):
        return None
    num_samples = sum(data_set.get("train_samples", 0) for data_set in run.facts.get("data", ()))
    expected = Expectation(
        entropy=run.facts.get("word_entropy"),
        options=options,
        num_samples=num_samples or options.batch_size * options.max_steps,  # not known: nothing is shown twice
    )
    health = Health(expected)
    restarts = [start["step"] for start in run.facts.get("starts", ())][1:]
    travel, step, left_start_at = 0.0, 0, None
    warnings: list[tuple[int, str]] = []
    for row in run.rows:
        while restarts and row["step"] > restarts[0]:
            del restarts[0]
            health.replay(())  # from here on it may be another machine
        if not _has_all(row):
            continue
        warnings += [(row["step"], text) for text in health.check(row)]
        if row["kind"] == "train":
            travel += expected.step_scale * row["learning_rate"] * (row["step"] - step)
            step = row["step"]
            if left_start_at is None and travel >= START_TRAVEL:
                left_start_at = float(step)
    return Outlook(
        start=expected.start,
        entropy=expected.entropy,
        left_start_at=left_start_at,
        now=expected.describe_at(travel),
        warnings=tuple(warnings),
    )


def _has_all(row: dict[str, Any]) -> bool:
    """Returns whether a row has what the health looks at; one of an older release may not."""
    return row["kind"] != "train" or all(name in row for name in _NEEDED)
