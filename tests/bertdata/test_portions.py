"""Small files are put together to portions: in order, nothing lost, nothing larger than a split unless it is one."""

import dataclasses
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertdata.config import ReadOptions
from bertdata.errors import InputError
from bertdata.inputs import InputFile, find_inputs
from bertdata.portions import group_splits, plan_portions, portions_from_json, portions_to_json
from bertdata.splits import Split
from tests.bertdata.small_builds import build, counts_of, write_jsonl

GERMAN = (("Datei", 6), ("Benutzer", 2))


def splits_of(files: list[tuple[int, int]]) -> list[Split]:
    """Returns the splits of files, each given by its bytes and how many parts it is cut into."""
    return [
        Split(
            path=f"/in/{number:04d}",
            start=size * part // num_parts,
            stop=size * (part + 1) // num_parts,
            file_bytes=size,
            file_version=number,
            format="mediawiki" if number % 3 else "text",
            compression="none",
            language="de" if number % 3 else None,
            namespaces=GERMAN if number % 3 else (),
            closing_tag=bool(number % 3),
        )
        for number, (size, num_parts) in enumerate(files)
        for part in range(num_parts)
    ]


FILES = st.lists(st.tuples(st.integers(4, 40), st.sampled_from([1, 1, 1, 2, 3])), max_size=30)


@given(files=FILES, split_bytes=st.integers(1, 60))
def test_group_splits_keeps_all_in_order_and_none_too_large(files, split_bytes):
    splits = splits_of(files)
    portions = list(group_splits(splits, split_bytes=split_bytes))
    assert list(itertools.chain.from_iterable(portions)) == splits
    for portion in portions:
        assert len(portion) == 1 or sum(split.stop - split.start for split in portion) <= split_bytes
        assert len(portion) == 1 or all(split.is_whole for split in portion)
    for first, second in itertools.pairwise(portions):
        both = first + second
        assert not all(split.is_whole for split in both) or sum(split.file_bytes for split in both) > split_bytes


@given(files=FILES, split_bytes=st.integers(1, 60))
def test_portions_go_through_json(files, split_bytes):
    splits = splits_of(files)
    portions = tuple(group_splits(splits, split_bytes=split_bytes))
    inputs = tuple(dict.fromkeys(InputFile(split.path, split.file_bytes, split.file_version) for split in splits))
    written = json.dumps(portions_to_json(inputs, portions))
    assert portions_from_json(json.loads(written)) == (inputs, portions)
    assert written.count("Benutzer") == any(split.namespaces for split in splits)


def test_many_small_files_make_few_portions(tmp_path):
    for number in range(300):
        (tmp_path / f"{number:03d}.txt").write_text(f"This is file {number:03d}.")
    (tmp_path / "empty.txt").write_text("")
    portions = plan_portions(find_inputs([str(tmp_path)]), options=ReadOptions())
    assert [len(portion) for portion in portions] == [300]
    assert len(plan_portions(find_inputs([str(tmp_path)]), options=ReadOptions(), split_bytes=1000)) == 6


@pytest.fixture
def many(tmp_path):
    """A folder of small files, of which one has a bad record, and one with all that they hold."""
    texts = [f"Here is the text of record {i}. It has a second sentence. And a third one, too." for i in range(60)]
    (tmp_path / "many").mkdir()
    for number in range(20):
        write_jsonl(tmp_path / "many" / f"{number:02d}.jsonl", texts[3 * number : 3 * number + 3])
    with (tmp_path / "many" / "07.jsonl").open("a") as file:
        file.write("damaged\n")
    return tmp_path / "many"


def test_portions_change_nothing_that_is_built_or_counted(tmp_path, many, small_options):
    options = dataclasses.replace(small_options, read=ReadOptions(max_rejects=1))
    outs = [
        build(tmp_path / str(split_bytes), many, options=options, split_bytes=split_bytes)
        for split_bytes in (None, 400, 1000)
    ]
    assert len({tuple(sorted(counts_of(out).items())) for out in outs}) == 1
    assert counts_of(outs[0])["rejected_bad_json"] == 1
    for name in ("rejects.jsonl", "train-00000-of-00003.tar"):
        assert len({(out / name).read_bytes() for out in outs}) == 1


def test_bad_record_within_a_portion_is_named(tmp_path, many, small_options):
    with pytest.raises(InputError, match=r"^1 bad records, 0 allowed; the first: .*/07.jsonl, line 4: bad_json"):
        build(tmp_path / "out", many, options=small_options)


def test_damaged_file_within_a_portion_takes_no_other_with_it(tmp_path, many, small_options):
    (many / "05.jsonl.gz").write_bytes(b"\x1f\x8b damaged")
    options = dataclasses.replace(small_options, read=ReadOptions(max_rejects=1, skip_bad_splits=True))
    counts = counts_of(build(tmp_path / "out", many, options=options))
    assert (counts["damaged_splits"], counts["records"]) == (1, 61)
