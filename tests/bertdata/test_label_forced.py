"""Blocks of `--next-sentence google` say which labels were not drawn; no other block has such a member."""

import dataclasses
import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset

import bertdata
from bertdata.blocks import iter_samples
from bertdata.config import MaskOptions, PairOptions
from bertdata.errors import ShardError
from bertdata.export import export_data_set
from bertdata.merging import merge_data_sets, open_sources
from bertdata.shard_reading import iter_blocks
from bertdata.shards import FORCED, encode_block, members_of
from bertdata.spill import document_key
from bertdata.verify import iter_problems
from tests.bertdata.planting import change_block, copy, edit_manifest, put, read_blocks, write_blocks
from tests.bertdata.small_builds import build, counts_of, samples_of, write_jsonl
from tests.corpus import WORDS, sentence
from trainer.reader import BlockReader

NAME = "train-00000-00000"
LENGTH = 48


def texts(seed: int) -> list[list[str]]:
    """Documents as sentences: short ones, and in every third document such as fill a sample alone."""
    long = [
        [
            " ".join(WORDS[(seed + number + 7 * place + word) % len(WORDS)] for word in range(60)).capitalize() + "."
            for place in range(5)
        ]
        for number in range(20)
    ]
    short = [[sentence(seed + number, place) for place in range(12)] for number in range(40)]
    return long + short


@pytest.fixture(scope="module")
def make(tmp_path_factory, small_options):
    """Returns a function that builds a data set."""

    def run(mode: str = "google", seed: int = 0) -> Path:
        folder = tmp_path_factory.mktemp(mode)
        options = dataclasses.replace(
            small_options,
            pairs=PairOptions(max_seq_length=LENGTH, next_sentence=mode),
            masks=MaskOptions(num_mask_sets=1),
            max_seq_lengths=(LENGTH,),
        )
        return build(folder / "shards", write_jsonl(folder / "a.jsonl", map(" ".join, texts(seed))), options=options)

    return run


@pytest.fixture(scope="module")
def built(make) -> Path:
    """Tests must not write to it."""
    return make()


@pytest.fixture
def folder(built, tmp_path) -> Path:
    return copy(built, tmp_path / "shards")


def problems_of(folder):
    return [str(problem) for problem in iter_problems(folder)]


def unmarked(block):
    """A block as an earlier release wrote it."""
    return dataclasses.replace(block, label_forced=None)


def unmark(folder: Path) -> Path:
    return write_blocks(folder, {name: [*map(unmarked, own)] for name, own in read_blocks(folder).items()})


def test_forced_are_the_chunks_of_one_sentence(built):
    samples = samples_of(built)
    counts = counts_of(built)
    assert sum(sample.label_forced for sample in samples) == counts["forced"] > 100
    assert all(sample.next_sentence_label == 1 for sample in samples if sample.label_forced)
    free = [sample.next_sentence_label for sample in samples if not sample.label_forced]
    assert abs(np.mean(free) - 0.5) < 4 * 0.5 / len(free) ** 0.5
    long = {int.from_bytes(document_key(text)[:8], "big") for text in texts(0)[:20]}
    alone = [sample for sample in samples if sample.document_keys[0] in long]
    assert len(alone) == 2 * 20 * 5  # each is drawn from twice
    assert all(sample.label_forced for sample in alone)


@pytest.mark.parametrize("mode", ["balanced", "sop", "none"])
def test_no_other_build_has_the_member(make, mode):
    folder = make(mode)
    blocks = [block for own in read_blocks(folder).values() for block in own]
    assert all(block.label_forced is None for block in blocks)
    assert not any(sample.label_forced for sample in samples_of(folder))
    names = [FORCED.encode() in path.read_bytes() for path in folder.glob("*.tar")]
    assert not any(names)
    problems = problems_of(change_block(folder, lambda block: dataclasses.replace(block, label_forced=ones(block) * 0)))
    assert any(f"no label of --next-sentence {mode} is forced" in problem for problem in problems)


def ones(block):
    return np.ones(block.num_samples, dtype=np.uint8)


def test_the_member_is_read_with_and_without_index(built):
    data_set = bertdata.open_data_set(built)
    for number, shard in enumerate(data_set.manifest.shards):
        rows = np.flatnonzero(data_set.index.shard == number)
        without = list(iter_blocks(built / shard.name))
        assert len(without) == len(rows) >= 1
        for row, block in zip(rows, without, strict=True):
            np.testing.assert_array_equal(data_set.read(data_set.index, row).label_forced, block.label_forced)
            assert block.label_forced.dtype == np.uint8
            assert [sample.label_forced for sample in iter_samples(block)] == (block.label_forced == 1).tolist()
            assert members_of(block)[-1] == FORCED
    assert max(shard.num_blocks for shard in data_set.manifest.shards) > 1


