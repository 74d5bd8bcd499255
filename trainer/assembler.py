"""From the plan to batches: blocks are read, checked and kept while their window lasts, samples gathered and cut.

    plan.span, order.window  -> which samples of which blocks
    BlockReader              -> a block, read when a batch first needs a sample of it
    Arena                    -> the samples of some steps at once, sorted by step and length
    cut_step                 -> micro-batches

What is kept are the windows that the lanes are in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.arena import Arena
from trainer.batch import StepBatches
from trainer.cutting import Cutting, cut_step, deal
from trainer.order import Window
from trainer.plan import Plan
from trainer.reader import BlockReader

__all__ = ["Assembler"]

_BAD, _NOT_READ = -1, -2


class _Held(NamedTuple):
    """A window that a lane is passing through.

    Attributes:
        window: The window.
        numbers: int64 [number of parts], numbers of its blocks.
        slots: int64 [number of parts], where these are in the arena; `_BAD` or `_NOT_READ`.
    """

    window: Window
    numbers: NDArray[np.int64]
    slots: NDArray[np.int64]

    @property
    def keys(self) -> list[tuple[int, int]]:
        return [(number, self.window.epoch) for number in self.numbers.tolist()]


class _Piece(NamedTuple):
    """Consecutive samples of a lane.

    Attributes:
        source: Number of the data set.
        held: The window that they lie in.
        part: int64 [N], part of the window that each comes from.
        sample: int64 [N], its number within its block.
        step: int64 [N], number of its global batch among those that are prepared.
    """

    source: int
    held: _Held
    part: NDArray[np.int64]
    sample: NDArray[np.int64]
    step: NDArray[np.int64]


class Assembler:
    """Makes the batches of some steps at a time, and keeps the blocks of the windows that the lanes are in.

    Args:
        plan: The order of the samples.
        reader: Where they are read from.
        lanes: The lanes of this process.
        cutting: How a share becomes micro-batches.
        run: Applies a function to many blocks, in order, as `map` does.
    """

    def __init__(
        self,
        plan: Plan,
        reader: BlockReader,
        *,
        lanes: Sequence[int],
        cutting: Cutting,
        run: Callable[..., Iterable[Any]],
    ) -> None:
        self._plan = plan
        self._reader = reader
        self._lanes = lanes
        self._cutting = cutting
        self._run = run
        self._arena = Arena(reader.limits)
        self._held: dict[tuple[int, int], _Held] = {}  # by data set and lane
        self._passed: list[_Held] = []  # windows that lanes have left since the last call
        self._slots: dict[tuple[int, int], int] = {}  # of blocks, by number and epoch
        self._users: Counter[tuple[int, int]] = Counter()  # windows that hold a block

    def prepare(self, start: int, stop: int, *, every: int) -> list[StepBatches]:
        """Returns this process's shares of global batches `start`, `start + every`, ... before `stop`."""
        pieces = [piece for lane in self._lanes for piece in self._iter_pieces(lane, start, stop, every=every)]
        self._read_missing(pieces)
        slot = np.concatenate([piece.held.slots[piece.part] for piece in pieces])
        block = np.concatenate([piece.held.numbers[piece.part] for piece in pieces])
        sample = np.concatenate([piece.sample for piece in pieces])
        step = np.concatenate([piece.step for piece in pieces])
        if (slot == _BAD).any():
            slot, block, sample, step = (values[slot != _BAD] for values in (slot, block, sample, step))
        # By step, then the longest first; samples of a length stay in the order of their lanes.
        lengths = self._arena.lengths(slot, sample)
        order = np.argsort(step * (self._reader.max_seq_length + 1) - lengths, kind="stable")
        dealt = deal(np.bincount(step), cutting=self._cutting)
        order = order if dealt is None else order[dealt]
        block, sample, step = block[order], sample[order], step[order]
        shown = self._arena.show(slot[order], sample)
        self._release_passed()
        sample_ids = self._reader.first_samples[block] + sample
        cuts = np.searchsorted(step, np.arange(-(-(stop - start) // every) + 1)).tolist()
        return [cut_step(shown, sample_ids, first, last, cutting=self._cutting) for first, last in pairwise(cuts)]

    def _iter_pieces(self, lane: int, start: int, stop: int, *, every: int) -> Iterator[_Piece]:
        for source in range(len(self._plan.orders)):
            position, end, steps = self._plan.span(source, lane, start=start, stop=stop)
            while position < end:
                held = self._hold(source, lane, position)
                rows = slice(position - held.window.start, end - held.window.start)
                part, sample = held.window.part[rows], held.window.sample[rows]
                step, steps = steps[: len(part)], steps[len(part) :]
                position += len(part)
                if every > 1:
                    chosen = step % every == 0
                    part, sample, step = part[chosen], sample[chosen], step[chosen] // every
                yield _Piece(source, held, part, sample, step)

    def _hold(self, source: int, lane: int, position: int) -> _Held:
        """Returns the window of a lane at a position, which is now the one that the lane is in."""
        held = self._held.get((source, lane))
        if held is not None and held.window.start <= position < held.window.stop:
            return held
        if held is not None:
            self._passed.append(held)
        window = self._plan.orders[source].window(lane, position)
        held = _Held(window, self._numbers(source, window), np.full(len(window.blocks), _NOT_READ))
        self._held[source, lane] = held
        self._users.update(held.keys)
        return held

    def _numbers(self, source: int, window: Window) -> NDArray[np.int64]:
        numbers: NDArray[np.int64] = self._plan.first_blocks[source] + window.blocks
        return numbers

    def _read_missing(self, pieces: list[_Piece]) -> None:
        """Reads those blocks of the pieces that are not there, and notes where all of them are."""
        wanted: dict[tuple[int, int], int] = {}  # the data set of each
        used = []
        for piece in pieces:
            if not (piece.held.slots == _NOT_READ).any():
                continue
            parts = np.unique(piece.part)
            parts = parts[piece.held.slots[parts] == _NOT_READ].tolist()
            keys = piece.held.keys
            used += [(piece.held, part, keys[part]) for part in parts]
            wanted |= {keys[part]: piece.source for part in parts if keys[part] not in self._slots}
        if not used:
            return
        if self._reader.is_remote:
            self._prefetch([number for number, _ in wanted])
        self._arena.reserve(len(self._users) - len(self._slots))  # for what later steps will need, too
        in_shards = sorted(wanted.items())  # each shard at one time, since it may be evicted after that
        for (key, _), slot in zip(in_shards, self._run(self._read, in_shards), strict=True):
            self._slots[key] = slot if isinstance(slot, int) else self._arena.add(*slot)
        for held, part, key in used:
            held.slots[part] = self._slots[key]

    def _prefetch(self, numbers: list[int]) -> None:
        """Asks for blocks that are needed now, for the others of the lanes' windows, and for those of the next ones."""
        held = sorted(self._held.items(), key=lambda item: item[1].window.stop)
        for _, one in held:
            numbers += one.numbers[one.slots == _NOT_READ].tolist()
        for (source, lane), one in held:
            numbers += self._numbers(source, self._plan.orders[source].window(lane, one.window.stop)).tolist()
        self._reader.prefetch(numbers)

    def _read(self, wanted: tuple[tuple[int, int], int]) -> Any:
        """Returns a block and its mask sets, as `Arena.add` takes them; `_BAD` where it is damaged."""
        (number, epoch), source = wanted
        order, row = self._plan.orders[source], number - self._plan.first_blocks[source]
        found = self._reader.read(number, order.mask_sets(row, epoch=epoch))
        return _BAD if found is None else found

    def _release_passed(self) -> None:
        for held in self._passed:
            for key in held.keys:
                self._users[key] -= 1
                if not self._users[key]:
                    del self._users[key]
                    slot = self._slots.pop(key, _BAD)
                    if slot != _BAD:
                        self._arena.release(slot)
        self._passed.clear()
