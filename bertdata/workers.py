"""Work on all cores: one function over many tasks, in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from bertdata.errors import BertDataError

__all__ = ["map_in_processes", "num_cores"]

Task = TypeVar("Task")
Result = TypeVar("Result")

_AHEAD = 4  # tasks per process that are handed out before the first result is taken


def num_cores() -> int:
    """Returns how many processors this process may use."""
    return len(os.sched_getaffinity(0))


def map_in_processes(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, num_workers: int
) -> Iterator[Result]:
    """Yields the result of each task, in order; at most a few are held at a time.

    Args:
        function: A function that other processes can import, or a `functools.partial` of one.
        tasks: Its arguments.
        num_workers: Processes to use; with one, or one task, all is done in this process.

    Raises:
        BertDataError: A process was killed.
    """
    num_workers = min(num_workers, len(tasks))
    if num_workers <= 1:
        yield from map(function, tasks)
        return
    # Processes that are started anew hold no lock that a thread of this one held at a fork.
    executor = ProcessPoolExecutor(
        num_workers, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )
    try:
        yield from _map(executor, function, tasks, num_ahead=_AHEAD * num_workers)
    except BrokenProcessPool as error:
        raise BertDataError(
            "a worker process was killed, perhaps because memory ran out; try again with fewer --num-workers"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Makes this process end when its parent is killed; it would wait for the next task for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _map(
    executor: Executor, function: Callable[[Task], Result], tasks: Sequence[Task], *, num_ahead: int
) -> Iterator[Result]:
    waiting: list[Future[Result]] = []
    for task in tasks:
        waiting.append(executor.submit(function, task))
        if len(waiting) == num_ahead:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()
