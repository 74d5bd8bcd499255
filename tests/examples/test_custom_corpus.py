import csv
import subprocess
import sys
from pathlib import Path

import pytest

import bertdata
from bertdata.wordpiece import load_tokenizer
from tests.corpus import iter_texts

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_corpus"


@pytest.fixture(scope="module")
def reviews(tmp_path_factory) -> Path:
    """200 reviews with a footer each, and 10 tables of numbers."""
    path = tmp_path_factory.mktemp("reviews") / "reviews.csv"
    texts = [f"{text}\nWas this review helpful to you?" for text in iter_texts(200)]
    texts += [f"{number} | 12.50 | 99 ; " * 20 for number in range(10)]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["body", "language"])
        writer.writeheader()
        writer.writerows({"body": text, "language": "en"} for text in texts)
    return path


@pytest.mark.parametrize("num_workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_custom_corpus_is_built_by_the_command_in_the_folder_of_the_module(tmp_path, reviews, num_workers):
    command = [sys.executable, "-m", "bertdata", "build", "--input", reviews, "--out", tmp_path / "shards"]
    command += ["--format", "my_corpus:read_csv", "--filter", "my_corpus:keep_prose", "--num-workers", num_workers]
    repository = str(EXAMPLE.parents[1])
    subprocess.run(
        [*map(str, command)], cwd=EXAMPLE, check=True, env={"PYTHONPATH": repository, "PATH": "/usr/bin:/bin"}
    )
    manifest = bertdata.open_data_set(tmp_path / "shards").manifest
    assert manifest.counts["records"] == 210
    assert manifest.counts["filtered_few_letters"] == 10
    assert manifest.counts["documents"] == 200
    assert manifest.languages == {"en": 200}
    vocabulary = load_tokenizer(tmp_path / "shards" / "tokenizer.json").get_vocab()
    assert "river" in vocabulary
    assert "helpful" not in vocabulary
