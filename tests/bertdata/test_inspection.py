import dataclasses
import itertools
import json

import click
import pytest
from click.testing import CliRunner

import bertdata
from bertdata.blocks import Sample
from bertdata.cli import main
from bertdata.data_set import DataSet
from bertdata.errors import ConfigError, ShardError
from bertdata.inspection import describe_sample, iter_shard_samples, sample_to_json
from bertdata.painting import Painter
from tests.bertdata.small_builds import build


@pytest.fixture
def data_set(small_data_set):
    return bertdata.open_data_set(small_data_set)


@pytest.fixture(scope="module")
def unmasked(tmp_path_factory, jsonl_file, small_options):
    """The small data set, but without stored mask sets."""
    masks = dataclasses.replace(small_options.masks, num_mask_sets=0)
    options = dataclasses.replace(small_options, masks=masks)
    return bertdata.open_data_set(build(tmp_path_factory.mktemp("unmasked") / "out", jsonl_file, options=options))


def inspect(folder, *arguments, **options):
    return CliRunner().invoke(main, ["inspect", str(folder), *map(str, arguments)], **options)


@pytest.mark.parametrize("split", ["train", "eval"])
def test_samples_come_in_the_order_in_which_they_lie(data_set, split):
    wanted = list(bertdata.read_samples(data_set.folder, split=split))
    found = list(iter_shard_samples(data_set, split=split, num_samples=10**6))
    assert [sample.content for sample in found] == wanted
    shards = [shard for shard in data_set.manifest.shards if shard.split == split]
    places = [(shard.name, number) for shard in shards for number in range(shard.num_samples)]
    assert [(sample.shard, sample.sample_of_shard) for sample in found] == places
    assert all(sample.sample_of_shard == 100 * sample.block + sample.sample for sample in found)
    assert len(list(iter_shard_samples(data_set, split=split))) == 3


def test_one_sample_is_found_by_its_number_in_the_split_or_shard(data_set):
    whole = list(bertdata.read_samples(data_set.folder))
    for number in (0, 1, 99, 100, 101, 517, len(whole) - 1):
        (found,) = iter_shard_samples(data_set, sample=number)
        assert found.content == whole[number]
    for place, shard in enumerate(data_set.manifest.shards):
        of_shard = list(bertdata.read_samples(data_set.folder / shard.name))
        for number in (0, 57, 100, len(of_shard) - 1):
            (found,) = iter_shard_samples(data_set, shard=shard.name, sample=number)
            assert found.content == of_shard[number]
            assert (found.shard, found.sample_of_shard) == (shard.name, number)
            if shard.split == "train":
                assert list(iter_shard_samples(data_set, shard=str(place), sample=number)) == [found]


def test_one_sample_reads_one_block(data_set, monkeypatch):
    read = DataSet.read
    rows = []
    monkeypatch.setattr(DataSet, "read", lambda self, blocks, row: rows.append(row) or read(self, blocks, row))
    (found,) = iter_shard_samples(data_set, shard="2", sample=150)
    assert len(rows) == 1
    assert (found.block, found.sample) == (1, 50)


@pytest.mark.parametrize("mask_set", [0, 1])
def test_mask_sets_are_drawn_as_a_build_stores_them(data_set, unmasked, mask_set):
    stored = list(iter_shard_samples(data_set, num_samples=250, mask_set=mask_set))
    drawn = list(iter_shard_samples(unmasked, num_samples=250, mask_set=mask_set))
    assert [sample.content for sample in drawn] == [sample.content for sample in stored]
    assert {sample.num_stored for sample in stored} == {2}
    assert {sample.num_stored for sample in drawn} == {0}
    assert {sample.mask_sets for sample in drawn} == {(mask_set,)}


def test_drawn_mask_sets_are_said_to_be(unmasked):
    painter = Painter.of(unmasked)
    (found,) = iter_shard_samples(unmasked, sample=5, mask_set=7)
    assert "mask set   7 drawn now" in describe_sample(found, painter=painter)
    assert sample_to_json(found, painter=painter)["mask_sets_stored"] is False
    (first,) = iter_shard_samples(unmasked, sample=5)
    assert first.mask_sets == (0,)


def test_description_names_place_and_lengths(data_set):
    (found,) = iter_shard_samples(data_set, shard="1", sample=120, mask_set=1)
    lines = click.unstyle(describe_sample(found, painter=Painter.of(data_set))).splitlines()
    num_a = found.content.segment_ids.count(0) - 2
    num_b = found.content.segment_ids.count(1) - 1
    assert lines[0] == (
        f"train-00001-of-00003.tar, block 1, sample 20 (sample 120 of the shard): {num_a + num_b + 3} tokens, "
        f"{num_a} of A, {num_b} of B"
    )
    assert lines[-1].startswith(f"  mask set   1 of 2; {len(found.content.mask_sets[0][0])} predicted: ")


