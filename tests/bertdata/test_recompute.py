import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import bertdata
from bertdata.cli import main
from bertdata.errors import ConfigError, ShardError
from bertdata.merging import merge_data_sets, open_sources
from bertdata.recompute import describe_comparison, recompute
from bertdata.statistics import SAMPLE_COUNTS, STATISTICS, Statistics
from tests.bertdata.report_builds import MODES, build_all_modes, options_for
from tests.bertdata.small_builds import build, write_jsonl

DOCUMENT_COUNTS = [field.name for field in dataclasses.fields(Statistics) if field.name not in SAMPLE_COUNTS]


@pytest.fixture(scope="module")
def builds(tmp_path_factory, small_options):
    return build_all_modes(tmp_path_factory.mktemp("modes"), small_options)


@pytest.fixture
def copy(builds, tmp_path):
    """A data set of the google mode that a test may write to, and what it was built from."""
    folders, inputs = builds
    shutil.copytree(folders["google"], tmp_path / "shards")
    return tmp_path / "shards", [str(path) for path in inputs]


def change_statistics(folder, name):
    path = folder / STATISTICS
    values = json.loads(path.read_bytes())
    values[name]["counts"][-1] += 1
    path.write_text(json.dumps(values))


def change_count(folder, name):
    path = folder / "manifest.json"
    values = json.loads(path.read_bytes())
    values["counts"][name] = values["counts"].get(name, 0) + 1
    path.write_text(json.dumps(values))


def names_of_differing(folder, *inputs):
    return set(recompute(bertdata.open_data_set(folder), inputs=inputs).differing)


@pytest.mark.parametrize("mode", MODES)
def test_all_numbers_agree_with_the_data(builds, mode):
    folders, inputs = builds
    data_set = bertdata.open_data_set(folders[mode])
    comparison = recompute(data_set, inputs=[str(path) for path in inputs])
    assert comparison.differing == {}
    assert comparison.is_same_input
    assert comparison.left_out == []
    alone = recompute(data_set, inputs=[])
    assert alone.differing == {}
    assert sorted(alone.agreeing + alone.left_out) == sorted(comparison.agreeing)
    assert all(name.startswith("input.") for name in alone.left_out)
    assert {"shards.samples", "shards.text_tokens", "shards.padding_share"} <= set(alone.agreeing)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("sample_lengths", "shards.sample_lengths.histogram"),
        ("segment_lengths", "shards.a_lengths"),
        ("token_counts", "shards.text_tokens"),
        ("shown", "shards.predictions"),
        ("predictions_by_candidates", "shards.expected_places"),
        ("prediction_places", "shards.prediction_places"),
    ],
)
def test_wrong_statistics_of_samples_are_found_in_the_shards(copy, name, number):
    folder, _ = copy
    change_statistics(folder, name)
    assert number in names_of_differing(folder)


def test_each_statistic_of_samples_is_among_those_that_are_changed():
    assert set(SAMPLE_COUNTS) == {
        *("sample_lengths", "segment_lengths", "token_counts", "shown", "predictions_by_candidates"),
        "prediction_places",
    }


@pytest.mark.parametrize("name", DOCUMENT_COUNTS)
def test_wrong_statistics_of_documents_are_found_with_the_input(copy, name):
    folder, inputs = copy
    change_statistics(folder, name)
    assert names_of_differing(folder) == set()
    assert f"input.{name}.histogram" in names_of_differing(folder, *inputs)


@pytest.mark.parametrize(("name", "number"), [("samples", "shards.samples"), ("not_next", "shards.label_1")])
def test_wrong_counts_of_samples_are_found_in_the_shards(copy, name, number):
    folder, _ = copy
    change_count(folder, name)
    assert number in names_of_differing(folder)


def test_every_wrong_count_is_found_with_the_input(copy):
    folder, inputs = copy
    counts = bertdata.open_data_set(folder).manifest.counts
    for name in [*counts, "too_short"]:
        change_count(folder, name)
    assert {f"input.counts.{name}" for name in [*counts, "too_short"]} <= names_of_differing(folder, *inputs)


def test_a_damaged_shard_is_an_error(copy):
    folder, _ = copy
    path = folder / bertdata.open_data_set(folder).manifest.shards[0].name
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardError, match="see bertdata verify"):
        recompute(bertdata.open_data_set(folder), inputs=[])


def test_merged_data_set_has_shards_but_no_one_input(builds, small_options, tmp_path):
    other = write_jsonl(tmp_path / "other.jsonl", [f"The town {n}. A river." for n in range(200)])
    options = options_for("google", small_options)
    folders = [builds[0]["google"], build(tmp_path / "other", other, options=options)]
    merge_data_sets(open_sources(folders, out=tmp_path / "merged"), out=tmp_path / "merged")
    data_set = bertdata.open_data_set(tmp_path / "merged")
    assert recompute(data_set, inputs=[]).differing == {}
    with pytest.raises(ConfigError, match="is merged from .*; leave out --input"):
        recompute(data_set, inputs=[str(other)])


def test_other_files_are_refused(copy, tmp_path):
    folder, inputs = copy
    other = write_jsonl(tmp_path / "other.jsonl", [f"The town {n}. A river." for n in range(200)])
    with pytest.raises(ConfigError, match=r"records\.jsonl of .* bytes is not in --input"):
        recompute(bertdata.open_data_set(folder), inputs=[str(other)])
    with pytest.raises(ConfigError, match=r"other\.jsonl of .* bytes is not what it was built from"):
        recompute(bertdata.open_data_set(folder), inputs=[*inputs, str(other)])


def test_changed_input_is_told(copy, tmp_path):
    """Files of the same names and sizes, in which a third of the documents say something else."""
    folder, inputs = copy
    changed = tmp_path / "changed"
    changed.mkdir()
    for path in map(Path, inputs):
        (changed / path.name).write_text(path.read_text().replace("the river", "the rover"))
    comparison = recompute(bertdata.open_data_set(folder), inputs=[str(changed)])
    assert comparison.is_same_input is False
    assert comparison.differing
    assert any("the input gives other shards than these" in line for line in describe_comparison(comparison))


def test_command_names_what_differs_and_ends_with_1(copy):
    folder, inputs = copy
    result = CliRunner().invoke(main, ["report", str(folder), "--recompute"])
    assert result.exit_code == 0
    assert "numbers agree with the data" in result.stdout
    assert "they can only be counted from what a data set was built from, by --input" in result.stdout
    change_count(folder, "duplicates")
    change_statistics(folder, "shown")
    result = CliRunner().invoke(main, ["report", str(folder), "--recompute", "--num-workers", "1", "--input", *inputs])
    assert result.exit_code == 1
    assert "input.documents_dropped.duplicates: 3 stored, 2 counted" in result.stdout
    assert "numbers are not what the data says" in result.stdout
    assert "only be counted" not in result.stdout


def test_options_that_do_not_go_together_are_usage_errors(copy):
    folder, inputs = copy
    result = CliRunner().invoke(main, ["report", str(folder)])
    assert result.exit_code == 2
    assert "give --out for the report, or --recompute, or both" in result.stderr
    result = CliRunner().invoke(main, ["report", str(folder), "--out", "x.html", "--input", *inputs])
    assert result.exit_code == 2
    assert "--input is for --recompute" in result.stderr
