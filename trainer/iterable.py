"""The loader as an iterable data set, for training loops that are not this project's."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch.distributed
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from trainer.batch import Batch
from trainer.data import open_training_data
from trainer.loader import Loader
from trainer.state import DataState

__all__ = ["PreTrainingData"]


class PreTrainingData(IterableDataset[Any]):
    """Endless batches of this process's share, in the exact order that `bert-train` follows.

        data = PreTrainingData("shards/", batch_size=256, padded=True)
        for batch in data:
            loss = model(**batch).loss
            ...
            torch.save({"model": model.state_dict(), "data": data.state_dict()}, "checkpoint.pt")

    In a `DataLoader` give `batch_size=None`; it keeps the order for any `num_workers`. Batches that its workers have
    prepared are not counted here then: count finished steps, and call `state_dict(step=...)`.

    Args:
        shards: Folder or address of a data set; or several, see `trainer.data.open_training_data`.
        batch_size: Samples of a global batch, over all processes.
        seed: Number that the order of samples comes from.
        rank: Number of this process; None for that of torch.distributed, or of torchrun's environment, else 0.
        world_size: Number of processes; None likewise.
        micro_batch_size: Samples of a batch that is yielded, at most; None for the whole share of a step. With it, a
            step has several batches, and counts when its last one is yielded.
        padded: Yield dictionaries of padded tensors for `transformers.BertForPreTraining`, see `Batch.padded`, and not
            a `Batch`.
        pad_to_multiple: Width of padded tensors is a multiple of this; of a `Batch`, see `trainer.batch.Cutting`.
        num_workers: Threads that prepare batches ahead in this process.
        window_blocks: See `trainer.order.Order`.
        shuffle_shards: See `trainer.order.Order`.
        skip_bad_blocks: Whether to go on without damaged blocks, with a warning for each.

    Raises:
        ShardError: A data set is not there or damaged.
        TrainingError: The data sets, the batch size and the number of processes do not fit each other.
    """

    def __init__(
        self,
        shards: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        batch_size: int,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        micro_batch_size: int | None = None,
        padded: bool = False,
        pad_to_multiple: int | None = None,
        num_workers: int = 0,
        window_blocks: int | None = None,
        shuffle_shards: int | None = None,
        skip_bad_blocks: bool = False,
    ) -> None:
        places = [shards] if isinstance(shards, str | os.PathLike) else list(shards)
        self._data = open_training_data([os.fspath(place) for place in places])
        self._state = self._data.initial_state(
            seed=seed, batch_size=batch_size, window_blocks=window_blocks, shuffle_shards=shuffle_shards
        )
        self._loader = Loader(
            self._data.make_plan(self._state),
            self._data.open_split("train", skip_bad_blocks=skip_bad_blocks),
            rank=_from_torch("RANK") if rank is None else rank,
            world_size=_from_torch("WORLD_SIZE") if world_size is None else world_size,
            cutting=self._data.make_cutting(
                micro_batch_size=micro_batch_size, pad_to_multiple=None if padded else pad_to_multiple
            ),
            num_workers=num_workers,
        )
        self._padded = padded
        self._pad_to_multiple = pad_to_multiple or 1

    @property
    def num_samples(self) -> int:
        """Training samples of the data sets."""
        return self._data.num_samples("train")

    def __iter__(self) -> Iterator[Batch | dict[str, Tensor]]:
        """Yields batches from the current state on, without end."""
        worker = get_worker_info()
        own, every = (worker.id, worker.num_workers) if worker else (0, 1)
        step = self._state.step + own
        for batches in self._loader.steps(step, every=every):
            step += every
            for number, batch in enumerate(batches.micro_batches, start=1):
                if number == len(batches.micro_batches):
                    self._state = self._state.at_step(step)
                yield self._pad(batch) if self._padded else batch

    def _pad(self, batch: Batch) -> dict[str, Tensor]:
        return batch.padded(pad_token_id=self._data.tokenizer.roles["pad"], pad_to_multiple=self._pad_to_multiple)

    def state_dict(self, *, step: int | None = None) -> dict[str, Any]:
        """Returns where the iteration is, as JSON values of less than 1 kB.

        Args:
            step: Finished steps of the whole run; None for those whose batches were all taken from this object.
        """
        return (self._state if step is None else self._state.at_step(step)).to_json()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration go on from a state.

        Raises:
            TrainingError: It is the state of another order of samples.
        """
        saved = DataState.from_json(state)
        saved.check_continues(self._state)
        self._state = saved


def _from_torch(name: str) -> int:
    """Returns RANK or WORLD_SIZE."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank() if name == "RANK" else torch.distributed.get_world_size()
    return int(os.environ.get(name, "0" if name == "RANK" else "1"))
