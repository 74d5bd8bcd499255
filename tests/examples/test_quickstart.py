"""The quickstart as a user runs it, with three seeds: the tiny model must visibly learn."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import bertdata
from trainer.metrics import load_metrics
from trainer.predict_cli import main as predict

FOLLOWS = {"It was sleeping.": True, "Paris is beautiful.": False}
QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a finished quickstart, and what it printed."""
    out = tmp_path_factory.mktemp("quickstart") / "quickstart"
    result = subprocess.run(
        [sys.executable, QUICKSTART / "run.py", "--out", out], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return out, result.stdout


def assert_learned(run):
    (*_, last) = [row for row in load_metrics(run / "metrics.jsonl") if row["kind"] == "eval"]
    assert last["num_samples"] >= 500
    assert last["nsp_accuracy"] > 0.7
    assert last["mlm_accuracy"] > 1.5 * last["mlm_baseline"]
    after = {text_b: ask(run, "The cat sat on the mat.", text_b)["next_sentence"] for text_b in FOLLOWS}
    assert {text_b: shares["IsNext"] > shares["NotNext"] for text_b, shares in after.items()} == FOLLOWS
    (words,) = ask(run, "How are [MASK] doing?")["masks"]
    assert words[0]["word"] == "you"


def ask(run, *texts):
    result = CliRunner().invoke(predict, [str(run), *texts, "--json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.slow
def test_quickstart_learns_and_shows_it(folder):
    out, text = folder
    assert_learned(out / "run")
    counts = bertdata.open_data_set(out / "shards").manifest.counts
    assert counts["eval_documents"] >= 50
    for word in (
        "documents",
        "sentences",
        "pairs",
        "shards",
        "IsNext share",
        "total loss (MLM + NSP)",
        "$ bert-predict",
    ):
        assert word in text
    table = text.split("What was learned")[1].split("For comparison")[0]
    epochs = [line.split() for line in table.splitlines() if line[:5].strip().isdigit()]
    assert [int(row[0]) for row in epochs] == [1, 2, 3, 4, 5]
    assert all(len(row) == 6 for row in epochs)
    assert float(epochs[-1][1]) < float(epochs[0][1])
    assert (out / "run" / "hf" / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_other_seeds_learn_too(folder, tmp_path, seed):
    out, _ = folder
    command = [sys.executable, "-m", "trainer", "--shards", out / "shards", "--out", tmp_path / "run"]
    command += [
        "--model",
        "tiny",
        "--epochs",
        "5",
        "--batch-size",
        "32",
        "--learning-rate",
        "0.0015",
        "--seed",
        str(seed),
    ]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    assert_learned(tmp_path / "run")


# Seeds, and options beside those that all have: few rows, so that it does not take long.
FINE_TUNING = {
    "sentences": (3, "accuracy", ["--epochs", "3"]),
    "pairs": (2, "accuracy", ["--epochs", "3"]),
    "tokens": (2, "F1", ["--epochs", "3"]),
    "questions": (2, "F1", ["--epochs", "4"]),
}


@pytest.fixture(scope="module")
def labelled(scripts, tmp_path_factory):
    out = tmp_path_factory.mktemp("labelled")
    rows = {"sentences": 240, "pairs": 320, "tokens": 320, "questions": 600}
    scripts["make_data"].write_data(out, num_training=rows, num_test=120)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("name", FINE_TUNING)
def test_fine_tuning_begins_better_with_what_was_learned_than_at_random(folder, scripts, labelled, tmp_path, name):
    num_seeds, metric, more = FINE_TUNING[name]
    train, test = sorted(labelled.glob(f"{name}/*"), reverse=True)
    options = {"--model": folder[0] / "run" / "hf", "--train": train, "--test": test, "--out": tmp_path}
    options |= {"--learning-rate": 1e-3, "--batch-size": 16, "--max-seq-length": 64, "--compare": num_seeds}
    arguments = [str(word) for option in options.items() for word in option]
    scripts[name].main.main([*arguments, *more], standalone_mode=False)
    scores = json.loads((tmp_path / "comparison.json").read_text())
    learned, random = ([row[metric] for row in rows] for rows in scores.values())
    assert len(learned) == len(random) == num_seeds
    assert min(learned) > max(random) + 0.05
