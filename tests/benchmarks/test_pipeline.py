"""That the benchmark of builds at size measures what it says; how fast things are is not a test's business."""

import bz2
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from bertdata.config import ReadOptions
from bertdata.readers import iter_documents
from bertdata.sentences import sentences_of
from bertdata.spill import document_key
from bertdata.splits import plan_splits
from tests.benchmarks import corpora, pipeline
from tests.benchmarks.corpora import PageMill, write_dump, write_dump_with_long_article, write_packed_dump
from tests.benchmarks.kills import digests
from tests.benchmarks.processes import Span, watch
from tests.benchmarks.timeline import draw, save_figure, stage_times

MADE_UP = Path("no dump here")


@pytest.fixture(scope="module")
def mill():
    return PageMill(MADE_UP)


@pytest.fixture(autouse=True)
def mill_for_dumps(mill, monkeypatch):
    """Dumps of made-up pages, which need no second to be read; the slow tests take real ones."""
    monkeypatch.setattr(corpora, "_mill", lambda: mill)


def documents(path):
    (split,) = plan_splits([str(path)], options=ReadOptions(), split_bytes=1 << 40)
    return list(iter_documents(split, options=ReadOptions(), counts=Counter(), rejects=[]))


@pytest.mark.parametrize("dump", [pytest.param(corpora.DUMP, marks=pytest.mark.slow), MADE_UP])
def test_no_article_comes_twice_and_words_keep_their_frequencies(tmp_path, dump):
    mill = PageMill(dump)
    (tmp_path / "one.xml").write_bytes(b"".join(mill.iter_dump(12_000_000 if dump.exists() else 1_000_000)))
    found = documents(tmp_path / "one.xml")
    keys = Counter(document_key(sentences_of(document, option="auto")[1]) for document in found)
    assert len(found) > 300
    assert keys.most_common(1)[0][1] == 1
    halves = [found[: len(found) // 2], found[len(found) // 2 :]]
    words = [Counter(word for document in half for word in document.text.split()) for half in halves]
    for word in ("the", "of", "and", "on", "by"):
        shares = [counts[word] / counts.total() for counts in words]
        assert shares[0] == pytest.approx(shares[1], rel=0.2)
    # New words come at the same pace in the second half as in the first.
    new = [len(words[0]), len(words[0] + words[1]) - len(words[0])]
    assert new[1] > 0.15 * new[0]


def test_dumps_are_the_same_each_time_and_of_the_size_asked_for(tmp_path):
    one, other = (write_dump(tmp_path / name, num_bytes=1_000_000) for name in "ab")
    data = one.read_bytes()
    assert data == other.read_bytes()
    assert 1_000_000 <= len(data) < 1_400_000
    assert data.count(b"<page>") == data.count(b"</page>")
    unpacked = bz2.BZ2Decompressor()
    packed = write_packed_dump(tmp_path, num_bytes=1_000_000)
    assert unpacked.decompress(packed.read_bytes()) == data
    assert unpacked.eof
    assert not unpacked.unused_data


def test_long_article_lies_among_others_and_is_one_document(tmp_path):
    found = documents(write_dump_with_long_article(tmp_path, num_bytes=300_000, article_bytes=1_000_000))
    sizes = [len(document.text.encode()) for document in found]
    longest = sizes.index(max(sizes))
    assert max(sizes) > 950_000
    assert 5 < longest < len(sizes) - 5


def span(worker, stage, start, stop):
    return Span(worker=worker, stage=stage, task=f"{start}", start=start, stop=stop)


SPANS = [
    span(1, "train_tokenizer", 1.0, 2.0),
    span(1, "tokenize_portion", 2.0, 4.0),
    span(2, "tokenize_portion", 2.0, 3.0),
    span(1, "tokenize_portion", 4.0, 6.0),
    span(2, "build_shard", 6.0, 10.0),
]


def test_idle_shares_and_tails_are_those_of_the_tasks():
    vocabulary, split, shard = stage_times(SPANS, num_workers=2)
    assert (vocabulary.stage, vocabulary.idle, vocabulary.tail) == ("train_tokenizer", 0.0, 0.0)
    assert (split.seconds, split.busy, split.tail) == (4.0, 5.0, 3.0)
    assert split.idle == pytest.approx(3 / 8)
    assert (shard.seconds, shard.tail, shard.idle) == (4.0, 4.0, 0.5)


def test_timeline_is_drawn_to_scale(tmp_path):
    one, two, legend = draw(SPANS, num_workers=2, seconds=10.0, width=20)
    assert one == "worker 1 |..VVTTTTtttt........|"
    assert two == "worker 2 |....tt......SSSSSSSS|"
    assert "10 s" in legend
    assert save_figure(SPANS, tmp_path / "a.svg", title="two")
    assert "<svg" in (tmp_path / "a.svg").read_text()


SCRIPT = """
import pathlib, subprocess, sys, time
if sys.argv[2:]:
    block = bytearray(64 << 20)
    running = pathlib.Path(sys.argv[1], ".work", "running")
    running.mkdir(parents=True)
    import os
    path = running / str(os.getpid())
    for task in ("tokenize_portion 0", "", "build_shard x"):
        path.write_text(task)
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
else:
    subprocess.run([sys.executable, __file__, sys.argv[1], "worker"])
"""


def test_watch_finds_memory_time_and_tasks_of_processes_below(tmp_path):
    script = tmp_path / "command.py"
    script.write_text(SCRIPT)
    run = watch([sys.executable, str(script), str(tmp_path / "out")], out=tmp_path / "out")
    assert run.status == 0
    assert [(one.worker, one.stage, one.task) for one in run.spans] == [
        (1, "tokenize_portion", "0"),
        (1, "build_shard", "x"),
    ]
    assert run.peak["worker 1"] > 64 << 20 > run.peak["launcher"]
    assert run.cpu["tokenize_portion"] == pytest.approx(0.3, abs=0.15)


@pytest.mark.slow
def test_benchmark_of_builds_prints_its_tables():
    sizes = ["--sizes", "1MB", "--packed-size", "0B", "--article-size", "0B", "--scaling-size", "1MB"]
    parts = ["--parts", "memory,scaling,paper", "--runs", "1"]
    result = CliRunner().invoke(pipeline.main, [*parts, *sizes])
    assert result.exit_code == 0, result.output
    assert re.search(r"^1 MB +[\d,]+ +[\d,]+", result.output, re.M)
    assert re.search(r"^2 workers are [\d.]+ times as fast as one", result.output, re.M)
    assert re.search(r"idle tails: [\d.]+ s of [\d.]+ s, [\d.]+%", result.output)
    assert len(re.findall(r"^  worker 2 \|[.a-zA-Z]{100}\|$", result.output, re.M)) == 1


@pytest.mark.slow
def test_benchmark_of_kills_prints_each_and_the_counts():
    arguments = ["--parts", "kills", "--kills", "1", "--small-size", "1MB"]
    result = CliRunner().invoke(pipeline.main, arguments)
    assert result.exit_code == 0, result.output
    assert len(re.findall(r"^(?:worker|launcher|all) +at +[\d.]+ s .* same bytes$", result.output, re.M)) == 1
    assert re.search(r"^byte-identical after the same command +1 of 1 +reached$", result.output, re.M)


def test_unknown_part_is_refused_with_those_that_there_are():
    result = CliRunner().invoke(pipeline.main, ["--parts", "memroy"])
    assert result.exit_code == 2
    assert "no part memroy; there are startup, scaling" in result.output


def test_digests_leave_out_the_work_folder(tmp_path):
    for name in ("a", ".work/b", "128/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert sorted(digests(tmp_path)) == ["128/c", "a"]


def test_command_runs_as_a_module():
    result = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.pipeline", "--help"], capture_output=True, text=True
    )
    assert result.returncode == 0
    assert "--keep" in result.stdout
