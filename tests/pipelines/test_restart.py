"""Builds that are killed, or meet a full disk or another input, as a user meets it: real commands, real processes.

What is to happen, happens at a chosen change of the file system (`tests.pipelines.crashes`), so nothing here depends on
how fast a build runs. `test_crashes` has all other moments.
"""

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import time

import pytest

from bertdata.build import build_serially
from bertdata.cli import build
from bertdata.launch import open_build
from bertdata.options import make_build_options
from tests.corpus import article, iter_texts
from tests.pipelines.crashes import (
    Fault,
    build_command,
    environment,
    group_of,
    processes_of,
    records_of,
    start,
    wait_for,
)
from tests.pipelines.test_crashes import contents

OPTIONS = ("--max-seq-length", "64", "--num-shards", "3", "--num-workers", "2", "--vocab-size", "300")
STAGES = {
    "count_words": ("rename", "*/words/00000.json"),
    "train_tokenizer": ("rename", "*/.work/tokenizer.json"),
    "tokenize_portion": ("rename", "*/splits/00000.json"),
    "plan_shards": ("rename", "*/.work/plan.json"),
    "build_shard": ("rename", "*/train-00001-of-00003.tar"),
    "write_data_sets": ("rename", "*/manifest.json"),
}
"""By stage, the last change of the file system that makes something of it, or its last shard, done."""


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    path = tmp_path_factory.mktemp("dump") / "dump.xml"
    pages = "".join(article(f"Title {number}", text) for number, text in enumerate(iter_texts(200)))
    path.write_text(f'<mediawiki version="0.11" xml:lang="en">\n{pages}</mediawiki>\n')
    return path


def command(dump, out, *options):
    return build_command(dump, out, *OPTIONS, *options)


def run(dump, out, *faults, temporary=None, options=(), **values):
    env = environment(*faults, temporary=temporary)
    return subprocess.run(command(dump, out, *options), env=env, capture_output=True, text=True, timeout=120, **values)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, dump):
    """What the serial loop builds with the same options: the oracle of the command."""
    out = tmp_path_factory.mktemp("undisturbed") / "shards"
    values = build.make_context("build", command(dump, out)[4:]).params
    with open_build([str(dump)], out=out, options=make_build_options(values)) as work:
        build_serially(work)
    return contents(out)


class Held:
    """A build that stands still at a change of the file system: one of its workers is stopped."""

    def __init__(self, dump, out, stage, *, temporary=None):
        env = environment(Fault("stop", *STAGES[stage]), temporary=temporary)
        self.launcher = start(command(dump, out), env=env)
        wait_for(self._find)

    def _find(self):
        assert self.launcher.poll() is None, self.launcher.communicate()
        self.runner = group_of(self.launcher.pid)
        members = processes_of(self.runner) if self.runner is not None else {}
        self.worker = next((pid for pid, state in members.items() if state == "T"), None)
        return self.worker is not None

    def go_on(self):
        """Lets the worker run again; returns the launcher's exit status and stderr."""
        os.kill(self.worker, signal.SIGCONT)
        _, stderr = self.launcher.communicate(timeout=60)
        return self.launcher.returncode, stderr

    def end(self, number, *pids):
        """Sends a signal to some processes; returns the launcher's exit status and stderr, and the seconds that it took
        until the last process of the pipeline was gone."""
        started = time.monotonic()
        for pid in pids:
            os.kill(pid, number)
        _, stderr = self.launcher.communicate(timeout=60)
        wait_for(lambda: not processes_of(self.runner))
        return self.launcher.returncode, stderr, time.monotonic() - started


def kept(before, out):
    """Returns whether what was done is there still, and was not written again."""
    after = records_of(out)
    return before == {name: after.get(name) for name in before}


def complete(dump, out, temporary, wanted):
    """Runs the command to its end, and checks that nothing was done again and that nothing is left behind."""
    before = records_of(out)
    finished = run(dump, out, temporary=temporary, options=["--keep-work"])
    assert finished.returncode == 0, finished.stderr
    assert kept(before, out)
    assert contents(out) == wanted
    assert not list(out.rglob("*.tmp"))
    assert list(temporary.iterdir()) == []
    return finished.stderr


@pytest.mark.slow
def test_killed_workers_are_named_and_the_build_goes_on(tmp_path, dump, undisturbed):
    """A worker dies in each stage in turn, each time a little further on."""
    out, temporary = tmp_path / "shards", tmp_path / "tmp"
    temporary.mkdir()
    for stage, moment in STAGES.items():
        before = records_of(out)
        killed = run(dump, out, Fault("kill", *moment), temporary=temporary)
        assert killed.returncode == 1
        assert re.search(
            rf"error: worker process \d+ \(at {stage}.*\) was killed by signal 9 \(SIGKILL\)", killed.stderr
        )
        assert "What is done is kept; run the same command again to go on." in killed.stderr
        assert not (out / "manifest.json").exists()
        assert kept(before, out)
    assert "at build_shard train-00001-of-00003.tar" not in killed.stderr
    assert "going on: 1 of 1 portions, 4 of 4 shards are done" in complete(dump, out, temporary, undisturbed)


