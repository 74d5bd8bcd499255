import dataclasses
import fcntl
import io
import itertools
import os
import pty
import re
import struct
import termios
import threading
import time

import pytest

import bertdata
from bertdata import build, progress
from bertdata.build_state import BuildState, Snapshot
from bertdata.config import TokenizerOptions
from bertdata.errors import DownloadError
from bertdata.launch import open_build
from bertdata.meter import count, metering
from bertdata.progress import Progress, describe, describe_briefly, format_seconds
from bertdata.work import Work, portion_record

FIRST = {"count_words": "reading words"}
SHARDS = {"build_shard": "building shards"}


@pytest.fixture
def trained(small_options):
    return dataclasses.replace(small_options, tokenizer=TokenizerOptions(vocab_size=300))


def launch(tmp_path, path, options):
    return open_build([str(path)], out=tmp_path / "shards", options=options, split_bytes=40_000)


def build_as_seen(work, shown, monkeypatch, *, stages):
    """The serial build, with each of some tasks, by name, only when its stage has been seen."""

    def when_seen(stage, task):
        def run(*arguments):
            deadline = time.monotonic() + 60
            while shown._last.stage != stage:
                assert time.monotonic() < deadline, f"{stage} is never seen"
                time.sleep(0.001)
            return task(*arguments)

        return run

    for name, stage in stages.items():
        monkeypatch.setattr(build, name, when_seen(stage, getattr(build, name)))
    build.build_serially(work)


def state_of(work):
    """A state that lists records every time."""
    return BuildState(work, clock=lambda: 0.0)


def test_snapshots_tell_what_the_stages_have_done(tmp_path, wiki_file, trained):
    with launch(tmp_path, wiki_file, trained) as work:
        state, seen = state_of(work), []
        num_portions = len(work.portions)
        assert num_portions > 3

        def look():
            seen.append(state.update())
            return seen[-1]

        assert (look().stage, seen[0].portions, seen[0].read_bytes) == ("reading words", 0, 0)
        for number in range(num_portions):
            build.count_words(work, number)
            snapshot = look()
            assert snapshot.portions == number + 1
        assert snapshot.stage == "vocabulary"
        assert snapshot.read_bytes == snapshot.input_bytes == wiki_file.stat().st_size
        build.train_tokenizer(work)
        assert (look().stage, seen[-1].read_bytes) == ("tokenizing", 0)
        for number in range(num_portions):
            build.tokenize_portion(work, number)
            look()
        assert (seen[-1].stage, seen[-1].documents, seen[-1].num_shards) == ("planning shards", 300, None)
        tasks = build.plan_shards(work)
        assert (look().stage, seen[-1].shards, seen[-1].num_shards) == ("building shards", 0, len(tasks))
        for task in tasks:
            build.build_shard(work, task)
            look()
        assert seen[-1].stage == "finishing"
        build.write_data_sets(work)
        last = look()
    counts = bertdata.open_data_set(tmp_path / "shards").manifest.counts
    assert (last.documents, last.tokens, last.pairs) == (counts["documents"], counts["tokens"], counts["samples"])
    assert (last.portions, last.shards) == (num_portions, len(tasks))
    for stage in seen[0].shares:
        shares = [snapshot.shares[stage] for snapshot in seen]
        assert shares == sorted(shares)
        assert shares[-1] == 1.0


def test_every_record_is_read_once(tmp_path, wiki_file, small_options, monkeypatch):
    read = Work.read
    names = []
    monkeypatch.setattr(Work, "read", lambda work, name: names.append(name) or read(work, name))
    with launch(tmp_path, wiki_file, small_options) as work:
        state = state_of(work)
        build.train_tokenizer(work)
        for number in range(len(work.portions)):
            build.tokenize_portion(work, number)
            names.clear()
            state.update()
            state.update()
            assert names == [portion_record(number)]
        build.build_serially(work)
        names.clear()
        state.update()
        state.update()
        assert len(names) == len(set(names)) == 1 + state.update().num_shards


def test_records_are_listed_seldom_where_that_takes_long(tmp_path, wiki_file, small_options, monkeypatch):
    now, listings = [0.0], []

    def list_slowly(self, folder, suffix):
        now[0] += 3.0
        listings.append(folder)
        return []

    monkeypatch.setattr(BuildState, "_names", list_slowly)
    with launch(tmp_path, wiki_file, small_options) as work:
        state = BuildState(work, clock=lambda: now[0])
        build.build_serially(work)
        while now[0] < 1000:
            now[0] += 0.5
            state.update()
    assert 8 <= len(listings) <= 11


def test_portions_at_hand_count(tmp_path, wiki_file, small_options):
    with launch(tmp_path, wiki_file, small_options) as work:
        build.train_tokenizer(work)
        state = state_of(work)
        running = work.folder.local / "running"
        running.mkdir()
        with metering("tokenize_portion 1", path=running / "7") as meter:
            count(read_bytes=11_000, documents=5)
            meter.report()
            snapshot = state.update()
            assert (snapshot.portions, snapshot.read_bytes, snapshot.documents) == (0, 11_000, 5)
            build.tokenize_portion(work, 1)  # its record is there, and the worker has not ended the task
            meter.report()
            snapshot = state.update()
            assert snapshot.portions == 1
            assert snapshot.read_bytes == sum(split.stop - split.start for split in work.portions[1])
            assert snapshot.documents == work.read("splits/00001.json")["counts"]["documents"]
        assert state.update() == snapshot
        assert state.workers == {"7"}
        assert state.worker_memory > 1 << 20
        build.build_serially(work)


