"""One rank's share of the global batches, step by step, prepared ahead where that is wanted.

All order comes from the plan; threads only work ahead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from trainer.assembler import Assembler
from trainer.batch import StepBatches
from trainer.cutting import Cutting
from trainer.plan import Plan
from trainer.reader import BlockReader

__all__ = ["Loader"]

_TOKENS_AT_ONCE = 1 << 21
"""Tokens that are gathered together, at most: fewer cost more calls of numpy, more take more memory than they gain."""

_STEPS_AT_ONCE = 256
"""Steps that are prepared together, at most: who waits for the first of them waits for all."""

_CHUNKS_AHEAD = 2


class Loader:
    """Iterates over one rank's share of the global batches.

    Args:
        plan: The order of the samples.
        reader: Where they are read from.
        rank: Number of this process.
        world_size: Number of processes.
        cutting: How a share becomes micro-batches.
        num_workers: Threads that prepare steps ahead; all but the first of them read blocks. 0 prepares steps when they
            are asked for.

    Raises:
        TrainingError: When the plan's lanes cannot be divided among the ranks.
    """

    def __init__(
        self, plan: Plan, reader: BlockReader, *, rank: int, world_size: int, cutting: Cutting, num_workers: int = 0
    ) -> None:
        self._plan = plan
        self._reader = reader
        self._lanes = plan.lanes_of(rank, world_size=world_size)
        self._cutting = cutting
        self._num_workers = num_workers

    def steps(self, start: int, stop: int | None = None, *, every: int = 1) -> Iterator[StepBatches]:
        """Yields this rank's shares of global batches.

        Args:
            start: Number of the first one (from 0).
            stop: Number after the last one; None for no end.
            every: Distance between them.

        Raises:
            ShardError: A block is damaged; no sample of it was yielded.
        """
        with ExitStack() as stack:
            stack.callback(self._reader.stop_prefetching)
            run: Callable[..., Iterable[Any]] = map
            if self._num_workers > 1:
                run = stack.enter_context(_threads(self._num_workers - 1)).map
            assembler = Assembler(self._plan, self._reader, lanes=self._lanes, cutting=self._cutting, run=run)
            chunks = self._iter_chunks(assembler, start, stop, every=every)
            for chunk in _ahead(chunks, stack.enter_context(_threads(1))) if self._num_workers else chunks:
                yield from chunk

    def _iter_chunks(
        self, assembler: Assembler, start: int, stop: int | None, *, every: int
    ) -> Iterator[list[StepBatches]]:
        share = self._plan.samples_per_lane * len(self._lanes)
        # A run begins with one step, so that it need not wait for blocks that only later steps need.
        # No more than a window, either, or blocks of windows that are passed would be kept.
        shortest = min(min(order.window_samples, order.lane_length(0)) for order in self._plan.orders)
        token_steps = _TOKENS_AT_ONCE // (share * self._reader.max_seq_length)
        num_steps, most = 1, max(1, min(token_steps, shortest // self._plan.samples_per_lane, _STEPS_AT_ONCE))
        while stop is None or start < stop:
            end = start + num_steps * every
            yield assembler.prepare(start, end if stop is None else min(end, stop), every=every)
            start, num_steps = end, min(2 * num_steps, most)


def _threads(number: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(number, thread_name_prefix="loader")


def _ahead(chunks: Iterator[list[StepBatches]], thread: ThreadPoolExecutor) -> Iterator[list[StepBatches]]:
    """Yields what `chunks` yields, which one thread prepares meanwhile."""
    ahead: deque[Future[list[StepBatches] | None]] = deque()
    try:
        while True:
            while len(ahead) <= _CHUNKS_AHEAD:
                ahead.append(thread.submit(next, chunks, None))
            chunk = ahead.popleft().result()
            if chunk is None:
                return
            yield chunk
    finally:
        for future in ahead:
            future.cancel()