@pytest.mark.slow
def test_killed_launchers_and_runners_leave_no_process_and_the_build_goes_on(tmp_path, dump, undisturbed):
    out, temporary = tmp_path / "shards", tmp_path / "tmp"
    temporary.mkdir()

    held = Held(dump, out, "tokenize_portion", temporary=temporary)
    second = run(dump, out)
    assert second.returncode == 1
    assert "another build is writing to" in second.stderr
    code, stderr, seconds = held.end(signal.SIGKILL, held.runner)
    assert (code, seconds < 10) == (1, True)
    assert re.search(
        r"process \d+, which runs FnApiRunner, was killed by signal 9 .* at: tokenize_portion 0 \(", stderr
    )

    # Launcher and runner die at once: their workers end by themselves.
    held = Held(dump, out, "plan_shards", temporary=temporary)
    for pid in (held.launcher.pid, held.runner):
        os.kill(pid, signal.SIGKILL)
    held.launcher.communicate()
    with contextlib.suppress(ProcessLookupError):  # the other worker has ended the group
        os.kill(held.worker, signal.SIGCONT)
    wait_for(lambda: not processes_of(held.runner), seconds=10)

    held = Held(dump, out, "build_shard", temporary=temporary)
    before = records_of(out)
    code, _, seconds = held.end(signal.SIGKILL, held.launcher.pid)
    assert (code, seconds < 10) == (-signal.SIGKILL, True)

    for number in (signal.SIGTERM, signal.SIGINT):
        launcher = start(command(dump, out), env=environment(temporary=temporary))
        wait_for(lambda: group_of(launcher.pid) is not None)  # noqa: B023
        group = group_of(launcher.pid)
        launcher.send_signal(number)
        _, stderr = launcher.communicate(timeout=10)
        assert launcher.returncode == 128 + number
        assert "what is done is kept" in stderr
        assert not processes_of(group)
    assert kept(before, out)
    assert "going on: 1 of 1 portions" in complete(dump, out, temporary, undisturbed)


@pytest.fixture
def disk(tmp_path):
    """A disk of 32 MB, or where none can be mounted, a folder."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)]
    mounted = shutil.which("mount") is not None and subprocess.run(mount, capture_output=True).returncode == 0
    yield folder, mounted
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    """Writes to a folder's disk until it is full."""
    with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 12)):
            pass


def limit_file_size():
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


def check_refusals(dump, out):
    """An input that changed and another option are refused, by name, in the folder of an unfinished build."""
    times = dump.stat()
    os.utime(dump, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    try:
        changed = run(dump, out)
    finally:
        os.utime(dump, ns=(times.st_atime_ns, times.st_mtime_ns))
    other = run(dump, out, options=["--seed", "1"])
    for refused in (changed, other):
        assert refused.returncode == 1
        assert re.search(r"holds another build \(fingerprint \w{16}, this one has \w{16}\)", refused.stderr)
    assert f"{dump} has changed: it was written to since" in changed.stderr
    assert "seed was 0, and is 1" in other.stderr
    assert not (out / "manifest.json").exists()


@pytest.mark.slow
def test_full_disks_and_other_inputs_are_named_and_the_build_goes_on(tmp_path, dump, undisturbed, disk):
    (folder, mounted), temporary = disk, tmp_path / "tmp"
    temporary.mkdir()
    out = folder / "shards"

    held = Held(dump, out, "count_words", temporary=temporary)
    before = records_of(out)
    away = dump.rename(tmp_path / "away.xml")
    code, stderr = held.go_on()
    assert (code, "dump.xml" in stderr, "Traceback" in stderr) == (1, True, False)
    vanished = run(dump, out)
    assert vanished.returncode == 1
    assert "no such file" in vanished.stderr
    away.rename(dump)

    if mounted:  # the whole disk, so that neither the error nor the log can be written to it
        held = Held(dump, out, "tokenize_portion", temporary=temporary)
        fill(folder)
        code, stderr = held.go_on()
        assert code == 1
        assert "No space left on device" in stderr
        assert "Traceback" not in stderr
        no_start = run(dump, out)
        assert no_start.returncode == 1
        assert "No space left on device" in no_start.stderr
        (folder / "filler").unlink()

    limited = run(dump, out, temporary=temporary, preexec_fn=limit_file_size)
    assert limited.returncode == 1
    assert re.search(r"error: .*: File too large \(at build_shard .*the same command again", limited.stderr)
    assert not (out / "manifest.json").exists()
    check_refusals(dump, out)  # now, because in place of one that its input ended, another build is welcome
    assert kept(before, out)

    if mounted:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        read_only = run(dump, out)
        assert read_only.returncode == 1
        assert "cannot be written to: Read-only file system" in read_only.stderr
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
    complete(dump, out, temporary, undisturbed)