def test_shards_at_hand_count(tmp_path, wiki_file, small_options):
    with launch(tmp_path, wiki_file, small_options) as work:
        build.train_tokenizer(work)
        for number in range(len(work.portions)):
            build.tokenize_portion(work, number)
        first, *others = build.plan_shards(work)
        state = state_of(work)
        running = work.folder.local / "running"
        running.mkdir()
        with metering(f"build_shard {first}", path=running / "7") as meter:
            build.build_shard(work, first)
            meter.report()
            done = state.update()
            assert done.pairs == work.read(f"shards/64/{first.name}.json")["counts"]["samples"]
        with metering(f"build_shard {others[0]}", path=running / "7") as meter:
            count(planned_pairs=1000, pairs=500)
            meter.report()
            at_hand = state.update()
            assert at_hand.pairs == done.pairs + 500
            share = at_hand.shares["building shards"] - done.shares["building shards"]
            assert 0.5 < share * (1 + len(others)) < 0.8
        build.build_serially(work)


LINE = re.compile(
    r"\[ *[\d.]+ s\] (?P<stage>[a-z ]+)( (?P<done>\d+)/(?P<all>\d+))?: read (?P<read>[\d,.]+) of (?P<total>[\d,.]+) MB "
    r"\(\d+%\), (?P<documents>[\d,]+) documents, (?P<pairs>[\d,]+) pairs, (--|[\d.]+) MB/s, ETA (--:--|\d\d:\d\d)"
)


def test_plain_lines_where_stderr_is_no_terminal(tmp_path, wiki_file, trained, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_POLL_SECONDS", 0.001)
    with launch(tmp_path, wiki_file, trained) as work, Progress(work) as shown:
        build_as_seen(work, shown, monkeypatch, stages=FIRST | SHARDS)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [LINE.fullmatch(line) for line in captured.err.splitlines()]
    assert all(lines), captured.err
    stages = [line["stage"].strip() for line in lines]
    assert stages[0] == "starting workers"
    assert "building shards" in stages
    assert len(set(stages)) == len(stages)  # one at each beginning, and none for ten seconds


def test_bar_on_a_terminal(tmp_path, wiki_file, small_options, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(progress, "_POLL_SECONDS", 0.001)
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    with launch(tmp_path, wiki_file, small_options) as work, Progress(work) as bar:
        build_as_seen(work, bar, monkeypatch, stages=SHARDS)
    shown = terminal.getvalue()
    assert "\r|" in shown
    assert "building shards" in shown
    assert "300 documents" in shown
    assert re.search(r"\|[█#]{16}\| finishing 4/4: read .* \(100%\), 300 documents, [\d,]+ pairs", shown)


@pytest.mark.parametrize("columns", [0, 80, 200])
def test_line_on_a_terminal_has_what_fits(tmp_path, wiki_file, small_options, columns, monkeypatch):
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 40, columns, 0, 0))
    parts = []
    reader = threading.Thread(target=lambda: parts.extend(iter(lambda: read_terminal(leader), b"")))
    reader.start()
    monkeypatch.setattr(progress, "_POLL_SECONDS", 0.001)
    with open(follower, "w") as terminal:  # noqa: PTH123 - a descriptor
        monkeypatch.setattr(progress.sys, "stderr", terminal)
        with launch(tmp_path, wiki_file, small_options) as work, Progress(work) as bar:
            build_as_seen(work, bar, monkeypatch, stages=SHARDS)
    reader.join()
    os.close(leader)
    shown = b"".join(parts).decode()
    ends = {
        0: r"\] building shards \d/4: read .*, [\d,]+ pairs, \S+ MB/s, ETA \S+\r\n",
        80: r"\|█{5}\| finishing 4/4, ETA 00:00, -- MB/s, [\d.]+k pairs, 300 docs, read 100% *\r",
        200: r"\|█{16}\| finishing 4/4: read .*, 300 documents, [\d,]+ pairs, -- MB/s, ETA 00:00 \[00:\d\d\]",
    }
    assert re.search(ends[columns], shown), shown


def read_terminal(leader):
    """What the program has written; nothing once it has closed its side."""
    try:
        return os.read(leader, 1 << 16)
    except OSError:
        return b""


def test_progress_that_cannot_be_read_ends_nothing(tmp_path, wiki_file, small_options, caplog, monkeypatch):
    caplog.set_level("INFO", logger="bertdata")
    monkeypatch.setattr(progress, "_POLL_SECONDS", 0.001)
    update = BuildState.update
    calls = itertools.count()

    def fail_once(state, *, fresh=False):
        if next(calls) == 1:
            raise DownloadError("the store does not answer")
        return update(state, fresh=fresh)

    monkeypatch.setattr(BuildState, "update", fail_once)
    with launch(tmp_path, wiki_file, small_options) as work, Progress(work) as run:
        build.build_serially(work)
    assert run.took().shards == 4
    assert "progress cannot be read at the moment: the store does not answer" in caplog.text