def test_json_gives_the_sample_back(data_set):
    wanted = list(bertdata.read_samples(data_set.folder))
    tokenizer = bertdata.wordpiece.load_tokenizer(data_set.folder / "tokenizer.json")
    result = inspect(data_set.folder, "--json", "--num-samples", 150)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == 150
    for line, sample in zip(lines, wanted, strict=False):
        values = json.loads(line)
        found = Sample(
            tokens=values["tokens"],
            segment_ids=values["segment_ids"],
            next_sentence_label=values["next_sentence_label"],
            document_keys=tuple(int(key, 16) for key in values["document_keys"]),
            mask_sets=[(chosen["positions"], chosen["shown"]) for chosen in values["mask_sets"]],
        )
        assert found == sample
        assert [tokenizer.token_to_id(piece) for piece in values["pieces"]] == sample.tokens
        assert values["label_name"] == ("IsNext", "NotNext")[sample.next_sentence_label]
        for number, chosen in enumerate(values["mask_sets"]):
            assert chosen["mask_set"] == number
            assert chosen["labels"] == [sample.tokens[position] for position in chosen["positions"]]


def test_json_of_one_mask_set(data_set):
    values = json.loads(inspect(data_set.folder, "--json", "--sample", 3, "--mask-set", 1).stdout)
    (chosen,) = values["mask_sets"]
    sample = list(itertools.islice(bertdata.read_samples(data_set.folder), 4))[3]
    assert (chosen["mask_set"], chosen["positions"]) == (1, sample.mask_sets[1][0])


def test_colours_add_nothing_but_colours(data_set, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    plain = inspect(data_set.folder, "--num-samples", 20).stdout
    coloured = inspect(data_set.folder, "--num-samples", 20, color=True).stdout
    assert "\x1b[" in coloured
    assert "\x1b[" not in plain
    assert click.unstyle(coloured) == plain
    assert inspect(data_set.folder, "--num-samples", 20, color=True, env={"NO_COLOR": "1"}).stdout == plain
    assert inspect(data_set.folder, "--num-samples", 20, env={"FORCE_COLOR": "1"}).stdout == coloured


def test_lines_fit_the_terminal(data_set):
    wide = inspect(data_set.folder).stdout
    narrow = inspect(data_set.folder, env={"COLUMNS": "60"}).stdout
    assert max(map(len, wide.splitlines())) > 200
    assert narrow.split() == wide.split()
    assert all(len(line) <= 60 for line in narrow.splitlines() if line.startswith(("  A", "  B", " " * 13)))


def test_text_ends_with_what_lengths_give_away(data_set):
    assert inspect(data_set.folder).stdout.splitlines()[-1].startswith("label guessed from the lengths")
    assert "label guessed" not in inspect(data_set.folder, "--sample", 0).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask_set": 2}, "--mask-set is 2; this data set has the sets 0 to 1"),
        ({"sample": 10**6}, r"--sample is 1,000,000; the train split has [\d,]+ samples, counted from 0"),
        ({"shard": "eval-00000-of-00001.tar", "sample": 10**6}, r"eval-00000-of-00001\.tar has [\d,]+ samples"),
        ({"shard": "3"}, "--shard is 3; the train split has the shards 0 to 2"),
        ({"shard": "1", "split": "eval"}, "--shard is 1; the eval split has the shards 0 to 0"),
        ({"shard": "train-00001.tar"}, r"no such shard; did you mean train-00001-of-00003\.tar\?"),
    ],
)
def test_what_is_not_there_is_an_error(data_set, arguments, message):
    with pytest.raises(ConfigError, match=message):
        list(iter_shard_samples(data_set, **arguments))


def test_negative_mask_set_is_an_error(unmasked):
    with pytest.raises(ConfigError, match="--mask-set is -1; it must be at least 0"):
        list(iter_shard_samples(unmasked, mask_set=-1))


def test_no_samples_is_an_error(data_set):
    with pytest.raises(ShardError, match="has no other samples"):
        list(iter_shard_samples(data_set, split="other"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--document", "x"],
        ["--input", "x"],
        ["--full"],
        ["--document", "x", "--input", "y", "--sample", "1"],
        ["--document", "x", "--input", "y", "--mask-set", "1"],
        ["--sample", "-1"],
    ],
)
def test_options_that_do_not_go_together_are_usage_errors(data_set, arguments):
    assert inspect(data_set.folder, *arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shard", "train-00000-of-00003.tar", "--split", "eval"], "is not of --split eval; leave out --split"),
        (["--sample", 3, "--num-samples", 5], "--sample shows one sample; leave out --num-samples"),
    ],
)
def test_options_that_contradict_each_other_are_usage_errors(data_set, arguments, message):
    result = inspect(data_set.folder, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
