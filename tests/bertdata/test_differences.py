import dataclasses
from types import SimpleNamespace

import pytest

from bertdata.differences import describe_differences
from bertdata.errors import OutputError
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