def test_stock_webdataset_and_datasets_read_the_member(built, tmp_path):
    path = built / "train-00000-of-00003.tar"
    wanted = list(iter_blocks(path))
    found = list(webdataset.WebDataset(str(path), shardshuffle=False).decode())
    loaded = datasets.load_dataset("webdataset", data_files=str(path), split="train", cache_dir=str(tmp_path))
    for block, sample, row in zip(wanted, found, loaded, strict=True):
        for field in members_of(block):
            np.testing.assert_array_equal(sample[f"{field}.npy"], getattr(block, field))
            np.testing.assert_array_equal(np.array(row[f"{field}.npy"], dtype=np.uint64), getattr(block, field))


def test_blocks_that_do_not_say_are_read_and_whole(folder):
    """Earlier releases did not write the member."""
    assert problems_of(unmark(folder)) == []
    assert not any(sample.label_forced for sample in samples_of(folder))


def test_export_has_a_column_of_google_only(built, folder, tmp_path):
    unmark(folder)
    for place, wanted in ((built, [int(sample.label_forced) for sample in bertdata.read_samples(built)]), (folder, [])):
        out = tmp_path / place.parent.name
        paths = export_data_set(place, out=out, mask_set=0, splits=["train"])
        found = [value for path in paths for value in pq.read_table(path)[FORCED].to_pylist()]
        assert found == (wanted or [None] * len(found))
        assert len(found) > 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda block: put(block, FORCED, 3, 7), "label_forced is neither 0 nor 1"),
        (
            lambda block: dataclasses.replace(block, label_forced=ones(block)),
            "it is labelled IsNext, and label_forced says that it had to be NotNext",
        ),
        (lambda block: dataclasses.replace(block, label_forced=ones(block)[1:]), "do not fit each other"),
        (
            lambda block: dataclasses.replace(block, label_forced=ones(block).astype("<u2")),
            "label_forced has dtype uint16, not uint8",
        ),
        (
            lambda block: put(block, FORCED, int(np.argmax(block.label_forced)), 0),
            "manifest.json: the count of forced is",
        ),
    ],
)
def test_wrong_marks_are_found(folder, change, message):
    problems = problems_of(change_block(folder, change, shard=1))
    assert any(message in problem for problem in problems), problems


def test_wrong_count_of_the_manifest_is_found(folder):
    problems = problems_of(edit_manifest(folder, lambda values: values["counts"].update(forced=3)))
    assert any("the count of forced is 3; the shards have" in problem for problem in problems)


def test_marks_that_free_labels_contradict_are_found_in_their_shard(folder):
    """All NotNext of a shard are said to be forced: what is left is not drawn evenly."""
    blocks = read_blocks(folder)
    name = next(iter(blocks))
    blocks[name] = [dataclasses.replace(block, label_forced=block.next_sentence_label.copy()) for block in blocks[name]]
    problems = problems_of(write_blocks(folder, blocks))
    assert any(problem.startswith(name) and "freely drawn NotNext is 0.00%" in problem for problem in problems)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_forced": np.full(1, 2, "u1")}, "neither 0 nor 1"),
        ({"label_forced": np.zeros((1, 1), "u1")}, "do not fit"),
        ({"label_forced": np.zeros(1, "<u2")}, "dtypes are not those"),
    ],
)
def test_hostile_members_are_refused(built, tmp_path, change, message):
    block = dataclasses.replace(next(iter_blocks(built / "train-00000-of-00003.tar")))
    change = {FORCED: np.resize(change[FORCED], (block.num_samples, *change[FORCED].shape[1:]))}
    path = tmp_path / "train-00000-of-00001.tar"
    path.write_bytes(encode_block(dataclasses.replace(block, **change), name=NAME) + bytes(1024))
    with pytest.raises(ShardError, match=message):
        list(iter_blocks(path))


@pytest.mark.parametrize("cut", [1, 511, 700, 1025, 1600])
def test_a_shard_that_is_cut_in_the_last_member_is_refused(built, tmp_path, cut):
    path = tmp_path / "train-00000-of-00001.tar"
    path.write_bytes((built / "train-00000-of-00003.tar").read_bytes()[: -cut - 1024])
    with pytest.raises(ShardError):
        list(iter_blocks(path))


def test_merged_data_sets_keep_their_marks(built, make, folder, tmp_path):
    other = make(seed=1000)
    merged = merge_data_sets(open_sources([built, other], out=tmp_path / "merged"), out=tmp_path / "merged")
    assert problems_of(merged.folder) == []
    num_forced = sum(sample.label_forced for sample in samples_of(merged.folder))
    assert num_forced == counts_of(built)["forced"] + counts_of(other)["forced"]
    old = shutil.copytree(unmark(folder), tmp_path / "old")
    mixed = merge_data_sets(open_sources([other, old], out=tmp_path / "mixed"), out=tmp_path / "mixed")
    assert problems_of(mixed.folder) == []


@pytest.mark.parametrize("split", ["train", "eval"])
def test_the_loader_shows_the_marks(built, split):
    wanted = list(bertdata.read_samples(built, split=split))
    reader = BlockReader([bertdata.open_data_set(built)], split=split)
    shown, ids = reader.show(np.arange(reader.num_samples), mask_set=0)
    assert shown.label_forced.tolist() == [wanted[number].label_forced for number in ids]
    assert shown.next_sentence_labels.tolist() == [wanted[number].next_sentence_label for number in ids]
    assert shown.label_forced.any()
