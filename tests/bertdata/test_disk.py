import bz2
import collections
import dataclasses

import pytest

from bertdata import disk
from bertdata.build import build_serially
from bertdata.config import BuildOptions, TokenizerOptions
from bertdata.costs import InputCosts, expected_disk
from bertdata.disk import format_bytes
from bertdata.errors import OutputError
from bertdata.inputs import find_inputs
from bertdata.launch import open_build
from bertdata.splits import plan_files

Usage = collections.namedtuple("Usage", "total used free")


@pytest.fixture
def leave_free(monkeypatch):
    """Says how many bytes are free, whatever the folder."""

    def leave(num_bytes):
        monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: Usage(10**12, 0, num_bytes))

    return leave


def need_of(path, options):
    return expected_disk(InputCosts.of(plan_files(find_inputs([str(path)]), options=options.read)), options=options)


def launch(out, path, options):
    with open_build([str(path)], out=out, options=options) as work:
        build_serially(work)


def test_build_that_cannot_fit_is_refused_before_anything_is_written(tmp_path, jsonl_file, small_options, leave_free):
    need = need_of(jsonl_file, small_options)
    leave_free(need.least - 1)
    with pytest.raises(OutputError, match=r"not enough disk.* are free.* at least .* kB, likely about .*--dry-run"):
        launch(tmp_path / "deep" / "out", jsonl_file, small_options)
    assert not (tmp_path / "deep").exists()


def test_build_that_may_not_fit_is_warned_of(tmp_path, jsonl_file, small_options, leave_free, caplog):
    leave_free(need_of(jsonl_file, small_options).least)
    launch(tmp_path / "out", jsonl_file, small_options)
    assert "likely needs" in caplog.text
    assert "--dry-run" in caplog.text
    caplog.clear()
    leave_free(need_of(jsonl_file, small_options).usual)
    launch(tmp_path / "fits", jsonl_file, small_options)
    assert "likely needs" not in caplog.text


def test_what_an_unfinished_build_has_written_counts(tmp_path, jsonl_file, small_options, leave_free):
    """A restart, with a disk that the build itself has filled, must not be refused."""
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), open_build([str(jsonl_file)], out=out, options=small_options) as work:
        build_serially(work)
        (out / "manifest.json").unlink()
        raise KeyboardInterrupt
    leave_free(0)
    launch(out, jsonl_file, small_options)
    with pytest.raises(OutputError, match="not enough disk"):
        launch(tmp_path / "other", jsonl_file, small_options)


def test_a_filter_may_drop_anything_so_there_is_only_a_warning(tmp_path, jsonl_file, small_options, leave_free, caplog):
    leave_free(0)
    read = dataclasses.replace(small_options.read, filter="tests.bertdata.hooks_of_tests:keep", min_document_chars=1)
    disk.check_disk(
        tmp_path,
        splits=plan_files(find_inputs([str(jsonl_file)]), options=small_options.read),
        options=dataclasses.replace(small_options, read=read),
    )
    assert "likely needs" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("compress", [False, True])
def test_estimate_is_near_the_truth(tmp_path, shared_data, compress):
    """Of the head of an English dump, with the published vocabulary."""
    packed = shared_data / "enwiki-106-articles.xml.bz2"
    path = tmp_path / "wiki.xml"
    path.write_bytes(packed.read_bytes() if compress else bz2.decompress(packed.read_bytes()))
    options = BuildOptions(tokenizer=TokenizerOptions(path=str(shared_data / "bert-base-uncased-vocab.txt")))
    with open_build([str(path)], out=tmp_path / "out", options=options, keep_work=True) as work:
        build_serially(work)
    used = sum(file.stat().st_size for kind in ("*.tar", "*.run") for file in (tmp_path / "out").rglob(kind))
    need = need_of(path, options)
    assert need.least < used / 3
    assert used / 2 < need.usual < 2 * used


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (999_960, "1.0 MB"), (2.5e9, "2.5 GB"), (1.25e15, "1,250.0 TB")],
)
def test_format_bytes(num_bytes, text):
    assert format_bytes(num_bytes) == text
