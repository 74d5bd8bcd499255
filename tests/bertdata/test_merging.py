"""A merged data set is the union of its sources, wherever all of them move together."""

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import bertdata
from bertdata.cli import main
from bertdata.data_set import open_data_set
from bertdata.errors import ConfigError, OutputError, ShardError
from bertdata.files import file_sha256
from bertdata.merging import merge_data_sets, open_sources
from bertdata.overlap import find_overlap, overlap_rows
from tests.bertdata.small_builds import build, samples_of, write_jsonl
from tests.corpus import iter_texts
from trainer.cli import main as train_main
from trainer.data import TrainingData
from trainer.loader import Loader

TEXTS = list(iter_texts(300))
SOURCES = ("a", "b", "c")


@pytest.fixture(scope="module")
def options(small_options):
    return dataclasses.replace(small_options, shards=dataclasses.replace(small_options.shards, num_shards=1))


@pytest.fixture(scope="module")
def sources(tmp_path_factory, options):
    """Three data sets: a and b share 30 documents, c holds nothing out and shares 80 with b."""
    folder = tmp_path_factory.mktemp("sources")
    nothing_held_out = dataclasses.replace(options.shards, eval_fraction=0)
    for name, texts, shards in (
        ("a", TEXTS[:130], dataclasses.replace(options.shards, num_shards=2, block_size=37)),
        ("b", TEXTS[100:230], options.shards),
        ("c", TEXTS[150:], nothing_held_out),
    ):
        path = write_jsonl(folder / f"{name}.jsonl", texts)
        build(folder / name, path, options=dataclasses.replace(options, shards=shards))
    return folder


@pytest.fixture
def folder(sources, tmp_path):
    """A copy of the sources that a test may change."""
    return shutil.copytree(sources, tmp_path / "data")


def merge(*folders: Path, out: Path):
    return merge_data_sets(open_sources(folders, out=out), out=out)


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def edit_manifest(folder, change):
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def multiset(samples):
    return Counter(map(repr, samples))


def test_merged_samples_are_those_of_the_sources_in_order(folder):
    merged = merge(folder / "a", folder / "b", folder / "c", out=folder / "merged")
    for split in ("train", "eval"):
        wanted = [sample for name in SOURCES for sample in bertdata.read_samples(folder / name, split=split)]
        assert list(bertdata.read_samples(folder / "merged", split=split)) == wanted
    assert [shard.split for shard in merged.manifest.shards] == ["train"] * 4 + ["eval"] * 2
    assert merged.manifest.shards[0].name == "../a/train-00000-of-00002.tar"
    assert sorted(path.name for path in (folder / "merged").iterdir()) == [
        "index.arrow", "manifest.json", "statistics.json", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


def test_merged_manifest_sums_and_names_its_sources(folder):
    merged = merge(folder / "a", folder / "b", out=folder / "merged")
    parts = [open_data_set(folder / name) for name in "ab"]
    manifest = merged.manifest
    assert Counter(manifest.counts) == sum((Counter(part.manifest.counts) for part in parts), Counter())
    assert Counter(manifest.languages) == sum((Counter(part.manifest.languages) for part in parts), Counter())
    assert manifest.inputs == [facts for part in parts for facts in part.manifest.inputs]
    assert [origin.path for origin in manifest.merged_from] == ["../a", "../b"]
    for origin, part in zip(manifest.merged_from, parts, strict=True):
        for name in ("build", "fingerprint", "options", "versions", "inputs"):
            assert getattr(origin, name) == getattr(part.manifest, name)
    found = merged.load_statistics()
    wanted = parts[0].load_statistics() + parts[1].load_statistics()
    for field in dataclasses.fields(wanted):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(wanted, field.name))


def test_merge_of_merges_names_the_first_sources(folder):
    merge(folder / "a", folder / "b", out=folder / "deep" / "er" / "ab")
    merged = merge(folder / "c", folder / "deep" / "er" / "ab", out=folder / "all")
    shutil.rmtree(folder / "deep")
    assert [origin.path for origin in merged.manifest.merged_from] == ["../c", "../a", "../b"]
    assert multiset(samples_of(folder / "all")) == multiset(
        sample for name in SOURCES for sample in samples_of(folder / name)
    )


