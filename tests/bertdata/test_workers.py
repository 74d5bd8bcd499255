import os
import signal
import subprocess
import sys

import pytest

from bertdata.errors import BertDataError, ShardError
from bertdata.workers import map_in_processes


def process_of(number):
    return number, os.getpid()


def fail_at_three(number):
    if number == 3:
        raise ShardError("shard 3 is damaged")


def die_at_three(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_results_come_in_order_from_as_many_processes(num_workers):
    found = list(map_in_processes(process_of, range(20), num_workers=num_workers))
    assert [number for number, _ in found] == list(range(20))
    processes = {process for _, process in found}
    assert (processes == {os.getpid()}) == (num_workers == 1)
    assert len(processes) <= num_workers


def test_error_of_a_task_is_raised_here():
    with pytest.raises(ShardError, match="shard 3 is damaged"):
        list(map_in_processes(fail_at_three, [1, 3, 2], num_workers=2))


def test_killed_process_is_an_error():
    with pytest.raises(BertDataError, match="a worker process was killed.*fewer --num-workers"):
        list(map_in_processes(die_at_three, [1, 3, 2], num_workers=2))


def test_processes_end_when_their_parent_is_killed():
    """The pipe that they inherit is at its end when the last of them is gone."""
    code = (
        "import os, signal\n"
        "from bertdata.workers import map_in_processes\n"
        "if __name__ == '__main__':\n"
        "    for _ in map_in_processes(abs, range(9), num_workers=2):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert result.returncode == -signal.SIGKILL
