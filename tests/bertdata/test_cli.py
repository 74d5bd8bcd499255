import json
import re

import pytest
from click.testing import CliRunner

from bertdata import read_samples
from bertdata.build import build_serially
from bertdata.cli import main
from bertdata.data_set import open_data_set
from bertdata.wordpiece import load_tokenizer
from pipelines import supervise

COMMANDS = {
    "build": [
        "--input", "--out", "--format", "--document-per", "--sentence-per-line", "--text-field", "--language",
        "--tokenizer", "--vocab-size", "--lowercase", "--cased", "--strip-accents", "--keep-accents",
        "--min-document-chars", "--max-document-bytes", "--keep-duplicates", "--max-seq-length", "--short-seq-prob",
        "--next-sentence", "--dupe-factor", "--num-mask-sets", "--masked-lm-prob", "--max-predictions-per-seq",
        "--whole-word-mask", "--eval-fraction", "--shard-size", "--num-shards", "--block-size", "--seed",
        "--filter", "--max-rejects", "--skip-bad-splits", "--exclude-documents", "--keep-work", "--overwrite", "--dry-run", "--json",
        "--runner", "--num-workers",
    ],
    "vocab": ["--input", "--out", "--vocab-size", "--lowercase"],
    "download": ["--wiki", "--out", "--date", "--mirror", "--contact"],
    "inspect": [
        "--num-samples", "--split", "--shard", "--sample", "--mask-set", "--document", "--input", "--full", "--json",
    ],
    "merge": ["--out", "--allow-overlap"],
    "export": ["--out", "--mask-set", "--split", "--overwrite", "--num-workers"],
}  # fmt: skip


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_every_option_with_a_sentence(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Example: bertdata" in result.output
    options = [param for param in main.commands[command].params if param.param_type_name == "option"]
    assert all(option.help and option.help.strip().endswith((".", "]")) for option in options)
    offered = {name for option in options for name in (*option.opts, *option.secondary_opts)}
    assert offered >= set(COMMANDS[command])
    assert all(name in result.output for name in offered)
    if command == "build":
        assert offered == set(COMMANDS[command]), "the design's list and the command differ"


def test_main_help_lists_the_commands():
    result = run("--help")
    assert all(command in result.output for command in COMMANDS)


def test_misspelt_option_gets_the_nearest():
    result = run("build", "--input", "x", "--out", "y", "--max-seq-lenght", "128")
    assert result.exit_code == 2
    assert "--max-seq-length" in result.output


def test_misspelt_format_gets_the_nearest():
    result = run("build", "--input", "x", "--out", "y", "--format", "parket")
    assert result.exit_code == 2
    assert "did you mean parquet?" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-seq-length", "4"], "--max-seq-length is 4; it must be between 8 and 65,535"),
        (["--max-seq-length", "128,128"], "names a length twice"),
        (["--short-seq-prob", "2"], "--short-seq-prob is 2.0; it must be between 0 and 1"),
        (["--masked-lm-prob", "0"], "--masked-lm-prob is 0.0"),
        (["--language", "english"], "--language is 'english'; it must be a language code such as en"),
        (["--text-field", ""], "--text-field is empty"),
        (["--dupe-factor", "0"], "--dupe-factor is 0; it must be between 1 and 65,535"),
        (["--num-mask-sets", "256"], "--num-mask-sets is 256"),
        (["--max-predictions-per-seq", "0"], "--max-predictions-per-seq is 0"),
        (["--num-shards", "0"], "--num-shards is 0"),
        (["--block-size", "0"], "--block-size is 0"),
        (["--eval-fraction", "1"], "--eval-fraction is 1.0"),
        (["--vocab-size", "3"], "--vocab-size is 3; it must be at least 16"),
        (["--seed", "-1"], "--seed is -1"),
        (["--max-rejects", "-1"], "--max-rejects is -1; it must be at least 0"),
        ([], "no such file"),
    ],
)
def test_bad_values_say_what_is_allowed(tmp_path, arguments, message):
    result = run("build", "--input", tmp_path / "absent.xml", "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", ["none", "0", "-1", "1.5"])
