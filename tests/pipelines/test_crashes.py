"""Every moment at which a build can be killed, or its disk be full: before each change of the file system that it makes.

The stages run one after the other, in a child process where it is to be killed; what they write, and in which order,
is what they write in worker processes too. `test_restart` kills those.
"""

import dataclasses
import errno
import hashlib
import itertools
import os
import random
import shutil
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from bertdata.build import build_serially
from bertdata.config import BuildOptions, MaskOptions, PairOptions, ShardOptions, TokenizerOptions
from bertdata.errors import OutputError
from bertdata.launch import open_build
from tests.corpus import article, iter_texts
from tests.pipelines.crashes import records_of
from tests.pipelines.faults.sitecustomize import change_of

OPTIONS = BuildOptions(
    tokenizer=TokenizerOptions(vocab_size=200),
    masks=MaskOptions(num_mask_sets=1),
    pairs=PairOptions(max_seq_length=32, dupe_factor=1),
    shards=ShardOptions(num_shards=1),
    max_seq_lengths=(32,),
)
TWO_DATA_SETS = dataclasses.replace(OPTIONS, max_seq_lengths=(32, 48))
FULL = ("write", "rename", "mkdir")  # what a full disk refuses; removing goes on

_hooks = []  # what is called before each change; an audit hook itself stays for ever


def _audit(event, arguments):
    if _hooks and (change := change_of(event, arguments)) is not None:
        _hooks[-1](*change)


def is_void(event, path):
    """Returns whether nothing changes: a folder is there already, or a temporary file is renamed and no longer there."""
    there = Path(path).exists()
    return there if event == "mkdir" else event == "remove" and not there


@contextmanager
def before_changes(out, call):
    """Has `call(number, event)` called before each change in `out`."""
    if not hasattr(_audit, "is_added"):
        sys.addaudithook(_audit)
        _audit.is_added = True
    numbers = itertools.count(1)

    def hook(event, path):
        if path.startswith(str(out)) and not is_void(event, path):
            call(next(numbers), event)

    _hooks.append(hook)
    try:
        yield
    finally:
        _hooks.pop()


@pytest.fixture(scope="module", autouse=True)
def wait_for_no_disk():
    """What a killed process has written is there, synced or not; only a loss of power takes it away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    path = tmp_path_factory.mktemp("dump") / "dump.xml"
    pages = "".join(article(f"Title {number}", text) for number, text in enumerate(iter_texts(20)))
    path.write_text(f'<mediawiki version="0.11" xml:lang="en">\n{pages}</mediawiki>\n')
    return path


def build(dump, out, *, options=OPTIONS, keep_work=False):
    split_bytes = dump.stat().st_size // 2 + 1
    with open_build([str(dump)], out=out, options=options, split_bytes=split_bytes, keep_work=keep_work) as work:
        if work is not None:
            build_serially(work)


def contents(out):
    """SHA-256 of every file but those of the work folder, the manifests too."""
    paths = [path for path in sorted(out.rglob("*")) if path.is_file() and ".work" not in path.parts]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, dump):
    """What a build writes, and how many changes it makes."""
    out = tmp_path_factory.mktemp("undisturbed") / "shards"
    events = []
    with before_changes(out, lambda _, event: events.append(event)):
        build(dump, out)
    return contents(out), events


def killed_build(dump, out, number, *, options=OPTIONS):
    """Builds in a child process that is killed before change `number`; returns whether it was."""
    child = os.fork()
    if child == 0:
        try:
            with before_changes(out, lambda at, _: at == number and os.kill(os.getpid(), signal.SIGKILL)):
                build(dump, out, options=options)
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    return status != 0


def check_it_goes_on(dump, out, wanted):
    """The same command completes, writes nothing again that was done, and leaves no temporary file."""
    before = records_of(out)
    had_work = (out / ".work" / "build.json").exists()
    build(dump, out, keep_work=True)
    if had_work:
        after = records_of(out)
        assert before == {name: after.get(name) for name in before}
    assert contents(out) == wanted
    assert not list(out.rglob("*.tmp"))


@pytest.mark.slow
def test_build_killed_before_any_change_goes_on(tmp_path, dump, undisturbed):
    wanted, events = undisturbed
    assert len(events) > 60
    for number in range(1, len(events) + 1):
        out = tmp_path / f"killed-{number}"
        assert killed_build(dump, out, number)
        check_it_goes_on(dump, out, wanted)
        shutil.rmtree(out)


@pytest.mark.slow
def test_build_killed_again_and_again_gets_on(tmp_path, dump):
    """Fifty random moments, those of what goes on after a kill and those between the two data sets' commits too."""
    build(dump, tmp_path / "wanted", options=TWO_DATA_SETS)
    draw = random.Random(5)
    num_killed = 0
    while num_killed < 50:
        out = tmp_path / f"after-{num_killed}"
        done = {}
        while killed_build(dump, out, draw.randint(1, 40), options=TWO_DATA_SETS):
            num_killed += 1
            if (out / ".work" / "build.json").exists():
                now = records_of(out)
                assert done == {name: now.get(name) for name in done}
                done = now
        assert contents(out) == contents(tmp_path / "wanted")
        assert not (out / ".work").exists()


@pytest.mark.slow
def test_build_on_a_disk_that_fills_up_is_an_error_and_goes_on(tmp_path, dump, undisturbed):
    wanted, events = undisturbed

    def fill(at, event):
        if at >= number and event in FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for number in (number for number, event in enumerate(events, start=1) if event in FULL):
        out = tmp_path / f"full-{number}"
        with pytest.raises(OutputError, match="No space left on device"), before_changes(out, fill):
            build(dump, out)
        assert not (out / "manifest.json").exists()
        check_it_goes_on(dump, out, wanted)
        shutil.rmtree(out)
