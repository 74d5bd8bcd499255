import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bertdata.data_set import DataSet
from trainer.cli import main


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
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for fewer in (("--max-steps", 3), ("--epochs", 0.1)):
        refused = invoke(*arguments, *fewer)
        assert refused.exit_code == 1
        assert f"error: {tmp_path} holds a run at step 4, past the " in refused.stderr
        assert "give a larger --max-steps (or --epochs), or another --out folder" in refused.stderr
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("epochs", ["inf", "nan", "1e308"])
def test_epochs_must_be_finite(data_set: DataSet, tmp_path: Path, epochs: str) -> None:
    result = invoke("--shards", data_set.folder, "--out", tmp_path, "--epochs", epochs)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: --epochs is {float(epochs):g}; give a finite number")


def test_eval_only_needs_a_checkpoint(data_set: DataSet, tmp_path: Path) -> None:
    result = invoke("--shards", data_set.folder, "--out", tmp_path, "--eval-only")
    assert result.exit_code == 1
    assert "no checkpoint to evaluate" in result.stderr


def test_trainer_imports_neither_beam_nor_transformers() -> None:
    code = (
        "import sys, pkgutil, importlib, trainer\n"
        "for module in pkgutil.iter_modules(trainer.__path__):\n"
        "    module.name == '__main__' or importlib.import_module(f'trainer.{module.name}')\n"
        "print([name for name in ('apache_beam', 'transformers') if name in sys.modules])\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_help_does_not_load_torch() -> None:
    code = "import sys, trainer.cli\nprint('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_public_names_exist() -> None:
    code = "import trainer\nprint([getattr(trainer, name).__name__ for name in trainer.__all__] == trainer.__all__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "True"
