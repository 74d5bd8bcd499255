import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from bertdata.data_set import DataSet
from tests.trainer.test_train import ENVIRONMENT, bert_train
from trainer.cli import main
from trainer.data import TrainingData
from trainer.distributed import World
from trainer.eval_only import _load, evaluation_table
from trainer.metrics import load_metrics


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="bert-train")


def snapshot(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


@pytest.fixture(scope="module")
def run(data_set: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the session's data set, with five steps and an evaluation of all held-out samples after the last."""
    out = tmp_path_factory.mktemp("runs") / "run"
    fixed = ("--model", "tiny", "--batch-size", 16, "--max-steps", 5, "--save-every", 2)
    result = invoke("--shards", data_set.folder, "--out", out, *fixed)
    assert result.exit_code == 0, result.stderr
    return out


def test_the_newest_checkpoint_is_evaluated_as_the_run_did(data_set: DataSet, run: Path) -> None:
    before = snapshot(run)
    result = invoke("--shards", data_set.folder, "--out", run, "--eval-only")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    (row,) = [row for row in load_metrics(run / "metrics.jsonl") if row["kind"] == "eval"]
    assert found == {name: value for name, value in row.items() if name not in ("kind", "epoch")}
    assert (found["step"], found["num_samples"]) == (5, 41)
    assert "masked words" in result.stderr
    assert snapshot(run) == before


def test_options_of_training_have_no_effect(data_set: DataSet, run: Path) -> None:
    """Not even such as training would refuse."""
    arguments = ("--shards", data_set.folder, "--out", run, "--eval-only")
    wanted = json.loads(invoke(*arguments).stdout)
    for other in (("--batch-size", 1000), ("--max-steps", 1), ("--model", "base"), ("--epochs", "inf")):
        assert json.loads(invoke(*arguments, *other).stdout) == wanted
    found = json.loads(invoke(*arguments, "--micro-batch-size", 3).stdout)
    assert found == pytest.approx(wanted, rel=1e-6)
    assert json.loads(invoke(*arguments, "--eval-samples", 9).stdout)["num_samples"] == 9
    half = json.loads(invoke(*arguments, "--precision", "bf16").stdout)
    assert half["mlm_loss"] != wanted["mlm_loss"]
    assert half["mlm_loss"] == pytest.approx(wanted["mlm_loss"], rel=0.02)


def test_other_shards_of_the_same_tokenizer_are_evaluated(new_data_set: Callable[..., DataSet], run: Path) -> None:
    google = new_data_set(next_sentence="google", train_blocks=(), eval_blocks=((20,),), max_seq_length=40)
    found = json.loads(invoke("--shards", google.folder, "--out", run, "--eval-only").stdout)
    assert found["num_samples"] == 20
    assert {"nsp_accuracy_forced", "nsp_accuracy_free"} <= found.keys()
    without = new_data_set(next_sentence="none")
    found = json.loads(invoke("--shards", without.folder, "--out", run, "--eval-only").stdout)
    assert not [name for name in found if name.startswith("nsp")]


def test_precision_is_that_of_the_run(data_set: DataSet, tmp_path: Path) -> None:
    fixed = ("--model", "tiny", "--batch-size", 16, "--max-steps", 1, "--precision", "bf16")
    assert invoke("--shards", data_set.folder, "--out", tmp_path / "run", *fixed).exit_code == 0
    arguments = ("--shards", data_set.folder, "--eval-only", "--micro-batch-size", 16)
    found = json.loads(invoke(*arguments, "--out", tmp_path / "run").stdout)
    (row,) = [row for row in load_metrics(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "eval"]
    assert found["mlm_loss"] == row["mlm_loss"]
    assert json.loads(invoke(*arguments, "--init", tmp_path / "run").stdout) == found
    whole = json.loads(invoke(*arguments, "--out", tmp_path / "run", "--precision", "fp32").stdout)
    assert whole["mlm_loss"] != found["mlm_loss"]


def edit_checkpoints(run: Path, out: Path, **changes: object) -> Path:
    """A copy of a run whose checkpoints say something else."""
    (out / "checkpoints").mkdir(parents=True)
    for path in (run / "checkpoints").glob("*.pt"):
        state = torch.load(path, weights_only=True)
        assert state.keys() >= changes.keys() - {"model"}
        state["options"]["model"] |= changes.pop("model", {})
        torch.save(state | changes, out / "checkpoints" / path.name)
        break
    return out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"vocab_size": 121}}, r"has 120 ids, that of the run in .* 121; give shards that were built with"),
        ({"tokenizer": "0" * 64}, r"that of the run in .* 000000000000, and their ids mean different things"),
        ({"model": {"max_position_embeddings": 20}}, r"samples have up to 24 tokens, the model 20 positions"),
    ],
)
def test_what_does_not_fit_is_refused(
    data_set: DataSet, run: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    out = edit_checkpoints(run, tmp_path / "run", **changes)
    result = invoke("--shards", data_set.folder, "--out", out, "--eval-only")
    assert result.exit_code == 1
    assert result.stdout == ""
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(result.stderr)


def test_nothing_to_evaluate_is_an_error(new_data_set: Callable[..., DataSet], run: Path, tmp_path: Path) -> None:
    none = new_data_set(eval_blocks=())
    result = invoke("--shards", none.folder, "--out", run, "--eval-only")
    assert result.exit_code == 1
    assert "holds no samples for evaluation; build with a larger --eval-fraction" in result.stderr
    result = invoke("--shards", none.folder, "--out", tmp_path / "absent", "--eval-only")
    assert result.exit_code == 1
    assert "no checkpoint to evaluate" in result.stderr
    assert not (tmp_path / "absent").exists()


def test_table_shows_what_there_is() -> None:
    result = {"step": 7, "num_samples": 1000, "num_predictions": 19_000, "mlm_loss": 2.5, "mlm_accuracy": 0.456}
    result |= {"mlm_perplexity": 12.18, "mlm_accuracy_mask": 0.4}
    assert evaluation_table(result).splitlines() == [
        "step 7: 1,000 held-out samples, 19,000 predictions",
        "                                   accuracy     loss  perplexity",
        "masked words                          45.6%   2.5000        12.2",
        "  where [MASK] is seen                40.0%",
    ]


def test_initial_weights_are_evaluated_as_their_run(
    data_set: DataSet, new_data_set: Callable[..., DataSet], run: Path, tmp_path: Path
) -> None:
    arguments = ("--shards", data_set.folder, "--eval-only")
    wanted = json.loads(invoke(*arguments, "--out", run, "--micro-batch-size", 16).stdout)
    fresh = ("--out", tmp_path / "absent", "--micro-batch-size", 16, "--init")
    assert json.loads(invoke(*arguments, *fresh, run).stdout) == wanted
    exported = json.loads(invoke(*arguments, *fresh, run / "hf").stdout)
    assert exported == {name: value for name, value in wanted.items() if name != "step"}
    # What is asked for goes before what lies in --out.
    beside = invoke(*arguments, "--out", run, "--micro-batch-size", 16, "--init", run / "hf")
    assert json.loads(beside.stdout) == exported
    refused = invoke(*arguments, "--out", run, "--init", tmp_path)
    assert refused.exit_code == 1
    assert f"--init {tmp_path} holds no checkpoints and no config.json" in refused.stderr
    assert not (tmp_path / "absent").exists()
    without = new_data_set(next_sentence="none")
    found = json.loads(invoke("--shards", without.folder, "--eval-only", *fresh, run / "hf").stdout)
    assert not [name for name in found if name.startswith("nsp")]


def test_weights_without_a_head_do_without_its_figures(data_set: DataSet, run: Path, tmp_path: Path) -> None:
    weights = load_file(run / "hf" / "model.safetensors")

    def evaluated(name: str, prefix: str) -> Result:
        shutil.copytree(run / "hf", tmp_path / name)
        kept = {key: tensor for key, tensor in weights.items() if not key.startswith(prefix)}
        save_file(kept, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
        return invoke("--shards", data_set.folder, "--out", tmp_path, "--eval-only", "--init", tmp_path / name)

    found = json.loads(evaluated("words", "cls.seq_relationship").stdout)
    assert "mlm_loss" in found
    assert not [name for name in found if name.startswith("nsp")]
    refused = evaluated("sentences", "cls.predictions")
    assert refused.exit_code == 1
    assert "has no masked-word head, so there is nothing to evaluate" in refused.stderr


def test_what_the_first_process_says_the_others_do_not(
    data_set: DataSet, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(run / "hf", tmp_path / "hf")
    (tmp_path / "hf" / "tokenizer.json").unlink()
    for is_main in (True, False):
        caplog.clear()
        world = World(rank=0 if is_main else 1, size=2, device=torch.device("cpu"))
        _load(TrainingData(data_sets=(data_set,)), folder=tmp_path, init=str(tmp_path / "hf"), world=world)
        assert ("whether its ids mean the tokens of" in caplog.text) == is_main


@pytest.mark.slow
def test_processes_print_once_what_one_prints(data_set: DataSet, run: Path) -> None:
    arguments = ("--shards", data_set.folder, "--out", run, "--eval-only")
    done = subprocess.run(bert_train(*arguments, processes=3), env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == invoke(*arguments).stdout
