"""The rows of a run as curves in TensorBoard: `tensorboard --logdir run` shows them.

Names are those of `metrics.jsonl`, grouped by the kind of row: train/mlm_loss, eval/mlm_accuracy, epoch/loss.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertdata.errors import TrainingError

__all__ = ["TensorBoard", "check_tensorboard"]

_PLACES = ("kind", "step")  # where a value stands, not a value


def check_tensorboard() -> None:
    """Makes sure that curves can be written.

    Raises:
        TrainingError: The package is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise TrainingError(
            "--tensorboard needs the package tensorboard, which is not installed; run pip install "
            "'bertdata[tensorboard]', or leave the option out: metrics.jsonl has the same values"
        )


class TensorBoard:
    """Writes rows as curves.

    Args:
        folder: Where event files go; those of the run before it was continued lie there, too.
        last_step: Curves after this step are hidden: the run continues from there.
        rows: Of the run so far; they are written where no event file has them.

    Raises:
        TrainingError: The package is not installed.
    """

    def __init__(self, folder: Path, *, last_step: int, rows: Sequence[dict[str, Any]] = ()) -> None:
        check_tensorboard()
        from torch.utils.tensorboard import SummaryWriter  # late: it takes seconds, and few runs want it

        is_continued = folder.is_dir() and any(folder.iterdir())
        purge_step = last_step + 1 if is_continued else None
        self._writer: Any = SummaryWriter(str(folder), purge_step=purge_step)
        for row in () if is_continued else rows:
            self.append(row)

    def append(self, row: dict[str, Any]) -> None:
        """Adds a row."""
        for name, value in row.items():
            if name not in _PLACES and value is not None:
                self._writer.add_scalar(f"{row['kind']}/{name}", value, row["step"])

    def sync(self) -> None:
        """Returns when all rows are in the file."""
        self._writer.flush()

    def close(self) -> None:
        """Ends writing."""
        self._writer.close()
