import dataclasses
import json
import re
from types import SimpleNamespace

import pytest

from bertdata import differences, fingerprint
from bertdata.build import build_serially
from bertdata.differences import describe_differences
from bertdata.errors import OutputError
from bertdata.fingerprint import library_versions
from bertdata.inputs import InputFile
from bertdata.launch import open_build


def describe(small_options, before, now, **options):
    found = SimpleNamespace(inputs=before, options=small_options)
    return describe_differences(found, options=dataclasses.replace(small_options, **options), inputs=now)


def test_inputs_and_options_that_differ_are_named(small_options):
    a, b, c = (InputFile(f"/{name}", 5, 1) for name in "abc")
    assert describe(small_options, [a, b], [a, b._replace(num_bytes=1234)]) == (
        "/b has changed: it had 5 bytes, and has 1,234"
    )
    assert describe(small_options, [a, b], [a._replace(version=2), c]) == (
        "/a has changed: it was written to since; /b is no input any more; /c is a new input"
    )
    shards = dataclasses.replace(small_options.shards, num_shards=4)
    assert (
        describe(small_options, [a], [a], seed=1, shards=shards) == "num_shards was 3, and is 4; seed was 0, and is 1"
    )
    assert describe(small_options, [a], [a]).startswith("the versions of libraries")


def test_many_differences_are_counted(small_options):
    files = [InputFile(f"/{number}", 5, 1) for number in range(9)]
    assert describe(small_options, files, []).endswith("/4 is no input any more; and 4 more")


def test_another_build_in_an_unfinished_ones_folder_is_told_what_differs(tmp_path, jsonl_file, small_options):
    with pytest.raises(KeyboardInterrupt), open_build([str(jsonl_file)], out=tmp_path, options=small_options):
        raise KeyboardInterrupt
    other = dataclasses.replace(small_options, seed=1)
    with (
        pytest.raises(OutputError, match=r"this one has \w{16}\): seed was 0, and is 1\. Give another --out"),
        open_build([str(jsonl_file)], out=tmp_path, options=other),
    ):
        pass


@pytest.fixture
def refuse(tmp_path, jsonl_file, small_options):
    """A function that asks for a build in the folder of a finished one, and returns why it was refused."""
    with open_build([str(jsonl_file)], out=tmp_path / "shards", options=small_options) as work:
        build_serially(work)

    def ask(*more_inputs, **changes):
        options = dataclasses.replace(small_options, **changes)
        inputs = [str(jsonl_file), *map(str, more_inputs)]
        with pytest.raises(OutputError) as caught, open_build(inputs, out=tmp_path / "shards", options=options):
            pass
        return str(caught.value)

    return ask


def test_another_build_in_a_finished_ones_folder_is_told_what_differs(tmp_path, refuse, small_options):
    added = tmp_path / "more.jsonl"
    added.write_text('{"text": "One. Two. Three."}\n')
    message = refuse(added, tokenizer=dataclasses.replace(small_options.tokenizer, vocab_size=77))
    size = added.stat().st_size
    assert re.search(rf": more.jsonl of {size} bytes is a new input; vocab_size was \S+, and is 77\. Give", message)


def test_finished_build_of_other_versions_is_told_so(refuse, monkeypatch):
    for module in (differences, fingerprint):
        monkeypatch.setattr(module, "library_versions", lambda: library_versions() | {"tokenizers": "0.0"})
    assert re.search(r": tokenizers was \S+, and is 0\.0\. Give another --out", refuse())


def test_finished_build_with_a_damaged_manifest_is_told_so(tmp_path, refuse):
    path = tmp_path / "shards" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"shards": "none"}))
    assert re.search(r": what differs cannot be told \(.*manifest.json.*\)\. Give another --out", refuse(seed=1))
