"""The same documents give the same shards, whatever the format, the compression and the splits."""

import pytest

from bertdata.build import build_serially
from bertdata.config import BuildOptions, MaskOptions, PairOptions, ReadOptions, ShardOptions, TokenizerOptions
from bertdata.data_set import open_data_set
from bertdata.launch import open_build
from bertdata.splits import plan_splits
from tests.bertdata.formats import FORMATS, format_of, write_format
from tests.bertdata.reading import read
from tests.corpus import sentence

TEXTS = [" ".join(sentence(number, place) for place in range(3)) for number in range(8)]
SPLIT_BYTES = (1, 2, 13, 100, 701, 10**9)


@pytest.fixture(scope="module")
def options(tokenizer_file) -> BuildOptions:
    return BuildOptions(
        read=ReadOptions(language="en"),
        tokenizer=TokenizerOptions(path=str(tokenizer_file)),
        pairs=PairOptions(dupe_factor=2),
        masks=MaskOptions(num_mask_sets=2),
        shards=ShardOptions(num_shards=2, eval_fraction=0),
        max_seq_lengths=(32,),
    )


def shard_hashes(folder, path, options, *, split_bytes):
    with open_build([str(path)], out=folder, options=options, split_bytes=split_bytes) as work:
        build_serially(work)
    manifest = open_data_set(folder).manifest
    return [shard.sha256 for shard in manifest.shards], manifest.counts


@pytest.fixture(scope="module")
def expected(tmp_path_factory, options):
    folder = tmp_path_factory.mktemp("expected")
    return shard_hashes(folder / "out", write_format(folder, "records.jsonl", TEXTS), options, split_bytes=10**9)[0]


@pytest.mark.parametrize("split_bytes", SPLIT_BYTES)
@pytest.mark.parametrize("name", FORMATS)
def test_splits_of_any_size_give_the_same_documents(tmp_path, name, split_bytes):
    path = write_format(tmp_path, name, TEXTS)
    documents, counts, _ = read(path, split_bytes=split_bytes)
    assert sorted(document.text for document in documents) == sorted(TEXTS)
    assert counts["records"] == len(TEXTS)


@pytest.mark.parametrize("name", FORMATS)
def test_any_format_gives_the_same_shards(tmp_path, options, expected, name):
    path = write_format(tmp_path, name, TEXTS)
    for split_bytes in (50, 10**9):
        hashes, counts = shard_hashes(tmp_path / f"out{split_bytes}", path, options, split_bytes=split_bytes)
        assert hashes == expected
        assert counts["documents"] == len(TEXTS)


@pytest.mark.parametrize(
    "name", [pytest.param("dump.xml", marks=pytest.mark.slow), "pbzip2.xml.bz2", "rows.parquet", "text.txt"]
)
def test_splits_of_one_byte_give_the_same_shards(tmp_path, options, expected, name):
    path = write_format(tmp_path, name, TEXTS)
    assert shard_hashes(tmp_path / "out", path, options, split_bytes=1)[0] == expected


def test_mixed_formats_in_one_folder_give_the_same_shards(tmp_path, options):
    texts = [" ".join(sentence(number, place) for place in range(3)) for number in range(2 * len(FORMATS))]
    (tmp_path / "mixed").mkdir()
    for number, name in enumerate(FORMATS):
        write_format(tmp_path / "mixed", name, texts[2 * number : 2 * number + 2])
    hashes, counts = shard_hashes(tmp_path / "out", tmp_path / "mixed", options, split_bytes=10**9)
    whole = write_format(tmp_path, "records.jsonl", texts)
    assert hashes == shard_hashes(tmp_path / "whole", whole, options, split_bytes=10**9)[0]
    assert counts["documents"] == len(texts)


def test_plan_splits_detects_every_format_without_a_name(tmp_path):
    for name in FORMATS:
        path = write_format(tmp_path, name, TEXTS).rename(tmp_path / "nameless")
        formats = {split.format for split in plan_splits([str(path)], options=ReadOptions())}
        assert formats == {format_of(name)}
