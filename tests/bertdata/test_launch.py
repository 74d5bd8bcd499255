import dataclasses
import gzip
import json
import os

import pytest

from bertdata.build import build_serially
from bertdata.config import ReadOptions
from bertdata.data_set import open_data_set
from bertdata.errors import BertDataError, InputError, OutputError
from bertdata.fingerprint import fingerprint_of
from bertdata.inputs import find_inputs
from bertdata.launch import open_build
from bertdata.lock import Lock
from bertdata.tokenizing import tokenize_portion


def build(out, path, options, **values):
    with open_build([str(path)], out=out, options=options, **values) as work:
        if work is not None:
            build_serially(work)
        return work


@pytest.fixture
def finished(tmp_path, jsonl_file, small_options):
    out = tmp_path / "shards"
    build(out, jsonl_file, small_options)
    return out


def test_finished_build_is_left_alone(finished, jsonl_file, small_options):
    before = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
    assert build(finished, jsonl_file, small_options) is None
    assert {path: path.stat().st_mtime_ns for path in finished.iterdir()} == before


def test_another_build_into_the_same_folder_is_refused(finished, jsonl_file, small_options):
    other = dataclasses.replace(small_options, seed=1)
    with pytest.raises(OutputError, match=r"another build \(fingerprint \w{16}, this one has \w{16}\).*--overwrite"):
        build(finished, jsonl_file, other)
    assert (finished / "manifest.json").exists()


def test_an_unfinished_other_build_is_refused_too(tmp_path, jsonl_file, small_options):
    out = tmp_path / "shards"
    with pytest.raises(KeyboardInterrupt), open_build([str(jsonl_file)], out=out, options=small_options):
        raise KeyboardInterrupt
    with pytest.raises(OutputError, match="another build"):
        build(out, jsonl_file, dataclasses.replace(small_options, seed=1))


def test_overwrite_replaces_and_spares_other_files(finished, jsonl_file, small_options):
    note = finished / "notes.txt"
    note.write_text("mine")
    other = dataclasses.replace(small_options, seed=1, shards=dataclasses.replace(small_options.shards, num_shards=1))
    build(finished, jsonl_file, other, overwrite=True)
    assert note.read_text() == "mine"
    assert sorted(path.name for path in finished.glob("train-*.tar")) == ["train-00000-of-00001.tar"]


@pytest.mark.parametrize("name", ["manifest.json", ".work/build.json"])
@pytest.mark.parametrize("content", ["{", "[]", "null", '"x"'])
def test_overwrite_replaces_what_cannot_be_read(tmp_path, jsonl_file, small_options, name, content):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(OutputError, match="cannot be read .*; start anew with --overwrite"):
        build(tmp_path, jsonl_file, small_options)
    build(tmp_path, jsonl_file, small_options, overwrite=True)
    assert open_data_set(tmp_path).manifest.num_samples("train")


@pytest.mark.parametrize("seed", [0, 1])
def test_work_folder_of_another_version_is_refused(tmp_path, jsonl_file, small_options, seed):
    with pytest.raises(KeyboardInterrupt), open_build([str(jsonl_file)], out=tmp_path, options=small_options):
        raise KeyboardInterrupt
    path = tmp_path / ".work/build.json"
    values = json.loads(path.read_bytes())
    del values["portions"]
    path.write_text(json.dumps(values))
    with pytest.raises(OutputError, match="build.json is damaged, or was written by another version.*--overwrite"):
        build(tmp_path, jsonl_file, dataclasses.replace(small_options, seed=seed))


def test_overwrite_spares_other_builds_in_sub_folders(tmp_path, jsonl_file, small_options):
    build(tmp_path / "64", jsonl_file, small_options)
    other = dataclasses.replace(small_options, seed=1)
    build(tmp_path, jsonl_file, other)
    build(tmp_path, jsonl_file, small_options, overwrite=True)
    assert (tmp_path / "64" / "manifest.json").exists()


def test_changed_input_is_another_build(finished, jsonl_file, small_options, tmp_path):
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(jsonl_file.read_bytes())
    first = fingerprint_of(small_options, inputs=find_inputs([str(copy)]))
    os.utime(copy, (1, 1))
    assert fingerprint_of(small_options, inputs=find_inputs([str(copy)])) != first