def test_merged_set_moves_with_its_sources_and_not_without(folder, tmp_path):
    before = merge(folder / "a", folder / "b", out=folder / "merged").manifest.fingerprint
    moved = folder.rename(tmp_path / "elsewhere")
    assert open_data_set(moved / "merged").manifest.fingerprint == before
    alone = (moved / "merged").rename(tmp_path / "merged")
    with pytest.raises(
        ShardError, match=r"a/train-00000-of-00002\.tar is missing; .* merged from \.\./a, \.\./b, which"
    ):
        open_data_set(alone)
    again = merge(moved / "a", moved / "b", out=alone)  # the same merge, seen from elsewhere
    assert again.manifest.fingerprint == before
    assert again.manifest.shards[0].name == "../elsewhere/a/train-00000-of-00002.tar"


def test_paths_lead_through_links(folder, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path / "deep" / "er")
    merge(folder / "a", folder / "b", out=folder / "link" / "merged")
    for path in (folder / "link" / "merged", tmp_path / "deep" / "er" / "merged"):
        assert len(samples_of(path)) == len(samples_of(folder / "a")) + len(samples_of(folder / "b"))


def test_source_that_was_built_anew_is_found(folder):
    merge(folder / "a", folder / "b", out=folder / "merged")
    with (folder / "b" / "train-00000-of-00001.tar").open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(ShardError, match=r"b/train-00000-of-00001\.tar has .* bytes, not .*as they were"):
        open_data_set(folder / "merged")


def test_same_merge_again_writes_the_same(folder):
    for _ in range(2):
        merge(folder / "a", folder / "b", out=folder / "merged")
        files = {path.name: path.read_bytes() for path in (folder / "merged").iterdir()}
    (folder / "merged" / "manifest.json").unlink()  # as after an interruption
    merge(folder / "a", folder / "b", out=folder / "merged")
    assert {path.name: path.read_bytes() for path in (folder / "merged").iterdir()} == files


def keys_of(folder, *splits):
    samples = (sample for split in splits for sample in bertdata.read_samples(folder, split=split))
    return {key for sample in samples for key in sample.document_keys}


def test_overlap_is_what_the_samples_say(sources):
    data_sets = [open_data_set(sources / name) for name in SOURCES]
    overlap = find_overlap(data_sets)
    splits = {"train": [keys_of(sources / name, "train") for name in "abc"]}
    splits["eval"] = [keys_of(sources / name, "eval") for name in "ab"]
    train, held_out = (set().union(*splits[split]) for split in ("train", "eval"))
    of_each = [keys_of(sources / name, "train", "eval") for name in "ab"] + [splits["train"][2]]
    everywhere = Counter(key for keys in of_each for key in keys)
    assert overlap.num_documents == len(everywhere) > 250
    assert overlap.shared.tolist() == sorted(key for key, count in everywhere.items() if count > 1)
    assert 100 < len(overlap.shared) <= 110
    assert overlap.leaked.tolist() == sorted(train & held_out)
    assert len(overlap.leaked) > 0
    key = overlap.leaked[0]
    assert overlap.describe(overlap.leaked).startswith(
        f"{key:016x} (eval in {sources / 'b'}, train in {sources / 'c'})"
    )
    rows = dict(overlap_rows(overlap))
    assert rows["in several"].startswith(f"{len(overlap.shared):,} of {len(everywhere)} (")


def test_data_sets_without_common_documents_have_no_overlap(sources):
    overlap = find_overlap([open_data_set(sources / name) for name in "ac"])
    assert len(overlap.shared) == len(overlap.leaked) == 0
    assert [value for name, value in overlap_rows(overlap) if "example" in name] == []


