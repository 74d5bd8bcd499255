"""Tasks that workers share as they go: each is done once, by whoever is free, also after failures and kills."""

import contextlib
import multiprocessing
import os
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertdata.planning import ShardTask
from pipelines.sharing import SharedTasks, task_key


def sharing(folder, tasks):
    return SharedTasks(folder, lambda: tasks)


def test_first_permit_takes_everything_and_the_others_nothing(tmp_path):
    tasks = sharing(tmp_path, [3, 1, 2])
    assert list(tasks.take(2)) == [3, 1, 2]
    assert list(tasks.take(1)) == []


def test_permit_for_a_task_that_another_worker_has_had_offers_it_again(tmp_path):
    """Whether it was done, or has failed, its record tells."""
    late, early = (sharing(tmp_path, [0, 1]) for _ in range(2))
    taken = early.take(1)
    assert next(taken) == 0
    assert list(late.take(1)) == [1]
    taken.close()
    assert list(late.take(0)) == [0]


@given(held=st.sets(st.integers(0, 5)), permit=st.integers(0, 5))
def test_tasks_that_another_worker_has_are_left_to_it(tmp_path_factory, held, permit):
    folder = tmp_path_factory.mktemp("claims")
    with contextlib.ExitStack() as stack:
        for task in held:
            other = sharing(folder, [task]).take(task)
            assert next(other) == task
            stack.callback(other.close)
        free = [task for task in range(6) if task not in held]
        assert list(sharing(folder, range(6)).take(permit)) == free


def test_two_workers_in_turn_take_each_task_once(tmp_path):
    tasks = list(range(7))
    one, other = (sharing(tmp_path, tasks).take(0) for _ in range(2))
    taken = [next(one), next(other)]
    assert taken == [0, 1]
    # The first is slow: it stays at task 0 while the other one does all the rest.
    assert list(other) == [2, 3, 4, 5, 6]


def test_worker_looks_at_all_tasks_again_after_a_failure(tmp_path):
    tasks = sharing(tmp_path, [0, 1, 2])
    with pytest.raises(ValueError, match="1 is bad"), contextlib.closing(tasks.take(2)) as taken:
        for task in taken:
            if task == 1:
                raise ValueError("1 is bad")
    assert list(tasks.take(2)) == [1, 2]
    assert list(tasks.take(0)) == []


def _hold(folder, at_work):
    for _ in sharing(folder, ["only"]).take("only"):
        at_work.set()
        signal.pause()


def test_task_of_a_killed_worker_is_free_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    at_work = context.Event()
    worker = context.Process(target=_hold, args=(tmp_path, at_work))
    worker.start()
    assert at_work.wait(30)
    assert list(sharing(tmp_path, ["only"]).take("only")) == []
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert list(sharing(tmp_path, ["only"]).take("only")) == ["only"]


def test_tasks_of_one_stage_have_names_of_their_own():
    shards = [
        ShardTask(
            max_seq_length=length, split=split, number=number, num_shards=2, place=number, first_bin=0, last_bin=1
        )
        for length in (128, 512)
        for split in ("train", "eval")
        for number in (0, 1)
    ]
    assert len({task_key(task) for task in shards}) == len(shards)
    assert all("/" not in task_key(task) for task in [*shards, 7])