CHANGES = {
    "longer": (
        lambda folder: (folder / "a.jsonl").write_text("longer"),
        r"/a.jsonl has changed: it had [\d,]+ bytes, and has 6.",
    ),
    "later": (lambda folder: os.utime(folder / "a.jsonl", (1, 1)), "/a.jsonl has changed: it was written to since."),
    "missing": (lambda folder: (folder / "b.jsonl").unlink(), "/b.jsonl is no input any more."),
    "new": (lambda folder: (folder / "c.jsonl").write_text("x"), "/c.jsonl is a new input."),
    "many": (
        lambda folder: [(folder / f"d{number}.jsonl").write_text("x") for number in range(7)],
        "/d0.jsonl is a new input; .*/d4.jsonl is a new input; and 2 more.",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_input_that_changed_since_a_build_was_ended_is_named(tmp_path, jsonl_file, small_options, change):
    (tmp_path / "in").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / "in" / name).write_bytes(jsonl_file.read_bytes())
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), open_build([str(tmp_path / "in")], out=out, options=small_options):
        raise KeyboardInterrupt
    with pytest.raises(OutputError, match=r"this one has \w+\): seed was 0, and is 7\. Give another --out"):
        build(out, tmp_path / "in", dataclasses.replace(small_options, seed=7))
    apply, message = CHANGES[change]
    apply(tmp_path / "in")
    with pytest.raises(OutputError, match=f"{message} Give another --out, or replace it with"):
        build(out, tmp_path / "in", small_options)


def test_lock_keeps_a_second_launcher_out(tmp_path):
    with Lock(tmp_path), pytest.raises(OutputError, match="another build is writing"), Lock(tmp_path):
        pass
    with Lock(tmp_path):
        pass


def test_temporary_files_of_a_killed_build_are_swept(tmp_path, jsonl_file, small_options):
    out = tmp_path / "shards"
    with pytest.raises(KeyboardInterrupt), open_build([str(jsonl_file)], out=out, options=small_options):
        raise KeyboardInterrupt
    left = [out / "train-00000-of-00003.tar.99.tmp", out / ".work" / "runs" / "00000-0000.run.99.tmp"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_text("torn")
    build(out, jsonl_file, small_options)
    assert not any(path.exists() for path in left)


def test_missing_input_writes_nothing(tmp_path, small_options):
    with pytest.raises(InputError, match="no such file"):
        build(tmp_path / "out", tmp_path / "absent.xml", small_options)
    assert not (tmp_path / "out").exists()


def test_output_that_is_a_file_is_an_error(tmp_path, jsonl_file, small_options):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="cannot be written to"):
        build(tmp_path / "out", jsonl_file, small_options)


def test_build_without_manifest_is_an_error(tmp_path, jsonl_file, small_options):
    with (
        pytest.raises(BertDataError, match="without a manifest"),
        open_build([str(jsonl_file)], out=tmp_path / "out", options=small_options),
    ):
        pass


def test_build_that_ended_at_damage_goes_on_without_it(tmp_path, jsonl_file, small_options):
    """What was tokenized is not done again, and other options of that kind do not make it another build."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_bytes(jsonl_file.read_bytes())
    (tmp_path / "in" / "b.jsonl.gz").write_bytes(gzip.compress(jsonl_file.read_bytes())[:-100])
    out = tmp_path / "out"
    values = {"split_bytes": 20_000}
    with pytest.raises(InputError, match="--skip-bad-splits leaves out the rest"):
        build(out, tmp_path / "in", small_options, **values)
    done = {path: path.stat().st_ino for path in (out / ".work" / "splits").iterdir()}
    assert len(done) > 1
    skipping = dataclasses.replace(small_options, read=ReadOptions(skip_bad_splits=True))
    with pytest.raises(KeyboardInterrupt), open_build([str(tmp_path / "in")], out=out, options=skipping) as work:
        for number in range(len(work.portions)):
            tokenize_portion(work, number)
        raise KeyboardInterrupt
    assert {path: path.stat().st_ino for path in done} == done
    with pytest.raises(InputError, match=r"1 damaged splits have been left out.*b\.jsonl\.gz.*--skip-bad-splits again"):
        build(out, tmp_path / "in", small_options)
    build(out, tmp_path / "in", skipping)
    assert open_data_set(out).manifest.counts["damaged_splits"] == 1