def test_command_refuses_evaluation_on_text_that_is_trained_on(folder):
    arguments = ("merge", folder / "b", folder / "c", "--out", folder / "merged")
    refused = run(*arguments)
    assert refused.exit_code == 1
    assert "in several" in refused.stdout
    assert "would be on text that was trained on; build one data set from all the input, or give" in refused.stderr
    assert not (folder / "merged").exists()
    allowed = run(*arguments, "--allow-overlap")
    assert allowed.exit_code == 0, allowed.output
    assert "reading document keys" in allowed.stderr
    num_samples = len(samples_of(folder / "b")) + len(samples_of(folder / "c"))
    assert open_data_set(folder / "merged").index.num_samples.sum() == num_samples


def test_merged_set_without_overlap_verifies(folder):
    assert run("merge", folder / "a", folder / "c", "--out", folder / "merged").exit_code == 0
    result = run("verify", folder / "merged", "--num-workers", 1)
    assert result.exit_code == 0, result.output
    assert "nothing is wrong" in result.stdout


def with_length(values):
    values["options"]["pairs"]["max_seq_length"] = 128
    values["options"]["max_seq_lengths"] = [128]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_length, "--max-seq-length is 128 in .*b and 64 in"),
        (lambda values: values["options"]["pairs"].update(next_sentence="sop"), "--next-sentence is sop"),
        (lambda values: values["options"]["pairs"].update(short_seq_prob=0.2), "--short-seq-prob is 0.2"),
        (lambda values: values["options"]["pairs"].update(dupe_factor=1), "--dupe-factor is 1"),
        (lambda values: values["options"]["masks"].update(num_mask_sets=3), "--num-mask-sets is 3 in .*b and 2 in .*a;"),
        (lambda values: values["options"]["masks"].update(whole_word_mask=True), "--whole-word-mask is True"),
        (lambda values: values["options"].update(seed=1), "--seed is 1"),
    ],
)  # fmt: skip
def test_sources_must_be_alike(folder, change, message):
    edit_manifest(folder / "b", change)
    with pytest.raises(ConfigError, match=message):
        open_sources([folder / "a", folder / "b"], out=folder / "merged")


def test_sources_must_have_the_same_tokenizer(folder):
    path = folder / "b" / "tokenizer.json"
    path.write_text(path.read_text() + " ")
    sha256 = file_sha256(path)
    edit_manifest(folder / "b", lambda values: values["tokenizer"].update(sha256=sha256))
    with pytest.raises(ConfigError, match=rf"the tokenizer \(SHA-256\) is {sha256[:12]} in"):
        open_sources([folder / "a", folder / "b"], out=folder / "merged")


def test_other_versions_are_a_warning_and_kept(folder):
    edit_manifest(folder / "b", lambda values: values["versions"].update(tokenizers="0.1"))
    result = run("merge", folder / "a", folder / "b", "--out", folder / "merged", "--allow-overlap")
    assert result.exit_code == 0, result.output
    assert "were built with other versions: tokenizers " in result.stderr
    versions = [open_data_set(folder / name).manifest.versions["tokenizers"] for name in ("a", "merged")]
    assert versions[1] == f"0.1, {versions[0]}"


def test_kept_copies_of_one_source_are_told(folder):
    """They lie out of their key range, which is no fault then."""
    edit_manifest(folder / "b", lambda values: values["options"]["shards"].update(keep_duplicates=True))
    manifest = merge(folder / "a", folder / "b", out=folder / "merged").manifest
    assert manifest.options["shards"] == open_data_set(folder / "a").manifest.options["shards"] | {
        "keep_duplicates": True
    }


def test_nothing_is_merged_twice(folder):
    out = folder / "merged"
    with pytest.raises(ConfigError, match="1 data set to merge; name at least two"):
        open_sources([folder / "a"], out=out)
    with pytest.raises(ConfigError, match="a is named twice; name each data set once"):
        open_sources([folder / "a", folder / "b", folder / "b" / ".." / "a"], out=out)
    shutil.copytree(folder / "a", folder / "copy")
    with pytest.raises(ConfigError, match=r"copy/.*\.tar and .*a/.*\.tar are the same shard"):
        open_sources([folder / "a", folder / "copy"], out=out)
    merge(folder / "a", folder / "b", out=out)
    with pytest.raises(ConfigError, match="are the same shard"):
        open_sources([out, folder / "b"], out=folder / "other")


