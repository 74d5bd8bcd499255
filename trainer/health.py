"""Whether a run looks well: its rows in, warnings in plain words out, each cause once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainer.config import TrainOptions
from trainer.expectation import Expectation, word_entropy
from trainer.symptoms import CONSEQUENCES, OF_THE_MACHINE, OF_THE_RUN, Point

if TYPE_CHECKING:
    from trainer.data import TrainingData

__all__ = ["Health"]

_POINT_STEPS = 50

Row = dict[str, Any]


class Health:
    """Looks at the rows of a run, in their order.

    Args:
        expectation: What is normal.
    """

    def __init__(self, expectation: Expectation) -> None:
        self.expectation = expectation
        self._pending: list[tuple[int, Row]] = []  # rows of training that are no point yet, and their steps
        self._points: list[Point] = []
        self._evaluations: list[Row] = []
        self._said: set[str] = set()
        self._travel, self._step, self._num_old = 0.0, 0, 0

    @classmethod
    def of(cls, options: TrainOptions, *, data: TrainingData) -> Health:
        """Returns one for a run."""
        return cls(
            Expectation(
                entropy=word_entropy(data),
                options=options,
                num_samples=data.num_samples("train"),
            )
        )

    def replay(self, rows: Sequence[Row]) -> None:
        """Takes in the rows of the run so far, about which all has been said; the machine may be another one."""
        for row in rows:
            self.check(row)
        self._said -= set(OF_THE_MACHINE)
        self._num_old = len(self._points)

    def check(self, row: Row) -> list[str]:
        """Takes in a row.

        Returns:
            What should be said now: usually nothing.
        """
        if row["kind"] == "eval" and "mlm_loss" in row:
            self._evaluations.append(row)
            return self._look() if self._points else []
        if row["kind"] == "train":
            num_steps = row["step"] - self._step
            self._travel += self.expectation.step_scale * row["learning_rate"] * num_steps
            self._step = row["step"]
            self._pending.append((num_steps, row))
            if sum(steps for steps, _ in self._pending) >= _POINT_STEPS:
                self._points.append(self._point())
                self._pending.clear()
                return self._look()
        return []

    def _look(self) -> list[str]:
        messages = []
        for symptoms, points in ((OF_THE_RUN, self._points), (OF_THE_MACHINE, self._points[self._num_old :])):
            for name, symptom in symptoms.items():
                if name not in self._said and (said := symptom(self.expectation, points, self._evaluations)):
                    self._said |= {name, *CONSEQUENCES.get(name, ())}
                    messages.append(said)
        return messages

    def _point(self) -> Point:
        total = sum(steps for steps, _ in self._pending)

        def mean(name: str) -> float:
            return float(sum(steps * row.get(name, 0.0) for steps, row in self._pending) / total)

        return Point(
            step=self._step,
            travel=self._travel,
            loss=mean("loss"),
            mlm_loss=mean("mlm_loss"),
            mlm_accuracy=mean("mlm_accuracy"),
            nsp_accuracy=mean("nsp_accuracy") if "nsp_accuracy" in self._pending[-1][1] else None,
            grad_norm=mean("grad_norm"),
            padding=mean("padding"),
            data_wait=mean("data_wait"),
        )
