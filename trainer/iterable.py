"""The loader as an iterable data set, for training loops that are not this project's."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from multiprocessing.context import get_spawning_popen
from typing import Any

import torch.distributed
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from bertdata.cache_options import CacheOptions
from bertdata.errors import TrainingError
from trainer.batch import Batch
from trainer.data import open_training_data
from trainer.loader import Loader
from trainer.plan import Plan
from trainer.state import DataState

__all__ = ["PreTrainingData"]


class PreTrainingData(IterableDataset[Any]):
    """Endless batches of this process's share, in the exact order that `bert-train` follows.

        data = PreTrainingData("shards/", batch_size=256, padded=True, num_workers=1)
        for batch in data:
            loss = model(**batch).loss
            ...
            torch.save({"model": model.state_dict(), "data": data.state_dict()}, "checkpoint.pt")

    With `padded`, a batch is a dictionary of what `transformers.BertForPreTraining` takes, for B samples, the longest
    of S tokens: `input_ids`, `token_type_ids`, `attention_mask` and `labels` (-100 where nothing is predicted), int64
    [B, S], and `next_sentence_label`, int64 [B]. Without, it is a `trainer.batch.Batch`, which has no padding and names
    its samples. All are on the CPU.

    Iterating goes on from the state, which is one number, and moves it: a step is finished when the last of its batches
    was yielded. What threads have read ahead does not count. A second `iter` goes on where the first was left; two that
    are used in turn would both move the state.

    `num_workers` threads prepare batches while the loop computes; one is enough for most models, and no `DataLoader` is
    needed. Where a framework wants one, give it the data set with `batch_size=None` and `num_workers=0`. Its own
    workers are processes, which hand over batches through shared memory and each read all blocks: batches and order
    stay the same for any number of them, but more than one is a waste. They start from the state that the data set has
    when they are started, so load one before. What they have prepared is not known here, so `state_dict` then needs the
    number of finished steps.

    Args:
        shards: Folder or address of a data set; or several, see `trainer.data.open_training_data`.
        batch_size: Samples of a global batch, over all processes.
        seed: Number that the order of samples comes from.
        rank: Number of this process; None for that of torch.distributed, or of torchrun's environment, else 0.
        world_size: Number of processes; None likewise, else 1.
        micro_batch_size: Samples of a batch that is yielded, at most; None for the whole share of a step. With it, a
            step has several batches, the longest samples first, and counts when its last one is yielded.
        padded: Yield dictionaries of padded tensors, and not a `Batch`.
        max_padding: Padding per token at most, such as 0.03: a step then has as many batches as that takes. None for no
            limit.
        pad_to_multiple: Width S of padded tensors is rounded up to a multiple of this, at most to the longest sample of
            the data sets; of a `Batch`, see `trainer.cutting.Cutting`.
        num_workers: Threads that prepare batches ahead in this process; 0 prepares each when it is asked for.
        window_blocks: See `trainer.order.Order`.
        shuffle_shards: See `trainer.order.Order`.
        skip_bad_blocks: Whether to go on without damaged blocks, with a warning for each. A step may have fewer batches
            then on one process than on another, or a batch without samples, whose mean loss is not a number.
        cache: Where the shards of addresses are kept; None for the defaults.

    Raises:
        ShardError: A data set is not there or damaged.
        DownloadError: A server refuses it, or fails for good.
        OutputError: The cache is too small for a shard, or cannot be written to.
        TrainingError: A number is out of its range, or the data sets, the batch size and the number of processes do not
            fit each other.
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
        max_padding: float | None = None,
        pad_to_multiple: int | None = None,
        num_workers: int = 0,
        window_blocks: int | None = None,
        shuffle_shards: int | None = None,
        skip_bad_blocks: bool = False,
        cache: CacheOptions | None = None,
    ) -> None:
        self._rank = _from_torch("RANK") if rank is None else rank
        self._world_size = _from_torch("WORLD_SIZE") if world_size is None else world_size
        _check_at_least(1, batch_size=batch_size, world_size=self._world_size, micro_batch_size=micro_batch_size)
        _check_at_least(1, pad_to_multiple=pad_to_multiple, window_blocks=window_blocks, shuffle_shards=shuffle_shards)
        _check_at_least(0, num_workers=num_workers, rank=self._rank, seed=seed)
        if self._rank >= self._world_size:
            raise TrainingError(f"rank is {self._rank}; of {self._world_size} processes it is at most one less")
        places = [shards] if isinstance(shards, str | os.PathLike) else list(shards)
        self._data = open_training_data([os.fspath(place) for place in places], cache=cache)
        self._state = self._data.initial_state(
            seed=seed, batch_size=batch_size, window_blocks=window_blocks, shuffle_shards=shuffle_shards
        )
        self._plan: Plan | None = self._data.make_plan(self._state)
        self._plan.lanes_of(self._rank, world_size=self._world_size)  # an error now, not at the first batch
        self._cutting = self._data.make_cutting(
            micro_batch_size=micro_batch_size,
            max_padding=max_padding,
            pad_to_multiple=None if padded else pad_to_multiple,
        )
        self._padded = padded
        self._pad_to_multiple = pad_to_multiple or 1
        self._num_workers = num_workers
        self._skip_bad_blocks = skip_bad_blocks
        self._is_left_to_workers = _shared_flag()

    @property
    def num_samples(self) -> int:
        """Training samples of the data sets."""
        return self._data.num_samples("train")

    @property
    def vocab_size(self) -> int:
        """Ids of the tokenizer, for the model's embeddings."""
        return self._data.tokenizer.vocab_size

    @property
    def max_seq_length(self) -> int:
        """Tokens of a sample at most, for the model's positions."""
        return self._data.max_seq_length

    def __iter__(self) -> Iterator[Batch | dict[str, Tensor]]:
        """Yields batches from the current state on, without end.

        Raises:
            ShardError: A block is damaged; no sample of it was yielded.
        """
        worker = get_worker_info()
        if worker is not None:
            yield from map(self._form, self._iter_in_worker(worker.id, worker.num_workers))
            return
        first = self._state.step
        for step, batches in enumerate(self._make_loader().steps(first), start=first + 1):
            yield from map(self._form, batches.micro_batches[:-1])
            self._state = self._state.at_step(step)
            yield self._form(batches.micro_batches[-1])

    def _iter_in_worker(self, number: int, num_workers: int) -> Iterator[Batch]:
        """Yields the batches of one worker of a DataLoader, which takes a batch from each of them in turn."""
        self._is_left_to_workers[0] = 1
        # The state stays as it is, so that workers that outlive an iteration begin the next one at the same step.
        loader, first = self._make_loader(), self._state.step
        size, share = self._cutting.micro_batch_size, self._state.batch_size // self._world_size
        if (size is None or size >= share) and self._cutting.max_padding is None:
            steps = loader.steps(first + number, every=num_workers)
            return (batches.micro_batches[0] for batches in steps)
        every_batch = chain.from_iterable(batches.micro_batches for batches in loader.steps(first))
        return islice(every_batch, number, None, num_workers)

    def _make_loader(self) -> Loader:
        # The reader is a new one each time: the lock of an old one may have been held by a thread during a fork.
        return Loader(
            self._plan or self._data.make_plan(self._state),
            self._data.open_split("train", skip_bad_blocks=self._skip_bad_blocks),
            rank=self._rank,
            world_size=self._world_size,
            cutting=self._cutting,
            num_workers=self._num_workers,
        )

    def _form(self, batch: Batch) -> Batch | dict[str, Tensor]:
        if not self._padded:
            return batch
        return batch.padded(
            pad_token_id=self._data.tokenizer.roles["pad"],
            pad_to_multiple=self._pad_to_multiple,
            max_seq_length=self.max_seq_length,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what a copy makes anew. A copy for a process that is being started takes the iteration along."""
        if get_spawning_popen() is not None:
            self._is_left_to_workers[0] = 1
        return vars(self) | {"_plan": None, "_is_left_to_workers": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _is_left_to_workers=_shared_flag())

    def state_dict(self, *, step: int | None = None) -> dict[str, Any]:
        """Returns where the iteration is, as JSON values of less than 1 kB; the same on all ranks.

        Args:
            step: Finished steps of the whole run, from its very beginning; None for those whose batches were all taken
                from this object.

        Raises:
            TrainingError: No step is given, and workers of a `DataLoader` took the batches.
        """
        if step is not None:
            _check_at_least(0, step=step)
            return self._state.at_step(step).to_json()
        if self._is_left_to_workers[0]:
            raise TrainingError(
                "workers of a DataLoader iterate over this data set, and have prepared more batches than were used; "
                "count the finished steps and call state_dict(step=...), or give num_workers to the data set and none "
                "to the DataLoader"
            )
        return self._state.to_json()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Makes the next iteration go on from a state. Workers of a `DataLoader` must be started after it.

        Raises:
            TrainingError: It is the state of another order of samples, or none.
        """
        saved = DataState.from_json(state)
        saved.check_continues(self._state)
        self._state = saved
        self._is_left_to_workers[0] = 0


def _shared_flag() -> mmap.mmap:
    """Returns a byte that is 0, and that forked processes share: it has no file, so a killed process leaves none."""
    return mmap.mmap(-1, 1)


def _check_at_least(least: int, **values: int | None) -> None:
    for name, value in values.items():
        if value is not None and value < least:
            raise TrainingError(f"{name} is {value}; it must be at least {least}")


def _from_torch(name: str) -> int:
    """Returns RANK or WORLD_SIZE."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank() if name == "RANK" else torch.distributed.get_world_size()
    return int(os.environ.get(name, "0" if name == "RANK" else "1"))