def test_end_of_a_build_that_failed_does_not_wait_for_the_store(tmp_path, wiki_file, small_options, monkeypatch):
    asked, go_on = threading.Event(), threading.Event()

    def wait(_state, **_fresh):
        asked.set()
        go_on.wait()
        raise DownloadError("the store does not answer")

    monkeypatch.setattr(progress, "_POLL_SECONDS", 0.001)
    monkeypatch.setattr(progress, "_PATIENCE_SECONDS", 0.01)
    interrupted = pytest.raises(KeyboardInterrupt)
    with interrupted, launch(tmp_path, wiki_file, small_options) as work, Progress(work) as run:
        monkeypatch.setattr(BuildState, "update", wait)
        assert asked.wait(10)
        raise KeyboardInterrupt
    go_on.set()
    run._thread.join()


def test_what_a_run_took_and_what_it_found_done(tmp_path, wiki_file, small_options, capsys):
    interrupted = pytest.raises(KeyboardInterrupt)
    with interrupted, launch(tmp_path, wiki_file, small_options) as work, Progress(work) as first:
        build.train_tokenizer(work)
        build.tokenize_portion(work, 0)
        raise KeyboardInterrupt
    num_portions = len(work.portions)
    assert (first.took().portions, first.took().portions_found) == (1, 0)
    capsys.readouterr()
    with launch(tmp_path, wiki_file, small_options) as work, Progress(work) as second:
        build.build_serially(work)
    assert f"going on: 1 of {num_portions} portions are done" in capsys.readouterr().err
    took = second.took()
    assert (took.portions, took.portions_found, took.shards, took.shards_found) == (num_portions - 1, 1, 4, 0)
    first_bytes = sum(split.stop - split.start for split in work.portions[0])
    assert took.read_bytes == wiki_file.stat().st_size - first_bytes
    assert took.seconds > 0
    assert took.launcher_memory > 1 << 20


def test_shards_found_done_are_told(tmp_path, wiki_file, small_options, capsys):
    with pytest.raises(KeyboardInterrupt), launch(tmp_path, wiki_file, small_options) as work:
        build.train_tokenizer(work)
        for number in range(len(work.portions)):
            build.tokenize_portion(work, number)
        build.build_shard(work, build.plan_shards(work)[1])
        raise KeyboardInterrupt
    with launch(tmp_path, wiki_file, small_options) as work, Progress(work) as run:
        build.build_serially(work)
    num_portions = len(work.portions)
    assert f"{num_portions} of {num_portions} portions, 1 of 4 shards are done" in capsys.readouterr().err
    took = run.took()
    assert (took.portions, took.portions_found, took.shards, took.shards_found) == (0, num_portions, 3, 1)
    assert took.read_bytes == 0


SNAPSHOT = Snapshot(
    stage="tokenizing",
    shares={"reading words": 1.0, "vocabulary": 1.0, "tokenizing": 0.5, "building shards": 0.0},
    read_bytes=1_234_500_000,
    input_bytes=2_469_000_000,
    documents=98_765,
    tokens=0,
    tokenized_bytes=0,
    pairs=0,
    portions=7,
    num_portions=16,
    shards=0,
    num_shards=None,
)


def test_line_has_all_facts():
    assert describe(SNAPSHOT, bytes_per_second=5.64e6, seconds_left=201) == (
        "tokenizing 7/16: read 1,234.5 of 2,469.0 MB (50%), 98,765 documents, 0 pairs, 5.6 MB/s, ETA 03:21"
    )
    later = dataclasses.replace(SNAPSHOT, stage="building shards", shards=3, num_shards=40, pairs=10**6)
    assert describe(later, bytes_per_second=0, seconds_left=None) == (
        "building shards 3/40: read 1,234.5 of 2,469.0 MB (50%), 98,765 documents, 1,000,000 pairs, -- MB/s, ETA --:--"
    )


def test_brief_line_has_the_most_important_facts_first():
    assert describe_briefly(SNAPSHOT, bytes_per_second=5.64e6, seconds_left=201) == (
        "tokenizing 7/16, ETA 03:21, 5.6 MB/s, 0 pairs, 98.8k docs, read 50%"
    )
    later = dataclasses.replace(SNAPSHOT, stage="building shards", shards=1234, num_shards=2345, pairs=123_456_789)
    assert describe_briefly(later, bytes_per_second=0, seconds_left=None) == (
        "building shards 1,234/2,345, ETA --:--, -- MB/s, 123.5M pairs, 98.8k docs, read 50%"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "--:--"), (0.4, "00:00"), (59.6, "01:00"), (3599.4, "59:59"), (36000, "10:00:00")]
)
def test_format_seconds(seconds, text):
    assert format_seconds(seconds) == text
