import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from bertdata.data_set import DataSet
from trainer.cli import main
from trainer.config import ModelOptions, TrainOptions
from trainer.data import TrainingData
from trainer.loader import Loader
from trainer.metrics import load_metrics
from trainer.step import cutting_for


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="bert-train")


def test_help_describes_every_option() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for parameter in main.params:
        assert parameter.help, parameter.name  # type: ignore[attr-defined]
        assert parameter.opts[0] in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing option '--shards'"),
        (("--shards", "x", "--batchsize", "3"), "--batch-size"),
        (("--shards", "x", "--batch-size", "0"), "x>=1"),
        (("--shards", "x", "--model", "huge"), "'tiny'"),
        (("--shards", "x", "--epochs", "1", "--max-steps", "5"), "--epochs and --max-steps exclude each other"),
        (("--shards", "x", "--model", "tiny", "--config", "c.json"), "--model and --config exclude each other"),
        (("--shards", "x", "--compile-mode", "reduce-overhead"), "give --compile, too"),
        (("--shards", "x", "--compile-mode", "default", "--no-compile"), "give --compile, too"),
    ],
)
def test_usage_errors_exit_with_2(arguments: tuple[str, ...], message: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_missing_data_set_exits_with_1(tmp_path: Path) -> None:
    result = invoke("--shards", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {tmp_path} has no manifest.json")
    assert result.stdout == ""


def test_run_prints_its_epochs_and_evaluates(data_set: DataSet, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ("--shards", data_set.folder, "--out", out)
    result = invoke(*arguments, "--epochs", 2, "--batch-size", 32)
    assert result.exit_code == 0, result.stderr
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [["epoch", "step"], ["1", "5"], ["2", "10"]]

    again = invoke(*arguments)
    assert again.stdout == result.stdout

    evaluated = invoke(*arguments, "--eval-only", "--eval-samples", 9)
    assert evaluated.exit_code == 0, evaluated.stderr
    values = json.loads(evaluated.stdout)
    assert (values["step"], values["num_samples"]) == (10, 9)

    refused = invoke(*arguments, "--batch-size", 16)
    assert refused.exit_code == 1
    assert "batch_size is 16, not 32" in refused.stderr


def test_fewer_steps_than_the_checkpoint_has_are_refused(data_set: DataSet, tmp_path: Path) -> None:
    arguments = ("--shards", data_set.folder, "--out", tmp_path, "--batch-size", 16)
    assert invoke(*arguments, "--max-steps", 4).exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "lock"}
    for fewer in (("--max-steps", 3), ("--epochs", 0.1)):
        refused = invoke(*arguments, *fewer)
        assert refused.exit_code == 1
        assert f"error: {tmp_path} holds a run at step 4, past the " in refused.stderr
        assert "give a larger --max-steps (or --epochs), or another --out folder" in refused.stderr
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "lock"} == before


@pytest.mark.parametrize("epochs", ["inf", "nan", "1e308"])
def test_epochs_must_be_finite(data_set: DataSet, tmp_path: Path, epochs: str) -> None:
    result = invoke("--shards", data_set.folder, "--out", tmp_path, "--epochs", epochs)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: --epochs is {float(epochs):g}; give a finite number")


def test_eval_only_needs_a_checkpoint(data_set: DataSet, tmp_path: Path) -> None:
    result = invoke("--shards", data_set.folder, "--out", tmp_path, "--eval-only")
    assert result.exit_code == 1
    assert "no checkpoint to evaluate" in result.stderr


def test_help_does_not_load_torch() -> None:
    code = "import sys, trainer.cli\nprint('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def losses_of(data_set: DataSet, out: Path, *arguments: object) -> list[dict[str, float]]:
    fixed = ("--shards", data_set.folder, "--out", out, "--batch-size", 16, "--max-steps", 3, "--log-every", 1)
    result = invoke(*fixed, "--eval-samples", 4, "--hidden-dropout", 0, *arguments)
    assert result.exit_code == 0, result.output
    return [row for row in load_metrics(out / "metrics.jsonl") if row["kind"] == "train"]


def test_options_of_the_order_of_samples_change_it(new_data_set: Callable[..., DataSet], tmp_path: Path) -> None:
    data_set = new_data_set(train_blocks=((6,) * 12,) * 4)
    usual = losses_of(data_set, tmp_path / "usual")
    for number, arguments in enumerate((("--window-blocks", 1), ("--shuffle-shards", 1))):
        other = losses_of(data_set, tmp_path / str(number), *arguments)
        assert [row["loss"] for row in other] != [row["loss"] for row in usual]
    again = invoke(
        "--shards", data_set.folder, "--out", tmp_path / "0", "--window-blocks", 2, "--max-steps", 5, "--batch-size", 16
    )
    assert again.exit_code == 1
    assert "window_blocks is 2, not 1" in again.stderr


def test_padding_for_compiled_graphs_changes_no_loss(data_set: DataSet, tmp_path: Path) -> None:
    usual = losses_of(data_set, tmp_path / "usual")
    padded = losses_of(data_set, tmp_path / "padded", "--pad-to-multiple", 64)
    for one, other in zip(usual, padded, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)


def test_several_data_sets_are_mixed_by_weight(
    data_set: DataSet, new_data_set: Callable[..., DataSet], tmp_path: Path
) -> None:
    other = new_data_set(seed=7)
    arguments = ("--out", tmp_path, "--batch-size", 16, "--max-steps", 3, "--eval-samples", 4)
    result = invoke("--shards", f"{data_set.folder}:3", f"{other.folder}:1", *arguments)
    assert result.exit_code == 0, result.output
    assert f"320 samples of {data_set.folder} (weight 3), {other.folder} (weight 1), 82 held out" in result.output
    changed = invoke("--shards", f"{data_set.folder}:2", f"{other.folder}:1", *arguments)
    assert changed.exit_code == 1
    assert "weights is 0.666666666667, 0.333333333333, not 0.75, 0.25" in changed.output


def test_bad_blocks_are_left_out_and_counted_when_asked(new_data_set: Callable[..., DataSet], tmp_path: Path) -> None:
    broken = new_data_set()
    path = broken.folder / broken.manifest.shards[0].name
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    arguments = ("--shards", broken.folder, "--batch-size", 16, "--max-steps", 10, "--log-every", 5)
    refused = invoke(*arguments, "--out", tmp_path / "refused")
    assert refused.exit_code == 1
    assert path.name in refused.output
    assert "--skip-bad-blocks" in refused.output
    rows = losses_of(broken, tmp_path / "skipped", "--skip-bad-blocks", "--max-steps", 10)
    assert [row["bad_blocks"] for row in rows][-1] == 1
    assert [row["bad_samples"] for row in rows][-1] == 40


def test_run_without_a_sound_block_is_an_error(new_data_set: Callable[..., DataSet], tmp_path: Path) -> None:
    broken = new_data_set(train_blocks=((20,),), eval_blocks=((9,),))
    for shard in broken.manifest.shards:
        path = broken.folder / shard.name
        data = bytearray(path.read_bytes())
        data[600] ^= 1
        path.write_bytes(data)
    arguments = ("--shards", broken.folder, "--out", tmp_path, "--batch-size", 4, "--max-steps", 3, "--skip-bad-blocks")
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert f"all training blocks of {broken.folder} are damaged" in result.output
    assert not list(tmp_path.glob("checkpoints/*"))


def test_evaluation_goes_on_without_damaged_blocks(new_data_set: Callable[..., DataSet], tmp_path: Path) -> None:
    broken = new_data_set(eval_blocks=((30, 11), (9,)))
    fixed = ("--batch-size", 16, "--max-steps", 1, "--skip-bad-blocks", "--shards", broken.folder, "--out")
    evaluated = []
    for number, shard in enumerate((None, *(one for one in broken.manifest.shards if one.split == "eval"))):
        if shard is not None:
            data = bytearray((broken.folder / shard.name).read_bytes())
            data[600] ^= 1
            (broken.folder / shard.name).write_bytes(data)
        result = invoke(*fixed, tmp_path / str(number))
        assert result.exit_code == 0, result.output
        rows = load_metrics(tmp_path / str(number) / "metrics.jsonl")
        evaluated.append([row["num_samples"] for row in rows if row["kind"] == "eval"])
    assert evaluated == [[50], [20], [11]]
    path = broken.folder / broken.manifest.shards[2].name
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    result = invoke(*fixed, tmp_path / "none")
    assert result.exit_code == 0, result.output
    assert "nothing is evaluated: all held-out blocks" in result.output
    assert all(row["kind"] != "eval" for row in load_metrics(tmp_path / "none" / "metrics.jsonl"))
    assert invoke(*fixed, tmp_path / "none", "--eval-only").exit_code == 1


def test_padding_of_a_run_stays_below_three_percent(data_set: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    data = TrainingData(data_sets=(data_set,))
    model = ModelOptions.of_size("tiny", vocab_size=120)
    options = {"out": "run", "model": model, "batch_size": 64, "micro_batch_size": 64, "max_steps": 1}
    options |= {"learning_rate": 1e-3, "warmup_steps": 0}
    plan = data.make_plan(data.initial_state(seed=0, batch_size=64))

    def shapes(**more: int) -> tuple[float, int]:
        cutting = cutting_for(data, TrainOptions(**options, **more), device=torch.device("cpu"))
        loader = Loader(plan, data.open_split("train"), rank=0, world_size=1, cutting=cutting)
        steps = list(loader.steps(0, 20))
        batches = [batch for step in steps for batch in step.micro_batches]
        padding = sum(batch.max_seqlen * batch.num_samples for batch in batches) - sum(
            step.num_tokens for step in steps
        )
        found = {(len(batch.token_ids), batch.num_samples, len(batch.mask_rows)) for batch in batches}
        return padding / sum(step.num_tokens for step in steps), len(found)

    assert shapes()[0] < 0.03
    assert shapes(pad_to_multiple=256)[1] <= 4
