"""Leases of launchers that are at work, killed, held up, or start at once; in real threads and processes."""

import json
import logging
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest

from bertdata.errors import DownloadError, OutputError
from bertdata.lease import Lease, LeaseTimes
from bertdata.storage import LocalFolder

TIMES = LeaseTimes(renew_seconds=0.05, expire_seconds=0.5, settle_seconds=0.05)

HOLDER = """
import sys, time
from pathlib import Path
from bertdata.lease import Lease, LeaseTimes
from bertdata.storage import LocalFolder

times = LeaseTimes(renew_seconds=0.05, expire_seconds=0.5, settle_seconds=0.05)
with Lease(LocalFolder(Path(sys.argv[1])), where="s3://buck/out", times=times):
    print("held", flush=True)
    time.sleep(60)
"""


def lease(folder, **values) -> Lease:
    return Lease(LocalFolder(folder), where="s3://buck/out", **{"times": TIMES} | values)


def wait_for(condition, *, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for has not come"
        time.sleep(0.005)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lease."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_lease_is_given_back_and_taken_again_without_waiting(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            with lease(tmp_path):
                assert json.loads((tmp_path / "lock").read_bytes())["count"] >= 0
            assert not (tmp_path / "lock").exists()
    assert caplog.text == ""


def test_lease_is_given_back_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), lease(tmp_path):
        raise ZeroDivisionError
    assert not (tmp_path / "lock").exists()


def test_second_launcher_is_refused_by_name(tmp_path, holder):
    with pytest.raises(OutputError, match=rf"another build is writing to s3://buck/out: process {holder.pid} on .*UTC"):
        lease(tmp_path).__enter__()
    before = json.loads((tmp_path / "lock").read_bytes())
    wait_for(lambda: json.loads((tmp_path / "lock").read_bytes())["count"] > before["count"])


def test_lease_of_a_killed_launcher_is_taken_over_after_a_wait_that_is_told(tmp_path, holder, caplog):
    holder.kill()
    holder.wait()
    start = time.monotonic()
    with caplog.at_level(logging.INFO), lease(tmp_path):
        assert time.monotonic() - start >= TIMES.expire_seconds
    assert f"held by another build: process {holder.pid} on" in caplog.text
    assert "waiting up to" in caplog.text
    assert "not at work any more" in caplog.text


def test_lease_that_is_given_back_while_it_is_watched_is_taken_at_once(tmp_path):
    # A write that takes longer than half of the time to settle waits for two renewals, however long those take.
    first = lease(tmp_path, times=LeaseTimes(renew_seconds=5, expire_seconds=60, settle_seconds=0.5))
    first.__enter__()
    long = LeaseTimes(renew_seconds=0.05, expire_seconds=60, settle_seconds=0.05)
    taken = threading.Event()

    def take():
        with lease(tmp_path, times=long):
            taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    first.__exit__(None, None, None)
    assert taken.wait(20)
    thread.join()


def test_launcher_that_was_held_up_ends_with_an_error_and_leaves_the_others_lease(tmp_path, holder):
    holder.send_signal(signal.SIGSTOP)
    with ExitStack() as stack:
        stack.enter_context(lease(tmp_path))
        mine = json.loads((tmp_path / "lock").read_bytes())["owner"]
        holder.send_signal(signal.SIGCONT)
        assert holder.wait(timeout=20) == 1
        assert json.loads((tmp_path / "lock").read_bytes())["owner"] == mine


def test_loss_interrupts_the_main_thread_and_names_who_took_over(tmp_path):
    other = {"owner": "other", "count": 0, "host": "h", "pid": 7, "since": "t"}
    said = "another build has taken over s3://buck/out: process 7 on h, since t"
    with pytest.raises(OutputError, match=said), lease(tmp_path):
        LocalFolder(tmp_path).write("lock", json.dumps(other).encode())
        time.sleep(20)
    assert json.loads((tmp_path / "lock").read_bytes())["owner"] == "other"


class Memory:
    """A folder of which threads see the same at once, as an object store is seen."""

    location = "memory"

    def __init__(self):
        self.files = {}

    def read(self, name):
        if name not in self.files:
            raise FileNotFoundError(name)
        return self.files[name]

    def write(self, name, data):
        self.files[name] = data

    def remove(self, names):
        for name in names:
            self.files.pop(name, None)

    def remove_if_empty(self):
        pass


@pytest.mark.parametrize("count", [2, 5])
def test_one_wins_of_those_that_start_at_once(count):
    folder = Memory()
    start, done = threading.Barrier(count), threading.Event()
    won, refused = [], []

    def run():
        start.wait()
        try:
            with Lease(folder, where="s3://buck/out", times=TIMES, on_loss=won.clear):
                won.append(1)
                done.wait(20)
        except OutputError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    wait_for(lambda: won and len(refused) == count - 1)
    done.set()
    for thread in threads:
        thread.join()
    assert won == [1]
    assert all("another build is writing to" in message for message in refused)


class Broken(LocalFolder):
    """A folder that fails from some moment on."""

    is_broken = False

    def read(self, name):
        if self.is_broken:
            raise DownloadError("no answer")
        return super().read(name)


def test_failures_are_borne_for_a_while_and_then_end_the_build(tmp_path):
    folder, lost = Broken(tmp_path), threading.Event()
    held = Lease(folder, where="s3://buck/out", times=TIMES, on_loss=lost.set)
    held.__enter__()
    folder.is_broken = True
    time.sleep(2 * TIMES.renew_seconds)
    folder.is_broken = False
    before = json.loads(folder.read("lock"))["count"]
    wait_for(lambda: json.loads(folder.read("lock"))["count"] > before)
    assert not lost.is_set()
    folder.is_broken = True
    start = time.monotonic()
    assert lost.wait(20)
    assert time.monotonic() - start < TIMES.expire_seconds
    with pytest.raises(OutputError, match=r"could not be renewed in time \(no answer\)"):
        held.__exit__(None, None, None)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"owner": 1}'])
def test_lock_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "lock").write_bytes(content)
    with pytest.raises(OutputError, match="no lock of a build"):
        lease(tmp_path).__enter__()