def test_bad_numbers_of_workers_are_usage_errors(tmp_path, number):
    result = run("build", "--input", "x", "--out", tmp_path / "out", "--num-workers", number)
    assert result.exit_code == 2
    assert "neither a number from 1 on nor all" in " ".join(result.output.split())


@pytest.mark.parametrize("size", ["12 parsecs", "MiB", ""])
def test_bad_sizes_are_usage_errors(tmp_path, size):
    result = run("build", "--input", "x", "--out", tmp_path / "out", "--shard-size", size)
    assert result.exit_code == 2
    assert "write 1000, 64MiB or 1GB" in result.output


def test_build_inspect_and_build_again(tmp_path, jsonl_file, tokenizer_file):
    out = tmp_path / "shards"
    arguments = ["build", "--input", jsonl_file, "--out", out, "--tokenizer", tokenizer_file, "--num-workers", 1]
    arguments += ["--max-seq-length", "32,64", "--shard-size", "64KB", "--dupe-factor", 1]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "pairs (max_seq_length 32)" in result.stdout
    assert "pairs (max_seq_length 64)" in result.stdout
    assert "IsNext share" in result.stdout
    again = run(*arguments)
    assert again.exit_code == 0
    assert "nothing to do" in again.stderr
    assert result.stdout.startswith(again.stdout)
    assert "shards built " in result.stdout.removeprefix(again.stdout)
    assert "MiB of the launcher" in result.stdout
    shown = run("inspect", out / "64", "--num-samples", 2)
    assert shown.exit_code == 0
    assert shown.stdout.count("[CLS]") == 2
    refused = run("inspect", out)
    assert refused.exit_code == 1
    assert "name one of them" in refused.stderr


def test_build_with_documents_excluded_goes_on_from_a_kept_work_folder(
    tmp_path, jsonl_file, tokenizer_file, monkeypatch
):
    monkeypatch.setattr(supervise, "run_supervised", lambda work, **_: build_serially(work))
    out, keys = tmp_path / "shards", tmp_path / "keys.txt"
    arguments = ["build", "--input", jsonl_file, "--out", out, "--tokenizer", tokenizer_file, "--num-workers", 1]
    assert run(*arguments, "--num-shards", 3, "--keep-work").exit_code == 0
    key = next(read_samples(out)).document_keys[0]
    keys.write_text(f"{key:016x}\n{0:032x}  # not there\n")
    result = run(*arguments, "--num-shards", 3, "--exclude-documents", keys)
    assert result.exit_code == 0, result.output
    assert "builds 2 of 4 shards again" in result.stderr
    assert "1 of 2 document keys in --exclude-documents belong to no document: 0000000000000000." in result.stderr
    assert re.search(r"^  excluded, dropped +1$", result.stdout, re.MULTILINE)
    keys.write_text("7a\n")
    refused = run(*arguments, "--exclude-documents", keys)
    assert refused.exit_code == 1
    assert "keys.txt, line 1: '7a' is no document key" in refused.stderr


def test_input_takes_many_paths(tmp_path, tokenizer_file):
    """A shell turns `--input *.txt` into several words."""
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(
            "\n\n".join(f"The town {name} {n}. A river. A bridge." for n in range(20))
        )
    paths = [tmp_path / f"{name}.txt" for name in "abc"]
    out = tmp_path / "out"
    result = run("build", "--input", *paths[:2], "--input", paths[2], "--tokenizer", tokenizer_file, "--out", out)
    assert result.exit_code == 0, result.output
    assert open_data_set(out).manifest.counts["documents"] == 60


