"""Workers of this machine share a stage's tasks as they go, so that all of them end together.

Beam's local runner deals the elements out to its workers before it starts, half to each of two; where one worker is
slower, or has the larger tasks, the other waits for it at the end of every stage. So here an element is only a permit
to work: the first one that a worker gets makes it take task after task that nobody has, largest first, until none is
left.

    dealt out   worker 1  |0---|2-------|4-----|6---|              taken   |0---|2-------|5----|7--|
                worker 2  |1--|3---|5----|7--|......|                      |1--|3---|4-----|6---|..|

A worker holds a task by a lock on a file of its name, which the system lets go of when the worker dies. So nothing
needs clearing after a kill, and no claim is ever believed that nobody is working on. That every task is done when the
stage is over follows from two rules, for bundles that are retried or run twice too: a task that a worker finds free is
done by it unless its record is there; and a bundle that fails has its worker look at all tasks again. Beam's local
runner does not hand a failed bundle to another worker; were it to, the missing record would end the build at the
barrier.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from bertdata.file_locks import LockedFile
from bertdata.planning import ShardTask
from bertdata.portions import portion_bytes
from bertdata.work import Work

__all__ = ["SharedTasks", "portions_by_size", "task_key"]

Task = TypeVar("Task")


class SharedTasks(Generic[Task]):
    """The tasks of one stage, as one worker sees them.

    Args:
        folder: Where the files lie that are locked; the same for all workers.
        find_tasks: Returns all tasks of the stage, in the order in which they are to be taken.
    """

    def __init__(self, folder: Path, find_tasks: Callable[[], Sequence[Task]]) -> None:
        self._folder = folder
        self._find_tasks = find_tasks
        self._left: Iterator[Task] | None = None
        self._done: set[str] = set()

    def take(self, permit: Task) -> Generator[Task, None, None]:
        """Yields the tasks that this worker is to do now, each while it holds it; to be closed when one fails.

        Args:
            permit: The task that Beam dealt out, which comes last, unless this worker has done it or another has it.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        left = self._left if self._left is not None else iter(self._find_tasks())
        self._left = None  # until all have been done: whoever comes after a failure looks at all of them
        for task in itertools.chain(left, [permit]):
            key = task_key(task)
            if key not in self._done:
                with LockedFile(self._folder / key) as claim:
                    if claim.try_lock(exclusive=True):
                        yield task
                        self._done.add(key)
        self._left = iter(())


def task_key(task: object) -> str:
    """Returns what a task is called: a shard's file name and length, or a portion's number."""
    return f"{task.max_seq_length}-{task.name}" if isinstance(task, ShardTask) else str(task)


def portions_by_size(work: Work) -> list[int]:
    """Returns the numbers of all portions, largest first: a large one begun last would be waited for."""
    sizes = [portion_bytes(portion) for portion in work.portions]
    return sorted(range(len(sizes)), key=lambda number: -sizes[number])
