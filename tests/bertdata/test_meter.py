import json
import multiprocessing
import os
import threading

import pytest

from bertdata import meter
from bertdata.config import ReadOptions
from bertdata.inputs import find_inputs
from bertdata.meter import Running, count, metering, peak_memory, read_running
from bertdata.portions import plan_portions
from bertdata.rejects import iter_checked_documents


def test_counts_reach_the_launcher_and_end_with_the_task(tmp_path):
    path = tmp_path / "1"
    with metering("tokenize_portion 3", path=path) as own:
        count(documents=2, read_bytes=10)
        count(documents=1)
        own.report()
        running = read_running(path)
        assert (running.what, running.counts) == ("tokenize_portion 3", {"documents": 3, "read_bytes": 10})
        assert running.memory > 1 << 20
    assert (read_running(path).what, read_running(path).counts) == ("", {})
    assert read_running(path).memory >= running.memory
    assert own.counts == {"documents": 3, "read_bytes": 10}


def test_first_line_is_the_task_and_nothing_but_it(tmp_path):
    path = tmp_path / "1"
    with metering("build_shard a\nb " + "x" * 5000, path=path):
        lines = path.read_text().rstrip("\n").split("\n")
        assert lines[0].startswith("build_shard a b xxx")
        assert len(lines) == 2
        assert json.loads(lines[1]).keys() == {"memory"}
    assert path.read_text().startswith("\n")


def test_file_is_written_seldom(tmp_path, monkeypatch):
    now, writes = [100.0], []
    monkeypatch.setattr(meter.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(meter, "_write", lambda _, what, counts: writes.append((what, counts["pairs"])))
    with metering("build_shard", path=tmp_path / "1"):
        for _ in range(100):
            now[0] += 0.0401
            count(pairs=1)
    assert writes[0] == ("build_shard", 0)
    assert writes[-1] == ("", 0)
    assert [pairs for _, pairs in writes[1:-1]] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]


def test_after_an_exception_the_task_is_still_named(tmp_path):
    with pytest.raises(KeyError), metering("tokenize_portion 3", path=tmp_path / "1"):
        raise KeyError
    assert read_running(tmp_path / "1").what == "tokenize_portion 3"
    count(documents=1)  # of no task: counts nothing, and does no harm


def test_threads_count_for_themselves():
    found = {}

    def work(name):
        with metering(name, path=None) as own:
            barrier.wait()
            count(documents=len(name))
            barrier.wait()
            found[name] = dict(own.counts)

    barrier = threading.Barrier(2)
    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "bbb")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"a": {"documents": 1}, "bbb": {"documents": 3}}


def test_a_folder_that_is_gone_is_no_error(tmp_path):
    with metering("build_shard", path=tmp_path / "gone" / "1"):
        count(pairs=1)
    assert not (tmp_path / "gone").exists()
    assert read_running(tmp_path / "gone" / "1") == Running(what="", counts={}, memory=0)


@pytest.mark.parametrize("content", ["", "tokenize_portion", "tokenize_portion\n{", "tokenize_portion\n{}"])
def test_what_is_half_written_is_read(tmp_path, content):
    (tmp_path / "1").write_text(content)
    assert read_running(tmp_path / "1").counts == {}


def _report_peak(sink):
    block = bytearray(os.urandom(1 << 20) * 64)
    first = peak_memory()
    del block
    sink.send((first, peak_memory()))


def test_peak_memory_is_that_of_this_process():
    source, sink = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_report_peak, args=(sink,))
    process.start()
    first, last = source.recv()
    process.join()
    assert 64 << 20 < first <= last < 1 << 30


@pytest.mark.parametrize("compress", ["none", "bz2", "gz", "zst"])
@pytest.mark.parametrize("split_bytes", [1 << 30, 10_000])
def test_read_bytes_of_all_splits_are_the_file(tmp_path, jsonl_file, wiki_file, compress, split_bytes):
    import bz2
    import gzip
    from collections import Counter

    import pyarrow as pa

    compressors = {
        "none": bytes,
        "bz2": lambda data: b"".join(bz2.compress(data[at : at + 50_000]) for at in range(0, len(data), 50_000)),
        "gz": gzip.compress,
        "zst": lambda data: pa.Codec("zstd").compress(data).to_pybytes(),
    }
    for source in (jsonl_file, wiki_file):
        path = tmp_path / source.name
        path.write_bytes(compressors[compress](source.read_bytes()))
        portions = plan_portions(find_inputs([str(path)]), options=ReadOptions(), split_bytes=split_bytes)
        total, documents = 0, 0
        for (split,) in portions:
            with metering("tokenize_portion 0", path=None) as own:
                list(
                    iter_checked_documents((split,), options=ReadOptions(), counts=Counter(), rejects=[], keep_in=None)
                )
            assert own.counts["read_bytes"] == split.stop - split.start or split.format != "mediawiki"
            total += own.counts["read_bytes"]
            documents += own.counts["documents"]
        # A reader of lines begins with the line before its split.
        assert path.stat().st_size <= total <= path.stat().st_size + 5000 * len(portions)
        assert documents == 300
