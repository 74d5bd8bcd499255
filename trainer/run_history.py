"""A run as its folder tells it, finished or in progress: the rows of `metrics.jsonl` and the facts of `run.json`."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertdata.errors import TrainingError
from trainer.run_facts import load_facts

__all__ = ["RunHistory", "Series", "load_history"]

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """A value over the steps.

    Attributes:
        steps: float64 [R], rising.
        values: float64 [R], all finite.
    """

    steps: NDArray[np.float64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunHistory:
    """A run.

    Attributes:
        folder: Its folder, from the root of the file system.
        name: What it is called on the page: by default the folder's own name.
        rows: All rows, in their order.
        num_unread: Lines behind the first that could not be read; the last line of a run in progress is none.
        facts: Contents of `run.json`; empty where there is none.
        options: `TrainOptions.to_json()`, from `run.json` or the newest checkpoint; empty where there is neither.
    """

    folder: Path
    name: str
    rows: list[Row]
    num_unread: int
    facts: dict[str, Any]
    options: dict[str, Any]

    def of_kind(self, kind: str) -> list[Row]:
        """Returns the rows of a kind: "train", "eval" or "epoch"."""
        return [row for row in self.rows if row["kind"] == kind]

    def series(self, kind: str, name: str) -> Series:
        """Returns a value over the steps, from the rows that have it; what is not finite is left out."""
        pairs = [(row["step"], row[name]) for row in self.of_kind(kind) if _is_number(row.get(name))]
        steps, values = zip(*pairs, strict=True) if pairs else ((), ())
        return Series(steps=np.array(steps, dtype=np.float64), values=np.array(values, dtype=np.float64))

    def last(self, kind: str, name: str) -> float | None:
        """Returns the newest value; None where no row has it."""
        values = self.series(kind, name).values
        return float(values[-1]) if len(values) else None

    @property
    def step(self) -> int:
        """Steps that the rows tell of."""
        return int(self.rows[-1]["step"])

    @property
    def max_steps(self) -> int | None:
        """Steps of the whole run; None where it is not known."""
        return self.options.get("max_steps")

    @property
    def seconds(self) -> float | None:
        """Time spent in training steps, without evaluations and checkpoints; None where rows do not say."""
        speed, batch_size = self.series("train", "sequences_per_second"), self.options.get("batch_size")
        if not len(speed) or batch_size is None:
            return None
        steps = np.diff(speed.steps, prepend=0)
        return float((steps * batch_size / np.maximum(speed.values, 1e-9)).sum())

    @property
    def tokens_seen(self) -> float | None:
        """Useful tokens of all steps; None where rows do not say."""
        speed, tokens = self.series("train", "sequences_per_second"), self.series("train", "tokens_per_second")
        batch_size = self.options.get("batch_size")
        if batch_size is None or not len(speed) or len(speed) != len(tokens):
            return None
        samples = np.diff(speed.steps, prepend=0) * batch_size
        return float((samples * tokens.values / np.maximum(speed.values, 1e-9)).sum())

    @property
    def state(self) -> str:
        """Whether the run is at its end: "finished", "stopped" or "unfinished", which runs still or was killed."""
        starts = self.facts.get("starts") or [{}]
        if self.max_steps is not None and self.step >= self.max_steps:
            return "finished"
        return "stopped" if "end" in starts[-1] else "unfinished"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def load_history(folder: Path) -> RunHistory:
    """Reads what a run's folder tells.

    Args:
        folder: `--out` of `bert-train`.

    Raises:
        TrainingError: It is no folder of a run, has no rows yet, or its rows are no rows.
    """
    path = folder / "metrics.jsonl"
    if not path.is_file():
        what = f"{folder} has no metrics.jsonl" if folder.is_dir() else f"there is no folder {folder}"
        raise TrainingError(f"{what}; give the --out folder of a bert-train run")
    rows, num_unread = _read_rows(path)
    if not rows:
        raise TrainingError(f"{path} has no rows yet; wait for the first, which comes after --log-every steps")
    facts = load_facts(folder) or {}
    options = facts.get("options") or _checkpoint_options(folder / "checkpoints")
    place = Path(os.path.abspath(folder))  # noqa: PTH100 (resolve would follow a link to another name)
    return RunHistory(
        folder=place,
        name=place.name,
        rows=rows,
        num_unread=num_unread,
        facts=facts,
        options=options,
    )


def _read_rows(path: Path) -> tuple[list[Row], int]:
    """Returns the rows up to the first torn line, and how many lines come behind that."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            return rows, len(lines) - number
        if not isinstance(row, dict) or not isinstance(row.get("kind"), str) or not _is_number(row.get("step")):
            raise TrainingError(
                f"{path}, line {number} is no row of a run: it lacks a kind or a step; give the --out folder of a "
                "bert-train run"
            )
        rows.append(row)
    return rows, 0


def _checkpoint_options(folder: Path) -> dict[str, Any]:
    """Returns the options in the newest checkpoint that can be read; nothing where there is none."""
    import torch

    for path in sorted(folder.glob("step-*.pt"), reverse=True):
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # tensors stay on disk
        except Exception:  # whatever is wrong with it: the page is about the rows, and says that options are not known
            continue
        return dict(state.get("options", {}))
    return {}