@pytest.mark.parametrize("command", ["build", "vocab"])
def test_stray_words_are_usage_errors(tmp_path, command):
    result = run(command, "--input", "x", "--out", tmp_path / "out", "stray")
    assert result.exit_code == 2
    assert "stray" in result.output


def test_misspelt_beam_option_is_a_usage_error(tmp_path, jsonl_file):
    result = run("build", "--input", jsonl_file, "--out", tmp_path / "out", "--", "--direct_num_worker=2")
    assert result.exit_code == 2
    assert "did you mean --direct_num_workers?" in result.output
    assert not (tmp_path / "out").exists()


def test_misspelt_runner_is_a_usage_error(tmp_path):
    result = run("build", "--input", "x", "--out", tmp_path / "out", "--runner", "Dataflw")
    assert result.exit_code == 2
    assert "DataflowRunner" in result.output


def test_allowing_bad_records_continues_the_build(tmp_path, tokenizer_file):
    path, out = tmp_path / "bad.jsonl", tmp_path / "out"
    path.write_text('{"text": "A town. A river. A bridge."}\n{broken\n')
    arguments = ["build", "--input", path, "--out", out, "--tokenizer", tokenizer_file, "--num-workers", 1]
    refused = run(*arguments)
    assert refused.exit_code == 1
    assert "1 bad records, 0 allowed" in refused.stderr
    assert json.loads((out / "rejects.jsonl").read_text())["reason"] == "bad_json"
    assert run(*arguments, "--max-rejects", 1).exit_code == 0


def test_option_that_an_error_asks_to_change_can_be_changed(tmp_path, jsonl_file, tokenizer_file):
    arguments = ["build", "--input", jsonl_file, "--out", tmp_path, "--tokenizer", tokenizer_file, "--num-workers", 1]
    assert "only 270 documents" in run(*arguments, "--num-shards", 400).stderr
    assert run(*arguments, "--num-shards", 2).exit_code == 0


def test_empty_input_is_an_error(tmp_path):
    (tmp_path / "empty.txt").write_text("")
    result = run("build", "--input", tmp_path / "empty.txt", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "all input files are empty" in result.stderr
    assert not (tmp_path / "out").exists()


def test_output_within_the_input_folder(tmp_path, jsonl_file, tokenizer_file):
    (tmp_path / "corpus.jsonl").write_bytes(jsonl_file.read_bytes())
    arguments = ["build", "--input", tmp_path, "--out", tmp_path / "shards", "--tokenizer", tokenizer_file]
    for _ in range(2):
        result = run(*arguments, "--num-workers", 1)
        assert result.exit_code == 0, result.output
    assert "nothing to do" in result.stderr


def test_vocab_writes_a_tokenizer(tmp_path, jsonl_file):
    path = tmp_path / "new" / "tokenizer.json"
    result = run("vocab", "--input", jsonl_file, "--out", path, "--vocab-size", 200)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"200 entries in {path}\n"
    assert load_tokenizer(path).get_vocab_size() == 200
    assert json.loads(path.with_name("tokenizer_config.json").read_text())["cls_token"] == "[CLS]"


def test_warning_about_short_documents(tmp_path, tokenizer_file):
    path = tmp_path / "short.txt"
    path.write_text("\n\n".join(f"The town {word}. A river {word}." for word in ("walks", "sells", "keeps", "mends")))
    result = run("build", "--input", path, "--out", tmp_path / "out", "--tokenizer", tokenizer_file, "--num-workers", 1)
    assert result.exit_code == 0, result.output
    assert "more than half of the documents have under three sentences" in result.stderr
    assert "too few documents to hold some out" in result.stderr


@pytest.mark.parametrize("command", ["vocab", "inspect", "report"])
def test_only_build_has_options_for_beam(tmp_path, command):
    result = run(command, *[tmp_path] * (command != "vocab"), "--input", "x", "--", "--streaming")
    assert result.exit_code == 2
    assert '--streaming stands after "--", where bertdata build has options for Beam' in " ".join(result.output.split())
