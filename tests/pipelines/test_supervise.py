"""Killed builds, as a user meets them: the command line, real processes, real signals."""

import os
import signal
import subprocess
import sys
import time

import pytest

from bertdata.build import build_serially
from bertdata.cli import build
from bertdata.errors import OutputError
from bertdata.launch import open_build
from bertdata.lock import Lock
from bertdata.options import make_build_options
from tests.bertdata.test_build import digests
from tests.corpus import article, iter_texts

OPTIONS = ["--max-seq-length", "64", "--num-shards", "6", "--num-workers", "2", "--vocab-size", "300"]


@pytest.fixture(scope="module")
def big_wiki(tmp_path_factory):
    """A dump that takes some seconds to build."""
    path = tmp_path_factory.mktemp("wiki") / "wiki.xml"
    pages = "".join(article(f"Title {number}", text) for number, text in enumerate(iter_texts(4000)))
    path.write_text(f'<mediawiki version="0.11" xml:lang="en">\n{pages}</mediawiki>\n')
    return path


def command(wiki, out):
    return [sys.executable, "-m", "bertdata", "build", "--input", str(wiki), "--out", str(out), *OPTIONS]


def start(wiki, out):
    return subprocess.Popen(
        command(wiki, out),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell has its background jobs ignore SIGINT, and so would the tests' own children in one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(condition, *, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for has not come"
        time.sleep(0.05)


def workers_at(out, stage):
    """Ids of the worker processes that are at `stage`."""
    return [int(path.name) for path in (out / ".work" / "running").glob("*") if path.read_text().startswith(stage)]


def lock_is_free(out):
    try:
        with Lock(out):
            return True
    except OutputError:
        return False


def group_is_empty(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, big_wiki):
    out = tmp_path_factory.mktemp("undisturbed") / "shards"
    subprocess.run(command(big_wiki, out), check=True, capture_output=True)
    return digests(out)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["count_words", "train_tokenizer", "tokenize_split", "build_shard"])
def test_killed_worker_is_named_and_the_build_continues(tmp_path, big_wiki, undisturbed, stage):
    out = tmp_path / "shards"
    process = start(big_wiki, out)
    wait_for(lambda: workers_at(out, stage) or process.poll() is not None)
    (victim, *_) = workers_at(out, stage)
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    _, stderr = process.communicate(timeout=60)
    assert time.monotonic() - killed < 10
    assert process.returncode == 1
    assert "run the same command again" in stderr
    assert not (out / "manifest.json").exists()
    subprocess.run(command(big_wiki, out), check=True, capture_output=True)
    assert digests(out) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_launcher_leaves_no_process_and_the_build_continues(tmp_path, big_wiki, undisturbed, number):
    out = tmp_path / "shards"
    process = start(big_wiki, out)
    wait_for(lambda: workers_at(out, "tokenize_split"))
    (worker, *_) = workers_at(out, "tokenize_split")
    group = os.getpgid(worker)
    assert group != os.getpgid(0)
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode != 0
    wait_for(lambda: group_is_empty(group), seconds=10)
    assert not (out / "manifest.json").exists()
    subprocess.run(command(big_wiki, out), check=True, capture_output=True)
    assert digests(out) == undisturbed
    assert not list(out.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.5, 1.5])
def test_launcher_killed_at_once_leaves_no_pipeline(tmp_path, big_wiki, delay):
    """The pipeline's process notices also while it is still importing Beam, and holds the lock until it is gone."""
    out = tmp_path / "shards"
    process = start(big_wiki, out)
    wait_for(lambda: (out / ".work" / "beam.log").exists())
    time.sleep(delay)
    process.kill()
    process.communicate()
    wait_for(lambda: lock_is_free(out), seconds=5)
    before = sorted(out.rglob("*"))
    time.sleep(1)
    assert sorted(out.rglob("*")) == before


@pytest.mark.slow
def test_second_launcher_is_refused(tmp_path, big_wiki):
    out = tmp_path / "shards"
    first = start(big_wiki, out)
    wait_for(lambda: (out / ".work" / "build.json").exists())
    second = subprocess.run(command(big_wiki, out), capture_output=True, text=True)
    first.kill()
    first.communicate()
    assert second.returncode == 1
    assert "another build is writing to" in second.stderr


@pytest.mark.slow
def test_command_line_builds_what_the_serial_loop_builds(tmp_path, big_wiki, undisturbed):
    values = build.make_context("build", command(big_wiki, tmp_path / "x")[4:]).params
    with open_build([str(big_wiki)], out=tmp_path / "out", options=make_build_options(values)) as work:
        build_serially(work)
    assert digests(tmp_path / "out") == undisturbed
