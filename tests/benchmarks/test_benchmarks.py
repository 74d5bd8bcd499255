"""That the benchmarks run; how fast things are is not a test's business."""

import re

import pytest
from click.testing import CliRunner

from tests.benchmarks import build, read, verify


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
