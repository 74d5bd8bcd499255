"""Where a run is in its data: a few values that say which order it follows, and one number, the samples seen.

    {"format_version": 1, "data_sets": ["0f3c2a9be1d47c55"], "weights": null, "seed": 0, "batch_size": 256,
     "window_blocks": null, "shuffle_shards": null, "samples_seen": 1280000}

It is the same in all processes, and says nothing of processes, threads or what they have read ahead.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from bertdata.errors import TrainingError

__all__ = ["FORMAT_VERSION", "MAY_DIFFER", "DataState"]

FORMAT_VERSION = 1
"""Of the state, and of the order of samples that it stands for."""

MAY_DIFFER = (
    "processes, loader workers, micro-batches, padding, the place of the shards, --skip-bad-blocks and how the model "
    "learns (rate, schedule, length, dropout) may differ; all else decides the order of samples, or is the model itself"
)
"""What the state does not depend on, for messages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataState:
    """The state of a run's data.

    Attributes:
        data_sets: First 16 hexadecimal digits of each data set's fingerprint.
        weights: Shares of the data sets, of sum 1; None where each counts by its size.
        seed: The run's seed.
        batch_size: Samples of a global batch.
        window_blocks: See `trainer.order.Order`.
        shuffle_shards: See `trainer.order.Order`.
        samples_seen: Samples of all finished steps.
    """

    data_sets: tuple[str, ...]
    weights: tuple[float, ...] | None = None
    seed: int
    batch_size: int
    window_blocks: int | None = None
    shuffle_shards: int | None = None
    samples_seen: int = 0

    @property
    def step(self) -> int:
        """Number of the next global batch."""
        return self.samples_seen // self.batch_size

    def at_step(self, step: int) -> DataState:
        """Returns the state after so many steps."""
        return dataclasses.replace(self, samples_seen=step * self.batch_size)

    def to_json(self) -> dict[str, Any]:
        """Returns the state as JSON values."""
        return {"format_version": FORMAT_VERSION} | dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> DataState:
        """Returns the state that `to_json` gave.

        Raises:
            TrainingError: It is of another format version, or no state.
        """
        version = values.get("format_version") if isinstance(values, dict) else None
        if version != FORMAT_VERSION:
            raise TrainingError(
                f"the data state has format version {version}; this release continues version {FORMAT_VERSION}. "
                "Continue with the release that wrote it, or begin another run"
            )
        fields = {field.name for field in dataclasses.fields(cls)}
        if set(values) - {"format_version"} != fields:
            raise TrainingError(f"the data state has the fields {sorted(values)}; it must have {sorted(fields)}")
        taken = {name: values[name] for name in fields}
        for name in ("data_sets", "weights"):
            taken[name] = None if taken[name] is None else tuple(taken[name])
        return cls(**taken)

    def find_differences(self, run: DataState) -> list[str]:
        """Returns in what the order of this state differs from that of a run; empty where the run can go on from it."""
        differences = []
        for field in dataclasses.fields(self):
            mine, wanted = getattr(self, field.name), getattr(run, field.name)
            if field.name != "samples_seen" and mine != wanted:
                differences.append(f"{field.name} is {_plain(wanted)}, not {_plain(mine)}")
        return differences

    def check_continues(self, run: DataState) -> None:
        """Refuses to go on from this state in another order.

        Raises:
            TrainingError: Names each difference, what may differ, and what to do; or it is between two steps.
        """
        if differences := self.find_differences(run):
            raise TrainingError(
                f"the data state at {self.samples_seen} samples cannot be continued so: {'; '.join(differences)}. "
                f"Give the data sets and options of that run, or begin another run; {MAY_DIFFER}"
            )
        if not isinstance(self.samples_seen, int) or self.samples_seen < 0 or self.samples_seen % self.batch_size:
            raise TrainingError(
                f"the data state is at {self.samples_seen!r} samples, which is no whole number of batches of "
                f"{self.batch_size}; give a state as it was saved"
            )


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else "the default" if value is None else str(value)
