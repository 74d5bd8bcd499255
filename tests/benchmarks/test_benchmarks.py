"""That the benchmarks run; how fast things are is not a test's business."""

import re

import pytest
from click.testing import CliRunner

from tests.benchmarks.build import main


@pytest.mark.slow
def test_build_benchmark_prints_its_tables():
    result = CliRunner().invoke(main, ["--megabytes", "0.3", "--peer-megabytes", "0.05", "--runs", "1"])
    assert result.exit_code == 0, result.output
    for language in ("english", "korean", "chinese"):
        assert re.search(
            rf"^{language}, 0 MB, [\d,]+ words +[\d.]+ +tokenizers encode_batch +[\d.]+", result.output, re.M
        )
        assert re.search(rf"^{language}, L = 512, text to shards +[\d.]+ +the whole +[\d.]+", result.output, re.M)
    assert result.output.count("peak memory of building a shard") == 3
