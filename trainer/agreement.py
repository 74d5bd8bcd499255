"""All processes of a run must be about to do the same; what differs is found before the first step."""

from __future__ import annotations

import json
from typing import Any

from bertdata.errors import TrainingError
from trainer.config import TrainOptions
from trainer.distributed import World
from trainer.state import DataState

__all__ = ["check_same"]

_OWN = ("out", "micro_batch_size", "num_loader_workers")
"""Options that a process may have of its own; the folder may be mounted elsewhere."""


def check_same(options: TrainOptions, data: DataState, *, first_step: int, world: World) -> None:
    """Compares options, data sets and the step to begin with over all processes.

    Raises:
        TrainingError: Names what differs, in all processes.
    """
    values = {name: value for name, value in options.to_json().items() if name not in _OWN}
    values |= {"data": data.to_json(), "first_step": first_step}
    all_values = [json.loads(text) for text in world.gather(json.dumps(values))]
    for rank, others in enumerate(all_values):
        if differences := _differences(all_values[0], others):
            raise TrainingError(
                f"rank {rank} is to do something else than rank 0: {'; '.join(differences)}. Give all processes the "
                "same command and the same data sets"
            )


def _differences(first: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, value in first.items():
        if isinstance(value, dict) and isinstance(other[name], dict):
            found += _differences(value, other[name], f"{prefix}{name}.")
        elif value != other[name]:
            found.append(f"{prefix}{name} is {other[name]}, not {value}")
    return found
