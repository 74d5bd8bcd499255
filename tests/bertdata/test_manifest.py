import dataclasses
import json
import shutil

import pytest

import bertdata
from bertdata.config import BuildOptions
from bertdata.data_set import open_data_set
from bertdata.errors import ShardError
from bertdata.files import file_sha256
from bertdata.manifest import write_manifest


@pytest.fixture
def copy(small_data_set, tmp_path):
    return shutil.copytree(small_data_set, tmp_path / "copy")


def test_manifest_describes_the_files(small_data_set):
    data_set = open_data_set(small_data_set)
    manifest = data_set.manifest
    assert [shard.split for shard in manifest.shards] == ["train"] * 3 + ["eval"]
    for shard in manifest.shards:
        path = small_data_set / shard.name
        assert path.stat().st_size == shard.num_bytes
        assert file_sha256(path) == shard.sha256
        samples = list(bertdata.read_samples(path))
        assert len(samples) == shard.num_samples
        assert sum(len(sample.tokens) for sample in samples) == shard.num_tokens
    assert manifest.tokenizer.sha256 == file_sha256(small_data_set / "tokenizer.json")
    assert BuildOptions.from_json(manifest.options).to_json() == manifest.options


def test_index_leads_to_every_block(small_data_set):
    data_set = open_data_set(small_data_set)
    for split in ("train", "eval"):
        blocks = data_set.blocks(split)
        read = [data_set.read(blocks, row) for row in range(len(blocks))]
        assert [block.num_samples for block in read] == blocks.num_samples.tolist()
        assert [len(block.tokens) for block in read] == blocks.num_tokens.tolist()
        assert sum(block.num_samples for block in read) == data_set.manifest.num_samples(split)


def test_manifest_round_trip(copy):
    manifest = open_data_set(copy).manifest
    write_manifest(copy, manifest)
    assert open_data_set(copy).manifest == manifest


def test_fingerprint_follows_the_shards(small_data_set):
    manifest = open_data_set(small_data_set).manifest
    other = dataclasses.replace(manifest.shards[0], sha256="0" * 64)
    changed = dataclasses.replace(manifest, shards=(other, *manifest.shards[1:]))
    assert changed.fingerprint != manifest.fingerprint
    assert dataclasses.replace(manifest, inputs=[]).fingerprint == manifest.fingerprint


def test_open_without_manifest_says_what_to_do(copy):
    (copy / "manifest.json").unlink()
    with pytest.raises(ShardError, match="not a finished data set.*if the build has not ended, run it again"):
        open_data_set(copy)


def test_open_of_a_run_says_what_it_is(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ShardError, match=r"it is the folder of a run of bert-train; name the folder of its shards"):
        open_data_set(tmp_path)


def test_open_names_the_data_sets_of_several_lengths(small_data_set, tmp_path):
    shutil.copytree(small_data_set, tmp_path / "128")
    shutil.copytree(small_data_set, tmp_path / "512")
    with pytest.raises(ShardError, match=r"128, 512.*name one"):
        open_data_set(tmp_path)


def test_open_refuses_another_format_version(copy):
    path = copy / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 2}))
    with pytest.raises(ShardError, match="format version 2; this release reads version 1"):
        open_data_set(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format_version": 1}'])
def test_open_refuses_a_damaged_manifest(copy, text):
    (copy / "manifest.json").write_text(text)
    with pytest.raises(ShardError, match="(?i)build the data set again"):
        open_data_set(copy)


def test_open_refuses_the_index_of_another_data_set(copy):
    path = copy / "manifest.json"
    values = json.loads(path.read_text())
    values["shards"][0]["num_samples"] += 1
    path.write_text(json.dumps(values))
    with pytest.raises(ShardError, match="do not belong together"):
        open_data_set(copy)


def test_open_refuses_another_tokenizer(copy):
    path = copy / "tokenizer.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(ShardError, match="not the tokenizer that the shards were built with"):
        open_data_set(copy)


def test_open_refuses_a_missing_tokenizer(copy):
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ShardError, match=r"tokenizer\.json cannot be read.*copy the folder again"):
        open_data_set(copy)


def test_open_refuses_a_damaged_index(copy):
    (copy / "index.arrow").write_bytes(b"ARROW1")
    with pytest.raises(ShardError, match="block index"):
        open_data_set(copy)
