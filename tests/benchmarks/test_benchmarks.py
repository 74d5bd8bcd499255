"""That the benchmarks run; how fast things are is not a test's business."""

import re

import click
import numpy as np
import pytest
from click.testing import CliRunner

from tests.benchmarks import build, loader, read, train, verify
from tests.benchmarks.batches import fingerprints, finish
from tests.corpus import iter_texts


@pytest.mark.slow
def test_build_benchmark_prints_its_tables():
    result = CliRunner().invoke(build.main, ["--megabytes", "0.3", "--peer-megabytes", "0.05", "--runs", "1"])
    assert result.exit_code == 0, result.output
    for language in ("english", "korean", "chinese"):
        assert re.search(
            rf"^{language}, 0 MB, [\d,]+ words +[\d.]+ +tokenizers encode_batch +[\d.]+", result.output, re.M
        )
        assert re.search(rf"^{language}, L = 512, text to shards +[\d.]+ +the whole +[\d.]+", result.output, re.M)
    assert result.output.count("peak memory of building a shard") == 3


@pytest.mark.slow
def test_read_benchmark_prints_its_tables():
    arguments = ["--megabytes", "0.3", "--peer-megabytes", "0.02", "--copies", "1", "--runs", "1"]
    result = CliRunner().invoke(read.main, arguments)
    assert result.exit_code == 0, result.output
    for what in ("bz2 to XML", "XML to wikitext", "wikitext to prose", "JSONL to documents", "Parquet to documents"):
        assert re.search(rf"^{what} +[\d.]+ +\S.* [\d.]+ +[\d.]+ x$", result.output, re.M)
    assert re.search(r"^the whole +[\d.]+", result.output, re.M)


@pytest.mark.slow
def test_verify_benchmark_prints_its_table():
    result = CliRunner().invoke(verify.main, ["--megabytes", "0.5", "--runs", "1"])
    assert result.exit_code == 0, result.output
    assert re.search(r"^counting statistics takes [\d.]+% of building shards$", result.output, re.M)
    for what in ("checksums", "all"):
        assert re.search(rf"^{what} +[\d.]+ +SHA-256 alone +[\d.]+ +[\d.]+ x$", result.output, re.M)


@pytest.mark.slow
def test_loader_benchmark_prints_its_table():
    arguments = ["--megabytes", "0.3", "--peer-samples", "1024", "--runs", "1"]
    result = CliRunner().invoke(loader.main, arguments)
    assert result.exit_code == 0, result.output
    assert len(re.findall(r"^L = \d+, K = 5: [\d,]+ samples", result.output, re.M)) == 2
    for what in ("webdataset, .ten per sample", "webdataset, blocks cut up", "in memory, end to end"):
        assert len(re.findall(rf"^{what} +[\d,]+ +[\d,]+ .* x (reached|missed)$", result.output, re.M)) == 2
    assert re.search(r"^ours +[\d,]+ +[\d,]+ +CRC-32 +200,000 (reached|missed)$", result.output, re.M)
    assert len(re.findall(r"^ours: the first batch comes after [\d.]+ s", result.output, re.M)) == 2


@pytest.mark.slow
def test_loader_benchmark_prints_stages_and_waiting():
    arguments = ["--megabytes", "0.3", "--length", "128", "--stages", "--training", "--training-steps", "3"]
    result = CliRunner().invoke(loader.main, arguments)
    assert result.exit_code == 0, result.output
    for stage in ("order", "gather and mask", "batches", "all else"):
        assert re.search(rf"^{stage} +[\d.]+ s +[\d.]+% +\d+ us per batch$", result.output, re.M)
    assert re.search(r"[\d.]+% of the time is spent waiting for data", result.output)


@pytest.mark.slow
def test_train_benchmark_prints_its_table(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(iter_texts(200)))
    arguments = ["--model", "tiny", "--precision", "fp32", "--length", "128", "--batch-size", "4", "--steps", "1"]
    result = CliRunner().invoke(train.main, [*arguments, "--threads", "1", "--input", str(text)])
    assert result.exit_code == 0, result.output
    assert re.search(
        r"^L = 128, tiny, fp32, 1 threads, 1 steps of 4 samples: \d+ tokens each, \d+% padding", result.output, re.M
    )
    assert re.search(r"^ours +[\d,]+ +[\d,]+$", result.output, re.M)
    assert re.search(r"^transformers +[\d,]+ +[\d,]+ +[\d.]+ x .* 1\.5 x (reached|missed)$", result.output, re.M)
    assert re.search(r"^transformers, attention dropout 0\.1 +[\d,]+ +[\d,]+ +[\d.]+ x", result.output, re.M)


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param([*range(256), *range(256)], id="twice"),
        pytest.param([*range(500), *range(600, 612)], id="others"),
        pytest.param(range(256), id="missing"),
    ],
)
def test_loader_benchmark_refuses_samples_that_are_not_those_of_the_data_set(numbers):
    def batches(numbers):
        for start in range(0, len(numbers), 256):
            tokens = np.repeat(np.array(numbers[start : start + 256]) + 5, 3)
            three, one = np.full(256, 3), np.ones(256, dtype=np.int64)
            yield finish(tokens, three, 2 * one, 0 * one, one, one, 0 * one)

    samples = fingerprints(batches(range(512)))
    loader.Way(epoch=lambda: batches(range(511, -1, -1)), samples=samples).check("reversed")
    with pytest.raises(click.ClickException, match="it does not deliver the samples"):
        loader.Way(epoch=lambda: batches(numbers), samples=samples).check("it")