@pytest.mark.parametrize("folder_of_shard", ["../b/..", "../elsewhere", "/etc", "", "."])
def test_shards_of_other_folders_are_refused(folder, folder_of_shard):
    merge(folder / "a", folder / "b", out=folder / "merged")
    shutil.copytree(folder / "a", folder / "elsewhere")
    name = f"{folder_of_shard}/train-00000-of-00002.tar".removeprefix("/" * (folder_of_shard == ""))
    edit_manifest(folder / "merged", lambda values: values["shards"][0].update(name=name))
    with pytest.raises(ShardError, match=r"is in none of the folders \.\./a, \.\./b"):
        open_data_set(folder / "merged")


def test_shards_of_a_build_are_in_its_folder(folder):
    edit_manifest(folder / "a", lambda values: values["shards"][0].update(name="../b/train-00000-of-00001.tar"))
    with pytest.raises(ShardError, match=r"is in none of the folders \."):
        open_data_set(folder / "a")


def test_missing_shard_of_a_source_is_named(folder):
    (folder / "b" / "eval-00000-of-00001.tar").unlink()
    with pytest.raises(ShardError, match=r"b/eval-00000-of-00001\.tar is missing; copy the data set again"):
        open_sources([folder / "a", folder / "b"], out=folder / "merged")


def test_output_must_be_a_folder_of_its_own(folder):
    sources = [folder / "a", folder / "b"]
    with pytest.raises(OutputError, match="a is one of the data sets to merge"):
        open_sources(sources, out=folder / "b" / ".." / "a")
    with pytest.raises(
        OutputError, match="c holds another data set: [0-9a-f]{16}, not [0-9a-f]{16}; give another --out"
    ):
        open_sources(sources, out=folder / "c")
    (folder / "unfinished" / ".work").mkdir(parents=True)
    with pytest.raises(OutputError, match="holds a build that is not finished"):
        open_sources(sources, out=folder / "unfinished")
    (folder / "model").mkdir()
    (folder / "model" / "tokenizer.json").write_text("{}")
    with pytest.raises(OutputError, match=r"model/tokenizer\.json is not the one of"):
        merge(*sources, out=folder / "model")
    (folder / "model" / "manifest.json").write_text("{}")
    with pytest.raises(OutputError, match=r"manifest\.json cannot be read"):
        open_sources(sources, out=folder / "model")


def test_plan_shows_every_sample_of_every_source_once_an_epoch(folder):
    data = TrainingData(data_sets=(merge(folder / "a", folder / "b", out=folder / "merged"),))
    reader, plan = data.open_split("train"), data.make_plan(data.initial_state(seed=0, batch_size=1))
    loader = Loader(plan, reader, rank=0, world_size=1, cutting=data.make_cutting())
    found = Counter()
    for batches in loader.steps(0, plan.num_samples):
        (batch,) = batches.micro_batches
        tokens = batch.token_ids.clone()
        tokens[batch.mask_rows] = batch.mask_labels.int()
        found[tuple(tokens.tolist())] += 1
    assert found == Counter(tuple(sample.tokens) for name in "ab" for sample in bertdata.read_samples(folder / name))


def test_trainer_and_inspect_run_on_a_merged_set(folder, tmp_path):
    merge(folder / "a", folder / "b", out=folder / "merged")
    arguments = ["--shards", folder / "merged", "--out", tmp_path / "run", "--batch-size", 8, "--model", "tiny"]
    arguments += ["--eval-samples", 8]
    for max_steps in (2, 4):  # and goes on with it
        result = CliRunner().invoke(train_main, [str(argument) for argument in (*arguments, "--max-steps", max_steps)])
        assert result.exit_code == 0, result.stderr
    assert (tmp_path / "run" / "hf" / "tokenizer.json").exists()
    shown = run("inspect", folder / "merged", "--num-samples", 1)
    assert shown.exit_code == 0, shown.output
    assert "[CLS]" in shown.stdout
